"""Checks of lesson 2: those of DDIM here, the others in `_ddim_paths`."""

import torch

from .. import ddim as reference
from ..ddpm import predict_x0, q_sample
from ..schedule import expand_like
from . import Wrong, exercise, expect_close, expect_no_draw
from ._ddim_paths import COARSE, extrapolated_x0, slerp, timesteps

__all__ = ["alpha_bar_at", "ddim_ascend", "ddim_sigma", "ddim_step", "extrapolated_x0", "invert",
           "sample", "slerp", "timesteps"]

END = .995                                                # neither 1 nor alpha_bar[0]


def three_pictures(*, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """xt, eps_hat and noise (b,2,4,5), with values beyond [-1, 1]."""
    return tuple(1.5 * torch.randn(batch, 2, 4, 5) for _ in range(3))


@exercise("gligen_lessons.ddim:alpha_bar_at")
def alpha_bar_at(attempt):
    """Steps on both sides of 0, and an end that is not 1."""
    t, table = torch.tensor([7, 0, -1, 9, -4]), COARSE.alpha_bar
    want = torch.where(t < 0, END, table[t.clamp(min=0)])
    mistakes = {
        "In Python index -1 means the LAST entry, where all is noise. Below 0 stands x0, which "
        "has `end`.": table[t],
        "Steps below 0 got alpha_bar[0]. They mean x0 itself, which has `end`.":
            table[t.clamp(min=0)],
        "Step 0 is a step like any other and has alpha_bar[0]; only steps below 0 mean x0.":
            torch.where(t <= 0, END, table[t.clamp(min=0)]),
        "Steps below 0 got 1. Use `end`: Stable Diffusion ends elsewhere.":
            torch.where(t < 0, 1., table[t.clamp(min=0)]),
        "This is one entry too early: the code counts steps from 0, so step t is entry t.":
            torch.where(t < 0, END, table[(t - 1).clamp(min=0)])}
    error = expect_close(attempt(t.clone(), COARSE, END), want, "Look up alpha_bar for steps of 0 "
                         "and more, and give `end` to those below 0.", mistakes=mistakes)
    expect_close(attempt(torch.tensor([-1, 3]), COARSE), torch.tensor([1, table[3]]).double(),
                 "Without `end`, x0 has alpha_bar 1.")
    return f"finds 7 levels, three of them at x0 (largest difference {error:.0e})"


@exercise("gligen_lessons.ddim:ddim_sigma")
def ddim_sigma(attempt):
    """Jumps of one to six steps, and one that lands on x0."""
    t, t_prev, eta = torch.tensor([9, 7, 3, 2]), torch.tensor([3, 6, 1, -1]), .7
    now, before = COARSE.alpha_bar[t], reference.alpha_bar_at(t_prev, COARSE, END)
    variance = (1 - before) / (1 - now) * (1 - now / before)
    one_less = reference.alpha_bar_at(t - 1, COARSE, END)
    mistakes = {
        "This is the variance. sigma is its square root.": eta * variance,
        "eta stands in front of the root: eta 0.5 gives half of DDPM's standard deviation.":
            (eta * variance).sqrt(),
        "eta is missing.": variance.sqrt(),
        "The first fraction is upside down: the cleaner step, t_prev, stands above.":
            eta * ((1 - now) / (1 - before) * (1 - now / before)).sqrt(),
        "betas[t] belongs to a single step; over a jump 1 - alpha_bar_t / alpha_bar_prev takes "
        "its place.": eta * ((1 - before) / (1 - now) * COARSE.betas[t]).sqrt(),
        "This takes t - 1 for the step aimed at; the jump goes to t_prev.":
            eta * ((1 - one_less) / (1 - now) * (1 - now / one_less)).sqrt(),
        "This is the square root of beta of the whole jump, DDPM's larger choice. Equation 16 "
        "has one more fraction.": eta * (1 - now / before).sqrt(),
        "`end` is ignored: hand it on to `levels`.":
            reference.ddim_sigma(t, t_prev, COARSE, eta)}
    got = attempt(t.clone(), t_prev.clone(), COARSE, eta, END)
    if torch.is_tensor(got) and bool(got.isnan().all()):
        raise Wrong("all values are NaN: the root of a negative number. Either the second fraction "
                    "is upside down, or the two levels are exchanged: `levels` gives that of t "
                    "first, then that of t_prev.")
    error = expect_close(got, eta * variance.sqrt(),
                         "Compare with equation 16, fraction by fraction.", mistakes=mistakes)
    expect_close(attempt(t, t_prev, COARSE, 0.), 0 * variance, "With eta = 0 there is no noise.")
    return f"agrees with equation 16 on 4 jumps (largest difference {error:.0e})"


def ignored(eps_hat, xt, t, t_prev, noise, eta: float) -> dict[str, torch.Tensor]:
    """What a step gives that does not hand on eta or `end`, or clamps late, by its message."""
    step = reference.ddim_step
    return {"`clip` clamps the prediction of x0, not the result, which is noisy and may leave "
            "[-1, 1].": step(eps_hat, xt, t, t_prev, COARSE, eta, noise, False, END).clamp(-1, 1),
            "eta is ignored: hand it on to `ddim_sigma`.":
            step(eps_hat, xt, t, t_prev, COARSE, 1., noise, True, END),
            "`end` is ignored: hand it on, to both that ask for a level at t_prev.":
            step(eps_hat, xt, t, t_prev, COARSE, eta, noise, True)}


@exercise("gligen_lessons.ddim:ddim_step")
def ddim_step(attempt):
    """Three jumps at once, with noise, clipping and an end of their own; then without."""
    t, t_prev, eta = torch.tensor([9, 6, 1]), torch.tensor([4, 1, -1]), .8
    xt, eps_hat, noise = three_pictures()
    prediction = predict_x0(eps_hat, xt, t, COARSE)
    sigma = reference.ddim_sigma(t, t_prev, COARSE, eta, END)

    def mixed(level, x0_hat, taken=sigma**2, z=sigma, direction=eps_hat):
        a, b = level.sqrt(), (1 - level - taken).clamp(min=0).sqrt()
        return (expand_like(a, xt) * x0_hat + expand_like(b, xt) * direction
                + expand_like(z, xt) * noise)
    before, clipped = reference.alpha_bar_at(t_prev, COARSE, END), prediction.clamp(-1, 1)
    near, now, none = reference.alpha_bar_at(t - 1, COARSE, END), COARSE.alpha_bar[t], 0 * sigma
    again = (xt - expand_like(now.sqrt(), xt) * clipped) / expand_like((1 - now).sqrt(), xt)
    mistakes = ignored(eps_hat, xt, t, t_prev, noise, eta) | {
        "sigma^2 is missing in the direction back to xt: what the fresh noise adds, the old noise "
        "must give up, or the clouds grow too wide.": mixed(before, clipped, none),
        "The direction takes away sigma where sigma^2 belongs: variances add, not deviations.":
            mixed(before, clipped, sigma),
        "This aims at t - 1. The jump goes to t_prev.": mixed(near, clipped),
        "This keeps alpha_bar of t; the result must have that of t_prev.": mixed(now, clipped),
        "`clip` was asked for and the prediction of x0 was not clamped to [-1, 1].":
            mixed(before, prediction),
        "eps_hat was made again of the clipped x0. Some repositories do that; here, as in "
        "diffusers, it stays as it is.": mixed(before, clipped, direction=again),
        "The noise is multiplied by the variance; it needs sigma.":
            mixed(before, clipped, z=sigma**2),
        "No noise was added. With eta above 0, add sigma times `noise`.":
            mixed(before, clipped, z=none)}
    got = expect_no_draw(attempt, "noise", eps_hat.clone(), xt.clone(), t, t_prev, COARSE, eta,
                         noise.clone(), True, END)
    error = expect_close(got, mixed(before, clipped),
                         "Compare with equation 12: the prediction of x0, "
                         "the direction back to xt, the noise.", mistakes=mistakes)
    plain = attempt(eps_hat.clone(), xt.clone(), t, t_prev, COARSE)
    want = mixed(reference.alpha_bar_at(t_prev, COARSE), prediction, none, none)
    expect_close(plain, want,
                 "With eta = 0 and no clipping the prediction and eps_hat are mixed as in "
                 "q_sample, for t_prev.")
    return f"agrees with equation 12 on 3 jumps, one onto x0 (largest difference {error:.0e})"


def bent(xt, t):
    """A prediction of eps that is not linear and differs from step to step."""
    return torch.tanh(xt + torch.sin(t.to(xt.dtype).view(-1, 1, 1, 1)))


def expect_trajectory(got, want: list, message: str, mistakes: dict) -> float:
    """Compare a trajectory's [(t, x), ...] with the right one: its length, its steps, its pictures.

    `mistakes` maps a message to the last picture of a typical wrong trajectory.
    """
    if got is None or len(got := list(got)) == 0:
        raise Wrong("nothing was yielded. The loop yields (t, x) after each step.")
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in got):
        raise Wrong("each step must yield a pair: the step and the picture.")
    if torch.is_tensor(got[0][0]) and got[0][0].ndim > 1:
        raise Wrong("the pair is the wrong way round: yield the step first, then the picture.")
    if torch.is_tensor(got[0][0]) and got[0][0].numel() > 1:
        raise Wrong("the step came once for each picture, as the network wants it. Yield the one "
                    "number that the loop runs over.")
    if len(got) != len(want):
        raise Wrong(f"{len(got)} steps came, expected {len(want)}: yield after every step, once.")
    if [int(t) for t, _ in got] != [t for t, _ in want]:
        raise Wrong(f"the steps are {[int(t) for t, _ in got]}, expected {[t for t, _ in want]}: "
                    "those of the loop, at which the network is asked.")
    if len(got) > 1 and got[0][1] is got[-1][1]:
        raise Wrong("every step yields the same tensor, changed in place, and the caller's start "
                    "with it. Let each step make a new one.")
    expect_close(got[-1][1], want[-1][1], message, mistakes=mistakes)
    return max(expect_close(x, y, message) for (_, x), (_, y) in zip(got, want, strict=True))


