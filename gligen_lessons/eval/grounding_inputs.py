"""Does a picture hold the pose, the colour or the map that was asked for? Judged by the referee.

Each report has the same rows: renders, what the autoencoder gives back of them, pictures with
grounding and without, and the grounded ones held against another picture's wish. That is beaten by
whoever gets the place right; a pose is told from its place by the row of another pose.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .. import latent, weights
from ..datasets.grounding_inputs import (
    as_keypoints,
    crop_features,
    figure_numbers,
    scene_figures,
    semantic_numbers,
)
from ..datasets.labelled import labelled, pictures
from ..gligen import ground
from ..grounded import generate_from
from ..grounding_inputs import Entities
from ..grounding_maps import MAP_CLASSES, generate_from_maps, semantic_maps
from ..images import to_model
from ..latent import TextToImage
from ..metrics import (
    keypoint_precision,
    mean_iou,
    overlap_counts,
    right_points,
    seen_box,
    share,
)
from ..referee import BACKGROUND, judge_boxes, judge_poses, judge_positions
from ..world import boxes, captions, render, scene, seeds
from ..world.scene import MAX_THINGS, Scene
from ..world.vocabulary import BASE, CATEGORIES, KEYPOINTS, POSABLE, STUFF
from .autoencoder import reconstruct
from .grounding import Held

NO_COLOURS = 3                                            # the caption that names none
POSED = tuple(word for word in POSABLE if word in BASE)
ARMS = [k for k, name in enumerate(KEYPOINTS) if name.endswith(("elbow", "wrist"))]


def in_batches(make: Callable, count: int, batch: int = 8) -> Tensor:
    """What `make(rows)` gives for rows 0 to count, one batch after the other."""
    return torch.cat([make(slice(i, min(i + batch, count))) for i in range(0, count, batch)])


def report_rows(held, parts: TextToImage, judged: Callable, **options) -> dict:
    """The rows of a report, each as what `judged(pictures, held)` says.

    The grounded pictures are held against each of the `other_wishes` too.
    """
    grounded = held.generated(parts, **options)
    made = {"renders": (held.x, held), "reconstructions": (reconstruct(parts.vae, held.x), held),
            "grounded": (grounded, held),
            **{name: (grounded, other) for name, other in held.other_wishes().items()},
            "ungrounded": (held.ungrounded(parts, **options), held)}
    return {name: judged(x, of) for name, (x, of) in made.items()}


def ungrounded(parts: TextToImage, texts: list[str], **options) -> Tensor:
    """The captions alone, from the same seeds, by the plain model."""
    plain = latent.TextToImage(parts.vae, parts.text, weights.load("ldm", parts.device),
                               parts.tokenizer, parts.schedule)
    return in_batches(lambda rows: latent.generate(plain, texts[rows], rows.start, **options),
                      len(texts))


# ------------------------------------------------------------------------------ key points

@dataclass(frozen=True)
class HeldFigures:
    """Held-out scenes with figures: captions, key points (n,6,17,3), renders x (n,3,128,128).

    Beside them the number of each figure's category, (n,6), in the order of CATEGORIES, and its
    visible box, boxes_xyxy (n,6,4).
    """

    captions: list[str]
    points: Tensor
    x: Tensor
    category: Tensor
    boxes_xyxy: Tensor

    @classmethod
    def of(cls, count: int, split: str = "grounding-test",
           categories: tuple[str, ...] = POSED) -> "HeldFigures":
        """The first `count` scenes of a split that show a figure of these categories."""
        texts, points, images, category, places = [], [], [], [], []
        for one in map(scene, seeds(split, 40 * count)):
            if len(texts) == count:
                break
            if any(thing.category in categories for thing in one.things):
                drawn = render(one)
                found = scene_figures(one, drawn.ids, categories)
                if bool(found.any()):
                    texts.append(captions(one)[0])
                    points.append(found)
                    images.append(drawn.image)
                    shown = figure_numbers(one, drawn.ids, categories)
                    category.append(torch.tensor(
                        [CATEGORIES.index(one.things[i].category) for i in shown] +
                        [-1] * (MAX_THINGS - len(shown))))
                    places.append(torch.zeros(MAX_THINGS, 4))
                    places[-1][:len(shown)] = torch.from_numpy(boxes(one, drawn.ids)[shown])
        return cls(texts, torch.stack(points), to_model(torch.from_numpy(np.stack(images))),
                   torch.stack(category), torch.stack(places))

    def other_wishes(self) -> dict[str, "HeldFigures"]:
        """The next picture's skeletons, and each figure in another one's pose where it stands."""
        return {"another pose": self.another_pose(),
                "exchanged": replace(self, **{name: getattr(self, name).roll(-1, 0) for name in
                                              ("points", "category", "boxes_xyxy")})}

    def another_pose(self) -> "HeldFigures":
        """Each figure has its place and size, and the pose of the next: what place alone gives."""
        rows, k = torch.nonzero((self.points[..., 2] == 2).any(-1), as_tuple=True)
        own = self.points[rows, k]                                          # (m,17,3)
        other = own.roll(-1, 0)
        (low, high), (start, end) = ([corner[:, None] for corner in seen_box(figures)]
                                     for figures in (own, other))
        part = (other[..., :2] - start) / (end - start).clamp(min=1e-6)     # of the other's box
        moved = low + part * (high - low)
        points = self.points.clone()
        points[rows, k] = torch.cat([moved, other[..., 2:]], -1)
        return replace(self, points=points)

    def generated(self, parts: TextToImage, **options) -> Tensor:
        """Pictures (n,3,128,128) of captions and skeletons; seeds 0, 1, ..."""
        return in_batches(lambda rows: generate_from(
            parts, self.captions[rows], as_keypoints(self.points[rows]).each(
                lambda x: x.to(parts.device)), rows.start, **options), len(self.captions))

    def ungrounded(self, parts: TextToImage, **options) -> Tensor:
        """Pictures of the captions alone."""
        return ungrounded(parts, self.captions, **options)

    def seen(self, x: Tensor, judge=None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, true points (m,17,3), the judge's (m,17,2) and how sure it is (m,), by figure."""
        rows, k = torch.nonzero((self.points[..., 2] == 2).any(-1), as_tuple=True)
        true, judge = self.points[rows, k], judge or weights.load("referee-pose")
        return rows, true, *judge_poses(judge, x, true, rows)

    def right(self, x: Tensor) -> float:
        """PCK at .2 of the figure's height, the mean over figures."""
        _, true, found, _ = self.seen(x)
        return float(right_points(found, true).mean())


