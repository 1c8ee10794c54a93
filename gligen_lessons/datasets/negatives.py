"""Hard negatives: scenes, and so captions, that are nearly right."""

from dataclasses import replace

import torch

from ..world.scene import Scene
from ..world.vocabulary import HELD_OUT, WORDS


def exchanged(one: Scene, g: torch.Generator) -> Scene:
    """The scene with the category of one of its things exchanged: nearly right, and wrong.

    Never makes a pair of HELD_OUT, of which no caption may speak.
    """
    i = int(torch.randint(len(one.things), (), generator=g))
    thing = one.things[i]
    others = [word for word in WORDS if word != thing.category
              and (thing.colour, word) not in HELD_OUT]
    word = others[int(torch.randint(len(others), (), generator=g))]
    other = replace(thing, category=word, flip=False, pose=())
    return replace(one, things=(*one.things[:i], other, *one.things[i + 1:]))
