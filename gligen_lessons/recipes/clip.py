"""Training lesson 4's CLIP on pictures and their captions, and the tokenizer it reads with."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import bpe, device
from ..clip import CLIP, clamp_scale, clip_loss, initialise, retrieval, similarity, zero_shot
from ..ddpm import to_model
from ..fit import step_generator
from ..weights import TOKENS, tokenizer
from ..world import render, scene, seeds
from ..world.language import captions, named
from ..world.scene import Scene, Thing
from ..world.vocabulary import BASE, COLOURS, HELD_OUT, NOVEL, article
from . import Recipe, on_device, scenes

WIDTH = 256
WORDS = BASE + NOVEL                                      # the categories that CLIP has met


def tower(layers: int, heads: int = 4) -> dict:
    """The keys that both towers share."""
    return {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": layers,
            "num_attention_heads": heads, "projection_dim": WIDTH}


def config(read: bpe.Tokenizer) -> dict:
    """The config of the course's CLIP, for a tokenizer's vocabulary."""
    text = tower(4) | {"vocab_size": len(read.vocabulary), "max_position_embeddings": TOKENS,
                       "bos_token_id": read.start, "eos_token_id": read.end,
                       "pad_token_id": read.end}
    vision = tower(5) | {"image_size": 128, "patch_size": 16}
    return {"text_config": text, "vision_config": vision, "projection_dim": WIDTH}


def learnt_tokenizer(count: int = 5_000) -> bpe.Tokenizer:
    """The tokenizer that the course ships in data/tokenizer: from captions of `count` scenes."""
    texts = (text for seed in seeds("train", count) for text in captions(scene(seed)))
    return bpe.Tokenizer(bpe.learn_merges(texts), TOKENS)


@dataclass(frozen=True)
class Pairs:
    """Pictures (n,128,128,3) uint8 and the ids (n,5,TOKENS) of their five captions."""

    images: Tensor
    ids: Tensor


def pairs(steps: int, batch: int, read: bpe.Tokenizer) -> Pairs:
    """Scenes with several things and, a third of all, with one."""
    drawn = [scenes("train", steps, batch), scenes("single-train", steps, batch // 2)]
    texts = [text for d in drawn for seed in d.seeds for text in captions(scene(seed))]
    images = torch.cat([on_device(d.images) for d in drawn])
    return Pairs(images, read(texts).view(len(images), -1, read.length))


def clip(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The course's CLIP: pictures against captions, one of its five for each picture."""
    full = device.dial() == "full"
    steps, batch = steps or (4_000 if full else 2_000), batch or (1024 if full else 64)
    read = tokenizer()
    data, made = pairs(steps, batch, read), config(read)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        g = step_generator(5, step)
        rows = torch.randint(len(data.ids), (batch,), generator=g)
        which = torch.randint(data.ids.shape[1], (batch,), generator=g)
        ids = data.ids[rows, which]
        longest = int((ids == read.end).int().argmax(1).max()) + 1      # the rest is read by none
        return ids[:, :longest], data.images[rows.to(data.images.device)]

    def loss(model, ids, images):
        clamp_scale(model)
        return clip_loss(model(ids, to_model(images)))

    def report(model) -> dict:
        return clip_report(model, read, min(1000, 16 + steps))

    model = initialise(CLIP(**made), torch.Generator().manual_seed(5))
    return Recipe("clip", model, made, f"{len(data.ids)} scenes of train and single-train at "
                  "128 px", draw, loss, steps, 8e-4, report,
                  options={"ema": .998, "weight_decay": .05, "betas": (.9, .98)})


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


def pictures_of(found: list[Scene]) -> Tensor:
    """The renders of some scenes, (n,3,128,128) in [-1, 1]."""
    return to_model(torch.tensor(np.stack([render(one).image for one in found])))


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
        guess = torch.cat([zero_shot(model, tokenize, x.to(where), classes).argmax(1).cpu()
                           for x in pictures_of(found).split(128)])
        truth = torch.tensor([words.index(getattr(thing, attribute)) for thing in things])
        right.append(guess == truth)
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
    images = torch.cat([model.encode_image(x.to(where)) for x in pictures_of(found).split(128)])
    texts = model.encode_text(read([captions(one)[0] for one in found]).to(where))
    return retrieval(similarity(images, texts, model.logit_scale))


def clip_report(model: CLIP, read: bpe.Tokenizer, count: int = 1000) -> dict:
    """Zero-shot accuracy on held-out single things and retrieval among held-out scenes."""
    seen = single_scenes("single-test", count)
    pairs_out = single_scenes("referee-single", max(4, count // 5), held_out=True)
    category, colour = named_right(model, read, seen)
    novel = torch.tensor([one.things[0].category in NOVEL for one in seen])
    pair_category, pair_colour = named_right(model, read, pairs_out)

    def rate(hits):
        return float(hits.float().mean()) if len(hits) else None

    many = different_scenes(min(500, count))
    return {"category": rate(category), "colour": rate(colour),
            "category, base": rate(category[~novel]), "category, novel": rate(category[novel]),
            "category, held-out pairs": rate(pair_category),
            "colour, held-out pairs": rate(pair_colour), "scenes": len(seen),
            "retrieval": retrieved(model, read, many), "retrieved among": len(many)}
