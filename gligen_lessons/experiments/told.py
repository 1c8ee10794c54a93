"""DETR tells GLIGEN what is there: the experiment of lesson 10, in the world or on COCO.

One thing of each held-out picture is masked and painted again by four arms (`arms.ARMS`); whether
what DETR sees around it helps is what the figures say.
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

from .. import device, files, published, weights
from ..arguments import OneLineParser, count_of, file_of, scale_of, seed_of
from ..gligen import ground
from ..inpaint import masks_of, paste, repaint
from ..latent import TextToImage, to_pictures
from ..lens import Detector, Lens, Namer
from ..recipes.gligen import Instruction
from ..referee import crops
from ..world import coco_in
from ..world.vocabulary import BASE, COLOURS
from . import result_file
from .arms import ARMS, Seen, Subject, coloured, instructions, recorded, subjects
from .figures import DRAWS, Kept, all_figures, changes
from .judges import judge_for

SPLIT = "grounding-test"
COUNTS = {"small": 8, "normal": 200, "full": 2000}        # scenes, by the machine's dial
BATCH = 8


@dataclass(frozen=True)
class Team:
    """Who paints, who looks, and who names colours (None: nobody does)."""

    painter: TextToImage
    detector: Detector
    namer: Namer | None


def shipped_team(where: str | torch.device = "cpu") -> Team:
    """The course's own painter, detector and CLIP."""
    painter = weights.text_to_image(where, unet=weights.load("gligen-inpaint", where))
    clip = weights.load("clip", where)
    return Team(painter, Detector(weights.load("detr", where), list(BASE), Lens(128)),
                Namer(clip, weights.tokenizer(), Lens(clip.vision_model.side)))


def look(team: Team, some: list[Subject]) -> list[Seen]:
    """What DETR sees in whole pictures, each thing in the colour that CLIP gives its crop."""
    x = torch.stack([one.image for one in some])                # (b,3,h,w)
    found = team.detector(x)
    names = [name for words, _ in found for name in words]
    places = torch.cat([boxes for _, boxes in found])           # (all,4)
    rows = torch.tensor([i for i, (words, _) in enumerate(found) for _ in words])
    phrases = iter(colours(team.namer, names, x, places, rows.long()))
    return [Seen(words, list(islice(phrases, len(words))), boxes)
            for words, boxes in found]


def colours(namer: Namer | None, names: list[str], x: Tensor, boxes_xyxy: Tensor,
            rows: Tensor) -> list[str]:
    """A phrase with its colour for each name, seen in a box (n,4) of picture `rows` (n,)."""
    if namer is None or not names:
        return [coloured(name, None) for name in names]
    prompts = [[coloured(name, colour) for colour in COLOURS] for name in names]
    best = namer.best(crops(x, boxes_xyxy, rows, namer.lens.side), prompts)
    return [texts[k] for texts, k in zip(prompts, best, strict=True)]


def hole(painter: TextToImage, some: list[Subject]) -> tuple[Tensor, Tensor]:
    """The masks of the targets' true boxes: of latents (b,1,h,w), and the same of pixels."""
    side = painter.unet.config["sample_size"]
    mask = masks_of([one.box[None] for one in some], side, touched=True)
    finer = some[0].image.shape[-1] // side
    return mask, mask.repeat_interleave(finer, 2).repeat_interleave(finer, 3)


@torch.no_grad()
def encoded(painter: TextToImage, x: Tensor) -> Tensor:
    """The latents of pictures (b,3,h,w), without the encoder's noise: (b,4,h/8,w/8)."""
    return painter.vae.scaling_factor * painter.vae.encode(x.to(painter.device))[0]


def repainted(painter: TextToImage, some: list[Subject], said: list[Instruction],
              first: int = 0, **options) -> Tensor:
    """What one arm paints, (b,3,h,w), not yet pasted into what was there.

    All noise of picture i is that of seed first + i, whichever arm paints; `options` go
    to `inpaint.repaint`.
    """
    z0 = encoded(painter, torch.stack([one.image for one in some]))
    mask, _ = hole(painter, some)
    grounding = ground(painter, [one.phrases for one in said],
                       [one.boxes_xyxy for one in said])
    *_, (_, z) = repaint(painter, [one.caption for one in said], grounding, z0,
                         mask.to(z0), seed=first, **options)
    with torch.no_grad():
        return to_pictures(painter.vae, z).cpu()


def batches(found: Iterable[Subject], size: int = BATCH) -> Iterator[list[Subject]]:
    """Lists of `size`, the last one shorter."""
    found = iter(found)
    while some := list(islice(found, size)):
        yield some


