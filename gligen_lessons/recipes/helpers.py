"""Helper losses: what a network learns besides during training, and forgets before it is shipped.

The world knows what is shown at every position. A small head that names it from a network's inner
states gives those states a reason to be about things, long before the paper's loss does (as REPA,
Yu et al. 2024, arXiv 2410.06940, does with the features of another network). The head is thrown
away, and in the last quarter of a run it counts nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.labelled import NOTHING
from ..referee import BACKGROUND
from ..world.vocabulary import COLOURS

OFF = .75                                                 # of the run; then the head counts nothing
FADE = .1                                                 # of the run, in which it fades out
THING = 4.                                                # weight of a position that shows a thing
ELSEWHERE = .25                                           # ... of one that shows none


class Helped(nn.Module):
    """A network and the head that helps to train it; only `model` is shipped."""

    def __init__(self, model: nn.Module, head: nn.Module):
        super().__init__()
        self.model, self.head = model, head


def bare(module: nn.Module) -> nn.Module:
    """The network without its helper, if it has one."""
    return module.model if isinstance(module, Helped) else module


class CellHead(nn.Module):
    """Names the category (or none) and the colour at each position from states (b,positions,d)."""

    def __init__(self, d: int, hidden: int = 128):
        super().__init__()
        self.hidden = nn.Linear(d, hidden)
        self.names = nn.Linear(hidden, BACKGROUND + 1 + len(COLOURS))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b,positions,19) and (b,positions,10)."""
        both = self.names(F.silu(self.hidden(states)))
        return both[..., :BACKGROUND + 1], both[..., BACKGROUND + 1:]


def cell_loss(head: CellHead, states: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of category and colour at each position, (b,), for states (b,positions,d)."""
    by_category, by_colour = head(states)
    thing = codes != NOTHING                                                # (b,positions)
    category = torch.where(thing, codes // len(COLOURS), BACKGROUND)
    weight = torch.where(thing, THING, ELSEWHERE)
    weight = weight / weight.mean(1, keepdim=True)
    here = F.cross_entropy(by_category.transpose(1, 2), category, reduction="none")
    shade = F.cross_entropy(by_colour.transpose(1, 2), codes % len(COLOURS), reduction="none")
    return (weight * (here + shade * thing)).mean(1)


def help_at(step: int, steps: int) -> float:
    """What the helper counts at a step: 1, then fading to 0 before the last quarter."""
    return min(1., max(0., (OFF - step / steps) / FADE))


def step_weight(alpha_bar_t: Tensor) -> Tensor:
    """What a step counts: min-SNR (Hang et al. 2023, arXiv 2303.09556), and more where x0 is open.

    min(SNR, 5) / SNR holds back the many steps that only polish; 1 / alpha_bar, at most 10,
    stresses those in which the caption decides.
    """
    snr = alpha_bar_t / (1 - alpha_bar_t)
    return snr.clamp(max=5.) / snr * (1 / alpha_bar_t).clamp(max=10.)


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Within this context, the list gains what `module` returns each time it is called."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        yield seen
    finally:
        hook.remove()
