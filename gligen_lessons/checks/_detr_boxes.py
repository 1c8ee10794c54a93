"""Checks of lesson 7 on assignments and boxes, and what its other checks are fed with."""

import torch
from scipy.optimize import linear_sum_assignment

from gligen_lessons import boxes as own_boxes
from gligen_lessons.checks import Wrong, exercise, expect_close


@exercise("gligen_lessons.detr:cheapest_by_trying")
def cheapest_by_trying(attempt):
    """A square cost whose permutation is not its own inverse, and one with more rows."""
    square = torch.tensor([[6., 1, 8, 9], [7, 5, 2, 8], [6, 9, 7, 1], [2, 3, 6, 9]])
    long = torch.tensor([[4., 9, 3], [1, 2, 6], [5, 8, 1], [2, 7, 8], [9, 4, 5]])
    told = attempt(square.clone())
    if isinstance(told, tuple | list) and len(told) == 2:
        raise Wrong("Return the rows alone, not their cost as well.")
    wrongs = {
        "This lists each row's column. The formula's sigma is the inverse: each COLUMN's row.":
            torch.tensor([1, 2, 3, 0]),
        "Rows are counted from 0 here, not from 1.": torch.tensor([4, 1, 2, 3]),
        "This is the dearest assignment. The smallest sum is wanted.": dearest(square),
        "This is what the assignment costs. Which rows does it take?": torch.tensor(6.)}
    expect_close(told, torch.tensor([3, 0, 1, 2]), "Of all permutations, the one with the "
                 "smallest sum of costs.", wrongs=wrongs)
    wrongs = {
        "A greedy choice: each column takes its cheapest row that is free. Try ALL choices, and "
        "take the smallest sum.": torch.tensor([1, 4, 2]),
        "Two columns may not share a row.": long.argmin(0),
        "With more rows than columns every choice of rows counts, not only the first ones: "
        "`permutations(range(q), n)`.": torch.tensor([0, 1, 2])}
    expect_close(attempt(long.clone()), torch.tensor([3, 1, 2]), "It is right for four by four and "
                 "wrong for five rows and three columns.", wrongs=wrongs)
    return "finds the cheapest of 24 and of 60 assignments"


def dearest(cost) -> torch.Tensor:
    """The most expensive assignment, each column's row."""
    rows, cols = linear_sum_assignment(cost.numpy(), maximize=True)
    return torch.from_numpy(rows[cols.argsort()])


@exercise("gligen_lessons.boxes:xyxy_from_cxcywh")
def xyxy_from_cxcywh(attempt):
    """One box, a picture's, a batch's; no box is square."""
    boxes = torch.rand(2, 3, 4) * torch.tensor([.4, .5, .2, .3]) + .2
    cx, cy, w, h = boxes.unbind(-1)
    wrongs = {
        "The whole width is taken off and added. From the centre it is half a width either way.":
            torch.stack([cx - w, cy - h, cx + w, cy + h], -1),
        "This takes the first two numbers for the left top corner. They are the centre.":
            torch.stack([cx, cy, cx + w, cy + h], -1),
        "Width and height are exchanged: x goes with the width, y with the height.":
            torch.stack([cx - h / 2, cy - w / 2, cx + h / 2, cy + w / 2], -1),
        "The order is left, top, right, bottom.":
            torch.stack([cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2], -1),
        "This is the way back, from corners to centre and size.":
            own_boxes.cxcywh_from_xyxy(boxes)}
    want = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
    told = attempt(boxes.clone())
    if getattr(told, "shape", None) == (4, 2, 3):
        raise Wrong("the four numbers belong in the last dimension: `torch.stack([...], -1)`.")
    error = expect_close(told, want, "Centre minus and plus half of the size.", wrongs=wrongs)
    expect_close(attempt(boxes[0, 0].clone()), want[0, 0], "It fails for a single box (4,).")
    return f"turns 6 boxes into corners (largest difference {error:.0e})"


def some_corners(*shape: int) -> torch.Tensor:
    """Random boxes (...,4) as corners, some far apart, some overlapping."""
    low, size = .7 * torch.rand(*shape, 2), .1 + .3 * torch.rand(*shape, 2)
    return torch.cat([low, low + size * torch.tensor([1.2, .7])], -1)


def pairs_of(a, b) -> tuple:
    """Overlap and frame of all pairs, and both areas, by loops: (n,m) each."""
    shared, frame, first, second = (torch.zeros(len(a), len(b)) for _ in range(4))
    for i, (x0, y0, x1, y1) in enumerate(a.tolist()):
        for j, (u0, v0, u1, v1) in enumerate(b.tolist()):
            wide, high = min(x1, u1) - max(x0, u0), min(y1, v1) - max(y0, v0)
            shared[i, j] = max(wide, 0) * max(high, 0)
            frame[i, j] = (max(x1, u1) - min(x0, u0)) * (max(y1, v1) - min(y0, v0))
            first[i, j], second[i, j] = (x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0)
    return shared, frame, first, second


