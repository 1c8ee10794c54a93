"""Training, shipping and the report, used as a maintainer uses them."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from gligen_lessons import ddim, evaluate, files, recipes, shipping, train, weights
from gligen_lessons.datasets.latent_scenes import cached_latents
from gligen_lessons.eval.pixels import sample_pixels
from gligen_lessons.gligen import gate_names
from gligen_lessons.recipes.helpers import bare
from gligen_lessons.recipes.vae import piece_corners
from gligen_lessons.schedule import Schedule
from gligen_lessons.world.cache import renders

BLOCKED = ("diffusers", "transformers", "matplotlib", "IPython", "jupyterlab", "ipywidgets",
           "pycocotools", "nbformat")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path / "cache"))


def test_training_needs_neither_jupyter_nor_matplotlib_nor_diffusers(tmp_path):
    """The command runs where only torch and the small libraries are installed."""
    code = (f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
            "from gligen_lessons.train import main\n"
            f"if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n")
    script = tmp_path / "go.py"
    script.write_text(code)
    run = subprocess.run([sys.executable, str(script), "referee-crop", "--steps", "2", "--out",
                          str(tmp_path / "out")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    card = files.card(tmp_path / "out" / "referee-crop.safetensors")
    assert card["steps"] == 2
    assert card["command"].endswith("train referee-crop --steps 2")
    assert weights.load("referee-crop", folder=tmp_path / "out").training is False


def test_the_same_command_gives_the_same_weights_in_another_process(tmp_path):
    """Nothing that the first weights or the data depend on may come from outside the recipe."""
    made = []
    for name in ("one", "two"):
        words = ["-m", "gligen_lessons.train", "noisy-classifier", "--steps", "2", "--batch", "4"]
        subprocess.run([sys.executable, *words, "--out", str(tmp_path / name)], check=True,
                       capture_output=True, env=os.environ | {"PYTHONHASHSEED": str(len(made))})
        made.append(files.card(tmp_path / name / "noisy-classifier.safetensors")["sha256"])
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["vae", "clip", "ldm", "gligen", "referee-scene", "ddpm"])
def test_first_weights_come_from_a_seed(name):
    """Whatever was drawn before: each recipe begins with the same weights."""
    torch.manual_seed(5)
    one = recipes.get(name, 1, batch=4).model.state_dict()
    torch.randn(3)
    two = recipes.get(name, 1, batch=4).model.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_second_training_is_kept_out_of_a_folder(tmp_path):
    with train.alone(tmp_path / "noisy-classifier"), \
            pytest.raises(OSError, match="Another training writes to .*noisy-classifier"):
        train.train("noisy-classifier", 1, out=tmp_path, batch=4)
    assert train.train("noisy-classifier", 1, out=tmp_path, batch=4)


def test_a_new_training_never_costs_an_old_one(tmp_path):
    """Without a word for it, what lies in a folder stays; --restart keeps it beside."""
    name, shipped = "noisy-classifier", weights.path("noisy-classifier").read_bytes()
    assert train.train(name, 3, minutes=0., out=tmp_path, batch=4) is None
    before = (tmp_path / name / "checkpoint" / "state.pt").read_bytes()
    with pytest.raises(FileExistsError, match="--resume, or begin again with --restart"):
        train.train(name, 3, out=tmp_path, batch=4)
    assert (tmp_path / name / "checkpoint" / "state.pt").read_bytes() == before
    assert train.train(name, 2, out=tmp_path, batch=4, restart=True)
    assert (tmp_path / f"{name}.bak" / "checkpoint" / "state.pt").read_bytes() == before
    assert weights.path(name).read_bytes() == shipped


def test_nothing_that_was_trained_is_ever_overwritten(tmp_path, monkeypatch):
    """Neither an older training that was kept, nor weights, nor a checkpoint of a cut-off save."""
    name, folder = "noisy-classifier", tmp_path / "noisy-classifier"
    made = train.train(name, 1, out=tmp_path, batch=4)
    first = made.read_bytes()
    train.train(name, 2, minutes=0., out=tmp_path, batch=4, restart=True)
    (folder / "checkpoint").rename(folder / "checkpoint.old")
    with pytest.raises(FileExistsError, match=f"keeps it in {name}.bak2"):
        train.train(name, 2, out=tmp_path, batch=4)
    assert train.train(name, 2, out=tmp_path, batch=4, restart=True).read_bytes() != first
    assert (tmp_path / f"{name}.bak" / made.name).read_bytes() == first
    kept = torch.load(tmp_path / f"{name}.bak2" / "checkpoint.old" / "state.pt", weights_only=True)
    assert kept["config"]["steps"] == 2
    shutil.rmtree(folder)
    with pytest.raises(FileExistsError):                  # weights, and no checkpoint to go on from
        train.train(name, 2, out=tmp_path, batch=4, resume=True)


def test_a_running_training_is_not_moved_away(tmp_path):
    name = "noisy-classifier"
    train.train(name, 3, minutes=0., out=tmp_path, batch=4)
    with train.alone(tmp_path / name), pytest.raises(OSError, match="Another training writes to"):
        train.train(name, 3, out=tmp_path, batch=4, restart=True)
    assert files.has_checkpoint(tmp_path / name) and not (tmp_path / f"{name}.bak").exists()


def test_no_training_writes_among_the_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="python course.py ship noisy-classifier"):
        train.train("noisy-classifier", 1, out=tmp_path / "x" / "..", batch=4)
    assert not any(tmp_path.iterdir())


def test_a_finished_training_is_shipped_on_request_and_only_if_it_is_no_worse(
        tmp_path, monkeypatch, capsys):
    name, target = "noisy-classifier", tmp_path / "course"
    monkeypatch.setattr(train, "ship", partial(shipping.ship, target=target))
    words = [name, "--steps", "1", "--batch", "4", "--out", str(tmp_path / "runs"), "--ship"]
    assert train.main(words) == 0
    assert "Shipped noisy-classifier; category, t = 0: None before" in capsys.readouterr().out
    first = weights.path(name, target).read_bytes()
    monkeypatch.setattr(shipping, "is_worse", lambda *figures: True)
    with pytest.raises(ValueError, match="got worse"):
        train.main([*words, "--restart"])
    assert weights.path(name, target).read_bytes() == first
    assert weights.path(name, tmp_path / "runs").exists()


@pytest.mark.parametrize("words, says", [
    (["gan"], "there is no model 'gan'; choose from vae"),
    (["ddpm", "--hours", "1"], "--hours does not go with ddpm"),
    (["all", "--batch", "3"], "--batch does not go with all"),
    (["small", "--minutes", "3"], "--minutes does not go with small"),
    (["all", "--restart"], "--restart does not go with all"),
    (["all", "--ship"], "--ship does not go with all"),
    (["vae", "--small", "--out", "x", "--ship"], "one of --small is your own"),
    (["ddpm", "--resume", "--restart"], "choose one"),
    (["detr", "--small", "--out", "x"], "--small trains vae, clip, ldm, gligen"),
    (["ddpm", "--batch", "1000000000000"], "must be at most 65,536"),
    (["ddpm", "--steps", "1" + "0" * 30], "must be at most 1,000,000,000"),
    (["ddpm", "--out", "taken"], "'taken' cannot be written: look at"),
])
def test_words_are_looked_at_before_anything_is_drawn(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setattr(train, "train", None)
    with pytest.raises(SystemExit) as end:
        train.main(words)
    told = capsys.readouterr().err
    assert end.value.code == 2 and says in told and told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_report_of_fewer_pictures_is_not_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "SECTIONS", {"vae": (lambda count: {"psnr": float(count)}, 7)})
    monkeypatch.setattr(evaluate, "FOLDER", tmp_path / "shipped")
    assert evaluate.main(["--count", "3"]) == 0
    assert not (tmp_path / "shipped").exists()
    assert evaluate.shipped("vae", tmp_path / "runs" / "report") == {"psnr": 3.}
    assert evaluate.main([]) == 0 and evaluate.shipped("vae", tmp_path / "shipped")["psnr"] == 7


def test_minutes_stop_early_and_resume_finishes(tmp_path, capsys):
    out = tmp_path / "out"
    assert train.train("referee-crop", 3, minutes=0., out=out) is None
    assert "--resume" in capsys.readouterr().out
    assert not weights.path("referee-crop", out).exists()
    made = train.train("referee-crop", 3, out=out, resume=True)
    steps = [json.loads(line)["step"] for line in made.with_suffix(".jsonl").open()]
    assert steps[-1] == 3


def test_the_pixel_recipe_lowers_its_loss_and_logs_samples(tmp_path):
    made = train.train("ddpm", 12, out=tmp_path)
    log = weights.log("ddpm", tmp_path)
    assert [line["step"] for line in log if "milestone" in line] == [1, 3, 6, 12]
    model = weights.load("ddpm", folder=tmp_path)
    recipe = recipes.get("ddpm", 12)
    batch = recipe.sample_batch(1000)
    with torch.no_grad():
        trained, fresh = recipe.loss(model, *batch), recipe.loss(recipe.model, *batch)
    assert trained < .9 * fresh
    assert set(files.card(made)["metrics"]) >= {"kinds", "samples"}


def test_what_is_drawn_depends_on_the_step_alone():
    recipe = recipes.get("ddpm", 4)
    recipe.sample_batch(0)
    later = recipe.sample_batch(3)
    again = recipes.get("ddpm", 4).sample_batch(3)
    for a, b in zip(later, again, strict=True):
        assert torch.equal(a, b)


def test_unknown_names_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="choose from vae"):
        recipes.get("gan")
    with pytest.raises(ValueError, match="the course ships"):
        weights.load("gan")
    with pytest.raises(FileNotFoundError, match="python course.py train ddpm"):
        weights.load("ddpm", folder=tmp_path)


@pytest.mark.parametrize("name, metric", [
    ("vae", "psnr"), ("clip", "retrieval"), ("noisy-classifier", "colour, t = 0"),
    ("labelled", "obeyed, real"), ("ldm", "named, found, renders"),
    ("detr-backbone", "places with a thing"), ("detr", "AP50"),
    ("gligen", "boxes right, grounded"), ("gligen-inpaint", "right")])
def test_a_recipe_of_lessons_3_to_10_trains_stops_and_goes_on(tmp_path, name, metric):
    """As on a GPU lent for minutes: `--minutes` ends a run, `--resume` brings it to its end."""
    assert train.train(name, 2, minutes=0., out=tmp_path, batch=4) is None
    made = train.train(name, 2, out=tmp_path, resume=True, batch=4)
    card = files.card(made)
    assert card["command"] == f"python course.py train {name} --steps 2 --batch 4"
    assert metric in card["metrics"]
    model, untrained = weights.load(name, folder=tmp_path), bare(
        recipes.get(name, 2, batch=4).model)
    assert model.state_dict().keys() == untrained.state_dict().keys()
    assert any(not torch.equal(p.half(), untrained.get_parameter(n).half())
               for n, p in model.named_parameters())


def test_gates_are_shipped_alone_and_only_for_their_own_base(tmp_path):
    made = train.train("gligen", 1, out=tmp_path, batch=4)
    assert set(files.load(made, "")) == set(gate_names(weights.load("gligen", folder=tmp_path)))
    card = made.with_suffix(".json")
    card.write_text(card.read_text().replace(weights.fingerprint("ldm"), "another"))
    with pytest.raises(ValueError, match="trained on other weights of 'ldm'"):
        weights.load("gligen", folder=tmp_path)


def test_a_trained_autoencoder_knows_its_scale(tmp_path):
    made = train.train("vae", 1, out=tmp_path, batch=4)
    model = weights.load("vae", folder=tmp_path)
    assert files.card(made)["config"]["scaling_factor"] == model.scaling_factor != .18215


def test_pieces_lie_in_the_picture_and_mostly_around_things():
    boxes = torch.zeros(4000, 6, 4)
    boxes[:2000, 0] = torch.tensor([.70, .60, .90, .80])         # middle (102, 90) of 128 px
    corners = piece_corners(boxes, 64, torch.Generator().manual_seed(0))
    assert corners.dtype == torch.long and corners.min() == 0 and corners.max() == 64
    holds = (corners <= torch.tensor([102, 90])) & (corners + 64 > torch.tensor([102, 90]))
    with_thing, without = holds.all(1).float().split(2000)
    assert with_thing.mean() > .75 and without.mean() < .55      # anywhere: 26/64 of them and more
    whole = piece_corners(boxes, 0, torch.Generator().manual_seed(0))
    assert int(whole.abs().max()) == 0


def test_latents_are_made_once_for_each_autoencoder(tmp_path, monkeypatch):
    drawn = renders("train", 5)
    first = cached_latents(drawn)
    monkeypatch.setattr(weights, "load", None)                   # a second time needs no network
    assert torch.equal(first, cached_latents(drawn)) and first.shape == (5, 4, 16, 16)
    assert .3 < float(first.float().std()) < 3


def test_every_shipped_model_has_weights_card_and_log():
    for name in weights.names():
        card = files.card(weights.path(name))
        assert card["command"].startswith(f"python course.py train {name}")
        assert card["metrics"] and card["minutes"] > 0
        assert weights.log(name)[-1]["step"] == card["steps"]
        assert weights.path(name).stat().st_size < 30e6


def test_the_report_is_written_and_read_back(tmp_path):
    assert evaluate.main(["--only", "referee", "--count", "20", "--out", str(tmp_path)]) == 0
    assert evaluate.shipped("referee", tmp_path)["crop"]["boxes"] > 20
    assert "| crop, category, clean |" in (tmp_path / "report.md").read_text("utf-8")
    with pytest.raises(FileNotFoundError, match="evaluate --only ddim"):
        evaluate.shipped("ddim", tmp_path)


def test_the_report_says_whether_a_bar_holds():
    held = {"category": .98, "category, low": .97, "category, high": .99, "category, n": 400,
            "category, novel": .9}
    text = evaluate.table({"vae": {"psnr": 27.9}, "clip": held,
                           "ldm": {"seconds for 8 pictures in 50 guided steps": 9.5}})
    assert "| psnr | 27.9 |  |  | at least 28: missed |" in text
    assert "| category | 0.98 | 0.97 to 0.99 | 400 | at least 0.97: holds |" in text
    assert "| category, novel | 0.9 |  |  | at least 0.9: holds |" in text
    assert "| 9.5 |  |  | at most 10: holds |" in text and "low" not in text


def test_the_shipped_report_holds_every_section_and_many_steps():
    rows = evaluate.shipped("ddim")["rows"]
    assert [row["steps"] for row in rows] == list(evaluate.DDIM_STEPS)
    assert evaluate.shipped("ddim")["floor"]["frechet"] < min(row["frechet"] for row in rows)
    for name in evaluate.DDIM_LINES:
        assert [row["steps"] for row in evaluate.shipped("ddim")[name]] == list(evaluate.DDIM_STEPS)
    for section in evaluate.SECTIONS:
        assert evaluate.shipped(section)


def test_the_shipped_report_says_how_many_samples_are_recognised_beside_real_pictures():
    ddpm = evaluate.shipped("ddpm")
    assert ddpm["recognised, n"] == ddpm["recognised, real, n"] == ddpm["samples"]
    assert .5 < ddpm["recognised, high"] < ddpm["recognised, real, low"]


def test_samples_with_a_fitting_eps_follow_the_library_and_differ_from_clipped_ones():
    model, schedule = weights.load("ddpm"), Schedule.linear()
    xT = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    *_, (_, right) = ddim.sample(ddim.with_fitting_eps(model, schedule), xT, schedule, 10)
    *_, (_, clipped) = ddim.sample(model, xT, schedule, 10, clip=True)
    for fitting, expected in ((True, right), (False, clipped)):
        made = sample_pixels(model, 2, 10, fitting=fitting)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    assert (right - clipped).abs().max() > 1e-4


def test_the_figures_of_ddim_have_a_row_for_each_count_of_each_line(monkeypatch):
    asked = []

    def painted(model, count, steps, **how):
        asked.append((steps, how))
        return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(steps)) * 2 - 1

    monkeypatch.setattr(evaluate, "sample_pixels", painted)
    found = evaluate.ddim_figures(70, steps=(2, 3))
    assert asked == [(2, {}), (3, {}), (2, {"eta": 1.}), (3, {"eta": 1.}),
                     (2, {"fitting": True}), (3, {"fitting": True})]
    assert found["rows"] == found["rows, fitting eps"] and found["rows"][0] != found["rows"][1]
    assert [*found["rows"][0]] == ["steps", "frechet", "frechet scatter", "kid"]


def test_shipped_weights_are_found_from_any_folder(tmp_path):
    """A notebook may be started anywhere: what the course ships lies beside its library."""
    code = ("from gligen_lessons import evaluate, weights; weights.load('referee-crop'); "
            "evaluate.shipped('ddim'); print('found')")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "found\n", run.stderr[-500:]
