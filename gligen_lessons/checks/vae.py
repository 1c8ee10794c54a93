"""Checks of lesson 3."""

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from .. import vae as reference
from . import Wrong, exercise, expect_close, expect_no_draw

SMALL = {"block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2,
         "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 2, "norm_num_groups": 4}
EACH = "Return one number for each picture, (b,)."
WHOLE_BATCH = "This is one number for the batch. " + EACH


def clouds() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means, log-variances and noise (3,2,4,5): not square, no log-variance near 0."""
    return 1.5 * torch.randn(3, 2, 4, 5), .8 * torch.randn(3, 2, 4, 5) - 1, torch.randn(3, 2, 4, 5)


@exercise("gligen_lessons.vae:reparameterise")
def reparameterise(attempt):
    """The draw, and its gradients in mean and log-variance."""
    mean, logvar, eps = clouds()
    spread = (logvar / 2).exp()
    mistakes = {
        "exp(logvar) is the variance. Noise is stretched by the standard deviation, its root: "
        "exp(logvar / 2).": mean + logvar.exp() * eps,
        "logvar is a logarithm: take its exponential before you multiply.": mean + logvar * eps,
        "This draws with unit standard deviation: the cloud's own is missing.": mean + eps,
        "The mean is stretched too: only eps is.": spread * (mean + eps),
        "Mean and noise are swapped: eps is stretched, the mean moves.": eps + spread * mean,
        "eps is not used: this is the mean, and no draw.": mean}
    first, second = (attempt(mean.clone(), logvar.clone(), eps.clone()) for _ in range(2))
    if isinstance(first, torch.Tensor) and not torch.equal(first.nan_to_num(),
                                                           second.nan_to_num()):
        raise Wrong("two calls with the same eps differ: it draws noise of its own. The noise "
                    "comes in as eps.")
    error = expect_close(first, mean + spread * eps, "Move eps by the mean and stretch it by the "
                         "standard deviation.", mistakes=mistakes)
    leaves = [v.clone().requires_grad_() for v in (mean, logvar)]
    drawn = attempt(*leaves, eps.clone())
    slopes = torch.autograd.grad(drawn.sum(), leaves, allow_unused=True) \
        if drawn.requires_grad else (None, None)
    if None in slopes:
        raise Wrong("the values are right, but no gradient reaches mean and logvar both: no "
                    ".detach(), .data or no_grad here, it is the whole point of the trick.")
    expect_close(slopes, (torch.ones_like(mean), .5 * spread * eps), "The gradients in mean and "
                 "logvar are not those of the formula.")
    return f"draws from 3 clouds, and gradients come through (largest difference {error:.0e})"


def kl_slips(mean, logvar) -> dict[str, torch.Tensor]:
    """What slips of the pen in the derivation give, by their message."""
    def total(values):
        return .5 * values.flatten(1).sum(1)
    return {
        "The half belongs to the logarithm too: log sigma is half of log sigma^2.":
            total(mean**2 + logvar.exp() - 1 - 2 * logvar),
        "The sign of the logarithm is turned: a narrow cloud must cost MORE.":
            total(mean**2 + logvar.exp() - 1 + logvar),
        "The -1 comes once for each number of the code, not once for each picture.":
            total(mean**2 + logvar.exp() - logvar) - .5,
        "log sigma^2 is missing. Without it a narrow cloud costs nothing.":
            total(mean**2 + logvar.exp() - 1),
        "Only half of the logarithm is here: inside the bracket stands log sigma^2, whole.":
            total(mean**2 + logvar.exp() - 1 - logvar / 2),
        "The middle term: E (z - mean)^2 is the variance, which cancels, so it gives -1/2.":
            total(mean**2 - logvar)}


@exercise("gligen_lessons.vae:kl")
def kl(attempt):
    """Against torch.distributions, and 0 at the prior."""
    mean, logvar, _ = clouds()
    q, p = Normal(mean, (logvar / 2).exp()), Normal(torch.zeros(1), torch.ones(1))
    each, back = kl_divergence(q, p), kl_divergence(p, q)
    want = each.flatten(1).sum(1)

    def total(values):
        return .5 * values.flatten(1).sum(1)
    mistakes = {
        "The factor 1/2 is missing: both Gaussians have it in the exponent.": 2 * want,
        "The sign is turned: a divergence is never negative.": -want,
        "This is the mean over a latent. Sum over it: the numbers are independent, so their "
        "divergences add up.": each.flatten(1).mean(1),
        WHOLE_BATCH: want.sum(), "This is a mean over the batch. " + EACH: want.mean(),
        "This is the mean over everything. Sum over a latent, for each picture.": each.mean(),
        "This sums over the batch. Dimension 0 counts pictures: sum over all the others.":
            each.sum(0),
        "The -1 is missing: at mean 0 and variance 1 the divergence must be 0.":
            total(mean**2 + logvar.exp() - logvar),
        "The squared mean is missing: a cloud far from 0 must cost more.":
            total(logvar.exp() - 1 - logvar),
        "logvar is the logarithm of the VARIANCE; this takes it for that of the standard "
        "deviation.": total(mean**2 + (2 * logvar).exp() - 1 - 2 * logvar),
        "Here the standard deviation stands where the variance belongs.":
            total(mean**2 + (logvar / 2).exp() - 1 - logvar),
        "This is the divergence the other way round, of the prior from the cloud.":
            back.flatten(1).sum(1)}
    error = expect_close(attempt(mean.clone(), logvar.clone()), want, "Compare with the "
                         "derivation, term by term.",
                         mistakes=mistakes | kl_slips(mean, logvar))
    nothing = torch.zeros(2, 3, 1, 2)
    expect_close(attempt(nothing, nothing.clone()), torch.zeros(2), "A cloud that is the prior "
                 "must cost 0.")
    return f"agrees with torch.distributions on 3 latents (largest difference {error:.0e})"


def edge_sums(off) -> tuple[torch.Tensor, torch.Tensor]:
    """The absolute differences of neighbours below and to the right, summed for each picture."""
    return ((off[:, :, 1:] - off[:, :, :-1]).abs().sum((1, 2, 3)),
            (off[..., 1:] - off[..., :-1]).abs().sum((1, 2, 3)))


def edge_mistakes(x_hat, x) -> dict[str, torch.Tensor]:
    """Wrong values of the edges alone, each with its message."""
    off = x_hat - x
    apart = torch.stack([a - b for a, b in zip(edge_sums(x_hat), edge_sums(x), strict=True)])
    signed = torch.stack([off.diff(dim=k).sum((1, 2, 3)) for k in (2, 3)])
    sizes = sum((x_hat.diff(dim=k).abs() - x.diff(dim=k).abs()).abs().sum((1, 2, 3))
                for k in (2, 3))
    padded = sum(F.pad(off, (0, k == 3, 0, k == 2)).diff(dim=k).abs().sum((1, 2, 3))
                 for k in (2, 3))
    return {
        "The border is compared with zeros: take the differences first, and pad nothing before.":
            padded,
        "diff(dim=1) compares colours. Rows are dimension 2, columns 3.":
            sum(off.diff(dim=k).abs().sum((1, 2, 3)) for k in (1, 2)),
        "Neighbours of |off| are compared. Take the differences of `off` itself, then their "
        "absolute values.": sum(edge_sums(off.abs())),
        "The edges keep their signs and cancel: take absolute values.": signed.sum(0),
        "This compares how strong the two pictures' edges are. Take those of the difference.":
            sizes,
        "The differences of neighbours are summed before their absolute value, and cancel.":
            signed.abs().sum(0),
        "The two pictures' edges are summed first and then compared. Take the edges of their "
        "difference.": apart.abs().sum(0)}


@exercise("gligen_lessons.vae:reconstruction_error")
def reconstruction_error(attempt):
    """Sums by slices, on pictures that are not square."""
    x_hat, x = torch.randn(2, 3, 2, 4, 5)
    off = x_hat - x
    plain, (below, right) = off.abs().sum((1, 2, 3)), edge_sums(off)
    edges = below + right
    want = plain + edges / 2
    around = sum((off - off.roll(1, k)).abs().sum((1, 2, 3)) for k in (2, 3))
    mistakes = {
        "The edges are missing: add half the differences between neighbours.": plain,
        "The edges count half.": plain + edges,
        "The edges count half, in both directions: this takes a quarter.": plain + edges / 4,
        "Only the edges count half; the differences themselves count whole.": (plain + edges) / 2,
        "One diff was taken of the other. Take each of `off` itself, and add both.":
            plain + off.diff(dim=2).diff(dim=3).abs().sum((1, 2, 3)) / 2,
        "These are means, over unequal counts. Take sums.":
            off.abs().mean((1, 2, 3)) + (off.diff(dim=2).abs().mean((1, 2, 3))
                                         + off.diff(dim=3).abs().mean((1, 2, 3))) / 2,
        "Only the edges are here: add the differences themselves.": edges / 2,
        "These are squares. Take absolute values, which do not forgive small errors.":
            off.square().sum((1, 2, 3)) + (off.diff(dim=2).square().sum((1, 2, 3))
                                           + off.diff(dim=3).square().sum((1, 2, 3))) / 2,
        "Only neighbours below are compared; those to the right are missing.":
            plain + below / 2,
        "Only neighbours to the right are compared; those below are missing.":
            plain + right / 2,
        "The edges belong to the DIFFERENCE of the pictures; these are those of x_hat alone.":
            plain + sum(edge_sums(x_hat)) / 2,
        "The last row is compared with the first: nothing is compared beyond the border.":
            plain + around / 2,
        "This is the mean. Take the sum over a picture; `vae_loss` divides later.":
            want / off[0].numel(),
        WHOLE_BATCH: want.sum(), "This is a mean over the batch. " + EACH: want.mean(),
        "Without absolute values errors cancel.": off.sum((1, 2, 3))}
    mistakes |= {what: plain + v / 2 for what, v in edge_mistakes(x_hat, x).items()}
    error = expect_close(attempt(x_hat.clone(), x.clone()), want, "Sum |x_hat - x|, and add half "
                         "of the differences between neighbours of x_hat - x.", mistakes=mistakes)
    return f"sums differences and edges of 3 pictures (largest difference {error:.0e})"


class TwoLines(torch.nn.Module):
    """A model of one weight: codes are averages of four pixels; decoding repeats them."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(.7))

    def encode(self, x):
        low = F.avg_pool2d(x, 2)
        return 2 * self.weight * low, -1 - low * self.weight

    def decode(self, z):
        return 1.3 * F.interpolate(z, scale_factor=2) - .2


def same_slope(told, want, weight) -> None:
    """Raise Wrong unless the loss has the right gradient in the weight of the encoder."""
    if not getattr(told, "requires_grad", False):
        raise Wrong("no gradient reaches the model: no .item(), .detach() or no_grad here.")
    slopes = [torch.autograd.grad(v, weight, allow_unused=True)[0] for v in (told, want)]
    expect_close(slopes[0], slopes[1], "The value is right, its gradient in the encoder is not: "
                 "error and KL must both reach it. No .detach() or no_grad on the way.")


@exercise("gligen_lessons.vae:vae_loss")
def vae_loss(attempt):
    """With a model of one weight, whose codes have a fourth of the numbers."""
    model, weight, x, eps = TwoLines(), 3., torch.randn(3, 2, 4, 6), torch.randn(3, 2, 2, 3)
    with torch.no_grad():
        mean, logvar = model.encode(x)
        z = reference.reparameterise(mean, logvar, eps)
        drawn, middle = map(model.decode, (z, mean))
        error, at_mean = (reference.reconstruction_error(v, x) for v in (drawn, middle))
        cost, n = reference.kl(mean, logvar), x[0].numel()
    want = (error + weight * cost).mean() / n
    mistakes = {
        "kl_weight stands at the error of the picture; it belongs to the KL.":
            (weight * error + cost).mean() / n,
        "kl_weight is not used.": (error + cost).mean() / n,
        "The KL is missing.": error.mean() / n,
        "The KL is subtracted: the loss must grow with it.": (error - weight * cost).mean() / n,
        "Only the error is divided by the numbers of a picture; divide the whole.":
            error.mean() / n + weight * cost.mean(),
        "It is not divided by the count of numbers in one picture.": (error + weight * cost).mean(),
        "The KL is divided by the numbers in a LATENT; divide the whole by the picture's.":
            error.mean() / n + weight * cost.mean() / mean[0].numel(),
        "It sums over the batch: the loss must not depend on how many pictures there are.":
            (error + weight * cost).sum() / n,
        "It decodes the mean: without the draw the decoder never meets the cloud.":
            (at_mean + weight * cost).mean() / n,
        "The KL is averaged over the numbers of a latent. Sum it, as `kl` does.":
            (error + weight * cost / mean[0].numel()).mean() / n,
        "`kl` got the drawn code: give it the cloud, mean and logvar.":
            (error + weight * reference.kl(z, logvar)).mean() / n,
        "x.numel() counts the whole batch; x[0].numel() is one picture.": want / len(x),
        "The error is the mean absolute difference: take `reconstruction_error`, edges and all.":
            F.l1_loss(drawn, x) + weight * cost.mean() / n}
    told = expect_no_draw(attempt, "eps", model, x.clone(), eps.clone(), weight)
    if getattr(told, "ndim", 0):
        raise Wrong(f"shape {tuple(told.shape)}; a loss is one number: the mean over the batch.")
    miss = expect_close(told, want, "Encode, draw, decode; the mean of error plus kl_weight "
                        "times KL, over the numbers of one picture.", mistakes=mistakes)
    same_slope(told, reference.vae_loss(model, x, eps, weight), model.weight)
    return f"weighs error and KL, {told.detach():.3f} here (off by {miss:.0e})"


def perturbed(loud: float = 1.) -> reference.VAE:
    """A small VAE with no parameter at its default; `loud` stretches the moments."""
    model = reference.VAE(**SMALL).requires_grad_(False)
    for p in model.parameters():
        p.add_(.2 * torch.randn(p.shape))
    model.quant_conv.weight.mul_(loud)
    return model


@exercise("gligen_lessons.vae:Encoder.forward")
def forward(attempt):
    """A small encoder on pictures that are not square."""
    net, x = perturbed().encoder, torch.randn(2, 3, 8, 12)
    low = net.down_blocks[1](net.down_blocks[0](net.conv_in(x)))
    y = net.mid_block(low)
    norm, out = net.conv_norm_out, net.conv_out
    mistakes = {
        "mid_block is missing: it comes after the last of the down_blocks.":
            out(F.silu(norm(low))),
        "SiLU comes before the norm here: norm, SiLU, convolution.": out(norm(F.silu(y))),
        "SiLU is missing between norm and conv_out.": out(norm(y)),
        "conv_norm_out is missing.": out(F.silu(y)),
        "SiLU comes after conv_out: means could never be much below 0.": F.silu(out(norm(y))),
        "conv_out is missing: the moments have 2 c_z channels.": F.silu(norm(y))}
    error = expect_close(attempt(net, x.clone()), out(F.silu(norm(y))), "conv_in, the blocks in "
                         "order, mid_block, then norm, SiLU, conv_out.", mistakes=mistakes)
    return f"encodes 2 pictures as the library does (largest difference {error:.0e})"


def must_refuse(call, **inputs) -> None:
    """Raise Wrong unless `call` answers every input, named by what is wrong, with a ValueError."""
    for what, value in inputs.items():
        name = what.replace("_", " ")
        try:
            call(value)
        except ValueError as error:
            if not str(error).strip():
                raise Wrong("a ValueError needs a sentence that says what was wrong.") from None
        except (RuntimeError, IndexError) as error:
            raise Wrong(f"given {name}, it stops with {type(error).__name__} from deep inside. "
                        "Look at the shape first and raise a ValueError that names it.") from None
        except AssertionError:
            raise Wrong(f"it refuses {name} by `assert`, which Python may be told to skip. Write "
                        "`if` and `raise ValueError(...)`.") from None
        else:
            raise Wrong(f"it lets {name} pass. Refuse it with a ValueError that names the shape.")


@exercise("gligen_lessons.vae:VAE.encode")
def encode(attempt):
    """Moments of a small model whose log-variances leave the clamp on both sides."""
    model, x = perturbed(loud=150.), torch.randn(2, 3, 8, 12)
    raw = model.encoder(x)
    moments = model.quant_conv(raw)
    mean, logvar = moments.chunk(2, dim=1)
    kept = logvar.clamp(-30, 20)
    mistakes = {
        "The log-variance is not clamped to -30 ... 20.": (mean, logvar),
        "Means first: the two halves are swapped.": (logvar, mean.clamp(-30, 20)),
        "The two halves are swapped after the clamp: mean first, then log-variance.":
            (kept, mean),
        "Only the log-variance is clamped; a mean may be anything.": (mean.clamp(-30, 20), kept),
        "It is clamped below only; 20 is the upper end.": (mean, logvar.clamp(min=-30)),
        "quant_conv is missing between encoder and cut.":
            (raw[:, :2], raw[:, 2:].clamp(-30, 20)),
        "The cut takes every second channel. The first half are the means.":
            (moments[:, ::2], moments[:, 1::2].clamp(-30, 20)),
        "It returns the variance; the second value is its logarithm.": (mean, kept.exp())}
    for axis, name in ((0, "pictures"), (2, "rows"), (3, "columns")):
        a, b = moments.chunk(2, dim=axis)
        mistakes[f"It cuts the {name} in two (dim={axis}). Channels are dimension 1."] = \
            (a, b.clamp(-30, 20))
    try:
        told = attempt(model, x.clone())
    except ValueError as refusal:
        raise Wrong(f"it refuses a picture of 8 x 12 that fits this model, whose factor is "
                    f"{model.factor}: use self.factor, not 8. (It said: {refusal})") from None
    if isinstance(told, torch.Tensor):
        raise Wrong("expected two values, mean and log-variance; it returned one tensor.")
    error = expect_close(told, (mean, kept), "encoder, quant_conv, cut in two along the channels, "
                         "clamp the second half.", mistakes=mistakes)
    must_refuse(lambda bad: attempt(model, bad), a_height_of_7=torch.zeros(1, 3, 7, 8),
                a_width_of_9=torch.zeros(1, 3, 8, 9), four_channels=torch.zeros(1, 4, 8, 8),
                a_picture_without_batch=torch.zeros(3, 8, 8))
    return f"gives both moments and refuses 4 wrong shapes (largest difference {error:.0e})"


@exercise("gligen_lessons.vae:VAE.decode")
def decode(attempt):
    """A small model on latents that are not square, with pictures that leave [-1, 1]."""
    model, z = perturbed(), 3 * torch.randn(2, 2, 4, 6)
    want = model.decoder(model.post_quant_conv(z))
    mistakes = {
        "post_quant_conv is missing: it prepares the latent for the decoder.": model.decoder(z),
        "It clamps the picture. Leave that to whoever shows it: gradients vanish where it is "
        "clamped.": want.clamp(-1, 1),
        "It ends in tanh; AutoencoderKL ends in a convolution.": want.tanh(),
        "The scaling factor is divided out here. It is applied outside, in one place.":
            model.decoder(model.post_quant_conv(z / model.scaling_factor)),
        "It maps to 0..1. Model pictures live in [-1, 1].": (want + 1) / 2}
    try:
        told = attempt(model, z.clone())
    except ValueError as refusal:
        raise Wrong(f"it refuses a latent of {z.shape[1]} channels that fits this model: ask "
                    f"self.post_quant_conv.in_channels. (It said: {refusal})") from None
    error = expect_close(told, want, "post_quant_conv, then the decoder.", mistakes=mistakes)
    must_refuse(lambda bad: attempt(model, bad), three_channels=torch.zeros(1, 3, 4, 4),
                a_latent_without_batch=torch.zeros(2, 2, 4))
    return f"draws 2 latents and refuses 2 wrong shapes (largest difference {error:.0e})"


@exercise("gligen_lessons.vae:scaling_factor")
def scaling_factor(attempt):
    """Latents whose channels and pictures have other standard deviations, and other means."""
    z = torch.randn(48, 4, 12, 20) * torch.tensor([.5, 2, 3, 4.5])[:, None, None]
    z = z * torch.linspace(.5, 1.5, 48)[:, None, None, None]
    z = z + torch.tensor([2., 0, -1, 1])[:, None, None]
    spread = z.flatten().std()
    mistakes = {
        "This is the standard deviation itself. Latents are multiplied by one over it.": spread,
        "This is one over the variance; the standard deviation is its root.": 1 / spread**2,
        "This averages the standard deviations of the channels. Take all the numbers together.":
            1 / z.std((0, 2, 3)).mean(),
        "This is the root of the mean square. The standard deviation is measured from the mean.":
            1 / z.square().mean().sqrt(),
        "This looks at the first picture only.": 1 / z[0].std(),
        "This averages over pictures. Take all the numbers together.":
            1 / z.flatten(1).std(1).mean(),
        "These are the scaled latents. Return the factor alone.": z / spread,
        "This averages over the channels' factors. Take all the numbers together.":
            (1 / z.std((0, 2, 3))).mean(),
        "This uses the largest value; one outlier would decide.": 1 / z.abs().max()}
    told = attempt(z.clone())
    error = expect_close(told, float(1 / spread), "One over the standard deviation of all numbers "
                         "together.", mistakes=mistakes)
    if not isinstance(told, float):
        raise Wrong(f"expected a plain number, got a {type(told).__name__}: it goes into a config "
                    "file. Wrap it in float(...).")
    return f"gives standard deviation 1 to latents of {spread:.2f} (off by {error:.0e})"
