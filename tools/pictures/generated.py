"""Pictures that the world draws and the shipped models make."""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle

from gligen_lessons import ddim, ddpm, detr, device, latent, show, weights, world
from gligen_lessons.boxes import xyxy_from_cxcywh
from gligen_lessons.datasets.annotated import annotated, lists
from gligen_lessons.datasets.edits import edit_cases
from gligen_lessons.datasets.labelled import labelled, pictures
from gligen_lessons.diffedit import edit_pictures, rescaled
from gligen_lessons.eval.detection import stacked
from gligen_lessons.eval.pixels import sample_labels
from gligen_lessons.eval.text_to_image import SHOWN
from gligen_lessons.images import heat_over, to_model
from gligen_lessons.schedule import Schedule
from gligen_lessons.world.vocabulary import BASE, COLOURS, TIMES, WORDS


def scenes() -> show.Picture:
    """Twenty-four scenes of the test split, a row for each time of day."""
    rows = [[], [], []]
    for seed in world.seeds("test", 1000):
        one = world.scene(seed)
        row = rows[TIMES.index(one.time)]
        clear = one.style == "flat" and one.weather in ("clear", "snow")
        if len(row) < 8 and len(one.things) > 2 and clear:
            row.append(world.render(one).image)
    return show.grid(np.stack(sum(rows, [])), columns=8, size=1.25)


def noise_to_pictures() -> show.Picture:
    """Four samples of the shipped DDPM at nine moments."""
    model, g = weights.load("ddpm"), device.generator(11)
    xT = torch.randn(4, 3, 32, 32, generator=g)
    frames = [xT, *(x for _, x in ddpm.sample(model, xT, Schedule.linear(), g, steps=250))]
    chosen = [round(part * 250) for part in (0, .3, .5, .65, .75, .83, .9, .95, 1)]
    return show.grid(torch.stack([frames[i] for i in chosen], 1).flatten(0, 1), 9, size=.75)


def between_noises() -> show.Picture:
    """Pictures along the great circle between noises, by DDIM with eta 0."""
    model, g = weights.load("ddpm"), device.generator(5)
    a, b, c = torch.randn(3, 3, 32, 32, generator=g)
    parts = torch.linspace(0, 1, 9)[:-1].tolist()
    xT = torch.stack([ddim.slerp(start[None], stop[None], part)[0]
                      for start, stop in ((a, b), (b, c)) for part in parts])
    *_, (_, x) = ddim.sample(model, xT, Schedule.linear(), 50, clip=True)
    return show.grid(x, columns=8, size=1.)


def latents() -> show.Picture:
    """Three scenes, the four channels of each latent, and the scenes decoded from them."""
    x, model = pictures(labelled("test", 24), torch.tensor([18, 12, 22])), weights.load("vae")
    with torch.no_grad():
        mean, _ = model.encode(x)                         # (3,4,16,16)
        x_hat = model.decode(mean)
    row = [[shown, *map(show.heat, z), back] for shown, z, back in zip(x, mean, x_hat, strict=True)]
    titles = ["scene", *(f"channel {i}" for i in range(4)), "decoded"] + [""] * 12
    return show.grid([one for cells in row for one in cells], columns=6, size=1.3, titles=titles)


def words_and_pictures() -> show.Picture:
    """How a CLIP shares out six pictures among six captions: rows sum to one."""
    seeds = world.seeds("single-test", 60)[:60:10]
    some = [world.scene(seed) for seed in seeds]
    texts = [world.captions(one)[0] for one in some]
    x = to_model(torch.tensor(np.stack([world.render(one).image for one in some])))
    model, read = weights.load("clip"), weights.tokenizer()
    with torch.no_grad():
        scale = float(model.logit_scale.exp())
        images, words = model.encode_image(x), model.encode_text(read(texts))
    p = (scale * words @ images.T).softmax(1)
    figure = show.Picture(8.6, 4.4)
    axes = figure.subplots(7, 7, width_ratios=[3.4, *[1] * 6], height_ratios=[1.8, *[1] * 6],
                           gridspec_kw={"wspace": .05, "hspace": .05})
    for ax in axes.flat:
        ax.set_axis_off()
    for i in range(6):
        axes[0, i + 1].imshow(((x[i] + 1) / 2).clamp(0, 1).movedim(0, -1))
        axes[i + 1, 0].text(1, .5, texts[i], ha="right", va="center", fontsize=9, color=show.INK)
        for k in range(6):
            axes[i + 1, k + 1].add_patch(Rectangle((.04, .04), .92, .92, color=show.COLOURS[0],
                                                   alpha=.06 + .94 * float(p[i, k])))
    return figure