def careless(xT: torch.Tensor, steps: list[int], aim=lambda t: t - 3, ask=lambda t: t,
             forget: bool = False, told: tuple = (.6, True, END), drawn: int = 9) -> torch.Tensor:
    """Where a loop ends that aims, asks the network, hands options on or draws in its own way."""
    g, xt, noise, (eta, clip, end) = torch.Generator().manual_seed(3), xT, None, told
    for i, step in enumerate(steps):
        t = torch.full((len(xt),), step)
        noise = torch.randn(xt.shape, generator=g) if i < drawn else noise
        xt = xT if forget else xt
        xt = reference.ddim_step(bent(xt, ask(t)), xt, t, aim(t), COARSE, eta, noise, clip, end)
    return xt


def loop_mistakes(xT: torch.Tensor, steps: list[int]) -> dict[str, torch.Tensor]:
    """Where typical wrong loops over these steps end, by their message."""
    def listed(t):
        return torch.full_like(t, [*steps[1:], -1][steps.index(int(t[0]))])
    return {
        "This aims at the next step of the list. As in diffusers it is t - T // steps, which may "
        "be another.": careless(xT, steps, listed),
        "This is the picture from before the step: first the step, then yield.":
            careless(xT, steps[:-1]),
        "This aims one step down each time. It leaves t for t - T // steps, or the trajectory ends "
        "before the noise is gone.": careless(xT, steps, lambda t: t - 1),
        "The network was asked about the step aimed at; it must be told the level of the picture "
        "that it is given.": careless(xT, steps, ask=lambda t: (t - 3).clamp(0)),
        "Every step starts from xT again: keep the result in `xt`.":
            careless(xT, steps, forget=True),
        "The last jump ends at step 0. Let it aim below 0, which means x0: clamp nothing.":
            careless(xT, steps, lambda t: (t - 3).clamp(0)),
        "`eta` is ignored: hand it on to `ddim_step`.": careless(xT, steps, told=(0., True, END)),
        "`clip` is ignored: hand it on to `ddim_step`.": careless(xT, steps, told=(.6, False, END)),
        "`end` is ignored: hand it on to `ddim_step`.": careless(xT, steps, told=(.6, True, 1.)),
        "One noise served for all steps. Draw inside the loop: noise is fresh at each.":
            careless(xT, steps, drawn=1)}


