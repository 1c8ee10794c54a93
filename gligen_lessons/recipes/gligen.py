"""Training lesson 9's gates: what is where, on top of the shipped latent diffusion model."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import device, weights
from ..datasets.detection import tidy
from ..datasets.grounding import (
    FULL_CAPTIONS,
    KINDS,
    Instruction,
    Layouts,
    instruction,
    layouts,
    phrase_table,
    slots,
)
from ..datasets.labelled import labelled, pictures
from ..fit import step_generator
from ..gligen import add_gates, freeze, gate_names, phrase_features
from ..grounded import draw_grounded, gate_looks
from ..images import sheet
from ..inpaint import with_known
from ..latent import TextToImage, draw
from ..metrics import feature_distances
from ..muon import split
from ..referee import judge_boxes, judge_scenes
from ..unet import UNet
from ..world import scene
from ..world.vocabulary import BASE, CATEGORIES
from . import Recipe, scenes, seeded
from .helpers import help_at
from .latent import parts_with
from .pointing import INSIDE, POINTING, looking, pointing_loss, start_apart, weighted_loss

SHARES = (.6, .2, .2)                                     # of a batch, for each kind
P_CAPTION, P_GROUNDING = .5, .1                           # how often each is dropped
GATE_RATE, RATE = 2e-2, 1e-3                              # of the two scalars; of the rest
MATRIX_RATE = 3e-3                                        # of what is left to Muon
HELPERS = (f"tokens of different things start apart; places in boxes count {1 + INSIDE:g} times, "
           "steps as min-SNR times 1 / alpha_bar; pixels look at their box's token, weight "
           f"{POINTING}; all but the start off after 75 %")
MILESTONES = tuple((i + 1) / 12 for i in range(12))       # parts of the run, for the log


def gligen(steps: int | None = None, batch: int | None = None, small: bool = False) -> Recipe:
    """The gates and the position net; everything else is frozen.

    With `small` the scenes are those of 64 px with one thing, those of novel categories left out.
    """
    big = device.dial() == "full"
    steps = steps or (1_500 if small else 12_000 if big else 6_000)
    batch = batch or (256 if big else 32)
    parts = weights.text_to_image(device.pick())
    unet = start_apart(freeze(seeded(add_gates, parts.unet)))
    drawn = (scenes("single-train", steps, batch, 24_000, 64) if small else
             scenes("grounding-train", steps, batch, 80_000 if big else 24_000))
    data, walk = layouts(parts, drawn), min(30, 1 + steps)
    held = Held.of(64 if steps > 8 else 4, *(("single-test", 64) if small else ()))

    def log_sample(model, step: int) -> dict:
        x = held.painted(parts_with(parts, model), True, steps=min(15, walk))
        return {"png": sheet(x[:8]), "held": held.right(x, BASE), "gates": gates_of(model),
                "colour": float(held.hits(x)[1].float().mean())}

    def report(model) -> dict:
        return gligen_report(parts_with(parts, model), min(64, 4 + steps), walk)

    return Recipe(
        name="gligen", model=unet, config=parts.unet.config, helpers=HELPERS,
        data=f"latents of {len(data.z)} {'small single-' if small else 'grounding-'}train scenes, "
        "on top of ldm",
        draw=drawing(data, parts, steps, batch, 11), loss=grounding_loss(parts), steps=steps,
        lr=RATE, report=report, sample=log_sample, milestones=MILESTONES,
        options={"ema": .995, "optimizer": "muon", "groups": gate_groups},
        learned=lambda model: {"_on": weights.fingerprint("ldm")}, kept=gate_names)


def drawing(data: Layouts, parts: TextToImage, steps: int, batch: int, seed: int) -> Callable:
    """The function that draws the batch of a step: z0, t, eps, caption, phrases, boxes_xyxy.

    The last tensor (b,) is what the weights and the second loss count.
    """
    empty = parts.tokenizer([""])[0]

    def batch_of(step: int) -> tuple[Tensor, ...]:
        g = step_generator(seed, step)
        rows = torch.randint(len(data.z), (batch,), generator=g)
        t = torch.randint(parts.schedule.T, (batch,), generator=g)
        eps = torch.randn(batch, *data.z.shape[1:], generator=g)
        z0 = data.z[rows.to(data.z.device)].float()
        return (z0, t, eps, *drawn_kind(data, rows, empty, g), data.boxes_xyxy[rows],
                torch.full((batch,), help_at(step, steps)))

    return batch_of


def grounding_loss(parts: TextToImage, look: Callable = gate_looks) -> Callable:
    """Both losses of a batch that `drawing` drew: the weighted one of the paper, and pointing.

    Where helpers count nothing, it is the loss of the paper. A mask (b,1,h,w) at the end of the
    batch makes it the loss of grounded inpainting.
    """
    with torch.no_grad():
        table = phrase_features(parts, phrase_table())                      # (phrases,d)

    def loss(model, z0, t, eps, caption, phrases, boxes_xyxy, help_weight, mask=None):
        strength = float(help_weight[0])
        with torch.no_grad():
            context = parts.text(caption).float()                           # (b,n,d)
        grounding = slots(table, phrases, boxes_xyxy)
        shown = model if mask is None else with_known(model, z0, mask)
        with looking(model, phrases.shape[1], look) as looks:
            painting = weighted_loss(shown, z0, t, eps, context, grounding, parts.schedule,
                                     strength)
        few = grounding.each(lambda x: x[:, :phrases.shape[1]])
        return painting + strength * POINTING * pointing_loss(looks, few)

    return loss


def drawn_kind(data: Layouts, rows: Tensor, empty: Tensor,
               g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Captions (b,n) and phrases (b,6) of some scenes, each as one of the three kinds of data.

    Now and then a caption is dropped, and now and then all the boxes.
    """
    b = len(rows)
    kind = torch.multinomial(torch.tensor(SHARES), b, replacement=True, generator=g)
    pick = torch.tensor(FULL_CAPTIONS)[torch.randint(len(FULL_CAPTIONS), (b,), generator=g)]
    caption = data.ids[rows, pick].long()
    mute = (kind == KINDS.index("detection")) | (torch.rand(b, generator=g) < P_CAPTION)
    caption[mute] = empty
    grounding = (kind == KINDS.index("grounding"))[:, None]
    phrases = torch.where(grounding, data.full[rows], data.bare[rows])
    phrases[torch.rand(b, generator=g) < P_GROUNDING] = -1
    return caption, phrases


