"""The training loop: whatever ends, cuts or spreads a run, the weights are those of one long run.

This file is also the program of the runs that are really killed: python tests/test_fit.py HOW ...
"""

import copy
import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, SequentialLR

from gligen_lessons import files, fit
from gligen_lessons.ema import EMA

ROOT = Path(__file__).resolve().parent.parent
STEPS = 400


def mlp(dropout=0.1):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 2))


def sample_batch(step, batch=16):
    g = fit.step_generator(3, step)
    angle = 2 * math.pi * torch.rand(batch, generator=g)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    return x + 0.1 * torch.randn(batch, 2, generator=g), x


def slow_draw(step):
    time.sleep(0.03)
    return sample_batch(step)


def loss(model, noisy, x):
    return (model(noisy) - x).square().mean()


def start(folder=None, steps=STEPS, sample_batch=sample_batch, model=None, loss=loss, **options):
    """A run on one thread of the CPU, ready to be looped over; returns model and states."""
    torch.set_num_threads(1)
    model = model or mlp()
    keep = {"folder": folder, "resume": folder is not None, "log_every": 7, "device": "cpu"}
    states = fit.fit(model, loss, sample_batch, steps=steps, lr=1e-2, **(keep | options))
    return model, states


def run(*arguments, **options):
    model, states = start(*arguments, **options)
    return model, list(states)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The one long run: its model at the end, its checkpoint and its log."""
    folder = tmp_path_factory.mktemp("unbroken")
    model, states = run(folder)
    assert [s["step"] for s in states] == list(range(1, STEPS + 1))
    return model.state_dict(), files.load_checkpoint(folder), losses_in(folder)


def losses_in(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["lr"]) for line in lines]


def assert_same(model, folder, unbroken):
    """Byte for byte: model, EMA, raw weights, moments of the optimizer, and the log's losses."""
    weights, checkpoint, losses = unbroken
    mine = files.load_checkpoint(folder)
    assert same(model.state_dict(), weights)
    assert same(mine["model"], checkpoint["model"]) and same(mine["ema"], checkpoint["ema"])
    for one, other in zip(mine["optimizers"], checkpoint["optimizers"], strict=True):
        assert all(same(state, other["state"][i]) for i, state in one["state"].items())
    assert losses_in(folder) == losses


def same(a, b):
    return a.keys() == b.keys() and all(
        x.numpy().tobytes() == b[name].numpy().tobytes() for name, x in a.items())


# --- the program that is killed ---------------------------------------------------------------

