"""Checks of lesson 12 on levels: latents from clean to noisy, and the way down from them."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..ddim import ddim_ascend, ddim_step, timesteps
from ..ddpm import q_sample
from ..schedule import Schedule
from . import Wrong, exercise, expect_close, looks_like
from ._fixtures import yielded

MIXED = Schedule.linear(40, .01, .15)                     # forty steps that differ a lot
END = float(MIXED.alpha_bar[0])
STEPS, COUNT = 5, 3                                       # three of five steps are walked
STRIDE = MIXED.T // STEPS
UPWARDS = timesteps(MIXED.T, STEPS, offset=1)[::-1][:COUNT]


def toy_with_words(zt: Tensor, t: Tensor, context: Tensor) -> Tensor:
    """Stands for a network: what it predicts depends on neighbours, step and words."""
    if t.shape != (len(zt),) or len(context) != len(zt):
        raise Wrong(f"the network takes one step and one context a latent: got {len(zt)} latents, "
                    f"steps {tuple(t.shape)} and {len(context)} contexts.")
    near = (zt + zt.roll(1, 2) - .5 * zt.roll(1, 3)) / 2
    words = context.mean(1)[:, :zt.shape[1], None, None]                # (b,c,1,1)
    return torch.tanh(near + torch.sin(t.to(zt.dtype)).view(-1, 1, 1, 1) + words * (1 + near))


def wordless(zt: Tensor, t: Tensor) -> Tensor:
    """The same network when it is told nothing."""
    if torch.is_grad_enabled():
        raise Wrong("gradients are being kept for every prediction: `with torch.no_grad():`.")
    return toy_with_words(zt, t, torch.zeros(len(zt), 4, 6))


def some_latents() -> tuple[Tensor, Tensor]:
    """Latents (2,3,4,5) and noise."""
    return 1.4 * torch.randn(2, 3, 4, 5) + .3, torch.randn(2, 3, 4, 5)


def expect_levels(got, count: int = COUNT) -> list:
    """A list of count + 1 latents, or Wrong."""
    if got is None:
        raise Wrong("it returned None. Does it end with `return`?")
    if not isinstance(got, list | tuple):
        raise Wrong(f"it returned a {type(got).__name__}; a list of latents is asked for, clean "
                    "to noisy.")
    if len(got) == count:
        raise Wrong(f"the list holds {count} latents, expected {count + 1}: z_0 belongs to it, in "
                    "front.")
    if len(got) != count + 1:
        raise Wrong(f"the list holds {len(got)} latents, expected {count + 1}: z_0 and one for "
                    f"each of {count} steps.")
    return list(got)


def climbed(z0: Tensor, *, visited: list[int] = UPWARDS, stride: int = STRIDE, end: float = END,
            forget: bool = False) -> tuple[Tensor, ...]:
    """Latents on the way up, with one thing done in another way."""
    found = [z0]
    with torch.no_grad():
        for step in visited:
            t, zt = torch.full((len(z0),), step), z0 if forget else found[-1]
            found.append(ddim_ascend(wordless(zt, t), zt, t - stride, t, MIXED, end=end))
    return tuple(found)


def reversed_levels(levels: tuple) -> tuple:
    return tuple(levels[::-1])


@exercise("gligen_lessons.diffedit:encode_levels")
def encode_levels(attempt):
    """Two latents, three of five steps up; and none."""
    z0, eps = some_latents()
    want = climbed(z0)
    noisy = timesteps(MIXED.T, STEPS)[::-1][:COUNT]
    mistakes = {
        "The list runs from noisy to clean; z_0 comes first.": reversed_levels(want),
        "The steps are 0, k, 2k: Stable Diffusion's are one higher, `offset=STEPS_OFFSET`.":
            climbed(z0, visited=noisy),
        "It begins at alpha_bar 1. Hand on `end`, alpha_bar[0], or nothing will fit the way down.":
            climbed(z0, end=1.),
        "It climbs to the top in `count` long steps. Take the first `count` of `steps`: `upto`.":
            climbed(z0, visited=timesteps(MIXED.T, COUNT, offset=1)[::-1], stride=MIXED.T // COUNT),
        "The latents are noised, not encoded: walk up with `ddim.invert`.":
            tuple(noised(z0, eps))}
    got = tuple(expect_levels(attempt(wordless, z0.clone(), MIXED, STEPS, COUNT)))
    looks_like(got, mistakes)
    error = expect_close(got, want, "z_0, then what `ddim.invert` yields after each of `count` "
                         "steps.")
    expect_levels(attempt(wordless, z0.clone(), MIXED, STEPS, 0), 0)
    return f"keeps {len(want)} levels of 2 pictures (largest difference {error:.0e})"


def noised(z0: Tensor, eps: Tensor, *, visited: list[int] = UPWARDS, draw: Callable = q_sample,
           chained: bool = False) -> list[Tensor]:
    """Latents noised to the visited steps, with one thing done in another way."""
    found = [z0]
    for step in visited:
        t = torch.full((len(z0),), step)
        found.append(draw(found[-1] if chained else z0, t, eps, MIXED))
    return found


@exercise("gligen_lessons.sdedit:noised_levels")
def noised_levels(attempt):
    """Two latents, one noise each, three of five steps."""
    z0, eps = some_latents()
    want = tuple(noised(z0, eps))
    top = timesteps(MIXED.T, STEPS, offset=1)[:COUNT]
    mistakes = {
        "The list runs from noisy to clean; z_0 comes first.": reversed_levels(want),
        "These are the noisiest of the steps. An edit walks the LAST ones, the clean end.":
            tuple(noised(z0, eps, visited=top[::-1])),
        "These are the noisiest of the steps, and from noisy to clean.":
            tuple(noised(z0, eps, visited=top)),
        "The steps are one too low: `offset=STEPS_OFFSET`.":
            tuple(noised(z0, eps, visited=[step - 1 for step in UPWARDS])),
        "The steps are one too high: take those of `ddim.timesteps` with offset=STEPS_OFFSET.":
            tuple(noised(z0, eps, visited=[step + 1 for step in UPWARDS])),
        "Each latent is noised from the one before. Noise z0 itself, to each step.":
            tuple(noised(z0, eps, chained=True)),
        "Noise was added to z0 as it is: q_sample mixes them at the level of t.":
            tuple(noised(z0, eps, draw=lambda z, t, e, s: z + e))}
    state = torch.get_rng_state()
    got = tuple(expect_levels(attempt(z0.clone(), eps.clone(), MIXED, STEPS, COUNT)))
    if not torch.equal(torch.get_rng_state(), state):
        raise Wrong("noise was drawn in here. All levels share the `eps` that was handed in.")
    looks_like(got, mistakes)
    error = expect_close(got, want, "z_0, then q_sample at each step, from the cleanest to the "
                         "one where `encode_levels` ends.")
    return f"noises 2 pictures to {COUNT} levels (largest difference {error:.0e})"


def a_mask() -> Tensor:
    mask = torch.zeros(2, 1, 4, 5)
    mask[0, :, 1:3, 2:], mask[1, :, :2, :3] = 1, 1
    return mask


def walked(levels: list[Tensor], mask: Tensor, *, shift: int = 0, visited=tuple(UPWARDS[::-1]),
           blend: str = "after", end: float = END, start: int = -1,
           stride: int = STRIDE) -> tuple[Tensor, ...]:
    """Latents on the way down, with one thing done in another way."""
    zt, found = levels[start], []
    with torch.no_grad():
        for i, step in enumerate(visited):
            t, left = torch.full((len(zt),), step), COUNT - 1 - i
            if blend == "before":
                zt = mask * zt + (1 - mask) * levels[left + 1]
            zt = ddim_step(wordless(zt, t), zt, t, t - stride, MIXED, end=end)
            kept = levels[0] if blend == "clean" else levels[min(left + shift, COUNT)]
            if blend in ("after", "clean"):
                zt = mask * zt + (1 - mask) * kept
            if blend == "upside down":
                zt = (1 - mask) * zt + mask * kept
            if blend == "at last" and left == 0:
                zt = mask * zt + (1 - mask) * kept
            found.append(mask * zt + (1 - mask) * kept if blend == "shown" else zt)
    return tuple(found)


def bad_walks(levels: list[Tensor], mask: Tensor) -> dict[str, tuple]:
    """What loops give that do one thing wrong, by their message."""
    return {
        "What is kept comes from the level that was LEFT. After the step the inside stands one "
        "level lower: so must the outside (the bug of a popular implementation).":
            walked(levels, mask, shift=1),
        "Inside and outside have changed places: M is 1 where the picture may change.":
            walked(levels, mask, blend="upside down"),
        "Outside always stands z_0, without noise: it must be as noisy as the inside.":
            walked(levels, mask, blend="clean"),
        "Nothing is kept: after each step, outside the mask comes the encoded latent.":
            walked(levels, mask, blend="never"),
        "The outside is put back before the step only, so the end is not z_0 there.":
            walked(levels, mask, blend="before"),
        "The outside is put back in what is yielded, and the loop goes on without it: put it back "
        "into zt.": walked(levels, mask, blend="shown"),
        "The levels are paired from the clean end. The first step down reaches the level below the "
        "last: levels[-2::-1].": walked([*levels[-2::-1], levels[-1]], mask),
        "The outside is put back only at the end: put it back after EACH step.":
            walked(levels, mask, blend="at last"),
        "It starts from z_0. Start from the last level, the noisiest.":
            walked(levels, mask, start=0),
        "The last step goes to alpha_bar 1. Stable Diffusion ends at alpha_bar[0]: hand on `end`.":
            walked(levels, mask, end=1.),
        "The step goes down by one. It goes down by T // steps.": walked(levels, mask, stride=1)}


@exercise("gligen_lessons.diffedit:decode_masked")
def decode_masked(attempt):
    """Three of five steps down, two latents with a mask each; and no step at all."""
    z0, _ = some_latents()
    levels, mask = list(climbed(z0)), a_mask()
    kept = [level.clone() for level in levels]
    state = torch.get_rng_state()
    made = yielded(attempt(wordless, levels, mask.clone(), MIXED, STEPS))
    if not torch.equal(torch.get_rng_state(), state):
        raise Wrong("noise was drawn in here. Lesson 10 noises z_0 afresh outside the mask; here "
                    "the latents that the encoding found stand there: `levels`.")
    steps = [int(step) for step, _ in made]
    if steps == timesteps(MIXED.T, STEPS, offset=1):
        raise Wrong("it walks all steps. The latent stands midway: only the last len(levels) - 1.")
    if steps != UPWARDS[::-1]:
        raise Wrong(f"the steps are {steps}, expected {UPWARDS[::-1]}: the ones that were encoded, "
                    "from noisy to clean.")
    with torch.no_grad():
        got, want = tuple(z for _, z in made), walked(levels, mask)
        looks_like(got, bad_walks(levels, mask))
    error = expect_close(got, want, "From the last level: predict, step down, and outside the mask "
                         "take the latent of the level reached.")
    outside = (1 - mask).bool().expand_as(z0)
    if not torch.equal(got[-1][outside], z0[outside]):
        raise Wrong("outside the mask the end is not exactly z_0. Choose with `torch.where`.")
    if not all(map(torch.equal, levels, kept)):
        raise Wrong("it changes the levels that it was given. Make new tensors.")
    if list(attempt(wordless, levels[:1], mask.clone(), MIXED, STEPS)):
        raise Wrong("with one level there is nothing to walk, and it walked: steps[-0:] is the "
                    "whole list.")
    return f"walks {COUNT} steps, {int(outside.sum())} values kept exactly (largest difference " \
           f"{error:.0e})"
