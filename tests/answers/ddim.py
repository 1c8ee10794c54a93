"""What people answer to the exercises of lesson 2."""

import math

import numpy as np
import torch

from gligen_lessons import ddim as reference
from gligen_lessons.ddpm import predict_x0, q_sample
from gligen_lessons.dpm_solver import half_log_snr
from gligen_lessons.schedule import expand_like, extract

# alpha_bar_at

def plain_index(t, schedule, end=1.):
    return schedule.alpha_bar[t]


def clamped_only(t, schedule, end=1.):
    return schedule.alpha_bar[t.clamp(min=0)]


def step_0_is_x0(t, schedule, end=1.):
    return torch.where(t <= 0, end, schedule.alpha_bar[t.clamp(min=0)])


def end_is_one(t, schedule, end=1.):
    return torch.where(t < 0, 1., schedule.alpha_bar[t.clamp(min=0)])


def counted_from_one(t, schedule, end=1.):
    return torch.where(t < 0, end, schedule.alpha_bar[(t - 1).clamp(min=0)])


def in_single_precision(t, schedule, end=1.):
    return reference.alpha_bar_at(t, schedule, end).float()


def with_the_end_in_front(t, schedule, end=1.):
    levels = torch.cat([torch.tensor([end], dtype=torch.float64), schedule.alpha_bar])
    return levels[t.clamp(min=-1) + 1]


def one_by_one(t, schedule, end=1.):
    return torch.tensor([end if i < 0 else float(schedule.alpha_bar[i]) for i in t.tolist()],
                        dtype=torch.float64)


def looked_up_in_a_dict(t, schedule, end=1.):
    table = dict(enumerate(schedule.alpha_bar.tolist()))
    return torch.stack([torch.tensor(table.get(int(i), end), dtype=torch.float64) for i in t])


# ddim_sigma

def levels(t, t_prev, schedule, end):
    return schedule.alpha_bar[t], reference.alpha_bar_at(t_prev, schedule, end)


