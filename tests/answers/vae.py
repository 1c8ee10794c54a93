"""What people answer to the exercises of lesson 3."""

import torch
import torch.nn.functional as F

from gligen_lessons import vae as reference

# reparameterise

def draw_with_variance(mean, logvar, eps):
    return mean + logvar.exp() * eps


def draw_with_the_logarithm(mean, logvar, eps):
    return mean + logvar * eps


def draw_of_spread_one(mean, logvar, eps):
    return mean + eps


def draw_that_stretches_the_mean(mean, logvar, eps):
    return (logvar / 2).exp() * (mean + eps)


def draw_swapped(mean, logvar, eps):
    return eps + (logvar / 2).exp() * mean


def draw_of_the_mean(mean, logvar, eps):
    return mean


def draw_with_noise_of_its_own(mean, logvar, eps):
    return mean + (logvar / 2).exp() * torch.randn_like(mean)


def draw_with_a_root_of_the_logarithm(mean, logvar, eps):
    return mean + logvar.sqrt() * eps


def draw_detached(mean, logvar, eps):
    return reference.reparameterise(mean, logvar, eps).detach()


def draw_with_a_spread_that_cannot_learn(mean, logvar, eps):
    return mean + (logvar.detach() / 2).exp() * eps


def draw_with_a_root_of_the_variance(mean, logvar, eps):
    return mean + logvar.exp().sqrt() * eps


def draw_with_addcmul(mean, logvar, eps):
    return torch.addcmul(mean, torch.exp(logvar * .5), eps)


# kl

def kl_without_the_half(mean, logvar):
    return 2 * reference.kl(mean, logvar)


def kl_with_the_sign_turned(mean, logvar):
    return .5 * (1 + logvar - mean**2 - logvar.exp()).flatten(1).sum(1)


def kl_averaged_over_a_latent(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).mean(1)


def kl_of_the_batch(mean, logvar):
    return reference.kl(mean, logvar).sum()


def kl_averaged_over_the_batch(mean, logvar):
    return reference.kl(mean, logvar).mean()


def kl_averaged_over_everything(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1 - logvar).mean()


def kl_summed_over_the_batch(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1 - logvar).sum(0)


def kl_without_the_one(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - logvar).flatten(1).sum(1)


def kl_without_the_mean(mean, logvar):
    return .5 * (logvar.exp() - 1 - logvar).flatten(1).sum(1)


def kl_with_log_of_deviation(mean, logvar):
    return reference.kl(mean, 2 * logvar)


def kl_with_deviation_for_variance(mean, logvar):
    return .5 * (mean**2 + (logvar / 2).exp() - 1 - logvar).flatten(1).sum(1)


def kl_with_a_whole_logarithm(mean, logvar):
    return ((mean**2 + logvar.exp() - 1) / 2 - logvar).flatten(1).sum(1)


def kl_with_the_logarithm_turned(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1 + logvar).flatten(1).sum(1)


def kl_with_one_one(mean, logvar):
    return .5 * ((mean**2 + logvar.exp() - logvar).flatten(1).sum(1) - 1)


def kl_with_a_variance_in_the_middle(mean, logvar):
    variance = logvar.exp()
    return (-logvar / 2 - variance / 2 + (mean**2 + variance) / 2).flatten(1).sum(1)


def kl_without_the_logarithm(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1).flatten(1).sum(1)


def kl_with_half_a_logarithm(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1 - logvar / 2).flatten(1).sum(1)


def kl_the_other_way_round(mean, logvar):
    variance = logvar.exp()
    return .5 * ((1 + mean**2) / variance - 1 + logvar).flatten(1).sum(1)


def kl_of_each_number(mean, logvar):
    return .5 * (mean**2 + logvar.exp() - 1 - logvar)


def kl_by_torch(mean, logvar):
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return torch.distributions.kl_divergence(q, p).sum((*range(1, mean.ndim),))


