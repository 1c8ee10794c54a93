"""DDPM against diffusers, against published numbers, and against laws of probability."""

import math
import re

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import relative_error
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from gligen_lessons import ddpm, images
from gligen_lessons.ddpm import (
    Mixture,
    ddpm_step,
    from_velocity,
    l_simple,
    levels,
    posterior,
    predict_eps,
    predict_x0,
    q_sample,
    q_step,
    to_score,
    velocity,
)
from gligen_lessons.schedule import Schedule

SCHEDULES = {"linear": (Schedule.linear, (1e-4, .02)),
             "scaled_linear": (Schedule.scaled_linear, (.00085, .012))}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(name="linear", **options):
    """diffusers' scheduler with its tables in float64, so that only arithmetic is compared."""
    theirs, ours = DDPMScheduler(1000, *SCHEDULES[name][1], name, **options), SCHEDULES[name][0]()
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = ours.betas, ours.alphas, ours.alpha_bar
    theirs.one = torch.tensor(1., dtype=torch.float64)
    return theirs, ours


# Against diffusers.

@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("t", [0, 1, 2, 37, 500, 998, 999])
def test_a_step_is_that_of_diffusers(t, clip, name):
    theirs, schedule = reference(name, clip_sample=clip, variance_type="fixed_small")
    xt, eps_hat = 1.5 * noise(2, 3, 5, 7), noise(2, 3, 5, 7, seed=1)
    wanted = theirs.step(eps_hat, t, xt, generator=torch.Generator().manual_seed(2)).prev_sample
    steps = torch.full((2,), t)
    got = ddpm_step(eps_hat, xt, steps, schedule, noise(2, 3, 5, 7, seed=2), clip=clip)
    assert relative_error(got, wanted) <= 1e-5


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("count", [7, 50, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_jump_is_that_of_diffusers(spacing, count, clip):
    theirs, schedule = reference(clip_sample=clip, timestep_spacing=spacing)
    theirs.set_timesteps(count)
    xt, eps_hat = 1.5 * noise(2, 3, 5, 7), noise(2, 3, 5, 7, seed=1)
    for t in theirs.timesteps[[0, 1, count // 2, -1]].tolist():
        wanted = theirs.step(eps_hat, t, xt, generator=torch.Generator().manual_seed(2))
        t, t_prev = torch.full((2,), t), torch.full((2,), int(theirs.previous_timestep(t)))
        got = ddpm_step(eps_hat, xt, t, schedule, noise(2, 3, 5, 7, seed=2), t_prev, clip)
        assert relative_error(got, wanted.prev_sample) <= 1e-5


@pytest.mark.parametrize("steps, first", [(1000, 980), (13, 0)])
def test_a_walk_is_that_of_diffusers(steps, first):
    """The last steps of a full walk, and a walk of few steps from its beginning."""
    theirs, schedule = reference(clip_sample=True)
    visit = torch.linspace(999, 0, steps, dtype=torch.float64).round().long().tolist()
    theirs.set_timesteps(timesteps=visit)

    def model(x, t):
        return x.roll(1, 3) * .8 + t.view(-1, 1, 1, 1) / 1000
    source, sampled = torch.Generator().manual_seed(3), []
    xt = wanted = noise(2, 3, 5, 7)
    for step, x in ddpm.sample(model, xt, schedule, torch.Generator().manual_seed(3), steps=steps):
        sampled.append(step)
        if len(sampled) <= first:
            wanted, _ = x, torch.randn(x.shape, generator=source)
            continue
        eps_hat = model(wanted, torch.full((2,), step))
        wanted = theirs.step(eps_hat, step, wanted, generator=source).prev_sample
        if step:                                     # at step 0 diffusers draws nothing more
            assert relative_error(x, wanted) <= 2e-5
    assert sampled == visit and relative_error(x, wanted) <= 2e-5


def test_noised_pictures_are_those_of_diffusers():
    theirs, schedule = reference()
    x0, eps, t = noise(5, 3, 4, 6), noise(5, 3, 4, 6, seed=1), torch.tensor([0, 1, 500, 998, 999])
    assert relative_error(q_sample(x0, t, eps, schedule), theirs.add_noise(x0, eps, t)) <= 1e-6


@pytest.mark.parametrize("name", SCHEDULES)
def test_v_prediction_is_that_of_diffusers(name):
    theirs, schedule = reference(name, prediction_type="v_prediction", clip_sample=False)
    x0, eps, t = noise(5, 3, 4, 6), noise(5, 3, 4, 6, seed=1), torch.tensor([0, 1, 500, 998, 999])
    assert relative_error(velocity(x0, t, eps, schedule), theirs.get_velocity(x0, eps, t)) <= 1e-6
    v_hat, xt = noise(5, 3, 4, 6, seed=2), 1.5 * noise(5, 3, 4, 6, seed=3)
    x0_hat, eps_hat = from_velocity(v_hat, xt, t, schedule)
    for i, step in enumerate(t.tolist()):
        row = slice(i, i + 1)
        wanted = theirs.step(v_hat[row], step, xt[row]).pred_original_sample
        assert relative_error(x0_hat[row], wanted) <= 1e-6
    assert relative_error(q_sample(x0_hat, t, eps_hat, schedule), xt) <= 1e-6


# Against the numbers that diffusers' own tests publish (to 1e-2 there).

def dummy_start():
    """The first picture of diffusers' scheduler tests: a ramp, no noise in it."""
    return (torch.arange(768).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)


def dummy_model(xt, t):
    part = (t / (t + 1)).view(-1, 1, 1, 1)
    return xt * part


def dummy_velocity(schedule):
    """The same network read as a prediction of v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0."""
    def model(xt, t):
        alpha_bar = schedule.alpha_bar[t].float().view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * dummy_model(xt, t) + (1 - alpha_bar).sqrt() * xt
    return model


@pytest.mark.parametrize("model, published", [
    (dummy_model, 258.9606), (dummy_velocity(Schedule.linear()), 202.0296)],
    ids=["noise", "velocity"])
def test_a_full_walk_gives_the_published_sum(model, published):
    """Published to 1e-2, with tables in float32; diffusers itself, given ours, moves by 2e-3."""
    *_, (_, x0) = ddpm.sample(model, dummy_start(), Schedule.linear(),
                              torch.Generator().manual_seed(0))
    assert abs(float(x0.abs().sum()) - published) < 5e-3


# Laws of the forward process.

def test_steps_of_noise_add_up_to_the_jump():
    """Mean and variance of q_step, carried on exactly, are those of q_sample at every t."""
    schedule, one, zero = Schedule.linear(), torch.ones(1, dtype=torch.float64), torch.zeros(1)
    mean, variance = one, one * 0
    for step in range(schedule.T):
        t = torch.tensor([step])
        mean = q_step(mean, t, one * 0, schedule)
        variance = q_step(variance.sqrt(), t, one * 0, schedule)**2 + q_step(
            one * 0, t, one, schedule)**2
        assert math.isclose(mean, q_sample(one, t, zero, schedule), rel_tol=1e-12)
        assert math.isclose(variance, q_sample(one * 0, t, one, schedule)**2, rel_tol=1e-12)


def test_noising_keeps_the_variance_of_data_with_variance_one():
    t = torch.arange(1000)
    one, zero = torch.ones(1000, 1, dtype=torch.float64), torch.zeros(1000, 1)
    signal = q_sample(one, t, zero, Schedule.linear())
    added = q_sample(one * 0, t, one, Schedule.linear())
    assert torch.allclose(signal**2 + added**2, one, rtol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(-3, 3), st.floats(-3, 3))
def test_noise_and_picture_are_found_again(step, value, eps):
    schedule, t = Schedule.linear(), torch.tensor([step])
    x0, eps = (torch.full((1, 2), v, dtype=torch.float64) for v in (value, eps))
    xt = q_sample(x0, t, eps, schedule)
    assert torch.allclose(predict_x0(eps, xt, t, schedule), x0, rtol=0, atol=1e-9)
    assert torch.allclose(predict_eps(x0, xt, t, schedule), eps, rtol=0, atol=1e-9)


# Laws of the posterior.

@pytest.mark.parametrize("t, t_prev", [(1, 0), (5, 4), (500, 499), (999, 998), (600, 580), (9, 2)])
def test_the_posterior_is_bayes_rule_on_a_grid(t, t_prev):
    """q(x_prev | xt, x0) is q(xt | x_prev) q(x_prev | x0), made to sum to one, in one dimension."""
    schedule, x0, xt = Schedule.linear(), .7, -.4
    now, before = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[t_prev])
    x = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    log = Normal(before**.5 * x0, (1 - before)**.5).log_prob(x)
    log = log + Normal((now / before)**.5 * x, (1 - now / before)**.5).log_prob(torch.tensor(xt))
    weight = torch.softmax(log, 0)
    mean = float((weight * x).sum())
    variance = float((weight * (x - mean)**2).sum())
    steps = torch.tensor([t]), torch.tensor([t_prev])
    got = posterior(*torch.tensor([[[x0]], [[xt]]], dtype=torch.float64), steps[0], schedule,
                    steps[1])
    assert math.isclose(float(got[0]), mean, abs_tol=1e-7)
    assert math.isclose(float(got[1]), variance, rel_tol=1e-5)


def test_the_posterior_lands_one_step_below_unless_told():
    schedule, x0, xt = Schedule.linear(), noise(3, 2, 4), noise(3, 2, 4, seed=1)
    t = torch.tensor([999, 40, 0])
    for ours, told in zip(posterior(x0, xt, t, schedule), posterior(x0, xt, t, schedule, t - 1),
                          strict=True):
        assert torch.equal(ours, told)


def test_below_step_0_stands_x0_for_certain():
    x0, xt = noise(3, 2, 4), noise(3, 2, 4, seed=1)
    t = torch.tensor([0, 30, 999])
    mean, variance = posterior(x0, xt, t, Schedule.linear(), torch.tensor([-1, -1, -7]))
    assert torch.allclose(mean, x0, atol=1e-7) and torch.equal(variance, torch.zeros(3, 1, 1))


def test_the_mean_is_that_of_equation_11():
    """(xt - beta / sqrt(1 - alpha_bar) eps) / sqrt(alpha): the same mean, written with eps."""
    schedule, t = Schedule.linear(), torch.arange(1000)
    eps, xt = (noise(1000, 2, seed=s, dtype=torch.float64) for s in (0, 1))
    beta, alpha, alpha_bar = (v[:, None] for v in (
        schedule.betas, schedule.alphas, schedule.alpha_bar))
    wanted = (xt - beta / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt()
    mean, _ = posterior(predict_x0(eps, xt, t, schedule), xt, t, schedule)
    assert relative_error(mean, wanted) < 1e-9


def test_the_last_step_adds_no_noise():
    schedule, xt, eps_hat = Schedule.linear(), noise(1, 3, 4, 5), noise(1, 3, 4, 5, seed=1)
    for t, same in ((0, True), (1, False)):
        a, b = (ddpm_step(eps_hat, xt, torch.tensor([t]), schedule, noise(1, 3, 4, 5, seed=s))
                for s in (2, 3))
        assert torch.equal(a, b) is same


# The loss.

def test_the_weight_of_the_bound_is_a_kl_divergence():
    """Two Gaussians with the posterior's variance and the means of two predictions of eps."""
    schedule, t = Schedule.linear(), torch.arange(1, 1000)
    eps, eps_hat, xt = (noise(999, 1, seed=s, dtype=torch.float64) for s in (0, 1, 2))
    means = [posterior(predict_x0(e, xt, t, schedule), xt, t, schedule) for e in (eps, eps_hat)]
    kl = kl_divergence(*(Normal(mean, variance.sqrt()) for mean, variance in means))
    weight = ddpm.vlb_weight(schedule)
    assert weight.shape == (999,)
    assert relative_error(weight, (kl / (eps - eps_hat)**2)[:, 0]) < 1e-6


def test_l_simple_is_the_mean_squared_error_on_the_noised_picture():
    schedule, t = Schedule.linear(), torch.tensor([0, 400, 999])
    x0, eps, prediction = (noise(3, 2, 4, 5, seed=s) for s in range(3))
    seen = []

    def model(xt, steps):
        seen.append((xt, steps))
        return prediction
    loss = l_simple(model, x0, t, eps, schedule)
    assert math.isclose(loss, sum((a - b)**2 for a, b in zip(
        prediction.flatten().tolist(), eps.flatten().tolist(), strict=True)) / prediction.numel(),
        rel_tol=1e-5)
    assert torch.equal(seen[0][0], q_sample(x0, t, eps, schedule)) and seen[0][1] is t


# The mixture.

def law(mixture, step, schedule):
    """The mixture noised to `step` as torch's own distribution."""
    alpha_bar = schedule.alpha_bar[step]
    spread = (alpha_bar * mixture.std**2 + 1 - alpha_bar).sqrt().expand_as(mixture.means)
    parts = Independent(Normal(alpha_bar.sqrt() * mixture.means, spread), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mixture.means))), parts)


@pytest.mark.parametrize("step", [0, 3, 100, 500, 999])
@pytest.mark.parametrize("mixture", [Mixture(), Mixture(3, 2., .4)], ids=["eight", "three"])
def test_the_exact_noise_is_the_gradient_of_the_log_density(mixture, step):
    schedule = Schedule.linear()
    x = (2 * noise(50, 2, dtype=torch.float64)).requires_grad_()
    score, = torch.autograd.grad(law(mixture, step, schedule).log_prob(x).sum(), x)
    wanted = -(1 - schedule.alpha_bar[step]).sqrt() * score
    got = mixture.eps(x.detach(), torch.full((50,), step), schedule)
    assert relative_error(got, wanted) < 1e-9


def test_the_score_is_the_gradient_of_the_log_density():
    mixture, schedule = Mixture(5, 1.2, .3), Schedule.linear(12, .01, .25)
    t, xt = torch.arange(12), noise(12, 2, dtype=torch.float64).requires_grad_()
    wanted, = torch.autograd.grad(mixture.log_density(xt, t, schedule).sum(), xt)
    eps = mixture.eps(xt.detach(), t, schedule)
    assert relative_error(to_score(eps, t, schedule), wanted) <= 1e-12


def test_the_exact_noise_keeps_its_digits_in_32_bits():
    x, t = 1.5 + .1 * noise(50, 2), torch.zeros(50, dtype=torch.long)
    mixture, schedule = Mixture(), Schedule.linear()
    got, wanted = mixture.eps(x, t, schedule), mixture.eps(x.double(), t, schedule)
    assert got.dtype == torch.float32 and relative_error(got.double(), wanted) < 1e-5


def test_points_of_the_mixture_follow_its_law():
    mixture = Mixture(5, 1., .2)
    x = mixture.sample(20_000, torch.Generator().manual_seed(1))
    which, distance = mixture.nearest(x)
    counts = torch.bincount(which, minlength=5)
    assert x.dtype == torch.float64 and x.shape == (20_000, 2)
    assert float(((counts - 4000)**2 / 4000).sum()) < 18.5         # chi squared, 4 degrees, 0.1 %
    near = Mixture(5, 100., .2)                                    # no point nears another mode
    _, distance = near.nearest(near.sample(20_000, torch.Generator().manual_seed(0)))
    assert math.isclose(float(distance.square().mean()), 2 * .2**2, rel_tol=.03)


def test_the_exact_reverse_process_covers_all_modes_evenly():
    mixture, schedule = Mixture(), Schedule.linear()
    *_, (_, x) = ddpm.sample(lambda xt, t: mixture.eps(xt, t, schedule),
                             noise(800, 2, dtype=torch.float64), schedule,
                             torch.Generator().manual_seed(1), clip=False)
    which, distance = mixture.nearest(x)
    counts = torch.bincount(which, minlength=8)
    assert float(((counts - 100)**2 / 100).sum()) < 24.3           # chi squared, 7 degrees, 0.1 %
    assert float(distance.max()) < 6 * mixture.std
    assert math.isclose(float((distance.square().mean() / 2).sqrt()), mixture.std, rel_tol=.07)


# Walking.

def test_a_seed_means_one_picture():
    schedule, model = Schedule.linear(20), lambda xt, t: .5 * xt
    before = torch.get_rng_state()
    made = [list(ddpm.sample(model, noise(2, 3, 4, 4), schedule, torch.Generator().manual_seed(s)))
            for s in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)              # only the generator was used
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(*made[:2], strict=True))
    assert not torch.equal(made[0][-1][1], made[2][-1][1])


