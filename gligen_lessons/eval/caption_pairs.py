"""Prompt-to-Prompt on pairs of captions, from one noise: what holds a layout (lesson 13)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import boxes, device, weights
from ..datasets.edits import EditCase, of_all_kinds
from ..detr import Detections, detect
from ..latent import TextToImage, to_pictures
from ..prompt2prompt import Control, edit_latents, make_control
from ..prompt_alignment import mappers, shuffled_mapper, word_tokens
from ..referee import judge_scenes
from ..world.vocabulary import CATEGORIES, COLOURS
from .editing import REGIONS
from .figures import by_kind, figures_in_batches, mean_figure, shared

# each arm: what the edit takes of the base's attention
ARMS = {"same seed": {"cross": 0., "self_": 0.}, "Prompt-to-Prompt": {},
        "literal rule": {"self_side": 16}, "shuffled": {}, "shuffled, self 0": {"self_": 0.},
        "without words": {"self_": 0.}}


def layout(a: Tensor, b: Tensor) -> Tensor:
    """How well the edges of pictures (b,3,h,w) agree, whatever their colours: (b,).

    The correlation of both edge maps, in blocks of 4 x 4 pixels: 1 for one drawing in
    two colours, near 0 for drawings that have nothing to do with each other.
    """
    def edges(x):
        down = (x[..., 1:, :-1] - x[..., :-1, :-1]).abs()
        right = (x[..., :-1, 1:] - x[..., :-1, :-1]).abs()
        d = F.avg_pool2d((down + right).amax(1, keepdim=True), 4).flatten(1)
        return F.normalize(d - d.mean(1, keepdim=True), dim=1)
    return (edges(a) * edges(b)).sum(1)


def pair_report(parts: TextToImage, count: int, steps: int) -> dict:
    """Each of the ARMS on `count` pairs of captions of one thing, half recoloured, half replaced.

    "obeyed" is the part of edits in which the scene referee sees the wanted thing in its colour,
    "layout" the agreement of edges with the base, "box IoU" that of the boxes in which the
    detector sees the old thing in the base and the new one in the edit (0 where it sees none).
    "unrelated" are the bases of different scenes, "the answer" is the world's own edit.
    """
    some = of_all_kinds(count, REGIONS, "single-test")
    rows = figures_in_batches(lambda few, seed: rows_in_arms(parts, few, seed, steps), some)
    report = {"pairs": count, "pairs, steps": steps}
    for name, values in rows.items():
        figure = shared if "obeyed" in name else mean_figure
        report |= by_kind(f"pairs, {name}", values, some, figure)
    for name in ("layout", "box IoU"):
        for arm in list(ARMS)[1:]:
            more = rows[f"{name}, {arm}"] - rows[f"{name}, same seed"]
            report |= mean_figure(f"pairs, {name} gain, {arm}", more)
    return report


def rows_in_arms(parts: TextToImage, some: list[EditCase], seed: int,
              steps: int) -> dict[str, Tensor]:
    """Figures (b,) of some pairs in all arms; pair i starts from the noise of seed + i."""
    noise, rows = parts.first_noise(len(some), seed), {}
    for arm in ARMS:
        z = edited_latents(parts, some, noise, control_of(parts, some, arm, steps, seed))
        with torch.no_grad():
            base, x = to_pictures(parts.vae, z).cpu().chunk(2)
        rows |= {f"obeyed, {arm}": shows_wanted(x, some), f"layout, {arm}": layout(base, x),
                 f"box IoU, {arm}": box_agreement(base, x, some)}
    answer = torch.stack([case.after for case in some])
    return rows | {"obeyed, the answer": shows_wanted(answer, some),
                   "layout, unrelated": layout(base, base.roll(len(REGIONS), 0))}


def edited_latents(parts: TextToImage, some: list[EditCase], noise: Tensor,
                   control: Control) -> Tensor:
    """Both pictures of each pair, latents (2b,4,h,w), the bases first."""
    *_, (_, z) = edit_latents(parts, [case.reference for case in some],
                              [case.query for case in some], noise, control)
    return z


def control_of(parts: TextToImage, some: list[EditCase], arm: str, steps: int,
               seed: int = 0) -> Control:
    """The control of some pairs in an arm.

    "shuffled" gives each word the map of another one; "without words" keeps the maps of the start
    token and of what follows the last word alone.
    """
    bases, edits = [case.reference for case in some], [case.query for case in some]
    read = parts.tokenizer
    ends = [[word_tokens(read, text)[-1][1][-1] for text in texts] for texts in (bases, edits)]
    mapper = mappers(read, bases, edits)
    if arm.startswith("shuffled"):
        mapper = shuffled_mapper(mapper, ends[0], device.generator(seed))
    control = make_control(parts, bases, edits, steps, mapper=mapper, **ARMS[arm])
    if arm == "without words":
        for table, end in zip(control.table, ends[1], strict=True):
            table[:, 1:end + 1] = 0
    return control


def shows_wanted(x: Tensor, some: list[EditCase]) -> Tensor:
    """Whether the scene referee sees each edit's wanted thing in its colour, (b,) bool."""
    found = judge_scenes(weights.load("referee-scene"), x)[0]           # (b,18,10)
    wanted = [case.edit.after.things[0] for case in some]
    return torch.stack([found[i, CATEGORIES.index(one.category), list(COLOURS).index(one.colour)]
                        > .5 for i, one in enumerate(wanted)])


def box_agreement(before: Tensor, after: Tensor, some: list[EditCase]) -> Tensor:
    """IoU (b,) of the boxes of the named things in both pictures, by lesson 7's detector.

    The surest box of the category counts; NaN where the base shows none, 0 where the edit does.
    """
    model, ious = weights.load("detr"), []
    for case, *both in zip(some, detect(model, before), detect(model, after), strict=True):
        old, new = (surest(found, one.things[0].category) for found, one in zip(
            both, (case.edit.before, case.edit.after), strict=True))
        ious.append(torch.tensor(torch.nan) if old is None else torch.tensor(0.) if new is None
                    else boxes.iou(old[None], new[None])[0][0, 0])
    return torch.stack(ious)


def surest(found: Detections, category: str) -> Tensor | None:
    """The box (4,) xyxy of the surest thing of a category; None where none is found."""
    rows = (found.labels == CATEGORIES.index(category)).nonzero().flatten()
    return found.boxes_xyxy[rows[found.scores[rows].argmax()]] if len(rows) else None