def kl_by_einsum(mean, logvar):
    squares, rest = torch.einsum("bchw,bchw->b", mean, mean), (logvar.exp() - logvar).flatten(1)
    return (squares + rest.sum(1) - mean[0].numel()) / 2


def kl_as_kingma_writes_it(mean, logvar):
    return -.5 * torch.stack([(1 + v - m.square() - v.exp()).sum()
                              for m, v in zip(mean, logvar, strict=True)])


# reconstruction_error

def edges_of(off):
    return (off.diff(dim=2).abs().flatten(1).sum(1) + off.diff(dim=3).abs().flatten(1).sum(1))


def error_without_edges(x_hat, x):
    return (x_hat - x).abs().flatten(1).sum(1)


def error_with_whole_edges(x_hat, x):
    return error_without_edges(x_hat, x) + edges_of(x_hat - x)


def error_of_edges_alone(x_hat, x):
    return edges_of(x_hat - x) / 2


def error_squared(x_hat, x):
    off = x_hat - x
    edges = off.diff(dim=2).square().flatten(1).sum(1) + off.diff(dim=3).square().flatten(1).sum(1)
    return off.square().flatten(1).sum(1) + edges / 2


def error_with_edges_below(x_hat, x):
    return error_without_edges(x_hat, x) + (x_hat - x).diff(dim=2).abs().sum((1, 2, 3)) / 2


def error_with_edges_to_the_right(x_hat, x):
    return error_without_edges(x_hat, x) + (x_hat - x).diff(dim=3).abs().sum((1, 2, 3)) / 2


def error_with_edges_of_the_prediction(x_hat, x):
    return error_without_edges(x_hat, x) + edges_of(x_hat) / 2


def error_round_the_border(x_hat, x):
    off = x_hat - x
    around = sum((off - off.roll(-1, k)).abs().sum((1, 2, 3)) for k in (2, 3))
    return error_without_edges(x_hat, x) + around / 2


def error_with_padded_differences(x_hat, x):
    off = x_hat - x
    down = F.pad(off, (0, 0, 0, 1)).diff(dim=2).abs().sum((1, 2, 3))
    right = F.pad(off, (0, 1)).diff(dim=3).abs().sum((1, 2, 3))
    return error_without_edges(x_hat, x) + (down + right) / 2


def error_over_channels(x_hat, x):
    off = x_hat - x
    return error_without_edges(x_hat, x) + .5 * sum(off.diff(dim=k).abs().sum((1, 2, 3))
                                                    for k in (1, 2))


def error_with_edges_of_sizes(x_hat, x):
    return error_without_edges(x_hat, x) + edges_of((x_hat - x).abs()) / 2


def error_with_edges_that_cancel(x_hat, x):
    off = x_hat - x
    return error_without_edges(x_hat, x) + .5 * sum(off.diff(dim=k).flatten(1).sum(1).abs()
                                                    for k in (2, 3))


def error_between_edge_sums(x_hat, x):
    sums = ((v.diff(dim=k).abs().flatten(1).sum(1) for v in (x_hat, x)) for k in (2, 3))
    return error_without_edges(x_hat, x) + .5 * sum((a - b).abs() for a, b in sums)


def error_with_signed_edges(x_hat, x):
    off = x_hat - x
    return off.abs().sum((1, 2, 3)) + .5 * sum(off.diff(dim=k).sum((1, 2, 3)) for k in (2, 3))


def error_between_strengths_of_edges(x_hat, x):
    edges = sum((x_hat.diff(dim=k).abs() - x.diff(dim=k).abs()).abs().sum((1, 2, 3))
                for k in (2, 3))
    return (x_hat - x).abs().sum((1, 2, 3)) + .5 * edges


def error_with_a_quarter_of_the_edges(x_hat, x):
    return error_without_edges(x_hat, x) + edges_of(x_hat - x) / 4


def error_halved(x_hat, x):
    return (error_without_edges(x_hat, x) + edges_of(x_hat - x)) / 2


