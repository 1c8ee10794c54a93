"""What people answer to the exercises of lesson 7."""

import math
from itertools import combinations, permutations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from gligen_lessons import boxes as own_boxes
from gligen_lessons import detr as reference
from gligen_lessons import transformer

# brute_force_assignment

def column_of_each_row(cost):
    rows, cols = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(cols)


def sigma_from_one(cost):
    return reference.brute_force_assignment(cost) + 1


def sigma_of_the_dearest(cost):
    return reference.brute_force_assignment(-cost)


def sigma_and_its_cost(cost):
    sigma = reference.brute_force_assignment(cost)
    return sigma, cost[sigma, torch.arange(len(sigma))].sum()


def sigma_greedy(cost):
    sigma = []
    for column in cost.T.tolist():
        free = [row for row in range(len(column)) if row not in sigma]
        sigma.append(min(free, key=column.__getitem__))
    if cost.shape[0] <= cost.shape[1]:
        return reference.brute_force_assignment(cost)
    return torch.tensor(sigma)


def sigma_sharing_rows(cost):
    if cost.shape[0] <= cost.shape[1]:
        return reference.brute_force_assignment(cost)
    return cost.argmin(0)


def sigma_of_the_first_rows(cost):
    n = cost.shape[1]
    return torch.tensor(min(permutations(range(n)),
                            key=lambda rows: cost[list(rows), torch.arange(n)].sum()))


def sigma_by_scipy(cost):
    rows, cols = linear_sum_assignment(cost.T.numpy())
    return torch.from_numpy(cols)


def sigma_by_a_loop(cost):
    best, least, n = None, math.inf, cost.shape[1]
    for chosen in combinations(range(len(cost)), n):
        for rows in permutations(chosen):
            paid = sum(float(cost[row, i]) for i, row in enumerate(rows))
            if paid < least:
                best, least = rows, paid
    return torch.tensor(best)


# giou

