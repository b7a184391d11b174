"""Model comparison: identical splits, failures, crashes, interruptions, the cache, the backends, the conclusion."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import FitFailedWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import GroupKFold, KFold, RepeatedKFold, RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from course_utils.evaluation import comparison
from course_utils.evaluation.comparison import compare_models, fingerprint
from course_utils.evaluation.execution import FitCache, Job, Outcome
from course_utils.evaluation.ranks import critical_difference
from course_utils.evaluation.results import Comparison, format_number
from course_utils.evaluation.statistics import corrected_resampled_ttest

compare = functools.partial(compare_models, progress=False, backend="sequential")
ERRORS = ["dataset", "model", "repeat", "fold", "score", "error"]


def line_data(n: int = 60, noise: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A linear regression problem."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, X @ np.array([2.0, -1.0, 0.5]) + noise * rng.normal(size=n)


class Base(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predicts the mean; subclasses spoil something."""

    def fit(self, X: Any, y: Any) -> Base:
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        return np.full(len(X), self.mean_)


class Fails(Base):
    """Raises in ``fit`` if the mean of y is above the limit."""

    def __init__(self, limit: float = -np.inf) -> None:
        self.limit = limit

    def fit(self, X: Any, y: Any) -> Base:
        if np.mean(y) > self.limit:
            raise ArithmeticError("no\n  luck")
        return super().fit(X, y)


class FailsToPredict(Base):
    def predict(self, X: Any) -> NDArray[np.float64]:
        return super().predict(X) * np.nan


class Counts(Base):
    """Writes a line for every fit, and is interrupted by the user before fit number ``interrupt``."""

    def __init__(self, log: str, interrupt: int = -1) -> None:
        self.log = log
        self.interrupt = interrupt

    def fit(self, X: Any, y: Any) -> Base:
        done = fits(self.log)
        if done == self.interrupt:
            raise KeyboardInterrupt
        Path(self.log).write_text("fit\n" * (done + 1), encoding="utf-8")
        return super().fit(X, y)


def fits(log: str | Path) -> int:
    return Path(log).read_text(encoding="utf-8").count("fit") if Path(log).exists() else 0


class KillsItsProcess(Base):
    """Kills the process that fits it, the first time only (while the file does not exist) or always."""

    def __init__(self, mark: str, always: bool = False) -> None:
        self.mark = mark
        self.always = always

    def fit(self, X: Any, y: Any) -> Base:
        if self.always or not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)


class KnowsItsSeed(Base):
    """Predicts its ``random_state``."""

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def predict(self, X: Any) -> NDArray[np.float64]:
        assert self.random_state is not None
        return np.full(len(X), float(self.random_state))


# ---------------------------------------------------------------------------------------------- splits and scores


def test_scores_equal_scikit_learns_on_the_same_splits() -> None:
    X, y = line_data()
    models = {"ridge": Ridge(), "tree": DecisionTreeRegressor(random_state=3)}

    result = compare((X, y), models, repeats=2, seed=7)

    cv = RepeatedKFold(n_splits=5, n_repeats=2, random_state=7)
    for name, model in models.items():
        expected = -cross_val_score(model, X, y, cv=cv, scoring="neg_root_mean_squared_error")
        np.testing.assert_allclose(result.scores()[name], expected)
    assert (result.metric, result.lower_is_better) == ("RMSE", True)
    assert list(result.table.columns) == [
        "dataset", "model", "repeat", "fold", "score", "fit_seconds", "predict_seconds", "error"
    ]  # fmt: skip
    assert len(result.table) == 20
    assert list(result.scores().index) == [(repeat, fold) for repeat in range(2) for fold in range(5)]
    assert (result.table[["fit_seconds", "predict_seconds"]] > 0).all().all()
    assert result.test_fractions["data"] == pytest.approx(0.2)


def test_classifiers_are_scored_by_accuracy_on_stratified_folds() -> None:
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]  # labels may be strings
    model = make_pipeline(StandardScaler(), LogisticRegression())

    result = compare((pd.DataFrame(X), pd.Series(names)), {"logistic": model, "dummy": DummyClassifier()}, cv=3)

    cv = RepeatedStratifiedKFold(n_splits=3, n_repeats=1, random_state=0)
    np.testing.assert_allclose(result.scores()["logistic"], cross_val_score(model, X, names, cv=cv))
    assert (result.metric, result.lower_is_better) == ("accuracy", False)
    assert list(result.summary().loc["data"].index) == ["logistic", "dummy"]
    assert result.conclusion().startswith("logistic is better than dummy by 0.6")


