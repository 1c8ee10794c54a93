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
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert f"Lessons {readme.ranges(numbers)} are here" in README
    assert readme.renewed(README, NOTEBOOKS) == README, "run python tools/readme.py"


def test_a_new_lesson_gets_its_line_and_its_number():
    fewer = readme.renewed(README, NOTEBOOKS[:4])
    assert "Lessons 0 to 3 are here" in fewer and "04_clip.ipynb" not in fewer
    assert readme.renewed(fewer, NOTEBOOKS) == README


@pytest.mark.parametrize("numbers, words", [
    ([0, 1, 2], "0 to 2"), ([0, 1, 2, 4, 5], "0 to 2, 4 and 5"), ([0, 1, 2, 4], "0 to 2 and 4"),
    ([0, 1, 2, 4, 5, 6, 8], "0 to 2, 4 to 6 and 8")])
def test_lessons_that_are_missing_leave_a_gap(numbers, words):
    assert readme.ranges(numbers) == words
    notebooks = [path for path in NOTEBOOKS if int(path.name[:2]) in numbers]
    if len(notebooks) == len(numbers):
        text = readme.renewed(README, notebooks)
        assert f"Lessons {words} are here" in text and readme.renewed(text, NOTEBOOKS) == README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_commands_exist():
    for word in re.findall(r"python course\.py (\w+)", README):
        assert word in ("lab", "test", *course.FORWARDED), word
