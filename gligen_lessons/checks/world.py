"""Checks of lesson 0."""

from dataclasses import replace

import numpy as np
import torch

from ..world.backdrop import THING_ID
from ..world.scene import Scene, Thing
from . import Wrong, exercise, expect_close, looks_like


@exercise("gligen_lessons.boxes:xyxy_from_cxcywh")
def xyxy_from_cxcywh(attempt):
    """Boxes in a batch of two pictures with three boxes each."""
    middle = torch.tensor([[[.5, .4, .2, .6], [.3, .7, .1, .3], [.25, .5, .5, .4]],
                           [[.6, .2, .4, .1], [.9, .8, .2, .3], [.1, .3, .15, .35]]])
    cx, cy, w, h = (middle[..., k] for k in range(4))
    want = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
    mistakes = {
        "The corners lie half the width and half the height from the centre, not the whole.":
            torch.stack([cx - w, cy - h, cx + w, cy + h], -1),
        "This takes the first two numbers for the left top corner; they are the centre.":
            torch.stack([cx, cy, cx + w, cy + h], -1),
        "The order is left, top, right, bottom: both left and top come before right and bottom.":
            torch.stack([cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2], -1),
        "Width and height are swapped: w goes with cx, h with cy.":
            torch.stack([cx - h / 2, cy - w / 2, cx + h / 2, cy + w / 2], -1),
        "The last two numbers must be the right and bottom edge, not width and height.":
            torch.stack([cx - w / 2, cy - h / 2, w, h], -1)}
    error = expect_close(attempt(middle.clone()), want, "Draw one box on paper and mark its four "
                         "edges: left, top, right, bottom.", mistakes=mistakes)
    return f"finds the corners of 6 boxes (largest difference {error:.0e})"


def crowded_scene() -> tuple[Scene, np.ndarray]:
    """Three things and their panoptic ids (20,20): a bar, a block behind it, and one unseen."""
    scene = Scene(things=(Thing("car", "red", x=.4, y=.35, size=.15),
                          Thing("cat", "orange", x=.7, y=.75), Thing("house", "blue")))
    ids = np.full((20, 20), 3, np.uint8)
    ids[6:15, 11:17] = THING_ID + 1
    ids[4:7, 2:14] = THING_ID                             # hides a corner of the cat
    return scene, ids


@exercise("gligen_lessons.world.render:boxes")
def boxes(attempt):
    """Hand-made ids, so that rows and columns, ends and hidden things all matter."""
    scene, ids = crowded_scene()
    got = _as_rows(_found(attempt, scene, ids))
    want = np.array([[2, 4, 14, 7], [11, 6, 17, 15], [0, 0, 0, 0]], np.float32) / 20
    last = want - np.array([0, 0, .05, .05], np.float32) * (want[:, 2:3] > 0)
    first = want + np.array([.05, .05, 0, 0], np.float32) * (want[:, 2:3] > 0)
    size = np.concatenate([want[:, :2], want[:, 2:] - want[:, :2]], 1)
    whole = np.array([[t.x - t.width / 2, t.y - t.size, t.x + t.width / 2, t.y]
                      for t in scene.things], np.float32)
    mistakes = {
        "These are pixels. Divide by the picture's side, so that a box fits any size.": want * 20,
        "Rows and columns are swapped. In ids[y, x], any(0) looks down every column: that is x.":
            want[:, [1, 0, 3, 2]],
        "A pixel is lost on the right and at the bottom: a box ends where its last pixel ends, "
        "at index + 1.": last,
        "Only the last index gets one more: a box begins where its first pixel begins.": first,
        "The last two numbers must be the right and bottom edge, not width and height.": size,
        "This is the frame of the whole thing. Only the pixels that are seen count: use ids.":
            whole,
        "All boxes are empty. The ids of things start at THING_ID, those below it are stuff.":
            want * 0}
    error = expect_close(got, want, "Find the first and the last column, and row, in which "
                         "ids == THING_ID + i.", mistakes=mistakes)
    return f"finds 2 visible boxes and 1 hidden thing (largest difference {error:.0e})"


def _found(attempt, scene: Scene, ids: np.ndarray):
    """The learner's boxes; Wrong where only the hidden thing stops the attempt."""
    try:
        return attempt(scene, ids.copy())
    except (IndexError, ValueError, RuntimeError):
        attempt(replace(scene, things=scene.things[:2]), ids.copy())     # still stops: other cause
    raise Wrong("One thing is fully hidden: no pixel has its id, so its list of columns is empty "
                "and has no first entry. Leave its row at zero.")


def _as_rows(got) -> np.ndarray:
    """The learner's boxes as float32, or Wrong where rows are missing."""
    if got is None:
        raise Wrong("it returned None. Does it end with `return`?")
    whole, got = np.asarray(got), np.asarray(got, np.float32)
    if whole.dtype.kind == "i" and not whole.any():
        raise Wrong("All numbers are 0: an array of whole numbers cannot hold a fraction of the "
                    "picture's side. Or no pixel was found: the ids of things start at THING_ID.")
    if got.shape == (2, 4):
        raise Wrong("The hidden thing has no row. Every thing keeps its row, in the order of the "
                    "scene; one that nothing shows of gets four zeros.")
    return got


