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
from .recipes.helpers import bare
from .shipping import SUFFIXES, ship

RUNS = Path("runs")


def train(name: str, steps: int | None = None, minutes: float | None = None,
          out: Path = RUNS, resume: bool = False, batch: int | None = None,
          small: bool = False, restart: bool = False) -> Path | None:
    """Run a model's recipe; returns the weight file, or None where `minutes` ended it early.

    Checkpoints and the log lie in `out`/NAME, finished weights in `out`, as fp16 safetensors with
    card and log; shipped weights are left alone (`ship` exchanges them). Where an earlier training
    left a checkpoint, `resume` goes on from it, and `restart` begins again and keeps the old one
    in `out`/NAME.bak; without either FileExistsError. `small` takes the recipe of `train small`:
    single things at 64 px.
    """
    target, folder = weights.path(name, out), Path(out) / name
    if Path(out).resolve() == weights.FOLDER.resolve():
        raise ValueError(f"{out} holds the weights that the course ships: train into another "
                         f"folder, then take them over with python course.py ship {name}.")
    with alone(folder):
        if not rank() and not (resume and files.has_checkpoint(folder)):
            make_room(folder, target, restart)
        chosen = ({"batch": batch} if batch else {}) | ({"small": True} if small else {})
        recipe = recipes.get(name, steps, **chosen)
        if not rank():
            files.atomic_write(folder / "run.json", json.dumps({"steps": recipe.steps}))
        state = fitted(recipe, folder, resume, minutes)
    if rank():
        return None                                       # the first process does the rest
    if state["step"] < recipe.steps:
        print(f"Stopped after {state['step']} of {recipe.steps} steps; go on with --resume.")
        return None
    requested = (f" --batch {batch}" if batch else "") + (f" --small --out {out}" if small else "")
    return publish(recipe, target, folder, state["seconds"] / 60, requested)


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
            requested: str = "") -> Path:
    """Write a finished model with the card that says how it was made and how well it does."""
    model = bare(recipe.model).eval()
    command = f"python course.py train {recipe.name} --steps {recipe.steps}{requested}"
    where = device.pick()
    how = {"optimizer": recipe.options.get("optimizer", "adamw"), "helper losses": recipe.helpers,
           "precision": "bfloat16" if device.bf16(where) else "float32"}
    if where.type == "cpu":
        how["cores"] = torch.get_num_threads()
    card = files.make_card(recipe.name, command, recipe.steps, recipe.data, str(where), minutes,
                           recipe.report(model), recipe.config | recipe.learned(model), how)
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
    add("--ship", action="store_true", help="when it has finished, take it into the course, unless "
        "the figure on its card is worse than before")
    requested = parser.parse_args(arguments)
    check_words(parser, requested)
    if requested.name in ("all", "small"):
        run = ladder.train_all if requested.name == "all" else ladder.train_small
        return run(requested.out, requested.hours, requested.steps)
    made = train(requested.name, requested.steps, requested.minutes, requested.out or RUNS,
                 requested.resume, requested.batch, requested.small, requested.restart)
    if made and requested.ship:
        print(f"Shipped {requested.name}; {ship(requested.name, made.parent)}")
    elif made:
        print(f"Wrote {made}; python course.py ship {requested.name} takes it into the course.")
    return 0


def check_words(parser: OneLineParser, requested: Namespace) -> None:
    """Refuse options that do not belong together, before anything is drawn."""
    several = requested.name in ("all", "small")
    if not several and requested.name not in MODELS:
        parser.error(f"there is no model {requested.name!r}; choose from {', '.join(MODELS)}, all, "
                     "small")
    alone = (("batch", "minutes", "resume", "restart", "ship", "small") if several
             else ("hours",))
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


if __name__ == "__main__":
    sys.exit(main())
