"""Training lesson 6's latent diffusion: captions to latents of the shipped autoencoder."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import device, weights
from ..datasets.latent_scenes import Example, slot_masks
from ..ddpm import q_sample
from ..fit import step_generator
from ..latent import TextToImage, cross_attentions, l_ldm
from ..nets import attention_map, record_attention
from ..unet import UNet
from . import Recipe, seeded
from .data import Source
from .ddpm import RATE, unet_groups
from .helpers import CellHead, Helped, cell_loss, help_at, outputs_of, step_weight
from .world_data import WORLD

LATENT_UNET = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": (64, 128, 192), "cross_attention_dim": 256, "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
KINDS = (.3, .2, .2, .1, .2)                              # how often each of five captions is drawn
HELP, ALIGN = .1, .05                                     # weights of the two helpers
P_DROP = .1                                               # captions that are dropped


def ldm(steps: int | None = None, batch: int | None = None, source: Source = WORLD) -> Recipe:
    """The latent U-Net, from small pictures to whole scenes.

    It begins with pictures of 64 px and windows of scenes, whose latents of 8 x 8 cost a
    quarter, and meets them ever more seldom. A head names what each place shows, and
    cross-attention is told where each word's thing is; in the last quarter the loss is
    that of the paper, alone, on whole pictures. So it is from the first step where a source
    cannot say what each place shows.
    """
    full = device.compute_budget() == "full"
    steps = steps or (3_000 if source.small else 6_000 if full else 10_000)
    batch = batch or (256 if full else 32)
    data = source.examples(steps, batch)
    made = LATENT_UNET | {"sample_size": data.side}
    parts = weights.text_to_image(device.pick(), unet=seeded(UNet, **made))
    sample_steps = min(30, 1 + steps)

    def sample_batch(step: int) -> tuple[Tensor, ...]:
        g = step_generator(8, step)
        return as_batch(data.choose(step, g), parts, data.help * help_at(step, steps), g)

    def log_sample(model, step: int) -> dict:
        return data.sample(parts_with(parts, model), min(16, sample_steps), min(24, 2 + steps))

    def report(model) -> dict:
        return data.report(parts_with(parts, model), min(200, 8 + steps), sample_steps)

    helped = Helped(parts.unet, seeded(CellHead, LATENT_UNET["block_out_channels"][1]))
    return Recipe(
        name="ldm", model=helped, config=made, data=data.told, sample_batch=sample_batch,
        loss=helped_loss(parts),
        steps=steps, lr=RATE, report=report, sample=log_sample,
        milestones=tuple((i + 1) / 16 for i in range(16)),
        options={"ema": .999, "optimizer": "muon", "groups": unet_groups},
        helpers=f"a head that names what each place shows, weight {HELP}; cross-attention from a "
        f"thing to its words, weight {ALIGN}; both off after 75 %, and with them the weights of "
        "steps" if data.help else "none")


def as_batch(drawn: list[Example], parts: TextToImage, help_weight: float,
            g: torch.Generator) -> tuple[Tensor, ...]:
    """A batch: z0, t, eps, ids, what places show, where things are, which tokens name them.

    The last tensor (b,) is what helpers count. Some captions are dropped, with their words.
    """
    read, b = parts.tokenizer, len(drawn)
    kinds = torch.multinomial(torch.tensor(KINDS), b, True, generator=g).tolist()
    texts = [one.described(kind) for one, kind in zip(drawn, kinds, strict=True)]
    words = torch.stack([one.words(read, text, kind) for one, text, kind
                         in zip(drawn, texts, kinds, strict=True)])                 # (b,6,n)
    dropped = torch.rand(b, generator=g) < P_DROP
    ids = read(["" if drop else text for drop, text in zip(dropped, texts, strict=True)])
    z0 = torch.stack([one.z for one in drawn]).float()
    t = torch.randint(parts.schedule.T, (b,), generator=g)
    return (z0, t, torch.randn(z0.shape, generator=g), ids,
            torch.stack([one.codes() for one in drawn]),
            torch.stack([one.slots for one in drawn]), words & ~dropped[:, None, None],
            torch.full((b,), help_weight))


def helped_loss(parts: TextToImage) -> Callable:
    """The loss of a batch of `as_batch`: the paper's, with helpers as long as they count."""
    alpha_bar = parts.schedule.alpha_bar.float()
    usual = step_weight(alpha_bar).mean()

    def loss(helped: Helped, z0, t, eps, ids, codes, slots, words, help_weight) -> Tensor:
        with torch.no_grad():
            context = parts.text(ids).float()                               # (b,n,d)
        if not bool(help_weight.any()):
            return l_ldm(helped.model, z0, t, eps, context, parts.schedule)
        up = helped.model.up_blocks
        layers = cross_attentions(up)
        with outputs_of(up[1]) as states, record_attention(layers, attention_map) as maps:
            eps_hat = helped.model(q_sample(z0, t, eps, parts.schedule), t, context)
        error = (eps_hat.float() - eps).square().mean((1, 2, 3))            # (b,)
        kept = alpha_bar.to(t.device)[t]                                    # (b,)
        weight = help_weight * step_weight(kept) / usual + 1 - help_weight
        named = cell_loss(helped.head, states[0].flatten(2).transpose(1, 2), codes)
        read = [one.mean(1) for calls in maps.values() for one in calls]    # (b,n_pixels,n) each
        aligned = word_alignment_loss(read, slots, words)
        helpers = help_weight * kept.sqrt() * (HELP * named + ALIGN * aligned)
        return (weight * error + helpers).mean()

    return loss


def word_alignment_loss(maps: list[Tensor], slots: Tensor, words: Tensor) -> Tensor:
    """How little pixels of a thing attend to the words that name it, (b,), over all maps.

    maps (b,n_pixels,n), the mean over heads; slots (b,s,s), words (b,6,n). Half of a pixel's
    attention is enough: the other half may go where it likes.
    """
    total = 0.
    for one in maps:
        mask = slot_masks(slots, round(one.shape[1]**.5)).flatten(2)        # (b,6,n_pixels)
        mask = mask * words.any(2, keepdim=True)                            # things with words
        mass = torch.einsum("bpn,bkn->bkp", one.float(), words.float())    # (b,6,n_pixels)
        miss = -(2 * mass).clamp(1e-4, 1).log() * mask
        total = total + miss.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    return total / len(maps)


def parts_with(parts: TextToImage, unet: UNet) -> TextToImage:
    """The same parts around another U-Net."""
    return TextToImage(parts.vae, parts.text, unet, parts.tokenizer, parts.schedule)


