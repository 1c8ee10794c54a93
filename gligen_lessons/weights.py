"""The weights that the course ships: load them by name, export them for other libraries."""

import json
from pathlib import Path

import torch
from torch import nn

from . import files
from .bpe import Tokenizer
from .clip import CLIP
from .referee import CropReferee, SceneReferee
from .unet import UNet
from .vae import VAE

FOLDER = Path(__file__).resolve().parent.parent / "data" / "weights"
BUILDERS = {"ddpm": UNet, "vae": VAE, "clip": CLIP,
            "referee-crop": CropReferee, "referee-scene": SceneReferee}


def path(name: str, folder: Path | None = None) -> Path:
    """Where a model's weights lie; raises ValueError for a name that the course does not know."""
    if name not in BUILDERS:
        raise ValueError(f"There is no model {name!r}; the course ships {', '.join(BUILDERS)}.")
    return (folder or FOLDER) / f"{name}.safetensors"


def load(name: str, device: str | torch.device = "cpu", folder: Path | None = None) -> nn.Module:
    """The shipped model in eval mode, built from the config on its card.

    A missing, truncated or altered file raises an error that names it and the command that makes
    it; so does a card whose config does not fit the weights.
    """
    file = path(name, folder)
    tensors = files.load(file, f"python course.py train {name}")
    model = BUILDERS[name](**files.card(file)["config"])
    model.load_state_dict(tensors, strict=True)
    return model.eval().requires_grad_(False).to(device)


def tokenizer() -> Tokenizer:
    """The course's tokenizer, as long as the shipped CLIP reads."""
    return Tokenizer.load(FOLDER.parent / "tokenizer", length=64)


def log(name: str, folder: Path | None = None) -> list[dict]:
    """The shipped log of a model's training: one dict a line, milestones with their samples."""
    file = path(name, folder).with_suffix(".jsonl")
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; python course.py train {name} writes it.")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def export(name: str, folder: Path) -> Path:
    """Write a model as a folder that diffusers opens.

    None of the models shipped so far is a diffusers pipeline, so every name raises ValueError;
    the latent diffusion model of lesson 6 is the first.
    """
    raise ValueError(f"{path(name).stem!r} is no pipeline of diffusers: lesson 6's latent "
                     f"diffusion is the first to be exported. Nothing was written to {folder}.")
