"""Many MLPs trained at once: their layers batched into one matrix product, or sharing one weight matrix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from course_utils._validation import check_in_range, check_int, check_one_of, check_sizes
from course_utils.tabular._inputs import ColumnEncoder
from course_utils.tabular._layers import activation_maker, uniform_parameter

__all__ = ["BatchEnsembleLinear", "EnsembleLinear", "EnsembleMLP"]


class EnsembleLinear(nn.Module):
    """``n_members`` linear layers side by side, none sharing anything: member i computes x_i W_i + b_i.

    Input (n_members, batch, in_features), output (n_members, batch, out_features).

    Args:
        n_members: number of layers, at least 1.
        in_features: width of the input, at least 1.
        out_features: width of the output, at least 1.
        generator: draws the weights like ``nn.Linear``'s, each member its own; ``None`` is torch's global stream.

    Attributes:
        weight: (n_members, in_features, out_features); a member's is the transpose of ``nn.Linear``'s.
        bias: (n_members, out_features).
    """

    def __init__(
        self, n_members: int, in_features: int, out_features: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.weight = uniform_parameter((n_members, in_features, out_features), in_features, generator)
        self.bias = uniform_parameter((n_members, out_features), in_features, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n_members, batch, out_features) for ``x``, (n_members, batch, in_features)."""
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class BatchEnsembleLinear(nn.Module):
    """``n_members`` linear layers that share one weight W; member i scales its inputs by r_i and its outputs by s_i.

    Member i's own weight is W with rows and columns scaled, diag(r_i) W diag(s_i); it is never formed, for
    (x ⊙ r_i) W ⊙ s_i + b_i costs no more than the shared layer. A further member brings in_features + 2·out_features
    parameters instead of in_features·out_features.

    Input (n_members, batch, in_features), output (n_members, batch, out_features).

    Args:
        n_members: number of layers.
        in_features: width of the input.
        out_features: width of the output.
        r: (n_members, in_features), the initial input scales; ones by default, which makes all members the same.
        generator: draws W and one bias for all members; ``None`` is torch's global stream.

    Attributes:
        weight: (in_features, out_features), shared.
        r: (n_members, in_features).
        s: (n_members, out_features), initially ones.
        bias: (n_members, out_features), initially the same for all members.

    Source: Wen et al. 2020, *BatchEnsemble*, eq. 5; initialization of Gorishniy et al. 2024, *TabM*, section 3.
    """

    def __init__(
        self,
        n_members: int,
        in_features: int,
        out_features: int,
        *,
        r: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.weight = uniform_parameter((in_features, out_features), in_features, generator)
        self.r = nn.Parameter(torch.ones(n_members, in_features) if r is None else r)
        self.s = nn.Parameter(torch.ones(n_members, out_features))
        bias = uniform_parameter((out_features,), in_features, generator)
        self.bias = nn.Parameter(bias.detach().repeat(n_members, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n_members, batch, out_features) for ``x``, (n_members, batch, in_features)."""
        return (x * self.r[:, None]) @ self.weight * self.s[:, None] + self.bias[:, None]


class EnsembleMLP(nn.Module):
    """``n_members`` MLPs in one model, each with a prediction of its own: train the mean of their losses.

    Input (batch, n_numeric + n_categorical), floating-point, numeric columns first, then categories as the codes
    0, 1, …; output (batch, n_members, out_features), without a last activation. Average the members' predictions
    (probabilities, for classes) to predict, but not before the loss: members that are trained on their mean
    correct each other instead of learning the task.

    ``share="none"``: independent MLPs, whose k matrix products of a layer are one batched product.
    ``share="batch"``: the hidden layers share weights, members differ by scales (`BatchEnsembleLinear`), and each has
    an output layer of its own. They start out different by the first layer's input scales alone, one random
    number a member and column: a sign, or with ``bins`` a standard normal one.

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        out_features: width of each member's output, at least 1.
        n_members: number of MLPs, at least 1.
        hidden_features: widths of the hidden layers; ``()`` makes linear models.
        activation: a name as in `models.MLP`, or a function that returns a new module for each hidden layer.
        dropout: probability of *dropping* a hidden activation, in [0, 1); each member drops its own.
        share: ``"none"`` or ``"batch"``.
        bins: edges of every numeric column, see `compute_bins`; ``None`` takes the numbers as they are.
        generator: draws the initial weights; ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Gorishniy et al. 2024, *TabM*, section 3: "TabM packed" and "TabM". Differs: piecewise-linear codes go
    straight into the MLPs, without an embedding.
    """

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        out_features: int,
        *,
        n_members: int = 16,
        hidden_features: Sequence[int] = (256, 256),
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        share: str = "none",
        bins: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_int(n_members, "n_members", minimum=1)
        check_int(out_features, "out_features", minimum=1)
        check_in_range(dropout, "dropout", 0.0, 1.0)
        check_one_of(share, "share", ("none", "batch"))
        make_activation = activation_maker(activation)
        self.n_members = n_members
        self.encoder = ColumnEncoder(n_numeric, cardinalities, bins=bins)
        width = self.encoder.out_features
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, next_width in enumerate(check_sizes(hidden_features, "hidden_features"), start=1):
            if share == "none":
                layers[f"linear{number}"] = EnsembleLinear(n_members, width, next_width, generator=generator)
            else:
                r = self._first_scales(generator) if number == 1 else None
                layers[f"linear{number}"] = BatchEnsembleLinear(n_members, width, next_width, r=r, generator=generator)
            layers[f"activation{number}"] = make_activation()
            layers[f"dropout{number}"] = nn.Dropout(dropout)
            width = next_width
        layers["output"] = EnsembleLinear(n_members, width, out_features, generator=generator)
        self.layers = nn.Sequential(layers)

    def _first_scales(self, generator: torch.Generator | None) -> Tensor:
        """Return (n_members, encoder.out_features): all outputs that come from one column are scaled alike."""
        scales = torch.randn(self.n_members, self.encoder.n_columns, generator=generator)
        if self.encoder.numeric is None:
            scales = torch.where(scales < 0, -1.0, 1.0)
        return scales[:, self.encoder.column]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, n_members, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: another width, not floating-point, or a code outside its column's range.
        """
        encoded = self.encoder(inputs)
        output: Tensor = self.layers(encoded.expand(self.n_members, *encoded.shape))
        return output.transpose(0, 1)
