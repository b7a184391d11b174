"""scikit-learn's own checks, its error messages, tables of any origin, weights, early stopping: for every estimator."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPRegressor as SklearnMLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import Tensor

from course_utils import estimators
from course_utils.estimators import (
    FTTransformerRegressor,
    KANClassifier,
    KANRegressor,
    MLPRegressor,
    TabularResNetRegressor,
)
from course_utils.estimators._data import assign_folds
from course_utils.estimators._members import HeldOut, MemberLoss
from course_utils.kan import KAN

# Enough to learn what the checks ask for, no more.
QUICK: dict[str, Any] = {"lr": 0.03, "max_epochs": 12}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "MLPEnsemble": {"n_members": 2, "hidden_features": (16,), "n_bins": 4},
    "MLP": {"hidden_features": (16,), "n_bins": 4},
    "TabularResNet": {"n_blocks": 1, "d_block": 8},
    "FTTransformer": {"n_blocks": 1, "d_block": 8, "n_heads": 2, "attention_dropout": 0.0},
    "KAN": {"n_members": 2, "hidden_features": (4,), "grid_size": 3},
}
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def make(architecture: str, kind: str = "Regressor", **options: Any) -> Any:
    return getattr(estimators, architecture + kind)(**QUICK | ARCHITECTURES[architecture] | options)


def tiny(architecture: str = "MLP", kind: str = "Regressor", **options: Any) -> Any:
    return make(architecture, kind, **{"max_epochs": 2, "random_state": 0} | options)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CHECKS = [
    pytest.param(estimator, check, id=f"{architecture}{kind}-{getattr(check, 'func', check).__name__}")
    for architecture in ARCHITECTURES
    for kind in ("Regressor", "Classifier")
    for estimator, check in estimator_checks_generator(make(architecture, kind))
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_there_are_no_other_estimators() -> None:
    assert set(estimators.__all__) == {
        f"{name}{kind}" for name in ARCHITECTURES for kind in ("Regressor", "Classifier")
    }


def numbers(n: int = 60, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, 5.0 + 3.0 * X[:, 0] - 2.0 * X[:, 1] + 0.1 * rng.normal(size=n)


def noise() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 5)), rng.normal(size=60)


def mixed(n: int = 80, seed: int = 0) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """A column of every kind, with gaps; the target depends on the categories."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue"], n)
    frame = pd.DataFrame(
        {
            "length": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "colour": colour,
            "grade": pd.Categorical(rng.choice(["a", "b"], n), categories=["a", "b", "never"]),
            "count": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "flag": pd.array(rng.random(n) < 0.5, dtype="boolean"),
            "note": [None if missing else "x" for missing in rng.random(n) < 0.2],
        }
    )
    frame.loc[0, ["count", "flag"]] = pd.NA
    return frame, np.where(colour == "red", 2.0, -1.0) + 0.1 * rng.normal(size=n)


# ------------------------------------------------------------------------------------------------ scikit-learn's words


def message(function: Callable[[], object]) -> tuple[type, str]:
    with pytest.raises((ValueError, TypeError)) as caught:
        function()
    text = str(caught.value)
    for name in ("HistGradientBoostingRegressor", "HistGradientBoostingClassifier", "MLPClassifier"):
        text = text.replace(name, "MLPRegressor")
    return caught.type, text


def with_value(values: NDArray[np.float64], value: float) -> NDArray[np.float64]:
    changed = values.astype(np.float64)
    changed.flat[0] = value
    return changed


