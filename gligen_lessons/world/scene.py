"""A scene is plain data: where it is, what the sky does, and the things in it.

Everything else in the world (picture, masks, boxes, captions, edits) is a function of a Scene, so
a change of the data is an edit whose before and after are exact.
"""

import json
import math
import random
from dataclasses import dataclass, replace
from numbers import Real

from ..reading import as_whole
from . import vocabulary as v

MAX_THINGS = 6
ASPECT = {"person": .62, "robot": .66, "monkey": .74, "cat": 1.05, "fish": 1.55, "car": 1.9,
          "boat": 1.05, "house": .98, "tree": .78, "flower": .62, "mushroom": .95,
          "umbrella": .98, "balloon": .74, "bird": 1.3, "star": 1.05, "rocket": .62,
          "snail": 1.45, "kite": .8}
SHORT = {"car": .62, "fish": .62, "snail": .7, "bird": .62, "cat": .85, "star": .7, "kite": .9}
POSE_ANGLES = {  # degrees: shoulder, elbow (left, right), hip, knee (left, right), lean
    "standing": (18, 8, 18, 8, 6, 0, 6, 0, 0),
    "waving": (142, 25, 16, 8, 6, 0, 6, 0, 0),
    "walking": (38, -12, -6, 34, 26, -10, -8, 8, 3),
    "cheering": (150, 12, 150, 12, 12, 0, 12, 0, 0),
    "dancing": (96, 62, 60, -74, 30, -22, 8, 0, -7),
    "jumping": (112, 30, 112, 30, 38, -58, 38, -58, 0),
}


@dataclass(frozen=True)
class Thing:
    """One thing: `x` its centre and `y` its foot (0..1, y down), `size` its height (0..1).

    `flip` mirrors it, `pose` holds nine joint angles in degrees (posable categories only) and
    `variant` (0..1) chooses what no word names, such as hair.
    """

    category: str
    colour: str
    pattern: str = "plain"
    x: float = .5
    y: float = .9
    size: float = .4
    flip: bool = False
    pose: tuple[float, ...] = ()
    variant: float = .5

    def __post_init__(self):
        _choose("category", self.category, v.CATEGORIES)
        _choose("colour", self.colour, v.COLOURS)
        _choose("pattern", self.pattern, v.PATTERNS)
        for name in ("x", "y", "size", "variant"):
            _finite(name, getattr(self, name))
        for angle in self.pose:
            _finite("every angle of a pose", angle)
        if not 0 <= self.variant <= 1:
            raise ValueError(f"A thing's variant lies in 0..1, got {self.variant}.")
        if not (-1 <= self.x <= 2 and -1 <= self.y <= 2):
            raise ValueError(f"A thing's x and y lie in 0..1, or at most one picture outside; "
                             f"got {self.x}, {self.y}.")
        if not .02 <= self.size <= 1.5:
            raise ValueError(f"A thing's size is its height as a part of the picture's, "
                             f"0.02 to 1.5; got {self.size}.")
        posable = self.category in v.POSABLE
        if posable and self.flip:
            raise ValueError(f"A {self.category} is mirrored by its pose, not by flip: its left "
                             "hand must stay its left hand.")
        if posable and not self.pose:
            object.__setattr__(self, "pose", POSE_ANGLES["standing"])
        if len(self.pose) != (9 if posable else 0):
            raise ValueError(f"A {self.category} takes {9 if posable else 0} pose angles, "
                             f"got {len(self.pose)}.")

    @property
    def width(self) -> float:
        """The width its category is drawn in, as a part of the picture's width."""
        return self.size * ASPECT[self.category]


@dataclass(frozen=True)
class Scene:
    """A place, a time, a weather with an amount (0..1), a style, and up to six things.

    `horizon` (0..1, y down) is where the sky ends; `hills` are (centre, width, height).
    """

    ground: str = "grass"
    time: str = "day"
    weather: str = "clear"
    amount: float = 0.
    style: str = "flat"
    horizon: float = .5
    hills: tuple[tuple[float, float, float], ...] = ()
    things: tuple[Thing, ...] = ()

    def __post_init__(self):
        _choose("ground", self.ground, v.GROUNDS)
        _choose("time", self.time, v.TIMES)
        _choose("weather", self.weather, v.WEATHERS)
        _choose("style", self.style, v.STYLES)
        for name in ("amount", "horizon"):
            _finite(name, getattr(self, name))
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"A scene's {name} lies in 0..1, got {getattr(self, name)}.")
        for hill in self.hills:
            if len(hill) != 3:
                raise ValueError(f"A hill is (centre, width, height), got {hill}.")
            for number in hill:
                _finite("every number of a hill", number)
        if len(self.things) > MAX_THINGS:
            raise ValueError(f"A scene holds at most {MAX_THINGS} things, got {len(self.things)}.")

    def with_thing(self, index: int, **changes) -> "Scene":
        """The same scene with one thing changed."""
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))


def _choose(what: str, word: str, words) -> None:
    if word not in words:
        raise ValueError(f"There is no {what} {word!r}; choose from {', '.join(words)}.")


def _finite(what: str, number: float) -> None:
    if not isinstance(number, Real) or not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number, got {number!r}.")


