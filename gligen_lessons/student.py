"""The learner's version of the notebooks: exercises open, outputs gone, checks kept."""

import copy
import hashlib
import os
import re
import shutil
from pathlib import Path

import nbformat

STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
REGION = re.compile(r"^([ \t]*)[^\n]*BEGIN SOLUTION[^\n]*\n.*?END SOLUTION[^\n]*$", re.M | re.S)


def open_exercise(source: str) -> str:
    """Replace each marked solution by the stub, as nbgrader's ClearSolutions does.

    Raises ValueError when the text holds no solution, or marks that do not pair up.
    """
    stub = r"\1" + r"\n\1".join(STUB)
    text, found = REGION.subn(stub, source)
    if not found or "BEGIN SOLUTION" in text or "END SOLUTION" in text:
        raise ValueError("the solution marks are missing or do not pair up; run tools/weave.py.")
    return text


def opened(notebook):
    """A copy of a solved notebook with every exercise open, without outputs and teaching notes."""
    mine = copy.deepcopy(notebook)
    mine.metadata.pop("widgets", None)                 # the state of sliders is output, too
    for cell in mine.cells:
        for key in ("notes", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = open_exercise(cell.source)
        elif "BEGIN SOLUTION" in cell.source:
            raise ValueError(f"cell {cell.get('id')} holds a solution but is not an exercise.")
    return mine


def version(notebook) -> str:
    """Eight letters that change when the code of a lesson changes (not when its prose does)."""
    code = "\0".join(c.source for c in notebook.cells if c.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:8]


def made_from(path: Path) -> str | None:
    """The version of the lesson that a learner's notebook was made from, None when it says none."""
    try:
        return nbformat.read(path, as_version=4).metadata.get("made_from")
    except Exception:                                  # the learner's own file, whatever it holds
        return None


def place(target: Path, name: str, made: str) -> Path | None:
    """Where a lesson goes: under its name, or beside a learner's older copy; None when there."""
    free = target / name
    if free.exists() and made_from(free) != made:
        free = free.with_name(f"{free.stem}.{made}.ipynb")
    return None if free.exists() else free


def put(path: Path, write) -> Path:
    """Let `write(part)` fill a file beside `path`, then give it its name: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def make(notebooks: Path, target: Path) -> list[Path]:
    """Make the learner's version of the folder `notebooks` in `target`; returns the new files.

    A file that is already there is never touched: a lesson whose code changed since is put beside
    it as NAME.VERSION.ipynb. NOTATION.md and files that a notebook mentions by name come along.
    Raises FileNotFoundError without notebooks, ValueError for one whose marks are broken.
    """
    notebooks, target = Path(notebooks), Path(target)
    lessons = sorted(notebooks.glob("*.ipynb"))
    if not lessons:
        raise FileNotFoundError(f"There are no notebooks in {notebooks}: give the course's folder "
                                "'notebooks'.")
    new, text = [], "NOTATION.md"
    for lesson in lessons:
        try:
            mine = opened(nbformat.read(lesson, as_version=4))
        except ValueError as error:
            raise ValueError(f"{lesson.name}: {error}") from None
        text += "\n".join(cell.source for cell in mine.cells)
        mine.metadata["made_from"] = made = version(mine)
        if path := place(target, lesson.name, made):
            new.append(put(path, lambda part, mine=mine: nbformat.write(mine, part)))
    for file in sorted(f for f in notebooks.rglob("*") if f.is_file() and f not in lessons):
        path = target / file.relative_to(notebooks)
        if file.relative_to(notebooks).as_posix() in text and not path.exists():
            new.append(put(path, lambda part, file=file: shutil.copyfile(file, part)))
    return new
