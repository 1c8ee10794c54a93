"""Renders with the labels of their things, as tensors."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import to_model
from ..referee import BACKGROUND
from ..world import scene, seeds
from ..world.backdrop import THING_ID
from ..world.cache import Renders, renders
from ..world.scene import MAX_THINGS
from ..world.vocabulary import CATEGORIES, COLOURS, WORDS

SEEN = 60                                                 # pixels that make a thing count
WHOLE = .6                                                # part of its box that is its own


@dataclass(frozen=True)
class Labelled:
    """Renders with their labels: category and colour numbers (N,6), -1 where there is no thing."""

    renders: Renders
    category: Tensor
    colour: Tensor


def labelled(split: str, count: int, size: int = 128) -> Labelled:
    """The first scenes of a split, `size` pixels wide, with the labels of their things."""
    return with_labels(renders(split, count, size))


def with_labels(drawn: Renders) -> Labelled:
    """Some renders with the labels of their things."""
    names = torch.full((2, len(drawn.seeds), MAX_THINGS), -1)
    for row, seed in enumerate(drawn.seeds):
        for i, thing in enumerate(scene(seed).things):
            names[0, row, i] = CATEGORIES.index(thing.category)
            names[1, row, i] = list(COLOURS).index(thing.colour)
    return Labelled(drawn, names[0], names[1])


def pictures(data: Labelled, rows: Tensor) -> Tensor:
    """Rows of the renders as model pictures (b,3,s,s) in [-1, 1]."""
    return to_model(torch.from_numpy(data.renders.images[rows.numpy()]))


def cells(data: Labelled, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Category and colour at the middle of each position of 8 px, (b,s/8,s/8) each."""
    ids = torch.from_numpy(data.renders.ids[rows.numpy(), 4::8, 4::8]).long()
    slot = (ids - THING_ID).clamp(min=0)
    row = rows[:, None, None].expand_as(slot)
    thing = ids >= THING_ID
    return (torch.where(thing, data.category[row, slot], BACKGROUND),
            torch.where(thing, data.colour[row, slot], -1))


def truth(data: Labelled, rows: Tensor) -> Tensor:
    """Which category in which colour is visible, (b,18,10) of 0 and 1."""
    found = torch.zeros(len(rows), len(CATEGORIES), len(COLOURS))
    for i, row in enumerate(rows.tolist()):
        pixels = np.bincount(data.renders.ids[row].ravel(), minlength=THING_ID + MAX_THINGS)
        for slot in range(MAX_THINGS):
            if pixels[THING_ID + slot] >= SEEN:
                found[i, data.category[row, slot], data.colour[row, slot]] = 1
    return found


def visible_boxes(data: Labelled) -> tuple[Tensor, Tensor]:
    """Rows and slots of the things that are seen for the most part, in no more than light fog.

    A thing counts when at least 60 visible pixels show it, and no other thing's box covers more
    than 40 % of its own.
    """
    boxes = torch.from_numpy(np.array(data.renders.boxes_xyxy))                     # (N,6,4)
    start = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    stop = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (stop - start).clamp(min=0).prod(-1)                                   # (N,6,6)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)                               # (N,6)
    other = shared * (1 - torch.eye(MAX_THINGS))
    clear = other.amax(-1) <= (1 - WHOLE) * area
    return torch.nonzero((data.category >= 0) & clear & (area * 128**2 >= SEEN), as_tuple=True)


def small_pictures(split: str, count: int) -> Tensor:
    """Pictures of a split at 32 px for the model, (n,3,32,32) in [-1, 1]."""
    return to_model(torch.tensor(renders(split, count, size=32).images))


def labels_of(split: str, count: int) -> Tensor:
    """Category and colour number (n,2) of the only thing of each scene of a single-thing split."""
    things = [scene(seed).things[0] for seed in seeds(split, count)]
    return torch.tensor([[WORDS.index(thing.category), list(COLOURS).index(thing.colour)]
                         for thing in things])


NOTHING = -1                                              # the code of a position without a thing


def cell_codes(data: Labelled, rows: Tensor, side: int = 16) -> Tensor:
    """What each position of some scenes shows: category times 10 plus colour, or NOTHING.

    (b,side*side) for pictures of 8 * side px or a multiple of it; a coarse position shows a thing
    if one of its fine positions does.
    """
    category, colour = cells(data, rows)                                   # (b,s/8,s/8) twice
    codes = torch.where(category == BACKGROUND, NOTHING, category * len(COLOURS) + colour)
    return F.max_pool2d(codes[:, None].float(), codes.shape[-1] // side).long().flatten(1)
