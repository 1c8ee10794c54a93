"""What people answer to the exercises of lesson 9."""

import numpy as np
import torch
from torch.nn.functional import softmax

from gligen_lessons import grounded as reference
from gligen_lessons.gligen import gate_names, transformer_blocks
from gligen_lessons.guidance import check_scale, guide
from gligen_lessons.nets import attention_map
from gligen_lessons.recipes.gligen import GATE_RATE, RATE

# gate_parameter_groups

def grouper(fast, names=gate_names, quick=GATE_RATE, slow=RATE, take=lambda net, n:
            net.get_parameter(n), rest=True):
    """A gate_parameter_groups in whose fast group stand the names for which `fast(name)` holds."""
    def groups(unet):
        found = names(unet)
        scalars = [n for n in found if fast(n)]
        slow_ones = [n for n in found if n not in scalars] if rest else []
        return [{"params": [take(unet, n) for n in scalars], "lr": quick},
                {"params": [take(unet, n) for n in slow_ones], "lr": slow}]
    return groups


def scalar(name):
    return ".alpha_" in name


def every_name(unet):
    return [name for name, _ in unet.named_parameters()]


def without_position_net(unet):
    return [name for name in gate_names(unet) if "position_net" not in name]


def only_slow_ones(unet):
    return [{"params": [unet.get_parameter(n) for n in gate_names(unet) if not scalar(n)],
             "lr": RATE}]


def overlapping(unet):
    both = grouper(scalar)(unet)
    both[1]["params"] += both[0]["params"]
    return both


def no_groups(unet):
    return [unet.get_parameter(n) for n in gate_names(unet)]


def slow_first(unet):
    return grouper(scalar)(unet)[::-1]


def by_modules(unet):
    blocks = transformer_blocks(unet)
    scalars = [p for b in blocks for p in (b.fuser.alpha_attn, b.fuser.alpha_dense)]
    fast = {id(p) for p in scalars}
    rest = [p for module in (*(b.fuser for b in blocks), unet.position_net)
            for p in module.parameters() if id(p) not in fast]
    return [dict(params=scalars, lr=GATE_RATE), dict(params=rest, lr=RATE)]


def one_group_each(unet):
    return [{"params": unet.get_parameter(n), "lr": GATE_RATE if scalar(n) else RATE}
            for n in gate_names(unet)]


# gate_schedule

def staged(fall=lambda n: [1 - (i + 1) / n for i in range(n)], count=lambda part, steps:
           int(part * steps + 1e-6), near=lambda x: abs(x - 1) < 1e-6, order=lambda a, b, c:
           a + b + c, least=0.):
    """A strengths with a mistake in one place."""
    def found(steps, stages):
        if not near(sum(stages)) or min(stages) < least:
            raise ValueError("not parts of one")
        full, closing = (count(part, steps) for part in stages[:2])
        return order([1.] * full, list(fall(closing)), [0.] * (steps - full - closing))
    return found


def by_arange(n):
    return np.arange(0, 1, 1 / n)[::-1] if n else []


def never_refuses(steps, stages):
    return staged(near=lambda x: True, least=-9.)(steps, stages)


def as_array(steps, stages):
    whole = torch.tensor(stages, dtype=torch.float64)
    if (whole < 0).any() or not torch.isclose(whole.sum(), torch.tensor(1., dtype=torch.float64)):
        raise ValueError("stages")
    full, closing = (whole[:2] * steps + 1e-6).floor().long().tolist()
    place = torch.arange(steps, dtype=torch.float64)
    fall = 1 - (place - full + 1) / max(closing, 1)
    return torch.where(place < full, 1., torch.where(place < full + closing, fall, 0.)).tolist()


def one_by_one(steps, stages):
    if any(part < 0 for part in stages) or not .999999 < sum(stages) < 1.000001:
        raise ValueError("The stages must be parts that sum to 1.")
    full, closing = (int(round(part * steps, 6)) for part in stages[:2])
    found = []
    for i in range(steps):
        left = full + closing - i - 1
        found.append(1. if i < full else left / closing if left >= 0 else 0.)
    return found


