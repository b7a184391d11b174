"""What only the grading has: the checks of a homework once more, on inputs that no student has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from course_utils.homework import Verdict, WrongAnswerError

__all__ = ["SEEDS", "require_again"]

SEEDS = (20_011, 20_021, 20_023)


def require_again(check: Callable[..., Verdict], answer: Any) -> None:
    """Ask a check again with hidden seeds; say nothing if it accepts each time.

    Args:
        check: takes the answer and ``seed=``, from which it draws its inputs.
        answer: the student's function or value.

    Raises:
        WrongAnswerError: in one sentence, without the inputs.
    """
    for seed in SEEDS:
        verdict = check(answer, seed=seed)
        if not verdict:
            raise WrongAnswerError(f"{verdict.exercise}: on inputs you have not seen, {verdict.message}")
