"""Checks of lesson 5: its functions; its U-Net's parts are in `_unet_parts`."""

import torch
from torch import Tensor

from .. import guidance as reference
from ..ddpm import posterior, predict_x0
from ..schedule import Schedule, extract
from . import Wrong, exercise, expect_close
from ._unet_parts import Attention, ResnetBlock2D  # noqa: F401

SHORT = Schedule.linear(10, .02, .3)                      # ten steps that differ a lot


def uneven_log_prob(xt, t):
    """A log-probability that is no simple function of the picture, and depends on the step."""
    weight = torch.linspace(.2, 1.5, xt[0].numel()).to(xt).view_as(xt[0])
    score = (weight * torch.sin(xt + t.to(xt).view(-1, 1, 1, 1) / 3)).flatten(1).sum(1)
    return torch.nn.functional.logsigmoid(score)


def four_draws(batch: int = 3) -> tuple[torch.Tensor, ...]:
    """Four tensors (b,2,4,5) with values beyond [-1, 1]."""
    return tuple(1.5 * torch.randn(batch, 2, 4, 5) for _ in range(4))


@exercise("gligen_lessons.guidance:classifier_gradient")
def classifier_gradient(attempt):
    """As samplers call it: under no_grad, on pictures that are used again afterwards."""
    xt, t = four_draws()[0], torch.tensor([0, 4, 9])
    leaf = xt.clone().requires_grad_()
    each = uneven_log_prob(leaf, t)
    want = torch.autograd.grad(each.sum(), leaf)[0]
    shape = (-1, 1, 1, 1)
    mistakes = {
        "This is the gradient of the mean. It shrinks with the size of the batch: differentiate "
        "the sum.": want / len(xt),
        "This is the gradient of the probability. It is smaller by the probability itself, and "
        "fades where guidance is needed most.": want * each.detach().exp().view(shape),
        "The sign is turned: this leads away from the class. Differentiate log_prob, not a loss.":
            -want,
        "This is a direction of length 1. Its length belongs to it: how far the class is.":
            want / want.flatten(1).norm(dim=1).view(shape)}
    given = xt.clone()
    with torch.no_grad():
        try:
            got = attempt(uneven_log_prob, given, t)
        except RuntimeError as error:
            if "require grad" not in str(error) and "grad_fn" not in str(error):
                raise
            raise Wrong("nothing could be differentiated. Samplers run under torch.no_grad(): use "
                        "`with torch.enable_grad():`, and an xt that requires one.") from None
    if isinstance(got, tuple):
        raise Wrong("torch.autograd.grad returns a tuple, one gradient for each input: take [0].")
    error = expect_close(got, want, "Differentiate log_prob(xt, t).sum() with respect to xt.",
                         mistakes=mistakes)
    if got.requires_grad:
        raise Wrong("the result still requires a gradient, so sampling would keep every step's "
                    "graph in memory.")
    if given.requires_grad or not torch.equal(given, xt):
        raise Wrong("the caller's xt was changed. Work on `xt.detach()`, a tensor of your own.")
    return f"agrees with autograd on 3 pictures under no_grad (largest difference {error:.0e})"


@exercise("gligen_lessons.guidance:classifier_eps")
def classifier_eps(attempt):
    """Three steps, one of them the last."""
    eps_hat, gradient, *_ = four_draws()
    t, scale = torch.tensor([0, 4, 9]), 2.5
    noise, signal = (extract(level.sqrt(), t, eps_hat)
                     for level in (1 - SHORT.alpha_bar, SHORT.alpha_bar))
    mistakes = {
        "The sign is turned. eps points to the noise and the gradient to the data, so the gradient "
        "is subtracted.": eps_hat + scale * noise * gradient,
        "The root is missing: the factor is sqrt(1 - alpha_bar).":
            eps_hat - scale * noise**2 * gradient,
        "This is the root of alpha_bar, the picture's part; the noise's is sqrt(1 - alpha_bar).":
            eps_hat - scale * signal * gradient,
        "The factor sqrt(1 - alpha_bar) is missing: a score becomes an eps only with it.":
            eps_hat - scale * gradient,
        "The gradient is divided by sqrt(1 - alpha_bar); it must be multiplied.":
            eps_hat - scale * gradient / noise,
        "The guidance scale is missing.": eps_hat - noise * gradient,
        "This uses betas; the noise that xt holds is that of all steps, 1 - alpha_bar.":
            eps_hat - scale * extract(SHORT.betas.sqrt(), t, eps_hat) * gradient}
    got = attempt(eps_hat.clone(), gradient.clone(), t, SHORT, scale)
    error = expect_close(got, eps_hat - scale * noise * gradient, "Compare with the derivation: "
                         "eps_hat minus s times sqrt(1 - alpha_bar) times the gradient.",
                         mistakes=mistakes)
    return f"corrects eps at 3 steps as algorithm 2 does (largest difference {error:.0e})"


