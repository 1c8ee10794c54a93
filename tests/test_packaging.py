"""pyproject.toml, constraints.txt, environment.yml, .gitignore and the licence agree."""

import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
ASKED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in
            (line.partition("==") for line in kept)}


def test_conda_users_get_the_same_packages():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert conda["name"] == PROJECT["name"]
    *plain, last = conda["dependencies"]
    assert plain == [f"python{PROJECT['requires-python']},<3.14", "pip"]
    assert last == {"pip": [*PROJECT["dependencies"], "-e ."]}


def test_constraints_name_versions_and_no_hosts():
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line
        assert "://" not in line
    names = [line.partition("==")[0] for line in pins()]
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize("requested", ASKED)
def test_the_tested_version_lies_in_the_wide_range(requested):
    requirement = Requirement(requested)
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier
    assert {part.operator for part in requirement.specifier} <= {">="}     # wide: no upper end


def test_the_tested_set_is_whole():
    """What our packages ask for, and what those ask for, is pinned (on this machine)."""
    seen, waiting = set(), [canonicalize_name(Requirement(line).name) for line in ASKED]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in metadata.requires(name) or []:
            requested = Requirement(line)
            if requested.marker is None or requested.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requested.name))
    assert seen - set(pins()) <= {"triton"} | {n for n in seen if n.startswith(("nvidia", "cuda"))}


def test_every_dependency_says_what_it_is_for():
    block = TEXT.split("\ndependencies = [\n")[1].split("\n]")[0]
    for line in block.splitlines():
        assert re.fullmatch(r' +"[^"]+", +# .{7,}', line), line


def test_no_grader_and_no_lock_file_with_hosts():
    assert not any("nbgrader" in line for line in [*ASKED, *pins()])
    assert not (ROOT / "uv.lock").exists()


def test_the_licence_is_apache_in_full():
    """Word for word the text that another Apache-licensed package ships."""
    text = (ROOT / "LICENSE").read_text("utf-8")
    other = next(file for file in metadata.files("accelerate") if file.name == "LICENSE")
    assert text.split() == other.read_text("utf-8").split()
    assert "END OF TERMS AND CONDITIONS" in text and PROJECT["license"] == "Apache-2.0"


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
@pytest.mark.parametrize("path, ignored", [
    (".venv/bin/python", True), (".venv-install.log", True), ("my_course/01_ddpm.ipynb", True),
    ("slides/01_ddpm.html", True), (".cache/renders/train-8-32/ids.npy", True),
    ("gligen_lessons/__pycache__/a.pyc", True), ("gligen_lessons.egg-info/PKG-INFO", True),
    ("notebooks/01_ddpm.ipynb", False), ("data/weights/ddpm_pixel.safetensors", False),
    ("gligen_lessons/slides.py", False), ("gligen_lessons/world/cache.py", False),
])
def test_git_ignores_what_commands_write_and_nothing_else(path, ignored, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    done = subprocess.run(["git", "-C", tmp_path, "check-ignore", "-q", path])
    assert done.returncode == (0 if ignored else 1)
