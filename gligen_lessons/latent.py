"""Latent diffusion (Rombach et al. 2022, arXiv 2112.10752): a small Stable Diffusion.

The autoencoder of lesson 3, the text tower of lesson 4 and the U-Net of lesson 1 meet here. z
(b,4,16,16) is a latent times the autoencoder's scaling factor, context (b,n,d) the states of a
caption's tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ddim, device
from .bpe import Tokenizer
from .clip import TextModel
from .ddpm import q_sample
from .guidance import classifier_free
from .nets import Attention, BasicTransformerBlock
from .reading import as_whole
from .schedule import Schedule
from .unet import UNet
from .vae import VAE, reparameterise

# Stable Diffusion's way down: steps 1, 1 + k, ..., and a last one that ends at alpha_bar[0]
STEPS_OFFSET = 1


def to_latents(vae: VAE, x: Tensor, eps: Tensor) -> Tensor:
    """Pictures (b,3,h,w) in [-1, 1] as latents (b,4,h/8,w/8), standard deviation one.

    eps, of the latent's shape, draws from what the encoder says (section 3.1).
    """
    mean, logvar = vae.encode(x)                                # (b,4,h/8,w/8) twice
    return vae.scaling_factor * reparameterise(mean, logvar, eps)


def to_pictures(vae: VAE, z: Tensor) -> Tensor:
    """Latents (b,4,h,w) as pictures (b,3,8h,8w), clipped to [-1, 1]."""
    return vae.decode(z / vae.scaling_factor).clamp(-1, 1)


def l_ldm(unet: Callable, z0: Tensor, t: Tensor, eps: Tensor, context: Tensor,
          schedule: Schedule) -> Tensor:
    """L_simple on latents, with the caption at hand (latent diffusion, eq. 3)."""
    zt = q_sample(z0, t, eps, schedule)                         # (b,4,16,16)
    return F.mse_loss(unet(zt, t, context), eps)


@dataclass
class TextToImage:
    """What turns a caption into a picture; `unet` learnt on latents of `vae`."""

    vae: VAE
    text: TextModel
    unet: UNet
    tokenizer: Tokenizer
    schedule: Schedule

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @torch.no_grad()
    def context(self, captions: list[str]) -> Tensor:
        """The states (b,n,d) of all tokens of some captions, "" for the empty one."""
        return self.text(self.tokenizer(captions).to(self.device))

    def first_noise(self, count: int, seed: int) -> Tensor:
        """The noise zT (count,4,h,w) that a seed means.

        Picture i has the noise of seed + i, whatever the count.
        """
        c, side = self.unet.conv_in.in_channels, self.unet.config["sample_size"]
        sources = device.generators(seed, count)
        return device.noise_each((c, side, side), sources, self.device)


def check_steps(steps: int, schedule: Schedule) -> int:
    """A number of sampling steps, 1..T-1 (ValueError), of any whole kind as Python's own.

    T steps are too many: Stable Diffusion's offset moves each one up, past the last.
    """
    count = as_whole(steps, "The number of steps")
    if not 1 <= count < schedule.T:
        raise ValueError(f"The number of steps must lie in 1..{schedule.T - 1}, got {steps}.")
    return count


def check_sampling(parts: TextToImage, captions: list[str], zT: Tensor, steps: int) -> int:
    """Refuse noise zT that is not (b,c,h,w) with b captions; return what `check_steps` does."""
    c = parts.unet.conv_in.in_channels
    if zT.ndim != 4 or zT.shape[:2] != (len(captions), c):
        raise ValueError(f"zT must be ({len(captions)},{c},h,w), a latent for each "
                         f"caption, got shape {tuple(zT.shape)}.")
    return check_steps(steps, parts.schedule)


def sample_latents(parts: TextToImage, captions: list[str], zT: Tensor, steps: int = 30,
                   guidance_scale: float = 5., negative: str = "",
                   eta: float = 0., generator: torch.Generator | None = None,
                   ) -> Iterator[tuple[int, Tensor]]:
    """Text to latents: DDIM with classifier-free guidance, as Stable Diffusion samples.

    zT (b,4,h,w) is noise, one for each of the b captions. Yields (t, z) after each
    step; `to_pictures` makes a picture of any z. `negative` is what guidance leads away
    from. Errors: ValueError for noise of another shape, or steps outside 1..T-1.
    """
    steps = check_sampling(parts, captions, zT, steps)
    context = parts.context(captions)                           # (b,n,d)
    null_context = parts.context([negative]).expand_as(context)
    model = classifier_free(parts.unet, context, null_context, guidance_scale)
    return ddim.sample(model, zT, parts.schedule, steps, eta, generator,
                       offset=STEPS_OFFSET, end=float(parts.schedule.alpha_bar[0]))


def generate(parts: TextToImage, captions: list[str], seed: int = 0,
             **options) -> Tensor:
    """Captions to pictures (b,3,h,w) in [-1, 1], on the CPU.

    Picture i starts from the noise of seed + i. Options are those of `sample_latents`.
    """
    zT = parts.first_noise(len(captions), seed)
    *_, (_, z0) = sample_latents(parts, captions, zT, **options)
    with torch.no_grad():
        return to_pictures(parts.vae, z0).cpu()


def cross_attentions(unet: nn.Module) -> dict[str, Attention]:
    """The layers of a U-Net, or of a part, in which pixels attend to words, by name."""
    return {f"{name}.attn2": block.attn2 for name, block in unet.named_modules()
            if isinstance(block, BasicTransformerBlock)}


def token_maps(maps: dict[str, list[Tensor]], side: int) -> Tensor:
    """One map a token, (b,n,side,side): the mean over layers of that size and calls.

    ValueError, which names the sizes there are, where no layer has side x side pixels.
    """
    found = [m for calls in maps.values() for m in calls if m.shape[1] == side * side]
    if not found:
        sizes = sorted({round(m.shape[1] ** .5)
                        for calls in maps.values() for m in calls})
        raise ValueError(f"No recorded layer has {side} x {side} pixels, only sides "
                         f"{sizes}.")
    return torch.stack(found).mean(0).transpose(1, 2).unflatten(2, (side, side))
