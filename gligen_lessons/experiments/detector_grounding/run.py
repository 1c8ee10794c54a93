"""Detector-assisted grounding, the experiment of lesson 10, in the world or on COCO.

One thing of each held-out picture is masked and painted again by four arms (`arms.ARMS`) and two
controls; whether what DETR sees around it helps is what the figures say.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ... import device, files, weights
from ...arguments import OneLineParser, count_of, file_of, scale_of, seed_of
from ...datasets.instructions import Instruction
from ...gligen import Grounding, ground
from ...grounded import gate_scales, grounded_eps
from ...images import crops
from ...inpaint import inpaint_grounded, inpaint_steps, masks_from_boxes, paste
from ...interop import import_pretrained
from ...interop.preprocess import ClipClassifier, Detector, ImageTransform
from ...latent import TextToImage, to_pictures
from ...metrics import ENOUGH
from ...world import coco_in
from ...world.vocabulary import BASE, COLOURS
from .. import result_file
from .arms import (
    ARMS,
    CONTROLS,
    Detected,
    InpaintingCase,
    coloured,
    controls,
    inpainting_cases,
    instructions,
    recorded,
)
from .judges import judge_for
from .metrics import DRAWS, ArmResults, all_figures, changes

SPLIT = "grounding-test"
FORMER = "--painter"                                    # what --pipeline was called before
COUNTS = {"small": 8, "normal": 200, "full": 2000}        # scenes, by the machine's compute budget
BATCH = 8


@dataclass(frozen=True)
class Models:
    """Who paints, who looks, and who names colours (None: nobody does).

    `four_channels` paints for control F, which there is not where it is None.
    """

    pipeline: TextToImage
    detector: Detector
    namer: ClipClassifier | None
    four_channels: TextToImage | None = None

    def of_arms(self) -> dict[str, TextToImage]:
        """Every arm and control, and who paints for it."""
        arms = dict.fromkeys((*ARMS, *CONTROLS), self.pipeline) | {"F": self.four_channels}
        return {arm: one for arm, one in arms.items() if one}


def shipped_models(where: str | torch.device = "cpu") -> Models:
    """The course's own pipeline, detector and CLIP."""
    pipeline = weights.text_to_image(where, unet=weights.load("gligen-inpaint", where))
    clip = weights.load("clip", where)
    return Models(pipeline, Detector(weights.load("detr", where), list(BASE), ImageTransform(128)),
                ClipClassifier(clip, weights.tokenizer(), ImageTransform(clip.vision_model.side)),
                weights.text_to_image(where, unet=weights.load("gligen", where)))


def detections_of(models: Models, some: list[InpaintingCase]) -> list[Detected]:
    """What DETR sees in whole pictures, each thing in the colour that CLIP gives its crop."""
    x = torch.stack([one.image for one in some])                # (b,3,h,w)
    found = models.detector(x)
    names = [name for words, _ in found for name in words]
    places = torch.cat([boxes for _, boxes in found])           # (all,4)
    rows = torch.tensor([i for i, (words, _) in enumerate(found) for _ in words])
    phrases = iter(colours(models.namer, names, x, places, rows.long()))
    return [Detected(words, list(islice(phrases, len(words))), boxes)
            for words, boxes in found]


def colours(namer: ClipClassifier | None, names: list[str], x: Tensor, boxes_xyxy: Tensor,
            rows: Tensor) -> list[str]:
    """A phrase with its colour for each name, seen in a box (n,4) of picture `rows` (n,)."""
    if namer is None or not names:
        return [coloured(name, None) for name in names]
    prompts = [[coloured(name, colour) for colour in COLOURS] for name in names]
    best = namer.best(crops(x, boxes_xyxy, rows, namer.transform.side), prompts)
    return [texts[k] for texts, k in zip(prompts, best, strict=True)]


def inpainting_masks(pipeline: TextToImage, some: list[InpaintingCase]) -> tuple[Tensor, Tensor]:
    """The masks of the targets' true boxes: of latents (b,1,h,w), and the same of pixels."""
    side = pipeline.unet.config["sample_size"]
    mask = masks_from_boxes([one.box[None] for one in some], side, round_outward=True)
    finer = some[0].image.shape[-1] // side
    return mask, mask.repeat_interleave(finer, 2).repeat_interleave(finer, 3)


@torch.no_grad()
def encoded(pipeline: TextToImage, x: Tensor) -> Tensor:
    """The latents of pictures (b,3,h,w), without the encoder's noise: (b,4,h/8,w/8)."""
    return pipeline.vae.scaling_factor * pipeline.vae.encode(x.to(pipeline.device))[0]


