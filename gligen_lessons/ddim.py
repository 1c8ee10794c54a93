"""Denoising diffusion implicit models (Song, Meng and Ermon 2020, arXiv 2010.02502)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .ddpm import levels, predict_eps, predict_x0, q_sample
from .schedule import Schedule, expand_like, look_up

SPACINGS = ("leading", "trailing", "linspace")


def alpha_bar_at(t: Tensor, schedule: Schedule, end: float = 1.) -> Tensor:
    """alpha_bar at steps t (b,), float64 on the CPU; below 0 means x0, which has `end`.

    `end` is 1, no noise at all, or alpha_bar[0], where Stable Diffusion ends.
    """
    known = look_up(schedule.alpha_bar, t.clamp(min=0))            # (b,)
    return torch.where(t.cpu() < 0, end, known)


def ddim_sigma(t: Tensor, t_prev: Tensor, schedule: Schedule, eta: float = 1.,
               end: float = 1.) -> Tensor:
    """How much noise a DDIM step adds (DDIM, eq. 16): eta 0 none, eta 1 that of DDPM.

    t, t_prev (b,) long, t_prev < 0 means x0; returns standard deviations (b,), float64.
    Errors: see `levels`.
    """
    now, before = levels(t, t_prev, schedule, end)                 # (b,), (b,)
    return eta * ((1 - before) / (1 - now) * (1 - now / before)).sqrt()


def ddim_step(eps_hat: Tensor, xt: Tensor, t: Tensor, t_prev: Tensor,
              schedule: Schedule, eta: float = 0., noise: Tensor | None = None,
              clip: bool = False, end: float = 1.) -> Tensor:
    """One step from t to t_prev, any distance apart (DDIM, eq. 12).

    The prediction of x0, the direction back to xt, and `eta` times the noise of DDPM. t
    and t_prev (b,) long; t_prev < 0 means x0. `clip` clamps the predicted x0 and leaves
    eps_hat as it is, as diffusers does. Without `noise` eta must be 0.
    """
    x0_hat = predict_x0(eps_hat, xt, t, schedule)                  # (b,c,h,w)
    if clip:
        x0_hat = x0_hat.clamp(-1, 1)
    before = alpha_bar_at(t_prev, schedule, end)                   # (b,)
    sigma = ddim_sigma(t, t_prev, schedule, eta, end)              # (b,)
    towards_xt = (1 - before - sigma**2).clamp(min=0).sqrt()       # (b,)
    x_prev = (expand_like(before.sqrt(), xt) * x0_hat
              + expand_like(towards_xt, xt) * eps_hat)
    return x_prev if eta == 0 else x_prev + expand_like(sigma, xt) * noise


def timesteps(T: int, steps: int, spacing: str = "leading",
              offset: int = 0) -> list[int]:
    """The steps a sampler visits, from high to low, as diffusers spaces them.

    "leading" counts 0, k, 2k, ... with k = T // steps and adds `offset`: it reaches
    T - 1 only where steps is T. "trailing" counts down from T - 1, "linspace" spreads
    evenly from end to end. There are 1 to T steps.
    """
    visited = {      # arange may go one step too far, to -1, where T / steps is rounded
        "leading": np.arange(steps)[::-1] * (T // steps) + offset,
        "trailing": np.arange(T, 0, -T / steps)[:steps].round() - 1,
        "linspace": np.linspace(0, T - 1, steps)[::-1].round(),
    }[spacing]
    return [int(t) for t in visited]


def sample(model: Callable, xT: Tensor, schedule: Schedule, steps: int, eta: float = 0.,
           generator: torch.Generator | None = None, clip: bool = False,
           spacing: str = "leading", offset: int = 0, end: float = 1.,
           last: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Walk from noise to pictures in few steps.

    Yields (t, x) after each step, t the step that was left. The step aimed at is
    t - T // steps, as in diffusers. `model(xt, t)` predicts eps; the caller binds
    whatever else it needs. Noise (for eta > 0) is drawn on the CPU from `generator`.
    With `last` only so many steps are taken, the last ones, and xT stands midway: at
    the first of them, where `invert` with upto=last ends.
    """
    visited, xt = timesteps(schedule.T, steps, spacing, offset), xT
    for step in visited[0 if last is None else max(0, steps - last):]:
        t = torch.full((len(xt),), step, device=xt.device)         # (b,)
        with torch.no_grad():
            eps_hat = model(xt, t)
        noise = None
        if eta > 0:
            noise = torch.randn(xt.shape, generator=generator, dtype=xt.dtype)
            noise = noise.to(xt.device)
        t_prev = t - schedule.T // steps                           # (b,)
        xt = ddim_step(eps_hat, xt, t, t_prev, schedule, eta, noise, clip, end)
        yield step, xt


