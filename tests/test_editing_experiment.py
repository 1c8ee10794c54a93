"""Editing measured: edits of every kind, verdicts, regions, curves at equal success."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gligen_lessons import weights
from gligen_lessons.attribute_referee import AttributeReferee, attributes, truth_of
from gligen_lessons.datasets.edits import KEEPING, MOVING, EditCase, of_all_kinds, removed
from gligen_lessons.eval.editing import psnr_in, succeeded
from gligen_lessons.experiments.detector_grounding.judges import Referee
from gligen_lessons.experiments.editing import methods, metrics, run
from gligen_lessons.world.edits import edit
from gligen_lessons.world.scene import Scene, Thing


@pytest.fixture(scope="module")
def keeping() -> list[EditCase]:
    return of_all_kinds(12)


@pytest.fixture(scope="module")
def moving() -> list[EditCase]:
    return of_all_kinds(6, MOVING)


def test_every_kind_has_its_part(keeping, moving):
    assert [one.edit.kind for one in keeping] == [*KEEPING] * 2
    assert [one.edit.kind for one in moving] == [*MOVING] * 2
    assert [one.reference for one in of_all_kinds(7)] == [one.reference for one in keeping[:7]]


def test_captions_differ_in_what_was_edited_and_in_no_order(keeping):
    for one in keeping:
        before, after = one.reference.split(), one.query.split()
        if one.edit.kind in ("recolour", "replace"):
            different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
            assert len([d for d in different if d != ("a", "an") and d != ("an", "a")]) == 1
        assert one.reference != one.query
        names = [word.strip(",") for word in before]
        assert all(thing.category in names for thing in one.edit.before.things)


def test_nothing_changes_outside_the_change(keeping, moving):
    for one in keeping + moving:
        inside = one.changed.bool().expand_as(one.before)
        off = (one.before - one.after).abs()
        assert (off[~inside] <= 8.5 / 127.5).all()
        assert (off.amax(0, keepdim=True)[one.changed.bool()[None]] > 8.5 / 127.5).all()
        if one.edit.kind == "recolour":
            x0, y0, x1, y1 = (one.box * 128).round().int().tolist()
            assert float(one.changed[y0:y1, x0:x1].sum()) > .9 * float(one.changed.sum())


def perfect(some: list[EditCase], which: str) -> dict[str, torch.Tensor]:
    """What a faultless judge says of the pictures before or after the edits."""
    told = []
    for one in some:
        scene, index = getattr(one.edit, which), one.edit.index
        gone = one.edit.kind == "remove"
        here = truth_of(scene, None if gone or index is None or index >= len(scene.things)
                        else index)
        told.append({"category": 18, "colour": 0, "pattern": 0} | here)
        if gone and which == "before":
            told[-1] |= truth_of(scene, removed(one.edit))
    return {name: torch.tensor([one[name] for one in told]) for name in told[0]}


def test_a_faultless_judge_calls_every_answer_right_and_no_picture_before(keeping, moving):
    some = keeping + [one for one in moving if one.edit.kind != "move"]
    assert succeeded(perfect(some, "after"), some).all()
    assert not succeeded(perfect(some, "before"), some).any()


def test_weather_must_come_nearer_to_the_wished_amount():
    before = Scene(weather="rain", amount=.2, things=(Thing("car", "red"),))
    one = SimpleNamespace(edit=edit(before, "weather", 3))
    assert one.edit.after.amount > .5
    says = {name: torch.tensor([float(v)]) for name, v in truth_of(one.edit.after).items()}
    for amount, right in ((one.edit.after.amount, True), (.25, False), (.2, False)):
        says["amount"] = torch.tensor([amount])
        assert bool(succeeded(says, [one])[0]) is right


def test_psnr_of_a_region_counts_that_region_alone():
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    region = torch.zeros(2, 1, 4, 4)
    region[:, :, :2] = 1
    b[:, :, :2] += .2                                     # of 2: 20 dB
    b[1, :, 3] += 1.                                      # outside: not looked at
    assert psnr_in(a, b, region).tolist() == pytest.approx([20., 20.])
    assert psnr_in(a, a, region).isinf().all()
    assert psnr_in(a, b, 0 * region).isnan().all()


def curve(success, cost, n=400, seed=0):
    """A method whose strengths succeed so often, at such a cost."""
    g = np.random.default_rng(seed)
    return [{"success": (g.random(n) < p).astype(float), "cost": c + .01 * g.normal(size=n)}
            for p, c in zip(success, cost, strict=True)]


def test_at_equal_success_the_dearer_method_is_told_by_how_much():
    cheap, dear = curve((.2, .5, .8), (1., 2., 3.)), curve((.1, .5, .9), (1.5, 2.5, 3.5), seed=1)
    found = metrics.compared(cheap, dear, "cost", 50)
    assert found["low"] < found["mean"] < found["high"] and found["scenes"] == 400
    # dear costs 1.5 + (p - .1) / .4 and cheap 1 + (p - .2) / .3, so .5 more at .5, less beyond
    levels = np.linspace(.2 + .03, .8 - .03, 19)
    truth = np.mean(1.5 + (levels - .1) / .4 - 1 - (levels - .2) / .3)
    assert found["mean"] == pytest.approx(truth, abs=.25)
    same = metrics.compared(cheap, cheap, "cost", 20)
    assert same["mean"] == same["low"] == same["high"] == 0
    apart = metrics.compared(curve((.1, .2), (1., 2.)), curve((.8, .9), (1., 2.)), "cost", 5)
    assert apart["mean"] is None
    assert metrics.at_success(np.array([.2, .6]), np.array([1., 3.]), .4) == pytest.approx(2.)
    assert np.isnan(metrics.at_success(np.array([.2, .6]), np.array([1., 3.]), .7))


def test_a_strength_that_costs_more_and_succeeds_less_is_not_worth_taking():
    success, cost = np.array([.2, .6, .8, .5]), np.array([1., 2., 3., 4.])
    kept = metrics.frontier(success, cost)
    assert [some.tolist() for some in kept] == [[.2, .6, .8], [1., 2., 3.]]
    other = metrics.frontier(success[::-1], cost[::-1])   # the order of strengths is nothing
    assert [some.tolist() for some in other] == [some.tolist() for some in kept]
    torn = curve((.2, .5, .8, .4), (1., 2., 3., 9.))      # its last strength tears the picture
    whole = metrics.compared(torn[:3], torn, "cost", 5)
    assert whole["mean"] == 0


def test_of_a_psnr_more_change_is_less():
    keeps, loses = (curve((.2, .5, .8), psnr) for psnr in ((30., 28., 26.), (25., 23., 21.)))
    for one in keeps + loses:
        one["psnr outside"] = one.pop("cost")
    found = metrics.compared(keeps, loses, "psnr outside", 20)
    assert found["mean"] == pytest.approx(5, abs=.3)
    assert metrics.outcome(found) == "held"
    assert metrics.outcome(metrics.compared(loses, keeps, "psnr outside", 20)) == (
        "the reverse holds")
    assert metrics.outcome(metrics.compared(keeps, keeps, "psnr outside", 20)) == "not shown"
    assert metrics.outcome({"mean": None}) == "no success that both reach"


def test_the_referee_of_attributes_reads_pictures_and_refuses_nan(keeping):
    judge, x = AttributeReferee().eval(), torch.stack([one.before for one in keeping[:3]])
    found = attributes(judge, x, torch.stack([one.box for one in keeping[:3]]))
    assert {name: tuple(v.shape) for name, v in found.items()} == dict.fromkeys(
        ("ground", "time", "weather", "style", "amount", "category", "colour", "pattern"), (3,))
    assert (found["amount"] >= 0).all() and (found["amount"] <= 1).all()
    with pytest.raises(ValueError, match="NaN"):
        attributes(judge, x * torch.nan, torch.rand(3, 4))


def test_the_whole_experiment_has_a_row_for_every_strength(keeping):
    parts = weights.text_to_image()
    judges = metrics.Judges(AttributeReferee().eval(), Referee.shipped("cpu"),
                            weights.load("clip"), weights.tokenizer())
    few = {name: (strengths[-1:], made) for name, (strengths, made) in methods.METHODS.items()
           if name != "FlexIT"}
    made = run.run(parts, judges, 6, 2, methods=few)
    rows = {(row["method"], row["strength"]): row for row in made["rows"]}
    assert len(rows) == len(few) + len(methods.BOUNDS)
    assert rows["copy", None]["psnr outside"] is None and rows["copy", None]["csfid"] > 0
    assert rows["the answer", None]["csfid"] == 0
    assert rows["the answer", None]["distance to the answer"] == 0
    trip = rows["reconstruction", None]["psnr outside"]
    assert rows["DiffEdit", 1.]["psnr outside"] > rows["SDEdit", 1.]["psnr outside"]
    assert trip > rows["DiffEdit", 1.]["psnr outside"]
    for row in rows.values():
        for name in ("success", "distance to the source", "distance to the answer"):
            assert row[f"{name}, low"] <= row[name] <= row[f"{name}, high"], row
    assert set(made["masks"]["rows"]) > {"as it is", "empty reference", "best on the grid"}
    assert set(methods.METHODS) - set(methods.BY_RATIO) == {"ILVR", "Prompt-to-Prompt", "FlexIT"}
    assert len(made["claims"]) == 2 * len(run.CLAIMS)
    json.dumps(made, allow_nan=False)


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(keeping, monkeypatch, tmp_path):
    measured = []

    def judged_batch(one, judges, methods):
        measured.append(len(one.some))
        g = torch.Generator().manual_seed(one.seed)
        return {("copy", None): {"success": torch.rand(len(one.some), generator=g)}}, {
            "as it is": torch.rand(len(one.some), generator=g)}

    monkeypatch.setattr(run, "judged_batch", judged_batch)
    judges = SimpleNamespace(clip=None)
    whole = run.all_judged(None, judges, keeping, 2, {})
    run.all_judged(None, judges, keeping[:8], 2, {}, tmp_path)     # the first batch only
    measured.clear()
    again = run.all_judged(None, judges, keeping, 2, {}, tmp_path)
    assert measured == [4]
    assert np.array_equal(again[0]["copy", None]["success"], whole[0]["copy", None]["success"])
    assert np.array_equal(again[1]["as it is"], whole[1]["as it is"])
    assert run.left_in(KEEPING, 20) != run.left_in(KEEPING, 30) != run.left_in(MOVING, 30)
