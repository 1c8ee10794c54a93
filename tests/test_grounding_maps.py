"""Maps as grounding: transformers' ConvNeXt, values worked out by hand, and laws."""

from types import SimpleNamespace

import pytest
import torch
from oracles import relative_error
from test_grounding_inputs import KEYS, stirred
from transformers import ConvNextConfig, ConvNextModel

from gligen_lessons import grounding_maps as maps
from gligen_lessons import latent, weights
from gligen_lessons.eval import grounding_inputs as judged
from gligen_lessons.gligen import add_gates, gate_names, transformer_blocks
from gligen_lessons.grounding_maps import (
    MAP_CLASSES,
    ConvNeXt,
    FirstConv,
    MapDownsampler,
    MapNet,
    SpatialMap,
)
from gligen_lessons.unet import UNet
from gligen_lessons.world.vocabulary import BASE, STUFF


def drawn_maps(b: int = 2, seed: int = 0) -> SpatialMap:
    g = torch.Generator().manual_seed(seed)
    return maps.semantic_maps(torch.randint(len(MAP_CLASSES), (b, 64, 64), generator=g))


def theirs_from(ours: ConvNeXt) -> ConvNextModel:
    """transformers' ConvNeXt with our weights."""
    model = ConvNextModel(ConvNextConfig(num_channels=5, patch_size=4, num_stages=2,
                                         hidden_sizes=[64, 128], depths=[2, 2])).eval()
    renamed = {}
    for name, value in ours.state_dict().items():
        kind, stage, place, *rest = name.split(".")
        if kind == "downsample_layers":
            part = (["patch_embeddings", "layernorm"][int(place)] if stage == "0" else
                    f"downsampling_layer.{place}")
            where = f"embeddings.{part}" if stage == "0" else f"encoder.stages.1.{part}"
            renamed[".".join([where, *rest])] = value
        else:
            rest[0] = {"norm": "layernorm", "gamma": "layer_scale_parameter"}.get(rest[0], rest[0])
            renamed[".".join([f"encoder.stages.{stage}.layers.{place}", *rest])] = value
    own = model.state_dict()
    model.load_state_dict(renamed | {k: own[k] for k in own if k.split(".")[0] == "layernorm"})
    return model


