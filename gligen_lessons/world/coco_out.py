"""Scenes written as a COCO 2017 data set: pictures, instances, captions, panoptic, key points."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from tqdm.auto import tqdm

from ..reading import as_whole
from . import vocabulary as v
from .backdrop import STUFF_ID, THING_ID
from .language import captions, phrase
from .render import Render, keypoints, render
from .scene import Scene, scene

CATEGORY_ID = {word: number for number, word in enumerate(v.CATEGORIES, start=1)}
STUFF_CATEGORY_ID = {word: 100 + number for word, number in STUFF_ID.items()}
SKELETON = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8],
            [7, 9], [8, 10], [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]
FILES = ("instances", "captions", "panoptic", "person_keypoints")


def write(folder: str | Path, seeds: Iterable[int], size: int = 128,
          progress: bool = True) -> Path:
    """Draw the scenes of the seeds and write them as a COCO data set; returns its folder.

    images/ and panoptic/ hold a PNG for each seed, annotations/ the four JSON files. Things that
    nothing shows of have no annotation. A thing keeps one id in instances, person_keypoints and
    panoptic. The set is written beside the folder and named when whole. Raises FileExistsError
    where the folder is there already with something in it, ValueError for no seeds, one twice, or
    one of no split.
    """
    target, chosen = Path(folder), _checked_seeds(seeds)
    with _named_when_whole(target) as part:
        for name in ("images", "panoptic", "annotations"):
            (part / name).mkdir()
        catalogue = _Catalogue()
        for seed in tqdm(chosen, desc="writing COCO", unit="scene", disable=not progress):
            one = scene(seed)
            drawn, name = render(one, size), f"{seed:012d}.png"
            Image.fromarray(drawn.image).save(part / "images" / name)
            Image.fromarray(catalogue.add(one, drawn, seed, name)).save(part / "panoptic" / name)
        for kind in FILES:
            path = part / "annotations" / f"{kind}.json"
            path.write_text(json.dumps(catalogue.file(kind)), encoding="utf-8")
    return target


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
    """The seeds as a list of ints, each of some split and none twice."""
    chosen = [as_whole(seed, "A seed") for seed in seeds]
    if not chosen:
        raise ValueError("There are no seeds to write; give at least one.")
    if len(set(chosen)) < len(chosen):
        twice = next(seed for seed in chosen if chosen.count(seed) > 1)
        raise ValueError(f"Seed {twice} is given twice; a picture's id is its seed.")
    for seed in chosen:
        v.split_of(seed)
    return chosen


@contextmanager
def _named_when_whole(target: Path) -> Iterator[Path]:
    """A folder beside `target` that gets its name at the end, or goes when anything stops it."""
    if target.is_symlink() and not target.exists():
        raise FileExistsError(f"{target} is a link that leads nowhere; give a new folder.")
    target = target.resolve()                             # "." has no name to put a dot before
    target.parent.mkdir(parents=True, exist_ok=True)
    part, path = (target.with_name(f".{target.name}.{word}") for word in ("part", "lock"))
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(f"Another process is writing {target}; wait for it, or write to "
                              "another folder.") from None
    try:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise FileExistsError(f"{target} exists already; give a new folder, or remove it.")
        shutil.rmtree(part, ignore_errors=True)           # left by a run that was killed
        part.mkdir()
        yield part
        if target.exists():                               # an empty folder stays the same folder
            for inside in sorted(part.iterdir(), reverse=True):
                inside.rename(target / inside.name)       # annotations/ last
        else:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        lock.release()
        path.unlink(missing_ok=True)


@dataclass
class _Catalogue:
    """What the four JSON files say, filled scene by scene."""

    images: list[dict] = field(default_factory=list)
    annotations: dict[str, list[dict]] = field(default_factory=lambda: {k: [] for k in FILES})
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def file(self, kind: str) -> dict:
        """One JSON file."""
        info = {"description": f"The picture world of From noise to grounded images: {kind}"}
        whole = {"info": info, "licenses": [], "images": self.images,
                 "annotations": self.annotations[kind]}
        return whole if kind == "captions" else whole | {"categories": coco_categories(kind)}

    def add(self, one: Scene, drawn: Render, seed: int, name: str) -> np.ndarray:
        """Note a scene; returns its panoptic picture (s,s,3) uint8, id = R + 256 G + 256² B."""
        height, width = drawn.ids.shape
        self.images.append({"id": seed, "file_name": name, "width": width, "height": height})
        self.annotations["captions"] += [
            {"id": next(self.ids), "image_id": seed, "caption": text} for text in captions(one)]
        points = keypoints(one, drawn.ids) * np.array([width, height, 1], float)
        colours, segments = np.zeros((256, 3), np.uint8), []
        for number in map(int, np.unique(drawn.ids)):
            label = next(self.ids)
            colours[number] = label % 256, label // 256 % 256, label // 256 ** 2
            shape, rle = _shape_and_rle(drawn.ids == number)
            i = number - THING_ID
            category = (CATEGORY_ID[one.things[i].category] if i >= 0
                        else STUFF_CATEGORY_ID[v.STUFF[number - 1]])
            segments.append({"id": label, "category_id": category, **shape})
            if i >= 0:
                self._add_thing({"id": label, "image_id": seed, "category_id": category, **shape,
                                 "segmentation": rle, "phrase": phrase(one.things[i])},
                                one.things[i].category, points[i])
        self.annotations["panoptic"].append(
            {"image_id": seed, "file_name": name, "segments_info": segments})
        return colours[drawn.ids]

    def _add_thing(self, annotation: dict, category: str, points: np.ndarray) -> None:
        """Note a thing among the instances, and a posable one with its key points too."""
        self.annotations["instances"].append(annotation)
        if category in v.POSABLE:
            self.annotations["person_keypoints"].append(annotation | {
                "keypoints": [x if k % 3 < 2 else int(x) for k, x in
                              enumerate(points.ravel().tolist())],
                "num_keypoints": int((points[:, 2] > 0).sum())})


def _shape_and_rle(mask: np.ndarray) -> tuple[dict, dict]:
    """Area, box (x, y, width, height in pixels) and crowd flag of a mask, and its RLE."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    shape = {"area": int(mask.sum()), "bbox": coco.toBbox(rle).tolist(), "iscrowd": 0}
    return shape, {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def coco_categories(kind: str) -> list[dict]:
    """The category list of one JSON file: "instances", "panoptic" or "person_keypoints"."""
    things = [{"id": number, "name": word, "supercategory": _vocabulary_of(word)}
              for word, number in CATEGORY_ID.items()]
    if kind == "instances":
        return things
    if kind == "person_keypoints":
        return [thing | {"keypoints": list(v.KEYPOINTS), "skeleton": SKELETON}
                for thing in things if thing["name"] in v.POSABLE]
    stuff = [{"id": number, "name": word, "supercategory": "stuff", "isthing": 0}
             for word, number in STUFF_CATEGORY_ID.items()]
    return [thing | {"isthing": 1} for thing in things] + stuff


def _vocabulary_of(word: str) -> str:
    return "base" if word in v.BASE else "novel" if word in v.NOVEL else "control"
