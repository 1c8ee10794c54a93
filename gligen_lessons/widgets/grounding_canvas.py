"""Boxes that a learner draws, a phrase for each, and the picture that GLIGEN paints of them."""

import base64
import io
from collections.abc import Callable, Sequence
from textwrap import fill, shorten

import numpy as np
import traitlets
from PIL import Image
from torch import Tensor

from .. import boxes as boxes_
from .. import show
from ..images import png
from .box_canvas import HERE, SHOW, BoxCanvas

LEAST = .04                                       # the least side of a box that can be painted in
SCRIPTS, STYLES = (tuple(f"{name}.{kind}" for name in ("box_canvas", "grounding_canvas"))
                   for kind in ("js", "css"))
PAPER = 256                                               # pixels of the still's empty paper


def grounding_canvas(paint: Callable, caption: str = "", phrases: Sequence[str] = (),
                     boxes: Sequence = (), seed: int = 0, tau: float = 1.,
                     limit: int = 8) -> "GroundingCanvas":
    """A canvas to draw boxes on and write a phrase in each, and what `paint` makes of them.

    `paint(caption, phrases, boxes_xyxy, seed, tau)` gives a picture (h,w,3) uint8; phrases are n
    strings, boxes_xyxy (n,4) in 0..1, and tau in 0..1 is the part of the steps that is grounded.
    Boxes to begin with need a phrase each, which may be empty. No more than `limit` can be drawn.
    Raises TypeError for what cannot paint, ValueError for phrases and boxes that do not fit.
    """
    if not callable(paint):
        raise TypeError("paint must be a function (caption, phrases, boxes_xyxy, seed, tau) -> "
                        f"picture, got {type(paint).__name__}.")
    boxes = np.asarray(boxes, dtype=float).tolist()
    if len(phrases) != len(boxes):
        raise ValueError(f"{len(phrases)} phrases and {len(boxes)} boxes: give each box a phrase, "
                         "which may be empty.")
    if boxes:
        boxes_.check_boxes(boxes)
    _few(boxes, limit)
    return GroundingCanvas(paint, caption=caption, phrases=list(phrases), boxes=boxes, seed=seed,
                           tau=tau, limit=limit)


