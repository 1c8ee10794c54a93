"""Folders in the published layout read into our classes: GLIGEN, DETR and CLIP of other people.

Weights must fit name by name; what a config says and we do not implement is refused. Nothing is
fetched: a folder is what `from_pretrained` of diffusers or transformers would open.
"""

import pickle
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import clip, detr, resnet
from ..bpe import END, START, Tokenizer
from ..clip import CLIP, TextModel
from ..detr import DETR
from ..gligen import add_gates
from ..latent import TextToImage
from ..state_dicts import built, fill
from ..unet import UNet
from ..vae import VAE
from .configs import (
    CLIPS,
    DETR_REMARKS,
    IMAGENET,
    REMARKS,
    config_of,
    existing,
    known,
    listed,
    read_config,
    read_schedule,
    read_transform,
)
from .preprocess import ClipClassifier, Detector

DETR_SIDE = 800                                           # pixels, where nothing else is said
TIMM = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
POINTER = b"version https://git-lfs"
SPECIALS = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
MORE_TOKENS = ("added_tokens", "added_tokens_decoder", "additional_special_tokens",
               "extra_special_tokens")
FORGOTTEN = ("num_batches_tracked", "position_ids")       # counters, not weights
# names that older releases gave, and what they are called today, in this order
DETR_NAMES = (
    (r"backbone\.conv_encoder\.", "backbone."), (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
    (r"backbone\.model\.conv1\.", "backbone.model.embedder.embedder.convolution."),
    (r"backbone\.model\.bn1\.", "backbone.model.embedder.embedder.normalization."))
TIMM_LAYER = re.compile(r"(backbone\.model)\.layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.")
VAE_NAMES = ((r"\.query\.", ".to_q."), (r"\.key\.", ".to_k."), (r"\.value\.", ".to_v."),
             (r"\.proj_attn\.", ".to_out.0."))
TEXT_KEYS, VISION_KEYS = clip.TEXT | clip.FIXED, clip.VISION | clip.FIXED
TEXT_NAMES = ((r"^text_model\.", ""),)


def read_pipeline(folder: str | Path, device: str | torch.device = "cpu") -> TextToImage:
    """A StableDiffusionGLIGENPipeline of the inpainting kind: gates, nine input channels.

    FileNotFoundError where a part is missing; ValueError, naming folder and file, for weights
    without gates or with four channels, a config that is not implemented, a schedule that
    predicts something else than the noise.
    """
    folder = existing(folder, "diffusers' GLIGEN inpainting pipeline", "unet/config.json")
    told = config_of(folder / "unet")
    channels, kind = told.get("in_channels", 4), told.pop("attention_type", "default")
    if kind != "gated" or channels != 9:
        raise ValueError(f"{folder}/unet/config.json says in_channels={channels}, attention_type="
                         f"{kind!r}: repainting needs 9 channels and gates, a checkpoint of "
                         "GLIGEN for inpainting with text and boxes.")
    latents, words = config_of(folder / "vae"), config_of(folder / "text_encoder")
    words = known(words, TEXT_KEYS, REMARKS, folder / "text_encoder")
    parts = (("unet", (), lambda: add_gates(UNet(**listed(told)))),
             ("vae", VAE_NAMES, lambda: VAE(**listed(latents))),
             ("text_encoder", TEXT_NAMES, lambda: TextModel(**words)))
    schedule = read_schedule(folder / "scheduler")
    unet, vae, text = (network(build, renamed(read_tensors(folder / name), renames),
                               folder / name, device) for name, renames, build in parts)
    return TextToImage(vae, text, unet, tokenizer_for(text, folder / "tokenizer"), schedule)


def read_detector(folder: str | Path, device: str | torch.device = "cpu") -> Detector:
    """A DetrForObjectDetection with a ResNet, as transformers writes it or from timm's names.

    Errors as in `read_pipeline`. Pictures are made square, of the size that the folder's
    preprocessor_config.json calls the shortest edge, 800 pixels without one.
    """
    folder = existing(folder, "transformers' DetrForObjectDetection")
    told = config_of(folder)
    names = told.get("id2label")
    if not isinstance(names, dict) or not names or not all(
            isinstance(names.get(str(n)), str) for n in range(len(names))):
        raise ValueError(f"{folder}/config.json: id2label must name the labels 0, 1, 2 ...")
    if told.get("num_channels", 3) != 3:
        raise ValueError(f"{folder}/config.json: num_channels={told['num_channels']!r} is not "
                         "implemented, only 3.")
    config = known(told, detr.DEFAULTS | detr.FIXED, DETR_REMARKS | {"num_channels"}, folder) | {
        "num_labels": len(names), "backbone_config": backbone(told, folder)}
    for key in ("use_timm_backbone", "backbone", "use_pretrained_backbone"):
        config.pop(key, None)
    model = network(lambda: DETR(**config), detr_names(read_tensors(folder)), folder, device)
    return Detector(model, [names[str(n)] for n in range(len(names))],
                    read_transform(folder, DETR_SIDE, IMAGENET))


def backbone(told: dict, folder: Path) -> dict:
    """The config of our ResNet for transformers' backbone_config, or for one of timm's names."""
    inside = told.get("backbone_config") or {"model_type": "timm_backbone",
                                             "backbone": told.get("backbone")}
    if not isinstance(inside, dict):
        raise ValueError(f"{folder}/config.json: backbone_config is {inside!r}, needs an object.")
    if inside.get("model_type") == "timm_backbone":
        if not isinstance(inside.get("backbone"), str) or inside["backbone"] not in TIMM:
            raise ValueError(f"{folder}/config.json: the backbone {inside.get('backbone')!r} is "
                             f"not implemented, only {' and '.join(TIMM)}.")
        return {"depths": TIMM[inside["backbone"]]}
    return known(inside, resnet.DEFAULTS | resnet.FIXED, DETR_REMARKS, folder)


def detr_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A detector's tensors under today's names, whichever release wrote them."""
    def stage(found: re.Match) -> str:
        start, layer, block, kind, number = found.groups()
        place = f"{start}.encoder.stages.{int(layer) - 1}.layers.{block}."
        if kind == "downsample.":
            return f"{place}shortcut.{('convolution', 'normalization')[int(number)]}."
        what = "convolution" if kind == "conv" else "normalization"
        return f"{place}layer.{int(number) - 1}.{what}."

    return {TIMM_LAYER.sub(stage, name): tensor
            for name, tensor in renamed(tensors, DETR_NAMES).items()}


def read_clip(folder: str | Path, device: str | torch.device = "cpu") -> ClipClassifier:
    """A CLIPModel with its tokenizer. Errors as in `read_pipeline`."""
    folder = existing(folder, "transformers' CLIPModel")
    told = config_of(folder)
    if not {"text_config", "vision_config"} <= told.keys():
        raise ValueError(f"{folder}/config.json has no text_config and vision_config: give a "
                         "CLIPModel, not one of its towers.")
    known(told, {}, REMARKS | {"text_config", "vision_config", "projection_dim"}, folder)
    width = told.get("projection_dim", 512)
    text, vision = (known(told[f"{name}_config"], keys, REMARKS, folder)
                    for name, keys in (("text", TEXT_KEYS), ("vision", VISION_KEYS)))
    model = network(lambda: CLIP(text, vision, width), read_tensors(folder), folder, device)
    transform = read_transform(folder, model.vision_model.side, CLIPS)
    if transform.side != model.vision_model.side:
        raise ValueError(f"{folder}: pictures are made {transform.side} pixels wide, and the "
                         f"network reads {model.vision_model.side}.")
    return ClipClassifier(model, tokenizer_for(model.text_model, folder), transform)


def network(build: Callable[[], nn.Module], tensors: dict[str, Tensor], folder: Path,
            device) -> nn.Module:
    """The network of a folder's config with the folder's tensors; errors name the config."""
    def settled() -> nn.Module:
        try:
            return build()
        except ValueError as error:
            raise ValueError(f"{folder}/config.json: {error}") from error

    model = built(settled, tensors, folder)
    take_over(model, tensors, folder, device)
    return model


def take_over(model: nn.Module, tensors: dict[str, Tensor], folder: Path, device) -> None:
    """Give a network all its tensors, in 32 bits, to be used and not trained."""
    fill(model, {name: x.float() if x.is_floating_point() else x for name, x in tensors.items()},
         folder)
    model.eval().requires_grad_(False).to(device)


def renamed(tensors: dict[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Tensors under the names that some rules, one after the other, make of theirs."""
    made = {}
    for name, tensor in tensors.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        made[name] = tensor
    return made


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, without counters; FileNotFoundError lists where it looked.

    ValueError for a file that is damaged or holds anything but tensors by name.
    """
    names = [f"{stem}{end}" for stem, end in (
        ("model", ".safetensors"), ("diffusion_pytorch_model", ".safetensors"),
        ("pytorch_model", ".bin"), ("diffusion_pytorch_model", ".bin"))]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}.")
    with file.open("rb") as opened:
        if opened.read(len(POINTER)) == POINTER:
            raise ValueError(f"{file} is a Git LFS pointer, not the weights: git lfs pull brings "
                             "them.")
    try:
        found = (load_file(file) if file.suffix == ".safetensors" else
                 torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:               # torch's own advice is to trust it
        raise ValueError(f"{file} cannot be read: it is damaged, or holds more than tensors, and "
                         "what more there is could run. Save model.state_dict().") from error
    except Exception as error:                            # zip, header: all say "broken"
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(x, Tensor) for name, x in found.items()):
        inside = (", ".join(map(repr, list(found)[:5])) if isinstance(found, dict) else
                  f"a {type(found).__name__}")
        raise ValueError(f"{file} holds {inside}, and not tensors alone, each under its name: save "
                         "model.state_dict().")
    return {name: tensor for name, tensor in found.items() if not name.endswith(FORGOTTEN)}


def tokenizer_for(text: TextModel, folder: Path) -> Callable:
    """The tokenizer in a folder, for as many tokens as a text tower reads and knows."""
    return read_tokenizer(folder, text.length, text.embeddings.token_embedding.num_embeddings)


def read_tokenizer(folder: Path, length: int, most: int | None = None) -> Callable:
    """Captions to ids (b,length): our tokenizer where a folder says what ours does.

    Else transformers' own, such as where a folder holds a tokenizer.json alone, added tokens, or
    another padding. ValueError where there are more than `most` tokens.
    """
    if is_ours(folder):
        read = Tokenizer.load(folder, length)
        vocabulary = read.vocabulary
    else:
        read, vocabulary = transformers_tokenizer(folder, length)
    count = max(vocabulary.values(), default=0) + 1
    if most is not None and count > most:
        raise ValueError(f"{folder} knows {count} tokens, and the text tower {most}.")
    return read


def is_ours(folder: Path) -> bool:
    """Whether a folder's tokenizer is byte-pair encoding with the numbers and rules of ours."""
    if not all((folder / name).is_file() for name in ("merges.txt", "vocab.json")):
        return False
    said = {name: read_config(folder / name) for name in (
        "special_tokens_map.json", "tokenizer_config.json", "added_tokens.json", "tokenizer.json")
        if (folder / name).is_file()}
    words = list(said.pop("added_tokens.json", {}))
    for told in said.values():
        words += [_word(told[key]) for key in MORE_TOKENS if told.get(key)]
        if any(_word(told[key]) != word for key, word in SPECIALS.items() if key in told):
            return False
        if not told.get("do_lower_case", True) or told.get("strip_accents"):
            return False
    return not set(words) - {START, END} and \
        Tokenizer.load(folder).vocabulary == read_config(folder / "vocab.json")


def _word(token) -> str:
    """A special token as text, which may be written as an object; of several the first not ours."""
    if isinstance(token, dict) and "content" in token:
        return str(token["content"])
    if isinstance(token, dict | list):
        inside = map(_word, token.values() if isinstance(token, dict) else token)
        return next((word for word in inside if word not in (START, END)), END)
    return str(token)


def transformers_tokenizer(folder: Path, length: int) -> tuple[Callable, dict[str, int]]:
    """transformers' tokenizer of a folder as a function of captions, and its vocabulary."""
    from transformers import CLIPTokenizer

    try:
        theirs = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        vocabulary = theirs.get_vocab()
    except Exception as error:                            # a folder may hold anything
        raise FileNotFoundError(f"{folder} holds no tokenizer: vocab.json and merges.txt, or "
                                f"tokenizer.json ({' '.join(str(error).split())}).") from error
    return lambda texts: theirs(list(texts), padding="max_length", max_length=length,
                                truncation=True, return_tensors="pt").input_ids, vocabulary
