"""An edit with a slider for its strength: source, heat map of the mask, and the edited picture."""

import torch
from torch import Tensor

from .. import show
from ..diffedit import (
    check_texts,
    clean_latents,
    decode_masked,
    edit_mask,
    encode_levels,
    last_latent,
    query_map,
    rescaled,
    steps_at,
)
from ..guidance import classifier_free
from ..images import heat_over
from ..latent import TextToImage, check_steps, to_pictures
from .picture_sliders import PictureSliders, steps_of

RATIOS = (0., .2, .4, .6, .8, 1.)
THRESHOLDS = (.25, .5, .75)


def edit_slider(parts: TextToImage, x: Tensor, reference: str, query: str, steps: int = 15,
                noises: int = 6, seed: int = 0) -> "EditSlider":
    """Sliders for the strength and the threshold of an edit of one picture x (1,3,h,w).

    The map is found and the picture encoded once; each new pair of values is decoded once.
    Errors: those of `diffedit.edit_pictures`.
    """
    steps = check_steps(steps, parts.schedule)
    check_texts([reference], [query], len(x))
    z0 = clean_latents(parts, x)
    null = parts.context([""])
    maps = query_map(parts, z0, [reference], [query], seed, noises)
    levels = encode_levels(lambda zt, t: parts.unet(zt, t, null), z0, parts.schedule, steps, steps)
    return EditSlider(parts, x, query, maps, levels)


class EditSlider(PictureSliders):
    """A picture, where two texts disagree about it, and the edit at the sliders' values.

    `edited` (1,3,h,w) is the edit at their values. For scripts the whole carries the CSS class
    "edit-slider" and the edited picture "edit-picture".
    """

    told = "An edit with a slider for its strength"

    def __init__(self, parts: TextToImage, x: Tensor, query: str, maps: Tensor,
                 levels: list[Tensor]):
        self.parts, self.x, self.maps, self.levels = parts, x.cpu(), maps, levels
        self.model = classifier_free(parts.unet, parts.context([query]), parts.context([""]), 5.)
        self.made: dict[tuple[float, float], Tensor] = {}
        super().__init__({"strength": steps_of("strength", RATIOS, RATIOS[-2]),
                          "threshold": steps_of("threshold", THRESHOLDS, THRESHOLDS[1])}, 3,
                         "edit-slider")
        self.images[2].add_class("edit-picture")

    @property
    def edited(self) -> Tensor:
        """The edit at the sliders' values."""
        return self.edit(self.controls["strength"].value, self.controls["threshold"].value)

    @torch.no_grad()
    def edit(self, ratio: float, threshold: float) -> Tensor:
        """The edit (1,3,h,w) at a strength and a threshold, made once."""
        if (ratio, threshold) not in self.made:
            steps = len(self.levels) - 1
            levels = self.levels[:steps_at(ratio, steps) + 1]
            walk = decode_masked(self.model, levels, edit_mask(self.maps, threshold),
                                 self.parts.schedule, steps)
            z = last_latent(walk, levels[0])
            self.made[ratio, threshold] = to_pictures(self.parts.vae, z).cpu()
        return self.made[ratio, threshold]

    def heat(self) -> Tensor:
        """The source in grey, with the map in red."""
        return heat_over(self.x, rescaled(self.maps).cpu())

    def pictures(self) -> list[Tensor]:
        """Source, heat map and edit."""
        return [self.x, self.heat(), self.edited]

    def still(self) -> show.Picture:
        """Source, heat map, and the edit at every strength that was asked for."""
        done = sorted(ratio for ratio, threshold in self.made
                      if threshold == self.controls["threshold"].value)
        titles = ["source", "map", *(f"strength {ratio}" for ratio in done)]
        edits = [self.edit(ratio, self.controls["threshold"].value) for ratio in done]
        return show.strip(torch.cat([self.x, self.heat(), *edits]), titles, size=1.7)
