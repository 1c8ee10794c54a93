"""The noise schedule: how much noise each step adds, and how to look a step's value up."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def cosine_betas(T: int, s: float = .008, largest: float = .999) -> Tensor:
    """Betas under which alpha_bar falls like a squared cosine (Nichol 2021, eq. 17).

    alpha_bar(i) = f(i) / f(0) with f(i) = cos^2((i / T + s) / (1 + s) pi / 2) after i
    of T steps; a beta is at most `largest`. Returns (T,) float64, beta of the first
    step first. `s` keeps the first betas from being too small to matter.
    """
    part = torch.arange(T + 1, dtype=torch.float64) / T          # (T+1,), from 0 to 1
    f = torch.cos((part + s) / (1 + s) * math.pi / 2)**2         # (T+1,)
    return (1 - f[1:] / f[:-1]).clamp(max=largest)               # (T,)


@dataclass(frozen=True)
class Schedule:
    """Betas of a diffusion process and what follows from them (DDPM, section 2).

    `betas`, `alphas` = 1 - beta and `alpha_bar` = the running product of alphas are (T,)
    tensors, float64 on the CPU: differences such as 1 - alpha_bar are taken there and cast
    afterwards, because float32 would lose most of their digits near step 0. Step t counts from
    0 to T-1 (the papers count 1 to T).
    """

    betas: Tensor

    def __post_init__(self):
        betas = torch.as_tensor(self.betas, dtype=torch.float64, device="cpu")
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"betas must be a list of at least one number, got shape "
                             f"{tuple(betas.shape)}.")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("Every beta must lie strictly between 0 and 1: a beta of 0 adds no "
                             f"noise, a beta of 1 erases the picture. Got {betas.min():.4g} to "
                             f"{betas.max():.4g}.")
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "alphas", 1 - betas)
        object.__setattr__(self, "alpha_bar", torch.cumprod(1 - betas, dim=0))

    @classmethod
    def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02):
        """Betas on a straight line, the choice of DDPM (section 4)."""
        return cls(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012):
        """Square roots of the betas on a straight line, the choice of Stable Diffusion."""
        root = torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=torch.float64)
        return cls(root**2)

    @classmethod
    def cosine(cls, T: int = 1000):
        """A cosine as alpha_bar, the choice of Nichol and Dhariwal (2021)."""
        return cls(cosine_betas(T))

    @property
    def T(self) -> int:
        return len(self.betas)


def look_up(values: Tensor, t: Tensor) -> Tensor:
    """The values of steps t (b,) in a schedule's list `values` (T,), on the CPU.

    Raises ValueError for a step outside 0..T-1 or an empty batch and TypeError for steps that are
    not whole numbers.
    """
    if t.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"t must hold whole steps (torch.long), got {t.dtype}.")
    if not len(t):
        raise ValueError("The batch is empty: give at least one picture and its step.")
    t = t.cpu().long()
    if not 0 <= int(t.min()) <= int(t.max()) < len(values):
        raise ValueError(f"t must lie in 0..{len(values) - 1}, got {int(t.min())} to "
                         f"{int(t.max())}: the code counts steps from 0.")
    return values[t]


def extract(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Look `values` (T,) up at steps t (b,), shaped (b,1,1,...) so that it multiplies `like`.

    The result has the dtype and device of `like` (b,...). Raises ValueError where there is not
    one step for each picture, and what `look_up` raises.
    """
    if t.ndim != 1 or len(t) != len(like):
        raise ValueError(f"t needs one step for each of the {len(like)} pictures, "
                         f"got shape {tuple(t.shape)}.")
    return expand_like(look_up(values, t), like)


def expand_like(values: Tensor, like: Tensor) -> Tensor:
    """One value for each picture, (b,), shaped (b,1,1,...) in the dtype and device of `like`."""
    values = values.to(like.dtype).to(like.device)                 # cast first: MPS has no float64
    return values.view(-1, *[1] * (like.ndim - 1))                 # (b,1,1,...)
