"""The field's terms stand everywhere; words of our own do not come back."""

from pathlib import Path

import pytest

from tools import terms

ROOT = Path(__file__).resolve().parent.parent
FILES = [*sorted((ROOT / "gligen_lessons").rglob("*.py")),
         *sorted((ROOT / "gligen_lessons").rglob("*.js")),
         *sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "notebooks").glob("*.md")),
         *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_terms_are_those_of_the_field(path):
    assert terms.in_file(path) == []


@pytest.mark.parametrize("text", [
    "Lesson 6's painter", "the network guesses the noise", "behind shut gates",
    "all gates are shut", "latents of spread one", "beside a short cut",
    "x, y as parts of the picture",     "masks = masks_of(boxes, 16)", "a box as waves"])
def test_a_word_of_our_own_is_found(text):
    assert len(terms.violations(text, "here")) == 1


@pytest.mark.parametrize("text", [
    "so nobody has to guess", "the robot waves", "the shop is shut", "a walk to the left",
    "PIL paints a polygon", "the paint on the wall"])
def test_plain_english_is_free(text):
    assert terms.violations(text, "here") == []
