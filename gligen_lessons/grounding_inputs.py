"""Other forms of grounding for GLIGEN's gates (Li et al. 2023): key points, pictures.

Each form is a batch of slots with masks, and a position net that makes a token of each slot; the
gates do not care which. Names and arithmetic of the key points are those of the original code
(gligen/GLIGEN, keypoint_grounding_net.py), of the entities those of diffusers'
GLIGENTextBoundingboxProjection(feature_type="text-image").
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .gligen import FREQUENCIES, HIDDEN, Grounding, add_gates, fourier
from .unet import UNet
from .world.vocabulary import KEYPOINTS

PERSONS = 8                                       # figures in a picture
IMAGE_NORM = 28.7                                 # of a picture's feature, as a phrase's has it


@dataclass(frozen=True)
class Keypoints:
    """Figures in a batch: points (b,17p,2) in 0..1, masks (b,17p), 1 where a point is given.

    The 17 of COCO, figure after figure.
    """

    points: Tensor
    masks: Tensor

    none, each, beside = Grounding.none, Grounding.each, Grounding.beside


class KeypointNet(nn.Module):
    """A token for each key point: MLP(which figure + which joint, Fourier(x, y)).

    Figures and joints are told apart by learned embeddings that start at zero. Where a
    point is not given, learned null features stand in for both.
    """

    def __init__(self, d_objs: int, persons: int = PERSONS):
        super().__init__()
        d_xy, joints = 2 * 2 * FREQUENCIES, len(KEYPOINTS)
        self.person_embeddings = nn.Parameter(torch.zeros(persons, d_objs))
        self.keypoint_embeddings = nn.Parameter(torch.zeros(joints, d_objs))
        self.linears = token_mlp(d_objs + d_xy, d_objs)
        self.null_person_feature = nn.Parameter(torch.zeros(d_objs))
        self.null_xy_feature = nn.Parameter(torch.zeros(d_xy))

    def forward(self, points: Tensor, masks: Tensor) -> Tensor:
        names = self.person_embeddings[:, None] + self.keypoint_embeddings  # (p,17,d)
        names = names.flatten(0, 1).expand(len(points), -1, -1)             # (b,17p,d)
        both = [chosen(names, masks, self.null_person_feature),
                chosen(fourier(points), masks, self.null_xy_feature)]
        return self.linears(torch.cat(both, dim=-1))                    # (b,17p,d_objs)


@dataclass(frozen=True)
class Entities:
    """Boxes (b,n,4) with a phrase, a picture, or both in each slot.

    phrases_embeddings and image_embeddings (b,n,d) count where their own masks (b,n) are 1,
    boxes where `masks` (b,n) are: a slot has a place even if only one of the two says what.
    """

    boxes: Tensor
    masks: Tensor
    phrases_masks: Tensor
    image_masks: Tensor
    phrases_embeddings: Tensor
    image_embeddings: Tensor

    each, beside = Grounding.each, Grounding.beside

    def none(self) -> "Entities":
        """The same slots, all unused: what guidance leads away from."""
        return replace(self, **{name: torch.zeros_like(x) for name, x in vars(self).items()
                                if name.endswith("masks")})


class EntityNet(nn.Module):
    """Two tokens for each box: of its phrase, and of its picture, phrases first."""

    def __init__(self, d_feature: int, d_objs: int):
        super().__init__()
        d_box = 2 * 4 * FREQUENCIES
        self.linears_text = token_mlp(d_feature + d_box, d_objs)
        self.linears_image = token_mlp(d_feature + d_box, d_objs)
        self.null_text_feature = nn.Parameter(torch.zeros(d_feature))
        self.null_image_feature = nn.Parameter(torch.zeros(d_feature))
        self.null_position_feature = nn.Parameter(torch.zeros(d_box))

    def forward(self, boxes: Tensor, masks: Tensor, phrases_masks: Tensor,
                image_masks: Tensor, phrases_embeddings: Tensor,
                image_embeddings: Tensor) -> Tensor:
        places = chosen(fourier(boxes), masks, self.null_position_feature)  # (b,n,64)
        phrases = chosen(phrases_embeddings, phrases_masks, self.null_text_feature)
        pictures = chosen(image_embeddings, image_masks, self.null_image_feature)
        tokens = [self.linears_text(torch.cat([phrases, places], -1)),
                  self.linears_image(torch.cat([pictures, places], -1))]
        return torch.cat(tokens, dim=1)                                     # (b,2n,d)


def add_keypoint_gates(unet: UNet) -> UNet:
    """Fill a U-Net's empty slots with gates that read key points, in place."""
    return add_gates(unet, KeypointNet(unet.context_width))