def fast_gates(unet: UNet) -> list[dict]:
    """AdamW's two groups: the gates' scalars at a rate far above that of the rest."""
    names = gate_names(unet)
    scalars = [n for n in names if n.endswith(("alpha_attn", "alpha_dense"))]
    rest = [n for n in names if n not in scalars]
    return [{"params": [unet.get_parameter(n) for n in scalars], "lr": GATE_RATE},
            {"params": [unet.get_parameter(n) for n in rest], "lr": RATE}]


def gate_groups(unet: UNet) -> list[dict]:
    """Muon for the matrices of gates and position net, and AdamW's two rates for what is left."""
    matrices, _ = split(unet, keep=("null_", "linears.0", "conv_in"))
    taken = {id(p) for p in matrices}
    scalars, rest = fast_gates(unet)
    rest["params"] = [p for p in rest["params"] if id(p) not in taken]
    return [{"params": matrices, "lr": MATRIX_RATE, "adjust": "match_rms_adamw"}, scalars, rest]


def gates_of(unet: UNet) -> list[float]:
    """tanh of the attention's gate in each block, rounded for the log."""
    return [round(float(unet.get_parameter(n).detach().tanh()), 4) for n in gate_names(unet)
            if n.endswith("alpha_attn")]


@dataclass(frozen=True)
class Held:
    """Held-out layouts: what is asked for, its category and colour numbers, and its boxes."""

    asked: list[Instruction]
    category: Tensor
    colour: Tensor
    boxes_xyxy: Tensor
    split: str

    @classmethod
    def of(cls, count: int, split: str = "grounding-test", size: int = 128) -> "Held":
        """The first scenes of a split, each with its caption and all its phrases and boxes."""
        data, g = labelled(split, count, size), torch.Generator().manual_seed(0)
        boxes = torch.tensor(data.renders.boxes_xyxy)
        asked = [instruction(scene(seed), boxes[i], "grounding", g)
                 for i, seed in enumerate(data.renders.seeds)]
        category, moved = tidy(data.category, boxes)
        return cls(asked, category, tidy(data.colour, boxes)[0], moved, split)

    def without_captions(self) -> "Held":
        """The same layouts, asked for by their boxes alone."""
        return replace(self, asked=[replace(one, caption="") for one in self.asked])

    def painted(self, parts: TextToImage, grounded: bool, batch: int = 8, **options) -> Tensor:
        """Pictures (n,3,128,128) of the layouts, or of their captions alone; seeds 0, 1, ..."""
        made = []
        for i in range(0, len(self.asked), batch):
            few = self.asked[i:i + batch]
            texts = [one.caption for one in few]
            made.append(draw_grounded(parts, texts, [one.phrases for one in few],
                                      [one.boxes_xyxy for one in few], i, **options)
                        if grounded else draw(parts, texts, i, **options))
        return torch.cat(made)

    def hits(self, x: Tensor) -> Tensor:
        """For each box whether the crop referee names category and colour right, (2,boxes).

        The boxes in the order of their layouts; x (n,3,h,w) shows the layouts in theirs.
        """
        judge, (rows, k) = weights.load("referee-crop"), torch.nonzero(self.category >= 0).T
        found = [judge_boxes(judge, x, self.boxes_xyxy[rows[i], k[i]], rows[i])
                 for i in torch.arange(len(rows)).split(256)]
        wanted = torch.stack([self.category[rows, k], self.colour[rows, k]])
        return torch.cat([torch.stack(pair) for pair in found], 1) == wanted

    def right(self, x: Tensor, only: tuple[str, ...] = CATEGORIES) -> float:
        """The part of boxes that the crop referee names right, category and colour both.

        Of boxes that ask for one of the categories `only`.
        """
        return float(self.hits(x).all(0)[self.asks(only)].float().mean())

    def asks(self, only: tuple[str, ...]) -> Tensor:
        """Which boxes ask for one of these categories, (boxes,) of True and False."""
        numbers = torch.tensor([CATEGORIES.index(word) for word in only])
        return torch.isin(self.category[self.category >= 0], numbers)


