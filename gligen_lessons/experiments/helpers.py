"""What helper losses are worth: latent diffusion and GLIGEN's gates with and without them.

Each pair has the same first weights but for what helps, the same batches and the same number of
steps: latent diffusion on pictures of 64 px, the gates on the shipped generator.
"""

import json
import sys
from collections.abc import Callable
from time import monotonic

import torch
from torch import nn

from .. import device, files, recipes, weights
from ..arguments import OneLineParser, count_of, file_of
from ..fit import fit, progress
from ..gligen import add_gates, freeze
from ..recipes.helpers import bare
from ..recipes.world_data import World
from . import result_file

PARTS = (.25, .5, .75, 1.)                                # of a run, at which it is looked at
FIGURES = {"ldm": ("found, single", "named, found, painted"),
           "gligen": ("held", "boxes right, grounded")}   # in the log; of the report at the end


def without(sample_batch: Callable) -> Callable:
    """The same batches with helpers that count nothing (the last tensor says how much)."""
    def drawn(step: int) -> tuple:
        *batch, weight = sample_batch(step)
        return *batch, torch.zeros_like(weight)

    return drawn


def plain_gates() -> nn.Module:
    """Gates as the paper begins them, on the shipped generator, which is frozen."""
    return freeze(recipes.seeded(add_gates, weights.load("ldm", device.pick())))


def trained(name: str, steps: int, helped: bool) -> dict:
    """One training: what its log showed on the way, and the report's figure at the end."""
    recipe = recipes.get(name, steps, source=World(small=name == "ldm"))
    model = recipe.model if helped or name == "ldm" else plain_gates()
    batches = recipe.sample_batch if helped else without(recipe.sample_batch)
    seen, (logged, reported) = [], FIGURES[name]
    marks, start = {max(1, round(part * steps)) for part in PARTS}, monotonic()
    run = fit(model, recipe.loss, batches, steps=steps, lr=recipe.lr, **recipe.options)
    for state in progress(run, steps):
        if state["step"] in marks:
            shown = recipe.sample(bare(model).eval(), state["step"])
            seen.append({"step": state["step"], "share": shown[logged]})
            model.train()
    seconds, end = monotonic() - start, recipe.report(bare(model).eval())
    return {"model": name, "helpers": recipe.helpers if helped else "none", "steps": steps,
            "seconds": round(seconds, 1), "seen": seen,
            "share": end[reported], **{part: end[beside(reported, part)]
                                       for part in ("low", "high", "n")}}


def beside(figure: str, part: str) -> str:
    """What the report calls the interval's ends and n of a figure ("found, painted")."""
    first, last = figure.rsplit(", ", 1)
    return f"{first}, {part}, {last}"


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment helpers`."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = OneLineParser(prog="gligen-lessons experiment helpers", description=__doc__)
    add = parser.add_argument
    add("--ldm-steps", type=count_of, default=1_200, help="of each latent diffusion")
    add("--gligen-steps", type=count_of, default=900, help="of each training of gates")
    add("--out", type=file_of, default=result_file("helpers"), help="the JSON file to write")
    requested = parser.parse_args(arguments)
    rows = [trained(name, steps, helped) for name, steps in (
        ("ldm", requested.ldm_steps), ("gligen", requested.gligen_steps))
        for helped in (True, False)]
    made = {"command": " ".join(["python course.py experiment helpers", *words]),
            "device": str(device.pick()), "rows": rows}
    files.atomic_write(requested.out, json.dumps(made, indent=1) + "\n")
    for row in rows:
        print(f"{row['model']}, helpers {row['helpers'][:4]}: {row['share']:.1%}, "
              f"{row['low']:.1%} to {row['high']:.1%} of {row['n']}, in {row['seconds']:.0f} s")
    return 0
