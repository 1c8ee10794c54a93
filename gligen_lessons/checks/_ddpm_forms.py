"""Checks of lesson 1 beside the process: bound, v, score, schedule, sinusoids, EMA and KID."""

import math

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from .. import ddpm as reference
from ..ema import EMA
from ..schedule import Schedule, expand_like
from ..schedule import cosine_betas as own_betas
from . import Wrong, exercise, expect_close

STEEP = Schedule.linear(12, .01, .25)                     # twelve steps that differ a lot


@exercise("gligen_lessons.ddpm:vlb_weight")
def vlb_weight(attempt):
    """Against the divergence of two Gaussians, computed by torch.distributions."""
    want, told = divergence_of_two_predictions(STEEP), attempt(STEEP)
    if getattr(told, "shape", None) == (STEEP.T,):
        raise Wrong("it has one weight for each of the T steps. Step 0 has no posterior to compare "
                    "with (its variance is 0): leave it out, (T-1,) are left.")
    betas, alphas, alpha_bar = STEEP.betas, STEEP.alphas, STEEP.alpha_bar
    beta, alpha, now = betas[1:], alphas[1:], alpha_bar[1:]
    mistakes = {
        "sigma^2 is beta here (fixed large). Take the posterior's variance, equation 7.":
            beta / (2 * alpha * (1 - now)),
        "The 2 of the Gaussian's exponent is missing.": 2 * want,
        "The mean has 1 / sqrt(alpha) in front; squared, that is alpha below the line.":
            want * alpha,
        "beta is squared, since the difference of the means is.": want / beta,
        "The whole difference of the means is squared: its roots of alpha and 1 - alpha_bar too.":
            want / beta * (alpha * (1 - now)).sqrt(),
        "sigma^2 stands below the line once, not squared.":
            want * (1 - now) / (beta * (1 - alpha_bar[:-1])),
        "This divides by the standard deviation; sigma^2 is the variance, without a root.":
            want * (beta * (1 - alpha_bar[:-1]) / (1 - now)).sqrt(),
        "One entry too early: step t of the code is entry t, so the steps 1 to T-1 are the entries "
        "1 to T-1.": betas[:-1] / (2 * alphas[:-1] * (1 - alpha_bar[:-1]))}
    error = expect_close(told, want, "The divergence of two Gaussians with one variance is the "
                         "squared difference of their means over 2 sigma^2.", mistakes=mistakes)
    return f"is the divergence of two Gaussians at {STEEP.T - 1} steps (off by {error:.0e})"


def divergence_of_two_predictions(schedule: Schedule) -> torch.Tensor:
    """KL of the posteriors that eps = 0 and eps = 1 imply, for steps 1 to T-1, in float64."""
    t = torch.arange(1, schedule.T)
    xt = torch.zeros(len(t), 1, dtype=torch.float64)
    (mean, variance), (other, _) = (reference.posterior(
        reference.predict_x0(xt + e, xt, t, schedule), xt, t, schedule) for e in (0, 1))
    return kl_divergence(*(Normal(m, variance.sqrt()) for m in (mean, other))).flatten()


@exercise("gligen_lessons.ddpm:from_velocity")
def from_velocity(attempt):
    """Against the x0 and eps of which v was made, and for a v that nothing made."""
    x0, eps, v = (1.5 * torch.randn(3, 2, 4, 5) for _ in range(3))
    t = torch.tensor([1, 6, 11])
    xt, kept = reference.q_sample(x0, t, eps, STEEP), STEEP.alpha_bar[t]
    signal, noise = expand_like(kept.sqrt(), xt), expand_like((1 - kept).sqrt(), xt)
    near, far = (expand_like(k[t].sqrt(), xt) for k in (STEEP.alphas, STEEP.betas))
    want = signal * xt - noise * v, noise * xt + signal * v
    mistakes = {
        "The two are swapped: return x0 first, then eps.": want[::-1],
        "A sign is wrong in x0: put the definitions of xt and v into signal xt - noise v, and eps "
        "must cancel.": (signal * xt + noise * v, want[1]),
        "A sign is wrong in eps: put the definitions of xt and v into noise xt + signal v, and x0 "
        "must cancel.": (want[0], noise * xt - signal * v),
        "This turns the wrong way, from x0 and eps to xt and v. Turn back: both terms with v "
        "change their sign.": (signal * xt + noise * v, noise * xt - signal * v),
        "The two factors are exchanged: at t = 0 x0 is almost xt, and eps almost v.":
            (noise * xt - signal * v, signal * xt + noise * v),
        "The square roots are missing: the factors are those of equation 4.":
            (signal**2 * xt - noise**2 * v, noise**2 * xt + signal**2 * v),
        "This reads v_hat as if it were the noise. v is a mixture of noise and picture.":
            (reference.predict_x0(v, xt, t, STEEP), v),
        "alphas[t] belongs to one step. xt is all the steps away from x0: alpha_bar.":
            (near * xt - far * v, far * xt + near * v)}
    told = attempt(v.clone(), xt.clone(), t.clone(), STEEP)
    if isinstance(told, torch.Tensor):
        raise Wrong("expected two values, x0 and eps; it returned one tensor.")
    error = expect_close(told, want, "Solve xt = signal x0 + noise eps and v = signal eps - noise "
                         "x0 for x0 and eps.", mistakes=mistakes)
    back = attempt(reference.velocity(x0, t, eps, STEEP), xt.clone(), t.clone(), STEEP)
    error = max(error, expect_close(back, (x0, eps), "From the v of x0 and eps both must return."))
    return f"finds picture and noise behind v at 3 steps (largest difference {error:.0e})"


