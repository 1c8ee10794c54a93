"""Training several models in order: python course.py train all, python course.py train small.

Each model stands on others, and nothing is trained on a base that will still change. Trainings run
in slices, each a process of its own that saves and ends: so the free cores can be dealt out again
after each, and whatever stops the whole loses little. The same command goes on where it stopped.
"""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from . import evaluate, files, weights
from .datasets.labelled import labelled, pictures
from .eval.autoencoder import reconstruct
from .eval.grounding import Held
from .images import mosaic
from .models import MODELS
from .shipping import copy_weights, is_worse
from .world.vocabulary import BASE

NEEDS = {name: model.needs for name, model in MODELS.items()}
SMALL = ("vae", "clip", "ldm", "gligen")                  # what `train small` trains, at 64 px
SHOWN = 8                                                 # pictures a row of its contact sheet
JUDGED = 280                                              # layouts of its report, novel ones too
SLICE = 20                                                # minutes
LOOK = 5.                                                 # seconds between two looks at the logs
# models that are shipped together, and the figures of the report that must not get worse
SHIPPED = ((("referee-scene", "referee-crop"),
            (("referee", "scene, mean average precision of pairs"),
             ("referee", "crop, category, clean"))),
           (("referee-pose",), (("referee", "pose, PCK, reconstructions"),)),
           (("referee-attributes",), (("referee", "attributes, pattern, renders"),)),
           (("ddpm", "labelled", "noisy-classifier"), (("ddpm", "-frechet"),)),
           (("detr-backbone", "detr"), (("detr", "AP50"),)),
           (("vae", "clip", "ldm", "gligen", "gligen-inpaint", "gligen-keypoints",
             "gligen-entities", "gligen-map"),
            (("vae", "psnr"), ("clip", "category"), ("ldm", "named, found, painted"),
             ("gligen", "boxes right, grounded"))))


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


def trainable(out: Path, running: set[str], needs: dict) -> list[str]:
    """The models that can be trained now: not finished, not running, all that they need there.

    What runs has not ended, even where its weights are already written.
    """
    def there(name: str) -> bool:
        return finished(name, out) and name not in running

    return [name for name, bases in needs.items() if name not in running
            and not finished(name, out) and all(there(base) for base in bases)]


def lanes() -> int:
    """How many trainings run side by side: two on a CPU with two cores or more, else one."""
    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def command(name: str, out: Path, share: int, minutes: float, steps: int | None,
            small: bool) -> list[str]:
    """What trains a model for some minutes, in one process or several that share each batch."""
    start = ["-m", "gligen_lessons.train"] if share == 1 else [
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(share),
        "-m", "gligen_lessons.train"]
    return [sys.executable, *start, name, "--out", str(out), "--resume", "--minutes", str(minutes),
            *(["--steps", str(steps)] if steps else []), *(["--small"] if small else [])]


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
        lines = [line for line in (folder / "log.jsonl").read_text("utf-8").splitlines(True)
                 if '"loss"' in line and line.endswith("\n")]       # the last may be half written
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


def train_all(out: Path | None, hours: float | None = None, steps: int | None = None) -> int:
    """Train every model that is missing in `out` (runs), measure them, ship what is not worse.

    With `steps` all trainings are that short, which tries the whole in minutes, and nothing is
    measured or shipped.
    """
    out = out or Path("runs")
    if climb(out, NEEDS, hours, steps) and not steps:
        ship_all(out)
    return 0


