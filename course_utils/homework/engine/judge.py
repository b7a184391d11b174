"""From a student's function or answer to a verdict."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from course_utils.homework.engine.compare import brief, difference
from course_utils.homework.engine.running import Run, run
from course_utils.homework.engine.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Mistake", "judge", "judge_answer", "judge_conditions", "not_attempted"]


@dataclass(frozen=True)
class Mistake:
    """A mistake that students make, as a function that makes it.

    Attributes:
        says: the sentence that names it, after "Exercise 3.2": what is wrong, and what to do.
        answer: takes what the reference takes and gives what a student with this mistake gets.
    """

    says: str
    answer: Callable[..., Any]


def judge(
    function: Any,
    *,
    exercise: str,
    reference: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    right: str,
    mistakes: Sequence[Mistake] = (),
    names: Sequence[str] = (),
    rtol: float = 1e-5,
    atol: float = 1e-8,
    call: Callable[..., Any] | None = None,
    may_change: bool = False,
    seconds: float = 5.0,
    figure: Callable[[], tuple[Figure, str]] | None = None,
) -> Verdict:
    """Compare a student's function with a reference on several inputs, and name the mistake.

    Args:
        function: the student's; an Ellipsis or a stub that raises NotImplementedError counts as not attempted.
        exercise: number and name.
        reference: the right answer to the same arguments.
        cases: the arguments, drawn anew from a seed by each check.
        right: the sentence for a right solution.
        mistakes: known wrong answers, the most telling first. Each must differ from the reference on some case.
        names: of the returned values, if there are several.
        rtol: relative tolerance.
        atol: absolute tolerance.
        call: how a function is used, ``call(function, *arguments)``, if it is more than ``function(*arguments)``;
            reference and mistakes are called in the same way.
        may_change: whether the function may write to its arguments.
        seconds: time limit for each call.
        figure: see `Verdict`.

    Returns:
        The verdict. It never raises because of what the student wrote.
    """
    if not_attempted(function):
        return Verdict(exercise, "todo", "not attempted yet")
    if not callable(function):
        what = f"a {type(function).__name__} ({brief(function)})"
        return Verdict(exercise, "wrong", f"the check takes the function itself, without calling it; it got {what}")
    use = call or (lambda chosen, *arguments: chosen(*arguments))
    values = []
    for number, arguments in enumerate(cases):
        handed = copy.deepcopy(arguments)
        outcome: Run = run(use, function, *handed, seconds=seconds, quiet=number > 0)
        if outcome.todo:
            return Verdict(exercise, "todo", "not attempted yet")
        if outcome.failure:
            return Verdict(exercise, "wrong", outcome.failure, got=f"for the input {_listed(arguments)}")
        if not may_change and not all(map(_same, arguments, handed)):
            message = "it changes its input in place, so that whoever called it loses it: work on a new array"
            return Verdict(exercise, "wrong", message)
        values.append(outcome.value)
    expected = [use(reference, *copy.deepcopy(arguments)) for arguments in cases]
    found = [
        difference(right_value, value, rtol=rtol, atol=atol, names=names)
        for right_value, value in zip(expected, values, strict=True)
    ]
    first = next((place for place, one in enumerate(found) if one), None)
    if first is None:
        return Verdict(exercise, "right", right, figure=figure)
    wrong = found[first]
    assert wrong is not None
    message = wrong.message
    for mistake in mistakes:
        made = (use(mistake.answer, *copy.deepcopy(arguments)) for arguments in cases)
        if _explains(made, values, expected, rtol, atol):
            message = mistake.says
            break
    return Verdict(exercise, "wrong", message, wrong.expected, wrong.got)


def judge_answer(
    answer: Any,
    *,
    exercise: str,
    expected: Any,
    right: str,
    hint: str = "this is not it",
    choices: Sequence[Any] = (),
    mistakes: Sequence[tuple[Any, str]] = (),
    rtol: float = 1e-2,
    atol: float = 0.0,
) -> Verdict:
    """Judge a number, a choice or a yes/no.

    Args:
        answer: the student's; ``...`` or ``None`` counts as not attempted.
        exercise: number and name.
        expected: the right answer. It is not shown with a wrong one.
        right: the sentence for it.
        hint: the sentence for a wrong answer that no mistake explains.
        choices: the answers that the question allows, if it names them.
        mistakes: (wrong answer, the sentence that says how one gets there).
        rtol: relative tolerance of a number.
        atol: absolute tolerance.
    """
    if answer is None or not_attempted(answer):
        return Verdict(exercise, "todo", "not attempted yet")
    if choices and not any(_answers_agree(choice, answer, 0, 0) for choice in choices):
        allowed = ", ".join(map(repr, choices))
        return Verdict(exercise, "wrong", f"the answer is one of {allowed}", got=brief(answer))
    if _answers_agree(expected, answer, rtol, atol):
        return Verdict(exercise, "right", right)
    for wrong, says in mistakes:
        if _answers_agree(wrong, answer, rtol, atol):
            return Verdict(exercise, "wrong", says, got=brief(answer))
    if not choices and (found := difference(expected, answer, rtol=rtol, atol=atol)) and "expected" in found.message:
        return Verdict(exercise, "wrong", found.message.replace("it returns", "the answer is"), got=brief(answer))
    return Verdict(exercise, "wrong", hint, got=brief(answer))


def judge_conditions(exercise: str, conditions: Sequence[tuple[bool, str]], *, right: str) -> Verdict:
    """Return the verdict on several conditions: wrong with the sentence of the first that does not hold.

    Args:
        exercise: number and name.
        conditions: (whether it holds, the sentence if not), the most basic first.
        right: the sentence if all hold.
    """
    for holds, says in conditions:
        if not holds:
            return Verdict(exercise, "wrong", says)
    return Verdict(exercise, "right", right)


def not_attempted(answer: Any) -> bool:
    """Return whether this is the ``...`` of a stub."""
    return answer is Ellipsis


def _answers_agree(expected: Any, answer: Any, rtol: float, atol: float) -> bool:
    if isinstance(expected, str) and isinstance(answer, str):
        return expected.strip().lower() == answer.strip().lower()
    return difference(expected, answer, rtol=rtol, atol=atol, strict=False) is None


def _explains(made: Iterable[Any], values: Sequence[Any], expected: Sequence[Any], rtol: float, atol: float) -> bool:
    """Return whether a mistake gives the student's values, not only where these are right; stop where it does not."""
    shows = False
    for one, value, right in zip(made, values, expected, strict=True):
        if difference(one, value, rtol=rtol, atol=atol, strict=False) is not None:
            return False
        shows |= difference(one, right, rtol=rtol, atol=atol, strict=False) is not None
    return shows


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor | np.ndarray):
        return difference(before, after, rtol=0, atol=0, strict=False) is None
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, pd.DataFrame | pd.Series):
        return before.equals(after)
    return True  # modules, generators and functions may change


def _listed(arguments: tuple[Any, ...]) -> str:
    return "; ".join(map(brief, arguments))
