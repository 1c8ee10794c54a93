"""Networks that look at pictures, each through its transform: a detector, and CLIP as a namer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip import CLIP, similarity
from ..detr import DETR, EVEN_ODDS, answers, postprocess
from ..images import resized


@dataclass(frozen=True)
class ImageTransform:
    """How a network wants its pictures: `side` pixels, each channel's mean and std."""

    side: int
    mean: tuple[float, ...] = (.5, .5, .5)
    std: tuple[float, ...] = (.5, .5, .5)

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (b,3,h,w) in [-1, 1], resized and normed; as they stand with .5 and .5."""
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        return ((resized(x, self.side) + 1) / 2 - mean) / std


@dataclass(frozen=True)
class Detector:
    """A DETR, the names of its labels and its transform."""

    model: DETR
    names: list[str]
    transform: ImageTransform

    @torch.no_grad()
    def __call__(self, x: Tensor) -> list[tuple[list[str], Tensor]]:
        """What is more likely there than not: names and boxes_xyxy (m,4) of each picture.

        The surest first. Boxes are cut at the border; labels that no thing has ("N/A") are left
        out.
        """
        where = next(self.model.parameters()).device
        found = []
        for one in postprocess(*answers(self.model, self.transform(x.to(where))), EVEN_ODDS):
            cut = one.boxes_xyxy.clamp(0, 1)
            keep = [k for k in one.scores.argsort(descending=True).tolist()
                    if self.names[one.labels[k]] != "N/A" and bool((cut[k, 2:] > cut[k, :2]).all())]
            found.append(([self.names[one.labels[k]] for k in keep], cut[keep]))
        return found


@dataclass(frozen=True)
class ClipClassifier:
    """A CLIP that says which of some words fits a picture best."""

    model: CLIP
    tokenizer: Callable
    transform: ImageTransform

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Where pictures (b,3,h,w) in [-1, 1] lie in CLIP's space, (b,d)."""
        where = self.model.logit_scale.device
        return self.model.encode_image(self.transform(x.to(where))).cpu()

    @torch.no_grad()
    def best(self, x: Tensor, prompts: list[list[str]]) -> list[int]:
        """Which of its own prompts fits each picture best."""
        every = sorted({text for some in prompts for text in some})
        ids = self.tokenizer(every).to(self.model.logit_scale.device)
        fit = similarity(self.features(x), self.model.encode_text(ids).cpu(), torch.tensor(0.))
        return [int(row[[every.index(text) for text in some]].argmax())
                for row, some in zip(fit, prompts, strict=True)]
