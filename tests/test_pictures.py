"""The pictures at the heads of lessons: each has a script, and shows what is there now."""

import re
from pathlib import Path

import pytest

from tools.pictures import __main__ as pictures

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "README.md"]
SHOWN = {name for page in PAGES
         for name in re.findall(r"pictures/(\w+)\.png", page.read_text("utf-8"))}


def test_every_picture_that_a_page_shows_has_a_script_and_nothing_else_lies_there():
    there = {path.stem for path in pictures.FOLDER.glob("*.png")}
    assert SHOWN == set(pictures.PICTURES) == there


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_no_picture_is_stale(name):
    assert pictures.recorded().get(name) == pictures.inputs(name), "run python -m tools.pictures"


def test_other_weights_and_another_function_make_a_picture_stale(monkeypatch):
    before = pictures.inputs("06_captions")
    monkeypatch.setattr(pictures.weights, "fingerprint", lambda name: f"other {name}")
    assert pictures.inputs("06_captions") != before
    assert pictures.inputs("08_gate") == pictures.recorded()["08_gate"]
    monkeypatch.setitem(pictures.PICTURES, "08_gate", pictures.PICTURES["10_hole"])
    assert pictures.inputs("08_gate") != pictures.recorded()["08_gate"]
