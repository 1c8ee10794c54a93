"""The learner's version: equal to nbgrader's, made once, never over a learner's work."""

import copy
import json
from pathlib import Path

import nbformat
import pytest

from gligen_lessons import student

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "student_sample.json"


def golden(key):
    return nbformat.from_dict(json.loads(GOLDEN.read_text(encoding="utf-8"))[key])


@pytest.fixture
def course(tmp_path):
    """A folder of one lesson, the notation, a picture that is shown and one that is not."""
    notebooks = tmp_path / "notebooks"
    (notebooks / "pictures").mkdir(parents=True)
    lesson = golden("solved")
    lesson.cells[0].source += "\n![a plan](pictures/plan.png)"
    lesson.cells[0].metadata["notes"] = "Ask them first."
    nbformat.write(lesson, notebooks / "01_toy.ipynb")
    (notebooks / "NOTATION.md").write_text("| t | step |", encoding="utf-8")
    for name in ("plan", "unused"):
        (notebooks / "pictures" / f"{name}.png").write_bytes(b"\x89PNG")
    return notebooks


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def read(path):
    return nbformat.read(path, as_version=4)


def test_equals_nbgrader():
    """nbgrader 0.9.6's ClearSolutions and ClearOutput, frozen, cell by cell and key by key."""
    assert student.opened(golden("solved")) == golden("cleared")


def test_the_solved_notebook_is_left_alone():
    lesson = golden("solved")
    student.opened(lesson)
    assert lesson == golden("solved")


@pytest.mark.parametrize("source", [
    "def f(x):\n    return x",
    "def f(x):\n    ### BEGIN SOLUTION\n    return x",
    "def f(x):\n    return x\n    ### END SOLUTION",
    "### BEGIN SOLUTION\na\n### END SOLUTION\nb\n### END SOLUTION",
    "### BEGIN SOLUTION\n### BEGIN SOLUTION\na\n### END SOLUTION\n### END SOLUTION",
])
def test_broken_marks_are_refused(source):
    """Where nbgrader would wipe the cell, or stop."""
    with pytest.raises(ValueError, match="weave"):
        student.open_exercise(source)


def test_a_solution_outside_an_exercise_is_refused(course):
    lesson = read(course / "01_toy.ipynb")
    del lesson.cells[2].metadata["nbgrader"]
    nbformat.write(lesson, course / "01_toy.ipynb")
    with pytest.raises(ValueError, match=r"01_toy.ipynb: cell double"):
        student.make(course, course.parent / "mine")


def test_make_brings_what_a_learner_needs_and_nothing_else(course):
    target = course.parent / "mine"
    new = student.make(course, target)
    assert names(target) == ["01_toy.ipynb", "NOTATION.md", "pictures/plan.png"]
    assert sorted(new) == sorted(target / name for name in names(target))
    text = (target / "01_toy.ipynb").read_text(encoding="utf-8")
    assert "SOLUTION" not in text and "Ask them" not in text and "x + x" in text  # the given one
    assert "checks.double(double)" in text and "Well done" not in text


def test_a_learner_s_work_stays(course):
    target = course.parent / "mine"
    student.make(course, target)
    work = read(target / "01_toy.ipynb")
    work.cells[2].source = "def double(x):\n    return 2 * x"
    nbformat.write(work, target / "01_toy.ipynb")
    (target / "NOTATION.md").write_text("my notes", encoding="utf-8")
    before = {name: (target / name).read_bytes() for name in names(target)}
    assert student.make(course, target) == []
    assert {name: (target / name).read_bytes() for name in names(target)} == before


def test_a_newer_lesson_comes_beside(course):
    target = course.parent / "mine"
    student.make(course, target)
    before = (target / "01_toy.ipynb").read_bytes()
    lesson = read(course / "01_toy.ipynb")
    nbformat.write(lesson, course / "02_more.ipynb")
    lesson.cells[0].source += " Words only."
    nbformat.write(lesson, course / "01_toy.ipynb")
    assert [p.name for p in student.make(course, target)] == ["02_more.ipynb"]
    lesson.cells[-1].source += "\ndouble(3)"
    nbformat.write(lesson, course / "01_toy.ipynb")
    (beside,) = student.make(course, target)
    assert beside.name.startswith("01_toy.") and "double(3)" in beside.read_text(encoding="utf-8")
    assert (target / "01_toy.ipynb").read_bytes() == before
    assert student.make(course, target) == []


def test_a_file_of_the_learner_s_own_under_a_lesson_s_name_stays(course):
    target = course.parent / "mine"
    target.mkdir()
    (target / "01_toy.ipynb").write_text("not a notebook", encoding="utf-8")
    new = student.make(course, target)
    assert (target / "01_toy.ipynb").read_text(encoding="utf-8") == "not a notebook"
    assert any(path.name.startswith("01_toy.") for path in new)


def test_a_full_disk_leaves_no_half_file(course, monkeypatch):
    target = course.parent / "mine"

    def full(notebook, path):
        Path(path).write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(student.nbformat, "write", full)
    with pytest.raises(OSError, match="No space"):
        student.make(course, target)
    assert names(target) == []


def test_no_notebooks_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebooks in"):
        student.make(tmp_path, tmp_path / "mine")


def test_the_open_version_runs_to_its_end():
    """Every cell of the sample's open version, with checks that hand on the solved versions."""
    namespace, solved = {}, {}
    for cell in golden("solved").cells:
        if cell.cell_type == "code" and "check" not in cell.id and cell.id != "end":
            exec(cell.source, solved)

    class Checks:
        def __getattr__(self, name):
            def check(attempt):
                with pytest.raises(NotImplementedError):
                    attempt(1)
                return solved[name]
            return check
    namespace["checks"] = Checks()
    cells = [c for c in student.opened(golden("solved")).cells if c.cell_type == "code"]
    for cell in cells[:-1]:
        exec(cell.source, namespace)
    assert eval(cells[-1].source, namespace) == [4, 6, 2]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_lesson_opens(path):
    lesson = read(path)
    exercises = [c for c in lesson.cells if c.metadata.get("nbgrader", {}).get("solution")]
    mine = student.opened(copy.deepcopy(lesson))
    assert sum("raise NotImplementedError()" in c.source for c in mine.cells) >= len(exercises)
    assert not any("SOLUTION" in c.source or c.get("outputs") for c in mine.cells)
