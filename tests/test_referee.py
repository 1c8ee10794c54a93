"""The referee: its geometry, its independence, and the shipped judges on held-out renders."""

import ast
from pathlib import Path

import pytest
import torch

from gligen_lessons import images, referee, vae, weights, world
from gligen_lessons.attribute_referee import OF_SCENE, OF_THING
from gligen_lessons.datasets import labelled, nothing
from gligen_lessons.eval import pixels, referees
from gligen_lessons.eval.attributes import attributes_judged, attributes_report
from gligen_lessons.recipes import referee as recipe
from gligen_lessons.world.render import render
from gligen_lessons.world.scene import Scene, Thing
from gligen_lessons.world.vocabulary import CATEGORIES, COLOURS
from tools.layers import LAYERS

LIBRARY = Path(referee.__file__).parent


def test_a_crop_is_the_part_of_the_picture_that_its_box_frames():
    x = torch.arange(3 * 40 * 80, dtype=torch.float32).view(1, 3, 40, 80)
    box = torch.tensor([[.25, .5, .5, 1.]])               # columns 20..40, rows 20..40
    got = images.crops(x, box, torch.tensor([0]), side=20)
    torch.testing.assert_close(got[0], x[0, :, 20:40, 20:40], atol=1e-2, rtol=1e-5)


def test_recognised_counts_pictures_that_show_a_thing_for_sure():
    found = torch.zeros(4, len(CATEGORIES), len(COLOURS))
    found[0, 3, 2], found[1, 5, 1] = .95, .85             # sure of one thing; not sure enough
    found[2, :2, 0] = .99                                 # sure of two: still one picture
    made = pixels.recognised("recognised", found)
    assert (made["recognised"], made["recognised, n"]) == (.5, 4)
    assert made["recognised, low"] <= .5 <= made["recognised, high"]


def test_presence_is_the_best_place_of_category_times_colour():
    g = torch.Generator().manual_seed(0)
    category = torch.randn(2, len(CATEGORIES) + 1, 4, 4, generator=g)
    colour = torch.randn(2, len(COLOURS), 4, 4, generator=g)
    got = referee.presence(category, colour)
    p, q = category.softmax(1), colour.softmax(1)
    want = max(float(p[1, 3, i, j] * q[1, 7, i, j]) for i in range(4) for j in range(4))
    assert got.shape == (2, len(CATEGORIES), len(COLOURS))
    assert float(got[1, 3, 7]) == pytest.approx(want, rel=1e-6)


def test_no_lesson_imports_the_referee():
    """What judges a generator must not help to make its pictures."""
    for module in LAYERS[2][1].split():
        file = LIBRARY / f"{module}.py"
        names = {alias.name for node in ast.walk(ast.parse(file.read_text("utf-8")))
                 if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
                 } if file.exists() else set()
        assert "referee" not in names and not any(n.startswith("judge") for n in names), module


def test_pictures_with_nan_are_refused():
    judge = referee.SceneReferee()
    with pytest.raises(ValueError, match="NaN"):
        referee.judge_scenes(judge, torch.full((1, 3, 128, 128), float("nan")))


def test_labels_of_places_follow_the_panoptic_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path))
    data = labelled.labelled("referee-test", 3)
    category, colour = labelled.cells(data, torch.arange(3))
    for row, seed in enumerate(data.renders.seeds):
        scene = world.scene(seed)
        ids = render(scene).ids
        for y in range(16):
            for x in range(16):
                number = int(ids[8 * y + 4, 8 * x + 4]) - 16
                want = CATEGORIES.index(scene.things[number].category) if number >= 0 else -1
                got = int(category[row, y, x])
                assert got == (want if number >= 0 else referee.BACKGROUND)
                assert (int(colour[row, y, x]) >= 0) == (number >= 0)


def test_empty_boxes_share_little_with_things(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path))
    data = labelled.labelled("referee-test", 8)
    boxes = recipe.empty_boxes(data, torch.arange(8), torch.Generator().manual_seed(0))
    covered = []
    for row, (x0, y0, x1, y1) in enumerate((boxes * 128).long().tolist()):
        inside = data.renders.ids[row][y0:y1, x0:x1]
        covered.append(float((inside >= 16).mean()))
    assert sum(covered) / len(covered) < .1


