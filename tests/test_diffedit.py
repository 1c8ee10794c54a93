"""DiffEdit against diffusers' pipeline, against a formula worked by hand, and against laws."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import published, relative_error
from test_latent import small_parts

from gligen_lessons import ddim, device, diffedit
from gligen_lessons.diffedit import (
    decode_masked,
    difference_map,
    edit_mask,
    edit_pictures,
    encode_levels,
    noise_difference,
    query_map,
    rescaled,
    steps_at,
)
from gligen_lessons.guidance import classifier_free
from gligen_lessons.schedule import Schedule

GOLDEN = Path(__file__).parent / "golden" / "diffedit.json"
SCALED = Schedule.scaled_linear()
END = float(SCALED.alpha_bar[0])
PIPELINE = "diffusers.pipelines.deprecated.stable_diffusion_diffedit"
QUERIES = ["a blue car on the snow at night", "three cats"]
REFERENCES = ["a red car on the snow at night", ""]
STEPS, COUNT = 20, 16


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=device.generator(seed), dtype=dtype)


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.fixture(scope="module")
def pipeline(parts, tmp_path_factory):
    """diffusers' own pipeline around our small networks; skipped once it is gone."""
    try:
        kind = importlib.import_module(PIPELINE).StableDiffusionDiffEditPipeline
        from diffusers import DDIMInverseScheduler
    except (ImportError, AttributeError) as error:
        reason = f"this diffusers has no DiffEdit pipeline any more ({error}); goldens remain"
        print(reason)
        pytest.skip(reason)
    plain = published("StableDiffusionPipeline", parts,
                      tmp_path_factory.mktemp("export") / "pipeline")
    made = kind(plain.vae, plain.text_encoder, plain.tokenizer, plain.unet, plain.scheduler, None,
                None, DDIMInverseScheduler.from_config(plain.scheduler.config), False)
    made.set_progress_bar_config(disable=True)
    return made


def unconditional(parts, b):
    null = parts.context([""]).expand(b, -1, -1)
    return lambda zt, t: parts.unet(zt, t, null)


def guided(parts, queries, scale=5.):
    null = parts.context([""]).expand(len(queries), -1, -1)
    return classifier_free(parts.unet, parts.context(queries), null, scale)


# Against diffusers: it takes latents of four channels as an image.

