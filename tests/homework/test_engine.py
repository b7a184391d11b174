"""What every check shares: running a student's code, comparing values, wording the verdict."""

from __future__ import annotations

import contextlib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from course_utils.homework import Progress, Verdict, WrongAnswerError, progress, require
from course_utils.homework.engine.checks import (
    AnswerCheck,
    FunctionCheck,
    PropertyCheck,
    Right,
    Wrong,
    ask,
    exercises_of,
    first_fault,
)
from course_utils.homework.engine.compare import brief, difference
from course_utils.homework.engine.verdict import VERDICT_TYPE


def batches(seed: int) -> list[tuple[Any]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(5, 3)),) for _ in range(3)]


check_variance = FunctionCheck(
    exercise="0.1 Variance",
    wants="x (batch, features) → the variance of each feature.",
    reference=lambda x: x.var(axis=0),
    cases=batches,
    right="Right: NumPy's var agrees.",
    seconds=0.3,
    mistakes={
        "you divided by n − 1: the batch variance divides by n": lambda x: x.var(axis=0, ddof=1),
        "you averaged over the features": lambda x: x.var(axis=1),
    },
)


def endless(x: Any) -> Any:
    while True:
        with contextlib.suppress(Exception):
            x = x + 1


def in_place(x: Any) -> Any:
    x -= x.mean(axis=0)
    return (x**2).mean(axis=0)


def fails(x: Any) -> Any:
    scale = 0
    return x / undefined + scale  # type: ignore[name-defined]  # noqa: F821


def exits(x: Any) -> Any:
    raise SystemExit


def asks(x: Any) -> Any:
    return input("x? ")


def own_exception(x: Any) -> Any:
    class Odd(BaseException):
        pass

    raise Odd("surprise")


def lacks_the_operation(x: Any) -> Any:
    raise NotImplementedError('"addmm_impl_cpu_" not implemented for "Half"')


def by_hand(x: Any) -> Any:
    mean = sum(x) / len(x)
    return sum((row - mean) ** 2 for row in x) / len(x)


WRONG = [
    (lambda x: x.var(axis=0, ddof=1), "n − 1"),
    (lambda x: x.var(axis=1), "over the features"),
    (endless, "still running after 0.3 s"),
    (in_place, "changes its input in place"),
    (fails, "it raises NameError: name 'undefined' is not defined (line 3 of `fails`"),
    (exits, "ends the program"),
    (asks, "calls input()"),
    (own_exception, "it raises Odd: surprise"),
    (lambda x: -x.var(axis=0), "the sign is flipped"),
    (lambda x: 2 * x.var(axis=0), "every value is 2 times what it should be"),
    (lambda x: x.var(axis=0) + 0.5, "every value is off by +0.5"),
    (lambda x: x.var(axis=0) + np.array([0, 1, 0]), "1 of 3 values differ, by up to 1"),
    (lambda x: None, "is the `return` missing?"),
    (lambda x: torch.tensor(x).float().var(0, correction=0), "dtype is float32; float64 is expected"),
    (lambda x: x.var(axis=0, keepdims=True), "axes of length 1"),
    (lambda x: x.var(), "An axis was lost"),
    (lambda x: x.var(axis=0) * np.nan, "3 of 3 values are NaN"),
    (lambda x: x.var(axis=0) * np.inf, "3 of 3 values are infinity"),
    (lambda x: x.var(axis=0).astype(np.float32), "dtype is float32; float64 is expected"),
    (lambda x: "0", "returns a str; a NumPy array is expected"),
    (lambda: 0, "takes 0 positional arguments"),
    (0.3, "the function itself, without calling it"),
]


@pytest.mark.parametrize(("answer", "words"), WRONG)
def test_a_fault_is_named(answer: Any, words: str) -> None:
    verdict = check_variance(answer)

    assert verdict.status == "wrong"
    assert words in verdict.message


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x.var(axis=0),
        by_hand,
        lambda x: x.var(axis=0).tolist(),
        lambda x: [np.var(column) for column in x.T],
        lambda x: [torch.tensor(column, requires_grad=True).var(correction=0) for column in x.T],
        lambda x: torch.tensor(x).var(dim=0, correction=0),
        lambda x: pd.DataFrame(x).var(ddof=0),
    ],
)
def test_the_container_does_not_matter(answer: Any) -> None:
    assert check_variance(answer)
    assert check_variance(answer, seed=7)


def test_a_stub_is_not_attempted() -> None:
    def stub(x: Any) -> Any:
        raise NotImplementedError  # your code here

    assert check_variance(stub).status == check_variance(...).status == "todo"


def test_an_operation_that_torch_lacks_is_not_a_stub() -> None:
    def half(x: Any) -> Any:
        exec(compile("raise NotImplementedError('not for Half')", "<elsewhere>", "exec"))

    assert check_variance(half).status == "wrong"


def test_verdict_is_false_until_right() -> None:
    assert check_variance(by_hand)
    assert not check_variance(in_place)
    assert not check_variance(...)


