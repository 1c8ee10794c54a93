"""The referee: two small networks that judge pictures and are never used to make them.

It is trained on the world's exact annotation, all three vocabularies and the held-out pairs
included, so that what a generator says it painted can be checked by somebody else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .images import crops, resized
from .metrics import seen_box, share
from .world.vocabulary import CATEGORIES, COLOURS, KEYPOINTS

CROP = 40                                                 # pixels of a crop
FIGURE = 64                                               # pixels of a crop of a figure
MARGIN = .2                                               # added to a figure's box on each side
BACKGROUND = len(CATEGORIES)                              # the class of an empty crop


class Layer(nn.Module):
    """Convolution, group norm, SiLU; a second one beside a shortcut where nothing changes."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(8, c_out)
        self.same = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.conv(x)))
        return x + y if self.same else y


class CropReferee(nn.Module):
    """Category (or background) and colour of a crop (b,3,40,40) in [-1, 1]."""

    def __init__(self, width: int = 32):
        super().__init__()
        w = width
        self.body = nn.Sequential(
            Layer(3, w), Layer(w, 2 * w, 2), Layer(2 * w, 2 * w), Layer(2 * w, 3 * w, 2),
            Layer(3 * w, 3 * w), Layer(3 * w, 4 * w, 2), Layer(4 * w, 4 * w))
        self.category = nn.Linear(4 * w, len(CATEGORIES) + 1)
        self.colour = nn.Linear(4 * w, len(COLOURS))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the category (b,19), background last, and of the colour (b,10)."""
        x = self.body(crops).amax((2, 3))                          # (b,4w)
        return self.category(x), self.colour(x)


class SceneReferee(nn.Module):
    """Which things with which colours a whole picture holds, judged at 16 x 16 positions."""

    def __init__(self, width: int = 24, features: int = 64):
        super().__init__()
        w = width
        self.body = nn.Sequential(
            Layer(3, w, 2), Layer(w, 2 * w, 2), Layer(2 * w, 2 * w), Layer(2 * w, 4 * w, 2),
            Layer(4 * w, 4 * w), Layer(4 * w, 4 * w), Layer(4 * w, 4 * w), Layer(4 * w, features))
        self.category = nn.Conv2d(features, len(CATEGORIES) + 1, 1)
        self.colour = nn.Conv2d(features, len(COLOURS), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From (b,3,128,128): category logits (b,19,16,16), colours (b,10,16,16), features."""
        x = self.body(x)                                           # (b,64,16,16)
        return self.category(x), self.colour(x), x.mean((2, 3))    # features (b,64)


class PoseReferee(nn.Module):
    """Where the 17 key points of a figure lie in its crop (b,3,64,64).

    Heat maps of 16 x 16 positions; a coarser branch lets each position see the whole figure.
    """

    def __init__(self, width: int = 24):
        super().__init__()
        w = width
        self.body = nn.Sequential(Layer(3, w, 2), Layer(w, 2 * w), Layer(2 * w, 4 * w, 2),
                                  Layer(4 * w, 4 * w), Layer(4 * w, 4 * w))
        self.whole = nn.Sequential(Layer(4 * w, 4 * w, 2), Layer(4 * w, 4 * w, 2),
                                   Layer(4 * w, 4 * w))
        self.last = nn.Sequential(Layer(4 * w, 4 * w), nn.Conv2d(4 * w, len(KEYPOINTS), 1))

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (b,17,16,16)."""
        x = self.body(crops)                                       # (b,96,16,16)
        return self.last(x + F.interpolate(self.whole(x), scale_factor=4))


def expected_points(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Where heat maps (b,17,h,w) point, (b,17,2) in 0..1 of the crop, and how surely, (b,17).

    The mean position, each weighted by its probability (Sun et al. 2018, integral regression);
    sure is what the four best positions hold together.
    """
    h, w = logits.shape[2:]
    p = logits.flatten(2).softmax(-1)                              # (b,17,h*w)
    rows, columns = ((torch.arange(n).to(p) + .5) / n for n in (h, w))
    heat = p.unflatten(2, (h, w))
    xy = torch.stack([(heat.sum(2) * columns).sum(-1), (heat.sum(3) * rows).sum(-1)], -1)
    return xy, p.topk(4, -1).values.sum(-1)