def ends_cut_down(steps, stages):
    if abs(sum(stages) - 1) > 1e-6 or min(stages) < 0:
        raise ValueError("not parts of one")
    full, ends = int(stages[0] * steps + 1e-6), int((stages[0] + stages[1]) * steps + 1e-6)
    closing = ends - full
    return [1.] * full + [1 - (i + 1) / closing for i in range(closing)] + [0.] * (steps - ends)


# grounded_eps

def predictor(contexts=lambda null, context: (null, context), grounds=lambda g: (g.none(), g),
              beta=lambda strength, t: strength[int(t[0])], scale=lambda s: s, detour=True,
              checked=True, mix=guide):
    """A grounded_eps that asks twice, with a mistake in one place."""
    def made(unet, context, null_context, grounding, guidance_scale, strength, through=None):
        if checked:
            check_scale(guidance_scale)
        call = through if through and detour else unet

        def guided(xt, t):
            level = beta(strength, t)
            with reference.gate_scale(unet, level):
                away, towards = (call(xt, t, c, g if level else None) for c, g in zip(
                    contexts(null_context, context), grounds(grounding), strict=True))
            return mix(away, towards, scale(guidance_scale))
        return guided
    return made


def null_without_gates(g):
    return None, g


def gates_left_half_closed(unet, context, null_context, grounding, guidance_scale, strength,
                           through=None):
    right = reference.grounded_eps(unet, context, null_context, grounding, guidance_scale, strength,
                                   through)

    def guided(xt, t):
        prediction = right(xt, t)
        for block in transformer_blocks(unet):
            block.fuser.scale = strength[int(t[0])]
        return prediction
    return guided


def never_closed(unet, context, null_context, grounding, guidance_scale, strength, through=None):
    return reference.grounded_eps(unet, context, null_context, grounding, guidance_scale,
                                  {t: beta or 1. for t, beta in strength.items()}, through)


def alone_where_closed(unet, context, null_context, grounding, guidance_scale, strength,
                       through=None):
    right = reference.grounded_eps(unet, context, null_context, grounding, guidance_scale, strength,
                                   through)
    return lambda xt, t: right(xt, t) if strength[int(t[0])] else unet(xt, t, context, None)


def each_beside_its_copy(unet, context, null_context, grounding, guidance_scale, strength,
                         through=None):
    both, told = torch.cat([null_context, context]), grounding.none().beside(grounding)

    def guided(xt, t):
        with reference.gate_scale(unet, strength[int(t[0])]):
            eps_hat = unet(xt.repeat_interleave(2, 0), t.repeat_interleave(2, 0), both, told)
        return guide(*eps_hat.chunk(2), guidance_scale)
    return guided


def detour_with_open_gates(unet, context, null_context, grounding, guidance_scale, strength,
                           through=None):
    right = reference.grounded_eps(unet, context, null_context, grounding, guidance_scale, strength)
    wide = reference.grounded_eps(unet, context, null_context, grounding, guidance_scale,
                                  dict.fromkeys(strength, 1.), through)
    return wide if through else right


def by_extrapolation(away, towards, s):
    return s * towards + (1 - s) * away


# bootstrap

def resampler(value=lambda drawn: drawn.mean(1), cut=(2.5, 97.5), replace=True, out=tuple,
              seeded=True):
    """A bootstrap with a mistake in one place."""
    def interval(values, seed=0, draws=2000):
        values = np.asarray(values, dtype=float)
        g = np.random.default_rng(seed if seeded else 7)
        n = len(values)
        rows = g.integers(n, size=(draws, n)) if replace else np.stack(
            [g.permutation(n) for _ in range(draws)])
        return out(np.percentile(value(values[rows]), cut))
    return interval


def of_the_values(values, seed=0, draws=2000):
    return tuple(np.percentile(values, [2.5, 97.5]))


def bell_curve(values, seed=0, draws=2000):
    values = np.asarray(values, dtype=float)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def slim_bell(values, seed=0, draws=2000):
    rows = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    means = values[rows].mean(1)
    half = 1.96 * means.std() / np.sqrt(draws)
    return means.mean() - half, means.mean() + half


def by_choice(values, seed=0, draws=2000):
    drawn = np.random.default_rng(seed).choice(values, (draws, len(values)))
    return np.percentile(drawn.mean(0), [2.5, 97.5])