@exercise("gligen_lessons.boxes:iou")
def iou(attempt):
    """Pairs that overlap, that touch in one direction only, none; batches; empty boxes."""
    a, b = some_corners(5), some_corners(3)
    b[0] = a[0] + torch.tensor([.03, .02, .04, -.01])
    shared, _, first, second = pairs_of(a, b)
    union = first + second - shared
    start, stop = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    raw = (stop - start).prod(-1)
    told = attempt(a.clone(), b.clone())
    if isinstance(told, torch.Tensor):
        raise Wrong("Return two things: the ratio and the joint area, which `giou` needs.")
    if getattr(told[0], "shape", None) == (3, 5):
        raise Wrong("the table is turned: boxes of a stand in rows, of b in columns, (5,3) here.")
    wrongs = {
        "Two negative sides make a positive area, for boxes that do not meet at all: clamp each "
        "side at 0 before the product.": (raw / (first + second - raw), first + second - raw),
        "The joint area counts the shared part twice: take it off once.":
            (shared / (first + second), first + second),
        "This divides by the smaller box. IoU divides by the joint area.":
            (shared / torch.minimum(first, second), union),
        "The second result is the shared area; the joint area is wanted.":
            (shared / union, shared),
        "The joint area comes second.": (union, shared / union)}
    error = expect_close(told, (shared / union, union), "Shared over joint area, and the joint "
                         "area, for each pair.", wrongs=wrongs)
    batched = attempt(some_corners(2, 4), some_corners(2, 3))
    if getattr(batched[0], "shape", None) != (2, 4, 3):
        raise Wrong(f"for a batch, (2,4,4) and (2,3,4), the ratio must be (2,4,3), not "
                    f"{tuple(getattr(batched[0], 'shape', ()))}: index with `...`.")
    x, y = some_corners(2, 4), some_corners(2, 3)
    expect_close(attempt(x.clone(), y.clone())[0][1], own_boxes.iou(x[1], y[1])[0],
                 "A batch gives something else than its pictures one by one.")
    empty = attempt(torch.zeros(1, 4), torch.zeros(1, 4))[0]
    if not torch.isfinite(torch.as_tensor(empty)).all():
        raise Wrong("Two empty boxes give NaN: 0 / 0. Clamp the joint area at something tiny.")
    return f"agrees with loops over {shared.numel()} pairs (largest difference {error:.0e})"


@exercise("gligen_lessons.boxes:giou")
def giou(attempt):
    """The same pairs, with the frame around both; and its slope for boxes that do not touch."""
    a, b = some_corners(5), some_corners(3)
    b[0] = a[0] + torch.tensor([.03, .02, .04, -.01])
    shared, frame, first, second = pairs_of(a, b)
    union = first + second - shared
    ratio = shared / union
    wrongs = {
        "This is IoU still. Take off the part of the frame that neither fills.": ratio,
        "The empty part is divided by the joint area. It is a part of the FRAME.":
            ratio - (frame - union) / union,
        "The empty part of the frame is what lies outside the JOINT area, not outside the shared "
        "one.": ratio - (frame - shared) / frame,
        "The empty part is added. It is a punishment: take it off.":
            ratio + (frame - union) / frame,
        "The empty part of the frame alone: IoU is missing.": -(frame - union) / frame,
        "This is the loss, 1 - GIoU. Return GIoU.": 1 - ratio + (frame - union) / frame}
    told = attempt(a.clone(), b.clone())
    if isinstance(told, tuple):
        raise Wrong("Return GIoU alone, (n,m), not a pair.")
    error = expect_close(told, ratio - (frame - union) / frame, "IoU minus the empty part of the "
                         "frame around both.", wrongs=wrongs)
    left = torch.tensor([[.1, .2, .2, .5]], requires_grad=True)
    slope, = torch.autograd.grad(attempt(left, torch.tensor([[.6, .2, .8, .5]])).sum(), left)
    expect_close(slope[0, 2], torch.tensor(1 / .7),
                 "Boxes that do not touch have no slope, or a wrong one: does a clamp cut it off?")
    x, y = some_corners(2, 4), some_corners(2, 3)
    expect_close(attempt(x.clone(), y.clone()), own_boxes.giou(x, y), "A batch gives something "
                 "else than its pictures one by one.")
    return f"agrees with loops over {frame.numel()} pairs (largest difference {error:.0e})"


def some_answers(b: int, q: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (b,q,classes+1) and boxes (b,q,4) as cxcywh."""
    return (2 * torch.randn(b, q, classes + 1),
            own_boxes.cxcywh_from_xyxy(some_corners(b, q)))


def some_truth(*counts: int, classes: int = 5) -> tuple[list, list]:
    """Labels (n,) and targets (n,4) as cxcywh, for each of the counts."""
    return ([torch.randint(classes, (n,)) for n in counts],
            [own_boxes.cxcywh_from_xyxy(some_corners(n).clamp(0, 1)) for n in counts])
