"""The form of every notebook, and every rule on it tried once on a notebook that breaks it."""

import ast
import copy
import importlib
import re
from pathlib import Path

import nbformat
import pytest

from tools import library_rules, notebook_parts, notebook_rules, weave

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COURSE = {"lesson": 1, "minutes_teach": 6, "minutes_learn": 60, "seconds_cpu": 20,
          "minutes_gpu": 3}
NUMBERS = {"difficulty": 2, "minutes": 5, "points": 2}
HINTS = "\n".join(f"<details><summary>Hint {i}</summary>Look closer.</details>" for i in (1, 2))
TWENTY = "One plain sentence that reads the picture for the student and goes on until it has at " \
         "least twenty words in it."
PICTURE = nbformat.v4.new_output("display_data", data={"image/png": "aGk="})
NUMBER = nbformat.v4.new_output("stream", text="the loss fell to 0.1\n")


def read(path):
    return nbformat.read(path, as_version=4)


def text(source, **metadata):
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def code(source, *outputs, **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def task(kind):
    """An exercise's text cell."""
    line = notebook_parts.exercise_line(kind, NUMBERS)
    numbers = {} if kind == "write" else {"exercise": dict(NUMBERS)}
    return text(f"### A task\n{line}\n\n{TWENTY}\n\n{HINTS}", exercise_kind=kind, **numbers)


def sample():
    """A small notebook that keeps every rule."""
    title = f"# Toy\n{notebook_parts.course_line(COURSE)}\n\n{TWENTY}\n\nYou will write a schedule."
    cells = [text(title, notes="Ask what a beta is.", minutes=6),
             code("import torch", NUMBER), task("write"),
             code(weave.opened("def extract(values, t):\n    return values[t]"),
                  weave="gligen_lessons.schedule:extract", exercise=dict(NUMBERS)),
             code("extract = checks.extract(extract)", NUMBER), task("predict"),
             code("1 + 1  # NBVAL_CHECK_OUTPUT", NUMBER), task("find"),
             code("def wrong_at(values):\n    return values", exercise_kind="find"),
             task("explore"), code("show.grid(images)", PICTURE, alt="Four houses in the snow."),
             text(f"## Recap\n{TWENTY}\n\nNext: more. Further reading: a paper.")]
    made = nbformat.v4.new_notebook(cells=cells, metadata={"course": dict(COURSE)})
    for i, cell in enumerate(made.cells):
        cell.id = f"c{i}"
        cell.metadata["slideshow"] = {"slide_type": "-" if i else "slide"}
    for i, cell in enumerate(notebook_parts.code_cells(made), 1):
        cell.execution_count = i
    return made


def test_the_sample_keeps_every_rule():
    assert notebook_rules.violations(sample()) == []


def test_asides_stand_after_the_end():
    notebook = sample()
    aside = text(f"## Asides\n{TWENTY}", slideshow={"slide_type": "-"})
    notebook.cells += [aside, *(copy.deepcopy(aside) for _ in range(3))]
    assert notebook_rules.frame(notebook) == []
    notebook.cells[-4].source = f"## More\n{TWENTY}"
    assert notebook_rules.frame(notebook) == []
    for cell in notebook.cells[-4:]:
        cell.source = f"## More\n{TWENTY}"
    assert "recap" in " ".join(notebook_rules.frame(notebook))


def lines(n):
    return "\n".join(f"a{i} = {i}" for i in range(n))


def fill(nb, index, source):
    nb.cells[index].source = source


def drop(nb, index, *keys):
    for key in keys:
        del nb.cells[index].metadata[key]


def quiet(nb):
    for cell in notebook_parts.code_cells(nb)[:5]:
        cell.outputs = []


# rule -> ways to break it: (what is done to the sample, words of the complaint)
BREAKS = {
    "lengths": [(lambda nb: fill(nb, 10, lines(41)), "41 lines"),
                (lambda nb: [fill(nb, i, lines(9)) for i in (1, 4, 6, 8)], "median"),
                (lambda nb: fill(nb, 10, lines(26)), "more than 25")],
    "widths": [(lambda nb: fill(nb, 10, "x = 1  # " + "long" * 21), "93 characters")],
    "prose": [(lambda nb: fill(nb, 11, "## Recap: next, further reading"), "4 words"),
              (lambda nb: fill(nb, 11, nb.cells[11].source + " and" * 60), "expected 20 to 80"),
              (lambda nb: fill(nb, 5, nb.cells[5].source + " and" * 120), "expected 20 to 130")],
    "weight": [(lambda nb: nb.cells[10].outputs[0].data.update({"image/png": "a" * 10**6}),
                "at most 1")],
    "marks": [(lambda nb: fill(nb, 11, nb.cells[11].source + " END SOLUTION"), "END SOLUTION"),
              (lambda nb: fill(nb, 10, "### BEGIN SOLUTION"), "BEGIN SOLUTION")],
    "shown": [(quiet, "fifth code cell")],
    "described": [(lambda nb: drop(nb, 10, "alt"), "without metadata alt"),
                  (lambda nb: nb.cells[10].metadata.update(alt="figure"), "without metadata alt"),
                  (lambda nb: fill(nb, 11, nb.cells[11].source + "![](a.png)"), "alt text"),
                  (lambda nb: fill(nb, 11, nb.cells[11].source + '<img src="a.png">'), "alt text")],
    "run": [(lambda nb: nb.cells[1].update(execution_count=None), "never run"),
            (lambda nb: nb.cells[1].update(execution_count=7), "top to bottom"),
            (lambda nb: nb.cells[1].outputs.append(nbformat.v4.new_output("error")), "error")],
    "compared": [(lambda nb: nb.cells[6].update(outputs=[]), "compares nothing")],
    "private": [(lambda nb: nb.cells[1].outputs[0].update(text="/home/me/x.py: 3"), "/home/m")],
    "plain": [(lambda nb: fill(nb, 10, "%matplotlib inline"), "not plain Python")],
    "semicolons": [(lambda nb: fill(nb, 10, "show.grid(images);"), "semicolon"),
                   (lambda nb: fill(nb, 10, "show.grid(images);  # quiet\nx = 1"), "semicolon")],
    "interact": [
        (lambda nb: fill(nb, 10, "def f(t):\n    print(t)\n\nwidgets.interact(f, t=3)"), "prints"),
        (lambda nb: fill(nb, 10, "@interact(t=3)\ndef f(t):\n    print(t)"), "prints")],
    "slides": [(lambda nb: drop(nb, 3, "slideshow"), "no slide type")],
    "timed": [(lambda nb: nb.metadata["course"].pop("minutes_gpu"), "minutes_gpu"),
              (lambda nb: drop(nb, 0, "notes"), "metadata notes"),
              (lambda nb: nb.cells[1].metadata.update(minutes=4), "add up to 10"),
              (lambda nb: nb.metadata["course"].update(minutes_learn=10), "minutes_learn is 10"),
              (lambda nb: nb.metadata["course"].update(minutes_teach=1), "minutes_teach is 1:"),
              (lambda nb: nb.metadata["course"].update(seconds_cpu=91), "90 seconds"),
              (lambda nb: nb.metadata["course"].update(minutes_gpu=4), "lacks the line")],
    "frame": [(lambda nb: fill(nb, 0, nb.cells[0].source[2:]), "begin with '# '"),
              (lambda nb: fill(nb, 0, nb.cells[0].source.replace("You will write", "")), "will w"),
              (lambda nb: fill(nb, 11, nb.cells[11].source.replace("Further", "")), "further")],
    "kinds": [(lambda nb: drop(nb, 9, "exercise_kind"), "'explore'"),
              (lambda nb: nb.cells[9].metadata.update(exercise_kind="guess"), "'guess'"),
              (lambda nb: nb.cells.insert(3, copy.deepcopy(nb.cells[3])), "given twice")],
    "stated": [(lambda nb: nb.cells[5].metadata["exercise"].update(difficulty=4), "1 to 3"),
               (lambda nb: nb.cells[3].metadata["exercise"].update(minutes=9), "lacks the line"),
               (lambda nb: fill(nb, 5, nb.cells[5].source.replace("Hint 2", "More")), "two hints")],
    "placed": [(lambda nb: nb.cells.pop(3), "must be woven"),
               (lambda nb: drop(nb, 8, "exercise_kind"), "the wrong code"),
               (lambda nb: nb.cells.pop(2), "right before"),
               (lambda nb: nb.cells.pop(4), "its check")],
}


@pytest.mark.parametrize("rule, change, words", [
    pytest.param(rule, change, words, id=f"{rule}-{i}")
    for rule, ways in BREAKS.items() for i, (change, words) in enumerate(ways)])
def test_a_broken_rule_is_noticed(rule, change, words):
    notebook = sample()
    change(notebook)
    found = getattr(notebook_rules, rule)(notebook)
    assert found and words in " ".join(found), found


def test_every_rule_is_tried():
    assert set(BREAKS) == {rule.__name__ for rule in notebook_rules.RULES}


@pytest.mark.parametrize("source, count", [
    ("two words", 2), ("a $x_t + 1$ b", 3), ("$$a\nb c$$ one", 1), ("| a | b |\n|--|--|\none", 1),
    ("[two words](http://a.b/c)", 2), ("<b>one</b> - 1", 2),
    ("one <details><summary>Hint</summary>not these</details>", 1),
])
def test_words_counts_prose(source, count):
    assert notebook_parts.words(source) == count


def test_defined_sees_what_a_cell_gives_the_notebook():
    cells = [code("if True:\n    def inside(): pass\nclass Net:\n    def forward(self): pass"),
             code("def outer():\n    def loss(): pass\nf = lambda x: x"),
             code("", weave="gligen_lessons.schedule:extract")]
    names = [name for name, _ in notebook_parts.defined(nbformat.v4.new_notebook(cells=cells))]
    assert sorted(names) == ["Net", "inside", "outer"]


# What holds between notebooks, and between them and the library.

def second_homes(notebooks, library):
    """Names that unwoven cells define although the library or another notebook does."""
    homes, found = {name: f"the library ({files[0]})" for name, files in library.items()}, []
    for title, notebook in notebooks.items():
        for name, cell in notebook_parts.defined(notebook):
            if homes.setdefault(name, title) != title:
                found.append(f"{title}, cell {cell}: {name} has its home in {homes[name]}")
    return found


def test_a_second_home_is_noticed():
    a = nbformat.v4.new_notebook(cells=[code("def naive(): pass"), code("def naive(): return 1")])
    b = nbformat.v4.new_notebook(cells=[code("def naive(): pass"), code("class at: pass")])
    found = " ".join(second_homes({"a": a, "b": b}, {"at": ["schedule.py"]}))
    assert "b, cell" in found and "home in a" in found and "the library (schedule.py)" in found
    assert second_homes({"a": a}, {}) == []


def test_notebooks_define_nothing_that_has_a_home():
    notebooks = {path.name: read(path) for path in NOTEBOOKS}
    assert second_homes(notebooks, library_rules.homes(ROOT / "gligen_lessons")) == []


def checks_module(notebook):
    """The lesson whose checks a notebook imports under the name `checks`, or None."""
    for cell in notebook_parts.code_cells(notebook):
        for node in ast.walk(notebook_parts.tree(cell)):
            if getattr(node, "module", "") == "gligen_lessons.checks":
                return next((a.name for a in node.names if a.asname == "checks"), None)
    return None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_form(self, path):
        nbformat.validate(read(path))
        assert notebook_rules.violations(read(path)) == []

    def test_kernel_and_number(self, path):
        notebook = read(path)
        assert notebook.metadata["kernelspec"]["name"] == "python3"
        assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
        assert notebook.metadata["course"]["lesson"] == int(path.stem[:2])

    def test_each_exercise_has_the_check_of_its_target(self, path):
        notebook = read(path)
        exercises = [c for c in notebook_parts.code_cells(notebook)
                     if notebook_parts.is_exercise(c)]
        lesson = checks_module(notebook)
        assert lesson or not exercises, "write: from gligen_lessons.checks import NAME as checks"
        module = importlib.import_module(f"gligen_lessons.checks.{lesson}") if lesson else None
        for target in (weave.targets(cell)[-1] for cell in exercises):
            assert getattr(module, weave.name_of(target)).target == target

    def test_links_lead_somewhere(self, path):
        source = "\n".join(cell.source for cell in notebook_parts.text_cells(read(path)))
        links = re.findall(r"\]\(([^)#\s]+)|src=[\"']([^\"']+)", source)
        local = [a or b for a, b in links if not (a or b).startswith(("http", "data:", "mailto:"))]
        assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("lesson", range(1, 7))
def test_the_long_lessons_have_six_write_it_exercises(lesson):
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith(f"{lesson:02d}_")]
    cells = notebook_parts.code_cells(read(path))
    assert sum(map(notebook_parts.is_exercise, cells)) >= 6
