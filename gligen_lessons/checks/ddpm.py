"""Checks of lesson 1: those of the process here, the others in `_ddpm_forms`."""

import torch

from .. import ddpm as reference
from ..schedule import expand_like
from . import Wrong, exercise, expect_close, expect_no_draw
from ._ddpm_forms import (
    STEEP,
    cosine_betas,
    eps,
    from_velocity,
    timestep_embedding,
    unbiased_mmd,
    update,
    vlb_weight,
)

__all__ = ["cosine_betas", "ddpm_step", "eps", "from_velocity", "l_simple", "posterior",
           "predict_x0", "q_sample", "q_step", "timestep_embedding", "unbiased_mmd", "update",
           "vlb_weight"]

BETAS, ALPHAS, ALPHA_BAR = STEEP.betas, STEEP.alphas, STEEP.alpha_bar
FROM_ONE = "This is one entry off: the code counts steps from 0, so step t is entry t."
NO_ROOTS = "The square roots are missing: a variance scales the noise by its square root."


def pictures_to_noise(count: int) -> list[torch.Tensor]:
    """`count` different tensors (3,2,4,5), not square and with values beyond [-1, 1]."""
    return [1.5 * torch.randn(3, 2, 4, 5) for _ in range(count)]


def mixed(x, signal, eps, noise, t) -> torch.Tensor:
    """signal[t] x + noise[t] eps, from two lists (T,)."""
    return expand_like(signal[t], x) * x + expand_like(noise[t], x) * eps


@exercise("gligen_lessons.ddpm:q_step")
def q_step(attempt):
    """Equation 2, at three steps far apart."""
    x, eps = pictures_to_noise(2)
    t, keep, add = torch.tensor([11, 4, 1]), ALPHAS.sqrt(), BETAS.sqrt()
    mistakes = {
        "alpha_bar is the product of all steps so far. A single step keeps alphas[t].":
            mixed(x, ALPHA_BAR.sqrt(), eps, add, t),
        NO_ROOTS: mixed(x, ALPHAS, eps, BETAS, t),
        "The noise needs the square root of beta: beta is its variance.":
            mixed(x, keep, eps, BETAS, t),
        "The picture needs the square root of alpha, so that the two variances add up to one.":
            mixed(x, ALPHAS, eps, add, t),
        "The old picture must shrink a little, by sqrt(alphas[t]); else the variance grows without "
        "end.": mixed(x, ALPHAS**0, eps, add, t),
        FROM_ONE: mixed(x, keep, eps, add, t - 1)}
    told = expect_no_draw(attempt, "eps", x.clone(), t.clone(), eps.clone(), STEEP)
    error = expect_close(told, mixed(x, keep, eps, add, t), "Compare your two factors with "
                         "equation 2: which list, and is there a root?", mistakes=mistakes)
    return f"takes one step as in equation 2, at three steps (largest difference {error:.0e})"


@exercise("gligen_lessons.ddpm:q_sample")
def q_sample(attempt):
    """Equation 4, at three steps far apart."""
    x, eps = pictures_to_noise(2)
    t, signal, noise = torch.tensor([0, 5, 11]), ALPHA_BAR.sqrt(), (1 - ALPHA_BAR).sqrt()
    mistakes = {
        "This is a single step. The jump from x0 needs alpha_bar, the product of all alphas.":
            mixed(x, ALPHAS.sqrt(), eps, BETAS.sqrt(), t),
        NO_ROOTS: mixed(x, ALPHA_BAR, eps, 1 - ALPHA_BAR, t),
        "The noise needs a square root: 1 - alpha_bar is its variance.":
            mixed(x, signal, eps, 1 - ALPHA_BAR, t),
        "The picture needs a square root: squared factors must add up to one.":
            mixed(x, ALPHA_BAR, eps, noise, t),
        "Picture and noise are swapped: at t = 0 the picture is almost untouched.":
            mixed(x, noise, eps, signal, t),
        "Each picture has its own step: look up t[i] for picture i, not one step for all.":
            mixed(x, signal, eps, noise, t[:1].expand(3)),
        FROM_ONE: mixed(x, signal, eps, noise, (t - 1).clamp(min=0))}
    told = expect_no_draw(attempt, "eps", x.clone(), t.clone(), eps.clone(), STEEP)
    error = expect_close(told, mixed(x, signal, eps, noise, t), "Compare your two factors with "
                         "equation 4.", mistakes=mistakes)
    return f"mixes picture and noise as in equation 4 (largest difference {error:.0e})"


