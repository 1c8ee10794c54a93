"""What lesson 6's tables count: on renders of which the answer is known, and at both ends."""

import pytest
import torch

from gligen_lessons import evaluate, weights, world
from gligen_lessons.eval import text_to_image as prompts
from gligen_lessons.images import to_model
from gligen_lessons.latent import generate
from gligen_lessons.world import Scene, Thing


def pictured(*scenes: Scene) -> torch.Tensor:
    return to_model(torch.stack([torch.tensor(world.render(one).image) for one in scenes]))


def two(car: str, x: float, house: str) -> Scene:
    return Scene(things=(Thing("car", car, x=x, size=.3), Thing("house", house, x=1 - x, size=.4)))


@pytest.fixture(scope="module")
def parts():
    return weights.text_to_image()


def test_pairs_are_judged_right_on_renders():
    x = pictured(two("red", .25, "blue"), two("blue", .75, "red"), Scene(things=(Thing(
        "car", "red"),)))
    first, second = prompts.PAIRS["binding"].values()
    assert first(x).tolist() == [True, False, False]
    assert second(x).tolist() == [False, True, False]
    assert prompts.stands_left(x).tolist() == [1, 0, -1]
    left, right = prompts.PAIRS["relation"].values()
    assert left(x).tolist() == [True, False, False] and right(x).tolist() == [False, True, False]


def test_balloons_are_counted_and_night_is_seen_on_renders():
    many = [Thing("balloon", "yellow", x=x, y=.5, size=.3) for x in (.2, .5, .8)]
    x = pictured(Scene(things=tuple(many)), Scene(things=(many[1],), time="night"), Scene())
    one, three = prompts.PAIRS["count"].values()
    assert one(x).tolist() == [False, True, False] and three(x).tolist() == [True, False, False]
    assert prompts.is_night(x).tolist() == [False, True, False]


def test_a_caption_switched_before_the_first_step_or_after_the_last_is_one_caption(parts):
    before, after = "a red car on the grass by day", "a blue house on the snow at night"
    zT = parts.first_noise(1, 5)
    made = [prompts.switched(parts, before, after, k, zT, steps=4) for k in (0, 2, 4)]
    for x, text in ((made[0], after), (made[2], before)):
        torch.testing.assert_close(x, generate(parts, [text], 5, steps=4), rtol=0, atol=1e-3)
    assert all(float((made[1] - x).abs().mean()) > .01 for x in (made[0], made[2]))


def test_every_scale_counts_the_same_named_things(parts, monkeypatch):
    monkeypatch.setattr(prompts, "SCALES", (1, 5))
    few = [world.scene(seed) for seed in world.seeds("test", 2)]
    rows = prompts.scale_rows(parts, few, 2)
    assert [row["scale"] for row in rows] == [1, 5]
    assert {row["found, n"] for row in rows} == {int(prompts.named_things(few).sum())}


def test_the_shipped_tables_are_of_this_code():
    told = evaluate.shipped("prompts")
    assert [row["scale"] for row in told["scales"]] == list(prompts.SCALES)
    captions = [caption for pair in prompts.PAIRS.values() for caption in pair]
    assert [row["caption"] for row in told["pairs"]] == captions
    assert [row["switched after"] for row in told["switches"]] == list(prompts.SWITCHED)
    scenes = [world.scene(seed) for seed in world.seeds("test", told["captions"])]
    asked = int(prompts.named_things(scenes).sum())
    for row in told["scales"]:
        assert row["found, low"] < row["found"] < row["found, high"] and row["found, n"] == asked
    for row in told["pairs"] + told["switches"]:
        for name in (key.removesuffix(", n") for key in row if key.endswith(", n")):
            hits = row[name] * row[f"{name}, n"]
            assert hits == pytest.approx(round(hits))
            assert row[f"{name}, low"] <= row[name] <= row[f"{name}, high"]
