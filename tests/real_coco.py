"""A tiny data set in the layout of the real COCO 2017, with each of the real one's oddities."""

import contextlib
import io
import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from gligen_lessons.world import vocabulary as v


def quietly(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def rle(mask, compressed):
    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    if compressed:
        return {"size": list(mask.shape), "counts": found["counts"].decode()}
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff([0, *edges]).tolist()}


W, H = 20, 12
BLOB = np.zeros((H, W), bool)
BLOB[3:9, 5:15] = True
BLOB[5, 8] = False
NOSE = [7.5, 4, 2] + [0, 0, 0] * 14 + [6, 8, 1] + [25, 8, 2]


def thing(number, category=18, image=7, bbox=(5, 3, 10, 6), shape=None, crowd=0):
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox),
            "area": 59, "iscrowd": crowd, "segmentation": shape or rle(BLOB, compressed=True)}


def real_files():
    """The JSON of a tiny set: picture 7 is full, 300 has no annotation, 41 is grey."""
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": W, "height": H}
              for i in (7, 300, 41)]
    kinds = [{"id": 1, "name": "person", "supercategory": "person"},
             {"id": 18, "name": "dog", "supercategory": "animal"},
             {"id": 90, "name": "toothbrush", "supercategory": "indoor"}]
    instances = [
        thing(42, 18, bbox=(-3.5, 3, 10, 20), shape=[[2., 2., 12., 2., 12., 9., 2., 9.],
                                                     [14, 1, 18, 1, 18, 5]]),
        thing(43, 1), thing(900100000007, 90, shape=rle(BLOB, compressed=False), crowd=1),
        thing(44, 90, bbox=(16, -2, 6.5, 20)), thing(45, 1, bbox=(3, 3, 0, 5)),
        thing(46, 1, image=41)]
    segments = [{"id": 1001, "category_id": 18}, {"id": 70_000, "category_id": 199},
                {"id": 3, "category_id": 199}]
    return {
        "instances": {"images": images, "categories": kinds, "annotations": instances},
        "captions": {"images": images, "annotations": [
            {"id": 5, "image_id": 7, "caption": "A dog.\n"},
            {"id": 6, "image_id": 7, "caption": "A person and a dog"}]},
        "person_keypoints": {
            "images": images,
            "categories": [kinds[0] | {"keypoints": list(v.KEYPOINTS), "skeleton": [[1, 2]]}],
            "annotations": [thing(43, 1) | {"keypoints": NOSE, "num_keypoints": 3}]},
        "panoptic": {
            "images": images,
            "categories": [kinds[1] | {"isthing": 1},
                           {"id": 199, "name": "wall-other", "supercategory": "wall",
                            "isthing": 0}],
            "annotations": [{"image_id": 7, "file_name": "000000000007.png",
                             "segments_info": segments}]}}


def panoptic_ids():
    ids = np.zeros((H, W), int)                           # what stays 0 is unlabelled
    ids[3:9, 5:15], ids[:2], ids[-1] = 1001, 70_000, 3
    return ids


def put(folder, files, split="val2017"):
    (folder / "annotations").mkdir(parents=True)
    for name, data in files.items():
        text = data if isinstance(data, str) else json.dumps(data)
        (folder / "annotations" / f"{name}_{split}.json").write_text(text)
    (folder / split).mkdir()
    rng = np.random.default_rng(0)
    for i in (7, 300, 41):
        shape = (H, W) if i == 41 else (H, W, 3)
        picture = Image.fromarray(rng.integers(0, 255, shape, np.uint8))
        picture.save(folder / split / f"{i:012d}.jpg")
    (folder / f"panoptic_{split}").mkdir()
    ids = panoptic_ids()
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / f"panoptic_{split}" / "000000000007.png")
    return folder
