"""What comes from outside, read whole or refused: JSON and pictures.

Every error is a ValueError with one sentence that says what is wrong; who calls knows the place in
a data set and says it before.
"""

import json
import math
import operator
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

PIXELS = 89_478_485                                       # where Pillow begins to warn of a bomb
SHOWN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
TURNS = dict(zip(range(2, 9), (                           # what undoes each EXIF orientation
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90), strict=True))


class OtherSize(ValueError):
    """A picture is whole, and of another size than it should be."""


def parsed_json(path: Path):
    """What a JSON file holds."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("its lists are nested too deeply") from None


def json_object(path: Path) -> dict:
    """The object in a JSON file; the error names the file."""
    try:
        found = parsed_json(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(found).__name__}.")
    return found


def is_whole(value, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a value is a whole number between two bounds; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def as_whole(value, what: str) -> int:
    """A whole number of any kind (Python's, NumPy's, torch's) as Python's own; else TypeError."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{what} must be a whole number, got {value!r}.")


def is_number(value) -> bool:
    """Whether a value is a finite number."""
    return is_whole(value, -2 ** 1000, 2 ** 1000) or (
        isinstance(value, float) and math.isfinite(value))


def picture(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture file in RGB; `size` (width, height) is what it must have, if given.

    Sixteen bits a channel are scaled to eight. A picture that a camera stored turned (EXIF) is
    turned as it is shown, for so it was looked at when its boxes were drawn; but not where only
    the pixels as they are stored have the given size.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                   # we judge size and mode ourselves
        try:
            with Image.open(path) as file:
                orientation = _orientation(file)
                _check_size(file, size, orientation)
                upright = _in_rgb(file)
                turned = orientation and (size is None or _turned(file.size, orientation) == size)
                return upright.transpose(TURNS[orientation]) if turned else upright
        except OtherSize:
            raise
        except MemoryError:
            raise ValueError("this machine has no room for it") from None
        except Exception as error:                        # whatever a decoder meets in bad bytes
            text = " ".join(str(error).replace(str(path), path.name).split())
            raise ValueError(text or type(error).__name__) from error


def _orientation(file: Image.Image) -> int:
    """The EXIF orientation that has to be undone, 2 to 8; 0 where there is none.

    Pillow turns TIFF itself.
    """
    try:
        found = file.getexif().get(ExifTags.Base.Orientation)
    except Exception:                                     # what is broken there says nothing
        return 0
    return found if found in TURNS and file.format != "TIFF" else 0


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height as a picture is shown: the last four orientations exchange them."""
    return size[::-1] if orientation >= 5 else size


def _check_size(file: Image.Image, size: tuple[int, int] | None, orientation: int) -> None:
    """Look at the size in the header before anything is decoded."""
    if size and size not in (file.size, _turned(file.size, orientation)):
        raise OtherSize(f"width and height are {size[0]} and {size[1]}, but "
                        f"{Path(file.filename).name} is {file.width} by {file.height} pixels")
    if file.width * file.height > PIXELS:
        raise ValueError(f"its {file.width} by {file.height} pixels are more than {PIXELS:,}")


def _in_rgb(file: Image.Image) -> Image.Image:
    """A picture of any mode that says which number is white, with eight bits a channel."""
    deep = file.mode.startswith("I;16") or (file.mode == "I" and file.format == "PNG")
    if deep:
        grey = np.rint(np.asarray(file, np.float64) / 257).clip(0, 255)      # 65535 is white
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if file.mode not in SHOWN:
        raise ValueError(f"its mode {file.mode} does not say which number is white")
    return file.convert("RGB")
