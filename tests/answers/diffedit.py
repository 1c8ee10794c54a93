"""What people answer to the exercises of lesson 12."""

import torch
import torch.nn.functional as F

from gligen_lessons import ddim, ddpm, diffedit, flexit, sdedit

OFFSET = 1


# noise_difference

def differ(reduce=lambda d: d.abs().mean(1), noised=ddpm.q_sample, interleave=False, single=False,
           grad=False, repeat=lambda x: torch.cat([x, x])):
    """A noise_difference with a mistake in one place."""
    def found(model, z0, query, reference, t, eps, schedule):
        zt = noised(z0, t, eps, schedule)
        both = torch.cat([query, reference])
        if interleave:
            both = torch.stack([query, reference], 1).flatten(0, 1)
        with torch.set_grad_enabled(grad):
            a, b = model(repeat(zt), repeat(t), both).chunk(2)
        return reduce(a if single else a - b)
    return found


def two_noises(model, z0, query, reference, t, eps, schedule):
    first = ddpm.q_sample(z0, t, eps, schedule)
    second = ddpm.q_sample(z0, t, torch.randn_like(eps), schedule)
    return (model(first, t, query) - model(second, t, reference)).abs().mean(1)


def with_two_calls(model, z0, query, reference, t, eps, schedule):
    zt = ddpm.q_sample(z0, t, eps, schedule)
    with torch.inference_mode():
        gap = model(zt, t, query) - model(zt, t, reference)
    return torch.abs(gap).sum(dim=1) / gap.shape[1]


@torch.no_grad()
def with_unflatten(model, z0, query, reference, t, eps, schedule):
    zt = ddpm.q_sample(z0, t, eps, schedule).repeat(2, 1, 1, 1)
    eps_hat = model(zt, t.repeat(2), torch.cat((query, reference), 0))
    return eps_hat.unflatten(0, (2, -1)).diff(dim=0)[0].abs().mean(dim=1)


# difference_map

def mapper(join=lambda maps: torch.stack(maps).mean(0), chosen=lambda noises: noises):
    """A difference_map with a mistake in one place."""
    def mean_map(model, z0, query, reference, t, noises, schedule):
        return join([diffedit.noise_difference(model, z0, query, reference, t, eps, schedule)
                     for eps in chosen(noises)])
    return mean_map


@torch.no_grad()
def signed_first(model, z0, query, reference, t, noises, schedule):
    signed = 0
    for eps in noises:
        zt = ddpm.q_sample(z0, t, eps, schedule)
        signed = signed + model(zt, t, query) - model(zt, t, reference)
    return (signed / len(noises)).abs().mean(1)


def draws_its_own(model, z0, query, reference, t, noises, schedule):
    return mapper(chosen=lambda n: torch.randn_like(n))(model, z0, query, reference, t, noises,
                                                        schedule)


def running_mean(model, z0, query, reference, t, noises, schedule):
    total = torch.zeros(len(z0), *z0.shape[2:])
    for i in range(len(noises)):
        total += diffedit.noise_difference(model, z0, query, reference, t, noises[i], schedule)
    return total / noises.shape[0]


def in_one_batch(model, z0, query, reference, t, noises, schedule):
    n, b = noises.shape[:2]
    maps = diffedit.noise_difference(model, z0.repeat(n, 1, 1, 1), query.repeat(n, 1, 1),
                                     reference.repeat(n, 1, 1), t.repeat(n), noises.flatten(0, 1),
                                     schedule)
    return maps.view(n, b, *maps.shape[1:]).mean(0)


# rescaled

def scaler(part=lambda p: p, together=False, low=True, high=True, clip=True, zero=False,
           safe=True):
    """A rescaled with a mistake in one place."""
    def made(maps, extremes=.02):
        flat, p = maps.reshape(1, -1) if together else maps.flatten(1), part(extremes)
        least = flat.quantile(p if low else 0., dim=1, keepdim=True)
        most = flat.quantile(1 - p if high else 1., dim=1, keepdim=True)
        least = 0 * least if zero else least
        kept = torch.minimum(torch.maximum(flat, least), most) if clip else flat
        span = most - least
        return ((kept - least) / (span.clamp(min=1e-9) if safe else span)).view_as(maps)
    return made


def a_picture_at_a_time(maps, extremes=.02):
    made = []
    for one in maps:
        low, high = torch.quantile(one, extremes), torch.quantile(one, 1 - extremes)
        made.append((one.clamp(low, high) - low) / max(float(high - low), 1e-9))
    return torch.stack(made)


