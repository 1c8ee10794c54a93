"""Checks of lesson 7 on assignments and boxes, and what its other checks are fed with."""

import torch
from scipy.optimize import linear_sum_assignment

from .. import boxes as own_boxes
from . import Wrong, exercise, expect_close


@exercise("gligen_lessons.detr:brute_force_assignment")
def brute_force_assignment(attempt):
    """A square cost whose permutation is not its own inverse, and one with more rows."""
    square = torch.tensor([[6., 1, 8, 9], [7, 5, 2, 8], [6, 9, 7, 1], [2, 3, 6, 9]])
    long = torch.tensor([[4., 9, 3], [1, 2, 6], [5, 8, 1], [2, 7, 8], [9, 4, 5]])
    told = attempt(square.clone())
    if isinstance(told, tuple | list) and len(told) == 2:
        raise Wrong("Return the rows alone, not their cost as well.")
    mistakes = {
        "This lists each row's column. The formula's sigma is the inverse: each COLUMN's row.":
            torch.tensor([1, 2, 3, 0]),
        "Rows are counted from 0 here, not from 1.": torch.tensor([4, 1, 2, 3]),
        "This is the most expensive assignment. The smallest sum is wanted.":
            most_expensive(square),
        "This is what the assignment costs. Which rows does it take?": torch.tensor(6.)}
    expect_close(told, torch.tensor([3, 0, 1, 2]), "Of all permutations, the one with the "
                 "smallest sum of costs.", mistakes=mistakes)
    mistakes = {
        "A greedy choice: each column takes its cheapest row that is free. Try ALL choices, and "
        "take the smallest sum.": torch.tensor([1, 4, 2]),
        "Two columns may not share a row.": long.argmin(0),
        "With more rows than columns every choice of rows counts, not only the first ones: "
        "`permutations(range(q), n)`.": torch.tensor([0, 1, 2])}
    expect_close(attempt(long.clone()), torch.tensor([3, 1, 2]), "It is right for four by four and "
                 "wrong for five rows and three columns.", mistakes=mistakes)
    return "finds the cheapest of 24 and of 60 assignments"


def most_expensive(cost) -> torch.Tensor:
    """The most expensive assignment, each column's row."""
    rows, cols = linear_sum_assignment(cost.numpy(), maximize=True)
    return torch.from_numpy(rows[cols.argsort()])


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


@exercise("gligen_lessons.boxes:giou")
def giou(attempt):
    """The same pairs, with the frame around both; and its slope for boxes that do not touch."""
    a, b = some_corners(5), some_corners(3)
    b[0] = a[0] + torch.tensor([.03, .02, .04, -.01])
    shared, frame, first, second = pairs_of(a, b)
    union = first + second - shared
    ratio = shared / union
    mistakes = {
        "This is IoU still. Take off the part of the frame that neither fills.": ratio,
        "The empty part is not divided: it is a part of the FRAME.": ratio - (frame - union),
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
    if isinstance(told, torch.Tensor) and told.isinf().any():
        raise Wrong("Some values are infinite: the frame of boxes that do not touch has no area. "
                    "It begins at the EARLIER left and top (minimum) and ends at the LATER right "
                    "and bottom (maximum).")
    error = expect_close(told, ratio - (frame - union) / frame, "IoU minus the empty part of the "
                         "frame around both.", mistakes=mistakes)
    left = torch.tensor([[.1, .2, .2, .5]], requires_grad=True)
    slope, = torch.autograd.grad(attempt(left, torch.tensor([[.6, .2, .8, .5]])).sum(), left)
    expect_close(slope[0, 2], torch.tensor(1 / .7),
                 "Boxes that do not touch have no slope, or a wrong one: does a clamp cut it off?")
    x, y = some_corners(2, 4), some_corners(2, 3)
    try:
        told = attempt(x.clone(), y.clone())
    except (RuntimeError, IndexError) as error:
        raise Wrong("It is right for (n,4) and stops at a batch, (b,n,4): the three points of "
                    f"(...,n,m). `a[..., :, None, :2]` takes both. ({error})") from error
    expect_close(told, own_boxes.giou(x, y), "A batch gives something else than its pictures one "
                 "by one.")
    return f"agrees with loops over {frame.numel()} pairs (largest difference {error:.0e})"


def some_answers(b: int, q: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (b,q,classes+1) and boxes (b,q,4) as cxcywh."""
    return (2 * torch.randn(b, q, classes + 1),
            own_boxes.cxcywh_from_xyxy(some_corners(b, q)))


def some_truth(*counts: int, classes: int = 5) -> tuple[list, list]:
    """Labels (n,) and targets (n,4) as cxcywh, for each of the counts."""
    return ([torch.randint(classes, (n,)) for n in counts],
            [own_boxes.cxcywh_from_xyxy(some_corners(n).clamp(0, 1)) for n in counts])
