"""Turn bad arguments into errors that show the value and the range."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from typing import Any, SupportsIndex

__all__ = [
    "check_in_range",
    "check_int",
    "check_non_negative",
    "check_one_of",
    "check_positive",
    "check_sizes",
]


def check_int(value: SupportsIndex, name: str, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return ``value`` as an ``int``, or raise.

    Args:
        value: an integer; anything with ``__index__`` counts (NumPy integers do, booleans and floats do not).
        name: the argument's name, for the message.
        minimum: the smallest value allowed.
        maximum: the largest value allowed.

    Raises:
        TypeError: ``value`` is not an integer.
        ValueError: ``value`` lies outside the range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = operator.index(value)
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {number}")
    return number


def check_in_range(value: Any, name: str, low: float, high: float, *, closed: str = "[)") -> float:
    """Return ``value`` as a ``float`` inside an interval, or raise.

    Args:
        value: a real number.
        name: the argument's name, for the message.
        low: the lower end.
        high: the upper end.
        closed: the two brackets of the interval; ``"[)"`` contains ``low`` and not ``high``.

    Raises:
        TypeError: ``value`` is not a real number.
        ValueError: ``value`` is not finite where the interval is, or lies outside it.
    """
    try:
        number = None if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    above = number >= low if closed[0] == "[" else number > low
    below = number <= high if closed[1] == "]" else number < high
    if not (above and below):  # also catches NaN, for which every comparison is false
        raise ValueError(f"{name} must be in {closed[0]}{low:g}, {high:g}{closed[1]}, got {value!r}")
    return number


def check_positive(value: Any, name: str) -> float:
    """Return ``value`` as a finite float above 0, or raise (see `check_in_range`)."""
    return check_in_range(value, name, 0.0, math.inf, closed="()")


def check_non_negative(value: Any, name: str) -> float:
    """Return ``value`` as a finite float of at least 0, or raise (see `check_in_range`)."""
    return check_in_range(value, name, 0.0, math.inf, closed="[)")


def check_one_of(value: Any, name: str, allowed: Collection[Any]) -> Any:
    """Return ``value`` if it is among ``allowed``, or raise a ``ValueError`` that lists what is."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def check_sizes(values: Sequence[int], name: str) -> list[int]:
    """Return a list of layer widths, each at least 1; the list may be empty.

    Raises:
        TypeError: ``values`` is a bare number or a string, or holds something other than integers.
        ValueError: a width is below 1.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of widths such as [64, 64], got {values!r}")
    return [check_int(width, f"{name}[{index}]", minimum=1) for index, width in enumerate(values)]
