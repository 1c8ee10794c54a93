"""Training lesson 9's gates: what is where, on top of the shipped latent diffusion model."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import device, weights
from ..datasets.instructions import KINDS, Layouts, phrase_table, phrase_table_features, slots
from ..fit import step_generator
from ..gligen import Grounding, add_gates, drop_conditions, freeze, gate_names
from ..grounded import gate_attention, gates
from ..inpaint import concat_inpainting_inputs
from ..latent import TextToImage
from ..muon import split
from ..nets import record_attention
from ..unet import UNet
from . import Recipe, seeded
from .alignment import ALIGN, INSIDE, box_alignment_loss, initialise_gates, weighted_loss
from .data import Source
from .helpers import help_at
from .latent import parts_with
from .world_data import WORLD

SHARES = (.6, .2, .2)                                     # of a batch, for each kind
P_CAPTION, P_GROUNDING = .5, .1                           # how often each is dropped
GATE_RATE, RATE = 2e-2, 1e-3                              # of the two scalars; of the rest
MATRIX_RATE = 3e-3                                        # of what is left to Muon
SECOND_LOSS = (f"places in boxes count {1 + INSIDE:g} times, steps as min-SNR times "
               f"1 / alpha_bar; pixels attend to their box's token, weight {ALIGN}")
HELPERS = (f"gates begin at weights that tell things apart; {SECOND_LOSS}; all but those first "
           "weights off after 75 %")
AS_ADAMW = ("null_", "linears.0", "linears_text.0", "linears_image.0", "embedding", "conv_in",
            "in_conv", "backbone", "downsample_net")      # what Muon leaves to it
MILESTONES = tuple((i + 1) / 12 for i in range(12))       # parts of the run, for the log


def gligen(steps: int | None = None, batch: int | None = None, source: Source = WORLD) -> Recipe:
    """The gates and the position net; everything else is frozen."""
    big = device.compute_budget() == "full"
    steps = steps or (1_500 if source.small else 12_000 if big else 6_000)
    batch = batch or (256 if big else 32)
    parts = weights.text_to_image(device.pick())
    unet = initialise_gates(freeze(seeded(add_gates, parts.unet)))
    data, sample_steps = source.grounded(parts, steps, batch), min(30, 1 + steps)

    def log_sample(model, step: int) -> dict:
        made = data.sample(parts_with(parts, model), min(15, sample_steps))
        return made | {"gates": gates_of(model)}

    def report(model) -> dict:
        return data.report(parts_with(parts, model), min(64, 4 + steps), sample_steps)

    return Recipe(
        name="gligen", model=unet, config=parts.unet.config, helpers=HELPERS,
        data=f"{data.told}, on top of ldm",
        sample_batch=batch_sampler(data.layouts, parts, steps, batch, 11),
        loss=grounding_loss(parts, texts=data.phrases), steps=steps, lr=RATE,
        report=report, sample=log_sample, milestones=MILESTONES,
        options={"ema": .995, "optimizer": "muon", "groups": gate_groups},
        learned=lambda model: {"_on": weights.fingerprint("ldm")}, kept=gate_names)


def batch_sampler(data: Layouts, parts: TextToImage, steps: int, batch: int, seed: int) -> Callable:
    """The function that draws the batch of a step: z0, t, eps, caption, phrases, boxes_xyxy.

    The last tensor (b,) is what the weights and the second loss count.
    """
    empty = parts.tokenizer([""])[0]
    return latent_sampler(data.z, parts.schedule.T, steps, batch, seed, lambda rows, g: (
        *sample_kind(data, rows, empty, g), data.boxes_xyxy[rows]))


def latent_sampler(z: Tensor, T: int, steps: int, batch: int, seed: int,
                   read: Callable) -> Callable:
    """The function that draws the batch of a step: z0, t, eps, what `read(rows, g)` gives, help."""
    def sample_batch(step: int) -> tuple[Tensor, ...]:
        g = step_generator(seed, step)
        rows = torch.randint(len(z), (batch,), generator=g)
        t = torch.randint(T, (batch,), generator=g)
        eps = torch.randn(batch, *z.shape[1:], generator=g)
        z0 = z[rows.to(z.device)].float()
        return z0, t, eps, *read(rows, g), torch.full((batch,), help_at(step, steps))

    return sample_batch


def grounding_loss(parts: TextToImage, attention: Callable = gate_attention,
                   texts: list[str] | None = None) -> Callable:
    """Both losses of a batch of `batch_sampler`: the weighted one of the paper, and alignment.

    Its phrases number `texts`, those of the world unless given. Where helpers count nothing, it
    is the loss of the paper. A mask (b,1,h,w) at the end of the batch makes it the loss of
    grounded inpainting.
    """
    table = phrase_table_features(parts, texts or phrase_table())           # (phrases,d)

    def loss(model, z0, t, eps, caption, phrases, boxes_xyxy, help_weight, mask=None):
        grounding = slots(table, phrases, boxes_xyxy)
        shown = model if mask is None else concat_inpainting_inputs(model, z0, mask)
        n, strength = phrases.shape[1], float(help_weight[0])
        few = grounding.each(lambda x: x[:, :n])
        with record_attention(watched(model, strength), attention) as maps:
            painting = weighted_loss(shown, z0, t, eps, states(parts, caption), grounding,
                                     parts.schedule, strength)
        return painting + aligned(maps, torch.arange(n), few, strength)

    return loss


def states(parts: TextToImage, ids: Tensor) -> Tensor:
    """The states (b,n,d) of captions' tokens, in 32 bits."""
    with torch.no_grad():
        return parts.text(ids).float()


