"""course.py: what it needs, which options it adds, and a real environment made and mended."""

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


course = load(ROOT / "course.py")
stages = load(ROOT / "tools" / "stages.py")


# ------------------------------------------------------------------- readable for any Python

def test_only_the_standard_library_and_syntax_of_python_3_6():
    tree = ast.parse((ROOT / "course.py").read_text("utf-8"), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "tomllib" in names and "tomllib" not in top           # 3.10 must get past the imports


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13)])
def test_an_old_python_gets_one_line(version, capsys, monkeypatch):
    monkeypatch.setattr(course, "dispatch", lambda *_: pytest.fail("went on"))
    assert course.main(["lab"], version) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith("error: ")
    assert f"this is Python {version[0]}.{version[1]}." in message and "3.11" in message


def test_a_new_python_goes_on(monkeypatch):
    monkeypatch.setattr(course, "dispatch", lambda root, words: 0)
    assert course.main(["lab"], (3, 13, 0)) == 0


# --------------------------------------------------------------------------- words and options

@pytest.mark.parametrize("user, absent", [
    ([], []),
    (["--port=9999", "--no-browser"], []),
    (["--ip=0.0.0.0"], ["--ServerApp.ip"]),
    (["--ip", "0.0.0.0"], ["--ServerApp.ip"]),
    (["--ServerApp.ip=::1"], ["--ServerApp.ip"]),
    (["--notebook-dir=/x"], ["--ServerApp.root_dir"]),
    (["--ServerApp.root_dir=/x"], ["--ServerApp.root_dir"]),
    (["--LabApp.news_url=http://example.org/feed"], ["--LabApp.news_url"]),
    (["--LabApp.extension_manager=pypi"], ["--LabApp.extension_manager"]),
])
def test_jupyter_gets_an_option_only_where_the_user_gave_none(user, absent, tmp_path, monkeypatch):
    monkeypatch.setattr(course.os, "geteuid", lambda: 1000, raising=False)
    options = course.jupyter_options(user, tmp_path)
    ours = options[:len(options) - len(user)]
    assert options[len(ours):] == user                           # theirs come last, untouched
    left_out = {"--ServerApp.ip", "--ServerApp.root_dir", "--LabApp.news_url",
                "--LabApp.check_for_updates_class", "--LabApp.extension_manager"} - set(absent)
    assert {option.split("=")[0] for option in ours} == left_out


def test_only_root_is_let_in_as_root(tmp_path, monkeypatch):
    """In a container everybody is root, and JupyterLab would not start."""
    monkeypatch.setattr(course.os, "geteuid", lambda: 0, raising=False)
    assert course.jupyter_options([], tmp_path)[-1] == "--allow-root"
    assert course.jupyter_options(["--allow-root"], tmp_path).count("--allow-root") == 1


def test_pip_arguments_are_taken_from_anywhere():
    assert course.take_pip(["--pip", "--pre", "lab"]) == (["lab"], "--pre")
    assert course.take_pip(["train", "x", "--pip=-v -v", "--steps", "3"]) == (
        ["train", "x", "--steps", "3"], "-v -v")
    assert course.take_pip(["lab", "--port=1"]) == (["lab", "--port=1"], None)
    with pytest.raises(course.Stop, match="in quotes"):
        course.take_pip(["lab", "--pip"])


@pytest.mark.parametrize("words, selecting", [
    ([], False), (["-x", "--durations=5"], False), (["-n", "0"], False),
    (["-k", "ddim"], True), (["-kddim"], True), (["--lf"], True),
    (["tests/test_course.py"], True), (["tests/test_course.py::test_x"], True),
])
def test_a_selection_of_tests_leaves_the_notebooks_out(words, selecting, tmp_path):
    listed = stages.stages(words, tmp_path)
    assert [name for name, _, _ in listed][:3] == ["lint", "weave", "tests"]
    assert len(listed) == (3 if selecting else 5)
    assert listed[2][1][0][-len(words) or 99:] == words
    assert selecting or listed[3:] == stages.stages([], tmp_path)[3:]


def test_every_stage_runs_and_one_failure_fails_the_whole(monkeypatch, capfd):
    listed = [("first", [["-c", "import sys; sys.exit(3)"], ["-c", "print('not reached')"]], {}),
              ("second", [["-c", "import os; print(os.environ['DIAL'], "
                           "os.environ['OMP_NUM_THREADS'])"]], {"DIAL": "small"})]
    monkeypatch.setattr(stages, "stages", lambda words, student: listed)
    assert stages.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "small 1" in lines and "not reached" not in lines
    assert lines[-3].split()[:2] == ["first", "FAILED"]
    assert lines[-2].split()[:2] == ["second", "passed"]
    assert lines[-1] == "1 passed, 1 failed"
    monkeypatch.setattr(stages, "stages", lambda words, student: listed[1:])
    assert stages.main([]) == 0


