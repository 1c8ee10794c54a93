"""What DiffEdit is measured against: the same U-Net and DDIM decoder, one part exchanged.

SDEdit (Meng et al. 2021, arXiv 2108.01073) with noise for an encoding and no mask, Encode-Decode
without the mask, DiffEdit with noise for the encoding, and ILVR (Choi et al. 2021, arXiv
2108.02938), here on latents. `levels` as in `diffedit`: [z_0, ..., z_r], clean to noisy.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ddim
from .ddpm import q_sample
from .diffedit import decode_masked, encode_levels, last_latent
from .latent import STEPS_OFFSET
from .schedule import Schedule


def noised_levels(z0: Tensor, eps: Tensor, schedule: Schedule, steps: int,
                  count: int) -> list[Tensor]:
    """A latent noised to the last `count` steps by one eps: [z_0, z_1, ..., z_r].

    What `encode_levels` finds by inversion, q_sample draws; same levels, same order.
    """
    visited = ddim.timesteps(schedule.T, steps, offset=STEPS_OFFSET)
    upwards = visited[::-1][:count]                             # from clean to noisy
    steps_of = [torch.full((len(z0),), step, device=z0.device) for step in upwards]
    return [z0, *(q_sample(z0, t, eps, schedule) for t in steps_of)]


def decode(model: Callable, levels: list[Tensor], schedule: Schedule,
           steps: int) -> Tensor:
    """Walk down from the last of `levels`; no mask. The others are not looked at."""
    trajectory = ddim.sample(model, levels[-1], schedule, steps, offset=STEPS_OFFSET,
                             end=float(schedule.alpha_bar[0]), last=len(levels) - 1)
    return last_latent(trajectory, levels[0])


def sdedit(model: Callable, z0: Tensor, eps: Tensor, schedule: Schedule, steps: int,
           count: int) -> Tensor:
    """SDEdit (section 3): noise a latent, then let the query remove the noise."""
    levels = noised_levels(z0, eps, schedule, steps, count)
    return decode(model, levels, schedule, steps)


def encode_decode(model: Callable, unconditional: Callable, z0: Tensor,
                  schedule: Schedule, steps: int, count: int) -> Tensor:
    """Encode without text, decode with the query: DiffEdit without its mask."""
    levels = encode_levels(unconditional, z0, schedule, steps, count)
    return decode(model, levels, schedule, steps)


def without_encoding(model: Callable, z0: Tensor, eps: Tensor, mask: Tensor,
                     schedule: Schedule, steps: int, count: int) -> Tensor:
    """DiffEdit with noised levels for encoded ones: the mask, but chance inside it."""
    levels = noised_levels(z0, eps, schedule, steps, count)
    return last_latent(decode_masked(model, levels, mask, schedule, steps), z0)


def low_pass(z: Tensor, factor: int) -> Tensor:
    """What is left of a latent (b,c,h,w) reduced by `factor`, at its old size.

    The mean of each block, enlarged again without smoothing: a projection, so twice is
    the same as once. (ILVR's own filter is bicubic, on pixels.)
    """
    return F.interpolate(F.avg_pool2d(z, factor), scale_factor=factor, mode="nearest")


def ilvr(model: Callable, z0: Tensor, eps: Tensor, schedule: Schedule, steps: int,
         factor: int, until: float = .2) -> Iterator[tuple[int, Tensor]]:
    """From noise eps, each step's low frequencies taken from z0 (ILVR, alg. 1).

    On latents, where the paper filters pixels. The reference is noised with eps to
    the level that the step reaches; the last `until` of the steps are left free.
    """
    zt, levels = eps, noised_levels(z0, eps, schedule, steps, steps)
    end, stride = float(schedule.alpha_bar[0]), schedule.T // steps
    visited = ddim.timesteps(schedule.T, steps, offset=STEPS_OFFSET)
    for left, step in zip(range(steps)[::-1], visited, strict=True):
        t = torch.full((len(zt),), step, device=zt.device)      # (b,)
        with torch.no_grad():
            eps_hat = model(zt, t)
        zt = ddim.ddim_step(eps_hat, zt, t, t - stride, schedule, end=end)
        if left >= until * steps:
            zt = zt + low_pass(levels[left] - zt, factor)       # both at one level
        yield step, zt
