"""Aligning two captions for Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626).

Which token of a caption takes the attention map of which token of another one, and in which steps.
n is the number of tokens of a caption with its start, its end and what fills it up.
"""

import re

import torch
from torch import Tensor

from .bpe import Tokenizer

MARKS = r"([^\W_])([,.;:!?]+)(?=\s|$)"                    # what ends a word, and is none
Words = list[tuple[str, list[int]]]                       # each word with its tokens' positions
Fraction = float | tuple[float, float]                    # of the steps: up to there, or from, to


def word_tokens(tokenizer: Tokenizer, caption: str) -> Words:
    """The words of a caption, each with its tokens' positions; 0 is the start token.

    In lower case; a comma behind a word is one of its own. ValueError for a caption
    without words, or one that is too long.
    """
    words, position = [], 1
    for word in re.sub(MARKS, r"\1 \2", caption.lower()).split():
        count = len(tokenizer.pieces(word))
        words.append((word, list(range(position, position + count))))
        position += count
    if not words:
        raise ValueError("The caption is empty: say what the picture shows, and what "
                         "it should show instead.")
    if position >= tokenizer.length:
        raise ValueError(f"This caption has {position - 1} tokens and only "
                         f"{tokenizer.length - 2} fit: shorten {caption[:40]!r}.")
    return words


def find(words: Words, chosen: str) -> list[int]:
    """The tokens of one word or of several, wherever they stand in a caption.

    ValueError for a word that does not occur.
    """
    known = [word for word, _ in words]
    for word in chosen.split() or [""]:
        if word not in known:
            raise ValueError(f"The word {word!r} does not occur in {' '.join(known)!r}: "
                             "choose one of the caption's own.")
    return [token for word, tokens in words if word in chosen.split() for token in tokens]


def swap_mapper(source: Words, target: Words, n: int) -> Tensor:
    """Which source token's map each target token gets where words are swapped: (n,n).

    Entry (i,j) is the share of i's map that goes to j. A word takes the map of the word
    at its place; one with another number of tokens takes all of it in equal shares. The
    end token and those behind it are mapped in order. ValueError for another number of
    words.
    """
    if len(source) != len(target):
        raise ValueError("To swap words both captions must have as many, got "
                         f"{len(source)} and {len(target)}: align them by refinement.")
    mapper, i, j = torch.zeros(n, n), 1, 1              # the next token of each
    mapper[0, 0] = 1                                    # the start token
    for (_, old), (_, new) in zip(source, target, strict=True):
        if len(old) == len(new):
            mapper[old, new] = 1                        # token by token
        else:
            mapper[i:i + len(old), j:j + len(new)] = 1 / len(new)
        i, j = i + len(old), j + len(new)
    return map_rest(mapper, i, j)


def map_rest(mapper: Tensor, i: int, j: int) -> Tensor:
    """The mapper with the tokens from i and from j on mapped in order, as far as both go."""
    count = len(mapper) - max(i, j)
    mapper[range(i, i + count), range(j, j + count)] = 1
    return mapper


def align(source: list[int], target: list[int], gap: float = 0., match: float = 1.,
          mismatch: float = -1.) -> list[int]:
    """For each target token its partner's position in `source`, -1 for one that is new.

    Needleman and Wunsch 1970: best[i][j] is the best score of the first i and j tokens,
    then the way back. Of equally good alignments any one is right.
    """
    best = [[gap * (i + j) for j in range(len(target) + 1)]
            for i in range(len(source) + 1)]
    for i, x in enumerate(source, 1):
        for j, y in enumerate(target, 1):
            best[i][j] = max(best[i - 1][j - 1] + (match if x == y else mismatch),
                             best[i - 1][j] + gap, best[i][j - 1] + gap)
    partner, i, j = [-1] * len(target), len(source), len(target)
    while i and j:
        if best[i][j] == best[i][j - 1] + gap:
            j -= 1                                      # target[j] is new
        elif best[i][j] == best[i - 1][j] + gap:
            i -= 1                                      # source[i] is gone
        else:
            i, j = i - 1, j - 1
            partner[j] = i
    return partner


def refine_mapper(source: list[int], target: list[int], n: int) -> Tensor:
    """As `swap_mapper`, where words come or go: (n,n), a new token's column is all 0.

    source, target: the tokens of both captions, from the start token to the end token.
    """
    mapper = torch.zeros(n, n)
    for j, i in enumerate(align(source, target)):
        if i >= 0:
            mapper[i, j] = 1
    return map_rest(mapper, len(source), len(target))


def mappers(tokenizer: Tokenizer, bases: list[str], edits: list[str],
            kind: str | None = None) -> Tensor:
    """The mapper (b,n,n) of pairs of captions: "swap", "refine", or what fits a pair.

    ValueError for another kind, captions that do not pair up, empty ones, and what
    `swap_mapper` refuses.
    """
    if kind not in ("swap", "refine", None) or len(bases) != len(edits):
        raise ValueError("A mapper needs a base caption for each edited one and a "
                         "kind, swap or refine; got "
                         f"{len(bases)}, {len(edits)} and {kind!r}.")
    made, n = [], tokenizer.length
    for texts in zip(bases, edits, strict=True):
        source, target = (word_tokens(tokenizer, text) for text in texts)
        if kind == "swap" or kind is None and len(source) == len(target):
            made.append(swap_mapper(source, target, n))
        else:
            ids = [row[:words[-1][1][-1] + 2] for row, words in zip(
                tokenizer(list(texts)).tolist(), (source, target), strict=True)]
            made.append(refine_mapper(*ids, n))
    return torch.stack(made)


def shuffled_mapper(mapper: Tensor, counts: list[int], generator: torch.Generator) -> Tensor:
    """A negative control: the mapper (b,n,n) with the maps of each base caption's words exchanged.

    `counts` (b) are the tokens of its words; none keeps its own map. The start token and what
    follows the words stay, since they take most of each row.
    """
    mixed = mapper.clone()
    for one, count in zip(mixed, counts, strict=True):
        order = 1 + torch.randperm(count, generator=generator)
        one[order] = one[order.roll(1)]
    return mixed


def word_schedule(steps: int, cross: Fraction | dict[str, Fraction], words: Words,
                  n: int) -> Tensor:
    """In which steps each token's map is taken from the base: (steps+1,n) of 0 and 1.

    `cross` is a fraction of the steps, from the first on, or (from, to); a dict gives
    some words their own, "default_" the others (else 0). As in the official code the
    fraction counts steps + 1 rows and is cut down; no step uses the last row.
    ValueError for fractions outside 0..1 and for words that do not occur.
    """
    given = cross if isinstance(cross, dict) else {"default_": cross}
    table = torch.zeros(steps + 1, n)
    for word in sorted(given, key=lambda w: w != "default_"):   # the default goes first
        start, stop = step_window(given[word], steps + 1)
        tokens = range(n) if word == "default_" else find(words, word)
        table[:, tokens] = 0
        table[start:stop, tokens] = 1
    return table


def step_window(fraction: Fraction, count: int) -> tuple[int, int]:
    """The rows from and to which a fraction of `count` rows reaches, cut down."""
    start, stop = fraction if isinstance(fraction, tuple) else (0., fraction)
    if not 0 <= start <= stop <= 1:
        raise ValueError("A part of the steps lies in 0..1, or is (from, to) in this order; "
                         f"got {fraction}.")
    return int(start * count), int(stop * count)