def posterior_by_precisions(x0, xt, now, before) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of a product of two Gaussians in x_prev; now, before (b,) are alpha_bar."""
    alpha = now / before
    variance = 1 / (alpha / (1 - alpha) + 1 / (1 - before))
    mean = expand_like(variance * alpha.sqrt() / (1 - alpha), xt) * xt
    mean = mean + expand_like(variance * before.sqrt() / (1 - before), xt) * x0
    return mean, expand_like(variance, xt)


@exercise("gligen_lessons.ddpm:posterior")
def posterior(attempt):
    """Single steps, jumps, and the landing on x0, against Bayes' rule."""
    x0, xt = pictures_to_noise(2)
    t = torch.tensor([11, 6, 1])
    mean, variance = posterior_by_precisions(x0, xt, ALPHA_BAR[t], ALPHA_BAR[t - 1])
    mistakes = slips_of_the_posterior(x0, xt, t, mean, variance)
    told = attempt(x0.clone(), xt.clone(), t.clone(), STEEP)
    if isinstance(told, torch.Tensor):
        raise Wrong("expected two values, the mean and the variance; it returned one tensor.")
    error = expect_close(told, (mean, variance), "On single steps mean and variance differ from "
                         "Bayes' rule. Compare with equation 7, factor by factor.",
                         mistakes=mistakes)
    check_jumps(attempt, x0, xt)
    below = torch.full_like(t, -1)
    landed = attempt(x0.clone(), xt.clone(), t, STEEP, below)
    if isinstance(landed, tuple) and not all(bool(part.isfinite().all()) for part in landed):
        raise Wrong("at the landing on x0, 1 - before is 0, and 1 / (1 - before) is infinite. Take "
                    "the form over one fraction, equation 7, where nothing is divided by it.")
    expect_close(landed, (x0, torch.zeros(3, 1, 1, 1)),
                 "A t_prev below 0 means x0: the mean is x0, the variance 0. `levels` gives "
                 "alpha_bar = 1 there; entry -1 of a list would be its LAST one.")
    return f"agrees with Bayes' rule on 6 steps, jumps and landings on x0 (off by {error:.0e})"


def slips_of_the_posterior(x0, xt, t, mean, variance) -> dict[str, tuple]:
    """The typical wrong answers on single steps, by what a check says of them."""
    swapped, _ = posterior_by_precisions(xt, x0, ALPHA_BAR[t], ALPHA_BAR[t - 1])
    alpha, beta, now, before = (expand_like(v, xt) for v in (
        ALPHAS[t], BETAS[t], ALPHA_BAR[t], ALPHA_BAR[t - 1]))
    from_xt = alpha.sqrt() * (1 - before) / (1 - now) * xt
    overdone = (before.sqrt() * x0 + now.sqrt() * (1 - before) / (1 - now) * xt, 1 - before)
    bare = (before * beta * x0 + alpha * (1 - before) * xt) / (1 - now)
    return {
        "The variance is beta (fixed large). Equation 7 shrinks it by (1 - before) / (1 - now): "
        "x0 is known here, and that narrows x_prev down.": (mean, beta),
        "This returns the standard deviation. Equation 7 is the variance, without a root.":
            (mean, variance.sqrt()),
        "The fraction of the variance is upside down: (1 - before) / (1 - now) is below 1.":
            (mean, (1 - now) / (1 - before) * beta),
        "The two weights are swapped: read in equation 7 which belongs to x0 and which to xt.":
            (swapped, variance),
        "The variance is right. In the mean the roots are missing: sqrt(before) stands with x0, "
        "sqrt(alpha) with xt.": (bare, variance),
        "alpha_bar at t stands where alpha belongs: alpha is now / before, one step's share.":
            overdone,
        "The variance is right. In the mean x0 goes with the root of alpha_bar at t_prev, before, "
        "not with that at t.": (now.sqrt() * beta / (1 - now) * x0 + from_xt, variance)}