def measured(a, b):
    """Shared area, both areas, and the frame, of all pairs."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = sides.clamp(min=0).prod(-1)
    first, second = ((x[..., 2:] - x[..., :2]).prod(-1).expand_as(shared) for x in (a, b))
    frame = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return shared, first, second, frame.prod(-1)


def giou_is_iou(a, b):
    return own_boxes.iou(a, b)[0]


def giou_undivided(a, b):
    overlap, union = own_boxes.iou(a, b)
    return overlap - (measured(a, b)[3] - union)


def giou_in_the_shared_frame(a, b):
    overlap, union = own_boxes.iou(a, b)
    shared = measured(a, b)[0]
    return overlap - (shared - union) / shared


def giou_over_the_union(a, b):
    overlap, union = own_boxes.iou(a, b)
    return overlap - (measured(a, b)[3] - union) / union


def giou_outside_the_shared(a, b):
    shared, _, _, frame = measured(a, b)
    return own_boxes.iou(a, b)[0] - (frame - shared) / frame


def giou_rewarding(a, b):
    overlap, union = own_boxes.iou(a, b)
    frame = measured(a, b)[3]
    return overlap + (frame - union) / frame


def giou_as_a_loss(a, b):
    return 1 - own_boxes.giou(a, b)


def giou_without_slope(a, b):
    return own_boxes.giou(a.detach(), b) + 0 * a.sum()


def giou_with_a_pair(a, b):
    return own_boxes.giou(a, b), own_boxes.iou(a, b)[1]


def giou_of_two_lists(a, b):
    overlap, union = own_boxes.iou(a, b)
    sides = torch.maximum(a[:, None, 2:], b[None, :, 2:]) - torch.minimum(
        a[:, None, :2], b[None, :, :2])
    return overlap - 1 + union / sides.prod(-1)


def giou_from_the_parts(a, b):
    shared, first, second, frame = measured(a, b)
    union = first + second - shared
    return shared / union - 1 + union / frame


def giou_by_one_frame(a, b):
    overlap, union = own_boxes.iou(a, b)
    both = torch.stack(torch.broadcast_tensors(a[..., :, None, :], b[..., None, :, :]))
    size = both[..., 2:].amax(0) - both[..., :2].amin(0)
    frame = size[..., 0] * size[..., 1]
    return overlap - 1 + union / frame


# matching_cost

def costing(name=lambda p: -p, l1=5., overlap=-2., over=-1, corners=True, cut=None):
    """A matching cost of one picture or a batch with some part of it changed."""
    def cost(logits, boxes, labels, targets):
        index = labels[..., None, :].expand(*logits.shape[:-1], labels.shape[-1])
        p = (logits[..., :cut] if over is None else logits[..., :cut].softmax(over))
        far = (boxes[..., :, None, :] - targets[..., None, :, :]).abs().sum(-1)
        pair = (boxes, targets)
        if corners:
            pair = tuple(map(own_boxes.xyxy_from_cxcywh, pair))
        return name(p.gather(-1, index)) + l1 * far + overlap * own_boxes.giou(*pair)
    return cost


def cost_turned(*given):
    return reference.matching_cost(*given).transpose(-2, -1)


def cost_by_squares(logits, boxes, labels, targets):
    far = (boxes[..., :, None, :] - targets[..., None, :, :]).norm(dim=-1)
    return costing(l1=0.)(logits, boxes, labels, targets) + 5 * far


def cost_with_the_loss_s_giou(*given):
    return reference.matching_cost(*given) + 2


def cost_of_one_picture(logits, boxes, labels, targets):
    p = logits.softmax(-1)[..., labels]
    corners = own_boxes.xyxy_from_cxcywh(boxes), own_boxes.xyxy_from_cxcywh(targets)
    return -p + 5 * torch.cdist(boxes, targets, p=1) - 2 * own_boxes.giou(*corners)


def cost_by_one_hot(logits, boxes, labels, targets):
    picked = F.one_hot(labels, logits.shape[-1]).float()
    p = torch.einsum("...qc,...nc->...qn", logits.softmax(-1), picked)
    corners = own_boxes.xyxy_from_cxcywh(boxes), own_boxes.xyxy_from_cxcywh(targets)
    return 5 * torch.cdist(boxes, targets, p=1) - p - 2 * own_boxes.giou(*corners)


def cost_by_exponents(logits, boxes, labels, targets):
    return costing(name=lambda x: -x.exp(), over=None)(
        logits - logits.logsumexp(-1, keepdim=True), boxes, labels, targets)


# match

def matched(logits, boxes, labels, targets):
    """Each picture's cost, after the checks of the library."""
    reference.check_targets(logits, labels, targets)
    costs = [reference.matching_cost(*one)
             for one in zip(logits, boxes, labels, targets, strict=True)]
    if any(not cost.isfinite().all() for cost in costs):
        raise ValueError("The answers hold NaN.")
    return costs


def match_turned(*given):
    return [tuple(map(torch.from_numpy, linear_sum_assignment(cost.T.numpy())))
            for cost in matched(*given)]


def match_with_padding(logits, boxes, labels, targets):
    matched(logits, boxes, labels, targets)
    pad = nn.utils.rnn.pad_sequence
    costs = reference.matching_cost(logits, boxes, pad(labels, True), pad(targets, True))
    return [tuple(map(torch.from_numpy, linear_sum_assignment(cost.numpy()))) for cost in costs]


def match_cut_too_late(logits, boxes, labels, targets):
    pairs = match_with_padding(logits, boxes, labels, targets)
    return [(rows[cols < len(label)], cols[cols < len(label)])
            for (rows, cols), label in zip(pairs, labels, strict=True)]


def match_greedy(*given):
    pairs = []
    for cost in matched(*given):
        free, found = cost.clone(), []
        for column in range(cost.shape[1]):
            row = int(free[:, column].argmin())
            found.append((row, column))
            free[row] = math.inf
        found = torch.tensor(sorted(found), dtype=torch.long).view(-1, 2)
        pairs.append((found[:, 0], found[:, 1]))
    return pairs


def match_the_dearest(*given):
    return [tuple(map(torch.from_numpy, linear_sum_assignment(cost.numpy(), maximize=True)))
            for cost in matched(*given)]


def match_nearest(*given):
    return [(cost.argmin(0), torch.arange(cost.shape[1])) for cost in matched(*given)]


