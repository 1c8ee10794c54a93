"""Our autoencoder against diffusers' AutoencoderKL, and the laws of Kingma's paper."""

import inspect

import pytest
import torch
from diffusers import AutoencoderKL
from oracles import draw, relative_error

from gligen_lessons import vae
from gligen_lessons.recipes.vae import LATENT_VAE
from gligen_lessons.vae import DEFAULTS, FIXED, VAE


def config(*widths: int, **keys) -> dict:
    return dict(block_out_channels=widths, norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * len(widths),
                up_block_types=("UpDecoderBlock2D",) * len(widths)) | keys


CASES = {
    "the course's": (LATENT_VAE, (32, 32)),
    "factor four, not square": (config(8, 16, 24), (20, 12)),
    "two layers, eight latent channels": (config(16, 8, layers_per_block=2, latent_channels=8),
                                          (6, 10)),
    "one level, grey pictures": (config(12, in_channels=1, out_channels=1), (5, 7)),
    "four levels, one norm group": (config(4, 6, 6, 8, norm_num_groups=1, latent_channels=3),
                                    (16, 24)),
}


def pair(keys: dict) -> tuple[VAE, AutoencoderKL]:
    """Our network and diffusers', of the same config with the same drawn weights."""
    ours, theirs = VAE(**keys), AutoencoderKL(**keys)
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def picture(keys: dict, size: tuple, dtype=torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, keys.get("in_channels", 3), *size, generator=g).to(dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@torch.no_grad()
def test_moments_and_pictures_are_those_of_diffusers(name, dtype, bound):
    keys, size = CASES[name]
    ours, theirs = (model.to(dtype) for model in pair(keys))
    x = picture(keys, size, dtype)
    mean, logvar = ours.encode(x)
    expected = theirs.encode(x).latent_dist
    assert .2 < float(expected.mean.std()) < 5 and mean.shape[2] == size[0] // ours.factor
    assert relative_error(mean, expected.mean) < bound
    assert relative_error(logvar, expected.logvar) < bound
    assert relative_error(ours.decode(mean), theirs.decode(mean).sample) < bound


@torch.no_grad()
def test_full_size_of_stable_diffusion():
    keys = config(128, 256, 512, 512, layers_per_block=2, norm_num_groups=32, sample_size=512)
    with torch.device("meta"):
        ours, theirs = VAE(**keys), AutoencoderKL(**keys)
    theirs.to_empty(device="cpu")
    draw(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == 83_653_863
    x = picture(keys, (16, 32))
    mean, logvar = ours.encode(x)
    expected = theirs.encode(x).latent_dist
    assert relative_error(mean, expected.mean) < 1e-5
    assert relative_error(logvar, expected.logvar) < 1e-5
    assert relative_error(ours.decode(mean), theirs.decode(mean).sample) < 1e-5


def test_state_dicts_go_both_ways():
    keys = CASES["two layers, eight latent channels"][0]
    ours, theirs = VAE(**keys), AutoencoderKL(**keys)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(ours.state_dict()[name], p) for name, p in theirs.state_dict().items())
    assert AutoencoderKL(**ours.config).config["latent_channels"] == 8


@torch.no_grad()
def test_every_parameter_changes_the_output():
    """Without this, parity would also hold for parts that neither network uses."""
    keys, size = CASES["factor four, not square"]
    ours, unnoticed = pair(keys)[0].double(), []
    x = picture(keys, size, torch.float64)
    before = torch.cat([y.flatten() for y in (*ours.encode(x), ours.decode(ours.encode(x)[0]))])
    for name, p in ours.named_parameters():
        kept = p.clone()
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * p.std())
        mean, logvar = ours.encode(x)
        after = torch.cat([y.flatten() for y in (mean, logvar, ours.decode(mean))])
        if relative_error(after, before) < 1e-8:
            unnoticed.append(name)
        p.copy_(kept)
    assert unnoticed == [name for name, _ in ours.named_parameters() if "to_k.bias" in name]


