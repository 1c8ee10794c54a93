"""The form of a notebook: each rule takes a notebook and returns complaints, none when all is well.

`violations(notebook)` runs them all. What each cell's metadata must say is told where it is read.
"""

import ast
import io
import re
import statistics
import tokenize

import nbformat

from tools import weave
from tools.notebook_parts import (
    KINDS,
    code_cells,
    code_lines,
    course_line,
    exercise_line,
    is_exercise,
    pairs,
    pictures,
    printed,
    text_cells,
    tree,
    words,
)

SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
COURSE = ("lesson", "minutes_teach", "minutes_learn", "seconds_cpu", "minutes_gpu")
MARKS = ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "MARK SCHEME")
MACHINE = re.compile(r"/(?:home|Users|root|work|tmp|opt|usr)/\w|[A-Z]:\\\\?Users")


# Size and text.

def lengths(notebook) -> list[str]:
    """Code cells: median at most 8 lines, nine in ten at most 25, none above 40."""
    sizes = [code_lines(c) for c in code_cells(notebook)]
    found = [f"cell {c.id}: {code_lines(c)} lines of code, at most 40"
             for c in code_cells(notebook) if code_lines(c) > 40]
    if sizes and statistics.median(sizes) > 8:
        found.append(f"the median code cell has {statistics.median(sizes):g} lines, at most 8")
    if sum(size > 25 for size in sizes) > len(sizes) / 10:
        found.append(f"{sum(s > 25 for s in sizes)} of {len(sizes)} code cells have more than 25 "
                     "lines, at most one in ten may")
    return found


def widths(notebook) -> list[str]:
    """No line of code is longer than 88 characters."""
    return [f"cell {c.id}: a line of {max(map(len, c.source.splitlines()))} characters, at most 88"
            for c in code_cells(notebook) if any(len(x) > 88 for x in c.source.splitlines())]


def prose(notebook) -> list[str]:
    """Text cells: 20 to 80 words, the first and exercises up to 130; a table may stand alone."""
    found = []
    for i, cell in enumerate(text_cells(notebook)):
        long = i == 0 or "exercise_kind" in cell.metadata
        alone = re.search(r"^\s*\||!\[|<img", cell.source, flags=re.M)
        low, high, count = 0 if alone else 20, 130 if long else 80, words(cell.source)
        if not low <= count <= high:
            found.append(f"cell {cell.id}: {count} words, expected {low} to {high}")
    return found


def weight(notebook) -> list[str]:
    """The file is at most 1 MB with its outputs."""
    size = len(nbformat.writes(notebook).encode())
    return [f"the file has {size / 1e6:.2f} MB, at most 1"] if size > 1_000_000 else []


def marks(notebook) -> list[str]:
    """nbgrader's words stand only where the weaver puts them, never in prose."""
    return [f"cell {c.id}: holds the words {mark!r}" for c in notebook.cells for mark in MARKS
            if mark in c.source and not is_exercise(c)]


# Pictures, and that the notebook has been run.

def shown(notebook) -> list[str]:
    """At least every fifth code cell shows a picture or a number."""
    found, quiet = [], 0
    for cell in code_cells(notebook):
        shows = pictures(cell) or re.search(r"\d", printed(cell))
        quiet = 0 if shows else quiet + 1
        if quiet == 5:
            found.append(f"cell {cell.id}: the fifth code cell without a picture or a number")
    return found


def described(notebook) -> list[str]:
    """Every picture has a text alternative: metadata "alt" of a code cell, alt text in prose."""
    found = [f"cell {c.id}: a picture without metadata alt (a sentence saying what is seen)"
             for c in code_cells(notebook)
             if pictures(c) and len(str(c.metadata.get("alt", "")).split()) < 4]
    for cell in text_cells(notebook):
        bare = "![](" in cell.source or any(
            not re.search(r"alt=.[^\"']", tag) for tag in re.findall(r"<img[^>]*>", cell.source))
        found += [f"cell {cell.id}: a picture in the text without alt text"] * bare
    return found


def run(notebook) -> list[str]:
    """Every code cell has been run, once, from top to bottom, without an error."""
    counts = [c.execution_count for c in code_cells(notebook)]
    found = [f"cell {c.id}: was never run" for c in code_cells(notebook) if not c.execution_count]
    if not found and counts != list(range(1, len(counts) + 1)):
        found.append("the cells were not run once from top to bottom: Restart and Run All")
    return found + [f"cell {c.id}: its output is an error" for c in code_cells(notebook)
                    if any(o.output_type == "error" for o in c.outputs)]


