"""Guidance: exact cases, identities, and the networks that are guided."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from oracles import draw, relative_error

from gligen_lessons import ddim, ddpm, guidance
from gligen_lessons.guidance import LabelledUNet, NoisyClassifier
from gligen_lessons.recipes.guidance import LABELLED, SIZES, begin_with
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet

SCHEDULE = Schedule.linear()
A = .8                                                    # see `log_prob`


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal_eps(xt, t, mean=0.):
    """The exact eps of data N(mean, 1): noised, they are N(sqrt(alpha_bar) mean, 1)."""
    alpha_bar = SCHEDULE.alpha_bar[t].view(-1, *[1] * (xt.ndim - 1))
    return (1 - alpha_bar).sqrt() * (xt - alpha_bar.sqrt() * mean)


def log_prob(xt, t):
    """log p(y | xt) up to a constant, where p(y | x0) is proportional to exp(A sum x0).

    Then p(x0 | y) is N(A, 1), and E[exp(A x0) | xt] = exp(A sqrt(alpha_bar) xt + ...).
    """
    return A * SCHEDULE.alpha_bar[t].sqrt() * xt.flatten(1).sum(1)


def test_the_gradient_is_that_of_the_formula_and_needs_no_grad_mode():
    xt, t = some(3, 1, 2, 2), torch.tensor([0, 400, 999])
    with torch.no_grad():
        gradient = guidance.classifier_gradient(log_prob, xt, t)
    assert torch.allclose(gradient, (A * SCHEDULE.alpha_bar[t].sqrt()).view(3, 1, 1, 1)
                          .expand_as(xt), rtol=1e-12)
    assert not xt.requires_grad and not gradient.requires_grad


def test_classifier_guidance_gives_exactly_the_conditional_prediction():
    """Bayes: the score of p(x | y) is that of p(x) plus the classifier's gradient."""
    xt, t = some(3, 1, 2, 2), torch.tensor([3, 400, 999])
    guided = guidance.classifier_guided(normal_eps, log_prob, SCHEDULE, 1.)(xt, t)
    assert relative_error(guided, normal_eps(xt, t, mean=A)) < 1e-12
    twice = guidance.classifier_guided(normal_eps, log_prob, SCHEDULE, 2.)(xt, t)
    free = guidance.guide(normal_eps(xt, t), normal_eps(xt, t, mean=A), 2.)
    assert relative_error(twice, free) < 1e-12


def test_guided_samples_of_a_gaussian_are_those_of_its_condition():
    model = guidance.classifier_guided(normal_eps, log_prob, SCHEDULE, 1.)
    *_, (_, x0) = ddim.sample(model, some(4000, 1, 1, 1), SCHEDULE, 100)
    assert float(x0.mean()) == pytest.approx(A, abs=.05)
    assert float(x0.std()) == pytest.approx(1, abs=.03)


@pytest.mark.parametrize("step", [1, 250, 999])
def test_the_ddpm_form_shifts_the_mean_by_the_variance(step):
    xt, noise = some(2, 3, 4, 5), some(2, 3, 4, 5, seed=1)
    eps_hat, gradient = some(2, 3, 4, 5, seed=2), some(2, 3, 4, 5, seed=3)
    t = torch.full((2,), step)
    plain = ddpm.ddpm_step(eps_hat, xt, t, SCHEDULE, noise)
    moved = guidance.classifier_ddpm_step(eps_hat, xt, t, SCHEDULE, noise, gradient, 2.5)
    scheduler = DDPMScheduler(beta_start=1e-4, beta_end=.02)
    scheduler.alphas_cumprod, scheduler.betas = SCHEDULE.alpha_bar, SCHEDULE.betas
    variance = scheduler._get_variance(step, variance_type="fixed_small")
    assert relative_error(moved - plain, 2.5 * variance * gradient) < 1e-9


def test_the_ddpm_form_clips_before_it_shifts():
    xt, t = 9 + some(2, 3, 4, 5), torch.tensor([700, 700])
    given = (some(2, 3, 4, 5, seed=2), xt, t, SCHEDULE, some(2, 3, 4, 5, seed=1))
    assert torch.equal(guidance.classifier_ddpm_step(*given, 0 * xt, 3., clip=True),
                       ddpm.ddpm_step(*given, clip=True))


