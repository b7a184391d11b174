"""Cross-validation against scikit-learn's, deep ensembles against their members, calibration by hand."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import model_selection
from sklearn.base import BaseEstimator, RegressorMixin, clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import make_scorer, mean_absolute_error, r2_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.parallel import Parallel

from course_utils.estimators import MLPClassifier, MLPRegressor
from course_utils.evaluation import (
    DeepEnsemble,
    corrected_resampled_ttest,
    cross_validate,
    expected_calibration_error,
    validation,
)

FloatArray = NDArray[np.float64]
X, Y = load_diabetes(return_X_y=True)
X, Y = X[:90], Y[:90]
IRIS, SPECIES = load_iris(return_X_y=True)
TREE = DecisionTreeRegressor(max_features=2, min_samples_leaf=5)


# ------------------------------------------------------------------------------------------------ cross-validation


def test_scores_equal_scikit_learns_on_the_same_splits() -> None:
    cv = model_selection.ShuffleSplit(4, test_size=0.3, random_state=1)
    result = cross_validate(Ridge(), X, Y, cv=cv, scoring="neg_root_mean_squared_error")
    expected = model_selection.cross_validate(
        Ridge(), X, Y, cv=cv, scoring="neg_root_mean_squared_error", return_train_score=True
    )
    assert list(result.table) == ["repeat", "fold", "n_train", "n_test", "fit_seconds", "test_score", "train_score"]
    np.testing.assert_array_equal(result.table["test_score"], expected["test_score"])
    np.testing.assert_array_equal(result.table["train_score"], expected["train_score"])
    assert result.table["fold"].tolist() == [0, 1, 2, 3]
    assert (result.table["repeat"] == 0).all()
    assert (result.table["n_train"] == 63).all()
    assert (result.table["n_test"] == 27).all()
    assert result.test_fraction == pytest.approx(0.3)
    assert (result.table["fit_seconds"] > 0).all()
    assert result.predictions is None


def test_table_has_a_row_for_every_fold_of_every_repeat() -> None:
    table = cross_validate(Ridge(), X, Y, cv=3, repeats=4).table
    assert table[["repeat", "fold"]].to_numpy().tolist() == [[r, f] for r in range(4) for f in range(3)]
    assert table["test_score"].nunique() == 12  # every repeat shuffles anew
    assert len(cross_validate(Ridge(), X, Y).table) == 5


def test_splits_depend_on_the_seed_and_not_on_the_model() -> None:
    def tested(model: Any, **options: Any) -> list[float]:
        # A score that depends on the tested rows alone shows the splits.
        table = cross_validate(model, X, Y, cv=4, scoring=lambda m, X, y: float(y.sum()), **options).table
        return list(table["test_score"])

    assert tested(Ridge()) == tested(TREE) == tested(Ridge(), seed=0)
    assert tested(Ridge(), seed=1) != tested(Ridge())
    assert tested(Ridge(), repeats=2)[:4] == tested(Ridge())


def test_classifiers_are_stratified_and_regressors_are_not() -> None:
    def classes(model: Any, X: Any, y: Any) -> float:
        return float(np.bincount(y, minlength=3).min())

    classifier = cross_validate(DecisionTreeClassifier(), IRIS, SPECIES, scoring=classes)
    assert (classifier.table["test_score"] == 10).all()
    regressor = cross_validate(Ridge(), IRIS, SPECIES, scoring=classes)
    assert (regressor.table["test_score"] < 10).any()


@pytest.mark.parametrize(("model", "target"), [(Ridge(), Y), (DecisionTreeClassifier(max_depth=1), Y > 150)])
def test_groups_are_not_separated(model: Any, target: NDArray[Any]) -> None:
    groups = np.arange(len(X)) // 6

    def groups_tested(model: Any, X: Any, y: Any) -> float:
        return float(len(np.unique(X[:, 0])))

    tagged = np.column_stack([groups, X])
    table = cross_validate(model, tagged, target, cv=5, groups=groups, scoring=groups_tested).table
    assert table["test_score"].sum() == 15  # of the 15 groups each is tested in one fold
    assert (cross_validate(model, tagged, target, cv=5, scoring=groups_tested).table["test_score"]).sum() > 15


def test_several_metrics_and_a_scorer() -> None:
    names = ["r2", "neg_mean_absolute_error"]
    result = cross_validate(Ridge(), X, Y, scoring=names)
    assert list(result.table)[5:] == [
        "test_r2",
        "train_r2",
        "test_neg_mean_absolute_error",
        "train_neg_mean_absolute_error",
    ]
    scorer = make_scorer(mean_absolute_error, greater_is_better=False)
    single = cross_validate(Ridge(), X, Y, scoring=scorer)
    np.testing.assert_array_equal(single.table["test_score"], result.table["test_neg_mean_absolute_error"])
    np.testing.assert_array_equal(cross_validate(Ridge(), X, Y).table["test_score"], result.table["test_r2"])
    assert result.interval("r2").mean == pytest.approx(result.table["test_r2"].mean())
    with pytest.raises(ValueError, match="metric must be one of 'r2', 'neg_mean_absolute_error', got 'score'"):
        result.interval()


def test_interval_is_that_of_the_corrected_test() -> None:
    result = cross_validate(Ridge(), X, Y, cv=3, repeats=2)
    expected = corrected_resampled_ttest(result.table["test_score"].to_numpy(), test_fraction=1 / 3, level=0.9)
    assert result.interval(level=0.9) == expected
    assert result.interval().level == 0.95


@pytest.mark.parametrize("scoring", [None, "r2", ["r2"]])
def test_weights_reach_fit_and_scores(scoring: Any) -> None:
    """Oracle: weights 0 and 2 are absence and repetition, in training and in the score."""
    weights = np.random.default_rng(0).integers(0, 3, size=len(X))
    train, test = np.arange(60), np.arange(60, 90)
    result = cross_validate(Ridge(), X, Y, cv=[(train, test)], sample_weight=weights, scoring=scoring)
    rows, tested = np.repeat(train, weights[train]), np.repeat(test, weights[test])
    model = Ridge().fit(X[rows], Y[rows])
    names = ("test_r2", "train_r2") if isinstance(scoring, list) else ("test_score", "train_score")
    assert result.table[names[0]][0] == pytest.approx(r2_score(Y[tested], model.predict(X[tested])))
    assert result.table[names[1]][0] == pytest.approx(r2_score(Y[rows], model.predict(X[rows])))


def test_predictions_are_those_of_the_model_that_did_not_see_the_row() -> None:
    result = cross_validate(KNeighborsRegressor(1), X, Y, cv=3, repeats=2, predictions="predict", seed=4)
    assert result.predictions is not None
    assert result.predictions.shape == (2, 90)
    assert not (result.predictions == Y).all(axis=1).any()
    assert (result.predictions[0] != result.predictions[1]).any()
    fold = model_selection.KFold(3, shuffle=True, random_state=4)
    expected = model_selection.cross_val_predict(KNeighborsRegressor(1), X, Y, cv=fold)
    np.testing.assert_array_equal(result.predictions[0], expected)


def test_predictions_of_two_outputs_and_of_labels_keep_their_shape_and_type() -> None:
    two = cross_validate(Ridge(), X, np.column_stack([Y, -Y]), cv=3, predictions="predict").predictions
    assert two is not None
    assert two.shape == (1, 90, 2)
    labels = np.array(["a", "bbb", "cc"])[SPECIES]
    frame = pd.DataFrame(IRIS, columns=list("wxyz"))
    named = cross_validate(DecisionTreeClassifier(), frame, pd.Series(labels), predictions="predict").predictions
    assert named is not None
    assert (named[0] == labels).mean() > 0.9


def test_probabilities_are_aligned_where_a_fold_lacks_a_class() -> None:
    order = [np.arange(50), np.arange(50, 150)]
    splits = [(order[1], order[0]), (order[0], order[1])]
    for rare, column in (("a", 0), ("c", 1), ("z", 2)):
        target = np.where(SPECIES == 2, rare, np.where(np.arange(150) % 2, "m", "b"))
        result = cross_validate(DecisionTreeClassifier(), IRIS, target, cv=splits, predictions="predict_proba")
        assert result.predictions is not None
        assert result.predictions.shape == (1, 150, 3)
        np.testing.assert_allclose(result.predictions.sum(axis=-1), 1)
        unseen = result.predictions[0, 50:]  # by a model of the first fifty rows, where the rare class is not
        assert (unseen[:, column] == 0).all()
        assert set(np.unique(np.delete(unseen, column, axis=1))) == {0, 1}


def test_model_stays_unfitted_and_errors_are_raised() -> None:
    model = Ridge()
    cross_validate(model, X, Y)
    assert not hasattr(model, "coef_")
    with pytest.raises(ValueError, match="Input X contains NaN"):
        cross_validate(model, np.where(X > 0.1, np.nan, X), Y)
    with_gap = X.copy()
    with_gap[0] = np.nan  # four of five splits train on this row, one tests on it
    with pytest.raises(ValueError, match="Input X contains NaN"):
        cross_validate(model, with_gap, Y, scoring=lambda model, X, y: 0.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cv": 1}, ValueError, "cv must be at least 2, got 1"),
        ({"cv": 2.0}, ValueError, "Expected `cv` as an integer"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
        ({"cv": model_selection.KFold(3), "repeats": 2}, ValueError, "repeats needs cv as a number of folds, got rep"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"predictions": "p"}, ValueError, "predictions must be one of None, 'predict', 'predict_proba', got 'p'"),
        ({"cv": model_selection.ShuffleSplit(3), "predictions": "predict"}, ValueError, "test each row exactly once"),
        ({"cv": model_selection.TimeSeriesSplit(3), "predictions": "predict"}, ValueError, "each row exactly once"),
        ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight must have shape \(90,\), got \(3,\)"),
        ({"sample_weight": -np.ones(90)}, ValueError, "sample_weight must be finite and at least 0, got -1.0"),
        ({"sample_weight": np.full(90, np.inf)}, ValueError, "sample_weight must be finite and at least 0, got inf"),
    ],
)  # fmt: skip
def test_cross_validation_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_validate(Ridge(), X, Y, **options)


def test_cross_validation_reads_as_a_summary() -> None:
    text = str(cross_validate(Ridge(), X, Y, cv=3, repeats=2))
    assert text.startswith("6 splits in 2 repeats\ntest_score 0.")
    assert "\ntrain_score 0." in text
    assert text.endswith(" s a split")
    assert str(cross_validate(Ridge(), X, Y, cv=3)).startswith("3 splits\n")


# --------------------------------------------------------------------------------------------------- deep ensemble


@pytest.mark.parametrize("base", [Ridge(), DecisionTreeRegressor(max_features=1), DecisionTreeClassifier()])
def test_ensemble_passes_scikit_learns_checks(base: Any) -> None:
    # Skipped: the array API, which needs packages that are not installed. Nothing else.
    results = check_estimator(DeepEnsemble(base, 2), on_skip=None)
    assert {result["status"] for result in results if result["check_name"] != "check_array_api_input"} == {"passed"}


def test_members_differ_in_random_state_only_and_share_the_data() -> None:
    ensemble = DeepEnsemble(TREE, 6, random_state=0).fit(X, Y)
    states = [member.random_state for member in ensemble.estimators_]
    assert len(set(states)) == 6
    for member in ensemble.estimators_:
        assert {**member.get_params(), "random_state": None} == TREE.get_params()
        np.testing.assert_array_equal(member.predict(X), clone(member).fit(X, Y).predict(X))


def test_regressor_predicts_the_mean_and_the_spread_of_its_members() -> None:
    ensemble = DeepEnsemble(TREE, 4, random_state=0).fit(X, Y)
    members = np.stack([member.predict(X) for member in ensemble.estimators_])
    np.testing.assert_allclose(ensemble.predict(X), members.mean(axis=0))
    np.testing.assert_allclose(
        ensemble.predict_std(X) ** 2, (members**2).mean(axis=0) - members.mean(axis=0) ** 2, atol=1e-8
    )
    assert not hasattr(ensemble, "predict_proba")
    assert is_regressor(ensemble)
    assert ensemble.score(X, Y) == r2_score(Y, ensemble.predict(X))
    assert DeepEnsemble(TREE, 4, random_state=0).fit(X, np.column_stack([Y, Y])).predict(X).shape == (90, 2)


def test_classifier_averages_probabilities_and_keeps_labels() -> None:
    labels = np.array(["x", "y", "z"])[SPECIES]
    ensemble = DeepEnsemble(RandomForestClassifier(3, max_depth=2), 5, random_state=0).fit(IRIS, labels)
    members = np.stack([member.predict_proba(IRIS) for member in ensemble.estimators_])
    np.testing.assert_allclose(ensemble.predict_proba(IRIS), members.mean(axis=0))
    np.testing.assert_allclose(ensemble.predict_std(IRIS), members.std(axis=0))
    assert ensemble.predict(IRIS).tolist() == ensemble.classes_[members.mean(axis=0).argmax(axis=1)].tolist()
    assert ensemble.classes_.tolist() == ["x", "y", "z"]
    assert is_classifier(ensemble)
    assert ensemble.score(IRIS, labels) == (ensemble.predict(IRIS) == labels).mean()
    with pytest.raises(ValueError, match="y should be a 1d array"):
        ensemble.fit(IRIS, np.column_stack([SPECIES, SPECIES]))


def test_mean_has_at_most_the_members_mean_squared_error() -> None:
    """Property: Jensen's inequality; the difference is the mean of the squared spread."""
    ensemble = DeepEnsemble(TREE, 8, random_state=1).fit(X[:60], Y[:60])
    test, target = X[60:], Y[60:]
    errors = [np.mean((member.predict(test) - target) ** 2) for member in ensemble.estimators_]
    own = np.mean((ensemble.predict(test) - target) ** 2)
    assert np.mean(errors) - own == pytest.approx(np.mean(ensemble.predict_std(test) ** 2))
    assert own < np.mean(errors)


