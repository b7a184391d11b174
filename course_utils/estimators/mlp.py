"""`MLPRegressor` and `MLPClassifier`: multilayer perceptrons and their relatives for tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils._validation import check_int, check_non_negative, check_one_of, check_positive
from course_utils.estimators._base import NetworkClassifier, NetworkEstimator, NetworkRegressor, Problem
from course_utils.estimators._members import held_out_rows
from course_utils.regularizers import decay_groups
from course_utils.reproducibility import make_generator
from course_utils.tabular import EnsembleLinear, EnsembleMLP, FTTransformer, TabularMLP, TabularResNet, compute_bins

__all__ = ["MLPClassifier", "MLPRegressor", "MixedEnsemble"]

_ARCHITECTURES = ("ensemble", "mlp", "resnet", "ft_transformer")


class MixedEnsemble(nn.Module):
    """Ensembles side by side, which see numeric columns in different ways.

    Input (batch, n_columns), or (batch, n_members, n_columns) with rows of its own for each member; output
    (batch, n_members, out_features).

    Args:
        parts: the ensembles, of the same ``out_features``.

    Attributes:
        n_members: of all parts together.
        slices: one a part, its members.
        places: one integer a member, its number in its part, so that the parts hold out the same rows.
    """

    parts: Sequence[EnsembleMLP]

    def __init__(self, parts: Sequence[EnsembleMLP]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)  # type: ignore[assignment]  # which is a sequence of modules
        ends = np.cumsum([part.n_members for part in parts]).tolist()
        self.slices = [slice(end - part.n_members, end) for part, end in zip(parts, ends, strict=True)]
        self.n_members = ends[-1]
        self.places = [place for part in parts for place in range(part.n_members)]

    def parameter_owners(self) -> dict[str, slice]:
        """Return for every parameter, by name, the members along its first dimension."""
        return {
            f"parts.{index}.{name}": members
            for index, (part, members) in enumerate(zip(self.parts, self.slices, strict=True))
            for name, _ in part.named_parameters()
        }

    def forward(self, inputs: Tensor) -> Tensor:
        """Return all members' outputs."""
        if inputs.ndim == 2:
            return torch.cat([part(inputs) for part in self.parts], dim=1)
        outputs = []
        for part, members in zip(self.parts, self.slices, strict=True):
            own = inputs[:, members]
            encoded = part.encoder(own.flatten(0, 1)).unflatten(0, own.shape[:2])
            outputs.append(part.layers(encoded.transpose(0, 1)).transpose(0, 1))
        return torch.cat(outputs, dim=1)


