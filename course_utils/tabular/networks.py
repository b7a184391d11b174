"""An MLP and a ResNet that take a table's numeric and categorical columns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from course_utils._validation import check_in_range, check_int, check_positive, check_sizes
from course_utils.tabular._inputs import ColumnEncoder
from course_utils.tabular._layers import activation_maker, linear

__all__ = ["TabularMLP", "TabularResNet"]


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
        d_embedding: with ``bins``, the length of the vector learned for each number; ``None`` takes the code itself.
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
        d_embedding: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_in_range(dropout, "dropout", 0.0, 1.0)
        check_int(out_features, "out_features", minimum=1)
        make_activation = activation_maker(activation)
        self.encoder = ColumnEncoder(n_numeric, cardinalities, bins=bins, d_embedding=d_embedding, generator=generator)
        width = self.encoder.out_features
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, next_width in enumerate(check_sizes(hidden_features, "hidden_features"), start=1):
            layers[f"linear{number}"] = linear(width, next_width, generator)
            layers[f"activation{number}"] = make_activation()
            layers[f"dropout{number}"] = nn.Dropout(dropout)
            width = next_width
        layers["output"] = linear(width, out_features, generator)
        self.layers = nn.Sequential(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: another width, not floating-point, or a code outside its column's range.
        """
        output: Tensor = self.layers(self.encoder(inputs))
        return output


class TabularResNet(nn.Module):
    """A residual network on encoded columns.

    Linear → blocks → BatchNorm → ReLU → Linear, where a block adds to its input
    BatchNorm → Linear → ReLU → dropout → Linear → dropout of it. Between the blocks nothing but sums: the gradient
    reaches every block undiminished.

    Input (batch, n_numeric + n_categorical), floating-point, numeric columns first, then categories as the codes
    0, 1, …; output (batch, out_features), without a last activation. Columns are encoded as by `TabularMLP`.

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        out_features: width of the output, at least 1.
        n_blocks: number of residual blocks, at least 0.
        d_block: width between the blocks, at least 1.
        d_hidden_factor: a block's hidden width as a multiple of ``d_block``, above 0; rounded down, at least 1.
        dropout1: probability of dropping a hidden activation of a block, in [0, 1).
        dropout2: probability of dropping an output of a block before the sum, in [0, 1).
        bins: edges of every numeric column, see `compute_bins`; ``None`` takes the numbers as they are.
        generator: draws the initial weights (torch's default law); ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Gorishniy et al. 2021, section 3.2. Differs: categories are one-hot.
    """

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        out_features: int,
        *,
        n_blocks: int = 2,
        d_block: int = 192,
        d_hidden_factor: float = 2.0,
        dropout1: float = 0.2,
        dropout2: float = 0.0,
        bins: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_int(out_features, "out_features", minimum=1)
        check_int(n_blocks, "n_blocks", minimum=0)
        check_int(d_block, "d_block", minimum=1)
        check_in_range(dropout1, "dropout1", 0.0, 1.0)
        check_in_range(dropout2, "dropout2", 0.0, 1.0)
        d_hidden = max(1, int(d_block * check_positive(d_hidden_factor, "d_hidden_factor")))
        self.encoder = ColumnEncoder(n_numeric, cardinalities, bins=bins, generator=generator)
        self.input = linear(self.encoder.out_features, d_block, generator)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    norm=nn.BatchNorm1d(d_block),
                    linear1=linear(d_block, d_hidden, generator),
                    activation=nn.ReLU(),
                    dropout1=nn.Dropout(dropout1),
                    linear2=linear(d_hidden, d_block, generator),
                    dropout2=nn.Dropout(dropout2),
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
            ValueError: another width, not floating-point, a code outside its column's range, or in training mode a
                batch of one, for which BatchNorm has no variance.
        """
        hidden = self.input(self.encoder(inputs))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        output: Tensor = self.output(hidden)
        return output
