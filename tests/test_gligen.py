"""Our gates against diffusers' gated U-Net and pipeline, and the laws of grounding."""

import math
import warnings
from dataclasses import dataclass

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles import draw, published, relative_error

from gligen_lessons import gligen, grounded, latent, weights
from gligen_lessons.gligen import Grounding, add_gates, freeze
from gligen_lessons.recipes.latent import LATENT_UNET
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet


def unet_keys(**keys) -> dict:
    return dict(sample_size=16, block_out_channels=(32, 64), norm_num_groups=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1,
                cross_attention_dim=24, attention_head_dim=4) | keys


CASES = {
    "the course's": LATENT_UNET,
    "small": unet_keys(),
    "gates on every level": unet_keys(
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=2, attention_head_dim=8),
    "one level, two heads": unet_keys(
        block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), attention_head_dim=2, cross_attention_dim=10),
    "nine channels, for inpainting": unet_keys(in_channels=9),
}
STABLE_DIFFUSION = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8,
                        block_out_channels=(320, 640, 1280, 1280))


def pair(keys: dict) -> tuple[UNet, UNet2DConditionModel]:
    """Our gated network and diffusers', with the same drawn weights and gates wide open."""
    theirs = UNet2DConditionModel(attention_type="gated", **keys).eval()
    draw(theirs)
    for i, (name, value) in enumerate(theirs.named_parameters()):
        if "alpha_" in name:
            value.data.fill_(.8 + .1 * (i % 12))
    ours = add_gates(UNet(**keys)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def slots(d: int, n: int = 5, b: int = 2) -> Grounding:
    """Boxes, masks that differ between the pictures, and features."""
    g = torch.Generator().manual_seed(2)
    low = .6 * torch.rand(b, n, 2, generator=g)
    boxes = torch.cat([low, low + .1 + .3 * torch.rand(b, n, 2, generator=g)], 2)
    masks = (torch.arange(n) < torch.tensor([[2], [4]])[:b]).float()
    return Grounding(boxes, masks, torch.randn(b, n, d, generator=g))


def inputs(keys: dict, b: int = 2):
    g, d = torch.Generator().manual_seed(1), keys["cross_attention_dim"]
    channels, side = keys.get("in_channels", 4), keys["sample_size"]
    return (torch.randn(b, channels, side, side, generator=g), torch.tensor([3, 700])[:b],
            torch.randn(b, 7, d, generator=g), slots(d, b=b))


def theirs_says(theirs, xt, t, context, grounding):
    kept = {"boxes": grounding.boxes, "masks": grounding.masks,
            "positive_embeddings": grounding.features}
    return theirs(xt, t, encoder_hidden_states=context,
                  cross_attention_kwargs={"gligen": kept}).sample


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@torch.no_grad()
def test_the_gated_network_is_that_of_diffusers(name, dtype, bound):
    ours, theirs = (model.to(dtype) for model in pair(CASES[name]))
    xt, t, context, grounding = inputs(CASES[name])
    xt, context, grounding = xt.to(dtype), context.to(dtype), grounding.each(lambda x: x.to(dtype))
    want = theirs_says(theirs, xt, t, context, grounding)
    assert relative_error(ours(xt, t, context, grounding), want) < bound
    assert relative_error(ours(xt, t, context), want) > 1e-3          # the gates do something
    assert relative_error(ours(xt, t, context, grounding.none()), want) > 1e-3


@torch.no_grad()
def test_the_published_size_is_that_of_diffusers():
    with torch.device("meta"):
        theirs, ours = UNet2DConditionModel(attention_type="gated", **STABLE_DIFFUSION), UNet(
            **STABLE_DIFFUSION)
        add_gates(ours)
    new = sum(ours.get_parameter(name).numel() for name in gligen.gate_names(ours))
    assert new == 208_018_272 + 1_083_968
    theirs = theirs.to_empty(device="cpu").eval()
    draw(theirs)
    for name, value in theirs.named_parameters():
        if "alpha_" in name:
            value.data.fill_(1.)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    xt, t, context, grounding = inputs(STABLE_DIFFUSION | {"sample_size": 16}, 1)
    want = theirs_says(theirs, xt, t, context, grounding)
    assert relative_error(ours.eval()(xt, t, context, grounding), want) < 1e-5
    assert relative_error(ours(xt, t, context), want) > 1e-3


@torch.no_grad()
def test_new_gates_change_nothing_at_all():
    plain = UNet(**unet_keys()).eval()
    draw(plain)
    gated = add_gates(UNet(**unet_keys())).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    xt, t, context, grounding = inputs(unet_keys())
    assert torch.equal(gated(xt, t, context, grounding), plain(xt, t, context))


@torch.no_grad()
def test_open_gates_at_strength_zero_are_no_gates():
    ours, _ = pair(unet_keys())
    xt, t, context, grounding = inputs(unet_keys())
    with grounded.gate_scale(ours, 0.):
        closed = ours(xt, t, context, grounding)
    assert torch.equal(closed, ours(xt, t, context))
    with grounded.gate_scale(ours, .5):
        half = ours(xt, t, context, grounding)
    assert not torch.equal(half, closed) and not torch.equal(half, ours(xt, t, context, grounding))


@torch.no_grad()
def test_unused_slots_and_their_order_do_not_matter():
    ours, _ = pair(unet_keys())
    xt, t, context, grounding = inputs(unet_keys())
    want = ours(xt, t, context, grounding)
    boxes = torch.where(grounding.masks[..., None] > 0, grounding.boxes, .123)
    features = torch.where(grounding.masks[..., None] > 0, grounding.features, 7.)
    assert torch.equal(ours(xt, t, context, Grounding(boxes, grounding.masks, features)), want)
    turned = grounding.each(lambda x: x[:, [3, 0, 4, 2, 1]])
    assert relative_error(ours(xt, t, context, turned), want) < 1e-5
    swapped = Grounding(grounding.boxes[:, [1, 0, 2, 3, 4]], grounding.masks, grounding.features)
    assert relative_error(ours(xt, t, context, swapped), want) > 1e-3     # who is where counts


def test_only_the_gates_learn_and_only_their_scalars_at_first():
    unet = UNet(**unet_keys())
    draw(unet)
    freeze(add_gates(unet))
    learning = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert learning == set(gligen.gate_names(unet)) and len(learning) < len(unet.state_dict())
    xt, t, context, grounding = inputs(unet_keys())
    loss = gligen.l_grounding(unet, xt, t, torch.randn_like(xt), context, grounding,
                              Schedule.scaled_linear())
    loss.backward()
    moved = {name for name in learning if float(unet.get_parameter(name).grad.abs().max()) > 0}
    assert moved == {name for name in learning if name.endswith(("alpha_attn", "alpha_dense"))}


def test_fourier_is_diffusers():
    from diffusers.models.embeddings import get_fourier_embeds_from_boundingbox as theirs
    boxes = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gligen.fourier(boxes), theirs(8, boxes))


