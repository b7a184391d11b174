"""`KANRegressor` and `KANClassifier`: Kolmogorov-Arnold networks for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from course_utils._validation import check_sizes
from course_utils.estimators._base import AT_LEAST_1, NetworkClassifier, NetworkEstimator, NetworkRegressor, Problem
from course_utils.kan import KAN, KANLayer
from course_utils.reproducibility import make_generator

__all__ = ["KANClassifier", "KANEnsemble", "KANRegressor"]

_OUTER = 0.01  # of the rows at either end lie outside a grid, where splines go on linearly
_HIDDEN_REACH = 3.0  # standard deviations of a hidden node's initial values to either side


class KANEnsemble(nn.Module):
    """KANs side by side.

    Input (batch, widths[0]), output (batch, n_members, widths[-1]).

    Args:
        members: KANs of the same ``widths``. They stay modules of their own: at the sizes of tables, stacking their
            weights for one product saves at most half of a step, and each remains a KAN to prune, plot or read.

    Attributes:
        n_members: how many.
        fold_index: one integer a member, so that each holds out other rows.
        owners: for every parameter, by name, its member.
    """

    members: Sequence[KAN]

    def __init__(self, members: Sequence[KAN]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)  # type: ignore[assignment]  # which is a sequence of modules
        self.n_members = len(members)
        self.fold_index = list(range(self.n_members))
        self.owners = {
            f"members.{number}.{name}": slice(number, number + 1)
            for number, member in enumerate(members)
            for name, _ in member.named_parameters()
        }

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all members' outputs."""
        return torch.stack([member(inputs) for member in self.members], dim=1)


@dataclass(kw_only=True, eq=False, repr=False)
class _KAN(NetworkEstimator):
    hidden_features: tuple[int, ...] = (16,)
    n_members: int = 8
    grid_size: int = 5
    degree: int = 3
    base: str | None = "silu"
    numeric_scaling: str = "standard"
    lr: float = 5e-3

    _categorical: ClassVar[str] = "onehot"  # the edges of 0/1 inputs hold what a level adds
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = NetworkEstimator._parameter_constraints | {
        "n_members": [AT_LEAST_1],
    }

    def _make_module(self, problem: Problem) -> KANEnsemble:
        generator = make_generator(problem.seed)
        hidden = check_sizes(self.hidden_features, "hidden_features")
        members = [
            KAN(
                [problem.n_numeric, *hidden, problem.out_features],
                grid_size=self.grid_size,
                degree=self.degree,
                base=self.base,
                generator=generator,
            )
            for _ in range(self.n_members)
        ]
        for member in members:
            _place_grids(member, problem.inputs)
        return KANEnsemble(members)


@torch.no_grad()
def _place_grids(model: KAN, x: Tensor) -> None:
    """Put every grid where its node's values lie when the rows ``x``, (n, widths[0]), pass the initial model."""
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, KANLayer)
        if number == 0:
            quantiles = np.quantile(x.numpy(), [_OUTER, 1 - _OUTER], axis=0)
            low, high = torch.from_numpy(quantiles).to(x)
        else:  # wider than the values, which training moves
            reach = _HIDDEN_REACH * x.std(dim=0, correction=0)
            low, high = x.mean(dim=0) - reach, x.mean(dim=0) + reach
        rare = low >= high  # a column with nearly one value: from end to end
        low, high = torch.where(rare, x.amin(dim=0), low), torch.where(rare, x.amax(dim=0), high)
        constant = (low >= high).to(x)
        low, high = low - constant, high + constant
        layer.grid_low.copy_(low)
        layer.grid_step.copy_((high - low) / layer.grid_size)
        x = layer(x)


class KANRegressor(_KAN, NetworkRegressor):
    """Regression with Kolmogorov-Arnold networks on raw tables: numbers, categories, missing values.

    A scikit-learn estimator. Categories are the text, object and category columns of a DataFrame; each level becomes
    a 0/1 input. Rows that are equal in x and y are merged before training, their weights summed. Losses in
    ``history_`` are squared errors of the standardized target.

    Args:
        hidden_features: widths of the hidden layers; ``()`` makes additive models, one function of each input.
        n_members: number of KANs, trained side by side; their predictions are averaged.
        grid_size: intervals of every grid, at least 1. An input's grid leaves out 1% of the training rows at either
            end, a hidden node's reaches 3 standard deviations of its initial values to either side; beyond, splines go
            on linearly.
        degree: of the splines, at least 1.
        base: ``"silu"``, or ``None`` for splines alone; see `course_utils.kan.KANLayer`.
        numeric_scaling: ``"standard"``, ``"quantile"`` or ``"passthrough"``; see `preprocessing.make_preprocessor`.
        lr: learning rate of AdamW; warmed up over 5% of the training, then lowered to 0 along a cosine.
        weight_decay: of AdamW.
        batch_size: rows a step; ``"auto"``: 32 to 256, a 16th of the rows.
        max_epochs: after which training ends; ``"auto"``: 1,500 steps, with more than two classes 3,000, but at least
            10 epochs.
        patience: epochs without improvement on held-out rows after which it ends before; ``None``: it does not.
        validation_fraction: share of rows held out to choose the best epoch, in (0, 1). Each member holds out others.
            With fewer than 4 different rows, none are, and the training loss decides.
        random_state: what fixes all random draws; ``None`` draws from NumPy's global generator.
        device: where to train; the fitted module is on the CPU.
        verbose: whether to show a progress bar.

    Attributes:
        module_: the trained networks, an ``nn.Module`` in float64; each of ``module_.members`` is a
            `course_utils.kan.KAN` whose inputs are the columns of ``preprocessor_`` and whose output is standardized
            as the target was.
        preprocessor_: the fitted transformer from columns to inputs; ``get_feature_names_out()`` names them.
        history_: the losses, epoch by epoch; a `course_utils.training.History`.
        n_iter_: number of epochs.
        best_epochs_: (n_members,), the epochs whose weights each member has.
        member_weights_: (n_members,), how much each counts in the prediction: all alike.
        n_features_in_: number of columns.
        feature_names_in_: their names, if X was a DataFrame with text names.

    Raises:
        TypeError, ValueError: from ``fit``: a hyperparameter is out of range; the message shows its value.

    Example:
        >>> model = KANRegressor(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 2.0, 4.0, 6.0])
        >>> model.predict([[1.5]]).shape
        (1,)
    """


class KANClassifier(_KAN, NetworkClassifier):
    """Classification with Kolmogorov-Arnold networks on raw tables: numbers, categories, missing values.

    A scikit-learn estimator, with the same hyperparameters and attributes as `KANRegressor`, which explains them; the
    outputs of a member are logits. Losses in ``history_`` are cross-entropies in nats.

    Attributes:
        classes_: the labels, sorted.

    Example:
        >>> model = KANClassifier(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict_proba([[1.5]]).shape
        (1, 2)
    """
