"""The pictures that carry facts: the graph of the course, key points, and what a cell shows."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from gligen_lessons import course_map, curriculum, show

ROOT = Path(__file__).resolve().parent.parent
ARROWS = curriculum.arrows()


def shown(figure):
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))


# ---------------------------------------------------------------------------- the graph

def test_the_graph_has_every_lesson():
    numbers = [*curriculum.LESSONS]
    assert len(numbers) >= 16 and numbers == sorted(numbers)
    written = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert written == {"00"} | {n for n, one in curriculum.LESSONS.items()
                                if curriculum.written(one)}


@pytest.mark.parametrize("start, stop", ARROWS)
def test_a_lesson_uses_earlier_ones_and_arrows_lead_to_the_right(start, stop):
    assert start < stop
    assert curriculum.LESSONS[start].column < curriculum.LESSONS[stop].column


def test_detr_is_needed_by_grounding_and_inpainting_only():
    assert [stop for start, stop in ARROWS if start == "07"] == ["09", "10"]


def test_no_two_lessons_share_a_place_and_no_straight_arrow_crosses_one():
    places = [(one.column, one.row) for one in curriculum.LESSONS.values()]
    assert len(set(places)) == len(places)
    for start, stop in ARROWS:
        (x0, y0), (x1, y1) = ((one.column, one.row) for one in (
            curriculum.LESSONS[start], curriculum.LESSONS[stop]))
        if y0 == y1:
            assert not {(x, y0) for x in range(x0 + 1, x1)} & set(places), (start, stop)


def test_words_stay_inside_their_frames():
    figure = course_map.lessons()
    figure.canvas.draw()
    ax = figure.axes[0]
    frames = {patch.get_window_extent() for patch in ax.patches
              if type(patch).__name__ == "FancyBboxPatch"}
    texts = [text for text in ax.texts
             if text.get_ha() == "center" and not text.get_text().isdigit()]
    assert len(texts) == 2 * (1 + len(curriculum.LESSONS))
    for text in texts:
        box = text.get_window_extent()
        assert any(f.x0 < box.x0 and box.x1 < f.x1 and f.y0 < box.y0 and box.y1 < f.y1
                   for f in frames), text.get_text()


def test_here_fills_one_lesson_and_nothing_else():
    plain, here = shown(course_map.lessons()), shown(course_map.lessons(here="07"))
    rows, columns = np.nonzero((plain != here).any(-1))
    node = course_map.NODE[0] * 100, course_map.NODE[1] * 100
    assert .8 < (columns.max() - columns.min()) / node[0] <= 1.02
    assert .8 < (rows.max() - rows.min()) / node[1] <= 1.05
    green = [int(show.COLOURS[2][k:k + 2], 16) for k in (1, 3, 5)]
    inside = slice(rows.min() + 48, rows.min() + 52), slice(columns.min() + 30, columns.min() + 50)
    assert (here[inside] == green).all() and not (plain[inside] == green).all(-1).any()
    assert (plain != shown(course_map.lessons(here="00"))).any()


def test_lessons_to_come_are_grey(monkeypatch):
    label = "grey: not written yet"
    todo = replace(curriculum.LESSONS["07"], builds="")
    monkeypatch.setitem(curriculum.LESSONS, "07", todo)
    texts = [text.get_text() for text in course_map.lessons().axes[0].texts]
    edges = {to_hex(patch.get_edgecolor()) for patch in course_map.lessons().axes[0].patches}
    assert label in texts and course_map.LATER in edges and show.COLOURS[2] not in edges
    for number, one in curriculum.LESSONS.items():
        monkeypatch.setitem(curriculum.LESSONS, number, replace(one, builds="something"))
    assert label not in [text.get_text() for text in course_map.lessons().axes[0].texts]


def test_a_lesson_that_is_not_there():
    with pytest.raises(ValueError, match=f"no lesson '17a'; .* 00 to {max(curriculum.LESSONS)}"):
        course_map.lessons(here="17a")


# ---------------------------------------------------------------------------- key points

def test_key_points_stand_on_their_pixels():
    points = np.array([[[.25, .5, 2], [.75, .5, 1], [.5, .25, 2], [0, 0, 0]]])
    figure = show.posed(np.zeros((1, 20, 40, 3), np.uint8), [points], [(1, 2), (1, 4)])
    bones = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    dots = [line for line in figure.axes[0].lines if line.get_linestyle() != "-"]
    hidden, seen = ({tuple(xy) for xy in line.get_xydata()} for line in dots)
    assert hidden == {(29.5, 9.5)} and seen == {(9.5, 9.5), (19.5, 4.5)}
    assert dots[0].get_markerfacecolor() == "white" != dots[1].get_markerfacecolor()
    assert [bone.get_xydata().tolist() for bone in bones] == [[[9.5, 9.5], [29.5, 9.5]]]


def test_boxes_stand_around_their_pixels_in_pictures_and_over_a_sheet():
    """A box that starts with column 10 has its edge at 9.5, before the middle of that pixel."""
    figure = show.boxed(np.zeros((1, 20, 40, 3), np.uint8), [[[.25, .5, .75, 1.]]], [["a car"]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["a car"]
    show.add_boxes(figure.axes[0], torch.tensor([[0., 0., .5, .5]]), width=1)
    drawn = [(one.get_bbox().bounds, one.get_linewidth()) for one in figure.axes[0].patches]
    assert drawn == [((9.5, 9.5, 20., 10.), 2), ((-.5, -.5, 20., 10.), 1)]
    assert len(figure.axes[0].texts) == 1


# ---------------------------------------------------------------------------- what a cell shows

def test_a_cell_shows_what_a_saved_file_holds():
    file = io.BytesIO()
    panels = {"a": ([0, 1], [1, 3]), "b": ([0, 1], [2, 0])}
    show.curve(panels, "x", "y", "two lines").savefig(file, format="png", dpi=100)
    saved = np.asarray(Image.open(file).convert("RGB"))
    figure = show.curve(panels, "x", "y", "two lines")
    few = shown(figure)
    figure.palette = 0
    np.testing.assert_array_equal(shown(figure), saved)
    off = abs(few.astype(int) - saved)                    # few colours: no difference to the eye
    assert off.mean() < .5 and len(np.unique(few.reshape(-1, 3), axis=0)) <= 64


def test_intervals_stand_from_top_to_bottom_and_groups_have_a_colour():
    ax, = show.intervals({"a": (.5, .2, .7), "b": (0, 0, 0), "c": (1, .9, 1)}, "x", [0, 1, 0]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.yaxis_inverted() and ax.get_xlabel() == "x"
    first, dot, *_, last, _ = ax.lines
    assert list(first.get_xdata()) == [.2, .7] and list(dot.get_xdata()) == [.5]
    assert first.get_color() == last.get_color() != ax.lines[2].get_color()


def test_a_matrix_has_a_word_at_the_middle_of_each_row_and_column():
    image = np.zeros((4 + 2 * 6, 3 * 5, 3), np.uint8)      # two rows of 6 px below 4, columns of 5
    ax, = show.matrix(image, ["a", "b"], ["p", "q", "r"], (6, 5), 4, labels=("x", "y")).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert list(ax.get_yticks()) == [6.5, 12.5] and list(ax.get_xticks()) == [2, 7, 12]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


def test_milestones_show_each_kept_picture_under_its_step():
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    log = [{"step": 1, "loss": 2.}, *({"step": n, "milestone": {"png": png}} for n in (5, 9, 20))]
    axes = show.milestones(log).axes
    assert [ax.get_title() for ax in axes] == [f"after {n} steps" for n in (5, 9, 20)] + [""]
    assert [len(ax.images) for ax in axes] == [1, 1, 1, 0]


# ---------------------------------------------------------------------------- points

def test_points_of_one_label_share_a_colour_and_paths_show_their_start():
    xy = torch.tensor([[0., 0.], [1., 1.], [1., 0.]])
    ax, = show.points({"three": xy}, labels=[torch.tensor([2, 0, 2])]).axes
    dots, = ax.collections
    first, second, third = dots.get_facecolors()[:, :3]
    assert (first == third).all() and (first != second).any()
    ax, = show.points({"paths": torch.stack([xy, xy + 1])}, lines=True).axes
    starts, ends = ax.collections
    assert (starts.get_offsets() == xy.numpy()).all() and not len(starts.get_facecolors())
    assert (ends.get_offsets() == xy.numpy() + 1).all()


def test_each_row_of_a_grid_gets_its_name():
    figure = show.name_rows(show.grid(torch.zeros(6, 3, 8, 8), columns=3), ["above", "below"])
    named = {i: ax.texts[0].get_text() for i, ax in enumerate(figure.axes) if ax.texts}
    assert named == {0: "above", 3: "below"}
