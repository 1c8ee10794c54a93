"""What is said of a scene, against what is in it: captions, phrases, relations."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gligen_lessons import world
from gligen_lessons.world import Scene, Thing
from gligen_lessons.world import vocabulary as v
from gligen_lessons.world.backdrop import THING_ID
from gligen_lessons.world.language import listing, relation, weather_words

PLACES = {"grass": "on the grass", "sand": "on the sand", "snow": "on the snow",
          "road": "on the road", "water": "by the water"}
TIMES = {"day": "by day", "sunset": "at sunset", "night": "at night"}
STYLES = {"flat": "", "outline": "a colouring book page of ",
          "glow": "a glowing night light of "}
RELATIONS = "to the left of|to the right of|above|below"
SIZES = st.floats(.05, .9)


@st.composite
def things(draw):
    """Any thing that the world can draw."""
    return Thing(draw(st.sampled_from(v.CATEGORIES)), draw(st.sampled_from(list(v.COLOURS))),
                 draw(st.sampled_from(v.PATTERNS)), draw(st.floats(0, 1)), draw(st.floats(.2, 1)),
                 draw(SIZES))


@st.composite
def scenes(draw):
    """Any scene, also one that no seed draws."""
    return Scene(draw(st.sampled_from(v.GROUNDS)), draw(st.sampled_from(v.TIMES)),
                 draw(st.sampled_from(v.WEATHERS)), draw(st.floats(0, 1)),
                 draw(st.sampled_from(v.STYLES)), draw(st.floats(.2, .8)),
                 things=tuple(draw(st.lists(things(), max_size=6))))


law = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def told(thing, colour=True, pattern=True):
    """What a caption must call a thing, written down a second time."""
    dress = [thing.pattern] * (pattern and thing.pattern != "plain") + [thing.colour] * colour
    words = (["person", "in", *dress] if thing.category == "person" and dress
             else [*dress, thing.category])
    return ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)


def names_in(text):
    """The things that a piece of caption lists, one entry each."""
    return sorted(re.split(f", | and | (?:{RELATIONS}) ", text))


def parts(caption, scene):
    """A caption without its style and its place, which must be there."""
    place = " ".join(w for w in (PLACES[scene.ground], TIMES[scene.time], weather_words(scene))
                     if w)
    style = STYLES[scene.style]
    assert caption.startswith(style) and caption.endswith(" " + place), caption
    return caption.removeprefix(style).removesuffix(" " + place)


@law
@given(scenes())
def test_the_first_caption_says_everything(scene):
    said = parts(world.captions(scene)[0], scene)
    assert names_in(said) == (sorted(map(told, scene.things)) or ["nothing"])


@law
@given(scenes())
def test_the_other_captions_leave_out_what_they_should(scene):
    full, related, bare, colourless, place_first = world.captions(scene)
    named = sorted(map(told, scene.things)) or ["nothing"]
    assert names_in(parts(related, scene)) == named
    assert STYLES[scene.style] + parts(full, scene) == bare
    assert names_in(parts(colourless, scene)) == (
        sorted(told(t, False, False) for t in scene.things) or ["nothing"])
    assert not set(re.findall(r"\w+", colourless)) & (set(v.COLOURS) | set(v.PATTERNS))
    assert place_first == f"{full.removeprefix(bare)[1:]}, {bare}"


@law
@given(scenes())
def test_captions_speak_of_nothing_that_is_not_there(scene):
    present = {t.category for t in scene.things}
    colours = {t.colour for t in scene.things}
    for caption in world.captions(scene):
        words = re.findall(r"\w+", caption)
        assert set(words) & set(v.CATEGORIES) == present
        assert set(words) & set(v.COLOURS) <= colours
        assert set(words) & {"rain", "fog"} <= {scene.weather}
        assert caption == caption.strip() and "  " not in caption and ",," not in caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption)


@law
@given(scenes())
def test_captions_depend_on_the_scene_alone(scene):
    assert world.captions(scene) == world.captions(world.from_json(world.to_json(scene)))


@pytest.mark.parametrize("amount, words", [(0, ""), (.2, "in light rain"), (.5, "in rain"),
                                           (.9, "in heavy rain")])
def test_weather_is_said_with_its_amount(amount, words):
    scene = Scene(weather="rain", amount=amount)
    assert weather_words(scene) == words
    assert world.captions(scene)[0].endswith("by day" + (" " + words if words else ""))
    assert weather_words(Scene(weather="clear", amount=amount)) == ""


OPPOSITE = {"to the left of": "to the right of", "above": "below", "": ""}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}


@law
@given(things(), things())
def test_a_relation_turned_round_is_its_opposite(a, b):
    assert relation(b, a) == OPPOSITE[relation(a, b)]


def middle(thing):
    """Where a thing's pixels have their middle, x and y in 0..1, with nothing in front of it."""
    rows, columns = (world.render(Scene(things=(thing,)), 96).ids >= THING_ID).nonzero()
    return columns.mean() / 96, rows.mean() / 96


def test_relations_are_true_of_the_pixels():
    told_of = set()
    for seed in world.seeds("train", 60):
        one = world.scene(seed)
        for a, b in zip(one.things, one.things[1:], strict=False):
            (ax, ay), (bx, by) = middle(a), middle(b)
            word = relation(a, b)
            told_of.add(word)
            assert {"to the left of": ax < bx, "to the right of": ax > bx, "above": ay < by,
                    "below": ay > by, "": True}[word], (seed, word)
    assert told_of == set(OPPOSITE)


def test_the_relation_of_a_caption_holds_for_its_two_things():
    found = 0
    for seed in world.seeds("train", 300):
        one = world.scene(seed)
        said = re.match(rf"([\w ]+?) ({RELATIONS}) ([\w ]+?)(?=,| and |$)",
                        parts(world.captions(one)[1], one))
        if said:
            found += 1
            assert any(relation(a, b) == said[2] for a in one.things for b in one.things
                       if (told(a), told(b)) == (said[1], said[3])), world.captions(one)[1]
    assert found > 100


def test_phrases():
    thing = Thing("car", "orange", "striped")
    assert world.phrase(thing) == "striped orange car"
    assert world.phrase(thing, colour=False) == "striped car"
    assert world.phrase(thing, pattern=False) == "orange car"
    assert world.named(thing, pattern=False) == "an orange car"
    assert world.named(thing, False, False) == "a car"
    someone = Thing("person", "blue", "checked")
    assert world.phrase(someone) == "person in checked blue"
    assert world.phrase(someone, False, False) == "person"
    assert world.named(Thing("umbrella", "red"), False, False) == "an umbrella"


def test_a_listing_reads_well():
    assert [listing(list("abc")[:n]) for n in range(4)] == ["nothing", "a", "a and b", "a, b and c"]


def test_captions_of_a_scene_differ():
    """Five ways of saying it: with two things in rain they are five different texts."""
    for seed in world.seeds("train", 200):
        one = world.scene(seed)
        if len(one.things) > 1 and relation(*one.things[:2]):
            assert len(set(world.captions(one))) == 5


def test_both_orders_of_things_occur():
    """Or a text encoder could learn places from the order of words."""
    first = [world.captions(one)[0].find(told(one.things[0]))
             < world.captions(one)[0].find(told(one.things[1]))
             for one in map(world.scene, world.seeds("train", 400))
             if len(one.things) == 2 and told(one.things[0]) != told(one.things[1])]
    assert .35 < np.mean(first) < .65
