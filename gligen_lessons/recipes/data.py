"""What recipes learn from, whether it comes from the world or from a folder of anybody's pictures.

A `Source` gives each recipe its data: `world_data.World` renders, `own_data.OwnFolder` reads COCO
files. With the data come the figures that can be judged of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from ..datasets.annotated import Annotated
from ..datasets.instructions import Layouts
from ..latent import TextToImage

TOKENS = 40                                               # of a caption, the special ones too


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """For an autoencoder: images (N,s,s,3) uint8 and the boxes (N,k,4) of their things.

    `told` says in words what they are; `report(model, count)` judges held-out ones.
    """

    told: str
    images: np.ndarray
    boxes_xyxy: Tensor
    report: Callable


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """For CLIP: pictures, and what each of their 8 x 8 patches shows (N,64), where that is known.

    `choose(count, g)` draws rows (b,), a caption for each, and equally many wrong ones for each,
    or none. `help` is what the hints of patches count; `tokens` how long captions may be.
    """

    told: str
    images: Tensor
    codes: Tensor
    choose: Callable
    report: Callable
    tokens: int
    help: float = 1.


@dataclass(frozen=True, kw_only=True)
class Examples:
    """For latent diffusion: `choose(step, g)` draws the latents of a step with their captions.

    They come as `latent_scenes.Example`s, `side` positions wide when whole; `sample` and `report`
    are called with the parts and numbers of steps and pictures. `help` is what hints count.
    """

    told: str
    side: int
    choose: Callable
    sample: Callable
    report: Callable
    help: float = 1.


@dataclass(frozen=True, kw_only=True)
class Boxed:
    """For a detector: pictures to learn from and to watch, how many classes, how many queries.

    `backbone` is the part of the learning rate that its backbone gets.
    """

    told: str
    train: Annotated
    val: Annotated
    classes: int
    queries: int
    report: Callable
    backbone: float


@dataclass(frozen=True, kw_only=True)
class Grounded:
    """For gates: layouts, and the phrases that their rows number."""

    told: str
    layouts: Layouts
    phrases: list[str]
    sample: Callable
    report: Callable


class Source(Protocol):
    """Where recipes take their data from.

    `small` says that all pictures have 64 px; `origin(name)` is what the card of a model adds.
    """

    small: bool

    def origin(self, name: str) -> dict: ...
    def pictures(self, steps: int, batch: int) -> Pictures: ...
    def pairs(self, steps: int, batch: int) -> Pairs: ...
    def examples(self, steps: int, batch: int) -> Examples: ...
    def boxed(self, steps: int, batch: int) -> Boxed: ...
    def grounded(self, parts: TextToImage, steps: int, batch: int) -> Grounded: ...
