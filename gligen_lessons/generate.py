"""What `generate` does: a caption, with grounding or without, as a picture file."""

import io
import warnings
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from . import device, files, grounded, latent, weights
from .conditions import Request, request
from .grounding_maps import map_noise, sample_from_maps
from .images import to_shown
from .latent import TextToImage
from .reground import reground

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def picture_files(out: Path, count: int) -> list[Path]:
    """Where `count` pictures go: `out` itself, or out-1, out-2, ... beside it."""
    if out.suffix.lower() not in PICTURES:
        raise ValueError(f"{out} must end in {', '.join(PICTURES)}.")
    if count == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{i}") for i in range(1, count + 1)]


def generate_files(args: Namespace) -> None:
    """Paint a caption; with `count` several, from seed, seed + 1, ...

    Nothing is written before every picture is painted; each file appears when it is whole.
    """
    targets, asked = picture_files(args.out, args.count), request(args)
    for option, needed in (("tau", args.tau is not None), ("reground", args.reground)):
        if needed and asked is None:
            raise ValueError(f"--{option} says how grounding is used: it needs --box, --image, "
                             "--keypoints or --map.")
    where = device.pick()
    parts = weights.text_to_image(where, weights.load(asked.weights, where) if asked else None)
    for text in (args.caption, *(asked.phrases if asked else ())):
        note_unknown(parts, text)
    trajectory = grounded_trajectory(parts, args, asked) if asked else plain_trajectory(parts, args)
    with reground(parts.unet, args.reground):
        for step in tqdm(trajectory, total=args.steps, desc="painting", unit="step"):
            z0 = step[1]
    for target, x in zip(targets, latent.to_pictures(parts.vae, z0), strict=True):
        write_picture(x, target)
        print(f"wrote {target}")


def note_unknown(parts: TextToImage, text: str) -> None:
    """Say which words of a text the world does not know."""
    for word, pieces in parts.tokenizer.unknown(text).items():
        print(f"note: {word!r} is no word of the world; it is read in pieces: {' '.join(pieces)}")


def plain_trajectory(parts: TextToImage, args: Namespace) -> Iterator[tuple[int, Tensor]]:
    """The trajectory from the caption alone."""
    return latent.sample_latents(parts, [args.caption] * args.count,
                                 parts.first_noise(args.count, args.seed), args.steps, args.scale)


def grounded_trajectory(parts: TextToImage, args: Namespace,
                        asked: Request) -> Iterator[tuple[int, Tensor]]:
    """The trajectory from caption and grounding, every picture with the same; notes boxes too many.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        grounding = asked.make(parts)
    for warning in heard:
        print(f"note: {warning.message}")
    grounding = grounding.each(lambda x: x.expand(args.count, *x.shape[1:]).to(parts.device))
    sample, noise = ((sample_from_maps, map_noise) if asked.weights == "gligen-map" else
                     (grounded.sample_grounded, TextToImage.first_noise))
    return sample(parts, [args.caption] * args.count, grounding,
                  noise(parts, args.count, args.seed), args.steps, args.scale,
                  1. if args.tau is None else args.tau)


def write_picture(x: Tensor, target: Path) -> None:
    """A picture (3,h,w) in [-1, 1] as a file."""
    shown, held = (to_shown(x[None])[0] * 255).round().byte().numpy(), io.BytesIO()
    Image.fromarray(shown).save(held, PICTURES[target.suffix.lower()])
    files.atomic_write(target, held.getvalue())
