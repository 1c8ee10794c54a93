"""What the world draws: every thing in every dress, and labels that agree with the pixels."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gligen_lessons import world
from gligen_lessons.world import Scene, Thing, scene
from gligen_lessons.world import vocabulary as v
from gligen_lessons.world.backdrop import STUFF_ID, THING_ID
from gligen_lessons.world.pen import LINE
from gligen_lessons.world.posable import ARM, LEG, skeleton
from gligen_lessons.world.records import record
from gligen_lessons.world.render import SIZES, order
from gligen_lessons.world.scene import POSE_ANGLES, overlap

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
GENERAL = world.seeds("train", 60)


def reach(thing, style="flat", size=384):
    """How far a thing is drawn beyond its nominal frame, in parts of its height."""
    ids = world.render(Scene(things=(thing,), style=style), size).ids >= THING_ID
    (x0, y0, x1, y1) = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(ids, np.uint8)))
    x1, y1 = x0 + x1, y0 + y1
    beyond = (thing.x - thing.width / 2 - x0 / size, x1 / size - thing.x - thing.width / 2,
              thing.y - thing.size - y0 / size, y1 / size - thing.y)
    return ids, max(beyond) / thing.size


@pytest.mark.parametrize("category", v.CATEGORIES)
def test_every_thing_is_drawn_in_every_dress_and_inside_its_frame(category):
    poses = POSE_ANGLES.values() if category in v.POSABLE else [()]
    for pose in poses:
        thing = Thing(category, "red", x=.5, y=.8, size=.45, pose=tuple(pose))
        shape, beyond = reach(thing)
        assert shape.mean() > .15 * thing.width * thing.size
        assert beyond < (.12 if category in v.POSABLE else .03)       # arms that are spread out
    plain = {style: world.render(Scene(things=(thing,), style=style)) for style in v.STYLES}
    for style, pattern in itertools.product(v.STYLES, v.PATTERNS[1:]):
        drawn = world.render(Scene(things=(replace(thing, pattern=pattern),), style=style))
        np.testing.assert_array_equal(drawn.ids, plain["flat"].ids)   # a dress has no shape
        inside = drawn.ids >= THING_ID
        other = (np.abs(drawn.image.astype(int) - plain[style].image).max(2) > 12)
        assert other[inside].mean() > .04, (style, pattern)


@pytest.mark.parametrize("category", v.CATEGORIES)
def test_things_show_the_colour_that_names_them(category):
    for colour, rgb in v.COLOURS.items():
        drawn = world.render(Scene(things=(Thing(category, colour, size=.5),)), 384)
        near = (np.abs(drawn.image.astype(int) - rgb).max(2) <= 3)[drawn.ids >= THING_ID]
        assert near.mean() > .3, colour


def test_flipping_mirrors_a_thing():
    for category in set(v.CATEGORIES) - set(v.POSABLE):
        a, b = (world.render(Scene(horizon=1., things=(Thing(category, "red", flip=f),)), 384).ids
                >= THING_ID for f in (False, True))
        assert (a != b[:, ::-1]).sum() < .04 * a.sum(), category


def test_styles_and_times_and_grounds_change_the_picture():
    base = Scene(things=(Thing("cat", "red"),))
    first = world.render(base).image.astype(int)
    for change in [{"style": s} for s in v.STYLES[1:]] + [{"time": t} for t in v.TIMES[1:]] + [
            {"ground": g} for g in v.GROUNDS[1:]] + [
            {"weather": w, "amount": .8} for w in v.WEATHERS[1:]]:
        other = world.render(replace(base, **change)).image.astype(int)
        assert np.abs(other - first).mean() > 2, change


@pytest.mark.parametrize("weather", v.WEATHERS[1:])
def test_more_weather_covers_more(weather):
    bare = world.render(Scene(things=(Thing("car", "black"),))).image.astype(float)
    cover = [np.abs(world.render(Scene(weather=weather, amount=a, things=(Thing("car", "black"),)))
                    .image - bare).mean() for a in (0, .2, .5, .8, 1)]
    assert cover[0] == 0 and all(a < b for a, b in itertools.pairwise(cover))


def test_outlines_are_thin():
    """What a thing paints outside its own ids is its outline, nothing more."""
    for category in v.CATEGORIES:
        thing = Thing(category, "blue", x=.5, y=.7, size=.5)
        with_, without = (world.render(Scene(ground="sand", horizon=.9, things=t), 384)
                          for t in ((thing,), ()))
        grown = np.pad(with_.ids >= THING_ID, LINE + 1)
        near = np.max([np.roll(grown, (dy, dx), (0, 1)) for dy in range(-LINE - 1, LINE + 2)
                       for dx in range(-LINE - 1, LINE + 2)], axis=0)[LINE + 1:-LINE - 1,
                                                                      LINE + 1:-LINE - 1]
        other = (with_.image != without.image).any(2)[:240]           # above shadow and pond
        assert not (other & ~near[:240]).any(), category


# --- labels and pixels ------------------------------------------------------------------------

def test_boxes_and_masks_are_those_of_the_ids():
    for one in map(scene, GENERAL):
        drawn = world.render(one)
        shapes, found = world.masks(one, drawn.ids), world.boxes(one, drawn.ids)
        rle = coco_mask.encode(np.asfortranarray(shapes.transpose(1, 2, 0), np.uint8))
        x, y, w, h = coco_mask.toBbox(rle).T
        np.testing.assert_allclose(found * 128, np.stack([x, y, x + w, y + h], 1), atol=1e-4)
        stuff = np.isin(drawn.ids, list(STUFF_ID.values()))
        np.testing.assert_array_equal(shapes.sum(0) + stuff, 1)       # each pixel has one owner


def test_nearer_things_hide_farther_ones():
    """The ids are those of each thing drawn alone, laid over each other from far to near."""
    for seed in GENERAL[:40]:
        one = scene(seed)
        drawn = world.render(one)
        laid = np.zeros_like(drawn.ids)
        for i in order(one):
            alone = world.render(replace(one, things=(one.things[i],))).ids >= THING_ID
            laid[alone] = THING_ID + i
        np.testing.assert_array_equal(np.where(drawn.ids >= THING_ID, drawn.ids, 0), laid)
        depths = [drawn.depth[drawn.ids == THING_ID + i].max(initial=0) for i in order(one)]
        assert all(far >= near for far, near in itertools.pairwise(depths))


def test_depth_runs_from_the_sky_to_the_viewer():
    for one in map(scene, GENERAL):
        drawn = world.render(one)
        assert drawn.depth.min() >= 0 and drawn.depth.max() <= 1
        assert (drawn.depth[drawn.ids == STUFF_ID["sky"]] == 1).all()
        ground = drawn.ids == STUFF_ID[one.ground]
        for column in (0, 64, 127):
            assert (np.diff(drawn.depth[ground[:, column], column]) <= 0).all()
        for i in range(len(one.things)):
            assert len(np.unique(drawn.depth[drawn.ids == THING_ID + i])) == 1


@pytest.mark.parametrize("size", SIZES)
def test_every_size_shows_the_same_scene(size):
    """Boxes agree to two pixels of the smaller picture."""
    for one in map(scene, GENERAL[:4]):
        small, large = world.render(one, size), world.render(one, 384)
        assert small.image.shape == (size, size, 3) and small.depth.shape == (size, size)
        assert small.image.dtype == small.ids.dtype == np.uint8
        np.testing.assert_allclose(world.boxes(one, small.ids), world.boxes(one, large.ids),
                                   atol=2.01 / size)


def test_a_hidden_thing_has_an_empty_box():
    one = Scene(things=(Thing("flower", "red", size=.2, y=.8),
                        Thing("house", "blue", size=.6, y=.95)))
    drawn = world.render(one)
    assert not world.boxes(one, drawn.ids)[0].any() and not world.masks(one, drawn.ids)[0].any()
    assert record(one).categories == ["house"]


def posed():
    """Scenes of general splits that hold posable things."""
    return [one for one in map(scene, world.seeds("train", 150))
            if any(t.category in v.POSABLE for t in one.things)]


def test_key_points_are_seen_on_their_own_thing_or_hidden_by_a_nearer_one():
    hidden = 0
    for one in posed():
        drawn = world.render(one)
        near = {THING_ID + i: place for place, i in enumerate(order(one))}
        for i, points in enumerate(world.keypoints(one, drawn.ids)):
            if one.things[i].category not in v.POSABLE:
                assert not points.any()
                continue
            for x, y, seen in points:
                if not seen:
                    assert x == y == 0
                    continue
                owner = int(drawn.ids[int(y * 128), int(x * 128)])
                assert seen == 2 if owner == THING_ID + i else seen == 1
                hidden += seen == 1
                assert seen == 2 or near.get(owner, -1) > near[THING_ID + i], (one, i)
    assert hidden > 5                                     # or the rule above was never asked


@pytest.mark.parametrize("category", v.POSABLE)
def test_a_figure_alone_shows_all_seventeen(category):
    for number, pose in enumerate(POSE_ANGLES.values()):
        for size in (.24, .5):
            thing = Thing(category, "red", size=size, pose=pose, variant=number / 6)
            one = Scene(things=(thing,))
            points = world.keypoints(one, world.render(one).ids)[0]
            assert (points[:, 2] == 2).all(), np.array(v.KEYPOINTS)[points[:, 2] != 2]


@pytest.mark.parametrize("category", v.POSABLE)
def test_left_is_on_the_right_of_the_picture_and_limbs_keep_their_length(category):
    for one in posed():
        for thing in one.things:
            if thing.category != category:
                continue
            at = skeleton(thing)
            for part in ("eye", "ear", "shoulder", "hip"):
                assert at[f"left_{part}"][0] > at[f"right_{part}"][0]
            assert at["nose"][1] > at["left_shoulder"][1] > at["left_hip"][1]
            for side in ("left", "right"):
                assert math.dist(at[f"{side}_shoulder"], at[f"{side}_elbow"]) == pytest.approx(
                    ARM, abs=.01)
                assert math.dist(at[f"{side}_knee"], at[f"{side}_ankle"]) == pytest.approx(LEG)
            assert min(at["left_ankle"][1], at["right_ankle"][1]) == pytest.approx(.045)


def test_things_do_not_bury_each_other():
    """Of every thing that was drawn from a seed more than a third is seen."""
    for one in map(scene, GENERAL):
        drawn = world.render(one)
        assert all(overlap(a, b) < .4 for a, b in itertools.combinations(one.things, 2))
        for i, thing in enumerate(one.things):
            alone = (world.render(replace(one, things=(thing,))).ids >= THING_ID).sum()
            assert (drawn.ids == THING_ID + i).sum() > alone / 3
