"""COCO in: whatever is wrong in a data set is named by file, entry and field."""

import copy
import json

import pytest
from real_coco import BLOB, NOSE, H, W, put, real_files, rle

from gligen_lessons.world.coco_in import read

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


def first(name, kind="annotations"):
    return lambda files: files[name][kind][0]


def change(entry, **fields):
    return lambda files: entry(files).update(fields)


def without(entry, name):
    return lambda files: entry(files).pop(name)


def again(name, kind="annotations"):
    return lambda files: files[name][kind].append(copy.deepcopy(files[name][kind][0]))


def shaped(**fields):
    return change(first("instances"), segmentation=rle(BLOB, True) | fields)


def segment(files):
    return PANOPTIC(files)["segments_info"][0]


ONE, SHOT, KIND = first("instances"), first("instances", "images"), first("instances", "categories")
CAPTION, POINTS, PANOPTIC = first("captions"), first("person_keypoints"), first("panoptic")
A42 = "instances_val2017.json: annotation 42: "
HUGE = [[0, 0, 1e15, 0, 5, 5]]
MALFORMED = {
    "box of three": (change(ONE, bbox=[1, 2, 3]),
                     A42 + "bbox has 3 numbers, needs x, y, width, height"),
    "box of words": (change(ONE, bbox="here"), A42 + "bbox is 'here', needs x, y, width, height"),
    "box with null": (change(ONE, bbox=[1, 2, None, 3]), A42 + "bbox holds None"),
    "box with true": (change(ONE, bbox=[1, 2, True, 3]), A42 + "bbox holds True"),
    "box NaN": (change(ONE, bbox=[1, float("nan"), 2, 3]), A42 + "bbox holds nan"),
    "box of a giant": (change(ONE, bbox=[1, 10 ** 400, 2, 3]), A42 + "bbox holds 1000"),
    "box infinite": (change(ONE, bbox=[1, 1, float("inf"), 3]), A42 + "bbox holds inf"),
    "box backwards": (change(ONE, bbox=[5, 2, -2, 3]), A42 + "bbox has a negative width, -2"),
    "box upwards": (change(ONE, bbox=[5, 2, 2, -.5]), A42 + "bbox has a negative height, -0.5"),
    "no box": (without(ONE, "bbox"), A42 + "bbox is missing"),
    "no id": (without(ONE, "id"),
              "instances_val2017.json: annotation at place 0 of annotations: id is missing"),
    "id a word": (change(ONE, id="42"), "annotation at place 0 of annotations: id is '42', needs"),
    "deeply nested": (lambda f: f.update(captions="[" * 200_000),
                      "captions_val2017.json: this is not JSON (its lists are nested too deeply)"),
    "half a letter": (change(CAPTION, caption="a \ud800"), "annotation 5: caption is 'a \\ud800'"),
    "a run without end": (shaped(counts="o" * 10 ** 6), A42 + "segmentation counts hold a number"),
    "giant masks": (lambda f: [SHOT(f).update(width=10 ** 9)] + [entry.pop("segmentation") for entry
                    in f["instances"]["annotations"]], "width and height are 1000000000 and 12"),
    "crowd of two": (change(ONE, iscrowd=2), A42 + "iscrowd is 2, needs a whole number from 0 to"),
    "unknown image": (change(ONE, image_id=99), A42 + "image_id 99 is not among the images"),
    "image a list": (change(ONE, image_id=[7]), A42 + r"image_id [7] is not among the images"),
    "unknown category": (change(ONE, category_id=2), A42 + "category_id 2 is not among the categ"),
    "id twice": (again("instances"), A42 + "id is used twice"),
    "image twice": (again("instances", "images"), "instances_val2017.json: image 7: id is used tw"),
    "category twice": (again("instances", "categories"), "category 1: id is used twice"),
    "mask a number": (change(ONE, segmentation=5), A42 + "segmentation is 5, needs polygons or"),
    "polygon of two": (change(ONE, segmentation=[[1, 2, 3, 4]]),
                       A42 + "segmentation polygon 0 has 4 numbers, needs x, y of three points"),
    "polygon odd": (change(ONE, segmentation=[[1, 1, 5, 1, 5, 5, 1]]), "polygon 0 has 7 numbers"),
    "polygon flat": (change(ONE, segmentation=[1, 1, 5, 1, 5, 5]), "segmentation polygon 0 is 1"),
    "polygon NaN": (change(ONE, segmentation=[[1, 1, 5, 1, 5, float("nan")]]), "polygon 0 holds n"),
    "polygon huge": (change(ONE, segmentation=HUGE), "polygon 0 reaches 1e+15, far outside"),
    "mask of another size": (shaped(size=[W, H]), A42 + "segmentation size is [20, 12], its pict"),
    "mask without size": (shaped(size=None), A42 + "segmentation size is None"),
    "runs too short": (shaped(counts=[10, 20]), A42 + "segmentation counts cover 30 pixels, its"),
    "runs negative": (shaped(counts=[250, -10]), A42 + "segmentation counts are no run lengths"),
    "runs of words": (shaped(counts=["a"]), A42 + "segmentation counts are no run lengths"),
    "no runs": (shaped(counts=None), A42 + "segmentation counts are no run lengths"),
    "RLE short": (shaped(counts="P1"), A42 + "segmentation counts cover 32 pixels"),
    "RLE cut": (shaped(counts="P"), A42 + "segmentation counts end in the middle of a number"),
    "RLE garbage": (shaped(counts="!!"), A42 + "segmentation counts hold '!', which is no letter"),
    "no file name": (without(SHOT, "file_name"), "image 7: file_name is missing"),
    "no width": (without(SHOT, "width"), "instances_val2017.json: image 7: width is missing"),
    "height nothing": (change(SHOT, height=0), "image 7: height is 0, needs a whole number from 1"),
    "width a half": (change(SHOT, width=20.5), "image 7: width is 20.5, needs a whole number"),
    "wrong height": (change(SHOT, height=H + 1), "size is [12, 20], its picture has [height, width]"
                                                 " = [13, 20]"),
    "no such picture": (change(SHOT, file_name="x.jpg"), "image 7: file_name 'x.jpg' is not in"),
    "nameless category": (change(KIND, name=""), "category 1: name is '', needs a text"),
    "image a word": (lambda f: f["instances"]["images"].insert(0, "seven"),
                     "instances_val2017.json: image at place 0 of images: is 'seven', needs an ob"),
    "no annotations": (lambda f: f["instances"].pop("annotations"),
                       "instances_val2017.json: annotations is missing or no list"),
    "a list": (lambda f: f.update(instances=[1]), "instances_val2017.json: holds a list, needs"),
    "not JSON": (lambda f: f.update(instances='{"images": ['), "instances_val2017.json: this is n"),
    "captions not JSON": (lambda f: f.update(captions=""), "captions_val2017.json: this is not JS"),
    "caption missing": (without(CAPTION, "caption"),
                        "captions_val2017.json: annotation 5: caption is missing"),
    "caption a number": (change(CAPTION, caption=3), "annotation 5: caption is 3, needs a text"),
    "caption of a word": (change(CAPTION, image_id="7"), "annotation 5: image_id is '7', needs"),
    "points of 50": (change(POINTS, keypoints=NOSE[1:]),
                     "person_keypoints_val2017.json: annotation 43: keypoints has 50 numbers, nee"),
    "points missing": (without(POINTS, "keypoints"), "annotation 43: keypoints is missing"),
    "points NaN": (change(POINTS, keypoints=[float("nan"), *NOSE[1:]]), "keypoints holds nan"),
    "points unseen": (change(POINTS, keypoints=[1, 2, 3, *NOSE[3:]]),
                      "annotation 43: keypoints give nose the visibility 3, needs 0, 1 or 2"),
    "points of no one": (change(POINTS, id=4), "annotation 4: id 4 is not among the annotations o"),
    "other joints": (change(first("person_keypoints", "categories"), keypoints=["head"]),
                     "person_keypoints_val2017.json: category 1: keypoints are not COCO's sevente"),
    "segment not painted": (change(segment, id=5), "panoptic_val2017.json: image 7: segment 5: "
                                                   "id 5 is at no pixel of 000000000007.png"),
    "segment not listed": (lambda f: PANOPTIC(f)["segments_info"].pop(),
                           "image 7: segments_info lacks the id 3 that 000000000007.png shows"),
    "segment twice": (lambda f: PANOPTIC(f)["segments_info"].append({"id": 3, "category_id": 18}),
                      "image 7: segment 3: id is used twice"),
    "segment zero": (change(segment, id=0), "segment 0: id is 0, needs a whole number from 1 to 1"),
    "segment unknown": (change(segment, category_id=4), "segment 1001: category_id 4 is not among"),
    "no segments": (without(PANOPTIC, "segments_info"), "image 7: segments_info is missing or no"),
    "no panoptic picture": (change(PANOPTIC, file_name="x.png"), "image 7: file_name 'x.png' is n"),
    "thing or stuff": (without(first("panoptic", "categories"), "isthing"), "isthing is missing"),
    "panoptic twice": (again("panoptic"), "panoptic_val2017.json: image 7: image_id is used twice"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_the_malformed_is_named(tmp_path, what):
    spoil, message = MALFORMED[what]
    files = json.loads(json.dumps(real_files()))          # so that no two files share an entry
    spoil(files)
    folder = put(tmp_path / "coco", files)
    with pytest.raises(ValueError) as caught:
        list(read(folder))
    assert message in str(caught.value)
