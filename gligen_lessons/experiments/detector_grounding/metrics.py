"""The experiment's figures: what each arm's pictures are like, and arms against each other."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from ...metrics import bootstrap, frechet_distance, kernel_distance
from .arms import ARMS, CONTROLS, InpaintingCase

PAIRS = ("B-A", "C-B", "D-A", "A-N", "A-F")
DISTANCES = {"kid": kernel_distance, "frechet": frechet_distance}
DRAWS = 200                                               # of scenes, for a distance's interval
LEVELS = 127.5                                            # of brightness in a step of 1


def outside(generated: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What changed where mask (b,1,h,w) is 1: mean in 0..255 and PSNR in dB, (b,) each.

    Nothing changed is infinitely many dB.
    """
    off, size = (generated - x) * mask, 3 * mask.flatten(1).sum(1).clamp(min=1)
    mean = off.abs().flatten(1).sum(1) / size
    square = off.square().flatten(1).sum(1) / size
    return LEVELS * mean, 10 * torch.log10(4 / square)


@dataclass
class ArmResults:
    """What is kept of one arm's pictures: numbers by name, features, and which scenes count."""

    columns: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    image_features: list[Tensor] = field(default_factory=list)
    crop_features: list[Tensor] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, judge, shown: Tensor, some: list[InpaintingCase],
            facts: dict[str, Tensor] | None = None, counts: list[bool] | None = None) -> list[dict]:
        """Judge some pictures (b,3,h,w) and keep `facts` (b,) beside; a dict for each."""
        facts = judge.accuracy(shown, some) | (facts or {})
        for name, values in facts.items():
            self.columns[name] += values.double().tolist()
        self.image_features.append(judge.image_features(shown).double())
        boxes = torch.stack([one.box for one in some])
        self.crop_features.append(judge.crop_features(shown, boxes).double())
        self.counts += counts or [True] * len(some)
        return [{name: plain(values[i]) for name, values in facts.items()}
                for i in range(len(some))]

    def features(self) -> dict[str, Tensor]:
        """The features by the ending of their distances' names: of pictures, and of crops."""
        return {"": torch.cat(self.image_features), ", crops": torch.cat(self.crop_features)}

    def rows(self) -> np.ndarray:
        """Which scenes count."""
        return np.flatnonzero(self.counts)


def plain(value: Tensor) -> bool | float | None:
    """A number as JSON holds it; None for what is not finite."""
    if value.dtype == torch.bool:
        return bool(value)
    return round(float(value), 5) if bool(value.isfinite()) else None


def changes(judge, shown: Tensor, generated: Tensor, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How far pictures are from what was there, (b,) by name; `shown` may be pasted."""
    before, psnr = outside(generated, x, mask)
    return {"perceptual distance": judge.perceptual_distance(shown, x),
            "changed outside, before pasting": before, "psnr outside, before pasting": psnr,
            "changed outside, after pasting": outside(shown, x, mask)[0]}


def distances(kept: ArmResults, rows: np.ndarray, real: ArmResults) -> dict[str, float | None]:
    """KID and Frechet distance of some scenes' pictures to real ones; None for fewer than two."""
    found, true = kept.features(), real.features()
    return {name + end: measure(found[end][rows], true[end]) if len(rows) > 1 else None
            for end in found for name, measure in DISTANCES.items()}


def averages(kept: ArmResults, rows: np.ndarray) -> dict[str, float | None]:
    """The mean of each column over some scenes, of what is finite."""
    made = {}
    for name, values in kept.columns.items():
        chosen = np.array(values)[rows]
        chosen = chosen[np.isfinite(chosen)]
        made[name] = float(chosen.mean()) if len(chosen) else None
    return made


def paired(a: ArmResults, b: ArmResults, real: ArmResults, draws: int = DRAWS) -> dict:
    """How much more of everything b has than a, on the scenes that count in both.

    Each with the 95 % interval of drawing scenes again with replacement, the same for both
    arms; of a distance, which no single scene has, `draws` times. {"scenes": 0} where no
    scene counts in both.
    """
    rows = np.intersect1d(a.rows(), b.rows())
    made = {"scenes": len(rows)}
    for name in a.columns if len(rows) else ():
        more = np.array(b.columns[name])[rows] - np.array(a.columns[name])[rows]
        more = more[np.isfinite(more)]
        if len(more):
            made[name] = interval(float(more.mean()), bootstrap(more))
    if len(rows) < 2:
        return made
    found, dice = difference(a, b, rows, real), np.random.default_rng(0)
    again = [difference(a, b, dice.choice(rows, len(rows)), real) for _ in range(draws)]
    return made | {name: interval(value, np.percentile([one[name] for one in again], [2.5, 97.5]))
                   for name, value in found.items()}


def difference(a: ArmResults, b: ArmResults, rows: np.ndarray,
               real: ArmResults) -> dict[str, float]:
    """How much farther from real pictures b is than a, by each distance."""
    first, second = distances(a, rows, real), distances(b, rows, real)
    return {name: second[name] - first[name] for name in first}


def interval(mean: float, ends) -> dict[str, float]:
    """A figure with its interval, as JSON holds it."""
    return {"mean": mean, "low": float(ends[0]), "high": float(ends[1])}


def corrected(row: dict[str, float], comparisons: int) -> tuple[float, float]:
    """An interval of 95 % made to hold for so many comparisons at once (Bonferroni).

    Widened about its mean as a normal one would be.
    """
    wider = norm.ppf(1 - .025 / comparisons) / norm.ppf(.975)
    return tuple(row["mean"] + wider * (row[end] - row["mean"]) for end in ("low", "high"))


def bounded(row: dict[str, float], comparisons: int, count: int) -> tuple[float, float]:
    """`corrected`, but never without width: no difference in `count` scenes is not certainty.

    What each scene shows with probability ln(20 q) / count, none of them shows with probability
    .05 / q: the rule of three, for q comparisons.
    """
    low, high = corrected(row, comparisons)
    most = math.log(20 * comparisons) / count
    return (low - most, high + most) if low == high else (low, high)


def all_figures(kept: dict[str, ArmResults], draws: int = DRAWS) -> dict:
    """All figures: of each arm there is, of what stands beside them, and of pairs of arms."""
    real, arms = kept["others"], [arm for arm in (*ARMS, *CONTROLS) if arm in kept]

    def all_of(name: str) -> dict:
        rows = kept[name].rows()
        return {"scenes": len(rows)} | averages(kept[name], rows) | distances(
            kept[name], rows, real)

    return {"arms": {arm: all_of(arm) for arm in arms},
            "beside": {name: all_of(name) for name in ("renders", "reconstructions")},
            "paired": {pair: paired(kept[pair[2]], kept[pair[0]], real, draws)
                       for pair in PAIRS if {pair[0], pair[2]} <= set(arms)}}
