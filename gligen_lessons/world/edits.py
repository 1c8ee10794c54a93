"""Edits: an instruction, the scene before, and the scene after, which differ in nothing else."""

from dataclasses import dataclass, replace

from . import vocabulary as v
from .language import named, phrase
from .scene import ASPECT, MAX_THINGS, Dice, Scene, Thing, overlap

KINDS = ("recolour", "retexture", "replace", "add", "remove", "move", "time", "weather", "restyle")
TIME_TEXT = {"day": "make it day", "sunset": "make it sunset", "night": "make it night"}
STYLE_TEXT = {"flat": "make it a flat drawing", "outline": "make it a colouring book page",
              "glow": "make it a glowing night light"}


@dataclass(frozen=True)
class Edit:
    """One edit: its kind, its words, both scenes, and the index of the thing (None for all)."""

    kind: str
    instruction: str
    before: Scene
    after: Scene
    index: int | None = None


def edit(scene: Scene, kind: str, seed: int) -> Edit | None:
    """A random edit of one kind, or None where the scene has no room for it.

    Things to change are named without doubt (their phrase is the only one of its words), and no
    held-out pair of colour and category arises. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"There is no edit {kind!r}; choose from {', '.join(KINDS)}.")
    dice = Dice(seed)
    if kind in ("time", "weather", "restyle"):
        return WHOLE[kind](scene, dice)
    if kind == "add":
        return add(scene, dice)
    clear = [i for i, thing in enumerate(scene.things) if _unique(scene, thing)]
    if not clear:
        return None
    return SINGLE[kind](scene, dice.pick(clear), dice)


def _unique(scene: Scene, thing: Thing) -> bool:
    return sum(phrase(t) == phrase(thing) for t in scene.things) == 1


def _allowed(colour: str, category: str) -> bool:
    return (colour, category) not in v.HELD_OUT


def _of(scene: Scene, kind: str, text: str, index: int, **changes) -> Edit:
    return Edit(kind, text, scene, scene.with_thing(index, **changes), index)


def recolour(scene: Scene, index: int, dice: Dice) -> Edit:
    """Another colour for one thing."""
    thing = scene.things[index]
    colour = dice.pick(c for c in v.COLOURS
                       if c != thing.colour and _allowed(c, thing.category))
    text = (f"dress the {phrase(thing)} in {colour}" if thing.category == "person"
            else f"make the {phrase(thing)} {colour}")
    return _of(scene, "recolour", text, index, colour=colour)


def retexture(scene: Scene, index: int, dice: Dice) -> Edit:
    """Another pattern for one thing."""
    thing = scene.things[index]
    pattern = dice.pick(p for p in v.PATTERNS if p != thing.pattern)
    return _of(scene, "retexture", f"make the {phrase(thing)} {pattern}", index, pattern=pattern)


def replace_(scene: Scene, index: int, dice: Dice) -> Edit:
    """Another category in the same place, colour and pattern, where it can stand or fly.

    It is as tall as what it replaces, or as tall as the picture's width lets it be.
    """
    thing = scene.things[index]
    airborne = thing.category in v.AIRBORNE
    category = dice.pick(c for c in v.BASE + v.NOVEL if c != thing.category
                         and (c in v.AIRBORNE) == airborne and _allowed(thing.colour, c))
    size = round(min(thing.size, .96 / ASPECT[category]), 4)
    edge = size * ASPECT[category] / 2 + .01
    other = Thing(category, thing.colour, thing.pattern, min(max(thing.x, edge), 1 - edge),
                  thing.y, size, variant=thing.variant)
    things = (*scene.things[:index], other, *scene.things[index + 1:])
    return Edit("replace", f"turn the {phrase(thing)} into {named(other, pattern=False)}", scene,
                replace(scene, things=things), index)


def remove(scene: Scene, index: int, dice: Dice) -> Edit:
    """One thing less."""
    things = scene.things[:index] + scene.things[index + 1:]
    return Edit("remove", f"remove the {phrase(scene.things[index])}", scene,
                replace(scene, things=things), index)


def move(scene: Scene, index: int, dice: Dice) -> Edit | None:
    """One thing further left or right, in the picture and in sight, or None without room."""
    thing = scene.things[index]
    low, high = thing.width / 2 + .01, .99 - thing.width / 2
    rooms = [("left", low, thing.x - .15), ("right", thing.x + .15, high)]
    rooms = [room for room in rooms if room[1] < room[2]]
    if not rooms:
        return None
    others = scene.things[:index] + scene.things[index + 1:]
    for _ in range(20):
        word, start, stop = dice.pick(rooms)
        x = round(dice.between(start, stop), 4)
        if all(overlap(replace(thing, x=x), other) < .4 for other in others):
            return _of(scene, "move", f"move the {phrase(thing)} to the {word}", index, x=x)
    return None


def add(scene: Scene, dice: Dice) -> Edit | None:
    """One base thing more, on top of nothing, or None where there is no room."""
    if len(scene.things) == MAX_THINGS:
        return None
    for _ in range(60):
        colour, category = dice.pick(v.COLOURS), dice.pick(v.BASE)
        size = dice.between(.22, .36)
        foot = (dice.between(size + .02, scene.horizon + .05) if category in v.AIRBORNE
                else dice.between(max(scene.horizon + .07, size + .02), .97))
        new = Thing(category, colour, "plain", .5, round(foot, 4), round(size, 4))
        edge = new.width / 2 + .01
        new = replace(new, x=round(dice.between(edge, 1 - edge), 4))
        if _allowed(colour, category) and all(overlap(new, t) < .1 for t in scene.things):
            after = replace(scene, things=(*scene.things, new))
            return Edit("add", f"add {named(new)}", scene, after, len(scene.things))
    return None


def change_time(scene: Scene, dice: Dice) -> Edit:
    """Another time of day."""
    time = dice.pick(t for t in v.TIMES if t != scene.time)
    return Edit("time", TIME_TEXT[time], scene, replace(scene, time=time))


def change_weather(scene: Scene, dice: Dice) -> Edit:
    """More or less of the weather there is, or some where the sky is clear."""
    if scene.weather == "clear":
        weather = dice.pick(w for w in v.WEATHERS if w != "clear")
        after = replace(scene, weather=weather, amount=round(dice.between(.4, 1), 2))
        return Edit("weather", f"add {weather}", scene, after)
    more = scene.amount < .6
    amount = dice.between(scene.amount + .3, 1) if more else dice.between(.1, scene.amount - .3)
    text = f"{'more' if more else 'less'} {scene.weather}"
    return Edit("weather", text, scene, replace(scene, amount=round(amount, 2)))


def restyle(scene: Scene, dice: Dice) -> Edit:
    """Another style of drawing."""
    style = dice.pick(s for s in v.STYLES if s != scene.style)
    return Edit("restyle", STYLE_TEXT[style], scene, replace(scene, style=style))


SINGLE = {"recolour": recolour, "retexture": retexture, "replace": replace_, "remove": remove,
          "move": move}
WHOLE = {"time": change_time, "weather": change_weather, "restyle": restyle}
