"""Grounded inpainting (GLIGEN, section 4.2 and appendix): paint inside boxes, keep the rest.

A mask (b,1,h,w) is 1 where the picture is kept and 0 where it is painted, of the size of what it
lies on: latents, or pixels.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import boxes as boxes_
from . import ddim, device
from .ddpm import q_sample
from .gligen import Grounding, add_gates, gate_names
from .grounded import check_inputs, gate_scales, grounded_eps
from .latent import TextToImage
from .schedule import Schedule
from .unet import UNet


def masks_from_boxes(boxes: list, side: int, round_outward: bool = False) -> Tensor:
    """Masks (b,1,side,side) of each picture's boxes (n,4) xyxy: 0 inside, else 1.

    Edges are cut down to whole cells, as in GLIGEN's code; on a coarse grid a strip of
    the thing is then not masked, at the right and below. `round_outward` masks every
    cell that a box touches.
    """
    masks = torch.ones(len(boxes), 1, side, side)
    for i, places in enumerate(boxes):
        corners = boxes_.check_boxes(places, f"Picture {i}: boxes") * side
        if round_outward:
            corners[:, 2:] = (corners[:, 2:] - 1e-4).ceil()   # despite float error
        corners = corners.int()
        for x0, y0, x1, y1 in corners.tolist():
            masks[i, :, y0:y1, x0:x1] = 0
    return masks


def expand_conv_in(unet: UNet) -> UNet:
    """Let the first layer read five more channels: the kept latent and the mask.

    In place. Their weights are zero: until these learn, no prediction changes.
    """
    old, cfg = unet.conv_in, unet.config
    if old.in_channels != cfg.get("out_channels", 4):
        raise ValueError(f"This U-Net already reads {old.in_channels} channels.")
    new = nn.Conv2d(2 * old.in_channels + 1, old.out_channels, 3, padding=1)
    new = new.to(old.weight)
    with torch.no_grad():
        new.weight.zero_()[:, :old.in_channels].copy_(old.weight)
        new.bias.copy_(old.bias)
    unet.conv_in, unet.config = new, cfg | {"in_channels": new.in_channels}
    return unet


def make_inpainting(unet: UNet) -> UNet:
    """A plain U-Net with all that grounded inpainting adds: five channels, then gates."""
    return add_gates(expand_conv_in(unet))


def inpainting_names(unet: UNet) -> list[str]:
    """What grounded inpainting adds and trains: the gates and the first layer's weight."""
    return [*gate_names(unet), "conv_in.weight"]


def concat_inpainting_inputs(unet: Callable, z0: Tensor, mask: Tensor) -> Callable:
    """A network that reads zt, the kept latent and the mask: [zt, z0 * mask, mask]."""
    known = torch.cat([z0 * mask, mask], dim=1)                 # (b,5,h,w)

    def shown(zt: Tensor, *rest) -> Tensor:
        copies = len(zt) // len(known)                          # guidance asks for two
        return unet(torch.cat([zt, known.repeat(copies, 1, 1, 1)], dim=1), *rest)

    return shown


def l_inpaint(unet: Callable, z0: Tensor, t: Tensor, eps: Tensor, context: Tensor,
              grounding: Grounding, mask: Tensor, schedule: Schedule) -> Tensor:
    """The loss of grounding with the kept latent and the mask shown (GLIGEN, eq. 9).

    The mean is over the whole picture, as in GLIGEN's code, though outside the hole the
    noise follows from what is shown.
    """
    zt = q_sample(z0, t, eps, schedule)                         # (b,4,16,16)
    eps_hat = concat_inpainting_inputs(unet, z0, mask)(zt, t, context, grounding)
    return F.mse_loss(eps_hat, eps)


def blend_known(zt: Tensor, z0: Tensor, mask: Tensor, t: Tensor, eps: Tensor,
                schedule: Schedule) -> Tensor:
    """Before a step: where mask is 1, zt becomes z0, noised to step t."""
    return q_sample(z0, t, eps, schedule) * mask + zt * (1 - mask)