def point_boxes(points: Tensor) -> Tensor:
    """The box (m,4) xyxy around the visible points of figures (m,17,3), and a margin."""
    low, high = seen_box(points)
    room = MARGIN * (high - low).amax(1, keepdim=True).clamp(min=.05)
    return torch.cat([low - room, high + room], 1)


def presence(category: Tensor, colour: Tensor) -> Tensor:
    """How surely each category in each colour is in a picture, (b,18,10) in 0..1.

    The best place's probability of the category times that of the colour.
    """
    p = category.softmax(1)[:, :BACKGROUND].flatten(2)             # (b,18,256)
    q = colour.softmax(1).flatten(2)                               # (b,10,256)
    return (p[:, :, None] * q[:, None]).amax(-1)                   # (b,18,10)


def recall(found: Tensor, present: Tensor) -> float:
    """The part of the true labels (b,18,10) that the referee finds more likely than not."""
    return float((found[present > 0] > .5).float().mean())


def found_beside(found: Tensor, named: Tensor) -> dict[str, float]:
    """What the referee says of pictures (b,18,10) whose captions named something (b,18,10).

    `found` is the part of the named things that it is sure of (`metrics.share`); `exchanged` the
    same where each picture is held against the next one's caption, what a model reaches that does
    not read; `precision` the part named of what it is sure of.
    """
    sure, pictures = found > .5, torch.nonzero(named > 0)[:, 0]
    return share("found", sure[named > 0], pictures) | {
        "exchanged": recall(found, named.roll(1, 0)),
        "precision": float((named[sure] > 0).float().mean()) if bool(sure.any()) else 0.}


@torch.no_grad()
def judge_boxes(model: CropReferee, x: Tensor, boxes_xyxy: Tensor,
                rows: Tensor) -> tuple[Tensor, Tensor]:
    """The category (n,) and colour (n,) of each box, as numbers; BACKGROUND where it is empty."""
    category, colour = model(crops(x, boxes_xyxy, rows, CROP))
    return category.argmax(1), colour.argmax(1)


@torch.no_grad()
def judge_scenes(model: SceneReferee, x: Tensor, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Presence (b,18,10) and features (b,64) of pictures (b,3,h,w) in [-1, 1], on the CPU."""
    if not torch.isfinite(x).all():
        raise ValueError("These pictures hold NaN or infinity; the referee cannot judge them.")
    device = next(model.parameters()).device
    found, features = [], []
    for part in x.split(batch):
        category, colour, feature = model(resized(part.to(device).float()))
        found.append(presence(category, colour).cpu())
        features.append(feature.cpu())
    return torch.cat(found), torch.cat(features)


@torch.no_grad()
def judge_poses(model: PoseReferee, x: Tensor, points: Tensor, rows: Tensor) -> tuple[Tensor,
                                                                                    Tensor]:
    """Where the judge sees the joints of figures (m,17,3) in pictures `rows` of x (b,3,h,w).

    It is told where to look, the box around the given points, and nothing else of them; returns
    points (m,17,2) in 0..1 of the picture and how sure it is of each figure, (m,).
    """
    if not torch.isfinite(x).all():
        raise ValueError("These pictures hold NaN or infinity; the referee cannot judge them.")
    boxes = point_boxes(points)
    found = [expected_points(model(crops(x, boxes[i], rows[i], FIGURE)))
             for i in torch.arange(len(rows)).split(128)]
    xy, sure = (torch.cat(part) for part in zip(*found, strict=True))
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    return low + xy * (high - low), sure.mean(1)


@torch.no_grad()
def judge_positions(model: SceneReferee, x: Tensor, batch: int = 64) -> Tensor:
    """The category at each of 16 x 16 positions of pictures (b,3,h,w); BACKGROUND for none."""
    return torch.cat([model(resized(part.float()))[0].argmax(1) for part in x.split(batch)])
