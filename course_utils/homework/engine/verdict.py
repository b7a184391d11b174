"""What a check answers, how it looks in a notebook, and what has been solved so far."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from course_utils._notebook import notebook_display

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["VERDICT_TYPE", "Progress", "Verdict", "WrongAnswerError", "progress", "require"]

# Under this type an output carries the verdict for machines: the build and the grading read it.
VERDICT_TYPE = "application/vnd.mlp-course.verdict+json"

_E = TypeVar("_E", bound=Exception)

_MARKS = {"right": "✔", "wrong": "✘", "todo": "◻"}
# Contrast of at least 4.5 on the tint and on white.
_COLORS = {"right": "#00664A", "wrong": "#A33B00", "todo": "#4A4A4A"}
_latest: dict[str, Verdict] = {}


class WrongAnswerError(AssertionError):
    """A graded answer that its check did not accept; the message is the check's sentence."""


@dataclass(frozen=True)
class Verdict:
    """The answer of a check. It is true if the exercise is solved, and false until then.

    Attributes:
        exercise: its number and name, as the module's ``EXERCISES`` has it.
        status: ``"right"``, ``"wrong"``, or ``"todo"`` for a stub that nobody has filled in yet.
        message: a sentence that names the mistake, or says what was achieved.
        expected: what a right solution gives, in short; empty where it does not help.
        got: what the student's gave.
        figure: draws what a right solution makes visible, and says in a sentence what is to be seen.
    """

    exercise: str
    status: str
    message: str
    expected: str = ""
    got: str = ""
    figure: Callable[[], tuple[Figure, str]] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _latest[self.exercise] = self

    def __bool__(self) -> bool:
        return self.status == "right"

    def __str__(self) -> str:
        lines = [f"{_MARKS[self.status]} {self.exercise}: {self.message}"]
        lines += [f"  {name}: {text}" for name, text in self._comparison()]
        return "\n".join(lines)

    def _comparison(self) -> list[tuple[str, str]]:
        return [(name, text) for name, text in (("expected", self.expected), ("got", self.got)) if text]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        color = _COLORS[self.status]
        rows = "".join(
            f'<div style="margin-top:.2em"><span style="color:#555">{name}</span> '
            f'<code style="color:#222;white-space:pre-wrap;background:none">{html.escape(text)}</code></div>'
            for name, text in self._comparison()
        )
        box = (
            f'<div style="border-left:4px solid {color};padding:.35em .8em;background:#F4F7F6;color:#222">'
            f'<b style="color:{color}">{_MARKS[self.status]} {html.escape(self.exercise)}</b> '
            f"{html.escape(self.message)}{rows}</div>"
        )
        data = {"exercise": self.exercise, "status": self.status, "message": self.message}
        return {"text/plain": str(self), "text/html": box, VERDICT_TYPE: data}

    def show(self) -> None:
        """Show the verdict, and its figure when the solution is right."""
        display = notebook_display()
        if display is None:
            print(self)
        else:
            display(self._repr_mimebundle_(), raw=True)
        if self and self.figure is not None:
            from course_utils.plotting import show

            show(*self.figure())

    _ipython_display_ = show


def require(verdict: Verdict) -> None:
    """Show a verdict and raise unless it is right: the last line of a graded cell.

    Args:
        verdict: what a check returned.

    Raises:
        NotImplementedError: the stub has not been filled in.
        WrongAnswerError: the check did not accept the solution; the message is the check's.
    """
    verdict.show()
    if verdict.status == "todo":
        raise _without_traceback(NotImplementedError(f"{verdict.exercise}: not attempted yet"))
    if not verdict:
        raise _without_traceback(WrongAnswerError(f"{verdict.exercise}: {verdict.message}"))


def _without_traceback(error: _E) -> _E:
    """Let notebooks show the sentence alone: where in this package it was raised helps no student."""
    # IPython asks every exception for this method.
    error._render_traceback_ = lambda: [f"{type(error).__name__}: {error}"]  # type: ignore[attr-defined]
    return error


@dataclass(frozen=True)
class Progress:
    """Which exercises of a notebook are solved.

    Attributes:
        statuses: the latest verdict's status by exercise, in the notebook's order.
    """

    statuses: dict[str, str]

    @property
    def solved(self) -> int:
        """How many are right."""
        return sum(status == "right" for status in self.statuses.values())

    def __str__(self) -> str:
        marks = [f"{_MARKS[status]} {exercise}" for exercise, status in self.statuses.items()]
        return "\n".join([f"{self.solved} of {len(self.statuses)} solved", *marks])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        items = "".join(
            f'<li style="color:{_COLORS[status]};list-style:none">{_MARKS[status]} {html.escape(exercise)}</li>'
            for exercise, status in self.statuses.items()
        )
        summary = f"{self.solved} of {len(self.statuses)} solved"
        bar = f'<progress value="{self.solved}" max="{len(self.statuses)}" aria-label="{summary}"></progress>'
        box = (
            f'<div style="background:#F4F7F6;color:#222;padding:.5em .8em"><b>{summary}</b> {bar}'
            f'<ul style="margin:.3em 0;padding:0">{items}</ul></div>'
        )
        return {"text/plain": str(self), "text/html": box}


def progress(module: ModuleType) -> Progress:
    """Return where one stands with the exercises of a module such as ``homework.lesson_03``.

    An exercise whose check has not run in this session counts as not attempted.

    Args:
        module: one with ``EXERCISES``, the names of its exercises.
    """
    seen = {exercise: _latest[exercise].status for exercise in module.EXERCISES if exercise in _latest}
    return Progress({exercise: seen.get(exercise, "todo") for exercise in module.EXERCISES})