def paste(generated: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """The painted picture inside, the given one outside, exactly: (b,3,h,w)."""
    return torch.where(mask > .5, x, generated)


def inpaint_grounded(parts: TextToImage, captions: list[str], grounding: Grounding,
                     z0: Tensor, mask: Tensor, seed: int = 0, steps: int = 30,
                     guidance_scale: float = 5., tau: float = 1., negative: str = "",
                     ) -> Iterator[tuple[int, Tensor]]:
    """Paint latents z0 (b,4,h,w) again where mask (b,1,h,w) is 0, as grounding says.

    Before each step what is kept is put back with fresh noise, as GLIGEN does, but not
    after the last step (`paste` does that, in the picture). All noise of picture i
    comes from seed + i. Yields (t, z) after each step.
    """
    check_inputs(parts.unet, captions, grounding, z0)
    check_latents(parts.unet, z0)
    check_mask(mask, z0)
    strength = gate_scales(parts.schedule, steps, tau)
    context = parts.context(captions)                           # (b,n,d)
    null_context = parts.context([negative]).expand_as(context)
    model = grounded_eps(parts.unet, context, null_context, grounding, guidance_scale,
                         strength, concat_inpainting_inputs(parts.unet, z0, mask))
    return inpaint_steps(model, z0, mask, parts.schedule, list(strength), seed)


def inpaint_steps(model: Callable, z0: Tensor, mask: Tensor, schedule: Schedule,
                  visited: list[int], seed: int) -> Iterator[tuple[int, Tensor]]:
    """The loop over the steps `visited`: put back what is kept, predict, step down."""
    sources = device.generators(seed, len(z0))
    zt, end = fresh_noise(z0, sources), float(schedule.alpha_bar[0])
    for step in visited:
        t = torch.full((len(zt),), step, device=zt.device)      # (b,)
        zt = blend_known(zt, z0, mask, t, fresh_noise(z0, sources), schedule)
        with torch.no_grad():
            eps_hat = model(zt, t)
        t_prev = t - schedule.T // len(visited)                 # (b,)
        zt = ddim.ddim_step(eps_hat, zt, t, t_prev, schedule, end=end)
        yield step, zt


def fresh_noise(like: Tensor, sources: list[torch.Generator]) -> Tensor:
    """Noise of the shape of `like`, each picture's from its own generator."""
    return device.noise_each(like.shape[1:], sources, like.device)


def check_latents(unet: UNet, z0: Tensor) -> None:
    """Refuse a network of four channels, and latents of another size (ValueError)."""
    c, side = unet.conv_out.out_channels, unet.config["sample_size"]
    if unet.conv_in.in_channels != 2 * c + 1:
        raise ValueError(f"This U-Net reads {unet.conv_in.in_channels} channels and is shown no "
                         "hole: load one for inpainting, weights.load('gligen-inpaint').")
    if z0.shape[1:] != (c, side, side):
        raise ValueError(f"z0 must be (b,{c},{side},{side}), latents of pictures of the size "
                         f"that the U-Net learnt on, got {tuple(z0.shape)}: resize the picture "
                         "before `to_latents`.")


def check_mask(mask: Tensor, like: Tensor) -> None:
    """Refuse a mask of another size, or one that is not of zeros and ones (ValueError).

    A warning names pictures whose mask is 1 everywhere: nothing of them is painted.
    """
    if mask.shape != (len(like), 1, *like.shape[2:]):
        raise ValueError(f"The mask must be {(len(like), 1, *like.shape[2:])}, as large as what it "
                         f"lies on, got {tuple(mask.shape)}.")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("A mask is 1 where the picture is kept and 0 where it is painted; this "
                         f"one holds values from {float(mask.min()):.7g} to "
                         f"{float(mask.max()):.7g}: round it, `(mask > .5).float()`.")
    whole = mask.flatten(1).all(1).nonzero().flatten().tolist()
    if whole:
        warnings.warn(f"The mask of picture {', '.join(map(str, whole))} is 1 everywhere, so "
                      "nothing is painted: a box narrower than a cell of the latent is lost; "
                      "masks_from_boxes(..., round_outward=True) covers it.", stacklevel=3)
