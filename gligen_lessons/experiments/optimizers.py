"""AdamW against Muon: lesson 3's autoencoder at 64 px, the same start and the same batches."""

import json
import sys
from functools import partial
from time import monotonic

import torch

from .. import device, files, muon, recipes
from ..arguments import OneLineParser, batch_of, count_of, file_of
from ..datasets.labelled import labelled, pictures
from ..eval.autoencoder import reconstruct
from ..fit import fit, progress
from ..metrics import psnr
from ..recipes.vae import RATE
from ..recipes.world_data import World
from . import result_file

ADAMW_RATE = 6e-4                            # the best of a few for this network
EVERY = 10                                   # steps behind each loss that is kept
HELD = 128                                   # pictures that are reconstructed


def trained(name: str, steps: int, batch: int) -> dict:
    """One training: the mean loss of every few steps, its seconds, and PSNR on held-out pictures.

    The pictures are single things at 64 px; the learning rates warm up and fall alike.
    """
    recipe = recipes.get("vae", steps, batch=batch, source=World(small=True))
    rate, groups = (RATE, partial(muon.groups, lr=RATE)) if name == "muon" else (ADAMW_RATE, None)
    run = fit(recipe.model, recipe.loss, recipe.sample_batch, steps=steps, lr=rate, ema=.998,
              optimizer=name, groups=groups)
    start = monotonic()
    losses = torch.tensor([state["loss"] for state in progress(run, steps)])
    seconds, data = monotonic() - start, labelled("single-test", HELD, 64)
    x = pictures(data, torch.arange(HELD))
    found = psnr(reconstruct(recipe.model.eval(), x), x).mean()
    means = losses[:len(losses) // EVERY * EVERY].view(-1, EVERY).mean(1)
    return {"name": name, "rate": rate, "losses": [round(float(loss), 4) for loss in means],
            "psnr": float(found), "seconds": round(seconds, 1)}


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment optimizers`."""
    parser = OneLineParser(prog="gligen-lessons experiment optimizers",
                                     description=__doc__)
    add = parser.add_argument
    add("--steps", type=count_of, default=600, help="of each training")
    add("--batch", type=batch_of, default=8, help="pictures a step")
    add("--out", type=file_of, default=result_file("optimizers"), help="the JSON file to write")
    requested = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    made = {"command": " ".join(["python course.py experiment optimizers", *words]),
            "steps": requested.steps, "batch": requested.batch, "every": EVERY, "pictures": HELD,
            "device": str(device.pick()),
            "rows": [trained(name, requested.steps, requested.batch) for name in ("adamw", "muon")]}
    files.atomic_write(requested.out, json.dumps(made, indent=1) + "\n")
    for row in made["rows"]:
        print(f"{row['name']}: {row['psnr']:.1f} dB in {row['seconds']:.0f} s")
    return 0
