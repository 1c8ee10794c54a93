"""What is kept on disk: weights with their cards, checkpoints and logs, whole or not at all.

What is shipped is NAME.safetensors, tensors and nothing that could run (no pickle), and NAME.json,
its card: where they came from and which bytes they are (sha256). A run's folder, never shipped,
holds checkpoint/state.pt, read back with weights_only=True, and log.jsonl.
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as bytes_from_tensors

from .reading import json_object

SUFFIX = ".safetensors"
CHECKPOINTS = ("checkpoint", "checkpoint.old")            # where one may lie, the newer first


def make_card(
    name: str,
    command: str,
    steps: int,
    data: str,
    device: str,
    minutes: float,
    metrics: dict,
    config: dict,
    training: dict | None = None,
) -> dict:
    """A card: which command made the weights called `name`, from what, on what, how well.

    `training` says more of how: optimizer, precision, cores of a CPU, losses besides the paper's.
    The git revision and the version of torch are looked up here; `save` adds what depends on
    the tensors. There is no date: the same training gives the same card.
    """
    return {
        "name": name,
        "command": command,
        "revision": _revision(),
        "torch": torch.__version__,
        "steps": steps,
        "data": data,
        "device": device,
        "minutes": round(minutes, 2),
        "training": training or {},
        "metrics": metrics,
        "config": config,
    }


def save(
    tensors: dict[str, torch.Tensor], path: str | Path, card: dict, *, half: bool = True
) -> dict:
    """Write the tensors to `path` (.safetensors) and their card beside it, both or neither.

    Floating tensors are stored as float16, or as they are with half=False. Returns the card as
    written, with `precision`, `parameters` and `sha256` added. Raises ValueError for numbers
    that are not finite or too big for float16, and OSError, the old files whole, when the disk
    refuses.
    """
    path = _weights_path(path)
    stored = {name: _stored(name, tensor, half) for name, tensor in tensors.items()}
    if not stored:
        raise ValueError(f"There is nothing to save in {path}: the dict of tensors is empty.")
    data = bytes_from_tensors(stored)
    card = card | {
        "precision": "float16" if half else "as trained",
        "parameters": sum(tensor.numel() for tensor in stored.values()),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The card of {path} cannot be written as JSON ({error}); "
            "give plain, finite numbers, words, lists and dicts."
        ) from error
    _write_all({path: data, _card_path(path): text.encode()})
    return card


def load(path: str | Path, command: str | None = None) -> dict[str, torch.Tensor]:
    """Read the tensors that `save` wrote, floating ones as float32, after checking their sha256.

    `command` is what an error tells the reader to run; without it `python course.py train NAME`.
    Raises FileNotFoundError when the file or its card is missing, and ValueError when the file
    is not, byte for byte, the one that the card describes.
    """
    path = _weights_path(path)
    remedy = f"Make it with: {command or f'python course.py train {path.stem}'}"
    if not path.is_file():
        raise FileNotFoundError(f"The weights {path} are missing. {remedy}")
    described = card(path, command)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != described.get("sha256"):
        raise ValueError(
            f"The weights {path} ({len(data)} bytes) are not those of their card "
            f"{_card_path(path).name}: one of the two is truncated or altered. {remedy}"
        )
    try:
        tensors = tensors_from_bytes(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}). {remedy}") from error
    return {n: x.float() if x.is_floating_point() else x for n, x in tensors.items()}


def card(path: str | Path, command: str | None = None) -> dict:
    """The card of the weights at `path`, as a dict; errors as in `load`."""
    weights = _weights_path(path)
    path = _card_path(weights)
    remedy = f"Make it with: {command or f'python course.py train {weights.stem}'}"
    if not path.is_file():
        raise FileNotFoundError(f"The card {path} of {weights.name} is missing. {remedy}")
    try:
        read = json_object(path)
    except ValueError as error:
        raise ValueError(f"The card {error} {remedy}") from error
    for key in ("config", "metrics"):
        if not isinstance(read.get(key), dict):
            raise ValueError(f"The card {path} has no {key!r}, or one that is no object. {remedy}")
    return read


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part (text: UTF-8).

    Raises OSError, the old file whole, when the disk is full or refuses.
    """
    _write_all({Path(path): data.encode() if isinstance(data, str) else data})


