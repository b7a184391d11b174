"""Cleaning finds what was planted and no more; the preprocessor learns from the training rows alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from sklearn import datasets as sklearn_datasets
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.covariance import MinCovDet
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, QuantileTransformer, StandardScaler

from course_utils.datasets import load_boston_housing
from course_utils.preprocessing import (
    Duplicates,
    cardinalities,
    find_duplicates,
    make_preprocessor,
    missing_report,
    multivariate_outliers,
    univariate_outliers,
)

# --- Duplicates -----------------------------------------------------------------------------------------------------


def people(n: int, *, seed: int = 0) -> pd.DataFrame:
    """The deck's first example: age, education and town, here with education that depends on age."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 60, n)
    education = np.clip(age // 15 + rng.integers(-1, 2, n), 0, 4)
    return pd.DataFrame({"age": age, "education": education, "town": rng.choice(["Toronto", "Ottawa", "York"], n)})


def measured(n: int, *, seed: int = 0) -> pd.DataFrame:
    """The deck's second example: age, height and weight, the latter two to many digits."""
    rng = np.random.default_rng(seed)
    heights, weights = rng.normal(176, 8, n).round(2), rng.normal(75, 12, n).round(2)
    return pd.DataFrame({"age": rng.integers(18, 60, n), "height": heights, "weight": weights})


def test_people_who_are_alike_are_no_surprise() -> None:
    found = find_duplicates(people(400))
    assert found.repeated.sum() > 50
    assert 0.5 * found.expected_pairs < found.n_equal_pairs < 2 * found.expected_pairs
    assert not found.surprising
    assert repr(found).endswith("no more than chance explains)")


def test_one_copied_measurement_is_a_surprise() -> None:
    table = measured(400)
    assert not find_duplicates(table).surprising
    found = find_duplicates(pd.concat([table, table.iloc[[7]]]))
    assert np.flatnonzero(found.repeated).tolist() == [400]
    assert found.n_equal_pairs == 1
    assert found.expected_pairs < 0.01
    assert found.surprising
    assert repr(found).startswith("Duplicates(1 repeated, 0 shared and 0 conflicting of 401 rows; 1 equal pairs, exp")
    assert repr(found).endswith(": more than chance explains)")


def test_what_counts_as_a_surprise() -> None:
    none = np.zeros(9, dtype=bool)
    # P(Poisson(2) ≥ 6) = 1.7%, P(Poisson(2) ≥ 7) = 0.45%.
    assert [Duplicates(none, none, none, n, 1.0).surprising for n in (5, 6, 7)] == [False, False, True]


@pytest.mark.parametrize("columns", [2, 4])
def test_dependent_columns_are_allowed_for(columns: int) -> None:
    surprises = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(200, 1))
        table = np.round((common + 0.6 * rng.normal(size=(200, columns))) * 1.5)
        found = find_duplicates(pd.DataFrame(table).assign(twin=table[:, 0]))  # and two that determine each other
        assert found.n_equal_pairs > 0
        surprises += found.surprising
    assert surprises <= 1


def test_expected_pairs_by_hand() -> None:
    table = pd.DataFrame({"a": [0, 0, 1, 1], "b": [0, 0, 0, 1]})
    # 6 pairs: a agrees in 2, b in 3, both in 1; one pair differs in b alone, two in a alone.
    found = find_duplicates(table)
    independent, b_alone, a_alone = 6 * 2 / 6 * 3 / 6, 1 * (3 / 6) / (3 / 6), 2 * (2 / 6) / (4 / 6)
    assert found.n_equal_pairs == 1
    assert found.expected_pairs == pytest.approx(max(independent, b_alone, a_alone))


def test_expected_pairs_take_the_larger_estimate() -> None:
    table = pd.DataFrame({"a": [0, 0, 0, 1, 1, 1], "b": [0, 0, 0, 1, 1, 1], "c": [0, 1, 2, 0, 1, 2]})
    # c agrees in 3 of 15 pairs; 6 pairs differ in c alone: 6·(1/5)/(4/5). Independence: 15·(6/15)·(6/15)·(3/15).
    assert find_duplicates(table).expected_pairs == pytest.approx(1.5)
    # No pair agrees in two columns, each agrees in 1 of 6 pairs: independence alone expects anything.
    sparse = pd.DataFrame({"a": [0, 0, 1, 2], "b": [0, 1, 2, 2], "c": [0, 1, 0, 2]})
    assert find_duplicates(sparse).expected_pairs == pytest.approx(6 / 6**3)


