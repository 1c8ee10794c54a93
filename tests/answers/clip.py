"""What people answer to the exercises of lesson 4."""

import math
from collections import Counter, defaultdict
from itertools import pairwise

import torch
import torch.nn.functional as F

from gligen_lessons import bpe, nets
from gligen_lessons import clip as reference

# commonest_pair

def counted(words, pairs_of=lambda pieces: list(pairwise(pieces)), weigh=lambda count: count):
    pairs = Counter()
    for pieces, count in words.items():
        for pair in pairs_of(pieces):
            pairs[pair] += weigh(count)
    if not pairs:
        raise ValueError("nothing is left to merge")
    return pairs


def pair_by_words(words):
    pairs = counted(words, weigh=lambda count: 1)
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def pair_once_a_word(words):
    pairs = counted(words, lambda pieces: set(pairwise(pieces)))
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def pair_across_words(words):
    pairs = Counter()
    for pieces, count in words.items():
        for pair in pairwise(pieces):
            pairs[pair] += count
    for (before, count), (after, _) in pairwise(words.items()):
        pairs[before[-1], after[0]] += count
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def pair_last_in_the_alphabet(words):
    pairs = counted(words)
    return max(pairs, key=lambda pair: (pairs[pair], pair))


def pair_met_first(words):
    return counted(words).most_common(1)[0][0]


def pair_met_least(words):
    pairs = counted(words)
    return min(pairs, key=lambda pair: (pairs[pair], pair))


def pair_joined(words):
    return "".join(bpe.commonest_pair(words))


def pair_as_list(words):
    return list(bpe.commonest_pair(words))


def pair_without_end(words):
    pairs = Counter()
    for pieces, count in words.items():
        for pair in pairwise(pieces):
            pairs[pair] += count
    return sorted(pairs, key=lambda pair: (-pairs[pair], pair))[0]


def pair_none_at_the_end(words):
    try:
        return bpe.commonest_pair(words)
    except ValueError:
        return None


def pair_without_return(words):
    bpe.commonest_pair(words)


def pair_by_sorting(words):
    pairs = defaultdict(int)
    for pieces in words:
        for i in range(len(pieces) - 1):
            pairs[pieces[i], pieces[i + 1]] += words[pieces]
    if len(pairs) == 0:
        raise ValueError("no pair")
    return sorted(sorted(pairs), key=pairs.get, reverse=True)[0]


def pair_by_largest_count(words):
    pairs = counted(words)
    most = max(pairs.values())
    return min(pair for pair, count in pairs.items() if count == most)


# merged

def merged_once(pieces, pair):
    for i in range(len(pieces) - 1):
        if pieces[i:i + 2] == pair:
            return (*pieces[:i], "".join(pair), *pieces[i + 2:])
    return pieces


def merged_overlapping(pieces, pair):
    done = []
    for i, piece in enumerate(pieces):
        if pieces[i:i + 2] == pair:
            done.append("".join(pair))
        elif i == 0 or pieces[i - 1:i + 1] != pair:
            done.append(piece)
    return tuple(done)


def merged_from_the_right(pieces, pair):
    done, i = [], len(pieces)
    while i > 0:
        both = i > 1 and pieces[i - 2:i] == pair
        done.insert(0, "".join(pair) if both else pieces[i - 1])
        i -= 2 if both else 1
    return tuple(done)


def merged_as_text(pieces, pair):
    done, i = [], 0
    while i < len(pieces):
        both = "".join(pieces[i:i + 2]) == "".join(pair)
        done.append("".join(pieces[i:i + 2]) if both else pieces[i])
        i += 2 if both else 1
    return tuple(done)


def merged_in_any_order(pieces, pair):
    done, i = [], 0
    while i < len(pieces):
        both = sorted(pieces[i:i + 2]) == sorted(pair)
        done.append("".join(pieces[i:i + 2]) if both else pieces[i])
        i += 2 if both else 1
    return tuple(done)


def merged_but_the_end(pieces, pair):
    if len(pieces) < 3:
        return pieces
    return (*bpe.merged(pieces[:-1], pair), pieces[-1])


def merged_as_list(pieces, pair):
    return list(bpe.merged(pieces, pair))


