"""A folder of COCO 2017 files read as the records that the lessons use."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..reading import OtherSize
from ..reading import picture as read_picture
from . import coco_check as check
from .coco_check import Entry
from .records import Record
from .vocabulary import KEYPOINTS

LARGEST = 16_384                                          # pixels, of a side that is asked for
MASKS = 2 ** 31                                           # bytes of a record's masks, at most


@dataclass(frozen=True)
class PanopticFile:
    """The stuff of a panoptic file: annotations by image, the words of stuff, and the PNGs."""

    pictures: Path
    annotations: dict[int, Entry]
    segments: dict[int, dict[int, Entry]]
    words: dict[int, str]

    def stuff(self, image: Entry) -> dict[str, np.ndarray]:
        """A mask (h,w) for every word of stuff in a picture."""
        annotation = self.annotations.get(image.data["id"])
        if annotation is None:
            return {}
        name, width, height = (annotation.data["file_name"], image.data["width"],
                               image.data["height"])
        rgb = np.asarray(_open_picture(annotation, self.pictures / name, width, height), np.int64)
        ids = rgb @ (1, 256, 256 ** 2)                                        # (h,w)
        known, present = self.segments[image.data["id"]], set(np.unique(ids).tolist()) - {0}
        for missing in sorted(known.keys() - present):
            raise known[missing].fault(f"id {missing} is at no pixel of {name}")
        for unknown in sorted(present - known.keys()):
            raise annotation.fault(f"segments_info lacks the id {unknown} that {name} shows")
        found: dict[str, np.ndarray] = {}
        for number, segment in known.items():
            if word := self.words.get(segment.data["category_id"]):
                found[word] = found.get(word, False) | (ids == number)
        return found


@dataclass(frozen=True, eq=False)
class CocoFolder(Sequence):
    """The pictures of a COCO data set as records, each read when it is asked for.

    `categories` are the names of its things in the order of their ids. Pictures are made `size`
    pixels wide and high where a size is given (boxes and key points are normalised, so
    they stay), else they keep their own.
    """

    pictures: Path
    images: list[Entry]
    categories: list[str]
    size: int | None
    names: dict[int, str]
    things: dict[int, list[Entry]]
    captions: dict[int, list[str]]
    points: dict[int, list[float]]
    panoptic: PanopticFile | None
    masks: bool = True

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._record(self.images[index])

    def _record(self, image: Entry) -> Record:
        number, name, width, height = (image.data[k] for k in
                                       ("id", "file_name", "width", "height"))
        picture = _open_picture(image, self.pictures / name, width, height)
        if self.size and picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling.LANCZOS)
        found = [(thing, box) for thing in self.things.get(number, ())
                 if (box := _cut_box(thing.data["bbox"], width, height)) is not None]
        room = len(found) * picture.width * picture.height
        if self.masks and room > MASKS:
            raise image.fault(f"its {len(found)} masks of {picture.width} by {picture.height} "
                              f"pixels take {room / 1e9:.0f} GB: ask for a smaller size")
        things, boxes = [thing for thing, _ in found], [box for _, box in found]
        words = [self.names[thing.data["category_id"]] for thing in things]
        shapes = [self._sized(_decoded(thing, width, height)) for thing in things if self.masks]
        points = [_scaled_points(self.points.get(thing.data["id"]), width, height)
                  for thing in things]
        stuff = self.panoptic.stuff(image) if self.panoptic else {}
        return Record(
            image=np.array(picture), captions=list(self.captions.get(number, ())),
            categories=words,
            phrases=[thing.data.get("phrase", word)
                     for thing, word in zip(things, words, strict=True)],
            boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            masks=np.array(shapes, bool).reshape(-1, *picture.size[::-1]),
            keypoints=np.array(points, np.float32).reshape(-1, len(KEYPOINTS), 3),
            crowd=np.array([thing.data.get("iscrowd", 0) for thing in things], bool),
            stuff={word: self._sized(mask) for word, mask in stuff.items()},
            name=Path(name).stem)

    def _sized(self, mask: np.ndarray) -> np.ndarray:
        """The mask at the asked size, by the nearest pixel."""
        if not self.size:
            return mask
        rows, columns = (((np.arange(self.size) + .5) * n / self.size).astype(int)
                         for n in mask.shape)
        return mask[rows[:, None], columns]


def read(folder: str | Path, limit: int | None = None, size: int | None = None,
         split: str | None = None, masks: bool = True, skip_missing: bool = False) -> CocoFolder:
    """A folder of COCO files as a sequence of records; the JSON is checked here and now.

    Looks for annotations/instances_SPLIT.json with pictures in SPLIT/ or images/, and beside it
    for captions_, panoptic_ (PNGs in panoptic_SPLIT/) and person_keypoints_SPLIT.json, each of
    which may be missing. `split`, such as "val2017", is needed only where there are several.
    `limit` takes the first pictures only; without `masks` records have none, which is much faster;
    with `skip_missing` pictures whose file is missing are left out. So is an annotation whose box
    has no area inside its picture, and what belongs to pictures that are not listed; a thing
    without a segmentation has an empty mask. Warnings say how many. Raises FileNotFoundError where
    there is no data set, ValueError that names file, annotation and field where one is malformed.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}; give a number of pictures, or None for all.")
    if size is not None and not 1 <= size <= LARGEST:
        raise ValueError(f"size is {size}; give a number of pixels from 1 to {LARGEST}, or None "
                         "for each its own.")
    folder = Path(folder)
    ending = _split_ending(folder, split)
    path = folder / "annotations" / f"instances{ending}.json"
    data = check.read_json(path)
    known = check.checked_images(data, path.name)
    kinds = check.checked_categories(data, path.name)
    name = ending.lstrip("_")
    pictures = _picture_folder(folder, path.name, name, f"images/{name}", "images")
    there = _present(known, pictures, path.name) if skip_missing else known
    chosen = dict(list(there.items())[:limit])
    _all_there(chosen.values(), pictures)
    things = _annotations_of(data, path.name, known, chosen, kinds, masks)
    captions, points, panoptic = (path.with_name(f"{kind}{ending}.json")
                                  for kind in ("captions", "person_keypoints", "panoptic"))
    names = {number: kind.text("name") for number, kind in sorted(kinds.items())}
    return CocoFolder(pictures, list(chosen.values()), list(names.values()), size, names, things,
                      _read_captions(captions, known),
                      _read_keypoints(points, known, chosen, things),
                      _read_panoptic(panoptic, known, chosen) if masks else None, masks)