def test_keys_tell_a_second_entry_from_another_individual() -> None:
    table = pd.DataFrame({
        "patient": ["a", "b", "b", "c", "d", "d", None, None],
        "age": [22, 35, 35, 22, 50, 51, 22, 22],
        "weight": [70.0, 81.0, 81.0, 70.0, np.nan, 64.0, 70.0, 70.0],
    })  # fmt: skip
    found = find_duplicates(table, keys="patient")
    assert found.repeated.tolist() == [False, False, True, False, False, False, False, False]
    assert found.shared.tolist() == [False, False, False, True, False, False, True, True]
    assert found.conflicting.tolist() == [False, False, False, False, True, True, False, False]
    assert found.n_equal_pairs == 6  # of a, c and the two without a number
    assert "1 repeated, 3 shared and 2 conflicting of 8 rows" in repr(found)
    without = find_duplicates(table.drop(columns="patient"))
    assert without.repeated.tolist() == [False, False, True, True, False, False, True, True]
    assert not without.shared.any()
    assert not without.conflicting.any()
    assert without.n_equal_pairs == 7


def test_keys_of_several_columns() -> None:
    table = pd.DataFrame({"ward": [1, 1, 2, 2, 3, 3], "bed": [1, 2, 1, 1, None, None], "age": [40] * 6})
    found = find_duplicates(table, keys=["ward", "bed"])
    assert found.repeated.tolist() == [False, False, False, True, False, False]
    assert found.shared.tolist() == [False, True, True, False, True, True]
    assert found.n_equal_pairs == 10


def test_copies_do_not_count_as_pairs_of_different_individuals() -> None:
    table = measured(50).assign(patient=range(50))
    found = find_duplicates(pd.concat([table, table]), keys=["patient"])
    assert found.repeated.tolist() == [False] * 50 + [True] * 50
    assert not found.shared.any()
    assert found.n_equal_pairs == 0
    assert not found.surprising


@given(
    table=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)),
    use_text=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_masks_and_pairs_equal_pandas(table: NDArray[np.int64], use_text: bool) -> None:
    frame = pd.DataFrame(table).replace(2, np.nan)
    if use_text:
        frame = frame.astype(object).replace(1.0, "one")
    found = find_duplicates(frame)
    np.testing.assert_array_equal(found.repeated, frame.duplicated().to_numpy())
    equal = (table[:, None] == table[None]).all(axis=2)
    assert found.n_equal_pairs == (equal.sum() - len(table)) // 2
    assert found.expected_pairs >= 0


def test_duplicates_in_an_empty_table_and_with_repeated_labels() -> None:
    empty = find_duplicates(pd.DataFrame({"a": [], "b": []}))
    assert (len(empty.repeated), empty.n_equal_pairs, empty.expected_pairs) == (0, 0, 0)
    assert not empty.surprising
    odd = pd.DataFrame([[1, 1], [1, 1]], columns=["a", "a"], index=[0, 0])
    assert odd[~find_duplicates(odd).repeated].shape == (1, 2)


