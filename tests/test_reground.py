"""ReGround: the equation, written out; closed gates; wiring that is put back."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from oracles import relative_error
from test_gligen import inputs, pair, unet_keys

from gligen_lessons import grounded
from gligen_lessons.eval.grounding import Held
from gligen_lessons.eval.reground import (
    UNBOXED,
    alternatives,
    clip_scores,
    says,
    with_full_captions,
    worded,
)
from gligen_lessons.gligen import transformer_blocks
from gligen_lessons.reground import reground
from gligen_lessons.world import named, scene
from gligen_lessons.world.vocabulary import WEATHERS


@pytest.fixture(scope="module")
def unet():
    return pair(unet_keys())[0].double()


def drawn():
    xt, t, context, grounding = inputs(unet_keys())
    return (xt.double(), t, context.double(),
            grounding.each(lambda x: x.double() if x.is_floating_point() else x))


@torch.no_grad()
def test_a_block_is_the_papers_equation_with_the_residual_once(unet):
    """F = GSA(F_SA) + CA(F_SA) + F_SA; GSA is what the gate adds, so the gate's own counts once."""
    block = transformer_blocks(unet)[0]
    g = torch.Generator().manual_seed(0)
    d = block.attn1.to_q.in_features
    x, context, objs = (torch.randn(2, n, w, generator=g).double() for n, w in
                        ((9, d), (7, 24), (5, 24)))
    after = x + block.attn1(block.norm1(x))
    added = block.fuser(after, objs) - after
    words = block.attn2(block.norm2(after), context)
    joined = added + words + after
    want = joined + block.ff(block.norm3(joined))
    with reground(unet):
        got = block(x, context, objs)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert relative_error(block(x, context, objs), want) > 1e-2, "GLIGEN's block is another"


@torch.no_grad()
def test_with_closed_gates_it_is_the_old_network(unet):
    xt, t, context, grounding = drawn()
    with grounded.gate_scale(unet, 0.), reground(unet):
        closed = unet(xt, t, context, grounding)
    plain = unet(xt, t, context)
    assert torch.equal(closed, plain)
    with reground(unet):
        assert torch.equal(unet(xt, t, context), plain)      # no grounding: nothing to rewire
        assert relative_error(unet(xt, t, context, grounding), plain) > 1e-2


@torch.no_grad()
def test_all_blocks_are_rewired_and_put_back_even_after_an_error(unet):
    blocks = transformer_blocks(unet)
    blocks[1].parallel = True
    with pytest.raises(RuntimeError), reground(unet):
        assert all(block.parallel for block in blocks)
        with reground(unet, parallel=False):
            assert not any(block.parallel for block in blocks)
        assert all(block.parallel for block in blocks)
        raise RuntimeError
    assert [block.parallel for block in blocks] == [i == 1 for i in range(len(blocks))]
    blocks[1].parallel = False


@torch.no_grad()
def test_it_changes_the_prediction_by_more_than_rounding(unet):
    xt, t, context, grounding = drawn()
    gligen = unet(xt, t, context, grounding)
    with reground(unet):
        other = unet(xt, t, context, grounding)
    assert relative_error(other, gligen) > 1e-2


def test_words_that_no_box_names_are_told_apart_in_captions_that_else_agree():
    one = scene(31_000_003)
    for attribute, values in UNBOXED.items():
        texts = alternatives(one, attribute)
        assert len(set(texts)) == len(values), texts
        assert texts[values.index(getattr(one, attribute))] == worded(one)
    rain = replace(one, weather="rain", amount=.9)
    assert alternatives(rain, "weather")[WEATHERS.index("rain")] == worded(rain)


def test_a_word_counts_where_the_caption_says_it():
    """Without its word a caption is the same for the first of all values."""
    for one in map(scene, range(31_000_000, 31_000_040)):
        for attribute, silent in (("style", "flat"), ("weather", "clear")):
            bare = replace(one, **{attribute: silent})
            assert says(one, attribute) == (worded(one) != worded(bare))
        assert says(one, "time") and says(one, "ground")


def test_full_captions_belong_to_their_layouts():
    held, scenes = with_full_captions(Held.of(6))
    for asked, one in zip(held.requested, scenes, strict=True):
        assert asked.caption == worded(one)
        assert all(named(thing) in asked.caption for thing in one.things)
        assert all(phrase in asked.caption for phrase in asked.phrases)


def test_a_score_is_a_hundred_times_the_cosine_and_never_negative():
    class Towers(torch.nn.Module):
        """Two towers whose embeddings are known."""
        def __init__(self):
            super().__init__()
            self.scale, self.vision_model = torch.nn.Parameter(torch.ones(1)), SimpleNamespace(
                side=4)

        def encode_image(self, x):
            return 3 * torch.tensor([[1., 0], [.6, .8]])

        def encode_text(self, ids):
            return torch.tensor([[.6, .8], [-2., 0]])

    got = clip_scores(Towers(), lambda texts: torch.zeros(2, 3), torch.zeros(2, 3, 4, 4), ["", ""])
    torch.testing.assert_close(got, torch.tensor([60., 0.]))