def merged_past_the_end(pieces, pair):
    done, i = [], 0
    while i < len(pieces):
        both = pieces[i] == pair[0] and pieces[i + 1] == pair[1]
        done.append("".join(pair) if both else pieces[i])
        i += 2 if both else 1
    return tuple(done)


def merged_leaving_second_halves(pieces, pair):
    return tuple("".join(pair) if pieces[i:i + 2] == pair else piece
                 for i, piece in enumerate(pieces))


def merged_losing_the_last(pieces, pair):
    done, i = [], 0
    while i < len(pieces) - 1:
        both = pieces[i:i + 2] == pair
        done.append("".join(pair) if both else pieces[i])
        i += 2 if both else 1
    return tuple(done)


def merged_into_pairs(pieces, pair):
    joined = "".join(pair)
    return tuple(pair if piece == joined else piece for piece in bpe.merged(pieces, pair))


def merged_by_replacing_text(pieces, pair):
    return tuple(" ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" "))


def merged_by_recursion(pieces, pair):
    if len(pieces) < 2:
        return tuple(pieces)
    if pieces[:2] == pair:
        return ("".join(pair), *merged_by_recursion(pieces[2:], pair))
    return (pieces[0], *merged_by_recursion(pieces[1:], pair))


def merged_with_a_pile(pieces, pair):
    done, free = [], False
    for piece in pieces:
        if free and (done[-1], piece) == pair:
            done[-1] += piece
            free = False
        else:
            done.append(piece)
            free = True
    return tuple(done)


# EncoderLayer

def layer_of(forward):
    """A layer with this forward and the library's parts."""
    return type("EncoderLayer", (reference.EncoderLayer,), {"forward": forward})


def layer_post_norm(self, x):
    x = self.layer_norm1(x + self.self_attn(x))
    return self.layer_norm2(x + self.mlp(x))


def layer_norming_the_stream(self, x):
    x = self.layer_norm1(x)
    x = x + self.self_attn(x)
    x = self.layer_norm2(x)
    return x + self.mlp(x)


def layer_replacing_first(self, x):
    x = self.self_attn(self.layer_norm1(x))
    return x + self.mlp(self.layer_norm2(x))


def layer_replacing_last(self, x):
    x = x + self.self_attn(self.layer_norm1(x))
    return self.mlp(self.layer_norm2(x))


def layer_without_residuals(self, x):
    return self.mlp(self.layer_norm2(self.self_attn(self.layer_norm1(x))))


def layer_in_parallel(self, x):
    return x + self.self_attn(self.layer_norm1(x)) + self.mlp(self.layer_norm2(x))


def layer_losing_attention(self, x):
    y = x + self.self_attn(self.layer_norm1(x))
    return x + self.mlp(self.layer_norm2(y))


def layer_without_norms(self, x):
    x = x + self.self_attn(x)
    return x + self.mlp(x)


def layer_with_one_norm(self, x):
    x = x + self.self_attn(self.layer_norm1(x))
    return x + self.mlp(self.layer_norm1(x))


def layer_norms_exchanged(self, x):
    x = x + self.self_attn(self.layer_norm2(x))
    return x + self.mlp(self.layer_norm1(x))


def layer_norming_answers(self, x):
    x = x + self.layer_norm1(self.self_attn(x))
    return x + self.layer_norm2(self.mlp(x))


def layer_mlp_first(self, x):
    x = x + self.mlp(self.layer_norm2(x))
    return x + self.self_attn(self.layer_norm1(x))


def layer_in_place(self, x):
    x += self.self_attn(self.layer_norm1(x))
    x += self.mlp(self.layer_norm2(x))
    return x


def layer_with_names(self, x):
    attended = self.self_attn(self.layer_norm1(x))
    stream = torch.add(x, attended)
    return stream + self.mlp(self.layer_norm2(stream))


def layer_by_a_loop(self, x):
    for norm, part in ((self.layer_norm1, self.self_attn), (self.layer_norm2, self.mlp)):
        x = x + part(norm(x))
    return x


# pool

def pool_last(states, ids, eos):
    return states[:, -1]


def pool_largest_number(states, ids, eos):
    return states[torch.arange(len(ids)), ids.argmax(1)]


def pool_mean(states, ids, eos):
    return states.mean(1)


def pool_mean_of_tokens(states, ids, eos):
    kept = ((ids == eos).cumsum(1) - (ids == eos).int() == 0)[..., None]
    return (states * kept).sum(1) / kept.sum(1)


def pool_one_early(states, ids, eos):
    return states[torch.arange(len(ids)), (ids == eos).int().argmax(1) - 1]


def pool_last_end(states, ids, eos):
    place = torch.where(ids == eos, torch.arange(ids.shape[1]), -1).amax(1)
    return states[torch.arange(len(ids)), place]


def pool_start(states, ids, eos):
    return states[:, 0]


def pool_largest_values(states, ids, eos):
    return states.amax(1)


def pool_counting_tokens(states, ids, eos):
    return states[torch.arange(len(ids)), (ids != eos).sum(1)]


def pool_mean_of_ends(states, ids, eos):
    return torch.stack([row[these == eos].mean(0) for row, these in zip(states, ids, strict=True)])


def pool_by_argmax(states, ids, eos):
    return states[torch.arange(len(ids)), (ids == eos).int().argmax(1)]


def pool_all_pairs(states, ids, eos):
    return states[:, (ids == eos).int().argmax(1)]


def pool_row_by_row(states, ids, eos):
    return torch.stack([x[row.tolist().index(eos)] for x, row in zip(states, ids, strict=True)])


def pool_by_gather(states, ids, eos):
    ends = ids == eos
    if not ends.any(1).all():
        raise ValueError("no end")
    place = (ends.cumsum(1) == 0).sum(1)
    return states.gather(1, place[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


def pool_by_one_hot(states, ids, eos):
    ends = (ids == eos).int()
    if (ends.sum(1) == 0).any():
        raise ValueError("no end")
    first = ends * (ends.cumsum(1) == 1)
    return (states * first[..., None]).sum(1)


# similarity

def table_of_products(images, texts, log_scale):
    return log_scale.exp() * images @ texts.T


def table_unit_images(images, texts, log_scale):
    return log_scale.exp() * F.normalize(images, dim=-1) @ texts.T


def table_unit_texts(images, texts, log_scale):
    return log_scale.exp() * images @ F.normalize(texts, dim=-1).T


def table_with_the_logarithm(images, texts, log_scale):
    return log_scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T


def table_divided(images, texts, log_scale):
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T / log_scale.exp()


def table_of_cosines(images, texts, log_scale):
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T


def table_over_the_batch(images, texts, log_scale):
    return log_scale.exp() * F.normalize(images, dim=0) @ F.normalize(texts, dim=0).T


def table_turned(images, texts, log_scale):
    return reference.similarity(images, texts, log_scale).T


def table_of_pairs(images, texts, log_scale):
    return log_scale.exp() * F.cosine_similarity(images, texts)


def table_by_cosine_similarity(images, texts, log_scale):
    return torch.exp(log_scale) * F.cosine_similarity(images[:, None], texts[None], dim=2)


def table_by_einsum(images, texts, log_scale):
    lengths = images.norm(dim=1)[:, None] * texts.norm(dim=1)
    return torch.einsum("bd,md->bm", images, texts) / lengths * log_scale.exp()


# clip_loss

def loss_of_rows(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)))


def loss_of_columns(logits):
    return F.cross_entropy(logits.T, torch.arange(len(logits)))


def loss_of_rows_twice(logits):
    own_ = torch.arange(len(logits))
    return (F.cross_entropy(logits, own_) + F.cross_entropy(logits, own_)) / 2


def loss_added(logits):
    return 2 * reference.clip_loss(logits)


def loss_of_zeros(logits):
    zeros = torch.zeros(len(logits), dtype=torch.long)
    return (F.cross_entropy(logits, zeros) + F.cross_entropy(logits.T, zeros)) / 2


def loss_of_probabilities(logits):
    return -(logits.softmax(0) + logits.softmax(1)).diagonal().mean() / 2


def loss_over_the_batch(logits):
    return len(logits) * reference.clip_loss(logits)


def loss_of_the_whole_table(logits):
    return -logits.flatten().log_softmax(0).view_as(logits).diagonal().mean()


def loss_upside_down(logits):
    return -reference.clip_loss(logits)


def loss_by_sigmoid(logits):
    return F.binary_cross_entropy_with_logits(logits, torch.eye(len(logits)))


def loss_detached(logits):
    return reference.clip_loss(logits).detach()


def loss_of_each_row(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")


def loss_by_logsumexp(logits):
    both = torch.logsumexp(logits, 0) + torch.logsumexp(logits, 1)
    return (both / 2 - logits.diagonal()).mean()


def loss_by_log_softmax(logits):
    return -(logits.log_softmax(0) + logits.log_softmax(1)).trace() / (2 * len(logits))


def loss_against_an_identity(logits):
    target = torch.eye(len(logits))
    return .5 * F.cross_entropy(logits, target) + .5 * F.cross_entropy(logits.T, target)


# retrieval

def found_by_pictures(logits):
    return float((logits.argmax(1) == torch.arange(len(logits))).float().mean())


def found_as_a_number(logits):
    return float((logits.argmax(0) == torch.arange(len(logits))).sum())


def found_in_percent(logits):
    return 100 * reference.retrieval(logits)


def found_above_the_mean(logits):
    return float((logits.diagonal() > logits.mean(0)).float().mean())


def found_not(logits):
    return 1 - reference.retrieval(logits)


def found_among_eight(logits):
    return float((logits.argmax(0) == torch.arange(len(logits))).sum() / 8)


def found_by_loop(logits):
    hits = [logits[:, k].argmax().item() == k for k in range(len(logits))]
    return sum(hits) / len(hits)


def found_by_maximum(logits):
    return float((logits.diagonal() >= logits.amax(0)).double().mean())


def found_by_ranks(logits):
    better = (logits > logits.diagonal()).sum(0)
    return (better == 0).float().mean().item()


# zero_shot

def parts(model, tokenize, prompts):
    return [model.encode_text(tokenize(texts)) for texts in prompts]


def scored(model, pixels, vectors):
    return reference.similarity(model.encode_image(pixels), torch.stack(vectors), model.logit_scale)


def units_of(model, tokenize, prompts):
    return [F.normalize(x, dim=-1) for x in parts(model, tokenize, prompts)]


def classes_over_pictures(model, tokenize, pixels, prompts):
    means = [x.mean(0) for x in units_of(model, tokenize, prompts)]
    return scored(model, pixels, means).softmax(0)


def classes_as_scores(model, tokenize, pixels, prompts):
    return scored(model, pixels, [x.mean(0) for x in units_of(model, tokenize, prompts)])


def classes_of_one_prompt(model, tokenize, pixels, prompts):
    return reference.zero_shot(model, tokenize, pixels, [texts[:1] for texts in prompts])


def classes_of_long_vectors(model, tokenize, pixels, prompts):
    means = [x.mean(0) for x in parts(model, tokenize, prompts)]
    return scored(model, pixels, means).softmax(1)


def classes_of_long_features(model, tokenize, pixels, prompts):
    means = [F.normalize(x, dim=0).mean(0) for x in parts(model, tokenize, prompts)]
    return scored(model, pixels, means).softmax(1)


def classes_by_mean_score(model, tokenize, pixels, prompts):
    columns = [scored(model, pixels, [*x]).mean(1) for x in parts(model, tokenize, prompts)]
    return torch.stack(columns, 1).softmax(1)


def classes_by_best_score(model, tokenize, pixels, prompts):
    columns = [scored(model, pixels, [*x]).amax(1) for x in parts(model, tokenize, prompts)]
    return torch.stack(columns, 1).softmax(1)


def classes_by_added_shares(model, tokenize, pixels, prompts):
    found = parts(model, tokenize, prompts)
    shares = scored(model, pixels, [row for x in found for row in x]).softmax(1)
    return torch.stack([s.sum(1) for s in shares.split([len(x) for x in found], 1)], 1)


def classes_without_temperature(model, tokenize, pixels, prompts):
    means = torch.stack([x.mean(0) for x in units_of(model, tokenize, prompts)])
    images = F.normalize(model.encode_image(pixels), dim=-1)
    return (images @ F.normalize(means, dim=-1).T).softmax(1)


def classes_as_numbers(model, tokenize, pixels, prompts):
    return reference.zero_shot(model, tokenize, pixels, prompts).argmax(1)


def classes_prompt_by_prompt(model, tokenize, pixels, prompts):
    means = [F.normalize(torch.cat([model.encode_text(tokenize(text)) for text in texts]),
                         dim=-1).mean(0) for texts in prompts]
    return scored(model, pixels, means).softmax(1)


def classes_from_sums(model, tokenize, pixels, prompts):
    """A sum points where the mean does."""
    return F.softmax(scored(model, pixels, [
        x.sum(0) for x in units_of(model, tokenize, prompts)]), dim=-1)


def classes_all_at_once(model, tokenize, pixels, prompts):
    texts = F.normalize(model.encode_text(tokenize(sum(prompts, []))), dim=-1)
    member = torch.block_diag(*[torch.ones(1, len(p)) / len(p) for p in prompts])
    images = F.normalize(model.encode_image(pixels), dim=-1)
    weights = F.normalize(member @ texts, dim=-1)
    return (model.logit_scale.exp() * images @ weights.T).softmax(1)


# dot_product_attention

def weighed(scores_of, dim=-1):
    """Attention whose scores are made otherwise."""
    def attend(q, k, v, mask=None):
        scores = scores_of(q, k, v)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim) @ v
    return attend


def dots(q, k, v):
    return q @ k.transpose(-2, -1)


def attend_without_softmax(q, k, v, mask=None):
    return dots(q, k, v) / q.shape[-1] ** .5 @ v


def attend_masked(change):
    """Attention whose mask works otherwise."""
    def attend(q, k, v, mask=None):
        scores = dots(q, k, v) / q.shape[-1] ** .5
        return (scores if mask is None else change(scores, mask)).softmax(-1) @ v
    return attend


def attend_masked_late(q, k, v, mask=None):
    p = (dots(q, k, v) / q.shape[-1] ** .5).softmax(-1)
    return (p if mask is None else p * mask) @ v


def attend_untransposed(q, k, v, mask=None):
    return (q @ k / q.shape[-1] ** .5).softmax(-1) @ v


def attend_by_einsum(q, k, v, mask=None):
    scores = torch.einsum("bkid,bkjd->bkij", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = torch.where(mask, scores, torch.tensor(-1e9))
    return torch.einsum("bkij,bkje->bkie", torch.softmax(scores, 3), v)


def attend_by_loops(q, k, v, mask=None):
    out = torch.zeros(*q.shape[:3], v.shape[-1])
    for i in range(q.shape[2]):
        scores = (q[:, :, i:i + 1] * k).sum(-1) * q.shape[-1] ** -.5        # (b,k,m)
        if mask is not None:
            scores[..., ~mask[i]] = -float("inf")
        p = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out[:, :, i] = (p[..., None] * v).sum(2)
    return out


def attend_by_torch(q, k, v, mask=None):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_scaling_queries(q, k, v, mask=None):
    extra = 0. if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    return F.softmax(q / q.shape[-1] ** .5 @ k.mT + extra, dim=-1) @ v


# split_heads

def heads_by_view(x, heads):
    return x.reshape(len(x), heads, x.shape[1], -1)


def heads_behind(x, heads):
    return x.unflatten(2, (heads, -1))


def heads_exchanged(x, heads):
    return x.unflatten(2, (heads, -1)).permute(0, 3, 1, 2)


def heads_every_kth(x, heads):
    return x.unflatten(2, (-1, heads)).permute(0, 3, 1, 2)


def heads_reversed(x, heads):
    return nets.split_heads(x, heads).flip(1)


def heads_by_reshape(x, heads):
    b, n, d = x.shape
    return x.reshape(b, n, heads, d // heads).permute(0, 2, 1, 3)


def heads_by_chunks(x, heads):
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


def heads_by_loop(x, heads):
    width = x.shape[-1] // heads
    return torch.stack([x[:, :, i * width:(i + 1) * width] for i in range(heads)], 1)


def heads_by_einsum(x, heads):
    return torch.einsum("bnkd->bknd", x.view(*x.shape[:2], heads, -1))


# causal_mask

def mask_upper(n):
    return torch.ones(n, n).triu().bool()


def mask_of_the_hidden(n):
    return torch.ones(n, n).triu(1).bool()


def mask_without_self(n):
    return torch.ones(n, n).tril(-1).bool()


def mask_to_add(n):
    return torch.zeros(n, n).masked_fill(mask_of_the_hidden(n), -torch.inf)


def mask_of_numbers(n):
    return torch.ones(n, n).tril()


def mask_of_everything(n):
    return torch.ones(n, n, dtype=torch.bool)


def mask_of_five(n):
    return torch.ones(5, 5).tril().bool()


def mask_by_comparing(n):
    place = torch.arange(n)
    return place[None, :] <= place[:, None]


def mask_by_loop(n):
    return torch.tensor([[j <= i for j in range(n)] for i in range(n)])


def mask_by_turning(n):
    return ~torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)


# hard_negative_loss

def hard_ignored(logits):
    return reference.clip_loss(logits[:, :len(logits)])


def hard_rows_only(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)))


