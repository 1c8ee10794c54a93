"""DDIM against diffusers' schedulers, against diffusers' own published sums, and against laws."""

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from oracles import relative_error
from scipy.spatial import geometric_slerp

from gligen_lessons.ddim import (
    SPACINGS,
    alpha_bar_at,
    ddim_ascend,
    ddim_sigma,
    ddim_step,
    invert,
    sample,
    slerp,
    timesteps,
    with_fitting_eps,
)
from gligen_lessons.ddpm import Mixture, ddpm_step, predict_x0, q_sample
from gligen_lessons.device import generator
from gligen_lessons.schedule import Schedule

LINEAR = Schedule.linear()
SCALED = Schedule.scaled_linear()
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def reference(kind, schedule, steps, *, end=1., clip=False, **config):
    """A scheduler of diffusers that keeps our float64 numbers instead of its own float32 ones."""
    theirs = kind(num_train_timesteps=schedule.T, clip_sample=clip, set_alpha_to_one=end == 1,
                  **config)
    theirs.betas, theirs.alphas = schedule.betas, schedule.alphas
    theirs.alphas_cumprod = schedule.alpha_bar
    edge = torch.tensor(float(end), dtype=torch.float64)
    if kind is DDIMScheduler:
        theirs.final_alpha_cumprod = edge
    else:
        theirs.initial_alpha_cumprod = edge
    theirs.set_timesteps(steps)
    return theirs


def toy(xt, t):
    """A prediction of eps that is not linear, depends on every input, and stays of order one."""
    t = t.to(xt.dtype).view(-1, *[1] * (xt.ndim - 1))
    return torch.tanh(.7 * xt + torch.sin(t / 90)) + .3 * torch.cos(3 * xt.roll(1, -1))


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def last(trajectory):
    *_, (_, x) = trajectory
    return x


# Every convention of diffusers.

@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [1000, 256, 37])
def test_the_steps_visited_are_those_of_diffusers(T, spacing):
    for steps in range(1, T + 1):
        theirs = DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
        theirs.set_timesteps(steps)
        theirs = theirs.timesteps.tolist()
        ours = timesteps(T, steps, spacing)
        assert len(ours) == steps and ours == theirs[:steps], steps
        assert theirs[steps:] in ([], [-1]), "only rounding adds a step to theirs, below the last"


def test_diffusers_trailing_takes_one_step_too_many_for_61_of_1000():
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(61)
    assert theirs.timesteps[-1] == -1 and timesteps(1000, 61, "trailing")[-1] == 15


@pytest.mark.parametrize("steps", [1, 3, 30, 999])
def test_an_offset_moves_leading_steps_only(steps):
    theirs = DDIMScheduler(steps_offset=1)
    theirs.set_timesteps(steps)
    assert timesteps(1000, steps, offset=1) == theirs.timesteps.tolist()
    for spacing in ("trailing", "linspace"):
        assert timesteps(1000, steps, spacing, 1) == timesteps(1000, steps, spacing)


