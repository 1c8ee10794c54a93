"""Train one of the course's models: python -m gligen_lessons.train NAME."""

import json
import os
import shutil
import sys
from argparse import Namespace
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from . import device, files, fit, ladder, recipes, weights
from .arguments import OneLineParser, batch_of, count_of, duration_of, folder_of
from .models import MODELS
from .reading import json_object
from .recipes.helpers import bare
from .recipes.own_data import OwnFolder, start_from
from .recipes.world_data import World
from .shipping import SUFFIXES, ship

RUNS = Path("runs")
OWN = ("vae", "clip", "ldm", "detr", "gligen")            # what learns from a folder of one's own


def train(name: str, steps: int | None = None, minutes: float | None = None,
          out: Path = RUNS, resume: bool = False, batch: int | None = None,
          small: bool = False, restart: bool = False, data: Path | None = None,
          init: str | None = None) -> Path | None:
    """Run a model's recipe; returns the weight file, or None where `minutes` ended it early.

    Checkpoints and the log lie in `out`/NAME, finished weights in `out`, as fp16 safetensors with
    card and log; shipped weights are left alone (`ship` exchanges them). Where an earlier training
    left a checkpoint, `resume` goes on from it, and `restart` begins again and keeps the old one
    in `out`/NAME.bak; without either FileExistsError. `small` takes the recipe of `train small`:
    single things at 64 px. `data` is a COCO folder to learn from in place of the world, on weights
    in `out` before the shipped ones; `init` a model's name or a file of weights to begin with.
    """
    target, folder = weights.path(name, out), Path(out) / name
    first = first_weights(init, data)
    if Path(out).resolve() == weights.FOLDER.resolve():
        raise ValueError(f"{out} holds the weights that the course ships: train into another "
                         f"folder, then take them over with python course.py ship {name}.")
    with weights.before_shipped(out if data else None):
        source = OwnFolder.read(data) if data else World(small)
        with alone(folder):
            goes_on = resume and files.has_checkpoint(folder)
            if not rank() and not goes_on:
                make_room(folder, target, restart)
            chosen = {"batch": batch, "source": source if data or small else None}
            recipe = recipes.get(name, steps, **{key: x for key, x in chosen.items() if x})
            origin = source.origin(name)
            if first:
                origin["own data"]["init"] = start_from(recipe, first)
            if not rank():
                note_run(folder / "run.json", recipe.steps, origin, goes_on)
            state = fitted(recipe, folder, resume, minutes)
        if rank():
            return None                                   # the first process does the rest
        if state["step"] < recipe.steps:
            print(f"Stopped after {state['step']} of {recipe.steps} steps; go on with --resume.")
            return None
        given = {"batch": batch, "data": data, "init": init, "small --out": small and out}
        requested = "".join(f" --{key} {value}" for key, value in given.items() if value)
        return publish(recipe, target, folder, state["seconds"] / 60, requested, origin)


def first_weights(init: str | None, data: Path | None) -> Path | None:
    """The file that `init` means, a model's name or a path; ValueError without own data."""
    if init and not data:
        raise ValueError("--init goes with --data: the course's models begin from nothing.")
    return weights.path(init) if init in MODELS else init and Path(init)


def note_run(file: Path, steps: int, origin: dict, goes_on: bool) -> None:
    """Write down what a run is of; ValueError where one goes on with other data than it began."""
    told = {key: origin["own data"].get(key) for key in ("fingerprint", "init", "bases")
            if "own data" in origin}
    if goes_on and file.exists():
        before = json_object(file)
        for key in ("fingerprint", "init", "bases"):
            if before.get(key) != told.get(key):
                raise ValueError(
                    f"The training in {file.parent} began with {key} {before.get(key)}, this one "
                    f"has {told.get(key)}: go on with the same --data, --init and bases, or begin "
                    "again with --restart.")
    files.atomic_write(file, json.dumps({"steps": steps} | told))


def make_room(folder: Path, target: Path, restart: bool) -> None:
    """See to it that a new training in a folder costs no old one, nor its weights at `target`."""
    made = [target.with_suffix(end) for end in SUFFIXES if target.with_suffix(end).exists()]
    if not (files.has_checkpoint(folder) or made):
        return
    old = next(path for i in count(1) if not (
        path := folder.with_name(f"{folder.name}.bak{i if i > 1 else ''}")).exists())
    if not restart:
        raise FileExistsError(
            f"An earlier training lies in {folder}: go on with --resume, or begin again with "
            f"--restart, which keeps it in {old.name}.")
    folder.rename(old)
    for file in made:
        shutil.copy2(file, old)


def fitted(recipe: recipes.Recipe, folder: Path, resume: bool, minutes: float | None) -> dict:
    """Run `fit` with a bar to its end or for some minutes; returns its last state."""
    marks = sorted({max(1, round(part * recipe.steps)) for part in recipe.milestones})
    states = fit.fit(recipe.model, recipe.loss, recipe.sample_batch, steps=recipe.steps,
                     lr=recipe.lr,
                     folder=folder, resume=resume, minutes=minutes,
                     sample=lambda model, step: recipe.sample(bare(model), step),
                     milestones=marks if recipe.sample else (), **recipe.options)
    *_, state = fit.progress(states, recipe.steps)
    return state


def rank() -> int:
    """The number of this process among those that torchrun started; 0 where it is alone."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def alone(folder: Path):
    """Keep a second training out of a folder; OSError says that there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    if rank():
        yield
        return
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise OSError(f"Another training writes to {folder}: wait for it, or take another "
                      "folder with --out.") from error


