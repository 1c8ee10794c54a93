"""Grounded inpainting: what is kept stays, what is painted is inside, a seed gives one picture."""

import warnings

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles import draw, relative_error
from test_gligen import inputs, open_gates, pair, theirs_says, unet_keys

from gligen_lessons import gligen, inpaint, weights
from gligen_lessons.ddpm import q_sample
from gligen_lessons.gligen import add_gates
from gligen_lessons.inpaint import (
    blend_known,
    check_mask,
    expand_conv_in,
    inpaint_grounded,
    inpaint_steps,
    l_inpaint,
    masks_from_boxes,
    paste,
)
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet

BOXES = [[[.1, .5, .5, .9], [.6, .2, .9, .8]], [[.2, .3, .71, .8]]]


def test_masks_cut_edges_down_as_diffusers_does():
    from diffusers import StableDiffusionGLIGENPipeline as Theirs
    found = masks_from_boxes(BOXES, 16)
    for mask, boxes in zip(found, BOXES, strict=True):
        assert torch.equal(mask[0], Theirs.draw_inpaint_mask_from_boxes(None, boxes, (16, 16)))
    assert found[1, 0].sum() == 16**2 - (11 - 3) * (12 - 4)


def test_a_mask_can_cover_all_that_a_box_touches():
    round_outward = masks_from_boxes([[[.1, .5, .5, .9]]], 16, round_outward=True)[0, 0]
    covered = (round_outward == 0).nonzero()
    assert covered.amin(0).tolist() == [8, 1] and covered.amax(0).tolist() == [14, 7]
    assert torch.equal(masks_from_boxes([[[.25, .25, .5, .75]]], 16, True), masks_from_boxes(
        [[[.25, .25, .5, .75]]], 16))                      # edges on the grid: nothing to add


@torch.no_grad()
def test_five_new_channels_change_nothing_at_first():
    narrow = UNet(**unet_keys()).eval()
    draw(narrow)
    xt, t, context, _ = inputs(unet_keys())
    want = narrow(xt, t, context)
    wide = expand_conv_in(narrow)
    assert wide.config["in_channels"] == 9 and wide.conv_in.weight.shape[1] == 9
    mask = masks_from_boxes(BOXES, 16)
    found = inpaint.concat_inpainting_inputs(wide, torch.randn_like(xt), mask)(xt, t, context)
    assert relative_error(found, want) < 1e-6
    with pytest.raises(ValueError, match="already reads 9"):
        expand_conv_in(wide)


@torch.no_grad()
def test_the_channels_are_in_gligens_order():
    """[noisy z, z * mask, mask]: Stable Diffusion's own inpainting has the mask before."""
    ours, theirs = pair(unet_keys(in_channels=9))
    xt, t, context, grounding = inputs(unet_keys())
    z0, mask = torch.randn_like(xt), masks_from_boxes(BOXES, 16)
    want = theirs_says(theirs, torch.cat([xt, z0 * mask, mask], 1), t, context, grounding)
    found = inpaint.concat_inpainting_inputs(ours, z0, mask)(xt, t, context, grounding)
    assert relative_error(found, want) < 1e-5
    assert isinstance(theirs, UNet2DConditionModel)


@pytest.fixture(scope="module")
def parts():
    """The shipped parts, widened, with gates and new channels that do something."""
    made = weights.text_to_image()
    add_gates(expand_conv_in(made.unet))
    open_gates(made.unet)
    with torch.no_grad():
        g = torch.Generator().manual_seed(0)
        made.unet.conv_in.weight[:, 4:] = .3 * torch.randn(64, 5, 3, 3, generator=g)
    return made


