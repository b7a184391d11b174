"""How much of a score's variance each hyperparameter explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from course_utils._validation import check_int
from course_utils.search.spaces import Choice, Space, positions
from course_utils.search.study import quiet, require_optuna

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["importances"]

_MIN_TRIALS = 8


def importances(
    params: Mapping[str, Sequence[Any]], scores: ArrayLike, space: Space, *, seed: int = 0
) -> dict[str, float]:
    """Return the share of the score's variance over the space that each hyperparameter explains alone, largest first.

    fANOVA: a random forest predicts the score from the hyperparameters. One's importance is the variance of its
    marginal (the forest's mean over all the others) divided by the whole variance. What is missing to a sum of 1
    belongs to interactions.

    Caveats:

    - It speaks of the whole space, not of the neighbourhood of the best: a hyperparameter may be decisive only
      because half of its range is useless. Another space gives other importances.
    - It explains the forest, which is vague after few trials (under about 50) and knows TPE's favourite regions
      better than others: trials of random search suit it better. Repeat it with other seeds.
    - Two hyperparameters that matter only together may both look unimportant.
    - The scores are cross-validated ones with their noise. Pruned and failed trials, often the worst, are left out.

    Args:
        params: hyperparameter → values, shape (n_trials,) each.
        scores: (n_trials,).
        space: the search space; logarithmic ranges count evenly over their exponent, as they are drawn.
        seed: of the forest, at least 0.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: fewer than 8 trials, or all of the same score.

    Source: Hutter, Hoos & Leyton-Brown 2014, computed by Optuna.
    """
    optuna = require_optuna()
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator

    check_int(seed, "seed", minimum=0)
    values = np.asarray(scores, dtype=float)
    if len(values) < _MIN_TRIALS or np.ptp(values) == 0:
        raise ValueError(
            f"importances need at least {_MIN_TRIALS} complete trials with different scores, "
            f"got {len(values)} trials with {len(np.unique(values))} different scores"
        )
    distributions: dict[str, BaseDistribution] = {}
    columns: dict[str, list[Any]] = {}
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            distributions[name] = CategoricalDistribution(dimension.labels)
            columns[name] = [dimension.to_label(value) for value in params[name]]
        else:
            # As exponents: Optuna weighs a logarithmic range by its values, most of which lie at its upper end.
            low, high = positions([dimension.low, dimension.high], dimension).tolist()
            distributions[name] = FloatDistribution(low, high)
            columns[name] = np.clip(positions(params[name], dimension), low, high).tolist()
    with quiet():
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="maximize")
        for row, value in enumerate(values.tolist()):
            own = {name: column[row] for name, column in columns.items()}
            study.add_trial(optuna.trial.create_trial(params=own, distributions=distributions, value=value))
        shares: dict[str, float] = FanovaImportanceEvaluator(seed=seed).evaluate(study)
    return dict(sorted(shares.items(), key=lambda share: -share[1]))
