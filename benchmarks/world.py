"""How fast the picture world draws: scenes a second on one core."""

import statistics
import time

BAR = 200                                                 # scenes a second that must be reached


def world(repeats: int = 9, scenes: int = 100, size: int = 128) -> list[dict]:
    """One row for each part of the work and one for all of it, which the bar applies to.

    A row holds `what`, `value` (the median of the repeats), `unit`, `bar` (None where there is
    none) and `passed`. Time is this process's own CPU time: others on the machine do not count.
    """
    from gligen_lessons import world as w

    parts = {
        "scene from its seed": lambda seed, _one, _drawn: w.scene(seed),
        "picture, panoptic ids, depth": lambda _seed, one, _drawn: w.render(one, size),
        "boxes": lambda _seed, one, drawn: w.boxes(one, drawn.ids),
        "five captions": lambda _seed, one, _drawn: w.captions(one),
    }
    times = {what: [] for what in parts}
    for repeat in range(repeats + 1):
        made = [(seed, one := w.scene(seed), w.render(one, size))
                for seed in w.seeds("train", scenes, first=repeat * scenes)]
        for what, part in parts.items():
            start = time.process_time()
            for arguments in made:
                part(*arguments)
            times[what].append((time.process_time() - start) / scenes)
    times = {what: seconds[1:] for what, seconds in times.items()}    # the first filled the caches
    whole = [sum(seconds) for seconds in zip(*times.values(), strict=True)]
    speed = 1 / statistics.median(whole)
    rows = [{"what": what, "value": 1e3 * statistics.median(seconds), "unit": "ms a scene",
             "bar": None, "passed": True} for what, seconds in times.items()]
    return [*rows, {"what": f"world: all of these at {size} px, one core", "value": speed,
                    "unit": "scenes a second", "bar": BAR, "passed": speed >= BAR}]


def scenes_per_second() -> float:
    """Scenes a second on one core, with everything in: the figure that the bar applies to."""
    return world()[-1]["value"]
