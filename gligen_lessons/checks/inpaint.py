"""Checks of lesson 10."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import inpaint as reference
from ..ddpm import q_sample
from ..unet import UNet
from . import Wrong, exercise, expect_close, expect_no_draw
from ._fixtures import NOISE, loss_mistakes
from ._inpaint_sampling import blend_known, inpaint_steps
from ._instructions import instructions
from .gligen import Attentive, small_unet, what_it_reads
from .latent import refuses

__all__ = ["blend_known", "concat_inpainting_inputs", "expand_conv_in", "inpaint_steps",
           "instructions", "l_inpaint", "masks_from_boxes", "paste"]

SIDE = 10                                                 # of the masks in here


def holed(boxes: list, low=torch.floor, high=torch.floor, *, inside: float = 0.,
        turned: bool = False, form=lambda corners: corners) -> Tensor:
    """Masks of some pictures' boxes; the ends of a box are brought to whole cells anyhow."""
    masks = torch.full((len(boxes), 1, SIDE, SIDE), 1 - inside)
    for mask, places in zip(masks, boxes, strict=True):
        for x0, y0, x1, y1 in form(torch.tensor(places).reshape(-1, 4) * SIDE):
            rows = slice(int(low(y0)), int(high(y1)))
            columns = slice(int(low(x0)), int(high(x1)))
            mask[(0, columns, rows) if turned else (0, rows, columns)] = inside
    return masks


def as_sizes(corners: Tensor) -> Tensor:
    """The mistake of reading left, top, width and height."""
    return torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1)


@exercise("gligen_lessons.inpaint:masks_from_boxes")
def masks_from_boxes(attempt):
    """Three pictures: two boxes, one, none; edges between places and on them."""
    boxes = [[[.12, .47, .38, .93], [.55, .08, .87, .5]], [[.26, .34, .77, .58]], []]
    last, all_ = [place[-1:] for place in boxes], sum(boxes, [])
    mistakes = {
        "It is upside down: 1 where the picture is kept, 0 where it is painted.":
            holed(boxes, inside=1.),
        "Rows and columns have changed places: y counts rows and comes first.":
            holed(boxes, turned=True),
        "Edges are rounded to the nearest place. GLIGEN cuts them down: `.int()`.":
            holed(boxes, torch.round, torch.round),
        "Right and lower edges are rounded up although `round_outward` is off.":
            holed(boxes, high=torch.ceil),
        "The box is one place too wide and too high: the end of a slice is left out already.":
            holed(boxes, high=lambda x: x.floor() + 1),
        "The box is read as left, top, width, height. It is left, top, right, bottom.":
            holed(boxes, form=as_sizes),
        "Only the last box of a picture counts: do not begin again at each box.": holed(last),
        "Every picture got the boxes of all. A picture has its own.": holed([all_] * 3),
        "The masks are (b,side,side); with a channel they are (b,1,side,side).":
            holed(boxes)[:, 0]}
    error = expect_close(attempt(boxes, SIDE), holed(boxes), "Multiply by side, cut down with "
                         "`.int()`, set to 0 from the first row and column to the last.",
                         mistakes=mistakes)
    wide = {"`round_outward` makes no difference here: with it, right and lower ends go up.":
                holed(boxes),
            "With `round_outward` an end on the edge of a cell goes one cell too far: `.ceil()`, "
            "not one more than what is cut down.": holed(boxes, high=lambda x: x.floor() + 1),
            "With `round_outward` all four edges go up; left and upper ones stay cut down.":
                holed(boxes, torch.ceil, torch.ceil)}
    expect_close(attempt(boxes, SIDE, round_outward=True), holed(boxes, high=torch.ceil), "With "
                 "`round_outward`, right and lower ends go up to the next whole cell.",
                 mistakes=wide)
    nearly = attempt([[[.2, .3, .500003, .800003]]], SIDE, round_outward=True)
    expect_close(nearly, holed([[[.2, .3, .5, .8]]]), "A box that ends on the edge of a cell, but "
                 "for rounding, does not touch the next: take off 1e-4 before you go up.")
    refuses(lambda: attempt([[[.5, .2, .4, .6]]], SIDE), "a box came whose left edge lies right of "
            "its right one (`boxes_.check_boxes` knows such boxes)")
    return (f"masks 3 boxes on {SIDE} x {SIDE} cells, cut down and rounded outward (largest "
            f"difference {error:.0e})")


