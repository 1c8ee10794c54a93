"""Maps as grounding for GLIGEN's gates (Li et al. 2023): tokens, and channels beside zt.

A map tells of every position what belongs there. It enters twice: as tokens that the gates read,
and as extra channels of the first convolution. Names and arithmetic of the original code
(gligen/GLIGEN, sem_grounding_net.py and sem_grounding_downsampler.py), whose ConvNeXt was trained
on photographs; here a small one learns together with the gates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ddim, device
from .gligen import Grounding, add_gates, freeze, gate_names
from .grounded import check_inputs, gate_scales, grounded_eps
from .grounding_inputs import chosen, token_mlp
from .latent import STEPS_OFFSET, TextToImage, to_pictures
from .unet import UNet
from .world.vocabulary import BASE, STUFF

MAP_CLASSES = STUFF + BASE                      # what a semantic map may say, by number
MAP_SIDE = 64                                   # positions of a map, each way
MAP_CHANNELS = 8                                # it adds to the first convolution
IN_WIDTH, WIDTHS = 16, (64, 128)                # of the tower; the original's are 3 and 96 to 768


@dataclass(frozen=True)
class SpatialMap:
    """Maps of a batch: maps (b,c,64,64), masks (b,), 1 where the picture has one."""

    maps: Tensor
    masks: Tensor

    none, each, beside = Grounding.none, Grounding.each, Grounding.beside


def semantic_maps(numbers: Tensor) -> SpatialMap:
    """Maps (b,h,w) of class numbers as one channel a class; h and w a multiple of 64.

    ValueError names the picture whose map is of another size, or the numbers that are no class.
    """
    h, w = numbers.shape[1:]
    if h != w or h % MAP_SIDE or not h:
        raise ValueError(f"A map must be square with {MAP_SIDE} positions a side or a multiple, "
                         f"got {w} by {h}.")
    for i, one in enumerate(numbers):
        wrong = [n for n in one.unique().tolist() if n not in range(len(MAP_CLASSES))]
        if wrong:
            known = ", ".join(f"{n} {word}" for n, word in enumerate(MAP_CLASSES))
            raise ValueError(f"Picture {i}: its map holds {', '.join(map(str, wrong))}, which is "
                             f"no class; known are {known}.")
    step = h // MAP_SIDE
    few = numbers[:, step // 2::step, step // 2::step].long()               # nearest
    maps = F.one_hot(few, len(MAP_CLASSES)).movedim(-1, 1)                  # (b,c,64,64)
    return SpatialMap(maps.float().contiguous(), torch.ones(len(maps)))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a feature map (b,c,h,w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    """A 7 x 7 convolution for each channel, norm, MLP, scale (Liu et al. 2022, figure 4)."""

    def __init__(self, d: int):
        super().__init__()
        self.dwconv = nn.Conv2d(d, d, 7, padding=3, groups=d)
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.gamma = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).movedim(1, -1))            # (b,h,w,d)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.movedim(-1, 1)                             # (b,d,h,w)


class ConvNeXt(nn.Module):
    """A small ConvNeXt: patches of 4, then of 2, each followed by two blocks; an eighth."""

    def __init__(self, c_in: int, widths: tuple[int, int] = WIDTHS):
        super().__init__()
        low, high = widths
        self.downsample_layers = nn.ModuleList([
            nn.Sequential(nn.Conv2d(c_in, low, 4, 4), ChannelNorm(low, eps=1e-6)),
            nn.Sequential(ChannelNorm(low, eps=1e-6), nn.Conv2d(low, high, 2, 2))])
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNeXtBlock(d), ConvNeXtBlock(d)) for d in widths)

    def forward(self, x: Tensor) -> Tensor:
        for shrink, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(shrink(x))
        return x                                                # (b,128,h/8,w/8)


class MapNet(nn.Module):
    """A token for each of 8 x 8 parts of a map: MLP(ConvNeXt(map) + where it lies).

    A picture without a map gets the null feature in every part; the position is added
    all the same.
    """

    def __init__(self, classes: int, d_objs: int):
        super().__init__()
        d, tokens = WIDTHS[-1], (MAP_SIDE // 8) ** 2
        self.in_conv = nn.Conv2d(classes, IN_WIDTH, 3, padding=1)
        self.convnext_tiny_backbone = ConvNeXt(IN_WIDTH)
        self.pos_embedding = nn.Parameter(torch.empty(1, tokens, d).normal_(std=.02))
        self.linears = token_mlp(d, d_objs)
        self.null_feature = nn.Parameter(torch.zeros(d))

    def forward(self, maps: Tensor, masks: Tensor) -> Tensor:
        x = self.convnext_tiny_backbone(self.in_conv(maps))     # (b,128,8,8)
        x = x.flatten(2).transpose(1, 2)                        # (b,64,128)
        x = chosen(x, masks[:, None], self.null_feature)
        return self.linears(x + self.pos_embedding)             # (b,64,d_objs)


class MapDownsampler(nn.Module):
    """A map at the size of latents: (b,c,64,64) to the extra channels (b,8,16,16)."""

    def __init__(self, classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(classes, 16, 4, 2, 1), nn.SiLU(),
                                    nn.Conv2d(16, MAP_CHANNELS, 4, 2, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps)


class FirstConv(nn.Conv2d):
    """The first convolution with extra channels, whose weights begin at zero.

    A convolution is a sum over channels, taken here in two parts: as long as the second
    is zero, the result is the old one to the last bit. With `restored` the layer uses
    its old weights and no extra channel, as GLIGEN does once its gates are closed.
    """

    def __init__(self, old: nn.Conv2d, extra: int):
        super().__init__(old.in_channels + extra, old.out_channels, 3, padding=1)
        self.parts, self.restored = [old.in_channels, extra], False
        kept = old.weight.detach().clone()
        self.register_buffer("old_weight", kept, persistent=False)
        with torch.no_grad():
            self.weight.zero_()[:, :old.in_channels].copy_(old.weight)
            self.bias.copy_(old.bias)
        self.to(old.weight)

    def forward(self, x: Tensor) -> Tensor:
        zt, extra = x.split(self.parts, dim=1)
        if self.restored:
            return F.conv2d(zt, self.old_weight, self.bias, padding=1)
        old, new = self.weight.split(self.parts, dim=1)
        y = F.conv2d(zt, old, self.bias, padding=1)
        return y + F.conv2d(extra, new, padding=1)


def add_map_gates(unet: UNet) -> UNet:
    """A plain U-Net with all that maps add: gates, tokens, extra channels. In place."""
    d, plain = unet.context_width, unet.conv_in
    if plain.in_channels != unet.conv_out.out_channels:
        raise ValueError(f"This U-Net already reads {plain.in_channels} channels.")
    add_gates(unet, MapNet(len(MAP_CLASSES), d))
    unet.downsample_net = MapDownsampler(len(MAP_CLASSES)).to(plain.weight)
    unet.conv_in = FirstConv(plain, MAP_CHANNELS)
    unet.config = unet.config | {"in_channels": unet.conv_in.in_channels}
    return unet


def map_names(unet: UNet) -> list[str]:
    """What maps add and train; of the first convolution the weight only (GLIGEN's trainer)."""
    return [*gate_names(unet), "conv_in.weight",
            *(name for name, _ in unet.named_parameters() if name.startswith("downsample_net."))]


def learn_maps(unet: UNet) -> UNet:
    """Let all of `map_names` learn, and nothing else."""
    freeze(unet)
    for name in map_names(unet):
        unet.get_parameter(name).requires_grad_(True)
    return unet


def concat_map_channels(unet: UNet, maps: Tensor) -> Callable:
    """A network that reads a map's channels beside zt; without grounding, restored.

    Guidance keeps the channels on both sides, as GLIGEN's code does: it leads away from
    a picture without tokens, not from one without a map.
    """
    def shown(zt: Tensor, t: Tensor, context: Tensor, grounding=None) -> Tensor:
        extra = unet.downsample_net(maps)                       # (b,8,h,w)
        copies = len(zt) // len(extra)                          # guidance asks for two
        unet.conv_in.restored = grounding is None
        try:
            both = torch.cat([zt, extra.repeat(copies, 1, 1, 1)], dim=1)
            return unet(both, t, context, grounding)
        finally:
            unet.conv_in.restored = False

    return shown


def map_noise(parts: TextToImage, count: int, seed: int) -> Tensor:
    """The noise zT (count,4,h,w) that a seed means, the same as the plain model's."""
    side = parts.unet.config["sample_size"]
    sources = device.generators(seed, count)
    return device.noise_each((parts.unet.conv_out.out_channels, side, side), sources, parts.device)


def sample_from_maps(parts: TextToImage, captions: list[str], grounding: SpatialMap, zT: Tensor,
                     steps: int = 30, guidance_scale: float = 5., tau: float = 1.,
                     negative: str = "") -> Iterator[tuple[int, Tensor]]:
    """Caption and map to latents, as `grounded.sample_grounded` does it with boxes.

    After the part tau of the steps gates are closed and the first convolution is restored.
    """
    check_inputs(parts.unet, captions, grounding, zT)
    strength = gate_scales(parts.schedule, steps, tau)
    context = parts.context(captions)                           # (b,n,d)
    null_context = parts.context([negative]).expand_as(context)
    model = grounded_eps(parts.unet, context, null_context, grounding, guidance_scale, strength,
                         concat_map_channels(parts.unet, grounding.maps))
    return ddim.sample(model, zT, parts.schedule, len(strength), offset=STEPS_OFFSET,
                       end=float(parts.schedule.alpha_bar[0]))


def generate_from_maps(parts: TextToImage, captions: list[str], grounding: SpatialMap,
                       seed: int = 0, **options) -> Tensor:
    """Captions with maps to pictures (b,3,h,w) in [-1, 1], on the CPU; seeds as ever."""
    zT = map_noise(parts, len(captions), seed)
    *_, (_, z0) = sample_from_maps(parts, captions, grounding, zT, **options)
    with torch.no_grad():
        return to_pictures(parts.vae, z0).cpu()
