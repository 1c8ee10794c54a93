"""The experiment on helper losses: what differs between its two arms, and nothing else does."""

import pytest
import torch

from gligen_lessons import gligen, recipes
from gligen_lessons.experiments import helpers
from gligen_lessons.recipes.world_data import World


@pytest.mark.parametrize("name", ["ldm", "gligen"])
def test_without_helpers_the_loss_is_the_papers_on_the_same_batch(name):
    recipe = recipes.get(name, 2, batch=2, source=World(small=name == "ldm"))
    batch, bare = recipe.sample_batch(0), helpers.without(recipe.sample_batch)(0)
    assert all(torch.equal(a, b) for a, b in zip(batch[:-1], bare[:-1], strict=True))
    assert float(batch[-1].min()) > 0 == float(bare[-1].abs().max())
    with torch.no_grad():
        assert recipe.loss(recipe.model, *batch) != recipe.loss(recipe.model, *bare)


def test_plain_gates_begin_as_the_papers_and_alone_learn():
    plain, helped = helpers.plain_gates(), recipes.get("gligen", 2, batch=2).model
    learn = {name for name, p in plain.named_parameters() if p.requires_grad}
    assert learn == set(gligen.gate_names(plain)) == set(gligen.gate_names(helped))
    different = [name for name, p in plain.state_dict().items()
                 if not torch.equal(p, helped.state_dict()[name])]
    assert different and set(different) <= learn


def test_each_arm_has_a_figure_with_its_interval():
    row = helpers.trained("ldm", 2, False)
    assert row["helpers"] == "none" and [one["step"] for one in row["seen"]] == [1, 2]
    assert 0 <= row["low"] <= row["share"] <= row["high"] <= 1 and row["n"] >= 10
    assert helpers.beside("boxes right, grounded", "low") == "boxes right, low, grounded"
