"""The measures against their published definitions, written out, and against known answers."""

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.stats import binomtest

from gligen_lessons.device import generator
from gligen_lessons.metrics import (
    average_precision,
    bootstrap,
    detection_precision,
    feature_distances,
    frechet_distance,
    kernel_distance,
    psnr,
    share,
    unbiased_mmd,
    wilson,
)


def features(count, width, seed, scale=1., shift=0.):
    """Features with correlated columns, (count,width)."""
    g = generator(seed)
    mix = torch.randn(width, width, generator=g) / width**.5
    return scale * torch.randn(count, width, generator=g) @ mix + shift


def exactly(mean, covariance, count, seed=0):
    """Rows whose sample mean and covariance (over n - 1) are exactly the ones given."""
    x = torch.randn(count, len(mean), generator=generator(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T + mean


# Frechet distance.

def frechet_by_scipy(a, b):
    """Equation 6 of Heusel et al., with scipy's matrix square root."""
    a, b = a.double().numpy(), b.double().numpy()
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(c_a @ c_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c_a + c_b - 2 * root.real))


@pytest.mark.parametrize("n, m, width", [(200, 300, 8), (70, 90, 64), (500, 400, 2)])
def test_frechet_distance_is_the_published_formula(n, m, width):
    a, b = features(n, width, 0), features(m, width, 1, scale=1.7, shift=.4)
    want = frechet_by_scipy(a, b)
    assert want > .1 and frechet_distance(a, b) == pytest.approx(want, rel=1e-6)


def test_frechet_distance_of_gaussians_with_known_moments():
    mean_a, mean_b = torch.tensor([0., 1., 2.]).double(), torch.tensor([1., 1., 0.]).double()
    var_a, var_b = torch.tensor([1., 4., 9.]).double(), torch.tensor([4., 4., 1.]).double()
    a, b = exactly(mean_a, var_a.diag(), 50), exactly(mean_b, var_b.diag(), 70, seed=1)
    # |mean|^2 = 1 + 0 + 4, and for covariances that commute the rest is the sum of
    # (std_a - std_b)^2 = 1 + 0 + 4
    assert frechet_distance(a, b) == pytest.approx(10, abs=1e-8)


def test_frechet_distance_where_covariances_do_not_commute():
    tilt = torch.tensor([[2., 1.], [1., 2.]]).double()
    flat = torch.tensor([[4., 0.], [0., 1.]]).double()
    a, b = exactly(torch.zeros(2).double(), tilt, 30), exactly(torch.zeros(2).double(), flat, 40)
    # tr (A B)^1/2 of 2 x 2 matrices is sqrt(tr AB + 2 sqrt det AB): tr AB = 10, det AB = 12
    want = 4 + 5 - 2 * (10 + 2 * 12**.5) ** .5
    assert frechet_distance(a, b) == pytest.approx(want, abs=1e-8)


def test_frechet_distance_of_one_set_with_itself_is_zero_and_both_ways_equal():
    a, b = features(40, 64, 0), features(50, 64, 1)                # fewer rows than columns
    assert abs(frechet_distance(a, a)) < 1e-5      # 25 roots of rounding errors, 3e-8 each
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_two_samples_of_one_source_are_never_at_zero_and_nearer_with_more_rows():
    floor = []
    for n in (50, 500, 5000):
        x = features(2 * n, 16, seed=0)
        floor.append(frechet_distance(x[:n], x[n:]))
    assert floor[0] > 5 * floor[1] > 25 * floor[2] > 0


# KID.

def kernel_by_hand(a, b):
    """The unbiased estimate of Binkowski et al., term by term."""
    a, b = a.double().tolist(), b.double().tolist()

    def k(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3
    n, m = len(a), len(b)
    total = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total += sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return total - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


@pytest.mark.parametrize("n, m, width", [(12, 17, 5), (2, 2, 3), (20, 9, 64)])
def test_kernel_distance_is_the_published_formula(n, m, width):
    a, b = features(n, width, 0), features(m, width, 1, scale=1.4, shift=.2)
    assert kernel_distance(a, b) == pytest.approx(kernel_by_hand(a, b), abs=1e-6)
    assert unbiased_mmd(a.double(), b.double()) == kernel_distance(a, b)


def test_kernel_distance_is_zero_on_average_for_one_source():
    g = generator(5)
    values = [kernel_distance(torch.randn(30, 6, generator=g), torch.randn(30, 6, generator=g))
              for _ in range(200)]
    assert min(values) < 0 and abs(np.mean(values)) < 3 * np.std(values) / 200**.5


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize("spoil, words", [
    (lambda a: a.index_fill(0, torch.tensor([3]), float("nan")), "NaN or infinity"),
    (lambda a: a.index_fill(1, torch.tensor([0]), float("inf")), "NaN or infinity"),
    (lambda a: a[:1], "at least 2"), (lambda a: a[:, :3], r"\(10, 3\)"),
    (lambda a: a[0], r" \(4,\)")])
def test_distances_refuse_what_cannot_be_compared(distance, spoil, words):
    a = features(10, 4, 0)
    for pair in ((spoil(a), a), (a, spoil(a))):
        with pytest.raises(ValueError, match=words):
            distance(*pair)


# PSNR.

def test_distances_are_not_given_of_too_few_pictures():
    a, b = features(200, 8, seed=1), features(200, 8, seed=2)
    assert feature_distances(a, b) == {"frechet": frechet_distance(a, b),
                                       "kid": kernel_distance(a, b)}
    assert feature_distances(a[:199], b) == {} == feature_distances(a, b[:199])


def test_psnr_of_known_errors():
    a = torch.zeros(3, 3, 4, 5)
    b = a + torch.tensor([2., .2, .02]).view(3, 1, 1, 1)           # the whole range, a tenth, ...
    assert psnr(a, b).tolist() == pytest.approx([0, 20, 40], abs=1e-5)
    assert psnr(a, b / 2, peak=1.).tolist() == pytest.approx([0, 20, 40], abs=1e-5)
    assert psnr(a, a).tolist() == [float("inf")] * 3


def test_psnr_is_a_picture_s_own():
    a, b = torch.rand(2, 3, 6, 7, generator=generator(0)), torch.zeros(2, 3, 6, 7)
    want = [10 * np.log10(4 / float((x.double() ** 2).mean())) for x in a]
    assert psnr(a, b).tolist() == pytest.approx(want)
    with pytest.raises(ValueError, match="one size"):
        psnr(a, b[:, :, :5])


# Average precision.

def precision_by_definition(scores, truth):
    """Mean, over the true rows, of the precision among all rows that score at least as much."""
    found = [np.mean([truth[j] for j in range(len(scores)) if scores[j] >= scores[i]])
             for i in range(len(scores)) if truth[i]]
    return float(np.mean(found))


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_its_definition(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores = rng.integers(levels, size=25) / levels            # few levels: many ties
        truth = rng.random(25) < .3
        truth[0] = True
        got = average_precision(torch.tensor(scores), torch.tensor(truth))
        assert got == pytest.approx(precision_by_definition(scores, truth), abs=1e-12)


def test_average_precision_of_known_lists():
    truth = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([.9, .8, .7, .6]), truth) == pytest.approx(5 / 6)
    assert average_precision(torch.tensor([.9, .1, .8, .2]), truth) == 1
    assert average_precision(torch.zeros(4), truth) == .5          # says nothing: the part of true
    assert np.isnan(average_precision(torch.zeros(4), torch.zeros(4, dtype=torch.bool)))
    with pytest.raises(ValueError, match="finite"):
        average_precision(torch.tensor([.1, float("nan")]), truth[:2])


# The interval of a mean.

def test_the_bootstrap_interval_covers_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(200):
        low, high = bootstrap(rng.normal(3., 2., size=80), seed=run, draws=400)
        assert low < high
        covered += low <= 3. <= high
    assert 178 <= covered <= 199                                   # 95 % of 200, within 4 sigma


def test_the_bootstrap_interval_has_the_width_of_theory_and_is_reproducible():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=.1)
    assert (low, high) == bootstrap(values) != bootstrap(values, seed=1)


@pytest.mark.parametrize("true, n", [(0, 7), (53, 60), (112, 112), (1, 2)])
def test_the_interval_of_a_share_is_scipys(true, n):
    p, low, high = wilson(torch.arange(n) < true)
    theirs = binomtest(true, n).proportion_ci(method="wilson")
    assert p == pytest.approx(true / n)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-4)
    assert low > -1e-9 and high < 1 + 1e-9 and high - low > .02


