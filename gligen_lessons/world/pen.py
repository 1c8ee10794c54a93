"""The pen that draws a thing: picture and panoptic ids at once, in the thing's own coordinates."""

import math
from functools import cache

from PIL import Image, ImageChops, ImageDraw

from .scene import Thing
from .vocabulary import COLOURS

CANVAS = 384                                              # everything is drawn here, then reduced
LINE = 3                                                  # an outline's width on the canvas
PAPER = (252, 248, 236)

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """Colour `a` with `part` (0..1) of colour `b` in it."""
    return tuple(round(x + (y - x) * part) for x, y in zip(a, b, strict=True))


def light(colour: Colour) -> float:
    """How light a colour looks, 0 to 1 (ITU-R BT.601 luma)."""
    return (.299 * colour[0] + .587 * colour[1] + .114 * colour[2]) / 255


def ink_of(colour: Colour) -> Colour:
    """The outline that keeps a colour apart from every ground: darker, or lighter for black."""
    if light(colour) < .25:
        return (126, 128, 146)
    return mix(colour, (30, 28, 48), .34 if light(colour) > .9 else .5)


def tint_of(colour: Colour) -> Colour:
    """The second colour of a pattern: the same hue, lighter, or darker where it is light."""
    if light(colour) > .62:
        return mix(colour, (60, 50, 70), .26)
    return mix(colour, (255, 255, 255), .48)


@cache
def pattern_mask(pattern: str, period: int) -> Image.Image:
    """Where a pattern of `period` pixels shows its second colour; twice the canvas wide."""
    size = 2 * CANVAS
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    half = period // 2
    for row, y in enumerate(range(0, size, half)):
        for column, x in enumerate(range(0, size, half)):
            if pattern == "checked" and (row + column) % 2:
                draw.rectangle((x, y, x + half - 1, y + half - 1), fill=255)
            elif pattern == "spotted" and row % 2 == 0 and column % 2 == row // 2 % 2:
                draw.ellipse((x, y, x + half - 1, y + half - 1), fill=255)
        if pattern == "striped" and row % 2:
            draw.rectangle((0, y, size, y + half - 1), fill=255)
    return mask


