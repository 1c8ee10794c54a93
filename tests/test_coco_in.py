"""COCO in: a small set in the layout of the real one, read as records."""

import numpy as np
import pytest
from PIL import Image
from real_coco import BLOB, H, W, panoptic_ids, put, quietly, real_files, rle

from gligen_lessons import boxes
from gligen_lessons.world import coco_check, coco_in
from gligen_lessons.world.coco_in import read

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.fixture
def real(tmp_path):
    return put(tmp_path / "coco", real_files())


def test_the_layout_of_the_real_set_is_read(real):
    folder = read(real)
    assert [r.name for r in folder] == ["000000000007", "000000000300", "000000000041"]
    assert folder.categories == ["person", "dog", "toothbrush"]
    one = folder[0]
    assert one.categories == one.phrases == ["dog", "person", "toothbrush", "toothbrush"]
    assert one.captions == ["A dog.", "A person and a dog"]
    assert one.crowd.tolist() == [False, False, True, False]
    assert one.image.shape == (H, W, 3) and one.masks.shape == (4, H, W)


def test_boxes_are_cut_at_the_border_and_empty_ones_left_out(real):
    boxes = read(real)[0].boxes_xyxy * (W, H, W, H)
    np.testing.assert_allclose(boxes, [[0, 3, 6.5, 12], [5, 3, 15, 9], [5, 3, 15, 9],
                                       [16, 0, 20, 12]], atol=1e-5)


def test_polygons_and_run_lengths_are_what_pycocotools_makes_of_them(real):
    coco = quietly(real / "annotations" / "instances_val2017.json")
    masks = read(real)[0].masks
    for number, mask in zip((42, 43, 900100000007, 44), masks, strict=True):
        np.testing.assert_array_equal(mask, coco.annToMask(coco.anns[number]))
    assert masks[0][3:8, 3:11].all() and masks[0][2, 16]  # both polygons
    np.testing.assert_array_equal(masks[2], BLOB)


def test_key_points_are_parts_of_the_picture(real):
    points = read(real)[0].keypoints
    np.testing.assert_allclose(points[1, 0], [7.5 / W, 4 / H, 2], atol=1e-6)
    np.testing.assert_allclose(points[1, 15], [6 / W, 8 / H, 1], atol=1e-6)
    assert not points[1, 16].any()                        # labelled outside the picture
    assert not points[[0, 2, 3]].any()


def test_stuff_is_read_and_joined_by_word(real):
    one = read(real)[0]
    assert one.stuff.keys() == {"wall-other"}
    np.testing.assert_array_equal(one.stuff["wall-other"],
                                  (panoptic_ids() == 70_000) | (panoptic_ids() == 3))


def test_a_picture_without_annotations_and_a_grey_one(real):
    empty, grey = read(real)[1:]
    assert empty.masks.shape == (0, H, W) and empty.boxes_xyxy.shape == (0, 4)
    assert empty.keypoints.shape == (0, 17, 3) and empty.captions == [] == empty.categories
    assert empty.stuff == {} and empty.crowd.shape == (0,)
    assert grey.image.shape == (H, W, 3) and (np.ptp(grey.image, axis=2) == 0).all()
    assert grey.categories == ["person"]


@pytest.mark.parametrize("gone", ["captions", "panoptic", "person_keypoints"])
def test_a_missing_file_means_none_of_it(tmp_path, gone):
    files = real_files()
    del files[gone]
    one = read(put(tmp_path / "coco", files))[0]
    assert (one.captions == []) == (gone == "captions")
    assert (one.stuff == {}) == (gone == "panoptic")
    assert one.keypoints.any() == (gone != "person_keypoints")
    assert len(one.categories) == 4


@pytest.mark.parametrize("bare", [lambda entry: entry.pop("segmentation"),
                                  lambda entry: entry.update(segmentation=[]),
                                  lambda entry: entry.update(segmentation=None)])
def test_a_set_of_boxes_alone_is_read(tmp_path, bare):
    files = real_files()
    for entry in files["instances"]["annotations"]:
        bare(entry)
        for key in ("iscrowd", "area"):
            entry.pop(key, None)
    with pytest.warns(UserWarning, match="instances_val2017.json: 6 of 6 annotations have no segm"):
        folder = read(put(tmp_path / "coco", files))
    one, whole = folder[0], read(put(tmp_path / "whole", real_files()))[0]
    np.testing.assert_array_equal(one.boxes_xyxy, whole.boxes_xyxy)
    assert one.phrases == whole.phrases and not one.crowd.any()
    assert one.masks.shape == (4, H, W) and not one.masks.any()


@pytest.mark.parametrize("kind, what", [("captions", "2 of 4 captions"),
                                        ("person_keypoints", "2 of 3 annotations"),
                                        ("panoptic", "1 of 2 annotations")])
