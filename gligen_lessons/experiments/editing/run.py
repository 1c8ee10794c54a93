"""Editing measured, the experiment of lessons 12 and 13: every method over its strength, on edits
of held-out scenes whose true answer is known. A run that was cut off goes on where it stopped.
"""

import argparse
import hashlib
import io
import json
import shutil
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ... import device, files, weights
from ...arguments import OneLineParser, compared_of, count_of, file_of
from ...datasets.edits import KEEPING, MOVING, EditCase, of_all_kinds
from ...diffedit import NOISE_LEVEL, NOISES, THRESHOLD
from ...eval.editing import REGIONS, cells_of, mask_iou
from ...metrics import bootstrap
from ...world.cache import code_version
from .. import result_file
from ..detector_grounding.judges import Referee
from ..detector_grounding.run import batches
from .methods import BOUNDS, BY_RATIO, GUIDANCE, METHODS, Batch
from .metrics import Judges, compared, edit_figures, summary, together

COUNTS = {"small": 12, "normal": 300, "full": 1200}       # edits, by the compute budget
SIZE = 8
USED = ("vae", "clip", "ldm", "referee-attributes", "referee-scene", "referee-crop")
# variants of the mask: how it differs from DiffEdit's own, one thing at a time
MASKS = {"as it is": {}, "empty reference": {"reference": False}, "one noise": {"noises": 1},
         "threshold .25": {"threshold": .25}, "threshold .75": {"threshold": .75},
         "noise level .25": {"noise_level": .25}, "noise level .75": {"noise_level": .75}}
COSTS = ("distance to the source", "psnr outside")
# decided before anything was measured: at equal success the first changes less than the second
CLAIMS = (("DiffEdit", "SDEdit"), ("DiffEdit", "Encode-Decode"),
          ("DiffEdit", "DiffEdit without encoding"), ("Encode-Decode", "SDEdit"),
          ("DiffEdit without encoding", "SDEdit"), ("Prompt-to-Prompt", "SDEdit"))


def judges_of(where: torch.device) -> Judges:
    """The shipped referees, and the course's CLIP for its score."""
    return Judges(weights.load("referee-attributes", where), Referee.shipped(where),
                  weights.load("clip", where), weights.tokenizer())


def mask_ious(one: Batch) -> dict[str, Tensor]:
    """The masks' IoU by name, (b,) each; beside the variants a ceiling and two floors."""
    made = {name: one.mask(**options) for name, options in MASKS.items()}
    own, g = made["as it is"], device.generator(one.seed)
    shuffled = torch.stack([m.flatten()[torch.randperm(m.numel(), generator=g)].view_as(m)
                            for m in own.cpu()])
    changed = torch.stack([case.changed for case in one.some])              # (b,128,128)
    made |= {"best on the grid": cells_of(changed, own.shape[-1]), "as large, anywhere": shuffled,
             "everything": torch.ones_like(own)}
    return {name: mask_iou(mask.cpu(), changed) for name, mask in made.items()}


def judged_batch(one: Batch, judges: Judges, methods: dict) -> tuple[dict, dict]:
    """The figures of some edits: by (method, strength), and the masks' IoU by variant."""
    made = {(name, None): bound(one) for name, bound in BOUNDS.items()}
    made |= {(name, strength): edited(one, strength)
             for name, (strengths, edited) in methods.items() for strength in strengths}
    return {key: edit_figures(judges, x, one.some) for key, x in made.items()}, mask_ious(one)


def all_judged(parts, judges: Judges, found: list[EditCase], steps: int, methods: dict,
               folder: Path | None = None, seed: int = 0) -> tuple[dict, dict]:
    """The figures of all edits: by (method, strength), and the masks' IoU by variant.

    Each batch is left in the folder; those that an earlier run has left there are read.
    """
    figures: dict[tuple, list] = {}
    ious: dict[str, list] = {}
    for i, some in enumerate(tqdm(list(batches(found, SIZE)), "editing", file=sys.stderr)):
        file = folder / f"{i:03d}-{len(some)}.pt" if folder else None
        if file and file.exists():
            by_method, by_variant = torch.load(file, weights_only=True)
        else:
            one = Batch(parts, judges.clip, some, steps, seed + i * SIZE)
            by_method, by_variant = judged_batch(one, judges, methods)
            if file:
                leave((by_method, by_variant), file)
        for key, values in by_method.items():
            figures.setdefault(key, []).append(values)
        for name, values in by_variant.items():
            ious.setdefault(name, []).append(values)
    return ({key: together(rows) for key, rows in figures.items()},
            {name: torch.cat(rows).numpy() for name, rows in ious.items()})


