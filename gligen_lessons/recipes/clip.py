"""Training lesson 4's CLIP on pictures and their captions, and the tokenizer it reads with."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .. import bpe, device
from ..clip import CLIP, clamp_scale, hard_negative_loss, initialise, similarity
from ..fit import step_generator
from ..images import to_model
from ..muon import groups
from ..weights import tokenizer
from ..world import scene, seeds
from ..world.language import captions
from . import Recipe
from .data import TOKENS, Pairs, Source
from .helpers import CellHead, Helped, cell_loss, help_at, outputs_of
from .world_data import WORLD, WRONG

WIDTH = 256
HELP = .5                                                 # weight of the head that names places
RATE = 5e-3                                               # Muon's


def tower(layers: int, heads: int = 4) -> dict:
    """The keys that both towers share."""
    return {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": layers,
            "num_attention_heads": heads, "projection_dim": WIDTH}


def config(read: bpe.Tokenizer, size: int = 128) -> dict:
    """The config of the course's CLIP, for a tokenizer's vocabulary and pictures of `size` px."""
    text = tower(4) | {"vocab_size": len(read.vocabulary), "max_position_embeddings": read.length,
                       "bos_token_id": read.start, "eos_token_id": read.end,
                       "pad_token_id": read.end}
    vision = tower(5) | {"image_size": size, "patch_size": size // 8}
    return {"text_config": text, "vision_config": vision, "projection_dim": WIDTH}


def learnt_tokenizer(count: int = 5_000) -> bpe.Tokenizer:
    """The tokenizer that the course ships in data/tokenizer: from captions of `count` scenes."""
    texts = (text for seed in seeds("train", count) for text in captions(scene(seed)))
    return bpe.Tokenizer(bpe.learn_merges(texts), TOKENS)


def clip(steps: int | None = None, batch: int | None = None, source: Source = WORLD) -> Recipe:
    """The course's CLIP: pictures against captions, and against captions that are nearly right.

    In small batches ground, light and colours tell nearly all pictures apart, and nothing would
    make words for things worth learning. So most captions leave the place out, and each comes
    with some in which one noun is exchanged for another (the loss of NegCLIP, Yuksekgonul et al.
    2023, arXiv 2210.01936, whose own exchange words within a caption). A head on the patches names
    what they show, and is thrown away. Pictures that come without such hints are learnt by the
    paper's loss alone.
    """
    full = device.compute_budget() == "full"
    steps, batch = steps or (1_200 if source.small else 4_000 if full else 3_600), batch or (
        1024 if full else 48)
    data = source.pairs(steps, batch)
    read = tokenizer(data.tokens)
    made = config(read, data.images.shape[1])

    def report(model) -> dict:
        return data.report(model, read, min(1000, 16 + steps))

    model = initialise(CLIP(**made), torch.Generator().manual_seed(5))
    return Recipe(
        name="clip", model=Helped(model, CellHead(WIDTH)), config=made,
        data=data.told,
        sample_batch=pair_sampler(data, read, steps, batch), loss=contrast_loss, steps=steps,
        lr=RATE,
        report=report,
        options={"ema": .998, "optimizer": "muon", "groups": partial(
            groups, lr=RATE, keep=("patch_embedding", "head.names"), adjust="match_rms_adamw")},
        helpers=f"{WRONG} captions with an exchanged noun beside each right one; a head on the "
        f"patches that names category and colour, weight {HELP}, off after 75 %" if data.help
        else "none")


def pair_sampler(data: Pairs, read: bpe.Tokenizer, steps: int, batch: int) -> Callable:
    """The function that draws a step's batch: captions, wrong ones, pictures, what patches show."""
    def sample_batch(step: int) -> tuple[Tensor, ...]:
        g = step_generator(5, step)
        rows, right, wrong = data.choose(batch, g)
        ids = read(right + wrong)                                           # (b+b*w,n)
        longest = int((ids == read.end).int().argmax(1).max()) + 1
        ids, off = ids[:batch, :longest], ids[batch:, :longest]
        return (ids, off.reshape(batch, len(wrong) // batch, longest), data.images[
            rows.to(data.images.device)], data.codes[rows],
            torch.full((batch,), data.help * help_at(step, steps)))

    return sample_batch


def contrast_loss(helped: Helped, ids: Tensor, wrong: Tensor, images: Tensor, codes: Tensor,
                  help_weight: Tensor) -> Tensor:
    """CLIP's loss with captions (b,n), more wrong ones (b,w,n), and what the patches show.

    Pictures choose among all captions, captions among all pictures. Where two pictures of a
    batch have the same caption, neither counts against the other.
    """
    model, b = helped.model, len(ids)
    clamp_scale(model)
    with outputs_of(model.vision_model.encoder) as states:
        pictures = model.encode_image(to_model(images))                     # (b,d)
    texts = model.encode_text(torch.cat([ids, wrong.flatten(0, 1)]))        # (b+b*w,d)
    logits = similarity(pictures, texts, model.logit_scale).float()         # (b,b+b*w)
    same = (ids[:, None] == ids).all(-1) & ~torch.eye(b, dtype=torch.bool, device=ids.device)
    among = logits[:, :b].masked_fill(same, -torch.inf)
    loss = hard_negative_loss(torch.cat([among, logits[:, b:]], 1))
    if not bool(help_weight.any()):
        return loss
    return loss + HELP * (help_weight * cell_loss(helped.head, states[0][:, 1:], codes)).mean()


