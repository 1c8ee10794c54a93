"""The training loop of every lesson: lesson 1's ten lines, grown up.

    for state in fit(model, loss, draw, steps=1000, lr=1e-3):
        print(state["step"], state["loss"])

One idea lies behind what was added to the ten lines: whatever happens in a step (batch, dropout,
learning rate, EMA) depends on the number of the step alone. So a run that was killed and resumed,
cut into pieces, or spread over processes gives the weights of one long run.
"""

import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from .device import generator, half_precision, pick
from .ema import EMA
from .files import append_line, cut_log, load_checkpoint, save_checkpoint
from .muon import groups as muon_groups
from .muon import optimizers

OUT_OF_MEMORY = re.compile("(?i)out of memory|can't allocate memory|not enough memory")


class Interrupted(SystemExit):
    """SIGTERM ended the run; the message says what was saved. Uncaught, the exit status is 143."""

    code = 143


def fit(
    model: torch.nn.Module, loss: Callable[..., torch.Tensor],
    sample_batch: Callable[[int], tuple], *,
    steps: int, lr: float, warmup: int | None = None, weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999), clip: float | None = 1.0,
    ema: float | None = 0.999, seed: int = 0, device: torch.device | str | None = None,
    optimizer: str = "adamw",
    groups: Callable[[torch.nn.Module], list[dict]] | None = None,
    folder: str | Path | None = None, resume: bool = False, minutes: float | None = None,
    save_every: float = 60.0, log_every: int = 50,
    sample: Callable[[torch.nn.Module, int], dict] | None = None, milestones: Iterable[int] = (),
) -> Iterator[dict]:
    """Train a model; yield step (from 1), loss, lr, images_per_s, seconds, processes each step.

    draw(step) -> the WHOLE batch, from the step's number alone (`step_generator`): tensors (b, ...)
    loss(model, *batch) -> scalar, a mean over samples: of P processes each takes every P-th one
    optimizer: "adamw", or "muon" for weights of two and more dimensions (AdamW for the others)
    groups(model) -> parameter groups, each with its own lr (muon.groups makes those of "muon");
        clip: the gradient's norm
    warmup: steps until lr is reached, None a twentieth of all (`lr_at`); see also device.bf16
    folder: keeps checkpoint/ (made every save_every seconds, at the end, and on SIGTERM, which
        raises Interrupted) and log.jsonl (a line every log_every steps); resume goes on from there,
        without it a run starts again and replaces what lies there
    minutes: stop early, everything saved; nothing else changes
    sample(model, step) -> small dict for the log, in eval mode with the EMA weights, at milestones

    When the loop has run out, `model` holds the EMA weights (raw ones with ema=None); after a
    `break` the raw ones. A finished run, resumed, yields its last state again. ValueError tells
    of bad arguments (at once), FloatingPointError of a loss that is not finite, MemoryError of too
    big a batch, OSError of a full disk (the old checkpoint stays).
    """
    plan = {"steps": steps, "lr": lr, "warmup": steps // 20 if warmup is None else warmup,
            "weight_decay": weight_decay, "betas": list(betas), "clip": clip, "ema": ema,
            "seed": seed, "optimizer": optimizer, "batch": _size(sample_batch(0))}
    _check(plan, folder, resume)
    plan = {key: _as_python(value) for key, value in plan.items()}
    run = _Run(model, loss, sample_batch, plan, torch.device(device or pick()), groups, folder)
    if resume and (saved := load_checkpoint(folder)):
        run.restore(saved)
    return _states(run, minutes, save_every, log_every, sample, set(milestones))


def lr_at(step: int, steps: int, lr: float, warmup: int = 0) -> float:
    """The learning rate of step 0 to steps - 1: linear warm-up, then a cosine down to 0."""
    if step < warmup:
        return lr * (step + 1) / warmup
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def step_seed(*numbers: int) -> int:
    """One seed of 32 bits from several numbers >= 0, such as (seed, step).

    Shifts and sums would not do: torch's CPU generator looks at the low 32 bits only.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator from which `sample_batch` takes everything that is random in one step."""
    return generator(step_seed(seed, step))


def progress(states: Iterable[dict], total: int) -> Iterator[dict]:
    """Hand the states of `fit` on and show a bar with loss and images a second."""
    from tqdm.auto import tqdm

    with tqdm(total=total, disable=os.environ.get("RANK", "0") != "0") as bar:  # one bar in all
        for state in states:
            text = f"loss {state['loss']:.4f}, {state['images_per_s']:.0f} images/s"
            bar.set_postfix_str(text, refresh=False)
            bar.update(state["step"] - bar.n)
            yield state


