"""Whatever a reader is given: a result, or one sentence that says what is wrong, and soon.

Each begins with something whole and spoils it in places. FUZZ=100 tries a hundred times as much,
which takes minutes: FUZZ=100 python -m pytest tests/test_fuzz.py
"""

import copy
import hashlib
import io
import json
import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from real_coco import put, real_files
from test_import_pretrained import folders  # noqa: F401  (a fixture)

from gligen_lessons import (
    cli,
    evaluate,
    files,
    generate,
    ladder,
    reading,
    shipping,
    slides,
    student,
    train,
    weights,
)
from gligen_lessons.experiments import ablations, optimizers
from gligen_lessons.experiments.detector_grounding import run as grounding_run
from gligen_lessons.interop import configs, export_diffusers, import_pretrained
from gligen_lessons.world import coco_out
from gligen_lessons.world.coco_in import read

TIMES = int(os.environ.get("FUZZ", "1"))


def often(number):
    """How many examples: some in the suite, many more when asked; the same ones every time."""
    return settings(max_examples=number * TIMES, deadline=30_000, derandomize=TIMES == 1,
                    database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=6),
    st.sampled_from([10 ** 400, 2 ** 63, 10 ** 9, -1, 0, 1e308, -0., "\ud800", "\0", "../x",
                     "a" * 999, [], {}, [[]], [None], ["a"], {"a": {}}, [1e300] * 4, [0] * 51]))


def places(data, way=()):
    """The ways to everything inside nested lists and dicts."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(
        data, list) else ()
    for key, value in inside:
        yield (*way, key)
        yield from places(value, (*way, key))


@st.composite
def spoilt(draw, whole):
    """Nested lists and dicts in which up to three entries were exchanged, doubled or taken out."""
    data = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(data))
        if not ways:
            break
        *way, last = draw(st.sampled_from(ways))
        here = data
        for key in way:
            here = here[key]
        kind = draw(st.sampled_from(["exchange", "exchange", "gone", "double", "more"]))
        if kind == "gone":
            here.pop(last)
        elif kind == "double" and isinstance(here, list):
            here.append(copy.deepcopy(here[last]))
        elif kind == "more" and isinstance(here, dict):
            here[draw(st.text(max_size=6))] = copy.deepcopy(draw(ODD))
        else:
            here[last] = copy.deepcopy(draw(ODD))
    return data


@st.composite
def bent(draw, whole):
    """Bytes of which some were changed, cut or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["change", "change", "cut", "double"]))
        if kind == "change" and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place:place + draw(st.integers(1, 40))]
        else:
            data[place:place] = data[place:place + draw(st.integers(1, 40))]
    return bytes(data)


def answer(ask, *names):
    """What `ask` gives, or None where it refuses in one sentence that names one of `names`."""
    try:
        return ask()
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        assert text and "\n" not in text and any(name in text for name in names), text
        return None


# ------------------------------------------------------------------------------ COCO and pictures

@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return put(tmp_path_factory.mktemp("coco") / "set", real_files())


@often(60)
@given(st.sampled_from(sorted(real_files())).flatmap(
    lambda name: st.tuples(st.just(name), spoilt(real_files()[name]))))
def test_coco_files(coco, spoiled):
    name, data = spoiled
    file = coco / "annotations" / f"{name}_val2017.json"
    whole = file.read_text()
    file.write_text(json.dumps(data))
    try:
        found = answer(lambda: list(read(coco)), ".json", "val2017")
    finally:
        file.write_text(whole)
    for one in found or ():
        assert np.isfinite(one.boxes_xyxy).all() and one.boxes_xyxy.dtype == np.float32
        assert (one.boxes_xyxy[:, :2] < one.boxes_xyxy[:, 2:]).all()
        assert len(one.masks) == len(one.phrases) == len(one.keypoints) == len(one.crowd)
        assert np.isfinite(one.keypoints).all()


