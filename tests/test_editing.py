"""Edits with known answers, and the measures on them: by hand and by laws."""

import dataclasses

import pytest
import torch

from gligen_lessons import referee, world
from gligen_lessons.datasets.edits import LEAST_AREA, case_of, edit_cases
from gligen_lessons.eval.editing import cells_of, changed_outside, edit_obeyed, mask_iou
from gligen_lessons.world.edits import Edit


@pytest.fixture(scope="module")
def cases():
    return edit_cases("recolour", 3) + edit_cases("replace", 2)


def test_texts_differ_in_the_words_of_the_thing_alone(cases):
    for case in cases:
        old, new = (world.named(s.things[case.edit.index])
                    for s in (case.edit.before, case.edit.after))
        assert old != new and case.query == case.reference.replace(old, new) != case.reference
        assert case.reference == world.captions(case.edit.before)[0]


def test_pictures_are_those_of_the_scenes_and_differ_where_changed_says(cases):
    for case in cases:
        apart = 127.5 * (case.before - case.after).abs().amax(0)
        assert torch.equal(case.changed > .5, apart > 8.5)
        assert LEAST_AREA <= float(case.changed.mean()) < .6
        x0, y0, x1, y1 = (128 * case.box).tolist()
        assert float(case.changed[int(y0):int(y1) + 1, int(x0):int(x1) + 1].sum()) > 50


def test_no_case_where_the_texts_do_not_tell():
    """From fog of .4 to fog of .6: both captions say "in fog"."""
    thing = world.Thing("car", "red")
    before, after = (world.Scene(weather="fog", amount=amount, things=(thing,))
                     for amount in (.4, .6))
    assert case_of(Edit("weather", "more fog", before, after)) is None
    thicker = dataclasses.replace(after, amount=.9)
    assert case_of(Edit("weather", "more fog", before, thicker)).query.endswith("in heavy fog")


def test_a_split_that_runs_out_says_so():
    with pytest.raises(ValueError, match="holds only"):
        edit_cases("recolour", 10_000, "single-test", most_things=0)


def test_iou_of_masks_by_hand():
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0, 0], mask[1] = 1, 1
    changed = torch.zeros(2, 8, 8)
    changed[0, :4, 2:6], changed[1, :, :2] = 1, 1              # 8 of 16 + 16 - 8; 16 of 64
    assert torch.equal(mask_iou(mask, changed), torch.tensor([8 / 24, 16 / 64]))
    assert float(mask_iou(0 * mask, changed).max()) == 0


def test_cells_of_what_changes():
    changed = torch.zeros(1, 8, 8)
    changed[0, :3, :4] = 1                                      # three quarters of one cell
    assert cells_of(changed, 2)[0, 0].tolist() == [[1, 0], [0, 0]]
    assert float(cells_of(changed, 2, .8).sum()) == 0
    assert torch.equal(mask_iou(cells_of(changed, 8), changed), torch.ones(1))


def test_what_lies_outside_is_measured_outside_only(cases):
    before, after = (torch.stack([getattr(c, n) for c in cases]) for n in ("before", "after"))
    assert float(changed_outside(before, cases).max()) == 0
    assert float(changed_outside(after, cases).max()) < 8      # the world changes nothing else
    brighter = (before + .1).clamp(-1, 1)
    assert 4 < float(changed_outside(brighter, cases).mean()) <= 12.76


def test_the_true_answer_obeys_and_the_source_does_not(cases):
    from gligen_lessons import weights

    judge = weights.load("referee-crop")
    before, after = (torch.stack([getattr(c, n) for c in cases]) for n in ("before", "after"))
    p_after, p_before = edit_obeyed(judge, after, cases), edit_obeyed(judge, before, cases)
    assert p_after.shape == (5,) and float(p_after.mean()) > .6 > .3 > float(p_before.mean())


def test_obeying_is_the_product_of_both_probabilities(cases):
    class Sure(torch.nn.Module):
        def forward(self, crops):
            assert crops.shape == (5, 3, referee.CROP, referee.CROP)
            return torch.zeros(5, 19), torch.zeros(5, 10)
    assert torch.allclose(edit_obeyed(Sure(), torch.zeros(5, 3, 128, 128), cases),
                          torch.full((5,), 1 / 190))