def compared(notebook) -> list[str]:
    """A cell whose output nbval compares has been run and has an output."""
    return [f"cell {c.id}: NBVAL_CHECK_OUTPUT without an output compares nothing"
            for c in code_cells(notebook)
            if "NBVAL_CHECK_OUTPUT" in c.source and not (c.execution_count and c.outputs)]


def private(notebook) -> list[str]:
    """No output shows a folder of the machine that ran the notebook."""
    return [f"cell {c.id}: its output shows a path of this machine: {found.group()!r}..."
            for c in code_cells(notebook) if (found := MACHINE.search(printed(c)))]


# Code.

def plain(notebook) -> list[str]:
    """Code is plain Python: no magics, no shell."""
    found = []
    for cell in code_cells(notebook):
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            found.append(f"cell {cell.id}: not plain Python, line {error.lineno}: {error.msg}")
    return found


def semicolons(notebook) -> list[str]:
    """No line ends in a semicolon to hide its output (write `_ = ...`)."""
    found = []
    for cell in code_cells(notebook):
        if not tree(cell).body:
            continue
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(cell.source).readline)
                  if t.type not in (tokenize.COMMENT, tokenize.NL)]
        if any(a.string == ";" and b.type in (tokenize.NEWLINE, tokenize.ENDMARKER)
               for a, b in zip(tokens, tokens[1:], strict=False)):
            found.append(f"cell {cell.id}: a line ends in a semicolon")
    return found


def interact(notebook) -> list[str]:
    """No `interact` drives a function that prints: its output escapes into the next run."""
    nodes = [(c, n) for c in code_cells(notebook) for n in ast.walk(tree(c))]
    prints = {n.name for _, n in nodes if isinstance(n, ast.FunctionDef)
              and any(_calls(m, "print") for m in ast.walk(n))}
    driven = [(c, arg) for c, n in nodes if _calls(n, "interact") for arg in n.args[:1]]
    driven += [(c, n) for c, n in nodes if isinstance(n, ast.FunctionDef)
               and any("interact" in ast.unparse(d) for d in n.decorator_list)]
    return [f"cell {c.id}: interact with a function that prints; let it return a figure"
            for c, n in driven if {getattr(n, "id", None), getattr(n, "name", None)} & prints]


def _calls(node: ast.AST, name: str) -> bool:
    """Whether a node is a call of something whose name begins so, with or without a module."""
    called = getattr(node, "func", None)
    word = getattr(called, "attr", None) or getattr(called, "id", None) or ""
    return word.startswith(name)


# Teaching.

def slides(notebook) -> list[str]:
    """Every cell has a slide type (slide, subslide, fragment, skip, notes or -)."""
    return [f"cell {c.id}: no slide type in metadata slideshow.slide_type" for c in notebook.cells
            if c.metadata.get("slideshow", {}).get("slide_type") not in SLIDES]


def least_minutes(notebook) -> dict[str, float]:
    """How long a lesson takes at least: 130 words a minute are spoken, 200 are read.

    Who teaches shows each code cell for half a minute and unfolds nothing; who learns reads 30
    lines of code a minute and does every exercise.
    """
    read, cells = sum(words(c.source) for c in text_cells(notebook)), code_cells(notebook)
    exercises = sum(c.metadata.get("exercise", {}).get("minutes", 0) for c in notebook.cells)
    return {"minutes_teach": read / 130 + len(cells) / 2,
            "minutes_learn": read / 200 + sum(map(code_lines, cells)) / 30 + exercises}


def timed(notebook) -> list[str]:
    """The notebook's metadata "course" has its numbers, and the first cell shows them.

    Each slide has `minutes` and `notes` for the teacher, and the minutes add up to minutes_teach;
    both leave time to read (`least_minutes`); seconds_cpu is at most 90; minutes_gpu is null until
    somebody has timed it.
    """
    course = notebook.metadata.get("course", {})
    untimed = {"minutes_gpu"} if course.get("minutes_gpu", 0) is None else set()
    if bad := [k for k in COURSE if k not in untimed and
               (not isinstance(course.get(k), int | float) or course[k] < 0)]:
        return [f"metadata course needs numbers for {', '.join(bad)}"]
    found = [f"cell {c.id}: a slide needs metadata notes (for the teacher) and minutes"
             for c in notebook.cells if c.metadata.get("slideshow", {}).get("slide_type") == "slide"
             and not (c.metadata.get("notes") and "minutes" in c.metadata)]
    total = sum(c.metadata.get("minutes", 0) for c in notebook.cells)
    if total != course["minutes_teach"]:
        found.append(f"the cells' minutes add up to {total}, not to {course['minutes_teach']}")
    for name, least in least_minutes(notebook).items():
        if course[name] < least:
            found.append(f"{name} is {course[name]}: too little, this lesson takes {least:.0f}")
    if course["seconds_cpu"] > 90:
        found.append("a lesson runs in at most 90 seconds on a CPU")
    if course_line(course) not in notebook.cells[0].source:
        found.append(f"the first cell lacks the line {course_line(course)}")
    return found