def hard_columns_only(logits):
    return F.cross_entropy(logits[:, :len(logits)].T, torch.arange(len(logits)))


def hard_sum(logits):
    return 2 * reference.hard_negative_loss(logits)


def hard_choosing(logits):
    rows, columns = torch.arange(len(logits)), torch.arange(logits.shape[1])
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, columns % len(logits))) / 2


def hard_all_choosing_their_own(logits):
    b, n = logits.shape
    return (F.cross_entropy(logits, torch.arange(b))
            + F.cross_entropy(logits.T, torch.arange(n))) / 2


def hard_with_too_few_answers(logits):
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def hard_without_turning(logits):
    b = len(logits)
    return (F.cross_entropy(logits, torch.arange(b))
            + F.cross_entropy(logits[:, :b], torch.arange(b))) / 2


def hard_upside_down(logits):
    return -reference.hard_negative_loss(logits)


def hard_detached(logits):
    return reference.hard_negative_loss(logits.detach())


def hard_by_log_softmax(logits):
    b = len(logits)
    rows, columns = logits.log_softmax(1), logits[:, :b].log_softmax(0)
    return -(rows.diagonal() + columns.diagonal()).mean() / 2


def hard_by_logsumexp(logits):
    own_scores = logits.diagonal()
    return ((logits.logsumexp(1) - own_scores).mean()
            + (logits[:, :len(logits)].logsumexp(0) - own_scores).mean()) / 2