# sampling

def open_gates(unet: UNet) -> None:
    """Draw everything that GLIGEN adds, sharp enough that boxes and phrases count."""
    drawn = pair(LATENT_UNET)[0].state_dict()
    names = gligen.gate_names(unet)
    unet.load_state_dict({name: drawn[name] for name in names}, strict=False)
    for name in names:
        value = unet.get_parameter(name)
        value.data.mul_(.4 if "alpha_" in name else 2. if value.ndim > 1 else 1.)


@pytest.fixture(scope="module")
def parts() -> latent.TextToImage:
    """The shipped parts with gates that do something."""
    made = weights.text_to_image()
    add_gates(made.unet)
    open_gates(made.unet)
    return made


PHRASES = [["a red car", "a tree"], ["a blue cat"]]
BOXES = [[[.1, .5, .5, .9], [.6, .2, .9, .8]], [[.2, .3, .7, .8]]]


@pytest.mark.parametrize("steps, stages, want", [
    (10, (.3, 0., .7), [1.] * 3 + [0.] * 7), (4, (0., 1., 0.), [.75, .5, .25, 0.]),
    (10, (.2, .7, .1), None), (49, (0., 1., 0.), None), (5, (1., 0., 0.), [1.] * 5)])
def test_strengths_are_one_a_step(steps, stages, want):
    found = grounded.gate_schedule(steps, stages)
    assert len(found) == steps and found == sorted(found, reverse=True)
    assert want is None or found == want