@exercise("gligen_lessons.ddim:sample")
def sample(attempt):
    """Three of ten steps, with noise, clipping and an end of their own; then a plain loop."""
    xT, _, _ = three_pictures(batch=2)

    def seeded():
        return torch.Generator().manual_seed(3)
    options = (COARSE, 3, .6, seeded(), True, "trailing", 0, END)
    want = list(reference.sample(bent, xT, *options))
    seeds = torch.get_rng_state()
    got = attempt(bent, xT.clone(), COARSE, 3, .6, seeded(), True, "trailing", 0, END)
    got = got if got is None else list(got)
    if not torch.equal(torch.get_rng_state(), seeds):
        raise Wrong("the noise did not come from `generator`, so a seed means no picture.")
    error = expect_trajectory(got, want,
                              "Each turn: predict eps at t, then ddim_step to t - T // steps "
                              "with everything that was asked for.",
                              loop_mistakes(xT, [t for t, _ in want]))
    g = torch.Generator()
    untouched = g.get_state()
    plain = attempt(bent, xT.clone(), COARSE, 5, generator=g)
    expect_trajectory(plain, list(reference.sample(bent, xT, COARSE, 5)),
                      "With eta = 0 the trajectory is a plain "
                      "chain of ddim_step.", {})
    if not torch.equal(g.get_state(), untouched):
        raise Wrong("with eta = 0 no noise may be drawn: the trajectory uses none.")
    moved_and_ungraded(attempt, xT, reference.sample)
    midway(attempt, xT)
    return f"samples the same 3 + 5 + 3 + 2 steps as the library (largest difference {error:.0e})"


