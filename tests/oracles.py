"""How tests compare our numbers with somebody else's."""

from torch import Tensor


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
