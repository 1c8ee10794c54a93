"""ReGround (Lee and Sung 2024, arXiv 2403.13589): gate and cross-attention side by side.

GLIGEN's cross-attention reads what its gate has changed, F = CA(F', c) + F' with
F' = GSA(F, g) + F. ReGround rewires the block without any training: F = GSA(F, g) + CA(F, c) + F,
so that words and boxes both read the same state, and words that no box names are not lost. The
rewired block is `nets.BasicTransformerBlock` with `parallel` set.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from .gligen import transformer_blocks
from .unet import UNet


@contextmanager
def reground(unet: UNet, parallel: bool = True) -> Iterator[None]:
    """Within this context gate and cross-attention stand in parallel, in every block.

    Afterwards each block is wired as it was before, also where an error ended it.
    """
    blocks = transformer_blocks(unet)
    before = [block.parallel for block in blocks]
    try:
        for block in blocks:
            block.parallel = parallel
        yield
    finally:
        for block, was in zip(blocks, before, strict=True):
            block.parallel = was
