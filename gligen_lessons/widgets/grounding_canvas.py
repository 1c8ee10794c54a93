"""Boxes that a learner draws, a phrase for each, and the picture that GLIGEN paints of them."""

from collections.abc import Callable, Sequence

import numpy as np
import traitlets
from torch import Tensor

from .. import boxes as boxes_
from .. import show
from .box_canvas import BoxCanvas
from .painting import PAPER, PaintingCanvas, check_paint, page_of, phrase_label

LEAST = .04                                       # the least side of a box that can be painted in


def grounding_canvas(paint: Callable, caption: str = "", phrases: Sequence[str] = (),
                     boxes: Sequence = (), seed: int = 0, tau: float = 1.,
                     limit: int = 8) -> "GroundingCanvas":
    """A canvas to draw boxes on and write a phrase in each, and what `paint` makes of them.

    `paint(caption, phrases, boxes_xyxy, seed, tau)` gives a picture (h,w,3) uint8; phrases are n
    strings, boxes_xyxy (n,4) in 0..1, and tau in 0..1 is the part of the steps that is grounded.
    Boxes to begin with need a phrase each, which may be empty. No more than `limit` can be drawn.
    Raises TypeError for what cannot paint, ValueError for phrases and boxes that do not fit.
    """
    check_paint(paint, "caption, phrases, boxes_xyxy, seed, tau")
    boxes = np.asarray(boxes, dtype=float).tolist()
    if len(phrases) != len(boxes):
        raise ValueError(f"{len(phrases)} phrases and {len(boxes)} boxes: give each box a phrase, "
                         "which may be empty.")
    if boxes:
        boxes_.check_boxes(boxes)
    _few(boxes, limit)
    return GroundingCanvas(paint, caption=caption, phrases=list(phrases), boxes=boxes, seed=seed,
                           tau=tau, limit=limit)


class GroundingCanvas(PaintingCanvas, BoxCanvas):
    """Boxes with phrases, a caption, a seed and tau; and the picture painted of them.

    `caption`, `phrases`, `boxes` (xyxy), `seed` and `tau` can be read and set: the page follows.
    With `repaint` it paints again whenever a box is moved or removed. For scripts: CSS classes
    "grounding-canvas" and "grounding-phrase", and those of every PaintingCanvas.
    """

    ASKED = ("caption", "phrases", "boxes", "seed", "tau")
    _esm, _css = page_of("box_canvas", "grounding_canvas", view="PaintView")
    phrases = traitlets.List(traitlets.Unicode()).tag(sync=True)
    tau = traitlets.Float(1., min=0., max=1.).tag(sync=True)
    limit = traitlets.Int(8, min=1).tag(sync=True)
    least = traitlets.Float(LEAST).tag(sync=True)
    repaint = traitlets.Bool(False).tag(sync=True)
    label = traitlets.Unicode("Paper to draw boxes on").tag(sync=True)

    def __init__(self, paint: Callable, **traits):
        super().__init__(paint, **traits)
        self.add_class("grounding-canvas")
        self.observe(self._moved, "boxes")

    def _moved(self, change) -> None:
        grown = len(change.new) > len(change.old)         # a new box has no phrase yet
        if self.repaint and not grown and not self.painting and self.generated != self.request():
            self.paint_now()

    def _checked(self) -> tuple[str, list[str], Tensor, int, float]:
        """What `paint` is given; ValueError says what is wrong with which box."""
        from ..gligen import checked

        if not self.boxes and not self.caption.strip():
            raise ValueError("There is nothing to paint yet: draw a box, or write a caption.")
        _few(self.boxes, self.limit)
        phrases, places = checked(self.phrases, self.boxes, 0, self.limit)
        for i, (x0, y0, x1, y1) in enumerate(self.boxes):
            if min(x1 - x0, y1 - y0) < self.least - 1e-6:
                raise ValueError(f"box {i} is too small to paint in: make each side at least "
                                 f"{self.least:.0%} of the picture.")
        return self.caption, phrases, places, self.seed, self.tau

    def described(self) -> str:
        """The boxes in words, for those who see neither the page nor a still."""
        things = [f"{phrase or 'a box without a phrase'} from {x0:.0%} to {x1:.0%} of the width "
                  f"and {y0:.0%} to {y1:.0%} of the height"
                  for phrase, (x0, y0, x1, y1) in zip(self.phrases, self.boxes, strict=False)]
        return (f"A canvas for grounded painting (it is live where a kernel runs). Caption: "
                f"{self.caption or 'none'}. Boxes: {'; '.join(things) or 'none yet'}. "
                f"{self._settings().capitalize()}.")

    def _settings(self) -> str:
        return f"seed {self.seed}, tau {self.tau:g}"

    def _lay_out(self, ax) -> None:
        for i, box in enumerate(self.boxes):
            x0, y0, x1, y1 = (PAPER * part - .5 for part in box)
            colour, at_right = show.COLOURS[i % len(show.COLOURS)], box[0] > .5
            for edge, width in (("white", 3.5), (colour, 2)):
                ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=edge, lw=width)
            phrase = self.phrases[i] if i < len(self.phrases) else ""
            phrase_label(ax, x1 if at_right else x0, y0, phrase or f"box {i}", colour,
                         "right" if at_right else "left")


def _few(boxes: Sequence, limit: int) -> None:
    if len(boxes) > limit:
        raise ValueError(f"{len(boxes)} boxes, but no more than {limit} fit: remove some.")
