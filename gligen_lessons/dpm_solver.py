"""DPM-Solver++(2M), a second-order sampler (Lu et al. 2022, arXiv 2211.01095, algorithm 2)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .ddim import alpha_bar_at
from .ddpm import predict_eps, predict_x0
from .schedule import Schedule, expand_like, look_up


def half_log_snr(t: Tensor, schedule: Schedule) -> Tensor:
    """lambda: half the log of the signal-to-noise ratio at steps t (b,), float64."""
    alpha_bar = look_up(schedule.alpha_bar, t)                     # (b,)
    return (alpha_bar / (1 - alpha_bar)).log() / 2


def extrapolated_x0(x0_hat: Tensor, x0_last: Tensor, t: Tensor, t_last: Tensor,
                    t_prev: Tensor, schedule: Schedule) -> Tensor:
    """The prediction of x0 half a step ahead, on a straight line in lambda.

    x0_hat (b,...) was predicted at t (b,), x0_last at t_last, one step noisier; the
    step leads to t_prev, which is not x0. D of DPM-Solver++(2M), algorithm 2.
    """
    now = half_log_snr(t, schedule)                                # (b,)
    ahead = (half_log_snr(t_prev, schedule) - now) / 2             # (b,), half a step
    behind = now - half_log_snr(t_last, schedule)                  # (b,)
    return x0_hat + expand_like(ahead / behind, x0_hat) * (x0_hat - x0_last)


def sample_2m(model: Callable, xT: Tensor, schedule: Schedule,
              visited: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Visit the steps of a list, falling, and then x0; one network call each.

    Yields (t, x) as `ddim.sample` does. The first step and the last, onto x0, where
    lambda is infinite, are DDIM's; `visited` names no step twice.
    """
    xt, x0_last, t_last = xT, None, None
    for step, aim in zip(visited, [*visited[1:], -1], strict=True):
        t = torch.full((len(xt),), step, device=xt.device)         # (b,)
        t_prev = torch.full_like(t, aim)
        with torch.no_grad():
            x0_hat = predict_x0(model(xt, t), xt, t, schedule)     # (b,c,h,w)
        x0 = x0_hat
        if x0_last is not None and aim >= 0:
            x0 = extrapolated_x0(x0_hat, x0_last, t, t_last, t_prev, schedule)
        x0_last, t_last = x0_hat, t
        before = alpha_bar_at(t_prev, schedule)                    # (b,)
        eps = predict_eps(x0, xt, t, schedule)
        xt = (expand_like(before.sqrt(), xt) * x0
              + expand_like((1 - before).sqrt(), xt) * eps)
        yield step, xt
