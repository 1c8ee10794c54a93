"""What people answer to the exercises of lesson 11."""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn

from gligen_lessons import grounding_inputs as reference
from gligen_lessons import grounding_maps as maps_
from gligen_lessons.gligen import fourier, transformer_blocks
from gligen_lessons.nets import BasicTransformerBlock


def with_forward(base, forward):
    """The library's class with another forward."""
    return type(base.__name__, (base,), {"forward": forward})


# chosen

def by_lerp(x, masks, null):
    return x * masks[..., None] + (1 - masks[..., None]) * null


def by_loops(x, masks, null):
    rows = [[x[i, k] if masks[i, k] else null for k in range(x.shape[1])] for i in range(len(x))]
    return torch.stack([torch.stack(row) for row in rows])


def by_index(x, masks, null):
    made = null.expand_as(x).clone()
    made[masks > 0] = x[masks > 0]
    return made


def in_place(x, masks, null):
    x[masks == 0] = null
    return x


def on_a_copy(x, masks, null):
    return in_place(x.clone(), masks, null)


# KeypointNet

def keypoint_net(names=lambda net: (net.person_embeddings[:, None] + net.keypoint_embeddings
                                    ).flatten(0, 1),
                 place=lambda net, points, used: torch.where(used, fourier(points),
                                                             net.null_xy_feature),
                 masked=True, turned=False, zeros=False, named=True):
    """A KeypointNet with a mistake in one place."""
    def forward(net, points, masks):
        used = masks[..., None] > 0
        name = names(net).expand(len(points), -1, -1)
        xy = place(net, points, used) if masked else fourier(points)
        name = torch.where(used, name, net.null_person_feature) if masked and named else name
        tokens = net.linears(torch.cat([xy, name] if turned else [name, xy], -1))
        return used * tokens if zeros else tokens
    return with_forward(reference.KeypointNet, forward)


def chosen_at_the_end(net, points, masks):
    names = (net.person_embeddings[:, None] + net.keypoint_embeddings).flatten(0, 1)
    tokens = net.linears(torch.cat([names.expand(len(points), -1, -1), fourier(points)], -1))
    null = net.linears(torch.cat([net.null_person_feature, net.null_xy_feature]))
    return reference.chosen(tokens, masks, null)


class AsWideAsABox(reference.KeypointNet):
    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.null_xy_feature = nn.Parameter(torch.zeros(64))


class Renamed(reference.KeypointNet):
    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.mlp, self.linears = self.linears, None


class Drawn(reference.KeypointNet):
    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        nn.init.normal_(self.person_embeddings, std=.02)


def figure_by_figure(net, points, masks, mix=torch.where):
    made, n = [], len(net.keypoint_embeddings)
    for k, person in enumerate(net.person_embeddings):
        rows, used = slice(n * k, n * k + n), masks[:, n * k:n * k + n, None] > 0
        name = mix(used, person + net.keypoint_embeddings, net.null_person_feature)
        place = mix(used, fourier(points[:, rows]), net.null_xy_feature)
        made.append(net.linears(torch.cat([name, place], 2)))
    return torch.cat(made, 1)


def multiplied(used, x, null):
    return used * x + ~used * null


# EntityNet

def entity_net(join=lambda text, image: torch.cat([text, image], 1), masks=("phrases_masks",
               "image_masks"), place=("masks", "masks"), turned=False, mlps=("text", "image"),
               nulls=("text", "image")):
    """An EntityNet with a mistake in one place."""
    def forward(net, **given):
        made = []
        for i, kind in enumerate(("phrases", "image")):
            null = getattr(net, f"null_{nulls[i]}_feature")
            says = reference.chosen(given[f"{kind}_embeddings"], given[masks[i]], null)
            where = fourier(given["boxes"])
            if place:
                where = reference.chosen(where, given[place[i]], net.null_position_feature)
            both = [where, says] if turned else [says, where]
            made.append(getattr(net, f"linears_{mlps[i]}")(torch.cat(both, -1)))
        return join(*made)
    return with_forward(reference.EntityNet, forward)


def entities_in_lines(net, boxes, masks, phrases_masks, image_masks, phrases_embeddings,
                      image_embeddings, mix=torch.where):
    m, p, i = (x[..., None] > 0 for x in (masks, phrases_masks, image_masks))
    place = mix(m, fourier(boxes), net.null_position_feature)
    text = mix(p, phrases_embeddings, net.null_text_feature)
    image = mix(i, image_embeddings, net.null_image_feature)
    return torch.cat([net.linears_text(torch.cat([text, place], 2)),
                      net.linears_image(torch.cat([image, place], 2))], 1)


