"""`generate` with key points, crops, maps, ReGround, as typed; what cannot be, in one sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import told

from gligen_lessons import cli, files, weights
from gligen_lessons.conditions import read_figures, read_map, request
from gligen_lessons.gligen import gate_names, transformer_blocks
from gligen_lessons.grounding_maps import MAP_CLASSES
from gligen_lessons.models import MODELS
from gligen_lessons.recipes.latent import LATENT_UNET

BODY = [[.3 + .02 * k, .4 + .02 * k, 2] for k in range(17)]


@pytest.fixture
def written(tmp_path):
    """A folder with a skeleton, a crop and a map in it."""
    (tmp_path / "pose.json").write_text(json.dumps(BODY))
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "crop.png")
    numbers = np.arange(128 * 128).reshape(128, 128) // 900 % len(MAP_CLASSES)
    Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / "map.png")
    return tmp_path


@pytest.fixture
def opened(written):
    """Weights of the three forms whose gates are open, beside them the files."""
    torch.manual_seed(0)
    for name in ("gligen-keypoints", "gligen-entities", "gligen-map"):
        row = MODELS[name]
        unet = row.build(weights.load("ldm").requires_grad_(False))
        for block in transformer_blocks(unet):
            block.fuser.alpha_attn.data.fill_(.5)
        state = unet.state_dict()
        card = files.make_card(name, f"train {name}", 1, "none", "cpu", 0., {}, LATENT_UNET | {
            "_on": weights.fingerprint("ldm")})
        files.save({key: state[key] for key in row.added(unet)}, written / f"{name}.safetensors",
                   card)
        assert set(gate_names(unet)) <= set(row.added(unet))
    return written


def painted(folder, *words) -> np.ndarray:
    out = folder / "out.png"
    assert cli.main(["generate", "a red robot", *map(str, words), "--steps", "2", "--out",
                     str(out), "--weights", str(folder)]) == 0
    return np.array(Image.open(out), dtype=int)


def test_each_form_is_painted_and_does_something(opened, monkeypatch):
    monkeypatch.setenv(weights.OWN, "")
    plain = painted(opened)
    for words in (["--keypoints", opened / "pose.json"],
                  ["--image", f"{opened / 'crop.png'}:.1,.2,.6,.9"],
                  ["--map", opened / "map.png"]):
        made = painted(opened, *words)
        assert made.shape == (128, 128, 3) and abs(made - plain).max() > 10, words
        assert abs(painted(opened, *words, "--tau", "0") - plain).max() <= 1, words
        assert abs(painted(opened, *words, "--reground") - made).max() > 1, words


@pytest.mark.parametrize("held", [BODY, sum(BODY, []), [BODY], {"keypoints": sum(BODY, [])},
                                  [sum(BODY, [])]])
def test_a_skeleton_may_be_written_as_coco_does_or_as_triples(tmp_path, held):
    (tmp_path / "pose.json").write_text(json.dumps(held))
    found = read_figures(tmp_path / "pose.json", "a monkey")
    assert found.masks.sum() == 17
    torch.testing.assert_close(found.points[0, :17], torch.tensor(BODY)[:, :2])


def test_two_skeletons_and_a_phrase_with_the_box_of_a_crop_are_one_thing(written):
    (written / "two.json").write_text(json.dumps([BODY, BODY]))
    assert read_figures(written / "two.json", "").masks.sum() == 34
    options = cli.parser().parse_args(["generate", "x", "--out", str(written / "x.png"), "--box",
                                       "a car:.1,.2,.6,.9", "--box", "a cat:0,0,.5,.5", "--image",
                                       f"{written / 'crop.png'}:.1,.2,.6,.9"])
    asked = request(options)
    assert asked.weights == "gligen-entities" and asked.phrases == ("a car", "a cat")
    made = asked.make(weights.text_to_image())
    assert made.masks.sum() == 2 and made.phrases_masks[0, :2].tolist() == [1, 1]
    assert made.image_masks[0, :3].tolist() == [1, 0, 0]
    assert float(made.image_embeddings[0, 0].norm()) == pytest.approx(28.7, rel=1e-3)


def spoilt(index, point):
    return [point if k == index else joint for k, joint in enumerate(BODY)]


BAD_FIGURES = {
    "sixteen": (BODY[:16], "17 key points of [x, y, visible] make a figure, got (16, 3)"),
    "eighteen": ([*BODY, [.5, .5, 2]], "got (18, 3)"), "outside": (spoilt(3, [1.2, .5, 2]), "[1.2"),
    "negative": (spoilt(3, [.2, -.5, 2]), "lies at [0.2"), "nan": (spoilt(0, [float("nan"), 0, 2]),
                                                                   "lies at [nan"),
    "pixels": ([[64, 64, 2]] * 17, "x and y are in 0..1"),
    "nobody": ([[.5, .5, 0]] * 17, "no key point is visible"), "a number": (5, "a list of 17 tr"),
    "words": ([["left", "up", 2]] * 17, "17 key points"), "empty": ([], "a list of 17 triples"),
    "ragged": (spoilt(3, [.5, .5]), "17 key points"), "an object": ({"a": 1}, "a list of 17"),
    "many": ([BODY] * 9, "has 9 figures, at most 8 fit"),
}


@pytest.mark.parametrize("what", BAD_FIGURES)
def test_a_skeleton_that_cannot_be_is_named(tmp_path, capsys, monkeypatch, what):
    held, says = BAD_FIGURES[what]
    monkeypatch.setattr(weights, "load", None)                 # seen before anything is loaded
    (tmp_path / "pose.json").write_text(json.dumps(held))
    assert cli.main(["generate", "a robot", "--keypoints", str(tmp_path / "pose.json"), "--out",
                     str(tmp_path / "x.png")]) == 2
    heard = told(capsys)
    assert says in heard and "--keypoints" in heard and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("words, says", [
    (["a car", "--keypoints", "pose.json"], "only person, robot, monkey have a skeleton, and the "
     "caption names car"),
    (["x", "--keypoints", "none.json"], "none.json"),
    (["x", "--keypoints", "crop.png"], "crop.png cannot be read as JSON"),
    (["x", "--keypoints", "pose.json", "--map", "map.png"], "--keypoints and --map do not go"),
    (["x", "--box", "a car:0,0,.5,.5", "--map", "map.png"], "--box and --map do not go together"),
    (["x", "--image", "crop.png:0,0,.5,.5", "--keypoints", "pose.json"], "--image and --keypoints"),
    (["x", "--image", "crop.png"], "has no colon: write \"CROP.png"),
    (["x", "--image", ":0,0,1,1"], "has no file before its colon"),
    (["x", "--image", "crop.png:0,0,1"], "needs four numbers"),
    (["x", "--image", "crop.png:.5,0,.5,1"], "have no width or height"),
    (["x", "--image", "none.png:0,0,1,1"], "--image none.png: no picture can be read"),
    (["x", "--image", "empty.png:0,0,1,1"], "--image empty.png: no picture can be read"),
    (["x", "--map", "crop.png"], "its mode is RGB"), (["x", "--map", "none.png"], "none.png"),
    (["x", "--map", "pose.json"], "cannot be read as a map"),
    (["x", "--map", "small.png"], "square with 64 positions a side or a multiple, got 30 by 20"),
    (["x", "--map", "strange.png"], "holds 77, which is no class; known are 0 sky"),
    (["x", "--reground"], "--reground says how grounding is used: it needs --box"),
    (["x", "--tau", ".5"], "it needs --box, --image, --keypoints or --map")])
def test_what_cannot_be_is_one_sentence(written, capsys, monkeypatch, words, says):
    monkeypatch.chdir(written)
    monkeypatch.setattr(weights, "load", None)
    (written / "empty.png").write_bytes(b"")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save("small.png")
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save("strange.png")
    assert cli.main(["generate", *words, "--out", "x.png"]) == 2
    assert says in told(capsys) and not (written / "x.png").exists()


def test_a_map_with_a_palette_keeps_its_numbers(tmp_path):
    numbers = np.full((64, 64), 5, np.uint8)
    picture = Image.fromarray(numbers).convert("P")
    picture.putpalette([*range(256)] * 3)
    picture.save(tmp_path / "map.png")
    read = np.array(Image.open(tmp_path / "map.png"))
    assert read_map(tmp_path / "map.png").maps[0, int(read[0, 0])].all()


def test_weights_that_are_not_there_name_the_command(written, capsys, monkeypatch):
    monkeypatch.setenv(weights.OWN, "")
    monkeypatch.setattr(weights, "FOLDER", written)
    assert cli.main(["generate", "a robot", "--keypoints", str(written / "pose.json"), "--out",
                     str(written / "x.png")]) == 2
    assert "python course.py train gligen-keypoints" in told(capsys)
