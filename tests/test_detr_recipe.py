"""What DETR is trained on: boxes that count, pictures changed together with their boxes."""

import pytest
import torch

from gligen_lessons import recipes
from gligen_lessons.boxes import iou
from gligen_lessons.datasets import annotated
from gligen_lessons.datasets.annotated import lists, tidy
from gligen_lessons.recipes import detr as recipe
from gligen_lessons.recipes.detr import augment


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path / "cache"))


def test_what_is_too_small_to_see_is_dropped_and_the_rest_moves_up():
    labels = torch.tensor([[4, 7, -1, 9, -1, -1]])
    boxes = torch.zeros(1, 6, 4)
    boxes[0, 0], boxes[0, 1] = torch.tensor([.1, .1, .5, .12]), torch.tensor([.2, .2, .3, .3])
    boxes[0, 3] = torch.tensor([.6, .1, .9, .9])
    found, moved = tidy(labels, boxes)
    assert found.tolist() == [[7, 9, -1, -1, -1, -1]]
    assert torch.equal(moved[0, :2], boxes[0, [1, 3]]) and not moved[0, 2:].any()
    by_picture = lists(found, moved)
    assert by_picture[0][0].tolist() == [7, 9] and by_picture[1][0].shape == (2, 4)
    assert torch.allclose(by_picture[1][0][0], torch.tensor([.25, .25, .1, .1]))


def bright_boxes(x: torch.Tensor) -> torch.Tensor:
    """The frame around what is bright in each picture (b,3,h,w): (b,4) in 0..1."""
    found = []
    for one in x.mean(1) > 0:
        rows, cols = one.nonzero().unbind(1)
        ends = (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
        found.append(torch.stack(ends) / one.shape[0])
    return torch.stack(found)


def test_boxes_follow_their_pictures():
    b, side = 64, 128
    boxes = torch.zeros(b, 6, 4)
    boxes[:, 0] = torch.tensor([.375, .40625, .59375, .5625])
    x = -torch.ones(b, 3, side, side)
    x[:, :, 52:72, 48:76] = 1
    labels = torch.full((b, 6), -1)
    labels[:, 0] = 5
    moved, found, after = augment(x, labels, boxes, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    here = found[:, 0] == 5
    assert here.float().mean() > .9 and not (found[:, 1:] >= 0).any()
    shown = bright_boxes(moved[here])
    assert float(iou(after[here, 0], shown)[0].diagonal().min()) > .85
    left = (after[here, 0, 0] + after[here, 0, 2]) / 2 < .5
    assert .3 < float(left.float().mean()) < .75                  # some are mirrored, some not
    sides = after[here, 0, 2] - after[here, 0, 0]
    assert sides.min() == pytest.approx(.21875) and sides.max() > .3      # some are enlarged


def test_a_thing_at_the_rim_of_the_window_no_longer_counts():
    labels, boxes = torch.full((400, 6), -1), torch.zeros(400, 6, 4)
    labels[:, 0], boxes[:, 0] = 2, torch.tensor([.0, .0, .12, .12])
    _, found, after = augment(torch.zeros(400, 3, 16, 16), labels, boxes,
                              torch.Generator().manual_seed(1))
    gone = found[:, 0] < 0
    assert .2 < float(gone.float().mean()) < .55 and not after[gone].any()
    assert after.min() >= 0 and after.max() <= 1


def test_what_is_drawn_depends_on_the_step_alone():
    first = recipes.get("detr", 4, batch=4)
    first.sample_batch(0)
    second = recipes.get("detr", 4, batch=4)
    for a, b in zip(first.sample_batch(3), second.sample_batch(3), strict=True):
        assert torch.equal(a, b)


def test_the_backbone_learns_slower_than_the_rest_and_nothing_is_left_out():
    model = recipes.get("detr", 1, batch=4).model
    rest, backbone = recipe.backbone_apart(model, .2)
    assert backbone["lr"] == pytest.approx(.2 * rest["lr"])
    assert sum(p.numel() for g in (rest, backbone) for p in g["params"]) == sum(
        p.numel() for p in model.parameters())


def test_the_log_names_the_query_of_each_target():
    made = recipes.get("detr", 2, batch=4)
    told = made.sample(made.model.eval(), 1)
    data = annotated.annotated("grounding-val", 200)
    assert [len(queries) for queries in told["matches"]] == (
        data.labels[:recipe.WATCHED] >= 0).sum(1).tolist()
    for queries in told["matches"]:
        assert len(set(queries)) == len(queries) and all(0 <= q < 20 for q in queries)
    assert 0 <= told["AP"] <= told["AP50"] <= 1
