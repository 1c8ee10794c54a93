"""What the training of the gates adds to the paper's loss, and the small trainings that compare."""

import pytest
import torch
from torch import Tensor

from gligen_lessons import experiments
from gligen_lessons.experiments import ablations
from gligen_lessons.gligen import Grounding, add_gates, freeze, l_grounding, transformer_blocks
from gligen_lessons.grounded import gate_attention, gates
from gligen_lessons.inpaint import concat_inpainting_inputs
from gligen_lessons.nets import record_attention
from gligen_lessons.recipes import alignment
from gligen_lessons.recipes import inpaint as recipe
from gligen_lessons.recipes.gligen import gate_groups, gate_parameter_groups
from gligen_lessons.recipes.helpers import step_weight
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet

SMALL = {"sample_size": 16, "block_out_channels": (32, 64), "norm_num_groups": 8,
         "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1,
         "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 24,
         "attention_head_dim": 4}
SCHEDULE = Schedule.scaled_linear()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return add_gates(UNet(**SMALL))


@pytest.fixture
def requested() -> Grounding:
    """Two pictures with three slots: two things that share some places, and one thing."""
    boxes = torch.tensor([[[0., 0, .5, .5], [.25, .25, 1, 1], [0, 0, 0, 0]],
                          [[.5, .125, .75, 1], [0, 0, 0, 0], [0, 0, 0, 0]]])
    masks = torch.tensor([[1., 1, 0], [1, 0, 0]])
    return Grounding(boxes, masks, noise(2, 3, 24) * masks[..., None])


def open_all(unet: UNet) -> UNet:
    for block in transformer_blocks(unet):
        block.fuser.alpha_attn.data.fill_(1.)
        block.fuser.alpha_dense.data.fill_(1.)
    return unet


def test_first_weights_leave_the_network_as_it_was_and_tell_tokens_apart(unet, requested):
    given = noise(2, 4, 16, 16), torch.tensor([3, 900]), noise(2, 5, 24)

    def likeness() -> float:
        tokens = unet.position_net(requested.boxes, requested.masks, requested.features)[0]
        return float(torch.cosine_similarity(tokens[0], tokens[1], dim=0))

    with torch.no_grad():
        before, alike = unet(*given, requested), likeness()
        alignment.initialise_gates(unet)
        assert torch.equal(unet(*given, requested), before)
        assert likeness() < alike - .2
        empty = unet.position_net(requested.boxes, torch.zeros(2, 3), requested.features)
    assert not empty.any()


def test_covered_counts_the_part_of_each_place_that_lies_in_the_box(requested):
    got = alignment.covered(requested, 4)
    assert got.shape == (2, 3, 4, 4)
    fine = alignment.covered(requested, 256).view(2, 3, 4, 64, 4, 64).mean((3, 5))
    torch.testing.assert_close(got, fine)
    assert got[1, 0].tolist() == [[0, 0, .5, 0]] + [[0, 0, 1, 0]] * 3
    assert not got[:, 2].any() and not got[1, 1].any()


def test_without_its_weights_the_loss_is_that_of_the_paper(unet, requested):
    given = (noise(2, 4, 16, 16, seed=1), torch.tensor([100, 800]), noise(2, 4, 16, 16, seed=2),
             noise(2, 5, 24), requested, SCHEDULE)
    open_all(unet)
    with torch.no_grad():
        weighted = alignment.weighted_loss(unet, *given)
        torch.testing.assert_close(alignment.weighted_loss(unet, *given, strength=0.),
                                   l_grounding(unet, *given))
    assert weighted > 1.2 * l_grounding(unet, *given)


def test_the_weights_are_those_of_the_step_and_of_the_boxes(requested):
    """A prediction that is off by one everywhere shows the weights themselves."""
    t, shown = torch.tensor([0, 999]), noise(2, 4, 16, 16)
    got = alignment.weighted_loss(lambda *_: shown + 1, shown, t, shown, None, requested, SCHEDULE)
    every = step_weight(SCHEDULE.alpha_bar)
    steps = (every[t] / every.mean()).tolist()
    assert steps[1] > 10 * steps[0], "a step of noise must count more than one that polishes"
    inside = [.25 + .5625 - .0625, .25 * .875]
    want = sum(step * (1 + alignment.INSIDE * part) / 2
               for step, part in zip(steps, inside, strict=True))
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_loss_is_least_where_pixels_attend_to_their_own_box(requested):
    wanted = alignment.covered(requested, 8).flatten(2).transpose(1, 2)
    shared = wanted / wanted.sum(2, keepdim=True).clamp(min=1)
    right, away = alignment.box_alignment_loss([shared], requested), alignment.box_alignment_loss(
        [shared.flip(1)], requested)
    uniform = alignment.box_alignment_loss([torch.full_like(shared, 1 / 60)], requested)
    assert float(right) < .2 * float(uniform) and float(uniform) < float(away)
    look = shared.clone().requires_grad_(True)
    alignment.box_alignment_loss([look * .9 + .01], requested).backward()
    assert (look.grad[shared == 1] < 0).all() and (look.grad[shared == 0] > 0).all()


def test_recorded_attention_lets_gates_learn(unet, requested):
    given = noise(2, 4, 16, 16), torch.tensor([3, 900]), noise(2, 5, 24), requested
    with record_attention(gates(unet), gate_attention) as maps:
        unet(*given)
    looks = [calls[0].mean(1)[..., :2] for calls in maps.values()]
    few = requested.each(lambda x: x[:, :2])
    alignment.box_alignment_loss(looks, few).backward()
    gate = transformer_blocks(unet)[0].fuser
    assert gate.attn.to_q.weight.grad.abs().sum() > 0 and not gate.attn.to_v.weight.grad.any()
    unet(*given)
    assert {len(calls) for calls in maps.values()} == {1}           # no hook is left behind


