"""Prompt-to-Prompt: what is copied, where, and in which steps; what must stay untouched."""

import itertools

import pytest
import torch
from oracles import draw

from gligen_lessons import device, latent, nets, null_text, prompt2prompt, weights
from gligen_lessons import prompt_alignment as alignment
from gligen_lessons.checks._fixtures import small_vae
from gligen_lessons.clip import TextModel
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet

TOKENIZER = weights.tokenizer(16)
BASE, EDIT = "a red car on the grass", "a blue car on the grass"


def words(caption: str):
    return alignment.word_tokens(TOKENIZER, caption)


def small_parts() -> latent.TextToImage:
    """Random parts: layers of 64, 16 and 4 pixels that attend to pixels and to words."""
    unet = UNet(sample_size=8, in_channels=3, out_channels=3, layers_per_block=1,
                norm_num_groups=4, block_out_channels=(8, 8, 8), attention_head_dim=2,
                cross_attention_dim=12, down_block_types=("CrossAttnDownBlock2D",) * 3,
                up_block_types=("CrossAttnUpBlock2D",) * 3)
    text = TextModel(vocab_size=len(TOKENIZER.vocabulary), hidden_size=12, intermediate_size=24,
                     num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16,
                     eos_token_id=TOKENIZER.end)
    for i, net in enumerate((unet, text)):
        draw(net.eval().requires_grad_(False), i)
    return latent.TextToImage(small_vae(), text, unet, TOKENIZER, Schedule.scaled_linear())


@pytest.fixture(scope="module")
def parts():
    return small_parts()


def final(way):
    *_, (_, z) = way
    return z


def edited(parts, bases=(BASE,), edits=(EDIT,), guidance_scale=3., local=None, nulls=None,
           seed=0, **options):
    bases, edits = list(bases), list(edits)
    control = prompt2prompt.make_control(parts, bases, edits, **{"steps": 5} | options)
    zT = parts.first_noise(len(bases), seed)
    return final(prompt2prompt.edit_latents(parts, bases, edits, zT, control, guidance_scale,
                                            local, nulls))


# ------------------------------------------------------------------------------ words and tokens

def test_words_know_their_tokens():
    """By hand: "zebra" is no token of the course's and falls into z, e, b, r, a."""
    assert words("a red car") == [("a", [1]), ("red", [2]), ("car", [3])]
    assert words("a zebra, too")[:3] == [("a", [1]), ("zebra", [2, 3, 4, 5, 6]), (",", [7])]


@pytest.mark.parametrize("caption", [
    "a red car", "A  zebra, too.", "why?! no; it's a red-blue cat", "x_y, 20 (cats),", "a,b"])
def test_tokens_of_the_words_are_the_caption_s(caption):
    tokenizer = weights.tokenizer(40)
    ids, found = tokenizer([caption])[0].tolist(), alignment.word_tokens(tokenizer, caption)
    spoken = [token for _, tokens in found for token in tokens]
    assert spoken == list(range(1, ids.index(tokenizer.end)))
    for word, tokens in found:
        assert tokenizer.words([ids[i] for i in tokens]).replace(" ", "") == word.lower()


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_caption_is_refused(empty):
    with pytest.raises(ValueError, match="empty: say what"):
        words(empty)


def test_a_caption_that_would_be_cut_is_refused():
    assert len(words("a " * 14)) == 14
    with pytest.raises(ValueError, match="15 tokens and only 14 fit"):
        words("a " * 15)


def test_a_word_is_found_wherever_it_stands():
    assert alignment.find(words("a car and a cat"), "a") == [1, 4]
    assert alignment.find(words("a red car"), "red car") == [2, 3]
    for missing in ("truck", "", "ca"):
        with pytest.raises(ValueError, match="does not occur in 'a red car'"):
            alignment.find(words("a red car"), missing)


# ------------------------------------------------------------------------------------- mappers

def test_a_swap_of_words_with_as_many_tokens_is_the_identity():
    assert torch.equal(alignment.swap_mapper(words(BASE), words(EDIT), 16), torch.eye(16))