@pytest.mark.parametrize("eta", [0., .5, 1.])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("last_alpha_bar", ["one", "first"])
def test_a_step_is_that_of_diffusers(eta, clip, last_alpha_bar):
    end = 1. if last_alpha_bar == "one" else float(SCALED.alpha_bar[0])
    theirs = reference(DDIMScheduler, SCALED, 30, end=end, clip=clip)
    t = torch.tensor([980, 500, 33, 32, 1, 0])                     # the last three end at x0
    xt, eps_hat, z = (2 * noise(6, 3, 5, 4, seed=seed) for seed in range(3))
    want = torch.cat([theirs.step(eps_hat[i:i + 1], int(t[i]), xt[i:i + 1], eta,
                                  variance_noise=z[i:i + 1]).prev_sample for i in range(6)])
    got = ddim_step(eps_hat, xt, t, t - 1000 // 30, SCALED, eta, z, clip, end)
    assert got.dtype == torch.float32
    for i in range(6):
        assert relative_error(got[i], want[i]) <= 1e-5, int(t[i])


LOOPS = [(steps, spacing, offset) for steps in (1, 7, 50) for spacing in SPACINGS
         for offset in ((0, 1) if spacing == "leading" else (0,))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps, spacing, offset", [*LOOPS, (333, "leading", 1)])
def test_a_whole_walk_is_that_of_diffusers(steps, spacing, offset, dtype):
    xT = noise(2, 3, 5, 4, dtype=dtype)
    for eta in (0., .5, 1.):
        for clip, end in ((False, 1.), (True, 1.), (True, float(LINEAR.alpha_bar[0]))):
            theirs = reference(DDIMScheduler, LINEAR, steps, end=end, clip=clip,
                               timestep_spacing=spacing, steps_offset=offset)
            g, want = generator(4), xT
            for t in theirs.timesteps:
                z = torch.randn(xT.shape, generator=g, dtype=dtype)
                want = theirs.step(toy(want, t.expand(2)), int(t), want, eta,
                                   variance_noise=z).prev_sample
            trajectory = list(sample(toy, xT, LINEAR, steps, eta, generator(4), clip, spacing,
                                     offset,
                                     end))
            assert [t for t, _ in trajectory] == theirs.timesteps.tolist()
            assert relative_error(trajectory[-1][1], want) <= TOLERANCE[dtype], (eta, clip, end)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps, spacing, offset", [x for x in LOOPS if x[1] != "linspace"])
def test_inversion_is_that_of_diffusers(steps, spacing, offset, dtype):
    x0 = noise(2, 3, 5, 4, dtype=dtype).clamp(-1, 1)
    for clip in (False, True):
        for end in (1., float(LINEAR.alpha_bar[0])):
            theirs = reference(DDIMInverseScheduler, LINEAR, steps, end=end, clip=clip,
                               timestep_spacing=spacing, steps_offset=offset)
            want = x0
            for t in theirs.timesteps:
                want = theirs.step(toy(want, t.expand(2)), t, want).prev_sample
            trajectory = list(invert(toy, x0, LINEAR, steps, clip, spacing, offset, end))
            assert [t for t, _ in trajectory] == theirs.timesteps.tolist()
            assert relative_error(trajectory[-1][1], want) <= TOLERANCE[dtype], (clip, end)


# Sums that diffusers' own tests have published: they need no library.

def published_toy(xt, t):
    t = t.to(xt.dtype).view(-1, 1, 1, 1)
    return xt * t / (t + 1)


def published(values):
    return (values.reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)


PICTURES = published(torch.arange(768))
NOISY = Schedule.linear(beta_start=.01)


@pytest.mark.parametrize("schedule, end, total", [
    (LINEAR, 1., 172.0067), (NOISY, 1., 149.8295), (NOISY, float(NOISY.alpha_bar[0]), 149.0784)])
def test_published_sum_of_ten_steps(schedule, end, total):
    x = last(sample(published_toy, PICTURES, schedule, 10, clip=True, end=end))
    assert float(x.abs().sum()) == pytest.approx(total, abs=2e-3)


def test_published_sum_of_the_last_two_steps():
    first = torch.full((4,), 100)
    xt = q_sample(PICTURES, first, published(torch.arange(768).flip(0)), LINEAR)
    for t in (first, 0 * first):
        xt = ddim_step(published_toy(xt, t), xt, t, t - 100, LINEAR, clip=True)
    assert float(xt.abs().sum()) == pytest.approx(354.5418, abs=2e-3)


def test_published_sum_of_an_inversion():
    x = last(invert(published_toy, PICTURES, LINEAR, 10, clip=True))
    assert float(x.abs().sum()) == pytest.approx(671.6816, abs=2e-3)


def test_published_variances():
    t = torch.tensor([420, 980, 0])
    variance = ddim_sigma(t, t - 20, LINEAR) ** 2
    assert variance.tolist() == pytest.approx([.14771, .32460, 0.], abs=1e-5)


# Laws.

@pytest.mark.parametrize("stride", [1, 20, 333])
def test_eta_one_is_the_step_of_ddpm(stride):
    t = torch.tensor([999, 400, 57, 3, 0])
    xt, eps_hat, z = (noise(5, 3, 4, 6, seed=seed, dtype=torch.float64) for seed in range(3))
    ours = ddim_step(eps_hat, xt, t, t - stride, LINEAR, 1., z)
    assert relative_error(ours, ddpm_step(eps_hat, xt, t, LINEAR, z, t - stride)) < 1e-12


@pytest.mark.parametrize("eta", [0., .3, 1.])
@pytest.mark.parametrize("stride", [1, 37, 500])
def test_every_eta_keeps_the_marginals(eta, stride):
    """With the true eps a step is linear in (x0, eps, noise): read its three factors off."""
    t = torch.tensor([999, 640, 500])
    unit = torch.eye(3, dtype=torch.float64)
    factors = []
    for x0, eps, z in unit:
        x0, eps, z = (v.expand(3, 1) for v in (x0, eps, z))
        xt = q_sample(x0, t, eps, LINEAR)
        factors.append(ddim_step(eps, xt, t, t - stride, LINEAR, eta, z)[:, 0])
    kept = LINEAR.alpha_bar[t - stride]
    assert relative_error(factors[0], kept.sqrt()) < 1e-12         # the mean
    assert relative_error(factors[1] ** 2 + factors[2] ** 2, 1 - kept) < 1e-12
    assert bool((factors[2] > 0).all()) == (eta > 0)


def test_the_walk_of_a_gaussian_ends_with_its_mean_and_spread():
    """For data N(m, s^2) the exact eps is a line, so a walk's end is one too: two points tell it.

    With eta = 0, x0 = a xT + b; b must be m and a must be s, with an error like 1 / steps.
    """
    mean, std = .4, .3

    def eps(xt, t):
        a = LINEAR.alpha_bar[t].view(-1, 1)
        return (1 - a).sqrt() * (xt - a.sqrt() * mean) / (a * std**2 + 1 - a)
    xT = torch.tensor([[0.], [1.]], dtype=torch.float64)
    wrong = []
    for steps in (10, 100, 1000):
        low, high = last(sample(eps, xT, LINEAR, steps, spacing="trailing"))[:, 0].tolist()
        wrong.append(abs(high - low - std))
    assert wrong[0] > 5 * wrong[1] > 25 * wrong[2] and wrong[2] < 2e-3
    assert abs(low - mean) < 1e-3


def test_the_mixture_is_found_again_with_every_eta():
    mixture, xT = Mixture(), noise(400, 2, seed=1, dtype=torch.float64)

    def eps(xt, t):
        return mixture.eps(xt, t, LINEAR)
    for eta in (0., 1.):
        mode, _ = mixture.nearest(x0 := last(sample(eps, xT, LINEAR, 500, eta, generator(2))))
        spread = (x0 - mixture.means[mode]).std()
        assert abs(float(spread) - mixture.std) < .01
        assert torch.bincount(mode, minlength=8).min() > 400 / 8 * .6


def test_an_ode_step_is_euler_s_in_the_scaled_variable():
    t = torch.tensor([990, 300, 40])
    xt, eps_hat = (noise(3, 2, seed=seed, dtype=torch.float64) for seed in range(2))
    sigma = ((1 - LINEAR.alpha_bar) / LINEAR.alpha_bar).sqrt()
    scaled = xt / LINEAR.alpha_bar[t].sqrt()[:, None]
    moved = scaled + (sigma[t - 40] - sigma[t])[:, None] * eps_hat
    want = moved * LINEAR.alpha_bar[t - 40].sqrt()[:, None]
    assert relative_error(ddim_step(eps_hat, xt, t, t - 40, LINEAR), want) < 1e-12


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("end", [1., float(LINEAR.alpha_bar[0])])
def test_there_and_back_with_one_eps(spacing, end):
    x0, eps = (noise(2, 3, 4, 5, seed=seed, dtype=torch.float64) for seed in range(2))
    for steps in (7, 50):
        xT = last(invert(lambda xt, t: eps, x0, LINEAR, steps, spacing=spacing, end=end))
        back = last(sample(lambda xt, t: eps, xT, LINEAR, steps, spacing=spacing, end=end))
        assert relative_error(xT, x0) > .5 and relative_error(back, x0) < 1e-9


def test_up_and_down_are_inverse_and_up_from_x0_is_q_sample():
    xt, eps = (noise(3, 2, 5, seed=seed, dtype=torch.float64) for seed in range(2))
    low, high = torch.tensor([-1, 0, 444]), torch.tensor([19, 500, 999])
    up = ddim_ascend(eps, xt, low, high, LINEAR)
    assert relative_error(ddim_step(eps, up, high, low, LINEAR), xt) < 1e-11
    assert relative_error(up[:1], q_sample(xt[:1], high[:1], eps[:1], LINEAR)) < 1e-12


def test_the_round_trip_error_falls_with_more_steps():
    mixture = Mixture()
    x0 = mixture.sample(200, generator(0))

    def eps(xt, t):
        return mixture.eps(xt, t, LINEAR)
    error = []
    for steps in (10, 50, 250):
        back = last(sample(eps, last(invert(eps, x0, LINEAR, steps)), LINEAR, steps))
        error.append(float((back - x0).norm(dim=1).mean()))
    assert error[0] > 2 * error[1] > 4 * error[2] > 0


def test_upto_stops_on_the_way():
    x0 = noise(2, 3, 4, 4)
    whole = list(invert(toy, x0, LINEAR, 20))
    part = list(invert(toy, x0, LINEAR, 20, upto=7))
    assert len(whole) == 20 and [t for t, _ in part] == [0, 50, 100, 150, 200, 250, 300]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(part, whole[:7], strict=True))


@pytest.mark.parametrize("spacing, offset", [("leading", 1), ("trailing", 0), ("linspace", 0)])
def test_a_walk_that_starts_midway_is_the_rest_of_the_whole(spacing, offset):
    xT = noise(2, 3, 4, 4)
    whole = list(sample(toy, xT, LINEAR, 20, spacing=spacing, offset=offset))
    for last_steps in (0, 1, 7, 19, 20):
        start = xT if last_steps == 20 else whole[19 - last_steps][1]
        rest = list(sample(toy, start, LINEAR, 20, spacing=spacing, offset=offset,
                           last=last_steps))
        assert [t for t, _ in rest] == [t for t, _ in whole[20 - last_steps:]]
        assert all(torch.equal(a, b) for (_, a), (_, b) in
                   zip(rest, whole[20 - last_steps:], strict=True))


def test_a_walk_midway_takes_up_where_inversion_stops():
    """With one eps everywhere the round trip to each level is exact, and its levels are named."""
    x0, eps = (noise(2, 3, 4, 5, seed=seed, dtype=torch.float64) for seed in range(2))
    for count in (1, 4, 9):
        up = list(invert(lambda xt, t: eps, x0, LINEAR, 9, offset=1, upto=count))
        down = list(sample(lambda xt, t: eps, up[-1][1], LINEAR, 9, offset=1, last=count))
        assert [t for t, _ in down] == [t for t, _ in up][::-1]
        for (_, above), (_, below) in zip(up[:-1], down[::-1][1:], strict=True):
            assert relative_error(below, above) < 1e-10
        assert relative_error(last(down), x0) < 1e-10


def test_one_generator_one_picture():
    xT = noise(2, 3, 4, 5)
    trajectories = [last(sample(toy, xT, LINEAR, 9, eta, generator(seed)))
                    for eta, seed in ((0., 1), (0., 2), (1., 1), (1., 1), (1., 2))]
    assert torch.equal(trajectories[0], trajectories[1]) and torch.equal(trajectories[2],
                                                                         trajectories[3])
    assert not torch.allclose(trajectories[2], trajectories[4], atol=.1)
    g = generator(1)
    first, second = (last(sample(toy, xT, LINEAR, 9, 1., g)) for _ in range(2))
    assert torch.equal(first, trajectories[2]) and not torch.allclose(first, second, atol=.1)


def test_a_walk_draws_noise_only_when_asked_and_changes_nothing_of_ours():
    xT, g = noise(2, 3, 4, 5), generator(3)
    kept, state = xT.clone(), g.get_state()
    list(sample(toy, xT, LINEAR, 5, 0., g))
    assert torch.equal(g.get_state(), state) and torch.equal(xT, kept)
    list(invert(toy, xT, LINEAR, 5))
    assert torch.equal(xT, kept)


def test_the_network_sees_the_step_it_stands_on_and_keeps_no_graph():
    seen, weight = [], torch.ones(1, requires_grad=True)

    def model(xt, t):
        seen.append(t.tolist())
        return weight * xt
    x = last(sample(model, noise(2, 3, 4, 5), LINEAR, 4))
    assert seen == [[750, 750], [500, 500], [250, 250], [0, 0]] and not x.requires_grad
    seen.clear()
    last(invert(model, noise(2, 3, 4, 5), LINEAR, 4))
    assert seen == [[0, 0], [250, 250], [500, 500], [750, 750]]    # of the step aimed at


def test_clip_limits_the_prediction_and_not_eps():
    t = torch.tensor([900, 100])
    xt, eps_hat = 3 * noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1)
    prediction = predict_x0(eps_hat, xt, t, LINEAR)
    assert prediction.abs().max() > 1
    want = q_sample(prediction.clamp(-1, 1), t - 50, eps_hat, LINEAR)
    assert relative_error(ddim_step(eps_hat, xt, t, t - 50, LINEAR, clip=True), want) < 1e-6