@torch.no_grad()
@pytest.mark.parametrize("n", [1, 4])
def test_the_mask_is_that_of_diffusers_by_its_rule(parts, pipeline, n):
    z0, references = noise(2, 4, 8, 8), ["a red car", "a cat"]
    want = pipeline.generate_mask(
        z0, QUERIES, source_prompt=references, num_maps_per_mask=n, num_inference_steps=STEPS,
        generator=device.generator(7))
    eps = noise(2 * n, 4, 8, 8, seed=7).view(2, n, 4, 8, 8).transpose(0, 1)
    t = torch.full((2,), ddim.timesteps(1000, STEPS, offset=1)[STEPS // 2])
    maps = difference_map(parts.unet, z0, parts.context(QUERIES), parts.context(references), t,
                          eps, parts.schedule)
    ours = maps > 1.5 * maps.mean()                       # clamp(map, 0, 3 mean) / (3 mean) > .5
    assert 0 < int(ours.sum()) < ours.numel()
    assert np.array_equal(ours.numpy(), want.reshape(2, 8, 8) > 0)


@torch.no_grad()
def test_every_encoded_latent_is_that_of_diffusers(parts, pipeline):
    z0 = noise(2, 4, 8, 8)
    want = pipeline.invert([""] * 2, z0, STEPS, COUNT / STEPS, guidance_scale=1.).latents
    levels = encode_levels(unconditional(parts, 2), z0, parts.schedule, STEPS, COUNT)
    assert want.shape[1] == COUNT and torch.equal(levels[0], z0)
    ours = torch.stack(levels[:0:-1], 1)                  # theirs begin with the noisiest
    assert relative_error(ours, want) < 1e-5


def a_mask(b=2, side=8):
    mask = torch.zeros(b, 1, side, side)
    mask[0, :, 1:5, 2:], mask[1:, :, :2, :3] = 1, 1
    return mask


@torch.no_grad()
def test_decoding_is_that_of_diffusers_once_its_level_is_one_off(parts, pipeline):
    """diffusers blends with the latent of the level that was left: [z_1, ..., z_r, z_r]."""
    z0, mask = noise(2, 4, 8, 8), a_mask()
    levels = encode_levels(unconditional(parts, 2), z0, parts.schedule, STEPS, COUNT)
    want = pipeline(QUERIES, mask, torch.stack(levels[:0:-1], 1), COUNT / STEPS, STEPS,
                    guidance_scale=5., output_type="latent").images
    model = guided(parts, QUERIES)
    shifted = [*levels[1:], levels[-1]]
    *_, (_, same) = decode_masked(model, shifted, mask, parts.schedule, STEPS)
    *_, (_, ours) = decode_masked(model, levels, mask, parts.schedule, STEPS)
    assert relative_error(same, want) < 1e-4
    assert relative_error(ours, want) > 1e-3              # the level-matched one differs
    outside = (1 - mask).bool().expand_as(z0)
    assert torch.equal(ours[outside], z0[outside])
    assert not torch.equal(want[outside], z0[outside])


# Against a formula worked by hand in float64, frozen in tests/golden.

def toy(zt, t, context=None):
    """eps for numpy and torch alike: it depends on the place, the step and the words."""
    xp, heard = (np, 0.) if isinstance(zt, np.ndarray) else (torch, 0.)
    if context is not None:
        heard = context.mean((1, 2)).reshape(-1, 1, 1, 1)
    t = (t if xp is np else t.to(zt)).reshape(-1, 1, 1, 1) / 700
    return xp.tanh(.7 * zt + xp.sin(t) + heard * (1 + zt)) + .2 * xp.cos(2 * zt)


def golden_inputs():
    """Latents (1,2,3,4), noises (2,1,2,3,4), contexts and a mask, without any random state."""
    i = np.arange(24, dtype=np.float64).reshape(1, 2, 3, 4)
    noises = np.stack([np.sin(1.3 * i + 1), np.cos(2.1 * i)])
    mask = np.zeros((1, 1, 3, 4))
    mask[..., 1:, :2] = 1
    return 1.2 * np.sin(i), noises, np.full((1, 2, 3), .4), np.full((1, 2, 3), -.3), mask


def by_hand():
    """The map and the decoded latent from the paper's formulas, in numpy, no library."""
    z0, noises, query, reference, mask = golden_inputs()
    alpha_bar = np.cumprod(1 - np.linspace(.00085**.5, .012**.5, 1000)**2)
    zt = [alpha_bar[499]**.5 * z0 + (1 - alpha_bar[499])**.5 * eps for eps in noises]
    t = np.array([499.])
    found = np.mean([np.abs(toy(z, t, query) - toy(z, t, reference)).mean(1) for z in zt], 0)
    visited, stride, end = [1, 201, 401], 200, alpha_bar[0]        # 3 of 5 steps, offset 1

    def moved(z, eps, a, b):
        return b**.5 * (z - (1 - a)**.5 * eps) / a**.5 + (1 - b)**.5 * eps

    def level(step):
        return alpha_bar[step] if step >= 0 else end
    levels = [z0]
    for step in visited:
        eps = toy(levels[-1], np.array([float(step)]))
        levels.append(moved(levels[-1], eps, level(step - stride), level(step)))
    z = levels[-1]
    for step, kept in zip(visited[::-1], levels[-2::-1], strict=True):
        z = moved(z, toy(z, np.array([float(step)]), query), level(step), level(step - stride))
        z = mask * z + (1 - mask) * kept
    return {"map": found, "code": levels[-1], "decoded": z}


def test_the_library_gives_the_golden_values():
    golden = {name: np.array(v) for name, v in json.loads(GOLDEN.read_text("utf-8")).items()}
    z0, noises, query, reference, mask = (torch.tensor(v) for v in golden_inputs())
    found = difference_map(toy, z0, query, reference, torch.tensor([499]), noises, SCALED)
    levels = encode_levels(toy, z0, SCALED, 5, 3)
    *_, (_, z) = decode_masked(lambda zt, t: toy(zt, t, query), levels, mask, SCALED, 5)
    ours = {"map": found, "code": levels[-1], "decoded": z}
    for name, value in by_hand().items():
        assert np.abs(value - golden[name]).max() < 1e-12, name
        assert relative_error(ours[name], torch.tensor(golden[name])) < 1e-12, name
    assert np.abs(golden["decoded"] - golden_inputs()[0]).max() > .1


# Laws of the mask.

@torch.no_grad()
@pytest.mark.parametrize("scale", [0.25, 1., 7.5])
def test_guidance_cancels_in_the_mask(parts, scale):
    z0, eps = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    query, reference = parts.context(QUERIES), parts.context(REFERENCES)
    null = parts.context([""]).expand(4, -1, -1)
    t = torch.full((2,), 500)

    def with_guidance(zt, steps, context):
        return classifier_free(parts.unet, context, null, scale)(zt, steps)
    plain = noise_difference(parts.unet, z0, query, reference, t, eps, parts.schedule)
    ours = noise_difference(with_guidance, z0, query, reference, t, eps, parts.schedule)
    assert relative_error(ours, scale * plain) < 1e-4
    assert torch.equal(edit_mask(ours), edit_mask(plain))


@torch.no_grad()
def test_absolute_differences_are_averaged_over_noises_that_all_differ(parts):
    z0, eps = noise(2, 4, 8, 8), noise(6, 2, 4, 8, 8, seed=1)
    given = parts.unet, z0, parts.context(QUERIES), parts.context(REFERENCES)
    t = torch.full((2,), 500)
    single = [noise_difference(*given, t, e, parts.schedule) for e in eps]
    assert relative_error(difference_map(*given, t, eps, parts.schedule),
                          sum(single) / 6) < 1e-6
    assert all(relative_error(a, b) > 1e-3 for a, b in zip(single, single[1:], strict=False))
    one, many = (query_map(parts, z0, REFERENCES, QUERIES, noises=n) for n in (1, 6))
    assert relative_error(one, many) > 1e-3


@torch.no_grad()
def test_a_mask_does_not_depend_on_its_batch(parts):
    z0 = noise(2, 4, 8, 8)
    together = query_map(parts, z0, REFERENCES, QUERIES, seed=4, noises=3)
    for i in range(2):
        alone = query_map(parts, z0[i:i + 1], REFERENCES[i:i + 1], QUERIES[i:i + 1], seed=4 + i,
                          noises=3)
        assert relative_error(alone[0], together[i]) < 1e-3    # small differences of large
        assert torch.equal(edit_mask(alone)[0], edit_mask(together)[i])


def test_a_map_is_clipped_rescaled_and_cut_for_each_picture():
    maps = torch.stack([torch.arange(256.), 5 + .01 * torch.arange(256.)]).view(2, 16, 16)
    maps[0, -1, -1] = 1e6                                 # one extreme value
    level = rescaled(maps, .05)
    want = ((torch.arange(256.) - 12.75) / (242.25 - 12.75)).clamp(0, 1).view(16, 16)
    assert relative_error(level[0], want) < 1e-5 and relative_error(level[1], want) < 1e-3
    assert edit_mask(maps, .25).sum() > edit_mask(maps).sum() > edit_mask(maps, .75).sum()
    assert relative_error(edit_mask(maps).mean((1, 2, 3)), torch.tensor([.5, .5])) < .02


@pytest.mark.parametrize("area", [.03, .1, .5, .8, .9, .97])
def test_a_change_of_any_area_is_found_where_diffusers_rule_finds_none_above_two_thirds(area):
    maps = .01 * torch.rand(1, 20, 20, generator=device.generator(0))
    maps.view(-1)[:int(area * 400)] += 1
    assert float(edit_mask(maps).mean()) == pytest.approx(area, abs=.01)
    assert bool((maps > 1.5 * maps.mean()).any()) == (area < 2 / 3)


# Laws of decoding.

@torch.no_grad()
def test_outside_the_mask_the_edit_is_the_encoded_picture_exactly(parts):
    x = noise(2, 3, 16, 16).clamp(-1, 1)
    for ratio in (.05, .5, 1.):
        made = edit_pictures(parts, x, REFERENCES, QUERIES, ratio=ratio, steps=STEPS, noises=2)
        assert len(made.levels) == steps_at(ratio, STEPS) + 1
        inside = made.mask.bool().expand_as(made.z)
        assert torch.equal(made.z[~inside], made.levels[0][~inside])
        assert float((made.z - made.levels[0])[inside].abs().min()) > 0


@torch.no_grad()
def test_on_the_way_too_the_outside_stands_at_the_level_of_the_inside(parts):
    z0, mask = noise(2, 4, 8, 8), a_mask()
    levels = encode_levels(unconditional(parts, 2), z0, parts.schedule, STEPS, COUNT)
    outside = (1 - mask).bool().expand_as(z0)
    walk = list(decode_masked(guided(parts, QUERIES), levels, mask, parts.schedule, STEPS))
    assert [t for t, _ in walk] == ddim.timesteps(1000, STEPS, offset=1)[-COUNT:]
    for (_, zt), level in zip(walk, levels[-2::-1], strict=True):
        assert torch.equal(zt[outside], level[outside])


@torch.no_grad()
def test_a_mask_of_everything_is_a_plain_walk_from_midway(parts):
    z0 = noise(2, 4, 8, 8)
    levels = encode_levels(unconditional(parts, 2), z0, parts.schedule, STEPS, 5)
    model = guided(parts, QUERIES)
    *_, (_, ours) = decode_masked(model, levels, torch.ones(2, 1, 8, 8), parts.schedule, STEPS)
    *_, (_, want) = ddim.sample(model, levels[-1], parts.schedule, STEPS, offset=1, end=END,
                                last=5)
    assert torch.equal(ours, want)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0., .5, 1.])
