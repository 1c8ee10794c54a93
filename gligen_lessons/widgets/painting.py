"""What canvases share on which one lays out a picture that Python then paints."""

import base64
import io
from collections.abc import Callable
from textwrap import fill, shorten

import numpy as np
import traitlets
from PIL import Image

from .. import show
from ..images import png
from .box_canvas import HERE, SHOW, Canvas

PAPER = 256                                               # pixels of the still's empty paper


class PaintingCanvas(Canvas):
    """A caption, a seed, something laid out; and the picture painted of them.

    What there is to paint is in the traits that `ASKED` names. `picture` is the last one as a PNG
    (none yet: empty), `generated` what it was painted of, and `message` what kept the last from
    being painted. `painting` is true while it paints; the page raises `requested` by one to have
    it painted. `over` lays what was asked for over the picture. A subclass says how the request
    is checked, described and drawn. CSS classes for scripts: "grounding-caption",
    "grounding-add", "grounding-paint", "grounding-message", "grounding-picture".
    """

    ASKED: tuple[str, ...] = ("caption", "seed")
    caption = traitlets.Unicode().tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)
    over = traitlets.Bool(False).tag(sync=True)
    painting = traitlets.Bool(False).tag(sync=True)
    requested = traitlets.Int(0).tag(sync=True)
    generated = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    def __init__(self, paint: Callable, **traits):
        super().__init__(**{"layout": {"width": "100%"}} | traits)
        self._paint = paint
        self.observe(lambda change: self.paint_now(), "requested")

    def request(self) -> dict:
        """What there is to paint, as the page shows it."""
        return {name: getattr(self, name) for name in self.ASKED}

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

    def _checked(self) -> tuple:
        """What `paint` is given; ValueError says what is wrong with it."""
        raise NotImplementedError

    def described(self) -> str:
        """What is laid out, in words, for those who see neither the page nor a still."""
        raise NotImplementedError

    def _settings(self) -> str:
        """What the picture was painted with besides what can be seen."""
        return f"seed {self.seed}"

    def _lay_out(self, ax) -> None:
        """Draw over the still's paper what there is to paint."""
        raise NotImplementedError

    def still(self) -> show.Picture:
        """What is laid out, and beside it the picture, painted now if need be."""
        why = ""
        if self.generated != self.request():
            self.paint_now()
            why, self.message = self.message, ""          # said in the still alone
        fits = bool(self.picture) and not why
        image = np.asarray(Image.open(io.BytesIO(self.picture))) if fits else _paper(blank=True)
        made = f"painted with {self._settings()}" if fits else " "
        figure = show.grid([_paper(), image], 2, [shorten(self.caption, 46) or " ", made], 3.2)
        left, right = figure.axes
        left.title.set_parse_math(False)                  # a learner may write of $5 and of $6
        self._lay_out(left)
        right.text(.5, .5, fill(why, 40), transform=right.transAxes, ha="center", va="center",
                   fontsize=9, color=show.INK)
        return figure

    def _repr_mimebundle_(self, **named):
        """The live canvas, and for pages without it a still and a description."""
        bundle, metadata = super()._repr_mimebundle_(**named)
        still = base64.b64encode(self.still()._repr_png_()).decode()
        return bundle | {"text/plain": self.described(), "image/png": still}, metadata


def page_of(*names: str, view: str) -> tuple[str, str]:
    """The JavaScript and the CSS of a widget that is made of these files, in this order."""
    script, style = ("\n".join((HERE / f"{name}.{kind}").read_text("utf-8") for name in names)
                     for kind in ("js", "css"))
    return f"{script}\n{SHOW.format(view)}", style


def check_paint(paint: Callable, arguments: str) -> None:
    """Raise TypeError for what is no function, with the arguments that it must take."""
    if not callable(paint):
        raise TypeError(f"paint must be a function ({arguments}) -> picture, got "
                        f"{type(paint).__name__}.")


def phrase_label(ax, x: float, y: float, text: str, colour: str, side: str = "left") -> None:
    """A phrase on its colour, with this side of it at pixel (x, y) of the still's paper."""
    ax.text(x, max(y, 14), text, fontsize=7, color="white", ha=side, va="bottom", clip_on=True,
            parse_math=False, bbox={"facecolor": colour, "pad": 1.2, "lw": 0})


def _picture(image) -> np.ndarray:
    """What `paint` gave, if it is a picture (h,w,3) uint8."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"paint must give a picture (h,w,3) uint8, it gave {image.dtype} "
                         f"{image.shape}.")
    return image


def _sentence(fault: Exception) -> str:
    """A fault as one sentence for the page, which shows one picture and so needs no number."""
    text = str(fault).strip().split("\n")[0]
    text = text.removeprefix("Picture 0: ").removeprefix("Picture 0, ")
    if not isinstance(fault, ValueError):
        text = f"paint stopped with {type(fault).__name__}{': ' * bool(text)}{text}"
    return text[:1].upper() + text[1:]


def _paper(blank: bool = False) -> np.ndarray:
    """Checkered paper, or blank, (PAPER,PAPER,3) uint8."""
    row, column = np.indices((PAPER, PAPER)) * 16 // PAPER
    light = (row + column) % 2 == 0 if not blank else np.ones((PAPER, PAPER), bool)
    return np.where(light[..., None], (250, 251, 253), (230, 232, 238)).astype(np.uint8)
