"""Checks of lesson 9 on attention from pixels to boxes."""

import torch
from torch import Tensor

from ..nets import attention_map
from . import exercise, expect_close
from ._gligen_gate import drawn_gate


@exercise("gligen_lessons.grounded:gate_attention")
def gate_attention(attempt):
    """Six pixels and four tokens in a gate of three heads, two pictures."""
    gate, x, objs = drawn_gate(), torch.randn(2, 6, 12), torch.randn(2, 4, 5)
    tokens = gate.linear(objs)
    both = torch.cat([x, tokens], 1)
    seen = gate.norm1(both)
    looks = attention_map(gate.attn, seen, seen)                # (b,k,10,10)
    want, turned = looks[:, :, :6, 6:], looks[:, :, 6:, :6]
    raw = attention_map(gate.attn, both, both)[:, :, :6, 6:]
    opening = gate.scale * gate.alpha_attn.tanh()
    mistakes = {
        "Each pixel spreads its attention over the tokens alone: rows sum to one. In a gate it "
        "attends to all pixels too, so join first, and cut after the softmax.":
            want / want.sum(-1, keepdim=True),
        "This is how much the TOKENS attend to the pixels, turned round. Rows are who asks: keep "
        "the pixels' rows and the tokens' columns.": turned.transpose(2, 3),
        "This is how much the tokens attend to the pixels. Keep the pixels' rows and the tokens' "
        "columns.": turned,
        "This is the pixels' attention to each other. The tokens' columns come after the pixels'.":
            looks[:, :, :6, :6],
        "This is the tokens' attention to each other.": looks[:, :, 6:, 6:],
        "This is the whole map. Cut out the pixels' rows and the tokens' columns.": looks,
        "norm1 is missing: the gate normalises what it joins before it attends.": raw,
        "norm1 is applied twice.":
            attention_map(gate.attn, gate.norm1(seen), gate.norm1(seen))[:, :, :6, 6:],
        "The mean over the heads is taken; keep them apart, (b,k,n_pixels,n).": want.mean(1),
        "The attention is multiplied by the gate's opening. Wanted is what pixels attend to, open "
        "or closed.": opening * want,
        "The first columns are cut out. Pixels stand first in the row, tokens after them.":
            looks[:, :, :6, :4]}
    error = expect_close(attempt(gate, x.clone(), objs.clone()), want, "Join pixels and "
                         "`gate.linear(objs)`, norm1, `attention_map` of the whole with itself, "
                         "then cut.", mistakes=mistakes)
    return f"finds the attention of 6 pixels to 4 tokens (largest difference {error:.0e})"


def finely_covered(boxes: Tensor, side: int) -> Tensor:
    """The part of each pixel that a box covers, (b,n,side,side), counted on a fine grid."""
    at = (torch.arange(side * 200) + .5) / (side * 200)
    x = (at > boxes[..., :1]) & (at < boxes[..., 2:3])
    y = (at > boxes[..., 1:2]) & (at < boxes[..., 3:])
    parts = (line.float().unflatten(2, (side, 200)).mean(3) for line in (y, x))
    return torch.einsum("bny,bnx->bnyx", *parts)


@exercise("gligen_lessons.grounded:attention_concentration")
def attention_concentration(attempt):
    """Maps of 5 x 5 pixels, boxes that cut through them, and a slot that nobody uses."""
    maps = torch.rand(2, 3, 5, 5) ** 3
    boxes = torch.tensor([[[.13, .33, .57, .93], [.0, .0, .27, .2], [.42, .12, 1., .37]],
                          [[.25, .46, .75, .68], [.6, .02, .97, .54], [.0, .45, .87, 1.]]])
    inside = finely_covered(boxes, 5)
    mean = maps.mean((2, 3))

    def over(weight: Tensor, below: Tensor = mean, source: Tensor = maps) -> Tensor:
        return (source * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-9) / below
    touched, centred = (inside > 0).float(), (inside > .5).float()
    beside = (maps * (1 - inside)).sum((2, 3)) / (1 - inside).sum((2, 3))
    mistakes = {
        "Rows and columns have changed places: x runs along a row.":
            over(inside.transpose(2, 3)),
        "This is the part of the attention that lies in the box. A large box has a large part by "
        "chance: divide by the area, as a mean does.": (maps * inside).sum((2, 3)) / maps.sum(
            (2, 3)),
        "The mean inside is not compared with anything: divide by the mean over the whole map.":
            over(inside, torch.ones(())),
        "The mean inside is compared with the mean OUTSIDE; divide by that over the whole map.":
            over(inside, beside),
        "A pixel that the box only touches counts in full. Count the part that is covered.":
            over(touched),
        "Pixels count in full or not at all. Count the part that the box covers.": over(centred),
        "The boxes were read as centre, width, height. They are left, top, right, bottom.":
            over(finely_covered(torch.cat([boxes[..., :2] - boxes[..., 2:] / 2,
                                    boxes[..., :2] + boxes[..., 2:] / 2], -1), 5)),
        "This sums inside the box where a mean belongs: large boxes win.":
            (maps * inside).sum((2, 3)) / mean,
        "The fraction is upside down: inside stands above.": 1 / over(inside)}
    error = expect_close(attempt(maps.clone(), boxes.clone()), over(inside), "The mean of the map "
                         "inside the box, over its mean everywhere.", mistakes=mistakes)
    small_numbers(attempt, maps, boxes)
    return f"measures 6 boxes on maps of 5 x 5 (largest difference {error:.0e})"


def small_numbers(attempt, maps: Tensor, boxes: Tensor) -> None:
    """Maps as small as real ones, a box of less than a pixel, and a slot that nobody uses."""
    small, narrow = 1e-3 * maps, boxes.clone()
    narrow[0, 0] = torch.tensor([.42, .62, .5, .7])
    inside = finely_covered(narrow, 5)
    want = (small * inside).sum((2, 3)) / inside.sum((2, 3)) / small.mean((2, 3))
    expect_close(attempt(small, narrow), want, "Right for large numbers only. Attention spread "
                 "evenly over 286 places is .0035, and a box may cover less than one pixel: "
                 "`clamp(min=1e-9)`, far below both.")
    maps[1, 2] = 0
    expect_close(attempt(maps, boxes)[1, 2], torch.tensor(0.), "A map of a slot that is not used "
                 "is all zero: answer 0 there, `clamp` what you divide by.")
