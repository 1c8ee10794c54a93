"""Laws of boxes, tried on many, and what check() says of bad ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gligen_lessons.boxes import area, check_boxes, cxcywh_from_xyxy, giou, iou, xyxy_from_cxcywh

SIDES = st.floats(.01, 1)


@st.composite
def boxes(draw, count=3):
    """`count` boxes (count,4) xyxy in 0..1, no side under a hundredth."""
    rows = []
    for _ in range(count):
        w, h = draw(SIDES), draw(SIDES)
        x, y = draw(st.floats(0, 1)) * (1 - w), draw(st.floats(0, 1)) * (1 - h)
        rows.append([x, y, x + w, y + h])
    return torch.tensor(rows, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(boxes())
def test_both_formats_and_back(boxes_xyxy):
    there = cxcywh_from_xyxy(boxes_xyxy)
    torch.testing.assert_close(xyxy_from_cxcywh(there), boxes_xyxy)
    torch.testing.assert_close(there[:, 2] * there[:, 3], area(boxes_xyxy))
    torch.testing.assert_close(there[:, :2], (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2)


def test_the_formats_of_one_box_that_is_wider_than_high():
    xyxy, cxcywh = torch.tensor([.1, .5, .7, .6]), torch.tensor([.4, .55, .6, .1])
    torch.testing.assert_close(cxcywh_from_xyxy(xyxy), cxcywh)
    torch.testing.assert_close(xyxy_from_cxcywh(cxcywh), xyxy)
    many = xyxy.expand(2, 3, 4)
    assert cxcywh_from_xyxy(many).shape == (2, 3, 4) and area(many).shape == (2, 3)


def by_hand(a, b):
    """IoU and GIoU of two boxes, from their definitions, with Python's numbers."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.tolist(), b.tolist()
    shared = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    frame = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return shared / union, shared / union - (frame - union) / frame


@settings(max_examples=40, deadline=None)
@given(boxes(2), boxes(3))
def test_every_pair_is_the_definition(a, b):
    overlap, _ = iou(a, b)
    general = giou(a, b)
    assert overlap.shape == general.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            want = by_hand(a[i], b[j])
            assert float(overlap[i, j]) == pytest.approx(want[0], abs=1e-9)
            assert float(general[i, j]) == pytest.approx(want[1], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(boxes(2), boxes(3))
def test_overlap_is_symmetric_and_bounded(a, b):
    (overlap, union), general = iou(a, b), giou(a, b)
    torch.testing.assert_close(overlap, iou(b, a)[0].T)
    torch.testing.assert_close(general, giou(b, a).T)
    assert bool(((overlap >= 0) & (overlap <= 1 + 1e-9)).all())
    assert bool((union + 1e-9 >= torch.maximum(area(a)[:, None], area(b)[None])).all())
    assert bool((general <= overlap + 1e-9).all())
    assert bool((general >= overlap - 1).all()) and bool((general > -1).all())


@settings(max_examples=40, deadline=None)
@given(boxes())
def test_a_box_shares_all_with_itself(found):
    torch.testing.assert_close(iou(found, found)[0].diagonal(), torch.ones(3).double())
    torch.testing.assert_close(giou(found, found).diagonal(), torch.ones(3).double())


@settings(max_examples=40, deadline=None)
@given(boxes(2), st.floats(.1, 1), st.floats(0, .5))
def test_overlap_does_not_depend_on_scale_or_place(found, scale, shift):
    moved = scale * found + shift
    torch.testing.assert_close(iou(moved[:1], moved[1:])[0], iou(found[:1], found[1:])[0],
                               atol=1e-6, rtol=1e-6)


def test_giou_still_falls_where_boxes_no_longer_touch():
    still = torch.tensor([[0., 0., .1, .2]])
    away = torch.tensor([[.1, 0., .2, .2], [.3, 0., .4, .2], [.9, 0., 1., .2]])
    assert iou(still, away)[0].tolist() == [[0, 0, 0]]
    torch.testing.assert_close(giou(still, away), torch.tensor([[0., -.5, -.8]]))


def test_a_box_turned_inside_out_has_no_area():
    assert area(torch.tensor([[.5, .1, .2, .3], [.2, .1, .5, .3]])).tolist() == [0, pytest.approx(
        .06)]


@settings(max_examples=40, deadline=None)
@given(boxes())
def test_check_hands_good_boxes_on(found):
    assert torch.equal(check_boxes(found),
                       found.float()) and check_boxes(found).dtype == torch.float32
    assert check_boxes(found.tolist()).shape == (3, 4)
    assert check_boxes(torch.zeros(0, 4)).shape == check_boxes([]).shape == (0, 4)


def test_check_forgives_rounding_at_the_border():
    found = check_boxes([[-1e-4, .1, .5, 1.0000002], [.2, -1e-9, 1.0009, .5]])
    torch.testing.assert_close(found, torch.tensor([[0, .1, .5, 1], [.2, 0, 1, .5]]))


@pytest.mark.parametrize("found", [
    np.array([[.25, .25, .5, .5]]), np.array([[.25, .25, .5, .5]], np.float16),
    torch.tensor([[.25, .25, .5, .5]]).double(), torch.tensor([[.25, .25, .5, .5]]).bfloat16(),
    [np.float64([.25, .25, .5, .5])]])
def test_check_takes_numbers_of_any_kind(found):
    assert check_boxes(found).tolist() == [[.25, .25, .5, .5]]
    assert check_boxes([[0, 0, 1,
                         1]]).dtype == check_boxes(np.array([[0, 0, 1, 1]])).dtype == torch.float32


@pytest.mark.parametrize("found, words", [
    ([.1, .1, .5, .5], r"mine must be \(n,4\), got \(4,\)\."),
    ([[.1, .1, .5]], r"mine must be \(n,4\), got \(1, 3\)\."),
    ([[.1, float("nan"), .5, .5]], "mine hold NaN or infinity"),
    ([[.1, .1, float("inf"), .5]], "mine hold NaN or infinity"),
    ([[10, 20, 64, 90]], "reach 90: they look like pixels. Divide by the picture's width"),
    ([[.1, .1, .5, .5], [.5, .1, .2, .5], [.1, .3, .4, .3]], r"mine \[1, 2\] have no width or"),
    ([[-.1, .1, .5, .5]], r"must lie in 0\.\.1, got -0\.1 to 0\.5"),
    ([[.1, .1, .5, 1.2]], r"must lie in 0\.\.1, got 0\.1 to 1\.2"),
    ([[.1, .1, .5, 1.00101]], r"must lie in 0\.\.1, got 0\.1 to 1\.00101\."),
    ([[1., .1, 1.0005, .5]], r"mine \[0\] have no width or"),
    ([["a", .1, .5, 1.]], r"mine must be numbers \(n,4\), got \[\['a'"),
    ([[None, .1, .5, 1.]], r"mine must be numbers"), ("box", "mine must be numbers"),
])
def test_check_says_what_is_wrong_with_which(found, words):
    with pytest.raises(ValueError, match=words):
        check_boxes(found, where="mine")