def with_fitting_eps(model: Callable, schedule: Schedule) -> Callable:
    """A model eps_hat = f(xt, t) whose x0_hat stays in [-1, 1], its eps made to fit that.

    What `clip` leaves undone: a step that clamps x0_hat and keeps eps moves the picture by their
    misfit, and guidance makes that large. As guided-diffusion does, and diffusers with
    `use_clipped_model_output`.
    """
    def model_of_pictures(xt: Tensor, t: Tensor) -> Tensor:
        x0_hat = predict_x0(model(xt, t), xt, t, schedule).clamp(-1, 1)
        return predict_eps(x0_hat, xt, t, schedule)

    return model_of_pictures


def ddim_ascend(eps_hat: Tensor, xt: Tensor, t: Tensor, t_next: Tensor,
                schedule: Schedule, clip: bool = False, end: float = 1.) -> Tensor:
    """One step up, from t (below 0 means x0) to a noisier t_next: eq. 12, backwards.

    The predicted x0 at level t is noised to level t_next with the same eps_hat, so that
    ddim_step with that eps_hat leads back. `clip` clamps it (and breaks the law).
    """
    alpha_bar = alpha_bar_at(t, schedule, end)                     # (b,)
    signal = expand_like(alpha_bar.sqrt(), xt)
    noise = expand_like((1 - alpha_bar).sqrt(), xt)
    x0_hat = (xt - noise * eps_hat) / signal                       # (b,c,h,w)
    if clip:
        x0_hat = x0_hat.clamp(-1, 1)
    return q_sample(x0_hat, t_next, eps_hat, schedule)


def invert(model: Callable, x0: Tensor, schedule: Schedule, steps: int,
           clip: bool = False, spacing: str = "leading", offset: int = 0,
           end: float = 1., upto: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Encode pictures as noise: the same ODE, walked upwards (DDIM, section 4.3).

    Yields (t, x) after each step, t the step reached. eps is predicted for the step
    aimed at, as diffusers' DDIMInverseScheduler does, and elsewhere on the way back, so
    the round trip has an error that falls with more steps. `upto` stops after so many;
    `sample` with last=upto walks back from there.
    """
    visited, xt = timesteps(schedule.T, steps, spacing, offset), x0
    for step in visited[::-1][:upto]:
        t = torch.full((len(xt),), step, device=xt.device)         # (b,)
        with torch.no_grad():
            eps_hat = model(xt, t)
        t_below = t - schedule.T // steps                          # (b,)
        xt = ddim_ascend(eps_hat, xt, t_below, t, schedule, clip, end)
        yield step, xt


def slerp(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Noise between two noises, along the great circle (DDIM, appendix D.5).

    a and b, of any one shape, count as one vector each; `part` 0 gives a, 1 gives b. A
    straight line between two Gaussian vectors passes through vectors that are too
    short; it serves only where a and b are parallel and fix no circle.
    """
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = cosine.clamp(-1, 1).arccos()
    if float(angle.sin()) < 1e-4:
        return torch.lerp(a, b, part)
    return (((1 - part) * angle).sin() * a + (part * angle).sin() * b) / angle.sin()
