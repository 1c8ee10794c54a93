"""Renders of many scenes, made once by several processes and read back as memory maps."""

import ast
import hashlib
import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import current_process, get_context, parent_process
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from .render import boxes, render
from .scene import MAX_THINGS, scene
from .vocabulary import seeds

DRAWING = ("vocabulary", "scene", "pen", "backdrop", "things", "posable", "weather", "render")
CHUNK = 64
SAMPLED = 8                                               # scenes by which an old cache is judged
GUARD = ("Several processes draw scenes, and each runs your script from its beginning: put what it "
         'does under `if __name__ == "__main__":`, or call renders(..., processes=1).')


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

    A cache of more scenes than these serves as well, and one that other code drew is drawn again.
    The arrays are written beside the cache and renamed when whole, so that a stopped run leaves
    no half cache; a lock lets a second process wait for the first instead of drawing again.
    RuntimeError in a script without a main guard, OSError where the disk has no room.
    """
    if getattr(current_process(), "_inheriting", False):  # a worker that reads the script again
        raise RuntimeError(GUARD)
    chosen = seeds(split, count)
    folder = Path(folder or default_folder())
    folder.mkdir(parents=True, exist_ok=True)
    target = larger(folder, split, count, size) or folder / f"{split}-{count}-{size}"
    if not is_current(target):
        with waiting_for(target, "draws"):
            if not is_current(target) and not still_right(target):
                few = count <= 8 * CHUNK or parent_process()      # not worth, or not allowed to
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
        if number.isdigit() and int(number) > count and (is_current(path) or still_right(path)):
            found[int(number)] = path
    return found[min(found)] if found else None


@cache
def code_version() -> str:
    """Twelve letters that change when the code that draws scenes does, or Pillow's version.

    Comments, docstrings and imports draw nothing and do not count.
    """
    whole = hashlib.sha256(PIL.__version__.encode())
    for name in DRAWING:
        tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                told = ast.get_docstring(node) is not None
                node.body = [line for line in node.body[told:]
                             if not isinstance(line, ast.Import | ast.ImportFrom)]
        whole.update(ast.dump(tree).encode())
    return whole.hexdigest()[:12]


def about(target: Path) -> dict:
    """What a cache says of itself; nothing where there is none."""
    try:
        return json.loads((target / "about.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def is_current(target: Path) -> bool:
    """Whether a cache was drawn by the code that is here now."""
    return about(target).get("code") == code_version()


def still_right(target: Path) -> bool:
    """Whether a cache from before caches named their code shows what this code draws; then note so.

    Judged by a few scenes between the first and the last.
    """
    said = about(target)
    if "first" not in said or "code" in said:
        return False
    images, found = (np.load(target / f"{name}.npy", mmap_mode="r") for name in
                     ("images", "boxes_xyxy"))
    for row in np.linspace(0, len(images) - 1, SAMPLED).astype(int).tolist():
        one = scene(said["first"] + row)
        drawn = render(one, said["size"])
        same = np.array_equal(images[row], drawn.image) and np.array_equal(
            found[row, :len(one.things)], boxes(one, drawn.ids))
        if not same:
            return False
    with suppress(OSError):                               # a folder that may only be read
        part = target / f"about.{uuid.uuid4().hex[:8]}"
        part.write_text(json.dumps(said | {"code": code_version()}), encoding="utf-8")
        os.replace(part, target / "about.json")
    return True


@contextmanager
def waiting_for(target: Path, does: str) -> Iterator[None]:
    """Hold the lock of a file or folder; who has to wait says for what."""
    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process {does} {target}: waiting until it has ended", file=sys.stderr,
              flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
        said = {"first": chosen.start, "size": size, "code": code_version()}
        (part / "about.json").write_text(json.dumps(said), encoding="utf-8")
        if target.exists():
            target.rename(part / "old")                   # drawn by other code; who reads it, may
        part.rename(target)
        shutil.rmtree(target / "old", ignore_errors=True)
    except BrokenProcessPool as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RuntimeError(f"A process that drew scenes has died. {GUARD}") from error
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
    """Make the arrays with all their room on the disk: a memory map that lacks some kills."""
    shapes = {"images": ((count, size, size, 3), np.uint8), "ids": ((count, size, size), np.uint8),
              "boxes_xyxy": ((count, MAX_THINGS, 4), np.float32)}
    for name, (shape, dtype) in shapes.items():
        path = part / f"{name}.npy"
        np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
        try:
            reserve(path)
        except OSError as error:
            raise OSError(error.errno, f"{path} needs {path.stat().st_size / 1e6:.0f} MB, and "
                          f"{shutil.disk_usage(part).free / 1e6:.0f} MB are free; nothing was "
                          "left behind.") from error


def reserve(path: Path) -> None:
    """Take the room that a file claims to have; OSError where the disk has less."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:                                             # not on macOS and Windows: write zeros
            file.seek(4096)                               # behind NumPy's header
            for left in range(size - 4096, 0, -2 ** 20):
                file.write(bytes(min(left, 2 ** 20)))
            file.flush()
            os.fsync(file.fileno())


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
