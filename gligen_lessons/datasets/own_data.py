"""A COCO folder of anybody's pictures as the recipes read it: at 128 px, with what is known.

The folder may lack captions, or boxes, or masks; `require` says in a sentence what a model misses.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..boxes import area
from ..bpe import Tokenizer
from ..images import SIDE
from ..world import coco_in
from ..world.coco_in import CocoFolder
from ..world.records import Record
from ..world.scene import MAX_THINGS
from .annotated import SMALLEST, Annotated
from .labelled import NOTHING

EVERY = 10                                                # of one split, each tenth is held out
HELD = 1_000                                              # held-out pictures, at most
MOST = 100                                                # boxes of a picture, the largest


@dataclass(frozen=True)
class OwnPictures:
    """N pictures of a folder, (N,128,128,3) uint8, and what its files say of them.

    labels (N,k) and boxes_xyxy (N,k,4), things first, then -1 and zeros; the phrases of those
    things and the captions of each picture; `ignored` holds labels and boxes that nobody has to
    find: crowds, and what is smaller than 4 px of 128.
    """

    images: np.ndarray
    labels: Tensor
    boxes_xyxy: Tensor
    phrases: list[list[str]]
    captions: list[list[str]]
    ignored: list[tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, kept: Sequence[int]) -> "OwnPictures":
        """Some of the pictures, in that order."""
        return OwnPictures(self.images[kept], self.labels[kept], self.boxes_xyxy[kept], *(
            [values[row] for row in kept] for values in (self.phrases, self.captions,
                                                         self.ignored)))

    def annotated(self, count: int | None = None) -> Annotated:
        """The first pictures as a detector meets them."""
        return Annotated(self.images[:count], self.labels[:count], self.boxes_xyxy[:count],
                         self.ignored[:count])

    def with_captions(self) -> "OwnPictures":
        """The pictures that have a caption."""
        return self.rows([row for row, texts in enumerate(self.captions) if texts])


@dataclass(frozen=True)
class OwnData:
    """A folder's pictures to learn from and held-out ones, its categories and its fingerprint."""

    name: str
    categories: list[str]
    train: OwnPictures
    held: OwnPictures
    fingerprint: str

    def require(self, what: str, model: str) -> None:
        """ValueError where the pictures of a part lack the "captions" or "boxes" of a model."""
        for part, some in (("", self.train), ("held-out ", self.held)):
            there = some.captions if what == "captions" else some.phrases
            if not any(there):
                raise ValueError(
                    f"{self.name}: no {part}picture has {what}, from which {model} learns: " + (
                        "add annotations/captions_SPLIT.json." if what == "captions" else
                        "annotations/instances_SPLIT.json needs some with a bbox that is no crowd "
                        f"and at least {SMALLEST:.0%} of its picture wide and high."))


def own_data(folder: str | Path, most: int) -> OwnData:
    """Read a COCO folder: `most` pictures at most to learn from, and held-out ones.

    With a split train... and a split val... those are the two; of a single split each tenth
    picture is held out. Pictures of any size are squeezed to 128 x 128, boxes with them; pictures
    that are listed and missing are left out with a warning. ValueError for other splits and for
    fewer than two pictures, and as `coco_in.read`.
    """
    folder = Path(folder)
    train, held = (replace(part, images=part.images[:limit]) for part, limit
                   in zip(two_parts(folder), (most, HELD), strict=True))
    if not (train and held):
        raise ValueError(f"{folder} has {len(train) + len(held)} pictures that are there: two are "
                         "needed, one to learn from and one that is held out.")
    categories = list(dict.fromkeys(name for part in (train, held) for name in part.categories))
    numbers = {name: i for i, name in enumerate(categories)}
    return OwnData(folder.resolve().name, categories, gathered(train, numbers),
                   gathered(held, numbers), folder_fingerprint(folder, (train, held)))


