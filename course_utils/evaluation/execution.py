"""Run many independent fits: here, in worker processes or on a cluster; and keep what is finished on disk."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from course_utils._validation import check_one_of

__all__ = ["BACKENDS", "FitCache", "Job", "Outcome", "SplitData", "failure", "find_client", "fit_and_score", "run_jobs"]

Rows: TypeAlias = NDArray[np.int64]

BACKENDS = ("loky", "dask", "sequential")


@dataclass(frozen=True)
class SplitData:
    """A data set and how it is split.

    Attributes:
        X: (n, n_features), array, sparse matrix or DataFrame.
        y: (n,) or (n, n_outputs).
        splits: row numbers to train and to test on, a pair for each split.
    """

    X: Any
    y: Any
    splits: Sequence[tuple[Rows, Rows]]


@dataclass(frozen=True)
class Job:
    """One fit to be made.

    Attributes:
        dataset: name of the data.
        model: name of the estimator.
        split: position in the data's ``splits``.
        repeat: to which the split belongs.
        fold: number of the split in its repeat.
        estimator: unfitted; whoever runs the job fits a clone of it.
        state: for every ``random_state`` of the clone, nested ones too, that is ``None``.
    """

    dataset: str
    model: str
    split: int
    repeat: int
    fold: int
    estimator: Any
    state: int


@dataclass(frozen=True)
class Outcome:
    """What came of a fit.

    Attributes:
        score: as the scorer returns it (greater is better), NaN if the fit failed.
        fit_seconds: wall time of ``fit``.
        predict_seconds: wall time of predicting and scoring the test part.
        error: type and text of what went wrong, empty if nothing did.
    """

    score: float
    fit_seconds: float
    predict_seconds: float
    error: str = ""


def failure(error: BaseException, fit_seconds: float = math.nan, predict_seconds: float = math.nan) -> Outcome:
    """Return the outcome that records an error, its text on one line."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Outcome(math.nan, fit_seconds, predict_seconds, text)


def fit_and_score(job: Job, X: Any, y: Any, train: Rows, test: Rows, scorer: Callable[..., float]) -> Outcome:
    """Fit a clone on the training rows and score it on the test rows; whatever it raises becomes the outcome's error.

    Args:
        job: whose estimator is cloned and seeded.
        X: see `SplitData`.
        y: see `SplitData`.
        train: row numbers.
        test: row numbers.
        scorer: called as ``scorer(fitted, X_test, y_test)``.
    """
    from sklearn.base import clone

    start = time.perf_counter()
    fit_seconds = math.nan
    try:
        model, X_train, y_train = fill_random_states(clone(job.estimator), job.state), _rows(X, train), _rows(y, train)
        start = time.perf_counter()
        model.fit(X_train, y_train)
        fit_seconds = time.perf_counter() - start
        del X_train, y_train  # a second copy of most of the data, while the test part is copied too
        X_test, y_test = _rows(X, test), _rows(y, test)
        start = time.perf_counter()
        score = float(scorer(model, X_test, y_test))
        predict_seconds = time.perf_counter() - start
        if not math.isfinite(score):
            raise ValueError(f"the score must be finite, got {score}")
    except Exception as error:  # one model must not take the others down with it
        if math.isnan(fit_seconds):
            return failure(error, fit_seconds=time.perf_counter() - start)
        return failure(error, fit_seconds=fit_seconds, predict_seconds=time.perf_counter() - start)
    return Outcome(score, fit_seconds, predict_seconds)


def fill_random_states(estimator: Any, state: int) -> Any:
    """Set every ``random_state`` that is None, nested ones too, and return the estimator."""
    unset = {
        name: state
        for name, value in estimator.get_params(deep=True).items()
        if value is None and name.rpartition("__")[2] == "random_state"
    }
    return estimator.set_params(**unset) if unset else estimator


def _rows(table: Any, rows: Rows) -> Any:
    return table.iloc[rows] if hasattr(table, "iloc") else table[rows]


# -------------------------------------------------------------------------------------------------------- backends


