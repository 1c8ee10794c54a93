"""Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626): edit the caption, keep the picture.

Two captions are painted side by side from one noise, the base and the edited one, and the edited
one's attention maps are taken from the base. b pairs of captions make 2b latents, the bases first.
Maps are (b,k,n_pixels,n): k heads, n tokens of a caption (cross-attention) or pixels (self).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ddim
from .guidance import classifier_free
from .latent import (
    STEPS_OFFSET,
    TextToImage,
    check_sampling,
    check_steps,
    cross_attentions,
    to_pictures,
    token_maps,
)
from .nets import (
    Attention,
    BasicTransformerBlock,
    attention_map,
    head_mean,
    record_attention,
    replace_attention,
)
from .prompt_alignment import Fraction, find, mappers, step_window, word_schedule, word_tokens


def inject(base: Tensor, edited: Tensor, mapper: Tensor) -> Tensor:
    """The edited caption's maps, taken from the base where it has them (section 3.2).

    base, edited (b,k,n_pixels,n), mapper (b,n,n). A token whose column is 0 is new and
    keeps its own map. Rows are not normalised again.
    """
    new = (mapper.sum(1) == 0)[:, None, None]                   # (b,1,1,n)
    return torch.where(new, edited, base @ mapper[:, None])     # (b,k,n_pixels,n)


def reweight(attention: Tensor, scale: Tensor) -> Tensor:
    """Each token's map times its scale (b,n), 1 to leave it. Nothing is normalised."""
    return attention * scale[:, None, None]                     # (b,k,n_pixels,n)


@dataclass
class Control:
    """What the edited captions' attention becomes, step by step.

    mapper (b,n,n); scale (b,n); table (b,steps+1,n), 1 where a token is controlled;
    self-attention is the base's in the first `self_steps` steps in layers of at most
    `self_side` x `self_side` pixels.
    """

    mapper: Tensor
    scale: Tensor
    table: Tensor
    self_steps: int
    self_side: int

    def __call__(self, i: int, name: str, attention: Tensor) -> Tensor | None:
        """The edited captions' maps in step i, or None where they stay their own.

        The last 2b rows are the bases' and the edited captions'; those before, without
        a caption, are left alone.
        """
        base, edited = attention[-2 * len(self.mapper):].chunk(2)   # (b,k,n_pixels,n)
        if name.endswith("attn1"):
            few = base.shape[2] <= self.self_side ** 2
            return base if i < self.self_steps and few else None
        on = self.table[:, i, None, None] > 0                       # (b,1,1,n)
        taken = reweight(inject(base, edited, self.mapper), self.scale)
        return torch.where(on, taken, edited) if bool(on.any()) else None


def attentions(unet: nn.Module) -> dict[str, Attention]:
    """The layers in which pixels attend to pixels (attn1) and to words (attn2), by name."""
    return {f"{name}.{part}": getattr(block, part) for name, block in unet.named_modules()
            if isinstance(block, BasicTransformerBlock) for part in ("attn1", "attn2")}


def make_control(parts: TextToImage, bases: list[str], edits: list[str],
                 steps: int = 30, cross: Fraction | dict[str, Fraction] = .8,
                 self_: float = .4, scales: dict[str, float] | None = None,
                 mapper: Tensor | None = None, self_side: int = 8) -> Control:
    """The control of b pairs of captions, each edited by the same schedule.

    `cross` is read by `word_schedule`, `self_` is the part of the steps with the base's
    self-attention, `scales` re-weights words of the edited captions, and `mapper`
    (b,n,n) is that of `mappers` where none is given. ValueError for what these refuse.
    """
    steps = check_steps(steps, parts.schedule)
    made = mappers(parts.tokenizer, bases, edits) if mapper is None else mapper
    words = [word_tokens(parts.tokenizer, text) for text in edits]
    scale = torch.ones(made.shape[:2])
    for word, value in (scales or {}).items():
        for row, known in zip(scale, words, strict=True):
            row[find(known, word)] = value
    table = torch.stack([word_schedule(steps, cross, known, scale.shape[1])
                         for known in words])
    made, scale, table = (x.to(parts.device) for x in (made, scale, table))
    return Control(made, scale, table, step_window(self_, steps)[1], self_side)


def blend_mask(maps: Tensor, words: Tensor, size: int, threshold: float = .3) -> Tensor:
    """Where the words of the base or of the edited caption live: (b,1,size,size) bool.

    maps (2b,n,h,w), the bases' first, summed over the steps so far; words (2b,n) of 0
    and 1. Each picture's map, widened by a pixel, is held against its largest value.
    """
    heat = (maps * words[..., None, None]).sum(1, keepdim=True)     # (2b,1,h,w)
    heat = F.max_pool2d(heat, 3, stride=1, padding=1)
    heat = F.interpolate(heat, size=(size, size))                   # nearest
    inside = heat > threshold * heat.amax((2, 3), keepdim=True)
    return torch.logical_or(*inside.chunk(2))


