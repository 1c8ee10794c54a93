"""The report: every quality figure of the course, measured from the shipped weights."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import torch

from . import device, files, latent, weights
from .arguments import OneLineParser, compared_of, folder_of
from .datasets.labelled import labelled, small_pictures
from .eval.attributes import attributes_judged, attributes_report
from .eval.autoencoder import vae_report
from .eval.detection import backbone_report, detr_report
from .eval.editing_report import editing_report
from .eval.grounding import Held
from .eval.grounding_inputs import entity_report, keypoint_report, map_report
from .eval.grounding_report import exchanged_report, grounding_report
from .eval.image_text import clip_report
from .eval.pixels import classifier_report, ddpm_report, labelled_report, sample_pixels
from .eval.referees import (
    crop_judged,
    crop_report,
    pose_report,
    rubbish_report,
    scene_judged,
    scene_report,
)
from .eval.reground import reground_report
from .eval.text_to_image import SHOWN, ldm_report, prompts_report
from .metrics import frechet_distance, kernel_distance
from .reading import json_object
from .referee import judge_scenes

FOLDER = Path(__file__).resolve().parent.parent / "data" / "report"
DDIM_STEPS = (5, 10, 20, 50, 100)
DDIM_LINES = {"rows": {}, "rows, eta 1": {"eta": 1.}, "rows, fitting eps": {"fitting": True}}


def referee_figures(count: int) -> dict:
    """How well the judges do on `count` held-out renders, that of poses on an eighth as many.

    Beside it how often they are sure of something in pictures of nothing, of each kind half.
    """
    few = max(1, count // 8)
    data, fewer = labelled("referee-test", count), labelled("referee-test", few)
    crop, scene, edits = (weights.load(f"referee-{name}")
                          for name in ("crop", "scene", "attributes"))
    sure = {"crop": crop_judged(crop), "scene": scene_judged(scene),
            "attributes": attributes_judged(edits)}
    return {"crop": crop_report(crop, data), "scene": scene_report(scene, data),
            "pose": pose_report(weights.load("referee-pose"), few),
            "attributes": attributes_report(edits, fewer),
            "sure of nothing": {name: rubbish_report(judged, max(1, count // 2))
                                for name, judged in sure.items()}}


def ddpm_figures(count: int) -> dict:
    """The pixel model's samples against held-out renders."""
    return ddpm_report(weights.load("ddpm", device.pick()), count)


def ddim_figures(count: int, steps: tuple[int, ...] = DDIM_STEPS) -> dict:
    """Distance to held-out renders against the number of DDIM steps, from the same noise.

    "rows" are painted with eta 0, "rows, eta 1" with eta 1, both with `clip`, and "rows, fitting
    eps" with eta 0 and an eps made to fit the clamped x0 (`ddim.with_fitting_eps`).
    """
    model, judge = weights.load("ddpm", device.pick()), weights.load("referee-scene")
    real = judge_scenes(judge, small_pictures("single-test", 2 * count))[1]
    floor = {"frechet": frechet_distance(real[count:], real[:count]),
             "kid": kernel_distance(real[count:], real[:count])}
    lines = {name: [ddim_row(model, judge, real[:count], number, how) for number in steps]
             for name, how in DDIM_LINES.items()}
    return {"count": count, "device": str(device.pick()), "floor": floor, **lines}


def ddim_row(model, judge, real: torch.Tensor, steps: int, how: dict) -> dict:
    """Distances of as many samples as `real` (n,d) has features, painted in so many steps.

    "frechet scatter" is the deviation of the Frechet distance when the samples are drawn again
    from themselves. `how` goes to `sample_pixels`.
    """
    fake = judge_scenes(judge, sample_pixels(model, len(real), steps, **how))[1]
    row = {"steps": steps, "frechet": frechet_distance(fake, real),
           "frechet scatter": frechet_scatter(fake, real), "kid": kernel_distance(fake, real)}
    print(how, row, flush=True)
    return row


def frechet_scatter(a: torch.Tensor, b: torch.Tensor, times: int = 20) -> float:
    """The deviation of the Frechet distance of features a (n,d) from b, by the bootstrap."""
    g = torch.Generator().manual_seed(0)
    again = [frechet_distance(a[torch.randint(len(a), (len(a),), generator=g)], b)
             for _ in range(times)]
    return float(torch.tensor(again).std())


