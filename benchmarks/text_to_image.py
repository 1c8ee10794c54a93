"""The parts of latent diffusion against diffusers' and transformers', and the whole call."""

import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextConfig, CLIPTextModel

from gligen_lessons import device, latent, weights
from gligen_lessons.clip import without_prefix
from gligen_lessons.eval.text_to_image import SHOWN

from .pairs import ratio


def no_grad(work):
    """The call without gradients, as sampling makes it."""
    def run():
        with torch.no_grad():
            return work()
    return run


def same(name: str, theirs, ours, rounds: int = 31) -> tuple:
    """A row of the table, after a look at whether both do the same."""
    difference = (theirs() - ours()).abs().max()
    if not difference < 1e-3:
        raise AssertionError(f"{name}: the two differ by {difference}.")
    return name, *ratio(theirs, ours, rounds)


def part_rows(batch: int = 8) -> list[tuple]:
    """The autoencoder's two halves and the text tower, with the shipped weights."""
    parts, where = weights.text_to_image(device.pick()), device.pick()
    vae = AutoencoderKL(**parts.vae.config).to(where).eval()
    vae.load_state_dict(parts.vae.state_dict())
    text = CLIPTextModel(CLIPTextConfig(**parts.text.config)).to(where).eval()
    named = without_prefix(dict.fromkeys(text.state_dict()))              # some versions prefix
    own = parts.text.state_dict()
    text.load_state_dict(dict(zip(text.state_dict(), (own[name] for name in named), strict=True)))
    g = device.generator(0)
    x, z = device.noise((batch, 3, 128, 128), g), device.noise((batch, 4, 16, 16), g)
    ids = parts.tokenizer(list(SHOWN)[:batch]).to(where)
    return [
        same("VAE encode", no_grad(lambda: vae.encode(x).latent_dist.mean),
             no_grad(lambda: parts.vae.encode(x)[0])),
        same("VAE decode", no_grad(lambda: vae.decode(z).sample),
             no_grad(lambda: parts.vae.decode(z))),
        same("CLIP text", no_grad(lambda: text(ids).last_hidden_state),
             no_grad(lambda: parts.text(ids)))]


def whole_rows(steps: int = 10, batch: int = 4) -> list[tuple]:
    """A caption to a picture, ours against the pipeline that opens the exported weights."""
    diffusers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        weights.export("ldm", Path(folder) / "ldm")
        pipe = StableDiffusionPipeline.from_pretrained(Path(folder) / "ldm", safety_checker=None)
    pipe = pipe.to(device.pick())
    pipe.set_progress_bar_config(disable=True)
    parts, captions = weights.text_to_image(device.pick()), list(SHOWN)[:batch]
    zT = parts.first_noise(batch, 0)

    def theirs():
        return pipe(captions, latents=zT.clone(), num_inference_steps=steps, guidance_scale=5.,
                    output_type="pt").images.cpu()

    def ours():
        return (latent.generate(parts, captions, steps=steps, guidance_scale=5.) + 1) / 2

    return [same(f"text to picture, {steps} guided steps", theirs, ours)]