@torch.no_grad()
def test_a_wild_log_variance_is_clamped_as_in_diffusers():
    ours, theirs = pair(CASES["factor four, not square"][0])
    for model in (ours, theirs):
        model.quant_conv.bias.fill_(1e4)
    x = picture({}, (8, 8))
    assert float(ours.encode(x)[1].max()) == 20.
    assert torch.equal(ours.encode(x)[1], theirs.encode(x).latent_dist.logvar)


def test_kl_is_that_of_torch_and_zero_only_at_the_prior():
    g = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, 2, 5, generator=g, dtype=torch.float64).unbind(0)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0., 1.))
    assert torch.allclose(vae.kl(mean, logvar), expected.sum((1, 2, 3)), rtol=1e-12)
    assert float(vae.kl(0 * mean, 0 * logvar).abs().max()) == 0


def test_reparameterised_samples_have_the_moments_and_carry_gradients():
    mean = torch.full((1, 2, 1, 1), .7, requires_grad=True)
    logvar = torch.full((1, 2, 1, 1), -1.2, requires_grad=True)
    eps = torch.randn(40_000, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    z = vae.reparameterise(mean, logvar, eps)
    assert abs(z.mean().item() - .7) < .01 and abs(z.var().item() - .301194) < .01
    z.mean().backward()
    assert mean.grad.abs().min() > 0 and logvar.grad.abs().sum() > 0


def test_reconstruction_error_counts_edges_on_a_picture_worked_by_hand():
    x = torch.zeros(1, 1, 2, 3)
    x_hat = torch.tensor([[[[0., 1., 0.], [0., 0., 0.]]]])
    # off by 1 in one pixel; one edge below it, one to each side: 1 + (1 + 2) / 2
    assert float(vae.reconstruction_error(x_hat, x)) == 2.5
    assert float(vae.reconstruction_error(x + .3, x)) == pytest.approx(6 * .3)      # no edge


def test_the_loss_is_the_sum_of_its_two_parts_for_each_number():
    keys = CASES["factor four, not square"][0]
    model, x = pair(keys)[0], picture(keys, (8, 12))
    eps = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(3))
    mean, logvar = model.encode(x)
    x_hat = model.decode(mean + (logvar / 2).exp() * eps)
    expected = sum((vae.reconstruction_error(x_hat[i:i + 1], x[i:i + 1])
                    + .3 * vae.kl(mean[i:i + 1], logvar[i:i + 1])).item() for i in (0, 1)) / 2 / 288
    assert vae.vae_loss(model, x, eps, .3).item() == pytest.approx(expected, rel=1e-5)


def test_the_scaling_factor_makes_the_spread_one():
    z = 3 + 7 * torch.randn(50, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert float((vae.scaling_factor(z) * z).std()) == pytest.approx(1, rel=1e-5)


def test_tables_of_keys_are_those_of_diffusers():
    signature = inspect.signature(AutoencoderKL.__init__).parameters
    theirs = {key: value.default for key, value in signature.items() if key != "self"}
    assert theirs == DEFAULTS | FIXED


@pytest.mark.parametrize("keys, words", [
    (dict(block_out_chanels=(8,)), "'block_out_chanels' is not a key of AutoencoderKL"),
    (dict(shift_factor=.1), "shift_factor=0.1 is not implemented"),
    (dict(down_block_types=("DownEncoderBlock2D",)), "down_block_types must be"),
    (dict(up_block_types=("AttnUpDecoderBlock2D",) * 3), "up_block_types must be"),
    (dict(norm_num_groups=5), "norm_num_groups=5"),
])
def test_a_config_that_does_not_fit_is_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        VAE(**config(8, 16, 24) | keys)


@pytest.mark.parametrize("shape", [(2, 3, 8, 10), (2, 1, 8, 8), (3, 8, 8)])
def test_pictures_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="divisible by 4, got shape"):
        VAE(**config(8, 16, 24)).encode(torch.zeros(shape))


def test_latents_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"A latent must be \(b,4,h,w\), got shape \(2, 3, 4, 4\)"):
        VAE(**config(8, 16, 24)).decode(torch.zeros(2, 3, 4, 4))
