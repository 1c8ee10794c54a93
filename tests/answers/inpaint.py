"""What people answer to the exercises of lesson 10."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from gligen_lessons import boxes as boxes_
from gligen_lessons import ddim, ddpm
from gligen_lessons import inpaint as reference
from gligen_lessons.datasets.instructions import Instruction
from gligen_lessons.experiments.detector_grounding import arms
from gligen_lessons.schedule import extract

# masks_from_boxes


def cutter(low=torch.floor, high=lambda edge, round_outward: (edge - 1e-4 * round_outward).ceil()
           if round_outward
           else edge.floor(), inside=0., turned=False, sizes=False, only_last=False, all_=False,
           channel=True, checked=True, restart=False):
    """A masks_from_boxes with a mistake in one place."""
    def masks(boxes, side, round_outward=False):
        made = torch.full((len(boxes), 1, side, side), 1 - inside)
        for i, places in enumerate(boxes):
            found = torch.tensor(sum(boxes, []) if all_ else places).reshape(-1, 4)
            if checked:
                boxes_.check_boxes(found)
            for box in (found[-1:] if only_last else found) * side:
                first, last = low(box[:2]), high(box[:2] + box[2:] if sizes else box[2:],
                                                 round_outward)
                (x0, y0), (x1, y1) = first.int().tolist(), last.int().tolist()
                made[(i, 0, slice(x0, x1), slice(y0, y1)) if turned else
                     (i, 0, slice(y0, y1), slice(x0, x1))] = inside
        return made if channel else made[:, 0]
    return masks


def up_when_outward(edge, round_outward):
    return edge.ceil() if round_outward else edge.floor()


def one_more_when_outward(edge, round_outward):
    return edge.floor() + round_outward


def by_the_hints(boxes, side, round_outward=False):
    masks = torch.ones(len(boxes), 1, side, side)
    for i, found in enumerate(boxes):
        edges = boxes_.check_boxes(found, "boxes") * side
        if round_outward:
            edges[:, 2:] = (edges[:, 2:] - 1e-4).ceil()
        for x0, y0, x1, y1 in edges.int().tolist():
            masks[i, :, y0:y1, x0:x1] = 0
    return masks


def by_comparing(boxes, side, round_outward=False):
    """No loop over places: a place is painted when it lies between a box's edges."""
    masks, place = torch.ones(len(boxes), 1, side, side), torch.arange(side)
    for i, found in enumerate(boxes):
        places = boxes_.check_boxes(torch.tensor(found, dtype=torch.float32).reshape(-1, 4)) * side
        for x0, y0, x1, y1 in places:
            ends = [torch.ceil(e - 1e-4) if round_outward else torch.floor(e) for e in (x1, y1)]
            across = (place >= torch.floor(x0)) & (place < ends[0])
            down = (place >= torch.floor(y0)) & (place < ends[1])
            masks[i, 0] *= 1. - down[:, None].float() * across[None].float()
    return masks


# expand_conv_in


def widener(old_place=lambda w, old, c: w[:, :c].copy_(old), rest=0., config=True, bias=True,
            channels=lambda c: 2 * c + 1, keep_type=True, checked=True, returned=True, padding=1,
            tracked=True, apart=False):
    """A widen with a mistake in one place."""
    def widened(unet):
        unet = copy.deepcopy(unet) if apart else unet
        old = unet.conv_in
        c = unet.config.get("out_channels", 4)
        if checked and old.in_channels != c:
            raise ValueError("It is wide already.")
        new = nn.Conv2d(channels(c), old.out_channels, 3, padding=padding, bias=bias)
        new = new.to(old.weight) if keep_type else new
        with torch.no_grad():
            new.weight.fill_(rest)
            old_place(new.weight, old.weight, c)
            if bias:
                new.bias.copy_(old.bias)
        unet.conv_in = new.requires_grad_(tracked)
        if config:
            unet.config = unet.config | {"in_channels": new.in_channels}
        return unet if returned else None
    return widened


def random_new_channels(unet):
    old = unet.conv_in
    reference.expand_conv_in(unet)
    with torch.no_grad():
        unet.conv_in.weight[:, old.in_channels:] = .1 * torch.randn(old.out_channels,
                                                                    old.in_channels + 1, 3, 3)
    return unet


