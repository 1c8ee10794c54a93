"""Checks of lesson 9."""

import copy

import numpy as np
import torch
from torch import Tensor

from .. import grounded as reference
from ..gligen import Grounding, add_gates, gate_names, transformer_blocks
from ..guidance import guide
from ..recipes import gligen as recipe
from ..unet import UNet
from . import Wrong, exercise, expect_close
from ._grounded_attention import attention_concentration, gate_attention
from .gligen import small_unet, what_it_reads
from .latent import refuses

__all__ = ["attention_concentration", "bootstrap", "gate_parameter_groups", "gate_attention",
           "gate_schedule", "grounded_eps"]


def rates_of(groups, unet: UNet) -> dict[str, float]:
    """The learning rate of each parameter by its name, from AdamW's groups."""
    if not isinstance(groups, list | tuple) or not all(
            isinstance(group, dict) and {"params", "lr"} <= set(group) for group in groups):
        raise Wrong("AdamW's groups are a list of dicts, each with \"params\" and \"lr\".")
    names = {id(p): name for name, p in unet.named_parameters()}
    found = {}
    for group in groups:
        params = group["params"]
        for p in [params] if isinstance(params, Tensor) else params:  # AdamW takes one alone, too
            if isinstance(p, str):
                raise Wrong("these are names. AdamW wants the parameters: "
                            "`unet.get_parameter(name)`.")
            name = names.get(id(p))
            if name is None:
                raise Wrong("a tensor in \"params\" is no parameter of the network: hand on the "
                            "parameter itself, no copy of it.")
            if name in found:
                raise Wrong(f"{name} stands in both groups; AdamW refuses that.")
            found[name] = float(group["lr"])
    return found


@exercise("gligen_lessons.recipes.gligen:gate_parameter_groups")
def gate_parameter_groups(attempt):
    """A network with gates in six blocks, all of it allowed to learn."""
    unet = add_gates(small_unet())
    groups = attempt(unet)
    if groups is None:
        raise Wrong("it returned None. Does it end with `return`?")
    got, fast, slow = rates_of(groups, unet), recipe.GATE_RATE, recipe.RATE
    new, everything = gate_names(unet), [name for name, _ in unet.named_parameters()]
    scalars = [name for name in new if ".alpha_" in name]

    def rates(names, quick) -> dict[str, float]:
        return {name: fast if name in quick else slow for name in names}
    want = rates(new, scalars)
    for wrong, message in (
            (rates(new, set(new) - set(scalars)), "The rates have changed places: the scalars are "
             "the fast ones."),
            (rates(everything, scalars), "What was there before learns too. The groups hold what "
             "is new, the names of `gate_names`."),
            (rates(scalars, scalars), "Only the scalars learn here; the rest of what is new needs "
             "a group too."),
            (rates(set(new) - set(scalars), ()), "The scalars are in no group, so they never "
             "move and every gate stays closed."),
            (rates(new, ()), "All learn at the slow rate. The scalars want GATE_RATE: they "
             "should not wait for a tenth of a short run."),
            (rates(new, new), "All learn at the fast rate. It is for the two scalars of each gate "
             "alone; weights would be torn apart."),
            (rates(new, [n for n in new if ".fuser." in n]), "Whole gates are in the fast group. "
             "Only alpha_attn and alpha_dense belong there."),
            (rates(new, [n for n in scalars if n.endswith("attn")]), "alpha_dense is in the slow "
             "group; each gate has two scalars."),
            (rates([n for n in new if ".fuser." in n], scalars), "The position net is in no "
             "group; it is new and must learn too.")):
        if got == wrong:
            raise Wrong(message)
    if missing := sorted(set(want) ^ set(got)):
        raise Wrong(f"{missing[0]} should{'' if missing[0] in want else ' not'} be in a group.")
    error = expect_close([got[name] for name in new], [want[name] for name in new],
                         "Take the rates from GATE_RATE and RATE.", tol=1e-8)
    return (f"gives {len(scalars)} scalars {fast / slow:.0f} times the rate of the other "
            f"{len(new) - len(scalars)} tensors (largest difference {error:.0e})")


