"""Muon: torch's own on matrices, its laws, and a run with it that is broken and taken up again."""

import pytest
import torch
from torch import nn

from gligen_lessons import files, fit, muon


def matrices(*shapes):
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=g)) for shape in shapes]


def plain(g, steps=5):
    """The published iteration on the matrix itself, in 64 bits."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.double() / g.double().norm()
    x = x.T if len(x) > x.shape[1] else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if len(g) > g.shape[1] else x


@pytest.mark.parametrize("shape", [(8, 8), (16, 20), (16, 144), (144, 16), (1, 9)])
def test_both_forms_are_the_published_iteration(shape):
    g = matrices(shape)[0].detach()
    torch.testing.assert_close(muon.newton_schulz(g), plain(g).float(), atol=1e-5, rtol=0)
    if len(g) <= g.shape[1]:
        x = g / g.norm()
        torch.testing.assert_close(muon._long(x, 5), muon._plain(x, 5), atol=1e-5, rtol=0)


def test_singular_values_come_near_one_and_directions_stay():
    g = matrices((12, 40))[0].detach()
    u, s, v = torch.linalg.svd(muon.newton_schulz(g), full_matrices=False)
    assert float(s.min()) > .6 and float(s.max()) < 1.3
    whole = torch.linalg.svd(g, full_matrices=False)
    polar = whole.U @ whole.Vh                            # the nearest orthogonal matrix
    assert float((u @ v - polar).abs().max()) < 1e-4


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_matrices_move_as_with_torchs_muon(adjust, monkeypatch):
    """torch iterates in bfloat16; told to stay in 32 bits, it moves weights as ours does."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    ours, theirs = (matrices((8, 24), (24, 8), (16, 16)) for _ in range(2))
    first = [p.detach().clone() for p in ours]
    options = {"lr": .02, "weight_decay": .1, "momentum": .9}
    mine = muon.Muon(ours, adjust=adjust, **options)
    published = torch.optim.Muon(theirs, adjust_lr_fn=adjust, **options)
    g = torch.Generator().manual_seed(1)
    for _ in range(7):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=g)
            b.grad = a.grad.clone()
        mine.step()
        published.step()
    for a, b, start in zip(ours, theirs, first, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert float((a - start).detach().abs().max()) > .01, "they must have moved"


def test_a_convolution_is_the_matrix_of_its_filters():
    conv, matrix = matrices((6, 3, 3, 3))[0], matrices((6, 27))[0]
    matrix.data.copy_(conv.data.flatten(1))
    for p in (conv, matrix):
        p.grad = p.detach().sin()
        muon.Muon([p], lr=.02).step()
    assert torch.equal(conv.flatten(1), matrix)


def test_weights_without_a_gradient_and_gradients_of_zeros_do_no_harm():
    still, zero = matrices((4, 4), (4, 4))
    before = [p.detach().clone() for p in (still, zero)]
    zero.grad = torch.zeros(4, 4)
    muon.Muon([still, zero], lr=.02).step()
    assert torch.equal(still, before[0]) and torch.equal(zero, before[1])


def test_vectors_and_unknown_scales_are_refused():
    with pytest.raises(ValueError, match="two or more dimensions"):
        muon.Muon(matrices((4,)), lr=.02)
    with pytest.raises(ValueError, match="original or match_rms_adamw"):
        muon.Muon(matrices((4, 4)), lr=.02, adjust="rms")


class Reader(nn.Module):
    """Something of every kind: a table, a layer to keep, a hidden layer, a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.conv_in = nn.Embedding(5, 8), nn.Linear(8, 16)
        self.hidden, self.norm, self.out = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 5)
        self.norm.bias.requires_grad_(False)

    def forward(self, ids):
        return self.out(self.norm(self.hidden(self.conv_in(self.table(ids)).relu())))


def test_split_keeps_tables_vectors_and_named_layers_from_muon():
    model = Reader()
    matrices, others = muon.split(model, keep=("conv_in",))
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in matrices] == ["hidden.weight", "out.weight"]
    assert {names[id(p)] for p in others} == {
        "table.weight", "conv_in.weight", "conv_in.bias", "hidden.bias", "norm.weight", "out.bias"}


def sample_batch(step):
    ids = torch.randint(5, (8,), generator=fit.step_generator(0, step))
    return ids, (ids * 2 + 1) % 5


def loss(model, ids, target):
    return nn.functional.cross_entropy(model(ids), target)


def run(folder=None, **options):
    torch.set_num_threads(1)
    model = Reader()
    states = list(fit.fit(model, loss, sample_batch, steps=40, lr=.02, optimizer="muon",
                          device="cpu",
                          folder=folder, **options))
    return model, states


def test_a_run_in_pieces_is_the_whole_run_byte_for_byte(tmp_path):
    whole, states = run(tmp_path / "whole")
    assert states[-1]["loss"] < .3 * states[0]["loss"]
    pieces = 0
    while not pieces or states[-1]["step"] < 40:
        model, states = run(tmp_path / "cut", minutes=0, resume=pieces > 0)
        pieces += 1
    assert pieces == 40
    for one, other in zip(whole.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    a, b = (files.load_checkpoint(tmp_path / name) for name in ("whole", "cut"))
    assert len(a["optimizers"]) == 2
    for one, other in zip(a["optimizers"], b["optimizers"], strict=True):
        for key, state in one["state"].items():
            assert all(torch.equal(state[name], other["state"][key][name]) for name in state)


def test_each_optimizer_has_its_own_rates():
    def groups(model):
        return muon.groups(model, lr=.02, others_lr=1e-9, keep=("conv_in",))

    model = Reader()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    list(fit.fit(model, loss, sample_batch, steps=5, lr=.02, optimizer="muon", device="cpu",
                 ema=None,
                 groups=groups))
    moved = {name: float((p - before[name]).detach().abs().max())
             for name, p in model.named_parameters()}
    assert moved["hidden.weight"] > 1e-3 and 0 < moved["conv_in.weight"] < 1e-7
    assert moved["norm.bias"] == 0


def test_a_run_of_another_optimizer_is_not_resumed(tmp_path):
    run(tmp_path, minutes=0)
    with pytest.raises(ValueError, match="optimizer=muon, this run asks for optimizer=adamw"):
        fit.fit(Reader(), loss, sample_batch, steps=40, lr=.02, folder=tmp_path, resume=True,
                device="cpu")
    with pytest.raises(ValueError, match="optimizer must be adamw or muon"):
        fit.fit(Reader(), loss, sample_batch, steps=40, lr=.02, optimizer="sgd")
