"""Key points, crops and maps of scenes as grounding reads them; gates that start from phrases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_grounding_inputs import KEYS, entities, stirred

from gligen_lessons.datasets import grounding_inputs as data
from gligen_lessons.gligen import Grounding, add_gates, freeze
from gligen_lessons.grounding_inputs import add_keypoint_gates, keypoint_grounding
from gligen_lessons.grounding_maps import MAP_CLASSES, add_map_gates, learn_maps
from gligen_lessons.recipes import grounding_inputs as recipe
from gligen_lessons.recipes.gligen import gate_groups
from gligen_lessons.unet import UNet
from gligen_lessons.world.records import record
from gligen_lessons.world.render import render
from gligen_lessons.world.scene import Scene, Thing

POSED = Scene(things=(Thing("car", "red", x=.2, y=.9, size=.3), Thing("robot", "blue", x=.5, y=.9,
                                                                     size=.5),
                      Thing("monkey", "brown", x=.85, y=.95, size=.4)))


def test_figures_come_first_and_only_those_that_are_asked_for():
    ids = render(POSED).ids
    both, robots = data.scene_figures(POSED, ids), data.scene_figures(POSED, ids, ("robot",))
    assert both.shape == (6, 17, 3) and torch.equal(both[0], robots[0])
    assert both[1].any() and not robots[1:].any() and not both[2:].any()
    seen = both[0][both[0][:, 2] == 2]
    assert len(seen) >= 6 and (seen[:, 0] - .5).abs().max() < .3
    hidden = np.where(ids == 17, 1, ids)                  # nothing shows of the robot
    assert torch.equal(data.scene_figures(POSED, hidden)[0], both[1])


def test_points_become_the_grounding_that_lists_of_figures_give():
    points = torch.stack([data.scene_figures(POSED, render(POSED).ids), torch.zeros(6, 17, 3)])
    got = data.as_keypoints(points)
    want = keypoint_grounding([[body.tolist() for body in points[0, :2]], []])
    torch.testing.assert_close(vars(got), vars(want))
    places = data.joint_places(points)
    assert isinstance(places, Grounding) and torch.equal(places.masks, got.masks[:, :102])
    used = places.masks[0] > 0
    middle = (places.boxes[0, used, :2] + places.boxes[0, used, 2:]) / 2
    assert (middle - got.points[0, :102][used]).abs().max() < data.AROUND
    assert not places.boxes[places.masks == 0].any()


def test_half_of_the_entities_lose_text_or_picture_and_none_loses_both():
    masks = torch.ones(400, 6)
    masks[:, 4:] = 0
    text, picture = data.drop_one(masks, torch.Generator().manual_seed(0))
    used = masks > 0
    assert torch.equal(text + picture > 0, used)
    both, alone = (text * picture)[used].mean(), (text * (1 - picture))[used].mean()
    assert abs(float(both) - .5) < .04 and abs(float(alone) - .25) < .04


def test_a_map_says_what_each_pixel_shows():
    one = Scene(things=POSED.things[:2])
    ids = render(one).ids
    numbers = data.semantic_numbers(one, ids)
    assert {MAP_CLASSES[n] for n in np.unique(numbers)} >= {"car", "robot", "sky", "grass"}
    assert ((numbers == MAP_CLASSES.index("robot")) == (ids == 17)).all()
    with pytest.raises(ValueError, match="maps do not know"):
        data.semantic_numbers(POSED, render(POSED).ids)


def test_coco_s_records_give_the_figures_and_the_map_of_the_scene():
    """The records that reading COCO gives, here made from a scene."""
    one = Scene(things=POSED.things[:2])
    drawn, read = render(one), record(one)
    torch.testing.assert_close(data.record_figures(read), data.scene_figures(one, drawn.ids))
    numbers, few = data.semantic_numbers(one, drawn.ids), data.record_numbers(read, 64)
    assert (data.record_numbers(read, 128) == numbers).all()
    assert few.shape == (64, 64) and (few == numbers[1::2, 1::2]).all()
    with pytest.raises(ValueError, match="shows monkey: no class of maps"):
        data.record_numbers(record(POSED))
    bare = replace(read, stuff={})
    with pytest.raises(ValueError, match="positions that no mask covers"):
        data.record_numbers(bare)


@torch.no_grad()
def test_entities_start_as_the_phrases_that_gates_had_learnt():
    unet = add_gates(UNet(**KEYS))
    old, gates = stirred(unet.position_net), unet.state_dict()
    net = recipe.entities_from_phrases(unet).position_net
    given = entities()
    words = old(given.boxes, given.phrases_masks * given.masks, given.phrases_embeddings)
    tokens = net(**vars(given))
    both = (given.masks == given.phrases_masks)           # slots where place and phrase agree
    torch.testing.assert_close(tokens[:, :5][both], words[both])
    kept = {name for name in gates if not name.startswith("position_net.")}
    assert all(torch.equal(unet.state_dict()[name], gates[name]) for name in kept)


@pytest.mark.parametrize("build", [lambda unet: freeze(add_keypoint_gates(unet)),
                                   lambda unet: learn_maps(add_map_gates(unet))])
def test_every_weight_that_learns_has_an_optimizer_and_tables_stay_with_adamw(build):
    unet = build(UNet(**KEYS))
    groups = (recipe.map_groups if hasattr(unet, "downsample_net") else gate_groups)(unet)
    names = {id(p): name for name, p in unet.named_parameters()}
    held = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(held) == sorted(n for n, p in unet.named_parameters() if p.requires_grad)
    muon = {names[id(p)] for p in groups[0]["params"]}
    assert not [n for n in muon if "embedding" in n or "backbone" in n or "conv_in" in n]
    assert muon and "adjust" in groups[0]


def test_dropped_captions_and_groundings_go_their_own_ways():
    ids = torch.arange(1, 4001).view(800, 5, 1).expand(-1, -1, 3)
    caption, kept = recipe.dropped(ids, torch.arange(800), torch.zeros(3, dtype=torch.long),
                                   torch.Generator().manual_seed(0))
    assert abs(float((caption[:, 0] == 0).float().mean()) - recipe.P_CAPTION) < .06
    assert abs(1 - float(kept.mean()) - recipe.P_GROUNDING) < .04
    assert ((caption[:, 0] - 1) % 5 != 3)[caption[:, 0] > 0].all(), "colours are always named"
