"""The lessons' checks, against the answers that people give.

tests/answers/LESSON.py holds, for each exercise of gligen_lessons/checks/LESSON.py,
    WRONG = {"q_sample": [(function, "words of the message"), ...]}       at least three
    RIGHT = {"q_sample": [function, ...]}                                 at least two
"""

import importlib
import inspect
import runpy
from pathlib import Path

import pytest
import torch

from gligen_lessons import checks
from gligen_lessons.checks import Wrong

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "tests" / "answers"
LESSONS = sorted(p.stem for p in (ROOT / "gligen_lessons" / "checks").glob("[a-z]*.py"))


def answers(lesson):
    path = ANSWERS / f"{lesson}.py"
    return runpy.run_path(str(path)) if path.exists() else {"WRONG": {}, "RIGHT": {}}


def exercises(lesson):
    module = importlib.import_module(f"gligen_lessons.checks.{lesson}")
    return {name: f for name, f in vars(module).items() if hasattr(f, "target")}


CASES = {lesson: (exercises(lesson), answers(lesson)) for lesson in LESSONS}
EXERCISES = [pytest.param(lesson, name, id=f"{lesson}-{name}")
             for lesson, (found, _) in CASES.items() for name in found]


@pytest.mark.parametrize("lesson, name", EXERCISES)
def test_an_exercise_has_enough_answers(lesson, name):
    wrong, right = (CASES[lesson][1][key].get(name, []) for key in ("WRONG", "RIGHT"))
    assert len(wrong) >= 3 and len(right) >= 2, f"add to tests/answers/{lesson}.py"
    assert name == CASES[lesson][0][name].target.replace(".", ":").split(":")[-1]


@pytest.mark.parametrize("lesson", LESSONS)
def test_answers_belong_to_exercises(lesson):
    found, given = CASES[lesson]
    assert set(given["WRONG"]) | set(given["RIGHT"]) <= set(found)


def test_answers_belong_to_lessons():
    assert {path.stem for path in ANSWERS.glob("*.py")} <= set(LESSONS)


@pytest.mark.parametrize("lesson, name, i", [
    pytest.param(lesson, name, i, id=f"{lesson}-{name}-{i}")
    for lesson, (_, given) in CASES.items() for name, listed in given["WRONG"].items()
    for i in range(len(listed))])
def test_wrong_answers_are_refused_with_the_right_words(lesson, name, i):
    attempt, words = CASES[lesson][1]["WRONG"][name][i]
    with pytest.raises(Wrong) as told:
        CASES[lesson][0][name](attempt)
    assert len(words) >= 4 and words.lower() in str(told.value).lower(), str(told.value)


@pytest.mark.parametrize("lesson, name, i", [
    pytest.param(lesson, name, i, id=f"{lesson}-{name}-{i}")
    for lesson, (_, given) in CASES.items() for name, listed in given["RIGHT"].items()
    for i in range(len(listed))])
def test_right_answers_pass(lesson, name, i, capsys):
    attempt = CASES[lesson][1]["RIGHT"][name][i]
    assert CASES[lesson][0][name](attempt) is attempt
    said = capsys.readouterr().out
    assert said.startswith("Well done") and any(ch.isdigit() for ch in said), said


# What nobody may get past any check, whatever the exercise.

def changed(value, change):
    """A result with each floating tensor in it changed."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return change(value)
    if isinstance(value, float):
        return float(change(torch.tensor(value)))
    if isinstance(value, tuple | list):
        return type(value)(changed(part, change) for part in value)
    if isinstance(value, dict):
        return {key: changed(part, change) for key, part in value.items()}
    return value


def spoiled(own, change):
    """The library's version with every result changed; None where results cannot be reached."""
    if isinstance(own, type) and hasattr(own, "forward"):
        return type(own.__name__, (own,), {
            "forward": lambda self, *args, **named: changed(own.forward(self, *args, **named),
                                                            change)})
    if inspect.isgeneratorfunction(own):
        return lambda *args, **named: (changed(part, change) for part in own(*args, **named))
    if inspect.isfunction(own):
        return lambda *args, **named: changed(own(*args, **named), change)
    return None


SPOILERS = {"nan": lambda x: x * float("nan"), "zeros": torch.zeros_like,
            "off": lambda x: x * 1.01 + 0.01}


@pytest.mark.parametrize("spoiler", SPOILERS)
@pytest.mark.parametrize("lesson, name", EXERCISES)
def test_spoiled_results_are_refused(lesson, name, spoiler):
    check, met = CASES[lesson][0][name], []

    def change(value):
        met.append(not torch.equal(SPOILERS[spoiler](value), value))
        return SPOILERS[spoiler](value)
    attempt = spoiled(checks.library(check.target), change)
    assert attempt is not None, f"{name} is neither a function nor a network"
    try:
        check(attempt)
    except Wrong:
        return
    assert not any(met), f"{name} takes {spoiler} for right"


@pytest.mark.parametrize("lesson, name", EXERCISES)
def test_an_open_answer_gets_the_library_s(lesson, name, capsys):
    check = CASES[lesson][0][name]
    assert check(left_open_any) is checks.library(check.target)
    assert "still open" in capsys.readouterr().out


def left_open_any(*args, **named):
    raise NotImplementedError()
