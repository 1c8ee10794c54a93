"""The stages of `course.py test`: lint, weave, tests, and every notebook in both versions.

All stages run, whatever the earlier ones found; the exit code is 1 if one of them failed.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# what makes pytest run a part of the tests only
SELECTING = ("-k", "-m", "--lf", "--last-failed", "--deselect", "--pyargs")


def selects(words: list[str]) -> bool:
    """Do these pytest options pick tests? Then the notebooks are not wanted."""
    return any(word.startswith(SELECTING) or (ROOT / word.split("::")[0]).exists()
               for word in words)


def stages(words: list[str], student: Path) -> list[tuple[str, list, dict]]:
    """The stages as (name, commands for Python, extra environment); `words` go to the tests."""
    pytest = ["-m", "pytest", "-n", "2", "--dist", "loadfile"]
    nbval = [*pytest, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "300",
             "--nbval-sanitize-with", "tests/nbval_sanitize.cfg"]
    make_student = ["-m", "gligen_lessons.cli", "student", "--out", str(student)]
    listed = [("lint", [["-m", "ruff", "check", "."]], {}),
              ("weave", [["tools/weave.py", "--check"]], {}),
              ("tests", [pytest + words], {})]
    if not selects(words):
        listed += [("notebooks, solved", [[*nbval, "notebooks"]], {}),
                   ("notebooks, exercises open", [make_student, [*nbval, str(student)]],
                    {"GLIGEN_LESSONS_DIAL": "small"})]
    return listed


def run(commands: list[list[str]], extra: dict[str, str]) -> bool:
    """True when every command ended well. Two workers share the cores: one thread for each."""
    env = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONSAFEPATH="", **extra)
    return all(subprocess.call([sys.executable, *command], cwd=ROOT, env=env) == 0
               for command in commands)


def table(rows: list[tuple[str, bool, float]]) -> str:
    """One line for each stage and a last line that counts them."""
    lines = [f"{name:28s}{'passed' if good else 'FAILED'} {seconds:7.1f} s"
             for name, good, seconds in rows]
    good = sum(row[1] for row in rows)
    return "\n".join([*lines, f"{good} passed, {len(rows) - good} failed"])


def main(words: list[str]) -> int:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        listed = stages(words, Path(folder) / "my_course")
        for number, (name, commands, extra) in enumerate(listed, 1):
            print(f"\n=== {number}/{len(listed)} {name}", flush=True)
            started = time.monotonic()
            rows.append((name, run(commands, extra), time.monotonic() - started))
    print(f"\n=== summary\n{table(rows)}", flush=True)
    return 0 if all(good for _, good, _ in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
