"""Denoising diffusion probabilistic models (Ho, Jain and Abbeel 2020, arXiv 2006.11239)."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import Schedule, at, spread


def q_sample(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Noise x0 to step t in one go (DDPM, eq. 4).

    x0 and eps (b,...), t (b,) long; returns xt like x0. Raises ValueError for a step outside
    the schedule.
    """
    signal = at(schedule.alpha_bar.sqrt(), t, x0)                  # (b,1,1,1)
    noise = at((1 - schedule.alpha_bar).sqrt(), t, x0)             # (b,1,1,1)
    return signal * x0 + noise * eps


def q_step(x_prev: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Add one step of noise: x at t-1 becomes x at t (DDPM, eq. 2)."""
    keep = at(schedule.alphas.sqrt(), t, x_prev)                   # (b,1,1,1)
    return keep * x_prev + at(schedule.betas.sqrt(), t, x_prev) * eps


def predict_x0(eps_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The clean picture that a guess of the noise implies: eq. 4 solved for x0."""
    signal = at(schedule.alpha_bar.sqrt(), t, xt)                  # (b,1,1,1)
    noise = at((1 - schedule.alpha_bar).sqrt(), t, xt)             # (b,1,1,1)
    return (xt - noise * eps_hat) / signal


def predict_eps(x0_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The noise that a guess of the clean picture implies: eq. 4 solved for eps."""
    signal = at(schedule.alpha_bar.sqrt(), t, xt)                  # (b,1,1,1)
    noise = at((1 - schedule.alpha_bar).sqrt(), t, xt)             # (b,1,1,1)
    return (xt - signal * x0_hat) / noise


def posterior(x0: Tensor, xt: Tensor, t: Tensor, schedule: Schedule,
              t_prev: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (b,...) and variance (b,1,..) of q(x_prev | xt, x0) (DDPM, eq. 6 and 7).

    t_prev (b,) is the step to land on, t - 1 unless given; below 0 it means x0 itself, where
    alpha_bar is 1 and the variance 0.
    """
    alpha_bar = torch.cat([schedule.alpha_bar.new_ones(1), schedule.alpha_bar])
    t_prev = t - 1 if t_prev is None else t_prev
    now, before = alpha_bar[t.cpu() + 1], alpha_bar[t_prev.cpu().clamp(min=-1) + 1]   # (b,)
    beta = 1 - now / before                                        # (b,) of the whole jump
    to_x0 = spread(before.sqrt() * beta / (1 - now), xt)           # (b,1,1,1)
    to_xt = spread((now / before).sqrt() * (1 - before) / (1 - now), xt)
    variance = spread(beta * (1 - before) / (1 - now), xt)
    return to_x0 * x0 + to_xt * xt, variance


def ddpm_step(eps_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule, noise: Tensor,
              t_prev: Tensor | None = None, clip: bool = False) -> Tensor:
    """One step of the reverse process, from t to t_prev (DDPM, algorithm 2).

    The guess of x0 is clipped to [-1, 1] if asked, then x_prev is drawn from the posterior with
    the posterior's own variance ("fixed small"); the last step adds no noise.
    """
    x0_hat = predict_x0(eps_hat, xt, t, schedule)                  # (b,c,h,w)
    if clip:
        x0_hat = x0_hat.clamp(-1, 1)
    mean, variance = posterior(x0_hat, xt, t, schedule, t_prev)
    return mean + variance.sqrt() * noise


def l_simple(model: Callable, x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """The mean squared error between true and guessed noise (DDPM, eq. 14)."""
    xt = q_sample(x0, t, eps, schedule)                            # (b,c,h,w)
    return F.mse_loss(model(xt, t), eps)


def vlb_weight(schedule: Schedule) -> Tensor:
    """What eq. 12 of DDPM multiplies the squared error at each step by, (T-1,) for t = 1..T-1.

    beta^2 / (2 sigma^2 alpha (1 - alpha_bar)) with the posterior variance as sigma^2; L_simple
    sets all of them to 1.
    """
    betas, alphas, alpha_bar = schedule.betas[1:], schedule.alphas[1:], schedule.alpha_bar
    variance = betas * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    return betas**2 / (2 * variance * alphas * (1 - alpha_bar[1:]))


def sample(model: Callable, xT: Tensor, schedule: Schedule, generator: torch.Generator,
           clip: bool = True) -> Iterator[tuple[int, Tensor]]:
    """Walk from noise to pictures, a step at a time (DDPM, algorithm 2).

    Yields (t, x) after each of the T steps, the last one with t = 0. Noise is drawn on the CPU
    from `generator`, so that a seed means one picture on every device.
    """
    xt = xT
    for step in reversed(range(schedule.T)):
        t = torch.full((len(xt),), step, device=xt.device)         # (b,)
        noise = torch.randn(xt.shape, generator=generator).to(xt.device)
        with torch.no_grad():
            eps_hat = model(xt, t)
        xt = ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)
        yield step, xt


def to_model(images: Tensor) -> Tensor:
    """Pictures (b,h,w,3) uint8, as they are shown, to (b,3,h,w) float in [-1, 1]."""
    if images.dtype != torch.uint8 or images.shape[-1] != 3:
        raise ValueError("Pictures to convert are (b,h,w,3) whole numbers 0..255, got "
                         f"{tuple(images.shape)} {images.dtype}.")
    return images.movedim(-1, 1).float() / 127.5 - 1


def to_shown(x: Tensor) -> Tensor:
    """Model pictures (b,3,h,w) in [-1, 1] to (b,h,w,3) in [0, 1], clipped."""
    return ((x.detach().float().cpu() + 1) / 2).clamp(0, 1).movedim(1, -1)


class Mixture:
    """Gaussians of equal weight on a ring: a data set whose every noised density is known.

    Data noised to step t are again a mixture, with means sqrt(alpha_bar) mu_k and variance
    alpha_bar s^2 + 1 - alpha_bar, so the best possible guess of eps is a formula and not a
    network: samplers can be proved right before anything is trained.
    """

    def __init__(self, modes: int = 8, radius: float = 1.5, std: float = 0.1):
        turns = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        self.means = radius * torch.stack([turns.cos(), turns.sin()], dim=1)        # (k,2)
        self.std = std

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` points of the data, (count,2) float64."""
        which = torch.randint(len(self.means), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return self.means[which] + self.std * noise

    def posterior_weights(self, xt: Tensor, alpha_bar_t: Tensor) -> Tensor:
        """Which mode a noised point belongs to, as probabilities (b,k)."""
        means = alpha_bar_t.sqrt()[:, None] * self.means.to(xt)[None]               # (b,k,2)
        variance = alpha_bar_t * self.std**2 + 1 - alpha_bar_t                      # (b,1)
        distance = (xt[:, None] - means).square().sum(-1)                           # (b,k)
        return torch.softmax(-distance / (2 * variance), dim=1)

    def eps(self, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The exact E[eps | xt], which is -sqrt(1 - alpha_bar) times the score, (b,2)."""
        alpha_bar_t = at(schedule.alpha_bar, t, xt)                                 # (b,1)
        variance = alpha_bar_t * self.std**2 + 1 - alpha_bar_t                      # (b,1)
        mean = self.posterior_weights(xt, alpha_bar_t) @ self.means.to(xt)          # (b,2)
        score = (alpha_bar_t.sqrt() * mean - xt) / variance
        return -(1 - alpha_bar_t).sqrt() * score

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest mode of each point and the distance to it, both (b,)."""
        distance = torch.cdist(x.double(), self.means)
        return distance.argmin(1), distance.amin(1)
