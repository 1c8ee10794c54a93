"""The methods that are measured, each from its lesson's parts, over its own strengths.

All diffusion methods share U-Net, decoder, guidance scale and, picture by picture, the noise; a
batch is encoded and masked once for all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ... import device
from ...clip import CLIP
from ...datasets.edits import EditCase
from ...diffedit import (
    clean_latents,
    decode_masked,
    edit_mask,
    encode_levels,
    last_latent,
    query_map,
    steps_at,
)
from ...eval.editing import repaint
from ...flexit import flexit
from ...guidance import classifier_free
from ...latent import TextToImage, to_pictures
from ...null_text import pivots
from ...prompt2prompt import make_control
from ...sdedit import decode, ilvr, noised_levels

RATIOS = (.2, .4, .6, .8, 1.)
FACTORS = (8, 4, 2)                                       # of ILVR's low-pass, weak edits last
CONTROLLED = (.8, .6, .4, .2, 0.)                         # of the steps, by Prompt-to-Prompt
ITERATIONS = (10, 20, 40, 80)                             # of FlexIT
GUIDANCE = 5.


@dataclass
class Batch:
    """Some edits on their way: latents, contexts, codes, noise, and masks once they are needed."""

    parts: TextToImage
    clip: CLIP
    some: list[EditCase]
    steps: int
    seed: int
    masks: dict[tuple, Tensor] = field(default_factory=dict)

    @cached_property
    def z0(self) -> Tensor:
        return clean_latents(self.parts, torch.stack([case.before for case in self.some]))

    @cached_property
    def eps(self) -> Tensor:
        sources = device.generators(self.seed, len(self.some))
        return device.noise_each(self.z0.shape[1:], sources, self.z0.device)

    @cached_property
    def null(self) -> Tensor:
        return self.parts.context([""]).expand(len(self.some), -1, -1)

    @cached_property
    def guided(self) -> Callable:
        context = self.parts.context([case.query for case in self.some])
        return classifier_free(self.parts.unet, context, self.null, GUIDANCE)

    @cached_property
    def encoded(self) -> list[Tensor]:
        """All levels, from the clean latent to its code without text."""
        return encode_levels(lambda zt, t: self.parts.unet(zt, t, self.null), self.z0,
                             self.parts.schedule, self.steps, self.steps)

    @cached_property
    def noised(self) -> list[Tensor]:
        return noised_levels(self.z0, self.eps, self.parts.schedule, self.steps, self.steps)

    def mask(self, reference: bool = True, threshold: float = .5, **options) -> Tensor:
        """Where the picture may change, (b,1,16,16): the source caption, or "", as reference."""
        key = (reference, *sorted(options.items()))
        if key not in self.masks:
            sources = [case.reference if reference else "" for case in self.some]
            self.masks[key] = query_map(self.parts, self.z0, sources,
                                        [case.query for case in self.some], self.seed, **options)
        return edit_mask(self.masks[key], threshold)

    def shown(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return to_pictures(self.parts.vae, z).cpu()

    def decoded(self, levels: list[Tensor], ratio: float, mask: Tensor | None = None) -> Tensor:
        """Pictures decoded from levels up to a ratio, with a mask or without."""
        levels = levels[:steps_at(ratio, self.steps) + 1]
        if mask is None:
            return self.shown(decode(self.guided, levels, self.parts.schedule, self.steps))
        walk = decode_masked(self.guided, levels, mask, self.parts.schedule, self.steps)
        return self.shown(last_latent(walk, levels[-1]))

    def filtered(self, factor: int) -> Tensor:
        """ILVR on latents."""
        return self.shown(last_latent(ilvr(self.guided, self.z0, self.eps, self.parts.schedule,
                                           self.steps, factor), self.z0))

    @cached_property
    def moved(self) -> list[Tensor]:
        """Latents after each iteration of FlexIT: gradients of CLIP's score on the latent."""
        with torch.no_grad():
            query, source = (self.clip.encode_text(self.parts.tokenizer(texts)) for texts in (
                [case.query for case in self.some], [case.reference for case in self.some]))
        walk = flexit(self.clip, self.parts.vae, self.z0, query, source, max(ITERATIONS))
        return [self.z0, *(z for _, z in walk)]


    @cached_property
    def code(self) -> Tensor:
        """The noise to which DDIM leads from the latents, with the source captions."""
        return pivots(self.parts, [case.reference for case in self.some], self.z0,
                      self.steps)[-1]

    def controlled(self, part: float) -> Tensor:
        """Prompt-to-Prompt: both attentions of the source for a part of the steps."""
        sources, queries = [case.reference for case in self.some], [c.query for c in self.some]
        control = make_control(self.parts, sources, queries, self.steps, cross=part, self_=part)
        _, z = repaint(self.parts, self.some, self.code, control, GUIDANCE).chunk(2)
        return self.shown(z)


# each method: its strengths, and what it makes of a batch at one of them
METHODS: dict[str, tuple[tuple, Callable[[Batch, float], Tensor]]] = {
    "DiffEdit": (RATIOS, lambda one, r: one.decoded(one.encoded, r, one.mask())),
    "DiffEdit, empty reference": (RATIOS, lambda one, r: one.decoded(
        one.encoded, r, one.mask(reference=False))),
    "DiffEdit without encoding": (RATIOS, lambda one, r: one.decoded(one.noised, r, one.mask())),
    "Encode-Decode": (RATIOS, lambda one, r: one.decoded(one.encoded, r)),
    "SDEdit": (RATIOS, lambda one, r: one.decoded(one.noised, r)),
    "ILVR": (FACTORS, lambda one, factor: one.filtered(factor)),
    "Prompt-to-Prompt": (CONTROLLED, lambda one, part: one.controlled(part)),
    "FlexIT": (ITERATIONS, lambda one, i: one.shown(one.moved[i])),
}
# at ratio 0 these decode nothing: they are the reconstruction
BY_RATIO = tuple(name for name, (strengths, _) in METHODS.items() if strengths is RATIOS)
# rows that no method can pass, or need not try
BOUNDS: dict[str, Callable[[Batch], Tensor]] = {
    "copy": lambda one: torch.stack([case.before for case in one.some]),
    "the answer": lambda one: torch.stack([case.after for case in one.some]),
    "reconstruction": lambda one: one.shown(one.z0),
    "reconstruction of the answer": lambda one: one.shown(clean_latents(
        one.parts, torch.stack([case.after for case in one.some]))),
}