def hard_by_loop(logits):
    b, total = len(logits), 0.
    for i in range(b):
        total = total - (logits[i, i] - logits[i].exp().sum().log())
        total = total - (logits[i, i] - logits[:, i].exp().sum().log())
    return total / (2 * b)


# one more spelling of the older ones

def pair_by_counter(words):
    pairs = sum((Counter({pair: n * count for pair, n in Counter(pairwise(pieces)).items()})
                 for pieces, count in words.items()), Counter())
    most = pairs.most_common()
    if not most:
        raise ValueError("no neighbours")
    return sorted(pair for pair, count in most if count == most[0][1])[0]


def merged_by_slices(pieces, pair):
    out, i = (), 0
    while i < len(pieces):
        step = 2 if pieces[i:i + 2] == pair else 1
        out, i = (*out, "".join(pieces[i:i + step])), i + step
    return out


def table_by_loops(images, texts, log_scale):
    rows = [[F.cosine_similarity(image, text, dim=0) for text in texts] for image in images]
    return torch.tensor(rows) * math.exp(log_scale)


def classes_by_loops(model, tokenize, pixels, prompts):
    rows = []
    for image in F.normalize(model.encode_image(pixels), dim=1):
        scores = []
        for texts in prompts:
            x = model.encode_text(tokenize(texts))
            x = (x / x.norm(dim=1, keepdim=True)).mean(0)
            scores.append(model.logit_scale.exp() * (image @ x) / x.norm())
        rows.append(torch.stack(scores).softmax(0))
    return torch.stack(rows)


