"""Latent diffusion: what the referee finds of what captions name."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import ddim, device, weights
from ..datasets.labelled import labelled, pictures
from ..detr import detect
from ..guidance import classifier_free
from ..images import SIDE
from ..latent import STEPS_OFFSET, TextToImage, generate, to_pictures
from ..metrics import feature_distances, share, wilson
from ..referee import found_beside, judge_scenes
from ..world import captions, scene, seeds
from ..world.scene import Scene
from ..world.vocabulary import BASE, CATEGORIES, COLOURS, HELD_OUT, NOVEL
from .autoencoder import reconstruct

# what a fifth of the captions of the report is about: the split, and which things count
ALONE = {"single": ("single-test", lambda thing: True),
         "novel": ("novel", lambda thing: thing.category in NOVEL),
         "pairs": ("pairs", lambda thing: (thing.colour, thing.category) in HELD_OUT)}
SCALES = (1, 3, 5, 9)                                     # of guidance
SWITCHED = (0, 2, 4, 8, 12)                               # steps before the caption changes

SHOWN = ("a red car on the snow at night", "a yellow house on the grass by day",
         "a blue boat by the water at sunset", "a purple cat on the sand by day",
         "a green tree and a red mushroom on the grass by day", "a striped pink balloon",
         "a monkey in blue on the road by day", "a white rocket on the snow by day")


def is_small(parts: TextToImage) -> bool:
    """Whether a model paints single things at 64 px: one of `train small`."""
    return parts.unet.config["sample_size"] < SIDE // 8


def named_things(found: list[Scene], counts: Callable = lambda thing: True) -> Tensor:
    """What a caption that names everything asks for: category in colour, (n,18,10) of 0 and 1.

    Only of the things that count.
    """
    requested = torch.zeros(len(found), len(CATEGORIES), len(COLOURS))
    for i, one in enumerate(found):
        for thing in filter(counts, one.things):
            requested[i, CATEGORIES.index(thing.category), list(COLOURS).index(thing.colour)] = 1
    return requested


def ldm_report(parts: TextToImage, count: int = 1000, steps: int = 30,
               guidance_scale: float = 5.) -> dict:
    """Captions of held-out scenes as pictures: what the referee finds of what they name.

    `named, found` is the part of named things present in their colour (`referee.found_beside` has
    what stands beside it), also for renders of the same scenes and for their reconstructions by
    the autoencoder; distances compare with renders of other scenes. Single things, novel words
    and held-out pairs have captions of their own, a fifth as many.
    """
    judge, small = weights.load("referee-scene", device.pick()), is_small(parts)
    data = labelled("single-test", 2 * count, 64) if small else labelled("test", 2 * count)
    renders = torch.cat([pictures(data, part) for part in torch.arange(2 * count).split(64)])
    real, others = renders[:count], judge_scenes(judge, renders[count:])[1]
    scenes_ = [scene(seed) for seed in data.renders.seeds[:count]]
    options = {"steps": steps, "guidance_scale": guidance_scale}
    made = {"painted": judge_captions(parts, scenes_, **options),
            "renders": judge_scenes(judge, real),
            "reconstructions": judge_scenes(judge, reconstruct(parts.vae, real))}
    report = {}
    for name, (found, features) in made.items():
        report |= {f"named, {what}, {name}": value
                   for what, value in found_beside(found, named_things(scenes_)).items()}
        report |= {f"{what}, {name}": x for what, x in feature_distances(features, others).items()}
    for name, (split, counts) in ALONE.items() if not small else ():
        few = [scene(seed) for seed in seeds(split, max(8, count // 5))]
        told = found_beside(judge_captions(parts, few, **options)[0], named_things(few, counts))
        report |= {f"named, {what}, {name}": value for what, value in told.items()}
    return report | {"captions": count, "steps": steps, "guidance scale": guidance_scale}


def judge_captions(parts: TextToImage, found: list[Scene], batch: int = 16, **options) -> tuple:
    """The scene referee's findings (n,18,10) and features (n,64) of scenes painted by caption."""
    texts = [captions(one)[0] for one in found]
    x = torch.cat([generate(parts, texts[i:i + batch], seed=i, **options)
                   for i in range(0, len(texts), batch)])
    return judge_scenes(weights.load("referee-scene", device.pick()), x)


def scale_rows(parts: TextToImage, found: list[Scene], steps: int) -> list[dict]:
    """Words obeyed, and things that nobody named, over the guidance scale: a row for each scale."""
    named, rows = named_things(found), []
    for scale in SCALES:
        seen = judge_captions(parts, found, steps=steps, guidance_scale=scale)[0]
        sure = seen > .5
        rows.append({"scale": scale} | found_beside(seen, named)
                    | share("precision", named[sure] > 0, sure.nonzero()[:, 0]))
        print(rows[-1], flush=True)
    return rows


def interval_of(name: str, hits: Tensor) -> dict[str, float]:
    """The part of hits (n,), one a picture, as figures of a report: NAME, its interval, and n."""
    part, low, high = wilson(hits)
    return {name: part, f"{name}, low": low, f"{name}, high": high, f"{name}, n": len(hits)}


