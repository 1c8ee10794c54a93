"""What people answer to the exercises of lesson 8."""

import copy
import math

import torch
import torch.nn.functional as F

from gligen_lessons import gligen as reference
from gligen_lessons.clip import pool
from gligen_lessons.ddpm import q_sample
from gligen_lessons.schedule import extract

# fourier

def sinusoids(rate=lambda k: 100 ** (k / 8), order=(0, 1, 3, 4, 2), cosine_first=False, flat=True):
    """A fourier with a mistake in one place."""
    def in_sinusoids(boxes):
        angles = boxes[..., None] * rate(torch.arange(8.)).to(boxes)
        both = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
        made = torch.stack(both, -1).permute(*order)              # from (b,n,4,8,2)
        return made.flatten(2) if flat else made
    return in_sinusoids


def in_32_bits(boxes):
    return reference.fourier(boxes.float())


def frequency_by_frequency(boxes):
    parts = []
    for k in range(8):
        angle = boxes * 100 ** (k / 8)
        parts += [torch.sin(angle), torch.cos(angle)]
    return torch.cat(parts, dim=-1)


def by_einsum(boxes):
    rates = torch.logspace(0, 2, 9, dtype=boxes.dtype)[:8]
    angles = torch.einsum("bnc,f->bnfc", boxes, rates)
    return torch.stack([angles.sin(), angles.cos()], 3).reshape(*boxes.shape[:2], -1)


# PositionNet

def tokens(forward):
    return type("PositionNet", (reference.PositionNet,), {"forward": forward})


def halves(self, boxes, masks, features):
    used = masks.unsqueeze(-1)
    return used, features, reference.fourier(boxes), 1 - used


def joined(self, words, places):
    return self.linears(torch.cat([words, places], -1))


def masks_ignored(self, boxes, masks, features):
    return joined(self, features, reference.fourier(boxes))


def tokens_zeroed(self, boxes, masks, features):
    return masks[..., None] * masks_ignored(self, boxes, masks, features)


def box_leaks(self, boxes, masks, features):
    used, words, places, free = halves(self, boxes, masks, features)
    return joined(self, used * words + free * self.null_positive_feature, places)


def phrase_leaks(self, boxes, masks, features):
    used, words, places, free = halves(self, boxes, masks, features)
    return joined(self, words, used * places + free * self.null_position_feature)


def zeros_for_null(self, boxes, masks, features):
    used, words, places, _ = halves(self, boxes, masks, features)
    return joined(self, used * words, used * places)


def zero_sinusoids(self, boxes, masks, features):
    used, words, places, free = halves(self, boxes, masks, features)
    return joined(self, used * words + free * self.null_positive_feature, used * places)


def zero_feature(self, boxes, masks, features):
    used, words, places, free = halves(self, boxes, masks, features)
    return joined(self, used * words, used * places + free * self.null_position_feature)


def by_the_tokens(self, boxes, masks, features):
    null = self.linears(torch.cat([self.null_positive_feature, self.null_position_feature]))
    return torch.where(masks[..., None] > 0, masks_ignored(self, boxes, masks, features), null)


def zero_box(self, boxes, masks, features):
    used, words, _, free = halves(self, boxes, masks, features)
    return joined(self, used * words + free * self.null_positive_feature,
                  reference.fourier(used * boxes))


def upside_down(self, boxes, masks, features):
    return reference.PositionNet.forward(self, boxes, 1 - masks, features)


def null_added(self, boxes, masks, features):
    used, words, places, _ = halves(self, boxes, masks, features)
    return joined(self, used * words + self.null_positive_feature,
                  used * places + self.null_position_feature)


def sinusoids_first(self, boxes, masks, features):
    used, words, places, free = halves(self, boxes, masks, features)
    return joined(self, used * places + free * self.null_position_feature,
                  used * words + free * self.null_positive_feature)


def null_in_place(self, boxes, masks, features):
    places = reference.fourier(boxes)
    features[masks == 0] = self.null_positive_feature
    places[masks == 0] = self.null_position_feature
    return joined(self, features, places)