def error_with_a_diff_of_a_diff(x_hat, x):
    both = (x_hat - x).diff(dim=2).diff(dim=3)
    return error_without_edges(x_hat, x) + .5 * both.abs().flatten(1).sum(1)


def error_of_means(x_hat, x):
    off = x_hat - x
    return sum(weight * v.abs().mean((1, 2, 3))
               for weight, v in ((1, off), (.5, off.diff(dim=2)), (.5, off.diff(dim=3))))


def error_averaged(x_hat, x):
    return reference.reconstruction_error(x_hat, x) / x[0].numel()


def error_of_the_batch(x_hat, x):
    return reference.reconstruction_error(x_hat, x).sum()


def error_averaged_over_the_batch(x_hat, x):
    return reference.reconstruction_error(x_hat, x).mean()


def error_with_signs(x_hat, x):
    return (x_hat - x).flatten(1).sum(1)


def error_without_padding(x_hat, x):
    return error_without_edges(x_hat, x) + .5 * edges_of(x_hat - x)


def error_by_convolution(x_hat, x):
    off, step = (x_hat - x).flatten(0, 1)[:, None], torch.tensor([-1., 1.])
    edges = sum(F.conv2d(off, step.view(shape)).abs().view(len(x), -1).sum(1)
                for shape in ((1, 1, 2, 1), (1, 1, 1, 2)))
    return F.l1_loss(x_hat, x, reduction="none").sum((1, 2, 3)) + edges / 2


def error_by_l1_norms(x_hat, x):
    off = x_hat - x
    below, right = off[:, :, 1:] - off[:, :, :-1], off[..., 1:] - off[..., :-1]
    return sum(weight * v.flatten(1).norm(p=1, dim=1)
               for weight, v in ((1, off), (.5, below), (.5, right)))


# vae_loss

def parts_of(model, x, eps):
    mean, logvar = model.encode(x)
    x_hat = model.decode(reference.reparameterise(mean, logvar, eps))
    return reference.reconstruction_error(x_hat, x), reference.kl(mean, logvar), mean


