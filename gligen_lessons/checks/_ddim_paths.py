"""Checks of lesson 2 beside DDIM: steps to visit, a second-order solver, between two noises."""

import numpy as np
import torch
from torch.nn import functional as F

from .. import ddim
from .. import dpm_solver as reference
from ..schedule import Schedule, expand_like
from . import Wrong, exercise, expect_close

COARSE = Schedule.linear(10, .02, .3)                     # ten steps that differ a lot


@exercise("gligen_lessons.dpm_solver:extrapolated_x0")
def extrapolated_x0(attempt):
    """Three steps of different length, after steps of different length."""
    x0_hat, x0_last = 1.5 * torch.randn(2, 3, 2, 4, 5)
    t_last, t, t_prev = torch.tensor([[9, 8, 5], [5, 7, 4], [4, 2, 0]])
    now, last, ahead = (reference.half_log_snr(i, COARSE) for i in (t, t_last, t_prev))
    kept = COARSE.alpha_bar

    def along(factor):
        return x0_hat + expand_like(factor, x0_hat) * (x0_hat - x0_last)
    ratio = (ahead - now) / (now - last)
    signal = [kept[i].log() for i in (t, t_last, t_prev)]
    mistakes = {
        "This goes a whole step ahead. The step needs x0_hat at its middle: half as far.":
            along(ratio),
        "The ratio is upside down: the step that comes now stands above, the last one below.":
            along(.5 / ratio),
        "This goes back, towards the last prediction. Go on in the direction from it to x0_hat.":
            along(-ratio / 2),
        "The lengths were measured in t. Measure them in lambda: half_log_snr.":
            along((t - t_prev) / (t_last - t) / 2),
        "This is x0_hat itself, so the step is DDIM's.": x0_hat,
        "The mean of both predictions lies behind: x0_hat is the newer one, go beyond it.":
            (x0_hat + x0_last) / 2,
        "The steps differ in length: the ratio of the two lengths is missing.": along(now * 0 + .5),
        "The middle of the step was taken in t. It is half way in lambda.":
            along((reference.half_log_snr((t + t_prev) // 2, COARSE) - now) / (now - last)),
        "This divides by both steps together. Divide by the last one, lambda(t) - lambda(t_last).":
            along((ahead - now) / (ahead - last) / 2),
        "x0_last is the start of the line here. It starts at x0_hat, and x0_last only gives its "
        "direction.": x0_last + expand_like(ratio / 2, x0_hat) * (x0_hat - x0_last),
        "lambda is the log of signal to NOISE: log of alpha_bar / (1 - alpha_bar), halved.":
            along((signal[2] - signal[0]) / (signal[0] - signal[1]) / 2)}
    told = attempt(x0_hat.clone(), x0_last.clone(), t.clone(), t_last.clone(), t_prev.clone(),
                   COARSE)
    error = expect_close(told, along(ratio / 2), "x0_hat, plus (x0_hat - x0_last) times half this "
                         "step's length in lambda over the last step's.", mistakes=mistakes)
    return f"meets the line in lambda at the middle of 3 steps (largest difference {error:.0e})"


def misplaced(T: int, steps: int, spacing: str, offset: int, want: list[int]) -> dict[str, list]:
    """What typical mistakes visit instead of `want`, by their message."""
    even = [(steps - 1 - i) * (T - 1) / (steps - 1) for i in range(steps)]
    mistakes = {
        "leading": {
            "leading: `offset` is missing.": [t - offset for t in want],
            "leading: the distance between steps is T // steps, a whole number.":
                [i * T / steps + offset for i in reversed(range(steps))]},
        "trailing": {
            "trailing: the first step is T - 1, not T.": [t + 1 for t in want],
            "trailing: round first, then take 1 off, or halves go to the other neighbour.":
                [int(t) for t in np.arange(T - 1, -1, -T / steps)[:steps].round()],
            "trailing: T / steps keeps its fraction; // cuts it.":
                [T - 1 - i * (T // steps) for i in range(steps)],
            "`offset` is for leading steps only.": [t + offset for t in want]},
        "linspace": {
            "linspace: a half goes to the even neighbour, as NumPy's `round` does it.":
                [int(t + .5) for t in even],
            "linspace: round to the nearest step; int() and // cut.": [int(t) for t in even],
            "linspace: these are no whole steps. Round them.": even,
            "`offset` is for leading steps only.": [t + offset for t in want]}}[spacing]
    mistakes["The steps come from low to high; a sampler walks down."] = want[::-1]
    return {message: value for message, value in mistakes.items() if value != want}


@exercise("gligen_lessons.ddim:timesteps")
def timesteps(attempt):
    """Counts that divide T and counts that do not, all with an offset and without."""
    cases = [(1000, 4, "leading", 0), (1000, 7, "leading", 3), (1000, 16, "trailing", 3),
             (1000, 7, "trailing", 0), (1000, 61, "trailing", 0), (1000, 4, "linspace", 3),
             (50, 7, "linspace", 0)]
    for case in cases:
        got = attempt(*case)
        if got is None:
            raise Wrong("it returned None. Does it end with `return`?")
        got, want = [float(t) for t in got], ddim.timesteps(*case)
        if len(got) == case[1] + 1:
            raise Wrong(f"{case[1]} steps were asked and {len(got)} came ({case[2]}): a range over "
                        "all of T runs one too far here. Take `steps` of them.")
        mistakes = {m: torch.tensor(value) for m, value in misplaced(*case, want).items()}
        expect_close(torch.tensor(got), torch.tensor(want).float(), f"timesteps{case} is {want}, "
                     f"and this gives {got}.", 1e-9, mistakes)
    if any(torch.as_tensor(t).is_floating_point() for t in attempt(*cases[0])):
        raise Wrong("these are whole, but of type float; the schedule is looked up with integers: "
                    "int(t) for each.")
    return f"visits the library's steps, which are those of diffusers, in all {len(cases)} cases"


@exercise("gligen_lessons.ddim:slerp")
def slerp(attempt):
    """Two noises of different length, at two places on the way, and two equal ones."""
    a, b = torch.randn(2, 3, 4), 1.3 * torch.randn(2, 3, 4) + .4
    for part in (.3, .8):
        want = ddim.slerp(a, b, part)
        line = torch.lerp(a, b, part)
        cosine = (a * b).sum() / (a.norm() * b.norm())
        angle = cosine.arccos()
        wave_a, wave_b = ((1 - part) * angle).sin(), (part * angle).sin()
        rows = torch.stack([ddim.slerp(x, y, part) for x, y in zip(a, b, strict=True)])
        each = _with_angle(a, b, part, F.cosine_similarity(a, b, dim=-1)[..., None].arccos())
        mistakes = {
            "This is the straight line, which is too short half way. (Is `part` inside the sine?)":
                line,
            "This is the straight line, stretched. It has the right direction only in the middle: "
            "the angle must grow evenly.": line / line.norm() * want.norm(),
            "a and b were brought to length one. That is for the cosine; the sum takes them as "
            "they are.": ddim.slerp(a / a.norm(), b / b.norm(), part),
            "a and b are exchanged: part 0 must give a.": ddim.slerp(b, a, part),
            "The division by the sine of the angle is missing.": wave_a * a + wave_b * b,
            "This takes the cosine for the angle: arccos is missing.":
                (((1 - part) * cosine).sin() * a + (part * cosine).sin() * b) / cosine.sin(),
            "The cosine must be divided by both lengths.": _unscaled(a, b, part),
            "The angle was measured row by row. One noise is one long vector: one angle for all "
            "of it.": rows,
            "Each row got an angle of its own. a and b count as one long vector: one angle.": each}
        error = expect_close(attempt(a.clone(), b.clone(), part), want, "Compare with the formula: "
                             "two sines above, one below.", mistakes=mistakes)
    a = torch.eye(7)[:, None]                  # in float32 its cosine with itself exceeds 1
    between = attempt(a.clone(), a.clone(), .5)
    if torch.is_tensor(between) and bool(between.isnan().any()):
        raise Wrong("between a noise and itself this is NaN. Rounding may bring the cosine above "
                    "1: clamp it to [-1, 1] before arccos. And where the sine of the angle is "
                    "almost 0, take the straight line.")
    expect_close(between, a, "Between a noise and itself lies that noise: where the sine of the "
                 "angle is almost 0, take the straight line.", 1e-4)
    return f"keeps to the great circle at 2 places (largest difference {error:.0e})"


def _unscaled(a: torch.Tensor, b: torch.Tensor, part: float) -> torch.Tensor:
    """slerp with an angle from the bare inner product, a usual mistake."""
    angle = (a * b).sum().clamp(-1, 1).arccos()
    return _with_angle(a, b, part, angle, .01)


def _with_angle(a, b, part: float, angle: torch.Tensor, least: float = 0.) -> torch.Tensor:
    """The formula of slerp with this angle, one for all or one a row."""
    return (((1 - part) * angle).sin() * a
            + (part * angle).sin() * b) / angle.sin().clamp(min=least)