def watched(model: UNet, strength: float) -> dict[str, nn.Module]:
    """The gates whose attention the second loss needs: none of them once it counts nothing."""
    return gates(model) if strength else {}


def aligned(maps: dict[str, list[Tensor]], tokens: Tensor, places: Grounding,
            strength: float) -> Tensor:
    """What the second loss adds: how far pixels miss the tokens (n,) whose `places` they lie in."""
    used = [one.mean(1)[..., tokens] for calls in maps.values() for one in calls]
    return strength * ALIGN * box_alignment_loss(used, places) if used else torch.zeros(())


def sample_kind(data: Layouts, rows: Tensor, empty: Tensor,
                g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Captions (b,n) and phrases (b,k) of some scenes, each as one of the three kinds of data.

    Some captions and some groundings are dropped.
    """
    b = len(rows)
    kind = torch.multinomial(torch.tensor(SHARES), b, replacement=True, generator=g)
    pick = torch.tensor(data.spoken)[torch.randint(len(data.spoken), (b,), generator=g)]
    caption = data.ids[rows, pick].long()
    caption[kind == KINDS.index("detection")] = empty
    grounding = (kind == KINDS.index("grounding"))[:, None]
    phrases = torch.where(grounding, data.full[rows], data.bare[rows])
    return drop_conditions(caption, phrases, empty, P_CAPTION, P_GROUNDING, g)


def gate_parameter_groups(unet: UNet) -> list[dict]:
    """AdamW's two groups: the gates' scalars at a rate far above that of the rest."""
    names = gate_names(unet)
    scalars = [n for n in names if n.endswith(("alpha_attn", "alpha_dense"))]
    rest = [n for n in names if n not in scalars]
    return [{"params": [unet.get_parameter(n) for n in scalars], "lr": GATE_RATE},
            {"params": [unet.get_parameter(n) for n in rest], "lr": RATE}]


def gate_groups(unet: UNet) -> list[dict]:
    """Muon for the matrices of gates and position net, and AdamW's two rates for what is left."""
    matrices, _ = split(unet, keep=AS_ADAMW)
    taken = {id(p) for p in matrices}
    scalars, rest = gate_parameter_groups(unet)
    rest["params"] = [p for p in rest["params"] if id(p) not in taken]
    return [{"params": matrices, "lr": MATRIX_RATE, "adjust": "match_rms_adamw"}, scalars, rest]


def slowed(groups: list[dict]) -> list[dict]:
    """The groups of `gate_groups`, slower: gates that have found their way need not find it."""
    for group, part in zip(groups, (.5, .2, .5), strict=True):
        group["lr"] *= part
    return groups


def gates_of(unet: UNet) -> list[float]:
    """tanh of the attention's gate in each block, rounded for the log."""
    return [round(float(unet.get_parameter(n).detach().tanh()), 4) for n in gate_names(unet)
            if n.endswith("alpha_attn")]


