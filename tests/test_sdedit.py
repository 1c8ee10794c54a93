"""SDEdit, Encode-Decode, DiffEdit without encoding, ILVR, FlexIT: laws, and their formulas."""

import pytest
import torch
import torch.nn.functional as F
from oracles import relative_error
from test_latent import small_parts

from gligen_lessons import ddim, device, flexit, sdedit
from gligen_lessons.clip import CLIP
from gligen_lessons.ddpm import q_sample
from gligen_lessons.schedule import Schedule
from gligen_lessons.vae import reconstruction_error

SCALED = Schedule.scaled_linear()
END = float(SCALED.alpha_bar[0])


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=device.generator(seed), dtype=dtype)


def toy(zt, t):
    return torch.tanh(.7 * zt + torch.sin(t.to(zt.dtype) / 90).view(-1, 1, 1, 1))


def toy_query(zt, t):
    return toy(zt, t) + .3 * torch.cos(3 * zt)


@pytest.mark.parametrize("steps, count", [(20, 16), (7, 7), (20, 1), (20, 0)])
def test_noised_levels_stand_where_encoded_ones_do(steps, count):
    z0, eps = noise(2, 4, 6, 5), noise(2, 4, 6, 5, seed=1)
    levels = sdedit.noised_levels(z0, eps, SCALED, steps, count)
    climbed = [t for t, _ in ddim.invert(toy, z0, SCALED, steps, offset=1, end=END, upto=count)]
    assert len(levels) == count + 1 and torch.equal(levels[0], z0)
    for t, level in zip(climbed, levels[1:], strict=True):
        assert torch.equal(level, q_sample(z0, torch.full((2,), t), eps, SCALED))


def test_with_the_true_noise_sdedit_returns_what_it_began_with():
    """Whoever knows eps walks back to z0, up to the level where Stable Diffusion ends."""
    z0, eps = noise(2, 4, 6, 5), noise(2, 4, 6, 5, seed=1)
    back = sdedit.sdedit(lambda zt, t: eps, z0, eps, SCALED, 20, 12)
    assert relative_error(back, END**.5 * z0 + (1 - END)**.5 * eps) < 1e-10
    assert relative_error(sdedit.sdedit(toy, z0, eps, SCALED, 20, 12), z0) > .1


def test_sdedit_begins_midway_and_walks_the_plain_trajectory():
    z0, eps = noise(2, 4, 6, 5), noise(2, 4, 6, 5, seed=1)
    start = q_sample(z0, torch.full((2,), 551), eps, SCALED)    # the 12th of 20 steps, from below
    *_, (_, want) = ddim.sample(toy, start, SCALED, 20, offset=1, end=END, last=12)
    assert torch.equal(sdedit.sdedit(toy, z0, eps, SCALED, 20, 12), want)
    assert torch.equal(sdedit.sdedit(toy, z0, eps, SCALED, 20, 0), z0)