@exercise("gligen_lessons.guidance:guide")
def guide(attempt):
    """Scales below, between and above the two predictions."""
    without, with_c, *_ = four_draws()
    error = 0.
    for scale in (3., .4, 0., 1.):
        want = torch.lerp(without, with_c, scale)
        mistakes = {
            "This is Ho and Salimans' w: it starts at eps_cond. Start at eps_uncond, so that scale "
            "1 gives eps_cond.": torch.lerp(without, with_c, 1 + scale),
            "The two predictions are exchanged: scale 0 must give eps_uncond.":
                torch.lerp(with_c, without, scale),
            "The sign of the difference is turned: this leads away from the condition.":
                without - scale * (with_c - without),
            "The second prediction was not subtracted: only the difference is multiplied.":
                without + scale * with_c,
            "The scale must not be clamped: above 1 it goes past eps_cond, and that is the idea.":
                torch.lerp(without, with_c, min(scale, 1.))}
        mistakes = {m: value for m, value in mistakes.items() if not torch.allclose(value, want)}
        error = max(error, expect_close(
            attempt(without.clone(), with_c.clone(), scale), want,
            f"At scale {scale:g}, compare with the first row of the table.", mistakes=mistakes))
    return f"goes the right way at 4 scales (largest difference {error:.0e})"


def done_to_the_wrong_one(x0_hat: Tensor, xt: Tensor, t: Tensor, shift: Tensor,
                          noise: Tensor) -> dict[str, Tensor]:
    """DDPM steps whose mean was clamped, whose prediction was moved or took xt's place."""
    mean, variance = posterior(x0_hat, xt, t, SHORT)
    moved_x0, _ = posterior((x0_hat + shift).clamp(-1, 1), xt, t, SHORT)
    turned, _ = posterior(xt, x0_hat.clamp(-1, 1), t, SHORT)
    spread = variance.sqrt() * noise
    return {
        "The mean was clamped. Clamp the prediction of x0, before `posterior` reads it.":
            (mean + variance * shift).clamp(-1, 1) + spread,
        "The mean was clamped before its shift. Clamp the prediction of x0.":
            mean.clamp(-1, 1) + variance * shift + spread,
        "The prediction of x0 was moved, not the mean.": moved_x0 + spread,
        "`posterior` takes the prediction of x0 first, then xt.":
            turned + variance * shift + spread}


@exercise("gligen_lessons.guidance:classifier_ddpm_step")
def classifier_ddpm_step(attempt):
    """Three steps, the last one included, clipped and plain."""
    (eps_hat, xt, noise, gradient), t, scale = four_draws(), torch.tensor([9, 4, 0]), 1.7
    prediction = predict_x0(eps_hat, xt, t, SHORT)
    clipped = prediction.clamp(-1, 1)
    of_ddim = reference.classifier_eps(eps_hat, gradient, t, SHORT, scale)

    def moved(x0_hat, shift=lambda v: v, spread=torch.sqrt, s=scale):
        mean, variance = posterior(x0_hat, xt, t, SHORT)
        return mean + s * shift(variance) * gradient + spread(variance) * noise
    mistakes = {
        "sqrt(1 - alpha_bar) belongs to classifier_eps. Here the shift has the step's variance.":
            moved(clipped, lambda v: extract((1 - SHORT.alpha_bar).sqrt(), t, xt)),
        "eps_hat was corrected, as DDIM needs it. Here leave eps_hat and move the mean.":
            moved(predict_x0(of_ddim, xt, t, SHORT).clamp(-1, 1), s=0),
        "The shift is multiplied by the standard deviation. Completing the square gives the "
        "variance.": moved(clipped, torch.sqrt),
        "The shift is not multiplied by the variance, so it is as large at the last step as at "
        "the first.": moved(clipped, torch.ones_like),
        "The sign is turned: the mean must move along the gradient.": moved(clipped, lambda v: -v),
        "The guidance scale is missing.": moved(clipped, s=1),
        "`clip` was asked for and the prediction of x0 was not clamped to [-1, 1].":
            moved(prediction),
        "The noise is multiplied by the variance; it needs the root.":
            moved(clipped, spread=lambda v: v),
        "The noise has the root of beta; the posterior's variance is smaller.":
            moved(clipped, spread=lambda v: extract(SHORT.betas.sqrt(), t, xt)),
        "No noise was added: the mean moves, and the step stays random.":
            moved(clipped, spread=torch.zeros_like),
        "The mean was not moved at all.": moved(clipped, s=0),
        "betas stand where the posterior's variance belongs.":
            moved(clipped, lambda v: extract(SHORT.betas, t, xt)),
        **done_to_the_wrong_one(prediction, xt, t, scale * gradient, noise)}
    got = attempt(eps_hat.clone(), xt.clone(), t, SHORT, noise.clone(), gradient.clone(), scale,
                  True)
    error = expect_close(got, moved(clipped), "Compare with algorithm 1: the posterior's mean, "
                         "plus s times variance times gradient, plus noise.", mistakes=mistakes)
    got = attempt(eps_hat.clone(), xt.clone(), t, SHORT, noise.clone(), gradient.clone(), scale)
    expect_close(got, moved(prediction), "Without `clip` the prediction of x0 stays as it is.")
    return f"moves the mean at 3 steps as algorithm 1 does (largest difference {error:.0e})"


