"""Checks of lesson 7 on matching and losses."""

import math

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch.nn.utils.rnn import pad_sequence

from .. import boxes as own_boxes
from .. import detr as reference
from . import Wrong, exercise, expect_close, looks_like
from ._detr_boxes import some_answers, some_truth

CORNERS = "GIoU got boxes of centre and size: turn both into corners first."


@exercise("gligen_lessons.detr:matching_cost")
def matching_cost(attempt):
    """One picture, then a batch."""
    (logits,), (boxes,) = some_answers(1, 7)
    (labels,), (targets,) = some_truth(3)
    labels[:2] = torch.tensor([3, 1])
    want, mistakes = priced_wrongly(logits, boxes, labels, targets)
    told = attempt(logits.clone(), boxes.clone(), labels.clone(), targets.clone())
    if getattr(told, "shape", None) == (3, 7):
        raise Wrong("the matrix is turned: queries stand in rows, targets in columns, (7,3) here.")
    error = expect_close(told, want, "Minus the probability of the target's label, 5 times L1, "
                         "minus 2 times GIoU.", mistakes=mistakes)
    logits, boxes = some_answers(2, 6)
    labels, targets = map(torch.stack, some_truth(4, 4))
    alone = ("It is right for one picture and wrong for a batch, (2,6,C+1) with labels (2,4): "
             "indexing with `labels` mixes the pictures. `gather` does not.")
    try:
        told = attempt(logits.clone(), boxes.clone(), labels.clone(), targets.clone())
    except (RuntimeError, IndexError) as error:
        raise Wrong(f"{alone} ({error})") from error
    if getattr(told, "shape", None) != (2, 6, 4):
        raise Wrong(alone)
    expect_close(told, reference.matching_cost(logits, boxes, labels, targets),
                 "It is right for one "
                 "picture and wrong for a batch of two.")
    return f"prices 21 pairs, and a batch (largest difference {error:.0e})"


def priced_wrongly(logits, boxes, labels, targets) -> tuple[torch.Tensor, dict]:
    """The right costs of one picture, and typical wrong ones."""
    p = logits.softmax(-1)
    l1 = (boxes[:, None] - targets).abs().sum(-1)
    corners = own_boxes.xyxy_from_cxcywh(boxes), own_boxes.xyxy_from_cxcywh(targets)
    overlap, mixed = own_boxes.giou(*corners), own_boxes.giou(boxes, targets)
    name = -p[:, labels]
    return name + 5 * l1 - 2 * overlap, {
        "The logarithm has no place in the cost: take the probability itself.":
            -p[:, labels].log() + 5 * l1 - 2 * overlap,
        "These are logits. Take the softmax first.": -logits[:, labels] + 5 * l1 - 2 * overlap,
        "The softmax leaves 'nothing' out. It belongs to the classes that share the probability.":
            -logits[:, :-1].softmax(-1)[:, labels] + 5 * l1 - 2 * overlap,
        "The softmax runs over the queries. Each query shares its own probability: dim -1.":
            -logits.softmax(0)[:, labels] + 5 * l1 - 2 * overlap,
        "A sure name makes a match dearer here. The probability comes with a minus.":
            p[:, labels] + 5 * l1 - 2 * overlap,
        "More overlap makes a match dearer here. GIoU comes with a minus.":
            name + 5 * l1 + 2 * overlap,
        CORNERS: name + 5 * l1 - 2 * mixed,
        "L1 compares corners here. The paper takes centre and size, as the network gives them.":
            name + 5 * (corners[0][:, None] - corners[1]).abs().sum(-1) - 2 * overlap,
        "This is the L2 distance (squares). L1 sums absolute differences.":
            name + 5 * (boxes[:, None] - targets).norm(dim=-1) - 2 * overlap,
        "L1 is averaged over the four numbers. It is their sum.": name + 1.25 * l1 - 2 * overlap,
        "The weights are exchanged: L1 has loss_bbox, GIoU has loss_giou.":
            name + 2 * l1 - 5 * overlap,
        "The weights of the box terms are missing.": name + l1 - overlap,
        "This has the loss's 1 - GIoU. The constant 2 changes no matching, but the paper's cost is "
        "minus GIoU.": name + 5 * l1 + 2 * (1 - overlap)}


