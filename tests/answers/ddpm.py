"""What people answer to the exercises of lesson 1."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import get_ema_avg_fn

from gligen_lessons import ddpm as reference
from gligen_lessons.metrics import unbiased_mmd as own_mmd
from gligen_lessons.schedule import cosine_betas, expand_like, extract

# q_step

def step_with_alpha_bar(x_prev, t, eps, schedule):
    keep = extract(schedule.alpha_bar.sqrt(), t, x_prev)
    return keep * x_prev + extract(schedule.betas.sqrt(), t, x_prev) * eps


def step_without_roots(x_prev, t, eps, schedule):
    return extract(schedule.alphas, t, x_prev) * x_prev + extract(schedule.betas, t, x_prev) * eps


def step_with_variance_for_deviation(x_prev, t, eps, schedule):
    return extract(schedule.alphas.sqrt(), t, x_prev) * x_prev + extract(schedule.betas, t,
                                                                         x_prev) * eps


def step_with_alpha_for_its_root(x_prev, t, eps, schedule):
    return extract(schedule.alphas, t, x_prev) * x_prev + extract(schedule.betas.sqrt(), t,
                                                                  x_prev) * eps


def step_that_never_shrinks(x_prev, t, eps, schedule):
    return x_prev + extract(schedule.betas.sqrt(), t, x_prev) * eps


def step_counted_from_one(x_prev, t, eps, schedule):
    return reference.q_step(x_prev, t - 1, eps, schedule)


def step_without_return(x_prev, t, eps, schedule):
    reference.q_step(x_prev, t, eps, schedule)


def step_from_betas(x_prev, t, eps, schedule):
    beta = extract(schedule.betas, t, x_prev)
    return (1 - beta)**.5 * x_prev + beta**.5 * eps


def step_in_place(x_prev, t, eps, schedule):
    x_prev *= extract(schedule.alphas.sqrt(), t, x_prev)
    eps *= extract(schedule.betas.sqrt(), t, eps)
    return x_prev.add_(eps)


def step_with_noise_of_its_own(x_prev, t, eps, schedule):
    return reference.q_step(x_prev, t, torch.randn_like(x_prev), schedule)


def step_a_picture_at_a_time(x_prev, t, eps, schedule):
    return torch.stack([math.sqrt(schedule.alphas[i]) * x + math.sqrt(schedule.betas[i]) * e
                        for i, x, e in zip(t, x_prev, eps, strict=True)])


# q_sample

def jump_with_noise_of_its_own(x0, t, eps, schedule):
    return reference.q_sample(x0, t, torch.randn(x0.shape), schedule)


def one_step_for_all(x0, t, eps, schedule):
    return reference.q_step(x0, t, eps, schedule)


def jump_without_roots(x0, t, eps, schedule):
    kept = extract(schedule.alpha_bar, t, x0)
    return kept * x0 + (1 - kept) * eps


def jump_with_variance_for_deviation(x0, t, eps, schedule):
    kept = extract(schedule.alpha_bar, t, x0)
    return kept.sqrt() * x0 + (1 - kept) * eps


def jump_with_a_root_for_noise_only(x0, t, eps, schedule):
    kept = extract(schedule.alpha_bar, t, x0)
    return kept * x0 + (1 - kept).sqrt() * eps


def jump_swapped(x0, t, eps, schedule):
    kept = extract(schedule.alpha_bar, t, x0)
    return (1 - kept).sqrt() * x0 + kept.sqrt() * eps


def jump_with_the_first_step(x0, t, eps, schedule):
    kept = schedule.alpha_bar[t[0]].float()
    return kept.sqrt() * x0 + (1 - kept).sqrt() * eps


def jump_counted_from_one(x0, t, eps, schedule):
    return reference.q_sample(x0, (t - 1).clamp(min=0), eps, schedule)


def jump_that_fails_to_broadcast(x0, t, eps, schedule):
    return schedule.alpha_bar[t].sqrt() * x0 + (1 - schedule.alpha_bar[t]).sqrt() * eps


def jump_in_float64(x0, t, eps, schedule):
    kept = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    return kept.sqrt() * x0 + (1 - kept).sqrt() * eps


def jump_in_float64_then_cast(x0, t, eps, schedule):
    return jump_in_float64(x0, t, eps, schedule).float()


def jump_with_einsum(x0, t, eps, schedule):
    kept = schedule.alpha_bar[t].float()
    return torch.einsum("b,b...->b...", kept.sqrt(), x0) + torch.einsum(
        "b,b...->b...", (1 - kept).sqrt(), eps)


def jump_a_picture_at_a_time(x0, t, eps, schedule):
    kept = [float(schedule.alpha_bar[i]) for i in t]
    return torch.stack([math.sqrt(k) * x + math.sqrt(1 - k) * e
                        for k, x, e in zip(kept, x0, eps, strict=True)])


# posterior

def weights_of(t, schedule, t_prev=None):
    now, before = reference.levels(t, t - 1 if t_prev is None else t_prev, schedule)
    return now, before, now / before


def posterior_fixed_large(x0, xt, t, schedule, t_prev=None):
    mean, variance = reference.posterior(x0, xt, t, schedule, t_prev)
    return mean, extract(schedule.betas, t, xt)


def posterior_with_deviation(x0, xt, t, schedule, t_prev=None):
    mean, variance = reference.posterior(x0, xt, t, schedule, t_prev)
    return mean, variance.sqrt()


def posterior_swapped(x0, xt, t, schedule, t_prev=None):
    return reference.posterior(xt, x0, t, schedule, t_prev)


def posterior_of_the_mean_only(x0, xt, t, schedule, t_prev=None):
    return reference.posterior(x0, xt, t, schedule, t_prev)[0]


def posterior_without_t_prev(x0, xt, t, schedule, t_prev=None):
    return reference.posterior(x0, xt, t, schedule)


def posterior_with_one_step_s_beta(x0, xt, t, schedule, t_prev=None):
    now, before, _ = weights_of(t, schedule, t_prev)
    beta = schedule.betas[t]
    to_x0 = expand_like(before.sqrt() * beta / (1 - now), xt)
    to_xt = expand_like((1 - beta).sqrt() * (1 - before) / (1 - now), xt)
    return to_x0 * x0 + to_xt * xt, expand_like(beta * (1 - before) / (1 - now), xt)


def posterior_with_index_minus_one(x0, xt, t, schedule, t_prev=None):
    t_prev = t - 1 if t_prev is None else t_prev
    now, before = schedule.alpha_bar[t], schedule.alpha_bar[t_prev]
    alpha = now / before
    to_x0 = expand_like(before.sqrt() * (1 - alpha) / (1 - now), xt)
    to_xt = expand_like(alpha.sqrt() * (1 - before) / (1 - now), xt)
    return to_x0 * x0 + to_xt * xt, expand_like((1 - alpha) * (1 - before) / (1 - now), xt)


def posterior_without_roots(x0, xt, t, schedule, t_prev=None):
    now, before, alpha = weights_of(t, schedule, t_prev)
    to_x0 = expand_like(before * (1 - alpha) / (1 - now), xt)
    to_xt = expand_like(alpha * (1 - before) / (1 - now), xt)
    return to_x0 * x0 + to_xt * xt, expand_like((1 - alpha) * (1 - before) / (1 - now), xt)


def posterior_with_the_root_at_t(x0, xt, t, schedule, t_prev=None):
    now, before, alpha = weights_of(t, schedule, t_prev)
    to_x0 = expand_like(now.sqrt() * (1 - alpha) / (1 - now), xt)
    to_xt = expand_like(alpha.sqrt() * (1 - before) / (1 - now), xt)
    return to_x0 * x0 + to_xt * xt, expand_like((1 - alpha) * (1 - before) / (1 - now), xt)


def posterior_with_alpha_bar_for_alpha(x0, xt, t, schedule, t_prev=None):
    now, before, _ = weights_of(t, schedule, t_prev)
    to_xt = expand_like(now.sqrt() * (1 - before) / (1 - now), xt)
    return expand_like(before.sqrt(), xt) * x0 + to_xt * xt, expand_like(1 - before, xt)


def posterior_in_64_bits(x0, xt, t, schedule, t_prev=None):
    mean, variance = reference.posterior(x0, xt, t, schedule, t_prev)
    return mean, variance.double()


def posterior_upside_down(x0, xt, t, schedule, t_prev=None):
    now, before, alpha = weights_of(t, schedule, t_prev)
    mean, _ = reference.posterior(x0, xt, t, schedule, t_prev)
    return mean, expand_like((1 - alpha) * (1 - now) / (1 - before), xt)


def posterior_through_eps(x0, xt, t, schedule, t_prev=None):
    """The form of DDIM with eta = 1."""
    now, before, alpha = weights_of(t, schedule, t_prev)
    variance = (1 - alpha) * (1 - before) / (1 - now)
    eps = reference.predict_eps(x0, xt, t, schedule)
    back = expand_like((1 - before - variance).clamp(min=0).sqrt(), xt)
    return expand_like(before.sqrt(), xt) * x0 + back * eps, expand_like(variance, xt)


def posterior_by_a_and_b(x0, xt, t, schedule, t_prev=None):
    now, before, alpha = (expand_like(v, xt.double()) for v in weights_of(t, schedule, t_prev))
    a = alpha / (1 - alpha) + 1 / (1 - before)
    b = alpha.sqrt() / (1 - alpha) * xt + before.sqrt() / (1 - before) * x0
    return (b / a).float(), (1 / a).float()


def posterior_by_adding_precisions(x0, xt, t, schedule, t_prev=None):
    now, before, alpha = weights_of(t, schedule, t_prev)
    variance = 1 / (alpha / (1 - alpha) + 1 / (1 - before))
    mean = expand_like(variance * alpha.sqrt() / (1 - alpha), xt) * xt
    to_x0 = torch.where(before == 1, 1, variance * before.sqrt() / (1 - before))
    return mean + expand_like(to_x0, xt) * x0, expand_like(variance, xt)


def posterior_in_three_lines_of_the_paper(x0, xt, t, schedule, t_prev=None):
    now, before, alpha = (expand_like(v, xt.double()) for v in weights_of(t, schedule, t_prev))
    beta, shrunk = 1 - alpha, (1 - before) / (1 - now)
    mean = before**.5 * beta / (1 - now) * x0 + alpha**.5 * shrunk * xt
    return mean.float(), (shrunk * beta).float()


# velocity and back

def factors(xt, t, schedule):
    return extract(schedule.alpha_bar.sqrt(), t, xt), extract((1 - schedule.alpha_bar).sqrt(), t,
                                                              xt)


def v_swapped(v_hat, xt, t, schedule):
    return reference.from_velocity(v_hat, xt, t, schedule)[::-1]


def v_with_plus_in_x0(v_hat, xt, t, schedule):
    a, b = factors(xt, t, schedule)
    return a * xt + b * v_hat, b * xt + a * v_hat


def v_with_minus_in_eps(v_hat, xt, t, schedule):
    a, b = factors(xt, t, schedule)
    return a * xt - b * v_hat, b * xt - a * v_hat


def v_with_factors_exchanged(v_hat, xt, t, schedule):
    a, b = factors(xt, t, schedule)
    return b * xt - a * v_hat, a * xt + b * v_hat


def v_turned_the_wrong_way(v_hat, xt, t, schedule):
    signal, noise = factors(xt, t, schedule)
    return signal * xt + noise * v_hat, noise * xt - signal * v_hat


def v_without_roots(v_hat, xt, t, schedule):
    a, b = factors(xt, t, schedule)
    return a**2 * xt - b**2 * v_hat, b**2 * xt + a**2 * v_hat


def v_as_eps(v_hat, xt, t, schedule):
    return reference.predict_x0(v_hat, xt, t, schedule), v_hat


def v_of_one_step(v_hat, xt, t, schedule):
    a = extract(schedule.alphas, t, xt)
    return a**.5 * xt - (1 - a)**.5 * v_hat, (1 - a)**.5 * xt + a**.5 * v_hat


def v_only_x0(v_hat, xt, t, schedule):
    return reference.from_velocity(v_hat, xt, t, schedule)[0]


def v_by_way_of_x0(v_hat, xt, t, schedule):
    a, b = factors(xt, t, schedule)
    x0 = a * xt - b * v_hat
    return x0, (v_hat + b * x0) / a


def v_by_a_linear_system(v_hat, xt, t, schedule):
    a, b = factors(xt.double(), t, schedule)
    a, b = a.flatten(), b.flatten()
    mixing = torch.stack([torch.stack([a, b], -1), torch.stack([-b, a], -1)], -2)  # (b,2,2)
    both = torch.stack([xt.double(), v_hat.double()], 1).flatten(2)                # (b,2,n)
    x0, eps = torch.linalg.solve(mixing, both).unbind(1)
    return x0.view(xt.shape).float(), eps.view(xt.shape).float()


def v_with_einsum(v_hat, xt, t, schedule):
    a, b = (v.flatten() for v in factors(xt, t, schedule))
    turned = torch.einsum("ijb,jb...->ib...", torch.stack([torch.stack([a, -b]),
                                                           torch.stack([b, a])]),
                          torch.stack([xt, v_hat]))
    return turned[0], turned[1]


# cosine_betas

def f_of(T, s, power=2, end=math.pi / 2):
    part = torch.arange(T + 1, dtype=torch.float64) / T
    return torch.cos((part + s) / (1 + s) * end)**power


def betas_of(f, largest):
    return (1 - f[1:] / f[:-1]).clamp(max=largest)


def cosine_alpha_bar(T, s=.008, largest=.999):
    f = f_of(T, s)
    return f[1:] / f[0]


def cosine_alphas(T, s=.008, largest=.999):
    f = f_of(T, s)
    return f[1:] / f[:-1]


def cosine_all_the_noise(T, s=.008, largest=.999):
    return (1 - cosine_alpha_bar(T, s)).clamp(max=largest)


def cosine_not_squared(T, s=.008, largest=.999):
    return betas_of(f_of(T, s, power=1), largest)


def cosine_alphas_below_largest(T, s=.008, largest=.999):
    f = f_of(T, s)
    return (f[1:] / f[:-1]).clamp(max=largest)


def cosine_with_its_own_ceiling(T, s=.008, largest=.999):
    return cosine_betas(T, s)


def cosine_up_to_one(T, s=.008, largest=.999):
    return betas_of(f_of(T, s), 1)


def cosine_without_s(T, s=.008, largest=.999):
    return betas_of(f_of(T, 0), largest)


def cosine_with_another_end(T, s=.008, largest=.999):
    return betas_of(f_of(T, s, end=1), largest)


def cosine_one_too_few(T, s=.008, largest=.999):
    return cosine_betas(T, s, largest)[1:]


def cosine_in_32_bits(T, s=.008, largest=.999):
    return cosine_betas(T, s, largest).float()


def cosine_in_a_loop(T, s=.008, largest=.999):
    def f(i):
        return math.cos((i / T + s) / (1 + s) * math.pi / 2) ** 2
    return torch.tensor([min(1 - f(i + 1) / f(i), largest) for i in range(T)],
                        dtype=torch.float64)


def cosine_in_numpy(T, s=.008, largest=.999):
    f = np.cos((np.linspace(0, 1, T + 1) + s) / (1 + s) * np.pi / 2)**2
    return np.minimum(1 - f[1:] / f[:-1], largest)


def cosine_by_alpha_bar(T, s=.008, largest=.999):
    f = f_of(T, s)
    alpha_bar = f / f[0]
    ceiling = torch.tensor(largest, dtype=torch.float64)
    return torch.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], ceiling)


# update, of EMA

def warm(self, step):
    return min(self.decay, (1 + step) / (10 + step))


@torch.no_grad()
def average_never_moves(self, step):
    for name, weight in self.weights.items():
        average = self.average[name]
        average = warm(self, step) * average + (1 - warm(self, step)) * weight   # noqa: F841


@torch.no_grad()
def average_swapped(self, step):
    for name, weight in self.weights.items():
        self.average[name].lerp_(weight, warm(self, step))


@torch.no_grad()
def average_without_warm_up(self, step):
    for name, weight in self.weights.items():
        self.average[name].lerp_(weight, 1 - self.decay)


@torch.no_grad()
def average_with_max(self, step):
    decay = max(self.decay, (1 + step) / (10 + step))
    for name, weight in self.weights.items():
        self.average[name].lerp_(weight, 1 - decay)


@torch.no_grad()
def average_by_the_step_alone(self, step):
    for name, weight in self.weights.items():
        self.average[name].lerp_(weight, 1 - (1 + step) / (10 + step))


@torch.no_grad()
def average_is_a_copy(self, step):
    for name, weight in self.weights.items():
        self.average[name].copy_(weight)


@torch.no_grad()
def average_into_the_model(self, step):
    for name, weight in self.weights.items():
        weight.copy_(warm(self, step) * self.average[name] + (1 - warm(self, step)) * weight)
        self.average[name].copy_(weight)


def average_with_gradients(self, step):
    for name, weight in self.weights.items():
        decay = warm(self, step)
        self.average[name] = decay * self.average[name] + (1 - decay) * weight


@torch.no_grad()
def average_of_everything(self, step):
    for name, weight in self.model.named_parameters():
        old = self.average.get(name, weight)
        self.average[name] = warm(self, step) * old + (1 - warm(self, step)) * weight


@torch.no_grad()
def average_in_a_loop(self, step):
    d = warm(self, step)
    for name in self.average:
        self.average[name].mul_(d).add_(self.weights[name], alpha=1 - d)


@torch.no_grad()
def average_made_again(self, step):
    d = warm(self, step)
    self.average = {n: d * a + (1 - d) * self.weights[n] for n, a in self.average.items()}


def average_by_torch(self, step):
    blend = get_ema_avg_fn(warm(self, step))
    for name, weight in self.weights.items():
        self.average[name].copy_(blend(self.average[name], weight.detach(), 1))


# predict_x0

def x0_with_plus(eps_hat, xt, t, schedule):
    return reference.predict_x0(-eps_hat, xt, t, schedule)


def x0_not_divided(eps_hat, xt, t, schedule):
    return xt - extract((1 - schedule.alpha_bar).sqrt(), t, xt) * eps_hat


def x0_divided_by_the_square(eps_hat, xt, t, schedule):
    return x0_not_divided(eps_hat, xt, t, schedule) / extract(schedule.alpha_bar, t, xt)


def x0_without_brackets(eps_hat, xt, t, schedule):
    signal = extract(schedule.alpha_bar.sqrt(), t, xt)
    return xt / signal - extract((1 - schedule.alpha_bar).sqrt(), t, xt) * eps_hat


def x0_one_step_away(eps_hat, xt, t, schedule):
    alpha = extract(schedule.alphas, t, xt)
    return (xt - (1 - alpha).sqrt() * eps_hat) / alpha.sqrt()


def x0_clipped(eps_hat, xt, t, schedule):
    return reference.predict_x0(eps_hat, xt, t, schedule).clamp(-1, 1)


def x0_by_ratio(eps_hat, xt, t, schedule):
    kept = schedule.alpha_bar
    return extract(kept**-.5, t, xt) * xt - extract((1 / kept - 1).sqrt(), t, xt) * eps_hat


def x0_in_float64(eps_hat, xt, t, schedule):
    return reference.predict_x0(eps_hat.double(), xt.double(), t, schedule).float()


def x0_by_einsum(eps_hat, xt, t, schedule):
    kept = schedule.alpha_bar[t].float()
    return torch.einsum("b...,b->b...", xt - torch.einsum("b...,b->b...", eps_hat, (1 - kept)**.5),
                        kept**-.5)


# eps, the mixture's

def mixture_score(self, xt, t, schedule):
    return -self_eps(self, xt, t, schedule) / extract((1 - schedule.alpha_bar).sqrt(), t, xt)


self_eps = reference.Mixture.eps


def mixture_sign(self, xt, t, schedule):
    return -self_eps(self, xt, t, schedule)


def mixture_without_root(self, xt, t, schedule):
    return self_eps(self, xt, t, schedule) * extract((1 - schedule.alpha_bar).sqrt(), t, xt)


def mixture_from_logits(self, xt, t, schedule, change):
    means, variance = self.noised(t, schedule, xt)
    logits = change((xt[:, None] - means).square().sum(-1), variance)
    mean = (torch.softmax(logits, 1)[..., None] * means).sum(1)
    return extract((1 - schedule.alpha_bar).sqrt(), t, xt) * (xt - mean) / variance


def mixture_of_the_nearest(self, xt, t, schedule):
    means, variance = self.noised(t, schedule, xt)
    near = (xt[:, None] - means).norm(dim=-1).argmin(1)
    away = xt - means[torch.arange(len(xt)), near]
    return extract((1 - schedule.alpha_bar).sqrt(), t, xt) * away / variance


def mixture_of_all_alike(self, xt, t, schedule):
    return mixture_from_logits(self, xt, t, schedule, lambda d, v: 0 * d)


def mixture_without_the_2(self, xt, t, schedule):
    return mixture_from_logits(self, xt, t, schedule, lambda d, v: -d / v)


def mixture_softmax_of_distance(self, xt, t, schedule):
    return mixture_from_logits(self, xt, t, schedule, lambda d, v: d / (2 * v))


def mixture_without_its_own_width(self, xt, t, schedule):
    _, variance = self.noised(t, schedule, xt)
    return self_eps(self, xt, t, schedule) * variance / extract(1 - schedule.alpha_bar, t, xt)


def mixture_not_squared(self, xt, t, schedule):
    means, variance = self.noised(t, schedule, xt)
    weights = torch.softmax(-torch.cdist(xt[:, None], means)[:, 0] / (2 * variance), dim=1)
    mean = (weights[..., None] * means).sum(1)
    return extract((1 - schedule.alpha_bar).sqrt(), t, xt) * (xt - mean) / variance


def mixture_with_v_squared(self, xt, t, schedule):
    return mixture_from_logits(self, xt, t, schedule, lambda d, v: -d / (2 * v**2))


def mixture_of_clean_means(self, xt, t, schedule):
    _, variance = self.noised(t, schedule, xt)
    away = (xt[:, None] - self.means).square().sum(-1)
    mean = torch.softmax(-away / (2 * variance), dim=1) @ self.means
    return extract((1 - schedule.alpha_bar).sqrt(), t, xt) * (xt - mean) / variance


def mixture_near_clean_means(self, xt, t, schedule):
    means, variance = self.noised(t, schedule, xt)
    away = (xt[:, None] - self.means).square().sum(-1)
    mean = (torch.softmax(-away / (2 * variance), dim=1)[..., None] * means).sum(1)
    return extract((1 - schedule.alpha_bar).sqrt(), t, xt) * (xt - mean) / variance


def mixture_weighted_mean(self, xt, t, schedule):
    _, variance = self.noised(t, schedule, xt)
    root = extract((1 - schedule.alpha_bar).sqrt(), t, xt)
    return xt - self_eps(self, xt, t, schedule) * variance / root


def mixture_divided_by_the_root(self, xt, t, schedule):
    return self_eps(self, xt, t, schedule) * self.noised(t, schedule, xt)[1].sqrt()


def mixture_not_divided(self, xt, t, schedule):
    return self_eps(self, xt, t, schedule) * self.noised(t, schedule, xt)[1]


def mixture_of_the_wrong_axis(self, xt, t, schedule):
    means, variance = self.noised(t, schedule, xt)
    distance = (xt[:, None] - means).square().sum(-1)
    weights = torch.softmax(-distance / (2 * variance), dim=0)
    mean = (weights[..., None] * means).sum(1)
    return extract((1 - schedule.alpha_bar).sqrt(), t, xt) * (xt - mean) / variance


def mixture_by_autograd(self, xt, t, schedule):
    means, variance = self.noised(t, schedule, xt)
    x = xt.clone().requires_grad_()
    log = torch.logsumexp(-(x[:, None] - means).square().sum(-1) / (2 * variance), 1)
    score, = torch.autograd.grad(log.sum(), x)
    return -extract((1 - schedule.alpha_bar).sqrt(), t, xt) * score


def mixture_with_exp(self, xt, t, schedule):
    means, variance = self.noised(t, schedule, xt)
    distance = (xt[:, None] - means).square().sum(-1)
    likely = torch.exp(-distance / (2 * variance))
    mean = torch.einsum("bk,bkd->bd", likely, means) / likely.sum(1, keepdim=True)
    return (xt - mean) / variance * extract((1 - schedule.alpha_bar).sqrt(), t, xt)


def mixture_a_point_at_a_time(self, xt, t, schedule):
    rows = []
    for x, step in zip(xt, t.tolist(), strict=True):
        kept = schedule.alpha_bar[step]
        variance = kept * self.std**2 + 1 - kept
        parts = [torch.exp(-((x - kept.sqrt() * m)**2).sum() / (2 * variance)) for m in self.means]
        pull = sum(p * (kept.sqrt() * m - x) for p, m in zip(parts, self.means, strict=True))
        rows.append(-(1 - kept).sqrt() * pull / variance / sum(parts))
    return torch.stack(rows)


# ddpm_step

def step_with_a_draw_of_its_own(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return reference.ddpm_step(eps_hat, xt, t, schedule, torch.randn_like(noise), t_prev, clip)


def step_a_picture_at_once(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    _, mean, variance = parts_of(eps_hat, xt, t, schedule, t_prev, clip)
    return torch.stack([m + s * z for m, s, z in zip(mean, variance**.5, noise, strict=True)])


def parts_of(eps_hat, xt, t, schedule, t_prev, clip):
    x0_hat = reference.predict_x0(eps_hat, xt, t, schedule)
    x0_hat = x0_hat.clamp(-1, 1) if clip else x0_hat
    return (x0_hat, *reference.posterior(x0_hat, xt, t, schedule, t_prev))


def step_scaled_by_the_variance(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    _, mean, variance = parts_of(eps_hat, xt, t, schedule, t_prev, clip)
    return mean + variance * noise


def step_fixed_large(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    _, mean, _ = parts_of(eps_hat, xt, t, schedule, t_prev, clip)
    return mean + extract(schedule.betas.sqrt(), t, xt) * noise


def step_without_noise(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return parts_of(eps_hat, xt, t, schedule, t_prev, clip)[1]


def step_with_full_noise(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return parts_of(eps_hat, xt, t, schedule, t_prev, clip)[1] + noise


def step_to_x0(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return parts_of(eps_hat, xt, t, schedule, t_prev, clip)[0]


def step_with_eps_for_x0(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    mean, variance = reference.posterior(eps_hat, xt, t, schedule, t_prev)
    return mean + variance.sqrt() * noise


def step_that_always_clips(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return reference.ddpm_step(eps_hat, xt, t, schedule, noise, t_prev, clip=True)


def step_with_xt_for_eps(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    x0_hat = reference.predict_x0(xt, eps_hat, t, schedule)
    mean, variance = reference.posterior(x0_hat, xt, t, schedule, t_prev)
    return mean + variance.sqrt() * noise


def step_with_xt_for_x0(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    x0_hat = reference.predict_x0(eps_hat, xt, t, schedule)
    mean, variance = reference.posterior(xt, x0_hat, t, schedule, t_prev)
    return mean + variance.sqrt() * noise


def step_that_never_clips(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return reference.ddpm_step(eps_hat, xt, t, schedule, noise, t_prev)


def step_that_clips_the_result(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    x_prev = reference.ddpm_step(eps_hat, xt, t, schedule, noise, t_prev)
    return x_prev.clamp(-1, 1) if clip else x_prev


def step_that_drops_t_prev(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    return reference.ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)


def step_with_noise_at_the_end(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    _, mean, variance = parts_of(eps_hat, xt, t, schedule, t_prev, clip)
    variance = torch.where(t.view(-1, 1, 1, 1) == 0, .01, variance)
    return mean + variance.sqrt() * noise


def step_with_a_mask(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    _, mean, variance = parts_of(eps_hat, xt, t, schedule, t_prev, clip)
    return torch.where(t.view(-1, 1, 1, 1) > 0, mean + variance**.5 * noise, mean)


def step_drawn_by_torch(eps_hat, xt, t, schedule, noise, t_prev=None, clip=False):
    _, mean, variance = parts_of(eps_hat, xt, t, schedule, t_prev, clip)
    return torch.addcmul(mean, variance.sqrt().expand_as(noise), noise)


# vlb_weight

def pieces(schedule):
    betas, alphas, now = schedule.betas[1:], schedule.alphas[1:], schedule.alpha_bar[1:]
    return betas, alphas, now, betas * (1 - schedule.alpha_bar[:-1]) / (1 - now)


def weight_fixed_large(schedule):
    betas, alphas, now, _ = pieces(schedule)
    return betas / (2 * alphas * (1 - now))


def weight_without_half(schedule):
    return 2 * reference.vlb_weight(schedule)


def weight_without_alpha(schedule):
    betas, _, now, variance = pieces(schedule)
    return betas**2 / (2 * variance * (1 - now))


def weight_with_beta_once(schedule):
    betas, alphas, now, variance = pieces(schedule)
    return betas / (2 * variance * alphas * (1 - now))


def weight_not_squared(schedule):
    beta, alpha, now, variance = pieces(schedule)
    return beta / (alpha * (1 - now)).sqrt() / (2 * variance)


def weight_with_sigma_to_the_fourth(schedule):
    beta, alpha, now, variance = pieces(schedule)
    return beta**2 / (2 * variance**2 * alpha * (1 - now))


def weight_with_the_deviation(schedule):
    beta, alpha, now, variance = pieces(schedule)
    return beta**2 / (2 * variance.sqrt() * alpha * (1 - now))


def weight_of_all_steps(schedule):
    return schedule.betas / (2 * schedule.alphas * (1 - schedule.alpha_bar))


def weight_one_too_early(schedule):
    betas, alphas, now = (v[:-1] for v in (schedule.betas, schedule.alphas, schedule.alpha_bar))
    return betas / (2 * alphas * (1 - now))


def weight_of_ones(schedule):
    return torch.ones(schedule.T - 1, dtype=torch.float64)


def weight_from_signal_to_noise(schedule):
    """Half of what the signal-to-noise ratio loses, in units of the noise's own (VDM, 2021)."""
    ratio = schedule.alpha_bar / (1 - schedule.alpha_bar)
    return (ratio[:-1] - ratio[1:]) / (2 * ratio[1:])


