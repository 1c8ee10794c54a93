"""What grounding achieves: boxes, words it never saw, tau, judged by the referee."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import device, weights
from ..datasets.annotated import tidy
from ..datasets.instructions import Instruction, instruction
from ..datasets.labelled import labelled, pictures
from ..grounded import generate_grounded
from ..latent import TextToImage, generate
from ..metrics import feature_distances, share
from ..referee import judge_boxes, judge_scenes
from ..world import scene
from ..world.vocabulary import CATEGORIES


@dataclass(frozen=True)
class Held:
    """Held-out layouts: what is asked for, its category and colour numbers, and its boxes."""

    requested: list[Instruction]
    category: Tensor
    colour: Tensor
    boxes_xyxy: Tensor
    split: str

    @classmethod
    def of(cls, count: int, split: str = "grounding-test", size: int = 128) -> "Held":
        """The first scenes of a split, each with its caption and all its phrases and boxes."""
        data, g = labelled(split, count, size), torch.Generator().manual_seed(0)
        boxes = torch.tensor(data.renders.boxes_xyxy)
        requested = [instruction(scene(seed), boxes[i], "grounding", g)
                     for i, seed in enumerate(data.renders.seeds)]
        category, moved = tidy(data.category, boxes)
        return cls(requested, category, tidy(data.colour, boxes)[0], moved, split)

    def without_captions(self) -> "Held":
        """The same layouts, asked for by their boxes alone."""
        return replace(self, requested=[replace(one, caption="") for one in self.requested])

    def generated(self, parts: TextToImage, grounded: bool, batch: int = 8, **options) -> Tensor:
        """Pictures (n,3,128,128) of the layouts, or of their captions alone; seeds 0, 1, ..."""
        made = []
        for i in range(0, len(self.requested), batch):
            few = self.requested[i:i + batch]
            texts = [one.caption for one in few]
            made.append(generate_grounded(parts, texts, [one.phrases for one in few],
                                          [one.boxes_xyxy for one in few], i, **options)
                        if grounded else generate(parts, texts, i, **options))
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

    def pictures(self) -> Tensor:
        """Which layout each box belongs to, (boxes,)."""
        return torch.nonzero(self.category >= 0)[:, 0]

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
    count = len(held.requested)
    data = labelled(held.split, 2 * count)
    renders = torch.cat([pictures(data, part) for part in torch.arange(2 * count).split(64)])
    others = judge_scenes(weights.load("referee-scene", device.pick()), renders[count:])[1]
    made = {"grounded": held.generated(parts, True, **options), "renders": renders[:count],
            "ungrounded": held.generated(parts, False, **options)}
    return made, others


def figures(held: Held, x: Tensor, others: Tensor) -> dict:
    """Of pictures of the layouts: boxes right, and distances to the features `others`."""
    features = judge_scenes(weights.load("referee-scene", device.pick()), x)[1]
    right = share("boxes right", held.hits(x).all(0), held.pictures())
    return right | feature_distances(features, others)


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
