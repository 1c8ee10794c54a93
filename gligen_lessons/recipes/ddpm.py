"""Training lesson 1's pixel model: one thing a picture, 32 px."""


import torch
from torch import Tensor, nn

from ..datasets.labelled import small_pictures
from ..ddpm import l_simple
from ..eval.pixels import ddpm_report, sample_pixels
from ..fit import step_generator
from ..images import sheet
from ..muon import groups
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

    def sample_batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
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
        data=f"{scenes} single-train scenes at 32 px", sample_batch=sample_batch, loss=loss,
        steps=steps, lr=RATE,
        report=report, sample=log_sample,
        options={"ema": .999, "optimizer": "muon", "groups": unet_groups})


def unet_groups(model: nn.Module, lr: float = RATE) -> list[dict]:
    """Muon's and AdamW's parameter groups of a U-Net, and of a helper's head beside it."""
    return groups(model, lr, keep=(*KEPT, "head.names"), adjust="match_rms_adamw")


def log_sample(model, step: int) -> dict:
    """Twelve samples from the same noise at every milestone, as one small PNG in base64."""
    return {"png": sheet(sample_pixels(model, 12, 30), 6, 32, "PNG")}


