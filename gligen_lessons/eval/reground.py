"""GLIGEN against ReGround over the grounded part of the steps: are captions kept, and boxes held?

ReGround's claim (arXiv 2403.13589, section 5): the CLIP score rises, and boxes hold almost as well.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .. import weights
from ..bpe import Tokenizer
from ..clip import CLIP
from ..images import resized
from ..latent import TextToImage
from ..reground import reground
from ..world import scene, seeds
from ..world.language import STYLE_WORDS, listing, named, place_words
from ..world.scene import Scene
from ..world.vocabulary import GROUNDS, STYLES, TIMES, WEATHERS
from .grounding import Held
from .grounding_inputs import with_interval

GAMMAS = (.1, .3, .6, 1.)                                 # the grounded fraction of the steps
UNBOXED = {"style": STYLES, "time": TIMES, "ground": GROUNDS, "weather": WEATHERS}
AMOUNT = .5                                               # of a weather that a scene lacks


@torch.no_grad()
def similarities(clip: CLIP, read: Tokenizer, x: Tensor, texts: list[str]) -> Tensor:
    """The cosine of each picture (b,3,h,w) with each text, (b,texts)."""
    where = next(clip.parameters()).device
    pictures = torch.cat([clip.encode_image(resized(part, clip.vision_model.side).to(where))
                          for part in x.split(64)])
    said = clip.encode_text(read(texts).to(where))
    unit = [e / e.norm(dim=1, keepdim=True) for e in (pictures, said)]
    return (unit[0] @ unit[1].T).cpu()


def clip_scores(clip: CLIP, read: Tokenizer, x: Tensor, texts: list[str]) -> Tensor:
    """The CLIP score of each picture with its own caption, (b,): 100 max(cos, 0) (Hessel 2021)."""
    return 100 * similarities(clip, read, x, texts).diagonal().clamp(min=0)


def worded(one: Scene) -> str:
    """A caption that says everything, its things in their own order."""
    return (f"{STYLE_WORDS[one.style]}{listing([named(t) for t in one.things])} "
            f"{place_words(one)}")


def alternatives(one: Scene, attribute: str) -> list[str]:
    """The captions of a scene with each value of an attribute that no box can name."""
    made = []
    for value in UNBOXED[attribute]:
        other = replace(one, **{attribute: value})
        if attribute == "weather":
            other = replace(other, amount=0. if value == "clear" else one.amount or AMOUNT)
        made.append(worded(other))
    return made


def words_kept(clip: CLIP, read: Tokenizer, x: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """How often CLIP picks a picture's own style, time, ground and weather among all values."""
    kept = {}
    for attribute, values in UNBOXED.items():
        hits = [int(similarities(clip, read, x[i:i + 1], alternatives(one, attribute))[0].argmax())
                == values.index(getattr(one, attribute)) for i, one in enumerate(scenes)]
        kept[attribute] = sum(hits) / len(hits)
    return kept


def reground_report(parts: TextToImage, count: int, gammas: tuple[float, ...] = GAMMAS,
                    **options) -> list[dict]:
    """A row for each grounded fraction and wiring: boxes right, CLIP score, unboxed words.

    From the same seeds; intervals over boxes and over pictures.
    """
    held, clip = Held.of(count), weights.load("clip", parts.device)
    scenes = [scene(seed) for seed in seeds(held.split, count)]
    texts, rows = [one.caption for one in held.requested], []
    for gamma in gammas:
        for name, parallel in (("GLIGEN", False), ("ReGround", True)):
            with reground(parts.unet, parallel):
                x = held.generated(parts, True, tau=gamma, **options)
            boxes = with_interval(held.hits(x).all(0).float(), "boxes right")
            score = with_interval(clip_scores(clip, parts.tokenizer, x, texts), "CLIP score")
            rows.append({"row": f"{name}, gamma {gamma:g}", "boxes": boxes.pop("n"),
                         "pictures": score.pop("n"), **boxes, **score,
                         **words_kept(clip, parts.tokenizer, x, scenes)})
            print(rows[-1], flush=True)
    return rows
