"""GLIGEN: grounded text to image (Li et al. 2023, arXiv 2301.07093).

Keys, names and arithmetic of diffusers' UNet2DConditionModel(attention_type="gated"). A picture has
n slots for grounded things: boxes (b,n,4) xyxy, normalised, masks (b,n), 1 where a slot
is used, features (b,n,d) of their phrases.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import boxes as boxes_
from .clip import pool
from .ddpm import q_sample
from .latent import TextToImage
from .nets import Attention, BasicTransformerBlock, FeedForward
from .schedule import Schedule
from .unet import UNet

FREQUENCIES, TEMPERATURE = 8, 100                               # of the Fourier embedding
HIDDEN = 512                                                    # width inside the position net
LIMIT = 30                                                      # things in a picture


@dataclass(frozen=True)
class Grounding:
    """What is where in a batch: boxes (b,n,4), masks (b,n), features (b,n,d)."""

    boxes: Tensor
    masks: Tensor
    features: Tensor

    def none(self) -> "Grounding":
        """The same slots, all unused: what guidance leads away from."""
        return replace(self, masks=torch.zeros_like(self.masks))

    def each(self, change: Callable) -> "Grounding":
        """All tensors, changed alike: rows chosen, another device."""
        return replace(self, **{name: change(x) for name, x in vars(self).items()})

    def beside(self, other: "Grounding") -> "Grounding":
        """The pictures of both, one batch after the other."""
        return replace(self, **{name: torch.cat([x, getattr(other, name)])
                                for name, x in vars(self).items()})


def fourier(boxes: Tensor) -> Tensor:
    """Coordinates as sinusoids of rising frequency, (b,n,4) to (b,n,64) (paper, eq. 5).

    Frequencies 100^(k/8), without pi; for each one the four sines, then the cosines.
    """
    rates = TEMPERATURE ** (torch.arange(FREQUENCIES) / FREQUENCIES)    # (8,)
    angles = boxes[..., None] * rates.to(boxes)                 # (b,n,4,8)
    sinusoids = torch.stack([angles.sin(), angles.cos()], dim=-1)   # (b,n,4,8,2)
    return sinusoids.permute(0, 1, 3, 4, 2).flatten(2)              # (b,n,8*2*4)


class PositionNet(nn.Module):
    """A grounding token for each thing: h = MLP(feature, Fourier(box)) (paper, eq. 5).

    Where a slot is unused, learned null features stand in for both; the token is there
    all the same, and attention sees it.
    """

    def __init__(self, d_feature: int, d_objs: int):
        super().__init__()
        d_box = 2 * 4 * FREQUENCIES
        self.linears = nn.Sequential(
            nn.Linear(d_feature + d_box, HIDDEN), nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, d_objs))
        self.null_positive_feature = nn.Parameter(torch.zeros(d_feature))
        self.null_position_feature = nn.Parameter(torch.zeros(d_box))

    def forward(self, boxes: Tensor, masks: Tensor, features: Tensor) -> Tensor:
        used = masks[..., None]                                 # (b,n,1)
        features = used * features + (1 - used) * self.null_positive_feature
        places = used * fourier(boxes) + (1 - used) * self.null_position_feature
        return self.linears(torch.cat([features, places], dim=-1))  # (b,n,d_objs)


class GatedSelfAttentionDense(nn.Module):
    """Pixels attend to pixels and grounding tokens; a gate scales the answer (eq. 8).

    Both gates begin at zero: then this returns x. `scale` is the beta of eqs. 8 and 10.
    """

    def __init__(self, d: int, heads: int, d_objs: int):
        super().__init__()
        self.linear = nn.Linear(d_objs, d)
        self.attn, self.ff = Attention(d, heads), FeedForward(d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.alpha_attn = nn.Parameter(torch.tensor(0.))
        self.alpha_dense = nn.Parameter(torch.tensor(0.))
        self.scale = 1.

    def forward(self, x: Tensor, objs: Tensor) -> Tensor:
        both = torch.cat([x, self.linear(objs)], dim=1)         # (b,n_pixels+n,d)
        seen = self.attn(self.norm1(both))[:, :x.shape[1]]    # the pixels' tokens
        x = x + self.scale * self.alpha_attn.tanh() * seen
        return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def transformer_blocks(unet: UNet) -> list[BasicTransformerBlock]:
    """All blocks of a U-Net that have a slot for a gate."""
    return [m for m in unet.modules() if isinstance(m, BasicTransformerBlock)]


def add_gates(unet: UNet, position_net: nn.Module | None = None) -> UNet:
    """Fill a U-Net's empty slots in place: a gate in each block, a position net.

    Without one, it is that of phrases and boxes; it is called with a grounding's
    fields by name. Until something is learnt the network paints exactly what it
    painted before. ValueError where the network has no block for a gate.
    """
    d, where = unet.context_width, unet.conv_in.weight
    if d is None:
        raise ValueError("This U-Net has no CrossAttn blocks, so there is nowhere to "
                         "put a gate.")
    for block in transformer_blocks(unet):
        attention = block.attn1
        block.fuser = GatedSelfAttentionDense(
            attention.to_q.in_features, attention.heads, d).to(where)
    unet.position_net = (position_net or PositionNet(d, d)).to(where)
    return unet


def gate_names(unet: UNet) -> list[str]:
    """The names of all that GLIGEN adds and trains; everything else stays frozen."""
    return [name for name, _ in unet.named_parameters()
            if ".fuser." in name or name.startswith("position_net.")]


def freeze(unet: UNet) -> UNet:
    """Let gates and position net learn, and nothing else (paper, section 4).

    ValueError where the network has no gates.
    """
    learn = set(gate_names(unet))
    if not learn:
        raise ValueError("This U-Net has no gates: call add_gates first, or load "
                         "grounded weights.")
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name in learn)
    return unet


def drop_conditions(caption: Tensor, phrases: Tensor, empty: Tensor, p_caption: float,
                    p_grounding: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Drop some captions of a batch and, on their own, some groundings, for guidance.

    caption (b,n) are ids, `empty` (n,) those of the empty one; phrases (b,k) number a
    table's rows, -1 in a free slot. A picture that loses its grounding loses all of it
    (GLIGEN: 10 % each; its code drops half of the captions, and the
    groundings of a whole batch at once).
    """
    no_caption = torch.rand(len(caption), generator=g) < p_caption      # (b,)
    no_grounding = torch.rand(len(phrases), generator=g) < p_grounding
    return (torch.where(no_caption[:, None], empty, caption),
            torch.where(no_grounding[:, None], -1, phrases))