# later slips

def loss_of_a_second_softmax(logits):
    return sum(F.cross_entropy(z.softmax(1), torch.arange(len(z))) for z in (logits, logits.T)) / 2


def found_as_a_tensor(logits):
    return (logits.argmax(0) == torch.arange(len(logits))).float().mean()


WRONG = {
    "dot_product_attention": [
        (weighed(dots), "not divided"),
        (weighed(lambda q, k, v: dots(q, k, v) / q.shape[-1]), "divided by d."),
        (weighed(lambda q, k, v: dots(q, k, v) * q.shape[-1] ** .5), "multiplied by sqrt(d)"),
        (weighed(lambda q, k, v: dots(q, k, v) / k.shape[-2] ** .5), "number of keys"),
        (weighed(lambda q, k, v: dots(q, k, v) / v.shape[-1] ** .5), "that of the values"),
        (weighed(lambda q, k, v: dots(q, k, v) / q.shape[-1] ** .5, -2), "over the queries"),
        (attend_without_softmax, "softmax is missing"),
        (attend_masked(lambda scores, mask: scores), "mask is ignored"),
        (attend_masked(lambda scores, mask: scores.masked_fill(mask, -torch.inf)), "upside down"),
        (attend_masked(lambda scores, mask: scores * mask), "exp(0) is 1"),
        (attend_masked(lambda scores, mask: scores + mask), "added as 0 and 1"),
        (attend_masked(lambda scores, mask: scores * mask + ~mask * -torch.inf), "0 times inf"),
        (attend_masked_late, "no longer sum to one"), (attend_untransposed, "your line")],
    "split_heads": [
        (heads_by_view, "cuts across tokens"), (heads_behind, "behind the tokens"),
        (heads_exchanged, "exchanged"), (heads_every_kth, "every k-th"),
        (heads_reversed, "reverse order")],
    "causal_mask": [
        (mask_upper, "AFTER each one"), (mask_of_the_hidden, "may NOT look"),
        (mask_without_self, "look at itself"), (mask_to_add, "mask to ADD"),
        (mask_of_numbers, "Make it bool"), (mask_of_everything, "Everybody may look"),
        (mask_of_five, "has shape")],
    "hard_negative_loss": [
        (hard_ignored, "take no part"), (hard_rows_only, "Only the pictures choose"),
        (hard_columns_only, "Only the captions choose"), (hard_sum, "sum of the two"),
        (hard_choosing, "choose a picture too"), (hard_upside_down, "sign is wrong"),
        (hard_detached, "no gradient"),
        (hard_all_choosing_their_own, "has no right answer"),
        (hard_with_too_few_answers, "has no right answer"),
        (hard_without_turning, "along the COLUMNS")],
    "commonest_pair": [
        (pair_by_words, "as often as it was met"), (pair_once_a_word, "not once a word"),
        (pair_across_words, "do not touch each other"),
        (pair_last_in_the_alphabet, "first in the alphabet"),
        (pair_met_first, "first in the alphabet"), (pair_met_least, "rarest pair"),
        (pair_joined, "not joined"), (pair_as_list, "Return a tuple"),
        (pair_without_end, "stops with IndexError"),
        (pair_none_at_the_end, "raise a ValueError"), (pair_without_return, "returned None")],
    "merged": [
        (merged_once, "not only the first"), (merged_overlapping, "BEHIND both halves"),
        (merged_from_the_right, "from the left"), (merged_as_text, "Compare pieces, not text"),
        (merged_by_replacing_text, "Compare whole pieces"),
        (merged_in_any_order, "order counts"), (merged_but_the_end, "at the very end"),
        (merged_as_list, "not a list"), (merged_past_the_end, "IndexError"),
        (merged_leaving_second_halves, "Letters were doubled"),
        (merged_losing_the_last, "A piece was lost"), (merged_into_pairs, "not the pair")],
    "EncoderLayer": [
        (layer_of(forward), words) for forward, words in (
            (layer_post_norm, "post-norm"), (layer_norming_the_stream, "never normed"),
            (layer_replacing_first, "around attention"), (layer_replacing_last, "around the MLP"),
            (layer_without_residuals, "Both residual"), (layer_in_parallel, "as it came in"),
            (layer_losing_attention, "is lost"), (layer_without_norms, "norms are missing"),
            (layer_with_one_norm, "norm of its own"), (layer_norms_exchanged, "exchanged"),
            (layer_norming_answers, "answers are normed"), (layer_mlp_first, "Attention first"),
            (layer_in_place, "caller's x"))],
    "pool": [
        (pool_last, "last place"), (pool_largest_number, "equals `eos`"),
        (pool_mean, "averages over all places"), (pool_mean_of_tokens, "state alone"),
        (pool_one_early, "one place too early"), (pool_last_end, "last end token"),
        (pool_start, "start token"), (pool_largest_values, "largest value"),
        (pool_counting_tokens, "counts the tokens"), (pool_mean_of_ends, "averages all end"),
        (pool_all_pairs, "has shape")],
    "similarity": [
        (table_of_products, "long ones would win"), (table_unit_images, "captions are not"),
        (table_unit_texts, "pictures are not"), (table_with_the_logarithm, "by its exp"),
        (table_divided, "This divides"), (table_of_cosines, "not used"),
        (table_over_the_batch, "Each ROW"), (table_turned, "is turned"),
        (table_of_pairs, "your line")],
    "clip_loss": [
        (loss_of_rows, "Only the pictures choose"), (loss_of_columns, "Only the captions choose"),
        (loss_of_rows_twice, "Only the pictures choose"), (loss_added, "sum of the two"),
        (loss_of_zeros, "torch.arange"), (loss_of_probabilities, "logarithm is missing"),
        (loss_over_the_batch, "sums over the batch"),
        (loss_of_the_whole_table, "whole table"), (loss_upside_down, "sign is wrong"),
        (loss_by_sigmoid, "a sigmoid"), (loss_detached, "no gradient"),
        (loss_of_a_second_softmax, "has its own"),
        (loss_of_each_row, "one number")],
    "retrieval": [
        (found_by_pictures, "pictures choose"), (found_as_a_number, "number of captions"),
        (found_in_percent, "percent"), (found_above_the_mean, "above the mean"),
        (found_not, "does NOT find"), (found_among_eight, "of seven"),
        (found_as_a_tensor, "Return a float")],
    "zero_shot": [
        (classes_over_pictures, "over the pictures"), (classes_as_scores, "These are scores"),
        (classes_of_one_prompt, "first prompt"), (classes_of_long_vectors, "long ones count more"),
        (classes_of_long_features, "each FEATURE"),
        (classes_by_mean_score, "averages the prompts' scores"),
        (classes_by_best_score, "best prompt"),
        (classes_by_added_shares, "more prompts would win"),
        (classes_without_temperature, "temperature is missing"),
        (classes_as_numbers, "most likely class"),
        (classes_prompt_by_prompt, "takes a list of captions")],
}
RIGHT = {
    "dot_product_attention": [attend_by_einsum, attend_by_loops, attend_by_torch,
                                     attend_scaling_queries],
    "split_heads": [heads_by_reshape, heads_by_chunks, heads_by_loop, heads_by_einsum],
    "causal_mask": [mask_by_comparing, mask_by_loop, mask_by_turning],
    "hard_negative_loss": [hard_by_log_softmax, hard_by_logsumexp, hard_by_loop],
    "commonest_pair": [pair_by_sorting, pair_by_largest_count, pair_by_counter],
    "merged": [merged_by_recursion, merged_with_a_pile, merged_by_slices],
    "EncoderLayer": [layer_of(layer_with_names), layer_of(layer_by_a_loop)],
    "pool": [pool_row_by_row, pool_by_gather, pool_by_one_hot,
             pool_by_argmax],
    "similarity": [table_by_cosine_similarity, table_by_einsum, table_by_loops],
    "clip_loss": [loss_by_logsumexp, loss_by_log_softmax, loss_against_an_identity],
    "retrieval": [found_by_loop, found_by_maximum, found_by_ranks],
    "zero_shot": [classes_from_sums, classes_all_at_once, classes_by_loops],
}
