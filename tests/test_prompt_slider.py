"""The slider of Prompt-to-Prompt, moved as a learner moves it."""

import pytest
import torch
from test_latent import small_parts

from gligen_lessons.prompt2prompt import edit_prompts
from gligen_lessons.widgets.prompt_slider import SHARES, WEIGHTS, prompt_slider

BASE, EDIT = "a red car", "a blue car"


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.fixture(scope="module")
def slider(parts):
    return prompt_slider(parts, BASE, EDIT, seed=3, steps=4)


@pytest.mark.parametrize("part", [0., .5, 1.])
def test_moving_the_slider_shows_what_the_library_makes(parts, slider, part):
    slider.controls["cross"].value = .25
    before = slider.images[1].value
    slider.controls["cross"].value = part
    base, want = edit_prompts(parts, [BASE], [EDIT], 3, steps=4, cross=part, self_=0.)
    assert torch.allclose(slider.edited, want, atol=1e-5)
    assert torch.allclose(slider.before, base, atol=1e-5)
    assert slider.images[1].value != before and slider.images[1].value[:4] == b"\x89PNG"


def test_frames_are_painted_beforehand_and_differ(slider):
    assert tuple(slider.frames) == SHARES
    assert float((slider.frames[0.] - slider.frames[1.]).abs().max()) > .01
    shown = slider.images[0].value
    slider.controls["cross"].value = .75
    assert slider.edited is slider.frames[.75] and slider.images[0].value == shown


def test_a_word_is_weighted(parts):
    made = prompt_slider(parts, BASE, BASE, seed=3, steps=4, word="car")
    _, want = edit_prompts(parts, [BASE], [BASE], 3, steps=4, cross=1., scales={"car": 4.})
    assert tuple(made.frames) == WEIGHTS and tuple(made.controls) == ("weight of car",)
    assert torch.allclose(made.frames[4.], want, atol=1e-5)
    assert torch.allclose(made.frames[1.], made.before, atol=1e-4)      # as it is: the base
    assert not torch.allclose(made.frames[4.], made.before, atol=1e-3)


def test_a_page_without_a_kernel_shows_a_strip(slider):
    bundle = slider._repr_mimebundle_()
    assert "slider" in bundle["text/plain"] and len(bundle["image/png"]) > 500
    assert len(slider.still().axes) >= 1 + len(SHARES)
    assert "prompt-slider" in slider._dom_classes
    assert "prompt-picture" in slider.images[1]._dom_classes


def test_what_cannot_be_edited_is_refused(parts):
    with pytest.raises(ValueError, match="does not occur"):
        prompt_slider(parts, BASE, EDIT, steps=4, word="house")
    with pytest.raises(ValueError, match="lies in 0..1"):
        prompt_slider(parts, BASE, EDIT, steps=4, values=(2.,))
    with pytest.raises(ValueError, match="empty"):
        prompt_slider(parts, BASE, "", steps=4)
