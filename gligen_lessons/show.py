"""Every picture of the course: grids, strips over time, curves, points and boxes."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

COLOURS = ("#2f6cde", "#e4572e", "#2e9e6b", "#8a4ac0", "#e0a100", "#e0569b", "#5b6472", "#0aa3b5")
INK = "#2b2d3a"


class Picture(Figure):
    """A figure that shows itself once in any notebook and keeps no global state."""

    def __init__(self, width: float, height: float, palette: int = 0):
        super().__init__(figsize=(width, height), dpi=100, layout="constrained",
                         facecolor="white")
        self.palette = palette
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.canvas.draw()
        page = np.asarray(self.canvas.buffer_rgba())[..., :3]          # white, so without alpha
        image = Image.fromarray(page)
        if self.palette:
            image = image.quantize(self.palette, Image.Quantize.MAXCOVERAGE, kmeans=1)
        image.save(file, format="png", optimize=True)
        return file.getvalue()


def arrays(images) -> list[np.ndarray]:
    """Pictures as a list of (h,w,3) arrays to show.

    Takes model pictures (b,3,h,w) in [-1, 1], shown pictures (b,h,w,3) uint8 or 0..1, or a list of
    single ones. Raises ValueError for any other shape, or numbers that are not finite.
    """
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 3:
        images = images[None]
    return [_array(image) for image in images]


def _array(image) -> np.ndarray:
    image = image.detach().float().cpu() if _is_float(image) else torch.as_tensor(np.array(image))
    if not bool(image.isfinite().all()):
        raise ValueError("A picture holds NaN or infinity, so there is nothing to see. Which step "
                         "of what made it was the first to give such numbers?")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        return ((image + 1) / 2).clamp(0, 1).movedim(0, -1).numpy()
    if image.ndim == 3 and image.shape[-1] == 3:
        return image.numpy() if image.dtype == torch.uint8 else image.clamp(0, 1).numpy()
    raise ValueError("A picture is (3,h,w) in [-1, 1] or (h,w,3), got shape "
                     f"{tuple(image.shape)}.")


def _is_float(image) -> bool:
    return isinstance(image, torch.Tensor) and image.is_floating_point()


def grid(images, columns: int = 8, titles: Sequence[str] | None = None, size: float = 1.2,
         title: str = "", palette: int = 0) -> Picture:
    """Pictures in rows of `columns`, each `size` inches, with titles above if given.

    `palette` keeps so many colours: blurred pictures then take a third of the bytes.
    """
    shown = arrays(images)
    rows = -(-len(shown) // columns)
    columns = min(columns, len(shown))
    titled = sum(any(titles[i:i + columns]) for i in range(0, len(titles or ()), columns))
    figure = Picture(columns * size + .1, rows * size + .3 * titled + (.4 if title else .1),
                     palette)
    figure.get_layout_engine().set(h_pad=.02, w_pad=.02, hspace=0, wspace=0)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for i, ax in enumerate(axes):
        ax.set_axis_off()
        if i < len(shown):
            ax.imshow(shown[i], interpolation="nearest")
            if titles and i < len(titles):
                ax.set_title(titles[i], fontsize=9, color=INK)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def strip(images, titles: Sequence[str] | None = None, size: float = 1.4,
          title: str = "") -> Picture:
    """Pictures in one row, for something that changes along it."""
    return grid(images, len(arrays(images)), titles, size, title)


def name_rows(figure: Picture, names: Sequence[str]) -> Picture:
    """Write a name beside each row of a grid."""
    figure.set_figwidth(figure.get_figwidth() + .25)
    rows = figure.axes[::len(figure.axes) // len(names)]
    for ax, name in zip(rows, names, strict=False):
        ax.text(-.04, .5, name, size=9, color=INK, rotation=90, ha="right", va="center",
                transform=ax.transAxes)
    return figure


def _panel(figure: Picture, xlabel: str, ylabel: str, title: str):
    ax = figure.add_subplot()
    _dress(ax, xlabel, ylabel, title)
    return ax


def _dress(ax, xlabel: str, ylabel: str, title: str) -> None:
    ax.set_xlabel(xlabel, color=INK)
    ax.set_ylabel(ylabel, color=INK)
    ax.set_title(title, fontsize=11, color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=.25)


def curve(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str = "",
          ylabel: str = "", title: str = "", log_x: bool = False, log_y: bool = False,
          marker: str = "") -> Picture:
    """Named lines, each (xs, ys), in one panel."""
    figure = Picture(5.8, 2.9, palette=64)
    ax = _panel(figure, xlabel, ylabel, title)
    for i, (name, (xs, ys)) in enumerate(lines.items()):
        ax.plot(xs, ys, color=COLOURS[i % len(COLOURS)], label=name, marker=marker, lw=1.8, ms=5)
    if log_x:
        ax.set_xscale("log")
    if log_x and len(xs) <= 10:                           # few points: their own numbers
        ax.set_xticks(list(xs), [f"{x:g}" for x in xs])
        ax.minorticks_off()
    if log_y:
        ax.set_yscale("log")
    if len(lines) > 1:
        ax.legend(frameon=False)
    return figure


def bar_chart(values: Mapping[str, float], ylabel: str = "", title: str = "") -> Picture:
    """Named numbers as bars."""
    figure = Picture(max(3., .8 * len(values) + 1.2), 3, palette=64)
    ax = _panel(figure, "", ylabel, title)
    ax.bar(list(values), list(values.values()), color=COLOURS[0], width=.6)
    return figure


def intervals(rows: Mapping[str, Sequence[float]], xlabel: str = "",
              groups: Sequence[int] = ()) -> Picture:
    """Named values with their intervals, (value, low, high) each, from top to bottom.

    Rows of one group have one colour; without groups all have.
    """
    figure = Picture(6.4, .28 * len(rows) + .8, palette=64)
    ax = _panel(figure, xlabel, "", "")
    for k, (value, low, high) in enumerate(rows.values()):
        colour = COLOURS[groups[k] if len(groups) else 0]
        ax.plot([low, high], [k, k], color=colour, lw=3, alpha=.6, solid_capstyle="butt")
        ax.plot(value, k, "o", color=colour, clip_on=False)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - .4, -.6)
    return figure


def points(panels: Mapping[str, torch.Tensor], limit: float = 2.4,
           means: torch.Tensor | None = None, lines: bool = False,
           labels: Sequence[torch.Tensor] | None = None) -> Picture:
    """Two-dimensional points (n,2), a panel each; `lines` draws (steps,n,2) as paths.

    Each path has its colour and begins at a hollow ring. `labels` are whole numbers (n,) for each
    panel: points of one label share a colour.
    """
    figure = Picture(2.5 * len(panels), 2.8, palette=128)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for i, (ax, (name, xy)) in enumerate(zip(axes, panels.items(), strict=True)):
        xy, colours = torch.as_tensor(xy).detach().cpu(), COLOURS[0]
        if lines:
            ax.set_prop_cycle(color=COLOURS)
            ax.plot(xy[..., 0], xy[..., 1], alpha=.5, lw=.8)
            ax.scatter(xy[0, :, 0], xy[0, :, 1], s=14, facecolors="none", edgecolors=INK, lw=.6)
            xy = xy[-1]
        if labels is not None:
            colours = [COLOURS[int(label) % len(COLOURS)] for label in labels[i]]
        ax.scatter(xy[:, 0], xy[:, 1], s=12 if lines else 4, c=colours, alpha=.5, linewidths=0)
        if means is not None:
            ax.scatter(means[:, 0], means[:, 1], s=45, marker="+", color=COLOURS[1])
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
        ax.set_title(name, fontsize=10, color=INK)
    return figure


def boxed(images, boxes_xyxy: Sequence, phrases: Sequence[Sequence[str]] | None = None,
          columns: int = 4, size: float = 2.6) -> Picture:
    """Pictures with their boxes (n,4) in 0..1 and a phrase at each box."""
    figure = grid(images, columns, size=size)
    for i, (ax, found) in enumerate(zip(figure.axes, boxes_xyxy, strict=False)):
        add_boxes(ax, found, None if phrases is None else phrases[i])
    return figure


def add_boxes(ax, boxes_xyxy, phrases: Sequence[str] | None = None, width: float = 2) -> None:
    """Draw boxes (n,4) in 0..1, as `boxed` has them, over an axis' picture, and their phrases."""
    side = ax.images[0].get_array().shape[:2]
    for k, (x0, y0, x1, y1) in enumerate(np.asarray(boxes_xyxy, float)):
        x, y, w, h = x0 * side[1], y0 * side[0], (x1 - x0) * side[1], (y1 - y0) * side[0]
        colour = COLOURS[k % len(COLOURS)]
        ax.add_patch(Rectangle((x - .5, y - .5), w, h, fill=False, ec=colour, lw=width))
        if phrases is not None:
            ax.text(x, max(y, 7), phrases[k], fontsize=7, color="white",
                    bbox={"facecolor": colour, "pad": 1.2, "lw": 0}, va="bottom")


