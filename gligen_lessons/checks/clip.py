"""Checks of lesson 4."""

import math
from collections import Counter
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from .. import bpe
from .. import clip as reference
from . import Wrong, exercise, expect_close
from ._attention import causal_mask, dot_product_attention, split_heads  # noqa: F401
from ._unet_parts import redrawn

NO_UNIT = ("The vectors are not brought to length one: long ones would win whatever they say. "
           "Use `F.normalize(x, dim=-1)`.")


@exercise("gligen_lessons.bpe:commonest_pair")
def commonest_pair(attempt):
    """Counts, repeats within a word, ends of words, ties, and a table with nothing left."""
    tables = {
        "Each word counts as often as it was met: add its count, not 1.":
            {("c", "d</w>"): 9, ("a", "b", "e</w>"): 1, ("x", "a", "b", "f</w>"): 1},
        "A pair counts every time it stands in a word, not once a word.":
            {("n", "a", "n", "a", "s</w>"): 3, ("b", "e</w>"): 5},
        "Only neighbours inside one word are a pair: words do not touch each other.":
            {("a",): 9, ("b",): 9, ("c",): 9, ("d", "e</w>"): 2},
        "Of equally common pairs the first in the alphabet is wanted.":
            {("m", "o</w>"): 4, ("b", "z", "c</w>"): 4, ("k", "a</w>"): 4, ("b", "y</w>"): 4}}
    for message, words in tables.items():
        told, want = attempt(dict(words)), bpe.commonest_pair(words)
        if told is None:
            raise Wrong("it returned None. Does it end with `return`?")
        if told == "".join(want):
            raise Wrong("Return the two pieces as a tuple, not joined: joining is the next step.")
        if isinstance(told, list) and tuple(told) == want:
            raise Wrong("Return a tuple, as merges are kept: (a, b), not [a, b].")
        if told == rarest_pair(words) != want:
            raise Wrong("This is the rarest pair. Mind the minus where you sort.")
        if told != want:
            raise Wrong(f"{message} In {words} the commonest is {want}, not {told}.")
    try:
        told = attempt({("word</w>",): 3})
    except ValueError:
        return f"finds the commonest pair in {len(tables)} tables"
    except (IndexError, KeyError, TypeError) as error:
        raise Wrong(f"With no pair left it stops with {type(error).__name__}: raise a ValueError "
                    "that says so.") from error
    raise Wrong(f"With no pair left it returned {told!r}: raise a ValueError that says so.")


def rarest_pair(words) -> bpe.Pair:
    """The pair met least often, of equal ones the first in the alphabet."""
    pairs = Counter()
    for pieces, count in words.items():
        for pair in zip(pieces, pieces[1:], strict=False):
            pairs[pair] += count
    return min(pairs, key=lambda pair: (pairs[pair], pair))


@exercise("gligen_lessons.bpe:merged")
def merged(attempt):
    """Repeats, overlaps, ends, pieces that only read alike, and words without the pair."""
    cases = (
        (("b", "a", "n", "a", "n", "a</w>"), ("a", "n"),
         "Every occurrence is joined, not only the first."),
        (("a", "a", "a", "b</w>"), ("a", "a"),
         "Go from the left, and use each piece once: after a join go on BEHIND both halves."),
        (("a", "a", "a", "a", "a</w>"), ("a", "a"),
         "Go from the left, and use each piece once: after a join go on BEHIND both halves."),
        (("ab", "c", "d</w>"), ("a", "bc"),
         "Compare pieces, not text: 'ab' + 'c' and 'a' + 'bc' only read alike."),
        (("sa", "t</w>"), ("a", "t</w>"), "Compare whole pieces: 'sa' only ends in 'a'."),
        (("n", "a"), ("a", "n"), "The order counts: (a, n) is not (n, a)."),
        (("s", "t", "a", "r</w>"), ("a", "r</w>"), "The pair may stand at the very end."),
        (("cat</w>",), ("a", "t"), "A word that does not hold the pair stays as it is."))
    for pieces, pair, message in cases:
        told, want = attempt(pieces, pair), bpe.merged(pieces, pair)
        if told is None:
            raise Wrong("it returned None. Does it end with `return`?")
        if not isinstance(told, tuple):
            raise Wrong(f"Return a tuple, not a {type(told).__name__}: words are the keys of a "
                        "dict.")
        if not all(isinstance(piece, str) for piece in told):
            raise Wrong("Append the joined text, pair[0] + pair[1], not the pair.")
        letters, before = ("".join(x) for x in (told, pieces))
        if len(letters) > len(before):
            message = "Letters were doubled: after a join go on BEHIND both halves."
        if len(letters) < len(before):
            message = "A piece was lost: go on while i < len(pieces)."
        if told != want:
            raise Wrong(f"{message} {pieces} with {pair} is {want}, not {told}.")
    return f"joins pairs in {len(cases)} words"


