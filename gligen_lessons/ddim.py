"""Denoising diffusion implicit models (Song, Meng and Ermon 2020, arXiv 2010.02502)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .ddpm import predict_x0, q_sample
from .schedule import Schedule, spread

SPACINGS = ("leading", "trailing", "linspace")


def with_end(schedule: Schedule, end: float = 1.) -> Tensor:
    """alpha_bar with its value for x0 in front, (T+1,): entry t + 1 belongs to step t.

    `end` is 1, no noise at all, or alpha_bar[0], where Stable Diffusion ends.
    """
    return torch.cat([schedule.alpha_bar.new_full((1,), float(end)), schedule.alpha_bar])


def ddim_sigma(t: Tensor, t_prev: Tensor, schedule: Schedule, eta: float = 1.,
               end: float = 1.) -> Tensor:
    """How much noise a DDIM step adds (DDIM, eq. 16): eta 0 none, eta 1 as much as DDPM.

    t, t_prev (b,) long, t_prev < 0 means x0; returns standard deviations (b,) in float64.
    """
    alpha_bar = with_end(schedule, end)
    now, before = alpha_bar[t.cpu() + 1], alpha_bar[t_prev.cpu().clamp(min=-1) + 1]      # (b,)
    return eta * ((1 - before) / (1 - now) * (1 - now / before)).sqrt()


def ddim_step(eps_hat: Tensor, xt: Tensor, t: Tensor, t_prev: Tensor, schedule: Schedule,
              eta: float = 0., noise: Tensor | None = None, clip: bool = False,
              end: float = 1.) -> Tensor:
    """One step from t to t_prev, any distance apart (DDIM, eq. 12).

    The guess of x0, the direction back to xt, and `eta` times the noise of DDPM. t, t_prev (b,)
    long; t_prev < 0 means x0. `clip` clamps the guess of x0 and leaves eps_hat as it is, as
    diffusers does. Raises ValueError where eta > 0 comes without noise.
    """
    if eta > 0 and noise is None:
        raise ValueError(f"eta = {eta} asks for randomness: give ddim_step its noise too.")
    before = with_end(schedule, end)[t_prev.cpu().clamp(min=-1) + 1]   # (b,) float64
    sigma = ddim_sigma(t, t_prev, schedule, eta, end)              # (b,) float64
    x0_hat = predict_x0(eps_hat, xt, t, schedule)                  # (b,c,h,w)
    if clip:
        x0_hat = x0_hat.clamp(-1, 1)
    towards_xt = (1 - before - sigma**2).clamp(min=0).sqrt()       # (b,) float64
    x_prev = spread(before.sqrt(), xt) * x0_hat + spread(towards_xt, xt) * eps_hat
    return x_prev if noise is None else x_prev + spread(sigma, xt) * noise


def timesteps(T: int, steps: int, spacing: str = "leading", offset: int = 0) -> list[int]:
    """The steps a sampler visits, from high to low, as diffusers spaces them.

    "leading" counts 0, k, 2k, ... with k = T // steps (it never reaches T - 1), "trailing" counts
    down from T - 1, "linspace" spreads evenly over both ends; `offset` is added to "leading"
    steps. Raises ValueError for an unknown spacing or more steps than T.
    """
    if not 1 <= steps <= T:
        raise ValueError(f"The number of steps must lie in 1..{T}, got {steps}.")
    if spacing == "leading":
        return [i * (T // steps) + offset for i in reversed(range(steps))]
    if spacing == "trailing":
        return [round(T - i * T / steps) - 1 for i in range(steps)]
    if spacing == "linspace":
        even = torch.linspace(0, T - 1, steps, dtype=torch.float64)
        return even.round().long().flip(0).tolist()
    raise ValueError(f"There is no spacing {spacing!r}; choose from {', '.join(SPACINGS)}.")


def sample(model: Callable, xT: Tensor, schedule: Schedule, steps: int, eta: float = 0.,
           generator: torch.Generator | None = None, clip: bool = False,
           spacing: str = "leading", offset: int = 0,
           end: float = 1.) -> Iterator[tuple[int, Tensor]]:
    """Walk from noise to pictures in few steps.

    Yields (t, x) after each step, t the step that was left. The step aimed at is t - T // steps,
    as in diffusers. `model(xt, t)` guesses eps; the caller binds everything else into it. Noise
    (for eta > 0) is drawn on the CPU from `generator`.
    """
    stride, xt = schedule.T // steps, xT
    for step in timesteps(schedule.T, steps, spacing, offset):
        t = torch.full((len(xt),), step, device=xt.device)         # (b,)
        with torch.no_grad():
            eps_hat = model(xt, t)
        noise = (torch.randn(xt.shape, generator=generator, dtype=xt.dtype).to(xt.device)
                 if eta > 0 else None)
        xt = ddim_step(eps_hat, xt, t, t - stride, schedule, eta, noise, clip, end)
        yield step, xt


def invert(model: Callable, x0: Tensor, schedule: Schedule, steps: int, spacing: str = "leading",
           offset: int = 0, end: float = 1., upto: int | None = None
           ) -> Iterator[tuple[int, Tensor]]:
    """Encode pictures as noise: the same ODE, walked upwards (DDIM, eq. 14 and section 4.3).

    Yields (t, x) after each step, t the step reached. The guess of eps is made for the step that
    is aimed at, as diffusers' DDIMInverseScheduler does; walking back down guesses at slightly
    different places, so the round trip has an error that falls with more steps. `upto` stops
    after so many steps.
    """
    stride, xt = schedule.T // steps, x0
    for step in timesteps(schedule.T, steps, spacing, offset)[::-1][:upto]:
        t = torch.full((len(xt),), step, device=xt.device)         # (b,)
        with torch.no_grad():
            eps_hat = model(xt, t)
        xt = ddim_ascend(eps_hat, xt, t - stride, t, schedule, end)
        yield step, xt


def ddim_ascend(eps_hat: Tensor, xt: Tensor, t: Tensor, t_next: Tensor, schedule: Schedule,
                end: float = 1.) -> Tensor:
    """One step up, from t (below 0 means x0) to a noisier t_next: ddim_step read backwards."""
    alpha_bar = with_end(schedule, end)[t.cpu().clamp(min=-1) + 1]     # (b,) float64
    signal, noise = spread(alpha_bar.sqrt(), xt), spread((1 - alpha_bar).sqrt(), xt)
    x0_hat = (xt - noise * eps_hat) / signal                       # (b,c,h,w)
    return q_sample(x0_hat, t_next, eps_hat, schedule)


def slerp(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Noise between two noises, along the great circle from a to b (DDIM, appendix D.5).

    A straight line between two Gaussian vectors passes through vectors that are too short.
    """
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = cosine.clamp(-1, 1).arccos()
    if float(angle) < 1e-4:
        return torch.lerp(a, b, part)
    return (((1 - part) * angle).sin() * a + (part * angle).sin() * b) / angle.sin()
