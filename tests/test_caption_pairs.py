"""Pairs of captions in the report: each measure on pictures whose answer is known, each arm."""

import pytest
import torch

from gligen_lessons import weights
from gligen_lessons.datasets.edits import of_all_kinds
from gligen_lessons.eval import caption_pairs as pairs
from gligen_lessons.eval.editing import REGIONS
from gligen_lessons.latent import sample_latents
from gligen_lessons.prompt2prompt import make_control


@pytest.fixture(scope="module")
def parts():
    return weights.text_to_image()


@pytest.fixture(scope="module")
def some():
    return of_all_kinds(8, REGIONS, "single-test")


@pytest.fixture(scope="module")
def before(some):
    return torch.stack([case.before for case in some])


@pytest.fixture(scope="module")
def after(some):
    return torch.stack([case.after for case in some])


def test_layout_sees_the_drawing_and_not_its_colours(some, before, after):
    agreement = pairs.layout(before, after)
    kept = torch.tensor([case.edit.kind == "recolour" for case in some])
    assert torch.allclose(pairs.layout(before, -before), torch.ones(8), atol=1e-5)
    assert agreement[kept].min() > .75 > agreement[~kept].mean()
    assert pairs.layout(before, before.roll(len(REGIONS), 0)).mean() < .4


def test_the_answers_obey_and_the_sources_do_not(some, before, after):
    assert pairs.shows_wanted(after, some).sum() >= 7 and not pairs.shows_wanted(before, some).any()


def test_boxes_agree_where_the_thing_stays(some, before, after):
    """A recoloured thing keeps its box; without it there is nothing to compare, or nothing kept."""
    kept = torch.tensor([case.edit.kind == "recolour" for case in some])
    assert pairs.box_agreement(before, after, some)[kept].min() > .8
    grey = torch.zeros_like(before)
    assert (pairs.box_agreement(before, grey, some) == 0).all()
    assert pairs.box_agreement(grey, after, some).isnan().all()


def test_each_arm_takes_its_own_part_of_the_base(parts, some):
    made = {arm: pairs.control_of(parts, some, arm, 10) for arm in pairs.ARMS}
    plain = make_control(parts, [case.reference for case in some],
                         [case.query for case in some], 10)
    assert torch.equal(made["Prompt-to-Prompt"].table, plain.table)
    assert torch.equal(made["Prompt-to-Prompt"].mapper, plain.mapper)
    assert not made["same seed"].table.any() and made["same seed"].self_steps == 0
    assert made["literal rule"].self_side == 16 > plain.self_side
    assert made["shuffled, self 0"].self_steps == 0 < made["shuffled"].self_steps
    for row, (table, text) in enumerate(zip(
            made["without words"].table, [case.query for case in some], strict=True)):
        words = range(1, 1 + len(parts.tokenizer.pieces(text)))
        assert not table[:, words].any()
        others = [i for i in range(table.shape[1]) if i not in words]
        assert torch.equal(table[:, others], plain.table[row][:, others])


def test_shuffled_gives_no_word_its_own_map(parts, some):
    """Seen where both captions have as many tokens: a word's own map lies on the diagonal."""
    mapper = pairs.control_of(parts, some, "shuffled", 10).mapper
    counts = [[len(parts.tokenizer.pieces(text)) for text in (case.reference, case.query)]
              for case in some]
    alike = [i for i, (a, b) in enumerate(counts) if a == b]
    assert alike
    for i in alike:
        words = range(1, 1 + counts[i][0])
        assert not mapper[i, words, words].any() and mapper[i, 0, 0] == 1
        assert torch.equal(mapper[i].sum(0), torch.ones(len(mapper[i])))


def test_the_same_seed_without_control_is_the_query_alone(parts, some):
    """The arm without control equals painting the query from the same noise."""
    few, noise = some[:2], parts.first_noise(2, 5)
    control = pairs.control_of(parts, few, "same seed", 3)
    _, edited = pairs.edited_latents(parts, few, noise, control).chunk(2)
    *_, (_, alone) = sample_latents(parts, [case.query for case in few], noise, 3)
    assert torch.allclose(edited, alone.to(edited), atol=1e-3)


def test_the_report_has_every_arm_and_its_gain(parts):
    made = pairs.pair_report(parts, 2, 2)
    assert made["pairs"] == 2
    for arm in pairs.ARMS:
        assert made[f"pairs, obeyed, {arm}, n"] == made[f"pairs, layout, {arm}, n"] == 2
        if arm != "same seed":
            assert made[f"pairs, layout gain, {arm}"] == pytest.approx(
                made[f"pairs, layout, {arm}"] - made["pairs, layout, same seed"])
