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
RANGE = re.compile(r"(?i)(lessons 0 to )\d+")


def renewed(text: str, notebooks: list[Path]) -> str:
    """README's text with the rows and numbers that the notebooks give."""
    rows = [curriculum.row(path.stem, nbformat.read(path, 4).metadata["course"]) + "\n"
            for path in notebooks]
    text = ROWS.sub(lambda _: "".join(rows), text, count=1)
    return RANGE.sub(rf"\g<1>{len(notebooks) - 1}", text)


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
