"""Parts so small that a check takes a moment: a text-to-image model, losses, a schedule."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..latent import TextToImage
from ..nets import Attention
from ..schedule import Schedule
from ..vae import VAE
from . import Wrong

NOISE = Schedule.scaled_linear(40)
END = float(NOISE.alpha_bar[0])
LETTERS = 6                                               # tokens of a caption in here


def small_vae() -> VAE:
    """An autoencoder whose pictures leave [-1, 1] and whose factor is far from one."""
    vae = VAE(sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
              latent_channels=3, scaling_factor=.3, down_block_types=("DownEncoderBlock2D",) * 2,
              up_block_types=("UpDecoderBlock2D",) * 2)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(8)
        vae.encoder.conv_out.weight.mul_(3)
    return vae.requires_grad_(False)


class Letters(nn.Module):
    """Stands for a text tower: a state for every letter, none of them zero."""

    def __init__(self, width: int = 5):
        super().__init__()
        self.table = nn.Embedding(128, width)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(2 * self.table(ids)) + .3               # (b,n,d)

    @staticmethod
    def tokenizer(captions: list[str]) -> Tensor:
        rows = [[min(ord(ch), 127) for ch in f"{text:~<{LETTERS}}"[:LETTERS]]
                for text in captions]
        return torch.tensor(rows, dtype=torch.long)


class Listener(nn.Module):
    """Stands for a U-Net: it notices the step and every word that it is told."""

    def __init__(self, channels: int = 3, side: int = 4):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, 2, 1)
        self.config = {"sample_size": side, "in_channels": channels}

    def forward(self, zt: Tensor, t=None, context=None) -> Tensor:
        if t is None or context is None:
            raise Wrong("the network was called without " + ("a step" if t is None else "a "
                        "caption") + ": it takes (zt, t, context), or it cannot know what to do.")
        if t.ndim != 1 or context.ndim != 3:
            raise Wrong("the network takes (zt, t, context) in this order: t (b,) and context "
                        f"(b,n,d). It was given shapes {tuple(t.shape)}, {tuple(context.shape)}.")
        heard = context.mean((1, 2)) + context[:, -1, 0]          # (b,)
        push = (torch.sin(t.to(zt.dtype)) + 2 * heard).view(-1, 1, 1, 1)
        return torch.tanh(zt + push)


def small_parts() -> TextToImage:
    """A text-to-image model with everything that `sample_latents` and `generate` ask of one."""
    return TextToImage(small_vae(), Letters().requires_grad_(False),
                           Listener().requires_grad_(False), Letters.tokenizer, NOISE)


def attention_layer() -> Attention:
    """Three heads of four numbers, strong enough that no map is flat."""
    layer = Attention(12, 3, d_context=10)
    with torch.no_grad():
        for part in (layer.to_q, layer.to_k, layer.to_v):
            part.weight.mul_(4)
    return layer.requires_grad_(False)


def loss_mistakes(prediction: Callable, z0: Tensor, zt: Tensor, eps: Tensor) -> dict[str, Tensor]:
    """What people hand in where a loss on latents is asked for: what to say of it, and its value.

    `prediction(seen)` is what the network answers to a latent.
    """
    right = prediction(zt)
    return {
        "The prediction is compared with z0. The network predicts the noise, eps.":
            F.mse_loss(right, z0),
        "The prediction is compared with zt; the target is the noise that made it, eps.":
            F.mse_loss(right, zt),
        "The network saw the clean latent z0. Noise it first, with q_sample.":
            F.mse_loss(prediction(z0), eps),
        "The noise was added to z0 as it is: q_sample mixes them at the levels of t.":
            F.mse_loss(prediction(z0 + eps), eps),
        "Squares are summed here; take the mean, or the loss grows with the batch.":
            (right - eps).square().sum(),
        "Squares are summed within each picture; the mean runs over all numbers.":
            (right - eps).square().sum((1, 2, 3)).mean(),
        "Each picture's loss is asked for as one mean over all of them.":
            (right - eps).square().mean((1, 2, 3)),
        "This is the mean of absolute differences; the loss squares them.":
            (right - eps).abs().mean()}


def yielded(made) -> list:
    """What a sampling loop yields, a list of (step, zt); Wrong where it is no such loop."""
    try:
        made = list(made)
    except TypeError:
        raise Wrong("it is no generator: `yield step, zt` after each step.") from None
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in made):
        raise Wrong("yield two things: the step that was left, and zt.")
    return made
