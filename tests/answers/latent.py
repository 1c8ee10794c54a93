"""What people answer to the exercises of lesson 6."""

import math

import torch
import torch.nn.functional as F

from gligen_lessons import ddim, nets
from gligen_lessons import latent as reference
from gligen_lessons.ddpm import q_sample
from gligen_lessons.guidance import classifier_free, guide
from gligen_lessons.schedule import extract
from gligen_lessons.vae import reparameterise

# to_latents

def divided(vae, x, eps):
    mean, logvar = vae.encode(x)
    return reparameterise(mean, logvar, eps) / vae.scaling_factor


def unscaled(vae, x, eps):
    return reparameterise(*vae.encode(x), eps)


def mean_only(vae, x, eps):
    return vae.encode(x)[0] * vae.scaling_factor


def noise_unscaled(vae, x, eps):
    mean, logvar = vae.encode(x)
    return reparameterise(vae.scaling_factor * mean, logvar, eps)


def variance_as_deviation(vae, x, eps):
    mean, logvar = vae.encode(x)
    return vae.scaling_factor * (mean + logvar.exp() * eps)


def logvar_as_deviation(vae, x, eps):
    mean, logvar = vae.encode(x)
    return vae.scaling_factor * (mean + logvar * eps)


def moments_exchanged(vae, x, eps):
    logvar, mean = vae.encode(x)
    return vae.scaling_factor * reparameterise(mean, logvar, eps)


def keeps_the_moments(vae, x, eps):
    return vae.encode(x) * vae.scaling_factor


def by_the_variance(vae, x, eps):
    mean, logvar = vae.encode(x)
    return (mean + logvar.exp().sqrt() * eps) * vae.scaling_factor


def by_addcmul(vae, x, eps):
    mean, logvar = vae.encode(x)
    return torch.addcmul(mean, (logvar / 2).exp(), eps).mul(vae.scaling_factor)


# to_pictures

def multiplied(vae, z):
    return vae.decode(vae.scaling_factor * z).clamp(-1, 1)


def decoded_as_it_is(vae, z):
    return vae.decode(z).clamp(-1, 1)


def picture_divided(vae, z):
    return (vae.decode(z) / vae.scaling_factor).clamp(-1, 1)


def not_clipped(vae, z):
    return vae.decode(z / vae.scaling_factor)


def clipped_from_zero(vae, z):
    return vae.decode(z / vae.scaling_factor).clamp(0, 1)


def already_shown(vae, z):
    return (vae.decode(z / vae.scaling_factor).clamp(-1, 1) + 1) / 2


def latent_clipped(vae, z):
    return vae.decode((z / vae.scaling_factor).clamp(-1, 1)).clamp(-1, 1)


def only_latent_clipped(vae, z):
    return vae.decode((z / vae.scaling_factor).clamp(-1, 1))


def in_place(vae, z):
    z /= vae.scaling_factor
    return vae.decode(z).clamp(-1, 1)


def by_hardtanh(vae, z):
    return F.hardtanh(vae.decode(z * (1 / vae.scaling_factor)))


def one_at_a_time(vae, z):
    return torch.cat([vae.decode(one[None] / vae.scaling_factor).clip(-1, 1) for one in z])


# l_ldm

def against_z0(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), t, context), z0)


def against_zt(unet, z0, t, eps, context, schedule):
    zt = q_sample(z0, t, eps, schedule)
    return F.mse_loss(unet(zt, t, context), zt)


def shown_the_clean(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(z0, t, context), eps)


def noise_added(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(z0 + eps, t, context), eps)


def without_roots(unet, z0, t, eps, context, schedule):
    level = extract(schedule.alpha_bar, t, z0)
    return F.mse_loss(unet(level * z0 + (1 - level) * eps, t, context), eps)


def caption_forgotten(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), t), eps)


def step_forgotten(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), context=context), eps)


def arguments_exchanged(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), context, t), eps)


def summed(unet, z0, t, eps, context, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), t, context), eps, reduction="sum")


