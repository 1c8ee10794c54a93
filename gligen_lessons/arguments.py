"""How every command reads its words: a wrong one is answered in one line, with exit status 2."""

import argparse
import os
from math import inf
from pathlib import Path

BATCH = 65_536                                            # samples: no machine takes more at once
PICTURES = 1_000                                          # of one caption, painted side by side
SEEDS = 2 ** 32                                           # torch's CPU generator reads 32 bits


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str):
        self.exit(2, f"error: {' '.join(message.split())} (see {self.prog} --help)\n")


def number(text: str, kind: type, least: float, violation: str, most: float = inf) -> float:
    """A finite number of a kind, `least` to `most`; ArgumentTypeError complains of another."""
    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value < inf:
        raise argparse.ArgumentTypeError(f"{violation}, got {text!r}")
    if value > most:
        raise argparse.ArgumentTypeError(f"it must be at most {most:,}, got {text!r}")
    return value


def count_of(text: str) -> int:
    """A whole number of at least 1, and few enough that counting so far has an end."""
    return number(text, int, 1, "it must be a whole number of at least 1", 10 ** 9)


def batch_of(text: str) -> int:
    """A number of samples that are computed at once."""
    return number(text, int, 1, "it must be a whole number of at least 1", BATCH)


def picture_count(text: str) -> int:
    """A number of pictures that are painted side by side."""
    return number(text, int, 1, "it must be a whole number of at least 1", PICTURES)


def compared_of(text: str) -> int:
    """A number of pictures of which two sets are compared: one alone has no spread."""
    return number(text, int, 2, "it must be a whole number of at least 2", 10 ** 6)


def seed_of(text: str) -> int:
    """A whole number of at least 0 that torch tells from every other seed."""
    return number(text, int, 0, "a seed is a whole number of at least 0", SEEDS - 1)


def duration_of(text: str) -> float:
    """A number of minutes or hours, at least 0."""
    return number(text, float, 0, "it must be a number of at least 0")


def scale_of(text: str) -> float:
    """A guidance scale."""
    return number(text, float, 0, "the guidance scale must be a finite number of at least 0")


def part_of(text: str) -> float:
    """A part of a whole, 0 to 1."""
    return number(text, float, 0, "it must be a number from 0 to 1", 1)


def words_of(text: str) -> str:
    """A text for the model: what the shell handed over must be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(text).decode("ascii", "backslashreplace")
        raise argparse.ArgumentTypeError(f"the text {shown!r} is not UTF-8") from None
    return text


def file_of(text: str) -> Path:
    """A file that can be written later, when the work is done."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name a file")
    folder_of(str(path.parent))
    return path


def folder_of(text: str) -> Path:
    """A folder that is there and can be written, or one that can be made."""
    path = Path(text)
    try:
        there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    except (StopIteration, ValueError):                   # a zero byte in the name
        raise argparse.ArgumentTypeError(f"{text!r} is no place on this machine") from None
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: look at {there}")
    return path