NAMED = pd.DataFrame(numbers()[0], columns=["a", "b", "c"])
BAD_FITS: dict[str, Callable[[Any], object]] = {
    "target with NaN": lambda m: m.fit(numbers()[0], with_value(numbers()[1], np.nan)),
    "infinite target": lambda m: m.fit(numbers()[0], with_value(numbers()[1], np.inf)),
    "text as target": lambda m: m.fit(numbers()[0], np.array(["a"] * 60, dtype=object)),
    "text in an array": lambda m: m.fit(np.array([["a"]] * 60, dtype=object), numbers()[1]),
    "lengths differ": lambda m: m.fit(numbers()[0], numbers()[1][:5]),
    "one dimension": lambda m: m.fit(numbers()[0][:, 0], numbers()[1]),
    "no rows": lambda m: m.fit(np.empty((0, 3)), []),
    "no columns": lambda m: m.fit(np.empty((60, 0)), numbers()[1]),
    "weight NaN": lambda m: m.fit(*numbers(), sample_weight=np.full(60, np.nan)),
    "too few weights": lambda m: m.fit(*numbers(), sample_weight=np.ones(4)),
    "names partly text": lambda m: m.fit(NAMED.rename(columns={"a": 1}), numbers()[1]),
    "order changed": lambda m: m.fit(NAMED, numbers()[1]).predict(NAMED[["b", "a", "c"]]),
    "feature missing": lambda m: m.fit(NAMED, numbers()[1]).predict(NAMED[["a", "b"]]),
    "feature added": lambda m: m.fit(NAMED, numbers()[1]).predict(NAMED.assign(z=1.0)),
    "array too narrow": lambda m: m.fit(*numbers()).predict(numbers()[0][:, :2]),
    "nothing to predict": lambda m: m.fit(NAMED, numbers()[1]).predict(NAMED[:0]),
    "text later": lambda m: m.fit(NAMED, numbers()[1]).predict(NAMED.assign(a="foo")),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_input_meets_scikit_learns_words(case: str) -> None:
    theirs = message(lambda: BAD_FITS[case](HistGradientBoostingRegressor(max_iter=1)))

    assert message(lambda: BAD_FITS[case](tiny())) == theirs


@pytest.mark.parametrize(
    "target", [with_value((numbers()[1] > 5).astype(float), np.nan), numbers()[1], np.ones((60, 2)).cumsum(0)]
)
def test_classifier_wants_classes_in_scikit_learns_words(target: NDArray[np.float64]) -> None:
    theirs = message(lambda: HistGradientBoostingClassifier().fit(numbers()[0], target))

    assert message(lambda: tiny(kind="Classifier").fit(numbers()[0], target)) == theirs


@pytest.mark.parametrize("weights", [None, np.arange(60) % 2])
def test_one_class_meets_the_words_of_gradient_boosting(weights: Any) -> None:
    y = np.ones(60) if weights is None else np.arange(60) % 2
    theirs = message(lambda: GradientBoostingClassifier().fit(numbers()[0], y, weights))

    assert message(lambda: tiny(kind="Classifier").fit(numbers()[0], y, weights)) == theirs


def test_infinite_input_and_no_target_meet_the_words_of_scikit_learns_mlp() -> None:
    X, y = numbers()
    bad = with_value(X, np.inf)
    expected = message(lambda: SklearnMLPRegressor().fit(bad, y))
    frame = pd.DataFrame(bad, columns=["a", "b", "c"]).assign(d="text")
    model = tiny().fit(frame.replace(np.inf, 0.0), y)

    assert message(lambda: tiny().fit(bad, y)) == expected
    assert message(lambda: tiny().fit(frame, y)) == expected
    assert message(lambda: model.predict(frame)) == expected
    assert message(lambda: tiny().fit(X, None)) == message(lambda: SklearnMLPRegressor().fit(X, None))


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.0, "Sample weights must contain at least one non-zero number"),  # scikit-learn's words since 1.8
        (-1.0, "Negative values in data passed to `sample_weight`"),
    ],
)
def test_weights_that_weigh_nothing_are_refused(weight: float, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tiny().fit(*numbers(), sample_weight=np.full(60, weight))


def test_mixed_tables_get_the_same_errors() -> None:
    frame, y = mixed()
    model = tiny().fit(frame, y)

    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        model.predict(polars.DataFrame(frame[frame.columns[::-1]]))
    with pytest.raises(ValueError, match="yet now missing:\n- colour"):
        model.predict(frame.drop(columns="colour"))
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) \(shape=\(0, 6\)\) while a minimum of 1 is"):
        model.predict(frame[:0])
    with pytest.raises(ValueError, match="could not convert string to float: 'foo'"):
        model.predict(frame.assign(length="foo"))
    with pytest.raises(TypeError, match="column 'colour' holds values that are no categories"):
        tiny().fit(frame.assign(colour=pd.Series([[1]] * len(frame), dtype=object)), y)
    with pytest.raises(ValueError, match=r"Found array with 0 feature\(s\) \(shape=\(80, 0\)\)"):
        tiny().fit(frame[[]], y)