def inpainted(pipeline: TextToImage, some: list[InpaintingCase], said: list[Instruction],
              first: int = 0, **options) -> Tensor:
    """What one arm paints, (b,3,h,w), not yet pasted into what was there.

    All noise of picture i is that of seed first + i, whichever arm paints; `options` go
    to `inpaint.inpaint_grounded`.
    """
    z0 = encoded(pipeline, torch.stack([one.image for one in some]))
    mask, _ = inpainting_masks(pipeline, some)
    grounding = ground(pipeline, [one.phrases for one in said],
                       [one.boxes_xyxy for one in said])
    sees = pipeline.unet.conv_in.in_channels > z0.shape[1]
    *_, (_, z) = (inpaint_grounded if sees else inpaint_blindly)(
        pipeline, [one.caption for one in said], grounding, z0, mask.to(z0), seed=first, **options)
    with torch.no_grad():
        return to_pictures(pipeline.vae, z).cpu()


def inpaint_blindly(parts: TextToImage, captions: list[str], grounding: Grounding, z0: Tensor,
                    mask: Tensor, seed: int = 0, steps: int = 30,
                    guidance_scale: float = 5.) -> Iterator[tuple[int, Tensor]]:
    """`inpaint_grounded` by a network of four channels: it learns of what is kept from zt alone."""
    strength, context = gate_scales(parts.schedule, steps, 1.), parts.context(captions)
    model = grounded_eps(parts.unet, context, parts.context([""]).expand_as(context), grounding,
                         guidance_scale, strength)
    return inpaint_steps(model, z0, mask, parts.schedule, list(strength), seed)


def batches(found: Iterable[InpaintingCase], size: int = BATCH) -> Iterator[list[InpaintingCase]]:
    """Lists of `size`, the last one shorter."""
    found = iter(found)
    while some := list(islice(found, size)):
        yield some


def measured(models: Models, judge, some: list[InpaintingCase], first: int,
             kept: dict[str, ArmResults], **options) -> list[dict]:
    """Paint some pictures by every arm and keep what the judge says; a line of JSON for each.

    Where an arm knows no target (C, when DETR missed it) it paints as B, and is not counted.
    """
    x = torch.stack([one.image for one in some])
    orders = [instructions(one, seen) | controls(one)
              for one, seen in zip(some, detections_of(models, some), strict=True)]
    _, mask = inpainting_masks(models.pipeline, some)
    lines = [{"number": one.number, "phrase": one.phrases[one.target],
              "box": [round(v, 5) for v in one.box.tolist()], "missed": said["C"] is None}
             for one, said in zip(some, orders, strict=True)]
    with torch.no_grad():
        trips = to_pictures(models.pipeline.vae, encoded(models.pipeline, x)).cpu()
    kept["renders"].add(judge, x, some)
    kept["reconstructions"].add(judge, trips, some, changes(judge, trips, trips, x, mask))
    for arm, pipeline in models.of_arms().items():
        said = [one[arm] or one["B"] for one in orders]
        generated = inpainted(pipeline, some, said, first, **options)
        pasted = paste(generated, x, mask)
        facts = changes(judge, pasted, generated, x, mask) | {
            "entities": torch.tensor([float(len(one.phrases)) for one in said])}
        counts = [one[arm] is not None for one in orders]
        judged = kept[arm].add(judge, pasted, some, facts, counts)
        for line, fact, counted in zip(lines, judged, counts, strict=True):
            line[arm] = fact if counted else None
    return lines


def run(models: Models, judge, found: Iterable[InpaintingCase], count: int, seed: int = 0,
        draws: int = DRAWS, **options) -> dict:
    """The whole experiment: `count` pictures painted, the next `count` as what is real.

    ValueError where fewer than two of either have a thing to mask.
    """
    start, found, lines = monotonic(), iter(found), []
    kept = {name: ArmResults()
            for name in ("renders", "reconstructions", *models.of_arms(), "others")}
    with tqdm(total=count, desc="repainting", unit="scene", file=sys.stderr) as bar:
        for some in batches(islice(found, count)):
            lines += measured(models, judge, some, seed + len(lines), kept, **options)
            bar.update(len(some))
    for some in batches(islice(found, count), 64):
        kept["others"].add(judge, torch.stack([one.image for one in some]), some)
    if min(len(lines), len(kept["others"])) < 2:
        raise ValueError(f"There are {len(lines)} pictures with a thing to mask and "
                         f"{len(kept['others'])} others to compare with; the experiment needs two "
                         "of each at least.")
    return {"judge": judge.name, "count": len(lines),
            "missed": sum(line["missed"] for line in lines)} | all_figures(kept, draws) | {
                "scenes": lines, "seconds": round(monotonic() - start, 1)}


@dataclass(frozen=True)
class Setup:
    """What the experiment needs: models, cases, their data set's categories, how many to paint."""

    models: Models
    cases: Iterable[InpaintingCase]
    categories: list[str]
    count: int


