"""Print the table of speeds; exit 1 where a bar is missed."""

import subprocess
import sys
from statistics import median

from gligen_lessons import device

from . import detection, editing, grounding, nets, text_to_image
from .world import scenes_per_second

BAR, WHOLE_BAR, MATCHER_BAR, CONTROL_BAR = .97, 1., 1.5, .5
LONGEST = {"DiffEdit": 10, "Prompt-to-Prompt": 15}        # seconds of one edit, on two cores


def import_cost(rounds: int = 7) -> float:
    """Seconds that `import gligen_lessons` adds to `import torch`, the median of fresh starts."""
    code = ("import time, torch; s = time.perf_counter(); import gligen_lessons; "
            "print(time.perf_counter() - s)")
    return median(float(subprocess.run([sys.executable, "-c", code], capture_output=True,
                                       text=True, check=True).stdout) for _ in range(rounds))


def main() -> int:
    """Measure everything; our speed as a ratio to theirs, above 1 is faster."""
    print(f"device: {device.pick()}\n\n| what | ratio | theirs, s | ours, s | bar | |")
    print("|---|---|---|---|---|---|")
    missed = 0
    detector, matcher = detection.detection_rows()
    rows = [(*row, BAR) for row in (*nets.unet_rows(), *nets.loop_rows(),
                                    *text_to_image.part_rows(), *detector,
                                    *grounding.step_rows())]
    edits = editing.whole_row(), editing.control_row()
    rows += [(*row, WHOLE_BAR) for row in (*text_to_image.whole_rows(), *grounding.whole_rows(),
                                           edits[0])]
    rows += [(*edits[1], CONTROL_BAR), (*matcher, MATCHER_BAR)]
    for name, faster, theirs, ours, bar in rows:
        missed += faster < bar
        print(f"| {name} | {faster:.2f} | {theirs:.4f} | {ours:.4f} | {bar} "
              f"| {verdict(faster >= bar)} |")
    for (name, most), (*_, ours) in zip(LONGEST.items(), edits, strict=True):
        missed += ours > most
        print(f"| {name}, s an edit | | | {ours:.1f} | {most} | {verdict(ours <= most)} |")
    speed, cost = scenes_per_second(), import_cost()
    missed += (speed < 200) + (cost > .3)
    print(f"| scenes a second, one core | {speed:.0f} | | | 200 | {verdict(speed >= 200)} |")
    print(f"| import, s over torch | {cost:.3f} | | | 0.3 | {verdict(cost <= .3)} |")
    return int(missed > 0)


def verdict(holds: bool) -> str:
    return "holds" if holds else "missed"


if __name__ == "__main__":
    sys.exit(main())
