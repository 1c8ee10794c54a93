"""Guidance: towards a class by a classifier (Dhariwal and Nichol 2021, arXiv 2105.05233), or
without one (Ho and Salimans 2022, arXiv 2207.12598).

`guidance_scale` is s everywhere: 1 follows the condition as it was learnt, 0 ignores it, more
exaggerates it. Ho and Salimans write w = s - 1.
"""

import math
from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ddpm import posterior, predict_x0
from .nets import Downsample2D, ResnetBlock2D, TimestepEmbedding, timestep_embedding
from .schedule import Schedule, extract
from .unet import UNet


def check_scale(guidance_scale: float) -> None:
    """Refuse a scale below 0 or one that is no finite number (ValueError)."""
    if not math.isfinite(guidance_scale) or guidance_scale < 0:
        raise ValueError("The guidance scale must be a finite number of at least 0 (1 is no "
                         f"guidance, 7.5 usual), got {guidance_scale}.")


def checked_scale(make: Callable) -> Callable:
    """The function with `check_scale` before it; its last argument is the guidance scale."""
    @wraps(make)
    def checked(*given, **named):
        check_scale(named["guidance_scale"] if "guidance_scale" in named else given[-1])
        return make(*given, **named)

    return checked


def classifier_gradient(log_prob: Callable, xt: Tensor, t: Tensor) -> Tensor:
    """The gradient of log p(c | xt) with respect to xt, shaped like xt.

    log_prob(xt, t) -> (b,), the log-probability of the class c for each picture.
    """
    with torch.enable_grad():
        xt = xt.detach().requires_grad_()
        return torch.autograd.grad(log_prob(xt, t).sum(), xt)[0]


def classifier_ddpm_step(eps_hat: Tensor, xt: Tensor, t: Tensor, schedule: Schedule,
                         noise: Tensor, gradient: Tensor, guidance_scale: float,
                         clip: bool = False) -> Tensor:
    """A step of DDPM with its mean shifted by the classifier (Dhariwal, algorithm 1).

    The shift is s times the step's variance times the gradient.
    """
    x0_hat = predict_x0(eps_hat, xt, t, schedule)               # (b,c,h,w)
    if clip:
        x0_hat = x0_hat.clamp(-1, 1)
    mean, variance = posterior(x0_hat, xt, t, schedule)
    mean = mean + guidance_scale * variance * gradient          # (b,c,h,w)
    return mean + variance.sqrt() * noise


def classifier_eps(eps_hat: Tensor, gradient: Tensor, t: Tensor, schedule: Schedule,
                   guidance_scale: float) -> Tensor:
    """eps_hat as DDIM needs it: shifted by the classifier (Dhariwal, algorithm 2)."""
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, eps_hat)     # (b,1,1,1)
    return eps_hat - guidance_scale * noise * gradient


def guide(eps_uncond: Tensor, eps_cond: Tensor, guidance_scale: float) -> Tensor:
    """From the prediction without condition to that with it, and past (Ho, eq. 6)."""
    return eps_uncond + guidance_scale * (eps_cond - eps_uncond)


def drop(cond: Tensor, null_cond: Tensor, p_drop: float, g: torch.Generator) -> Tensor:
    """Replace the condition of some samples by the empty one (Ho, algorithm 1).

    cond (b,...), null_cond one sample's (...); each sample on its own, with p_drop.
    """
    dropped = torch.rand(len(cond), generator=g) < p_drop       # (b,)
    dropped = dropped.view(-1, *[1] * (cond.ndim - 1))          # (b,1,...)
    return torch.where(dropped.to(cond.device), null_cond.to(cond), cond)


@checked_scale
def classifier_free(model: Callable, cond: Tensor, null_cond: Tensor,
                    guidance_scale: float) -> Callable:
    """A function eps_hat = f(xt, t) that guides model(xt, t, cond) (Ho, algorithm 2).

    cond and null_cond (b,...). A negative prompt is nothing but another null_cond. Both
    predictions are made in one call, the empty condition first; a scale of 1 makes one.
    """
    def guided(xt: Tensor, t: Tensor) -> Tensor:
        if guidance_scale == 1:
            return model(xt, t, cond)
        both = torch.cat([null_cond, cond])                     # (2b,...)
        eps_hat = model(torch.cat([xt, xt]), torch.cat([t, t]), both)
        return guide(*eps_hat.chunk(2), guidance_scale)         # (b,c,h,w)

    return guided


@checked_scale
def classifier_guided(model: Callable, log_prob: Callable, schedule: Schedule,
                      guidance_scale: float) -> Callable:
    """A function eps_hat = f(xt, t) for DDIM that follows a classifier's gradient."""
    def guided(xt: Tensor, t: Tensor) -> Tensor:
        gradient = classifier_gradient(log_prob, xt, t)         # (b,c,h,w)
        return classifier_eps(model(xt, t), gradient, t, schedule, guidance_scale)

    return guided


class NoisyClassifier(nn.Module):
    """Says what is in a noisy picture: category and colour, at any step t.

    The first half of a U-Net, and the mean over what is left of the picture.
    """

    def __init__(self, categories: int, colours: int, widths=(32, 64, 64), groups: int = 8):
        super().__init__()
        self.time_embedding = TimestepEmbedding(widths[0], 4 * widths[0])
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(c_in, c, 4 * widths[0], groups)
            for c_in, c in zip((widths[0], *widths), widths, strict=False))
        self.downsamplers = nn.ModuleList(Downsample2D(c) for c in widths)
        self.norm = nn.GroupNorm(groups, widths[-1])
        self.category = nn.Linear(widths[-1], categories)
        self.colour = nn.Linear(widths[-1], colours)

    def forward(self, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the category (b,categories) and of the colour (b,colours)."""
        sinusoids = timestep_embedding(t, self.conv_in.out_channels)
        temb = self.time_embedding(sinusoids.to(xt.dtype))          # (b,4c)
        x = self.conv_in(xt)                                    # (b,c,h,w)
        for resnet, downsample in zip(self.resnets, self.downsamplers, strict=True):
            x = downsample(resnet(x, temb))                     # (b,c,h/2,w/2)
        x = F.silu(self.norm(x)).mean((2, 3))                   # (b,c)
        return self.category(x), self.colour(x)


class LabelledUNet(nn.Module):
    """A U-Net that reads labels: one token for the category, one for the colour.

    The tokens take the place that words have in lesson 6. The last entry of each table
    is the empty label, which stands for -1.
    """

    def __init__(self, unet: dict, categories: int, colours: int):
        super().__init__()
        self.unet, d = UNet(**unet), unet["cross_attention_dim"]
        self.category = nn.Embedding(categories + 1, d)
        self.colour = nn.Embedding(colours + 1, d)

    def forward(self, xt: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The noise in xt (b,3,h,w), given labels (b,2): category, colour, -1 for none."""
        category, colour = labels.unbind(1)                     # (b,) each
        category = category % self.category.num_embeddings      # -1 is the last entry
        colour = colour % self.colour.num_embeddings
        context = torch.stack([self.category(category), self.colour(colour)], 1)
        return self.unet(xt, t, context)                        # from context (b,2,d)
