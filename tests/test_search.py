"""Search spaces, tuning against scikit-learn's own search, studies shared, killed and resumed, and the pictures."""

from __future__ import annotations

import inspect
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor as SklearnMLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from course_utils.search import (
    Choice,
    Float,
    Int,
    TuningResult,
    compare_samplers,
    default_space,
    importances,
    study,
    tune,
)
from course_utils.search.figures import natural_units, plot_history, plot_parallel, plot_samplers, plot_slices
from course_utils.search.spaces import check_space, grid_axes, positions

optuna = pytest.importorskip("optuna")
mpl.use("Agg")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, -2.0, 0.5] + RNG.normal(size=60)
SPACE: dict[str, Any] = {"a": Float(1e-3, 1e3, log=True), "b": Int(1, 8), "c": Choice([None, (1, 2), "u"])}

# What type checkers would refuse.
TEXT: Any = "a"
HALF: Any = 0.5

ON_FIT: list[Callable[[Any], None]] = []  # what the toy's fit does besides


class Toy(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Needs no time: its score is a known function of its hyperparameters, and of the fold."""

    def __init__(self, a: float = 1.0, b: int = 1, c: Any = None, random_state: int | None = None) -> None:
        self.a, self.b, self.c, self.random_state = a, b, c, random_state

    def fit(self, X: Any, y: Any) -> Toy:
        for action in ON_FIT:
            action(self)
        self.fitted_ = len(X)
        return self

    def score(self, X: Any, y: Any) -> float:
        return float(-(math.log10(self.a) ** 2) - 0.1 * (self.b - 3) ** 2 + np.mean(y))


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    ON_FIT.clear()
    plt.close("all")


def toy(n_trials: int = 14, **options: Any) -> TuningResult:
    return tune(Toy(), X, Y, n_trials=n_trials, **{"space": SPACE, "progress": False, **options})


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))


# ----------------------------------------------------------------------------------------------------------- spaces


def test_values_are_even_on_their_scale() -> None:
    np.testing.assert_allclose(Float(1.0, 3.0).values(3), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(Float(0.01, 100, log=True).values(5), [0.01, 0.1, 1.0, 10.0, 100.0])
    assert Float(2.0, 4.0).values(1) == [3.0]
    assert Float(1.0, 100.0, log=True).values(1) == [10.0]
    assert Int(1, 3).values(9) == [1, 2, 3]
    assert Int(1, 100, log=True).values(3) == [1, 10, 100]
    assert Choice(["u", None]).values(1) == ["u", None]


@given(st.floats(1e-9, 1e9), st.floats(1.01, 1e6), st.booleans(), st.integers(1, 12))
def test_values_stay_inside(low: float, factor: float, log: bool, n: int) -> None:
    values = Float(low, low * factor, log=log).values(n)

    assert len(values) == n
    assert all(low <= value <= low * factor for value in values)


@given(st.integers(1, 5), st.integers(0, 2), st.integers(1, 200))
@settings(max_examples=50)
def test_grid_is_the_largest_even_one(n_floats: int, n_choices: int, budget: int) -> None:
    space: dict[str, Any] = {f"f{i}": Float(0.0, 1.0) for i in range(n_floats)}
    space |= {f"c{i}": Choice([1, 2, 3]) for i in range(n_choices)}

    axes = grid_axes(space, budget)
    lengths = [len(axes[name]) for name in space if name.startswith("f")]
    size = math.prod(len(axis) for axis in axes.values())

    assert list(axes) == list(space)
    assert max(lengths) - min(lengths) <= 1
    assert all(len(axes[f"c{i}"]) == 3 for i in range(n_choices))
    assert size <= budget or set(lengths) == {2}
    assert size // min(lengths) * (min(lengths) + 1) > budget


def test_grid_of_a_short_range_leaves_the_budget_to_the_others() -> None:
    assert [len(axis) for axis in grid_axes({"a": Int(1, 3), "b": Float(0, 1)}, 30).values()] == [3, 10]


def test_labels_come_back_as_options() -> None:
    choice = Choice([None, True, 1.5, "u", (1, 2)])

    assert choice.labels == (None, True, 1.5, "u", "(1, 2)")
    assert [choice.from_label(label) for label in choice.labels] == list(choice.options)
    assert [choice.to_label(option) for option in choice.options] == list(choice.labels)


def test_positions_are_exponents_or_option_numbers() -> None:
    np.testing.assert_allclose(positions([0.1, 100.0], Float(0.1, 100.0, log=True)), [-1.0, 2.0])
    np.testing.assert_allclose(positions([3, 5], Int(1, 9)), [3.0, 5.0])
    np.testing.assert_allclose(positions([(1,), "u"], Choice(["u", (1,)])), [1.0, 0.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Float(2.0, 1.0), ValueError, r"high must be in \(2, inf\), got 1.0"),
        (lambda: Float(0.0, 1.0, log=True), ValueError, r"low must be in \(0, inf\), got 0.0"),
        (lambda: Float(0.0, math.inf), ValueError, r"high must be in \(0, inf\), got inf"),
        (lambda: Float(TEXT, 1.0), TypeError, "low must be a number, got 'a'"),
        (lambda: Int(3, 3), ValueError, "high must be at least 4, got 3"),
        (lambda: Int(0, 3, log=True), ValueError, "low must be at least 1, got 0"),
        (lambda: Int(HALF, 3), TypeError, "low must be an integer, got 0.5"),
        (lambda: Choice([]), ValueError, r"options must be different and at least one, got \[\]"),
        (lambda: Choice(["a", "a"]), ValueError, r"different and at least one, got \['a', 'a'\]"),
        (lambda: Choice("ab"), TypeError, "options must be a sequence such as .*, got 'ab'"),
        (lambda: grid_axes(SPACE, 0), ValueError, "budget must be at least 1, got 0"),
    ],
)
def test_bad_dimension(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ("all", TypeError, "space must be 'default' or a dict such as .*, got 'all'"),
        ({}, ValueError, "space must name at least one hyperparameter"),
        ({"alpha": (0.1, 1.0)}, TypeError, r"space\['alpha'\] must be a Float, an Int or a Choice, got \(0.1, 1.0\)"),
        ({"alhpa": Float(0.1, 1.0)}, ValueError, "Ridge has no hyperparameter 'alhpa'; it has alpha, copy_X"),
    ],
)
def test_bad_space(space: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_space(space, Ridge())


def test_default_spaces_name_hyperparameters_that_exist() -> None:
    from lightgbm import LGBMClassifier, LGBMRegressor

    for estimator in (
        *(Ridge(), RandomForestRegressor(), RandomForestClassifier(), HistGradientBoostingClassifier()),
        *(LGBMClassifier(), LGBMRegressor()),
    ):
        space = check_space("default", estimator)
        assert space == default_space(estimator)
        for name, dimension in space.items():  # what the library itself takes for good lies inside
            default = estimator.get_params()[name]
            if default in (0.0, "sqrt"):
                continue  # no penalty, which no logarithm reaches; √n features
            assert isinstance(dimension, Float | Int)
            assert dimension.low <= default <= dimension.high, name


@pytest.mark.parametrize("architecture", ["mlp", "resnet", "ft_transformer", "ensemble"])
def test_our_own_estimators_have_default_spaces(architecture: str) -> None:
    from course_utils.estimators import MLPClassifier, MLPRegressor

    for estimator in (MLPRegressor(architecture=architecture), MLPClassifier(architecture=architecture)):
        space = check_space("default", estimator)
        assert {"lr", "weight_decay", "dropout"} < set(space)
        assert ("n_blocks" in space) == (architecture in ("resnet", "ft_transformer"))
        for name, dimension in space.items():
            default = estimator.get_params()[name]
            assert isinstance(dimension, Choice) or dimension.low <= default <= dimension.high, name


def test_default_space_goes_into_pipelines() -> None:
    inner = default_space(Ridge())

    assert default_space(make_pipeline(StandardScaler(), Ridge())) == {"ridge__alpha": inner["alpha"]}
    assert default_space(TransformedTargetRegressor(Ridge())) == {"regressor__alpha": inner["alpha"]}


@pytest.mark.parametrize("estimator", [KNeighborsRegressor(), SklearnMLPRegressor(), make_pipeline(StandardScaler())])
def test_no_default_space(estimator: Any) -> None:
    with pytest.raises(ValueError, match=f"no default space for {type(estimator).__name__}; give one, such as"):
        default_space(estimator)


# ----------------------------------------------------------------------------------------------------------- tuning


def test_grid_equals_scikit_learns() -> None:
    space: dict[str, Any] = {"alpha": Float(0.1, 1000, log=True), "fit_intercept": Choice([True, False])}
    splitter = KFold(4, shuffle=True, random_state=3)
    scoring = "neg_mean_absolute_error"

    ours = tune(Ridge(), X, Y, space=space, n_trials=11, cv=splitter, scoring=scoring, sampler="grid", prune=False,
                progress=False)  # fmt: skip
    theirs = GridSearchCV(Ridge(), grid_axes(space, 11), cv=splitter, scoring=scoring).fit(X, Y)

    assert len(ours.trials) == len(theirs.cv_results_["params"]) == 10
    assert ours.best_params == pytest.approx(theirs.best_params_)
    assert ours.best_score == pytest.approx(theirs.best_score_)
    np.testing.assert_allclose(ours.best_estimator.coef_, theirs.best_estimator_.coef_)
    np.testing.assert_allclose(np.sort(ours.trials["score"]), np.sort(theirs.cv_results_["mean_test_score"]))


def test_scores_are_those_of_cross_validation_on_the_same_shuffled_folds() -> None:
    labels = (Y > 0.5).astype(int)
    for estimator, target, splitter in [
        (Ridge(), Y, KFold(5, shuffle=True, random_state=7)),
        (LogisticRegression(), labels, StratifiedKFold(5, shuffle=True, random_state=7)),
    ]:
        name = "alpha" if isinstance(estimator, Ridge) else "C"
        space = {name: Float(0.1, 10.0)}
        result = tune(estimator, X, target, space=space, n_trials=3, cv=5, seed=7, progress=False, prune=False)
        for _, row in result.trials.iterrows():
            expected = cross_val_score(estimator.set_params(**{name: row[f"param_{name}"]}), X, target, cv=splitter)
            np.testing.assert_allclose(row[[f"fold_{fold}" for fold in range(1, 6)]].to_numpy(float), expected)
            assert row["score"] == pytest.approx(expected.mean())


def test_cv_takes_splits_as_they_are() -> None:
    splits = [(np.arange(40), np.arange(40, 60)), (np.arange(20, 60), np.arange(20))]
    for cv in (splits, KFold(2)):
        result = toy(3, cv=cv, prune=False)
        assert [name for name in result.trials if str(name).startswith("fold")] == ["fold_1", "fold_2"]
    in_order = result.trials
    difference = in_order["fold_1"] - in_order["fold_2"]
    np.testing.assert_allclose(difference, Y[:30].mean() - Y[30:].mean())


def test_result_and_table() -> None:
    result = toy(30, seed=2)
    trials = result.trials
    complete = trials[trials["state"] == "complete"]

    assert list(trials.columns) == [
        "trial", "state", "score", "fold_1", "fold_2", "fold_3", "seconds", "param_a", "param_b", "param_c", "error",
    ]  # fmt: skip
    assert trials["trial"].tolist() == list(range(30))
    assert set(trials["state"]) == {"complete", "pruned"}
    np.testing.assert_allclose(complete["score"], complete[["fold_1", "fold_2", "fold_3"]].mean(axis=1))
    assert trials["score"].isna().equals(trials["state"] != "complete")
    assert result.best_score == complete["score"].max()
    assert result.best_params == {name: getattr(result.best_estimator, name) for name in SPACE}
    assert type(result.best_params["b"]) is int
    assert type(result.best_params["a"]) is float
    assert result.best_estimator.fitted_ == 60
    assert result.scoring == "r2"
    assert trials["error"].isna().all()
    assert not result.interrupted
    assert 0.5 < result.best_params["a"] < 2.0 or result.best_score > -0.5 + Y.mean()
    assert (trials["seconds"] > 0).all()


def test_options_of_any_kind_come_back() -> None:
    result = toy(20, prune=False)

    assert {repr(value) for value in result.trials["param_c"]} == {"None", "(1, 2)", "'u'"}


def test_same_seed_same_trials() -> None:
    once, again, other = toy(seed=1), toy(seed=1), toy(seed=2)

    same(once.trials, again.trials)
    assert once.trials["param_a"].tolist() != other.trials["param_a"].tolist()


def test_tpe_starts_as_random_search_and_then_finds_more() -> None:
    tpe, random = (toy(40, sampler=sampler, prune=False, seed=3).trials for sampler in ("tpe", "random"))

    same(tpe[:10], random[:10])
    assert not set(tpe["param_a"][10:]) & set(random["param_a"])
    assert tpe["score"][10:].median() > random["score"][10:].median()


def test_draws_are_even_over_the_space() -> None:
    drawn = [toy(40, sampler="random", prune=False, seed=seed).trials for seed in range(3)]
    table = pd.concat(drawn)

    places = (np.log10(table["param_a"]) + 3) / 6
    assert 0.42 < places.mean() < 0.58
    assert 0.25 < places.std() < 0.33
    assert table["param_b"].nunique() == 8
    assert table["param_a"].nunique() == 120


def test_nothing_is_changed_and_random_states_are_filled(capfd: pytest.CaptureFixture[str]) -> None:
    estimator = make_pipeline(StandardScaler(), Toy())
    verbosity = optuna.logging.get_verbosity()
    state = str(np.random.get_state())  # noqa: NPY002

    result = tune(estimator, X, Y, space={"toy__a": Float(0.1, 1.0)}, n_trials=2, seed=5)

    assert estimator.get_params()["toy__random_state"] is None
    assert result.best_estimator.get_params()["toy__random_state"] == 5
    assert toy(1, seed=0).best_estimator.random_state == 0
    assert tune(Toy(random_state=9), X, Y, space=SPACE, n_trials=1, progress=False).best_estimator.random_state == 9
    assert optuna.logging.get_verbosity() == verbosity
    assert str(np.random.get_state()) == state  # noqa: NPY002
    out, err = capfd.readouterr()
    assert err == ""
    assert "trial" in out


def test_no_bar_unless_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    toy(2)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["frame", "sparse", "list"])
def test_kinds_of_tables(kind: str) -> None:
    table = {"frame": pd.DataFrame(X), "sparse": sparse.csr_array(X), "list": X.tolist()}[kind]
    target = {"frame": pd.Series(Y, index=range(60, 120)), "sparse": Y, "list": Y.tolist()}[kind]
    options: dict[str, Any] = {"n_trials": 2, "progress": False, "prune": False}

    result = tune(Ridge(solver="lsqr", tol=1e-9), table, target, **options)
    expected = tune(Ridge(solver="lsqr", tol=1e-9), X, Y, **options)

    np.testing.assert_allclose(result.trials["score"], expected.trials["score"], rtol=1e-4)


def test_weights_count_in_training_and_score() -> None:
    weights = RNG.uniform(0.1, 3.0, size=60)
    splitter = KFold(3, shuffle=True, random_state=0)
    for estimator, name in [(Ridge(), "alpha"), (make_pipeline(StandardScaler(), Ridge()), "ridge__alpha")]:
        result = tune(estimator, X, Y, space={name: Float(1.0, 50.0)}, n_trials=2, prune=False, progress=False,
                      scoring="neg_mean_squared_error", sample_weight=weights.tolist())  # fmt: skip
        alpha = result.best_params[name]
        expected = []
        for train, test in splitter.split(X):
            scaler = StandardScaler().fit(X[train]) if name != "alpha" else None
            table = X if scaler is None else scaler.transform(X)
            model = Ridge(alpha=alpha).fit(table[train], Y[train], sample_weight=weights[train])
            expected.append(-np.average((model.predict(table[test]) - Y[test]) ** 2, weights=weights[test]))
        assert result.best_score == pytest.approx(np.mean(expected))
        last = result.best_estimator if name == "alpha" else result.best_estimator[-1]
        table = X if name == "alpha" else StandardScaler().fit_transform(X)
        np.testing.assert_allclose(last.coef_, Ridge(alpha=alpha).fit(table, Y, sample_weight=weights).coef_)


def test_scoring_may_be_a_function() -> None:
    def minus_a(model: Any, X: Any, y: Any) -> float:
        return -float(model.a)

    result = toy(5, scoring=minus_a)

    assert result.best_score == -result.trials["param_a"][result.trials["state"] == "complete"].min()
    assert result.scoring == "minus_a"


def test_a_failing_trial_is_recorded_and_the_others_go_on() -> None:
    def fail(model: Toy) -> None:
        if model.b > 4:
            raise ArithmeticError(f"b is {model.b}")

    ON_FIT.append(fail)
    trials = toy(20, prune=False).trials
    failed = trials[trials["state"] == "failed"]

    assert 0 < len(failed) < 20
    assert failed["error"].tolist() == [f"ArithmeticError: b is {b}" for b in failed["param_b"]]
    assert (failed["param_b"] > 4).all()
    assert failed[["score", "fold_1"]].isna().all(axis=None)
    assert (trials["param_b"][trials["state"] == "complete"] <= 4).all()


def test_a_score_that_is_no_number_is_a_failure() -> None:
    def score(model: Any, X: Any, y: Any) -> float:
        return math.nan if model.b > 2 else 1.0

    trials = toy(12, scoring=score).trials

    assert set(trials["error"].dropna()) == {"ValueError: the score on fold 1 is nan"}


def test_if_all_fail_the_last_error_is_told() -> None:
    def fail(model: Toy) -> None:
        raise ArithmeticError("x" * 5000)

    ON_FIT.append(fail)
    with pytest.raises(
        RuntimeError, match=r"none of 3 trials was completed; the last error was ArithmeticError: x+$"
    ) as e:
        toy(3)
    assert len(str(e.value)) < 1200
    with pytest.raises(RuntimeError, match="none of 0 trials was completed; there was no time for one"):
        toy(3, timeout=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_trials": 0}, ValueError, "n_trials must be at least 1, got 0"),
        ({"sampler": "bayes"}, ValueError, "sampler must be one of 'tpe', 'random', 'grid', got 'bayes'"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"timeout": 0}, ValueError, "timeout must be in .*, got 0"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be at least 1, got 0"),
        ({"storage": "study.txt"}, ValueError, "must be a path that ends in .journal or .log, or .*, got 'study.txt'"),
        ({"sample_weight": [1.0]}, ValueError, "inconsistent numbers of samples"),
        ({"scoring": "rsme"}, ValueError, "rsme"),
    ],
)
def test_bad_argument(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        toy(**options)


def test_without_optuna_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(ImportError, match="needs Optuna, which is not installed; run: pip install 'optuna>=4'"):
        toy()


# ---------------------------------------------------------------------------------------------------------- pruning


def test_median_rule() -> None:
    """Behaviour: from the 6th trial on, whoever is below the median of those that finished the same fold stops."""
    # The 7th passes because the pruned 6th counts too, the 8th is the median itself.
    means = [5.0, 4.0, 3.0, 2.0, 1.0, 2.9, 2.97, 2.97, 1.5]  # of each trial's first fold
    values = iter(means)
    folds: dict[float, Iterator[float]] = {}

    def score(model: Any, X: Any, y: Any) -> float:
        if model.a not in folds:
            first = next(values)
            later = 99.0 if first == 2.97 else first
            folds[model.a] = iter([first, later, later])
        return next(folds[model.a])

    trials = toy(9, scoring=score, sampler="random").trials

    assert trials["state"].tolist() == ["complete"] * 5 + ["pruned", "complete", "complete", "pruned"]
    assert trials["fold_1"].tolist() == means
    assert trials["fold_2"].isna().tolist() == [False] * 5 + [True, False, False, True]
    assert trials["score"][6] == pytest.approx((2.97 + 99 + 99) / 3)


def test_the_rule_compares_means_after_the_same_fold() -> None:
    """An easy first fold does not save a trial whose second is bad, a good first saves one whose mean is still good,
    and the last fold is never cut."""
    plans = [*[[9.0, 1.0, 1.0]] * 5, [9.5, -5.0, 9.0], [9.5, 1.0, -50.0], [9.9, 0.5, 1.0]]
    folds: dict[float, Iterator[float]] = {}
    waiting = iter(plans)

    def score(model: Any, X: Any, y: Any) -> float:
        if model.a not in folds:
            folds[model.a] = iter(next(waiting))
        return next(folds[model.a])

    trials = toy(8, scoring=score, sampler="random").trials

    assert trials["state"].tolist() == ["complete"] * 5 + ["pruned", "complete", "complete"]
    assert trials["fold_2"].tolist()[5:] == [-5.0, 1.0, 0.5]
    assert math.isnan(trials["fold_3"][5])


def test_pruning_can_be_off() -> None:
    assert set(toy(25, prune=False).trials["state"]) == {"complete"}


# --------------------------------------------------------------------------------- interrupted, resumed and shared


def stop_after(n_fits: int) -> None:
    left = [n_fits]

    def count(model: Toy) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    ON_FIT.append(count)


@pytest.mark.parametrize(
    ("storage", "sampler", "n_trials"),
    [
        ("study.journal", "tpe", 16), ("deep/study.log", "grid", 12),
        pytest.param("sqlite:///{}/study.db", "random", 8, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(
    tmp_path: Path, storage: str, sampler: str, n_trials: int
) -> None:
    place = storage.format(tmp_path) if ":" in storage else tmp_path / storage
    uninterrupted = toy(n_trials, sampler=sampler)
    ON_FIT.clear()
    stop_after(2 * n_trials - 1)

    first = toy(n_trials, sampler=sampler, storage=place)
    assert first.interrupted
    same(first.trials, uninterrupted.trials[: len(first.trials)])
    assert 3 < len(first.trials) < n_trials - 1
    assert first.best_params == {name: getattr(first.best_estimator, name) for name in SPACE}

    ON_FIT.clear()
    resumed = toy(n_trials, sampler=sampler, storage=place)
    assert not resumed.interrupted
    same(resumed.trials, uninterrupted.trials)
    fits: list[Any] = []
    ON_FIT.append(fits.append)
    again = toy(n_trials, sampler=sampler, storage=place)
    same(again.trials, uninterrupted.trials)
    assert len(fits) == 1  # the best on all the data; no trial was run again


def test_interrupted_before_the_first_trial_is_done() -> None:
    stop_after(2)

    with pytest.raises(KeyboardInterrupt):
        toy()


def test_more_trials_later(tmp_path: Path) -> None:
    toy(6, storage=tmp_path / "s.log")

    same(toy(14, storage=tmp_path / "s.log").trials, toy(14).trials)


def test_only_the_same_search_may_go_on(tmp_path: Path) -> None:
    place = tmp_path / "s.journal"
    toy(2, storage=place, study_name="mine")
    toy(3, storage=place, study_name="mine", prune=False)

    others: list[tuple[dict[str, Any], str]] = [
        ({"space": {"a": Float(0.1, 1.0)}}, "space: "),
        ({"sampler": "random"}, "sampler: 'tpe, seed 0' there, 'random, seed 0' here"),
        ({"seed": 1}, "data and splits"),
        ({"cv": 4}, "data and splits"),
    ]
    for options, what in others:
        with pytest.raises(ValueError, match=f"the study 'mine' in .*s.journal was made for another search.*{what}"):
            toy(3, storage=place, study_name="mine", **options)
    with pytest.raises(ValueError, match="data and splits"):
        tune(Toy(), X + 1, Y, n_trials=2, space=SPACE, storage=place, study_name="mine")
    with pytest.raises(ValueError, match=r"estimator: 'Toy.a=1.0.*' there, 'Toy.a=2.0.*' here"):
        tune(Toy(a=2.0), X, Y, n_trials=2, space=SPACE, storage=place, study_name="mine")
    # Without a name each search has its own study.
    assert len(toy(2, storage=place).trials) == len(toy(2, storage=place, seed=1).trials) == 2


def test_data_fingerprint_sees_names_and_values() -> None:
    def facts(table: Any, target: Any = Y, **options: Any) -> str:
        from course_utils.search.objective import CrossValidated

        made = CrossValidated.of(Ridge(), table, target, cv=3, scoring=None, seed=0, **options)
        return made.facts()["data and splits"]

    frame = pd.DataFrame(X, columns=["u", "v", "w"]).assign(t="text")
    tables = [X, X[:, ::-1], X.astype(np.float32), frame, frame.rename(columns={"u": "x"}), frame.assign(t="other"),
              sparse.csr_array(X), sparse.csr_array(X + 1)]  # fmt: skip
    found = [facts(table) for table in tables]
    found += [facts(X, Y + 1), facts(X, sample_weight=np.ones(60)), facts(frame, pd.Series(Y)), facts(X, Y.astype("O"))]

    assert len(set(found)) == len(found)
    assert found[0] == facts(X.copy())
    assert found[3] == facts(frame.copy())


def test_a_grid_ends_when_it_is_done(tmp_path: Path) -> None:
    result = toy(40, sampler="grid", storage=tmp_path / "s.log", prune=False)

    cells = {(row.param_a, row.param_b, repr(row.param_c)) for row in result.trials.itertuples()}
    assert len(result.trials) == len(cells) == math.prod(len(axis) for axis in grid_axes(SPACE, 40).values())
    assert result.trials["param_b"].tolist() != sorted(result.trials["param_b"])  # in random order


def test_a_grid_larger_than_the_budget_is_visited_in_part() -> None:
    result = toy(7, sampler="grid", prune=False)

    assert len(result.trials) == 7
    assert result.trials["param_a"].nunique() == 2


CHILD = """
import math, sys, time
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from course_utils.search import Choice, Float, Int, tune
from typing import Any, Callable

X, Y = np.array({X}), np.array({Y})
SPACE = {SPACE}
ON_FIT = []
{Toy}
{toy}
{child}
child({storage!r}, {n_trials}, {sampler!r}, hang_at={hang_at}, pause={pause})
"""


def child(storage: str, n_trials: int, sampler: str, *, hang_at: int | None, pause: float) -> None:
    """What another process runs: the same search, slow, or one that hangs in a certain fit."""
    fits = [0]

    def act(model: Toy) -> None:
        fits[0] += 1
        time.sleep(pause)
        if fits[0] == hang_at:
            print("hanging", flush=True)
            time.sleep(60)

    ON_FIT.append(act)
    print("ready", flush=True)
    sys.stdin.readline()
    toy(n_trials, storage=storage, sampler=sampler, prune=False)


def start(storage: Path, n_trials: int, sampler: str, **options: Any) -> subprocess.Popen[str]:
    sources = {each.__name__: inspect.getsource(each) for each in (Toy, toy, child)}
    values = {"X": X.tolist(), "Y": Y.tolist(), "SPACE": SPACE, "hang_at": None, "pause": 0.0, **options}
    head = "from __future__ import annotations"
    code = head + CHILD.format(storage=str(storage), n_trials=n_trials, sampler=sampler, **sources, **values)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def say(process: subprocess.Popen[str], word: str) -> None:
    """Wait until the process is ready, and let it go."""
    assert process.stdout is not None
    assert process.stdin is not None
    line = process.stdout.readline()
    assert line == f"{word}\n", process.communicate()[1]
    if word == "ready":
        process.stdin.write("\n")
        process.stdin.flush()


@pytest.mark.slow
def test_processes_share_a_journal_and_survive_a_kill(tmp_path: Path) -> None:
    """Two processes share one study; a third is killed in its second trial, and nothing of the three is lost."""
    place = tmp_path / "study.journal"
    killed, *others = [
        start(place, 24, "random", hang_at=5), start(place, 24, "random", pause=0.01),
        start(place, 24, "random", pause=0.01),
    ]  # fmt: skip
    try:
        say(killed, "ready")
        say(killed, "hanging")
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        for process in others:
            say(process, "ready")
        for process in others:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert err == ""
    finally:
        for process in (killed, *others):
            process.kill()
            process.communicate()

    shared = toy(24, storage=place, sampler="random", prune=False)
    alone = toy(24, sampler="random", prune=False)

    same(shared.trials, alone.trials)  # the same 24, each once, whoever ran them
    with study.quiet():
        backend = optuna.storages.journal.JournalFileBackend(str(place))
        (name,) = optuna.get_all_study_names(optuna.storages.JournalStorage(backend))
        stored = optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))
    complete = [trial for trial in stored.trials if trial.state.name == "COMPLETE"]
    workers = {trial.user_attrs["worker"][1] for trial in complete}
    assert len(complete) == 24
    assert workers == {killed.pid, *(process.pid for process in others)}
    # Both may notice the death at the same moment and queue the trial again; the second repetition is then given back.
    repeats = [trial for trial in stored.trials if "retry_of" in trial.user_attrs]
    assert {trial.user_attrs["retry_of"] for trial in repeats} == {1}
    assert [trial.state.name for trial in repeats if trial.state.name != "FAIL"] == ["COMPLETE"]


@pytest.mark.slow
def test_killed_model_based_search_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    place = tmp_path / "study.journal"
    process = start(place, 16, "tpe", hang_at=13 * 3 + 2)
    try:
        say(process, "ready")
        say(process, "hanging")
    finally:
        process.kill()
        process.communicate()

    same(toy(16, storage=place, prune=False).trials, toy(16, prune=False).trials)


@pytest.mark.slow
def test_several_processes_of_one_call() -> None:
    space = {"alpha": Float(0.1, 1000.0, log=True)}
    options: dict[str, Any] = {"space": space, "n_trials": 9, "sampler": "random", "prune": False, "progress": False}

    same(tune(Ridge(), X, Y, n_jobs=2, **options).trials, tune(Ridge(), X, Y, **options).trials)


def queue_on(n_trials: int, sampler: str = "random") -> study.TrialQueue:
    made = optuna.create_study(
        sampler=study.make_sampler(sampler, SPACE, budget=n_trials, seed=0), direction="maximize"
    )
    return study.TrialQueue(made, n_trials)


def test_queue_hands_out_so_many_and_no_more() -> None:
    with study.quiet():
        queue = queue_on(3)
    trials = [queue.next_trial() for _ in range(3)]

    assert [trial.number for trial in trials if trial is not None] == [0, 1, 2]
    assert queue.next_trial() is None
    assert trials[1] is not None
    values = study.suggest(trials[1], SPACE)
    queue.abandon(trials[1])
    repeated = queue.next_trial()
    assert repeated is not None
    assert study.suggest(repeated, SPACE) == values
    assert queue.next_trial() is None
    queue.study.tell(repeated, 1.0)
    assert [trial.number for trial in queue.finished()] == [repeated.number]


def test_lost_trials_are_repeated_in_their_order() -> None:
    with study.quiet():
        queue = queue_on(3)
    for trial in [queue.next_trial() for _ in range(3)]:
        assert trial is not None
        queue.abandon(trial)
    repeated = [queue.next_trial() for _ in range(3)]

    assert [trial.user_attrs["retry_of"] for trial in repeated if trial is not None] == [0, 1, 2]
    assert queue.next_trial() is None


def test_queue_drops_a_trial_too_many_and_a_second_repetition() -> None:
    with study.quiet():
        queue = queue_on(2)
    first, other = queue.next_trial(), queue.next_trial()
    assert first is not None
    assert other is not None
    surplus = queue.study.ask()  # as another process would that looked a moment ago
    assert not queue._is_wanted(surplus.number)
    queue.abandon(surplus)
    queue.abandon(first)
    for _ in range(2):  # two processes notice at once
        queue.study.enqueue_trial({}, user_attrs={"retry_of": first.number})
    repeated = queue.next_trial()
    assert repeated is not None
    second = queue.study.ask()
    assert second.user_attrs["retry_of"] == first.number
    assert not queue._is_wanted(second.number)
    assert queue._is_wanted(repeated.number)


def test_a_repetition_and_what_follows_draw_as_if_there_had_been_no_break() -> None:
    with study.quiet():
        plain, broken = queue_on(4), queue_on(4)
    expected = []
    for _ in range(4):
        trial = plain.next_trial()
        assert trial is not None
        expected.append(study.suggest(trial, SPACE))
    lost = broken.next_trial()
    assert lost is not None
    broken.abandon(lost)  # before it had drawn anything
    drawn = []
    while (trial := broken.next_trial()) is not None:
        drawn.append(study.suggest(trial, SPACE))

    assert drawn == expected


def test_a_trial_taken_over_by_another_process_is_left_to_it() -> None:
    def take_over(model: Toy) -> None:
        if len(seen) == 4:
            for trial in seen[0].get_trials(states=(optuna.trial.TrialState.RUNNING,)):
                seen[0].tell(trial.number, state=optuna.trial.TrialState.FAIL)
        seen.append(seen[0])

    seen: list[Any] = []
    original = study.TrialQueue.__init__

    def remember(self: study.TrialQueue, made: Any, n_trials: int) -> None:
        original(self, made, n_trials)
        seen.append(made)

    ON_FIT.append(take_over)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.TrialQueue, "__init__", remember)
        result = toy(5, prune=False)

    same(result.trials, toy(5, prune=False).trials)


def test_dead_processes_are_told_from_living_ones() -> None:
    host, process, token = study._worker()

    assert not study._is_dead(None)
    assert not study._is_dead([host, process, token])
    assert study._is_dead([host, process, "an earlier process of the same number"])
    assert not study._is_dead([host, os.getppid(), "other"])
    assert not study._is_dead(["elsewhere", 2**22 + 1, "other"])
    assert study._is_dead([host, 2**22 + 1, "other"])  # above Linux's largest number


# --------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture(scope="module")
def result() -> TuningResult:
    return tune(Toy(), X, Y, space=SPACE, n_trials=40, sampler="random", prune=False, progress=False)


def texts(figure: Figure) -> str:
    figure.canvas.draw()
    labels: list[str] = []
    for ax in figure.axes:
        parts = [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
        labels += [part.get_text() for part in parts]
    return " | ".join(label for label in labels if label)


def test_importance_finds_what_matters(result: TuningResult) -> None:
    shares = result.importance()

    assert list(shares) == ["a", "b", "c"]
    assert shares["a"] > 0.7
    assert shares["c"] < 0.05
    assert sum(shares.values()) < 1.0
    assert shares == result.importance(seed=0) != result.importance(seed=1)


def test_importance_weighs_a_logarithmic_range_by_exponents() -> None:
    """The score falls below 1 and is flat above, where 99.9 % of the range's values lie."""
    rng = np.random.default_rng(0)
    space = {"a": Float(1e-3, 1e3, log=True), "u": Float(0.0, 1.0)}
    params = {"a": (10 ** rng.uniform(-3, 3, 80)).tolist(), "u": rng.uniform(0, 1, 80).tolist()}
    scores = np.minimum(0.0, np.log10(params["a"])) + 0.3 * np.array(params["u"])

    assert importances(params, scores, space)["a"] > 0.85


@pytest.mark.parametrize(("n", "spread", "got"), [(7, 1.0, "7 trials with 7"), (9, 0.0, "9 trials with 1")])
def test_importance_needs_something_to_explain(n: int, spread: float, got: str) -> None:
    with pytest.raises(ValueError, match=f"at least 8 complete trials with different scores, got {got} different"):
        importances({"a": np.arange(1, n + 1)}, spread * np.arange(n), {"a": Int(1, 20)})  # type: ignore[dict-item]


def test_pictures_say_what_they_show(result: TuningResult) -> None:
    importance = result.plot_importance()
    assert isinstance(importance, Axes)
    *widths, rest = [bar.get_width() for bar in importance.patches]  # type: ignore[attr-defined]
    assert widths == list(result.importance().values())
    assert rest == pytest.approx(1 - sum(widths))
    shown = texts(importance.figure)  # type: ignore[arg-type]
    assert "fANOVA of 40 trials" in shown
    assert "interactions" in shown

    slices = result.plot_slices()
    panels = [ax for ax in slices.axes if ax.get_xlabel() in SPACE]
    assert [ax.get_xlabel() for ax in panels] == list(SPACE)
    assert all(len(np.asarray(ax.collections[0].get_offsets())) == 40 for ax in panels)
    ring = np.asarray(panels[0].collections[1].get_offsets())
    np.testing.assert_allclose(ring, [[np.log10(result.best_params["a"]), result.best_score]])
    shown = texts(slices)
    assert "0.001" in shown
    assert "(1, 2)" in shown

    parallel = result.plot_parallel()
    assert "R² (higher is better)\nbest 20% of trials" in texts(parallel)
    coloured = [line for line in parallel.axes[0].lines[:40] if line.get_color() != "#CCCCCC"]
    assert len(coloured) == 8
    heights = np.asarray(coloured[-1].get_ydata(), dtype=float)  # the best is on top
    expected = [(np.log10(result.best_params["a"]) + 3) / 6, (result.best_params["b"] - 1) / 7]
    np.testing.assert_allclose(heights[:2], expected)


def test_pictures_of_an_error_take_the_smallest_for_the_best() -> None:
    space = {"u": Float(0.0, 1.0), "v": Float(0.0, 1.0)}
    params = {"u": [0.1, 0.5, 0.9, 0.3, 0.7], "v": [0.2, 0.6, 1.0, 0.4, 0.8]}
    scores, scoring = [-3.0, -1.0, -2.0, -5.0, -4.0], "neg_root_mean_squared_error"

    ring = plot_slices(params, scores, space, scoring=scoring).axes[0].collections[1]
    np.testing.assert_allclose(np.asarray(ring.get_offsets()), [[0.5, 1.0]])

    lines = plot_parallel(params, scores, space, scoring=scoring, highlight=0.4).axes[0].lines[:5]
    heights = [np.asarray(line.get_ydata())[0] for line in lines if line.get_color() != "#CCCCCC"]
    np.testing.assert_allclose(heights, [0.9, 0.5])  # the best on top


def test_history_shows_best_pruned_and_failed() -> None:
    ax = plot_history(
        [-3.0, -2.0, math.nan, -2.5, -1.0, -9.0],
        ["complete", "complete", "failed", "pruned", "complete", "complete"],
        scoring="neg_root_mean_squared_error",
    )
    drawn = {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.lines}

    np.testing.assert_allclose(drawn["best so far"][:, 1], [3.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    np.testing.assert_allclose(drawn["complete"], [[1, 3.0], [2, 2.0], [5, 1.0], [6, 9.0]])
    np.testing.assert_allclose(drawn["pruned"], [[4, 2.5]])
    np.testing.assert_allclose(drawn["failed"][:, 0], [3])
    assert ax.get_ylabel() == "RMSE (lower is better)"
    assert "1 worse not shown" in [text.get_text() for text in ax.texts]
    low, high = ax.get_ylim()
    assert low < 1.0 < 3.0 < high < 9.0


def test_history_of_a_search() -> None:
    result = toy(30, seed=2)
    ax = result.plot_history()
    drawn = {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.lines}

    assert drawn["best so far"][-1, 1] == pytest.approx(result.best_score)
    assert len(drawn["pruned"]) == (result.trials["state"] == "pruned").sum()
    assert ax.get_ylabel() == "R² (higher is better)"


def test_units() -> None:
    values, label = natural_units([-2.0], "neg_log_loss")
    assert (values.tolist(), label) == ([2.0], "log loss (lower is better)")
    assert natural_units([0.5], "accuracy")[1] == "accuracy (higher is better)"
    assert natural_units([0.5], "accuracy")[0].tolist() == [0.5]


# --------------------------------------------------------------------------------------------- samplers side by side


def test_samplers_on_the_same_budget() -> None:
    fits: list[Any] = []
    ON_FIT.append(fits.append)
    space = {"a": SPACE["a"], "b": SPACE["b"]}
    compared = compare_samplers(Toy(), X, Y, space=space, budget=16, seeds=[0, 1], cv=2)
    table = compared.table

    assert list(table.columns) == ["sampler", "seed", "trial", "score", "best_so_far", "param_a", "param_b"]
    assert table.groupby(["sampler", "seed"], sort=False)["trial"].apply(list).tolist() == [list(range(1, 17))] * 6
    assert table["sampler"].unique().tolist() == ["grid", "random", "tpe"]
    runs = {key: run.reset_index(drop=True) for key, run in table.groupby(["sampler", "seed"])}
    for run in runs.values():
        np.testing.assert_allclose(run["best_so_far"], np.maximum.accumulate(run["score"]))
    grids = [runs["grid", seed] for seed in (0, 1)]
    assert grids[0]["param_a"].tolist() != grids[1]["param_a"].tolist()
    assert set(grids[0]["score"]) == set(grids[1]["score"])
    assert runs["tpe", 0]["score"].tolist()[:10] == runs["random", 0]["score"].tolist()[:10]
    # Grid cells once for both seeds, the 10 first trials once for both samplers: 16 + 2·16 + 2·6 settings, 2 folds.
    assert len(fits) == 2 * (16 + 32 + 12)

    summary = compared.summary()
    assert summary.index.tolist() == ["grid", "random", "tpe"]
    assert summary.to_numpy()[0].tolist() == [grids[0]["score"].max()] * 3 + [16]
    ends = [runs["tpe", seed]["score"].max() for seed in (0, 1)]
    assert summary.to_numpy()[2].tolist() == pytest.approx([np.mean(ends), min(ends), max(ends), 16])
    figure = compared.plot()
    assert {"grid", "random", "tpe"} <= {text.get_text() for text in figure.axes[0].texts}


def test_splits_are_the_same_for_all_seeds() -> None:
    seen = set()

    def remember(model: Any, X: Any, y: Any) -> float:
        seen.add(float(np.sum(y)))
        return 0.0

    compare_samplers(Toy(), X, Y, space=SPACE, budget=2, seeds=[0, 1, 2], scoring=remember)

    assert len(seen) == 3


def test_a_grid_smaller_than_the_budget_is_drawn_to_its_end() -> None:
    compared = compare_samplers(Toy(), X, Y, space={"b": Int(1, 3)}, budget=8, seeds=[0], samplers=["grid", "random"])

    assert compared.summary()["trials"].tolist() == [3, 8]
    figure = plot_samplers({"grid": [[1.0, 2.0, math.nan]], "random": [[1.0, 1.0, 3.0]]}, scoring="r2")
    assert [float(np.asarray(line.get_xdata())[0]) for line in figure.axes[1].lines] == [2.0, 3.0]
    grid, random = (np.asarray(line.get_xdata()).tolist() for line in compared.plot().axes[0].lines[:2])
    assert grid == [1, 2, 3]
    assert random == list(range(1, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget must be at least 1, got 0"),
        ({"seeds": []}, r"seeds and samplers must not be empty, got \[\]"),
        ({"seeds": [-1]}, r"seeds\[0\] must be at least 0, got -1"),
        ({"samplers": ["gp"]}, "samplers must be one of 'tpe', 'random', 'grid', got 'gp'"),
    ],
)
def test_bad_comparison(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_samplers(Toy(), X, Y, **{"space": SPACE, "budget": 2, "seeds": [0], **options})


def test_comparison_without_a_complete_trial() -> None:
    def fail(model: Toy) -> None:
        raise ArithmeticError("no")

    ON_FIT.append(fail)
    with pytest.raises(RuntimeError, match="grid search completed no trial; the last error was ArithmeticError: no"):
        compare_samplers(Toy(), X, Y, space=SPACE, budget=2, seeds=[0])