@exercise("gligen_lessons.detr:match")
def match(attempt):
    """Five pictures with 3, 0, 1, 5 and 2 targets."""
    logits, boxes = some_answers(5, 7)
    labels, targets = some_truth(3, 0, 1, 5, 2)
    told = attempt(logits.clone(), boxes.clone(), list(labels), list(targets))
    if told is None:
        raise Wrong("it returned None. Does it end with `return`?")
    if not isinstance(told, list | tuple) or len(told) != 5:
        raise Wrong("Return a list with one (rows, cols) for each of the 5 pictures.")
    padded = reference.matching_cost(logits, boxes, *(pad_sequence(truth, True)
                                                      for truth in (labels, targets)))
    for i, (pair, *one) in enumerate(zip(told, logits, boxes, labels, targets, strict=True)):
        expect_matched(i, pair, reference.matching_cost(*one), padded[i])
    for what, spoil in {"NaN in the predictions": (logits * math.nan, boxes, labels, targets),
                        "a target as wide as -0.1": (logits, boxes, labels, [
                            t * torch.tensor([1., 1, -1, 1]) for t in targets])}.items():
        try:
            attempt(*spoil)
        except ValueError as error:
            if "linear" in str(error) or "numeric" in str(error) or "infeasible" in str(error):
                raise Wrong(f"{what}: the message comes from scipy and helps nobody. Look at the "
                            "costs before you match.") from error
            continue
        raise Wrong(f"{what} must raise a ValueError. Did you call `check_targets`, and look "
                    "whether all costs are finite?")
    return "matches 5 pictures with 0 to 5 targets"


def cut_too_late(padded, n: int) -> list[list[int]]:
    """What is left of the matching with all columns of a padded cost, cut to n of them."""
    rows, cols = linear_sum_assignment(padded.numpy())
    return [rows[cols < n].tolist(), cols[cols < n].tolist()]


def expect_matched(i: int, pair, cost, padded) -> None:
    """Refuse a pair of rows and columns that is not the cheapest, with the reason."""
    queries, n = cost.shape
    rows, cols = map(torch.from_numpy, linear_sum_assignment(cost.numpy()))
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Wrong("Return (rows, cols) for each picture.")
    if not all(isinstance(part, torch.Tensor) for part in pair):
        raise Wrong("Rows and columns are tensors: `torch.from_numpy` brings them back.")
    told = [part.tolist() for part in pair]
    if len(told[0]) > n:
        raise Wrong(f"Picture {i} has {n} targets, but {len(told[0])} matches: what was filled up "
                    "must not be matched. Cut its columns to its own number of labels.")
    if told[0] == cols.tolist() and told[1] == rows.tolist() and told[0] != told[1]:
        raise Wrong("Rows and columns are exchanged: queries (rows) come first.")
    if sorted(zip(*told, strict=False)) == sorted(zip(rows.tolist(), cols.tolist(), strict=True)):
        if told[0] != sorted(told[0]):
            raise Wrong("The pairs are right, but rows must rise, as scipy gives them.")
        return
    if len(set(told[0])) < len(told[0]):
        raise Wrong(f"In picture {i} a query answers for two targets: each answers for one.")
    if told == cut_too_late(padded, n):
        raise Wrong(f"Picture {i}: what was filled up took part in the matching and took queries "
                    "away. Cut its columns off BEFORE you match.")
    if len(told[0]) == n and max(told[0], default=0) < queries and n:
        paid, cheapest = (float(cost[r, c].sum()) for r, c in ((told[0], told[1]), (rows, cols)))
        raise Wrong(f"Picture {i}: this matching costs {paid:.2f}, the cheapest {cheapest:.2f}. "
                    "Is it greedy, or does it maximise, or match another picture's targets?")
    raise Wrong(f"Picture {i} needs {n} pairs, got {len(told[0])}.")


