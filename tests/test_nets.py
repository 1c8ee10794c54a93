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
