"""Experiments whose outcome nobody knows beforehand: `python course.py experiment NAME`."""

import argparse
from importlib import import_module
from pathlib import Path

from ..arguments import OneLineParser
from ..evaluate import FOLDER
from ..reading import json_object

NAMES = ("told", "ablations", "optimizers")


def shipped(name: str, folder: Path = FOLDER) -> dict:
    """An experiment's shipped result; FileNotFoundError names the command that makes it."""
    if name not in NAMES:
        raise ValueError(f"There is no experiment {name!r}; choose from {', '.join(NAMES)}.")
    file = folder / f"{name}.json"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; python course.py experiment {name} makes it.")
    return json_object(file)


def result_file(name: str) -> Path:
    """Where an experiment's result goes when nobody says: never over one that is shipped."""
    file = FOLDER / f"{name}.json"
    return Path("runs", file.name) if file.exists() else file


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment`: the name of one, then what it takes itself."""
    parser = OneLineParser(prog="gligen-lessons experiment", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...",
                        help="what it takes: NAME --help says")
    asked = parser.parse_args(arguments)
    return import_module(f"{__name__}.{asked.name}").main(asked.rest)
