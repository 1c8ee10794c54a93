"""Person, robot and monkey: one skeleton with COCO's 17 key points, three bodies drawn on it."""

import math

from .pen import Pen
from .scene import Thing
from .things import BLUSH, CREAM, DARK, GLASS, GOLD, STEEL, WOOD
from .vocabulary import KEYPOINTS

SKIN = ((255, 220, 188), (242, 194, 150), (206, 148, 104), (150, 100, 68), (104, 68, 48))
HAIR = ((52, 40, 38), (112, 70, 40), (214, 164, 80), (30, 30, 40), (170, 84, 44))
HEAD = {"person": (.79, .19), "robot": (.78, .19), "monkey": (.77, .2)}       # centre, radius
EAR = {"person": .9, "robot": 1., "monkey": 1.}           # how far out, in radii: on the head
ARM, LEG, SHOULDER, HIP = .155, .15, (.135, .54), (.085, .3)


def skeleton(thing: Thing) -> dict[str, tuple[float, float]]:
    """The 17 key points of a posable thing in its own coordinates (x right, y up, height 1).

    "Left" is the figure's own left, on the picture's right, as COCO has it. The lowest ankle
    stands just above y = 0 whatever the pose.
    """
    a = thing.pose
    points = {}
    for side, word, arm, leg in ((1, "left", a[0:2], a[4:6]), (-1, "right", a[2:4], a[6:8])):
        points |= _limb(side, SHOULDER, arm, ARM, [f"{word}_{p}" for p in
                                                   ("shoulder", "elbow", "wrist")])
        points |= _limb(side, HIP, leg, LEG, [f"{word}_{p}" for p in ("hip", "knee", "ankle")])
        y, r = HEAD[thing.category]
        points |= {f"{word}_ear": (side * r * EAR[thing.category], y),
                   f"{word}_eye": (side * r * .42, y + .02)}
    points["nose"] = (0., HEAD[thing.category][0] - .04)
    return _stand({name: _lean(points[name], a[8]) for name in KEYPOINTS})


def _limb(side, root, angles, length, names) -> dict[str, tuple[float, float]]:
    """Three joints of an arm or leg; angle 0 hangs down, a positive one turns outwards."""
    x, y, turn = side * root[0], root[1], 0.
    joints = {names[0]: (x, y)}
    for name, angle in zip(names[1:], angles, strict=True):
        turn += math.radians(angle)
        x, y = x + side * length * math.sin(turn), y - length * math.cos(turn)
        joints[name] = (x, y)
    return joints


def _lean(point, degrees):
    """The point turned about the middle of the hips, legs staying put."""
    x, y = point[0], point[1] - HIP[1]
    if y <= 0:
        return point
    a = math.radians(degrees)
    return x * math.cos(a) + y * math.sin(a), HIP[1] - x * math.sin(a) + y * math.cos(a)


def _stand(points):
    """The figure lowered or raised until its lowest ankle is at foot height."""
    drop = min(y for name, (_, y) in points.items() if "ankle" in name) - .045
    return {name: (x, y - drop) for name, (x, y) in points.items()}


def _joints(points, word, *parts):
    return [points[f"{word}_{part}"] for part in parts]


def _head(thing: Thing, points) -> tuple[float, float, float]:
    """Centre and radius of the head."""
    (lx, ly), (rx, ry) = points["left_ear"], points["right_ear"]
    return (lx + rx) / 2, (ly + ry) / 2, HEAD[thing.category][1]


def _trunk(points, grow: float):
    """The four corners of the trunk, a little wider than the joints."""
    corners = [points[f"{w}_{p}"] for w, p in (("left", "shoulder"), ("right", "shoulder"),
                                               ("right", "hip"), ("left", "hip"))]
    return [(x + math.copysign(grow, s), y + g) for (x, y), s, g in
            zip(corners, (1, -1, -1, 1), (.05, .05, -.05, -.05), strict=True)]