def test_a_swap_spreads_a_token_over_several_and_keeps_what_follows_in_order():
    """cat -> zebra, by hand: one token becomes five, and "on" moves from place 3 to 7."""
    mapper = alignment.swap_mapper(words("a cat on"), words("a zebra on"), 16)
    want = torch.zeros(16, 16)
    want[0, 0] = want[1, 1] = 1
    want[2, 2:7] = 1 / 5
    for i in range(3, 12):
        want[i, i + 4] = 1
    assert torch.equal(mapper, want)
    back = alignment.swap_mapper(words("a zebra on"), words("a cat on"), 16)
    want = torch.zeros(16, 16)
    want[0, 0] = want[1, 1] = 1
    want[2:7, 2] = 1
    for i in range(7, 16):
        want[i, i - 4] = 1
    assert torch.equal(back, want)


def test_a_swap_keeps_every_word_s_attention():
    mapper = alignment.swap_mapper(words("a cat and a dog"), words("a zebra and a dog"), 16)
    torch.testing.assert_close(mapper.sum(1)[:12], torch.ones(12))


def test_a_swap_needs_as_many_words():
    with pytest.raises(ValueError, match="got 3 and 4: align them by refinement"):
        alignment.mappers(TOKENIZER, ["a red car"], ["a big red car"], "swap")


@pytest.mark.parametrize("given", [(["a"], ["a", "b"], None), (["a"], ["b"], "blend")])
def test_mappers_refuse_what_they_do_not_know(given):
    with pytest.raises(ValueError, match="a kind, swap or refine"):
        alignment.mappers(TOKENIZER, *given)


def scores(source, target, gap, match, mismatch):
    """The score of every alignment there is, by trying: (score, partners)."""
    if not source or not target:
        yield gap * (len(source) + len(target)), [-1] * len(target)
        return
    for score, rest in scores(source[:-1], target[:-1], gap, match, mismatch):
        yield (score + (match if source[-1] == target[-1] else mismatch),
               [*rest, len(source) - 1])
    for score, rest in scores(source[:-1], target, gap, match, mismatch):
        yield score + gap, rest
    for score, rest in scores(source, target[:-1], gap, match, mismatch):
        yield score + gap, [*rest, -1]


@pytest.mark.parametrize("prices", [(0., 1., -1.), (-1., 1., -1.), (-.5, 2., -3.), (-2., 1., 0.)])
def test_needleman_and_wunsch_find_a_best_alignment(prices):
    for n, m in itertools.product(range(5), range(5)):
        for k in range(6):
            g = torch.Generator().manual_seed(100 * n + 10 * m + k)
            source = torch.randint(3, (n,), generator=g).tolist()
            target = torch.randint(3, (m,), generator=g).tolist()
            every = list(scores(source, target, *prices))
            best = max(score for score, _ in every)
            found = alignment.align(source, target, *prices)
            assert found in [partners for score, partners in every if score == best]


def test_alignments_by_hand():
    """Needleman and Wunsch's own words: GATTACA and GCATGCU; and captions."""
    assert alignment.align([1, 2, 3], [1, 9, 2, 3]) == [0, -1, 1, 2]
    assert alignment.align([1, 2, 3], [1, 3]) == [0, 2]
    assert alignment.align([1, 2, 3], [1, 8, 3]) == [0, -1, 2]          # a swap is no match
    assert alignment.align([1, 2, 3], [1, 8, 3], gap=-1.) == [0, 1, 2]  # ... unless gaps cost
    assert alignment.align([], [5]) == [-1] and alignment.align([5], []) == []


def test_a_new_word_has_no_source_and_the_others_keep_theirs():
    """By hand: "striped" is new at place 2, so red and car move from 2, 3 to 3, 4."""
    mapper = alignment.mappers(TOKENIZER, ["a red car"], ["a striped red car"])[0]
    assert mapper[:, 2].sum() == 0
    want = {0: 0, 1: 1, 2: 3, 3: 4, 4: 5, 14: 15}
    assert all(mapper[i, j] == 1 and mapper[i].sum() == 1 for i, j in want.items())
    gone = alignment.mappers(TOKENIZER, ["a striped red car"], ["a red car"])[0]
    assert torch.equal(gone[:15, :15], mapper.T[:15, :15])