def weight_simplified(schedule):
    return schedule.betas[1:] / (2 * schedule.alphas[1:] * (1 - schedule.alpha_bar[:-1]))


def weight_in_a_loop(schedule):
    beta, alpha, kept = (v.tolist() for v in (schedule.betas, schedule.alphas, schedule.alpha_bar))
    variance = [beta[i] * (1 - kept[i - 1]) / (1 - kept[i]) for i in range(1, schedule.T)]
    return torch.tensor([beta[i]**2 / (2 * v * alpha[i] * (1 - kept[i]))
                         for i, v in enumerate(variance, 1)], dtype=torch.float64)


# l_simple

def loss_with_another_target(model, x0, t, eps, schedule):
    return F.mse_loss(model(reference.q_sample(x0, t, eps, schedule), t), torch.randn_like(x0))


def loss_with_another_input(model, x0, t, eps, schedule):
    xt = reference.q_sample(x0, t, torch.randn_like(x0), schedule)
    return F.mse_loss(model(xt, t), eps)


def loss_by_a_module(model, x0, t, eps, schedule):
    return torch.nn.MSELoss()(model(reference.q_sample(x0, t, eps, schedule), t), eps)


def loss_with_a_part_of_T(model, x0, t, eps, schedule):
    xt = reference.q_sample(x0, t, eps, schedule)
    return F.mse_loss(model(xt, t / schedule.T), eps)