class Pen:
    """Draws one thing in its own coordinates: x from its middle, y up from its foot, height 1.

    A fill is "body" (the thing's colour, with its pattern), "shade" and "light" (the same,
    darker and lighter), or a fixed colour. Each shape also marks the thing's id.
    """

    def __init__(self, image: Image.Image, ids: Image.Image, thing: Thing, number: int,
                 style: str):
        self.image, self.thing, self.number, self.style = image, thing, number, style
        self.draw, self.mark = ImageDraw.Draw(image), ImageDraw.Draw(ids)
        self.scale = thing.size * CANVAS
        self.turn = -1 if thing.flip else 1
        self.colour = COLOURS[thing.colour]
        self.line = LINE + 2 if style == "outline" else LINE

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point of the thing on the canvas."""
        return (self.thing.x * CANVAS + self.turn * x * self.scale,
                self.thing.y * CANVAS - y * self.scale)

    def paint(self, fill: str | Colour) -> tuple[Colour, Colour]:
        """A fill's colour and outline in the scene's style."""
        colour = self.colour
        if fill == "shade":
            black = light(colour) < .25
            colour = mix(colour, (255, 255, 255) if black else (30, 24, 60), .14 if black else .2)
        elif fill == "light":
            colour = mix(colour, (255, 255, 255), .5)
        elif fill != "body":
            colour = fill
        ink = ink_of(self.colour if fill in ("body", "shade", "light") else colour)
        if self.style == "outline":
            ink = self.colour if light(self.colour) < .8 else ink_of(self.colour)
            colour = mix(colour, PAPER, .5 if light(colour) < .9 else .2)
        return colour, ink

    def polygon(self, points: Points, fill: str | Colour = "body", line: bool = True) -> None:
        """A filled shape."""
        spots = [self.place(x, y) for x, y in points]
        colour, ink = self.paint(fill)
        self.draw.polygon(spots, fill=colour)
        self.mark.polygon(spots, fill=self.number)
        if fill == "body" and self.thing.pattern != "plain":
            self._pattern(lambda draw, dx, dy: draw.polygon(
                [(x - dx, y - dy) for x, y in spots], fill=255), spots, 0)
        if line:
            self.draw.line([*spots, spots[0], spots[1]], fill=ink, width=self.line)

    def stroke(self, points: Points, width: float, fill: str | Colour = "body",
               line: bool = True) -> None:
        """A thick line with round ends, for limbs, stalks and smiles."""
        spots = [self.place(x, y) for x, y in points]
        colour, ink = self.paint(fill)
        thick = max(2, round(width * self.scale))
        if line:
            _rope(self.draw, spots, thick + 2 * self.line - 2, ink)
        _rope(self.draw, spots, thick, colour)
        _rope(self.mark, spots, thick, self.number)
        if fill == "body" and self.thing.pattern != "plain":
            self._pattern(lambda draw, dx, dy: _rope(
                draw, [(x - dx, y - dy) for x, y in spots], thick, 255), spots, thick)

    def oval(self, x: float, y: float, rx: float, ry: float | None = None,
             fill: str | Colour = "body", line: bool = True, angle: float = 0.,
             start: float = 0., stop: float = 360.) -> None:
        """An ellipse, or the part of it between two angles (degrees, counter-clockwise)."""
        self.polygon(arc(x, y, rx, ry or rx, start, stop, angle), fill, line)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: str | Colour = "body",
             line: bool = True, round_: float = 0.) -> None:
        """A rectangle, its corners rounded by `round_`."""
        if not round_:
            return self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, line)
        r = round_
        self.polygon(arc(x1 - r, y1 - r, r, r, 0, 90) + arc(x0 + r, y1 - r, r, r, 90, 180)
                     + arc(x0 + r, y0 + r, r, r, 180, 270)
                     + arc(x1 - r, y0 + r, r, r, 270, 360), fill, line)

    def eye(self, x: float, y: float, r: float) -> None:
        """A round eye with a highlight."""
        self.oval(x, y, r, r * 1.15, (250, 250, 250), line=False)
        self.oval(x, y, r * .62, r * .8, (34, 32, 44), line=False)
        self.oval(x + r * .22, y + r * .32, r * .22, fill=(250, 250, 250), line=False)

    def smile(self, x: float, y: float, r: float, colour: Colour = (34, 32, 44)) -> None:
        """A smiling mouth."""
        self.stroke(arc(x, y, r, r * .8, 200, 340, count=7), .035, colour, line=False)

    def _pattern(self, shape, spots, margin: int) -> None:
        """Paint the pattern's second colour inside the shape that has just been filled."""
        xs, ys = [x for x, _ in spots], [y for _, y in spots]
        left, top = math.floor(min(xs)) - margin, math.floor(min(ys)) - margin
        w, h = math.ceil(max(xs)) + margin - left + 1, math.ceil(max(ys)) + margin - top + 1
        inside = Image.new("L", (w, h), 0)
        shape(ImageDraw.Draw(inside), left, top)
        period = min(64, max(14, round(self.scale * .16 / 2) * 2))
        ox, oy = (round(v) % (2 * period) for v in self.place(0, 0))
        dx, dy = (left - ox) % (2 * period), (top - oy) % (2 * period)
        w2, h2 = min(w, 2 * CANVAS - dx), min(h, 2 * CANVAS - dy)
        mask = pattern_mask(self.thing.pattern, period).crop((dx, dy, dx + w2, dy + h2))
        tint = tint_of(self.colour)
        if self.style == "outline":
            tint = mix(tint, PAPER, .2)
        self.image.paste(tint, (left, top), ImageChops.multiply(inside.crop((0, 0, w2, h2)), mask))


def arc(x: float, y: float, rx: float, ry: float, start: float = 0., stop: float = 360.,
        angle: float = 0., count: int = 0) -> Points:
    """Points on an ellipse between two angles, the whole turned by `angle` (degrees)."""
    count = count or max(5, round(abs(stop - start) / 13))
    tilt = math.radians(angle)
    turns = [math.radians(start + (stop - start) * i / (count - 1)) for i in range(count)]
    local = [(rx * math.cos(a), ry * math.sin(a)) for a in turns]
    return [(x + u * math.cos(tilt) - w * math.sin(tilt),
             y + u * math.sin(tilt) + w * math.cos(tilt)) for u, w in local]


def _rope(draw: ImageDraw.ImageDraw, spots, thick: int, fill) -> None:
    """A line of constant thickness whose ends and corners are round."""
    draw.line(spots, fill=fill, width=thick)
    r = thick / 2 - .5
    for x, y in spots:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
