"""What can be said of a model of one's own pictures without the world's referee: losses, AP, PSNR.

Every figure is of held-out pictures. Noise comes from a seed, so that two models meet the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..bpe import Tokenizer
from ..clip import CLIP, clip_loss, retrieval, similarity
from ..datasets.instructions import Layouts, phrase_table_features, slots
from ..datasets.own_data import OwnPictures
from ..detr import DETR
from ..gligen import Grounding, l_grounding
from ..images import to_model
from ..latent import TextToImage, l_ldm
from ..metrics import psnr
from ..vae import VAE
from .autoencoder import reconstruct
from .detection import detection_figures, named_figures

BATCH = 32
LEFT_OUT = {                                              # what takes the world's referee or words
    "vae": ["things that the referee finds in reconstructions", "distances in its features"],
    "clip": ["zero-shot category and colour", "novel words", "held-out pairs", "exchanged nouns"],
    "ldm": ["named things that the referee finds", "distances in its features", "novel words"],
    "detr": [],
    "gligen": ["boxes that the referee names right", "distances in its features"],
}


def own_vae_report(model: VAE, count: int, held: OwnPictures) -> dict:
    """PSNR of reconstructed pictures."""
    x = to_model(torch.from_numpy(held.images[:count]))
    return {"psnr": float(psnr(reconstruct(model, x), x).mean()), "pictures": len(x)}


@torch.no_grad()
def own_clip_report(model: CLIP, read: Tokenizer, count: int, held: OwnPictures) -> dict:
    """CLIP's loss, in batches of 32, and text to image retrieval among pictures of other captions.

    Of each picture the first caption counts.
    """
    first = {texts[0]: row for row, texts in reversed(list(enumerate(held.captions)))}
    chosen, where = list(first.items())[:count], next(model.parameters()).device
    x = to_model(torch.from_numpy(held.images[[row for _, row in chosen]]))
    pictures = torch.cat([model.encode_image(part.to(where)) for part in x.split(BATCH)])
    texts = torch.cat([model.encode_text(part.to(where))
                       for part in read([text for text, _ in chosen]).split(BATCH)])
    losses = [clip_loss(similarity(a, b, model.logit_scale)) for a, b
              in zip(pictures.split(BATCH), texts.split(BATCH), strict=True)]
    return {"loss": float(torch.stack(losses).mean()), "retrieved among": len(chosen),
            "retrieval": retrieval(similarity(pictures, texts, model.logit_scale))}


def spread_noise(z: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """For each latent (n,c,h,w) a step (n,), spread evenly over all, and noise; from seed 0."""
    g, n = torch.Generator().manual_seed(0), len(z)
    t = ((torch.arange(n) + .5) * steps / n).long()[torch.randperm(n, generator=g)]
    return t, torch.randn(z.shape, generator=g)


@torch.no_grad()
def own_ldm_report(parts: TextToImage, z: Tensor, captions: list[str]) -> dict:
    """The loss of eq. 3 with each picture's own caption, with none, and with another picture's.

    z (n,c,h,w) are latents. Where captions count for nothing the three are alike.
    """
    ids = parts.tokenizer(captions)
    none = parts.tokenizer([""]).expand_as(ids)
    given = {"own caption": ids, "no caption": none, "another's caption": ids.roll(1, 0)}

    def mean_loss(ids: Tensor) -> float:
        return mean_over(parts, z, lambda z0, t, eps, rows: l_ldm(
            parts.unet, z0, t, eps, parts.text(ids[rows].to(z0.device)), parts.schedule))

    return {f"loss, {name}": mean_loss(some) for name, some in given.items()} | {"pictures": len(z)}


def mean_over(parts: TextToImage, z: Tensor, loss: Callable[..., Tensor]) -> float:
    """The mean of loss(z0, t, eps, rows) over all latents z (n,c,h,w), in batches."""
    (t, eps), total = spread_noise(z, parts.schedule.T), 0.
    for rows in torch.arange(len(z)).split(BATCH):
        given = (some.to(parts.device) for some in (z[rows].float(), t[rows], eps[rows]))
        total += len(rows) * float(loss(*given, rows))
    return total / len(z)


@torch.no_grad()
def own_gligen_report(parts: TextToImage, data: Layouts, phrases: list[str]) -> dict:
    """The loss of eq. 9 with each picture's boxes, with none, and with another picture's.

    All without a caption, so that boxes alone say what is where.
    """
    table = phrase_table_features(parts, phrases)
    every = slots(table, data.full.to(table.device), data.boxes_xyxy.to(table.device))
    given = {"own boxes": every, "no boxes": every.none(),
             "another's boxes": every.each(lambda x: x.roll(1, 0))}
    empty = parts.context([""])

    def mean_loss(one: Grounding) -> float:
        return mean_over(parts, data.z, lambda z0, t, eps, rows: l_grounding(
            parts.unet, z0, t, eps, empty.expand(len(rows), -1, -1),
            one.each(lambda x: x[rows.to(x.device)]), parts.schedule))

    return {f"loss, {name}": mean_loss(some) for name, some in given.items()} | {
        "pictures": len(data.z)}


def own_detr_report(model: DETR, count: int, held: OwnPictures, categories: list[str]) -> dict:
    """COCO's average precision by pycocotools; crowds and what is too small are ignored."""
    found = detection_figures(model, held.annotated(count))
    return named_figures(found, categories) | {"pictures": min(count, len(held))}