def test_holes_are_boxes_and_where_only_they_are_named_the_rest_is_silent():
    g = torch.Generator().manual_seed(0)
    boxes = torch.zeros(400, 6, 4)
    boxes[:, 0], boxes[:, 1] = torch.tensor([0., 0, .5, .5]), torch.tensor([.5, .5, 1, 1])
    boxes[:100, 1] = 0                                              # one thing, or two
    phrases = torch.where(boxes.any(-1), 7, -1)
    mask, said = recipe.with_holes(phrases, boxes, 16, g)
    first, second = (mask[:, 0, :8, :8] == 0).all((1, 2)), (mask[:, 0, 8:, 8:] == 0).all((1, 2))
    assert mask[:, 0, :8, 8:].all() and mask[:, 0, 8:, :8].all()
    assert first[:100].all() and not second[:100].any() and (first | second).all()
    assert 60 < int((first & second).sum()) < 130                   # a quarter of 300
    silent = (phrases >= 0) & (said < 0)
    assert not silent[:, 0][first].any() and not silent[:, 1][second].any()
    assert .35 < float(silent[:, 0][~first].float().mean()) < .65


def test_inpainting_lets_the_first_layer_learn_but_not_its_bias(unet):
    from gligen_lessons.inpaint import expand_conv_in

    recipe.learn_inpainting(expand_conv_in(unet))
    assert unet.conv_in.weight.requires_grad and not unet.conv_in.bias.requires_grad
    groups, before = recipe.slower_groups(unet), gate_groups(unet)
    assert [len(g["params"]) for g in groups] == [len(g["params"]) + extra for g, extra
                                                  in zip(before, (0, 0, 1), strict=True)]
    assert all(g["lr"] < old["lr"] for g, old in zip(groups, before, strict=True))
    learnt = {id(p) for g in groups for p in g["params"]}
    assert learnt == {id(p) for p in unet.parameters() if p.requires_grad}
    shown = concat_inpainting_inputs(unet, noise(2, 4, 16, 16), torch.ones(2, 1, 16, 16))
    assert shown(noise(2, 4, 16, 16), torch.tensor([3, 9]), noise(2, 5, 24)).shape[1] == 4


def test_muon_takes_matrices_of_gates_and_leaves_scalars_their_rate(unet):
    matrices, scalars, rest = gate_groups(freeze(unet))
    fast, others = gate_parameter_groups(unet)
    assert scalars == fast and "adjust" in matrices and "adjust" not in rest
    assert all(p.ndim >= 2 for p in matrices["params"])
    names = {id(p): name for name, p in unet.named_parameters()}
    kept = {names[id(p)] for p in rest["params"]}
    assert {"position_net.null_positive_feature", "position_net.linears.0.weight"} <= kept
    together = [id(p) for g in (matrices, scalars, rest) for p in g["params"]]
    assert sorted(together) == sorted(id(p) for g in (fast, others) for p in g["params"])


@pytest.mark.parametrize("name", list(ablations.VARIANTS))
def test_variants_start_from_the_same_weights_and_read_boxes(unet, requested, name):
    exchange, attention = ablations.VARIANTS[name]
    given = noise(2, 4, 16, 16), torch.tensor([3, 900]), noise(2, 5, 24)
    moved = Grounding(requested.boxes.flip(0), requested.masks, requested.features)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    open_all(exchange(unet))
    with torch.no_grad(), record_attention(gates(unet), attention) as looks:
        apart = (unet(*given, requested) - unet(*given, moved)).abs().max()
    assert apart > 1e-5 and [len(calls) for calls in looks.values()] == [2] * len(looks)
    after = unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items()
               if "alpha" not in key)


def test_cross_attention_spreads_a_whole_over_tokens_alone(unet, requested):
    x, objs = noise(2, 9, 32), noise(2, 3, 24)
    gate = transformer_blocks(ablations.with_cross_attention(open_all(unet)))[0].fuser
    found = ablations.cross_attention(gate, x, objs)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4, 9))
    other = torch.cat([x[:, :1], noise(2, 8, 32, seed=5)], 1)
    torch.testing.assert_close(gate(x, objs)[:, 0], gate(other, objs)[:, 0])
    torch.testing.assert_close(gate(x, objs), gate(x, objs[:, [2, 0, 1]]))
    assert float(gate_attention(gate, x, objs).detach().sum(-1).max()) < 1  # pixels have a part


def test_raw_coordinates_lie_beside_the_phrase_as_they_are(unet, requested):
    net = ablations.with_raw_coordinates(unet).position_net
    seen = []
    net.linears.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    net(requested.boxes, requested.masks, requested.features)
    torch.testing.assert_close(seen[0][..., 24:28], requested.boxes)
    assert not seen[0][0, 2].any()


def test_the_small_trainings_are_compared_layout_by_layout(tmp_path):
    out = tmp_path / "ablations.json"
    assert experiments.main(["ablations", "--steps", "1", "--batch", "2", "--count", "4",
                             "--out", str(out)]) == 0
    made = experiments.shipped("ablations", tmp_path)
    assert [row["name"] for row in made["rows"]] == list(ablations.VARIANTS)
    assert all(len(row["gains"]) == 4 and row["low"] <= row["gain"] <= row["high"]
               for row in made["rows"])
    first, *others = made["rows"]
    for row, apart in zip(others, made["paired"].values(), strict=True):
        assert apart["mean"] == pytest.approx(first["gain"] - row["gain"])