def measured(team: Team, judge, some: list[Subject], first: int, kept: dict[str, Kept],
             **options) -> list[dict]:
    """Paint some pictures by every arm and keep what the judge says; a line of JSON for each.

    Where an arm knows no target (C, when DETR missed it) it paints as B, and is not counted.
    """
    x = torch.stack([one.image for one in some])
    told = [instructions(one, seen) for one, seen in zip(some, look(team, some), strict=True)]
    _, mask = hole(team.painter, some)
    lines = [{"number": one.number, "phrase": one.phrases[one.target],
              "box": [round(v, 5) for v in one.box.tolist()], "missed": said["C"] is None}
             for one, said in zip(some, told, strict=True)]
    with torch.no_grad():
        trips = to_pictures(team.painter.vae, encoded(team.painter, x)).cpu()
    kept["renders"].add(judge, x, some)
    kept["round trips"].add(judge, trips, some, changes(judge, trips, trips, x, mask))
    for arm in ARMS:
        said = [one[arm] or one["B"] for one in told]
        painted = repainted(team.painter, some, said, first, **options)
        pasted = paste(painted, x, mask)
        facts = changes(judge, pasted, painted, x, mask) | {
            "told": torch.tensor([float(len(one.phrases)) for one in said])}
        counts = [one[arm] is not None for one in told]
        judged = kept[arm].add(judge, pasted, some, facts, counts)
        for line, fact, counted in zip(lines, judged, counts, strict=True):
            line[arm] = fact if counted else None
    return lines


def run(team: Team, judge, found: Iterable[Subject], count: int, seed: int = 0,
        draws: int = DRAWS, **options) -> dict:
    """The whole experiment: `count` pictures painted, the next `count` as what is real.

    ValueError where fewer than two of either have a thing to mask.
    """
    start, found, lines = monotonic(), iter(found), []
    kept = {name: Kept() for name in ("renders", "round trips", *ARMS, "others")}
    with tqdm(total=count, desc="repainting", unit="scene", file=sys.stderr) as bar:
        for some in batches(islice(found, count)):
            lines += measured(team, judge, some, seed + len(lines), kept, **options)
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


def world_cast(asked: argparse.Namespace, where: torch.device) -> tuple[Team, list[Subject], list]:
    """The course's own team, held-out scenes twice as many as are painted, their categories."""
    asked.count = asked.count or COUNTS[device.dial()]
    return shipped_team(where), subjects(2 * asked.count, SPLIT), list(BASE)


def coco_cast(asked: argparse.Namespace,
              where: torch.device) -> tuple[Team, Iterator[Subject], list]:
    """The same for a folder of COCO files, with published weights.

    The pictures are squeezed to the square that the painter learnt on.
    """
    for name in ("detector", "painter"):
        if getattr(asked, name) is None:
            raise ValueError(f"--data needs --{name} too: a folder of published weights.")
    records = coco_in.read(asked.data, split=asked.split)
    painter = published.read_pipeline(asked.painter, where)
    namer = published.read_clip(asked.clip, where) if asked.clip else None
    team = Team(painter, published.read_detector(asked.detector, where), namer)
    records = replace(records, size=8 * painter.unet.config["sample_size"])
    asked.count = asked.count or min(COUNTS[device.dial()], len(records) // 2)
    if len(records) < 2 * asked.count:
        raise ValueError(f"{asked.data} holds {len(records)} pictures; --count {asked.count} needs "
                         f"twice as many, {2 * asked.count}: as many to compare with.")
    return team, recorded(records), records.categories


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment told`."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = told_parser()
    asked, where = parser.parse_args(words), device.pick()
    for name in ("split", "painter", "detector", "clip"):
        if getattr(asked, name) is not None and asked.data is None:
            parser.error(f"--{name} belongs to a folder of COCO files: it needs --data")
    if asked.count is not None and asked.count < 2:
        raise ValueError(f"--count must be 2 or more, got {asked.count}.")
    team, shown, categories = (coco_cast if asked.data else world_cast)(asked, where)
    judge = judge_for(categories, team.namer, where)
    made = run(team, judge, shown, asked.count, asked.seed, asked.draws, steps=asked.steps,
               guidance_scale=asked.scale)
    head = {"command": " ".join(["python course.py experiment told", *words]),
            "data": str(asked.data or SPLIT), "steps": asked.steps, "guidance scale": asked.scale,
            "device": str(where)}
    files.atomic_write(asked.out, json.dumps(head | made, indent=1) + "\n")
    for pair, facts in made["paired"].items():
        if found := facts.get("frechet"):
            print(f"{pair}: Frechet distance {found['mean']:+.4f}, 95 % of resamplings "
                  f"{found['low']:+.4f} to {found['high']:+.4f}, {facts['scenes']} scenes")
    print(f"The result is in {asked.out}")
    return 0


def told_parser() -> argparse.ArgumentParser:
    made = OneLineParser(prog="gligen-lessons experiment told", description=__doc__)
    add = made.add_argument
    add("--count", type=count_of, help="pictures to repaint (default: 8, 200 or 2000 by the dial)")
    add("--steps", type=count_of, default=30, help="steps of DDIM (default: 30)")
    add("--scale", type=scale_of, default=5., help="guidance scale (default: 5)")
    add("--seed", type=seed_of, default=0, help="which noise to begin with (default: 0)")
    add("--draws", type=count_of, default=DRAWS, help="resamplings behind a distance's interval")
    add("--out", type=file_of, default=result_file("told"), help="the JSON file to write")
    add("--data", type=Path, help="a folder of COCO 2017; without it the world's held-out scenes")
    add("--split", help="such as val2017, where the folder holds several")
    add("--painter", type=Path, help="with --data: diffusers' GLIGEN inpainting pipeline")
    add("--detector", type=Path, help="with --data: transformers' DetrForObjectDetection")
    add("--clip", type=Path, help="with --data: transformers' CLIPModel, for colours")
    return made
