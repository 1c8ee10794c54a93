"""Training every model of the course in order: python course.py train all.

Each model stands on others, and nothing is trained on a base that will still change. Trainings run
in slices, each a process of its own that saves and ends: so the free cores can be dealt out anew
after each, and whatever stops the whole loses little. The same command goes on where it stopped.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from . import evaluate, weights
from .models import MODELS

NEEDS = {name: model.needs for name, model in MODELS.items()}
SLICE = 20                                                # minutes
LOOK = 5.                                                 # seconds between two looks at the logs
# models that are shipped together, and the figures of the report that must not get worse
SHIPPED = ((("referee-scene", "referee-crop"),
            (("referee", "scene, mean average precision of pairs"),
             ("referee", "crop, category, clean"))),
           (("ddpm", "labelled", "noisy-classifier"), (("ddpm", "frechet"),)),
           (("detr-backbone", "detr"), (("detr", "AP50"),)),
           (("vae", "clip", "ldm", "gligen", "gligen-inpaint"),
            (("vae", "psnr"), ("clip", "category"), ("ldm", "named, found, painted"),
             ("gligen", "boxes right, grounded"))))
SMALLER = {"frechet"}                                     # figures that should be small
SLACK = .01                                               # what counts as equal


@dataclass
class Slice:
    """A training that runs now: its process, how many processes share it, and its bar."""

    name: str
    process: subprocess.Popen
    share: int
    bar: tqdm


def finished(name: str, out: Path) -> bool:
    """Whether a model's weights lie in `out`."""
    return weights.path(name, out).exists()


def trainable(out: Path, running: set[str], needs: dict = NEEDS) -> list[str]:
    """The models that can be trained now: not finished, not running, all that they need there."""
    return [name for name, bases in needs.items() if name not in running
            and not finished(name, out) and all(finished(base, out) for base in bases)]


def lanes() -> int:
    """How many trainings run side by side: two on a CPU with two cores or more, else one."""
    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def command(name: str, out: Path, share: int, minutes: float, steps: int | None) -> list[str]:
    """What trains a model for some minutes, in one process or several that share each batch."""
    start = ["-m", "gligen_lessons.train"] if share == 1 else [
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(share),
        "-m", "gligen_lessons.train"]
    few = ["--steps", str(steps)] if steps else []
    return [sys.executable, *start, name, "--out", str(out), "--resume", "--minutes", str(minutes),
            *few]


def started(words: list[str], name: str, out: Path, share: int, position: int) -> Slice:
    """Start a slice by its command; what it prints goes to OUT/NAME/output.txt."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // lanes())
    env = os.environ | {weights.OWN: str(out.resolve()), "OMP_NUM_THREADS": str(threads)}
    if share > 1 and not torch.cuda.is_available():
        env |= {"ACCELERATE_USE_CPU": "true", "GLIGEN_LESSONS_DEVICE": "cpu"}
    with (folder / "output.txt").open("a", encoding="utf-8") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=env,
                                   start_new_session=True)
    return Slice(name, process, share, tqdm(
        desc=f"{name:16}", unit="step", position=position, leave=False))


def show_progress(one: Slice, out: Path) -> None:
    """Bring a bar up to date with the log."""
    folder, lines = out / one.name, []
    if (folder / "log.jsonl").exists():
        lines = [line for line in (folder / "log.jsonl").read_text("utf-8").splitlines()
                 if '"loss"' in line]
    if (folder / "run.json").exists():
        one.bar.total = json.loads((folder / "run.json").read_text("utf-8"))["steps"]
    if lines:
        state = json.loads(lines[-1])
        one.bar.n = state["step"]
        one.bar.set_postfix_str(f"loss {state['loss']:.4f}", refresh=False)
    one.bar.refresh()


def ended(one: Slice, out: Path) -> None:
    """Close a slice that has ended; RuntimeError with its last line if it failed."""
    show_progress(one, out)
    one.bar.close()
    if one.process.returncode:
        text = (out / one.name / "output.txt").read_text("utf-8", errors="replace")
        last = (text.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"Training {one.name} failed: {last} (all of it: "
                           f"{out / one.name / 'output.txt'})")
    if finished(one.name, out):
        tqdm.write(f"{one.name:16} finished after {one.bar.n} steps")


def stop(running: list[Slice]) -> None:
    """Let every training save and end."""
    for one in running:
        one.process.terminate()
    for one in running:
        one.process.wait()
        one.bar.close()


def climb(out: Path, hours: float | None = None, steps: int | None = None,
          needs: dict = NEEDS) -> int:
    """Train what is missing in `out`, then measure it and ship what is not worse.

    After `hours`, or Ctrl-C, everything is saved and the same command goes on. With `steps` all
    trainings are that short, which tries the whole in minutes, and nothing is measured or shipped.
    RuntimeError where a training fails.
    """
    end, running = time.monotonic() + 3600 * (math.inf if hours is None else hours), []
    try:
        while time.monotonic() < end and (running or trainable(out, set(), needs)):
            deal(running, out, end, steps, needs)
            time.sleep(LOOK)
            for one in list(running):
                if one.process.poll() is None:
                    show_progress(one, out)
                else:
                    running.remove(one)
                    ended(one, out)
    finally:
        stop(running)
    left = [name for name in needs if not finished(name, out)]
    if left:
        print(f"Saved. Still to train: {', '.join(left)}. The same command goes on.")
    elif not steps:
        ship(out)
    return 0


def deal(running: list[Slice], out: Path, end: float, steps: int | None, needs: dict) -> None:
    """Give free lanes to models that are ready; one that is alone gets all lanes."""
    free = lanes() - sum(one.share for one in running)
    waiting = trainable(out, {one.name for one in running}, needs)
    while free and waiting:
        share = free if len(waiting) == 1 and not running else 1
        minutes = max(.1, min(SLICE, (end - time.monotonic()) / 60))
        name = waiting.pop(0)
        words = command(name, out, share, minutes, steps)
        running.append(started(words, name, out, share, len(running)))
        free -= share


def ship(out: Path, old: Path = evaluate.FOLDER, target: Path = weights.FOLDER) -> list[str]:
    """Measure the weights in `out` and copy those to `target` that are not worse; their names."""
    os.environ[weights.OWN] = str(out.resolve())
    evaluate.main(["--out", str(out / "report")])
    new, before = (json.loads((folder / "report.json").read_text("utf-8"))
                   for folder in (out / "report", old))
    shipped = []
    for names, figures in SHIPPED:
        worse = [f"{section}: {name}" for section, name in figures
                 if is_worse(figure(new, section, name), figure(before, section, name), name)]
        if worse:
            print(f"Not shipped, since worse in {'; '.join(worse)}: {', '.join(names)}")
            continue
        for name in names:
            for suffix in (".safetensors", ".json", ".jsonl"):
                source = weights.path(name, out).with_suffix(suffix)
                shutil.copy(source, weights.path(name, target).with_suffix(suffix))
        shipped += names
    print(f"Shipped: {', '.join(shipped) or 'nothing'}. The report is in {out / 'report'}.")
    return shipped


def figure(report: dict, section: str, name: str) -> float | None:
    """One figure of a report, its name as the table gives it; None where there is none."""
    return dict(evaluate.numbers(report.get(section, {}))).get(name)


def is_worse(new: float | None, old: float | None, name: str) -> bool:
    """Whether a figure got worse by more than SLACK; one that was not measured before did not."""
    if new is None or old is None:
        return new is None
    return new > old + SLACK if name in SMALLER else new < old - SLACK
