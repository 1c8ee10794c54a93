"""The report on grounding: what it counts, on renders of which the answer is known."""

from functools import partial

import pytest
import torch

from gligen_lessons import evaluate, weights
from gligen_lessons.datasets.labelled import labelled, pictures
from gligen_lessons.eval import grounding, inpainting
from gligen_lessons.eval import grounding_report as report
from gligen_lessons.eval.grounding import Held
from gligen_lessons.metrics import feature_distances
from gligen_lessons.world import scene
from gligen_lessons.world.vocabulary import BASE, CATEGORIES, COLOURS, CONTROL, HELD_OUT, NOVEL

COUNT = 4


@pytest.fixture(scope="module")
def held() -> Held:
    return Held.of(COUNT)


@pytest.fixture(scope="module")
def renders() -> torch.Tensor:
    return pictures(labelled("grounding-test", COUNT), torch.arange(COUNT))


@pytest.fixture(scope="module")
def inpainter():
    return weights.text_to_image(unet=weights.load("gligen-inpaint"))


def test_renders_are_right_and_those_of_other_scenes_are_not(held, renders):
    hits = held.hits(renders)
    assert hits.shape == (2, sum(len(one.phrases) for one in held.requested))
    assert held.right(renders) == float(hits.all(0).float().mean()) > .9
    assert held.right(renders.roll(1, 0)) < .3
    seen = report.more(held, renders)
    assert seen["AP50 of DETR"] > .7 and min(seen["category right"], seen["colour right"]) > .9
    dark = report.more(held, -renders)                          # shapes stay, colours do not
    assert dark["colour right"] < .5


def test_phrases_stand_in_the_order_of_the_numbers_that_judge_them(held):
    for i, one in enumerate(held.requested):
        for k, phrase in enumerate(one.phrases):
            assert CATEGORIES[held.category[i, k]] in phrase
            assert list(COLOURS)[held.colour[i, k]] in phrase
            assert torch.equal(one.boxes_xyxy[k], held.boxes_xyxy[i, k])
        assert (held.category[i, len(one.phrases):] == -1).all()


@pytest.mark.parametrize("name", report.ASKED)
def test_only_words_of_their_kind_are_counted(name):
    """Against the scenes themselves: which of their things the rule asks for."""
    split, asks = report.ASKED[name]
    few = Held.of(8, split)
    chosen = report.requested_boxes(few, asks)
    phrases = [phrase for one in few.requested for phrase in one.phrases]
    assert len(chosen) == len(phrases) and 0 < int(chosen.sum()) <= len(phrases)
    words = {"held-out pairs": BASE, "novel": NOVEL, "control": CONTROL}[name]
    wanted = {(thing.colour, thing.category) for seed in labelled(split, 8).renders.seeds
              for thing in scene(seed).things if thing.category in words}
    if name == "held-out pairs":
        wanted &= HELD_OUT
    for phrase, requested in zip(phrases, chosen.tolist(), strict=True):
        assert requested == any(colour in phrase and category in phrase for colour,
                                category in wanted)


def test_exchanged_boxes_are_judged_in_both_places(monkeypatch):
    """Renders of the true scenes hold what was asked for in the old boxes, not in the new ones."""
    count = 8
    x = pictures(labelled("grounding-test", count), torch.arange(count))
    monkeypatch.setattr(Held, "generated", lambda held, parts, grounded, **options: x[[
        i for i, one in enumerate(Held.of(count).requested) if len(one.phrases) > 1]])
    made = report.exchanged_report(None, count)
    assert made["boxes right, kept"] > .9 and made["boxes right, moved"] < .4
    assert made["boxes right, n, moved"] == made["boxes right, n, kept"] >= 2 * made["layouts"]
    told = evaluate.shipped("exchanged")
    assert made["layouts"] < told["layouts"] <= evaluate.SECTIONS["exchanged"][1]


def test_one_thing_of_each_layout_is_masked(held):
    one = inpainting.one_each(held, torch.Generator().manual_seed(0))
    again = inpainting.one_each(held, torch.Generator().manual_seed(1))
    assert [a.phrases for a in one.requested] != [a.phrases for a in again.requested]
    for i, (few, many) in enumerate(zip(one.requested, held.requested, strict=True)):
        k = many.phrases.index(few.caption)
        assert few.phrases == [few.caption]
        assert torch.equal(few.boxes_xyxy[0], many.boxes_xyxy[k])
        assert torch.equal(one.boxes_xyxy[i], many.boxes_xyxy[k:k + 1])
        assert CATEGORIES[one.category[i, 0]] in few.caption


def test_a_filled_hole_changes_nothing_outside(held, renders, inpainter):
    one = inpainting.one_each(held, torch.Generator().manual_seed(0))
    x = inpainting.filled(inpainter, renders, one.requested, 0, steps=1)
    for i, box in enumerate(one.boxes_xyxy[:, 0]):
        touched = (16 * box - torch.tensor([0, 0, 1e-4, 1e-4])).tolist()
        x0, y0, x1, y1 = (8 * int(v) for v in touched)
        inside = torch.zeros(128, 128, dtype=torch.bool)
        inside[y0:y1 + 8, x0:x1 + 8] = True
        assert torch.equal(x[i][:, ~inside], renders[i][:, ~inside])
        assert float((x[i] - renders[i])[:, inside].abs().mean()) > .02
        new = (x[i] != renders[i]).any(0)                      # up to the last place it touches
        assert new[y1:y1 + 8, x0:x1 + 8].any() and new[y0:y1 + 8, x1:x1 + 8].any()


def test_the_whole_report_has_a_figure_for_every_bar(inpainter, monkeypatch):
    monkeypatch.setattr(grounding, "feature_distances", partial(feature_distances, least=2))
    parts = weights.text_to_image(unet=weights.load("gligen"))
    made = report.grounding_report(parts, inpainter, COUNT, steps=2)
    assert made["boxes right, renders"] > .9 and made["AP50 of DETR, renders"] > .7
    assert {name for name in made["open set"] if "," not in name} == {
        "base", "held-out pairs", "novel", "control", "chance"}
    assert [row["tau"] for row in made["tau"]] == list(report.TAUS)
    assert made["tau"][0]["kid"] == made["tau"][1]["kid"]         # of two steps, .2 hears none
    assert made["tau"][0]["kid"] != made["tau"][-1]["kid"]
    assert made["inpainted"]["right, renders"] > .9
    text = evaluate.table({"gligen": made | {
        "seconds for 8 grounded pictures in 30 guided steps": 9.}})
    for section, name in evaluate.BARS:
        if section == "gligen":
            (line,) = (one for one in text.splitlines() if one.startswith(f"| {name} |"))
            assert line.endswith(("holds |", "missed |"))