def test_a_walk_makes_no_gradient_and_changes_no_start():
    xT = noise(2, 3, 4, 4)
    kept, weight = xT.clone(), torch.ones(1, requires_grad=True)
    *_, (_, x0) = ddpm.sample(lambda xt, t: weight * xt, xT, Schedule.linear(5),
                              torch.Generator().manual_seed(0))
    assert not x0.requires_grad and torch.equal(xT, kept) and not torch.equal(x0, xT)


@pytest.mark.parametrize("steps, visited", [
    (None, list(range(9, -1, -1))), (10, list(range(9, -1, -1))), (4, [9, 6, 3, 0]), (1, [9])])
def test_a_walk_visits_what_it_says(steps, visited):
    told, seen = [], []

    def model(xt, t):
        seen.append(t.tolist())
        return 0 * xt
    for step, _ in ddpm.sample(model, noise(2, 1, 2, 2), Schedule.linear(10),
                               torch.Generator().manual_seed(0), steps=steps):
        told.append(step)
    assert told == visited and seen == [[step, step] for step in visited]


# Pictures for the model and for the eye.

def test_every_byte_comes_back():
    bytes_ = torch.arange(256).repeat(3).reshape(1, 16, 16, 3).byte()
    x = images.to_model(bytes_)
    assert x.shape == (1, 3, 16, 16) and float(x.min()) == -1 and float(x.max()) == 1
    assert torch.equal((images.to_shown(x) * 255).round().byte(), bytes_)
    assert torch.equal(images.to_shown(9 * x.sign()), (bytes_ > 127).float())


