"""The course in one command: it makes its own environment, then does what was asked.

    python course.py lab [--solved] [jupyter options]   open the lessons in JupyterLab
    python course.py test [pytest options]              lint, weave, tests, every notebook
    python course.py doctor                             what this machine can do
    python course.py world|generate|edit|train|ship|evaluate|experiment|student|slides|export ...

`lab` writes the learner's notebooks into my_course/ once and never over them; with --solved it
opens the solved ones. `test` with a path, -k or another selection runs only what was selected
and leaves the notebooks out; other pytest options go to the stage "tests".

    --pip "ARGUMENTS"   extra arguments for pip, such as an index with another build of torch;
                        they are remembered, and changing them makes the environment again
"""
# Standard library only. An old Python must be able to read this file, so that it can be told
# what is wrong: no syntax newer than Python 3.6, and tomllib (3.11) only where it is needed.
import os
import sys

if __name__ == "__main__":      # no random.py beside this file or in PYTHONPATH is Python's own
    for folder in [os.path.dirname(__file__)] + os.environ.get("PYTHONPATH", "").split(os.pathsep):
        sys.path[:] = [path for path in sys.path if path != os.path.abspath(folder)]
import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
FORWARDED = ("doctor", "world", "generate", "edit", "draw", "train", "ship", "evaluate",
             "experiment", "student", "slides", "export")
SPACE_GB = 4            # a fresh environment takes 2 GB with a CPU build of torch, and pip unpacks
NOTE = "course.json"    # lies in .venv: what it was made from
NEXT, OLD = ".vnew", ".vold"    # beside .venv; names of one length can be exchanged in programs
LOG = ".venv-install.log"
FULL = (f"the disk is too full: the environment needs about {SPACE_GB} GB (10 with a CUDA build "
        "of torch). Free some space and start again.")

# Run by the environment's own Python: says what is wrong with it, or nothing. It looks for every
# package that is needed and the top modules of all, and imports none: torch would take seconds.
CHECK = r"""
import re, sys
from importlib.metadata import distributions
from pathlib import Path
if Path(sys.prefix).resolve() != Path(sys.argv[1]).resolve():
    sys.exit("it belongs to " + sys.prefix)
found = set()
for dist in distributions(path=[p for p in sys.path if Path(p).is_relative_to(sys.prefix)]):
    name, record = dist.metadata["Name"], dist.read_text("RECORD")
    modules = re.findall(r"^[^/,\n]+(?:/__init__)?\.py(?=,)", record or "", re.M)
    if not name or not record or not all(dist.locate_file(m).exists() for m in modules):
        sys.exit("files of %s are missing" % name)
    found.add(re.sub(r"[-_.]+", "-", name).lower())
print(", ".join(name for name in sys.argv[2:] if name not in found))
"""


class Stop(Exception):
    """Ends the command with one line for the reader."""


def say(text):
    """Notes go to stderr, so that what a forwarded command prints can be piped."""
    print(text, file=sys.stderr, flush=True)


def python_of(root, name=".venv"):
    return root / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def packages(root):
    """The names of the packages that must be there, by extra; under "" those of everybody."""
    import tomllib

    try:
        told = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = {"": [told["name"], *told.get("dependencies", [])],
                 **told.get("optional-dependencies", {})}
        return {extra: [re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line).group()).lower()
                        for line in some] for extra, some in lines.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Stop("pyproject.toml is broken: take it again from where the course came from "
                   f"({error})") from error