DAYS = pd.Series(pd.date_range("2020", periods=80))
DATES = {
    "datetime": DAYS,
    "time zone": DAYS.dt.tz_localize("UTC"),
    "pyarrow": DAYS.astype("timestamp[ns][pyarrow]"),
    "date": DAYS.dt.date.astype(object),
    "period": DAYS.dt.to_period("D"),
    "timedelta": DAYS - DAYS[0],
    "nothing but NaT": DAYS.where(DAYS[0] > DAYS),
}


@pytest.mark.parametrize("kind", DATES)
def test_dates_are_refused_in_a_sentence_now_and_later(kind: str) -> None:
    frame, y = mixed()
    model = tiny().fit(frame, y)

    with pytest.raises(TypeError, match=r"column 'day' holds .*; make numbers of it \(a date: its year"):
        tiny().fit(frame.assign(day=DATES[kind]), y)
    for column in ("length", "colour"):
        with pytest.raises(TypeError, match=f"column '{column}' holds .*; make numbers of it"):
            model.predict(frame.assign(**{column: DATES[kind]}))
    with pytest.raises(TypeError, match=r"column 'day' holds datetime64.*; make numbers of it"):
        tiny().fit(polars.DataFrame({"day": DAYS, "x": y}), y)


OUT_OF_RANGE: list[tuple[str, dict[str, Any], str]] = [
    *[
        ("MLP", {name: value}, f"'{name}' parameter of MLPRegressor must be .*{allowed}.* Got {value!r} instead")
        for name, value, allowed in [
            ("lr", -1.0, r"range \(0"),
            ("lr", "fast", r"range \(0"),
            ("weight_decay", -1.0, r"range \[0"),
            ("batch_size", 0, r"range \[1.*'auto'"),
            ("max_epochs", 2.5, r"range \[1.*'auto'"),
            ("patience", 0, r"range \[1.*None"),
            ("validation_fraction", 1.0, r"range \(0.0, 1.0\)"),
            ("numeric_scaling", "x", "{.*'quantile'.*}"),
            ("numeric_embedding", "mixed", "{'piecewise'} or None"),
            ("n_bins", 0, r"range \[1"),
            ("dropout", 1.0, r"range \[0.0, 1.0\)"),
            ("random_state", "x", ""),
        ]
    ],
    ("MLPEnsemble", {"n_members": 0}, r"'n_members' parameter of MLPEnsembleRegressor must be .* \[1.* Got 0"),
    ("MLPEnsemble", {"numeric_embedding": "x"}, "must be a str among {.*} or None. Got 'x'"),
    ("TabularResNet", {"n_blocks": -1}, r"range \[0.* Got -1"),
    ("TabularResNet", {"d_block": 0}, r"range \[1.* Got 0"),
    ("TabularResNet", {"dropout": -0.5}, r"range \[0.0, 1.0\). Got -0.5"),
    ("FTTransformer", {"n_blocks": 0}, r"range \[1.* Got 0"),
    ("FTTransformer", {"n_heads": "all"}, r"range \[1.* Got 'all'"),
    ("FTTransformer", {"d_block": 9}, "n_heads must divide d_token, got n_heads=2 and d_token=9"),
    ("FTTransformer", {"attention_dropout": 1.0}, r"range \[0.0, 1.0\). Got 1.0"),
    ("KAN", {"n_members": 0}, r"'n_members' parameter of KANRegressor must be .* \[1.* Got 0"),
    ("KAN", {"grid_size": 0}, "grid_size must be at least 1, got 0"),
    ("KAN", {"degree": 0}, "degree must be at least 1, got 0"),
    ("KAN", {"base": "relu"}, "base must be one of 'silu', None, got 'relu'"),
    *[
        (architecture, {"hidden_features": value}, expected)
        for architecture in ("MLP", "MLPEnsemble", "KAN")
        for value, expected in [
            ("nonsense", "hidden_features must be a sequence of widths .* got 'nonsense'"),
            ((0,), r"hidden_features\[0\] must be at least 1, got 0"),
        ]
    ],
    *[
        (architecture, {"activation": "nonsense"}, "activation must be one of 'identity', .*, got 'nonsense'")
        for architecture in ("MLP", "MLPEnsemble")
    ],
]


