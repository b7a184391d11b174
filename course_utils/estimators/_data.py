"""From what users pass to rows to train on: checked tables and weights, equal rows merged, held-out folds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import _check_sample_weight, check_array, validate_data

from course_utils.preprocessing.columns import as_frame, numeric_columns, to_levels, to_numbers

__all__ = ["MergedRows", "as_array", "assign_folds", "merge_equal_rows", "n_folds_for", "read_table", "read_weights"]

_NUMBERS = {"boolean", "decimal", "floating", "integer", "mixed-integer-float"}


def read_table(estimator: BaseEstimator, X: Any, *, reset: bool) -> pd.DataFrame:
    """Return X checked, as a DataFrame of two kinds of columns: float64, with NaN for missing, and levels as text.

    The same values give the same table, wherever they come from. The messages are scikit-learn's wherever it has one.

    Args:
        estimator: gets ``n_features_in_`` and ``feature_names_in_``, or has them; see ``validate_data``. Which columns
            are numeric it keeps as ``_numeric``, their positions.
        X: (n, n_columns), a DataFrame of pandas or polars, or anything that ``np.asarray`` makes numbers of.
        reset: true in ``fit``. Otherwise X must have the columns of then, the same ones and in the same order.

    Raises:
        TypeError: X is sparse, has column names that are partly text, or columns of a type that is no input.
        ValueError: X is no table, has no rows or columns, holds an infinity, or not the columns of ``fit``.
    """
    frame = as_frame(X)
    if isinstance(frame, pd.DataFrame):
        validate_data(estimator, frame, reset=reset, skip_check_array=True)
        if 0 in frame.shape:
            check_array(np.empty(frame.shape), estimator=estimator)  # scikit-learn's words
        if reset:
            estimator._numeric = numeric_columns(frame)
    elif reset or len(estimator._numeric) == estimator.n_features_in_:
        missing_as_nan = as_array(X) if isinstance(X, np.ndarray) else X
        array = validate_data(estimator, missing_as_nan, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        frame = pd.DataFrame(array)
        if reset:
            estimator._numeric = list(range(array.shape[1]))
    else:  # values of several kinds; ``fit`` saw which are which
        values = np.asarray(X, dtype=object)
        validate_data(estimator, values, reset=False, skip_check_array=True)
        frame = pd.DataFrame(values)
    numeric = estimator._numeric
    levels = [position for position in range(frame.shape[1]) if position not in numeric]
    numbers = to_numbers(frame.iloc[:, numeric]) + 0.0  # −0 becomes 0
    assert_all_finite(numbers, allow_nan=True, estimator_name=type(estimator).__name__, input_name="X")
    columns: dict[int, NDArray[Any]] = dict(zip(numeric, numbers.T, strict=True))
    columns |= zip(levels, to_levels(frame.iloc[:, levels]).T, strict=True)
    table = pd.DataFrame({position: columns[position] for position in range(frame.shape[1])})
    return table.set_axis(getattr(estimator, "feature_names_in_", table.columns), axis="columns")


def as_array(values: Any) -> NDArray[Any]:
    """Return a column of any origin as an array, with NaN for missing values and objects that are numbers as numbers.

    Args:
        values: a Series, an array or a list.
    """
    array = np.asarray(values)
    if array.dtype != object:
        return array
    array = np.where(pd.isna(array), np.nan, array)
    kind = pd.api.types.infer_dtype(array.ravel(), skipna=True)
    return np.array(array.tolist()) if kind in _NUMBERS else array


def read_weights(sample_weight: Any, X: pd.DataFrame) -> NDArray[np.float64]:
    """Return one finite weight of at least 0 for each row, not all 0; ones if there are none.

    Raises:
        ValueError: they are something else, in scikit-learn's words.
    """
    given = None if sample_weight is None else as_array(sample_weight)
    weights: NDArray[np.float64] = _check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():  # scikit-learn says so since 1.8
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


class MergedRows(NamedTuple):
    """Distinct rows in an order of their own, whatever order and number they came in.

    Attributes:
        positions: (m,), where each one is first found in the data.
        weights: (m,), the summed weights, above 0.
        groups: (m,), equal for rows with equal x.
    """

    positions: NDArray[np.intp]
    weights: NDArray[np.float64]
    groups: NDArray[np.intp]


def merge_equal_rows(X: pd.DataFrame, y: NDArray[Any], weights: NDArray[np.float64]) -> MergedRows:
    """Merge rows that agree in x and y.

    So a row of weight k trains exactly as k copies of it, and none of its copies is held out while another is
    trained on. Rows are told apart by a 64-bit hash, and ordered by it: among a million distinct rows two collide with
    a probability of 3e-8.

    Args:
        X: (n, n_columns), as `read_table` returns it.
        y: (n,) or (n, n_outputs), numbers.
        weights: (n,), above 0.
    """
    target = pd.DataFrame(y.reshape(len(y), -1) + 0)
    x_key = pd.util.hash_pandas_object(X, index=False).to_numpy()
    y_key = pd.util.hash_pandas_object(target, index=False).to_numpy()
    both = pd.util.hash_pandas_object(pd.DataFrame({"x": x_key, "y": y_key}), index=False).to_numpy()
    _, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    summed = np.bincount(inverse, weights=weights).astype(np.float64)
    _, groups = np.unique(x_key[first], return_inverse=True)
    return MergedRows(first, summed, groups)


def assign_folds(
    y: NDArray[Any], groups: NDArray[np.intp], *, n_folds: int, n_repeats: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Assign the rows to folds, ``n_repeats`` times: (n, n_repeats), values in [0, n_folds), or −1 for "in no fold".

    The assignment is stratified: rows are sorted by y, and each run of ``n_folds`` neighbours goes to as many different
    folds. Rows of a group, which have the same x, stay together. A class with a single group is in no fold: held
    out, there would be nothing to learn it from.

    Args:
        y: (n,), floating-point for numbers, integers for classes.
        groups: (n,), integers from 0.
        n_folds: at least 1 and at most the number of groups.
        n_repeats: at least 1.
        rng: draws the assignments.
    """
    _, first, counts = np.unique(groups, return_index=True, return_counts=True)
    label = np.bincount(groups, weights=y) / counts if y.dtype.kind == "f" else y[first]
    n_groups = len(first)
    folds = np.empty((n_groups, n_repeats), dtype=np.intp)
    for repeat in range(n_repeats):
        order = np.lexsort((rng.random(n_groups), label))
        runs = np.tile(np.arange(n_folds), (-(-n_groups // n_folds), 1))
        folds[order, repeat] = rng.permuted(runs, axis=1).ravel()[:n_groups]
    if y.dtype.kind != "f":
        _, inverse, class_counts = np.unique(label, return_inverse=True, return_counts=True)
        folds[class_counts[inverse] == 1] = -1
    return folds[groups]


def n_folds_for(validation_fraction: float, n_groups: int) -> int:
    """Return how many folds make a held-out share of ``validation_fraction`` each; 1 if there are too few rows."""
    return 1 if n_groups < 4 else min(max(2, round(1 / validation_fraction)), n_groups)