def loss_on_x0(model, x0, t, eps, schedule):
    return (model(x0, t) - eps).square().mean()


def loss_against_x0(model, x0, t, eps, schedule):
    return (model(reference.q_sample(x0, t, eps, schedule), t) - x0).square().mean()


def loss_summed(model, x0, t, eps, schedule):
    return (model(reference.q_sample(x0, t, eps, schedule), t) - eps).square().sum()


def loss_of_norms(model, x0, t, eps, schedule):
    off = model(reference.q_sample(x0, t, eps, schedule), t) - eps
    return off.square().flatten(1).sum(1).mean()


def loss_absolute(model, x0, t, eps, schedule):
    return (model(reference.q_sample(x0, t, eps, schedule), t) - eps).abs().mean()


def loss_per_picture(model, x0, t, eps, schedule):
    return (model(reference.q_sample(x0, t, eps, schedule), t) - eps).square().mean((1, 2, 3))


def loss_without_gradient(model, x0, t, eps, schedule):
    return reference.l_simple(model, x0, t, eps, schedule).detach()


def loss_by_hand(model, x0, t, eps, schedule):
    off = eps - model(reference.q_sample(x0, t, eps, schedule), t)
    return (off * off).sum() / off.numel()


def loss_as_mean_of_means(model, x0, t, eps, schedule):
    xt = reference.q_sample(x0, t, eps, schedule)
    return torch.stack([(a - b).pow(2).mean() for a, b in zip(
        model(xt, t), eps, strict=True)]).mean()