@torch.no_grad()
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_the_tower_is_the_convnext_of_transformers(dtype, bound):
    ours = stirred(ConvNeXt(5)).to(dtype)
    theirs = theirs_from(ours).to(dtype)
    x = torch.randn(2, 5, 64, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    want = theirs(x).last_hidden_state
    assert want.shape == (2, 128, 8, 8) and relative_error(ours(x), want) < bound
    assert relative_error(ours(x.roll(1, 3)), want) > 1e-2


@torch.no_grad()
def test_a_token_worked_out_by_hand():
    """In float64: the tower's state of one part, its place, the MLP written out."""
    net = stirred(MapNet(len(MAP_CLASSES), 6)).double()
    given = drawn_maps().each(torch.Tensor.double)
    tokens = net(**vars(given))
    states = net.convnext_tiny_backbone(net.in_conv(given.maps))
    row, column = 2, 5                                    # of 8 x 8 parts
    x = states[1, :, row, column] + net.pos_embedding[0, 8 * row + column]
    for k in (0, 2, 4):
        x = net.linears[k].weight @ x + net.linears[k].bias
        x = x / (1 + (-x).exp()) if k < 4 else x
    torch.testing.assert_close(tokens[1, 8 * row + column], x, rtol=0, atol=1e-10)
    assert tokens.shape == (2, 64, 6) and bool(tokens.isfinite().all())


@torch.no_grad()
def test_a_channel_worked_out_by_hand():
    """One position of the downsampler, its two convolutions as sums in float64."""
    net = stirred(MapDownsampler(len(MAP_CLASSES)), .3).double()
    x = drawn_maps(1).maps.double()
    got = net(x)
    assert got.shape == (1, maps.MAP_CHANNELS, 16, 16)

    def strided(layer, x, row, column):
        patch = torch.nn.functional.pad(x, (1, 1, 1, 1))[0, :, 2 * row:2 * row + 4,
                                                          2 * column:2 * column + 4]
        return (layer.weight * patch).sum((1, 2, 3)) + layer.bias

    first = torch.stack([torch.stack([strided(net.layers[0], x, r, c) for c in range(32)], 1)
                         for r in range(32)], 1)[None]
    first = first / (1 + (-first).exp())
    torch.testing.assert_close(got[0, :, 0, 7], strided(net.layers[2], first, 0, 7), rtol=0,
                               atol=1e-10)


@torch.no_grad()
def test_a_masked_map_may_hold_anything_and_is_the_null_map():
    net, given = stirred(MapNet(len(MAP_CLASSES), 6)), drawn_maps()
    one = SpatialMap(given.maps, torch.tensor([1., 0]))
    spoilt = SpatialMap(torch.stack([given.maps[0], given.maps[1] * torch.nan]), one.masks)
    want = net(**vars(one))
    assert torch.equal(net(**vars(spoilt)), want) and bool(want.isfinite().all())
    null = net.linears(net.null_feature + net.pos_embedding[0])
    torch.testing.assert_close(want[1], null)
    torch.testing.assert_close(net(**vars(given.none())), null.expand(2, -1, -1))
    whole = net(**vars(given))
    torch.testing.assert_close(whole[0], want[0])
    assert (whole[1] - want[1]).abs().max() > 1e-2


@pytest.mark.parametrize("width", [64, 40])
@torch.no_grad()
def test_new_channels_change_not_one_bit_until_they_learn(width):
    old = torch.nn.Conv2d(4, width, 3, padding=1)
    wide, x = FirstConv(old, 8), torch.randn(3, 12, 16, 16)
    want = old(x[:, :4])
    assert torch.equal(wide(x), want) and wide.bias.requires_grad
    wide.weight.add_(.1)
    assert (wide(x) - want).abs().max() > .1
    torch.testing.assert_close(wide(x), torch.nn.functional.conv2d(
        x, wide.weight, wide.bias, padding=1))            # it is one convolution
    wide.restored = True
    assert torch.equal(wide(x), want)
    assert set(wide.state_dict()) == {"weight", "bias"}, "the old weight is the base's"


@torch.no_grad()
def test_closed_gates_and_new_channels_paint_what_was_painted_bit_for_bit():
    torch.manual_seed(0)
    unet, given = UNet(**KEYS).eval(), drawn_maps()
    xt, t, context = torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 7, 24)
    want = unet(xt, t, context)
    shown = maps.concat_map_channels(maps.add_map_gates(unet), given.maps)
    assert torch.equal(shown(xt, t, context, given), want)
    assert torch.equal(shown(xt, t, context), want)
    unet.conv_in.weight[:, 4:] = .1
    assert (shown(xt, t, context, given) - want).abs().max() > 1e-3
    assert torch.equal(shown(xt, t, context), want), "restored where the gates are closed"
    assert not unet.conv_in.restored
    unet.conv_in.weight[:, 4:] = 0
    for block in transformer_blocks(unet):
        block.fuser.alpha_attn.fill_(1.)
    assert (shown(xt, t, context, given) - shown(xt, t, context, given.none())).abs().max() > 1e-5
    with pytest.raises(ValueError, match="already reads 12"):
        maps.add_map_gates(unet)


@torch.no_grad()
def test_guidance_keeps_the_channels_on_both_sides():
    torch.manual_seed(0)
    unet, given = maps.add_map_gates(UNet(**KEYS)).eval(), drawn_maps()
    unet.conv_in.weight[:, 4:] = .1
    xt, t, context = torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 7, 24)
    shown = maps.concat_map_channels(unet, given.maps)
    twice = shown(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([context, context]),
                  given.none().beside(given))
    torch.testing.assert_close(twice[:2], shown(xt, t, context, given.none()))
    torch.testing.assert_close(twice[2:], shown(xt, t, context, given))


def test_channels_alone_are_the_map_in_the_first_layer_and_null_tokens(monkeypatch):
    held, given = judged.HeldMaps.of(9), []

    def paint(parts, texts, grounding, seed, **options):
        given.append(grounding)
        return torch.full((len(texts), 3, 8, 8), float(grounding.masks.mean()))

    monkeypatch.setattr(judged, "generate_from_maps", paint)
    parts = SimpleNamespace(device="cpu")
    assert held.generated(parts, steps=2).unique().tolist() == [1.]
    assert held.generated(parts, tokens=False, steps=2).unique().tolist() == [0.]
    for with_tokens, without in zip(given[:2], given[2:], strict=True):
        assert torch.equal(with_tokens.maps, without.maps) and with_tokens.maps.any()
    monkeypatch.setattr(judged, "iou_figures", lambda x, held: {"mIoU": float(x.mean())})
    monkeypatch.setattr(judged, "report_rows", lambda held, parts, judge, **options: {
        row: {"mIoU": value} for row, value in (("grounded", .6), ("exchanged", .2))})
    report = judged.map_report(parts, 9, steps=2)
    assert report["mIoU, channels alone"] == 0 and report["mIoU, grounded"] == .6


