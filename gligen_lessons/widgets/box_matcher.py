"""Boxes that a learner moves over a picture, and what DETR's matching makes of them."""

import base64
from itertools import chain

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from .. import show, world
from ..boxes import cxcywh_from_xyxy, xyxy_from_cxcywh
from ..images import png
from ..world.vocabulary import BASE
from .box_canvas import BoxCanvas

ANSWERS = (*BASE, "nothing")                                # what a query can say
FIRST_MATCH = 493                                           # of grounding-val: three things apart


def box_matcher(image: np.ndarray | None = None, labels: Tensor | None = None,
                targets: Tensor | None = None, logits: Tensor | None = None,
                boxes: Tensor | None = None) -> "BoxMatcher":
    """Predicted boxes to drag, and what they cost: the matrix, the matching, the three losses.

    image (h,w,3) uint8, labels (n,), targets (n,4) cxcywh, logits (q,C+1) over the world's base
    categories and "nothing", boxes (q,4) cxcywh. Without arguments a scene of its own: two good
    predictions, one that names the wrong thing, one in the wrong place. Raises ValueError for
    arguments that do not fit each other.
    """
    from .. import detr

    given = (image, labels, targets, logits, boxes)
    if all(part is None for part in given):
        given = image, labels, targets, logits, boxes = _own_scene()
    if any(part is None for part in given):
        raise ValueError("box_matcher needs all of image, labels, targets, logits, boxes, or none "
                         "of them for a scene of its own.")
    if np.ndim(image) != 3 or np.shape(image)[2] != 3 or np.asarray(image).dtype != np.uint8:
        raise ValueError(f"The image must be (h,w,3) uint8, got {np.asarray(image).dtype} "
                         f"{np.shape(image)}.")
    if logits.ndim != 2 or logits.shape[1] != len(ANSWERS) or boxes.shape != (len(logits), 4):
        raise ValueError(f"Predictions of one picture are logits (q,{len(ANSWERS)}) and boxes "
                         f"(q,4) cxcywh, got {tuple(logits.shape)} and {tuple(boxes.shape)}.")
    if not len(labels):
        raise ValueError("There is no target to match: give a picture with at least one thing.")
    # it says what is wrong
    detr.match(logits[None].float(), boxes[None].float(), [labels], [targets])
    return BoxMatcher(image, labels, targets, logits, boxes)


