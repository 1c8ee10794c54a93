"""What the README promises is what the repository holds."""

import re
from pathlib import Path

import nbformat
import pytest

import course
from gligen_lessons import curriculum
from tools import readme

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_table_of_lessons_repeats_each_notebooks_own_numbers(path):
    about = nbformat.read(path, 4).metadata["course"]
    (line,) = [line for line in README.splitlines() if line.startswith(f"| [{path.name}]")]
    assert line == curriculum.row(path.stem, about)
    assert line.endswith(f"| {about['minutes_learn']} min | {about['minutes_teach']} min "
                         f"| {about['seconds_cpu']} s |")


def test_it_says_how_many_lessons_are_here():
    assert f"Lessons 0 to {len(NOTEBOOKS) - 1} are here" in README
    assert readme.renewed(README, NOTEBOOKS) == README, "run python tools/readme.py"


def test_a_new_lesson_gets_its_line_and_its_number():
    fewer = readme.renewed(README, NOTEBOOKS[:4])
    assert "Lessons 0 to 3 are here" in fewer and "04_clip.ipynb" not in fewer
    assert readme.renewed(fewer, NOTEBOOKS) == README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_commands_exist():
    for word in re.findall(r"python course\.py (\w+)", README):
        assert word in ("lab", "test", *course.FORWARDED), word