LAYER = {"hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 3,
         "layer_norm_eps": 1e-5}


@exercise("gligen_lessons.clip:EncoderLayer")
def EncoderLayer(attempt):
    """Two captions of five tokens, with weights far from where they start."""
    net, x = redrawn(reference.EncoderLayer(LAYER, True)), torch.randn(2, 5, 12)
    learner = attempt(LAYER, True)
    learner.load_state_dict(net.state_dict())
    given = x.clone()
    with torch.no_grad():
        error = expect_close(learner(given), net(x), "x plus attention of its normed copy; then "
                             "that plus the MLP of its normed copy.",
                             mistakes=wrong_layers(net, x))
    if not torch.equal(given, x):
        raise Wrong("the caller's x was changed: write `x = x + ...`, not `x += ...`.")
    return f"agrees on 2 captions of 5 tokens (largest difference {error:.0e})"


def wrong_layers(net, x) -> dict:
    """Typical mistakes in a transformer's layer, with what they give."""
    attend, think, norm1, norm2 = net.self_attn, net.mlp, net.layer_norm1, net.layer_norm2
    y = x + attend(norm1(x))                                    # (b,n,d), the first half
    normed, bare = norm1(x) + attend(norm1(x)), x + attend(x)
    answer, after = x + norm1(attend(x)), norm1(bare)
    first = x + think(norm2(x))
    return {
        "The norm stands behind the sum (post-norm). Here each part reads a normed copy, and the "
        "stream itself is never normed.": norm2(after + think(after)),
        "The normed copy was added. Add to x itself: the stream is never normed.":
            norm2(normed) + think(norm2(normed)),
        "The residual connection around attention is missing: x plus what it says.":
            attend(norm1(x)) + think(norm2(attend(norm1(x)))),
        "The residual connection around the MLP is missing.": think(norm2(y)),
        "Both residual connections are missing: each part ADDS to x.":
            think(norm2(attend(norm1(x)))),
        "The MLP reads x as it came in. It reads what attention has already added to.":
            y + think(norm2(x)),
        "What attention added is lost in the second sum: go on with the new x.":
            x + think(norm2(y)),
        "The norms are missing.": bare + think(bare),
        "Each part has a norm of its own: `layer_norm2` before the MLP.": y + think(norm1(y)),
        "The norms are exchanged: `layer_norm1` belongs to attention.":
            x + attend(norm2(x)) + think(norm1(x + attend(norm2(x)))),
        "The answers are normed. Norm what each part READS.": answer + norm2(think(answer)),
        "The MLP comes first here. Attention first.": first + attend(norm1(first))}


