"""Intervals, paired tests and rank tests against scipy, published figures and simulations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.text import Annotation
from numpy.typing import NDArray
from scipy import stats

from course_utils.evaluation import statistics
from course_utils.evaluation.ranks import critical_difference, friedman_test, plot_critical_difference
from course_utils.evaluation.statistics import TestResult, bootstrap_ci, corrected_resampled_ttest, holm

FloatArray = NDArray[np.float64]


def rmse(y: FloatArray, prediction: FloatArray) -> float:
    return float(np.sqrt(np.mean((y - prediction) ** 2)))


def regression(n: int = 60, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    return y, y + rng.normal(size=n)


# ------------------------------------------------------------------------------------------------------- bootstrap


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_bootstrap_equals_scipys_paired_bootstrap(method: str, level: float) -> None:
    y, prediction = regression()
    ours = bootstrap_ci((y, prediction), rmse, n_resamples=500, level=level, method=method.lower(), seed=3)
    scipys = stats.bootstrap(
        (y, prediction), rmse, paired=True, vectorized=False, n_resamples=500, confidence_level=level, method=method,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx(tuple(scipys.confidence_interval), rel=1e-12)
    assert ours.standard_error == pytest.approx(scipys.standard_error, rel=1e-12)
    assert ours.estimate == rmse(y, prediction)
    assert ours.distribution.shape == (500,)
    assert (ours.level, ours.method) == (level, method.lower())


def test_bootstrap_defaults_are_the_documented_ones() -> None:
    y, _ = regression()
    default = bootstrap_ci(y, np.mean)
    assert default == bootstrap_ci(y, np.mean, n_resamples=2000, level=0.95, method="percentile", seed=0)
    assert default.distribution.shape == (2000,)


def test_bootstrap_of_the_mean_has_its_standard_error() -> None:
    y, _ = regression(400)
    result = bootstrap_ci(y, np.mean)
    assert result.standard_error == pytest.approx(y.std() / math.sqrt(400), rel=0.06)  # 2000 resamples: 1.6% a σ


def test_bootstrap_depends_on_the_seed_alone() -> None:
    y, _ = regression()
    np.random.seed(5)  # noqa: NPY002 - the global stream must be left alone
    state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first = bootstrap_ci(y, np.mean, n_resamples=100)
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]  # noqa: NPY002
    assert first == bootstrap_ci(y, np.mean, n_resamples=100)
    assert first.low != bootstrap_ci(y, np.mean, n_resamples=100, seed=1).low


def test_bootstrap_of_a_difference_is_narrower_than_that_of_its_parts() -> None:
    y, a = regression(200)
    b = a + 0.1 * np.random.default_rng(1).normal(size=200)
    single = bootstrap_ci((y, a), rmse, n_resamples=300)
    paired = bootstrap_ci((y, a, b), lambda y, a, b: rmse(y, a) - rmse(y, b), n_resamples=300)
    assert paired.high - paired.low < 0.5 * (single.high - single.low)


def test_bootstrap_keeps_rows_of_labels_and_probabilities_together() -> None:
    labels = np.array(["cat", "dog"])[np.random.default_rng(0).integers(2, size=50)]
    probabilities = np.stack([labels == "cat", labels == "dog"], axis=1).astype(float)

    def accuracy(labels: NDArray[Any], probabilities: FloatArray) -> float:
        return float((np.array(["cat", "dog"])[probabilities.argmax(axis=1)] == labels).mean())

    result = bootstrap_ci((labels, probabilities), accuracy, n_resamples=100)
    assert (result.low, result.estimate, result.high) == (1, 1, 1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_of_constant_values_has_width_zero(method: str) -> None:
    result = bootstrap_ci(np.full(9, 2.5), np.mean, method=method)
    assert (result.low, result.high, result.standard_error) == (2.5, 2.5, 0)


def test_bootstrap_in_batches_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    y, _ = regression()
    whole = bootstrap_ci(y, np.mean, n_resamples=200, method="bca")
    monkeypatch.setattr(statistics, "_MAX_INDICES", 7 * len(y))
    batched = bootstrap_ci(y, np.mean, n_resamples=200, method="bca")
    assert (batched.low, batched.high) == (whole.low, whole.high)


def test_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """Behaviour: 95% intervals of 50 normal values. 200 trials have σ = 1.5 points; percentiles are a little narrow."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        result = bootstrap_ci(rng.normal(size=50), np.mean, n_resamples=200, seed=trial)
        covered += result.low <= 0 <= result.high
    assert 0.88 * 200 <= covered <= 0.99 * 200


