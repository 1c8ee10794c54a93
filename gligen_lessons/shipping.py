"""Moving trained weights among those that the course ships: python course.py ship NAME.

Training never touches shipped weights. This does, on purpose, one model at a time, and only where
the figure that a model is judged by did not get worse.
"""

import math
from pathlib import Path

from . import files, weights
from .arguments import OneLineParser
from .models import MODELS

SUFFIXES = (".safetensors", ".json", ".jsonl")
SLACK = .01                                               # what counts as equal


def is_worse(new: float | None, old: float | None, metric: str) -> bool:
    """Whether a figure got worse by more than SLACK; one that was not measured before did not.

    A metric whose name begins with "-" must not grow, any other must not fall; NaN is worse.
    """
    if new is None or not math.isfinite(new) or old is None:
        return new is None or not math.isfinite(new)
    return new > old + SLACK if metric.startswith("-") else new < old - SLACK


def copy_weights(names: list[str], source: Path, target: Path) -> None:
    """Copy weights, cards and logs of some models, each file whole or not at all."""
    for name in names:
        for suffix in SUFFIXES:
            data = weights.path(name, source).with_suffix(suffix).read_bytes()
            files.atomic_write(weights.path(name, target).with_suffix(suffix), data)


def ship(name: str, source: Path, target: Path = weights.FOLDER, force: bool = False) -> str:
    """Copy one model from `source` to `target`; returns what its figure was and is.

    ValueError where it got worse, unless `force`, and where it learnt from somebody's own data;
    FileNotFoundError where it is not there.
    """
    if "own data" in files.card(weights.path(name, source)):
        raise ValueError(f"{name} in {source} learnt from data of your own: it is none of the "
                         "course's, and stays where it is (use it with --weights).")
    metric = MODELS[name].metric if name in MODELS else ""
    new = files.card(weights.path(name, source))["metrics"].get(metric.lstrip("-"))
    shipped = weights.path(name, target)
    old = files.card(shipped)["metrics"].get(metric.lstrip("-")) if shipped.exists() else None
    told = f"{metric.lstrip('-')}: {old} before, {new} now"
    if is_worse(new, old, metric) and not force:
        raise ValueError(f"{name} got worse ({told}); --force ships it all the same.")
    weights.load(name, folder=source)                     # whole, and on the base that is shipped
    copy_weights([name], source, target)
    return told


def main(arguments: list[str] | None = None) -> int:
    """The command line of `ship`."""
    parser = OneLineParser(prog="gligen-lessons ship", description=__doc__)
    add = parser.add_argument
    add("name", nargs="+", choices=list(MODELS), metavar="NAME", help=", ".join(MODELS))
    add("--source", type=Path, default=Path("runs"), help="where the weights lie (default: runs)")
    add("--force", action="store_true", help="also where the figure on the card got worse")
    requested = parser.parse_args(arguments)
    for name in requested.name:
        print(f"shipped {name}; {ship(name, requested.source, force=requested.force)}")
    return 0
