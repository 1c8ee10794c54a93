"""The course in one command: it makes its own environment, then does what was asked.

    python course.py lab [--solved] [jupyter options]   open the lessons in JupyterLab
    python course.py test [pytest options]              lint, weave, tests, every notebook
    python course.py doctor                             what this machine can do
    python course.py world|generate|train|ship|evaluate|experiment|student|slides|export ...

`lab` writes the learner's notebooks into my_course/ once and never over them; with --solved it
opens the solved ones. `test` with a path, -k or another selection runs only what was selected
and leaves the notebooks out; other pytest options go to the stage "tests".

    --pip "ARGUMENTS"   extra arguments for pip, such as an index with another build of torch;
                        they are remembered, and changing them makes the environment anew
"""
# Standard library only. An old Python must be able to read this file, so that it can be told
# what is wrong: no syntax newer than Python 3.6, and tomllib (3.11) only where it is needed.
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
FORWARDED = ("doctor", "world", "generate", "draw", "train", "ship", "evaluate", "experiment",
             "student", "slides", "export")
SPACE_GB = 4            # a fresh environment takes 2 GB with a CPU build of torch, and pip unpacks
NOTE = "course.json"    # lies in .venv: what it was made from
LOG = ".venv-install.log"
FULL = (f"the disk is too full: the environment needs about {SPACE_GB} GB (10 with a CUDA build "
        "of torch). Free some space and start again.")

# Run by the environment's own Python: says what is wrong with it, or nothing. It looks for the
# top modules of every installed package and for every package that is needed, and imports none
# of them: torch alone would take seconds.
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


# ---------------------------------------------------------------------------- the environment

def python_of(root):
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def needed(root, extras):
    """Names of the packages that must be there: the project, what it asks for, its extras."""
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [project["name"]] + project.get("dependencies", [])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    names = {re.match(r"[\w.-]+", line).group() for line in lines}
    return sorted(re.sub(r"[-_.]+", "-", name).lower() for name in names)


def inputs(root, extras, pip_args):
    """What the environment is made from: when one of these changes, it is no longer right."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    made_from = {"python": version, "root": str(root), "pip": pip_args, "extras": extras}
    for name in ("pyproject.toml", "constraints.txt"):
        made_from[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    return made_from


def read_note(root):
    try:
        return json.loads((root / ".venv" / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def health(root, extras):
    """(what is broken, which packages are missing) in .venv: two empty strings if it is whole."""
    command = [str(python_of(root)), "-I", "-c", CHECK, str(root / ".venv")]
    try:
        done = subprocess.run(command + needed(root, extras), capture_output=True, text=True,
                              timeout=60)
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
    note = read_note(root)
    extras = sorted(set(extras) | set(note.get("extras", [])))
    wanted = inputs(root, extras, note.get("pip", "") if pip_args is None else pip_args)
    todo, reason = plan(root, note, wanted)
    if todo != "keep":
        length = "a few minutes" if todo == "make" else "a moment"
        say(f"{reason}: installing into .venv, {length} (details: {LOG})")
        started = time.monotonic()
        if todo == "make":
            make_venv(root)
        install(root, extras, wanted["pip"])
        (root / ".venv" / NOTE).write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        say(f"installed in {time.monotonic() - started:.0f} s")
    return python_of(root)


def make_venv(root):
    if shutil.disk_usage(str(root)).free < SPACE_GB * 1e9:
        raise Stop(FULL)
    maker = getattr(sys, "_base_executable", "") or sys.executable  # not the .venv it replaces
    done = subprocess.run([maker, "-m", "venv", "--clear", str(root / ".venv")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        (root / LOG).write_text(done.stdout, encoding="utf-8")
        raise Stop(explain(done.stdout, "Python could not make .venv"))


def install(root, extras, pip_args):
    """Install the project in place, with the tested versions; pip's words go to the log."""
    target = "." + (f"[{','.join(extras)}]" if extras else "")
    command = [str(python_of(root)), "-m", "pip", "install", "--disable-pip-version-check",
               "--no-input", "--progress-bar", "off", "-c", "constraints.txt", "-e", target]
    command += shlex.split(pip_args, posix=os.name != "nt")
    env = dict(os.environ, PIP_USER="0", PYTHONUNBUFFERED="1")
    with (root / LOG).open("w", encoding="utf-8") as log, subprocess.Popen(
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
    errors = re.findall(r"(?mi)^error: *(.+)$", output) or output.split("\n")
    return f"{what}: {errors[-1].strip()} (Details: {LOG})"


# ------------------------------------------------------------------------------- the commands

def hand_over(command, folder):
    """Run a command that owns the terminal: Ctrl-C is its to answer, not ours."""
    child = subprocess.Popen([str(part) for part in command], cwd=str(folder))
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
                                "--out", str(folder)], cwd=str(root))
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
        if word.startswith("--pip="):
            return words[:number] + words[number + 1:], word[len("--pip="):]
        if word == "--pip":
            if number + 1 == len(words):
                raise Stop('--pip needs its arguments in quotes, for example --pip "--pre"')
            return words[:number] + words[number + 2:], words[number + 1]
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
