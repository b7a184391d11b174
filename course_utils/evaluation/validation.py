"""Judge one model: cross-validation, deep ensembles, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import model_selection
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, get_scorer, r2_score
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils import check_random_state, column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from course_utils._validation import check_int, check_one_of
from course_utils.evaluation.statistics import TestResult, corrected_resampled_ttest

__all__ = ["CrossValidation", "DeepEnsemble", "cross_validate", "expected_calibration_error"]

Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]
Scoring = str | Callable[..., float] | Sequence[str] | None


@dataclass(frozen=True)
class CrossValidation:
    """What `cross_validate` measured.

    Attributes:
        table: one row a split, with columns ``repeat``, ``fold``, ``n_train``, ``n_test``, ``fit_seconds``, and
            ``train_score`` and ``test_score``, or with several metrics ``train_<metric>`` and ``test_<metric>``.
        test_fraction: share of the rows that a split tests on, as `corrected_resampled_ttest` wants it.
        predictions: for each row the prediction of the model that did not see it, shape (repeats, n), with
            probabilities (repeats, n, classes), the classes sorted; None if not asked for.
    """

    table: pd.DataFrame
    test_fraction: float
    predictions: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def interval(self, metric: str = "score", *, level: float = 0.95) -> TestResult:
        """Return the mean of a test score with the confidence interval of the corrected resampled t-test.

        Args:
            metric: a name that was given as ``scoring`` if there were several.
            level: of confidence, above 0 and below 1.

        Raises:
            ValueError: no such metric was measured, or there is only one split.
        """
        measured = [name.removeprefix("test_") for name in self.table.columns if name.startswith("test_")]
        check_one_of(metric, "metric", measured)
        return corrected_resampled_ttest(
            self.table[f"test_{metric}"].to_numpy(), test_fraction=self.test_fraction, level=level
        )

    def __str__(self) -> str:
        repeats = self.table["repeat"].nunique()
        lines = [f"{len(self.table)} splits" + (f" in {repeats} repeats" if repeats > 1 else "")]
        for column in self.table.columns:
            if column.startswith(("train_", "test_")):
                values = self.table[column]
                lines.append(f"{column} {values.mean():.4g} ± {values.std(ddof=0):.2g} over splits")
        return "\n".join([*lines, f"fit {self.table['fit_seconds'].mean():.3g} s a split"])


def cross_validate(
    model: Any, X: Any, y: Any, *, cv: Any = 5, repeats: int = 1, scoring: Scoring = None, seed: int = 0,
    sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None, predictions: str | None = None,
    n_jobs: int | None = None
) -> CrossValidation:  # fmt: skip
    """Fit a model on several train/test splits, and measure it on both parts of each.

    Splits by a number of folds are shuffled by ``seed``, and stratified for a classifier; models validated with the
    same seed on the same data see the same splits, so that their scores may be compared split by split
    (`corrected_resampled_ttest`). An error in a fit is raised, not turned into NaN.

    Built on ``sklearn.model_selection.cross_validate``. Differs: with ``sample_weight`` the scores are weighted too.

    Args:
        model: an estimator; it is cloned, and stays unfitted.
        X: shape (n, features), array or DataFrame.
        y: targets, shape (n,) or (n, outputs).
        cv: number of folds, at least 2; or a splitter of scikit-learn, or an iterable of (train, test) row numbers.
        repeats: how often to shuffle and split anew, at least 1; only with a number of folds.
        scoring: a scorer's name such as ``"neg_root_mean_squared_error"`` (higher is better, always), a scorer, or
            several names; by default the model's own ``score``.
        seed: of the shuffling, at least 0; the model's ``random_state`` is left alone.
        sample_weight: shape (n,), at least 0, passed to ``fit`` and to the scorer.
        groups: shape (n,); rows of one group are not separated. With a number of folds, ``GroupKFold``.
        predictions: ``"predict"`` or ``"predict_proba"`` to keep what was predicted for the test rows.
        n_jobs: fits at the same time, as scikit-learn has it; -1 for as many as there are processors.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or predictions are asked for and the splits do not test each row once.
    """
    check_int(repeats, "repeats", minimum=1)
    check_one_of(predictions, "predictions", (None, "predict", "predict_proba"))
    splits = _make_splits(model, X, y, cv, repeats, seed, groups)
    n, folds = len(y), len(splits) // repeats
    if predictions is not None:
        for tested in _by_repeat([test for _, test in splits], repeats):
            if not np.array_equal(np.sort(np.concatenate(tested)), np.arange(n)):
                raise ValueError("predictions need splits that test each row exactly once a repeat, these do not")
    weights = None if sample_weight is None else _check_weights(sample_weight, n)
    result = model_selection.cross_validate(
        model, X, y, cv=splits, scoring=scoring if weights is None else _no_score, n_jobs=n_jobs,
        params=None if weights is None else {"sample_weight": weights}, return_train_score=True,
        return_estimator=weights is not None or predictions is not None, error_score="raise",
    )  # fmt: skip
    if weights is not None:
        result |= _weighted_scores(result["estimator"], X, y, splits, scoring, weights)
    sizes = np.array([[len(train), len(test)] for train, test in splits])
    columns = {
        "repeat": np.arange(len(splits)) // folds, "fold": np.arange(len(splits)) % folds,
        "n_train": sizes[:, 0], "n_test": sizes[:, 1], "fit_seconds": result["fit_time"],
    }  # fmt: skip
    columns |= {name: values for name, values in result.items() if name.startswith(("train_", "test_"))}
    outputs = None
    if predictions is not None:
        parts = [
            _predict(fitted, take_rows(X, test), predictions, y)
            for fitted, (_, test) in zip(result["estimator"], splits, strict=True)
        ]
        orders = [np.argsort(np.concatenate(part)) for part in _by_repeat([test for _, test in splits], repeats)]
        joined = [np.concatenate(part) for part in _by_repeat(parts, repeats)]
        outputs = np.stack([part[order] for part, order in zip(joined, orders, strict=True)])
    return CrossValidation(pd.DataFrame(columns), float(np.mean(sizes[:, 1] / sizes.sum(axis=1))), outputs)


def _make_splits(model: Any, X: Any, y: Any, cv: Any, repeats: int, seed: int, groups: ArrayLike | None) -> Splits:
    random_state = check_random_state(check_int(seed, "seed", minimum=0, maximum=2**32 - 1))
    if hasattr(cv, "split") or not hasattr(cv, "__index__"):
        if repeats != 1:
            raise ValueError(f"repeats needs cv as a number of folds, got repeats={repeats} and cv={cv!r}")
        return list(model_selection.check_cv(cv, y, classifier=is_classifier(model)).split(X, y, groups))
    check_int(cv, "cv", minimum=2)
    names = {
        (False, False): "KFold", (True, False): "StratifiedKFold",
        (False, True): "GroupKFold", (True, True): "StratifiedGroupKFold",
    }  # fmt: skip
    splitter = getattr(model_selection, names[is_classifier(model), groups is not None])
    splits: Splits = []
    for _ in range(repeats):
        splits += splitter(n_splits=cv, shuffle=True, random_state=random_state).split(X, y, groups)
    return splits


def _by_repeat(items: list[Any], repeats: int) -> list[list[Any]]:
    size = len(items) // repeats
    return [items[start : start + size] for start in range(0, len(items), size)]


def _check_weights(sample_weight: ArrayLike, n: int) -> NDArray[np.float64]:
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), got {weights.shape}")
    if len(bad := weights[~(np.isfinite(weights) & (weights >= 0))]):
        raise ValueError(f"sample_weight must be finite and at least 0, got {bad[0]}")
    return weights


def _no_score(model: Any, X: Any, y: Any) -> float:
    """Stand in for scikit-learn's scoring, which would leave the weights out."""
    return 0.0