def publish(recipe: recipes.Recipe, target: Path, folder: Path, minutes: float,
            requested: str, origin: dict) -> Path:
    """Write a finished model with the card that says how it was made and how well it does."""
    model = bare(recipe.model).eval()
    command = f"python course.py train {recipe.name} --steps {recipe.steps}{requested}"
    where = device.pick()
    how = {"optimizer": recipe.options.get("optimizer", "adamw"), "helper losses": recipe.helpers,
           "precision": "bfloat16" if device.bf16(where) else "float32"}
    if where.type == "cpu":
        how["cores"] = torch.get_num_threads() * int(os.environ.get("WORLD_SIZE", 1))
    card = files.make_card(recipe.name, command, recipe.steps, recipe.data, str(where), minutes,
                           recipe.report(model), recipe.config | recipe.learned(model),
                           how) | origin
    tensors = model.state_dict()
    files.save({name: tensors[name] for name in recipe.kept(model)}, target, card)
    files.atomic_write(target.with_suffix(".jsonl"), (folder / "log.jsonl").read_bytes())
    return target


def main(arguments: list[str] | None = None) -> int:
    """The command line of `train`."""
    parser = OneLineParser(prog="gligen-lessons train", description=__doc__)
    add = parser.add_argument
    add("name", help=f"{', '.join(MODELS)}; or all: every model of the course, in order; or "
        "small: the models behind grounded pictures of 64 px")
    add("--steps", type=count_of, help="all steps; learning rate and data follow it")
    add("--batch", type=batch_of, help="samples a step, instead of the recipe's own")
    add("--minutes", type=duration_of, help="stop early; go on later with --resume")
    add("--out", type=folder_of, help="folder for checkpoints, log and weights (default: runs, or "
        "runs/small)")
    add("--resume", action="store_true", help="go on from the last checkpoint")
    add("--restart", action="store_true", help="begin again, and keep what was in NAME.bak")
    add("--hours", type=duration_of, help="with all and small: stop after so long; the same "
        "command goes on")
    add("--small", action="store_true", help="one model as `small` trains it; needs --out")
    add("--data", type=Path, metavar="FOLDER", help="a COCO folder of your own to learn from in "
        f"place of the world: {', '.join(OWN)}, into runs/own/FOLDER unless --out names another")
    add("--init", metavar="NAME", help="with --data: begin with shipped weights, or with a file's")
    add("--ship", action="store_true", help="when it has finished, take it into the course, unless "
        "the figure on its card is worse than before")
    requested = parser.parse_args(arguments)
    check_words(parser, requested)
    if requested.name in ("all", "small"):
        run = ladder.train_all if requested.name == "all" else ladder.train_small
        return run(requested.out, requested.hours, requested.steps)
    data = requested.data
    out = requested.out or (RUNS / "own" / data.resolve().name if data else RUNS)
    made = train(requested.name, requested.steps, requested.minutes, out, requested.resume,
                 requested.batch, requested.small, requested.restart, data, requested.init)
    if made and requested.ship:
        print(f"Shipped {requested.name}; {ship(requested.name, made.parent)}")
    elif made and data:
        print_own(made)
    elif made:
        print(f"Wrote {made}; python course.py ship {requested.name} takes it into the course.")
    return 0


def check_words(parser: OneLineParser, requested: Namespace) -> None:
    """Refuse options that do not belong together, before anything is drawn."""
    several = requested.name in ("all", "small")
    if not several and requested.name not in MODELS:
        parser.error(f"there is no model {requested.name!r}; choose from {', '.join(MODELS)}, all, "
                     "small")
    alone = (("batch", "minutes", "resume", "restart", "ship", "small", "data", "init")
             if several else ("hours",))
    for name in alone:
        if getattr(requested, name) not in (None, False):
            parser.error(f"--{name} does not go with {requested.name}")
    if requested.resume and requested.restart:
        parser.error("--resume goes on and --restart begins again: choose one")
    if requested.small and requested.ship:
        parser.error("--ship takes models of the course; one of --small is your own")
    if requested.small and (requested.out is None or requested.name not in ladder.SMALL):
        parser.error(f"--small trains {', '.join(ladder.SMALL)}, into a folder of your own: name "
                     "it with --out")
    check_own(parser, requested)


def check_own(parser: OneLineParser, requested: Namespace) -> None:
    """Refuse options that do not go with data of one's own, or need some."""
    if requested.init and not requested.data:
        parser.error("--init goes with --data")
    if not requested.data:
        return
    if requested.name not in OWN:
        parser.error(f"--data trains {', '.join(OWN)}, not {requested.name}")
    for name in ("small", "ship"):
        if getattr(requested, name):
            parser.error(f"--{name} is about the course's own world and does not go with --data")
    if requested.init and requested.init not in MODELS and not Path(requested.init).is_file():
        parser.error(f"--init {requested.init}: this is neither a file nor one of "
                     f"{', '.join(OWN)}")


def print_own(made: Path) -> None:
    """Say what was measured of a model of one's own data, what could not be, and how to use it."""
    card = files.card(made)
    own, told = card["own data"], {name: value for name, value in card["metrics"].items()
                                   if not name.startswith("AP of")}
    print(f"On {own['held out']} held-out pictures: " + ", ".join(
        f"{name} {value:.4g}" for name, value in told.items() if value is not None))
    if own["not judged"]:
        print(f"Not judged, as it takes the world's referee: {', '.join(own['not judged'])}")
    print(f"Wrote {made}; use it with --weights {made.parent}, or in Python weights.load("
          f"{made.stem!r}, folder={str(made.parent)!r})")


if __name__ == "__main__":
    sys.exit(main())
