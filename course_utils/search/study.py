"""What stands between us and Optuna: studies, reproducible samplers, the pruning rule, and shared trial queues."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from course_utils.search.spaces import Choice, Float, Space, grid_axes

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

__all__ = [
    "TrialQueue", "from_labels", "make_sampler", "median_pruner", "n_cells", "open_study", "quiet", "require_optuna",
    "suggest",
]  # fmt: skip

# Trials before the pruning rule begins: a median of fewer says little.
_PRUNER_STARTUP = 5
# Tells this process from an earlier one that had the same number, as happens in containers.
_TOKEN = uuid.uuid4().hex


def require_optuna() -> Any:
    """Return the module ``optuna``, or say how to get it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "the search needs Optuna, which is not installed; run: pip install 'optuna>=4' "
            "(the extra 'search' of mlp-course-utils brings it too)"
        ) from error
    return optuna


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's information lines off stderr; its warnings stay."""
    optuna = require_optuna()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def open_study(
    storage: str | os.PathLike[str] | None, name: str, sampler: BaseSampler, pruner: BasePruner, facts: dict[str, str]
) -> Iterator[Study]:
    """Create a study, or open the one of that name; Optuna's information lines stay silent while it is open.

    Args:
        storage: ``None`` (memory), a path that ends in ``.journal`` or ``.log``, or an SQLAlchemy URL.
        name: of the study in the storage.
        sampler: see `make_sampler`.
        pruner: see `median_pruner`.
        facts: what must be the same for trials to be comparable; kept with the study.

    Raises:
        ValueError: the storage has neither form, or the study was made with other facts.
    """
    optuna = require_optuna()
    opened = _open_storage(storage)
    try:
        with quiet():
            study = optuna.create_study(
                storage=opened, study_name=name, sampler=sampler, pruner=pruner, direction="maximize",
                load_if_exists=True,
            )  # fmt: skip
            known = study.user_attrs.get("facts")
            if known is None:
                study.set_user_attr("facts", facts)
            elif changed := [key for key in facts if known.get(key) != facts[key]]:
                described = "; ".join(f"{key}: {known.get(key)!r} there, {facts[key]!r} here" for key in changed)
                raise ValueError(
                    f"the study {name!r} in {storage} was made for another search ({described}); "
                    "its trials cannot be compared with new ones: choose another study_name"
                )
            yield study
    finally:
        if isinstance(opened, optuna.storages.RDBStorage):
            opened.remove_session()
            opened.engine.dispose()


def _open_storage(storage: str | os.PathLike[str] | None) -> Any:
    optuna = require_optuna()
    if storage is None:
        return optuna.storages.InMemoryStorage()
    text = os.fspath(storage)
    if "://" in text:
        return optuna.storages.RDBStorage(text)
    if Path(text).suffix not in (".journal", ".log"):
        raise ValueError(
            "storage must be a path that ends in .journal or .log, or a database URL such as sqlite:///study.db, "
            f"got {text!r}"
        )
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    Path(text).parent.mkdir(parents=True, exist_ok=True)
    # Optuna's default lock is a symbolic link, which Windows lets only administrators make.
    return optuna.storages.JournalStorage(JournalFileBackend(text, lock_obj=JournalFileOpenLock(text)))


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Draw all hyperparameters of a trial."""
    drawn: dict[str, Any] = {}
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            drawn[name] = trial.suggest_categorical(name, dimension.labels)
        elif isinstance(dimension, Float):
            drawn[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        else:
            drawn[name] = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    return from_labels(drawn, space)


def from_labels(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return hyperparameters with the options that stand behind the labels of each `Choice`."""
    dimensions = {name: space[name] for name in space if name in params}
    return {
        name: dimension.from_label(params[name]) if isinstance(dimension, Choice) else params[name]
        for name, dimension in dimensions.items()
    }


def n_cells(space: Space, budget: int) -> int:
    """Return the number of cells of the grid for a budget (`grid_axes`)."""
    return math.prod(len(axis) for axis in grid_axes(space, budget).values())


def _grid_cells(space: Space, budget: int) -> list[dict[str, Any]]:
    """Return all cells of the grid (`grid_axes`), options of a `Choice` as their labels."""
    axes = {
        name: [dimension.to_label(value) if isinstance(dimension, Choice) else value for value in values]
        for (name, values), dimension in zip(grid_axes(space, budget).items(), space.values(), strict=True)
    }
    return [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]


def make_sampler(kind: str, space: Space, *, budget: int, seed: int) -> BaseSampler:
    """Return a sampler whose proposals depend on the seed, the trial's place in the study and what finished before it.

    It has no state of its own. So a search that is killed and resumed proposes what it would have proposed without
    the break, and processes that share a study never draw the same numbers or visit the same cell of a grid.

    Args:
        kind: ``"tpe"``, ``"random"`` or ``"grid"``. The first 10 trials of TPE are those of random search.
        space: see `course_utils.search.spaces`.
        budget: number of trials for which a grid is made.
        seed: at least 0.
    """
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler

    order: list[dict[str, Any]] = []
    if kind == "grid":
        cells = _grid_cells(space, budget)
        order = [cells[cell] for cell in np.random.default_rng(seed).permutation(len(cells))]

    class PlaceSampler(BaseSampler):
        def __init__(self) -> None:
            self.inner: dict[int, BaseSampler] = {}  # number of a trial under way → its own sampler
            self.places: dict[int, int] = {}

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            place = self.places[trial.number] = _place(study, trial)
            own = int(np.random.SeedSequence(seed, spawn_key=(place,)).generate_state(1)[0])
            self.inner[trial.number] = TPESampler(seed=own) if kind == "tpe" else RandomSampler(seed=own)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return self.inner[trial.number].infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self.inner[trial.number].sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            if order:  # a trial past the end is dropped by the queue, yet it must have values
                return order[self.places[trial.number] % len(order)][param_name]
            return self.inner[trial.number].sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
            self.inner.pop(trial.number, None)
            self.places.pop(trial.number, None)

    return PlaceSampler()


