"""The objective of a search: a cross-validated score on fixed splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from course_utils.evaluation.comparison import fingerprint
from course_utils.evaluation.execution import fill_random_states

__all__ = ["CrossValidated"]


@dataclass(frozen=True)
class CrossValidated:
    """An estimator with its data and its fixed splits: hyperparameters in, a score per fold out."""

    estimator: Any
    X: Any
    y: Any
    sample_weight: Any
    splits: list[tuple[Any, Any]]
    scorer: Callable[..., float]
    scoring_name: str
    memory: dict[str, list[float]] | None = None

    @classmethod
    def of(
        cls, estimator: Any, X: Any, y: Any, *, cv: Any, scoring: Any, seed: int, sample_weight: Any = None
    ) -> CrossValidated:
        """Check the arguments of `tune` and fix seeds and splits."""
        from sklearn.base import clone, is_classifier
        from sklearn.metrics import check_scoring
        from sklearn.model_selection import KFold, StratifiedKFold, check_cv
        from sklearn.utils import check_consistent_length, indexable

        X, y = indexable(X, y)
        y = y if hasattr(y, "iloc") else np.asarray(y)
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, dtype=float)
            check_consistent_length(X, sample_weight)
        scorer = check_scoring(estimator, scoring=scoring)
        splitter = check_cv(cv, y, classifier=is_classifier(estimator))
        if type(splitter) in (KFold, StratifiedKFold) and not hasattr(cv, "split"):
            splitter.shuffle, splitter.random_state = True, seed
        estimator = fill_random_states(clone(estimator), seed)
        own = "accuracy" if is_classifier(estimator) else "r2"
        name = scoring or own if scoring is None or isinstance(scoring, str) else getattr(scoring, "__name__", "score")
        return cls(estimator, X, y, sample_weight, list(splitter.split(X, y)), scorer, name)

    def fit(self, params: dict[str, Any], rows: Any) -> Any:
        """Return a fresh estimator with these hyperparameters, fitted to these rows."""
        from sklearn.base import clone

        model = clone(self.estimator).set_params(**params)
        weight = {}
        if self.sample_weight is not None:
            steps = getattr(model, "steps", None)  # a Pipeline hands arguments on under the step's name
            weight[f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"] = self.sample_weight[rows]
        return model.fit(_rows(self.X, rows), _rows(self.y, rows), **weight)

    def scores(self, params: dict[str, Any]) -> Iterator[float]:
        """Yield the score on each fold.

        Raises:
            ValueError: a score is not finite.
        """
        if self.memory is None:
            yield from self._scores(params)
            return
        key = repr(sorted(params.items()))
        if key not in self.memory:
            self.memory[key] = list(self._scores(params))
        yield from self.memory[key]

    def remembering(self) -> CrossValidated:
        """Return a copy that computes the scores of the same hyperparameters once."""
        return replace(self, memory={})

    def _scores(self, params: dict[str, Any]) -> Iterator[float]:
        for number, (train, test) in enumerate(self.splits, start=1):
            model = self.fit(params, train)
            weight = {} if self.sample_weight is None else {"sample_weight": self.sample_weight[test]}
            score = float(self.scorer(model, _rows(self.X, test), _rows(self.y, test), **weight))
            if not np.isfinite(score):
                raise ValueError(f"the score on fold {number} is {score}")
            yield score

    def facts(self) -> dict[str, str]:
        """Return texts that differ wherever two searches would not be comparable."""
        params = sorted(self.estimator.get_params(deep=True).items())
        described = f"{type(self.estimator).__qualname__}({', '.join(f'{name}={value!r}' for name, value in params)})"
        return {
            "estimator": re.sub(r" at 0x[0-9a-fA-F]+|\s+", " ", described),
            "data and splits": fingerprint(self.X, self.y, self.sample_weight, self.splits)[:16],
            "scoring": self.scoring_name,
        }


def _rows(values: Any, rows: Any) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    return values[rows] if hasattr(values, "shape") else np.asarray(values)[rows]
