"""Folders in the published layout read into our classes: GLIGEN, DETR and CLIP of other people.

Weights must fit name by name; what a config says and we do not implement is refused. Nothing is
fetched: a folder is what `from_pretrained` of diffusers or transformers would open.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import clip, detr, resnet
from ..bpe import Tokenizer
from ..clip import CLIP, TextModel
from ..detr import DETR
from ..files import fill
from ..gligen import add_gates
from ..latent import TextToImage
from ..schedule import Schedule
from ..unet import UNet
from ..vae import VAE
from .preprocess import ClipClassifier, Detector, ImageTransform

IMAGENET = {"image_mean": [.485, .456, .406], "image_std": [.229, .224, .225]}
CLIPS = {"image_mean": [.48145466, .4578275, .40821073],
         "image_std": [.26862954, .26130258, .27577711]}
DETR_SIDE = 800                                           # pixels, where nothing else is said
TIMM = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
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
    unet = settled(lambda: add_gates(UNet(**listed(told))), folder / "unet")
    vae = settled(lambda: VAE(**listed(config_of(folder / "vae"))), folder / "vae")
    text = settled(lambda: TextModel(**known(config_of(folder / "text_encoder"), TEXT_KEYS)),
                   folder / "text_encoder")
    parts = ((unet, "unet", ()), (vae, "vae", VAE_NAMES), (text, "text_encoder", TEXT_NAMES))
    for model, name, renames in parts:
        take_over(model, renamed(read_tensors(folder / name), renames), folder / name, device)
    return TextToImage(vae, text, unet, read_tokenizer(folder / "tokenizer", text.length),
                       read_schedule(folder / "scheduler"))


def read_detector(folder: str | Path, device: str | torch.device = "cpu") -> Detector:
    """A DetrForObjectDetection with a ResNet, as transformers writes it or from timm's names.

    Errors as in `read_pipeline`. Pictures are made square, of the size that the folder's
    preprocessor_config.json calls the shortest edge, 800 pixels without one.
    """
    folder = existing(folder, "transformers' DetrForObjectDetection")
    told = config_of(folder)
    names = {int(number): name for number, name in told.get("id2label", {}).items()}
    if sorted(names) != list(range(len(names))) or not names:
        raise ValueError(f"{folder}/config.json: id2label must name the labels 0, 1, 2 ...")
    config = known(told, detr.DEFAULTS | detr.FIXED) | {
        "num_labels": len(names), "backbone_config": backbone(told, folder)}
    for key in ("use_timm_backbone", "backbone", "use_pretrained_backbone"):
        config.pop(key, None)
    model = settled(lambda: DETR(**config), folder)
    take_over(model, detr_names(read_tensors(folder)), folder, device)
    return Detector(model, [names[n] for n in range(len(names))],
                    read_transform(folder, DETR_SIDE, IMAGENET))


def backbone(told: dict, folder: Path) -> dict:
    """The config of our ResNet for transformers' backbone_config, or for one of timm's names."""
    inside = told.get("backbone_config") or {"model_type": "timm_backbone",
                                             "backbone": told.get("backbone")}
    if inside.get("model_type") == "timm_backbone":
        if inside.get("backbone") not in TIMM:
            raise ValueError(f"{folder}/config.json: the backbone {inside.get('backbone')!r} is "
                             f"not implemented, only {' and '.join(TIMM)}.")
        return {"depths": TIMM[inside["backbone"]]}
    return known(inside, resnet.DEFAULTS | resnet.FIXED)


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
    width = told.get("projection_dim", 512)
    text, vision = (known(told[f"{name}_config"], keys)
                    for name, keys in (("text", TEXT_KEYS), ("vision", VISION_KEYS)))
    model = settled(lambda: CLIP(text, vision, width), folder)
    take_over(model, read_tensors(folder), folder, device)
    return ClipClassifier(model, read_tokenizer(folder, model.text_model.length),
                 read_transform(folder, model.vision_model.side, CLIPS))


def read_transform(folder: Path, side: int, usual: dict) -> ImageTransform:
    """What preprocessor_config.json says of mean, spread and size; else the usual."""
    file = folder / "preprocessor_config.json"
    said = usual | (read_config(file) if file.exists() else {})
    size = said.get("size", side)
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height", side))
    return ImageTransform(int(size), tuple(said["image_mean"]), tuple(said["image_std"]))


def existing(folder: str | Path, what: str, inside: str = "config.json") -> Path:
    """A folder that holds a config; FileNotFoundError says what should lie there."""
    folder = Path(folder)
    if not (folder / inside).is_file():
        raise FileNotFoundError(f"{folder} holds no {inside}; give a folder of {what}, as its "
                                "save_pretrained writes it.")
    return folder


def read_config(file: Path) -> dict:
    """A JSON object; errors name the file."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as JSON ({error}).") from error


def config_of(folder: Path) -> dict:
    """What a folder's config.json says."""
    return read_config(folder / "config.json")


def known(told: dict, keys: dict) -> dict:
    """What a config says of `keys`; transformers' configs say much that no network needs."""
    return {key: value for key, value in told.items() if key in keys}


def listed(told: dict) -> dict:
    """A config of diffusers with its lists as the tuples that our networks take."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}


def settled(build: Callable, folder: Path):
    """A network built from a folder's config; ValueError names the file."""
    try:
        return build()
    except ValueError as error:
        raise ValueError(f"{folder}/config.json: {error}") from error


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
    """The weights in a folder, without counters; FileNotFoundError lists where it looked."""
    names = [f"{stem}{end}" for stem, end in (
        ("model", ".safetensors"), ("diffusion_pytorch_model", ".safetensors"),
        ("pytorch_model", ".bin"), ("diffusion_pytorch_model", ".bin"))]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}.")
    try:
        tensors = (load_file(file) if file.suffix == ".safetensors" else
                   torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:                            # zip, pickle, header: all say "broken"
        raise ValueError(f"{file} cannot be read: {error}") from error
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(FORGOTTEN)}


def read_tokenizer(folder: Path, length: int) -> Callable:
    """Captions to ids (b,length): our tokenizer where its numbers are those of vocab.json.

    Else transformers' own, such as where a folder holds a tokenizer.json alone.
    """
    if (folder / "merges.txt").is_file() and (folder / "vocab.json").is_file():
        ours = Tokenizer.load(folder, length)
        if ours.vocabulary == read_config(folder / "vocab.json"):
            return ours
    from transformers import CLIPTokenizer

    try:
        theirs = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise FileNotFoundError(f"{folder} holds no tokenizer: vocab.json and merges.txt, or "
                                f"tokenizer.json ({error}).") from error
    return lambda texts: theirs(list(texts), padding="max_length", max_length=length,
                                truncation=True, return_tensors="pt").input_ids


def read_schedule(folder: Path) -> Schedule:
    """The betas that a scheduler's config says; our sampler takes its own steps."""
    file = folder / "scheduler_config.json"
    told = read_config(file)
    kind, said = told.get("beta_schedule", "linear"), told.get("prediction_type", "epsilon")
    makers = {"linear": Schedule.linear, "scaled_linear": Schedule.scaled_linear}
    if kind not in makers or said != "epsilon":
        raise ValueError(f"{file}: beta_schedule {kind!r} with prediction_type {said!r} is not "
                         "implemented, only linear or scaled_linear with epsilon.")
    return makers[kind](told.get("num_train_timesteps", 1000), told.get("beta_start", 1e-4),
                        told.get("beta_end", .02))