def leave(figures: tuple[dict, dict], file: Path) -> None:
    """Write the figures of a batch so that the file is whole or not there."""
    whole = io.BytesIO()
    torch.save(figures, whole)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(file, whole.getvalue())


def left_in(kinds: tuple[str, ...], steps: int) -> Path:
    """The folder of a run that was cut off, named by what its figures depend on."""
    strengths = {name: values for name, (values, _) in METHODS.items()}
    told = [kinds, steps, SIZE, GUIDANCE, THRESHOLD, NOISES, NOISE_LEVEL, MASKS, strengths,
            code_version(), *map(weights.fingerprint, USED)]
    return Path("runs", "editing", hashlib.sha256(repr(told).encode()).hexdigest()[:12])


def mask_figures(ious: dict[str, np.ndarray], kinds: list[str]) -> dict:
    """The mean IoU of each variant over edits of places, with its interval, and paired ones."""
    rows = np.isin(kinds, REGIONS)
    made = {}
    for name, values in ious.items():
        low, high = bootstrap(values[rows])
        made[name] = {"iou": float(values[rows].mean()), "low": low, "high": high}
        more = ious["as it is"][rows] - values[rows]
        low, high = bootstrap(more)
        made[name]["as it is, more"] = {"mean": float(more.mean()), "low": low, "high": high}
    return {"edits": int(rows.sum()), "of": list(REGIONS), "rows": made}


def run(parts, judges: Judges, count: int, steps: int, kinds: tuple[str, ...] = KEEPING,
        methods: dict = METHODS, folder: Path | None = None) -> dict:
    """The experiment on `count` edits of some kinds; figures as JSON holds them."""
    found = of_all_kinds(count, kinds)
    figures, ious = all_judged(parts, judges, found, steps, methods, folder)
    kinds_of = [case.edit.kind for case in found]
    real = figures["the answer", None]["features"]
    rows = [{"method": name, "strength": strength} | summary(made, real, kinds_of)
            for (name, strength), made in figures.items()]
    by_method = {name: [figures["reconstruction", None]] * (name in BY_RATIO)
                 + [figures[name, strength] for strength in strengths]
                 for name, (strengths, _) in methods.items()}
    claims = [{"less": a, "than": b} | compared(by_method[a], by_method[b], cost)
              for a, b in CLAIMS if {a, b} <= set(by_method) for cost in COSTS]
    return {"edits": len(found), "kinds": list(kinds), "rows": rows, "claims": claims,
            "masks": mask_figures(ious, kinds_of) if set(kinds) & set(REGIONS) else None}


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment editing`."""
    words = sys.argv[1:] if arguments is None else arguments
    args, where = words_parser().parse_args(words), device.pick()
    parts, judges, start = weights.text_to_image(where), judges_of(where), monotonic()
    count = args.count or COUNTS[device.compute_budget()]
    head = {"command": " ".join(["python course.py experiment editing", *words]),
            "steps": args.steps, "noises": NOISES, "noise level": NOISE_LEVEL,
            "threshold": THRESHOLD, "device": str(where)}
    keeping, moving = (left_in(kinds, args.steps) for kinds in (KEEPING, MOVING))
    made = head | run(parts, judges, count, args.steps, folder=keeping)
    made["layout changes"] = run(parts, judges, args.moving or max(2, count // 4), args.steps,
                                 MOVING, folder=moving)
    made["seconds"] = round(monotonic() - start, 1)
    files.atomic_write(args.out, json.dumps(made, indent=1) + "\n")
    for folder in (keeping, moving):
        shutil.rmtree(folder)
    for row in made["rows"]:
        print(f"{row['method']} {row['strength'] or ''}: success {row['success']:.1%}, "
              f"outside {row['psnr outside'] or float('inf'):.1f} dB")
    print(f"The result is in {args.out}")
    return 0


def words_parser() -> argparse.ArgumentParser:
    """What `experiment editing` takes."""
    made = OneLineParser(prog="gligen-lessons experiment editing", description=__doc__)
    add = made.add_argument
    add("--count", type=compared_of,
        help="edits that keep the layout (default: 12, 300 or 1200 by the compute budget)")
    add("--moving", type=compared_of,
        help="edits that change the layout (default: a fourth as many)")
    add("--steps", type=count_of, default=20, help="steps of DDIM (default: 20)")
    add("--out", type=file_of, default=Path(result_file("editing")), help="the JSON file to write")
    return made