def test_random_state_repeats_the_ensemble_and_jobs_do_not_change_it() -> None:
    first = DeepEnsemble(TREE, 3, random_state=0).fit(X, Y).predict(X)
    np.testing.assert_array_equal(DeepEnsemble(TREE, 3, random_state=0).fit(X, Y).predict(X), first)
    assert (DeepEnsemble(TREE, 3, random_state=1).fit(X, Y).predict(X) != first).any()
    assert (DeepEnsemble(TREE, 3).fit(X, Y).predict(X) != DeepEnsemble(TREE, 3).fit(X, Y).predict(X)).any()
    larger = DeepEnsemble(TREE, 5, random_state=0).fit(X, Y).estimators_
    smaller = DeepEnsemble(TREE, 3, random_state=0).fit(X, Y).estimators_
    assert [m.random_state for m in larger[:3]] == [m.random_state for m in smaller]


def test_random_states_inside_a_pipeline_are_set() -> None:
    base = make_pipeline(StandardScaler(), TransformedTargetRegressor(TREE))
    ensemble = DeepEnsemble(base, 3, random_state=0).fit(X, Y)
    inner = [member[-1].regressor_.random_state for member in ensemble.estimators_]
    assert len(set(inner)) == 3
    assert base[-1].regressor.random_state is None
    assert (ensemble.predict_std(X) > 0).any()

    several = DeepEnsemble(make_pipeline(QuantileTransformer(n_quantiles=9), TREE), 3, random_state=0).fit(X, Y)
    states = [step.random_state for member in several.estimators_ for _, step in member.steps]
    assert None not in states
    assert len(set(states)) == 6