def pose_figures(x: Tensor, held: HeldFigures) -> dict:
    """PCK and OKS-AP of pictures of held-out skeletons; `arms`: elbows and wrists, PCK at .1.

    `category`: how often the crop referee names a figure, in its box, as it was asked for.
    """
    rows, true, found, sure = held.seen(x)
    asked = held.category >= 0
    named, _ = judge_boxes(weights.load("referee-crop"), x, held.boxes_xyxy[asked], rows)
    right = named == held.category[asked]
    mine = [rows == i for i in range(len(held.captions))]
    ap = keypoint_precision([(sure[m], found[m]) for m in mine], [true[m] for m in mine])
    every, arms = right_points(found, true), right_points(found, true, .1, ARMS)
    shown = arms.isfinite()                                 # some figures hide both arms
    return share("PCK", every, rows) | share("arms", arms[shown], rows[shown]) | ap | share(
        "category", right, rows)


def keypoint_report(parts: TextToImage, count: int, **options) -> dict:
    """Does the painted figure hold the pose? Base figures, and novel monkeys beside them.

    A wrong pose in the right place has most of the large joints right: compare with another pose,
    and look at the arms. What a clear figure has by its place and size alone is in the row of
    renders held against another pose.
    """
    report = {}
    for name, split, categories in (("", "grounding-test", POSED),
                                    (", novel", "novel", ("monkey",))):
        held = HeldFigures.of(count, split, categories)
        rows = report_rows(held, parts, pose_figures, **options)
        rows["renders, another pose"] = pose_figures(held.x, held.another_pose())
        for row, figures in rows.items():
            report |= {f"{what}, {row}{name}": value for what, value in figures.items()}
    return report | options | {"pictures": count}


# -------------------------------------------------------------------------------- pictures

