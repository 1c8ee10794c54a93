"""The command line: what it forwards, what doctor sees, and errors in one line."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gligen_lessons
from gligen_lessons import cli, experiments, files, grounded, weights
from gligen_lessons.models import Model

ROOT = Path(__file__).resolve().parent.parent


def told(capsys) -> str:
    """What went to stderr, which must be one line that begins with error:"""
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text


@pytest.fixture
def module(monkeypatch):
    """Puts a stand-in with the given functions in the place of a library module."""
    def put(name, **functions):
        fake = types.ModuleType(f"gligen_lessons.{name}")
        vars(fake).update(functions)
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
        monkeypatch.setattr(gligen_lessons, name, fake, raising=False)
    return put


# ------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize("words, says", [
    (["bogus"], "'bogus'"), ([], "COMMAND"), (["world"], "--count"),
    (["world", "--count", "0", "--out", "x"], "must be a whole number of at least 1"),
    (["world", "--count", "two", "--out", "x"], "two"), (["doctor", "--loud"], "--loud"),
])
def test_wrong_words_are_refused_in_one_line(words, says, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2 and says in told(capsys)


@pytest.mark.parametrize("error, says", [
    (ValueError("bad\n  number"), "error: bad number\n"),
    (FileNotFoundError(2, "No such file", "a.txt"), "error: [Errno 2] No such file: 'a.txt'\n"),
    (RuntimeError("CUDA out of memory"), "error: RuntimeError: CUDA out of memory\n"),
    (KeyError("x"), "error: KeyError: 'x'\n"), (MemoryError(), "error: MemoryError: "),
])
def test_whatever_goes_wrong_is_one_line_and_debug_shows_the_rest(error, says, capsys, module):
    def fail(words):
        raise error
    module("train", main=fail)
    assert cli.main(["train", "x"]) == 2
    assert told(capsys).startswith(says)
    with pytest.raises(type(error)):
        cli.main(["train", "x", "--debug"])


def test_draw_paints_the_same_picture_from_the_same_seed(tmp_path, capsys):
    """As typed: one caption, then two pictures of which the first is the same."""
    wish = ["generate", "a red car on the snow at night", "--steps", "2"]
    assert cli.main([*wish, "--out", str(tmp_path / "one.png"), "--seed", "3"]) == 0
    heard = capsys.readouterr()
    assert heard.out == f"wrote {tmp_path / 'one.png'}\n" and "painting" in heard.err
    assert cli.main([*wish, "--out", str(tmp_path / "two.png"), "--seed", "3", "--count", "2"]) == 0
    pictures = [np.array(Image.open(tmp_path / f"{name}.png"), dtype=int)
                for name in ("one", "two-1", "two-2")]
    assert pictures[0].shape == (128, 128, 3) and pictures[0].std() > 5
    assert abs(pictures[0] - pictures[1]).max() <= 1       # a batch of two rounds differently
    assert abs(pictures[0] - pictures[2]).max() > 10


def test_draw_takes_an_empty_caption_and_notes_unknown_words(tmp_path, capsys):
    out = str(tmp_path / "x.jpg")
    assert cli.main(["generate", "", "--out", out, "--steps", "1"]) == 0
    assert cli.main(["generate", "a kite", "--out", out, "--steps", "1", "--scale", "1"]) == 0
    assert "note: 'kite' is no word of the world; it is read in pieces: k i te" in \
        capsys.readouterr().out


@pytest.mark.parametrize("words, says", [
    (["--out", "x.gif"], "x.gif must end in .png"), ([], "--out"),
    (["--out", "x.png", "--steps", "0"], "must be a whole number of at least 1"),
    (["--out", "x.png", "--steps", "1000"], "must lie in 1..999, got 1000"),
    (["--out", "x.png", "--scale", "-1"], "at least 0"),
    (["--out", "x.png", "--scale", "nan"], "finite"),
    (["--out", "x.png", "--seed", "1.5"], "whole number of at least 0, got '1.5'"),
    (["--out", "x.png", "--seed", "-1"], "whole number of at least 0, got '-1'"),
    (["--out", "x.png", "--tau", "0.3"], "it needs --box"),
])
def test_draw_refuses_what_it_cannot_paint(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    try:
        assert cli.main(["generate", "a red car", *words]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert says in told(capsys) and not any(tmp_path.iterdir())


CAR = "a red car:0.1,0.5,0.5,0.8"


def drawn(path: Path) -> np.ndarray:
    return np.array(Image.open(path), dtype=int)


def test_draw_with_boxes_paints_what_the_library_paints(tmp_path, capsys):
    """As typed; tau 0 hears no box, and two pictures come from two seeds."""
    wish = ["generate", "a red car on the snow", "--box", CAR, "--box", "a blue cat:.6,.2,.9,.8"]
    told = ["--steps", "2", "--seed", "3"]
    assert cli.main([*wish, *told, "--out", str(tmp_path / "one.png")]) == 0
    assert cli.main([*wish, *told, "--out", str(tmp_path / "two.png"), "--count", "2"]) == 0
    assert capsys.readouterr().out.count("wrote ") == 3
    parts = weights.text_to_image(unet=weights.load("gligen"))
    x = grounded.generate_grounded(parts, ["a red car on the snow"], [["a red car", "a blue cat"]],
                                   [[[.1, .5, .5, .8], [.6, .2, .9, .8]]], seed=3, steps=2)
    want = ((x[0].movedim(0, -1) + 1) / 2 * 255).round().numpy()
    assert abs(drawn(tmp_path / "one.png") - want).max() <= 1
    assert abs(drawn(tmp_path / "two-1.png") - want).max() <= 1
    assert abs(drawn(tmp_path / "two-2.png") - want).max() > 10


def test_at_tau_0_boxes_are_not_heard(tmp_path):
    for name, more in (("without", []), ("zero", ["--box", CAR, "--tau", "0"]),
                       ("all", ["--box", CAR])):
        out = str(tmp_path / f"{name}.png")
        assert cli.main(["generate", "a red car", "--steps", "4", "--out", out, *more]) == 0
    without, zero, heard = (drawn(tmp_path / f"{name}.png") for name in ("without", "zero", "all"))
    assert abs(without - zero).max() <= 1 < abs(without - heard).max()


def test_draw_notes_unknown_words_of_phrases_and_boxes_too_many(tmp_path, capsys):
    wish = ["generate", "", "--out", str(tmp_path / "x.png"), "--steps", "1", "--scale", "1"]
    many = ["--box", "a kite: the sky:0,0,.5,.5"] + 30 * ["--box", CAR]
    assert cli.main([*wish, *many]) == 0
    out = capsys.readouterr().out
    assert "note: 'kite' is no word of the world; it is read in pieces: k i te" in out
    assert "note: Picture 0 has 31 boxes, only 30 fit; dropped: a red car." in out


@pytest.mark.parametrize("box, says", [
    ("a red car", "--box 'a red car' has no colon: write"),
    ("a red car:0.1,0.5,0.5", "needs four numbers after its last colon"),
    ("a red car:0.1,0.5,0.5,0.8,0.9", "needs four numbers"), ("a red car:", "needs four numbers"),
    ("a red car:0.1,0.5,0.5,wide", "needs four numbers"),
    (" :0.1,0.5,0.5,0.8", "has no phrase before its colon"),
    ("0.1,0.5,0.5,0.8", "has no colon"),
    ("a car:0.1,nan,0.5,0.8", "--box 'a car:0.1,nan,0.5,0.8': boxes hold NaN"),
    ("a car:0.1,0.5,inf,0.8", "hold NaN or infinity"),
    ("a car:0.5,0.5,0.1,0.8", "have no width or height"),
    ("a car:0.1,0.8,0.5,0.5", "have no width or height"),
    ("a car:0.1,0.5,0.1,0.8", "have no width or height"),
    ("a car:0.1,0.5,1.2,0.8", "must lie in 0..1"), ("a car:-0.1,0.5,0.5,0.8", "must lie in 0..1"),
    ("a car:12,64,64,100", "look like pixels"),
])
def test_a_box_that_cannot_be_is_named(tmp_path, capsys, box, says, monkeypatch):
    monkeypatch.setattr(weights, "load", None)                 # seen before anything is loaded
    wish = ["generate", "x", "--out", str(tmp_path / "x.png")]
    assert cli.main([*wish, "--box", CAR, "--box", box]) == 2
    heard = told(capsys)
    assert says in heard and repr(box) in heard and not any(tmp_path.iterdir())


@pytest.mark.parametrize("words, says", [
    (["--tau", "1.5"], "tau must lie in 0..1, the part of steps that is grounded; got 1.5"),
    (["--tau", "-0.1"], "tau must lie in 0..1"), (["--tau", "nan"], "tau must lie in 0..1"),
    (["--tau", "much"], "invalid float value: 'much'"),
    (["--steps", "1000"], "must lie in 1..999, got 1000"), (["--scale", "nan"], "finite")])
def test_draw_with_boxes_refuses_what_it_cannot_paint(tmp_path, capsys, words, says):
    wish = ["generate", "x", "--box", CAR, "--out", str(tmp_path / "x.png")]
    try:
        assert cli.main([*wish, *words]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert says in told(capsys) and not any(tmp_path.iterdir())


def test_boxes_need_the_grounded_weights(tmp_path, capsys, monkeypatch):
    wish = ["generate", "x", "--box", CAR, "--out", str(tmp_path / "x.png")]
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert cli.main(wish) == 2
    heard = told(capsys)
    assert "gligen.safetensors" in heard and "python course.py train gligen" in heard
    assert not any(tmp_path.iterdir())


def test_as_a_program_and_without_loading_torch():
    done = subprocess.run([sys.executable, "-m", "gligen_lessons.cli", "slides", "99"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: There is no lesson '99'")
    assert done.stderr.count("\n") == 1
    check = "import sys, gligen_lessons.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout == "False\n"


# --------------------------------------------------------------------------------- forwarding

@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_train_and_evaluate_get_their_words_untouched(name, module):
    got = []
    module(name, main=lambda words: got.append(words))
    assert cli.main([name, "pixel", "--steps", "5", "--help", "--resume"]) == 0
    module(name, main=lambda words: 3)
    assert cli.main([name]) == 3
    assert got == [["pixel", "--steps", "5", "--help", "--resume"]]


def test_export_names_model_and_folder(module, tmp_path, capsys):
    got = []
    module("weights", export=lambda *words: got.append(words))
    assert cli.main(["export", "pixel", str(tmp_path)]) == 0
    assert got == [("pixel", tmp_path)] and str(tmp_path) in capsys.readouterr().out


def test_world_writes_coco_that_pycocotools_reads(tmp_path, capsys):
    from pycocotools.coco import COCO

    out = tmp_path / "coco"
    words = ["world", "--count", "3", "--out", str(out), "--split", "test", "--size", "64"]
    assert cli.main(words) == 0
    assert str(out) in capsys.readouterr().out
    (path,) = out.rglob("instances*.json")
    read = COCO(path)
    assert len(read.getImgIds()) == 3
    assert {image["width"] for image in read.loadImgs(read.getImgIds())} == {64}
    assert cli.main(["world", "--count", "1", "--out", str(out / "b"), "--split", "bogus"]) == 2
    assert "no split 'bogus'" in told(capsys)


def test_student_is_made_once_and_said(tmp_path, monkeypatch, capsys):
    import nbformat

    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    (tmp_path / "notebooks").mkdir()
    nbformat.write(source, tmp_path / "notebooks" / "00_x.ipynb")
    monkeypatch.setattr(cli, "NOTEBOOKS", tmp_path / "notebooks")
    words = ["student", "--out", str(tmp_path / "mine")]
    assert cli.main(words) == 0
    assert f"new: {tmp_path / 'mine' / '00_x.ipynb'}" in capsys.readouterr().out
    assert cli.main(words) == 0
    assert "none is new" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- doctor

def test_a_gpu_that_torch_cannot_use_is_reported():
    assert cli.gpu_advice(False, "2.13.0+cpu", None, False) is None
    assert cli.gpu_advice(True, "2.13.0+cu130", "13.0", True) is None
    built_without = cli.gpu_advice(True, "2.13.0+cpu", None, False)
    assert "without CUDA" in built_without and '--pip "--extra-index-url' in built_without
    too_new = cli.gpu_advice(True, "2.13.0+cu130", "13.0", False)
    assert "CUDA 13.0" in too_new and "an older CUDA" in too_new


def test_versions_that_were_not_tested_are_named(tmp_path):
    here = torch.__version__.partition("+")[0]
    (tmp_path / "c.txt").write_text(f"# tested\ntorch=={here}\nnumpy==0.1\nnot-installed==1.0\n")
    (numpy,) = cli.untested(tmp_path / "c.txt")
    assert numpy.startswith("numpy ") and numpy.endswith("(tested 0.1)")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder with the weights of one small model, taken for those that the course ships."""
    config = {"in_features": 3, "out_features": 2}
    card = files.make_card("tiny", "train tiny", 1, "none", "cpu", 0.0, {}, config)
    files.save(torch.nn.Linear(**config).state_dict(), tmp_path / "tiny.safetensors", card)
    monkeypatch.setattr(weights, "MODELS", {"tiny": Model(
        build=torch.nn.Linear, recipe="tiny", metric="none")})
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setattr(cli, "gpu_check", lambda: None)
    return tmp_path