def test_bca_moves_the_interval_towards_the_long_tail() -> None:
    """Behaviour: percentile intervals of a skewed mean miss it on the side of the tail, which BCa corrects in part."""
    rng = np.random.default_rng(0)
    shifts = []
    for _ in range(30):
        values = rng.exponential(size=20)
        percentile, bca = (bootstrap_ci(values, np.mean, n_resamples=500, method=m) for m in ("percentile", "bca"))
        shifts.append((bca.low - percentile.low, bca.high - percentile.high))
    assert (np.mean(shifts, axis=0) > 0.01).all()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([1.0, 2.0], {"n_resamples": 99}, "n_resamples must be at least 100, got 99"),
        ([1.0, 2.0], {"level": 1.0}, r"level must be in \(0, 1\), got 1.0"),
        ([1.0, 2.0], {"level": 95}, r"level must be in \(0, 1\), got 95"),
        ([1.0, 2.0], {"method": "basic"}, "method must be one of 'percentile', 'bca', got 'basic'"),
        ([1.0, 2.0], {"seed": -1}, "seed must be at least 0, got -1"),
        ([1.0], {}, r"same number of rows, at least 2, got \[1\]"),
        (([1.0, 2.0], [1.0, 2.0, 3.0]), {}, r"same number of rows, at least 2, got \[2, 3\]"),
        ((), {}, r"same number of rows, at least 2, got \[\]"),
        (3.0, {}, r"same number of rows, at least 2, got \[0\]"),
        ([1.0, math.nan, math.inf], {}, "data must be finite, got 2 values that are not"),
    ],
)
def test_bootstrap_refuses(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_ci(data, lambda *arrays: 0.0, **options)


def test_bootstrap_refuses_a_statistic_that_fails_on_data_or_resamples() -> None:
    with pytest.raises(ValueError, match="statistic must be finite, got nan on the data"):
        bootstrap_ci([1.0, 2.0], lambda x: math.nan)
    with pytest.raises(ValueError, match=r"got nan or inf on \d+ of 2000 resamples"):
        bootstrap_ci([0, 0, 1], lambda x: 1.0 if x.any() else math.nan)


def test_bca_is_refused_where_the_jackknife_does_not_vary() -> None:
    with pytest.raises(ValueError, match="BCa is not defined for this statistic"):
        bootstrap_ci([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], np.max, method="bca")
    assert bootstrap_ci([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], np.max).high == 5


def test_a_tuple_of_numbers_is_one_sample() -> None:
    assert bootstrap_ci((1.0, 2.0, 4.0), np.mean) == bootstrap_ci([1.0, 2.0, 4.0], np.mean)


# ------------------------------------------------------------------------------------------------- paired t-test


def test_corrected_test_equals_a_computation_by_hand() -> None:
    # mean 5/2, s² = 5/3, factor 1/4 + 0.2/0.8 = 1/2, standard error √(5/6)
    result = corrected_resampled_ttest([1, 2, 3, 4], test_fraction=0.2)
    assert isinstance(result, TestResult)  # whose name, imported here, pytest must not take for tests
    assert result.mean == 2.5
    assert result.t == pytest.approx(2.5 / math.sqrt(5 / 6), rel=1e-12)
    assert result.df == 3
    # t(3) has the distribution function 1/2 + [x/(√3(1 + x²/3)) + arctan(x/√3)]/π
    x = result.t
    tail = 0.5 - (x / (math.sqrt(3) * (1 + x * x / 3)) + math.atan(x / math.sqrt(3))) / math.pi
    assert result.p_value == pytest.approx(2 * tail, rel=1e-9)
    assert result.high - result.mean == pytest.approx(3.182446305 * math.sqrt(5 / 6), rel=1e-8)  # t table, 0.975
    assert result.mean - result.low == pytest.approx(result.high - result.mean)
    assert result.level == 0.95


@given(
    differences=st.lists(st.floats(-10, 10), min_size=2, max_size=20),
    level=st.sampled_from([0.5, 0.9, 0.99]),
)
@settings(max_examples=50, deadline=None)
def test_corrected_test_tends_to_scipys_t_test_as_the_test_part_shrinks(differences: list[float], level: float) -> None:
    assume(np.std(differences) > 1e-3)
    ours = corrected_resampled_ttest(differences, test_fraction=1e-12, level=level)
    scipys = stats.ttest_1samp(differences, 0)
    low, high = scipys.confidence_interval(level)
    assert (ours.t, ours.p_value) == pytest.approx((scipys.statistic, scipys.pvalue), rel=1e-6, abs=1e-9)
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert ours.level == level
    assert ours.significant == (not low <= 0 <= high)


@given(
    differences=st.lists(st.floats(-10, 10), min_size=2, max_size=20),
    fraction=st.floats(0.01, 0.5),
    scale=st.floats(0.1, 10),
)
@settings(max_examples=50, deadline=None)
def test_corrected_test_is_antisymmetric_scale_free_and_wider_than_the_plain_one(
    differences: list[float], fraction: float, scale: float
) -> None:
    assume(np.std(differences) > 1e-3)
    values = np.array(differences)
    result = corrected_resampled_ttest(values, test_fraction=fraction)
    mirrored = corrected_resampled_ttest(-values, test_fraction=fraction)
    scaled = corrected_resampled_ttest(scale * values, test_fraction=fraction)
    plain = corrected_resampled_ttest(values, test_fraction=1e-9)

    assert (mirrored.t, mirrored.p_value, mirrored.low) == pytest.approx((-result.t, result.p_value, -result.high))
    assert (scaled.t, scaled.high) == pytest.approx((result.t, scale * result.high), rel=1e-6, abs=1e-9)
    assert plain.p_value <= result.p_value
    assert result.significant == (result.low > 0 or result.high < 0)


def test_equal_models_have_p_one() -> None:
    result = corrected_resampled_ttest([0.0] * 5, test_fraction=0.2)
    assert (result.mean, result.low, result.high, result.t, result.p_value) == (0, 0, 0, 0, 1)
    assert not result.significant


@pytest.mark.parametrize("differences", [[0.5, 0.5, 0.5], [1 - 0.9, 0.9 - 0.8, 0.8 - 0.7]])
def test_equal_differences_leave_the_test_undefined(differences: list[float]) -> None:
    result = corrected_resampled_ttest(differences, test_fraction=0.2)
    assert result.mean == pytest.approx(differences[0])
    assert all(math.isnan(value) for value in (result.low, result.high, result.t, result.p_value))
    assert not result.significant
    assert "all 3 differences are equal" in str(result)


@pytest.mark.parametrize(
    ("differences", "options", "message"),
    [
        ([1.0], {}, r"at least 2 splits, got shape \(1,\)"),
        ([[1.0, 2.0]], {}, r"at least 2 splits, got shape \(1, 2\)"),
        ([1.0, math.nan], {}, "differences must be finite, got nan"),
        ([1.0, 2.0], {"test_fraction": 0.0}, r"test_fraction must be in \(0, 1\), got 0.0"),
        ([1.0, 2.0], {"test_fraction": 1}, r"test_fraction must be in \(0, 1\), got 1"),
        ([1.0, 2.0], {"level": 0}, r"level must be in \(0, 1\), got 0"),
    ],
)
def test_corrected_test_refuses(differences: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_resampled_ttest(differences, **{"test_fraction": 0.2, **options})


def differences_without_a_difference(rng: np.random.Generator, splits: int = 15, n: int = 100) -> FloatArray:
    """MSE differences of two regressions, each on one of two inputs that matter equally, over random 80/20 splits."""
    X = rng.normal(size=(n, 2))
    y = X.sum(axis=1) + rng.normal(size=n)
    differences = []
    for _ in range(splits):
        order = rng.permutation(n)
        train, test = order[: n * 8 // 10], order[n * 8 // 10 :]
        slopes = (X[train] * y[train, None]).sum(axis=0) / (X[train] ** 2).sum(axis=0)
        losses = ((y[test, None] - X[test] * slopes) ** 2).mean(axis=0)
        differences.append(losses[0] - losses[1])
    return np.array(differences)


def test_false_positive_rate_of_the_corrected_test_is_near_its_level_and_the_naive_ones_far_above() -> None:
    """Behaviour: by symmetry neither model is better, so that every significant difference is a false one.

    With 300 data sets the rate of a test that holds its 5% has σ = 1.3 points, and the bound of 10% leaves room for
    what Nadeau and Bengio themselves report (up to about 8%). The plain test's rate is a multiple of that.
    """
    rng = np.random.default_rng(0)
    naive = corrected = 0
    for _ in range(300):
        differences = differences_without_a_difference(rng)
        naive += stats.ttest_1samp(differences, 0).pvalue < 0.05
        corrected += corrected_resampled_ttest(differences, test_fraction=0.2).significant
    assert 0.01 * 300 <= corrected <= 0.10 * 300
    assert naive >= 0.25 * 300


# ------------------------------------------------------------------------------------------------------------ Holm


def test_holm_by_hand() -> None:
    # 4·0.01, 3·0.02 = 0.06, 2·0.03 = 0.06, and 0.9 as the largest
    np.testing.assert_allclose(holm([0.9, 0.01, 0.03, 0.02]), [0.9, 0.04, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_the_definition_and_lies_between_raw_and_bonferroni(p_values: list[float]) -> None:
    adjusted, m = holm(p_values), len(p_values)
    for p, result in zip(p_values, adjusted, strict=True):
        # The largest, over the values up to this one, of the value times the number of those not below its place.
        ordered = sorted(p_values)
        last = max(index for index, value in enumerate(ordered) if value == p)
        assert result == pytest.approx(min(1, max(ordered[i] * (m - i) for i in range(last + 1))))
        assert p <= result <= min(1, m * p) + 1e-12


def test_holm_counts_undefined_tests_and_leaves_them_undefined() -> None:
    np.testing.assert_allclose(holm([math.nan, 0.01, 0.04]), [math.nan, 0.03, 0.08])


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\], got 1.5"):
        holm([0.5, 1.5])
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\], got -0.1"):
        holm([-0.1])
    with pytest.raises(ValueError, match=r"shape \(tests,\), got shape \(1, 1\)"):
        holm([[0.5]])


# --------------------------------------------------------------------------------------------- ranks over data sets

# Demšar 2006, table 6: AUC of C4.5, with parameter m tuned, with cf, with both. On voting the paper ranks cf before
# m+cf although both show 0.975; the fourth digit here stands for what rounding hid.
C45 = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


def test_demsars_example_has_his_ranks_and_critical_differences() -> None:
    result = critical_difference(C45, names=NAMES)

    assert {name: round(rank, 3) for name, rank in result.ranks.items()} == {
        "C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143
    }  # fmt: skip
    assert list(result.ranks) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert result.cd == pytest.approx(1.25, abs=0.005)
    assert result.cd * math.sqrt(6 * 14 / 20) == pytest.approx(2.569, abs=0.0005)  # his table 5, four models
    assert (result.alpha, result.n_datasets) == (0.05, 14)
    assert critical_difference(C45, alpha=0.1).cd * math.sqrt(6 * 14 / 20) == pytest.approx(2.291, abs=0.0005)
    # He does not correct for ties, which makes his statistics smaller.
    uncorrected = 12 * 14 / 20 * ((result.friedman.ranks**2).sum() - 4 * 25 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.02)  # from ranks rounded to 3 digits
    assert result.friedman.chi2 > uncorrected


def test_demsars_groups_at_both_levels() -> None:
    assert critical_difference(C45, names=NAMES).groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    # At 10% C4.5 differs from both with m; "the data is not sufficient to reach a conclusion about C4.5+cf".
    assert critical_difference(C45, names=NAMES, alpha=0.1).groups == (
        ("C4.5+m+cf", "C4.5+m", "C4.5+cf"),
        ("C4.5+cf", "C4.5"),
    )


@given(
    n=st.integers(2, 12), k=st.integers(3, 7), levels=st.sampled_from([2, 5, 1000]), seed=st.integers(0, 10_000)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_friedman_equals_scipys_with_and_without_ties(n: int, k: int, levels: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(levels, size=(n, k)).astype(float)
    assume(len(np.unique(stats.rankdata(scores, axis=1), axis=0)) > 1)
    ours, scipys = friedman_test(scores), stats.friedmanchisquare(*scores.T)
    assert (ours.chi2, ours.chi2_p_value) == pytest.approx((scipys.statistic, scipys.pvalue), abs=1e-10)
    assert ours.ranks == pytest.approx(stats.rankdata(-scores, axis=1).mean(axis=0))


@given(n=st.integers(2, 12), k=st.integers(3, 7), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_iman_davenport_equals_the_analysis_of_variance_of_the_ranks(n: int, k: int, seed: int) -> None:
    ranks = stats.rankdata(np.random.default_rng(seed).normal(size=(n, k)), axis=1)
    between = n * ((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum()
    within = ((ranks - ranks.mean(axis=0)) ** 2).sum()
    assume(within > 0)
    f = (between / (k - 1)) / (within / ((k - 1) * (n - 1)))
    result = friedman_test(-ranks)
    assert result.f == pytest.approx(f, rel=1e-9, abs=1e-12)
    assert result.p_value == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)), rel=1e-6)


def test_friedman_of_ties_everywhere_finds_nothing() -> None:
    result = friedman_test(np.ones((4, 3)))
    assert (result.chi2, result.chi2_p_value, result.f, result.p_value) == (0, 1, 0, 1)
    assert result.ranks.tolist() == [2, 2, 2]


@pytest.mark.parametrize(("row", "orders"), [([3.0, 2.0, 1.0], 6), ([3.0, 1.0, 1.0], 3), ([4.0, 3.0, 2.0, 1.0], 24)])
def test_friedman_of_unanimous_data_sets_is_exact(row: list[float], orders: int) -> None:
    result = friedman_test([row] * 3)
    assert result.f == math.inf
    assert result.p_value == pytest.approx(orders**-2, rel=1e-12)


@given(k=st.integers(3, 8), n=st.integers(2, 30), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_groups_are_the_largest_sets_within_the_critical_difference(k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, k)) + np.linspace(0, 4 * rng.random(), k)
    result = critical_difference(scores)
    ranks, names = result.ranks, list(result.ranks)

    together = {(a, b) for group in result.groups for a in group for b in group if ranks[a] < ranks[b]}
    close = {(a, b) for a in names for b in names if ranks[a] < ranks[b] < ranks[a] + result.cd}
    assert together == close
    assert all(len(group) > 1 for group in result.groups)
    assert not any(set(a) <= set(b) for a in result.groups for b in result.groups if a is not b)
    assert list(ranks.values()) == sorted(ranks.values())
    assert sum(ranks.values()) == pytest.approx(k * (k + 1) / 2)


def test_lower_is_better_reverses_the_ranks_and_columns_name_the_models() -> None:
    scores = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 3.0, 4.0], "c": [3.0, 4.0, 5.0]})
    assert critical_difference(scores).ranks == {"c": 1, "b": 2, "a": 3}
    assert critical_difference(scores, higher_is_better=False).ranks == {"a": 1, "b": 2, "c": 3}
    assert list(critical_difference(scores, names=["x", "y", "z"]).ranks) == ["z", "y", "x"]
    assert list(critical_difference(scores.to_numpy()).ranks) == ["model 3", "model 2", "model 1"]


def test_tied_models_keep_their_order() -> None:
    names = [f"m{index}" for index in range(12)]
    scores = np.tile(np.arange(12) % 3, (4, 1))  # 2, 5, 8 and 11 share the first place
    ordered = critical_difference(scores, names=names).ranks
    assert list(ordered) == [f"m{index}" for first in (2, 1, 0) for index in range(first, 12, 3)]


def test_rank_tests_refuse() -> None:
    for test in (friedman_test, critical_difference):
        with pytest.raises(ValueError, match=r"at least \(2, 3\), got shape \(5, 2\)"):
            test(np.ones((5, 2)))
        with pytest.raises(ValueError, match=r"at least \(2, 3\), got shape \(1, 3\)"):
            test(np.ones((1, 3)))
        with pytest.raises(ValueError, match=r"at least \(2, 3\), got shape \(3,\)"):
            test(np.ones(3))
        with pytest.raises(ValueError, match="scores must be finite, got nan"):
            test([[1.0, math.nan, 2.0]] * 2)
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\), got 5"):
        critical_difference(C45, alpha=5)
    for names in (["a", "b", "c"], ["a", "b", "c", "a"]):
        with pytest.raises(ValueError, match="names must be 4 different names"):
            critical_difference(C45, names=names)


# ------------------------------------------------------------------------------------------------------- appearance


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_diagram_shows_names_ranks_groups_and_the_critical_difference() -> None:
    result = critical_difference(C45, names=NAMES, alpha=0.1)
    ax = plot_critical_difference(result)
    texts = {text.get_text() for text in ax.texts}

    assert {f"{name} ({rank:.2f})" for name, rank in result.ranks.items()} <= texts
    assert {"CD = 1.12", "mean rank", "better →", "1", "2", "3", "4"} <= texts
    left, right = ax.get_xlim()
    assert left > right  # the best rank is on the right
    thick = [line for line in ax.get_lines() if line.get_linewidth() > 2]
    spans = [tuple(np.asarray(line.get_xdata(), dtype=float)) for line in thick]
    assert spans == [
        pytest.approx((result.ranks[group[0]], result.ranks[group[-1]]), abs=0.03) for group in result.groups
    ]
    bar = next(line for line in ax.get_lines() if line.get_marker() == "|")
    assert np.asarray(bar.get_xdata(), dtype=float) == pytest.approx([4, 4 - result.cd])  # inside the axis
    ends = {text.get_text().partition(" (")[0]: text.xy[0] for text in ax.texts if isinstance(text, Annotation)}
    assert [ends[name] for name in result.ranks] == [1, 1, 4, 4]  # the better half on the right
    low, high = ax.get_ylim()
    heights = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()])
    assert low < heights.min() < heights.max() < high


