"""Checks of lesson 13."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import prompt_alignment as alignment
from . import Wrong, exercise, expect_close
from ._edit_steps import edit_steps, fit_null
from .latent import refuses

__all__ = ["align", "blend_mask", "edit_steps", "fit_null", "inject", "reweight", "swap_mapper",
           "word_schedule"]

N = 12                                                    # tokens of a caption in here
SOURCE = [("a", [1]), ("cat", [2, 3]), ("zzz", [4, 5]), ("on", [6])]
TARGET = [("a", [1]), ("zebra", [2, 3, 4]), ("qqq", [5, 6]), ("ice", [7])]


def swapped(*, share=lambda old, new: 1 / new, pairwise: bool = True, tail: str = "in order",
            start: float = 1., by_position: bool = False) -> Tensor:
    """The mapper of SOURCE and TARGET, with a mistake in one place."""
    mapper = torch.zeros(N, N)
    mapper[0, 0] = start
    for (_, old), (_, new) in zip(SOURCE, TARGET, strict=True):
        old = new if by_position and len(old) == len(new) else old
        for a, i in enumerate(old):
            for b, j in enumerate(new):
                apart = share(len(old), len(new))
                mapper[i, j] = float(a == b) if len(old) == len(new) and pairwise else apart
    for k in range(N - 8):
        if tail == "in order":
            mapper[7 + k, 8 + k] = 1
        elif tail == "by position":
            mapper[8 + k, 8 + k] = 1
    return mapper


@exercise("gligen_lessons.prompt_alignment:swap_mapper")
def swap_mapper(attempt):
    """Four words: one token for one, two that become three, two for two; then the end."""
    want = swapped()
    mistakes = {
        "Rows are the base's tokens and columns the edited caption's; here it is the other way.":
            want.T,
        "This is the identity. A longer word moves what follows it to other places.":
            torch.eye(N),
        "A token that becomes several must share its map among them: 1 / len(new) each.":
            swapped(share=lambda old, new: 1.),
        "The shares are 1 / len(old): the map goes to the NEW tokens, so share it among them.":
            swapped(share=lambda old, new: 1 / old),
        "Words of as many tokens are mapped token by token, not each to all.":
            swapped(pairwise=False),
        "A word's tokens fill a block of ones. mapper[old, new] with two lists sets the pairs.":
            swapped(pairwise=False, share=lambda old, new: 1. if old == new else 1 / new),
        "Words of as many tokens are mapped by position. Behind a longer word they stand at other "
        "places in the base: from the old tokens to the new.": swapped(by_position=True),
        "What follows the words is mapped by its position. The base's end token stands elsewhere: "
        "map in order.": swapped(tail="by position"),
        "The end token and those behind it are not mapped.": swapped(tail="none"),
        "The start token is not mapped: [0, 0] is 1.": swapped(start=0.)}
    error = expect_close(attempt(SOURCE, TARGET, N), want, "Word by word; then what is left, in "
                         "order.", mistakes=mistakes)
    back = alignment.swap_mapper(TARGET, SOURCE, N)
    expect_close(attempt(TARGET, SOURCE, N), back, "Three tokens that become two give each half "
                 "of their maps.")
    refuses(lambda: attempt(SOURCE, TARGET[:3], N), "four words and three came")
    return f"maps 12 tokens (largest difference {error:.0e})"


def path_score(partner: list[int], source: list, target: list, gap: float, match: float,
          mismatch: float) -> float:
    """What an alignment is worth: its pairs, and every token without a partner."""
    pairs = [(source[i], target[j]) for j, i in enumerate(partner) if i >= 0]
    alone = len(source) + len(target) - 2 * len(pairs)
    return gap * alone + sum(match if x == y else mismatch for x, y in pairs)


ALIGNED = (  # source, target, (gap, match, mismatch), and what to say where it fails
    ([1, 2, 3], [1, 9, 2, 3], (0, 1, -1), "A new word in the middle: its partner is -1."),
    ([4, 5, 1, 2, 3], [3, 4, 5, 1, 2], (0, 1, -1), "The best pairs are not always the first that "
     "one meets: a greedy search pairs one word and loses four."),
    ([5, 7, 7, 2, 9, 4], [5, 2, 7, 7, 3, 9], (0, 1, -1), "A word that occurs twice."),
    ([1, 2, 3], [1, 8, 3], (-1, 1, -1), "Where gaps cost, a mismatch can be the better move: "
     "`gap` and `mismatch` must count."),
    ([1, 2], [2, 1], (-2, 1, -1), "The first row and column are not 0: i tokens without a partner "
     "cost i gaps."),
    ([], [6, 6], (0, 1, -1), "Nothing to pair with: all are new."),
    ([2, 3, 5], [5], (-.5, 2, -3), "Words are left over at the start."))


@exercise("gligen_lessons.prompt_alignment:align")
def align(attempt):
    """Seven pairs of sequences, at different prices; any best alignment is right."""
    for source, target, prices, message in ALIGNED:
        got = attempt(list(source), list(target), *prices)
        if not isinstance(got, list | tuple) or len(got) != len(target):
            raise Wrong(f"expected one partner for each of the {len(target)} TARGET tokens in a "
                        "list: a position in source, or -1.")
        taken = [int(i) for i in got if i >= 0]
        if any(not -1 <= i < len(source) for i in got):
            raise Wrong("a partner is a position in source, counted from 0, or -1; this one lies "
                        "outside. Are these tokens, or positions from 1?")
        if taken != sorted(set(taken)):
            raise Wrong("partners must rise: two pairs may not cross, nor share a token.")
        want = path_score(alignment.align(source, target, *prices), source, target, *prices)
        worth = path_score(got, source, target, *prices)
        if not abs(worth - want) < 1e-6:
            if prices[0] and list(got) == alignment.align(source, target, -prices[0], *prices[1:]):
                message = ("`gap` was taken away. It is a score like the other two and is added: "
                           "a gap of -1 costs 1.")
            raise Wrong(f"{message} {source} and {target} at prices {prices}: this alignment is "
                        f"worth {worth:g}, the best {want:g}.")
    if attempt([1, 2], [1, 2]) != [0, 1]:
        raise Wrong("equal captions are paired token by token: [0, 1].")
    return f"finds a best alignment for {len(ALIGNED) + 1} pairs of sequences"


WORDS = [("a", [1]), ("blue", [2, 3]), ("car", [4])]
CROSS = {"blue": (.5, .95), "default_": (.1, .87)}


def schedule_table(blue: tuple[int, int], others: tuple[int, int], rows: int = 10,
          tokens=(2, 3)) -> Tensor:
    """Ones from and to some rows: in the columns `tokens`, and in the others."""
    made = torch.zeros(rows, 6)
    made[slice(*others)] = 1
    made[:, list(tokens)] = 0
    made[slice(*blue), list(tokens)] = 1
    return made


@exercise("gligen_lessons.prompt_alignment:word_schedule")
def word_schedule(attempt):
    """Nine steps: one number for all; a word of two tokens with a window of its own."""
    want = schedule_table((5, 9), (1, 8))
    mistakes = {
        "The fraction counts steps + 1 rows, as in the official code: .87 of 10 rows are 8.":
            schedule_table((4, 8), (0, 7)),
        "The table needs steps + 1 rows.": schedule_table((5, 9), (1, 8), rows=9),
        "Rounded: the official code cuts down with int().": schedule_table((5, 10), (1, 9)),
        "The default overwrites the word's own window: set it first.":
            schedule_table((1, 8), (1, 8)),
        "Rows are on from the start. A window (from, to) leaves the steps before it off.":
            schedule_table((0, 9), (0, 8)),
        "Only the word's first token follows its window; it has two.":
            schedule_table((5, 9), (1, 8), tokens=[2]),
        "The word is on in its window AND where the default is: clear its columns first.":
            schedule_table((1, 9), (1, 8)),
        "The default reaches the words' tokens only. It counts for all n: the start token and "
        "those behind the words too.": want * torch.tensor([0., 1, 1, 1, 1, 0]),
        "The default is ignored.": schedule_table((5, 9), (0, 0)),
        "Rows are steps and columns are tokens.": want.T}
    error = expect_close(attempt(9, dict(CROSS), WORDS, 6), want, "Zeros; for each word "
                         "its rows from and to, for \"default_\" all columns.", mistakes=mistakes)
    expect_close(attempt(9, .5, WORDS, 6), schedule_table((0, 5), (0, 5)),
                 "A single number counts for all tokens, the start token included.")
    expect_close(attempt(9, {"car": 1.}, WORDS, 6), schedule_table((0, 10), (0, 0), tokens=[4]),
                 "Without \"default_\" the other words are not controlled; 1 reaches every row.")
    refuses(lambda: attempt(9, 1.5, WORDS, 6), "a fraction of 1.5 came (`step_window` refuses it)")
    refuses(lambda: attempt(9, {"tree": .5}, WORDS, 6), "a word came that does not occur (`find` "
            "refuses it)")
    return f"fills 3 tables of 10 rows (largest difference {error:.0e})"


@exercise("gligen_lessons.prompt2prompt:inject")
def inject(attempt):
    """Two pairs, three heads, five pixels, four tokens, of which each pair has a new one."""
    base, edited = (torch.randn(2, 3, 5, 4).softmax(-1) for _ in range(2))
    mapper = torch.tensor([[[1., 0, 0, 0], [0, .5, .5, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
                           [[0., 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]])
    moved = torch.einsum("bkpn,bnm->bkpm", base, mapper)
    new = (mapper.sum(1) == 0)[:, None, None]
    want = torch.where(new, edited, moved)
    idle = (mapper.sum(2) == 0)[:, None, None]
    mistakes = {
        "A new token's map is all zero. It has no source, so it keeps its OWN map.": moved,
        "Rows and columns of the mapper have changed places.": torch.where(
            idle, edited, torch.einsum("bkpn,bmn->bkpm", base, mapper)),
        "Base and edited maps have changed places.": torch.where(
            new, base, torch.einsum("bkpn,bnm->bkpm", edited, mapper)),
        "The whole base map is copied; the mapper says which token's column goes where.": base,
        "Nothing is taken from the base.": edited,
        "The mapper was turned around: base @ mapper, without a transpose.": torch.where(
            new, edited, torch.einsum("bkpn,bmn->bkpm", base, mapper)),
        "Where a column sums to less than 1 the own map fills it up. A token that has a source "
        "takes its share alone.": moved + edited * (1 - mapper.sum(1))[:, None, None],
        "New are the tokens whose COLUMN is zero; this looks at rows.":
            torch.where(idle, edited, moved),
        "The maps were normalised again. The paper's code does not.":
            want / want.sum(-1, keepdim=True),
        "A new token's map is added to all: where a column has a source, the own map goes.":
            moved + edited,
        "All pairs were mapped by the first pair's mapper.": torch.where(
            new[:1], edited, torch.einsum("bkpn,nm->bkpm", base, mapper[0]))}
    given = base.clone(), edited.clone()
    error = expect_close(attempt(*given, mapper), want, "base @ mapper, and the own map where the "
                         "mapper's column is all zero.", mistakes=mistakes)
    if not (torch.equal(given[0], base) and torch.equal(given[1], edited)):
        raise Wrong("it changes the maps that it was given. The base must stay: make a new tensor.")
    return f"moves 2 x 4 tokens' maps (largest difference {error:.0e})"


@exercise("gligen_lessons.prompt2prompt:reweight")
def reweight(attempt):
    """Two pictures with scales of their own, one of them negative."""
    maps = torch.randn(2, 3, 5, 4).softmax(-1)
    scale = torch.tensor([[1., 2.5, .2, 1], [1, 1, -2, .5]])
    want, kept = maps * scale[:, None, None], maps.clone()
    mistakes = {
        "The maps were normalised again: then more of one word takes from all others. The paper "
        "only multiplies.": want / want.sum(-1, keepdim=True),
        "A softmax was taken again. These are maps already, not scores.": want.softmax(-1),
        "The scale is added; multiply.": maps + scale[:, None, None],
        "Every picture got the first one's scales.": maps * scale[0],
        "This divides by the scale.": maps / scale[:, None, None],
        "Negative scales were cut off; they push a word's meaning away.":
            maps * scale.clamp(min=0)[:, None, None]}
    error = expect_close(attempt(maps, scale), want, "Multiply each token's column by its scale.",
                         mistakes=mistakes)
    if not torch.equal(maps, kept):
        raise Wrong("it changes the maps that it was given: write `a * b`, not `a *= b`.")
    return f"scales 2 x 4 tokens (largest difference {error:.0e})"


def masked(maps: Tensor, words: Tensor, size: int, threshold: float = .3, *, pool: int = 3,
           over=(1, 2, 3), mode: str = "nearest", join=torch.logical_or,
           limit=None, gather=torch.sum, late: bool = False, alternate: bool = False) -> Tensor:
    """The mask of local blend, with a mistake in one place."""
    heat = gather(maps * words[..., None, None], 1, keepdim=True)
    heat = heat if late else F.max_pool2d(heat, pool, stride=1, padding=pool // 2)
    smooth = {"align_corners": False} if mode == "bilinear" else {}
    heat = F.interpolate(heat, size=(size, size), mode=mode, **smooth)
    heat = F.max_pool2d(heat, pool, stride=1, padding=pool // 2) if late else heat
    inside = heat > threshold * (heat.amax(over, keepdim=True) if limit is None else limit)
    return join(*((inside[::2], inside[1::2]) if alternate else inside.chunk(2)))


@exercise("gligen_lessons.prompt2prompt:blend_mask")
def blend_mask(attempt):
    """Two pairs, each picture's maps of another size of values; four words, some chosen."""
    maps = torch.rand(4, 4, 8, 8) ** 8 * torch.tensor([1., 3, .2, 9]).view(-1, 1, 1, 1)
    words = torch.tensor([[0., 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    got, want = attempt(maps.clone(), words, 16, .6), masked(maps, words, 16, .6)
    expect_close(got, want, "Sum the words' maps, max-pool, enlarge, compare with threshold times "
                 "the picture's largest value, unite.", mistakes=bad_masks(maps, words))
    expect_close(attempt(maps, words, 16), masked(maps, words, 16), "The threshold is .3 by "
                 "default.")
    none = words * torch.tensor([[0.], [1], [1], [1]])
    expect_close(attempt(maps, none, 16), masked(maps, none, 16), "A caption without a chosen word "
                 "has a map of 0 and lets nothing change: 0 is not above (`>`) 0.")
    return f"marks {int(want.sum())} of {want.numel()} places"


def bad_masks(maps: Tensor, words: Tensor) -> dict[str, Tensor]:
    """What masks at 16 pixels and .6 come to that do one thing wrong, by their message."""
    return {
        "The maps were not widened: a max-pool of 3 x 3 with stride 1 does it.":
            masked(maps, words, 16, .6, pool=1),
        "They were widened too far: 3 x 3.": masked(maps, words, 16, .6, pool=5),
        "All pictures were held against the largest value of the whole batch: each has its own.":
            masked(maps, words, 16, .6, over=(0, 1, 2, 3)),
        "The maps were held against the threshold as they are: first against each picture's "
        "largest value.": masked(maps, words, 16, .6, limit=1.),
        "Enlarge with nearest pixels.": masked(maps, words, 16, .6, mode="bilinear"),
        "Only where BOTH captions' words live: either is enough, or a new shape is cut to the old.":
            masked(maps, words, 16, .6, join=torch.logical_and),
        "Only the edited captions' words count; where the old thing was must change too.":
            masked(maps, words, 16, .6, join=lambda base, edited: edited),
        "Only the base captions' words count.":
            masked(maps, words, 16, .6, join=lambda base, edited: base),
        "All words are in it: multiply by `words` first.":
            masked(maps, torch.ones_like(words), 16, .6),
        "The largest over the words is taken; their maps are summed.":
            masked(maps, words, 16, .6, gather=torch.amax),
        "Widened after enlarging: that is less than a cell. The max-pool comes first.":
            masked(maps, words, 16, .6, late=True),
        "Captions are paired alternately: all bases come first, `.chunk(2)`.":
            masked(maps, words, 16, .6, alternate=True),
        "`threshold` is ignored.": masked(maps, words, 16, .3),
        "The mask is upside down: True where the words live.": ~masked(maps, words, 16, .6)}
