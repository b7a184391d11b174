"""scikit-learn estimators around networks: everything but the network."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils.estimators._data import (
    as_array,
    assign_folds,
    merge_equal_rows,
    n_folds_for,
    read_table,
    read_weights,
)
from course_utils.estimators._members import HeldOut, MemberEarlyStopping, MemberLoss, RowLosses, split_members
from course_utils.preprocessing import cardinalities, make_preprocessor
from course_utils.training import Callback, ProgressBar, fit

__all__ = [
    "AT_LEAST_1",
    "PROBABILITY",
    "NetworkClassifier",
    "NetworkEstimator",
    "NetworkRegressor",
    "Problem",
]

_ROWS_AT_A_TIME = 1024
_WARMUP = 0.05  # of the training

# What hyperparameters may be, in scikit-learn's terms.
AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
PROBABILITY = Interval(Real, 0, 1, closed="left")


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


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of estimators that train a network on a table; `NetworkRegressor` and `NetworkClassifier` build on it.

    A subclass is a dataclass too: its fields are the hyperparameters of its architecture, `_parameter_constraints` says
    what they may be (or the network does), and `_make_module` makes the network.

    A network whose output is (batch, n_members, out_features) is an ensemble. It has the attributes ``n_members``;
    ``fold_index``, one integer a member: each member has held-out rows of its own, the fold of that number, counted on
    through the folds of further repeats; and ``owners``, for every parameter, by name, the slice of the members whose
    weights it holds along its first dimension, so that each has its own best epoch.
    """

    numeric_scaling: str = "quantile"
    lr: float = 2e-3
    weight_decay: float = 1e-2
    batch_size: int | str = "auto"
    max_epochs: int | str = "auto"
    patience: int | None = 24
    validation_fraction: float = 0.125
    random_state: int | np.random.RandomState | None = None
    device: str = "cpu"
    verbose: bool = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "numeric_scaling": [StrOptions({"quantile", "standard", "passthrough"})],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [AT_LEAST_1, StrOptions({"auto"})],
        "max_epochs": [AT_LEAST_1, StrOptions({"auto"})],
        "patience": [AT_LEAST_1, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # ------------------------------------------------------------------------------------------ for subclasses

    _categorical: ClassVar[str] = "ordinal"  # or "onehot"

    def _make_preprocessor(self, X: pd.DataFrame, seed: int) -> Any:
        """Return an unfitted transformer to numeric columns followed by ordinal codes, if there are any."""
        scaling, categorical = self.numeric_scaling, self._categorical
        made = make_preprocessor(X, numeric=scaling, categorical=categorical, min_frequency=5, random_state=seed)
        if any(name == "categorical" for name, *_ in made.transformers):
            made.set_params(categorical__encode__max_categories=256)
        return made.set_output(transform="default")  # an array, whatever the user's other transformers return

    @abstractmethod
    def _make_module(self, problem: Problem) -> nn.Module:
        """Return the network, initialized from ``problem.seed``."""

    def _decay_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups."""
        return [{"params": list(module.parameters()), "weight_decay": self.weight_decay}]

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
        return int(self.batch_size)

    def _max_epochs(self, n_batches: int) -> int:
        if self.max_epochs == "auto":
            n_steps = 3000 if len(getattr(self, "classes_", ())) > 2 else 1500
            return max(10, round(n_steps / n_batches))
        return int(self.max_epochs)

    # ----------------------------------------------------------- what regression and classification do differently

    @abstractmethod
    def _check_target(self, y: Any) -> NDArray[Any]:
        """Return y as a checked array, (n,) or (n, n_outputs)."""

    @abstractmethod
    def _encode_target(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return floats (n, n_outputs) or classes (n,), learning the classes."""

    @abstractmethod
    def _scale_target(self, y: NDArray[Any], weights: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
        """Return what the network is to predict, (n, n_targets), and the width of its output."""

    @staticmethod
    @abstractmethod
    def _row_losses(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return each member's loss of each row; see `MemberLoss`."""

    @staticmethod
    @abstractmethod
    def _activate(outputs: Tensor) -> Tensor:
        """Return predictions of the shape of the outputs, (…, out_features)."""

    @staticmethod
    @abstractmethod
    def _point_losses(predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the losses, (n,), of predictions (n, out_features) for targets (n, n_targets)."""

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
            X: (n, n_columns), a DataFrame of pandas or polars or an array of numbers; a DataFrame's columns of text
                or of pandas categories are categories, as are those of objects that are not all numbers. Values may
                be missing.
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
        self._validate_params()
        if y is None:
            name = type(self).__name__
            raise ValueError(f"This {name} estimator requires y to be passed, but the target y is None.")
        X = read_table(self, X, reset=True)
        y = self._check_target(y)
        check_consistent_length(X, y)
        weights = read_weights(sample_weight, X)
        present = np.flatnonzero(weights)
        X, y, weights = X.iloc[present], y[present], weights[present]
        y = self._encode_target(y)
        rows = merge_equal_rows(X, y, weights)
        self._fit_merged(X.iloc[rows.positions], y[rows.positions], rows.weights, rows.groups)
        return self

    def _fit_merged(
        self, X: pd.DataFrame, y: NDArray[Any], weights: NDArray[np.float64], groups: NDArray[np.intp]
    ) -> None:
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
        fold_index = np.asarray(getattr(module, "fold_index", [0]))
        n_folds = n_folds_for(self.validation_fraction, len(np.unique(groups)))
        n_repeats = 1 + max(fold_index) // n_folds
        folds = assign_folds(y if y.ndim == 1 else y[:, 0], groups, n_folds=n_folds, n_repeats=n_repeats, rng=rng)
        held = torch.from_numpy(folds[:, fold_index // n_folds] == fold_index % n_folds)
        if n_folds == 1 or not held.any(dim=0).all():
            held = torch.zeros_like(held)
        self._train(module, problem, held, seed=training_seed)
        # Predictions in double precision do not depend on which rows are predicted together.
        self.module_ = module.to("cpu").double().eval()
        self.member_weights_ = self._weigh_members(self.module_, problem, held)

    def _train(self, module: nn.Module, problem: Problem, held: Tensor, *, seed: int) -> None:
        rows = (~held).any(dim=1).nonzero()[:, 0]
        if len(rows) == 1:  # a second copy, for BatchNorm
            rows = rows.repeat(2)
        shown = ~held[rows]
        weights = problem.weights[rows]
        targets = torch.where(shown[..., None], problem.targets[rows][:, None], torch.nan)
        loss = MemberLoss(self._row_losses, weights.sum() / (weights[:, None] * shown).sum(dim=0))
        stopping = MemberEarlyStopping(
            _held_out(problem, held, self._row_losses),
            patience=self.patience,
            owners=getattr(module, "owners", None),
        )
        callbacks: list[Callback] = [stopping, ProgressBar()] if self.verbose else [stopping]
        batch_size, n_batches = self._split_epoch(module, len(rows))
        max_epochs = self._max_epochs(n_batches)
        self.history_ = fit(
            module,
            (problem.inputs[rows], targets),
            sample_weight=weights,
            loss_fn=loss,
            optimizer=torch.optim.AdamW(self._decay_groups(module), lr=self.lr, betas=(0.9, 0.99), fused=True),
            max_epochs=max_epochs,
            batch_size=batch_size,
            callbacks=callbacks,
            schedule=self._make_schedule(max_epochs * n_batches),
            seed=seed,
            device=self.device,
        )
        state = self.history_.state_dict()
        val_losses = [*stopping.mean_losses, math.nan]  # an interrupt may come before the last epoch is judged
        for metrics, val_loss in zip(state["metrics"], val_losses, strict=False):
            metrics["val_loss"] = val_loss
        self.history_.load_state_dict(state)
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
        inputs = torch.from_numpy(self.preprocessor_.transform(read_table(self, X, reset=False)))
        members = self._predict_members(self.module_, inputs)
        mean: NDArray[np.float64] = (self.member_weights_ @ members).numpy()
        return mean

    @torch.no_grad()
    def _predict_members(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return each member's prediction, (n, n_members, out_features)."""
        parts = [self._activate(split_members(module(rows))) for rows in inputs.split(_ROWS_AT_A_TIME)]
        return torch.cat(parts)


def _held_out(problem: Problem, held: Tensor, row_losses: RowLosses) -> HeldOut:
    """Return what is held out from members; if nothing is, all rows: the best epoch is that of the training loss."""
    judging = held if held.any() else torch.ones_like(held)
    rows = judging.any(dim=1)
    weights = problem.weights[rows][:, None] * judging[rows]
    return HeldOut(problem.inputs[rows], problem.targets[rows], weights / weights.sum(dim=0), row_losses)


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
        checked: NDArray[Any] = check_array(
            as_array(y), ensure_2d=False, dtype=np.float64, input_name="y", estimator=self
        )
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
        labels: NDArray[Any] = column_or_1d(as_array(y), warn=True)
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
