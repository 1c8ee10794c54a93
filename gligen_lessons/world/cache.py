"""Renders of many scenes, made once by several processes and read back as memory maps."""

import json
import os
import shutil
import threading
import uuid
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from .render import boxes, render
from .scene import MAX_THINGS, scene
from .vocabulary import seeds

CHUNK = 64


@dataclass(frozen=True)
class Renders:
    """N scenes of a split as arrays on disk, all read-only.

    `images` (N,s,s,3) uint8, `ids` (N,s,s) uint8, `boxes_xyxy` (N,6,4) float32 with zero rows
    where a scene has fewer things; `seeds` tells which scene each row is.
    """

    seeds: range
    images: np.ndarray
    ids: np.ndarray
    boxes_xyxy: np.ndarray


def default_folder() -> Path:
    """Where caches live: GLIGEN_LESSONS_CACHE, else `.cache` in the working folder."""
    return Path(os.environ.get("GLIGEN_LESSONS_CACHE", ".cache")) / "renders"


def renders(split: str, count: int, size: int = 128, folder: Path | None = None,
            processes: int | None = None, progress: bool = True) -> Renders:
    """The first `count` scenes of a split at `size` pixels, from the cache or drawn now.

    A cache of more scenes than these serves as well. The arrays are written beside the cache and
    renamed when whole, so that a stopped run leaves no half cache; a lock lets a second process
    wait for the first instead of drawing again.
    """
    chosen = seeds(split, count)
    folder = Path(folder or default_folder())
    folder.mkdir(parents=True, exist_ok=True)
    target = larger(folder, split, count, size) or folder / f"{split}-{count}-{size}"
    with FileLock(f"{target}.lock"):
        if not target.exists():
            few = count <= 8 * CHUNK                      # not worth starting processes for
            processes = processes or (1 if few else os.cpu_count() or 1)
            _draw_all(target, chosen, size, processes, progress)
    arrays = {name: np.load(target / f"{name}.npy", mmap_mode="r")[:count]
              for name in ("images", "ids", "boxes_xyxy")}
    return Renders(chosen, **arrays)


def larger(folder: Path, split: str, count: int, size: int) -> Path | None:
    """The smallest cache that holds the first `count` scenes of a split and more, if any."""
    found = {}
    for path in folder.glob(f"{split}-*-{size}"):
        number = path.name.removeprefix(f"{split}-").removesuffix(f"-{size}")
        if number.isdigit() and int(number) > count:
            found[int(number)] = path
    return found[min(found)] if found else None


def _draw_all(target: Path, chosen: range, size: int, processes: int, progress: bool) -> None:
    """Draw every scene into arrays in a temporary folder, then give it its name."""
    for stale in target.parent.glob(f"{target.name}.part-*"):         # we hold the lock: left by
        shutil.rmtree(stale, ignore_errors=True)                      # a run that was killed
    part = target.with_name(f"{target.name}.part-{uuid.uuid4().hex[:8]}")
    part.mkdir()
    try:
        _allocate(part, len(chosen), size)
        chunks = [(part, chosen, start, size) for start in range(0, len(chosen), CHUNK)]
        bar = tqdm(total=len(chosen), desc="drawing scenes", unit="scene", disable=not progress)
        with bar, _mapper(processes) as draw:
            for done in draw(_draw_chunk, chunks):
                bar.update(done)
        (part / "about.json").write_text(json.dumps({"first": chosen.start, "size": size}))
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def _mapper(processes: int):
    """A `map` that this process runs, or a pool of several."""
    if processes == 1:
        yield map
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_end_with_parent) as pool:
        yield pool.map


def _end_with_parent() -> None:
    """Let this worker end when its parent is killed, instead of waiting for work forever."""
    def watch():
        parent_process().join()
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def _allocate(part: Path, count: int, size: int) -> None:
    shapes = {"images": ((count, size, size, 3), np.uint8), "ids": ((count, size, size), np.uint8),
              "boxes_xyxy": ((count, MAX_THINGS, 4), np.float32)}
    for name, (shape, dtype) in shapes.items():
        np.lib.format.open_memmap(part / f"{name}.npy", "w+", dtype, shape).flush()


def _draw_chunk(job: tuple[Path, range, int, int]) -> int:
    """Draw one run of scenes into the shared arrays; returns how many."""
    part, chosen, start, size = job
    images, ids, found = (np.load(part / f"{name}.npy", mmap_mode="r+")
                          for name in ("images", "ids", "boxes_xyxy"))
    rows = range(start, min(start + CHUNK, len(chosen)))
    for row in rows:
        one = scene(chosen[row])
        drawn = render(one, size)
        images[row], ids[row] = drawn.image, drawn.ids
        found[row, :len(one.things)] = boxes(one, drawn.ids)
    return len(rows)