def splits(folder: str | Path) -> list[str]:
    """The splits of a data set, such as "val2017"; "" for one without splits."""
    return [ending.lstrip("_") for ending in _endings(Path(folder))]


def _endings(folder: Path) -> list[str]:
    """What the names of the instances files end in, in order."""
    return sorted(path.stem.removeprefix("instances")
                  for path in (folder / "annotations").glob("instances*.json"))


def _split_ending(folder: Path, split: str | None) -> str:
    """What the file names of a split end in: "_val2017", or "" for a set without splits."""
    found = _endings(folder)
    if split is not None:
        found = [ending for ending in found if ending.lstrip("_") == split]
    if not found:
        raise FileNotFoundError(f"{folder} holds no annotations/instances_{split or 'SPLIT'}.json; "
                                "give the folder of a COCO data set.")
    if len(found) > 1:
        raise ValueError(f"{folder} holds several splits; choose with split= one of "
                         f"{', '.join(ending.lstrip('_') for ending in found)}.")
    return found[0]


def _picture_folder(folder: Path, file: str, *names: str) -> Path:
    """The first of some folders that is there."""
    places = [folder / name for name in names if name]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{file}: its pictures are missing; looked for "
                            f"{', '.join(map(str, places))}.")


def _all_there(items, pictures: Path) -> None:
    for entry in items:
        if not (pictures / entry.text("file_name")).is_file():
            raise entry.fault(f"file_name {entry.data['file_name']!r} is not in {pictures}")


def _present(known: dict[int, Entry], pictures: Path, file: str) -> dict[int, Entry]:
    """The images whose file is there; a warning says how many are not."""
    there = {number: entry for number, entry in known.items()
             if (pictures / entry.text("file_name")).is_file()}
    _say(len(known) - len(there), file, f"of {len(known)} pictures are not in {pictures}: they are "
         "left out")
    return there


def _annotations_of(data, file, known, chosen, kinds, masks) -> dict[int, list[Entry]]:
    """The checked annotations of the chosen images, by image."""
    found = defaultdict(list)
    for entry in check.by_id(check.entries(data, file, "annotations", "annotation")).values():
        number = entry.listed("image_id", known, "images")
        if number in chosen:
            entry.listed("category_id", kinds, "categories")
            check.check_instance(entry, chosen[number])
            if "phrase" in entry.data:
                entry.text("phrase")
            found[number].append(entry)
    every = [entry for here in found.values() for entry in here]
    bare = sum(not entry.data.get("segmentation") for entry in every if masks)
    _say(bare, file, f"of {len(every)} annotations have no segmentation: their masks are empty")
    return dict(found)


