"""Rules on the library's files: size, one home for each definition, nothing forgotten."""

import ast
from pathlib import Path

from tools import layers, weave

MANY = 300                                               # lines of a file that earn a warning
LENGTHS = {"module": 400, "function": 40, "line": 100, "woven line": 88}


def length(function: ast.FunctionDef) -> int:
    """Lines of a function from its `def` to its end, docstring included."""
    return function.end_lineno - function.lineno + 1


def sizes(path: Path) -> list[str]:
    """What is too long in a file: the file, a function, a line."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    if len(lines) > LENGTHS["module"]:
        found.append(f"{path.name}: {len(lines)} lines, at most {LENGTHS['module']}")
    found += [f"{path.name}:{i}: {len(line)} characters, at most {LENGTHS['line']}"
              for i, line in enumerate(lines, 1) if len(line) > LENGTHS["line"]]
    return found + [f"{path.name}:{n.lineno}: {n.name} has {length(n)} lines, at most "
                    f"{LENGTHS['function']}" for n in ast.walk(ast.parse(text))
                    if isinstance(n, ast.FunctionDef) and length(n) > LENGTHS["function"]]


def too_wide(target: str, root: Path = weave.ROOT) -> list[str]:
    """The lines of a woven definition that are too long for a notebook's cell."""
    return [f"{target}: {len(line)} characters, at most {LENGTHS['woven line']}: {line.strip()}"
            for line in weave.source_of(target, root).splitlines()
            if len(line) > LENGTHS["woven line"]]


def is_check(node: ast.stmt) -> bool:
    """Whether a definition is an exercise's check, which has the exercise's own name."""
    return any(ast.unparse(d).startswith("exercise(") for d in getattr(node, "decorator_list", []))


def homes(library: Path) -> dict[str, list[str]]:
    """For each function or class at the top of a library file: the files that define it."""
    table = {}
    for path in sorted(library.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_check(node):
                files = table.setdefault(node.name, [])
                files.append(path.relative_to(library).as_posix())
    return table


def shared(name: str, files: list[str]) -> bool:
    """Whether a name may be defined in all these files."""
    allowed = layers.SHARED_NAMES.get(name, set())
    return allowed is None or set(files) <= allowed


def duplicates(library: Path) -> list[str]:
    """Names with two homes, other than those that have two on purpose."""
    return [f"{name} is defined in {' and '.join(files)}" for name, files in homes(library).items()
            if len(files) > 1 and not shared(name, files)]


def loads(module: str, library: Path) -> set[str]:
    """The library's modules that importing one of them loads, by the imports at their tops."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        folder = library / name
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        seen.add(name)
        for path in (file for file in files if file.is_file()):
            package = ".".join([layers.PACKAGE, *path.relative_to(library).parts[:-1]])
            tree = ast.parse(path.read_text(encoding="utf-8"))
            todo += {imported.split(".")[1] for imported, _, top in layers.imports(tree, package)
                     if top and imported.startswith(layers.PACKAGE + ".")} - seen
    return seen
