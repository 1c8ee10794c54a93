"""Pictures: conversion between shown and model side, sizes, crops, sheets, PNG bytes.

Model side (b,3,h,w) in [-1, 1], shown side (b,h,w,3) in [0, 1].
"""

import base64
import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIDE = 128                                                # pixels of a whole picture


def to_model(images: Tensor) -> Tensor:
    """Pictures (b,h,w,3) uint8, as they are shown, to (b,3,h,w) float in [-1, 1]."""
    if images.dtype != torch.uint8 or images.shape[-1] != 3:
        raise ValueError("Pictures to convert are (b,h,w,3) whole numbers 0..255, got "
                         f"{tuple(images.shape)} {images.dtype}.")
    return images.movedim(-1, 1).float() / 127.5 - 1


def to_shown(x: Tensor) -> Tensor:
    """Model pictures (b,3,h,w) in [-1, 1] to (b,h,w,3) in [0, 1], clipped.

    ValueError where one holds NaN or infinity: as a file it would be black, and say nothing.
    """
    if not bool(x.isfinite().all()):
        raise ValueError("A picture holds NaN or infinity and cannot be shown: is the guidance "
                         "scale too large, or what it was made from?")
    return ((x.detach().float().cpu() + 1) / 2).clamp(0, 1).movedim(1, -1)


def resized(x: Tensor, side: int = SIDE) -> Tensor:
    """Pictures (b,3,h,w) at `side` pixels, smoothed where they shrink.

    In 32 bits, unless they come in bfloat16. TypeError for whole numbers.
    """
    if not x.is_floating_point():
        raise TypeError(f"Pictures for a network are numbers in [-1, 1], got {x.dtype}: "
                        "images.to_model makes them of 0..255.")
    x = x if x.dtype == torch.bfloat16 else x.float()
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def crops(x: Tensor, boxes_xyxy: Tensor, rows: Tensor, side: int) -> Tensor:
    """Cut boxes (n,4) in 0..1 out of pictures `rows` (n,) of x (b,3,h,w); (n,3,side,side).

    What lies outside a picture repeats its border.
    """
    x0, y0, x1, y1 = boxes_xyxy.to(x).unbind(-1)
    zero = torch.zeros_like(x0)
    theta = torch.stack([torch.stack([x1 - x0, zero, x0 + x1 - 1], -1),
                         torch.stack([zero, y1 - y0, y0 + y1 - 1], -1)], 1)          # (n,2,3)
    grid = F.affine_grid(theta, (len(x0), 3, side, side), align_corners=False)
    return F.grid_sample(x[rows], grid, padding_mode="border", align_corners=False)


def heat_over(x: Tensor, levels: Tensor) -> Tensor:
    """Pictures (b,3,h,w) in grey, and in red how high a map (b,m,m) of 0..1 is: (b,3,h,w).

    The map's cells keep their edges, so that one sees how coarse it is.
    """
    grey = x.mean(1, keepdim=True).expand_as(x)                             # (b,3,h,w)
    heat = F.interpolate(levels[:, None].to(x), x.shape[-2:], mode="nearest")
    red = torch.tensor([.9, -.6, -.8]).to(x).view(1, 3, 1, 1)
    return torch.lerp(grey, red.expand_as(x), .8 * heat)


def mosaic(x: Tensor, columns: int, side: int) -> Image.Image:
    """Pictures (b,3,h,w) as one, in rows, each `side` pixels wide."""
    shown = (to_shown(x) * 255).round().byte()                              # (b,h,w,3)
    h, w = shown.shape[1:3]
    rows = shown.view(-1, columns, h, w, 3).permute(0, 2, 1, 3, 4)
    together = Image.fromarray(rows.reshape(-1, columns * w, 3).numpy())
    return together.resize((columns * side, len(rows) * side), Image.LANCZOS)


def sheet(x: Tensor, columns: int = 4, side: int = 64, kind: str = "JPEG") -> str:
    """Pictures (b,3,h,w) as one small file of a kind that Pillow writes, in base64."""
    file = io.BytesIO()
    mosaic(x, columns, side).save(file, kind, quality=85)
    return base64.b64encode(file.getvalue()).decode()


def png(image) -> bytes:
    """A picture (h,w,3) uint8 as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()
