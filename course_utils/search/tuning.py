"""Search for hyperparameters by cross-validation, all trials on the same splits."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from course_utils._notebook import progress_bar
from course_utils._validation import check_int, check_one_of, check_positive
from course_utils.search import figures
from course_utils.search.importance import importances
from course_utils.search.objective import CrossValidated
from course_utils.search.spaces import Dimension, Space, check_space
from course_utils.search.study import (
    TrialQueue,
    from_labels,
    make_sampler,
    median_pruner,
    n_cells,
    open_study,
    require_optuna,
    suggest,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import Trial

__all__ = ["SAMPLERS", "Search", "TuningResult", "tune"]

SAMPLERS = ("tpe", "random", "grid")
_MAX_ERROR_LENGTH = 1000


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
        space: the search space.
        scoring: name of the score.
        interrupted: whether Ctrl-C ended the search early.
    """

    best_params: dict[str, Any]
    best_score: float
    best_estimator: Any = field(repr=False)
    trials: pd.DataFrame = field(repr=False)
    space: dict[str, Dimension] = field(repr=False)
    scoring: str
    interrupted: bool = False

    def importance(self, *, seed: int = 0) -> dict[str, float]:
        """Return each hyperparameter's share of the score's variance over the space (see `importances`)."""
        complete = self.trials[self.trials["state"] == "complete"]
        return importances(self._params(complete), complete["score"], self.space, seed=seed)

    def plot_importance(self, *, seed: int = 0, ax: Axes | None = None) -> Axes:
        """Draw `importance` as bars; read the caveats in `importances` first."""
        n_trials = int((self.trials["state"] == "complete").sum())
        return figures.plot_importance(self.importance(seed=seed), n_trials=n_trials, ax=ax)

    def plot_history(self, *, ax: Axes | None = None) -> Axes:
        """Draw every trial's score and the best so far."""
        folds = self.trials.filter(regex=r"^fold_\d+$").mean(axis=1)  # for pruned trials: of the folds they ran
        return figures.plot_history(folds, self.trials["state"].tolist(), scoring=self.scoring, ax=ax)

    def plot_slices(self) -> Figure:
        """Draw the score against each hyperparameter, one panel each."""
        complete = self.trials[self.trials["state"] == "complete"]
        return figures.plot_slices(self._params(complete), complete["score"], self.space, scoring=self.scoring)

    def plot_parallel(self) -> Figure:
        """Draw every complete trial as a line through its hyperparameters, coloured by its score."""
        complete = self.trials[self.trials["state"] == "complete"]
        return figures.plot_parallel(self._params(complete), complete["score"], self.space, scoring=self.scoring)

    def _params(self, trials: pd.DataFrame) -> dict[str, list[Any]]:
        return {name: trials[f"param_{name}"].tolist() for name in self.space}


