"""The slider of an edit's strength, moved as a learner moves it."""

import pytest
import torch
from test_latent import small_parts

from gligen_lessons.diffedit import edit_pictures
from gligen_lessons.widgets.edit_slider import RATIOS, edit_slider

TEXTS = "a red car", "a blue car"


@pytest.fixture(scope="module")
def made():
    parts = small_parts()
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return parts, x, edit_slider(parts, x, *TEXTS, steps=5, noises=2, seed=3)


@pytest.mark.parametrize("ratio", [0., .4, 1.])
def test_moving_the_slider_shows_what_the_library_makes(made, ratio):
    parts, x, slider = made
    before = slider.images[2].value
    slider.controls["strength"].value = ratio
    want = edit_pictures(parts, x, [TEXTS[0]], [TEXTS[1]], 3, ratio, 5, noises=2)
    assert torch.allclose(slider.edited, want.x, atol=1e-5)
    assert slider.images[2].value != before and slider.images[2].value[:4] == b"\x89PNG"


def test_the_threshold_changes_the_mask_and_each_edit_is_made_once(made):
    parts, x, slider = made
    slider.controls["threshold"].value = .25
    want = edit_pictures(parts, x, [TEXTS[0]], [TEXTS[1]], 3, slider.controls["strength"].value, 5,
                         noises=2, threshold=.25)
    assert torch.allclose(slider.edited, want.x, atol=1e-5)
    first = slider.edited
    assert slider.edited is first
    slider.controls["threshold"].value = .5


def test_a_page_without_a_kernel_shows_a_strip(made):
    bundle = made[2]._repr_mimebundle_()
    assert "slider" in bundle["text/plain"] and len(bundle["image/png"]) > 500
    assert set(RATIOS) >= {ratio for ratio, _ in made[2].made}


def test_what_cannot_be_edited_is_refused(made):
    parts, x, _ = made
    with pytest.raises(ValueError, match="says the same as its reference"):
        edit_slider(parts, x, "a car", "a car")
    with pytest.raises(ValueError, match="query of picture 0 is empty"):
        edit_slider(parts, x, "a car", "")
