"""What a student's function gives for several inputs, for checks that ask for properties rather than values."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from course_utils.homework.engine.judge import not_attempted
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict

__all__ = ["answers_of"]


def answers_of(
    function: Any, exercise: str, calls: Sequence[tuple[Any, ...]], seconds: float = 5.0
) -> list[Any] | Verdict:
    """Return what a student's function gives for each of the arguments, or the verdict that ends the check."""
    if not_attempted(function):
        return Verdict(exercise, "todo", "not attempted yet")
    if not callable(function):
        return Verdict(exercise, "wrong", "the check takes the function itself, without calling it")
    values = []
    for number, arguments in enumerate(calls):
        handed = copy.deepcopy(arguments)
        outcome = run(function, *handed, seconds=seconds, quiet=number > 0)
        if outcome.todo:
            return Verdict(exercise, "todo", "not attempted yet")
        if outcome.failure:
            return Verdict(exercise, "wrong", outcome.failure)
        arrays = [(a, b) for a, b in zip(arguments, handed, strict=True) if isinstance(a, Tensor | np.ndarray)]
        if not all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in arrays):
            return Verdict(exercise, "wrong", "it changes its input in place: work on a new array")
        values.append(outcome.value)
    return values