def by_clamping_last(maps, extremes=.02):
    ends = torch.tensor([extremes, 1 - extremes])
    low, high = maps.flatten(1).quantile(ends, dim=1).view(2, -1, 1, 1)
    return ((maps - low) / (high - low + 1e-12)).clamp(0, 1)


# encode_levels

def encoder(order=lambda levels: levels, offset=OFFSET, ends=True, first=True, upto=True):
    """An encode_levels with a mistake in one place."""
    def encoded(model, z0, schedule, steps, count):
        end = float(schedule.alpha_bar[0]) if ends else 1.
        walk = ddim.invert(model, z0, schedule, steps, offset=offset, end=end,
                           upto=count if upto else None)
        return order([z0] * first + [z for _, z in walk])
    return encoded


def noised_instead(model, z0, schedule, steps, count):
    return sdedit.noised_levels(z0, torch.randn_like(z0), schedule, steps, count)


def only_the_code(model, z0, schedule, steps, count):
    return diffedit.encode_levels(model, z0, schedule, steps, count)[-1]


@torch.no_grad()
def encodes_by_hand(model, z0, schedule, steps, count):
    levels, stride = [z0], schedule.T // steps
    for step in ddim.timesteps(schedule.T, steps, offset=1)[::-1][:count]:
        t = torch.full((len(z0),), step)
        levels.append(ddim.ddim_ascend(model(levels[-1], t), levels[-1], t - stride, t, schedule,
                                       end=float(schedule.alpha_bar[0])))
    return levels


def as_a_tuple(model, z0, schedule, steps, count):
    walk = ddim.invert(model, z0, schedule, steps, False, "leading", 1,
                       float(schedule.alpha_bar[0]), count)
    return tuple([z0] + [pair[1] for pair in walk])


# noised_levels

def noiser(order=lambda levels: levels, chosen=lambda up, count: up[:count], offset=OFFSET,
           draw=ddpm.q_sample, first=True, own=False):
    """A noised_levels with a mistake in one place."""
    def levels(z0, eps, schedule, steps, count):
        up = ddim.timesteps(schedule.T, steps, offset=offset)[::-1]
        found = [z0] * first
        for step in chosen(up, count):
            z = torch.randn_like(eps) if own else eps
            found.append(draw(z0, torch.full((len(z0),), step), z, schedule))
        return order(found)
    return levels


