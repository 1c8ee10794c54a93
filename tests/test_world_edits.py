"""An edit changes what it says and nothing else: in the data, in the pixels, in the words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from gligen_lessons import world
from gligen_lessons.world import Edit, Scene, Thing
from gligen_lessons.world import vocabulary as v
from gligen_lessons.world.backdrop import THING_ID
from gligen_lessons.world.scene import MAX_THINGS, overlap

SINGLE = ("recolour", "retexture", "replace", "add", "remove", "move")
WHOLE = ("time", "weather", "restyle")
FIELD = {"recolour": {"colour"}, "retexture": {"pattern"}, "move": {"x"},
         "replace": {"category", "pose", "flip", "x", "size"}}
PLACE = ("ground", "time", "weather", "amount", "style", "horizon", "hills")
SIZE = 128
INK, GLOW = 3, 6                                          # pixels: an outline, how far light spills

numbers = st.integers(0, 20_000)
law = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def made(kind, seed):
    """An edit of a scene from the split that edits are trained on."""
    found = world.edit(world.scene(seed), kind, seed + 1)
    assume(found is not None)
    return found


def changed(a, b, names):
    return {name for name in names if getattr(a, name) != getattr(b, name)}


def touched(edit):
    """The things that an edit takes away, and those that it puts there."""
    before, after = list(edit.before.things), list(edit.after.things)
    same = [t for t in before if t in after]
    return [t for t in before if t not in same], [t for t in after if t not in same]


def room(edit):
    """Where an edit of one thing may change pixels (s,s): the silhouettes, drawn alone, of what
    goes and what comes, with their ink, supports, and, where things glow, their light."""
    gone, new = touched(edit)
    allowed = Image.new("L", (SIZE, SIZE), 0)
    pen = ImageDraw.Draw(allowed)
    for thing in gone + new:
        alone = world.render(replace(edit.before, things=(thing,)), SIZE).ids >= THING_ID
        shape = Image.fromarray(alone.astype(np.uint8) * 255)
        reach = INK + (GLOW if edit.before.style == "glow" else 0)
        allowed.paste(255, mask=shape.filter(ImageFilter.MaxFilter(2 * reach + 1)))
        if thing.category not in v.AIRBORNE:              # island, pond or shadow
            rx, ry = thing.width * .5, max(5 / 384, thing.size * .07)
            pen.ellipse([SIZE * w for w in (thing.x - 1.25 * rx - .02, thing.y - 1.5 * ry - .02,
                                            thing.x + 1.25 * rx + .02, thing.y + 1.3 * ry + .02)],
                        fill=255)
    return np.asarray(allowed) > 0


@pytest.mark.parametrize("kind", SINGLE)
@law
@given(numbers)
def test_pixels_elsewhere_stay(kind, seed):
    edit = made(kind, seed)
    before, after = world.render(edit.before, SIZE), world.render(edit.after, SIZE)
    outside = ~room(edit)
    assert outside.mean() > .05
    np.testing.assert_array_equal(before.image[outside], after.image[outside])
    np.testing.assert_array_equal(before.depth[outside], after.depth[outside])
    assert (before.image != after.image).any()


@pytest.mark.parametrize("kind", ("recolour", "retexture", *WHOLE))
@law
@given(numbers)
def test_edits_of_colour_light_and_weather_move_nothing(kind, seed):
    edit = made(kind, seed)
    before, after = world.render(edit.before, 64), world.render(edit.after, 64)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.depth, after.depth)
    assert np.abs(before.image.astype(int) - after.image).mean() > .02


@pytest.mark.parametrize("kind", world.EDIT_KINDS)
@law
@given(numbers)
def test_the_data_change_in_what_the_kind_says(kind, seed):
    edit = made(kind, seed)
    before, after = edit.before, edit.after
    assert (edit.kind, before) == (kind, world.scene(seed))
    place = {"time": {"time"}, "weather": {"weather", "amount"}, "restyle": {"style"}}
    differs = changed(before, after, PLACE)
    assert differs <= place.get(kind, set()) and bool(differs) == (kind in WHOLE)
    if kind in WHOLE:
        assert after.things == before.things and edit.index is None
    elif kind == "add":
        assert after.things[:-1] == before.things and edit.index == len(before.things)
        assert after.things[-1].category in v.BASE
    elif kind == "remove":
        assert after.things == before.things[:edit.index] + before.things[edit.index + 1:]
    else:
        rest = [i for i in range(len(before.things)) if i != edit.index]
        assert [after.things[i] for i in rest] == [before.things[i] for i in rest]
        one, other = before.things[edit.index], after.things[edit.index]
        found = changed(one, other, Thing.__dataclass_fields__)
        assert found and found <= FIELD[kind]
        frame = other.x - other.width / 2, other.x + other.width / 2
        assert kind not in ("replace", "move") or 0 <= frame[0] < frame[1] <= 1
        if kind == "move":
            assert all(overlap(other, after.things[i]) < .4 for i in rest)


@pytest.mark.parametrize("kind", world.EDIT_KINDS)
@law
@given(numbers)
def test_no_held_out_pair_arises_and_the_outcome_is_a_scene(kind, seed):
    after = made(kind, seed).after
    assert not {(t.colour, t.category) for t in after.things} & v.HELD_OUT
    assert world.from_json(world.to_json(after)) == after


@pytest.mark.parametrize("kind", world.EDIT_KINDS)
@law
@given(numbers)
def test_the_instruction_names_the_thing_and_the_change(kind, seed):
    edit = made(kind, seed)
    text, old, new = edit.instruction, *touched(edit)
    for thing in old:
        assert f"the {world.phrase(thing)}" in text       # and no other thing is called so
        assert [world.phrase(t) for t in edit.before.things].count(world.phrase(thing)) == 1
    if kind == "move":
        assert text.endswith("left" if new[0].x < old[0].x else "right")
        assert abs(new[0].x - old[0].x) >= .15 - 1e-4
    word = {"recolour": lambda: new[0].colour, "retexture": lambda: new[0].pattern,
            "replace": lambda: f"{new[0].colour} {new[0].category}".replace(
                f"{new[0].colour} person", f"person in {new[0].colour}"),
            "add": lambda: "add " + world.named(new[0]), "remove": lambda: "remove the",
            "time": lambda: edit.after.time, "weather": lambda: edit.after.weather,
            "restyle": lambda: {"flat": "flat", "outline": "colouring book",
                                "glow": "glowing"}[edit.after.style]}
    assert word.get(kind, lambda: "move")() in text


@law
@given(numbers)
def test_more_and_less_weather_mean_it(seed):
    edit = made("weather", seed)
    grows = edit.after.amount > edit.before.amount
    verb = "add" if edit.before.weather == "clear" else "more" if grows else "less"
    assert edit.instruction == f"{verb} {edit.after.weather}"
    assert abs(edit.after.amount - edit.before.amount) > .25


@law
@given(numbers)
def test_what_is_added_stands_in_the_open(seed):
    edit = made("add", seed)
    before, after = world.render(edit.before, 64), world.render(edit.after, 64)
    assert (after.ids == THING_ID + edit.index).sum() > 20
    for i in range(len(edit.before.things)):
        was = (before.ids == THING_ID + i).sum()
        assert (after.ids == THING_ID + i).sum() > .6 * was


@law
@given(numbers)
def test_what_is_moved_stays_inside(seed):
    thing = touched(made("move", seed))[1][0]
    assert thing.width / 2 <= thing.x <= 1 - thing.width / 2


@law
@given(numbers)
def test_what_replaces_flies_or_stands_as_before(seed):
    old, new = (things[0] for things in touched(made("replace", seed)))
    assert (old.category in v.AIRBORNE) == (new.category in v.AIRBORNE)


@pytest.mark.parametrize("kind", world.EDIT_KINDS)
def test_an_edit_is_the_same_for_the_same_seed(kind):
    one = world.scene(12)
    assert world.edit(one, kind, 5) == world.edit(one, kind, 5)
    several = {world.edit(one, kind, seed).instruction for seed in range(30)}
    assert len(several) > 1


@pytest.mark.parametrize("kind", world.EDIT_KINDS)
def test_a_scene_without_room_gives_no_edit(kind):
    """Two things of one name cannot be told apart; an empty scene has none; a full one no room."""
    twins = Scene(things=(Thing("cat", "red", x=.2), Thing("cat", "red", x=.8)))
    wall = Scene(things=tuple(Thing("car", c, x=.5, size=.5) for c in list(v.COLOURS)[:6]))
    assert len(wall.things) == MAX_THINGS
    for one, impossible in ((twins, {*SINGLE} - {"add"}), (Scene(), {*SINGLE} - {"add"}),
                            (wall, {"add", "move"})):
        found = world.edit(one, kind, 3)
        assert (found is None) == (kind in impossible), one
        assert found is None or isinstance(found, Edit)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="no edit 'explode'; choose from recolour, retexture"):
        world.edit(world.scene(1), "explode", 0)


def test_all_kinds_are_tested():
    assert set(SINGLE) | set(WHOLE) == set(world.EDIT_KINDS)
