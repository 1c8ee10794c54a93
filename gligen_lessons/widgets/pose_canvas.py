"""Skeletons that a learner bends, a word for each, and the picture that GLIGEN paints of them."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
import traitlets
from torch import Tensor

from .. import show
from ..images import png
from ..world import Scene, Thing, keypoints, render
from ..world.coco_out import SKELETON
from ..world.scene import POSE_ANGLES
from ..world.vocabulary import KEYPOINTS, POSABLE, article
from .painting import PAPER, PaintingCanvas, check_paint, page_of, phrase_label

STARTS = ("standing", "waving")                           # poses of the world, the first one first


def pose_canvas(paint: Callable, caption: str = "", figures: Sequence | None = None,
                words: Sequence[str] = (), choices: Sequence[str] = tuple(map(article, POSABLE)),
                seed: int = 0, limit: int = 2, picture: np.ndarray | None = None) -> "PoseCanvas":
    """A canvas with skeletons to bend, a word for each, and what `paint` makes of them.

    `paint(caption, keypoints, words, seed)` gives a picture (h,w,3) uint8; keypoints (n,17,3) are
    COCO's x, y in 0..1 and visibility, 2 where the joint counts; words are n of the `choices`;
    caption is what the learner writes besides. `figures` (n,17,3) to begin with: one that stands,
    unless given; their words: the first choice. `picture` (h,w,3) uint8 lies under them until
    another is painted. Raises TypeError for what cannot paint, ValueError for figures or words.
    """
    check_paint(paint, "caption, keypoints, words, seed")
    figures = [start_pose(STARTS[0])] if figures is None else figures
    words = list(words) or [choices[0]] * len(figures)
    canvas = PoseCanvas(paint, caption=caption, keypoints=list(figures), words=words,
                        choices=list(choices), seed=seed, limit=limit,
                        picture=b"" if picture is None else png(picture))
    canvas.check()
    return canvas


class PoseCanvas(PaintingCanvas):
    """Skeletons with words, a caption and a seed; and the picture painted of them.

    `keypoints` (n,17,3: x, y in 0..1 and COCO's visibility), `words`, `caption` and `seed` can be
    read and set: the page follows. `starts` are the poses that a new skeleton has, in turn. For
    scripts: CSS classes "pose-canvas", "pose-joint", "pose-word", "pose-mirror", "pose-hide", and
    those of every PaintingCanvas.
    """

    ASKED = ("caption", "keypoints", "words", "seed")
    _esm, _css = page_of("box_canvas", "grounding_canvas", "pose_canvas", view="PoseView")
    keypoints = traitlets.List().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    choices = traitlets.List(traitlets.Unicode(), minlen=1).tag(sync=True)
    limit = traitlets.Int(2, min=1).tag(sync=True)
    starts = traitlets.List(minlen=1).tag(sync=True)
    joints = traitlets.List([name.replace("_", " ") for name in KEYPOINTS]).tag(sync=True)
    bones = traitlets.List([[i - 1, k - 1] for i, k in SKELETON]).tag(sync=True)
    label = traitlets.Unicode("Paper with skeletons to bend").tag(sync=True)

    def __init__(self, paint: Callable, **traits):
        super().__init__(paint, **{"starts": [start_pose(name) for name in STARTS]} | traits)
        self.add_class("pose-canvas")

    @traitlets.validate("keypoints")
    def _on_the_paper(self, proposal) -> list:
        return [_placed(body, f"Figure {i}") for i, body in enumerate(proposal.value)]

    def check(self) -> None:
        """Raise ValueError where words or skeletons are too many, too few, or unknown."""
        n = len(self.keypoints)
        if n > self.limit:
            raise ValueError(f"{n} skeletons, but no more than {self.limit} fit: remove some.")
        if len(self.words) != n:
            raise ValueError(f"{len(self.words)} words and {n} skeletons: each needs one word.")
        for word in self.words:
            if word not in self.choices:
                raise ValueError(f"{word!r} is no word for a skeleton here; choose from "
                                 f"{', '.join(self.choices)}.")

    def _checked(self) -> tuple[str, Tensor, list[str], int]:
        if not self.keypoints and not self.caption.strip():
            raise ValueError("There is nothing to paint yet: add a skeleton, or write a caption.")
        self.check()
        points = torch.tensor(self.keypoints).reshape(-1, len(KEYPOINTS), 3)
        return self.caption, points, list(self.words), self.seed

    def described(self) -> str:
        """The skeletons in words, for those who see neither the page nor a still."""
        told = []
        for word, points in zip(self.words, np.array(self.keypoints), strict=False):
            seen = points[points[:, 2] == 2]
            (x0, y0), (x1, y1) = seen[:, :2].min(0), seen[:, :2].max(0)
            told.append(f"{word} with {len(seen)} joints from {x0:.0%} to {x1:.0%} of the width "
                        f"and {y0:.0%} to {y1:.0%} of the height")
        return (f"A canvas for painting in a pose (it is live where a kernel runs). Caption: "
                f"{self.caption or 'none'}. Skeletons: {'; '.join(told) or 'none yet'}. "
                f"{self._settings().capitalize()}.")

    def _lay_out(self, ax) -> None:
        show.add_figures(ax, self.keypoints, SKELETON)
        for i, (word, points) in enumerate(zip(self.words, np.array(self.keypoints), strict=False)):
            x, y = PAPER * points[:, 0].mean(), PAPER * points[:, 1].min() - 6
            phrase_label(ax, x, y, word, show.COLOURS[i % len(show.COLOURS)], "center")


@cache
def start_pose(name: str) -> list[list[float]]:
    """The key points (17,3) of a person of the world in one of its poses, in mid-picture.

    It is as large as the world draws the largest in its scenes.
    """
    scene = Scene(things=(Thing("person", "red", x=.5, y=.8, size=.52, pose=POSE_ANGLES[name]),))
    return keypoints(scene, render(scene).ids)[0].astype(float).round(4).tolist()


def _placed(body, where: str) -> list[list[float]]:
    """A figure (17,3), its hidden joints inside the picture, where they can be found again.

    Hidden ones that lie nowhere (outside, NaN, COCO's 0, 0) wait in the middle of the visible.
    ValueError is one sentence on what is wrong with the visible ones.
    """
    from ..grounding_inputs import one_figure

    one_figure(body, where)
    points = np.array([[float(x) for x in point] for point in body])
    places, seen = points[:, :2], points[:, 2] == 2
    found = ((places >= 0) & (places <= 1)).all(1) & places.any(1)
    places[~seen & ~found] = places[seen].mean(0)
    points[~seen, 2] = points[~seen, 2] == 1
    return points.tolist()
