"""Boxes moved by hand: they stay in the picture, and costs, matching and losses follow them."""

import base64
import io
import itertools
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

from gligen_lessons import detr, world
from gligen_lessons.boxes import cxcywh_from_xyxy, xyxy_from_cxcywh
from gligen_lessons.widgets.box_canvas import BoxCanvas
from gligen_lessons.widgets.box_matcher import FIRST_MATCH, _number, box_matcher
from gligen_lessons.world.vocabulary import BASE

ROOT = Path(__file__).resolve().parent.parent
PLACES = st.floats(-2, 3, allow_nan=False)


def problem(queries=4, seed=0):
    """A grey picture, wider than high, with two targets, and predictions drawn at random."""
    g = torch.Generator().manual_seed(seed)
    image = np.full((30, 50, 3), 128, np.uint8)
    targets = torch.tensor([[.3, .4, .2, .3], [.7, .5, .3, .6]])
    boxes = torch.rand(queries, 4, generator=g) * .4 + .3
    return [image, torch.tensor([2, 7]), targets, 3 * torch.randn(queries, 13, generator=g), boxes]


def drag(matcher, query, box_cxcywh):
    """What the page sends when a learner has moved a prediction to a place."""
    boxes = [list(box) for box in matcher.canvas.boxes]
    boxes[len(matcher.labels) + query] = xyxy_from_cxcywh(torch.as_tensor(box_cxcywh)).tolist()
    matcher.canvas.set_state({"boxes": boxes})


def rows(html):
    """The cells of a table's body, as words, and which of them are framed."""
    body = html.split("<tbody>")[1]
    found = [re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row) for row in body.split("</tr>")[:-1]]
    words = [[re.sub("<[^>]*>", "", text) for _, text in row] for row in found]
    return words, [["box-match" in attributes for attributes, _ in row] for row in found]


