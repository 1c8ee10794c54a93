"""Prompt-to-Prompt with a slider: for the share of steps under control, or a word's weight."""

import torch
from torch import Tensor

from .. import show
from ..latent import TextToImage
from ..prompt2prompt import edit_prompts
from .picture_sliders import PictureSliders, steps_of

SHARES = (0., .25, .5, .75, 1.)                           # of the steps, with the base's attention
WEIGHTS = (-2., 0., 1., 2., 4.)                           # of a word


def prompt_slider(parts: TextToImage, base: str, edit: str, seed: int = 0, steps: int = 15,
                  word: str | None = None, values: tuple[float, ...] = (),
                  guidance_scale: float = 5.) -> "PromptSlider":
    """A slider over edits of one caption, each painted once, beforehand, from one noise.

    It moves the share of the steps with the base's cross-attention, self-attention being the
    edit's own; with a `word` of the edited caption its weight, cross-attention being the base's in
    all steps. Errors: those of `prompt2prompt.edit_prompts`.
    """
    values = values or (WEIGHTS if word else SHARES)
    frames = {}
    for value in values:
        options = ({"cross": 1., "scales": {word: value}} if word
                   else {"cross": value, "self_": 0.})
        before, frames[value] = edit_prompts(parts, [base], [edit], seed, guidance_scale,
                                             steps=steps, **options)
    return PromptSlider(before, frames, f"weight of {word}" if word else "cross")


class PromptSlider(PictureSliders):
    """The base's picture `before` (1,3,h,w), and the edit at the slider's value.

    `frames` are the edits by value, `edited` that at the slider's. For scripts the whole carries
    the CSS class "prompt-slider" and the edited picture "prompt-picture".
    """

    told = "An edited caption with a slider for its attention"

    def __init__(self, before: Tensor, frames: dict[float, Tensor], what: str):
        self.before, self.frames, self.what = before, frames, what
        values = tuple(frames)
        middle = values[len(values) // 2]
        super().__init__({what: steps_of(what, values, middle)}, 2, "prompt-slider")
        self.images[1].add_class("prompt-picture")

    @property
    def edited(self) -> Tensor:
        """The edit at the slider's value."""
        return self.frames[self.controls[self.what].value]

    def pictures(self) -> list[Tensor]:
        """Base and edit."""
        return [self.before, self.edited]

    def still(self) -> show.Picture:
        """The base, and the edit at every value."""
        return show.strip(torch.cat([self.before, *self.frames.values()]),
                          ["base", *(f"{self.what} {value:g}" for value in self.frames)], size=1.5)
