"""Painting what boxes ask for: GLIGEN's scheduled sampling (arXiv 2301.07093, section 4.3)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gligen_lessons import ddim
from gligen_lessons.gligen import Grounding, ground, transformer_blocks
from gligen_lessons.guidance import check_scale, guide
from gligen_lessons.latent import STEPS_OFFSET, TextToImage, to_pictures, whole
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet


def strengths(steps: int, stages: tuple[float, float, float]) -> list[float]:
    """How far the gates are open at each step: wide open, closing evenly, shut (eq. 10).

    `stages` are the parts of the steps that each takes; they sum to one. Scheduled
    sampling with tau is (tau, 0, 1 - tau).
    """
    if min(stages) < 0 or abs(sum(stages) - 1) > 1e-6:
        raise ValueError("The three stages must be parts of the steps that sum to 1, "
                         f"got {stages}.")
    full = int(stages[0] * steps + 1e-6)
    closing = int(stages[1] * steps + 1e-6)
    fall = [1 - (i + 1) / closing for i in range(closing)]
    return [1.] * full + fall + [0.] * (steps - full - closing)


@contextmanager
def gates_at(unet: UNet, strength: float) -> Iterator[None]:
    """Within this context all gates let `strength` times their answer in."""
    gates = [block.fuser for block in transformer_blocks(unet)]
    try:
        for gate in gates:
            gate.scale = strength
        yield
    finally:
        for gate in gates:
            gate.scale = 1.


def step_strengths(schedule: Schedule, steps: int, tau: float) -> dict[int, float]:
    """For each step t that the sampler visits, how far the gates are open: tau of eq. 10."""
    whole(steps, "The number of steps")
    if not 0 <= tau <= 1:
        raise ValueError("tau must lie in 0..1, the part of steps that is grounded; got "
                         f"{tau}.")
    visited = ddim.timesteps(schedule.T, steps, offset=STEPS_OFFSET)
    return dict(zip(visited, strengths(steps, (tau, 0., 1 - tau)), strict=True))


def grounded_guess(unet: UNet, context: Tensor, null_context: Tensor,
                   grounding: Grounding, guidance_scale: float,
                   strength: dict[int, float],
                   through: Callable | None = None) -> Callable:
    """A function eps_hat = f(xt, t), guided by caption and grounding at once.

    `strength` says for each step how far the gates are open. The guess that guidance leads
    away from has the null caption and no grounding. `through` calls the network where it
    is shown more than xt.
    """
    check_scale(guidance_scale)
    call = through or unet
    contexts = torch.cat([null_context, context])               # (2b,n,d)
    groundings = grounding.none().beside(grounding)

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        beta = strength[int(t[0])]
        with gates_at(unet, beta):
            if guidance_scale == 1:
                return call(xt, t, context, grounding if beta else None)
            eps_hat = call(torch.cat([xt, xt]), torch.cat([t, t]), contexts,
                           groundings if beta else None)
        return guide(*eps_hat.chunk(2), guidance_scale)         # (b,c,h,w)

    return guided


def paint_grounded(parts: TextToImage, captions: list[str], grounding: Grounding,
                   zT: Tensor, steps: int = 30, guidance_scale: float = 5.,
                   tau: float = 1., negative: str = "") -> Iterator[tuple[int, Tensor]]:
    """Caption and boxes to latents: `latent.paint` with the gates open in the first steps.

    tau in 0..1 is the part of the steps in which grounding is heard (paper, eq. 10).
    Yields (t, z) after each step. Errors as in `latent.paint`, and ValueError for
    another tau.
    """
    ready(parts.unet, captions, grounding, zT)
    strength = step_strengths(parts.schedule, steps, tau)
    context = parts.context(captions)                           # (b,n,d)
    null_context = parts.context([negative]).expand_as(context)
    model = grounded_guess(parts.unet, context, null_context, grounding,
                           guidance_scale, strength)
    return ddim.sample(model, zT, parts.schedule, steps, offset=STEPS_OFFSET,
                       end=float(parts.schedule.alpha_bar[0]))


def ready(unet: UNet, captions: list[str], grounding: Grounding, z: Tensor) -> None:
    """Refuse weights without gates, and batches that do not fit together (ValueError)."""
    if unet.position_net is None:
        raise ValueError("These weights have no gates: load grounded ones, "
                         "weights.load('gligen').")
    if not len(captions) == len(grounding.boxes) == len(z):
        raise ValueError(f"{len(captions)} captions, groundings for {len(grounding.boxes)} "
                         f"pictures and latents for {len(z)}: all must be one number.")


def draw_grounded(parts: TextToImage, captions: list[str], phrases: list[list[str]],
                  boxes: list, seed: int = 0, **options) -> Tensor:
    """Captions with boxes to pictures (b,3,h,w) in [-1, 1], on the CPU.

    Picture i starts from the noise of seed + i; see `paint_grounded` for options.
    """
    zT, grounding = parts.first_noise(len(captions), seed), ground(parts, phrases, boxes)
    *_, (_, z0) = paint_grounded(parts, captions, grounding, zT, **options)
    with torch.no_grad():
        return to_pictures(parts.vae, z0).cpu()
