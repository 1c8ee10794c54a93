"""What recipes learn from the picture world: renders, with hints that only the world can give."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from .. import device, weights
from ..datasets.annotated import annotated
from ..datasets.instructions import layouts, phrase_table
from ..datasets.labelled import cell_codes, with_labels
from ..datasets.latent_scenes import Example, LatentScenes, full_scene, window
from ..datasets.negatives import exchanged
from ..eval.autoencoder import vae_report
from ..eval.detection import detr_report
from ..eval.grounding import Held, gligen_report
from ..eval.image_text import clip_report
from ..eval.text_to_image import SHOWN, is_small, judge_captions, ldm_report, named_things
from ..images import sheet
from ..latent import TextToImage, generate
from ..referee import recall
from ..world import scene, seeds
from ..world.language import captions
from ..world.scene import Scene
from ..world.vocabulary import BASE
from . import on_device, scenes
from .data import TOKENS, Boxed, Examples, Grounded, Pairs, Pictures
from .helpers import OFF

CAPTIONS = (.25, .15, 1., .1, .15)                        # how often CLIP meets each of five
WRONG = 2                                                 # wrong captions for each right one
SCENES = 48_000                                           # with several things, at most
SMALL = 3                                                 # times as many small pictures a step
ALL_SMALL = .1                                            # of the run, which sees nothing else
QUERIES = 20                                              # of the detector


@dataclass(frozen=True)
class World:
    """The world's renders; with `small` only single things at 64 px."""

    small: bool = False

    @property
    def size(self) -> int:
        return 64 if self.small else 128

    def origin(self, name: str) -> dict:
        """A card of the course says all there is by its command."""
        return {}

    def pictures(self, steps: int, batch: int) -> Pictures:
        """Renders of the training split, judged by the referee in reconstructions."""
        split = "single-train" if self.small else "train"
        weights.load("referee-scene")           # the report needs it: say now if it is missing
        drawn = scenes(split, steps, batch, size=self.size)
        return Pictures(told=f"{len(drawn.images)} {split} scenes at {self.size} px",
                        images=drawn.images, boxes_xyxy=torch.tensor(drawn.boxes_xyxy),
                        report=partial(vae_report, small=self.small))

    def pairs(self, steps: int, batch: int) -> Pairs:
        """As many scenes with one thing as with several, from the splits that CLIP may see."""
        drawn = [scenes(split, steps, batch, size=self.size)
                 for split in ("train", "single-train")[self.small:]]
        codes = [cell_codes(with_labels(d), torch.arange(len(d.seeds)), 8) for d in drawn]
        found = [scene(seed) for d in drawn for seed in d.seeds]
        told = "single-train" if self.small else "train and single-train"
        return Pairs(told=f"{len(found)} scenes of {told} at {self.size} px",
                     images=torch.cat([on_device(d.images) for d in drawn]),
                     codes=torch.cat(codes), report=clip_report, tokens=TOKENS,
                     choose=described(found, 0 if self.small else len(drawn[0].seeds)))

    def examples(self, steps: int, batch: int) -> Examples:
        """Latents of scenes, from small pictures to whole ones; see `growing`."""
        most = min(SCENES, SMALL * batch * steps)
        told, choose = (one_thing if self.small else growing)(most, steps, batch)
        weights.load("referee-scene")           # the report needs it: say now if it is missing
        return Examples(told=told, side=self.size // 8, choose=choose, sample=held_sample,
                        report=ldm_report)

    def boxed(self, steps: int, batch: int) -> Boxed:
        """Scenes of base categories with all boxes of what shows."""
        count = len(scenes("grounding-train", steps, batch).images)
        return Boxed(told=f"{count} grounding-train scenes at 128 px",
                     train=annotated("grounding-train", count), val=annotated("grounding-val", 200),
                     classes=len(BASE), queries=QUERIES, report=detr_report, backbone=.2)

    def grounded(self, parts: TextToImage, steps: int, batch: int) -> Grounded:
        """Layouts of base categories; with `small` those of novel categories are left out."""
        big = device.compute_budget() == "full"
        drawn = (scenes("single-train", steps, batch, 24_000, 64) if self.small else
                 scenes("grounding-train", steps, batch, 80_000 if big else 24_000))
        data, kind = layouts(parts, drawn), "small single-" if self.small else "grounding-"
        held = Held.of(64 if steps > 8 else 4, *(("single-test", 64) if self.small else ()))
        return Grounded(told=f"latents of {len(data.z)} {kind}train scenes", layouts=data,
                        phrases=phrase_table(), sample=partial(grounded_sample, held),
                        report=gligen_report)


