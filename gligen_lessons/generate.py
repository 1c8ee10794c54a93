"""What `generate` does: a caption, with boxes or without, as a picture file."""

import io
import warnings
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from . import boxes as boxes_
from . import device, files, grounded, latent, weights
from .gligen import ground
from .images import to_shown
from .latent import TextToImage

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
FORM = 'write "PHRASE:x0,y0,x1,y1", such as "a red car:0.1,0.5,0.5,0.8"'


def picture_files(out: Path, count: int) -> list[Path]:
    """Where `count` pictures go: `out` itself, or out-1, out-2, ... beside it."""
    if out.suffix.lower() not in PICTURES:
        raise ValueError(f"{out} must end in {', '.join(PICTURES)}.")
    if count == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{i}") for i in range(1, count + 1)]


def phrase_and_box(text: str) -> tuple[str, list[float]]:
    """A phrase, which may hold colons, and its box xyxy in 0..1: "PHRASE:x0,y0,x1,y1".

    ValueError names the text and what is wrong with it.
    """
    phrase, colon, numbers = text.rpartition(":")
    if not colon:
        raise ValueError(f"--box {text!r} has no colon: {FORM}.")
    if not phrase.strip():
        raise ValueError(f"--box {text!r} has no phrase before its colon: {FORM}.")
    try:
        box = [float(number) for number in numbers.split(",")]
    except ValueError:
        box = []
    if len(box) != 4:
        raise ValueError(f"--box {text!r} needs four numbers after its last colon: {FORM}.")
    boxes_.check_boxes([box], f"--box {text!r}: boxes")
    return phrase.strip(), box


def generate_files(args: Namespace) -> None:
    """Paint a caption; with `count` several, from seed, seed + 1, ...

    Nothing is written before every picture is painted; each file appears when it is whole.
    """
    targets = picture_files(args.out, args.count)
    requested = [phrase_and_box(text) for text in args.box or ()]
    if args.tau is not None and not requested:
        raise ValueError("--tau says how long boxes count: it needs --box.")
    where = device.pick()
    parts = weights.text_to_image(where, weights.load("gligen", where) if requested else None)
    for text in (args.caption, *(phrase for phrase, _ in requested)):
        note_unknown(parts, text)
    trajectory = grounded_trajectory(parts, args,
                                     requested) if requested else plain_trajectory(parts, args)
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
                        requested: list[tuple[str, list[float]]]) -> Iterator[tuple[int, Tensor]]:
    """The trajectory from caption and boxes, every picture with the same; notes boxes too many."""
    phrases, boxes = (list(column) for column in zip(*requested, strict=True))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        grounding = ground(parts, [phrases], [boxes])
    for warning in heard:
        print(f"note: {warning.message}")
    grounding = grounding.each(lambda x: x.expand(args.count, *x.shape[1:]))
    return grounded.sample_grounded(
        parts, [args.caption] * args.count, grounding, parts.first_noise(args.count, args.seed),
        args.steps, args.scale, 1. if args.tau is None else args.tau)


def write_picture(x: Tensor, target: Path) -> None:
    """A picture (3,h,w) in [-1, 1] as a file."""
    shown, held = (to_shown(x[None])[0] * 255).round().byte().numpy(), io.BytesIO()
    Image.fromarray(shown).save(held, PICTURES[target.suffix.lower()])
    files.atomic_write(target, held.getvalue())
