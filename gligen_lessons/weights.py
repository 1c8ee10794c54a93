"""The weights that the course ships: load them by name, export them for other libraries."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from . import files
from .bpe import Tokenizer
from .interop import export_diffusers
from .latent import TextToImage
from .models import MODELS
from .reading import is_whole
from .schedule import Schedule
from .state_dicts import built, fill
from .unet import UNet

FOLDER = Path(__file__).resolve().parent.parent / "data" / "weights"
OWN = "GLIGEN_LESSONS_WEIGHTS"                   # a folder whose weights go before the shipped


def names(exported: bool = False) -> list[str]:
    """Every model that the course ships, or those that diffusers has a pipeline for."""
    return [name for name, model in MODELS.items() if model.exported or not exported]


def path(name: str, folder: Path | None = None) -> Path:
    """Where a model's weights lie: in `folder`, else in that of GLIGEN_LESSONS_WEIGHTS if they
    are there, else among the shipped ones. ValueError for a name that the course does not know.
    """
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}; the course ships {', '.join(names())}.")
    file = f"{name}.safetensors"
    own = Path(os.environ.get(OWN) or FOLDER) / file
    return Path(folder) / file if folder else own if own.exists() else FOLDER / file


def load(name: str, device: str | torch.device = "cpu", folder: Path | None = None) -> nn.Module:
    """The shipped model in eval mode, built from the config on its card.

    A missing, truncated or altered file raises an error that names it and the command that makes
    it; so does a card whose config does not fit the weights.
    """
    file = path(name, folder)
    tensors, config = files.load(file, f"python course.py train {name}"), files.card(file)["config"]
    check_bases(name, file, folder)
    if MODELS[name].base:
        model = added(name, tensors, config, file)
    else:
        model = fill(built(lambda: MODELS[name].build(**config), tensors, file), tensors, file)
    return model.eval().requires_grad_(False).to(device)


def added(name: str, tensors: dict[str, Tensor], config: dict, file: Path) -> nn.Module:
    """The shipped model that `name` stands on, with what its file adds.

    ValueError where that model is not the one it was trained on.
    """
    row = MODELS[name]
    if config.get("_on") != fingerprint(row.base):
        raise ValueError(f"{file} was trained on other weights of {row.base!r} than those in "
                         f"{FOLDER}: run python course.py train {name} again.")
    base = files.card(path(row.base))["config"]
    for key in sorted(config.keys() - {"_on"}):
        if key not in base or config[key] != base[key]:
            raise ValueError(f"{file.with_suffix('.json')}: {key} is {config[key]!r}, and of "
                             f"{row.base!r}, on which it stands, {base.get(key)!r}.")
    model = row.build(load(row.base))
    new = set(row.added(model))
    kept = {key: value for key, value in model.state_dict().items() if key not in new}
    return fill(model, kept | tensors, file)


def fingerprint(name: str) -> str:
    """Twelve letters that change when the shipped weights of a model change."""
    return fingerprint_of(path(name))


def fingerprint_of(file: Path) -> str:
    """Twelve letters that change when a file of weights changes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


@contextmanager
def before_shipped(folder: Path | None) -> Iterator[None]:
    """Within this context the weights in a folder go before the shipped; None changes nothing."""
    before = os.environ.get(OWN)
    if folder:
        os.environ[OWN] = str(Path(folder).resolve())
    try:
        yield
    finally:
        os.environ.pop(OWN, None)
        if before is not None:
            os.environ[OWN] = before


def check_bases(name: str, file: Path, folder: Path | None) -> None:
    """ValueError where weights that learnt from somebody's own data meet others than they know.

    Latent diffusion knows the latents of one autoencoder and the words of one CLIP.
    """
    own = files.card(file).get("own data")
    known = own.get("bases") if isinstance(own, dict) else None
    for base in MODELS[name].needs if name == "ldm" else ():
        beside = path(base, folder)
        beside = beside if beside.exists() else path(base)
        wanted = known.get(base) if isinstance(known, dict) else None
        if wanted is None and "own data" not in files.card(beside):
            continue
        if wanted != fingerprint_of(beside):
            raise ValueError(f"{file} has not learnt on the {base} in {beside}: put together "
                             f"weights that were trained together, or train {name} again.")


def tokenizer(length: int | None = None) -> Tokenizer:
    """The course's tokenizer, for `length` tokens, or as many as the course's CLIP reads."""
    if length is None:
        told = files.card(path("clip"))["config"].get("text_config")
        length = told.get("max_position_embeddings") if isinstance(told, dict) else None
        if not is_whole(length, 3, 4096):
            raise ValueError(f"The card of {path('clip')} says {length!r} of how many tokens a "
                             "caption has (max_position_embeddings).")
    return Tokenizer.load(FOLDER.parent / "tokenizer", length)


def text_to_image(device: str | torch.device = "cpu", unet: UNet | None = None,
                  folder: Path | None = None) -> TextToImage:
    """The shipped parts that paint captions, around the shipped U-Net "ldm" or another."""
    clip = load("clip", device, folder)
    unet = load("ldm", device, folder) if unet is None else unet.to(device)
    return TextToImage(load("vae", device, folder), clip.text_model, unet,
                       tokenizer(clip.text_model.length),
                       Schedule.scaled_linear())


def log(name: str, folder: Path | None = None) -> list[dict]:
    """The shipped log of a model's training: one dict a line, milestones with their samples."""
    file = path(name, folder).with_suffix(".jsonl")
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; python course.py train {name} writes it.")
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}); python course.py train {name} writes it "
                         "again.") from error


def export(name: str, folder: str | Path) -> Path:
    """Write a model as a folder that diffusers opens offline.

    "ldm" as StableDiffusionPipeline, the grounded ones as StableDiffusionGLIGENPipeline.
    ValueError for a model that is no pipeline of diffusers, FileExistsError where the folder
    exists and is not empty. The folder appears when it is whole.
    """
    if path(name).stem not in names(exported=True):
        raise ValueError(f"{name!r} is no pipeline of diffusers; {', '.join(names(exported=True))} "
                         f"can be exported. Nothing was written to {folder}.")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty: name a new folder for the "
                              "export. Nothing was changed.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as part:
        export_diffusers.write_pipeline(text_to_image(unet=load(name)), Path(part) / "whole")
        if folder.exists():
            folder.rmdir()
        (Path(part) / "whole").rename(folder)
    return folder
