"""Checks of lesson 12: those of the mask here, those of walking in `_diffedit_levels`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ddpm import q_sample
from ..diffedit import EXTREMES
from . import Wrong, exercise, expect_close, expect_no_draw
from ._diffedit_levels import (
    MIXED,
    decode_masked,
    encode_levels,
    noised_levels,
    toy_with_words,
)

__all__ = ["decode_masked", "difference_map", "encode_levels", "low_pass", "noise_difference",
           "noised_levels", "rescaled", "target_point"]


def two_texts() -> tuple[Tensor, ...]:
    """Latents (2,3,4,5), contexts of a query and of a reference, steps, and three noises."""
    return (1.4 * torch.randn(2, 3, 4, 5), torch.randn(2, 4, 6), torch.randn(2, 4, 6),
            torch.tensor([9, 31]), torch.randn(3, 2, 3, 4, 5))


def apart(z0: Tensor, query: Tensor, reference: Tensor, t: Tensor, eps: Tensor,
          other: Tensor | None = None, noised=q_sample) -> Tensor:
    """The signed difference (b,c,h,w) of two predictions; `other` is the second one's noise."""
    zt = noised(z0, t, eps, MIXED)
    second = zt if other is None else noised(z0, t, other, MIXED)
    return toy_with_words(zt, t, query) - toy_with_words(second, t, reference)


@exercise("gligen_lessons.diffedit:noise_difference")
def noise_difference(attempt):
    """Two latents at steps of their own, with one noise each."""
    z0, query, reference, t, noises = two_texts()
    eps, told = noises[0], (z0, query, reference, t)
    signed = apart(*told, eps)
    mistakes = {
        "Channels are averaged before the absolute value: plus and minus cancel. `.abs()` first.":
            signed.mean(1).abs(),
        "The differences keep their signs. What counts is how far apart: `.abs()`.": signed.mean(1),
        "Squares are averaged. The paper takes absolute differences.": signed.square().mean(1),
        "This is the length over channels. Take the mean of absolute differences.":
            signed.norm(dim=1),
        "Channels are summed; take their mean.": signed.abs().sum(1),
        "There is still one map a channel. Take the mean over channels, dimension 1.": signed.abs(),
        "The mean runs over width or height. Channels are dimension 1.": signed.abs().mean(-1),
        "The network saw z0 without noise. Noise it first, to step t.":
            apart(*told, eps, noised=lambda z, *rest: z).abs().mean(1),
        "Noise was added to z0 as it is: q_sample mixes them at the level of t.":
            apart(*told, eps, noised=lambda z, t, e, s: z + e).abs().mean(1),
        "This is the prediction of one text alone. Take the other one's from it.":
            toy_with_words(q_sample(z0, t, eps, MIXED), t, query).abs().mean(1),
        "Latents and contexts are paired wrongly: [all latents, all latents] goes with "
        "[queries, references].": crossed(z0, query, reference, t, eps),
        "Latents are repeated one by one and contexts are stacked: each latent meets another "
        "picture's text. torch.cat([zt, zt]).": crossed(z0, query, reference, t, eps, True)}
    asked = query.clone().requires_grad_()                      # a text tower that learns
    got = expect_no_draw(attempt, "eps", toy_with_words, z0.clone(), asked, reference, t,
                         eps.clone(), MIXED)
    error = expect_close(got, signed.abs().mean(1), "One noisy latent, two predictions, the mean "
                         "over channels of their absolute difference.", mistakes=mistakes)
    if got.requires_grad:
        raise Wrong("gradients are being kept: `with torch.no_grad():` around the network.")
    return f"finds two maps of {got.shape[1]} x {got.shape[2]} (largest difference {error:.0e})"


def crossed(z0: Tensor, query: Tensor, reference: Tensor, t: Tensor, eps: Tensor,
            latents: bool = False) -> Tensor:
    """What comes of interleaved contexts beside latents that are stacked, or the reverse."""
    zt, texts = torch.cat([q_sample(z0, t, eps, MIXED)] * 2), torch.cat([query, reference])
    steps, order = torch.cat([t, t]), torch.arange(len(zt)).view(2, -1).T.flatten()
    if latents:
        zt, steps = zt[order], steps[order]                     # z0, z0, z1, z1
    else:
        texts = texts[order]                                    # q0, r0, q1, r1
    a, b = toy_with_words(zt, steps, texts).chunk(2)
    return (a - b).abs().mean(1)


@exercise("gligen_lessons.diffedit:difference_map")
def difference_map(attempt):
    """Three noises for two latents."""
    z0, query, reference, t, noises = two_texts()
    told = z0, query, reference, t
    signed = torch.stack([apart(*told, eps) for eps in noises])         # (n,b,c,h,w)
    absolute = signed.abs().mean(2)                                     # (n,b,h,w)
    averaged = apart(*told, noises.mean(0)).abs().mean(1)
    mistakes = {
        "Signed differences are averaged over the noises and made absolute at the end: they "
        "cancel. Absolute values first, then the mean.": signed.mean(0).abs().mean(1),
        "Only the first noise counts. n noises, n maps, their mean.": absolute[0],
        "Only the last noise counts: collect the maps.": absolute[-1],
        "The noises were averaged before the network saw them. That is no noise of unit "
        "deviation; average the maps.": averaged,
        "The maps are summed; take their mean, or the map grows with n.": absolute.sum(0),
        "All noises of all pictures are averaged into one map. Each picture has its own.":
            absolute.mean((0, 1)),
        "The largest over the noises is taken, not the mean.": absolute.amax(0),
        "The maps are still apart, one a noise: take the mean over the first dimension.": absolute}
    got = expect_no_draw(attempt, "noises", toy_with_words, z0.clone(), query, reference, t,
                         noises.clone(), MIXED)
    error = expect_close(got, absolute.mean(0), "`noise_difference` for each noise, then the mean.",
                         mistakes=mistakes)
    return f"averages {len(noises)} maps of 2 pictures (largest difference {error:.0e})"