def by_formula(z0, eps, schedule, steps, count):
    levels = [z0]
    for i in range(count):
        kept = schedule.alpha_bar[1 + i * (schedule.T // steps)]
        levels.append((kept.sqrt() * z0 + (1 - kept).sqrt() * eps).to(z0))
    return levels


def a_chain(z0, eps, schedule, steps, count):
    found = [z0]
    for step in ddim.timesteps(schedule.T, steps, offset=OFFSET)[::-1][:count]:
        t = torch.full((len(z0),), step)
        found.append(ddpm.q_sample(found[-1], t, eps, schedule))
    return found


# decode_masked

def noises_afresh(model, levels, mask, schedule, steps):
    eps = torch.randn_like(levels[0])
    count = len(levels) - 1
    again = sdedit.noised_levels(levels[0], eps, schedule, steps, count)
    return diffedit.decode_masked(model, [*again[:-1], levels[-1]], mask, schedule, steps)


def walker(after=None, level=lambda left, levels: levels[left], start=-1, ends=True, all_=False,
           stride=None, pairs=True, last=False):
    """A decode_masked with a mistake in one place."""
    after = after or (lambda zt, kept, mask: torch.where(mask > .5, zt, kept))

    def walk(model, levels, mask, schedule, steps):
        zt, end = levels[start], float(schedule.alpha_bar[0]) if ends else 1.
        count = len(levels) - 1
        visited = ddim.timesteps(schedule.T, steps, offset=1)
        for i, step in enumerate(visited if all_ else visited[steps - count:]):
            t, left = torch.full((len(zt),), step), max(count - 1 - i, 0)
            with torch.no_grad():
                eps_hat = model(zt, t)
            zt = ddim.ddim_step(eps_hat, zt, t, t - (stride or schedule.T // steps), schedule,
                                end=end)
            zt = after(zt, level(left, levels), mask) if not last or left == 0 else zt
            yield (step, zt) if pairs else zt
    return walk


def blends_before(model, levels, mask, schedule, steps):
    zt, count = levels[-1], len(levels) - 1
    for i, step in enumerate(ddim.timesteps(schedule.T, steps, offset=1)[steps - count:]):
        t = torch.full((len(zt),), step)
        zt = torch.where(mask > .5, zt, levels[count - i])
        with torch.no_grad():
            eps_hat = model(zt, t)
        zt = ddim.ddim_step(eps_hat, zt, t, t - schedule.T // steps, schedule,
                            end=float(schedule.alpha_bar[0]))
        yield step, zt


def walks_on_unblended(model, levels, mask, schedule, steps):
    walk = ddim.sample(model, levels[-1], schedule, steps, offset=1, last=len(levels) - 1,
                       end=float(schedule.alpha_bar[0]))
    for (step, zt), level in zip(walk, levels[-2::-1], strict=True):
        yield step, torch.where(mask > .5, zt, level)


def writes_into_levels(model, levels, mask, schedule, steps):
    for (step, zt), level in zip(diffedit.decode_masked(model, levels, mask, schedule, steps),
                                 levels[-2::-1], strict=True):
        level += 0 * zt + mask
        yield step, zt


def from_a_slice(model, levels, mask, schedule, steps):
    return walker()(model, levels, mask, schedule, steps) if len(levels) > 1 else \
        walker(all_=True)(model, levels * (steps + 1), mask, schedule, steps)


@torch.no_grad()
def a_list_of_pairs(model, levels, mask, schedule, steps):
    made, zt, below = [], levels[-1], list(levels[:-1])
    for step in ddim.timesteps(schedule.T, steps, offset=1):
        if step > 1 + (len(levels) - 2) * (schedule.T // steps):
            continue
        t = torch.full((len(zt),), step)
        zt = ddim.ddim_step(model(zt, t), zt, t, t - schedule.T // steps, schedule,
                            end=float(schedule.alpha_bar[0]))
        zt = mask * zt + (1 - mask) * below.pop()
        made.append((step, zt))
    return made


def one_step_of_the_sampler_at_a_time(model, levels, mask, schedule, steps):
    zt = levels[-1]
    for left in range(len(levels) - 1, 0, -1):
        step, zt = next(ddim.sample(model, zt, schedule, steps, offset=1,
                                    end=float(schedule.alpha_bar[0]), last=left))
        zt = torch.where(mask.bool(), zt, levels[left - 1])
        yield step, zt


# low_pass

def by_means_of_views(z, factor):
    b, c, h, w = z.shape
    blocks = z.view(b, c, h // factor, factor, w // factor, factor).mean((3, 5))
    return blocks.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def by_area(z, factor):
    small = F.interpolate(z, scale_factor=1 / factor, mode="area")
    return F.interpolate(small, size=z.shape[-2:])


# target_point

def target(unit=lambda v: F.normalize(v, dim=-1), image=.2, source=-.4, end=lambda v: v):
    def summed(query, caption, picture):
        return end(unit(query) + image * unit(picture) + source * unit(caption))
    return summed


def by_norms(query, source, image):
    q, s, i = (v / v.norm(dim=1, keepdim=True) for v in (query, source, image))
    return q - flexit.SOURCE_WEIGHT * s + flexit.IMAGE_WEIGHT * i


def stacked(query, source, image):
    unit = F.normalize(torch.stack([query, image, source]), dim=-1)
    return torch.einsum("n,nbd->bd", torch.tensor([1., .2, -.4]), unit)


WRONG = {
    "noise_difference": [
        (differ(lambda d: d.mean(1).abs()), "plus and minus cancel"),
        (differ(lambda d: d.mean(1)), "keep their signs"),
        (differ(lambda d: d.square().mean(1)), "absolute differences"),
        (differ(lambda d: d.abs().sum(1)), "take their mean"),
        (differ(lambda d: d.abs()), "one map a channel"),
        (differ(lambda d: d.abs().mean(-1)), "dimension 1"),
        (differ(noised=lambda z, t, e, s: z), "without noise"),
        (differ(noised=lambda z, t, e, s: z + e), "level of t"),
        (differ(single=True), "one text alone"), (differ(interleave=True), "paired wrongly"),
        (differ(repeat=lambda x: x.repeat_interleave(2, 0)), "one by one"),
        (differ(lambda d: d.norm(dim=1)), "length over channels"),
        (two_noises, "noise was drawn in here"), (differ(grad=True), "gradients are being kept")],
    "difference_map": [
        (signed_first, "cancel"), (mapper(lambda maps: maps[0]), "only the first"),
        (mapper(lambda maps: maps[-1]), "only the last"), (mapper(sum), "summed"),
        (mapper(chosen=lambda noises: [noises.mean(0)]), "averaged before"),
        (mapper(lambda maps: torch.stack(maps).mean((0, 1))), "its own"),
        (mapper(lambda maps: torch.stack(maps).amax(0)), "The largest"),
        (mapper(torch.stack), "still apart"), (draws_its_own, "noise was drawn in here")],
    "rescaled": [
        (scaler(together=True), "share one scale"), (scaler(part=lambda p: 0.), "is clipped"),
        (scaler(low=False), "Only high values"), (scaler(high=False), "Only low values"),
        (scaler(clip=False), "clamp first"), (scaler(zero=True), "must become 0"),
        (scaler(part=lambda p: diffedit.EXTREMES), "is ignored"),
        (scaler(part=lambda p: p / 2), "in half"), (scaler(safe=False), "divisor")],
    "encode_levels": [
        (encoder(lambda levels: levels[::-1]), "z_0 comes first"),
        (encoder(offset=0), "one higher"), (encoder(ends=False), "begins at alpha_bar 1"),
        (encoder(first=False), "belongs to it"), (encoder(upto=False), "holds 6 latents"),
        (noised_instead, "invert"), (only_the_code, "a list of latents"),
        (lambda model, z0, schedule, steps, count: diffedit.encode_levels(
            model, z0, schedule, count, count), "long steps"),
        (lambda *args: None, "returned None")],
    "noised_levels": [
        (noiser(lambda levels: levels[::-1]), "z_0 comes first"),
        (noiser(chosen=lambda up, count: up[-count:]), "the clean end"),
        (noiser(chosen=lambda up, count: up[::-1][:count]), "from noisy to clean"),
        (noiser(offset=0), "one too low"), (noiser(first=False), "belongs to it"),
        (noiser(draw=lambda z, t, e, s: z + e), "level of t"),
        (noiser(offset=2), "one too high"), (a_chain, "from the one before"),
        (noiser(own=True), "noise was drawn in here")],
    "decode_masked": [
        (walker(level=lambda left, levels: levels[left + 1]), "popular implementation"),
        (walker(lambda zt, kept, mask: torch.where(mask > .5, kept, zt)), "changed places"),
        (walker(level=lambda left, levels: levels[0]), "as noisy as the inside"),
        (walker(lambda zt, kept, mask: zt), "Nothing is kept"),
        (walks_on_unblended, "goes on without it"),
        (walker(level=lambda left, levels: levels[len(levels) - 2 - left]), "the clean end"),
        (blends_before, "before the step only"), (walker(last=True), "after EACH step"),
        (walker(start=0), "starts from z_0"), (walker(ends=False), "alpha_bar[0]"),
        (walker(stride=1), "goes down by one"), (walker(all_=True), "walks all steps"),
        (walker(pairs=False), "two things"), (writes_into_levels, "it changes the levels"),
        (from_a_slice, "nothing to walk"), (noises_afresh, "Lesson 10")],
    "low_pass": [
        (lambda z, factor: F.avg_pool2d(z, factor), "still small"),
        (lambda z, factor: F.interpolate(z[..., ::factor, ::factor], scale_factor=factor),
         "is picked"),
        (lambda z, factor: F.interpolate(F.max_pool2d(z, factor), scale_factor=factor),
         "largest of each"),
        (lambda z, factor: F.interpolate(F.avg_pool2d(z, factor), scale_factor=factor,
                                         mode="bilinear"), "smoothed"),
        (lambda z, factor: z.mean((2, 3), keepdim=True).expand_as(z), "whole latent"),
        (lambda z, factor: z - sdedit.low_pass(z, factor), "takes away")],
    "target_point": [
        (target(unit=lambda v: v), "length one"), (target(source=.4), "leads away"),
        (target(image=-.2), "a part of it is kept"), (target(image=.4, source=-.2), "exchanged"),
        (target(end=lambda v: F.normalize(v, dim=-1)), "leaves it as it is"),
        (target(image=0.), "own vector is missing"), (target(source=0.), "caption is missing")],
}

RIGHT = {
    "noise_difference": [differ(), with_two_calls, with_unflatten],
    "difference_map": [mapper(), running_mean, in_one_batch],
    "rescaled": [scaler(), a_picture_at_a_time, by_clamping_last],
    "encode_levels": [encoder(), encodes_by_hand, as_a_tuple],
    "noised_levels": [noiser(), by_formula],
    "decode_masked": [walker(), a_list_of_pairs, one_step_of_the_sampler_at_a_time],
    "low_pass": [by_means_of_views, by_area],
    "target_point": [target(), by_norms, stacked],
}
