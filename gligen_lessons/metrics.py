"""Measures of pictures, each with the definition that was published."""

import io
from contextlib import redirect_stdout

import numpy as np
import torch
from torch import Tensor

ENOUGH = 200                                              # pictures for a distance of features


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (n,d), as Gaussians (Heusel et al. 2017, eq. 6).

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2), covariances over n - 1. Raises ValueError
    for fewer than two rows or numbers that are not finite. It is never 0 for two finite samples
    of one source: print it beside the floor of real against real at equal n.
    """
    a, b = _features(a, b)
    mean = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root_a = _root(cov_a)
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    return float(mean + cov_a.trace() + cov_b.trace() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID: unbiased squared MMD of features with the kernel (x.y / d + 1)^3 (Binkowski 2018).

    Features (n,d) and (m,d). Unbiased means that it can fall a little below 0. Published numbers
    average it over subsets; here all rows are used at once. Raises ValueError for fewer than two
    rows or numbers that are not finite.
    """
    return unbiased_mmd(*_features(a, b))


def unbiased_mmd(a: Tensor, b: Tensor) -> float:
    """The squared maximum mean discrepancy of features (n,d) and (m,d), unbiased.

    With KID's kernel k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018): mean k within
    a, and within b, each row with the *others*, less twice the mean between a and b.
    """
    n, m, d = len(a), len(b), a.shape[1]
    aa, bb, ab = ((x @ y.T / d + 1)**3 for x, y in ((a, a), (b, b), (a, b)))
    within_a = (aa.sum() - aa.trace()) / (n * (n - 1))
    within_b = (bb.sum() - bb.trace()) / (m * (m - 1))
    return float(within_a + within_b - 2 * ab.mean())


def feature_distances(a: Tensor, b: Tensor, least: int = ENOUGH) -> dict[str, float]:
    """Frechet and kernel distance of two sets of features; none where one has too few pictures.

    With few pictures both say more of their number than of what they show.
    """
    if min(len(a), len(b)) < least:
        return {}
    return {"frechet": frechet_distance(a, b), "kid": kernel_distance(a, b)}


def psnr(a: Tensor, b: Tensor, peak: float = 2.) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (b,): 10 log10(peak^2 / MSE).

    `peak` is the width of the range, 2 for pictures in [-1, 1]; equal pictures give infinity.
    """
    if a.shape != b.shape:
        raise ValueError(f"PSNR compares pictures of one size, got {tuple(a.shape)} and "
                         f"{tuple(b.shape)}.")
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """Area under the precision-recall curve of one label: mean precision at each true row.

    scores (n,), truth (n,) bool; equal scores share their rank's precision, so that order among
    them does not matter. NaN where no row is true.
    """
    if not torch.isfinite(scores).all():
        raise ValueError("Average precision needs finite scores.")
    values, inverse = torch.unique(scores.double(), return_inverse=True)
    hits = torch.zeros(len(values), dtype=torch.float64)
    hits.index_add_(0, inverse, truth.double())
    rows = torch.bincount(inverse, minlength=len(values)).double()
    found, listed = hits.flip(0).cumsum(0), rows.flip(0).cumsum(0)
    return float((found / listed * hits.flip(0)).sum() / hits.sum())


def detection_precision(found: list[tuple[Tensor, Tensor, Tensor]],
                        true: list[tuple[Tensor, Tensor]], size: int = 128,
                        ignored: list[tuple[Tensor, Tensor]] | None = None) -> dict:
    """COCO's average precision of boxes, computed by pycocotools: AP, AP50, AP75 and more.

    found: scores (n,), labels (n,), boxes_xyxy (n,4) of each picture; true: labels (m,) and
    boxes_xyxy (m,4). AP is the mean over IoU .50 to .95; small, medium and large are COCO's
    32 and 96 pixels in a picture `size` px wide; "AP of labels" and "AP50 of labels" hold a
    figure for each label. One that has nothing to measure is None. What lies in boxes of `ignored`,
    as `true`, counts neither for nor against (COCO's crowds). ValueError for scores or boxes that
    are not finite: pycocotools would sort them somewhere and measure.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    for what, some in (("found", found), ("true", true)):
        for i, part in enumerate(some):
            if not all(bool(torch.as_tensor(x).isfinite().all()) for x in part):
                raise ValueError(f"What is {what} in picture {i} holds NaN or infinity: average "
                                 "precision needs finite scores and boxes.")
    labels = sorted({int(label) for known, _ in true for label in known})
    rows = [np.array([i, *_xywh(box, size), float(score), int(label)])
            for i, answers in enumerate(found) for score, label, box in zip(*answers, strict=True)]
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _coco(true, ignored or [], labels, size)
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(np.stack(rows)) if rows else COCO(), "bbox")
        judge.params.imgIds = list(range(len(true)))
        judge.params.catIds = labels
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    names = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
    each = judge.eval["precision"][:, :, :, 0, 2]               # (overlaps,recalls,labels)
    return {name: _measured(judge.stats[i]) for i, name in enumerate(names)} | {
        f"{name} of labels": {label: _measured(part[..., i].mean())
                              for i, label in enumerate(labels)}
        for name, part in (("AP", each), ("AP50", each[0]))}