# image_features

def led_back(norm=28.7, first=True, last=True, inverse=False, together=False):
    """An image_features with a mistake in one place."""
    def features(e, p):
        x = F.normalize(e, dim=-1) if first else e
        x = x @ (torch.linalg.pinv(p).T if inverse else p)
        if together:
            return norm * x / x.norm()
        return norm * F.normalize(x, dim=-1) if last else norm * x
    return features


def row_by_row(e, p):
    rows = [(row / row.norm()) @ p for row in e]
    return torch.stack([28.7 * row / row.square().sum().sqrt() for row in rows])


# MapNet

def map_net(state=lambda x, used, net: torch.where(used, x, net.null_feature),
            place=lambda net: net.pos_embedding, turned=False, zeros=False):
    """A MapNet with a mistake in one place."""
    def forward(net, maps, masks):
        x = net.convnext_tiny_backbone(net.in_conv(maps))
        x = (x.transpose(2, 3) if turned else x).flatten(2).transpose(1, 2)
        used = masks[:, None, None] > 0
        tokens = net.linears(state(x, used, net) + place(net))
        return used * tokens if zeros else tokens
    return with_forward(maps_.MapNet, forward)


def reshaped(net, maps, masks):
    x = net.convnext_tiny_backbone(net.in_conv(maps))
    x = torch.where(masks[:, None, None] > 0, x.reshape(len(x), 64, 128), net.null_feature)
    return net.linears(x + net.pos_embedding)


def moved(net, maps, masks):
    x = net.convnext_tiny_backbone(net.in_conv(maps)).movedim(1, -1)
    x = x.reshape(len(x), 64, 128).clone()
    x[masks == 0] = net.null_feature
    return net.linears(x + net.pos_embedding)


def null_instead_of_place(net, maps, masks):
    x = net.convnext_tiny_backbone(net.in_conv(maps)).flatten(2).transpose(1, 2)
    return net.linears(torch.where(masks[:, None, None] > 0, x + net.pos_embedding,
                                   net.null_feature))


def map_by_map(net, maps, masks):
    made = []
    for one, used in zip(maps, masks, strict=True):
        x = net.convnext_tiny_backbone(net.in_conv(one[None]))[0].flatten(1).T
        x = x if used else net.null_feature.expand_as(x)
        made.append(net.linears(x + net.pos_embedding[0]))
    return torch.stack(made)


# FirstConv

class InOneSum(maps_.FirstConv):
    """As a product of matrices, so that its rounding is no library's choice of the day."""
    def forward(self, x):
        if self.restored:
            return super().forward(x)
        seen = F.unfold(x, 3, padding=1)                        # (b,9c,h*w)
        return (self.weight.flatten(1) @ seen).unflatten(2, x.shape[2:]) + self.bias.view(-1, 1, 1)


def first_conv(join):
    """A FirstConv that joins two convolutions, old channels and new, and the bias by `join`."""
    def forward(self, x):
        zt, extra = x.split(self.parts, 1)
        old, new = self.weight.split(self.parts, 1)
        if self.restored:
            return F.conv2d(zt, self.old_weight, self.bias, padding=1)
        return join(lambda bias=None: F.conv2d(zt, old, bias, padding=1),
                    lambda bias=None: F.conv2d(extra, new, bias, padding=1), self.bias)
    return with_forward(maps_.FirstConv, forward)


class Overwritten(maps_.FirstConv):
    """Restores the weight itself, for good."""
    def forward(self, x):
        if self.restored:
            self.weight.zero_()[:, :self.parts[0]].copy_(self.old_weight)
        return super().forward(x)


class Fresh(maps_.FirstConv):
    def __init__(self, old, extra):
        super().__init__(old, extra)
        nn.init.normal_(self.weight[:, old.in_channels:], std=.1)


class Deaf(maps_.FirstConv):
    def forward(self, x):
        return F.conv2d(x[:, :self.parts[0]], self.weight[:, :self.parts[0]], self.bias, padding=1)


class InFront(maps_.FirstConv):
    def __init__(self, old, extra):
        super().__init__(old, extra)
        self.weight.data = self.weight.data.roll(extra, 1)


class NeverLearnt(maps_.FirstConv):
    def forward(self, x):
        zt, extra = x.split(self.parts, 1)
        y = F.conv2d(zt, self.old_weight, self.bias, padding=1)
        return y if self.restored else y + F.conv2d(extra, self.weight[:, self.parts[0]:],
                                                    padding=1)