class BoxMatcher(ipywidgets.HBox):
    """A canvas of targets and predictions, the costs of every pair, and DETR's losses.

    `canvas` is the BoxCanvas: its first boxes are the targets, which stay. Every move computes
    `cost` (q,n), `pairs` (the matching, as (query, target)) and `losses` again, by the library's
    functions. `boxes` are the predictions as they stand: as given until they are moved. For
    scripts: CSS classes "box-matcher", "box-canvas", "box-costs", "box-losses".
    """

    def __init__(self, image: np.ndarray, labels: Tensor, targets: Tensor, logits: Tensor,
                 boxes: Tensor):
        self.image, self.labels = np.asarray(image), labels.cpu()
        self.targets, self.logits, self._given = (
            part.detach().float().cpu() for part in (targets, logits, boxes))
        p, word = self.logits.softmax(-1).max(-1)
        self.said = [(ANSWERS[k], p) for p, k in zip(p.tolist(), word.tolist(), strict=True)]
        n, q = len(labels), len(logits)
        self.canvas = BoxCanvas(
            picture=png(self.image), fixed=list(range(n)),
            boxes=xyxy_from_cxcywh(torch.cat([self.targets, self._given])).tolist(),
            names=_told_apart([ANSWERS[k] for k in labels.tolist()]) + [
                f"{i} {word}" for i, (word, _) in enumerate(self.said)],
            colours=[show.INK] * n + [show.COLOURS[i % len(show.COLOURS)] for i in range(q)],
            label=f"A picture with {n} true boxes, which stay, and {q} predicted ones to move")
        self._first = torch.tensor(self.canvas.boxes[n:])     # as shown: the canvas cuts at edges
        self.costs, self.sums = ipywidgets.HTML(), ipywidgets.HTML()
        self.costs.add_class("box-costs")
        self.sums.add_class("box-losses")
        super().__init__([self.canvas, ipywidgets.VBox([self.costs, self.sums])],
                         layout={"flex_flow": "row wrap", "grid_gap": "0 20px"})
        self.add_class("box-matcher")
        self.canvas.observe(lambda change: self.judge(), "boxes")
        self.judge()

    @property
    def boxes(self) -> Tensor:
        """The predictions as they stand, (q,4) cxcywh."""
        corners = torch.tensor(self.canvas.boxes[len(self.labels):])
        moved = (corners != self._first).any(1, keepdim=True)
        return torch.where(moved, cxcywh_from_xyxy(corners), self._given)

    def judge(self) -> None:
        """Compute costs, matching and losses of the boxes as they stand, and show them."""
        self.cost, self.pairs, self.losses = self.judged(self.boxes)
        self.canvas.links = [[target, len(self.labels) + query] for query, target in self.pairs]
        self.costs.value = self.cost_table()
        self.sums.value = _loss_table(self.losses)

    def judged(self, boxes: Tensor) -> tuple[Tensor, list[tuple[int, int]], dict[str, float]]:
        """Cost (q,n), pairs (query, target) and the three losses for predictions (q,4) cxcywh."""
        from .. import detr

        batch = self.logits[None], boxes[None], [self.labels], [self.targets]
        (rows, cols), = detr.match(*batch)
        cost = detr.matching_cost(self.logits, boxes, self.labels, self.targets)
        losses = {name: float(loss) for name, loss in detr.hungarian_loss(*batch).items()}
        return cost, list(zip(rows.tolist(), cols.tolist(), strict=True)), losses

    def cost_table(self) -> str:
        """Queries in rows, targets in columns, the matched cells marked."""
        names, colours, n = self.canvas.names, self.canvas.colours, len(self.labels)
        owner, rows = dict(self.pairs), []
        for i, (word, p) in enumerate(self.said):
            cells = "".join(f"<td{' class=box-match' * (owner.get(i) == k)}>{_number(cost)}</td>"
                            for k, cost in enumerate(self.cost[i].tolist()))
            wanted = names[owner[i]] if i in owner else ANSWERS[-1]
            rows.append(f'<tr style="--colour: {colours[n + i]}"><th scope=row>'
                        f"<span class=box-swatch>{i}</span></th><td class=box-word>{word} "
                        f"{p:.2f}</td>{cells}<td class=box-word>{wanted}</td></tr>")
        heads = "".join(f"<th scope=col>{name}</th>" for name in names[:n])
        return ("<table class=box-table><caption>Cost of each query for each target; the matching "
                "is framed</caption><thead><tr><th scope=col>query</th><th scope=col "
                f"class=box-word>says</th>{heads}<th scope=col class=box-word>should say</th></tr>"
                f"</thead><tbody>{''.join(rows)}</tbody></table>")

    def still(self) -> show.Picture:
        """The boxes and their costs as they stand, and with the worst-placed one on its target."""
        cost, n = self.cost, len(self.labels)
        query = int(cost.amin(1).argmax())
        target = int(cost[query].argmin())
        moved = self.boxes
        moved[query] = self.targets[target]
        figure = show.Picture(9.8, 3.2)
        axes = figure.subplots(1, 4, width_ratios=(1, .92, 1, .92))
        for k, (title, boxes) in enumerate({
                "as it is": self.boxes,
                f"query {query} moved onto the {self.canvas.names[target]}": moved}.items()):
            cost, pairs, losses = self.judged(boxes)
            corners = [*self.canvas.boxes[:n], *xyxy_from_cxcywh(boxes).tolist()]
            self._draw_boxes(axes[2 * k], title, corners, pairs)
            self._draw_costs(axes[2 * k + 1], cost, pairs, losses)
        return figure

    def _draw_boxes(self, ax, title: str, corners: list, pairs: list[tuple[int, int]]) -> None:
        height, width = self.image.shape[:2]
        ax.imshow(self.image, extent=(0, 1, 1, 0), aspect=height / width)
        ax.set_axis_off()
        ax.set_title(title, fontsize=11, color=show.INK)
        for i, (x0, y0, x1, y1) in enumerate(corners):
            colour, true = self.canvas.colours[i], i < len(self.labels)
            edge = [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0]
            ax.plot(*edge, color="white", lw=3, alpha=.8)
            ax.plot(*edge, color=colour, lw=1.5, ls="-" if true else (0, (3, 1.5)))
            under = sum(abs(x0 - x) < .25 and abs(y1 - y) < .05
                        for x, _, _, y in corners[len(self.labels):i])      # names there already
            y = y0 - .01 if true else y1 + .015 - .09 * under
            ax.text(x0, y, self.canvas.names[i], fontsize=8, color="white", clip_on=True,
                    va="bottom" if true else "top",
                    bbox={"facecolor": colour, "pad": 1, "lw": 0})
        for query, target in pairs:
            ends = [corners[target], corners[len(self.labels) + query]]
            ax.plot([(x0 + x1) / 2 for x0, _, x1, _ in ends],
                    [(y0 + y1) / 2 for _, y0, _, y1 in ends], "o-", ms=3, lw=1,
                    color=self.canvas.colours[len(self.labels) + query])

    def _draw_costs(self, ax, cost: Tensor, pairs: list[tuple[int, int]],
                    losses: dict[str, float]) -> None:
        q, n = cost.shape
        ax.set(xlim=(-1, n - .4), ylim=(q + 1.6, -1), xticks=[], yticks=[])
        ax.set_axis_off()
        for k in range(n):
            ax.text(k, -.6, self.canvas.names[k], ha="center", fontsize=10, color=show.INK)
        for i in range(q):
            colour = self.canvas.colours[n + i]
            ax.text(-.8, i, f"{i}", ha="center", va="center", fontsize=10, color="white",
                    bbox={"facecolor": colour, "pad": 2, "lw": 0})
            for k in range(n):
                frame = {"facecolor": "white", "edgecolor": colour, "pad": 2.5, "lw": 1.5}
                ax.text(k, i, _number(float(cost[i, k])), ha="center", va="center", fontsize=10,
                        color=show.INK, bbox=frame if (i, k) in pairs else None)
        for row, (name, value) in enumerate(chain(losses.items(), [("sum", _total(losses))])):
            ax.text(-1, q + .1 + .5 * row, name, fontsize=9, color=show.INK)
            ax.text(n - .6, q + .1 + .5 * row, _number(value), fontsize=9, color=show.INK,
                    ha="right")

    def _repr_mimebundle_(self, **named):
        """The live canvas, and for pages without it a still of what it does."""
        still = base64.b64encode(self.still()._repr_png_()).decode()
        return super()._repr_mimebundle_(**named) | {
            "text/plain": "Predicted boxes to drag, their matching costs and losses (they move "
                          "where a kernel runs).",
            "image/png": still}


