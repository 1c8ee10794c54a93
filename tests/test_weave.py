"""The weaver: the library's text in the cells, marks where nbgrader wants them, drift refused."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import weave

ROOT = Path(__file__).resolve().parent.parent
EXERCISE = {"difficulty": 1, "minutes": 5, "points": 2}
TOY = '''"""A toy."""

from json import loads

FACTOR: float = 2.0


@staticmethod
@property
def decorated(x):
    """Say so."""
    return x                                                       # (b,)


def bare(x, *,
         y=1):
    # why

    z = """
two"""
    return x + y


class Net:
    """A net."""

    width = 3

    def __init__(self):
        self.a = 1

    def forward(self, x):
        """Go."""

        if x:
            return 1
        return 2


def short(x): return x


def silent(x):
    """Nothing but words."""
'''


@pytest.fixture
def root(tmp_path):
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def notebook(*cells):
    """A notebook of code cells, each given as (source, metadata)."""
    made = [nbformat.v4.new_code_cell(s, metadata=m, id=f"c{i}") for i, (s, m) in enumerate(cells)]
    return nbformat.v4.new_notebook(cells=made)


def test_source_is_the_library_s_text(root):
    assert weave.source_of("toy:FACTOR", root) == "FACTOR: float = 2.0"
    assert weave.source_of("toy:decorated", root).startswith("@staticmethod\n@property\ndef ")
    assert weave.source_of("toy:decorated", root).endswith("    # (b,)")
    assert weave.source_of("toy:Net.forward", root).splitlines()[0] == "def forward(self, x):"
    assert weave.source_of("toy:Net", root).splitlines()[-1] == "        return 2"


def test_source_runs_like_the_import():
    """Real use: the woven text of the schedule computes what the imported one computes."""
    from gligen_lessons import schedule
    namespace = vars(schedule).copy()
    exec(weave.source_of("gligen_lessons.schedule:Schedule"), namespace)
    ours, theirs = namespace["Schedule"].linear(10), schedule.Schedule.linear(10)
    assert ours.alpha_bar.tolist() == theirs.alpha_bar.tolist() and type(ours) is not type(theirs)


@pytest.mark.parametrize("target, words", [
    ("toy", "write 'module:name'"), ("toy:", "write 'module:name'"),
    ("lost.module:f", "no module lost.module"), ("toy:nobody", "does not define 'nobody'"),
    ("toy:loads", "does not define 'loads'"), ("toy:Net.backward", "'backward'"),
])
def test_a_wrong_address_is_refused(root, target, words):
    with pytest.raises(weave.WeaveError, match=words):
        weave.source_of(target, root)


def without_bodies(text):
    """Text as nbgrader leaves it: marked regions gone."""
    kept, inside = [], False
    for line in text.splitlines():
        inside = inside or "BEGIN SOLUTION" in line
        if not inside:
            kept.append(line)
        inside = inside and "END SOLUTION" not in line
    return kept


def test_marks_stand_below_the_docstring(root):
    text = weave.opened(weave.source_of("toy:decorated", root))
    assert text.splitlines()[2:5] == ["def decorated(x):", '    """Say so."""',
                                      "    ### BEGIN SOLUTION"]
    assert text.splitlines()[-1] == "    ### END SOLUTION"


def test_a_comment_that_opens_the_body_belongs_to_the_solution(root):
    kept = without_bodies(weave.opened(weave.source_of("toy:bare", root)))
    assert kept == ["def bare(x, *,", "         y=1):"]


def test_a_class_keeps_its_outline(root):
    source = weave.source_of("toy:Net", root)
    kept = without_bodies(weave.opened(source))
    assert [line.strip() for line in kept if line.strip()] == [
        "class Net:", '"""A net."""', "width = 3", "def __init__(self):",
        "def forward(self, x):", '"""Go."""']
    assert "self.a = 1" in "\n".join(without_bodies(weave.opened(source, ["forward"])))


@pytest.mark.parametrize("name", ["decorated", "bare", "Net"])
def test_marks_change_nothing_that_runs(root, name):
    source = weave.source_of(f"toy:{name}", root)
    assert ast.dump(ast.parse(weave.opened(source))) == ast.dump(ast.parse(source))


@pytest.mark.parametrize("name, only, words", [
    ("short", (), "no body"), ("silent", (), "no body"), ("FACTOR", (), "must be a function"),
    ("Net", ("jump",), "asked for"),
])
def test_what_cannot_be_opened_is_refused(root, name, only, words):
    with pytest.raises(weave.WeaveError, match=words):
        weave.opened(weave.source_of(f"toy:{name}", root), only)


def test_weaving_fills_cells_and_is_stable(root):
    nb = notebook(("old", {"weave": ["toy:FACTOR", "toy:bare"]}), ("mine = 1", {}))
    assert len(weave.weave(nb, root)) == 1
    assert nb.cells[0].source.startswith("FACTOR: float = 2.0\n\n\ndef bare(")
    assert nb.cells[1].source == "mine = 1" and weave.weave(nb, root) == []


def test_an_exercise_gets_nbgrader_s_metadata_and_loses_it_again(root):
    nb = notebook(("", {"weave": "toy:bare", "exercise": EXERCISE}),
                  ("bare = checks.bare(bare)", {}))
    weave.weave(nb, root)
    answer, check = (cell.metadata["nbgrader"] for cell in nb.cells)
    assert (answer["solution"], answer["grade"], answer["grade_id"]) == (True, False, "bare")
    assert (check["solution"], check["grade"], check["locked"]) == (False, True, True)
    assert check["points"] == 2 and check["grade_id"] != answer["grade_id"]
    del nb.cells[0].metadata["exercise"]
    weave.weave(nb, root)
    assert not any("nbgrader" in cell.metadata for cell in nb.cells)


@pytest.mark.parametrize("cells, words", [
    ([("", {"weave": "toy:bare", "exercise": EXERCISE})], "last cell is an exercise"),
    ([("", {"weave": "toy:bare", "exercise": EXERCISE}), ("bare(1)", {})], "checks.bare"),
    ([("def f(): pass", {"exercise": EXERCISE})], "must be woven"),
    ([("", {"weave": "toy:gone"})], "cell c0: toy:gone"),
])
def test_a_wrong_cell_is_named(root, cells, words):
    with pytest.raises(weave.WeaveError, match=words):
        weave.weave(notebook(*cells), root)


def test_check_finds_drift_and_weaving_mends_it(root, capsys):
    path = root / "notebooks" / "01_toy.ipynb"
    nbformat.write(notebook(("", {"weave": "toy:bare"})), path)
    assert weave.main([], root) == 0 and weave.main(["--check"], root) == 0
    (root / "toy.py").write_text(TOY.replace("x + y", "x - y"), encoding="utf-8")
    before, _ = path.read_bytes(), capsys.readouterr()
    assert weave.main(["--check"], root) == 1
    told = capsys.readouterr().out
    assert all(word in told for word in ("01_toy.ipynb", "c0", "toy:bare", "-    return x + y",
                                         "+    return x - y"))
    assert path.read_bytes() == before
    assert weave.main([], root) == 0 and weave.main(["--check"], root) == 0
    assert "x - y" in nbformat.read(path, 4).cells[0].source


def test_an_unreadable_notebook_is_one_sentence(root, capsys):
    (root / "notebooks" / "broken.ipynb").write_text("{")
    assert weave.main(["--check"], root) == 1
    assert capsys.readouterr().err.startswith("weave: broken.ipynb")


def test_the_course_is_woven():
    """The command itself, on the notebooks as they are."""
    done = subprocess.run([sys.executable, ROOT / "tools" / "weave.py", "--check"],
                          capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def test_nbgrader_accepted_such_metadata():
    """The golden sample went through nbgrader's own validation; ours is the same, key by key."""
    golden = json.loads((ROOT / "tests/golden/student_sample.json").read_text(encoding="utf-8"))
    cells = {cell["id"]: cell["metadata"].get("nbgrader") for cell in golden["solved"]["cells"]}
    assert cells["double"] == weave.grading("double")
    assert cells["given-check"] == weave.grading("triple", 2.5)
