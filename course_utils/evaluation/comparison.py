"""Compare models on identical splits: `compare_models`, and what its result allows one to say."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from enum import Enum
from importlib import metadata
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from course_utils._notebook import progress_bar
from course_utils._validation import check_int, check_one_of
from course_utils.evaluation.execution import BACKENDS, FitCache, Job, Outcome, SplitData, find_client, run_jobs
from course_utils.evaluation.results import Comparison

__all__ = ["Comparison", "compare_models", "fingerprint"]

_SHORT = {"root_mean_squared_error": "RMSE", "mean_squared_error": "MSE", "mean_absolute_error": "MAE", "r2": "R²"}
# Whose releases may change a result; those of an estimator's own package come with its class.
_VERSIONED = ("numpy", "scipy", "pandas", "scikit-learn", "torch")


def compare_models(
    data: tuple[Any, Any] | Mapping[str, tuple[Any, Any]],
    models: Mapping[str, Any],
    *,
    cv: Any = 5,
    repeats: int = 1,
    scoring: str | Callable[..., float] | None = None,
    n_jobs: int = 1,
    backend: str = "loky",
    client: Any = None,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Fit and score every model on the same splits of every data set.

    A fit that raises is recorded with its error, and the others go on; one that takes its worker process down is run
    again on its own. With ``cache=`` every finished fit is on disk at once, so that the same call after an
    interruption, a crash or with one more model makes only the fits that are missing; failed fits are tried again.
    The times of a fit that comes from the cache are those of the run that made it.

    An estimator's ``random_state`` that is ``None`` gets its value from ``seed``, repeat and fold, so that every
    backend gives the same scores; one that is set stays. Fit times are comparable only with ``n_jobs=1``: processes
    that run at once share the machine.

    Args:
        data: ``(X, y)``, or name → ``(X, y)``. X is an array, a sparse matrix or a DataFrame.
        models: name → unfitted estimator: all of them classifiers or none.
        cv: number of folds (shuffled, stratified for classifiers), a scikit-learn splitter, or for a single data set
            a list of (train, test) row numbers.
        repeats: how often the folds are drawn anew; only with a number of folds.
        scoring: a name that scikit-learn knows, or ``scorer(model, X, y)``; by default the RMSE, for classifiers the
            accuracy. Names that start with ``neg_`` are errors whose sign scikit-learn turns so that greater is
            better. Here they keep their natural sign and unit: ``"neg_root_mean_squared_error"`` shows as a positive
            RMSE of which lower is better.
        n_jobs: processes of ``backend="loky"``; -1 for one per processor. The other backends ignore it.
        backend: ``"loky"`` (joblib's processes on this machine), ``"sequential"`` (in this process) or ``"dask"`` (on
            the cluster of a ``distributed.Client``; its workers need this package, and its threads are the jobs).
            Peak memory measured for 10⁵ rows × 20 columns, ridge and boosting: 230 MiB in this process, of which 176
            before the call; 515 MiB with loky and two processes, all together.
        client: for ``backend="dask"``; by default the client made last.
        cache: folder for finished fits; made if it does not exist. A fit is found again if the content of data and
            split, estimator class and parameters, scorer and the versions of the libraries are the same.
        seed: of the splits and of models, at least 0.
        progress: show a text bar.

    Returns:
        The scores, with their statistics, figure and conclusion. ``FitFailedWarning`` if any fit failed.

    Raises:
        TypeError: an argument has the wrong type, or with ``cache=`` a parameter's content cannot be fingerprinted.
        ValueError: an argument is out of range, y holds NaN, X and y differ in length, classifiers are mixed with
            other models, or the splits are not possible.
        ImportError: ``backend="dask"`` without dask.distributed.
    """
    from joblib import cpu_count
    from sklearn.base import is_classifier
    from sklearn.exceptions import FitFailedWarning

    check_int(repeats, "repeats", minimum=1)
    check_one_of(backend, "backend", BACKENDS)
    if check_int(n_jobs, "n_jobs", minimum=-1) == 0:
        raise ValueError("n_jobs must be at least 1, or -1 for one per processor, got 0")
    check_int(seed, "seed", minimum=0)
    client = find_client(client) if backend == "dask" else None
    estimators = _check_models(models)
    kinds = {name: bool(is_classifier(estimator)) for name, estimator in estimators.items()}
    if len(set(kinds.values())) > 1:
        names = [name for name, is_one in kinds.items() if is_one]
        raise ValueError(f"models must be all classifiers or none, got classifiers {names} among {list(kinds)}")
    classify = all(kinds.values())
    scorer, metric, lower = _resolve_scoring(scoring, classify)
    named = {str(name): pair for name, pair in data.items()} if isinstance(data, Mapping) else {"data": data}
    if not named:
        raise ValueError("data must hold at least one data set, got {}")
    shared: dict[str, SplitData] = {}
    places: dict[str, list[tuple[int, int]]] = {}
    for name, pair in named.items():
        X, y = _check_data(name, pair)
        shared[name], places[name] = _split(X, y, cv, repeats, classify=classify, seed=seed, alone=len(named) == 1)
    jobs = [
        Job(dataset, model, split, *place, estimator, _state(seed, *place))
        for dataset in shared
        for split, place in enumerate(places[dataset])
        for model, estimator in estimators.items()
    ]
    outcomes: dict[int, Outcome] = {}
    keys: dict[int, str] = {}
    store = None if cache is None else FitCache(cache)
    if store is not None:
        keys = _keys(jobs, estimators, shared, scorer)
        outcomes = {number: kept for number, key in keys.items() if (kept := store.load(key)) is not None}
    numbers = {id(job): number for number, job in enumerate(jobs)}
    missing = [job for number, job in enumerate(jobs) if number not in outcomes]
    workers = n_jobs if n_jobs > 0 else cpu_count()
    with progress_bar(len(jobs), "fit", initial=len(outcomes), shown=progress) as bar:
        running = run_jobs(missing, shared, scorer, backend=backend, n_jobs=workers, client=client)
        try:
            with closing(running):
                for job, outcome in running:
                    number = numbers[id(job)]
                    outcomes[number] = outcome
                    if store is not None and not outcome.error:
                        store.save(keys[number], outcome, job)
                    bar.set_postfix_str(f"{job.model} done", refresh=False)
                    bar.update()
        except KeyboardInterrupt as interrupt:
            where = f"the same call goes on from {store.folder}" if store else "without cache= they are lost"
            interrupt.add_note(f"{len(outcomes)} of {len(jobs)} fits were finished; {where}")
            raise
    table = _table(jobs, outcomes, lower)
    if failed := int((table["error"] != "").sum()):
        first = table.loc[table["error"] != ""].iloc[0]
        message = f"{failed} of {len(table)} fits failed, the first of them {first['model']!r}: {first['error']}"
        warnings.warn(message, FitFailedWarning, stacklevel=2)
    fractions = {
        name: float(np.mean([len(test) / (len(train) + len(test)) for train, test in one.splits]))
        for name, one in shared.items()
    }
    return Comparison(table, metric, lower, fractions)


