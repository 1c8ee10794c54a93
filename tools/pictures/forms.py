"""Lesson 11's diagram: one scene in four forms of grounding, and one kind of gate for all."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gligen_lessons.datasets.grounding_inputs import semantic_numbers
from gligen_lessons.show import INK, add_figures, segments
from gligen_lessons.world import Scene, Thing, boxes, keypoints, named, render
from gligen_lessons.world.coco_out import SKELETON
from gligen_lessons.world.scene import POSE_ANGLES

from .diagrams import (
    BLUE,
    GOLD,
    GREEN,
    ORANGE,
    PURPLE,
    arrow,
    canvas,
    frame,
    label,
    panel,
    photo,
    rounded,
)

SCENE = Scene(horizon=.5, things=(
    Thing("robot", "yellow", x=.29, y=.92, size=.62, pose=POSE_ANGLES["waving"]),
    Thing("house", "blue", pattern="striped", x=.73, y=.72, size=.42)))
FORMS = (("boxes", PURPLE, "phrase, four coordinates", 2, "2 of 30"),
         ("key points", GREEN, "joint, x and y", 5, "17 of 136"),
         ("a picture", GOLD, "phrase, what CLIP sees, its box", 2, "2 of 60"),
         ("a map", ORANGE, "what is in each part", 7, "64 of 64"))   # tokens: drawn, said
TOP, SIDE = 72, 230                                       # of the pictures


def spatial_forms() -> Figure:
    """Boxes, key points, a picture and a map become tokens, which one kind of gate reads."""
    figure, ax = canvas(1204, 545)
    drawn = render(SCENE, 384)
    panels = _panels(drawn)
    for k, (form, image) in enumerate(zip(FORMS, panels, strict=True)):
        name, colour, says, used, tokens = form
        x = 16 + 297 * k
        panel(ax, (x, 16, x + 281, 440), colour, name)
        photo(ax, image, x + 25, TOP, SIDE)
        label(ax, x + 140, TOP + SIDE + 18, says, 10)
        _tokens(ax, x + 140, colour, used)
        label(ax, x + 196, 432, tokens, 9)
        arrow(ax, (x + 140, 424), (x + 140, 472), colour=colour, width=2.2)
    for xyxy, thing in zip(boxes(SCENE, drawn.ids), SCENE.things, strict=True):
        frame(ax, xyxy, 41, TOP, SIDE, PURPLE, named(thing))
    rounded(ax, (16, 474, 1188, 526), BLUE, "gates of one kind: pixels attend to whatever tokens "
            "there are", 12.5, part=.2)
    return figure


def _panels(drawn) -> list[np.ndarray]:
    """What each of the four columns shows of the scene, (h,w,3) each."""
    x0, y0, x1, y1 = (384 * boxes(SCENE, drawn.ids)[1]).astype(int)
    return [drawn.image, _skeleton(drawn), drawn.image[y0:y1, x0:x1],
            segments(semantic_numbers(SCENE, drawn.ids))]


def _skeleton(drawn) -> np.ndarray:
    """The robot's key points on empty paper."""
    figure, ax = canvas(384, 384)
    ax.imshow(np.full((384, 384, 3), 238, np.uint8), extent=(0, 384, 384, 0))
    add_figures(ax, keypoints(SCENE, drawn.ids)[:1], SKELETON)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _tokens(ax: Axes, x: float, colour: str, used: int) -> None:
    """A small net, and the row of tokens that it makes; dashed for slots that are not used."""
    arrow(ax, (x, 334), (x, 350), colour=INK, width=1.3)
    rounded(ax, (x - 62, 351, x + 62, 378), colour, "position net", 10, part=.25)
    for i in range(7):
        left = x - 84 + 25 * i
        rounded(ax, (left, 396, left + 18, 424), colour, part=.45 if i < used else .1, radius=3,
                dashed=i >= used)