def summed_in_pictures(unet, z0, t, eps, context, schedule):
    prediction = unet(q_sample(z0, t, eps, schedule), t, context)
    return (eps - prediction).square().flatten(1).sum(1).mean()


def one_a_picture(unet, z0, t, eps, context, schedule):
    return (unet(q_sample(z0, t, eps, schedule), t, context) - eps).square().mean((1, 2, 3))


def absolute(unet, z0, t, eps, context, schedule):
    return F.l1_loss(unet(q_sample(z0, t, eps, schedule), t, context), eps)


def by_hand(unet, z0, t, eps, context, schedule):
    level = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    zt = (level.sqrt() * z0 + (1 - level).sqrt() * eps).to(z0.dtype)
    return torch.mean((eps - unet(zt, t, context)) ** 2)


def mean_of_means(unet, z0, t, eps, context, schedule):
    off = unet(q_sample(z0, t, eps, schedule), t, context) - eps
    return off.pow(2).flatten(1).mean(1).mean()


# attention_map

def split(layer, y):
    return y.unflatten(2, (layer.heads, -1)).transpose(1, 2)


def scores(layer, x, context):
    return split(layer, layer.to_q(x)) @ split(layer, layer.to_k(context)).transpose(2, 3)


def over_pixels(layer, x, context):
    return (scores(layer, x, context) / 2).softmax(-2)


def without_root_d(layer, x, context):
    return scores(layer, x, context).softmax(-1)


def by_d(layer, x, context):
    return (scores(layer, x, context) / (x.shape[-1] / layer.heads)).softmax(-1)


def by_the_whole_width(layer, x, context):
    return (scores(layer, x, context) / math.sqrt(x.shape[-1])).softmax(-1)


def before_the_softmax(layer, x, context):
    return scores(layer, x, context) / 2


def heads_averaged(layer, x, context):
    return nets.attention_map(layer, x, context).mean(1)


def heads_not_split(layer, x, context):
    q, k = layer.to_q(x), layer.to_k(context)
    return (q @ k.transpose(1, 2) / q.shape[-1] ** .5).softmax(-1)[:, None]


def words_in_rows(layer, x, context):
    return nets.attention_map(layer, x, context).transpose(2, 3)


def heads_dealt(layer, x, context):
    q, k = (y.unflatten(2, (-1, layer.heads)).permute(0, 3, 1, 2)
            for y in (layer.to_q(x), layer.to_k(context)))
    return (q @ k.transpose(2, 3) / 2).softmax(-1)


def heads_viewed(layer, x, context=None):
    context = x if context is None else context
    q, k = (y.view(len(y), layer.heads, y.shape[1], -1)
            for y in (layer.to_q(x), layer.to_k(context)))
    return (q @ k.mT / q.shape[-1]**.5).softmax(-1)


def values_for_keys(layer, x, context):
    q, v = split(layer, layer.to_q(x)), split(layer, layer.to_v(context))
    return (q @ v.transpose(2, 3) / 2).softmax(-1)


def the_output(layer, x, context):
    return nets.attention_map(layer, x, context) @ split(layer, layer.to_v(context))


def deaf_to_itself(layer, x, context=None):
    return nets.attention_map(layer, x, torch.zeros_like(x) if context is None else context)


def keys_of_none(layer, x, context=None):
    q, k = split(layer, layer.to_q(x)), split(layer, layer.to_k(context))
    return (q @ k.transpose(2, 3) / q.shape[-1] ** .5).softmax(-1)


def by_einsum(layer, x, context=None):
    context = x if context is None else context
    q = layer.to_q(x).view(*x.shape[:2], layer.heads, -1)
    k = layer.to_k(context).view(*context.shape[:2], layer.heads, -1)
    return torch.softmax(torch.einsum("bpkd,bwkd->bkpw", q, k) / math.sqrt(q.shape[-1]), 3)


