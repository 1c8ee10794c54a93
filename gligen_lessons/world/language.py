"""What can be said of a scene: phrases for its things, captions for the whole, relations."""

import zlib

from .scene import Dice, Scene, Thing, to_json
from .vocabulary import article

PATTERN_WORD = {"striped": "striped", "spotted": "spotted", "checked": "checked"}
GROUND_WORDS = {"grass": "on the grass", "sand": "on the sand", "snow": "on the snow",
                "road": "on the road", "water": "by the water"}
TIME_WORDS = {"day": "by day", "sunset": "at sunset", "night": "at night"}
STYLE_WORDS = {"flat": "", "outline": "a colouring book page of ",
               "glow": "a glowing night light of "}
FAR = .18                                                 # how far apart "left of" needs


def phrase(thing: Thing, colour: bool = True, pattern: bool = True) -> str:
    """The name of a thing without its article: "striped red car", "person in red"."""
    words = [PATTERN_WORD.get(thing.pattern, "")] if pattern else []
    words += [thing.colour] if colour else []
    words = [w for w in words if w]
    if thing.category == "person":
        return "person in " + " ".join(words) if words else "person"
    return " ".join([*words, thing.category])


def named(thing: Thing, colour: bool = True, pattern: bool = True) -> str:
    """The phrase with "a" or "an"."""
    return article(phrase(thing, colour, pattern))


def weather_words(scene: Scene) -> str:
    """The weather as a caption says it; an amount below .35 is light, above .7 heavy."""
    if scene.weather == "clear" or scene.amount == 0:
        return ""
    strength = "light" if scene.amount < .35 else "heavy" if scene.amount > .7 else ""
    return "in " + " ".join(w for w in (strength, scene.weather) if w)


def relation(a: Thing, b: Thing) -> str:
    """How `a` stands to `b` in the picture, or "" where neither word would be clear."""
    dx, dy = a.x - b.x, (a.y - a.size / 2) - (b.y - b.size / 2)
    if abs(dx) >= max(FAR, abs(dy)):
        return "to the left of" if dx < 0 else "to the right of"
    if abs(dy) >= FAR:
        return "above" if dy < 0 else "below"
    return ""


def place_words(scene: Scene) -> str:
    """Ground, time and weather, as they follow the things in a caption."""
    words = GROUND_WORDS[scene.ground], TIME_WORDS[scene.time], weather_words(scene)
    return " ".join(w for w in words if w)


def listing(names: list[str]) -> str:
    """"a, b and c"; "nothing" for an empty list."""
    if not names:
        return "nothing"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def captions(scene: Scene) -> list[str]:
    """Five captions of a scene.

    The first names everything: each thing with pattern and colour, ground, time, weather and
    style. The second adds a relation, the third leaves the place out, the fourth the colours,
    the fifth puts the place first. The order of the things varies with the scene, never with a
    random state.
    """
    dice = Dice(zlib.crc32(to_json(scene).encode()))
    things = list(scene.things)
    if dice.chance(.5):
        things.reverse()
    style, place = STYLE_WORDS[scene.style], place_words(scene)
    full = listing([named(t) for t in things])
    return [full_caption(scene, things), related_caption(scene, things), f"{style}{full}",
            f"{style}{listing([named(t, False, False) for t in things])} {place}",
            f"{place}, {style}{full}"]


def full_caption(scene: Scene, things: list[Thing]) -> str:
    """The caption that names everything, the scene's things in this order."""
    full = listing([named(t) for t in things])
    return f"{STYLE_WORDS[scene.style]}{full} {place_words(scene)}"


def related_caption(scene: Scene, things: list[Thing]) -> str:
    """The same with the first relation between two of them that is clear."""
    return f"{STYLE_WORDS[scene.style]}{_related(things)} {place_words(scene)}"


def _related(things: list[Thing]) -> str:
    """The things with the first relation that is clear, or their listing."""
    for i, a in enumerate(things):
        for b in things[i + 1:]:
            if words := relation(a, b):
                rest = [named(t) for t in things if t is not a and t is not b]
                pair = f"{named(a)} {words} {named(b)}"
                return listing([pair, *rest]) if rest else pair
    return listing([named(t) for t in things])
