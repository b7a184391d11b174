"""Hyperparameter search: scikit-learn estimators and identical folds under Optuna's distributions, samplers, pruners.

`tune` is what Optuna leaves to its users: an objective by cross-validation, a study that several processes share and
that goes on after an interruption, and the best estimator. Its result holds an Optuna study, for whatever Optuna has.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import socket
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pandas as pd

from course_utils._notebook import progress_bar
from course_utils._validation import check_int, check_one_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

    Dimension = FloatDistribution | IntDistribution | list[Any]
    Space = Mapping[str, Dimension | CategoricalDistribution]

__all__ = ["TuningResult", "plot_study", "tune"]

# Short names for classes of `optuna.samplers` and `optuna.pruners`.
_SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "grid": "BruteForceSampler"}
_PRUNERS = {"median": "MedianPruner", "wilcoxon": "WilcoxonPruner"}
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
_MAX_ERROR_LENGTH = 1000
_JOURNAL_BEGINS = b'{"op_code"'
# After so long, a lock is taken from a process that was killed while it wrote (an entry takes milliseconds).
_GRACE_SECONDS = 10
# A trial that for so long has named no process has none: it was killed between its first two entries.
_NAMELESS_SECONDS = 10
# Names of what this process runs now. It tells them from what an earlier process of the same number has left, and from
# what it has itself left, interrupted at a bad moment.
_RUNNING_HERE: set[str] = set()


@dataclass(frozen=True)
class TuningResult:
    """What a search found.

    Attributes:
        best_params: hyperparameters of the best complete trial.
        best_score: its mean score over the folds, in scikit-learn's sign (greater is better, so an RMSE is negative).
            It is the best of many and therefore optimistic: judge ``best_estimator`` on data the search never saw.
        best_estimator: the estimator with these hyperparameters, fitted to all the data.
        trials: one row a trial: ``trial``, ``state`` (complete, pruned, failed), ``score`` (mean over the folds; NaN
            unless complete), ``fold_1`` … (NaN from where a trial ended), ``seconds``, ``param_NAME`` …, ``error``.
        study: the same trials as an Optuna study in memory, for `plot_study` and ``optuna.importance``. Options that
            Optuna cannot keep, or not tell apart, stand there as texts.
        interrupted: whether Ctrl-C ended the search early.
    """

    best_params: dict[str, Any]
    best_score: float
    best_estimator: Any = field(repr=False)
    trials: pd.DataFrame = field(repr=False)
    study: Study = field(repr=False)
    interrupted: bool = False

    def importance(self, *, seed: int = 0) -> dict[str, float]:
        """Return the share of the score's variance that each hyperparameter explains alone, largest first.

        Optuna's fANOVA: a random forest predicts the score; a hyperparameter's importance is the variance of the
        forest's mean over all the others, divided by the whole variance. What is missing to a sum of 1 belongs to
        interactions. It speaks of the searched space, not of the neighbourhood of the best, and after few trials
        (under about 50) it is vague; trials of random search suit it best.

        Args:
            seed: of the forest.

        Source: Hutter, Hoos & Leyton-Brown 2014. Differs from ``FanovaImportanceEvaluator().evaluate(study)``: a
        logarithmic range counts by its exponents, evenly, as it is drawn; Optuna weighs it by its values, most of which
        lie at the upper end.
        """
        import optuna
        from optuna.distributions import FloatDistribution, IntDistribution

        study = _in_memory([])
        for trial in self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
            for name, distribution in trial.distributions.items():
                if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
                    low, high = math.log10(distribution.low), math.log10(distribution.high)
                    trial.distributions[name] = FloatDistribution(low, high)
                    trial.params[name] = min(max(math.log10(trial.params[name]), low), high)
            study.add_trial(trial)
        shares: dict[str, float] = optuna.importance.FanovaImportanceEvaluator(seed=seed).evaluate(study)
        return shares


def plot_study(study: Study, kind: str, **options: Any) -> Any:
    """Draw a study by ``optuna.visualization.matplotlib.plot_KIND``, in the theme that is in use.

    Called directly, most of these functions change the theme of all later figures to ggplot's.

    Args:
        study: such as `TuningResult.study`.
        kind: ``"optimization_history"``, ``"slice"``, ``"parallel_coordinate"``, ``"param_importances"``, …
        options: for Optuna's function, such as ``target_name="accuracy"``.

    Returns:
        What that function returns: an Axes, or an array of them.
    """
    import optuna
    from matplotlib import RcParams, style

    draw = getattr(optuna.visualization.matplotlib, f"plot_{kind}")
    with mock.patch.dict(style.library, ggplot=RcParams()), _quiet():
        return draw(study, **options)


def tune(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    space: Space,
    n_trials: int = 30,
    cv: Any = 3,
    groups: Any = None,
    scoring: str | Callable[..., float] | None = None,
    sampler: str | BaseSampler = "tpe",
    pruner: str | BasePruner | None = "median",
    storage: str | os.PathLike[str] | None = None,
    study_name: str | None = None,
    timeout: float | None = None,
    n_jobs: int = 1,
    seed: int = 0,
    progress: bool = True,
    sample_weight: Any = None,
) -> TuningResult:
    """Search for the hyperparameters with the best cross-validated score, and fit the best to all the data.

    A trial fits the estimator once a fold, and all trials have the same folds. One that fails is recorded with its
    error and the search goes on. Ctrl-C ends the search and returns what it has so far. With a ``storage``, the same
    call made again goes on where the search stopped, whether it ended, was interrupted or killed; made in several
    terminals or on several machines at once, it shares the work. With a sampler given by name, a single process makes
    the same trials each time, resumed or not.

    Args:
        estimator: a scikit-learn estimator or Pipeline; it is cloned and stays as it is. Each ``random_state`` that is
            ``None`` becomes ``seed``, so that trials differ in their hyperparameters alone.
        X: (n, n_features), array, table or sparse matrix.
        y: (n,) or (n, n_outputs).
        space: hyperparameter (``step__name`` inside a Pipeline) → an Optuna distribution, such as
            ``FloatDistribution(1e-3, 10.0, log=True)``, or a list of options of any kind.
        n_trials: how many trials the study shall have in all, pruned and failed ones and those found in the storage
            included. A grid smaller than this ends sooner.
        cv: number of folds, shuffled by ``seed``, stratified for classifiers, with ``groups`` kept whole; or a
            scikit-learn splitter, or an iterable of (train, test) positions.
        groups: (n,), for the splitter: rows of the same group never stand on both sides.
        scoring: a scikit-learn scorer's name, or a callable (estimator, X, y) → float, greater is better; ``None`` is
            the estimator's own ``score``.
        sampler: ``"tpe"`` (10 random trials, then a model of good and bad regions), ``"random"``, ``"grid"`` (all
            combinations of lists, integers and steps, in random order); or a sampler of ``optuna.samplers``. Such an
            object draws as it will: seeded, it proposes other trials after a resume than without a break.
        pruner: whether to stop a bad trial after a fold: ``"median"`` (its mean so far is below the median of the
            others'), ``"wilcoxon"`` (fold by fold it is worse than the best trial, p < 0.1; takes at least 5 folds),
            ``None``, or a pruner of ``optuna.pruners``. A ``WilcoxonPruner`` sees the folds' scores, any other their
            mean so far.
        storage: where to keep the trials: a path that ends in ``.journal`` or ``.log``, or an SQLAlchemy URL such as
            ``"sqlite:///study.db"``. ``None``: in memory.
        study_name: of the study in the storage; by default made of the call, so that another search gets another name.
            What the name of a ``scoring`` function stands for is not looked at.
        timeout: seconds after which this call begins no more trials; those under way are finished.
        n_jobs: processes that run trials at the same time; −1 is one per core. With more than one, which trials TPE
            proposes depends on who finishes first.
        seed: at least 0; for splits, sampler and estimators.
        progress: whether to show a bar on standard output.
        sample_weight: (n,), weights in training and in the score.

    Raises:
        TypeError, ValueError: an argument is wrong, or the study in the storage is of another search.
        RuntimeError: no trial was completed; the message holds the last error.
    """
    from joblib import effective_n_jobs
    from sklearn.base import clone
    from sklearn.metrics import check_scoring
    from sklearn.utils import check_consistent_length, indexable

    check_int(seed, "seed", minimum=0)
    X, y, groups = indexable(X, y, groups)
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, dtype=float)
        check_consistent_length(X, sample_weight)
    estimator = clone(estimator)
    search = _Search(
        estimator=estimator,
        X=X,
        y=y,
        sample_weight=sample_weight,
        splits=_make_splits(estimator, X, y, groups, cv, seed),
        scorer=check_scoring(estimator, scoring=scoring),
        scoring=scoring if isinstance(scoring, str | None) else getattr(scoring, "__name__", "score"),
        space=_check_space(space, estimator),
        sampler=check_one_of(sampler, "sampler", _SAMPLERS) if isinstance(sampler, str) else sampler,
        pruner=check_one_of(pruner, "pruner", _PRUNERS) if isinstance(pruner, str) else pruner,
        seed=seed,
        n_trials=n_trials,
        storage=storage,
        name=study_name,
        deadline=math.inf if timeout is None else time.time() + timeout,
    )
    n_jobs = effective_n_jobs(n_jobs)
    if n_jobs == 1 or storage is not None:
        return search.run(n_jobs, progress)
    with tempfile.TemporaryDirectory() as folder:  # the processes meet in a file
        return replace(search, storage=Path(folder) / "study.journal").run(n_jobs, progress)


# ---------------------------------------------------------------------------------------------------------- the search


@dataclass(frozen=True)
class _Search:
    """All that is needed to work on a study; travels to the processes that share the work."""

    estimator: Any
    X: Any
    y: Any
    sample_weight: Any
    splits: list[tuple[Any, Any]]
    scorer: Callable[..., float]
    scoring: str | None
    space: dict[str, Dimension]
    sampler: str | BaseSampler
    pruner: str | BasePruner | None
    seed: int
    n_trials: int
    storage: str | os.PathLike[str] | None
    name: str | None
    deadline: float

    def run(self, n_jobs: int, progress: bool) -> TuningResult:
        """Work until the study has its trials."""
        interrupted = None
        with self._open() as study, progress_bar(self.n_trials, "trial", shown=progress) as bar:
            if study.get_trials(deepcopy=False):
                study.sampler.reseed_rng()
            try:
                _update(bar, study)
                for _ in self._in_turn(study) if n_jobs == 1 else self._in_processes(n_jobs):
                    _update(bar, study)
            except KeyboardInterrupt as error:
                interrupted = error
            finished = _finished(study)
        trials = self._table(finished)
        if not (trials["state"] == "complete").any():
            errors = trials["error"].dropna().tolist() or ["none, there was no time for a trial"]
            message = f"none of {len(trials)} trials was completed; the last error was {errors[-1]}"
            raise interrupted or RuntimeError(message)
        best = int(np.nanargmax(trials["score"]))
        best_params = self._params(finished[best])
        model = self._model(best_params)
        return TuningResult(
            best_params=best_params,
            best_score=float(trials["score"][best]),
            best_estimator=model.fit(self.X, self.y, **self._fit_weights(model, slice(None))),
            trials=trials,
            study=_in_memory(finished),
            interrupted=interrupted is not None,
        )

    def _in_turn(self, study: Study) -> Iterator[None]:
        while self._run_next(study):
            yield

    def _in_processes(self, n_jobs: int) -> Iterator[None]:
        from joblib import Parallel, delayed

        pool = Parallel(n_jobs=n_jobs, backend="loky", batch_size=1, return_as="generator_unordered")
        yield from pool(delayed(self._run_one)() for _ in range(self.n_trials))

    def _run_one(self) -> None:
        """Run one trial of the study, in a process of its own."""
        with self._open() as study:
            study.sampler.reseed_rng()  # a sampler that is an object came as the same copy to all processes
            self._run_next(study)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Study]:
        """Create the study, or open the one of that name."""
        import optuna

        facts = self._facts
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
        with _quiet(), _open_storage(self.storage) as storage:
            study = optuna.create_study(
                storage=storage,
                study_name=self.name or f"{type(self.estimator).__name__}-{digest}",
                sampler=None if isinstance(self.sampler, str) else self.sampler,
                pruner=_make_pruner(self.pruner),
                direction="maximize",
                load_if_exists=True,
            )
            if not study.get_trials(deepcopy=False) and "facts" not in study.user_attrs:
                study.set_user_attr("facts", facts)
            there = study.user_attrs.get("facts", {})
            changed = [key for key in facts if there.get(key) != facts[key]]
            if changed:
                described = [f"{key}: {there.get(key)!r} there, {facts[key]!r} here" for key in changed]
                raise ValueError(
                    f"the study {study.study_name!r} in {self.storage} was made for another search "
                    f"({'; '.join(described)}); its trials cannot be compared with new ones: choose another study_name"
                )
            yield study

    @functools.cached_property
    def _facts(self) -> dict[str, str]:
        """Texts that differ wherever two searches would not be comparable."""
        import joblib

        params = sorted(self.estimator.get_params(deep=True).items())
        described = ", ".join(f"{name}={value!r}" for name, value in params)
        named = isinstance(self.sampler, str)
        return {
            "estimator": _without_addresses(f"{type(self.estimator).__qualname__}({described})"),
            "data and splits": joblib.hash((_content(self.X), _content(self.y), self.sample_weight, self.splits)),
            "scoring": str(self.scoring),
            "space": _without_addresses(repr(self.space)),
            "sampler": f"{self.sampler}, seed {self.seed}" if named else type(self.sampler).__name__,
        }

    def _table(self, finished: list[FrozenTrial]) -> pd.DataFrame:
        """Return the table of `TuningResult.trials`."""
        n_folds = len(self.splits)
        records = [trial.user_attrs["record"] for trial in finished]
        folds = np.full((len(finished), n_folds), math.nan)
        for row, record in zip(folds, records, strict=True):
            row[: len(record["folds"])] = record["folds"]
        states = [_STATES[trial.state.name] for trial in finished]
        table = pd.DataFrame({"trial": range(len(finished)), "state": states})
        table["score"] = [trial.value if trial.state.name == "COMPLETE" else math.nan for trial in finished]
        for fold in range(n_folds):
            table[f"fold_{fold + 1}"] = folds[:, fold]
        table["seconds"] = [record["seconds"] for record in records]
        params = [self._params(trial) for trial in finished]
        for name, dimension in self.space.items():
            dtype = object if isinstance(dimension, list) else None  # else 1 becomes 1.0 beside 2.5, and None NaN
            table[f"param_{name}"] = pd.Series([own[name] for own in params], dtype=dtype)
        table["error"] = pd.Series([record["error"] for record in records], dtype=object)
        return table

    # ---------------------------------------------------------------------------------------------------- one trial

    def _run_next(self, study: Study) -> bool:
        """Run one more trial; return whether there was one to run."""
        from optuna.exceptions import UpdateFinishedTrialError

        token = uuid.uuid4().hex
        _RUNNING_HERE.add(token)
        trial = None
        try:
            trial = self._next_trial(study, token) if time.time() < self.deadline else None
            if trial is not None:
                self._run_trial(study, trial)
        except UpdateFinishedTrialError:
            pass  # another process took this one for dead, and the trial over
        except BaseException:
            if trial is not None:
                _give_back(study, trial, self.space)
            raise
        finally:
            _RUNNING_HERE.discard(token)
        return trial is not None

    def _next_trial(self, study: Study, token: str) -> Trial | None:
        """Return a new trial to run, or ``None`` if the study has, or is about to have, enough.

        A trial counts once it has a result: complete, pruned, or failed with an error. One that was interrupted (its
        process was killed, or Ctrl-C was pressed) is repeated with the same values; its record stays in the storage as
        failed without an error. A process that died is noticed on the same machine only, and not on Windows.
        """
        _give_back_lost(study, self.space)
        is_exhausted = getattr(self.sampler, "is_exhausted", None)  # of a GridSampler
        if self._has_enough(study) or (is_exhausted is not None and is_exhausted(study)):
            return None
        trial = study.ask()
        trial.set_user_attr("worker", [socket.gethostname(), os.getpid(), token])
        if self._has_enough(study, before=trial.number):  # another process was faster
            _give_back(study, trial, self.space)
            return None
        if isinstance(self.sampler, str):
            study.sampler = _named_sampler(self.sampler, self.seed, _place(study, trial))
        return trial

    def _has_enough(self, study: Study, before: float = math.inf) -> bool:
        limit = float(self.n_trials)
        if self.sampler == "grid":
            limit = min(limit, math.prod(_n_values(dimension) for dimension in self.space.values()))
        counted = [trial for trial in study.get_trials(deepcopy=False) if trial.number < before and _counts(trial)]
        return len(counted) >= limit

    def _run_trial(self, study: Study, trial: Trial) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.pruners import WilcoxonPruner
        from optuna.trial import TrialState

        _suggest(trial, self.space)
        params = self._params(trial)
        start = time.perf_counter()
        state = TrialState.COMPLETE
        folds: list[float] = []
        error = None
        try:
            for fold, (train, test) in enumerate(self.splits):
                folds.append(self._score(params, train, test))
                by_fold = isinstance(study.pruner, WilcoxonPruner)
                trial.report(folds[-1] if by_fold else float(np.mean(folds)), fold)
                if fold + 1 < len(self.splits) and trial.should_prune():
                    state = TrialState.PRUNED
                    break
        except UpdateFinishedTrialError:
            raise
        except Exception as problem:  # whatever an estimator may raise is a result of this trial
            state = TrialState.FAIL
            error = f"{type(problem).__name__}: {problem}"[:_MAX_ERROR_LENGTH]
        trial.set_user_attr("record", {"folds": folds, "seconds": time.perf_counter() - start, "error": error})
        _tell(study, trial.number, state, float(np.mean(folds)) if state == TrialState.COMPLETE else None)

    def _score(self, params: dict[str, Any], train: Any, test: Any) -> float:
        from sklearn.utils.metaestimators import _safe_split

        model = self._model(params)
        X_train, y_train = _safe_split(model, self.X, self.y, train)
        X_test, y_test = _safe_split(model, self.X, self.y, test, train)
        model.fit(X_train, y_train, **self._fit_weights(model, train))
        weights = {} if self.sample_weight is None else {"sample_weight": self.sample_weight[test]}
        score = float(self.scorer(model, X_test, y_test, **weights))
        if not math.isfinite(score):
            raise ValueError(f"the score must be finite, got {score}")
        return score

    def _model(self, params: dict[str, Any]) -> Any:
        """Return a fresh estimator with these hyperparameters and its random states filled."""
        from sklearn.base import clone

        model = clone(self.estimator).set_params(**clone(params, safe=False))
        unset = [
            name
            for name, value in model.get_params(deep=True).items()
            if value is None and name.rpartition("__")[2] == "random_state"
        ]
        return model.set_params(**dict.fromkeys(unset, self.seed))

    def _fit_weights(self, model: Any, rows: Any) -> dict[str, Any]:
        """Return what ``fit`` takes for the weights of these rows."""
        if self.sample_weight is None:
            return {}
        steps = getattr(model, "steps", None)  # a Pipeline hands arguments on under the step's name
        return {f"{steps[-1][0]}__sample_weight" if steps else "sample_weight": self.sample_weight[rows]}

    def _params(self, trial: Trial | FrozenTrial) -> dict[str, Any]:
        """Return a trial's hyperparameters, with the options behind what Optuna keeps (see `_kept`)."""
        params = {}
        for name, dimension in self.space.items():
            value = trial.params[name]
            if isinstance(dimension, list):
                value = dimension[int(trial.distributions[name].to_internal_repr(value))]
            params[name] = value
        return params


def _content(table: Any) -> Any:
    """Return arrays that say all about a table, without what pandas and SciPy keep in theirs while they are used."""
    from scipy import sparse

    if isinstance(table, pd.DataFrame | pd.Series):
        return pd.DataFrame(table).dtypes.to_string(), pd.util.hash_pandas_object(table).to_numpy()
    if sparse.issparse(table):
        entries = table.tocoo()
        return table.shape, entries.row, entries.col, entries.data
    # A view and its copy have the same values in another order of bytes.
    return np.ascontiguousarray(table) if isinstance(table, np.ndarray) else table


def _make_splits(estimator: Any, X: Any, y: Any, groups: Any, cv: Any, seed: int) -> list[tuple[Any, Any]]:
    from sklearn.base import is_classifier
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, check_cv

    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    if not hasattr(cv, "split") and isinstance(splitter, KFold | StratifiedKFold):  # made from a number
        stratified = isinstance(splitter, StratifiedKFold)
        if groups is None:
            kind = StratifiedKFold if stratified else KFold
        else:
            kind = StratifiedGroupKFold if stratified else GroupKFold
        splitter = kind(splitter.get_n_splits(), shuffle=True, random_state=seed)
    return list(splitter.split(X, y, groups))


# -------------------------------------------------------------------------------------------------------------- spaces


def _check_space(space: Space, estimator: Any) -> dict[str, Dimension]:
    """Return the space as a dict, options as lists, or raise an error that says what is wrong with it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    names = estimator.get_params(deep=True)
    checked: dict[str, Dimension] = {}
    for name, dimension in space.items():
        if name not in names:
            raise ValueError(f"{type(estimator).__name__} has no hyperparameter {name!r}; it has {', '.join(names)}")
        if not isinstance(dimension, FloatDistribution | IntDistribution | CategoricalDistribution | list):
            raise TypeError(
                f"space[{name!r}] must be an Optuna distribution, such as FloatDistribution(0.1, 10.0), or a list of "
                f"options, got {dimension!r}"
            )
        checked[name] = list(dimension.choices) if isinstance(dimension, CategoricalDistribution) else dimension
    return checked


def _kept(options: list[Any]) -> list[Any]:
    """Return what a study keeps in place of options: texts where Optuna takes no such objects or finds them equal.

    To Python, and so to Optuna, 1 equals 1.0 and True: the best trial ran with one and would name the other.
    """
    plain = all(option is None or isinstance(option, bool | int | float | str) for option in options)
    if plain and len(set(options)) == len(options):
        return options
    texts = [option if isinstance(option, str) else _without_addresses(repr(option)) for option in options]
    if len(set(texts)) == len(texts):
        return texts
    return [f"{number}: {text}" for number, text in enumerate(texts, start=1)]


def _without_addresses(text: str) -> str:
    """Return a ``repr`` as it reads in any process."""
    return re.sub(r" at 0x[0-9a-fA-F]+|\s+", " ", text)


def _n_values(dimension: Dimension) -> float:
    """Return how many values there are; infinity for a range without steps, which the sampler itself refuses."""
    if isinstance(dimension, list):
        return len(dimension)
    step = dimension.step
    return math.inf if step is None else round((dimension.high - dimension.low) / step) + 1


def _suggest(trial: Trial, space: Mapping[str, Dimension]) -> None:
    """Draw all hyperparameters of a trial."""
    from optuna.distributions import IntDistribution

    for name, dimension in space.items():
        if isinstance(dimension, list):
            trial.suggest_categorical(name, _kept(dimension))
        elif isinstance(dimension, IntDistribution):
            trial.suggest_int(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
        else:
            trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _make_pruner(pruner: str | BasePruner | None) -> BasePruner:
    from optuna import pruners

    if pruner is None:
        return pruners.NopPruner()
    return getattr(pruners, _PRUNERS[pruner])() if isinstance(pruner, str) else pruner


def _named_sampler(name: str, seed: int, place: int) -> BaseSampler:
    """Return a sampler whose draws depend on the seed and on the place of one trial in the study.

    Optuna's samplers begin their draws again in every process: a resumed search would propose what it has had, and
    processes that share a study the same trials.
    """
    from optuna import samplers

    own_seed = np.random.SeedSequence(seed, spawn_key=(place,)).generate_state(1)[0]
    sampler: BaseSampler = getattr(samplers, _SAMPLERS[name])(seed=int(own_seed))
    return sampler


def _origin(trial: Trial | FrozenTrial) -> int:
    """Return the number of the trial that this one repeats, or its own."""
    return int(trial.user_attrs.get("retry_of", trial.number))


def _place(study: Study, trial: Trial) -> int:
    """Return the number that a trial would have had if none had ever been interrupted."""
    origin = _origin(trial)
    earlier = [each for each in study.get_trials(deepcopy=False) if each.number < origin]
    return origin - sum("retry_of" in each.user_attrs for each in earlier)


# ------------------------------------------------------------------------------------------------------------- studies


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial has a result, or is about to have one."""
    if trial.state.name == "FAIL":
        return trial.user_attrs.get("record", {}).get("error") is not None
    return trial.state.name in ("COMPLETE", "PRUNED") or (
        trial.state.name == "RUNNING" and "worker" in trial.user_attrs
    )


def _finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that have a result, in the order in which they were first begun."""
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and _counts(trial)]
    return sorted(finished, key=_origin)


def _tell(study: Study, number: int, state: TrialState, value: float | None = None) -> None:
    # The samplers of grids call `study.stop()` at their end, for which only `study.optimize` is prepared.
    with contextlib.suppress(RuntimeError):
        study.tell(number, value, state=state)


def _give_back(study: Study, trial: Trial | FrozenTrial, space: Space) -> None:
    """End a trial without a result, and queue its repetition.

    One that was ended while its hyperparameters were drawn has them all drawn again: a sampler that is given some of
    them would draw others for the rest.
    """
    from optuna.trial import TrialState

    _tell(study, trial.number, TrialState.FAIL)
    params = trial.params if len(trial.params) == len(space) else {}
    study.enqueue_trial(params, user_attrs={"retry_of": _origin(trial)})


def _give_back_lost(study: Study, space: Space) -> None:
    """Give back the trials whose process has died."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_lost(trial):
            with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # another process was first
                _give_back(study, trial, space)


def _is_lost(trial: FrozenTrial) -> bool:
    """Whether the process that runs a trial is known to be gone."""
    if "worker" not in trial.user_attrs:
        started = trial.datetime_start or datetime.min
        return (datetime.now() - started).total_seconds() > _NAMELESS_SECONDS
    host, process, token = trial.user_attrs["worker"]
    if host != socket.gethostname() or os.name == "nt":  # there, signal 0 would not ask but interrupt
        return False
    if process == os.getpid():
        return token not in _RUNNING_HERE
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, under another user
        pass
    return False


def _in_memory(trials: list[FrozenTrial]) -> Study:
    import optuna

    with _quiet():
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="maximize")
        study.add_trials(trials)
    return study


