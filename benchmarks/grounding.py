"""GLIGEN: a gated step, a training step of the gates, and whole grounded pictures."""

import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionGLIGENPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging

from gligen_lessons import device, weights
from gligen_lessons.gligen import LIMIT, Grounding, freeze, gate_names, ground
from gligen_lessons.grounded import sample_grounded
from gligen_lessons.latent import to_pictures

from .nets import inputs
from .pairs import ratio
from .text_to_image import no_grad, same

RATE = 1e-3
CAPTION, PHRASES = "a red car beside a tree", ["a red car", "a tree"]
BOXES = [[.1, .5, .5, .9], [.6, .2, .9, .8]]


def twins():
    """Diffusers' gated network and ours with the shipped weights, only the gates learning."""
    ours = weights.load("gligen", device.pick())
    theirs = UNet2DConditionModel(attention_type="gated", **ours.config).to(device.pick())
    theirs.load_state_dict(ours.state_dict())
    learning = set(gate_names(ours))
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(name in learning)
    return theirs.eval(), freeze(ours)


def some_grounding(batch: int, d: int) -> Grounding:
    """Two to five boxes a picture, in all slots that there are."""
    g = device.generator(1)
    corners = torch.rand(batch, LIMIT, 2, 2, generator=g).sort(2).values.flatten(2)
    used = torch.arange(LIMIT) < torch.randint(2, 6, (batch, 1), generator=g)
    features = torch.randn(batch, LIMIT, d, generator=g)
    return Grounding(corners, used.float(), features).each(lambda x: x.to(device.pick()))


def step_rows(batch: int = 8) -> list[tuple]:
    """One look of both networks, and one step of AdamW on the gates alone."""
    theirs, ours = twins()
    xt, t, _ = inputs(ours.config, batch)
    context = device.noise((batch, 40, ours.context_width), device.generator(2))
    grounding = some_grounding(batch, ours.context_width)
    told = {"gligen": {"boxes": grounding.boxes, "masks": grounding.masks,
                       "positive_embeddings": grounding.features}}

    def their_run():
        return theirs(xt, t, encoder_hidden_states=context, cross_attention_kwargs=told).sample

    def our_run():
        return ours(xt, t, context, grounding)

    look = same("gated U-Net, sampling step", no_grad(their_run), no_grad(our_run))
    return [look, ("gates, training step", *ratio(learning_step(theirs, their_run),
                                                  learning_step(ours, our_run)))]


def learning_step(model, run):
    """Forward, backward and AdamW for what learns in a model."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], RATE)

    def step():
        optimizer.zero_grad()
        run().square().mean().backward()
        optimizer.step()

    return step


def whole_rows(steps: int = 5, batch: int = 8) -> list[tuple]:
    """Captions with boxes to pictures, ours against the pipeline that opens the exported weights.

    That one takes a single list of boxes for a batch, so all pictures are given the same, and
    both read its phrases once.
    """
    diffusers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        exported = weights.export("gligen", Path(folder) / "gligen")
        pipe = StableDiffusionGLIGENPipeline.from_pretrained(exported, safety_checker=None)
    pipe = pipe.to(device.pick())
    pipe.set_progress_bar_config(disable=True)
    parts = weights.text_to_image(device.pick(), weights.load("gligen"))
    zT, captions = parts.first_noise(batch, 0), [CAPTION] * batch

    def theirs():
        return pipe(captions, latents=zT.clone(), gligen_phrases=PHRASES,
                    gligen_boxes=BOXES, gligen_scheduled_sampling_beta=1.,
                    num_inference_steps=steps, guidance_scale=5., output_type="pt").images.cpu()

    def ours():
        told = ground(parts, [PHRASES], [BOXES]).each(lambda x: x.expand(batch, *x.shape[1:]))
        *_, (_, z) = sample_grounded(parts, captions, told, zT, steps, guidance_scale=5.)
        with torch.no_grad():
            return (to_pictures(parts.vae, z).cpu() + 1) / 2

    return [same(f"{batch} grounded pictures, {steps} guided steps", theirs, ours, rounds=15)]