class _Run:
    """What a checkpoint holds, and the one step that moves it on."""

    def __init__(self, model, loss, sample_batch, plan, device, groups, folder):
        self.processes, self.device = _processes(device)
        self.model, self.loss, self.sample_batch = model.to(self.device), loss, sample_batch
        if self.processes.num_processes > 1:  # all start from the weights of the first
            for value in model.state_dict().values():
                torch.distributed.broadcast(value, 0)
        self.optimizers = optimizers(
            (groups or _all_of(plan))(model), plan["lr"], plan["weight_decay"],
            tuple(plan["betas"]), fused=self.device.type in ("cpu", "cuda"))
        for group in self.groups():
            group["peak"] = group["lr"] = _as_python(group["lr"])
        self.plan = plan | {"peaks": [group["peak"] for group in self.groups()]}
        self.parameters = [p for group in self.groups() for p in group["params"]]
        self.ema = None if plan["ema"] is None else EMA(model, plan["ema"])
        self.done, self.losses, self.folder = 0, [], folder
        self.state = {"step": 0, "seconds": 0.0}

    def groups(self) -> list[dict]:
        """The parameter groups of all optimizers, as they are now."""
        return [group for one in self.optimizers for group in one.param_groups]

    def advance(self, stop: bool) -> tuple[float, float, bool]:
        """Make one step: the whole batch's loss, the lr, and whether any process wants to stop."""
        loss = self.loss_of_step()
        self.model.zero_grad()
        loss.backward()
        loss, stop = self.agree(loss.detach().float(), stop)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.plan["clip"] or math.inf)
        loss, norm = torch.stack([loss, norm.float()]).tolist()  # the only wait for the GPU
        rate = lr_at(self.done, self.plan["steps"], 1.0, self.plan["warmup"])
        lr = self.plan["lr"] * rate
        if not math.isfinite(loss + norm):
            raise FloatingPointError(
                f"Step {self.done + 1}, lr {lr:.3g}: loss is {loss}, gradient {norm}. Try a "
                "smaller lr or a longer warm-up; are the data finite? The checkpoint is untouched.")
        for group in self.groups():
            group["lr"] = group["peak"] * rate
        for one in self.optimizers:
            one.step()
        if self.ema:
            self.ema.update(self.done)
        self.done += 1
        self.losses.append(loss)
        return loss, lr, stop

    def loss_of_step(self) -> torch.Tensor:
        """The loss of this process's share of the batch, in bf16 where that is fast."""
        seed, rank = self.plan["seed"], self.processes.process_index
        torch.manual_seed(step_seed(seed, self.done))
        whole = self.sample_batch(self.done)
        _size(whole, count := self.processes.num_processes)
        batch = [x[rank::count].to(self.device, non_blocking=True) for x in whole]
        torch.manual_seed(step_seed(seed, self.done, 1 + rank))  # or dropout repeats the batch's
        with half_precision(self.device):
            return self.loss(self.model, *batch)

    def agree(self, loss: torch.Tensor, stop: bool) -> tuple[torch.Tensor, bool]:
        """Average gradients and loss over the processes, in one message; stop if one wants to."""
        if self.processes.num_processes == 1:
            return loss, stop
        parts = [p.grad for p in self.parameters if p.grad is not None]
        parts += [loss, loss.new_tensor(float(stop))]
        flat = torch.cat([part.flatten() for part in parts])
        torch.distributed.all_reduce(flat)
        means = (flat / self.processes.num_processes).split([part.numel() for part in parts])
        for part, mean in zip(parts, means, strict=True):
            part.copy_(mean.view_as(part))
        return parts[-2], bool(parts[-1] > 0)

    def milestone(self, sample) -> dict:
        """What `sample` makes of the EMA weights in eval mode; the run goes on as if unasked.

        A sample that is refused (ValueError), such as a picture of NaN, stops no training either.
        """
        training = [module for module in self.model.modules() if module.training]
        with torch.no_grad(), self.ema.in_place() if self.ema else nullcontext():
            try:
                made = {"milestone": sample(self.model.eval(), self.done)}
            except ValueError as error:
                made = {"no milestone": str(error)}
        for module in training:
            module.training = True
        return made

    def save(self) -> None:
        """Write a checkpoint, if there is a folder and this is the first process."""
        held = {"step": self.done, "state": self.state, "losses": self.losses,
                "model": self.model.state_dict(),
                "optimizers": [one.state_dict() for one in self.optimizers],
                "ema": self.ema and self.ema.average, "config": self.plan}
        if self.folder and self.processes.is_main_process:
            save_checkpoint(held, self.folder)

    def restore(self, saved: dict) -> None:
        """Go on from a checkpoint, if it is one of this run."""
        for name, requested in self.plan.items():
            if saved["config"].get(name) != requested:
                raise ValueError(
                    f"The checkpoint in {self.folder} has {name}={saved['config'].get(name)}, this "
                    f"run asks for {name}={requested}: ask for the same, or take another folder.")
        try:
            self.model.load_state_dict(saved["model"])
            for one, state in zip(self.optimizers, saved["optimizers"], strict=True):
                one.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"The checkpoint in {self.folder} is of another model ({error}).") from error
        if self.ema:
            self.ema.load(saved["ema"])
        self.done, self.state, self.losses = saved["step"], saved["state"], saved["losses"]


