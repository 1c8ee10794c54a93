"""The graph of the course as a picture: what each lesson gives, and which need it."""

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from .curriculum import LESSONS, PARTS, Lesson, arrows, written
from .show import COLOURS, INK, Picture

STEP = (1.74, .86)                                        # inches from node to node
NODE = (1.4, .56)                                         # inches, width and height
LATER = "#9aa0a8"                                          # of lessons that are not written yet


def lessons(here: str = "") -> Picture:
    """The graph of the course: an arrow leads from a lesson to each that uses it.

    `here` is the number of the lesson to fill in, such as "04". Lesson 00 lies under them all.
    Lessons that are not written yet are grey.
    """
    if here not in ("", "00", *LESSONS):
        raise ValueError(f"There is no lesson {here!r}; choose 00 to {max(LESSONS)}.")
    columns = 1 + max(lesson.column for lesson in LESSONS.values())
    rows = 1 + max(lesson.row for lesson in LESSONS.values())
    width, height = columns * STEP[0], (rows + .95) * STEP[1]
    figure = Picture(width, height)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    for start, stop in arrows():
        _arrow(ax, start, stop)
    for number, one in LESSONS.items():
        _node(ax, *_middle(one), NODE[0], _colour(one), number, one.title, one.gives,
              here == number)
    _node(ax, width / 2, (rows + .45) * STEP[1], width - .36, COLOURS[4], "00", "the world",
          "every lesson takes its pictures, and the truth about them, from here", here == "00")
    for row, part in enumerate(PARTS):
        ax.plot(.3, 3.35 * STEP[1] + .3 * row, "o", ms=9, color=COLOURS[row])
        ax.text(.48, 3.35 * STEP[1] + .3 * row, part, size=10, color=INK, va="center")
    if not all(map(written, LESSONS.values())):
        ax.text(.2, 3.35 * STEP[1] + .3 * len(PARTS), "grey: not written yet", size=9,
                color=LATER, va="center")
    return figure


def _colour(lesson: Lesson) -> str:
    return COLOURS[lesson.part] if written(lesson) else LATER


def _middle(lesson: Lesson) -> tuple[float, float]:
    return (lesson.column + .5) * STEP[0], (lesson.row + .5) * STEP[1]


def _node(ax, x: float, y: float, width: float, edge: str, number: str, title: str, gives: str,
          filled: bool) -> None:
    """A rounded frame about (x, y) with a number on its corner, a title, and what it gives."""
    left, top = x - width / 2, y - NODE[1] / 2
    ink = "white" if filled else INK
    for face in ("white", (edge, 1 if filled else .12)):
        ax.add_patch(FancyBboxPatch((left, top), width, NODE[1], "round,pad=0,rounding_size=.13",
                                    ec=edge, lw=1.5, fc=face))
    ax.plot(left + .02, top - .01, "o", ms=15, color=edge, mec="white", mew=1.5)
    ax.text(left + .02, top - .005, number, size=7, weight="bold", color="white", ha="center",
            va="center")
    ax.text(x, y - .08, title, size=8.5, weight="bold", ha="center", va="center", color=ink)
    ax.text(x, y + .13, gives, size=7, ha="center", va="center", color=ink)


def _arrow(ax, start: str, stop: str) -> None:
    """A smooth arrow from the right side of one lesson to the left side of another."""
    (x0, y0), (x1, y1) = (_middle(LESSONS[number]) for number in (start, stop))
    x0, x1 = x0 + NODE[0] / 2, x1 - NODE[0] / 2 - .03
    bend = min(.3, (x1 - x0) / 2)
    curve = Path([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], [1, 4, 4, 4])
    ax.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=10, lw=1.4,
                                 color=_colour(LESSONS[start]), shrinkA=0, shrinkB=0))