def by_where(self, boxes, masks, features):
    used = masks[..., None] > 0
    words = torch.where(used, features, self.null_positive_feature)
    places = torch.where(used, reference.fourier(boxes), self.null_position_feature)
    return self.linears(torch.cat((words, places), dim=2))


def by_lerp(self, boxes, masks, features):
    used = masks.unsqueeze(2)
    return joined(self, torch.lerp(self.null_positive_feature.expand_as(features), features, used),
                  self.null_position_feature + used * (reference.fourier(boxes)
                                                       - self.null_position_feature))


# GatedSelfAttentionDense

def gated(forward):
    return type("GatedSelfAttentionDense", (reference.GatedSelfAttentionDense,),
                {"forward": forward})


def slipping(first=lambda g: g.scale * g.alpha_attn.tanh(),
             second=lambda g: g.scale * g.alpha_dense.tanh(),
             rows=lambda n: slice(None, n), join=lambda g, x, y: g.norm1(torch.cat([x, y], 1)),
             keep=lambda x: x, fed=lambda g, x, new: g.ff(g.norm2(new))):
    """A gate's forward with a mistake in one place."""
    def forward(self, x, objs):
        seen = self.attn(join(self, x, self.linear(objs)))[:, rows(x.shape[1])]
        new = keep(x) + first(self) * seen
        return new + second(self) * fed(self, x, new)
    return gated(forward)


def tokens_kept(self, x, objs):
    both = torch.cat([x, self.linear(objs)], 1)
    both = both + self.scale * self.alpha_attn.tanh() * self.attn(self.norm1(both))
    return both + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(both))


def gate_on_everything(self, x, objs):
    seen = self.attn(self.norm1(torch.cat([x, self.linear(objs)], 1)))[:, :x.shape[1]]
    x = self.scale * self.alpha_attn.tanh() * (x + seen)
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def first_gate_mixes(self, x, objs):
    seen = self.attn(self.norm1(torch.cat([x, self.linear(objs)], 1)))[:, :x.shape[1]]
    x = torch.lerp(x, seen, self.scale * self.alpha_attn.tanh())
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def gates_mix(self, x, objs):
    seen = self.attn(self.norm1(torch.cat([x, self.linear(objs)], 1)))[:, :x.shape[1]]
    x = torch.lerp(x, seen, self.scale * self.alpha_attn.tanh())
    return torch.lerp(x, self.ff(self.norm2(x)), self.scale * self.alpha_dense.tanh())


def scale_on_all(self, x, objs):
    seen = self.attn(self.norm1(torch.cat([x, self.linear(objs)], 1)))[:, :x.shape[1]]
    x = self.scale * (x + self.alpha_attn.tanh() * seen)
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def cross_attention(self, x, objs):
    x = x + self.scale * self.alpha_attn.tanh() * self.attn(
        self.norm1(x), self.norm1(self.linear(objs)))
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def norm_stays(self, x, objs):
    both = self.norm1(torch.cat([x, self.linear(objs)], 1))
    x = both[:, :x.shape[1]] + self.scale * self.alpha_attn.tanh() * self.attn(
        both)[:, :x.shape[1]]
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def in_place(self, x, objs):
    seen = self.attn(self.norm1(torch.cat([x, self.linear(objs)], 1)))[:, :x.shape[1]]
    x += self.scale * self.alpha_attn.tanh() * seen
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


def by_split(self, x, objs):
    n = [x.shape[1], objs.shape[1]]
    answer, _ = self.attn(self.norm1(torch.cat((x, self.linear(objs)), dim=-2))).split(n, dim=1)
    middle = torch.addcmul(x, answer, self.scale * torch.tanh(self.alpha_attn))
    return middle + self.ff(self.norm2(middle)) * torch.tanh(self.alpha_dense) * self.scale


def tokens_in_front(self, x, objs):
    both = torch.cat([self.linear(objs), x], 1)             # attention knows no order
    x = x + self.scale * self.alpha_attn.tanh() * self.attn(self.norm1(both))[:, objs.shape[1]:]
    return x + self.scale * self.alpha_dense.tanh() * self.ff(self.norm2(x))


# add_gates

