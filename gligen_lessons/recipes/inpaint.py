"""Training lesson 10's inpainting: lesson 9's gates go on learning, and see what is kept."""

import torch
from torch import Tensor

from .. import device, weights
from ..datasets.instructions import layouts
from ..eval.inpainting import inpainting_report
from ..fit import step_generator
from ..gligen import freeze
from ..inpaint import expand_conv_in, inpainting_names, masks_from_boxes
from ..unet import UNet
from . import Recipe, scenes
from .gligen import HELPERS, RATE, batch_sampler, gate_groups, grounding_loss, slowed
from .latent import LATENT_UNET, parts_with

P_MASKED = .5                                 # how often a thing is masked
P_ALONE = .5                                  # how often only masked things have phrases


def gligen_inpaint(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The shipped gates and the first layer's weight, whose new channels begin at zero.

    Each picture has some of its things masked, cut out by their boxes.
    """
    big = device.compute_budget() == "full"
    steps, batch = steps or (6_000 if big else 2_500), batch or (256 if big else 32)
    parts = weights.text_to_image(device.pick(), weights.load("gligen"))
    unet = learn_inpainting(expand_conv_in(parts.unet))
    data = layouts(parts, scenes("grounding-train", steps, batch, 80_000 if big else 24_000))
    drawn, sample_steps = batch_sampler(data, parts, steps, batch, 13), min(30, 1 + steps)

    def sample_batch(step: int) -> tuple[Tensor, ...]:
        *given, phrases, boxes_xyxy, counts = drawn(step)
        mask, phrases = with_holes(phrases, boxes_xyxy, data.z.shape[-1], step_generator(14, step))
        return *given, phrases, boxes_xyxy, counts, mask

    def report(model) -> dict:
        return inpainting_report(parts_with(parts, model), min(48, 4 + steps), steps=sample_steps)

    return Recipe(
        name="gligen-inpaint", model=unet, config=LATENT_UNET,
        data=f"latents of {len(data.z)} scenes of grounding-train, on top of ldm, from the gates "
        "of gligen", sample_batch=sample_batch, loss=grounding_loss(parts), steps=steps,
        lr=RATE / 2,
        report=report, helpers=HELPERS,
        options={"ema": .995, "optimizer": "muon", "groups": slower_groups},
        learned=lambda model: {"_on": weights.fingerprint("ldm")}, kept=inpainting_names)


def learn_inpainting(unet: UNet) -> UNet:
    """Let the gates learn and the first layer's weight; its bias stays (GLIGEN's trainer)."""
    freeze(unet).conv_in.weight.requires_grad_(True)
    return unet


def slower_groups(unet: UNet) -> list[dict]:
    """Slowed groups, where the first layer's weight learns beside what AdamW has."""
    matrices, scalars, rest = gate_groups(unet)
    rest["params"].append(unet.conv_in.weight)
    return slowed([matrices, scalars, rest])


def with_holes(phrases: Tensor, boxes_xyxy: Tensor, side: int,
               g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Masks (b,1,side,side) of some things of each picture, and phrases (b,6) to give.

    At least one thing of a picture is masked. A phrase of -1 is not given.
    """
    real = (boxes_xyxy[..., 2:] > boxes_xyxy[..., :2]).all(-1)              # (b,6)
    luck = torch.rand(real.shape, generator=g).masked_fill(~real, 2.)
    hit = real & ((luck < P_MASKED) | (luck == luck.amin(1, keepdim=True)))
    masked = [boxes[row] for boxes, row in zip(boxes_xyxy, hit, strict=True)]
    mask = masks_from_boxes(masked, side, round_outward=True)
    alone = torch.rand(len(phrases), 1, generator=g) < P_ALONE
    return mask, phrases.masked_fill(alone & ~hit, -1)
