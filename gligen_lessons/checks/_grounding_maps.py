"""Checks of lesson 11 on maps: tokens, and channels that begin at zero."""

from collections.abc import Callable
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import grounding_maps as reference
from ..grounding_maps import SpatialMap
from . import Wrong, exercise, expect_close


@exercise("gligen_lessons.grounding_maps:MapNet")
def MapNet(attempt):
    """Three pictures with a map, and one without."""
    net = reference.MapNet(5, 7)
    for name, p in net.named_parameters():
        nn.init.normal_(p, std=.1 if "backbone" in name else .4)
    net.requires_grad_(False)
    maps, masks = torch.randn(4, 5, 64, 64), torch.tensor([1., 0, 1, 1])
    features = net.convnext_tiny_backbone(net.in_conv(maps))              # (4,128,8,8)
    x, used = features.flatten(2).transpose(1, 2), masks[:, None, None] > 0
    place, null = net.pos_embedding, net.null_feature
    want, plain = net.linears(torch.where(used, x, null) + place), net.linears(x + place)
    turned = features.transpose(2, 3).flatten(2).transpose(1, 2)
    mistakes = {
        "The masks are ignored: a picture without a map shows what lies in its slot.": plain,
        "A picture without a map gets tokens of zeros; the null feature goes through the MLP.":
            used * want,
        "Without a map the null feature stands in place of the POSITION too. Add where a part "
        "lies afterwards, to all.": net.linears(torch.where(used, x + place, null)),
        "The position is not told: add `pos_embedding`.": net.linears(torch.where(used, x, null)),
        "Parts go column by column. Rows come first, as `flatten` has them.":
            net.linears(torch.where(used, turned, null) + place),
        "`reshape(b, 64, 128)` mixes parts and channels; `flatten(2).transpose(1, 2)` makes one "
        "token of each part.":
            net.linears(torch.where(used, features.reshape(4, 64, 128), null) + place),
        "Without a map the features are zero. The null feature stands there.":
            net.linears(used * x + place),
        "The mask is upside down: 1 is a picture with a map.":
            net.linears(torch.where(used, null, x) + place)}
    learner = attempt(5, 7)
    if bool(learner.null_feature.any()):
        raise Wrong("null_feature does not begin at zero, as it does in the original.")
    learner.load_state_dict(net.state_dict())
    error = expect_close(learner(maps.clone(), masks.clone()), want, "in_conv, tower, one token a "
                         "part, null feature where there is no map, position, MLP.",
                         mistakes=mistakes, tol=1e-4)
    return f"makes 64 tokens of each of 4 maps (largest difference {error:.0e})"


@exercise("gligen_lessons.grounding_maps:FirstConv")
def FirstConv(attempt):
    """A first convolution of three channels gets four more; then it learns; then it is restored."""
    old, x = nn.Conv2d(3, 6, 3, padding=1).requires_grad_(False), torch.randn(2, 7, 5, 6)
    want, layer = old(x[:, :3]), attempt(old, 4)
    if layer.weight.shape != (6, 7, 3, 3):
        raise Wrong(f"the weight is {tuple(layer.weight.shape)}, expected (6, 7, 3, 3): three "
                    "channels of the latent, then four of the map.")
    if torch.equal(layer.weight[:, 4:], old.weight) and not bool(layer.weight[:, :4].any()):
        raise Wrong("the new channels stand in front; the latent's come first, then the map's.")
    if bool(layer.weight[:, 3:].any()):
        raise Wrong("the new channels do not begin at zero; a fresh layer is full of random "
                    "weights.")
    mistakes = {"The bias is added twice, once with each part.": want + old.bias.view(1, -1, 1, 1),
                "The bias is missing.": want - old.bias.view(1, -1, 1, 1)}
    expect_close(layer(x), want, "With zeros in the new channels the result must be the old one. "
                 "Weight, bias, padding 1?", mistakes=mistakes)
    if not torch.equal(layer(x), want):
        raise Wrong("the result differs in its last digits. Compute the old channels WITH the "
                    "bias, then add the new channels' part.")
    in_two_parts(attempt)
    if not (layer.weight.requires_grad and layer.bias.requires_grad):
        raise Wrong("the new layer cannot learn: leave weight and bias parameters.")
    layer.requires_grad_(False)
    layer.weight.copy_(torch.randn(6, 7, 3, 3))
    now = F.conv2d(x, layer.weight, old.bias, padding=1)
    mistakes = {"The new channels are not seen once they have weights.":
                F.conv2d(x[:, :3], layer.weight[:, :3], old.bias, padding=1),
                "The old weights are used although the layer has learnt others.": want,
                "The old channels go through `old_weight`, though they have learnt, too. That is "
                "for `restored` only.": want + F.conv2d(x[:, 3:], layer.weight[:, 3:], padding=1)}
    error = expect_close(layer(x), now, "It is one convolution over all seven channels.",
                         mistakes=mistakes)
    restored(layer, x, want)
    return (f"adds 4 channels that count once their weights are not zero (largest difference "
            f"{error:.0e})")


def in_two_parts(attempt) -> None:
    """Refuse one sum over all channels, whose rounding shows at 64 cells a side."""
    old, x = nn.Conv2d(4, 16, 3, padding=1).requires_grad_(False), torch.randn(1, 12, 64, 64)
    if not torch.equal(attempt(old, 8)(x), old(x[:, :4])):
        raise Wrong("at 64 cells a side the last digits differ: this is one sum over all "
                    "channels. Add the new channels' part, which is exactly zero.")


