"""Our CLIP against transformers' CLIPModel and CLIPTextModel, and the laws of its loss."""

import math

import pytest
import torch
from oracles import draw, relative_error
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from gligen_lessons import clip, weights
from gligen_lessons.clip import CLIP, TextModel, without_prefix
from gligen_lessons.recipes.clip import config as course_config


def text(width=16, layers=2, heads=2, **keys) -> dict:
    return dict(hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
                num_attention_heads=heads, vocab_size=40, max_position_embeddings=9,
                bos_token_id=38, eos_token_id=39, pad_token_id=39) | keys


def vision(width=24, layers=2, heads=3, **keys) -> dict:
    return dict(hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
                num_attention_heads=heads, image_size=16, patch_size=4) | keys


CASES = {
    "the course's": course_config(weights.tokenizer()),
    "two small towers": dict(text_config=text(), vision_config=vision(), projection_dim=12),
    "one layer, one head": dict(text_config=text(8, 1, 1), vision_config=vision(8, 1, 1),
                                projection_dim=5),
    "three layers, other eps": dict(text_config=text(24, 3, 4, layer_norm_eps=1e-3),
                                    vision_config=vision(16, 3, 2, patch_size=8,
                                                         layer_norm_eps=1e-3), projection_dim=24),
    "the end token of old configs": dict(text_config=text(eos_token_id=2, bos_token_id=0),
                                         vision_config=vision(), projection_dim=12),
}
LENGTHS = (2, 5, 9)                                       # of captions, special tokens included