def moved_and_ungraded(attempt, xT: torch.Tensor, own) -> None:
    """Three steps with an offset, by a network that has a parameter."""
    weight = torch.nn.Parameter(torch.ones(()))

    def model(xt, t):
        return weight * bent(xt, t)
    got = list(attempt(model, xT.clone(), COARSE, 3, offset=1))
    want = list(own(bent, xT, COARSE, 3, offset=1))
    if [int(t) for t, _ in got] == [t - 1 for t, _ in want]:
        raise Wrong("`offset` is ignored: hand it on to `timesteps`.")
    if got[-1][1].requires_grad:
        raise Wrong("the result still wants a gradient, so every step keeps its graph in memory: "
                    "put the network under torch.no_grad().")
    expect_trajectory(got, want, "With an `offset` only the steps move; each is as before.", {})


def midway(attempt, xT: torch.Tensor) -> None:
    """Only the last two of five steps, and none at all."""
    got = list(attempt(bent, xT.clone(), COARSE, 5, last=2))
    want = list(reference.sample(bent, xT, COARSE, 5, last=2))
    if len(got) == 5:
        raise Wrong("`last` is ignored: with last=2 of 5 steps only the last two are taken, from "
                    "a picture that stands midway.")
    if len(got) == 3 or [int(t) for t, _ in got] == [8, 6]:
        raise Wrong("`last` counts the steps that are taken, from the end. This takes the others.")
    expect_trajectory(got, want, "With `last` each step is as before: still t - T // steps.", {})
    if len(list(attempt(bent, xT.clone(), COARSE, 5, last=0))):
        raise Wrong("with last=0 no step is taken: steps[-0:] is the whole list, and `if last` "
                    "takes 0 for None.")


