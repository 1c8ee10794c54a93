"""What lets gates learn from few pictures: a start apart, weights on the loss, a second loss.

The loss of the paper alone (eq. 9) finds out very late that a pixel's box says what it shows. Here
pixels are also taught to look at the token of their box, as TokenCompose teaches words (Wang et al.
2023, arXiv 2312.03626). In the last quarter of a training only the paper's loss is left.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..ddpm import q_sample
from ..gligen import GatedSelfAttentionDense, Grounding, transformer_blocks
from ..grounded import gate_looks
from ..schedule import Schedule, at
from ..unet import UNet
from .helpers import step_weight

SHARP = 2.                                    # how much louder queries and keys begin
INSIDE = 3.                                   # what a place in a box counts on top of 1
POINTING = .1                                 # what the second loss counts


def start_apart(unet: UNet) -> UNet:
    """Give what the gates add a start at which tokens of different things differ. In place.

    By default biases drown them: all tokens, empty ones too, look nearly alike. The gates stay
    shut, so the network still paints as it did.
    """
    for layer in unet.position_net.linears:
        if isinstance(layer, nn.Linear):
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
    edges = torch.arange(side + 1).to(grounding.boxes) / side
    low, high = grounding.boxes[..., None].split(2, dim=2)                  # (b,n,2,1)
    parts = (torch.minimum(edges[1:], high) - torch.maximum(edges[:-1], low)) * side
    x, y = parts.clamp(0, 1).unbind(2)                                      # (b,n,side) twice
    return y[..., :, None] * x[..., None, :] * grounding.masks[..., None, None]


def weighted_loss(unet: UNet, z0: Tensor, t: Tensor, eps: Tensor, context: Tensor,
                  grounding: Grounding, schedule: Schedule, strength: float = 1.) -> Tensor:
    """Eq. 9, where places in boxes count more, and so do steps at which a picture is undecided.

    The weights depend on nothing but t and the boxes, both of which the network is told, so the
    best guess stays the same; what changes is how soon it is found. A step's weight is
    `step_weight`, one on average; at strength 0 all weights are one and the loss is the paper's.
    """
    zt = q_sample(z0, t, eps, schedule)                                     # (b,4,h,w)
    error = (unet(zt, t, context, grounding) - eps).square()
    inside = covered(grounding, z0.shape[-1]).amax(1, keepdim=True)         # (b,1,h,w)
    every = step_weight(schedule.alpha_bar)                                 # (T,)
    step = at(every / every.mean(), t, error)                               # (b,1,1,1)
    weight = (1 + strength * (step - 1)) * (1 + strength * INSIDE * inside)
    return (weight * error).mean()


def pointing_loss(looks: list[Tensor], grounding: Grounding) -> Tensor:
    """Binary cross-entropy between where pixels look and whose box they lie in, a scalar.

    looks: for each gate how much each pixel looks at each slot, (b,n_pixels,n). A pixel in several
    boxes should share itself among them.
    """
    total = 0.
    for look in looks:
        wanted = covered(grounding, round(look.shape[1]**.5)).flatten(2).transpose(1, 2)
        wanted = wanted / wanted.sum(2, keepdim=True).clamp(min=1)          # (b,n_pixels,n)
        look = look.float().clamp(1e-6, 1 - 1e-6)
        miss = -(wanted * look.log() + (1 - wanted) * (1 - look).log()).sum((1, 2))
        total = total + (miss / (1 + wanted.sum((1, 2)))).mean()
    return total / len(looks)


@contextmanager
def looking(unet: UNet, slots: int, look: Callable = gate_looks) -> Iterator[list[Tensor]]:
    """Within this context, collect how much pixels look at the first slots, with gradients.

    The list gains one (b,n_pixels,slots) for each gate, the mean over its heads of what `look`
    says of a gate and its inputs.
    """
    looks: list[Tensor] = []

    def keep(gate, inputs, output):
        looks.append(look(gate, *inputs).mean(1)[..., :slots])

    hooks = [gate.register_forward_hook(keep) for gate in unet.modules()
             if isinstance(gate, GatedSelfAttentionDense)]
    try:
        yield looks
    finally:
        for hook in hooks:
            hook.remove()
