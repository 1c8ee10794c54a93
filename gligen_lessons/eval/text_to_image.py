"""Latent diffusion: what the referee finds of what captions name."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import device, weights
from ..datasets.labelled import labelled, pictures
from ..images import SIDE
from ..latent import TextToImage, generate
from ..metrics import feature_distances
from ..referee import found_beside, judge_scenes
from ..world import captions, scene, seeds
from ..world.scene import Scene
from ..world.vocabulary import CATEGORIES, COLOURS, HELD_OUT, NOVEL
from .autoencoder import reconstruct

# what a fifth of the captions of the report is about: the split, and which things count
ALONE = {"single": ("single-test", lambda thing: True),
         "novel": ("novel", lambda thing: thing.category in NOVEL),
         "pairs": ("pairs", lambda thing: (thing.colour, thing.category) in HELD_OUT)}


SHOWN = ("a red car on the snow at night", "a yellow house on the grass by day",
         "a blue boat by the water at sunset", "a purple cat on the sand by day",
         "a green tree and a red mushroom on the grass by day", "a striped pink balloon",
         "a monkey in blue on the road by day", "a white rocket on the snow by day")


def is_small(parts: TextToImage) -> bool:
    """Whether a model paints single things at 64 px: one of `train small`."""
    return parts.unet.config["sample_size"] < SIDE // 8


def named_things(found: list[Scene], counts: Callable = lambda thing: True) -> Tensor:
    """What a caption that names everything asks for: category in colour, (n,18,10) of 0 and 1.

    Only of the things that count.
    """
    requested = torch.zeros(len(found), len(CATEGORIES), len(COLOURS))
    for i, one in enumerate(found):
        for thing in filter(counts, one.things):
            requested[i, CATEGORIES.index(thing.category), list(COLOURS).index(thing.colour)] = 1
    return requested


def ldm_report(parts: TextToImage, count: int = 1000, steps: int = 30,
               guidance_scale: float = 5.) -> dict:
    """Captions of held-out scenes as pictures: what the referee finds of what they name.

    `named, found` is the part of named things present in their colour (`referee.found_beside` has
    what stands beside it), also for renders of the same scenes and for their reconstructions by
    the autoencoder; distances compare with renders of other scenes. Single things, novel words
    and held-out pairs have captions of their own, a fifth as many.
    """
    judge, small = weights.load("referee-scene", device.pick()), is_small(parts)
    data = labelled("single-test", 2 * count, 64) if small else labelled("test", 2 * count)
    renders = torch.cat([pictures(data, part) for part in torch.arange(2 * count).split(64)])
    real, others = renders[:count], judge_scenes(judge, renders[count:])[1]
    scenes_ = [scene(seed) for seed in data.renders.seeds[:count]]
    options = {"steps": steps, "guidance_scale": guidance_scale}
    made = {"painted": judge_captions(parts, scenes_, **options),
            "renders": judge_scenes(judge, real),
            "reconstructions": judge_scenes(judge, reconstruct(parts.vae, real))}
    report = {}
    for name, (found, features) in made.items():
        report |= {f"named, {what}, {name}": value
                   for what, value in found_beside(found, named_things(scenes_)).items()}
        report |= {f"{what}, {name}": x for what, x in feature_distances(features, others).items()}
    for name, (split, counts) in ALONE.items() if not small else ():
        few = [scene(seed) for seed in seeds(split, max(8, count // 5))]
        told = found_beside(judge_captions(parts, few, **options)[0], named_things(few, counts))
        report |= {f"named, {what}, {name}": value for what, value in told.items()}
    return report | {"captions": count, "steps": steps, "guidance scale": guidance_scale}


def judge_captions(parts: TextToImage, found: list[Scene], batch: int = 16, **options) -> tuple:
    """The scene referee's findings (n,18,10) and features (n,64) of scenes painted by caption."""
    texts = [captions(one)[0] for one in found]
    x = torch.cat([generate(parts, texts[i:i + batch], seed=i, **options)
                   for i in range(0, len(texts), batch)])
    return judge_scenes(weights.load("referee-scene", device.pick()), x)