@given(st.lists(st.lists(PLACES, min_size=4, max_size=4), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_boxes_stay_in_the_picture_and_keep_a_side(boxes):
    held = BoxCanvas(boxes=boxes).boxes
    assert len(held) == len(boxes)
    for (x0, y0, x1, y1), given_box in zip(held, boxes, strict=True):
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        left, top, right, bottom = given_box
        if 0 <= left <= right - .01 <= .99 and 0 <= top <= bottom - .01 <= .99:
            assert [x0, y0, x1, y1] == given_box


def test_a_box_over_the_edge_is_cut_off_there():
    assert BoxCanvas(boxes=[[-.2, .3, .4, 1.7]]).boxes == [[0, .3, .4, 1]]


@pytest.mark.parametrize("box", [[0, 0, 1], [0, 0, 1, float("nan")], [0, 0, 1, "x"],
                                 [0, 0, 1, None]])
def test_what_is_no_box_is_refused(box):
    with pytest.raises(traitlets.TraitError, match="four finite numbers"):
        BoxCanvas(boxes=[box])


@pytest.mark.parametrize("seed", range(5))
def test_what_is_shown_is_what_the_library_says(seed):
    image, labels, targets, logits, boxes = problem(seed=seed)
    matcher = box_matcher(image, labels, targets, logits, boxes)
    drag(matcher, seed % 4, [.35, .45, .2, .2])
    boxes[seed % 4] = torch.tensor([.35, .45, .2, .2])
    cost = detr.matching_cost(logits, boxes, labels, targets)
    (picked, cols), = detr.match(logits[None], boxes[None], [labels], [targets])
    owner = dict(zip(picked.tolist(), cols.tolist(), strict=True))
    words, framed = rows(matcher.costs.value)
    for i in range(4):
        assert words[i][0] == str(i)
        assert words[i][2:4] == [f"{float(c):.2f}".replace("-", "−") for c in cost[i]]
        assert framed[i][2:4] == [owner.get(i) == k for k in range(2)]
        assert words[i][4] == (BASE[labels[owner[i]]] if i in owner else "nothing")
    want = detr.hungarian_loss(logits[None], boxes[None], [labels], [targets])
    shown, _ = rows(matcher.sums.value)
    for (name, value), row in zip(want.items(), shown, strict=False):
        assert row[0] == name and float(row[1]) == pytest.approx(float(value), abs=.006)
    total = want["loss_ce"] + 5 * want["loss_bbox"] + 2 * want["loss_giou"]
    assert float(shown[-1][-1]) == pytest.approx(float(total), abs=.006)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_is_cheaper(seed):
    matcher = box_matcher(*problem(seed=seed))
    every = [float(matcher.cost[list(q), [0, 1]].sum())
             for q in itertools.permutations(range(4), 2)]
    assert sum(float(matcher.cost[pair]) for pair in matcher.pairs) == pytest.approx(min(every))


@pytest.mark.parametrize("seed", range(5))
def test_a_prediction_moved_onto_its_target_costs_less(seed):
    matcher = box_matcher(*problem(seed=seed))
    query, target = matcher.pairs[0]
    before, losses = matcher.cost, matcher.losses
    drag(matcher, query, matcher.targets[target])
    p = matcher.logits.softmax(-1)[query, matcher.labels[target]]
    assert float(matcher.cost[query, target]) == pytest.approx(-float(p) - 2, abs=1e-4)
    assert float(matcher.cost[query, target]) < float(before[query, target])
    assert matcher.losses["loss_bbox"] < losses["loss_bbox"]
    others = [i for i in range(4) if i != query]
    torch.testing.assert_close(matcher.cost[others], before[others])


def test_the_own_scene_tells_its_story():
    """The wrong word at the right place answers for the tree until the right word comes there."""
    matcher = box_matcher()
    scene = world.scene(world.seeds("grounding-val", 1, FIRST_MATCH)[0])
    assert [BASE[k] for k in matcher.labels] == [thing.category for thing in scene.things]
    words, _ = rows(matcher.costs.value)
    assert [row[-1] for row in words] == ["boat", "person", "tree", "nothing"]
    assert [row[1].split()[0] for row in words] == ["boat", "person", "mushroom", "tree"]
    before = matcher.losses
    drag(matcher, 3, matcher.targets[2])
    words, _ = rows(matcher.costs.value)
    assert [row[-1] for row in words] == ["boat", "person", "nothing", "tree"]
    assert all(matcher.losses[name] < before[name] for name in before)


def test_lines_join_what_is_matched_and_targets_stay():
    matcher = box_matcher(*problem())
    first = [list(box) for box in matcher.canvas.boxes[:2]]
    drag(matcher, 3, matcher.targets[0])
    assert [0, 5] in matcher.canvas.links
    assert sorted(matcher.canvas.links) == sorted([t, 2 + q] for q, t in matcher.pairs)
    assert matcher.canvas.fixed == [0, 1] and matcher.canvas.boxes[:2] == first
    torch.testing.assert_close(cxcywh_from_xyxy(torch.tensor(first)), matcher.targets)


def test_the_page_may_move_nothing_out_of_the_picture():
    matcher = box_matcher(*problem())
    drag(matcher, 0, [1.2, .5, .2, .2])
    assert matcher.canvas.boxes[2][2] == 1 and bool(matcher.cost.isfinite().all())


def test_a_prediction_over_the_edge_costs_what_it_says_until_it_is_moved():
    image, labels, targets, logits, boxes = problem()
    boxes[1] = torch.tensor([.9, .5, .4, .4])
    matcher = box_matcher(image, labels, targets, logits, boxes)
    torch.testing.assert_close(matcher.cost, detr.matching_cost(logits, boxes, labels, targets))
    drag(matcher, 0, [.5, .5, .2, .2])
    torch.testing.assert_close(matcher.boxes[1], boxes[1])
    drag(matcher, 1, [.75, .5, .4, .4])
    torch.testing.assert_close(matcher.boxes[1], torch.tensor([.75, .5, .4, .4]))


def test_a_network_on_its_way_is_welcome():
    """Predictions that carry a gradient, or come in half precision."""
    image, labels, targets, logits, boxes = problem()
    matcher = box_matcher(image, labels, targets, logits.half().requires_grad_(),
                                  boxes.double().requires_grad_())
    assert matcher.cost.shape == (4, 2) and not matcher.cost.requires_grad


@pytest.mark.parametrize("place, value, words", [
    (0, np.zeros((30, 50), np.uint8), "(h,w,3) uint8"),
    (0, np.zeros((30, 50, 3)), "(h,w,3) uint8"),
    (0, None, "all of image"),
    (1, torch.tensor([2., 7.]), "whole numbers"),
    (1, torch.tensor([2, 12]), "none of the 12 classes"),
    (1, torch.tensor([], dtype=torch.long), "no target"),
    (2, torch.tensor([[15., 12, 10, 9], [35, 15, 15, 18]]), "looks like pixels"),
    (2, torch.tensor([[.3, .4, 0, .3], [.7, .5, .3, .6]]), "no width or height"),
    (3, torch.zeros(4, 92), "logits (q,13)"),
    (3, torch.zeros(3, 13), "logits (q,13)"),
    (3, torch.full((4, 13), torch.nan), "NaN"),
    (4, torch.zeros(1, 4, 4), "boxes (q,4)"),
])
def test_bad_input_gets_one_clear_sentence(place, value, words):
    given_parts = problem()
    given_parts[place] = value
    with pytest.raises(ValueError, match=re.escape(words)):
        box_matcher(*given_parts)


def test_more_targets_than_queries():
    with pytest.raises(ValueError, match="2 targets, but only 1 queries"):
        box_matcher(*problem(queries=1))


def test_scripts_find_it_by_its_classes():
    matcher = box_matcher(*problem())
    assert "box-matcher" in matcher._dom_classes and "box-canvas" in matcher.canvas._dom_classes
    assert matcher.children[0] is matcher.canvas
    assert "box-costs" in matcher.costs._dom_classes and "box-losses" in matcher.sums._dom_classes
    assert len(matcher.canvas.names) == len(matcher.canvas.boxes) == 6
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(matcher.canvas.picture))),
                                  matcher.image)