def has_checkpoint(folder: str | Path) -> bool:
    """Whether `load_checkpoint` finds one there."""
    return any(Path(folder, name, "state.pt").is_file() for name in CHECKPOINTS)


def save_checkpoint(state: dict, folder: str | Path) -> None:
    """Write FOLDER/checkpoint/state.pt; until the new one is whole the old one stays in place."""
    new, now, old = (
        Path(folder, f"checkpoint{end}") for end in (f".tmp-{os.getpid()}", "", ".old")
    )
    for left in Path(folder).glob("checkpoint.tmp-*"):  # by a run that was killed while saving
        shutil.rmtree(left, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        with open(new / "state.pt", "wb") as file:
            torch.save(state, file)
            _to_disk(file)
        if now.exists():
            shutil.rmtree(old, ignore_errors=True)
            now.rename(old)
        new.rename(now)
    except (OSError, RuntimeError) as error:  # torch may wrap a full disk in a RuntimeError
        raise OSError(
            getattr(error, "errno", None),
            f"The checkpoint {now} could not be written ({error}); the old one is untouched.",
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: str | Path) -> dict | None:
    """Read FOLDER/checkpoint/state.pt onto the CPU; None where there is none.

    A crash between the two renames of `save_checkpoint` leaves the older one as checkpoint.old.
    """
    for name in CHECKPOINTS:
        path = Path(folder, name, "state.pt")
        if path.is_file():
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # zip, pickle and end-of-file errors alike
                raise ValueError(
                    f"The checkpoint {path} cannot be read; remove its folder to start again."
                ) from error
    return None


def append_line(path: Path | None, record: dict) -> None:
    """Add a JSON line to a log; without a path do nothing."""
    if path:
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OSError(
                error.errno, f"The log {path} could not be written: {error.strerror}."
            ) from error


def cut_log(path: Path | None, step: int) -> None:
    """Keep of a log the lines up to `step`; what a killed run wrote after it will come again.

    A line that a crash left broken goes too: it must not keep the run from going on.
    """
    if path:
        lines = path.read_bytes().splitlines(True) if step and path.exists() else []
        atomic_write(path, b"".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: bytes) -> float:
    """The step that a whole line of a log tells of; infinity for a broken one."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _write_all(files: dict[Path, bytes]) -> None:
    """Write every file under a temporary name first; only when all are whole do they move in."""
    mark = f".tmp-{os.getpid()}-{threading.get_ident()}"
    waiting = {path: path.with_name(path.name + mark) for path in files}
    path = next(iter(files))
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_through(waiting[path], data)
        for path, temporary in waiting.items():
            os.replace(temporary, path)
    except OSError as error:
        kept = "the old file is untouched" if path.exists() else "nothing was left behind"
        raise OSError(
            error.errno, f"{path} could not be written: {error.strerror or error}; {kept}."
        ) from error
    finally:
        for temporary in waiting.values():
            with suppress(OSError):  # moved in already, or never begun
                temporary.unlink()


def _write_through(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        _to_disk(file)


def _to_disk(file: IO[bytes]) -> None:
    """Wait until the bytes are on the disk, so that after a power cut a rename moves them."""
    file.flush()
    os.fsync(file.fileno())


def _stored(name: str, tensor: torch.Tensor, half: bool) -> torch.Tensor:
    """A copy for the file: on the CPU, contiguous, and sharing memory with no other tensor."""
    if not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous().clone()
    if not tensor.isfinite().all():
        raise ValueError(f"Tensor {name} holds numbers that are not finite; it was not saved.")
    stored = tensor.detach().to("cpu", torch.float16 if half else tensor.dtype, copy=True)
    if not stored.isfinite().all():
        raise ValueError(f"Tensor {name} holds numbers too big for float16; save with half=False.")
    return stored.contiguous()


def _weights_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"Weights are kept in {SUFFIX} files; {path} has another ending.")
    return path


def _card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _revision() -> str:
    """The git revision of the course's own code, or "unknown" outside a checkout."""
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        requested = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return requested.stdout.strip()
