"""Checks of lesson 11 on ReGround: the rewired block, and the switch for a whole network."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .. import gligen
from ..nets import BasicTransformerBlock
from . import Wrong, exercise, expect_close, expect_unchanged


def open_block() -> BasicTransformerBlock:
    """A block whose gate is far open, all weights drawn."""
    block = BasicTransformerBlock(12, 3, 7)
    block.fuser = gligen.GatedSelfAttentionDense(12, 3, 5)
    for p in block.parameters():
        nn.init.normal_(p, std=.5)
    nn.init.constant_(block.fuser.alpha_attn, .9)
    nn.init.constant_(block.fuser.alpha_dense, -.6)
    return block.requires_grad_(False)


def rewired(block: BasicTransformerBlock, x: Tensor, context: Tensor, objs: Tensor) -> dict:
    """What blocks give that get one thing wrong, by message; "" has the right one."""
    after = x + block.attn1(block.norm1(x))
    grounded = block.fuser(after, objs)

    def words(y):
        return block.attn2(block.norm2(y), context)

    def end(y):
        return y + block.ff(block.norm3(y))

    return {
        "": end(grounded + words(after)),
        "This is GLIGEN's block: cross-attention reads what the gate has changed. With "
        "`parallel` it reads the state before.": end(grounded + words(grounded)),
        "The residual is counted twice: the fuser's result holds it already.":
            end(grounded + words(after) + after),
        "The gate reads what cross-attention has changed. Both read the same state.":
            end(block.fuser(after + words(after), objs)),
        "The words are gone: cross-attention is left out.": end(grounded),
        "The gate is left out: its answer must be added.": end(after + words(after)),
        "Both read x as it came in, before self-attention.":
            end(block.fuser(x, objs) + words(x))}


@exercise("gligen_lessons.nets:BasicTransformerBlock.forward")
def forward(attempt):
    """A block with its gate open: in parallel, in sequence, without grounding, without a gate."""
    block, x = open_block(), torch.randn(2, 9, 12)
    context, objs = torch.randn(2, 4, 7), torch.randn(2, 3, 5)
    mistakes = rewired(block, x, context, objs)
    want, block.parallel = mistakes.pop(""), True

    def asked(**objs):
        return expect_unchanged(partial(attempt, block), x=x, context=context, **objs)

    error = expect_close(asked(objs=objs), want, "F = GSA(F_SA) + CA(F_SA) + F_SA, then the "
                         "feed-forward part.", mistakes=mistakes)
    block.parallel = False
    sequence = BasicTransformerBlock.forward(block, x, context, objs)
    expect_close(asked(objs=objs), sequence, "Without `parallel` the block is GLIGEN's: "
                 "cross-attention reads what the gate gave.",
                 mistakes={"It is in parallel although `parallel` is off.": want})
    plain = BasicTransformerBlock.forward(block, x, context)
    for block.parallel in (True, False):
        expect_close(asked(), plain, "Without grounding the gate is not asked.")
    block.fuser = None
    expect_close(asked(objs=objs), plain, "A block without a fuser has no gate to ask, whatever "
                 "`objs` are.")
    return (f"is GLIGEN's block, and ReGround's where `parallel` is set (largest difference "
            f"{error:.0e})")


@exercise("gligen_lessons.reground:reground")
def reground(attempt):
    """Three blocks, one of them rewired before; the switch turned off; errors; two switches."""
    unet = nn.ModuleList(BasicTransformerBlock(12, 3, 7) for _ in range(3))
    unet[1].parallel = True

    def wiring() -> list[bool]:
        return [block.parallel for block in unet]

    with attempt(unet):
        inside = wiring()
    if inside != [True] * 3:
        raise Wrong(f"inside the context {sum(inside)} of 3 blocks stand in parallel: all of "
                    "`transformer_blocks` do.")
    if wiring() == [True] * 3:
        raise Wrong("afterwards the blocks are still in parallel: put back what was there.")
    if wiring() != [False, True, False]:
        raise Wrong("afterwards a block that had been in parallel is not any more: put back what "
                    "was there, not False.")
    with attempt(unet, parallel=False):
        if any(wiring()):
            raise Wrong("`parallel=False` must put the blocks in sequence.")
    if wiring() != [False, True, False]:
        raise Wrong("after `parallel=False` the blocks are not wired as before: put back what was "
                    "there, whatever `parallel` is.")
    after_errors(attempt, unet, wiring)
    with attempt(unet):
        with attempt(unet, parallel=False):
            pass
        inside = wiring()
    if inside != [True] * 3 or wiring() != [False, True, False]:
        raise Wrong("one context in another: each must put back what it found itself. Keep that "
                    "in a variable of the call, not on the blocks.")
    return "rewires 3 blocks and puts them back"


def after_errors(attempt, unet: nn.ModuleList, wiring: Callable) -> None:
    """An error inside the context must leave it, and leave the blocks as they were."""
    for parallel in (True, False):
        try:
            with attempt(unet, parallel=parallel):
                raise KeyError
        except KeyError:
            pass
        else:
            raise Wrong("an error inside the context is swallowed: use `finally`, or `raise` it "
                        "again.")
        if wiring() != [False, True, False]:
            raise Wrong("after an error inside the context the blocks stay rewired: put them back "
                        "in a `finally`.")