def _update(bar: Any, study: Study) -> None:
    """Show how many trials are finished, and the best score."""
    finished = _finished(study)
    scores = [trial.value for trial in finished if trial.state.name == "COMPLETE" and trial.value is not None]
    if scores:
        bar.set_postfix({"best score": f"{max(scores):.4g}"}, refresh=False)
    bar.update(len(finished) - bar.n)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's information lines, and its notes on what is experimental, to itself; its warnings stay."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _open_storage(storage: str | os.PathLike[str] | None) -> Iterator[BaseStorage]:
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if storage is None:
        yield InMemoryStorage()
        return
    text = os.fspath(storage)
    if "://" in text:
        database = RDBStorage(text)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()
        return
    path = Path(text)
    begins = b""
    if path.exists():
        with path.open("rb") as file:
            begins = file.read(len(_JOURNAL_BEGINS))
    if path.suffix not in (".journal", ".log") or not _JOURNAL_BEGINS.startswith(begins):
        raise ValueError(
            "storage must be a path that ends in .journal or .log (new, or such a journal), or a database URL such as "
            f"sqlite:///study.db, got {text!r}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    lock: Any = _MendingLock(text)
    yield JournalStorage(JournalFileBackend(text, lock_obj=lock))


class _MendingLock:
    """Optuna's lock around each writing to a journal, which first takes away what a killed process left of a line.

    Optuna would append the next entry to the half line, and then never read the journal again.
    """

    def __init__(self, path: str) -> None:
        from optuna.storages.journal import JournalFileOpenLock

        self._path = path
        # Optuna's default lock is a symbolic link, which Windows lets only administrators make.
        self._lock = JournalFileOpenLock(path, grace_period=_GRACE_SECONDS)

    def acquire(self) -> bool:
        self._lock.acquire()
        with open(self._path, "r+b") as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()
