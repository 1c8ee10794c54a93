"""Training lesson 7's detector: its backbone first, then the whole network."""

from functools import partial
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import device
from ..boxes import area
from ..datasets.annotated import base_cells, lists, tidy
from ..datasets.labelled import labelled, pictures
from ..detr import DETR, detection_loss
from ..eval.detection import backbone_report, detection_figures, matches
from ..fit import step_generator
from ..images import crops, to_model
from ..resnet import DenseClassifier
from ..weights import load
from ..world.vocabulary import BASE
from . import Recipe, on_device, scenes, seeded
from .data import Source
from .world_data import QUERIES, WORLD

SMALL_DETR = {
    "num_labels": len(BASE), "num_queries": QUERIES, "d_model": 128,
    "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 512,
    "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 512, "dropout": 0.,
    "backbone_config": {"embedding_size": 32, "hidden_sizes": (64, 128), "depths": (2, 2),
                        "layer_type": "basic"},
}
RATE = 4e-4                                               # of AdamW, at its height
ZOOM = .6                                                 # the smallest window of a picture
KEPT = .4                                                 # of a box, or a window loses it
WATCHED = 48                                              # pictures whose matching the log follows


def augment(x: Tensor, labels: Tensor, boxes_xyxy: Tensor,
            g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror half of the pictures (b,3,h,w), look at a part of half of them, at any brightness.

    A box that is cut down to less than `KEPT` of itself no longer counts.
    """
    b = len(x)
    side = torch.where(torch.rand(b, 1, generator=g) < .5,
                       ZOOM + (1 - ZOOM) * torch.rand(b, 1, generator=g), 1.)
    low = (1 - side) * torch.rand(b, 2, generator=g)
    mirrored = torch.rand(b, 1, generator=g) < .5
    window = torch.cat([low, low + side], 1)                                        # (b,4)
    x = crops(x, window, torch.arange(b), x.shape[-1])
    moved = (boxes_xyxy - low.repeat(1, 2)[:, None]) / side[:, None]
    seen = moved.clamp(0, 1)
    labels = torch.where(area(seen) >= KEPT * area(moved), labels, -1)
    flipped = torch.stack([1 - seen[..., 2], seen[..., 1], 1 - seen[..., 0], seen[..., 3]], -1)
    seen = torch.where(mirrored[..., None], flipped, seen)
    x = torch.where(mirrored.to(x.device)[..., None, None], x.flip(-1), x)
    light = 1 + .15 * (2 * torch.rand(b, 1, 1, 1, generator=g) - 1)
    return ((x + 1) * light.to(x) - 1, *tidy(labels, seen))


def detr(steps: int | None = None, batch: int | None = None, source: Source = WORLD) -> Recipe:
    """The detector, from the backbone that `detr-backbone` trained.

    On the world's scenes its backbone learns at a fifth of the rate, as it knows something of them
    already (the paper: a tenth).
    """
    full = device.compute_budget() == "full"
    steps, batch = steps or (60_000 if full else 20_000), batch or (64 if full else 8)
    import_module("pycocotools")                # the log needs it: say now if it is missing
    data = source.boxed(steps, batch)
    images, made = on_device(data.train.images), SMALL_DETR | {
        "num_labels": data.classes, "num_queries": data.queries}
    model = seeded(DETR, **made)
    model.model.backbone["model"].load_state_dict(load("detr-backbone").model.state_dict())

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(9, step)
        rows = torch.randint(len(images), (batch,), generator=g)
        x = to_model(images[rows.to(images.device)])
        return augment(x, data.train.labels[rows], data.train.boxes_xyxy[rows], g)

    def loss(model, x, labels, boxes_xyxy):
        logits, boxes = model.every_layer(x)
        return detection_loss(logits.float(), boxes.float(), *lists(labels, boxes_xyxy))

    def sample(model, step: int) -> dict:
        ap = detection_figures(model, data.val)
        return {"AP": ap["AP"], "AP50": ap["AP50"], "matches": matches(model, data.val, WATCHED)}

    def report(model) -> dict:
        return data.report(model, min(1000, 8 + steps))

    return Recipe(
        name="detr", model=model, config=made,
        data=f"{data.told}, mirrored, zoomed and dimmed; backbone from detr-backbone",
        sample_batch=sample_batch, loss=loss, steps=steps, lr=RATE, report=report, sample=sample,
        milestones=tuple((i + 1) / 40 for i in range(40)),
        options={"ema": .999, "weight_decay": 1e-4, "clip": .1,
                 "groups": partial(backbone_apart, part=data.backbone)})


def backbone_apart(model: DETR, part: float) -> list[dict]:
    """AdamW's two groups: the backbone at a part of the rate."""
    backbone = list(model.model.backbone.parameters())
    own = {id(p) for p in backbone}
    return [{"params": [p for p in model.parameters() if id(p) not in own], "lr": RATE},
            {"params": backbone, "lr": part * RATE}]


def detr_backbone(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The backbone's pre-training: the category at each of 16 x 16 positions, or none."""
    full = device.compute_budget() == "full"
    steps, batch = steps or (6_000 if full else 2_000), batch or (128 if full else 16)
    data = labelled("grounding-train", len(scenes("grounding-train", steps, batch).images))
    config = {key: SMALL_DETR[key] for key in ("num_labels", "backbone_config")}

    def sample_batch(step: int) -> tuple[Tensor, Tensor]:
        g = step_generator(8, step)
        rows = torch.randint(len(data.category), (batch,), generator=g)
        x, shown = pictures(data, rows), base_cells(data, rows)
        mirrored = torch.rand(batch, generator=g) < .5
        return (torch.where(mirrored[:, None, None, None], x.flip(-1), x),
                torch.where(mirrored[:, None, None], shown.flip(-1), shown))

    def loss(model, x, shown):
        return F.cross_entropy(model(x), shown)

    def report(model) -> dict:
        return backbone_report(model, min(500, 8 + steps))

    return Recipe(
        name="detr-backbone", model=seeded(DenseClassifier, **config), config=config,
        data=f"{len(data.category)} grounding-train scenes at 128 px", sample_batch=sample_batch,
        loss=loss,
        steps=steps, lr=1e-3, report=report, options={"ema": .998, "weight_decay": 1e-2})