@pytest.fixture
def child():
    """Starts this file as a program; ends what is still running after the test."""
    started = []

    def launch(how, folder, launcher=()):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, *launcher, __file__, how, str(folder)]
        started.append(subprocess.Popen(words, env=environment, cwd=ROOT, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def lines_of(process, count):
    """Wait until the run has told of so many more steps."""
    for _ in range(count):
        assert process.stdout.readline(), process.communicate()[1]


def one_of_two(folder):
    """What torchrun runs twice: the second process starts from other weights and stops at once."""
    second, shares = os.environ["RANK"] == "1", set()

    def noted(model, noisy, x):
        shares.add(len(x))
        return loss(model, noisy, x)

    model = mlp(dropout=0)
    model[0].weight.data += second
    first = run(folder, 60, model=model, minutes=0 if second else None)[1]
    states = run(folder, 60, model=mlp(dropout=0), loss=noted)[1]
    told = states[-1] | {"first": len(first), "then": len(states), "share": list(shares)}
    sys.stdout.write(json.dumps(told) + "\n")             # in one piece: both write to one pipe
    sys.stdout.flush()
    torch.distributed.destroy_process_group()


def child_main(how, folder):
    if how == "two":
        return one_of_two(Path(folder))
    _, states = start(Path(folder), sample_batch=slow_draw, save_every=0.02 if how == "kill"
                      else 60)
    for state in states:
        print(state["step"], flush=True)


# --- laws -------------------------------------------------------------------------------------

@pytest.mark.parametrize("steps, warmup", [(100, 0), (100, 10), (7, 1), (1, 0)])
def test_the_learning_rate_is_torchs_warm_up_and_cosine(steps, warmup):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    parts = [LambdaLR(optimizer, lambda i: (i + 1) / max(warmup, 1)),
             CosineAnnealingLR(optimizer, steps - warmup)]
    schedule = SequentialLR(optimizer, parts, [warmup]) if warmup else parts[1]
    for step in range(steps):
        assert fit.lr_at(step, steps, 0.3, warmup) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12), step
        optimizer.step()
        schedule.step()
    assert fit.lr_at(steps, steps, 0.3, warmup) == pytest.approx(0, abs=1e-12)


def test_seeds_of_steps_differ_in_the_bits_that_torch_reads():
    drawn = {torch.rand(1, generator=fit.step_generator(a, b)).item()
             for a in range(8) for b in range(200)}
    assert len(drawn) == 8 * 200
    assert fit.step_seed(1, 2) != fit.step_seed(2, 1) and fit.step_seed(0, 5) < 2**32


def test_ema_against_its_definition():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    ema, g = EMA(model, 0.9), torch.Generator().manual_seed(0)
    average = model.weight.detach().double()
    for step in range(100):
        model.weight.data = torch.randn(2, 3, generator=g)
        ema.update(step)
        d = min(0.9, (1 + step) / (10 + step))
        average = d * average + (1 - d) * model.weight.detach().double()
        torch.testing.assert_close(ema.average["weight"].double(), average, atol=1e-6, rtol=1e-6)
    raw = model.weight.detach().clone()
    state = ema.model_state()
    assert torch.equal(model.weight, raw), "model_state must leave the model as it was"
    assert torch.equal(state["weight"], ema.average["weight"]) and "bias" in state
    with pytest.raises(RuntimeError), ema.in_place():
        assert torch.equal(model.weight, ema.average["weight"])
        raise RuntimeError
    assert torch.equal(model.weight, raw)


def test_ema_of_tied_weights():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    ema = EMA(model, 0.9)
    model["a"].weight.data += 1
    ema.update(0)
    state = ema.model_state()
    assert torch.equal(state["a.weight"], state["b.weight"])
    assert torch.equal(state["b.weight"], ema.average["a.weight"])


def test_fit_is_the_plain_loop(tmp_path):
    """The ten lines of lesson 1, with torch's own clipping and schedule and an explicit EMA."""
    plain, steps = mlp(dropout=0), 50
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1)
    rate = LambdaLR(optimizer, lambda i: (i + 1) / 5 if i < 5 else
                    0.5 * (1 + math.cos(math.pi * (i - 5) / 45)))
    mean = copy.deepcopy(plain)
    expected = []
    for step in range(steps):
        noisy, x = sample_batch(step)
        value = loss(plain, noisy, x)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
        d = min(0.95, (1 + step) / (10 + step))
        for average, weight in zip(mean.parameters(), plain.parameters(), strict=True):
            average.data = d * average.data + (1 - d) * weight.data
        expected.append((value.item(), rate.get_last_lr()[0]))
        rate.step()
    model, states = run(tmp_path, steps, model=mlp(dropout=0), weight_decay=0.1, warmup=5,
                        clip=0.1, ema=0.95, seed=9)
    assert [s["loss"] for s in states] == pytest.approx([e[0] for e in expected], rel=1e-5)
    assert [s["lr"] for s in states] == pytest.approx([e[1] for e in expected], rel=1e-9)
    torch.testing.assert_close(model.state_dict(), mean.state_dict(), atol=1e-6, rtol=1e-5)
    raw = files.load_checkpoint(tmp_path)["model"]
    torch.testing.assert_close(raw, plain.state_dict(), atol=1e-6, rtol=1e-5)
    log = losses_in(tmp_path)
    assert [line[0] for line in log] == [7, 14, 21, 28, 35, 42, 49, 50]
    assert log[1][1] == pytest.approx(sum(e[0] for e in expected[7:14]) / 7, rel=1e-5)
    assert log[-1][1] == pytest.approx(expected[-1][0], rel=1e-5)


def test_training_helps_and_without_ema_the_model_is_the_raw_one(tmp_path):
    model, states = run(tmp_path, 300, ema=None)
    assert states[-1]["loss"] < 0.1 * states[0]["loss"]
    assert same(model.state_dict(), files.load_checkpoint(tmp_path)["model"])
    assert states[-1]["processes"] == 1 and states[-1]["images_per_s"] > 0
    assert states[-1]["seconds"] > states[0]["seconds"] > 0


def test_dropout_depends_on_seed_and_step_alone():
    torch.manual_seed(77)
    first = [s["loss"] for s in run(steps=5)[1]]
    torch.manual_seed(78)
    assert [s["loss"] for s in run(steps=5)[1]] == first
    assert [s["loss"] for s in run(steps=5, seed=1)[1]] != first


