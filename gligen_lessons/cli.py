"""The command line: `gligen-lessons COMMAND`, the same as `python course.py COMMAND`."""

import argparse
import importlib
import io
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from .arguments import (
    OneLineParser,
    count_of,
    file_of,
    folder_of,
    part_of,
    picture_count,
    scale_of,
    seed_of,
    words_of,
)

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
LOW_DISK_GB = 3                                        # for checkpoints and the cache of renders
CUDA_BUILD = ('python course.py doctor --pip "--extra-index-url INDEX", where INDEX is the one '
              "that PyTorch's page \"Get started\" names for {}")


# -------------------------------------------------------------------------------- doctor

def gpu_advice(driver: bool, version: str, built_for: str | None, usable: bool) -> str | None:
    """What to do when there is an NVIDIA driver and torch cannot use it; None when all is well."""
    if not driver or usable:
        return None
    if built_for is None:
        return (f"There is an NVIDIA driver, but torch {version} was built without CUDA. "
                f"Take a build with it: {CUDA_BUILD.format('your CUDA')}")
    return (f"torch {version} was built for CUDA {built_for} and cannot use the GPU. Update the "
            f"NVIDIA driver, or take an older build: {CUDA_BUILD.format('an older CUDA')}")


def gpu_check() -> str | None:
    import torch

    driver = Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))
    built_for = torch.version.cuda or torch.version.hip
    return gpu_advice(driver, torch.__version__, built_for, torch.cuda.is_available())


def untested(constraints: Path) -> list[str]:
    """Installed packages whose version is not the tested one, as "name 1.0 (tested 1.1)"."""
    found = []
    for line in constraints.read_text(encoding="utf-8").splitlines():
        name, _, tested = line.partition("#")[0].strip().partition("==")
        try:
            here = metadata.version(name) if tested else tested
        except metadata.PackageNotFoundError:          # it binds only what is installed
            continue
        if here.partition("+")[0] != tested:           # 2.13.0+cpu is a build of 2.13.0
            found.append(f"{name} {here} (tested {tested})")
    return found


def damaged(folder: Path) -> list[str]:
    """What is wrong with the shipped weights in `folder`, in a sentence for each bad file."""
    from . import weights

    wrong = []
    for name in weights.names():
        try:
            weights.load(name, folder=folder)
        except (ValueError, OSError, RuntimeError) as error:
            wrong.append(" ".join(str(error).split()))
    return wrong


def doctor(options) -> int:
    """Say what this machine can do and what stands in the way; 1 when something does."""
    from . import device, weights

    facts = device.report()
    free = shutil.disk_usage(ROOT).free / 1e9
    problems = damaged(weights.FOLDER)
    count = len(weights.names())
    facts["shipped weights"] = f"{count - len(problems)} of {count} are whole"
    facts["free disk"] = f"{free:.0f} GB"
    constraints = ROOT / "constraints.txt"
    if constraints.exists():
        facts["versions"] = "; ".join(untested(constraints)) or "the tested set"
    if free < LOW_DISK_GB:
        problems.append(f"Only {free:.1f} GB are free; training and renders want {LOW_DISK_GB}.")
    if advice := gpu_check():
        problems.append(advice)
    for name, value in facts.items():
        print(f"{name:16s} {value}")
    for problem in problems:
        print(f"! {problem}")
    print("Look at the lines that begin with !" if problems else "All is well.")
    return 1 if problems else 0


# ------------------------------------------------------------------------ the other commands

def write_world(options) -> int:
    from . import world
    from .world import coco_out

    coco_out.write(options.out, world.seeds(options.split, options.count), options.size)
    print(f"{options.count} scenes of the split {options.split!r} are in {options.out}")
    return 0


def make_student(options) -> int:
    from . import student

    new = student.make(NOTEBOOKS, options.out)
    for path in new:
        print(f"new: {path}")
    print(f"The learner's notebooks are in {options.out}" + ("" if new else ", none is new"))
    return 0


def make_slides(options) -> int:
    from . import slides

    notebook = slides.lesson(NOTEBOOKS, options.lesson)
    target = options.out or Path("slides") / f"{notebook.stem}.html"
    count = slides.write_deck(notebook, target)
    print(f"{count} slides are in {target}; open it in a browser (arrow keys, n for notes)")
    return 0


def take_weights(folder: Path | None) -> None:
    """Let a folder of one's own go before the shipped weights, if it holds some."""
    from . import weights
    from .models import MODELS

    if folder is None:
        return
    if not any(weights.path(name, folder).exists() for name in MODELS):
        raise ValueError(f"--weights {folder}: there are no weights in it; python course.py train "
                         "small makes some in runs/small.")
    os.environ[weights.OWN] = str(folder.resolve())


def export_model(options) -> int:
    from . import weights

    take_weights(options.weights)
    weights.export(options.name, options.folder)
    print(f"{options.name} is in {options.folder}, ready for diffusers' from_pretrained")
    return 0


def generate_pictures(options) -> int:
    from . import generate

    if options.command == "draw":
        print("note: `draw` is called `generate` now; the old name goes with the next release.")
    take_weights(options.weights)
    generate.generate_files(options)
    return 0


def edit_picture(options) -> int:
    from . import edit

    take_weights(options.weights)
    edit.edit_file(options)
    return 0


