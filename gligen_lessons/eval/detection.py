"""DETR and its backbone: average precision, duplicates, positions named right."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..boxes import iou, xyxy_from_cxcywh
from ..datasets.annotated import Annotated, annotated, base_cells, lists
from ..datasets.labelled import labelled, pictures
from ..detr import DETR, EVEN_ODDS, Detections, detect, match, postprocess
from ..images import to_model
from ..metrics import detection_precision
from ..resnet import DenseClassifier
from ..world.vocabulary import BASE, CATEGORIES


@torch.no_grad()
def backbone_report(model: DenseClassifier, count: int) -> dict:
    """How often a position is named right, where there is a thing and where there is none."""
    data, where = labelled("grounding-test", count), next(model.parameters()).device
    right = []
    for rows in torch.arange(count).split(64):
        shown = base_cells(data, rows)
        named = model(pictures(data, rows).to(where)).argmax(1).cpu()
        right.append(torch.stack([named == shown, shown < len(BASE)]))
    hit, thing = torch.cat(right, 1)
    return {"places with a thing": float(hit[thing].float().mean()),
            "places without": float(hit[~thing].float().mean()), "scenes": count}


def stacked(images, rows: slice) -> Tensor:
    """Rows of uint8 pictures as model pictures (b,3,128,128)."""
    return to_model(torch.tensor(np.ascontiguousarray(images[rows])))


def detection_figures(model: nn.Module, data: Annotated) -> dict:
    """COCO's average precision of a detector on annotated pictures."""
    found = detect(model, stacked(data.images, slice(None)), threshold=0.)
    answers = [(one.scores, one.labels, one.boxes_xyxy) for one in found]
    labels, boxes = lists(data.labels, data.boxes_xyxy)
    return detection_precision(
        answers, [(label, xyxy_from_cxcywh(box)) for label, box in zip(labels, boxes, strict=True)],
        ignored=data.ignored)


@torch.no_grad()
def matches(model: DETR, data: Annotated, count: int) -> list[list[int]]:
    """Which query answers for each target of the first `count` pictures, targets in order."""
    where = next(model.parameters()).device
    logits, boxes = model(stacked(data.images, slice(count)).to(where))
    pairs = match(logits.cpu(), boxes.cpu(), *lists(data.labels[:count], data.boxes_xyxy[:count]))
    return [rows[cols.argsort()].tolist() for rows, cols in pairs]


def detr_report(model: DETR, count: int = 1000) -> dict:
    """Average precision on held-out scenes, all of them and by category."""
    return named_figures(detection_figures(model, annotated("grounding-test", count)),
                         CATEGORIES) | {"scenes": count}


def named_figures(ap: dict, categories: Sequence[str]) -> dict:
    """The figures of `detection_figures` with the names of the categories in place of labels."""
    each = {"AP of " + categories[label]: value for label, value in ap["AP of labels"].items()}
    return {name: value for name, value in ap.items() if "labels" not in name} | each


def found_and_repeated(one: Detections, label: Tensor, true_xyxy: Tensor) -> tuple[int, int]:
    """How many things the sure boxes of a picture find, and how many boxes repeat one of them."""
    claimed, again = set(), 0
    for j in (one.scores > EVEN_ODDS).nonzero().flatten().tolist() if len(label) else ():
        shared = iou(one.boxes_xyxy[j:j + 1], true_xyxy)[0][0] * (label == one.labels[j])
        k = int(shared.argmax())
        if shared[k] >= .5:
            again += k in claimed
            claimed.add(k)
    return len(claimed), again


def suppressed_by_category(one: Detections) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and boxes after suppression: the surest of a category that overlap by half."""
    kept = []
    for i in one.scores.argsort(descending=True).tolist():
        rivals = [j for j in kept if one.labels[j] == one.labels[i]]
        if not (iou(one.boxes_xyxy[i:i + 1], one.boxes_xyxy[rivals])[0] > .5).any():
            kept.append(i)
    return one.scores[kept], one.labels[kept], one.boxes_xyxy[kept]


@torch.no_grad()
def duplicates_by_layer(model: DETR, x: Tensor, labels: list[Tensor], true_xyxy: list[Tensor],
                        cut: Callable | None = None) -> list[tuple]:
    """A row a decoder layer: things found, duplicates, AP50 and AP, both after suppression.

    `cut(layer, inputs, out)` gives what the queries' self-attention returns in place of `out`.
    """
    off = [layer.self_attn.register_forward_hook(cut) for layer in model.model.decoder.layers
           if cut]
    where, rows, truth = next(model.parameters()).device, [], [*zip(labels, true_xyxy, strict=True)]
    try:
        said = [model.every_layer(part.to(where)) for part in x.split(32)]
    finally:
        for handle in off:
            handle.remove()
    for logits, boxes in zip(*(torch.cat(part, 1).cpu() for part in zip(*said, strict=True)),
                             strict=True):
        made = postprocess(logits, boxes)
        hits, again = map(sum, zip(*map(found_and_repeated, made, labels, true_xyxy), strict=True))
        whole = [(one.scores, one.labels, one.boxes_xyxy) for one in made]
        scored = [detection_precision(listed, truth)
                  for listed in (whole, [*map(suppressed_by_category, made)])]
        rows.append((hits, again, *(one[k] for one in scored for k in ("AP50", "AP"))))
    return rows