def restored(layer: nn.Module, x: Tensor, want: Tensor) -> None:
    """Restored, the layer must be the old one again, and only then; its file holds no copy."""
    learnt, layer.restored = layer(x), True
    mistakes = {"`restored` makes no difference: then the OLD weights count, and no new channel.":
                F.conv2d(x, layer.weight, layer.bias, padding=1),
                "`restored` leaves out the new channels, and keeps what the old ones have learnt "
                "since. The weights of before count.":
                F.conv2d(x[:, :3], layer.weight[:, :3], layer.bias, padding=1)}
    expect_close(layer(x), want, "Restored it must be the old layer.", mistakes=mistakes)
    layer.restored = False
    expect_close(layer(x), learnt, "After `restored` the layer has lost what it had learnt: leave "
                 "its weight alone, and compute with the old one.")
    if extra := set(layer.state_dict()) - {"weight", "bias"}:
        raise Wrong(f"{extra.pop()} would be saved with the layer: the base has it already. "
                    "`register_buffer(..., persistent=False)` keeps it out.")


class Eared(nn.Module):
    """Stands for a U-Net with map channels: it notices each channel, the step, and all else."""

    def __init__(self):
        super().__init__()
        self.conv_in = reference.FirstConv(nn.Conv2d(3, 3, 3, padding=1), 2)
        nn.init.normal_(self.conv_in.weight)
        self.downsample_net = nn.Conv2d(4, 2, 4, 4)

    def forward(self, xt: Tensor, t=None, context=None, grounding=None) -> Tensor:
        if xt.shape[1] != 5:
            raise Wrong(f"the network was shown {xt.shape[1]} channels, not 5: the latent's three "
                        "and two of the map, from `downsample_net`.")
        if t is None or context is None:
            raise Wrong("t or context did not reach the network.")
        told = 0. if grounding is None else grounding.masks.view(-1, 1, 1, 1)
        return torch.tanh(self.conv_in(xt) + torch.sin(t.float()).view(-1, 1, 1, 1)
                          + context.mean((1, 2)).view(-1, 1, 1, 1) + 2 * told)


@exercise("gligen_lessons.grounding_maps:concat_map_channels")
def concat_map_channels(attempt):
    """Two pictures, once, twice over as guidance asks, and with gates closed."""
    unet, largest = Eared().requires_grad_(False), 0.
    maps, zt = torch.randn(2, 4, 24, 20), torch.randn(4, 3, 6, 5)
    extra, t, context = unet.downsample_net(maps), torch.arange(4.), torch.randn(4, 3, 2)
    given = SpatialMap(maps.repeat(2, 1, 1, 1), torch.tensor([1., 0, 0, 1]))
    for b in (2, 4):
        rest, few = (t[:b], context[:b]), given.each(lambda x, b=b: x[:b])

        def shown(channels, few=few, rest=rest, b=b):
            return unet(torch.cat([zt[:b], channels], 1), *rest, few)

        again = extra.repeat(b // 2, 1, 1, 1)
        mistakes = {"The channels of the map are left out where there is grounding.":
                    shown(torch.zeros_like(again)),
                    "Grounding did not reach the network: hand it on.": shown(again, few.none()),
                    "`restored` is set although there is grounding: only without it.":
                    with_old_weights(unet, shown, again)}
        if b == 4:
            mistakes["Guidance stacks [all pictures, all pictures]; this repeats each picture at "
                     "once: `repeat`, not `repeat_interleave`."] = shown(
                       extra.repeat_interleave(2, 0))
            mistakes["Guidance's first half sees no map. GLIGEN keeps the channels on both "
                     "sides."] = shown(torch.cat([torch.zeros_like(extra), extra]))
        network = attempt(unet, maps.clone())
        if not callable(network):
            raise Wrong("it returned no function: return one that takes zt and the rest.")
        largest = max(largest, expect_close(network(zt[:b].clone(), *rest, few), shown(again),
                                            "Show zt first, then downsample_net(maps).",
                                            mistakes=mistakes))
    closed(attempt(unet, maps.clone()), unet, zt[:2], extra, t[:2], context[:2])
    return (f"shows the maps of 2 pictures, also when guidance doubles them, and is restored "
            f"without grounding (largest difference {largest:.0e})")


def with_old_weights(unet: Eared, shown: Callable, channels: Tensor) -> Tensor:
    """What `shown` gives while the first layer is restored."""
    unet.conv_in.restored = True
    try:
        return shown(channels)
    finally:
        unet.conv_in.restored = False


def closed(network: Callable, unet: Eared, zt: Tensor, extra: Tensor, *rest: Tensor) -> None:
    """Without grounding the call must be restored, and only it, also where it fails."""
    unet.conv_in.restored = True
    want = unet(torch.cat([zt, extra], 1), *rest)
    unet.conv_in.restored = False
    expect_close(network(zt.clone(), *rest), want, "Without grounding the gates are closed: set "
                 "`unet.conv_in.restored`, so that the plain model paints.")
    if unet.conv_in.restored:
        raise Wrong("`restored` is still set after the call: put it back, in a `finally`.")
    with suppress(Exception):
        network(zt[:, :2].clone(), *rest)                       # a channel too few
    if unet.conv_in.restored:
        raise Wrong("after an error inside the call `restored` is still set: put it back in a "
                    "`finally`.")