def _say(count: int, file: str, what: str) -> None:
    """Warn of what a set lacks; of nothing say nothing."""
    if count:
        warnings.warn(f"{file}: {count} {what}.", stacklevel=4)


def _read_captions(path: Path, known) -> dict[int, list[str]]:
    """Captions by image; none where the file is missing."""
    found = defaultdict(list)
    if path.exists():
        items = check.entries(check.read_json(path), path.name, "annotations", "annotation")
        kept, others = check.of_listed(check.by_id(items).values(), known)
        for entry in kept:
            found[entry.data["image_id"]].append(entry.text("caption"))
        _say(others, path.name, f"of {len(items)} captions are of pictures that are not listed")
    return dict(found)


def _read_keypoints(path: Path, known, chosen, things) -> dict[int, list[float]]:
    """Key points by annotation, which is one of the instances; none where the file is missing."""
    if not path.exists():
        return {}
    data, found = check.read_json(path), {}
    kinds = check.checked_categories(data, path.name)
    ids = {number: {entry.data["id"] for entry in here} for number, here in things.items()}
    items = check.entries(data, path.name, "annotations", "annotation")
    kept, others = check.of_listed(check.by_id(items).values(), known)
    _say(others, path.name, f"of {len(items)} annotations are of pictures that are not listed")
    for entry in kept:
        number = entry.data["image_id"]
        if number in chosen:
            entry.listed("category_id", kinds, "categories")
            there = entry.listed("id", ids.get(number, ()), "annotations of its image's instances")
            found[there] = check.checked_points(entry)
    return found


def _read_panoptic(path: Path, known, chosen) -> PanopticFile | None:
    """The panoptic file, checked; None where it is missing."""
    if not path.exists():
        return None
    data = check.read_json(path)
    kinds = check.checked_categories(data, path.name, panoptic=True)
    pictures = _picture_folder(path.parent.parent, path.name, path.stem, f"annotations/{path.stem}")
    table = check.by_id(check.entries(data, path.name, "annotations", "image", "image_id"),
                        "image_id")
    others = check.of_listed(table.values(), known)[1]
    _say(others, path.name, f"of {len(table)} annotations are of pictures that are not listed")
    table = {number: entry for number, entry in table.items() if number in chosen}
    _all_there(table.values(), pictures)
    segments = {number: check.checked_segments(entry, kinds) for number, entry in table.items()}
    words = {number: kind.text("name") for number, kind in kinds.items()
             if not kind.data["isthing"]}
    return PanopticFile(pictures, table, segments, words)


def _open_picture(entry: Entry, path: Path, width: int, height: int) -> Image.Image:
    """An image file in RGB, of the size that the catalogue says."""
    try:
        return read_picture(path, (width, height))
    except OtherSize as error:
        raise entry.fault(str(error)) from error
    except ValueError as error:
        raise entry.fault(f"file_name {path.name!r} cannot be read as a picture: "
                          f"{error}") from error


def _cut_box(bbox: list[float], width: int, height: int) -> np.ndarray | None:
    """A box x, y, width, height in pixels as xyxy in 0..1, cut at the border; None if empty.

    Judged as it is stored, in 32 bits.
    """
    x, y, w, h = bbox
    box = np.array([x, y, x + w, y + h], float).clip(0, [width, height] * 2)
    box = (box / ([width, height] * 2)).astype(np.float32)
    return box if box[0] < box[2] and box[1] < box[3] else None


def _decoded(thing: Entry, width: int, height: int) -> np.ndarray:
    """An annotation's mask (h,w) from polygons, run lengths or a compressed RLE; empty if none."""
    from pycocotools import mask as coco

    shape = thing.data.get("segmentation")
    if not shape:
        return np.zeros((height, width), bool)
    if isinstance(shape, list):
        shape = coco.merge(coco.frPyObjects(shape, height, width))
    elif isinstance(shape["counts"], list):
        shape = coco.frPyObjects(shape, height, width)
    return coco.decode(shape).astype(bool)


def _scaled_points(numbers: list[float] | None, width: int, height: int) -> np.ndarray:
    """Key points (17,3) with x, y in 0..1; all zero where unlabelled or outside the picture."""
    found = np.array(numbers or [0] * 51, float).clip(-1e9, 1e9).reshape(-1, 3)
    found = (found / (width, height, 1)).astype(np.float32)
    inside = (found[:, :2] >= 0).all(1) & (found[:, :2] <= 1).all(1) & (found[:, 2] > 0)
    return found * inside[:, None]
