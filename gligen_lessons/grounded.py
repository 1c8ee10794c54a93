"""Painting what boxes ask for: GLIGEN's scheduled sampling (arXiv 2301.07093, section 4.3)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from . import ddim
from .boxes import coverage
from .gligen import GatedSelfAttentionDense, Grounding, ground, transformer_blocks
from .guidance import check_scale, guide
from .latent import STEPS_OFFSET, TextToImage, check_steps, to_pictures, token_maps
from .nets import attention_map
from .schedule import Schedule
from .unet import UNet


def gate_schedule(steps: int, stages: tuple[float, float, float]) -> list[float]:
    """How far gates are open at each step: wide open, closing evenly, closed (eq. 10).

    `stages` are the parts of the steps that each takes; they sum to one. Scheduled
    sampling with tau is (tau, 0, 1 - tau). ValueError for other parts.
    """
    if min(stages) < 0 or abs(sum(stages) - 1) > 1e-6:
        raise ValueError("The three stages must be parts of the steps that sum to 1, "
                         f"got {stages}.")
    full = int(stages[0] * steps + 1e-6)
    closing = int(stages[1] * steps + 1e-6)
    fall = [1 - (i + 1) / closing for i in range(closing)]
    return [1.] * full + fall + [0.] * (steps - full - closing)


@contextmanager
def gate_scale(unet: UNet, strength: float) -> Iterator[None]:
    """Within this context all gates let `strength` times their answer in."""
    gates = [block.fuser for block in transformer_blocks(unet)]
    try:
        for gate in gates:
            gate.scale = strength
        yield
    finally:
        for gate in gates:
            gate.scale = 1.


def gate_scales(schedule: Schedule, steps: int, tau: float) -> dict[int, float]:
    """How far the gates are open at each step t that is visited: tau of eq. 10."""
    steps = check_steps(steps, schedule)
    if not 0 <= tau <= 1:
        raise ValueError("tau must lie in 0..1, the part of steps that is grounded; "
                         f"got {tau}.")
    visited = ddim.timesteps(schedule.T, steps, offset=STEPS_OFFSET)
    return dict(zip(visited, gate_schedule(steps, (tau, 0., 1 - tau)), strict=True))


def grounded_eps(unet: UNet, context: Tensor, null_context: Tensor,
                 grounding: Grounding, guidance_scale: float,
                 strength: dict[int, float],
                 through: Callable | None = None) -> Callable:
    """A function eps_hat = f(xt, t), guided by caption and grounding at once.

    `strength` says for each step how far the gates are open. Guidance leads away
    from the prediction with the null caption and no grounding. `through`,
    called with (xt, t, context, grounding) in the network's place, may show it more.
    """
    check_scale(guidance_scale)
    call = through or unet
    contexts = torch.cat([null_context, context])               # (2b,n,d)
    groundings = grounding.none().beside(grounding)

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        beta = strength[int(t[0])]
        with gate_scale(unet, beta):
            if guidance_scale == 1:
                return call(xt, t, context, grounding if beta else None)
            eps_hat = call(torch.cat([xt, xt]), torch.cat([t, t]), contexts,
                           groundings if beta else None)
        return guide(*eps_hat.chunk(2), guidance_scale)         # (b,c,h,w)

    return guided


def sample_grounded(parts: TextToImage, captions: list[str], grounding: Grounding,
                    zT: Tensor, steps: int = 30, guidance_scale: float = 5.,
                    tau: float = 1., negative: str = "",
                    ) -> Iterator[tuple[int, Tensor]]:
    """Caption and boxes to latents: `sample_latents`, gates open in the first steps.

    tau in 0..1 is the part of the steps in which grounding is used (paper, eq. 10).
    Yields (t, z) after each step. Errors as in `sample_latents`, and ValueError for
    another tau.
    """
    check_inputs(parts.unet, captions, grounding, zT)
    strength = gate_scales(parts.schedule, steps, tau)
    context = parts.context(captions)                           # (b,n,d)
    null_context = parts.context([negative]).expand_as(context)
    model = grounded_eps(parts.unet, context, null_context, grounding,
                         guidance_scale, strength)
    return ddim.sample(model, zT, parts.schedule, len(strength), offset=STEPS_OFFSET,
                       end=float(parts.schedule.alpha_bar[0]))


def check_inputs(unet: UNet, captions: list[str], grounding: Grounding, z: Tensor) -> None:
    """Refuse weights without gates, and batches that do not fit together (ValueError)."""
    if unet.position_net is None:
        raise ValueError("These weights have no gates: load grounded ones, "
                         "weights.load('gligen').")
    pictures = len(next(iter(vars(grounding).values())))
    if not len(captions) == pictures == len(z):
        raise ValueError(f"{len(captions)} captions, groundings for {pictures} "
                         f"pictures and latents for {len(z)}: all must be one number.")


def generate_grounded(parts: TextToImage, captions: list[str], phrases: list[list[str]],
                      boxes: list, seed: int = 0, **options) -> Tensor:
    """Captions with boxes to pictures (b,3,h,w) in [-1, 1], on the CPU.

    Picture i starts from the noise of seed + i; see `sample_grounded` for options.
    """
    return generate_from(parts, captions, ground(parts, phrases, boxes), seed, **options)


def generate_from(parts: TextToImage, captions: list[str], grounding, seed: int = 0,
                  **options) -> Tensor:
    """Captions with grounding of any form, key points or pictures too: (b,3,h,w) on the CPU."""
    zT = parts.first_noise(len(captions), seed)
    *_, (_, z0) = sample_grounded(parts, captions, grounding, zT, **options)
    with torch.no_grad():
        return to_pictures(parts.vae, z0).cpu()


def gate_attention(gate: GatedSelfAttentionDense, x: Tensor, objs: Tensor) -> Tensor:
    """How much each pixel attends to each grounding token, (b,k,n_pixels,n).

    A pixel spreads a whole over all pixels and tokens (eq. 8); this is the tokens' part
    of it, so rows sum to less than one. x (b,n_pixels,d), objs (b,n,d_objs); k heads.
    """
    both = gate.norm1(torch.cat([x, gate.linear(objs)], dim=1))
    maps = attention_map(gate.attn, both)           # (b,k,n_pixels+n,n_pixels+n)
    return maps[:, :, :x.shape[1], x.shape[1]:]


def gates(unet: UNet) -> dict[str, GatedSelfAttentionDense]:
    """The gates of a U-Net, by name. Steps without grounding call none of them."""
    return {name: gate for name, gate in unet.named_modules()
            if isinstance(gate, GatedSelfAttentionDense)}


def entity_maps(maps: dict[str, list[Tensor]], grounding: Grounding,
                side: int) -> Tensor:
    """One map a slot, (b,n,side,side): the mean over gates of that size and calls.

    Of calls that guidance doubled only the half with grounding counts; slots that are
    not used are zero. ValueError where no gate has side x side pixels.
    """
    requested = {name: [m[-len(grounding.masks):] for m in calls]
                 for name, calls in maps.items()}
    return token_maps(requested, side) * grounding.masks.cpu()[..., None, None]


def attention_concentration(maps: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """How much more the pixels in a slot's box attend to it than all pixels do, (b,n).

    The mean of a map (b,n,side,side) inside its box, by the part of each pixel that the
    box covers, over its mean everywhere. 1: the box is not noticed; 1 over its area is
    the most. 0 where a map is all zero.
    """
    inside = coverage(boxes_xyxy.to(maps), maps.shape[-1])          # (b,n,side,side)
    weight = inside / inside.sum((2, 3), keepdim=True).clamp(min=1e-9)
    return (maps * weight).sum((2, 3)) / maps.mean((2, 3)).clamp(min=1e-9)