def test_the_scale_means_what_the_course_says():
    a, b = some(2, 3, 4, 4), some(2, 3, 4, 4, seed=1)
    assert torch.equal(guidance.guide(a, b, 0.), a)
    assert torch.allclose(guidance.guide(a, b, 1.), b, atol=1e-12)
    assert torch.allclose(guidance.guide(a, b, 4.), (1 + 3.) * b - 3. * a)      # Ho: w = s - 1


def test_classifier_free_makes_one_call_with_the_empty_condition_first():
    calls = []

    def model(xt, t, cond):
        calls.append((xt, t, cond))
        return xt * cond.view(-1, 1, 1, 1)

    xt, t = some(2, 1, 2, 2), torch.tensor([5, 9])
    cond, null = torch.tensor([3., 4.]), torch.tensor([1., 2.])
    guided = guidance.classifier_free(model, cond, null, 2.)(xt, t)
    assert len(calls) == 1 and calls[0][2].tolist() == [1, 2, 3, 4]
    assert calls[0][1].tolist() == [5, 9, 5, 9] and torch.equal(calls[0][0], torch.cat([xt, xt]))
    factor = torch.tensor([1 + 2 * 2., 2 + 2 * 2.]).view(2, 1, 1, 1)
    assert torch.allclose(guided, factor * xt)
    assert torch.equal(guidance.classifier_free(model, cond, null, 1.)(xt, t),
                       xt * cond.view(2, 1, 1, 1))
    assert calls[-1][2].tolist() == [3, 4]                # a scale of 1 asks once


@pytest.mark.parametrize("scale", [-.1, math.nan, math.inf])
def test_a_scale_that_means_nothing_is_refused_at_once(scale):
    with pytest.raises(ValueError, match="finite number of at least 0"):
        guidance.classifier_free(None, None, None, scale)
    with pytest.raises(ValueError, match="finite number of at least 0"):
        guidance.classifier_guided(None, None, SCHEDULE, scale)


def test_dropping_replaces_whole_conditions_at_the_asked_rate():
    cond, null = some(20_000, 2, 3), some(2, 3, seed=1)
    dropped = guidance.drop(cond, null, .1, torch.Generator().manual_seed(0))
    gone = (dropped == null).flatten(1).all(1)
    assert torch.equal(dropped[~gone], cond[~gone])
    assert float(gone.double().mean()) == pytest.approx(.1, abs=.01)
    again = guidance.drop(cond, null, .1, torch.Generator().manual_seed(0))
    assert torch.equal(dropped, again)
    assert torch.equal(guidance.drop(cond, null, 0., torch.Generator()), cond)
    assert torch.equal(guidance.drop(cond, null, 1., torch.Generator()), null.expand_as(cond))


@torch.no_grad()
def test_labels_are_tokens_and_minus_one_is_the_empty_one():
    model = LabelledUNet(**LABELLED)
    draw(model)
    xt, t = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor(
        [5, 5, 5])
    labels = torch.tensor([[0, 0], [-1, -1], [SIZES["categories"], SIZES["colours"]]])
    out = model(xt[:1].expand(3, -1, -1, -1), t, labels)
    assert relative_error(out[1], out[2]) < 1e-5          # -1 is the last entry of each table
    assert relative_error(out[0], out[1]) > 1e-2
    assert relative_error(model(xt, t, labels), model.unet(xt, t, torch.stack(
        [model.category.weight[[0, 16, 16]], model.colour.weight[[0, 10, 10]]], 1))) < 1e-5


@torch.no_grad()
def test_the_classifier_reads_picture_and_step():
    model = NoisyClassifier(**SIZES)
    draw(model)
    xt = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    category, colour = model(xt, torch.tensor([3, 3]))
    assert category.shape == (2, 16) and colour.shape == (2, 10)
    assert relative_error(model(xt, torch.tensor([900, 900]))[0], category) > 1e-2
    assert relative_error(model(xt.flip(0), torch.tensor([3, 3]))[1], colour) > 1e-2


def test_a_model_begins_with_what_fits_of_another():
    target = UNet(**LABELLED["unet"])
    kept = {name: p.clone() for name, p in target.state_dict().items()}
    begin_with(target, {"conv_in.bias": torch.ones(32), "conv_out.bias": torch.ones(7),
                        "stranger": torch.ones(2)})
    after = target.state_dict()
    assert after["conv_in.bias"].tolist() == [1.] * 32
    assert torch.equal(after["conv_out.bias"], kept["conv_out.bias"])
