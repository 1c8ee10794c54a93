"""The experiment "DETR tells GLIGEN what is there": what the arms say, paint and measure."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from test_import_pretrained import folders  # noqa: F401  (a fixture)

from gligen_lessons import cli, detr, experiments, weights
from gligen_lessons.datasets.annotated import annotated
from gligen_lessons.eval.detection import stacked
from gligen_lessons.experiments.detector_grounding import arms, judges, run
from gligen_lessons.experiments.detector_grounding.arms import (
    Detected,
    InpaintingCase,
    hidden_part,
    instructions,
)
from gligen_lessons.experiments.detector_grounding.metrics import (
    ArmResults,
    bounded,
    corrected,
    outside,
    paired,
)
from gligen_lessons.inpaint import make_inpainting, paste
from gligen_lessons.metrics import psnr
from gligen_lessons.world import named, scene
from gligen_lessons.world.coco_out import write
from gligen_lessons.world.scene import Thing
from gligen_lessons.world.vocabulary import BASE, COLOURS, seeds

TRUE = [[.1, .2, .4, .6], [.5, .5, .9, .9], [.05, .7, .3, .95]]
TOLD = {"scenes", "kid", "frechet", "kid, crops", "frechet, crops"}


def subject(target: int = 1) -> InpaintingCase:
    return InpaintingCase(3, torch.zeros(3, 128, 128), ["car", "tree", "cat"],
                   ["a red car", "a green tree", "a black cat"], torch.tensor(TRUE), target)


def seen(*names: str, boxes) -> Detected:
    return Detected([name.split()[-1] for name in names], list(names),
                      torch.tensor(boxes).view(-1, 4))


NEAR_TREE = [.5, .52, .9, .9]
LOOKED = seen("an orange car", "a green house", "a black cat", boxes=[TRUE[0], NEAR_TREE, TRUE[2]])


# ------------------------------------------------------------------------------ what arms say

def test_each_arm_says_what_its_name_promises():
    said = instructions(subject(), LOOKED)
    assert said["A"].phrases == ["a green tree"]
    assert said["B"].phrases == ["a green tree", "an orange car", "a black cat"]
    assert said["C"].phrases == ["a green house", "an orange car", "a black cat"]
    assert said["D"].phrases == ["a green tree", "a red car", "a black cat"]
    assert torch.equal(said["B"].boxes_xyxy, torch.tensor([TRUE[1], TRUE[0], TRUE[2]]))
    assert torch.equal(said["C"].boxes_xyxy, torch.tensor([NEAR_TREE, TRUE[0], TRUE[2]]))
    assert torch.equal(said["D"].boxes_xyxy, torch.tensor([TRUE[1], TRUE[0], TRUE[2]]))
    assert {arm: one.caption for arm, one in said.items()} == {
        "A": "a green tree", "B": "a green tree", "C": "a green house", "D": "a green tree"}


def test_controls_say_what_a_says_without_its_box_and_with_it():
    said, a = arms.controls(subject()), instructions(subject(), LOOKED)["A"]
    assert said["N"].caption == said["F"].caption == a.caption
    assert said["N"].phrases == [] and said["N"].boxes_xyxy.shape == (0, 4)
    assert said["F"].phrases == a.phrases and torch.equal(said["F"].boxes_xyxy, a.boxes_xyxy)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_the_target_comes_first_and_only_once(target):
    one = subject(target)
    said = instructions(one, LOOKED)
    for arm in "ABD":
        assert said[arm].phrases[0] == one.phrases[target]
        assert torch.equal(said[arm].boxes_xyxy[0], one.box)
    assert sorted(said["D"].phrases) == sorted(one.phrases)
    for arm in "BC":                                    # nothing else stands where the target is
        overlap = arms.iou(said[arm].boxes_xyxy, one.box[None])[0][:, 0]
        assert int((overlap > .5).sum()) == 1 and float(overlap[0]) > .5
    assert said["C"].phrases[1:] == said["B"].phrases[1:]
    assert torch.equal(said["C"].boxes_xyxy[1:], said["B"].boxes_xyxy[1:])


@pytest.mark.parametrize("found", [
    seen("a red car", "a black cat", boxes=[TRUE[0], TRUE[2]]),
    seen("a red car", "a tree", boxes=[TRUE[0], [.5, .72, .9, .9]]),      # IoU .45: another thing
    seen(boxes=[])])
def test_what_detr_missed_has_no_arm_c(found):
    said = instructions(subject(), found)
    assert said["C"] is None
    assert said["B"].phrases == ["a green tree", *found.phrases]
    assert len(said["D"].phrases) == 3


def test_of_two_detections_of_the_target_c_takes_the_better_and_b_neither():
    twice = seen("a tree", "a house", "a car", boxes=[[.5, .6, .9, .9], NEAR_TREE, TRUE[0]])
    said = instructions(subject(), twice)
    assert said["C"].phrases == ["a house", "a car"] and said["B"].phrases[1:] == ["a car"]


def test_phrases_are_those_of_the_world():
    for category in BASE:
        for colour in COLOURS:
            assert arms.coloured(category, colour) == named(Thing(category, colour))
            assert arms.colour_in(named(Thing(category, colour, pattern="striped"))) == colour
    assert arms.coloured("umbrella", None) == "an umbrella" and arms.colour_in("a tree") is None


def test_subjects_are_held_out_scenes_with_a_thing_large_enough():
    found = arms.inpainting_cases(24)
    assert [one.number for one in found] == sorted({one.number for one in found})
    assert set(one.number for one in found) <= set(seeds("grounding-test", 40))
    for one in found:
        things = scene(one.number).things
        assert set(one.phrases) <= {named(thing) for thing in things}
        assert float((one.box[2:] - one.box[:2]).min()) >= 1 / 16
    assert len({one.target for one in found}) > 1
    again = arms.inpainting_cases(12)
    assert [(a.number, a.target) for a in again] == [(b.number, b.target) for b in found[:12]]


def test_a_picture_with_nothing_large_enough_is_passed_over():
    boxes = torch.tensor([[.1, .1, .15, .9], [.5, .5, .52, .52]])
    made = arms.subject(0, torch.zeros(3, 8, 8), ["car", "cat"], ["a", "b"], boxes)
    assert made is None
    one = arms.subject(0, torch.zeros(3, 8, 8), ["car", "cat", "tree"], ["a", "b", "c"],
                       torch.cat([boxes, torch.tensor([[.2, .2, .8, .8]])]))
    assert one.categories == ["car", "tree"] and one.target == 1


# -------------------------------------------------------------------------- looking, painting

@pytest.fixture(scope="module")
def models():
    return run.shipped_models()


def test_the_detector_is_lesson_7s(models):
    x = stacked(annotated("grounding-test", 8).images, slice(8))
    for (names, boxes), one in zip(models.detector(x), detr.detect(weights.load("detr"), x),
                                   strict=True):
        order = one.scores.argsort(descending=True)
        assert names == [BASE[i] for i in one.labels[order]]
        assert torch.allclose(boxes, one.boxes_xyxy[order].clamp(0, 1), atol=1e-5)


def test_what_is_seen_is_what_is_there(models):
    some = arms.inpainting_cases(8)
    looked = run.detections_of(models, some)
    hits = [(one.categories[k], view.categories[j])
            for one, view in zip(some, looked, strict=True)
            for k, box in enumerate(one.boxes_xyxy)
            if (j := arms.same_thing(box, view)) is not None]
    assert len(hits) > .8 * sum(len(one.phrases) for one in some)
    assert np.mean([a == b for a, b in hits]) > .9
    for view in looked:
        assert len(view.phrases) == len(view.categories) == len(view.boxes_xyxy)
        assert all(arms.colour_in(phrase) for phrase in view.phrases)
    silent = run.detections_of(run.Models(models.pipeline, models.detector, None), some)
    assert silent[0].phrases == [arms.coloured(name, None) for name in looked[0].categories]


def test_nobody_is_seen_in_an_empty_picture(models):
    one = InpaintingCase(0, torch.zeros(3, 128, 128), ["car"], ["a car"], torch.tensor(TRUE[:1]), 0)
    blind = run.Models(models.pipeline, lambda x: [([], torch.zeros(0, 4))] * len(x), models.namer)
    view, = run.detections_of(blind, [one])
    assert view.phrases == [] and view.boxes_xyxy.shape == (0, 4)


def test_arms_start_alike_and_keep_the_outside(models):
    some = arms.inpainting_cases(2)
    said = [instructions(one, LOOKED)["A"] for one in some]
    first = run.inpainted(models.pipeline, some, said, 5, steps=2)
    second = run.inpainted(models.pipeline, some[1:], said[1:], 6, steps=2)
    assert torch.allclose(first[1:], second, atol=1e-4)           # picture i has seed first + i
    other = run.inpainted(models.pipeline, some[1:], said[1:], 7, steps=2)
    assert float((other - second).abs().max()) > .05
    x = torch.stack([one.image for one in some])
    latent, mask = run.inpainting_masks(models.pipeline, some)
    assert latent.shape == (2, 1, 16, 16) and mask.shape == (2, 1, 128, 128)
    for one, keep in zip(some, mask, strict=True):                # all of the box is in the hole
        x0, y0, x1, y1 = (one.box * 128).int().tolist()
        assert float(keep[:, y0:y1, x0:x1].sum()) == 0
    changed, decibels = outside(paste(first, x, mask), x, mask)
    assert changed.tolist() == [0, 0] and decibels.isinf().all()
    assert (outside(first, x, mask)[0] > 0).all()


def test_four_channels_are_inpainted_from_the_same_noise_and_without_the_mask(models):
    """A nine-channel network whose five new channels are shut is one of four channels."""
    some, four = arms.inpainting_cases(2), models.four_channels
    said = [arms.controls(one)["F"] for one in some]
    nine = make_inpainting(weights.load("ldm"))
    kept_ = {k: v for k, v in four.unet.state_dict().items() if k != "conv_in.weight"}
    nine.load_state_dict(kept_, strict=False)              # conv_in: four as they were, five zero
    shut = dataclasses.replace(four, unet=nine.eval())
    assert torch.allclose(run.inpainted(four, some, said, 5, steps=2),
                          run.inpainted(shut, some, said, 5, steps=2), atol=1e-4)
    assert list(models.of_arms()) == ["A", "B", "C", "D", "N", "F"]
    assert models.of_arms()["F"] is four and models.of_arms()["N"] is models.pipeline


# ------------------------------------------------------------------------------------ figures

def kept(seed: int, n: int = 12, counts=None, shift: float = 0.) -> ArmResults:
    g = torch.Generator().manual_seed(seed)
    one = ArmResults(counts=list(counts or [True] * n))
    one.columns["right"] = (torch.rand(n, generator=g) > .5).double().tolist()
    one.image_features = [torch.randn(n, 4, generator=g).double() + shift]
    one.crop_features = [torch.randn(n, 3, generator=g).double() + shift]
    return one


def test_equal_arms_differ_by_nothing():
    a, real = kept(0), kept(1)
    found = paired(a, a, real, draws=20)
    assert found.pop("scenes") == 12
    assert set(found) == {"right", "kid", "frechet", "kid, crops", "frechet, crops"}
    assert all(one == {"mean": 0, "low": 0, "high": 0} for one in found.values())


def test_a_worse_arm_is_farther_and_its_interval_says_so():
    a, b, real = kept(0, 40), kept(2, 40, shift=2.), kept(1, 40)
    b.columns["right"] = [0.] * 40
    found = paired(a, b, real, draws=40)
    for name in ("kid", "frechet", "kid, crops", "frechet, crops"):
        assert 0 < found[name]["low"] < found[name]["mean"] < found[name]["high"]
    assert found["right"]["mean"] == pytest.approx(-np.mean(a.columns["right"]))
    assert found["right"]["high"] < 0


def test_pairs_are_compared_on_the_scenes_that_both_have():
    counts = [i % 3 > 0 for i in range(12)]
    a, b, real = kept(0), kept(0, counts=counts), kept(1)
    for i in range(0, 12, 3):                            # what does not count may be anything
        b.columns["right"][i], b.image_features[0][i], b.crop_features[0][i] = 1e6, 1e6, 1e6
    found = paired(a, b, real, draws=10)
    assert found.pop("scenes") == 8
    assert all(one == {"mean": 0, "low": 0, "high": 0} for one in found.values())
    assert paired(a, kept(0, counts=[False] * 12), real) == {"scenes": 0}


def test_intervals_of_several_comparisons_are_wider_about_the_same_mean():
    row = {"mean": 1., "low": .5, "high": 1.8}
    assert corrected(row, 1) == pytest.approx((.5, 1.8))
    low, high = corrected(row, 9)                          # z of .025 / 9 is 2.773, of .025 1.960
    assert (1 - low) / .5 == pytest.approx(2.773 / 1.960, rel=1e-3) == (high - 1) / .8


def test_no_difference_at_all_is_not_certainty():
    level = {"mean": 0., "low": 0., "high": 0.}
    low, high = bounded(level, 1, 36)
    assert -low == high == pytest.approx(math.log(20) / 36)
    assert (1 - high) ** 36 == pytest.approx(.05, rel=.15)
    assert bounded(level, 15, 36)[1] > high
    row = {"mean": .1, "low": .05, "high": .2}
    assert bounded(row, 3, 36) == corrected(row, 3)


def test_a_hole_hides_what_it_covers_of_a_neighbour():
    boxes = torch.tensor([[.25, .25, .5, .5], [.375, .25, .625, .5], [.75, .75, 1., 1.]])
    one = InpaintingCase(0, torch.zeros(3, 128, 128), ["car"] * 3, ["a car"] * 3, boxes, 0)
    assert hidden_part(one) == pytest.approx(.5)
    assert hidden_part(dataclasses.replace(one, target=2)) == 0
    assert hidden_part(dataclasses.replace(one, boxes_xyxy=boxes[:1])) == 0


def test_change_outside_is_measured_where_the_mask_keeps():
    x, mask = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    mask[..., :2] = 0
    generated = x.clone()
    generated[..., :2] = 1.                                 # inside: counts for nothing
    generated[..., 3] = .2                                  # half of what is kept
    changed, decibels = outside(generated, x, mask)
    assert float(changed) == pytest.approx(.1 * 127.5)
    assert float(decibels) == pytest.approx(float(psnr(generated[..., 2:], x[..., 2:])))


def test_the_referee_knows_what_is_in_a_box():
    some, judge = arms.inpainting_cases(24), judges.Referee.shipped("cpu")
    x = torch.stack([one.image for one in some])
    right = judge.accuracy(x, some)
    assert float(right["right"].float().mean()) > .8
    assert torch.equal(right["right"], right["category right"] & right["colour right"])
    assert float(judge.accuracy(x.roll(1, 0), some)["right"].float().mean()) < .3
    told_else = [dataclasses.replace(one, phrases=["a thing in " + (
        "blue" if "blue" not in one.phrases[one.target] else "red")] * len(one.phrases))
        for one in some]
    other = judge.accuracy(x, told_else)
    assert torch.equal(other["category right"], right["category right"])
    assert float(other["right"].float().mean()) < .2
    plain = [dataclasses.replace(one, phrases=["a thing"] * len(one.phrases)) for one in some]
    assert torch.equal(judge.accuracy(x, plain)["right"], right["category right"])
    assert judge.perceptual_distance(x, x).tolist() == [0.] * 24
    assert (judge.perceptual_distance(x, x.roll(1, 0)) > .01).all()
    assert judge.image_features(x).shape == (24, 64)
    boxes = torch.stack([one.box for one in some])
    assert judge.crop_features(x, boxes).norm(dim=1).numpy() == pytest.approx(128 ** .5, rel=1e-4)


# ---------------------------------------------------------------------------- the whole way

@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """COCO files of eight scenes, as the world writes them."""
    return write(tmp_path_factory.mktemp("coco") / "set", seeds("grounding-test", 8), 128, False)


def command(home, data, out, *more: str) -> list[str]:
    return ["experiment", "detector-grounding", "--data", str(data),
            "--pipeline", str(home / "pipeline"), "--detector", str(home / "detector"),
            "--count", "3", "--steps", "2", "--draws", "5", "--out", str(out), *more]


def test_a_line_on_two_arms_has_a_distance_where_there_are_enough_scenes():
    figure = {"mean": .25, "low": .1, "high": .4}
    facts = {"right": figure, "frechet": figure}
    few, many = (run.pair_line("B-A", facts | {"scenes": n}) for n in (199, 200))
    assert few == "B-A, 199 scenes; boxes right +0.2500, 95 % of resamplings +0.1000 to +0.4000"
    assert many.count("+0.2500") == 2 and "; Frechet distance" in many
    assert run.pair_line("A-N", {"scenes": 0}) == "A-N, 0 scenes"


def test_the_path_to_coco_with_published_weights(folders, coco, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "deep" / "detector_grounding.json"
    assert cli.main(command(folders, coco, out, "--clip", str(folders / "clip"))) == 0
    said = capsys.readouterr().out
    assert str(out) in said and "B-A, 3 scenes" in said
    assert "Frechet" not in said, "three pictures have no distance worth printing"
    made = json.loads(out.read_text("utf-8"))
    assert made["judge"] == "referee" and made["count"] == 3 == len(made["scenes"])
    assert made["command"].startswith("python course.py experiment detector-grounding --data")
    assert set(made["arms"]) == set("ABCDN")               # nobody paints four channels
    assert set(made["paired"]) == {"B-A", "C-B", "D-A", "A-N"}
    for arm in "ABD":
        figures_ = made["arms"][arm]
        assert figures_["changed outside, after pasting"] == 0.
        assert figures_["changed outside, before pasting"] > 0 and figures_["scenes"] == 3
        assert figures_.keys() > TOLD and figures_["kid"] is not None
    assert made["arms"]["C"]["scenes"] == 3 - made["missed"]
    assert made["paired"]["C-B"]["scenes"] == 3 - made["missed"]
    for line in made["scenes"]:
        assert (line["C"] is None) == line["missed"]
        assert line["A"]["entities"] == 1 <= line["B"]["entities"]
    assert made["beside"]["renders"]["category right"] == 1.
    assert np.mean([line["A"]["right"] for line in made["scenes"]]) == made["arms"]["A"]["right"]


def test_categories_that_the_referee_never_met_are_judged_by_clip(folders, coco, tmp_path,  # noqa: F811
                                                                  capsys):
    import shutil

    data, out = tmp_path / "set", tmp_path / "detector_grounding.json"
    shutil.copytree(coco, data)
    file = data / "annotations" / "instances.json"
    file.write_text(file.read_text("utf-8").replace('"name": "umbrella"', '"name": "bicycle"'))
    assert cli.main(command(folders, data, out)) == 2
    assert "not 'bicycle': give a folder of CLIP with --clip" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main(command(folders, data, out, "--clip", str(folders / "clip"))) == 0
    made = json.loads(out.read_text("utf-8"))
    assert made["judge"] == "clip" and "right" not in made["arms"]["A"]
    assert made["arms"]["A"]["perceptual distance"] > 0


def test_too_few_pictures_and_missing_folders_are_one_line(folders, coco, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "detector_grounding.json"
    assert cli.main(["experiment", "detector-grounding", "--data", str(coco)]) == 2
    assert "--data needs --detector too" in capsys.readouterr().err
    words = command(folders, coco, out)
    words[words.index("--count") + 1] = "1"
    assert cli.main(words) == 2
    assert "--count must be 2 or more" in capsys.readouterr().err
    words[words.index("--count") + 1] = "5"
    assert cli.main(words) == 2
    assert "holds 8 pictures; --count 5 needs twice as many, 10" in capsys.readouterr().err
    assert not out.exists()


def test_the_former_name_still_works_with_a_note(capsys):
    with pytest.raises(SystemExit):
        cli.main(["experiment", "told", "--bogus"])
    note, error = capsys.readouterr().err.splitlines()
    assert note == "experiment told is called detector-grounding now."
    assert "--bogus" in error and "experiment detector-grounding --help" in error


def test_shipped_results(tmp_path):
    (tmp_path / "detector_grounding.json").write_text('{"count": 3}')
    assert experiments.shipped("detector-grounding", tmp_path) == {"count": 3}
    with pytest.raises(FileNotFoundError, match="python course.py experiment ablations makes it"):
        experiments.shipped("ablations", tmp_path)
    with pytest.raises(ValueError, match="no experiment 'other'; choose from detector-gr"):
        experiments.shipped("other", tmp_path)


def test_pictures_without_anything_to_mask_end_in_one_sentence(models):
    judge, few = judges.Referee.shipped("cpu"), arms.inpainting_cases(3)
    with pytest.raises(ValueError, match="There are 2 pictures .* and 1 others to compare with"):
        run.run(models, judge, few, 2, steps=1)


def test_the_old_name_of_the_pipeline_still_works_with_a_note(capsys):
    with pytest.raises(SystemExit):
        cli.main(["experiment", "detector-grounding", "--painter=x"])
    told = capsys.readouterr()
    assert "--painter is called --pipeline now" in told.out and "it needs --data" in told.err
