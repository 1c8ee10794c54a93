"""Pictures in which nothing can be named: what a judge must not be sure of.

A network that has seen only clean renders finds a car in white noise. So the referee also learns
from rubbish of many kinds, all of which generators produce when they fail.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import resized
from ..schedule import Schedule
from ..vae import VAE
from ..world.vocabulary import COLOURS

PALETTE = torch.tensor(list(COLOURS.values())).float() / 127.5 - 1                  # (10,3)
TOO_BLURRED = (5, 9)                                      # px that are left of a picture's side
TOO_NOISY = .2                                            # alpha_bar of latents that say nothing


def uniform(low: float, high: float, count: int, g: torch.Generator) -> Tensor:
    """Random numbers (count,1,1,1) between two bounds."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=g)


def palette_colours(count: int, g: torch.Generator) -> Tensor:
    """Colours of the palette, a little off, (count,3,1,1)."""
    chosen = PALETTE[torch.randint(len(PALETTE), (count,), generator=g)]
    return (chosen + .1 * torch.randn(count, 3, generator=g))[..., None, None]


def white_noise(x: Tensor, g: torch.Generator) -> Tensor:
    """Independent pixels around a colour, weak to strong."""
    n = len(x)
    return palette_colours(n, g) + uniform(.05, 1.2, n, g) * torch.randn(x.shape, generator=g)


def cloudy_noise(x: Tensor, g: torch.Generator) -> Tensor:
    """Noise of several scales, from patches of half a picture down to a few pixels."""
    n, made = len(x), palette_colours(len(x), g)
    for side in (2, 4, 8, 16, 32):
        part = resized(torch.randn(n, 3, side, side, generator=g), x.shape[-1])
        made = made + uniform(0, .6, n, g) * part
    return made


def shuffled(x: Tensor, g: torch.Generator) -> Tensor:
    """A picture cut into squares of 4 or 8 pixels in a random order."""
    side = (4, 8)[int(torch.randint(2, (), generator=g))]
    squares = F.unfold(x, side, stride=side)                                # (n,3*side^2,k)
    return F.fold(squares[..., torch.randperm(squares.shape[-1], generator=g)],
                  x.shape[-2:], side, stride=side)


def blobs(x: Tensor, g: torch.Generator) -> Tensor:
    """Ellipses and boxes in the palette's colours on a backdrop without shapes."""
    n, side = len(x), x.shape[-1]
    made = resized(resized(x, 3), side)
    ticks = (torch.arange(side) + .5) / side
    for _ in range(5):
        middle, radius = torch.rand(2, n, 1, 1, generator=g), .04 + .2 * torch.rand(
            2, n, 1, 1, generator=g)
        across, down = (ticks - middle[0]) / radius[0], (ticks[:, None] - middle[1]) / radius[1]
        power = (2., 8.)[int(torch.randint(2, (), generator=g))]            # round or square
        inside = (across.abs()**power + down.abs()**power < 1)[:, None]     # (n,1,side,side)
        shown = inside & (torch.rand(n, 1, 1, 1, generator=g) < .6)
        made = torch.where(shown, palette_colours(n, g), made)
    return made


def stripes(x: Tensor, g: torch.Generator) -> Tensor:
    """Sinusoids of any direction and width in two colours: texture without a thing."""
    n, side = len(x), x.shape[-1]
    ticks, angle = torch.arange(side) / side, 3.1416 * uniform(0, 1, n, g)
    phase = angle.cos() * ticks + angle.sin() * ticks[:, None]              # (n,1,side,side)
    wave = .5 + .5 * (6.283 * (uniform(1, 14, n, g) * phase + uniform(0, 1, n, g))).sin()
    return palette_colours(n, g) * wave + palette_colours(n, g) * (1 - wave)


def blurred_away(x: Tensor, g: torch.Generator) -> Tensor:
    """A picture of which a few pixels are left."""
    side = int(torch.randint(*TOO_BLURRED, (), generator=g))
    return resized(resized(x, side), x.shape[-1])


def smeared(x: Tensor, g: torch.Generator) -> Tensor:
    """A picture in which every place shows what lies some way off: colours stay, shapes go."""
    n, side = len(x), x.shape[-1]
    way = F.interpolate(torch.randn(n, 2, 14, 14, generator=g), (side, side), mode="bilinear")
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), (n, 3, side, side), align_corners=False)
    moved = grid + (uniform(.3, .6, n, g) * way).movedim(1, -1)
    return F.grid_sample(x, moved, padding_mode="reflection", align_corners=False)


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "white noise": white_noise, "cloudy noise": cloudy_noise, "shuffled": shuffled,
    "blobs": blobs, "stripes": stripes, "blurred away": blurred_away, "smeared": smeared}


def nothing(kind: str, x: Tensor, g: torch.Generator) -> Tensor:
    """Pictures (n,3,h,w) in [-1, 1] of one of KINDS, made from as many renders x."""
    return KINDS[kind](x, g).clamp(-1, 1)


@torch.no_grad()
def decoded_noise(vae: VAE, x: Tensor, g: torch.Generator) -> Tensor:
    """What the autoencoder makes of latents that are mostly noise, or in a random order.

    The artefacts of a generator that has learnt nothing yet. Renders x (n,3,128,128).
    """
    z = vae.encode(x)[0].cpu() * vae.scaling_factor                         # (n,4,16,16)
    alpha_bar = Schedule.scaled_linear().alpha_bar.float()
    t = int((alpha_bar > TOO_NOISY).sum())                # the first step that is noisy enough
    kept = alpha_bar[torch.randint(t, len(alpha_bar), (len(x),), generator=g)].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * z + (1 - kept).sqrt() * torch.randn(z.shape, generator=g)
    mixed = z.flatten(2)[..., torch.randperm(z[0, 0].numel(), generator=g)].view_as(z)
    half = (torch.rand(len(x), 1, 1, 1, generator=g) < .5)
    spoilt = torch.where(half, noisy, mixed) / vae.scaling_factor
    return vae.decode(spoilt.to(x)).clamp(-1, 1)
