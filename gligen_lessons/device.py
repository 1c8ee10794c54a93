"""Which device computes, how far a lesson trains on it, and where randomness comes from."""

import os
import platform
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .reading import as_whole

DIALS = ("small", "normal", "full")


def pick() -> torch.device:
    """The device to compute on: GLIGEN_LESSONS_DEVICE if set, else CUDA, Apple's MPS, the CPU."""
    requested = os.environ.get("GLIGEN_LESSONS_DEVICE")
    if requested:
        return torch.device(requested)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def compute_budget() -> str:
    """How far lessons train: "small" (tests), "normal" (CPU) or "full" (GPU).

    GLIGEN_LESSONS_DIAL sets it; without it a CUDA device means "full". Raises ValueError for
    any other word.
    """
    default = "full" if pick().type == "cuda" else "normal"
    requested = os.environ.get("GLIGEN_LESSONS_DIAL", default)
    if requested not in DIALS:
        raise ValueError(f"GLIGEN_LESSONS_DIAL is {requested!r}; it must be one of "
                         f"{', '.join(DIALS)}.")
    return requested


def steps(cpu: int, gpu: int) -> int:
    """The number of training or sampling steps for this machine's compute budget."""
    return {"small": max(2, cpu // 10), "normal": cpu, "full": gpu}[compute_budget()]


def bf16(device: torch.device) -> bool:
    """Whether training computes in bfloat16 there: where CUDA has it.

    On a CPU only if GLIGEN_LESSONS_BF16 is 1, since most compute no faster with it.
    """
    if device.type == "cpu":
        return os.environ.get("GLIGEN_LESSONS_BF16") == "1"
    return device.type == "cuda" and torch.cuda.is_bf16_supported(False)


@contextmanager
def half_precision(device: torch.device):
    """Within this context networks compute in bfloat16, if `bf16` says so."""
    wanted = bf16(device)
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=wanted))
        if wanted and device.type == "cpu":
            stack.enter_context(_AttentionIn32Bits())
        yield


class _AttentionIn32Bits(TorchFunctionMode):
    """On a CPU the attention of torch 2.13 is several times slower in bfloat16, backwards."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return function(*(x.float() for x in args), **(kwargs or {}))


def generator(seed: int) -> torch.Generator:
    """A seeded source of noise on the CPU: the same numbers whatever device computes.

    Seeds are whole numbers of any kind, 0 to 2**32 - 1 (ValueError): torch's generator on the CPU
    reads 32 bits of one, so that others would give what these give.
    """
    number = as_whole(seed, "A seed")
    if not 0 <= number < 2 ** 32:
        raise ValueError(f"A seed must be at least 0 and less than 2**32, got {number}.")
    return torch.Generator().manual_seed(number)


def generators(seed: int, count: int) -> list[torch.Generator]:
    """A source of noise for each of `count` pictures: seed, seed + 1, ..."""
    first = as_whole(seed, "A seed")                  # Python's own: 8 bits would overflow
    return [generator(first + i) for i in range(count)]


def noise(shape: tuple[int, ...], generator: torch.Generator, device=None) -> torch.Tensor:
    """Standard normal noise drawn on the CPU, then moved, so that a seed means one picture."""
    return torch.randn(shape, generator=generator).to(device or pick())


def noise_each(shape: tuple[int, ...], generators: list[torch.Generator],
               device=None) -> torch.Tensor:
    """One draw of a shape from each generator, (n, *shape): picture i depends on its own alone."""
    return torch.cat([noise((1, *shape), g, device) for g in generators])


def report() -> dict[str, str]:
    """What this machine can do, in lines for `doctor` and lesson 0."""
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(pick()),
        "dial": compute_budget(),
        "cpu threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts
