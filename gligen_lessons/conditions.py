"""What `generate` takes beside the caption: boxes, crops, key points, maps, read from files."""

import re
import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import boxes as boxes_
from . import weights
from .datasets.grounding_inputs import crop_features
from .gligen import ground
from .grounding_inputs import Entities, Keypoints, keypoint_grounding
from .grounding_maps import SpatialMap, semantic_maps
from .images import to_model
from .latent import TextToImage
from .reading import parsed_json, picture
from .world.vocabulary import CATEGORIES, KEYPOINTS, POSABLE

PHRASE = 'write "PHRASE:x0,y0,x1,y1", such as "a red car:0.1,0.5,0.5,0.8"'
CROP = 'write "CROP.png:x0,y0,x1,y1", such as "my_cat.png:0.1,0.5,0.5,0.8"'
OPTIONS = ("box", "image", "keypoints", "map")


@dataclass(frozen=True)
class Request:
    """What is asked for: whose weights read it, what makes its grounding, and its phrases."""

    weights: str
    make: Callable[[TextToImage], object]
    phrases: tuple[str, ...] = ()


def request(args: Namespace) -> Request | None:
    """What the words of the command line ask for beside the caption; None for nothing.

    Everything but weights is read here. ValueError names the option and what is wrong with it.
    """
    given = [name for name in OPTIONS if getattr(args, name)]
    if len(given) > 1 and given != ["box", "image"]:
        raise ValueError(f"--{given[0]} and --{given[1]} do not go together: no weights of the "
                         "course know both.")
    if not given:
        return None
    if "keypoints" in given:
        figures = read_figures(args.keypoints, args.caption)
        return Request("gligen-keypoints", lambda parts: figures)
    if "map" in given:
        found = read_map(args.map)
        return Request("gligen-map", lambda parts: found)
    boxes = [words_and_box(text, "--box", "phrase", PHRASE) for text in args.box or ()]
    phrases = tuple(phrase for phrase, _ in boxes)
    if "image" not in given:
        return Request("gligen", lambda parts: ground(
            parts, [list(phrases)], [[box for _, box in boxes]]), phrases)
    crops = [(read_crop(text), box) for text, box in (
        words_and_box(text, "--image", "file", CROP) for text in args.image)]
    return Request("gligen-entities", lambda parts: entities(parts, boxes, crops), phrases)


def words_and_box(text: str, option: str, what: str, form: str) -> tuple[str, list[float]]:
    """What stands before the last colon, and the box xyxy in 0..1 after it.

    ValueError names the text and what is wrong with it.
    """
    words, colon, numbers = text.rpartition(":")
    if not colon:
        raise ValueError(f"{option} {text!r} has no colon: {form}.")
    if not words.strip():
        raise ValueError(f"{option} {text!r} has no {what} before its colon: {form}.")
    try:
        box = [float(number) for number in numbers.split(",")]
    except ValueError:
        box = []
    if len(box) != 4:
        raise ValueError(f"{option} {text!r} needs four numbers after its last colon: {form}.")
    boxes_.check_boxes([box], f"{option} {text!r}: boxes")
    return words.strip(), box


def read_crop(file: str) -> Tensor:
    """A picture file as a model picture (1,3,h,w)."""
    try:
        return to_model(torch.from_numpy(np.array(picture(Path(file))))[None])
    except ValueError as error:
        raise ValueError(f"--image {file}: no picture can be read from it ({error}).") from error


def entities(parts: TextToImage, phrases: list, crops: list) -> Entities:
    """Phrases and crops, each with its box; those of one box are one entity with both."""
    told, shown = ({tuple(box): what for what, box in some} for some in (phrases, crops))
    places = list(told | shown)
    found = ground(parts, [[told.get(box, "thing") for box in places]], [places])
    n = int(found.masks.sum())                            # more than fit are dropped, and told
    clip = weights.load("clip", parts.device)
    features, whole = torch.zeros_like(found.features), torch.tensor([[0., 0., 1., 1.]])
    text, picture_ = torch.zeros_like(found.masks), torch.zeros_like(found.masks)
    for i, box in enumerate(places[:n]):
        text[0, i], picture_[0, i] = box in told, box in shown
        if box in shown:
            features[0, i] = crop_features(clip, shown[box], whole, torch.tensor([0]))[0]
    return Entities(found.boxes, found.masks, text, picture_, found.features, features)


def read_figures(path: Path, caption: str) -> Keypoints:
    """COCO's key points from a JSON file: 17 triples [x, y, visible] in 0..1, or several figures.

    51 numbers in a row are taken too, and an annotation with "keypoints". ValueError where the
    caption names things of the world and none of them has a skeleton.
    """
    named = [word for word in re.findall("[a-z]+", caption.lower()) if word in CATEGORIES]
    if named and not set(named) & set(POSABLE):
        raise ValueError(f"--keypoints {path}: only {', '.join(POSABLE)} have a skeleton, and the "
                         f"caption names {', '.join(named)}.")
    try:
        found = parsed_json(path)
    except ValueError as error:
        raise ValueError(f"--keypoints {path} cannot be read as JSON ({error}).") from error
    found = found.get("keypoints") if isinstance(found, dict) else found
    if not isinstance(found, list) or not found:
        raise ValueError(f"--keypoints {path} must hold a list of {len(KEYPOINTS)} triples "
                         "[x, y, visible].")
    first = found[0] if isinstance(found[0], list) else []
    several = any(isinstance(x, list) for x in first) or len(first) == 3 * len(KEYPOINTS)
    try:
        return keypoint_grounding([[triples(body) for body in (found if several else [found])]])
    except ValueError as error:
        raise ValueError(f"--keypoints {path}: {error}") from error


def triples(body):
    """A figure given as one row of numbers in triples; anything else as it is."""
    flat = isinstance(body, list) and body and not any(isinstance(x, list) for x in body)
    return [body[i:i + 3] for i in range(0, len(body), 3)] if flat else body


def read_map(path: Path) -> SpatialMap:
    """A semantic map from a picture of one number a pixel (grey, or with a palette)."""
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")
            if file.mode not in ("L", "P"):
                raise ValueError(f"it must hold one number a pixel (mode L or P), its mode is "
                                 f"{file.mode}")
            numbers = torch.from_numpy(np.array(file)).long()
    except (ValueError, OSError) as error:
        raise ValueError(f"--map {path} cannot be read as a map ({error}).") from error
    try:
        return semantic_maps(numbers[None])
    except ValueError as error:
        raise ValueError(f"--map {path}: {error}") from error
