"""Checks of lesson 10 on putting back what is kept, and on the trajectory that does it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..ddim import ddim_step, timesteps
from ..ddpm import q_sample
from ..schedule import extract
from . import Wrong, exercise, expect_close, looks_like
from ._fixtures import END, NOISE, yielded

VISITED = timesteps(NOISE.T, 5, offset=1)                       # steps of a short loop, in 40


def a_hole() -> tuple[Tensor, Tensor]:
    """Latents (2,3,4,5) and a mask for each."""
    mask = torch.ones(2, 1, 4, 5)
    mask[0, :, 1:3, 2:], mask[1, :, :2, :3] = 0, 0
    return 1.5 * torch.randn(2, 3, 4, 5) + .6, mask


@exercise("gligen_lessons.inpaint:blend_known")
def blend_known(attempt):
    """Two latents, each at a step of its own."""
    (z0, mask), t = a_hole(), torch.tensor([4, 33])
    zt, eps = torch.randn_like(z0), torch.randn_like(z0)
    noised, level = q_sample(z0, t, eps, NOISE), extract(NOISE.alpha_bar, t, z0)
    mistakes = {
        "Inside and outside have changed places: what is kept (mask 1) comes from z0.":
            noised * (1 - mask) + zt * mask,
        "What is kept is put back without noise. It must be as noisy as zt: q_sample to t.":
            z0 * mask + zt * (1 - mask),
        "Noise was added to z0 as it is: q_sample mixes them at the level of t.":
            (z0 + eps) * mask + zt * (1 - mask),
        "The square roots are missing: sqrt(alpha_bar) of z0 and sqrt(1 - alpha_bar) of eps.":
            (level * z0 + (1 - level) * eps) * mask + zt * (1 - mask),
        "What is kept is noised to the step before t. zt stands at t, and both must match.":
            q_sample(z0, t - 1, eps, NOISE) * mask + zt * (1 - mask),
        "Both pictures are noised to the first one's step.":
            q_sample(z0, t[:1].expand(2), eps, NOISE) * mask + zt * (1 - mask),
        "The hole is left empty: inside, zt stays as it is.": noised * mask,
        "Outside the hole there is nothing: put z0, noised to t, there.": zt * (1 - mask),
        "zt was noised once more. It is as noisy as it should be; z0 is not.":
            q_sample(zt, t, eps, NOISE) * mask + zt * (1 - mask),
        "zt and the noised z0 are added where the picture is kept: one replaces the other.":
            noised * mask + zt,
        "This is pure noise where the picture is kept: z0 is missing.":
            eps * mask + zt * (1 - mask)}
    given = zt.clone()
    got = attempt(zt, z0.clone(), mask.clone(), t, eps.clone(), NOISE)
    looks_like(got, mistakes)
    if isinstance(got, Tensor) and got.dtype == torch.float64:
        raise Wrong("the result is torch.float64, as `schedule.alpha_bar` is: use `q_sample`, or "
                    "bring alpha_bar to zt.dtype.")
    error = expect_close(got, noised * mask + zt * (1 - mask), "Noise z0 to t with eps; take it "
                         "where mask is 1, zt elsewhere.")
    if not torch.equal(zt, given):
        raise Wrong("it changes the zt that it was given. Make a new tensor.")
    return (f"noises {int(mask.sum())} kept cells to steps 4 and 33 and leaves the holes alone "
            f"(largest difference {error:.0e})")


def a_prediction(xt: Tensor, t: Tensor) -> Tensor:
    """Stands for a network: each place's prediction depends on its neighbours and on the step."""
    if torch.is_grad_enabled():
        raise Wrong("gradients are being kept for every prediction: `with torch.no_grad():`.")
    if t.shape != (len(xt),):
        raise Wrong(f"the network takes one step a picture, t (b,); it got {tuple(t.shape)}.")
    near = (xt + xt.roll(1, 2) + xt.roll(1, 3)) / 2
    return torch.tanh(near + torch.sin(t.to(xt.dtype)).view(-1, 1, 1, 1))


