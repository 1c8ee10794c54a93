"""The report on editing: maps of nouns by hand, masks and edits whose answer is known."""

import json
from types import SimpleNamespace

import pytest
import torch

from gligen_lessons import evaluate, weights, world
from gligen_lessons.datasets.edits import of_all_kinds
from gligen_lessons.diffedit import clean_latents
from gligen_lessons.eval import editing_report as report
from gligen_lessons.eval import figures
from gligen_lessons.eval import noun_maps as nouns
from gligen_lessons.eval.editing import REGIONS, repaint
from gligen_lessons.null_text import pivots
from gligen_lessons.prompt2prompt import make_control
from gligen_lessons.prompt_alignment import find, word_tokens


@pytest.fixture(scope="module")
def parts():
    return weights.text_to_image()


@pytest.fixture(scope="module")
def some():
    return of_all_kinds(2, REGIONS)


def test_the_pointing_game_and_iou_by_hand():
    truth = torch.zeros(3, 3)
    truth[0, :2] = 1
    assert nouns.located(truth + .1 * torch.rand(3, 3), truth) == (1., 1.)
    heat = torch.tensor([[.9, .1, .0], [.0, .5, .0], [.0, .0, .2]])
    assert nouns.located(heat, truth) == (1., pytest.approx(1 / 3))     # (0,0) and (1,1) are top
    heat[2, 2] = 1.
    assert nouns.located(heat, truth)[0] == 0.


def test_the_centre_prior_points_at_the_middle():
    for side in (8, 16):
        row, column = divmod(int(nouns.centre_prior(side).argmax()), side)
        assert {row, column} <= {side // 2 - 1, side // 2}


def test_maps_that_are_the_truth_win_every_point(monkeypatch):
    """Each noun's own tokens are read, and held against its own thing."""
    told = SimpleNamespace(tokenizer=weights.tokenizer())
    scenes = {world.captions(one)[0]: one for one in nouns.plain_scenes(9, told.tokenizer)}
    assert len(scenes) == 9 and all(len(one.things) > 1 for one in scenes.values())

    def true_maps(parts, x, texts, step=0, seed=0):
        made = {side: torch.zeros(len(texts), told.tokenizer.length, side, side)
                for side in nouns.SIDES}
        for i, text in enumerate(texts):
            one, words = scenes[text], word_tokens(told.tokenizer, text)
            masks = torch.tensor(world.masks(one, world.render(one).ids)).float()
            for thing, mask in zip(one.things, masks, strict=True):
                for side, maps in made.items():
                    maps[i, find(words, thing.category)] = torch.nn.functional.adaptive_avg_pool2d(
                        mask[None], side)[0]
        return made

    monkeypatch.setattr(nouns, "noun_maps", true_maps)
    found = nouns.noun_report(told, 9)
    for side in nouns.SIDES:
        for what in ("pointing game", "noun IoU"):
            best, other, prior, chance = (found[f"{what}, {side} x {side}, {name}"] for name in (
                "maps", "another noun", "centre prior", "chance"))
            assert best == 1. and other < .3 and prior < .9 and chance < .6
    assert found["noun IoU, 16 x 16, maps, n"] > 9


def test_figures_by_kind(some):
    many = some * 2
    made = figures.by_kind("x", torch.tensor([1., 0., 3., torch.inf]), many, figures.mean_figure)
    assert made["x, recolour"] == 2 and made["x, replace"] == 0 and made["x, replace, n"] == 1
    assert made["x"] == pytest.approx(4 / 3) and made["x, low"] < made["x"] < made["x, high"]
    assert figures.mean_figure("x", torch.tensor([torch.inf])) == {"x": None, "x, n": 0}


def test_without_control_the_edit_is_the_same_noise_told_otherwise(parts, some):
    made = report.three_ways(parts, some, 3, 5.)
    sources, queries = [one.reference for one in some], [one.query for one in some]
    z0 = clean_latents(parts, torch.stack([one.before for one in some]))
    code = pivots(parts, sources, z0, 3)[-1]
    control = make_control(parts, sources, queries, 3, cross=0., self_=0.)
    base, edited = repaint(parts, some, code, control).chunk(2)
    assert torch.allclose(made["same seed"], edited, atol=1e-3)
    assert torch.allclose(made["base"], base, atol=1e-3)
    off = {name: float((z - base).abs().mean()) for name, z in made.items()}
    assert off["with local blend"] < off["Prompt-to-Prompt"] < off["same seed"]


def test_null_text_stands_beside_the_captions_as_null(parts, some):
    """Without a fit the figures are those of the edits with control."""
    judge = report.edit_judge("cpu")
    made = report.null_report(parts, judge, some, 3, 5.)
    rows = report.control_rows(parts, judge, some, 3, 5.)
    for ours, theirs in (("base", "base"), ("edit", "Prompt-to-Prompt")):
        assert made[f"null, {ours}, caption"] == pytest.approx(
            float(rows[f"psnr outside to the source, {theirs}"].mean()), abs=1e-2)
        assert made[f"null, {ours} gain of the fit"] == pytest.approx(
            made[f"null, {ours}, fitted"] - made[f"null, {ours}, caption"])
        assert abs(made[f"null, {ours} gain of the fit"]) > .01         # the fit did something
    assert made["null, success, fitted, n"] == 2


def test_the_judge_passes_the_answers_and_refuses_the_sources(some):
    judge = report.edit_judge("cpu")
    assert judge(torch.stack([one.after for one in some]), some).all()
    assert not judge(torch.stack([one.before for one in some]), some).any()


def test_the_whole_report_has_a_figure_for_every_bar(parts):
    made = report.editing_report(parts, 4, steps=2)
    json.dumps(made, allow_nan=False)
    assert made["judge"] == report.JUDGE and made["mask IoU, reference, n"] == 4
    assert made["mask IoU, best on the grid"] > max(
        made["mask IoU, everything"], made["mask IoU, reference"])
    assert made["success, the answer"] > made["success, the source"]
    for way in report.WAYS[:2]:
        assert made[f"psnr gain, {way}"] > 0
        assert made[f"psnr gain to the source, {way}"] == pytest.approx(
            made[f"psnr outside to the source, {way}"]
            - made["psnr outside to the source, same seed"])
    assert made["pairs"] == 2 and made["null, base, fitted, n"] == 2
    text = evaluate.table({"editing": made})
    for section, name in evaluate.BARS:
        if section == "editing":
            (line,) = (one for one in text.splitlines() if one.startswith(f"| {name} |"))
            assert line.endswith(("holds |", "missed |"))
