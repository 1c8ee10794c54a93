"""Training lesson 5's two pixel models: a U-Net that reads labels and a noise-aware classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ddim, device
from ..datasets.labelled import labels_of, small_pictures
from ..ddpm import q_sample
from ..fit import step_generator
from ..guidance import LabelledUNet, NoisyClassifier, classifier_free, drop
from ..metrics import feature_distances
from ..referee import judge_scenes
from ..schedule import Schedule
from ..weights import load
from ..world.vocabulary import CATEGORIES, COLOURS, WORDS
from . import Recipe, seeded
from .ddpm import PIXEL_UNET, RATE, unet_groups

SIZES = {"categories": len(WORDS), "colours": len(COLOURS)}
LABELLED = SIZES | {"unet": PIXEL_UNET | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 64, "attention_head_dim": 4}}


def labelled(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The pixel U-Net with labels: lesson 1's data and loss, labels dropped now and then.

    It starts from lesson 1's weights where names and shapes agree. A tenth of the pictures lose
    both labels, and a tenth each one of them, so that it also knows "red" alone.
    """
    full = device.dial() == "full"
    steps, batch = steps or (20_000 if full else 6_000), batch or (128 if full else 32)
    count, schedule = min(20_000, batch * steps), Schedule.linear()
    data, labels = small_pictures("single-train", count), labels_of("single-train", count)
    load("referee-scene")                       # the report needs it: say now if it is missing
    model = seeded(LabelledUNet, **LABELLED)
    begin_with(model.unet, load("ddpm").state_dict())

    def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g, none = step_generator(6, step), torch.tensor(-1)
        rows = torch.randint(count, (batch,), generator=g)
        t = torch.randint(schedule.T, (batch,), generator=g)
        eps = torch.randn(batch, *data.shape[1:], generator=g)
        apart = [drop(column, none, .1, g) for column in labels[rows].unbind(1)]
        cond = drop(torch.stack(apart, 1), torch.tensor([-1, -1]), .1, g)
        return data[rows], t, eps, cond

    def loss(model, x0, t, eps, cond):
        return F.mse_loss(model(q_sample(x0, t, eps, schedule), t, cond), eps)

    def report(model) -> dict:
        return labelled_report(model, min(200, 8 + steps), min(30, 1 + steps))

    return Recipe(
        name="labelled", model=model, config=LABELLED,
        data=f"{count} single-train scenes at 32 px, from the weights of ddpm",
        draw=batch_of, loss=loss, steps=steps, lr=RATE, report=report,
        options={"ema": .999, "optimizer": "muon", "groups": unet_groups})


def begin_with(model: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    """Take over the tensors whose names and shapes the model has too."""
    own = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in tensors.items()
                           if name in own and own[name].shape == tensor.shape}, strict=False)


def noisy_classifier(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The classifier for guidance: pictures of lesson 1 noised to any step."""
    full = device.dial() == "full"
    steps, batch = steps or (8_000 if full else 6_000), batch or (256 if full else 64)
    count, schedule = min(20_000, batch * steps), Schedule.linear()
    data, labels = small_pictures("single-train", count), labels_of("single-train", count)

    def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = step_generator(7, step)
        rows = torch.randint(count, (batch,), generator=g)
        t = torch.randint(schedule.T, (batch,), generator=g)
        return data[rows], t, torch.randn(batch, *data.shape[1:], generator=g), labels[rows]

    def loss(model, x0, t, eps, truth):
        category, colour = model(q_sample(x0, t, eps, schedule), t)
        return F.cross_entropy(category, truth[:, 0]) + F.cross_entropy(colour, truth[:, 1])

    def report(model) -> dict:
        return classifier_report(model, min(500, 8 + steps))

    return Recipe(
        name="noisy-classifier", model=seeded(NoisyClassifier, **SIZES), config=SIZES,
        data=f"{count} single-train scenes at 32 px", draw=batch_of, loss=loss, steps=steps,
        lr=RATE, report=report, options={"ema": .998, "weight_decay": .05, "optimizer": "muon",
                                         "groups": unet_groups})


@torch.no_grad()
def classifier_report(model: NoisyClassifier, count: int) -> dict:
    """Accuracy on held-out pictures at several steps of the schedule."""
    x0, truth = small_pictures("single-test", count), labels_of("single-test", count)
    g, schedule, made = torch.Generator().manual_seed(0), Schedule.linear(), {}
    eps = torch.randn(x0.shape, generator=g)
    where = next(model.parameters()).device
    for step in (0, 100, 250, 500, 750):
        t = torch.full((count,), step)
        xt = q_sample(x0, t, eps, schedule)
        category, colour = (logits.argmax(1).cpu() for logits in model(xt.to(where), t.to(where)))
        made |= {f"category, t = {step}": float((category == truth[:, 0]).float().mean()),
                 f"colour, t = {step}": float((colour == truth[:, 1]).float().mean())}
    return made | {"scenes": count}


def paint_labels(model: LabelledUNet, labels: Tensor, guidance_scale: float, steps: int = 30,
                 seed: int = 0, batch: int = 50) -> Tensor:
    """Pictures (n,3,32,32) in [-1, 1] of labels (n,2), on the CPU: DDIM, classifier-free."""
    g, where = torch.Generator().manual_seed(seed), next(model.parameters()).device
    noise, done = torch.randn(len(labels), 3, 32, 32, generator=g), []
    for xT, cond in zip(noise.split(batch), labels.split(batch), strict=True):
        null = torch.full_like(cond, -1).to(where)
        guided = classifier_free(model, cond.to(where), null, guidance_scale)
        *_, (_, x0) = ddim.sample(guided, xT.to(where), Schedule.linear(), steps, clip=True)
        done.append(x0.cpu())
    return torch.cat(done)


def obeyed(judge, x: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """How often the referee is sure of the wished thing in its colour; and its features (n,64)."""
    found, features = judge_scenes(judge, x)
    numbers = torch.tensor([CATEGORIES.index(word) for word in WORDS])[labels[:, 0]]
    sure = found[torch.arange(len(x)), numbers, labels[:, 1]] > .5
    return float(sure.float().mean()), features


def labelled_report(model: LabelledUNet, count: int, steps: int = 30,
                    scales: tuple[float, ...] = (0, 1, 2, 4, 8)) -> dict:
    """Fidelity and diversity against the guidance scale, from the same noise.

    `obeyed` is the referee's verdict, `spread` the mean distance of its features from their mean
    within one label (a single label, many noises), `frechet` compares with held-out renders.
    """
    judge, labels = load("referee-scene"), labels_of("single-test", count)
    real = judge_scenes(judge, small_pictures("single-test", 2 * count))[1]
    same, rows = labels[:1].expand(count // 4, 2), []
    for scale in scales:
        share, features = obeyed(judge, paint_labels(model, labels, scale, steps), labels)
        alike = judge_scenes(judge, paint_labels(model, same, scale, steps))[1]
        rows.append({"scale": scale, "obeyed": share, **feature_distances(features, real[:count]),
                     "spread": float((alike - alike.mean(0)).norm(dim=1).mean())})
    floor = feature_distances(real[count:], real[:count])
    return {"rows": rows, "obeyed": max(row["obeyed"] for row in rows),
            **{f"{name} floor": value for name, value in floor.items()},
            "obeyed, real": obeyed(judge, small_pictures("single-test", count), labels)[0],
            "pictures": count}
