"""Lesson 1 and 5's pixel models: samples, their distances to renders, labels obeyed."""

import torch
from torch import Tensor

from .. import ddim
from ..datasets.labelled import labels_of, small_pictures
from ..ddpm import q_sample
from ..guidance import LabelledUNet, NoisyClassifier, classifier_free
from ..metrics import feature_distances, share
from ..referee import judge_scenes
from ..schedule import Schedule
from ..weights import load
from ..world.vocabulary import CATEGORIES, COLOURS, HELD_OUT, WORDS

SURELY = .9                      # the certainty from which a sample counts as recognised


def sample_pixels(model, count: int, steps: int, seed: int = 0, batch: int = 64,
                  eta: float = 0., fitting: bool = False) -> Tensor:
    """`count` samples (n,3,32,32) in [-1, 1], on the CPU: DDIM from seeded noise.

    x0_hat is clamped, and eps stays as it is (`clip`) or is made to fit (`with_fitting_eps`).
    """
    g, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    done, schedule = [], Schedule.linear()
    eps_of = ddim.with_fitting_eps(model, schedule) if fitting else model
    for part in torch.randn(count, 3, 32, 32, generator=g).split(batch):
        *_, (_, x0) = ddim.sample(eps_of, part.to(device), schedule, steps, eta, g,
                                  clip=not fitting)
        done.append(x0.cpu())
    return torch.cat(done)


def ddpm_report(model, count: int = 500, steps: int = 50) -> dict:
    """Distances of samples to held-out renders in the referee's features, with their floor.

    The floor compares two sets of real pictures of the same size; `kinds` counts the categories
    that the referee is sure of in at least one sample in a hundred; `recognised` is the part of
    the pictures in which it is at least `SURELY` certain of some thing.
    """
    judge = load("referee-scene", next(model.parameters()).device)
    real = judge_scenes(judge, small_pictures("single-test", 2 * count))
    fake = judge_scenes(judge, sample_pixels(model, count, steps))
    floor = feature_distances(real[1][count:], real[1][:count])
    return feature_distances(fake[1], real[1][:count]) | {
        f"{name} floor": value for name, value in floor.items()} | {
        "kinds": kinds(fake[0]), "kinds, real": kinds(real[0][:count]),
        **recognised("recognised", fake[0]), **recognised("recognised, real", real[0][:count]),
        "samples": count, "ddim steps": steps}


def kinds(found: Tensor) -> int:
    """How many categories the referee is sure of in at least a hundredth of pictures (b,18,10)."""
    return int(((found.amax(2) > .5).float().mean(0) >= .01).sum())


def recognised(name: str, found: Tensor) -> dict[str, float | None]:
    """The part of pictures (b,18,10) with a thing of which the referee is `SURELY` certain."""
    return share(name, found.amax((1, 2)) >= SURELY, torch.arange(len(found)))


@torch.no_grad()
def classifier_report(model: NoisyClassifier, count: int) -> dict:
    """Accuracy on held-out pictures at several steps of the schedule."""
    x0, truth = small_pictures("single-test", count), labels_of("single-test", count)
    g, schedule, made = torch.Generator().manual_seed(0), Schedule.linear(), {}
    eps = torch.randn(x0.shape, generator=g)
    where = next(model.parameters()).device
    for step in (0, 100, 250, 500, 750, 900, 999):
        t = torch.full((count,), step)
        xt = q_sample(x0, t, eps, schedule)
        category, colour = (logits.argmax(1).cpu() for logits in model(xt.to(where), t.to(where)))
        made |= {f"category, t = {step}": float((category == truth[:, 0]).float().mean()),
                 f"colour, t = {step}": float((colour == truth[:, 1]).float().mean())}
    return made | {"scenes": count}


def sample_labels(model: LabelledUNet, labels: Tensor, guidance_scale: float, steps: int = 30,
                  seed: int = 0, batch: int = 50) -> Tensor:
    """Pictures (n,3,32,32) in [-1, 1] of labels (n,2), on the CPU: DDIM, classifier-free.

    x0_hat is clamped and eps fits it (`ddim.with_fitting_eps`): a kept eps would spoil high scales.
    """
    g, where = torch.Generator().manual_seed(seed), next(model.parameters()).device
    noise, done = torch.randn(len(labels), 3, 32, 32, generator=g), []
    schedule = Schedule.linear()
    for xT, cond in zip(noise.split(batch), labels.split(batch), strict=True):
        null = torch.full_like(cond, -1).to(where)
        guided = classifier_free(model, cond.to(where), null, guidance_scale)
        guided = ddim.with_fitting_eps(guided, schedule)
        *_, (_, x0) = ddim.sample(guided, xT.to(where), schedule, steps)
        done.append(x0.cpu())
    return torch.cat(done)


def hits_of(judge, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the referee is sure of the wished thing in its colour (n,); its features (n,64)."""
    found, features = judge_scenes(judge, x)
    numbers = torch.tensor([CATEGORIES.index(word) for word in WORDS])[labels[:, 0]]
    return found[torch.arange(len(x)), numbers, labels[:, 1]] > .5, features


def obeyed(judge, x: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """How often the referee is sure of the wished thing in its colour; and its features (n,64)."""
    hits, features = hits_of(judge, x, labels)
    return float(hits.float().mean()), features


def held_out_labels(count: int) -> Tensor:
    """`count` labels (n,2) of the pairs that no training has seen, each as often as the others."""
    pairs = [[WORDS.index(word), list(COLOURS).index(hue)] for hue, word in sorted(HELD_OUT)]
    return torch.tensor(pairs)[torch.arange(count) % len(pairs)]


def labelled_report(model: LabelledUNet, count: int, steps: int = 30,
                    scales: tuple[float, ...] = (0, 1, 2, 4, 8)) -> dict:
    """Fidelity and diversity against the guidance scale, from the same noise.

    `obeyed` is the referee's verdict: on labels of held-out scenes, and on pairs that no training
    has seen (its interval draws whole pairs). `frechet` compares the former with held-out renders.
    `spread` is the distance of a picture's features from the mean of its label's: ten pictures of
    each of count / 20 labels.
    """
    judge, labels = load("referee-scene"), labels_of("single-test", count)
    real = judge_scenes(judge, small_pictures("single-test", 2 * count))[1]
    never, some = held_out_labels(count // 2), labels[:max(1, count // 20)]
    alike, rows = torch.arange(len(some)).repeat_interleave(10), []
    for scale in scales:
        hits, features = hits_of(judge, sample_labels(model, labels, scale, steps), labels)
        new, _ = hits_of(judge, sample_labels(model, never, scale, steps), never)
        same = judge_scenes(judge, sample_labels(model, some[alike], scale, steps))[1]
        same = same.unflatten(0, (-1, 10))                                      # (labels,10,64)
        apart = (same - same.mean(1, keepdim=True)).norm(dim=2).flatten()
        rows.append({"scale": scale, **share("obeyed", hits, torch.arange(count)),
                     **share("obeyed, held-out pairs", new, never[:, 0]),
                     **feature_distances(features, real[:count]),
                     **share("spread", apart, alike)})
    floor = feature_distances(real[count:], real[:count])
    return {"rows": rows, "obeyed": max(row["obeyed"] for row in rows),
            **{f"{name} floor": value for name, value in floor.items()},
            "obeyed, real": obeyed(judge, small_pictures("single-test", count), labels)[0],
            "pictures": count}
