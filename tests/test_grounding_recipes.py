"""The recipes of lesson 11, each a step long: what is saved, loaded, logged and reported."""

import math

import pytest
import torch

from gligen_lessons import files, train, weights
from gligen_lessons.models import MODELS
from gligen_lessons.recipes.grounding_inputs import keypoints_from_boxes
from gligen_lessons.referee import PoseReferee


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder whose weights go first; in it an untrained judge of poses."""
    torch.manual_seed(0)
    card = files.make_card("referee-pose", "train referee-pose", 1, "none", "cpu", 0., {},
                           {"width": 24})
    files.save(PoseReferee().state_dict(), tmp_path / "referee-pose.safetensors", card)
    monkeypatch.setenv(weights.OWN, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name, metrics", [
    ("gligen-keypoints", ["PCK, renders", "PCK, exchanged", "PCK, n, grounded, novel",
                          "arms, low, grounded", "arms, another pose",
                          "arms, renders, another pose", "category, grounded, novel"]),
    ("gligen-entities", ["colour, renders", "colour, low, grounded", "colour, text alone"]),
    ("gligen-map", ["mIoU, renders", "mIoU, low, grounded", "mIoU, high, channels alone",
                    "mIoU, grounded over exchanged"])])
def test_a_recipe_trains_saves_what_it_adds_and_reports(out, name, metrics):
    made = train.train(name, 1, out=out, batch=4)
    card, row = files.card(made), MODELS[name]
    assert {*metrics, row.metric} <= card["metrics"].keys()
    assert all(math.isfinite(v) for k, v in card["metrics"].items() if v is not None)
    model, plain = weights.load(name, folder=out), weights.load("ldm").state_dict()
    assert set(files.load(made, "")) == set(row.added(model))
    own = model.state_dict()
    assert all(torch.equal(own[key], plain[key]) for key in plain if key != "conv_in.weight")
    assert any(float(own[key].abs()) > 0 for key in own if key.endswith("alpha_attn"))
    shown = [line["milestone"] for line in weights.log(name, out) if "milestone" in line]
    assert shown and len(shown[-1]["png"]) > 1000 and 0 <= shown[-1]["held"] <= 1


def test_a_joint_begins_as_a_box_without_extent_and_without_a_phrase():
    unet = weights.load("gligen")
    old, g = unet.position_net, torch.Generator().manual_seed(0)
    points, given = torch.rand(2, 136, 2, generator=g), torch.ones(2, 136)
    nothing = torch.zeros(2, 136, unet.context_width)
    with torch.no_grad():
        want = old(torch.cat([points, points], -1), given, nothing)
        tokens = keypoints_from_boxes(unet).position_net(points, given)
    assert float(want.std(1).mean()) > .1, "tokens of different places must differ"
    torch.testing.assert_close(tokens, want, rtol=1e-4, atol=1e-4)


def test_the_pose_judge_trains_and_is_reported_on_renders_reconstructions_and_noise(tmp_path):
    made = train.train("referee-pose", 1, out=tmp_path, batch=8)
    told = files.card(made)["metrics"]
    assert {f"{what}, {of}" for what in ("PCK", "sure") for of in
            ("renders", "reconstructions", "noise")} <= told.keys() and told["figures"] >= 4
    assert weights.load("referee-pose", folder=tmp_path).training is False
