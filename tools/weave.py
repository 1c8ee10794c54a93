"""Write the library's text into the notebook cells that name it, so that no copy is hand-kept.

    python tools/weave.py [NOTEBOOK ...]            write into the cells
    python tools/weave.py --check [NOTEBOOK ...]    change nothing, list what differs, exit 1

A cell asks for it in its metadata: {"weave": "gligen_lessons.ddpm:q_sample"}, a method as
"gligen_lessons.unet:UNet.forward", several definitions as a list. With {"exercise": {"difficulty":
2, "minutes": 5, "points": 2}} beside it, the (last) definition becomes an exercise: nbgrader's
solution marks stand around its body (of a class: around every method's, or only those listed as
"open"), and the cell after it is its check. Sources are read, never imported.
"""

import argparse
import ast
import difflib
import re
import sys
import textwrap
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


class WeaveError(ValueError):
    """A cell asks for something that cannot be woven."""


def targets(cell) -> list[str]:
    """The definitions that a cell asks for, in order; an empty list for an ordinary cell."""
    requested = cell.metadata.get("weave", [])
    return [requested] if isinstance(requested, str) else list(requested)


def name_of(target: str) -> str:
    """The name that a woven definition has in the notebook: the last part of its address."""
    return re.split(r"[:.]", target)[-1]


def names(node: ast.stmt) -> list[str]:
    """The names that one statement defines: a function, a class, or a constant."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    assigned = {ast.Assign: lambda n: n.targets, ast.AnnAssign: lambda n: [n.target]}
    found = assigned.get(type(node), lambda n: [])(node)
    return [target.id for target in found if isinstance(target, ast.Name)]


def module_file(module: str, root: Path = ROOT) -> Path:
    """The file of a module under `root`, or a WeaveError that names both places looked at."""
    path = root.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    raise WeaveError(f"there is no module {module}: looked for {path.with_suffix('.py')} and "
                     f"{path / '__init__.py'}.")


def first_line(node: ast.stmt) -> int:
    """The line, counted from 1, on which a statement begins, its decorators included."""
    return min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])


def source_of(target: str, root: Path = ROOT) -> str:
    """The library's text of "module:name" or "module:Class.method", dedented, decorators included.

    Raises WeaveError when the address is malformed or nothing of that name is defined there (an
    imported name has its home elsewhere).
    """
    module, colon, dotted = target.partition(":")
    if not colon or not dotted:
        raise WeaveError(f"{target!r} is not an address: write 'module:name'.")
    file = module_file(module, root)
    text = file.read_text(encoding="utf-8")
    body, node = ast.parse(text).body, None
    for name in dotted.split("."):
        node = next((n for n in reversed(body) if name in names(n)), None)
        if node is None:
            raise WeaveError(f"{target}: {file.name} does not define {name!r}; name the module "
                             "that does.")
        body = getattr(node, "body", [])
    lines = text.splitlines()[first_line(node) - 1:node.end_lineno]
    return textwrap.dedent("\n".join(lines))


def body_start(function: ast.FunctionDef, lines: list[str]) -> int:
    """The line, counted from 0, where a function's body begins, below its docstring."""
    first = function.body[0]
    if function.lineno == first.lineno:
        raise WeaveError(f"{function.name} has no body below its first line to leave open.")
    start = first.end_lineno
    if ast.get_docstring(function) is None:
        start = first_line(first) - 1
        while lines[start - 1].strip()[:1] in ("", "#"):           # a comment opens the body
            start -= 1
    while start < function.end_lineno and not lines[start].strip():
        start += 1
    return start


def functions(node: ast.stmt, only: list[str]) -> list[ast.FunctionDef]:
    """The functions whose bodies a learner writes: the function, or a class's methods."""
    methods = [node] if isinstance(node, ast.FunctionDef) else getattr(node, "body", [])
    found = {n.name: n for n in methods if isinstance(n, ast.FunctionDef)}
    missing = [name for name in only if name not in found]
    if missing or not found:
        raise WeaveError("an exercise must be a function or a class with methods; "
                         f"found {list(found)}, asked for {only or 'all'}.")
    return [found[name] for name in found if not only or name in only]


