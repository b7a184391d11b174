"""Grid, random and model-based search on the same budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from course_utils._validation import check_int, check_one_of
from course_utils.search import figures
from course_utils.search.objective import CrossValidated
from course_utils.search.spaces import Dimension, Space, check_space
from course_utils.search.study import require_optuna
from course_utils.search.tuning import SAMPLERS, Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SamplerComparison", "compare_samplers"]


@dataclass(frozen=True)
class SamplerComparison:
    """What `compare_samplers` measured.

    Attributes:
        table: one row a trial: ``sampler``, ``seed``, ``trial`` (from 1), ``score``, ``best_so_far`` (both in
            scikit-learn's sign, greater is better), ``param_NAME`` …
        space: the search space.
        scoring: name of the score.
    """

    table: pd.DataFrame = field(repr=False)
    space: dict[str, Dimension] = field(repr=False)
    scoring: str

    def summary(self) -> pd.DataFrame:
        """Return a row per sampler: mean, worst and best of the seeds' final ``best_so_far``, and ``trials`` a seed."""
        last = self.table.groupby(["sampler", "seed"], sort=False).agg(
            best=("best_so_far", "last"), trials=("trial", "max")
        )
        return last.groupby("sampler", sort=False).agg(
            mean=("best", "mean"), worst=("best", "min"), best=("best", "max"), trials=("trials", "max")
        )

    def plot(self) -> Figure:
        """Draw the best so far over the trials, and where each seed ended."""
        length = int(self.table["trial"].max())
        runs = {
            str(sampler): np.stack(
                [
                    np.pad(run.to_numpy(float), (0, length - len(run)), constant_values=np.nan)
                    for _, run in rows.groupby("seed", sort=False)["best_so_far"]
                ]
            )
            for sampler, rows in self.table.groupby("sampler", sort=False)
        }
        return figures.plot_samplers(runs, scoring=self.scoring)


def compare_samplers(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    space: str | Space,
    budget: int,
    seeds: Sequence[int],
    samplers: Sequence[str] = SAMPLERS[::-1],
    cv: Any = 3,
    scoring: str | Callable[..., float] | None = None,
) -> SamplerComparison:
    """Let several samplers search the same space with the same number of trials, once per seed.

    Splits and ``random_state`` are the same for all, so only what a sampler proposes differs: a seed changes its
    draws, and of a grid the order. Trials are never pruned. The first 10 trials of TPE are those of random search
    with the same seed, so up to there the two do not differ. A grid revisits the same cells with each seed, and they
    are computed once.

    The best score of a search is the greatest of many noisy ones: this compares searches, not what they are worth on
    new data.

    Args:
        estimator: as in `tune`.
        X: (n, n_features).
        y: (n,) or (n, n_outputs).
        space: as in `tune`.
        budget: trials per search, at least 1; a grid may have fewer cells.
        seeds: of the samplers, at least one.
        samplers: which to compare, among ``"grid"``, ``"random"``, ``"tpe"``.
        cv: as in `tune`; shuffled by seed 0.
        scoring: as in `tune`.

    Raises:
        ImportError: Optuna is not installed.
        TypeError, ValueError: an argument is wrong.
        RuntimeError: a search completed no trial.
    """
    require_optuna()
    check_int(budget, "budget", minimum=1)
    own_seeds = [check_int(seed, f"seeds[{index}]", minimum=0) for index, seed in enumerate(seeds)]
    for kind in samplers:
        check_one_of(kind, "samplers", SAMPLERS)
    if not own_seeds or not samplers:
        raise ValueError(f"seeds and samplers must not be empty, got {list(seeds)!r} and {list(samplers)!r}")
    checked = check_space(space, estimator)
    evaluation = CrossValidated.of(estimator, X, y, cv=cv, scoring=scoring, seed=0).remembering()
    parts = []
    for kind in samplers:
        for seed in own_seeds:
            search = Search(evaluation=evaluation, space=checked, sampler=kind, prune=False, seed=seed, n_trials=budget)
            trials, _, interrupted = search.run(n_jobs=1, progress=False)
            if interrupted:
                raise KeyboardInterrupt
            if trials["score"].isna().all():
                raise RuntimeError(f"{kind} search completed no trial; the last error was {trials['error'].iloc[-1]}")
            run = trials[["trial", "score", *(f"param_{name}" for name in checked)]].copy()
            run["trial"] += 1
            run.insert(0, "sampler", kind)
            run.insert(1, "seed", seed)
            run.insert(4, "best_so_far", np.fmax.accumulate(run["score"].to_numpy(float)))
            parts.append(run)
    return SamplerComparison(pd.concat(parts, ignore_index=True), checked, evaluation.scoring_name)
