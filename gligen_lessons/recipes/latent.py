"""Training lesson 6's latent diffusion: captions to latents of the shipped autoencoder."""

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from .. import device, weights
from ..ddpm import to_shown
from ..fit import step_generator
from ..latent import TextToImage, draw, l_ldm
from ..metrics import frechet_distance, kernel_distance
from ..referee import judge_scenes, recall
from ..unet import UNet
from ..world import captions, scene, seeds
from ..world.cache import default_folder
from ..world.scene import Scene
from ..world.vocabulary import CATEGORIES, COLOURS, HELD_OUT, NOVEL
from . import Recipe, on_device, scenes
from .referee import labelled, pictures
from .vae import latents, round_trip

LATENT_UNET = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": (64, 128, 192), "cross_attention_dim": 256, "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
P_DROP = .1                                               # captions that are dropped
SHOWN = ("a red car on the snow at night", "a yellow house on the grass by day",
         "a blue boat by the water at sunset", "a purple cat on the sand by day",
         "a green tree and a red mushroom on the grass by day", "a striped pink balloon",
         "a monkey in blue on the road by day", "a white rocket on the snow by day")


def cached_latents(split: str, steps: int, batch: int, most: int) -> tuple[range, Tensor]:
    """The seeds of some scenes of a split and their latents (n,4,16,16), drawn once, scaled.

    They lie beside the cache of renders, under a name that the autoencoder's weights decide.
    """
    drawn, mark = scenes(split, steps, batch, most), weights.fingerprint("vae")
    file = Path(default_folder()).parent / "latents" / f"{split}-{len(drawn.seeds)}-{mark}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.exists():
            vae = weights.load("vae", device.pick())
            with device.half_precision(device.pick()):
                z = latents(vae, on_device(drawn.images), torch.Generator().manual_seed(0))
            part = file.with_suffix(".part")
            with open(part, "wb") as opened:
                np.save(opened, (vae.scaling_factor * z).half().numpy())
            os.replace(part, file)
    return drawn.seeds, torch.from_numpy(np.load(file))


def ldm(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The latent U-Net: cached latents of scenes with several things and with one, captions
    read by the shipped text tower, a tenth of them dropped."""
    full = device.dial() == "full"
    steps, batch = steps or (20_000 if full else 9_000), batch or (256 if full else 8)
    found = [cached_latents("train", steps, batch, 80_000 if full else 8_000),
             cached_latents("single-train", steps, batch, 40_000 if full else 4_000)]
    z = torch.cat([part[1] for part in found]).to(device.pick())
    parts = weights.text_to_image(device.pick(), unet=UNet(**LATENT_UNET))
    texts = [captions(scene(seed)) for part in found for seed in part[0]]
    ids = parts.tokenizer([text for five in texts for text in five]).view(len(z), 5, -1).short()
    empty, walk = parts.tokenizer([""])[0], min(30, 1 + steps)
    weights.load("referee-scene")               # the report needs it: say now if it is missing

    def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = step_generator(8, step)
        rows = torch.randint(len(z), (batch,), generator=g)
        caption = ids[rows, torch.randint(5, (batch,), generator=g)].long()
        caption[torch.rand(batch, generator=g) < P_DROP] = empty
        t = torch.randint(parts.schedule.T, (batch,), generator=g)
        eps = torch.randn(batch, *z.shape[1:], generator=g)
        return z[rows.to(z.device)].float(), t, eps, caption

    def loss(model, z0, t, eps, caption):
        with torch.no_grad():
            context = parts.text(caption)                                   # (b,n,d)
        return l_ldm(model, z0, t, eps, context.float(), parts.schedule)

    def log_sample(model, step: int) -> dict:
        return {"png": sheet(draw(parts_with(parts, model), list(SHOWN), steps=walk))}

    def report(model) -> dict:
        return ldm_report(parts_with(parts, model), min(100, 8 + steps), walk)

    return Recipe("ldm", parts.unet, LATENT_UNET, f"latents of {len(z)} scenes of train and "
                  "single-train", batch_of, loss, steps, 6e-4, report, log_sample,
                  options={"ema": .999})


def parts_with(parts: TextToImage, unet: UNet) -> TextToImage:
    """The same parts around another U-Net."""
    return TextToImage(parts.vae, parts.text, unet, parts.tokenizer, parts.schedule)


def sheet(x: Tensor, columns: int = 4, side: int = 64) -> str:
    """Pictures (b,3,h,w) as one small JPEG in base64."""
    shown = (to_shown(x) * 255).round().byte()                              # (b,h,w,3)
    h, w = shown.shape[1:3]
    rows = shown.view(-1, columns, h, w, 3).permute(0, 2, 1, 3, 4)
    whole = Image.fromarray(rows.reshape(-1, columns * w, 3).numpy())
    file = io.BytesIO()
    whole.resize((columns * side, len(rows) * side), Image.LANCZOS).save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()


def wished(found: list[Scene], counts: Callable = lambda thing: True) -> Tensor:
    """What a caption that names everything asks for: category in colour, (n,18,10) of 0 and 1.

    Only of the things that count.
    """
    asked = torch.zeros(len(found), len(CATEGORIES), len(COLOURS))
    for i, one in enumerate(found):
        for thing in filter(counts, one.things):
            asked[i, CATEGORIES.index(thing.category), list(COLOURS).index(thing.colour)] = 1
    return asked


def ldm_report(parts: TextToImage, count: int = 1000, steps: int = 30,
               guidance_scale: float = 5., batch: int = 16) -> dict:
    """Captions of held-out scenes as pictures: what the referee finds of what they name.

    `named, found` is the part of named things present in their colour, also for renders of the
    same scenes and for their round trips through the autoencoder; distances compare with renders
    of other scenes. Novel words and held-out pairs have captions of their own.
    """
    judge, data = weights.load("referee-scene", device.pick()), labelled("test", 2 * count)
    renders = torch.cat([pictures(data, part) for part in torch.arange(2 * count).split(64)])
    real, others = renders[:count], judge_scenes(judge, renders[count:])[1]
    scenes_ = [scene(seed) for seed in data.renders.seeds[:count]]

    def painted(split_scenes: list[Scene]) -> tuple[Tensor, Tensor]:
        texts = [captions(one)[0] for one in split_scenes]
        x = torch.cat([draw(parts, texts[i:i + batch], seed=i, steps=steps,
                            guidance_scale=guidance_scale) for i in range(0, len(texts), batch)])
        return judge_scenes(judge, x)

    made = {"painted": painted(scenes_), "renders": judge_scenes(judge, real),
            "round trips": judge_scenes(judge, round_trip(parts.vae, real))}
    asked, report = wished(scenes_), {}
    for name, (found, features) in made.items():
        report |= {f"named, found, {name}": recall(found, asked),
                   f"frechet, {name}": frechet_distance(features, others),
                   f"kid, {name}": kernel_distance(features, others)}
    report |= open_words(painted, max(8, count // 5))
    return report | {"captions": count, "steps": steps, "guidance scale": guidance_scale}


def open_words(painted: Callable, count: int) -> dict:
    """The same for things of novel categories and for held-out pairs, each in its own split."""
    made, rules = {}, {"novel": lambda thing: thing.category in NOVEL,
                       "pairs": lambda thing: (thing.colour, thing.category) in HELD_OUT}
    for split, counts in rules.items():
        found = [scene(seed) for seed in seeds(split, count)]
        made[f"named, found, {split}"] = recall(painted(found)[0], wished(found, counts))
    return made
