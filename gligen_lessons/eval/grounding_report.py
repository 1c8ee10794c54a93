"""What grounding achieves: boxes, words it never saw, tau and holes, judged by the referee."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .. import device, weights
from ..detr import detect
from ..latent import TextToImage
from ..metrics import ENOUGH, detection_precision, share
from ..world.vocabulary import BASE, CATEGORIES, COLOURS, CONTROL, HELD_OUT, NOVEL
from .grounding import Held, figures, three_sets
from .inpainting import inpainting_report

TAUS = (0., .2, .3, .5, 1.)
# of which things an open-set split asks, by category and colour; the rest only keep them company
ASKED = {"held-out pairs": ("pairs", lambda thing, colour: (colour, thing) in HELD_OUT
                            and thing in BASE),
         "novel": ("novel", lambda thing, colour: thing in NOVEL),
         "control": ("control", lambda thing, colour: thing in CONTROL)}


def grounding_report(parts: TextToImage, inpainter: TextToImage, count: int = 1000,
                     steps: int = 30, guidance_scale: float = 5.) -> dict:
    """All figures of lesson 9 and the holes of lesson 10, on held-out layouts.

    The first set has `count` layouts; the open-set words and the holes have a fifth each, and so
    has each tau, or as many as a distance needs.
    """
    options, few = {"steps": steps, "guidance_scale": guidance_scale}, min(
        count, max(8, count // 5))
    held = Held.of(count)
    made, others = three_sets(parts, held, **options)
    report = {f"{what}, {name}": value for name, x in made.items()
              for what, value in (figures(held, x, others) | more(held, x)).items()}
    many = min(count, max(few, ENOUGH))
    rows = tau_rows(parts, made, others, many, **options)
    best = min(rows[1:], key=lambda row: row.get("kid", -row["boxes right"]))
    report |= {"tau": rows, "best tau": best["tau"], "boxes right, best tau": best["boxes right"]}
    if "kid" in best:
        report["kid, grounded over ungrounded"] = best["kid over ungrounded"]
    both, alone = open_set(parts, few, **options)
    report["open set"] = {"base": report["boxes right, grounded"]} | both
    report["open set, category alone"] = {"base": report["category right, grounded"]} | alone
    bare = Held.of(few).without_captions()
    hits = bare.hits(bare.generated(parts, True, **options))
    report |= share("boxes right, without captions", hits.all(0), bare.pictures())
    report["inpainted"] = inpainting_report(inpainter, few, **options)
    return report | {"layouts": count, "layouts of tau": many, "layouts of words and holes": few,
                     "steps": steps, "guidance scale": guidance_scale}


def more(held: Held, x: Tensor) -> dict:
    """Category and colour apart, and how well DETR finds in x what was asked for."""
    category, colour = held.hits(x)
    found = detect(weights.load("detr", device.pick()), x, threshold=0.)
    answers = [(one.scores, one.labels, one.boxes_xyxy) for one in found]
    requested = [(labels[labels >= 0], boxes[labels >= 0])
                 for labels, boxes in zip(held.category, held.boxes_xyxy, strict=True)]
    return (share("category right", category, held.pictures())
            | share("colour right", colour, held.pictures())
            | {"AP50 of DETR": detection_precision(answers, requested)["AP50"]})


def tau_rows(parts: TextToImage, made: dict[str, Tensor], others: Tensor, count: int,
             **options) -> list[dict]:
    """Grounding against quality: the first layouts again, grounded for a part of the steps.

    What none and all of the steps paint is taken from `made`.
    """
    held, rows = Held.of(count), []
    for tau in TAUS:
        x = {0.: made["ungrounded"], 1.: made["grounded"]}.get(tau)
        x = held.generated(parts, True, tau=tau, **options) if x is None else x[:count]
        rows.append({"tau": tau} | figures(held, x, others))
        if "kid" in rows[-1]:
            rows[-1]["kid over ungrounded"] = rows[-1]["kid"] / rows[0]["kid"]
        print(rows[-1], flush=True)
    return rows


def open_set(parts: TextToImage, count: int, **options) -> tuple[dict, dict]:
    """Boxes right where words are new: category and colour both, and the category alone.

    Chance is how often a box of a control word is judged right in the picture of another layout.
    """
    both, alone = {}, {}
    for name, (split, asks) in ASKED.items():
        held = Held.of(count, split)
        rows = requested_boxes(held, asks)
        x = held.generated(parts, True, **options)
        shown = {name: x} | ({"chance": x.roll(1, 0)} if name == "control" else {})
        for kind, pictured in shown.items():
            hits, of = held.hits(pictured)[:, rows], held.pictures()[rows]
            both |= share(kind, hits.all(0), of)
            alone |= share(kind, hits[0], of)
        print(name, both[name], flush=True)
    return both, alone


def requested_boxes(held: Held, asks: Callable[[str, str], bool]) -> Tensor:
    """Of all boxes of the layouts, which hold what `asks(category, colour)`, (boxes,)."""
    used, colours = held.category >= 0, list(COLOURS)
    return torch.tensor([asks(CATEGORIES[thing], colours[colour]) for thing, colour in
                         zip(held.category[used].tolist(), held.colour[used].tolist(),
                             strict=True)])

def exchanged_report(parts: TextToImage, count: int, **options) -> dict:
    """Boxes right where the phrases of a layout exchange their boxes, each with the next one.

    Of layouts with two things or more: `moved` asks for each phrase in the box that it was given,
    `kept` in the box where it stood before.
    """
    held = Held.of(count)
    rows = [i for i, one in enumerate(held.requested) if len(one.phrases) > 1]
    held = some_layouts(held, rows)
    turned = replace(held, boxes_xyxy=held.boxes_xyxy.clone(), requested=[
        replace(one, boxes_xyxy=one.boxes_xyxy.roll(1, 0)) for one in held.requested])
    for i, one in enumerate(turned.requested):
        turned.boxes_xyxy[i, :len(one.phrases)] = one.boxes_xyxy
    x = turned.generated(parts, True, **options)
    report = {"layouts": len(rows)} | options
    for name, asked in (("moved", turned), ("kept", held)):
        right = share("boxes right", asked.hits(x).all(0), asked.pictures())
        report |= {f"{what}, {name}": value for what, value in right.items()}
    return report


def some_layouts(held: Held, rows: list[int]) -> Held:
    """Some of the layouts."""
    return replace(held, requested=[held.requested[i] for i in rows], category=held.category[rows],
                   colour=held.colour[rows], boxes_xyxy=held.boxes_xyxy[rows])
