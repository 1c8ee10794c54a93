"""What a notebook consists of, as the rules on its form see it: cells, words, lines, outputs."""

import ast
import re

import nbformat

from tools import weave

KINDS = {"write": "write it", "predict": "predict", "find": "find the bug", "explore": "explore"}


def code_cells(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "code"]


def text_cells(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "markdown"]


def is_exercise(cell) -> bool:
    """Whether a cell is a woven exercise, the one that a learner finds open."""
    return cell.cell_type == "code" and "exercise" in cell.metadata


def pairs(notebook) -> list[tuple]:
    """Each cell with the one after it; the last with an empty text cell."""
    last = nbformat.v4.new_markdown_cell()
    return list(zip(notebook.cells, [*notebook.cells[1:], last], strict=True))


def code_lines(cell) -> int:
    """How many lines a code cell has, the solution marks left out."""
    return sum(not line.strip().startswith("### ") for line in cell.source.strip().splitlines())


def pictures(cell) -> list:
    """The pictures among a code cell's outputs."""
    return [o for o in cell.outputs if any(k.startswith("image/") for k in o.get("data", {}))]


def printed(cell) -> str:
    """What a code cell printed or returned, as text, errors included."""
    texts = [o.get("text", "") + o.get("data", {}).get("text/plain", "")
             + "\n".join(o.get("traceback", [])) for o in cell.outputs]
    return "\n".join(texts)


def words(text: str) -> int:
    """Words of prose: tables, hints, display formulas and addresses do not count."""
    text = re.sub(r"<details.*?</details>|\$\$.*?\$\$|```.*?```", " ", text, flags=re.S)
    text = re.sub(r"^\s*\|.*$", " ", text, flags=re.M)
    text = re.sub(r"\$[^$\n]+\$", " formula ", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]+>", r" \1 ", text)
    return sum(any(ch.isalnum() for ch in word) for word in text.split())


def tree(cell) -> ast.Module:
    """A code cell's syntax tree, empty where it is not plain Python (another rule says so)."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.Module([], [])


def defined(notebook) -> list[tuple[str, str]]:
    """The functions and classes that unwoven cells define: (name, cell id), also below an if.

    What is defined inside a function or a class has no name of its own in the notebook.
    """
    found = []
    for cell in code_cells(notebook):
        todo = [] if weave.targets(cell) else [tree(cell)]
        while todo:
            node = todo.pop(0)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.append((node.name, cell.id))
            else:
                todo += ast.iter_child_nodes(node)
    return found


def exercise_line(kind: str, exercise: dict) -> str:
    """The line under an exercise's heading, made from its metadata so that both always agree."""
    level, points = exercise["difficulty"], exercise["points"]
    stars = "●" * level + "○" * (3 - level)
    return (f"*{KINDS[kind]} · difficulty {stars} · {exercise['minutes']} minutes · "
            f"{points} point{'s' * (points != 1)}*")


def course_line(course: dict) -> str:
    """The line under a lesson's title, made from the notebook's metadata."""
    learn, teach, gpu = course["minutes_learn"], course["minutes_teach"], course["minutes_gpu"]
    training = f"{gpu} minutes to train on a GPU" if gpu else "nothing to train on a GPU"
    if gpu is None:
        training = "not yet timed on a GPU"
    return (f"*{learn} minutes to read and do · {teach} minutes to teach · "
            f"runs in {course['seconds_cpu']} seconds on a CPU · {training}*")
