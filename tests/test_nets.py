"""Laws of the parts that several networks share; `test_unet` compares them with diffusers."""

import numpy as np
import pytest
import torch
from oracles import relative_error

from gligen_lessons import nets


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_timestep_embedding_is_the_formula_in_64_bits():
    t, width = torch.tensor([0, 1, 500, 999]), 10
    angles = t.numpy()[:, None] * 10000.0 ** (-np.arange(5) / 5)
    formula = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    assert np.abs(nets.timestep_embedding(t, width).numpy() - formula).max() < 1e-4


def test_attention_by_hand_is_torchs_fused_one():
    q, k, v = noise(2, 3, 5, 8), noise(2, 3, 7, 8, seed=1), noise(2, 3, 7, 6, seed=2)
    mask = noise(5, 7, seed=3) > 0
    mask[:, 0] = True                                            # a query must see something
    fused = torch.nn.functional.scaled_dot_product_attention
    for seen in (None, mask):
        ours = nets.dot_product_attention(q, k, v, seen)
        assert relative_error(ours, fused(q, k, v, attn_mask=seen)) < 1e-5
    causal = nets.dot_product_attention(k, k, v, nets.causal_mask(7))
    assert relative_error(causal, fused(k, k, v, is_causal=True)) < 1e-5


def test_heads_split_and_join():
    x = noise(2, 5, 12)
    heads = nets.split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 4) and torch.equal(heads[1, 2, 4], x[1, 4, 8:])
    assert torch.equal(nets.join_heads(heads), x)


def test_attention_is_softmax_of_dot_products():
    attention, x, context = nets.Attention(8, 2, 6), noise(3, 5, 8), noise(3, 7, 6, seed=1)
    q, k, v = attention.to_q(x), attention.to_k(context), attention.to_v(context)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):                      # the channels of each head
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5
        heads.append(scores.softmax(-1) @ v[..., part])
    expected = attention.to_out[0](torch.cat(heads, dim=-1))
    assert relative_error(attention(x, context), expected) < 1e-5


def test_attention_does_not_know_the_order_of_the_context():
    attention, x, context = nets.Attention(8, 2, 6), noise(3, 5, 8), noise(3, 7, 6, seed=1)
    order = torch.tensor([6, 2, 0, 1, 5, 4, 3])
    assert relative_error(attention(x, context[:, order]), attention(x, context)) < 1e-5
    assert relative_error(attention(x, context[:, :6]), attention(x, context)) > 1e-3


def test_spatial_attention_moves_with_the_pixels():
    attention, x = nets.SpatialAttention(8, 2, 4), noise(2, 8, 3, 5)
    turned = attention(x.flip(2).transpose(2, 3))
    assert relative_error(turned, attention(x).flip(2).transpose(2, 3)) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (7, 7)])