@dataclass(frozen=True)
class HeldCrops:
    """Held-out layouts whose colours only a crop tells: the captions and phrases name none."""

    held: Held
    captions: list[str]
    x: Tensor

    @classmethod
    def of(cls, count: int, split: str = "grounding-test") -> "HeldCrops":
        """The first layouts of a split, with the renders from which crops are cut."""
        data = labelled(split, count)
        return cls(Held.of(count, split), [captions(scene(s))[NO_COLOURS]
                                           for s in data.renders.seeds],
                   pictures(data, torch.arange(count)))

    def other_wishes(self) -> dict[str, "HeldCrops"]:
        """The same boxes, each asked for the colour of a box in a picture far away."""
        used = self.held.category >= 0
        colour = self.held.colour.clone()
        colour[used] = colour[used].roll(int(used.sum()) // 2, 0)
        return {"exchanged": replace(self, held=replace(self.held, colour=colour))}

    def entities(self, parts: TextToImage, rows: slice, text: bool, picture: bool) -> Entities:
        """Bare categories, crops, or both, for each box."""
        category, boxes = self.held.category[rows], self.held.boxes_xyxy[rows]
        i, k = torch.nonzero(category >= 0, as_tuple=True)
        phrases = [[CATEGORIES[n] for n in row[row >= 0].tolist()] for row in category]
        told = ground(parts, phrases, [b[row >= 0] for b, row in zip(boxes, category, strict=True)])
        shown = torch.zeros_like(told.features)
        shown[i, k] = crop_features(weights.load("clip"), self.x[rows], boxes[i, k], i).to(shown)
        return Entities(told.boxes, told.masks, told.masks * text, told.masks * picture,
                        told.features, shown)

    def generated(self, parts: TextToImage, text: bool = True, picture: bool = True,
                  **options) -> Tensor:
        """Pictures of boxes with bare phrases and crops, or one of both; seeds 0, 1, ..."""
        return in_batches(lambda rows: generate_from(
            parts, self.captions[rows], self.entities(parts, rows, text, picture), rows.start,
            **options), len(self.captions))

    def ungrounded(self, parts: TextToImage, **options) -> Tensor:
        """Pictures of the captions alone."""
        return ungrounded(parts, self.captions, **options)

    def right(self, x: Tensor) -> float:
        """The part of boxes in the colour of their crop."""
        return float(self.held.hits(x)[1].float().mean())


def crop_figures(x: Tensor, wished: HeldCrops) -> dict:
    """How often a box holds the colour of its crop, and the category."""
    (category, colour), pictured = wished.held.hits(x), wished.held.pictures()
    return share("colour", colour, pictured) | share("category", category, pictured)


def entity_report(parts: TextToImage, count: int, **options) -> dict:
    """Is the colour taken from the picture where no word names it? Text alone beside it."""
    held = HeldCrops.of(count)
    rows = report_rows(held, parts, crop_figures, **options) | {
        name: crop_figures(held.generated(parts, text, picture, **options), held)
        for name, text, picture in (("picture alone", False, True), ("text alone", True, False))}
    return {f"{what}, {row}": value for row, figures in rows.items()
            for what, value in figures.items()} | options | {"pictures": count}


# ------------------------------------------------------------------------------------ maps

@dataclass(frozen=True)
class HeldMaps:
    """Held-out scenes: captions, maps of class numbers (n,128,128), renders x (n,3,128,128)."""

    captions: list[str]
    numbers: Tensor
    x: Tensor

    @classmethod
    def of(cls, count: int, split: str = "grounding-test") -> "HeldMaps":
        """The first scenes of a split of base categories."""
        data = labelled(split, count)
        found: list[Scene] = [scene(seed) for seed in data.renders.seeds]
        numbers = np.stack([semantic_numbers(one, ids) for one, ids in
                            zip(found, data.renders.ids, strict=True)])
        return cls([captions(one)[0] for one in found], torch.from_numpy(numbers),
                   pictures(data, torch.arange(count)))

    def other_wishes(self) -> dict[str, "HeldMaps"]:
        """The next picture's map."""
        return {"exchanged": replace(self, numbers=self.numbers.roll(-1, 0))}

    def generated(self, parts: TextToImage, tokens: bool = True, **options) -> Tensor:
        """Pictures of captions and maps, by channels alone where not `tokens`; seeds 0, 1, ..."""
        def made(rows: slice) -> Tensor:
            given = semantic_maps(self.numbers[rows]).each(lambda x: x.to(parts.device))
            return generate_from_maps(parts, self.captions[rows], given if tokens else given.none(),
                                      rows.start, **options)

        return in_batches(made, len(self.captions))

    def ungrounded(self, parts: TextToImage, **options) -> Tensor:
        """Pictures of the captions alone."""
        return ungrounded(parts, self.captions, **options)

    def counts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shared, joint and true positions of each class in each picture; stuff is one class.

        The scene referee names things, at the middle of each of 16 x 16 positions.
        """
        few = self.numbers[:, 4::8, 4::8].long() - len(STUFF)               # BASE comes first
        true = torch.where(few >= 0, few, BACKGROUND)
        found = judge_positions(weights.load("referee-scene"), x)
        return overlap_counts(found, true, BACKGROUND + 1)

    def right(self, x: Tensor) -> float:
        """The mean intersection over union, over all classes that the maps have."""
        return float(mean_iou(*(of.sum(0) for of in self.counts(x))))


def iou_figures(x: Tensor, held: HeldMaps) -> dict:
    """mIoU of things and background, its interval by drawing pictures again."""
    counts = held.counts(x)
    rows = torch.from_numpy(np.random.default_rng(0).integers(len(x), size=(2000, len(x))))
    again = mean_iou(*(of[rows].sum(1) for of in counts))
    low, high = np.percentile(again.numpy(), [2.5, 97.5])
    return {"mIoU": float(mean_iou(*(of.sum(0) for of in counts))), "mIoU, low": float(low),
            "mIoU, high": float(high), "mIoU, n": len(x)}


def map_report(parts: TextToImage, count: int, **options) -> dict:
    """Do painted pictures hold the map? Beside it maps of other scenes, and captions alone.

    In "channels alone" the map enters by the first layer only: all tokens are null tokens.
    """
    held = HeldMaps.of(count)
    rows = report_rows(held, parts, iou_figures, **options)
    rows["channels alone"] = iou_figures(held.generated(parts, tokens=False, **options), held)
    return {f"{what}, {row}": value for row, figures in rows.items()
            for what, value in figures.items()} | options | {
        "mIoU, grounded over exchanged": rows["grounded"]["mIoU"] / rows["exchanged"]["mIoU"],
        "classes": len(MAP_CLASSES) - len(STUFF) + 1, "pictures": count}
