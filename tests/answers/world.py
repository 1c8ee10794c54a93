"""What people answer to the exercises of lesson 0."""

import numpy as np
import torch

from gligen_lessons.boxes import area
from gligen_lessons.world.backdrop import THING_ID

# --- xyxy_from_cxcywh


def the_whole_width(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - w, cy - h, cx + w, cy + h], -1)


def centre_for_corner(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx, cy, cx + w, cy + h], -1)


def left_right_top_bottom(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2], -1)


def height_for_width(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - h / 2, cy - w / 2, cx + h / 2, cy + w / 2], -1)


def xywh(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, w, h], -1)


def stacked_in_front(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def flat_boxes_only(boxes):
    cx, cy, w, h = (boxes[:, k] for k in range(4))
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)


def corners_by_slices(boxes):
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def corners_by_a_matrix(boxes):
    turn = torch.tensor([[1, 0, -.5, 0], [0, 1, 0, -.5], [1, 0, .5, 0], [0, 1, 0, .5]])
    return boxes @ turn.T


def corners_in_place(boxes):
    boxes[..., :2] -= boxes[..., 2:] / 2
    boxes[..., 2:] += boxes[..., :2]
    return boxes


# --- boxes


def seen(scene, ids, first=THING_ID, end=1, unit=None):
    """Visible boxes with the usual mistakes as options."""
    found = np.zeros((len(scene.things), 4))
    for i in range(len(found)):
        ys, xs = np.nonzero(ids == first + i)
        if len(ys):
            found[i] = xs.min(), ys.min(), xs.max() + end, ys.max() + end
    return found / (unit or len(ids))


def in_pixels(scene, ids):
    return seen(scene, ids, unit=1)


def rows_for_columns(scene, ids):
    return seen(scene, ids.T)


def last_pixel_lost(scene, ids):
    return seen(scene, ids, end=0)


def ids_from_zero(scene, ids):
    return seen(scene, ids, first=0)


def left_top_width_height(scene, ids):
    found = seen(scene, ids)
    found[:, 2:] -= found[:, :2]
    return found


def hidden_left_out(scene, ids):
    found = seen(scene, ids)
    return found[found.any(1)]


def hidden_stops_it(scene, ids):
    found = []
    for i in range(len(scene.things)):
        ys, xs = np.nonzero(ids == THING_ID + i)
        found.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    return np.array(found, np.float32) / len(ids)


def boxes_of_other_things(scene, ids):
    return np.array([seen(scene, ids)[i + 1] for i in range(len(scene.things))])


def one_more_everywhere(scene, ids):
    found = seen(scene, ids)
    found[found.any(1), :2] += 1 / len(ids)
    return found


def whole_numbers(scene, ids):
    return seen(scene, ids).astype(int)


def whole_frames(scene, ids):
    return np.array([[t.x - t.width / 2, t.y - t.size, t.x + t.width / 2, t.y]
                     for t in scene.things], np.float32)


def boxes_without_return(scene, ids):
    seen(scene, ids)


def boxes_in_a_list(scene, ids):
    return seen(scene, ids).tolist()


def boxes_by_masks(scene, ids):
    found = []
    for mask in ids[None] == (THING_ID + np.arange(len(scene.things)))[:, None, None]:
        if not mask.any():
            found.append(np.zeros(4))
            continue
        top, left = mask.any(1).argmax(), mask.any(0).argmax()
        bottom = len(mask) - mask.any(1)[::-1].argmax()
        right = len(mask) - mask.any(0)[::-1].argmax()
        found.append(np.array([left, top, right, bottom]) / len(mask))
    return np.stack(found).astype(np.float32)


# --- phrase


def with_an_article(thing, colour=True, pattern=True):
    return "a " + spelled_out(thing, colour, pattern)


def colour_first(thing, colour=True, pattern=True):
    words = [thing.colour] if colour else []
    words += [thing.pattern] if pattern and thing.pattern != "plain" else []
    return " ".join([*words, thing.category])


def plain_is_said(thing, colour=True, pattern=True):
    return f"{thing.pattern} {thing.colour} {thing.category}"


def switches_forgotten(thing, colour=True, pattern=True):
    return spelled_out(thing)


def a_coloured_person(thing, colour=True, pattern=True):
    words = [thing.pattern] if pattern and thing.pattern != "plain" else []
    words += [thing.colour] if colour else []
    return " ".join([*words, thing.category])


def person_in_nothing(thing, colour=True, pattern=True):
    words = spelled_out(thing, colour, pattern)
    return "person in " if words == "person" else words


def spaces_for_missing_words(thing, colour=True, pattern=True):
    dress = thing.pattern if pattern and thing.pattern != "plain" else ""
    return f"{dress} {thing.colour if colour else ''} {thing.category}"


def no_phrase(thing, colour=True, pattern=True):
    return None


def spelled_out(thing, colour=True, pattern=True):
    text = thing.colour if colour else ""
    if pattern and thing.pattern != "plain":
        text = f"{thing.pattern} {text}"
    text = text.strip()
    if thing.category != "person":
        return f"{text} {thing.category}".strip()
    return f"person in {text}" if text else "person"


