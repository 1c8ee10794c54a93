"""The shipped grounded weights: what they stand on, and the same pictures in diffusers."""

import json

import pytest
import torch
from oracles import relative_error

from gligen_lessons import gligen, grounded, inpaint, latent, weights
from gligen_lessons.datasets.labelled import labelled, pictures
from gligen_lessons.models import MODELS

PHRASES, BOXES = ["a red car", "a tree"], [[.1, .5, .5, .9], [.6, .2, .9, .8]]
CAPTION, STEPS, SEED = "a red car beside a tree", 20, 0
ADDED = [name for name, model in MODELS.items() if model.base and model.exported]


@pytest.fixture(scope="module")
def parts():
    """The shipped parts around each grounded U-Net, by name."""
    return {name: weights.text_to_image(unet=weights.load(name)) for name in ADDED}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Each grounded model, exported and opened offline by diffusers, by name."""
    from diffusers import StableDiffusionGLIGENPipeline

    found = {}
    for name in ADDED:
        folder = weights.export(name, tmp_path_factory.mktemp("export") / name)
        found[name] = StableDiffusionGLIGENPipeline.from_pretrained(folder, safety_checker=None)
        found[name].set_progress_bar_config(disable=True)
    return found


def requested(boxes, tau: float, zT) -> dict:
    return dict(prompt=[CAPTION], latents=zT.clone(), gligen_phrases=PHRASES, gligen_boxes=boxes,
                gligen_scheduled_sampling_beta=tau, num_inference_steps=STEPS, guidance_scale=5.)


@pytest.mark.parametrize("tau", [.3, 1.])
@torch.no_grad()
def test_a_grounded_picture_is_that_of_the_pipeline(parts, pipelines, tau):
    own, pipe = parts["gligen"], pipelines["gligen"]
    zT = own.first_noise(1, SEED)
    want = pipe(**requested(BOXES, tau, zT), output_type="pt").images
    ours = grounded.generate_grounded(own, [CAPTION], [PHRASES], [BOXES], SEED, steps=STEPS,
                                      tau=tau)
    assert float(((ours + 1) / 2 - want).abs().max()) < 1e-4
    other = pipe(**requested(BOXES[::-1], tau, zT), output_type="pt").images
    assert float((other - want).abs().max()) > 1e-2                # what is where counts


@pytest.mark.parametrize("tau", [.3, 1.])
@torch.no_grad()
def test_a_filled_hole_is_that_of_the_pipeline(parts, pipelines, tau, monkeypatch):
    """Theirs draws from the global generator; here both are handed the same noise."""
    own, pipe = parts["gligen-inpaint"], pipelines["gligen-inpaint"]
    image, x = picture()
    torch.manual_seed(3)                                           # of the encoder's draw, theirs
    eps = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    z0, mask = latent.to_latents(own.vae, x, eps), inpaint.masks_from_boxes([BOXES], 16)

    source = torch.Generator().manual_seed(SEED)
    zT = torch.randn(1, 4, 16, 16, generator=source)
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.randn(
        like.shape, generator=source))
    want = pipe(**requested(BOXES, tau, zT), gligen_inpaint_image=image,
                output_type="latent").images
    monkeypatch.undo()
    trajectory = list(inpaint.inpaint_grounded(own, [CAPTION],
                                               gligen.ground(own, [PHRASES], [BOXES]), z0, mask,
                                               SEED, STEPS, 5., tau))
    assert relative_error(trajectory[-1][1], want) < 1e-4
    assert relative_error(trajectory[-2][1], want) > 1e-2                # one step less is another


def picture():
    """A held-out render as diffusers takes it, and as a model picture (1,3,128,128)."""
    from PIL import Image

    data = labelled("grounding-test", 4)
    return Image.fromarray(data.renders.images[0]), pictures(data, torch.arange(1))


@pytest.mark.parametrize("name", ADDED)
def test_an_export_says_what_it_is(pipelines, name):
    config = pipelines[name].unet.config
    assert config.attention_type == "gated"
    assert config.in_channels == (9 if name == "gligen-inpaint" else 4)
    assert type(pipelines[name].scheduler).__name__ == "DDIMScheduler"


@pytest.mark.parametrize("name", ADDED)
def test_a_grounded_model_is_the_plain_one_with_what_its_file_adds(parts, name):
    plain, own = weights.load("ldm").state_dict(), parts[name].unet.state_dict()
    held = json.loads(weights.path(name).with_suffix(".json").read_text("utf-8"))
    assert held["config"]["_on"] == weights.fingerprint("ldm")
    assert all(torch.equal(own[key], plain[key]) for key in plain if key != "conv_in.weight")
    wide = own["conv_in.weight"]
    assert wide.shape[1] == (9 if name == "gligen-inpaint" else 4)
    gates = [own[key] for key in own if key.endswith(("alpha_attn", "alpha_dense"))]
    assert gates and all(float(gate.abs()) > 0 for gate in gates)
    assert not parts[name].unet.training and not any(
        p.requires_grad for p in parts[name].unet.parameters())


def test_unknown_names_are_told_every_model(tmp_path):
    with pytest.raises(ValueError, match="the course ships vae, .*gligen, gligen-inpaint"):
        weights.load("glide")
    with pytest.raises(ValueError, match="ldm, gligen, gligen-inpaint can be exported"):
        weights.export("vae", tmp_path / "vae")
    with pytest.raises(FileNotFoundError, match="python course.py train gligen-inpaint"):
        weights.load("gligen-inpaint", folder=tmp_path)
    assert not any(tmp_path.iterdir())
