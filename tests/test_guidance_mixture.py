"""Densities and classes of the exact mixture, on which lesson 5 proves what guidance does."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gligen_lessons.ddpm import Mixture
from gligen_lessons.schedule import Schedule

SCHEDULE = Schedule.linear()
RING = Mixture(5, 1.2, .3)


def places(count=40):
    g = torch.Generator().manual_seed(0)
    return 1.5 * torch.randn(count, 2, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("part", [RING, RING.only([3, 1])], ids=["all", "two"])
@pytest.mark.parametrize("step", [0, 300, 999])
def test_the_density_is_that_of_torch(step, part):
    alpha_bar = SCHEDULE.alpha_bar[step]
    std = (alpha_bar * .3**2 + 1 - alpha_bar).sqrt()
    modes = Independent(Normal(alpha_bar.sqrt() * part.means, std), 1)
    wanted = MixtureSameFamily(Categorical(torch.ones(len(part.means))), modes)
    xt, t = places(), torch.full((40,), step)
    torch.testing.assert_close(part.log_density(xt, t, SCHEDULE), wanted.log_prob(xt))


@pytest.mark.parametrize("step", [0, 300, 999])
def test_its_gradient_is_the_score_that_eps_holds(step):
    t, xt = torch.full((40,), step), places().requires_grad_()
    score = torch.autograd.grad(RING.log_density(xt, t, SCHEDULE).sum(), xt)[0]
    wanted = -(1 - SCHEDULE.alpha_bar[step]).sqrt() * score
    torch.testing.assert_close(RING.eps(xt.detach(), t, SCHEDULE), wanted)


def test_each_point_has_its_own_step():
    xt, t = places(3), torch.tensor([0, 500, 999])
    alone = [RING.log_density(xt[i:i + 1], t[i:i + 1], SCHEDULE) for i in range(3)]
    torch.testing.assert_close(RING.log_density(xt, t, SCHEDULE), torch.cat(alone))


def test_classes_add_up_to_the_whole():
    xt, t = places(), torch.full((40,), 400)
    logs = torch.stack([math.log(len(modes) / 5) + RING.only(modes).log_density(xt, t, SCHEDULE)
                        for modes in ([0, 3], [1], [2, 4])])
    torch.testing.assert_close(logs.logsumexp(0), RING.log_density(xt, t, SCHEDULE))


def test_a_class_holds_its_modes_and_leaves_the_ring_alone():
    before = RING.means.clone()
    part = RING.only([3, 1])
    assert torch.equal(part.means, before[[3, 1]]) and torch.equal(RING.means, before)
    assert part.sample(200, torch.Generator().manual_seed(0)).shape == (200, 2)
    nearest, distance = RING.nearest(part.sample(200, torch.Generator().manual_seed(0)))
    assert set(nearest.tolist()) >= {1, 3} and float(distance.median()) < .5
