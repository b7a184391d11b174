"""Estimators around the networks for tables: MLPs, alone and as an ensemble, ResNet and FT-Transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from course_utils.estimators._base import (
    AT_LEAST_1,
    PROBABILITY,
    NetworkClassifier,
    NetworkEstimator,
    NetworkRegressor,
    Problem,
)
from course_utils.regularizers import decay_groups
from course_utils.reproducibility import make_generator
from course_utils.tabular import EnsembleLinear, EnsembleMLP, FTTransformer, TabularMLP, TabularResNet, compute_bins

__all__ = [
    "FTTransformerClassifier",
    "FTTransformerRegressor",
    "MLPClassifier",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "MixedEnsemble",
    "TabularResNetClassifier",
    "TabularResNetRegressor",
]


class MixedEnsemble(nn.Module):
    """Ensembles side by side, which see numeric columns in different ways.

    Input (batch, n_columns), output (batch, n_members, out_features).

    Args:
        parts: the ensembles, of the same ``out_features``.

    Attributes:
        n_members: of all parts together.
        slices: one a part, its members.
        fold_index: one integer a member, its number in its part, so that the parts hold out the same rows.
        owners: for every parameter, by name, the members along its first dimension.
    """

    parts: Sequence[EnsembleMLP]

    def __init__(self, parts: Sequence[EnsembleMLP]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)  # type: ignore[assignment]  # which is a sequence of modules
        ends = np.cumsum([part.n_members for part in parts]).tolist()
        self.n_members = ends[-1]
        self.slices = [slice(end - part.n_members, end) for part, end in zip(parts, ends, strict=True)]
        self.fold_index = [number for part in parts for number in range(part.n_members)]
        self.owners = {
            f"parts.{index}.{name}": self.slices[index]
            for index, part in enumerate(parts)
            for name, _ in part.named_parameters()
        }

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all members' outputs."""
        return torch.cat([part(inputs) for part in self.parts], dim=1)


class _DecaysWeights(NetworkEstimator):
    """AdamW decays the weights, not the biases."""

    def _decay_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        return decay_groups(module, self.weight_decay)


@dataclass(kw_only=True, eq=False, repr=False)
class _MLPEnsemble(_DecaysWeights):
    n_members: int = 8
    hidden_features: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    dropout: float = 0.0
    numeric_embedding: str | None = "mixed"
    n_bins: int = 16

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = NetworkEstimator._parameter_constraints | {
        "n_members": [AT_LEAST_1],
        "dropout": [PROBABILITY],
        "numeric_embedding": [StrOptions({"piecewise", "mixed"}), None],
        "n_bins": [AT_LEAST_1],
    }

    def _make_module(self, problem: Problem) -> nn.Module:
        generator = make_generator(problem.seed)
        bins = None
        n_plain = self.n_members
        if self.numeric_embedding is not None and problem.n_numeric:
            bins = compute_bins(problem.inputs[:, : problem.n_numeric], self.n_bins)
            n_plain = self.n_members // 2 if self.numeric_embedding == "mixed" else 0
        parts = [
            EnsembleMLP(
                problem.n_numeric,
                problem.cardinalities,
                problem.out_features,
                n_members=n_members,
                hidden_features=self.hidden_features,
                activation=self.activation,
                dropout=self.dropout,
                bins=edges,
                generator=generator,
            )
            for n_members, edges in ((n_plain, None), (self.n_members - n_plain, bins))
            if n_members
        ]
        for part in parts:
            _spread_out(part, generator)
        return MixedEnsemble(parts)

    def _weigh_members(self, module: nn.Module, problem: Problem, held: Tensor) -> Tensor:
        even = super()._weigh_members(module, problem, held)
        if isinstance(module, MixedEnsemble) and len(module.parts) == 2 and held.any():
            return self._blend(module, problem, held)
        return even

    def _blend(self, module: MixedEnsemble, problem: Problem, held: Tensor) -> Tensor:
        """Return member weights that minimize the loss on held-out rows over the share of the second part."""
        judged = torch.stack([held[:, members].any(dim=1) for members in module.slices]).all(dim=0)
        predictions = self._predict_members(module, problem.inputs[judged].double())
        means = []
        for members in module.slices:
            judging = held[judged, members].double()[..., None]
            means.append((predictions[:, members] * judging).sum(dim=1) / judging.sum(dim=1))
        targets = problem.targets[judged].double()
        weights = problem.weights[judged].double()
        shares = torch.linspace(0, 1, 11, dtype=torch.float64)
        plain, piecewise = means
        losses = [weights @ self._point_losses(torch.lerp(plain, piecewise, share), targets) for share in shares]
        share = shares[torch.stack(losses).argmin()]
        result = torch.empty(module.n_members, dtype=torch.float64)
        for members, of_part in zip(module.slices, (1 - share, share), strict=True):
            result[members] = of_part / (members.stop - members.start)
        return result


