"""Checks of lesson 8 on boxes as sinusoids, tokens, and the gated layer."""

import math

import torch
from torch import Tensor, nn

from .. import gligen as reference
from . import Wrong, exercise, expect_close, expect_unchanged, looks_like


def some_boxes() -> Tensor:
    """Boxes (2,3,4) that are not square, none of them like another."""
    low = .5 * torch.rand(2, 3, 2)
    return torch.cat([low, low + .1 + .3 * torch.rand(2, 3, 2)], 2)


def in_sinusoids(boxes: Tensor, rates, order: str = "fwc", cosine_first: bool = False) -> Tensor:
    """Sinusoids of boxes by einsum; `order` of frequency, wave and coordinate, slowest first."""
    angles = torch.einsum("bnc,f->bnfc", boxes.double(), torch.as_tensor(rates).double())
    both = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
    sinusoids = torch.stack(both, 3)                                    # (b,n,f,w,c)
    return torch.einsum(f"bnfwc->bn{order}", sinusoids).flatten(2).float()


@exercise("gligen_lessons.gligen:fourier")
def fourier(attempt):
    """Six boxes, and the boxes whose sinusoids are known without a formula."""
    boxes, k = some_boxes(), torch.arange(8)
    rates = 100 ** (k.double() / 8)
    mistakes = {
        "There is a factor of pi in the angles; GLIGEN's sinusoids have none.":
            in_sinusoids(boxes, math.pi * rates),
        "There is a factor of 2 pi in the angles; GLIGEN's sinusoids have none.":
            in_sinusoids(boxes, 2 * math.pi * rates),
        "These frequencies are powers of two. Here f_k = 100^(k/8).": in_sinusoids(boxes, 2. ** k),
        "The frequencies end at 100 here: the exponent is k/8, so the last one is 56.":
            in_sinusoids(boxes, 100 ** (k / 7)),
        "The frequencies fall, as those of time do. Here they rise: 100^(k/8).":
            in_sinusoids(boxes, 1 / rates),
        "Frequency 0 should be 1: k counts from 0 to 7.": in_sinusoids(boxes, 100 ** ((k + 1) / 8)),
        "The cosines come before the sines; for boxes the sines are first.":
            in_sinusoids(boxes, rates, cosine_first=True),
        "All sinusoids of a coordinate stand together. Frequencies come first: permute to "
        "(b,n,8,2,4) before you flatten.": in_sinusoids(boxes, rates, "cfw"),
        "Coordinates come before sine and cosine here: for each frequency the four sines, then "
        "the four cosines.": in_sinusoids(boxes, rates, "fcw"),
        "All sines come before all cosines. They alternate, frequency by frequency.":
            in_sinusoids(boxes, rates, "wfc"),
        "All sines, then all cosines, coordinate by coordinate. Frequencies come first: for each "
        "one the four sines, then the four cosines.": in_sinusoids(boxes, rates, "wcf"),
        "All sines of a coordinate, then all its cosines: frequencies come first, then sine and "
        "cosine, then coordinates.": in_sinusoids(boxes, rates, "cwf"),
        "The sinusoids are right, and not flattened: (b,n,64).":
            in_sinusoids(boxes, rates).unflatten(2, (8, 2, 4))}
    error = expect_close(attempt(boxes.clone()), in_sinusoids(boxes, rates), "Compare frequency 0: "
                         "sin(x0), sin(y0), sin(x1), sin(y1), then the four cosines.",
                         mistakes=mistakes)
    wide = torch.rand(1, 5, 4, dtype=torch.float64)
    if attempt(wide).dtype != torch.float64:
        raise Wrong("boxes in 64 bits came back in 32: bring the frequencies to the boxes' dtype.")
    return f"writes 6 boxes as 64 sinusoids (largest difference {error:.0e})"


def drawn_position_net() -> reference.PositionNet:
    """A small position net whose null features are not zero."""
    net = reference.PositionNet(5, 7)
    for p in net.parameters():
        nn.init.normal_(p, std=.4)
    return net.requires_grad_(False)