def by_filter(thing, colour=True, pattern=True):
    shown = {"striped", "spotted", "checked"} & {thing.pattern}
    words = list(filter(None, [*(shown if pattern else ()), colour and thing.colour]))
    if thing.category == "person":
        return " ".join(["person", *(["in", *words] if words else [])])
    return " ".join(words + [thing.category])


# --- iou


def shared_area(a, b):
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    return (high - low).clamp(min=0).prod(-1)


def no_clamp(a, b):
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).prod(-1)
    union = area(a)[:, None] + area(b) - shared
    return shared / union, union


def clamp_after_the_product(a, b):
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).prod(-1).clamp(min=0)
    union = area(a)[:, None] + area(b) - shared
    return shared / union, union


def shared_twice(a, b):
    both = area(a)[:, None] + area(b)
    return shared_area(a, b) / both, both


def frame_for_union(a, b):
    low, high = torch.minimum(a[:, None, :2], b[:, :2]), torch.maximum(a[:, None, 2:], b[:, 2:])
    frame = (high - low).prod(-1)
    return shared_area(a, b) / frame, frame


def smaller_for_union(a, b):
    shared = shared_area(a, b)
    smaller = torch.minimum(area(a)[:, None], area(b))
    return shared / smaller, area(a)[:, None] + area(b) - shared


def only_iou(a, b):
    return pair_by_pair(a, b)[0]


def wrong_way_round(a, b):
    return tuple(part.T for part in pair_by_pair(a, b))


def nothing_by_nothing(a, b):
    shared = shared_area(a, b)
    union = area(a)[:, None] + area(b) - shared
    return shared / union, union


def union_first(a, b):
    return pair_by_pair(a, b)[::-1]


def minimum_for_maximum(a, b):
    low, high = torch.minimum(a[:, None, :2], b[:, :2]), torch.maximum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = area(a)[:, None] + area(b) - shared
    return shared / union.clamp(min=1e-9), union


def guarded_at_one(a, b):
    shared = shared_area(a, b)
    union = (area(a)[:, None] + area(b) - shared).clamp(min=1)
    return shared / union, union


def pair_by_pair(a, b):
    found, union = torch.zeros(len(a), len(b)), torch.zeros(len(a), len(b))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            w = min(p[2], q[2]) - max(p[0], q[0])
            h = min(p[3], q[3]) - max(p[1], q[1])
            shared = max(w, torch.tensor(0.)) * max(h, torch.tensor(0.))
            union[i, j] = area(p) + area(q) - shared
            found[i, j] = shared / union[i, j] if union[i, j] > 0 else 0
    return found, union


def broadcast(a, b):
    shared = shared_area(a, b)
    union = area(a).unsqueeze(1) + area(b).unsqueeze(0) - shared
    return (shared / union).nan_to_num(), union


WRONG = {
    "xyxy_from_cxcywh": [
        (the_whole_width, "half the width"), (centre_for_corner, "they are the centre"),
        (left_right_top_bottom, "left, top, right, bottom"), (height_for_width, "swapped"),
        (xywh, "not width and height"), (stacked_in_front, "shape (4, 2, 3)"),
        (flat_boxes_only, "stopped with IndexError")],
    "boxes": [
        (in_pixels, "these are pixels"), (rows_for_columns, "rows and columns are swapped"),
        (last_pixel_lost, "index + 1"), (ids_from_zero, "start at THING_ID"),
        (left_top_width_height, "not width and height"), (hidden_left_out, "keeps its row"),
        (hidden_stops_it, "Leave its row at zero"),
        (boxes_of_other_things, "stopped with IndexError"),
        (one_more_everywhere, "Only the last index"), (whole_numbers, "whole numbers"),
        (whole_frames, "frame of the whole thing"),
        (boxes_without_return, "returned None")],
    "phrase": [
        (with_an_article, "no article"), (colour_first, "the order is pattern, colour"),
        (plain_is_said, "nobody says plain"), (switches_forgotten, "switch colour=False"),
        (a_coloured_person, "a person wears"), (person_in_nothing, "a space too many"),
        (spaces_for_missing_words, "a space too many"), (no_phrase, "return it")],
    "iou": [
        (no_clamp, "share nothing"), (clamp_after_the_product, "before you multiply: two"),
        (shared_twice, "counted twice"), (frame_for_union, "frame around both"),
        (smaller_for_union, "smaller area"), (only_iou, "return two"),
        (wrong_way_round, "shape (4, 3)"), (nothing_by_nothing, "boxes of no area"),
        (union_first, "IoU first"), (minimum_for_maximum, "are exchanged"),
        (guarded_at_one, "must be tiny")],
}
RIGHT = {
    "xyxy_from_cxcywh": [corners_by_slices, corners_by_a_matrix, corners_in_place],
    "boxes": [seen, boxes_in_a_list, boxes_by_masks],
    "phrase": [spelled_out, by_filter],
    "iou": [pair_by_pair, broadcast],
}