class _MLP(NetworkEstimator):
    """The hyperparameters, and what is made of them."""

    def __init__(
        self,
        architecture: str = "ensemble",
        *,
        n_members: int = 8,
        hidden_features: tuple[int, ...] = (128, 128),
        n_blocks: int = 2,
        d_block: int = 64,
        activation: str = "relu",
        dropout: float = 0.0,
        numeric_scaling: str = "quantile",
        numeric_embedding: str | None = "mixed",
        n_bins: int = 16,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        batch_size: int | str = "auto",
        max_epochs: int | str = "auto",
        patience: int | None = 24,
        validation_fraction: float = 0.125,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.architecture = architecture
        self.n_members = n_members
        self.hidden_features = hidden_features
        self.n_blocks = n_blocks
        self.d_block = d_block
        self.activation = activation
        self.dropout = dropout
        self.numeric_scaling = numeric_scaling
        self.numeric_embedding = numeric_embedding
        self.n_bins = n_bins
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        weight_decay = check_non_negative(self.weight_decay, "weight_decay")
        lr = check_positive(self.lr, "lr")
        return torch.optim.AdamW(decay_groups(module, weight_decay), lr=lr, betas=(0.9, 0.99), fused=True)

    def _make_module(self, problem: Problem) -> nn.Module:
        check_one_of(self.architecture, "architecture", _ARCHITECTURES)
        generator = make_generator(problem.seed)
        sizes = problem.n_numeric, problem.cardinalities, problem.out_features
        if self.architecture == "resnet":
            return TabularResNet(
                *sizes, n_blocks=self.n_blocks, d_block=self.d_block, dropout1=self.dropout, generator=generator
            )
        if self.architecture == "ft_transformer":
            return FTTransformer(
                *sizes, n_blocks=self.n_blocks, d_token=self.d_block, ffn_dropout=self.dropout, generator=generator
            )
        check_one_of(self.numeric_embedding, "numeric_embedding", (None, "piecewise", "mixed"))
        options: dict[str, Any] = {
            "hidden_features": self.hidden_features,
            "activation": self.activation,
            "dropout": self.dropout,
        }
        bins = None
        if self.numeric_embedding is not None and problem.n_numeric:
            bins = compute_bins(problem.inputs[:, : problem.n_numeric], self.n_bins)
        if self.architecture == "mlp":
            return TabularMLP(*sizes, **options, bins=bins, generator=generator)
        n_members = check_int(self.n_members, "n_members", minimum=1)
        n_plain = n_members if bins is None else 0 if self.numeric_embedding == "piecewise" else n_members // 2
        parts = [
            EnsembleMLP(*sizes, n_members=n, bins=edges, **options, generator=generator)
            for n, edges in ((n_plain, None), (n_members - n_plain, bins))
            if n
        ]
        for part in parts:
            _spread_out(part, generator)
        return MixedEnsemble(parts)

    def _weigh_members(self, module: nn.Module, problem: Problem, held: Tensor) -> Tensor:
        even = super()._weigh_members(module, problem, held)
        if isinstance(module, MixedEnsemble) and len(module.parts) == 2 and held.any(dim=0).all():
            return self._blend(module, problem, held)
        return even

    def _blend(self, module: MixedEnsemble, problem: Problem, held: Tensor) -> Tensor:
        """Return member weights that minimize the loss on held-out rows over the share of the second part."""
        rows, _ = held_out_rows(held, problem.weights)
        with torch.no_grad():
            predictions = self._predict_members(module, problem.inputs[rows].double())
        present = torch.arange(len(rows))[:, None] < held.sum(dim=0)
        means = []
        for members in module.slices:
            sums = predictions.new_zeros(len(held), predictions.shape[2])
            mask = present[:, members]
            sums.index_add_(0, rows[:, members][mask], predictions[:, members][mask])
            means.append(sums / held[:, members].sum(dim=1, keepdim=True))
        both = torch.stack([held[:, members].any(dim=1) for members in module.slices]).all(dim=0)
        first, second = (mean[both] for mean in means)
        targets, weights = problem.targets[both].double(), problem.weights[both].double()
        shares = torch.linspace(0, 1, 11, dtype=torch.float64)
        losses = [weights @ self._point_losses(torch.lerp(first, second, share), targets) for share in shares]
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


class MLPRegressor(_MLP, NetworkRegressor):
    """Regression with multilayer perceptrons on raw tables: numbers, categories, missing values.

    A scikit-learn estimator. Categories are the text, object and category columns of a DataFrame. Rows that are equal
    in x and y are merged before training, their weights summed. Losses in ``history_`` are squared errors of the
    standardized target.

    Args:
        architecture: ``"ensemble"``, ``n_members`` MLPs trained side by side, whose predictions are averaged;
            ``"mlp"``, one of them; ``"resnet"``; ``"ft_transformer"``. See `course_utils.tabular`.
        n_members: number of MLPs in the ensemble.
        hidden_features: widths of the hidden layers (ensemble, mlp).
        n_blocks: number of blocks (resnet, ft_transformer).
        d_block: width of a block: of its hidden vector (resnet), of a token (ft_transformer; a multiple of 8).
        activation: of the hidden layers, a name as in `course_utils.models.MLP` (ensemble, mlp).
        dropout: probability of *dropping* a hidden activation, in [0, 1).
        numeric_scaling: ``"quantile"``, ``"standard"`` or ``"passthrough"``; see `preprocessing.make_preprocessor`.
        numeric_embedding: ``"piecewise"`` spreads every number over bins, which lets a network follow jumps; ``None``
            takes it as it is; ``"mixed"`` does the one for half of the ensemble's members and the other for the rest,
            and weighs the halves by their error on held-out rows (for an mlp: ``"piecewise"``).
        n_bins: the largest number of bins, at least 1.
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
        >>> model = MLPRegressor(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 2.0, 4.0, 6.0])
        >>> model.predict([[1.5]]).shape
        (1,)
    """


class MLPClassifier(_MLP, NetworkClassifier):
    """Classification with multilayer perceptrons on raw tables: numbers, categories, missing values.

    A scikit-learn estimator, with the same hyperparameters and attributes as `MLPRegressor`, which explains them.
    Losses in ``history_`` are cross-entropies in nats.

    Attributes:
        classes_: the labels, sorted.

    Raises:
        TypeError, ValueError: from ``fit``: a hyperparameter is out of range; the message shows its value.

    Example:
        >>> model = MLPClassifier(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], ["a", "a", "b", "b"])
        >>> model.predict_proba([[1.5]]).shape
        (1, 2)
    """