def person(pen: Pen) -> None:
    points = skeleton(pen.thing)
    pick = int(pen.thing.variant * 4.999)
    skin, hair = SKIN[pick], HAIR[int(pen.thing.variant * 24.99) % 5]
    x, y, r = _head(pen.thing, points)
    if pick % 2:
        pen.oval(x, y - .02, r * 1.12, r * 1.1, hair)
    for word in ("left", "right"):
        legs = _joints(points, word, "hip", "knee", "ankle")
        pen.stroke(legs, .1, "shade")
        side = 1 if word == "left" else -1
        foot = legs[-1]
        pen.oval(foot[0] + side * .025, foot[1] - .005, .075, .04, DARK)
    pen.polygon(_trunk(points, .035))
    for word in ("left", "right"):
        arms = _joints(points, word, "shoulder", "elbow", "wrist")
        pen.stroke(arms, .085)
        pen.oval(*arms[-1], .05, fill=skin)
    pen.oval(x, y, r, r * .98, skin)
    pen.oval(x, y + .01, r * 1.02, r, hair, start=18, stop=162)
    for side in (-1, 1):
        ex, ey = points["left_eye" if side > 0 else "right_eye"]
        pen.oval(ex, ey - .02, .026, .034, DARK, line=False)
        pen.oval(ex + side * .03, ey - .075, .03, .018, BLUSH, line=False)
    nose = points["nose"]
    pen.smile(nose[0], nose[1] - .02, .05)


def robot(pen: Pen) -> None:
    points = skeleton(pen.thing)
    x, y, r = _head(pen.thing, points)
    pen.stroke([(x, y + r), (x, y + r + .04)], .025, STEEL)
    pen.oval(x, y + r + .045, .032, fill=GOLD)
    for word in ("left", "right"):
        legs = _joints(points, word, "hip", "knee", "ankle")
        pen.stroke(legs, .07, STEEL)
        pen.rect(legs[-1][0] - .075, legs[-1][1] - .04, legs[-1][0] + .075, legs[-1][1] + .03,
                 "shade")
    pen.polygon(_trunk(points, .06))
    cx = sum(points[f"{w}_{p}"][0] for w in ("left", "right") for p in ("shoulder", "hip")) / 4
    cy = sum(points[f"{w}_{p}"][1] for w in ("left", "right") for p in ("shoulder", "hip")) / 4
    pen.rect(cx - .09, cy - .04, cx + .09, cy + .06, CREAM)
    pen.oval(cx - .04, cy + .01, .025, fill=(240, 90, 80), line=False)
    pen.oval(cx + .04, cy + .01, .025, fill=(90, 190, 110), line=False)
    for word in ("left", "right"):
        arms = _joints(points, word, "shoulder", "elbow", "wrist")
        pen.stroke(arms, .065, STEEL)
        pen.oval(*arms[0], .055)
        pen.oval(*arms[-1], .055, fill="shade")
    pen.rect(x - .235, y - .16, x + .235, y + .18, round_=.05)
    pen.rect(x - .175, y - .1, x + .175, y + .12, GLASS, round_=.03)
    for word in ("left", "right"):
        ex, ey = points[f"{word}_eye"]
        pen.oval(ex, ey, .036, .046, DARK, line=False)
    pen.smile(points["nose"][0], points["nose"][1] - .005, .055)


def monkey(pen: Pen) -> None:
    points = skeleton(pen.thing)
    hip = points["right_hip"]
    pen.stroke([hip, (hip[0] - .12, hip[1] - .06), (hip[0] - .23, hip[1] + .04),
                (hip[0] - .2, hip[1] + .17), (hip[0] - .12, hip[1] + .14)], .045, "shade")
    x, y, r = _head(pen.thing, points)
    for word in ("left", "right"):
        pen.stroke(_joints(points, word, "hip", "knee", "ankle"), .09)
        foot = points[f"{word}_ankle"]
        pen.oval(foot[0], foot[1] - .005, .07, .04, CREAM)
        ear = points[f"{word}_ear"]
        pen.oval(*ear, .09)
        pen.oval(*ear, .05, fill=CREAM, line=False)
    pen.polygon(_trunk(points, .04))
    mid = [(points[f"left_{p}"][0] + points[f"right_{p}"][0]) / 2 for p in ("shoulder", "hip")]
    pen.oval(sum(mid) / 2, points["left_hip"][1] + .11, .095, .12, CREAM, line=False)
    for word in ("left", "right"):
        arms = _joints(points, word, "shoulder", "elbow", "wrist")
        pen.stroke(arms, .075)
        pen.oval(*arms[-1], .05, fill=CREAM)
    pen.oval(x, y, r, r * .95)
    for side in (-1, 1):
        pen.oval(x + side * .07, y + .02, .085, .09, CREAM, line=False)
    pen.oval(x, y - .075, .145, .095, CREAM, line=False)
    for word in ("left", "right"):
        pen.oval(*points[f"{word}_eye"], .03, .038, DARK, line=False)
    nose = points["nose"]
    pen.oval(nose[0], nose[1], .028, .018, WOOD, line=False)
    pen.smile(nose[0], nose[1] - .025, .06)