def given(parts, b: int = 2):
    z0 = torch.randn(b, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    grounding = gligen.ground(parts, [["a red car", "a tree"], ["a blue cat"]][:b], BOXES[:b])
    return ["a car", "a cat"][:b], grounding, z0, masks_from_boxes(BOXES[:b], 16)


def final(trajectory) -> torch.Tensor:
    *_, (_, z) = trajectory
    return z


def test_outside_the_latent_stays_near_and_inside_it_is_new(parts):
    captions, grounding, z0, mask = given(parts)
    z = final(inpaint_grounded(parts, captions, grounding, z0, mask, steps=10))
    away = (z - z0).abs()
    outside, inside = (away * mask).sum() / mask.sum() / 4, (away * (1 - mask)).sum() / (
        1 - mask).sum() / 4
    assert outside < inside / 3


@torch.no_grad()
def test_the_loss_is_that_of_grounding_until_the_new_channels_speak(parts):
    """Beside lesson 8's loss; and against diffusers' prediction, made of its own nine channels."""
    captions, grounding, z0, mask = given(parts)
    t, eps = torch.tensor([40, 700]), torch.randn(z0.shape, generator=torch.Generator())
    context, schedule = parts.context(captions), parts.schedule
    told = context, grounding, mask, schedule
    loss = l_inpaint(parts.unet, z0, t, eps, *told)
    prediction = parts.unet(torch.cat([q_sample(z0, t, eps, schedule), z0 * mask, mask], 1), t,
                            context,
                            grounding)
    assert float(loss) == pytest.approx(float((prediction - eps).square().mean()), rel=1e-6)
    spoken = parts.unet.conv_in.weight[:, 4:].clone()
    parts.unet.conv_in.weight[:, 4:] = 0
    unshown = float(l_inpaint(parts.unet, z0, t, eps, *told))
    parts.unet.conv_in.weight[:, 4:] = spoken
    narrow = gligen.l_grounding(lambda zt, *rest: parts.unet(
        torch.cat([zt, torch.zeros_like(zt), mask * 0], 1), *rest), z0, t, eps, context, grounding,
        schedule)
    assert unshown == pytest.approx(float(narrow), rel=1e-5)
    assert abs(float(loss) - unshown) > 1e-3 * unshown


def test_the_new_channels_learn_from_the_first_step():
    unet = add_gates(expand_conv_in(weights.text_to_image().unet)).requires_grad_(False)
    unet.conv_in.weight.requires_grad_(True)
    z0, mask = torch.randn(1, 4, 16, 16), masks_from_boxes(BOXES[1:], 16)
    grounding = gligen.Grounding(torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.zeros(1, 2, 256))
    l_inpaint(unet, z0, torch.tensor([500]), torch.randn_like(z0), torch.randn(1, 5, 256),
              grounding, mask, weights.text_to_image().schedule).backward()
    assert (unet.conv_in.weight.grad[:, 4:].abs().amax((0, 2, 3)) > 0).all()


def test_what_is_kept_is_noised_to_the_step_before_every_prediction():
    parts = weights.text_to_image()
    _, _, z0, mask = given_plain()
    t, eps, zt = torch.tensor([500, 20]), torch.randn_like(z0), torch.randn_like(z0)
    mixed = blend_known(zt, z0, mask, t, eps, parts.schedule)
    keep = mask.expand_as(zt) > 0
    assert torch.equal(mixed[~keep], zt[~keep])
    assert torch.equal(mixed[keep], q_sample(z0, t, eps, parts.schedule)[keep])


def given_plain():
    z0 = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    return None, None, z0, masks_from_boxes(BOXES, 16)


def test_a_seed_gives_one_picture_whatever_else_is_drawn(parts):
    captions, grounding, z0, mask = given(parts)
    once = final(inpaint_grounded(parts, captions, grounding, z0, mask, seed=7, steps=3))
    torch.manual_seed(123)
    torch.randn(5)
    again = final(inpaint_grounded(parts, captions, grounding, z0, mask, seed=7, steps=3))
    assert torch.equal(once, again)
    other = final(inpaint_grounded(parts, captions, grounding, z0, mask, seed=8, steps=3))
    assert relative_error(other, once) > .01
    second = final(inpaint_grounded(parts, captions[1:], grounding.each(lambda x: x[1:]), z0[1:],
                                    mask[1:],
                                    seed=8, steps=3))
    assert relative_error(second, once[1:]) < 1e-4        # picture 1 of the batch has seed + 1


def test_pasting_keeps_the_outside_exactly():
    x, generated = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    mask = masks_from_boxes(BOXES, 32)
    made = paste(generated, x, mask)
    keep = mask.expand_as(x) > 0
    assert torch.equal(made[keep], x[keep]) and torch.equal(made[~keep], generated[~keep])


@pytest.mark.parametrize("mask, problem", [
    (torch.ones(2, 1, 8, 8), r"must be \(2, 1, 16, 16\)"),
    (torch.ones(2, 16, 16), r"must be \(2, 1, 16, 16\)"),
    (torch.full((2, 1, 16, 16), .5), "holds values from 0.5 to 0.5: round it"),
    (torch.full((2, 1, 16, 16), float("nan")), "round it"),
    (torch.full((2, 1, 16, 16), .99999), "holds values from 0.99999")])
def test_masks_that_cannot_be(mask, problem):
    with pytest.raises(ValueError, match=problem):
        check_mask(mask, torch.zeros(2, 4, 16, 16))


def test_a_network_without_gates_or_with_other_boxes_is_refused_at_once(parts):
    captions, grounding, z0, mask = given(parts)
    with pytest.raises(ValueError, match="no gates"):
        inpaint_grounded(weights.text_to_image(), captions, grounding, z0, mask)
    with pytest.raises(ValueError, match="tau must lie"):
        inpaint_grounded(parts, captions, grounding, z0, mask, tau=-.1)
    with pytest.raises(ValueError, match="as large as what it lies on"):
        inpaint_grounded(parts, captions, grounding, z0, mask[:, :, :8])
    with pytest.raises(ValueError, match=r"boxes \[0\] have no width"):
        masks_from_boxes([[[.5, .5, .4, .9]]], 16)


@pytest.mark.parametrize("boxes, problem", [
    ([[.5, .2, .4, .9]], r"Picture 1: boxes \[0\] have no width"), ([[.1, .1, .1, .9]], "no width"),
    ([[.1, .1, float("nan"), .9]], "hold NaN"), ([[.1, .1, 1.2, .9]], r"must lie in 0\.\.1"),
    ([[10, 20, 60, 100]], "look like pixels")])
def test_holes_that_cannot_be_name_their_picture(boxes, problem):
    with pytest.raises(ValueError, match=problem):
        masks_from_boxes([BOXES[0], boxes], 16)


def test_pictures_of_another_size_are_refused_before_anything_is_painted(parts):
    captions, grounding, z0, mask = given(parts)
    wide = torch.cat([z0, z0], 3)
    for other in (z0[..., :8], z0[..., :8, :8], wide, z0[:, :3]):
        with pytest.raises(ValueError, match=r"z0 must be \(b,4,16,16\), .* resize the picture"):
            inpaint_grounded(parts, captions, grounding, other, mask)
    with pytest.raises(ValueError, match=r"The mask must be \(2, 1, 16, 16\)"):
        inpaint_grounded(parts, captions, grounding, z0,
                         masks_from_boxes(BOXES, 128))         # a mask of pixels
    with pytest.raises(ValueError, match="2 captions, groundings for 2 pictures and latents"):
        inpaint_grounded(parts, captions, grounding, z0[:1], mask[:1])


def test_grounded_weights_that_see_no_hole_say_which_do(parts):
    captions, grounding, z0, mask = given(parts)
    narrow = weights.text_to_image(unet=add_gates(weights.load("ldm")))
    with pytest.raises(ValueError, match=r"reads 4 channels .* weights.load\('gligen-inpaint'\)"):
        inpaint_grounded(narrow, captions, grounding, z0, mask)


def test_what_inpainting_adds_is_the_gates_and_the_first_layers_weight():
    plain = UNet(**unet_keys())
    old = set(plain.state_dict())
    made = inpaint.make_inpainting(plain)
    assert set(inpaint.inpainting_names(made)) == set(made.state_dict()) - old | {"conv_in.weight"}
    assert made.conv_in.weight.shape[1] == 9


def test_a_mask_of_which_nothing_is_painted_is_told():
    """A box narrower than a cell of the latent masks none; `round_outward` covers it."""
    boxes = [[[.1, .1, .5, .5]], [[.52, .52, .56, .56]]]
    with pytest.warns(UserWarning, match="The mask of picture 1 is 1 everywhere, so nothing is pa"):
        check_mask(masks_from_boxes(boxes, 16), torch.zeros(2, 4, 16, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_mask(masks_from_boxes(boxes, 16, round_outward=True), torch.zeros(2, 4, 16, 16))


def test_the_last_seed_of_eight_bits_has_one_after_it():
    """255 and one more are 256, whatever kind of whole number a seed is."""
    z0, mask, schedule = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), Schedule.linear()

    def painted(seed):
        *_, (_, z) = inpaint_steps(lambda zt, t: zt, z0, mask, schedule, [500], seed)
        return z

    assert torch.equal(painted(np.uint8(255)), painted(255))
    assert torch.equal(painted(256)[0], painted(255)[1])
