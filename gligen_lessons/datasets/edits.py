"""Edits of the world whose true answer is known: pictures before and after, both captions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..images import to_model
from ..world import boxes, captions, render, scene, seeds
from ..world.edits import Edit, edit
from ..world.language import full_caption, related_caption
from ..world.scene import MAX_THINGS, Scene

TELLING = 8                                               # of 255: less is no visible change
# edits that keep the layout, and those that do not
KEEPING = ("recolour", "retexture", "replace", "time", "weather", "restyle")
MOVING = ("add", "remove", "move")
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


def edit_cases(kind: str, count: int, split: str = "val", most_things: int = 2,
               least_area: float = LEAST_AREA, plain: bool = False) -> list[EditCase]:
    """The first `count` edits of one kind in a split that change enough to be seen on a latent.

    Only scenes of at most `most_things`; with `plain` only flat ones in clear weather, not at
    night. ValueError where the split runs out of them.
    """
    found = []
    for case in cases_of(kind, split, most_things, least_area, plain):
        found.append(case)
        if len(found) == count:
            return found
    raise ValueError(f"The split {split!r} holds only {len(found)} such edits of the kind "
                     f"{kind!r}, {count} were asked for.")


def of_all_kinds(count: int, kinds: tuple[str, ...] = KEEPING, split: str = "test",
                 most_things: int = MAX_THINGS, least_area: float = .0025) -> list[EditCase]:
    """`count` edits, of each kind the same number or one more, the kinds in turn."""
    each = -(-count // len(kinds))
    columns = [edit_cases(kind, each, split, most_things, least_area) for kind in kinds]
    return [case for row in zip(*columns, strict=True) for case in row][:count]


def cases_of(kind: str, split: str, most_things: int, least_area: float, plain: bool,
             among: int = 20_000) -> Iterator[EditCase]:
    """Every such edit of the first seeds of a split, in their order."""
    for seed in seeds(split, among):
        one = scene(seed)
        if not 1 <= len(one.things) <= most_things or (plain and not is_plain(one)):
            continue
        found = edit(one, kind, seed)
        case = None if found is None else case_of(found)
        if case is not None and float(case.changed.mean()) >= least_area:
            yield case


def is_plain(one: Scene) -> bool:
    """Whether nothing veils the things of a scene: no style, no weather, no night."""
    return one.style == "flat" and one.weather == "clear" and one.time != "night"


def case_of(one: Edit) -> EditCase | None:
    """An edit with its pictures and texts; None where the texts say the same ("more fog" may)."""
    reference, query = both_captions(one)
    if reference == query:
        return None
    drawn = [render(s) for s in (one.before, one.after)]
    before, after = to_model(torch.from_numpy(np.stack([d.image for d in drawn])))
    apart = np.abs(drawn[0].image.astype(int) - drawn[1].image).max(-1) > TELLING
    return EditCase(one, before, after, reference, query, torch.from_numpy(apart).float(),
                    thing_box(one, [d.ids for d in drawn]))


def both_captions(one: Edit) -> tuple[str, str]:
    """The full captions before and after, things in the order of the caption before.

    Where a thing moves the captions say how it stands to another one.
    """
    step = 1 if captions(one.before)[0] == full_caption(one.before, list(one.before.things)) else -1
    says = related_caption if one.kind == "move" else full_caption
    return tuple(says(each, list(each.things)[::step]) for each in (one.before, one.after))


def thing_box(one: Edit, ids: list[np.ndarray]) -> Tensor:
    """Where the thing is after the edit, or was if it is gone, (4,) xyxy; else the whole picture.

    `ids` are the panoptic ids (h,w) of the renders before and after.
    """
    if one.kind == "remove":
        return torch.from_numpy(boxes(one.before, ids[0])[removed(one)]).float()
    if one.index is None:
        return torch.tensor([0., 0., 1., 1.])
    return torch.from_numpy(boxes(one.after, ids[1])[one.index]).float()


def removed(one: Edit) -> int:
    """Which thing of the scene before is gone."""
    return next(i for i, thing in enumerate(one.before.things) if thing not in one.after.things)
