"""The check of lesson 10 on what each arm of its experiment tells the generator."""

import torch
from torch import Tensor

from ..boxes import iou
from ..datasets.instructions import Instruction
from ..experiments.detector_grounding import arms
from ..experiments.detector_grounding.arms import Detected, InpaintingCase
from . import Wrong, exercise


def a_picture() -> InpaintingCase:
    """Three things, of which the second is masked."""
    return InpaintingCase(7, torch.zeros(3, 8, 8), ["house", "car", "tree"],
                   ["a blue house", "a red car", "a green tree"],
                   torch.tensor([[.05, .2, .4, .8], [.45, .5, .8, .8], [.7, .1, .95, .6]]), 1)


def sightings() -> list[Detected]:
    """Found, twice over and in another colour; missed, a neighbour near; none seen; found first."""
    found = Detected(["boat", "car", "house", "cat"],
                 ["a red boat", "an orange car", "a blue house", "a red car"],
                 torch.tensor([[.44, .48, .72, .78], [.46, .5, .81, .79], [.06, .2, .4, .8],
                               [.6, .5, .8, .95]]))
    missed = Detected(["tree", "car"], ["a green tree", "a red car"],
                  torch.tensor([[.7, .12, .95, .6], [.1, .1, .3, .3]]))
    first = Detected(["car", "tree"], ["an orange car", "a green tree"],
                     torch.tensor([[.46, .5, .81, .79], [.7, .12, .95, .6]]))
    return [found, missed, Detected([], [], torch.zeros(0, 4)), first]


def requests_of(phrases: list[str], boxes_xyxy: Tensor) -> set[tuple]:
    """Phrases with their boxes, in any order, as what can be compared."""
    return {(phrase, *(round(x, 4) for x in box)) for phrase, box in
            zip(phrases, boxes_xyxy.tolist(), strict=True)}


@exercise("gligen_lessons.experiments.detector_grounding.arms:instructions")
def instructions(attempt):
    """A picture whose target the detector finds, misses, or sees nothing beside."""
    one, told = a_picture(), 0
    for seen in sightings():
        want, got = arms.instructions(one, seen), attempt(one, seen)
        if isinstance(got, dict) and set(got) == set(want) - {"C"}:
            raise Wrong("the key C is missing. Where the detector missed the target its value is "
                        "None, and the key stays.")
        if not isinstance(got, dict) or set(got) != set(want):
            raise Wrong("expected a dict with the keys A, B, C and D.")
        for arm, right in want.items():
            judge(arm, got[arm], right, one, seen)
            told += right is not None
    return f"writes {told} instructions, and None where the detector missed the target"


def judge(arm: str, got: Instruction | None, right: Instruction | None, one: InpaintingCase,
          seen: Detected) -> None:
    """One arm's instruction against the library's, in what its target and the others are."""
    if right is None and got is not None:
        raise Wrong("C has an instruction where the detector missed the target. None, so that such "
                    "scenes are counted and not repaired in silence.")
    if right is None:
        return
    if got is None and arms.same_thing(one.box, seen) == 0:
        raise Wrong(f"{arm} is None although the detector found its target. Row 0 counts as found: "
                    "ask `is None`.")
    if not isinstance(got, Instruction):
        raise Wrong(f"arm {arm} should have an Instruction(caption, phrases, boxes_xyxy), not a "
                    f"{type(got).__name__}.")
    if len(got.phrases) != len(got.boxes_xyxy) or not got.phrases:
        raise Wrong(f"arm {arm} has {len(got.phrases)} phrases and {len(got.boxes_xyxy)} boxes.")
    the_target(arm, got, right, one)
    if got.caption != right.caption:
        raise Wrong(f"the caption of arm {arm} is {got.caption!r}. It is the arm's own phrase of "
                    "the target, so that arms differ in their grounding only.")
    what_is_beside(arm, requests_of(got.phrases, got.boxes_xyxy),
                   requests_of(right.phrases, right.boxes_xyxy), one, seen)


def the_target(arm: str, got: Instruction, right: Instruction, one: InpaintingCase) -> None:
    """Entry 0: the true target in A, B and D, what the detector takes for it in C."""
    first = got.phrases[0], got.boxes_xyxy[0]
    same_place = torch.allclose(first[1], right.boxes_xyxy[0], atol=1e-4)
    if first[0] == right.phrases[0] and same_place:
        return
    true_place = torch.allclose(first[1], one.box, atol=1e-4)
    if arm == "C" and (first[0] == one.phrases[one.target] or true_place):
        raise Wrong("C is automatic, and here it was told the truth about its target: phrase and "
                    "box both come from the detection that is the same thing (`same_thing`).")
    if arm == "B":
        raise Wrong("B has the TRUE phrase and box of the target, as A has; the detector says what "
                    "else is there.")
    raise Wrong(f"entry 0 of arm {arm} is {first[0]!r}; the target comes first.")


def what_is_beside(arm: str, got: set[tuple], want: set[tuple], one: InpaintingCase,
                   seen: Detected) -> None:
    """Everything else that an arm tells: detections in B and C, true things in D, none in A."""
    if got == want:
        return
    more, less = got - want, want - got
    own = {entry for entry in requests_of(seen.phrases, seen.boxes_xyxy)
           if float(iou(torch.tensor(entry[1:])[None], one.box[None])[0]) > arms.SAME}
    if arm == "A":
        raise Wrong("arm A is told of the target alone.")
    if arm in "BC" and more & own:
        raise Wrong(f"a detection that is the target itself (IoU above {arms.SAME}) stands beside "
                    f"it in arm {arm}: two wishes for one place. `others` leaves it out.")
    if arm in "BC" and more & requests_of(one.phrases, one.boxes_xyxy):
        raise Wrong(f"arm {arm} is told true things beside its target. It knows them from the "
                    "detector only.")
    if arm == "D" and more:
        raise Wrong("arm D is told the truth and nothing else: detections do not belong there.")
    if less:
        raise Wrong(f"arm {arm} is not told of {sorted(less)[0][0]!r}. Only what overlaps the "
                    f"target by more than {arms.SAME} is left out.")
    raise Wrong(f"arm {arm} is told of {sorted(more)[0][0]!r}, which should not be there.")
