"""Variational autoencoders (Kingma and Welling 2013, arXiv 1312.6114), as in latent diffusion.

Keys, names and arithmetic of diffusers' AutoencoderKL. x (b,3,h,w) is a picture in [-1, 1], z
(b,c,h/8,w/8) its latent.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch.nn.functional as F
from torch import Tensor, nn

from .nets import Downsample2D, ResnetBlock2D, SpatialAttention, Upsample2D, resolve_config

EPS = 1e-6                                                      # of every norm in here
DEFAULTS = {
    "in_channels": 3, "out_channels": 3, "block_out_channels": (64,), "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",),
    "latent_channels": 4, "norm_num_groups": 32, "sample_size": 32, "scaling_factor": .18215,
    "force_upcast": True,                                       # a remark for half precision
}
FIXED = {
    "act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True,
    "mid_block_add_attention": True, "shift_factor": None, "latents_mean": None,
    "latents_std": None,
}


def reparameterise(mean: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """A sample of N(mean, exp(logvar)) made from one of N(0, 1) (Kingma, section 2.4).

    All three of one shape. The randomness comes from outside, so gradients reach mean
    and logvar.
    """
    return mean + (0.5 * logvar).exp() * eps


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each picture, (b,) (Kingma, appendix B).

    In nats, summed over all numbers of a latent.
    """
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def reconstruction_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """How far x_hat is from x, (b,): absolute differences, of edges too.

    The sum over all numbers of |x_hat - x|, and half as much of the differences between
    neighbours, which keep thin lines sharp (latent diffusion takes LPIPS and a GAN).
    """
    off = x_hat - x                                             # (b,c,h,w)
    down = F.pad(off.diff(dim=2), (0, 0, 0, 1)).abs()           # (b,c,h,w)
    right = F.pad(off.diff(dim=3), (0, 1)).abs()                # (b,c,h,w)
    return (off.abs() + 0.5 * (down + right)).flatten(1).sum(1)


def vae_loss(model: Callable, x: Tensor, eps: Tensor, kl_weight: float) -> Tensor:
    """Reconstruction plus kl_weight times KL, for each number of the picture.

    eps, of a latent's shape, is the noise of `reparameterise`. kl_weight 1 would be the
    (negative) evidence lower bound of Kingma's eq. 3; latent diffusion takes far less.
    """
    mean, logvar = model.encode(x)                              # (b,c_z,h/8,w/8) twice
    x_hat = model.decode(reparameterise(mean, logvar, eps))     # (b,c,h,w)
    loss = reconstruction_error(x_hat, x) + kl_weight * kl(mean, logvar)
    return loss.mean() / x[0].numel()


def scaling_factor(z: Tensor) -> float:
    """What makes the standard deviation of latents one (latent diffusion, app. G)."""
    return 1 / float(z.flatten().std())


def with_defaults(config: dict) -> SimpleNamespace:
    """Add diffusers' defaults to a config; ValueError names what is not implemented."""
    full = resolve_config(config, DEFAULTS, FIXED, "AutoencoderKL")
    widths, groups = full["block_out_channels"], full["norm_num_groups"]
    for key in ("down_block_types", "up_block_types"):
        if tuple(full[key]) != DEFAULTS[key] * len(widths):
            raise ValueError(f"{key} must be {DEFAULTS[key][0]} for each of the {len(widths)} "
                             f"block_out_channels, got {full[key]!r}.")
    if any(c % groups for c in widths):
        raise ValueError(f"block_out_channels={tuple(widths)} must be divisible by "
                         f"norm_num_groups={groups}.")
    return SimpleNamespace(**full, bottom=len(widths) - 1)


