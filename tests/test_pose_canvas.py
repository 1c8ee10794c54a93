"""Skeletons with words, painted: `paint` gets what is shown, and a fault becomes one sentence."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gligen_lessons.grounding_inputs import keypoint_grounding
from gligen_lessons.widgets.grounding_canvas import GroundingCanvas
from gligen_lessons.widgets.pose_canvas import STARTS, PoseCanvas, pose_canvas, start_pose
from gligen_lessons.world.coco_out import SKELETON
from gligen_lessons.world.vocabulary import KEYPOINTS

ROOT = Path(__file__).resolve().parent.parent
NOSE, LEFT_WRIST, RIGHT_WRIST = (KEYPOINTS.index(name)
                                 for name in ("nose", "left_wrist", "right_wrist"))


class Dots:
    """A picture with a dot at each visible joint; it remembers what it was asked for."""

    def __init__(self):
        self.requested = []

    def __call__(self, *requested):
        self.requested.append(requested)
        caption, keypoints, words, seed = requested
        picture = np.full((50, 100, 3), 240, np.uint8)
        for x, y, visible in keypoints.flatten(0, 1).tolist():
            if visible == 2:
                picture[round(y * 49), round(x * 99)] = (seed, 0, 0)
        return picture


def canvas(paint=None, **options):
    return pose_canvas(paint or Dots(), **{"caption": "on snow"} | options)


def figure(**changed):
    """A figure that stands, with some of its joints changed."""
    points = np.array(start_pose("standing"))
    for name, joint in changed.items():
        points[KEYPOINTS.index(name)] = joint
    return points.tolist()


def press(widget, **changed):
    """What the page sends when a learner presses "paint", with all that was changed before."""
    widget.set_state({**changed, "requested": widget.requested + 1, "painting": True})


def shown(widget):
    return np.asarray(Image.open(io.BytesIO(widget.picture)))


def test_paint_gets_exactly_what_is_shown():
    paint = Dots()
    widget = canvas(paint)
    points = [figure(left_wrist=[.9, .1, 2]), figure(nose=[.25, .5, 1])]
    press(widget, keypoints=points, words=["a robot", "a monkey"], caption="at night", seed=7)
    (caption, keypoints, words, seed), = paint.requested
    assert (caption, words, seed) == ("at night", ["a robot", "a monkey"], 7)
    assert keypoints.dtype == torch.float32
    torch.testing.assert_close(keypoints, torch.tensor(points))
    assert widget.keypoints == points and widget.generated["keypoints"] == points
    assert tuple(shown(widget)[5, 89]) == (7, 0, 0) and widget.message == ""


def test_what_paint_gets_is_what_the_model_takes():
    paint = Dots()
    press(canvas(paint, figures=[figure(nose=[.5, .3, 1]), figure()], limit=2))
    grounding = keypoint_grounding([paint.requested[0][1]])
    assert grounding.masks.sum() == 33 and grounding.masks[0, NOSE] == 0
    assert grounding.points[0, 17].tolist() == pytest.approx(figure()[0][:2])


def test_state_set_in_python_is_what_is_painted():
    paint = Dots()
    widget = canvas(paint)
    assert paint.requested == [] and widget.picture == b""
    widget.keypoints, widget.words = [figure(nose=[.1, .2, 2])], ["a monkey"]
    widget.seed, widget.caption = 3, "in fog"
    widget.paint_now()
    caption, keypoints, words, seed = paint.requested[0]
    assert (caption, words, seed) == ("in fog", ["a monkey"], 3)
    torch.testing.assert_close(keypoints[0, NOSE], torch.tensor([.1, .2, 2]))


def test_a_caption_alone_can_be_painted():
    paint = Dots()
    press(canvas(paint, figures=[]))
    assert paint.requested[0][1].shape == (0, 17, 3) and paint.requested[0][2] == []


def test_it_begins_with_a_person_of_the_world():
    widget = canvas()
    assert widget.words == ["a person"] and widget.choices == ["a person", "a robot", "a monkey"]
    assert widget.keypoints == [start_pose("standing")]
    for name in STARTS:
        points = np.array(start_pose(name))
        assert points.shape == (17, 3) and (points[:, 2] == 2).all()
        assert (points[:, :2] > .1).all() and (points[:, :2] < .9).all()
    raised = np.array(widget.starts[1])
    assert raised[LEFT_WRIST, 1] < raised[NOSE, 1] < raised[RIGHT_WRIST, 1]


def test_the_callers_words_are_those_to_choose_from():
    widget = canvas(choices=["an owl", "a king"], figures=[figure(), figure()])
    assert widget.words == ["an owl", "an owl"]
    assert canvas(choices=["an owl", "a king"], words=["a king"]).words == ["a king"]


def test_a_picture_can_lie_under_the_skeleton():
    image = np.full((8, 8, 3), 77, np.uint8)
    widget = canvas(picture=image)
    np.testing.assert_array_equal(shown(widget), image)
    press(widget)
    assert shown(widget).shape == (50, 100, 3)


def test_arrays_are_taken_and_lists_are_given():
    for points in (np.array([figure()]), torch.tensor([figure()], dtype=torch.float64)):
        assert canvas(figures=points).keypoints == [figure()]


@pytest.mark.parametrize("lost", [[0, 0, 0], [float("nan"), .5, 1], [1.5, .2, 0], [.2, -.1, 1]])
def test_a_hidden_joint_that_lies_nowhere_waits_inside_the_figure(lost):
    widget = canvas(figures=[figure(left_wrist=lost)])
    x, y, visible = widget.keypoints[0][LEFT_WRIST]
    assert .4 < x < .6 and .3 < y < .8 and visible == lost[2]
    before = widget.keypoints
    widget.keypoints = before                            # and stays where it was put
    assert widget.keypoints == before


def test_a_hidden_joint_keeps_its_place():
    assert canvas(figures=[figure(nose=[.3, .4, 1])]).keypoints[0][NOSE] == [.3, .4, 1]


NAN = float("nan")
WRONG = {
    "outside": (figure(nose=[1.2, .5, 2]), r"Figure 0: a visible key point lies at \[1.2"),
    "NaN": (figure(nose=[NAN, .5, 2]), r"Figure 0: a visible key point lies at \[nan"),
    "16": (figure()[:16], r"Figure 0: 17 key points .* make a figure, got \(16, 3\)"),
    "18": (figure() + [[.5, .5, 2]], r"got \(18, 3\)"),
    "pairs": ([point[:2] for point in figure()], r"got \(17, 2\)"),
    "words": ("a person", "Figure 0: 17 key points .* got a person"),
    "unseen": ([[x, y, 1] for x, y, _ in figure()], "Figure 0: no key point is visible"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_figure_is_refused_in_one_sentence(name):
    body, sentence = WRONG[name]
    widget = canvas()
    for give in (lambda: canvas(figures=[body]), lambda: setattr(widget, "keypoints", [body])):
        with pytest.raises(ValueError, match=sentence) as found:
            give()
        assert "\n" not in str(found.value)
    assert widget.keypoints == [figure()]                # as before


@pytest.mark.parametrize("change, error, words", [
    ({"paint": "a dog"}, TypeError, r"must be a function \(caption, keypoints, words, seed\)"),
    ({"words": ["a person", "a robot"]}, ValueError, "2 words and 1 skeletons"),
    ({"words": ["a boat"]}, ValueError, "'a boat' is no word for a skeleton here; choose from a p"),
    ({"figures": [figure()] * 3}, ValueError, "3 skeletons, but no more than 2 fit"),
    ({"seed": -1}, Exception, "seed"),
])
def test_bad_input_is_refused_at_once(change, error, words):
    with pytest.raises(error, match=words):
        canvas(**change)


@pytest.mark.parametrize("change, sentence", [
    ({"words": ["a person", "a robot"]}, "2 words and 1 skeletons: each needs one word."),
    ({"words": ["a boat"]}, "'a boat' is no word for a skeleton here; choose from a person, "
                            "a robot, a monkey."),
    ({"keypoints": [figure()] * 3}, "3 skeletons, but no more than 2 fit: remove some."),
    ({"keypoints": [], "words": [], "caption": " "}, "There is nothing to paint yet: add a skeleton"
                                                     ", or write a caption."),
])
def test_a_fault_becomes_a_sentence_and_the_old_picture_stays(change, sentence):
    paint = Dots()
    widget = canvas(paint)
    press(widget)
    before = widget.picture, widget.generated
    press(widget, **change)
    assert widget.message == sentence and not widget.painting
    assert (widget.picture, widget.generated) == before and len(paint.requested) == 1


def test_what_fails_in_paint_is_said_in_the_page():
    def fails(*requested):
        raise RuntimeError("out of memory")

    widget = canvas(fails)
    press(widget)
    assert widget.message == "Paint stopped with RuntimeError: out of memory"
    assert widget.picture == b"" and not widget.painting


def test_what_the_models_checks_say_is_said_without_the_number_of_the_picture():
    widget = canvas(lambda caption, keypoints, words, seed: keypoint_grounding([keypoints * 2]))
    press(widget)
    assert widget.message.startswith("Figure 0: ")


def test_a_page_without_widgets_gets_a_still_and_words():
    paint = Dots()
    widget = canvas(paint, figures=[figure(), figure(nose=[.5, .1, 1])], seed=3,
                    words=["a person", "a robot"])
    bundle, _ = widget._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    for word in ("Caption: on snow", "a person with 17 joints from", "a robot with 16", "Seed 3."):
        assert word in bundle["text/plain"]
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert still.width > 1.5 * still.height
    left, right = widget.still().axes
    assert [text.get_text() for text in left.texts] == ["a person", "a robot"]
    np.testing.assert_array_equal(right.images[0].get_array(), shown(widget))
    assert len(paint.requested) == 1                     # painted once
    joints = [line.get_xydata() for line in left.lines if line.get_marker() == "o"]
    want = (np.array(figure())[:, :2] * 256 - .5).tolist()
    assert np.concatenate(joints).tolist()[:17] == pytest.approx(np.array(want))


def test_a_canvas_with_nothing_on_it_can_be_shown():
    widget = canvas(figures=[], caption="")
    assert "Skeletons: none yet" in widget._repr_mimebundle_()[0]["text/plain"]
    assert widget.message == "" and widget.picture == b""


def test_the_page_knows_the_joints_and_the_bones():
    widget = canvas()
    assert widget.joints[9] == "left wrist" and len(widget.joints) == 17
    named = {tuple(widget.joints[i] for i in bone) for bone in widget.bones}
    assert len(named) == len(SKELETON) and ("left elbow", "left wrist") in {
        tuple(sorted(bone)) for bone in named}


def test_both_canvases_paint_by_the_same_code():
    shared = str(GroundingCanvas._esm).partition("export default")[0]
    assert str(PoseCanvas._esm).startswith(shared)
    assert str(PoseCanvas._esm).count("export default") == 1


def test_scripts_find_it_by_its_classes():
    widget = canvas()
    assert {"pose-canvas", "box-canvas"} <= set(widget._dom_classes)
    for name in ("pose-joint", "pose-word", "pose-mirror", "pose-hide", "grounding-paint"):
        assert re.search(rf'"[^"]*{name}[" ]', str(widget._esm)), name


def test_the_page_part_asks_nothing_of_the_network():
    for name in ("pose_canvas.js", "pose_canvas.css"):
        text = (ROOT / "gligen_lessons" / "widgets" / name).read_text("utf-8")
        assert not re.search(r"https?:|//cdn|\bimport\b|@import|fetch\(|url\(", text), name


def test_importing_the_widget_loads_no_network():
    code = ("import sys, gligen_lessons.widgets.pose_canvas; "
            "print({m for m in ('gligen_lessons.gligen', 'gligen_lessons.unet') "
            "if m in sys.modules})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