@pytest.mark.parametrize(("architecture", "options", "expected"), OUT_OF_RANGE)
def test_hyperparameter_out_of_range(architecture: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises((ValueError, TypeError), match=expected):
        tiny(architecture, **options).fit(*numbers())


def test_an_architecture_has_no_hyperparameters_of_another() -> None:
    with pytest.raises(TypeError, match="hidden_features"):
        TabularResNetRegressor(hidden_features=(8,))
    with pytest.raises(TypeError, match="n_members"):
        MLPRegressor(n_members=8)


# ------------------------------------------------------------------------------------------------------------- tables


def origins(frame: Any) -> dict[str, Any]:
    """The table of `mixed` as it comes from elsewhere."""
    objects = frame.astype(object).where(frame.notna(), None)
    by_hand: dict[str, Any] = {
        "length": pd.ArrowDtype(pyarrow.float32()),
        "count": "int8[pyarrow]",
        "flag": "bool[pyarrow]",
        "colour": "string[pyarrow]",
        "grade": pd.ArrowDtype(pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
        "note": pd.ArrowDtype(pyarrow.large_string()),
    }
    return {
        "objects": objects,
        "objects with NA": objects.where(frame.notna(), pd.NA),
        "decimals": objects.assign(count=[n if n is None else Decimal(n) for n in objects["count"]]),
        "nullable": frame.convert_dtypes(),
        "Float64 and string": frame.astype({"length": "Float64", "colour": "string", "note": "string"}),
        "pyarrow": frame.convert_dtypes(dtype_backend="pyarrow"),
        "pyarrow by hand": frame.astype(by_hand),
        "categories": frame.astype({"colour": "category", "note": "category"}),
        "rows under other names": frame.set_axis(np.arange(len(frame))[::-1]),
        "polars": polars.DataFrame(objects.to_dict("list"), strict=False),
        "polars categories": polars.DataFrame(objects.to_dict("list"), strict=False).cast(
            {"colour": polars.Categorical, "grade": polars.Enum(["a", "b", "never"])}
        ),
        "arrow": pyarrow.Table.from_pydict(objects.to_dict("list")),
    }


@pytest.fixture(scope="module")
def of_the_frame() -> tuple[pd.DataFrame, NDArray[np.float64], Any, NDArray[np.float64]]:
    frame, y = mixed()
    frame["length"] = frame["length"].astype(np.float32)
    model = tiny().fit(frame, y)
    return frame, y, model, model.predict(frame)


@pytest.mark.parametrize("origin", origins(mixed()[0]))
def test_a_table_is_the_same_wherever_it_comes_from(origin: str, of_the_frame: Any) -> None:
    frame, y, model, expected = of_the_frame
    table = origins(frame)[origin]

    np.testing.assert_array_equal(tiny().fit(table, y).predict(table), expected)
    np.testing.assert_array_equal(tiny().fit(table, y).predict(frame), expected)
    np.testing.assert_array_equal(model.predict(table), expected)


@every_architecture
@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_the_global_output_of_transformers_changes_nothing(architecture: str, output: str) -> None:
    for table, y in (mixed(40), numbers(40), (NAMED[:40], numbers(40)[1])):
        model = tiny(architecture).fit(table, y)
        with sklearn.config_context(transform_output=output):
            again = tiny(architecture).fit(table, y)
            np.testing.assert_array_equal(model.predict(table), again.predict(table))
        np.testing.assert_array_equal(model.predict(table), again.predict(table))


TARGETS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "objects": lambda values: pd.Series(list(values), dtype=object),
    "nullable": lambda values: pd.Series(values).convert_dtypes(),
    "pyarrow": lambda values: pd.Series(values).convert_dtypes(dtype_backend="pyarrow"),
    "polars": polars.Series,
    "arrow": pyarrow.array,
}


@pytest.mark.parametrize("origin", TARGETS)
def test_targets_and_weights_of_any_origin(origin: str) -> None:
    X, y = numbers()
    whole = np.digitize(y, [3.0, 7.0])
    convert = TARGETS[origin]

    np.testing.assert_array_equal(tiny().fit(X, convert(y)).predict(X), tiny().fit(X, y).predict(X))
    weights = [tiny().fit(X, y, sample_weight=w).predict(X) for w in (convert(1.0 + whole), 1 + whole)]
    np.testing.assert_array_equal(*weights)
    for labels in (whole, np.array(["low", "middle", "high"])[whole], whole > 1):
        model = tiny(kind="Classifier").fit(X, convert(labels))
        assert model.classes_.tolist() == sorted(set(labels.tolist()))
        np.testing.assert_array_equal(model.predict_proba(X), tiny(kind="Classifier").fit(X, labels).predict_proba(X))


@pytest.mark.parametrize("kind", ["Regressor", "Classifier"])
@pytest.mark.parametrize(
    "y",
    [
        pd.Series([1, 2, None] * 20, dtype="Int64"),
        pd.Series([1, 2, None] * 20, dtype="int64[pyarrow]"),
        pd.Series([1, 2, None] * 20, dtype=object),
        pd.Series([1, 2, pd.NA] * 20, dtype=object),
        pd.Series(["1", "2", None] * 20, dtype=object),
        polars.Series([1, 2, None] * 20),
    ],
    ids=["Int64", "pyarrow", "None", "NA", "text", "polars"],
)
def test_missing_targets_are_refused(kind: str, y: Any) -> None:
    with pytest.raises(ValueError, match="contains NaN"):
        tiny(kind=kind).fit(numbers()[0], y)


def test_an_array_stands_for_the_data_frame_that_was_fitted() -> None:
    frame, y = mixed()
    model = tiny().fit(frame, y)

    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        from_array = model.predict(frame.to_numpy(dtype=object))
    np.testing.assert_array_equal(from_array, model.predict(frame))
    np.testing.assert_array_equal(
        tiny().fit(NAMED, numbers()[1]).predict(NAMED), tiny().fit(*numbers()).predict(numbers()[0])
    )


def test_missing_numbers_in_an_array_of_objects() -> None:
    X, y = numbers()
    gaps = with_value(X, np.nan)
    expected = tiny().fit(gaps, y).predict(gaps)

    for missing in (None, pd.NA):
        objects = gaps.astype(object)
        objects.flat[0] = missing
        np.testing.assert_array_equal(tiny().fit(objects, y).predict(objects), expected)


@every_architecture
def test_learns_from_a_mixed_table_and_predicts_strange_ones(architecture: str) -> None:
    frame, y = mixed(160)
    before = frame.copy(deep=True)
    model = make(architecture, random_state=0, max_epochs=25).fit(frame[:120], y[:120])

    pd.testing.assert_frame_equal(frame, before)
    assert model.score(frame[120:], y[120:]) > 0.7  # from the colour alone 1.0 is possible, without it 0
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.n_features_in_ == 6
    grades = pd.Series([None, "never", "z"], dtype=object)
    strange = frame[:3].assign(colour="ultraviolet", grade=grades, length=np.nan, flag=True)
    assert np.isfinite(model.predict(strange)).all()


@every_architecture
@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_few_rows(architecture: str, n: int) -> None:
    X, y = numbers(n)

    for batch_size in (1, 4):
        model = tiny(architecture, batch_size=batch_size).fit(X, y)
        assert np.isfinite(model.predict(X)).all()
    if n > 1:
        labels = np.array(["a"] + ["b"] * (n - 1))
        assert set(tiny(architecture, "Classifier").fit(X, labels).predict(X)) <= {"a", "b"}


@every_architecture
def test_columns_that_say_nothing(architecture: str) -> None:
    X, y = numbers()
    X[:, 0], X[:, 1] = 1.0, np.nan
    frame = pd.DataFrame({"constant": "same", "empty": None, "number": X[:, 2]})

    for table in (X[:, :2], frame[["constant", "empty"]], frame):
        assert np.isfinite(tiny(architecture).fit(table, y).predict(table)).all()


@every_architecture
def test_extreme_numbers(architecture: str) -> None:
    X, y = numbers()
    wild = with_value(X, 1e300)

    assert np.isfinite(tiny(architecture, numeric_scaling="quantile").fit(wild, y).predict(wild)).all()
    assert np.isfinite(tiny(architecture).fit(X, y).predict(np.full((1, 3), -1e6))).all()
    np.testing.assert_array_equal(tiny(architecture).fit(X, np.full(60, 7.0)).predict(X), np.full(60, 7.0))


def test_many_levels_become_few_inputs() -> None:
    ids = [f"id {i}" for i in range(3000)]
    frame = pd.DataFrame({"id": ids, "postcode": np.repeat([f"p {i}" for i in range(500)], 6)})
    few = tiny(max_epochs=1).fit(frame, np.arange(3000.0))
    one_hot = tiny("KAN", max_epochs=1).fit(frame, np.arange(3000.0))

    # All ids are rare: one level. Of the postcodes the 255 that fit and the rest as one.
    assert few.module_.encoder.cardinalities == (2, 257)
    assert one_hot.module_.members[0].widths == (257, 4, 1)


@every_architecture
def test_several_outputs(architecture: str) -> None:
    X, y = numbers()
    Y = np.c_[y, 100.0 - 50.0 * X[:, 2]]
    model = make(architecture, random_state=0, max_epochs=40).fit(X, Y)

    assert model.predict(X).shape == (60, 2)
    assert model.score(X, Y) > 0.9
    with pytest.warns(DataConversionWarning):
        assert tiny(architecture).fit(X, y[:, None]).predict(X).shape == (60,)


@every_architecture
@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, 7, 9], [-1.0, 1.0]])
def test_labels_of_any_kind(architecture: str, labels: list[Any]) -> None:
    X, y = numbers()
    target = np.array(labels)[np.digitize(y, np.quantile(y, np.arange(1, len(labels)) / len(labels)))]
    model = make(architecture, "Classifier", random_state=0, max_epochs=30).fit(X, target)

    assert model.classes_.tolist() == sorted(labels)
    assert model.score(X, target) > 0.8
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.predict(X), model.classes_[model.predict_proba(X).argmax(axis=1)])


