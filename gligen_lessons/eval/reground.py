"""GLIGEN against ReGround over the grounded part of the steps: are captions kept, and boxes held?

ReGround's claim (arXiv 2403.13589, section 5): the CLIP score rises, and boxes hold almost as well.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .. import weights
from ..bpe import Tokenizer
from ..clip import CLIP
from ..datasets.labelled import labelled, pictures
from ..images import resized
from ..latent import TextToImage
from ..metrics import share
from ..reground import reground
from ..world import scene, seeds
from ..world.language import STYLE_WORDS, listing, named, place_words
from ..world.scene import Scene
from ..world.vocabulary import GROUNDS, STYLES, TIMES, WEATHERS
from .grounding import Held

GAMMAS = (.3, .6, 1.)                                     # the grounded fraction of the steps
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


def words_kept(clip: CLIP, read: Tokenizer, x: Tensor, scenes: list[Scene]) -> dict:
    """How often CLIP picks a picture's own style, time, ground and weather among all values.

    Of the pictures whose captions say it: nobody says that a style is flat or the weather clear.
    """
    kept = {}
    for attribute, values in UNBOXED.items():
        rows = torch.tensor([i for i, one in enumerate(scenes) if says(one, attribute)],
                            dtype=torch.long)
        hits = torch.tensor([
            values[int(similarities(clip, read, x[i:i + 1],
                                    alternatives(scenes[i], attribute))[0].argmax())]
            == getattr(scenes[i], attribute) for i in rows.tolist()])
        kept |= share(attribute, hits, rows)
    return kept


def says(one: Scene, attribute: str) -> bool:
    """Whether the caption of a scene (`worded`) has a word for an attribute."""
    if attribute == "weather":
        return one.weather != "clear" and one.amount > 0
    return attribute != "style" or bool(STYLE_WORDS[one.style])


def reground_report(parts: TextToImage, count: int, gammas: tuple[float, ...] = GAMMAS,
                    **options) -> list[dict]:
    """A row for each grounded fraction and wiring: boxes right, CLIP score, unboxed words.

    Captions say all that no box can. Both wirings begin at the same noise, so ReGround's rows have
    what it gains, and GLIGEN's what it has lost since the first gamma, box by box and picture by
    picture; intervals draw whole pictures again. A row of renders comes last.
    """
    clip, rows, least = weights.load("clip", parts.device), [], None
    held, scenes = with_full_captions(Held.of(count))
    texts, pictured = [one.caption for one in held.requested], torch.arange(count)

    def judged(row: str, x: Tensor, beside: str = "", before: dict | None = None) -> dict:
        now = {"boxes right": (held.hits(x).all(0).double(), held.pictures()),
               "CLIP score": (clip_scores(clip, parts.tokenizer, x, texts), pictured)}
        rows.append({"row": row})
        for what, (values, of) in now.items():
            rows[-1] |= share(what, values, of)
            if before:
                rows[-1] |= share(f"{what}, {beside}", values - before[what][0], of)
        rows[-1] |= words_kept(clip, parts.tokenizer, x, scenes)
        print(rows[-1], flush=True)
        return now

    for gamma in gammas:
        plain = judged(f"GLIGEN, gamma {gamma:g}", painted(parts, held, gamma, False, **options),
                        "since the first gamma", least)
        judged(f"ReGround, gamma {gamma:g}", painted(parts, held, gamma, True, **options),
               "gain", plain)
        least = least or plain
    judged("renders", pictures(labelled(held.split, count), pictured))
    return rows


def painted(parts: TextToImage, held: Held, gamma: float, parallel: bool, **options) -> Tensor:
    """The layouts' pictures by either wiring, grounded in a fraction gamma of the steps."""
    with reground(parts.unet, parallel):
        return held.generated(parts, True, tau=gamma, **options)


def with_full_captions(held: Held) -> tuple[Held, list[Scene]]:
    """The same layouts, whose captions say everything, and their scenes."""
    scenes = [scene(seed) for seed in seeds(held.split, len(held.requested))]
    return replace(held, requested=[replace(asked, caption=worded(one)) for asked, one in
                                    zip(held.requested, scenes, strict=True)]), scenes
