"""DiffEdit (Couairon et al. 2022, arXiv 2210.11427): words say what changes, a mask is found.

A mask (b,1,h,w) lies on the latent and is 1 where the picture may change, as M in the paper: the
reverse of lesson 10's. z (b,4,16,16) are latents; levels are latents of one picture from clean to
noisy: [z_0, z_1, ..., z_r], the last at the encoding ratio.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import ddim, device
from .ddpm import q_sample
from .guidance import classifier_free
from .latent import STEPS_OFFSET, TextToImage, check_steps, to_latents, to_pictures
from .schedule import Schedule

RATIO, NOISE_LEVEL, NOISES, THRESHOLD = .8, .5, 10, .5
# By the mean IoU of the masks of 40 recolourings and replacements of the split "val" (reports take
# "test"): .399 at .005, .384 at .02, .370 at .03, .334 at .05. Small changes want less clipped,
# large ones more: .02 is the most within one standard error (of the difference) of the best.
EXTREMES = .02


def noise_difference(model: Callable, z0: Tensor, query: Tensor, reference: Tensor,
                     t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Where two texts disagree on the noise (DiffEdit, section 3.2, step 1): (b,h,w).

    Both predictions see one noisy latent. query and reference (b,n,d) are contexts,
    t (b,) steps, eps (b,c,h,w) noise. Absolute differences, averaged over channels.
    """
    zt = q_sample(z0, t, eps, schedule)                         # (b,c,h,w)
    with torch.no_grad():
        eps_hat = model(torch.cat([zt, zt]), torch.cat([t, t]),
                        torch.cat([query, reference]))          # (2b,c,h,w)
    eps_query, eps_reference = eps_hat.chunk(2)
    return (eps_query - eps_reference).abs().mean(1)            # (b,h,w)


def difference_map(model: Callable, z0: Tensor, query: Tensor, reference: Tensor,
                   t: Tensor, noises: Tensor, schedule: Schedule) -> Tensor:
    """The mean of `noise_difference` over noises (n,b,c,h,w): (b,h,w).

    Absolute differences first, then their mean: signed ones would cancel.
    """
    maps = [noise_difference(model, z0, query, reference, t, eps, schedule)
            for eps in noises]
    return torch.stack(maps).mean(0)                            # (b,h,w)


def rescaled(maps: Tensor, extremes: float = EXTREMES) -> Tensor:
    """Each picture's map (b,h,w) from 0 to 1, its extreme values clipped first.

    `extremes` is the part of the values at either end that counts as extreme. Maps are
    rescaled one by one, so that a mask does not depend on what else is in the batch.
    """
    flat = maps.flatten(1).cpu().double()                       # (b,hw)
    low = flat.quantile(extremes, dim=1, keepdim=True)          # (b,1)
    high = flat.quantile(1 - extremes, dim=1, keepdim=True)     # (b,1)
    level = (flat.clamp(low, high) - low) / (high - low).clamp(min=1e-12)
    return level.to(maps).view_as(maps)                         # (b,h,w), 0 to 1