def _weighted_scores(
    models: list[Any], X: Any, y: Any, splits: Splits, scoring: Scoring, weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    def own_score(model: Any, *args: Any, **kwargs: Any) -> float:
        return float(model.score(*args, **kwargs))

    scorers: dict[str, Any] = {"score": own_score}
    if isinstance(scoring, str) or callable(scoring):
        scorers = {"score": get_scorer(scoring)}
    elif scoring is not None:
        scorers = {name: get_scorer(name) for name in scoring}
    return {
        f"{part}_{name}": np.array([
            scorer(model, take_rows(X, split[index]), take_rows(y, split[index]), sample_weight=weights[split[index]])
            for model, split in zip(models, splits, strict=True)
        ])
        for index, part in enumerate(("train", "test"))
        for name, scorer in scorers.items()
    }  # fmt: skip


def _predict(model: Any, X: Any, method: str, y: Any) -> NDArray[Any]:
    outputs = np.asarray(getattr(model, method)(X))
    if method == "predict":
        return outputs
    classes = np.unique(y)
    aligned = np.zeros((len(outputs), len(classes)))  # a class that a fold did not train on has probability 0
    aligned[:, np.searchsorted(classes, model.classes_)] = outputs
    return aligned


def _members_have(method: str) -> Callable[[DeepEnsemble], bool]:
    return lambda ensemble: hasattr(ensemble.base_estimator, method)


class DeepEnsemble(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """The mean of models that differ in nothing but their random state.

    Networks of other initial weights and batch orders end in other minima, agree on what the data determine, and
    disagree where there are none; averaging them removes that part of the error, and their disagreement
    (`predict_std`) shows where it is large. It does not contain the noise of the targets. Classifiers' probabilities
    are averaged, and the largest mean wins. Every member sees all data: there is no bagging.

    Source: Lakshminarayanan, Pritzel & Blundell 2017. Differs: no adversarial training, and regressors predict a
    value, not a distribution.

    Args:
        base_estimator: a regressor, or a classifier with ``predict_proba``; it or a part of it (a pipeline's step)
            has a parameter ``random_state``, which each member gets another value of.
        n_members: at least 1.
        random_state: of the members' random states: a seed, a ``RandomState``, or None for another result each time.
        n_jobs: members fitted at the same time, as scikit-learn has it.

    Attributes:
        estimators_: the fitted members.
        classes_: of a classifier, sorted.
        n_features_in_: number of columns, as the members know it.
        feature_names_in_: their names, where the members know them.
    """

    def __init__(
        self, base_estimator: Any, n_members: int = 5, *, random_state: Any = None, n_jobs: int | None = None
    ) -> None:
        self.base_estimator = base_estimator
        self.n_members = n_members
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> DeepEnsemble:
        """Fit the members to data of shapes (n, features) and (n,), or (n, outputs) if they can.

        Raises:
            TypeError: the base estimator is neither regressor nor classifier, or lacks ``random_state``,
                ``predict_proba`` or ``sample_weight`` where they are needed.
            ValueError: ``n_members`` is out of range, a classifier's ``y`` has several columns, or a member raises.
        """
        check_int(self.n_members, "n_members", minimum=1)
        base, name = self.base_estimator, type(self.base_estimator).__name__
        if not (is_regressor(base) or is_classifier(base)):
            raise TypeError(f"base_estimator must be a regressor or a classifier, got {base!r}")
        if is_classifier(base) and not hasattr(base, "predict_proba"):
            raise TypeError(f"base_estimator must have predict_proba, and {name} has not")
        seeds = sorted(key for key in base.get_params() if key.split("__")[-1] == "random_state")
        if not seeds:
            raise TypeError(f"base_estimator must have a random_state, and {name} has none: all members would be equal")
        if sample_weight is not None and not has_fit_parameter(base, "sample_weight"):
            raise TypeError(f"sample_weight is given, and {name}.fit does not take it")
        if is_classifier(base) and y is not None:  # the members say what is wrong with None
            y = column_or_1d(y, warn=True)
        random_state = check_random_state(self.random_state)
        members = [
            clone(base).set_params(**{key: int(random_state.randint(np.iinfo(np.int32).max)) for key in seeds})
            for _ in range(self.n_members)
        ]
        options = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(delayed(_fit)(member, X, y, options) for member in members)
        for attribute in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(self.estimators_[0], attribute):
                setattr(self, attribute, getattr(self.estimators_[0], attribute))
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the members' mean, shape (n,) or (n, outputs); of classifiers the most probable label, shape (n,)."""
        check_is_fitted(self)
        if is_classifier(self):
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        return np.asarray(self._outputs(X).mean(axis=0))

    @available_if(_members_have("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the members' mean probabilities, shape (n, classes)."""
        check_is_fitted(self)
        return np.asarray(self._outputs(X).mean(axis=0))

    def predict_std(self, X: Any) -> NDArray[Any]:
        """Return the standard deviation over the members, with their number in the denominator.

        Its shape is that of ``predict``, for classifiers (n, classes), the spread of each class's probability.
        """
        check_is_fitted(self)
        return np.asarray(self._outputs(X).std(axis=0))

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return R² of a regressor, the accuracy of a classifier."""
        metric = accuracy_score if is_classifier(self) else r2_score
        return float(metric(y, self.predict(X), sample_weight=sample_weight))

    def _outputs(self, X: Any) -> NDArray[Any]:
        method = "predict_proba" if is_classifier(self) else "predict"
        return np.stack([getattr(member, method)(X) for member in self.estimators_])

    def __sklearn_tags__(self) -> Any:
        tags, base = super().__sklearn_tags__(), get_tags(self.base_estimator)
        for name in ("estimator_type", "target_tags", "classifier_tags", "regressor_tags", "input_tags"):
            setattr(tags, name, getattr(base, name))
        if is_classifier(self.base_estimator):
            tags.classifier_tags.multi_label = tags.target_tags.multi_output = False
        return tags


def _fit(member: Any, X: Any, y: Any, options: dict[str, Any]) -> Any:
    return member.fit(X, y, **options)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Return by how much, on average, a classifier's confidence misses its accuracy.

    The rows are put into bins of equal width by their confidence, the largest probability of the row::

        ECE = Σ_b (n_b/n)·|accuracy_b − mean confidence_b|

    0 is perfect, 1 the worst. The value depends on ``bins`` and, with few rows a bin, is biased upwards; a constant
    prediction of the base rates is calibrated as well. Source: Naeini et al. 2015; Guo et al. 2017, eq. 3.

    Args:
        probabilities: shape (n, classes), rows summing to 1; or (n,), the probability of class 1 of two.
        labels: shape (n,), class numbers from 0: the column of each row's class.
        bins: at least 1; a bin contains its upper end.

    Raises:
        TypeError, ValueError: shapes do not fit, or a value is out of range.
    """
    check_int(bins, "bins", minimum=1)
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if values.ndim == 1:
        values = np.stack([1 - values, values], axis=1)
    if values.ndim != 2 or truth.shape != (len(values),) or not len(values):
        raise ValueError(f"probabilities and labels must have n > 0 rows each, got {values.shape} and {truth.shape}")
    if not ((values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-5)):  # float32's rounding
        raise ValueError("probabilities must be at least 0 and sum to 1 in every row; are these logits?")
    if truth.dtype.kind not in "iub" or truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ValueError(f"labels must be integers from 0 to {values.shape[1] - 1}, got {np.unique(truth)[:10]}")
    confidence, correct = values.max(axis=1), values.argmax(axis=1) == truth
    bin_of = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(bin_of, weights=correct - confidence)).sum() / len(values))
