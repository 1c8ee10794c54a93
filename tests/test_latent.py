"""Text to picture: our loop against diffusers' StableDiffusionPipeline, and the export to it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import draw, published, relative_error

from gligen_lessons import cli, ddim, latent, state_dicts, vae, weights
from gligen_lessons.clip import TextModel
from gligen_lessons.interop import export_diffusers
from gligen_lessons.latent import TextToImage
from gligen_lessons.nets import attention_map, head_mean, record_attention
from gligen_lessons.recipes.clip import config as clip_config
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet
from gligen_lessons.vae import VAE

CAPTIONS = ["a red car on the snow at night", "two cats", ""]
GUIDED = dict(steps=20, guidance_scale=5.)
SMALL_UNET = dict(
    sample_size=8, layers_per_block=1, block_out_channels=(16, 24), norm_num_groups=8,
    cross_attention_dim=16, attention_head_dim=2,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
SMALL_VAE = dict(
    block_out_channels=(8, 16), norm_num_groups=4, sample_size=16, scaling_factor=.37,
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)


def small_parts() -> TextToImage:
    """A whole text-to-image model of small networks with drawn weights.

    The U-Net's last layer is weak, so that the walk stays near its noise, as a trained one's.
    """
    read = weights.tokenizer()
    text = clip_config(read)["text_config"] | dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=16)
    made = VAE(**SMALL_VAE), TextModel(**text), UNet(**SMALL_UNET)
    for seed, model in enumerate(made):
        draw(model, seed)
        model.eval().requires_grad_(False)
    made[2].conv_out.weight.mul_(.5)
    for name, p in made[2].named_parameters():
        if "attn2.to_out" in name:
            p.mul_(10.)                                   # words must matter
    return TextToImage(*made, read, Schedule.scaled_linear())


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.fixture(scope="module")
def pipeline(parts, tmp_path_factory):
    return published("StableDiffusionPipeline", parts,
                     tmp_path_factory.mktemp("export") / "pipeline")


def theirs_of(pipeline, captions, zT, kind="latent", **options):
    options = dict(num_inference_steps=options.pop("steps"), **options)
    return pipeline(captions, latents=zT.clone(), output_type=kind, **options).images


@pytest.mark.parametrize("options", [
    GUIDED, GUIDED | dict(guidance_scale=1.), GUIDED | dict(steps=7, guidance_scale=9.),
], ids=["guided", "not guided", "steps that do not divide T"])
@torch.no_grad()
def test_a_walk_is_that_of_the_pipeline(parts, pipeline, options):
    zT = parts.first_noise(3, seed=3)
    expected = theirs_of(pipeline, CAPTIONS, zT, **options)
    *_, (t, z0) = latent.sample_latents(parts, CAPTIONS, zT, **options)
    assert t == 1 and relative_error(z0, expected) < 1e-4
    assert relative_error(expected, theirs_of(pipeline, CAPTIONS[::-1], zT, **options)) > 1e-2


@torch.no_grad()
def test_pictures_are_those_of_the_pipeline(parts, pipeline):
    expected = theirs_of(pipeline, CAPTIONS, parts.first_noise(3, seed=3), "pt", **GUIDED)
    ours = (latent.generate(parts, CAPTIONS, seed=3, **GUIDED) + 1) / 2
    assert relative_error(ours, expected) < 1e-4 and float(expected.std()) > .1


@torch.no_grad()
def test_a_negative_prompt_is_that_of_the_pipeline(parts, pipeline):
    zT = parts.first_noise(1, seed=0)
    expected = theirs_of(pipeline, CAPTIONS[:1], zT, negative_prompt=["night"], **GUIDED)
    *_, (_, z0) = latent.sample_latents(parts, CAPTIONS[:1], zT, negative="night", **GUIDED)
    assert relative_error(z0, expected) < 1e-4
    assert relative_error(theirs_of(pipeline, CAPTIONS[:1], zT, **GUIDED), expected) > 1e-3


@torch.no_grad()
def test_text_states_are_those_of_the_pipeline(parts, pipeline):
    cond, null = pipeline.encode_prompt(CAPTIONS, "cpu", 1, True, negative_prompt=[""] * 3)
    assert relative_error(parts.context(CAPTIONS), cond) < 1e-5
    assert relative_error(parts.context([""] * 3), null) < 1e-5


@torch.no_grad()
def test_the_walk_is_the_one_that_was_frozen(parts):
    """Golden: the pipeline's latents, from diffusers 0.42.1, should it ever change or go."""
    frozen = json.loads((Path(__file__).parent / "golden" / "text_to_image.json").read_text())
    *_, (_, z0) = latent.sample_latents(parts, CAPTIONS, parts.first_noise(3, seed=3), **GUIDED)
    assert relative_error(z0.flatten()[::29], torch.tensor(frozen["latents"])) < 1e-4