# timestep_embedding

def sinusoids_of(t, width, power, order=("cos", "sin")):
    half = width // 2
    angles = t[:, None].double() * torch.tensor([power(i, half) for i in range(half)])
    return torch.cat([getattr(angles, name)() for name in order], 1).float()


def sines_first(t, width):
    return sinusoids_of(t, width, lambda i, half: 10000 ** (-i / half), ("sin", "cos"))


def sinusoids_less_one(t, width):
    return sinusoids_of(t, width, lambda i, half: 10000 ** (-i / (half - 1)))


def sinusoids_of_the_whole_width(t, width):
    return sinusoids_of(t, width, lambda i, half: 10000 ** (-i / (2 * half)))


def sinusoids_rising(t, width):
    return sinusoids_of(t, width, lambda i, half: 10000. ** (i / half))


def sinusoids_alternating(t, width):
    made = sinusoids_of(t, width, lambda i, half: 10000 ** (-i / half))
    return torch.stack(made.chunk(2, 1), 2).flatten(1)


def sinusoids_half_as_many(t, width):
    return sinusoids_of(t, width // 2, lambda i, half: 10000 ** (-i / half))


def sinusoids_in_float64(t, width):
    return sinusoids_of(t, width, lambda i, half: 10000 ** (-i / half))


def sinusoids_by_outer_product(t, width):
    half = width // 2
    frequencies = 10000 ** (-torch.arange(half) / half)
    angles = torch.outer(t.float(), frequencies)
    return torch.view_as_real(torch.polar(torch.ones_like(angles), angles)
                              ).movedim(-1, 1).flatten(1)


def sinusoids_in_a_loop(t, width):
    half = width // 2
    angles = [[float(i) / 10000 ** (k / half) for k in range(half)] for i in t]
    return torch.tensor([[f(a) for f in (math.cos, math.sin) for a in row] for row in angles])


# unbiased_mmd

def kernels(a, b):
    return [(x @ y.T / a.shape[1] + 1)**3 for x, y in ((a, a), (b, b), (a, b))]


def hollow(k):
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


def mmd_biased(a, b):
    aa, bb, ab = kernels(a, b)
    return float(aa.mean() + bb.mean() - 2 * ab.mean())


def mmd_over_too_many(a, b):
    aa, bb, ab = kernels(a, b)
    return float((aa.sum() - aa.trace()) / aa.numel() + (bb.sum() - bb.trace()) / bb.numel()
                 - 2 * ab.mean())


def mmd_with_one_cross(a, b):
    aa, bb, ab = kernels(a, b)
    return float(hollow(aa) + hollow(bb) - ab.mean())


def mmd_negative(a, b):
    return -own_mmd(a, b)


def mmd_with(change):
    def measure(a, b):
        aa, bb, ab = (change(x @ y.T, a.shape[1]) for x, y in ((a, a), (b, b), (a, b)))
        return float(hollow(aa) + hollow(bb) - 2 * ab.mean())
    return measure


def mmd_divided_by_rows(a, b):
    aa, bb, ab = ((x @ y.T / len(x) + 1)**3 for x, y in ((a, a), (b, b), (a, b)))
    return float(sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (aa, bb))
                 - 2 * ab.mean())