def run_jobs(
    jobs: Sequence[Job],
    data: Mapping[str, SplitData],
    scorer: Callable[..., float],
    *,
    backend: str,
    n_jobs: int,
    client: Any = None,
) -> Generator[tuple[Job, Outcome], None, None]:
    """Run the jobs and yield each with its outcome as soon as it is there, in the order in which they end.

    A job whose worker process dies is run again (``"loky"``: alone in a fresh process, twice at most, so that it drags
    no other job down; ``"dask"``: as the scheduler's ``allowed-failures`` says); if it kills those too, its outcome
    records the death. Closing the generator ends what still runs.

    Args:
        jobs: what to run.
        data: name → data and splits, for every name that a job gives.
        scorer: see `fit_and_score`.
        backend: ``"sequential"`` runs in this process; ``"loky"`` in ``n_jobs`` processes of this machine, which share
            large arrays through memory-mapped files (in this process if ``n_jobs`` is 1); ``"dask"`` on the workers
            of ``client``, to each of which the data go once. The scheduler keeps a copy, from which they come back
            if the workers that hold them die.
        n_jobs: number of processes, at least 1.
        client: a ``distributed.Client``; by default the one made last.

    Raises:
        ImportError: ``backend="dask"`` and dask.distributed is not installed.
        ValueError: unknown backend, or ``backend="dask"`` without a client.
    """
    check_one_of(backend, "backend", BACKENDS)
    if backend == "dask":
        return _run_dask(jobs, data, scorer, find_client(client))
    if backend == "loky" and n_jobs > 1:
        return _run_loky(jobs, data, scorer, n_jobs)
    return ((job, fit_and_score(*_arguments(job, data, scorer))) for job in jobs)


def _arguments(job: Job, data: Mapping[str, SplitData], scorer: Callable[..., float]) -> tuple[Any, ...]:
    shared = data[job.dataset]
    return (job, shared.X, shared.y, *shared.splits[job.split], scorer)


def _numbered(number: int, *arguments: Any) -> tuple[int, Outcome]:
    return number, fit_and_score(*arguments)


def _run_loky(
    jobs: Sequence[Job], data: Mapping[str, SplitData], scorer: Callable[..., float], n_jobs: int
) -> Generator[tuple[Job, Outcome], None, None]:
    from joblib import Parallel, delayed

    def tasks(numbers: Sequence[int], started: set[int]) -> Iterator[Any]:
        for number in numbers:
            started.add(number)
            yield delayed(_numbered)(number, *_arguments(jobs[number], data, scorer))

    waiting = list(range(len(jobs)))
    while waiting:
        started: set[int] = set()
        # No job waits inside the pool: if a worker dies, what is started and not finished was running.
        pool = Parallel(n_jobs, backend="loky", return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1)
        results = pool(tasks(list(waiting), started))
        try:
            for number, outcome in results:
                waiting.remove(number)
                yield jobs[number], outcome
            return
        except Exception as error:  # a worker died, or a task could not be sent: joblib gives up the whole pool
            suspects = [number for number in waiting if number in started]
            if not suspects:
                raise RuntimeError(f"the worker processes failed before the first fit: {error}") from error
        finally:
            with warnings.catch_warnings():  # closed early, by an interruption: what is lost is run again next time
                warnings.simplefilter("ignore")
                results.close()
        while suspects:
            number = suspects.pop(0)
            waiting.remove(number)
            # Twice: the pool may have broken for another job, before this one had died for the first time.
            for _ in range(2):
                try:  # n_jobs=1 would run in this process, which must survive
                    ((_, outcome),) = Parallel(2, backend="loky", batch_size=1)(tasks([number], started))
                    break
                except Exception as error:
                    outcome = failure(error)
            else:
                # What the same model does on other splits is no better: those do not go back to the pool.
                alike = [other for other in waiting if _same_model(jobs[number], jobs[other])]
                suspects += [other for other in alike if other not in suspects]
            yield jobs[number], outcome


def _same_model(a: Job, b: Job) -> bool:
    return (a.dataset, a.model) == (b.dataset, b.model)


def find_client(client: Any) -> Any:
    """Return the dask client given, or the one made last.

    Raises:
        ImportError: dask.distributed is not installed.
        ValueError: there is no client.
    """
    try:
        from distributed import default_client
    except ImportError as error:
        message = "backend='dask' needs dask.distributed: pip install 'mlp-course-utils[scale]'"
        raise ImportError(message) from error
    if client is not None:
        return client
    try:
        return default_client()  # type: ignore[no-untyped-call]
    except ValueError:
        raise ValueError(
            "backend='dask' needs a client: pass client=, or first make one with dask.distributed.Client(...)"
        ) from None


