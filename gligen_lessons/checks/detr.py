"""Checks of lesson 7: those of the network's answers here, the others in three files beside it."""

from .. import boxes as own_boxes
from .. import detr as reference
from . import Wrong, exercise, expect_close, looks_like
from ._detr_boxes import brute_force_assignment, giou, some_answers
from ._detr_loss import detection_loss, hungarian_loss, match, matching_cost
from ._detr_network import DetrAttention, DetrDecoderLayer, sine_positions

__all__ = ["DetrAttention", "DetrDecoderLayer", "brute_force_assignment", "detection_loss", "giou",
           "hungarian_loss", "match", "matching_cost", "postprocess", "sine_positions"]


@exercise("gligen_lessons.detr:postprocess")
def postprocess(attempt):
    """Three pictures, one without anything to keep."""
    logits, boxes = some_answers(3, 8)
    logits[1, :, -1] = 9.
    p = logits.softmax(-1)
    scores, labels = p[..., :-1].max(-1)
    for threshold in (.55, 0.):
        told = attempt(logits.clone(), boxes.clone(), threshold)
        if not isinstance(told, list) or len(told) != 3:
            raise Wrong("Return a list with one Detections for each picture.")
        for i, one in enumerate(told):
            if not isinstance(one, reference.Detections):
                raise Wrong("Each picture's answers come as `Detections(scores, labels, "
                            "boxes_xyxy, queries)`.")
            expect_kept(i, one, threshold, logits[i], boxes[i], scores[i], labels[i])
    return "keeps the right answers of 3 pictures, at 2 thresholds"


def expect_kept(i: int, told, threshold: float, logits, boxes, scores, labels) -> None:
    """Refuse detections of picture i that are not the right ones, with the reason."""
    queries = (scores > threshold).nonzero().flatten()
    p, found = logits.softmax(-1), told.queries.tolist()
    argmax = ((p.argmax(-1) < p.shape[-1] - 1) & (scores > threshold)).nonzero().flatten()
    others = logits[:, :-1].softmax(-1).max(-1).values
    if found != queries.tolist() and sorted(found) == queries.tolist():
        raise Wrong("They are sorted by score. Keep the order of the queries.")
    if found != queries.tolist() and found == argmax.tolist():
        raise Wrong("Where 'nothing' is the most probable class, the answer is dropped. Leave "
                    "'nothing' out of the choice; only the threshold decides.")
    if found == list(range(len(scores))) != queries.tolist() and float(others.min()) < threshold:
        raise Wrong("Every answer is kept. Only those surer than the threshold remain.")
    if found == (others > threshold).nonzero().flatten().tolist() != queries.tolist():
        raise Wrong("The softmax leaves 'nothing' out, so every query is sure of something. "
                    "Softmax over all classes, then drop the last.")
    if found == (p.max(-1).values > threshold).nonzero().flatten().tolist() != queries.tolist():
        raise Wrong("'Nothing' is taken for a thing here: drop the last class before the max.")
    if found != queries.tolist():
        raise Wrong(f"Picture {i} at threshold {threshold}: queries {queries.tolist()} are surer "
                    f"than that, not {found}.")
    if len(queries):
        looks_like(told.boxes_xyxy, {"The boxes are still centre and size: turn them into "
                                     "corners.": boxes[queries]})
        looks_like(told.scores, {"The softmax leaves 'nothing' out. It takes its share too.":
                                 others[queries]})
    want = scores[queries], labels[queries], own_boxes.xyxy_from_cxcywh(boxes)[queries]
    expect_close((told.scores, told.labels, told.boxes_xyxy), want, f"Picture {i}: scores, labels "
                 "and corners of the kept queries, in their order.")