@exercise("gligen_lessons.guidance:drop")
def drop(attempt):
    """Which samples lose their condition, how many, and that they lose all of it."""
    cond, null_cond = torch.arange(8000.).view(2000, 2, 2) + 1, -torch.tensor([[1., 2], [3, 4]])
    got = attempt(cond.clone(), null_cond.clone(), .2, torch.Generator().manual_seed(1))
    if got is None:
        raise Wrong("it returned None. Does it end with `return`?")
    expect_close(torch.zeros_like(torch.as_tensor(got)), torch.zeros_like(cond), "")
    empty, kept = got == null_cond, got == cond
    if not bool((empty | kept).all()):
        raise Wrong("some entries are neither the condition nor the empty one. Every sample has "
                    "either all of `cond` or all of `null_cond` (not 0, nor -1).")
    gone = empty.flatten(1)
    if bool((gone.any(1) != gone.all(1)).any()):
        raise Wrong("some samples lost a part of their condition: throw one coin a sample, not "
                    "one for each number.")
    part = float(gone.all(1).double().mean())
    if part in (0., 1.):
        raise Wrong(f"{'all' if part else 'no'} samples were dropped: each throws its own coin, "
                    "not the batch as a whole.")
    if abs(part - .8) < .05:
        raise Wrong("this keeps the part that should be dropped: replace where the coin falls "
                    "below p_drop.")
    if abs(part - .2) > .05:
        raise Wrong(f"{part:.0%} of the samples were dropped where p_drop is 20%.")
    seeds = torch.get_rng_state()
    again = attempt(cond.clone(), null_cond.clone(), .2, torch.Generator().manual_seed(1))
    if not torch.equal(got, again) or not torch.equal(torch.get_rng_state(), seeds):
        raise Wrong("the coins did not come from the generator `g`, so a seed means no run.")
    first = gone.all(1).double()
    beside = float((first[1:] * first[:-1]).mean())
    if beside > .1:
        raise Wrong("the dropped samples stand side by side. Each throws its own coin.")
    drops_from_few(attempt)
    return f"drops {part:.1%} of 2000 samples for p_drop = 20%, each of them whole"


def drops_from_few(attempt):
    """Small batches: how many are dropped varies, the extremes hold, the caller's stay whole."""
    labels = torch.tensor([[3, 1], [0, 2]] * 4)
    none, numbers = torch.tensor([-1, -1]), set()
    for seed in range(20):
        given = labels.clone()
        got = attempt(given, none.clone(), .5, torch.Generator().manual_seed(seed))
        numbers.add(int((torch.as_tensor(got) == none).all(1).sum()))
        if not torch.equal(given, labels):
            raise Wrong("the caller's cond was changed. `torch.where` makes a new one.")
    if len(numbers) == 1:
        raise Wrong("every batch loses equally many. Each sample throws its own coin, whatever "
                    "the others threw.")
    for chance, want in ((0., labels), (1., torch.full_like(labels, -1))):
        got = attempt(labels.clone(), none, chance, torch.Generator())
        expect_close(got, want, f"With p_drop = {chance:g}: nothing is dropped at 0, all at 1.")


def bent_by(xt, t, cond):
    """A prediction of eps that depends on the picture, the step and the condition."""
    level = t.to(xt).view(-1, 1, 1, 1) / 7
    return torch.tanh(xt + level) * (1 + cond.to(xt).view(-1, 1, 1, 1))


def function(guided):
    """What was returned, if it is a function for samplers."""
    if guided is None:
        raise Wrong("it returned None. Does it end with `return guided`, indented less than the "
                    "inner function's lines?")
    if not callable(guided):
        raise Wrong("return the inner function itself, not what it returns: a sampler will call "
                    "it with xt and t.")
    return guided


def counted(model) -> tuple:
    """The model, made to refuse batches that do not fit, and the conditions of each call to it."""
    calls = []

    def careful(x, step, cond):
        if not len(x) == len(step) == len(cond):
            raise Wrong(f"the model got {len(x)} pictures, {len(step)} steps and {len(cond)} "
                        "conditions: repeat xt and t as often as there are conditions.")
        calls.append(cond.clone())
        return model(x, step, cond)

    return careful, calls