def add_entity_gates(unet: UNet) -> UNet:
    """Fill a U-Net's empty slots with gates that read boxes with phrases and pictures, in place."""
    return add_gates(unet, EntityNet(unet.context_width, unet.context_width))


def chosen(x: Tensor, masks: Tensor, null: Tensor) -> Tensor:
    """x (b,n,d) where masks (b,n) are 1, else `null` (d,), whatever x holds there."""
    return torch.where(masks[..., None] > 0, x, null)


def token_mlp(d_in: int, d_objs: int) -> nn.Sequential:
    """What makes a token of a slot's features, the same as in `gligen.PositionNet`."""
    return nn.Sequential(nn.Linear(d_in, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                         nn.Linear(HIDDEN, d_objs))


def image_features(embeddings: Tensor, text_projection: Tensor) -> Tensor:
    """CLIP's image embeddings, mapped into the space of phrase features, (m,d).

    embeddings (m,e) as CLIP projects them, text_projection (e,d) its text tower's last
    weight. The original divides by the norm, multiplies by the projection, and sets the
    norm to 28.7.
    """
    unit = embeddings / embeddings.norm(dim=-1, keepdim=True)
    back = unit @ text_projection                                           # (m,d)
    return IMAGE_NORM * back / back.norm(dim=-1, keepdim=True)


def keypoint_grounding(figures: list[list], persons: int = PERSONS) -> Keypoints:
    """Each picture's figures, lists of 17 [x, y, visible] in 0..1, as key points.

    A point counts where `visible` is 2, as in COCO. ValueError names the picture and the figure
    with other than 17 points, with coordinates outside 0..1, or with none to be seen.
    """
    joints = len(KEYPOINTS)
    made = torch.zeros(len(figures), persons, joints, 3)
    for i, bodies in enumerate(figures):
        if len(bodies) > persons:
            raise ValueError(f"Picture {i} has {len(bodies)} figures, at most {persons} fit.")
        for k, body in enumerate(bodies):
            made[i, k] = one_figure(body, f"Picture {i}, figure {k}")
    seen = (made[..., 2] == 2).float().flatten(1)                           # (b,17p)
    return Keypoints(made[..., :2].flatten(1, 2) * seen[..., None], seen)


def one_figure(body, where: str) -> Tensor:
    """A figure's points (17,3), or one sentence on what is wrong with them."""
    try:
        points = torch.as_tensor(body, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):                           # ragged, or words
        raise ValueError(f"{where}: {len(KEYPOINTS)} key points of [x, y, visible] make a figure, "
                         f"got {str(body)[:60]}.") from None
    if points.shape != (len(KEYPOINTS), 3):
        raise ValueError(f"{where}: {len(KEYPOINTS)} key points of [x, y, visible] make a figure, "
                         f"got {tuple(points.shape)}.")
    seen = points[points[:, 2] == 2, :2]
    if not len(seen):
        raise ValueError(f"{where}: no key point is visible (its third number must be 2).")
    if not bool(((seen >= 0) & (seen <= 1)).all()):
        bad = seen[~((seen >= 0) & (seen <= 1)).all(1)][0].tolist()
        raise ValueError(f"{where}: a visible key point lies at {bad}; x and y are in 0..1.")
    return points
