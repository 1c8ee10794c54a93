"""One record for a picture and its annotation, whether it comes from the world or from COCO."""

from dataclasses import dataclass, field

import numpy as np

from .backdrop import STUFF_ID
from .language import captions, phrase
from .render import boxes, keypoints, masks, render
from .scene import Scene


@dataclass(frozen=True)
class Record:
    """A picture with everything the lessons ask of it.

    `image` (h,w,3) uint8; `captions` a list; one entry a thing in `categories`, `phrases`,
    `boxes_xyxy` (n,4) float32 in 0..1, `masks` (n,h,w) bool, `keypoints` (n,17,3) float32 with
    x, y in 0..1 and COCO's visibility, `crowd` (n,) bool; `stuff` maps a word to its mask.
    """

    image: np.ndarray
    captions: list[str]
    categories: list[str]
    phrases: list[str]
    boxes_xyxy: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray
    crowd: np.ndarray
    stuff: dict[str, np.ndarray] = field(default_factory=dict)
    name: str = ""


def record(scene: Scene, size: int = 128, vocabulary: tuple[str, ...] | None = None) -> Record:
    """The record of a scene: its visible things, of a vocabulary if one is given.

    Things that nothing shows of are left out, and so are things outside `vocabulary` (their
    captions stay: that is how novel words come with captions only).
    """
    drawn = render(scene, size)
    found, shapes = boxes(scene, drawn.ids), masks(scene, drawn.ids)
    keep = [i for i, thing in enumerate(scene.things)
            if shapes[i].any() and (vocabulary is None or thing.category in vocabulary)]
    stuff = {word: drawn.ids == number for word, number in STUFF_ID.items()
             if (drawn.ids == number).any()}
    return Record(drawn.image, captions(scene), [scene.things[i].category for i in keep],
                  [phrase(scene.things[i]) for i in keep], found[keep], shapes[keep],
                  keypoints(scene, drawn.ids)[keep], np.zeros(len(keep), bool), stuff)