@exercise("gligen_lessons.guidance:classifier_free")
def classifier_free(attempt):
    """The mixture of both predictions, and the calls it costs."""
    xt, *_ = four_draws()
    t, cond, null_cond = torch.tensor([9, 4, 0]), torch.tensor([1., 2, 3]), -torch.ones(3) / 2
    model, calls = counted(bent_by)
    without, with_c = bent_by(xt, t, null_cond), bent_by(xt, t, cond)
    want = reference.guide(without, with_c, 3.)
    mixed = bent_by(xt.repeat_interleave(2, 0), t.repeat_interleave(2),
                    torch.cat([null_cond, cond]))
    mistakes = {
        "Pictures met the conditions of others: repeat_interleave puts twins side by side. Use "
        "torch.cat([xt, xt]).": reference.guide(*mixed.chunk(2), 3.),
        "The halves are exchanged: what came from the empty condition must be eps_uncond. Mind the "
        "order of the batch.": reference.guide(with_c, without, 3.),
        "The guidance scale is not used: this is the prediction with the condition alone.": with_c,
        "This is Ho and Salimans' w, one more than s: hand guidance_scale to `guide` as it is.":
            reference.guide(without, with_c, 4.)}
    got = function(attempt(model, cond.clone(), null_cond.clone(), 3.))(xt.clone(), t)
    if isinstance(got, torch.Tensor) and len(got) == 2 * len(xt):
        raise Wrong("twice as many pictures came back: cut the predictions in two along the first "
                    "axis and mix the halves.")
    error = expect_close(got, want, "Guide from the prediction with null_cond to that with cond.",
                         mistakes=mistakes)
    if len(calls) != 1:
        raise Wrong(f"the model was called {len(calls)} times. Put both conditions into one batch, "
                    "which is faster.")
    expect_close(calls[0], torch.cat([null_cond, cond]), "The batch holds the empty condition "
                 "first, then the requested one, as in diffusers.")
    calls.clear()
    expect_close(attempt(model, cond, null_cond, 1.)(xt.clone(), t), with_c, "A scale of 1 gives "
                 "the prediction with the condition.")
    if sum(map(len, calls)) != len(xt):
        raise Wrong("a scale of 1 needs the condition's prediction alone: call the model once, on "
                    "xt as it is.")
    expect_close(attempt(model, cond, null_cond, 0.)(xt.clone(), t), without, "A scale of 0 gives "
                 "the prediction without the condition.")
    return f"guides 3 pictures in 1 call (largest difference {error:.0e})"


@exercise("gligen_lessons.guidance:classifier_guided")
def classifier_guided(attempt):
    """A function for samplers that asks the model and the classifier at the same place."""
    xt, *_ = four_draws()
    t, scale = torch.tensor([9, 4, 0]), 2.5

    def model(x, step):
        return bent_by(x, step, torch.tensor([1., 2, 3]))
    gradient, eps_hat = reference.classifier_gradient(uneven_log_prob, xt, t), model(xt, t)
    prediction = predict_x0(eps_hat, xt, t, SHORT)
    at_prediction = reference.classifier_gradient(uneven_log_prob, prediction, t)
    at_zero = reference.classifier_gradient(uneven_log_prob, xt, torch.zeros_like(t))
    want = reference.classifier_eps(eps_hat, gradient, t, SHORT, scale)
    mistakes = {
        "The classifier does not take part: this is the model's own prediction.": eps_hat,
        "This is the gradient alone; `classifier_eps` adds it to the model's prediction.": gradient,
        "The classifier was asked about the prediction of x0; this one reads the noisy xt.":
            reference.classifier_eps(eps_hat, at_prediction, t, SHORT, scale),
        "The classifier was asked about step 0; it must be told the step of xt.":
            reference.classifier_eps(eps_hat, at_zero, t, SHORT, scale),
        "The guidance scale is missing.":
            reference.classifier_eps(eps_hat, gradient, t, SHORT, 1.),
        "The scale works twice: classifier_eps multiplies by it already.":
            reference.classifier_eps(eps_hat, gradient, t, SHORT, scale**2),
        "The gradient was added to eps without sqrt(1 - alpha_bar) and with the wrong sign: let "
        "classifier_eps do it.": eps_hat + scale * gradient,
        "The factor sqrt(1 - alpha_bar) is missing: let classifier_eps subtract the gradient.":
            eps_hat - scale * gradient}
    guided = function(attempt(model, uneven_log_prob, SHORT, scale))
    with torch.no_grad():
        got = guided(xt.clone(), t)
    error = expect_close(got, want, "Inside: classifier_gradient at xt and t, then classifier_eps "
                         "of the model's prediction.", mistakes=mistakes)
    return f"steers 3 pictures as the library does (largest difference {error:.0e})"
