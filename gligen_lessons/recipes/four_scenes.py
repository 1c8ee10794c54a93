"""Four scenes: lesson 8 trains gates on them for seconds, and asks what boxes tell a network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..datasets.instructions import (
    KINDS,
    instruction,
    layouts,
    phrase_table,
    phrase_table_features,
    slots,
)
from ..device import generator, noise
from ..gligen import Grounding, gate_names, ground, l_grounding
from ..images import to_model
from ..latent import TextToImage, to_latents
from ..unet import UNet
from ..world import scene
from ..world.cache import renders
from .gligen import GATE_RATE, RATE, sample_kind

JUDGED = (300, 700, 900)                                  # the steps of a loss on fixed noise


def read_four(parts: TextToImage, split: str, limit: int = 8) -> tuple[Tensor, Tensor, Grounding]:
    """Latents (4,4,16,16), captions' states (4,n,d), grounding: the first scenes of a split."""
    few = renders(split, 4, progress=False)
    true = torch.tensor(few.boxes_xyxy)
    y = [instruction(scene(seed), true[i], KINDS[0], generator(i))
         for i, seed in enumerate(few.seeds)]
    x, where = to_model(torch.tensor(few.images)), parts.device
    with torch.no_grad():
        z0 = to_latents(parts.vae, x.to(where), noise((4, 4, 16, 16), generator(5), where))
    return z0, parts.context([one.caption for one in y]), ground(
        parts, [one.phrases for one in y], [one.boxes_xyxy for one in y], limit)


def four_batches(parts: TextToImage, steps: int) -> Iterator[tuple]:
    """Batches of four training scenes, z0, t, eps, context and grounding, drawn as in training.

    Kinds of data are mixed, and captions and groundings dropped, by `sample_kind`.
    """
    data = layouts(parts, renders("grounding-train", 4, progress=False))
    z0, where, g = read_four(parts, "grounding-train")[0], parts.device, generator(6)
    empty, table = parts.tokenizer([""])[0], phrase_table_features(parts, phrase_table()).cpu()
    for _ in range(steps):
        ids, numbers = sample_kind(data, torch.arange(4), empty, g)
        with torch.no_grad():
            context = parts.text(ids.to(where))
        t = torch.randint(parts.schedule.T, (4,), generator=g).to(where)
        grounding = slots(table, numbers, data.boxes_xyxy[:4])
        yield (z0, t, noise((4, 4, 16, 16), g, where), context,
               grounding.each(lambda x: x.to(where)))


def optimizer_of(unet: UNet) -> torch.optim.Optimizer:
    """AdamW for what GLIGEN adds, the gates' scalars at a rate of their own."""
    groups = {GATE_RATE: [], RATE: []}
    for name in gate_names(unet):
        groups[GATE_RATE if ".alpha_" in name else RATE].append(unet.get_parameter(name))
    return torch.optim.AdamW([{"params": some, "lr": rate} for rate, some in groups.items()],
                             weight_decay=0.)


@torch.no_grad()
def losses_by_boxes(unet: UNet, parts: TextToImage, split: str) -> dict[str, float]:
    """The loss on fixed noise of a split's first four scenes, over what the network is told.

    The true boxes and phrases, none, or those of the next of the four scenes.
    """
    z0, context, true = read_four(parts, split)
    eps = noise((4, 4, 16, 16), generator(9), parts.device)
    told = {"true boxes": true, "none": true.none(),
            "another scene's": true.each(lambda x: x.roll(1, 0))}
    return {name: sum(float(l_grounding(unet, z0, torch.full((4,), t, device=parts.device), eps,
                                        context, grounding, parts.schedule))
                      for t in JUDGED) / len(JUDGED) for name, grounding in told.items()}