@exercise("gligen_lessons.detr:hungarian_loss")
def hungarian_loss(attempt):
    """Four pictures with 3, 0, 1 and 2 targets, another eos_coef, gradients, no target at all."""
    logits, boxes = (part.requires_grad_() for part in some_answers(4, 7))
    _, targets = some_truth(3, 0, 1, 2)
    labels = [torch.tensor(one, dtype=torch.long) for one in ([3, 0, 4], [], [2], [1, 3])]
    told = attempt(logits, boxes, list(labels), list(targets))
    want, mistakes = lost_wrongly(logits, boxes, labels, targets, .1)
    if not isinstance(told, dict) or set(told) != set(reference.WEIGHTS):
        raise Wrong(f"Return a dict with the keys {', '.join(reference.WEIGHTS)}.")
    for name, found in mistakes.items():
        looks_like(told[name], found)
    error = max(expect_close(told[name], loss, f"{name} is wrong: compare it with the text.")
                for name, loss in want.items())
    again = attempt(logits, boxes, list(labels), list(targets), .37)
    expect_close(again, lost_wrongly(logits, boxes, labels, targets, .37)[0],
                 "It is right for eos_coef .1 only: use the argument.")
    if not all(loss.requires_grad for loss in told.values()):
        raise Wrong("no gradient reaches the answers: no .item() or .detach() here.")
    nothing = attempt(logits, boxes, *some_truth(0, 0, 0, 0))
    if not all(torch.isfinite(loss) for loss in nothing.values()):
        raise Wrong("A batch without any target gives NaN: divide by at least 1.")
    return f"gives 3 losses for 6 targets in 4 pictures (largest difference {error:.0e})"


def lost_wrongly(logits, boxes, labels, targets, eos_coef) -> tuple[dict, dict]:
    """The right losses, and for each typical wrong values."""
    pairs, nothing = reference.match(logits, boxes, labels, targets), logits.shape[2] - 1
    wanted, first, unordered = (torch.full(logits.shape[:2], nothing) for _ in range(3))
    for i, (rows, cols) in enumerate(pairs):
        wanted[i, rows], first[i, :len(cols)] = labels[i][cols], labels[i]
        unordered[i, rows] = labels[i]
    each = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")       # (b,q)
    weight = torch.where(wanted == nothing, eos_coef, 1.)
    first_class = torch.where(wanted == 0, eos_coef, 1.)
    at_first, mixed = (F.cross_entropy(logits.transpose(1, 2), x, reduction="none")
                       for x in (first, unordered))
    mistakes = {"loss_ce": {
        "The labels stand at the first queries, not at the matched ones.":
            (at_first * torch.where(first == nothing, eos_coef, 1.)).sum() / weight.sum(),
        "The labels are not in the order of the matching: query rows[i] learns labels[cols[i]]; "
        "`in_order(labels, pairs)`.": (mixed * weight).sum() / weight.sum(),
        "eos_coef stands at class 0. 'Nothing' is the LAST class.":
            (each * first_class).sum() / first_class.sum(),
    } | misnamed(each, weight, wanted != nothing, eos_coef)}
    found = torch.cat([boxes[i, rows] for i, (rows, _) in enumerate(pairs)])
    true, n = reference.in_order(targets, pairs), sum(map(len, labels))
    l1, overlap = (found - true).abs(), every_giou(found, true).diagonal()
    mistakes |= misboxed(found, true, torch.cat(targets), [len(rows) for rows, _ in pairs],
                         wanted.numel())
    return {"loss_ce": (each * weight).sum() / weight.sum(), "loss_bbox": l1.sum() / n,
            "loss_giou": (1 - overlap).sum() / n}, mistakes


def every_giou(found, true) -> torch.Tensor:
    """GIoU of every pair of boxes given as cxcywh."""
    return own_boxes.giou(own_boxes.xyxy_from_cxcywh(found), own_boxes.xyxy_from_cxcywh(true))


def misnamed(each, weight, thing, eos_coef) -> dict:
    """Typical wrong values of loss_ce, from each query's cross-entropy and weight (b,q)."""
    turned = 1 + eos_coef - weight
    return {
        "All classes count alike here. 'Nothing' weighs only eos_coef.": each.mean(),
        "The weighted cross-entropy is divided by the number of queries. A weighted mean divides "
        "by the sum of the weights.": (each * weight).mean(),
        "Only matched queries learn a class here. The others learn 'nothing'.":
            each[thing].mean(),
        "The weight is on the things. It belongs to the last class, 'nothing'.":
            (each * turned).sum() / turned.sum(),
        "Each picture has a mean of its own here. Take ONE weighted mean over all queries of the "
        "batch.": ((each * weight).sum(1) / weight.sum(1)).mean(),
        "This is the sum over all queries. It is a (weighted) mean.": (each * weight).sum()}


