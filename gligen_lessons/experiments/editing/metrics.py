"""What an edit is measured by: does it show what was asked, and what else did it change?"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...attribute_referee import AttributeReferee, attributes
from ...clip import CLIP
from ...datasets.edits import EditCase
from ...eval.editing import psnr_in, succeeded
from ...images import resized
from ...metrics import share
from ..detector_grounding.judges import Referee

DRAWS = 1000                                              # of scenes, for an interval


@dataclass(frozen=True)
class Judges:
    """Who judges: the referees, which made no picture, and CLIP, which did, for its own score."""

    attributes: AttributeReferee
    referee: Referee
    clip: CLIP
    read: Callable


@torch.no_grad()
def clip_score(clip: CLIP, read: Callable, x: Tensor, texts: list[str]) -> Tensor:
    """100 times the cosine of each picture (b,3,h,w) with its text, (b,) (Hessel et al. 2021)."""
    images = clip.encode_image(resized(x, clip.vision_model.side))
    said = clip.encode_text(read(texts))
    return 100 * torch.nn.functional.cosine_similarity(images, said).cpu()


def edit_figures(judges: Judges, x: Tensor, some: list[EditCase]) -> dict[str, Tensor]:
    """Every figure of edited pictures x (b,3,128,128), a number (b,) or a vector (b,d) each."""
    before, after, changed = (torch.stack([getattr(case, name) for case in some])
                              for name in ("before", "after", "changed"))
    changed = changed[:, None]                                              # (b,1,h,w)
    found = attributes(judges.attributes, x, torch.stack([case.box for case in some]))
    return {"success": succeeded(found, some).float(),
            "psnr outside": psnr_in(x, before, 1 - changed),
            "psnr inside to the answer": psnr_in(x, after, changed),
            "distance to the source": judges.referee.perceptual_distance(x, before),
            "distance to the answer": judges.referee.perceptual_distance(x, after),
            "clip score": clip_score(judges.clip, judges.read, x, [case.query for case in some]),
            "features": judges.referee.image_features(x)}


def together(parts: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The figures of several batches as one array each."""
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


def summary(made: dict[str, np.ndarray], real: np.ndarray, kinds: list[str]) -> dict:
    """A row of the result: means with intervals over scenes, success by kind, and the distance
    of mean features to those of the answers, kind by kind (FlexIT's CSFID, classes by kind).
    """
    row: dict = {}
    for name, values in made.items():
        if values.ndim == 1:
            some = torch.tensor(values[np.isfinite(values)])
            row |= share(name, some, torch.arange(len(some)))
    of = np.array(kinds)
    row["success by kind"] = {kind: float(made["success"][of == kind].mean())
                              for kind in dict.fromkeys(kinds)}
    row["csfid"] = float(np.mean([np.square(
        made["features"][of == kind].mean(0) - real[of == kind].mean(0)).sum()
        for kind in dict.fromkeys(kinds)]))
    return row


def frontier(success: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Success and cost (s,) of the strengths worth taking, from the cheapest on: those that
    succeed more often than every cheaper one.
    """
    order = np.lexsort((-success, cost))
    success, cost = success[order], cost[order]
    best = np.maximum.accumulate(success)
    worth = np.append(True, success[1:] > best[:-1])
    return success[worth], cost[worth]


def at_success(success: np.ndarray, cost: np.ndarray, level: float) -> float:
    """What a level of success costs on a `frontier` (s,): on the straight line between two
    strengths, NaN where it does not reach.
    """
    if not success[0] <= level <= success[-1]:
        return np.nan
    return float(np.interp(level, success, cost))


def compared(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]], cost: str,
             draws: int = DRAWS) -> dict:
    """How much more b changes than a at equal success, with its interval over scenes.

    a and b hold the figures of the same scenes, one dict a strength. Levels of success are those
    that both reach, nine in ten of the range; the differences of what they cost are averaged. Of
    a PSNR, which falls the more is changed, it is how much less b has. None without such levels.
    """
    n, sign = len(a[0]["success"]), -1 if cost.startswith("psnr") else 1

    def gap(rows: np.ndarray) -> float:
        curves = [frontier(np.array([one["success"][rows].mean() for one in each]),
                           np.array([sign * np.nanmean(finite(one[cost][rows])) for one in each]))
                  for each in (a, b)]
        low = max(success[0] for success, _ in curves)
        high = min(success[-1] for success, _ in curves)
        if low >= high:
            return np.nan
        levels = np.linspace(low + .05 * (high - low), high - .05 * (high - low), 19)
        return float(np.mean([at_success(*curves[1], level) - at_success(*curves[0], level)
                              for level in levels]))

    dice = np.random.default_rng(0)
    again = np.array([gap(dice.integers(n, size=n)) for _ in range(draws)])
    mean = gap(np.arange(n))
    if not np.isfinite(mean):
        return {"cost": cost, "mean": None}
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return {"cost": cost, "mean": mean, "low": float(low), "high": float(high), "scenes": n}


def outcome(claim: dict) -> str:
    """What a comparison says of the claim that the second changes more than the first."""
    if claim["mean"] is None:
        return "no success that both reach"
    if claim["low"] > 0:
        return "held"
    return "the reverse holds" if claim["high"] < 0 else "not shown"


def finite(values: np.ndarray) -> np.ndarray:
    """The same numbers, infinities as NaN."""
    return np.where(np.isfinite(values), values, np.nan)