def by_the_hints(values, seed=0, draws=2000):
    rows = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return low, high


def all_ends(values, seed=0, draws=2000):
    values = np.asarray(values, dtype=float)
    means = values[np.random.default_rng(seed).integers(len(values), size=(draws, 12))].mean(1)
    return means.min(), means.max()


def about_zero(values, seed=0, draws=2000):
    low, high = resampler()(values, seed, draws)
    return low - np.mean(values), high - np.mean(values)


def global_draws(values, seed=0, draws=2000):
    values = np.asarray(values, dtype=float)
    rows = np.random.default_rng().integers(len(values), size=(draws, len(values)))
    return np.percentile(values[rows].mean(1), [2.5, 97.5])


def one_draw_again_and_again(values, seed=0, draws=2000):
    means = [np.random.default_rng(seed).choice(values, len(values)).mean() for _ in range(draws)]
    return tuple(np.percentile(means, [2.5, 97.5]))


def by_torch(values, seed=0, draws=2000):
    values, g = torch.tensor(values, dtype=torch.float64), torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (draws, len(values)), generator=g)
    return tuple(values[rows].mean(1).quantile(torch.tensor([.025, .975]).double()).tolist())


def by_counts(values, seed=0, draws=2000):
    values = np.asarray(values, dtype=float)
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=draws)
    means = np.sort(counts @ values / n)
    return float(means[int(.025 * draws)]), float(means[int(.975 * draws)])


# gate_attention

def looker(rows=lambda n: slice(None, n), columns=lambda n: slice(n, None), normal=lambda g, y:
           g.norm1(y), last=lambda looks: looks):
    """A gate_attention with a mistake in one place."""
    def looks(gate, x, objs):
        both = normal(gate, torch.cat([x, gate.linear(objs)], 1))
        n = x.shape[1]
        return last(attention_map(gate.attn, both, both)[:, :, rows(n), columns(n)])
    return looks


def tokens_alone(gate, x, objs):
    both = gate.norm1(torch.cat([x, gate.linear(objs)], 1))
    return attention_map(gate.attn, both[:, :x.shape[1]], both[:, x.shape[1]:])


def through_the_gate(gate, x, objs):
    return gate.scale * gate.alpha_attn.tanh() * reference.gate_attention(gate, x, objs)


def pixels_ask_alone(gate, x, objs):
    tokens = gate.norm1(gate.linear(objs))
    pixels = gate.norm1(x)
    both = torch.cat((pixels, tokens), dim=1)
    return attention_map(gate.attn, pixels, both)[..., x.shape[1]:]