def frame(notebook) -> list[str]:
    """A title; the start says what you will write; the end, before "## Asides", recaps, goes on."""
    texts = [c.source for c in text_cells(notebook)]
    texts = texts[:next((i for i, t in enumerate(texts) if t.startswith("## Asides")), None)]
    start, end = "\n".join(texts[:3]), "\n".join(texts[-3:]).lower()
    found = [] if start.startswith("# ") else ["the first cell must begin with '# ' and the title"]
    found += [] if "you will write" in start.lower() else ["the start must say 'You will write'"]
    return found + [f"the last three text cells lack '{word}'"
                    for word in ("recap", "next", "further reading") if word not in end]


def kinds(notebook) -> list[str]:
    """All four kinds of exercise are there: a text cell's metadata "exercise_kind" names its own.

    One of another name, or a woven exercise given twice, is refused too.
    """
    requested = [c.metadata["exercise_kind"] for c in text_cells(notebook)
                 if "exercise_kind" in c.metadata]
    names = [weave.targets(c)[-1] for c in code_cells(notebook) if is_exercise(c)]
    return ([f"no exercise of the kind {kind!r}" for kind in KINDS if kind not in requested]
            + [f"there is no kind of exercise {kind!r}" for kind in set(requested) - set(KINDS)]
            + [f"the exercise {name} is given twice" for name in {*names} if names.count(name) > 1])


def stated(notebook) -> list[str]:
    """An exercise's text states difficulty, minutes and points, and has two hints that unfold.

    The numbers are metadata "exercise": of the woven cell that follows a "write", else of the text
    cell itself.
    """
    found = []
    for cell, after in pairs(notebook):
        kind = cell.metadata.get("exercise_kind")
        if cell.cell_type != "markdown" or kind not in KINDS:
            continue
        numbers = (after if kind == "write" else cell).metadata.get("exercise", {})
        if not (numbers.get("difficulty") in (1, 2, 3) and numbers.get("minutes", 0) > 0
                and numbers.get("points", -1) >= 0):
            found.append(f"cell {cell.id}: metadata exercise needs difficulty (1 to 3), minutes "
                         "and points")
        elif exercise_line(kind, numbers) not in cell.source:
            found.append(f"cell {cell.id}: lacks the line {exercise_line(kind, numbers)}")
        if len(re.findall(r"<summary>Hint", cell.source)) < 2:
            found.append(f"cell {cell.id}: an exercise has two hints that unfold")
    return found


def placed(notebook) -> list[str]:
    """What belongs to an exercise follows it: to "write" the woven cell, to "find" the wrong code.

    And a woven exercise stands between its text and its check.
    """
    found = []
    for cell, after in pairs(notebook):
        kind = cell.metadata.get("exercise_kind") if cell.cell_type == "markdown" else None
        if kind == "write" and not is_exercise(after):
            found.append(f"cell {cell.id}: the cell after a 'write' exercise must be woven")
        if kind == "find" and not (after.cell_type == "code"
                                   and after.metadata.get("exercise_kind") == "find"):
            found.append(f"cell {cell.id}: the cell after 'find' must be the wrong code, with "
                         "metadata exercise_kind 'find'")
        if is_exercise(after) and kind != "write":
            found.append(f"cell {after.id}: a woven exercise needs its text, of kind 'write', "
                         "right before it")
        if is_exercise(cell) and after.source.strip() != weave.check_line(
                (weave.targets(cell) or ["?"])[-1]):
            found.append(f"cell {cell.id}: the cell after it must be its check and nothing else")
    return found


RULES = (lengths, widths, prose, weight, marks, shown, described, run, compared, private, plain,
         semicolons, interact, slides, timed, frame, kinds, stated, placed)


def violations(notebook) -> list[str]:
    """What is wrong with a notebook, by every rule, each with the rule's name."""
    return [f"{rule.__name__}: {what}" for rule in RULES for what in rule(notebook)]
