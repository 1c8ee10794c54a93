"""Null-text inversion (Mokady et al. 2022, arXiv 2211.09794): Prompt-to-Prompt for real pictures.

A real picture's latent z0 (b,4,h,w) is walked up to noise by DDIM without guidance. On the way down
with guidance it would come back as another picture, so the empty caption's states are changed, one
by one, until each step lands where the way up passed.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ddim
from .guidance import check_scale, guide
from .latent import STEPS_OFFSET, TextToImage, check_sampling


def pivots(parts: TextToImage, captions: list[str], z0: Tensor,
           steps: int = 30) -> list[Tensor]:
    """The latents on the way up from z0 to noise, with the captions and no guidance.

    steps + 1 of them, z0 first; DDIM inversion (lesson 2) with Stable Diffusion's steps.
    Errors as in `sample_latents`.
    """
    steps = check_sampling(parts, captions, z0, steps)
    model = partial(parts.unet, context=parts.context(captions))
    way = ddim.invert(model, z0, parts.schedule, steps, offset=STEPS_OFFSET,
                      end=float(parts.schedule.alpha_bar[0]))
    return [z0, *(z for _, z in way)]


def fit_null(null: Tensor, land: Callable, goal: Tensor, iterations: int = 10,
             rate: float = .01) -> Tensor:
    """The empty caption's states (b,n,d), fitted so that `land` meets the goal (eq. 3).

    `land` is a guided step; Adam lowers the squared distance. `null` itself stays.
    """
    null = null.clone().requires_grad_()
    optimizer = torch.optim.Adam([null], lr=rate)
    for _ in range(iterations):
        distance = F.mse_loss(land(null), goal)
        null.grad, = torch.autograd.grad(distance, null)    # the network learns nothing
        optimizer.step()
    return null.detach()


def null_text(parts: TextToImage, captions: list[str], way: list[Tensor],
              guidance_scale: float = 5., iterations: int = 10,
              rate: float = .01) -> Tensor:
    """What stands for the empty caption in each step: (steps,b,n,d) (algorithm 1).

    `way` is that of `pivots`. Each step starts where the one before landed, and from
    its states. ValueError for a way of one latent and for what `check_scale` refuses.
    """
    check_scale(guidance_scale)
    steps = check_sampling(parts, captions, way[-1], len(way) - 1)
    context = parts.context(captions)                           # (b,n,d)
    null, zt, found = parts.context([""]).expand_as(context), way[-1], []
    visited = ddim.timesteps(parts.schedule.T, steps, offset=STEPS_OFFSET)
    for step, goal in zip(visited, way[-2::-1], strict=True):
        with torch.no_grad():
            t = torch.full((len(zt),), step, device=zt.device)
            eps_cond = parts.unet(zt, t, context)               # (b,4,h,w)
        land = partial(guided_step, parts, zt, t, eps_cond, guidance_scale, steps)
        null = fit_null(null, land, goal, iterations, rate)
        with torch.no_grad():
            zt = land(null)
        found.append(null)
    return torch.stack(found)


def guided_step(parts: TextToImage, zt: Tensor, t: Tensor, eps_cond: Tensor,
                guidance_scale: float, steps: int, null: Tensor) -> Tensor:
    """A step of DDIM, led away from what the states `null` predict."""
    eps_hat = guide(parts.unet(zt, t, null), eps_cond, guidance_scale)
    schedule = parts.schedule
    return ddim.ddim_step(eps_hat, zt, t, t - schedule.T // steps, schedule,
                          end=float(schedule.alpha_bar[0]))