def by_hand(gate, x, objs):
    both = gate.norm1(torch.cat([x, gate.linear(objs)], dim=-2))
    b, m, d = both.shape
    heads = gate.attn.heads
    q, k = (part(both).view(b, m, heads, d // heads) for part in (gate.attn.to_q, gate.attn.to_k))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / (d // heads) ** .5
    n = x.shape[1]
    return softmax(scores, dim=-1).split([n, m - n], dim=2)[0][..., n - m:]


# attention_concentration

def ruler(boxes, side):
    """How much of each column and each row of pixels a box covers, (b,n,side) twice."""
    edges = torch.linspace(0, 1, side + 1)
    return [(torch.minimum(edges[1:], boxes[..., i + 2:i + 3])
             - torch.maximum(edges[:-1], boxes[..., i:i + 1])).clamp(min=0) for i in (0, 1)]


def concentration_of(inside=lambda x, y: torch.einsum("bny,bnx->bnyx", y, x), boxes=lambda b: b,
                     below=lambda maps, cover: maps.mean((2, 3)), above=lambda maps, cover:
                     (maps * cover).sum((2, 3)) / cover.sum((2, 3)), last=lambda x: x):
    """An attention_concentration with a mistake in one place."""
    def found(maps, boxes_xyxy):
        side = maps.shape[-1]
        cover = side * side * inside(*ruler(boxes(boxes_xyxy), side))
        return last(above(maps, cover) / below(maps, cover).clamp(min=1e-9))
    return found


def corners(boxes):
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def outside(maps, cover):
    return (maps * (1 - cover)).sum((2, 3)) / (1 - cover).sum((2, 3))


def clamped_high(maps, boxes_xyxy):
    cover = torch.einsum("bny,bnx->bnyx", *ruler(boxes_xyxy, maps.shape[-1])[::-1])
    mean = (maps * cover).sum((2, 3)) / cover.sum((2, 3)).clamp(min=1e-9)
    return mean / maps.mean((2, 3)).clamp(min=1e-3)


def clamped_area(maps, boxes_xyxy):
    cover = maps.shape[-1]**2 * torch.einsum("bny,bnx->bnyx",
                                             *ruler(boxes_xyxy, maps.shape[-1])[::-1])
    mean = (maps * cover).sum((2, 3)) / cover.sum((2, 3)).clamp(min=1)
    return mean / maps.mean((2, 3)).clamp(min=1e-9)


def nan_for_unused(maps, boxes_xyxy):
    cover = torch.einsum("bny,bnx->bnyx", *ruler(boxes_xyxy, maps.shape[-1])[::-1])
    return (maps * cover).sum((2, 3)) / cover.sum((2, 3)) / maps.mean((2, 3))


def on_a_fine_grid(maps, boxes_xyxy):
    side = maps.shape[-1]
    fine = maps.repeat_interleave(100, 2).repeat_interleave(100, 3)
    place = (torch.arange(100 * side) + .5) / (100 * side)
    x0, y0, x1, y1 = (boxes_xyxy[..., i, None] for i in range(4))
    cover = (((place > y0) & (place < y1))[..., None]
             & ((place > x0) & (place < x1))[..., None, :]).float()
    mean = (fine * cover).sum((2, 3)) / cover.sum((2, 3))
    return torch.where(maps.sum((2, 3)) > 0, mean / maps.mean((2, 3)), 0.)


WRONG = {
    "gate_parameter_groups": [
        (grouper(scalar, quick=RATE, slow=GATE_RATE), "have changed places"),
        (grouper(scalar, names=every_name), "what was there before learns"),
        (grouper(scalar, rest=False), "only the scalars learn"),
        (only_slow_ones, "in no group, so they never"),
        (grouper(scalar, quick=RATE), "slow rate"), (grouper(scalar, slow=GATE_RATE), "torn"),
        (grouper(lambda n: ".fuser." in n), "whole gates are in"),
        (grouper(lambda n: n.endswith("alpha_attn")), "alpha_dense is in the slow"),
        (grouper(scalar, names=without_position_net), "position net is in no"),
        (grouper(scalar, take=lambda net, n: n), "these are names"),
        (grouper(scalar, take=lambda net, n: net.get_parameter(n).clone()), "no copy of it"),
        (overlapping, "stands in both"), (no_groups, "list of dicts")],
    "gate_schedule": [
        (staged(lambda n: [1 - i / n for i in range(n)]), "begins at 1"),
        (staged(lambda n: [1 - (i + 1) / (n + 1) for i in range(n)]), "never gets to 0"),
        (staged(lambda n: np.linspace(1, 0, n)), "both ends"),
        (staged(lambda n: [(i + 1) / n for i in range(n)]), "opens"),
        (staged(lambda n: [1.] * n), "its steps are wide open"),
        (staged(lambda n: [0.] * n), "its steps are closed"),
        (staged(order=lambda a, b, c: c + b[::-1] + a), "stages have changed places"),
        (staged(order=lambda a, b, c: c + b + a), "are closed first"),
        (staged(near=lambda x: x == 1), "as floats they sum"),
        (staged(by_arange), "one too many"),
        (staged(count=lambda part, steps: int(part * steps)), "something tiny"),
        (staged(count=lambda part, steps: round(part * steps)), "cut the number"),
        (ends_cut_down, "END of the closing stage"), (never_refuses, "docstring promises")],
    "grounded_eps": [
        (predictor(grounds=lambda g: (g, g)), "both predictions are grounded"),
        (predictor(grounds=lambda g: (g, g.none())), "groundings have changed"),
        (predictor(grounds=lambda g: (g.none(), g.none())), "without boxes"),
        (predictor(mix=lambda a, b, s: guide(b, a, s)), "two predictions have changed"),
        (predictor(contexts=lambda null, c: (c, null)), "captions have changed"),
        (predictor(contexts=lambda null, c: (c, c)), "both predictions have the caption"),
        (predictor(grounds=null_without_gates), "gates were skipped"),
        (predictor(beta=lambda strength, t: 1.), "`strength` is ignored"),
        (predictor(scale=lambda s: s + 1), "w = s - 1"),
        (predictor(scale=lambda s: 1.), "is ignored"),
        (predictor(detour=False), "`through` is ignored"),
        (detour_with_open_gates, "gates wide open: it belongs"),
        (predictor(checked=False), "scale of -1"),
        (alone_where_closed, "caption guides no longer"),
        (each_beside_its_copy, "beside its copy"),
        (gates_left_half_closed, "still half closed"), (never_closed, "of the old network")],
    "bootstrap": [
        (of_the_values, "of the values"), (resampler(replace=False), "with replacement"),
        (resampler(lambda drawn: drawn.mean(0)), "over axis 1"), (by_choice, "over axis 1"),
        (slim_bell, "root of draws"), (resampler(cut=(5, 95)), "90 % interval"),
        (resampler(cut=(.025, .975)), "in percent"),
        (one_draw_again_and_again, "make the generator once"),
        (all_ends, "smallest and the largest"), (resampler(cut=(25, 75)), "quartiles"),
        (bell_curve, "bell curve"), (about_zero, "each side of 0"),
        (resampler(out=lambda ends: tuple(ends[::-1])), "upper end comes first"),
        (resampler(seeded=False), "`seed` is ignored"), (global_draws, "same seed gave another"),
        (resampler(lambda drawn: np.median(drawn, 1)), "each draw's mean")],
    "gate_attention": [
        (tokens_alone, "over the tokens alone"),
        (looker(lambda n: slice(n, None), lambda n: slice(None, n),
                last=lambda y: y.transpose(2, 3)), "turned round"),
        (looker(lambda n: slice(n, None), lambda n: slice(None, n)), "how much the tokens attend"),
        (looker(columns=lambda n: slice(None, n)), "attention to each other"),
        (looker(rows=lambda n: slice(n, None)), "tokens' attention to each"),
        (looker(lambda n: slice(None), lambda n: slice(None)), "whole map"),
        (looker(normal=lambda g, y: y), "norm1 is missing"),
        (looker(normal=lambda g, y: g.norm1(g.norm1(y))), "norm1 is applied twice"),
        (looker(last=lambda looks: looks.mean(1)), "over the heads"),
        (through_the_gate, "gate's opening"),
        (looker(columns=lambda n: slice(None, 4)), "first columns")],
    "attention_concentration": [
        (concentration_of(inside=lambda x, y: torch.einsum("bny,bnx->bnyx", x, y)),
         "rows and columns"),
        (concentration_of(above=lambda maps, cover: (maps * cover).sum((2, 3)),
                          below=lambda maps, cover: maps.sum((2, 3))), "by chance"),
        (concentration_of(below=lambda maps, cover: torch.ones(1)), "not compared"),
        (concentration_of(below=outside), "mean outside"),
        (concentration_of(inside=lambda x, y: (torch.einsum("bny,bnx->bnyx", y, x) > 0) / 25.),
         "in full."),
        (concentration_of(inside=lambda x, y: (torch.einsum("bny,bnx->bnyx", y, x) > .02) / 25.),
         "or not at all"),
        (concentration_of(boxes=corners), "centre, width"),
        (concentration_of(above=lambda maps, cover: (maps * cover).sum((2, 3))), "large boxes win"),
        (concentration_of(last=lambda x: 1 / x), "upside down"),
        (clamped_high, "clamp(min=1e-9)"), (clamped_area, "clamp(min=1e-9)"),
        (nan_for_unused, "NaN or infinite")],
}

RIGHT = {
    "gate_parameter_groups": [slow_first, by_modules, one_group_each],
    "gate_schedule": [as_array, one_by_one],
    "grounded_eps": [predictor(), predictor(mix=by_extrapolation)],
    "bootstrap": [by_torch, by_counts, by_the_hints, resampler()],
    "gate_attention": [pixels_ask_alone, by_hand],
    "attention_concentration": [on_a_fine_grid, concentration_of()],
}