def _table(jobs: Sequence[Job], outcomes: Mapping[int, Outcome], negate: bool) -> pd.DataFrame:
    rows = []
    for number, job in enumerate(jobs):
        outcome = outcomes[number]
        score = -outcome.score if negate else outcome.score
        seconds = (outcome.fit_seconds, outcome.predict_seconds)
        rows.append((job.dataset, job.model, job.repeat, job.fold, score, *seconds, outcome.error))
    columns = ["dataset", "model", "repeat", "fold", "score", "fit_seconds", "predict_seconds", "error"]
    return pd.DataFrame(rows, columns=columns)


def _check_models(models: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models must be a non-empty mapping from names to estimators, got {models!r}")
    for name, estimator in models.items():
        if isinstance(estimator, type) or not hasattr(estimator, "fit") or not hasattr(estimator, "get_params"):
            raise TypeError(f"models[{name!r}] must be an estimator with fit and get_params, got {estimator!r}")
    return {str(name): estimator for name, estimator in models.items()}


def _resolve_scoring(scoring: Any, classify: bool) -> tuple[Callable[..., float], str, bool]:
    """Scorer, name of the quantity in its natural sign, and whether lower values of that are better."""
    from sklearn.metrics import get_scorer

    if scoring is None:
        scoring = "accuracy" if classify else "neg_root_mean_squared_error"
    if isinstance(scoring, str):
        lower = scoring.startswith("neg_")
        name = scoring.removeprefix("neg_") if lower else scoring
        return get_scorer(scoring), _SHORT.get(name, name.replace("_", " ")), lower
    if not callable(scoring):
        raise TypeError(f"scoring must be a scorer's name, a callable or None, got {scoring!r}")
    # What make_scorer(..., greater_is_better=False) returns keeps its sign there; scikit-learn has no public name.
    lower = getattr(scoring, "_sign", 1) < 0
    function = getattr(scoring, "_score_func", scoring)
    return scoring, str(getattr(function, "__name__", "score")).replace("_", " "), lower


def _check_data(name: str, pair: Any) -> tuple[Any, Any]:
    from sklearn.utils import check_array, check_consistent_length

    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"data must be (X, y) or a mapping from names to (X, y), got {type(pair).__name__} at {name!r}")
    X, y = (part if hasattr(part, "iloc") else part.tocsr() if sparse.issparse(part) else np.asarray(part)
            for part in pair)  # fmt: skip
    check_consistent_length(X, y)
    check_array(y, ensure_2d=False, dtype=None, input_name="y")
    return X, y


