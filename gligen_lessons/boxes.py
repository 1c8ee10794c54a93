"""Boxes: two formats, and how much two boxes share. All coordinates are normalised, 0 to 1."""

import torch
from torch import Tensor


def xyxy_from_cxcywh(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre, width, height to (..., 4) left, top, right, bottom."""
    cx, cy, w, h = boxes_cxcywh.unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)


def cxcywh_from_xyxy(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom to (..., 4) centre, width, height."""
    x0, y0, x1, y1 = boxes_xyxy.unbind(-1)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], -1)


def area(boxes_xyxy: Tensor) -> Tensor:
    """The area (...) of boxes (..., 4); 0 for a box turned inside out."""
    size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of every pair, (...,n,m), and the union, (...,n,m).

    a_xyxy (...,n,4), b_xyxy (...,m,4).
    """
    a, b = a_xyxy[..., :, None, :], b_xyxy[..., None, :, :]     # (..,n,1,4) (..,1,m,4)
    low = torch.maximum(a[..., :2], b[..., :2])        # the later left and top
    high = torch.minimum(a[..., 2:], b[..., 2:])       # the earlier right and bottom
    shared = (high - low).clamp(min=0).prod(-1)                 # (...,n,m)
    union = area(a) + area(b) - shared
    return shared / union.clamp(min=1e-9), union


def giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalised IoU of every pair, (...,n,m) in (-1, 1] (Rezatofighi et al. 2019).

    IoU less the part of the smallest frame around both that neither fills, so that
    boxes which do not touch still tell how far apart they are.
    """
    overlap, union = iou(a_xyxy, b_xyxy)
    a, b = a_xyxy[..., :, None, :], b_xyxy[..., None, :, :]
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    frame = (high - low).clamp(min=0).prod(-1).clamp(min=1e-9)
    return overlap - (frame - union) / frame


SLIP = 1e-3                                               # out of the picture: rounding, no more


def check_boxes(boxes_xyxy: Tensor, where: str = "boxes") -> Tensor:
    """The boxes (n,4) in float32, or one sentence (ValueError) on what is wrong with which.

    One that reaches out of the picture by no more than rounding does is cut at its border.
    """
    try:
        boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} must be numbers (n,4), got {boxes_xyxy!r}.") from error
    if boxes.shape == (0,):                               # an empty list: no boxes
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where} must be (n,4), got {tuple(boxes.shape)}.")
    if not torch.isfinite(boxes).all():
        raise ValueError(f"{where} hold NaN or infinity.")
    if len(boxes) and boxes.max() > 1.5:
        raise ValueError(f"{where} reach {boxes.max():.4g}: they look like pixels. Divide by the "
                         "picture's width and height, so that they lie in 0..1.")
    if len(boxes) and boxes.min() >= -SLIP and boxes.max() <= 1 + SLIP:
        boxes = boxes.clamp(0, 1)
    flat = ((boxes[:, 2:] - boxes[:, :2]) <= 0).any(1).nonzero().flatten().tolist()
    if flat:
        raise ValueError(f"{where} {flat} have no width or height; a box is left, top, right, "
                         "bottom with left < right and top < bottom.")
    if len(boxes) and (boxes.min() < 0 or boxes.max() > 1):
        raise ValueError(f"{where} must lie in 0..1, got {boxes.min():.7g} to {boxes.max():.7g}.")
    return boxes


def coverage(boxes_xyxy: Tensor, side: int) -> Tensor:
    """The part of each of side x side pixels that a box covers: (...,4) to (...,side,side)."""
    edges = torch.arange(side + 1).to(boxes_xyxy) / side
    low, high = boxes_xyxy[..., None].split(2, dim=-2)              # (...,2,1)
    parts = (torch.minimum(edges[1:], high) - torch.maximum(edges[:-1], low)) * side
    x, y = parts.clamp(0, 1).unbind(-2)                             # (...,side) twice
    return y[..., :, None] * x[..., None, :]