class GroundingCanvas(BoxCanvas):
    """Boxes with phrases, a caption, a seed and tau; and the picture painted of them.

    `caption`, `phrases`, `boxes` (xyxy), `seed` and `tau` can be read and set: the page follows.
    `picture` is the last one as a PNG (none yet: empty), `generated` what it was painted of, and
    `message` what kept the last from being painted. With `repaint` it paints again whenever a box
    is moved or removed; `over` lays the boxes over the picture. `painting` is true while it
    paints; the page raises `requested` by one to have it painted. For scripts: CSS classes
    "grounding-canvas", "grounding-caption", "grounding-phrase", "grounding-add",
    "grounding-paint", "grounding-message", "grounding-picture".
    """

    _esm = "\n".join([*((HERE / name).read_text("utf-8") for name in SCRIPTS),
                      SHOW.format("PaintView")])
    _css = "\n".join((HERE / name).read_text("utf-8") for name in STYLES)
    caption = traitlets.Unicode().tag(sync=True)
    phrases = traitlets.List(traitlets.Unicode()).tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)
    tau = traitlets.Float(1., min=0., max=1.).tag(sync=True)
    limit = traitlets.Int(8, min=1).tag(sync=True)
    least = traitlets.Float(LEAST).tag(sync=True)
    repaint = traitlets.Bool(False).tag(sync=True)
    over = traitlets.Bool(False).tag(sync=True)
    painting = traitlets.Bool(False).tag(sync=True)
    requested = traitlets.Int(0).tag(sync=True)
    generated = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    def __init__(self, paint: Callable, **traits):
        super().__init__(**{"layout": {"width": "100%"},
                            "label": "Paper to draw boxes on"} | traits)
        self._paint = paint
        self.add_class("grounding-canvas")
        self.observe(lambda change: self.paint_now(), "requested")
        self.observe(self._moved, "boxes")

    def _moved(self, change) -> None:
        grown = len(change.new) > len(change.old)         # a new box has no phrase yet
        if self.repaint and not grown and not self.painting and self.generated != self.request():
            self.paint_now()

    def request(self) -> dict:
        """What there is to paint: caption, phrases, boxes, seed and tau, as the page shows them."""
        names = ("caption", "phrases", "boxes", "seed", "tau")
        return {name: getattr(self, name) for name in names}

    def paint_now(self) -> None:
        """Paint what is asked for; if that fails, `message` says why and the old picture stays."""
        self.message, self.painting = "", True
        requested = self.request()
        try:
            image = _picture(self._paint(*self._checked()))
            with self.hold_sync():
                self.picture, self.generated = png(image), requested
        except Exception as fault:             # a callback's traceback would go where nobody looks
            self.message = _sentence(fault)
        finally:
            self.painting = False

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
                f"{self.caption or 'none'}. Boxes: {'; '.join(things) or 'none yet'}. Seed "
                f"{self.seed}, tau {self.tau:g}.")

    def still(self) -> show.Picture:
        """The boxes with their phrases, and beside them the picture, painted now if need be."""
        why = ""
        if self.generated != self.request():
            self.paint_now()
            why, self.message = self.message, ""          # said in the still alone
        fits = bool(self.picture) and not why
        image = np.asarray(Image.open(io.BytesIO(self.picture))) if fits else _paper(blank=True)
        made = f"painted with seed {self.seed}, tau {self.tau:g}" if fits else " "
        figure = show.grid([_paper(), image], 2, [shorten(self.caption, 46) or " ", made], 3.2)
        left, right = figure.axes
        left.title.set_parse_math(False)                  # a learner may write of $5 and of $6
        self._draw_boxes(left)
        right.text(.5, .5, fill(why, 40), transform=right.transAxes, ha="center", va="center",
                   fontsize=9, color=show.INK)
        return figure

    def _draw_boxes(self, ax) -> None:
        for i, box in enumerate(self.boxes):
            x0, y0, x1, y1 = (PAPER * part - .5 for part in box)
            colour, at_right = show.COLOURS[i % len(show.COLOURS)], box[0] > .5
            for edge, width in (("white", 3.5), (colour, 2)):
                ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=edge, lw=width)
            phrase = self.phrases[i] if i < len(self.phrases) else ""
            ax.text(x1 if at_right else x0, max(y0, 14), phrase or f"box {i}", fontsize=7,
                    color="white", ha="right" if at_right else "left", va="bottom", clip_on=True,
                    parse_math=False, bbox={"facecolor": colour, "pad": 1.2, "lw": 0})

    def _repr_mimebundle_(self, **named):
        """The live canvas, and for pages without it a still and a description."""
        bundle, metadata = super()._repr_mimebundle_(**named)
        still = base64.b64encode(self.still()._repr_png_()).decode()
        return bundle | {"text/plain": self.described(), "image/png": still}, metadata


def _few(boxes: Sequence, limit: int) -> None:
    if len(boxes) > limit:
        raise ValueError(f"{len(boxes)} boxes, but no more than {limit} fit: remove some.")


def _picture(image) -> np.ndarray:
    """What `paint` gave, if it is a picture (h,w,3) uint8."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"paint must give a picture (h,w,3) uint8, it gave {image.dtype} "
                         f"{image.shape}.")
    return image


def _sentence(fault: Exception) -> str:
    """A fault as one sentence for the page, which shows one picture and so needs no number."""
    text = str(fault).strip().split("\n")[0].removeprefix("Picture 0: ")
    if not isinstance(fault, ValueError):
        text = f"paint stopped with {type(fault).__name__}{': ' * bool(text)}{text}"
    return text[:1].upper() + text[1:]


def _paper(blank: bool = False) -> np.ndarray:
    """Checkered paper, or blank, (PAPER,PAPER,3) uint8."""
    row, column = np.indices((PAPER, PAPER)) * 16 // PAPER
    light = (row + column) % 2 == 0 if not blank else np.ones((PAPER, PAPER), bool)
    return np.where(light[..., None], (250, 251, 253), (230, 232, 238)).astype(np.uint8)