def test_bundled_tables() -> None:
    boston = find_duplicates(load_boston_housing().features)
    assert (boston.repeated.sum(), boston.surprising) == (0, False)
    iris = find_duplicates(sklearn_datasets.load_iris(as_frame=True).data)
    assert (iris.n_equal_pairs, iris.surprising) == (1, False)  # in steps of 0.1 cm two flowers may well be equal


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: find_duplicates(people(3), keys="id"), KeyError, "id"),
        (lambda: find_duplicates(people(3)[["age"]], keys="age"), ValueError, r"got 1 columns and keys=\['age'\]"),
        (lambda: find_duplicates(pd.DataFrame({"a": [[1], [1]]})), TypeError, "unhashable"),
    ],
)
def test_bad_tables_are_shown(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- Missing values -------------------------------------------------------------------------------------------------


def test_missing_report_counts_every_kind() -> None:
    table = pd.DataFrame({
        "float": [1.0, np.nan, np.inf, -np.inf],
        "int": [1, 2, 3, 4],
        "nullable": pd.array([1, None, None, 4], dtype="Int64"),
        "nullable_float": pd.array([1.0, None, np.inf, 4.0], dtype="Float64"),
        "text": ["a", "", " \t", None],
        "mixed": [np.inf, None, "  ", True],
        "date": pd.Series([pd.Timestamp(2020, 1, 1), pd.NaT, pd.NaT, pd.Timestamp(2020, 1, 2)]),
        "category": pd.Categorical(["", "b", None, "b"]),
        "flag": [True, False, True, False],
    })  # fmt: skip
    report = missing_report(table)
    assert list(report.index) == list(table.columns)
    assert report.to_numpy().tolist() == [
        [1, 0.25, 2, 0], [0, 0, 0, 0], [2, 0.5, 0, 0], [1, 0.25, 1, 0], [1, 0.25, 0, 2], [1, 0.25, 1, 1],
        [2, 0.5, 0, 0], [1, 0.25, 0, 1], [0, 0, 0, 0],
    ]  # fmt: skip
    assert list(report.columns) == ["n_missing", "share", "n_infinite", "n_blank"]


# --- Univariate outliers --------------------------------------------------------------------------------------------

SMALL = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("method", "threshold", "limit"),
    [
        # Of 1…8 and x > 8: quartiles 3 and 7; median 5, MAD 2.
        ("iqr", None, 7 + 1.5 * 4),
        ("iqr", 3.0, 7 + 3.0 * 4),
        ("mad", None, 5 + 3.5 * 2 / 0.67448975),
        ("mad", 2.0, 5 + 2.0 * 2 / 0.67448975),
    ],
)
def test_limits_by_hand(method: str, threshold: float | None, limit: float) -> None:
    for side in (1, -1):
        inside = [side * value for value in [*SMALL, limit - 1e-6]]
        outside = [side * value for value in [*SMALL, limit + 1e-6]]
        assert not univariate_outliers(inside, method=method, threshold=threshold).any()
        marked = univariate_outliers(outside, method=method, threshold=threshold)
        assert marked.tolist() == [False] * 8 + [True]


@pytest.mark.parametrize("threshold", [None, 2.5])
def test_zscore_equals_scipy(threshold: float | None) -> None:
    x = np.random.default_rng(0).standard_t(3, size=500)
    expected = np.abs(stats.zscore(x, ddof=1)) > (threshold or 3.0)
    assert expected.sum() > 3
    np.testing.assert_array_equal(univariate_outliers(x, method="zscore", threshold=threshold), expected)


def test_zscore_is_blind_among_ten_values() -> None:
    x = [*range(9), 1e9]
    assert not univariate_outliers(x, method="zscore").any()
    assert univariate_outliers(x, method="mad").tolist() == [False] * 9 + [True]
    assert univariate_outliers(x).tolist() == [False] * 9 + [True]
    assert univariate_outliers([*range(10), 1e9], method="zscore")[-1]
    # The score of one value among nine equal ones is 9/√10 = 2.846.
    for threshold, expected in ((2.84, 1), (2.85, 0)):
        assert univariate_outliers([0] * 9 + [1], method="zscore", threshold=threshold).sum() == expected


@pytest.mark.parametrize(("method", "share"), [("iqr", 0.00698), ("mad", 0.000465), ("zscore", 0.0027)])
def test_share_marked_in_a_normal_sample(method: str, share: float) -> None:
    x = 30 + 5 * stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)  # the ideal sample
    assert univariate_outliers(x, method=method).mean() == pytest.approx(share, abs=1.01e-5)  # two rows


@pytest.mark.parametrize("method", ["iqr", "mad", "zscore"])
def test_missing_is_not_marked_and_infinite_is(method: str) -> None:
    x = [*SMALL, np.nan, np.inf, -np.inf]
    assert univariate_outliers(x, method=method).tolist() == [False] * 9 + [True, True]
    assert univariate_outliers([np.inf, 5.0], method=method).tolist() == [True, False]
    nullable = pd.Series([*SMALL, None, 9e9], dtype="Float64")
    assert univariate_outliers(nullable, method="mad").tolist() == [False] * 9 + [True]


@pytest.mark.parametrize("method", ["iqr", "mad", "zscore"])
def test_nothing_is_marked_where_nothing_varies(method: str) -> None:
    for x in ([], [5.0], [2.0] * 7, [np.nan] * 3, [True, True]):
        assert univariate_outliers(x, method=method).tolist() == [False] * len(x)