@pytest.mark.parametrize(
    ("scoring", "metric", "lower", "sign"),
    [
        ("r2", "R²", False, 1),
        ("neg_mean_absolute_error", "MAE", True, -1),
        ("neg_median_absolute_error", "median absolute error", True, -1),
        (make_scorer(mean_absolute_error, greater_is_better=False), "mean absolute error", True, -1),
        ("explained_variance", "explained variance", False, 1),
    ],
)
def test_errors_are_shown_in_natural_units(scoring: Any, metric: str, lower: bool, sign: int) -> None:
    X, y = line_data()

    result = compare((X, y), {"ridge": Ridge(), "dummy": DummyRegressor()}, scoring=scoring)

    cv = RepeatedKFold(n_splits=5, n_repeats=1, random_state=0)
    np.testing.assert_allclose(result.scores()["ridge"], sign * cross_val_score(Ridge(), X, y, cv=cv, scoring=scoring))
    assert (result.metric, result.lower_is_better) == (metric, lower)
    assert result.summary().index[0] == ("data", "ridge")  # the better one comes first, whichever way that is
    assert result.paired("ridge", "dummy").mean > 0


def test_splitters_and_lists_of_splits_are_taken_as_they_are() -> None:
    X, y = line_data(30)
    groups = np.arange(30) % 3
    pairs = list(GroupKFold(3).split(X, y, groups))
    masks = [(np.isin(np.arange(30), train), np.isin(np.arange(30), test)) for train, test in pairs]
    expected = -cross_val_score(Ridge(), X, y, cv=pairs, scoring="neg_root_mean_squared_error")

    for cv in (pairs, iter(pairs), masks):
        np.testing.assert_allclose(compare((X, y), {"ridge": Ridge()}, cv=cv).scores()["ridge"], expected)

    repeated = compare((X, y), {"ridge": Ridge()}, cv=RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)).table
    assert repeated[["repeat", "fold"]].to_numpy().tolist() == [[r, f] for r in range(2) for f in range(3)]


def test_sparse_matrices_lists_and_tables_give_the_same_scores() -> None:
    X, y = line_data()
    models = {"line": LinearRegression()}
    expected = compare((X, y), models).scores()

    for data in ((X.tolist(), y.tolist()), (pd.DataFrame(X, index=range(100, 160)), pd.Series(y)), (X, y[:, None])):
        pd.testing.assert_frame_equal(compare(data, models).scores(), expected)
    pd.testing.assert_frame_equal(compare((sparse.coo_array(X), y), models).scores(), expected, rtol=1e-3)


def test_a_random_state_of_none_is_seeded_by_split_and_one_that_is_set_stays() -> None:
    X, y = line_data()
    y = 0 * y
    models = {"free": KnowsItsSeed(), "inside": make_pipeline(KnowsItsSeed()), "fixed": KnowsItsSeed(5)}

    first, again, other = (compare((X, y), models, repeats=2, seed=seed).scores() for seed in (0, 0, 1))

    pd.testing.assert_frame_equal(first, again)
    assert (first["fixed"] == 5).all()
    assert first["free"].nunique() == 10
    assert (first["free"] == first["inside"]).all()
    assert not set(first["free"]) & set(other["free"])
    assert models["free"].random_state is None


def test_models_are_not_changed() -> None:
    X, y = line_data()
    model = make_pipeline(StandardScaler(), Ridge())
    compare((X, y), {"ridge": model})

    assert not hasattr(model[0], "mean_")


# ------------------------------------------------------------------------------------------------------- failures


def test_a_model_that_fails_is_reported_and_the_others_go_on() -> None:
    X, y = line_data()
    with pytest.warns(
        FitFailedWarning, match=r"5 of 15 fits failed, the first of them 'broken': ArithmeticError: no l"
    ):
        result = compare((X, y), {"broken": Fails(), "ridge": Ridge(), "dummy": DummyRegressor()})

    errors = result.table.set_index("model")["error"]
    assert set(errors["broken"]) == {"ArithmeticError: no luck"}
    assert set(errors[["ridge", "dummy"]]) == {""}
    assert result.scores()["broken"].isna().all()
    assert result.table.loc[result.table["model"] == "broken", "predict_seconds"].isna().all()
    assert list(result.summary().loc["data"].index) == ["ridge", "dummy", "broken"]
    assert result.summary()["failed"].tolist() == [0, 0, 5]
    text = result.conclusion()
    assert "broken is left out: 5 of 5 fits failed (ArithmeticError: no luck)." in text
    assert "for" not in text.split("t-test")[1].split(")")[0]  # one comparison needs no adjustment
    assert repr(result) == "<Comparison of 3 models on 1 data sets, 15 fits, 5 failed>"


def test_a_model_that_fails_on_some_splits_is_not_ranked() -> None:
    X, y = line_data()
    y = y - y.mean()
    with pytest.warns(FitFailedWarning):
        result = compare((X, y), {"some": Fails(limit=0.0), "dummy": DummyRegressor(), "ridge": Ridge()})

    failed = int(result.scores()["some"].isna().sum())
    assert result.summary()["failed"].tolist() == [0, 0, failed]
    assert 0 < failed < 5
    assert f"some is left out: {failed} of 5 fits failed" in result.conclusion()
    assert "than some" not in result.conclusion()
    assert result.paired("ridge", "some").df == 5 - failed - 1  # the common splits