def _told_apart(words: list[str]) -> list[str]:
    """The words, with a letter after each that comes more than once."""
    return [word if words.count(word) == 1 else f"{word} {chr(97 + words[:i].count(word))}"
            for i, word in enumerate(words)]


def _number(value: float) -> str:
    """A number as a table shows it: two places and a true minus."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _total(losses: dict[str, float]) -> float:
    """The weighted sum of the three losses."""
    from .. import detr

    return sum(detr.WEIGHTS[name] * loss for name, loss in losses.items())


def _loss_table(losses: dict[str, float]) -> str:
    """Each loss, its weight and their product, and the sum of these."""
    from .. import detr

    rows = "".join(f"<tr><th scope=row class=box-word>{name}</th><td>{_number(loss)}</td><td>"
                   f"\N{MULTIPLICATION SIGN} {detr.WEIGHTS[name]:g}</td>"
                   f"<td>{_number(detr.WEIGHTS[name] * loss)}</td></tr>"
                   for name, loss in losses.items())
    return ("<table class=box-table><caption>Loss under this matching</caption><tbody>"
            f"{rows}<tr class=box-sum><th scope=row class=box-word>weighted sum</th><td></td>"
            f"<td></td><td>{_number(_total(losses))}</td></tr></tbody></table>")


def _own_scene() -> tuple[np.ndarray, Tensor, Tensor, Tensor, Tensor]:
    """A picture, its labels and targets, and four answers to them, made by hand."""
    scene = world.scene(world.seeds("grounding-val", 1, FIRST_MATCH)[0])
    drawn = world.render(scene, 192)
    targets = cxcywh_from_xyxy(torch.tensor(world.boxes(scene, drawn.ids)))
    words = [thing.category for thing in scene.things]
    said = [(words[0], .92), (words[1], .85), ("mushroom", .7), (words[2], .8)]
    logits = torch.stack([_sure(word, p) for word, p in said])
    mistakes = torch.tensor([[.01, -.01, .02, 0], [-.01, .01, 0, .02], [.01, .01, .02, -.01],
                             [-.3, -.02, .01, .01]])
    return drawn.image, torch.tensor([BASE.index(word) for word in words]), targets, logits, (
        targets[[0, 1, 2, 2]] + mistakes)


def _sure(word: str, p: float) -> Tensor:
    """Logits (C+1,) that give one word the probability p, and all others the same."""
    others = torch.full((len(ANSWERS),), (1 - p) / (len(ANSWERS) - 1))
    others[ANSWERS.index(word)] = p
    return others.log()