def test_noise_inside_the_model_is_not_the_noise_of_the_batch():
    seen = []

    def noted(model, noisy, x):
        seen.append((noisy, torch.randn(4, 2)))
        return model(noisy).square().mean()

    seeded = fit.fit(mlp(), noted, lambda step: (torch.randn(4, 2, generator=fit.step_generator(
        0, step)),) * 2, steps=2, lr=1e-3, device="cpu")
    list(seeded)
    assert not any(torch.equal(a, b) for a, b in seen)


def test_groups_have_their_own_rates():
    model = mlp()
    rates, frozen = [], model[0].weight.clone()

    def groups(model):
        return [{"params": model[0].bias, "lr": 1e-9}, {"params": model[3].parameters()}]

    _, states = start(model=model, steps=30, groups=groups, ema=None, warmup=0, clip=None)
    before = model[0].bias.clone()
    for state in states:
        rates.append(state["lr"])
    assert torch.equal(model[0].weight, frozen), "a weight in no group must stay"
    moved = (model[0].bias - before).abs().max()
    assert 0 < moved < 1e-7 and rates[0] == 1e-2


# --- broken runs ------------------------------------------------------------------------------

@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a signal of POSIX")
def test_a_run_killed_at_random_and_resumed_is_the_unbroken_run(tmp_path, unbroken, child):
    def step():
        saved = files.load_checkpoint(tmp_path)
        return saved["step"] if saved else 0

    for _ in range(2):
        before = step()
        process = child("kill", tmp_path)
        lines_of(process, 20)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert before < step() < STEPS, "killed too late to mean anything"
    model, states = run(tmp_path)
    print("killed twice, went on from step", states[0]["step"])
    assert states[0]["step"] > 1
    assert_same(model, tmp_path, unbroken)
    assert not list(tmp_path.glob("checkpoint.*"))


@pytest.mark.skipif(os.name != "posix", reason="Windows ends a process without SIGTERM")
def test_sigterm_saves_and_exits_with_143(tmp_path, unbroken, child):
    process = child("term", tmp_path)
    lines_of(process, 40)
    process.terminate()
    assert process.wait(60) == 143, process.stderr.read()
    saved = files.load_checkpoint(tmp_path)["step"]
    assert 40 <= saved < STEPS  # save_every is a minute: only SIGTERM can have saved this
    model, states = run(tmp_path)
    assert states[0]["step"] == saved + 1
    assert_same(model, tmp_path, unbroken)