def test_a_score_that_is_not_finite_is_a_failure() -> None:
    X, y = line_data()
    with pytest.warns(FitFailedWarning):
        result = compare((X, y), {"nan": FailsToPredict()})
    assert result.table["error"].str.contains("Input contains NaN").all()  # scikit-learn's words
    assert result.conclusion().startswith("No comparison is possible: fewer than two models")

    with pytest.warns(FitFailedWarning, match="the score must be finite, got inf"):
        result = compare((X, y), {"ridge": Ridge()}, scoring=lambda model, X, y: np.inf)
    assert (result.table[["fit_seconds", "predict_seconds"]] > 0).all().all()


# ---------------------------------------------------------------------------------------------- cache, interruption


def test_an_interrupted_comparison_resumes_where_it_was(tmp_path: Path) -> None:
    X, y = line_data()
    log, cache = tmp_path / "log", tmp_path / "deep" / "cache"
    models: dict[str, Any] = {"ridge": Ridge(), "counts": Counts(str(log), interrupt=2)}

    with pytest.raises(KeyboardInterrupt) as caught:
        compare((X, y), models, cache=cache)
    assert caught.value.__notes__ == [f"5 of 10 fits were finished; the same call goes on from {cache}"]
    assert len(list(cache.glob("*.json"))) == 5

    log.write_text("", encoding="utf-8")
    models["counts"].interrupt = 99  # a parameter: the fits of `counts` are other ones now
    resumed = compare((X, y), models, cache=cache)
    assert fits(log) == 5
    assert len(list(cache.glob("*.json"))) == 3 + 5 + 2 + 2

    log.write_text("", encoding="utf-8")
    again = compare((X, y), {"under another name": models["counts"], **models}, cache=cache)
    assert fits(log) == 0
    pd.testing.assert_frame_equal(
        resumed.table, again.table.query("model != 'under another name'").reset_index(drop=True)
    )


def test_an_interruption_without_a_cache_says_what_is_lost(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        compare(line_data(), {"counts": Counts(str(tmp_path / "log"), interrupt=2)})
    assert caught.value.__notes__ == ["2 of 5 fits were finished; without cache= they are lost"]


def test_the_resumed_fits_are_those_that_were_missing(tmp_path: Path) -> None:
    log, cache = tmp_path / "log", tmp_path / "cache"
    model = {"counts": Counts(str(log))}
    whole = compare(line_data(), model, cache=cache)
    kept = sorted(cache.iterdir())
    for path in kept[:2]:
        path.unlink()

    log.write_text("", encoding="utf-8")
    resumed = compare(line_data(), model, cache=cache)

    assert fits(log) == 2
    pd.testing.assert_frame_equal(whole.table[ERRORS], resumed.table[ERRORS])
    assert sorted(cache.iterdir()) == kept


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"score"', '"scores"'),
        lambda text: text.replace('"score": ', '"score": NaN, "old": '),
        lambda text: text.replace('"score": ', '"score": "x", "old": '),
        lambda text: text.replace('"key": "', '"key": "0'),
        lambda text: "[1, 2]",
        lambda text: "\udcff",
    ],
)
def test_a_damaged_file_gives_a_warning_and_its_fit_is_made_again(tmp_path: Path, spoil: Any) -> None:
    data, models = line_data(), {"ridge": Ridge()}
    whole = compare(data, models, cache=tmp_path)
    path = next(tmp_path.iterdir())
    good = path.read_text(encoding="utf-8")
    path.write_bytes(spoil(good).encode("utf-8", "surrogateescape"))

    with pytest.warns(UserWarning, match=r"cache file .* is damaged .*; its fit is made again"):
        again = compare(data, models, cache=tmp_path)

    pd.testing.assert_frame_equal(whole.table[ERRORS], again.table[ERRORS])
    assert json.loads(path.read_text(encoding="utf-8"))["score"] == json.loads(good)["score"]


def test_cache_files_say_what_they_are_and_hold_no_pickle(tmp_path: Path) -> None:
    compare(line_data(), {"ridge": Ridge()}, cv=2, cache=tmp_path)
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()]

    assert sorted(entry["fold"] for entry in entries) == [0, 1]
    assert {(entry["dataset"], entry["model"], entry["repeat"]) for entry in entries} == {("data", "ridge", 0)}
    assert {path.stem for path in tmp_path.iterdir()} == {entry["key"] for entry in entries}


