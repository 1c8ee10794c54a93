"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): every direction at one pace.

A gradient of a matrix is dominated by few directions. Muon replaces its momentum by the nearest
matrix whose singular values are all about one, so that each direction is learnt at the same pace.
The arithmetic is that of torch.optim.Muon, with two differences: weights of convolutions are taken
as matrices (out, the rest), and the iteration runs in 32 bits, for long ones on the small Gram
matrix.
"""

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)                  # of the quintic iteration
SMALL = 1e-7                                              # keeps a gradient of zeros from 0 / 0
LONG = 1.6                                                # m / n from which Gram is cheaper


def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """A matrix g (n,m) with its singular values drawn to about one (.7 to 1.2).

    Five steps of X <- (a I + b A + c A^2) X with A = X X'. For a long X, n of its rows for m
    columns, it is cheaper to multiply the factors out on the small side: each is a polynomial of
    the first A, and X meets their product once, at the end.
    """
    if len(g) > g.shape[1]:
        return newton_schulz(g.T, steps).T
    x = g / (g.norm() + SMALL)                                                      # (n,m)
    return _long(x, steps) if g.shape[1] > LONG * len(g) else _plain(x, steps)


def _plain(x: Tensor, steps: int) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.T                                                              # (n,n)
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x                                                                        # (n,m)


def _long(x: Tensor, steps: int) -> Tensor:
    a, b, c = COEFFICIENTS
    gram, whole = x @ x.T, None                                                     # (n,n)
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)                     # (n,n)
        factor.diagonal().add_(a)
        whole = factor if whole is None else factor @ whole
        if step < steps - 1:
            gram = factor @ gram @ factor
    return whole @ x                                                                # (n,m)


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov's), made orthogonal, for weights of two and more dimensions.

    adjust scales the update as torch.optim.Muon's adjust_lr_fn: "original" by
    sqrt(max(1, out / in)), for rates about .02; "match_rms_adamw" by .2 sqrt(max(out, in)), for
    rates about AdamW's (Liu et al. 2025, arXiv 2502.16982, eq. 4).
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = .95,
                 weight_decay: float = 0., adjust: str = "original"):
        if adjust not in ("original", "match_rms_adamw"):
            raise ValueError(f"adjust must be original or match_rms_adamw, got {adjust!r}.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay,
                                  "adjust": adjust})
        if any(p.ndim < 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes weights of two or more dimensions; give the others to "
                             "AdamW (`split` tells them apart).")

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, group)

    def move(self, p: Tensor, group: dict) -> None:
        """One step of one weight, looked at as a matrix (out, the rest)."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        mean = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
        update = p.grad.lerp(mean, group["momentum"]).flatten(1)                    # (out,rest)
        rows, columns = update.shape
        scale = (sqrt(max(1, rows / columns)) if group["adjust"] == "original"
                 else .2 * sqrt(max(rows, columns)))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(newton_schulz(update).view_as(p), alpha=group["lr"] * scale)


def split(model: nn.Module, keep: Iterable[str] = ()) -> tuple[list[nn.Parameter], list]:
    """A model's trainable weights for Muon, and those that stay with AdamW.

    AdamW keeps vectors, scalars, tables of embeddings, and what has one of `keep` in its name
    (usually the first and the last layer, whose rows are not alike).
    """
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding)
              for p in m.parameters()}
    matrices, others = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            alone = p.ndim < 2 or id(p) in tables or any(part in name for part in keep)
            (others if alone else matrices).append(p)
    return matrices, others


def groups(model: nn.Module, lr: float, others_lr: float = 1e-3, keep: Iterable[str] = (),
           adjust: str = "original") -> list[dict]:
    """The parameter groups of a training with both: Muon's first, then AdamW's."""
    matrices, others = split(model, keep)
    made = [{"params": matrices, "lr": lr, "adjust": adjust}, {"params": others, "lr": others_lr}]
    return [group for group in made if group["params"]]


def optimizers(groups: list[dict], lr: float, weight_decay: float,
               betas: tuple[float, float], fused: bool) -> list[torch.optim.Optimizer]:
    """The optimizers of some parameter groups: Muon for those that name an `adjust`, else AdamW."""
    muon = [group for group in groups if "adjust" in group]
    adamw = [group for group in groups if "adjust" not in group]
    made = [Muon(muon, lr, weight_decay=weight_decay)] if muon else []
    if adamw:
        made.append(torch.optim.AdamW(adamw, lr, betas=betas, weight_decay=weight_decay,
                                      fused=fused))
    return made