# ------------------------------------------------------------------------------------------------------------- weights


@every_architecture
def test_weights_count_copies_in_mixed_tables(architecture: str) -> None:
    frame, y = mixed(40)
    weights = np.random.default_rng(0).integers(0, 4, 40)
    copies = np.random.default_rng(1).permutation(np.repeat(np.arange(40), weights))
    weighted = tiny(architecture).fit(frame, y, weights)
    repeated = tiny(architecture).fit(frame.iloc[copies], y[copies])
    rescaled = tiny(architecture).fit(frame, y, 2.0**-20 * weights)

    np.testing.assert_array_equal(weighted.predict(frame), repeated.predict(frame))
    np.testing.assert_allclose(weighted.predict(frame), rescaled.predict(frame), rtol=1e-5)


@every_architecture
def test_prediction_follows_the_heavier_rows(architecture: str) -> None:
    X = np.repeat(np.eye(2), 40, axis=0)
    y = np.tile([0.0, 1.0], 40) + np.linspace(0, 0.01, 80)  # no two rows are equal
    weights = np.where(y < 0.5, 9.0, 1.0)
    model = make(architecture, random_state=0).fit(X, y, weights)

    np.testing.assert_allclose(model.predict(X), 0.1, atol=0.1)


# ------------------------------------------------------------------------------------------------------ held-out rows


