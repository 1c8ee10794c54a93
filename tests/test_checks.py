"""The checks' machinery: what it says to right, wrong, open and broken answers."""

import pytest
import torch

from gligen_lessons import checks, schedule
from gligen_lessons.checks import Wrong, exercise, expect_close, looks_like

VALUES = torch.tensor([3.0, 5.0, 8.0])
T = torch.tensor([2, 0])
LIKE = torch.zeros(2, 1, 2, 3)


@exercise("gligen_lessons.schedule:extract")
def at(attempt):
    """A check as a lesson would write it."""
    want = torch.tensor([8.0, 3.0]).view(2, 1, 1, 1)
    error = expect_close(attempt(VALUES, T, LIKE), want, "Pick the value of each step.",
                         mistakes={"t counts from 0.": want - 1})
    return f"picks each step's value, largest difference {error:.0e}"


def answer(values, t, like):
    return values[t].view(-1, 1, 1, 1)


def left_open(values, t, like):
    raise NotImplementedError()


def test_a_right_answer_is_praised_and_handed_on(capsys):
    assert at(answer) is answer
    assert capsys.readouterr().out == \
        "Well done: at picks each step's value, largest difference 0e+00\n"


def test_an_open_exercise_hands_on_the_library_s(capsys):
    assert at(left_open) is schedule.extract
    assert capsys.readouterr().out.startswith("at is still open.")


def test_an_open_part_is_named(capsys):
    assert at(lambda values, t, like: left_open(values, t, like)) is schedule.extract
    assert "at calls left_open, which is still open" in capsys.readouterr().out


def test_nbgrader_gives_no_points_for_an_open_exercise(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(checks.Open, match="at is still open"):
        at(left_open)
    assert at(answer) is answer


def test_the_library_s_own_version_earns_no_praise(capsys):
    """A learner who runs only the check's cell again must not read "well done"."""
    assert at(schedule.extract) is schedule.extract
    assert "Well done" not in capsys.readouterr().out


def divides(values, t, like):
    return answer(values, t, like) / (1 // 0)


@pytest.mark.parametrize("attempt, words", [
    (lambda v, t, x: None, "does it end with `return`"),
    (lambda v, t, x: "text", "expected a tensor, got a str"),
    (lambda v, t, x: (v, t), "expected a tensor"),
    (lambda v, t, x: v[t], "shape (2,), expected (2, 1, 1, 1)"),
    (lambda v, t, x: answer(v, t, x).double(), "torch.float64, expected torch.float32"),
    (lambda v, t, x: answer(v, t, x) * float("nan"), "2 of 2 values are nan"),
    (lambda v, t, x: answer(v, t, x) / 0, "2 of 2 values are nan or infinite"),
    (lambda v, t, x: answer(v, t, x) - 1, "t counts from 0."),
    (lambda v, t, x: answer(v, t, x) + 2, "pick the value of each step. (largest difference 0.2"),
    (divides, "at stopped with zerodivisionerror: integer division or modulo by zero (your line"),
    (lambda v, t, x: undefined, "nameerror: name 'undefined'"),              # noqa: F821
    (lambda v, t: v, "stopped with typeerror"),
    (7, "'int' object is not callable"),
    (lambda v, t, x: torch.zeros(1).half().not_there, "attributeerror"),
])
def test_a_wrong_answer_is_told_why(attempt, words):
    with pytest.raises(Wrong) as told:
        at(attempt)
    assert words in str(told.value).lower() or words in str(told.value)


def test_the_learner_s_line_is_quoted():
    with pytest.raises(Wrong, match=r"return answer\(values, t, like\) / \(1 // 0\)"):
        at(divides)


def test_a_torch_function_that_is_not_implemented_is_no_open_exercise():
    def missing(values, t, like):
        raise NotImplementedError("'cumprod' is not implemented for 'Half'")
    with pytest.raises(Wrong, match="NotImplementedError: 'cumprod'"):
        at(missing)


def test_a_check_draws_the_same_and_leaves_the_random_state():
    seen = []

    def drawing(values, t, like):
        seen.append(torch.rand(1).item())
        return answer(values, t, like)
    torch.manual_seed(5)
    at(drawing), torch.rand(3), at(drawing)
    after = torch.rand(1).item()
    torch.manual_seed(5)
    torch.rand(3)
    assert seen[0] == seen[1] and after == torch.rand(1).item()


def test_classes_are_exercises_too(capsys):
    @exercise("gligen_lessons.schedule:Schedule")
    def Schedule(attempt):
        value = attempt(torch.tensor([0.5])).T
        expect_close(value, 1, "T counts the betas.")
        return "counts 1 step"

    class Empty:
        def __init__(self, betas):
            raise NotImplementedError()

    class Own:
        T = 1

        def __init__(self, betas):
            pass

    class Broken(Own):
        @property
        def T(self):
            return [][0]
    assert Schedule(Own) is Own and Schedule(Empty) is schedule.Schedule
    assert "Schedule is still open." in capsys.readouterr().out
    with pytest.raises(Wrong, match="IndexError"):
        Schedule(Broken)


def test_methods_have_an_address():
    assert checks.library("gligen_lessons.schedule:Schedule.linear")(T=3).T == 3


@pytest.mark.parametrize("got, want", [
    (1.0, 1), ((1, 2.0), (1, 2.0)), ({"a": torch.ones(2)}, {"a": torch.ones(2)}), ([], []),
    (torch.full((2,), 1e6) + 1, torch.full((2,), 1e6)),
])
def test_expect_close_accepts(got, want):
    assert expect_close(got, want, "no") <= 1e-5


@pytest.mark.parametrize("got, want, words", [
    (1.1, 1, "mend it"), ((1, 2), (1, 2, 3), "expected 3 values, got a tuple of 2"),
    ({"a": 1}, {"b": 1}, "keys"), (float("nan"), 1.0, "NaN"), ((1, None), (1, 2), "None"),
    (torch.ones(2) + 1e-4, torch.ones(2), "mend it"),
])
def test_expect_close_refuses(got, want, words):
    with pytest.raises(Wrong, match=words):
        expect_close(got, want, "mend it")


def test_looks_like_recognises_small_values_and_tuples():
    looks_like(torch.tensor([1e-7]), {"zero": torch.tensor([0.0]), "two": torch.tensor([2e-7])})
    with pytest.raises(Wrong, match="swapped"):
        looks_like((1, 2), {"other": (1, 3), "short": (1,), "swapped": (1, 2)})
    looks_like(torch.ones(2, 2) * float("nan"), {"nan": torch.ones(2, 2) * float("nan")})


def test_a_notebook_shows_the_message_alone():
    """Real use: IPython's own way of printing an error."""
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell()
    printed = []
    shell._showtraceback = lambda kind, error, lines: printed.extend(lines)
    shell.push({"at": at})
    shell.run_cell("at(lambda values, t, like: None)")
    assert printed == ["Not yet right: it returned None. Does it end with `return`?"]