def check_jumps(attempt, x0, xt) -> None:
    """The part of the check of `posterior` where t_prev is given."""
    t, t_prev = torch.tensor([11, 9, 6]), torch.tensor([7, 1, 0])
    want = posterior_by_precisions(x0, xt, ALPHA_BAR[t], ALPHA_BAR[t_prev])
    one_step = posterior_by_precisions(x0, xt, ALPHA_BAR[t], ALPHA_BAR[t - 1])
    beta, now, before = (expand_like(v, xt) for v in (BETAS[t], ALPHA_BAR[t], ALPHA_BAR[t_prev]))
    short = (before.sqrt() * beta / (1 - now) * x0
             + (1 - beta).sqrt() * (1 - before) / (1 - now) * xt, beta * (1 - before) / (1 - now))
    expect_close(attempt(x0.clone(), xt.clone(), t, STEEP, t_prev), want, "It is right for single "
                 "steps and wrong where t_prev lies further below t.", mistakes={
        "t_prev is ignored: this lands on t - 1.": one_step,
        "alphas[t] and betas[t] belong to one step. Over a jump alpha is now / before, and beta "
        "what is missing to 1.": short})


@exercise("gligen_lessons.ddpm:predict_x0")
def predict_x0(attempt):
    """Equation 4 solved for x0, at values beyond [-1, 1]."""
    eps, xt, x0 = pictures_to_noise(3)
    t = torch.tensor([2, 7, 11])
    signal, noise = (expand_like(v[t], xt) for v in (ALPHA_BAR.sqrt(), (1 - ALPHA_BAR).sqrt()))
    want, alpha = (xt - noise * eps) / signal, expand_like(ALPHAS[t], xt)
    mistakes = {
        "The noise is taken away, so it needs a minus.": (xt + noise * eps) / signal,
        "What is left is sqrt(alpha_bar) x0: divide by that root.": xt - noise * eps,
        "Divide by the square ROOT of alpha_bar.": (xt - noise * eps) / signal**2,
        "Divide everything by sqrt(alpha_bar), the noise too: mind the brackets.":
            xt / signal - noise * eps,
        "This is for a single step. x0 lies all the steps away: alpha_bar, not alphas.":
            (xt - (1 - alpha).sqrt() * eps) / alpha.sqrt(),
        "Do not clip here: whoever calls decides about that.": want.clamp(-1, 1)}
    error = expect_close(attempt(eps.clone(), xt.clone(), t.clone(), STEEP), want,
                         "Put x0, eps and xt into equation 4 and solve it for x0.",
                         mistakes=mistakes)
    back = attempt(eps.clone(), reference.q_sample(x0, t, eps, STEEP), t, STEEP)
    error = max(error, expect_close(back, x0, "q_sample and then predict_x0 must give x0 again."))
    return f"undoes q_sample at 3 steps (largest difference {error:.0e})"


