"""Lesson 10's arms at 30 steps, in scenes where the hole cuts a neighbour."""

import torch

from gligen_lessons import show
from gligen_lessons.experiments.detector_grounding.arms import (
    ARMS,
    hidden_part,
    inpainting_cases,
    instructions,
)
from gligen_lessons.experiments.detector_grounding.judges import Referee
from gligen_lessons.experiments.detector_grounding.run import (
    detections_of,
    inpainted,
    inpainting_masks,
    shipped_models,
)
from gligen_lessons.inpaint import paste

SCENES, STEPS, HIDDEN = 4, 30, .1


def neighbours_cut() -> show.Picture:
    """The first four held-out scenes whose hole hides a tenth of another thing: hole, A to D.

    Each scene has the noise that it has in the shipped experiment; above each arm stands how many
    of the four are right by the referee.
    """
    chosen = [(k, one) for k, one in enumerate(inpainting_cases(36)) if hidden_part(one) > HIDDEN]
    numbers, some = zip(*chosen[:SCENES], strict=True)
    models, judge = shipped_models(), Referee.shipped(torch.device("cpu"))
    _, mask = inpainting_masks(models.pipeline, some)
    x = torch.stack([one.image for one in some])                            # (4,3,128,128)
    orders = [instructions(one, seen)
              for one, seen in zip(some, detections_of(models, list(some)), strict=True)]
    columns, titles = [torch.where(mask > .5, x, torch.tensor(.5))], ["the hole"]
    for arm in ARMS:
        made = [inpainted(models.pipeline, [one], [order[arm] or order["B"]], k, steps=STEPS)
                for k, one, order in zip(numbers, some, orders, strict=True)]
        columns.append(paste(torch.cat(made), x, mask))
        hits = int(judge.accuracy(columns[-1], list(some))["right"].sum())
        titles.append(f"{arm}: {hits} of {SCENES} right")
    shown = torch.stack(columns, 1).flatten(0, 1)                           # scene by scene
    names = [text for i, one in enumerate(some)
             for text in (one.phrases[one.target], *(titles[1:] if i == 0 else [""] * len(ARMS)))]
    return show.grid(shown, 1 + len(ARMS), names, size=1.8, palette=256)
