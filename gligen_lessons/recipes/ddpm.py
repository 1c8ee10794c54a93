"""Training lesson 1's pixel model: one thing a picture, 32 px."""


import torch
from torch import Tensor, nn

from .. import ddim
from ..datasets.labelled import small_pictures
from ..ddpm import l_simple
from ..fit import step_generator
from ..images import sheet
from ..metrics import feature_distances
from ..muon import groups
from ..referee import judge_scenes
from ..schedule import Schedule
from ..unet import UNet
from ..weights import load
from . import Recipe, seeded

PIXEL_UNET = {
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
    "block_out_channels": (32, 64, 64), "norm_num_groups": 8, "attention_head_dim": 16,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}


RATE = 3e-3                                               # Muon's
KEPT = ("conv_in", "conv_out", "time_emb")                # what stays with AdamW, in each U-Net


def ddpm(steps: int | None = None, batch: int = 32) -> Recipe:
    """The pixel DDPM of lesson 1: PIXEL_UNET on single things, linear schedule, L_simple."""
    steps = steps or 8_000
    scenes = min(20_000, batch * steps)
    data, schedule = small_pictures("single-train", scenes), Schedule.linear()
    load("referee-scene")                       # the report needs it: say now if it is missing

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = step_generator(3, step)
        rows = torch.randint(len(data), (batch,), generator=g)
        t = torch.randint(schedule.T, (batch,), generator=g)
        return data[rows], t, torch.randn(batch, *data.shape[1:], generator=g)

    def loss(model, x0, t, eps):
        return l_simple(model, x0, t, eps, schedule)

    def report(model) -> dict:
        return ddpm_report(model, min(500, 8 + steps))

    return Recipe(
        name="ddpm", model=seeded(UNet, **PIXEL_UNET), config=PIXEL_UNET,
        data=f"{scenes} single-train scenes at 32 px", draw=draw, loss=loss, steps=steps, lr=RATE,
        report=report, sample=log_sample,
        options={"ema": .999, "optimizer": "muon", "groups": unet_groups})


def unet_groups(model: nn.Module, lr: float = RATE) -> list[dict]:
    """Muon's and AdamW's parameter groups of a U-Net, and of a helper's head beside it."""
    return groups(model, lr, keep=(*KEPT, "head.names"), adjust="match_rms_adamw")


def paint_pixels(model, count: int, steps: int, seed: int = 0, batch: int = 64) -> Tensor:
    """`count` samples (n,3,32,32) in [-1, 1], on the CPU: DDIM from seeded noise."""
    g, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    done = []
    for part in torch.randn(count, 3, 32, 32, generator=g).split(batch):
        *_, (_, x0) = ddim.sample(model, part.to(device), Schedule.linear(), steps, clip=True)
        done.append(x0.cpu())
    return torch.cat(done)


def log_sample(model, step: int) -> dict:
    """Twelve samples from the same noise at every milestone, as one small PNG in base64."""
    return {"png": sheet(paint_pixels(model, 12, 30), 6, 32, "PNG")}


def ddpm_report(model, count: int = 500, steps: int = 50) -> dict:
    """Distances of samples to held-out renders in the referee's features, with their floor.

    The floor compares two sets of real pictures of the same size; `kinds` counts the categories
    that the referee is sure of in at least one sample in a hundred.
    """
    judge = load("referee-scene", next(model.parameters()).device)
    real = judge_scenes(judge, small_pictures("single-test", 2 * count))
    fake = judge_scenes(judge, paint_pixels(model, count, steps))
    floor = feature_distances(real[1][count:], real[1][:count])
    return feature_distances(fake[1], real[1][:count]) | {
        f"{name} floor": value for name, value in floor.items()} | {
        "kinds": kinds(fake[0]), "kinds, real": kinds(real[0][:count]),
        "samples": count, "ddim steps": steps}


def kinds(found: Tensor) -> int:
    """How many categories the referee is sure of in at least a hundredth of pictures (b,18,10)."""
    return int(((found.amax(2) > .5).float().mean(0) >= .01).sum())
