"""What pixels attend to in a gate: against PyTorch's own attention, and by laws."""

import pytest
import torch
import torch.nn.functional as F
from oracles import relative_error
from test_gligen import inputs, pair, slots, unet_keys

from gligen_lessons import grounded
from gligen_lessons.gligen import GatedSelfAttentionDense, Grounding, transformer_blocks
from gligen_lessons.grounded import attention_concentration, entity_maps, gate_attention, gates
from gligen_lessons.nets import head_mean, record_attention

MANY = unet_keys(down_block_types=("CrossAttnDownBlock2D",) * 2,
                 up_block_types=("CrossAttnUpBlock2D",) * 2, attention_head_dim=8)


@pytest.fixture(scope="module")
def unet():
    return pair(MANY)[0].requires_grad_(False)


@torch.no_grad()
def test_attention_is_the_weights_of_pytorchs_attention():
    """With a token's number as its value, attention answers how much each token counts."""
    torch.manual_seed(0)
    gate, x, objs = GatedSelfAttentionDense(12, 3, 5), torch.randn(2, 6, 12), torch.randn(2, 4, 5)
    for p in gate.parameters():
        torch.nn.init.normal_(p, std=.5)
    both = gate.norm1(torch.cat([x, gate.linear(objs)], 1))
    q, k = (layer(both).unflatten(2, (3, 4)).transpose(1, 2)
            for layer in (gate.attn.to_q, gate.attn.to_k))
    weights = F.scaled_dot_product_attention(q, k, torch.eye(10).expand(2, 3, -1, -1))
    found = gate_attention(gate, x, objs)
    assert relative_error(found, weights[:, :, :6, 6:]) < 1e-5
    assert float(found.sum(-1).max()) < 1                  # the rest goes to other pixels


@torch.no_grad()
def test_a_token_moved_to_another_slot_takes_its_attention_along():
    torch.manual_seed(1)
    gate, x, objs = GatedSelfAttentionDense(12, 3, 5), torch.randn(2, 6, 12), torch.randn(2, 4, 5)
    turn = [2, 0, 3, 1]
    maps = gate_attention(gate, x, objs)
    assert torch.allclose(gate_attention(gate, x, objs[:, turn]), maps[..., turn], atol=1e-6)


@torch.no_grad()
def test_recording_changes_nothing_and_ends(unet):
    xt, t, context, grounding = inputs(MANY)
    want, seen = unet(xt, t, context, grounding), []
    slots_ = [block.fuser for block in transformer_blocks(unet)]
    handles = [gate.register_forward_pre_hook(lambda gate, given: seen.append((gate, given)))
               for gate in slots_]
    with record_attention(gates(unet), head_mean(gate_attention)) as maps:
        assert torch.equal(unet(xt, t, context, grounding), want)
        unet(xt, t, context)                               # without boxes no gate is called
    for handle in handles:
        handle.remove()
    assert len(maps) == len(slots_) and all(len(calls) == 1 for calls in maps.values())
    by_gate = {id(gate): given for gate, given in seen}
    for name, (found,) in maps.items():
        gate = unet.get_submodule(name)
        assert torch.allclose(found, gate_attention(gate, *by_gate[id(gate)]).mean(1), atol=1e-6)
    with pytest.raises(RuntimeError, match="stop"), record_attention(
            gates(unet), gate_attention):
        raise RuntimeError("stop")
    assert not any(gate._forward_hooks for gate in slots_)


def two_pictures() -> tuple[dict, Grounding]:
    """Maps of a batch that guidance doubled: the first half is nonsense."""
    g = torch.Generator().manual_seed(0)
    grounding = slots(24, n=3)
    maps = {name: [torch.rand(4, side * side, 3, generator=g) for _ in range(2)]
            for name, side in (("down", 4), ("mid", 2), ("up", 4))}
    return maps, grounding


def test_a_slot_s_map_is_the_mean_over_the_grounded_half():
    maps, grounding = two_pictures()
    found = entity_maps(maps, grounding, 4)
    assert found.shape == (2, 3, 4, 4)
    large = [m for name in ("down", "up") for m in maps[name]]
    for i, k, row, column in ((0, 1, 3, 1), (1, 2, 0, 2)):
        want = sum(float(m[2 + i, 4 * row + column, k]) for m in large) / 4
        assert float(found[i, k, row, column]) == pytest.approx(want)
    assert not found[0, 2].any() and found[1, 2].any()     # masks: two slots, and all three
    for calls in maps.values():
        for m in calls:
            m[:2] = float("nan")
    assert torch.equal(entity_maps(maps, grounding, 4), found)
    plain = {name: [m[2:] for m in calls] for name, calls in maps.items()}
    assert torch.equal(entity_maps(plain, grounding, 4), found)
    with pytest.raises(ValueError, match=r"No recorded layer has 3 x 3 pixels, .* \[2, 4\]"):
        entity_maps(maps, grounding, 3)


def test_focus_of_maps_whose_answer_is_known():
    boxes = torch.tensor([[[.25, .5, .75, 1.], [.1, .2, .37, .9], [0., 0., 1., 1.]]])
    even = torch.full((1, 3, 8, 8), .3)
    assert torch.allclose(attention_concentration(even, boxes), torch.ones(1, 3), atol=1e-5)
    inside = torch.zeros(1, 3, 8, 8)
    inside[:, :, 4:, 2:6] = .7                             # exactly the first box
    found = attention_concentration(inside, boxes)
    assert float(found[0, 0]) == pytest.approx(4)          # its area is a quarter
    assert float(found[0, 2]) == pytest.approx(1)
    assert torch.allclose(attention_concentration(5 * inside, boxes), found)
    turned = boxes[..., [1, 0, 3, 2]]
    assert torch.allclose(attention_concentration(inside.transpose(2, 3), turned), found, atol=1e-5)
    assert float(attention_concentration(inside, turned)[0, 0]) < 3
    half = torch.tensor([[[.3125, .5, .75, 1.]]])          # cuts the first column in two
    weighed = torch.zeros(1, 1, 8, 8)
    weighed[0, 0, :, 2] = 1
    assert float(attention_concentration(weighed, half)) == pytest.approx(.5 / 3.5 * 8)
    assert attention_concentration(0 * even, boxes).tolist() == [[0, 0, 0]]


@torch.no_grad()
def test_attention_is_recorded_only_while_it_is_grounded(unet):
    _, _, context, grounding = inputs(MANY)
    strength = {900: 1., 600: 1., 300: 0.}
    prediction = grounded.grounded_eps(unet, context, torch.zeros_like(context), grounding, 5.,
                                       strength)
    with record_attention(gates(unet), head_mean(gate_attention)) as maps:
        for step in strength:
            prediction(torch.randn(2, 4, 16, 16), torch.full((2,), step))
    assert {len(calls) for calls in maps.values()} == {2}
    assert {len(m) for calls in maps.values() for m in calls} == {4}       # null half, asked half
    found = attention_concentration(entity_maps(maps, grounding, 16), grounding.boxes)
    assert found.shape == grounding.masks.shape
    assert torch.equal(found > 0, grounding.masks > 0)