def blend(zt: Tensor, inside: Tensor) -> Tensor:
    """Latents (2b,4,h,w) whose edited half is the base's where `inside` is False."""
    base, edited = zt.chunk(2)
    return torch.cat([base, torch.where(inside, edited, base)])


@dataclass
class Blend:
    """A local blend: where some words live, seen in layers of `side` x `side` pixels.

    words (2b,n) is 1 at their tokens, the base captions' first; it begins after the part
    `start` of the steps. The paper's code has a threshold of .3; our small network's maps
    are flatter.
    """

    words: Tensor
    start: float = .2
    side: int = 16
    threshold: float = .5

    @classmethod
    def of(cls, parts: TextToImage, captions: list[str], words: list[str], **options):
        """The blend around some words, one string for each of the captions (2b)."""
        tokens = torch.zeros(len(captions), parts.tokenizer.length)
        for row, caption, chosen in zip(tokens, captions, words, strict=True):
            row[find(word_tokens(parts.tokenizer, caption), chosen)] = 1
        return cls(tokens, **options)


def edit_latents(parts: TextToImage, bases: list[str], edits: list[str], zT: Tensor,
                 control: Control, guidance_scale: float = 5.,
                 local: Blend | None = None, nulls: Tensor | None = None,
                 ) -> Iterator[tuple[int, Tensor]]:
    """Paint b pairs of captions from zT (b,4,h,w), the edited ones under control.

    Yields (t, z) after each step, z (2b,4,h,w), the bases first, which are painted as
    without control. `nulls` (steps,b,n,d) are the states that guidance leads away from,
    step by step, else the empty caption's. Errors as in `sample_latents`.
    """
    steps = control.table.shape[1] - 1
    check_sampling(parts, edits, zT, steps)
    context = parts.context([*bases, *edits])                   # (2b,n,d)
    if nulls is None:
        nulls = parts.context([""]).expand(steps, len(bases), -1, -1)
    models = [classifier_free(parts.unet, context, torch.cat([null, null]),
                              guidance_scale) for null in nulls]
    return edit_steps(parts, models, torch.cat([zT, zT]), control, local)


def edit_steps(parts: TextToImage, models: list[Callable], zt: Tensor, control: Control,
               local: Blend | None = None) -> Iterator[tuple[int, Tensor]]:
    """The loop: each step's model under control, a step of DDIM, the local blend.

    zt (2b,4,h,w), the bases first; yields (t, z) after each step.
    """
    schedule, steps = parts.schedule, len(models)
    end, seen = float(schedule.alpha_bar[0]), 0.
    watched = cross_attentions(parts.unet) if local else {}
    for i, step in enumerate(ddim.timesteps(schedule.T, steps, offset=STEPS_OFFSET)):
        t = torch.full((len(zt),), step, device=zt.device)      # (2b,)
        look = head_mean(attention_map)
        with (torch.no_grad(), record_attention(watched, look) as maps,
              replace_attention(attentions(parts.unet), partial(control, i))):
            eps_hat = models[i](zt, t)
        zt = ddim.ddim_step(eps_hat, zt, t, t - schedule.T // steps, schedule, end=end)
        if local:
            seen = seen + token_maps(maps, local.side)[-len(zt):]   # (2b,n,side,side)
        if local and i >= int(local.start * steps):
            inside = blend_mask(seen, local.words, zt.shape[-1], local.threshold)
            zt = blend(zt, inside.to(zt.device))
        yield step, zt


def edit_prompts(parts: TextToImage, bases: list[str], edits: list[str], seed: int = 0,
                 guidance_scale: float = 5., local: list[str] | None = None,
                 **options) -> tuple[Tensor, Tensor]:
    """Pairs of captions to pictures before and after, (b,3,h,w) in [-1, 1], on the CPU.

    Pair i starts from the noise of seed + i. `local` names the words of the local
    blend, a string for each base caption, then for each edited one; other options are
    those of `make_control`.
    """
    control = make_control(parts, bases, edits, **options)
    around = Blend.of(parts, [*bases, *edits], local) if local else None
    zT = parts.first_noise(len(bases), seed)
    *_, (_, z0) = edit_latents(parts, bases, edits, zT, control, guidance_scale, around)
    with torch.no_grad():
        return to_pictures(parts.vae, z0).cpu().chunk(2)
