"""The house: who imports whom, one home for each definition, sizes. Each rule has a bad sample."""

import ast
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest

from tools import layers, library_rules, weave

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "gligen_lessons"
FILES = sorted(LIBRARY.rglob("*.py"))
MAINTAINED = [*FILES, *sorted((ROOT / "tools").glob("*.py")),
              *sorted((ROOT / "benchmarks").glob("*.py")), *sorted(ROOT.glob("*.py"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def short(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_imports_come_from_below(path):
    assert layers.violations(path, LIBRARY) == []


BAD_IMPORTS = {
    "from gligen_lessons.ddim import sample": "ddpm may not import ddim",
    "from gligen_lessons import ddim": "ddpm may not import ddim",
    "import gligen_lessons.train": "ddpm may not import train",
    "from .unet import UNet": "ddpm may not import unet",
    "from . import unet": "ddpm may not import unet",
    "def f():\n    from gligen_lessons.cli import main": "ddpm may not import cli",
    "import matplotlib.pyplot as plt": "may import matplotlib",
    "def f():\n    import matplotlib": "may import matplotlib",
    "def f():\n    from accelerate import Accelerator": "may import accelerate",
    "from diffusers import UNet2DModel": "import diffusers inside",
    "import transformers": "import transformers inside",
}


@pytest.mark.parametrize("text", BAD_IMPORTS)
def test_a_bad_import_is_found(tmp_path, text):
    (tmp_path / "ddpm.py").write_text(text, encoding="utf-8")
    assert BAD_IMPORTS[text] in " ".join(layers.violations(tmp_path / "ddpm.py", tmp_path))


@pytest.mark.parametrize("name, text", [
    ("ddim.py", "from gligen_lessons.ddpm import q_sample\nfrom .schedule import at\nimport torch"),
    ("weights.py", "def export():\n    import diffusers"),
    ("show.py", "import matplotlib.pyplot as plt"),
    ("fit.py", "def fit():\n    from accelerate import Accelerator"),
    ("__init__.py", "import math"),
])
def test_a_good_import_passes(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert layers.violations(tmp_path / name, tmp_path) == []


def test_a_module_on_no_floor_is_found(tmp_path):
    (tmp_path / "utils.py").write_text("")
    assert "belongs to no layer" in layers.violations(tmp_path / "utils.py", tmp_path)[0]


def test_within_a_package_relative_imports_stay_inside(tmp_path):
    (tmp_path / "world").mkdir()
    path = tmp_path / "world" / "render.py"
    path.write_text("from .scene import Scene\nfrom . import pen\nfrom ..nets import Attention")
    assert layers.violations(path, tmp_path) == [
        "render.py:3: world may not import nets (see tools/layers.py)."]


def test_a_name_stands_on_one_floor():
    names = " ".join(modules for _, modules in layers.LAYERS).split()
    assert len(names) == len(set(names))


def test_training_loads_no_pictures_and_no_notebook_parts():
    """Training must run where neither matplotlib nor Jupyter is installed."""
    assert not library_rules.loads("train", LIBRARY) & {"show", "widgets", "checks", "student"}


def test_loads_follows_imports(tmp_path):
    for name, text in {"train": "from gligen_lessons import fit", "fit": "from .show import grid",
                       "show": "def f():\n    from gligen_lessons import nets"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert library_rules.loads("train", tmp_path) == {"train", "fit", "show"}


def test_importing_the_package_loads_nothing_heavy():
    code = ("import sys, gligen_lessons; "
            "print({m for m in ('torch', 'numpy', 'matplotlib', 'PIL') if m in sys.modules})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_one_home_for_each_definition():
    assert library_rules.duplicates(LIBRARY) == []


def test_a_second_home_is_found(tmp_path):
    (tmp_path / "checks").mkdir()
    (tmp_path / "ddpm.py").write_text("def q_sample(): pass\ndef main(): pass\ndef only(): pass")
    (tmp_path / "ddim.py").write_text("class q_sample: pass\ndef main(): pass")
    (tmp_path / "checks" / "ddpm.py").write_text("@exercise('x:only')\ndef only(): pass")
    (tmp_path / "files.py").write_text("def load(): pass")
    (tmp_path / "weights.py").write_text("def load(): pass")
    assert library_rules.duplicates(tmp_path) == ["q_sample is defined in ddim.py and ddpm.py"]
    (tmp_path / "clip.py").write_text("def load(): pass")
    assert "load is defined in clip.py and" in " ".join(library_rules.duplicates(tmp_path))


@pytest.mark.parametrize("path", MAINTAINED, ids=short)
def test_sizes(path):
    assert library_rules.sizes(path) == []
    if (count := len(path.read_text("utf-8").splitlines())) > library_rules.MANY:
        warnings.warn(f"{short(path)} has {count} lines: is it still one idea?", stacklevel=1)


def test_what_is_too_long_is_found(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    x = 1\n" * 40 + "\n" * 360 + "#" * 101, encoding="utf-8")
    found = " | ".join(library_rules.sizes(path))
    assert all(word in found for word in ("402 lines", "f has 41 lines", "101 characters"))


def test_functions_are_short():
    """One idea each: half of all functions have at most ten lines of code."""
    functions = [n for path in FILES for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(n, ast.FunctionDef)]
    code = [n.end_lineno - n.body[ast.get_docstring(n) is not None:][0].lineno + 1
            for n in functions if n.body[ast.get_docstring(n) is not None:]]
    assert statistics.median(code) <= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_woven_lines_fit_a_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    targets = {target for cell in cells for target in weave.targets(cell)}
    assert [line for target in sorted(targets) for line in library_rules.too_wide(target)] == []


def test_a_wide_woven_line_is_found(tmp_path):
    (tmp_path / "toy.py").write_text("def f():\n    x = 1" + " " * 70 + "# (b,c,h,w) and so on")
    assert "at most 88" in library_rules.too_wide("toy:f", tmp_path)[0]


def test_no_module_is_called_utils():
    assert not [path for path in ROOT.rglob("utils*") if ".venv" not in path.parts
                and ".git" not in path.parts]
