"""Laws of the noise schedule and of looking its values up."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gligen_lessons.schedule import Schedule, expand_like, extract, look_up

BETA = st.floats(1e-6, .5)
BETAS = st.lists(BETA, min_size=1, max_size=40)


@settings(deadline=None)
@given(BETAS)
def test_what_follows_from_betas(betas):
    made = Schedule(torch.tensor(betas, dtype=torch.float64))
    assert made.T == len(betas) == len(made.alphas) == len(made.alpha_bar)
    left = 1.
    for t, beta in enumerate(betas):                               # plain Python is the oracle
        left *= 1 - beta
        assert math.isclose(float(made.alphas[t]), 1 - beta, rel_tol=1e-15)
        assert math.isclose(float(made.alpha_bar[t]), left, rel_tol=1e-12)


@settings(deadline=None)
@given(BETAS)
def test_a_schedule_only_goes_down_and_stays_between_0_and_1(betas):
    alpha_bar = Schedule(torch.tensor(betas, dtype=torch.float64)).alpha_bar
    assert 0 < float(alpha_bar.min()) <= float(alpha_bar.max()) < 1
    assert bool((alpha_bar.diff() < 0).all())


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, list])
def test_a_schedule_is_float64_on_the_cpu(kind):
    betas = [.1, .2] if kind is list else torch.tensor([.1, .2], dtype=kind)
    made = Schedule(betas)
    assert all(x.dtype == torch.float64 and x.device.type == "cpu"
               for x in (made.betas, made.alphas, made.alpha_bar))


@settings(deadline=None)
@given(BETAS, st.integers(0, 39), st.one_of(
    st.floats(max_value=0), st.floats(min_value=1), st.just(math.nan)))
def test_a_beta_outside_0_and_1_is_refused(betas, place, bad):
    betas[place % len(betas)] = bad
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Schedule(torch.tensor(betas, dtype=torch.float64))


@pytest.mark.parametrize("betas", [torch.zeros(0), torch.full((2, 2), .1), torch.tensor(.1)])
def test_betas_that_are_no_list_are_refused(betas):
    with pytest.raises(ValueError, match="list of at least one number"):
        Schedule(betas)


def test_a_schedule_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Schedule.linear().betas = torch.ones(3)


@pytest.mark.parametrize("T", [2, 10, 1000])
def test_linear_and_scaled_linear_are_straight_where_they_say(T):
    straight, rooted = Schedule.linear(T).betas, Schedule.scaled_linear(T).betas.sqrt()
    for line, ends in ((straight, (1e-4, .02)), (rooted, (.00085**.5, .012**.5))):
        assert torch.allclose(line[[0, -1]], torch.tensor(ends, dtype=torch.float64), rtol=1e-12)
        assert torch.allclose(line.diff(), line.diff()[:1].expand(T - 1), rtol=1e-6)


@pytest.mark.parametrize("make, name, ends", [
    (Schedule.linear, "linear", (1e-4, .02)),
    (Schedule.scaled_linear, "scaled_linear", (.00085, .012)),
    (Schedule.cosine, "squaredcos_cap_v2", (1e-4, .02))])              # its ends are not read
def test_schedules_are_those_of_diffusers(make, name, ends):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(1000, *ends, beta_schedule=name)
    assert torch.allclose(make().betas, theirs.betas.double(), rtol=1e-5)
    assert torch.allclose(make().alpha_bar, theirs.alphas_cumprod.double(), rtol=1e-4)


@pytest.mark.parametrize("T", [4, 50, 1000])
def test_the_cosine_schedule_is_a_cosine_up_to_its_last_step(T):
    made = Schedule.cosine(T)
    angle = [((i / T + .008) / 1.008) * math.pi / 2 for i in range(T + 1)]
    want = [math.cos(a)**2 / math.cos(angle[0])**2 for a in angle[1:-1]]
    assert torch.allclose(made.alpha_bar[:-1], torch.tensor(want, dtype=torch.float64), rtol=1e-10)
    assert float(made.betas[-1]) == .999 and float(made.betas[:-1].max()) < .999


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 4),
       st.sampled_from([torch.float16, torch.float32, torch.float64]),
       st.sampled_from([torch.int32, torch.int64]))
def test_at_finds_each_value_and_fits_its_picture(steps, dims, dtype, kind):
    values = torch.arange(10, dtype=torch.float64) / 8             # exact in every dtype
    like = torch.ones(len(steps), *range(2, 2 + dims), dtype=dtype)
    found = extract(values, torch.tensor(steps, dtype=kind), like)
    assert found.shape == (len(steps), *[1] * dims) and found.dtype == dtype
    assert found.flatten().tolist() == [step / 8 for step in steps]
    assert (found * like).shape == like.shape


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_values_go_to_the_device_of_the_picture(place):
    like = torch.empty(2, 3, 4, 5, device=place)
    assert extract(Schedule.linear().betas, torch.tensor([3, 4]), like).device.type == place
    assert expand_like(torch.ones(2, dtype=torch.float64), like).device.type == place


def test_a_difference_is_taken_before_the_cast():
    """float32 keeps four digits of 1 - alpha_bar at step 0; what `extract` gets has sixteen."""
    schedule, like = Schedule.linear(), torch.ones(1, 3, 2, 2)
    noise = float(extract(1 - schedule.alpha_bar, torch.tensor([0]), like))
    assert math.isclose(noise, 1e-4, rel_tol=1e-7)
    rounded = float(1 - schedule.alpha_bar[0].float())
    assert not math.isclose(rounded, 1e-4, rel_tol=1e-5)


@pytest.mark.parametrize("t, error, words", [
    (torch.tensor([0, 10]), ValueError, "0..9, got 0 to 10: the code counts steps from 0"),
    (torch.tensor([-1, 3]), ValueError, "got -1 to 3"),
    (torch.tensor([1., 2.]), TypeError, "whole steps (torch.long), got torch.float32"),
    (torch.tensor([True, False]), TypeError, "got torch.bool"),
    (torch.tensor([1, 2, 3]), ValueError, "one step for each of the 2 pictures, got shape (3,)"),
    (torch.tensor([[1, 2]]), ValueError, "got shape (1, 2)"),
    (torch.tensor(1), ValueError, "got shape ()")])
def test_steps_that_no_picture_can_have_are_refused(t, error, words):
    with pytest.raises(error) as told:
        extract(Schedule.linear(10).betas, t, torch.zeros(2, 3, 4, 5))
    assert words in str(told.value)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch is empty"):
        extract(Schedule.linear(10).betas, torch.zeros(0, dtype=torch.long),
                torch.zeros(0, 3, 4, 5))


def test_look_up_keeps_64_bits():
    values = Schedule.linear(10).alpha_bar
    found = look_up(values, torch.tensor([9, 0]))
    assert found.dtype == torch.float64 and torch.equal(found, values[[9, 0]])