def tune(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    space: str | Space = "default",
    n_trials: int = 30,
    cv: Any = 3,
    scoring: str | Callable[..., float] | None = None,
    sampler: str = "tpe",
    prune: bool = True,
    storage: str | os.PathLike[str] | None = None,
    study_name: str | None = None,
    timeout: float | None = None,
    n_jobs: int = 1,
    seed: int = 0,
    progress: bool = True,
    sample_weight: Any = None,
) -> TuningResult:
    """Search for the hyperparameters with the best cross-validated score, and fit the best to all the data.

    A trial fits the estimator once a fold. One that fails is recorded with its error and the search goes on. Ctrl-C
    ends the search and returns what it has so far. With a ``storage``, the same call made again goes on where the
    search stopped, whether it ended, was interrupted or killed; made in several terminals or on several machines at
    once, it shares the work. A single process makes the same trials each time, resumed or not.

    Args:
        estimator: a scikit-learn estimator or Pipeline; it is cloned and stays as it is. Each ``random_state`` that is
            ``None`` becomes ``seed``, so that trials differ in their hyperparameters alone.
        X: (n, n_features), array, DataFrame or sparse matrix.
        y: (n,) or (n, n_outputs).
        space: hyperparameter → `Float`, `Int` or `Choice`; ``step__name`` inside a Pipeline. ``"default"``: see
            `default_space`.
        n_trials: how many trials the study shall have in all, pruned and failed ones and those found in the storage
            included. A grid smaller than this ends sooner.
        cv: number of folds, shuffled by ``seed`` and stratified for classifiers; or a scikit-learn splitter, or an
            iterable of (train, test) positions.
        scoring: a scikit-learn scorer's name, or a callable (estimator, X, y) → float, greater is better; ``None`` is
            the estimator's own ``score``.
        sampler: ``"tpe"`` (10 random trials, then a model of good and bad regions), ``"random"``, or ``"grid"`` (the
            largest even grid of at most ``n_trials`` cells, in random order).
        prune: whether to stop a trial after a fold when its mean so far is below the median of the others'.
        storage: where to keep the trials: a path that ends in ``.journal`` or ``.log``, or an SQLAlchemy URL such as
            ``"sqlite:///study.db"``. ``None``: in memory.
        study_name: of the study in the storage; by default made of the call, so that another search gets another name.
        timeout: seconds after which this call begins no more trials; those under way are finished.
        n_jobs: processes that run trials at the same time; −1 is one per core. With more than one, which trials TPE
            proposes depends on who finishes first.
        seed: at least 0; for splits, sampler and estimators.
        progress: whether to show a bar on standard output.
        sample_weight: (n,), weights in training and in the score.

    Raises:
        ImportError: Optuna is not installed.
        TypeError, ValueError: an argument is wrong, or the study in the storage is of another search.
        RuntimeError: no trial was completed; the message holds the last error.
    """
    require_optuna()
    check_int(n_trials, "n_trials", minimum=1)
    check_one_of(sampler, "sampler", SAMPLERS)
    check_int(seed, "seed", minimum=0)
    if timeout is not None:
        check_positive(timeout, "timeout")
    n_jobs = (os.cpu_count() or 1) if n_jobs == -1 else check_int(n_jobs, "n_jobs", minimum=1)
    checked = check_space(space, estimator)
    evaluation = CrossValidated.of(estimator, X, y, cv=cv, scoring=scoring, seed=seed, sample_weight=sample_weight)
    search = Search(
        evaluation=evaluation, space=checked, sampler=sampler, prune=prune, seed=seed, n_trials=n_trials,
        storage=storage, name=study_name, deadline=None if timeout is None else time.time() + timeout,
    )  # fmt: skip
    trials, params, interrupted = search.run(n_jobs=n_jobs, progress=progress)
    if not (trials["state"] == "complete").any():
        if interrupted:
            raise KeyboardInterrupt
        errors = trials["error"].dropna()
        raise RuntimeError(
            f"none of {len(trials)} trials was completed; "
            + (f"the last error was {errors.iloc[-1]}" if len(errors) else "there was no time for one")
        )
    best = int(np.nanargmax(trials["score"].to_numpy(dtype=float)))
    return TuningResult(
        best_params=params[best],
        best_score=float(trials["score"][best]),
        best_estimator=evaluation.fit(params[best], slice(None)),
        trials=trials,
        space=checked,
        scoring=evaluation.scoring_name,
        interrupted=interrupted,
    )


