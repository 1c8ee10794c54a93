"""Checks of lesson 7 on the transformer."""

import math

import torch

from .. import transformer
from . import Wrong, exercise, expect_close, looks_like


def sinusoids_of(n: int, d: int, first: int = 1, whole: float = 2 * math.pi, rate=None,
                 apart: bool = False, turned: bool = False) -> torch.Tensor:
    """The numbers of one axis, (n,d), by loops; the arguments make typical mistakes."""
    table = torch.zeros(n, d, dtype=torch.float64)
    for i in range(n):
        angle = (i + first) / (n + 1e-6) * whole if whole else i + first
        for j in range(d // 2):
            theta = angle / 10000 ** (2 * j / (rate or d))
            at = (j, d // 2 + j) if apart else (2 * j, 2 * j + 1)
            at = at[::-1] if turned else at
            table[i, at[0]], table[i, at[1]] = math.sin(theta), math.cos(theta)
    return table


def placed(rows, columns) -> torch.Tensor:
    """Both axes for every position, row after row: rows (h,d/2) and columns (w,d/2) to (h*w,d)."""
    return torch.cat([rows.repeat_interleave(len(columns), 0), columns.repeat(len(rows), 1)], 1)


@exercise("gligen_lessons.transformer:sine_positions")
def sine_positions(attempt):
    """A map that is not square, in 24 numbers."""
    def both(**wrong):
        return placed(sinusoids_of(3, 12, **wrong), sinusoids_of(5, 12, **wrong))
    rows, columns = sinusoids_of(3, 12), sinusoids_of(5, 12)
    mistakes = {
        "Rows and columns count from 1 here, not from 0.": both(first=0),
        "The angles are not scaled: divide by the number of rows (or columns), times 2 pi.":
            both(whole=0),
        "The angles run to 1. They run to 2 pi.": both(whole=1.),
        "The angles run to pi. They run to 2 pi.": both(whole=math.pi),
        "The cosines come before the sines. Of each rate the sine is first.": both(turned=True),
        "Columns come first here. The first half is for the row.":
            torch.cat([columns.repeat(3, 1), rows.repeat_interleave(5, 0)], 1),
        "All sines come before all cosines. They alternate: stack, then flatten.":
            both(apart=True),
        "The rates fall half as fast as they should: the exponent is -2i/(d/2). Is the 2 missing, "
        "or does it say d for d/2?": both(rate=24),
        "The rates fall twice as fast as they should: the exponent is over d/2, not d/4.":
            both(rate=6),
        "The positions go column after column. A map is flattened row after row.":
            torch.cat([rows.repeat(5, 1), columns.repeat_interleave(3, 0)], 1)}
    told = attempt(3, 5, 24)
    if isinstance(told, torch.Tensor) and told.shape == (3, 5, 24):
        raise Wrong("the positions are not flattened yet: (h*w,d), row after row.")
    told = told.double() if isinstance(told, torch.Tensor) else told
    error = expect_close(told, placed(rows, columns), "Compare row 1, column 1: the angle is "
                         "2 pi / h for the first half, 2 pi / w for the second; the rates begin "
                         "at 1 and fall.", mistakes=mistakes)
    expect_close(attempt(4, 2, 8).double(), placed(sinusoids_of(4, 4), sinusoids_of(2, 4)),
                 "It is right "
                 "for one size and wrong for another: is a size written into it?")
    return f"writes 15 positions as sinusoids (largest difference {error:.0e})"


def attended(layer, x, position, source, source_position, q="qp", k="sp", v="s", out=True,
             scale=True, heads=None, late=False):
    """DetrAttention by einsum; the arguments make typical mistakes."""
    parts = {"q": x, "qp": x + position, "s": source, "sp": source + source_position}
    def cut(linear, value, after=0):
        return (linear(value) + after).unflatten(2, (heads or layer.heads, -1))   # (b,n,k,d)
    q, k, v = cut(layer.q_proj, parts[q]), cut(layer.k_proj, parts[k]), cut(layer.v_proj, parts[v])
    if late:
        q = cut(layer.q_proj, x, position)
        k = cut(layer.k_proj, source, source_position)
    z = torch.einsum("bnkd,bmkd->bknm", q, k) / (q.shape[-1] ** .5 if scale else 1)
    y = torch.einsum("bknm,bmkd->bnkd", z.softmax(-1), v).flatten(2)
    return layer.o_proj(y) if out else y


@exercise("gligen_lessons.transformer:DetrAttention")
def DetrAttention(attempt):                              # noqa: N802
    """Three answers look at five positions, in two heads."""
    own_layer, layer = transformer.DetrAttention(8, 2), attempt(8, 2)
    for value in own_layer.parameters():
        torch.nn.init.normal_(value, std=.6)
    layer.load_state_dict(own_layer.state_dict())
    x, position, source, source_position = (torch.randn(2, n, 8) for n in (3, 3, 5, 5))
    given = x, position, source, source_position
    tangled = own_layer.split(own_layer.v_proj(source))           # (b,k,m,d/k)
    weights = own_layer.map(*given)
    tangled = own_layer.o_proj((weights @ tangled).reshape(2, 3, 8))
    mistakes = {
        "The values carry positions here. Hand over contents only: v_proj(source).":
            attended(own_layer, *given, v="sp"),
        "What asks does not know its position: q_proj(x + position).": attended(own_layer, *given,
                                                                                q="q"),
        "What is asked does not know its position: k_proj(source + source_position).":
            attended(own_layer, *given, k="s"),
        "The last projection is missing: o_proj.": attended(own_layer, *given, out=False),
        "The scores are not divided by the root of a head's width. "
        "F.scaled_dot_product_attention does it.": attended(own_layer, *given, scale=False),
        "The heads are joined in the wrong order: transpose first, then flatten.": tangled,
        "x is added here. The layer that calls the attention adds x.":
            x + attended(own_layer, *given),
        "This is one head: `self.split` all three.": attended(own_layer, *given, heads=1),
        "The positions are added after the projections. They go in before: q_proj(x + position).":
            attended(own_layer, *given, late=True)}
    alike = x, position, source[:, :3], source_position[:, :3]
    looks_like(layer(*(part.clone() for part in alike)), {
        "The values come from x. What is handed over comes from what is attended to: "
        "v_proj(source).": attended(own_layer, *alike, v="q")})
    told = layer(*(part.clone() for part in given))
    error = expect_close(told, attended(own_layer, *given), "Compare with the formula: q and k "
                         "carry positions, v does not.", mistakes=mistakes)
    return f"attends from 3 to 5 tokens in 2 heads (largest difference {error:.0e})"


def decoded(layer, x, query, memory, position, wrong=""):
    """DetrDecoderLayer step by step, or with one of the typical mistakes."""
    none, norm = torch.zeros_like(query), layer.self_attn_layer_norm
    asks = none if wrong == "silent" else query
    if wrong == "query stays":
        x = x + query
    if wrong == "looks first":
        x = layer.encoder_attn_layer_norm(x + layer.encoder_attn(x, query, memory, position))
        x = norm(x + layer.self_attn(x, query, x, query))
        return layer.final_layer_norm(x + layer.mlp(x))
    if wrong == "pre-norm":
        y = norm(x)
        x = x + layer.self_attn(y, query, y, query)
        x = x + layer.encoder_attn(layer.encoder_attn_layer_norm(x), query, memory, position)
        return x + layer.mlp(layer.final_layer_norm(x))
    kept = 0 if wrong == "no shortcut" else 1
    x = norm(kept * x + layer.self_attn(x, asks, x, asks))
    seen = layer.encoder_attn(x, none if wrong == "no query" else query, memory,
                              torch.zeros_like(position) if wrong == "no place" else position)
    x = layer.encoder_attn_layer_norm(kept * x + seen)
    return layer.final_layer_norm(kept * x + (0 if wrong == "no mlp" else 1) * layer.mlp(x))


@exercise("gligen_lessons.transformer:DetrDecoderLayer")
def DetrDecoderLayer(attempt):                           # noqa: N802
    """Three answers and six positions; then with a dropout that drops everything."""
    own_layer, layer = (kind(8, 2, 16, 0.) for kind in (transformer.DetrDecoderLayer, attempt))
    for value in own_layer.parameters():
        torch.nn.init.normal_(value, std=.5)
    layer.load_state_dict(own_layer.state_dict())
    given = (torch.randn(2, 3, 8), torch.randn(3, 8), torch.randn(2, 6, 8), torch.randn(6, 8))
    messages = {
        "silent": "Between each other the answers need their queries as positions: "
                  "self_attn(x, query, x, query).",
        "no query": "When they look at the picture, the queries are still their positions.",
        "no place": "The memory needs its positions, or nobody finds anything by where it is.",
        "looks first": "The order is: each other first, then the picture, then the MLP.",
        "pre-norm": "The norms come AFTER each sum here, not before each part.",
        "no shortcut": "The sums are missing: each part's result is added to x.",
        "no mlp": "The MLP is missing.",
        "query stays": "The queries are added to x itself. They belong into what asks and is asked "
                       "only; attention adds them."}
    mistakes = {message: decoded(own_layer, *given, wrong) for wrong, message in messages.items()}
    told = layer(*(part.clone() for part in given))
    error = expect_close(told, decoded(own_layer, *given), "Compare each of the three parts with "
                         "the text.", mistakes=mistakes)
    dropping = attempt(8, 2, 16, 1.).train()
    dropping.load_state_dict(own_layer.state_dict())
    x = given[0]
    for norm in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"):
        x = getattr(own_layer, norm)(x)
    expect_close(dropping(*given), x, "Dropout is missing in a part, or stands behind the sum: it "
                 "is for what a part adds.")
    return f"lets 3 answers attend to each other and 6 positions (largest difference {error:.0e})"
