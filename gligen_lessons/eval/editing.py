"""How well edits did where the true answer is known: obeyed inside, unchanged outside."""

import torch
from torch import Tensor, nn

from ..attribute_referee import truth_of
from ..datasets.edits import EditCase, removed
from ..images import crops
from ..latent import TextToImage
from ..prompt2prompt import Blend, Control, edit_latents
from ..referee import CROP
from ..world.vocabulary import CATEGORIES, COLOURS

REGIONS = ("recolour", "replace")                         # edits whose true change is a place
ASKED = {"recolour": ("category", "colour"), "retexture": ("category", "pattern"),
         "replace": ("category",), "time": ("time",), "weather": ("weather",),
         "restyle": ("style",), "add": ("category", "colour"), "move": ("category", "colour")}


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


def succeeded(found: dict[str, Tensor], some: list[EditCase]) -> Tensor:
    """Whether each picture shows what its edit asks for, (b,) bool.

    `found` is what the referee of attributes says of pictures and of the edits' boxes. A weather
    must also be nearer to the amount after the edit than to that before; where a thing was
    removed, none of its category may be left in the box.
    """
    done = []
    for i, case in enumerate(some):
        one, says = case.edit, {name: values[i].item() for name, values in found.items()}
        if one.kind == "remove":
            done.append(says["category"] != truth_of(one.before, removed(one))["category"])
            continue
        wanted = truth_of(one.after, one.index)
        right = all(says[name] == wanted[name] for name in ASKED[one.kind])
        if one.kind == "weather":
            was = truth_of(one.before)["amount"]
            right &= abs(says["amount"] - wanted["amount"]) < abs(says["amount"] - was)
        done.append(right)
    return torch.tensor(done)


def psnr_in(a: Tensor, b: Tensor, region: Tensor) -> Tensor:
    """PSNR in dB of each picture (b,3,h,w) over a region (b,1,h,w) of ones, by its own size.

    Infinite where nothing differs, NaN where the region is empty.
    """
    size = 3 * region.flatten(1).sum(1)                                     # (b,)
    square = ((a - b).square() * region).flatten(1).sum(1) / size
    return 10 * torch.log10(4 / square)


def repaint(parts: TextToImage, some: list[EditCase], code: Tensor, control: Control,
            guidance_scale: float = 5., local: Blend | None = None,
            nulls: Tensor | None = None) -> Tensor:
    """Prompt-to-Prompt on given pictures, from their DDIM code (b,4,h,w): latents (2b,4,h,w).

    The bases first. Guidance leads away from `nulls` (steps,b,n,d), or else from the source
    caption (negative-prompt inversion), so that these come back.
    """
    sources, queries = [case.reference for case in some], [case.query for case in some]
    if nulls is None:
        steps = control.table.shape[1] - 1
        nulls = parts.context(sources).expand(steps, -1, -1, -1)
    *_, (_, z) = edit_latents(parts, sources, queries, code, control, guidance_scale, local, nulls)
    return z
