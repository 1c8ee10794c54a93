"""Everything behind the things: sky, hills, ground, and the little islands and ponds."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .pen import CANVAS, PAPER, arc, mix
from .scene import Scene, Thing
from .vocabulary import AFLOAT, AIRBORNE, STUFF

STUFF_ID = {word: number for number, word in enumerate(STUFF, start=1)}
THING_ID = 16                                             # ids of things start here
SKY = {"day": ((120, 190, 242), (206, 234, 250)),
       "sunset": ((236, 120, 110), (254, 206, 142)),
       "night": ((38, 42, 96), (84, 88, 152))}
GROUND = {"grass": (134, 196, 98), "sand": (238, 214, 158), "snow": (226, 236, 248),
          "road": (142, 142, 154), "water": (74, 152, 208)}
DETAIL = {"grass": (108, 172, 80), "sand": (220, 192, 134), "snow": (202, 216, 236),
          "road": (238, 232, 200), "water": (134, 194, 232)}
HILL = {"grass": (112, 172, 108), "sand": (214, 182, 128), "snow": (196, 212, 236),
        "road": (122, 132, 140), "water": (96, 144, 132)}
DUSK = {"day": ((0, 0, 0), 0.), "sunset": ((206, 96, 70), .18), "night": ((28, 32, 84), .52)}
DEEP = (22, 22, 52)                                       # the dark room of the glow style


def tone(colour, scene: Scene):
    """A stuff colour at the scene's time of day and in its style."""
    colour = mix(colour, *DUSK[scene.time])
    if scene.style == "outline":
        return mix(colour, PAPER, .62)
    if scene.style == "glow":
        return mix(colour, DEEP, .72)
    return colour


@cache
def sky_strip(time: str, style: str, height: int) -> Image.Image:
    """The sky's gradient from the top to the horizon."""
    scene = Scene(time=time, style=style)
    top, low = (np.array(_sky(c, scene), dtype=float) for c in SKY[time])
    part = np.linspace(0, 1, max(2, height))[:, None]
    column = (top + (low - top) * part).round().astype(np.uint8)
    return Image.fromarray(column[:, None].repeat(CANVAS, axis=1))


def _sky(colour, scene: Scene):
    return tone(colour, Scene(style=scene.style))         # the sky's colours know the time already


def draw(image: Image.Image, ids: Image.Image, scene: Scene) -> None:
    """Paint the backdrop and mark its stuff."""
    pen, mark = ImageDraw.Draw(image), ImageDraw.Draw(ids)
    horizon = round(scene.horizon * CANVAS)
    image.paste(sky_strip(scene.time, scene.style, horizon), (0, 0))
    mark.rectangle((0, 0, CANVAS, CANVAS), fill=STUFF_ID["sky"])
    _heaven(pen, scene, horizon)
    for x, width, height in scene.hills:
        box = [(x - width / 2) * CANVAS, horizon - height * CANVAS,
               (x + width / 2) * CANVAS, horizon + height * CANVAS]
        pen.ellipse(box, fill=tone(HILL[scene.ground], scene))
        mark.ellipse(box, fill=STUFF_ID["hill"])
    pen.rectangle((0, horizon, CANVAS, CANVAS), fill=tone(GROUND[scene.ground], scene))
    mark.rectangle((0, horizon, CANVAS, CANVAS), fill=STUFF_ID[scene.ground])
    _texture(pen, scene, horizon)
    for thing in scene.things:
        _support(pen, mark, scene, thing)


def _heaven(pen, scene: Scene, horizon: int) -> None:
    """Sun and clouds by day, moon and stars by night; outlines when it is colouring-book paper."""
    x, y, r = 316, 50, 24
    if scene.time == "night":
        for k in range(22):
            sx, sy = (k * 97 + 31) % CANVAS, (k * 61 + 17) % max(20, horizon - 10)
            star = (sx, sy, sx + 2 + k % 2, sy + 2 + k % 2)
            pen.rectangle(star, fill=_sky((236, 232, 200), scene))
        crescent = arc(x, y, r, r, 60, 300) + arc(x + 12, y, r * .87, r * .87, 270, 90)
        pen.polygon(crescent, fill=_sky((246, 240, 206), scene))
        return
    if scene.time == "sunset":
        x, y, r = 300, horizon - 8, 38
    pen.ellipse((x - r, y - r, x + r, y + r), fill=_sky((255, 236, 150), scene))
    cloud = _sky((255, 255, 255) if scene.time == "day" else (255, 214, 190), scene)
    for cx, cy, s in ((70, 44, 1.), (196, 84, .7)):
        if cy + 14 * s < horizon:
            for dx, dy, cr in ((-26, 4, 13), (-8, -5, 18), (14, -2, 16), (30, 5, 11)):
                px, py, pr = cx + dx * s, cy + dy * s, cr * s
                pen.ellipse((px - pr, py - pr, px + pr, py + pr), fill=cloud)


def _texture(pen, scene: Scene, horizon: int) -> None:
    """A few tufts, ripples, pebbles or lane marks, growing towards the viewer."""
    colour = tone(DETAIL[scene.ground], scene)
    depth = CANVAS - horizon
    if scene.ground == "road":
        middle = horizon + depth * .55
        for x in range(14, CANVAS, 96):
            pen.rectangle((x, middle, x + 46, middle + 8), fill=colour)
        return
    for k in range(16):
        part = ((k * 7) % 16 + .5) / 16
        x, y, s = (k * 101 + 40) % CANVAS, horizon + 8 + part * (depth - 14), 4 + 5 * part
        if scene.ground == "grass":
            pen.line((x - s, y - s, x, y, x + s, y - 1.3 * s), fill=colour, width=3)
        elif scene.ground == "water":
            pen.arc((x - 2 * s, y - s, x, y + s), 0, 180, fill=colour, width=3)
            pen.arc((x, y - s, x + 2 * s, y + s), 0, 180, fill=colour, width=3)
        else:
            pen.ellipse((x - 1.6 * s, y - s * .5, x + 1.6 * s, y + s * .5), fill=colour)


def _support(pen, mark, scene: Scene, thing: Thing) -> None:
    """What a thing stands or floats on: an island in water, a pond on land, else a shadow."""
    if thing.category in AIRBORNE:
        return
    x, y = thing.x * CANVAS, thing.y * CANVAS
    rx, ry = thing.width * CANVAS * .5, max(5., thing.size * CANVAS * .07)
    wet = scene.ground == "water"
    if wet != (thing.category in AFLOAT):
        stuff = "sand" if wet else "water"
        box = (x - rx * 1.25, y - ry * 1.5, x + rx * 1.25, y + ry * 1.3)
        rim = tone(DETAIL[stuff], scene)
        pen.ellipse(box, fill=tone(GROUND[stuff], scene), outline=rim, width=4)
        mark.ellipse(box, fill=STUFF_ID[stuff])
        ground = stuff
    else:
        ground = scene.ground
    shadow = mix(tone(GROUND[ground], scene), (24, 24, 60), .26)
    pen.ellipse((x - rx * .9, y - ry * .7, x + rx * .9, y + ry * .6), fill=shadow)
