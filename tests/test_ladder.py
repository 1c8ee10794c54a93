"""`train all`: the order, the lanes, slices that stop and go on, and what may be shipped."""

import json
import os
import subprocess
import sys
import time

import pytest
from PIL import Image

from gligen_lessons import cli, evaluate, files, ladder, models, shipping, weights

NEEDS = {"vae": (), "clip": (), "ldm": ("vae", "clip"), "gligen": ("ldm",)}
# stands for a training: logs that it ran and with whom, and is finished after so many slices
STUB = """
import json, os, pathlib, sys, time
name, out, share, slices, status = sys.argv[1], pathlib.Path(sys.argv[2]), *sys.argv[3:6]
folder = out / name
with (folder / "log.jsonl").open("a") as log:
    done = len((folder / "log.jsonl").read_text().splitlines()) + 1
    log.write(json.dumps({"step": done, "loss": 1 / done, "share": int(share)}) + "\\n")
(folder / "new.json").write_text(json.dumps({"steps": int(slices)}))
(folder / "new.json").replace(folder / "run.json")       # whole or not there, as `train` does
time.sleep(.1)
print("out of paint" if status != "0" else "fine")
if done == int(slices):
    (out / f"{name}.safetensors").write_bytes(b"")
sys.exit(int(status))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Trainings that take a moment; the list gains (name, share) of each slice."""
    script, seen = tmp_path / "stub.py", []
    script.write_text(STUB)

    def command(name, out, share, minutes, steps, small, slices=2, status=0):
        seen.append((name, share))
        return [sys.executable, script, name, out, str(share), str(slices), str(status)]

    monkeypatch.setattr(ladder, "command", command)
    monkeypatch.setattr(ladder, "LOOK", .05)
    monkeypatch.setattr(ladder, "lanes", lambda: 2)
    return seen


def test_every_model_has_its_place_after_what_it_stands_on():
    assert list(ladder.NEEDS) == weights.names()
    for name, bases in ladder.NEEDS.items():
        assert all(base in ladder.NEEDS for base in bases)
        if base := models.MODELS[name].base:
            assert base in {*bases, *(b for x in bases for b in ladder.NEEDS[x])}
    named = [name for names, _ in ladder.SHIPPED for name in names]
    assert sorted(named) == sorted(ladder.NEEDS), "each model is shipped with exactly one set"


def test_what_is_ready_follows_from_the_files_that_are_there(tmp_path):
    assert ladder.trainable(tmp_path, set(), NEEDS) == ["vae", "clip"]
    assert ladder.trainable(tmp_path, {"vae"}, NEEDS) == ["clip"]
    for name in ("vae", "clip"):
        (tmp_path / f"{name}.safetensors").touch()
    assert ladder.trainable(tmp_path, set(), NEEDS) == ["ldm"]
    assert ladder.trainable(tmp_path, {"clip"}, NEEDS) == [], "clip is written but has not ended"


def test_two_run_side_by_side_and_one_alone_takes_both_lanes(tmp_path, stub, capsys):
    assert ladder.climb(tmp_path, NEEDS, steps=2)
    told = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in told) == sorted(NEEDS), "one line for each model"
    assert all(ladder.finished(name, tmp_path) for name in NEEDS)
    assert {stub[0], stub[1]} == {("vae", 1), ("clip", 1)}, "the first two must start at once"
    assert [entry for entry in stub if entry[0] in ("ldm", "gligen")] == [
        ("ldm", 2), ("ldm", 2), ("gligen", 2), ("gligen", 2)]
    assert len([entry for entry in stub if entry[0] == "vae"]) == 2, "two slices make it whole"


def test_finished_models_are_left_alone(tmp_path, stub):
    (tmp_path / "vae.safetensors").touch()
    ladder.climb(tmp_path, {"vae": (), "clip": ("vae",)}, steps=2)
    assert {name for name, _ in stub} == {"clip"}


def test_hours_end_it_and_the_same_command_goes_on(tmp_path, stub, capsys):
    assert not ladder.climb(tmp_path, NEEDS, hours=0., steps=2)
    assert stub == [] and "Still to train: vae, clip, ldm, gligen" in capsys.readouterr().out


def test_a_training_that_fails_stops_all_and_says_why(tmp_path, stub, monkeypatch):
    right = ladder.command
    monkeypatch.setattr(ladder, "command", lambda name, *rest: right(
        name, *rest, slices=9, status=3 if name == "clip" else 0))
    with pytest.raises(RuntimeError, match="Training clip failed: out of paint"):
        ladder.climb(tmp_path, NEEDS, steps=2)


@pytest.mark.skipif(os.name != "posix", reason="processes are stopped by SIGTERM, of POSIX")
def test_what_runs_is_stopped_when_the_command_is(tmp_path, stub, monkeypatch):
    """Ctrl-C, or any error, must leave no training behind that writes on unseen."""
    started = []
    monkeypatch.setattr(ladder, "command", lambda name, *rest: [
        sys.executable, "-c", "import time; time.sleep(60)"])
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen",
                        lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    calls = iter([None, KeyboardInterrupt])

    def sleep(seconds):
        if (told := next(calls)) is not None:
            raise told

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        ladder.climb(tmp_path, NEEDS)
    assert len(started) == 2 and all(process.poll() is not None for process in started)


@pytest.mark.parametrize("new, old, name, worse", [
    (.9, .5, "found", False), (.5, .9, "found", True), (.895, .9, "found", False),
    (2., 1., "-frechet", True), (1., 2., "-frechet", False), (None, .5, "found", True),
    (.5, None, "found", False), (float("nan"), .5, "found", True),
    (float("-inf"), 2., "-frechet", True), (float("nan"), None, "found", True)])
