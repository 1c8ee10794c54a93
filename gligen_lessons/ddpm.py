"""Denoising diffusion probabilistic models (Ho, Jain, Abbeel 2020, arXiv 2006.11239)."""

import math
from collections.abc import Callable, Iterator
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import Schedule, expand_like, extract, look_up


def q_sample(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Noise x0 to step t in one go (DDPM, eq. 4).

    x0 and eps (b,...), t (b,) long; returns xt like x0. Raises ValueError for a step
    outside the schedule.
    """
    signal = extract(schedule.alpha_bar.sqrt(), t, x0)                # (b,1,1,1)
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, x0)           # (b,1,1,1)
    return signal * x0 + noise * eps


def q_step(x_prev: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """Add one step of noise: x at t-1 becomes x at t (DDPM, eq. 2)."""
    keep = extract(schedule.alphas.sqrt(), t, x_prev)                 # (b,1,1,1)
    return keep * x_prev + extract(schedule.betas.sqrt(), t, x_prev) * eps


def predict_x0(eps_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The clean picture that a prediction of the noise implies: eq. 4 solved for x0."""
    signal = extract(schedule.alpha_bar.sqrt(), t, xt)                # (b,1,1,1)
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, xt)           # (b,1,1,1)
    return (xt - noise * eps_hat) / signal


def predict_eps(x0_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The noise that a predicted clean picture implies: eq. 4 solved for eps."""
    signal = extract(schedule.alpha_bar.sqrt(), t, xt)                # (b,1,1,1)
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, xt)           # (b,1,1,1)
    return (xt - signal * x0_hat) / noise


def velocity(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule) -> Tensor:
    """v, what v-prediction asks a network for (Salimans and Ho 2022, appendix D)."""
    signal = extract(schedule.alpha_bar.sqrt(), t, x0)                # (b,1,1,1)
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, x0)           # (b,1,1,1)
    return signal * eps - noise * x0


def from_velocity(v_hat: Tensor, xt: Tensor, t: Tensor,
                  schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The clean picture and the noise that a prediction of v implies, both like xt."""
    signal = extract(schedule.alpha_bar.sqrt(), t, xt)                # (b,1,1,1)
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, xt)           # (b,1,1,1)
    return signal * xt - noise * v_hat, noise * xt + signal * v_hat