def test_folds_are_stratified_and_keep_groups_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.unique(rng.integers(0, 50, 100), return_inverse=True)[1]
    folds = assign_folds(rng.normal(size=100), groups, n_folds=5, n_repeats=2, rng=rng)

    assert folds.shape == (100, 2)
    for group in range(groups.max() + 1):
        assert len(np.unique(folds[groups == group], axis=0)) == 1
    assert (folds[:, 0] != folds[:, 1]).any()
    y = np.arange(100.0)
    for repeat in assign_folds(y, np.arange(100), n_folds=5, n_repeats=3, rng=rng).T:
        for fold in range(5):
            held = y[repeat == fold]
            assert len(held) == 20
            assert np.diff(held).max() < 10  # one of every five neighbours


def test_a_class_with_one_row_is_never_held_out() -> None:
    y = np.array([0] * 10 + [1] * 10 + [2])
    folds = assign_folds(y, np.arange(21), n_folds=4, n_repeats=3, rng=np.random.default_rng(0))

    assert (folds[-1] == -1).all()
    for repeat in folds.T:
        assert set(np.bincount(repeat[:10], minlength=4)) <= {2, 3}
        assert set(repeat[:-1]) == {0, 1, 2, 3}


def test_losses_of_members_are_their_weighted_means() -> None:
    """By hand, from the rows that a member sees, in training and when it is judged."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 3, 2, generator=generator)
    targets = torch.randn(6, 2, generator=generator)
    weights = torch.rand(6, generator=generator)
    shown = torch.tensor([[True, False, True]] * 2 + [[True, True, False]] * 4)
    errors = (outputs - targets[:, None]).square().mean(dim=2)
    by_hand = torch.stack(
        [weights[shown[:, k]] @ errors[shown[:, k], k] / weights[shown[:, k]].sum() for k in range(3)]
    )

    def row_losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(dim=2)

    of_member = weights[:, None] * shown
    loss = MemberLoss(row_losses, weights.sum() / of_member.sum(dim=0))
    per_row = loss(outputs, torch.where(shown[..., None], targets[:, None], torch.nan))
    torch.testing.assert_close(weights @ per_row / weights.sum(), by_hand.mean())

    class Given(torch.nn.Linear):
        def forward(self, rows: Tensor) -> Tensor:
            return outputs[rows.long()[:, 0]]

    held_out = HeldOut(torch.arange(6.0)[:, None], targets, of_member / of_member.sum(dim=0), row_losses)
    torch.testing.assert_close(held_out.member_losses(Given(1, 1)), by_hand)


@pytest.mark.parametrize("architecture", ["MLP", "MLPEnsemble", "KAN"])
def test_best_epoch_comes_back(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On noise the first epochs are the best. The weights must be those of a run that ends there."""
    model = make(architecture, random_state=0)
    monkeypatch.setattr(type(model), "_make_schedule", lambda self, n_steps: None)
    if architecture == "MLPEnsemble":
        model.set_params(numeric_embedding=None)
    whole = clone(model).set_params(max_epochs=30).fit(*noise())
    owners = getattr(whole.module_, "owners", {})

    assert whole.best_epochs_.max() < 30
    assert len(whole.history_["val_loss"]) == whole.n_iter_
    for member, epoch in enumerate(whole.best_epochs_):
        short = clone(model).set_params(max_epochs=int(epoch)).fit(*noise())
        assert short.best_epochs_[member] == epoch
        ended = dict(short.module_.named_parameters())
        for name, entry in whole.module_.named_parameters():
            owned = owners.get(name, slice(0, 1))
            if owned.stop - owned.start > 1:
                torch.testing.assert_close(entry[member], ended[name][member])
            elif owned.start == member:
                torch.testing.assert_close(entry, ended[name])


