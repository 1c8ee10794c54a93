"""Figures of edits as a report holds them: with interval and n, of all and of each kind."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..datasets.edits import EditCase
from ..metrics import bootstrap, share
from .editing import REGIONS

SIZE = 8                                                  # edits at once


def mean_figure(name: str, values: Tensor) -> dict[str, float | int | None]:
    """The mean of a figure of edits, (n,), as `metrics.share` has it: with its interval and n.

    What is not finite (nothing to measure) is left out.
    """
    known = values[values.isfinite()].double().numpy()
    if len(known) == 0:
        return {name: None, f"{name}, n": 0}
    low, high = bootstrap(known)
    return {name: float(known.mean()), f"{name}, low": low, f"{name}, high": high,
            f"{name}, n": len(known)}


def shared(name: str, hits: Tensor) -> dict[str, float | int | None]:
    """The part of edits (n,) that succeed, each of a scene of its own."""
    return share(name, hits, torch.arange(len(hits)))


def by_kind(name: str, values: Tensor, some: list[EditCase], figure: Callable) -> dict:
    """A figure of all edits, and of those of each kind: "NAME, KIND"."""
    kinds = np.array([case.edit.kind for case in some])
    return figure(name, values) | {key: value for kind in REGIONS for key, value in figure(
        f"{name}, {kind}", values[torch.from_numpy(kinds == kind)]).items()}


def figures_in_batches(measure: Callable[[list[EditCase], int], dict[str, Tensor]],
                       some: list[EditCase]) -> dict[str, Tensor]:
    """What `measure` says of SIZE edits at a time, rows joined; its second argument is a seed."""
    found = [measure(some[i:i + SIZE], i) for i in range(0, len(some), SIZE)]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}
