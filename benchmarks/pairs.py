"""Two ways of doing one thing, timed in turns."""

import time
from collections.abc import Callable
from statistics import median

import torch


def wait() -> None:
    """Let a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable) -> float:
    """Wall-clock seconds of one call."""
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def ratio(theirs: Callable, ours: Callable, rounds: int = 15) -> tuple[float, float, float]:
    """Their time over ours, the median of interleaved pairs, and both medians in seconds.

    Above 1 ours is faster. The order within a pair changes every round, so that what else the
    machine does falls on both.
    """
    theirs(), ours()
    pairs = []
    for i in range(rounds):
        order = (theirs, ours) if i % 2 else (ours, theirs)
        times = {work: seconds(work) for work in order}
        pairs.append((times[theirs], times[ours]))
    return (median(a / b for a, b in pairs), median(a for a, _ in pairs),
            median(b for _, b in pairs))
