"""How well the referee of edits names attributes, on renders and on reconstructions."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attribute_referee import NOTHING, AttributeReferee, attributes, truth_of
from ..datasets.labelled import Labelled, pictures, visible_boxes
from ..metrics import share
from ..weights import load
from ..world import scene
from .autoencoder import reconstruct


def attributes_report(model: AttributeReferee, data: Labelled) -> dict:
    """The part of attributes that it names right on held-out renders, and after a reconstruction.

    A picture counts once a visible thing; the weather's amount has its mean error.
    """
    rows, slots = visible_boxes(data)
    boxes = torch.from_numpy(data.renders.boxes_xyxy[rows.numpy(), slots.numpy()])
    told = [truth_of(scene(data.renders.seeds[row]), slot)
            for row, slot in zip(rows.tolist(), slots.tolist(), strict=True)]
    x, vae, report = pictures(data, torch.arange(len(data.category))), load("vae"), {}
    for name, shown in (("renders", x), ("reconstructions", reconstruct(vae, x))):
        found = attributes(model, shown[rows], boxes)
        report |= {f"{what}, {name}": value
                   for what, value in right_attributes(found, told, rows).items()}
    return report | {"boxes": len(rows)}


def right_attributes(found: dict[str, Tensor], told: list[dict], rows: Tensor) -> dict:
    """Each attribute's share of right answers (`metrics.share`), and the amount's mean error."""
    report = {}
    for name, answers in found.items():
        wanted = torch.tensor([one[name] for one in told])
        if name == "amount":
            report["amount, mean error"] = float((answers - wanted).abs().mean())
        else:
            report |= share(name, answers == wanted, rows)
    return report


def attributes_judged(model: AttributeReferee) -> Callable:
    """Whether the judge of edits says that a box holds a thing, as `rubbish_report` asks it."""
    return lambda x, boxes: attributes(model, x, boxes)["category"] != NOTHING
