"""From what users pass to rows to train on: checked tables and weights, equal rows merged, held-out folds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, _num_samples, check_array, validate_data

from course_utils._validation import check_in_range

__all__ = ["MergedRows", "Table", "assign_folds", "check_table", "check_weights", "merge_equal_rows", "number_of_folds"]

Table = pd.DataFrame | NDArray[np.float64]


def check_table(estimator: BaseEstimator, X: Any, *, reset: bool) -> Table:
    """Return X checked: numbers as a float64 array, a DataFrame with other columns as the DataFrame it is.

    NaN passes, for the preprocessor imputes it. The messages are scikit-learn's wherever it has one.

    Args:
        estimator: gets ``n_features_in_`` and ``feature_names_in_``, or has them; see ``validate_data``.
        X: (n, n_columns), a DataFrame or anything that ``np.asarray`` makes numbers of.
        reset: true in ``fit``. Otherwise X must have the columns of then, the same ones and in the same order.

    Raises:
        TypeError: X is sparse, or has column names that are partly text.
        ValueError: X is no table, has no rows or columns, holds an infinity, or not the columns of ``fit``.
    """
    numeric = _numeric_columns(X) if reset else estimator._numeric_columns
    if reset:
        estimator._numeric_columns = numeric
    if numeric is None:
        array: NDArray[np.float64] = validate_data(
            estimator, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan"
        )
        return array
    if not isinstance(X, pd.DataFrame):  # values of several kinds; the names tell the preprocessor which are which
        X = check_array(X, dtype=None, ensure_all_finite=False, estimator=estimator, input_name="X")
        validate_data(estimator, X, reset=False, skip_check_array=True)
        X = pd.DataFrame(X, columns=getattr(estimator, "feature_names_in_", None))
    else:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    if _num_samples(X) == 0:
        name = type(estimator).__name__
        raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required by {name}.")
    if len(numeric):
        # In a copy: nothing of the caller's may change, and text in a column of numbers is an error of now.
        values = check_array(
            X.iloc[:, numeric], dtype=np.float64, ensure_all_finite="allow-nan", estimator=estimator, input_name="X"
        )
        replaced = dict(zip(numeric, values.T, strict=True))
        columns = [pd.Series(replaced[i]) if i in replaced else X.iloc[:, i] for i in range(X.shape[1])]
        X = pd.concat([c.reset_index(drop=True) for c in columns], axis=1).set_axis(X.columns, axis=1)
    table: pd.DataFrame = X
    return table


def _numeric_columns(X: Any) -> list[int] | None:
    """Return the positions of a DataFrame's numeric columns; None if all are, or if it is none."""
    if not isinstance(X, pd.DataFrame) or X.shape[1] == 0:
        return None
    numeric = [i for i, dtype in enumerate(X.dtypes) if pd.api.types.is_numeric_dtype(dtype)]
    return None if len(numeric) == X.shape[1] else numeric


def check_weights(sample_weight: Any, X: Table) -> NDArray[np.float64]:
    """Return one finite weight of at least 0 for each row, not all 0; ones if there are none.

    Raises:
        ValueError: they are something else, in scikit-learn's words.
    """
    weights: NDArray[np.float64] = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
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


def merge_equal_rows(X: Table, y: NDArray[Any], weights: NDArray[np.float64]) -> MergedRows:
    """Merge rows that agree in x and y, and leave those of weight 0 out.

    So a row of weight k trains exactly as k copies of it, and none of its copies is held out while another is
    trained on. Rows are told apart by a 64-bit hash, and ordered by it: among a million distinct rows two collide with
    a probability of 3e-8.

    Args:
        X: (n, n_columns).
        y: (n,) or (n, n_outputs), numbers.
        weights: (n,), at least 0.
    """
    kept = np.flatnonzero(weights)
    frame = X.iloc[kept] if isinstance(X, pd.DataFrame) else pd.DataFrame(X[kept] + 0.0)  # −0 becomes 0
    # As text, as the preprocessor compares levels; values without a hash then meet its error about them.
    columns = {i: c.map(str) if c.dtype == object else c for i, (_, c) in enumerate(frame.items())}
    x_key = pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy()
    target = pd.DataFrame(y[kept].reshape(len(kept), -1) + 0)
    y_key = pd.util.hash_pandas_object(target, index=False).to_numpy()
    both = pd.util.hash_pandas_object(pd.DataFrame({"x": x_key, "y": y_key}), index=False).to_numpy()
    _, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    summed = np.bincount(inverse, weights=weights[kept]).astype(np.float64)
    _, groups = np.unique(x_key[first], return_inverse=True)
    return MergedRows(kept[first], summed, groups)


def assign_folds(
    y: NDArray[Any], groups: NDArray[np.intp], *, n_folds: int, n_deals: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Deal the rows out to folds, ``n_deals`` times: (n, n_deals), values in [0, n_folds), or −1 for "in no fold".

    The deal is stratified: rows are sorted by y, and each run of ``n_folds`` neighbours goes to as many different
    folds. Rows of a group, which have the same x, stay together. A class with a single group is in no fold: held
    out, there would be nothing to learn it from.

    Args:
        y: (n,), floating-point for numbers, integers for classes.
        groups: (n,), integers from 0.
        n_folds: at least 1 and at most the number of groups.
        n_deals: at least 1.
        rng: draws the deals.
    """
    _, first, counts = np.unique(groups, return_index=True, return_counts=True)
    label = np.bincount(groups, weights=y) / counts if y.dtype.kind == "f" else y[first]
    n_groups = len(first)
    folds = np.empty((n_groups, n_deals), dtype=np.intp)
    for deal in range(n_deals):
        order = np.lexsort((rng.random(n_groups), label))
        runs = np.tile(np.arange(n_folds), (-(-n_groups // n_folds), 1))
        folds[order, deal] = rng.permuted(runs, axis=1).ravel()[:n_groups]
    if y.dtype.kind != "f":
        _, inverse, class_counts = np.unique(label, return_inverse=True, return_counts=True)
        folds[class_counts[inverse] == 1] = -1
    return folds[groups]


def number_of_folds(validation_fraction: float, n_groups: int) -> int:
    """Return how many folds make a held-out share of ``validation_fraction`` each; 1 if there are too few rows.

    Raises:
        TypeError, ValueError: the fraction is not a number in (0, 1).
    """
    n_folds = max(2, round(1 / check_in_range(validation_fraction, "validation_fraction", 0.0, 1.0, closed="()")))
    return 1 if n_groups < 4 else min(n_folds, n_groups)
