"""Scenes as a detector meets them: a label and a box for each thing that shows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..boxes import cxcywh_from_xyxy
from ..world.vocabulary import BASE
from .labelled import cells, labelled

SMALLEST = .03                                            # a side of a box that counts, 4 px


@dataclass(frozen=True)
class Annotated:
    """Pictures and their boxes: images (N,128,128,3) uint8, labels (N,6), boxes_xyxy (N,6,4).

    Things come first; where a picture has fewer, labels are -1 and boxes zero. `ignored` holds for
    each picture labels and boxes that count neither for nor against a detector, if there are any.
    """

    images: Tensor | np.ndarray
    labels: Tensor
    boxes_xyxy: Tensor
    ignored: list[tuple[Tensor, Tensor]] | None = None


def annotated(split: str, count: int) -> Annotated:
    """The first scenes of a split with everything that a detector should find in them.

    A thing counts, however much is covered, as long as 4 px of it show either way.
    """
    data = labelled(split, count)
    boxes = torch.tensor(data.renders.boxes_xyxy)
    return Annotated(data.renders.images, *tidy(data.category, boxes))


def tidy(labels: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Drop what is too small to count and move the rest to the front, in order."""
    large = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).amin(-1) >= SMALLEST
    labels = torch.where(large, labels, -1)
    order = (labels < 0).int().argsort(dim=1, stable=True)
    labels = labels.gather(1, order)
    boxes = boxes_xyxy.gather(1, order[..., None].expand_as(boxes_xyxy))
    return labels, torch.where((labels >= 0)[..., None], boxes, 0.)


def lists(labels: Tensor, boxes_xyxy: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Padded labels (b,6) and boxes (b,6,4) as what DETR's loss reads: a tensor a picture."""
    counts, boxes = (labels >= 0).sum(1).tolist(), cxcywh_from_xyxy(boxes_xyxy)
    return ([row[:n] for row, n in zip(labels, counts, strict=True)],
            [row[:n] for row, n in zip(boxes, counts, strict=True)])


def base_cells(data, rows: Tensor) -> Tensor:
    """The base category at each of the 16 x 16 places, (b,16,16); len(BASE) where none is."""
    shown = cells(data, rows)[0]
    return torch.where(shown < len(BASE), shown, len(BASE))
