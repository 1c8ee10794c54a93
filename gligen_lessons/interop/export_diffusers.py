"""The published layout: our parts as the folder that diffusers' pipelines are opened from."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from ..bpe import END, START, Tokenizer
from ..latent import STEPS_OFFSET, TextToImage
from ..schedule import Schedule

PIPELINE = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.40.0",
    "requires_safety_checker": False, "safety_checker": [None, None],
    "feature_extractor": [None, None], "image_encoder": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"], "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}


def write_pipeline(parts: TextToImage, folder: Path) -> None:
    """Write every part of a text-to-image model into a new folder, in 32 bits.

    A U-Net with gates makes it a StableDiffusionGLIGENPipeline.
    """
    gated, index = parts.unet.position_net is not None, dict(PIPELINE)
    if gated:
        index["_class_name"] = "StableDiffusionGLIGENPipeline"
        del index["image_encoder"]                         # a part that this one does not have
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler(parts.schedule))
    for name, model, published in (("unet", parts.unet, "UNet2DConditionModel"),
                                   ("vae", parts.vae, "AutoencoderKL")):
        extra = {"attention_type": "gated"} if gated and model is parts.unet else {}
        write_json(folder / name / "config.json",
                   {"_class_name": published} | model.config | extra)
        write_tensors(model, folder / name / "diffusion_pytorch_model.safetensors")
    about = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
    write_json(folder / "text_encoder" / "config.json", about | parts.text.config)
    write_tensors(parts.text, folder / "text_encoder" / "model.safetensors", "text_model.")
    write_tokenizer(parts.tokenizer, folder / "tokenizer")


def scheduler(schedule: Schedule) -> dict:
    """The config of a DDIMScheduler that samples as `latent.sample_latents` does."""
    return {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear",
            "beta_start": round(float(schedule.betas[0]), 12),
            "beta_end": round(float(schedule.betas[-1]), 12),
            "num_train_timesteps": schedule.T, "clip_sample": False, "set_alpha_to_one": False,
            "steps_offset": STEPS_OFFSET, "prediction_type": "epsilon",
            "timestep_spacing": "leading"}


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer as CLIPTokenizer reads it."""
    tokenizer.save(folder)
    specials = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", specials)
    write_json(folder / "tokenizer_config.json", specials | {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.length})


def write_tensors(model: nn.Module, file: Path, prefix: str = "") -> None:
    """A model's tensors under the names that they were published with."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {prefix + name: tensor.cpu().contiguous()
               for name, tensor in model.state_dict().items()}
    save_file(tensors, file, {"format": "pt"})


def write_json(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