def mmd_as_a_tensor(a, b):
    aa, bb, ab = kernels(a, b)
    return hollow(aa) + hollow(bb) - 2 * ab.mean()


def mmd_of_the_means(a, b):
    return float((a.mean(0) - b.mean(0)).square().sum())


def mmd_in_loops(a, b):
    a, b, d = a.tolist(), b.tolist(), a.shape[1]

    def k(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / d + 1) ** 3

    def among(rows):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / len(pairs)
    return among(a) + among(b) - 2 * sum(k(x, y) for x in a for y in b) / len(a) / len(b)


def mmd_with_einsum(a, b):
    def k(x, y):
        return (torch.einsum("id,jd->ij", x, y) / x.shape[1] + 1)**3

    def among(x):
        return k(x, x)[~torch.eye(len(x), dtype=torch.bool)].mean()
    return (among(a) + among(b) - 2 * k(a, b).mean()).item()


def mmd_in_numpy(a, b):
    a, b = a.numpy(), b.numpy()

    def among(x):
        k = np.power(x @ x.T / x.shape[1] + 1, 3)
        return (k.sum() - np.trace(k)) / (len(x)**2 - len(x))
    return among(a) + among(b) - 2 * np.power(a @ b.T / a.shape[1] + 1, 3).mean()