@pytest.mark.parametrize("steps", [7, 50])
def test_fitting_eps_is_that_of_diffusers_use_clipped_model_output(steps):
    theirs, x = reference(DDIMScheduler, LINEAR, steps, clip=True), noise(2, 3, 4, 5)
    ours = last(sample(with_fitting_eps(toy, LINEAR), x, LINEAR, steps))
    for t in theirs.timesteps:
        x = theirs.step(toy(x, t.expand(len(x))), t, x, use_clipped_model_output=True).prev_sample
    assert relative_error(ours, x) < 1e-5


def test_alpha_bar_at_knows_the_end():
    t = torch.tensor([-7, -1, 0, 1, 999])
    for end in (1., .25):
        want = [end, end, *LINEAR.alpha_bar[[0, 1, 999]].tolist()]
        assert alpha_bar_at(t, LINEAR, end).tolist() == want
    assert alpha_bar_at(t, LINEAR).dtype == torch.float64


# Between two noises.

@pytest.mark.parametrize("part", [0., .2, .5, .9, 1.])
def test_slerp_is_that_of_scipy(part):
    a, b = (noise(3, 4, 5, seed=seed, dtype=torch.float64) for seed in range(2))
    unit = [v.flatten().numpy() / float(v.norm()) for v in (a, b)]
    want = geometric_slerp(*unit, part)
    got = slerp(a / a.norm(), b / b.norm(), part)
    assert got.shape == a.shape and np.abs(got.flatten().numpy() - want).max() < 1e-12