@torch.no_grad()
def _spread_out(ensemble: EnsembleMLP, generator: torch.Generator) -> None:
    """Initialize by He et al. 2015, with first biases that place the ReLUs' kinks among the data, and small outputs."""
    layers = [layer for layer in ensemble.layers if isinstance(layer, EnsembleLinear)]
    for layer in layers:
        gain = 0.3 if layer is layers[-1] else math.sqrt(2)
        layer.weight.normal_(0, gain / math.sqrt(max(layer.weight.shape[1], 1)), generator=generator)
        layer.bias.zero_()
    if len(layers) > 1:
        layers[0].bias.normal_(0, 0.5, generator=generator)


@dataclass(kw_only=True, eq=False, repr=False)
class _MLP(_DecaysWeights):
    hidden_features: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    dropout: float = 0.0
    numeric_embedding: str | None = "piecewise"
    n_bins: int = 16

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = NetworkEstimator._parameter_constraints | {
        "dropout": [PROBABILITY],
        "numeric_embedding": [StrOptions({"piecewise"}), None],
        "n_bins": [AT_LEAST_1],
    }

    def _make_module(self, problem: Problem) -> nn.Module:
        bins = None
        if self.numeric_embedding is not None and problem.n_numeric:
            bins = compute_bins(problem.inputs[:, : problem.n_numeric], self.n_bins)
        return TabularMLP(
            problem.n_numeric,
            problem.cardinalities,
            problem.out_features,
            hidden_features=self.hidden_features,
            activation=self.activation,
            dropout=self.dropout,
            bins=bins,
            generator=make_generator(problem.seed),
        )


@dataclass(kw_only=True, eq=False, repr=False)
class _TabularResNet(_DecaysWeights):
    n_blocks: int = 2
    d_block: int = 64
    dropout: float = 0.0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = NetworkEstimator._parameter_constraints | {
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "d_block": [AT_LEAST_1],
        "dropout": [PROBABILITY],
    }

    def _make_module(self, problem: Problem) -> nn.Module:
        return TabularResNet(
            problem.n_numeric,
            problem.cardinalities,
            problem.out_features,
            n_blocks=self.n_blocks,
            d_block=self.d_block,
            dropout=self.dropout,
            generator=make_generator(problem.seed),
        )


@dataclass(kw_only=True, eq=False, repr=False)
class _FTTransformer(_DecaysWeights):
    n_blocks: int = 2
    d_block: int = 64
    n_heads: int = 8
    attention_dropout: float = 0.2
    dropout: float = 0.0

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = NetworkEstimator._parameter_constraints | {
        "n_blocks": [AT_LEAST_1],
        "d_block": [AT_LEAST_1],
        "n_heads": [AT_LEAST_1],
        "attention_dropout": [PROBABILITY],
        "dropout": [PROBABILITY],
    }

    def _make_module(self, problem: Problem) -> nn.Module:
        return FTTransformer(
            problem.n_numeric,
            problem.cardinalities,
            problem.out_features,
            n_blocks=self.n_blocks,
            d_token=self.d_block,
            n_heads=self.n_heads,
            attention_dropout=self.attention_dropout,
            ffn_dropout=self.dropout,
            generator=make_generator(problem.seed),
        )


class MLPEnsembleRegressor(_MLPEnsemble, NetworkRegressor):
    """Regression with multilayer perceptrons side by side on raw tables: numbers, categories, missing values.

    A scikit-learn estimator: ``n_members`` MLPs, trained at once as one network (`course_utils.tabular.EnsembleMLP`),
    whose predictions are averaged. Categories are the columns of a DataFrame that hold text, pandas categories or
    objects that are not all numbers. Rows that are equal in x and y are merged before training, their weights summed.
    Losses in ``history_`` are squared errors of the standardized target.

    Args:
        n_members: number of MLPs.
        hidden_features: widths of the hidden layers.
        activation: of the hidden layers, a name as in `course_utils.models.MLP`.
        dropout: probability of *dropping* a hidden activation, in [0, 1).
        numeric_embedding: ``"piecewise"`` spreads every number over bins, which lets a network follow jumps; ``None``
            takes it as it is; ``"mixed"`` does the one for half of the members and the other for the rest, and weighs
            the halves by their error on held-out rows.
        n_bins: the largest number of bins, at least 1.
        numeric_scaling: ``"quantile"``, ``"standard"`` or ``"passthrough"``; see `preprocessing.make_preprocessor`.
        lr: learning rate of AdamW; warmed up over 5% of the training, then lowered to 0 along a cosine.
        weight_decay: of AdamW, on weights, not on biases.
        batch_size: rows a step; ``"auto"``: 32 to 256, a 16th of the rows.
        max_epochs: after which training ends; ``"auto"``: 1,500 steps, with more than two classes 3,000, but at least
            10 epochs.
        patience: epochs without improvement on held-out rows after which it ends before; ``None``: it does not.
        validation_fraction: share of rows held out to choose the best epoch, in (0, 1). Each member of an ensemble
            holds out others. With fewer than 4 different rows, none are, and the training loss decides.
        random_state: what fixes all random draws; ``None`` draws from NumPy's global generator.
        device: where to train; the fitted module is on the CPU.
        verbose: whether to show a progress bar.

    Attributes:
        module_: the trained network, in float64.
        preprocessor_: the fitted transformer from columns to the network's inputs.
        history_: the losses, epoch by epoch; a `course_utils.training.History`.
        n_iter_: number of epochs.
        best_epochs_: (n_members,), the epochs whose weights each member has.
        member_weights_: (n_members,), how much each counts in the prediction; they sum to 1.
        n_features_in_: number of columns.
        feature_names_in_: their names, if X was a DataFrame with text names.

    Raises:
        TypeError, ValueError: from ``fit``: a hyperparameter is out of range; the message shows its value.

    Example:
        >>> model = MLPEnsembleRegressor(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 2.0, 4.0, 6.0])
        >>> model.predict([[1.5]]).shape
        (1,)
    """