def closing_mistakes(closing: int) -> dict[str, list[float]]:
    """How a stage of `closing` steps can fall in a wrong way, by message."""
    steps = range(closing)
    return {
        "The closing stage begins at 1 here. Its first step already closes a little, its last is "
        "0: 1 - (i + 1) / n.": [1 - i / closing for i in steps],
        "The closing stage never gets to 0: its last step should be closed.":
            [1 - (i + 1) / (closing + 1) for i in steps],
        "The closing stage goes from 1 to 0 with both ends; it begins one step below 1.":
            list(np.linspace(1, 0, closing)),
        "The closing stage opens. It goes from almost 1 down to 0.":
            [(i + 1) / closing for i in steps],
        "The closing stage is missing: its steps are wide open.": [1.] * closing,
        "The closing stage is missing: its steps are closed.": [0.] * closing,
        "The closing stage stands at one half; it should fall evenly.": [.5] * closing}


@exercise("gligen_lessons.grounded:gate_schedule")
def gate_schedule(attempt):
    """Three stages of ten steps, parts that no float holds exactly, and what must be refused."""
    full, closing, closed = [1.] * 3, [.75, .5, .25, 0.], [0.] * 3
    got = attempt(10, (.3, .4, .3))
    mistakes = {message: [*full, *fall, *closed] for message, fall in closing_mistakes(4).items()}
    mistakes["The stages have changed places: wide open first, closed at last."] = [
        *closed, *closing[::-1], *full]
    mistakes["The gates are closed first. Boxes count in the FIRST steps, where things get their "
             "places."] = [*closed, *closing, *full]
    if isinstance(got, list | tuple | np.ndarray | Tensor):
        got = [float(x) for x in got]
    error = expect_close(got, full + closing + closed,
                         "Ones, then an even fall that ends at 0, then "
                         "zeros.", mistakes=mistakes)
    for steps, stages in ((10, (.2, .7, .1)), (100, (.29, .42, .29)), (7, (.3, .4, .3)),
                          (49, (0., 1., 0.)), (5, (1., 0., 0.)), (30, (.3, 0., .7)),
                          (10, (.25, .25, .5))):
        error = max(error, exact_parts(attempt, steps, stages))
    refuses(lambda: attempt(10, (.5, .2, .2)), "stages came that sum to .9")
    refuses(lambda: attempt(10, (1.2, 0., -.2)), "a stage below 0 came")
    return f"opens and closes over 8 plans (largest difference {error:.0e})"


def exact_parts(attempt, steps: int, stages: tuple[float, float, float]) -> float:
    """One plan, with words for what floats do to it."""
    try:
        got = attempt(steps, stages)
    except (ValueError, AssertionError):
        raise Wrong(f"the stages {stages} were refused. As floats they sum to {sum(stages)!r}: "
                    "ask whether the sum is NEAR 1.") from None
    got = [float(x) for x in got]
    if len(got) != steps:
        raise Wrong(f"{len(got)} strengths for {steps} steps. np.arange with a step that no float "
                    "holds exactly may count one too many: count whole numbers, then divide.")
    want = reference.gate_schedule(steps, stages)
    if got.count(1.) < want.count(1.):
        raise Wrong(f"int({stages[0]} * {steps}) is {int(stages[0] * steps)}, since the product "
                    f"is {stages[0] * steps!r} as a float: add something tiny before `int`.")
    full, ends = want.count(1.), int((stages[0] + stages[1]) * steps + 1e-6)
    fall = [1 - (i + 1) / (ends - full) for i in range(ends - full)]
    together = [1.] * full + fall + [0.] * (steps - ends)
    return expect_close(got, want, f"With {steps} steps and stages {stages}: cut the number of "
                        "steps of the first two stages down to whole ones; the rest is closed.",
                        mistakes={} if together == want else {
                            f"With {steps} steps and stages {stages} the END of the closing stage "
                            "was cut down. Cut its own length, and the rest is closed.": together})