def _split(
    X: Any, y: Any, cv: Any, repeats: int, *, classify: bool, seed: int, alone: bool
) -> tuple[SplitData, list[tuple[int, int]]]:
    """The data with their splits, and repeat and fold of each split."""
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

    if not hasattr(cv, "__index__"):
        if repeats != 1:
            raise ValueError(f"repeats must be 1 unless cv is a number of folds, got {repeats} with cv={cv!r}")
    else:
        make = RepeatedStratifiedKFold if classify else RepeatedKFold
        cv = make(n_splits=check_int(cv, "cv", minimum=2), n_repeats=repeats, random_state=seed)
    if hasattr(cv, "split") and not isinstance(cv, str):
        pairs = list(cv.split(X, y))
    elif alone and np.iterable(cv) and not isinstance(cv, str):
        pairs = list(cv)
    else:
        raise TypeError(f"cv must be a number of folds, a splitter, or for one data set a list of splits, got {cv!r}")
    n = X.shape[0]
    splits = [(_row_numbers(train, n, "train"), _row_numbers(test, n, "test")) for train, test in pairs]
    if not splits:
        raise ValueError("cv must give at least one split, got none")
    folds = len(splits) // getattr(cv, "n_repeats", 1)
    return SplitData(X, y, splits), [divmod(position, folds) for position in range(len(splits))]


def _row_numbers(rows: Any, n: int, name: str) -> NDArray[np.int64]:
    numbers = np.asarray(rows)
    if numbers.dtype == bool and numbers.shape == (n,):
        numbers = np.flatnonzero(numbers)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise ValueError(f"cv: {name} must be row numbers of shape (rows,), got {rows!r}")
    if numbers.min() < 0 or numbers.max() >= n:
        raise ValueError(f"cv: {name} must lie in [0, {n}), got {numbers.min()} to {numbers.max()}")
    return numbers.astype(np.int64, copy=False)


def _state(seed: int, repeat: int, fold: int) -> int:
    """A ``random_state`` that belongs to the split."""
    return int(np.random.SeedSequence((seed, repeat, fold)).generate_state(1)[0] >> 1)


# ----------------------------------------------------------------------------------------------------- fingerprints


def _keys(
    jobs: Sequence[Job], estimators: Mapping[str, Any], shared: Mapping[str, SplitData], scorer: Callable[..., float]
) -> dict[int, str]:
    """One key a job, of the content of all that decides its result; the names of data and models do not count."""
    around = fingerprint(scorer, {name: _version(name) for name in _VERSIONED}, sys.version_info[:2])
    contents = {name: fingerprint(one.X, one.y) for name, one in shared.items()}
    splits = {name: [fingerprint(*pair) for pair in one.splits] for name, one in shared.items()}
    models = {}
    for name, estimator in estimators.items():
        try:
            models[name] = fingerprint(estimator)
        except TypeError as error:
            raise TypeError(f"cache: models[{name!r}] cannot be told from others: {error}") from error
    return {
        number: fingerprint(contents[job.dataset], splits[job.dataset][job.split], models[job.model], job.state, around)
        for number, job in enumerate(jobs)
    }


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def fingerprint(*values: Any) -> str:
    """Return 64 hexadecimal digits that are the same for the same content, in every process.

    Numbers, strings, containers, arrays and tables count by type and content; estimators by class and parameters, not
    by what they were fitted to; other objects by class and attributes; functions and classes by name and compiled
    code, classes also by the version of their package. What a function calls does not count: after a change there,
    take another cache folder.

    Raises:
        TypeError: something has no content that could be read, such as a lock or an open file.
    """
    digest = hashlib.sha256()
    _feed(digest.update, values, ())
    return digest.hexdigest()


_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))


