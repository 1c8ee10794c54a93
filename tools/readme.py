"""Write README's list of lessons from the curriculum and the notebooks' own metadata.

    python tools/readme.py            write it
    python tools/readme.py --check    change nothing, exit 1 if it differs
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gligen_lessons import curriculum  # noqa: E402

ROWS = re.compile(r"(?:^\| \[\d\d_.*\|\n)+", re.M)
RANGE = re.compile(r"(?i)(lessons )0 to \d+(?:(?:, | and )\d+(?: to \d+)?)*")


def renewed(text: str, notebooks: list[Path]) -> str:
    """README's text with the rows and numbers that the notebooks give."""
    rows = [curriculum.row(path.stem, nbformat.read(path, 4).metadata["course"]) + "\n"
            for path in notebooks]
    text = ROWS.sub(lambda _: "".join(rows), text, count=1)
    return RANGE.sub(rf"\g<1>{ranges([int(path.name[:2]) for path in notebooks])}", text)


def ranges(numbers: list[int]) -> str:
    """Rising numbers in words: "0 to 10, 12 and 13"."""
    parts = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1 and (len(parts[-1]) > 1 or number + 1 in numbers):
            parts[-1].append(number)
        else:
            parts.append([number])
    words = [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check, file = parser.parse_args(arguments).check, ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    new = renewed(text, sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")))
    if check:
        print("README.md is up to date" if new == text else "README.md: run tools/readme.py")
        return int(new != text)
    file.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