def loss_weighing_the_error(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (kl_weight * error + cost).mean() / x[0].numel()


def loss_without_weight(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error + cost).mean() / x[0].numel()


def loss_without_kl(model, x, eps, kl_weight):
    return parts_of(model, x, eps)[0].mean() / x[0].numel()


def loss_subtracting(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error - kl_weight * cost).mean() / x[0].numel()


def loss_dividing_the_error_only(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return error.mean() / x[0].numel() + kl_weight * cost.mean()


def loss_not_divided(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error + kl_weight * cost).mean()


def loss_of_two_means(model, x, eps, kl_weight):
    error, cost, mean = parts_of(model, x, eps)
    return (error / x[0].numel() + kl_weight * cost / mean[0].numel()).mean()


def loss_summed_over_the_batch(model, x, eps, kl_weight):
    return reference.vae_loss(model, x, eps, kl_weight) * len(x)


def loss_at_the_mean(model, x, eps, kl_weight):
    mean, logvar = model.encode(x)
    error = reference.reconstruction_error(model.decode(mean), x)
    return (error + kl_weight * reference.kl(mean, logvar)).mean() / x[0].numel()


def loss_with_the_kl_averaged(model, x, eps, kl_weight):
    error, cost, mean = parts_of(model, x, eps)
    return (error + kl_weight * cost / mean[0].numel()).mean() / x[0].numel()


def loss_divided_by_the_batch(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error + kl_weight * cost).mean() / x.numel()


def loss_with_noise_of_its_own(model, x, eps, kl_weight):
    return reference.vae_loss(model, x, torch.randn_like(eps), kl_weight)


def loss_with_the_kl_of_the_draw(model, x, eps, kl_weight):
    mean, logvar = model.encode(x)
    z = reference.reparameterise(mean, logvar, eps)
    error = reference.reconstruction_error(model.decode(z), x)
    return (error + kl_weight * reference.kl(z, logvar)).mean() / x[0].numel()


def loss_by_l1(model, x, eps, kl_weight):
    mean, logvar = model.encode(x)
    x_hat = model.decode(reference.reparameterise(mean, logvar, eps))
    return F.l1_loss(x_hat, x) + kl_weight * reference.kl(mean, logvar).mean() / x[0].numel()


def loss_for_each_picture(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error + kl_weight * cost) / x[0].numel()


def loss_with_a_code_cut_off(model, x, eps, kl_weight):
    mean, logvar = model.encode(x)
    z = reference.reparameterise(mean, logvar, eps).detach()
    error = reference.reconstruction_error(model.decode(z), x)
    return (error + kl_weight * reference.kl(mean, logvar)).mean() / x[0].numel()


def loss_with_a_kl_cut_off(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error + kl_weight * cost.detach()).mean() / x[0].numel()


def loss_as_a_number(model, x, eps, kl_weight):
    return reference.vae_loss(model, x, eps, kl_weight).item()


def loss_in_one_division(model, x, eps, kl_weight):
    error, cost, _ = parts_of(model, x, eps)
    return (error.sum() + kl_weight * cost.sum()) / x.numel()


def loss_term_by_term(model, x, eps, kl_weight):
    n = x.shape[1] * x.shape[2] * x.shape[3]
    return sum((error + kl_weight * cost) / n
               for error, cost in zip(*parts_of(model, x, eps)[:2], strict=True)) / len(x)


# Encoder.forward

def sampled(net, x, mid=True):
    x = net.conv_in(x)
    for block in net.down_blocks:
        x = block(x)
    return net.mid_block(x) if mid else x


def encoder_without_mid_block(self, x):
    return self.conv_out(F.silu(self.conv_norm_out(sampled(self, x, mid=False))))


def encoder_silu_first(self, x):
    return self.conv_out(self.conv_norm_out(F.silu(sampled(self, x))))


def encoder_without_silu(self, x):
    return self.conv_out(self.conv_norm_out(sampled(self, x)))


def encoder_without_norm(self, x):
    return self.conv_out(F.silu(sampled(self, x)))


def encoder_silu_last(self, x):
    return F.silu(self.conv_out(self.conv_norm_out(sampled(self, x))))


def encoder_without_conv_out(self, x):
    return F.silu(self.conv_norm_out(sampled(self, x)))


def encoder_upside_down(self, x):
    x = self.mid_block(self.conv_in(x))
    for block in self.down_blocks:
        x = block(x)
    return self.conv_out(F.silu(self.conv_norm_out(x)))


def encoder_in_a_sequence(self, x):
    ends = torch.nn.SiLU(), self.conv_out
    return torch.nn.Sequential(self.conv_in, *self.down_blocks, self.mid_block,
                               self.conv_norm_out, *ends)(x)


def encoder_with_its_own_silu(self, x):
    y = self.conv_norm_out(sampled(self, x))
    return self.conv_out(y * torch.sigmoid(y))


# VAE.encode

def refused(self, x):
    if x.ndim != 4 or x.shape[1] != 3 or any(s % self.factor for s in x.shape[2:]):
        raise ValueError(f"expected (b,3,h,w) divisible by {self.factor}, got {tuple(x.shape)}")
    return self.quant_conv(self.encoder(x))


def encode_without_clamp(self, x):
    return refused(self, x).chunk(2, dim=1)


def encode_swapped(self, x):
    a, b = refused(self, x).chunk(2, dim=1)
    return b, a.clamp(-30, 20)


def encode_swapped_at_the_end(self, x):
    return reference.VAE.encode(self, x)[::-1]


def encode_clamping_both(self, x):
    return refused(self, x).clamp(-30, 20).chunk(2, dim=1)


def encode_clamping_below(self, x):
    a, b = refused(self, x).chunk(2, dim=1)
    return a, b.clamp(min=-30)


def encode_without_quant_conv(self, x):
    refused(self, x)
    a, b = self.encoder(x).chunk(2, dim=1)
    return a, b.clamp(-30, 20)


def encode_interleaved(self, x):
    moments = refused(self, x)
    return moments[:, ::2], moments[:, 1::2].clamp(-30, 20)


def encode_to_the_variance(self, x):
    mean, logvar = reference.VAE.encode(self, x)
    return mean, logvar.exp()


def encode_cut_along(dim):
    def encode(self, x):
        a, b = refused(self, x).chunk(2, dim=dim)
        return a, b.clamp(-30, 20)
    return encode


def encode_uncut(self, x):
    return refused(self, x)


def encode_anything(self, x):
    mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
    return mean, logvar.clamp(-30, 20)


def encode_dividing_by_eight(self, x):
    if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % 8 or x.shape[3] % 8:
        raise ValueError(f"expected (b,3,h,w) divisible by 8, got {tuple(x.shape)}")
    return encode_anything(self, x)


def encode_by_assertion(self, x):
    assert x.ndim == 4 and x.shape[1] == 3 and not any(s % self.factor for s in x.shape[2:])
    return encode_anything(self, x)


def encode_any_size(self, x):
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"expected (b,3,h,w), got {tuple(x.shape)}")
    return encode_anything(self, x)


def encode_refusing_without_words(self, x):
    try:
        return refused(self, x)[:, :2], refused(self, x)[:, 2:].clamp(-30, 20)
    except ValueError:
        raise ValueError from None


def encode_by_slices(self, x):
    moments, c = refused(self, x), self.post_quant_conv.in_channels
    return moments[:, :c], moments[:, c:].clamp(-30, 20)


def encode_by_split(self, x):
    moments = refused(self, x)
    mean, logvar = torch.split(moments, moments.shape[1] // 2, dim=1)
    return [mean, torch.clamp(logvar, -30., 20.)]


# VAE.decode

def checked(self, z):
    if z.ndim != 4 or z.shape[1] != self.post_quant_conv.in_channels:
        raise ValueError(f"expected a latent of {self.post_quant_conv.in_channels} channels, "
                         f"got {tuple(z.shape)}")
    return z


def decode_without_post_quant_conv(self, z):
    return self.decoder(checked(self, z))


def decode_clamped(self, z):
    return reference.VAE.decode(self, z).clamp(-1, 1)


def decode_through_tanh(self, z):
    return reference.VAE.decode(self, z).tanh()


def decode_unscaling(self, z):
    return reference.VAE.decode(self, z / self.scaling_factor)


def decode_to_shown(self, z):
    return (reference.VAE.decode(self, z) + 1) / 2


def decode_anything(self, z):
    return self.decoder(self.post_quant_conv(z))


def decode_refusing_channels_only(self, z):
    if z.shape[-3] != self.post_quant_conv.in_channels:
        raise ValueError(f"not a latent: {tuple(z.shape)}")
    return decode_anything(self, z)


def decode_refusing_the_second_axis_only(self, z):
    if z.shape[1] != self.post_quant_conv.in_channels:
        raise ValueError(f"not a latent: {tuple(z.shape)}")
    return decode_anything(self, z)


def decode_of_four_channels(self, z):
    if z.ndim != 4 or z.shape[1] != 4:
        raise ValueError(f"not a latent: {tuple(z.shape)}")
    return decode_anything(self, z)


def decode_in_two_lines(self, z):
    z = self.post_quant_conv(checked(self, z))
    return self.decoder.forward(z)


def decode_a_picture_at_a_time(self, z):
    checked(self, z)
    return torch.cat([decode_anything(self, one[None]) for one in z])


# scaling_factor

def factor_as_spread(z):
    return float(z.std())


def factor_by_variance(z):
    return 1 / float(z.var())


def factor_by_channels(z):
    return float(1 / z.std((0, 2, 3)).mean())


def factor_by_mean_square(z):
    return float(1 / z.square().mean().sqrt())


def factor_of_the_first(z):
    return float(1 / z[0].std())


def factor_by_the_largest(z):
    return float(1 / z.abs().max())


def factor_for_each_channel(z):
    return 1 / z.std((0, 2, 3))


def factor_times_latents(z):
    return z / z.std()


def factor_averaged_over_pictures(z):
    return float(1 / z.flatten(1).std(1).mean())


def factors_averaged_over_channels(z):
    return float((1 / z.std((0, 2, 3))).mean())


def factor_as_a_tensor(z):
    return 1 / z.std()


def factor_by_var(z):
    return float(z.double().var()) ** -.5


def factor_by_hand(z):
    return float((z - z.mean()).square().mean().rsqrt())


WRONG = {
    "reparameterise": [
        (draw_with_variance, "is the variance"), (draw_with_the_logarithm, "take its exponential"),
        (draw_of_spread_one, "unit standard deviation"),
        (draw_that_stretches_the_mean, "stretched too"), (draw_swapped, "swapped"),
        (draw_of_the_mean, "eps is not used"),
        (draw_with_noise_of_its_own, "noise of its own"),
        (draw_with_a_root_of_the_logarithm, "NaN or infinite"),
        (draw_detached, "no gradient"), (draw_with_a_spread_that_cannot_learn, "no gradient")],
    "kl": [
        (kl_without_the_half, "factor 1/2"), (kl_with_the_sign_turned, "never negative"),
        (kl_averaged_over_a_latent, "mean over a latent"), (kl_of_the_batch, "one number for the"),
        (kl_averaged_over_the_batch, "mean over the batch"),
        (kl_averaged_over_everything, "mean over everything"),
        (kl_summed_over_the_batch, "sums over the batch"), (kl_without_the_one, "-1 is missing"),
        (kl_without_the_mean, "squared mean is missing"),
        (kl_with_log_of_deviation, "of the VARIANCE"),
        (kl_with_deviation_for_variance, "where the variance belongs"),
        (kl_with_a_whole_logarithm, "the logarithm too"),
        (kl_with_the_logarithm_turned, "sign of the logarithm"),
        (kl_with_one_one, "once for each number"),
        (kl_with_a_variance_in_the_middle, "The middle term"),
        (kl_without_the_logarithm, "log sigma^2 is missing"),
        (kl_with_half_a_logarithm, "half of the logarithm"),
        (kl_the_other_way_round, "other way round"), (kl_of_each_number, "has shape")],
    "reconstruction_error": [
        (error_without_edges, "edges are missing"), (error_with_whole_edges, "count half"),
        (error_of_edges_alone, "Only the edges"), (error_squared, "These are squares"),
        (error_with_edges_below, "Only neighbours below"),
        (error_with_edges_to_the_right, "Only neighbours to the right"),
        (error_with_edges_of_the_prediction, "x_hat alone"),
        (error_round_the_border, "beyond the border"),
        (error_with_padded_differences, "compared with zeros"),
        (error_over_channels, "compares colours"), (error_with_edges_of_sizes, "of |off|"),
        (error_with_edges_that_cancel, "and cancel"),
        (error_with_signed_edges, "keep their signs"),
        (error_between_strengths_of_edges, "how strong"),
        (error_with_a_quarter_of_the_edges, "a quarter"),
        (error_halved, "Only the edges count half"), (error_with_a_diff_of_a_diff, "One diff"),
        (error_of_means, "unequal counts"),
        (error_between_edge_sums, "summed first"), (error_averaged, "This is the mean"),
        (error_of_the_batch, "one number for the batch"),
        (error_averaged_over_the_batch, "mean over the batch"), (error_with_signs, "cancel")],
    "vae_loss": [
        (loss_weighing_the_error, "belongs to the KL"), (loss_without_weight, "is not used"),
        (loss_without_kl, "KL is missing"), (loss_subtracting, "subtracted"),
        (loss_dividing_the_error_only, "Only the error is divided"),
        (loss_not_divided, "not divided"), (loss_of_two_means, "in a LATENT"),
        (loss_summed_over_the_batch, "sums over the batch"),
        (loss_at_the_mean, "decodes the mean"), (loss_with_the_kl_averaged, "KL is averaged"),
        (loss_divided_by_the_batch, "the whole batch"),
        (loss_with_the_kl_of_the_draw, "`kl` got the drawn code"),
        (loss_with_noise_of_its_own, "noise was drawn"), (loss_by_l1, "edges and all"),
        (loss_for_each_picture, "one number"), (loss_as_a_number, "no gradient"),
        (loss_with_a_code_cut_off, "must both reach it"),
        (loss_with_a_kl_cut_off, "must both reach it")],
    "forward": [
        (encoder_without_mid_block, "mid_block is missing"),
        (encoder_silu_first, "before the norm"),
        (encoder_without_silu, "SiLU is missing"),
        (encoder_without_norm, "conv_norm_out is missing"),
        (encoder_silu_last, "after conv_out"),
        (encoder_without_conv_out, "conv_out is missing"), (encoder_upside_down, "RuntimeError")],
    "encode": [
        (encode_without_clamp, "not clamped"), (encode_swapped, "halves are swapped"),
        (encode_swapped_at_the_end, "after the clamp"), (encode_clamping_both, "a mean may be"),
        (encode_clamping_below, "clamped below only"),
        (encode_without_quant_conv, "quant_conv is missing"),
        (encode_interleaved, "every second channel"), (encode_to_the_variance, "its logarithm"),
        (encode_cut_along(0), "dim=0"), (encode_cut_along(2), "dim=2"),
        (encode_cut_along(3), "dim=3"), (encode_uncut, "one tensor"),
        (encode_anything, "ValueError"), (encode_dividing_by_eight, "not 8"),
        (encode_by_assertion, "by `assert`"),
        (encode_any_size, "height of 7"),
        (encode_refusing_without_words, "sentence")],
    "decode": [
        (decode_without_post_quant_conv, "post_quant_conv is missing"), (decode_clamped, "clamps"),
        (decode_through_tanh, "tanh"), (decode_unscaling, "divided out"),
        (decode_to_shown, "0..1"),
        (decode_of_four_channels, "latent of 2 channels"),
        (decode_anything, "from deep inside"),
        (decode_refusing_channels_only, "latent without batch"),
        (decode_refusing_the_second_axis_only, "latent without batch")],
    "scaling_factor": [
        (factor_as_spread, "standard deviation itself"), (factor_by_variance, "over the variance"),
        (factor_by_channels, "deviations of the channels"), (factor_by_mean_square, "mean square"),
        (factor_of_the_first, "first picture"),
        (factor_times_latents, "factor alone"),
        (factor_averaged_over_pictures, "averages over pictures"),
        (factors_averaged_over_channels, "channels' factors"),
        (factor_by_the_largest, "largest value"),
        (factor_for_each_channel, "has shape"), (factor_as_a_tensor, "plain number")],
}
RIGHT = {
    "reparameterise": [draw_with_a_root_of_the_variance, draw_with_addcmul],
    "kl": [kl_by_torch, kl_by_einsum, kl_as_kingma_writes_it],
    "reconstruction_error": [error_without_padding, error_by_convolution, error_by_l1_norms],
    "vae_loss": [loss_in_one_division, loss_term_by_term],
    "forward": [encoder_in_a_sequence, encoder_with_its_own_silu],
    "encode": [encode_by_slices, encode_by_split],
    "decode": [decode_in_two_lines, decode_a_picture_at_a_time],
    "scaling_factor": [factor_by_var, factor_by_hand],
}