def by_joining(unet):
    old, c = unet.conv_in, unet.config.get("out_channels", 4)
    if old.weight.shape[1] != c:
        raise ValueError(f"This network reads {old.weight.shape[1]} channels, not {c}.")
    nothing = torch.zeros_like(old.weight).repeat(1, 2, 1, 1)[:, :c + 1]
    old.weight = nn.Parameter(torch.cat([old.weight.detach(), nothing], 1))
    old.in_channels = 2 * c + 1
    unet.config["in_channels"] = 2 * c + 1
    return unet


def in_the_old_layer(unet):
    by_joining(unet).conv_in.in_channels = unet.config.get("out_channels", 4)
    return unet


# concat_inpainting_inputs


def shower(order=lambda zt, kept, mask: [zt, kept, mask], kept=lambda z0, mask: z0 * mask,
           told=lambda mask: mask, again=lambda x, n: x.repeat(n, 1, 1, 1), rest=True):
    """A with_known with a mistake in one place."""
    def with_known(unet, z0, mask):
        def shown(zt, *more):
            n = len(zt) // len(z0)
            parts = order(zt, again(kept(z0, mask), n), again(told(mask), n))
            return unet(torch.cat(parts, 1), *(more if rest else more[:1]))
        return shown
    return with_known


def zt_masked(unet, z0, mask):
    shown = shower()(unet, z0, mask)
    return lambda zt, *rest: shown(zt * (1 - mask.repeat(len(zt) // len(mask), 1, 1, 1)), *rest)


def not_repeated(unet, z0, mask):
    return lambda zt, *more: unet(torch.cat([zt, z0 * mask, mask], 1), *more)


def by_names(unet, z0, mask):
    known = torch.cat([z0 * mask, mask], 1)
    return lambda zt, t, context, grounding: unet(
        torch.cat([zt, known.repeat(len(zt) // len(z0), 1, 1, 1)], 1), t=t, context=context,
        grounding=grounding)


def called_at_once(unet, z0, mask):
    return torch.cat([z0, z0 * mask, mask], 1)


def by_tiling(unet, z0, mask):
    known = torch.cat((torch.where(mask > 0, z0, 0.), mask), dim=1)

    def told(zt, *rest):
        beside = torch.cat([known] * (zt.shape[0] // known.shape[0]))
        return unet(torch.cat((zt, beside), dim=1), *rest)
    return told


# blend_known


def keeper(known=ddpm.q_sample, join=lambda known, zt, mask: known * mask + zt * (1 - mask),
           step=lambda t: t):
    """A keep_known with a mistake in one place."""
    def keep(zt, z0, mask, t, eps, schedule):
        return join(known(z0, step(t), eps, schedule), zt, mask)
    return keep


def into_zt(zt, z0, mask, t, eps, schedule):
    zt *= 1 - mask
    zt += ddpm.q_sample(z0, t, eps, schedule) * mask
    return zt


def without_roots(z0, t, eps, schedule):
    level = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    return level * z0 + (1 - level) * eps


def in_64_bits(z0, t, eps, schedule):
    level = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    return level.sqrt() * z0 + (1 - level).sqrt() * eps


def by_choosing(zt, z0, mask, t, eps, schedule):
    level = extract(schedule.alpha_bar, t, z0)
    return torch.where(mask.bool(), level.sqrt() * z0 + (1 - level).sqrt() * eps, zt)


def by_difference(zt, z0, mask, t, eps, schedule):
    return zt + mask * (ddpm.q_sample(z0, t, eps, schedule) - zt)


# paste


def in_place(generated, x, mask):
    keep = mask.expand_as(x) > .5
    generated[keep] = x[keep]
    return generated


def by_adding_what_differs(generated, x, mask):
    return generated + mask * (x - generated)


def by_arithmetic(generated, x, mask):
    return x * mask + generated * (1 - mask)


def by_index(generated, x, mask):
    made, keep = generated.clone(), mask.bool().expand_as(x)
    made[keep] = x[keep]
    return made


# l_inpaint


def loss_of(target=lambda z0, zt, eps: eps, noised=ddpm.q_sample,
            shown=reference.concat_inpainting_inputs,
            kept=lambda z0, zt: z0, hole=lambda mask: mask, given=lambda y: y,
            measure=lambda a, b, mask: F.mse_loss(a, b)):
    """A loss with a mistake in one place."""
    def loss(unet, z0, t, eps, context, grounding, mask, schedule):
        zt = noised(z0, t, eps, schedule)
        prediction = shown(unet, kept(z0, zt), hole(mask))(zt, t, context, given(grounding))
        return measure(prediction, target(z0, zt, eps), mask)
    return loss


def without_the_mask(unet, z0, t, eps, context, grounding, mask, schedule):
    return F.mse_loss(unet(ddpm.q_sample(z0, t, eps, schedule), t, context, grounding), eps)


def hole_noised_only(unet, z0, t, eps, context, grounding, mask, schedule):
    zt = torch.where(mask > 0, z0, ddpm.q_sample(z0, t, eps, schedule))
    return F.mse_loss(reference.concat_inpainting_inputs(unet, z0, mask)(zt, t, context,
                                                                         grounding), eps)


def all_shown(unet, z0, t, eps, context, grounding, mask, schedule):
    zt = ddpm.q_sample(z0, t, eps, schedule)
    return F.mse_loss(unet(torch.cat([zt, z0, mask], 1), t, context, grounding), eps)


def put_back(unet, z0, t, eps, context, grounding, mask, schedule):
    zt = ddpm.q_sample(z0, t, eps, schedule)
    zt = reference.blend_known(zt, z0, mask, t, torch.randn_like(z0), schedule)
    return F.mse_loss(reference.concat_inpainting_inputs(unet, z0, mask)(zt, t, context,
                                                                         grounding), eps)


def hole_mean(prediction, eps, mask):
    inside = (1 - mask).expand_as(eps)
    return ((prediction - eps).square() * inside).sum() / inside.sum()


def by_hand(unet, z0, t, eps, context, grounding, mask, schedule):
    level = extract(schedule.alpha_bar, t, z0)
    zt = level.sqrt() * z0 + (1 - level).sqrt() * eps
    prediction = unet(torch.cat([zt, z0 * mask, mask], 1), t, context, grounding)
    return (prediction - eps).pow(2).mean()


def picture_by_picture(unet, z0, t, eps, context, grounding, mask, schedule):
    off = []
    for i in range(len(z0)):
        one = slice(i, i + 1)
        said = grounding.each(lambda x, one=one: x[one])
        zt = ddpm.q_sample(z0[one], t[one], eps[one], schedule)
        prediction = reference.concat_inpainting_inputs(unet, z0[one],
                                                        mask[one])(zt, t[one], context[one], said)
        off.append((eps[one] - prediction).square().mean())
    return torch.stack(off).mean()


# inpaint_steps


def sampler(keep="before", renew=True, end=None, each=True, level=0, down=None, start=None,
            count=True, free=True, left=True, once=False, anew=False):
    """An inpaint_steps with a mistake in one place."""
    def trajectory(model, z0, mask, schedule, visited, seed):
        sources = [torch.Generator().manual_seed(seed + i * count) for i in range(len(z0))]

        def drawn():
            if anew:
                sources[:] = [torch.Generator().manual_seed(seed + i) for i in range(len(z0))]
            return reference.fresh_noise(z0, sources) if each else torch.randn(z0.shape,
                                                                               generator=sources[0])
        zt, eps = drawn(), None
        zt = zt if start is None else start(z0, zt, visited[0], schedule)
        for step in visited:
            t = torch.full((len(zt),), step)
            if keep != "never":
                eps = drawn() if renew or eps is None else eps
            before = zt
            if keep in ("before", "at last", "late"):
                zt = reference.blend_known(zt, z0, mask, (t + level).clamp(min=0), eps, schedule)
            seen = reference.blend_known(zt, z0, mask, t, eps, schedule) if keep == "seen" else zt
            seen = before if keep == "late" else seen
            with torch.set_grad_enabled(not free):
                eps_hat = model(seen, t)
            t_prev = t - (down or schedule.T // len(visited))
            last = float(schedule.alpha_bar[0]) if end is None else end
            zt = ddim.ddim_step(eps_hat, zt, t, t_prev, schedule, end=last)
            if keep == "after":
                zt = reference.blend_known(zt, z0, mask, t, eps, schedule)
            if keep == "at last" and step == visited[-1]:
                zt = z0 * mask + zt * (1 - mask)
            if not once or step == visited[-1]:
                yield (step if left else int(t_prev[0])), zt
    return trajectory


def begins_at_z0(z0, noise, step, schedule):
    return ddpm.q_sample(z0, torch.full((len(z0),), step), noise, schedule)


def hands_back_the_end(model, z0, mask, schedule, visited, seed):
    *_, (_, z) = reference.inpaint_steps(model, z0, mask, schedule, visited, seed)
    return z


@torch.no_grad()
def as_a_list(model, z0, mask, schedule, visited, seed):
    found, sources = [], [torch.Generator().manual_seed(seed + i) for i in range(len(z0))]
    zt, gap = reference.fresh_noise(z0, sources), schedule.T // len(visited)
    for step in visited:
        t = torch.tensor([step] * len(z0))
        known = ddpm.q_sample(z0, t, reference.fresh_noise(z0, sources), schedule)
        zt = torch.where(mask > .5, known, zt)
        zt = ddim.ddim_step(model(zt, t), zt, t, t - gap, schedule,
                            end=schedule.alpha_bar[0].item())
        found.append((step, zt))
    return found


def one_noise_at_a_time(model, z0, mask, schedule, visited, seed):
    sources = [torch.Generator().manual_seed(seed + i) for i in range(len(z0))]
    zt = torch.stack([torch.randn(z0.shape[1:], generator=g) for g in sources])
    for step in visited:
        t = torch.full((len(z0),), step)
        eps = torch.stack([torch.randn(z0.shape[1:], generator=g) for g in sources])
        zt = reference.blend_known(zt, z0, mask, t, eps, schedule)
        with torch.no_grad():
            prediction = model(zt, t)
        zt = ddim.ddim_step(prediction, zt, t, t - schedule.T // len(visited), schedule,
                            end=float(schedule.alpha_bar[0]))
        yield step, zt


# instructions


def teller(arm="", change=lambda reference, one, seen: reference):
    """An instructions that gets one arm wrong."""
    def tell(one, seen):
        said = arms.instructions(one, seen)
        return said | ({arm: change(said[arm], one, seen)} if arm else {})
    return tell


def with_entries(*rows, caption=None):
    """An instruction of phrases with their boxes, (phrase, box) each."""
    return Instruction(caption or rows[0][0], [row[0] for row in rows],
                       torch.stack([row[1] for row in rows]))


def pairs(phrases, boxes_xyxy):
    return list(zip(phrases, boxes_xyxy, strict=True))


def true_target(one):
    return one.phrases[one.target], one.box


def everything_seen(reference, one, seen):
    return with_entries(true_target(one), *pairs(seen.phrases, seen.boxes_xyxy))


def true_things(reference, one, seen):
    return with_entries(*pairs(one.phrases, one.boxes_xyxy))


def target_from_detr(reference, one, seen):
    if (hit := arms.same_thing(one.box, seen)) is None:
        return reference
    return with_entries((seen.phrases[hit], seen.boxes_xyxy[hit]),
                        *pairs(reference.phrases[1:], reference.boxes_xyxy[1:]))


def target_in_detr_words(reference, one, seen):
    if (hit := arms.same_thing(one.box, seen)) is None:
        return reference
    return with_entries((seen.phrases[hit], one.box),
                        *pairs(reference.phrases[1:], reference.boxes_xyxy[1:]))


def c_left_out(one, seen):
    return {arm: said for arm, said in arms.instructions(one, seen).items() if said}


def true_target_in_c(reference, one, seen):
    return reference and with_entries(true_target(one),
                                      *pairs(reference.phrases[1:], reference.boxes_xyxy[1:]))


def true_box_in_c(reference, one, seen):
    return reference and with_entries((reference.phrases[0], one.box), *pairs(reference.phrases[1:],
                                                                              reference.boxes_xyxy[1:]))


def never_none(reference, one, seen):
    return reference or with_entries(true_target(one))


def zero_is_false(one, seen):
    said = arms.instructions(one, seen)
    return said if arms.same_thing(one.box, seen) else said | {"C": None}


def caption_of_all(reference, one, seen):
    return Instruction(", ".join(reference.phrases), reference.phrases, reference.boxes_xyxy)


def target_last(reference, one, seen):
    return Instruction(reference.caption, reference.phrases[::-1], reference.boxes_xyxy.flip(0))


def none_that_touch(reference, one, seen):
    rows = pairs(reference.phrases[1:], reference.boxes_xyxy[1:])
    kept = [row for row in rows if float(arms.iou(row[1][None], one.box[None])[0]) == 0]
    return with_entries(true_target(one), *kept)


def detections_in_d(reference, one, seen):
    return with_entries(*pairs(reference.phrases, reference.boxes_xyxy),
                        *pairs(seen.phrases, seen.boxes_xyxy))


def by_loops(one, seen):
    overlap = [float(arms.iou(box[None], one.box[None])[0]) for box in seen.boxes_xyxy]
    beside = [row for row, share in zip(pairs(seen.phrases, seen.boxes_xyxy), overlap, strict=True)
              if share <= arms.SAME]
    true = pairs(one.phrases, one.boxes_xyxy)
    mine = true.pop(one.target)
    made = {"A": with_entries(mine), "B": with_entries(mine, *beside), "C": None,
            "D": with_entries(mine, *true)}
    if overlap and max(overlap) > arms.SAME:
        hit = overlap.index(max(overlap))
        made["C"] = with_entries((seen.phrases[hit], seen.boxes_xyxy[hit]), *beside)
    return made


def others_in_another_order(one, seen):
    told = arms.instructions(one, seen)
    return {arm: said and with_entries(*pairs(said.phrases, said.boxes_xyxy)[:1],
                                       *pairs(said.phrases, said.boxes_xyxy)[:0:-1])
            for arm, said in told.items()}


WRONG = {
    "masks_from_boxes": [
        (cutter(inside=1.), "upside down"), (cutter(turned=True), "y counts rows"),
        (cutter(torch.round, lambda edge, _: edge.round()), "rounded to the nearest"),
        (cutter(high=lambda edge, _: edge.ceil()), "rounded up although"),
        (cutter(high=lambda edge, _: edge.floor() + 1), "one place too wide"),
        (cutter(sizes=True), "left, top, width, height"), (cutter(only_last=True), "only the last"),
        (cutter(all_=True), "boxes of all"), (cutter(channel=False), "with a channel"),
        (cutter(high=lambda edge, _: edge.floor()), "makes no difference"),
        (cutter(high=one_more_when_outward), "one cell too far"),
        (cutter(high=up_when_outward), "take off 1e-4"), (cutter(checked=False), "left edge lies")],
    "expand_conv_in": [
        (widener(apart=True), "another network"), (widener(returned=False), "returned None"),
        (widener(lambda w, old, c: w[:, -c:].copy_(old)), "read the LAST"),
        (random_new_channels, "fresh layer is full"), (widener(rest=.01), "begin at zero"),
        (widener(bias=False), "the bias is not"), (widener(config=False), "config still says"),
        (in_the_old_layer, "build a new"),
        (widener(channels=lambda c: 9), "has three, not four"),
        (widener(keep_type=False), "in a network of"),
        (widener(checked=False), "had been expanded already"),
        (widener(tracked=False), "cannot learn"),
        (widener(lambda w, old, c: w[:, :c].copy_(old / 2)), "are not the old ones"),
        (lambda unet: unet, "as many channels as before")],
    "concat_inpainting_inputs": [
        (shower(lambda zt, kept, mask: [zt, mask, kept]), "stands before the kept latent"),
        (shower(lambda zt, kept, mask: [kept, mask, zt]), "noisy latent comes first"),
        (shower(kept=lambda z0, mask: z0), "must be hidden"),
        (shower(kept=lambda z0, mask: z0 * (1 - mask)), "what lies around it"),
        (shower(told=lambda mask: 1 - mask), "upside down"),
        (shower(again=lambda x, n: x.repeat_interleave(n, 0)), "not `repeat_interleave`"),
        (shower(rest=False), "did not reach the network"), (not_repeated, "stopped with"),
        (zt_masked, "zt was masked"),
        (called_at_once, "no function")],
    "blend_known": [
        (keeper(join=lambda known, zt, mask: known * (1 - mask) + zt * mask), "changed places"),
        (keeper(lambda z0, t, eps, schedule: z0), "without noise"),
        (keeper(lambda z0, t, eps, schedule: z0 + eps), "q_sample mixes"),
        (keeper(without_roots), "square roots"), (keeper(in_64_bits), "bring alpha_bar"),
        (keeper(step=lambda t: t - 1), "step before t"),
        (keeper(step=lambda t: t[:1].expand_as(t)), "first one's step"),
        (keeper(join=lambda known, zt, mask: known * mask), "hole is left empty"),
        (keeper(join=lambda known, zt, mask: zt * (1 - mask)), "there is nothing"),
        (keeper(join=lambda known, zt, mask: known * mask + zt), "one replaces the other"),
        (keeper(lambda z0, t, eps, schedule: eps), "pure noise"), (into_zt, "make a new tensor")],
    "paste": [
        (lambda generated, x, mask: torch.where(mask > .5, generated, x), "changed places"),
        (lambda generated, x, mask: x * mask, "left empty"),
        (lambda generated, x, mask: generated * (1 - mask), "only the painted part"),
        (lambda generated, x, mask: generated, "nothing is put back"),
        (lambda generated, x, mask: x + generated, "the two are added"),
        (lambda generated, x, mask: (x + generated) / 2, "one or the other"),
        (by_adding_what_differs, "last digits"), (in_place, "changes a picture")],
    "l_inpaint": [
        (loss_of(lambda z0, zt, eps: z0), "compared with z0"),
        (loss_of(lambda z0, zt, eps: zt), "compared with zt"),
        (loss_of(noised=lambda z0, *rest: z0), "clean latent"),
        (hole_noised_only, "only the hole was noised"),
        (loss_of(kept=lambda z0, zt: zt), "shown with noise"), (all_shown, "nothing to predict"),
        (loss_of(hole=lambda mask: 1 - mask), "upside down"),
        (loss_of(given=lambda y: y.none()), "empty slots"),
        (loss_of(measure=hole_mean), "only the hole counts"),
        (loss_of(measure=lambda a, b, m: F.mse_loss(a * (1 - m), b * (1 - m))),
         "size of the whole"),
        (loss_of(measure=lambda a, b, m: (a - b).square().sum()), "squares are summed"),
        (loss_of(measure=lambda a, b, m: F.l1_loss(a, b)), "absolute differences"),
        (put_back, "Draw none"), (without_the_mask, "shown 3 channels, not 7"),
        (loss_of(noised=in_64_bits), "bring alpha_bar")],
    "inpaint_steps": [
        (sampler(keep="never"), "nothing is put back"), (sampler(keep="after"), "AFTER each step"),
        (sampler(keep="seen"), "goes down from the old zt"),
        (sampler(keep="late"), "is made from the old zt"),
        (sampler(renew=False), "draw it again"), (sampler(anew=True), "the start's noise again"),
        (sampler(end=1.), "ends at alpha_bar[0]"),
        (sampler(each=False), "one generator draws"), (sampler(count=False), "begin from one seed"),
        (sampler(level=-1), "another step than"), (sampler(down=1), "goes down by one"),
        (sampler(start=begins_at_z0), "should be noise alone"),
        (sampler(keep="at last"), "after the last step too"), (sampler(free=False), "no_grad"),
        (sampler(left=False), "just left"), (sampler(once=True), "once after each"),
        (hands_back_the_end, "yield two things")],
    "instructions": [
        (teller("A", everything_seen), "target alone"),
        (teller("B", everything_seen), "two wishes for one place"),
        (teller("B", lambda reference, one, seen: true_things(reference, one, seen)), "as A has"),
        (teller("B", lambda reference, one, seen: with_entries(
            true_target(one), *pairs(one.phrases, one.boxes_xyxy))), "from the detector only"),
        (teller("B", target_from_detr), "TRUE phrase and box"),
        (teller("B", target_in_detr_words), "TRUE phrase and box"),
        (teller("B", none_that_touch), "only what overlaps"),
        (teller("C", true_target_in_c), "told the truth"),
        (teller("C", true_box_in_c), "told the truth"), (teller("C", never_none), "missed the"),
        (teller("C", lambda reference, one, seen: None), "not a NoneType"),
        (teller("D", true_things), "comes first"), (teller("D", target_last), "comes first"),
        (teller("D", detections_in_d), "nothing else"), (teller("B", caption_of_all), "caption of"),
        (c_left_out, "the key stays"), (zero_is_false, "ask `is None`"),
        (lambda one, seen: list(arms.instructions(one, seen).values()), "the keys A, B")],
}
RIGHT = {
    "masks_from_boxes": [by_comparing, by_the_hints, cutter()],
    "expand_conv_in": [by_joining, widener()],
    "concat_inpainting_inputs": [by_tiling, by_names, shower()],
    "blend_known": [by_choosing, by_difference],
    "paste": [by_arithmetic, by_index],
    "l_inpaint": [by_hand, picture_by_picture],
    "inpaint_steps": [as_a_list, one_noise_at_a_time],
    "instructions": [by_loops, others_in_another_order],
}
