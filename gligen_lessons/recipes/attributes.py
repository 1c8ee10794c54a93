"""Training the referee of edits: renders, reconstructions, and what their scenes say."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attribute_referee import NOTHING, AttributeReferee, truth_of
from ..datasets.labelled import labelled, visible_boxes
from ..eval.attributes import attributes_judged, attributes_report
from ..eval.referees import rubbish_report
from ..fit import step_generator
from ..images import crops
from ..muon import groups
from ..referee import CROP
from ..world import scene
from . import Recipe, seeded
from .referee import RATE, Exhibits, empty_boxes, jitter

EMPTY = 6                                                 # one crop in so many shows no thing,
                                                          # and one more a picture of nothing


def referee_attributes(steps: int | None = None, batch: int = 48) -> Recipe:
    """The network that names ground, time, weather, style, and category, colour, pattern."""
    steps = steps or 3_200
    count = min(12_000, batch * steps)
    seen = Exhibits.of(count)
    rows, slots = visible_boxes(seen.data)
    boxes = torch.from_numpy(seen.data.renders.boxes_xyxy[rows.numpy(), slots.numpy()])
    scenes = [scene(seed) for seed in seen.data.renders.seeds]
    told = [truth_of(scenes[row], slot)
            for row, slot in zip(rows.tolist(), slots.tolist(), strict=True)]
    truth = {name: torch.tensor([one[name] for one in told]) for name in told[0]}

    def sample_batch(step: int) -> tuple[Tensor, ...]:
        g = step_generator(21, step)
        number = torch.arange(batch)
        pick, empty, spoilt = (torch.randint(len(rows), (batch,), generator=g),
                               number % EMPTY == 0, number % EMPTY == 1)
        x, where = seen.shown(rows[pick], g), jitter(boxes[pick], g)
        where[empty] = empty_boxes(seen.data, rows[pick][empty], g)
        framed = x.clone()
        framed[spoilt] = seen.empty(rows[pick][spoilt], g)
        named = {name: values[pick].clone() for name, values in truth.items()}
        named["category"][empty | spoilt] = NOTHING
        return x, crops(framed, where, number, CROP), *named.values()

    def report(model) -> dict:
        return attributes_report(model, labelled("referee-test", max(8, count // 8))) | {
            "sure of nothing": rubbish_report(attributes_judged(model), max(4, count // 60))}

    return Recipe(
        name="referee-attributes", model=seeded(AttributeReferee), config={"width": 24},
        sample_batch=sample_batch, loss=partial(attribute_loss, list(truth)), steps=steps,
        lr=RATE, report=report, data=f"{count} scenes of referee-train at 128 px, one in eight "
        "also after reconstruction by vae; crops of pictures in which nothing can be named",
        options={"ema": .998, "weight_decay": .01, "optimizer": "muon",
                 "groups": partial(groups, lr=RATE, adjust="match_rms_adamw")})


def attribute_loss(names: list[str], model: AttributeReferee, x: Tensor, parts: Tensor,
                   *truth: Tensor) -> Tensor:
    """Cross-entropy of every attribute; colour and pattern where there is a thing."""
    whole, part = model(x, parts)
    truth = dict(zip(names, truth, strict=True))
    thing = (truth["category"] != NOTHING).float()
    loss = F.mse_loss(whole["amount"][:, 0], truth.pop("amount").float())
    for name, wanted in truth.items():
        each = F.cross_entropy((whole | part)[name], wanted, reduction="none")
        loss = loss + (each * thing if name in ("colour", "pattern") else each).mean()
    return loss
