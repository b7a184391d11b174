"""From a table's columns to what a network takes: bins, piecewise-linear encoding, one-hot codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from course_utils._validation import check_int

__all__ = ["ColumnEncoder", "PiecewiseLinearEncoding", "compute_bins", "split_columns"]


def compute_bins(x: Tensor, n_bins: int) -> list[Tensor]:
    """Return the edges of at most ``n_bins`` bins for every numeric column, for `PiecewiseLinearEncoding`.

    The edges are quantiles: each bin holds about as many samples as the others. Quantiles that coincide, as in columns
    with few values, count once. A column with a single value v has no bin; it gets the edges v and v + max(1, |v|),
    which encode v as 0.

    Args:
        x: (n, n_numeric), floating-point, finite, n at least 1; of the *training* data, for the edges are learned
            from it.
        n_bins: the largest number of bins, at least 1.

    Returns:
        ``n_numeric`` tensors of shape (number of bins + 1,), strictly increasing, in the dtype of ``x``.

    Raises:
        TypeError: ``n_bins`` is no integer.
        ValueError: ``n_bins`` is below 1, or a value of ``x`` is not finite.

    Source: Gorishniy et al. 2022, *On Embeddings for Numerical Features in Tabular Deep Learning*, section 3.2.1.
    Differs: constant columns are allowed.
    """
    check_int(n_bins, "n_bins", minimum=1)
    unfit = (~x.isfinite()).nonzero()
    if len(unfit):
        row, column = unfit[0].tolist()
        raise ValueError(f"x must be finite, got {x[row, column].item():g} in column {column}; impute missing values")
    return [_edges(column, n_bins) for column in x.detach().unbind(dim=1)]


def _edges(column: Tensor, n_bins: int) -> Tensor:
    """Return the edges, (bins + 1,), of one column, (n,)."""
    low, high = column.aminmax()
    if low == high:
        return torch.stack([low, low + low.abs().clamp(min=1)])
    # NumPy's, for torch's quantile takes no more than 16 million values.
    quantiles = np.quantile(column.cpu().numpy(), np.linspace(0, 1, n_bins + 1))
    return torch.from_numpy(quantiles).to(column).unique()  # type: ignore[no-any-return]  # sorted


class PiecewiseLinearEncoding(nn.Module):
    """Spread every number over its column's bins: 1 in the bins below it, 0 in those above, a fraction in its own.

    With the edges b₀ < … < b_T of a column, component t = 1 … T of the code of x is (x − b_{t−1}) / (b_t − b_{t−1}),
    cut to [0, 1]; but the first is not cut below and the last not above, so that outside the edges the code goes on
    linearly. It is continuous in x, and a linear layer on it is a piecewise-linear function of x that bends at the
    edges. Input (batch, n_numeric), output (batch, n_numeric, max_bins): columns with fewer bins end in zeros.

    Args:
        bins: one tensor of strictly increasing edges a column, as `compute_bins` returns them.

    Source: Gorishniy et al. 2022, eq. 1.
    """

    left: Tensor
    width: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, bins: Sequence[Tensor]) -> None:
        super().__init__()
        self.n_bins = tuple(len(edges) - 1 for edges in bins)
        shape = (len(bins), max(self.n_bins))
        # Bins that a column lacks are cut to [0, 0].
        left = bins[0].new_zeros(shape)
        width = bins[0].new_ones(shape)
        low = bins[0].new_zeros(shape)
        high = bins[0].new_zeros(shape)
        for index, (edges, n) in enumerate(zip(bins, self.n_bins, strict=True)):
            left[index, :n] = edges[:-1]
            width[index, :n] = edges.diff()
            high[index, : n - 1] = 1
            low[index, 0] = -math.inf
            high[index, n - 1] = math.inf
        self.register_buffer("left", left)
        self.register_buffer("width", width)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, x: Tensor) -> Tensor:
        """Return the code, (batch, n_numeric, max_bins), of ``x``, (batch, n_numeric), in the dtype of ``x``.

        Raises:
            ValueError: ``x`` has another number of columns than there are bins for.
        """
        if x.shape[1:] != self.left.shape[:1]:  # one column would be compared with the bins of all
            raise ValueError(f"x must have shape (batch, {len(self.n_bins)}), got {tuple(x.shape)}")
        return ((x[:, :, None] - self.left) / self.width).clamp(self.low, self.high).to(x.dtype)


def split_columns(inputs: Tensor, n_numeric: int, cardinalities: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the numeric columns, (batch, n_numeric), and the codes as integers, (batch, n_categorical).

    Args:
        inputs: (batch, n_numeric + n_categorical), floating-point, numeric columns first.
        n_numeric: how many columns are numeric.
        cardinalities: for every categorical column the number of its codes, 0 among them.

    Raises:
        ValueError: the inputs have another shape, or hold a code that is none.
    """
    width = n_numeric + len(cardinalities)
    if inputs.ndim != 2 or inputs.shape[1] != width:
        parts = f"{n_numeric} numeric and {len(cardinalities)} categorical columns"
        raise ValueError(f"inputs must have shape (batch, {width}) for {parts}, got {tuple(inputs.shape)}")
    given = inputs[:, n_numeric:]
    codes = given.long()
    wrong = (codes != given) | (codes < 0) | (codes >= torch.tensor(cardinalities, device=codes.device))
    if wrong.any():  # NaN is wrong too: it equals no integer
        row, column = wrong.nonzero()[0].tolist()
        allowed = f"an integer in [0, {cardinalities[column]})"
        where = f"categorical column {column} (column {n_numeric + column} of the inputs), row {row}"
        raise ValueError(f"a category's code must be {allowed}, got {given[row, column].item():g} in {where}")
    return inputs[:, :n_numeric], codes


class ColumnEncoder(nn.Module):
    """Turn a table's columns into one flat vector a sample: what an MLP takes.

    Numeric columns stay as they are, or with ``bins`` become their piecewise-linear code. Categorical codes become
    one-hot without the place for code 0: that one, the unknown category of `preprocessing.make_preprocessor`, is all
    zeros and hence adds nothing. The linear layer that follows learns a vector a category; an embedding table before
    it would add no function.

    Input (batch, n_numeric + n_categorical), output (batch, out_features).

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        bins: edges of every numeric column, see `compute_bins`.

    Attributes:
        out_features: width of the output.
    """

    column: Tensor
    level: Tensor

    def __init__(self, n_numeric: int, cardinalities: Sequence[int], *, bins: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.n_numeric = n_numeric
        self.cardinalities = tuple(cardinalities)
        self.numeric = PiecewiseLinearEncoding(bins) if bins else None
        per_column = max(self.numeric.n_bins) if self.numeric is not None else 1
        # For every one-hot output its column among the categorical ones, and its code.
        n_levels = torch.tensor(self.cardinalities, dtype=torch.long) - 1
        self.register_buffer("column", torch.arange(len(n_levels)).repeat_interleave(n_levels))
        self.register_buffer("level", torch.cat([torch.arange(0), *[torch.arange(1, c) for c in self.cardinalities]]))
        self.out_features = per_column * n_numeric + len(self.level)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: as `split_columns`.
        """
        numeric, codes = split_columns(inputs, self.n_numeric, self.cardinalities)
        if self.numeric is not None:
            numeric = self.numeric(numeric).flatten(1)
        one_hot = codes[:, self.column] == self.level
        return torch.cat([numeric, one_hot.to(numeric.dtype)], dim=1)
