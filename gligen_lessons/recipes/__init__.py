"""How each shipped model is trained: one recipe a model name, found by `get`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

from torch import nn

HOMES = {"ddpm": "ddpm", "referee-crop": "referee", "referee-scene": "referee"}


@dataclass
class Recipe:
    """What `train` needs to make one model.

    `draw(step)` gives the whole batch of a step, `loss(model, *batch)` its mean loss;
    `sample(model, step)` what the log shows of the model at `milestones` (parts of the run);
    `report(model)` the metrics on the model's card; `options` go to `fit` as they are.
    """

    name: str
    model: nn.Module
    config: dict
    data: str
    draw: Callable
    loss: Callable
    steps: int
    lr: float
    report: Callable
    sample: Callable | None = None
    milestones: tuple[float, ...] = (.02, .05, .1, .25, .5, 1.)
    options: dict = field(default_factory=dict)


def get(name: str, steps: int | None = None, **arguments) -> Recipe:
    """The recipe of a model, for its own number of steps or another.

    Raises ValueError for a name that has no recipe.
    """
    if name not in HOMES:
        raise ValueError(f"There is no model {name!r} to train; choose from {', '.join(HOMES)}.")
    module = import_module(f"{__name__}.{HOMES[name]}")
    return getattr(module, name.replace("-", "_"))(steps=steps, **arguments)