# ------------------------------------------------------------------------- why it did not work

@pytest.mark.parametrize("output, says", [
    ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError()'\n"
     "ERROR: No matching distribution found for setuptools>=77", "cannot reach the package index"),
    ("ERROR: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded with url: /x",
     "cannot reach the package index"),
    ("WARNING: Could not fetch URL /simple/torch: There was a problem confirming the ssl "
     "certificate", "cannot reach the package index"),
    ("ERROR: HTTPSConnectionPool(host='pypi.org', port=443): Read timed out.",
     "cannot reach the package index"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
     "the disk is too full"),
    ("The virtual environment was not created successfully because ensurepip is not available.",
     "python3-venv"),
    ("noise\nERROR: No matching distribution found for torch==9\nmore noise",
     "pip failed: No matching distribution found for torch==9"),
    ("", "pip failed"),
])
def test_pips_many_lines_become_one(output, says):
    line = course.explain(output, "pip failed")
    assert says in line and "\n" not in line


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000_000)
    monkeypatch.setattr(course.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(course.Stop, match="the disk is too full"):
        course.make_venv(tmp_path)
    assert not list(tmp_path.iterdir())


# -------------------------------------------- a tiny course without dependencies, made for real

BACKEND = '''
import os, time, zipfile
INFO = "gligen_lessons-1.0.dist-info/"
def build_editable(folder, config_settings=None, metadata_directory=None):
    while os.path.exists("slow"):
        time.sleep(.05)
    name = "gligen_lessons-1.0-py3-none-any.whl"
    files = {"course_marker.py": "", "gligen_lessons.pth": ROOT,
             INFO + "METADATA": "Metadata-Version: 2.1\\nName: gligen-lessons\\nVersion: 1.0\\n"
                                "Provides-Extra: dev\\n" + REQUIRES,
             INFO + "WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\n"
                             "Tag: py3-none-any\\n"}
    files[INFO + "RECORD"] = "".join(f"{path},,\\n" for path in [*files, INFO + "RECORD"])
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
'''
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "gligen-lessons"
version = "1.0"
dependencies = @NEEDS
[project.optional-dependencies]
dev = []
"""
ECHO = """import os, random, sys
print({name!r}, os.getcwd(), *sys.argv[1:], sep="|")
sys.exit(7 if "--fail" in sys.argv else 0)
"""


class Tiny:
    """A copy of course.py with a project that needs nothing, and the commands run in it."""

    def __init__(self, root: Path):
        self.root = root
        (root / "gligen_lessons").mkdir()
        shutil.copy(ROOT / "course.py", root)
        self.write(requires="")
        (root / "constraints.txt").write_text("")
        (root / "gligen_lessons" / "cli.py").write_text(ECHO.format(name="cli"))
        (root / "jupyterlab.py").write_text(ECHO.format(name="jupyterlab"))
        (root / "my_course").mkdir()

    def write(self, requires: str):
        """Set the one package that the project depends on ("" for none)."""
        line = f"Requires-Dist: {requires}\n" if requires else ""
        (self.root / "backend.py").write_text(
            f"ROOT, REQUIRES = {str(self.root)!r}, {line!r}\n" + BACKEND)
        (self.root / "pyproject.toml").write_text(
            PROJECT.replace("@NEEDS", str([requires] if requires else [])))

    def start(self, *words, cwd=None, **more):
        """Start course.py and go on, with more variables in its environment."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHONPATH"))}
        return subprocess.Popen([sys.executable, self.root / "course.py", *words], text=True,
                                cwd=cwd or self.root, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True,
                                env=env | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1",
                                           **more})

    def run(self, *words, **more):
        """Run course.py to its end."""
        with self.start(*words, **more) as child:
            out, err = child.communicate(timeout=600)
        return subprocess.CompletedProcess(words, child.returncode, out, err)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    tiny = Tiny(tmp_path_factory.mktemp("tiny"))
    first = tiny.run("doctor")
    assert (first.returncode, first.stdout) == (0, f"cli|{tiny.root}|doctor\n"), first.stderr
    assert first.stderr.startswith("first start: installing") and "installed in" in first.stderr
    return tiny


