"""What sliders over a row of pictures share: redrawing, and a still for pages without a kernel."""

import base64

import ipywidgets
from torch import Tensor

from .. import show
from ..images import png, to_shown


def steps_of(description: str, options: tuple, value) -> ipywidgets.SelectionSlider:
    """A slider over a few values, which redraws when it is let go."""
    return ipywidgets.SelectionSlider(description=description, options=options, value=value,
                                      continuous_update=False)


class PictureSliders(ipywidgets.VBox):
    """A row of pictures above sliders.

    `controls` are the sliders by name, `images` the pictures' widgets. For scripts the whole
    carries the CSS class `name`. A subclass says in `pictures` what is shown at the sliders'
    values, in `still` what a page without a kernel shows, and in `told` what that is.
    """

    told = ""

    def __init__(self, controls: dict[str, ipywidgets.Widget], count: int, name: str):
        self.controls = controls
        self.images = [ipywidgets.Image(format="png", width=256, height=256) for _ in range(count)]
        super().__init__([ipywidgets.HBox(self.images), *controls.values()])
        self.add_class(name)
        for slider in controls.values():
            slider.observe(lambda change: self.redraw(), "value")
        self.redraw()

    def pictures(self) -> list[Tensor]:
        """The pictures (1,3,h,w) at the sliders' values, in [-1, 1]."""
        raise NotImplementedError

    def still(self) -> show.Picture:
        """A strip of what the sliders do."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Show the pictures at the sliders' values."""
        for widget, picture in zip(self.images, self.pictures(), strict=True):
            widget.value = png((to_shown(picture)[0] * 255).round().byte().numpy())

    def _repr_mimebundle_(self, **named):
        """The live sliders, and for pages without them the still."""
        still = base64.b64encode(self.still()._repr_png_()).decode()
        return super()._repr_mimebundle_(**named) | {
            "text/plain": f"{self.told} (it moves where a kernel runs).", "image/png": still}