class TwiceBiased(maps_.FirstConv):
    def forward(self, x):
        return super().forward(x) + self.bias.view(1, -1, 1, 1)


class NeverRestored(maps_.FirstConv):
    def forward(self, x):
        zt, extra = x.split(self.parts, 1)
        old, new = self.weight.split(self.parts, 1)
        return F.conv2d(zt, old, self.bias, padding=1) + F.conv2d(extra, new, padding=1)


class HalfRestored(NeverRestored):
    def forward(self, x):
        c = self.parts[0]
        if self.restored:
            return F.conv2d(x[:, :c], self.weight[:, :c], self.bias, padding=1)
        return super().forward(x)


class SavedTwice(maps_.FirstConv):
    def __init__(self, old, extra):
        super().__init__(old, extra)
        self.register_buffer("old_weight", old.weight.detach().clone())


class WithAnOldLayer(nn.Conv2d):
    """The old layer kept whole, outside of what is saved."""
    def __init__(self, old, extra):
        super().__init__(old.in_channels + extra, old.out_channels, 3, padding=1)
        self.kept, self.restored = (old,), False
        self.weight.data = torch.cat([old.weight.data, torch.zeros(
            old.out_channels, extra, 3, 3)], 1)
        self.bias.data = old.bias.data.clone()

    def forward(self, x):
        c = self.kept[0].in_channels
        if self.restored:
            return self.kept[0](x[:, :c])
        y = F.conv2d(x[:, :c], self.weight[:, :c], self.bias, padding=1)
        return y + F.conv2d(x[:, c:], self.weight[:, c:], padding=1)


# concat_map_channels

