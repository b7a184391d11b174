"""An MLP, many MLPs in one, and a ResNet that take a table's numeric and categorical columns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from course_utils._validation import check_int, check_one_of, check_sizes
from course_utils.models import ACTIVATIONS
from course_utils.tabular._inputs import ColumnEncoder
from course_utils.tabular._layers import linear, uniform_parameter

__all__ = ["EnsembleLinear", "EnsembleMLP", "TabularMLP", "TabularResNet"]


def _stack(
    make_linear: Callable[[int, int], nn.Module],
    in_features: int,
    hidden_features: Sequence[int],
    out_features: int,
    *,
    activation: str | Callable[[], nn.Module],
    dropout: float,
) -> nn.Sequential:
    """Return linear → activation → dropout for each hidden layer, then a linear layer."""
    if not callable(activation):
        activation = ACTIVATIONS[check_one_of(activation, "activation", ACTIVATIONS)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = in_features
    for number, next_width in enumerate(check_sizes(hidden_features, "hidden_features"), start=1):
        layers[f"linear{number}"] = make_linear(width, next_width)
        layers[f"activation{number}"] = activation()
        layers[f"dropout{number}"] = nn.Dropout(dropout)
        width = next_width
    layers["output"] = make_linear(width, out_features)
    return nn.Sequential(layers)


class TabularMLP(nn.Module):
    """A multilayer perceptron on encoded columns: per hidden layer Linear → activation → dropout, then Linear.

    Input (batch, n_numeric + n_categorical), floating-point, numeric columns first, then categories as the codes
    0, 1, …; output (batch, out_features), without a last activation. Categories become one-hot, code 0 (unknown) all
    zeros; numbers stay as they are, or with ``bins`` become their piecewise-linear code.

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        out_features: width of the output, at least 1.
        hidden_features: widths of the hidden layers; ``()`` makes a linear model.
        activation: a name as in `models.MLP`, or a function that returns a new module for each hidden layer.
        dropout: probability of *dropping* a hidden activation, in [0, 1).
        bins: edges of every numeric column, see `compute_bins`; ``None`` takes the numbers as they are.
        generator: draws the initial weights (torch's default law); ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Gorishniy et al. 2021, *Revisiting Deep Learning Models for Tabular Data*, section 3.1. Differs:
    categories are one-hot.

    Example:
        >>> model = TabularMLP(2, (3,), 1, hidden_features=(8,))
        >>> model(torch.tensor([[0.5, -1.2, 2.0]])).shape
        torch.Size([1, 1])
    """

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        out_features: int,
        *,
        hidden_features: Sequence[int] = (256, 256),
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        bins: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ColumnEncoder(n_numeric, cardinalities, bins=bins)
        widths = self.encoder.out_features, hidden_features, out_features
        self.layers = _stack(partial(linear, generator=generator), *widths, activation=activation, dropout=dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: another width, or a code outside its column's range.
        """
        output: Tensor = self.layers(self.encoder(inputs))
        return output


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


class EnsembleMLP(nn.Module):
    """``n_members`` MLPs in one model, each with a prediction of its own: train the mean of their losses.

    Input (batch, n_numeric + n_categorical), floating-point, numeric columns first, then categories as the codes
    0, 1, …; output (batch, n_members, out_features), without a last activation. Average the members' predictions
    (probabilities, for classes) to predict, but not before the loss: members that are trained on their mean
    correct each other instead of learning the task.

    The members share nothing; the matrix products of a layer are one batched product.

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        out_features: width of each member's output, at least 1.
        n_members: number of MLPs, at least 1.
        hidden_features: widths of the hidden layers; ``()`` makes linear models.
        activation: a name as in `models.MLP`, or a function that returns a new module for each hidden layer.
        dropout: probability of *dropping* a hidden activation, in [0, 1); each member drops its own.
        bins: edges of every numeric column, see `compute_bins`; ``None`` takes the numbers as they are.
        generator: draws the initial weights; ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Gorishniy et al. 2024, *TabM*, section 3: "TabM packed". Differs: piecewise-linear codes go straight into
    the MLPs, without an embedding.
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
        bins: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.encoder = ColumnEncoder(n_numeric, cardinalities, bins=bins)
        make_linear = partial(EnsembleLinear, n_members, generator=generator)
        widths = self.encoder.out_features, hidden_features, out_features
        self.layers = _stack(make_linear, *widths, activation=activation, dropout=dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, n_members, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: another width, or a code outside its column's range.
        """
        encoded = self.encoder(inputs)
        output: Tensor = self.layers(encoded.expand(self.n_members, *encoded.shape))
        return output.transpose(0, 1)


class TabularResNet(nn.Module):
    """A residual network on encoded columns.

    Linear → blocks → BatchNorm → ReLU → Linear, where a block adds to its input
    BatchNorm → Linear (twice as wide) → ReLU → dropout → Linear of it. Between the blocks nothing but sums: the
    gradient reaches every block undiminished.

    Input (batch, n_numeric + n_categorical), floating-point, numeric columns first, then categories as the codes
    0, 1, …; output (batch, out_features), without a last activation. Columns are encoded as by `TabularMLP`.

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        out_features: width of the output, at least 1.
        n_blocks: number of residual blocks, at least 0.
        d_block: width between the blocks, at least 1.
        dropout: probability of dropping a hidden activation of a block, in [0, 1).
        generator: draws the initial weights (torch's default law); ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Gorishniy et al. 2021, section 3.2. Differs: categories are one-hot; no dropout of a block's sum.
    """

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        out_features: int,
        *,
        n_blocks: int = 2,
        d_block: int = 192,
        dropout: float = 0.2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_int(n_blocks, "n_blocks", minimum=0)
        d_hidden = 2 * d_block
        self.encoder = ColumnEncoder(n_numeric, cardinalities)
        self.input = linear(self.encoder.out_features, d_block, generator)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    norm=nn.BatchNorm1d(d_block),
                    linear1=linear(d_block, d_hidden, generator),
                    activation=nn.ReLU(),
                    dropout=nn.Dropout(dropout),
                    linear2=linear(d_hidden, d_block, generator),
                )
            )
            for _ in range(n_blocks)
        )
        self.output = nn.Sequential(
            OrderedDict(
                norm=nn.BatchNorm1d(d_block), activation=nn.ReLU(), linear=linear(d_block, out_features, generator)
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: another width, a code outside its column's range, or in training mode a
                batch of one, for which BatchNorm has no variance.
        """
        hidden = self.input(self.encoder(inputs))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        output: Tensor = self.output(hidden)
        return output