def match_in_numpy(*given):
    return [linear_sum_assignment(cost.numpy()) for cost in matched(*given)]


def match_by_targets(*given):
    pairs = reference.match(*given)
    return [(rows[cols.argsort()], cols.sort().values) for rows, cols in pairs]


def match_unchecked(logits, boxes, labels, targets):
    costs = [reference.matching_cost(*one)
             for one in zip(logits, boxes, labels, targets, strict=True)]
    return [tuple(map(torch.from_numpy, linear_sum_assignment(cost.nan_to_num().numpy())))
            for cost in costs]


def match_one_by_one(*given):
    return [tuple(map(torch.as_tensor, linear_sum_assignment(cost.numpy())))
            for cost in matched(*given)]


def match_by_targets_first(*given):
    pairs = []
    for cost in matched(*given):
        cols, rows = map(torch.from_numpy, linear_sum_assignment(cost.T.numpy()))
        order = rows.argsort()
        pairs.append((rows[order], cols[order]))
    return pairs


# hungarian_loss and detection_loss

def lost(ce=None, bbox=None, overlap=None, ordered=True, corners=True):
    """The Hungarian loss with one part of it replaced; each part is handed what it may need."""
    def loss(logits, boxes, labels, targets, eos_coef=.1):
        pairs, nothing = reference.match(logits, boxes, labels, targets), logits.shape[2] - 1
        wanted = torch.full(logits.shape[:2], nothing)
        for i, (rows, cols) in enumerate(pairs):
            wanted[i, rows] = labels[i][cols]
        each = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        weight = torch.where(wanted == nothing, eos_coef, 1.)
        found = torch.cat([boxes[i, rows] for i, (rows, _) in enumerate(pairs)])
        true = reference.in_order(targets, pairs) if ordered else torch.cat(targets)
        pair = (found, true)
        if corners:
            pair = tuple(map(own_boxes.xyxy_from_cxcywh, pair))
        every, n = own_boxes.giou(*pair), max(1, len(true))
        right = {"loss_ce": (each * weight).sum() / weight.sum(),
                 "loss_bbox": (found - true).abs().sum() / n,
                 "loss_giou": (1 - every.diagonal()).sum() / n}
        changed = {"loss_ce": ce and ce(each, weight, wanted != nothing),
                   "loss_bbox": bbox and bbox(found - true, len(logits)),
                   "loss_giou": overlap and overlap(every, len(logits))}
        return {name: right[name] if changed[name] is None else changed[name] for name in right}
    return loss


def lost_at_the_first_queries(logits, boxes, labels, targets, eos_coef=.1):
    losses = reference.hungarian_loss(logits, boxes, labels, targets, eos_coef)
    nothing = logits.shape[2] - 1
    wanted = torch.stack([F.pad(x, (0, logits.shape[1] - len(x)), value=nothing) for x in labels])
    weight = torch.ones(nothing + 1)
    weight[nothing] = eos_coef
    return losses | {"loss_ce": F.cross_entropy(logits.transpose(1, 2), wanted, weight)}


def lost_with_labels_unordered(logits, boxes, labels, targets, eos_coef=.1):
    losses = reference.hungarian_loss(logits, boxes, labels, targets, eos_coef)
    nothing = logits.shape[2] - 1
    wanted, weight = torch.full(logits.shape[:2], nothing), torch.ones(nothing + 1)
    for i, (rows, _) in enumerate(reference.match(logits, boxes, labels, targets)):
        wanted[i, rows] = labels[i]
    weight[nothing] = eos_coef
    return losses | {"loss_ce": F.cross_entropy(logits.transpose(1, 2), wanted, weight)}


def lost_picture_by_picture(logits, boxes, labels, targets, eos_coef=.1):
    each = [reference.hungarian_loss(a[None], b[None], [label], [target], eos_coef)
            for a, b, label, target in zip(logits, boxes, labels, targets, strict=True)]
    return {name: sum(one[name] for one in each) / len(each) for name in each[0]}