@torch.no_grad()
def test_latents_have_spread_one_and_come_back(parts):
    x = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    eps = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    mean, logvar = parts.vae.encode(x)
    z0 = latent.to_latents(parts.vae, x, eps)
    assert torch.allclose(z0, .37 * (mean + (logvar / 2).exp() * eps), rtol=1e-5, atol=1e-6)
    expected = parts.vae.decode(vae.reparameterise(mean, logvar, eps)).clamp(-1, 1)
    assert torch.allclose(latent.to_pictures(parts.vae, z0), expected, atol=1e-4)


@torch.no_grad()
def test_the_loss_compares_noise_with_its_prediction_in_context(parts):
    z0, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(1)
    t, context = torch.tensor([10, 900]), parts.context(CAPTIONS[:2])
    alpha_bar = parts.schedule.alpha_bar[t].view(2, 1, 1, 1)
    zt = (alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps).float()
    expected = (parts.unet(zt, t, context) - eps).square().mean()
    got = latent.l_ldm(parts.unet, z0, t, eps, context, parts.schedule)
    assert float(got) == pytest.approx(float(expected), rel=1e-4)
    other = latent.l_ldm(parts.unet, z0, t, eps, context.flip(0), parts.schedule)
    assert abs(float(other - got)) > 1e-4


def test_a_seed_means_one_picture_however_many_are_drawn(parts):
    assert torch.equal(parts.first_noise(3, 5)[1:], parts.first_noise(2, 6))
    both = latent.generate(parts, CAPTIONS[:1] * 2, seed=4, steps=3)
    alone = latent.generate(parts, CAPTIONS[:1], seed=5, steps=3)
    assert torch.allclose(both[1:], alone, atol=1e-5)


