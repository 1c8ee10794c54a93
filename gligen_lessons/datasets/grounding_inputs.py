"""Scenes as key points, pictures and maps ground them: what lesson 11's trainings read."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import device, weights
from ..gligen import LIMIT, Grounding
from ..grounding_inputs import PERSONS, Entities, Keypoints, image_features
from ..grounding_maps import MAP_CLASSES, MAP_SIDE
from ..images import crops, to_model
from ..latent import TextToImage
from ..world import keypoints, scene
from ..world.backdrop import STUFF_ID, THING_ID
from ..world.cache import Renders, code_version
from ..world.records import Record
from ..world.scene import MAX_THINGS, Scene
from ..world.vocabulary import BASE, KEYPOINTS, POSABLE
from .instructions import Layouts, layouts, slots
from .latent_scenes import made_once

JOINTS = len(KEYPOINTS)
LEAST_SEEN = 6                                            # joints that make a figure count
AROUND = .06                                              # half a side of a joint's square
P_BOTH = .5                                               # entities that keep text and picture


# ------------------------------------------------------------------------------ key points

def counting(points: np.ndarray) -> np.ndarray:
    """Which figures of points (n,17,3) have enough visible joints, (n,) of True and False."""
    return (points[..., 2] == 2).sum(1) >= LEAST_SEEN


def first_figures(points: np.ndarray) -> Tensor:
    """The first figures (6,17,3) of points (n,17,3) with at least 6 visible joints, then zeros."""
    found = torch.zeros(MAX_THINGS, JOINTS, 3)
    for i, body in enumerate(points[counting(points)][:MAX_THINGS]):
        found[i] = torch.from_numpy(body)
    return found


def scene_figures(one: Scene, ids: np.ndarray, categories: tuple[str, ...] = POSABLE) -> Tensor:
    """COCO's key points (6,17,3) of a scene's figures of some categories."""
    asked = np.array([thing.category in categories for thing in one.things], bool)
    return first_figures(keypoints(one, ids)[asked])


def figure_numbers(one: Scene, ids: np.ndarray,
                   categories: tuple[str, ...] = POSABLE) -> list[int]:
    """Which of the scene's things these figures are, in their order."""
    counts = counting(keypoints(one, ids))
    return [i for i, thing in enumerate(one.things)
            if counts[i] and thing.category in categories][:MAX_THINGS]


def record_figures(one: Record) -> Tensor:
    """The key points (6,17,3) of a record's figures, as COCO's files give them."""
    return first_figures(one.keypoints[~one.crowd])


@dataclass(frozen=True)
class FigureScenes:
    """Scenes with figures: latents z, captions' ids (N,5,n), key points (N,6,17,3)."""

    z: Tensor
    ids: Tensor
    points: Tensor


def figure_scenes(parts: TextToImage, drawn: Renders) -> FigureScenes:
    """Those of some scenes that show a figure, base categories only."""
    data = layouts(parts, drawn)
    points = torch.stack([scene_figures(scene(seed), drawn.ids[i])
                          for i, seed in enumerate(drawn.seeds)])
    shown = points.flatten(1).any(1)
    if not bool(shown.any()):
        raise ValueError(f"None of these {len(points)} scenes shows a figure: draw more.")
    return FigureScenes(data.z[shown.to(data.z.device)], data.ids[shown], points[shown])


def as_keypoints(points: Tensor, persons: int = PERSONS) -> Keypoints:
    """Key points (b,6,17,3) as grounding; only what is visible is given."""
    b, figures = points.shape[:2]
    seen = (points[..., 2] == 2).float().flatten(1)                         # (b,17*6)
    pad = (0, (persons - figures) * JOINTS)
    return Keypoints(torch.nn.functional.pad(points[..., :2].flatten(1, 2) * seen[..., None],
                                             (0, 0, *pad)), torch.nn.functional.pad(seen, pad))


def joint_places(points: Tensor) -> Grounding:
    """A square around each visible joint, as boxes (b,17*6,4): where its token should be read."""
    xy, seen = points[..., :2].flatten(1, 2), (points[..., 2] == 2).float().flatten(1)
    boxes = torch.cat([xy - AROUND, xy + AROUND], -1).clamp(0, 1)
    return Grounding(boxes * seen[..., None], seen, boxes[..., :0])


# -------------------------------------------------------------------------------- pictures

@dataclass(frozen=True)
class CropScenes:
    """Layouts, and CLIP's feature of each of their crops, (N,6,d)."""

    layouts: Layouts
    features: Tensor


def crop_scenes(parts: TextToImage, drawn: Renders) -> CropScenes:
    """Some scenes with the features of their things' crops, which are made once."""
    data = layouts(parts, drawn)
    if len(data.z) != len(drawn.seeds):
        raise ValueError("Crops are cut from scenes of base categories only.")
    name = f"{drawn.seeds.start}-{len(drawn.seeds)}-{weights.fingerprint('clip')}-{code_version()}"
    made = made_once("crops", name, lambda: all_crops(drawn, data.boxes_xyxy).half().numpy())
    return CropScenes(data, made)