def two_parts(folder: Path) -> list[CocoFolder]:
    """The pictures to learn from and those that are held out, by split or each tenth."""
    names = coco_in.splits(folder)
    if len(names) < 2:
        every = records(folder, names[0] if names else None)
        last = min(EVERY, len(every)) - 1                 # of the first ten: it is held out
        held = [i % EVERY == last for i in range(len(every))]
        return [replace(every, images=[image for image, out in zip(every.images, held, strict=True)
                                       if out == chosen]) for chosen in (False, True)]
    found = [[name for name in names if name.startswith(word)] for word in ("train", "val")]
    if [len(some) for some in found] != [1, 1]:
        raise ValueError(f"{folder} has the splits {', '.join(names)}: of several, one must be "
                         "called train..., to learn from, and one val..., which is held out.")
    return [records(folder, some[0]) for some in found]


def records(folder: Path, split: str | None) -> CocoFolder:
    """The records of a split that are there, at 128 px and without masks."""
    return coco_in.read(folder, size=SIDE, split=split, masks=False, skip_missing=True)


def gathered(found: Sequence[Record], numbers: dict[str, int]) -> OwnPictures:
    """Records as tensors, categories as their numbers."""
    images = np.zeros((len(found), SIDE, SIDE, 3), np.uint8)
    things, captions = [], []
    for i, one in enumerate(tqdm(found, desc="reading pictures", unit="picture")):
        images[i] = one.image
        things.append(sorted_out(one, numbers))
        captions.append(one.captions)
    labels, boxes, phrases, ignored = zip(*things, strict=True)
    label, box = torch.full((1,), -1), torch.zeros(1, 4)  # in front: so there is a column at least
    return OwnPictures(images, pad_sequence([label, *labels], True, -1)[1:],
                       pad_sequence([box, *boxes], True)[1:], list(phrases), captions,
                       list(ignored))


def sorted_out(one: Record, numbers: dict[str, int]) -> tuple:
    """Labels, boxes and phrases of the things of a record that count, largest first.

    And the labels and boxes of those that do not: crowds, and what is too small or one too many.
    """
    labels = torch.tensor([numbers[word] for word in one.categories], dtype=torch.long)
    boxes = torch.from_numpy(one.boxes_xyxy)
    large = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= SMALLEST
    counts = large & ~torch.from_numpy(one.crowd)
    order = area(boxes).argsort(descending=True, stable=True)
    kept = [i for i in order.tolist() if counts[i]][:MOST]
    rest = [i for i in order.tolist() if i not in kept]
    return labels[kept], boxes[kept], [one.phrases[i] for i in kept], (labels[rest], boxes[rest])


def folder_fingerprint(folder: Path, parts: Sequence[CocoFolder]) -> str:
    """Twelve letters that change with the folder's annotations, or a picture that was read."""
    whole = hashlib.sha256()
    for file in [*sorted((folder / "annotations").glob("*.json")),
                 *(part.pictures / image.data["file_name"] for part in parts
                   for image in part.images)]:
        whole.update(file.name.encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:12]


@dataclass(frozen=True)
class CaptionedLatent:
    """A latent z (4,s,s) with its captions, as `latent_scenes.Example` without what it shows where.

    Nobody has said which position shows what, so there is nothing for helpers to learn from.
    """

    z: Tensor
    captions: list[str]

    @property
    def slots(self) -> Tensor:
        """No position shows a thing, (s,s)."""
        return torch.full(self.z.shape[1:], NOTHING, dtype=torch.short)

    def described(self, kind: int) -> str:
        """One of its captions."""
        return self.captions[kind % len(self.captions)]

    def codes(self) -> Tensor:
        """The same as codes, (s*s,)."""
        return torch.full((self.slots.numel(),), NOTHING)

    def words(self, read: Tokenizer, caption: str, kind: int) -> Tensor:
        """No token names a thing, (6,tokens)."""
        return torch.zeros(MAX_THINGS, read.length, dtype=torch.bool)


def fitting(texts: list[str], read: Tokenizer) -> list[str]:
    """Captions cut behind the last word that a tokenizer has room for."""
    return [_whole_words(text, read) for text in texts]


def _whole_words(text: str, read: Tokenizer) -> str:
    kept, room = [], read.length - 2                      # two special tokens
    for word in text.split():
        room -= len(read.pieces(word))
        if room < 0:
            break
        kept.append(word)
    return " ".join(kept)