@exercise("gligen_lessons.clip:pool")
def pool(attempt):
    """Captions of different lengths, one that fills its row, padding by another number too."""
    eos, states = 7, torch.randn(4, 6, 5)
    ids = torch.tensor([[6, 9, 7, 7, 7, 7], [6, 2, 8, 1, 7, 7], [6, 1, 9, 3, 4, 7],
                        [6, 7, 8, 8, 8, 8]])
    ends, rows = torch.tensor([2, 4, 5, 1]), torch.arange(4)
    counts = torch.arange(6)[None] <= ends[:, None]
    mistakes = {
        "This is the last place, which is padding for short captions. Take the first end token.":
            states[:, -1],
        "The end token is the one that equals `eos`; the largest number is another one here.":
            states[rows, ids.argmax(1)],
        "This averages over all places. Only the end token has seen the whole caption.":
            states.mean(1),
        "This averages the caption's tokens. CLIP takes the end token's state alone.":
            (states * counts[..., None]).sum(1) / counts.sum(1, keepdim=True),
        "This is the token before the end: one place too early.": states[rows, ends - 1],
        "This is the last end token, at the end of the padding. Take the first.":
            states[rows, torch.tensor([5, 5, 5, 1])],
        "This is the start token, which sees nothing but itself: all captions get one vector.":
            states[:, 0],
        "This is the largest value of each feature, not one token's state.": states.amax(1),
        "This counts the tokens that are no end token, and padding may hold such too. Find the "
        "FIRST `eos`.": states[rows, (ids != eos).sum(1)],
        "This averages all end tokens. Take the first alone: the others are padding.":
            (states * (ids == eos)[..., None]).sum(1) / (ids == eos).sum(1, keepdim=True)}
    error = expect_close(attempt(states.clone(), ids.clone(), eos), states[rows, ends],
                         "Pick for each row the state at its first `eos`.", mistakes=mistakes)
    return f"picks the first end token of 4 captions (largest difference {error:.0e})"


@exercise("gligen_lessons.clip:similarity")
def similarity(attempt):
    """Three pictures, five captions, lengths far from one."""
    images, texts = 3 * torch.randn(3, 8), .4 * torch.randn(5, 8)
    log_scale, factor = torch.tensor(1.3), math.exp(1.3)
    i, t = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    want = factor * i @ t.T
    told = attempt(images.clone(), texts.clone(), log_scale.clone())
    if getattr(told, "shape", None) == (5, 3):
        raise Wrong("the table is turned: pictures stand in rows, captions in columns, (3,5) here.")
    mistakes = {
        NO_UNIT: factor * images @ texts.T,
        "The captions are not brought to length one; the pictures are.": factor * i @ texts.T,
        "The pictures are not brought to length one; the captions are.": factor * images @ t.T,
        "log_scale is a logarithm: multiply by its exp.": 1.3 * i @ t.T,
        "The factor multiplies. This divides by it, which makes every choice a coin's.":
            i @ t.T / factor,
        "log_scale is not used.": i @ t.T,
        "This brings each feature to length one over the batch. Each ROW is a vector: dim=-1.":
            factor * F.normalize(images, dim=0) @ F.normalize(texts, dim=0).T}
    error = expect_close(told, want, "Cosine of each row of images with each row of texts, times "
                         "exp(log_scale).", mistakes=mistakes)
    return f"gives 3 x 5 cosines, scaled (largest difference {error:.0e})"


def is_one_number(loss) -> None:
    """Refuse a loss that was not averaged."""
    if getattr(loss, "ndim", 0):
        raise Wrong(f"the result has shape {tuple(loss.shape)}; a loss is one number.")


def has_gradient(loss) -> None:
    """Refuse a loss that nothing can learn from."""
    if not getattr(loss, "requires_grad", False):
        raise Wrong("no gradient reaches the logits: no .item(), .detach() or no_grad here.")