def head_by_head(layer, x, context=None):
    context = x if context is None else context
    maps = []
    for q, k in zip(layer.to_q(x).chunk(layer.heads, 2), layer.to_k(context).chunk(layer.heads, 2),
                    strict=True):
        e = (torch.bmm(q, k.mT) * q.shape[2] ** -.5).exp()
        maps.append(e / e.sum(2, keepdim=True))
    return torch.stack(maps, 1)


# token_maps

def fitting(maps, side):
    found = [m for calls in maps.values() for m in calls if m.shape[1] == side * side]
    if not found:
        there = sorted({math.isqrt(m.shape[1]) for calls in maps.values() for m in calls})
        raise ValueError(f"No layer has {side} x {side} pixels, only sides {there}.")
    return found


def mapper(form, choose=fitting):
    def maps_of_words(maps, side):
        return form(torch.stack(choose(maps, side)).mean(0), side)
    return maps_of_words


def upright(mean, side):
    return mean.transpose(1, 2).unflatten(2, (side, side))


def just_reshaped(mean, side):
    return mean.reshape(len(mean), -1, side, side)


def columns_first(mean, side):
    return upright(mean, side).mT


def of_call(i):
    return lambda maps, side: [c[i] for c in maps.values() if c[0].shape[1] == side * side]


def of_layer(i):
    return lambda maps, side: [c for c in maps.values() if c[0].shape[1] == side * side][i]


def added_up(maps, side):
    return upright(sum(fitting(maps, side)), side)


def over_the_words(mean, side):
    return upright(mean, side).mean(1)


def still_in_a_row(mean, side):
    return mean.transpose(1, 2)


def words_last(mean, side):
    return mean.unflatten(1, (side, side))


def each_to_one(mean, side):
    shown = upright(mean, side)
    return shown / shown.amax((2, 3), keepdim=True)


def vague(maps, side):
    if all(m.shape[1] != side * side for calls in maps.values() for m in calls):
        raise ValueError("No such size.")
    return upright(torch.stack(fitting(maps, side)).mean(0), side)


def silent(maps, side):
    found = [m for calls in maps.values() for m in calls if m.shape[1] == side * side]
    return upright(sum(found) / max(1, len(found)), side) if found else torch.zeros(1)


def stacks_nothing(maps, side):
    found = [m for calls in maps.values() for m in calls if m.shape[1] == side * side]
    return upright(torch.stack(found).mean(0), side)


def running_mean(maps, side):
    found = fitting(maps, side)
    b, _, n = found[0].shape
    return (sum(found) / len(found)).permute(0, 2, 1).reshape(b, n, side, side)


def one_map_at_a_time(maps, side):
    found = fitting(maps, side)
    words = [torch.stack([m[:, :, i].view(-1, side, side) for m in found]).mean(0)
             for i in range(found[0].shape[2])]
    return torch.stack(words, 1)


# sample_latents

def sampling(swapped=False, negative=None, scale=lambda s: s, eta=lambda e: e, first=False,
            seeded=True, **options):
    """A paint with a mistake in one place; `options` go to ddim.sample."""
    def generated(parts, captions, zT, steps=30, guidance_scale=5., negative_=None, eta_=0.,
                  generator=None, **named):
        unwanted = named.get("negative", negative_ or "") if negative is None else negative
        if not 1 <= steps < parts.schedule.T or len(zT) != len(captions):
            raise ValueError("These steps or this noise do not fit.")
        context = parts.context(captions[:1] * len(captions) if first else captions)
        null = parts.context([unwanted]).expand_as(context)
        if swapped:
            context, null = null, context
        model = classifier_free(parts.unet, context, null, scale(guidance_scale))
        return ddim.sample(model, zT, parts.schedule, steps, eta(eta_),
                           generator if seeded else None,
                           **{"offset": 1, "end": float(parts.schedule.alpha_bar[0])} | options)
    return generated


def unchecked_steps(parts, captions, zT, steps=30, guidance_scale=5., negative="", eta=0.,
                    generator=None):
    steps = min(steps, parts.schedule.T - 1)
    return reference.sample_latents(parts, captions, zT, steps, guidance_scale, negative, eta,
                                    generator)