def shows(thing: str, x: Tensor) -> Tensor:
    """Whether the scene referee finds a thing, "red car", in pictures (b,3,h,w), (b,)."""
    colour, category = thing.split()
    found = judge_scenes(weights.load("referee-scene", device.pick()), x)[0]
    return found[:, CATEGORIES.index(category), list(COLOURS).index(colour)].cpu() > .5


def stands_left(x: Tensor) -> Tensor:
    """Whether DETR's surest car stands left of its surest house, 1 or 0; -1 where one lacks."""
    wanted, sides = [BASE.index("car"), BASE.index("house")], []
    for one in detect(weights.load("detr", device.pick()), x):
        best = [one.scores.where(one.labels == label, 0.) for label in wanted]
        there = all(len(score) and score.max() > 0 for score in best)
        middles = one.boxes_xyxy[:, ::2].mean(1)
        sides.append(int(middles[best[0].argmax()] < middles[best[1].argmax()]) if there else -1)
    return torch.tensor(sides)


def how_many(category: str, x: Tensor) -> Tensor:
    """How many things of a category DETR finds in each picture, (b,)."""
    return torch.tensor([int((one.labels == BASE.index(category)).sum())
                         for one in detect(weights.load("detr", device.pick()), x)])


# pairs of captions that differ in a few words, and what each says, as a judge of pictures
PLACE, BALLOON = "on the grass by day", "a yellow balloon"
PAIRS = {
    "binding": {f"a red car and a blue house {PLACE}":
                lambda x: shows("red car", x) & shows("blue house", x),
                f"a blue car and a red house {PLACE}":
                lambda x: shows("blue car", x) & shows("red house", x)},
    "relation": {f"a red car to the left of a blue house {PLACE}": lambda x: stands_left(x) == 1,
                 f"a red car to the right of a blue house {PLACE}": lambda x: stands_left(x) == 0},
    "count": {f"{BALLOON} {PLACE}": lambda x: how_many("balloon", x) == 1,
              f"{BALLOON}, {BALLOON} and {BALLOON} {PLACE}":
              lambda x: how_many("balloon", x) == 3}}


def pair_rows(parts: TextToImage, count: int, **options) -> list[dict]:
    """Of `count` pictures of each caption in PAIRS: how many show it, how many show the other.

    Both captions of a pair begin at the same noises, seeds 0, 1, ...
    """
    rows = []
    for judges in PAIRS.values():
        for caption, right in judges.items():
            x = torch.cat([generate(parts, [caption] * min(16, count - i), seed=i, **options)
                           for i in range(0, count, 16)])
            other = next(judge for text, judge in judges.items() if text != caption)
            rows.append({"caption": caption} | interval_of("as captioned", right(x))
                        | interval_of("as the other caption", other(x)))
            print(rows[-1], flush=True)
    return rows


@torch.no_grad()
def switched(parts: TextToImage, first: str, second: str, k: int, zT: Tensor, steps: int = 20,
             guidance_scale: float = 5.) -> Tensor:
    """Pictures sampled with one caption for the first k steps and with another after them."""
    early = set(ddim.timesteps(parts.schedule.T, steps, offset=STEPS_OFFSET)[:k])
    null = parts.context([""]).expand(len(zT), -1, -1)
    before, after = (classifier_free(parts.unet, parts.context([text] * len(zT)), null,
                                     guidance_scale) for text in (first, second))
    *_, (_, z) = ddim.sample(
        lambda zt, t: before(zt, t) if int(t[0]) in early else after(zt, t), zT, parts.schedule,
        steps, offset=STEPS_OFFSET, end=float(parts.schedule.alpha_bar[0]))
    return to_pictures(parts.vae, z).cpu()


def is_night(x: Tensor) -> Tensor:
    """Whether the upper quarter of pictures (b,3,h,w) is dark, (b,)."""
    return x[:, :, :x.shape[2] // 4].mean((1, 2, 3)) < 0


# what "a red car on the grass by day" becomes, and whether a picture shows it
BECOMES = {"night": ("a red car on the grass at night", is_night),
           "blue": ("a blue car on the grass by day", lambda x: shows("blue car", x)),
           "house": ("a red house on the grass by day", lambda x: shows("red house", x))}


def switch_rows(parts: TextToImage, count: int) -> list[dict]:
    """How many of `count` pictures show the second caption, over the steps before the switch."""
    zT, rows = parts.first_noise(count, 0), []
    for k in SWITCHED:
        rows.append({"switched after": k})
        for name, (caption, right) in BECOMES.items():
            x = switched(parts, f"a red car {PLACE}", caption, k, zT)
            rows[-1] |= interval_of(name, right(x))
        print(rows[-1], flush=True)
    return rows


def prompts_report(parts: TextToImage, count: int = 24, steps: int = 20) -> dict:
    """What lesson 6 tries with a few pictures, on more: scales, pairs of captions, switches.

    `count` held-out captions at each scale, half as many noises for each caption of a pair, a
    quarter for each switch.
    """
    few = [scene(seed) for seed in seeds("test", count)]
    return {"scales": scale_rows(parts, few, steps),
            "pairs": pair_rows(parts, max(2, count // 2), steps=steps),
            "switches": switch_rows(parts, max(2, count // 4)), "captions": count, "steps": steps}