def pictures():
    """Small pictures as files of several kinds."""
    rng, made = np.random.default_rng(0), []
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (9, 7)).astype(np.uint16))
    for one, kind in ((image, "PNG"), (image, "JPEG"), (image.convert("P"), "GIF"), (image, "BMP"),
                      (image, "TIFF"), (deep, "PNG"), (deep, "TIFF"), (image, "WEBP")):
        held = io.BytesIO()
        one.save(held, kind)
        made.append(held.getvalue())
    return made


@often(150)
@given(st.sampled_from(pictures()).flatmap(bent))
def test_pictures(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "picture"
    path.write_bytes(data)
    try:
        found = reading.picture(path)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert found.mode == "RGB" and found.width * found.height <= reading.PIXELS


# ------------------------------------------------------------------------------ weights and cards

@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Shipped weights in a folder of their own."""
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("referee-crop", "detr", "gligen"):
        file = weights.path(name)
        (folder / file.name).symlink_to(file)
    return folder


def described(name):
    return files.card(weights.path(name))


@often(25)
@given(st.sampled_from(["referee-crop", "detr", "gligen"]).flatmap(
    lambda name: st.tuples(st.just(name), spoilt({"config": described(name)["config"]}))))
def test_cards(shelf, spoiled):
    name, told = spoiled
    (shelf / f"{name}.json").write_text(json.dumps(
        {key: value for key, value in described(name).items() if key != "config"} | told))
    answer(lambda: weights.load(name, folder=shelf), name)


@often(40)
@given(bent(weights.path("referee-crop").read_bytes()[:4000]))
def test_weights_whose_sum_is_right(tmp_path_factory, head):
    data = head + weights.path("referee-crop").read_bytes()[4000:]
    file = tmp_path_factory.getbasetemp() / "referee-crop.safetensors"
    file.write_bytes(data)
    card = described("referee-crop") | {"sha256": hashlib.sha256(data).hexdigest()}
    file.with_suffix(".json").write_text(json.dumps(card))
    model = answer(lambda: weights.load("referee-crop", folder=file.parent), "referee-crop")
    assert model is None or all(bool(x.isfinite().all()) for x in model.state_dict().values())


# ------------------------------------------------------------------------------ published folders

SCHEDULER = export_diffusers.scheduler(SimpleNamespace(betas=torch.tensor([.1, .2]), T=2)) | {
    "trained_betas": [.1, .2, .3], "clip_sample_range": 1., "skip_prk_steps": True}
PROCESSOR = {"image_processor": {
    "size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "do_resize": True,
    "do_center_crop": True, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
    "image_mean": [.5, .4, .3], "image_std": [.5, .5, .5], "resample": 3}}


@often(150)
@given(spoilt(SCHEDULER))
def test_schedulers(tmp_path_factory, told):
    folder = tmp_path_factory.getbasetemp()
    (folder / "scheduler_config.json").write_text(json.dumps(told))
    found = answer(lambda: configs.read_schedule(folder), "scheduler_config.json")
    assert found is None or bool(found.alpha_bar.isfinite().all())


@often(150)
@given(spoilt(PROCESSOR))
def test_processors(tmp_path_factory, told):
    folder = tmp_path_factory.getbasetemp()
    (folder / "processor_config.json").write_text(json.dumps(told))
    usual = {"image_mean": [.5] * 3, "image_std": [.5] * 3}
    found = answer(lambda: configs.read_transform(folder, 64, usual), "processor_config.json")
    assert found is None or bool(found(torch.zeros(1, 3, 8, 8)).isfinite().all())


@often(25)
@given(st.data())
def test_tokenizers(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("words")
    export_diffusers.write_tokenizer(weights.tokenizer(), folder)
    name = data.draw(st.sampled_from(["merges.txt", "vocab.json", "tokenizer_config.json",
                                      "special_tokens_map.json", "added_tokens.json"]))
    file = folder / name
    if name == "added_tokens.json":
        file.write_text(json.dumps(data.draw(spoilt({"<toy>": 678, "<two>": 679}))))
    elif name in ("merges.txt", "vocab.json"):
        file.write_bytes(data.draw(bent(file.read_bytes())))
    else:
        file.write_text(json.dumps(data.draw(spoilt(json.loads(file.read_text())))))
    found = answer(lambda: import_pretrained.read_tokenizer(folder, 12), str(folder))
    if found is not None:
        ids = answer(lambda: found(["a <toy> car", ""]), "")
        assert ids is None or (ids.shape == (2, 12) and bool((ids >= 0).all()))


@often(20)
@given(st.data())
def test_networks(folders, data):  # noqa: F811
    part, ask = data.draw(st.sampled_from([
        ("detector", import_pretrained.read_detector), ("clip", import_pretrained.read_clip),
        *((f"pipeline/{part}", import_pretrained.read_pipeline)
          for part in ("vae", "unet", "text_encoder"))]))
    file = folders / part / "config.json"
    whole = file.read_text()
    file.write_text(json.dumps(data.draw(spoilt(json.loads(whole)))))
    try:
        answer(lambda: ask(folders / part.split("/")[0]), str(folders))
    finally:
        file.write_text(whole)


# ---------------------------------------------------------------------------------- command lines

COMMANDS = ["doctor", "world", "generate", "draw", "train", "ship", "evaluate", "experiment",
            "student", "slides", "export", "lab", ""]
OPTIONS = ["--count", "--out", "--split", "--size", "--box", "--tau", "--seed", "--steps",
           "--scale", "--weights", "--batch", "--minutes", "--hours", "--resume", "--restart",
           "--small", "--only", "--data", "--pipeline", "--detector", "--clip", "--draws",
           "--force", "--source", "--debug", "--help", "-x", "--"]
WORDS = ["ddpm", "all", "small", "vae", "ldm", "detector-grounding", "ablations", "optimizers",
         "referee", "01", "told", "val", "x.png", "folder", ".", "0", "1", "2", "64", "1.5", "-1",
         "nan", "inf", "1e30", "a car", "a car:0,0,1,1", "a:0,0", "", "\udce9", "\0", "사과",
         "9" * 40, "/dev/null/x"]


@pytest.fixture(scope="module")
def idle():
    """Commands that do their work look at their words only."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((train, "train"), (ladder, "train_all"), (ladder, "train_small"),
                             (generate, "generate_files"), (coco_out, "write"), (student, "make"),
                             (slides, "write_deck"), (weights, "export"), (shipping, "ship"),
                             (ablations, "run"), (optimizers, "trained"), (grounding_run, "run"),
                             (grounding_run, "world_setup"), (grounding_run, "judge_for"),
                             (cli, "damaged"), (evaluate, "SECTIONS"), (files, "atomic_write")):
            patch.setattr(module, name, {} if name == "SECTIONS" else _nothing(name))
        yield


def _nothing(name):
    given = {"make": [], "damaged": [], "run": {"paired": {}, "scenes": []}, "write_deck": 0,
             "ship": "", "world_setup": SimpleNamespace(
                 models=SimpleNamespace(namer=None), cases=[], categories=[], count=2),
             "trained": {"name": "x", "psnr": 1., "seconds": 1.}, "train_all": 0, "train_small": 0}
    return lambda *words, **more: given.get(name)


@often(150)
@given(st.sampled_from(COMMANDS), st.lists(st.one_of(
    st.sampled_from(OPTIONS), st.sampled_from(WORDS), st.text(max_size=4)), max_size=6))
def test_command_lines(idle, capsys, tmp_path_factory, command, words):
    home = tmp_path_factory.getbasetemp() / "commands"
    (home / "folder").mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv(weights.OWN, "")
        try:
            code = cli.main([command, *(word for word in words if word != "--debug")])
        except SystemExit as end:
            code = end.code
    heard = capsys.readouterr()
    assert code in (0, 1, 2), code
    assert code != 2 or (heard.err.startswith("error: ") and heard.err.count("\n") == 1), heard.err
    assert sorted(path.name for path in home.iterdir()) == ["folder"]
