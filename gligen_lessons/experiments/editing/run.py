"""Editing measured, the experiment of lessons 12 and 13: every method over its strength, on edits
of held-out scenes whose true answer is known.
"""

import argparse
import json
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ... import device, files, weights
from ...arguments import OneLineParser, compared_of, count_of, file_of
from ...diffedit import NOISE_LEVEL, NOISES, THRESHOLD
from ...metrics import bootstrap
from .. import result_file
from ..detector_grounding.judges import Referee
from ..detector_grounding.run import batches
from .methods import BOUNDS, METHODS, Batch
from .metrics import Judges, compared, judged, summary, together
from .pairs import KEEPING, MOVING, Pair, edit_pairs

COUNTS = {"small": 12, "normal": 300, "full": 1200}       # pairs, by the compute budget
SIZE = 8
REGIONS = ("recolour", "replace")                         # edits whose true change is a place
# variants of the mask: how it differs from DiffEdit's own, one thing at a time
MASKS = {"as it is": {}, "empty reference": {"reference": False}, "one noise": {"noises": 1},
         "threshold .25": {"threshold": .25}, "threshold .75": {"threshold": .75},
         "noise level .25": {"noise_level": .25}, "noise level .75": {"noise_level": .75}}
COSTS = ("distance to the source", "psnr outside")
# decided before anything was measured: at equal success the first changes less than the second
CLAIMS = (("DiffEdit", "SDEdit"), ("DiffEdit", "Encode-Decode"),
          ("DiffEdit", "DiffEdit without encoding"), ("Encode-Decode", "SDEdit"),
          ("DiffEdit without encoding", "SDEdit"))


def judges_of(where: torch.device) -> Judges:
    """The shipped referees, and the course's CLIP for its score."""
    return Judges(weights.load("referee-attributes", where), Referee.shipped(where),
                  weights.load("clip", where), weights.tokenizer())


def iou_of(mask: Tensor, some: list[Pair]) -> Tensor:
    """How well masks (b,1,16,16) meet the true change, as an IoU in pixels, (b,)."""
    true = torch.stack([pair.changed for pair in some]) > .5                # (b,1,128,128)
    finer = true.shape[-1] // mask.shape[-1]
    found = mask.cpu().repeat_interleave(finer, 2).repeat_interleave(finer, 3) > .5
    both, either = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return both / either


def best_mask(some: list[Pair], side: int = 16) -> Tensor:
    """The true change on the latent's grid: positions of which half has changed, or the most."""
    true = torch.stack([pair.changed for pair in some])
    part = torch.nn.functional.avg_pool2d(true, true.shape[-1] // side)     # (b,1,16,16)
    return (part >= part.amax((2, 3), keepdim=True).clamp(max=.5)).float()


def mask_ious(one: Batch) -> dict[str, Tensor]:
    """The masks' IoU by name, (b,) each; beside the variants a ceiling and two floors."""
    made = {name: one.mask(**options) for name, options in MASKS.items()}
    own, g = made["as it is"], device.generator(one.seed)
    shuffled = torch.stack([m.flatten()[torch.randperm(m.numel(), generator=g)].view_as(m)
                            for m in own.cpu()])
    made |= {"best on the grid": best_mask(one.some), "as large, anywhere": shuffled,
             "everything": torch.ones_like(own)}
    return {name: iou_of(mask, one.some) for name, mask in made.items()}


def all_judged(parts, judges: Judges, found: list[Pair], steps: int, methods: dict,
             seed: int = 0) -> tuple[dict, dict]:
    """The figures of all edits: by (method, strength), and the masks' IoU by variant."""
    figures: dict[tuple, list] = {}
    ious: dict[str, list] = {}
    for i, some in enumerate(tqdm(list(batches(found, SIZE)), "editing", file=sys.stderr)):
        one = Batch(parts, judges.clip, some, steps, seed + i * SIZE)
        made = {(name, None): bound(one) for name, bound in BOUNDS.items()}
        made |= {(name, strength): edited(one, strength)
                 for name, (strengths, edited) in methods.items() for strength in strengths}
        for key, x in made.items():
            figures.setdefault(key, []).append(judged(judges, x, some))
        for name, values in mask_ious(one).items():
            ious.setdefault(name, []).append(values)
    return ({key: together(rows) for key, rows in figures.items()},
            {name: torch.cat(rows).numpy() for name, rows in ious.items()})


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
    return {"pairs": int(rows.sum()), "of": list(REGIONS), "rows": made}


def run(parts, judges: Judges, count: int, steps: int, kinds: tuple[str, ...] = KEEPING,
        methods: dict = METHODS) -> dict:
    """The experiment on `count` edits of some kinds; figures as JSON holds them."""
    found = edit_pairs(count, kinds)
    figures, ious = all_judged(parts, judges, found, steps, methods)
    kinds_of = [pair.edit.kind for pair in found]
    real = figures["the answer", None]["features"]
    rows = [{"method": name, "strength": strength} | summary(made, real, kinds_of)
            for (name, strength), made in figures.items()]
    by_method = {name: [figures[name, strength] for strength in strengths]
                 for name, (strengths, _) in methods.items()}
    claims = [{"less": a, "than": b} | compared(by_method[a], by_method[b], cost)
              for a, b in CLAIMS if {a, b} <= set(by_method) for cost in COSTS]
    return {"pairs": len(found), "kinds": list(kinds), "rows": rows, "claims": claims,
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
    made = head | run(parts, judges, count, args.steps)
    made["layout changes"] = run(parts, judges, max(2, count // 4), args.steps, MOVING)
    made["seconds"] = round(monotonic() - start, 1)
    files.atomic_write(args.out, json.dumps(made, indent=1) + "\n")
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
        help="edits that keep the layout (default: 12, 300 or 1200 by the compute budget); a "
        "fourth as many that do not")
    add("--steps", type=count_of, default=20, help="steps of DDIM (default: 20)")
    add("--out", type=file_of, default=Path(result_file("editing")), help="the JSON file to write")
    return made
