"""Which device computes, how far a lesson trains on it, and where randomness comes from."""

import os
import platform

import torch

DIALS = ("small", "normal", "full")


def pick() -> torch.device:
    """The device to compute on: GLIGEN_LESSONS_DEVICE if set, else CUDA, Apple's MPS, the CPU."""
    asked = os.environ.get("GLIGEN_LESSONS_DEVICE")
    if asked:
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def dial() -> str:
    """How far lessons train: "small" (tests), "normal" (CPU) or "full" (GPU).

    GLIGEN_LESSONS_DIAL sets it; without it a CUDA device means "full". Raises ValueError for
    any other word.
    """
    default = "full" if pick().type == "cuda" else "normal"
    asked = os.environ.get("GLIGEN_LESSONS_DIAL", default)
    if asked not in DIALS:
        raise ValueError(f"GLIGEN_LESSONS_DIAL is {asked!r}; it must be one of {', '.join(DIALS)}.")
    return asked


def steps(cpu: int, gpu: int) -> int:
    """The number of training or sampling steps for this machine's dial."""
    return {"small": max(2, cpu // 10), "normal": cpu, "full": gpu}[dial()]


def bf16(device: torch.device) -> bool:
    """Whether training computes in bfloat16 there: where CUDA has it.

    On a CPU only if GLIGEN_LESSONS_BF16 is 1, since most compute no faster with it.
    """
    if device.type == "cpu":
        return os.environ.get("GLIGEN_LESSONS_BF16") == "1"
    return device.type == "cuda" and torch.cuda.is_bf16_supported(False)


def generator(seed: int) -> torch.Generator:
    """A seeded source of noise on the CPU: the same numbers whatever device computes."""
    return torch.Generator().manual_seed(seed)


def noise(shape: tuple[int, ...], generator: torch.Generator, device=None) -> torch.Tensor:
    """Standard normal noise drawn on the CPU, then moved, so that a seed means one picture."""
    return torch.randn(shape, generator=generator).to(device or pick())


def report() -> dict[str, str]:
    """What this machine can do, in lines for `doctor` and lesson 0."""
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(pick()),
        "dial": dial(),
        "cpu threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts
