"""Folders that diffusers and transformers wrote, in our classes: every name, the same numbers."""

import argparse
import json
import re
import shutil

import pytest
import torch
from oracles import draw, relative_error
from safetensors.torch import load_file, save_file
from test_detr import small, theirs_of
from test_gligen import inputs, theirs_says, unet_keys

from gligen_lessons import weights
from gligen_lessons.bpe import Tokenizer
from gligen_lessons.detr import DETR
from gligen_lessons.gligen import gate_names
from gligen_lessons.interop import configs, export_diffusers, import_pretrained
from gligen_lessons.recipes.clip import config as clip_config
from gligen_lessons.world.vocabulary import CATEGORIES, COLOURS

SIDE = 16                                                 # of the small pipeline's latents
WIDTH = 24
UNET = unet_keys(in_channels=9, sample_size=SIDE)
VAE = dict(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=128,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
TEXT = dict(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            projection_dim=WIDTH)


def text_keys() -> dict:
    return clip_config(weights.tokenizer())["text_config"] | TEXT


def write_pipeline(folder, **unet) -> None:
    """A GLIGEN pipeline with drawn weights and gates at 1, saved by diffusers itself."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionGLIGENPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    export_diffusers.write_tokenizer(weights.tokenizer(), folder.with_name("words"))
    net = UNet2DConditionModel(**(UNET | {"attention_type": "gated"} | unet))
    parts = net, AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**text_keys()))
    for model in parts:
        draw(model)
    for name, value in net.named_parameters():
        if "alpha_" in name:
            value.data.fill_(1.)
    StableDiffusionGLIGENPipeline(
        parts[1], parts[2], CLIPTokenizer.from_pretrained(folder.with_name("words")), net,
        DDIMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear",
                      clip_sample=False, set_alpha_to_one=False, steps_offset=1), None, None,
        requires_safety_checker=False).save_pretrained(folder)


def write_detector(folder, names=CATEGORIES, side: int = 64) -> None:
    """A small DETR with drawn weights and the words of its labels, saved by transformers."""
    from transformers import DetrImageProcessor

    theirs = theirs_of(small(num_labels=len(names)))
    draw(theirs)
    theirs.class_labels_classifier.weight.data.mul_(6)    # sure enough to name something
    theirs.config.id2label = dict(enumerate(names))
    theirs.save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": side, "longest_edge": 1333}).save_pretrained(folder)


def write_clip(folder) -> None:
    """A small CLIP with drawn weights and the course's tokenizer, saved by transformers."""
    from transformers import CLIPConfig, CLIPModel

    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                  image_size=32, patch_size=16)
    theirs = CLIPModel(CLIPConfig(text_config=text_keys(), vision_config=vision,
                                  projection_dim=WIDTH))
    draw(theirs)
    theirs.save_pretrained(folder)
    export_diffusers.write_tokenizer(weights.tokenizer(), folder)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One folder each of pipeline, detector and CLIP, in the published layout."""
    home = tmp_path_factory.mktemp("published")
    for name, write in (("pipeline", write_pipeline), ("detector", write_detector),
                        ("clip", write_clip)):
        write(home / name)
    return home


@pytest.fixture
def copied(folders, tmp_path):
    """The same, to be changed."""
    shutil.copytree(folders, tmp_path / "copy")
    return tmp_path / "copy"


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@torch.no_grad()
def test_the_inpainting_network_says_what_diffusers_says(folders):
    from diffusers import UNet2DConditionModel

    theirs = UNet2DConditionModel.from_pretrained(folders / "pipeline", subfolder="unet")
    ours = import_pretrained.read_pipeline(folders / "pipeline").unet
    xt, t, context, grounding = inputs(UNET)
    want = theirs_says(theirs, xt, t, context, grounding)
    found = ours(xt, t, context, grounding)
    assert relative_error(found, want) < 1e-5
    assert relative_error(ours(xt, t, context), want) > 1e-2          # the gates are wide open
    assert not ours.training and not any(p.requires_grad for p in ours.parameters())
    assert len(gate_names(ours)) == sum("fuser" in n or "position_net" in n
                                        for n in theirs.state_dict())


@torch.no_grad()
def test_the_other_parts_of_the_pipeline_are_those_of_diffusers(folders):
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    parts, home = import_pretrained.read_pipeline(folders / "pipeline"), folders / "pipeline"
    vae = AutoencoderKL.from_pretrained(home, subfolder="vae")
    x, z = picture(1, 3, 64, 64), picture(1, 4, 8, 8)
    mean, _ = parts.vae.encode(x)
    assert relative_error(mean, vae.encode(x).latent_dist.mean) < 1e-5
    assert relative_error(parts.vae.decode(z), vae.decode(z).sample) < 1e-5
    text = CLIPTextModel.from_pretrained(home / "text_encoder")
    ids = parts.tokenizer(["a red car", "a striped house on the snow"])
    assert torch.equal(ids, weights.tokenizer()(["a red car", "a striped house on the snow"]))
    assert relative_error(parts.text(ids), text(ids).last_hidden_state) < 1e-5
    assert parts.schedule.T == 1000 and float(parts.schedule.betas[-1]) == pytest.approx(.012)


def rewrite(file, change) -> None:
    save_file({new: x for name, x in load_file(file).items() if (new := change(name))}, file)


def test_old_names_of_text_tower_and_autoencoder(folders, copied):
    """The published ones have a prefix, a buffer of places, and attention under other words."""
    new = import_pretrained.read_pipeline(folders / "pipeline")
    text, vae = copied / "pipeline" / "text_encoder", copied / "pipeline" / "vae"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    rewrite(vae / "diffusion_pytorch_model.safetensors", lambda name: re.sub(
        r"\.(to_q|to_k|to_v|to_out\.0)\.", lambda m: f".{older[m[1]]}.", name))
    tensors = load_file(text / "model.safetensors")
    tensors = {f"text_model.{name}": x for name, x in tensors.items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(64)[None]
    (text / "model.safetensors").unlink()
    torch.save(tensors, text / "pytorch_model.bin")
    old = import_pretrained.read_pipeline(copied / "pipeline")
    for part in ("text", "vae"):
        a, b = (getattr(parts, part).state_dict() for parts in (new, old))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_tokenizer_with_the_published_numbers_is_read_by_ours(folders, tmp_path):
    export_diffusers.write_tokenizer(weights.tokenizer(), tmp_path)
    ours = import_pretrained.read_tokenizer(tmp_path, 64)
    assert isinstance(ours, Tokenizer) and ours.length == 64
    alone = import_pretrained.read_tokenizer(folders / "pipeline" / "tokenizer", 64)  # its json
    assert not isinstance(alone, Tokenizer)
    texts = ["a red car on the snow at night", "", "zebra " * 80]
    with pytest.warns(UserWarning, match="it is cut"):
        want = ours(texts)
    assert torch.equal(alone(texts), want)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    swapped = vocabulary | {"!</w>": vocabulary["?</w>"], "?</w>": vocabulary["!</w>"]}
    (tmp_path / "vocab.json").write_text(json.dumps(swapped), "utf-8")
    other = import_pretrained.read_tokenizer(tmp_path, 64)       # numbers not ours: theirs
    assert other(["!"])[0, 1] != ours(["!"])[0, 1]


ADDED = {
    "an added token": lambda d: (d / "added_tokens.json").write_text(json.dumps({"<toy>": 678})),
    "another padding": lambda d: [edit(d / name, pad_token="!") for name in (
        "special_tokens_map.json", "tokenizer_config.json")],
    "a special one": lambda d: edit(d / "special_tokens_map.json",
                                    additional_special_tokens=["snow"]),
    "padding as an object": lambda d: edit(d / "tokenizer_config.json", pad_token={
        "content": "!", "__type": "AddedToken", "lstrip": False, "normalized": True,
        "rstrip": False, "single_word": False}),
}


@pytest.mark.parametrize("what", ADDED)
def test_a_tokenizer_with_more_than_ours_is_transformers_own(tmp_path, what):
    from transformers import CLIPTokenizer

    export_diffusers.write_tokenizer(weights.tokenizer(), tmp_path)
    assert isinstance(import_pretrained.read_tokenizer(tmp_path, 12), Tokenizer)
    ADDED[what](tmp_path)
    texts = ["a <toy> on the snow", "a red car!"]
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    want = theirs(texts, padding="max_length", max_length=12, return_tensors="pt").input_ids
    assert torch.equal(import_pretrained.read_tokenizer(tmp_path, 12)(texts), want)
    if what == "an added token":
        with pytest.raises(ValueError, match="knows 679 tokens, and the text tower 678"):
            import_pretrained.read_tokenizer(tmp_path, 12, 678)


@pytest.mark.parametrize("harm", ["two of three", "no pair", "bytes", "unknown pieces"])
def test_a_broken_list_of_merges_is_named(tmp_path, harm):
    export_diffusers.write_tokenizer(weights.tokenizer(), tmp_path)
    file = tmp_path / "merges.txt"
    file.write_bytes({"two of three": b"a b c\n", "no pair": b"ab\n", "bytes": b"\xff\xfe a\n",
                      "unknown pieces": b"qqq zzz\n"}[harm])
    with pytest.raises(ValueError, match="merges.txt"):
        Tokenizer.load(tmp_path)


@torch.no_grad()
def test_what_todays_transformers_says_of_pictures_is_read(folders, copied):
    """It writes one processor_config.json; a crop decides the size, if there is one."""
    said = {"image_mean": [.1, .2, .3], "image_std": [.4, .5, .6], "do_normalize": True,
            "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32},
            "do_center_crop": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_resize": True, "do_convert_rgb": True, "image_processor_type": "CLIPImageProcessor"}
    (copied / "clip" / "processor_config.json").write_text(json.dumps(
        {"image_processor": said, "processor_class": "CLIPProcessor"}))
    transform = import_pretrained.read_clip(copied / "clip").transform
    assert transform.side == 32 and transform.mean == (.1, .2, .3) and transform.std == (.4, .5, .6)
    (copied / "clip" / "processor_config.json").write_text(json.dumps(
        {"image_processor": said | {"do_normalize": False}}))
    assert import_pretrained.read_clip(copied / "clip").transform.std == (1, 1, 1)


def test_trained_betas_are_the_schedule(copied):
    file = copied / "pipeline" / "scheduler" / "scheduler_config.json"
    edit(file, trained_betas=[.1, .2, .3])
    assert configs.read_schedule(file.parent).betas.tolist() == [.1, .2, .3]


@torch.no_grad()
def test_the_detector_says_what_transformers_says(folders):
    from transformers import DetrForObjectDetection, DetrImageProcessor

    theirs = DetrForObjectDetection.from_pretrained(folders / "detector").eval()
    ours = import_pretrained.read_detector(folders / "detector")
    assert ours.names == list(CATEGORIES) and ours.transform.side == 64
    x = (picture(2, 3, 64, 64) * 127.5 + 127.5).round().byte()
    pixels = DetrImageProcessor.from_pretrained(folders / "detector")(
        [one for one in x], return_tensors="pt").pixel_values
    want, (logits, boxes) = theirs(pixels), ours.model(ours.transform(x.float() / 127.5 - 1))
    assert relative_error(logits, want.logits) < 1e-4
    assert relative_error(boxes, want.pred_boxes) < 1e-4
    found = ours(x.float() / 127.5 - 1)
    kept = DetrImageProcessor().post_process_object_detection(want, threshold=1 / 1.1)
    assert sum(len(one["labels"]) for one in kept) > 2
    for (names, boxes), one in zip(found, kept, strict=True):
        order = one["scores"].argsort(descending=True)
        assert names == [CATEGORIES[i] for i in one["labels"][order]]
        assert torch.allclose(boxes, one["boxes"][order].clamp(0, 1), atol=1e-4)


def timm_name(name: str) -> str:
    """A tensor of transformers' ResNet as timm's resnet50 calls it."""
    name = name.replace("model.backbone.model.", "model.backbone.conv_encoder.model.")
    for new, old in (("embedder.embedder.convolution", "conv1"),
                     ("embedder.embedder.normalization", "bn1"),
                     ("shortcut.convolution", "downsample.0"),
                     ("shortcut.normalization", "downsample.1")):
        name = name.replace(new, old)
    for stage in range(4):
        name = name.replace(f"encoder.stages.{stage}.layers.", f"layer{stage + 1}.")
    for k in range(3):
        name = name.replace(f"layer.{k}.convolution", f"conv{k + 1}")
        name = name.replace(f"layer.{k}.normalization", f"bn{k + 1}")
    return name


def test_a_detector_whose_backbone_bears_timms_names(copied):
    """As the checkpoint of the paper does: resnet50, old attention names, counters."""
    keys = small(num_labels=18, backbone_config={})
    model, folder = DETR(**keys), copied / "detector"
    tensors = {timm_name(n).replace("o_proj", "out_proj").replace("mlp.fc", "fc"): x.contiguous()
               for n, x in model.state_dict().items()}
    assert "model.backbone.conv_encoder.model.layer4.2.bn3.running_var" in tensors
    assert "model.backbone.conv_encoder.model.layer1.0.downsample.1.bias" in tensors
    tensors["model.backbone.conv_encoder.model.bn1.num_batches_tracked"] = torch.tensor(7)
    save_file(tensors, folder / "model.safetensors")
    told = json.loads((folder / "config.json").read_text()) | {
        "use_timm_backbone": True, "backbone": "resnet50", "backbone_config": None}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "preprocessor_config.json").unlink()
    ours = import_pretrained.read_detector(folder)
    assert ours.transform.side == 800 and ours.transform.mean == (.485, .456, .406)
    want = model.state_dict()
    assert all(torch.equal(x, want[name]) for name, x in ours.model.state_dict().items())


@torch.no_grad()
def test_clip_and_its_colours_are_those_of_transformers(folders):
    from transformers import CLIPModel

    theirs = CLIPModel.from_pretrained(folders / "clip").eval()
    ours = import_pretrained.read_clip(folders / "clip")
    x = picture(3, 3, 32, 32)
    prompts = [[f"a {colour} {word}" for colour in COLOURS] for word in ("car", "cat", "tree")]
    prompts[0] = prompts[0][::-1]                         # each picture has an order of its own
    ids = ours.tokenizer([text for some in prompts for text in some])
    logits = theirs(input_ids=ids, pixel_values=ours.transform(x)).logits_per_image.view(3, 3, 10)
    want = [int(logits[i, i].argmax()) for i in range(3)]
    assert want != [int(logits[i, 2 - i].argmax()) for i in range(3)]
    assert ours.best(x, prompts) == want
    assert float(ours.transform(torch.zeros(1, 3, 32, 32))[0, 0, 0, 0]) == pytest.approx(
        (.5 - .48145466) / .26862954, abs=1e-5)


def edit(file, **changes) -> None:
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in told.items() if value != "gone"}))


def plain(home):
    export_diffusers.write_pipeline(weights.text_to_image(), home / "other")
    (home / "pipeline").rename(home / "old")
    (home / "other").rename(home / "pipeline")


def truncated(home):
    file = home / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def scheduler(**changes):
    return lambda home: edit(home / "pipeline/scheduler/scheduler_config.json", **changes)


def config(part, **changes):
    return lambda home: edit(home / part / "config.json", **changes)


def processor(**changes):
    return lambda home: edit(home / "detector/preprocessor_config.json", **changes)


def saved(what):
    """The detector's weights as a .bin that holds `what`."""
    def harm(home):
        (home / "detector/model.safetensors").unlink()
        torch.save(what, home / "detector/pytorch_model.bin")
    return harm