def posed(images, keypoints: Sequence, bones: Sequence[tuple[int, int]], columns: int = 4,
          size: float = 2.6) -> Picture:
    """Pictures with the key points (n,k,3) of their figures: full where seen, hollow where hidden.

    `bones` are pairs of key points to join by a line, counted from 1 as COCO does.
    """
    figure = grid(images, columns, size=size)
    for ax, figures in zip(figure.axes, keypoints, strict=False):
        add_figures(ax, figures, bones)
    return figure


def add_figures(ax, figures, bones: Sequence[tuple[int, int]]) -> None:
    """Draw key points (n,k,3) and their bones, as `posed` has them, over an axis' picture."""
    height, width = ax.images[0].get_array().shape[:2]
    for i, points in enumerate(np.asarray(figures, float)):
        x, y, seen = points[:, 0] * width - .5, points[:, 1] * height - .5, points[:, 2]
        for bone in bones:
            ends = np.array(bone) - 1
            if seen[ends].all():
                ax.plot(x[ends], y[ends], color=COLOURS[i % len(COLOURS)], lw=1.5)
        for level, face, rim in ((1, "white", INK), (2, COLOURS[i % len(COLOURS)], "white")):
            ax.plot(x[seen == level], y[seen == level], "o", ms=5, mfc=face, mec=rim,
                    mew=.8, ls="")