def edit_mask(maps: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Where a map (b,h,w), rescaled, is above a threshold: (b,1,h,w), 0 or 1."""
    return (rescaled(maps) > threshold)[:, None].to(maps)


def encode_levels(model: Callable, z0: Tensor, schedule: Schedule, steps: int,
                  count: int) -> list[Tensor]:
    """A latent and its DDIM codes (step 2): [z_0, z_1, ..., z_r], count + 1 of them.

    `model(zt, t)` predicts eps without text: the paper encodes unconditionally. `count`
    of `steps` steps are climbed, and each latent on the way is kept.
    """
    climb = ddim.invert(model, z0, schedule, steps, offset=STEPS_OFFSET,
                        end=float(schedule.alpha_bar[0]), upto=count)
    return [z0, *(zt for _, zt in climb)]


def decode_masked(model: Callable, levels: list[Tensor], mask: Tensor,
                  schedule: Schedule, steps: int) -> Iterator[tuple[int, Tensor]]:
    """Walk down from the last of `levels`, changing only what the mask lets (step 3).

    After each step what lies outside the mask becomes the latent of the SAME level, so
    that the end equals z_0 there, exactly. `model(zt, t)` is guided by the query.
    """
    zt, end = levels[-1], float(schedule.alpha_bar[0])
    visited = ddim.timesteps(schedule.T, steps, offset=STEPS_OFFSET)
    walked = visited[steps - len(levels) + 1:]                  # the last ones
    for step, level in zip(walked, levels[-2::-1], strict=True):
        t = torch.full((len(zt),), step, device=zt.device)      # (b,)
        with torch.no_grad():
            eps_hat = model(zt, t)
        t_prev = t - schedule.T // steps                        # (b,)
        zt = ddim.ddim_step(eps_hat, zt, t, t_prev, schedule, end=end)
        zt = torch.where(mask > .5, zt, level)                  # both at level t_prev
        yield step, zt


def last_latent(trajectory: Iterator[tuple[int, Tensor]], start: Tensor) -> Tensor:
    """Where a trajectory ends; `start` where it takes no step."""
    latents = [start, *(zt for _, zt in trajectory)]
    return latents[-1]


@dataclass
class Edited:
    """An edit: pictures x (b,3,h,w), their latents, the map (b,h,w) and the mask (b,1,h,w).

    `levels` are the latents of the source from clean to noisy.
    """

    x: Tensor
    z: Tensor
    map: Tensor
    mask: Tensor
    levels: list[Tensor]


def query_map(parts: TextToImage, z0: Tensor, references: list[str], queries: list[str],
              seed: int = 0, noises: int = NOISES,
              noise_level: float = NOISE_LEVEL) -> Tensor:
    """The map (b,h,w) of where latents z0 must change to go from one text to the other.

    `noise_level` is the step as a part of T; the noise of picture i comes from seed + i.
    """
    check_part(noise_level, "The noise level")
    if noises < 1:
        raise ValueError(f"A map is the mean over at least one noise, got {noises}.")
    b, step = len(z0), min(int(noise_level * parts.schedule.T), parts.schedule.T - 1)
    sources = device.generators(seed, b)
    drawn = device.noise_each((noises, *z0.shape[1:]), sources, z0.device)  # (b,n,c,h,w)
    return difference_map(parts.unet, z0, parts.context(queries), parts.context(references),
                          torch.full((b,), step, device=z0.device), drawn.transpose(0, 1),
                          parts.schedule)


def edit_pictures(parts: TextToImage, x: Tensor, references: list[str],
                  queries: list[str], seed: int = 0, ratio: float = RATIO,
                  steps: int = 30, guidance_scale: float = 5., noises: int = NOISES,
                  threshold: float = THRESHOLD, noise_level: float = NOISE_LEVEL,
                  mask: Tensor | None = None) -> Edited:
    """Change pictures x (b,3,h,w) from what references say to what queries say.

    `ratio` of the `steps` is encoded and decoded: the strength of the edit, 0 changes
    nothing. A reference may be "". A `mask` of one's own (b,1,h,w), 1 where the picture
    may change, goes before the one that is found. ValueError for texts, pictures and
    numbers that cannot be; a warning for a mask of nothing or of everything.
    """
    steps, count = check_steps(steps, parts.schedule), steps_at(ratio, steps)
    check_texts(references, queries, len(x))
    z0 = clean_latents(parts, x)
    maps = query_map(parts, z0, references, queries, seed, noises, noise_level)
    mask = edit_mask(maps, threshold) if mask is None else mask
    check_edit_mask(mask, z0)
    context, null = parts.context(queries), parts.context([""]).expand(len(x), -1, -1)
    levels = encode_levels(lambda zt, t: parts.unet(zt, t, null), z0, parts.schedule,
                           steps, count)
    model = classifier_free(parts.unet, context, null, guidance_scale)
    z = last_latent(decode_masked(model, levels, mask, parts.schedule, steps), z0)
    with torch.no_grad():
        return Edited(to_pictures(parts.vae, z), z, maps, mask, levels)


def clean_latents(parts: TextToImage, x: Tensor) -> Tensor:
    """The latents (b,c,h,w) of pictures x (b,3,8h,8w): the encoder's mean, no noise added."""
    c, side = parts.unet.conv_out.out_channels, parts.unet.config["sample_size"]
    pixels = side * parts.vae.factor
    if x.ndim != 4 or x.shape[1:] != (3, pixels, pixels) or not x.is_floating_point():
        raise ValueError(f"Pictures to edit are (b,3,{pixels},{pixels}) in [-1, 1], of the size "
                         f"that the U-Net learnt on, got {tuple(x.shape)} {x.dtype}: "
                         "images.to_model and images.resized bring others to it.")
    if not float(x.abs().max()) <= 1.01:
        raise ValueError("Pictures to edit lie in [-1, 1]; these hold values up to "
                         f"{float(x.abs().max()):.4g}: images.to_model makes them of 0..255.")
    with torch.no_grad():
        return to_latents(parts.vae, x.to(parts.device),
                          torch.zeros(len(x), c, side, side, device=parts.device))


def steps_at(ratio: float, steps: int) -> int:
    """How many of the steps are encoded and decoded at an encoding ratio, 0 to steps."""
    check_part(ratio, "The encoding ratio")
    return round(ratio * steps)


def check_part(value: float, what: str) -> None:
    """Refuse a number outside 0..1 (ValueError)."""
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{what} must lie in 0..1 (0 leaves the picture, 1 takes all steps), "
                         f"got {value}.")


def check_texts(references: list[str], queries: list[str], count: int) -> None:
    """Refuse a query that is empty or asks for nothing new, and another number of texts."""
    if not len(references) == len(queries) == count:
        raise ValueError(f"{count} pictures, {len(references)} references and {len(queries)} "
                         "queries: each picture has one of both.")
    for i, (reference, query) in enumerate(zip(references, queries, strict=True)):
        if not query.strip():
            raise ValueError(f"The query of picture {i} is empty: say what the picture should "
                             "show, such as \"a blue car\".")
        if query.split() == reference.split():
            raise ValueError(f"The query of picture {i} says the same as its reference, "
                             f"{query!r}: nothing differs, so there is nothing to find. Name "
                             "what should change.")


def check_edit_mask(mask: Tensor, z0: Tensor) -> None:
    """Refuse a mask that does not fit (ValueError); warn of one of nothing, or everything."""
    if mask.shape != (len(z0), 1, *z0.shape[2:]):
        raise ValueError(f"The mask must be {(len(z0), 1, *z0.shape[2:])}, one for each latent, "
                         f"got {tuple(mask.shape)}.")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("A mask is 1 where the picture may change and 0 elsewhere; this one "
                         f"holds values from {float(mask.min()):.4g} to {float(mask.max()):.4g}: "
                         "make it one, `(mask > .5).float()`.")
    part = mask.flatten(1).mean(1)                              # (b,)
    for i in (part == 0).nonzero().flatten().tolist():
        warnings.warn(f"The mask of picture {i} is empty, so nothing will change: lower the "
                      "threshold, or name in both texts the thing that changes.", stacklevel=3)
    for i in (part == 1).nonzero().flatten().tolist():
        warnings.warn(f"The mask of picture {i} is everything, so nothing is kept: raise the "
                      "threshold, or let the texts differ in fewer words.", stacklevel=3)
