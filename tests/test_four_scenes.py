"""The training of seconds in lesson 8, and the three losses that say whether boxes are read."""

import torch

from gligen_lessons import weights
from gligen_lessons.gligen import add_gates, freeze, gate_names, l_grounding
from gligen_lessons.recipes import four_scenes
from gligen_lessons.recipes.gligen import GATE_RATE, RATE


def test_closed_gates_read_no_boxes_and_trained_ones_do():
    parts = weights.text_to_image()
    closed = four_scenes.losses_by_boxes(add_gates(parts.unet), parts, "grounding-val")
    assert len(closed) == 3 and len({*closed.values()}) == 1
    trained = four_scenes.losses_by_boxes(weights.load("gligen"), parts, "grounding-val")
    assert trained["true boxes"] < trained["none"] < trained["another scene's"]
    assert trained["true boxes"] < closed["true boxes"]


def test_one_step_of_the_short_training_moves_the_gates_and_nothing_that_is_frozen():
    parts = weights.text_to_image()
    unet = freeze(add_gates(parts.unet))
    before = {name: p.clone() for name, p in unet.named_parameters()}
    optimizer = four_scenes.optimizer_of(unet)
    assert [group["lr"] for group in optimizer.param_groups] == [GATE_RATE, RATE]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(gate_names(unet))
    made = list(four_scenes.four_batches(parts, 2))
    assert len(made) == 2 and not torch.equal(made[0][1], made[1][1])
    z0, t, eps, context, grounding = made[0]
    l_grounding(unet, z0, t, eps, context, grounding, parts.schedule).backward()
    optimizer.step()
    moved = {name for name, p in unet.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in gate_names(unet) if ".alpha_" in name}
