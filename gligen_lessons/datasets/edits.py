"""Edits of the world whose true answer is known: pictures before and after, both captions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..images import to_model
from ..world import boxes, captions, render, scene, seeds
from ..world.edits import Edit, edit
from ..world.language import named
from ..world.scene import Scene

TELLING = 8                                               # of 255: less is no visible change
LEAST_AREA = .06                                          # of the picture, for a latent of 16 x 16


@dataclass(frozen=True)
class EditCase:
    """One edit: pictures (3,h,w) in [-1, 1] before and after, and what is said of each.

    `reference` and `query` differ in the words of the thing alone; `changed` (h,w) is 1 where a
    pixel differs, shadows too; `box` (4,) xyxy is the thing's afterwards.
    """

    edit: Edit
    before: Tensor
    after: Tensor
    reference: str
    query: str
    changed: Tensor
    box: Tensor


def edit_cases(kind: str, count: int, split: str = "val", most_things: int = 2) -> list[EditCase]:
    """The first `count` edits of one kind in a split that change enough to be seen on a latent.

    Only scenes of at most `most_things`. ValueError where the split runs out of them.
    """
    found = []
    for case in cases_of(kind, split, most_things):
        found.append(case)
        if len(found) == count:
            return found
    raise ValueError(f"The split {split!r} holds only {len(found)} such edits of the kind "
                     f"{kind!r}, {count} were asked for.")


def cases_of(kind: str, split: str, most_things: int, among: int = 5000) -> Iterator[EditCase]:
    """Every such edit of the first seeds of a split, in their order."""
    for seed in seeds(split, among):
        one = scene(seed)
        if len(one.things) > most_things:
            continue
        found = edit(one, kind, seed)
        case = None if found is None else case_of(found)
        if case is not None and float(case.changed.mean()) >= LEAST_AREA:
            yield case


def case_of(one: Edit) -> EditCase | None:
    """An edit with its pictures and texts; None where the caption does not name its thing.

    The caption is that of the scene before, its words in their order; a caption of the scene after
    may list things in another order, and texts would differ where pictures do not.
    """
    reference, query = captions(one.before)[0], captions(one.after)[0]
    if one.index is not None and len(one.before.things) == len(one.after.things):
        old, new = (named(s.things[one.index]) for s in (one.before, one.after))
        if old not in reference:
            return None
        query = reference.replace(old, new)
    drawn = [render(s) for s in (one.before, one.after)]
    before, after = to_model(torch.from_numpy(np.stack([d.image for d in drawn])))
    apart = np.abs(drawn[0].image.astype(int) - drawn[1].image).max(-1) > TELLING
    return EditCase(one, before, after, reference, query, torch.from_numpy(apart).float(),
                    thing_box(one.after, drawn[1].ids, one.index))


def thing_box(one: Scene, ids: np.ndarray, index: int | None) -> Tensor:
    """The box (4,) xyxy of a thing of a scene; the whole picture where there is none."""
    if index is None or index >= len(one.things):
        return torch.tensor([0., 0., 1., 1.])
    return torch.from_numpy(boxes(one, ids)[index]).float()
