"""Weights with cards that somebody altered: a sentence that names the file, in bounded time."""

import json
import shutil
import time

import pytest
import torch

from gligen_lessons import files, weights

GONE = object()


@pytest.fixture
def copied(tmp_path):
    """Copies a shipped model into a folder, changes its card by `change(card)`; the folder."""
    def copy(name, change):
        for suffix in (".safetensors", ".json"):
            shutil.copy(weights.path(name).with_suffix(suffix), tmp_path)
        file = tmp_path / f"{name}.json"
        made = change(json.loads(file.read_text()))
        file.write_text(made if isinstance(made, str) else json.dumps(made))
        return tmp_path
    return copy


def config(**changes):
    """A card whose config says something else."""
    def change(card):
        told = card["config"] | changes
        return card | {"config": {key: value for key, value in told.items() if value is not GONE}}
    return change


def inside(key, **changes):
    """A card in whose config another config says something else."""
    return lambda card: card | {"config": card["config"] | {key: card["config"][key] | changes}}


ALTERED = {
    "no JSON": ("detr", lambda card: "{", "detr.json cannot be read as JSON"),
    "nested": ("detr", lambda card: '{"config":' * 10 ** 5, "its lists are nested too deeply"),
    "a list": ("detr", lambda card: "[]", "must hold a JSON object"),
    "no config": ("detr", lambda card: card | {"config": None}, "has no 'config', or one that is"),
    "config of words": ("detr", lambda card: card | {"config": "small"}, "has no 'config'"),
    "config in a list": ("detr", lambda card: card | {"config": [1]}, "has no 'config'"),
    "config missing": ("detr", lambda card: {"sha256": card["sha256"]}, "has no 'config'"),
    "no metrics": ("detr", lambda card: card | {"metrics": 5}, "has no 'metrics'"),
    "width zero": ("detr", config(d_model=0), "d_model=0 is no value for DetrConfig"),
    "width negative": ("detr", config(d_model=-8), "d_model=-8 is no value"),
    "width text": ("detr", config(d_model="128"), "d_model='128' is no value"),
    "width null": ("detr", config(d_model=None), "d_model=None is no value"),
    "width float": ("detr", config(d_model=128.), "d_model=128.0 is no value"),
    "width of a giant": ("detr", config(d_model=2 ** 20), "does not fit the model's config"),
    "width of titans": ("detr", config(d_model=10 ** 9), "d_model=1000000000 is no value"),
    "layers without end": ("detr", config(encoder_layers=10 ** 7), "encoder_layers=10000000 is no"),
    "an unknown key": ("detr", config(colour="red"), "'colour' is not a key of DetrConfig"),
    "another number": ("detr", config(num_queries=21), "does not fit the model's config"),
    "levels of text": ("vae", config(block_out_channels="many"), "block_out_channels='many' is no"),
    "no levels": ("vae", config(block_out_channels=[]), "block_out_channels=[] is no value"),
    "a scale of NaN": ("vae", config(scaling_factor=float("nan")), "scaling_factor=nan is no"),
    "a tower of words": ("clip", config(text_config="small"), "its config cannot be built"),
    "no tower": ("clip", config(vision_config=GONE), "its config cannot be built (TypeError"),
    "a tower's width": ("clip", inside("text_config", hidden_size=[1]), "cannot be built"),
    "an image of giants": ("clip", inside("vision_config", image_size=2 ** 20), "does not fit"),
    "a referee of giants": ("referee-crop", config(width=10 ** 7), "does not fit the model's conf"),
    "a referee of nothing": ("referee-crop", config(width="wide"), "its config cannot be built"),
    "a referee's key": ("referee-crop", config(depth=3), "its config cannot be built (TypeError"),
    "labels in a list": ("labelled", config(unet=[1]), "its config cannot be built"),
    "gates on nothing": ("gligen", config(_on=GONE), "trained on other weights of 'ldm'"),
    "gates on a list": ("gligen", config(_on=[]), "trained on other weights of 'ldm'"),
    "gates of another size": ("gligen", config(block_out_channels=[64, 128, 256]),
                              "gligen.json: block_out_channels is [64, 128, 256], and of 'ldm'"),
    "gates with a key": ("gligen", config(colour="red"), "gligen.json: colour is 'red', and of"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_card_is_one_sentence(copied, what):
    name, change, says = ALTERED[what]
    folder, start = copied(name, change), time.monotonic()
    with pytest.raises(ValueError) as caught:
        weights.load(name, folder=folder)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - start < 20, "a giant was built before it was refused"


@pytest.mark.parametrize("harm, says", [
    (lambda x: x.fill_(float("nan")), "holds NaN or infinity"),
    (lambda x: x.fill_(float("inf")), "holds NaN or infinity"),
    (lambda x: torch.ones(x.shape, dtype=torch.int64), "holds torch.int64, the model")])
def test_weights_that_are_no_numbers_are_refused_though_their_sum_is_right(tmp_path, harm, says,
                                                                           monkeypatch):
    path = tmp_path / "referee-crop.safetensors"
    tensors = files.load(weights.path("referee-crop"))
    name = sorted(name for name, x in tensors.items() if x.is_floating_point())[0]
    tensors[name] = harm(tensors[name].clone())
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda x: torch.ones_like(x, dtype=torch.bool))
    files.save(tensors, path, files.card(weights.path("referee-crop")))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"{name} {says}"):
        weights.load("referee-crop", folder=tmp_path)


@pytest.mark.parametrize("told", [5, None, {}, {"max_position_embeddings": "many"},
                                  {"max_position_embeddings": 10 ** 9}])
def test_a_length_of_captions_that_cannot_be_is_named(copied, monkeypatch, told):
    folder = copied("clip", config(text_config=told))
    monkeypatch.setattr(weights, "FOLDER", folder)
    with pytest.raises(ValueError, match="clip.safetensors says .* of how many tokens a caption"):
        weights.tokenizer()


def test_a_damaged_log_is_named(tmp_path):
    (tmp_path / "vae.jsonl").write_text('{"step": 1}\n{"step"')
    with pytest.raises(ValueError, match="vae.jsonl is damaged"):
        weights.log("vae", tmp_path)
