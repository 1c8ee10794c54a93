"""Byte-pair encoding: captions as tokens (Sennrich et al. 2016, arXiv 1508.07909).

The rules of CLIP's tokenizer: lower case, words and marks apart, `</w>` at a word's end, the
captions between two special tokens and filled up with the second. What is learnt are `merges`,
pairs of pieces in the order in which they are joined.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = (r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
         r"|[^\s\p{L}\p{N}]+")
PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1),
             *range(ord("®"), ord("ÿ") + 1)]
Pair = tuple[str, str]


def split_up(word: str) -> tuple[str, ...]:
    """A word as single letters, the last one marked: "cat" is c, a, t</w>."""
    return (*word[:-1], word[-1] + "</w>")


def commonest_pair(words: dict[tuple[str, ...], int]) -> Pair:
    """The two neighbouring pieces met most often (Sennrich, algorithm 1).

    `words` counts words, each a tuple of pieces. Of equally common pairs the first in
    the alphabet. ValueError where every word is one piece.
    """
    pairs = Counter()
    for pieces, count in words.items():
        for pair in zip(pieces, pieces[1:], strict=False):
            pairs[pair] += count
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def merged(pieces: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """The pieces with every occurrence of a pair joined, from the left."""
    done, i = [], 0
    while i < len(pieces):
        both = pieces[i:i + 2] == pair
        done.append("".join(pair) if both else pieces[i])
        i += 2 if both else 1
    return tuple(done)


def byte_letters() -> list[str]:
    """The 256 letters that stand for the bytes, printable ones first (as GPT-2 writes them)."""
    return [chr(b) for b in PRINTABLE] + [chr(256 + i) for i in range(256 - len(PRINTABLE))]


def byte_order() -> list[int]:
    """The byte that each of the 256 letters stands for."""
    return PRINTABLE + [b for b in range(256) if b not in PRINTABLE]


def as_typed(piece: str) -> str:
    """A piece of a word as the text that it stands for; the mark of a word's end stays."""
    value = dict(zip(byte_letters(), byte_order(), strict=True))
    return bytes(value[letter] for letter in piece).decode("utf-8", "backslashreplace")


def vocabulary(merges: Iterable[Pair]) -> dict[str, int]:
    """Every token's number, in CLIP's order: bytes, bytes that end a word, merges, specials."""
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters),
              *("".join(pair) for pair in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}


def learn_merges(captions: Iterable[str], most: int = 1024) -> list[Pair]:
    """The merges that shorten these captions most, up to `most`, with the tokenizers library."""
    from tokenizers import trainers

    model = _pipeline([])
    trainer = trainers.BpeTrainer(vocab_size=512 + most, end_of_word_suffix="</w>",
                                  initial_alphabet=byte_letters(), show_progress=False)
    model.train_from_iterator(captions, trainer)
    return [tuple(pair) for pair in json.loads(model.to_str())["model"]["merges"]]


def _pipeline(merges: list[Pair]):
    """Text to pieces, by the tokenizers library."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    made = Tokenizer(models.BPE(vocabulary(merges), merges, end_of_word_suffix="</w>",
                                continuing_subword_prefix="", unk_token=END, fuse_unk=False))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([START, END])
    return made


class Tokenizer:
    """Captions to numbers: tokenizer(["a red car"]) gives ids (1,length), a long tensor."""

    def __init__(self, merges: list[Pair], length: int = 77):
        self.merges, self.length = merges, length
        self.vocabulary = vocabulary(merges)
        self.start, self.end = self.vocabulary[START], self.vocabulary[END]
        self._text_to_pieces = _pipeline(merges)

    def __call__(self, captions: list[str]) -> Tensor:
        """ids (b,length): start, the caption, end, and the end again up to `length`.

        A longer caption is cut, with a warning that says where. TypeError for a lone string.
        """
        if isinstance(captions, str):
            raise TypeError("The tokenizer takes a list of captions: put yours into [ ].")
        rows, room = [], self.length - 2
        for text in captions:
            ids = self._text_to_pieces.encode(text).ids
            if len(ids) > room:
                kept = self.words(ids[:room])
                warnings.warn(f"This caption has {len(ids)} tokens and only {room} fit: it is "
                              f"cut after {kept[-40:]!r}.", stacklevel=2)
            ids = [self.start, *ids[:room]]
            rows.append(ids + [self.end] * (self.length - len(ids)))
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), self.length)

    def words(self, ids: Iterable[int]) -> str:
        """The text of some ids, without the special tokens."""
        return self._text_to_pieces.decode(list(ids)).replace("</w>", " ").strip()

    def pieces(self, caption: str) -> list[str]:
        """The tokens of a caption as text, without the special ones."""
        return self._text_to_pieces.encode(caption).tokens

    def unknown(self, caption: str) -> dict[str, list[str]]:
        """The words that are no token of their own, each with the pieces it is read as.

        As they are typed: a piece that is a part of a letter only is shown as bytes.
        """
        found, part = {}, []
        for piece in self.pieces(caption):
            part.append(piece)
            if piece.endswith("</w>"):
                if len(part) > 1:
                    found[as_typed("".join(part)).removesuffix("</w>")] = [
                        as_typed(one) for one in part]
                part = []
        return found

    def save(self, folder: Path) -> None:
        """Write vocab.json and merges.txt, the files of transformers' CLIPTokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.vocabulary, ensure_ascii=False, indent=0)
        (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, length: int = 77) -> "Tokenizer":
        """Read what `save`, or CLIPTokenizer, wrote.

        FileNotFoundError where nothing lies, ValueError where it is no list of merges.
        """
        file = Path(folder) / "merges.txt"
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
            pairs = [tuple(line.split(" ")) for line in lines
                     if line.strip() and not line.startswith("#version")]
            if any(len(pair) != 2 for pair in pairs):
                raise ValueError("every line holds two pieces with a space between")
            return cls(pairs, length)
        except OSError:
            raise
        except Exception as error:                        # of the tokenizers library, or of bytes
            raise ValueError(f"{file} is no list of merges: {error}.") from error
