"""How tests compare our numbers with somebody else's."""

from pathlib import Path

import torch
from torch import Tensor, nn

from gligen_lessons.interop import export_diffusers


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value of the reference.

    Raises ValueError where a comparison would pass for nothing: shapes that only broadcast, a
    number that is not finite (in Python max(0.0, nan) is 0.0), a reference of nothing but zeros.
    """
    ours, theirs = ours.detach(), theirs.detach()
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}.")
    for name, values in (("ours", ours), ("theirs", theirs)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} holds numbers that are not finite.")
    scale = float(theirs.abs().max())
    if scale == 0:
        raise ValueError("the reference holds nothing but zeros.")
    return float((ours - theirs).abs().max()) / scale


def draw(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter again, N(0, 1) or N(0, 1 / fan_in), so that outputs are of order 1.

    All come from one pool of noise: Stable Diffusion's 860 million are then drawn in seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = max(p.numel() for p in model.parameters())
    pool = torch.randn(largest + 10007, generator=generator)
    for p in model.parameters():
        start = int(torch.randint(10007, (1,), generator=generator))
        spread = 1.0 if p.ndim < 2 else (p.numel() / len(p)) ** -0.5
        torch.mul(pool[start:start + p.numel()].view(p.shape), spread, out=p.data)


def published(kind: str, parts, folder: Path):
    """Our parts, written in the published layout and opened offline by diffusers' class `kind`."""
    import diffusers

    export_diffusers.write_pipeline(parts, folder)
    opened = getattr(diffusers, kind).from_pretrained(folder, safety_checker=None)
    opened.set_progress_bar_config(disable=True)
    return opened
