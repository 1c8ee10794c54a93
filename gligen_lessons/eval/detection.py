"""DETR and its backbone: average precision, positions named right."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..boxes import xyxy_from_cxcywh
from ..datasets.annotated import Annotated, annotated, base_cells, lists
from ..datasets.labelled import labelled, pictures
from ..detr import DETR, detect, match
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