def lost_with_the_first_class_light(logits, boxes, labels, targets, eos_coef=.1):
    weight, wanted = torch.ones(logits.shape[2]), torch.full(logits.shape[:2], logits.shape[2] - 1)
    for i, (rows, cols) in enumerate(reference.match(logits, boxes, labels, targets)):
        wanted[i, rows] = labels[i][cols]
    weight[0] = eos_coef
    return reference.hungarian_loss(logits, boxes, labels, targets, eos_coef) | {
        "loss_ce": F.cross_entropy(logits.transpose(1, 2), wanted, weight)}


def mean_of_means(values, counts=(3, 0, 1, 2)):
    return torch.stack([part.mean() for part in values.split(counts) if len(part)]).mean()


def lost_without_keys(*given):
    return sum(reference.hungarian_loss(*given).values())


def lost_with_fixed_weight(logits, boxes, labels, targets, eos_coef=.1):
    return reference.hungarian_loss(logits, boxes, labels, targets)


def lost_without_gradient(*given):
    return {name: loss.detach() for name, loss in reference.hungarian_loss(*given).items()}


def lost_by_division(logits, boxes, labels, targets, eos_coef=.1):
    losses = reference.hungarian_loss(logits, boxes, labels, targets, eos_coef)
    n = sum(map(len, labels))
    return losses | {"loss_bbox": losses["loss_bbox"] / n * n}


def lost_by_loops(logits, boxes, labels, targets, eos_coef=.1):
    pairs, nothing = reference.match(logits, boxes, labels, targets), logits.shape[2] - 1
    total = weights = 0
    l1, overlap, n = logits.sum() * 0, logits.sum() * 0, max(1, sum(map(len, labels)))
    for i, (rows, cols) in enumerate(pairs):
        partner = dict(zip(rows.tolist(), cols.tolist(), strict=True))
        for q, p in enumerate(logits[i].log_softmax(-1)):
            label = int(labels[i][partner[q]]) if q in partner else nothing
            weight = 1. if q in partner else eos_coef
            total, weights = total - weight * p[label], weights + weight
        for q, j in partner.items():
            a, b = boxes[i, q], targets[i][j]
            l1 = l1 + (a - b).abs().sum() / n
            a, b = (own_boxes.xyxy_from_cxcywh(box)[None] for box in (a, b))
            overlap = overlap + (1 - own_boxes.giou(a, b)[0, 0]) / n
    return {"loss_ce": total / weights, "loss_bbox": l1, "loss_giou": overlap}


def weighed(losses):
    return sum(reference.WEIGHTS[name] * loss for name, loss in losses.items())


def layers_averaged(logits, boxes, labels, targets):
    return reference.detection_loss(logits, boxes, labels, targets) / len(logits)


def layers_last(logits, boxes, labels, targets):
    return weighed(reference.hungarian_loss(logits[-1], boxes[-1], labels, targets))


def layers_unweighted(logits, boxes, labels, targets):
    return sum(sum(reference.hungarian_loss(*one, labels, targets).values())
               for one in zip(logits, boxes, strict=True))


def layers_tangled(logits, boxes, labels, targets):
    n = len(logits)
    return n * weighed(reference.hungarian_loss(
        logits.transpose(0, 1).flatten(0, 1), boxes.transpose(0, 1).flatten(0, 1), labels * n,
        targets * n))


def layers_as_a_dict(logits, boxes, labels, targets):
    return reference.hungarian_loss(logits[-1], boxes[-1], labels, targets)


def layers_without_gradient(*given):
    return reference.detection_loss(*given).detach()


def layers_one_by_one(logits, boxes, labels, targets):
    return sum(weighed(reference.hungarian_loss(*one, labels, targets))
               for one in zip(logits, boxes, strict=True))


def layers_reshaped(logits, boxes, labels, targets):
    n, b = logits.shape[:2]
    losses = reference.hungarian_loss(logits.reshape(n * b, *logits.shape[2:]),
                                      boxes.reshape(n * b, *boxes.shape[2:]),
                                      [x for _ in range(n) for x in labels],
                                      [x for _ in range(n) for x in targets])
    return n * losses["loss_ce"] + 5 * n * losses["loss_bbox"] + 2 * n * losses["loss_giou"]


# sine_positions

