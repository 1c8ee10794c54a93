"""Checks of lesson 4 on attention: dot products, heads, the causal mask."""

import torch
from torch import Tensor

from .. import nets as reference
from . import Wrong, exercise, expect_close

MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 1, 0, 1, 0], [0, 0, 1, 0, 1]]).bool()


def attend(scores: Tensor, v: Tensor, dim: int = -1) -> Tensor:
    """Values mixed by the softmax of scores."""
    return scores.softmax(dim) @ v


@exercise("gligen_lessons.nets:dot_product_attention")
def dot_product_attention(attempt):
    """Four queries, five keys, values of another width; then with a mask."""
    q, k, v = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 7)
    plain = q @ k.transpose(2, 3)                                           # (2,3,4,5)
    scores, hidden = plain / 6**.5, ~MASK
    mistakes = {
        "The scores are not divided by sqrt(d).": attend(plain, v),
        "The scores are divided by d. Its root is wanted.": attend(plain / 6, v),
        "The scores are multiplied by sqrt(d). Divide by it.": attend(plain * 6**.5, v),
        "d is the width of queries and keys, not the number of keys.": attend(plain / 5**.5, v),
        "d is the width of queries and keys, not that of the values.": attend(plain / 7**.5, v),
        "The softmax runs over the queries. Each query shares itself out among the KEYS: the last "
        "axis.": attend(scores, v, -2),
        "The softmax is missing: the weights of a query must be positive and sum to one.":
            scores @ v}
    got = attempt(q.clone(), k.clone(), v.clone())
    error = expect_close(got, attend(scores, v), "Scores q k^T / sqrt(d), a softmax over the keys, "
                         "times v.", mistakes=mistakes)
    mistakes = {
        "The mask is ignored.": attend(scores, v),
        "The mask is upside down: True is where a query MAY look.":
            attend(scores.masked_fill(MASK, -torch.inf), v),
        "Masked scores are set to 0, and exp(0) is 1: such a key still counts. Use -inf.":
            attend(scores * MASK, v),
        "The mask is added as 0 and 1, so a hidden key still counts: -inf where it is False.":
            attend(scores + MASK, v),
        "The weights are masked after the softmax and no longer sum to one: set the SCORES to "
        "-inf.": (scores.softmax(-1) * MASK) @ v}
    got = attempt(q.clone(), k.clone(), v.clone(), MASK.clone())
    expect_close(got, attend(scores.masked_fill(hidden, -torch.inf), v), "With a mask: scores to "
                 "-inf where it is False, before the softmax.", mistakes=mistakes)
    return f"mixes 5 values for 4 queries, with and without mask (largest difference {error:.0e})"


@exercise("gligen_lessons.nets:split_heads")
def split_heads(attempt):
    """Two captions of five tokens, three heads of four numbers."""
    x = torch.randn(2, 5, 12)
    want, got = reference.split_heads(x, 3), attempt(x.clone(), 3)
    shape = tuple(getattr(got, "shape", ()))
    if shape == (2, 5, 3, 4):
        raise Wrong("the heads stand behind the tokens, (b,n,k,d/k): exchange the two axes, so "
                    "that each head sees all tokens.")
    if shape == (2, 4, 5, 3):
        raise Wrong("k and d/k are exchanged: there are k heads, each of width d/k.")
    mistakes = {
        "The shape is right and the numbers are mixed: `view` or `reshape` to (b,k,n,d/k) cuts "
        "across tokens. Split the width first, then exchange axes.": x.reshape(2, 3, 5, 4),
        "Each head takes every k-th number of the width. It takes d/k neighbours.":
            x.unflatten(2, (4, 3)).permute(0, 3, 1, 2),
        "The tokens are mirrored.": want.flip(2), "The heads stand in reverse order.": want.flip(1)}
    error = expect_close(got, want, "Head i of a token is its numbers i d/k to (i+1) d/k.",
                         mistakes=mistakes)
    error += float((reference.join_heads(got) - x).abs().max())
    return f"cuts 12 numbers into 3 heads that join again (largest difference {error:.0e})"


@exercise("gligen_lessons.nets:causal_mask")
def causal_mask(attempt):
    """Five tokens, and one."""
    rows, columns = torch.arange(5)[:, None], torch.arange(5)
    want, got = columns <= rows, attempt(5)
    if isinstance(got, Tensor) and got.is_floating_point() and bool(torch.isinf(got).any()):
        raise Wrong("this is a mask to ADD to scores (0 and -inf). Wanted is True where a token "
                    "may look.")
    if isinstance(got, Tensor) and got.shape == (5, 5) and got.dtype != torch.bool:
        raise Wrong(f"the mask is {got.dtype}. Make it bool: `~mask` of numbers is something else.")
    for message, value in {
            "This is the triangle of tokens AFTER each one. Rows are queries, columns keys.":
                columns >= rows,
            "True is where a token may NOT look here. Turn it round.": columns > rows,
            "A token may look at itself: the diagonal is True.": columns < rows,
            "Everybody may look at everybody here.": torch.ones(5, 5).bool()}.items():
        if isinstance(got, Tensor) and torch.equal(got, value):
            raise Wrong(message)
    expect_close(got, want, "Row i is True in the columns 0 to i.")
    expect_close(attempt(1), torch.ones(1, 1).bool(), "One token sees itself.")
    return f"lets 5 tokens look at {int(want.sum())} of 25 places"