@exercise("gligen_lessons.ddpm:Mixture.eps")
def eps(attempt):
    """Against the gradient of the log density, which autograd takes."""
    mixture, t = reference.Mixture(5, 1.2, .3), torch.tensor([0, 2, 5, 8, 11] * 4)
    x = 1.3 * torch.randn(20, 2, dtype=torch.float64)
    noise = (1 - STEEP.alpha_bar[t])[:, None].sqrt()
    means, variance = mixture.noised(t, STEEP, x)
    logits = -(x[:, None] - means).square().sum(-1) / (2 * variance)
    score = gradient_of_log_density(mixture, x, t)

    def prediction(logits, divisor=variance):
        return -noise * ((torch.softmax(logits, 1)[..., None] * means).sum(1) - x) / divisor
    mistakes = {
        "This is the score. The noise is -sqrt(1 - alpha_bar) times it.": score,
        "The sign is wrong: the score points to the data, the noise away from them.": noise * score,
        "The factor in front of the score is sqrt(1 - alpha_bar), with its root.":
            -noise**2 * score,
        "Only the nearest cloud counts here. All of them do, each with its probability: softmax.":
            prediction(1e9 * logits),
        "All clouds count alike here. Near ones are likelier: softmax of -distance / (2 variance).":
            prediction(0 * logits),
        "A Gaussian's exponent has a 2 below: -distance / (2 variance).": prediction(2 * logits),
        "Softmax needs the NEGATIVE squared distance: far clouds are unlikely.":
            prediction(-logits),
        "1 - alpha_bar is not the whole variance: the data's own, alpha_bar s^2, is part of it.":
            prediction(logits, noise**2),
        "The score is divided by the variance v.": prediction(logits, 1),
        "The distances must be squared.":
            prediction(-(x[:, None] - means).norm(dim=-1) / (2 * variance)),
        "The distances are to the clean means. The noised ones have moved: `noised` returns them.":
            prediction(-(x[:, None] - mixture.means).square().sum(-1) / (2 * variance)),
        "The softmax runs over the points; it must run over the clouds, dim 1: the weights of one "
        "point add up to 1.": -noise * ((torch.softmax(logits, 0)[..., None] * means).sum(1)
                                        - x) / variance}
    mistakes |= slips_of_the_score(mixture, x, t)
    error = expect_close(attempt(mixture, x.clone(), t.clone(), STEEP), -noise * score, "Compare "
                         "with the formula: weights, mean of the means, score, noise.",
                         mistakes=mistakes)
    return f"is the gradient of the log density at 20 points (largest difference {error:.0e})"


def slips_of_the_score(mixture, x, t) -> dict[str, torch.Tensor]:
    """Wrong answers at x (b,2) whose formula reads v or the means wrongly."""
    noise, (means, v) = (1 - STEEP.alpha_bar[t])[:, None].sqrt(), mixture.noised(t, STEEP, x)

    def mean(means, v):
        away = (x[:, None] - means).square().sum(-1)                # (b,k)
        return (torch.softmax(-away / (2 * v), 1)[..., None] * means).sum(1)
    return {
        "v is a variance, so it stands in the exponent as it is, not squared.":
            noise * (x - mean(means, v**2)) / v,
        "The score is divided by the variance v, not by its root.":
            noise * (x - mean(means, v)) / v.sqrt(),
        "This is the weighted mean m of the clouds. Two steps are left: the score (m - x) / v, and "
        "the factor that makes noise of it.": mean(means, v),
        "These are the clean means. At step t they are those that `noised` returns.":
            noise * (x - mean(mixture.means.expand_as(means), v)) / v}


