"""What people answer to the exercises of lesson 13."""

import itertools
from functools import partial

import torch
import torch.nn.functional as F

from gligen_lessons import ddim, latent, nets
from gligen_lessons import prompt2prompt as reference
from gligen_lessons import prompt_alignment as alignment

# swap_mapper


def swapper(share=lambda old, new: 1 / new, pairwise=True, tail=lambda i, j, k: (i + k, j + k),
            start=1., turned=False, checked=True, placed=lambda i, j: i):
    """A swap_mapper with a mistake in one place."""
    def swap(source, target, n):
        if checked and len(source) != len(target):
            raise ValueError("As many words are needed.")
        mapper = torch.zeros(n, n)
        mapper[0, 0] = start
        for (_, old), (_, new) in zip(source, target, strict=False):
            for (a, i), (b, j) in itertools.product(enumerate(old), enumerate(new)):
                equal = len(old) == len(new) and pairwise
                value = float(a == b) if equal else share(len(old), len(new))
                if value:
                    mapper[placed(i, j) if equal else i, j] = value
        i, j = source[-1][1][-1] + 1, target[-1][1][-1] + 1
        for k in range(n - max(i, j)):
            if tail:
                mapper[tail(i, j, k)] = 1
        return mapper.T if turned else mapper
    return swap


def by_columns(source, target, n):
    """A column at a time: where does this token's map come from?"""
    if len(source) - len(target):
        raise ValueError(f"{len(source)} words are not {len(target)}.")
    columns = {0: {0: 1.}}
    for (_, old), (_, new) in zip(source, target, strict=True):
        for k, j in enumerate(new):
            even = len(old) == len(new)
            columns[j] = {old[k]: 1.} if even else {i: 1 / len(new) for i in old}
    moved = target[-1][1][-1] - source[-1][1][-1]
    for j in range(target[-1][1][-1] + 1, n):
        if j - moved < n:
            columns[j] = {j - moved: 1.}
    mapper = torch.zeros(n, n)
    for j, column in columns.items():
        for i, value in column.items():
            mapper[i, j] = value
    return mapper


# align


def greedy(source, target, gap=0., match=1., mismatch=-1.):
    """Takes the first equal token behind the last one taken."""
    found, i = [], 0
    for token in target:
        place = next((k for k in range(i, len(source)) if source[k] == token), -1)
        found.append(place)
        i = i if place < 0 else place + 1
    return found


def aligner(first=True, mismatched=True, priced=True, shift=0, of_source=False, sign=1):
    """A Needleman-Wunsch with a mistake in one place."""
    def find(source, target, gap=0., match=1., mismatch=-1.):
        gap, mismatch = (sign * gap, mismatch) if priced else (0., -1.)
        n, m = len(source), len(target)
        best = torch.zeros(n + 1, m + 1, dtype=torch.float64)
        if first:
            best[:, 0], best[0] = gap * torch.arange(n + 1), gap * torch.arange(m + 1)
        for i, j in itertools.product(range(1, n + 1), range(1, m + 1)):
            equal = source[i - 1] == target[j - 1]
            straight = best[i - 1, j - 1] + (match if equal else mismatch)
            if not equal and not mismatched:
                straight = -1e9
            best[i, j] = max(straight, best[i - 1, j] + gap, best[i, j - 1] + gap)
        pairs, i, j = {}, n, m
        while i and j:
            equal = source[i - 1] == target[j - 1]
            if best[i, j] == best[i - 1, j - 1] + (match if equal else mismatch):
                i, j = i - 1, j - 1
                pairs[j] = i
            elif best[i, j] == best[i - 1, j] + gap:
                i -= 1
            else:
                j -= 1
        if of_source:
            back = {i: j for j, i in pairs.items()}
            return [back.get(k, -1) for k in range(n)]
        return [pairs[k] + shift if k in pairs else -1 for k in range(m)]
    return find


def everywhere_first(source, target, gap=0., match=1., mismatch=-1.):
    return [source.index(token) if token in source else -1 for token in target]


def recursive(source, target, gap=0., match=1., mismatch=-1.):
    """From the end, remembering what was solved."""
    known = {}

    def best(i, j):
        if (i, j) in known:
            return known[i, j]
        if not i or not j:
            known[i, j] = gap * (i + j), (-1,) * j
            return known[i, j]
        (a, p), (b, q), (c, r) = best(i - 1, j - 1), best(i - 1, j), best(i, j - 1)
        same = match if source[i - 1] == target[j - 1] else mismatch
        known[i, j] = max([(a + same, (*p, i - 1)), (b + gap, q), (c + gap, (*r, -1))],
                          key=lambda pair: pair[0])
        return known[i, j]
    return list(best(len(source), len(target))[1])


# word_schedule