def add_edit(add) -> None:
    """What `edit` takes."""
    add("photo", type=Path, help="the picture to edit, a file")
    add("query", type=words_of, help='what it should show, such as "a blue car"')
    add("--from", dest="source", type=words_of, default="", metavar="CAPTION",
        help='what it shows now, such as "a red car"; without it the mask is less sharp')
    add("--out", type=file_of, help="the picture to write, .png or .jpg (default: beside the "
        "photo, NAME-edited.png)")
    add("--sheet", type=file_of, help="also write source, heat map of the mask and edit, in a row")
    add("--strength", type=part_of, default=.8,
        help="the part of the steps that is encoded: 0 keeps the picture (default: 0.8)")
    add("--threshold", type=part_of, default=.5, help="lower makes larger masks (default: 0.5)")
    add("--noises", type=count_of, default=10, help="noises that the mask averages (default: 10)")
    add("--seed", type=seed_of, default=0, help="which noise the mask sees (default: 0)")
    add("--steps", type=count_of, default=30, help="steps of DDIM (default: 30)")
    add("--scale", type=scale_of, default=5., help="guidance scale (default: 5)")
    add("--weights", type=Path, help="a folder of your own weights, such as runs/small")


def add_generation(add) -> None:
    """What `generate` takes."""
    add("caption", type=words_of, help='such as "a red car on the snow at night"; "" for any')
    add("--box", action="append", type=words_of, metavar="PHRASE:x0,y0,x1,y1",
        help="what goes where, in normalised coordinates 0..1; as often as there are boxes")
    add("--image", action="append", type=words_of, metavar="CROP.png:x0,y0,x1,y1",
        help="what a picture shows goes there; with the box of a --box it is one thing")
    add("--keypoints", type=Path, metavar="FILE", help="a skeleton, or several: JSON, COCO's 17 "
        "triples [x, y, visible] in 0..1")
    add("--map", type=Path, metavar="FILE", help="a semantic map: a square picture of class "
        "numbers, 64 positions a side or a multiple")
    add("--tau", type=float, help="the part of the steps that is grounded (default: 1)")
    add("--reground", action="store_true", help="gate and cross-attention in parallel (ReGround)")
    add("--out", type=file_of, required=True, help="the picture to write, .png or .jpg")
    add("--seed", type=seed_of, default=0, help="which noise to begin with (default: 0)")
    add("--steps", type=count_of, default=50, help="steps of DDIM (default: 50)")
    add("--scale", type=scale_of, default=5., help="guidance scale (default: 5)")
    add("--count", type=picture_count, default=1, help="how many, from seeds that follow")
    add("--weights", type=Path, help="a folder of your own weights, such as runs/small")


def parser() -> argparse.ArgumentParser:
    top = OneLineParser(prog="gligen-lessons", description="From noise to grounded images.",
                        epilog="--debug with any command shows where an error came from.")
    add = top.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    one = add("doctor", help="what this machine can do, and what stands in the way")
    one.set_defaults(run=doctor)

    one = add("world", help="write scenes of the picture world as a COCO data set")
    one.add_argument("--count", type=count_of, required=True, help="how many scenes")
    one.add_argument("--out", type=folder_of, required=True, help="the folder to write")
    one.add_argument("--split", default="val", help="which range of seeds (default: val)")
    one.add_argument("--size", type=count_of, default=128, help="pixels a side (default: 128)")
    one.set_defaults(run=write_world)

    for name, purpose, work, fill in (
            ("generate", "a picture of a caption and boxes", generate_pictures, add_generation),
            ("draw", "the old name of generate", generate_pictures, add_generation),
            ("edit", "change a picture by words: DiffEdit", edit_picture, add_edit)):
        one = add(name, help=purpose)
        one.set_defaults(run=work)
        fill(one.add_argument)

    for name in FORWARDED:                             # each has a parser of its own
        add(name, help=FORWARDED[name][1], add_help=False)

    one = add("student", help="write the learner's version of the notebooks")
    one.add_argument("--out", type=folder_of, default=Path("my_course"), help="default: my_course")
    one.set_defaults(run=make_student)

    one = add("slides", help="make a seminar deck that works offline")
    one.add_argument("lesson", help="its number, such as 01")
    one.add_argument("--out", type=file_of, help="default: slides/NAME.html")
    one.set_defaults(run=make_slides)

    one = add("export", help="write shipped weights as diffusers reads them")
    one.add_argument("name", help="the model's name")
    one.add_argument("folder", type=folder_of)
    one.add_argument("--weights", type=Path, help="a folder of your own weights")
    one.set_defaults(run=export_model)
    return top


# each command with the module that has its `main`, and what the overview says of it
FORWARDED = {"train": ("train", "train a model from its recipe"),
             "ship": ("shipping", "take trained weights into the course"),
             "evaluate": ("evaluate", "measure every quality figure"),
             "experiment": ("experiments", "try what nobody knows beforehand")}


def run(words: list[str]) -> int:
    if words and words[0] in FORWARDED:
        module = importlib.import_module(f"{__package__}.{FORWARDED[words[0]][0]}")
        return module.main(words[1:]) or 0
    options = parser().parse_args(words)
    return options.run(options)


def main(words: list[str] | None = None) -> int:
    """Run one command; whatever goes wrong becomes one line and exit code 2."""
    words = list(sys.argv[1:] if words is None else words)
    for stream in (sys.stdout, sys.stderr):               # a console that lacks a letter shows its
        if isinstance(stream, io.TextIOWrapper):          # number, and nothing stops for it
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in words
    try:
        return run([word for word in words if word != "--debug"])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or "it gave no reason"
        kind = "" if isinstance(error, (ValueError, OSError)) else \
            f"{type(error).__name__}: "
        print(f"error: {kind}{text}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
