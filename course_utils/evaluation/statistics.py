"""What differences between scores allow one to say: intervals and paired tests."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from course_utils._validation import check_in_range, check_int, check_one_of

if TYPE_CHECKING:
    pass

__all__ = ["BootstrapInterval", "TestResult", "bootstrap_ci", "corrected_resampled_ttest", "holm"]

FloatArray = NDArray[np.float64]
# Row numbers that scipy holds at once, in bootstrap resamples or the jackknife's n·(n - 1): 80 MB.
_MAX_INDICES = 10_000_000


@dataclass(frozen=True)
class BootstrapInterval:
    """A statistic of the data and its bootstrap confidence interval, all in the statistic's unit.

    Attributes:
        estimate: the statistic of the data themselves.
        low: lower end of the interval.
        high: its upper end.
        standard_error: standard deviation of the statistic over the resamples.
        level: of confidence.
        method: ``"percentile"`` or ``"bca"``.
        distribution: (n_resamples,), the statistic of every resample.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    level: float
    method: str
    distribution: FloatArray = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.estimate:.4g} ({_interval(self)}, {self.method} bootstrap)"


def _interval(result: BootstrapInterval | TestResult) -> str:
    return f"{100 * result.level:g}% CI {result.low:.4g} to {result.high:.4g}"


def bootstrap_ci(
    data: ArrayLike | tuple[ArrayLike, ...], statistic: Callable[..., float], *, n_resamples: int = 2000,
    level: float = 0.95, method: str = "percentile", seed: int = 0
) -> BootstrapInterval:  # fmt: skip
    """Return the confidence interval of a statistic over resampled rows.

    Rows are drawn with replacement, those of several arrays together, so that a prediction keeps its target. The
    interval covers what another test set *from the same distribution* would give for the *same fitted model*; that
    another training set or seed gives another model is not in it. To compare two models, resample their difference::

        bootstrap_ci((y, a, b), lambda y, a, b: rmse(y, a) - rmse(y, b))

    ``"percentile"`` takes the quantiles of the resampled statistic. ``"bca"`` corrects them for bias and skewness,
    which matters with few rows; it costs one more evaluation a row. If all resamples have the same statistic, the
    interval has width 0.

    Source: Efron & Tibshirani 1993, ch. 13 and 14; computed by ``scipy.stats.bootstrap``.

    Args:
        data: values of shape (n, ...), or a tuple of arrays of n rows each, such as ``(y, prediction)``.
        statistic: of the array, or of all arrays in their order; returns a number.
        n_resamples: at least 100.
        level: of confidence, above 0 and below 1.
        method: ``"percentile"`` or ``"bca"``.
        seed: of the resampling, at least 0.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, the arrays differ in length or have fewer than 2 rows, the statistic
            is not finite on the data or on a resample, or BCa is not defined for it (extremes such as ``np.max``).
    """
    check_int(n_resamples, "n_resamples", minimum=100)
    check_in_range(level, "level", 0.0, 1.0, closed="()")
    check_one_of(method, "method", ("percentile", "bca"))
    rng = np.random.default_rng(check_int(seed, "seed", minimum=0))
    arrays = _rows(data)
    n = len(arrays[0])

    def of_rows(rows: NDArray[np.int64]) -> float:
        return float(statistic(*(array[rows] for array in arrays)))

    estimate = of_rows(np.arange(n))
    if not math.isfinite(estimate):
        raise ValueError(f"statistic must be finite, got {estimate} on the data")
    # Resampling row numbers, not values, lets labels be strings and rows be vectors.
    batch = max(1, _MAX_INDICES // n)
    bootstrap = partial(stats.bootstrap, (np.arange(n),), of_rows, batch=batch, confidence_level=level)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # what it warns of is raised below
        result = bootstrap(n_resamples=n_resamples, method="percentile", rng=rng)
        distribution = np.asarray(result.bootstrap_distribution, dtype=np.float64)
        bad = int(np.sum(~np.isfinite(distribution)))  # such as a metric of two classes, on rows of one
        if method == "bca" and not bad and np.ptp(distribution) > 0:
            result = bootstrap(n_resamples=0, bootstrap_result=result, method="BCa")
    if bad:
        raise ValueError(f"statistic must be finite, got nan or inf on {bad} of {n_resamples} resamples")
    low, high = map(float, result.confidence_interval)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("BCa is not defined for this statistic on these data; use method='percentile'")
    return BootstrapInterval(estimate, low, high, float(distribution.std(ddof=1)), level, method, distribution)


def _rows(data: Any) -> list[NDArray[Any]]:
    together = isinstance(data, tuple) and all(np.ndim(array) > 0 for array in data)
    arrays = [np.asarray(array) for array in (data if together else (data,))]
    lengths = [len(array) if array.ndim else 0 for array in arrays]
    if not lengths or min(lengths) < 2 or len(set(lengths)) > 1:
        raise ValueError(f"data must be arrays of the same number of rows, at least 2, got {lengths}")
    for array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"data must be finite, got {int(np.sum(~np.isfinite(array)))} values that are not")
    return arrays