def filler(blocks=reference.transformer_blocks, width=lambda a, unet: a.to_q.in_features,
           heads=lambda a: a.heads, where=lambda unet: unet.conv_in.weight,
           net=reference.PositionNet,
           checked=True, closed=0., shared=False, returned=True, own_net=True):
    """An add_gates with a mistake in one place."""
    def filled(unet, position_net=None):
        d = unet.context_width
        if d is None and checked:
            raise ValueError("This U-Net reads no words.")
        one = None
        for block in blocks(unet):
            a = block.attn1
            if one is None or not shared:
                one = reference.GatedSelfAttentionDense(width(a, unet), heads(a), d).to(where(unet))
                torch.nn.init.constant_(one.alpha_attn, closed)
            block.fuser = one
        if net:
            given = position_net if own_net else None
            unet.position_net = (given or net(d, d)).to(where(unet))
        return unet if returned else None
    return filled


def on_the_way_down(unet):
    return reference.transformer_blocks(unet.down_blocks)


def of_a_copy(unet):
    return reference.add_gates(copy.deepcopy(unet))


def spoils_old_weights(unet):
    unet.conv_in.weight.data.mul_(.5)
    return reference.add_gates(unet)


def by_class_name(unet, position_net=None):
    d = unet.context_width
    if not d:
        raise ValueError("There are no cross-attention blocks in this U-Net.")
    for module in unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            width = module.norm1.normalized_shape[0]
            module.fuser = reference.GatedSelfAttentionDense(width, module.attn1.heads, d)
    unet.position_net = reference.PositionNet(d, d) if position_net is None else position_net
    return unet.to(unet.conv_in.weight)


# freeze

def freezer(learns, checked=True, returned=True):
    """A freeze that lets those names learn for which `learns(name)` holds."""
    def frozen(unet):
        if checked and not reference.gate_names(unet):
            raise ValueError("There are no gates.")
        for name, p in unet.named_parameters():
            p.requires_grad_(learns(name))
        return unet if returned else None
    return frozen


def is_new(name):
    return ".fuser." in name or name.startswith("position_net.")


def only_off(unet):
    for name, p in unet.named_parameters():
        if not is_new(name):
            p.requires_grad_(False)
    if not reference.gate_names(unet):
        raise ValueError("There are no gates.")
    return unet


def all_off_then_on(unet):
    names = reference.gate_names(unet)
    if len(names) == 0:
        raise ValueError("No gates here: call add_gates first.")
    unet.requires_grad_(False)
    for name in names:
        unet.get_parameter(name).requires_grad = True
    return unet


def by_modules(unet):
    unet.requires_grad_(False)
    if unet.position_net is None:
        raise ValueError("call add_gates first")
    unet.position_net.requires_grad_(True)
    for block in reference.transformer_blocks(unet):
        block.fuser.requires_grad_()
    return unet


# phrase_features

def reading(pick, text=lambda parts, ids: parts.text(ids)):
    """A phrase_features that picks something else from the states."""
    def features(parts, phrases):
        ids = parts.tokenizer(phrases).to(parts.device)
        return pick(text(parts, ids), ids, parts.text.eos)
    return features


def without_the_last_norm(parts, ids):
    return parts.text.encoder(parts.text.embeddings(ids))


def in_one_phrase(parts, phrases):
    return reference.phrase_features(parts, [" ".join(phrases)])


def one_at_a_time(parts, phrases):
    made = []
    for phrase in phrases:
        ids = parts.tokenizer([phrase])
        end = ids[0].tolist().index(parts.text.eos)
        made.append(parts.text(ids)[0, end])
    return torch.stack(made)


