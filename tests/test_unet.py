"""Our U-Net against diffusers' UNet2DConditionModel: same keys, same names, same numbers."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles import draw, relative_error

from gligen_lessons.unet import DEFAULTS, FIXED, UNet

CROSS = ("CrossAttnDownBlock2D",), ("CrossAttnUpBlock2D",)
PLAIN = ("DownBlock2D",), ("UpBlock2D",)


def config(down: tuple, up: tuple, widths: tuple, **keys) -> dict:
    return dict(down_block_types=down, up_block_types=up, block_out_channels=widths,
                norm_num_groups=8, cross_attention_dim=12, attention_head_dim=4) | keys


PIXEL = config(("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
               ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), (32, 64, 64), in_channels=3,
               out_channels=3, mid_block_type="UNetMidBlock2D", attention_head_dim=8)
LATENT = config(CROSS[0] * 2 + PLAIN[0], PLAIN[1] + CROSS[1] * 2, (32, 64, 96),
                norm_num_groups=32)
# every kind of block, each level with its own attention_head_dim
MIXED = config(("CrossAttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
               ("AttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D"),
               (16, 24, 16, 32), attention_head_dim=(2, 4, 8, 16), layers_per_block=(1, 2, 3, 1))
CASES = {
    "pixel, as in lesson 1": (PIXEL, (32, 32)),
    "latent, as from lesson 6 on": (LATENT, (16, 16)),
    "latent, odd": (LATENT, (13, 18)),
    "latent, odd at the second level": (LATENT, (10, 6)),
    "latent, one pixel": (LATENT, (1, 1)),
    "one level, one layer": (config(*CROSS, (32,), layers_per_block=1, in_channels=3,
                                    out_channels=3), (5, 7)),
    "two levels, three layers": (config(PLAIN[0] * 2, PLAIN[1] * 2, (16, 48), in_channels=8,
                                        layers_per_block=3, norm_num_groups=16,
                                        mid_block_type="UNetMidBlock2D"), (9, 6)),
    "three levels, nine channels in": (LATENT | dict(in_channels=9, layers_per_block=1),
                                       (8, 12)),
    "four levels, eight channels out": (config(CROSS[0] * 4, CROSS[1] * 4, (16, 16, 24, 32),
                                               out_channels=8, layers_per_block=1,
                                               attention_head_dim=(2, 4, 3, 8)), (17, 11)),
    "plain levels, cross-attention at the bottom": (config(PLAIN[0] * 2, PLAIN[1] * 2,
                                                           (16, 32)), (7, 8)),
    "every kind of block": (MIXED, (16, 24)),
}


def pair(keys: dict) -> tuple[UNet, UNet2DConditionModel]:
    """Our network and diffusers', of the same config with the same drawn weights."""
    ours, theirs = UNet(**keys), UNet2DConditionModel(**keys)
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def inputs(keys: dict, size: tuple, b: int = 2, dtype=torch.float32) -> tuple:
    generator = torch.Generator().manual_seed(1)
    xt = torch.randn(b, keys.get("in_channels", 4), *size, generator=generator)
    t = torch.randint(1000, (b,), generator=generator)
    context = torch.randn(b, 5, keys["cross_attention_dim"], generator=generator)
    return xt.to(dtype), t, context.to(dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@torch.no_grad()
def test_output_is_that_of_diffusers(name, dtype, bound):
    keys, size = CASES[name]
    ours, theirs = (model.to(dtype) for model in pair(keys))
    given = inputs(keys, size, dtype=dtype)
    expected = theirs(*given).sample
    assert 0.2 < float(expected.std()) < 5
    assert relative_error(ours(*given), expected) < bound


@pytest.mark.parametrize("keys", [PIXEL, LATENT, MIXED], ids=["pixel", "latent", "mixed"])
def test_state_dicts_go_both_ways(keys):
    ours, theirs = UNet(**keys), UNet2DConditionModel(**keys)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(ours.state_dict()[name], p) for name, p in theirs.state_dict().items())
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(ours.state_dict()[name], p) for name, p in theirs.state_dict().items())
    assert UNet2DConditionModel(**ours.config).config["block_out_channels"] == \
        keys["block_out_channels"]


