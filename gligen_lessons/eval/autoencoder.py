"""The autoencoder: what a reconstruction loses."""

import torch
from torch import Tensor

from ..datasets.labelled import labelled, pictures, truth
from ..metrics import feature_distances, psnr
from ..referee import found_beside, judge_scenes, recall
from ..vae import VAE
from ..weights import load


@torch.no_grad()
def reconstruct(model: VAE, x: Tensor, batch: int = 32) -> Tensor:
    """Pictures (b,3,h,w) encoded to the mean and decoded again, clipped, on the CPU."""
    where = next(model.parameters()).device
    return torch.cat([model.decode(model.encode(part.to(where))[0]).clamp(-1, 1).cpu()
                      for part in x.split(batch)])


def vae_report(model: VAE, count: int = 1000, small: bool = False) -> dict:
    """PSNR of reconstructed held-out scenes, and what the referee still finds in them.

    `found` is the part of the visible things that the referee sees in their colour; distances
    are in its features, the floor between two sets of renders of the same size.
    """
    judge, data = load("referee-scene"), (
        labelled("single-test", 2 * count, 64) if small else labelled("test", 2 * count))
    rows = torch.arange(count)
    x = torch.cat([pictures(data, part) for part in rows.split(64)])
    x_hat, present = reconstruct(model, x), truth(data, rows)
    others = torch.cat([judge_scenes(judge, pictures(data, part))[1]
                        for part in (rows + count).split(64)])
    (seen, real), (seen_hat, made) = judge_scenes(judge, x), judge_scenes(judge, x_hat)
    told, possible = found_beside(seen_hat, present), recall(seen, present)
    floor = feature_distances(real, others)
    return {"psnr": float(psnr(x_hat, x).mean()), **told, "found in renders": possible,
            "found, relative": told["found"] / possible, "scenes": count,
            **feature_distances(made, others), **{f"{name} floor": x for name, x in floor.items()}}
