"""Tuning against scikit-learn's own search, studies that are shared, killed, cut off and resumed, and the figures."""

from __future__ import annotations

import inspect
import math
import os
import signal
import socket
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
from matplotlib import pyplot as plt
from scipy import sparse, stats
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from course_utils import search
from course_utils.search import TuningResult, plot_study, tune

optuna = pytest.importorskip("optuna")
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

mpl.use("Agg")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, -2.0, 0.5] + RNG.normal(size=60)
SPACE: dict[str, Any] = {
    "a": FloatDistribution(1e-3, 1e3, log=True),
    "b": IntDistribution(1, 8),
    "c": [None, (1, 2), "u"],
}
GRID: dict[str, Any] = {"b": IntDistribution(1, 7, step=2), "c": [None, (1, 2), "u"]}

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


# ----------------------------------------------------------------------------------------------------- tuning by folds


def test_grid_equals_scikit_learns() -> None:
    alphas = np.geomspace(0.1, 1000, 5).tolist()
    splitter = KFold(4, shuffle=True, random_state=3)
    options: dict[str, Any] = {"cv": splitter, "scoring": "neg_mean_absolute_error"}
    space: dict[str, Any] = {"alpha": alphas, "fit_intercept": CategoricalDistribution([True, False])}

    ours = tune(Ridge(), X, Y, space=space, sampler="grid", pruner=None, progress=False, **options)
    theirs = GridSearchCV(Ridge(), {"alpha": alphas, "fit_intercept": [True, False]}, **options).fit(X, Y)

    assert len(ours.trials) == 10
    assert ours.best_params == theirs.best_params_
    assert ours.best_score == pytest.approx(theirs.best_score_)
    np.testing.assert_allclose(ours.best_estimator.coef_, theirs.best_estimator_.coef_)
    np.testing.assert_allclose(np.sort(ours.trials["score"]), np.sort(theirs.cv_results_["mean_test_score"]))


@pytest.mark.parametrize(
    ("estimator", "name", "target", "splitter"),
    [
        (Ridge(), "alpha", Y, KFold(5, shuffle=True, random_state=7)),
        (LogisticRegression(), "C", Y > 0.5, StratifiedKFold(5, shuffle=True, random_state=7)),
        (make_pipeline(StandardScaler(), Ridge()), "ridge__alpha", Y, KFold(5, shuffle=True, random_state=7)),
    ],
)
def test_scores_are_those_of_cross_validation_on_the_same_folds(
    estimator: Any, name: str, target: Any, splitter: Any
) -> None:
    space = {name: FloatDistribution(0.1, 10.0)}
    result = tune(estimator, X, target, space=space, n_trials=3, cv=5, seed=7, progress=False, pruner=None)

    for _, row in result.trials.iterrows():
        expected = cross_val_score(estimator.set_params(**{name: row[f"param_{name}"]}), X, target, cv=splitter)
        np.testing.assert_allclose(row[[f"fold_{fold}" for fold in range(1, 6)]].to_numpy(float), expected)
        assert row["score"] == pytest.approx(expected.mean())


@pytest.mark.parametrize("target", [Y, (Y > 0).astype(int)])
@pytest.mark.parametrize("cv", [3, GroupKFold(3)])
def test_a_group_never_stands_on_both_sides(target: Any, cv: Any) -> None:
    groups = RNG.integers(12, size=60)
    sides: list[set[int]] = []

    def remember(model: Any, X: Any, y: Any) -> float:
        sides.append(set(X[:, 0].astype(int)))
        return 0.0

    estimator = Ridge() if target is Y else LogisticRegression()
    name = "alpha" if target is Y else "C"
    tune(estimator, np.column_stack([groups, X]), target, space={name: FloatDistribution(0.1, 1.0)}, n_trials=1, cv=cv,
         groups=groups.tolist(), scoring=remember, progress=False)  # fmt: skip

    assert len(sides) == 3
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(set(groups))