@every_architecture
def test_patience_ends_the_training(architecture: str) -> None:
    options: dict[str, Any] = {"n_members": 1} if architecture in ("KAN", "MLPEnsemble") else {}
    model = make(architecture, random_state=0, patience=3, max_epochs=60, **options).fit(*noise())

    assert model.n_iter_ == model.best_epochs_.max() + 3 < 60
    assert "early stopping" in str(model.history_.stopped_by)


@pytest.mark.parametrize("architecture", ["MLPEnsemble", "KAN"])
def test_members_differ_and_hold_out_different_rows(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Tensor] = []
    kind = type(make(architecture))
    real = kind._weigh_members

    def spy(self: Any, module: Any, problem: Any, rows: Tensor) -> Tensor:
        held.append(rows)
        return real(self, module, problem, rows)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "_weigh_members", spy)
    n_members = 8 if architecture == "MLPEnsemble" else 4  # of which half see numbers in another way
    model = tiny(architecture, n_members=n_members, validation_fraction=0.25).fit(*numbers(80))

    (rows,) = held
    assert (rows[:, :4].sum(dim=1) == 1).all()  # four members, four folds: every row is held out once
    assert (rows[:, :4] == rows[:, -4:]).all()
    assert model.member_weights_.sum().item() == pytest.approx(1.0)


def test_jumps_are_given_to_the_members_that_can_follow_them() -> None:
    x = np.linspace(-3, 3, 400)[:, None]
    y = np.floor(2 * x[:, 0]) % 2
    plain, piecewise = make("MLPEnsemble", random_state=0, n_bins=48, max_epochs=30).fit(x, y).member_weights_.tolist()

    assert piecewise > 0.8 > plain


