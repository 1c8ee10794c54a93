"""FlexIT (Couairon et al. 2022, arXiv 2203.04705): no diffusion, a latent moved by gradients.

Here with the course's one CLIP, the autoencoder's latent z (b,4,16,16), and lesson 3's
reconstruction error where the paper has LPIPS.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip import CLIP
from .latent import to_pictures
from .vae import VAE, reconstruction_error

IMAGE_WEIGHT, SOURCE_WEIGHT = .2, .4                      # lambda_I and lambda_S of section 3.1


def target_point(query: Tensor, source: Tensor, image: Tensor) -> Tensor:
    """Where the edited picture should lie in CLIP's space (section 3.1): (b,d).

    The query's vector, a part of the picture's own, less a part of the source
    caption's; each (b,d) of length one, the sum of any length.
    """
    query, source, image = (F.normalize(v, dim=-1) for v in (query, source, image))
    return query + IMAGE_WEIGHT * image - SOURCE_WEIGHT * source


def l_flexit(clip: CLIP, vae: VAE, z: Tensor, z0: Tensor, x0: Tensor, target: Tensor,
             distance_weight: float = .15, latent_weight: float = .05) -> Tensor:
    """How far latents are from the target, and from where they began (eq. 1): (b,).

    Minus the cosine-like product with the target, plus weighted distances to the source
    in pictures (a mean over all numbers) and in latents.
    """
    x = to_pictures(vae, z)                                     # (b,3,h,w)
    embedded = F.normalize(clip.encode_image(x), dim=-1)        # (b,d)
    moved = (z - z0).flatten(1).norm(dim=1) / z0.flatten(1).norm(dim=1)     # (b,)
    apart = reconstruction_error(x, x0) / x0[0].numel()         # (b,)
    return (-(embedded * target).sum(1) + distance_weight * apart
            + latent_weight * moved)


def flexit(clip: CLIP, vae: VAE, z0: Tensor, query: Tensor, source: Tensor,
           iterations: int = 160, rate: float = .05,
           **weights) -> Iterator[tuple[int, Tensor]]:
    """Move latents z0 (b,c,h,w) along normalised gradients of `l_flexit` (section 3.3).

    query and source (b,d) are CLIP's vectors of both texts. Each step is `rate` times
    as long as z0. Yields (i, z) after each.
    """
    with torch.no_grad():
        x0 = to_pictures(vae, z0)
        target = target_point(query, source, clip.encode_image(x0))
    z, length = z0, z0.flatten(1).norm(dim=1)                   # (b,)
    for i in range(iterations):
        with torch.enable_grad():
            moving = z.detach().requires_grad_()
            loss = l_flexit(clip, vae, moving, z0, x0, target, **weights).sum()
            gradient, = torch.autograd.grad(loss, moving)       # (b,c,h,w)
        size = rate * length / gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        z = z - size.view(-1, 1, 1, 1) * gradient
        yield i, z
