"""From a scene to pixels: the picture, its panoptic ids, its depth, its boxes and key points."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import backdrop, posable, things, weather
from .backdrop import STUFF_ID, THING_ID
from .pen import CANVAS, Pen
from .scene import Scene
from .vocabulary import AIRBORNE, KEYPOINTS, POSABLE

SIZES = (32, 48, 64, 96, 128, 192, 384)


@dataclass(frozen=True)
class Render:
    """A picture and what is known of every pixel.

    `image` (s,s,3) uint8. `ids` (s,s) uint8: below 16 the stuff of `STUFF_ID`, from 16 on the
    things of the scene in their order. `depth` (s,s) float32: 0 nearest, 1 the sky.
    """

    image: np.ndarray
    ids: np.ndarray
    depth: np.ndarray


def order(scene: Scene) -> list[int]:
    """Indices of the things from far to near: what hangs in the air first, then by foot."""
    return sorted(range(len(scene.things)), key=lambda i: (
        scene.things[i].category not in AIRBORNE, scene.things[i].y))


def render(scene: Scene, size: int = 128) -> Render:
    """Draw a scene at `size` pixels; raises ValueError for a size the canvas cannot reduce to."""
    if size not in SIZES:
        raise ValueError(f"A scene is drawn at one of {', '.join(map(str, SIZES))} pixels, "
                         f"got {size}.")
    canvas, marks = Image.new("RGB", (CANVAS, CANVAS)), Image.new("L", (CANVAS, CANVAS))
    backdrop.draw(canvas, marks, scene)
    for i in order(scene):
        thing = scene.things[i]
        drawn_as = getattr(posable if thing.category in POSABLE else things, thing.category)
        drawn_as(Pen(canvas, marks, thing, THING_ID + i, scene.style))
    factor = CANVAS // size
    ids = np.asarray(marks)[factor // 2::factor, factor // 2::factor]
    depth = layer_depth(scene, ids)
    image = weather.apply(np.asarray(canvas.reduce(factor)), ids, depth, scene)
    return Render(image, np.ascontiguousarray(ids), depth)


def layer_depth(scene: Scene, ids: np.ndarray) -> np.ndarray:
    """Depth of every pixel: sky 1, hills .9, ground falling to 0, each thing flat at its foot.

    What hangs in the air lies between hills and ground, in the order in which it is drawn.
    """
    rows = (np.arange(len(ids)) + .5) / len(ids)
    ground = .85 * (1 - rows) / max(1e-6, 1 - scene.horizon)
    depth = np.repeat(np.clip(ground, 0, .85)[:, None], ids.shape[1], axis=1)
    depth[ids == STUFF_ID["sky"]] = 1
    depth[ids == STUFF_ID["hill"]] = .9
    for i, thing in enumerate(scene.things):
        foot = .85 * (1 - thing.y) / max(1e-6, 1 - scene.horizon)
        air = .86 + .03 * (1 - min(1., thing.y))
        depth[ids == THING_ID + i] = air if thing.category in AIRBORNE else np.clip(foot, 0, .85)
    return depth.astype(np.float32)


def boxes(scene: Scene, ids: np.ndarray) -> np.ndarray:
    """The visible boxes (n,4) xyxy in 0..1, a row a thing; zeros for a hidden thing."""
    found = np.zeros((len(scene.things), 4), np.float32)
    for i in range(len(scene.things)):
        inside = ids == THING_ID + i
        columns, rows = inside.any(0).nonzero()[0], inside.any(1).nonzero()[0]
        if len(rows):
            found[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found / np.float32(len(ids))


def masks(scene: Scene, ids: np.ndarray) -> np.ndarray:
    """The visible masks (n,s,s) bool, one a thing."""
    return ids[None] == (THING_ID + np.arange(len(scene.things)))[:, None, None]


def keypoints(scene: Scene, ids: np.ndarray) -> np.ndarray:
    """COCO's key points (n,17,3): x, y in 0..1 and visibility.

    Visibility is 2 where the pixel shows its own thing, 1 where something hides it, and all three
    numbers are 0 outside the picture and for things that have no key points.
    """
    found = np.zeros((len(scene.things), len(KEYPOINTS), 3), np.float32)
    for i, thing in enumerate(scene.things):
        if thing.category not in POSABLE:
            continue
        for k, (x, y) in enumerate(posable.skeleton(thing).values()):
            x = thing.x + (-x if thing.flip else x) * thing.size
            y = thing.y - y * thing.size
            if 0 <= x < 1 and 0 <= y < 1:
                seen = ids[int(y * len(ids)), int(x * len(ids))] == THING_ID + i
                found[i, k] = x, y, 2 if seen else 1
    return found
