"""DiffEdit against diffusers' pipeline, and Prompt-to-Prompt against sampling without control."""

import importlib
import tempfile
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging

from gligen_lessons import device, latent, weights
from gligen_lessons.datasets.edits import EditCase, edit_cases
from gligen_lessons.diffedit import RATIO, clean_latents, edit_pictures, encode_levels, steps_at
from gligen_lessons.guidance import classifier_free
from gligen_lessons.prompt2prompt import edit_prompts
from gligen_lessons.sdedit import decode

from .pairs import ratio

DIFFEDIT = "diffusers.pipelines.deprecated.stable_diffusion_diffedit"
STEPS, SCALE = 30, 5.
BASE, EDIT = "a red car on the grass by day", "a blue car on the grass by day"


def pipeline():
    """Diffusers' DiffEdit around the exported weights."""
    diffusers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        exported = weights.export("ldm", Path(folder) / "ldm")
        plain = StableDiffusionPipeline.from_pretrained(exported, safety_checker=None)
    kind = importlib.import_module(DIFFEDIT).StableDiffusionDiffEditPipeline
    made = kind(plain.vae, plain.text_encoder, plain.tokenizer, plain.unet, plain.scheduler, None,
                None, DDIMInverseScheduler.from_config(plain.scheduler.config), False)
    made.set_progress_bar_config(disable=True)
    return made.to(device.pick())


@torch.no_grad()
def check_same(pipe, parts, case: EditCase) -> None:
    """AssertionError where two edits differ that should not: then their times say nothing.

    From one latent (theirs draws another one from a picture), with a mask of everything: outside
    of a mask theirs blends with the latent of another level.
    """
    z0, null = clean_latents(parts, case.before[None]), parts.context([""])
    levels = encode_levels(lambda zt, t: parts.unet(zt, t, null), z0, parts.schedule, STEPS,
                           steps_at(RATIO, STEPS))
    codes = pipe.invert("", z0, STEPS, RATIO, guidance_scale=1.).latents
    model = classifier_free(parts.unet, parts.context([case.query]), null, SCALE)
    everything = torch.ones(1, 1, *z0.shape[2:], device=z0.device)
    theirs = pipe(case.query, everything, codes, RATIO, STEPS, guidance_scale=SCALE,
                  output_type="latent").images
    for what, a, b in (("codes", codes[0], torch.cat(levels[:0:-1])),
                       ("edits", theirs, decode(model, levels, parts.schedule, STEPS))):
        if not (difference := (a - b).abs().max()) < 1e-2:
            raise AssertionError(f"DiffEdit: the {what} of the two differ by {difference}.")


def whole_row(rounds: int = 9) -> tuple:
    """A picture to its edit: mask, inversion and decoding, as each library does them."""
    pipe, parts = pipeline(), weights.text_to_image(device.pick())
    case, = edit_cases("recolour", 1, plain=True)
    check_same(pipe, parts, case)
    x = case.before[None].to(device.pick())
    shown = (x + 1) / 2                                     # as theirs wants pictures

    def theirs():
        g = device.generator(0)
        mask = pipe.generate_mask(shown, case.query, source_prompt=case.reference, generator=g,
                                  num_inference_steps=STEPS, guidance_scale=SCALE)
        codes = pipe.invert("", shown, STEPS, RATIO, guidance_scale=1., generator=g).latents
        return pipe(case.query, mask, codes, RATIO, STEPS, guidance_scale=SCALE,
                    output_type="pt").images.cpu()

    def ours():
        return edit_pictures(parts, x, [case.reference], [case.query], steps=STEPS,
                             guidance_scale=SCALE).x.cpu()

    return f"DiffEdit, {STEPS} steps", *ratio(theirs, ours, rounds)


def control_row(rounds: int = 9) -> tuple:
    """Two captions under Prompt-to-Prompt's control, against the same two without it."""
    parts = weights.text_to_image(device.pick())
    zT = parts.first_noise(1, 0)

    def plain():
        *_, (_, z) = latent.sample_latents(parts, [BASE, EDIT], torch.cat([zT, zT]), STEPS, SCALE)
        with torch.no_grad():
            return latent.to_pictures(parts.vae, z).cpu()

    def controlled():
        return torch.cat(edit_prompts(parts, [BASE], [EDIT], 0, SCALE, steps=STEPS))

    if not (difference := (plain()[0] - controlled()[0]).abs().max()) < 1e-2:
        raise AssertionError(f"Prompt-to-Prompt: the base differs by {difference}.")
    return f"Prompt-to-Prompt over plain, {STEPS} steps", *ratio(plain, controlled, rounds)
