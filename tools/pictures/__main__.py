"""Draw the pictures at the heads of lessons, those whose inputs have changed.

    python -m tools.pictures              draw what is stale
    python -m tools.pictures 06_captions  draw these
    python -m tools.pictures --check      draw nothing, exit 1 if one is stale
"""

import argparse
import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gligen_lessons import course_map, curriculum, files, weights
from gligen_lessons.world import cache

from . import arms, diagrams, forms, generated, grounded, prompts, successes

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "pictures"
RECORD = FOLDER / "inputs.json"                           # what each picture was made from


class Made(NamedTuple):
    """How a picture is made: its function, and the models whose weights it shows."""

    function: Callable
    models: tuple[str, ...] = ()


PICTURES = {
    "00_graph": Made(course_map.lessons),
    "00_world": Made(generated.scenes),
    "01_noise_to_pictures": Made(generated.noise_to_pictures, ("ddpm",)),
    "02_interpolation": Made(generated.between_noises, ("ddpm",)),
    "03_latents": Made(generated.latents, ("vae",)),
    "04_words_and_pictures": Made(generated.words_and_pictures, ("clip",)),
    "05_scale": Made(generated.guidance_scales, ("labelled",)),
    "06_captions": Made(generated.captions, ("vae", "clip", "ldm")),
    "06_figure3": Made(diagrams.figure3),
    "07_set": Made(generated.matching, ("detr",)),
    "08_gate": Made(diagrams.gate),
    "09_boxes": Made(grounded.boxes_and_pictures, ("vae", "clip", "ldm", "gligen")),
    "09_schedule": Made(grounded.scheduled_sampling, ("vae", "clip", "ldm", "gligen")),
    "10_arms": Made(arms.neighbours_cut, ("vae", "clip", "ldm", "gligen-inpaint", "detr",
                                          "referee-crop")),
    "10_hole": Made(grounded.inpainting, ("vae", "clip", "ldm", "gligen-inpaint", "detr")),
    "11_forms": Made(forms.spatial_forms),
    "12_edit": Made(generated.edit, ("vae", "clip", "ldm")),
    "12_successes": Made(successes.successful_edits, ("vae", "clip", "ldm", "referee-attributes")),
    "13_prompts": Made(prompts.edited_prompts, ("vae", "clip", "ldm")),
}


def inputs(name: str) -> str:
    """Twelve letters that change with what a picture is made from.

    The module of its function, the modules that draw scenes, the weights that it shows; for the
    map of the course also the list of lessons.
    """
    made = PICTURES[name]
    drawing = (Path(cache.__file__).with_name(f"{module}.py") for module in cache.DRAWING)
    parts = [inspect.getsource(inspect.getmodule(made.function)), made.function.__name__,
             *(path.read_text("utf-8") for path in drawing),
             *map(weights.fingerprint, made.models)]
    if made.function is course_map.lessons:
        parts.append(inspect.getsource(curriculum))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def recorded() -> dict[str, str]:
    """What each picture in the folder was made from, by its name."""
    return json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}


def stale() -> list[str]:
    """The pictures that are missing or were made from something else than what is there now."""
    known = recorded()
    return [name for name in PICTURES if known.get(name) != inputs(name)
            or not (FOLDER / f"{name}.png").exists()]


def draw(names: list[str]) -> None:
    """Draw some pictures, and note what each was made from."""
    for name in names:
        print(name, flush=True)
        files.atomic_write(FOLDER / f"{name}.png", PICTURES[name].function()._repr_png_())
        noted = recorded() | {name: inputs(name)}
        files.atomic_write(RECORD, (json.dumps(noted, indent=1, sort_keys=True) + "\n").encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *PICTURES], metavar="NAME",
                        help="default: those that are stale")
    parser.add_argument("--check", action="store_true", help="draw nothing; exit 1 if one is stale")
    words = parser.parse_args()
    old = stale()
    if words.check:
        print("stale:", ", ".join(old) or "none")
        return bool(old)
    draw(words.names or old)
    return 0


if __name__ == "__main__":
    sys.exit(main())