def _feed(update: Callable[[Any], None], value: Any, above: tuple[int, ...]) -> None:
    """Pass on type, size and content of a value; ``above`` holds the ids of the objects that contain it."""

    def mark(*parts: object) -> None:
        text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
        update(b"%d:%s" % (len(text), text))  # with the length, so that no two contents run together alike

    kind = type(value)
    if kind in _PLAIN:
        return mark(kind.__name__, repr(value))
    if id(value) in above:  # a recursive function, an object that knows its parent
        return mark("cycle", len(above) - above.index(id(value)))
    mark(kind.__module__, kind.__qualname__)
    if kind is np.ndarray and not value.dtype.hasobject:
        mark(value.dtype, value.shape)
        return update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.size else b"")
    if isinstance(value, dict):
        value = sorted(((fingerprint(key), item) for key, item in value.items()), key=lambda pair: pair[0])
    elif isinstance(value, set | frozenset):
        value = sorted(map(fingerprint, value))
    elif not isinstance(value, list | tuple):
        return _feed(update, _content(value), (*above, id(value)))
    mark(len(value))
    inside = (*above, id(value))
    for item in value:
        _feed(update, item, inside)
    return None


def _content(value: Any) -> Any:
    """Something simpler that says all about the value but its type, for `_feed`."""
    match value:
        case np.ndarray() | np.generic():  # of objects, of one number, or of a subclass
            array = np.asarray(value)
            return [array.shape, array.ravel().tolist()] if array.dtype.hasobject else array.reshape(array.shape or 1)
        case pd.DataFrame():
            return [value.index, value.columns, [value.iloc[:, place].array for place in range(value.shape[1])]]
        case pd.Series():
            return [value.name, value.index, value.array]
        case pd.Categorical() | pd.CategoricalIndex():
            return [getattr(value, "name", None), value.codes, value.categories, value.ordered]
        case pd.Index() | pd.api.extensions.ExtensionArray():
            known = isinstance(value.dtype, np.dtype) or isinstance(value, pd.arrays.NumpyExtensionArray)
            content = value.to_numpy() if known else value.to_numpy(dtype=object)
            return [getattr(value, "name", None), str(value.dtype), content]
        case np.random.RandomState():
            return value.get_state(legacy=False)
        case np.random.Generator():
            return value.bit_generator.state
        case Enum():
            return value.name
        case PurePath() | types.ModuleType():
            return str(value)
        case types.FunctionType() | types.CodeType() | property() | types.MethodType() | functools.partial() | type():
            return _code(value)
    return _attributes(value)


def _code(value: Any) -> Any:
    """The same for what is made of code; a changed function that such a function calls is not noticed."""
    match value:
        case types.FunctionType():
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return [
                value.__module__,
                value.__qualname__,
                value.__code__,
                value.__defaults__,
                value.__kwdefaults__,
                cells,
            ]
        case types.CodeType():
            return [value.co_code, value.co_names, value.co_consts]
        case property():
            return [value.fget, value.fset]
        case types.MethodType():
            return [value.__func__, value.__self__]
        case functools.partial():
            return [value.func, value.args, value.keywords]
        case type():
            top = sys.modules.get(value.__module__.partition(".")[0])
            members = {name: getattr(one, "__func__", getattr(one, "fget", one)) for name, one in vars(value).items()}
            functions = {name: one for name, one in members.items() if isinstance(one, types.FunctionType)}
            own = [value.__module__, value.__qualname__, str(getattr(top, "__version__", "")), functions]
            return own if value.__module__ == "builtins" else [*own, value.__bases__]
    raise AssertionError(value)


def _attributes(value: Any) -> Any:
    """The same for an object of a class that is none of the above."""
    if sparse.issparse(value):
        rows = value.tocsr()
        return [rows.shape, rows.data, rows.indices, rows.indptr]
    if hasattr(value, "get_params"):
        return [type(value), value.get_params(deep=False)]
    if hasattr(value, "detach"):  # a tensor of torch, which need not be imported here
        return [str(value.device), value.detach().cpu().numpy()]
    if callable(value) and hasattr(value, "__qualname__"):  # compiled: NumPy's, Cython's, built in
        return [str(value.__module__), value.__qualname__]
    slots = {name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())}
    state = {name: getattr(value, name) for name in sorted(slots) if hasattr(value, name)} | getattr(
        value, "__dict__", {}
    )
    if state:
        return [type(value), state]
    if " at 0x" not in (text := repr(value)):
        return text
    raise TypeError(f"{text} has no content that could be read; use numbers, strings, arrays, functions or estimators")