def test_cv_takes_splits_as_they_are() -> None:
    splits = [(np.arange(30, 60), np.arange(30)), (np.arange(30), np.arange(30, 60))]
    same(toy(3, cv=splits).trials, toy(3, cv=KFold(2)).trials)


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
    assert result.best_score == complete["score"].max() == result.study.best_value
    assert result.best_params == {name: getattr(result.best_estimator, name) for name in SPACE}
    assert [type(value) for value in result.best_params.values()][:2] == [float, int]
    assert result.best_estimator.fitted_ == 60
    assert trials["error"].isna().all()
    assert not result.interrupted


def test_nothing_is_changed_and_random_states_are_filled(capfd: pytest.CaptureFixture[str]) -> None:
    estimator = make_pipeline(StandardScaler(), Toy())
    verbosity = optuna.logging.get_verbosity()
    state = str(np.random.get_state())  # noqa: NPY002
    options: dict[str, Any] = {"space": {"toy__a": FloatDistribution(0.1, 1.0)}, "n_trials": 2, "seed": 5}

    result = tune(estimator, X, Y, **options)
    shown = capfd.readouterr()
    tune(estimator, X, Y, progress=False, **options)

    assert estimator.get_params()["toy__random_state"] is None
    assert result.best_estimator.get_params()["toy__random_state"] == 5
    assert tune(Toy(random_state=9), X, Y, space=SPACE, n_trials=1, progress=False).best_estimator.random_state == 9
    assert optuna.logging.get_verbosity() == verbosity
    assert str(np.random.get_state()) == state  # noqa: NPY002
    assert "trial" in shown.out
    assert shown.err == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["frame", "sparse", "list"])
def test_kinds_of_tables(kind: str) -> None:
    table = {"frame": pd.DataFrame(X), "sparse": sparse.csr_array(X), "list": X.tolist()}[kind]
    target = {"frame": pd.Series(Y, index=range(60, 120)), "sparse": Y, "list": Y.tolist()}[kind]
    options: dict[str, Any] = {"space": {"alpha": FloatDistribution(0.1, 10.0)}, "n_trials": 2, "progress": False}

    result = tune(Ridge(solver="lsqr", tol=1e-9), table, target, **options)
    expected = tune(Ridge(solver="lsqr", tol=1e-9), X, Y, **options)

    np.testing.assert_allclose(result.trials["score"], expected.trials["score"], rtol=1e-4)


def test_weights_count_in_training_and_score() -> None:
    weights = RNG.uniform(0.1, 3.0, size=60)
    plain: dict[str, Any] = {"n_trials": 2, "pruner": None, "progress": False, "scoring": "neg_mean_squared_error"}

    result = tune(make_pipeline(Ridge()), X, Y, space={"ridge__alpha": FloatDistribution(1.0, 50.0)},
                  sample_weight=weights.tolist(), **plain)  # fmt: skip
    alpha = result.best_params["ridge__alpha"]
    expected = []
    for train, test in KFold(3, shuffle=True, random_state=0).split(X):
        model = Ridge(alpha=alpha).fit(X[train], Y[train], sample_weight=weights[train])
        expected.append(-np.average((model.predict(X[test]) - Y[test]) ** 2, weights=weights[test]))

    assert result.best_score == pytest.approx(np.mean(expected))
    everything = Ridge(alpha=alpha).fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(result.best_estimator[-1].coef_, everything.coef_)


def test_a_failing_trial_is_recorded_and_the_others_go_on() -> None:
    def fail(model: Toy) -> None:
        if model.b > 4:
            raise ArithmeticError(f"b is {model.b}")

    ON_FIT.append(fail)
    trials = toy(20, pruner=None, scoring=lambda model, X, y: math.nan if model.b == 2 else -model.a).trials
    failed = trials[trials["state"] == "failed"]

    assert 0 < len(failed) < 20
    for b, error in zip(failed["param_b"], failed["error"], strict=True):
        assert error.startswith(f"ArithmeticError: b is {b}" if b > 4 else "ValueError: the score must be finite")
    assert set(trials["param_b"][trials["state"] == "complete"]) <= {1, 3, 4}
    assert failed[["score", "fold_1"]].isna().all(axis=None)