def test_a_verdict_counts_found_exchanged_and_what_was_not_named():
    found, named = torch.zeros(4, 18, 10), torch.zeros(4, 18, 10)
    named[range(4), range(4), range(4)] = 1               # four captions, each with its own thing
    found[0, 0, 0] = found[1, 1, 1] = .9                  # two are found
    found[2, 1, 1] = .9                                   # the third shows what the second asked
    found[3, 9, 9] = .6                                   # the last something nobody asked
    told = referee.found_beside(found, named)
    assert told["found"] == .5 and told["found, n"] == 4 and told["precision"] == .5
    assert told["exchanged"] == .25, "picture 2 shows what caption 1 names"
    assert 0 <= told["found, low"] < .5 < told["found, high"] <= 1
    assert referee.found_beside(found * 0, named)["precision"] == 0.


@pytest.mark.parametrize("kind", nothing.KINDS)
def test_pictures_of_nothing_keep_colours_or_size_but_no_picture(kind):
    one = Scene(things=(Thing("car", "red", x=.5, y=.85, size=.3),))
    x = (torch.tensor(render(one).image).movedim(-1, 0).float() / 127.5 - 1).expand(3, -1, -1, -1)
    made = nothing.nothing(kind, x, torch.Generator().manual_seed(0))
    assert made.shape == x.shape and float(made.abs().max()) <= 1
    assert torch.isfinite(made).all() and float((made - x).abs().mean()) > .02
    again = nothing.nothing(kind, x, torch.Generator().manual_seed(0))
    assert torch.equal(made, again), "the generator alone decides"
    other = nothing.nothing(kind, x, torch.Generator().manual_seed(1))
    assert not torch.equal(made, other)


def test_decoded_noise_is_mostly_noise_and_never_what_was_encoded():
    torch.manual_seed(0)
    model = vae.VAE(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=128,
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4)
    seen = []
    model.decode = lambda z: seen.append(z) or torch.zeros(len(z), 3, 128, 128)
    x = torch.rand(64, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    nothing.decoded_noise(model, x, torch.Generator().manual_seed(0))
    z, was = seen[0] * model.scaling_factor, model.encode(x)[0].detach() * model.scaling_factor
    same = torch.nn.functional.cosine_similarity(z.flatten(1), was.flatten(1))
    permuted = torch.tensor([torch.equal(a.flatten().sort().values, b.flatten().sort().values)
                             for a, b in zip(z, was, strict=True)])
    assert 15 < int(permuted.sum()) < 49, "about half are in a random order"
    assert float(same[~permuted].abs().max()) < .8, "the others are mostly noise"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Three hundred scenes that no referee was trained on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return labelled.labelled("referee-test", 300)


def test_the_shipped_crop_judge_names_category_and_colour(held_out):
    report = referees.crop_report(weights.load("referee-crop"), held_out)
    for name in ("category, clean", "colour, clean", "category, blurred and noisy",
                 "colour, blurred and noisy"):
        assert report[name] >= .99, report


def test_the_shipped_scene_judge_ranks_what_is_there(held_out):
    report = referees.scene_report(weights.load("referee-scene"), held_out)
    assert report["mean average precision of pairs"] >= .97, report


def test_the_shipped_judge_of_edits_names_attributes(held_out):
    report = attributes_report(weights.load("referee-attributes"), held_out)
    for name in (*OF_SCENE, *OF_THING):                   # the pattern of small things is faint
        assert report[f"{name}, renders"] >= (.88 if name == "pattern" else .98), report


@pytest.mark.parametrize("name, judged", {
    "scene": referees.scene_judged, "crop": referees.crop_judged,
    "attributes": attributes_judged}.items())
def test_the_shipped_judges_are_sure_of_nothing_where_nothing_can_be_named(name, judged):
    report = referees.rubbish_report(judged(weights.load(f"referee-{name}")), 400)
    assert set(report) == {*nothing.KINDS, "decoded noise"}
    for kind, sure in report.items():                     # .02 is the aim, the rest is chance
        assert sure <= .035, f"something is seen in {sure:.1%} of pictures of {kind}"


def test_the_scene_judge_sees_a_colour_change():
    """Recolouring one thing moves its colour's score and no other category's."""
    judge = weights.load("referee-scene")
    red = Scene(things=(Thing("car", "red", x=.5, y=.85, size=.3),))
    blue = red.with_thing(0, colour="blue")
    x = torch.stack([torch.tensor(render(s).image) for s in (red, blue)])
    found, _ = referee.judge_scenes(judge, x.movedim(-1, 1).float() / 127.5 - 1)
    car, names = CATEGORIES.index("car"), list(COLOURS)
    assert found[0, car, names.index("red")] > .5 > found[0, car, names.index("blue")]
    assert found[1, car, names.index("blue")] > .5 > found[1, car, names.index("red")]
