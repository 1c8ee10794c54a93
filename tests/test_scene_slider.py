"""What a learner moves by hand: each slider moves the picture, and nothing is ever printed."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gligen_lessons import world
from gligen_lessons.widgets.scene_slider import FIRST_SCENE, SIZE, scene_slider
from gligen_lessons.world import Scene, Thing

MOVES = {"time": "night", "weather": "fog", "amount": .7, "style": "outline",
         "pattern": "checked", "x": .3}


def scene(**changes):
    """A snowy scene with two things that leaves every slider room to move."""
    things = (Thing("house", "red", x=.25, y=.7), Thing("cat", "orange", x=.6, size=.35))
    return replace(Scene(weather="snow", amount=.4, things=things), **changes)


def shown(box):
    """The pixels that the picture widget holds."""
    return np.asarray(Image.open(io.BytesIO(box.picture.value)))


def test_it_begins_with_the_scene_as_given():
    box = scene_slider(scene(), 1)
    assert box.scene == scene()
    np.testing.assert_array_equal(shown(box), world.render(scene(), SIZE).image)


@pytest.mark.parametrize("name", MOVES)
def test_moving_a_slider_draws_the_scene_with_that_change(name):
    box = scene_slider(scene(), 1)
    before = box.picture.value
    box.controls[name].value = MOVES[name]
    want = (scene().with_thing(1, **{name: MOVES[name]}) if name in ("pattern", "x")
            else scene(**{name: MOVES[name]}))
    assert box.picture.value != before
    np.testing.assert_array_equal(shown(box), world.render(want, SIZE).image)


def test_moving_back_brings_the_first_picture_back():
    box = scene_slider(scene(), 1)
    before = {name: control.value for name, control in box.controls.items()}, box.picture.value
    for name, value in MOVES.items():
        box.controls[name].value = value
    for name, value in before[0].items():
        box.controls[name].value = value
    assert box.scene == scene() and box.picture.value == before[1]


def test_the_words_follow_the_thing():
    box = scene_slider(scene(), 1)
    assert box.caption.value == "an orange cat on the grass by day in snow"
    box.controls["time"].value, box.controls["pattern"].value = "night", "striped"
    assert box.caption.value == "a striped orange cat on the grass at night in snow"


@pytest.mark.parametrize("given", [
    scene(weather="clear", amount=0.), scene(weather="clear", amount=.5),
    scene(weather="fog", amount=1.), scene(time="night", style="glow"),
    scene().with_thing(0, pattern="spotted"), scene().with_thing(0, x=-.1),
    scene().with_thing(0, x=1.2)])
def test_any_scene_is_shown_as_it_is(given):
    box = scene_slider(given)
    np.testing.assert_array_equal(shown(box), world.render(given, SIZE).image)


def test_from_a_clear_sky_a_weather_shows_at_once_and_goes_again():
    box = scene_slider(scene(weather="clear", amount=0.))
    before = box.picture.value
    box.controls["weather"].value = "rain"
    assert (box.scene.weather, box.scene.amount) == ("rain", .5) and box.picture.value != before
    box.controls["weather"].value = "clear"
    assert box.scene == scene(weather="clear", amount=0.) and box.picture.value == before


def test_without_a_scene_it_brings_one():
    box = scene_slider()
    assert box.scene == world.scene(FIRST_SCENE)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_thing_that_is_not_there(index):
    with pytest.raises(ValueError, match=f"no thing number {index}; it holds 2"):
        scene_slider(scene(), index)


def test_scripts_find_it_by_its_classes():
    box = scene_slider(scene())
    assert "scene-slider" in box._dom_classes and "scene-picture" in box.picture._dom_classes
    assert box.children[0] is box.picture
    assert all(control in box.children[1].children for control in box.controls.values())
    assert all(control.description for control in box.controls.values())


def test_nothing_is_printed(capsys):
    box = scene_slider(scene(), 1)
    for name, value in MOVES.items():
        box.controls[name].value = value
    box._repr_mimebundle_()
    assert capsys.readouterr() == ("", "")


def test_a_page_without_widgets_gets_a_still_of_every_slider():
    box = scene_slider(scene(), 1)
    bundle = box._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == box.model_id
    assert bundle["text/plain"].startswith("Sliders for a scene")
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert still.width > 4 * still.height
    panels = [ax.images[0].get_array() for ax in box.still().axes]
    assert len(panels) == 6
    np.testing.assert_array_equal(panels[0], world.render(scene()).image)
    assert all((panel != panels[0]).any() for panel in panels[1:])
    assert box.scene == scene()