def test_words_that_need_no_environment_make_none(tmp_path):
    tiny = Tiny(tmp_path)
    assert tiny.run().stdout.startswith("The course in one command")
    wrong = tiny.run("bogus", "--pip", "-v")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("error: ") and "'bogus'" in wrong.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_second_start_installs_nothing_and_forwards_everything(tiny):
    log = (tiny.root / course.LOG).stat().st_mtime_ns
    before = os.times()
    done = tiny.run("train", "pixel", "--steps", "3", "--fail")
    assert os.times().children_user - before.children_user < 3   # seconds of work, not of waiting
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"cli|{tiny.root}|train|pixel|--steps|3|--fail\n"
    assert (tiny.root / course.LOG).stat().st_mtime_ns == log


def test_lab_makes_the_learners_version_and_opens_jupyter_there(tiny):
    first, second = tiny.run("lab", "--ip=0.0.0.0", "--port=9").stdout.splitlines()
    assert first == f"cli|{tiny.root}|student|--out|{tiny.root / 'my_course'}"
    name, folder, *options = second.split("|")
    assert (name, folder) == ("jupyterlab", str(tiny.root / "my_course"))
    assert options[-2:] == ["--ip=0.0.0.0", "--port=9"]
    assert "--ServerApp.ip=127.0.0.1" not in options
    (tiny.root / "notebooks").mkdir(exist_ok=True)
    only = tiny.run("lab", "--solved").stdout.splitlines()
    assert len(only) == 1 and only[0].startswith(f"jupyterlab|{tiny.root / 'notebooks'}|")
    assert "--ServerApp.ip=127.0.0.1" in only[0] and "--solved" not in only[0]


def test_a_changed_input_installs_again_and_an_extra_is_kept(tiny):
    (tiny.root / "constraints.txt").write_text("torch==2.13.0\n")
    assert tiny.run("doctor").stderr.startswith("constraints.txt changed: installing")
    assert tiny.run("doctor").stderr == ""
    note = tiny.root / ".venv" / course.NOTE
    course.environment(tiny.root, ["dev"])                       # as `test` does
    assert json.loads(note.read_text())["extras"] == ["dev"]
    before = note.read_text()
    assert tiny.run("doctor").stderr == "" and note.read_text() == before


@pytest.mark.parametrize("key, value", [("python", "3.10"), ("root", "/elsewhere"), ("pip", "-v")])
def test_another_python_place_or_pip_makes_the_environment_anew(tiny, key, value):
    note = course.read_note(tiny.root)
    wanted = course.inputs(tiny.root, note["extras"], note["pip"])
    assert course.plan(tiny.root, note, wanted) == ("keep", "")
    assert course.plan(tiny.root, {**note, key: value}, wanted)[0] == "make"
    assert course.plan(tiny.root, {}, wanted)[0] == "install"    # not made by us, but whole


def damage_python(root: Path):
    course.python_of(root).unlink()


def damage_package(root: Path):
    (found,) = (root / ".venv").rglob("course_marker.py")
    found.unlink()


def damage_pip(root: Path):
    (found,) = (root / ".venv").glob("lib/*/site-packages/pip/__init__.py")
    found.unlink()


@pytest.mark.parametrize("damage", [damage_python, damage_package, damage_pip])
def test_a_broken_environment_is_told_from_a_whole_one(tiny, damage, tmp_path):
    """On a copy whose note is left out, since a copied environment is made again anyway."""
    shutil.copytree(tiny.root, tmp_path / "copy", symlinks=True)
    copy = tmp_path / "copy"
    assert course.health(copy, []) == ("", "")
    damage(copy)
    assert course.health(copy, [])[0]
    assert course.plan(copy, {}, {"extras": []})[0] == "make"


def test_a_broken_environment_is_rebuilt(tiny):
    damage_package(tiny.root)
    done = tiny.run("doctor")
    assert done.returncode == 0 and done.stdout.startswith("cli|")
    assert "broken (files of gligen-lessons are missing): installing" in done.stderr
    assert tiny.run("doctor").stderr == ""


def test_no_network_is_one_line_and_a_later_start_tries_again(tiny):
    """The index is a port at which nobody listens: pip fails as it does without a network."""
    tiny.write(requires="no-such-package-of-the-course>=1")
    nowhere = "--index-url http://127.0.0.1:9/simple --retries 1 --timeout 2"
    note = course.read_note(tiny.root) | {"pip": nowhere}        # remembered from an earlier start
    (tiny.root / ".venv" / course.NOTE).write_text(json.dumps(note))
    done = tiny.run("doctor")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: pip cannot reach the package index")
    assert "missing: no-such-package-of-the-course" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 2
    assert "127.0.0.1" in (tiny.root / course.LOG).read_text()
    tiny.write(requires="")
    assert tiny.run("doctor").returncode == 0