@exercise("gligen_lessons.inpaint:expand_conv_in")
def expand_conv_in(attempt):
    """A network of three channels, in 64 bits; one that has been expanded already; the result."""
    plain = small_unet().double()
    wide = reference.expand_conv_in(copy.deepcopy(plain))
    inputs = what_it_reads(plain, torch.float64)
    prediction, old = plain(*inputs[:3]), copy.deepcopy(plain.conv_in)
    got = attempt(plain)
    if got is None:
        raise Wrong("it returned None: return the unet.")
    if got is not plain:
        raise Wrong("it returned another network. Exchange the first layer of the one that came.")
    c = old.in_channels
    first_layer(got, old, wide.conv_in)
    if got.conv_in.in_channels != got.conv_in.weight.shape[1]:
        raise Wrong(f"the layer still says that it reads {got.conv_in.in_channels} channels "
                    "(`conv_in.in_channels`): build a new `nn.Conv2d`.")
    if got.config.get("in_channels") != got.conv_in.in_channels:
        raise Wrong(f"config still says {got.config.get('in_channels')} channels: a saved network "
                    "is built from it.")
    more = torch.randn(2, c + 1, 8, 8, dtype=torch.float64)
    error = expect_close(got(torch.cat([inputs[0], more], 1), *inputs[1:3]), prediction,
                         "Whatever the "
                         "new channels hold, the prediction must be the old one. Is the padding 1?",
                         tol=1e-9)
    refuses(lambda: attempt(got), "a network came that had been expanded already")
    return (f"adds {c + 1} channels to {c}; with zero weights they change nothing (largest "
            f"difference {error:.0e})")


def first_layer(got: UNet, old: nn.Conv2d, wide: nn.Conv2d) -> None:
    """The new first layer: its shape, the old weights in front, zeros behind, able to learn."""
    conv, c = got.conv_in, old.in_channels
    weight = conv.weight
    if weight.shape[1] == c:
        raise Wrong("the first layer still reads as many channels as before.")
    if weight.shape != wide.weight.shape:
        raise Wrong(f"the first layer is {tuple(weight.shape)}, expected "
                    f"{tuple(wide.weight.shape)}: twice the channels of the latent and one for the "
                    "mask (this network's latent has three, not four).")
    if weight.dtype != old.weight.dtype:
        raise Wrong(f"the new layer is {weight.dtype} in a network of {old.weight.dtype}: `.to` "
                    "the old weight.")
    if not torch.equal(weight[:, :c], old.weight):
        raise Wrong("the old weights read the LAST channels. The noisy latent comes first."
                    if torch.equal(weight[:, -c:], old.weight) else
                    "the weights of the first channels are not the old ones.")
    if conv.bias is None or not torch.equal(conv.bias, old.bias):
        raise Wrong("the bias is not the old one.")
    if bool((weight[:, c:] != 0).any()):
        raise Wrong("the new channels do not begin at zero; a fresh layer is full of random "
                    "weights.")
    if not weight.requires_grad:
        raise Wrong("the new layer cannot learn: set its weights within `torch.no_grad()`, and "
                    "leave it a layer.")


def listening(zt: Tensor, t=None, context=None, grounding=None) -> Tensor:
    """Stands for a network of nine channels: hands back what it was shown."""
    if any(part is None for part in (t, context, grounding)):
        raise Wrong("t, context and grounding did not reach the network: hand on `*rest`.")
    return zt + 100 * t.view(-1, 1, 1, 1) + context.mean() + grounding


def slots_for(copies: int) -> tuple:
    """Kept latents (2,3,4,5) with masks, and zt, t, context and grounding for some copies."""
    mask = torch.ones(2, 1, 4, 5)
    mask[0, :, 1:3, 2:], mask[1, :, :2, :3] = 0, 0
    b = 2 * copies
    return (torch.randn(2, 3, 4, 5), mask, torch.randn(b, 3, 4, 5), torch.arange(b) / 4.,
            torch.randn(b, 5, 7), 2.)


@exercise("gligen_lessons.inpaint:concat_inpainting_inputs")
def concat_inpainting_inputs(attempt):
    """Two pictures, shown once and twice over as guidance asks."""
    largest = 0.
    for copies in (1, 2):
        z0, mask, zt, *rest = slots_for(copies)

        def shown(*channels, repeat=lambda x, n: x.repeat(n, 1, 1, 1), zt=zt, rest=rest, n=copies):
            known = repeat(torch.cat(channels, 1), n)
            return listening(torch.cat([zt, known], 1), *rest)

        def first(z=z0, m=mask, zt=zt, rest=rest, n=copies):
            known = torch.cat([z * m, m], 1).repeat(n, 1, 1, 1)
            return listening(torch.cat([known, zt], 1), *rest)

        mistakes = {
            "The mask stands before the kept latent. That is Stable Diffusion's own order; "
            "GLIGEN's is [zt, z0 * mask, mask].": shown(mask, z0 * mask),
            "What is kept stands before zt. The noisy latent comes first.": first(),
            "The network is shown what it should paint: z0 must be hidden where mask is 0.":
                shown(z0, mask),
            "The network is shown the hole and not what lies around it: z0 * mask.":
                shown(z0 * (1 - mask), mask),
            "The mask is upside down: 1 where the picture is kept.": shown(z0 * mask, 1 - mask),
            "zt was masked. It is shown whole, as noisy as it is; what is kept stands beside it.":
                shown(z0 * mask, mask, zt=zt * (1 - mask).repeat(copies, 1, 1, 1))}
        if copies == 2:
            mistakes["Guidance stacks [all pictures, all pictures]; this repeats each picture at "
                     "once: `repeat`, not `repeat_interleave`."] = shown(
                       z0 * mask, mask, repeat=lambda x, n: x.repeat_interleave(n, 0))
        network = attempt(listening, z0.clone(), mask.clone())
        if not callable(network):
            raise Wrong("it returned no function: return one that takes zt and the rest.")
        largest = max(largest, expect_close(network(zt.clone(), *rest), shown(z0 * mask, mask),
                                            "Show [zt, z0 * mask, mask], in this order.",
                                            mistakes=mistakes))
    return (f"shows the kept parts of 2 pictures, also when guidance doubles them (largest "
            f"difference {largest:.0e})")