def test_slerp_keeps_the_length_that_noise_has_and_a_line_does_not():
    a, b = noise(3, 32, 32), noise(3, 32, 32, seed=1)
    lengths = [float(slerp(a, b, part).norm()) for part in (0., .25, .5, .75, 1.)]
    assert lengths == pytest.approx([float(a.norm())] * 5, rel=.03)
    assert float(torch.lerp(a, b, .5).norm()) < .75 * lengths[2]


def test_slerp_of_parallel_noises_is_finite():
    a = torch.zeros(3, 4)
    a[1, 2] = 2                                                    # its cosine with itself is 1
    assert torch.equal(slerp(a, a, .3), a)
    assert torch.isfinite(slerp(a, -a, .5)).all()


# Bad input: one sentence that says what to do.

STEP = torch.tensor([10, 10])


@pytest.mark.parametrize("call, words", [
    (lambda x: ddim_step(x, x, STEP + 990, STEP, LINEAR), r"0\.\.999, got 1000"),
    (lambda x: ddim_step(x, x, STEP - 11, STEP - 20, LINEAR), r"0\.\.999, got -1"),
    (lambda x: ddim_step(x, x, STEP, STEP + 5, LINEAR), "t_prev must lie below t"),
    (lambda x: ddim_ascend(x, x, STEP, STEP + 990, LINEAR), r"0\.\.999, got 1000"),
    (lambda x: ddim_ascend(x, x, STEP + 990, STEP, LINEAR), r"0\.\.999, got 1000"),
    (lambda x: ddim_step(x[:0], x[:0], STEP[:0], STEP[:0], LINEAR), "batch is empty"),
    (lambda x: list(sample(toy, x[:0], LINEAR, 5)), "batch is empty"),
    (lambda x: list(invert(toy, x[:0], LINEAR, 5)), "batch is empty"),
    (lambda x: list(sample(toy, x, LINEAR, 1001)), "t_prev must lie below t"),
    (lambda x: list(sample(toy, x, LINEAR, 1000, offset=1)), r"0\.\.999, got 1000"),
    (lambda x: list(sample(toy, x, LINEAR, 10, offset=-1)), r"0\.\.999, got -1"),
])
def test_bad_input_is_refused_in_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(noise(2, 3, 4, 5))


def test_randomness_without_noise_and_an_unknown_spacing_are_no_walk():
    x = noise(2, 3, 4, 5)
    with pytest.raises(TypeError):
        ddim_step(x, x, STEP, STEP - 5, LINEAR, eta=.5)
    with pytest.raises(KeyError, match="middle"):
        list(invert(toy, x, LINEAR, 5, spacing="middle"))