def test_doctor_finds_a_whole_machine(shipped, capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 are whole" in out and torch.__version__ in out
    assert out.endswith("All is well.\n") and "!" not in out


def problems(capsys) -> list[str]:
    out = capsys.readouterr().out
    return [line for line in out.splitlines() if line.startswith("! ")]


def test_doctor_counts_what_stands_on_another_model(shipped, capsys, monkeypatch):
    """A file that holds only what it adds is opened too, and damage to it is found."""
    def grow(model):
        model.gate = torch.nn.Parameter(torch.zeros(2))
        return model

    monkeypatch.setitem(weights.MODELS, "grown", Model(
        build=grow, recipe="tiny", base="tiny", added=lambda model: ["gate"], metric="none"))
    card = files.make_card("grown", "train grown", 1, "none", "cpu", 0., {}, {
        "_on": weights.fingerprint("tiny")})
    files.save({"gate": torch.ones(2)}, shipped / "grown.safetensors", card)
    assert cli.main(["doctor"]) == 0 and "2 of 2 are whole" in capsys.readouterr().out
    files.save({"gate": torch.ones(3)}, shipped / "grown.safetensors", card)
    assert cli.main(["doctor"]) == 1
    (line,) = problems(capsys)
    assert "gate is (3,) in the file and (2,) in the model" in line


def test_doctor_finds_damaged_weights_and_a_full_disk(shipped, capsys, monkeypatch):
    path = shipped / "tiny.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    usage = cli.shutil.disk_usage(shipped)._replace(free=10**9)
    monkeypatch.setattr(cli.shutil, "disk_usage", lambda _: usage)
    assert cli.main(["doctor"]) == 1
    weight, disk = problems(capsys)
    assert "tiny.safetensors" in weight and "python course.py train tiny" in weight
    assert "Only 1.0 GB" in disk


def test_doctor_finds_what_is_missing_or_of_another_shape(shipped, capsys):
    card = files.card(shipped / "tiny.safetensors") | {"config": {"in_features": 9,
                                                                 "out_features": 2}}
    files.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)},
               shipped / "tiny.safetensors", card)
    assert cli.main(["doctor"]) == 1
    (line,) = problems(capsys)
    assert "weight is (2, 3) in the file and (2, 9) in the model" in line
    for path in shipped.iterdir():
        path.unlink()
    assert cli.main(["doctor"]) == 1
    (line,) = problems(capsys)
    assert "missing" in line and "python course.py train tiny" in line


