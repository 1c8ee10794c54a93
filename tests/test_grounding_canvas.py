"""Boxes with phrases, painted: `paint` gets what is shown, and a fault becomes one sentence."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gligen_lessons.widgets.box_canvas import BoxCanvas
from gligen_lessons.widgets.grounding_canvas import GroundingCanvas, grounding_canvas

ROOT = Path(__file__).resolve().parent.parent
CAPTION, PHRASES = "a dog by a tree", ["a dog", "a tree"]
BOXES = [[.1, .5, .4, .9], [.5, .1, .9, .8]]
COLOURS = ((200, 40, 40), (40, 160, 60), (40, 60, 200))
EMPTY = (240, 240, 240)


class Painter:
    """Fills each box with a colour, and remembers what it was asked for."""

    def __init__(self):
        self.requested = []

    def __call__(self, *requested):
        self.requested.append(requested)
        caption, phrases, boxes, seed, tau = requested
        picture = np.full((40, 60, 3), EMPTY, np.uint8)
        for i, (x0, y0, x1, y1) in enumerate((boxes * torch.tensor([60, 40, 60, 40])).tolist()):
            picture[round(y0):round(y1), round(x0):round(x1)] = COLOURS[(i + seed) % 3]
        return picture


def canvas(paint=None, **options):
    given_parts = {"caption": CAPTION, "phrases": PHRASES, "boxes": BOXES} | options
    return grounding_canvas(paint or Painter(), **given_parts)


def shown(widget):
    return np.asarray(Image.open(io.BytesIO(widget.picture)))


def press(widget, **changed):
    """What the page sends when a learner presses "paint", with all that was changed before."""
    widget.set_state({**changed, "requested": widget.requested + 1, "painting": True})


def only_request(paint):
    (caption, phrases, boxes, seed, tau), = paint.requested
    return caption, phrases, boxes, seed, tau


sides = st.tuples(st.integers(0, 95), st.integers(5, 100)).filter(lambda ab: ab[1] - ab[0] >= 5)
one_box = st.tuples(sides, sides).map(
    lambda xy: [xy[0][0] / 100, xy[1][0] / 100, xy[0][1] / 100, xy[1][1] / 100])
things = st.lists(st.tuples(st.text(min_size=1).filter(str.strip), one_box), max_size=8)


@given(things, st.text(min_size=1).filter(str.strip), st.integers(0, 99), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_paint_gets_exactly_what_is_shown(things, caption, seed, tau):
    phrases, boxes = [word for word, _ in things], [box for _, box in things]
    paint = Painter()
    widget = grounding_canvas(paint)
    press(widget, caption=caption, phrases=phrases, boxes=boxes, seed=seed, tau=tau)
    got = only_request(paint)
    assert got[:2] == (caption, phrases) and got[3:] == (seed, tau)
    assert got[2].dtype == torch.float32 and got[2].shape == (len(boxes), 4)
    torch.testing.assert_close(got[2], torch.tensor(boxes).reshape(-1, 4))
    np.testing.assert_array_equal(shown(widget), Painter()(*got))
    assert widget.message == "" and widget.generated["boxes"] == boxes == widget.boxes


def test_state_set_in_python_is_what_is_painted():
    paint = Painter()
    widget = canvas(paint)
    assert paint.requested == [] and widget.picture == b""
    widget.caption, widget.phrases, widget.boxes = "snow", ["a cat"], [[.2, .2, .6, .7]]
    widget.seed, widget.tau = 7, .3
    widget.paint_now()
    caption, phrases, boxes, seed, tau = only_request(paint)
    assert (caption, phrases, seed, tau) == ("snow", ["a cat"], 7, .3)
    torch.testing.assert_close(boxes, torch.tensor([[.2, .2, .6, .7]]))
    assert tuple(shown(widget)[16, 20]) == COLOURS[7 % 3] and tuple(shown(widget)[2, 2]) == EMPTY


def test_a_caption_alone_can_be_painted():
    paint = Painter()
    press(canvas(paint, phrases=[], boxes=[]))
    assert only_request(paint)[2].shape == (0, 4)


def test_it_says_that_it_paints_while_it_paints():
    seen = []
    widget = canvas(lambda *requested: (seen.append((widget.painting, widget.message)),
                                        Painter()(*requested))[1])
    widget.message = "an old complaint"
    widget.paint_now()
    assert seen == [(True, "")] and widget.painting is False


def test_a_moved_box_is_painted_again_only_if_that_is_asked_for():
    paint = Painter()
    widget = canvas(paint)
    widget.paint_now()
    moved = [[.3, .5, .6, .9], BOXES[1]]
    widget.set_state({"boxes": moved})
    assert len(paint.requested) == 1 and widget.generated["boxes"] == BOXES
    widget.set_state({"repaint": True})
    assert len(paint.requested) == 1
    widget.set_state({"boxes": BOXES})                   # back to what the picture shows
    assert len(paint.requested) == 1
    widget.set_state({"boxes": moved})
    assert len(paint.requested) == 2 and widget.generated["boxes"] == moved
    assert tuple(shown(widget)[34, 25]) == COLOURS[0] and tuple(shown(widget)[34, 9]) == EMPTY


def test_a_removed_box_is_painted_away_and_a_new_one_waits_for_its_phrase():
    paint = Painter()
    widget = canvas(paint)
    widget.repaint = True
    widget.set_state({"boxes": [*BOXES, [0, 0, .2, .2]], "phrases": [*PHRASES, ""]})
    assert paint.requested == [] and widget.message == ""
    widget.set_state({"boxes": BOXES[:1], "phrases": PHRASES[:1]})
    assert only_request(paint)[1] == PHRASES[:1]


def test_one_press_paints_once_whatever_comes_with_it():
    paint = Painter()
    widget = canvas(paint)
    widget.repaint = True
    press(widget, boxes=[[.3, .5, .6, .9], BOXES[1]])
    assert len(paint.requested) == 1
    press(widget)                                        # the same again, since one asked for it
    assert len(paint.requested) == 2


@pytest.mark.parametrize("change, sentence", [
    ({"phrases": ["a dog", " "]}, "Phrase 1 is empty; say what its box should hold."),
    ({"phrases": ["a dog"]}, "1 phrases and 2 boxes: each box needs one phrase."),
    ({"boxes": [BOXES[0], [.5, .1, .52, .8]]}, "Box 1 is too small to paint in: make each side at "
                                               "least 4% of the picture."),
    ({"boxes": BOXES * 5, "phrases": PHRASES * 5}, "10 boxes, but no more than 8 fit: remove"),
    ({"boxes": [], "phrases": [], "caption": " "}, "There is nothing to paint yet: draw a box, or"),
])
def test_a_fault_becomes_a_sentence_and_the_old_picture_stays(change, sentence):
    paint = Painter()
    widget = canvas(paint)
    press(widget)
    before = widget.picture, widget.generated
    press(widget, **change)
    assert sentence in widget.message and "\n" not in widget.message
    assert (widget.picture, widget.generated) == before and len(paint.requested) == 1
    assert widget.painting is False
    press(widget, caption=CAPTION, boxes=BOXES, phrases=PHRASES)
    assert widget.message == "" and len(paint.requested) == 2


def fails(fault):
    def paint(*requested):
        raise fault
    return paint


@pytest.mark.parametrize("paint, sentence", [
    (fails(ValueError("tau must lie in 0..1.\nAnd more.")), "Tau must lie in 0..1."),
    (fails(RuntimeError("out of memory")), "Paint stopped with RuntimeError: out of memory"),
    (fails(KeyError()), "Paint stopped with KeyError"),
    (lambda *requested: np.zeros((4, 4, 3)),
     "Paint must give a picture (h,w,3) uint8, it gave float64 "
                                         "(4, 4, 3)."),
    (lambda *requested: torch.zeros(3, 4, 4, dtype=torch.uint8),
     "Paint must give a picture (h,w,3) "
                                                             "uint8, it gave uint8 (3, 4, 4)."),
])
def test_what_fails_in_paint_is_said_in_the_page(paint, sentence):
    widget = canvas(paint)
    press(widget)
    assert widget.message == sentence and widget.picture == b"" and not widget.painting


def test_a_picture_that_was_interrupted_is_not_waited_for():
    widget = canvas(fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        widget.paint_now()
    assert widget.painting is False


@pytest.mark.parametrize("change, error, words", [
    ({"paint": "a dog"}, TypeError, "must be a function"),
    ({"phrases": ["a dog"]}, ValueError, "1 phrases and 2 boxes"),
    ({"boxes": [[5, 5, 20, 20], [1, 1, 9, 9]]}, ValueError, "look like pixels"),
    ({"boxes": [[.4, .5, .1, .9], BOXES[1]]}, ValueError, "no width or height"),
    ({"limit": 1}, ValueError, "2 boxes, but no more than 1 fit"),
    ({"tau": 1.5}, traitlets.TraitError, "tau"),
    ({"seed": -1}, traitlets.TraitError, "seed"),
])
def test_bad_input_is_refused_at_once(change, error, words):
    with pytest.raises(error, match=words):
        canvas(**change)


def test_a_page_without_widgets_gets_a_still_and_words():
    paint = Painter()
    widget = canvas(paint, seed=3, tau=.5)
    bundle, _ = widget._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    for word in (CAPTION, "a dog from 10% to 40% of the width and 50% to 90% of the height",
                 "a tree from 50%", "Seed 3, tau 0.5"):
        assert word in bundle["text/plain"]
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert still.width > 1.5 * still.height
    left, right = widget.still().axes
    assert [text.get_text() for text in left.texts] == PHRASES and left.get_title() == CAPTION
    np.testing.assert_array_equal(right.images[0].get_array(), shown(widget))
    np.testing.assert_array_equal(shown(widget), Painter()(*only_request(paint)))    # painted once
    corners = np.array(left.lines[1].get_xydata())       # the first box, after its halo
    np.testing.assert_allclose((corners.min(0) + .5) / 256, BOXES[0][:2])
    np.testing.assert_allclose((corners.max(0) + .5) / 256, BOXES[0][2:])


def test_the_still_shows_no_picture_of_other_boxes():
    """What cannot be painted is said in the still, and the live page begins without a complaint."""
    widget = canvas()
    widget.paint_now()
    widget.phrases = ["a dog", ""]
    left, right = widget.still().axes
    assert [text.get_text() for text in left.texts] == ["a dog", "box 1"]
    assert "Phrase 1 is empty" in right.texts[0].get_text().replace("\n", " ")
    assert right.get_title().strip() == "" and widget.message == ""
    assert "a box without a phrase from 50%" in widget.described()


def test_a_canvas_with_nothing_on_it_can_be_shown():
    widget = grounding_canvas(Painter())
    assert "Boxes: none yet" in widget._repr_mimebundle_()[0]["text/plain"]
    assert widget.message == "" and widget.picture == b""


def test_signs_of_formulas_are_shown_as_they_are():
    widget = canvas(caption=r"$\x$ of five", phrases=[r"a $\bad$ sign", "$"])
    assert widget.still()._repr_png_()


def test_scripts_find_it_by_its_classes():
    widget = canvas()
    assert {"grounding-canvas", "box-canvas"} <= set(widget._dom_classes)
    for name in ("caption", "phrase", "add", "paint", "message", "picture"):
        assert re.search(rf'"[^"]*grounding-{name}[" ]', str(widget._esm)), name


def test_both_canvases_move_boxes_by_the_same_code():
    boxes = str(BoxCanvas._esm).partition("export default")[0]
    assert str(GroundingCanvas._esm).startswith(boxes)
    assert str(GroundingCanvas._esm).count("export default") == 1


def test_nothing_is_printed(capsys):
    widget = canvas()
    press(widget)
    press(widget, phrases=["", ""])
    widget._repr_mimebundle_()
    assert capsys.readouterr() == ("", "")


def test_the_page_part_asks_nothing_of_the_network():
    for name in ("grounding_canvas.js", "grounding_canvas.css"):
        text = (ROOT / "gligen_lessons" / "widgets" / name).read_text("utf-8")
        assert not re.search(r"https?:|//cdn|\bimport\b|@import|fetch\(|url\(", text), name


def test_importing_the_widgets_loads_no_network():
    code = ("import sys, gligen_lessons.widgets.grounding_canvas; "
            "print({m for m in ('gligen_lessons.gligen', 'gligen_lessons.unet') "
            "if m in sys.modules})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