def test_keyboard_interrupt_reaches_the_user() -> None:
    def interrupted(x: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_variance(interrupted)


def test_prints_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    def chatty(x: Any) -> Any:
        for i in range(200_000):
            print(i)
        return x.var(axis=0)

    assert check_variance(chatty)
    assert len(capsys.readouterr().out) < 1000


def test_timer_and_input_are_as_before() -> None:
    import builtins
    import signal

    handler, asking = signal.getsignal(signal.SIGALRM), builtins.input
    check_variance(endless)
    check_variance(asks)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert builtins.input is asking


def test_no_time_limit_outside_the_main_thread_and_no_error() -> None:
    import threading

    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(check_variance(by_hand)))
    thread.start()
    thread.join()
    assert verdicts[0]


def test_require_raises_the_sentence_for_a_wrong_answer(capsys: pytest.CaptureFixture[str]) -> None:
    require(check_variance(by_hand))
    with pytest.raises(WrongAnswerError, match=r"0\.1 Variance: you averaged over the features"):
        require(check_variance(lambda x: x.var(axis=1)))
    with pytest.raises(NotImplementedError, match="not attempted yet"):
        require(check_variance(...))
    assert "✘ 0.1 Variance" in capsys.readouterr().out


def test_a_notebook_shows_the_sentence_without_a_traceback_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shown: list[str] = []
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr(
        InteractiveShell, "_showtraceback", lambda _, kind, error, lines: shown.append("\n".join(lines))
    )
    shell = InteractiveShell.instance()
    try:
        for answer in ("lambda x: x.var(axis=1)", "..."):
            shell.user_ns.update(require=require, check=check_variance)
            shell.run_cell(f"require(check({answer}))", store_history=False, silent=True)
    finally:
        InteractiveShell.clear_instance()
    assert [text.partition(":")[0] for text in shown] == ["WrongAnswerError", "NotImplementedError"]
    assert not any("_verdict.py" in text or "Traceback" in text for text in shown)


def test_verdict_shows_text_and_html_and_escapes_what_students_write() -> None:
    bundle = Verdict("1.1", "wrong", "it raises <b>", expected="1", got="<i>")._repr_mimebundle_()

    assert bundle["text/plain"] == "✘ 1.1: it raises <b>\n  expected: 1\n  got: <i>"
    assert "&lt;b&gt;" in bundle["text/html"]
    assert "<i>" not in bundle["text/html"]
    assert bundle[VERDICT_TYPE] == {"exercise": "1.1", "status": "wrong", "message": "it raises <b>"}


def test_a_right_verdict_draws_its_figure_and_a_wrong_one_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    import matplotlib.pyplot as plt

    def draw() -> tuple[Any, str]:
        return plt.figure(), "An empty figure, for this test only."

    Verdict("1.1", "right", "yes", figure=draw).show()
    assert "An empty figure" in capsys.readouterr().out
    Verdict("1.1", "wrong", "no", figure=draw).show()
    assert "An empty figure" not in capsys.readouterr().out


def test_progress_counts_the_latest_verdicts() -> None:
    module = types.ModuleType("lesson")
    module.EXERCISES = ("9.1 A", "9.2 B", "9.3 C")  # type: ignore[attr-defined]
    Verdict("9.1 A", "wrong", "")
    Verdict("9.1 A", "right", "")
    Verdict("9.2 B", "wrong", "")

    made = progress(module)

    assert made == Progress({"9.1 A": "right", "9.2 B": "wrong", "9.3 C": "todo"})
    assert str(made) == "1 of 3 solved\n✔ 9.1 A\n✘ 9.2 B\n◻ 9.3 C"
    assert 'aria-label="1 of 3 solved"' in made._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        ((1.0, 2.0), 1.0, "it returns a float; 2 values are expected (a, b)"),
        ((1.0, 2.0), None, "is the `return` missing?"),
        ((1.0, 2.0), (1.0,), "it returns 1 values; 2 are expected (a, b)"),
        ((1.0, 2.0), (1.0, 3.0), "`b`: the value is wrong"),
        (1.0, "1", "it returns a str; one number is expected"),
        (1.0, True, "it returns a bool"),
        (1.0, np.ones(2), "ndarray of shape (2,); one number"),
        (True, 1, "the value is wrong"),
        ((1.0, np.ones(2)), np.ones(2), "2 values are expected"),
        (np.ones(2), [[1.0], [1.0, 2.0]], "it returns a list; a NumPy array is expected"),
        (np.ones(2), {"a": 1.0}, "it returns a dict"),
        (np.ones(2), np.ones(2, dtype=bool), "dtype is bool"),
        (np.ones(2), torch.ones(2, dtype=torch.bfloat16), "dtype is float32"),
        ("a", "b", "the value is wrong"),
        (torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3).T, "transpose of the right answer"),
        (torch.ones(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), "some values differ"),
    ],
)
def test_difference_in_words(expected: Any, got: Any, words: str) -> None:
    found = difference(expected, got, rtol=1e-5, atol=1e-8, names=("a", "b"))
    assert found is not None
    assert words in found.message


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ((1.0, 2.0), [1.0, 2.0]),
        (1.0, torch.tensor(1.0)),
        (1.0, np.float32(1)),
        (torch.ones(2), torch.ones(2, requires_grad=True)),
        (np.array(1.0), np.float64(1.0)),
        (True, np.bool_(True)),
        (True, torch.tensor(True)),
        ((1.0, 2.0), np.array([1.0, 2.0])),
        ((1.0, 2.0), pd.Series([1.0, 2.0])),
        (np.ones(2), [1, 1]),
        (np.ones((2, 2)), ((1.0, 1.0), torch.ones(2))),
        (np.ones(2), pd.Series([1, 1], index=[5, 7], dtype="Int64")),
        (np.arange(3), np.arange(3, dtype=np.int32)),
        (np.arange(3), np.arange(3.0)),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([np.nan]), np.array([np.nan])),
        ("a", "a"),
    ],
)
def test_no_difference(expected: Any, got: Any) -> None:
    assert difference(expected, got, rtol=1e-5, atol=1e-8) is None


