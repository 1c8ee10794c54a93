"""Lesson 13's checks of its two loops: two captions under control, and the empty one fitted."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from .. import prompt2prompt as reference
from ..ddim import ddim_step
from ..latent import cross_attentions, token_maps
from ..nets import attention_map, head_mean, record_attention, replace_attention
from . import Wrong, exercise, expect_close, looks_like
from ._fixtures import END, NOISE
from .ddim import expect_trajectory
from .gligen import small_unet

STEPS, LOUD = 4, 6.


def pair() -> tuple:
    """A small network, a model for each step, latents of one pair, a control and a blend.

    The models predict with the empty caption too, so that each layer sees four rows. Layers
    that attend sharply and speak loudly: without control of either kind the end is another.
    """
    unet = small_unet(sample_size=8).requires_grad_(False)
    for layer in reference.attentions(unet).values():
        for linear in (layer.to_q, layer.to_k, layer.to_out[0]):
            linear.weight *= LOUD
    words = torch.randn(STEPS, 4, 5, 10).requires_grad_()   # a text tower that learns

    def guided(context: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return unet(torch.cat([xt, xt]), torch.cat([t, t]), context)[2:]

    table = torch.zeros(1, STEPS + 1, 5)
    table[:, :3, 1:], table[:, :1, 0] = 1, 1
    control = reference.Control(torch.eye(5).roll(1, 0)[None], torch.full((1, 5), 1.5), table, 2, 8)
    local = reference.Blend(torch.tensor([[0., 1, 0, 0, 0], [0, 0, 1, 0, 0]]), .5, 8, .97)
    zT = torch.randn(1, 3, 8, 8)
    parts = SimpleNamespace(unet=unet, schedule=NOISE)
    return parts, [partial(guided, one) for one in words], torch.cat([zT, zT]), control, local


def edit_trajectory(parts, models: list[Callable], zt: Tensor, control, local=None, *, index=int,
               end: float = END, offset: int = 1, chosen=int, kept=lambda seen, new: seen + new,
               first=lambda start: start, turned: bool = False, rows: slice | None = None,
               controlled: bool = True, layers: Callable = reference.attentions) -> list:
    """The loop of Prompt-to-Prompt, with a mistake in one place."""
    yielded, seen, words = [], 0., cross_attentions(parts.unet) if local else {}
    part = slice(-len(zt), None) if rows is None else rows
    for i in range(STEPS):
        step = (STEPS - 1 - i) * (NOISE.T // STEPS) + offset
        t = torch.full((len(zt),), step)
        act = partial(control, index(i)) if controlled else lambda name, attention: None
        with (torch.no_grad(), record_attention(words, head_mean(attention_map)) as maps,
              replace_attention(layers(parts.unet), act)):
            eps_hat = models[chosen(i)](zt, t)
        moved = ddim_step(eps_hat, zt, t, t - NOISE.T // STEPS, NOISE, end=end)
        if local:
            seen = kept(seen, token_maps(maps, local.side)[part])
        if local and i >= first(int(local.start * STEPS)):
            inside = reference.blend_mask(seen, local.words, 8, local.threshold)
            moved = reference.blend(moved, ~inside if turned else inside)
        zt = moved
        yielded.append((step, zt))
    return yielded


def edit_mistakes(given: tuple, local=None) -> dict[str, Tensor]:
    """Where loops end that get one thing wrong, by their message."""
    def ends(local=local, **one) -> Tensor:
        return edit_trajectory(*given, local, **one)[-1][1]

    found = {
        "Nothing is controlled: the network must be called within `replace_attention`.":
            ends(controlled=False),
        "Only cross-attention is controlled: attentions(parts.unet) has both kinds of layers.":
            ends(layers=cross_attentions),
        "The control is asked about step 0 all the time, so its schedule never ends: "
        "partial(control, i).": ends(index=lambda i: 0),
        "The control counts from the end: step 0 is the noisiest.":
            ends(index=lambda i: STEPS - 1 - i),
        "Each step has a model of its own: models[i].": ends(chosen=lambda i: 0),
        "The loop ends at alpha_bar = 1; Stable Diffusion's ends at alpha_bar[0].": ends(end=1.),
        "The steps are not moved: Stable Diffusion's have an offset of STEPS_OFFSET.":
            ends(offset=0)}
    if local:
        found |= {
            "`local` has no effect: it is ignored, or `blend_mask` was not told `local.threshold`.":
                ends(local=None),
            "The blend sees this step's maps only; sum them over the steps.":
                ends(kept=lambda seen, new: new),
            "The blend begins with the first step; it waits until int(local.start * steps).":
                ends(first=lambda start: 0),
            "The blend begins a step late: from int(local.start * steps) on, that step too.":
                ends(first=lambda start: start + 1),
            "The blend is turned round: `blend` puts the bases back where `inside` is False.":
                ends(turned=True),
            "The maps of the half without caption were taken: the last rows have the captions.":
                ends(rows=slice(0, 2))}
    return found


@exercise("gligen_lessons.prompt2prompt:edit_steps")
def edit_steps(attempt):
    """Four of forty steps of one pair, without and with a local blend."""
    *given, local = pair()
    largest = 0.
    for blend in (None, local):
        want = edit_trajectory(*given, blend)
        got = attempt(*given[:2], given[2].clone(), given[3], blend)
        got = got if got is None else list(got)
        if got and isinstance(got[-1], tuple | list) and len(got[-1]) == 2:
            looks_like(got[-1][1], edit_mistakes(tuple(given), blend))
        if got and got[-1][1].requires_grad:
            raise Wrong("gradients are kept along the way: predict under torch.no_grad().")
        largest = max(largest, expect_trajectory(
            got, want, "Predict under control, a step of DDIM, then the blend.", {}))
    if any(x._forward_hooks for x in reference.attentions(given[0].unet).values()):
        raise Wrong("the control stays on the network when the loop is over: use `with`.")
    return f"paints a pair of captions in 2 x {STEPS} steps (largest difference {largest:.0e})"


def landing() -> tuple:
    """A null caption, a curved function of it that stands for a step, and a goal."""
    weights = torch.randn(6, 7, requires_grad=True)
    null, goal = torch.randn(2, 3, 6), torch.randn(2, 3, 7).tanh()
    return null, lambda x: torch.tanh(x @ weights), goal, weights


def null_fitted(null: Tensor, land: Callable, goal: Tensor, iterations: int = 5,
                rate: float = .05, *, kind=torch.optim.Adam, sign: float = 1.,
                piled: bool = False, anew: bool = False) -> Tensor:
    """Null-text optimisation with a mistake in one place."""
    null, total = null.clone().requires_grad_(), 0.
    optimizer = kind([null], lr=rate)
    for _ in range(iterations):
        gradient, = torch.autograd.grad(sign * (land(null) - goal).square().mean(), null)
        total = total + gradient if piled else gradient
        optimizer = kind([null], lr=rate) if anew else optimizer
        null.grad = total
        optimizer.step()
    return null.detach()


@exercise("gligen_lessons.null_text:fit_null")
def fit_null(attempt):
    """Five iterations at another rate, towards a goal that is not reached."""
    null, land, goal, weights = landing()
    kept, want = null.clone(), null_fitted(null, land, goal)
    wrong = {
        "This moves AWAY from the goal: step down the gradient, not up.":
            null_fitted(null, land, goal, sign=-1.),
        "The gradients of all iterations pile up: a fresh one each time, or zero_grad().":
            null_fitted(null, land, goal, piled=True),
        "This is plain gradient descent; the paper's optimiser is Adam.":
            null_fitted(null, land, goal, kind=torch.optim.SGD),
        "Adam begins anew in each iteration and forgets its averages: one, before the loop.":
            null_fitted(null, land, goal, anew=True),
        "Nothing has moved.": kept, "`iterations` is ignored: this is one step.":
            null_fitted(null, land, goal, 1),
        "`iterations` and `rate` are ignored: these are the defaults.":
            null_fitted(null, land, goal, 10, .01),
        "The null was returned with noise or states of its own: begin from `null`.":
            null_fitted(torch.zeros_like(null), land, goal)}
    got = attempt(null, land, goal, 5, .05)
    error = expect_close(got, want, "A copy that requires a gradient, Adam, the mean squared "
                         "distance of land(null) and the goal.", mistakes=wrong, tol=1e-4)
    if got.requires_grad:
        raise Wrong("the result still carries gradients: `.detach()` it.")
    if not torch.equal(null, kept) or null.requires_grad:
        raise Wrong("the null that came in was changed. The caller still needs it: clone it.")
    if weights.grad is not None:
        raise Wrong("the network's weights got gradients too: ask for that of the null alone, "
                    "torch.autograd.grad(distance, null).")
    before, after = ((land(x) - goal).square().mean() for x in (null, got))
    return f"brings the distance from {before:.3f} to {after:.3f} (difference {error:.0e})"
