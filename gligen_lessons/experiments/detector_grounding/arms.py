"""DETR tells GLIGEN what is there: what each arm of the experiment says to the pipeline.

One thing of a picture is masked and painted again. The arms differ in what stands beside it in the
grounding, and in who says so; what is masked is the same for all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...boxes import iou
from ...datasets.annotated import SMALLEST
from ...datasets.instructions import Instruction
from ...datasets.labelled import labelled, pictures
from ...images import to_model
from ...inpaint import masks_from_boxes
from ...world import named, scene
from ...world.records import Record
from ...world.vocabulary import COLOURS, article

ARMS = {"A": "the target alone, its true box", "B": "and what DETR sees beside it",
        "C": "everything from DETR, the target too", "D": "everything true"}
CONTROLS = {"N": "no boxes: the caption alone",
            "F": "as A, by lesson 9's network, which reads four channels and sees no hole"}
SAME = .5                                                 # an IoU above it: it is that thing
MASKED = 1 / 16                                           # sides of what is masked, at least


@dataclass(frozen=True)
class InpaintingCase:
    """A picture (3,h,w) in [-1, 1] with its true things, one of which is to be masked.

    categories and phrases are n long, boxes_xyxy (n,4); `target` counts among them. `number` is
    the scene's seed, or the place in a COCO data set.
    """

    number: int
    image: Tensor
    categories: list[str]
    phrases: list[str]
    boxes_xyxy: Tensor
    target: int

    @property
    def box(self) -> Tensor:
        """The target's true box, (4,)."""
        return self.boxes_xyxy[self.target]


@dataclass(frozen=True)
class Detected:
    """What detector and CLIP say of a whole picture: categories, phrases, boxes_xyxy (m,4)."""

    categories: list[str]
    phrases: list[str]
    boxes_xyxy: Tensor


def coloured(category: str, colour: str | None) -> str:
    """A phrase as captions of the world say it: "a red car", "a person in red", "a car"."""
    if colour is None:
        return article(category)
    return article(f"person in {colour}" if category == "person" else f"{colour} {category}")


def colour_in(phrase: str) -> str | None:
    """The colour that a phrase names, None where it names none."""
    return next((word for word in phrase.split() if word in COLOURS), None)


def inpainting_cases(count: int, split: str = "grounding-test") -> list[InpaintingCase]:
    """The first `count` scenes of a split that have a thing to mask, in order."""
    found, more = [], count + count // 4 + 4              # few scenes have none
    while len(found) < count:
        data = labelled(split, more)
        x = pictures(data, torch.arange(more))
        boxes = torch.tensor(data.renders.boxes_xyxy)
        found = [one for i, seed in enumerate(data.renders.seeds)
                 if (one := subject(seed, x[i], [thing.category for thing in scene(seed).things],
                                    [named(thing) for thing in scene(seed).things], boxes[i]))]
        more *= 2
    return found[:count]


def recorded(records: Iterable[Record]) -> Iterator[InpaintingCase]:
    """The same of a COCO data set's records, all of one size; crowds do not count."""
    for i, one in enumerate(records):
        keep = [k for k, crowd in enumerate(one.crowd) if not crowd]
        x = to_model(torch.tensor(one.image)[None])[0]
        found = subject(i, x, [one.categories[k] for k in keep],
                        [article(one.phrases[k]) for k in keep],
                        torch.tensor(one.boxes_xyxy)[keep])
        if found:
            yield found


def subject(number: int, image: Tensor, categories: list[str], phrases: list[str],
            boxes_xyxy: Tensor) -> InpaintingCase | None:
    """A picture with one of its things drawn, by its number; None where none is large enough.

    What is too small to count is left out; what is masked measures at least a place of the
    latent.
    """
    sides = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).amin(-1)[:len(categories)]
    keep = (sides >= SMALLEST).nonzero().flatten().tolist()
    large = [n for n, k in enumerate(keep) if sides[k] >= MASKED]
    if not large:
        return None
    g = torch.Generator().manual_seed(number)
    target = large[int(torch.randint(len(large), (1,), generator=g))]
    return InpaintingCase(number, image, [categories[k] for k in keep], [phrases[k] for k in keep],
                   boxes_xyxy[keep], target)


def same_thing(box: Tensor, seen: Detected) -> int | None:
    """Which of what is seen is the thing in a box (4,); None where DETR missed it."""
    if not len(seen.boxes_xyxy):
        return None
    overlap = iou(seen.boxes_xyxy, box[None])[0][:, 0]          # (m,)
    return int(overlap.argmax()) if float(overlap.max()) > SAME else None


def others(box: Tensor, seen: Detected) -> list[int]:
    """Which of what is seen is something else than the thing in a box (4,)."""
    overlap = iou(seen.boxes_xyxy, box[None])[0][:, 0]          # (m,)
    return (overlap <= SAME).nonzero().flatten().tolist()


def instructions(one: InpaintingCase, seen: Detected) -> dict[str, Instruction | None]:
    """What each arm is told; entry 0 is the target; C is None where DETR missed.

    The caption is the target's phrase: the true one in A, B and D, the detector's in C,
    since the true one would tell C the answer.
    """
    target, n = one.target, len(one.phrases)
    rest = others(one.box, seen)
    true = [one.phrases[target]], one.boxes_xyxy[target:target + 1]
    beside = [seen.phrases[k] for k in rest], seen.boxes_xyxy[rest]
    truth = [target, *(k for k in range(n) if k != target)]
    hit = same_thing(one.box, seen)
    told = {"A": true, "B": joined(true, beside), "C": None,
            "D": ([one.phrases[k] for k in truth], one.boxes_xyxy[truth])}
    if hit is not None:
        told["C"] = joined(([seen.phrases[hit]], seen.boxes_xyxy[hit:hit + 1]), beside)
    return {arm: said and Instruction(said[0][0], *said) for arm, said in told.items()}


def controls(one: InpaintingCase) -> dict[str, Instruction]:
    """What the two controls are told; their caption is that of A."""
    phrase, box = one.phrases[one.target], one.box[None]
    return {"N": Instruction(phrase, [], box[:0]), "F": Instruction(phrase, [phrase], box)}


def hidden_part(one: InpaintingCase, side: int = 16) -> float:
    """How much of its most hidden neighbour's box the target's hole hides, 0 to 1.

    The hole is that of a latent of `side` cells: all that the target's box touches.
    """
    size = one.image.shape[-1]
    mask = masks_from_boxes([one.box[None]], side, round_outward=True)
    hole = 1 - mask.repeat_interleave(size // side, 2).repeat_interleave(size // side, 3)
    rest = [box[None] for k, box in enumerate(one.boxes_xyxy) if k != one.target]
    whole = [1 - masks_from_boxes([box], size) for box in rest]
    return max((float((box * hole).sum() / box.sum()) for box in whole), default=0.)


def joined(first: tuple[list[str], Tensor], more: tuple[list[str], Tensor]) -> tuple:
    """Phrases and boxes of both, one after the other."""
    return first[0] + more[0], torch.cat([first[1], more[1]])