def by_gather(parts, phrases):
    ids = parts.tokenizer(phrases).to(parts.device)
    states = parts.text(ids)
    end = (ids == parts.text.eos).int().argmax(1)
    return states.gather(1, end[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


# drop_conditions

def dropping(coins=lambda b, g: torch.rand(b, generator=g), second=None,
             below=lambda coins, p: coins < p, rates=lambda p, q: (p, q), void=-1):
    """A drop_conditions with a mistake in one place."""
    def dropped(caption, phrases, empty, p_caption, p_grounding, g):
        p, q = rates(p_caption, p_grounding)
        first = coins(len(caption), g)
        other = second(len(caption), g, first) if second else coins(len(caption), g)
        return (torch.where(below(first, p)[:, None], empty, caption),
                torch.where(below(other, q)[:, None], void, phrases))
    return dropped


def only_the_first_slot(caption, phrases, empty, p_caption, p_grounding, g):
    caption, less = reference.drop_conditions(caption, phrases, empty, p_caption, p_grounding, g)
    return caption, torch.cat([less[:, :1], phrases[:, 1:]], 1)


def ids_of_nothing(caption, phrases, empty, *rest):
    return reference.drop_conditions(caption, phrases, torch.zeros_like(empty), *rest)


def caption_alone(*given):
    return reference.drop_conditions(*given)[0]


def at_fixed_counts(caption, phrases, empty, p_caption, p_grounding, g):
    caption, phrases = caption.clone(), phrases.clone()
    order = torch.rand(2, len(caption), generator=g).argsort(1)
    for rows, p, part, void in ((order[0], p_caption, caption, empty),
                                (order[1], p_grounding, phrases, -1)):
        part[rows[:round(p * (len(rows) - 1))]] = void
    return caption, phrases


def coins_in_place(caption, phrases, empty, p_caption, p_grounding, g):
    caption[torch.rand(len(caption), generator=g) < p_caption] = empty
    phrases[torch.rand(len(phrases), generator=g) < p_grounding] = -1
    return caption, phrases


def by_bernoulli(caption, phrases, empty, p_caption, p_grounding, g):
    caption, phrases = caption.clone(), phrases.clone()
    for part, p, void in ((caption, p_caption, empty), (phrases, p_grounding, -1)):
        part[torch.bernoulli(torch.full((len(part),), p), generator=g).bool()] = void
    return caption, phrases


def in_a_loop_of_pictures(caption, phrases, empty, p_caption, p_grounding, g):
    caption, phrases = caption.clone(), phrases.clone()
    for i in range(len(caption)):
        if float(torch.rand((), generator=g)) < p_caption:
            caption[i] = empty
        if float(torch.rand((), generator=g)) < p_grounding:
            phrases[i] = -1
    return caption, phrases


# l_grounding

def loss_of(target=lambda z0, zt, eps: eps, seen=q_sample, given=lambda y: y,
            measure=F.mse_loss):
    """A loss with a mistake in one place."""
    def loss(unet, z0, t, eps, context, grounding, schedule):
        zt = seen(z0, t, eps, schedule)
        return measure(unet(zt, t, context, given(grounding)), target(z0, zt, eps))
    return loss


def grounding_forgotten(unet, z0, t, eps, context, grounding, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), t, context), eps)


def caption_forgotten(unet, z0, t, eps, context, grounding, schedule):
    zt = q_sample(z0, t, eps, schedule)
    return F.mse_loss(unet(zt, t, grounding=grounding), eps)


def arguments_exchanged(unet, z0, t, eps, context, grounding, schedule):
    return F.mse_loss(unet(q_sample(z0, t, eps, schedule), t, grounding, context), eps)


def by_hand(unet, z0, t, eps, context, grounding, schedule):
    level = extract(schedule.alpha_bar, t, z0)
    prediction = unet(level.sqrt() * z0 + (1 - level).sqrt() * eps, t, context, grounding)
    return (prediction - eps).pow(2).mean()


def mean_of_means(unet, z0, t, eps, context, grounding, schedule):
    off = eps - unet(q_sample(z0, t, eps, schedule), t, context=context, grounding=grounding)
    return off.square().flatten(1).mean(1).mean()