@dataclass(frozen=True)
class TestResult:
    """A mean difference, its confidence interval, and Student's test of whether it is 0.

    Attributes:
        mean: of the differences, in the score's unit.
        low: lower end of the interval.
        high: its upper end.
        t: the statistic.
        p_value: two-sided; NaN where the test is undefined.
        df: degrees of freedom.
        level: of confidence of the interval.
    """

    __test__: ClassVar[bool] = False  # pytest would collect it for its name

    mean: float
    low: float
    high: float
    t: float
    p_value: float
    df: int
    level: float = 0.95

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0; False where the test is undefined."""
        return self.p_value < 1 - self.level

    def __str__(self) -> str:
        if math.isnan(self.t):
            return f"{self.mean:.4g}; all {self.df + 1} differences are equal, which leaves no spread to test against"
        return f"{self.mean:.4g} ({_interval(self)}; t({self.df}) = {self.t:.3g}, p = {self.p_value:.2g})"


def corrected_resampled_ttest(differences: ArrayLike, *, test_fraction: float, level: float = 0.95) -> TestResult:
    """Test whether two models differ, from their paired scores over cross-validation splits or resampled splits.

    The training parts of the splits overlap, hence their scores are correlated, and the plain t-test finds
    differences that are not there. The correction enlarges the variance of the mean::

        t = d̄ / √((1/J + n_test/n_train)·s²),   s² = Σ(d_j − d̄)²/(J − 1),   J − 1 degrees of freedom

    with d_j the difference on split j of J. More repeats shrink 1/J but never n_test/n_train: repetition does not
    replace data. The plain t-test is the limit of ``test_fraction`` towards 0.

    Source: Nadeau & Bengio 2003, eq. 11 and sec. 3; for repeated cross-validation Bouckaert & Frank 2004.

    Args:
        differences: score of one model minus score of the other, shape (splits,), at least 2; over repeated
            cross-validation those of all repeats. The scores of one model alone give the interval of their mean.
        test_fraction: share of the rows that each split tests on, above 0 and below 1; 1/k for k folds.
        level: of confidence, above 0 and below 1.

    Returns:
        Mean, interval, t and p. Without any spread there is nothing to test against: differences that are all 0
        (models that predict the same) give t = 0 and p = 1, and if all equal another number, which few splits and a
        coarse metric bring about by chance, interval, t and p are NaN and ``significant`` is False.

    Raises:
        TypeError, ValueError: an argument is out of range, or a difference is not finite.
    """
    check_in_range(test_fraction, "test_fraction", 0.0, 1.0, closed="()")
    check_in_range(level, "level", 0.0, 1.0, closed="()")
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"differences must have shape (splits,) with at least 2 splits, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values[~np.isfinite(values)][0]} (did a model fail?)")
    mean, df = float(values.mean()), len(values) - 1
    if not values.any():
        return TestResult(0.0, 0.0, 0.0, 0.0, 1.0, df, level)
    if np.ptp(values) <= 1e-10 * np.abs(values).max():  # 1 - 0.9 and 0.9 - 0.8 differ in the 16th digit
        return TestResult(mean, math.nan, math.nan, math.nan, math.nan, df, level)
    factor = 1 / len(values) + test_fraction / (1 - test_fraction)
    standard_error = math.sqrt(factor * float(values.var(ddof=1)))
    t = mean / standard_error
    half = float(stats.t.ppf((1 + level) / 2, df)) * standard_error
    return TestResult(mean, mean - half, mean + half, t, 2 * float(stats.t.sf(abs(t), df)), df, level)


def holm(p_values: ArrayLike) -> FloatArray:
    """Return p-values adjusted for having made several comparisons, by Holm's step-down method.

    Rejecting where an adjusted value is below α keeps the probability of *any* false rejection below α, whatever the
    dependence between the tests. The i-th smallest of m (from 0) becomes the largest of p_(j)·(m − j) over j ≤ i.

    Source: Holm 1979.

    Args:
        p_values: shape (tests,), each in [0, 1]; NaN for a test that was undefined, which stays NaN but counts.

    Returns:
        Shape (tests,), in the order given, at most 1.

    Raises:
        ValueError: the shape or a value is none of these.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p_values must have shape (tests,), got shape {values.shape}")
    if len(outside := values[(values < 0) | (values > 1)]):
        raise ValueError(f"p_values must be in [0, 1], got {outside[0]}")
    order = np.argsort(values)  # NaN last
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
