"""The estimators' defaults against default HistGradientBoosting: error and fit time on five folds, one thread.

A row of errors is the ratio of the mean errors (RMSE; for classes the error rate, and the log loss), so that at most 1
means "at least equal". A row of times is the ratio of the fits' CPU seconds, summed over the folds, each pair of fits
one after the other. CPU seconds and not those of the clock, since boosting may use threads that it does not need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchlib import Row
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, root_mean_squared_error, zero_one_loss
from sklearn.model_selection import KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from course_utils.datasets import load_boston_housing
from course_utils.estimators import MLPEnsembleClassifier, MLPEnsembleRegressor

N_FOLDS = 5
MAX_TIME_RATIO = 60.0
CONTEXT = float("inf")

Errors = dict[str, float]


def _boston() -> tuple[Any, Any]:
    data = load_boston_housing()
    return data.features, data.target


REGRESSION: dict[str, Callable[[], tuple[Any, Any]]] = {
    "Boston": _boston,
    "diabetes": lambda: load_diabetes(return_X_y=True, as_frame=True),
}
CLASSIFICATION: dict[str, Callable[[], tuple[Any, Any]]] = {
    "breast cancer": lambda: load_breast_cancer(return_X_y=True, as_frame=True),
    "wine": lambda: load_wine(return_X_y=True, as_frame=True),
    "digits": lambda: load_digits(return_X_y=True, as_frame=True),
}


def _regression_errors(model: Any, X: Any, y: Any) -> Errors:
    return {"RMSE": root_mean_squared_error(y, model.predict(X))}


def _classification_errors(model: Any, X: Any, y: Any) -> Errors:
    probabilities = model.predict_proba(X)
    labels = model.classes_[probabilities.argmax(axis=1)]
    return {"error rate": zero_one_loss(y, labels), "log loss": log_loss(y, probabilities, labels=model.classes_)}


def _compare(
    name: str, X: Any, y: Any, models: dict[str, Any], splits: list[Any], errors_of: Callable[..., Errors]
) -> list[Row]:
    seconds = dict.fromkeys(models, 0.0)
    errors: dict[str, list[Errors]] = {label: [] for label in models}
    for train, test in splits:
        for label, model in models.items():
            fitted = clone(model)
            begin = time.process_time()
            fitted.fit(X.iloc[train], y.iloc[train])
            seconds[label] += time.process_time() - begin
            errors[label].append(errors_of(fitted, X.iloc[test], y.iloc[test]))
    rows = []
    for measure in errors["ours"][0]:
        ours, theirs = (_mean(errors[label], measure) for label in ("ours", "boosting"))
        # The mark is on RMSE and accuracy; log loss is there for context.
        bound = CONTEXT if measure == "log loss" else 1.0
        ratio = ours / theirs if theirs else (1.0 if ours == theirs else CONTEXT)
        rows.append(Row(f"{name}: {measure} / boosting's", ratio, bound, f"{ours:.4g} against {theirs:.4g}"))
    note = f"{seconds['ours'] / N_FOLDS:.2f} s against {seconds['boosting'] / N_FOLDS:.3f} s a fit"
    rows.append(Row(f"{name}: fit time / boosting's", seconds["ours"] / seconds["boosting"], MAX_TIME_RATIO, note))
    return rows


def _mean(errors: list[Errors], measure: str) -> float:
    values: NDArray[np.float64] = np.array([fold[measure] for fold in errors])
    return float(values.mean())


def run() -> list[Row]:
    """Fit both on every data set and fold."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    with threadpool_limits(1):
        for name, load in REGRESSION.items():
            X, y = load()
            models = {
                "ours": MLPEnsembleRegressor(random_state=0),
                "boosting": HistGradientBoostingRegressor(random_state=0),
            }
            folds = list(KFold(N_FOLDS, shuffle=True, random_state=0).split(X))
            rows += _compare(name, X, y, models, folds, _regression_errors)
        for name, load in CLASSIFICATION.items():
            X, y = load()
            classifiers = {
                "ours": MLPEnsembleClassifier(random_state=0),
                "boosting": HistGradientBoostingClassifier(random_state=0),
            }
            folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(X, y))
            rows += _compare(name, X, y, classifiers, folds, _classification_errors)
    return rows