@torch.no_grad()
def test_every_parameter_changes_the_output():
    """Without this, parity would also hold for parts that neither network uses."""
    ours = pair(MIXED)[0].double()                               # far above what rounding does
    given = inputs(MIXED, (8, 16), b=1, dtype=torch.float64)     # 1 x 2 pixels at the bottom
    before, unnoticed = ours(*given), []
    for name, p in ours.named_parameters():
        kept = p.clone()
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * p.std())
        if relative_error(ours(*given), before) < 1e-8:
            unnoticed.append(name)
        p.copy_(kept)
    # a constant added to all keys moves all scores of a query alike, and softmax drops it
    assert unnoticed == [name for name, _ in ours.named_parameters() if "to_k.bias" in name]


@pytest.mark.parametrize("keys", [PIXEL, LATENT], ids=["pixel", "latent"])
def test_gradients_are_those_of_diffusers(keys):
    ours, theirs = (model.double() for model in pair(keys))
    given = inputs(keys, (8, 8), dtype=torch.float64)
    ours(*given).square().mean().backward()
    theirs(*given).sample.square().mean().backward()
    for name, p in theirs.named_parameters():
        if "to_k.bias" not in name:                              # zero, see above
            assert relative_error(ours.get_parameter(name).grad, p.grad) < 1e-9, name


@torch.no_grad()
def test_full_size_of_stable_diffusion():
    keys = dict(cross_attention_dim=768, sample_size=64)         # version 1.4
    with torch.device("meta"):
        ours, theirs = UNet(**keys), UNet2DConditionModel(**keys)
    theirs.to_empty(device="cpu")
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == 859_520_964
    given = inputs(keys, (8, 16), b=1)
    expected = theirs(*given).sample
    assert 0.2 < float(expected.std()) < 5
    assert relative_error(ours(*given), expected) < 1e-5


@torch.no_grad()
def test_empty_slots_take_the_gates_of_diffusers():
    ours, theirs = UNet(**LATENT), UNet2DConditionModel(**LATENT, attention_type="gated")
    ours.position_net = theirs.position_net                # it reads a grounding's fields by name
    for name, block in theirs.named_modules():
        if hasattr(block, "fuser"):
            ours.get_submodule(name).fuser = block.fuser
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    xt, t, context = inputs(LATENT, (13, 18))
    grounding = SimpleNamespace(
        boxes=torch.tensor([[[0.1, 0.2, 0.5, 0.9], [0.0, 0.0, 0.3, 0.4]]] * 2),
        masks=torch.tensor([[1.0, 1.0], [1.0, 0.0]]), positive_embeddings=context[:, :2] + 1)
    gligen = vars(grounding)
    expected = theirs(xt, t, context, cross_attention_kwargs=dict(gligen=dict(gligen))).sample
    assert relative_error(ours(xt, t, context, grounding), expected) < 1e-5
    without = theirs(xt, t, context).sample
    assert relative_error(without, expected) > 1e-2
    assert relative_error(ours(xt, t, context), without) < 1e-5