def test_refining_leaves_a_swapped_word_alone():
    mapper = alignment.mappers(TOKENIZER, [BASE], [EDIT], "refine")[0]
    want = torch.eye(16)
    want[2, 2] = 0
    assert torch.equal(mapper, want)


def test_a_shuffled_mapper_gives_each_word_the_map_of_another():
    mapper, count = torch.eye(9).expand(3, -1, -1), 5
    mixed = alignment.shuffled_mapper(mapper, [count] * 3, device.generator(0))
    assert torch.equal(mixed.sum(1), mapper.sum(1)) and torch.equal(mixed.sum(2), mapper.sum(2))
    assert not mixed[:, 1:count + 1, 1:count + 1].diagonal(dim1=1, dim2=2).any()
    rest = [0, *range(count + 1, 9)]
    assert torch.equal(mixed[:, rest], mapper[:, rest])


# ------------------------------------------------------------------------------------ schedules

@pytest.mark.parametrize("steps, fraction, on", [(50, .8, 40), (50, .4, 20), (50, 1., 51),
                                                 (50, 0., 0), (30, .8, 24), (1, .4, 0)])
def test_a_fraction_counts_rows_as_the_official_table_does(steps, fraction, on):
    """int(fraction * (steps + 1)): .8 of 50 steps are 40."""
    table = alignment.word_schedule(steps, fraction, words(BASE), 16)
    assert table.shape == (steps + 1, 16)
    want = (torch.arange(steps + 1) < on).float()[:, None].expand(-1, 16)
    assert torch.equal(table, want)


def test_a_word_can_have_a_window_of_its_own():
    cross = {"blue": (.2, .4), "default_": 1.}
    for given in (cross, dict(reversed(cross.items()))):
        table = alignment.word_schedule(9, given, words(EDIT), 16)
        assert table[:, 2].nonzero().flatten().tolist() == [2, 3]
        assert table[:, [0, 1, 3, 15]].min() == 1
    alone = alignment.word_schedule(9, {"blue": .5}, words(EDIT), 16)
    assert alone.sum() == 5 and alone[:5, 2].min() == 1


@pytest.mark.parametrize("bad", [-.1, 1.1, (.5, .4), (0., 2.), float("nan")])
def test_parts_of_the_steps_lie_in_0_to_1(bad):
    for given in (bad, {"blue": bad}):
        with pytest.raises(ValueError, match="lies in 0..1"):
            alignment.word_schedule(10, given, words(EDIT), 16)


def test_a_window_for_a_word_that_does_not_occur_is_refused(parts):
    for options in ({"cross": {"green": .2}}, {"scales": {"green": 2.}}):
        with pytest.raises(ValueError, match="'green' does not occur in 'a blue car"):
            prompt2prompt.make_control(parts, [BASE], [EDIT], **options)


# ---------------------------------------------------------------------------------- controls

def maps(b=1, k=2, pixels=9, n=16, seed=0):
    return torch.rand(b, k, pixels, n, generator=device.generator(seed), dtype=torch.float64
                      ).softmax(-1)


def test_maps_are_injected_by_hand():
    """One pixel, three tokens: the second new, the third with half of the first's map."""
    base = torch.tensor([[[[.5, .3, .2]]]], dtype=torch.float64)
    own = torch.tensor([[[[.1, .6, .3]]]], dtype=torch.float64)
    mapper = torch.tensor([[[1., 0, .5], [0, 0, 0], [0, 0, 1.]]], dtype=torch.float64)
    want = torch.tensor([[[[.5, .6, .45]]]], dtype=torch.float64)
    torch.testing.assert_close(prompt2prompt.inject(base, own, mapper), want)
    scaled = prompt2prompt.reweight(want, torch.tensor([[1., 2., -1.]], dtype=torch.float64))
    torch.testing.assert_close(scaled, torch.tensor([[[[.5, 1.2, -.45]]]], dtype=torch.float64))


