"""The checks that are still functions, until each is data (see `checks`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from course_utils.homework.engine.checks import AnswerCheck, FunctionCheck
from course_utils.homework.engine.verdict import Verdict

__all__ = ["Mistake", "judge", "judge_answer", "judge_conditions", "not_attempted"]


@dataclass(frozen=True)
class Mistake:
    """The sentence that names a mistake, and a function that makes it."""

    says: str
    answer: Callable[..., Any]


def judge(
    function: Any, *, cases: Sequence[tuple[Any, ...]], mistakes: Sequence[Mistake] = (), **options: Any
) -> Verdict:
    """Compare a student's function with a reference: `FunctionCheck` with given cases."""
    known = _by_sentence((mistake.says, mistake.answer) for mistake in mistakes)
    return FunctionCheck(wants="", cases=lambda _: cases, mistakes=known, **options)(function)


def judge_answer(answer: Any, *, mistakes: Sequence[tuple[Any, str]] = (), **options: Any) -> Verdict:
    """Judge a number, a choice or a yes/no: `AnswerCheck`."""
    known = _by_sentence((says, wrong) for wrong, says in mistakes)
    return AnswerCheck(wants="", mistakes=known, **options)(answer)


def _by_sentence(mistakes: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for says, answer in mistakes:
        found.setdefault(says, []).append(answer)
    return found


def judge_conditions(exercise: str, conditions: Sequence[tuple[bool, str]], *, right: str) -> Verdict:
    """Return the verdict on several conditions: wrong with the sentence of the first that does not hold."""
    for holds, says in conditions:
        if not holds:
            return Verdict(exercise, "wrong", says)
    return Verdict(exercise, "right", right)


def not_attempted(answer: Any) -> bool:
    """Return whether this is the ``...`` of a stub."""
    return answer is Ellipsis