@exercise("gligen_lessons.clip:clip_loss")
def clip_loss(attempt):
    """A table that is not symmetric, and its gradient."""
    logits = (2 * torch.randn(5, 5)).requires_grad_()
    rows, columns = logits.log_softmax(1), logits.log_softmax(0)
    i, t = -rows.diagonal().mean(), -columns.diagonal().mean()
    first = (F.cross_entropy(z, torch.zeros(5, dtype=torch.long)) for z in (logits, logits.T))
    mistakes = {
        "Only the pictures choose here (rows). The captions choose as well: `logits.T`.": i,
        "Only the captions choose here (columns). The pictures choose as well.": t,
        "This is the sum of the two. Take their mean.": i + t,
        "The right answer of row i is i; here it is 0 for all. `torch.arange`.": sum(first) / 2,
        "The logarithm is missing: this averages probabilities.":
            -(rows.exp() + columns.exp()).diagonal().mean() / 2,
        "This sums over the batch. Take the mean, so that the batch's size does not count.":
            5 * (i + t) / 2,
        "Softmax goes over rows or over columns, not over the whole table.":
            -logits.flatten().log_softmax(0).view(5, 5).diagonal().mean(),
        "The sign is wrong: a loss falls when the diagonal grows.": -(i + t) / 2,
        "The logits went through a softmax before F.cross_entropy, which has its own: the second "
        "one flattens every choice. Hand it the logits.":
            sum(F.cross_entropy(z.softmax(1), torch.arange(5)) for z in (logits, logits.T)) / 2,
        "This asks of each pair alone whether it fits (a sigmoid). Here one of b is chosen.":
            F.binary_cross_entropy_with_logits(logits, torch.eye(5))}
    told = attempt(logits)
    is_one_number(told)
    error = expect_close(told, (i + t) / 2, "Two cross-entropies, one over the rows and one over "
                         "the columns, and their mean.", mistakes=mistakes)
    has_gradient(told)
    return f"is the mean of both choices, {told.detach():.3f} here (off by {error:.0e})"


@exercise("gligen_lessons.clip:hard_negative_loss")
def hard_negative_loss(attempt):
    """Four pictures, their captions and six wrong ones."""
    logits, b = (2 * torch.randn(4, 10)).requires_grad_(), 4
    i = -logits.log_softmax(1).diagonal().mean()
    t = -logits[:, :b].log_softmax(0).diagonal().mean()
    every = F.cross_entropy(logits.T, torch.arange(10) % b)
    mistakes = {
        "The wrong captions take no part: pictures choose among ALL columns.":
            reference.clip_loss(logits[:, :b]),
        "Only the pictures choose here (rows). The right captions choose as well.": i,
        "Only the captions choose here (columns). The pictures choose as well.": t,
        "This is the sum of the two. Take their mean.": i + t,
        "The wrong captions choose a picture too, and none is theirs: only the first b columns "
        "choose.": (i + every) / 2,
        "The sign is wrong: a loss falls when the diagonal grows.": -(i + t) / 2,
        "This sums over the batch. Take the mean, so that the batch's size does not count.":
            b * (i + t) / 2,
        "The captions choose along the COLUMNS: transpose the first b columns.":
            (i + F.cross_entropy(logits[:, :b], torch.arange(b))) / 2}
    try:
        told = attempt(logits)
    except (ValueError, IndexError) as error:
        raise Wrong(f"it stopped with {type(error).__name__} ({error}). A wrong caption belongs "
                    "to no picture, so it has no right answer: only `logits[:, :b].T` chooses."
                    ) from error
    is_one_number(told)
    error = expect_close(told, (i + t) / 2, "Rows choose among all columns, the first b columns "
                         "among the rows; then the mean.", mistakes=mistakes)
    has_gradient(told)
    return f"lets 4 pictures choose among 10 captions (off by {error:.0e})"


@exercise("gligen_lessons.clip:retrieval")
def retrieval(attempt):
    """Eight pictures and captions, where captions find 5 and pictures 2."""
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(453)) + 1.1 * torch.eye(8)
    other = torch.randn(7, 7)
    mistakes = {
        "Here pictures choose their caption. It is the captions (columns) that choose: argmax "
        "over the rows.": 2 / 8,
        "This is the number of captions. The part is wanted, 0 to 1.": 5.,
        "This is in percent. The part is wanted, 0 to 1.": 62.5,
        "A score is right if it is the highest of its column, not merely above the mean.":
            (logits.diagonal() > logits.mean(0)).float().mean(),
        "This is the part that does NOT find its picture.": 3 / 8}
    told = attempt(logits.clone())
    if isinstance(told, torch.Tensor) and told.numel() == 1:
        raise Wrong("the result is a tensor of one number. Return a float: `.item()` or float().")
    error = expect_close(told, 5 / 8, "For each column, is the highest score on "
                         "the diagonal?", mistakes=mistakes)
    hit = sum(float(other[k, k] == other[:, k].max()) for k in range(7)) / 7
    expect_close(attempt(other.clone()), hit, "It is right for one table of eight and wrong for "
                 "another of seven: is a size or a value written into it?")
    expect_close(attempt(torch.eye(4)), 1., "With the largest scores on the diagonal all four are "
                 "found: that is 1.")
    return f"counts what captions find in 3 tables (off by {error:.0e})"