def gradient_of_log_density(mixture, x, t) -> torch.Tensor:
    """The score of a noised mixture at x (b,2) by autograd, from the density's definition."""
    x, alpha_bar = x.clone().requires_grad_(), STEEP.alpha_bar[t][:, None]
    away = (x[:, None] - alpha_bar[..., None].sqrt() * mixture.means).square().sum(-1)
    log = torch.logsumexp(-away / (2 * (alpha_bar * mixture.std**2 + 1 - alpha_bar)), 1)
    return torch.autograd.grad(log.sum(), x)[0]


@exercise("gligen_lessons.schedule:cosine_betas")
def cosine_betas(attempt):
    """A short schedule with an s and a largest beta of its own, then the usual one."""
    T, s, largest = 9, .05, .9
    part = torch.arange(T + 1, dtype=torch.float64) / T
    cosine = torch.cos((part + s) / (1 + s) * math.pi / 2)
    f, bare = cosine**2, torch.cos(part * math.pi / 2)**2
    short = torch.cos((part + s) / (1 + s))**2
    ratio = f[1:] / f[:-1]
    mistakes = {
        "This is alpha_bar. A beta is what one step takes away: 1 - alpha_bar(i) / "
        "alpha_bar(i - 1).": f[1:] / f[0],
        "This is alpha, what one step keeps. beta is 1 - alpha.": ratio,
        "This is alpha, under the ceiling. beta is 1 - alpha.": ratio.clamp(max=largest),
        "The ceiling is `largest`, whatever it is, not .999.": (1 - ratio).clamp(max=.999),
        "This is 1 - alpha_bar, the noise of all steps so far. Divide by the step before, not by "
        "f(0).": (1 - f[1:] / f[0]).clamp(max=largest),
        "alpha_bar is the SQUARED cosine.": (1 - cosine[1:] / cosine[:-1]).clamp(max=largest),
        "`largest` is missing: the last beta would be 1, and beta must stay below.": 1 - ratio,
        "s is missing in the angle.": (1 - bare[1:] / bare[:-1]).clamp(max=largest),
        "The angle must end at pi / 2, where nothing of the picture is left.":
            (1 - short[1:] / short[:-1]).clamp(max=largest)}
    told = attempt(T, s, largest)
    if getattr(told, "shape", None) in ((T - 1,), (T + 1,)):
        raise Wrong(f"there are {T} steps and {len(told)} betas: f is needed at T + 1 points, from "
                    "0 to T, and each pair of neighbours makes one beta.")
    error = expect_close(told, own_betas(T, s, largest), "f at 0 to T, the ratio of neighbours, 1 "
                         "less that, at most `largest`.", 1e-9, mistakes)
    expect_close(attempt(1000), own_betas(1000), "Unless told otherwise s is 0.008 and the largest "
                 "beta 0.999.", 1e-9)
    return f"makes {T} and 1000 betas of a cosine (largest difference {error:.0e})"


def small_model() -> nn.Linear:
    """A layer whose bias is not trained, and so not averaged."""
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    return model


@exercise("gligen_lessons.ema:EMA.update")
def update(attempt):
    """Three updates: two early ones, where decay is still small, and a late one."""
    for step, decay in ((0, .1), (2, .25), (500, .8)):
        model = small_model()
        ema = EMA(model, .8)
        old = ema.average["weight"].clone()
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        new = model.weight.detach().clone()
        attempt(ema, step)
        expect_averaged(ema, model, new)
        late = (1 + step) / (10 + step)
        mixed = {d: d * old + (1 - d) * new for d in (decay, .8, late)}
        mistakes = {
            "The average has not moved. Change what self.average holds, not a variable beside it.":
                old, "The average became the weights themselves.": new,
            "decay and 1 - decay are swapped: the average keeps `decay` of itself.":
                (1 - decay) * old + decay * new}
        mistakes |= {
            "decay grows beyond self.decay: take the smaller of the two.": mixed[late]
        } if decay == .8 else {
            "self.decay is used from the start. Early on it is (1 + step) / (10 + step), which is "
            "smaller: the untrained weights must be forgotten.": mixed[.8]}
        expect_close(ema.average["weight"], mixed[decay], "average = d average + (1 - d) weight, "
                     "with d = min(decay, (1 + step) / (10 + step)).", mistakes=mistakes)
    return "averages as it should at 3 steps, with decay .10, .25 and .80"