WORLD = World()


def described(found: list[Scene], many: int) -> Callable:
    """The function that draws a step's rows with captions, and hard negatives.

    Half of the rows show one thing, the others several: the first `many` scenes, if any.
    """
    kinds = torch.tensor(CAPTIONS)

    def choose(count: int, g: torch.Generator) -> tuple[torch.Tensor, list[str], list[str]]:
        several = count // 2 if many else 0
        rows = torch.cat([torch.randint(max(1, many), (several,), generator=g),
                          torch.randint(many, len(found), (count - several,), generator=g)])
        which = torch.multinomial(kinds, count, True, generator=g).tolist()
        right = [found[row] for row in rows.tolist()]
        wrong = [exchanged(one, g) for one in right for _ in range(WRONG)]
        return (rows, [captions(one)[k] for one, k in zip(right, which, strict=True)],
                [captions(one)[which[i // WRONG]] for i, one in enumerate(wrong)])

    return choose


def growing(most: int, steps: int, batch: int) -> tuple[str, Callable]:
    """What data `ldm` learns from, in words, and the function that picks a step's examples."""
    many, one = LatentScenes.of("train", most), LatentScenes.of("single-train", most // 4)
    small = LatentScenes.of("single-train", most // 2, 64)

    def choose(step: int, g: torch.Generator) -> list[Example]:
        if torch.rand((), generator=g) < small_part(step / steps):
            return [full_scene(small, r) if luck < .5 else window(many, r % most, g)
                    for r, luck in lots(len(small.scenes), SMALL * batch, g)]
        return [full_scene(one, r % len(one.scenes)) if luck < .2 else full_scene(many, r)
                for r, luck in lots(most, batch, g)]

    return (f"latents of {most} train scenes, whole and in windows, and of {most // 4} "
            f"single-train scenes at 128 px and {most // 2} at 64 px"), choose


def one_thing(most: int, steps: int, batch: int) -> tuple[str, Callable]:
    """The same for small pictures of one thing."""
    small = LatentScenes.of("single-train", most // 2, 64)
    return (f"latents of {most // 2} single-train scenes at 64 px",
            lambda step, g: [full_scene(small, r) for r, _ in lots(most // 2, batch, g)])


def small_part(done: float) -> float:
    """How many of the steps see small pictures: all at first, none in the last quarter."""
    return 1. if done < ALL_SMALL else max(0., .6 * (OFF - done) / (OFF - ALL_SMALL))


def lots(most: int, count: int, g: torch.Generator) -> list[tuple[int, float]]:
    """A row below `most` and a number in 0..1 for each of `count` examples."""
    return list(zip(torch.randint(most, (count,), generator=g).tolist(),
                    torch.rand(count, generator=g).tolist(), strict=True))


def held_sample(parts: TextToImage, steps: int, count: int) -> dict:
    """For the log: a sheet, and what the referee finds in held-out scenes of several and of one."""
    made = {"png": sheet(generate(parts, list(SHOWN), steps=steps))}
    for name, split in (("several", "test"), ("single", "single-test"))[is_small(parts):]:
        found = [one for one in map(scene, seeds(split, 4 * count))
                 if name == "single" or len(one.things) > 1][:count]
        seen = judge_captions(parts, found, steps=steps)[0]
        made[f"found, {name}"] = recall(seen, named_things(found))
    return made


def grounded_sample(held: Held, parts: TextToImage, steps: int) -> dict:
    """For the log: a sheet of held-out layouts, and how many of their boxes the referee names."""
    x = held.generated(parts, True, steps=steps)
    return {"png": sheet(x[:8]), "held": held.right(x, BASE),
            "colour": float(held.hits(x)[1].float().mean())}