def l_grounding(unet: UNet, z0: Tensor, t: Tensor, eps: Tensor, context: Tensor,
                grounding: Grounding, schedule: Schedule) -> Tensor:
    """The loss of latent diffusion with grounding at hand (paper, eq. 9)."""
    zt = q_sample(z0, t, eps, schedule)                         # (b,4,16,16)
    return F.mse_loss(unet(zt, t, context, grounding), eps)


@torch.no_grad()
def ground(parts: TextToImage, phrases: list[list[str]], boxes: list,
           limit: int = LIMIT) -> Grounding:
    """Phrases and boxes (xyxy in 0..1) of each picture as a Grounding of `limit` slots.

    A phrase's feature is the text tower's state of its end token, after the last norm.
    ValueError names the picture whose phrases and boxes do not fit; what goes beyond
    the limit is dropped with a warning that says which.
    """
    if len(phrases) != len(boxes):
        raise ValueError(f"{len(phrases)} lists of phrases and {len(boxes)} of boxes: "
                         "give one of each for every picture.")
    d, b = parts.unet.context_width, len(phrases)
    made = Grounding(torch.zeros(b, limit, 4), torch.zeros(b, limit),
                     torch.zeros(b, limit, d))
    for i, (words, places) in enumerate(zip(phrases, boxes, strict=True)):
        words, places = checked(words, places, i, limit)
        if words:
            made.boxes[i, :len(words)] = places
            made.masks[i, :len(words)] = 1
            made.features[i, :len(words)] = phrase_features(parts, words).cpu()
    return made.each(lambda x: x.to(parts.device))


def phrase_features(parts: TextToImage, phrases: list[str]) -> Tensor:
    """What the text tower says of each phrase alone, (m,d)."""
    ids = parts.tokenizer(phrases).to(parts.device)
    return pool(parts.text(ids), ids, parts.text.eos)


def checked(words: list[str], places, i: int, limit: int) -> tuple[list[str], Tensor]:
    """Picture i's phrases and boxes, no more than `limit`, or one sentence on a fault."""
    places = torch.as_tensor(places, dtype=torch.float32)
    places = boxes_.check_boxes(places if places.numel() else places.reshape(0, 4),
                                f"Picture {i}: boxes")
    if len(words) != len(places):
        raise ValueError(f"Picture {i} has {len(words)} phrases and {len(places)} boxes: each box "
                         "needs one phrase.")
    empty = [n for n, word in enumerate(words) if not word.strip()]
    if empty:
        raise ValueError(f"Picture {i}: phrase {empty[0]} is empty; say what its box should hold.")
    if len(words) > limit:
        warnings.warn(f"Picture {i} has {len(words)} boxes, only {limit} fit; dropped: "
                      f"{', '.join(words[limit:])}.", stacklevel=3)
    return list(words[:limit]), places[:limit]
