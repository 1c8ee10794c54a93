"""Rain, snow and fog with an amount, and the light that glowing things throw."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .backdrop import THING_ID
from .pen import CANVAS
from .scene import Scene

DROPS = {"rain": 150, "snow": 130}                        # at amount 1
SHADE = {"rain": (206, 226, 250), "snow": (255, 255, 255), "fog": (224, 228, 236)}


def apply(image: np.ndarray, ids: np.ndarray, depth: np.ndarray, scene: Scene) -> np.ndarray:
    """The reduced picture (s,s,3) uint8 with the scene's glow and weather laid over it."""
    if scene.style == "glow":
        image = glow(image, ids)
    if scene.weather == "clear" or scene.amount == 0:
        return image
    if scene.weather == "fog":
        cover = (.78 * scene.amount * (.35 + .65 * depth))[..., None]
    else:
        drops = round(DROPS[scene.weather] * scene.amount)
        cover = veil(scene.weather, drops, len(image))[..., None]
    colour = np.array(SHADE[scene.weather], np.float32)
    return (image + (colour - image) * cover + .5).astype(np.uint8)


def glow(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Light spilled by the things onto what is behind them."""
    things = (ids >= THING_ID)[..., None]
    lamp = Image.fromarray(image * things)
    spill = np.asarray(lamp.filter(ImageFilter.BoxBlur(len(image) / 24)), np.uint16)
    return np.where(things, image, np.minimum(255, image + spill * 7 // 8)).astype(np.uint8)


@cache
def veil(kind: str, drops: int, size: int) -> np.ndarray:
    """How much `drops` drops or flakes cover each pixel, (s,s) in 0..1.

    The first drops are the same whatever their number: more weather only adds to less of it.
    """
    cover = Image.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(cover)
    for k in range(drops):
        x, y = (k * 0.754877666 % 1) * CANVAS, (k * 0.569840291 % 1) * CANVAS
        if kind == "rain":
            pen.line((x, y, x - 8, y + 26), fill=170, width=3)
        else:
            r = 3 + k % 3 * 1.5
            pen.ellipse((x - r, y - r, x + r, y + r), fill=235)
    return np.asarray(cover.reduce(CANVAS // size), np.float32) / 255
