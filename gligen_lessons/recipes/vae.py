"""Training lesson 3's autoencoder: pictures of 128 px to latents of 4 x 16 x 16 and back."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import device
from ..datasets.latent_scenes import latents
from ..fit import step_generator
from ..images import to_model
from ..muon import groups
from ..vae import VAE, kl, reconstruction_error, reparameterise, scaling_factor
from . import Recipe, on_device
from .data import Source
from .world_data import WORLD

LATENT_VAE = {
    "sample_size": 128, "block_out_channels": (16, 32, 64, 128), "layers_per_block": 1,
    "latent_channels": 4, "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
KL_WEIGHT = .02
HALF_WEIGHT = .25                                         # of the pictures at half their size
CROP = 64                                                 # px of the pieces it learns from first
WHOLE = .7                                                # of the run; then it sees whole pictures
FROZEN = .75                                              # of the run; then only the decoder learns
RATE = .02                                                # Muon's


def vae(steps: int | None = None, batch: int | None = None, source: Source = WORLD) -> Recipe:
    """The autoencoder: pieces of pictures, then a quarter as many whole ones a step.

    In the last quarter the encoder stands still: latents are final, and the decoder makes the
    most of them (as Stable Diffusion's was finished, sd-vae-ft-mse). Pictures of 64 px are always
    whole ones.
    """
    full = device.compute_budget() == "full"
    steps, batch = steps or (5_000 if source.small else 20_000 if full else 18_000), batch or (
        64 if full else 8)
    drawn = source.pictures(steps, batch)
    data = on_device(drawn.images)
    made = LATENT_VAE | {"sample_size": data.shape[1]}

    def learned(model) -> dict:
        rows = torch.arange(min(512, len(data)), device=data.device)
        g = torch.Generator().manual_seed(0)
        return {"scaling_factor": scaling_factor(latents(model, data[rows], g))}

    def report(model) -> dict:
        return drawn.report(model, min(1000, 8 + steps))

    model = VAE(**made).to(memory_format=torch.channels_last)
    pieces = "" if source.small else f"pieces of {CROP} px in the first {WHOLE:.0%} of the steps, "
    return Recipe(
        name="vae", model=model, config=made,
        data=f"{drawn.told}, {pieces}the encoder frozen after {FROZEN:.0%}",
        sample_batch=growing_pieces(data, drawn.boxes_xyxy, steps, batch),
        loss=two_sizes_loss, steps=steps, lr=RATE, report=report, learned=learned,
        options={"ema": .998, "optimizer": "muon", "groups": partial(groups, lr=RATE)},
        helpers=f"the same picture at half its size, weight {HALF_WEIGHT}")


def growing_pieces(data: Tensor, boxes: Tensor, steps: int, batch: int) -> Callable:
    """The function that draws a step's batch: pieces, then whole pictures, then frozen latents.

    From pictures (N,s,s,3) uint8 and the boxes (N,k,4) of their things.
    """
    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(4, step)
        piece = step < WHOLE * steps
        side = CROP if piece else data.shape[1]
        count = max(1, batch * CROP**2 // side**2)
        rows = torch.randint(len(data), (count,), generator=g)
        corners = piece_corners(boxes[rows], data.shape[1] - side, g)
        x = torch.stack([data[row, y:y + side, x:x + side] for row, (x, y)
                         in zip(rows.tolist(), corners.tolist(), strict=True)])
        eps = torch.randn(count, 4, side // 8, side // 8, generator=g)
        return to_model(x), eps, torch.full((count,), step >= FROZEN * steps)

    return sample_batch


def two_sizes_loss(model: VAE, x: Tensor, eps: Tensor, frozen: Tensor) -> Tensor:
    """Reconstruction and KL of lesson 3, and the same picture at half its size.

    Averaged two by two, latents decode to the averaged picture: so that a thing has like
    latents at every size, and latents are smooth (scale equivariance, as in EQ-VAE, Kouzelis
    et al. 2025, arXiv 2502.09509). Where all pictures are `frozen` (b,), only the decoder learns.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not bool(frozen.all())):
        mean, logvar = model.encode(x)                                      # (b,c,h/8,w/8) twice
        z = reparameterise(mean, logvar, eps.to(x.device))
        price = KL_WEIGHT * kl(mean, logvar)
    off = reconstruction_error(model.decode(z), x) + price
    half = F.avg_pool2d(x, 2)
    off_half = reconstruction_error(model.decode(F.avg_pool2d(z, 2)), half)
    return off.mean() / x[0].numel() + HALF_WEIGHT * off_half.mean() / half[0].numel()


def piece_corners(boxes_xyxy: Tensor, most: int, g: torch.Generator) -> Tensor:
    """Left and upper ends (n,2) of pieces, 0 to `most` pixels: three in four around a thing.

    boxes_xyxy (n,k,4), zeros where a picture has fewer things. Backgrounds are learnt soon; what
    takes long is small and would be met too seldom in pieces drawn anywhere.
    """
    n, things = len(boxes_xyxy), (boxes_xyxy[..., 2] > 0).sum(1)                    # (n,)
    chosen = (torch.rand(n, generator=g) * things).long().clamp(max=boxes_xyxy.shape[1] - 1)
    box = boxes_xyxy[torch.arange(n), chosen]                                       # (n,4)
    middle = (box[:, :2] + box[:, 2:]) / 2 + .1 * torch.randn(n, 2, generator=g)
    around = (middle * (most + CROP) - CROP / 2).clamp(0, most)                     # (n,2)
    anywhere = torch.rand(n, 2, generator=g) * most
    thing = (torch.rand(n, 1, generator=g) < .75) & (things > 0)[:, None]
    return torch.where(thing, around, anywhere).round().long()


