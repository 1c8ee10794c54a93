"""Key points and pictures as grounding: diffusers' numbers, and laws."""

import math

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles import relative_error

from gligen_lessons import grounding_inputs as inputs
from gligen_lessons.gligen import add_gates, transformer_blocks
from gligen_lessons.grounding_inputs import Entities, EntityNet, KeypointNet, Keypoints
from gligen_lessons.unet import UNet

KEYS = {"sample_size": 16, "block_out_channels": (32, 64), "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 24,
        "attention_head_dim": 4}


def stirred(model: torch.nn.Module, scale: float = .15) -> torch.nn.Module:
    """All weights drawn, so that no zero hides a mistake."""
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, scale)
    return model.eval().requires_grad_(False)


def entities(b: int = 2, n: int = 5, d: int = 24) -> Entities:
    g = torch.Generator().manual_seed(1)
    boxes = torch.rand(b, n, 4, generator=g)
    masks, phrases, pictures = ((torch.rand(b, n, generator=g) < p).float() for p in (.8, .6, .5))
    return Entities(boxes, masks, masks * phrases, masks * pictures,
                    *(torch.randn(b, n, d, generator=g) for _ in range(2)))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_entities_through_the_gates_are_those_of_diffusers(dtype, tolerance):
    theirs = stirred(UNet2DConditionModel(**KEYS, attention_type="gated-text-image")).to(dtype)
    ours = add_gates(UNet(**KEYS), EntityNet(24, 24)).eval().requires_grad_(False).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    g, requested = torch.Generator().manual_seed(2), entities().each(lambda x: x.to(dtype))
    xt = torch.randn(2, 4, 16, 16, generator=g).to(dtype)
    context = torch.randn(2, 7, 24, generator=g).to(dtype)
    t = torch.tensor([20, 700])
    want = theirs(xt, t, context, cross_attention_kwargs={"gligen": vars(requested)}).sample
    got = ours(xt, t, context, requested)
    assert relative_error(got, want) < tolerance
    plain = ours(xt, t, context)
    assert (got - plain).abs().max() > 100 * tolerance * want.abs().max(), "it must matter"


def test_a_masked_slot_may_hold_anything():
    net, requested = stirred(EntityNet(24, 24)), entities()
    want = net(**vars(requested))
    spoilt = Entities(*(
        torch.where((mask > 0)[..., None], x, torch.nan) if x.ndim == 3 else x
        for x, mask in zip(vars(requested).values(), (requested.masks, None, None, None,
                                                      requested.phrases_masks,
                                                      requested.image_masks),
                           strict=True)))
    assert torch.equal(net(**vars(spoilt)), want) and bool(want.isfinite().all())


def test_text_alone_and_picture_alone_differ_in_their_own_token():
    net, requested = stirred(EntityNet(24, 24)), entities()
    whole = net(**vars(requested))
    silent = net(**vars(Entities(**{**vars(requested), "image_masks": 0 * requested.image_masks})))
    n = requested.boxes.shape[1]
    assert torch.equal(silent[:, :n], whole[:, :n])
    changed = (silent[:, n:] != whole[:, n:]).any(-1)
    assert torch.equal(changed, requested.image_masks > 0)


def test_none_is_what_no_entity_at_all_gives():
    net, requested = stirred(EntityNet(24, 24)), entities()
    none = net(**vars(requested.none()))
    assert torch.equal(none[:, :5], none[:1, :1].expand(2, 5, 24))      # every slot the same
    assert torch.equal(none[:, 5:], none[:1, 5:6].expand(2, 5, 24))
    both = requested.beside(requested.none())
    assert len(both.boxes) == 4 and not both.image_masks[2:].any()


# ---------------------------------------------------------------------------- key points

FIGURE = [[.1 + .05 * k, .9 - .05 * k, 2 if k % 3 else 0] for k in range(17)]


def test_a_key_point_s_token_worked_out_by_hand():
    """One figure, in float64: embeddings, sines, the MLP, entry by entry."""
    net = stirred(KeypointNet(6, persons=2)).double()
    requested = inputs.keypoint_grounding([[FIGURE]], persons=2).each(torch.Tensor.double)
    tokens = net(**vars(requested))
    assert tokens.shape == (1, 34, 6)
    joint = 4                                             # visible, at (.3, .7)
    x, y = requested.points[0, joint].tolist()
    sinusoids = []
    for k in range(8):
        rate = float(100 ** torch.tensor(k / 8))      # in single precision, as diffusers has it
        sinusoids += [math.sin(rate * x), math.sin(rate * y), math.cos(rate * x),
                      math.cos(rate * y)]
    name = net.person_embeddings[0] + net.keypoint_embeddings[joint]
    want = net.linears(torch.cat([name, torch.tensor(sinusoids, dtype=torch.float64)]))
    torch.testing.assert_close(tokens[0, joint], want, rtol=0, atol=1e-6)
    unseen = net.linears(torch.cat([net.null_person_feature, net.null_xy_feature]))
    torch.testing.assert_close(tokens[0, 3], unseen)      # not visible
    torch.testing.assert_close(tokens[0, 17:], unseen.expand(17, 6))    # no second figure