def inputs(root, extras, pip_args):
    """What the environment is made from: when one of these changes, it is no longer right."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    made_from = {"python": version, "root": str(root), "pip": pip_args, "extras": extras}
    for name in ("pyproject.toml", "constraints.txt"):
        made_from[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    return made_from


def read_note(root):
    """What .venv was made from; nothing where no note lies there, or a broken one."""
    try:
        note = json.loads((root / ".venv" / NOTE).read_text(encoding="utf-8"))
        shlex.split(note.get("pip", ""))
        return note if {*note.get("extras", [])} <= {*packages(root)} else {}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        return {}


def health(root, extras):
    """(what is broken, which packages are missing) in .venv: two empty strings if it is whole."""
    needed = sorted({name for extra in ["", *extras] for name in packages(root)[extra]})
    command = [str(python_of(root)), "-I", "-c", CHECK, str(root / ".venv"), *needed]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "its Python does not start", ""
    if done.returncode:
        return (done.stderr.strip() or "its Python does not start").splitlines()[-1], ""
    return "", done.stdout.strip()


def plan(root, note, wanted):
    """What to do about .venv and why: ("keep" | "install" | "make", reason)."""
    if not (root / ".venv").exists():
        return "make", "first start"
    for key, reason in (("python", "another Python"), ("root", "the folder was moved or copied"),
                        ("pip", "other arguments for pip")):
        if note and note.get(key) != wanted[key]:
            return "make", reason
    broken, missing = health(root, wanted["extras"])
    if broken:
        return "make", f".venv is broken ({broken})"
    if missing:
        return "install", f"missing: {missing}"
    changed = [key for key in wanted if note.get(key) != wanted[key]]
    return ("install", " and ".join(changed) + " changed") if changed else ("keep", "")


def environment(root, extras=(), pip_args=None):
    """Make, complete or keep .venv, and return its Python."""
    if todo(root, extras, pip_args)[0] != "keep":
        with alone(root):
            settle(root)
            work, reason, wanted = todo(root, extras, pip_args)   # another start may have done it
            if work != "keep":
                renew(root, work, reason, wanted)
    return python_of(root)


def todo(root, extras, pip_args):
    """What must be done about .venv, why, and what it is to be made from."""
    note, _ = read_note(root), packages(root)
    extras = sorted({*extras, *note.get("extras", [])})
    wanted = inputs(root, extras, note.get("pip", "") if pip_args is None else pip_args)
    return (*plan(root, note, wanted), wanted)


@contextmanager
def alone(root):
    """Let one start at a time change the environment; others wait, and say so."""
    with open(str(root / ".venv.lock"), "ab") as file:
        if not locked(file):
            say("another start is installing into .venv: waiting until it has ended")
        while not locked(file):
            time.sleep(.2)
        yield                                   # closing the file, or our end, gives the lock back


def locked(file):
    """Whether we hold the lock now; the system takes it back when this process ends."""
    try:
        if os.name == "nt":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def settle(root):
    """Finish what a start that was killed left: the next environment if whole, else the old one."""
    left = root / (NEXT if (root / NEXT / NOTE).exists() else OLD)
    if left.exists() and not (root / ".venv").exists():
        left.rename(root / ".venv")
    for name in (NEXT, OLD):
        shutil.rmtree(str(root / name), ignore_errors=True)


def renew(root, work, reason, wanted):
    """Make the environment, or complete a copy of it, and put that in its place when whole."""
    say(f"{reason}: installing into .venv, {'a few minutes' if work == 'make' else 'a moment'} "
        f"(details: {LOG})")
    started = time.monotonic()
    try:
        (make_venv if work == "make" else copy_venv)(root)
        install(root, wanted["extras"], wanted["pip"])
        rename_inside(root)
        (root / NEXT / NOTE).write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        if (root / ".venv").exists():
            (root / ".venv").rename(root / OLD)     # Windows refuses while a program of it runs
        (root / NEXT).rename(root / ".venv")
    finally:
        settle(root)
    say(f"installed in {time.monotonic() - started:.0f} s")


def copy_venv(root):
    """A copy that shares its files with the old one: pip removes what it will write again."""
    old, new = str(root / ".venv"), str(root / NEXT)
    try:
        shutil.copytree(old, new, symlinks=True, copy_function=os.link)
    except OSError:                             # a disk on which a file has one name
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(old, new, symlinks=True)
    (root / NEXT / NOTE).unlink(missing_ok=True)


def rename_inside(root):
    """Let the programs of the next environment begin with the path that they will have."""
    old, new = (os.fsencode(str(root / name)) for name in (NEXT, ".venv"))
    for path in python_of(root, NEXT).parent.iterdir():
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if old in data:
            mode = path.stat().st_mode
            path.unlink()                       # it may be one file with the old environment's
            path.write_bytes(data.replace(old, new))
            path.chmod(mode)


def make_venv(root):
    if shutil.disk_usage(str(root)).free < SPACE_GB * 1e9:
        raise Stop(FULL)
    maker = getattr(sys, "_base_executable", "") or sys.executable  # not the .venv it replaces
    done = subprocess.run([maker, "-m", "venv", "--clear", "--prompt", ".venv",
                           str(root / NEXT)], env=surroundings(),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        (root / LOG).write_text(done.stdout, encoding="utf-8")
        raise Stop(explain(done.stdout, "Python could not make .venv"))


def install(root, extras, pip_args):
    """Install the project in place, with the tested versions; pip's words go to the log."""
    target = "." + (f"[{','.join(extras)}]" if extras else "")
    command = [str(python_of(root, NEXT)), "-m", "pip", "install", "--no-input",
               "--disable-pip-version-check", "--progress-bar", "off", "-c", "constraints.txt",
               "-e", target, *shlex.split(pip_args, posix=os.name != "nt")]
    env = dict(surroundings(), PIP_USER="0", PYTHONUNBUFFERED="1")
    with (root / LOG).open("w", 1, encoding="utf-8") as log, subprocess.Popen(
            command, cwd=str(root), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace") as pip:
        for line in pip.stdout:
            log.write(line)
            show_progress(line.strip())
    show_progress("")
    if pip.returncode:
        raise Stop(explain((root / LOG).read_text(encoding="utf-8"), "pip failed"))


def show_progress(text):
    """On a terminal, one line that says what pip is at; the empty text wipes it."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="\r", file=sys.stderr, flush=True)


def explain(output, what):
    """The one line that says why an installation failed."""
    if re.search(r"No space left|not enough space|Errno 28|WinError 112", output):
        return FULL
    if re.search("connection broken|Max retries exceeded|Could not fetch URL|Read timed out",
                 output):
        return ("pip cannot reach the package index. The first start needs the network, later "
                f"ones do not. (Details: {LOG})")
    if "ensurepip" in output:
        return ("this Python has no ensurepip; on Debian and Ubuntu: "
                f"sudo apt install python3-venv. (Details: {LOG})")
    errors = re.findall(r"(?mi)^error: *(.+)$", output) or output.strip().split("\n")
    return f"{what}: {errors[-1].strip()} (Details: {LOG})"


def surroundings():
    """The variables for what we start: modules of this environment, and a home to write to."""
    env = {key: value for key, value in os.environ.items()
           if key not in ("PYTHONPATH", "PYTHONHOME")}
    env["PYTHONSAFEPATH"] = "1"                 # nor is a random.py in the working folder a module
    home = os.path.expanduser("~")
    if not (os.path.isdir(home) and os.access(home, os.W_OK)):
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
                     "MPLCONFIGDIR", "XDG_CACHE_HOME"):
            env.setdefault(name, str(ROOT / ".venv" / "home" / name.lower()))
    return env


def hand_over(command, folder):
    """Run a command that owns the terminal: Ctrl-C is its to answer, not ours."""
    child = subprocess.Popen(list(map(str, command)), cwd=str(folder), env=surroundings())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def jupyter_options(user, folder):
    """Our options for JupyterLab without those that the user gave in any spelling, then theirs."""
    given = {word.split("=")[0].lstrip("-").split(".")[-1].replace("-", "_")
             for word in user if word.startswith("-")}
    if "notebook_dir" in given:
        given.add("root_dir")
    ours = {"ip": "--ServerApp.ip=127.0.0.1", "root_dir": f"--ServerApp.root_dir={folder}",
            # nothing leaves the machine: no news, no look for updates or extensions
            "news_url": "--LabApp.news_url=None",
            "check_for_updates_class":
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "extension_manager": "--LabApp.extension_manager=readonly"}
    if hasattr(os, "geteuid") and os.geteuid() == 0:   # in a container; Jupyter refuses otherwise
        ours["allow_root"] = "--allow-root"
    return [option for name, option in ours.items() if name not in given] + user


def quiet(venv):
    """Answer JupyterLab's questions about news and updates, so that no learner is asked."""
    answers = {"@jupyterlab/apputils-extension:notification":
               {"fetchNews": "false", "checkForUpdates": False}}
    file = venv / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(answers), encoding="utf-8")


