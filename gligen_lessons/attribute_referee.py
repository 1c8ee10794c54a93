"""A third referee, for edits: what a picture and a box in it show, attribute by attribute.

Like the other two it judges pictures and is never used to make them.
"""

import torch
from torch import Tensor, nn

from .images import crops, resized
from .referee import CROP, Layer
from .world.scene import Scene
from .world.vocabulary import (
    CATEGORIES,
    COLOURS,
    GROUNDS,
    PATTERNS,
    STYLES,
    TIMES,
    WEATHERS,
)

OF_SCENE = {"ground": GROUNDS, "time": TIMES, "weather": WEATHERS, "style": STYLES}
OF_THING = {"category": (*CATEGORIES, "nothing"), "colour": tuple(COLOURS), "pattern": PATTERNS}
NOTHING = len(CATEGORIES)                                 # the category of a crop without a thing


class AttributeReferee(nn.Module):
    """Ground, time, weather with its amount and style of pictures; category, colour, pattern of
    crops.
    """

    def __init__(self, width: int = 24):
        super().__init__()
        w = width
        self.whole = nn.Sequential(
            Layer(3, w, 2), Layer(w, 2 * w, 2), Layer(2 * w, 2 * w), Layer(2 * w, 3 * w, 2),
            Layer(3 * w, 3 * w), Layer(3 * w, 4 * w, 2))
        self.part = nn.Sequential(
            Layer(3, w), Layer(w, 2 * w, 2), Layer(2 * w, 2 * w), Layer(2 * w, 3 * w, 2),
            Layer(3 * w, 3 * w), Layer(3 * w, 4 * w, 2), Layer(4 * w, 4 * w))
        self.of_scene = nn.ModuleDict(
            {name: nn.Linear(8 * w, len(words)) for name, words in OF_SCENE.items()}
            | {"amount": nn.Linear(8 * w, 1)})
        self.of_thing = nn.ModuleDict(
            {name: nn.Linear(8 * w, len(words)) for name, words in OF_THING.items()})

    def forward(self, x: Tensor, parts: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Logits by attribute, of pictures (b,3,128,128) and of crops (n,3,40,40).

        The weather's amount is a number (b,1) in 0..1.
        """
        whole, part = pooled(self.whole(x)), pooled(self.part(parts))
        seen = {name: head(whole) for name, head in self.of_scene.items()}
        seen["amount"] = seen["amount"].sigmoid()
        return seen, {name: head(part) for name, head in self.of_thing.items()}


def pooled(x: Tensor) -> Tensor:
    """The mean and the maximum of maps (b,c,h,w), side by side: (b,2c)."""
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


@torch.no_grad()
def attributes(model: AttributeReferee, x: Tensor, boxes_xyxy: Tensor,
               batch: int = 64) -> dict[str, Tensor]:
    """What pictures (b,3,h,w) and one box (b,4) of each show: numbers (b,) by attribute.

    They number the words of OF_SCENE and OF_THING; "amount" is in 0..1. ValueError for pictures
    that are not finite.
    """
    if not torch.isfinite(x).all():
        raise ValueError("These pictures hold NaN or infinity; the referee cannot judge them.")
    where, found = next(model.parameters()).device, []
    for part, boxes in zip(x.split(batch), boxes_xyxy.split(batch), strict=True):
        part = resized(part.to(where).float())
        seen, shown = model(part, crops(part, boxes, torch.arange(len(part)), CROP))
        amount = seen.pop("amount")[:, 0].cpu()
        found.append({name: logits.argmax(1).cpu() for name, logits in (seen | shown).items()}
                     | {"amount": amount})
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def truth_of(scene: Scene, index: int | None = None) -> dict[str, float]:
    """The same of a scene and one of its things, as they are: numbers by attribute."""
    made = {name: words.index(getattr(scene, name)) for name, words in OF_SCENE.items()}
    made["amount"] = scene.amount if scene.weather != "clear" else 0.
    if index is not None:
        thing = scene.things[index]
        made |= {name: words.index(getattr(thing, name)) for name, words in OF_THING.items()}
    return made