def shower(again=lambda x, n: x.repeat(n, 1, 1, 1), told=True, extra=lambda x: x, closed=True,
           back=True, safe=True, open_=False):
    """A concat_map_channels with a mistake in one place."""
    def concat(unet, maps):
        def shown(zt, t, context, grounding=None):
            made = extra(unet.downsample_net(maps))
            unet.conv_in.restored = open_ or closed and grounding is None
            both, done = torch.cat([zt, again(made, len(zt) // len(made))], 1), False
            try:
                y = unet(both, t, context, grounding if told else grounding and grounding.none())
                done = True
                return y
            finally:
                if back and (done or safe):
                    unet.conv_in.restored = False
        return shown
    return concat


def half_without(x, n):
    return torch.cat([torch.zeros_like(x)] * (n - 1) + [x])


def called_at_once(unet, maps):
    return unet.downsample_net(maps)


def channels_once(unet, maps):
    """The channels made once, before the function."""
    extra = unet.downsample_net(maps)

    def shown(zt, t, context, grounding=None):
        unet.conv_in.restored = grounding is None
        try:
            return unet(torch.cat([zt, torch.cat([extra] * (len(zt) // len(extra)))], 1), t,
                        context, grounding)
        finally:
            unet.conv_in.restored = False
    return shown


# forward

def block_of(join):
    """A block whose middle is `join(block, x after self-attention, context, objs)`."""
    def forward(block, x, context, objs=None):
        x = x + block.attn1(block.norm1(x))
        if objs is None or block.fuser is None:
            x = x + block.attn2(block.norm2(x), context)
        else:
            x = join(block, x, context, objs) if block.parallel else in_sequence(
                block, x, context, objs)
        return x + block.ff(block.norm3(x))
    return forward


def words(block, x, context):
    return block.attn2(block.norm2(x), context)


def in_sequence(block, x, context, objs):
    x = block.fuser(x, objs)
    return x + words(block, x, context)


def side_by_side(block, x, context, objs):
    return block.fuser(x, objs) + words(block, x, context)


def by_differences(block, x, context, objs):
    return x + (block.fuser(x, objs) - x) + words(block, x, context)


def always_parallel(block, x, context, objs=None):
    x = x + block.attn1(block.norm1(x))
    grounded = x if objs is None else block.fuser(x, objs)
    x = grounded + words(block, x, context)
    return x + block.ff(block.norm3(x))


def without_asking_for_a_gate(block, x, context, objs=None):
    x = x + block.attn1(block.norm1(x))
    grounded = x if objs is None else block.fuser(x, objs)
    x = grounded + words(block, x if block.parallel else grounded, context)
    return x + block.ff(block.norm3(x))


def pixels_in_place(when):
    """The library's, save that x itself is changed where `when(block, objs)`."""
    def forward(block, x, context, objs=None):
        y = BasicTransformerBlock.forward(block, x, context, objs)
        if when(block, objs):
            x += block.attn1(block.norm1(x))
        return y
    return forward


# reground

def switch(blocks=transformer_blocks, after=lambda was: was, safe=True, obey=True, swallow=False,
           always=True):
    """A reground with a mistake in one place."""
    @contextlib.contextmanager
    def reground(unet, parallel=True):
        before = [(block, block.parallel) for block in transformer_blocks(unet)]
        for block in blocks(unet):
            block.parallel = parallel if obey else True
        try:
            yield
        except Exception:
            if not safe:
                before = []
            if not swallow:
                raise
        finally:
            for block, was in before if parallel or always else ():
                block.parallel = after(was)
    return reground


@contextlib.contextmanager
def kept_on_blocks(unet, parallel=True):
    for block in transformer_blocks(unet):
        block.was, block.parallel = block.parallel, parallel
    try:
        yield
    finally:
        for block in transformer_blocks(unet):
            block.parallel = block.was


@contextlib.contextmanager
def by_a_stack(unet, parallel=True):
    with contextlib.ExitStack() as stack:
        for block in transformer_blocks(unet):
            stack.callback(setattr, block, "parallel", block.parallel)
            block.parallel = parallel
        yield


class Wired:
    """The same as a class."""
    def __init__(self, unet, parallel=True):
        self.blocks = [m for m in unet.modules() if isinstance(m, BasicTransformerBlock)]
        self.parallel = parallel

    def __enter__(self):
        self.before = [block.parallel for block in self.blocks]
        for block in self.blocks:
            block.parallel = self.parallel

    def __exit__(self, *error):
        for block, was in zip(self.blocks, self.before, strict=True):
            block.parallel = was


WRONG = {
    "chosen": [
        (lambda x, masks, null: x, "masks are ignored"),
        (lambda x, masks, null: torch.where(masks[..., None] > 0, null, x), "upside down"),
        (lambda x, masks, null: x * masks[..., None], "free slots are zero"),
        (lambda x, masks, null: x * masks[..., None] + null, "added to every slot"),
        (lambda x, masks, null: null.expand_as(x), "every slot got"), (by_lerp, "held NaN"),
        (in_place, "`x` itself was changed")],
    "KeypointNet": [
        (keypoint_net(masked=False), "masks are ignored"),
        (keypoint_net(zeros=True), "has a token too"),
        (keypoint_net(lambda net: (net.keypoint_embeddings[:, None] + net.person_embeddings
                                   ).flatten(0, 1)), "joint after joint"),
        (keypoint_net(lambda net: net.keypoint_embeddings.repeat(2, 1)), "which figure"),
        (keypoint_net(lambda net: net.person_embeddings.repeat_interleave(17, 0)), "which joint"),
        (keypoint_net(turned=True), "names are first"),
        (keypoint_net(place=lambda net, points, used: fourier(points)), "place leaks"),
        (keypoint_net(place=lambda net, points, used: fourier(points * used)), "a corner"),
        (keypoint_net(named=False), "name stays"),
        (Drawn, "person_embeddings does not begin at zero"),
        (AsWideAsABox, "null_xy_feature is (64,), expected (32,). A point has"),
        (Renamed, "there is no linears.0.weight"),
        (with_forward(reference.KeypointNet, chosen_at_the_end), "before the MLP"),
        (with_forward(reference.KeypointNet, lambda *given: figure_by_figure(
            *given, mix=multiplied)),
         "held NaN, and it came through")],
    "EntityNet": [
        (entity_net(lambda text, image: torch.cat([image, text], 1)), "phrases come first"),
        (entity_net(lambda text, image: torch.stack([text, image], 2).flatten(1, 2)),
         "side by side"),
        (entity_net(lambda text, image: text + image), "are added"),
        (entity_net(masks=("masks", "masks")), "masks of their own"),
        (entity_net(place=("phrases_masks", "image_masks")), "has its own, `masks`"),
        (entity_net(place=()), "place leaks"),
        (entity_net(turned=True), "features are first"),
        (entity_net(mlps=("text", "text")), "their own, `linears_image`"),
        (entity_net(mlps=("image", "image")), "their own, `linears_text`"),
        (entity_net(masks=("image_masks", "phrases_masks")), "masks are exchanged"),
        (entity_net(nulls=("text", "text")), "take `null_image_feature`"),
        (entity_net(nulls=("image", "image")), "take `null_text_feature`"),
        (with_forward(reference.EntityNet, lambda net, **given: entities_in_lines(
            net, **given, mix=multiplied)),
         "held NaN, and it came through"),
        (entity_net(lambda text, image: text), "only the phrases'"),
        (entity_net(lambda text, image: image), "only the pictures'")],
    "image_features": [
        (led_back(1.), "the norm is 1"), (led_back(1., last=False), "left as it comes"),
        (led_back(last=False), "after the projection too"),
        (led_back(inverse=True), "takes the transpose"),
        (led_back(together=True), "after the projection all rows are divided by one norm"),
        (led_back(first=False, together=True), "all rows are divided by one norm"),
        (led_back(28.7**.5), "squared norm")],
    "MapNet": [
        (map_net(lambda x, used, net: x), "masks are ignored"),
        (map_net(zeros=True), "tokens of zeros"),
        (map_net(lambda x, used, net: used * x), "features are zero"),
        (with_forward(maps_.MapNet, null_instead_of_place), "in place of the position"),
        (map_net(place=lambda net: 0), "position is not told"),
        (map_net(turned=True), "column by column"),
        (with_forward(maps_.MapNet, reshaped), "mixes parts and channels"),
        (map_net(lambda x, used, net: torch.where(used, net.null_feature, x)), "upside down")],
    "FirstConv": [
        (InOneSum, "last digits"), (Overwritten, "leave its weight alone"),
        (first_conv(lambda old, new, bias: old() + new(bias)), "with the bias"),
        (first_conv(lambda old, new, bias: old() + new() + bias.view(1, -1, 1, 1)),
         "with the bias"), (Fresh, "do not begin at zero"), (Deaf, "are not seen"),
        (InFront, "stand in front"), (NeverLearnt, "for `restored` only"),
        (TwiceBiased, "added twice"), (NeverRestored, "makes no difference"),
        (HalfRestored, "have learnt since"), (SavedTwice, "keeps it out")],
    "concat_map_channels": [
        (shower(lambda x, n: x.repeat_interleave(n, 0)), "not `repeat_interleave`"),
        (shower(half_without), "on both sides"), (shower(told=False), "hand it on"),
        (shower(extra=torch.zeros_like), "are left out"), (shower(closed=False), "plain model"),
        (shower(open_=True), "although there is grounding"),
        (shower(back=False), "after the call"), (shower(safe=False), "after an error"),
        (called_at_once, "no function")],
    "forward": [
        (block_of(in_sequence), "this is gligen's"),
        (block_of(lambda b, x, c, o: x + side_by_side(b, x, c, o)), "counted twice"),
        (block_of(lambda b, x, c, o: b.fuser(x + words(b, x, c), o)), "read the same state"),
        (block_of(lambda b, x, c, o: b.fuser(x, o)), "words are gone"),
        (block_of(lambda b, x, c, o: x + words(b, x, c)), "gate is left out"),
        (always_parallel, "although `parallel` is off"),
        (without_asking_for_a_gate, "'NoneType' object is not callable"),
        (pixels_in_place(lambda block, objs: True), "`x` itself was changed"),
        (pixels_in_place(lambda block, objs: not block.parallel), "`x` itself was changed"),
        (pixels_in_place(lambda block, objs: objs is None), "`x` itself was changed")],
    "reground": [
        (switch(lambda unet: transformer_blocks(unet)[:1]), "all of"),
        (switch(after=lambda was: True), "still in parallel"),
        (switch(after=lambda was: False), "not False"), (switch(safe=False), "after an error"),
        (switch(obey=False), "in sequence"), (switch(swallow=True), "is swallowed"),
        (switch(always=False), "whatever `parallel` is"), (kept_on_blocks, "not on the blocks")],
}
RIGHT = {
    "chosen": [by_loops, by_index, on_a_copy],
    "KeypointNet": [with_forward(reference.KeypointNet, figure_by_figure), keypoint_net()],
    "EntityNet": [entity_net(), with_forward(reference.EntityNet, entities_in_lines)],
    "image_features": [led_back(), row_by_row],
    "MapNet": [map_net(), with_forward(maps_.MapNet, map_by_map),
               with_forward(maps_.MapNet, moved)],
    "FirstConv": [WithAnOldLayer, with_forward(maps_.FirstConv, maps_.FirstConv.forward),
                  first_conv(lambda old, new, bias: new() + old(bias))],
    "concat_map_channels": [channels_once, shower()],
    "forward": [block_of(side_by_side), block_of(by_differences)],
    "reground": [switch(), Wired, by_a_stack],
}
