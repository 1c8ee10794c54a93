"""What recipes learn from a COCO folder of anybody's pictures, and what is judged of it.

The tokenizer is the course's own: it reads any words, those that it does not know in pieces.
"""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import device, files, weights
from ..datasets.instructions import Layouts
from ..datasets.labelled import NOTHING
from ..datasets.latent_scenes import kept_latents
from ..datasets.own_data import CaptionedLatent, OwnData, OwnPictures, fitting, own_data
from ..eval.own_data import (
    LEFT_OUT,
    own_clip_report,
    own_detr_report,
    own_gligen_report,
    own_ldm_report,
    own_vae_report,
)
from ..gligen import LIMIT
from ..grounded import generate_grounded
from ..images import sheet
from ..latent import TextToImage, generate
from ..models import MODELS
from . import Recipe, on_device
from .data import TOKENS, Boxed, Examples, Grounded, Pairs, Pictures
from .helpers import bare
from .world_data import QUERIES

LONG = 77                                                 # tokens, as many as the published CLIP's
CAPTIONS = 5                                              # of a picture, at most
WATCHED = 200                                             # held-out pictures of a detector's log
SHEET = 8                                                 # pictures


@dataclass(frozen=True)
class OwnFolder:
    """A folder as a source: pictures of 128 px."""

    data: OwnData
    small: bool = False

    @classmethod
    def read(cls, folder: Path) -> "OwnFolder":
        """Read a COCO folder and say what was left out of it."""
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", UserWarning)
            data = own_data(folder, 80_000 if device.compute_budget() == "full" else 20_000)
        for warning in heard:
            print(f"note: {warning.message}")
        return cls(data)

    @property
    def told(self) -> str:
        """The pictures to learn from, in words."""
        return f"{len(self.data.train)} pictures of {self.data.name} at 128 px"

    def origin(self, name: str) -> dict:
        """What the card says of the folder, of bases that must be there, and of what is unknown."""
        data, bases = self.data, MODELS[name].needs if name == "ldm" else ()
        return {"own data": {
            "folder": data.name, "fingerprint": data.fingerprint, "pictures": len(data.train),
            "held out": len(data.held), "categories": data.categories, "not judged": LEFT_OUT[name],
            "bases": {base: weights.fingerprint(base) for base in bases}}}

    def pictures(self, steps: int, batch: int) -> Pictures:
        """All pictures; pieces of them lie around boxes where there are some."""
        train = self.data.train
        return Pictures(told=self.told, images=train.images, boxes_xyxy=train.boxes_xyxy,
                        report=partial(own_vae_report, held=self.data.held))

    def pairs(self, steps: int, batch: int) -> Pairs:
        """Pictures with one of their captions; what patches show nobody has said."""
        train, held = self.captioned("clip")
        read = weights.tokenizer(LONG)
        every = [text for some in (train, held) for texts in some.captions for text in texts]
        tokens = TOKENS if max(len(read.pieces(text)) for text in every) + 2 <= TOKENS else LONG
        train, held = (shortened(some, tokens) for some in (train, held))

        def choose(count: int, g: torch.Generator) -> tuple[Tensor, list[str], list[str]]:
            rows = torch.randint(len(train), (count,), generator=g)
            luck = torch.rand(count, generator=g).tolist()
            texts = [train.captions[row] for row in rows.tolist()]
            return rows, [some[int(x * len(some))] for some, x in zip(texts, luck, strict=True)], []

        return Pairs(told=f"{len(train)} pictures with captions of {self.data.name} at 128 px",
                     images=on_device(train.images), codes=torch.full((len(train), 64), NOTHING),
                     choose=choose, report=partial(own_clip_report, held=held), tokens=tokens,
                     help=0.)

    def examples(self, steps: int, batch: int) -> Examples:
        """Latents of whole pictures, each with one of its first five captions."""
        train, held = (shortened(some, None) for some in self.captioned("ldm"))
        z, z_held = (kept_latents(some.images, f"own-captioned-{part}", self.data.fingerprint)
                     for part, some in (("train", train), ("held", held)))
        told = [texts[0] for texts in held.captions]

        def choose(step: int, g: torch.Generator) -> list[CaptionedLatent]:
            rows = torch.randint(len(z), (batch,), generator=g).tolist()
            return [CaptionedLatent(z[row], train.captions[row]) for row in rows]

        def report(parts: TextToImage, count: int, steps: int) -> dict:
            return own_ldm_report(parts, z_held[:count], told[:count])

        def sample(parts: TextToImage, steps: int, count: int) -> dict:
            x = generate(parts, (told * SHEET)[:SHEET], steps=steps)
            return {"png": sheet(x)} | report(parts, count, steps)

        return Examples(told=f"latents of {len(z)} pictures with captions of {self.data.name}",
                        side=z.shape[-1], choose=choose, sample=sample, report=report, help=0.)

    def boxed(self, steps: int, batch: int) -> Boxed:
        """All pictures with their boxes; as many queries as the fullest picture has boxes.

        Other pictures than the world's ask for other features: the backbone learns as fast as the
        rest.
        """
        data = self.data
        data.require("boxes", "detr")
        most = max(some.labels.shape[1] for some in (data.train, data.held))
        return Boxed(told=self.told, train=data.train.annotated(), val=data.held.annotated(WATCHED),
                     classes=len(data.categories), queries=max(QUERIES, most),
                     report=partial(own_detr_report, held=data.held, categories=data.categories),
                     backbone=1.)

    def grounded(self, parts: TextToImage, steps: int, batch: int) -> Grounded:
        """Latents with boxes, phrases and, where there are some, captions."""
        data = self.data
        data.require("boxes", "gligen")
        phrases = list(dict.fromkeys([*data.categories, *(
            phrase for some in (data.train, data.held) for one in some.phrases for phrase in one)]))
        train, held = (self.layouts(some, part, phrases) for part, some in
                       (("train", data.train), ("held", data.held)))

        def report(parts: TextToImage, count: int, steps: int) -> dict:
            few = replace(held, **{name: getattr(held, name)[:count] for name in
                                   ("z", "full", "boxes_xyxy")})
            return own_gligen_report(parts, few, phrases)

        return Grounded(told=f"latents of {len(train.z)} pictures of {data.name}", layouts=train,
                        phrases=phrases, report=report,
                        sample=partial(own_grounded_sample, data.held))

    def layouts(self, some: OwnPictures, part: str, phrases: list[str]) -> Layouts:
        """Pictures as what gates learn from, phrases as their numbers."""
        rows = {phrase: i for i, phrase in enumerate(phrases)}
        z = kept_latents(some.images, f"own-{part}", self.data.fingerprint)
        read = weights.tokenizer()
        names = torch.tensor([rows[name] for name in self.data.categories] + [-1])
        boxes = some.boxes_xyxy[:, :LIMIT]
        full = torch.full(boxes.shape[:2], -1)
        for i, said in enumerate(some.phrases):
            for k, phrase in enumerate(said[:LIMIT]):
                full[i, k] = rows[phrase]
        count = min(CAPTIONS, max(1, *map(len, some.captions)))
        texts = [text for texts in some.captions for text in ((texts or [""]) * count)[:count]]
        ids = read(fitting(texts, read)).view(len(z), count, -1).short()
        return Layouts(z.to(device.pick()), ids, names[some.labels[:, :LIMIT]], full, boxes,
                       tuple(range(count)))

    def captioned(self, name: str) -> tuple[OwnPictures, OwnPictures]:
        """The pictures that have captions, to learn from and held out; ValueError without any."""
        self.data.require("captions", name)
        return self.data.train.with_captions(), self.data.held.with_captions()