def test_what_counts_as_worse(new, old, name, worse):
    assert shipping.is_worse(new, old, name) is worse


def test_only_what_is_not_worse_is_shipped(tmp_path, monkeypatch, capsys):
    """The pixel models got better, the detector worse; the rest was never measured before."""
    out, old, target = tmp_path / "runs", tmp_path / "old", tmp_path / "weights"
    for folder in (out / "report", old, target):
        folder.mkdir(parents=True)
    for name in ladder.NEEDS:
        for suffix in (".safetensors", ".json", ".jsonl"):
            (out / f"{name}{suffix}").write_text("new")
            (target / f"{name}{suffix}").write_text("old")
    measured = {section: {} for section in evaluate.SECTIONS}
    for _, figures in ladder.SHIPPED:
        for section, name in figures:
            measured[section][name.lstrip("-")] = .5
    before = {"ddpm": {"frechet": .9}, "detr": {"AP50": .9}}
    (old / "report.json").write_text(json.dumps(before))
    monkeypatch.setattr(evaluate, "main", lambda words: (
        out / "report" / "report.json").write_text(json.dumps(measured)))
    monkeypatch.setenv(weights.OWN, "")
    shipped = ladder.ship_all(out, old, target)
    assert "worse in detr: AP50: detr-backbone, detr" in capsys.readouterr().out
    assert set(ladder.NEEDS) - set(shipped) == {"detr", "detr-backbone"}
    assert (target / "detr.safetensors").read_text() == "old"
    assert (target / "vae.jsonl").read_text() == "new"


def test_a_real_slice_trains_stops_and_goes_on(tmp_path, monkeypatch):
    """The command that is really run, with two processes where only one model is left."""
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ladder, "lanes", lambda: 2)
    monkeypatch.setattr(ladder, "LOOK", .2)
    ladder.climb(tmp_path / "runs", {"noisy-classifier": ()}, steps=4)
    card = weights.files.card(tmp_path / "runs" / "noisy-classifier.safetensors")
    assert card["steps"] == 4 and card["training"]["cores"] >= 1
    assert json.loads((tmp_path / "runs" / "noisy-classifier" / "run.json").read_text()) == {
        "steps": 4}


def test_the_afternoon_from_nothing_to_grounded_pictures(tmp_path, monkeypatch, capsys):
    """`train small` with trainings of two steps: every stage reads the one before it."""
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(weights.OWN, "")
    monkeypatch.setattr(ladder, "LOOK", .2)
    out = tmp_path / "small"
    shipped = {name: weights.fingerprint(name) for name in ladder.SMALL}
    assert ladder.train_small(out, steps=2) == 0
    told = capsys.readouterr().out
    assert "boxes right, of" in told and f"--weights {out}" in told
    assert Image.open(out / "sheet.png").size == (8 * 96, 4 * 96)
    report = json.loads((out / "report.json").read_text())
    assert report["renders"] > .8 and set(report) >= {"caption and box", "box alone", "boxes"}
    for name in ladder.SMALL:
        assert weights.path(name) == out / f"{name}.safetensors"
        assert "--small --out" in weights.files.card(weights.path(name))["command"]
        assert weights.fingerprint(name) != shipped[name]
        assert weights.path(name, weights.FOLDER).exists()
    monkeypatch.setenv(weights.OWN, "")
    assert {name: weights.fingerprint(name) for name in ladder.SMALL} == shipped, "left alone"
    words = ["generate", "a red car", "--box", "a red car:.2,.4,.8,.9", "--steps", "2",
             "--weights", str(out), "--out", str(tmp_path / "car.png")]
    assert cli.main(words) == 0 and Image.open(tmp_path / "car.png").size == (64, 64)
    assert cli.main(["export", "gligen", str(tmp_path / "exported"), "--weights", str(out)]) == 0
    made = json.loads((tmp_path / "exported" / "unet" / "config.json").read_text())
    assert made["sample_size"] == 8 and made["attention_type"] == "gated"
    assert cli.main(["generate", "x", "--weights", str(tmp_path), "--out", "x.png"]) == 2
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "ddpm", "--small", "--out", str(tmp_path / "d")])
    assert end.value.code == 2


def test_one_model_is_shipped_by_its_own_figure(tmp_path, capsys):
    """A better classifier goes in, a worse one only by force, and nobody's log gets lost."""
    name, source, target = "noisy-classifier", tmp_path / "runs", tmp_path / "weights"
    shipped = weights.path(name)
    for folder, figure in ((source, .4), (target, .5)):
        folder.mkdir()
        card = files.card(shipped) | {"metrics": {"category, t = 0": figure}}
        files.save(files.load(shipped), folder / shipped.name, card)
        (folder / f"{name}.jsonl").write_text(str(figure))
    with pytest.raises(ValueError, match="got worse .category, t = 0: 0.5 before, 0.4 now"):
        shipping.ship(name, source, target)
    assert (target / f"{name}.jsonl").read_text() == "0.5"
    shipping.ship(name, source, target, force=True)
    assert (target / f"{name}.jsonl").read_text() == "0.4"
    assert files.card(target / shipped.name)["metrics"] == {"category, t = 0": .4}
    with pytest.raises(FileNotFoundError, match="python course.py train vae"):
        shipping.ship("vae", source, target)


def test_a_line_that_is_half_written_stops_no_ladder(tmp_path):
    folder = tmp_path / "vae"
    folder.mkdir()
    (folder / "log.jsonl").write_text('{"step": 5, "loss": 0.5}\n{"step": 10, "loss"')
    one = ladder.Slice("vae", None, 1, ladder.tqdm(disable=True))
    ladder.show_progress(one, tmp_path)
    assert one.bar.n == 5
