"""How well edits did where the true answer is known: obeyed inside, unchanged outside."""

import torch
from torch import Tensor, nn

from ..datasets.edits import EditCase
from ..images import crops
from ..referee import CROP
from ..world.vocabulary import CATEGORIES, COLOURS


def mask_iou(mask: Tensor, changed: Tensor) -> Tensor:
    """Shared area of masks (b,1,m,m) and of what changes (b,h,w), over their union: (b,).

    A mask of coarse cells counts with all pixels of its cells, so that 1 cannot be reached.
    """
    scale = changed.shape[-1] // mask.shape[-1]
    fine = mask[:, 0].repeat_interleave(scale, 1).repeat_interleave(scale, 2) > .5
    true = changed > .5
    shared = (fine & true).flatten(1).sum(1)
    return shared / (fine | true).flatten(1).sum(1).clamp(min=1)


def cells_of(changed: Tensor, side: int, least: float = .5) -> Tensor:
    """What changes (b,h,w) as masks (b,1,side,side): cells of which more than `least` changes."""
    scale = changed.shape[-1] // side
    covered = changed.unfold(1, scale, scale).unfold(2, scale, scale).mean((3, 4))
    return (covered > least).float()[:, None]


def changed_outside(x: Tensor, cases: list[EditCase]) -> Tensor:
    """The mean absolute difference to the source outside the true change, of 255: (b,)."""
    before = torch.stack([case.before for case in cases])
    outside = 1 - torch.stack([case.changed for case in cases])[:, None]
    apart = 127.5 * (x.clamp(-1, 1) - before).abs() * outside
    return apart.flatten(1).sum(1) / (3 * outside.flatten(1).sum(1))


@torch.no_grad()
def edit_obeyed(judge: nn.Module, x: Tensor, cases: list[EditCase]) -> Tensor:
    """How likely the crop referee finds the wanted thing in its box, (b,) in 0..1.

    Its probability of the category times that of the colour.
    """
    wanted = [case.edit.after.things[case.edit.index] for case in cases]
    found = crops(x, torch.stack([case.box for case in cases]), torch.arange(len(x)), CROP)
    category, colour = (logits.softmax(1) for logits in judge(found))
    rows = torch.arange(len(x))
    return (category[rows, [CATEGORIES.index(t.category) for t in wanted]]
            * colour[rows, [list(COLOURS).index(t.colour) for t in wanted]])