def test_upsample_returns_to_the_size_before_downsample(size):
    x = noise(2, 4, *size)
    half = nets.Downsample2D(4)(x)
    assert half.shape[2:] == tuple((side + 1) // 2 for side in size)
    assert nets.Upsample2D(4)(half, x.shape[2:]).shape == x.shape


def test_empty_fuser_slot_leaves_grounded_objects_unread():
    block, x, words = nets.BasicTransformerBlock(8, 2, 6), noise(2, 5, 8), noise(2, 3, 6)
    assert torch.equal(block(x, words, objs=noise(2, 4, 6)), block(x, words))
    block.fuser = lambda x, objs: x + objs.mean()
    assert not torch.equal(block(x, words, objs=noise(2, 4, 6)), block(x, words))


def test_relative_error_refuses_comparisons_that_pass_for_nothing():
    one = torch.ones(2)
    assert relative_error(one + 0.5, one) == 0.5
    for ours, theirs in ((one * torch.nan, one), (one, one * torch.inf), (one, one[:1]),
                         (one, one * 0)):
        with pytest.raises(ValueError):
            relative_error(ours, theirs)


# -------------------------------------------------------------------- recorded and replaced

def cross_layers() -> dict[str, nets.Attention]:
    torch.manual_seed(3)
    return {"a": nets.Attention(12, 3, 10), "b": nets.Attention(12, 3, 10)}


@torch.no_grad()
def test_a_map_put_back_as_it_is_changes_nothing():
    layers, x, context = cross_layers(), torch.randn(2, 6, 12), torch.randn(2, 5, 10)
    want = [layer(x, context) for layer in layers.values()]
    for control in (lambda name, weights: None, lambda name, weights: weights):
        with nets.replace_attention(layers, control):
            for layer, right in zip(layers.values(), want, strict=True):
                torch.testing.assert_close(layer(x, context), right)
    assert not any(layer._forward_hooks for layer in layers.values())


@torch.no_grad()
def test_another_map_mixes_the_values_in_its_place():
    """With all attention on one word, each pixel gets that word's value, in every head."""
    layers, x, context = cross_layers(), torch.randn(2, 6, 12), torch.randn(2, 5, 10)
    seen = []

    def control(name, weights):
        seen.append((name, weights.shape))
        return torch.eye(5)[3].expand_as(weights) if name == "a" else None

    kept = layers["b"](x, context)
    with nets.replace_attention(layers, control):
        got, other = (layer(x, context) for layer in layers.values())
    layer = layers["a"]
    want = layer.to_out[0](layer.to_v(context[:, 3:4]))
    torch.testing.assert_close(got, want.expand_as(got))
    assert torch.equal(other, kept) and seen == [(n, (2, 3, 6, 5)) for n in layers]


@torch.no_grad()
def test_self_attention_is_replaced_too():
    torch.manual_seed(4)
    layer, x = nets.Attention(12, 3), torch.randn(2, 6, 12)
    with nets.replace_attention({"": layer}, lambda name, p: torch.eye(6).expand_as(p)):
        got = layer(x)
    torch.testing.assert_close(got, layer.to_out[0](layer.to_v(x)))


@torch.no_grad()
def test_maps_are_recorded_by_name_and_call():
    layers, x, context = cross_layers(), torch.randn(2, 6, 12), torch.randn(2, 5, 10)
    with nets.record_attention(layers, nets.head_mean(nets.attention_map)) as maps:
        for _ in range(2):
            layers["a"](x, context)
    want = nets.attention_map(layers["a"], x, context).mean(1)
    assert [len(calls) for calls in maps.values()] == [2, 0]
    torch.testing.assert_close(maps["a"][1], want)
    layers["a"](x, context)
    assert len(maps["a"]) == 2


# -------------------------------------------------------------------- a gate in parallel

@torch.no_grad()
def test_a_parallel_gate_is_the_sum_of_both_attentions():
    """ReGround: F_SA + (GSA(F_SA, g) - F_SA) + CA(F_SA, c), from the block's own parts."""
    torch.manual_seed(5)
    block = nets.BasicTransformerBlock(12, 3, 10)
    block.fuser = Shift()
    x, context, objs = torch.randn(2, 6, 12), torch.randn(2, 5, 10), torch.randn(2, 4, 10)
    block.parallel = True
    own = x + block.attn1(block.norm1(x))
    both = block.fuser(own, objs) + block.attn2(block.norm2(own), context)
    want = both + block.ff(block.norm3(both))
    got = block(x, context, objs)
    torch.testing.assert_close(got, want)
    alone = block(x, context)                             # without objects nothing changes
    block.parallel = False
    assert torch.equal(block(x, context), alone)
    assert (block(x, context, objs) - got).abs().max() > 1e-3, "in series words read the gate"


class Shift(torch.nn.Module):
    """Stands for a gate that adds something different to each channel."""

    def forward(self, x, objs):
        return x + objs.mean((1, 2))[:, None, None] * torch.linspace(-1, 1, x.shape[-1])
