"""Edits that succeed, chosen for that from those that lesson 12's experiment counts."""

import torch
import torch.nn.functional as F

from gligen_lessons import show, weights
from gligen_lessons.attribute_referee import attributes
from gligen_lessons.datasets.edits import of_all_kinds
from gligen_lessons.eval.editing import succeeded
from gligen_lessons.experiments.editing.methods import METHODS, Batch

STEPS, AMONG = 20, 48                                     # as in the experiment; its first edits
# which edit, by which method, at which encoding ratio, and what it asks for
CHOSEN = ((24, "DiffEdit", .4, "red to brown"), (26, "DiffEdit", .4, "rocket to tree"),
          (44, "DiffEdit", .6, "umbrella to mushroom"),
          (29, "Encode-Decode", .4, "to a colouring book"),
          (15, "Encode-Decode", .8, "night to sunset"),
          (4, "Encode-Decode", .4, "fog to heavy fog"))


def successful_edits() -> show.Picture:
    """A column for each edit: the source, the mask (grey: none), the edit, the true answer.

    Refuses to draw an edit that the referee does not count as a success.
    """
    parts, judge = weights.text_to_image(), weights.load("referee-attributes")
    every, columns = of_all_kinds(AMONG), []
    for number, method, ratio, asked in CHOSEN:
        case = every[number]
        one = Batch(parts, None, [case], STEPS, number)
        x = METHODS[method][1](one, ratio)
        if not succeeded(attributes(judge, x, case.box[None]), [case]).all():
            raise ValueError(f"{asked!r} by {method} is no success any more: choose another edit.")
        mask = one.mask() if method == "DiffEdit" else torch.full((1, 1, 16, 16), .8)
        fine = F.interpolate(mask.cpu(), case.before.shape[-1]).expand(-1, 3, -1, -1)[0] * 2 - 1
        columns.append(torch.stack([case.before, fine, x[0], case.after]))
    titles = [asked for *_, asked in CHOSEN] + [f"{m}, r = {r}" for _, m, r, _ in CHOSEN]
    figure = show.grid(torch.stack(columns, 1).flatten(0, 1), len(CHOSEN), titles, size=1.6,
                       palette=256)
    return show.name_rows(figure, ("source", "mask", "edit", "true answer"))
