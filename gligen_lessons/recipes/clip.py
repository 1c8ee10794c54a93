"""Training lesson 4's CLIP on pictures and their captions, and the tokenizer it reads with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .. import bpe, device
from ..clip import CLIP, clamp_scale, hard_negative_loss, initialise, similarity
from ..datasets.labelled import cell_codes, with_labels
from ..datasets.negatives import exchanged
from ..eval.image_text import clip_report
from ..fit import step_generator
from ..images import to_model
from ..muon import groups
from ..weights import tokenizer
from ..world import scene, seeds
from ..world.language import captions
from ..world.scene import Scene
from . import Recipe, on_device, scenes
from .helpers import CellHead, Helped, cell_loss, help_at, outputs_of

WIDTH = 256
TOKENS = 40                                               # of a caption, the special ones too
KINDS = (.25, .15, 1., .1, .15)                           # how often each of five captions is drawn
WRONG = 2                                                 # wrong captions for each right one
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


@dataclass(frozen=True)
class Pairs:
    """Scenes with several things, if any, and after these `many` those with one.

    Pictures (n,s,s,3) uint8 and what their 8 x 8 patches show, (n,64).
    """

    scenes: list[Scene]
    images: Tensor
    codes: Tensor
    many: int

    def rows(self, count: int, g: torch.Generator) -> Tensor:
        """Rows of a batch: half of them with one thing, the others with several."""
        several = count // 2 if self.many else 0
        return torch.cat([
            torch.randint(max(1, self.many), (several,), generator=g),
            torch.randint(self.many, len(self.scenes), (count - several,), generator=g)])


def pairs(steps: int, batch: int, small: bool = False) -> Pairs:
    """As many scenes with one thing as with several, from the splits that CLIP may see.

    With `small` only those with one, at 64 px.
    """
    drawn = [scenes(split, steps, batch, size=64 if small else 128)
             for split in ("train", "single-train")[small:]]
    found = [scene(seed) for d in drawn for seed in d.seeds]
    codes = [cell_codes(with_labels(d), torch.arange(len(d.seeds)), 8) for d in drawn]
    return Pairs(found, torch.cat([on_device(d.images) for d in drawn]), torch.cat(codes),
                 0 if small else len(drawn[0].seeds))


def clip(steps: int | None = None, batch: int | None = None, small: bool = False) -> Recipe:
    """The course's CLIP: pictures against captions, and against captions that are nearly right.

    In small batches ground, light and colours tell nearly all pictures apart, and nothing would
    make words for things worth learning. So most captions leave the place out, and each comes
    with some in which one noun is exchanged (NegCLIP, Yuksekgonul et al. 2023, arXiv
    2210.01936). A head on the patches names what they show, and is thrown away. With `small` all
    pictures show one thing, at 64 px.
    """
    full = device.compute_budget() == "full"
    steps, batch = steps or (1_200 if small else 4_000 if full else 3_600), batch or (
        1024 if full else 48)
    read = tokenizer(TOKENS)
    data, made = pairs(steps, batch, small), config(read, 64 if small else 128)

    def report(model) -> dict:
        return clip_report(model, read, min(1000, 16 + steps))

    model = initialise(CLIP(**made), torch.Generator().manual_seed(5))
    told = "" if small else "train and "
    return Recipe(
        name="clip", model=Helped(model, CellHead(WIDTH)), config=made,
        data=f"{len(data.scenes)} scenes of {told}single-train at {data.images.shape[1]} px",
        sample_batch=pair_sampler(data, read, steps, batch), loss=contrast_loss, steps=steps,
        lr=RATE,
        report=report,
        options={"ema": .998, "optimizer": "muon", "groups": partial(
            groups, lr=RATE, keep=("patch_embedding", "head.names"), adjust="match_rms_adamw")},
        helpers=f"{WRONG} captions with an exchanged noun beside each right one; a head on the "
        f"patches that names category and colour, weight {HELP}, off after 75 %")


def pair_sampler(data: Pairs, read: bpe.Tokenizer, steps: int, batch: int) -> Callable:
    """The function that draws a step's batch: captions, wrong ones, pictures, what patches show."""
    kinds = torch.tensor(KINDS)

    def sample_batch(step: int) -> tuple[Tensor, ...]:
        g = step_generator(5, step)
        rows = data.rows(batch, g)
        which = torch.multinomial(kinds, batch, True, generator=g).tolist()
        right = [data.scenes[row] for row in rows.tolist()]
        wrong = [exchanged(one, g) for one in right for _ in range(WRONG)]
        ids = read([captions(one)[k] for one, k in zip(right, which, strict=True)])
        off = read([captions(one)[which[i // WRONG]] for i, one in enumerate(wrong)])
        longest = int((torch.cat([ids, off]) == read.end).int().argmax(1).max()) + 1
        return (ids[:, :longest], off[:, :longest].view(batch, WRONG, -1), data.images[
            rows.to(data.images.device)], data.codes[rows],
            torch.full((batch,), help_at(step, steps)))

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