def test_what_belongs_to_pictures_that_are_not_listed_is_left_out(tmp_path, kind, what):
    """A part of COCO's pictures with the whole of its captions, as many a tutorial has it."""
    files = real_files()
    more = [dict(entry, image_id=999, id=entry.get("id", 0) + 10_000 + i) for i, entry in
            enumerate(2 * files[kind]["annotations"])][:1 if kind == "panoptic" else 2]
    files[kind]["annotations"] = more[:1] + files[kind]["annotations"] + more[1:]
    with pytest.warns(UserWarning, match=f"{kind}_val2017.json: {what} are of pictures that"):
        one = read(put(tmp_path / "coco", files))[0]
    assert one.captions == ["A dog.", "A person and a dog"]
    assert one.keypoints.any() and one.stuff.keys() == {"wall-other"}


@pytest.mark.parametrize("bbox", [(W - 1e-7, 2, .5, 5), (3, H - 1e-7, 2, 2), (3, 2, 1e-12, 5),
                                  (1e200, 2, 1e200, 5)])
def test_a_box_is_judged_as_it_is_stored(tmp_path, bbox):
    """In 32 bits: what has no width there is refused by all that reads it next."""
    files = real_files()
    files["instances"]["annotations"][0]["bbox"] = list(bbox)
    one = read(put(tmp_path / "coco", files))[0]
    assert len(one.boxes_xyxy) == 3
    boxes.check_boxes(one.boxes_xyxy)


def test_a_grey_picture_of_sixteen_bits_keeps_its_greys(real):
    ramp = np.tile(np.linspace(0, 65535, W).astype(np.uint16), (H, 1))
    Image.fromarray(ramp).save(real / "val2017" / "grey.png")
    (real / "val2017" / "grey.png").replace(real / "val2017" / "000000000300.jpg")
    np.testing.assert_array_equal(read(real)[1].image[0, :, 0], np.rint(ramp[0] / 257.))


def test_masks_too_many_for_memory_are_refused(real, monkeypatch):
    monkeypatch.setattr(coco_in, "MASKS", 4 * H * W - 1)
    with pytest.raises(ValueError, match="image 7: its 4 masks of 20 by 12 pixels .* smaller size"):
        read(real)[0]
    with pytest.raises(ValueError, match="from 1 to 16384"):
        read(real, size=10 ** 9)


def test_size_changes_pictures_and_masks_not_boxes(real):
    small, full = read(real, size=6)[0], read(real)[0]
    assert small.image.shape == (6, 6, 3) and small.masks.shape == (4, 6, 6)
    assert small.stuff["wall-other"].shape == (6, 6)
    np.testing.assert_array_equal(small.boxes_xyxy, full.boxes_xyxy)
    np.testing.assert_array_equal(small.keypoints, full.keypoints)
    np.testing.assert_array_equal(small.masks[1], BLOB[1::2][:, [1, 5, 8, 11, 15, 18]])


def test_limit_takes_the_first_and_reads_no_further(real):
    assert [r.name for r in read(real, limit=2)] == ["000000000007", "000000000300"]
    (real / "val2017" / "000000000041.jpg").unlink()
    assert len(read(real, limit=2)) == 2 and len(read(real, limit=0)) == 0
    with pytest.raises(ValueError, match="limit is -1"):
        read(real, limit=-1)
    with pytest.raises(ValueError, match="size is 0"):
        read(real, size=0)


def test_it_is_a_sequence(real):
    folder = read(real)
    assert folder[-1].name == folder[2].name == folder[::-1][0].name
    with pytest.raises(IndexError):
        folder[3]


def test_several_splits_need_a_choice(real, tmp_path):
    files = real_files()
    files["instances"]["images"] = files["instances"]["images"][:1]
    files["instances"]["annotations"] = []
    more = put(tmp_path / "more", {"instances": files["instances"]}, "train2017")
    (more / "annotations" / "instances_train2017.json").rename(
        real / "annotations" / "instances_train2017.json")
    (more / "train2017").rename(real / "train2017")
    with pytest.raises(ValueError, match="several splits; .* train2017, val2017"):
        read(real)
    assert len(read(real, split="train2017")) == 1 and len(read(real, split="val2017")) == 3


def test_other_places_for_pictures(real):
    (real / "val2017").rename(real / "images")
    (real / "panoptic_val2017").rename(real / "annotations" / "panoptic_val2017")
    assert read(real)[0].stuff
    (real / "images").rename(real / "elsewhere")
    with pytest.raises(FileNotFoundError, match="instances_val2017.json: its pictures are missing"):
        read(real)


def test_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no annotations/instances_SPLIT.json"):
        read(tmp_path)

def test_pictures_that_lie_about_themselves(real):
    path = real / "val2017" / "000000000300.jpg"
    Image.new("RGB", (W, H + 1)).save(path)
    with pytest.raises(ValueError, match="image 300: width and height are 20 and 12, but .* by 13"):
        read(real)[1]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="image 300: file_name .* cannot be read as a picture"):
        read(real)[1]
    read(real)[0]                                         # the others are still there


def test_compressed_run_lengths_are_read_as_pycocotools_does():
    """Our reading of the letters, which only checks, against the published encoder."""
    rng = np.random.default_rng(1)
    entry = coco_check.Entry({}, "here")
    for part in (.02, .3, .5, .97):
        mask = rng.random((61, 47)) < part
        mask[:, 10:30] = part > .4                        # long runs, and differences below zero
        assert coco_check.run_lengths(entry, rle(mask, True)["counts"]) == [
            *rle(mask, False)["counts"]]