def pointer(home):
    (home / "pipeline/vae/diffusion_pytorch_model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def not_finite(home):
    file = home / "pipeline/vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"][0] = float("nan")
    save_file(tensors, file)


def whole_numbers(home):
    file = home / "clip/model.safetensors"
    tensors = load_file(file)
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"].int()
    save_file(tensors, file)


KINDS = {                                                 # each names the file and the key
    "zero SNR": (scheduler(rescale_betas_zero_snr=True), "rescale_betas_zero_snr=True is not impl"),
    "clipped latents": (scheduler(clip_sample=True), "clip_sample=True is not implemented, only"),
    "other distances": (scheduler(timestep_spacing="trailing"), "timestep_spacing='trailing'"),
    "another first step": (scheduler(steps_offset=0), "steps_offset=0 is not implemented, only 1"),
    "an unknown key": (scheduler(flow_shift=3.), "'flow_shift' is no key that is understood"),
    "a beta of words": (scheduler(beta_end="much"), "betas lie between 0 and 1"),
    "betas of nothing": (scheduler(trained_betas=[0.]), "betas lie between 0 and 1"),
    "a million steps": (scheduler(num_train_timesteps=10 ** 9), "num_train_timesteps must be"),
    "a schedule in a list": (scheduler(beta_schedule=["linear"]), "beta_schedule=['linear']"),
    "a text config of words": (config("pipeline/text_encoder", hidden_size="big"),
                               "hidden_size='big' is no value for CLIPTextConfig"),
    "a width of giants": (config("pipeline/vae", block_out_channels=[2 ** 20] * 4),
                          "does not fit the model's config"),
    "layers without end": (config("pipeline/text_encoder", num_hidden_layers=10 ** 9),
                           "num_hidden_layers=1000000000 is no value"),
    "no heads": (config("pipeline/text_encoder", num_attention_heads=0),
                 "num_attention_heads=0 is"),
    "null": (config("pipeline/vae", layers_per_block=None),
             "layers_per_block=None is no value for"),
    "a tower's unknown key": (config("pipeline/text_encoder", rope_theta=1e4),
                              "rope_theta=10000.0"),
    "LFS": (pointer, "pipeline/vae/diffusion_pytorch_model.safetensors is a Git LFS pointer"),
    "NaN": (not_finite, "decoder.conv_in.bias holds NaN or infinity"),
    "a detector's key": (config("detector", two_stage=True), "two_stage=True is not understood"),
    "five channels": (config("detector", num_channels=5), "num_channels=5 is not implemented"),
    "labels in a list": (config("detector", id2label=["car"]), "id2label must name the labels"),
    "backbone of words": (config("detector", backbone_config="resnet"), "backbone_config is 'res"),
    "another scale": (processor(rescale_factor=1.), "rescale_factor=1.0 is not implemented, only"),
    "a processor's key": (processor(do_flip=True), "'do_flip' is no key that is understood"),
    "a mean of words": (processor(image_mean="grey"), "image_mean 'grey'"),
    "a mean of two": (processor(image_mean=[.5, .5]), "must be a number of pixels up to 4096 and"),
    "no spread": (processor(image_std=[.5, .5, 0.]), "image_std [0.5, 0.5, 0.0]"),
    "a size of giants": (processor(size={"shortest_edge": 10 ** 9}), "size 1000000000"),
    "more than a state dict": (saved({"model": {"x": torch.zeros(2)}, "epoch": 3}),
                               "pytorch_model.bin holds 'model', 'epoch', and not tensors alone"),
    "a list": (saved([1]), "pytorch_model.bin holds a list, and not tensors alone"),
    "code": (saved({"weight": argparse.Namespace()}), "holds more than tensors, and what more"),
    "a tower of another size": (config("clip", projection_dim=7), "does not fit the model's conf"),
    "whole numbers": (whole_numbers, "visual_projection.weight holds torch.int32, the model"),
    "a vision key": (lambda home: edit(home / "clip/config.json", vision_config={
        "hidden_size": 16, "num_registers": 4}), "num_registers=4 is not understood"),
    "text for a config": (config("clip", text_config="small"), "'small' stands where a network's"),
    "pictures too large": (lambda home: (home / "clip/processor_config.json").write_text(json.dumps(
        {"image_processor": {"size": {"shortest_edge": 224}}})), "made 224 pixels wide, and the"),
    "nested without end": (lambda home: (home / "clip/config.json").write_text("[" * 10 ** 5),
                           "clip/config.json cannot be read as JSON (its lists are nested too"),
}
PARTS = dict(zip(KINDS, ["pipeline"] * 17 + ["detector"] * 13 + ["clip"] * 6, strict=True))
FAULTS = {name: (PARTS[name], *KINDS[name]) for name in KINDS} | {
    "no folder": ("pipeline", lambda home: shutil.rmtree(home / "pipeline"),
                  "pipeline holds no unet/config.json; give a folder of diffusers' GLIGEN"),
    "an ungrounded model": ("pipeline", plain,
                            "in_channels=4, attention_type='default': repainting "
                            "needs 9 channels and gates"),
    "four channels": ("pipeline", lambda home: edit(home / "pipeline/unet/config.json",
                                                   in_channels=4), "in_channels=4"),
    "another activation": ("pipeline", lambda home: edit(home / "pipeline/unet/config.json",
                                                        act_fn="gelu"),
                           "unet/config.json: act_fn='gelu' is not implemented"),
    "a tensor too few": ("pipeline", lambda home: rewrite(
        home / "pipeline/unet/diffusion_pytorch_model.safetensors",
        lambda name: "" if name.endswith("alpha_dense") else name), "alpha_dense is none"),
    "a tensor too many": ("pipeline", lambda home: rewrite(
        home / "pipeline/text_encoder/model.safetensors", lambda name: name.replace(
            "final_layer_norm.bias", "final_layer_norm.bias_")), "pipeline/text_encoder does not"),
    "half a file": ("pipeline", truncated, "diffusion_pytorch_model.safetensors cannot be read"),
    "no weights": ("pipeline",
                   lambda home: (home / "pipeline/vae/diffusion_pytorch_model.safetensors"
                                            ).unlink(), "pipeline/vae holds none of model.safe"),
    "predicts v": ("pipeline",
                   lambda home: edit(home / "pipeline/scheduler/scheduler_config.json",
                                                prediction_type="v_prediction"), "v_prediction"),
    "no words": ("pipeline", lambda home: shutil.rmtree(home / "pipeline/tokenizer"),
                 "pipeline/tokenizer holds no tokenizer"),
    "no JSON": ("detector", lambda home: (home / "detector/config.json").write_text("{"),
                "detector/config.json cannot be read as JSON"),
    "no labels": ("detector", lambda home: edit(home / "detector/config.json", id2label="gone"),
                  "id2label must name"),
    "another backbone": ("detector", lambda home: edit(home / "detector/config.json",
                                                       backbone="swin", backbone_config=None),
                         "the backbone 'swin' is not implemented, only resnet50"),
    "dilated": ("detector", lambda home: edit(home / "detector/config.json", dilation=True),
                "config.json: dilation=True is not implemented"),
    "a tower alone": ("clip", lambda home: edit(home / "clip/config.json", vision_config="gone"),
                      "give a CLIPModel, not one of its towers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_read(name, copied):
    part, harm, problem = FAULTS[name]
    harm(copied)
    read = {"pipeline": import_pretrained.read_pipeline,
            "detector": import_pretrained.read_detector,
            "clip": import_pretrained.read_clip}[part]
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(problem)) as caught:
        read(copied / part)
    assert "\n" not in str(caught.value)