def test_maps_let_learn_what_they_add_and_the_first_weight():
    plain = UNet(**KEYS)
    old = set(plain.state_dict())
    unet = maps.learn_maps(maps.add_map_gates(plain))
    learning = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert learning == set(maps.map_names(unet)) > set(gate_names(unet))
    assert learning == set(unet.state_dict()) - old | {"conv_in.weight"}
    assert not unet.conv_in.bias.requires_grad
    given = drawn_maps()
    shown = maps.concat_map_channels(unet, given.maps)
    shown(torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 7, 24),
          given).square().mean().backward()
    assert (unet.conv_in.weight.grad.abs().amax((0, 2, 3)) > 0).all(), "new channels learn at once"
    assert not unet.downsample_net.layers[0].weight.grad.any()


def test_classes_are_the_stuff_and_the_base_words_and_shrink_to_the_nearest():
    assert MAP_CLASSES == STUFF + BASE
    numbers = torch.arange(128)[:, None].expand(128, 128) % len(MAP_CLASSES)
    given = maps.semantic_maps(numbers[None])
    assert given.maps.shape == (1, len(MAP_CLASSES), 64, 64)
    assert given.maps[0].argmax(0)[:, 0].tolist() == numbers[1::2, 0].tolist()
    assert torch.equal(given.maps.sum(1), torch.ones(1, 64, 64))


@pytest.mark.parametrize("numbers, says", [
    (torch.zeros(1, 64, 128), "got 128 by 64"), (torch.zeros(1, 100, 100), "got 100 by 100"),
    (torch.zeros(1, 0, 0), "got 0 by 0"), (torch.full((1, 64, 64), 19), "holds 19, which is no cl"),
    (torch.full((1, 64, 64), -1), "holds -1"), (torch.full((1, 64, 64), .5), "holds 0.5"),
    (torch.full((1, 64, 64), torch.nan), "holds nan")])
def test_maps_that_cannot_be(numbers, says):
    with pytest.raises(ValueError, match=says):
        maps.semantic_maps(numbers)


def test_with_closed_gates_a_map_s_picture_is_the_plain_one():
    """The whole sampling loop, also after weights have moved and tau ends the grounding."""
    parts = weights.text_to_image()
    zT, captions, given = parts.first_noise(2, 5), ["a car", "a cat"], drawn_maps()
    *_, (_, want) = latent.sample_latents(parts, captions, zT, 3)
    maps.add_map_gates(parts.unet)
    assert torch.equal(maps.map_noise(parts, 2, 5), zT)
    *_, (_, fresh) = maps.sample_from_maps(parts, captions, given, zT, 3)
    assert torch.equal(fresh, want)
    with torch.no_grad():
        parts.unet.conv_in.weight[:, 4:] = .2
    *_, (_, moved) = maps.sample_from_maps(parts, captions, given, zT, 3)
    *_, (_, closed) = maps.sample_from_maps(parts, captions, given, zT, 3, tau=0.)
    assert torch.equal(closed, want) and relative_error(moved, want) > 1e-2
    assert maps.generate_from_maps(parts, captions, given, 5, steps=1).shape == (2, 3, 128, 128)
    with pytest.raises(ValueError, match="2 captions, groundings for 1 pictures"):
        maps.sample_from_maps(parts, captions, given.each(lambda x: x[:1]), zT)
    with pytest.raises(ValueError, match="no gates"):
        maps.sample_from_maps(weights.text_to_image(), captions, given, zT)


def test_a_position_net_for_boxes_is_not_that_of_maps():
    assert not set(MapNet(3, 4).state_dict()) & set(add_gates(
        UNet(**KEYS)).position_net.state_dict()) - {f"linears.{k}.{p}" for k in (0, 2, 4)
                                                    for p in ("weight", "bias")}
