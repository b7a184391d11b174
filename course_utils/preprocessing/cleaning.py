"""Find what may be wrong in a table: duplicates, missing values, outliers. Nothing is deleted here.

Every function says where to look; whether a row is an error or a rare truth, and what then becomes of it, is a decision
about the data at hand, and belongs where a reader sees it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.covariance import EmpiricalCovariance, MinCovDet

from course_utils._validation import check_in_range, check_one_of, check_positive

__all__ = ["Duplicates", "find_duplicates", "missing_report", "multivariate_outliers", "univariate_outliers"]

# Tukey 1977; Iglewicz & Hoaglin 1993; convention.
_THRESHOLDS = {"iqr": 1.5, "mad": 3.5, "zscore": 3.0}


@dataclass(frozen=True, eq=False, repr=False)
class Duplicates:
    """Which rows of a table occur again, and whether chance would have done it.

    Attributes:
        repeated: (n,) boolean: the row equals an earlier one in every column. With keys, the same individual was
            entered twice; without keys, that or two individuals who are alike.
        shared: (n,) boolean: the row equals an earlier one of another individual in all but the keys. Without keys
            False throughout.
        conflicting: (n,) boolean: another row has the same keys and other values. Without keys False throughout.
        n_equal_pairs: pairs of equal rows: of different individuals with keys, of any rows without.
        expected_pairs: how many such pairs chance brings about, estimated (see `find_duplicates`).
    """

    repeated: NDArray[np.bool_]
    shared: NDArray[np.bool_]
    conflicting: NDArray[np.bool_]
    n_equal_pairs: int
    expected_pairs: float

    @property
    def surprising(self) -> bool:
        """Whether there are more equal pairs than chance explains.

        That is, whether a Poisson variable with mean 2·``expected_pairs`` would reach ``n_equal_pairs`` with a
        probability below 1%; twice, since the estimate knows part of the dependence between columns only.
        """
        return bool(stats.poisson.sf(self.n_equal_pairs - 1, 2 * self.expected_pairs) < 0.01)

    def __repr__(self) -> str:
        verdict = "more than chance explains" if self.surprising else "no more than chance explains"
        return (
            f"Duplicates({self.repeated.sum()} repeated, {self.shared.sum()} shared and {self.conflicting.sum()} "
            f"conflicting of {len(self.repeated)} rows; {self.n_equal_pairs} equal pairs, expected "
            f"{self.expected_pairs:.2g}: {verdict})"
        )


def find_duplicates(frame: pd.DataFrame, *, keys: str | Sequence[str] | None = None) -> Duplicates:
    """Find equal rows, and compare their number with what chance would bring about.

    Equal rows are not always duplicates: among people described by age, education and town many are alike; two with
    the same age, height and weight to a gram hardly are. So equal pairs are set against two estimates of how many
    there would be among independently drawn individuals, and the larger counts:

    - if columns were independent, (number of pairs) · Π over columns of c, where c is the share of pairs that agree in
      the column;
    - for each column, (number of pairs that differ in this column alone) · c / (1 − c): the other columns may depend
      on each other in any way, and copied rows, which differ nowhere, do not count.

    Both are coarse: a few copies in a table where many are alike anyway do not show, and a column that is the only one
    tells nothing. What identifies an individual (``keys``) says more than any count.

    Args:
        frame: (n, n_columns); missing values count as equal to each other.
        keys: the columns that tell individuals apart, such as a patient's number. A row without a key, or with part
            of one, is an individual of its own.

    Returns:
        Masks and counts; ``frame[~result.repeated]`` would drop what is repeated.

    Raises:
        TypeError: a column holds lists or other values that have no hash.
        KeyError: a key is no column.
        ValueError: no column is left beside the keys.
    """
    names = [] if keys is None else [keys] if isinstance(keys, str) else list(keys)
    values = frame.drop(columns=names)
    if values.shape[1] == 0:
        raise ValueError(f"a table needs a column beside its keys, got {frame.shape[1]} columns and keys={names}")
    n_rows = len(frame)
    codes = np.column_stack([_codes(column) for _, column in values.items()])
    same_values = _group_numbers(codes)
    if names:
        key_codes = np.column_stack([_codes(frame[name]) for name in names])
        individual = _group_numbers(key_codes)
        without = frame[names].isna().any(axis=1).to_numpy()
        individual[without] = n_rows + np.arange(without.sum())
    else:
        individual = np.zeros(n_rows, dtype=np.int64)
    entry = _group_numbers(np.column_stack([individual, same_values]))
    repeated = _seen_before(entry)
    if not names:
        counted, nothing = np.ones(n_rows, dtype=bool), np.zeros(n_rows, dtype=bool)
        shared, conflicting = nothing, nothing.copy()
    else:
        counted = ~repeated  # each individual once: what is equal now belongs to different ones
        shared = np.zeros(n_rows, dtype=bool)
        shared[counted] = _seen_before(same_values[counted])
        versions = pd.Series(same_values).groupby(individual).transform("nunique")
        conflicting = (versions > 1).to_numpy()
    n_equal = _n_equal_pairs(same_values[counted])
    return Duplicates(repeated, shared, conflicting, n_equal, _expected_pairs(codes[counted], n_equal))


def missing_report(frame: pd.DataFrame) -> pd.DataFrame:
    """Count, column by column, what is missing or stands in for it.

    Args:
        frame: (n, n_columns).

    Returns:
        One row a column, in the frame's order: ``n_missing`` and ``share`` (NaN, None, NA, NaT), ``n_infinite``,
        ``n_blank`` (text that is empty or white space, which pandas does not take for missing).
    """
    rows = []
    for _, column in frame.items():
        n_missing = int(column.isna().sum())
        present = column.dropna()
        if pd.api.types.is_float_dtype(column.dtype):
            n_infinite, n_blank = int(np.isinf(present.to_numpy(dtype=np.float64)).sum()), 0
        elif pd.api.types.is_numeric_dtype(column.dtype):
            n_infinite, n_blank = 0, 0
        else:
            n_infinite = sum(isinstance(value, float | np.floating) and bool(np.isinf(value)) for value in present)
            n_blank = sum(isinstance(value, str) and not value.strip() for value in present)
        rows.append((n_missing, n_missing / len(column) if len(column) else 0.0, n_infinite, n_blank))
    return pd.DataFrame(rows, index=frame.columns, columns=["n_missing", "share", "n_infinite", "n_blank"])


def univariate_outliers(x: Any, *, method: str = "iqr", threshold: float | None = None) -> NDArray[np.bool_]:
    """Mark values that lie abnormally far from the others of their variable.

    - ``"iqr"``: more than ``threshold`` interquartile ranges below the first or above the third quartile. If half
      of the values are equal, the range may be 0: then every other value is marked.
    - ``"mad"``: 0.6745·|x − median| / MAD above ``threshold``, MAD being the median of |x − median|. If that is 0,
      |x − median| / (1.2533·mean of |x − median|) takes its place.
    - ``"zscore"``: |x − mean| / standard deviation (of the sample, n − 1) above ``threshold``. The outliers inflate
      both: the score cannot exceed (n − 1)/√n, so that among 10 values none ever reaches 3.

    Args:
        x: (n,) numbers. Missing values are not marked, infinite ones are; neither enters the statistics.
        method: one of the three.
        threshold: above 0; by default 1.5, 3.5 and 3.

    Returns:
        (n,) boolean. In a normal sample the defaults mark about 0.7%, 0.05% and 0.3%.

    Raises:
        ValueError: ``x`` holds something other than numbers or has not one dimension, no method has this name, or
            ``threshold`` is not above 0.

    Source: Tukey 1977; Iglewicz & Hoaglin 1993, "How to Detect and Handle Outliers".
    """
    check_one_of(method, "method", tuple(_THRESHOLDS))
    threshold = _THRESHOLDS[method] if threshold is None else check_positive(threshold, "threshold")
    values = _as_floats(x, "x", 1)
    finite = values[np.isfinite(values)]
    low, high = _normal_range(finite, method, threshold) if len(finite) > 1 else (-math.inf, math.inf)
    marked: NDArray[np.bool_] = np.isinf(values) | (values < low) | (values > high)
    return marked


def _normal_range(values: NDArray[np.float64], method: str, threshold: float) -> tuple[float, float]:
    if method == "iqr":
        low, high = np.quantile(values, [0.25, 0.75])
        reach = threshold * (high - low)
        return low - reach, high + reach
    if method == "zscore":
        centre, scale = values.mean(), values.std(ddof=1)
    else:
        centre = np.median(values)
        distances = np.abs(values - centre)
        mad = np.median(distances)
        # Both estimate the standard deviation of a normal variable.
        scale = mad / stats.norm.ppf(0.75) if mad > 0 else math.sqrt(math.pi / 2) * distances.mean()
    return centre - threshold * scale, centre + threshold * scale


def multivariate_outliers(X: Any, *, level: float = 0.001, robust: bool = True, seed: int = 0) -> NDArray[np.bool_]:
    """Mark rows whose combination of values is abnormal, even if each value alone is not.

    A row is marked if its squared Mahalanobis distance (x − μ)ᵀ Σ⁻¹ (x − μ) exceeds the 1 − ``level`` quantile of the
    chi-squared distribution with one degree of freedom a column, which is its distribution among normal rows.

    Args:
        X: (n, n_columns) numbers, roughly normal: take the logarithm of what is skewed, leave out what is discrete.
        level: share of normal rows that is marked by mistake, in (0, 1). The quantile suits large n; with few rows a
            column, more are.
        robust: estimate μ and Σ from the half of the rows that lies closest together (minimum covariance
            determinant), so that outliers cannot hide themselves; if false, from all rows.
        seed: of the search for that half.

    Returns:
        (n,) boolean.

    Raises:
        ValueError: ``X`` holds something other than numbers, a value is missing or infinite, there are not more than
            2·n_columns rows, columns are constant or determine each other, or they do so within the half that
            ``robust`` uses.

    Source: Rousseeuw & Van Driessen 1999; scikit-learn's ``MinCovDet``.
    """
    level = check_in_range(level, "level", 0.0, 1.0, closed="()")
    values = _as_floats(X, "X", 2)
    n_rows, n_columns = values.shape
    if not np.isfinite(values).all():
        raise ValueError(f"X must be finite, got {np.sum(~np.isfinite(values))} missing or infinite values")
    if n_columns == 0 or n_rows <= 2 * n_columns:
        raise ValueError(f"X must have a column and more than twice as many rows as columns, got shape {values.shape}")
    # The distances do not depend on units; the computation's accuracy does.
    spread = values.std(axis=0)
    centred = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if np.linalg.matrix_rank(centred) < n_columns:
        raise ValueError("columns of X are constant or determine each other exactly; leave such columns out")
    estimate = _robust_covariance(centred, seed) if robust else EmpiricalCovariance().fit(centred)
    marked: NDArray[np.bool_] = estimate.mahalanobis(centred) > stats.chi2.ppf(1 - level, n_columns)
    return marked


def _robust_covariance(centred: NDArray[np.float64], seed: int) -> MinCovDet:
    with warnings.catch_warnings():
        # The search warns where determinants are 0 but for rounding: the case that is looked for below.
        warnings.filterwarnings("ignore", "Determinant has increased", RuntimeWarning)
        estimate = MinCovDet(random_state=seed).fit(centred)
    if np.linalg.cond(estimate.raw_covariance_) > 1e12:
        raise ValueError(
            "half of the rows of X have columns that are constant or determine each other; leave out discrete columns, "
            "or pass robust=False"
        )
    return estimate


def _as_floats(values: Any, name: str, n_dimensions: int) -> NDArray[np.float64]:
    if isinstance(values, pd.Series):
        array = values.to_numpy(dtype=np.float64, na_value=np.nan)
    elif isinstance(values, pd.DataFrame):
        columns = [column.to_numpy(dtype=np.float64, na_value=np.nan) for _, column in values.items()]
        array = np.column_stack(columns) if columns else np.empty(values.shape)
    else:
        array = np.asarray(values, dtype=np.float64)
    if array.ndim != n_dimensions:
        raise ValueError(f"{name} must have {n_dimensions} dimension(s), got shape {array.shape}")
    return array


def _codes(column: pd.Series[Any]) -> NDArray[np.int64]:
    """Return (n,) numbers of the distinct values, missing ones together one of them."""
    codes, _ = pd.factorize(column)
    return codes + 1  # a missing value's is -1


def _group_numbers(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) numbers that are equal where rows of codes are."""
    numbers = codes[:, 0]
    for column in codes.T[1:]:
        # Renumbered after each column, so that the product stays below n².
        numbers = np.unique(numbers * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    return numbers.copy()


def _seen_before(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    return pd.Series(numbers).duplicated().to_numpy()


def _n_equal_pairs(numbers: NDArray[Any]) -> int:
    counts = np.unique(numbers, return_counts=True)[1]
    return int(np.sum(counts * (counts - 1) // 2))


def _expected_pairs(codes: NDArray[np.int64], n_equal: int) -> float:
    n_rows = len(codes)
    n_pairs = n_rows * (n_rows - 1) // 2
    if n_pairs == 0:
        return 0.0
    agreeing = np.array([_n_equal_pairs(column) / n_pairs for column in codes.T])
    estimates = [float(n_pairs * agreeing.prod())]
    # A row's signature is the sum of random numbers, one for each value: what it is without a column, is a difference.
    # Two different rows have equal ones with probability 2⁻⁶⁴.
    rng = np.random.default_rng(0)
    parts = [rng.integers(2**64, size=column.max() + 1, dtype=np.uint64)[column] for column in codes.T]
    signature = np.sum(parts, axis=0, dtype=np.uint64)
    for part, share in zip(parts, agreeing, strict=True):
        if share < 1:
            estimates.append(float((_n_equal_pairs(signature - part) - n_equal) * share / (1 - share)))
    return max(estimates)