def vae_figures(count: int) -> dict:
    """Reconstructions of held-out scenes by the autoencoder."""
    return vae_report(weights.load("vae", device.pick()), count)


def clip_figures(count: int) -> dict:
    """Zero-shot accuracy and retrieval of the course's CLIP."""
    return clip_report(weights.load("clip", device.pick()), weights.tokenizer(), count)


def guidance_figures(count: int) -> dict:
    """The noise-aware classifier against the step, guided samples against the scale."""
    where = device.pick()
    return {"classifier": classifier_report(weights.load("noisy-classifier", where), 500),
            "classifier-free": labelled_report(weights.load("labelled", where), count)}


def ldm_figures(count: int) -> dict:
    """Captions as pictures, and the time that a classroom waits for eight of them."""
    parts = weights.text_to_image(device.pick())
    latent.generate(parts, list(SHOWN), steps=2)                  # the first call warms up
    start = monotonic()
    latent.generate(parts, list(SHOWN), steps=50)
    seconds = monotonic() - start
    return ldm_report(parts, count) | {
        "seconds for 8 pictures in 50 guided steps": seconds, "device": str(device.pick()),
        "threads": torch.get_num_threads()}


def prompt_figures(count: int) -> dict:
    """Guidance scales, captions that differ in a few words, and captions switched half way."""
    return prompts_report(weights.text_to_image(device.pick()), count)


def detr_figures(count: int) -> dict:
    """Average precision of the detector, and how well its backbone named places before."""
    where = device.pick()
    return detr_report(weights.load("detr", where), count) | {
        "backbone": backbone_report(weights.load("detr-backbone", where), min(500, count))}


def gligen_figures(count: int) -> dict:
    """Grounded pictures, open-set words, tau, holes, and the wait for eight pictures."""
    where, eight = device.pick(), Held.of(8)
    parts, inpainter = (weights.text_to_image(where, weights.load(name, where))
                        for name in ("gligen", "gligen-inpaint"))
    eight.generated(parts, True, steps=2)                       # the first call warms up
    start = monotonic()
    eight.generated(parts, True, steps=30)
    seconds = monotonic() - start
    return grounding_report(parts, inpainter, count) | {
        "seconds for 8 grounded pictures in 30 guided steps": seconds,
        "device": str(where), "threads": torch.get_num_threads()}


def grounded_by(name: str, report: Callable) -> Callable:
    """The figures of a report whose pictures one set of gates paints, as a function of a count."""
    def figures(count: int):
        where = device.pick()
        return report(weights.text_to_image(where, weights.load(name, where)), count, steps=30)

    return figures


def editing_figures(count: int) -> dict:
    """Masks of DiffEdit, maps of nouns, and edits by Prompt-to-Prompt."""
    return editing_report(weights.text_to_image(device.pick()), count)


SECTIONS = {"referee": (referee_figures, 2000), "ddpm": (ddpm_figures, 500),
            "ddim": (ddim_figures, 200), "vae": (vae_figures, 1000), "clip": (clip_figures, 1000),
            "guidance": (guidance_figures, 200), "ldm": (ldm_figures, 1000),
            "prompts": (prompt_figures, 24),
            "detr": (detr_figures, 1000), "gligen": (gligen_figures, 1000),
            "exchanged": (grounded_by("gligen", exchanged_report), 24),
            "keypoints": (grounded_by("gligen-keypoints", keypoint_report), 100),
            "entities": (grounded_by("gligen-entities", entity_report), 100),
            "maps": (grounded_by("gligen-map", map_report), 100),
            "reground": (grounded_by("gligen", reground_report), 100),
            "editing": (editing_figures, 160)}
