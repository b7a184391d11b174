"""Say in a sentence how a student's value differs from the right one."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["Difference", "brief", "difference"]


@dataclass(frozen=True)
class Difference:
    """The sentence, and both values in short."""

    message: str
    expected: str = ""
    got: str = ""


def difference(
    expected: Any, got: Any, *, rtol: float, atol: float, names: Sequence[str] = (), strict: bool = True
) -> Difference | None:
    """Return how ``got`` differs from ``expected``, or ``None`` if it does not.

    Args:
        expected: a tensor, an array, a number, text, or a tuple of these.
        got: anything.
        rtol: relative tolerance of floating-point numbers.
        atol: absolute tolerance.
        names: of the values in a tuple.
        strict: whether dtype and container (tensor or array) count.
    """
    if isinstance(expected, tuple):
        return _tuples(expected, got, rtol, atol, names, strict)
    if got is None:
        return Difference("it returns None: is the `return` missing?", brief(expected), "None")
    if isinstance(expected, Tensor | np.ndarray):
        return _arrays(expected, got, rtol, atol, strict)
    if isinstance(expected, bool | np.bool_ | str):
        is_same_kind = isinstance(got, str) if isinstance(expected, str) else isinstance(got, bool | np.bool_)
        if is_same_kind and got == expected:
            return None
        return Difference("the value is wrong", brief(expected), brief(got))
    return _numbers(expected, got, rtol, atol)


def brief(value: Any) -> str:
    """Return a value in one short line."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, threshold=12, edgeitems=2, separator=", ", max_line_width=10_000)
        text = " ".join(text.split())
        return f"{text}, shape {value.shape}" if value.ndim > 0 else text
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:120]} …"


def _tuples(
    expected: tuple[Any, ...], got: Any, rtol: float, atol: float, names: Sequence[str], strict: bool
) -> Difference | None:
    listed = f" ({', '.join(names)})" if names else ""
    if not isinstance(got, tuple | list):
        what = "None: is the `return` missing?" if got is None else f"a {type(got).__name__}"
        return Difference(f"it returns {what}; {len(expected)} values are expected{listed}", "", brief(got))
    if len(got) != len(expected):
        return Difference(f"it returns {len(got)} values; {len(expected)} are expected{listed}")
    for place, (right, value) in enumerate(zip(expected, got, strict=True)):
        found = difference(right, value, rtol=rtol, atol=atol, strict=strict)
        if found:
            name = f"`{names[place]}`" if names else f"value {place + 1} of {len(expected)}"
            return Difference(f"{name}: {found.message}", found.expected, found.got)
    return None


def _arrays(expected: Any, got: Any, rtol: float, atol: float, strict: bool) -> Difference | None:
    kind = "torch tensor" if isinstance(expected, Tensor) else "NumPy array"
    if not isinstance(got, Tensor | np.ndarray | numbers.Number | np.generic):
        return Difference(f"it returns a {type(got).__name__}; a {kind} is expected", brief(expected), brief(got))
    is_number = not isinstance(got, Tensor | np.ndarray)
    if strict and not is_number and not isinstance(got, type(expected)):
        other = "torch tensor" if isinstance(got, Tensor) else "NumPy array"
        return Difference(f"it returns a {other}; a {kind} is expected", brief(expected), brief(got))
    right, value = _numpy(expected), _numpy(got)
    if right.shape != value.shape:
        return _shapes(right, value, rtol, atol)
    if strict and not is_number and right.dtype != value.dtype:
        return Difference(f"its dtype is {value.dtype}; {right.dtype} is expected", str(right.dtype), str(value.dtype))
    if _close(right, value, rtol, atol):
        return None
    return Difference(_in_values(right, value, rtol, atol), brief(expected), brief(got))


def _shapes(right: np.ndarray, value: np.ndarray, rtol: float, atol: float) -> Difference:
    message = f"the shape is {value.shape}; {right.shape} is expected"
    if right.ndim == value.ndim == 2 and right.shape == value.shape[::-1] and _close(right.T, value, rtol, atol):
        message += ". It is the transpose of the right answer"
    elif right.squeeze().shape == value.squeeze().shape:
        message += ". Only axes of length 1 differ: mind `keepdim`, indexing and broadcasting"
    elif value.ndim < right.ndim:
        message += ". An axis was lost: over which one do you sum or average?"
    return Difference(message, f"shape {right.shape}", f"shape {value.shape}")


def _numbers(expected: Any, got: Any, rtol: float, atol: float) -> Difference | None:
    if isinstance(got, Tensor | np.ndarray) and got.ndim == 0:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, numbers.Number | np.generic):
        shape = f" of shape {tuple(got.shape)}" if isinstance(got, Tensor | np.ndarray) else ""
        message = f"it returns a {type(got).__name__}{shape}; one number is expected"
        return Difference(message, brief(expected), brief(got))
    right, value = np.asarray(expected, dtype=float), np.asarray(got)
    if _close(right, value, rtol, atol):
        return None
    return Difference(_in_values(right, value, rtol, atol), brief(float(right)), brief(value.item()))


def _in_values(right: np.ndarray, value: np.ndarray, rtol: float, atol: float) -> str:
    """Return the sentence for values of the right shape that differ."""
    if not np.issubdtype(value.dtype, np.number):
        return "some values differ"
    lost = ~np.isfinite(value) & np.isfinite(right)
    if lost.any():
        what = "NaN" if np.isnan(value[lost]).any() else "infinity"
        return f"{int(lost.sum())} of {value.size} values are {what}: is there a division by zero, or the log of it?"
    if not np.isfinite(right).all() or not np.issubdtype(right.dtype, np.floating):
        return "some values differ"
    if np.allclose(value, -right, rtol=rtol, atol=atol):
        return "the sign is flipped"
    scale = float(np.dot(right.ravel(), value.ravel()) / max(float(np.dot(right.ravel(), right.ravel())), 1e-300))
    if right.size > 1 and abs(scale) > 1e-6 and np.allclose(value, scale * right, rtol=rtol, atol=atol):
        return f"every value is {scale:.4g} times what it should be"
    shift = float(np.mean(value - right))
    if right.size > 1 and np.allclose(value, right + shift, rtol=rtol, atol=atol):
        return f"every value is off by {shift:+.4g}"
    wrong = ~np.isclose(value, right, rtol=rtol, atol=atol)
    if right.size == 1:
        return "the value is wrong"
    return f"{int(wrong.sum())} of {value.size} values differ, by up to {np.abs(value - right).max():.3g}"


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _close(right: np.ndarray, value: np.ndarray, rtol: float, atol: float) -> bool:
    if not np.issubdtype(value.dtype, np.number) or not np.issubdtype(right.dtype, np.number):
        return bool(np.array_equal(right, value))
    return bool(np.allclose(value, right, rtol=rtol, atol=atol, equal_nan=True))
