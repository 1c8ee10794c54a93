"""What every exercise's check is made of; the checks themselves stand in one file a lesson.

A check is a plain function with the name of its exercise. It takes the learner's attempt, raises
Wrong with a message that teaches, and returns what it verified, with a number:

    @exercise("gligen_lessons.ddpm:q_sample")
    def q_sample(attempt):
        error = expect_close(attempt(x0, t, eps, schedule), want, "...", wrongs={...})
        return f"agrees with equation 4 to {error:.0e}"
"""

import importlib
import inspect
import linecache
import os
import traceback
from collections.abc import Callable
from functools import reduce, wraps

import torch


class Wrong(AssertionError):
    """An answer that a check refuses; a notebook shows its message and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet right: {self}"]


class Open(NotImplementedError):
    """An exercise left open while nbgrader marks it; a learner on their own never meets it."""

    _render_traceback_ = Wrong._render_traceback_


def library(target: str):
    """The library's own version of "module:name" or "module:Class.method"."""
    module, _, name = target.partition(":")
    return reduce(getattr, name.split("."), importlib.import_module(module))


def exercise(target: str) -> Callable:
    """Turn a check into what a notebook calls: `q_sample = checks.q_sample(q_sample)`.

    Right: prints what was verified and returns the attempt. Open (its body raises a bare
    NotImplementedError): says so and returns the library's version. Wrong: raises Wrong. The plain
    check stays reachable as `.__wrapped__`, its address as `.target`.
    """
    def wrap(check: Callable[[object], str]) -> Callable:
        @wraps(check)
        def run(attempt):
            own = library(target)
            if attempt is own:
                print(f"{check.__name__} is the library's version now; run your own cell above, "
                      "then this one.")
                return own
            try:
                praise = _judge(check, attempt)
            except NotImplementedError as error:
                return _left_open(check.__name__, attempt, error, own)
            print(f"Well done: {check.__name__} {praise}")
            return attempt
        run.target = target
        return run
    return wrap


def _judge(check: Callable, attempt) -> str:
    """Run a check with the CPU's random state set and put back; errors inside become Wrong."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        return check(attempt)
    except Wrong:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and not error.args:
            raise
        raise Wrong(f"{check.__name__} stopped with {type(error).__name__}: {error}"
                    f"{_where(attempt, error)}.") from error
    finally:
        torch.set_rng_state(state)


def _left_open(name: str, attempt, error: Exception, own):
    """Say that an exercise is open and hand on the library's version; refuse when nbgrader asks."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1].name
    parts = set(vars(attempt)) if isinstance(attempt, type) else {getattr(attempt, "__name__", "")}
    what = f"{name} is still open"
    if raised_in not in parts:
        what = f"{name} calls {raised_in}, which is still open"
    if os.environ.get("NBGRADER_EXECUTION"):
        raise Open(f"{what}.")
    print(f"{what}. The lesson goes on with the library's version; come back when you like, "
          "write yours and run both cells again.")
    return own


def _where(attempt, error: Exception) -> str:
    """The learner's line in which an error arose, as words to append; empty when it is not known.

    The learner's file is that of the attempt, or of a method of it.
    """
    own = inspect.unwrap(attempt) if callable(attempt) else attempt         # below decorators
    parts = [own, *vars(own).values()] if isinstance(own, type) else [own]
    files = {p.__code__.co_filename for p in parts if hasattr(p, "__code__")}
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    if not lines:
        return ""
    text = linecache.getline(lines[-1].filename, lines[-1].lineno).strip()
    return f" (your line {lines[-1].lineno}: {text})" if text else ""


def expect_no_draw(attempt: Callable, noise: str, *args, **named):
    """Call an attempt that is handed its noise; refuse one that draws some of its own."""
    state = torch.get_rng_state()
    told = attempt(*args, **named)
    if not torch.equal(torch.get_rng_state(), state):
        raise Wrong(f"noise was drawn in here, and is not the `{noise}` that was handed in. Draw "
                    f"none: the same `{noise}` must be used wherever the formula has it.")
    return told


