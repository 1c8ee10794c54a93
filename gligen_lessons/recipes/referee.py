"""Training the referee: crops and whole pictures with the world's exact annotation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import device
from ..datasets.grounding_inputs import scene_figures
from ..datasets.labelled import Labelled, cells, labelled, pictures, truth
from ..datasets.nothing import KINDS, decoded_noise, nothing
from ..eval.referees import (
    crop_judged,
    crop_report,
    pose_report,
    rubbish_report,
    scene_judged,
    scene_report,
)
from ..fit import step_generator
from ..images import crops, resized
from ..muon import groups
from ..referee import (
    BACKGROUND,
    CROP,
    FIGURE,
    CropReferee,
    PoseReferee,
    SceneReferee,
    expected_points,
    point_boxes,
    presence,
)
from ..weights import load
from ..world import scene
from . import Recipe, seeded

EMPTY, EMPTY_SCENES = .2, .35                             # of a batch: pictures of nothing,
HARD = ("blurred away", "smeared")                        # these kinds four times as often
RATE = 5e-3                                               # Muon's
SHIFT = .2                                                # of its size: how far a side may be off
OFF, PLACE = 10., .5                                      # weights of the pose judge's two losses


def degrade(x: Tensor, generator: torch.Generator) -> Tensor:
    """A little blur (by way of a smaller size) for half of the pictures, a little noise for all."""
    small = (1, 1, 2, 4)[int(torch.randint(4, (1,), generator=generator))]
    half = len(x) // 2
    if small > 1:
        shrunk = resized(x[:half], x.shape[-1] // small)
        x = torch.cat([resized(shrunk, x.shape[-1]), x[half:]])
    strength = .12 * torch.rand(len(x), 1, 1, 1, generator=generator)
    return x + strength * torch.randn(x.shape, generator=generator)


@dataclass(frozen=True)
class Exhibits:
    """What the referee learns from: scenes, some of them reconstructed, and pictures of nothing.

    trips (n/8,3,128,128) are the first scenes as the autoencoder gives them back, decoded
    (n/16,3,128,128) what it makes of noise.
    """

    data: Labelled
    trips: Tensor
    decoded: Tensor

    @classmethod
    def of(cls, count: int) -> "Exhibits":
        """The first `count` scenes of referee-train, and what the shipped autoencoder adds."""
        data, where = labelled("referee-train", count), device.pick()
        vae, g = load("vae", where), device.generator(0)

        def made(most: int, spoil: Callable) -> Tensor:
            with torch.no_grad(), device.half_precision(where):
                return torch.cat([spoil(pictures(data, rows).to(where)).float().cpu()
                                  for rows in torch.arange(max(1, most)).split(50)])

        return cls(data, made(count // 8, lambda x: vae.decode(vae.encode(x)[0]).clamp(-1, 1)),
                   made(count // 16, lambda x: decoded_noise(vae, x, g)))

    def shown(self, rows: Tensor, g: torch.Generator) -> Tensor:
        """Pictures of some scenes: half of those that have been reconstructed are seen so."""
        x, after = pictures(self.data, rows), (rows < len(self.trips))
        after &= torch.rand(len(rows), generator=g) < .5
        x[after] = self.trips[rows[after]]
        return degrade(x, g)

    def empty(self, rows: Tensor, g: torch.Generator) -> Tensor:
        """Some scenes' pictures, all spoilt in one way, so that nothing can be named."""
        kinds = (*KINDS, "decoded noise", *3 * HARD)
        kind = kinds[int(torch.randint(len(kinds), (), generator=g))]
        if kind not in KINDS:
            return self.decoded[rows % len(self.decoded)]
        return nothing(kind, pictures(self.data, rows), g)


