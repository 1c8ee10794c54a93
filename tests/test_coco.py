"""COCO out: what we write is read by pycocotools, and by us, as what was rendered."""

import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from real_coco import quietly

from gligen_lessons import world
from gligen_lessons.world import coco_out
from gligen_lessons.world import vocabulary as v
from gligen_lessons.world.coco_in import read
from gligen_lessons.world.coco_out import write
from gligen_lessons.world.records import record

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
ROOT = Path(__file__).resolve().parent.parent
SEEDS = [*world.seeds("val", 8), *world.seeds("control", 4), *world.seeds("novel", 4)]
SIZE = 96                                                 # not a power of two, on purpose


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("coco") / "set", SEEDS, SIZE, progress=False)


def rendered(seed):
    scene = world.scene(seed)
    return scene, world.render(scene, SIZE)


def test_pycocotools_finds_masks_boxes_and_areas(written):
    coco = quietly(written / "annotations" / "instances.json")
    assert coco.getImgIds() == SEEDS
    for seed in SEEDS:
        scene, drawn = rendered(seed)
        shapes = world.masks(scene, drawn.ids)
        found = coco.loadAnns(coco.getAnnIds([seed]))
        assert [coco.cats[a["category_id"]]["name"] for a in found] == [
            t.category for t, shape in zip(scene.things, shapes, strict=True) if shape.any()]
        for annotation, shape in zip(found, shapes[shapes.any((1, 2))], strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), shape)
            x, y, w, h = annotation["bbox"]
            rows, columns = shape.any(1).nonzero()[0], shape.any(0).nonzero()[0]
            assert (x, y, x + w, y + h) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert annotation["area"] == shape.sum() and annotation["iscrowd"] == 0


def test_pycocotools_finds_five_captions_a_picture(written):
    coco = quietly(written / "annotations" / "captions.json")
    for seed in SEEDS:
        said = [a["caption"] for a in coco.loadAnns(coco.getAnnIds([seed]))]
        assert said == world.captions(world.scene(seed))


def test_pycocotools_scores_key_points_against_themselves(written):
    """The published evaluation, given the truth as its result, finds an average precision of 1."""
    from pycocotools.cocoeval import COCOeval

    coco = quietly(written / "annotations" / "person_keypoints.json")
    truth = list(coco.anns.values())
    assert {coco.cats[a["category_id"]]["name"] for a in truth} == set(v.POSABLE)
    assert all(c["keypoints"] == list(v.KEYPOINTS) and len(c["skeleton"]) == 19
               for c in coco.cats.values())
    with contextlib.redirect_stdout(io.StringIO()):
        result = coco.loadRes([{k: a[k] for k in ("image_id", "category_id", "keypoints")}
                               | {"score": 1.} for a in truth])
        judge = COCOeval(coco, result, "keypoints")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    assert judge.stats[0] == pytest.approx(1)


def test_key_points_belong_to_posable_things_and_keep_their_id(written):
    things = quietly(written / "annotations" / "instances.json")
    points = quietly(written / "annotations" / "person_keypoints.json")
    posed = {i for i, a in things.anns.items()
             if things.cats[a["category_id"]]["name"] in v.POSABLE}
    assert set(points.anns) == posed and posed
    for number, annotation in points.anns.items():
        assert annotation["bbox"] == things.anns[number]["bbox"]
        seen = annotation["keypoints"][2::3]
        assert annotation["num_keypoints"] == sum(x > 0 for x in seen)


def test_panoptic_png_and_json_say_the_same(written):
    panoptic = json.loads((written / "annotations" / "panoptic.json").read_text())
    things = quietly(written / "annotations" / "instances.json")
    kinds = {c["id"]: c for c in panoptic["categories"]}
    assert {c["name"] for c in kinds.values() if c["isthing"]} == set(v.CATEGORIES)
    assert {c["name"] for c in kinds.values() if not c["isthing"]} == set(v.STUFF)
    used = [s["id"] for a in panoptic["annotations"] for s in a["segments_info"]]
    assert len(used) == len(set(used))
    for annotation in panoptic["annotations"]:
        rgb = np.asarray(Image.open(written / "panoptic" / annotation["file_name"]), int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 256 ** 2 * rgb[..., 2]
        assert set(np.unique(ids)) == {s["id"] for s in annotation["segments_info"]}
        for segment in annotation["segments_info"]:
            assert segment["area"] == (ids == segment["id"]).sum()
            box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(ids == segment["id"],
                                                                      np.uint8)))
            assert segment["bbox"] == box.tolist()
            if kinds[segment["category_id"]]["isthing"]:
                thing = things.anns[segment["id"]]
                np.testing.assert_array_equal(things.annToMask(thing), ids == segment["id"])
                assert thing["category_id"] == segment["category_id"]