@exercise("gligen_lessons.ddim:ddim_ascend")
def ddim_ascend(attempt):
    """Three steps up, one of them from x0, plain and clipped."""
    t, t_next = torch.tensor([-1, 2, 4]), torch.tensor([1, 4, 9])
    xt, eps_hat, _ = three_pictures()

    def lifted(start, clip=False, goal=t_next, end=END):
        level = reference.alpha_bar_at(start, COARSE, end)
        prediction = (xt - expand_like((1 - level).sqrt(),
                                       xt) * eps_hat) / expand_like(level.sqrt(), xt)
        return q_sample(prediction.clamp(-1, 1) if clip else prediction, goal, eps_hat, COARSE)
    mistakes = {
        "The prediction of x0 was read at t_next; xt stands at level t.": lifted(t_next),
        "The result stays at level t; noise the prediction to t_next.":
            lifted(t, goal=t.clamp(min=0)),
        "Below 0 means x0, with alpha_bar `end`; an index of -1 reads the last entry, or step 0.":
            lifted(t.clamp(min=0)),
        "An index of -1 reads the LAST entry of alpha_bar, where all is noise; x0 has `end`.":
            lifted(t % COARSE.T),
        "`end` is ignored.": lifted(t, end=1.),
        "xt itself was noised again. First take its noise out: the prediction of x0.":
            q_sample(xt, t_next, eps_hat, COARSE)}
    got = attempt(eps_hat.clone(), xt.clone(), t, t_next, COARSE, False, END)
    error = expect_close(got, lifted(t),
                         "The prediction of x0 at level t, then q_sample to t_next with "
                         "the same eps_hat.", mistakes=mistakes)
    got = attempt(eps_hat.clone(), xt.clone(), t, t_next, COARSE, True, END)
    expect_close(got, lifted(t, True),
                 "`clip` was asked for and the prediction of x0 was not clamped.")
    return f"climbs 3 steps that ddim_step would undo (largest difference {error:.0e})"


@exercise("gligen_lessons.ddim:invert")
def invert(attempt):
    """Three of ten steps up, and a trajectory that stops on the way."""
    x0, _, _ = three_pictures(batch=2)
    want = list(reference.invert(bent, x0, COARSE, 3, True, "trailing", 0, END))
    visited, stride = [t for t, _ in want], COARSE.T // 3

    def hasty(ask=None, start=None, clip=True, end=END):
        xt = x0
        for step in visited:
            t = torch.full((2,), step)
            prediction = bent(xt, ask(t) if ask else t)
            xt = reference.ddim_ascend(prediction, xt, start(t) if start else t - stride, t,
                                       COARSE, clip, end)
        return xt
    mistakes = {
        "The network was asked about the step that is left. Some repositories do; here, as in "
        "diffusers, it is asked about the step aimed at.":
            hasty(ask=lambda t: (t - stride).clamp(0)),
        "Each step starts T // steps below t, not one below.": hasty(start=lambda t: t - 1),
        "The first step starts at step 0. Let it start below 0, which means x0: clamp nothing.":
            hasty(start=lambda t: (t - stride).clamp(0)),
        "`clip` is ignored: hand it on to `ddim_ascend`.": hasty(clip=False),
        "`end` is ignored: hand it on to `ddim_ascend`.": hasty(end=1.),
        "Every step starts from x0 again: keep the result in `xt`.":
            reference.ddim_ascend(bent(x0, torch.full((2,), visited[-1])), x0,
                                  torch.full((2,), visited[-1] - stride),
                                  torch.full((2,), visited[-1]), COARSE, True, END)}
    got = attempt(bent, x0.clone(), COARSE, 3, True, "trailing", 0, END)
    error = expect_trajectory(got, want,
                              "Each turn: predict eps at the step aimed at, then ddim_ascend "
                              "to it from t - T // steps, in the list or not.", mistakes)
    part = attempt(bent, x0.clone(), COARSE, 5, upto=2)
    expect_trajectory(part, list(reference.invert(bent, x0, COARSE, 5, upto=2)),
                      "With `upto` the trajectory is the "
                      "same, only shorter.", {})
    if len(list(attempt(bent, x0.clone(), COARSE, 5, upto=0))):
        raise Wrong("with upto=0 no step is taken; only None means all.")
    moved_and_ungraded(attempt, x0, reference.invert)
    return f"climbs the same 3 + 2 steps as the library (largest difference {error:.0e})"
