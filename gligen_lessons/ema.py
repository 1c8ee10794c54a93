"""The exponential moving average of a model's weights: a smoother model than the last step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class EMA:
    """An exponential moving average of a model's trainable weights.

    average <- d average + (1 - d) weight, with d = min(decay, (1 + step) / (10 + step)), so that
    the untrained weights of the beginning are soon forgotten. Buffers are not averaged.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights made by step 0, 1, 2, ..."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight, 1 - decay)

    def keep(self) -> None:
        """Give the model the average for good."""
        _copy(self.average, self.weights)

    def load(self, average: dict[str, torch.Tensor]) -> None:
        """Take over an average, by name, from a checkpoint."""
        _copy(average, self.average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the model holds the average; after it, its own weights again."""
        raw = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.keep()
        try:
            yield
        finally:
            _copy(raw, self.weights)

    def model_state(self) -> dict[str, torch.Tensor]:
        """The model's state dict, as copies, with the average in place of the weights."""
        with self.in_place():
            return {name: value.clone() for name, value in self.model.state_dict().items()}


@torch.no_grad()
def _copy(values: dict[str, torch.Tensor], into: dict[str, torch.Tensor]) -> None:
    for name, value in values.items():
        into[name].copy_(value)