def tokens_wrongly(net, boxes, masks, features) -> tuple[Tensor, dict[str, Tensor]]:
    """The right tokens, and typical wrong ones by message."""
    used, sinusoids = masks[..., None], reference.fourier(boxes)
    null, null_sinusoids = net.null_positive_feature, net.null_position_feature
    words = used * features + (1 - used) * null
    places = used * sinusoids + (1 - used) * null_sinusoids

    def mlp(a, b):
        return net.linears(torch.cat([a, b], -1))
    want, no_box = mlp(words, places), reference.fourier(used * boxes)
    return want, {
        "The masks are ignored: unused slots show what happens to lie in them.":
            mlp(features, sinusoids),
        "Unused slots give a token of zeros: the mask works after the MLP. Exchange features and "
        "sinusoids for the null features BEFORE it; an empty slot has a token like any other.":
            used * want,
        "Features are exchanged in unused slots, the sinusoids are not: the box leaks.":
            mlp(words, sinusoids),
        "Sinusoids are exchanged in unused slots, the features are not: the phrase leaks.":
            mlp(features, places),
        "In unused slots the phrase and the box are zero. Learned null features stand there.":
            mlp(used * features, used * sinusoids),
        "In unused slots the BOX is zero, and its sinusoids are those of a box in the corner. "
        "`null_position_feature` stands for the 64 sinusoids.": mlp(words, no_box),
        "In unused slots the SINUSOIDS are zero. `null_position_feature` stands there.":
            mlp(words, used * sinusoids),
        "In unused slots the FEATURE is zero. `null_positive_feature` stands there.":
            mlp(used * features, places),
        "The mask is upside down: 1 is a slot in use.":
            mlp((1 - used) * features + used * null,
                (1 - used) * sinusoids + used * null_sinusoids),
        "The null features are added to every slot; they take the place of unused ones.":
            mlp(used * features + null, used * sinusoids + null_sinusoids),
        "Sinusoids come before features. The order is features, sinusoids.":
            net.linears(torch.cat([places, words], -1))}


@exercise("gligen_lessons.gligen:PositionNet")
def PositionNet(attempt):
    """Two pictures with two and one of three slots used."""
    net, boxes, features = drawn_position_net(), some_boxes(), torch.randn(2, 3, 5)
    masks = torch.tensor([[1., 0, 1], [0, 1, 0]])
    want, mistakes = tokens_wrongly(net, boxes, masks, features)
    learner = attempt(5, 7)
    learner.load_state_dict(net.state_dict())
    got = expect_unchanged(learner, boxes=boxes, masks=masks, features=features)
    error = expect_close(got, want, "Exchange both halves where the mask is 0, then one MLP "
                         "over features and sinusoids.", mistakes=mistakes)
    return f"makes tokens of 3 used and 3 unused slots (largest difference {error:.0e})"


def drawn_gate() -> reference.GatedSelfAttentionDense:
    """A gate that is far open, one scalar to each side, at a strength of .7."""
    gate = reference.GatedSelfAttentionDense(12, 3, 5)
    for p in gate.parameters():
        nn.init.normal_(p, std=.5)
    nn.init.constant_(gate.alpha_attn, .9)
    nn.init.constant_(gate.alpha_dense, -.5)
    gate.scale = .7
    return gate.requires_grad_(False)


class Slipped:
    """The parts of a gate's forward, put together again with something wrong."""

    def __init__(self, gate, x: Tensor, objs: Tensor):
        self.gate, self.x, self.n = gate, x, x.shape[1]
        self.tokens = gate.linear(objs)
        self.first = gate.scale * gate.alpha_attn.tanh()
        self.second = gate.scale * gate.alpha_dense.tanh()
        self.seen = self.attended(gate.norm1(torch.cat([x, self.tokens], 1)))
        self.right = x + self.first * self.seen

    def attended(self, joined: Tensor) -> Tensor:
        return self.gate.attn(joined)[:, :self.n]

    def fed(self, y: Tensor, weight=None, source=None) -> Tensor:
        """The second half, on y."""
        read = self.gate.norm2(y if source is None else source)
        return y + (self.second if weight is None else weight) * self.gate.ff(read)