def trajectory(z0: Tensor, mask: Tensor, seed: int, *, keep: str = "before", renew: bool = True,
               end: float = END, each: bool = True, level: int = 0, down: int = NOISE.T // 5,
               start: Callable | None = None, count: bool = True,
               anew: bool = False) -> tuple[Tensor, ...]:
    """Where a walk stands after each step, with one thing done in another way."""
    sources = [torch.Generator().manual_seed(seed + i * count) for i in range(len(z0))]
    if not each:
        sources = sources[:1]

    def drawn():
        for i, g in enumerate(sources if anew else ()):
            g.manual_seed(seed + i)
        if not each:
            return torch.randn(z0.shape, generator=sources[0])
        return torch.cat([torch.randn((1, *z0.shape[1:]), generator=g) for g in sources])

    zt, eps, found = drawn(), None, []
    if start:
        zt = start(zt)
    for step in VISITED:
        t = torch.full((len(zt),), step)
        if keep != "never":
            eps = drawn() if renew or eps is None else eps
            known = q_sample(z0, (t + level).clamp(min=0), eps, NOISE)
        seen = zt if keep in ("never", "after") else known * mask + zt * (1 - mask)
        read, zt = zt if keep == "late" else seen, zt if keep == "seen" else seen
        zt = ddim_step(a_prediction(read, t), zt, t, t - down, NOISE, end=end)
        if keep == "after":
            zt = known * mask + zt * (1 - mask)
        found.append(zt)
    if keep == "at last":
        found[-1] = z0 * mask + zt * (1 - mask)
    return tuple(found)


def mistakes(z0: Tensor, mask: Tensor, seed: int) -> dict[str, tuple]:
    """What loops give that do one thing wrong, by their message."""
    told = z0, mask, seed
    top = torch.full((2,), VISITED[0])
    last = trajectory(*told)
    return {
        "Nothing is put back: before each prediction, `blend_known`.": trajectory(*told,
                                                                                  keep="never"),
        "What is kept is put back AFTER each step. Then the network has not seen it at this level: "
        "put it back before the prediction.": trajectory(*told, keep="after"),
        "The prediction saw the blended latent, but the step goes down from the old zt: blend "
        "first, then use the result for both.": trajectory(*told, keep="seen"),
        "The prediction is made from the old zt, before what is kept is put back: blend first, "
        "then predict.": trajectory(*told, keep="late"),
        "All steps put back the same noise. Draw it again before each.": trajectory(*told,
                                                                                   renew=False),
        "The generators are made anew at each step, so what is put back gets the start's noise "
        "again. Make them once, before the loop.": trajectory(*told, anew=True),
        "The last step goes to alpha_bar 1. Stable Diffusion ends at alpha_bar[0]: hand on `end`.":
            trajectory(*told, end=1.),
        "One generator draws for the whole batch. Picture i has its own, seeded with seed + i.":
            trajectory(*told, each=False),
        "All pictures begin from one seed. Picture i has seed + i.": trajectory(*told, count=False),
        "What is kept is noised to another step than zt stands at.": trajectory(*told, level=-1),
        "The step goes down by one. It goes down by T // len(visited).": trajectory(*told, down=1),
        "The start is z0 with noise, so the hole is no secret. It should be noise alone.":
            trajectory(*told, start=lambda noise: q_sample(z0, top, noise, NOISE)),
        "z0 is put back after the last step too. GLIGEN does not: pasting belongs to the picture.":
            (*last[:-1], z0 * mask + last[-1] * (1 - mask))}


@exercise("gligen_lessons.inpaint:inpaint_steps")
def inpaint_steps(attempt):
    """Two latents with a hole each, five steps, and again with another seed."""
    (z0, mask), largest = a_hole(), 0.
    for seed in (3, 11):
        made = yielded(attempt(a_prediction, z0.clone(), mask.clone(), NOISE, list(VISITED), seed))
        if len(made) != len(VISITED):
            raise Wrong(f"it yielded {len(made)} times for {len(VISITED)} steps: once after each.")
        if [int(step) for step, _ in made] != VISITED:
            raise Wrong(f"the steps are {[int(step) for step, _ in made]}, expected {VISITED}: the "
                        "one that was just left.")
        with torch.no_grad():
            got, want = tuple(z for _, z in made), trajectory(z0, mask, seed)
            looks_like(got, mistakes(z0, mask, seed))
        error = expect_close(got, want, "Draw the first noise, then for each step: draw noise, put "
                             "back, predict, step down, yield.")
        largest = max(largest, error)
    return f"samples {len(VISITED)} steps from 2 seeds (largest difference {largest:.0e})"