def shortened(some: OwnPictures, tokens: int | None) -> OwnPictures:
    """The pictures with captions no longer than so many tokens, or what the CLIP in use reads."""
    read = weights.tokenizer(tokens)
    return replace(some, captions=[fitting(texts, read) for texts in some.captions])


def own_grounded_sample(held: OwnPictures, parts: TextToImage, steps: int) -> dict:
    """For the log: a sheet of held-out layouts, painted."""
    with_boxes = [row for row, said in enumerate(held.phrases) if said]
    few = held.rows((with_boxes * SHEET)[:SHEET])
    texts = fitting([(some or [""])[0] for some in few.captions], parts.tokenizer)
    boxes = [places[:len(said)][:LIMIT] for places, said in
             zip(few.boxes_xyxy, few.phrases, strict=True)]
    return {"png": sheet(generate_grounded(
        parts, texts, [said[:LIMIT] for said in few.phrases], boxes, steps=steps))}


def start_from(recipe: Recipe, file: Path) -> dict:
    """Give a recipe's model the tensors of a file that fit; say which ones begin anew.

    ValueError where none fits: those are weights of another model.
    """
    model, there = bare(recipe.model), files.load(file)
    own, names = model.state_dict(), recipe.kept(model)
    given = {name: taken for name in names if name in there and (
        taken := taken_over(name, there[name], own[name])) is not None}
    if not given:
        raise ValueError(f"--init {file}: not one of its {len(there)} tensors fits {recipe.name}; "
                         "name weights of the same kind.")
    model.load_state_dict(given, strict=False)
    anew = [name for name in names if name not in given] + [
        f"{name} from row {len(there[name])}" for name in given
        if len(own[name].shape) and len(there[name]) < len(own[name])]
    print(f"Begins with {len(given)} of {len(names)} tensors from {file}" + (
        f"; anew, as they do not fit: {', '.join(anew)}" if anew else ""))
    return {"weights": file.name, "fingerprint": weights.fingerprint_of(file), "anew": anew}


def taken_over(name: str, there: Tensor, own: Tensor) -> Tensor | None:
    """A tensor of a file for a model's: the same shape, or the rows of a table that both have.

    A row of an embedding means the same in a longer one: a position, a query. None: does not fit.
    """
    if there.shape == own.shape:
        return there
    table = name.endswith(("embedding.weight", "embeddings.weight"))
    if not table or there.shape[1:] != own.shape[1:]:
        return None
    rows = min(len(there), len(own))
    return torch.cat([there[:rows], own[rows:].to(there)])
