"""Pictures that GLIGEN's trained gates paint: things in their boxes, tau, and a hole."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gligen_lessons import show, weights
from gligen_lessons.detr import detect
from gligen_lessons.gligen import ground
from gligen_lessons.grounded import generate_grounded, sample_grounded
from gligen_lessons.images import to_model, to_shown
from gligen_lessons.inpaint import inpaint_grounded, masks_from_boxes, paste
from gligen_lessons.latent import to_latents, to_pictures
from gligen_lessons.show import INK
from gligen_lessons.world import Scene, render
from gligen_lessons.world.vocabulary import CATEGORIES

from .diagrams import (
    BALLOON,
    BLUE,
    GOLD,
    GREEN,
    HOUSE,
    ORANGE,
    PURPLE,
    arrow,
    canvas,
    frame,
    label,
    panel,
    photo,
    tint,
)

# captions, and the phrase in each box
ASKED = {
    "a red car and a green tree on the grass by day":
        {"a red car": (.05, .55, .55, .85), "a green tree": (.62, .15, .97, .85)},
    "a yellow house and a red mushroom on the snow at night":
        {"a yellow house": (.45, .2, .95, .75), "a red mushroom": (.08, .5, .38, .92)},
    "a blue boat by the water at sunset":
        {"a blue boat": (.08, .4, .6, .8)},
    "an orange balloon and a blue house on the sand by day":
        {"an orange balloon": (.1, .05, .4, .5), "a blue house": (.5, .4, .95, .85)},
}
WISH, STEPS, OPEN = "a red car and a green tree on the grass by day", 24, .3
HOLE, FILLING = (.07, .62, .47, .94), "a purple mushroom"


def boxes_and_pictures() -> show.Picture:
    """Four captions with boxes: what was drawn, and below it what the gates make of it."""
    parts = weights.text_to_image(unet=weights.load("gligen"))
    phrases = [list(places) for places in ASKED.values()]
    boxes = [torch.tensor(list(places.values())) for places in ASKED.values()]
    x = generate_grounded(parts, list(ASKED), phrases, boxes, seed=20)
    paper = torch.full_like(x, .9)
    figure = show.boxed([*paper, *x], [*boxes, *boxes], [*phrases, *[[""] * 2] * 4], size=2.4)
    figure.palette = 256
    return figure


def scheduled_sampling() -> Figure:
    """Eight moments of sampling: boxes count in the first three, the caption alone in the rest."""
    figure, ax = canvas(1204, 462, palette=256)
    label(ax, 235, 70, r"gates open, $\beta=1$", 13, ORANGE, weight="bold")
    label(ax, 819, 70, r"gates closed, $\beta=0$", 13, BLUE, weight="bold")
    label(ax, 455, 70, r"$\tau$", 16)
    ax.add_patch(Rectangle((15, 105), 440, 110, fc=tint(ORANGE, .16), lw=0))
    for path, colour in (((15, 105, 455, 105), ORANGE), ((455, 215, 1192, 215), BLUE)):
        ax.plot(path[::2], path[1::2], color=colour, lw=3, solid_capstyle="butt")
    ax.plot((455, 455), (105, 213), color=INK, lw=1.4, ls="--")
    label(ax, 235, 160, "caption, phrases and boxes:\nwhat goes where", 11.5)
    label(ax, 823, 160, "the old network, undisturbed, with the caption alone:\nhow it looks",
          11.5)
    _moments(ax)
    arrow(ax, (22, 425), (1182, 425), width=1.5)
    label(ax, 22, 450, "noise", ha="left")
    label(ax, 1182, 450, "picture", ha="right")
    return figure


def _moments(ax: Axes) -> None:
    """The eight pictures with their boxes: whole while the boxes count, dotted on the last."""
    parts, places = weights.text_to_image(unet=weights.load("gligen")), ASKED[WISH]
    grounding = ground(parts, [list(places)], [torch.tensor(list(places.values()))])
    walk = [z for _, z in sample_grounded(parts, [WISH], grounding, parts.first_noise(1, 20),
                                          STEPS, tau=OPEN)]
    with torch.no_grad():
        shown = to_shown(to_pictures(parts.vae, torch.cat(walk[1::3])).cpu()).numpy()
    colours, y, side = (PURPLE, GREEN), 264, 128
    for k, image in enumerate(shown):
        x = 24 + 146.7 * k
        photo(ax, image, x, y, side)
        frame(ax, (0, 0, 1, 1), x - 1, y - 1, side + 2, ORANGE if k < 3 else BLUE)
        for xyxy, colour in zip(places.values(), colours, strict=True):
            if k in (0, 1, 2, 7):
                frame(ax, xyxy, x, y, side, colour, ls=":" if k == 7 else "-",
                      lw=1.2 if k == 7 else 2)
    for x, phrase, colour in zip((430, 640), places, colours, strict=True):
        ax.add_patch(Rectangle((x, 445), 12, 12, fc=colour, lw=0))
        label(ax, x + 18, 450, phrase, 11, colour, ha="left")


def inpainting() -> Figure:
    """A picture with a hole, what belongs where, and the picture with a new thing in the hole."""
    figure, ax = canvas(1204, 434)
    titles = ("an old picture, and a hole", "what belongs where", "a new thing, an old picture")
    for x, colour, title in zip((16, 423, 830), (PURPLE, GREEN, BLUE), titles, strict=True):
        panel(ax, (x, 16, x + 358, 418), colour, title)
    arrow(ax, (378, 252), (420, 252), width=2.6)
    arrow(ax, (785, 252), (827, 252), width=2.6)
    old = render(Scene(horizon=.55, hills=((.29, .58, .1),), things=(HOUSE, BALLOON)), 128).image
    x, y, side = to_model(torch.tensor(old)[None]), 84, 313
    photo(ax, old, 39, y, side)
    x0, y0, x1, y1 = np.array(HOLE) * side + (39, y, 39, y)
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fc=tint(INK, .14), ec=INK, lw=1.6, ls="--"))
    label(ax, (x0 + x1) / 2, (y0 + y1) / 2, "?", 30)
    ax.add_patch(Rectangle((446, y), side, side, fc=tint(INK, .04), lw=0))
    seen = detect(weights.load("detr"), x)[0]
    for xyxy, kind, colour in zip(seen.boxes_xyxy.tolist(), seen.labels.tolist(),
                                  (BLUE, GOLD, GREEN), strict=False):
        frame(ax, xyxy, 446, y, side, colour, CATEGORIES[kind], ls="--")
    frame(ax, HOLE, 446, y, side, ORANGE, FILLING)
    label(ax, x0 / 2 + x1 / 2 + 407, (y0 + y1) / 2, "asked for", 11, ORANGE)
    label(ax, 692, 331, "seen by DETR", 10.5)
    photo(ax, to_shown(_filled(x))[0].numpy(), 853, y, side)
    return figure


def _filled(x: torch.Tensor) -> torch.Tensor:
    """The picture (1,3,128,128) with the hole painted, and pasted."""
    parts = weights.text_to_image(unet=weights.load("gligen-inpaint"))
    boxes = [torch.tensor([HOLE])]
    grounding = ground(parts, [[FILLING]], boxes)
    mask, keep = (masks_from_boxes(boxes, size, round_outward=True) for size in (16, 128))
    with torch.no_grad():
        z0 = to_latents(parts.vae, x, torch.zeros(1, 4, 16, 16))
        *_, (_, z) = inpaint_grounded(parts, [f"{FILLING} on the grass by day"], grounding, z0,
                                      mask)
        return paste(to_pictures(parts.vae, z).cpu(), x, keep)