@pytest.mark.parametrize(("n", "k"), [(2, 3), (20, 9), (30, 4)])
def test_names_in_the_diagram_do_not_overlap(n: int, k: int) -> None:
    scores = np.random.default_rng(0).normal(size=(n, k)) + np.linspace(0, 2, k)
    ax = plot_critical_difference(critical_difference(scores))
    figure = ax.figure
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])


def test_diagram_is_drawn_where_it_is_told() -> None:
    _, ax = plt.subplots()
    assert plot_critical_difference(critical_difference(C45), ax) is ax
    assert len(plt.get_fignums()) == 1


def test_results_read_as_sentences() -> None:
    y, prediction = regression()
    interval = bootstrap_ci((y, prediction), rmse, level=0.9)
    assert (
        str(interval)
        == f"{interval.estimate:.4g} (90% CI {interval.low:.4g} to {interval.high:.4g}, percentile bootstrap)"
    )
    test = corrected_resampled_ttest([1, 2, 3, 4], test_fraction=0.2)
    assert str(test) == "2.5 (95% CI -0.4052 to 5.405; t(3) = 2.74, p = 0.071)"
    assert str(friedman_test(C45)).startswith("Iman-Davenport F = 4.")
    text = str(critical_difference(C45, names=NAMES, alpha=0.1))
    assert "mean ranks over 14 data sets: C4.5+m+cf 1.96, C4.5+m 2.00" in text
    assert "critical difference 1.12 at α = 0.1" in text
    assert text.endswith("not told apart: C4.5+m+cf = C4.5+m = C4.5+cf; C4.5+cf = C4.5")