class PredictedTwice:
    """A small gated network, what it reads for two pictures, and its predictions for mistakes."""

    def __init__(self):
        self.unet = add_gates(small_unet())
        for name in gate_names(self.unet):
            if ".alpha_" in name:
                torch.nn.init.constant_(self.unet.get_parameter(name), .9)
        self.unet.requires_grad_(False)
        self.xt, _, self.context, self.grounding = what_it_reads(self.unet)
        self.null = torch.randn(1, 5, 10).expand(2, -1, -1)
        self.t = torch.tensor([600, 600])

    def call(self, context: Tensor, grounding: Grounding | None, beta: float = .5) -> Tensor:
        with reference.gate_scale(self.unet, beta):
            return self.unet(self.xt, self.t, context, grounding)

    def mistakes(self, s: float) -> dict[str, Tensor]:
        """What comes out of typical mistakes, by message; s is the scale."""
        boxes, none = self.grounding, self.grounding.none()
        yes, no = self.call(self.context, boxes), self.call(self.null, none)
        return {
            "Both predictions are grounded. What guidance leads AWAY from has no grounding: "
            "`grounding.none()`.": guide(self.call(self.null, boxes), yes, s),
            "The groundings have changed places: the null caption goes with no boxes.":
                guide(self.call(self.null, boxes), self.call(self.context, none), s),
            "Both predictions are without boxes.": guide(no, self.call(self.context, none), s),
            "The two predictions have changed places: guidance leads TOWARDS caption and boxes.":
                guide(yes, no, s),
            "The captions have changed places.": guide(
                self.call(self.context, none), self.call(self.null, boxes), s),
            "Both predictions have the caption. The one without boxes has the null caption too.":
                guide(self.call(self.context, none), yes, s),
            "Without boxes the gates were skipped. GLIGEN fills all slots with null tokens "
            "there: `grounding.none()`.": guide(self.call(self.null, None), yes, s),
            "`strength` is ignored: all gates are wide open.": guide(
                self.call(self.null, none, 1.), self.call(self.context, boxes, 1.), s),
            "Here guidance_scale is s, not Ho and Salimans' w = s - 1.": guide(no, yes, s + 1),
            "`guidance_scale` is ignored; this is the prediction with caption and boxes.": yes,
            "Each picture stands beside its copy: [a, a, b, b]. `torch.cat([xt, xt])` is [a, b, a, "
            "b], in the order of the captions.": self.beside_its_copy(s)}

    def beside_its_copy(self, s: float) -> Tensor:
        """The guided prediction of a batch whose latents stand in another order than the rest."""
        with reference.gate_scale(self.unet, .5):
            both = self.unet(self.xt.repeat_interleave(2, 0), self.t.repeat(2),
                             torch.cat([self.null, self.context]),
                             self.grounding.none().beside(self.grounding))
        return guide(*both.chunk(2), s)


@exercise("gligen_lessons.grounded:grounded_eps")
def grounded_eps(attempt):
    """Half-open gates at a scale of 3, closed ones, no guidance, and a detour."""
    team, strength = PredictedTwice(), {600: .5, 20: 0.}

    def requested(scale, t, through=None):
        prediction = attempt(team.unet, team.context, team.null, team.grounding, scale, strength,
                             *[through] * (through is not None))
        if prediction is None:
            raise Wrong("it returned None: return the function `guided`.")
        return prediction(team.xt.clone(), t)
    yes, no = (team.call(c, g) for c, g in ((team.context, team.grounding),
                                            (team.null, team.grounding.none())))
    got = requested(3., team.t)
    if any(block.fuser.scale != 1 for block in transformer_blocks(team.unet)):
        raise Wrong("the gates are still half closed afterwards: use `with gate_scale(...)`, "
                    "which puts them back.")
    error = expect_close(got, guide(no, yes, 3.),
                         "Two predictions in one batch, null first, with the "
                         "gates at strength[t]; then `guide`.", mistakes=team.mistakes(3.))
    late = torch.full_like(team.t, 20)
    plain = guide(team.unet(team.xt, late, team.null), team.unet(team.xt, late, team.context), 3.)
    expect_close(requested(3., late), plain,
                 "At a step of strength 0 the guided prediction is that of the old "
                 "network.", mistakes={
                     "Where gates are closed the caption guides no longer: two predictions there, "
                     "too, both without grounding.": team.unet(team.xt, late, team.context)})
    expect_close(requested(1., team.t), yes,
                 "At a scale of 1 the prediction with caption and boxes is "
                 "the answer.")
    by_detour(team, lambda through: requested(3., team.t, through), guide(no, yes, 3.))
    refuses(lambda: requested(-1., team.t), "a guidance scale of -1 came")
    return f"guides by caption and boxes at once (largest difference {error:.0e})"


def by_detour(team: PredictedTwice, requested, ignored: Tensor) -> None:
    """A `through` that shows the network twice the latent; `ignored` is what comes without it."""
    double = copy.copy(team)
    double.xt = 2 * team.xt
    want, wide = (guide(double.call(team.null, team.grounding.none(), beta),
                        double.call(team.context, team.grounding, beta), 3.) for beta in (.5, 1.))
    expect_close(requested(lambda xt, *rest: team.unet(2 * xt, *rest)), want,
                 "Where `through` is given, call it just as you call the network.", mistakes={
                     "`through` is ignored: where it is given, call it in the network's place.":
                         ignored,
                     "`through` is called with the gates wide open: it belongs inside "
                     "`with gate_scale(unet, beta)`, too.": wide})