def mistakes_of_gates(s: Slipped) -> dict[str, Tensor]:
    """What comes out where a gate is wrong, missing, or at the wrong place, by message."""
    gate, x, seen = s.gate, s.x, s.seen
    alpha, dense, scale = gate.alpha_attn, gate.alpha_dense, gate.scale
    mixed = x + s.first * (seen - x)
    return {
        "Both parts go through alpha_attn: the feed-forward part has a gate of its own, "
        "alpha_dense.": s.fed(s.right, s.first),
        "Both parts go through alpha_dense: the attention has a gate of its own, alpha_attn.":
            s.fed(x + s.second * seen),
        "The two gates have changed places: alpha_attn is the attention's.":
            s.fed(x + s.second * seen, s.first),
        "The feed-forward part has no gate: with both gates at zero x would not come out "
        "untouched.": s.fed(s.right, 1.),
        "The attention has no gate: with both gates at zero x would not come out untouched.":
            s.fed(x + seen),
        "The tanh is missing: a gate adds tanh(alpha) times the answer.":
            s.fed(x + scale * alpha * seen, scale * dense),
        "This gate is a sigmoid, which is half open at zero. Take the tanh.":
            s.fed(x + scale * alpha.sigmoid() * seen, scale * dense.sigmoid()),
        "`self.scale` is ignored: it multiplies what both gates let in.":
            s.fed(x + alpha.tanh() * seen, dense.tanh()),
        "`self.scale` is missing at the feed-forward part.": s.fed(s.right, dense.tanh()),
        "`self.scale` stands inside the tanh. It multiplies the opened gate.":
            s.fed(x + (scale * alpha).tanh() * seen, (scale * dense).tanh()),
        "The gate multiplies x as well. It weighs what is ADDED; x passes beside it.":
            s.fed(s.first * (x + seen)),
        "The first gate mixes, as in a GRU: (1 - g) x + g times the answer. Here x passes whole, "
        "and g times the answer is added.": s.fed(mixed),
        "The gates mix, as in a GRU: (1 - g) x + g times the answer. Here x passes whole, and g "
        "times the answer is added.": mixed + s.second * (gate.ff(gate.norm2(mixed)) - mixed),
        "`self.scale` multiplies x as well. It belongs to what is added.":
            s.fed(scale * (x + alpha.tanh() * seen))}


def mistakes_of_parts(s: Slipped) -> dict[str, Tensor]:
    """What comes out where a part is missing or reads the wrong thing, by message."""
    gate, x, tokens = s.gate, s.x, s.tokens
    last = gate.attn(gate.norm1(torch.cat([x, tokens], 1)))[:, -s.n:]
    return {
        "The LAST rows are kept. The pixels stand first in the row, so keep the first "
        "n_pixels.": s.fed(x + s.first * last),
        "The tokens stand before the pixels, and the rows of the tokens are kept.":
            s.fed(x + s.first * s.attended(gate.norm1(torch.cat([tokens, x], 1)))),
        "x is not added to what comes through the first gate.": s.fed(s.first * s.seen),
        "The feed-forward part reads x as it came in, before the attention's answer was added.":
            s.fed(s.right, source=x),
        "What is added to must be x as it came in, not norm1(x).":
            s.fed(gate.norm1(x) + s.first * s.seen),
        "norm2 and ff read x plus the first answer, not the first answer alone.":
            s.fed(s.right, source=s.first * s.seen),
        "The feed-forward part is missing.": s.right,
        "norm1 is missing: it belongs before the attention.":
            s.fed(x + s.first * s.attended(torch.cat([x, tokens], 1))),
        "norm1 sees the pixels only; it normalises pixels and tokens together.":
            s.fed(x + s.first * s.attended(torch.cat([gate.norm1(x), tokens], 1))),
        "norm2 is missing: it belongs before the feed-forward part.":
            s.right + s.second * gate.ff(s.right),
        "This is cross-attention: pixels look at tokens only. Here they look at pixels AND "
        "tokens.": s.fed(x + s.first * gate.attn(gate.norm1(x), gate.norm1(tokens))),
        "The tokens are not there: pixels look at pixels only.":
            s.fed(x + s.first * s.attended(gate.norm1(x)))}


@exercise("gligen_lessons.gligen:GatedSelfAttentionDense")
def GatedSelfAttentionDense(attempt):
    """Six pixels and four tokens through open gates, and through closed ones."""
    gate, x, objs = drawn_gate(), torch.randn(2, 6, 12), torch.randn(2, 4, 5)
    learner = attempt(12, 3, 5)
    learner.load_state_dict(gate.state_dict())
    learner.scale = gate.scale
    kept, got = x.clone(), learner(x, objs.clone())
    if not torch.equal(x, kept):
        raise Wrong("the pixels that were handed in are changed: write `x = x + ...`, not "
                    "`x += ...`.")
    if isinstance(got, Tensor) and got.shape == (2, 10, 12):
        raise Wrong("the tokens are still there: keep the rows of the pixels (token selection).")
    slipped = Slipped(gate, x, objs)
    looks_like(got, mistakes_of_gates(slipped) | mistakes_of_parts(slipped))
    error = expect_close(got, gate(x, objs), "Join, norm1, attend, keep the pixels, add through "
                         "the first gate; norm2, ff, add through the second.")
    for name in ("alpha_attn", "alpha_dense"):
        nn.init.zeros_(getattr(learner, name).requires_grad_(False))
    if not torch.equal(learner(x, objs), x):
        raise Wrong("with both gates at zero x must come out untouched, bit for bit.")
    return f"lets 4 tokens in and none when closed (largest difference {error:.0e})"