def test_if_all_fail_the_last_error_is_told() -> None:
    def fail(model: Toy) -> None:
        raise ArithmeticError("x" * 5000)

    ON_FIT.append(fail)
    with pytest.raises(RuntimeError, match=r"none of 3 trials was completed; .* ArithmeticError: x+$") as raised:
        toy(3)
    assert len(str(raised.value)) < 1200
    with pytest.raises(RuntimeError, match=r"none of 0 trials was completed; .* there was no time for a trial"):
        toy(3, timeout=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": "bayes"}, ValueError, "sampler must be one of 'tpe', 'random', 'grid', got 'bayes'"),
        ({"pruner": "hyper"}, ValueError, "pruner must be one of 'median', 'wilcoxon', got 'hyper'"),
        ({"storage": "study.txt"}, ValueError, r"ends in .journal or .log \(new, .*, got 'study.txt'"),
        ({"sampler": "grid"}, ValueError, "FloatDistribution.step must be given"),
        ({"space": {"a": (0.1, 1.0)}}, TypeError, r"space\['a'\] must be an Optuna distribution, .* got \(0.1, 1.0\)"),
        ({"space": {"alpha": [1.0]}}, ValueError, "Toy has no hyperparameter 'alpha'; it has a, b, c"),
        ({"space": {"a": []}}, ValueError, "one or more elements"),
        ({"sample_weight": [1.0]}, ValueError, "inconsistent numbers of samples"),
        ({"groups": [1.0]}, ValueError, "inconsistent numbers of samples"),
        ({"seed": -1}, ValueError, "-1"),
    ],
)
def test_bad_argument(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        toy(**options)


# ------------------------------------------------------------------------------------------------------------- options


class Twin:
    """Two of them read alike, and in every process differently."""

    def __init__(self, value: int) -> None:
        self.value = value


EQUAL = {
    "int, float": [1, 1.0],
    "int, bool": [0, False],
    "one, true": [True, 1, 1.0],
    "text, tuple": ["(1, 2)", (1, 2)],
    "text, number": ["1", 1, 1.5],
    "text, None": ["None", None],
    "tuples": [(1, 2), (1.0, 2), (True, 2)],
    "numpy": [np.int64(1), 1, np.float64(1.0), np.bool_(True)],
    "objects": [Twin(1), Twin(2)],
    "numbered": ["1: (1, 2)", "(1, 2)", (1, 2)],
}


@pytest.mark.parametrize("options", EQUAL.values(), ids=EQUAL.keys())
@pytest.mark.parametrize("storage", [None, "s.journal", "sqlite:///{}/s.db"])
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")  # Optuna's, of its own class
def test_options_that_are_equal_or_read_alike_stay_apart(
    tmp_path: Path, options: list[Any], storage: str | None
) -> None:
    """Behaviour: the best trial's very option is named, tabled and refitted, also by a resume that only reads."""
    place = None if storage is None else storage.format(tmp_path) if ":" in storage else tmp_path / storage

    def kind(option: Any) -> str:
        return f"{option.value}" if isinstance(option, Twin) else repr(option)

    for best in range(len(options)):
        scored: list[str] = []

        def score(model: Any, X: Any, y: Any, best: int = best, scored: list[str] = scored) -> float:
            scored.append(kind(model.c))
            return float(scored[-1] == kind(options[best]))

        space: dict[str, Any] = {"c": CategoricalDistribution(options) if best else options}
        for _ in range(1 if storage is None else 2):
            result = toy(9, space=space, sampler="grid", scoring=score, storage=place, study_name=f"best {best}")
            assert len(result.trials) == len(options)
            assert kind(result.best_params["c"]) == kind(result.best_estimator.c) == kind(options[best])
            assert [kind(option) for option in result.trials["param_c"]] == scored[::3]
            top = result.trials["score"] == 1.0
            assert [kind(option) for option in result.trials["param_c"][top]] == [kind(options[best])]


def test_a_study_of_equal_options_of_another_type_is_another_search(tmp_path: Path) -> None:
    place = tmp_path / "s.journal"
    toy(2, space={"b": [1, 2]}, storage=place, study_name="mine")

    for options in ([1.0, 2], ["1", "2"], [True, 2], [2, 1]):
        with pytest.raises(ValueError, match=r"made for another search.*space: "):
            toy(2, space={"b": options}, storage=place, study_name="mine")


def test_options_may_be_estimators_and_stay_as_they_are() -> None:
    scalers = [StandardScaler(), MinMaxScaler(), "passthrough"]
    space: dict[str, Any] = {"standardscaler": scalers, "ridge__alpha": IntDistribution(1, 2)}

    result = tune(
        make_pipeline(StandardScaler(), Ridge()), X, Y, space=space, n_trials=9, sampler="grid", progress=False
    )

    assert {str(scaler) for scaler in result.trials["param_standardscaler"]} == {str(scaler) for scaler in scalers}
    assert not any(hasattr(scaler, "n_features_in_") for scaler in scalers)


# ------------------------------------------------------------------------------------------- samplers and pruners


def test_same_seed_same_trials() -> None:
    once, again, other = toy(seed=1), toy(seed=1), toy(seed=2)

    same(once.trials, again.trials)
    assert once.trials["param_a"].tolist() != other.trials["param_a"].tolist()


def test_tpe_starts_as_random_search_and_then_finds_more() -> None:
    tpe, random = (toy(40, sampler=sampler, pruner=None, seed=3).trials for sampler in ("tpe", "random"))

    same(tpe[:10], random[:10])
    assert tpe["score"][10:].median() > random["score"][10:].median()
    assert random["param_a"].nunique() == 40
    assert 0.35 < ((np.log10(random["param_a"]) + 3) / 6).mean() < 0.65


def test_a_grid_is_visited_once_in_random_order_and_ends(tmp_path: Path) -> None:
    result = toy(40, space=GRID, sampler="grid", storage=tmp_path / "s.log", pruner=None)

    cells = [(row.param_b, row.param_c) for row in result.trials.itertuples()]
    assert len(cells) == len(set(cells)) == 12
    assert cells != sorted(cells, key=str)
    same(toy(5, space=GRID, sampler="grid", pruner=None).trials, result.trials[:5])
    same(toy(50, space=GRID, sampler="grid", storage=tmp_path / "s.log", pruner=None).trials, result.trials)


def test_samplers_of_optuna(tmp_path: Path) -> None:
    grid = optuna.samplers.GridSampler({"a": [0.1, 1.0, 10.0], "b": [2, 3]}, seed=0)
    space = {"a": SPACE["a"], "b": SPACE["b"]}

    result = toy(40, space=space, sampler=grid, storage=tmp_path / "s.log")
    assert result.best_params == {"a": 1.0, "b": 3}
    assert len(toy(50, space=space, sampler=grid, storage=tmp_path / "s.log").trials) == 6

    # The same seed again must not mean the same draws again.
    for n_trials in (4, 8):
        seeded = optuna.samplers.RandomSampler(seed=0)
        drawn = toy(n_trials, sampler=seeded, storage=tmp_path / "s.log", pruner=None).trials["param_a"]
    assert drawn.nunique() == 8


def plans(*scores: list[float]) -> Callable[[Any, Any, Any], float]:
    """A scoring: each trial's scores, fold by fold."""
    folds: dict[float, Iterator[float]] = {}
    waiting = iter(scores)

    def score(model: Any, X: Any, y: Any) -> float:
        if model.a not in folds:
            folds[model.a] = iter(next(waiting))
        return next(folds[model.a])

    return score


def test_median_pruner_sees_means() -> None:
    """Behaviour: from the 6th trial on, who is below the others' median mean stops; the last fold is never cut."""
    start = [[5.0, 1.0, 1.0], [4.0, 1.0, 1.0], [3.0, 3.0, 3.0], [2.0, 4.0, 4.0], [1.0, 5.0, 5.0]]  # means of two: 3
    trials = toy(9, scoring=plans(*start, [2.9, 9.0], [3.1, -5.0, -50.0], [2.0], [9.0, 9.0, -50.0])).trials

    assert trials["state"].tolist() == ["complete"] * 5 + ["pruned", "complete", "pruned", "complete"]
    assert trials["fold_2"].isna().tolist() == [False] * 5 + [True, False, True, False]


def test_wilcoxon_pruner_sees_folds() -> None:
    """Oracle: scipy. A trial stops at the first fold after which p < 0.1 against the best, whatever its folds' size."""
    best = [10.0, 1.0, 7.0, 3.0, 8.0, 2.0]
    worse = [9.9, 0.8, 6.7, 2.6, 7.5, 1.4]
    trials = toy(2, cv=6, pruner="wilcoxon", scoring=plans(best, worse)).trials

    below = np.subtract(worse, best)
    p = [stats.wilcoxon(below[:n], alternative="less").pvalue for n in range(2, 7)]
    assert [p_n < 0.1 for p_n in p] == [False, False, True, True, True]
    assert trials["state"].tolist() == ["complete", "pruned"]
    assert trials["fold_4"][1] == 2.6
    assert math.isnan(trials["fold_5"][1])


@pytest.mark.parametrize("pruner", [None, optuna.pruners.ThresholdPruner(lower=-1e9)])
def test_pruning_can_be_off_or_anothers(pruner: Any) -> None:
    assert set(toy(25, pruner=pruner).trials["state"]) == {"complete"}


# ------------------------------------------------------------------------------------ interrupted, cut off and resumed


def stop_after(n_fits: int) -> None:
    left = [n_fits]

    def count(model: Toy) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    ON_FIT.append(count)


@pytest.mark.parametrize(
    ("storage", "options", "n_trials"),
    [
        ("study.journal", {}, 16), ("deep/study.log", {"sampler": "grid", "space": GRID}, 12),
        pytest.param("sqlite:///{}/study.db", {"sampler": "random"}, 8, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(
    tmp_path: Path, storage: str, options: dict[str, Any], n_trials: int
) -> None:
    place = storage.format(tmp_path) if ":" in storage else tmp_path / storage
    uninterrupted = toy(n_trials, **options)
    stop_after(2 * n_trials - 1)

    first = toy(n_trials, storage=place, **options)
    assert first.interrupted
    same(first.trials, uninterrupted.trials[: len(first.trials)])
    assert 3 < len(first.trials) < n_trials - 1

    ON_FIT.clear()
    resumed = toy(n_trials, storage=place, **options)
    assert not resumed.interrupted
    same(resumed.trials, uninterrupted.trials)
    fits: list[Any] = []
    ON_FIT.append(fits.append)
    same(toy(n_trials, storage=place, **options).trials, uninterrupted.trials)
    assert len(fits) == 1  # the best on all the data; no trial was run again


def test_interrupted_before_the_first_trial_is_done() -> None:
    stop_after(2)

    with pytest.raises(KeyboardInterrupt):
        toy()


def test_more_trials_later(tmp_path: Path) -> None:
    toy(6, storage=tmp_path / "s.log")

    same(toy(14, storage=tmp_path / "s.log").trials, toy(14).trials)


@pytest.mark.parametrize("cut", ["half", "newline", "nothing", "letter", "zeros"])
def test_a_journal_cut_off_anywhere_goes_on(tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: killed after any line of the last two trials, or inside it, a search ends with its trials alone."""
    monkeypatch.setattr(search, "_NAMELESS_SECONDS", -1)  # no other process is at work
    whole, place = tmp_path / "whole.journal", tmp_path / "cut.journal"
    toy(4, storage=whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith(b'{"op_code":4')]
    expected = toy(5)
    for last in range(begins[2], len(lines)):
        line = lines[last]
        tails = {
            "half": line[: len(line) // 2],
            "newline": line[:-1],
            "nothing": b"",
            "letter": b'{"op_code":8,"\xe2\x82',
        }
        place.write_bytes(b"".join(lines[:last]) + tails.get(cut, line[:5] + bytes(50)))
        for _ in range(2):
            same(toy(5, storage=place).trials, expected.trials)


def test_a_journal_cut_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    place = tmp_path / "s.journal"
    for begin in (b"", b"{", b'{"op_code":0,"wor'):
        place.write_bytes(begin)
        assert len(toy(2, storage=place).trials) == 2


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "train.log"
    place.write_text("epoch 1\nepoch 2")

    with pytest.raises(ValueError, match="or such a journal"):
        toy(2, storage=place)
    assert place.read_text() == "epoch 1\nepoch 2"


def test_only_the_same_search_may_go_on(tmp_path: Path) -> None:
    place = tmp_path / "s.journal"
    toy(2, storage=place, study_name="mine")
    toy(3, storage=place, study_name="mine", pruner=None)

    others: list[tuple[dict[str, Any], str]] = [
        ({"space": {"a": FloatDistribution(0.1, 1.0)}}, "space: "),
        ({"sampler": "random"}, "sampler: 'tpe, seed 0' there, 'random, seed 0' here"),
        ({"cv": 4}, "data and splits"),
    ]
    for options, what in others:
        with pytest.raises(ValueError, match=f"the study 'mine' in .*s.journal was made for another search.*{what}"):
            toy(3, storage=place, study_name="mine", **options)
    with pytest.raises(ValueError, match=r"estimator: 'Toy.a=1.0.*' there, 'Toy.a=2.0.*' here"):
        tune(Toy(a=2.0), X, Y, n_trials=2, space=SPACE, storage=place, study_name="mine")
    backend = optuna.storages.journal.JournalFileBackend(str(place))
    optuna.create_study(study_name="theirs", storage=optuna.storages.JournalStorage(backend)).add_trial(
        create_trial(value=1.0)
    )
    with pytest.raises(ValueError, match=r"the study 'theirs'.* was made for another search"):
        toy(2, storage=place, study_name="theirs")
    # Without a name each search has its own study.
    assert len(toy(2, storage=place).trials) == len(toy(2, storage=place, seed=1).trials) == 2


def test_data_are_told_apart_by_names_and_values_alone() -> None:
    frame = pd.DataFrame(X, columns=["u", "v", "w"]).assign(t="text", i=pd.array([1, None] * 30, dtype="Int64"))
    tables = [X, X[:, ::-1], X.astype(np.float32), frame, frame.rename(columns={"u": "x"}), frame.assign(t="other"),
              frame.astype({"i": "Float64"}), sparse.csr_array(X), sparse.csr_array(X + 1)]  # fmt: skip

    def digest(table: Any) -> str:
        import joblib

        return str(joblib.hash(search._content(table)))

    found = [digest(table) for table in tables]
    for table in tables:  # what a table keeps of its use is no difference
        if isinstance(table, pd.DataFrame):
            assert len(table.loc[table.iloc[:, 0] > 0, "t"]) == (X[:, 0] > 0).sum()
            assert table.columns.get_loc("v") == 1
        elif sparse.issparse(table):
            assert table.has_canonical_format
    assert len(set(found)) == len(tables)
    assert [digest(table) for table in tables] == [digest(table.copy()) for table in tables] == found


# -------------------------------------------------------------------------------------------------------------- shared

CHILD = """
import math, sys, time
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from optuna.distributions import FloatDistribution, IntDistribution
from course_utils.search import tune
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
    toy(n_trials, storage=storage, sampler=sampler, pruner=None)


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
    """Two processes share one study; a third is killed in its second trial, in the middle of a line and with the lock
    in its hands, and nothing of the three is lost."""
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
        with place.open("ab") as file:
            file.write(b'{"op_code":7,"worker_id":"\xe2')
        Path(f"{place}.lock").touch()
        for process in others:
            say(process, "ready")
        for process in others:
            _, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
    finally:
        for process in (killed, *others):
            process.kill()
            process.communicate()

    shared = toy(24, storage=place, sampler="random", pruner=None)
    same(shared.trials, toy(24, sampler="random", pruner=None).trials)  # the same 24, each once, whoever ran them
    workers = [trial.user_attrs["worker"][1] for trial in shared.study.trials]
    assert set(workers) == {killed.pid, *(process.pid for process in others)}


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

    same(toy(16, storage=place, pruner=None).trials, toy(16, pruner=None).trials)


@pytest.mark.slow
def test_several_processes_of_one_call() -> None:
    space = {"alpha": FloatDistribution(0.1, 1000.0, log=True)}
    options: dict[str, Any] = {"space": space, "n_trials": 9, "pruner": None, "progress": False}

    named = tune(Ridge(), X, Y, n_jobs=2, sampler="random", **options)
    same(named.trials, tune(Ridge(), X, Y, sampler="random", **options).trials)
    seeded = tune(Ridge(), X, Y, n_jobs=2, sampler=optuna.samplers.RandomSampler(seed=0), **options)
    assert seeded.trials["param_alpha"].nunique() == len(seeded.trials) == 9


def test_a_trial_taken_over_by_another_process_is_left_to_it(tmp_path: Path) -> None:
    """Behaviour: who is taken for dead in the middle of a trial drops it, and the trial is run again once."""
    place = tmp_path / "s.journal"
    taken: list[int] = []

    def take_over(model: Toy) -> None:
        backend = optuna.storages.journal.JournalFileBackend(str(place))
        theirs = optuna.load_study(study_name="mine", storage=optuna.storages.JournalStorage(backend))
        if len(theirs.trials) == 3 and not taken:
            taken.append(theirs.trials[-1].number)
            search._give_back(theirs, theirs.trials[-1], SPACE)

    ON_FIT.append(take_over)
    same(toy(5, pruner=None, storage=place, study_name="mine").trials, toy(5, pruner=None).trials)
    assert taken == [2]


def test_lost_trials_are_told_from_those_under_way() -> None:
    def running(**attributes: Any) -> Any:
        return create_trial(state=TrialState.RUNNING, user_attrs=attributes)

    host = socket.gethostname()
    search._RUNNING_HERE.add("mine")
    try:
        assert not search._is_lost(running(worker=[host, os.getpid(), "mine"]))
    finally:
        search._RUNNING_HERE.discard("mine")
    assert search._is_lost(running(worker=[host, os.getpid(), "an earlier process of the same number"]))
    assert not search._is_lost(running(worker=[host, os.getppid(), "other"]))
    assert not search._is_lost(running(worker=["elsewhere", 2**22 + 1, "other"]))
    assert search._is_lost(running(worker=[host, 2**22 + 1, "other"]))  # above Linux's largest number
    assert not search._is_lost(running())  # it may be just about to name its process


# ------------------------------------------------------------------------------------------------ what the study tells


def searched(space: dict[str, Any], params: dict[str, list[Any]], scores: Any) -> TuningResult:
    study = optuna.create_study(direction="maximize")
    for row, score in enumerate(scores):
        own = {name: column[row] for name, column in params.items()}
        study.add_trial(create_trial(params=own, distributions=space, value=float(score)))
    return TuningResult({}, 0.0, None, pd.DataFrame(), study)


def test_importance_finds_what_matters() -> None:
    result = toy(40, sampler="random", pruner=None)
    shares = result.importance()

    assert list(shares) == ["a", "b", "c"]
    assert shares["a"] > 0.7
    assert shares["c"] < 0.05
    assert shares == result.importance(seed=0) != result.importance(seed=1)


def test_importance_weighs_a_logarithmic_range_by_exponents() -> None:
    """Oracle: Optuna's fANOVA of the exponents. The score is flat above 1, where 99.9 % of the range's values lie."""
    exponents, rest = RNG.uniform(-3, 3, 80), RNG.uniform(0, 1, 80)
    scores = np.minimum(0.0, exponents) + 0.3 * rest
    u = {"u": FloatDistribution(0.0, 1.0)}
    params = {"a": (10**exponents).tolist(), "u": rest.tolist()}

    shares = searched({"a": FloatDistribution(1e-3, 1e3, log=True), **u}, params, scores).importance()
    even = searched({"a": FloatDistribution(-3, 3), **u}, {**params, "a": exponents.tolist()}, scores)
    expected = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(even.study)

    assert shares["a"] > 0.85
    assert shares == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["optimization_history", "slice", "parallel_coordinate", "param_importances"])
def test_figures_are_optunas_in_the_theme_in_use(kind: str) -> None:
    result = toy(25, seed=2)
    with plt.rc_context({"axes.facecolor": "#123456"}):
        theme = dict(plt.rcParams)
        drawn = plot_study(result.study, kind)
        assert dict(plt.rcParams) == theme

    axes = list(np.ravel(drawn))
    assert axes[0].get_facecolor() == mpl.colors.to_rgba("#123456")
    if kind == "slice":
        assert [ax.get_xlabel() for ax in axes] == list(SPACE)
        assert len(axes[0].collections[0].get_offsets()) == (result.trials["state"] == "complete").sum()