# what the course aims at: at least this much, or at most where it is below zero
BARS = {("vae", "psnr"): 28, ("vae", "found, relative"): .95, ("clip", "category"): .97,
        ("clip", "colour"): .98, ("clip", "category, novel"): .90,
        ("clip", "category, held-out pairs"): .90, ("clip", "retrieval"): .85,
        ("clip", "noun exchanged"): .90, ("guidance", "classifier, category, t = 0"): .90,
        ("ldm", "named, found, painted"): .70, ("ldm", "named, found, single"): .85,
        ("ldm", "seconds for 8 pictures in 50 guided steps"): -10,
        ("detr", "AP50"): .90, ("detr", "AP"): .65,
        ("gligen", "boxes right, grounded"): .90, ("gligen", "AP50 of DETR, grounded"): .80,
        ("gligen", "kid, grounded over ungrounded"): -1.1,
        ("gligen", "open set, held-out pairs"): .70, ("gligen", "open set, novel"): .50,
        ("gligen", "inpainted, right"): .80,
        ("gligen", "seconds for 8 grounded pictures in 30 guided steps"): -10,
        ("keypoints", "PCK, grounded"): .6, ("entities", "colour, picture alone"): .6,
        ("maps", "mIoU, grounded over exchanged"): 2,
        ("editing", "mask IoU, reference, recolour"): .5,
        ("editing", "mask IoU, reference, replace"): .5,
        ("editing", "success, Prompt-to-Prompt"): .6,
        ("editing", "psnr gain, Prompt-to-Prompt"): 6}


def shipped(section: str, folder: Path = FOLDER) -> dict:
    """One section of the shipped report; FileNotFoundError names the command that makes it."""
    file = folder / "report.json"
    if not file.exists() or section not in (report := json_object(file)):
        raise FileNotFoundError(f"{file} has no section {section!r}; "
                                f"python course.py evaluate --only {section} makes it.")
    return report[section]


def table(report: dict) -> str:
    """The report as Markdown: a heading a section, a line a number, with its bar if it has one."""
    lines = ["# What the shipped weights do", "",
             "Made by `python course.py evaluate`; every figure is measured on scenes that no "
             "training has seen.", ""]
    for section, content in report.items():
        lines += [f"## {section}", "", "| what | value | 95 % interval | n | target |",
                  "|---|---|---|---|---|"]
        figures, beside = _together(dict(numbers(content)))
        for name, value in figures.items():
            low, high, n = (beside.get((name, part), "") for part in ("low", "high", "n"))
            interval = f"{_short(low)} to {_short(high)}" if low != "" else ""
            lines.append(f"| {name} | {_short(value)} | {interval} | {n} | "
                         f"{_bar(section, name, value)} |")
        lines.append("")
    return "\n".join(lines)


def _together(figures: dict) -> tuple[dict, dict]:
    """The figures without what `metrics.share` put beside them, and that by (name, part)."""
    part = re.compile(r", (low|high|n)(?=,|$)")
    beside = {(part.sub("", name, 1), found[1]): value for name, value in figures.items()
              if (found := part.search(name))}
    return {name: value for name, value in figures.items() if not part.search(name)}, beside


def _bar(section: str, name: str, value) -> str:
    """What a figure should reach and whether it does; nothing for most."""
    bar = BARS.get((section, name))
    if bar is None or value is None:
        return ""
    holds = float(value) >= bar if bar > 0 else float(value) <= -bar
    return f"{'at least' if bar > 0 else 'at most'} {abs(bar)}: {'holds' if holds else 'missed'}"


def _short(value) -> str:
    """A figure with four digits; other values as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def numbers(content, name: str = "") -> Iterator[tuple[str, float]]:
    """Every figure in a nested section of a report, with the way to it as its name."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from numbers(value, f"{name}, {key}" if name else key)
    elif isinstance(content, list):
        for row in content:
            first = next(iter(row))
            yield from numbers({k: v for k, v in row.items() if k != first},
                               f"{name}, {first} {row[first]}")
    else:
        yield name, content


def main(arguments: list[str] | None = None) -> int:
    """The command line of `evaluate`: measure all sections, or --only some, and write them."""
    parser = OneLineParser(prog="gligen-lessons evaluate", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--count", type=compared_of, help="pictures a section, instead of its own")
    parser.add_argument("--out", type=folder_of, help="folder for report.json and .md (default: "
                        "the shipped report, with --count runs/report)")
    requested = parser.parse_args(arguments)
    file = (requested.out
            or (Path("runs", "report") if requested.count else FOLDER)) / "report.json"
    report = json_object(file) if file.exists() else {}
    for name in requested.only:
        measure, count = SECTIONS[name]
        print(f"{name} ...", flush=True)
        report[name] = measure(requested.count or count)
        report = {key: report[key] for key in SECTIONS if key in report}
        files.atomic_write(file, json.dumps(report, indent=1) + "\n")
        files.atomic_write(file.with_suffix(".md"), table(report))
    print(table(report))
    return 0
