"""The cache of renders: several processes, one that is killed, two that ask at once."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from gligen_lessons import world
from gligen_lessons.world import cache
from gligen_lessons.world.cache import CHUNK, default_folder, renders
from gligen_lessons.world.scene import MAX_THINGS

ROOT = Path(__file__).resolve().parent.parent
ASK = """
import hashlib, sys
from gligen_lessons.world.cache import renders
if __name__ == "__main__":
    got = renders("val", int(sys.argv[2]), 64, sys.argv[1], processes=2, progress=False)
    print(hashlib.sha256(got.images.tobytes() + got.ids.tobytes()
                         + got.boxes_xyxy.tobytes()).hexdigest())
"""


@pytest.fixture
def ask(tmp_path):
    """Starts a process that asks for the first scenes of val."""
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    started = []

    def start(count):
        started.append(subprocess.Popen([sys.executable, script, tmp_path / "cache", str(count)],
                                        stdout=subprocess.PIPE, text=True,
                                        env=os.environ | {"PYTHONPATH": str(ROOT)}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(true, seconds=60.):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(.02)


def folders(path):
    return sorted(p.name for p in path.iterdir() if p.is_dir())


def children(number):
    """The processes that one process started, by /proc; None where there is no /proc."""
    path = f"/proc/{number}/task/{number}/children"
    if not os.path.exists(path):
        return None
    with open(path, encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def alive(number):
    """Whether a process still runs; one that ended and waits to be reaped does not."""
    try:
        with open(f"/proc/{number}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_several_processes_draw_what_one_draws(tmp_path):
    count = 2 * CHUNK + 5                                 # a last chunk that is not full
    got = renders("val", count, 32, tmp_path, processes=2, progress=False)
    assert got.seeds == world.seeds("val", count) and len(got.images) == count
    assert got.boxes_xyxy.shape == (count, MAX_THINGS, 4)
    for row, seed in enumerate(got.seeds):
        one = world.scene(seed)
        drawn = world.render(one, 32)
        np.testing.assert_array_equal(got.images[row], drawn.image)
        np.testing.assert_array_equal(got.ids[row], drawn.ids)
        here = len(one.things)
        np.testing.assert_array_equal(got.boxes_xyxy[row, :here], world.boxes(one, drawn.ids))
        assert not got.boxes_xyxy[row, here:].any()


def test_what_is_there_is_not_drawn_again_and_cannot_be_written(tmp_path, monkeypatch):
    first = renders("val", 4, 32, tmp_path, processes=1, progress=False)
    monkeypatch.setattr("gligen_lessons.world.cache._draw_all", None)
    again = renders("val", 4, 32, tmp_path)
    np.testing.assert_array_equal(first.images, again.images)
    assert isinstance(again.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again.images[0] = 0


def test_sets_that_differ_have_folders_of_their_own(tmp_path):
    for split, count, size in (("val", 2, 32), ("val", 3, 32), ("val", 2, 48), ("test", 2, 32)):
        got = renders(split, count, size, tmp_path, processes=1, progress=False)
        assert got.images.shape == (count, size, size, 3)
        assert got.seeds[0] == world.SPLITS[split].start
    assert folders(tmp_path) == ["test-2-32", "val-2-32", "val-2-48", "val-3-32"]


def test_a_larger_set_serves_a_smaller_one(tmp_path):
    more = renders("val", 5, 32, tmp_path, progress=False)
    few = renders("val", 3, 32, tmp_path, progress=False)
    assert folders(tmp_path) == ["val-5-32"] and len(few.images) == len(few.seeds) == 3
    np.testing.assert_array_equal(few.images, more.images[:3])
    assert len(renders("single-test", 2, 32, tmp_path, progress=False).images) == 2
    assert folders(tmp_path) == ["single-test-2-32", "val-5-32"]


def test_two_processes_asking_at_once_get_the_same(tmp_path, ask):
    both = [ask(150), ask(150)]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    h = hashlib.sha256()
    drawn = [world.render(world.scene(seed), 64) for seed in world.seeds("val", 150)]
    boxes = np.zeros((150, MAX_THINGS, 4), np.float32)
    for row, seed in enumerate(world.seeds("val", 150)):
        found = world.boxes(world.scene(seed), drawn[row].ids)
        boxes[row, :len(found)] = found
    for array in (np.stack([d.image for d in drawn]), np.stack([d.ids for d in drawn]), boxes):
        h.update(array.tobytes())
    assert answers == [h.hexdigest() + "\n"] * 2
    assert folders(tmp_path / "cache") == ["val-150-64"]


def test_a_killed_run_leaves_no_cache_and_no_worker_and_the_next_succeeds(tmp_path, ask):
    run, cache = ask(4000), tmp_path / "cache"
    until(lambda: cache.exists() and folders(cache))
    until(lambda: children(run.pid) is None or len(children(run.pid)) >= 2)
    time.sleep(.8)                                        # so that workers have begun to draw
    workers = children(run.pid)
    run.kill()
    run.wait()
    assert not (cache / "val-4000-64").exists()
    (cache / folders(cache)[0]).rename(cache / "val-40-64.part-0123abcd")
    assert ask(40).communicate(timeout=120)[0]
    assert folders(cache) == ["val-40-64"]                # what the killed run left is gone
    if workers is None:
        pytest.skip("no /proc here in which to look for workers")
    assert workers
    until(lambda: not any(map(alive, workers)))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stopped_run_leaves_nothing(tmp_path, monkeypatch, stop):
    def refuse(*arguments):
        raise stop

    monkeypatch.setattr("gligen_lessons.world.cache._allocate", refuse)
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop):
        renders("val", 4, 32, tmp_path, processes=1, progress=False)
    assert folders(tmp_path) == []


UNGUARDED = """
import sys
from gligen_lessons.world.cache import renders
renders("test", 9, 32, sys.argv[1], processes=2, progress=False)
"""


def test_a_script_without_a_main_guard_ends_and_is_told_what_to_do(tmp_path):
    (tmp_path / "mine.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, "mine.py", "here"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.strip().splitlines()[-1]
    assert folders(tmp_path / "here") == []


def test_all_room_is_taken_before_anything_is_drawn(tmp_path, monkeypatch):
    """A file with holes has none, and a memory map into a hole of a full disk kills."""
    for name in ("fallocate", "zeros"):
        (tmp_path / name).mkdir()
        if name == "zeros":
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        cache._allocate(tmp_path / name, 40, 64)
        for path in (tmp_path / name).iterdir():
            assert path.stat().st_blocks * 512 >= path.stat().st_size - 4096, path
            assert not np.load(path).any()


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"images.npy needs 1 MB, and \d+ MB are free; nothing was"):
        renders("val", 100, 64, tmp_path, processes=1, progress=False)
    assert folders(tmp_path) == []


def test_who_waits_says_for_what(tmp_path, capsys):
    lock = FileLock(tmp_path / "val-2-32.lock")
    monitor = []

    def release(text):
        monitor.append(text)
        lock.release()

    with lock, pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text, **_: release(text))
        renders("val", 2, 32, tmp_path, processes=1, progress=False)
    assert monitor == [f"another process draws {tmp_path / 'val-2-32'}: waiting until it has ended"]


def test_what_other_code_drew_is_drawn_anew(tmp_path, monkeypatch):
    right = renders("val", 5, 32, tmp_path, processes=1, progress=False).images.copy()
    target = tmp_path / "val-5-32"
    said = json.loads((target / "about.json").read_text())
    assert said["code"] == cache.code_version()
    np.lib.format.open_memmap(target / "images.npy", "r+")[:] = 7
    assert (renders("val", 3, 32, tmp_path).images == 7).all()   # by its word, the same code
    (target / "about.json").write_text(json.dumps(said | {"code": "another"}))
    few = renders("val", 3, 32, tmp_path, processes=1, progress=False)   # no larger set serves
    assert folders(tmp_path) == ["val-3-32", "val-5-32"]
    np.testing.assert_array_equal(few.images, right[:3])
    again = renders("val", 5, 32, tmp_path, processes=1, progress=False)
    np.testing.assert_array_equal(again.images, right)
    assert sorted(path.name for path in target.iterdir()) == [
        "about.json", "boxes_xyxy.npy", "ids.npy", "images.npy"]


@pytest.mark.parametrize("right", [True, False])
def test_a_cache_that_names_no_code_is_judged_by_some_scenes(tmp_path, monkeypatch, right):
    want = renders("val", 20, 32, tmp_path, processes=1, progress=False).images.copy()
    target = tmp_path / "val-20-32"
    (target / "about.json").write_text(json.dumps({"first": world.SPLITS["val"].start, "size": 32}))
    if right:
        monkeypatch.setattr(cache, "_draw_all", None)
    else:
        np.lib.format.open_memmap(target / "images.npy", "r+")[-1] = 7
    np.testing.assert_array_equal(renders("val", 20, 32, tmp_path, progress=False).images, want)
    assert cache.about(target)["code"] == cache.code_version()


def test_the_version_of_the_code_does_not_see_comments(tmp_path, monkeypatch):
    for path in Path(cache.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    requested = cache.code_version.__wrapped__
    thing = tmp_path / "things.py"
    assert requested() == cache.code_version()
    thing.write_text(thing.read_text() + "\nimport math  # a remark\n")
    assert requested() == cache.code_version()
    thing.write_text(thing.read_text() + '\ndef last():\n    """Text."""\n')
    first = requested()
    thing.write_text(thing.read_text().replace("Text.", "Another text."))
    assert requested() == first != cache.code_version()


@pytest.mark.parametrize("split, count, size, message", [
    ("vall", 4, 32, "no split 'vall'; choose from train, val"),
    ("val", -1, 32, "holds 1000000 seeds"), ("val", 10 ** 7, 32, "holds 1000000 seeds"),
    ("val", 2, 50, "drawn at one of 32, .* got 50"),
])
def test_what_cannot_be_drawn_is_named_and_leaves_nothing(tmp_path, split, count, size, message):
    with pytest.raises(ValueError, match=message):
        renders(split, count, size, tmp_path / "new", processes=1, progress=False)
    assert not (tmp_path / "new").exists() or folders(tmp_path / "new") == []


def test_the_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here" / "renders"
    renders("val", 1, 32, processes=1, progress=False)
    assert folders(tmp_path / "here" / "renders") == ["val-1-32"]
    monkeypatch.delenv("GLIGEN_LESSONS_CACHE")
    assert default_folder().parts == (".cache", "renders")
