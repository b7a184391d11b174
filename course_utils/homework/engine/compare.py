"""Say in a sentence how a student's value differs from the right one."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

__all__ = ["Difference", "brief", "difference"]


@dataclass(frozen=True)
class Difference:
    """The sentence, and both values in short."""

    message: str
    expected: str = ""
    got: str = ""


def difference(
    expected: Any,
    got: Any,
    *,
    rtol: float,
    atol: float,
    names: Sequence[str] = (),
    strict: bool = True,
    exact_type: bool = False,
) -> Difference | None:
    """Return how ``got`` differs from ``expected``, or ``None`` if it does not.

    A list of numbers, a pandas object or a tensor may stand for an array, and what unpacks into values for a tuple.

    Args:
        expected: a tensor, an array, a number, text, or a tuple or list of these.
        got: anything.
        rtol: relative tolerance of floating-point numbers.
        atol: absolute tolerance.
        names: of the values in a tuple.
        strict: whether the precision of floating-point numbers counts, and True differs from 1.
        exact_type: whether a tensor may not stand for an array, nor an array for a tensor.
    """
    rules = _Rules(rtol, atol, strict, exact_type)
    if isinstance(expected, tuple | list):
        return _tuples(expected, got, names, rules)
    return _single(expected, got, rules)


def brief(value: Any) -> str:
    """Return a value in one short line."""
    if isinstance(value, Tensor):
        value = _from_tensor(value)
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, threshold=12, edgeitems=2, separator=", ", max_line_width=10_000)
        text = " ".join(text.split())
        return f"{text}, shape {value.shape}" if value.ndim > 0 else text
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:120]} …"


class _Rules(NamedTuple):
    """How closely two values must agree."""

    rtol: float
    atol: float
    strict: bool
    exact_type: bool


def _tuples(expected: Sequence[Any], got: Any, names: Sequence[str], rules: _Rules) -> Difference | None:
    listed = f" ({', '.join(names)})" if names else ""
    if isinstance(got, Tensor | np.ndarray | pd.Series) and got.ndim == 1 and not any(map(np.ndim, expected)):
        got = list(got)  # numbers in an array instead of a tuple
    if not isinstance(got, tuple | list):
        what = "None: is the `return` missing?" if got is None else f"a {type(got).__name__}"
        return Difference(f"it returns {what}; {len(expected)} values are expected{listed}", "", brief(got))
    if len(got) != len(expected):
        return Difference(f"it returns {len(got)} values; {len(expected)} are expected{listed}")
    for place, (right, value) in enumerate(zip(expected, got, strict=True)):
        found = _tuples(right, value, (), rules) if isinstance(right, tuple | list) else _single(right, value, rules)
        if found:
            name = f"`{names[place]}`" if names else f"value {place + 1} of {len(expected)}"
            return Difference(f"{name}: {found.message}", found.expected, found.got)
    return None


def _single(expected: Any, got: Any, rules: _Rules) -> Difference | None:
    if got is None:
        return Difference("it returns None: is the `return` missing?", brief(expected), "None")
    if isinstance(expected, Tensor | np.ndarray):
        return _arrays(expected, got, rules)
    if isinstance(got, Tensor | np.ndarray) and got.ndim == 0:
        got = got.item()
    if isinstance(expected, bool | np.bool_ | str):
        is_same_kind = isinstance(got, str) if isinstance(expected, str) else isinstance(got, bool | np.bool_)
        if is_same_kind and got == expected:
            return None
        return Difference("the value is wrong", brief(expected), brief(got))
    return _numbers(expected, got, rules)


def _arrays(expected: Any, got: Any, rules: _Rules) -> Difference | None:
    kind, other = ("torch tensor", np.ndarray) if isinstance(expected, Tensor) else ("NumPy array", Tensor)
    value = None if isinstance(got, str) else _as_array(got)
    if value is None or (rules.exact_type and isinstance(got, other)):
        names = {Tensor: "torch tensor", np.ndarray: "NumPy array"}
        name = next((name for one, name in names.items() if isinstance(got, one)), type(got).__name__)
        return Difference(f"it returns a {name}; a {kind} is expected", brief(expected), brief(got))
    right = _numpy(expected)
    if right.shape != value.shape:
        return _shapes(right, value, rules)
    agrees = _close(right, value, rules)
    if rules.strict and isinstance(got, Tensor | np.ndarray) and not _same_dtype(right.dtype, value.dtype, agrees):
        return Difference(f"its dtype is {value.dtype}; {right.dtype} is expected", str(right.dtype), str(value.dtype))
    return None if agrees else Difference(_in_values(right, value, rules), brief(expected), brief(got))


def _same_dtype(right: np.dtype[Any], value: np.dtype[Any], agrees: bool) -> bool:
    """Return whether no one minds the dtype: that of whole numbers, where the values are right."""
    whole = (np.issubdtype(right, np.integer), np.issubdtype(value, np.integer))
    return right == value or all(whole) or (any(whole) and agrees and value.kind != "b")


def _shapes(right: np.ndarray, value: np.ndarray, rules: _Rules) -> Difference:
    message = f"the shape is {value.shape}; {right.shape} is expected"
    if right.ndim == value.ndim == 2 and right.shape == value.shape[::-1] and _close(right.T, value, rules):
        message += ". It is the transpose of the right answer"
    elif right.squeeze().shape == value.squeeze().shape:
        message += ". Only axes of length 1 differ: mind `keepdim`, indexing and broadcasting"
    elif value.ndim < right.ndim:
        message += ". An axis was lost: over which one do you sum or average?"
    return Difference(message, f"shape {right.shape}", f"shape {value.shape}")


def _numbers(expected: Any, got: Any, rules: _Rules) -> Difference | None:
    if isinstance(got, bool) or not isinstance(got, numbers.Number | np.generic):
        shape = f" of shape {tuple(got.shape)}" if isinstance(got, Tensor | np.ndarray) else ""
        message = f"it returns a {type(got).__name__}{shape}; one number is expected"
        return Difference(message, brief(expected), brief(got))
    right, value = np.asarray(expected, dtype=float), np.asarray(got)
    if _close(right, value, rules):
        return None
    return Difference(_in_values(right, value, rules), brief(float(right)), brief(value.item()))


def _in_values(right: np.ndarray, value: np.ndarray, rules: _Rules) -> str:
    """Return the sentence for values of the right shape that differ."""
    rtol, atol = rules.rtol, rules.atol
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
    return _from_tensor(value) if isinstance(value, Tensor) else np.asarray(value)


def _from_tensor(value: Tensor) -> np.ndarray:
    plain = value.detach().cpu().to_dense().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:  # NumPy has none
        plain = plain.float()
    return plain.numpy()


def _as_array(value: Any) -> np.ndarray | None:
    """Return what a student returned as an array, or ``None`` if that makes no sense."""
    if isinstance(value, Tensor | np.ndarray):
        return _numpy(value)
    if isinstance(value, pd.Series | pd.DataFrame | pd.Index):
        return np.asarray(value.to_numpy().tolist())  # pandas' own dtypes, such as Int64, as NumPy's
    if isinstance(value, list | tuple):
        rows = [_as_array(row) for row in value]
        if any(row is None or row.shape != rows[0].shape for row in rows):  # type: ignore[union-attr]
            return None
        return np.asarray(rows)
    return np.asarray(value) if isinstance(value, numbers.Number | np.generic | str) else None


def _close(right: np.ndarray, value: np.ndarray, rules: _Rules) -> bool:
    if not np.issubdtype(value.dtype, np.number) or not np.issubdtype(right.dtype, np.number):
        return bool(np.array_equal(right, value))
    return bool(np.allclose(value, right, rtol=rules.rtol, atol=rules.atol, equal_nan=True))