def lab(root, words, pip_args):
    python = environment(root, pip_args=pip_args)
    quiet(root / ".venv")
    folder = root / ("notebooks" if "--solved" in words else "my_course")
    if "--solved" not in words:
        made = subprocess.call([str(python), "-m", "gligen_lessons.cli", "student",
                                "--out", str(folder)], cwd=str(root), env=surroundings())
        if made:
            return made
    options = jupyter_options([word for word in words if word != "--solved"], folder)
    return hand_over([python, "-m", "jupyterlab"] + options, folder)


def test(root, words, pip_args):
    python = environment(root, extras=["dev"], pip_args=pip_args)
    return hand_over([python, root / "tools" / "stages.py"] + words, root)


def take_pip(words):
    """Take --pip ARGS or --pip=ARGS out of the words: (the other words, ARGS or None)."""
    for number, word in enumerate(words):
        name, equals, arguments = word.partition("=")
        if name == "--pip":
            rest = words[number + 1:] if equals else words[number + 2:]
            if not equals and number + 1 == len(words):
                raise Stop('--pip needs its arguments in quotes, for example --pip "--pre"')
            try:
                arguments = arguments if equals else words[number + 1]
                shlex.split(arguments)
            except ValueError as error:
                raise Stop(f"--pip {arguments}: {str(error).lower()}") from error
            return words[:number] + rest, arguments
    return words, None


def dispatch(root, words):
    words, pip_args = take_pip(words)
    command = words[0] if words else "help"
    if command in ("help", "-h", "--help"):
        print(__doc__.strip())
        return 0
    if command in ("lab", "test"):
        return (lab if command == "lab" else test)(root, words[1:], pip_args)
    if command not in FORWARDED:
        raise Stop(f"no command is called {command!r}; there are lab, test, {', '.join(FORWARDED)}")
    python = environment(root, pip_args=pip_args)
    return hand_over([python, "-m", "gligen_lessons.cli"] + words, Path.cwd())


def main(words, version=sys.version_info):
    if tuple(version[:2]) < OLDEST:
        say(f"error: the course needs Python 3.11 or newer and this is Python {version[0]}."
            f"{version[1]}. Start it with a newer one, for example: python3.12 course.py lab")
        return 2
    try:
        return dispatch(ROOT, words)
    except (Stop, OSError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
