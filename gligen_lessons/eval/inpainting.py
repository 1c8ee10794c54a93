"""Grounded inpainting: one thing of each scene masked and painted again."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.instructions import Instruction
from ..datasets.labelled import labelled, pictures
from ..gligen import ground
from ..inpaint import inpaint_grounded, masks_from_boxes, paste
from ..latent import TextToImage, to_pictures
from ..metrics import share
from .grounding import Held


def inpainting_report(parts: TextToImage, count: int, batch: int = 8, **options) -> dict:
    """One thing of each scene is masked and painted again from its phrase and true box."""
    held = one_each(Held.of(count), torch.Generator().manual_seed(0))
    data, given, made = labelled(held.split, count), [], []
    for few in torch.arange(count).split(batch):
        given.append(pictures(data, few))
        made.append(filled(parts, given[-1], [held.requested[i] for i in few], int(few[0]),
                           **options))
    return (share("right", held.hits(torch.cat(made)).all(0), held.pictures())
            | {"right, renders": held.right(torch.cat(given)), "scenes": count})


def one_each(held: Held, g: torch.Generator) -> Held:
    """The same layouts with one of their things each, and its phrase for a caption."""
    slots = torch.tensor([int(torch.randint(max(1, len(one.phrases)), (), generator=g))
                          for one in held.requested])                           # (n,)
    requested = [Instruction("".join(one.phrases[k:k + 1]), one.phrases[k:k + 1],
                             one.boxes_xyxy[k:k + 1])
                 for one, k in zip(held.requested, slots.tolist(), strict=True)]
    rows = torch.arange(len(slots))[:, None], slots[:, None]
    return Held(requested, held.category[rows], held.colour[rows], held.boxes_xyxy[rows],
                held.split)


def filled(parts: TextToImage, x: Tensor, requested: list[Instruction], seed: int,
           **options) -> Tensor:
    """Pictures x (b,3,h,w) with what is asked for painted into its boxes, all else kept."""
    phrases, boxes = [one.phrases for one in requested], [one.boxes_xyxy for one in requested]
    with torch.no_grad():
        mean, _ = parts.vae.encode(x.to(parts.device))
        z0 = parts.vae.scaling_factor * mean                                # (b,4,h/8,w/8)
    mask = masks_from_boxes(boxes, z0.shape[-1], round_outward=True)
    *_, (_, z) = inpaint_grounded(parts, [one.caption for one in requested],
                                  ground(parts, phrases, boxes),
                                  z0, mask.to(z0), seed, **options)
    with torch.no_grad():
        generated = to_pictures(parts.vae, z).cpu()
    return paste(generated, x, F.interpolate(mask, x.shape[2:]))
