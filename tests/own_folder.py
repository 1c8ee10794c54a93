"""COCO folders as somebody else's tools write them: photographs' noise, and every oddity."""

import json

import numpy as np
from PIL import Image

WORDS = ("zebra crossing", "Straßenbahn", "사과", "left-handed widget no. 7")
TURNED = 6                                                # EXIF: shown a quarter turn further


def photograph(rng, width, height):
    """Coloured noise, coarse and fine, as a picture."""
    coarse = rng.integers(0, 255, (3, 4, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC), int)
    fine = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray((smooth + fine).clip(0, 255).astype(np.uint8))


def save(picture, kind, path):
    """Write a picture as one of several kinds of file."""
    if kind == "grey":
        picture.convert("L").save(path)
    elif kind == "palette":
        picture.quantize(16).save(path)
    elif kind == "alpha":
        picture.convert("RGBA").save(path)
    elif kind == "turned":                                # stored a quarter turn back
        exif = picture.getexif()
        exif[0x112] = TURNED
        picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    else:
        picture.save(path)


KINDS = (("plain", 160, 90), ("grey", 50, 70), ("palette", 64, 64), ("turned", 120, 80),
         ("alpha", 33, 200), ("plain", 1, 1), ("plain", 3, 300))


def write(folder, count=14, split="", boxes=True, captions=True, categories=254, seed=0,
          kinds=KINDS):
    """A folder of `count` pictures; the third is listed and missing. Returns the folder."""
    rng, ending = np.random.default_rng(seed), f"_{split}" if split else ""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / (split or "images")).mkdir()
    names = [*WORDS, *(f"thing {i}" for i in range(len(WORDS), categories))][:categories]
    files = {"instances": {"images": [], "annotations": [], "categories": [
        {"id": 7 + 3 * i, "name": name} for i, name in enumerate(names)]},
        "captions": {"images": [], "annotations": []}}
    for i in range(count):
        kind, width, height = kinds[i % len(kinds)]
        name = f"{i:03d}." + ("jpg" if kind in ("plain", "turned") else "png")
        if i != 2 or count < 4:
            save(photograph(rng, width, height), kind, folder / (split or "images") / name)
        files["instances"]["images"].append(
            {"id": 1000 - i, "file_name": name, "width": width, "height": height})
        files["instances"]["annotations"] += annotations(i, width, height, categories) * boxes
        files["captions"]["annotations"] += [
            {"id": 10 * i + k, "image_id": 1000 - i, "caption": text} for k, text in enumerate([
                f"a photograph, number {i}", "Eine Straßenbahn\tvor dem Haus, die lange wartet",
                "사과 세 개"][:1 + i % 3])] * (i % 5 != 4)
    for name, data in files.items():
        if name == "instances" or captions:
            (folder / "annotations" / f"{name}{ending}.json").write_text(json.dumps(data))
    return folder


def annotations(i, width, height, categories):
    """Two boxes that count, one of no width, a crowd, and one smaller than four pixels of 128."""
    places = ((.1, .2, .5, .6, 0), (.4, .1, .5, .8, 0), (.3, .3, 0, .2, 0), (0, 0, 1, .5, 1),
              (.5, .5, .01, .3, 0))
    return [{"id": 10 * i + k, "image_id": 1000 - i, "category_id": 7 + 3 * ((5 * i + k) %
             categories), "bbox": [x * width, y * height, w * width, h * height],
             "iscrowd": crowd} for k, (x, y, w, h, crowd) in enumerate(places)]
