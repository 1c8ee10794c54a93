"""The picture of Prompt-to-Prompt: one word changed, without and with the base's attention."""

import torch

from gligen_lessons import show, weights
from gligen_lessons.prompt2prompt import edit_prompts

BASES = ["a red car on the grass by day", "a yellow house by the water at sunset",
         "a green tree on the snow by day"]
EDITS = ["a blue car on the grass by day", "a purple house by the water at sunset",
         "a red tree on the snow by day"]
TITLES = ["a red car", "a yellow house", "a green tree",
          "a blue car, same noise", "a purple house", "a red tree",
          "a blue car, same attention", "a purple house", "a red tree"]


def edited_prompts() -> show.Picture:
    """Three captions; a word changed from the same noise; and with the first ones' attention."""
    parts = weights.text_to_image()
    before, alone = edit_prompts(parts, BASES, EDITS, 3, cross=0., self_=0.)
    _, after = edit_prompts(parts, BASES, EDITS, 3)
    return show.grid(torch.cat([before, alone, after]), 3, TITLES, size=1.8, palette=256)
