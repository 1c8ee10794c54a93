"""Two choices of GLIGEN's authors against what they compared with: small trainings of the gates.

Boxes as sinusoids or as raw coordinates; pixels that look at pixels and tokens, or at tokens alone.
"""

import json
import sys
from time import monotonic

import torch
from torch import Tensor, nn

from .. import device, files, weights
from ..arguments import OneLineParser, batch_of, compared_of, count_of, file_of
from ..datasets.instructions import Layouts, layouts, phrase_table, slots
from ..ddpm import q_sample
from ..fit import fit, progress
from ..gligen import (
    GatedSelfAttentionDense,
    PositionNet,
    add_gates,
    freeze,
    phrase_features,
    transformer_blocks,
)
from ..grounded import gate_attention
from ..latent import TextToImage
from ..metrics import bootstrap
from ..nets import attention_map
from ..recipes import scenes
from ..recipes.alignment import covered, initialise_gates
from ..recipes.gligen import RATE, batch_sampler, gate_parameter_groups, grounding_loss
from ..unet import UNet
from . import result_file

JUDGED = (950, 800, 600)                     # steps at which the layout of a picture is open


class RawPositionNet(PositionNet):
    """A grounding token from the raw coordinates, repeated to as many numbers as the sinusoids."""

    def forward(self, boxes: Tensor, masks: Tensor, features: Tensor) -> Tensor:
        used = masks[..., None]                                             # (b,n,1)
        features = used * features + (1 - used) * self.null_positive_feature
        raw = boxes.repeat(1, 1, len(self.null_position_feature) // 4)      # (b,n,64)
        places = used * raw + (1 - used) * self.null_position_feature
        return self.linears(torch.cat([features, places], dim=-1))          # (b,n,d_objs)


class GatedCrossAttention(GatedSelfAttentionDense):
    """Pixels attend to the grounding tokens alone, through the same weights and gates."""

    def forward(self, x: Tensor, objs: Tensor) -> Tensor:
        seen = self.attn(self.norm1(x), self.norm1(self.linear(objs)))      # (b,n_pixels,d)
        x = x + self.scale * self.alpha_attn.tanh() * seen
        return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def cross_attention(gate: GatedCrossAttention, x: Tensor, objs: Tensor) -> Tensor:
    """How much each pixel attends to each token, (b,k,n_pixels,n): a whole, spread over tokens."""
    return attention_map(gate.attn, gate.norm1(x), gate.norm1(gate.linear(objs)))


def with_raw_coordinates(unet: UNet) -> UNet:
    """Exchange the position net, weights kept, for one that reads raw coordinates. In place."""
    d = unet.context_width
    unet.position_net = alike(RawPositionNet(d, d), unet.position_net)
    return unet


def with_cross_attention(unet: UNet) -> UNet:
    """Exchange the gates, weights kept, for gated cross-attention. In place."""
    for block in transformer_blocks(unet):
        d, heads = block.attn1.to_q.in_features, block.attn1.heads
        block.fuser = alike(GatedCrossAttention(d, heads, unet.context_width), block.fuser)
    return unet


def alike(new: nn.Module, old: nn.Module) -> nn.Module:
    """The new module with the weights of the old one, where they lie."""
    new.load_state_dict(old.state_dict())
    return new.to(next(old.parameters()).device)


# what to exchange in the published network, and how its pixels attend to tokens
VARIANTS = {"Fourier, gated self-attention": (lambda unet: unet, gate_attention),
            "raw coordinates": (with_raw_coordinates, gate_attention),
            "gated cross-attention": (with_cross_attention, cross_attention)}


def trained(name: str, steps: int, batch: int) -> TextToImage:
    """The shipped generator with a variant's gates, all from one start and on the same batches."""
    exchange, attention = VARIANTS[name]
    parts = weights.text_to_image(device.pick())
    torch.manual_seed(0)
    freeze(exchange(initialise_gates(add_gates(parts.unet))))
    data = layouts(parts, scenes("grounding-train", steps, batch, 8_000))
    run = fit(parts.unet, grounding_loss(parts, attention),
              batch_sampler(data, parts, steps, batch, 11),
              steps=steps, lr=RATE, groups=gate_parameter_groups, ema=.99)
    for _ in progress(run, steps):
        pass
    parts.unet.eval()
    return parts


@torch.no_grad()
def gains(parts: TextToImage, data: Layouts) -> Tensor:
    """What the true phrases and boxes save of the loss inside the boxes, for each layout, (n,).

    One minus the squared error with the true ones over that with another layout's, on the same
    noise, a mean over a few high steps.
    """
    table, z0 = phrase_features(parts, phrase_table()), data.z.float()
    true = slots(table, data.full, data.boxes_xyxy)
    other = slots(table, data.full.roll(1, 0), data.boxes_xyxy.roll(1, 0))
    context = parts.text(data.ids[:, 0].long().to(z0.device)).float()       # (n,tokens,d)
    inside = covered(true, z0.shape[-1]).amax(1, keepdim=True)              # (n,1,16,16)
    eps, saved = device.noise(z0.shape, device.generator(21), z0.device), 0.
    for step in JUDGED:
        t = torch.full((len(z0),), step, device=z0.device)
        zt = q_sample(z0, t, eps, parts.schedule)
        errors = [((parts.unet(zt, t, context, requested) - eps).square() * inside).sum((1, 2, 3))
                  for requested in (true, other)]
        saved = saved + (1 - errors[0] / errors[1]) / len(JUDGED)
    return saved.cpu()


def run(steps: int, batch: int, count: int) -> dict:
    """Train all variants and compare them on held-out layouts; intervals by bootstrap."""
    rows, start, all_gains = [], monotonic(), {}
    for name in VARIANTS:
        parts = trained(name, steps, batch)
        data = layouts(parts, scenes("grounding-val", count, 1, count))
        found = all_gains[name] = gains(parts, data).numpy()
        low, high = bootstrap(found)
        rows.append({"name": name, "steps": steps, "gain": float(found.mean()), "low": low,
                     "high": high, "gains": [round(float(x), 5) for x in found]})
        print({key: rows[-1][key] for key in ("name", "gain", "low", "high")}, flush=True)
    first, *others = VARIANTS
    paired = {}
    for name in others:
        apart = all_gains[first] - all_gains[name]
        low, high = bootstrap(apart)
        paired[f"{first} - {name}"] = {"mean": float(apart.mean()), "low": low, "high": high}
    return {"steps": steps, "batch": batch, "layouts": count, "device": str(device.pick()),
            "seconds": round(monotonic() - start, 1), "rows": rows, "paired": paired}


def main(arguments: list[str] | None = None) -> int:
    """The command line of `experiment ablations`."""
    full = device.compute_budget() == "full"
    parser = OneLineParser(prog="gligen-lessons experiment ablations",
                                     description=__doc__)
    add = parser.add_argument
    add("--steps", type=count_of, default=6_000 if full else 600, help="of each training")
    add("--batch", type=batch_of, default=256 if full else 8, help="samples a step")
    add("--count", type=compared_of, default=200, help="held-out layouts")
    add("--out", type=file_of, default=result_file("ablations"), help="the JSON file to write")
    requested = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    head = {"command": " ".join(["python course.py experiment ablations", *words])}
    made = head | run(requested.steps, requested.batch, requested.count)
    files.atomic_write(requested.out, json.dumps(made, indent=1) + "\n")
    print(f"The result is in {requested.out}")
    return 0