def median_pruner() -> BasePruner:
    """Return the median rule: stop a trial whose mean score so far is below the median of the others' after that fold.

    Counted are all trials that finished the fold, pruned ones too, and only from 5 of them on. All trials see the
    same folds, so the comparison is fair even where one fold is harder than another.

    Source: Golovin et al. 2017, section 3.2.1. Differs: the trial's mean after this fold, not the best of its means
    (as ``optuna.pruners.MedianPruner`` has it), which would spare a bad trial whose first fold happened to be easy.
    """
    from optuna.pruners import BasePruner
    from optuna.trial import TrialState

    class MedianRule(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            step = trial.last_step
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            others = [other.intermediate_values[step] for other in finished if step in other.intermediate_values]
            if step is None or len(others) < _PRUNER_STARTUP:
                return False
            return trial.intermediate_values[step] < float(np.median(others))

    return MedianRule()


def _origin(trial: FrozenTrial) -> int:
    """Number of the trial that this one repeats, or its own."""
    return int(trial.user_attrs.get("retry_of", trial.number))


def _place(study: Study, trial: FrozenTrial) -> int:
    """Position of a trial in the study as if no trial had ever been interrupted."""
    if "retry_of" in trial.user_attrs:
        trial = next(each for each in study.get_trials(deepcopy=False) if each.number == _origin(trial))
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return trial.number - sum("retry_of" in each.user_attrs for each in earlier)


class TrialQueue:
    """Hand out the trials of a study, exactly ``n_trials`` in all, to however many processes ask for one.

    A trial counts once it has a result: complete, pruned, or failed with an error. A trial that was interrupted (its
    process was killed, or Ctrl-C was pressed) is repeated with the same values. Its record stays in the storage as
    failed without an error, and `finished` leaves it out.

    A process that died is noticed on the same machine only, and not on Windows; elsewhere its trial stays in the
    storage as running and counts as one of the ``n_trials``.

    Args:
        study: see `open_study`.
        n_trials: how many trials the study shall have.
    """

    def __init__(self, study: Study, n_trials: int) -> None:
        from optuna.trial import TrialState

        self.study, self.n_trials, self._states = study, n_trials, TrialState

    def next_trial(self) -> Trial | None:
        """Return a new trial that is to be run, or ``None`` if the study has, or is about to have, enough."""
        while True:
            trials = self._trials()
            counted = {_origin(trial) for trial in trials if self._counts(trial)}
            if len(counted) >= self.n_trials:
                return None
            waiting = {_origin(trial) for trial in trials if trial.state == self._states.WAITING}
            lost = [trial for trial in trials if _origin(trial) not in counted | waiting]
            if lost and not waiting:
                first = min(lost, key=_origin)
                self.study.enqueue_trial(first.params, user_attrs={"retry_of": _origin(first)})
            trial = self.study.ask()
            trial.set_user_attr("worker", _worker())
            if self._is_wanted(trial.number):
                return trial
            self.abandon(trial)

    def _is_wanted(self, number: int) -> bool:
        """Whether a trial just drawn is neither one too many nor the second repetition of the same trial."""
        trials = self._trials()
        own = _origin(trials[number])
        rivals = [trial for trial in trials if self._counts(trial) and trial.number != number]
        twice = any(_origin(trial) == own and trial.number < number for trial in rivals)
        return not twice and sum(_origin(trial) < own for trial in rivals) < self.n_trials

    def abandon(self, trial: Trial) -> None:
        """Give a trial back, to be repeated later: it fails without an error."""
        self.study.tell(trial, state=self._states.FAIL)

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that have a result, in the order in which they were first begun."""
        found: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if self._counts(trial) and trial.state.is_finished():
                found.setdefault(_origin(trial), trial)
        return [found[origin] for origin in sorted(found)]

    def _counts(self, trial: FrozenTrial) -> bool:
        if trial.state == self._states.FAIL:
            return "error" in trial.user_attrs
        return trial.state != self._states.WAITING

    def _trials(self) -> list[FrozenTrial]:
        """All trials, after those of dead processes were marked as failed."""
        running = self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        for trial in running:
            if _is_dead(trial.user_attrs.get("worker")):
                with contextlib.suppress(ValueError):  # another process was first
                    self.study.tell(trial.number, state=self._states.FAIL)
        return self.study.get_trials(deepcopy=False)


def _worker() -> list[Any]:
    return [socket.gethostname(), os.getpid(), _TOKEN]


def _is_dead(worker: Any) -> bool:
    """Whether the process that runs a trial is known to be gone."""
    if worker is None or os.name == "nt":  # there, signal 0 would not ask but interrupt
        return False
    host, process, token = worker
    if host != socket.gethostname():
        return False
    if process == os.getpid():
        return bool(token != _TOKEN)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it lives, under another user
        pass
    return False
