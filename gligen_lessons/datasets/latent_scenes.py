"""Scenes as a latent diffusion model meets them: latents, captions, what each position shows."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import device, weights
from ..bpe import Tokenizer
from ..images import to_model
from ..vae import VAE, reparameterise
from ..world import captions, scene
from ..world.backdrop import THING_ID
from ..world.cache import Renders, code_version, default_folder, renders, waiting_for
from ..world.language import named
from ..world.scene import MAX_THINGS, Scene
from ..world.vocabulary import CATEGORIES, COLOURS
from .labelled import NOTHING

WITHOUT_COLOURS = 3                                       # the caption that names no colour
INSIDE = .5                                               # part of a thing that a window must show


def made_once(folder: str, name: str, make: Callable[[], np.ndarray]) -> Tensor:
    """The array that `make` gives, made once: it lies beside the cache of renders under a name."""
    file = Path(default_folder()).parent / folder / f"{name}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    with waiting_for(file, "encodes"):
        if not file.exists():
            made, part = make(), file.with_suffix(".part")
            with open(part, "wb") as opened:
                np.save(opened, made)
            os.replace(part, file)
    return torch.from_numpy(np.load(file))


def cached_latents(drawn: Renders) -> Tensor:
    """The latents (n,4,s/8,s/8) of some renders, scaled, in half precision; made once."""
    return kept_latents(drawn.images, f"{drawn.seeds.start}", code_version())


def kept_latents(images: np.ndarray, first: str, source: str) -> Tensor:
    """The same of pictures (n,s,s,3) uint8.

    Their name says which pictures they are of: the `first`, how many and how large, and the
    autoencoder's weights and what the pictures come from.
    """
    n, side = images.shape[:2]

    def encode() -> np.ndarray:
        vae, g, made = weights.load("vae", device.pick()), device.generator(0), []
        with device.half_precision(device.pick()):
            for start in range(0, n, 1024):
                part = torch.from_numpy(np.array(images[start:start + 1024]))
                made.append((vae.scaling_factor * latents(vae, part, g)).half())
        return torch.cat(made).numpy()

    return made_once("latents", f"{first}-{n}-{side}-{weights.fingerprint('vae')}-{source}", encode)


@dataclass(frozen=True)
class LatentScenes:
    """N scenes: latents z (N,4,s,s), and which of its things each position shows, -1 for none."""

    scenes: list[Scene]
    z: Tensor
    slots: Tensor                                         # (N,s,s)

    @classmethod
    def of(cls, split: str, count: int, size: int = 128) -> "LatentScenes":
        """The first `count` scenes of a split at `size` pixels."""
        drawn = renders(split, count, size)
        ids = torch.from_numpy(np.array(drawn.ids[:, 4::8, 4::8])).short()
        return cls([scene(seed) for seed in drawn.seeds], cached_latents(drawn),
                   torch.where(ids >= THING_ID, ids - THING_ID, NOTHING))


@dataclass(frozen=True)
class Example:
    """A latent z (4,s,s) of a scene, or of a part of it, and the things in it by slot (s,s)."""

    scene: Scene
    z: Tensor
    slots: Tensor
    shown: tuple[int, ...]                                # the slots that a caption should name

    def described(self, kind: int) -> str:
        """The caption of one of five kinds, of the things that are shown."""
        things = tuple(self.scene.things[i] for i in self.shown)
        return captions(replace(self.scene, things=things))[kind]

    def codes(self) -> Tensor:
        """Category and colour of each position as one number (`helpers.cell_codes`), (s*s,)."""
        table = [CATEGORIES.index(t.category) * len(COLOURS) + list(COLOURS).index(t.colour)
                 for t in self.scene.things] + [NOTHING]
        return torch.tensor(table)[self.slots.long().flatten()]

    def words(self, read: Tokenizer, caption: str, kind: int) -> Tensor:
        """Which tokens of the caption name each of its things, (6,tokens) of True and False."""
        found = torch.zeros(MAX_THINGS, read.length, dtype=torch.bool)
        colour = kind != WITHOUT_COLOURS
        for slot in self.shown:
            phrase = named(self.scene.things[slot], colour, colour)
            start = caption.find(phrase)
            if start >= 0:
                first = 1 + len(read.pieces(caption[:start]))       # the start token comes before
                found[slot, first:first + len(read.pieces(phrase))] = True
        return found


def full_scene(data: LatentScenes, row: int) -> Example:
    """One scene as it is."""
    one = data.scenes[row]
    return Example(one, data.z[row], data.slots[row], tuple(range(len(one.things))))


def window(data: LatentScenes, row: int, g: torch.Generator, side: int = 8) -> Example:
    """A part of a scene, side x side positions around one of its things, if there is one.

    Things that show at least half of themselves in it are named.
    """
    one, slots, most = data.scenes[row], data.slots[row], data.z.shape[-1] - side
    counts = torch.tensor([int((slots == i).sum()) for i in range(MAX_THINGS)])
    y, x = torch.randint(most + 1, (2,), generator=g).tolist()
    if bool(counts.any()):
        slot = int(torch.multinomial((counts > 0).float(), 1, generator=g))
        middle = torch.nonzero(slots == slot).float().mean(0)
        corner = middle - side / 2 + 4 * torch.rand(2, generator=g) - 2
        y, x = corner.round().long().clamp(0, most).tolist()
    part = slots[y:y + side, x:x + side]
    shown = tuple(i for i, n in enumerate(counts.tolist())
                  if n and int((part == i).sum()) >= INSIDE * n)          # n positions show it
    return Example(one, data.z[row, :, y:y + side, x:x + side], part, shown)


def slot_masks(slots: Tensor, side: int) -> Tensor:
    """Where each thing is, on side x side positions, (b,6,side,side) of 0 and 1, from (b,s,s)."""
    masks = (slots[:, None] == torch.arange(MAX_THINGS).view(1, -1, 1, 1)).float()
    return F.adaptive_max_pool2d(masks, side)


@torch.no_grad()
def latents(model: VAE, images: Tensor, generator: torch.Generator, batch: int = 64) -> Tensor:
    """Samples of the latents of pictures (n,h,w,3) uint8: (n,4,h/8,w/8), on the CPU, not scaled."""
    made = []
    for part in images.split(batch):
        mean, logvar = model.encode(to_model(part).to(next(model.parameters()).device))
        eps = torch.randn(mean.shape, generator=generator).to(mean.device)
        made.append(reparameterise(mean, logvar, eps).cpu())
    return torch.cat(made)
