"""Networks from configs and tensors of files: built, compared and filled, or refused by name."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def built(build: Callable[[], nn.Module], tensors: dict[str, Tensor],
          source: str | Path) -> nn.Module:
    """The network that `build` makes, if the tensors of `source` are its own.

    Made without memory first, so that a config of giants is refused before it takes any.
    ValueError where the config cannot be built, or does not fit the tensors.
    """
    try:
        with torch.device("meta"), _Outline():
            outline = build()
        check_fit(outline, tensors, source)
        return build()
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"{source}, whose config cannot be built: {error}") from error
    except Exception as error:                            # a config may hold anything
        raise ValueError(f"{source}: its config cannot be built ({type(error).__name__}: "
                         f"{' '.join(str(error).split())}).") from error


class _Outline(TorchFunctionMode):
    """Draws no first weights: where a network has no memory there is nothing to fill."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if function is torch.randn else function)(*args, **kwargs)


def fill(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> nn.Module:
    """The model with all its tensors taken from `tensors`, which came from `source`."""
    check_fit(model, tensors, source)
    model.load_state_dict(tensors)
    return model


def check_fit(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Refuse tensors that are not those of the model.

    ValueError names the first that is missing, too much, of another shape or kind of number, or
    not finite.
    """
    own = model.state_dict()
    for key in sorted(own.keys() | tensors.keys()):
        have, want = tensors.get(key), own.get(key)
        if have is None or want is None or have.shape != want.shape:
            sizes = ["none" if x is None else str(tuple(x.shape)) for x in (have, want)]
            raise ValueError(f"{source} does not fit the model's config: {key} is {sizes[0]} in "
                             f"the file and {sizes[1]} in the model.")
        if have.is_floating_point() != want.is_floating_point():
            raise ValueError(f"{source}: {key} holds {have.dtype}, the model {want.dtype}.")
        if not bool(have.isfinite().all()):
            raise ValueError(f"{source}: {key} holds NaN or infinity.")
