"""The two diagrams of the course, drawn by hand in pixels: x to the right, y down."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from gligen_lessons.show import COLOURS, INK, Picture
from gligen_lessons.world import Scene, Thing, boxes, named, render

BLUE, ORANGE, GREEN, PURPLE, GOLD = COLOURS[:5]
HOUSE = Thing("house", "blue", x=.74, y=.745, size=.42)
CAR = Thing("car", "red", x=.27, y=.905, size=.25)
BALLOON = Thing("balloon", "yellow", x=.27, y=.42, size=.3)
SCENE = Scene(horizon=.55, hills=((.29, .58, .1),), things=(HOUSE, CAR, BALLOON))


def canvas(width: int, height: int, palette: int = 0) -> tuple[Figure, Axes]:
    """An empty figure and axes whose units are its pixels."""
    figure = Picture(width / 100, height / 100, palette)
    figure.set_layout_engine("none")                      # everything stands where it is put
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    return figure, ax


def tint(colour: str, part: float) -> tuple[float, ...]:
    """The colour thinned with white until only this part of it is left."""
    return tuple(1 - part * (1 - level) for level in to_rgb(colour))


def label(ax: Axes, x: float, y: float, text: str, size: float = 11, colour: str = INK,
          **style) -> None:
    """Text around a point."""
    ax.text(x, y, text, **{"fontsize": size, "color": colour, "ha": "center", "va": "center",
                           **style})


def rounded(ax: Axes, corners: tuple, colour: str, text: str = "", size: float = 11,
            part: float = .16, radius: float = 7, dashed: bool = False) -> None:
    """A rounded box (x0, y0, x1, y1) with text in its middle."""
    x0, y0, x1, y1 = corners
    ax.add_patch(FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, ec=colour, fc=tint(colour, part),
                                lw=1.4, ls="--" if dashed else "-",
                                boxstyle=f"round,pad=0,rounding_size={radius}"))
    label(ax, (x0 + x1) / 2, (y0 + y1) / 2, text, size)


def panel(ax: Axes, corners: tuple, colour: str, title: str) -> None:
    """A large rounded box with its title at the upper left."""
    rounded(ax, corners, colour, part=.075, radius=16)
    label(ax, corners[0] + 17, corners[1] + 27, title, 12.5, colour, ha="left", weight="bold")


def arrow(ax: Axes, *path: tuple, colour: str = INK, width: float = 1.9, head: bool = True,
          dashed: bool = False) -> None:
    """A line through the points of a path, with a head at its end."""
    path = np.array(path, float)
    ls = (0, (2, 1.2)) if dashed else "-"
    if len(path) > 2 or not head:
        ax.plot(*path[:len(path) - head].T, color=colour, lw=width, ls=ls)
    if head:
        ax.add_patch(FancyArrowPatch(*path[-2:], color=colour, lw=width, ls=ls, shrinkA=0,
                                     shrinkB=0, arrowstyle="-|>", mutation_scale=6 + 3.7 * width))


def tower(ax: Axes, x0: float, x1: float, y: float, heights: tuple, colour: str, text: str,
          size: float = 16) -> None:
    """A coder: a trapezoid around the height y, with its heights at the left and the right."""
    left, right = heights[0] / 2, heights[1] / 2
    ax.add_patch(Polygon([(x0, y - left), (x1, y - right), (x1, y + right), (x0, y + left)],
                         fc=tint(colour, .32), ec=colour, lw=1.5))
    label(ax, (x0 + x1) / 2, y, text, size)


def photo(ax: Axes, image: np.ndarray, x: float, y: float, side: float, **style) -> None:
    """A picture with its upper left corner at (x, y)."""
    ax.imshow(image, extent=(x, x + side, y + side, y), aspect="auto", zorder=1, **style)


def frame(ax: Axes, xyxy: tuple, x: float, y: float, side: float, colour: str,
          phrase: str = "", ls="-", lw: float = 2.6) -> None:
    """A box in 0..1 on a picture whose upper left corner is (x, y), with its phrase above."""
    x0, y0, x1, y1 = np.array(xyxy) * side + (x, y, x, y)
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=lw, ls=ls))
    if phrase:
        ax.text(x0, y0 - 4, phrase, fontsize=8.5, color="white", va="bottom",
                bbox={"facecolor": colour, "pad": 1.8, "lw": 0})


def figure3() -> Figure:
    """Latent diffusion, after figure 3 of its paper."""
    figure, ax = canvas(1314, 558)
    panel(ax, (18, 18, 270, 534), ORANGE, "pixel space")
    panel(ax, (288, 18, 1014, 534), GREEN, "latent space")
    panel(ax, (1032, 18, 1296, 534), PURPLE, "conditioning")
    _pixels(ax)
    _latents(ax)
    _unet(ax)
    _condition(ax)
    return figure


def _pixels(ax: Axes) -> None:
    """Encoder above and decoder below, between a picture and its latent."""
    for y, text in ((147, "$x$"), (364, r"$\tilde{x}$")):
        rounded(ax, (38, y - 34, 106, y + 34), ORANGE, text, 18)
    tower(ax, 151, 233, 147, (120, 63), BLUE, r"$\mathcal{E}$")
    tower(ax, 151, 233, 364, (63, 120), BLUE, r"$\mathcal{D}$")
    label(ax, 192, 224, "encoder")
    label(ax, 192, 440, "decoder")
    arrow(ax, (107, 147), (149, 147))
    arrow(ax, (234, 147), (310, 147))
    arrow(ax, (311, 364), (235, 364))
    arrow(ax, (150, 364), (108, 364))


def _latents(ax: Axes) -> None:
    """Noise is added above; below a latent goes through the U-Net once for every step."""
    for x, y, text in ((312, 147, "$z_0$"), (858, 147, "$z_T$"),
                       (312, 364, "$z_{t-1}$"), (858, 364, "$z_t$")):
        rounded(ax, (x, y - 30, x + 60, y + 30), GREEN, text, 15 if "-" in text else 18)
    rounded(ax, (449, 116, 780, 179), GREEN, "diffusion: noise is added", 13)
    arrow(ax, (373, 147), (447, 147))
    arrow(ax, (781, 147), (856, 147))
    arrow(ax, (888, 179), (888, 331))
    arrow(ax, (857, 364), (786, 364))
    arrow(ax, (444, 364), (375, 364))
    arrow(ax, (342, 396), (342, 488), (888, 488), (888, 396), colour=GREEN)
    label(ax, 614, 507, "the next step, for t = T, ..., 1; then $z_0$ is decoded", 11, GREEN)
    label(ax, 252, 343, "$z_0$", 13)


def _unet(ax: Axes) -> None:
    """The denoising U-Net with its layers of cross-attention."""
    ax.add_patch(Polygon([(449, 289), (614, 323), (780, 289), (780, 438), (614, 405), (449, 438)],
                         fc=tint(BLUE, .14), ec=BLUE, lw=1.5))
    label(ax, 614, 456, r"denoising U-Net  $\epsilon_\theta$", 13)
    for x in (485, 559, 670, 744):
        rounded(ax, (x - 27, 330, x + 27, 397), BLUE, "$Q$\n$K\\,V$", 11, part=.24)
        arrow(ax, (x, 263), (x, 329), colour=PURPLE, width=1.5)
    arrow(ax, (485, 263), (967, 263), colour=PURPLE, head=False)
    arrow(ax, (967, 263), (967, 364), colour=PURPLE, head=False, dashed=True)
    arrow(ax, (967, 364), (921, 364), colour=PURPLE)
    ax.plot(967, 263, "o", color=PURPLE, ms=7)
    label(ax, 614, 239, "by cross-attention", 11.5, PURPLE)
    label(ax, 960, 397, "or concat", 11, PURPLE)


def _condition(ax: Axes) -> None:
    """What may condition the network, and the coder of it."""
    for i, text in enumerate(("caption", "class", "layout", "picture")):
        rounded(ax, (1086, 77 + 43.3 * i, 1242, 112 + 43.3 * i), PURPLE, text, 11.5, part=.12)
    arrow(ax, (1164, 242), (1164, 314))
    tower(ax, 1123, 1205, 364, (120, 63), PURPLE, r"$\tau_\theta$", 22)
    arrow(ax, (1123, 364), (975, 268), colour=PURPLE)
    label(ax, 1164, 459, "for a caption: one state\nfor each token", 10.5)


def gate() -> Figure:
    """From an instruction to grounding tokens, and the gated layer that reads them."""
    figure, ax = canvas(1204, 535)
    panel(ax, (16, 22, 369, 513), PURPLE, "the instruction  $y=(c,e)$")
    panel(ax, (390, 22, 781, 513), GREEN, "grounding tokens  $h^e$")
    panel(ax, (803, 22, 1188, 513), BLUE, "a transformer block of the U-Net")
    _instruction(ax)
    _tokens(ax)
    _block(ax)
    return figure


def _instruction(ax: Axes) -> None:
    """The caption, and the scene with a box and a phrase for each thing."""
    label(ax, 192, 97, "“a yellow balloon above a red car,\nbeside a blue house by day”", 11.5,
          style="italic")
    label(ax, 192, 147, "caption $c$;  below, phrases and boxes $e$", 9.5, PURPLE)
    drawn, x, y, side = render(SCENE, 384), 43, 180, 300
    photo(ax, drawn.image, x, y, side)
    for thing, xyxy, colour in zip(SCENE.things, boxes(SCENE, drawn.ids), COLOURS, strict=False):
        frame(ax, xyxy, x, y, side, colour, named(thing))


def _tokens(ax: Axes) -> None:
    """Each phrase and its box become one token; a slot without a thing has learned features."""
    for i, (thing, colour) in enumerate(zip(SCENE.things, COLOURS, strict=False)):
        y = 134 + 91 * i
        rounded(ax, (404, y - 32, 597, y - 1), colour, f"text of “{named(thing)}”", 9.5)
        rounded(ax, (404, y + 1, 597, y + 32), colour, "Fourier of its box", 9.5)
        _mlp(ax, y, colour)
    y = 134 + 91 * 3
    rounded(ax, (404, y - 16, 597, y + 16), INK, "learned null features", 9.5, .06, dashed=True)
    _mlp(ax, y, INK, part=.08, dashed=True)
    label(ax, 500, y + 45, "for every slot\nthat is not used", 9.5)


def _mlp(ax: Axes, y: float, colour: str, part: float = .3, dashed: bool = False) -> None:
    """The network that makes one token."""
    arrow(ax, (598, y), (630, y))
    rounded(ax, (631, y - 28, 689, y + 28), GREEN, "MLP", 10.5)
    arrow(ax, (690, y), (718, y))
    rounded(ax, (719, y - 28, 759, y + 28), colour, "$h$", 14, part=part, dashed=dashed)


def _block(ax: Axes) -> None:
    """The layers that pixels pass through, from below upwards; the new one has two gated parts."""
    rounded(ax, (868, 207, 1135, 375), ORANGE, part=.07, radius=10)
    layers = ((444, 20, "self-attention", BLUE),
              (335, 28, "gated self-attention\n+ tanh($\\gamma$) · answer", ORANGE),
              (247, 28, "gated feed-forward\n+ tanh($\\gamma'$) · answer", ORANGE),
              (165, 20, "cross-attention", BLUE), (101, 20, "feed-forward", BLUE))
    below = 510
    for y, half, text, colour in layers:
        arrow(ax, (1001, below), (1001, y + half + 1))
        rounded(ax, (885, y - half, 1117, y + half), colour, text, 10.5,
                part=.24 if colour == ORANGE else .08)
        below = y - half
    arrow(ax, (1001, below), (1001, 60))
    label(ax, 1018, 489, "pixels $v$", 10.5, ha="left")
    for y, text, colour in ((133, "frozen", BLUE), (291, "new", ORANGE), (444, "frozen", BLUE)):
        label(ax, 1155, y, text, 10.5, colour, rotation=90)
    arrow(ax, (836, 165), (884, 165), colour=PURPLE)
    label(ax, 821, 165, "$c$", 13, PURPLE)
    arrow(ax, (781, 335), (884, 335), colour=ORANGE, width=2.3)
    label(ax, 838, 316, "$h^e$", 13, ORANGE)