def test_points_that_are_not_visible_may_lie_anywhere():
    net = stirred(KeypointNet(6))
    moved = [[p if p[2] else [float("nan"), 7., 0] for p in FIGURE]]
    want, got = (net(**vars(inputs.keypoint_grounding([body]))) for body in ([FIGURE], moved))
    assert torch.equal(got, want)


def test_embeddings_start_at_zero_and_closed_gates_change_nothing():
    torch.manual_seed(0)
    unet, net = UNet(**KEYS).eval(), KeypointNet(24)
    assert not net.person_embeddings.any() and not net.keypoint_embeddings.any()
    given = torch.randn(1, 4, 16, 16), torch.tensor([300]), torch.randn(1, 7, 24)
    want = unet(*given)
    add_gates(unet, net)
    requested = inputs.keypoint_grounding([[FIGURE]])
    assert torch.equal(unet(*given, requested), want)
    for block in transformer_blocks(unet):
        block.fuser.alpha_attn.data.fill_(1.)
    assert (unet(*given, requested) - want).abs().max() > 1e-4
    assert (unet(*given, requested) - unet(*given, requested.none())).abs().max() > 1e-6


def test_figures_and_slots_may_stand_in_any_order():
    """Before anything tells figures apart, exchanging two exchanges their tokens; slots always."""
    net, moved = stirred(KeypointNet(6, persons=2)), [[x / 2, y / 2, v] for x, y, v in FIGURE]
    net.person_embeddings.data[1] = net.person_embeddings[0]
    one, other = (net(**vars(inputs.keypoint_grounding([bodies], persons=2)))
                  for bodies in ([FIGURE, moved], [moved, FIGURE]))
    torch.testing.assert_close(other, one.roll(17, 1))
    assert (other - one).abs().max() > 1e-2
    net, requested, order = stirred(EntityNet(24, 24)), entities(), torch.tensor([3, 0, 4, 2, 1])
    turned = net(**vars(requested.each(lambda x: x[:, order])))
    torch.testing.assert_close(turned, net(**vars(requested))[:, torch.cat([order, 5 + order])])


def test_figures_are_told_apart_by_their_own_embedding():
    net = stirred(KeypointNet(6, persons=2))
    two = inputs.keypoint_grounding([[FIGURE, FIGURE]], persons=2)
    tokens = net(**vars(two))
    seen = two.masks[0, :17] > 0
    assert (tokens[0, :17] - tokens[0, 17:])[seen].abs().amin() > 1e-6


@pytest.mark.parametrize("figures, words", [
    ([[FIGURE[:16]]], "Picture 0, figure 0: 17 key points"),
    ([[], [FIGURE, [[x, y, 0] for x, y, _ in FIGURE]]], "Picture 1, figure 1: no key point is"),
    ([[[[1.2, .5, 2], *FIGURE[1:]]]], r"lies at \[1.2"),
    ([[[[float("nan"), .5, 2], *FIGURE[1:]]]], r"lies at \[nan"),
    ([[FIGURE] * 9], "Picture 0 has 9 figures, at most 8"),
])
def test_bad_figures_are_named(figures, words):
    with pytest.raises(ValueError, match=words):
        inputs.keypoint_grounding(figures)


# ---------------------------------------------------------------------------- pictures

def test_a_picture_s_feature_is_led_back_and_has_the_norm_of_the_original():
    g = torch.Generator().manual_seed(3)
    e, p = torch.randn(3, 5, generator=g), torch.randn(5, 7, generator=g)
    got = inputs.image_features(e, p)
    torch.testing.assert_close(got.norm(dim=-1), torch.full((3,), 28.7))
    torch.testing.assert_close(inputs.image_features(9 * e, p), got)
    side = torch.nn.functional.cosine_similarity(got, e @ p)
    torch.testing.assert_close(side, torch.ones(3))


def test_key_points_of_pictures_are_chosen_and_joined():
    requested = inputs.keypoint_grounding([[FIGURE], []])
    assert isinstance(requested.each(lambda x: x[:1]), Keypoints)
    assert len(requested.beside(requested).points) == 4 and not requested.none().masks.any()
    assert not requested.masks[1].any()