@pytest.mark.parametrize("words", [
    ["world", "--bogus"], ["generate", "x", "--bogus"], ["train", "ddpm", "--bogus"], ["train"],
    ["train", "ddpm", "--steps", "0"], ["train", "ddpm", "--minutes", "-1"],
    ["train", "all", "--hours", "soon"], ["ship", "nothing"], ["evaluate", "--count", "0"],
    ["evaluate", "--only", "nothing"], ["experiment", "nothing"],
    ["experiment", "detector-grounding", "--bogus"],
    ["experiment", "detector-grounding", "--seed", "-1"],
    ["experiment", "ablations", "--steps", "x"],
    ["experiment", "optimizers", "--batch", "0"], ["slides"], ["student", "--bogus"]])
def test_wrong_words_are_answered_in_one_line_with_status_2(words, capsys):
    """Before anything is loaded, drawn or written."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith("error: ") and told.endswith("--help)\n") and told.count("\n") == 1


@pytest.mark.parametrize("words, says", [
    (["generate", "a", "--count", "1000000000"], "--count: it must be at most 1,000"),
    (["generate", "a", "--seed", str(2 ** 32)], "--seed: it must be at most 4,294,967,295"),
    (["generate", "a", "--scale", "inf"], "finite number of at least 0"),
    (["generate", "a", "--out", "folder"], "'folder' is a folder; name a file"),
    (["generate", "a", "--out", "file/a.png"], "'file' cannot be written: look at"),
    (["generate", "caf\udce9"], r"the text 'caf\\xe9' is not UTF-8"),
    (["generate", "a", "--box", "caf\udce9:0,0,1,1"], "is not UTF-8"),
    (["world", "--count", "1", "--out", "file"], "'file' cannot be written"),
    (["export", "ldm", "file/x"], "'file/x' cannot be written"),
    (["slides", "01", "--out", "folder"], "is a folder; name a file"),
    (["evaluate", "--count", "1"], "a whole number of at least 2"),
    (["experiment", "detector-grounding", "--split", "val2017"],
     "--split belongs to a folder of COCO files"),
    (["experiment", "detector-grounding", "--out", "folder"], "is a folder; name a file"),
    (["experiment", "detector-grounding", "--scale", "nan"], "finite number of at least 0"),
    (["experiment", "ablations", "--count", "1"], "a whole number of at least 2"),
    (["experiment", "optimizers", "--batch", "1000000"], "at most 65,536")])
def test_every_value_is_looked_at_before_work_begins(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(weights, "load", None)
    out = ["--out", "x.png"] if words[0] == "generate" and "--out" not in words else []
    with pytest.raises(SystemExit) as end:
        cli.main([*words, *out])
    heard = capsys.readouterr().err
    assert end.value.code == 2 and says in heard and heard.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("encoding", ["ascii", "cp949", "cp1252", "utf-8"])
def test_a_note_never_stops_a_command(tmp_path, encoding):
    """Consoles lack letters; what they lack is shown as a number."""
    code = ("from gligen_lessons import cli, generate\n"
            "cli.run = lambda words: print('note: 사과 café') or 0\n"
            "import sys; sys.exit(cli.main([]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env={
        **os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("note: ")


def test_an_experiment_never_writes_over_a_shipped_result(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    assert experiments.result_file("detector-grounding") == tmp_path / "detector_grounding.json"
    (tmp_path / "detector_grounding.json").write_text("{}")
    assert experiments.result_file("detector-grounding") == Path("runs") / "detector_grounding.json"