class Dice:
    """Draws that are the same on every machine and Python: built on `random.random` alone."""

    def __init__(self, seed: int):
        self._random = random.Random(seed).random

    def chance(self, p: float) -> bool:
        return self._random() < p

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()

    def pick(self, items):
        """One of the items, each as likely as the others."""
        items = tuple(items)
        return items[int(self._random() * len(items))]


def scene(seed: int) -> Scene:
    """The scene of a seed, by the rule of the split that the seed belongs to."""
    seed = as_whole(seed, "A seed")
    rule = v.split_of(seed)
    dice = Dice(seed)
    place = _place(dice, rule)
    count = 1 if rule.single else dice.pick((1, 2, 2, 3, 3, 4))
    things: list[Thing] = []
    for number in range(count):
        thing = _try_thing(dice, rule, place, things, first=number == 0)
        if thing:
            things.append(thing)
    return replace(place, things=tuple(things))


def _place(dice: Dice, rule: v.Split) -> Scene:
    """An empty scene: ground, sky, weather and style."""
    weather = dice.pick(("clear",) * 4 + ("rain", "snow", "fog"))
    style = dice.pick(("flat",) * 4 + ("outline", "glow"))
    hills = tuple((dice.between(0, 1), dice.between(.3, .8), dice.between(.06, .2))
                  for _ in range(dice.pick((0, 1, 2))))
    place = Scene(ground=dice.pick(v.GROUNDS), time=dice.pick(v.TIMES), weather=weather,
                  amount=0. if weather == "clear" else round(dice.between(.25, 1), 2),
                  style=style, horizon=round(dice.between(.36, .6), 3), hills=hills)
    if rule.single:
        place = replace(place, weather="clear", amount=0., style="flat")
    return place


def _try_thing(dice: Dice, rule: v.Split, place: Scene, others: list[Thing],
               first: bool) -> Thing | None:
    """A thing that fits beside the others, or None after forty tries."""
    for _ in range(40):
        thing = _thing(dice, rule, place, must=first)
        if all(overlap(thing, other) < .4 for other in others):
            return thing
    return None


def _thing(dice: Dice, rule: v.Split, place: Scene, must: bool) -> Thing:
    """One random thing; the first of a scene fulfils what its split demands."""
    colour, category = _name(dice, rule, must)
    size = (dice.between(.6, .8) if rule.single else dice.between(.22, .52))
    size *= SHORT.get(category, 1.)
    width = size * ASPECT[category]
    x = dice.between(width / 2 + .01, .99 - width / 2)
    posable = category in v.POSABLE
    return Thing(category, colour, "plain" if rule.single else _pattern(dice),
                 round(x, 4), round(_foot(dice, category, size, place.horizon), 4),
                 round(size, 4), not posable and dice.chance(.5),
                 _pose(dice) if posable else (), round(dice.between(0, 1), 4))


def _name(dice: Dice, rule: v.Split, must: bool) -> tuple[str, str]:
    """Colour and category, with held-out pairs as the split's rule says."""
    if must and rule.pairs == "always":
        return dice.pick(sorted(v.HELD_OUT))
    words = rule.must if must and rule.must else rule.categories
    while True:
        pair = dice.pick(v.COLOURS), dice.pick(words)
        if rule.pairs == "any" or pair not in v.HELD_OUT:
            return pair


def _pattern(dice: Dice) -> str:
    return dice.pick(("plain",) * 5 + v.PATTERNS[1:])


def _pose(dice: Dice) -> tuple[float, ...]:
    """A named pose, mirrored half of the time, with every angle a little off."""
    a = [angle + dice.between(-9, 9) for angle in POSE_ANGLES[dice.pick(v.POSES)]]
    if dice.chance(.5):
        a = [*a[2:4], *a[0:2], *a[6:8], *a[4:6], -a[8]]
    return tuple(round(angle, 1) for angle in a)


def _foot(dice: Dice, category: str, size: float, horizon: float) -> float:
    """Where a thing's lowest point goes: in the air, or on the ground and inside the picture."""
    if category in v.AIRBORNE:
        return dice.between(size + .02, max(size + .04, min(.97, horizon + .12)))
    return dice.between(max(horizon + .07, size + .02), .97)


def overlap(a: Thing, b: Thing) -> float:
    """Shared area of two things' frames as a part of the smaller frame."""
    w = min(a.x + a.width / 2, b.x + b.width / 2) - max(a.x - a.width / 2, b.x - b.width / 2)
    h = min(a.y, b.y) - max(a.y - a.size, b.y - b.size)
    return max(0., w) * max(0., h) / min(a.width * a.size, b.width * b.size)


def to_json(scene: Scene) -> str:
    """The scene as one line of JSON."""
    return json.dumps(vars(scene) | {"things": [vars(thing) for thing in scene.things]})


def from_json(text: str) -> Scene:
    """The scene of a line of JSON; raises ValueError that names what is wrong in it."""
    try:
        data = json.loads(text)
        things = tuple(Thing(**{**t, "pose": tuple(t.get("pose", ()))}) for t in data["things"])
        hills = tuple(tuple(h) for h in data["hills"])
        return Scene(**{**data, "things": things, "hills": hills})
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"This is not a scene in JSON: {error}.") from error
