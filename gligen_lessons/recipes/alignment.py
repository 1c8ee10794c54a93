"""What lets gates learn from few pictures: first weights, a weighted loss, a second loss.

The loss of the paper alone (eq. 9) finds out very late that a pixel's box says what it shows. Here
pixels are also taught to attend to the token of their box, as TokenCompose teaches words (Wang et
al. 2023, arXiv 2312.03626). In the last quarter of a training only the paper's loss is left.
"""

import torch
from torch import Tensor, nn

from ..boxes import coverage
from ..ddpm import q_sample
from ..gligen import Grounding, transformer_blocks
from ..schedule import Schedule, extract
from ..unet import UNet
from .helpers import step_weight

SHARP = 2.                                    # how much louder queries and keys begin
INSIDE = 3.                                   # what a place in a box counts on top of 1
ALIGN = .1                                    # what the second loss counts


def initialise_gates(unet: UNet) -> UNet:
    """Give what the gates add a start at which tokens of different things differ. In place.

    By default biases drown them: all tokens, empty ones too, are nearly alike. The gates stay
    closed, so the network still paints as it did.
    """
    for name, layer in unet.position_net.named_modules():
        if name.startswith("linears") and isinstance(layer, nn.Linear):
            _orthogonal(layer, 3**.5)                         # SiLU halves a signal and more
    for block in transformer_blocks(unet):
        gate = block.fuser
        _orthogonal(gate.linear, 1.)
        with torch.no_grad():
            gate.attn.to_q.weight.mul_(SHARP)
            gate.attn.to_k.weight.mul_(SHARP)
    return unet


def _orthogonal(layer: nn.Linear, gain: float) -> None:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


def covered(grounding: Grounding, side: int) -> Tensor:
    """The part of each of side x side places that each used slot's box covers, (b,n,side,side)."""
    return coverage(grounding.boxes, side) * grounding.masks[..., None, None]


def weighted_loss(unet: UNet, z0: Tensor, t: Tensor, eps: Tensor, context: Tensor,
                  grounding, schedule: Schedule, strength: float = 1.,
                  places: Grounding | None = None) -> Tensor:
    """Eq. 9, where places in boxes count more, and so do steps at which a picture is undecided.

    The boxes are those of `places`, or of the grounding itself.

    The weights depend on nothing but t and the boxes, both of which the network is told, so the
    best prediction stays the same; what changes is how soon it is found. A step's weight is
    `step_weight`, one on average; at strength 0 all weights are one and the loss is the paper's.
    """
    zt = q_sample(z0, t, eps, schedule)                                     # (b,4,h,w)
    error = (unet(zt, t, context, grounding) - eps).square()
    boxes = covered(grounding if places is None else places, z0.shape[-1])  # (b,n,h,w)
    inside = boxes.amax(1, keepdim=True)                                    # (b,1,h,w)
    every = step_weight(schedule.alpha_bar)                                 # (T,)
    step = extract(every / every.mean(), t, error)                               # (b,1,1,1)
    weight = (1 + strength * (step - 1)) * (1 + strength * INSIDE * inside)
    return (weight * error).mean()


def box_alignment_loss(maps: list[Tensor], grounding: Grounding) -> Tensor:
    """Binary cross-entropy between what pixels attend to and whose box they lie in, a scalar.

    maps: for each gate how much each pixel attends to each slot, (b,n_pixels,n). A pixel in
    several boxes should share itself among them.
    """
    total = 0.
    for p in maps:
        wanted = covered(grounding, round(p.shape[1]**.5)).flatten(2).transpose(1, 2)
        wanted = wanted / wanted.sum(2, keepdim=True).clamp(min=1)          # (b,n_pixels,n)
        p = p.float().clamp(1e-6, 1 - 1e-6)
        miss = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum((1, 2))
        total = total + (miss / (1 + wanted.sum((1, 2)))).mean()
    return total / len(maps)
