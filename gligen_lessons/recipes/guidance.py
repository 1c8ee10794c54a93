"""Training lesson 5's two pixel models: a U-Net that reads labels and a noise-aware classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import device
from ..datasets.labelled import labels_of, small_pictures
from ..ddpm import q_sample
from ..eval.pixels import classifier_report, labelled_report
from ..fit import step_generator
from ..guidance import LabelledUNet, NoisyClassifier, drop
from ..schedule import Schedule
from ..weights import load
from ..world.vocabulary import COLOURS, WORDS
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
    full = device.compute_budget() == "full"
    steps, batch = steps or (20_000 if full else 6_000), batch or (128 if full else 32)
    count, schedule = min(20_000, batch * steps), Schedule.linear()
    data, labels = small_pictures("single-train", count), labels_of("single-train", count)
    load("referee-scene")                       # the report needs it: say now if it is missing
    model = seeded(LabelledUNet, **LABELLED)
    begin_with(model.unet, load("ddpm").state_dict())

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        sample_batch=sample_batch, loss=loss, steps=steps, lr=RATE, report=report,
        options={"ema": .999, "optimizer": "muon", "groups": unet_groups})


def begin_with(model: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    """Take over the tensors whose names and shapes the model has too."""
    own = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in tensors.items()
                           if name in own and own[name].shape == tensor.shape}, strict=False)


def noisy_classifier(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The classifier for guidance: pictures of lesson 1 noised to any step."""
    full = device.compute_budget() == "full"
    steps, batch = steps or (8_000 if full else 6_000), batch or (256 if full else 64)
    count, schedule = min(20_000, batch * steps), Schedule.linear()
    data, labels = small_pictures("single-train", count), labels_of("single-train", count)

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        data=f"{count} single-train scenes at 32 px", sample_batch=sample_batch, loss=loss,
        steps=steps,
        lr=RATE, report=report, options={"ema": .998, "weight_decay": .05, "optimizer": "muon",
                                         "groups": unet_groups})