@dataclass(frozen=True)
class Search:
    """One study and all that is needed to work on it; travels to the processes that share the work."""

    evaluation: CrossValidated
    space: dict[str, Dimension]
    sampler: str
    prune: bool
    seed: int
    n_trials: int
    storage: str | os.PathLike[str] | None = None
    name: str | None = None
    deadline: float | None = None

    def run(self, *, n_jobs: int, progress: bool) -> tuple[pd.DataFrame, list[dict[str, Any]], bool]:
        """Work until the study has its trials.

        Returns:
            The table of `TuningResult.trials`; each row's hyperparameters; whether Ctrl-C came in between.
        """
        if n_jobs == 1 or self.storage is not None:
            return self._run(n_jobs, progress)
        with tempfile.TemporaryDirectory() as folder:  # the processes meet in a file
            return replace(self, storage=Path(folder) / "study.journal")._run(n_jobs, progress)

    def work(self) -> None:
        """Run trials until the study has enough: what each process of a shared search does."""
        with self._open() as queue:
            self._work(queue)

    def _run(self, n_jobs: int, progress: bool) -> tuple[pd.DataFrame, list[dict[str, Any]], bool]:
        interrupted = False
        with self._open() as queue, _progress(queue, shown=progress, polling=n_jobs > 1) as update:
            try:
                if n_jobs == 1:
                    self._work(queue, update)
                else:
                    from joblib import Parallel, delayed

                    Parallel(n_jobs=n_jobs, backend="loky")(delayed(self.work)() for _ in range(n_jobs))
            except KeyboardInterrupt:
                interrupted = True
            return *self._results(queue), interrupted

    @contextlib.contextmanager
    def _open(self) -> Iterator[TrialQueue]:
        n_trials, kind = self.n_trials, f"{self.sampler}, seed {self.seed}"
        if self.sampler == "grid":
            n_trials = min(n_trials, n_cells(self.space, n_trials))
            kind += f", for {self.n_trials} trials"
        facts = {**self.evaluation.facts(), "space": repr(self.space), "sampler": kind}
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
        name = self.name or f"{type(self.evaluation.estimator).__name__}-{digest}"
        sampler = make_sampler(self.sampler, self.space, budget=self.n_trials, seed=self.seed)
        with open_study(self.storage, name, sampler, median_pruner(), facts) as study:
            yield TrialQueue(study, n_trials)

    def _work(self, queue: TrialQueue, on_trial: Callable[[], None] = lambda: None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        on_trial()
        while (self.deadline is None or time.time() < self.deadline) and (trial := queue.next_trial()) is not None:
            try:
                self._run_trial(queue, trial)
            except UpdateFinishedTrialError:
                pass  # another process took this one for dead, and the trial over
            except BaseException:
                queue.abandon(trial)
                raise
            on_trial()

    def _run_trial(self, queue: TrialQueue, trial: Trial) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        start, state = time.perf_counter(), TrialState.COMPLETE
        folds: list[float] = []
        try:
            for fold, score in enumerate(self.evaluation.scores(suggest(trial, self.space))):
                folds.append(score)
                trial.report(float(np.mean(folds)), fold)
                if self.prune and fold + 1 < len(self.evaluation.splits) and trial.should_prune():
                    state = TrialState.PRUNED
                    break
        except UpdateFinishedTrialError:
            raise
        except Exception as error:  # whatever an estimator may raise is a result of this trial
            state = TrialState.FAIL
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:_MAX_ERROR_LENGTH])
        trial.set_user_attr("record", {"folds": folds, "seconds": time.perf_counter() - start})
        queue.study.tell(trial, float(np.mean(folds)) if state == TrialState.COMPLETE else None, state=state)

    def _results(self, queue: TrialQueue) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
        rows, params = [], []
        n_folds = len(self.evaluation.splits)
        for number, trial in enumerate(queue.finished()):
            state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
            record = trial.user_attrs.get("record", {"folds": [], "seconds": math.nan})  # killed while it wrote
            folds = [*record["folds"], *[math.nan] * n_folds][:n_folds]
            own = from_labels(trial.params, self.space)
            row = {"trial": number, "state": state, "score": trial.value if state == "complete" else math.nan}
            row |= {f"fold_{fold}": score for fold, score in enumerate(folds, start=1)}
            row |= {"seconds": record["seconds"]}
            row |= {f"param_{name}": own.get(name) for name in self.space}
            rows.append({**row, "error": trial.user_attrs.get("error")})
            params.append(own)
        columns = ["trial", "state", "score", *(f"fold_{fold + 1}" for fold in range(n_folds)), "seconds"]
        columns += [*(f"param_{name}" for name in self.space), "error"]
        return pd.DataFrame(rows, columns=columns), params


@contextlib.contextmanager
def _progress(queue: TrialQueue, *, shown: bool, polling: bool) -> Iterator[Callable[[], None]]:
    """Show a bar of the trials; ``polling`` keeps it moving while other processes do the work."""
    if not shown:
        yield lambda: None
        return
    bar = progress_bar(queue.n_trials, "trial")

    def update() -> None:
        finished = queue.finished()
        scores = [trial.value for trial in finished if trial.state.name == "COMPLETE" and trial.value is not None]
        if scores:
            bar.set_postfix({"best score": f"{max(scores):.4g}"}, refresh=False)
        bar.update(len(finished) - bar.n)

    def poll() -> None:
        while not done.wait(0.5):
            update()

    done = threading.Event()
    watcher = threading.Thread(target=poll, daemon=True)
    if polling:
        watcher.start()
    try:
        yield update
    finally:
        done.set()
        if polling:
            watcher.join()
        bar.close()