def train_small(out: Path | None, hours: float | None = None, steps: int | None = None) -> int:
    """Train autoencoder, CLIP, latent diffusion and gates at 64 px, all from nothing.

    Into `out` (runs/small), never among the shipped weights; at the end a contact sheet, a small
    report and the line that says how to use them.
    """
    out = out or Path("runs", "small")
    needs = {name: tuple(base for base in NEEDS[name] if base in SMALL) for name in SMALL}
    if climb(out, needs, hours, steps, small=True):
        os.environ[weights.OWN] = str(out.resolve())
        right = small_report(out, JUDGED if not steps else SHOWN)
        print(f"boxes right, of {right['boxes']}: {right['caption and box']:.0%} with caption and "
              f"box, {right['box alone']:.0%} with the box alone, {right['caption alone']:.0%} "
              f"with the caption alone, {right['renders']:.0%} of renders\n"
              f"contact sheet: {out / 'sheet.png'}\n"
              'use it: python course.py generate "a red car on the grass by day" '
              f'--box "a red car:0.2,0.4,0.8,0.9" --weights {out} --out car.png')
    return 0


def small_report(out: Path, count: int) -> dict:
    """Boxes right of held-out single things of base categories, and a sheet; both go to `out`.

    The sheet's rows: renders, reconstructions, painted from captions, from captions and boxes.
    """
    parts = weights.text_to_image(unet=weights.load("gligen"))
    held = Held.of(count, "single-test", 64)
    x = pictures(labelled("single-test", count, 64), torch.arange(count))
    bare = held.without_captions()
    made = {"caption and box": held.generated(parts, True),
            "box alone": bare.generated(parts, True),
            "caption alone": held.generated(parts, False)}
    rows = [x, reconstruct(parts.vae, x[:SHOWN]), made["caption alone"], made["caption and box"]]
    mosaic(torch.cat([row[:SHOWN] for row in rows]), SHOWN, 96).save(out / "sheet.png")
    report = {name: held.right(pictured, BASE) for name, pictured in made.items()} | {
        "renders": held.right(x, BASE), "boxes": int(held.asks(BASE).sum())}
    files.atomic_write(out / "report.json", json.dumps(report, indent=1) + "\n")
    return report


def climb(out: Path, needs: dict, hours: float | None = None, steps: int | None = None,
          small: bool = False) -> bool:
    """Train the models of `needs` that are missing in `out`; whether all are there at the end.

    After `hours`, or Ctrl-C, everything is saved and the same command goes on. RuntimeError where
    a training fails.
    """
    end, running = time.monotonic() + 3600 * (math.inf if hours is None else hours), []
    try:
        while time.monotonic() < end and (running or trainable(out, set(), needs)):
            for name, share in deal(running, out, needs):
                minutes = max(.1, min(SLICE, (end - time.monotonic()) / 60))
                words = command(name, out, share, minutes, steps, small)
                running.append(started(words, name, out, share, len(running)))
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
    return not left


def deal(running: list[Slice], out: Path, needs: dict) -> list[tuple[str, int]]:
    """Which models get the free lanes, and how many; one that is alone gets all of them."""
    free = lanes() - sum(one.share for one in running)
    waiting = trainable(out, {one.name for one in running}, needs)
    if free and len(waiting) == 1 and not running:
        return [(waiting[0], free)]
    return [(name, 1) for name in waiting[:free]]


def ship_all(out: Path, old: Path = evaluate.FOLDER, target: Path = weights.FOLDER) -> list[str]:
    """Measure the weights in `out` and copy those to `target` that are not worse; their names."""
    os.environ[weights.OWN] = str(out.resolve())
    evaluate.main(["--out", str(out / "report")])
    new, before = (json.loads((folder / "report.json").read_text("utf-8"))
                   for folder in (out / "report", old))
    shipped = []
    for names, figures in SHIPPED:
        worse = [f"{section}: {name}" for section, name in figures if is_worse(
            figure(new, section, name), figure(before, section, name), name)]
        if worse:
            print(f"Not shipped, since worse in {'; '.join(worse)}: {', '.join(names)}")
            continue
        copy_weights(names, out, target)
        shipped += names
    print(f"Shipped: {', '.join(shipped) or 'nothing'}. The report is in {out / 'report'}.")
    return shipped


def figure(report: dict, section: str, name: str) -> float | None:
    """One figure of a report, its name as the table gives it; None where there is none."""
    return dict(evaluate.numbers(report.get(section, {}))).get(name.lstrip("-"))