def test_values_most_of_which_are_equal() -> None:
    x = [0.0] * 20 + [1.0, -1.0, 50.0]
    assert univariate_outliers(x).sum() == 3
    # MAD is 0; the mean distance is 52/23, so the limit is 3.5·1.2533·2.26 = 9.9.
    assert np.flatnonzero(univariate_outliers(x, method="mad")).tolist() == [22]
    # A single 22 among zeros is 22/(1.2533·22/23) = 18.35 of those units away.
    for threshold, expected in ((18.3, 1), (18.4, 0)):
        assert univariate_outliers([0.0] * 22 + [-22.0], method="mad", threshold=threshold).sum() == expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: univariate_outliers(SMALL, method="grubbs"),
            ValueError,
            "one of 'iqr', 'mad', 'zscore', got 'grubbs'",
        ),
        (lambda: univariate_outliers(SMALL, threshold=0), ValueError, r"threshold must be in \(0, inf\), got 0"),
        (lambda: univariate_outliers(["a", "b"]), ValueError, "could not convert string"),
        (lambda: univariate_outliers([[1.0]]), ValueError, r"x must have 1 dimension\(s\), got shape \(1, 1\)"),
    ],
)
def test_bad_univariate_arguments_are_shown(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- Multivariate outliers ------------------------------------------------------------------------------------------


def bodies(n: int = 400) -> pd.DataFrame:
    """Heights in m and weights in kg of children and adults."""
    rng = np.random.default_rng(0)
    height = rng.uniform(1.0, 1.95, n)
    return pd.DataFrame({"height": height, "weight": 14 * height**2.6 * np.exp(rng.normal(0, 0.12, n))})


@pytest.mark.parametrize("robust", [True, False])
def test_a_tall_person_of_24_kg(robust: bool) -> None:
    table = pd.concat([bodies(), pd.DataFrame({"height": [1.82], "weight": [24.0]})], ignore_index=True)
    for column in table:
        for method in ("iqr", "mad", "zscore"):
            assert not univariate_outliers(table[column], method=method)[-1]
    marked = multivariate_outliers(np.log(table), robust=robust)
    assert marked[-1]
    assert marked[:-1].mean() < 0.01


def test_a_cluster_hides_itself_unless_the_estimate_is_robust() -> None:
    rng = np.random.default_rng(0)
    good = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=160)
    table = np.vstack([good, rng.normal([3, -3], 0.2, size=(40, 2))])
    hidden = multivariate_outliers(table, robust=False)
    found = multivariate_outliers(table)
    assert hidden[160:].mean() < 0.1
    assert found[160:].all()
    assert found[:160].mean() < 0.03


def test_distances_are_scikit_learns_and_do_not_depend_on_units() -> None:
    table = np.random.default_rng(2).standard_t(4, size=(300, 3))
    expected = MinCovDet(random_state=0).fit(table).mahalanobis(table) > stats.chi2.ppf(0.99, 3)
    assert 5 < expected.sum() < 100
    np.testing.assert_array_equal(multivariate_outliers(table, level=0.01), expected)
    units = table * np.array([1e6, 1e-4, 3.0]) + np.array([1e7, 5.0, -2.0])
    np.testing.assert_array_equal(multivariate_outliers(units, level=0.01), expected)


@pytest.mark.parametrize("level", [0.001, 0.05])
@pytest.mark.parametrize("robust", [True, False])
def test_level_is_the_share_of_normal_rows_marked(robust: bool, level: float) -> None:
    table = np.random.default_rng(3).normal(size=(1_400, 3)) @ np.random.default_rng(4).normal(size=(3, 3))
    marked = multivariate_outliers(table, level=level, robust=robust).mean()
    assert marked == pytest.approx(level, abs=4 * np.sqrt(level / 1_400))  # 4 standard deviations of a counted share


def test_default_level_and_seed() -> None:
    table = np.random.default_rng(5).standard_t(3, size=(300, 2))
    before = np.random.get_state()  # noqa: NPY002 - it must not change
    default = multivariate_outliers(table)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    np.testing.assert_array_equal(default, multivariate_outliers(pd.DataFrame(table), level=0.001, seed=0))