def test_targets_of_one_kind_are_told_apart():
    image, labels, targets, logits, boxes = problem()
    matcher = box_matcher(image, torch.tensor([2, 2]), targets, logits, boxes)
    assert matcher.canvas.names[:2] == ["cat a", "cat b"]
    words, _ = rows(matcher.costs.value)
    assert sorted(row[-1] for row in words) == ["cat a", "cat b", "nothing", "nothing"]


def test_nothing_is_printed(capsys):
    matcher = box_matcher()
    drag(matcher, 0, [.5, .5, .2, .2])
    matcher._repr_mimebundle_()
    assert capsys.readouterr() == ("", "")


def test_a_page_without_widgets_gets_a_still_of_one_move():
    matcher = box_matcher()
    bundle, before = matcher._repr_mimebundle_(), matcher.boxes
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == matcher.model_id
    assert bundle["text/plain"].startswith("Predicted boxes to drag")
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert still.width > 3 * still.height
    axes = matcher.still().axes
    assert [ax.get_title() for ax in axes[::2]] == ["as it is", "query 3 moved onto the tree"]
    numbers = [{text.get_text() for text in ax.texts} for ax in axes[1::2]]
    assert _number(float(matcher.cost[3, 2])) in numbers[0] - numbers[1]
    torch.testing.assert_close(matcher.boxes, before)


def test_the_page_part_asks_nothing_of_the_network():
    for name in ("box_canvas.js", "box_canvas.css"):
        text = (ROOT / "gligen_lessons" / "widgets" / name).read_text("utf-8")
        assert not re.search(r"https?:|//cdn|\bimport\b|@import|fetch\(", text), name


def test_importing_the_widgets_loads_no_detector():
    code = ("import sys, gligen_lessons.widgets.box_matcher; "
            "print({m for m in ('gligen_lessons.detr', 'scipy') if m in sys.modules})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
