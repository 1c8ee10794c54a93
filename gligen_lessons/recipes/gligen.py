"""Training lesson 9's gates: what is where, on top of the shipped latent diffusion model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import device, weights
from ..fit import step_generator
from ..gligen import (
    LIMIT,
    Grounding,
    add_gates,
    freeze,
    gate_names,
    l_grounding,
    phrase_features,
)
from ..grounded import draw_grounded
from ..latent import TextToImage, draw
from ..metrics import frechet_distance, kernel_distance
from ..referee import judge_boxes, judge_scenes
from ..unet import UNet
from ..world import captions, scene
from ..world.language import named
from ..world.scene import Scene, Thing
from ..world.vocabulary import BASE, COLOURS, PATTERNS
from . import Recipe
from .detr import SMALLEST, tidy
from .latent import LATENT_UNET, cached_latents, parts_with, sheet
from .referee import labelled, pictures

KINDS = ("grounding", "detection", "detection and caption")
SHARES = (.6, .2, .2)                                     # of a batch, for each kind
P_CAPTION, P_GROUNDING = .1, .1                           # how often each is dropped
GATE_RATE, RATE = 2e-2, 1e-3                              # of the two scalars; of the rest
FULL_CAPTIONS = (0, 1, 2, 4)                              # those that say the colours
MILESTONES = tuple((i + 1) / 20 for i in range(20))       # parts of the run, for the log


@dataclass(frozen=True)
class Instruction:
    """What a picture is asked for: caption, and a phrase for each of its boxes (n,4) xyxy."""

    caption: str
    phrases: list[str]
    boxes_xyxy: Tensor


def instruction(one: Scene, boxes_xyxy: Tensor, kind: str,
                g: torch.Generator) -> Instruction:
    """One scene as one of three kinds of training data (GLIGEN, section 4.1).

    boxes_xyxy (n,4) of its things, zero where nothing of one shows. "grounding":
    phrases as the caption says them; "detection": no caption, bare categories;
    "detection and caption": both.
    """
    if kind not in KINDS:
        raise ValueError(f"There is no kind {kind!r} of data; choose from "
                         f"{', '.join(KINDS)}.")
    seen = [i for i, box in enumerate(boxes_xyxy[:len(one.things)].tolist())
            if min(box[2] - box[0], box[3] - box[1]) >= SMALLEST]
    pick = FULL_CAPTIONS[int(torch.randint(len(FULL_CAPTIONS), (1,), generator=g))]
    caption = "" if kind == "detection" else captions(one)[pick]
    phrases = [named(one.things[i]) if kind == "grounding" else one.things[i].category
               for i in seen]
    return Instruction(caption, phrases, boxes_xyxy[seen])


def phrase_table() -> list[str]:
    """Every phrase of the three kinds of data, base categories only, in a fixed order."""
    bare = list(BASE)
    return bare + [named(Thing(category, colour, pattern=pattern)) for category in BASE
                   for colour in COLOURS for pattern in PATTERNS]


@dataclass(frozen=True)
class Layouts:
    """What training reads of N scenes: latents, five captions' ids, rows of the phrase table.

    z (N,4,16,16), ids (N,5,n), bare and full (N,6) with -1 where nothing is, boxes_xyxy (N,6,4).
    """

    z: Tensor
    ids: Tensor
    bare: Tensor
    full: Tensor
    boxes_xyxy: Tensor


def layouts(parts: TextToImage, steps: int, batch: int, most: int) -> Layouts:
    """The latents of grounding-train with captions and phrases, as numbers."""
    seeds, z = cached_latents("grounding-train", steps, batch, most)
    data, rows = labelled("grounding-train", len(seeds)), {p: i for i, p in enumerate(
        phrase_table())}
    scenes_ = [scene(seed) for seed in seeds]
    texts = [text for one in scenes_ for text in captions(one)]
    full = torch.full_like(data.category, -1)
    for i, one in enumerate(scenes_):
        for k, thing in enumerate(one.things):
            full[i, k] = rows[named(thing)]
    bare, boxes = tidy(data.category, torch.tensor(data.renders.boxes_xyxy))
    full, _ = tidy(full, torch.tensor(data.renders.boxes_xyxy))
    return Layouts(z.to(device.pick()), parts.tokenizer(texts).view(len(z), 5, -1).short(), bare,
                   full, boxes)


def gligen(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The gates and the position net; everything else is frozen.

    High steps are drawn more often, t = T sqrt(u): that is where things get their places.
    """
    big = device.dial() == "full"
    steps, batch = steps or (12_000 if big else 4_000), batch or (256 if big else 8)
    parts = weights.text_to_image(device.pick())
    unet = freeze(add_gates(parts.unet))
    data = layouts(parts, steps, batch, 80_000 if big else 8_000)
    with torch.no_grad():
        table = phrase_features(parts, phrase_table())                      # (phrases,d)
    empty, walk = parts.tokenizer([""])[0], min(30, 1 + steps)
    held = Held.of(64 if big else 8 if steps > 8 else 4)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        g = step_generator(11, step)
        rows = torch.randint(len(data.z), (batch,), generator=g)
        t = (parts.schedule.T * torch.rand(batch, generator=g).sqrt()).long()
        eps = torch.randn(batch, *data.z.shape[1:], generator=g)
        z0 = data.z[rows.to(data.z.device)].float()
        return z0, t, eps, *drawn_kind(data, rows, empty, g), data.boxes_xyxy[rows]

    def loss(model, z0, t, eps, caption, phrases, boxes_xyxy):
        with torch.no_grad():
            context = parts.text(caption).float()                           # (b,n,d)
        return l_grounding(model, z0, t, eps, context, slots(table, phrases, boxes_xyxy),
                           parts.schedule)

    def log_sample(model, step: int) -> dict:
        x = held.painted(parts_with(parts, model), True, steps=walk)
        return {"png": sheet(x[:8]), "held": held.right(x), "gates": gates_of(model)}

    def report(model) -> dict:
        return gligen_report(parts_with(parts, model), min(200, 4 + steps), walk)

    return Recipe("gligen", unet, LATENT_UNET, f"latents of {len(data.z)} scenes of "
                  "grounding-train, on top of ldm", batch_of, loss, steps, RATE, report, log_sample,
                  MILESTONES, {"ema": .995, "groups": fast_gates},
                  learned=lambda model: {"_on": weights.fingerprint("ldm")}, kept=gate_names)


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