def _all_of(plan: dict) -> Callable[[torch.nn.Module], list[dict]]:
    """The parameter groups of a run that names none: everything that may learn."""
    if plan["optimizer"] == "muon":
        return lambda model: muon_groups(model, plan["lr"])
    return lambda model: [{"params": [p for p in model.parameters() if p.requires_grad]}]


def _states(run, minutes, save_every, log_every, sample, milestones) -> Iterator[dict]:
    """The loop itself: step, log, milestone, checkpoint, yield."""
    steps, main = run.plan["steps"], run.processes.is_main_process
    log = Path(run.folder, "log.jsonl") if run.folder and main else None
    cut_log(log, run.done)
    began = saved = marked = perf_counter()
    limit = began + (math.inf if minutes is None else 60 * minutes)
    earlier, images, stop = run.state["seconds"], 0, False
    if run.done == 0:
        run.save()  # shows now, not in a minute, whether the disk has room
    if run.done == steps:
        yield run.state
    with _sigterm() as heard:
        while run.done < steps and not stop:
            with _memory_explained(run):
                loss, lr, stop = run.advance(bool(heard) or perf_counter() >= limit)
            now, images = perf_counter(), images + run.plan["batch"]
            run.state = {"step": run.done, "loss": loss, "lr": lr, "seconds": earlier + now - began,
                         "images_per_s": images / (now - marked)}
            if run.done == steps or run.done % log_every == 0:
                append_line(log, run.state | {"loss": sum(run.losses) / len(run.losses)})
                run.losses, images, marked = [], 0, now
            if sample and main and run.done in milestones:
                append_line(log, {"step": run.done, **run.milestone(sample)})
            run.state["processes"] = run.processes.num_processes
            if run.done == steps or stop or now - saved >= save_every:
                run.save()
                saved = perf_counter()
            yield run.state
    run.processes.wait_for_everyone()  # then all of them find the checkpoint
    if heard:
        raise Interrupted(f"SIGTERM stopped the run after step {run.done}; folder: {run.folder}.")
    if run.ema:
        run.ema.keep()


@contextmanager
def _sigterm() -> Iterator[list]:
    """A list that is no longer empty once SIGTERM came (Python hears it in the main thread)."""
    heard, main = [], threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True)) if main else None
    try:
        yield heard
    finally:
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _memory_explained(run: _Run) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not OUT_OF_MEMORY.search(str(error)):
            raise
        size = run.plan["batch"]
        raise MemoryError(f"Out of memory: draw {size // 2 or 1}, not {size}, samples.") from error


def _as_python(value):
    """NumPy's numbers as Python's: a checkpoint that held others could not be read back."""
    if isinstance(value, list):
        return [_as_python(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _processes(device: torch.device):
    """Accelerate's view of the processes (torchrun's, or this one alone), and our device."""
    from accelerate import PartialState

    processes, requested = PartialState(cpu=device.type == "cpu"), int(os.environ.get("WORLD_SIZE",
                                                                                      1))
    if processes.num_processes != requested:
        raise ValueError(f"{requested} processes on {device.type} do not work: set device to cpu.")
    return processes, device if requested == 1 else processes.device


def _size(batch: tuple[torch.Tensor, ...], processes: int = 1) -> int:
    """The number of samples in a batch; ValueError if it is none or cannot be shared evenly."""
    tensors = isinstance(batch, tuple | list) and all(isinstance(x, torch.Tensor) for x in batch)
    sizes = {len(x) if x.ndim else 0 for x in batch} if tensors else {0}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError("draw(step) must return tensors in a tuple, each with all the samples.")
    if max(sizes) % processes:
        raise ValueError(f"{processes} processes cannot share a batch of {max(sizes)} evenly.")
    return max(sizes)


def _check(plan: dict, folder: str | Path | None, resume: bool) -> None:
    for rule, holds in {
        "steps must be a whole number >= 1": plan["steps"] >= 1 and plan["steps"] % 1 == 0,
        "lr must be a finite number > 0": 0 < plan["lr"] < math.inf,
        "warmup must be at least 0 and less than steps": 0 <= plan["warmup"] < plan["steps"],
        "ema must be None or at least 0 and less than 1": 0 <= (plan["ema"] or 0) < 1,
        "clip must be None or > 0": plan["clip"] is None or plan["clip"] > 0,
        "optimizer must be adamw or muon": plan["optimizer"] in ("adamw", "muon"),
        "resume needs a folder": folder is not None or not resume,
    }.items():
        if not holds:
            raise ValueError(f"fit: {rule}; asked for {plan}.")