def _coco(true: list[tuple[Tensor, Tensor]], ignored: list[tuple[Tensor, Tensor]],
          labels: list[int], size: int) -> dict:
    """The truth as the dict that COCO's own file would hold."""
    flat = [(i, int(label), _xywh(box, size), crowd) for crowd, some in enumerate((true, ignored))
            for i, (known, boxes) in enumerate(some)
            for label, box in zip(known, boxes, strict=True)]
    return {"images": [{"id": i} for i in range(len(true))],
            "categories": [{"id": label} for label in labels],
            "annotations": [{"id": 1 + n, "image_id": i, "category_id": label, "bbox": box,
                             "area": box[2] * box[3], "iscrowd": crowd}
                            for n, (i, label, box, crowd) in enumerate(flat)]}


def _xywh(box_xyxy: Tensor, size: int) -> list[float]:
    """A box of parts as COCO writes it: left, top, width, height in pixels."""
    x0, y0, x1, y1 = (size * float(x) for x in box_xyxy)
    return [x0, y0, x1 - x0, y1 - y0]


def _measured(value: float) -> float | None:
    """COCO's figure, None where it says -1: there was nothing of that size."""
    return None if value < 0 else float(value)


def seen_box(points: Tensor) -> tuple[Tensor, Tensor]:
    """Two corners (m,2) of the box around the visible points of figures (m,17,3)."""
    seen, xy = points[..., 2:] == 2, points[..., :2]
    return torch.where(seen, xy, torch.inf).amin(1), torch.where(seen, xy, -torch.inf).amax(1)


def right_points(found: Tensor, true: Tensor, part: float = .2,
                 joints: list[int] | slice = slice(None)) -> Tensor:
    """PCK of each figure, (m,): visible points no further off than a part of the figure's height.

    found (m,17,2), true (m,17,3) with COCO's visibility, all in 0..1. The height is that of the
    box around the visible points (Yang and Ramanan 2013 take the larger side of the box). Only
    some `joints` may be counted; NaN for a figure that shows none of them.
    """
    seen, (low, high) = true[..., 2] == 2, seen_box(true)           # (m,17)
    hit = (found - true[..., :2]).norm(dim=-1) <= part * (high - low)[:, 1:]
    return (hit & seen)[:, joints].sum(1) / seen[:, joints].sum(1)


def keypoint_precision(found: list[tuple[Tensor, Tensor]], true: list[Tensor],
                       size: int = 128) -> dict:
    """COCO's OKS average precision of key points, computed by pycocotools: AP, AP50, AP75.

    found: scores (n,) and points (n,17,2) of each picture; true: points (m,17,3) with COCO's
    visibility. A figure's area is that of the box around its visible points, in a picture `size`
    px wide: there is no mask. ValueError for numbers that are not finite.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not all(bool(x.isfinite().all()) for x in (*(x for pair in found for x in pair), *true)):
        raise ValueError("Key points or scores hold NaN or infinity: average precision needs "
                         "finite ones.")
    answers = [{"image_id": i, "category_id": 1, "score": float(score),
                "keypoints": _triples(points, size, 2.)}
               for i, pair in enumerate(found) for score, points in zip(*pair, strict=True)]
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": i} for i in range(len(true))],
                         "categories": [{"id": 1}], "annotations": _figures(true, size)}
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(answers) if answers else COCO(), "keypoints")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: _measured(judge.stats[i]) for i, name in enumerate(("AP", "AP50", "AP75"))}


def _figures(true: list[Tensor], size: int) -> list[dict]:
    """Figures of all pictures as COCO's annotations."""
    made = []
    for i, figures in enumerate(true):
        for points in figures:
            seen = size * points[points[:, 2] == 2, :2]
            low, high = seen.amin(0), seen.amax(0)
            w, h = (high - low).clamp(min=1.).tolist()
            made.append({"id": 1 + len(made), "image_id": i, "category_id": 1, "iscrowd": 0,
                         "keypoints": _triples(points[:, :2], size, points[:, 2]),
                         "num_keypoints": len(seen), "area": w * h,
                         "bbox": [*low.tolist(), w, h]})
    return made