@pytest.mark.parametrize(("owner", "name", "calls"), [(torch.optim.AdamW, "step", 12), (HeldOut, "member_losses", 3)])
def test_interrupted_training_leaves_a_usable_estimator(
    owner: type, name: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = numbers()
    left = calls
    real = getattr(owner, name)

    def interrupted(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = make("MLPEnsemble", random_state=0, batch_size=16).fit(X, y)

    assert 1 <= model.best_epochs_.max() <= model.n_iter_ < 12
    assert len(model.history_["val_loss"]) == model.n_iter_
    assert model.predict(X).shape == (60,)


def test_weight_decay_shrinks_weights_and_not_biases() -> None:
    def norms(architecture: str, weight_decay: float) -> dict[str, float]:
        model = make(architecture, random_state=0, weight_decay=weight_decay).fit(*numbers())
        return {name: p.detach().norm().item() for name, p in model.module_.named_parameters()}

    for architecture in ("MLP", "KAN"):
        free, decayed = norms(architecture, 0.0), norms(architecture, 5.0)
        assert all(decayed[name] < free[name] for name in free if not name.endswith("bias"))
    (group,) = KANRegressor(weight_decay=0.5)._decay_groups(KAN([2, 1]))
    assert group["weight_decay"] == 0.5
    assert [g["weight_decay"] for g in MLPRegressor()._decay_groups(torch.nn.Linear(1, 1))] == [0.01, 0.0]


# --------------------------------------------------------------------------------------------------------- randomness


@every_architecture
def test_random_state_fixes_everything_and_nothing_global_is_touched(architecture: str) -> None:
    X, y = numbers()
    options: dict[str, Any] = {} if architecture == "KAN" else {"dropout": 0.3}
    first = tiny(architecture, **options).fit(X, y).predict(X)
    torch.manual_seed(99)
    stream = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is the point
    again = tiny(architecture, **options).fit(X, y).predict(X)

    np.testing.assert_array_equal(again, first)
    assert torch.equal(torch.get_rng_state(), stream[0])
    np.testing.assert_equal(np.random.get_state(legacy=False), stream[1])  # noqa: NPY002
    assert (tiny(architecture, random_state=4, **options).fit(X, y).predict(X) != first).any()


def test_a_generator_as_random_state_moves_on() -> None:
    X, y = numbers()
    generator = np.random.RandomState(0)
    fits = [tiny(random_state=generator).fit(X, y).predict(X) for _ in range(2)]

    assert (fits[0] != fits[1]).any()


# ---------------------------------------------------------------------------------------------------------- around it


@every_architecture
def test_works_inside_scikit_learn(architecture: str) -> None:
    frame, y = mixed()
    model = tiny(architecture)
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(), model), {f"{type(model).__name__.lower()}__lr": [0.1]}, cv=2
    )
    fitted = search.fit(frame, y).best_estimator_[-1]

    assert len(cross_val_score(model, frame, y, cv=2)) == 2
    assert fitted.get_params() == model.get_params() | {"lr": 0.1}
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(frame), fitted.predict(frame))
    assert not hasattr(clone(fitted), "module_")


def test_verbose_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    tiny(verbose=True).fit(*numbers())
    assert "epoch" in capsys.readouterr().out
    tiny().fit(*numbers())
    assert capsys.readouterr().out == ""


def test_automatic_sizes() -> None:
    model = FTTransformerRegressor()

    assert [model._batch_size(n) for n in (1, 100, 506, 1024, 2048, 100_000)] == [32, 32, 32, 64, 128, 256]
    assert [model._max_epochs(n) for n in (1, 13, 200, 5000)] == [1500, 115, 10, 10]
    for n_classes, max_epochs in ((2, 15), (3, 30)):
        classifier = KANClassifier()
        classifier.classes_ = np.arange(n_classes)
        assert classifier._max_epochs(100) == max_epochs
    factor = model._make_schedule(1000)
    assert factor(0) == pytest.approx(0.02)
    assert factor(24) == pytest.approx(0.5, abs=0.01)
    assert factor(500) == pytest.approx(0.5)
    assert factor(999) == pytest.approx(0.0, abs=1e-5)
