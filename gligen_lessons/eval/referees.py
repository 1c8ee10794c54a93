"""How well the two judges name things, and how often they are sure of nothing."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..datasets.labelled import Labelled, labelled, pictures, truth, visible_boxes
from ..datasets.nothing import KINDS, decoded_noise, nothing
from ..images import resized
from ..metrics import average_precision, right_points
from ..referee import (
    BACKGROUND,
    CropReferee,
    PoseReferee,
    SceneReferee,
    judge_boxes,
    judge_scenes,
)
from ..weights import load
from ..world.vocabulary import POSABLE
from .autoencoder import reconstruct
from .grounding_inputs import HeldFigures


@torch.no_grad()
def crop_report(model: CropReferee, data: Labelled) -> dict:
    """Accuracy on held-out boxes whose thing is mostly visible, clean and degraded."""
    rows, slots = visible_boxes(data)
    boxes = torch.from_numpy(data.renders.boxes_xyxy[rows.numpy(), slots.numpy()])
    found, g = {}, torch.Generator().manual_seed(0)
    for name in ("clean", "blurred and noisy"):
        hits = []
        for part in torch.arange(len(rows)).split(256):
            x, where = pictures(data, rows[part]), torch.arange(len(part))
            x = x if name == "clean" else blurred(x, g)
            category, colour = judge_boxes(model, x, boxes[part], where)
            hits.append(torch.stack([category == data.category[rows[part], slots[part]],
                                     colour == data.colour[rows[part], slots[part]]]))
        category, colour = torch.cat(hits, 1).float().mean(1).tolist()
        found |= {f"category, {name}": category, f"colour, {name}": colour}
    return found | {"boxes": len(rows)}


def blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every picture at half size and back, with noise of a twentieth."""
    x = resized(resized(x, x.shape[-1] // 2), x.shape[-1])
    return x + .05 * torch.randn(x.shape, generator=generator)


def scene_report(model: SceneReferee, data: Labelled) -> dict:
    """Mean average precision over categories, colours and their pairs on held-out renders."""
    rows = torch.arange(len(data.category))
    found = torch.cat([judge_scenes(model, pictures(data, part))[0] for part in rows.split(64)])
    present = truth(data, rows)
    pairs = [average_precision(found[:, k, c], present[:, k, c] > 0)
             for k in range(present.shape[1]) for c in range(present.shape[2])
             if present[:, k, c].any()]
    micro = average_precision(found.flatten(), present.flatten() > 0)
    kinds = [average_precision(found.amax(2)[:, k], present.amax(2)[:, k] > 0)
             for k in range(present.shape[1])]
    return {"mean average precision of pairs": float(np.mean(pairs)),
            "average precision over all labels": micro,
            "mean average precision of categories": float(np.mean(kinds)), "scenes": len(rows)}


def pose_report(model: PoseReferee, count: int) -> dict:
    """PCK on held-out renders, on their reconstructions and on noise, and how sure the judge is."""
    held, report = HeldFigures.of(count, "referee-test", POSABLE), {}
    noise = torch.randn(held.x.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    for name, x in (("renders", held.x), ("reconstructions", reconstruct(load("vae"), held.x)),
                    ("noise", noise)):
        _, true, found, sure = held.seen(x, model)
        report |= {f"PCK, {name}": float(right_points(found, true).mean()),
                   f"PCK at .1, {name}": float(right_points(found, true, .1).mean()),
                   f"sure, {name}": float(sure.mean())}
    return report | {"figures": len(true)}


def rubbish_report(sure: Callable, count: int) -> dict:
    """How often a judge is sure of some thing in `count` pictures of each kind of nothing.

    sure(x (b,3,128,128), boxes (b,4)) -> (b,) of True and False; the boxes are those of things
    that the renders showed before they were spoilt.
    """
    data, vae, g = labelled("referee-test", count), load("vae"), torch.Generator().manual_seed(0)
    x, made = torch.cat([pictures(data, r) for r in torch.arange(count).split(64)]), {}
    boxes = torch.from_numpy(np.array(data.renders.boxes_xyxy[:, 0]))
    for kind in (*KINDS, "decoded noise"):
        hits = []
        for part, box in zip(x.split(50), boxes.split(50), strict=True):
            bad = decoded_noise(vae, part, g) if kind not in KINDS else nothing(kind, part, g)
            hits.append(sure(bad, box))
        made[kind] = float(torch.cat(hits).float().mean())
    return made


def scene_judged(model: SceneReferee) -> Callable:
    """Whether the scene judge finds anything more likely than not."""
    return lambda x, boxes: judge_scenes(model, x)[0].flatten(1).amax(1) > .5


def crop_judged(model: CropReferee) -> Callable:
    """Whether the crop judge says that a box holds a thing."""
    return lambda x, boxes: judge_boxes(model, x, boxes, torch.arange(len(x)))[0] != BACKGROUND