def misboxed(found, true, unordered, counts: list[int], answers: int) -> dict:
    """Typical wrong values of both box losses, of matched boxes (n,4): `counts` a picture."""
    l1, every, n = (found - true).abs(), every_giou(found, true), len(true)
    overlap, b = every.diagonal(), len(counts)
    by_pictures = "The box losses are divided by the pictures. Divide by the targets of the batch."
    by_answers = "The box losses are divided by all answers. Divide by the targets of the batch."
    by_picture = ("Each picture has a mean of its own here. Sum over the whole batch, and divide "
                  "by all its targets.")

    def mean_of_means(values):
        return torch.stack([part.mean() for part in values.split(counts) if len(part)]).mean()
    return {"loss_bbox": {
        "L1 is averaged over the four numbers. Sum everything, and divide by the number of "
        "targets.": l1.mean(),
        by_pictures: l1.sum() / b, by_answers: l1.sum() / answers,
        by_picture: mean_of_means(l1.sum(1)),
        "The targets are not in the order of the matching: `in_order(targets, pairs)`.":
            (found - unordered).abs().sum() / n,
        "This is the squared error. L1 sums absolute differences.": l1.square().sum() / n,
        "This is a sum. Divide by the number of targets.": l1.sum(),
        "The weight 5 is applied here already. Leave it to detection_loss.": 5 * l1.sum() / n,
    }, "loss_giou": {
        "GIoU is taken of every pair. Each box has ONE partner: the diagonal.": (1 - every).mean(),
        "GIoU is summed over every pair. Each box has ONE partner: the diagonal.":
            (1 - every).sum() / n,
        CORNERS: (1 - own_boxes.giou(found, true).diagonal()).sum() / n,
        "This is GIoU itself. The loss is 1 minus it.": overlap.sum() / n,
        by_pictures: (1 - overlap).sum() / b, by_answers: (1 - overlap).sum() / answers,
        by_picture: mean_of_means(1 - overlap), "This is a sum. Divide by the number of targets.":
            (1 - overlap).sum(),
        "The weight 2 is applied here already. Leave it to detection_loss.":
            2 * (1 - overlap).sum() / n}}


@exercise("gligen_lessons.detr:detection_loss")
def detection_loss(attempt):
    """Three layers whose matchings differ."""
    parts = [some_answers(3, 6) for _ in range(3)]
    logits, boxes = (torch.stack(part).requires_grad_() for part in zip(*parts, strict=True))
    labels, targets = some_truth(2, 1, 4)
    each = [reference.hungarian_loss(*one, labels, targets)
            for one in zip(logits, boxes, strict=True)]
    totals = [sum(reference.WEIGHTS[name] * loss for name, loss in one.items()) for one in each]
    turned = reference.hungarian_loss(logits.transpose(0, 1).flatten(0, 1), boxes.transpose(
        0, 1).flatten(0, 1), labels * 3, targets * 3)
    mistakes = {
        "This is the mean over the layers. The paper adds them up.": sum(totals) / 3,
        "Only the last layer counts here. The auxiliary losses are missing.": totals[-1],
        "The weights are missing: 1, 5 and 2, in `WEIGHTS`.":
            sum(sum(one.values()) for one in each),
        "The layers are folded so that answers meet other pictures' targets. `flatten(0, 1)` puts "
        "layer after layer, so the list is `labels * layers`.":
            3 * sum(reference.WEIGHTS[name] * loss for name, loss in turned.items())}
    told = attempt(logits, boxes, list(labels), list(targets))
    if isinstance(told, dict):
        raise Wrong("Return one number: the weighted sum of the three losses.")
    error = expect_close(told, sum(totals), "The sum over the layers of the weighted losses.",
                         mistakes=mistakes)
    if not getattr(told, "requires_grad", False):
        raise Wrong("no gradient reaches the answers: no .item() or .detach() here.")
    return f"adds up the losses of 3 layers (largest difference {error:.0e})"