def waving(first=1, whole=2 * math.pi, scaled=True, over=None, apart=False, turned=False,
           cosine_first=False):
    """Sine positions with one convention changed."""
    def positions(h, w, d):
        i = torch.arange(d // 4, dtype=torch.float64)
        rates = 10000 ** (-2 * i / (over(d) if over else d // 2))

        def axis(n):
            count = torch.arange(first, first + n, dtype=torch.float64)
            angle = (count / (n + 1e-6) * whole if scaled else count)[:, None] * rates
            parts = (angle.sin(), angle.cos())[::-1 if cosine_first else 1]
            return torch.cat(parts, 1) if apart else torch.stack(parts, 2).flatten(1)
        rows, columns = axis(h), axis(w)
        parts = rows.repeat_interleave(w, 0), columns.repeat(h, 1)
        return torch.cat(parts[::-1] if turned else parts, 1)
    return positions


def sinusoids_by_column(h, w, d):
    return own_positions(h, w, d).view(h, w, d).transpose(0, 1).flatten(0, 1)


def sinusoids_as_a_map(h, w, d):
    return own_positions(h, w, d).view(h, w, d)


own_positions = transformer.sine_positions


def sinusoids_in_a_grid(h, w, d):
    y, x = torch.meshgrid(torch.arange(1, h + 1), torch.arange(1, w + 1), indexing="ij")
    table = torch.zeros(h, w, d)
    for half, angle in enumerate((y / (h + 1e-6), x / (w + 1e-6))):
        for j in range(d // 4):
            theta = 2 * math.pi * angle / 10000 ** (2 * j / (d // 2))
            table[..., half * d // 2 + 2 * j] = theta.sin()
            table[..., half * d // 2 + 2 * j + 1] = theta.cos()
    return table.flatten(0, 1)


# DetrAttention and DetrDecoderLayer

def attention(forward):
    return type("DetrAttention", (transformer.DetrAttention,), {"forward": forward})


def looked(self, q, k, v):
    y = F.scaled_dot_product_attention(*map(self.split, (q, k, v)))
    return self.o_proj(y.transpose(1, 2).flatten(2))


def values_with_places(self, x, position, source, source_position):
    there = source + source_position
    return looked(self, self.q_proj(x + position), self.k_proj(there), self.v_proj(there))


def asks_without_place(self, x, position, source, source_position):
    return looked(self, self.q_proj(x), self.k_proj(source + source_position), self.v_proj(source))


def keys_without_place(self, x, position, source, source_position):
    return looked(self, self.q_proj(x + position), self.k_proj(source), self.v_proj(source))


def without_last_projection(self, x, position, source, source_position):
    parts = self.q_proj(x + position), self.k_proj(source + source_position), self.v_proj(source)
    y = F.scaled_dot_product_attention(*map(self.split, parts))
    return y.transpose(1, 2).flatten(2)


def in_one_head(self, x, position, source, source_position):
    q, k = self.q_proj(x + position), self.k_proj(source + source_position)
    return self.o_proj(F.scaled_dot_product_attention(q, k, self.v_proj(source)))


def values_from_x(self, x, position, source, source_position):
    return looked(self, self.q_proj(x + position), self.k_proj(source + source_position),
                  self.v_proj(x))


def places_late(self, x, position, source, source_position):
    return looked(self, self.q_proj(x) + position, self.k_proj(source) + source_position,
                  self.v_proj(source))


def unscaled(self, x, position, source, source_position):
    parts = self.q_proj(x + position), self.k_proj(source + source_position), self.v_proj(source)
    y = F.scaled_dot_product_attention(*map(self.split, parts), scale=1.)
    return self.o_proj(y.transpose(1, 2).flatten(2))


def x_added(self, x, position, source, source_position):
    return x + by_its_map(self, x, position, source, source_position)


def heads_tangled(self, x, position, source, source_position):
    y = self.map(x, position, source, source_position) @ self.split(self.v_proj(source))
    return self.o_proj(y.reshape(x.shape))


def by_its_map(self, x, position, source, source_position):
    y = self.map(x, position, source, source_position) @ self.split(self.v_proj(source))
    return self.o_proj(y.transpose(1, 2).flatten(2))


def head_by_head(self, x, position, source, source_position):
    parts = self.q_proj(x + position), self.k_proj(source + source_position), self.v_proj(source)
    heads = []
    for q, k, v in zip(*(part.chunk(self.heads, 2) for part in parts), strict=True):
        heads.append((q @ k.mT / q.shape[2] ** .5).softmax(2) @ v)
    return self.o_proj(torch.cat(heads, 2))


def layer(forward):
    return type("DetrDecoderLayer", (transformer.DetrDecoderLayer,), {"forward": forward})


def in_steps(self, x, query, memory, position, told=None, seen=None):
    drop = self.dropout
    asks, looks = told or (query, query), seen or (query, position)
    x = self.self_attn_layer_norm(x + drop(self.self_attn(x, asks[0], x, asks[1])))
    x = self.encoder_attn_layer_norm(x + drop(self.encoder_attn(x, looks[0], memory, looks[1])))
    return self.final_layer_norm(x + drop(self.mlp(x)))


def silent(self, x, query, memory, position):
    none = torch.zeros_like(query)
    return in_steps(self, x, query, memory, position, told=(none, none))


def looking_without_query(self, x, query, memory, position):
    return in_steps(self, x, query, memory, position, seen=(torch.zeros_like(query), position))


def positionless(self, x, query, memory, position):
    return in_steps(self, x, query, memory, position, seen=(query, torch.zeros_like(position)))


def looking_first(self, x, query, memory, position):
    x = self.encoder_attn_layer_norm(x + self.encoder_attn(x, query, memory, position))
    x = self.self_attn_layer_norm(x + self.self_attn(x, query, x, query))
    return self.final_layer_norm(x + self.mlp(x))


def norms_before(self, x, query, memory, position):
    y = self.self_attn_layer_norm(x)
    x = x + self.self_attn(y, query, y, query)
    x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), query, memory, position)
    return x + self.mlp(self.final_layer_norm(x))


def never_dropping(self, x, query, memory, position):
    x = self.self_attn_layer_norm(x + self.self_attn(x, query, x, query))
    x = self.encoder_attn_layer_norm(x + self.encoder_attn(x, query, memory, position))
    return self.final_layer_norm(x + self.mlp(x))


def query_stays(self, x, query, memory, position):
    return in_steps(self, x + query, query, memory, position)


def without_sums(self, x, query, memory, position):
    x = self.self_attn_layer_norm(self.self_attn(x, query, x, query))
    x = self.encoder_attn_layer_norm(self.encoder_attn(x, query, memory, position))
    return self.final_layer_norm(self.mlp(x))


def by_a_loop(self, x, query, memory, position):
    parts = ((self.self_attn_layer_norm, lambda y: self.self_attn(y, query, y, query)),
             (self.encoder_attn_layer_norm,
              lambda y: self.encoder_attn(y, query, memory, position)),
             (self.final_layer_norm, self.mlp))
    for norm, part in parts:
        x = norm(x + self.dropout(part(x)))
    return x


# postprocess

def kept(logits, boxes, threshold, choose):
    """Detections of each picture whose queries `choose` picks from scores and probabilities."""
    p = logits.softmax(-1)
    scores, labels = p[..., :-1].max(-1)
    return [reference.Detections(s[q], k[q], b[q], q) for s, k, b, q in zip(
        scores, labels, own_boxes.xyxy_from_cxcywh(boxes),
        [choose(s, one) for s, one in zip(scores, p, strict=True)], strict=True)]


def only_where_something_wins(logits, boxes, threshold=0.):
    return kept(logits, boxes, threshold, lambda s, p: (
        (p.argmax(-1) < p.shape[-1] - 1) & (s > threshold)).nonzero().flatten())


def nothing_as_a_thing(logits, boxes, threshold=0.):
    return kept(logits, boxes, threshold, lambda s, p: (
        p.max(-1).values > threshold).nonzero().flatten())


def sorted_by_score(logits, boxes, threshold=0.):
    return kept(logits, boxes, threshold, lambda s, p: s.argsort(descending=True)[
        :int((s > threshold).sum())])


def every_answer(logits, boxes, threshold=0.):
    return kept(logits, boxes, threshold, lambda s, p: torch.arange(len(s)))


def without_corners(logits, boxes, threshold=0.):
    found = reference.postprocess(logits, boxes, threshold)
    return [reference.Detections(one.scores, one.labels, boxes[i][one.queries], one.queries)
            for i, one in enumerate(found)]


def softmax_of_things(logits, boxes, threshold=0.):
    return reference.postprocess(F.pad(logits[..., :-1], (0, 1), value=-math.inf), boxes, threshold)


def as_tuples(logits, boxes, threshold=0.):
    return [(one.scores, one.labels, one.boxes_xyxy)
            for one in reference.postprocess(logits, boxes, threshold)]


def kept_by_a_list(logits, boxes, threshold=0.):
    found = []
    for says, box in zip(logits.softmax(-1), boxes, strict=True):
        best = [(float(p[:-1].max()), int(p[:-1].argmax())) for p in says]
        q = torch.tensor([i for i, (score, _) in enumerate(best) if score > threshold],
                         dtype=torch.long)
        found.append(reference.Detections(says[q, :-1].amax(-1), torch.tensor(
            [best[i][1] for i in q], dtype=torch.long), own_boxes.xyxy_from_cxcywh(box[q]), q))
    return found


def kept_by_a_mask(logits, boxes, threshold=0.):
    return kept(logits, boxes, threshold, lambda s, p: torch.arange(len(s))[s > threshold])


WRONG = {
    "brute_force_assignment": [
        (column_of_each_row, "each COLUMN's row"), (sigma_from_one, "counted from 0"),
        (sigma_of_the_dearest, "most expensive"), (sigma_and_its_cost, "rows alone"),
        (sigma_greedy, "greedy choice"), (sigma_sharing_rows, "may not share"),
        (sigma_of_the_first_rows, "not only the first ones")],
    "giou": [
        (giou_undivided, "not divided"), (giou_in_the_shared_frame, "EARLIER left"),
        (giou_is_iou, "IoU still"), (giou_over_the_union, "part of the FRAME"),
        (giou_outside_the_shared, "outside the JOINT area"), (giou_rewarding, "punishment"),
        (giou_as_a_loss, "This is the loss"), (giou_without_slope, "no slope"),
        (giou_with_a_pair, "GIoU alone"), (giou_of_two_lists, "stops at a batch")],
    "matching_cost": [
        (costing(name=lambda p: -p.log()), "logarithm has no place"),
        (costing(over=None), "Take the softmax first"), (costing(cut=-1), "leaves 'nothing' out"),
        (costing(over=-2), "runs over the queries"), (costing(name=lambda p: p), "sure name"),
        (costing(overlap=2.), "More overlap"), (costing(corners=False), "into corners first"),
        (costing(l1=2., overlap=-5.), "weights are exchanged"),
        (cost_with_the_loss_s_giou, "changes no matching"),
        (costing(l1=1.25), "averaged over the four"), (cost_turned, "matrix is turned"),
        (cost_by_squares, "L2 distance"), (cost_of_one_picture, "wrong for a batch")],
    "match": [
        (match_turned, "queries (rows) come first"), (match_with_padding, "must not be matched"),
        (match_greedy, "this matching costs"), (match_the_dearest, "this matching costs"),
        (match_nearest, "answers for two targets"), (match_in_numpy, "are tensors"),
        (match_by_targets, "rows must rise"),
        (match_cut_too_late, "BEFORE you match"), (match_unchecked, "must raise a ValueError")],
    "hungarian_loss": [
        (lost(ce=lambda each, weight, thing: each.mean()), "weighs only eos_coef"),
        (lost(ce=lambda each, weight, thing: (each * weight).mean()), "sum of the weights"),
        (lost(ce=lambda each, weight, thing: each[thing].mean()), "Only matched queries"),
        (lost(ce=lambda each, weight, thing: (each * weight).sum()), "sum over all queries"),
        (lost_at_the_first_queries, "stand at the first queries"),
        (lost_with_labels_unordered, "learns labels[cols[i]]"),
        (lost_picture_by_picture, "ONE weighted mean"),
        (lost_with_the_first_class_light, "is the LAST class"),
        (lost(bbox=lambda off, b: off.abs().sum() / (b * 7)), "divided by all answers"),
        (lost(bbox=lambda off, b: mean_of_means(off.abs().sum(1))), "a mean of its own"),
        (lost(overlap=lambda every, b: mean_of_means(1 - every.diagonal())), "a mean of its own"),
        (lost(overlap=lambda every, b: (1 - every.diagonal()).sum()), "This is a sum"),
        (lost(bbox=lambda off, b: off.abs().mean()), "averaged over the four"),
        (lost(bbox=lambda off, b: off.abs().sum() / b), "targets of the batch"),
        (lost(bbox=lambda off, b: off.square().sum() / len(off)), "squared error"),
        (lost(ordered=False), "order of the matching"),
        (lost(overlap=lambda every, b: (1 - every).mean()), "ONE partner"),
        (lost(overlap=lambda every, b: every.diagonal().mean()), "GIoU itself"),
        (lost(corners=False), "into corners first"), (lost_without_keys, "Return a dict"),
        (lost_with_fixed_weight, "use the argument"),
        (lost_without_gradient, "no gradient"), (lost_by_division, "divide by at least 1")],
    "detection_loss": [
        (layers_averaged, "adds them up"), (layers_last, "Only the last layer"),
        (layers_unweighted, "weights are missing"), (layers_tangled, "layer after layer"),
        (layers_as_a_dict, "one number"), (layers_without_gradient, "no gradient")],
    "sine_positions": [
        (waving(first=0), "count from 1"), (waving(scaled=False), "not scaled"),
        (waving(whole=1.), "run to 1."), (waving(whole=math.pi), "run to pi"),
        (waving(cosine_first=True), "sine is first"),
        (waving(turned=True), "first half is for the row"),
        (waving(apart=True), "alternate"), (waving(over=lambda d: d), "d for d/2"),
        (waving(over=lambda d: d // 4), "twice as fast"),
        (sinusoids_by_column, "column after column"), (sinusoids_as_a_map, "not flattened")],
    "DetrAttention": [
        (attention(values_with_places), "contents only"),
        (attention(asks_without_place), "What asks does not know"),
        (attention(keys_without_place), "What is asked does not know"),
        (attention(without_last_projection), "o_proj"), (attention(unscaled), "root of a head"),
        (attention(heads_tangled), "transpose first"), (attention(in_one_head), "one head"),
        (attention(values_from_x), "values come from x"),
        (attention(places_late), "after the projections"), (attention(x_added), "x is added here")],
    "DetrDecoderLayer": [
        (layer(silent), "their queries as positions"),
        (layer(looking_without_query), "still their"),
        (layer(positionless), "memory needs its positions"), (layer(looking_first), "order is"),
        (layer(norms_before), "AFTER each sum"), (layer(never_dropping), "Dropout is missing"),
        (layer(without_sums), "sums are missing"), (layer(query_stays), "added to x itself")],
    "postprocess": [
        (only_where_something_wins, "only the threshold decides"),
        (nothing_as_a_thing, "taken for a thing"), (sorted_by_score, "order of the queries"),
        (every_answer, "surer"), (without_corners, "into corners"),
        (softmax_of_things, "softmax leaves 'nothing' out"), (as_tuples, "come as `Detections")],
}
RIGHT = {
    "brute_force_assignment": [sigma_by_scipy, sigma_by_a_loop],
    "giou": [giou_from_the_parts, giou_by_one_frame],
    "matching_cost": [cost_by_one_hot, cost_by_exponents],
    "match": [match_one_by_one, match_by_targets_first],
    "hungarian_loss": [lost(), lost_by_loops],
    "detection_loss": [layers_one_by_one, layers_reshaped],
    "sine_positions": [waving(), sinusoids_in_a_grid],
    "DetrAttention": [attention(by_its_map), attention(head_by_head)],
    "DetrDecoderLayer": [layer(in_steps), layer(by_a_loop)],
    "postprocess": [kept_by_a_list, kept_by_a_mask],
}