def referee_crop(steps: int | None = None, batch: int = 80) -> Recipe:
    """The network that names what is in a box."""
    steps = steps or 4_100
    scenes = min(16_000, batch * steps)
    seen = Exhibits.of(scenes)
    data, none = seen.data, round(EMPTY * batch)
    rows, slots = torch.nonzero(data.category >= 0, as_tuple=True)

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(1, step)
        pick = torch.randint(len(rows), (batch,), generator=g)
        row, slot = rows[pick], slots[pick]
        category, colour = data.category[row, slot], data.colour[row, slot]
        boxes = torch.from_numpy(data.renders.boxes_xyxy[row.numpy(), slot.numpy()])
        boxes = jitter(boxes, g)
        background = torch.arange(batch) % 6 == 0                  # a sixth are background
        boxes[background] = empty_boxes(data, row[background], g)
        hidden = (boxes[:, 2:] - boxes[:, :2]).amin(1) < .03       # nothing to see
        background |= hidden
        background[-none:] = True                                  # pictures of nothing
        x = torch.cat([seen.shown(row[:-none], g), seen.empty(row[-none:], g)])
        return (crops(x, boxes, torch.arange(batch), CROP),
                torch.where(background, BACKGROUND, category), colour)

    def report(model) -> dict:
        return crop_report(model, labelled("referee-test", max(8, scenes // 16))) | {
            "sure of nothing": rubbish_report(crop_judged(model), max(4, scenes // 80))}

    return judge_recipe("referee-crop", seeded(CropReferee), {"width": 32}, scenes, sample_batch,
                        crop_loss, steps, report)


def judge_recipe(name: str, model: torch.nn.Module, config: dict, scenes: int,
                 sample_batch: Callable,
                 loss: Callable, steps: int, report: Callable) -> Recipe:
    """What the recipes of both judges share."""
    return Recipe(
        name=name, model=model, config=config, sample_batch=sample_batch, loss=loss, steps=steps,
        lr=RATE,
        report=report, data=f"{scenes} scenes of referee-train at 128 px, one in eight also after "
        "reconstruction by vae; pictures in which nothing can be named",
        options={"ema": .998, "weight_decay": .01, "optimizer": "muon",
                 "groups": partial(groups, lr=RATE, adjust="match_rms_adamw")})


def jitter(boxes: Tensor, generator: torch.Generator, part: float = .06) -> Tensor:
    """Boxes (n,4) xyxy with every side moved by up to a part of the box."""
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + part * size * (2 * torch.rand(boxes.shape, generator=generator) - 1)


def empty_boxes(data: Labelled, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Boxes (n,4) that share little with any thing of their picture: the best of ten tries."""
    low = .8 * torch.rand(len(rows), 10, 2, generator=generator)
    size = .1 + .35 * torch.rand(len(rows), 10, 2, generator=generator)
    tries = torch.cat([low, (low + size).clamp(max=1)], -1)                         # (n,10,4)
    things = torch.from_numpy(data.renders.boxes_xyxy[rows.numpy()])[:, None]       # (n,1,6,4)
    start = torch.maximum(tries[:, :, None, :2], things[..., :2])
    stop = torch.minimum(tries[:, :, None, 2:], things[..., 2:])
    shared = (stop - start).clamp(min=0).prod(-1).sum(-1)                           # (n,10)
    return tries[torch.arange(len(rows)), shared.argmin(1)]


def crop_loss(model: CropReferee, x: Tensor, category: Tensor, colour: Tensor) -> Tensor:
    """Cross-entropy of the category, and of the colour where there is a thing."""
    by_category, by_colour = model(x)
    thing = (category != BACKGROUND).float()
    colour_loss = F.cross_entropy(by_colour, colour, reduction="none")
    return F.cross_entropy(by_category, category) + (colour_loss * thing).mean()


def referee_scene(steps: int | None = None, batch: int = 40) -> Recipe:
    """The network that names what is in a whole picture."""
    steps = steps or 6_600
    scenes = min(16_000, batch * steps)
    seen = Exhibits.of(scenes)
    none = round(EMPTY_SCENES * batch)

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = step_generator(2, step)
        rows = torch.randint(scenes, (batch,), generator=g)
        x = torch.cat([seen.shown(rows[:-none], g), seen.empty(rows[-none:], g)])
        category, colour = cells(seen.data, rows)
        present = truth(seen.data, rows)
        category[-none:], colour[-none:], present[-none:] = BACKGROUND, -1, 0
        if torch.rand(1, generator=g) < .5:
            x, category, colour = x.flip(-1), category.flip(-1), colour.flip(-1)
        return x, category, colour, present

    def report(model) -> dict:
        return scene_report(model, labelled("referee-test", max(8, scenes // 8))) | {
            "sure of nothing": rubbish_report(scene_judged(model), max(4, scenes // 80))}

    return judge_recipe("referee-scene", seeded(SceneReferee), {"width": 24, "features": 64},
                        scenes, sample_batch, scene_loss, steps, report)


def scene_loss(model: SceneReferee, x: Tensor, category: Tensor, colour: Tensor,
               present: Tensor) -> Tensor:
    """Cross-entropy at every place, and of what is present in the whole picture."""
    by_category, by_colour, _ = model(x)
    found = presence(by_category, by_colour).clamp(1e-4, 1 - 1e-4)
    whole = F.binary_cross_entropy(found, present, reduction="none").flatten(1).sum(1).mean()
    here = F.cross_entropy(by_category, category)
    return here + F.cross_entropy(by_colour, colour, ignore_index=-1) + .1 * whole


def referee_pose(steps: int | None = None, batch: int = 64) -> Recipe:
    """The network that finds the key points of a figure in its crop, of all posable categories."""
    steps = steps or 3_000
    count = min(16_000, batch * steps)
    seen, none = Exhibits.of(count), round(EMPTY * batch)
    points = torch.stack([scene_figures(scene(seed), seen.data.renders.ids[i])
                          for i, seed in enumerate(seen.data.renders.seeds)])
    rows, slots = torch.nonzero(points.flatten(2).any(-1), as_tuple=True)

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(18, step)
        pick = torch.randint(len(rows), (batch,), generator=g)
        true = points[rows[pick], slots[pick]]                     # (b,17,3)
        boxes = jitter(point_boxes(true), g, SHIFT)
        row = rows[pick]
        x = torch.cat([seen.shown(row[:-none], g), seen.empty(row[-none:], g)])
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        xy = (true[..., :2] - low) / (high - low)                  # in its crop
        there = (true[..., 2] > 0) & (xy >= 0).all(-1) & (xy < 1).all(-1)
        there[-none:] = False
        return crops(x, boxes, torch.arange(batch), FIGURE), xy, there.float()

    def report(model) -> dict:
        return pose_report(model, max(4, count // 80))

    return judge_recipe("referee-pose", seeded(PoseReferee), {"width": 24}, count, sample_batch,
                        pose_loss, steps, report)


def pose_loss(model: PoseReferee, x: Tensor, xy: Tensor, there: Tensor) -> Tensor:
    """How far each joint that is there (b,17) is missed, and cross-entropy of its position.

    Where no joint is there the maps should be flat.
    """
    logits = model(x)
    side = logits.shape[-1]
    column, row = (side * xy.clamp(0, .999)).long().unbind(-1)     # (b,17) each
    log_p = logits.flatten(2).log_softmax(-1)                      # (b,17,side*side)
    place = -log_p.gather(2, (side * row + column)[..., None])[..., 0]
    off = (expected_points(logits)[0] - xy).abs().sum(-1)
    nobody = (there.sum(1) == 0).float()
    flat = -(log_p.mean((1, 2)) * nobody).mean()
    return ((OFF * off + PLACE * place) * there).sum() / there.sum().clamp(min=1) + flat