def _triples(points: Tensor, size: int, seen) -> list[float]:
    """Points (17,2) as COCO writes them: 17 times x, y in pixels and visibility."""
    column = torch.as_tensor(seen).expand(len(points))[:, None].to(points)
    return torch.cat([size * points, column], 1).flatten().tolist()


def mean_iou(shared: Tensor, joint: Tensor, true: Tensor) -> Tensor:
    """The mean of intersection over union over the classes of the truth, from counts (...,c).

    Counts are summed over all pictures before they are divided, as for PASCAL VOC. A class that is
    only found costs in the unions of what is really there; it is no further class of the mean.
    """
    there = true > 0
    return (shared / joint.clamp(min=1) * there).sum(-1) / there.sum(-1).clamp(min=1)


def overlap_counts(found: Tensor, true: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Shared, joint and true area of each class in each picture, (b,c) each, of classes (b,h,w)."""
    a, b = ((x[:, None] == torch.arange(classes).view(1, -1, 1, 1)) for x in (found, true))
    return (a & b).sum((2, 3)), (a | b).sum((2, 3)), b.sum((2, 3))


def bootstrap(values: np.ndarray, seed: int = 0,
              draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of a mean, by drawing its values again with replacement."""
    values = np.asarray(values, dtype=float)
    rows = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


def wilson(hits: Tensor, z: float = 1.96) -> tuple[float, float, float]:
    """The part of hits (n,) that are true, and the ends of its 95 % interval (Wilson 1927).

    The interval holds the true shares that such a count would not surprise: it never leaves 0..1,
    and is not empty where all hits are true.
    """
    p, n = float(hits.double().mean()), len(hits)
    middle, root = p + z**2 / (2 * n), (p * (1 - p) / n + (z / (2 * n))**2)**.5
    low, high = ((middle + sign * z * root) / (1 + z**2 / n) for sign in (-1, 1))
    return p, min(p, max(0., low)), max(p, min(1., high))       # rounding may pass the ends


def share(name: str, hits: Tensor, pictures: Tensor) -> dict[str, float | None]:
    """The part of hits (n,) that are true, as figures of a report: NAME, its interval, and n.

    What is in one picture (n,) succeeds and fails together: for the 95 % interval whole pictures
    are drawn again with replacement (Efron and Tibshirani's bootstrap, by clusters). Where all hits
    (bool) agree this has no width, and `all_alike` says how far the open end may lie. Numbers in
    place of hits give their mean. The part of nothing is None.
    """
    if len(hits) == 0:
        return {name: None, f"{name}, n": 0}
    of = np.unique(pictures.numpy(), return_inverse=True)[1]
    sums, counts = np.bincount(of, hits.double().numpy()), np.bincount(of)
    rows = np.random.default_rng(0).integers(len(sums), size=(2000, len(sums)))
    low, high = np.percentile(sums[rows].sum(1) / counts[rows].sum(1), [2.5, 97.5])
    if hits.dtype == torch.bool and low == high:
        low, high = all_alike(bool(hits[0]), len(sums))
    return {name: float(hits.double().mean()), f"{name}, low": float(low),
            f"{name}, high": float(high), f"{name}, n": len(hits)}


def all_alike(hit: bool, count: int) -> tuple[float, float]:
    """The 95 % interval of a share where `count` pictures all hit, or none does.

    What one picture shows with probability p, none of them shows with (1 - p)^count. That is .05
    at the open end: p about 3 / count, the rule of three (Hanley and Lippman-Hand 1983).
    """
    most = 1 - .05 ** (1 / count)
    return (1 - most, 1.) if hit else (0., most)


def _features(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, after a look at what cannot be compared."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError("Two sets of features are (n,d) and (m,d) with n, m of at least 2, got "
                         f"{tuple(a.shape)} and {tuple(b.shape)}.")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("Features hold NaN or infinity: the pictures they come from do too.")
    return a.double().cpu(), b.double().cpu()


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