def test_the_identity_copies_and_a_scale_of_one_changes_nothing():
    base, own, one = maps(), maps(seed=1), torch.eye(16, dtype=torch.float64)[None]
    assert torch.equal(prompt2prompt.inject(base, own, one), base)
    assert torch.equal(prompt2prompt.inject(base, own, 0 * one), own)
    assert torch.equal(prompt2prompt.reweight(own, torch.ones(1, 16)), own)


def run_control(parts, i, name, attention, **options):
    control = prompt2prompt.make_control(parts, [BASE], [EDIT], **{"steps": 10} | options)
    return control(i, name, attention)


@pytest.mark.parametrize("rows", [2, 4])                     # without and with guidance
def test_the_edited_maps_are_the_base_s_within_the_window_and_their_own_after(parts, rows):
    attention = maps(rows).float()
    for i in range(10):
        got = run_control(parts, i, "x.attn2", attention, cross=.4)
        assert got is None if i >= 4 else torch.equal(got, attention[-2:-1])


def test_the_window_of_a_word_ends_for_this_word_alone(parts):
    attention = maps(4).float()
    got = run_control(parts, 5, "x.attn2", attention, cross={"default_": 1., "blue": .2})
    want = attention[2:3].clone()
    want[..., 2] = attention[3:, ..., 2]
    assert torch.equal(got, want)


@pytest.mark.parametrize("side, replaced", [(8, {64, 16, 4}), (4, {16, 4}), (2, {4}), (1, set())])
def test_self_attention_is_the_base_s_in_small_layers_and_early_steps(parts, side, replaced):
    for pixels in (64, 16, 4):
        attention = maps(4, pixels=pixels, n=pixels).float()
        for i in (0, 3, 4, 9):
            got = run_control(parts, i, "x.attn1", attention, self_=.4, self_side=side)
            taken = i < 4 and pixels in replaced
            assert torch.equal(got, attention[2:3]) if taken else got is None


def test_the_literal_cutoff_copies_every_layer_of_the_course_s_network():
    """16 x 16 pixels of 64 x 64 latents: of ours, with 16 x 16, that is all of them."""
    unet = small_parts().unet
    sides = {n for n in prompt2prompt.attentions(unet) if n.endswith("attn1")}
    assert len(sides) * 2 == len(prompt2prompt.attentions(unet)) == 2 * len(
        latent.cross_attentions(unet))


# --------------------------------------------------------------------------- the whole sampler

def plain(parts, captions, guidance_scale=3., seed=0, steps=5):
    zT = parts.first_noise(1, seed).expand(len(captions), -1, -1, -1)
    return final(latent.sample_latents(parts, captions, zT, steps, guidance_scale))


@pytest.mark.parametrize("scale", [1., 3.])
def test_the_base_is_painted_as_without_control_bit_for_bit(parts, scale):
    want = plain(parts, [BASE, EDIT], scale)
    got = edited(parts, guidance_scale=scale, cross=1., self_=1., scales={"blue": 3.})
    assert torch.equal(got[0], want[0])
    assert (got[1] - want[1]).abs().max() > .01


def test_without_control_the_edit_is_same_seed_sampling_bit_for_bit(parts):
    assert torch.equal(edited(parts, cross=0., self_=0.), plain(parts, [BASE, EDIT]))


def test_the_same_caption_gives_the_same_picture(parts):
    z = edited(parts, edits=(BASE,), cross=1., self_=1.)
    torch.testing.assert_close(z[1], z[0], atol=1e-4, rtol=1e-4)
    weighted = edited(parts, edits=(BASE,), scales={"red": 1.})
    torch.testing.assert_close(weighted, edited(parts, edits=(BASE,)), atol=0, rtol=0)


@torch.no_grad()
def test_the_half_without_caption_is_left_alone(parts):
    """The layers' outputs: rows 0 to 2 are those of no control, the edited one's is another."""
    control = prompt2prompt.make_control(parts, [BASE], [EDIT], steps=5)
    layers = prompt2prompt.attentions(parts.unet)
    name, layer = next((n, x) for n, x in layers.items() if n.endswith("attn2"))
    x, context = torch.randn(4, 64, 8), torch.randn(4, 16, 12)
    want = layer(x, context)
    with nets.replace_attention({name: layer}, lambda name, p: control(0, name, p)):
        got = layer(x, context)
    assert torch.equal(got[:3], want[:3])
    mixed = nets.attention_map(layer, x, context)[2:3] @ nets.split_heads(
        layer.to_v(context[3:]), layer.heads)
    torch.testing.assert_close(got[3:], layer.to_out[0](nets.join_heads(mixed)))