def test_failed_fits_are_not_kept(tmp_path: Path) -> None:
    with pytest.warns(FitFailedWarning):
        compare(line_data(), {"broken": Fails()}, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_cache_and_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.warns(UserWarning, match="could not be written .*No space left"):
        result = compare(line_data(), {"ridge": Ridge()}, cache=tmp_path)

    assert result.scores().notna().all().all()
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_what_decides_a_result_decides_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = line_data()
    base: dict[str, Any] = {"data": (X, y), "models": {"ridge": Ridge()}, "cv": 2}

    def new_files(**changes: Any) -> int:
        before = len(list(tmp_path.iterdir()))
        compare(**base | changes, cache=tmp_path)
        return len(list(tmp_path.iterdir())) - before

    changed_x, changed_y = X.copy(), y.copy()
    changed_x[0, 0] += 1e-9
    changed_y[-1] += 1e-9
    assert new_files() == 2
    assert new_files() == 0
    assert new_files(data={"another name": (X.copy(), y.copy())}) == 0
    assert new_files(data=(np.asfortranarray(X), y)) == 0
    assert new_files(data=(changed_x, y)) == 2
    assert new_files(data=(X, changed_y)) == 2
    assert new_files(data=(X.astype(np.float32), y)) == 2
    assert new_files(data=(pd.DataFrame(X, columns=["a", "b", "c"]), y)) == 2
    assert new_files(data=(pd.DataFrame(X, columns=["a", "b", "d"]), y)) == 2
    assert new_files(models={"ridge": Ridge(alpha=2.0)}) == 2
    assert new_files(models={"ridge": LinearRegression()}) == 2
    assert new_files(seed=1) == 2
    assert new_files(scoring="r2") == 2
    assert new_files(cv=3) == 3
    monkeypatch.setattr(comparison, "_version", lambda package: "0.0")
    assert new_files() == 2


def test_seed_of_a_model_decides_the_key_even_on_the_same_splits(tmp_path: Path) -> None:
    for seed in (0, 1):
        compare(line_data(), {"tree": DecisionTreeRegressor()}, cv=KFold(2), seed=seed, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


# --------------------------------------------------------------------------------------------------- fingerprints


def double(x: float) -> float:
    return 2 * x


def scale_by(factor: float) -> Any:
    return lambda x: factor * x


class Holder:
    """An object without ``get_params``."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


DIFFERENT: list[Any] = [
    None, True, 1, 1.0, "1", b"1", np.int64(1), np.float64(1), np.float32(1), [1], (1,), {1}, {1: 1}, [1, [2]],
    [[1, 2]], ["ab", "c"], ["a", "bc"],
    np.array([1, 2]), np.array([[1, 2]]), np.array([1.0, 2.0]), np.array(["a", None]),
    np.array([]), np.array(1), pd.Series([1, 2]), pd.Series([1, 2], name="b"), pd.Series([1, 2], index=[1, 2]),
    pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]}), pd.Series(["a", "b"], dtype="category"),
    pd.Series(["b", "a"], dtype="category"), pd.Series([1, None], dtype="Int64"), pd.Series(["a", "b"]),
    pd.Series(pd.to_datetime(["2020-01-01"])), pd.Series(pd.to_datetime(["2020-01-01"], utc=True)),
    sparse.csr_array(np.eye(2)), sparse.csr_array(2 * np.eye(2)), Ridge(), Ridge(alpha=2), LinearRegression(),
    make_pipeline(Ridge()), make_pipeline(Ridge(2)), GaussianProcessRegressor(RBF(1.0)),
    GaussianProcessRegressor(RBF(2.0)), Ridge, LinearRegression, double, np.mean, np.exp, np.log, len, sum,
    scale_by(2.0), scale_by(3.0), lambda x: x + 1, lambda x: x + 2, functools.partial(double, 1),
    functools.partial(double, 2), Holder(1), Holder(2), Slotted(1), Slotted(2), Path("a"), Path("b"),
    np.random.RandomState(0), np.random.RandomState(1), np.random.default_rng(0), np.random.default_rng(1), KFold(2),
    KFold(3), "x".join, Holder(1).get, Holder(2).get, np.dtype("f4"), np.dtype("f8"), range(3), slice(3), json,
]  # fmt: skip


def test_fingerprints_of_different_things_differ() -> None:
    digests = [fingerprint(value) for value in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)
    assert len({fingerprint(1, 2), fingerprint([1, 2]), fingerprint(2, 1), fingerprint(12), fingerprint()}) == 5


def test_fingerprints_of_equal_content_are_equal() -> None:
    X, y = line_data()
    assert fingerprint(Ridge().fit(X, y)) == fingerprint(Ridge())
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a", "b", "c"}) == fingerprint({"c", "b", "a"})
    assert fingerprint(scale_by(2.0)) == fingerprint(scale_by(2.0))
    assert fingerprint(X[::2]) == fingerprint(X[::2].copy())
    for value in DIFFERENT[:45]:
        assert fingerprint(pickle.loads(pickle.dumps(value))) == fingerprint(value)


def test_fingerprint_follows_cycles_and_tensors() -> None:
    def walk(n: int) -> int:
        return walk(n - 1) if n else 0

    looped: list[Any] = [1]
    looped.append(looped)
    assert len({fingerprint(walk), fingerprint(looped), fingerprint([1, [1]])}) == 3
    assert fingerprint(torch.nn.Linear(2, 1)) != fingerprint(torch.nn.Linear(2, 1))  # other weights
    assert fingerprint(torch.ones(2)) == fingerprint(torch.ones(2))


def test_an_edited_method_changes_the_fingerprint() -> None:
    def make(step: int) -> type:
        class Edited(Base):
            def predict(self, X: Any) -> NDArray[np.float64]:
                return super().predict(X) + step

        return Edited

    def inherit(parent: type) -> type:
        class Child(parent):  # type: ignore[misc]
            pass

        return Child

    assert fingerprint(make(1)()) == fingerprint(make(1)())
    assert fingerprint(make(1)()) != fingerprint(make(2)())
    assert fingerprint(inherit(make(1))()) != fingerprint(inherit(make(2))())


@settings(deadline=None, max_examples=50)
@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_fingerprint_depends_on_content_alone(value: Any) -> None:
    assert fingerprint(value) == fingerprint(pickle.loads(pickle.dumps(value)))
    assert fingerprint(value) != fingerprint([value])


def test_content_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"cache: models\['odd'\] cannot be told from others: <unlocked .* has no content"
    ):
        compare(line_data(), {"odd": Ridge(alpha=threading.Lock())}, cache=tmp_path)


# ------------------------------------------------------------------------------------------------- worker processes


@pytest.fixture
def by_value() -> Iterator[None]:
    """Send this module's estimators as code, so that workers need not import all that this file imports."""
    module = sys.modules[__name__]
    libraries = []
    for name in ("joblib.externals.cloudpickle", "cloudpickle"):  # joblib carried its own copy before 1.6
        with contextlib.suppress(ImportError):
            libraries.append(importlib.import_module(name))
    for library in libraries:
        library.register_pickle_by_value(module)
    yield
    for library in libraries:
        library.unregister_pickle_by_value(module)


@pytest.mark.slow
def test_loky_survives_killed_workers_and_equals_sequential(tmp_path: Path, by_value: None) -> None:
    X, y = line_data()
    models: dict[str, Any] = {
        "ridge": Ridge(),
        "once": KillsItsProcess(str(tmp_path / "mark")),
        "always": KillsItsProcess("", always=True),
        "lock": Fails(limit=threading.Lock()),  # type: ignore[arg-type]  # no process can be sent a lock
        "tree": DecisionTreeRegressor(),
    }
    arguments: dict[str, Any] = {"cv": 2, "progress": False, "cache": None}

    with pytest.warns(FitFailedWarning, match="4 of 10 fits failed"):
        loky = compare_models((X, y), models, n_jobs=2, **arguments)

    assert (tmp_path / "mark").exists()
    good = {name: models[name] for name in ("ridge", "once", "tree")}
    sequential = compare_models((X, y), good, **arguments)  # the mark is there: nobody dies
    pd.testing.assert_frame_equal(loky.scores()[list(good)], sequential.scores())
    errors = loky.table.set_index("model")["error"]
    assert errors["always"].str.contains("TerminatedWorkerError.*SIGKILL").all()
    assert errors["lock"].str.contains("ickl").all()


@pytest.fixture
def cluster(by_value: None) -> Iterator[Any]:
    """Two worker processes on the loopback interface, without a web page."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.enable_socket
def test_dask_loses_nothing_when_a_worker_process_is_killed(cluster: Any, tmp_path: Path) -> None:
    X, y = line_data()
    mark = tmp_path / "mark"
    models = {
        "ridge": Ridge(), "once": KillsItsProcess(str(mark)), "broken": Fails(), "tree": DecisionTreeRegressor(),
        "lock": Fails(limit=threading.Lock()),  # type: ignore[arg-type]
    }  # fmt: skip
    workers = set(cluster.scheduler_info()["workers"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        on_cluster = compare_models((X, y), models, backend="dask", progress=False)  # the client made last
    assert [str(one.message) for one in seen if one.category is not FitFailedWarning] == []

    assert mark.exists()
    assert set(cluster.scheduler_info()["workers"]) != workers  # one was killed
    with pytest.warns(FitFailedWarning):
        sequential = compare_models((X, y), models, backend="sequential", progress=False)
    ran = on_cluster.table["model"] != "lock"
    pd.testing.assert_frame_equal(on_cluster.table.loc[ran, ERRORS], sequential.table.loc[ran, ERRORS])
    assert on_cluster.table.loc[~ran, "error"].str.contains("ickl").all()


def test_dask_without_a_client_is_an_error() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="backend='dask' needs a client: pass client=, or first make one"):
        compare_models(line_data(), {"ridge": Ridge()}, backend="dask")


def test_dask_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'mlp-course-utils\[scale\]'"):
        compare_models(line_data(), {"ridge": Ridge()}, backend="dask")


# ------------------------------------------------------------------------------------------- statistics and words


def made_up(
    scores: dict[str, dict[str, list[float]]], *, lower: bool = True, errors: dict[str, str] | None = None
) -> Comparison:
    """A comparison of given scores: data set → model → score of each split; ``errors``: model → its error."""
    rows = [
        (dataset, model, 0, fold, score, 0.1, 0.01, (errors or {}).get(model, "") if np.isnan(score) else "")
        for dataset, models in scores.items()
        for model, values in models.items()
        for fold, score in enumerate(values)
    ]
    columns = ["dataset", "model", "repeat", "fold", "score", "fit_seconds", "predict_seconds", "error"]
    return Comparison(pd.DataFrame(rows, columns=columns), "RMSE", lower, dict.fromkeys(scores, 0.2))


A, B, C = [3.0, 3.1, 2.9, 3.2, 3.0], [4.0, 4.2, 3.9, 4.1, 4.1], [3.1, 3.0, 3.0, 3.1, 3.1]


def test_paired_is_the_corrected_test_of_the_advantage() -> None:
    difference = np.subtract(B, A)
    for lower in (True, False):
        result = made_up({"d": {"A": A, "B": B}}, lower=lower)
        expected = corrected_resampled_ttest(difference if lower else -difference, test_fraction=0.2, level=0.9)
        assert result.paired("A", "B", level=0.9) == expected
        assert result.paired("B", "A").mean == -result.paired("A", "B").mean

    with pytest.raises(ValueError, match="'A' and 'B' have 1 splits on which both succeeded; a test needs 2"):
        made_up({"d": {"A": [1.0, np.nan], "B": [2.0, 2.0]}}).paired("A", "B")
    with pytest.raises(ValueError, match="model must be one of 'A', 'B', got 'Z'"):
        result.paired("A", "Z")


def test_conclusion_names_the_best_and_what_it_cannot_be_told_from() -> None:
    # t over 5 differences with variance factor 1/5 + 1/4; Holm over the three pairs.
    result = made_up({"boston": {"B": B, "A": A, "C": C}})
    assert result.conclusion() == (
        "On boston, A is better than B by 1.02 RMSE (95% CI 0.864 to 1.18, p < 0.001); A and C can't be told apart "
        "(difference 0.0200 RMSE, 95% CI −0.184 to 0.224, p = 0.8). (Corrected resampled t-test over 5 "
        "splits, p adjusted by Holm's method for 3 comparisons, intervals not.)"
    )
    test = corrected_resampled_ttest(np.subtract(B, A), test_fraction=0.2)
    assert (f"{test.low:.3f}", f"{test.high:.2f}") == ("0.864", "1.18")


def test_conclusion_with_a_baseline_adjusts_for_fewer_comparisons() -> None:
    text = made_up({"data": {"B": B, "A": A, "C": C}}).conclusion(baseline="B", level=0.9)
    assert text.startswith("B is worse than A by 1.02 RMSE (90% CI 0.900 to 1.14, p < 0.001)")
    assert " and than C by 1.00 RMSE (90% CI 0.825" in text
    assert text.endswith("p adjusted by Holm's method for 2 comparisons, intervals not.)")

    # One comparison, no adjustment; accuracies, so that the signs turn.
    up = made_up({"data": {"A": A, "B": B}}, lower=False).conclusion(baseline="A")
    assert up.startswith("A is worse than B by 1.02 RMSE (95% CI 0.864 to 1.18, p < 0.001). (Corrected")
    assert "Holm" not in up


def test_the_best_is_compared_with_all_pairs_in_mind() -> None:
    # 0.05/3 < p < 0.05: enough for the one comparison planned beforehand, not for one that the scores chose.
    a, b, c = [3.0, 3.5, 2.9, 3.2, 3.0], [3.6, 3.8, 3.5, 3.4, 3.7], [3.6, 3.8, 3.5, 3.4, 3.71]
    result = made_up({"data": {"a": a, "b": b, "c": c}})
    assert 0.05 / 3 < result.paired("a", "b").p_value < 0.05
    assert "a and b can't be told apart" in result.conclusion()
    assert "a is better than b" in made_up({"data": {"a": a, "b": b}}).conclusion()


def test_no_spread_and_single_splits_are_said_to_be_so() -> None:
    same = made_up({"data": {"A": A, "B": [a + 1 for a in [3.0, 3.0, 3.0, 3.0, 3.0]], "C": [3.0] * 5}})
    assert "C and B can't be told apart (difference 1.00 RMSE, the same on every split" in same.conclusion(baseline="C")
    twins = made_up({"data": {"A": A, "B": A}}).conclusion()
    assert twins.startswith("A and B can't be told apart (difference 0.00 RMSE, 95% CI 0.00 to 0.00, p = 1).")
    assert made_up({"d": {"A": [1.0], "B": [2.0]}}).conclusion() == (
        "On d no comparison is possible: there is a single split."
    )
    failed = made_up({"data": {"A": A, "B": B, "C": [np.nan] * 5}}, errors={"C": "E: x"})
    assert failed.conclusion(baseline="C") == (
        "No comparison is possible: the baseline C did not finish every split. "
        "C is left out: 5 of 5 fits failed (E: x)."
    )


def datasets(n: int, models: str = "ABC") -> dict[str, dict[str, list[float]]]:
    """A is the best on every data set, B the second, and so on."""
    rng = np.random.default_rng(0)
    return {f"d{i}": {name: list(rng.normal(place, 0.1, 3)) for place, name in enumerate(models)} for i in range(n)}


def test_few_data_sets_are_not_ranked() -> None:
    lines = made_up(datasets(5)).conclusion().split("\n")
    assert len(lines) == 6
    assert [line[:6] for line in lines[:5]] == [f"On d{i}," for i in range(5)]
    assert lines[5] == "Over all: 5 data sets on which every model finished are too few to rank models by (at least 6)."
    assert made_up(datasets(5)).conclusion("d3") == lines[3]


def test_enough_data_sets_are_ranked_by_friedman_and_nemenyi() -> None:
    scores = datasets(6)
    means = pd.DataFrame({name: {m: np.mean(v) for m, v in row.items()} for name, row in scores.items()}).T
    expected = critical_difference(means, higher_is_better=False)
    last = made_up(scores).conclusion().split("\n")[-1]
    assert last.startswith(
        "Over all: mean ranks over 6 data sets (1 is best): A 1.00, B 2.00, C 3.00. Friedman's test, p"
    )
    assert f"critical difference of {expected.cd:.2f} (Nemenyi) these can't be told apart: A and B; B and C." in last
    up = made_up(scores, lower=False).conclusion().split("\n")[-1]
    assert "C 1.00, B 2.00, A 3.00" in up

    mixed = {name: dict(zip("ABC", np.roll(list(row.values()), i, axis=0).tolist(), strict=True))
             for i, (name, row) in enumerate(scores.items())}  # fmt: skip
    assert made_up(mixed).conclusion().endswith("p = 1: it does not tell the models apart.")
    scores["d0"]["C"][0] = np.nan
    assert "5 data sets on which every model finished" in made_up(scores, errors={"C": "E: x"}).conclusion()


def test_two_models_are_ranked_by_the_sign_test() -> None:
    # Exact: 2·0.5⁶ = 0.031 for six wins of six, 0.22 for five of six.
    scores = datasets(6, "AB")
    assert made_up(scores).conclusion().split("\n")[-1] == (
        "Over all: A is better on 6 of 6 data sets, B on 0; the sign test tells them apart (p = 0.031)."
    )
    assert "A is better on 0 of 6 data sets, B on 6" in made_up(scores, lower=False).conclusion()
    scores["d0"] = {"A": scores["d0"]["B"], "B": scores["d0"]["A"]}
    assert made_up(scores).conclusion().endswith("B on 1; the sign test does not tell them apart (p = 0.22).")


def test_summary_has_the_interval_of_the_corrected_variance() -> None:
    line: Any = made_up({"d": {"A": A, "B": [1.0, *[np.nan] * 4]}}, errors={"B": "E: x"}).summary(level=0.9)
    test = corrected_resampled_ttest(A, test_fraction=0.2, level=0.9)
    row = line.loc[("d", "A")]
    assert row["mean"] == pytest.approx(np.mean(A))
    assert row["std"] == pytest.approx(np.std(A, ddof=1))
    assert (row["low"], row["high"]) == (test.low, test.high)
    assert (row["fit_seconds"], row["predict_seconds"], row["failed"]) == (0.1, 0.01, 0)
    assert line.loc[("d", "B"), "failed"] == 4
    assert np.isnan(line.loc[("d", "B"), "low"])
    incomplete = made_up({"d": {"A": A, "C": C, "B": [1.0, *[np.nan] * 4]}}, errors={"B": "E: x"})
    assert [name for _, name in incomplete.summary().index] == ["A", "C", "B"]  # B's one lucky split does not lead
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 95"):
        made_up({"d": {"A": A}}).summary(level=95)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (3.14159, "3.14"), (-0.05, "−0.0500"), (1234.5, "1234"), (2.5e7, "2.50e+07"),
     (3e-9, "3.00e−09"), (0.999, "0.999"), (0.9999, "1.00"), (float("nan"), "–")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert format_number(value) == text


def test_picture_shows_points_intervals_differences_and_times() -> None:
    result = made_up({"boston": {"B": B, "A": A, "C": C, "D": [np.nan] * 5}}, errors={"D": "E: x"})
    figure = result.plot()
    left, middle, right = figure.axes
    try:
        figure.canvas.draw()
        assert [label.get_text() for label in left.get_yticklabels()] == ["A", "C", "B", "D"]
        drawn = [sorted(np.asarray(line.get_xdata(), dtype=float)) for line in left.get_lines()]
        assert sorted(A) in drawn
        low, high = result.summary().loc[("boston", "A"), ["low", "high"]]
        assert [low, high] in drawn
        verdict = result.paired("A", "B")
        gains = [np.asarray(line.get_xdata(), dtype=float) for line in middle.get_lines()]
        assert any(np.array_equal(sorted(g), sorted([-verdict.high, -verdict.low])) for g in gains)
        assert any(len(g) == 5 and np.allclose(g, np.subtract(A, B)) for g in gains)  # worse: left of 0
        assert {text.get_text() for text in middle.texts} == {"reference", "not compared"}
        assert "lower is better" in left.get_xlabel()
        assert {text.get_text() for text in right.texts} >= {"A", "B", "C"}
        assert right.get_xscale() == "log"
        assert figure.get_suptitle() == "boston"
    finally:
        plt.close(figure)
    higher = made_up({"data": {"B": B, "A": A}}, lower=False).plot(baseline="A")
    assert "higher is better" in higher.axes[0].get_xlabel()
    assert "over A" in higher.axes[1].get_xlabel()
    assert higher.get_suptitle() == ""
    plt.close(higher)


# ------------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": {}}, TypeError, "models must be a non-empty mapping from names to estimators, got {}"),
        ({"models": [Ridge()]}, TypeError, "models must be a non-empty mapping"),
        (
            {"models": {"a": Ridge}},
            TypeError,
            r"models\['a'\] must be an estimator with fit and get_params, got <class",
        ),
        ({"models": {"a": Ridge(), "b": LogisticRegression()}}, ValueError, r"all classifiers or none, got .*\['b'\]"),
        ({"data": {}}, ValueError, "data must hold at least one data set"),
        ({"data": np.zeros((3, 2))}, TypeError, r"data must be \(X, y\) or a mapping .* got ndarray"),
        ({"data": {"d": line_data()[0]}}, TypeError, "got ndarray at 'd'"),
        ({"data": (np.zeros((3, 2)), [1.0, 2.0])}, ValueError, r"inconsistent numbers of samples: \[3, 2\]"),
        ({"data": (np.zeros((3, 2)), [1.0, np.nan, 2.0])}, ValueError, "Input y contains NaN"),
        ({"cv": 1}, ValueError, "cv must be at least 2, got 1"),
        ({"cv": 61}, ValueError, "Cannot have number of splits n_splits=61 greater than the number of samples"),
        ({"cv": "5"}, TypeError, "cv must be a number of folds, a splitter, or for one data set a list"),
        ({"cv": 2.5}, TypeError, "cv must be a number of folds"),
        ({"cv": []}, ValueError, "cv must give at least one split, got none"),
        ({"cv": [([0, 1], [60])]}, ValueError, r"cv: test must lie in \[0, 60\), got 60 to 60"),
        ({"cv": [([-1, 1], [2])]}, ValueError, r"cv: train must lie in \[0, 60\), got -1 to 1"),
        ({"cv": [([0.5, 1], [2])]}, ValueError, "cv: train must be row numbers of shape"),
        ({"cv": [([], [2])]}, ValueError, "cv: train must be row numbers"),
        (
            {"cv": KFold(3), "repeats": 2},
            ValueError,
            "repeats must be 1 unless cv is a number of folds, got 2 with cv=KF",
        ),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
        ({"scoring": "rmse"}, ValueError, "'rmse' is not a valid scoring value"),
        ({"scoring": 3}, TypeError, "scoring must be a scorer's name, a callable or None, got 3"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be at least 1, or -1 for one per processor, got 0"),
        ({"n_jobs": -2}, ValueError, "n_jobs must be at least -1, got -2"),
        ({"n_jobs": 1.5}, TypeError, "n_jobs must be an integer, got 1.5"),
        ({"backend": "threads"}, ValueError, "backend must be one of 'loky', 'dask', 'sequential', got 'threads'"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"data": line_data(), "models": {"ridge": Ridge()}}
    with pytest.raises(error, match=message):
        compare(**good | changes)


def test_a_list_of_splits_needs_a_single_data_set() -> None:
    with pytest.raises(TypeError, match="for one data set a list of splits"):
        compare({"a": line_data(), "b": line_data()}, {"ridge": Ridge()}, cv=[([0, 1], [2])])


def test_names_of_data_sets_are_checked() -> None:
    result = compare({"a": line_data(), "b": line_data(seed=1)}, {"ridge": Ridge(), "dummy": DummyRegressor()})
    assert result.datasets == ["a", "b"]
    assert result.models == ["ridge", "dummy"]
    assert result.scores("b").equals(compare(line_data(seed=1), {"ridge": Ridge(), "dummy": DummyRegressor()}).scores())
    with pytest.raises(ValueError, match="dataset must be one of 'a', 'b', got None"):
        result.scores()
    with pytest.raises(ValueError, match="dataset must be one of 'a', 'b', got 'c'"):
        result.plot("c")
    with pytest.raises(ValueError, match="baseline must be one of 'ridge', 'dummy', got 'x'"):
        result.conclusion("a", baseline="x")


def test_the_bar_is_text_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = load_diabetes(return_X_y=True)
    compare_models((X, y), {"ridge": Ridge()}, cv=2)
    assert "/2 [" in capsys.readouterr().out
    compare_models((X, y), {"ridge": Ridge()}, cv=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_outcomes_travel_and_jobs_are_values(tmp_path: Path) -> None:
    job = Job("d", "m", 0, 1, 2, Ridge(), 3)
    store = FitCache(tmp_path)
    store.save("ab", Outcome(-1.5, 0.1, 0.2), job)
    assert store.load("ab") == Outcome(-1.5, 0.1, 0.2)
    assert store.load("cd") is None
