"""An edit with a slider for its strength: source, heat map of the mask, and the edited picture."""

import base64

import ipywidgets
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
from ..images import heat_over, png, to_shown
from ..latent import TextToImage, check_steps, to_pictures

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


class EditSlider(ipywidgets.VBox):
    """A picture, where two texts disagree about it, and the edit at the sliders' values.

    `controls` are the sliders by name, `edited` (1,3,h,w) the edit at their values. For scripts
    the whole carries the CSS class "edit-slider" and the edited picture "edit-picture".
    """

    def __init__(self, parts: TextToImage, x: Tensor, query: str, maps: Tensor,
                 levels: list[Tensor]):
        self.parts, self.x, self.maps, self.levels = parts, x.cpu(), maps, levels
        self.model = classifier_free(parts.unet, parts.context([query]), parts.context([""]), 5.)
        self.made: dict[tuple[float, float], Tensor] = {}
        self.controls = {
            "strength": ipywidgets.SelectionSlider(description="strength", options=RATIOS,
                                                   value=RATIOS[-2], continuous_update=False),
            "threshold": ipywidgets.SelectionSlider(description="threshold", options=THRESHOLDS,
                                                    value=THRESHOLDS[1], continuous_update=False)}
        self.images = [ipywidgets.Image(format="png", width=256, height=256) for _ in range(3)]
        self.images[2].add_class("edit-picture")
        super().__init__([ipywidgets.HBox(self.images), *self.controls.values()])
        self.add_class("edit-slider")
        for slider in self.controls.values():
            slider.observe(lambda change: self.redraw(), "value")
        self.redraw()

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

    def redraw(self) -> None:
        """Show source, heat map and edit at the sliders' values."""
        for widget, picture in zip(self.images, (self.x, self.heat(), self.edited), strict=True):
            widget.value = png((to_shown(picture)[0] * 255).round().byte().numpy())

    def still(self) -> show.Picture:
        """Source, heat map, and the edit at every strength that was asked for."""
        done = sorted(ratio for ratio, threshold in self.made
                      if threshold == self.controls["threshold"].value)
        titles = ["source", "map", *(f"strength {ratio}" for ratio in done)]
        edits = [self.edit(ratio, self.controls["threshold"].value) for ratio in done]
        return show.strip(torch.cat([self.x, self.heat(), *edits]), titles, size=1.7)

    def _repr_mimebundle_(self, **named):
        """The live sliders, and for pages without them a strip of what they did."""
        still = base64.b64encode(self.still()._repr_png_()).decode()
        return super()._repr_mimebundle_(**named) | {
            "text/plain": "An edit with a slider for its strength (it moves where a kernel runs).",
            "image/png": still}