def test_stages_that_do_not_sum_to_one():
    with pytest.raises(ValueError, match="sum to 1"):
        grounded.gate_schedule(10, (.5, .2, .2))


def test_grounding_holds_the_phrases_in_their_slots(parts):
    grounding = gligen.ground(parts, PHRASES, BOXES, limit=4)
    assert grounding.masks.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert torch.equal(grounding.boxes[0, :2], torch.tensor(BOXES[0]))
    alone = gligen.phrase_features(parts, ["a tree"])[0]
    assert torch.allclose(grounding.features[0, 1], alone, atol=1e-5)
    assert float(grounding.features[0, 0].sub(alone).abs().max()) > .01
    assert not grounding.features[1, 1:].any()


def final(trajectory) -> torch.Tensor:
    *_, (_, z) = trajectory
    return z


def test_tau_0_is_the_ungrounded_picture_and_tau_1_is_not(parts):
    captions, zT = ["a car", "a cat"], parts.first_noise(2, 0)
    grounding = gligen.ground(parts, PHRASES, BOXES)
    plain = final(latent.sample_latents(parts, captions, zT, 4))
    none = final(grounded.sample_grounded(parts, captions, grounding, zT, 4, tau=0.))
    assert relative_error(none, plain) < 1e-6
    full = final(grounded.sample_grounded(parts, captions, grounding, zT, 4))
    half = final(grounded.sample_grounded(parts, captions, grounding, zT, 4, tau=.5))
    assert relative_error(full, plain) > 1e-2 < relative_error(half, full)


def test_pictures_of_a_batch_keep_their_own_boxes(parts):
    both = grounded.generate_grounded(parts, ["a car", "a cat"], PHRASES, BOXES, seed=3, steps=3)
    alone = grounded.generate_grounded(parts, ["a cat"], PHRASES[1:], BOXES[1:], seed=4, steps=3)
    assert both.shape == (2, 3, 128, 128) and relative_error(both[1:], alone) < 1e-4


@pytest.fixture(scope="module")
def pipeline(parts, tmp_path_factory):
    return published("StableDiffusionGLIGENPipeline", parts,
                     tmp_path_factory.mktemp("gligen") / "pipeline")


@pytest.mark.parametrize("tau, negative", [(1., ""), (.3, "night")])
def test_a_grounded_walk_is_that_of_the_pipeline(parts, pipeline, tau, negative):
    captions, zT = ["a red car beside a tree"], parts.first_noise(1, 0)

    def theirs(boxes):
        return pipeline(captions, latents=zT.clone(), gligen_phrases=PHRASES[0],
                        gligen_boxes=boxes, gligen_scheduled_sampling_beta=tau,
                        num_inference_steps=20, guidance_scale=5., output_type="latent",
                        negative_prompt=[negative]).images

    want, grounding = theirs(BOXES[0]), gligen.ground(parts, PHRASES[:1], BOXES[:1])
    found = final(grounded.sample_grounded(parts, captions, grounding, zT, 20, 5., tau, negative))
    assert relative_error(found, want) < 1e-4
    assert relative_error(theirs(BOXES[0][::-1]), want) > 1e-2


# bad input

