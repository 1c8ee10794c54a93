"""What `edit` does: a picture file, and words for what should be another, as a picture file."""

import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from . import device, reading, weights
from .diffedit import Edited, check_texts, edit_pictures, rescaled
from .generate import note_unknown, picture_files, write_picture
from .images import SIDE, heat_over, to_model


def edit_file(args: Namespace) -> None:
    """Edit one picture; with `sheet` also source, heat map of the mask and edit side by side.

    Without `out` the edit goes beside the photo. Nothing is written before the edit is done.
    """
    out = args.out or args.photo.with_name(f"{args.photo.stem}-edited.png")
    targets = [picture_files(path, 1)[0] for path in (out, args.sheet) if path]
    if len({path.absolute() for path in targets}) < len(targets):
        raise ValueError(f"--out and --sheet are both {out}: name two files.")
    check_texts([args.source], [args.query], 1)
    x = source_picture(args.photo)
    parts = weights.text_to_image(device.pick())
    for text in (args.source, args.query):
        note_unknown(parts, text)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        made = edit_pictures(parts, x, [args.source], [args.query], args.seed, args.strength,
                             args.steps, args.scale, args.noises, args.threshold)
    for warning in heard:
        print(f"note: {warning.message}")
    print(f"the mask covers {float(made.mask.mean()):.0%} of the picture")
    for target, picture in zip(targets, (made.x.cpu(), sheet_of(x, made)), strict=False):
        write_picture(picture[0], target)
        print(f"wrote {target}")


def source_picture(path: Path) -> Tensor:
    """A picture file as (1,3,h,w) in [-1, 1], of the size that the models learnt on.

    Of another size, the middle is cut out and resized; a note says so.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing.")
    try:
        image = reading.picture(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}.") from error
    if image.size != (SIDE, SIDE):
        print(f"note: {path} is {image.width} by {image.height} pixels; its middle is taken at "
              f"{SIDE} by {SIDE}.")
        image = ImageOps.fit(image, (SIDE, SIDE))
    return to_model(torch.from_numpy(np.array(image))[None])


def sheet_of(x: Tensor, made: Edited) -> Tensor:
    """Source, heat map and edit in one row: (1,3,h,3w)."""
    heat = heat_over(x, rescaled(made.map).cpu())
    return torch.cat([x, heat, made.x.cpu()], dim=3)
