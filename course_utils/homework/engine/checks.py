"""A check as data: what is right, which mistakes are known, and the sentence for each.

There are three kinds. A `FunctionCheck` compares a student's function with a reference; an `AnswerCheck` judges a
number or a choice; a `PropertyCheck` measures what an answer does, where many are right.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from course_utils.homework.engine.compare import Difference, brief, difference
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AnswerCheck",
    "Check",
    "FunctionCheck",
    "PropertyCheck",
    "Right",
    "Wrong",
    "ask",
    "exercises_of",
    "first_fault",
]


@dataclass(frozen=True)
class Right:
    """The answer is right: the sentence for it, and a figure that shows what it achieves (see `Verdict`)."""

    says: str
    figure: Callable[[], tuple[Figure, str]] | None = None


@dataclass(frozen=True)
class Wrong:
    """The answer is wrong: the sentence that names the mistake, and both values in short."""

    says: str
    expected: str = ""
    got: str = ""


class _EndedError(Exception):
    """The student's function ended the check: with a fault, or as a stub (``None``)."""

    def __init__(self, finding: Wrong | None) -> None:
        super().__init__(finding)
        self.finding = finding


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Check:
    """What the three kinds of checks share; called with a student's answer, a check gives the verdict.

    Attributes:
        exercise: number and name.
        wants: what it asks for, in a sentence; with the exercise it is the docstring of the check.
        mistakes: the sentences for known mistakes, the most telling first, each with an answer of a student who makes
            it: a function that takes what the reference takes, or a value; a list if several get the sentence.
    """

    exercise: str
    wants: str
    mistakes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", f"{self.exercise}. {self.wants}")

    def __repr__(self) -> str:
        return f"<check of {self.exercise}>"

    def __call__(self, answer: Any, *, seed: int = 0) -> Verdict:
        """Return the verdict on an answer. Nothing that a student wrote makes it raise.

        Args:
            answer: the student's function or value; an Ellipsis or a stub that raises NotImplementedError counts as not
                attempted.
            seed: draws the inputs; hidden tests pass another one.
        """
        try:
            finding = None if answer is ... else self.find(answer, seed)
        except _EndedError as ended:
            finding = ended.finding
        if finding is None:
            return Verdict(self.exercise, "todo", "not attempted yet")
        if isinstance(finding, Right):
            return Verdict(self.exercise, "right", finding.says, figure=finding.figure)
        return Verdict(self.exercise, "wrong", finding.says, finding.expected, finding.got)

    def known_mistakes(self) -> Iterator[tuple[str, Any]]:
        """Yield each wrong answer of `mistakes` with its sentence before it."""
        for says, answers in self.mistakes.items():
            for answer in answers if isinstance(answers, list) else [answers]:
                yield says, answer

    def find(self, answer: Any, seed: int) -> Right | Wrong | None:
        """Return what is to be said about an attempted answer; ``None`` if it is none after all."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FunctionCheck(Check):
    """Compares a student's function with a reference on several inputs, and names the mistake.

    Attributes:
        reference: the right answer to the same arguments.
        cases: takes a seed and draws the arguments of each call. Each mistake must show in some case.
        right: the sentence for a right solution.
        names: of the returned values, if there are several.
        rtol: relative tolerance.
        atol: absolute tolerance.
        exact_type: whether a tensor may not stand for an array, nor an array for a tensor.
        call: how a function is used, ``call(function, *arguments)``, if it is more than ``function(*arguments)``;
            reference and mistakes are called in the same way.
        may_change: whether the function may write to its arguments.
        seconds: time limit for each call.
        further: ``further(function, seed)``: what is wrong with a function that agrees with the reference, or ``None``.
        figure: shown with a right solution, see `Verdict`.
    """

    reference: Callable[..., Any]
    cases: Callable[[int], Sequence[tuple[Any, ...]]]
    right: str
    names: Sequence[str] = ()
    rtol: float = 1e-5
    atol: float = 1e-8
    exact_type: bool = False
    call: Callable[..., Any] | None = None
    may_change: bool = False
    seconds: float = 5.0
    further: Callable[[Any, int], Wrong | None] | None = None
    figure: Callable[[], tuple[Figure, str]] | None = None

    def find(self, answer: Any, seed: int) -> Right | Wrong | None:
        """Compare with the reference, then look for the mistake that explains all that differs."""
        function = _function(answer)
        cases = self.cases(seed)
        values = []
        for number, arguments in enumerate(cases):
            values.append(self._ask(function, arguments, quiet=number > 0))
        expected = [self._use(self.reference, arguments) for arguments in cases]
        wrong = self._first_difference(expected, values)
        if wrong is None:
            fault = self.further(function, seed) if self.further else None
            return fault or Right(self.right, self.figure)
        for says, mistaken in self.known_mistakes():
            made = (self._use(mistaken, arguments) for arguments in cases)
            if self._explains(made, values, expected):
                return Wrong(says, wrong.expected, wrong.got)
        return Wrong(wrong.message, wrong.expected, wrong.got)

    def _use(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        handed = copy.deepcopy(arguments)
        return self.call(function, *handed) if self.call else function(*handed)

    def _ask(self, function: Any, arguments: tuple[Any, ...], *, quiet: bool) -> Any:
        used = partial(self.call, function) if self.call else function
        return ask(used, *arguments, seconds=self.seconds, quiet=quiet, may_change=self.may_change)

    def _first_difference(self, expected: Sequence[Any], values: Sequence[Any]) -> Difference | None:
        for right, value in zip(expected, values, strict=True):
            found = difference(
                right, value, rtol=self.rtol, atol=self.atol, names=self.names, exact_type=self.exact_type
            )
            if found:
                return found
        return None

    def _explains(self, made: Iterable[Any], values: Sequence[Any], expected: Sequence[Any]) -> bool:
        """Return whether a mistake gives the student's values, not only where these are right."""
        shows = False
        for one, value, right in zip(made, values, expected, strict=True):
            if difference(one, value, rtol=self.rtol, atol=self.atol, strict=False):
                return False
            shows |= difference(one, right, rtol=self.rtol, atol=self.atol, strict=False) is not None
        return shows


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AnswerCheck(Check):
    """Judges a number, a choice or a yes/no. What is right is not shown with a wrong answer.

    Attributes:
        expected: the right answer, or a function without arguments that computes it.
        right: the sentence for it.
        hint: the sentence for a wrong answer that no mistake explains.
        choices: the answers that the question allows, if it names them.
        rtol: relative tolerance of a number.
        atol: absolute tolerance.
    """

    expected: Any
    right: str
    hint: str = "this is not it"
    choices: Sequence[Any] = ()
    rtol: float = 1e-2
    atol: float = 0.0

    def find(self, answer: Any, seed: int) -> Right | Wrong | None:
        """Compare with the right answer, then with the known mistakes; the seed plays no part."""
        if answer is None:
            return None
        if self.choices and not any(_agree(choice, answer, 0, 0) for choice in self.choices):
            return Wrong(f"the answer is one of {', '.join(map(repr, self.choices))}", got=brief(answer))
        expected = self.expected() if callable(self.expected) else self.expected
        if _agree(expected, answer, self.rtol, self.atol):
            return Right(self.right)
        for rtol, atol in (
            (1e-6, 0.0),
            (self.rtol, self.atol),
        ):  # of two mistakes close together, the one that was made
            for says, mistaken in self.known_mistakes():
                if _agree(mistaken, answer, rtol, atol):
                    return Wrong(says, got=brief(answer))
        found = difference(expected, answer, rtol=self.rtol, atol=self.atol)
        if not self.choices and found and "expected" in found.message:
            return Wrong(found.message.replace("it returns", "the answer is"), got=brief(answer))
        return Wrong(self.hint, got=brief(answer))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PropertyCheck(Check):
    """Measures what an answer does, where many are right: a number and its effect, a function that trains a network.

    Attributes:
        examine: ``examine(answer, seed)`` returns `Right` or `Wrong`. It calls a student's function by `ask`.
        takes: ``"function"`` or ``"number"``; another kind of answer is refused. A number arrives as a float. With
            ``"anything"`` the examination looks for itself.
    """

    examine: Callable[[Any, int], Right | Wrong]
    takes: str = "function"

    def find(self, answer: Any, seed: int) -> Right | Wrong | None:
        """Let the examination speak about an answer of the right kind."""
        if self.takes == "function":
            answer = _function(answer)
        elif answer is None:
            return None
        elif self.takes == "number":
            not_a_number = difference(0.0, answer, rtol=0, atol=1e300)
            if not_a_number:
                return Wrong(not_a_number.message.replace("it returns", "the answer is"), got=brief(answer))
            answer = float(answer)
        finding = self.examine(answer, seed)
        if isinstance(finding, Wrong) and self.takes == "number" and not finding.got:
            return Wrong(finding.says, finding.expected, brief(answer))
        return finding


