"""Checks of lesson 6."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ddim
from .. import latent as reference
from ..ddpm import q_sample
from ..guidance import classifier_free
from ..latent import TextToImage
from ..nets import Attention
from . import Wrong, exercise, expect_close, looks_like
from ._fixtures import (
    END,
    LETTERS,
    NOISE,
    Listener,
    attention_layer,
    loss_mistakes,
    small_parts,
    small_vae,
)
from .ddim import expect_trajectory


@exercise("gligen_lessons.latent:to_latents")
def to_latents(attempt):
    """Two pictures that are not square, through a small autoencoder."""
    vae, x = small_vae(), 2 * torch.rand(2, 3, 8, 12) - 1
    mean, logvar = vae.encode(x)
    eps, s = torch.randn(mean.shape), vae.scaling_factor
    deviation = (logvar / 2).exp()
    mistakes = {
        "This divides by the scaling factor. It MULTIPLIES on the way in; dividing is for the way "
        "out.": (mean + deviation * eps) / s,
        "The scaling factor is forgotten: these latents do not have unit standard deviation.":
            mean + deviation * eps,
        "This is the scaled mean. `eps` must draw a sample around it: use `reparameterise`.":
            s * mean,
        "The mean is scaled and the noise is not: multiply the whole sample.":
            s * mean + deviation * eps,
        "exp(logvar) is a variance. The noise is multiplied by the standard deviation.":
            s * (mean + logvar.exp() * eps),
        "logvar itself was taken for a standard deviation.": s * (mean + logvar * eps),
        "These are the log-variances; `encode` returns the mean first.":
            s * (logvar + (mean / 2).exp() * eps)}
    error = expect_close(attempt(vae, x.clone(), eps.clone()), s * (mean + deviation * eps),
                         "Encode, draw with `reparameterise`, multiply by vae.scaling_factor.",
                         mistakes=mistakes)
    return f"draws and scales 2 latents (largest difference {error:.0e})"


@exercise("gligen_lessons.latent:to_pictures")
def to_pictures(attempt):
    """Two latents that decode to values outside of [-1, 1]."""
    vae, z = small_vae(), torch.randn(2, 3, 4, 6)
    s, kept = vae.scaling_factor, z.clone()
    want = vae.decode(z / s)
    mistakes = {
        "This multiplies by the scaling factor. `to_latents` did that; here it must be undone.":
            vae.decode(z * s).clamp(-1, 1),
        "The scaling factor is forgotten: the decoder learnt on latents before they were scaled.":
            vae.decode(z).clamp(-1, 1),
        "The picture, not the latent, was divided. The decoder is no linear map.":
            (vae.decode(z) / s).clamp(-1, 1),
        "The pictures are not clipped: the decoder leaves [-1, 1] a little.": want,
        "Pictures of the model side lie in [-1, 1], not in [0, 1].": want.clamp(0, 1),
        "These are shown pictures, in 0..1; they must stay in [-1, 1].":
            (want.clamp(-1, 1) + 1) / 2,
        "The latent was clipped. Latents know no [-1, 1]; clip the picture.":
            vae.decode((z / s).clamp(-1, 1)).clamp(-1, 1),
        "The latent was clipped instead of the picture: decode first.":
            vae.decode((z / s).clamp(-1, 1))}
    error = expect_close(attempt(vae, z), want.clamp(-1, 1),
                         "Divide by vae.scaling_factor, decode, clip.", mistakes=mistakes)
    if not torch.equal(z, kept):
        raise Wrong("the latents that were handed in are changed: write `z / ...`, not `z /= ...`.")
    return f"decodes 2 latents (largest difference {error:.0e})"


@exercise("gligen_lessons.latent:l_ldm")
def l_ldm(attempt):
    """Three latents, each at a step and with a caption of its own."""
    unet, t = Listener(), torch.tensor([3, 17, 38])
    z0, eps = 1.5 * torch.randn(3, 3, 4, 5) + .4, torch.randn(3, 3, 4, 5)
    context = torch.randn(3, LETTERS, 5)
    zt = q_sample(z0, t, eps, NOISE)
    level = NOISE.alpha_bar[t].float().view(-1, 1, 1, 1)
    mistakes = loss_mistakes(lambda seen: unet(seen, t, context), z0, zt, eps) | {
        "The roots are missing where z0 and eps are mixed; q_sample has them.":
            F.mse_loss(unet(level * z0 + (1 - level) * eps, t, context), eps)}
    got = attempt(unet, z0.clone(), t, eps.clone(), context, NOISE)
    error = expect_close(got, F.mse_loss(unet(zt, t, context), eps), "Noise z0 to t, let the "
                         "network predict with the caption at hand, compare with eps.",
                         mistakes=mistakes)
    return f"is equation 3 on 3 latents (largest difference {error:.0e})"


def heads(y: Tensor) -> Tensor:
    """Queries or keys (b,n,12) of three heads, (b,3,n,4)."""
    return y.unflatten(2, (3, 4)).transpose(1, 2)


def expect_self_attention(attempt, x: Tensor) -> None:
    """Without a context the keys come from x; None as the context is no crash."""
    itself = "Without a context a sequence attends to itself: then the keys come from x."
    own = Attention(12, 3)
    q, k = heads(own.to_q(x)), heads(own.to_k(x))
    try:
        got = attempt(own, x.clone())
    except (TypeError, AttributeError):                           # keys made of None
        raise Wrong(itself) from None
    expect_close(got, (q @ k.transpose(2, 3) / 2).softmax(-1), itself)


@exercise("gligen_lessons.nets:attention_map")
def attention_map(attempt):
    """Two pictures of six pixels, five words, three heads."""
    layer, x, context = attention_layer(), torch.randn(2, 6, 12), torch.randn(2, 5, 10)
    q, k, v = layer.to_q(x), layer.to_k(context), layer.to_v(context)

    def mixed(y: Tensor) -> Tensor:
        return y.unflatten(2, (4, 3)).permute(0, 3, 1, 2)         # heads from strided channels
    scores = heads(q) @ heads(k).transpose(2, 3)                  # (b,k,pixels,words)
    want = (scores / 2).softmax(-1)
    mistakes = {
        "This softmax runs over the pixels. Every PIXEL spreads its attention over the words: "
        "rows sum to one.": (scores / 2).softmax(-2),
        "The division by the square root of d is missing.": scores.softmax(-1),
        "This divides by d; it should be the square root of d.": (scores / 4).softmax(-1),
        "d is the width of ONE head: the width of the layer divided by the number of heads.":
            (scores / 12**.5).softmax(-1),
        "These are the scores before the softmax.": scores / 2,
        "The mean over the heads is taken; keep them apart, (b,k,n_pixels,n_tokens).":
            want.mean(1),
        "The heads were not split: all channels went into one product.":
            (q @ k.transpose(1, 2) / 12**.5).softmax(-1)[:, None],
        "The words stand in rows. Pixels come first: (b,k,n_pixels,n_tokens).":
            want.transpose(2, 3),
        "The heads are dealt out like cards. A head's channels lie side by side: "
        "unflatten(2, (heads, -1)).": (mixed(q) @ mixed(k).transpose(2, 3) / 2).softmax(-1),
        "Tokens and heads are mixed: `view` cannot exchange axes. unflatten(2, (heads, -1)) first, "
        "then transpose(1, 2).":
            (q.reshape(2, 3, 6, 4) @ k.reshape(2, 3, 5, 4).mT / 2).softmax(-1),
        "The values took the place of the keys: `to_k` makes keys.":
            (heads(q) @ heads(v).transpose(2, 3) / 2).softmax(-1),
        "This is what comes out of the layer, the mixed values; wanted are the weights.":
            want @ heads(v)}
    error = expect_close(attempt(layer, x.clone(), context.clone()), want, "softmax of q k^T over "
                         "the root of d, for each head: section 3.3.", mistakes=mistakes)
    expect_self_attention(attempt, x)
    return f"finds 6 pixels x 5 words for 3 heads (largest difference {error:.0e})"


@exercise("gligen_lessons.latent:token_maps")
def token_maps(attempt):
    """Two layers of 4 x 4 pixels and one of 2 x 2, two calls each, three words."""
    maps = {name: [torch.rand(2, side * side, 3).softmax(-1) for _ in range(2)]
            for name, side in (("down", 4), ("mid", 2), ("up", 4))}
    large = [m for name in ("down", "up") for m in maps[name]]
    mean = torch.stack(large).mean(0)                             # (b,16,3)
    want = mean.transpose(1, 2).reshape(2, 3, 4, 4)

    def shaped(found: list[Tensor]) -> Tensor:
        return torch.stack(found).mean(0).transpose(1, 2).reshape(2, 3, 4, 4)
    mistakes = {
        "The pixels of different words are mixed: words and pixels must change places (transpose) "
        "before the pixels become rows.": mean.reshape(2, 3, 4, 4),
        "Rows and columns of the pictures have changed places.": want.transpose(2, 3),
        "Only the last call is there. Take the mean over all calls, or a map shows one step.":
            shaped([maps[name][-1] for name in ("down", "up")]),
        "Only the first call is there. Take the mean over all calls.":
            shaped([maps[name][0] for name in ("down", "up")]),
        "Only the first layer is there. Take the mean over all layers of this size.":
            shaped(maps["down"]),
        "Only the last layer is there. Take the mean over all layers of this size.":
            shaped(maps["up"]),
        "The maps were added up; take their mean.": 4 * want,
        "The mean over the words is taken: there should be a map for each.":
            want.mean(1),
        "The maps still have the pixels in one row: unflatten them to side x side.":
            mean.transpose(1, 2),
        "Words come before rows and columns: (b,n,side,side).":
            mean.unflatten(1, (4, 4)),
        "Each map is divided by its largest value. Then words cannot be compared any more.":
            want / want.amax((2, 3), keepdim=True)}
    got = attempt({name: list(calls) for name, calls in maps.items()}, 4)
    error = expect_close(got, want, "The mean over all maps with side * side pixels, words before "
                         "pixels.", mistakes=mistakes)
    said = refuses(lambda: attempt(maps, 3), "no layer has 3 x 3 pixels")
    if not {"2", "4"} <= set(re.findall(r"\d+", said)):
        raise Wrong(f"the error says {said!r}. Let it name the sides there are, here 2 and 4.")
    small = torch.stack(maps["mid"]).mean(0).transpose(1, 2).reshape(2, 3, 2, 2)
    expect_close(attempt(maps, 2), small, "Take the layers of the size that is asked for, here 2.")
    return f"averages 4 maps of 4 x 4 pixels (largest difference {error:.0e})"


def refuses(call, what: str) -> str:
    """The ValueError's words where the docstring promises one; `what` is bad about the input."""
    try:
        call()
    except ValueError as error:
        return str(error)
    except (RuntimeError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise Wrong(f"{what}: the docstring promises a ValueError with a sentence that helps, "
                    f"and it stopped with {type(error).__name__}.") from None
    raise Wrong(f"{what}, and nothing was said: the docstring promises a ValueError.")


def ends_of_mistakes(parts: TextToImage, captions: list[str], zT: Tensor) -> dict[str, Tensor]:
    """Where trajectories end that get one thing wrong, by their message."""
    context, null = parts.context(captions), parts.context(["dark"]).expand(2, -1, -1)
    empty, one = parts.context([""]).expand(2, -1, -1), context[:1].expand(2, -1, -1)

    def end(cond=context, away=null, scale=3., eta=.5, clip=False, **options):
        model = classifier_free(parts.unet, cond, away, scale)
        g, options = torch.Generator().manual_seed(3), {"offset": 1, "end": END} | options
        return list(ddim.sample(model, zT, NOISE, 6, eta, g, clip, **options))[-1][1]
    return {
        "The two contexts have changed places: guidance leads AWAY from the caption.":
            end(null, context),
        "`negative` is ignored: its context takes the place of the empty caption's.":
            end(away=empty),
        "The steps are not moved: Stable Diffusion's have an offset of STEPS_OFFSET.":
            end(offset=0),
        "The loop ends at alpha_bar = 1. Stable Diffusion's ends at alpha_bar[0]: pass `end`.":
            end(end=1.),
        "This is the plain loop of lesson 2: offset and end of Stable Diffusion are missing.":
            end(offset=0, end=1.),
        "`guidance_scale` is ignored.": end(scale=1.),
        "`guidance_scale` is ignored: this is the default, 5.": end(scale=5.),
        "Here guidance_scale is s, not Ho and Salimans' w = s - 1.": end(scale=4.),
        "`eta` is ignored.": end(eta=0.),
        "The prediction was clipped to [-1, 1]. Pictures lie there; latents do not.":
            end(clip=True),
        "The steps are spaced in another way; Stable Diffusion's are leading.":
            end(spacing="trailing", offset=0),
        "All pictures got the first caption.": end(one)}


@exercise("gligen_lessons.latent:sample_latents")
def sample_latents(attempt):
    """Six of forty steps with everything set, a plain sampling loop, and what must be refused."""
    parts, captions = small_parts(), ["a cat", "a red fish"]
    zT = 1.5 * torch.randn(2, 3, 4, 4)

    def trajectory(call):
        return call(parts, captions, zT.clone(), 6, 3., "dark", .5,
                    torch.Generator().manual_seed(3))
    want, state = list(trajectory(reference.sample_latents)), torch.get_rng_state()
    try:
        got = trajectory(attempt)
        got = got if got is None else list(got)
    except RuntimeError as error:
        if "size of tensor" not in str(error):
            raise
        raise Wrong(f"it stopped: {error}. Does each caption have its row of states of "
                    "`negative`? expand_as(context).") from error
    if not torch.equal(torch.get_rng_state(), state):
        raise Wrong("the noise of eta did not come from `generator`, so a seed means no picture.")
    if got and isinstance(got[-1], tuple | list) and len(got[-1]) == 2:
        looks_like(got[-1][1], ends_of_mistakes(parts, captions, zT))
    error = expect_trajectory(got, want, "Contexts of captions and negative, classifier_free, then "
                              "ddim.sample with Stable Diffusion's offset and end.", {})
    expect_trajectory(attempt(parts, captions, zT.clone(), steps=3),
                      list(reference.sample_latents(parts, captions, zT, steps=3)),
                      "Without options: scale 5, an empty "
                      "negative, eta 0.", {})
    refuses(lambda: list(attempt(parts, captions, zT, steps=NOISE.T)), "as many steps as T came")
    refuses(lambda: list(attempt(parts, captions, zT[:1])), "one noise came for two captions")
    return f"samples as Stable Diffusion does for 6 + 3 steps (largest difference {error:.0e})"


@exercise("gligen_lessons.latent:generate")
def generate(attempt):
    """Two captions with every option set, and one caption alone."""
    parts, captions = small_parts(), ["a cat", "a red fish"]
    options = {"steps": 4, "guidance_scale": 2.5, "negative": "dark"}
    zT = parts.first_noise(2, 7)
    trajectory = list(reference.sample_latents(parts, captions, zT, **options))
    z0 = trajectory[-1][1]

    def shown(zT, **options):
        *_, (_, z) = reference.sample_latents(parts, captions, zT, **options)
        return reference.to_pictures(parts.vae, z)
    mistakes = {
        "These are latents: decode them, with `to_pictures`.": z0,
        "The latents were not divided by the scaling factor before decoding: `to_pictures` does.":
            parts.vae.decode(z0).clamp(-1, 1),
        "This is the picture after the FIRST step; go to the end of the loop.":
            reference.to_pictures(parts.vae, trajectory[0][1]),
        "This decodes the noise that the trajectory starts from.": reference.to_pictures(parts.vae,
                                                                                         zT),
        "The options (steps, guidance_scale, ...) did not reach `sample_latents`.": shown(zT),
        "`seed` is ignored: this is the picture of seed 0.":
            shown(parts.first_noise(2, 0), **options),
        "All pictures start from one and the same noise; ask first_noise for one a caption.":
            shown(zT[:1].expand(2, -1, -1, -1), **options),
        "The noise was drawn in one piece. `first_noise` draws picture i from seed + i.":
            shown(torch.randn(zT.shape, generator=torch.Generator().manual_seed(7)), **options),
        "These are shown pictures, in 0..1; generate returns the model side, [-1, 1].":
            (shown(zT, **options) + 1) / 2}
    error = expect_close(attempt(parts, captions, 7, **options), shown(zT, **options),
                         "first_noise, the whole sampling loop of `sample_latents`, to_pictures.",
                         mistakes=mistakes)
    want = shown(zT, **options)[1:]
    parts.vae.requires_grad_()                    # as loaded weights may be
    alone = attempt(parts, captions[1:], seed=8, **options)
    if getattr(alone, "requires_grad", False):
        raise Wrong("the picture still carries gradients: decode under torch.no_grad().")
    error = max(error, expect_close(alone, want, "Picture i of seed s must be the only picture of "
                                    "seed s + i."))
    return f"draws 2 captions from seeds 7 and 8 (largest difference {error:.0e})"
