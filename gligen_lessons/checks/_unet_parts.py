"""Checks of lesson 5 on the parts of its U-Net: the ResBlock and attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nets as reference
from . import Wrong, exercise, expect_close


def redrawn(net: nn.Module) -> nn.Module:
    """The network with every weight far from where it starts."""
    for p in net.parameters():
        nn.init.normal_(p, .3, .5)
    return net.requires_grad_(False)


def loaded(attempt, net: nn.Module, *sizes) -> nn.Module:
    """The learner's network of these sizes with the weights of ours."""
    learner = attempt(*sizes)
    learner.load_state_dict(net.state_dict())
    return learner.requires_grad_(False)


@exercise("gligen_lessons.nets:ResnetBlock2D")
def ResnetBlock2D(attempt):
    """From 6 channels to 9 at two steps; then 6 to 6 and without a step."""
    net = redrawn(reference.ResnetBlock2D(6, 9, 10, 3))
    x, temb = torch.randn(2, 6, 5, 4), torch.randn(2, 10)
    want = net(x, temb)
    error = expect_close(loaded(attempt, net, 6, 9, 10, 3)(x.clone(), temb.clone()), want,
                         "norm, SiLU, convolution; add the step; norm, SiLU, convolution; add x.",
                         mistakes=wrong_blocks(net, x, temb))
    plain = redrawn(reference.ResnetBlock2D(6, 6, None, 3))
    expect_close(loaded(attempt, plain, 6, 6, None, 3)(x.clone()), plain(x), "Without `temb`, and "
                 "with as many channels as before: no shift, and x itself in the sum.")
    return f"agrees on 2 pictures at 2 steps, and without a step (largest difference {error:.0e})"


def wrong_blocks(net: nn.Module, x: Tensor, temb: Tensor) -> dict:
    """Typical mistakes in a ResBlock, with what they give."""
    def first(x):
        return net.conv1(F.silu(net.norm1(x)))                              # (b,9,h,w)

    def last(y):
        return net.conv2(F.silu(net.norm2(y)))                              # (b,9,h,w)
    side, y = net.conv_shortcut(x), first(x)
    shift = net.time_emb_proj(F.silu(temb))[:, :, None, None]               # (b,9,1,1)
    raw = net.time_emb_proj(temb)[:, :, None, None]
    return {
        "The step does not take part: `temb` is never added.": side + last(y),
        "The residual connection is missing: add x (or its 1 x 1 convolution) at the end.":
            last(y + shift),
        "`temb` goes through the SiLU before its linear layer.": side + last(y + raw),
        "The step is added at the end. It belongs BETWEEN the convolutions, so that the second "
        "one can react to it.": side + last(y) + shift,
        "The step is added behind the second norm. It comes before it.":
            side + net.conv2(F.silu(net.norm2(y) + shift)),
        "The step is added behind the second SiLU. It comes before the second norm.":
            side + net.conv2(F.silu(net.norm2(y)) + shift),
        "The step is multiplied; it is added.": side + last(y * shift),
        "These are ReLUs: take F.silu, all three times.": side + net.conv2(F.relu(net.norm2(
            net.conv1(F.relu(net.norm1(x))) + net.time_emb_proj(F.relu(temb))[:, :, None, None]))),
        "The SiLU comes behind each convolution. It stands between norm and convolution.":
            side + F.silu(net.conv2(net.norm2(F.silu(net.conv1(net.norm1(x))) + shift))),
        "The SiLU comes before the norm. Norm first.":
            side + net.conv2(net.norm2(F.silu(net.conv1(net.norm1(F.silu(x))) + shift))),
        "The SiLUs are missing: without them two convolutions are one.":
            side + net.conv2(net.norm2(net.conv1(net.norm1(x)) + shift)),
        "The norms are missing.":
            side + net.conv2(F.silu(net.conv1(F.silu(x)) + shift))}


@exercise("gligen_lessons.nets:Attention")
def Attention(attempt):
    """Cross-attention with a context of another length and width, and self-attention."""
    net = redrawn(reference.Attention(12, 3, 12))
    x, context = torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    learner = loaded(attempt, net, 12, 3, 12)
    try:
        got = learner(x.clone(), context.clone())
    except RuntimeError as error:
        if "ambiguous" not in str(error):
            raise
        raise Wrong("a tensor is neither true nor false: ask `if context is None`.") from None
    error = expect_close(got, net(x, context), "Queries from x, "
                         "keys and values from the context, heads split, mixed, joined, to_out.",
                         mistakes=wrong_attentions(net, x, context))
    expect_close(learner(x.clone()), net(x), "Without a context x attends to itself: keys and "
                 "values come from x then.")
    net, words = redrawn(reference.Attention(12, 3, 8)), torch.randn(2, 7, 8)
    learner = loaded(attempt, net, 12, 3, 8)
    expect_close(learner(x.clone(), words.clone()), net(x, words), "A context of 7 tokens of "
                 "width 8 for 5 queries of width 12: is a size written into it?")
    if torch.is_grad_enabled() and not learner(x.requires_grad_(), words).requires_grad:
        raise Wrong("no gradient reaches x: no .detach() or no_grad here.")
    return f"attends to x and to a context of 7 tokens (largest difference {error:.0e})"


def wrong_attentions(net: nn.Module, x: Tensor, context: Tensor) -> dict:
    """Typical mistakes in attention, with what they give."""
    def mixed(q, k, v, heads=3):
        q, k, v = (reference.split_heads(y, heads) for y in (q, k, v))
        return reference.dot_product_attention(q, k, v)                    # (b,k,n,d/k)

    def out(y):
        return net.to_out[0](reference.join_heads(y))                             # (b,n,d)
    q, k, v = net.to_q(x), net.to_k(context), net.to_v(context)
    both, root = torch.cat([x, context], 1), (q.shape[-1] / 3) ** .5
    return {
        "The scores are divided by the root of the width twice: "
        "F.scaled_dot_product_attention does it.": out(mixed(q / root, k, v)),
        "The scores are not divided by the root of a head's width.": out(mixed(q * root, k, v)),
        "The context is joined to x. Pixels read the context alone: it replaces x as the source.":
            out(mixed(q, net.to_k(both), net.to_v(both))),
        "The context is not read: this is self-attention.": out(mixed(q, net.to_k(x), net.to_v(x))),
        "Queries come from the context, keys and values from x: it is x that asks.":
            out(mixed(net.to_q(context), net.to_k(x), net.to_v(x))),
        "The values come from x. What is looked at is also what is fetched: `to_v(context)`.":
            out(mixed(q, k, net.to_v(x))),
        "Keys and values are exchanged.": out(mixed(q, v, k)),
        "There is one wide head. Split the width into `self.heads`.": out(mixed(q, k, v, 1)),
        "`to_out` is missing: the heads never meet.": reference.join_heads(mixed(q, k, v)),
        "The heads are joined without exchanging axes first, which mixes up tokens: "
        "`join_heads`.": net.to_out[0](mixed(q, k, v).reshape(x.shape)),
        "x is added here. The block around it does that.": x + out(mixed(q, k, v))}