def slots(table: Tensor, phrases: Tensor, boxes_xyxy: Tensor) -> Grounding:
    """Rows of the phrase table (b,6), -1 for none, as a grounding of all slots."""
    b, n = phrases.shape
    used = (phrases >= 0).float()                                           # (b,6)
    features = table[phrases.clamp(min=0)] * used[..., None]                # (b,6,d)
    pad = (0, LIMIT - n)
    return Grounding(torch.nn.functional.pad(boxes_xyxy * used[..., None], (0, 0, *pad)),
                     torch.nn.functional.pad(used, pad),
                     torch.nn.functional.pad(features, (0, 0, *pad)))


def fast_gates(unet: UNet) -> list[dict]:
    """AdamW's two groups: the scalars of the gates at twenty times the rate of the rest."""
    names = gate_names(unet)
    scalars = [n for n in names if n.endswith(("alpha_attn", "alpha_dense"))]
    return [{"params": [unet.get_parameter(n) for n in scalars], "lr": GATE_RATE},
            {"params": [unet.get_parameter(n) for n in names if n not in scalars], "lr": RATE}]


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

    @classmethod
    def of(cls, count: int, split: str = "grounding-test") -> "Held":
        """The first scenes of a split, each with its caption and all its phrases and boxes."""
        data, g = labelled(split, count), torch.Generator().manual_seed(0)
        boxes = torch.tensor(data.renders.boxes_xyxy)
        asked = [instruction(scene(seed), boxes[i], "grounding", g)
                 for i, seed in enumerate(data.renders.seeds)]
        category, moved = tidy(data.category, boxes)
        return cls(asked, category, tidy(data.colour, boxes)[0], moved)

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

    def right(self, x: Tensor) -> float:
        """The part of boxes that the crop referee names right, category and colour both."""
        rows, k = torch.nonzero(self.category >= 0, as_tuple=True)
        category, colour = judge_boxes(weights.load("referee-crop"), x, self.boxes_xyxy[rows, k],
                                       rows)
        hits = (category == self.category[rows, k]) & (colour == self.colour[rows, k])
        return float(hits.float().mean())


def gligen_report(parts: TextToImage, count: int = 1000, steps: int = 30,
                  guidance_scale: float = 5.) -> dict:
    """How many boxes of held-out layouts hold the right category in the right colour.

    Judged by the referee's crops; beside it renders, and pictures painted from the captions
    alone. Distances are to renders of other scenes.
    """
    data, held = labelled("grounding-test", 2 * count), Held.of(count)
    judge, options = weights.load("referee-scene", device.pick()), {
        "steps": steps, "guidance_scale": guidance_scale}
    renders = torch.cat([pictures(data, part) for part in torch.arange(2 * count).split(64)])
    others = judge_scenes(judge, renders[count:])[1]
    made = {"grounded": held.painted(parts, True, **options), "renders": renders[:count],
            "ungrounded": held.painted(parts, False, **options)}
    report = {}
    for name, x in made.items():
        features = judge_scenes(judge, x)[1]
        report |= {f"boxes right, {name}": held.right(x),
                   f"frechet, {name}": frechet_distance(features, others),
                   f"kid, {name}": kernel_distance(features, others)}
    return report | {"layouts": count, "steps": steps, "guidance scale": guidance_scale}