class Block(nn.Module):
    """One level of encoder or decoder: ResBlocks, then half or twice the size."""

    def __init__(self, c_in: int, c_out: int, layers: int, groups: int, down=False, up=False):
        super().__init__()
        c_ins = [c_in] + [c_out] * (layers - 1)
        self.resnets = nn.ModuleList(ResnetBlock2D(c, c_out, None, groups, EPS) for c in c_ins)
        self.downsamplers = nn.ModuleList([Downsample2D(c_out, before=0)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample2D(c_out)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)                                       # (b,c_out,h,w)
        for downsample in self.downsamplers:
            x = downsample(x)                                   # (b,c_out,h/2,w/2)
        for upsample in self.upsamplers:
            h, w = x.shape[2:]
            x = upsample(x, (2 * h, 2 * w))                     # (b,c_out,2h,2w)
        return x


class MidBlock(nn.Module):
    """The bottom: attention with one head between two ResBlocks."""

    def __init__(self, c: int, groups: int):
        super().__init__()
        self.attentions = nn.ModuleList([SpatialAttention(c, 1, groups, EPS)])
        self.resnets = nn.ModuleList(ResnetBlock2D(c, c, None, groups, EPS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))      # (b,c,h,w)


class Encoder(nn.Module):
    """From a picture down to mean and log-variance, one level after the other."""

    def __init__(self, cfg: SimpleNamespace):
        super().__init__()
        widths, groups = cfg.block_out_channels, cfg.norm_num_groups
        self.conv_in = nn.Conv2d(cfg.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Block(widths[max(level - 1, 0)], c, cfg.layers_per_block, groups,
                  down=level < cfg.bottom) for level, c in enumerate(widths))
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * cfg.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)                                     # (b,c,h,w)
        for block in (*self.down_blocks, self.mid_block):
            x = block(x)                                        # smaller, wider
        return self.conv_out(F.silu(self.conv_norm_out(x)))     # (b,2c_z,h/8,w/8)


class Decoder(nn.Module):
    """From a latent up to a picture: the encoder's mirror, one ResBlock a level longer."""

    def __init__(self, cfg: SimpleNamespace):
        super().__init__()
        widths, groups = cfg.block_out_channels[::-1], cfg.norm_num_groups
        self.conv_in = nn.Conv2d(cfg.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            Block(widths[max(level - 1, 0)], c, cfg.layers_per_block + 1, groups,
                  up=level < cfg.bottom) for level, c in enumerate(widths))
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], cfg.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)                                     # (b,c,h/8,w/8)
        for block in (self.mid_block, *self.up_blocks):
            x = block(x)                                        # larger, narrower
        return self.conv_out(F.silu(self.conv_norm_out(x)))     # (b,3,h,w)


class VAE(nn.Module):
    """A picture to a small latent and back (latent diffusion, section 3.1).

    `config` is the dict of AutoencoderKL's keys that it was built from; `factor` says how many
    times smaller a latent is; `scaling_factor` makes latents of unit standard deviation.
    """

    def __init__(self, **config):
        super().__init__()
        self.config, cfg = config, with_defaults(config)
        self.factor, self.scaling_factor = 2**cfg.bottom, cfg.scaling_factor
        c = cfg.latent_channels
        self.encoder, self.decoder = Encoder(cfg), Decoder(cfg)
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1)
        self.post_quant_conv = nn.Conv2d(c, c, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent, (b,c_z,h/8,w/8) each.

        x (b,3,h,w) in [-1, 1]; height and width must be divisible by `factor`.
        """
        c, f = self.encoder.conv_in.in_channels, self.factor
        if x.ndim != 4 or x.shape[1] != c or x.shape[2] % f or x.shape[3] % f:
            raise ValueError(f"A picture must be (b,{c},h,w), h and w divisible by {f}, "
                             f"got shape {tuple(x.shape)}.")
        moments = self.quant_conv(self.encoder(x))              # (b,2c_z,h/8,w/8)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        """The picture (b,3,h,w) of a latent z (b,c_z,h/8,w/8), about in [-1, 1]."""
        c = self.post_quant_conv.in_channels
        if z.ndim != 4 or z.shape[1] != c:
            raise ValueError(f"A latent must be (b,{c},h,w), got shape {tuple(z.shape)}.")
        return self.decoder(self.post_quant_conv(z))
