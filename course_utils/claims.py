"""A lecture claim: measured, shown and asserted in one line."""

from __future__ import annotations

import html
import math
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from course_utils._notebook import notebook_display
from course_utils._validation import check_one_of

__all__ = ["MIME_TYPE", "Claim", "ClaimError", "claim"]

#: Under this type a notebook's output carries the claim for machines; ``course claims`` collects them.
MIME_TYPE = "application/vnd.mlp-course.claim+json"

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_SIGNS = {"<=": "≤", ">=": "≥", "==": "="}


class ClaimError(AssertionError):
    """A claim that its measurement does not support."""


@dataclass(frozen=True)
class Claim:
    """What was claimed and what was measured.

    Attributes:
        statement: the claim, as a sentence.
        measured: one number per seed (or a single one).
        op: the comparison, one of ``< <= > >= ==``.
        bound: what every measured number is compared with.
        source: deck or paper that makes the claim.
        unit: unit of ``measured`` and ``bound``, or an empty string.
        over: what the measured numbers run over.
    """

    statement: str
    measured: tuple[float, ...]
    op: str
    bound: float
    source: str
    unit: str = ""
    over: str = "seeds"

    @property
    def holds(self) -> bool:
        """Whether every seed satisfies the comparison; NaN satisfies none."""
        return all(_COMPARE[self.op](value, self.bound) for value in self.measured)

    @property
    def seeds(self) -> int:
        """How many measurements stand behind the claim."""
        return len(self.measured)

    def measured_text(self) -> str:
        """Return the measurement in words: a number, or the range over the seeds (or folds, …)."""
        low, high = min(self.measured), max(self.measured)
        numbers = _format(low) if low == high else f"{_format(low)} … {_format(high)}"
        over = f" over {self.seeds} {self.over}" if self.seeds > 1 else ""
        return f"{numbers}{self._unit()}{over}"

    def bound_text(self) -> str:
        """Return the comparison in words, e.g. ``≥ 0.5``."""
        return f"{_SIGNS.get(self.op, self.op)} {_format(self.bound)}{self._unit()}"

    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def __str__(self) -> str:
        mark = "✔" if self.holds else "✘"
        return f"{mark} {self.statement}: {self.measured_text()} (asserted: {self.bound_text()}; {self.source})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        color = "#00664A" if self.holds else "#A33B00"  # both pass contrast AA on white and on the tint
        mark = "✔" if self.holds else "✘"
        line = (
            f'<div style="border-left:4px solid {color};padding:.35em .8em;background:#F4F7F6;color:#222">'
            f'<b style="color:{color}">{mark}</b> {html.escape(self.statement)}: '
            f"<b>{html.escape(self.measured_text())}</b> "
            f'<span style="color:#555">(asserted: {html.escape(self.bound_text())}; '
            f"{html.escape(self.source)})</span></div>"
        )
        # JSON knows neither NaN nor infinity; a claim that holds has neither unless it is about them.
        numbers = [value if math.isfinite(value) else str(value) for value in self.measured]
        data = asdict(self) | {"measured": numbers, "holds": self.holds, "seeds": self.seeds}
        return {"text/plain": str(self), "text/html": line, MIME_TYPE: data}


def claim(
    statement: str,
    measured: ArrayLike,
    op: str,
    bound: float,
    *,
    source: str,
    unit: str = "",
    over: str = "seeds",
) -> None:
    """Show a claim with its measurement, and raise when the measurement contradicts it.

    It returns nothing, so that a notebook shows each claim once, also when it ends a cell.

    Args:
        statement: the claim, as a sentence without a full stop.
        measured: a number, or one number per seed; every one of them has to satisfy the comparison.
        op: one of ``< <= > >= ==``.
        bound: the asserted bound. Choose it at about half the effect, never at its edge.
        source: who makes the claim: a deck's file number, a paper, or ``"this lesson"``.
        unit: unit of the numbers, if they have one.
        over: what several numbers run over, in the plural, if it is not seeds: ``"folds"``, ``"tables"``.

    Raises:
        ClaimError: a measurement does not satisfy the comparison. The line is shown first.
        ValueError: unknown ``op`` or no measurement.
    """
    check_one_of(op, "op", _COMPARE)
    values = tuple(np.asarray(measured, dtype=float).ravel().tolist())
    if not values:
        raise ValueError("measured must hold at least one number, got an empty sequence")
    made = Claim(statement, values, op, float(bound), source, unit, over)
    display = notebook_display() or print
    display(made)
    if not made.holds:
        raise ClaimError(str(made))


def _format(value: float) -> str:
    if not math.isfinite(value) or value == 0:
        return str(value) if not math.isfinite(value) else "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.1e}"
