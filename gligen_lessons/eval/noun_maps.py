"""Where cross-attention maps of nouns lie, against the panoptic truth (lesson 13)."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import device
from ..bpe import Tokenizer
from ..ddpm import q_sample
from ..diffedit import clean_latents
from ..images import to_model
from ..latent import TextToImage, cross_attentions, token_maps
from ..metrics import share
from ..nets import attention_map, head_mean, record_attention
from ..prompt_alignment import find, word_tokens
from ..world import Scene, captions, masks, render, scene, seeds

SIZE = 8                                                  # scenes at once
SIDES, STEP = (8, 16), 300                                # of the maps: their sizes, and at which t
AMONG = 40                                                # seeds looked at for each scene


def located(heat: Tensor, truth: Tensor) -> tuple[float, float]:
    """Whether a map (s,s) points at a thing, (s,s) of 0 and 1, and the IoU of both.

    The pointing game asks for the peak alone; for the IoU as many of the highest cells
    count as the thing has.
    """
    order = heat.flatten().argsort(descending=True)
    top = torch.zeros(truth.numel(), dtype=torch.bool)
    top[order[:int(truth.sum())]] = True
    inside = truth.flatten() > .5
    both, either = (top & inside).sum(), (top | inside).sum()
    return float(inside[order[0]]), float(both / either)


def centre_prior(side: int) -> Tensor:
    """A map (side,side) that is highest in the middle, whatever it is asked for."""
    y, x = torch.meshgrid(*[torch.arange(side) - side / 2 + .49] * 2, indexing="ij")
    return -(x**2 + y**2)                       # .49, not .5: one cell is the highest


@torch.no_grad()
def noun_maps(parts: TextToImage, x: Tensor, texts: list[str], step: int = STEP,
              seed: int = 0) -> dict[int, Tensor]:
    """The maps of all tokens, (b,n,side,side) by side: one look at pictures x (b,3,h,w), noised
    to a step.
    """
    z0 = clean_latents(parts, x)
    t = torch.full((len(x),), step, device=z0.device)
    eps = device.noise_each(z0.shape[1:], device.generators(seed, len(x)), z0.device)
    layers, look = cross_attentions(parts.unet), head_mean(attention_map)
    with record_attention(layers, look) as maps:
        parts.unet(q_sample(z0, t, eps, parts.schedule), t, parts.context(texts))
    return {side: token_maps(maps, side) for side in SIDES}


def plain_scenes(count: int, tokenizer: Tokenizer) -> list[Scene]:
    """The first held-out scenes with several things, each noun once, and a caption that fits."""
    def fits(one: Scene) -> bool:
        nouns = [thing.category for thing in one.things]
        return (len(set(nouns)) == len(nouns) > 1 and one.style == "flat"
                and len(tokenizer.pieces(captions(one)[0])) < tokenizer.length - 2)

    return list(islice(filter(fits, map(scene, seeds("test", AMONG * count))), count))


def noun_report(parts: TextToImage, count: int) -> dict:
    """How well maps of nouns find their things in `count` scenes, beside what must not.

    The pointing game and the IoU over all nouns; for their intervals whole scenes are drawn.
    """
    scenes, report = plain_scenes(count, parts.tokenizer), {}
    rows = [row for first in range(0, len(scenes), SIZE)
            for row in rows_of(parts, scenes[first:first + SIZE], first)]
    for side in SIDES:
        here = [row for row in rows if row["side"] == side]
        pictures = torch.tensor([row["scene"] for row in here])
        for name in ("maps", "another noun", "centre prior", "chance"):
            pointing, iou = torch.tensor([row[name] for row in here]).T     # (nouns,) twice
            report |= share(f"pointing game, {side} x {side}, {name}", pointing, pictures)
            report |= share(f"noun IoU, {side} x {side}, {name}", iou, pictures)
    return report


def rows_of(parts: TextToImage, scenes: list[Scene], first: int) -> Iterator[dict]:
    """Each noun of some scenes at each size: what `located` says of its map, of that of the next
    noun in the caption, and of two maps that read nothing.
    """
    texts, drawn = [captions(one)[0] for one in scenes], [render(one) for one in scenes]
    x = to_model(torch.from_numpy(np.stack([one.image for one in drawn])))
    maps, g = noun_maps(parts, x, texts, seed=first), device.generator(first)
    for i, one in enumerate(scenes):
        words = word_tokens(parts.tokenizer, texts[i])
        true = torch.from_numpy(masks(one, drawn[i].ids)).float()           # (things,h,w)
        others = one.things[1:] + one.things[:1]
        for thing, other, mask in zip(one.things, others, true, strict=True):
            for side in SIDES:
                truth = (F.adaptive_avg_pool2d(mask[None], side)[0] > .5).float()
                if truth.any():
                    own, foreign = (maps[side][i, find(words, noun.category)].mean(0)
                                    for noun in (thing, other))
                    yield {"scene": first + i, "side": side, "maps": located(own, truth),
                           "another noun": located(foreign, truth),
                           "centre prior": located(centre_prior(side), truth),
                           "chance": located(torch.rand(side, side, generator=g), truth)}