def test_sigterm_in_the_loop_stops_it_and_the_handler_goes(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    _, states = start(tmp_path)
    with pytest.raises(fit.Interrupted, match="SIGTERM stopped the run after step 6") as stopped:
        for state in states:
            if state["step"] == 5:
                os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143 and files.load_checkpoint(tmp_path)["step"] == 6
    assert signal.getsignal(signal.SIGTERM) == before


def test_fit_runs_outside_the_main_thread():
    lengths = []
    thread = threading.Thread(target=lambda: lengths.append(len(run(steps=3)[1])))
    thread.start()
    thread.join()
    assert lengths == [3]


def test_pieces_are_the_unbroken_run(tmp_path, unbroken):
    """`minutes` only stops: a piece without any time still makes one step."""
    lengths = [len(run(tmp_path, minutes=0)[1]) for _ in range(3)]
    assert lengths == [1, 1, 1]
    while (step := files.load_checkpoint(tmp_path)["step"]) < STEPS:
        model, states = run(tmp_path, minutes=0.1 / 60)
        assert states[0]["step"] == step + 1
        lengths.append(len(states))
    assert sum(lengths) == STEPS and len(lengths) > 4
    assert_same(model, tmp_path, unbroken)


def test_a_finished_run_resumed_gives_its_model_and_last_state_again(tmp_path):
    first, states = run(tmp_path, 20)
    again, last = run(tmp_path, 20)
    assert same(first.state_dict(), again.state_dict()) and last == states[-1:]
    assert len(losses_in(tmp_path)) == 3


def test_breaking_out_keeps_the_raw_weights_and_the_last_checkpoint(tmp_path):
    model, states = start(tmp_path)
    for state in states:
        if state["step"] == 9:
            break
    states.close()
    assert files.load_checkpoint(tmp_path)["step"] == 0
    _, raw = start(ema=None, steps=STEPS, model=(plain := mlp()))
    for state in raw:
        if state["step"] == 9:
            break
    assert same(model.state_dict(), plain.state_dict())


def test_numpys_numbers_leave_a_checkpoint_that_can_be_read(tmp_path):
    """Rates from np.logspace, steps and seeds from an array: they are numbers like any other."""
    model = mlp()
    options = dict(steps=np.int64(3), lr=np.float64(1e-3), warmup=np.int32(1), seed=np.uint8(4),
                   weight_decay=np.float32(.5), ema=np.float64(.9), clip=np.float64(1.),
                   betas=(np.float64(.9), np.float64(.99)), folder=tmp_path,
                   groups=lambda m: [{"params": list(m.parameters()), "lr": np.float64(.1)}])
    assert len(list(fit.fit(model, loss, sample_batch, **options))) == 3
    assert files.load_checkpoint(tmp_path)["config"]["peaks"] == [.1]
    again = fit.fit(mlp(), loss, sample_batch, **options, resume=True)
    assert [state["step"] for state in again] == [3]


def test_without_resume_a_run_starts_anew(tmp_path):
    run(tmp_path, 20)
    _, states = run(tmp_path, 10, resume=False)
    assert [s["step"] for s in states] == list(range(1, 11))
    assert [line[0] for line in losses_in(tmp_path)] == [7, 10]
    assert files.load_checkpoint(tmp_path)["step"] == 10


@pytest.mark.parametrize("change, name", [
    ({"steps": 30}, "steps=20, this run asks for steps=30"), ({"lr": 0.5}, "lr=0.01"),
    ({"warmup": 3}, "warmup=1"), ({"ema": None}, "ema=0.999"), ({"seed": 4}, "seed=0"),
    ({"sample_batch": lambda step: sample_batch(step, 8)}, "batch=16, this run asks for batch=8"),
    ({"groups": lambda m: [{"params": m.parameters(), "lr": 3.0}]}, "peaks="),
    ({"model": nn.Linear(2, 2)}, "another model"),
])
def test_another_run_is_not_resumed(tmp_path, change, name):
    run(tmp_path, 20, minutes=0)
    before = (tmp_path / "checkpoint" / "state.pt").read_bytes()
    with pytest.raises(ValueError, match=name):
        fit.fit(**({"model": mlp(), "loss": loss, "sample_batch": sample_batch, "steps": 20,
                    "lr": 1e-2,
                    "folder": tmp_path, "resume": True, "device": "cpu"} | change))
    assert (tmp_path / "checkpoint" / "state.pt").read_bytes() == before


def test_two_processes_make_the_weights_of_one(tmp_path, child):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = child("two", tmp_path / "two", launcher=torchrun)
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    told = [json.loads(line) for line in out.splitlines()]
    assert [t["processes"] for t in told] == [2, 2]
    assert [t["share"] for t in told] == [[8], [8]], "each must see half of the batch of 16"
    assert [(t["first"], t["then"]) for t in told] == [(1, 59)] * 2, "one wants to stop: both must"
    model, states = run(tmp_path / "one", 60, model=mlp(dropout=0))
    one, two = files.load_checkpoint(tmp_path / "one"), files.load_checkpoint(tmp_path / "two")
    worst = max((one[k][n] - two[k][n]).abs().max() for k in ("model", "ema") for n in one[k])
    print(f"two processes against one: {worst:.1e}")
    assert two["step"] == 60 and worst < 1e-5
    moved = max((one["model"][n] - x).abs().max() for n, x in mlp().state_dict().items())
    assert moved > 0.05, "the weights must have moved for the comparison to mean anything"
    assert told[0]["loss"] == pytest.approx(states[-1]["loss"], rel=1e-4)
    assert told[0]["loss"] == told[1]["loss"], "the loss is that of the whole batch on both"
    assert len(losses_in(tmp_path / "two")) == 9, "only the first process may log"


# --- milestones -------------------------------------------------------------------------------

def test_milestones_see_the_ema_and_leave_no_trace(tmp_path, unbroken):
    model = mlp()
    model[3].eval()  # a part that the caller froze
    seen = {}

    def sample(given, step):
        torch.manual_seed(0)
        seen[step] = {n: v.clone() for n, v in given.state_dict().items()}
        assert not any(m.training for m in given.modules()) and not torch.is_grad_enabled()
        return {"mean": given(torch.ones(1, 2)).mean().item()}

    _, states = start(tmp_path, model=model, sample=sample, milestones=[3, 40], save_every=0)
    for state in states:
        assert [m.training for m in model] == [True, True, True, False]
        if state["step"] == 40:
            break
    assert list(seen) == [3, 40]
    assert same(seen[40], files.load_checkpoint(tmp_path)["ema"])
    model, _ = run(tmp_path, sample=sample, milestones=[3, 40, STEPS])
    assert list(seen) == [3, 40, STEPS]
    assert same(model.state_dict(), unbroken[0])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "milestone" in x] == [3, 40, STEPS]
    assert [(x["step"], x["loss"], x["lr"]) for x in lines if "loss" in x] == unbroken[2]
    assert set(lines[1]) == {"step", "loss", "lr", "seconds", "images_per_s"}