def plane(share: float) -> NDArray[np.float64]:
    table = np.random.default_rng(0).normal(size=(200, 3))
    n_inside = int(200 * share)
    table[:n_inside, 0] = table[:n_inside, 1]
    return table


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: multivariate_outliers(plane(0.0), level=0), ValueError, r"level must be in \(0, 1\), got 0"),
        (lambda: multivariate_outliers([[1.0, np.nan]] * 9), ValueError, "must be finite, got 9 missing or infinite"),
        (lambda: multivariate_outliers(np.zeros((6, 3))), ValueError, r"as many rows as columns, got shape \(6, 3\)"),
        (lambda: multivariate_outliers(np.zeros((6, 0))), ValueError, r"must have a column .* got shape \(6, 0\)"),
        (lambda: multivariate_outliers(pd.DataFrame(index=[1, 2])), ValueError, r"got shape \(2, 0\)"),
        (lambda: multivariate_outliers(np.zeros(5)), ValueError, r"X must have 2 dimension\(s\), got shape \(5,\)"),
        (lambda: multivariate_outliers(plane(1.0)), ValueError, "columns of X are constant or determine each other"),
        (
            lambda: multivariate_outliers(plane(0.75)),
            ValueError,
            "half of the rows of X have columns that are constant",
        ),
        (lambda: multivariate_outliers([[0.0]] * 8 + [[1.0]]), ValueError, "covariance"),
        (lambda: multivariate_outliers(people(9)), ValueError, "could not convert string"),
    ],
)
def test_bad_multivariate_arguments_are_shown(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- make_preprocessor ----------------------------------------------------------------------------------------------


def mixed(n: int = 60, *, seed: int = 0) -> pd.DataFrame:
    """A column of every kind; "empty" has no value at all, "same" only one."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "colour": rng.choice(["red", "green", "blue"], n),
        "size": rng.normal(10, 3, n),
        "flag": rng.random(n) < 0.3,
        "count": pd.array(rng.integers(0, 9, n), dtype="Int64"),
        "answer": pd.array(rng.random(n) < 0.5, dtype="boolean"),
        "grade": pd.Categorical(rng.integers(1, 4, n), categories=[1, 2, 3, 4], ordered=True),
        "town": pd.array(rng.choice(["x", "y"], n), dtype="string"),
        "empty": np.full(n, np.nan),
        "same": 7,
    })  # fmt: skip
    table.loc[3, ["size", "count", "answer", "colour", "town"]] = [np.nan, pd.NA, pd.NA, None, pd.NA]
    table.loc[4, "grade"] = np.nan
    return table


NUMERIC = ["size", "flag", "count", "answer", "empty", "same"]
MISSING = ["missingindicator_size", "missingindicator_count", "missingindicator_answer", "missingindicator_empty"]
CATEGORICAL = ["colour", "grade", "town"]
options = pytest.mark.parametrize(
    ("numeric", "categorical"),
    [
        (numeric, categorical)
        for numeric in ("standard", "quantile", "passthrough")
        for categorical in ("onehot", "ordinal")
    ],
)


@options
def test_result_is_dense_float64_numbers_first(numeric: str, categorical: str) -> None:
    table = mixed()
    preprocessor = make_preprocessor(table, numeric=numeric, categorical=categorical)
    result = preprocessor.fit_transform(table)
    assert isinstance(preprocessor, ColumnTransformer)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float64
    assert np.isfinite(result).all()
    levels = [
        "colour_(missing)",
        "colour_blue",
        "colour_green",
        "colour_red",
        "grade_(missing)",
        "grade_1",
        "grade_2",
        "grade_3",
    ]
    expected = CATEGORICAL if categorical == "ordinal" else [*levels, "town_(missing)", "town_x", "town_y"]
    assert list(preprocessor.get_feature_names_out()) == [*NUMERIC, *MISSING, *expected]
    assert result.shape == (60, 10 + len(expected))
    assert cardinalities(preprocessor) == ((5, 5, 4) if categorical == "ordinal" else ())
    assert make_preprocessor(table).get_params()["sparse_threshold"] == 0


def test_defaults_are_standard_and_onehot() -> None:
    table = mixed()
    expected = make_preprocessor(table, numeric="standard", categorical="onehot").fit_transform(table)
    np.testing.assert_array_equal(make_preprocessor(table).fit_transform(table), expected)


def test_values_equal_scikit_learns_transformers() -> None:
    table = mixed().drop(index=[3, 4]).drop(columns=["empty"])
    numbers = table[NUMERIC[:4]].astype(float).to_numpy()
    text = table[CATEGORICAL].astype(object).astype(str).to_numpy(dtype=object)
    onehot = make_preprocessor(table).fit_transform(table)
    np.testing.assert_allclose(onehot[:, :4], StandardScaler().fit_transform(numbers))
    np.testing.assert_array_equal(onehot[:, 5:], OneHotEncoder(sparse_output=False).fit_transform(text))
    ordinal = make_preprocessor(table, numeric="passthrough", categorical="ordinal").fit_transform(table)
    np.testing.assert_array_equal(ordinal[:, :4], numbers)
    np.testing.assert_array_equal(ordinal[:, 5:], OrdinalEncoder().fit_transform(text) + 1)


@pytest.mark.parametrize(("n", "n_quantiles"), [(6, 6), (40, 10), (299, 10), (660, 22)])
def test_quantiles_are_few_on_small_data(n: int, n_quantiles: int) -> None:
    x = np.random.default_rng(0).gamma(1.0, size=(n, 2))
    oracle = QuantileTransformer(n_quantiles=n_quantiles, output_distribution="normal").fit(x)
    result = make_preprocessor(x, numeric="quantile").fit(x)
    new = np.random.default_rng(1).gamma(1.0, size=(30, 2))
    np.testing.assert_array_equal(result.transform(new), oracle.transform(new))


def test_quantiles_of_large_data() -> None:
    x = np.random.default_rng(0).gamma(1.0, size=(110_000, 1))
    preprocessor = make_preprocessor(x, numeric="quantile", random_state=3).fit(x)
    oracle = QuantileTransformer(
        n_quantiles=1000, output_distribution="normal", subsample=100_000, random_state=3
    ).fit(x)  # fmt: skip
    np.testing.assert_array_equal(preprocessor.transform(x), oracle.transform(x))
    again = make_preprocessor(x, numeric="quantile", random_state=3).fit(x)
    np.testing.assert_array_equal(preprocessor.transform(x), again.transform(x))


def test_it_learns_from_the_training_rows_alone() -> None:
    table = mixed(90)
    train, test = table.iloc[:60], table.iloc[60:].copy()
    preprocessor = make_preprocessor(table, categorical="ordinal").fit(train)
    before = preprocessor.transform(train)
    mean, std = train["size"].mean(), train["size"].fillna(train["size"].median()).std(ddof=0)
    filled = train["size"].fillna(train["size"].median())
    np.testing.assert_allclose(preprocessor.transform(test)[:, 0], (test["size"] - filled.mean()) / std)
    test["size"] = 1e6
    test["colour"] = "violet"
    preprocessor.transform(test)
    np.testing.assert_array_equal(preprocessor.transform(train), before)
    assert abs(mean - table["size"].mean()) > 0.01  # so that the comparison above says something
    unfitted = make_preprocessor(table)
    with pytest.raises(NotFittedError):
        unfitted.transform(table)


def test_values_of_x_play_no_part_before_fit() -> None:
    table = mixed()
    other = pd.DataFrame({name: column.iloc[:0] for name, column in table.items()})
    np.testing.assert_array_equal(
        make_preprocessor(other, categorical="ordinal").fit_transform(table),
        make_preprocessor(table, categorical="ordinal").fit_transform(table),
    )


@pytest.mark.parametrize("numeric", ["standard", "quantile", "passthrough"])
def test_missing_numbers_become_the_median_and_are_marked(numeric: str) -> None:
    train = pd.DataFrame({"a": [1.0, 2.0, 30.0, np.nan, 4.0], "b": [1.0, 2.0, 3.0, 4.0, 5.0]})
    preprocessor = make_preprocessor(train, numeric=numeric).fit(train)
    new = pd.DataFrame({"a": [np.nan, 3.0, 1.0], "b": [1.0, np.nan, 3.0]})
    result = preprocessor.transform(new)
    # The first column's median is 3; "b" was complete in training, so its gap is filled but not marked.
    assert result.shape == (3, 3)
    assert result[0, 0] == result[1, 0] != result[2, 0]
    assert result[1, 1] == pytest.approx(result[2, 1])
    assert result[:, 2].tolist() == [1, 0, 0]


@pytest.mark.parametrize("numeric", ["standard", "quantile"])
def test_columns_that_taught_nothing_stay_0(numeric: str) -> None:
    train = pd.DataFrame({"same": [7] * 30, "empty": [np.nan] * 30, "x": np.arange(30.0)})
    preprocessor = make_preprocessor(train, numeric=numeric).fit(train)
    new = pd.DataFrame({"same": [7.0, -1e9, np.nan], "empty": [5.0, 1e9, np.nan], "x": [0.0, 1.0, 29.0]})
    result = preprocessor.transform(new)
    assert (result[:, :2] == 0).all()
    assert result[2, 2] > result[1, 2] > result[0, 2]
    assert result[:, 3].tolist() == [0, 0, 1]


def test_passthrough_leaves_constants_alone() -> None:
    train = pd.DataFrame({"same": [7] * 5, "empty": [np.nan] * 5})
    preprocessor = make_preprocessor(train, numeric="passthrough").fit(train)
    new = pd.DataFrame({"same": [8.0, np.nan], "empty": [5.0, np.nan]})
    assert preprocessor.transform(new)[:, :2].tolist() == [[8, 5], [7, 0]]


def test_unseen_levels() -> None:
    train = pd.DataFrame({"c": ["a", "b", "b", None, "a"], "d": ["u", "v", "u", "v", "u"]})
    new = pd.DataFrame({"c": ["z", "b", None], "d": [None, "u", "w"]})
    codes = make_preprocessor(train, categorical="ordinal").fit(train)
    assert codes.transform(train).tolist() == [[2, 1], [3, 2], [3, 1], [1, 2], [2, 1]]
    assert codes.transform(new).tolist() == [[0, 0], [3, 1], [1, 0]]
    assert cardinalities(codes) == (4, 3)
    onehot = make_preprocessor(train).fit(train)
    assert onehot.transform(new).tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 0]]


@pytest.mark.parametrize("min_frequency", [2, 0.2])
def test_rare_levels_are_merged(min_frequency: float) -> None:
    train = pd.DataFrame({"c": ["a"] * 4 + ["b"] * 4 + ["p", "q"], "d": ["u", "v"] * 5, "e": ["s"] * 9 + [None]})
    new = pd.DataFrame({"c": ["q", "z", "b"], "d": ["u", "z", "v"], "e": [None, "z", "s"]})
    codes = make_preprocessor(train, categorical="ordinal", min_frequency=min_frequency).fit(train)
    assert cardinalities(codes) == (4, 3, 3)
    assert codes.transform(train)[:, 0].tolist() == [1] * 4 + [2] * 4 + [3, 3]
    assert codes.transform(new).tolist() == [[3, 1, 2], [0, 0, 0], [2, 2, 1]]
    onehot = make_preprocessor(train, min_frequency=min_frequency).fit(train)
    rare = [[0, 0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 1, 1, 0]]
    assert onehot.transform(new).tolist() == rare


def test_levels_are_compared_as_text() -> None:
    train = pd.DataFrame({"c": [1, "1", 2.0, None, 2.5, "nan"]})
    codes = make_preprocessor(train, categorical="ordinal").fit(train)
    assert codes.transform(train)[:, 0].tolist() == [2, 2, 3, 1, 4, 5]
    integers = pd.DataFrame({"c": pd.Categorical([3, 4, 3])})
    codes = make_preprocessor(integers, categorical="ordinal").fit(integers)
    assert codes.transform(pd.DataFrame({"c": [4.0, np.nan, 3.0]}))[:, 0].tolist() == [2, 0, 1]
    flags = pd.DataFrame({"c": pd.Categorical([True, None, False])})
    assert list(make_preprocessor(flags).fit(flags).get_feature_names_out()) == ["c_(missing)", "c_False", "c_True"]


def test_intervals_are_categories() -> None:
    table = pd.DataFrame({"age": pd.cut([1, 20, 40, 41], [0, 18, 30, 50])})
    codes = make_preprocessor(table, categorical="ordinal").fit_transform(table)
    assert codes[2] == codes[3]
    assert len(np.unique(codes)) == 3


def test_columns_are_found_by_name() -> None:
    table = mixed()
    preprocessor = make_preprocessor(table, categorical="ordinal").fit(table)
    expected = preprocessor.transform(table)
    shuffled = table[table.columns[::-1]].assign(more=1)
    np.testing.assert_array_equal(preprocessor.transform(shuffled), expected)
    reordered = make_preprocessor(table, categorical="ordinal").fit(shuffled)
    np.testing.assert_array_equal(reordered.transform(table), expected)
    with pytest.raises(ValueError, match=r"columns are missing: \{'size'\}"):
        preprocessor.transform(table.drop(columns="size"))


def test_names_that_are_numbers_count_by_position() -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "c": [3, 4]})
    numbered = table.set_axis([7, 8, 9], axis="columns")
    preprocessor = make_preprocessor(numbered).fit(numbered)
    expected = make_preprocessor(table).fit_transform(table)
    np.testing.assert_array_equal(preprocessor.transform(numbered), expected)
    np.testing.assert_array_equal(preprocessor.transform(numbered.to_numpy(dtype=object)), expected)


def test_arrays_of_numbers() -> None:
    x = np.array([[1, 2], [3, 5], [4, 4]])
    expected = StandardScaler().fit_transform(x)
    for table in (x, x.astype(np.float32), x.tolist(), x.astype(object)):
        preprocessor = make_preprocessor(table)
        result = preprocessor.fit_transform(np.asarray(table))
        np.testing.assert_allclose(result, expected)
        assert result.dtype == np.float64
        assert cardinalities(preprocessor) == ()


def test_it_is_cloned_pickled_and_piped() -> None:
    table = mixed()
    preprocessor = make_preprocessor(table, numeric="quantile", categorical="ordinal", random_state=0)
    expected = clone(preprocessor).fit_transform(table)
    fitted = pickle.loads(pickle.dumps(preprocessor.fit(table)))
    np.testing.assert_array_equal(fitted.transform(table), expected)
    assert cardinalities(fitted) == cardinalities(preprocessor)
    model = make_pipeline(make_preprocessor(table), RidgeClassifier()).fit(table, table["size"].fillna(0) > 10)
    assert model.score(table, table["size"].fillna(0) > 10) > 0.9


@options
@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_tables_between_the_steps_change_nothing(numeric: str, categorical: str, output: str) -> None:
    table = mixed()
    preprocessor = make_preprocessor(table, numeric=numeric, categorical=categorical)
    expected = preprocessor.fit_transform(table)
    with sklearn.config_context(transform_output=output):
        np.testing.assert_array_equal(clone(preprocessor).fit_transform(table).to_numpy(), expected)
    result = preprocessor.set_output(transform=output).fit_transform(table)
    assert list(result.columns) == list(preprocessor.get_feature_names_out())
    np.testing.assert_allclose(result.to_numpy().astype(float), expected, rtol=1e-12)  # means in another order


def test_objects_that_are_numbers_and_tables_of_polars() -> None:
    table = mixed().drop(columns=["empty", "grade"])  # whose objects would be no numbers, or no levels
    expected = make_preprocessor(table).fit_transform(table)
    objects = table.astype(object).where(table.notna(), None)
    for other in (objects, polars.DataFrame(objects.to_dict("list"), strict=False)):
        np.testing.assert_array_equal(make_preprocessor(other).fit_transform(other), expected)


def test_the_table_is_left_as_it_was() -> None:
    table = mixed()
    before = table.copy(deep=True)
    make_preprocessor(table, numeric="quantile").fit_transform(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), "datetime64"),
        (pd.to_timedelta([1, 2], unit="D"), "timedelta64"),
        (pd.period_range("2020", periods=2, freq="Y"), "period"),
        (np.array([1j, 2j]), "complex128"),
    ],
)
def test_dates_and_complex_numbers_are_refused(column: Any, dtype: str) -> None:
    with pytest.raises(TypeError, match=rf"column 'when' holds {dtype}.*; make numbers of it"):
        make_preprocessor(pd.DataFrame({"x": [1, 2], "when": column}))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: make_preprocessor(t, numeric="robust"), ValueError, "numeric must be one of .*, got 'robust'"),
        (lambda t: make_preprocessor(t, categorical="hash"), ValueError, "categorical must be one of .*, got 'hash'"),
        (lambda t: make_preprocessor(t, min_frequency=0).fit(t), ValueError, "'min_frequency' parameter .* Got 0"),
        (
            lambda t: make_preprocessor(t.set_axis([*"aabcdefgh"], axis=1)),
            ValueError,
            r"distinct, got more than one \['a'\]",
        ),
        (lambda t: make_preprocessor([1, 2]), ValueError, r"got shape \(2,\)"),
        (lambda t: make_preprocessor(np.zeros((3, 0))), ValueError, r"got shape \(3, 0\)"),
        (lambda t: make_preprocessor(t[[]]), ValueError, r"with a column, got shape \(60, 0\)"),
        (lambda t: cardinalities(make_preprocessor(t)), NotFittedError, "not fitted yet"),
        (lambda t: make_preprocessor(t).fit(t.assign(size=np.inf)), ValueError, "contains infinity"),
        (
            lambda t: make_preprocessor(t).fit(t.assign(size="big")),
            ValueError,
            "could not convert string to float: 'big'",
        ),
        (
            lambda t: make_preprocessor(t).fit(t.assign(town=[[1]] * 60)),
            TypeError,
            "'town' holds values that are no cat",
        ),
    ],
)
def test_bad_preprocessor_arguments_are_shown(
    call: Callable[[pd.DataFrame], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(mixed())