def few_values() -> np.ndarray:
    """Twelve numbers far from zero, with a long tail to one side."""
    return 20 + np.array([.1, .2, .3, .35, .5, .6, .8, 1., 1.3, 1.8, 2.9, 4.6])


def mistakes_of_intervals(values: np.ndarray) -> dict[str, tuple[float, float]]:
    """Intervals that are not the wanted one, by message; what is drawn is drawn from seed 1."""
    rows = np.random.default_rng(1).integers(len(values), size=(20_000, len(values)))
    means, half = values[rows].mean(1), 1.96 * values.std(ddof=1) / len(values) ** .5
    low, high = np.percentile(means, [2.5, 97.5])
    slim = 1.96 * means.std() / len(means) ** .5
    return {
        "This is the interval of the VALUES. Wanted is that of their mean: take the mean of each "
        "draw first.": tuple(np.percentile(values, [2.5, 97.5])),
        "Each draw holds every value once, so all means are equal: draw WITH replacement.":
            (values.mean(), values.mean()),
        "The mean runs over the draws here. Each row is one draw: take the mean over axis 1.":
            tuple(np.percentile(values[rows].mean(0), [2.5, 97.5])),
        "The spread of the means is divided by the root of draws: more draws do not make the data "
        "surer. Take the percentiles of the means.": (values.mean() - slim, values.mean() + slim),
        "This is the 90 % interval: 95 % lie between the percentiles 2.5 and 97.5.":
            tuple(np.percentile(means, [5, 95])),
        "np.percentile counts in percent: 2.5 and 97.5, not .025 and .975.":
            tuple(np.percentile(means, [.025, .975])),
        "This is the smallest and the largest mean; cut 2.5 % off at each end.":
            (means.min(), means.max()),
        "These are the quartiles: 95 % lie between the percentiles 2.5 and 97.5.":
            tuple(np.percentile(means, [25, 75])),
        "This takes the means for a bell curve, 1.96 standard errors to each side. Take the "
        "percentiles of the drawn means.": (values.mean() - half, values.mean() + half),
        "This is half of the interval on each side of 0; return the two ends themselves.":
            (low - values.mean(), high - values.mean()),
        "The upper end comes first.": (high, low)}


@exercise("gligen_lessons.metrics:bootstrap")
def bootstrap(attempt):
    """Twelve numbers, 20,000 draws; forty and few, with two seeds; equal ones."""
    values, draws = few_values(), 20_000

    def ends(found) -> tuple[float, float]:
        if found is None or np.shape(found) != (2,):
            raise Wrong("expected two numbers, the lower and the upper end.")
        return float(found[0]), float(found[1])
    low, high = ends(attempt(values.copy(), 1, draws))
    want = np.percentile(values[np.random.default_rng(0).integers(12, size=(draws, 12))].mean(1),
                         [2.5, 97.5])
    near = {message: max(abs(low - a), abs(high - b))
            for message, (a, b) in mistakes_of_intervals(values).items()}
    if abs(high - low) < 1e-9 < abs(low - values.mean()):
        raise Wrong("All draws are the same one, so there is no width: make the generator once, "
                    "before the draws.")
    closest, right = min(near, key=near.get), max(abs(low - want[0]), abs(high - want[1]))
    if near[closest] < min(right, .03):
        raise Wrong(closest)
    error = expect_close((low, high), tuple(want.tolist()), "Draw rows with replacement, take "
                         "each draw's mean, and the percentiles 2.5 and 97.5 of the means.",
                         tol=.002)
    many = np.random.default_rng(3).normal(size=40)           # few draws of these never agree
    once = ends(attempt(many.copy(), 1, 50))
    if ends(attempt(many.copy(), 1, 50)) != once:
        raise Wrong("the same seed gave another interval: draw from a generator of your own, "
                    "np.random.default_rng(seed).")
    if ends(attempt(many.copy(), 2, 50)) == once:
        raise Wrong("`seed` is ignored: two seeds gave the same draws.")
    few = ends(attempt(np.full(3, 3.)))
    expect_close(few, (3., 3.), "The mean of equal values is certain: both ends lie on it.")
    return f"finds {low:.2f} to {high:.2f} (within {error:.0e})"