def world_setup(args: argparse.Namespace, where: torch.device) -> Setup:
    """The course's own models, and held-out scenes, twice as many as are painted."""
    count = args.count or COUNTS[device.compute_budget()]
    return Setup(shipped_models(where), inpainting_cases(2 * count, SPLIT), list(BASE), count)


def coco_setup(args: argparse.Namespace, where: torch.device) -> Setup:
    """The same for a folder of COCO files, with published weights.

    The pictures are squeezed to the square that the pipeline learnt on.
    """
    for name in ("detector", "pipeline"):
        if getattr(args, name) is None:
            raise ValueError(f"--data needs --{name} too: a folder of published weights.")
    records = coco_in.read(args.data, split=args.split)
    pipeline = import_pretrained.read_pipeline(args.pipeline, where)
    namer = import_pretrained.read_clip(args.clip, where) if args.clip else None
    models = Models(pipeline, import_pretrained.read_detector(args.detector, where), namer)
    records = replace(records, size=8 * pipeline.unet.config["sample_size"])
    count = args.count or min(COUNTS[device.compute_budget()], len(records) // 2)
    if len(records) < 2 * count:
        raise ValueError(f"{args.data} holds {len(records)} pictures; --count {count} needs twice "
                         f"as many, {2 * count}: as many to compare with.")
    return Setup(models, recorded(records), records.categories, count)


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment detector-grounding`."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = command_parser()
    args, where = parser.parse_args(words), device.pick()
    if any(word.split("=")[0] == FORMER for word in words):
        print(f"note: {FORMER} is called --pipeline now; the old name goes with the next release.")
    for name in ("split", "pipeline", "detector", "clip"):
        if getattr(args, name) is not None and args.data is None:
            parser.error(f"--{name} belongs to a folder of COCO files: it needs --data")
    if args.count is not None and args.count < 2:
        raise ValueError(f"--count must be 2 or more, got {args.count}.")
    setup = (coco_setup if args.data else world_setup)(args, where)
    judge = judge_for(setup.categories, setup.models.namer, where)
    made = run(setup.models, judge, setup.cases, setup.count, args.seed, args.draws,
               steps=args.steps, guidance_scale=args.scale)
    head = {"command": " ".join(["python course.py experiment detector-grounding", *words]),
            "data": str(args.data or SPLIT), "steps": args.steps, "guidance scale": args.scale,
            "device": str(where)}
    files.atomic_write(args.out, one_scene_a_line(head | made))
    for pair, facts in made["paired"].items():
        print(pair_line(pair, facts))
    print(f"The result is in {args.out}")
    return 0


def pair_line(pair: str, facts: dict) -> str:
    """A line on two arms: boxes right, and the Frechet distance where there are enough scenes."""
    line = f"{pair}, {facts['scenes']} scenes"
    names = {"right": "boxes right", "frechet": "Frechet distance"}
    for name in names if facts["scenes"] >= ENOUGH else ("right",):
        if found := facts.get(name):
            line += (f"; {names[name]} {found['mean']:+.4f}, 95 % of resamplings "
                     f"{found['low']:+.4f} to {found['high']:+.4f}")
    return line


def one_scene_a_line(result: dict) -> str:
    """A result as JSON that a reader and a diff can follow."""
    scenes = ",\n  ".join(map(json.dumps, result["scenes"]))
    rest = json.dumps({k: v for k, v in result.items() if k != "scenes"}, indent=1)
    return f'{rest[:-2]},\n "scenes": [\n  {scenes}\n ]\n}}\n'


def command_parser() -> argparse.ArgumentParser:
    made = OneLineParser(prog="gligen-lessons experiment detector-grounding", description=__doc__)
    add = made.add_argument
    add("--count", type=count_of,
        help="pictures to repaint (default: 8, 200 or 2000 by the compute budget)")
    add("--steps", type=count_of, default=30, help="steps of DDIM (default: 30)")
    add("--scale", type=scale_of, default=5., help="guidance scale (default: 5)")
    add("--seed", type=seed_of, default=0, help="which noise to begin with (default: 0)")
    add("--draws", type=count_of, default=DRAWS, help="resamplings behind a distance's interval")
    add("--out", type=file_of, default=result_file("detector-grounding"),
        help="the JSON file to write")
    add("--data", type=Path, help="a folder of COCO 2017; without it the world's held-out scenes")
    add("--split", help="such as val2017, where the folder holds several")
    add("--pipeline", FORMER, type=Path, dest="pipeline",
        help="with --data: diffusers' GLIGEN inpainting pipeline")
    add("--detector", type=Path, help="with --data: transformers' DetrForObjectDetection")
    add("--clip", type=Path, help="with --data: transformers' CLIPModel, for colours")
    return made
