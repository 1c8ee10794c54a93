"""How every command reads its words: a wrong one is answered in one line, with exit status 2."""

import argparse


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def number(text: str, kind: type, least: float, complaint: str) -> float:
    """A finite number of a kind, at least `least`; ArgumentTypeError complains of another."""
    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{complaint}, got {text!r}")
    return value


def count_of(text: str) -> int:
    """A whole number of at least 1."""
    return number(text, int, 1, "it must be a whole number of at least 1")


def seed_of(text: str) -> int:
    """A whole number of at least 0."""
    return number(text, int, 0, "a seed is a whole number of at least 0")


def duration_of(text: str) -> float:
    """A number of minutes or hours, at least 0."""
    return number(text, float, 0, "it must be a number of at least 0")
