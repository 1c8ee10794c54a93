"""Who judges the experiment's pictures: the referee in the world, CLIP elsewhere."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import weights
from ...images import crops, resized
from ...interop.preprocess import ClipClassifier
from ...referee import CROP, CropReferee, SceneReferee, judge_boxes, judge_scenes
from ...world.vocabulary import CATEGORIES, COLOURS
from .arms import InpaintingCase, colour_in


@dataclass(frozen=True)
class Referee:
    """The course's own judge: it took no part in making any picture.

    Distances of whole pictures are in the features of the scene referee (b,64); those of crops
    in the crop referee's (b,128), which a maximum makes large, at the length of sqrt(128).
    """

    scene: SceneReferee
    crop: CropReferee
    name = "referee"

    @classmethod
    def shipped(cls, device: torch.device) -> "Referee":
        return cls(weights.load("referee-scene", device), weights.load("referee-crop", device))

    def image_features(self, x: Tensor) -> Tensor:
        """A vector for each picture, (b,d)."""
        return judge_scenes(self.scene, x)[1]

    @torch.no_grad()
    def crop_features(self, x: Tensor, boxes_xyxy: Tensor) -> Tensor:
        """A vector for what one box (b,4) of each picture holds, (b,d)."""
        found = crops(x.to(device_of(self.crop)), boxes_xyxy, torch.arange(len(x)), CROP)
        features = self.crop.body(found).amax((2, 3)).cpu()
        return F.normalize(features, dim=1) * features.shape[1] ** .5

    @torch.no_grad()
    def perceptual_distance(self, a: Tensor, b: Tensor) -> Tensor:
        """How far two sets of pictures are apart, (b,): mean squared distance of the maps."""
        a, b = (self.scene.body(resized(x.to(device_of(self.scene)))) for x in (a, b))
        return (a - b).square().flatten(1).mean(1).cpu()

    def accuracy(self, x: Tensor, requested: list[InpaintingCase]) -> dict[str, Tensor]:
        """Whether each picture's target box holds what it should, (b,) bool by name.

        "right" is both; a phrase without a colour asks for the category alone.
        """
        boxes, rows = torch.stack([one.box for one in requested]), torch.arange(len(x))
        where = device_of(self.crop)
        category, colour = (answer.cpu() for answer in judge_boxes(
            self.crop, x.to(where), boxes.to(where), rows.to(where)))
        kinds = torch.tensor([CATEGORIES.index(one.categories[one.target]) for one in requested])
        words = [colour_in(one.phrases[one.target]) for one in requested]
        hues = torch.tensor([list(COLOURS).index(w) if w else -1 for w in words])
        in_colour = (colour == hues) | (hues < 0)
        return {"right": (category == kinds) & in_colour, "category right": category == kinds,
                "colour right": in_colour}


@dataclass(frozen=True)
class ClipJudge:
    """CLIP as judge of pictures that the referee has never met.

    Distances are in its image features, of whole pictures and of crops. It also named colours
    for arms B and C, so it is no judge of what is right in a box.
    """

    namer: ClipClassifier
    name = "clip"

    def image_features(self, x: Tensor) -> Tensor:
        return self.namer.features(x)

    def crop_features(self, x: Tensor, boxes_xyxy: Tensor) -> Tensor:
        side = self.namer.transform.side
        return self.namer.features(crops(x, boxes_xyxy, torch.arange(len(x)), side))

    def perceptual_distance(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = (F.normalize(self.image_features(x), dim=1) for x in (a, b))
        return (a - b).square().sum(1)

    def accuracy(self, x: Tensor, requested: list[InpaintingCase]) -> dict[str, Tensor]:
        return {}


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a model's weights lie."""
    return next(model.parameters()).device


def judge_for(categories: list[str], namer: ClipClassifier | None, device: torch.device):
    """The referee where a data set's categories are the world's, else CLIP.

    ValueError where that is needed and not given.
    """
    if set(categories) <= set(CATEGORIES):
        return Referee.shipped(device)
    if namer is None:
        strange = sorted(set(categories) - set(CATEGORIES))
        raise ValueError(f"The referee knows the world's categories only, not {strange[0]!r}: "
                         "give a folder of CLIP with --clip, whose features then judge.")
    return ClipJudge(namer)