@exercise("gligen_lessons.ddpm:ddpm_step")
def ddpm_step(attempt):
    """A step, a step that clips, a jump, and the last step."""
    eps, xt, z = pictures_to_noise(3)
    t, t_prev, last = torch.tensor([[11, 6, 2], [4, -1, 0], [0, 0, 0]])
    x0_hat = reference.predict_x0(eps, xt, t, STEEP)

    def step(**options):
        return expect_no_draw(attempt, "noise", eps.clone(), xt.clone(), t.clone(), STEEP,
                              z.clone(), **options)

    def drawn(x0, *aim, at=xt):
        mean, variance = reference.posterior(x0, at, t, STEEP, *aim)
        return mean + variance.sqrt() * z
    mean, variance = reference.posterior(x0_hat, xt, t, STEEP)
    error = expect_close(step(), drawn(x0_hat), "Three moves: predict x0, take the posterior, add "
                         "its noise.", mistakes={
        "The noise is scaled by the variance. Its square root, the standard deviation, belongs "
        "there.": mean + variance * z,
        "This is the variance beta (fixed large). Take the one that `posterior` returns.":
            mean + expand_like(BETAS[t].sqrt(), xt) * z,
        "No noise is added: this returns the mean.": mean,
        "The noise is added with its full size; multiply it by sqrt(variance).": mean + z,
        "This returns the prediction of x0. It is only where the step aims at.": x0_hat,
        "posterior wants the prediction of x0; it was given eps_hat.": drawn(eps),
        "x0 was clipped though clip is False: clamp it only where clip asks for it.":
            drawn(x0_hat.clamp(-1, 1)),
        "predict_x0 takes eps_hat first, then xt.": drawn(reference.predict_x0(xt, eps, t, STEEP)),
        "posterior takes the prediction of x0 first, then xt.": drawn(xt, at=x0_hat)})
    expect_close(step(clip=True), drawn(x0_hat.clamp(-1, 1)),
                 "With clip=True the prediction of x0 is "
                 "clamped to [-1, 1], before the posterior.", mistakes={
        "clip is ignored.": drawn(x0_hat),
        "clip belongs to the prediction of x0, not to the result: a "
        "half noisy picture may leave [-1, 1].": drawn(x0_hat).clamp(-1, 1)})
    expect_close(step(t_prev=t_prev), drawn(x0_hat, t_prev), "With a t_prev of its own the step "
                 "lands elsewhere.", mistakes={"t_prev is ignored: hand it on to `posterior`.":
                                               drawn(x0_hat)})
    ends = [attempt(eps.clone(), xt.clone(), last, STEEP, noise) for noise in (z, 0 * z)]
    expect_close(*ends, "The last step, t = 0, must add no noise: its variance is 0.")
    return f"agrees with algorithm 2: 3 steps, clipped, far and last (off by {error:.0e})"


@exercise("gligen_lessons.ddpm:l_simple")
def l_simple(attempt):
    """Equation 14, with a small network that depends on xt and on t."""
    x0, eps = pictures_to_noise(2)
    t, weight = torch.tensor([1, 6, 11]), torch.tensor(.3, requires_grad=True)

    def model(xt, steps):
        return weight * xt + steps[:, None, None, None] / 50
    prediction = model(reference.q_sample(x0, t, eps, STEEP), t).detach()
    off = prediction - eps
    mistakes = {
        "The network must see the noised picture xt, not x0.": (model(x0, t) - eps).square().mean(),
        "The network predicts the noise, so compare with eps, not with x0.":
            (prediction - x0).square().mean(),
        "This is the sum. Take the mean, or the learning rate depends on the size of a picture.":
            off.square().sum(),
        "This sums over the pixels of a picture. Take the mean over them as well: equation 14's "
        "norm is a sum, the code's loss a number of size about 1.":
            off.square().flatten(1).sum(1).mean(),
        "The difference is squared, not taken as it is.": off.abs().mean(),
        "The network takes the step t itself, not a part of T.":
            (model(reference.q_sample(x0, t, eps, STEEP), t / STEEP.T) - eps).square().mean(),
        "There is a root too many.": off.square().mean().sqrt()}
    told = expect_no_draw(attempt, "eps", model, x0.clone(), t.clone(), eps.clone(), STEEP)
    if getattr(told, "ndim", 0):
        raise Wrong(f"the result has shape {tuple(told.shape)}; a loss is one number: the mean.")
    error = expect_close(told, off.square().mean(),
                         "Noise x0, let the network predict, compare its "
                         "prediction with eps.", mistakes=mistakes)
    if not getattr(told, "requires_grad", False):
        raise Wrong("no gradient reaches the network: no .item(), .detach() or no_grad here.")
    return f"is the mean squared error of the noise, {told.detach():.3f} here (off by {error:.0e})"