def test_a_guidance_scale_of_one_or_less_works(parts, scale):
    x = noise(1, 3, 16, 16).clamp(-1, 1)
    made = edit_pictures(parts, x, [""], ["a blue car"], steps=6, noises=2, guidance_scale=scale)
    assert bool(made.x.isfinite().all())


@torch.no_grad()
def test_a_ratio_of_zero_is_the_autoencoder_alone(parts):
    x = noise(1, 3, 16, 16).clamp(-1, 1)
    made = edit_pictures(parts, x, [""], ["a blue car"], ratio=0., steps=6, noises=2)
    assert torch.equal(made.z, made.levels[0]) and len(made.levels) == 1


# Bad input.

@torch.no_grad()
@pytest.mark.parametrize("change, words", [
    ({"queries": [" "]}, "query of picture 0 is empty"),
    ({"references": ["a blue  car"]}, "says the same as its reference"),
    ({"queries": ["a", "b"]}, "1 pictures, 1 references and 2 queries"),
    ({"ratio": 1.2}, r"encoding ratio must lie in 0\.\.1"),
    ({"ratio": float("nan")}, r"encoding ratio must lie in 0\.\.1"),
    ({"noise_level": -.1}, r"noise level must lie in 0\.\.1"),
    ({"noises": 0}, "at least one noise"),
    ({"guidance_scale": -1.}, "guidance scale must be"),
    ({"steps": 0}, "number of steps must lie"),
    ({"x": torch.zeros(1, 3, 24, 16)}, r"\(b,3,16,16\) in \[-1, 1\]"),
    ({"x": torch.zeros(1, 4, 16, 16)}, r"\(b,3,16,16\) in \[-1, 1\]"),
    ({"x": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)}, "images.to_model"),
    ({"x": torch.full((1, 3, 16, 16), 255.)}, "hold values up to 255"),
    ({"x": torch.full((1, 3, 16, 16), float("nan"))}, "hold values up to nan"),
    ({"mask": torch.ones(1, 1, 16, 16)}, r"mask must be \(1, 1, 8, 8\)"),
    ({"mask": torch.full((1, 1, 8, 8), .5)}, "A mask is 1 where the picture may change"),
])
def test_what_cannot_be_edited_is_refused_in_one_sentence(parts, change, words):
    given = {"x": torch.zeros(1, 3, 16, 16), "references": ["a red car"],
             "queries": ["a blue car"], "steps": 4, "noises": 2} | change
    with pytest.raises(ValueError, match=words) as told:
        edit_pictures(parts, **given)
    assert "\n" not in str(told.value)


@torch.no_grad()
@pytest.mark.parametrize("value, words", [(0., "is empty, so nothing will change"),
                                          (1., "is everything, so nothing is kept")])
def test_a_mask_of_nothing_or_everything_is_warned_of_with_advice(parts, value, words):
    with pytest.warns(UserWarning, match=words):
        edit_pictures(parts, torch.zeros(1, 3, 16, 16), [""], ["a blue car"], steps=4, noises=1,
                      mask=torch.full((1, 1, 8, 8), value))
    assert diffedit.NOISES == 10 and diffedit.THRESHOLD == .5      # the paper's