def one_row_away(parts, captions, zT, steps=30, guidance_scale=5., negative="", eta=0.,
                 generator=None):
    model = classifier_free(parts.unet, parts.context(captions), parts.context([negative]),
                            guidance_scale)
    return ddim.sample(model, zT, parts.schedule, steps, eta, generator, offset=1,
                       end=float(parts.schedule.alpha_bar[0]))


def unchecked_noise(parts, captions, zT, *options, **named):
    zT = zT.expand(len(captions), -1, -1, -1)
    return reference.sample_latents(parts, captions, zT, *options, **named)


def sampled_by_hand(parts, captions, zT, steps=30, guidance_scale=5., negative="", eta=0.,
                    generator=None):
    T, c = parts.schedule.T, zT.shape[1]
    if not 1 <= steps < T or zT.shape[:2] != (len(captions), c):
        raise ValueError(f"steps must lie in 1..{T - 1} and zT hold a latent for each caption.")
    context, null = parts.context(captions), parts.context([negative] * len(captions))
    z, end = zT, float(parts.schedule.alpha_bar[0])
    for step in ddim.timesteps(T, steps, offset=reference.STEPS_OFFSET):
        t = torch.full((len(z),), step, device=z.device)
        with torch.no_grad():
            eps_hat = guide(parts.unet(z, t, null), parts.unet(z, t, context), guidance_scale)
        fresh = torch.randn(z.shape, generator=generator) if eta else None
        z = ddim.ddim_step(eps_hat, z, t, t - T // steps, parts.schedule, eta, fresh, end=end)
        yield step, z


# generate

def drawer(decode=reference.to_pictures, which=-1, seeded=True, options=True, noise=None,
           grad=False):
    """A draw with a mistake in one place."""
    def drawn(parts, captions, seed=0, **named):
        zT = (noise or reference.TextToImage.first_noise)(parts, len(captions), seed if seeded
                                                          else 0)
        trajectory = list(reference.sample_latents(parts, captions, zT,
                                                   **(named if options else {})))
        with torch.set_grad_enabled(grad):
            return decode(parts.vae, trajectory[which][1])
    return drawn


def one_noise_for_all(parts, count, seed):
    return parts.first_noise(1, seed).expand(count, -1, -1, -1)


def noise_in_one_piece(parts, count, seed):
    shape = parts.first_noise(count, seed).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def without_scaling(vae, z):
    return vae.decode(z).clamp(-1, 1)


def in_shown_range(vae, z):
    return (reference.to_pictures(vae, z) + 1) / 2


def noise_decoded(parts, captions, seed=0, **options):
    return reference.to_pictures(parts.vae, parts.first_noise(len(captions), seed))


def drawn_in_a_loop(parts, captions, seed=0, **options):
    z = parts.first_noise(len(captions), seed)
    for _, step in reference.sample_latents(parts, captions, z, **options):
        z = step
    with torch.inference_mode():
        return reference.to_pictures(parts.vae, z).cpu()


def drawn_one_by_one(parts, captions, seed=0, **options):
    made = [drawer()(parts, [caption], seed + i, **options) for i, caption in enumerate(captions)]
    return torch.cat(made)


WRONG = {
    "to_latents": [
        (divided, "divides by"), (unscaled, "scaling factor is forgotten"),
        (mean_only, "the scaled mean"), (noise_unscaled, "the noise is not"),
        (variance_as_deviation, "is a variance"), (logvar_as_deviation, "logvar itself"),
        (moments_exchanged, "returns the mean first"),
        (keeps_the_moments, "stopped with TypeError")],
    "to_pictures": [
        (multiplied, "must be undone"), (decoded_as_it_is, "scaling factor is forgotten"),
        (picture_divided, "not the latent"), (not_clipped, "not clipped"),
        (clipped_from_zero, "not in [0, 1]"), (already_shown, "shown pictures"),
        (latent_clipped, "latent was clipped"),
        (only_latent_clipped, "instead of the picture"), (in_place, "not `z /= ...`")],
    "l_ldm": [
        (against_z0, "compared with z0"), (against_zt, "compared with zt"),
        (shown_the_clean, "clean latent"), (noise_added, "q_sample mixes"),
        (without_roots, "roots are missing"), (caption_forgotten, "without a caption"),
        (step_forgotten, "without a step"), (arguments_exchanged, "in this order"),
        (summed, "squares are summed"), (one_a_picture, "one mean over all"),
        (absolute, "absolute differences"), (summed_in_pictures, "summed within each")],
    "attention_map": [
        (over_pixels, "over the pixels"), (without_root_d, "square root of d is missing"),
        (by_d, "divides by d"), (by_the_whole_width, "ONE head"),
        (before_the_softmax, "before the softmax"), (heads_averaged, "keep them apart"),
        (heads_not_split, "were not split"), (words_in_rows, "pixels come first"),
        (heads_dealt, "dealt out like cards"), (heads_viewed, "cannot exchange axes"),
        (values_for_keys, "place of the keys"),
        (the_output, "the mixed values"), (deaf_to_itself, "attends to itself"),
        (keys_of_none, "attends to itself")],
    "token_maps": [
        (mapper(just_reshaped), "change places (transpose)"),
        (mapper(columns_first), "rows and columns of the pictures"),
        (mapper(upright, of_call(-1)), "only the last call"),
        (mapper(upright, of_call(0)), "only the first call"),
        (mapper(upright, of_layer(0)), "only the first layer"),
        (mapper(upright, of_layer(-1)), "only the last layer"),
        (added_up, "were added up"), (mapper(over_the_words), "a map for each"),
        (mapper(still_in_a_row), "still have the pixels in one row"),
        (mapper(words_last), "words come before"), (mapper(each_to_one), "largest value"),
        (silent, "nothing was said"), (vague, "name the sides"),
        (stacks_nothing, "stopped with RuntimeError")],
    "sample_latents": [
        (sampling(swapped=True), "AWAY from the caption"),
        (sampling(negative=""), "`negative` is ignored"), (sampling(offset=0), "are not moved"),
        (sampling(end=1.), "alpha_bar[0]"), (sampling(offset=0, end=1.), "loop of lesson 2"),
        (sampling(scale=lambda s: 1.), "`guidance_scale` is ignored"),
        (sampling(scale=lambda s: 5.), "the default, 5"),
        (sampling(scale=lambda s: s + 1), "w = s - 1"), (sampling(eta=lambda e: 0.), "`eta` is"),
        (sampling(clip=True), "latents do not"),
        (sampling(offset=0, spacing="trailing"), "spaced in another way"),
        (sampling(first=True), "the first caption"), (sampling(seeded=False), "a seed means no"),
        (unchecked_steps, "as many steps as T"), (unchecked_noise, "one noise came"),
        (one_row_away, "expand_as(context)")],
    "generate": [
        (drawer(decode=lambda vae, z: z), "these are latents"),
        (drawer(decode=without_scaling), "not divided by the scaling factor"),
        (drawer(which=0), "after the FIRST step"), (noise_decoded, "the noise that the trajectory"),
        (drawer(options=False), "did not reach"), (drawer(seeded=False), "`seed` is ignored"),
        (drawer(noise=one_noise_for_all), "one and the same noise"),
        (drawer(noise=noise_in_one_piece), "drawn in one piece"),
        (drawer(decode=in_shown_range), "shown pictures"),
        (drawer(grad=True), "carries gradients")],
}
RIGHT = {
    "to_latents": [by_the_variance, by_addcmul],
    "to_pictures": [by_hardtanh, one_at_a_time],
    "l_ldm": [by_hand, mean_of_means],
    "attention_map": [by_einsum, head_by_head],
    "token_maps": [running_mean, one_map_at_a_time],
    "sample_latents": [sampled_by_hand, sampling()],
    "generate": [drawn_in_a_loop, drawn_one_by_one],
}
