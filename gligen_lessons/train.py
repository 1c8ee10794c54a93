"""Train one of the course's models: python -m gligen_lessons.train NAME."""

import argparse
import sys
from pathlib import Path

import torch

from . import device, files, fit, recipes, weights
from .recipes.helpers import bare


def train(name: str, steps: int | None = None, minutes: float | None = None,
          out: Path | None = None, resume: bool = False, ship: bool = True,
          batch: int | None = None) -> Path | None:
    """Run a model's recipe; returns the weight file, or None where `minutes` ended it early.

    Checkpoints and the log lie in `out`/NAME (default runs/NAME); finished weights go to
    data/weights, or to `out` with ship=False, as fp16 safetensors with card and log.
    """
    recipe = recipes.get(name, steps, **({"batch": batch} if batch else {}))
    folder = Path(out or "runs") / name
    marks = sorted({max(1, round(part * recipe.steps)) for part in recipe.milestones})
    states = fit.fit(recipe.model, recipe.loss, recipe.draw, steps=recipe.steps, lr=recipe.lr,
                     folder=folder, resume=resume, minutes=minutes,
                     sample=lambda model, step: recipe.sample(bare(model), step),
                     milestones=marks if recipe.sample else (), **recipe.options)
    *_, state = fit.progress(states, recipe.steps)
    if state["step"] < recipe.steps:
        print(f"Stopped after {state['step']} of {recipe.steps} steps; go on with --resume.")
        return None
    target = weights.path(name, None if ship else folder.parent)
    asked = f" --batch {batch}" if batch else ""
    return publish(recipe, target, folder, state["seconds"] / 60, asked)


def publish(recipe: recipes.Recipe, target: Path, folder: Path, minutes: float,
            asked: str = "") -> Path:
    """Write a finished model with the card that says how it was made and how well it does."""
    model = bare(recipe.model).eval()
    command = f"python course.py train {recipe.name} --steps {recipe.steps}{asked}"
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
    parser = argparse.ArgumentParser(prog="gligen-lessons train", description=__doc__)
    parser.add_argument("name", help=", ".join(recipes.HOMES))
    parser.add_argument("--steps", type=int, help="all steps; learning rate and data follow it")
    parser.add_argument("--batch", type=int, help="samples a step, instead of the recipe's own")
    parser.add_argument("--minutes", type=float, help="stop early; go on later with --resume")
    parser.add_argument("--out", type=Path, help="folder for checkpoints, log and weights")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    asked = parser.parse_args(arguments)
    made = train(asked.name, asked.steps, asked.minutes, asked.out, asked.resume,
                 ship=asked.out is None, batch=asked.batch)
    if made:
        print(f"Wrote {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