class MLPEnsembleClassifier(_MLPEnsemble, NetworkClassifier):
    """Classification with multilayer perceptrons side by side on raw tables.

    A scikit-learn estimator, with the same hyperparameters and attributes as `MLPEnsembleRegressor`, which explains
    them; the members' probabilities are averaged. Losses in ``history_`` are cross-entropies in nats.

    Attributes:
        classes_: the labels, sorted.

    Example:
        >>> model = MLPEnsembleClassifier(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict_proba([[1.5]]).shape
        (1, 2)
    """


class MLPRegressor(_MLP, NetworkRegressor):
    """Regression with one multilayer perceptron on raw tables: numbers, categories, missing values.

    A scikit-learn estimator around `course_utils.tabular.TabularMLP`. `MLPEnsembleRegressor` is usually better; it
    explains what all estimators share: the attributes, and the hyperparameters that are not named here.

    Args:
        hidden_features: widths of the hidden layers; ``()`` makes a linear model.
        activation: of the hidden layers, a name as in `course_utils.models.MLP`.
        dropout: probability of *dropping* a hidden activation, in [0, 1).
        numeric_embedding: ``"piecewise"`` spreads every number over bins, which lets a network follow jumps; ``None``
            takes it as it is.
        n_bins: the largest number of bins, at least 1.

    Example:
        >>> model = MLPRegressor(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 2.0, 4.0, 6.0])
        >>> model.predict([[1.5]]).shape
        (1,)
    """


class MLPClassifier(_MLP, NetworkClassifier):
    """Classification with one multilayer perceptron on raw tables; hyperparameters as those of `MLPRegressor`.

    Attributes:
        classes_: the labels, sorted.
    """


class TabularResNetRegressor(_TabularResNet, NetworkRegressor):
    """Regression with a residual network on raw tables: numbers, categories, missing values.

    A scikit-learn estimator around `course_utils.tabular.TabularResNet`. `MLPEnsembleRegressor` explains what all
    estimators share: the attributes, and the hyperparameters that are not named here.

    Args:
        n_blocks: number of residual blocks, at least 0.
        d_block: width between the blocks.
        dropout: probability of *dropping* a hidden activation of a block, in [0, 1).
    """


class TabularResNetClassifier(_TabularResNet, NetworkClassifier):
    """Classification with a residual network on raw tables; hyperparameters as those of `TabularResNetRegressor`.

    Attributes:
        classes_: the labels, sorted.
    """


class FTTransformerRegressor(_FTTransformer, NetworkRegressor):
    """Regression with an FT-Transformer on raw tables: numbers, categories, missing values.

    A scikit-learn estimator around `course_utils.tabular.FTTransformer`. `MLPEnsembleRegressor` explains what all
    estimators share: the attributes, and the hyperparameters that are not named here.

    Args:
        n_blocks: number of blocks, at least 1.
        d_block: width of a block: the length of a token, a multiple of ``n_heads``.
        n_heads: heads of each attention.
        attention_dropout: probability of *dropping* an attention weight, in [0, 1).
        dropout: probability of *dropping* a hidden activation of a block's network, in [0, 1).
    """


class FTTransformerClassifier(_FTTransformer, NetworkClassifier):
    """Classification with an FT-Transformer on raw tables; hyperparameters as those of `FTTransformerRegressor`.

    Attributes:
        classes_: the labels, sorted.
    """