def ask(function: Any, *arguments: Any, seconds: float = 5.0, quiet: bool = False, may_change: bool = False) -> Any:
    """Return what a student's function gives; an error, a stub or a changed argument ends the check with its sentence.

    Args:
        function: the student's, or one that uses it.
        arguments: copied before they are handed over.
        seconds: the time limit.
        quiet: show nothing of what the function prints.
        may_change: whether it may write to its arguments.
    """
    handed = copy.deepcopy(arguments)
    outcome = run(function, *handed, seconds=seconds, quiet=quiet)
    if outcome.todo:
        raise _EndedError(None)
    if outcome.failure:
        raise _EndedError(Wrong(outcome.failure, got=f"for the input {'; '.join(map(brief, arguments))}"))
    if not may_change and not all(map(_same, arguments, handed)):
        message = "it changes its input in place, so that whoever called it loses it: work on a new array"
        raise _EndedError(Wrong(message))
    return outcome.value


def first_fault(conditions: Iterable[tuple[bool, str]]) -> Wrong | None:
    """Return what is wrong by the first condition that fails, of pairs (whether it holds, the sentence if not)."""
    for holds, says in conditions:
        if not holds:
            return Wrong(says)
    return None


def exercises_of(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the exercises of a module's checks in the order in which they stand: ``exercises_of(globals())``."""
    return tuple(check.exercise for check in names.values() if isinstance(check, Check))


def _function(answer: Any) -> Any:
    if not callable(answer):
        what = f"a {type(answer).__name__} ({brief(answer)})"
        raise _EndedError(Wrong(f"the check takes the function itself, without calling it; it got {what}"))
    return answer


def _agree(expected: Any, answer: Any, rtol: float, atol: float) -> bool:
    if isinstance(expected, str) and isinstance(answer, str):
        return expected.strip().lower() == answer.strip().lower()
    return difference(expected, answer, rtol=rtol, atol=atol, strict=False) is None


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