# ------------------------------------------------- whatever happens, the old environment is whole

def until(true, seconds=60.):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(.02)


def is_whole(tiny: Tiny) -> bool:
    """Whether .venv runs, knows its packages and its note, and nothing else lies beside it."""
    return course.health(tiny.root, []) == ("", "") and bool(course.read_note(tiny.root)) and \
        not any((tiny.root / name).exists() for name in (course.NEXT, course.OLD))


@pytest.mark.parametrize("words", [["--pip", "--index-url 'x"], ['--pip=--extra "y']])
def test_a_missing_quote_is_told_before_anything_is_touched(tiny, words):
    before = course.read_note(tiny.root)
    done = tiny.run("doctor", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --pip {words[-1].removeprefix('--pip=')}: no closing quotation\n"
    assert is_whole(tiny) and course.read_note(tiny.root) == before


def test_arguments_that_pip_refuses_leave_the_old_environment(tiny):
    before = course.read_note(tiny.root)
    done = tiny.run("doctor", "--pip", "--no-such-option")
    assert done.returncode == 2 and "no such option" in done.stderr.splitlines()[-1]
    assert is_whole(tiny) and course.read_note(tiny.root) == before
    assert tiny.run("doctor").stderr == ""


@pytest.mark.parametrize("words", [[], ["--pip", "--pre"]])      # complete it; make it again
def test_a_start_that_is_killed_leaves_the_old_environment(tiny, words):
    (tiny.root / "slow").touch()
    (tiny.root / "constraints.txt").write_text(f"# {words}")
    before = course.read_note(tiny.root)
    child = tiny.start("doctor", *words)
    until(lambda: (tiny.root / course.NEXT).exists() and "editable" in
          (tiny.root / course.LOG).read_text())
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert course.health(tiny.root, []) == ("", "") and course.read_note(tiny.root) == before
    (tiny.root / "slow").unlink()
    assert tiny.run("doctor", *words).returncode == 0 and is_whole(tiny)


@pytest.mark.parametrize("whole", [True, False])
def test_a_start_that_is_killed_while_it_exchanges_loses_neither(tmp_path, whole):
    for name, content in ((course.OLD, "old"), (course.NEXT, "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(content)
    if whole:
        (tmp_path / course.NEXT / course.NOTE).write_text("{}")
    course.settle(tmp_path)
    assert (tmp_path / ".venv" / "content").read_text() == ("new" if whole else "old")
    assert [path.name for path in tmp_path.iterdir()] == [".venv"]


def test_programs_of_the_environment_know_where_they_lie(tiny):
    """They were written while it had another name."""
    folder = course.python_of(tiny.root).parent
    assert not [path.name for path in folder.iterdir() if course.NEXT.encode() in path.read_bytes()]
    (program,) = folder.glob("pip3.exe" if os.name == "nt" else "pip3")
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and str(tiny.root / ".venv") in done.stdout


def test_two_first_starts_wait_for_each_other(tmp_path):
    tiny = Tiny(tmp_path)
    (tmp_path / "slow").touch()
    first = tiny.start("doctor")
    until(lambda: (tmp_path / course.NEXT).exists())
    second = tiny.start("doctor")
    line = second.stderr.readline()
    (tmp_path / "slow").unlink()
    assert line.startswith("another start is installing into .venv: waiting")
    for child, said in ((first, "first start: installing"), (second, "")):
        out, err = child.communicate(timeout=600)
        assert (child.returncode, out) == (0, f"cli|{tmp_path}|doctor\n") and err.startswith(said)
    assert not err and is_whole(tiny)


@pytest.mark.parametrize("note", ["[]", "5", '"text"', '{"pip": 5}', '{"extras": "nope"}',
                                  '{"extras": [["dev"]]}', '{"extras": 7}', '{"pip": "\'"}',
                                  "[" * 100_000, '{"extras": ["unknown"]}', "\x00"])
def test_a_note_that_was_broken_by_hand_is_none(tiny, tmp_path, note):
    shutil.copy(tiny.root / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / course.NOTE).write_text(note)
    assert course.read_note(tmp_path) == {}


@pytest.mark.parametrize("text", ["[project", "", "project = 5", "[project]\nname = 5",
                                  "[project]\nname = 'x'\ndependencies = 7",
                                  "[project]\nname = 'x'\ndependencies = [7]",
                                  "[project]\nname = 'x'\noptional-dependencies = 7",
                                  "[project]\nname = 'x'\ndependencies = ['<>']"])
def test_a_broken_project_file_is_one_line(tmp_path, text):
    tiny = Tiny(tmp_path)
    (tmp_path / "pyproject.toml").write_text(text)
    done = tiny.run("doctor")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: pyproject.toml is broken")


def test_files_of_the_working_folder_and_pythonpath_are_no_modules(tiny, tmp_path):
    for folder in (tmp_path / "here", tmp_path / "path", tiny.root):
        folder.mkdir(exist_ok=True)
        for name in ("random", "json", "shutil", "gligen_lessons_none"):
            (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    done = tiny.run("doctor", cwd=tmp_path / "here", PYTHONPATH=str(tmp_path / "path"))
    for path in tiny.root.glob("*.py"):
        if path.stem in ("random", "json", "shutil", "gligen_lessons_none"):
            path.unlink()
    # course.py itself is read by the Python that was called, with its PYTHONPATH
    assert done.stdout == f"cli|{tmp_path / 'here'}|doctor\n", done.stderr


def test_a_home_that_cannot_be_written_is_replaced(tmp_path, monkeypatch):
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert not set(names) & set(course.surroundings())
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "none"))
    monkeypatch.setenv("IPYTHONDIR", "mine")
    found = course.surroundings()
    assert all(found[name].startswith(str(course.ROOT / ".venv")) for name in names[:3])
    assert found["IPYTHONDIR"] == "mine"


# ------------------------------------------------------------------------- JupyterLab for real

def answer(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


WATCH = """import os, socket, sys
HERE = {None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()}
def watch(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in HERE:
        with open(os.environ["ASKED"], "a") as file:
            print(arguments[0], file=file)
sys.addaudithook(watch)
"""


@pytest.fixture
def lab_server(tmp_path):
    """A running JupyterLab: (its own description of itself, its parent, the hosts it asked)."""
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "RUNTIME", "DATA")}
    for name in ("lessons", "watch"):
        (tmp_path / name).mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    requested = tmp_path / "asked.txt"
    requested.touch()
    script = ("import os, sys, pathlib, course; folder = pathlib.Path(sys.argv[1]); "
              "course.surroundings = lambda: dict(os.environ); "  # for WATCH
              "options = course.jupyter_options(['--no-browser', '--port-retries=50'], folder); "
              "sys.exit(course.hand_over([sys.executable, '-m', 'jupyterlab'] + options, folder))")
    env = dict(os.environ, **own, ASKED=str(requested), PYTHONPATH=str(tmp_path / "watch"))
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "lessons")], cwd=ROOT,
                             env=env, stderr=subprocess.DEVNULL)
    for _ in range(3000):
        if servers := list((tmp_path / "RUNTIME").glob("jpserver-*.json")):
            break
        time.sleep(0.1)
    time.sleep(0.3)                                              # until it is written and listens
    yield json.loads(servers[0].read_text()), child, requested
    child.kill()
    child.wait()