def pair(keys: dict) -> tuple[CLIP, CLIPModel]:
    """Our network and transformers', of the same config with the same drawn weights."""
    ours, theirs = CLIP(**keys), CLIPModel(CLIPConfig(**keys)).eval()
    draw(theirs)
    theirs.logit_scale.data.fill_(1.3)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def inputs(keys: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions of different lengths, filled up with their end token, and two pictures."""
    cfg, g = keys["text_config"], torch.Generator().manual_seed(1)
    end = cfg["vocab_size"] - 1
    ids = torch.randint(3, end - 1, (len(LENGTHS), max(LENGTHS)), generator=g)
    for row, length in enumerate(LENGTHS):
        ids[row, length - 1:] = end
    size = keys["vision_config"]["image_size"]
    return ids, torch.randn(2, 3, size, size, generator=g)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@torch.no_grad()
def test_logits_are_those_of_transformers(name, dtype, bound):
    ours, theirs = (model.to(dtype) for model in pair(CASES[name]))
    ids, pixels = inputs(CASES[name])
    expected = theirs(input_ids=ids, pixel_values=pixels.to(dtype)).logits_per_image
    logits = ours(ids, pixels.to(dtype))
    assert float(expected.std(1).min()) > .01             # captions are told apart
    assert relative_error(logits, expected) < bound


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_text_states_are_those_of_the_text_model(name):
    keys = CASES[name]["text_config"]
    theirs = CLIPTextModel(CLIPTextConfig(**keys)).eval()
    draw(theirs)
    ours = TextModel(**keys)
    ours.load_state_dict(without_prefix(theirs.state_dict()), strict=True)
    ids, _ = inputs(CASES[name])
    expected = theirs(ids)
    states = ours(ids)
    assert relative_error(states, expected.last_hidden_state) < 1e-5
    assert relative_error(clip.pool(states, ids, ours.eos), expected.pooler_output) < 1e-5


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_a_text_tower_loads_with_and_without_its_prefix(prefix):
    keys = CASES["two small towers"]["text_config"]
    source = TextModel(**keys)
    stored = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    stored[prefix + "embeddings.position_ids"] = torch.arange(9)        # old files hold it
    target = TextModel(**keys)
    target.load_state_dict(without_prefix(stored), strict=True)
    assert all(torch.equal(p, source.state_dict()[n]) for n, p in target.state_dict().items())


@torch.no_grad()
def test_full_size_of_stable_diffusions_clip():
    """ViT-L/14: its text tower is the one of Stable Diffusion 1.4."""
    keys = dict(
        text_config=text(768, 12, 12, intermediate_size=3072, vocab_size=49408, eos_token_id=2,
                         bos_token_id=0, pad_token_id=1, max_position_embeddings=77),
        vision_config=vision(1024, 24, 16, intermediate_size=4096, image_size=224, patch_size=14),
        projection_dim=768)
    with torch.device("meta"):
        ours, theirs = CLIP(**keys), CLIPModel(CLIPConfig(**keys)).eval()
    ours.to_empty(device="cpu")
    draw(ours)
    ours.logit_scale.data.fill_(1.3)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    for tower, tokens in ((theirs.text_model, 77), (theirs.vision_model, 257)):
        tower.embeddings.position_ids = torch.arange(tokens)[None]      # a buffer, not stored
    assert sum(p.numel() for p in ours.parameters()) == 427_616_513
    assert sum(p.numel() for p in ours.text_model.parameters()) == 123_060_480
    ids, pixels = inputs(keys)
    expected = theirs(input_ids=ids, pixel_values=pixels[:1]).logits_per_image
    assert relative_error(ours(ids, pixels[:1]), expected) < 1e-5


@torch.no_grad()
def test_later_words_change_no_earlier_state():
    ours = pair(CASES["two small towers"])[0].text_model
    ids = torch.randint(3, 30, (1, 9), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 5] += 1
    before, after = ours(ids), ours(other)
    assert torch.equal(before[:, :5], after[:, :5])
    assert float((before[:, 5:] - after[:, 5:]).abs().amin(1).max()) > 1e-4


def test_what_fills_a_caption_up_does_not_matter():
    ours = pair(CASES["two small towers"])[0]
    ids = inputs(CASES["two small towers"])[0]
    assert torch.allclose(ours.encode_text(ids[:2, :5]), ours.encode_text(ids)[:2], atol=1e-6)


def test_a_caption_without_an_end_is_refused():
    with pytest.raises(ValueError, match=r"no end token \(39\)"):
        pair(CASES["two small towers"])[0].encode_text(torch.tensor([[1, 2, 3]]))


def test_captions_that_belong_to_no_picture_only_make_the_choice_harder():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(clip.hard_negative_loss(logits[:, :4]), clip.clip_loss(logits[:, :4]))
    assert clip.hard_negative_loss(logits) > clip.clip_loss(logits[:, :4])
    ruled_out = torch.cat([logits[:, :4], torch.full((4, 5), -torch.inf)], 1)
    assert torch.allclose(clip.hard_negative_loss(ruled_out), clip.clip_loss(logits[:, :4]))


def test_the_loss_of_equal_logits_is_the_log_of_their_number():
    assert float(clip.clip_loss(torch.zeros(7, 7))) == pytest.approx(math.log(7))


def test_the_loss_is_symmetric_and_its_gradient_is_softmax_minus_truth():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert clip.clip_loss(logits).item() == pytest.approx(clip.clip_loss(logits.T).item())
    clip.clip_loss(logits).backward()
    by_hand = (logits.softmax(1) + logits.softmax(0) - 2 * torch.eye(5)) / 10
    assert torch.allclose(logits.grad, by_hand, atol=1e-6)


def test_the_loss_is_that_of_transformers():
    ours, theirs = pair(CASES["two small towers"])
    ids, pixels = inputs(CASES["two small towers"])
    pixels = torch.cat([pixels, pixels[:1] + 1])
    expected = theirs(input_ids=ids, pixel_values=pixels, return_loss=True).loss
    assert clip.clip_loss(ours(ids, pixels)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_scale_is_clamped_before_it_can_exceed_a_hundred():
    model = pair(CASES["one layer, one head"])[0]
    model.logit_scale.data.fill_(9.)
    clip.clamp_scale(model)
    assert float(model.logit_scale.exp()) == pytest.approx(100, rel=1e-5)


def test_zero_shot_averages_directions_not_lengths():
    model = pair(CASES["two small towers"])[0]
    table = {"a": [1., 0.], "A": [0., 100.], "b": [-1., 0.]}
    model.encode_text = lambda names: torch.tensor([table[name] for name in names])
    model.encode_image = lambda pixels: pixels
    model.logit_scale.data.fill_(0.)
    pixels = torch.tensor([[1., 0.], [0., 1.]])
    p = clip.zero_shot(model, list, pixels, [["a", "A"], ["b"]])
    half = 2**-.5                                          # the cosine of either with a + A
    expected = torch.tensor([[half, -1.], [half, 0.]]).softmax(1)
    assert torch.allclose(p, expected, atol=1e-6)


def test_retrieval_counts_captions_that_find_their_picture():
    logits = torch.tensor([[3., 1., 0.], [0., 2., 5.], [1., 0., 4.]])
    assert clip.retrieval(logits) == pytest.approx(2 / 3)
    assert clip.retrieval(logits.T) == pytest.approx(2 / 3)
    assert clip.retrieval(torch.tensor([[1., 5.], [0., 4.]])) == .5     # rows would say 0.5 too
    assert clip.retrieval(torch.tensor([[9., 8.], [0., 4.]])) == .5     # rows would say 1


def test_first_weights_depend_on_the_seed_and_are_as_wide_as_published():
    keys = dict(text_config=text(64, 2, 4), vision_config=vision(96, 4, 4), projection_dim=8)
    a, b = (clip.initialise(CLIP(**keys), torch.Generator().manual_seed(0)) for _ in range(2))
    for tower, d, layers in ((a.text_model, 64, 2), (a.vision_model, 96, 4)):
        layer = tower.encoder.layers[0]
        assert float(layer.self_attn.q_proj.weight.std()) == pytest.approx(d**-.5, rel=.1)
        assert float(layer.mlp.fc2.weight.std()) == pytest.approx(
            d**-.5 * (2 * layers)**-.5, rel=.1)
    assert torch.equal(a.text_model.encoder.layers[1].mlp.fc1.weight,
                       b.text_model.encoder.layers[1].mlp.fc1.weight)


@pytest.mark.parametrize("change, words", [
    (dict(ids=torch.zeros(2, 10).long()), "at most 9 tokens, got shape"),
    (dict(ids=torch.zeros(9).long()), "ids must be"),
    (dict(pixels=torch.zeros(2, 3, 32, 32)), r"pixels must be \(b,3,16,16\)"),
])
def test_input_of_another_shape_is_refused(change, words):
    keys = CASES["two small towers"]
    ids, pixels = inputs(keys)
    with pytest.raises(ValueError, match=words):
        pair(keys)[0](**dict(ids=ids, pixels=pixels) | change)


def test_a_key_that_is_not_implemented_is_refused_by_name():
    with pytest.raises(ValueError, match="hidden_act='gelu' is not implemented"):
        TextModel(**text(), hidden_act="gelu")