@exercise("gligen_lessons.inpaint:paste")
def paste(attempt):
    """Two pictures of three channels that are not square."""
    generated, x = torch.randn(2, 3, 6, 7), torch.randn(2, 3, 6, 7)
    mask = (torch.rand(2, 1, 6, 7) > .5).float()
    given = generated.clone(), x.clone()
    got = attempt(*given, mask.clone())
    mistakes = {"Inside and outside have changed places: where mask is 1, x is kept.":
                torch.where(mask > .5, generated, x),
                "The hole is left empty here; what was painted belongs there.": x * mask,
                "Only the painted part is left; outside belongs x.": generated * (1 - mask),
                "Nothing is put back: outside the hole belongs x.": generated,
                "The two are added: each counts in its own part only.": x + generated,
                "This is the mean of both. It is one or the other.": (x + generated) / 2}
    expect_close(got, torch.where(mask > .5, x, generated), "Where mask is 1 take x, else what was "
                 "painted.", mistakes=mistakes)
    keep = mask.expand_as(x) > 0
    if not torch.equal(got[keep], x[keep]):
        raise Wrong("what is kept has changed in its last digits. Choose with `torch.where`, do "
                    "not calculate.")
    if not (torch.equal(generated, given[0]) and torch.equal(x, given[1])):
        raise Wrong("it changes a picture that it was given. Make a new one.")
    return f"keeps {int(keep.sum())} of {keep.numel()} values exactly"


class Wide(nn.Module):
    """Stands for a network of nine channels; it notices each of them, and all else."""

    def __init__(self):
        super().__init__()
        self.inner, self.mix = Attentive(), nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, zt: Tensor, t=None, context=None, grounding=None) -> Tensor:
        if zt.dtype == torch.float64:
            raise Wrong("the network was shown torch.float64, as `schedule.alpha_bar` is: use "
                        "`q_sample`, or bring alpha_bar to z0.dtype.")
        if zt.shape[1] != 7:
            raise Wrong(f"the network was shown {zt.shape[1]} channels, not 7: the latent's three, "
                        "three that are kept, and the mask. `concat_inpainting_inputs` shows them.")
        return self.inner(2 * self.mix(zt), t, context, grounding)


@exercise("gligen_lessons.inpaint:l_inpaint")
def l_inpaint(attempt):
    """Two latents, each with a step, a caption, boxes and a hole of its own."""
    unet, t = Wide().requires_grad_(False), torch.tensor([3, 38])
    _, _, context, grounding = what_it_reads(small_unet())
    z0, mask, eps, *_ = slots_for(1)
    z0, zt = 1.5 * z0 + .4, q_sample(1.5 * z0 + .4, t, eps, NOISE)

    def prediction(seen=zt, kept=z0, hole=mask, requested=grounding, clean=False):
        shown = kept if clean else kept * hole
        return unet(torch.cat([seen, shown, hole], 1), t, context, requested)

    inside, want = (1 - mask).expand_as(eps), F.mse_loss(prediction(), eps)
    mistakes = loss_mistakes(prediction, z0, zt, eps) | {
        "Only the hole was noised. In training all of z0 is; the kept part is shown beside it.":
            F.mse_loss(prediction(seen=torch.where(mask > 0, z0, zt)), eps),
        "What is kept was shown with noise. It is shown as it is: z0 * mask.":
            F.mse_loss(prediction(kept=zt), eps),
        "The network was shown the whole of z0: then there is nothing to predict.":
            F.mse_loss(prediction(clean=True), eps),
        "The mask is upside down.": F.mse_loss(prediction(hole=1 - mask), eps),
        "The network was given empty slots. Hand the grounding on as it is.":
            F.mse_loss(prediction(requested=grounding.none()), eps),
        "Only the hole counts in this loss. A sensible idea; GLIGEN's code takes the whole.":
            ((prediction() - eps).square() * inside).sum() / inside.sum(),
        "The hole counts, divided by the size of the whole picture: take the plain mean.":
            F.mse_loss(prediction() * inside, eps * inside)}
    got = expect_no_draw(attempt, "eps", unet, z0.clone(), t, eps.clone(), context, grounding,
                         mask.clone(), NOISE)
    error = expect_close(got, want, "Noise z0 to t, show the network what is kept, compare its "
                         "prediction with eps.", mistakes=mistakes)
    return f"is equation 9 with {7} channels shown (largest difference {error:.0e})"
