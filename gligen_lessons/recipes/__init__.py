"""How each shipped model is trained: one recipe a model name, found by `get`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

import torch
from torch import Tensor, nn

from .. import device
from ..models import MODELS
from ..world.cache import Renders, renders


@dataclass(kw_only=True)
class Recipe:
    """What `train` needs to make one model.

    `generate(step)` gives the whole batch of a step, `loss(model, *batch)` its mean loss;
    `sample(model, step)` what the log shows of the model at `milestones` (parts of the run);
    `report(model)` the metrics on the model's card; `learned(model)` what its config gains from
    training; `kept(model)` names the tensors to save where others come from another model's file;
    `options` go to `fit` as they are; `helpers` says on the card which losses there were besides
    the paper's. Where `model` is Helped, all but `loss` get the bare network.
    """

    name: str
    model: nn.Module
    config: dict
    data: str
    sample_batch: Callable
    loss: Callable
    steps: int
    lr: float
    report: Callable
    sample: Callable | None = None
    milestones: tuple[float, ...] = (.02, .05, .1, .25, .5, 1.)
    options: dict = field(default_factory=dict)
    learned: Callable = lambda model: {}
    kept: Callable = lambda model: list(model.state_dict())
    helpers: str = "none"


def scenes(split: str, steps: int, batch: int, most: int | None = None,
           size: int = 128) -> Renders:
    """The scenes that a run of `steps` batches learns from: at most `most`, or fewer.

    20,000 unless given, 80,000 on a GPU.
    """
    most = most or (80_000 if device.compute_budget() == "full" else 20_000)
    return renders(split, min(most, batch * steps), size)


def on_device(images) -> Tensor:
    """All pictures of a split (n,h,w,3) uint8 where the training computes."""
    return torch.tensor(images, device=device.pick())


def seeded(build: Callable[..., nn.Module], *arguments, **config) -> nn.Module:
    """A network with first weights that depend on nothing that was drawn before."""
    torch.manual_seed(0)
    return build(*arguments, **config)


def get(name: str, steps: int | None = None, **arguments) -> Recipe:
    """The recipe of a model, for its own number of steps or another.

    Raises ValueError for a name that has no recipe.
    """
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r} to train; choose from {', '.join(MODELS)}.")
    module = import_module(f"{__name__}.{MODELS[name].recipe}")
    torch.manual_seed(0)                                  # the same first weights every time
    return getattr(module, name.replace("-", "_"))(steps=steps, **arguments)