def test_encode_decode_with_one_text_returns_and_better_with_more_steps():
    z0 = noise(2, 4, 6, 5)
    error = [relative_error(sdedit.encode_decode(toy, toy, z0, SCALED, steps, steps // 2), z0)
             for steps in (10, 50, 250)]
    assert error[0] > 2 * error[1] > 4 * error[2] > 0
    other = sdedit.encode_decode(toy_query, toy, z0, SCALED, 50, 25)
    assert relative_error(other, z0) > 5 * error[1]


def test_without_encoding_keeps_the_outside_and_changes_with_the_noise():
    z0, eps = noise(2, 4, 6, 5), noise(2, 4, 6, 5, seed=1)
    mask = torch.zeros(2, 1, 6, 5)
    mask[..., 2:4, 1:] = 1
    outside = (1 - mask).bool().expand_as(z0)
    made = sdedit.without_encoding(toy, z0, eps, mask, SCALED, 20, 12)
    again = sdedit.without_encoding(toy, z0, -eps, mask, SCALED, 20, 12)
    assert torch.equal(made[outside], z0[outside])
    assert relative_error(made[~outside], again[~outside]) > .1
    everything = sdedit.without_encoding(toy, z0, eps, torch.ones_like(mask), SCALED, 20, 12)
    assert torch.equal(everything, sdedit.sdedit(toy, z0, eps, SCALED, 20, 12))


def test_a_low_pass_is_a_projection_that_keeps_block_means():
    z = noise(2, 4, 8, 16)
    for factor in (2, 4, 8):
        low = sdedit.low_pass(z, factor)
        assert low.shape == z.shape and relative_error(sdedit.low_pass(low, factor), low) < 1e-14
        assert relative_error(F.avg_pool2d(low, factor), F.avg_pool2d(z, factor)) < 1e-14
    assert torch.equal(sdedit.low_pass(z, 1), z)


def test_ilvr_holds_low_frequencies_until_it_lets_go():
    z0, eps = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    walk = list(sdedit.ilvr(toy, z0, eps, SCALED, 10, 4, until=.3))
    levels = sdedit.noised_levels(z0, eps, SCALED, 10, 10)
    assert [t for t, _ in walk] == ddim.timesteps(1000, 10, offset=1)
    for left, (_, zt) in zip(range(10)[::-1], walk, strict=True):
        apart = relative_error(sdedit.low_pass(zt, 4), sdedit.low_pass(levels[left], 4))
        assert (apart < 1e-12) == (left >= 3), left
    *_, (_, copy) = sdedit.ilvr(toy, z0, eps, SCALED, 10, 1, until=0.)
    assert relative_error(copy, z0) < 1e-12                     # factor 1: everything is held


# FlexIT

@pytest.fixture(scope="module")
def models():
    parts = small_parts()
    text = parts.text.config | {"projection_dim": 16}
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                  num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16)
    torch.manual_seed(0)
    clip = CLIP(text, vision, 16).eval().requires_grad_(False)
    return clip, parts.vae


def test_the_target_is_the_papers_sum_of_unit_vectors():
    query, source, image = (3 * noise(2, 5, seed=seed) for seed in range(3))
    unit = [v / v.norm(dim=1, keepdim=True) for v in (query, source, image)]
    want = unit[0] - .4 * unit[1] + .2 * unit[2]
    assert relative_error(flexit.target_point(query, source, image), want) < 1e-14


def test_the_loss_is_its_three_parts(models):
    clip, vae = models
    z0, z = (noise(2, 4, 8, 8, seed=seed, dtype=torch.float32) for seed in range(2))
    target = noise(2, 16, seed=3, dtype=torch.float32)
    with torch.no_grad():
        x0, x = (flexit.to_pictures(vae, one) for one in (z0, z))
        unit = F.normalize(clip.encode_image(x), dim=1)
        got = flexit.l_flexit(clip, vae, z, z0, x0, target, .7, .3)
        want = (.3 * (z - z0).flatten(1).norm(dim=1) / z0.flatten(1).norm(dim=1)
                + .7 * reconstruction_error(x, x0) / (3 * 16 * 16) - (unit * target).sum(1))
    assert relative_error(got, want) < 1e-5


def test_each_step_has_the_same_length_and_the_loss_falls(models):
    clip, vae = models
    z0 = noise(2, 4, 8, 8, dtype=torch.float32)
    query, source = (noise(2, 16, seed=seed, dtype=torch.float32) for seed in (4, 5))
    walk = [z for _, z in flexit.flexit(clip, vae, z0, query, source, 12, .02)]
    assert len(walk) == 12 and not walk[-1].requires_grad
    for before, after in zip([z0, *walk], walk, strict=False):
        moved = (after - before).flatten(1).norm(dim=1) / z0.flatten(1).norm(dim=1)
        assert relative_error(moved, torch.full((2,), .02)) < 1e-4
    with torch.no_grad():
        x0 = flexit.to_pictures(vae, z0)
        target = flexit.target_point(query, source, clip.encode_image(x0))
        first, last = (flexit.l_flexit(clip, vae, z, z0, x0, target, 0., 0.)
                       for z in (z0, walk[-1]))
    assert bool((last < first).all())