WRONG = {
    "q_step": [
        (step_with_alpha_bar, "alpha_bar is the product of all steps"),
        (step_without_roots, "square roots are missing"),
        (step_with_variance_for_deviation, "square root of beta"),
        (step_with_alpha_for_its_root, "square root of alpha"),
        (step_that_never_shrinks, "variance grows without end"),
        (step_counted_from_one, "counts steps from 0"),
        (step_with_noise_of_its_own, "not the `eps`"),
        (step_without_return, "returned None")],
    "q_sample": [
        (jump_with_noise_of_its_own, "not the `eps`"),
        (one_step_for_all, "single step"), (jump_without_roots, "square roots are missing"),
        (jump_with_variance_for_deviation, "noise needs a square root"),
        (jump_with_a_root_for_noise_only, "picture needs a square root"),
        (jump_swapped, "are swapped"), (jump_with_the_first_step, "its own step"),
        (jump_counted_from_one, "counts steps from 0"),
        (jump_that_fails_to_broadcast, "your line"), (jump_in_float64, "float64")],
    "posterior": [
        (posterior_fixed_large, "fixed large"), (posterior_with_deviation, "standard deviation"),
        (posterior_swapped, "swapped"), (posterior_of_the_mean_only, "one tensor"),
        (posterior_without_t_prev, "t_prev is ignored"),
        (posterior_with_one_step_s_beta, "belong to one step"),
        (posterior_with_index_minus_one, "LAST one"),
        (posterior_without_roots, "roots are missing"),
        (posterior_with_the_root_at_t, "not with that at t"),
        (posterior_upside_down, "upside down"),
        (posterior_with_alpha_bar_for_alpha, "where alpha belongs"),
        (posterior_in_64_bits, "to the dtype"), (posterior_by_a_and_b, "over one fraction")],
    "predict_x0": [
        (x0_with_plus, "needs a minus"), (x0_not_divided, "divide by that root"),
        (x0_divided_by_the_square, "square ROOT"), (x0_without_brackets, "mind the brackets"),
        (x0_one_step_away, "alpha_bar, not alphas"), (x0_clipped, "Do not clip")],
    "eps": [
        (mixture_score, "This is the score"), (mixture_sign, "sign is wrong"),
        (mixture_without_root, "with its root"), (mixture_of_the_nearest, "nearest cloud"),
        (mixture_of_all_alike, "count alike"), (mixture_without_the_2, "has a 2 below"),
        (mixture_softmax_of_distance, "NEGATIVE"),
        (mixture_without_its_own_width, "not the whole variance"),
        (mixture_of_the_wrong_axis, "runs over the points"),
        (mixture_not_squared, "must be squared"), (mixture_not_divided, "by the variance v"),
        (mixture_with_v_squared, "not squared"), (mixture_of_clean_means, "clean means"),
        (mixture_near_clean_means, "distances are to the clean means"),
        (mixture_weighted_mean, "Two steps are left"),
        (mixture_divided_by_the_root, "not by its root")],
    "ddpm_step": [
        (step_with_a_draw_of_its_own, "not the `noise`"),
        (step_scaled_by_the_variance, "square root, the standard deviation"),
        (step_fixed_large, "fixed large"), (step_without_noise, "No noise"),
        (step_with_full_noise, "full size"), (step_to_x0, "aims at"),
        (step_with_eps_for_x0, "given eps_hat"), (step_that_always_clips, "though clip is False"),
        (step_with_xt_for_eps, "takes eps_hat first"), (step_with_xt_for_x0, "posterior takes"),
        (step_that_never_clips, "clip is ignored"),
        (step_that_clips_the_result, "not to the result"),
        (step_that_drops_t_prev, "t_prev is ignored"),
        (step_with_noise_at_the_end, "must add no noise")],
    "vlb_weight": [
        (weight_fixed_large, "fixed large"), (weight_without_half, "The 2 of"),
        (weight_without_alpha, "alpha below the line"), (weight_with_beta_once, "squared"),
        (weight_of_all_steps, "Step 0"), (weight_of_ones, "divergence of two Gaussians"),
        (weight_one_too_early, "One entry too early"), (weight_not_squared, "whole difference"),
        (weight_with_sigma_to_the_fourth, "below the line once"),
        (weight_with_the_deviation, "without a root")],
    "l_simple": [
        (loss_with_another_target, "not the `eps`"), (loss_with_another_input, "not the `eps`"),
        (loss_on_x0, "not x0"), (loss_with_a_part_of_T, "not a part of T"),
        (loss_against_x0, "compare with eps"),
        (loss_summed, "This is the sum"), (loss_of_norms, "sums over the pixels"),
        (loss_absolute, "squared"),
        (loss_per_picture, "one number"), (loss_without_gradient, "no gradient")],
    "timestep_embedding": [
        (sines_first, "Cosines first"), (sinusoids_less_one, "half the width less one"),
        (sinusoids_of_the_whole_width, "h is half of it"),
        (sinusoids_rising, "mind the minus"), (sinusoids_alternating, "alternate"),
        (sinusoids_half_as_many, "has shape")],
    "from_velocity": [
        (v_swapped, "two are swapped"), (v_with_plus_in_x0, "wrong in x0"),
        (v_with_minus_in_eps, "wrong in eps"), (v_with_factors_exchanged, "are exchanged"),
        (v_turned_the_wrong_way, "turns the wrong way"),
        (v_without_roots, "roots are missing"), (v_as_eps, "as if it were the noise"),
        (v_of_one_step, "belongs to one step"), (v_only_x0, "returned one tensor")],
    "cosine_betas": [
        (cosine_alpha_bar, "This is alpha_bar"), (cosine_alphas, "This is alpha,"),
        (cosine_all_the_noise, "This is 1 - alpha_bar"), (cosine_not_squared, "SQUARED"),
        (cosine_alphas_below_largest, "under the ceiling"),
        (cosine_with_its_own_ceiling, "not .999"),
        (cosine_up_to_one, "`largest` is missing"), (cosine_without_s, "s is missing"),
        (cosine_with_another_end, "end at pi / 2"), (cosine_one_too_few, "at T + 1 points"),
        (cosine_in_32_bits, "torch.float64")],
    "update": [
        (average_never_moves, "has not moved"), (average_swapped, "are swapped"),
        (average_without_warm_up, "used from the start"), (average_with_max, "from the start"),
        (average_by_the_step_alone, "smaller of the two"),
        (average_is_a_copy, "weights themselves"), (average_into_the_model, "own weights changed"),
        (average_with_gradients, "carries gradients"), (average_of_everything, "keep the names")],
    "unbiased_mmd": [
        (mmd_biased, "compared with itself"), (mmd_over_too_many, "not n^2"),
        (mmd_with_one_cross, "counts twice"), (mmd_negative, "sign is wrong"),
        (mmd_with(lambda xy, d: (xy + 1)**3), "number of columns"),
        (mmd_with(lambda xy, d: (xy / d)**3), "has a 1 in it"),
        (mmd_with(lambda xy, d: (xy / d + 1)**2), "is a cube"),
        (mmd_divided_by_rows, "not by the number of rows"),
        (mmd_as_a_tensor, "return a float"), (mmd_of_the_means, "Mean kernel within a")],
}
RIGHT = {
    "q_step": [step_from_betas, step_in_place, step_a_picture_at_a_time],
    "q_sample": [jump_in_float64_then_cast, jump_with_einsum, jump_a_picture_at_a_time],
    "posterior": [posterior_through_eps, posterior_by_adding_precisions,
                  posterior_in_three_lines_of_the_paper],
    "predict_x0": [x0_by_ratio, x0_in_float64, x0_by_einsum],
    "from_velocity": [v_by_way_of_x0, v_by_a_linear_system, v_with_einsum],
    "eps": [mixture_by_autograd, mixture_with_exp, mixture_a_point_at_a_time],
    "ddpm_step": [step_with_a_mask, step_drawn_by_torch, step_a_picture_at_once],
    "vlb_weight": [weight_from_signal_to_noise, weight_simplified, weight_in_a_loop],
    "l_simple": [loss_by_hand, loss_as_mean_of_means, loss_by_a_module],
    "timestep_embedding": [sinusoids_in_float64, sinusoids_by_outer_product, sinusoids_in_a_loop],
    "cosine_betas": [cosine_in_a_loop, cosine_in_numpy, cosine_by_alpha_bar],
    "update": [average_in_a_loop, average_made_again, average_by_torch],
    "unbiased_mmd": [mmd_in_loops, mmd_with_einsum, mmd_in_numpy],
}
