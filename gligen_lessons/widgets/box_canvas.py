"""A picture with boxes over it that a learner moves by mouse or by keys."""

import math
from numbers import Real
from pathlib import Path

import anywidget
import traitlets

from .. import show

HERE = Path(__file__).parent
SHOW = "export default {{ render: shown({}) }};\n"            # ends a widget's module
WIDTH = "390px"                                           # of the canvas, on the screen


class Canvas(anywidget.AnyWidget):
    """A picture with something over it that a learner moves.

    `picture` is a PNG; `colours` are those of what lies over it, and repeat. `step` is how far a
    key moves. `label` says what is shown to those who cannot see it.
    """

    picture = traitlets.Bytes().tag(sync=True)
    colours = traitlets.List(list(show.COLOURS), minlen=1).tag(sync=True)
    step = traitlets.Float(.01).tag(sync=True)
    label = traitlets.Unicode("A picture").tag(sync=True)

    def __init__(self, **traits):
        super().__init__(**{"layout": {"width": WIDTH, "flex": "0 1 auto"}} | traits)
        self.add_class("box-canvas")


class BoxCanvas(Canvas):
    """A picture with boxes over it that can be dragged, resized, and moved by keys alone.

    `boxes` are [x0, y0, x1, y1] in 0..1, kept inside the picture; `names` and `colours` go with
    them. `fixed` lists the boxes that stay, by number, and `links` the pairs [i, j] to join by a
    line. `step` is also the least side that a learner can leave a box.
    """

    _esm = (HERE / "box_canvas.js").read_text("utf-8") + SHOW.format("BoxView")
    _css = (HERE / "box_canvas.css").read_text("utf-8")
    boxes = traitlets.List().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    fixed = traitlets.List().tag(sync=True)
    links = traitlets.List().tag(sync=True)
    label = traitlets.Unicode("A picture with boxes").tag(sync=True)

    @traitlets.validate("boxes")
    def _inside(self, proposal) -> list[list[float]]:
        return [_cut(box, self.step / 2) for box in proposal.value]


def _cut(box, least: float) -> list[float]:
    """The box [x0, y0, x1, y1] cut off at the picture's edges, each side at least `least`.

    Raises TraitError for what is not four finite numbers.
    """
    if len(box) != 4 or not all(isinstance(x, Real) and math.isfinite(x) for x in box):
        raise traitlets.TraitError("A box is four finite numbers: left, top, right, bottom; got "
                                   f"{box}.")
    x0, y0 = (min(max(part, 0.), 1 - least) for part in box[:2])
    return [x0, y0, max(min(box[2], 1.), x0 + least), max(min(box[3], 1.), y0 + least)]