def expect_averaged(ema: EMA, model: nn.Module, weight: torch.Tensor) -> None:
    """Refuse an update that touched the model, lost a name or keeps a graph."""
    if not torch.equal(model.weight, weight):
        raise Wrong("the model's own weights changed. They go on training; only the average moves.")
    if set(ema.average) != {"weight"}:
        raise Wrong(f"self.average holds {sorted(ema.average)}: keep the names that it has.")
    if ema.average["weight"].requires_grad:
        raise Wrong("the average carries gradients. Keep the torch.no_grad() above the function.")


@exercise("gligen_lessons.metrics:unbiased_mmd")
def unbiased_mmd(attempt):
    """Two sets of different size, against the sum written out, and two sets of one source."""
    a, b = torch.randn(6, 4).double(), 1.3 * torch.randn(9, 4).double() + .3
    kernels = [(x @ y.T / 4 + 1)**3 for x, y in ((a, a), (b, b), (a, b))]

    def apart(k):
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))
    within = [apart(k) for k in kernels[:2]]
    cross = kernels[2].mean()
    want = float(within[0] + within[1] - 2 * cross)

    def with_kernel(change):
        aa, bb, ab = (change(x @ y.T) for x, y in ((a, a), (b, b), (a, b)))
        return apart(aa) + apart(bb) - 2 * ab.mean()
    whole = [k.mean() for k in kernels[:2]]
    hollow = [(k.sum() - k.trace()) / len(k)**2 for k in kernels[:2]]
    mistakes = {
        "Each row is compared with itself too, so two finite sets always look apart (biased). "
        "Leave the diagonal out: n (n - 1) pairs are left.": sum(whole) - 2 * cross,
        "Without the diagonal there are n (n - 1) pairs, not n^2.": sum(hollow) - 2 * cross,
        "The mean between the sets counts twice.": sum(within) - cross,
        "The sign is wrong: within a and within b, less what lies between.": -want,
        "The kernel divides x.y by the number of columns, d.": with_kernel(lambda xy: (xy + 1)**3),
        "The kernel divides x.y by the number of columns, d, not by the number of rows.":
            float(apart((a @ a.T / 6 + 1)**3) + apart((b @ b.T / 9 + 1)**3)
                  - 2 * ((a @ b.T / 6 + 1)**3).mean()),
        "The kernel has a 1 in it: (x.y / d + 1)^3.": with_kernel(lambda xy: (xy / 4)**3),
        "The kernel is a cube: (x.y / d + 1)^3.": with_kernel(lambda xy: (xy / 4 + 1)**2)}
    told = attempt(a.clone(), b.clone())
    if isinstance(told, torch.Tensor):
        raise Wrong("it returned a tensor; a measure is printed and compared, so return a float.")
    error = expect_close(told, want, "Mean kernel within a, and within b, each without its "
                         "diagonal, less twice the mean between them.", 1e-6, mistakes)
    return f"is {want:.3f} for two sets that differ, as written out (off by {error:.0e})"

@exercise("gligen_lessons.nets:timestep_embedding")
def timestep_embedding(attempt):
    """Steps from 0 to 999, at an even width whose half is odd."""
    t, half = torch.tensor([0, 1, 17, 400, 999]), 5

    def sinusoids(power=lambda i: 10000 ** (-i / half), first=math.cos, then=math.sin):
        rows = [[step * power(i) for i in range(half)] for step in t.tolist()]
        return torch.tensor([[f(angle) for f in (first, then) for angle in row] for row in rows])
    want = sinusoids()
    mistakes = {
        "The sines come first here. Cosines first, as in Stable Diffusion, so that published "
        "weights fit.": sinusoids(first=math.sin, then=math.cos),
        "Divide the exponent by half the width, not by half the width less one.":
            sinusoids(lambda i: 10000 ** (-i / (half - 1))),
        "The exponent is divided by the whole width: h is half of it.":
            sinusoids(lambda i: 10000 ** (-i / (2 * half))),
        "Cosine and sine alternate here. All cosines come first, then all sines.":
            want.view(5, 2, half).transpose(1, 2).reshape(5, 2 * half)}
    error = expect_close(attempt(t.clone(), 2 * half), want, "Compare with the formula: angles "
                         "whose frequencies FALL from 1 (mind the minus), their cosines, their "
                         "sines.", tol=3e-4, mistakes=mistakes)
    return f"writes 5 steps as {2 * half} sinusoids (largest difference {error:.0e})"
