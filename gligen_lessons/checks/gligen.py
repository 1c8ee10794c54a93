"""Checks of lesson 8."""

import copy
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import gligen as reference
from ..clip import TextModel, pool
from ..ddpm import q_sample
from ..gligen import Grounding
from ..unet import UNet
from . import Wrong, exercise, expect_close, expect_unchanged
from ._fixtures import NOISE, loss_mistakes
from ._gligen_gate import GatedSelfAttentionDense, PositionNet, fourier
from .latent import refuses

__all__ = ["GatedSelfAttentionDense", "PositionNet", "add_gates", "drop_conditions", "fourier",
           "freeze", "l_grounding", "phrase_features"]


def small_unet(**keys) -> UNet:
    """Blocks of two widths, with different numbers of heads, weights large enough to matter."""
    unet = UNet(**dict(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 12), attention_head_dim=(2, 3), cross_attention_dim=10,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2) | keys)
    for p in unet.parameters():
        nn.init.normal_(p, std=.3)
    return unet.eval()


def what_it_reads(unet: UNet, dtype=torch.float32) -> tuple:
    """xt, t, context and grounding of two pictures, for a `small_unet`."""
    low = .5 * torch.rand(2, 3, 2)
    slots = Grounding(torch.cat([low, low + .3], 2), torch.tensor([[1., 1, 0], [1, 0, 0]]),
                      torch.randn(2, 3, 10))
    c = unet.conv_in.in_channels
    return (torch.randn(2, c, 8, 8, dtype=dtype), torch.tensor([3, 600]),
            torch.randn(2, 5, 10, dtype=dtype), slots.each(lambda x: x.to(dtype)))


@exercise("gligen_lessons.gligen:add_gates")
def add_gates(attempt):
    """A network with blocks of two widths, in 64 bits, and one that reads no words."""
    plain = small_unet().double()
    inputs = what_it_reads(plain, torch.float64)
    want = reference.add_gates(copy.deepcopy(plain))
    old = {name: x.clone() for name, x in plain.state_dict().items()}
    prediction = plain(*inputs[:3])
    got = attempt(plain)
    if got is None:
        raise Wrong("it returned None: return the unet.")
    if got is not plain:
        raise Wrong("it returned another network. Fill the slots of the one that came in.")
    same_slots(got, want)
    new, wanted = got.state_dict(), want.state_dict()
    if any(not torch.equal(new[name], x) for name, x in old.items()):
        raise Wrong("old weights have changed. Only the empty slots are to be filled.")
    if wrong := [n for n, x in new.items() if x.dtype != wanted[n].dtype]:
        raise Wrong(f"{wrong[0]} is {new[wrong[0]].dtype} in a network of 64 bits: bring each new "
                    "part to `unet.conv_in.weight` with `.to`.")
    if open_ := [n for n in new if ".alpha_" in n and new[n] != 0]:
        raise Wrong(f"{open_[0]} is not zero: every gate begins closed.")
    if not torch.equal(got(*inputs), prediction):
        raise Wrong("with closed gates the prediction must be that of before, bit for bit.")
    for name, x in wanted.items():
        x.copy_(torch.full_like(x, .9) if ".alpha_" in name else x)
    got.load_state_dict(wanted)
    error = expect_close(got(*inputs), want(*inputs),
                         "With open gates and equal weights the prediction "
                         "is another one. Are heads and widths those of each block?")
    own = nn.Linear(10, 10)
    if attempt(small_unet(), own).position_net is not own:
        raise Wrong("the position net that was handed in is not used: build a PositionNet only "
                    "where `position_net` is None.")
    refuses(lambda: attempt(small_unet(
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        mid_block_type="UNetMidBlock2D")), "a U-Net without CrossAttn blocks came")
    return (f"fills {len(reference.transformer_blocks(got))} blocks of two widths (largest "
            f"difference with open gates {error:.0e})")


def same_slots(got: UNet, want: UNet) -> None:
    """Every slot filled, with parts of the right widths, and none of them shared."""
    blocks = reference.transformer_blocks(got)
    empty = sum(block.fuser is None for block in blocks)
    if empty:
        raise Wrong(f"{empty} of {len(blocks)} transformer blocks have no gate: all of them, on "
                    "the way down, in the middle and on the way up, get one.")
    if len({id(block.fuser) for block in blocks}) < len(blocks):
        raise Wrong("several blocks share one gate: make a new one for each block.")
    if got.position_net is None:
        raise Wrong("`unet.position_net` is still empty: nobody makes the tokens.")
    new, wanted = got.state_dict(), want.state_dict()
    if missing := sorted(wanted.keys() ^ new.keys()):
        raise Wrong(f"{missing[0]} is in one of the two networks only, yours or the library's. "
                    "Which class went into which slot?")
    for name, x in wanted.items():
        if new[name].shape != x.shape:
            raise Wrong(f"{name} is {tuple(new[name].shape)}, expected {tuple(x.shape)}: widths "
                        "are those of the block, tokens are as wide as `unet.context_width`.")
    heads = [(block.fuser.attn.heads, block.attn1.heads) for block in blocks]
    if wrong := [pair for pair in heads if pair[0] != pair[1]]:
        raise Wrong(f"a gate has {wrong[0][0]} heads in a block that has {wrong[0][1]}: take "
                    "`block.attn1.heads`.")