# Detections, as COCO counts them.

BOXES = torch.tensor([[.1, .1, .3, .3], [.5, .5, .9, .9]])


def detections(scores, labels, boxes):
    return torch.tensor(scores), torch.tensor(labels), boxes


def test_perfect_detections_have_precision_one_and_none_have_none():
    true = [(torch.tensor([3, 7]), BOXES)]
    perfect = detection_precision([detections([.9, .8], [3, 7], BOXES)], true)
    for name in ("AP", "AP50", "AP75", "AP small", "AP medium"):
        assert perfect[name] == pytest.approx(1)
    assert perfect["AP large"] is None
    for name in ("AP of labels", "AP50 of labels"):
        assert perfect[name] == pytest.approx({3: 1, 7: 1})
    nothing = detections([], [], torch.zeros(0, 4))
    for found in (nothing, detections([.9, .8], [7, 3], BOXES)):              # labels exchanged
        assert detection_precision([found], true)["AP"] == 0


def test_precision_counts_only_overlaps_above_its_bar():
    """A box moved by a sixth of its width shares 5/7 with the true one: .50 to .70 hold."""
    moved = BOXES[:1] + torch.tensor([.2 / 6, 0., .2 / 6, 0.])
    found = detection_precision([detections([.5], [0], moved)], [(torch.tensor([0]), BOXES[:1])])
    assert found["AP50"] == pytest.approx(1) and found["AP75"] == 0
    assert found["AP"] == found["AP of labels"][0] == pytest.approx(.5)
    assert found["AP50 of labels"][0] == pytest.approx(1)


def test_a_second_answer_to_one_thing_is_a_false_one():
    """Two pictures: .9 right, .8 the same thing again, .7 the other: precisions 1 and 2/3."""
    true = [(torch.tensor([0]), BOXES[:1]), (torch.tensor([0]), BOXES[1:])]
    found = [detections([.9, .8], [0, 0], BOXES[[0, 0]]), detections([.7], [0], BOXES[1:])]
    recalls = np.linspace(0, 1, 101)
    want = np.where(recalls <= .5, 1, 2 / 3).mean()
    assert detection_precision(found, true)["AP50"] == pytest.approx(want)


def test_precision_prints_nothing(capsys):
    detection_precision([detections([.9, .8], [3, 7], BOXES)], [(torch.tensor([3, 7]), BOXES)])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("spoil", [(0, 0), (0, 2), (1, 1)])      # scores, found boxes, true boxes
def test_average_precision_of_what_is_not_finite_is_refused(spoil):
    box = torch.tensor([[.1, .1, .5, .5]])
    found, true = [torch.ones(1), torch.zeros(1).long(), box], [torch.zeros(1).long(), box]
    side, field = spoil
    both = (found, true)
    both[side][field] = both[side][field] * float("nan")
    with pytest.raises(ValueError, match="in picture 0 holds NaN or infinity"):
        detection_precision([tuple(found)], [tuple(true)])


def test_a_share_has_an_interval_as_wide_as_its_pictures_allow():
    """Four boxes a picture that succeed together tell as much as one: twice the interval."""
    g = torch.Generator().manual_seed(0)
    luck = torch.rand(400, generator=g) < .3
    alone = share("right", luck, torch.arange(400))
    together = share("right", luck.repeat_interleave(4), torch.arange(400).repeat_interleave(4))
    assert alone["right"] == together["right"] == float(luck.double().mean())
    assert (alone["right, n"], together["right, n"]) == (400, 1600)
    assert (alone["right, low"], alone["right, high"]) == (
        together["right, low"], together["right, high"])
    width = 2 * 1.96 * (luck.double().std() / 400**.5)
    assert alone["right, high"] - alone["right, low"] == pytest.approx(float(width), rel=.1)
    assert alone["right, low"] < alone["right"] < alone["right, high"]


@pytest.mark.parametrize("hit", [True, False])
def test_a_share_of_all_or_none_is_not_certain(hit):
    """Five boxes in each of 40 pictures tell as much as one: the true share may be 3 / 40 off."""
    told = share("right", torch.full((200,), hit), torch.arange(40).repeat_interleave(5))
    assert told["right"] == hit
    assert told["right, high"] - told["right, low"] == pytest.approx(3 / 40, rel=.05)
    assert told["right, high" if hit else "right, low"] == hit
    # a share that far off shows nothing in 40 pictures one time in twenty
    assert (1 - (told["right, high"] - told["right, low"])) ** 40 == pytest.approx(.05)


def test_numbers_that_are_all_alike_have_no_width():
    told = share("gain", torch.zeros(9), torch.arange(9))
    assert told["gain, low"] == told["gain, high"] == 0


def test_a_share_of_nothing_is_not_zero():
    told = share("right", torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.long))
    assert told == {"right": None, "right, n": 0}