def _run_dask(
    jobs: Sequence[Job], data: Mapping[str, SplitData], scorer: Callable[..., float], client: Any
) -> Generator[tuple[Job, Outcome], None, None]:
    import dask
    from distributed import as_completed
    from distributed.protocol import pickle

    waiting = []
    for job in jobs:
        try:  # the client would fail for all jobs, without saying which one it is
            pickle.dumps(job.estimator)  # type: ignore[no-untyped-call]
        except Exception as error:
            yield job, failure(error)
        else:
            waiting.append(job)
    # The data go to the scheduler once, as the arguments of a task: unlike what is scattered, which dies with the
    # workers that hold it, a task's result is made again. The workers pass it on among themselves. The limit on the
    # size of a graph, which warns of data sent with every task, would warn of just this.
    names = dict.fromkeys(job.dataset for job in waiting)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        shared = {name: client.submit(_held, data[name], pure=False) for name in names}
    running = {client.submit(_fit_held, job, shared[job.dataset], scorer, pure=False): job for job in waiting}
    try:
        finished: Any = as_completed(list(running), with_results=True, raise_errors=False)  # type: ignore[no-untyped-call]
        for future, result in finished:
            # Else the scheduler gave the fit up, which killed worker after worker, or somebody cancelled it.
            outcome = result if future.status == "finished" else failure(_reason(future))
            yield running.pop(future), outcome
    finally:
        if running:
            client.cancel(list(running))


def _held(data: SplitData) -> SplitData:
    return data


def _fit_held(job: Job, data: SplitData, scorer: Callable[..., float]) -> Outcome:
    return fit_and_score(job, data.X, data.y, *data.splits[job.split], scorer)


def _reason(future: Any) -> BaseException:
    try:
        return future.exception() or RuntimeError(f"the cluster ended the fit as {future.status!r}")
    except Exception as error:  # asking a cancelled future raises
        return error


# ----------------------------------------------------------------------------------------------------------- cache


class FitCache:
    """A folder with one small JSON file for each finished fit, named by a key that covers all that decides it.

    Files are written under another name and renamed, so that a process killed while writing leaves none half done,
    and several processes may share the folder. What is read is data, never code. Failed fits are not kept: they are
    tried again.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """Return where the fit of this key is kept."""
        return self.folder / f"{key}.json"

    def load(self, key: str) -> Outcome | None:
        """Return the outcome kept under this key, or ``None``; a damaged file counts as none and gives a warning."""
        try:
            text = self.path(key).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            self._warn_damaged(key, error)
            return None
        try:
            entry = json.loads(text)
            if entry["key"] != key:
                raise ValueError(f"it holds the key {entry['key']}")
            numbers = [entry["score"], entry["fit_seconds"], entry["predict_seconds"]]
            if not all(type(number) is float and math.isfinite(number) for number in numbers):
                raise ValueError(f"score and seconds are {numbers}")
        except (ValueError, KeyError, TypeError) as error:  # JSONDecodeError is a ValueError
            self._warn_damaged(key, error)
            return None
        return Outcome(*numbers)

    def _warn_damaged(self, key: str, error: Exception) -> None:
        message = f"cache file {self.path(key)} is damaged ({type(error).__name__}: {error}); its fit is made again"
        warnings.warn(message, stacklevel=4)

    def save(self, key: str, outcome: Outcome, job: Job) -> None:
        """Keep an outcome; if the disk refuses, warn and go on, since the result itself is not in danger.

        Args:
            key: hexadecimal digits, other ones for every other fit.
            outcome: of a fit that did not fail.
            job: what the fit was, for readers of the file.
        """
        about = {"dataset": job.dataset, "model": job.model, "repeat": job.repeat, "fold": job.fold}
        entry = {"key": key, **about, **asdict(outcome)}
        try:
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(entry, file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path(key))
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            warnings.warn(f"the cache {self.folder} could not be written ({error})", stacklevel=2)