@torch.no_grad()
def test_half_precision_inside_autocast():
    ours, theirs = pair(LATENT)
    xt, t, context = inputs(LATENT, (8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = theirs(xt, t, context.bfloat16()).sample.float()
        assert relative_error(ours(xt, t, context.bfloat16()).float(), expected) < 0.02
    assert relative_error(expected, ours(xt, t, context)) > 1e-4


def test_tables_of_keys_are_those_of_diffusers():
    signature = inspect.signature(UNet2DConditionModel.__init__).parameters
    theirs = {key: value.default for key, value in signature.items() if key != "self"}
    assert theirs == DEFAULTS | FIXED
    assert not DEFAULTS.keys() & FIXED.keys()


def test_keys_at_their_defaults_and_remarks_are_accepted():
    keys = PIXEL | FIXED | dict(sample_size=32, _class_name="UNet2DConditionModel")
    model = UNet(**keys)
    assert model.config == keys
    assert model.state_dict().keys() == UNet(**PIXEL).state_dict().keys()


@pytest.mark.parametrize("key", FIXED)
def test_a_key_that_is_not_implemented_is_refused_by_name(key):
    with pytest.raises(ValueError, match=f"^{key}='something else' is not implemented"):
        UNet(**PIXEL, **{key: "something else"})


@pytest.mark.parametrize("keys, words", [
    (dict(block_out_chanels=(32, 64)), "'block_out_chanels' is not a key"),
    (dict(down_block_types=("DownBlock2D",)), "down_block_types needs one entry"),
    (dict(layers_per_block=(1, 2)), "layers_per_block needs one entry"),
    (dict(attention_head_dim=(1, 2, 3, 4)), "attention_head_dim needs one entry"),
    (dict(attention_head_dim=5), "attention_head_dim=5 does not divide the 64 channels"),
    (dict(attention_head_dim=128), "attention_head_dim=128 does not divide"),
    (dict(attention_head_dim=0), "attention_head_dim=0 does not divide"),
    (dict(down_block_types=("DownBlock2D", "KDownBlock2D", "DownBlock2D")), "'KDownBlock2D'"),
    (dict(up_block_types=("DownBlock2D",) * 3), "up_block_types: 'DownBlock2D'"),
    (dict(mid_block_type=None), "mid_block_type: None is not implemented"),
    (dict(norm_num_groups=7), "norm_num_groups=7"),
    (dict(norm_num_groups=None), "norm_num_groups=None"),
    (dict(norm_num_groups=1, block_out_channels=(33, 64, 64)), "the first one even"),
    (dict(cross_attention_dim=(8, 8, 8)), "cross_attention_dim must be one whole number"),
])
def test_a_config_that_does_not_fit_is_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        UNet(**PIXEL | keys)


@pytest.mark.parametrize("change, error, words", [
    (dict(t=torch.tensor([1.0, 2.0])), TypeError, "whole steps .* got torch.float32"),
    (dict(t=7), TypeError, "whole steps .* got int"),
    (dict(t=torch.tensor(7)), ValueError, "one step for each of the 2 pictures"),
    (dict(t=torch.tensor([7])), ValueError, "one step for each of the 2 pictures"),
    (dict(t=torch.tensor([7, -1])), ValueError, "negative, got -1"),
    (dict(xt=torch.zeros(2, 3, 8, 8)), ValueError, r"\(b,4,h,w\) .* \(2, 3, 8, 8\)"),
    (dict(xt=torch.zeros(4, 8, 8)), ValueError, r"got shape \(4, 8, 8\)"),
    (dict(xt=torch.zeros(())), ValueError, r"got shape \(\)"),
    (dict(xt=torch.zeros(0, 4, 8, 8)), ValueError, "at least one picture"),
    (dict(xt=torch.zeros(2, 4, 8, 8).double()), TypeError, "xt is torch.float64"),
    (dict(xt=torch.zeros(2, 4, 8, 8, device="meta")), ValueError, "xt is on meta"),
    (dict(context=None), ValueError, r"context must be \(2,n,12\) .* got None"),
    (dict(context=torch.zeros(2, 5, 768)), ValueError, r"got \(2, 5, 768\)"),
    (dict(context=torch.zeros(1, 5, 12)), ValueError, r"got \(1, 5, 12\)"),
    (dict(context=torch.zeros(2, 12)), ValueError, r"got \(2, 12\)"),
    (dict(context=torch.zeros(2, 5, 12).half()), TypeError, "context is torch.float16"),
    (dict(grounding=SimpleNamespace()), ValueError, "no gates"),
])
def test_input_that_cannot_be_read_is_refused(change, error, words):
    xt, t, context = inputs(LATENT, (8, 8))
    given = dict(xt=xt, t=t, context=context) | change
    with pytest.raises(error, match=words):
        UNet(**LATENT)(**given)


@torch.no_grad()
def test_a_network_without_cross_attention_needs_no_context():
    ours, theirs = pair(PIXEL)
    xt, t, context = inputs(PIXEL, (8, 8))
    assert relative_error(ours(xt, t), theirs(xt, t, None).sample) < 1e-5
    assert torch.equal(ours(xt, t, context), ours(xt, t))