WRONG = {
    "fourier": [
        (sinusoids(lambda k: math.pi * 100 ** (k / 8)), "factor of pi"),
        (sinusoids(lambda k: 2 * math.pi * 100 ** (k / 8)), "factor of 2 pi"),
        (sinusoids(lambda k: 2 ** k), "powers of two"),
        (sinusoids(lambda k: 100 ** (k / 7)), "end at 100"),
        (sinusoids(lambda k: 100 ** (-k / 8)), "frequencies fall"),
        (sinusoids(lambda k: 100 ** ((k + 1) / 8)), "counts from 0"),
        (sinusoids(cosine_first=True), "sines are first"),
        (sinusoids(order=(0, 1, 2, 3, 4)), "sinusoids of a coordinate stand together"),
        (sinusoids(order=(0, 1, 3, 2, 4)), "coordinates come before"),
        (sinusoids(order=(0, 1, 4, 3, 2)), "all sines come before"),
        (sinusoids(order=(0, 1, 2, 4, 3)), "sines of a coordinate, then"),
        (sinusoids(order=(0, 1, 4, 2, 3)), "coordinate by coordinate"),
        (sinusoids(flat=False), "not flattened"), (in_32_bits, "64 bits")],
    "PositionNet": [
        (tokens(masks_ignored), "masks are ignored"), (tokens(tokens_zeroed), "after the MLP"),
        (tokens(box_leaks), "the box leaks"), (tokens(phrase_leaks), "the phrase leaks"),
        (tokens(zeros_for_null), "phrase and the box are zero"),
        (tokens(zero_sinusoids), "SINUSOIDS are zero"), (tokens(zero_feature), "FEATURE is zero"),
        (tokens(zero_box), "box in the corner"), (tokens(upside_down), "upside down"),
        (tokens(null_added), "added to every slot"),
        (tokens(sinusoids_first), "features, sinusoids"),
        (tokens(null_in_place), "itself was changed")],
    "GatedSelfAttentionDense": [
        (gated(tokens_kept), "token selection"),
        (slipping(rows=lambda n: slice(-n, None)), "the LAST rows"),
        (slipping(join=lambda g, x, y: g.norm1(torch.cat([y, x], 1))), "tokens stand before"),
        (slipping(second=lambda g: g.scale * g.alpha_attn.tanh()), "a gate of its own, alpha_d"),
        (slipping(first=lambda g: g.scale * g.alpha_dense.tanh()), "a gate of its own, alpha_a"),
        (slipping(lambda g: g.scale * g.alpha_dense.tanh(),
                  lambda g: g.scale * g.alpha_attn.tanh()), "have changed places"),
        (slipping(second=lambda g: 1.), "feed-forward part has no gate"),
        (slipping(first=lambda g: 1.), "attention has no gate"),
        (slipping(lambda g: g.scale * g.alpha_attn, lambda g: g.scale * g.alpha_dense), "tanh is"),
        (slipping(lambda g: g.scale * g.alpha_attn.sigmoid(),
                  lambda g: g.scale * g.alpha_dense.sigmoid()), "half open at zero"),
        (slipping(lambda g: g.alpha_attn.tanh(), lambda g: g.alpha_dense.tanh()),
         "`self.scale` is ignored"),
        (slipping(second=lambda g: g.alpha_dense.tanh()), "missing at the feed-forward"),
        (slipping(lambda g: (g.scale * g.alpha_attn).tanh(),
                  lambda g: (g.scale * g.alpha_dense).tanh()), "inside the tanh"),
        (gated(gate_on_everything), "The gate multiplies x as well"),
        (gated(first_gate_mixes), "first gate mixes"), (gated(gates_mix), "gates mix"),
        (gated(scale_on_all), "scale` multiplies x as well"),
        (slipping(keep=torch.zeros_like), "x is not added"),
        (slipping(fed=lambda g, x, new: g.ff(g.norm2(x))), "before the attention's answer"),
        (gated(norm_stays), "not norm1(x)"),
        (slipping(fed=lambda g, x, new: g.ff(g.norm2(new - x))), "not the first answer alone"),
        (slipping(second=lambda g: 0.), "feed-forward part is missing"),
        (slipping(join=lambda g, x, y: torch.cat([x, y], 1)), "norm1 is missing"),
        (slipping(join=lambda g, x, y: torch.cat([g.norm1(x), y], 1)), "pixels only; it norm"),
        (slipping(fed=lambda g, x, new: g.ff(new)), "norm2 is missing"),
        (gated(cross_attention), "this is cross-attention"),
        (slipping(join=lambda g, x, y: g.norm1(x)), "pixels look at pixels only"),
        (gated(in_place), "not `x +=")],
    "add_gates": [
        (filler(blocks=on_the_way_down), "have no gate"), (filler(shared=True), "share one gate"),
        (filler(net=None), "is still empty"), (filler(width=lambda a, unet: 8), "widths are those"),
        (filler(heads=lambda a: 1), "heads in a block that has"),
        (filler(where=lambda unet: torch.zeros(1)), "64 bits"),
        (filler(closed=1.), "every gate begins closed"),
        (filler(own_net=False), "handed in is not used"),
        (filler(checked=False), "CrossAttn blocks came"), (filler(returned=False), "returned None"),
        (of_a_copy, "returned another network"), (spoils_old_weights, "old weights have changed")],
    "freeze": [
        (freezer(lambda name: not is_new(name)), "the other way round"),
        (freezer(lambda name: ".alpha_" in name), "only the scalars"),
        (freezer(lambda name: ".fuser." in name), "position net is frozen"),
        (freezer(lambda name: name.startswith("position_net.")), "only the position net"),
        (freezer(lambda name: True), "everything learns"),
        (freezer(lambda name: False), "nothing learns"), (only_off, "nothing learns"),
        (freezer(is_new, checked=False), "without gates came"),
        (freezer(is_new, returned=False), "returned None")],
    "phrase_features": [
        (reading(lambda states, ids, eos: states[:, -1]), "the LAST place"),
        (reading(lambda states, ids, eos: states[:, 0]), "first token's state"),
        (reading(lambda states, ids, eos: states[
            torch.arange(len(ids)), (ids == eos).int().argmax(1) - 1]), "last WORD"),
        (reading(lambda states, ids, eos: states.mean(1)), "mean over all tokens"),
        (reading(lambda states, ids, eos: states.amax(1)), "largest value"),
        (reading(lambda states, ids, eos: states), "one vector"),
        (reading(pool, without_the_last_norm), "last norm is missing"),
        (reading(lambda *told: F.normalize(pool(*told), dim=-1)), "length one"),
        (in_one_phrase, "went in as one")],
    "drop_conditions": [
        (dropping(second=lambda b, g, first: first), "dropped together"),
        (dropping(coins=lambda b, g: torch.rand(1, generator=g).expand(b)), "as a whole"),
        (dropping(coins=lambda b, g: torch.rand(b)), "coins did not come"),
        (dropping(below=lambda coins, p: coins > p), "80% of the groundings"),
        (dropping(rates=lambda p, q: (q, p)), "of the captions were dropped where 50%"),
        (dropping(void=0), "neither as they came nor empty"),
        (dropping(void=torch.tensor([[-1, 0]])), "neither as they came"),
        (only_the_first_slot, "neither as they came"), (ids_of_nothing, "captions are neither"),
        (caption_alone, "return both"), (coins_in_place, "itself was changed"),
        (at_fixed_counts, "with a probability")],
    "l_grounding": [
        (loss_of(lambda z0, zt, eps: z0), "compared with z0"),
        (loss_of(lambda z0, zt, eps: zt), "compared with zt"),
        (loss_of(seen=lambda z0, *rest: z0), "clean latent"),
        (loss_of(given=reference.Grounding.none), "empty slots"),
        (loss_of(seen=lambda z0, t, eps, schedule: z0 + eps), "q_sample mixes"),
        (loss_of(measure=lambda a, b: (a - b).square().sum()), "squares are summed"),
        (loss_of(measure=lambda a, b: (a - b).square().mean((1, 2, 3))), "one mean over all"),
        (loss_of(measure=F.l1_loss), "absolute differences"),
        (grounding_forgotten, "without grounding"), (caption_forgotten, "without a caption"),
        (arguments_exchanged, "in this order")],
}
RIGHT = {
    "fourier": [frequency_by_frequency, by_einsum],
    "PositionNet": [tokens(by_where), tokens(by_lerp), tokens(by_the_tokens)],
    "GatedSelfAttentionDense": [gated(by_split), gated(tokens_in_front)],
    "add_gates": [by_class_name, filler()],
    "freeze": [all_off_then_on, by_modules],
    "phrase_features": [one_at_a_time, by_gather],
    "drop_conditions": [by_bernoulli, in_a_loop_of_pictures],
    "l_grounding": [by_hand, mean_of_means],
}