@pytest.mark.parametrize("phrases, boxes, problem", [
    ([["a"]], [[[.5, .1, .2, .9]]], r"Picture 0: boxes \[0\] have no width or height"),
    ([["a"]], [[[.1, .1, .1, .9]]], "have no width or height"),
    ([["a"]], [[[.1, .1, .4, math.nan]]], "hold NaN"),
    ([["a"]], [[.1, .1, .4, .4]], r"Picture 0: boxes must be \(n,4\), got \(4,\)"),
    ([["a"]], [[[.1, .1, .4]]], r"must be \(n,4\), got \(1, 3\)"),
    ([["a"]], [[[.1, .1, 1.2, .9]]], "must lie in 0..1"),
    ([["a"]], [[[10, 20, 60, 100]]], "look like pixels"),
    ([["a", "b"]], [[[.1, .1, .4, .4]]], "has 2 phrases and 1 boxes"),
    ([["a"], ["b"]], [[[.1, .1, .4, .4]]], "2 lists of phrases and 1 of boxes"),
    ([["a"], [" "]], [[[.1, .1, .4, .4]]] * 2, "Picture 1: phrase 0 is empty"),
])
def test_boxes_and_phrases_that_cannot_be(parts, phrases, boxes, problem):
    with pytest.raises(ValueError, match=problem):
        gligen.ground(parts, phrases, boxes)


def test_more_boxes_than_slots_are_named(parts):
    with pytest.warns(UserWarning, match="Picture 0 has 3 boxes, only 2 fit; dropped: c"):
        found = gligen.ground(parts, [["a", "b", "c"]], [[[.1, .1, .4, .4]] * 3], limit=2)
    assert found.masks.tolist() == [[1, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gligen.ground(parts, [[]], [[]])


def test_what_cannot_be_painted(parts):
    grounding, zT = gligen.ground(parts, PHRASES, BOXES), parts.first_noise(2, 0)
    for tau in (1.5, -.1, math.nan):
        with pytest.raises(ValueError, match=r"tau must lie in 0\.\.1"):
            grounded.sample_grounded(parts, ["a", "b"], grounding, zT, tau=tau)
    for steps in (0, 1000):
        with pytest.raises(ValueError, match=rf"must lie in 1\.\.999, got {steps}"):
            grounded.sample_grounded(parts, ["a", "b"], grounding, zT, steps)
    with pytest.raises(ValueError, match="1 captions, groundings for 2 pictures"):
        grounded.sample_grounded(parts, ["a"], grounding, zT)
    with pytest.raises(ValueError, match="no gates: load grounded ones"):
        grounded.sample_grounded(weights.text_to_image(), ["a", "b"], grounding, zT)
    with pytest.raises(ValueError, match="nowhere to put a gate"):
        add_gates(UNet(sample_size=8, block_out_channels=(8,), norm_num_groups=4,
                       down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
                       mid_block_type="UNetMidBlock2D", layers_per_block=1))
    with pytest.raises(ValueError, match="call add_gates first"):
        freeze(UNet(**unet_keys()))


def test_a_position_net_of_its_own_reads_other_fields_by_name():
    """As key points and pictures will enter: only the net knows what a grounding holds."""
    @dataclass(frozen=True)
    class Points:
        points: torch.Tensor
        seen: torch.Tensor

    class PointNet(torch.nn.Module):
        def forward(self, seen, points):
            return seen[..., None] * points.repeat(1, 1, 12)

    unet = add_gates(UNet(**unet_keys()), PointNet())
    for block in gligen.transformer_blocks(unet):
        block.fuser.alpha_attn.data.fill_(1.)
    d, g = unet.context_width, torch.Generator().manual_seed(0)
    assert d == 24
    xt, context = torch.randn(1, 4, 16, 16, generator=g), torch.randn(1, 3, d, generator=g)
    requested = Points(torch.rand(1, 5, 2, generator=g), torch.ones(1, 5))
    t = torch.tensor([7])
    with torch.no_grad():
        one, other = (unet(xt, t, context, Points(requested.points, seen))
                      for seen in (requested.seen, torch.zeros(1, 5)))
    assert float((one - other).abs().max()) > 1e-4