def expect_unchanged(attempt: Callable, **given: torch.Tensor):
    """Call an attempt with copies of tensors, in this order; refuse one that changes any."""
    copies = {name: value.clone() for name, value in given.items()}
    told = attempt(*copies.values())
    for name, value in given.items():
        if not torch.equal(copies[name], value):
            raise Wrong(f"`{name}` itself was changed: others still read it. Return a new tensor.")
    return told


def expect_close(got, want, message: str, tol: float = 1e-5, mistakes: dict | None = None) -> float:
    """Refuse `got` unless it equals `want` to `tol`; returns the largest difference.

    Tensors, arrays, numbers, and tuples, lists and dicts of them. The difference is measured
    against the largest value of `want`, or 1. `message` says what to mend when the values differ;
    `mistakes` is handed to `looks_like` first.
    """
    if got is None:
        raise Wrong("it returned None. Does it end with `return`?")
    looks_like(got, mistakes or {})
    if isinstance(want, dict):
        if not isinstance(got, dict) or set(got) != set(want):
            raise Wrong(f"expected a dict with the keys {sorted(want)}, got {_kind(got)}.")
        got, want = [got[key] for key in want], list(want.values())
    if isinstance(want, tuple | list):
        if not isinstance(got, tuple | list) or len(got) != len(want):
            raise Wrong(f"expected {len(want)} values, got {_kind(got)}.")
        pairs = zip(got, want, strict=True)
        return max((expect_close(g, w, message, tol) for g, w in pairs), default=0.0)
    got, want = _tensor(got), _tensor(want)
    _expect_form(got, want)
    error = _distance(got, want)
    if not error <= tol:                                           # also refuses NaN
        raise Wrong(f"{message} (largest difference {error:.2g}.)")
    return error


def looks_like(got, mistakes: dict[str, object]) -> None:
    """Raise Wrong with the message whose typical wrong value `got` equals: {message: value}."""
    for message, value in mistakes.items():
        pairs = list(zip(got, value, strict=False)) if isinstance(value, tuple) else [(got, value)]
        if isinstance(value, tuple) and not (isinstance(got, tuple) and len(got) == len(value)):
            continue
        if all(_alike(g, v) for g, v in pairs):
            raise Wrong(message)


def _alike(got, value) -> bool:
    try:
        got, value = _tensor(got), _tensor(value)
    except Wrong:
        return False
    return got.shape == value.shape and _distance(got, value, 1e-12) <= 1e-4


def _kind(value) -> str:
    """How a message names a value."""
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _tensor(value) -> torch.Tensor:
    """A value as a tensor on the CPU, or Wrong where it is none."""
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"expected a tensor, got {_kind(value)}.") from None


def _expect_form(got: torch.Tensor, want: torch.Tensor) -> None:
    """Refuse another shape, another dtype, and values that are not finite."""
    if got.shape != want.shape:
        raise Wrong(f"the result has shape {tuple(got.shape)}, expected {tuple(want.shape)}. "
                    "Look at the shapes of what you combine, one line at a time.")
    if got.dtype != want.dtype and want.ndim:
        raise Wrong(f"the result is {got.dtype}, expected {want.dtype}. Bring it to the dtype of "
                    "what was handed in, such as with `.to(x.dtype)`.")
    if bad := int((~torch.isfinite(got)).sum()):
        raise Wrong(f"{bad} of {got.numel()} values are NaN or infinite. Look for a division by "
                    "zero, the root of a negative number, or 0 times infinity.")


def _distance(got: torch.Tensor, want: torch.Tensor, floor: float = 1.0) -> float:
    """The largest difference, relative to the largest value of `want` where that is above floor."""
    if not want.numel():
        return 0.0
    got, want = got.double(), want.double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=floor))
