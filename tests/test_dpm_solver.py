"""DPM-Solver++(2M) against diffusers' scheduler and against the order that it promises."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from oracles import relative_error

from gligen_lessons import ddim
from gligen_lessons.ddpm import Mixture
from gligen_lessons.device import generator
from gligen_lessons.dpm_solver import extrapolated_x0, half_log_snr, sample_2m
from gligen_lessons.schedule import Schedule

LINEAR = Schedule.linear()
SCHEDULES = {"linear": LINEAR, "scaled_linear": Schedule.scaled_linear()}


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def toy(xt, t):
    """A prediction of eps that is not linear and depends on every input."""
    t = t.to(xt.dtype).view(-1, *[1] * (xt.ndim - 1))
    return torch.tanh(.7 * xt + torch.sin(t / 90)) + .3 * torch.cos(3 * xt.roll(1, -1))


def their_trajectory(model, xT, schedule, steps):
    """diffusers' walk of trailing steps down to x0, with our float64 numbers."""
    theirs = DPMSolverMultistepScheduler(timestep_spacing="trailing", solver_order=2)
    theirs.alphas_cumprod = schedule.alpha_bar
    theirs.set_timesteps(steps)
    kept = schedule.alpha_bar[theirs.timesteps]
    theirs.sigmas = torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1).double()])
    x = xT
    for t in theirs.timesteps:
        x = theirs.step(model(x, t.expand(len(x))), t, x).prev_sample
    return x


def last(trajectory):
    *_, (_, x) = trajectory
    return x


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 100])
def test_a_walk_is_that_of_diffusers(name, steps):
    schedule, xT = SCHEDULES[name], noise(2, 3, 4, 5)
    visited = ddim.timesteps(1000, steps, "trailing")
    ours = last(sample_2m(toy, xT, schedule, visited))
    assert relative_error(ours,
                          their_trajectory(toy, xT, schedule, steps)) < 1e-5     # theirs is float32


def test_the_first_step_and_one_onto_x0_are_those_of_ddim():
    xT = noise(2, 3, 4, 5)
    trajectory = dict(sample_2m(toy, xT, LINEAR, [800, 300]))
    t = torch.tensor([800, 800])
    first = ddim.ddim_step(toy(xT, t), xT, t, t - 500, LINEAR)
    assert relative_error(trajectory[800], first) < 1e-12
    t = torch.tensor([300, 300])
    end = ddim.ddim_step(toy(first, t), first, t, t - 301, LINEAR)
    assert relative_error(trajectory[300], end) < 1e-9


def test_lambda_is_half_the_log_of_the_signal_to_noise_ratio():
    t = torch.tensor([0, 258, 999])
    signal, noisy = LINEAR.alpha_bar[t].sqrt(), (1 - LINEAR.alpha_bar[t]).sqrt()
    assert relative_error(half_log_snr(t, LINEAR), signal.log() - noisy.log()) < 1e-12
    assert half_log_snr(t, LINEAR).dtype == torch.float64


def test_a_prediction_on_a_line_in_lambda_is_followed_exactly():
    """If x0_hat is linear in lambda, its value at the middle of the step must come out."""
    t_last, t, t_prev = torch.tensor([[900, 500], [700, 450], [200, 440]])
    slope, start = noise(2, 3), noise(2, 3, seed=1)

    def line(at):
        return start + at[:, None] * slope
    low, middle, high = (half_log_snr(i, LINEAR) for i in (t_last, t, t_prev))
    got = extrapolated_x0(line(middle), line(low), t, t_last, t_prev, LINEAR)
    assert relative_error(got, line((middle + high) / 2)) < 1e-12


def test_the_error_falls_with_the_square_of_the_steps_on_the_ring():
    ring, xT = Mixture(), noise(100, 2)

    def exact(xt, t):
        return ring.eps(xt, t, LINEAR)

    def quadratic(count):
        return [round(x) for x in torch.linspace(999**.5, 0, count).square().tolist()]

    def error(trajectory):
        return float((last(trajectory) - goal).norm(dim=1).median())
    goal = last(sample_2m(exact, xT, LINEAR, list(range(999, -1, -1))))
    second = [error(sample_2m(exact, xT, LINEAR, quadratic(n))) for n in (10, 40)]
    first = error(ddim.sample(exact, xT, LINEAR, 40))
    assert second[0] > 16 * second[1] and second[1] < first / 5


def test_the_network_is_asked_once_a_step_and_keeps_no_graph():
    seen, weight = [], torch.ones(1, requires_grad=True, dtype=torch.float64)

    def model(xt, t):
        seen.append(t.tolist())
        return weight * xt
    sampled = [t for t, _ in sample_2m(model, noise(2, 3), LINEAR, [999, 300, 7])]
    assert sampled == [999, 300, 7] and seen == [[999] * 2, [300] * 2, [7] * 2]
    assert not last(sample_2m(model, noise(2, 3), LINEAR, [5])).requires_grad


def test_a_step_outside_the_schedule_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.999, got 1000"):
        list(sample_2m(toy, noise(2, 3), LINEAR, [1000, 0]))
