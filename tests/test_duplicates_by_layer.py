"""Duplicates: what repeats a thing, what suppression keeps, and what a cut attention changes."""

import pytest
import torch

from gligen_lessons import weights
from gligen_lessons.boxes import xyxy_from_cxcywh
from gligen_lessons.datasets.annotated import annotated, lists
from gligen_lessons.detr import Detections
from gligen_lessons.eval import detection

THING = torch.tensor([[.1, .1, .5, .5]])


def found(scores, labels, boxes) -> Detections:
    return Detections(torch.tensor(scores), torch.tensor(labels), torch.tensor(boxes),
                      torch.arange(len(scores)))


def test_a_second_sure_box_repeats_a_thing_and_an_unsure_or_otherwise_named_one_does_not():
    near = [.12, .1, .5, .5]
    one = found([.99, .98, .6, .97], [3, 3, 3, 5], [THING[0].tolist(), near, near, near])
    assert detection.found_and_repeated(one, torch.tensor([3]), THING) == (1, 1)
    assert detection.found_and_repeated(one, torch.tensor([8]), THING) == (0, 0)
    assert detection.found_and_repeated(one, torch.zeros(0).long(), THING[:0]) == (0, 0)


def test_suppression_keeps_the_surest_of_each_category():
    near = [.12, .1, .5, .5]
    one = found([.6, .9, .8], [3, 3, 5], [THING[0].tolist(), near, near])
    scores, labels, boxes = detection.suppressed_by_category(one)
    assert torch.equal(scores, torch.tensor([.9, .8])) and labels.tolist() == [3, 5]
    assert torch.allclose(boxes, torch.tensor([near, near]))


@pytest.fixture(scope="module")
def few():
    data = annotated("grounding-test", 8)
    labels, targets = lists(data.labels, data.boxes_xyxy)
    return (detection.stacked(data.images, slice(None)), labels,
            [xyxy_from_cxcywh(target) for target in targets])


def test_a_cut_changes_no_first_layer_and_leaves_no_hook_behind(few):
    model = weights.load("detr")
    plain = detection.duplicates_by_layer(model, *few)
    cut = detection.duplicates_by_layer(
        model, *few, lambda layer, inputs, out: out.mean(1, keepdim=True).expand_as(out))
    assert len(plain) == len(cut) == 3 and plain[0] == pytest.approx(cut[0]) and plain != cut
    assert detection.duplicates_by_layer(model, *few) == plain
    with pytest.raises(ZeroDivisionError):
        detection.duplicates_by_layer(model, *few, lambda *_: 1 / 0)
    assert detection.duplicates_by_layer(model, *few) == plain


def test_the_last_layer_finds_most(few):
    rows = detection.duplicates_by_layer(weights.load("detr"), *few)
    assert rows[-1][0] >= rows[0][0] and rows[-1][3] > .7