def variance_for_sigma(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return eta * (1 - before) / (1 - now) * (1 - now / before)


def eta_under_the_root(t, t_prev, schedule, eta=1., end=1.):
    return variance_for_sigma(t, t_prev, schedule, eta, end).sqrt()


def without_eta(t, t_prev, schedule, eta=1., end=1.):
    return reference.ddim_sigma(t, t_prev, schedule, 1., end)


def upside_down(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return eta * ((1 - now) / (1 - before) * (1 - now / before)).sqrt()


def beta_of_one_step(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return eta * ((1 - before) / (1 - now) * schedule.betas[t]).sqrt()


def always_one_step(t, t_prev, schedule, eta=1., end=1.):
    return reference.ddim_sigma(t, t - 1, schedule, eta, end)


def fixed_large(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return eta * (1 - now / before).sqrt()


def inverted_ratio(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return eta * ((1 - before) / (1 - now) * (1 - before / now)).sqrt()


def levels_exchanged(t, t_prev, schedule, eta=1., end=1.):
    before, now = levels(t, t_prev, schedule, end)
    return eta * ((1 - before) / (1 - now) * (1 - now / before)).sqrt()


def sigma_without_end(t, t_prev, schedule, eta=1., end=1.):
    return reference.ddim_sigma(t, t_prev, schedule, eta)


def two_roots(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return eta * torch.sqrt((1 - before) / (1 - now)) * torch.sqrt(1 - now / before)


def over_one_fraction(t, t_prev, schedule, eta=1., end=1.):
    now, before = levels(t, t_prev, schedule, end)
    return ((1 - before) * (before - now) / ((1 - now) * before)) ** .5 * eta


def sigma_in_a_loop(t, t_prev, schedule, eta=1., end=1.):
    pairs = zip(*(v.tolist() for v in levels(t, t_prev, schedule, end)), strict=True)
    return torch.tensor([eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
                         for a, b in pairs], dtype=torch.float64)


# ddim_step

def own_noise(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    z = torch.randn_like(xt) if eta > 0 else None
    return reference.ddim_step(eps_hat, xt, t, t_prev, schedule, eta, z, clip, end)


def always_eta_one(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    return reference.ddim_step(eps_hat, xt, t, t_prev, schedule, 1., noise, clip, end)


def step_without_end(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    return reference.ddim_step(eps_hat, xt, t, t_prev, schedule, eta, noise, clip)


def step_with_einsum(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    x0_hat = predict_x0(eps_hat, xt, t, schedule)
    x0_hat = x0_hat.clip(-1, 1) if clip else x0_hat
    sigma = reference.ddim_sigma(t, t_prev, schedule, eta, end)
    level = reference.alpha_bar_at(t_prev, schedule, end)
    factors = torch.stack([level**.5, (1 - level - sigma**2).relu()**.5, sigma]).to(xt.dtype)
    parts = torch.stack([x0_hat, eps_hat, torch.zeros_like(xt) if noise is None else noise])
    return torch.einsum("kb,kb...->b...", factors, parts)


def stepper(sigma_taken=2, aim=lambda t, t_prev: t_prev, clips=True, again=False, power=1,
            keep=False):
    """A ddim_step with a mistake in one place."""
    def step(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
        sigma = reference.ddim_sigma(t, t_prev, schedule, eta, end)
        level = (schedule.alpha_bar[t] if keep
                 else reference.alpha_bar_at(aim(t, t_prev), schedule, end))
        x0_hat, direction = predict_x0(eps_hat, xt, t, schedule), eps_hat
        if clip and clips:
            x0_hat = x0_hat.clamp(-1, 1)
        if again:
            now = schedule.alpha_bar[t]
            direction = (xt - expand_like(now.sqrt(), xt) * x0_hat) / expand_like((1 - now).sqrt(),
                                                                                  xt)
        taken = sigma**sigma_taken if sigma_taken else 0
        x = expand_like(level.sqrt(), xt) * x0_hat
        x = x + expand_like((1 - level - taken).clamp(min=0).sqrt(), xt) * direction
        return x if noise is None or not power else x + expand_like(sigma**power, xt) * noise
    return step


def result_clamped(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    x = reference.ddim_step(eps_hat, xt, t, t_prev, schedule, eta, noise, end=end)
    return x.clamp(-1, 1) if clip else x


def without_roots(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    level = reference.alpha_bar_at(t_prev, schedule, end)
    x0_hat = predict_x0(eps_hat, xt, t, schedule)
    return expand_like(level, xt) * x0_hat + expand_like(1 - level, xt) * eps_hat


def forgets_to_return(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    reference.ddim_step(eps_hat, xt, t, t_prev, schedule, eta, noise, clip, end)


def step_by_q_sample(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    shape = (-1, *[1] * (xt.ndim - 1))
    level = reference.alpha_bar_at(t_prev, schedule, end).view(shape)
    sigma = reference.ddim_sigma(t, t_prev, schedule, eta, end).view(shape)
    now = schedule.alpha_bar[t].view(shape)
    x0_hat = (xt.double() - (1 - now).sqrt() * eps_hat) / now.sqrt()
    x0_hat = x0_hat.clamp(-1, 1) if clip else x0_hat
    mean = level.sqrt() * x0_hat + (1 - level - sigma.square()).clamp(min=0).sqrt() * eps_hat
    return (mean + sigma * (noise if noise is not None else 0)).to(xt.dtype)


def step_in_three_parts(eps_hat, xt, t, t_prev, schedule, eta=0., noise=None, clip=False, end=1.):
    prediction = predict_x0(eps_hat, xt, t, schedule)
    prediction = torch.clamp(prediction, -1, 1) if clip else prediction
    sigma = reference.ddim_sigma(t, t_prev, schedule, eta, end)
    before = reference.alpha_bar_at(t_prev, schedule, end)
    parts = [(before**.5, prediction), ((1 - before - sigma**2).clamp(min=0)**.5, eps_hat)]
    parts += [(sigma, noise)] if noise is not None else []
    return sum(expand_like(factor, xt) * part for factor, part in parts)


# timesteps

def from_low_to_high(T, steps, spacing="leading", offset=0):
    return reference.timesteps(T, steps, spacing, offset)[::-1]


def trailing_from_T(T, steps, spacing="leading", offset=0):
    if spacing == "trailing":
        return [round(T - i * T / steps) for i in range(steps)]
    return reference.timesteps(T, steps, spacing, offset)


def linspace_cut(T, steps, spacing="leading", offset=0):
    if spacing == "linspace":
        return torch.linspace(T - 1, 0, steps).long().tolist()
    return reference.timesteps(T, steps, spacing, offset)


def linspace_unrounded(T, steps, spacing="leading", offset=0):
    if spacing == "linspace":
        return torch.linspace(T - 1, 0, steps, dtype=torch.float64).tolist()
    return reference.timesteps(T, steps, spacing, offset)


def offset_everywhere(T, steps, spacing="leading", offset=0):
    return [t + offset for t in reference.timesteps(T, steps, spacing)]


def without_offset(T, steps, spacing="leading", offset=0):
    return reference.timesteps(T, steps, spacing)


def trailing_rounded_late(T, steps, spacing="leading", offset=0):
    if spacing == "trailing":
        return [int(t) for t in np.arange(T - 1, -1, -T / steps)[:steps].round()]
    return reference.timesteps(T, steps, spacing, offset)


def trailing_by_whole_strides(T, steps, spacing="leading", offset=0):
    if spacing == "trailing":
        return [t - 1 for t in range(T, 0, -(T // steps))][:steps]
    return reference.timesteps(T, steps, spacing, offset)


def linspace_with_halves_up(T, steps, spacing="leading", offset=0):
    if spacing == "linspace":
        return [int(t + .5) for t in np.linspace(T - 1, 0, steps)]
    return reference.timesteps(T, steps, spacing, offset)


def leading_over_all_of_T(T, steps, spacing="leading", offset=0):
    if spacing == "leading":
        return [t + offset for t in range(0, T, T // steps)][::-1]
    return reference.timesteps(T, steps, spacing, offset)


def one_too_many(T, steps, spacing="leading", offset=0):
    if spacing == "trailing":
        return [int(t) for t in np.arange(T, 0, -T / steps).round() - 1]
    return reference.timesteps(T, steps, spacing, offset)


def steps_as_floats(T, steps, spacing="leading", offset=0):
    return np.array(reference.timesteps(T, steps, spacing, offset), float)


def leading_with_fractions(T, steps, spacing="leading", offset=0):
    if spacing == "leading":
        return [i * T / steps + offset for i in reversed(range(steps))]
    return reference.timesteps(T, steps, spacing, offset)


def leading_only(T, steps, spacing="leading", offset=0):
    return list(range(0, T, T // steps))[:steps][::-1] if not offset else reference.timesteps(
        T, steps, "leading", offset)


def by_branches(T, steps, spacing="leading", offset=0):
    if spacing == "leading":
        return [i * (T // steps) + offset for i in range(steps - 1, -1, -1)]
    if spacing == "trailing":
        return [round(T - i * T / steps) - 1 for i in range(steps)]
    return [round((steps - 1 - i) * (T - 1) / (steps - 1)) for i in range(steps)]


def as_a_tensor(T, steps, spacing="leading", offset=0):
    i = torch.arange(steps, dtype=torch.float64)
    steps = {"leading": (i * (T // steps) + offset).flip(0),
             "trailing": (T - i * T / steps).round() - 1,
             "linspace": (i * (T - 1) / (steps - 1)).flip(0)}[spacing]
    return steps.round().long()


def by_ranges(T, steps, spacing="leading", offset=0):
    k = T // steps
    made = {"leading": range((steps - 1) * k + offset, offset - 1, -k),
            "trailing": np.round(np.arange(T, 0, -T / steps)).astype(int)[:steps] - 1,
            "linspace": np.round(np.linspace(T - 1, 0, steps)).astype(int)}
    return list(made[spacing])


# sample

def sampler(aim=None, ask=lambda t, stride: t, seeded=True, forget=False, always=False,
            last_only=False, graph=False, moves=True, told=("eta", "clip", "end"), once=False,
            cut=lambda visited, last: visited if last is None else visited[len(visited) - last:]):
    """A `sample` with a mistake in one place."""
    def trajectory(model, xT, schedule, steps, eta=0., generator=None, clip=False,
                   spacing="leading", offset=0, end=1., last=None):
        stride, xt, noise = schedule.T // steps, xT, None
        offset, clip = offset if moves else 0, clip and "clip" in told
        end = end if "end" in told else 1.
        for step in cut(reference.timesteps(schedule.T, steps, spacing, offset), last):
            xt = xT if forget else xt
            t = torch.full((len(xt),), step)
            if (eta > 0 or always) and not (once and noise is not None):
                noise = torch.randn(xt.shape, generator=generator if seeded else None)
            t_prev = aim(t) if aim else t - stride
            with torch.set_grad_enabled(graph):
                eps_hat = model(xt, ask(t, stride))
            xt = reference.ddim_step(eps_hat, xt, t, t_prev, schedule,
                                     eta if "eta" in told else 0., noise, clip, end)
            if not last_only:
                yield step, xt
        if last_only:
            yield step, xt
    return trajectory


def aims_at_the_next_visited(model, xT, schedule, steps, eta=0., generator=None, clip=False,
                             spacing="leading", offset=0, end=1., last=None):
    visited, xt = reference.timesteps(schedule.T, steps, spacing, offset), xT
    for step, below in zip(visited, [*visited[1:], -1], strict=True):
        t = torch.full((len(xt),), step)
        noise = torch.randn(xt.shape, generator=generator) if eta > 0 else None
        xt = reference.ddim_step(model(xt, t), xt, t, t * 0 + below, schedule, eta, noise, clip,
                                 end)
        yield step, xt


def changes_in_place(model, xT, *args, **named):
    for t, x in reference.sample(model, xT, *args, **named):
        yield t, xT.copy_(x)


def yields_the_step_reached(model, xT, schedule, steps, *args, **named):
    for t, x in reference.sample(model, xT, schedule, steps, *args, **named):
        yield t - schedule.T // steps, x


def yields_pictures_only(*args, **named):
    for _, x in reference.sample(*args, **named):
        yield x


def yields_the_picture_first(*args, **named):
    for t, x in reference.sample(*args, **named):
        yield x, t


def yields_a_step_a_picture(*args, **named):
    for t, x in reference.sample(*args, **named):
        yield torch.full((len(x),), t), x


def yields_before_the_step(model, xT, schedule, steps, *args, **named):
    pairs = list(reference.sample(model, xT, schedule, steps, *args, **named))
    pictures = [xT, *(x for _, x in pairs[:-1])]
    yield from ((t, x) for (t, _), x in zip(pairs, pictures, strict=True))


@torch.no_grad()
def a_list_of_pairs(model, xT, schedule, steps, eta=0., generator=None, clip=False,
                    spacing="leading", offset=0, end=1., last=None):
    made, x = [], xT
    for step in reference.timesteps(schedule.T, steps, spacing, offset)[::-1][:last][::-1]:
        t = torch.tensor([step] * len(x))
        z = torch.randn(x.size(), generator=generator) if eta else None
        x = reference.ddim_step(model(x, t), x, t, t - schedule.T // steps, schedule, eta, z, clip,
                                end)
        made.append((step, x))
    return made


def a_trajectory_by_hand(model, xT, schedule, steps, eta=0., generator=None, clip=False,
                         spacing="leading", offset=0, end=1., last=None):
    x = xT.clone()
    for i, step in enumerate(reference.timesteps(schedule.T, steps, spacing, offset)):
        if last is not None and i < steps - last:
            continue
        t = step * torch.ones(x.shape[0], dtype=torch.long)
        with torch.inference_mode():
            prediction = model(x, t)
        z = torch.empty_like(x).normal_(generator=generator) if eta > 0 else None
        x = reference.ddim_step(prediction, x, t, t - schedule.T // steps, schedule, eta, z, clip,
                                end)
        yield torch.tensor(step), x


def starts_after_so_many(visited, last):
    return visited[last or 0:]


def takes_the_first(visited, last):
    return visited[:last]


def slices_from_the_end(visited, last):
    return visited if last is None else visited[-last:]


# slerp

def an_angle_a_row(a, b, part):
    angle = torch.nn.functional.cosine_similarity(a, b, dim=-1)[..., None].arccos()
    return (((1 - part) * angle).sin() * a + (part * angle).sin() * b) / angle.sin()


def straight(a, b, part):
    return (1 - part) * a + part * b


def stretched(a, b, part):
    line = straight(a, b, part)
    return line / line.norm() * reference.slerp(a, b, part).norm()


def exchanged(a, b, part):
    return reference.slerp(b, a, part)


def angle_of(a, b):
    return ((a * b).sum() / (a.norm() * b.norm())).clamp(-1, 1).arccos()


def undivided(a, b, part):
    angle = angle_of(a, b)
    return ((1 - part) * angle).sin() * a + (part * angle).sin() * b


def unscaled_cosine(a, b, part):
    angle = (a * b).sum().clamp(-1, 1).arccos()
    return (((1 - part) * angle).sin() * a + (part * angle).sin() * b) / angle.sin().clamp(min=.01)


def row_by_row(a, b, part):
    return torch.stack([reference.slerp(x, y, part) for x, y in zip(a, b, strict=True)])


def of_length_one(a, b, part):
    return reference.slerp(a / a.norm(), b / b.norm(), part)


def sines_of_the_angle_alone(a, b, part):
    angle = angle_of(a, b)
    return straight(a, b, part) if angle.sin() < 1e-4 else (
        (1 - part) * angle.sin() * a + part * angle.sin() * b) / angle.sin()


def cosine_for_angle(a, b, part):
    angle = (a * b).sum() / (a.norm() * b.norm())
    return (((1 - part) * angle).sin() * a + (part * angle).sin() * b) / angle.sin()


def unclamped(a, b, part):
    angle = ((a * b).sum() / (a.norm() * b.norm())).arccos()
    return straight(a, b, part) if angle.sin() < 1e-4 else undivided(a, b, part) / angle.sin()


def undefined_for_equal(a, b, part):
    angle = angle_of(a, b)
    return undivided(a, b, part) / angle.sin()


def slerp_by_two_axes(a, b, part):
    """Turn a towards the part of b that stands on it, length and all, in double precision."""
    x, y = a.double().flatten(), b.double().flatten()
    angle = torch.atan2(*[v.norm() for v in (y / y.norm() - x / x.norm() * (
        x @ y / x.norm() / y.norm()), x / x.norm() * (x @ y / x.norm() / y.norm()))])
    angle = angle if x @ y > 0 else math.pi - angle
    if angle < 1e-4:
        return straight(a, b, part)
    mixed = x * torch.sin((1 - part) * angle) + y * torch.sin(part * angle)
    return (mixed / torch.sin(angle)).view(a.shape).to(a.dtype)


def slerp_with_factors(a, b, part):
    angle = float(angle_of(a, b))
    if math.sin(angle) < 1e-3:
        return torch.lerp(a, b, part)
    return (a * math.sin(angle - part * angle) + b * math.sin(part * angle)) / math.sin(angle)


def slerp_in_numpy(a, b, part):
    x, y = a.numpy().ravel(), b.numpy().ravel()
    cosine = np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-4:
        return straight(a, b, part)
    mixed = (np.sin((1 - part) * angle) * x + np.sin(part * angle) * y) / np.sin(angle)
    return torch.from_numpy(mixed.astype(np.float32)).view(a.shape)


# ddim_ascend

def ascend_a_picture_at_a_time(eps_hat, xt, t, t_next, schedule, clip=False, end=1.):
    rows = []
    for x, e, low, high in zip(xt, eps_hat, reference.alpha_bar_at(t, schedule, end),
                               schedule.alpha_bar[t_next], strict=True):
        prediction = (x - (1 - low).sqrt() * e) / low.sqrt()
        prediction = torch.clamp(prediction, -1, 1) if clip else prediction
        rows.append(high.sqrt() * prediction + (1 - high).sqrt() * e)
    return torch.stack(rows).float()


def lift(start=lambda t, t_next, T: t, goal=lambda t, t_next: t_next, ends=True, clips=True,
         bare=False):
    """A ddim_ascend with a mistake in one place."""
    def climb(eps_hat, xt, t, t_next, schedule, clip=False, end=1.):
        level = reference.alpha_bar_at(start(t, t_next, schedule.T), schedule, end if ends else 1.)
        prediction = (xt - expand_like((1 - level).sqrt(),
                                       xt) * eps_hat) / expand_like(level.sqrt(), xt)
        prediction = prediction.clamp(-1, 1) if clip and clips else prediction
        return q_sample(xt if bare else prediction, goal(t, t_next), eps_hat, schedule)
    return climb


def ascend_in_one_line(eps_hat, xt, t, t_next, schedule, clip=False, end=1.):
    shape = (-1, *[1] * (xt.ndim - 1))
    low = reference.alpha_bar_at(t, schedule, end).view(shape)
    high = schedule.alpha_bar[t_next].view(shape)
    prediction = (xt - (1 - low)**.5 * eps_hat) / low**.5
    prediction = prediction.clip(-1, 1) if clip else prediction
    return (high**.5 * prediction + (1 - high)**.5 * eps_hat).to(xt.dtype)


def ascend_by_euler(eps_hat, xt, t, t_next, schedule, clip=False, end=1.):
    if clip:
        return reference.ddim_ascend(eps_hat, xt, t, t_next, schedule, clip, end)
    low, high = reference.alpha_bar_at(t, schedule, end), schedule.alpha_bar[t_next]
    further = ((1 - high) / high).sqrt() - ((1 - low) / low).sqrt()
    scaled = xt / expand_like(low.sqrt(), xt) + expand_like(further, xt) * eps_hat
    return scaled * expand_like(high.sqrt(), xt)


# invert

def climber(ask=lambda t, stride: t, start=None, forget=False, stops=lambda upto: upto, down=False,
            graph=False, moves=True, clips=True, ends=True):
    """An `invert` with a mistake in one place."""
    def trajectory(model, x0, schedule, steps, clip=False, spacing="leading", offset=0, end=1.,
                   upto=None):
        stride, xt = schedule.T // steps, x0
        visited = reference.timesteps(schedule.T, steps, spacing, offset if moves else 0)
        visited = visited if down else visited[::-1]
        for step in visited[:stops(upto)]:
            xt = x0 if forget else xt
            t = torch.full((len(xt),), step)
            below = start(t) if start else t - stride
            with torch.set_grad_enabled(graph):
                eps_hat = model(xt, ask(t, stride))
            xt = reference.ddim_ascend(eps_hat, xt, below, t, schedule, clip and clips,
                                       end if ends else 1.)
            yield step, xt
    return trajectory


def by_pairs(model, x0, schedule, steps, clip=False, spacing="leading", offset=0, end=1.,
             upto=None):
    xt, done = x0, []
    for number, step in enumerate(sorted(reference.timesteps(schedule.T, steps, spacing, offset))):
        if number == upto:
            break
        t = torch.tensor([step]).repeat(len(xt))
        with torch.no_grad():
            xt = reference.ddim_ascend(model(xt, t), xt, t - schedule.T // steps, t, schedule,
                                       clip, end)
        done.append((step, xt))
    return done


def climbs_by_hand(model, x0, schedule, steps, clip=False, spacing="leading", offset=0, end=1.,
                   upto=None):
    made, x = [], x0
    visited = list(reversed(reference.timesteps(schedule.T, steps, spacing, offset)))
    for step in visited if upto is None else visited[:upto]:
        t = torch.tensor([step] * len(x))
        x = reference.ddim_ascend(model(x, t).detach(), x, t - schedule.T // steps, t, schedule,
                                  clip,
                                  end)
        made.append((step, x))
    return made


# extrapolated_x0

def gone(change):
    """An extrapolated_x0 whose factor is `change(ahead, behind)`, whole lengths in lambda."""
    def follow(x0_hat, x0_last, t, t_last, t_prev, schedule):
        now, last, next_ = (half_log_snr(i, schedule) for i in (t, t_last, t_prev))
        factor = expand_like(change(next_ - now, now - last), x0_hat)
        return x0_hat + factor * (x0_hat - x0_last)
    return follow


def first_order(x0_hat, x0_last, t, t_last, t_prev, schedule):
    return x0_hat


def mean_of_both(x0_hat, x0_last, t, t_last, t_prev, schedule):
    return (x0_hat + x0_last) / 2


def middle_in_steps(x0_hat, x0_last, t, t_last, t_prev, schedule):
    now, last, middle = (half_log_snr(i, schedule) for i in (t, t_last, (t + t_prev) // 2))
    return x0_hat + expand_like((middle - now) / (now - last), x0_hat) * (x0_hat - x0_last)


def in_steps(x0_hat, x0_last, t, t_last, t_prev, schedule):
    return x0_hat + expand_like((t - t_prev) / (t_last - t) / 2, x0_hat) * (x0_hat - x0_last)


def from_the_last(x0_hat, x0_last, t, t_last, t_prev, schedule):
    right = gone(lambda h, last: h / (2 * last))(x0_hat, x0_last, t, t_last, t_prev, schedule)
    return right - x0_hat + x0_last


def in_log_signal(x0_hat, x0_last, t, t_last, t_prev, schedule):
    now, last, next_ = (extract(schedule.alpha_bar.log(), i, x0_hat) for i in (t, t_last, t_prev))
    return x0_hat + (next_ - now) / (now - last) / 2 * (x0_hat - x0_last)


def with_r_of_the_paper(x0_hat, x0_last, t, t_last, t_prev, schedule):
    now, last, next_ = (half_log_snr(i, schedule) for i in (t, t_last, t_prev))
    r = expand_like((now - last) / (next_ - now), x0_hat)
    return (1 + 1 / (2 * r)) * x0_hat - 1 / (2 * r) * x0_last


def with_lerp(x0_hat, x0_last, t, t_last, t_prev, schedule):
    now, last, next_ = (half_log_snr(i, schedule) for i in (t, t_last, t_prev))
    middle = now + (next_ - now) / 2
    return torch.lerp(x0_last, x0_hat, expand_like((middle - last) / (now - last), x0_hat))


def a_row_at_a_time(x0_hat, x0_last, t, t_last, t_prev, schedule):
    def lam(step):
        return math.log(schedule.alpha_bar[step]) - math.log(1 - schedule.alpha_bar[step])
    factors = [.5 * (lam(c) - lam(a)) / (lam(a) - lam(b))
               for a, b, c in zip(t, t_last, t_prev, strict=True)]
    return torch.stack([x + k * (x - y)
                        for k, x, y in zip(factors, x0_hat, x0_last, strict=True)])


WRONG = {
    "alpha_bar_at": [
        (plain_index, "LAST entry"), (clamped_only, "they mean x0 itself"),
        (step_0_is_x0, "only steps below 0"), (end_is_one, "Use `end`"),
        (counted_from_one, "one entry too early"), (in_single_precision, "float32")],
    "ddim_sigma": [
        (variance_for_sigma, "This is the variance"), (eta_under_the_root, "in front of the root"),
        (without_eta, "eta is missing"), (upside_down, "upside down"),
        (beta_of_one_step, "belongs to a single step"), (always_one_step, "takes t - 1"),
        (fixed_large, "larger choice"), (inverted_ratio, "upside down, or"),
        (levels_exchanged, "levels are exchanged"), (sigma_without_end, "`end` is ignored")],
    "ddim_step": [
        (stepper(sigma_taken=0), "sigma^2 is missing"), (stepper(sigma_taken=1), "variances add"),
        (stepper(aim=lambda t, t_prev: t - 1), "aims at t - 1"),
        (stepper(keep=True), "keeps alpha_bar of t"), (stepper(clips=False), "not clamped"),
        (stepper(again=True), "made again"), (stepper(power=2), "it needs sigma"),
        (always_eta_one, "eta is ignored"), (step_without_end, "`end` is ignored"),
        (own_noise, "not the `noise`"), (stepper(power=0), "No noise was added"),
        (without_roots, "equation 12"),
        (result_clamped, "not the result"), (forgets_to_return, "returned None")],
    "timesteps": [
        (from_low_to_high, "walks down"), (trailing_from_T, "is T - 1, not T"),
        (linspace_cut, "nearest step"), (linspace_unrounded, "no whole steps"),
        (offset_everywhere, "leading steps only"), (without_offset, "`offset` is missing"),
        (one_too_many, "runs one too far"), (steps_as_floats, "of type float"),
        (trailing_rounded_late, "round first"), (trailing_by_whole_strides, "// cuts it"),
        (linspace_with_halves_up, "even neighbour"), (leading_over_all_of_T, "one too far"),
        (leading_with_fractions, "a whole number"), (leading_only, "is [999, 937"),
        (lambda *args: None, "returned None")],
    "sample": [
        (sampler(aim=lambda t: t - 1), "aims one step down"),
        (sampler(ask=lambda t, stride: (t - stride).clamp(0)), "asked about the step aimed at"),
        (sampler(forget=True), "starts from xT again"), (sampler(seeded=False), "`generator`"),
        (sampler(always=True), "no noise may be drawn"),
        (sampler(last_only=True), "yield after every"),
        (aims_at_the_next_visited, "the next step of the list"),
        (changes_in_place, "changed in place"), (yields_the_step_reached, "those of the loop"),
        (sampler(cut=lambda visited, last: visited), "`last` is ignored"),
        (sampler(cut=starts_after_so_many), "takes the others"),
        (sampler(cut=takes_the_first), "takes the others"),
        (sampler(cut=slices_from_the_end), "no step is taken"),
        (sampler(cut=lambda visited, last: visited[-last:] if last else visited), "0 for None"),
        (sampler(graph=True), "under torch.no_grad()"),
        (sampler(moves=False), "`offset` is ignored"),
        (sampler(aim=lambda t: (t - 3).clamp(0)), "clamp nothing"),
        (sampler(told=("clip", "end")), "`eta` is ignored"),
        (sampler(told=("eta", "end")), "`clip` is ignored"),
        (sampler(told=("eta", "clip")), "`end` is ignored"),
        (sampler(once=True), "fresh at each"),
        (yields_a_step_a_picture, "the one number"),
        (yields_the_picture_first, "step first, then the picture"),
        (yields_pictures_only, "a pair"), (yields_before_the_step, "before the step"),
        (lambda *args, **named: None, "nothing was yielded")],
    "slerp": [
        (straight, "too short"), (stretched, "right direction only in the middle"),
        (exchanged, "part 0 must give a"), (undivided, "division by the sine"),
        (unscaled_cosine, "both lengths"), (row_by_row, "row by row"),
        (an_angle_a_row, "angle of its own"),
        (of_length_one, "to length one"), (sines_of_the_angle_alone, "inside the sine"),
        (cosine_for_angle, "arccos is missing"),
        (unclamped, "clamp it to"), (undefined_for_equal, "take the straight line")],
    "ddim_ascend": [
        (lift(start=lambda t, t_next, T: t_next), "read at t_next"),
        (lift(goal=lambda t, t_next: t.clamp(min=0)), "stays at level t"),
        (lift(start=lambda t, t_next, T: t.clamp(min=0)), "or step 0"),
        (lift(start=lambda t, t_next, T: t % T), "LAST entry"), (lift(ends=False), "is ignored"),
        (lift(bare=True), "First take its noise out"), (lift(clips=False), "not clamped")],
    "invert": [
        (climber(ask=lambda t, stride: (t - stride).clamp(0)), "the step that is left"),
        (climber(start=lambda t: t - 1), "not one below"),
        (climber(forget=True), "starts from x0 again"),
        (climber(stops=lambda upto: None), "5 steps came"),
        (climber(start=lambda t: (t - 3).clamp(0)), "clamp nothing"),
        (climber(clips=False), "`clip` is ignored"), (climber(ends=False), "`end` is ignored"),
        (climber(stops=lambda upto: upto or None), "upto=0"),
        (climber(graph=True), "under torch.no_grad()"),
        (climber(moves=False), "`offset` is ignored"),
        (climber(down=True), "the steps are [9")],
    "extrapolated_x0": [
        (gone(lambda h, last: h / last), "a whole step ahead"),
        (gone(lambda h, last: last / (2 * h)), "upside down"),
        (gone(lambda h, last: -h / (2 * last)), "goes back"), (in_steps, "measured in t"),
        (middle_in_steps, "taken in t"), (gone(lambda h, last: h / (h + last) / 2), "both steps"),
        (first_order, "DDIM's"), (mean_of_both, "lies behind"),
        (gone(lambda h, last: 0 * h + .5), "differ in length"), (from_the_last, "starts at x0_hat"),
        (in_log_signal, "signal to NOISE")],
}

RIGHT = {
    "alpha_bar_at": [with_the_end_in_front, one_by_one, looked_up_in_a_dict],
    "ddim_sigma": [two_roots, over_one_fraction, sigma_in_a_loop],
    "ddim_step": [step_by_q_sample, step_in_three_parts, step_with_einsum],
    "timesteps": [by_branches, as_a_tensor, by_ranges],
    "sample": [sampler(), a_list_of_pairs, a_trajectory_by_hand],
    "slerp": [slerp_by_two_axes, slerp_with_factors, slerp_in_numpy],
    "extrapolated_x0": [with_r_of_the_paper, with_lerp, a_row_at_a_time],
    "ddim_ascend": [ascend_in_one_line, ascend_by_euler, ascend_a_picture_at_a_time],
    "invert": [climber(), by_pairs, climbs_by_hand],
}