def reader(texts: int = 9) -> SimpleNamespace:
    """Something with the interface of CLIP: vectors of texts from a table, of pictures by a map."""
    table, eye = torch.randn(texts, 6) * (1 + torch.arange(texts))[:, None], torch.randn(12, 6)
    return SimpleNamespace(encode_text=lambda ids: table[ids[:, 0]],
                           encode_image=lambda pixels: pixels.flatten(1) @ eye,
                           logit_scale=torch.tensor(1.1))


PROMPTS = [["0", "1", "2"], ["3"], ["4", "5", "6", "7", "8"]]           # three classes


def numbered(texts) -> torch.Tensor:
    """A tokenizer for texts that are numbers."""
    if isinstance(texts, str):
        raise Wrong("tokenize takes a list of captions: hand it the whole list of a class.")
    return torch.tensor([[int(text)] for text in texts])


@exercise("gligen_lessons.clip:zero_shot")
def zero_shot(attempt):
    """Three classes of different numbers of prompts, four pictures."""
    model, pixels = reader(), torch.randn(4, 3, 2, 2)
    want, mistakes = classified(model, pixels, [model.encode_text(numbered(p)) for p in PROMPTS])
    error = expect_close(attempt(model, numbered, pixels.clone(), PROMPTS), want,
                         "One vector a class: the mean of its prompts' unit vectors. Then "
                         "`similarity` and a softmax over the classes.", mistakes=mistakes)
    return f"chooses among 3 classes of 9 prompts (largest difference {error:.0e})"


def classified(model, pixels, raw) -> tuple[torch.Tensor, dict]:
    """The right probabilities, and typical wrong ones; `raw` holds the vectors of each class."""
    images = model.encode_image(pixels)

    def scored(vectors):
        return reference.similarity(images, torch.stack(vectors), model.logit_scale)

    def shares(of_class):
        return torch.stack([of_class(scored([*x])) for x in raw], 1)
    right = scored([F.normalize(x, dim=-1).mean(0) for x in raw])
    alone = scored([row for x in raw for row in x]).softmax(1).split([len(x) for x in raw], 1)
    return right.softmax(1), {
        "The softmax runs over the pictures. Each picture chooses among the classes: dim 1.":
            right.softmax(0),
        "These are scores. Make them probabilities with a softmax over the classes.": right,
        "Only the first prompt of each class is used.": scored([x[0] for x in raw]).softmax(1),
        "The prompts' vectors are averaged as they are: long ones count more. Bring each to "
        "length one first.": scored([x.mean(0) for x in raw]).softmax(1),
        "This brings each FEATURE to length one over the prompts. Each row is a vector: dim=-1.":
            scored([F.normalize(x, dim=0).mean(0) for x in raw]).softmax(1),
        "This averages the prompts' scores. A class is the DIRECTION of its mean vector, which "
        "has length one again: a class whose prompts differ is not punished.":
            shares(lambda z: z.mean(1)).softmax(1),
        "This takes each class's best prompt. Average their directions.":
            shares(lambda z: z.amax(1)).softmax(1),
        "This adds the probabilities of all prompts: classes with more prompts would win.":
            torch.stack([p.sum(1) for p in alone], 1),
        "The temperature is missing: `similarity` multiplies by exp(logit_scale).":
            (right / model.logit_scale.exp()).softmax(1),
        "This is the most likely class. All probabilities are wanted, (pictures, classes).":
            right.argmax(1)}