@exercise("gligen_lessons.gligen:freeze")
def freeze(attempt):
    """A network where everything learns, one where nothing does, and one without gates."""
    unet = reference.add_gates(small_unet())
    learn = set(reference.gate_names(unet))
    scalars = {name for name in learn if ".alpha_" in name}
    everything = {name for name, _ in unet.named_parameters()}
    for before in (True, False):
        got = attempt(unet.requires_grad_(before))
        if got is None:
            raise Wrong("it returned None: return the unet.")
        if got is not unet:
            raise Wrong("it returned another network. Freeze the one that came in.")
        told = {name for name, p in unet.named_parameters() if p.requires_grad}
        net = {name for name in learn if name.startswith("position_net.")}
        for wrong, message in (
                (everything - learn, "It is the other way round: the NEW parts learn."),
                (scalars, "Only the scalars learn here. All of the gates' weights must, and the "
                          "position net's."),
                (learn - net, "The position net is frozen; it is new and must learn too."),
                (net, "Only the position net learns here; the gates must too."),
                (everything, "Everything learns: what was there before must be frozen."),
                (set(), "Nothing learns: let the names of `gate_names` learn, whatever was set "
                        "before.")):
            if told == wrong:
                raise Wrong(message)
        if off := sorted(told ^ learn):
            raise Wrong(f"{off[0]} is {'free' if off[0] in told else 'frozen'} and should not be.")
    refuses(lambda: attempt(small_unet()), "a U-Net without gates came")
    return f"lets {len(learn)} of {len(everything)} tensors learn"


def phrase_reader() -> SimpleNamespace:
    """A text tower with its tokenizer, small, with states far from each other."""
    text = TextModel(vocab_size=40, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
                     num_attention_heads=2, max_position_embeddings=7, eos_token_id=39,
                     bos_token_id=38, pad_token_id=39)
    for p in text.parameters():
        nn.init.normal_(p, std=.6)

    def tokenizer(phrases: list[str]) -> Tensor:
        rows = [[38, *(ord(ch) % 37 for ch in phrase[:5]), 39] for phrase in phrases]
        return torch.tensor([row + [39] * (7 - len(row)) for row in rows])
    return SimpleNamespace(text=text.requires_grad_(False), tokenizer=tokenizer,
                           device=torch.device("cpu"))


@exercise("gligen_lessons.gligen:phrase_features")
def phrase_features(attempt):
    """Three phrases of different lengths through a small tower."""
    parts, phrases = phrase_reader(), ["cat", "a car", "ox"]
    ids = parts.tokenizer(phrases)
    states = parts.text(ids)
    want = pool(states, ids, parts.text.eos)
    before = parts.text.encoder(parts.text.embeddings(ids))
    mistakes = {
        "This is the state of the LAST place, where padding stands. The first end token counts: "
        "`pool` finds it.": states[:, -1],
        "This is the first token's state, which has seen no word yet. Take the end token's.":
            states[:, 0],
        "The mean over all tokens is taken, padding included. Take the end token's state.":
            states.mean(1),
        "The largest value over the tokens is taken. Take the end token's state.":
            states.amax(1),
        "These are the states of all tokens, as a caption goes into the U-Net. A phrase gets "
        "one vector: pool.": states,
        "The last norm is missing: take what `parts.text(ids)` returns.":
            pool(before, ids, parts.text.eos),
        "The feature is brought to length one. It goes into the position net as it is.":
            F.normalize(want, dim=-1),
        "This is the last WORD's state. The end token comes after it and has read the whole "
        "phrase.": states[torch.arange(len(ids)), (ids == parts.text.eos).int().argmax(1) - 1],
        "All phrases went in as one. Each gets a vector of its own.":
            pool(parts.text(parts.tokenizer([" ".join(phrases)])),
                 parts.tokenizer([" ".join(phrases)]), parts.text.eos)}
    error = expect_close(attempt(parts, list(phrases)), want, "Ids, states, `pool` with the "
                         "tower's own end token.", mistakes=mistakes)
    return f"reads 3 phrases (largest difference {error:.0e})"