def test_pairs_do_not_see_each_other(parts):
    captions = ("a cat", "a big cat")
    both = edited(parts, (BASE, captions[0]), (EDIT, captions[1]), cross=.5)
    one, two = edited(parts, cross=.5), edited(parts, captions[:1], captions[1:], seed=1, cross=.5)
    torch.testing.assert_close(both[::2], one, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1::2], two, atol=1e-4, rtol=1e-4)


def test_a_shuffled_mapper_paints_something_else(parts):
    count = alignment.word_tokens(TOKENIZER, BASE)[-1][1][-1]
    mapper = alignment.shuffled_mapper(alignment.mappers(TOKENIZER, [BASE], [EDIT]), [count],
                                       device.generator(0))
    right, wrong = edited(parts), edited(parts, mapper=mapper)
    assert torch.equal(right[0], wrong[0]) and (right[1] - wrong[1]).abs().max() > .01


def test_editing_again_gives_the_same_and_leaves_no_hook(parts):
    assert torch.equal(edited(parts), edited(parts))
    assert not any(layer._forward_hooks for layer in prompt2prompt.attentions(parts.unet).values())


@pytest.mark.parametrize("bad, message", [
    ({"steps": 0}, "number of steps"), ({"cross": 1.5}, "lies in 0..1"),
    ({"self_": -1.}, "lies in 0..1"), ({"guidance_scale": float("nan")}, "guidance scale"),
    ({"edits": ("",)}, "caption is empty"), ({"bases": ("a", "b")}, "base caption for each")])
def test_bad_input_gets_a_sentence(parts, bad, message):
    with pytest.raises(ValueError, match=message):
        edited(parts, **bad)


def test_noise_of_another_shape_is_refused(parts):
    control = prompt2prompt.make_control(parts, [BASE], [EDIT], steps=5)
    with pytest.raises(ValueError, match="zT must be"):
        prompt2prompt.edit_latents(parts, [BASE], [EDIT], torch.randn(2, 3, 8, 8), control)


def test_pictures_come_before_and_after(parts):
    before, after = prompt2prompt.edit_prompts(parts, [BASE], [EDIT], 4, 3., steps=5)
    z = edited(parts, seed=4)
    torch.testing.assert_close(torch.cat([before, after]), latent.to_pictures(parts.vae, z))


# ---------------------------------------------------------------------------------- local blend

def test_a_mask_by_hand():
    """A peak of 1 widens to 3 x 3; .3 of it is outside, .4 inside; the captions are united."""
    seen = torch.zeros(2, 3, 5, 5)
    seen[0, 1, 1, 1] = 1.
    seen[1, 2, 4, 4], seen[1, 2, 4, 0] = 2., .6                     # .6 is .3 of 2
    seen[:, 0] = 9.                                                 # a word nobody asks for
    words = torch.tensor([[0., 1, 0], [0, 0, 1]])
    want = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    want[..., :6, :6] = want[..., 6:, 6:] = True
    assert torch.equal(prompt2prompt.blend_mask(seen, words, 10), want)
    seen[1, 2, 4, 0] = .62
    want[..., 6:, :4] = True
    assert torch.equal(prompt2prompt.blend_mask(seen, words, 10), want)


def test_maps_that_are_nan_or_nothing_put_nothing_inside():
    words = torch.ones(2, 3)
    for value in (0., float("nan")):
        assert not prompt2prompt.blend_mask(torch.full((2, 3, 4, 4), value), words, 8).any()


def test_outside_the_blend_the_base_stays_exactly(parts):
    zt, inside = torch.randn(4, 3, 8, 8), torch.rand(2, 1, 8, 8) > .5
    got = prompt2prompt.blend(zt, inside)
    keep = inside.expand(2, 3, 8, 8)
    assert torch.equal(got[:2], zt[:2]) and torch.equal(got[2:][keep], zt[2:][keep])
    assert torch.equal(got[2:][~keep], zt[:2][~keep])