def guidance_scales() -> show.Picture:
    """Four labels from one noise each, at five guidance scales."""
    scales, model = (0, 1, 2, 4, 8), weights.load("labelled")
    named = (("red", "car"), ("blue", "house"), ("yellow", "flower"), ("green", "mushroom"))
    labels = torch.tensor([[WORDS.index(word), list(COLOURS).index(hue)] for hue, word in named])
    columns = [sample_labels(model, labels, scale, 50, seed=8) for scale in scales]
    figure = show.grid(torch.stack(columns, 1).flatten(0, 1), 5, size=1.1,
                       titles=[f"s = {scale}" for scale in scales] + [""] * 15)
    for ax, (hue, word) in zip(figure.axes[::5], named, strict=True):
        ax.text(-.06, .5, f"{hue} {word}", rotation=90, ha="right", va="center", fontsize=9,
                color=show.INK, transform=ax.transAxes)
    return figure


def captions() -> show.Picture:
    """The eight captions of the course, by the shipped latent diffusion."""
    x = latent.generate(weights.text_to_image(), list(SHOWN), seed=3, steps=50)
    titles = [text.replace(" and a", "\nand a").replace(" on the", "\non the").replace(
        " by the", "\nby the") for text in SHOWN]
    return show.grid(x, columns=4, size=2., titles=titles, palette=256)


def matching() -> show.Picture:
    """Twenty answers of the shipped DETR, the costs with the matching, and what it is sure of."""
    held = annotated("grounding-test", 160)
    count = (held.labels >= 0).sum(1)                     # things of each scene
    k = int((count == 4).nonzero()[0])
    x = stacked(held.images, slice(k, k + 1))
    labels, targets = lists(held.labels, held.boxes_xyxy)
    with torch.no_grad():
        logits, boxes = weights.load("detr")(x)
    cost = detr.matching_cost(logits[0], boxes[0], labels[k], targets[k])   # (20,n)
    rows, cols = detr.match(logits, boxes, [labels[k]], [targets[k]])[0]
    found, = detr.postprocess(logits, boxes, detr.EVEN_ODDS)
    figure = show.boxed([held.images[k]] * 3, [xyxy_from_cxcywh(boxes[0]), [], found.boxes_xyxy],
                        [[""] * 20, [], [BASE[i] for i in found.labels]], columns=3, size=3.)
    figure.set_size_inches(9.1, 3.5)
    middle = figure.axes[1]
    middle.clear()
    middle.imshow(-cost.T, cmap="Greys", aspect=20 / len(labels[k]))
    for row, column in zip(rows.tolist(), cols.tolist(), strict=True):
        middle.add_patch(Rectangle((row - .5, column - .5), 1, 1, fill=False, lw=3,
                                   ec=show.COLOURS[1]))
    middle.set_yticks(range(len(labels[k])), [BASE[i] for i in labels[k]], rotation=90, va="center")
    middle.set_xticks([])
    titles = "twenty answers", "one for each thing", "what it is sure of"
    for ax, title in zip(figure.axes, titles, strict=True):
        ax.set_title(title, fontsize=11, color=show.INK)
    return figure


def edit() -> show.Picture:
    """Two scenes edited by DiffEdit: the source, the map, the mask, the edit."""
    cases = edit_cases("recolour", 3, plain=True)[::2]
    x = torch.stack([case.before for case in cases])
    made = edit_pictures(weights.text_to_image(), x, [case.reference for case in cases],
                         [case.query for case in cases], ratio=.75, steps=24)
    fine = F.interpolate(made.mask, 128).expand(-1, 3, -1, -1) * 2 - 1
    rows = torch.stack([x, heat_over(x, rescaled(made.map)), fine, made.x], 1).flatten(0, 1)
    titles = [text for case in cases for text in (f"from {case.reference.split(' and ')[0]}", "map",
                                                  "mask", f"to {case.query.split(' and ')[0]}")]
    return show.grid(rows, columns=4, size=2.1, titles=titles, palette=256)
