"""What trains beside the paper's loss: labels of places, windows, words, and how they fade."""

import pytest
import torch
from torch import nn

from gligen_lessons import weights, world
from gligen_lessons.datasets import labelled, negatives
from gligen_lessons.datasets.labelled import with_labels
from gligen_lessons.datasets.latent_scenes import LatentScenes, full_scene, slot_masks, window
from gligen_lessons.recipes import clip, helpers, latent, world_data
from gligen_lessons.world.cache import renders
from gligen_lessons.world.language import captions, named
from gligen_lessons.world.vocabulary import CATEGORIES, COLOURS, HELD_OUT


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes as latent diffusion sees them; the latents are their own ids, four times."""
    folder = tmp_path_factory.mktemp("cache")
    drawn = renders("train", 12, folder=folder, progress=False)
    ids = torch.tensor(drawn.ids[:, 4::8, 4::8]).short()
    slots = torch.where(ids >= 16, ids - 16, -1)
    z = ids[:, None].expand(-1, 4, -1, -1).half()
    return drawn, LatentScenes([world.scene(seed) for seed in drawn.seeds], z, slots)


def test_codes_of_places_name_category_and_colour(scenes):
    drawn, data = scenes
    codes = labelled.cell_codes(with_labels(drawn), torch.arange(12))
    for row in range(12):
        assert torch.equal(codes[row], full_scene(data, row).codes()), "both ways must agree"
        for place in range(256):
            slot, code = int(data.slots[row].flatten()[place]), int(codes[row, place])
            if slot < 0:
                assert code == labelled.NOTHING
            else:
                thing = data.scenes[row].things[slot]
                assert CATEGORIES[code // 10] == thing.category
                assert list(COLOURS)[code % 10] == thing.colour


def test_a_coarse_place_shows_what_one_of_its_fine_places_shows(scenes):
    drawn, _ = scenes
    fine = labelled.cell_codes(with_labels(drawn), torch.arange(12)).view(12, 8, 2, 8, 2)
    coarse = labelled.cell_codes(with_labels(drawn), torch.arange(12), 8).view(12, 8, 8)
    assert torch.equal(coarse, fine.amax((2, 4)))


class Knowing(nn.Module):
    """A head that says what it is told, as surely as it is told."""

    def __init__(self, category, colour, sure=20.):
        super().__init__()
        self.logits = (sure * nn.functional.one_hot(category, 19).float(),
                       sure * nn.functional.one_hot(colour, 10).float())

    def forward(self, states):
        return self.logits


def test_the_place_loss_is_zero_for_who_knows_and_counts_things_more():
    codes = torch.tensor([[-1, -1, -1, 34, 34, 0]])              # category 3 in colour 4, and 0, 0
    right = torch.where(codes >= 0, codes // 10, 18), codes.clamp(min=0) % 10
    states = torch.zeros(1, 6, 2)
    assert float(helpers.cell_loss(Knowing(*right), states, codes)) < 1e-3
    wrong = right[0].clone()
    wrong[0, 0] = 5                                              # a place without a thing ...
    empty = float(helpers.cell_loss(Knowing(wrong, right[1]), states, codes))
    wrong = right[0].clone()
    wrong[0, 3] = 5                                              # ... and one with a thing
    thing = float(helpers.cell_loss(Knowing(wrong, right[1]), states, codes))
    assert thing == pytest.approx(16 * empty, rel=.01) and empty > .1
    shade = right[1].clone()
    shade[0, 0] = 7                                              # a colour of nothing costs nothing
    assert float(helpers.cell_loss(Knowing(right[0], shade), states, codes)) < 1e-3


def test_helpers_are_silent_in_the_last_quarter():
    counts = [helpers.help_at(step, 1000) for step in range(1000)]
    assert counts[0] == counts[600] == 1. and 0 < counts[700] < 1
    assert not any(counts[750:]) and counts == sorted(counts, reverse=True)
    parts = [world_data.small_part(step / 1000) for step in range(1000)]
    assert parts[0] == 1. and 0 < parts[400] < 1 and not any(parts[750:])


def test_windows_show_a_thing_and_name_what_they_show(scenes):
    _, data = scenes
    g, named_things = torch.Generator().manual_seed(0), 0
    for row in list(range(12)) * 4:
        one = window(data, row, g)
        assert one.z.shape == (4, 8, 8) and torch.equal(one.z[0] >= 16, one.slots >= 0)
        for slot, thing in enumerate(one.scene.things):
            seen = int((one.slots == slot).sum())
            there = int((data.slots[row] == slot).sum())
            assert (slot in one.shown) == (seen > 0 and seen >= .5 * there)
            if slot in one.shown:
                assert named(thing) in one.described(0)
        named_things += len(one.shown)
    assert named_things > 48, "most windows must show at least one thing whole enough"


def test_words_of_a_thing_are_the_tokens_of_its_phrase(scenes):
    _, data = scenes
    read = weights.tokenizer()
    for row in range(12):
        one = full_scene(data, row)
        for kind in range(5):
            text = one.described(kind)
            ids, words = read([text])[0], one.words(read, text, kind)
            for slot, thing in enumerate(one.scene.things):
                plain = kind == 3
                assert read.words(ids[words[slot]]) == named(thing, not plain, not plain)
            assert not words[len(one.scene.things):].any()


def test_alignment_asks_half_of_the_attention_of_pixels_in_things():
    slots = torch.full((1, 4, 4), -1)
    slots[0, :2, :2] = 0
    words = torch.zeros(1, 6, 5, dtype=torch.bool)
    words[0, 0, 2] = True
    look = torch.full((1, 16, 5), .2)
    assert float(latent.word_alignment_loss([look], slots, words)) == pytest.approx(-torch.tensor(
        .4).log().item(), rel=1e-5)
    inside = slots.flatten() == 0
    look[0, inside, 2] = .5
    assert float(latent.word_alignment_loss([look], slots, words)) == pytest.approx(0., abs=1e-6)
    look[0, ~inside, 2] = 0.                                     # elsewhere it may go anywhere
    assert float(latent.word_alignment_loss([look], slots, words)) == pytest.approx(0., abs=1e-6)
    assert float(latent.word_alignment_loss([look], slots, torch.zeros_like(words))) == 0.
    masks = slot_masks(slots, 2)
    assert masks[0, 0].tolist() == [[1., 0.], [0., 0.]] and not masks[0, 1:].any()


def test_the_weight_of_a_step_is_min_snr_times_what_is_open():
    alpha_bar = torch.tensor([.99, 5 / 6, .5, .05])
    want = torch.tensor([5 / 99 / .99, 1.2, 2., 10.])
    torch.testing.assert_close(helpers.step_weight(alpha_bar), want)


def test_exchanged_nouns_are_wrong_and_never_held_out():
    g = torch.Generator().manual_seed(0)
    for seed in world.seeds("train", 150):
        one = world.scene(seed)
        other = negatives.exchanged(one, g)
        differ = [i for i, (a, b) in enumerate(zip(one.things, other.things, strict=True))
                  if a.category != b.category]
        assert len(differ) == 1 and captions(one)[2] != captions(other)[2]
        thing = other.things[differ[0]]
        assert (thing.colour, thing.category) not in HELD_OUT
        assert thing.colour == one.things[differ[0]].colour


def test_equal_captions_do_not_count_against_each_other():
    """Two pictures with one caption: neither is a wrong answer for the other."""
    model = helpers.Helped(clip.CLIP(**clip.config(weights.tokenizer())), helpers.CellHead(256))
    read, g = weights.tokenizer(), torch.Generator().manual_seed(0)
    images = torch.randint(255, (3, 128, 128, 3), dtype=torch.uint8, generator=g)
    wrong = read(["a blue car"] * 3)[:, None]
    codes, silent = torch.full((3, 64), -1), torch.zeros(3)
    with torch.no_grad():
        same = clip.contrast_loss(model, read(["a red car", "a red car", "a green tree"]), wrong,
                                  images, codes, silent)
        pictures = model.model.encode_image(clip.to_model(images))
        texts = model.model.encode_text(read(["a red car", "a green tree", "a blue car"]))
        logits = clip.similarity(pictures, texts, model.model.logit_scale)
    by_picture = [torch.logsumexp(torch.stack([logits[i, 0], logits[i, 1], *[logits[i, 2]] * 3]), 0)
                  - logits[i, 0] for i in (0, 1)]
    by_picture.append(torch.logsumexp(torch.stack([logits[2, 0]] * 2 + [logits[2, 1]]
                                                  + [logits[2, 2]] * 3), 0) - logits[2, 1])
    by_text = [torch.logsumexp(logits[[i, 2], 0], 0) - logits[i, 0] for i in (0, 1)]
    by_text.append(torch.logsumexp(logits[:, 1], 0) - logits[2, 1])
    want = (sum(by_picture) + sum(by_text)) / 6
    assert float(same) == pytest.approx(float(want), rel=1e-4)


def test_only_the_bare_network_is_left_of_a_helped_one():
    model = nn.Linear(2, 2)
    assert helpers.bare(helpers.Helped(model, nn.Linear(1, 1))) is model
    assert helpers.bare(model) is model
    with helpers.outputs_of(model) as seen:
        y = model(torch.ones(1, 2))
    model(torch.ones(1, 2))
    assert len(seen) == 1 and seen[0] is y
