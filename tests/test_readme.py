"""What the README promises is what the repository holds."""

import re
from pathlib import Path

import nbformat
import pytest

import course

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_table_of_lessons_repeats_each_notebooks_own_numbers(path):
    about = nbformat.read(path, 4).metadata["course"]
    row = next(line for line in README.splitlines() if line.startswith("|") and path.name in line)
    assert row.endswith(f"| {about['minutes_learn']} min | {about['minutes_teach']} min "
                        f"| {about['seconds_cpu']} s |")


def test_it_says_how_many_lessons_are_here():
    assert f"Lessons 0 to {len(NOTEBOOKS) - 1} are here" in README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_commands_exist():
    for word in re.findall(r"python course\.py (\w+)", README):
        assert word in ("lab", "test", *course.FORWARDED), word