def all_crops(drawn: Renders, boxes_xyxy: Tensor, batch: int = 64) -> Tensor:
    """The features (N,6,d) of the crops of boxes (N,6,4); zero where there is no box."""
    clip = weights.load("clip", device.pick())
    made = torch.zeros(*boxes_xyxy.shape[:2], clip.text_projection.in_features)
    for rows in torch.arange(len(boxes_xyxy)).split(batch):
        x, boxes = to_model(torch.from_numpy(drawn.images[rows.numpy()])), boxes_xyxy[rows]
        i, k = torch.nonzero((boxes[..., 2:] > boxes[..., :2]).all(-1), as_tuple=True)
        if len(i):
            made[rows[i], k] = crop_features(clip, x, boxes[i, k], i)
    return made


@torch.no_grad()
def crop_features(clip, x: Tensor, boxes_xyxy: Tensor, rows: Tensor) -> Tensor:
    """What boxes (n,4) of pictures `rows` of x (b,3,h,w) show, as entities' features (n,d).

    Without a center crop, as the original: a crop of any shape becomes square.
    """
    where = next(clip.parameters()).device
    shown = crops(x, boxes_xyxy, rows, clip.vision_model.side).to(where)
    return image_features(clip.encode_image(shown), clip.text_projection.weight).cpu()


def drop_one(masks: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Masks of text and of picture from the slots in use (b,n): one of both dropped, half the time.

    Which of the two goes is even (GLIGEN, mask_for_random_drop_text_or_image_feature).
    """
    luck = torch.rand(masks.shape, generator=g)
    text, picture = luck < P_BOTH + (1 - P_BOTH) / 2, (luck < P_BOTH) | (luck >= (1 + P_BOTH) / 2)
    return masks * text, masks * picture


def as_entities(table: Tensor, phrases: Tensor, features: Tensor, boxes_xyxy: Tensor,
                masks: tuple[Tensor, Tensor]) -> Entities:
    """Rows of the phrase table (b,6), -1 for none, and crops' features as entities of 30 slots."""
    told, pad = slots(table, phrases, boxes_xyxy), LIMIT - phrases.shape[1]
    text, picture = (torch.nn.functional.pad(m, (0, pad)) for m in masks)
    shown = torch.nn.functional.pad(features, (0, 0, 0, pad))
    return Entities(told.boxes, told.masks, text, picture, told.features, shown)


# ------------------------------------------------------------------------------------ maps

def semantic_numbers(one: Scene, ids: np.ndarray) -> np.ndarray:
    """The class (s,s) uint8 of each pixel of a scene, numbers of `MAP_CLASSES`.

    ValueError for a thing that is no class: novel things stand in no map.
    """
    table = np.full(256, 255, np.uint8)
    for word, number in STUFF_ID.items():
        table[number] = MAP_CLASSES.index(word)
    for i, thing in enumerate(one.things):
        if thing.category in BASE:
            table[THING_ID + i] = MAP_CLASSES.index(thing.category)
    numbers = table[ids]
    if numbers.max() == 255:
        raise ValueError("This scene shows a thing of a category that maps do not know.")
    return numbers


def record_numbers(one: Record, side: int = 2 * MAP_SIDE) -> np.ndarray:
    """The class (side,side) uint8 of each position of a record, from its masks; things over stuff.

    ValueError for a word that is no class of maps, and where no mask tells what is there.
    """
    shapes = [*one.stuff.items(), *zip(one.categories, one.masks, strict=True)]
    if strange := sorted({word for word, _ in shapes} - set(MAP_CLASSES)):
        raise ValueError(f"{one.name or 'A record'} shows {', '.join(strange)}: no class of maps, "
                         f"which know {', '.join(MAP_CLASSES)}.")
    h, w = one.image.shape[:2]
    rows, columns = (((np.arange(side) + .5) * n / side).astype(int) for n in (h, w))
    numbers = np.full((side, side), 255, np.uint8)
    for word, mask in shapes:
        numbers[mask[rows][:, columns]] = MAP_CLASSES.index(word)
    if numbers.max() == 255:
        raise ValueError(f"{one.name or 'A record'} has positions that no mask covers.")
    return numbers


@dataclass(frozen=True)
class MapScenes:
    """Scenes with their semantic maps: z, captions' ids (N,5,n), numbers (N,64,64) uint8."""

    z: Tensor
    ids: Tensor
    numbers: Tensor


def map_scenes(parts: TextToImage, drawn: Renders) -> MapScenes:
    """Some scenes of base categories with their maps at 64 positions a side."""
    step = drawn.ids.shape[1] // MAP_SIDE
    ids = drawn.ids[:, step // 2::step, step // 2::step]
    numbers = np.stack([semantic_numbers(scene(seed), ids[i])
                        for i, seed in enumerate(drawn.seeds)])
    data = layouts(parts, drawn)
    return MapScenes(data.z, data.ids, torch.from_numpy(numbers))
