"""Experiments whose outcome nobody knows beforehand: `python course.py experiment NAME`."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from ..arguments import OneLineParser
from ..evaluate import FOLDER
from ..reading import json_object

# each experiment's module; its result is NAME.json in data/report, with _ for -
NAMES = {"detector-grounding": "detector_grounding.run", "ablations": "ablations",
         "optimizers": "optimizers", "editing": "editing.run", "helpers": "helpers"}
FORMER = {"told": "detector-grounding"}                   # names of an earlier release


def shipped(name: str, folder: Path = FOLDER) -> dict:
    """An experiment's shipped result; FileNotFoundError names the command that makes it."""
    if name not in NAMES:
        raise ValueError(f"There is no experiment {name!r}; choose from {', '.join(NAMES)}.")
    file = folder / f"{name.replace('-', '_')}.json"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; python course.py experiment {name} makes it.")
    return json_object(file)


def result_file(name: str) -> Path:
    """Where an experiment's result goes when nobody says: never over one that is shipped."""
    file = FOLDER / f"{name.replace('-', '_')}.json"
    return Path("runs", file.name) if file.exists() else file


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment`: the name of one, then what it takes itself."""
    parser = OneLineParser(prog="gligen-lessons experiment", description=__doc__)
    parser.add_argument("name", choices=NAMES, type=present_name)
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...",
                        help="what it takes: NAME --help says")
    args = parser.parse_args(arguments)
    return import_module(f".{NAMES[args.name]}", __name__).main(args.rest)


def present_name(name: str) -> str:
    """What an experiment is called now; a note where its name has changed."""
    if name in FORMER:
        print(f"experiment {name} is called {FORMER[name]} now.", file=sys.stderr)
    return FORMER.get(name, name)