class Attentive(nn.Module):
    """Stands for a gated U-Net: it notices the step, the words and who is where."""

    def forward(self, zt: Tensor, t=None, context=None, grounding=None) -> Tensor:
        told = {"a step": t, "a caption": context, "grounding": grounding}
        for name, value in told.items():
            if value is None:
                raise Wrong(f"the network was called without {name}: it takes (zt, t, context, "
                            "grounding).")
        if not isinstance(grounding, Grounding) or context.ndim != 3 or t.ndim != 1:
            raise Wrong("the network takes (zt, t, context, grounding) in this order.")
        places = (grounding.boxes.sum(2) * grounding.masks * grounding.features[..., 0]).sum(1)
        push = torch.sin(t.to(zt.dtype)) + context.mean((1, 2)) + 2 * places
        return torch.tanh(zt + push.view(-1, 1, 1, 1))


def gone(rows: Tensor, void: Tensor, kept: Tensor, what: str) -> Tensor:
    """Which pictures lost a condition, (b,); Wrong for one that lost a part, or got another."""
    empty, same = (rows == void).all(1), (rows == kept).all(1)
    if not bool((empty | same).all()):
        raise Wrong(f"some {what} are neither as they came nor empty. A picture keeps all of its "
                    f"own {what}, or loses all: -1 in every slot, or the ids of `empty`.")
    return empty.double()


@exercise("gligen_lessons.gligen:drop_conditions")
def drop_conditions(attempt):
    """How often each is dropped, each on its own, whole, and from the given generator."""
    b, empty = 4000, torch.tensor([1, 2, 2])
    caption, phrases = 10 + torch.arange(3 * b).view(b, 3), torch.arange(2 * b).view(b, 2)

    def dropped(p_caption, p_grounding):
        g = torch.Generator().manual_seed(1)
        got = expect_unchanged(lambda *given: attempt(*given, p_caption, p_grounding, g),
                               caption=caption, phrases=phrases, empty=empty)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong("return both, caption and phrases.")
        for new, old in zip(got, (caption, phrases), strict=True):
            expect_close(torch.zeros_like(torch.as_tensor(new)), torch.zeros_like(old), "")
        return gone(got[0], empty, caption, "captions"), gone(got[1], -1, phrases, "phrases")
    before = torch.get_rng_state()
    without, bare = dropped(.5, .2)
    again = dropped(.5, .2)
    if not torch.equal(torch.get_rng_state(), before) or not torch.equal(bare, again[1]):
        raise Wrong("the coins did not come from the generator `g`, so a seed means no run.")
    rates = float(without.mean()), float(bare.mean())
    if set(rates) <= {0., 1.}:
        raise Wrong("the batch was dropped as a whole. Each picture throws its own coins. "
                    "(GLIGEN's code does it a batch at a time; few batches then teach little.)")
    for name, rate, p in (("captions", rates[0], .5), ("groundings", rates[1], .2)):
        if abs(rate - p) > .04:
            raise Wrong(f"{rate:.0%} of the {name} were dropped where {p:.0%} are asked for.")
    both = float((without * bare).mean())
    if abs(both - .1) > .03:
        raise Wrong(f"caption and grounding are dropped together in {both:.0%} of the pictures: "
                    "with coins of their own it would be 10%. Guidance needs each alone, too.")
    for p in (0., 1.):
        if any(float(part.mean()) != p for part in dropped(p, p)):
            raise Wrong(f"with a probability of {p:g} {'all' if p else 'none'} must be dropped.")
    return (f"drops {rates[0]:.0%} of 4000 captions, {rates[1]:.0%} of the groundings, "
            f"{both:.0%} of both")


@exercise("gligen_lessons.gligen:l_grounding")
def l_grounding(attempt):
    """Two latents, each at a step, with a caption and boxes of its own."""
    unet, t = Attentive(), torch.tensor([3, 38])
    _, _, context, grounding = what_it_reads(small_unet())
    z0, eps = 1.5 * torch.randn(2, 3, 4, 5) + .4, torch.randn(2, 3, 4, 5)
    zt = q_sample(z0, t, eps, NOISE)
    mistakes = loss_mistakes(lambda seen: unet(seen, t, context, grounding), z0, zt, eps) | {
        "The network was given empty slots. Hand the grounding on as it is.":
            F.mse_loss(unet(zt, t, context, grounding.none()), eps)}
    want = F.mse_loss(unet(zt, t, context, grounding), eps)
    got = attempt(unet, z0.clone(), t, eps.clone(), context, grounding, NOISE)
    error = expect_close(got, want, "Noise z0 to t, let the network predict with caption and "
                         "grounding at hand, compare with eps.", mistakes=mistakes)
    return f"is equation 9 on 2 latents (largest difference {error:.0e})"