def test_long_values_are_brief() -> None:
    assert brief(torch.zeros(100, 100)).endswith("shape (100, 100)")
    assert len(brief(torch.zeros(100, 100))) < 120
    assert len(brief("x" * 500)) < 130


def test_a_tensor_is_no_array_where_the_type_is_asked_for() -> None:
    found = difference(np.ones(2), torch.ones(2).double(), rtol=0, atol=0, exact_type=True)

    assert found is not None
    assert found.message == "it returns a torch tensor; a NumPy array is expected"


check_sixteen = AnswerCheck(
    exercise="0.2 Sixteen",
    wants="A number.",
    expected=lambda: 16,
    right="yes",
    mistakes={"variances add up": 256, "256 times a thousandth": 255.9},
)
check_letter = AnswerCheck(exercise="0.3 Letter", wants="A letter.", expected="b", choices=("a", "b"), right="yes")


def test_answers() -> None:
    assert check_sixteen(16)
    assert check_sixteen(16.1)
    assert check_sixteen(...).status == check_sixteen(None).status == "todo"
    assert check_sixteen(256).message == "variances add up"
    assert check_sixteen(255.9).message == "256 times a thousandth"
    assert check_sixteen(3).message == "this is not it"
    assert "16" not in str(check_sixteen(3)).replace("0.2 Sixteen", "")
    assert check_sixteen("16").message == "the answer is a str; one number is expected"
    assert check_letter(" B")
    assert check_letter("c").message == "the answer is one of 'a', 'b'"


def examine(function: Any, seed: int) -> Right | Wrong:
    values = [ask(function, np.arange(n)) for n in (2, 3)]
    return first_fault([(values[0] > 0, "not positive"), (values[1] > 9, "not large")]) or Right(f"{values[1]}")


check_large = PropertyCheck(exercise="0.4 Large", wants="A function.", examine=examine)
check_small = PropertyCheck(
    exercise="0.5 Small",
    wants="A number.",
    takes="number",
    examine=lambda value, seed: Right("yes") if value < seed + 1 else Wrong("too large"),
)


def test_properties_name_the_first_that_fails() -> None:
    assert check_large(lambda x: 10).message == "10"
    assert check_large(lambda x: 0).message == "not positive"
    assert check_large(lambda x: 1).message == "not large"
    assert check_large(lambda x: 1 / 0).message.startswith("it raises ZeroDivisionError")
    assert "changes its input" in check_large(lambda x: x.fill(1) or 10).message
    assert "without calling it" in check_large(10).message
    assert check_small(torch.tensor(0.5))
    assert check_small(5, seed=7)
    assert (check_small(1.5).message, check_small(1.5).got) == ("too large", "1.5")
    assert check_small("1").message == "the answer is a str; one number is expected"
    assert check_small(None).status == check_small(...).status == check_large(...).status == "todo"


def test_a_function_that_agrees_may_be_asked_for_more() -> None:
    fussy = FunctionCheck(
        exercise="0.6",
        wants="",
        reference=lambda x: x.var(axis=0),
        cases=batches,
        right="yes",
        further=lambda function, seed: None if function.__name__ == "by_hand" else Wrong("by hand, please"),
    )

    assert fussy(by_hand)
    assert fussy(lambda x: x.var(axis=0)).message == "by hand, please"


def test_a_module_lists_its_exercises_and_a_check_says_what_it_wants() -> None:
    assert exercises_of({"x": 1, "check_b": check_sixteen, "check_a": check_variance}) == (
        "0.2 Sixteen",
        "0.1 Variance",
    )
    assert check_variance.__doc__ == "0.1 Variance. x (batch, features) → the variance of each feature."
    assert repr(check_variance) == "<check of 0.1 Variance>"


def test_engine_leaves_the_global_random_streams_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    check_variance(by_hand)
    assert torch.equal(before, torch.random.get_rng_state())