@pytest.mark.skipif(os.name == "nt", reason="ends the server with SIGTERM, which Windows has not")
def test_jupyterlab_takes_our_options_asks_nobody_and_stops_with_us(lab_server, tmp_path):
    server, child, requested = lab_server
    token = f"?token={server['token']}"
    assert server["root_dir"] == str(tmp_path / "lessons") and len(server["token"]) > 20
    assert server["url"].startswith(("http://127.0.0.1:", "http://localhost:"))
    assert answer(server["url"] + "api/contents")[0] == 403
    status, page = answer(f"{server['url']}lab{token}")
    text = page.split('id="jupyter-config-data" type="application/json">')[1].split("</script>")[0]
    assert status == 200 and json.loads(text)["news"] == {"disabled": True}
    assert json.loads(text)["extensionManager"]["can_install"] is False
    update = answer(f"{server['url']}lab/api/update{token}")[1]
    assert json.loads(update) == {"notification": None}
    assert requested.read_text() == ""
    child.send_signal(signal.SIGTERM)
    child.wait(60)
    with pytest.raises(OSError):
        os.kill(server["pid"], 0)


def test_the_ci_script_is_sound_bash_and_runs_the_test_command():
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert "set -euo pipefail" in text and text.rstrip().endswith("python3 course.py test")
    if shutil.which("bash"):
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)