def test_weights_reach_the_members() -> None:
    weights = np.random.default_rng(0).integers(0, 3, size=len(X))
    rows = np.repeat(np.arange(len(X)), weights)
    weighted = DeepEnsemble(Ridge(), 2).fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(weighted.predict(X), Ridge().fit(X[rows], Y[rows]).predict(X))
    assert weighted.score(X, Y, weights) == pytest.approx(r2_score(Y[rows], weighted.predict(X[rows])))


def test_names_of_features_copies_and_pickles() -> None:
    frame = pd.DataFrame(IRIS, columns=list("wxyz"))
    ensemble = DeepEnsemble(DecisionTreeClassifier(), random_state=0).fit(frame, SPECIES)
    assert len(ensemble.estimators_) == 5
    assert ensemble.feature_names_in_.tolist() == list("wxyz")
    assert ensemble.n_features_in_ == 4
    for twin in (pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
        np.testing.assert_array_equal(twin.predict_proba(frame), ensemble.predict_proba(frame))
    assert not hasattr(clone(ensemble), "estimators_")
    with pytest.raises(ValueError, match="feature names should match"):
        ensemble.predict(frame[list("zyxw")])


class Stateless(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any) -> Stateless:
        return self


@pytest.mark.parametrize(
    ("ensemble", "options", "error", "message"),
    [
        (DeepEnsemble(TREE, 0), {}, ValueError, "n_members must be at least 1, got 0"),
        (DeepEnsemble(StandardScaler()), {}, TypeError, "must be a regressor or a classifier, got StandardScaler"),
        (DeepEnsemble(RidgeClassifier()), {}, TypeError, "must have predict_proba, and RidgeClassifier has not"),
        (DeepEnsemble(Stateless()), {}, TypeError, "must have a random_state, and Stateless has none"),
        (
            DeepEnsemble(make_pipeline(Ridge())), {"sample_weight": np.ones(90)}, TypeError,
            "sample_weight is given, and Pipeline.fit does not take it",
        ),
    ],
)  # fmt: skip
def test_ensemble_refuses(
    ensemble: DeepEnsemble, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ensemble.fit(X, (Y > 150).astype(int), **options)


# ---------------------------------------------------------------------------------------------------- our networks

SMALL: dict[str, Any] = {"hidden_features": (8,), "max_epochs": 3, "patience": None}
LEVELS = np.array(["low", "high"])[(Y > 150).astype(int)]


@pytest.mark.slow
def test_two_processes_give_the_same_networks_as_one() -> None:
    """One test of three, because starting the processes takes longer than all that they do."""
    # Threads may split a sum otherwise in a process of its own, and training carries the last digit on.
    cases: list[tuple[Any, NDArray[Any], str]] = [
        (MLPRegressor(**SMALL, random_state=0), Y, "predict"),
        (MLPClassifier(**SMALL, random_state=0), LEVELS, "predict_proba"),
    ]
    for model, target, method in cases:
        one, two = (cross_validate(model, X, target, cv=3, predictions=method, n_jobs=jobs) for jobs in (None, 2))
        assert one.predictions is not None
        assert two.predictions is not None
        np.testing.assert_allclose(two.predictions, one.predictions, rtol=1e-4)
        columns = ["repeat", "fold", "n_train", "n_test", "test_score", "train_score"]
        pd.testing.assert_frame_equal(two.table[columns], one.table[columns], rtol=1e-3, atol=1e-4)
        assert not hasattr(model, "n_features_in_")

    alone, shared = (
        DeepEnsemble(MLPRegressor(**SMALL), 2, random_state=0, n_jobs=jobs).fit(X, Y) for jobs in (None, 2)
    )
    np.testing.assert_allclose(shared.predict(X), alone.predict(X), rtol=1e-4)


def test_jobs_reach_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument's way alone: that the result is the same is shown by the test above."""
    asked: list[Any] = []
    original = model_selection.cross_validate

    def remember(*args: Any, n_jobs: int | None, **options: Any) -> Any:
        asked.append(n_jobs)
        return original(*args, n_jobs=1, **options)

    monkeypatch.setattr(model_selection, "cross_validate", remember)
    cross_validate(Ridge(), X, Y, n_jobs=2)
    cross_validate(Ridge(), X, Y)
    assert asked == [2, None]

    def remember_parallel(*, n_jobs: int | None) -> Any:
        asked.append(n_jobs)
        return Parallel(n_jobs=1)

    asked.clear()
    monkeypatch.setattr(validation, "Parallel", remember_parallel)
    DeepEnsemble(Ridge(), 2, n_jobs=2).fit(X, Y)
    DeepEnsemble(Ridge(), 2).fit(X, Y)
    assert asked == [2, None]


def test_an_ensemble_of_networks_is_the_mean_of_networks_with_other_seeds() -> None:
    ensemble = DeepEnsemble(MLPRegressor(**SMALL), 3, random_state=0).fit(X, Y)
    alone = [MLPRegressor(**SMALL, random_state=m.random_state).fit(X, Y).predict(X) for m in ensemble.estimators_]
    np.testing.assert_allclose(ensemble.predict(X), np.mean(alone, axis=0), rtol=1e-6)
    np.testing.assert_allclose(ensemble.predict_std(X), np.std(alone, axis=0), rtol=1e-4)
    assert (ensemble.predict_std(X) > 0).all()

    classifier = DeepEnsemble(MLPClassifier(**SMALL), 3, random_state=0).fit(X, LEVELS)
    members = [MLPClassifier(**SMALL, random_state=m.random_state).fit(X, LEVELS) for m in classifier.estimators_]
    probabilities = np.mean([member.predict_proba(X) for member in members], axis=0)
    np.testing.assert_allclose(classifier.predict_proba(X), probabilities, rtol=1e-6)
    assert classifier.classes_.tolist() == ["high", "low"]
    assert classifier.predict(X).tolist() == classifier.classes_[probabilities.argmax(axis=1)].tolist()


# ----------------------------------------------------------------------------------------------------- calibration


def test_calibration_error_by_hand() -> None:
    probabilities = [[0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.9, 0.1]]
    labels = [1, 1, 1, 0]
    # Bins of width 1/4: (0.5, 0.75] holds 0.6, wrong: |0 − 0.6|/4; (0.75, 1] holds the rest, right: |3 − 2.6|/4.
    assert expected_calibration_error(probabilities, labels, bins=4) == pytest.approx((0.6 + 0.4) / 4)
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(3 - 3.2) / 4)


def test_calibration_bins_contain_their_upper_end() -> None:
    # 0.5 lies in the lower of two bins, 0.6 in the upper one; together they would cancel to |1 − 1.1|/2.
    assert expected_calibration_error([[0.5, 0.5], [0.4, 0.6]], [0, 0], bins=2) == pytest.approx((0.5 + 0.6) / 2)


def test_calibration_has_fifteen_bins_and_takes_two_classes_as_one_column() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(300)
    labels = (rng.random(300) < p).astype(int)
    both = np.column_stack([1 - p, p])
    assert expected_calibration_error(p, labels) == expected_calibration_error(both, labels, bins=15)
    assert expected_calibration_error(p, labels) != expected_calibration_error(p, labels, bins=14)


@given(classes=st.integers(2, 5), bins=st.integers(1, 20), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_calibration_equals_a_loop_over_bins(classes: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), size=60)
    labels = rng.integers(classes, size=60)
    expected = 0.0
    for index in range(bins):
        confidence = probabilities.max(axis=1)
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if inside.any():
            accuracy = (probabilities.argmax(axis=1) == labels)[inside].mean()
            expected += inside.mean() * abs(accuracy - confidence[inside].mean())
    actual = expected_calibration_error(probabilities, labels, bins=bins)
    assert actual == pytest.approx(expected, abs=1e-12)
    assert 0 <= actual <= 1


def test_calibration_of_true_probabilities_is_small_and_of_overconfident_ones_large() -> None:
    """Behaviour: 20000 rows leave about √(15/20000)/2 ≈ 1.4% of noise."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, size=20_000)
    labels = (rng.random(20_000) < p).astype(int)
    assert expected_calibration_error(p, labels) < 0.02
    assert expected_calibration_error(np.ones(20_000), labels) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"n > 0 rows each, got \(1, 2\) and \(2,\)"),
        (np.empty((0, 2)), [], r"n > 0 rows each, got \(0, 2\) and \(0,\)"),
        ([[[0.5, 0.5]]], [0], r"n > 0 rows each, got \(1, 1, 2\) and \(1,\)"),
        ([[0.5, 0.6]], [0], "sum to 1 in every row; are these logits"),
        ([[-0.5, 1.5]], [0], "must be at least 0 and sum to 1"),
        ([[np.nan, 1.0]], [0], "must be at least 0 and sum to 1"),
        ([1.5], [0], "must be at least 0 and sum to 1"),
        ([[0.5, 0.5]], [2], r"labels must be integers from 0 to 1, got \[2\]"),
        ([[0.5, 0.5]], [-1], r"labels must be integers from 0 to 1, got \[-1\]"),
        ([[0.5, 0.5]], ["a"], r"labels must be integers from 0 to 1, got \['a'\]"),
        ([[0.5, 0.5]], [1.0], r"labels must be integers from 0 to 1, got \[1.\]"),
    ],
)
def test_calibration_refuses(probabilities: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probabilities, labels)


def test_calibration_refuses_zero_bins() -> None:
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        expected_calibration_error([[0.5, 0.5]], [0], bins=0)