# Bad input: one sentence that says what was wrong.

PICTURE, SHORT = torch.zeros(2, 3, 4, 4), Schedule.linear(10)


def steps(*values):
    return torch.tensor(values)


BAD = {
    "q_sample, a step too many": (ValueError, "0..9, got 0 to 10", lambda: q_sample(
        PICTURE, steps(0, 10), PICTURE, SHORT)),
    "q_step, a step below 0": (ValueError, "got -1 to 0", lambda: q_step(
        PICTURE, steps(-1, 0), PICTURE, SHORT)),
    "q_sample, half a step": (TypeError, "whole steps", lambda: q_sample(
        PICTURE, steps(.5, 1.), PICTURE, SHORT)),
    "q_sample, one step for two": (ValueError, "each of the 2 pictures", lambda: q_sample(
        PICTURE, steps(3), PICTURE, SHORT)),
    "ddpm_step, no pictures": (ValueError, "batch is empty", lambda: ddpm_step(
        PICTURE[:0], PICTURE[:0], steps().long(), SHORT, PICTURE[:0])),
    "posterior, a step too many": (ValueError, "0..9", lambda: posterior(
        PICTURE, PICTURE, steps(4, 10), SHORT)),
    "posterior, half a step": (TypeError, "whole steps", lambda: posterior(
        PICTURE, PICTURE, steps(4., 1.), SHORT)),
    "posterior, a step up": (ValueError, "t_prev must lie below t", lambda: posterior(
        PICTURE, PICTURE, steps(4, 5), SHORT, steps(3, 5))),
    "velocity, a step too many": (ValueError, "0..9", lambda: velocity(
        PICTURE, steps(4, 10), PICTURE, SHORT)),
    "levels, a step up": (ValueError, "walks down", lambda: levels(steps(0), steps(2), SHORT)),
    "sample, no step": (ValueError, "1..10, got 0", lambda: next(ddpm.sample(
        dummy_model, PICTURE, SHORT, torch.Generator(), steps=0))),
    "sample, too many steps": (ValueError, "1..10, got 11", lambda: next(ddpm.sample(
        dummy_model, PICTURE, SHORT, torch.Generator(), steps=11))),
    "to_model, floats": (ValueError, "whole numbers 0..255, got (1, 4, 4, 3) torch.float32",
                         lambda: images.to_model(torch.zeros(1, 4, 4, 3))),
    "to_model, channels first": (ValueError, "(b,h,w,3)", lambda: images.to_model(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8))),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_told_in_one_sentence(what):
    error, words, call = BAD[what]
    with pytest.raises(error, match=re.escape(words)):
        call()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_picture_that_is_not_finite_is_never_shown(bad):
    x = torch.zeros(2, 3, 4, 4)
    x[1, 2, 3, 3] = bad
    with pytest.raises(ValueError, match="A picture holds NaN or infinity and cannot be shown"):
        images.to_shown(x)