def test_a_blended_edit_equals_its_base_outside_of_the_last_mask(parts):
    local = prompt2prompt.Blend.of(parts, [BASE, EDIT], ["car", "car"], start=0., side=8,
                                   threshold=.9)
    z, free = edited(parts, local=local), edited(parts)
    same = (z[0] == z[1]).all(0)
    assert torch.equal(z[0], free[0]) and 0 < int(same.sum()) < 64
    assert not torch.equal(z[1], free[1])
    late = prompt2prompt.Blend.of(parts, [BASE, EDIT], ["car", "car"], start=1., side=8)
    assert torch.equal(edited(parts, local=late), free)


def test_a_blend_around_a_word_that_does_not_occur_is_refused(parts):
    with pytest.raises(ValueError, match="'dog' does not occur"):
        prompt2prompt.Blend.of(parts, [BASE, EDIT], ["car", "dog"])


# ------------------------------------------------------------------------------- real pictures

CAPTIONS = ["a red car on the grass"]


@pytest.fixture(scope="module")
def way(parts):
    z0 = .5 * torch.randn(1, 3, 8, 8, generator=device.generator(7))
    return null_text.pivots(parts, CAPTIONS, z0, 10)


def back(parts, way, scale, nulls=None):
    """Where sampling from the last pivot ends; the first half is plain guided sampling."""
    control = prompt2prompt.make_control(parts, CAPTIONS, CAPTIONS, len(way) - 1, 0., 0.)
    z = final(prompt2prompt.edit_latents(parts, CAPTIONS, CAPTIONS, way[-1], control, scale,
                                         nulls=nulls))
    return float((z[:1] - way[0]).square().mean())


def test_the_way_up_is_lesson_2_s_inversion_with_the_caption(parts, way):
    from gligen_lessons import ddim
    context = parts.context(CAPTIONS)
    want = list(ddim.invert(lambda zt, t: parts.unet(zt, t, context), way[0], parts.schedule, 10,
                            offset=1, end=float(parts.schedule.alpha_bar[0])))
    assert len(way) == 11 and all(torch.equal(a, b) for a, (_, b) in zip(way[1:], want,
                                                                         strict=True))


def test_null_text_brings_the_picture_back_where_guidance_loses_it(parts, way):
    lost = back(parts, way, 4.)
    mended = back(parts, way, 4., null_text.null_text(parts, CAPTIONS, way, 4., 20, .05))
    assert mended < lost / 2


def test_the_caption_as_the_empty_one_undoes_guidance(parts, way):
    """Negative-prompt inversion: eps_uncond = eps_cond, and the scale cancels."""
    nulls = parts.context(CAPTIONS).expand(10, -1, -1, -1)
    assert back(parts, way, 4., nulls) == pytest.approx(back(parts, way, 1.), rel=1e-3)


def test_no_iterations_leave_the_empty_caption_and_nothing_else_learns(parts, way):
    empty = parts.context([""])
    found = null_text.null_text(parts, CAPTIONS, way, 4., 0)
    assert torch.equal(found, empty.expand(10, 1, -1, -1))
    assert back(parts, way, 4., found) == back(parts, way, 4.)
    null_text.null_text(parts, CAPTIONS, way, 4., 2)
    assert torch.equal(parts.context([""]), empty)
    assert all(p.grad is None for p in parts.unet.parameters())


def test_a_null_is_fitted_by_hand():
    """Adam's first step moves every number by the rate, towards the goal."""
    null, goal = torch.tensor([[[0., 5.]]]), torch.tensor([[[1., 2.]]])
    got = null_text.fit_null(null, lambda x: x, goal, 1, .1)
    torch.testing.assert_close(got, torch.tensor([[[.1, 4.9]]]), atol=1e-5, rtol=0)
    assert null.tolist() == [[[0., 5.]]] and not got.requires_grad


def test_a_way_of_one_latent_is_refused(parts):
    with pytest.raises(ValueError, match="number of steps"):
        null_text.null_text(parts, CAPTIONS, [torch.randn(1, 3, 8, 8)])