def scheduler(count=lambda steps: steps + 1, cut=int, from_=True, cleared=True, order=True,
              rest=True, only_first=False, rows=1, turned=False, checked=True):
    """A word_schedule with a mistake in one place."""
    def schedule(steps, cross, words, n):
        given = dict(cross) if isinstance(cross, dict) else {"default_": cross}
        table = torch.zeros(steps + rows, n)
        names = sorted(given, key=lambda name: (name != "default_") == order)
        for name in names:
            fraction = given[name]
            low, high = fraction if isinstance(fraction, tuple) else (0, fraction)
            if checked and not 0 <= low <= high <= 1:
                raise ValueError("Outside of 0..1.")
            tokens = list(range(n)) if name == "default_" else alignment.find(words, name)
            if name == "default_" and not rest and len(given) > 1:
                continue
            tokens = tokens[:1] if only_first and name != "default_" else tokens
            if cleared:
                table[:, tokens] = 0
            start = cut(low * count(steps)) if from_ else 0
            for token in tokens:
                table[start:cut(high * count(steps)), token] = 1
        return table.T if turned else table
    return schedule


def words_only(steps, cross, words, n):
    given = cross if isinstance(cross, dict) else {"default_": cross}
    table = torch.zeros(steps + 1, n)
    for word, tokens in words:
        start, stop = alignment.step_window(given.get(word, given.get("default_", 0.)), steps + 1)
        table[start:stop, tokens] = 1
    return table


def by_rows(steps, cross, words, n):
    """Row by row, asking each token for its window."""
    given = cross if isinstance(cross, dict) else {"default_": cross}
    windows = [alignment.step_window(given.get("default_", 0.), steps + 1)] * n
    for name in given.keys() - {"default_"}:
        for token in alignment.find(words, name):
            windows[token] = alignment.step_window(given[name], steps + 1)
    return torch.tensor([[float(a <= i < b) for a, b in windows] for i in range(steps + 1)])


# inject, reweight


def moved(base, mapper):
    return torch.einsum("bkpn,bnm->bkpm", base, mapper)


def new_by(mapper, axis=1):
    return (mapper.sum(axis) == 0)[:, None, None]


def renormalised(base, edited, mapper):
    maps = reference.inject(base, edited, mapper)
    return maps / maps.sum(-1, keepdim=True)


def base_changed(base, edited, mapper):
    base.copy_(reference.inject(base, edited, mapper))
    return base


def by_pairs(base, edited, mapper):
    made = []
    for one, own, table in zip(base, edited, mapper, strict=True):
        known = (table != 0).any(0).float()
        made.append(known * (one @ table) + (1 - known) * own)
    return torch.stack(made)


def by_tokens(base, edited, mapper):
    made = edited.clone()
    for b, j in itertools.product(range(len(base)), range(mapper.shape[2])):
        if mapper[b, :, j].any():
            made[b, ..., j] = (base[b] * mapper[b, :, j]).sum(-1)
    return made


def in_place(attention, scale):
    attention *= scale[:, None, None]
    return attention


# blend_mask


