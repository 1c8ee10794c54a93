"""CLIP: zero-shot accuracy, retrieval, and captions with a noun exchanged."""

import numpy as np
import torch
from torch import Tensor

from .. import bpe
from ..clip import CLIP, retrieval, similarity, zero_shot
from ..datasets.negatives import exchanged
from ..images import to_model
from ..metrics import share
from ..world import render, scene, seeds
from ..world.language import captions, named
from ..world.scene import Scene, Thing
from ..world.vocabulary import COLOURS, HELD_OUT, NOVEL, WORDS, article


def category_prompts(word: str) -> list[str]:
    """What may be said of a picture with one thing, its colour left out."""
    return [f"{article(word)}{place}" for place in
            ("", " on the grass by day", " on the sand by day", " on the snow at night")]


def colour_prompts(colour: str) -> list[str]:
    """A colour, said of every category."""
    return [named(Thing(word, colour)) for word in WORDS]


def single_scenes(split: str, count: int, held_out: bool | None = None) -> list[Scene]:
    """Scenes of a single-thing split whose category CLIP has met, of HELD_OUT pairs or not."""
    found = []
    for seed in seeds(split, 20 * count):
        thing = scene(seed).things[0]
        fits = held_out is None or held_out == ((thing.colour, thing.category) in HELD_OUT)
        if thing.category in WORDS and fits:
            found.append(scene(seed))
        if len(found) == count:
            break
    return found


def pictures_of(found: list[Scene], size: int = 128) -> Tensor:
    """The renders of some scenes, (n,3,size,size) in [-1, 1]."""
    return to_model(torch.tensor(np.stack([render(one, size).image for one in found])))


@torch.no_grad()
def named_right(model: CLIP, read: bpe.Tokenizer, found: list[Scene]) -> tuple[Tensor, Tensor]:
    """For scenes with one thing: whether zero-shot names its category and its colour, (n,) each."""
    where = next(model.parameters()).device
    things = [one.things[0] for one in found]

    def tokenize(texts):
        return read(texts).to(where)

    right = []
    for words, prompts, attribute in ((WORDS, category_prompts, "category"),
                                      (tuple(COLOURS), colour_prompts, "colour")):
        classes = [prompts(word) for word in words]
        prediction = torch.cat([zero_shot(model, tokenize, x.to(where), classes).argmax(1).cpu()
                                for x in pictures_of(found, model.vision_model.side).split(128)])
        truth = torch.tensor([words.index(getattr(thing, attribute)) for thing in things])
        right.append(prediction == truth)
    return right[0], right[1]


def different_scenes(count: int, split: str = "test") -> list[Scene]:
    """Scenes of a split whose captions name everything and differ from each other."""
    by_caption = {}
    for seed in seeds(split, 4 * count):
        by_caption.setdefault(captions(scene(seed))[0], scene(seed))
        if len(by_caption) == count:
            break
    return list(by_caption.values())


@torch.no_grad()
def retrieved(model: CLIP, read: bpe.Tokenizer, found: list[Scene]) -> float:
    """Text to image: the part of captions that find their picture among all of them."""
    where = next(model.parameters()).device
    texts = model.encode_text(read([captions(one)[0] for one in found]).to(where))
    return retrieval(similarity(encode_scenes(model, found), texts, model.logit_scale))


def encode_scenes(model: CLIP, found: list[Scene]) -> Tensor:
    """The renders of some scenes in the common space, (n,d)."""
    where = next(model.parameters()).device
    return torch.cat([model.encode_image(x.to(where))
                      for x in pictures_of(found, model.vision_model.side).split(128)])


@torch.no_grad()
def told_apart(model: CLIP, read: bpe.Tokenizer, found: list[Scene]) -> Tensor:
    """Which pictures (n,) are nearer to their own caption than to one with a noun exchanged."""
    where, g = next(model.parameters()).device, torch.Generator().manual_seed(0)
    wrong = [exchanged(one, g) for one in found]
    images = encode_scenes(model, found)
    right, other = (similarity(images, model.encode_text(
        read([captions(one)[0] for one in which]).to(where)), model.logit_scale).diagonal()
        for which in (found, wrong))
    return right > other


def clip_report(model: CLIP, read: bpe.Tokenizer, count: int = 1000) -> dict:
    """Zero-shot accuracy on held-out single things and retrieval among held-out scenes."""
    seen = single_scenes("single-test", count)
    pairs_out = single_scenes("referee-single", max(4, count // 5), held_out=True)
    category, colour = named_right(model, read, seen)
    novel = torch.tensor([one.things[0].category in NOVEL for one in seen])
    pair_category, pair_colour = named_right(model, read, pairs_out)
    split = "test" if model.vision_model.side == 128 else "single-test"
    many = different_scenes(min(500, count), split)
    several = [one for one in many if len(one.things) > 1] or many
    hits = {"category": category, "colour": colour, "category, base": category[~novel],
            "category, novel": category[novel], "category, held-out pairs": pair_category,
            "colour, held-out pairs": pair_colour,
            "noun exchanged": told_apart(model, read, several)}
    report = {"scenes": len(seen), "retrieval": retrieved(model, read, many),
              "retrieved among": len(many)}
    for name, each in hits.items():
        report |= share(name, each, torch.arange(len(each)))
    return report