def three_sets(parts: TextToImage, held: Held, **options) -> tuple[dict[str, Tensor], Tensor]:
    """Pictures of the layouts: painted with and without boxes, and renders.

    Beside them the scene referee's features (n,64) of as many renders of other scenes.
    """
    count = len(held.asked)
    data = labelled(held.split, 2 * count)
    renders = torch.cat([pictures(data, part) for part in torch.arange(2 * count).split(64)])
    others = judge_scenes(weights.load("referee-scene", device.pick()), renders[count:])[1]
    made = {"grounded": held.painted(parts, True, **options), "renders": renders[:count],
            "ungrounded": held.painted(parts, False, **options)}
    return made, others


def figures(held: Held, x: Tensor, others: Tensor) -> dict:
    """Of pictures of the layouts: boxes right, and distances to the features `others`."""
    features = judge_scenes(weights.load("referee-scene", device.pick()), x)[1]
    return {"boxes right": held.right(x)} | feature_distances(features, others)


def gligen_report(parts: TextToImage, count: int, steps: int = 30,
                  guidance_scale: float = 5.) -> dict:
    """How many boxes of held-out layouts hold the right category in the right colour.

    Judged by the referee's crops; beside it renders, and pictures painted from the captions
    alone. `grounding_report` has more.
    """
    held = Held.of(count)
    made, others = three_sets(parts, held, steps=steps, guidance_scale=guidance_scale)
    report = {f"{what}, {name}": value for name, x in made.items()
              for what, value in figures(held, x, others).items()}
    return report | {"layouts": count, "steps": steps, "guidance scale": guidance_scale}
