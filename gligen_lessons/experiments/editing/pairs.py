"""Edits to be measured: a picture, what its caption becomes, and what it should become."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...images import to_model
from ...world import boxes, captions, render, scene, seeds
from ...world.edits import Edit, edit
from ...world.language import full_caption, related_caption

# those that keep the layout, and those that do not, which no method here is made for
KEEPING = ("recolour", "retexture", "replace", "time", "weather", "restyle")
MOVING = ("add", "remove", "move")
FEWEST = 40                                               # pixels that an edit changes at least


@dataclass(frozen=True)
class Pair:
    """An edit with both captions and both pictures (3,128,128) in [-1, 1].

    `changed` (1,128,128) is 1 where the renders differ; `box` (4,) is that of the thing that
    changes, in the picture after the edit, or the whole picture.
    """

    edit: Edit
    source: str
    query: str
    before: Tensor
    after: Tensor
    changed: Tensor
    box: Tensor


def edit_pairs(count: int, kinds: tuple[str, ...] = KEEPING, split: str = "test") -> list[Pair]:
    """`count` edits of scenes of a split, of all kinds alike; scene i serves one kind.

    Left out are edits that hardly show, and those whose words do not change ("more fog" where
    both captions say "in fog").
    """
    found, places = {kind: [] for kind in kinds}, iter(seeds(split, 1000 + 40 * count))
    for i, kind in zip(range(count), kinds * count, strict=False):
        while len(found[kind]) <= i // len(kinds):
            seed = next(places)
            found[kind] += shown(edit(scene(seed), kind, seed))
    return [found[kind][i] for i in range(len(found[kinds[0]])) for kind in kinds
            if i < len(found[kind])][:count]


def shown(one: Edit | None) -> list[Pair]:
    """An edit as a pair; nothing where there is none, or none to be seen or said."""
    if one is None or not one.before.things:
        return []
    source, query = both_captions(one)
    images = [render(each) for each in (one.before, one.after)]
    before, after = (to_model(torch.tensor(each.image)[None])[0] for each in images)
    changed = (before - after).abs().amax(0, keepdim=True) > 2 / 127.5
    if source == query or int(changed.sum()) < FEWEST:
        return []
    return [Pair(one, source, query, before, after, changed.float(), box_of(one, images))]


def both_captions(one: Edit) -> tuple[str, str]:
    """The full captions before and after, things in the order of the caption before.

    Where a thing moves the captions say how it stands to another one.
    """
    step = 1 if captions(one.before)[0] == full_caption(one.before, list(one.before.things)) else -1
    says = related_caption if one.kind == "move" else full_caption
    return tuple(says(each, list(each.things)[::step]) for each in (one.before, one.after))


def box_of(one: Edit, images: list) -> Tensor:
    """Where the thing that changes is after the edit, or was before if it is gone, (4,)."""
    if one.index is None and one.kind != "remove":
        return torch.tensor([0., 0., 1., 1.])
    if one.kind == "remove":
        gone = next(i for i, thing in enumerate(one.before.things)
                    if thing not in one.after.things)
        return torch.tensor(boxes(one.before, images[0].ids)[gone])
    return torch.tensor(boxes(one.after, images[1].ids)[one.index])
