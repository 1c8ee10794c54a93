"""Scenes as GLIGEN meets them: a caption, phrases and their boxes (GLIGEN, section 4.1)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import device
from ..gligen import LIMIT, Grounding, phrase_features
from ..latent import TextToImage
from ..world import captions, scene
from ..world.cache import Renders
from ..world.language import named
from ..world.scene import Scene, Thing
from ..world.vocabulary import BASE, COLOURS, PATTERNS
from .annotated import SMALLEST, tidy
from .labelled import with_labels
from .latent_scenes import cached_latents

KINDS = ("grounding", "detection", "detection and caption")
FULL_CAPTIONS = (0, 1, 2, 4)                              # those that say the colours
PART = 1024                                               # phrases that are read at once


@dataclass(frozen=True)
class Instruction:
    """What a picture is asked for: caption, and a phrase for each of its boxes (n,4) xyxy."""

    caption: str
    phrases: list[str]
    boxes_xyxy: Tensor


def instruction(one: Scene, boxes_xyxy: Tensor, kind: str,
                g: torch.Generator) -> Instruction:
    """One scene as one of three kinds of training data (GLIGEN, section 4.1).

    boxes_xyxy (n,4) of its things, zero where nothing of one shows; a box narrower than
    SMALLEST, 4 pixels, does not count. FULL_CAPTIONS say colours. "grounding":
    phrases as the caption says them; "detection": no caption, bare categories;
    "detection and caption": both.
    """
    if kind not in KINDS:
        raise ValueError(f"There is no kind {kind!r} of data; choose from "
                         f"{', '.join(KINDS)}.")
    seen = [i for i, box in enumerate(boxes_xyxy[:len(one.things)].tolist())
            if min(box[2] - box[0], box[3] - box[1]) >= SMALLEST]
    pick = FULL_CAPTIONS[int(torch.randint(len(FULL_CAPTIONS), (1,), generator=g))]
    caption = "" if kind == "detection" else captions(one)[pick]
    phrases = [named(one.things[i]) if kind == "grounding" else one.things[i].category
               for i in seen]
    return Instruction(caption, phrases, boxes_xyxy[seen])


def phrase_table() -> list[str]:
    """Every phrase of the three kinds of data, base categories only, in a fixed order."""
    bare = list(BASE)
    return bare + [named(Thing(category, colour, pattern=pattern)) for category in BASE
                   for colour in COLOURS for pattern in PATTERNS]


@dataclass(frozen=True)
class Layouts:
    """What training reads of N scenes: latents, five captions' ids, rows of the phrase table.

    z (N,4,16,16), ids (N,5,n), bare and full (N,6) with -1 where nothing is, boxes_xyxy (N,6,4).
    Of the captions those are drawn that are `spoken`: they say what `full` phrases say.
    """

    z: Tensor
    ids: Tensor
    bare: Tensor
    full: Tensor
    boxes_xyxy: Tensor
    spoken: tuple[int, ...] = FULL_CAPTIONS


def layouts(parts: TextToImage, drawn: Renders) -> Layouts:
    """The latents of some scenes with captions and phrases, as numbers.

    Without the scenes that show things of other than base categories: no box may name them.
    """
    rows = {phrase: i for i, phrase in enumerate(phrase_table())}
    data, z = with_labels(drawn), cached_latents(drawn)
    scenes_ = [scene(seed) for seed in drawn.seeds]
    kept = torch.tensor([all(thing.category in BASE for thing in one.things) for one in scenes_])
    texts = [text for one in scenes_ for text in captions(one)]
    full = torch.full_like(data.category, -1)
    for i, one in enumerate(scenes_):
        for k, thing in enumerate(one.things):
            full[i, k] = rows.get(named(thing), -1)
    bare, boxes = tidy(data.category, torch.tensor(np.array(drawn.boxes_xyxy)))
    full, _ = tidy(full, torch.tensor(np.array(drawn.boxes_xyxy)))
    ids = parts.tokenizer(texts).view(len(z), 5, -1).short()
    return Layouts(z[kept].to(device.pick()), ids[kept], bare[kept], full[kept], boxes[kept])


@torch.no_grad()
def phrase_table_features(parts: TextToImage, phrases: list[str]) -> Tensor:
    """What the text tower says of each phrase, (m,d), some at a time: there may be thousands."""
    return torch.cat([phrase_features(parts, phrases[i:i + PART])
                      for i in range(0, len(phrases), PART)])


def slots(table: Tensor, phrases: Tensor, boxes_xyxy: Tensor) -> Grounding:
    """Rows of the phrase table (b,6), -1 for none, as a grounding of all slots."""
    b, n = phrases.shape
    used = (phrases >= 0).float()                                           # (b,6)
    features = table[phrases.clamp(min=0)] * used[..., None]                # (b,6,d)
    pad = (0, LIMIT - n)
    return Grounding(torch.nn.functional.pad(boxes_xyxy * used[..., None], (0, 0, *pad)),
                     torch.nn.functional.pad(used, pad),
                     torch.nn.functional.pad(features, (0, 0, *pad)))