def levelled(maps: Tensor, part: float, *, ends=(True, True), together: bool = False,
             clip: bool = True, by_largest: bool = False) -> Tensor:
    """A map rescaled, with one thing done in another way."""
    flat = maps.flatten() if together else maps.flatten(1)
    dim = {"dim": -1, "keepdim": True}
    low = flat.quantile(part, **dim) if ends[0] else flat.amin(**dim)
    high = flat.quantile(1 - part, **dim) if ends[1] else flat.amax(**dim)
    if by_largest:
        low = torch.zeros_like(low)
    kept = flat.clamp(low, high) if clip else flat
    return ((kept - low) / (high - low)).view_as(maps)


@exercise("gligen_lessons.diffedit:rescaled")
def rescaled(attempt):
    """Two maps of very different size, with extreme values; a part that is not the default."""
    maps = torch.rand(2, 6, 7) * torch.tensor([1., 30.]).view(2, 1, 1) + .5
    maps[0, 1, 2], maps[1, 4, 5], part = 40., -70., .12
    mistakes = {
        "Both pictures share one scale: then a mask depends on what else is in the batch. Rescale "
        "each by itself.": levelled(maps, part, together=True),
        "Nothing is clipped: one extreme value presses all others together.":
            levelled(maps, 0.),
        "Only high values are clipped; low ones are extreme too.":
            levelled(maps, part, ends=(False, True)),
        "Only low values are clipped; high ones are extreme too.":
            levelled(maps, part, ends=(True, False)),
        "Quantiles are taken but values beyond them stay: clamp first.":
            levelled(maps, part, clip=False),
        "This divides by the largest value; the smallest must become 0.":
            levelled(maps, part, by_largest=True),
        "`extremes` is ignored.": levelled(maps, EXTREMES),
        "This cuts `extremes` in half for each end. It is the part at either end.":
            levelled(maps, part / 2)}
    want = levelled(maps.double(), part).float()
    error = expect_close(attempt(maps.clone(), part), want, "Each picture by itself: clamp to the "
                         "quantiles `extremes` and 1 - `extremes`, then to 0..1.",
                         mistakes=mistakes)
    flat = attempt(torch.full((1, 4, 4), 3.), part)
    if not bool(flat.isfinite().all()):
        raise Wrong("a map that is the same everywhere gives NaN: keep the divisor above 0.")
    return f"rescales 2 maps, each by itself (largest difference {error:.0e})"


@exercise("gligen_lessons.sdedit:low_pass")
def low_pass(attempt):
    """A latent that is not square, at two factors."""
    z, largest = torch.randn(2, 3, 8, 12), 0.
    for factor in (2, 4):
        small = F.avg_pool2d(z, factor)
        want = F.interpolate(small, scale_factor=factor, mode="nearest")
        mistakes = {
            "It is still small: enlarge it again, by the same factor.": small,
            "Every so many a value is picked. Take the mean of each block.":
                F.interpolate(z[..., ::factor, ::factor], scale_factor=factor),
            "This is the largest of each block; take its mean.":
                F.interpolate(F.max_pool2d(z, factor), scale_factor=factor),
            "It is smoothed on the way up. Then twice is not the same as once: mode=\"nearest\".":
                F.interpolate(small, scale_factor=factor, mode="bilinear"),
            "The mean of the whole latent is left: reduce by `factor`, not to one value.":
                z.mean((2, 3), keepdim=True).expand_as(z),
            "This is what a low-pass takes away. Hand back what is left.": z - want}
        largest = max(largest, expect_close(attempt(z.clone(), factor), want, "The mean of each "
                      "block of factor x factor, repeated over the block.", mistakes=mistakes))
    return f"keeps the means of blocks of 2 and 4 (largest difference {largest:.0e})"


@exercise("gligen_lessons.flexit:target_point")
def target_point(attempt):
    """Three vectors of very different length."""
    query, source, image = (size * torch.randn(2, 7) for size in (3., .2, 9.))
    q, s, i = (F.normalize(v, dim=-1) for v in (query, source, image))
    want = q + .2 * i - .4 * s
    mistakes = {
        "The vectors were not brought to length one, so the longest decides.":
            query + .2 * image - .4 * source,
        "The source is added. The edit leads away from it.": q + .2 * i + .4 * s,
        "The picture's own vector is taken away; a part of it is kept.": q - .2 * i - .4 * s,
        "The two weights are exchanged: .2 for the picture, .4 for the source.":
            q + .4 * i - .2 * s,
        "The sum was brought to length one. FlexIT leaves it as it is.": F.normalize(want, dim=-1),
        "The picture's own vector is missing.": q - .4 * s,
        "The source caption is missing.": q + .2 * i}
    error = expect_close(attempt(query.clone(), source.clone(), image.clone()), want,
                         "Three vectors of length one: query + .2 image - .4 source.",
                         mistakes=mistakes)
    return f"sums 3 unit vectors with their weights (largest difference {error:.0e})"
