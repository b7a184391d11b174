"""scikit-learn's own checks, its error messages, weights, early stopping, tables as people have them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPRegressor as SklearnMLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from course_utils.estimators import MLPClassifier, MLPRegressor
from course_utils.estimators._data import assign_folds, merge_equal_rows, number_of_folds
from course_utils.estimators._members import MemberLoss, held_out_rows
from course_utils.estimators.mlp import MixedEnsemble

ARCHITECTURES = ["ensemble", "mlp", "resnet", "ft_transformer"]
# Enough to learn what the checks ask for, no more.
QUICK: dict[str, Any] = {
    "n_members": 2,
    "hidden_features": (16,),
    "n_blocks": 1,
    "d_block": 8,
    "n_bins": 4,
    "lr": 0.03,
    "max_epochs": 12,
}
TINY = QUICK | {"max_epochs": 2}

Estimator = MLPRegressor | MLPClassifier


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CHECKS = [
    pytest.param(estimator, check, id=f"{kind.__name__}-{architecture}-{getattr(check, 'func', check).__name__}")
    for architecture in ARCHITECTURES
    for kind in (MLPRegressor, MLPClassifier)
    for estimator, check in estimator_checks_generator(kind(architecture, **QUICK))
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_checks(estimator: Estimator, check: Callable[[Estimator], None]) -> None:
    check(estimator)


def numbers(n: int = 60, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, 5.0 + 3.0 * X[:, 0] - 2.0 * X[:, 1] + 0.1 * rng.normal(size=n)


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
            "flag": rng.random(n) < 0.5,
            "note": [None if missing else "x" for missing in rng.random(n) < 0.2],
        }
    )
    frame.loc[0, "count"] = pd.NA
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

    assert message(lambda: BAD_FITS[case](MLPRegressor(**TINY))) == theirs


@pytest.mark.parametrize("case", ["target with NaN", "lengths differ", "order changed"])
def test_bad_input_of_the_classifier(case: str) -> None:
    def labelled(model: Any) -> Any:
        class Relabelled(type(model)):  # type: ignore[misc]
            def fit(self, X: Any, y: Any, **options: Any) -> Any:
                y = np.asarray(y)
                return super().fit(X, np.where(np.isnan(y), np.nan, y > np.nanmean(y)), **options)

        Relabelled.__name__ = "MLPRegressor"
        return Relabelled(**model.get_params())

    theirs = message(lambda: BAD_FITS[case](labelled(HistGradientBoostingClassifier(max_iter=1))))

    assert message(lambda: BAD_FITS[case](labelled(MLPClassifier(**TINY)))) == theirs


def test_infinite_input_meets_the_words_of_scikit_learns_mlp() -> None:
    X, y = numbers()
    bad = with_value(X, np.inf)
    kind, text = message(lambda: SklearnMLPRegressor().fit(bad, y))

    assert message(lambda: MLPRegressor(**TINY).fit(bad, y)) == (kind, text)
    frame = pd.DataFrame(bad, columns=["a", "b", "c"]).assign(d="text")
    assert message(lambda: MLPRegressor(**TINY).fit(frame, y)) == (kind, text)
    model = MLPRegressor(**TINY).fit(frame.replace(np.inf, 0.0), y)
    assert message(lambda: model.predict(frame)) == (kind, text)


def test_no_target_meets_the_words_of_scikit_learns_mlp() -> None:
    X, _ = numbers()

    assert message(lambda: MLPRegressor().fit(X, None)) == message(lambda: SklearnMLPRegressor().fit(X, None))


@pytest.mark.parametrize("weights", [None, np.arange(60) % 2])
def test_one_class_meets_the_words_of_gradient_boosting(weights: Any) -> None:
    y = np.ones(60) if weights is None else np.arange(60) % 2
    theirs = message(lambda: GradientBoostingClassifier().fit(numbers()[0], y, weights))

    assert message(lambda: MLPClassifier(**TINY).fit(numbers()[0], y, weights)) == theirs


@pytest.mark.parametrize("target", [numbers()[1], np.c_[numbers()[1], numbers()[1]].round()])
def test_classifier_wants_classes(target: NDArray[np.float64]) -> None:
    theirs = message(lambda: HistGradientBoostingClassifier().fit(numbers()[0], target))

    assert message(lambda: MLPClassifier().fit(numbers()[0], target)) == theirs


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Sample weights must contain at least one non-zero number\."):
        MLPRegressor(**TINY).fit(*numbers(), sample_weight=np.zeros(60))  # scikit-learn's words since 1.8


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Negative values in data passed to `sample_weight`"):
        MLPRegressor(**TINY).fit(*numbers(), sample_weight=np.full(60, -1.0))


def test_mixed_tables_get_the_same_errors() -> None:
    frame, y = mixed()
    model = MLPRegressor(**TINY).fit(frame, y)

    with pytest.raises(ValueError, match="Feature names must be in the same order"):
        model.predict(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="yet now missing:\n- colour"):
        model.predict(frame.drop(columns="colour"))
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) \(shape=\(0, 6\)\) while a minimum of 1 is"):
        model.predict(frame[:0])
    with pytest.raises(ValueError, match="could not convert string to float: 'foo'"):
        model.predict(frame.assign(length="foo"))
    with pytest.raises(TypeError, match="column 'day' holds datetime64"):
        MLPRegressor(**TINY).fit(frame.assign(day=pd.Timestamp("2020-01-01")), y)
    with pytest.raises(TypeError, match="column 'colour' holds values that are no categories"):
        MLPRegressor(**TINY).fit(frame.assign(colour=pd.Series([[1]] * len(frame), dtype=object)), y)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"architecture": "tree"},
            "architecture must be one of 'ensemble', 'mlp', 'resnet', 'ft_transformer', got 'tree'",
        ),
        ({"n_members": 0}, "n_members must be at least 1, got 0"),
        ({"lr": -1.0}, r"lr must be in \(0, inf\), got -1.0"),
        ({"weight_decay": -1.0}, r"weight_decay must be in \[0, inf\), got -1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \(0, 1\), got 1.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"numeric_embedding": "x"}, "numeric_embedding must be one of None, 'piecewise', 'mixed', got 'x'"),
        ({"numeric_scaling": "x"}, "numeric must be one of"),
        ({"hidden_features": (0,)}, r"hidden_features\[0\] must be at least 1, got 0"),
    ],
)
def test_hyperparameter_out_of_range(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        MLPRegressor(**TINY | options).fit(*numbers())


# ------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_learns_from_a_mixed_table(architecture: str) -> None:
    frame, y = mixed(160)
    before = frame.copy(deep=True)
    model = MLPRegressor(architecture, random_state=0, **QUICK | {"max_epochs": 25}).fit(frame[:120], y[:120])

    pd.testing.assert_frame_equal(frame, before)
    assert model.score(frame[120:], y[120:]) > 0.7  # from the colour alone 1.0 is possible, without it 0
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.n_features_in_ == 6


def test_unseen_levels_and_new_gaps_are_predicted() -> None:
    frame, y = mixed()
    model = MLPRegressor(**TINY).fit(frame, y)
    strange = frame[:3].assign(
        colour="ultraviolet", grade=pd.Series([None, "never", "z"], dtype=object), length=np.nan, flag=True
    )

    assert np.isfinite(model.predict(strange)).all()


def test_an_array_stands_for_the_data_frame_that_was_fitted() -> None:
    frame, y = mixed()
    frame = frame.drop(columns="count")  # its NA has no place in an array
    model = MLPRegressor(**TINY).fit(frame, y)

    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        from_array = model.predict(frame.to_numpy(dtype=object))
    np.testing.assert_allclose(from_array, model.predict(frame))


def test_a_table_of_numbers_is_the_array_of_them() -> None:
    X, y = numbers()
    from_frame = MLPRegressor(random_state=0, **TINY).fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)

    assert from_frame.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(
        from_frame.predict(pd.DataFrame(X, columns=["a", "b", "c"])),
        MLPRegressor(random_state=0, **TINY).fit(X, y).predict(X),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_few_rows(architecture: str, n: int) -> None:
    X, y = numbers(n)

    for batch_size in (1, 4):
        model = MLPRegressor(architecture, **TINY | {"batch_size": batch_size}).fit(X, y)
        assert np.isfinite(model.predict(X)).all()
    if n > 1:
        labels = np.array(["a"] + ["b"] * (n - 1))
        assert set(MLPClassifier(architecture, **TINY).fit(X, labels).predict(X)) <= {"a", "b"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_columns_that_say_nothing(architecture: str) -> None:
    X, y = numbers()
    X[:, 0], X[:, 1] = 1.0, np.nan
    frame = pd.DataFrame({"constant": "same", "empty": None, "number": X[:, 2]})

    assert np.isfinite(MLPRegressor(architecture, **TINY).fit(X[:, :2], y).predict(X[:, :2])).all()
    assert np.isfinite(
        MLPRegressor(architecture, **TINY).fit(frame[["constant", "empty"]], y).predict(frame[["constant", "empty"]])
    ).all()
    assert np.isfinite(MLPRegressor(architecture, **TINY).fit(frame, y).predict(frame)).all()


def test_huge_numbers_do_no_harm() -> None:
    X, y = numbers()

    assert np.isfinite(MLPRegressor(**TINY).fit(with_value(X, 1e300), y).predict(X)).all()


def test_constant_target_is_predicted_as_it_is() -> None:
    X, _ = numbers()

    np.testing.assert_array_equal(MLPRegressor(**TINY).fit(X, np.full(60, 7.0)).predict(X), np.full(60, 7.0))


def test_many_levels_become_few_inputs() -> None:
    frame = pd.DataFrame(
        {"id": [f"id {i}" for i in range(3000)], "postcode": np.repeat([f"p {i}" for i in range(500)], 6)}
    )
    y = np.arange(3000.0)
    model = MLPRegressor(**TINY | {"max_epochs": 1}).fit(frame, y)

    # All ids are rare: one level. Of the postcodes the 255 that fit and the rest as one.
    assert [part.encoder.cardinalities for part in cast(MixedEnsemble, model.module_).parts] == [(2, 257)]


def test_several_outputs() -> None:
    X, y = numbers()
    Y = np.c_[y, 100.0 - 50.0 * X[:, 2]]
    model = MLPRegressor(random_state=0, **QUICK | {"max_epochs": 40}).fit(X, Y)

    assert model.predict(X).shape == (60, 2)
    assert model.score(X, Y) > 0.9
    with pytest.warns(DataConversionWarning):
        assert MLPRegressor(**TINY).fit(X, y[:, None]).predict(X).shape == (60,)


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, 7], [-1.0, 1.0]])
def test_labels_of_any_kind(labels: list[Any]) -> None:
    X, y = numbers()
    target = np.array(labels)[(y > 5).astype(int)]
    model = MLPClassifier(random_state=0, **QUICK).fit(X, target)

    assert model.classes_.tolist() == sorted(labels)
    assert model.score(X, target) > 0.8
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.predict(X), model.classes_[model.predict_proba(X).argmax(axis=1)])


def test_target_is_standardized() -> None:
    X, y = numbers()
    small = MLPRegressor(random_state=0, **QUICK).fit(X, y)
    large = MLPRegressor(random_state=0, **QUICK).fit(X, 2.0**20 * y)

    # The same network but for the order of rows, which their hash decides.
    assert small.score(X, y) > 0.8
    assert large.score(X, 2.0**20 * y) > 0.8


# ------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("architecture", ["ensemble", "resnet"])
def test_weights_count_copies_in_mixed_tables(architecture: str) -> None:
    frame, y = mixed(40)
    weights = np.random.default_rng(0).integers(0, 4, 40)
    copies = np.random.default_rng(1).permutation(np.repeat(np.arange(40), weights))
    weighted = MLPRegressor(architecture, random_state=0, **TINY).fit(frame, y, weights)
    repeated = MLPRegressor(architecture, random_state=0, **TINY).fit(frame.iloc[copies], y[copies])

    np.testing.assert_array_equal(weighted.predict(frame), repeated.predict(frame))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prediction_follows_the_heavier_rows(architecture: str) -> None:
    X = np.repeat(np.eye(2), 40, axis=0)
    y = np.tile([0.0, 1.0], 40) + np.linspace(0, 0.01, 80)  # no two rows are equal
    weights = np.where(y < 0.5, 9.0, 1.0)
    model = MLPRegressor(architecture, random_state=0, **QUICK).fit(X, y, weights)

    np.testing.assert_allclose(model.predict(X), 0.1, atol=0.1)


def test_rescaling_the_weights_changes_nothing() -> None:
    X, y = numbers()
    weights = np.random.default_rng(0).random(60)
    fits = [MLPRegressor(random_state=0, **TINY).fit(X, y, factor * weights) for factor in (1.0, 2.0**-20)]

    np.testing.assert_allclose(fits[0].predict(X), fits[1].predict(X), rtol=1e-5)


def test_equal_rows_merge_in_an_order_of_their_own() -> None:
    X = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.0], [5.0, 5.0], [0.0, 1.0]])
    y = np.array([1.0, 1.0, 1.0, 2.0, 0.0, 1.0])
    merged = merge_equal_rows(X, y, np.array([1.0, 2.0, 4.0, 8.0, 0.0, 16.0]))
    backwards = merge_equal_rows(X[::-1], y[::-1], np.array([16.0, 0.0, 8.0, 4.0, 2.0, 1.0]))

    assert sorted(zip(X[merged.positions, 0], y[merged.positions], merged.weights, strict=True)) == [
        (0.0, 1.0, 21.0),
        (2.0, 1.0, 2.0),
        (2.0, 2.0, 8.0),
    ]
    np.testing.assert_array_equal(X[merged.positions], X[::-1][backwards.positions])
    np.testing.assert_array_equal(merged.weights, backwards.weights)
    same_x = merged.groups[X[merged.positions, 0] == 2.0]
    assert same_x[0] == same_x[1] != merged.groups[X[merged.positions, 0] == 0.0]


# ------------------------------------------------------------------------------------------------------ held-out rows


def test_folds_are_stratified_and_keep_groups_together() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 50, 100)
    groups = np.unique(groups, return_inverse=True)[1]
    folds = assign_folds(rng.normal(size=100), groups, n_folds=5, n_deals=2, rng=rng)

    assert folds.shape == (100, 2)
    for group in range(groups.max() + 1):
        assert len(np.unique(folds[groups == group], axis=0)) == 1
    assert (folds[:, 0] != folds[:, 1]).any()
    singles = np.arange(100)
    y = np.arange(100.0)
    for deal in assign_folds(y, singles, n_folds=5, n_deals=3, rng=rng).T:
        for fold in range(5):
            held = y[deal == fold]
            assert len(held) == 20
            assert np.diff(held).max() < 10  # one of every five neighbours


def test_a_class_with_one_row_is_never_held_out() -> None:
    y = np.array([0] * 10 + [1] * 10 + [2])
    folds = assign_folds(y, np.arange(21), n_folds=4, n_deals=3, rng=np.random.default_rng(0))

    assert (folds[-1] == -1).all()
    for deal in folds.T:
        assert set(np.bincount(deal[:10], minlength=4)) <= {2, 3}
        assert set(deal[:-1]) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("fraction", "n_groups", "expected"), [(0.1, 99, 10), (0.125, 99, 8), (0.9, 99, 2), (0.1, 7, 7), (0.1, 3, 1)]
)
def test_number_of_folds(fraction: float, n_groups: int, expected: int) -> None:
    assert number_of_folds(fraction, n_groups) == expected


def test_held_out_rows_are_padded_without_weight() -> None:
    held = torch.tensor([[True, False], [False, True], [True, False], [False, False]])
    rows, weights = held_out_rows(held, torch.tensor([1.0, 2.0, 3.0, 4.0]))

    assert rows[:, 0].tolist() == [0, 2]
    assert rows[0, 1] == 1
    torch.testing.assert_close(weights, torch.tensor([[0.5, 2.0], [1.5, 0.0]]))


def test_member_loss_is_the_mean_of_the_members_weighted_means() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(6, 3, 2, generator=generator), torch.randn(6, 2, generator=generator)
    weights = torch.rand(6, 3, generator=generator)
    weights = weights / weights.mean(dim=0)
    loss = MemberLoss(lambda out, y: (out - y).square().mean(dim=2), 3)
    by_hand = torch.stack(
        [(weights[:, k] @ (outputs[:, k] - targets).square().mean(dim=1)) / weights[:, k].sum() for k in range(3)]
    )

    torch.testing.assert_close(loss(outputs, torch.cat([targets, weights], dim=1)), by_hand.mean())
    with torch.no_grad():  # rows of their own, in two batches
        packed = torch.cat([targets[:, None].expand(6, 3, 2), weights[..., None]], dim=2)
        loss(outputs[:4], packed[:4])
        loss(outputs[4:], packed[4:])
    torch.testing.assert_close(loss.pop(), by_hand)
    torch.testing.assert_close(loss.pop(), torch.zeros(3))


@pytest.mark.parametrize("architecture", ["mlp", "ensemble"])
def test_best_epoch_comes_back(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On noise the first epochs are the best. The weights must be those of a run that ends there."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    monkeypatch.setattr(MLPRegressor, "_make_schedule", lambda self, n_steps: None)
    options = QUICK | {"random_state": 0, "n_members": 2, "numeric_embedding": None}
    whole = MLPRegressor(architecture, **options | {"max_epochs": 30}).fit(X, y)

    assert whole.n_iter_ == 30
    assert whole.best_epochs_.max() < 30
    for member, epoch in enumerate(whole.best_epochs_):
        short = MLPRegressor(architecture, **options | {"max_epochs": int(epoch)}).fit(X, y)
        assert short.best_epochs_[member] == epoch
        for name, entry in whole.module_.named_parameters():
            ended = dict(short.module_.named_parameters())[name]
            torch.testing.assert_close(
                *((entry[member], ended[member]) if architecture == "ensemble" else (entry, ended))
            )


def test_patience_ends_the_training() -> None:
    rng = np.random.default_rng(0)
    model = MLPRegressor("mlp", random_state=0, patience=3, **QUICK | {"max_epochs": 60})
    model.fit(rng.normal(size=(60, 5)), rng.normal(size=60))

    assert model.n_iter_ == model.best_epochs_.max() + 3 < 60
    assert "early stopping" in str(model.history_.stopped_by)
    assert len(model.history_["val_loss"]) == model.n_iter_


def test_members_hold_out_different_rows_and_their_halves_the_same() -> None:
    X, y = numbers(80)
    held: list[torch.Tensor] = []

    class Spy(MLPRegressor):
        def _weigh_members(self, module: Any, problem: Any, held_rows: torch.Tensor) -> torch.Tensor:
            held.append(held_rows)
            return super()._weigh_members(module, problem, held_rows)

    model = Spy(random_state=0, **TINY | {"n_members": 8, "validation_fraction": 0.25}).fit(X, y)

    assert isinstance(model.module_, MixedEnsemble)
    (rows,) = held
    assert (rows[:, :4].sum(dim=1) == 1).all()  # four members, four folds: every row is held out once
    assert (rows[:, :4] == rows[:, 4:]).all()
    assert model.member_weights_.sum().item() == pytest.approx(1.0)


def test_jumps_are_given_to_the_members_that_can_follow_them() -> None:
    x = np.linspace(-3, 3, 400)[:, None]
    y = np.floor(2 * x[:, 0]) % 2
    model = MLPRegressor(random_state=0, **QUICK | {"n_bins": 48, "max_epochs": 30}).fit(x, y)
    plain, piecewise = model.member_weights_.tolist()

    assert piecewise > 0.8 > plain


def test_interrupted_training_leaves_a_usable_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = numbers()
    steps = 0
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = MLPRegressor(random_state=0, **QUICK | {"batch_size": 16}).fit(X, y)

    assert 1 <= model.n_iter_ < 12
    assert model.predict(X).shape == (60,)
    assert clone(model).get_params() == model.get_params()


# --------------------------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_random_state_fixes_everything_and_nothing_global_is_touched(architecture: str) -> None:
    X, y = numbers()
    options = TINY | {"dropout": 0.3}
    first = MLPRegressor(architecture, random_state=3, **options).fit(X, y).predict(X)
    torch.manual_seed(99)
    stream = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is the point
    again = MLPRegressor(architecture, random_state=3, **options).fit(X, y).predict(X)

    np.testing.assert_array_equal(again, first)
    assert torch.equal(torch.get_rng_state(), stream[0])
    np.testing.assert_equal(np.random.get_state(legacy=False), stream[1])  # noqa: NPY002
    assert (MLPRegressor(architecture, random_state=4, **options).fit(X, y).predict(X) != first).any()


def test_a_generator_as_random_state_moves_on() -> None:
    X, y = numbers()
    generator = np.random.RandomState(0)
    fits = [MLPRegressor(random_state=generator, **TINY).fit(X, y).predict(X) for _ in range(2)]

    assert (fits[0] != fits[1]).any()


@pytest.mark.slow
def test_pickle_predicts_the_same_in_another_process(tmp_path: Path) -> None:
    frame, y = mixed()
    model = MLPClassifier(random_state=0, **TINY).fit(frame, y > 0)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    frame.to_pickle(tmp_path / "frame.pickle")
    np.save(tmp_path / "expected.npy", model.predict_proba(frame))
    program = (
        "import pickle, sys, pathlib, numpy as np, pandas as pd\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "model = pickle.loads((folder / 'model.pickle').read_bytes())\n"
        "found = model.predict_proba(pd.read_pickle(folder / 'frame.pickle'))\n"
        "np.testing.assert_allclose(found, np.load(folder / 'expected.npy'), rtol=1e-12)\n"
    )

    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)


# ---------------------------------------------------------------------------------------------------------- around it


def test_works_inside_scikit_learn() -> None:
    frame, y = mixed()
    pipeline = make_pipeline(FunctionTransformer(), MLPRegressor(random_state=0, **TINY))
    search = GridSearchCV(pipeline, {"mlpregressor__lr": [0.01, 0.1]}, cv=2).fit(frame, y)

    assert len(cross_val_score(MLPRegressor(**TINY), frame, y, cv=2)) == 2
    assert search.best_params_["mlpregressor__lr"] in (0.01, 0.1)


def test_not_fitted() -> None:
    with pytest.raises(NotFittedError, match="This MLPClassifier instance is not fitted yet"):
        MLPClassifier().predict_proba([[1.0]])


def test_verbose_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    MLPRegressor(verbose=True, **TINY).fit(*numbers())
    assert "epoch" in capsys.readouterr().out
    MLPRegressor(**TINY).fit(*numbers())
    assert capsys.readouterr().out == ""


def test_automatic_sizes() -> None:
    model = MLPRegressor()

    assert [model._batch_size(n) for n in (1, 100, 506, 1024, 2048, 100_000)] == [32, 32, 32, 64, 128, 256]
    assert [model._max_epochs(n) for n in (1, 13, 200, 5000)] == [1500, 115, 10, 10]
    for n_classes, max_epochs in ((2, 15), (3, 30)):
        classifier = MLPClassifier()
        classifier.classes_ = np.arange(n_classes)
        assert classifier._max_epochs(100) == max_epochs
    factor = model._make_schedule(1000)
    assert factor(0) == pytest.approx(0.02)
    assert factor(24) == pytest.approx(0.5, abs=0.01)
    assert factor(500) == pytest.approx(0.5)
    assert factor(999) == pytest.approx(0.0, abs=1e-5)