@torch.no_grad()
def test_recorded_maps_are_what_the_network_computes(parts):
    """The map times the values is the layer's output, before its last projection."""
    zT, t = parts.first_noise(2, 0), torch.tensor([500, 500])
    context = parts.context(CAPTIONS[:2])
    layers = latent.cross_attentions(parts.unet)
    with record_attention(layers, head_mean(attention_map)) as maps:
        out = parts.unet(zT, t, context)
    assert torch.equal(out, parts.unet(zT, t, context))          # recording changes nothing
    assert len(maps) == 4 and {len(calls) for calls in maps.values()} == {1}
    for calls in maps.values():
        assert torch.allclose(calls[0].sum(-1), torch.ones(()), atol=1e-5)
    layer = parts.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    p = attention_map(layer, x, context)                  # (b,k,5,n)
    v = layer.to_v(context).unflatten(2, (2, -1)).transpose(1, 2)
    y = layer.to_out[0]((p @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(y, layer(x, context), atol=1e-5)
    assert not parts.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2._forward_hooks


def test_token_maps_turn_pixels_into_pictures():
    one = torch.zeros(1, 6 * 6, 3)
    one[0, 7, 2] = 1.                                            # row 1, column 1 looks at word 2
    maps = latent.token_maps({"a": [one, 0 * one], "b": [torch.ones(1, 9, 3)]}, 6)
    assert maps.shape == (1, 3, 6, 6) and float(maps[0, 2, 1, 1]) == .5 and float(maps.sum()) == .5
    with pytest.raises(ValueError, match=r"No recorded layer has 4 x 4 pixels, .* \[3, 6\]"):
        latent.token_maps({"a": [one], "b": [torch.ones(1, 9, 3)]}, 4)


@pytest.mark.parametrize("change, error, words", [
    (dict(steps=0), ValueError, "must lie in 1..999, got 0"),
    (dict(steps=1000), ValueError, "must lie in 1..999, got 1000"),
    (dict(steps=2.5), TypeError, "whole number, got 2.5"),
    (dict(guidance_scale=-1.), ValueError, "at least 0"),
    (dict(guidance_scale=math.nan), ValueError, "finite"),
    (dict(zT=torch.zeros(2, 4, 8, 8)), ValueError, r"zT must be \(3,4,h,w\)"),
    (dict(zT=torch.zeros(3, 8, 8)), ValueError, r"got shape \(3, 8, 8\)"),
    (dict(captions="a red car"), TypeError, "a list of captions"),
])
def test_bad_wishes_are_refused_before_anything_is_painted(parts, change, error, words):
    given = dict(captions=CAPTIONS, zT=parts.first_noise(3, 0)) | change
    if isinstance(given["captions"], str):
        given["zT"] = parts.first_noise(len(given["captions"]), 0)
    with pytest.raises(error, match=words):
        latent.sample_latents(parts, **given)


@pytest.mark.parametrize("seed, error", [(1.5, TypeError), ("3", TypeError), (True, TypeError),
                                         (-1, ValueError)])
def test_a_seed_is_a_whole_number(parts, seed, error):
    with pytest.raises(error, match="A seed must"):
        latent.generate(parts, CAPTIONS, seed=seed)


def test_more_randomness_needs_a_generator_and_follows_it(parts):
    trajectories = [latent.generate(parts, CAPTIONS[:1], steps=4, eta=1.,
                                    generator=torch.Generator().manual_seed(seed))
                    for seed in (1, 1, 2)]
    assert torch.equal(trajectories[0], trajectories[1]) and not torch.equal(trajectories[0],
                                                                             trajectories[2])


@torch.no_grad()
def test_stable_diffusion_ends_at_the_first_alpha_bar(parts):
    """Guards the two conventions of the walk: an offset of 1 and an end that is not clean."""
    zT, schedule = parts.first_noise(3, 0), parts.schedule
    *_, (_, ours) = latent.sample_latents(parts, CAPTIONS, zT, steps=5, guidance_scale=1.)
    context = parts.context(CAPTIONS)
    *_, (_, clean) = ddim.sample(lambda z, t: parts.unet(z, t, context), zT, schedule, 5, offset=1)
    assert 1e-4 < relative_error(ours, clean) < .5


# ------------------------------------------------------------------------------------ export

@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return weights.export("ldm", tmp_path_factory.mktemp("shipped") / "ldm")


@torch.no_grad()
def test_the_shipped_weights_paint_the_same_picture_in_diffusers(exported):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(exported, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    shipped = weights.text_to_image()
    expected = theirs_of(pipe, CAPTIONS[:1], shipped.first_noise(1, 0), "pt", **GUIDED)
    ours = latent.generate(shipped, CAPTIONS[:1], seed=0, **GUIDED)
    assert float(((ours + 1) / 2 - expected).abs().max()) < 1e-4


def test_an_export_never_touches_a_folder_that_holds_something(exported, tmp_path):
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        weights.export("ldm", exported)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        weights.export("ldm", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in exported.parent.iterdir()) == ["ldm"]        # no leftovers


def test_only_pipelines_are_exported(tmp_path):
    with pytest.raises(ValueError, match="'clip' is no pipeline of diffusers"):
        weights.export("clip", tmp_path / "x")
    with pytest.raises(ValueError, match="There is no model 'sd'"):
        weights.export("sd", tmp_path / "x")
    assert not any(tmp_path.iterdir())


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(parts, folder):
        folder.mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(export_diffusers, "write_pipeline", fail)
    with pytest.raises(OSError, match="No space"):
        weights.export("ldm", tmp_path / "ldm")
    assert not any(tmp_path.iterdir())


def test_weights_of_another_config_name_the_first_difference():
    other = UNet(**SMALL_UNET | dict(block_out_channels=(16, 32)))
    with pytest.raises(ValueError, match=r"x does not fit .* is \(32,\) in the file and \(24,\)"):
        state_dicts.fill(UNet(**SMALL_UNET), other.state_dict(), "x")
    with pytest.raises(ValueError, match=r"conv_in.bias is none in the file and \(16,\)"):
        state_dicts.fill(UNet(**SMALL_UNET), {}, "x")


@pytest.mark.parametrize("seed, error, says", [
    (2 ** 32, ValueError, r"A seed must be .* less than 2\*\*32, got 4294967296"),
    (2 ** 64, ValueError, "less than"), (-1, ValueError, "must be at least 0 .* got -1"),
    (2 ** 32 - 1, ValueError, "got 4294967296"), (True, TypeError, "whole number, got True")])
def test_a_seed_that_torch_would_take_for_another_is_refused(parts, seed, error, says):
    """Its CPU generator reads 32 bits, so 2**32 painted the picture of seed 0."""
    with pytest.raises(error, match=says):
        parts.first_noise(2, seed)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_seeds_and_steps_are_whole_numbers_of_any_kind(parts, kind):
    want = latent.generate(parts, CAPTIONS[:1], seed=3, steps=2)
    assert torch.equal(latent.generate(parts, CAPTIONS[:1], seed=kind(3), steps=kind(2)), want)


def test_a_scale_that_overflows_writes_no_picture(tmp_path, capsys):
    out = tmp_path / "a.png"
    words = ["generate", "a car", "--steps", "1", "--scale", "1e30", "--out", str(out)]
    assert cli.main(words) == 2 and not out.exists()
    assert "error: A picture holds NaN or infinity" in capsys.readouterr().err