def test_panoptic_ids_above_255_use_all_channels():
    catalogue = coco_out._Catalogue()
    catalogue.ids = iter(range(70_000, 80_000))
    scene, drawn = rendered(SEEDS[0])
    rgb = catalogue.add(scene, drawn, SEEDS[0], "x.png").astype(int)
    ids = set(np.unique(rgb @ (1, 256, 256 ** 2)))
    assert ids == {s["id"] for s in catalogue.annotations["panoptic"][0]["segments_info"]}
    assert min(ids) >= 70_000


def test_round_trip_gives_the_same_records(written):
    folder = read(written)
    assert len(folder) == len(SEEDS) and folder.categories == list(v.CATEGORIES)
    for got, seed in zip(folder, SEEDS, strict=True):
        want = record(world.scene(seed), SIZE)
        assert (got.captions, got.categories, got.phrases) == (want.captions, want.categories,
                                                               want.phrases)
        for name in ("image", "boxes_xyxy", "masks", "keypoints", "crowd"):
            a, b = getattr(got, name), getattr(want, name)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=f"{name} of seed {seed}")
        assert got.stuff.keys() == want.stuff.keys()
        for word in want.stuff:
            np.testing.assert_array_equal(got.stuff[word], want.stuff[word])
        assert got.name == f"{seed:012d}"


def test_writing_twice_gives_the_same_bytes(written, tmp_path):
    again = write(tmp_path / "again", SEEDS[:3], SIZE, progress=False)
    whole = write(tmp_path / "whole", SEEDS[:3], SIZE, progress=False)
    files = sorted(p.relative_to(again) for p in again.rglob("*.*"))
    assert len(files) == 3 + 3 + 4
    for file in files:
        assert (again / file).read_bytes() == (whole / file).read_bytes()


def test_an_existing_folder_is_left_alone(written, tmp_path):
    before = sorted(written.parent.rglob("*"))
    with pytest.raises(FileExistsError, match="exists already; give a new folder"):
        write(written, SEEDS[:1], SIZE, progress=False)
    assert sorted(written.parent.rglob("*")) == before


@pytest.mark.parametrize("seeds, size, message", [
    ([], 32, "no seeds"), ([3, 4, 3], 32, "Seed 3 is given twice"),
    ([3, 99_000_000], 32, "belongs to no split"), ([3], 100, "drawn at one of 32"),
])
def test_what_cannot_be_written_leaves_nothing(tmp_path, seeds, size, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "out", seeds, size, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stopped_run_leaves_nothing(tmp_path, monkeypatch, stop):
    def third(*arguments):
        if len(list(tmp_path.rglob("*.png"))) >= 4:
            raise stop
        return world.render(*arguments)

    monkeypatch.setattr(coco_out, "render", third)
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop):
        write(tmp_path / "out", SEEDS, 32, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_after_a_killed_run_the_next_one_succeeds(tmp_path):
    code = ("import sys; from gligen_lessons.world.coco_out import write; "
            "write(sys.argv[1], range(20000), 32, progress=False)")
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], cwd=ROOT)
    until(lambda: len(list(tmp_path.rglob("*.png"))) > 6)
    with pytest.raises(FileExistsError, match="Another process is writing"):
        write(tmp_path / "out", [0], 32, progress=False)
    run.kill()
    run.wait()
    assert not (tmp_path / "out").exists()
    assert len(read(write(tmp_path / "out", SEEDS[:2], 32, progress=False))) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def until(true, seconds=60.):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(.02)


def test_an_empty_folder_is_as_good_as_none_and_a_dead_link_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", v.seeds("val", 1), 32, progress=False)
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {
        "annotations", "images", "panoptic"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="link is a link that leads nowhere"):
        write(tmp_path / "link", v.seeds("val", 1), 32, progress=False)
    assert not (tmp_path / "nowhere").exists()
