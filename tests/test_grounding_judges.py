"""What judges poses and maps: hand-worked values, pycocotools, and judges that see one dot."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools.cocoeval import Params

from gligen_lessons import metrics, referee
from gligen_lessons.eval.grounding_inputs import ARMS, POSED, HeldFigures, pose_figures
from gligen_lessons.recipes import referee as recipe
from gligen_lessons.world.vocabulary import CATEGORIES

SIGMAS = torch.tensor(Params("keypoints").kpt_oks_sigmas, dtype=torch.float32)


def figure(seen: float = 2.) -> torch.Tensor:
    """Seventeen points (17,3) between .2 and .7 of the picture, both ways."""
    t = torch.linspace(0, 1, 17)
    return torch.stack([.2 + .5 * t, .7 - .5 * t, torch.full((17,), seen)], 1)


def moved_by(oks: float, true: torch.Tensor) -> torch.Tensor:
    """The same points, each so far to the right that its similarity is `oks`."""
    area = (128 * .5) ** 2
    away = (2 * (2 * SIGMAS) ** 2 * (area + np.spacing(1)) * -math.log(oks)).sqrt()
    return true[:, :2] + torch.stack([away / 128, torch.zeros(17)], 1)


@pytest.mark.parametrize("oks, ap, ap50, ap75", [(.999, 1., 1., 1.), (.72, .5, 1., 0.),
                                                 (.52, .1, 1., 0.), (.4, 0., 0., 0.)])
def test_oks_precision_is_the_part_of_thresholds_that_are_passed(oks, ap, ap50, ap75):
    true = figure()
    made = metrics.keypoint_precision([(torch.tensor([.9]), moved_by(oks, true)[None])],
                                      [true[None]])
    assert made == pytest.approx({"AP": ap, "AP50": ap50, "AP75": ap75}, abs=1e-6)


def test_figures_of_another_picture_are_not_found_and_hidden_joints_do_not_count():
    a, b = figure(), figure() * torch.tensor([.5, .5, 1.])
    sure = torch.tensor([.5])
    right = [(sure, a[None, :, :2]), (sure, b[None, :, :2])]
    assert metrics.keypoint_precision(right, [a[None], b[None]])["AP"] == pytest.approx(1)
    assert metrics.keypoint_precision(right[::-1], [a[None], b[None]])["AP"] < .2
    spoilt = a.clone()
    spoilt[5:, 2] = 0
    far = a[None, :, :2].clone()
    far[:, 5:] += .3
    some = spoilt[:5, :2]
    assert float(some.max()) > .2
    assert metrics.keypoint_precision([(sure, far)], [spoilt[None]])["AP"] == pytest.approx(1)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        metrics.keypoint_precision([(sure, far * torch.nan)], [spoilt[None]])


def test_a_point_is_right_within_a_part_of_the_figure_s_height():
    true = torch.stack([figure(), figure()])
    true[1, ::2, 2] = 1                                   # eight joints of the second are visible
    true[1, :, 1] = .3 + true[1, :, 1] / 5                # and it is a fifth as high
    found = true[..., :2].clone()
    found[0, :4, 0] += .099                               # height .5: within a fifth
    found[0, 4:7, 0] += .101
    assert metrics.right_points(found, true)[0] == pytest.approx(14 / 17)
    assert metrics.right_points(found, true, .1)[0] == pytest.approx(10 / 17)
    found[1, :, 0] += .019                                # the visible ones span .0875 of height
    assert metrics.right_points(found, true)[1] == 0.
    found[1, :, 0] -= .004
    assert metrics.right_points(found, true)[1] == 1.
    assert metrics.right_points(found, true, .1, [3, 4, 7, 8])[0] == .5
    assert metrics.right_points(found, true, .1, [0, 2]).isnan().tolist() == [False, True]


def test_another_pose_stands_where_the_figure_stood_and_holds_its_limbs_elsewhere():
    held = HeldFigures.of(6)
    other = held.another_pose()
    rows, k = torch.nonzero((held.points[..., 2] == 2).any(-1), as_tuple=True)
    own, moved = held.points[rows, k], other.points[rows, k]
    for mine, theirs in zip(metrics.seen_box(own), metrics.seen_box(moved), strict=True):
        torch.testing.assert_close(mine, theirs)
    exact, arms = (metrics.right_points(own[..., :2], moved, .1, joints)
                   for joints in (slice(None), ARMS))
    assert float(exact.mean()) < 1 and float(arms[arms.isfinite()].mean()) < .7
    one = replace(held, points=own[:1, None])
    torch.testing.assert_close(one.another_pose().points, one.points)   # its own next


def test_renders_show_the_figures_that_were_asked_for_and_another_pose_only_by_place():
    told = {}
    for split, categories in (("grounding-test", POSED), ("novel", ("monkey",))):
        held = HeldFigures.of(8, split, categories)
        drawn = (held.points[..., 2] == 2).any(-1)
        assert torch.equal(held.category >= 0, drawn)
        assert {CATEGORIES[n] for n in held.category[drawn].tolist()} <= set(categories)
        told[split] = [pose_figures(held.x, of) for of in (held, held.another_pose())]
    for right, other in told.values():
        assert right["category"] > .95
        assert other["arms"] < .8 * right["arms"]


def test_mean_iou_by_hand_is_over_the_classes_of_the_truth():
    true = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 0]]])
    found = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    shared, joint, there = metrics.overlap_counts(found, true, 4)
    assert shared.tolist() == [[1, 2, 0, 0], [3, 0, 0, 0]]
    assert joint.tolist() == [[2, 3, 0, 0], [4, 1, 0, 0]]
    assert there.tolist() == [[2, 2, 0, 0], [4, 0, 0, 0]]

    def mean(found):
        return metrics.mean_iou(*(of.sum(0) for of in metrics.overlap_counts(found, true, 4)))

    assert mean(found) == pytest.approx((4 / 6 + 2 / 4) / 2)
    found[0, 0, 0] = 3                                    # a stray class adds none to the mean
    assert mean(found) == pytest.approx((3 / 6 + 2 / 4) / 2)
    found[0, 1] = 0                                       # one that is missed is counted, as 0
    assert mean(found) == pytest.approx((3 / 8 + 0) / 2)
    assert metrics.mean_iou(*metrics.overlap_counts(found, true, 4))[1] == 3 / 4


def test_a_sharp_map_points_at_its_cell_and_a_flat_one_at_the_middle():
    logits = torch.full((1, 17, 16, 16), -50.)
    logits[0, :, 3, 12] = 50
    xy, sure = referee.expected_points(logits)
    torch.testing.assert_close(xy[0, 0], torch.tensor([12.5 / 16, 3.5 / 16]))
    torch.testing.assert_close(sure, torch.ones(1, 17))
    xy, sure = referee.expected_points(0 * logits)
    torch.testing.assert_close(xy, torch.full((1, 17, 2), .5))
    torch.testing.assert_close(sure, torch.full((1, 17), 4 / 256))


def test_a_figure_s_box_lies_around_what_is_visible():
    true = figure()[None].clone()
    true[0, 12:, 2] = 1                                   # from .2 to .2 + .5 * 11 / 16
    span = .5 * 11 / 16
    want = [.2 - .2 * span, .7 - 1.2 * span, .2 + 1.2 * span, .7 + .2 * span]
    torch.testing.assert_close(referee.point_boxes(true), torch.tensor([want]))


def test_the_judge_tells_where_a_dot_lies_in_the_picture():
    """A judge that points at what is bright, through the crop and back to the picture."""
    x = torch.full((2, 3, 128, 128), -1.)
    x[1, :, 60:64, 40:44] = 1                             # its middle is (42, 62) of 128
    found, sure = referee.judge_poses(
        lambda crops: 1e3 * F.adaptive_avg_pool2d(crops.mean(1, keepdim=True), 16).expand(
            -1, 17, -1, -1), x, figure()[None], torch.tensor([1]))
    assert found.shape == (1, 17, 2) and sure.shape == (1,)
    assert (found[0, 3] - torch.tensor([42 / 128, 62 / 128])).abs().max() < .03
    with pytest.raises(ValueError, match="NaN"):
        referee.judge_poses(None, x * torch.nan, figure()[None], torch.tensor([1]))


def test_the_pose_judge_learns_one_figure_by_heart():
    torch.manual_seed(0)
    model, x = referee.PoseReferee(8), torch.randn(4, 3, 64, 64)
    xy, there = torch.rand(4, 17, 2), torch.ones(4, 17)
    there[3] = 0                                          # nobody: its maps should become flat
    moves = torch.optim.Adam(model.parameters(), 1e-2)
    first = recipe.pose_loss(model, x, xy, there)
    for _ in range(30):
        moves.zero_grad()
        loss = recipe.pose_loss(model, x, xy, there)
        loss.backward()
        moves.step()
    assert float(loss.detach()) < .8 * float(first.detach())
    spoilt = xy.clone()
    spoilt[3] = torch.nan                                 # what is not there may be anything
    with torch.no_grad():
        torch.testing.assert_close(recipe.pose_loss(model, x, torch.nan_to_num(spoilt), there),
                                   recipe.pose_loss(model, x, xy, there))
