"""The words of the world, written down once: things, colours, patterns, grounds, and who sees what.

Three vocabularies keep open-set claims honest. BASE things come with captions, boxes and masks.
NOVEL things appear in captions only: generator and CLIP have seen them, grounding and DETR have
not. CONTROL things are seen by no model but the referee. HELD_OUT pairs of colour and category
are never together in anything that a model other than the referee sees.
"""

from dataclasses import dataclass

from ..reading import as_whole

BASE = ("person", "robot", "cat", "fish", "car", "boat", "house", "tree", "flower", "mushroom",
        "umbrella", "balloon")
NOVEL = ("monkey", "bird", "star", "rocket")
CONTROL = ("snail", "kite")
WORDS = BASE + NOVEL                                      # the categories that captions name
CATEGORIES = BASE + NOVEL + CONTROL

POSABLE = ("person", "robot", "monkey")
AIRBORNE = ("balloon", "bird", "star", "kite")            # float in the sky
AFLOAT = ("boat", "fish")                                 # need water under them

COLOURS = {
    "red": (222, 52, 48), "orange": (243, 138, 36), "yellow": (250, 212, 56),
    "green": (58, 158, 76), "blue": (48, 108, 222), "purple": (138, 74, 192),
    "pink": (246, 140, 184), "brown": (132, 84, 48), "black": (44, 42, 52),
    "white": (250, 250, 252),
}
PATTERNS = ("plain", "striped", "spotted", "checked")
GROUNDS = ("grass", "sand", "snow", "road", "water")
STUFF = ("sky", "hill") + GROUNDS
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "rain", "snow", "fog")
STYLES = ("flat", "outline", "glow")
POSES = ("standing", "waving", "walking", "cheering", "dancing", "jumping")

KEYPOINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
             "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
             "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle")

# One colour per base and novel category, spread so that every colour is kept back once or twice.
HELD_OUT = frozenset({
    ("blue", "person"), ("pink", "robot"), ("green", "cat"), ("purple", "fish"),
    ("yellow", "car"), ("red", "boat"), ("orange", "house"), ("white", "tree"),
    ("black", "flower"), ("brown", "mushroom"), ("green", "umbrella"), ("black", "balloon"),
    ("red", "monkey"), ("white", "bird"), ("purple", "star"), ("yellow", "rocket"),
})


@dataclass(frozen=True)
class Split:
    """A range of seeds and the rule by which its scenes are drawn.

    `pairs` says what becomes of HELD_OUT pairs: "never", "always" (at least one) or "any".
    `single` scenes hold one large plain thing in clear weather and flat style.
    """

    start: int
    stop: int
    categories: tuple[str, ...]
    pairs: str = "never"
    single: bool = False
    must: tuple[str, ...] = ()                            # at least one thing of these


_SEEN = BASE + NOVEL
_M = 1_000_000
SPLITS = {
    "train": Split(0, 10 * _M, _SEEN),
    "val": Split(10 * _M, 11 * _M, _SEEN),
    "test": Split(11 * _M, 12 * _M, _SEEN),
    "single-train": Split(12 * _M, 14 * _M, _SEEN, single=True),
    "single-test": Split(14 * _M, 15 * _M, _SEEN, single=True),
    "grounding-train": Split(20 * _M, 30 * _M, BASE),
    "grounding-val": Split(30 * _M, 31 * _M, BASE),
    "grounding-test": Split(31 * _M, 32 * _M, BASE),
    "pairs": Split(32 * _M, 33 * _M, _SEEN, pairs="always"),
    "novel": Split(33 * _M, 34 * _M, _SEEN, must=NOVEL),
    "control": Split(34 * _M, 35 * _M, CATEGORIES, must=CONTROL),
    "referee-train": Split(40 * _M, 50 * _M, CATEGORIES, pairs="any"),
    "referee-test": Split(50 * _M, 51 * _M, CATEGORIES, pairs="any"),
    "referee-single": Split(51 * _M, 52 * _M, CATEGORIES, pairs="any", single=True),
}


def split_of(seed: int) -> Split:
    """The split whose range holds `seed`. Raises ValueError for a seed outside all ranges."""
    seed = as_whole(seed, "A seed")
    for split in SPLITS.values():
        if split.start <= seed < split.stop:
            return split
    raise ValueError(f"Seed {seed} belongs to no split; the ranges are "
                     + ", ".join(f"{k} {s.start}..{s.stop - 1}" for k, s in SPLITS.items()) + ".")


def seeds(split: str, count: int, first: int = 0) -> range:
    """Seeds number `first` to `first + count` of a split.

    Raises ValueError for an unknown split or more seeds than it has.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; choose from {', '.join(SPLITS)}.")
    count, first = as_whole(count, "The number of seeds"), as_whole(first, "The first seed's place")
    chosen = SPLITS[split]
    size = chosen.stop - chosen.start
    if count < 0 or first < 0 or first + count > size:
        raise ValueError(f"Split {split!r} holds {size} seeds; asked for number {first} to "
                         f"{first + count - 1}.")
    return range(chosen.start + first, chosen.start + first + count)


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return ("an " if words[0] in "aeiou" else "a ") + words