def segments(ids) -> np.ndarray:
    """Panoptic ids (h,w) as a picture (h,w,3): one colour an id."""
    ids = np.asarray(ids, dtype=np.int64)
    hues = np.stack([(ids * 67 + 40) % 200 + 40, (ids * 151 + 90) % 200 + 40,
                     (ids * 97 + 150) % 200 + 40], -1)
    return hues.astype(np.uint8)


def name_segments(figure: Picture, ids, names: Sequence[str]) -> Picture:
    """Write below a figure which colour of `segments` is which of the ids' names."""
    figure.set_figheight(figure.get_figheight() + .5)
    figure.legend(handles=[Patch(color=segments([[i]])[0, 0] / 255, label=names[i])
                           for i in np.unique(np.asarray(ids))],
                  loc="outside lower center", ncols=7, frameon=False, fontsize=8)
    return figure


def heat(values) -> np.ndarray:
    """A map (h,w) as a grey picture (h,w,3), its smallest value black and its largest white."""
    values = np.asarray(values, dtype=float)
    span = values.max() - values.min()
    level = (values - values.min()) / (span if span > 0 else 1)
    return np.repeat((level * 255).astype(np.uint8)[..., None], 3, -1)


def matrix(image: np.ndarray, rows: Sequence[str], columns: Sequence[str] = (),
           cell: tuple[int, int] = (1, 1), above: int = 0, size: tuple[float, float] = (4.2, 3.9),
           left: float = .17, labels: tuple[str, str] = ("", "")) -> Picture:
    """The picture (h,w,3) of a matrix with a word at each row and column, `labels` for x and y.

    A cell is `cell` pixels high and wide, the first below `above` pixels of something else; the
    words of the rows take the part `left` of the width.
    """
    figure = grid([image], columns=1)
    figure.set_size_inches(*size)
    figure.set_layout_engine("none")
    ax, low = figure.axes[0], .12 if labels[0] else .07
    ax.set_position((left, low, .99 - left, .98 - low))
    ax.set_axis_on()
    ax.set_yticks([above + cell[0] * (i + .5) - .5 for i in range(len(rows))], rows)
    ax.set_xticks([cell[1] * (i + .5) - .5 for i in range(len(columns))], columns)
    ax.tick_params(labelsize=8)
    ax.set_xlabel(labels[0], fontsize=9)
    ax.set_ylabel(labels[1], fontsize=9)
    return figure


def milestones(log: Sequence[dict], size: float = 2.4) -> Picture:
    """The samples that a training log kept at its milestones, from the first to the last."""
    kept = [line for line in log if "milestone" in line]
    images = [np.array(Image.open(io.BytesIO(base64.b64decode(line["milestone"]["png"]))))
              for line in kept]
    figure = Picture(9, 1.1 * size * -(-len(images) // 2) * .62)
    axes = [*figure.subplots(-(-len(images) // 2), 2, squeeze=False).flat]   # gone through twice
    for ax in axes:
        ax.set_axis_off()
    for ax, line, image in zip(axes, kept, images, strict=False):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(f"after {line['step']} steps", fontsize=9, color=INK)
    return figure