def masker(pool=3, over=(1, 2, 3), mode="nearest", join=lambda a, b: a | b, limit=None,
           chosen=lambda words: words, fixed=None, upside_down=False, above=torch.gt,
           gather=torch.sum, late=False, halves=lambda inside: inside.chunk(2)):
    """A blend_mask with a mistake in one place."""
    def mask(maps, words, size, threshold=.3):
        heat = gather(maps * chosen(words)[:, :, None, None], 1)[:, None]
        heat = heat if late else F.max_pool2d(heat, pool, 1, pool // 2)
        smooth = {"align_corners": False} if mode == "bilinear" else {}
        heat = F.interpolate(heat, size=(size, size), mode=mode, **smooth)
        heat = F.max_pool2d(heat, pool, 1, pool // 2) if late else heat
        top = heat.amax(over, keepdim=True) if limit is None else limit
        inside = join(*halves(above(heat, top * (fixed or threshold))))
        return ~inside if upside_down else inside
    return mask


def by_shifting(maps, words, size, threshold=.3):
    """The widening by nine shifted copies, and the enlarging by repetition."""
    heat = torch.einsum("bnhw,bn->bhw", maps, words)
    edge = F.pad(heat, (1, 1, 1, 1), value=-torch.inf)
    h, w = heat.shape[1:]
    heat = torch.stack([edge[:, y:y + h, x:x + w] for y in range(3) for x in range(3)]).amax(0)
    inside = heat > threshold * heat.flatten(1).amax(1)[:, None, None]
    inside = inside.repeat_interleave(size // h, 1).repeat_interleave(size // w, 2)[:, None]
    half = len(maps) // 2
    return inside[:half] | inside[half:]


# edit_steps


def looper(control=True, index=int, model=int, end=None, offset=1, local=True, summed=True,
           waits=True, late=0, rows=None, free=True, once=False, layers=reference.attentions,
           threshold=True, turned=False):
    """An edit_steps with a mistake in one place."""
    def edit_steps(parts, models, zt, control_, blend=None):
        schedule, seen = parts.schedule, 0.
        last = float(schedule.alpha_bar[0]) if end is None else end
        words = latent.cross_attentions(parts.unet) if blend else {}
        for i, step in enumerate(ddim.timesteps(schedule.T, len(models), offset=offset)):
            t = torch.full((len(zt),), step)
            act = partial(control_, index(i)) if control else lambda name, p: None
            with (torch.set_grad_enabled(not free), nets.record_attention(words, nets.head_mean(
                    nets.attention_map)) as maps,
                    nets.replace_attention(layers(parts.unet), act)):
                eps_hat = models[model(i)](zt, t)
            t_prev = t - schedule.T // len(models)
            zt = ddim.ddim_step(eps_hat, zt, t, t_prev, schedule, end=last)
            if blend and local:
                now = latent.token_maps(maps, blend.side)
                now = now[-len(zt):] if rows is None else now[rows]
                seen = seen + now if summed else now
                if i >= int(blend.start * len(models)) + late or not waits:
                    least = {"threshold": blend.threshold} if threshold else {}
                    inside = reference.blend_mask(seen, blend.words, zt.shape[-1], **least)
                    zt = reference.blend(zt, ~inside if turned else inside)
            if not once or i == len(models) - 1:
                yield step, zt
    return edit_steps


def as_a_list(parts, models, zt, control, local=None):
    return list(looper()(parts, models, zt, control, local))


# fit_null


def fitter(kind=torch.optim.Adam, sign=1., fresh=True, steps=None, kept=True, detached=True,
           begin=torch.clone):
    """A fit_null with a mistake in one place."""
    def fit(null, land, goal, iterations=10, rate=.01):
        x = (begin(null) if kept else null).requires_grad_()
        optimizer = kind([x], lr=rate)
        for _ in range(iterations if steps is None else steps):
            if fresh:
                optimizer.zero_grad()
            (sign * F.mse_loss(land(x), goal)).backward(inputs=[x])
            optimizer.step()
        return x.detach() if detached else x
    return fit


def forgetful(null, land, goal, iterations=10, rate=.01):
    for _ in range(iterations):
        null = fitter(steps=1)(null, land, goal, 1, rate)
    return null


def weights_too(null, land, goal, iterations=10, rate=.01):
    x = null.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=rate)
    for _ in range(iterations):
        optimizer.zero_grad()
        F.mse_loss(land(x), goal).backward()
        optimizer.step()
    return x.detach()


def by_hand(null, land, goal, iterations=10, rate=.01):
    """Adam written out."""
    x, m, v = null.clone(), 0., 0.
    for k in range(1, iterations + 1):
        x.requires_grad_()
        gradient, = torch.autograd.grad((land(x) - goal).square().mean(), x)
        m, v = .9 * m + .1 * gradient, .999 * v + .001 * gradient**2
        x = x.detach() - rate * (m / (1 - .9**k)) / ((v / (1 - .999**k)).sqrt() + 1e-8)
    return x


WRONG = {
    "swap_mapper": [
        (swapper(turned=True), "other way"), (lambda s, t, n: torch.eye(n), "the identity"),
        (swapper(share=lambda old, new: 1.), "must share"),
        (swapper(share=lambda old, new: 1 / old), "1 / len(old)"),
        (swapper(pairwise=False), "token by token"),
        (swapper(lambda old, new: 1. if old == new else 1 / new, False), "block of ones"),
        (swapper(placed=lambda i, j: j), "by position"),
        (swapper(tail=lambda i, j, k: (j + k, j + k)), "by its position"),
        (swapper(tail=None), "end token"), (swapper(start=0.), "start token"),
        (swapper(checked=False), "nothing was said")],
    "align": [
        (greedy, "greedy search"), (everywhere_first, "partners must rise"),
        (aligner(first=False), "cost i gaps"), (aligner(priced=False), "gaps cost"),
        (aligner(mismatched=False), "better move"), (aligner(shift=1), "positions from 1"),
        (aligner(of_source=True), "for each of the 4 TARGET"),
        (aligner(sign=-1), "was taken away"),
        (lambda source, target, *prices: [-1] * len(target), "new word in the middle")],
    "word_schedule": [
        (scheduler(count=lambda steps: steps), "steps + 1 rows, as in the official"),
        (scheduler(rows=0), "needs steps + 1 rows"), (scheduler(cut=round), "cuts down"),
        (scheduler(order=False), "default overwrites"),
        (scheduler(from_=False), "leaves the steps before"),
        (scheduler(only_first=True), "first token"),
        (scheduler(cleared=False), "clear its columns"), (scheduler(rest=False), "is ignored"),
        (scheduler(turned=True), "columns are tokens"),
        (words_only, "start token and those"),
        (scheduler(checked=False), "nothing was said")],
    "inject": [
        (lambda base, edited, mapper: moved(base, mapper), "its OWN map"),
        (lambda base, edited, mapper: torch.where(new_by(mapper, 2), edited,
                                                  base @ mapper.mT[:, None]), "rows and columns"),
        (lambda base, edited, mapper: torch.where(new_by(mapper), base, moved(edited, mapper)),
         "changed places"),
        (lambda base, edited, mapper: base, "whole base map"),
        (lambda base, edited, mapper: edited, "nothing is taken"),
        (lambda base, edited, mapper: torch.where(new_by(mapper, 2), edited, moved(base, mapper)),
         "looks at rows"), (renormalised, "normalised again"),
        (lambda base, edited, mapper: torch.where(new_by(mapper), edited,
                                                  base @ mapper.mT[:, None]), "turned around"),
        (lambda base, edited, mapper: moved(base, mapper)
         + edited * (1 - mapper.sum(1))[:, None, None], "fills it up"),
        (lambda base, edited, mapper: moved(base, mapper) + edited, "added to all"),
        (lambda base, edited, mapper: torch.where(
            new_by(mapper[:1]), edited, base @ mapper[0]), "first pair's"),
        (base_changed, "make a new tensor")],
    "reweight": [
        (lambda p, c: p * c[:, None, None] / (p * c[:, None, None]).sum(-1, keepdim=True),
         "normalised again"),
        (lambda p, c: (p * c[:, None, None]).softmax(-1), "softmax was taken"),
        (lambda p, c: p + c[:, None, None], "added"), (lambda p, c: p * c[0], "the first one's"),
        (lambda p, c: p / c[:, None, None], "divides"),
        (lambda p, c: p * c.clamp(min=0)[:, None, None], "cut off"),
        (in_place, "changes the maps")],
    "blend_mask": [
        (masker(pool=1), "not widened"), (masker(pool=5), "too far"),
        (masker(over=(0, 1, 2, 3)), "whole batch"), (masker(limit=1.), "as they are"),
        (masker(mode="bilinear"), "nearest"), (masker(join=lambda a, b: a & b), "where BOTH"),
        (masker(join=lambda a, b: b), "edited captions' words count"),
        (masker(join=lambda a, b: a), "only the base"),
        (masker(chosen=torch.ones_like), "multiply by `words`"),
        (masker(gather=torch.amax), "are summed"), (masker(late=True), "less than a cell"),
        (masker(halves=lambda inside: (inside[::2], inside[1::2])), "alternately"),
        (masker(above=torch.ge), "0 is not above"), (masker(fixed=.3), "is ignored"),
        (masker(upside_down=True), "upside down")],
    "edit_steps": [
        (looper(control=False), "nothing is controlled"), (looper(index=lambda i: 0), "step 0"),
        (looper(layers=latent.cross_attentions), "both kinds of layers"),
        (looper(threshold=False), "`local.threshold`"),
        (looper(index=lambda i: 3 - i), "counts from the end"),
        (looper(model=lambda i: 0), "model of its own"), (looper(end=1.), "ends at alpha_bar[0]"),
        (looper(offset=0), "are not moved"), (looper(local=False), "it is ignored"),
        (looper(late=1), "a step late"), (looper(summed=False), "sum them over"),
        (looper(waits=False), "begins with the first"), (looper(turned=True), "turned round"),
        (looper(rows=slice(0, 2)), "half without caption"), (looper(free=False), "no_grad"),
        (looper(once=True), "after every step")],
    "fit_null": [
        (fitter(sign=-1.), "AWAY"), (forgetful, "begins anew"), (fitter(fresh=False), "pile up"),
        (fitter(kind=torch.optim.SGD), "plain gradient"), (fitter(steps=0), "nothing has moved"),
        (fitter(steps=1), "one step"), (fitter(kept=False), "clone it"),
        (fitter(detached=False), "detach"), (fitter(begin=torch.zeros_like), "begin from"),
        (weights_too, "weights got gradients"),
        (lambda null, land, goal, *rest: fitter()(null, land, goal), "these are the defaults")],
}
RIGHT = {
    "swap_mapper": [by_columns, swapper()],
    "align": [recursive, aligner()],
    "word_schedule": [by_rows, scheduler()],
    "inject": [by_pairs, by_tokens],
    "reweight": [lambda p, c: torch.einsum("bkpn,bn->bkpn", p, c),
                 lambda p, c: torch.stack([one * each for one, each in zip(p, c, strict=True)])],
    "blend_mask": [by_shifting, masker()],
    "edit_steps": [as_a_list, looper()],
    "fit_null": [by_hand, fitter()],
}
