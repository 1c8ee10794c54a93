"""What published folders say in JSON: configs, processors, schedulers, key by key.

A key is read, or is a remark that no network needs, or is refused by name.
"""

from pathlib import Path

import torch

from ..reading import is_number, is_whole, json_object
from ..schedule import Schedule
from .preprocess import ImageTransform

IMAGENET = {"image_mean": [.485, .456, .406], "image_std": [.229, .224, .225]}
CLIPS = {"image_mean": [.48145466, .4578275, .40821073],
         "image_std": [.26862954, .26130258, .27577711]}
SIDES = 4096                                              # pixels, at most, of what a network sees
# what transformers notes beside: how text was generated, how losses were weighed, who wrote it when
NOTES = """_name_or_path add_cross_attention architectures bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label initializer_factor initializer_range is_decoder
    is_encoder_decoder label2id length_penalty logit_scale_init_value max_length min_length
    model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature text_config_dict tf_legacy_loss tie_encoder_decoder
    tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    typical_p use_bfloat16 use_cache vision_config_dict"""
OF_DETR = """backbone_config backbone_kwargs bbox_cost bbox_loss_coefficient
    class_cost classifier_dropout decoder_layerdrop dice_loss_coefficient encoder_layerdrop
    eos_coefficient giou_cost giou_loss_coefficient init_std init_xavier_std mask_loss_coefficient
    max_position_embeddings num_hidden_layers out_features out_indices scale_embedding
    stage_names"""
REMARKS = set(NOTES.split())
DETR_REMARKS = REMARKS | set(OF_DETR.split())
# a processor's keys: those that are read, the only values of others, and how it resizes, which is
# ours: every picture is made square
PIXELS = {"image_mean", "image_std", "size", "crop_size", "do_center_crop", "do_normalize"}
PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_convert_rgb": True}
OF_SIZES = """annotation_format data_format default_to_square device disable_grouping
    do_convert_annotations do_pad do_reduce_labels feature_extractor_type format
    image_processor_type input_data_format max_size pad_size processor_class resample
    return_tensors _processor_class"""
RESIZING = set(OF_SIZES.split())
# a scheduler's keys that make betas, and the only values of those that change sampling
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": .02,
         "beta_schedule": "linear", "trained_betas": None}
WALK = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False, "clip_sample": False,
        "thresholding": False, "set_alpha_to_one": False, "steps_offset": 1, "skip_prk_steps": True,
        "timestep_spacing": "leading", "variance_type": "fixed_small"}
UNUSED = {"clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"}


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
    return json_object(file)


def config_of(folder: Path) -> dict:
    """What a folder's config.json says."""
    return read_config(folder / "config.json")


def known(told: dict, keys: dict, remarks: set[str], folder: Path) -> dict:
    """What a config says of `keys`; a key that is neither one nor a remark is refused by name."""
    if not isinstance(told, dict):
        raise ValueError(f"{folder}/config.json: {told!r} stands where a network's config should.")
    for key, value in told.items():
        if key not in keys and key not in remarks and value not in (None, {}):
            raise ValueError(f"{folder}/config.json: {key}={value!r} is not understood.")
    return {key: value for key, value in told.items() if key in keys}


def listed(told: dict) -> dict:
    """A config of diffusers with its lists as the tuples that our networks take."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}


def read_transform(folder: Path, side: int, usual: dict) -> ImageTransform:
    """What a folder's processor says of mean, standard deviation and size; else the usual.

    Today's transformers writes it into processor_config.json, older ones into
    preprocessor_config.json. ValueError names a key or a value that is not understood.
    """
    file, said = processor_of(folder)
    for key, value in said.items():
        if key not in PIXELS | PLAIN.keys() | RESIZING:
            raise ValueError(f"{file}: {key!r} is no key that is understood.")
        plain = PLAIN.get(key)
        if plain is not None and value is not None and not (
                is_number(value) and abs(value - plain) < 1e-6 or value is plain):
            raise ValueError(f"{file}: {key}={value!r} is not implemented, only {plain!r}.")
    size = said.get("crop_size") if said.get("do_center_crop") else None
    size = size or said.get("size") or side
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    mean, std = (said.get(key) or usual[key] for key in ("image_mean", "image_std"))
    if said.get("do_normalize") is False:
        mean, std = [0.] * 3, [1.] * 3
    numbers = isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3 and \
        all(is_number(x) and abs(x) < 1e3 for x in [*mean, *std]) and min(std) > 1e-3
    if not numbers or not is_whole(size, 1, SIDES):
        raise ValueError(f"{file}: size {size!r}, image_mean {mean!r} and image_std {std!r} must "
                         f"be a number of pixels up to {SIDES} and three numbers each.")
    return ImageTransform(size, tuple(map(float, mean)), tuple(map(float, std)))


def processor_of(folder: Path) -> tuple[Path, dict]:
    """The file that says how pictures are prepared, and what it says; nothing without one."""
    today, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    said = json_object(today).get("image_processor") if today.exists() else None
    if said is not None:
        if not isinstance(said, dict):
            raise ValueError(f"{today}: image_processor is {said!r}, needs an object.")
        return today, said
    return older, json_object(older) if older.exists() else {}


def read_schedule(folder: Path) -> Schedule:
    """The betas that a scheduler's config says, where it samples as we do.

    Steps of DDIM at equal distances, from step 1, as Stable Diffusion takes them. ValueError names
    a key or value that says otherwise.
    """
    file = folder / "scheduler_config.json"
    told = read_config(file)
    for key, value in told.items():
        if key not in BETAS.keys() | WALK.keys() | UNUSED and not key.startswith("_"):
            raise ValueError(f"{file}: {key!r} is no key that is understood.")
        if key in WALK and value != WALK[key]:
            raise ValueError(f"{file}: {key}={value!r} is not implemented, only {WALK[key]!r}.")
    T, first, last, kind, betas = (told.get(key, usual) for key, usual in BETAS.items())
    makers = {"linear": Schedule.linear, "scaled_linear": Schedule.scaled_linear}
    if not isinstance(kind, str) or kind not in makers:
        raise ValueError(f"{file}: beta_schedule={kind!r} is not implemented, only "
                         f"{' and '.join(makers)}.")
    numbers = [first, last] if betas is None else betas
    if not is_whole(T, 2, 10 ** 5) or not isinstance(numbers, list) or not numbers or not all(
            is_number(beta) and 0 < beta < 1 for beta in numbers) or len(numbers) > 10 ** 5:
        raise ValueError(f"{file}: num_train_timesteps must be a whole number, and betas lie "
                         "between 0 and 1.")
    return makers[kind](T, first, last) if betas is None else Schedule(torch.tensor(
        betas, dtype=torch.float64))