@exercise("gligen_lessons.world.language:phrase")
def phrase(attempt):
    """Every pattern, both switches, and the person, who wears a colour instead of having one."""
    cases = [(Thing("car", "red"), {}, "red car"),
             (Thing("car", "red", "striped"), {}, "striped red car"),
             (Thing("house", "blue", "checked"), {"colour": False}, "checked house"),
             (Thing("cat", "orange", "spotted"), {"pattern": False}, "orange cat"),
             (Thing("fish", "pink", "spotted"), {"colour": False, "pattern": False}, "fish"),
             (Thing("person", "green"), {}, "person in green"),
             (Thing("person", "white", "striped"), {}, "person in striped white"),
             (Thing("person", "red", "spotted"), {"colour": False, "pattern": False}, "person")]
    for thing, named, want in cases:
        got = attempt(thing, **named)
        if got != want:
            requested = ", ".join(["thing", *(f"{k}={v}" for k, v in named.items())])
            raise Wrong(f"{_slip(got, thing, named, want)} For this {thing.category}, "
                        f"phrase({requested}) is {want!r}; yours is {got!r}.")
    return f"names {len(cases)} things as the world does"


def _slip(got, thing: Thing, named: dict[str, bool], want: str) -> str:
    """What most likely went wrong in a phrase."""
    if not isinstance(got, str):
        return "A phrase is a string: return it."
    said = got.split()
    if got != " ".join(said):
        return "There is a space too many: join only the words that are there."
    if said[:1] in (["a"], ["an"], ["the"]):
        return "A phrase has no article; captions add it."
    if "plain" in said:
        return "Nobody says plain: a plain thing has no pattern word."
    for switch, word in (("colour", thing.colour), ("pattern", thing.pattern)):
        if not named.get(switch, True) and word in said:
            return f"The switch {switch}=False must leave the {switch} out."
    if thing.category == "person" and said[:2] != want.split()[:2]:
        return "A person wears the colour: person first, then in, then the words."
    if sorted(said) == sorted(want.split()):
        return "The order is pattern, colour, category."
    return "Put together the pattern's word, the colour and the category."


@exercise("gligen_lessons.boxes:iou")
def iou(attempt):
    """Three boxes against four, overlapping, nested and apart; then two boxes of no area."""
    a = torch.tensor([[.1, .2, .5, .6], [.55, .1, .95, .3], [.0, .7, .2, .95]])
    b = torch.tensor([[.3, .3, .7, .9], [.2, .3, .4, .5], [.6, .15, .8, .25], [.25, .1, .6, .2]])
    low = torch.maximum(a[:, None, :2], b[:, :2])
    sides = torch.minimum(a[:, None, 2:], b[:, 2:]) - low          # below 0 where they are apart
    shared, areas = sides.clamp(min=0).prod(-1), [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    both, loose = areas[0][:, None] + areas[1], sides.prod(-1)
    union, late = both - shared, loose.clamp(min=0)
    frame = (torch.maximum(a[:, None, 2:], b[:, 2:]) - torch.minimum(a[:, None, :2],
                                                                     b[:, :2])).prod(-1)
    mistakes = {
        "Boxes that do not touch share nothing: clamp width and height at 0.":
            (loose / (both - loose), both - loose),
        "Clamp width and height before you multiply: two negative sides make a positive area.":
            (late / (both - late), both - late),
        "The shared part is counted twice in the union: take it off once.":
            (shared / both, both),
        "This divides by the frame around both boxes; the union is what the two boxes fill.":
            (shared / frame, frame),
        "This divides by the smaller area; IoU divides by the union.":
            (shared / torch.minimum(areas[0][:, None], areas[1]), union)}
    got = attempt(a.clone(), b.clone())
    if torch.is_tensor(got):
        raise Wrong("it returned one tensor. Return two: the IoU and the union.")
    _look_for_slips_of_pairs(got, shared, both, frame)
    error = expect_close(got, (shared / union, union), "Shared: from the later left and top to "
                         "the earlier right and bottom. Union: both areas, less the shared one.",
                         mistakes=mistakes)
    if float(attempt(torch.zeros(1, 4), torch.zeros(1, 4))[0]) != 0:
        raise Wrong("two boxes of no area, such as those of hidden things, have IoU 0, not 0/0: "
                    "keep the union above zero where you divide by it.")
    return f"compares 13 pairs of boxes (largest difference {error:.0e})"


def _look_for_slips_of_pairs(got, shared, both, frame) -> None:
    """Refuse three answers that show in one of the two returned values alone."""
    if isinstance(got, tuple | list) and len(got) == 2:
        looks_like(got[0], {
            "The two are swapped: return the IoU first, then the union.": both - shared,
            "The guard against 0/0 must be tiny, such as 1e-9: here it replaces real unions, which "
            "are below 1, since boxes are normalised.": shared})
        looks_like(got[1], {
            "minimum and maximum are exchanged: what is shared begins at the later left and top "
            "and ends at the earlier right and bottom.": both - frame})