# --- trouble ----------------------------------------------------------------------------------

def test_a_sample_that_cannot_be_shown_stops_no_training(tmp_path, unbroken):
    def sample(given, step):
        raise ValueError("A picture holds NaN")

    model, _ = run(tmp_path, sample=sample, milestones=[3])
    assert same(model.state_dict(), unbroken[0]) and model.training
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"step": 3, "no milestone": "A picture holds NaN"} in lines


def test_a_loss_that_is_not_finite_stops_before_it_harms(tmp_path):
    def explode(model, noisy, x):
        value = loss(model, noisy, x)
        return value / 0 if states_done[-1:] == [12] else value

    states_done, model = [], mlp()
    states = fit.fit(model, explode, sample_batch, steps=50, lr=1e-2, folder=tmp_path, save_every=0,
                     device="cpu")
    with pytest.raises(FloatingPointError, match=r"Step 13, lr 0.00\d+: loss is inf.*smaller"):
        for state in states:
            states_done.append(state["step"])
    assert files.load_checkpoint(tmp_path)["step"] == 12
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("words", [
    "CUDA out of memory. Tried to allocate 2 GiB", "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"])
def test_out_of_memory_suggests_half_the_batch(words):
    def burst(model, noisy, x):
        raise torch.OutOfMemoryError(words)

    with pytest.raises(MemoryError, match="Out of memory: draw 8, not 16, samples"):
        list(fit.fit(mlp(), burst, sample_batch, steps=5, lr=1e-2, device="cpu"))


def test_a_really_impossible_batch():
    def burst(model, noisy, x):
        return torch.empty(1 << 60).sum()

    with pytest.raises(MemoryError, match="Out of memory"):
        list(fit.fit(mlp(), burst, sample_batch, steps=5, lr=1e-2, device="cpu"))


def test_other_errors_of_the_loss_come_through():
    def wrong(model, noisy, x):
        return model(noisy[:, :1]).mean()

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(fit.fit(mlp(), wrong, sample_batch, steps=5, lr=1e-2, device="cpu"))


def test_a_full_disk_leaves_a_checkpoint_to_resume_from(tmp_path, unbroken, monkeypatch):
    def full(state, file):
        file.write(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _, states = start(tmp_path, save_every=0)
    with pytest.raises(OSError, match="No space left on device.*the old one is untouched"):
        for state in states:
            if state["step"] == 5:
                monkeypatch.setattr(torch, "save", full)
    monkeypatch.undo()
    model, states = run(tmp_path)
    assert states[0]["step"] == 6
    assert_same(model, tmp_path, unbroken)


@pytest.mark.parametrize("change, message", [
    ({"steps": 0}, "steps must be"), ({"steps": 2.5}, "steps must be"), ({"lr": 0}, "lr must be"),
    ({"lr": float("nan")}, "lr must be"), ({"warmup": 10}, "warmup must be"),
    ({"ema": 1.0}, "ema must be"), ({"clip": 0}, "clip must be"), ({"resume": True}, "a folder"),
    ({"sample_batch": lambda step: torch.ones(4, 2)}, "tensors in a tuple"),
    ({"sample_batch": lambda step: (torch.ones(4), torch.ones(5))}, "tensors in a tuple"),
    ({"sample_batch": lambda step: (torch.ones(0, 2),)}, "tensors in a tuple"),
    ({"sample_batch": lambda step: (torch.ones(4), 3)}, "tensors in a tuple"),
    ({"sample_batch": lambda step: ()}, "tensors in a tuple"),
])
def test_bad_arguments_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        fit.fit(**({"model": mlp(), "loss": loss, "sample_batch": sample_batch, "steps": 10,
                    "lr": 1e-2} | change))


def test_the_bar_hands_the_states_on(capsys):
    _, states = start(steps=12)
    assert [s["step"] for s in fit.progress(states, 12)] == list(range(1, 13))
    shown = capsys.readouterr().err
    assert "12/12" in shown and "images/s" in shown and "loss" in shown


if __name__ == "__main__":
    child_main(*sys.argv[1:])