def to_score(eps_hat: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The gradient of log q(xt) that a prediction of the noise implies (Tweedie)."""
    return -eps_hat / extract((1 - schedule.alpha_bar).sqrt(), t, eps_hat)


def levels(t: Tensor, t_prev: Tensor, schedule: Schedule,
           end: float = 1.) -> tuple[Tensor, Tensor]:
    """alpha_bar at t and at t_prev, (b,) each in float64 on the CPU.

    A t_prev below 0 means x0 itself, where alpha_bar is `end`. Raises ValueError for a
    t outside the schedule and for a t_prev that is not below t.
    """
    now, t_prev = look_up(schedule.alpha_bar, t), t_prev.cpu()
    if not bool((t_prev < t.cpu()).all()):
        raise ValueError("t_prev must lie below t: the reverse process walks down. Got "
                         f"t = {t.tolist()} and t_prev = {t_prev.tolist()}.")
    before = torch.where(t_prev < 0, end, schedule.alpha_bar[t_prev.clamp(min=0)])
    return now, before


def posterior(x0: Tensor, xt: Tensor, t: Tensor, schedule: Schedule,
              t_prev: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (b,...) and variance (b,1,..) of q(x_prev | xt, x0) (DDPM, eq. 6 and 7).

    t_prev (b,) is the step to land on, t - 1 unless given; below 0 it means x0 itself,
    where the variance is 0. Errors: see `levels`.
    """
    now, before = levels(t, t - 1 if t_prev is None else t_prev, schedule)
    alpha = now / before                                         # (b,) of the jump
    to_x0 = expand_like(before.sqrt() * (1 - alpha) / (1 - now), xt)  # (b,1,1,1)
    to_xt = expand_like(alpha.sqrt() * (1 - before) / (1 - now), xt)  # (b,1,1,1)
    variance = expand_like((1 - alpha) * (1 - before) / (1 - now), xt)
    return to_x0 * x0 + to_xt * xt, variance


def ddpm_step(eps_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule, noise: Tensor,
              t_prev: Tensor | None = None, clip: bool = False) -> Tensor:
    """One step of the reverse process, from t to t_prev (DDPM, algorithm 2).

    The prediction of x0 is clipped to [-1, 1] if asked, then x_prev is drawn from the
    posterior with the posterior's own variance ("fixed small"); that is 0 at the last
    step, which so adds no noise.
    """
    x0_hat = predict_x0(eps_hat, xt, t, schedule)                # (b,c,h,w)
    if clip:
        x0_hat = x0_hat.clamp(-1, 1)
    mean, variance = posterior(x0_hat, xt, t, schedule, t_prev)
    return mean + variance.sqrt() * noise


def l_simple(model: Callable, x0: Tensor, t: Tensor, eps: Tensor,
             schedule: Schedule) -> Tensor:
    """The mean squared error between true and predicted noise (DDPM, eq. 14)."""
    xt = q_sample(x0, t, eps, schedule)                          # (b,c,h,w)
    return F.mse_loss(model(xt, t), eps)


def vlb_weight(schedule: Schedule) -> Tensor:
    """What eq. 12 of DDPM multiplies the squared error of each step by.

    beta^2 / (2 sigma^2 alpha (1 - alpha_bar)) with the posterior variance as sigma^2,
    (T-1,) for the steps 1 to T-1; L_simple sets all of them to 1.
    """
    betas, alphas = schedule.betas[1:], schedule.alphas[1:]      # (T-1,)
    before, now = schedule.alpha_bar[:-1], schedule.alpha_bar[1:]
    variance = betas * (1 - before) / (1 - now)
    return betas**2 / (2 * variance * alphas * (1 - now))


def sample(model: Callable, xT: Tensor, schedule: Schedule, generator: torch.Generator,
           clip: bool = True, steps: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Walk from noise to pictures, a step at a time (DDPM, algorithm 2).

    Yields (t, x) after each step, t the step that was left, the last one 0 (unless the
    loop has a single step). `steps` visits only so many of the T steps, evenly spread.
    Noise is drawn on the CPU from `generator`, so that a seed means one picture on
    every device.
    """
    steps = schedule.T if steps is None else steps
    if not 1 <= steps <= schedule.T:
        raise ValueError(f"The steps to visit must be 1..{schedule.T}, got {steps}.")
    visit = torch.linspace(schedule.T - 1, 0, steps, dtype=torch.float64)
    visit, xt = visit.round().long().tolist(), xT
    for step, aim in zip(visit, [*visit[1:], -1], strict=True):
        t = torch.full((len(xt),), step, device=xt.device)       # (b,)
        noise = torch.randn(xt.shape, generator=generator).to(xt.device)
        with torch.no_grad():
            eps_hat = model(xt, t)                               # (b,c,h,w)
        t_prev = torch.full_like(t, aim)
        xt = ddpm_step(eps_hat, xt, t, schedule, noise, t_prev, clip)
        yield step, xt


class Mixture:
    """Gaussians of equal weight on a ring: data of which every noised density is known.

    Data noised to step t are again a mixture, with means sqrt(alpha_bar) mu_k and
    variance alpha_bar s^2 + 1 - alpha_bar, so the best possible prediction of eps is a
    formula and not a network: samplers can be proved right before anything is trained.
    """

    def __init__(self, modes: int = 8, radius: float = 1.5, std: float = 0.1):
        turns = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        self.means = radius * torch.stack([turns.cos(), turns.sin()], dim=1)    # (k,2)
        self.std = std

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` points of the data, (count,2) float64."""
        which = torch.randint(len(self.means), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return self.means[which] + self.std * noise

    def only(self, modes: list[int]) -> "Mixture":
        """The mixture of some of the modes, by number: the data of one class."""
        part = copy(self)
        part.means = self.means[modes]
        return part

    def noised(self, t: Tensor, schedule: Schedule,
               like: Tensor) -> tuple[Tensor, Tensor]:
        """The mixture at steps t (b,): its means (b,k,2) and their variance (b,1)."""
        signal = extract(schedule.alpha_bar.sqrt(), t, like)          # (b,1)
        noise = extract(1 - schedule.alpha_bar, t, like)              # (b,1)
        means = signal[..., None] * self.means.to(like)          # (b,k,2)
        return means, (signal * self.std)**2 + noise

    def eps(self, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The exact E[eps | xt] of points xt (b,2) at steps t (b,), (b,2).

        It is -sqrt(1 - alpha_bar) times the score, the gradient of log q(xt).
        """
        means, variance = self.noised(t, schedule, xt)           # (b,k,2), (b,1)
        distance = (xt[:, None] - means).square().sum(-1)        # (b,k)
        weights = torch.softmax(-distance / (2 * variance), dim=1)
        mean = (weights[..., None] * means).sum(1)               # (b,2)
        score = (mean - xt) / variance                           # (b,2)
        return -extract((1 - schedule.alpha_bar).sqrt(), t, xt) * score

    def log_density(self, xt: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The exact log q(xt) of points xt (b,2) at steps t (b,), (b,)."""
        means, variance = self.noised(t, schedule, xt)           # (b,k,2), (b,1)
        distance = (xt[:, None] - means).square().sum(-1)        # (b,k)
        each = -distance / (2 * variance) - (2 * math.pi * variance).log()
        return each.logsumexp(1) - math.log(len(self.means))

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest mode of each point and the distance to it, both (b,)."""
        distance = torch.cdist(x.double(), self.means)
        return distance.argmin(1), distance.amin(1)