def opened(source: str, only: list[str] = ()) -> str:
    """One definition's text with solution marks around its body, or around its methods' bodies."""
    lines, definition = source.splitlines(), ast.parse(source).body[0]
    found = functions(definition, list(only))
    for function in reversed(found):
        start, end = body_start(function, lines), function.end_lineno
        if start >= end:
            raise WeaveError(f"{function.name} has no body below its docstring to leave open.")
        indent = " " * function.body[0].col_offset
        lines[start:end] = [indent + BEGIN, *lines[start:end], indent + END]
    return "\n".join(lines)


def woven(cell, root: Path = ROOT) -> str:
    """The text that a cell must hold."""
    parts = [source_of(target, root) for target in targets(cell)]
    if "exercise" in cell.metadata:
        parts[-1] = opened(parts[-1], cell.metadata["exercise"].get("open", ()))
    return "\n\n\n".join(parts)


def grading(name: str, points: float | None = None) -> dict:
    """nbgrader's metadata (schema 3): of an answer, or, with `points`, of the check after it."""
    check = points is not None
    data = {"schema_version": 3, "grade": check, "solution": not check, "locked": check,
            "task": False, "grade_id": f"{name}-check" if check else name}
    return data | ({"points": points} if check else {})


def check_line(target: str) -> str:
    """The one line that the cell after an exercise holds."""
    name = name_of(target)
    return f"{name} = checks.{name}({name})"


def expected(notebook, root: Path = ROOT):
    """For each code cell: (cell, target or "", source, nbgrader metadata or None) as they must be.

    Text cells are left alone. Raises WeaveError that names the cell.
    """
    after = None                                       # (target, points) of the exercise just seen
    for cell in notebook.cells:
        requested, grade, source = targets(cell), None, cell.source
        try:
            if after and cell.source.strip() != check_line(after[0]):
                raise WeaveError(f"the cell after an exercise must read {check_line(after[0])!r}.")
            if after:
                grade = grading(name_of(after[0]), after[1])
            after = None
            if requested:
                source = woven(cell, root)
            if "exercise" in cell.metadata and cell.cell_type == "code":
                if not requested:
                    raise WeaveError("an exercise must be woven from the library.")
                grade = grading(name_of(requested[-1]))
                after = (requested[-1], cell.metadata["exercise"].get("points", 0))
        except WeaveError as error:
            raise WeaveError(f"cell {cell.get('id')}: {error}") from None
        if cell.cell_type == "code":
            yield cell, ", ".join(requested), source, grade
    if after:
        raise WeaveError(f"the last cell is an exercise; add its check {check_line(after[0])!r}.")


def weave(notebook, root: Path = ROOT) -> list[str]:
    """Bring a notebook's woven cells up to date, in place; returns one note for each difference."""
    notes = []
    for cell, target, source, grade in list(expected(notebook, root)):
        if source != cell.source:
            diff = difflib.unified_diff(cell.source.splitlines(), source.splitlines(),
                                        "notebook", "library", n=1, lineterm="")
            notes.append("\n    ".join([f"cell {cell.get('id')}, {target}", *list(diff)[:14]]))
            cell.source = source
        if grade != cell.metadata.get("nbgrader"):
            notes.append(f"cell {cell.get('id')}: nbgrader's metadata")
            cell.metadata.pop("nbgrader", None)
            cell.metadata.update({"nbgrader": grade} if grade else {})
    return notes


def weave_file(path: Path, check: bool, root: Path = ROOT) -> list[str]:
    """Weave one notebook file; with `check_boxes` it is only compared. Returns the differences."""
    try:
        notebook = nbformat.read(path, as_version=4)
        notes = weave(notebook, root)
    except (WeaveError, nbformat.reader.NotJSONError) as error:
        raise WeaveError(f"{path.name}: {error}") from None
    if notes and not check:
        nbformat.write(notebook, path)
    return [f"{path.name}, {note}" for note in notes]


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the library's text into the notebooks.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    options = parser.parse_args(argv)
    notes = []
    for path in options.notebooks or sorted((root / "notebooks").glob("*.ipynb")):
        try:
            notes += weave_file(path, options.check, root)
        except (WeaveError, OSError) as error:
            print(f"weave: {error}", file=sys.stderr)
            return 1
    print("\n".join(notes or ["every woven cell equals the library's text"]))
    if notes and options.check:
        print("Mend the library, not the notebook, then run: python tools/weave.py")
    return 1 if notes and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
