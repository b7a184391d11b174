"""scikit-learn estimators around networks: everything but the network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils._validation import check_int
from course_utils.estimators._data import (
    Table,
    assign_folds,
    check_table,
    check_weights,
    merge_equal_rows,
    number_of_folds,
)
from course_utils.estimators._members import MemberEarlyStopping, MemberLoss, held_out_rows
from course_utils.preprocessing import cardinalities, make_preprocessor
from course_utils.training import ProgressBar, fit

__all__ = ["NetworkClassifier", "NetworkEstimator", "NetworkRegressor", "Problem"]

_ROWS_AT_A_TIME = 1024
_WARMUP = 0.05  # of the training


@dataclass
class Problem:
    """What a network is made for.

    Attributes:
        inputs: (n, n_numeric + n_categorical), float32: the training rows, equal ones merged.
        targets: (n, n_targets), float32: standardized numbers, or classes from 0.
        weights: (n,), float32, above 0.
        n_numeric: how many columns, the first ones, are numeric.
        cardinalities: of the other columns.
        out_features: width of the output.
        seed: for whatever is drawn.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    n_numeric: int
    cardinalities: tuple[int, ...]
    out_features: int
    seed: int


class NetworkEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of estimators that train a network on a table; `NetworkRegressor` and `NetworkClassifier` build on it.

    A subclass has the hyperparameters ``numeric_scaling, lr, batch_size, max_epochs, patience, validation_fraction,
    random_state, verbose, device``, and makes module and optimizer. A module whose output is
    (batch, n_members, out_features) says so by an attribute ``n_members``. If it has an attribute ``places``, one
    integer a member, each member has held-out rows of its own: the fold of that number, counted on through deals after
    deals; then it must take inputs of shape (batch, n_members, n_columns) too. A method ``parameter_owners()`` lets
    each member have its own best epoch (see `MemberEarlyStopping`).
    """

    # ------------------------------------------------------------------------------------------ for subclasses

    _categorical = "ordinal"  # or "onehot"

    def _make_preprocessor(self, X: Table, seed: int) -> Any:
        """Return an unfitted transformer to numeric columns followed by ordinal codes, if there are any."""
        scaling, categorical = self.numeric_scaling, self._categorical
        made = make_preprocessor(X, numeric=scaling, categorical=categorical, min_frequency=5, random_state=seed)
        if any(name == "categorical" for name, *_ in made.transformers):
            made.set_params(categorical__encode__max_categories=256)
        return made

    def _make_module(self, problem: Problem) -> nn.Module:
        """Return the network, initialized from ``problem.seed``."""
        raise NotImplementedError

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        raise NotImplementedError

    def _weigh_members(self, module: nn.Module, problem: Problem, held: Tensor) -> Tensor:
        """Return how much each member counts in predictions, (n_members,), float64, with sum 1.

        Args:
            module: trained.
            problem: what it was trained on.
            held: (n, n_members), which of its rows were held out from a member.
        """
        n_members = held.shape[1]
        return torch.full((n_members,), 1 / n_members, dtype=torch.float64)

    def _make_schedule(self, n_steps: int) -> Callable[[int], float]:
        """Return a factor on the learning rate for each step of ``n_steps``: a warm-up, then along a cosine to 0."""

        def factor(step: int) -> float:
            done = step / n_steps
            return min(1.0, (done + 1 / n_steps) / _WARMUP) * (1 + math.cos(math.pi * done)) / 2

        return factor

    def _batch_size(self, n_rows: int) -> int:
        if self.batch_size == "auto":
            return int(min(256, max(32, 2 ** round(math.log2(n_rows / 16)))))
        return check_int(self.batch_size, "batch_size", minimum=1)

    def _max_epochs(self, n_batches: int) -> int:
        if self.max_epochs == "auto":
            n_steps = 3000 if len(getattr(self, "classes_", ())) > 2 else 1500
            return max(10, round(n_steps / n_batches))
        return check_int(self.max_epochs, "max_epochs", minimum=1)

    # What regression and classification do differently.
    _row_losses: Callable[[Tensor, Tensor], Tensor]  # see MemberLoss
    _activate: Callable[[Tensor], Tensor]  # outputs (…, out_features) -> predictions
    _point_losses: Callable[[Tensor, Tensor], Tensor]  # predictions (n, out_features), targets (n, n_targets) -> (n,)

    def _check_target(self, y: Any) -> NDArray[Any]:
        """Return y as a checked array, (n,) or (n, n_outputs)."""
        raise NotImplementedError

    def _encode_target(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return floats (n, n_outputs) or classes (n,), learning the classes."""
        raise NotImplementedError

    def _scale_target(self, y: NDArray[Any], weights: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
        """Return what the network is to predict, (n, n_targets), and the width of its output."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------- scikit-learn

    def __sklearn_tags__(self) -> Any:
        """Missing values are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on a table.

        A row of weight k counts as k copies of it, one of weight 0 as if it were not there. KeyboardInterrupt (the
        stop button) ends the training with a warning; the estimator is then fitted with the best weights so far.

        Args:
            X: (n, n_columns), a DataFrame or an array of numbers; a DataFrame's text, object and category columns are
                categories, values may be missing.
            y: (n,) targets; for regression also (n, n_outputs).
            sample_weight: (n,), at least 0; ``None`` weighs all rows alike.

        Returns:
            The estimator itself.

        Raises:
            TypeError: X is sparse, or has columns of a type that is no input.
            ValueError: X, y, weights or a hyperparameter are not what they should be; in scikit-learn's words where it
                has some.
            course_utils.training.NonFiniteLossError: the loss became NaN or infinite; try a smaller ``lr``.
        """
        if y is None:
            name = type(self).__name__
            raise ValueError(f"This {name} estimator requires y to be passed, but the target y is None.")
        X = check_table(self, X, reset=True)
        y = self._check_target(y)
        check_consistent_length(X, y)
        weights = check_weights(sample_weight, X)
        present = np.flatnonzero(weights)
        if len(present) < len(weights):
            X, y, weights = _take(X, present), y[present], weights[present]
        y = self._encode_target(y)
        rows = merge_equal_rows(X, y, weights)
        self._fit_merged(_take(X, rows.positions), y[rows.positions], rows.weights, rows.groups)
        return self

    def _fit_merged(self, X: Table, y: NDArray[Any], weights: NDArray[np.float64], groups: NDArray[np.intp]) -> None:
        """Train on distinct rows."""
        # One draw from what the user gave: NumPy's global stream if that was None, as scikit-learn has it.
        rng = np.random.default_rng(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        preprocessor_seed, module_seed, training_seed = (int(seed) for seed in rng.integers(2**31, size=3))
        self.preprocessor_ = self._make_preprocessor(X, preprocessor_seed)
        inputs = torch.from_numpy(self.preprocessor_.fit_transform(X)).float()
        codes = cardinalities(self.preprocessor_)
        scaled, out_features = self._scale_target(y, weights)
        problem = Problem(
            inputs=inputs,
            targets=torch.from_numpy(scaled).float(),
            weights=torch.from_numpy(weights).float(),
            n_numeric=inputs.shape[1] - len(codes),
            cardinalities=codes,
            out_features=out_features,
            seed=module_seed,
        )
        module = self._make_module(problem)
        places = np.asarray(getattr(module, "places", [0] * getattr(module, "n_members", 1)))
        n_folds = number_of_folds(self.validation_fraction, len(np.unique(groups)))
        n_deals = 1 + max(places) // n_folds
        folds = assign_folds(y if y.ndim == 1 else y[:, 0], groups, n_folds=n_folds, n_deals=n_deals, rng=rng)
        held = torch.from_numpy((folds[:, places // n_folds] == places % n_folds) & (n_folds > 1))
        self._train(module, problem, held, separate=hasattr(module, "places"), seed=training_seed)
        # Predictions in double precision do not depend on which rows are predicted together.
        self.module_ = module.to("cpu").double().eval()
        self.member_weights_ = self._weigh_members(self.module_, problem, held)

    def _train(self, module: nn.Module, problem: Problem, held: Tensor, *, separate: bool, seed: int) -> None:
        train, val = _pack(problem, held, separate=separate)
        batch_size, n_batches = self._split_epoch(module, len(train[0]))
        max_epochs = self._max_epochs(n_batches)
        loss = MemberLoss(self._row_losses, held.shape[1])
        find_owners = getattr(module, "parameter_owners", None)
        owners = None if find_owners is None else find_owners()
        stopping = MemberEarlyStopping(loss, patience=self.patience, owners=owners)
        self.history_ = fit(
            module,
            train,
            loss_fn=loss,
            optimizer=self._make_optimizer(module),
            val=val,
            max_epochs=max_epochs,
            batch_size=batch_size,
            callbacks=[stopping, ProgressBar()] if self.verbose else [stopping],
            schedule=self._make_schedule(max_epochs * n_batches),
            seed=seed,
            device=self.device,
        )
        if self.history_.stopped_by == "interrupted":
            warnings.warn("Training interrupted by user.", stacklevel=4)  # scikit-learn's words
        self.n_iter_ = len(self.history_)
        self.best_epochs_ = stopping.best_epochs.numpy()

    def _split_epoch(self, module: nn.Module, n_rows: int) -> tuple[int, int]:
        """Return batch size and number of batches, so that the batches are about equally large."""
        n_batches = -(-n_rows // min(self._batch_size(n_rows), n_rows))
        size = -(-n_rows // n_batches)
        if any(isinstance(layer, nn.BatchNorm1d) for layer in module.modules()):
            while size < n_rows and (size == 1 or n_rows % size == 1):  # BatchNorm takes no batch of one row
                size += 1
        return size, -(-n_rows // size)

    def _mean_prediction(self, X: Any) -> NDArray[np.float64]:
        """Return the weighted mean of the members' predictions, (n, out_features)."""
        check_is_fitted(self)
        table = check_table(self, X, reset=False)
        inputs = torch.from_numpy(self.preprocessor_.transform(table))
        with torch.no_grad():
            parts = [self._predict_members(self.module_, rows) for rows in inputs.split(_ROWS_AT_A_TIME)]
        mean: NDArray[np.float64] = torch.cat([self.member_weights_ @ part for part in parts]).numpy()
        return mean

    def _predict_members(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return each member's prediction, (batch, n_members, out_features)."""
        outputs = module(inputs)
        return self._activate(outputs if outputs.ndim == 3 else outputs[:, None])


def _take(X: Table, rows: NDArray[np.intp]) -> Table:
    return X[rows] if isinstance(X, np.ndarray) else X.iloc[rows]


def _pack(problem: Problem, held: Tensor, *, separate: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return inputs and packed targets (see `MemberLoss`) to train on and to validate with.

    Args:
        problem: all rows.
        held: (n, n_members), whether a row is held out from a member; none is if there are too few.
        separate: whether the members may differ in that.
    """
    inputs, targets, weights = problem.inputs, problem.targets, problem.weights
    if not held.any(dim=0).all():  # then the best epoch is that of the lowest training loss
        held = torch.zeros_like(held)
        if len(inputs) == 1:  # a second copy, for BatchNorm
            inputs, targets, weights, held = (torch.cat([t, t]) for t in (inputs, targets, weights, held))
        own = (weights / weights.mean())[:, None].expand(held.shape)
        data = inputs, torch.cat([targets, own], dim=1)
        return data, data
    if separate:
        own = weights[:, None] * ~held
        rows, val_weights = held_out_rows(held, weights)
        packed = torch.cat([targets[rows], val_weights[..., None]], dim=2)
        return (inputs, torch.cat([targets, own / own.mean(dim=0)], dim=1)), (inputs[rows], packed)
    parts = []
    for rows in (~held[:, 0], held[:, 0]):
        own = (weights[rows] / weights[rows].mean())[:, None].expand(-1, held.shape[1])
        parts.append((inputs[rows], torch.cat([targets[rows], own], dim=1)))
    return parts[0], parts[1]


class NetworkRegressor(RegressorMixin, NetworkEstimator):  # type: ignore[misc]
    """Squared error on standardized targets; several outputs at once if y is (n, n_outputs)."""

    def __sklearn_tags__(self) -> Any:
        """Several outputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the mean of the members' predictions, (n,), or (n, n_outputs) if y was so in ``fit``.

        Args:
            X: (n, n_columns), the columns of ``fit``; levels that it did not have are treated as unknown.

        Raises:
            sklearn.exceptions.NotFittedError: before ``fit``.
            ValueError: X does not have the columns of ``fit``, or holds an infinity.
        """
        values: NDArray[np.float64] = self._mean_prediction(X) * self._target_scale + self._target_mean
        return values if self._several_outputs else values[:, 0]

    def _check_target(self, y: Any) -> NDArray[Any]:
        checked: NDArray[Any] = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self)
        return column_or_1d(checked, warn=True) if checked.ndim == 2 and checked.shape[1] == 1 else checked

    def _encode_target(self, y: NDArray[Any]) -> NDArray[Any]:
        self._several_outputs = y.ndim == 2
        return y.reshape(len(y), -1)

    def _scale_target(self, y: NDArray[Any], weights: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
        self._target_mean = np.average(y, axis=0, weights=weights)
        scale = np.sqrt(np.average((y - self._target_mean) ** 2, axis=0, weights=weights))
        self._target_scale = scale  # 0 for a constant: predicted as it is
        return (y - self._target_mean) / np.where(scale > 0, scale, 1.0), y.shape[1]

    @staticmethod
    def _row_losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(dim=2)

    @staticmethod
    def _activate(outputs: Tensor) -> Tensor:
        return outputs

    @staticmethod
    def _point_losses(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).square().mean(dim=1)


class NetworkClassifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
    """Cross-entropy; the predicted probability is the mean of the members'."""

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of ``classes_``, (n, n_classes).

        Args:
            X: (n, n_columns), the columns of ``fit``; levels that it did not have are treated as unknown.

        Raises:
            sklearn.exceptions.NotFittedError: before ``fit``.
            ValueError: X does not have the columns of ``fit``, or holds an infinity.
        """
        return self._mean_prediction(X)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, (n,); see `predict_proba`."""
        best = self.predict_proba(X).argmax(axis=1)
        classes: NDArray[Any] = self.classes_[best]
        return classes

    def _check_target(self, y: Any) -> NDArray[Any]:
        labels: NDArray[Any] = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y", estimator_name=type(self).__name__)
        check_classification_targets(labels)
        return labels

    def _encode_target(self, y: NDArray[Any]) -> NDArray[Any]:
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:  # in the words of GradientBoostingClassifier
            raise ValueError(
                f"y contains {len(self.classes_)} class after sample_weight trimmed classes with zero weights, "
                "while a minimum of 2 classes are required."
            )
        return codes

    def _scale_target(self, y: NDArray[Any], weights: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
        return y[:, None], len(self.classes_)

    @staticmethod
    def _row_losses(outputs: Tensor, targets: Tensor) -> Tensor:
        index = targets.long().expand(*outputs.shape[:2], 1)
        return -F.log_softmax(outputs, dim=2).gather(2, index).squeeze(2)

    @staticmethod
    def _activate(outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-1)

    @staticmethod
    def _point_losses(predictions: Tensor, targets: Tensor) -> Tensor:
        return -predictions.gather(1, targets.long()).squeeze(1).clamp_min(1e-7).log()
