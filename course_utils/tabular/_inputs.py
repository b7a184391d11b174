"""From a table's columns to what a network takes: bins, piecewise-linear encoding, one-hot codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from course_utils._validation import check_int, check_sizes
from course_utils.tabular._layers import uniform_parameter

__all__ = ["ColumnEncoder", "PiecewiseLinearEmbedding", "PiecewiseLinearEncoding", "compute_bins", "split_columns"]


def compute_bins(x: Tensor, n_bins: int, *, y: Tensor | None = None) -> list[Tensor]:
    """Return the edges of at most ``n_bins`` bins for every numeric column, for `PiecewiseLinearEncoding`.

    Without ``y`` the edges are quantiles: each bin holds about as many samples as the others. Quantiles that coincide,
    as in columns with few values, count once. With ``y`` they are the thresholds of a decision tree that predicts
    ``y`` from this column alone, and the column's ends: bins are narrow where the target changes.

    A column with a single value v has no bin; it gets the edges v and v + max(1, |v|), which encode v as 0.

    Args:
        x: (n, n_numeric), floating-point, finite; of the *training* data, for the edges are learned from it.
        n_bins: the largest number of bins, at least 1.
        y: (n,), targets: floating-point ones make a regression tree, integers a classification tree.

    Returns:
        ``n_numeric`` tensors of shape (number of bins + 1,), strictly increasing, in the dtype of ``x``.

    Raises:
        TypeError: ``x`` does not hold floating-point numbers, or ``n_bins`` is no integer.
        ValueError: a shape does not fit, or a value of ``x`` is not finite.

    Source: Gorishniy et al. 2022, *On Embeddings for Numerical Features in Tabular Deep Learning*, sections 3.2.1
    and 3.2.2. Differs: constant columns are allowed.
    """
    check_int(n_bins, "n_bins", minimum=1)
    if not x.is_floating_point():
        raise TypeError(f"x must hold floating-point numbers, got {x.dtype} of shape {tuple(x.shape)}")
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must have shape (n, n_numeric) with n of at least 1, got {tuple(x.shape)}")
    finite = x.isfinite().all(dim=0)
    if not finite.all():
        column = int((~finite).nonzero()[0])
        value = x[:, column][~x[:, column].isfinite()][0]
        raise ValueError(f"x must be finite, got {value:g} in column {column}; impute missing values first")
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(f"y must have shape ({len(x)},) for x of shape {tuple(x.shape)}, got {tuple(y.shape)}")
    return [_edges(column, n_bins, y) for column in x.detach().unbind(dim=1)]


def _edges(column: Tensor, n_bins: int, y: Tensor | None) -> Tensor:
    """Return the edges, (bins + 1,), of one column, (n,)."""
    low, high = column.aminmax()
    if low == high:
        edges = torch.stack([low, low + low.abs().clamp(min=1)])
    elif y is None:
        # NumPy's, since torch.quantile takes 16 million values at most.
        quantiles = np.quantile(column.double().cpu().numpy(), np.linspace(0, 1, n_bins + 1))
        edges = torch.from_numpy(quantiles).to(column)
    else:
        # Midpoints of the values rounded to float32, so that they may meet the ends but not pass them.
        edges = torch.cat([low[None], _tree_thresholds(column, n_bins, y), high[None]])
    return torch.unique(edges)  # type: ignore[no-any-return]  # sorted


def _tree_thresholds(column: Tensor, n_bins: int, y: Tensor) -> Tensor:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if n_bins == 1:  # a tree has at least two leaves
        return column[:0]
    kind = DecisionTreeRegressor if y.is_floating_point() else DecisionTreeClassifier
    fitted = kind(max_leaf_nodes=n_bins, random_state=0).fit(column[:, None].cpu().numpy(), y.cpu().numpy()).tree_
    return torch.from_numpy(fitted.threshold[fitted.children_left != fitted.children_right]).to(column)


class PiecewiseLinearEncoding(nn.Module):
    """Spread every number over its column's bins: 1 in the bins below it, 0 in those above, a fraction in its own.

    With the edges b₀ < … < b_T of a column, component t = 1 … T of the code of x is (x − b_{t−1}) / (b_t − b_{t−1}),
    cut to [0, 1]; but the first is not cut below and the last not above, so that outside the edges the code goes on
    linearly. It is continuous in x, and a linear layer on it is a piecewise-linear function of x that bends at the
    edges. Input (batch, n_numeric), output (batch, n_numeric, max_bins): columns with fewer bins end in zeros.

    Args:
        bins: one tensor of edges a column, as `compute_bins` returns them.

    Raises:
        TypeError, ValueError: no bins, or edges that are not at least two strictly increasing finite numbers.

    Source: Gorishniy et al. 2022, eq. 1.
    """

    left: Tensor
    width: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, bins: Sequence[Tensor]) -> None:
        super().__init__()
        _check_bins(bins)
        self.n_bins = tuple(len(edges) - 1 for edges in bins)
        shape = (len(bins), max(self.n_bins))
        # Bins that a column lacks are cut to [0, 0].
        left, width = bins[0].new_zeros(shape), bins[0].new_ones(shape)
        low, high = bins[0].new_zeros(shape), bins[0].new_zeros(shape)
        for index, (edges, n) in enumerate(zip(bins, self.n_bins, strict=True)):
            left[index, :n], width[index, :n] = edges[:-1], edges.diff()
            high[index, : n - 1] = 1
            low[index, 0], high[index, n - 1] = -math.inf, math.inf
        for name, buffer in {"left": left, "width": width, "low": low, "high": high}.items():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the code, (batch, n_numeric, max_bins), of ``x``, (batch, n_numeric), in the dtype of ``x``.

        Raises:
            ValueError: ``x`` has another number of columns than there are bins for.
        """
        if x.ndim != 2 or x.shape[1] != len(self.n_bins):
            raise ValueError(f"x must have shape (batch, {len(self.n_bins)}), got {tuple(x.shape)}")
        return ((x[:, :, None] - self.left) / self.width).clamp(self.low, self.high).to(x.dtype)


def _check_bins(bins: Sequence[Tensor]) -> None:
    if len(bins) == 0:
        raise ValueError("bins must hold the edges of at least one column, got none")
    for index, edges in enumerate(bins):
        if not isinstance(edges, Tensor) or not edges.is_floating_point():
            raise TypeError(f"bins[{index}] must be a floating-point tensor, got {edges!r}")
        if edges.ndim != 1 or len(edges) < 2 or not edges.isfinite().all() or not (edges.diff() > 0).all():
            raise ValueError(f"bins[{index}] must be at least two finite, strictly increasing edges, got {edges!r}")


class PiecewiseLinearEmbedding(nn.Module):
    """Turn every number into a vector: its piecewise-linear code, a linear layer of its column's own, then ReLU.

    Input (batch, n_numeric), output (batch, n_numeric, d_embedding).

    Args:
        bins: one tensor of edges a column, as `compute_bins` returns them.
        d_embedding: length of the vectors, at least 1.
        relu: whether ReLU ends it (the paper's "LR"); without, the vectors are linear in the code ("L").
        generator: draws the initial weights; ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: as `PiecewiseLinearEncoding`, or ``d_embedding`` is no integer of at least 1.

    Source: Gorishniy et al. 2022, section 3.2, Q-LR and T-LR. Differs: a column's layer is initialized by its own
    number of bins, not by the largest.
    """

    def __init__(
        self,
        bins: Sequence[Tensor],
        d_embedding: int,
        *,
        relu: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_int(d_embedding, "d_embedding", minimum=1)
        self.encoding = PiecewiseLinearEncoding(bins)
        n_bins = torch.tensor(self.encoding.n_bins)
        self.weight = uniform_parameter((len(bins), int(n_bins.max()), d_embedding), 1, generator)
        self.bias = uniform_parameter((len(bins), d_embedding), 1, generator)
        with torch.no_grad():  # U(±1/√number of bins), column by column
            self.weight.mul_(n_bins.rsqrt()[:, None, None])
            self.bias.mul_(n_bins.rsqrt()[:, None])
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors, (batch, n_numeric, d_embedding), of ``x``, (batch, n_numeric)."""
        vectors = torch.einsum("bnt,ntd->bnd", self.encoding(x), self.weight) + self.bias
        return vectors.relu() if self.relu else vectors


def split_columns(inputs: Tensor, n_numeric: int, cardinalities: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the numeric columns, (batch, n_numeric), and the codes as integers, (batch, n_categorical).

    Args:
        inputs: (batch, n_numeric + n_categorical), floating-point, numeric columns first.
        n_numeric: how many columns are numeric.
        cardinalities: for every categorical column the number of its codes, 0 among them.

    Raises:
        ValueError: the inputs have another shape, are not floating-point, or hold a code that is none.
    """
    width = n_numeric + len(cardinalities)
    if inputs.ndim != 2 or inputs.shape[1] != width:
        parts = f"{n_numeric} numeric and {len(cardinalities)} categorical columns"
        raise ValueError(f"inputs must have shape (batch, {width}) for {parts}, got {tuple(inputs.shape)}")
    if not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating-point numbers, got {inputs.dtype}; convert with .float()")
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

    Numeric columns stay as they are; with ``bins`` they become their piecewise-linear code, and with ``d_embedding``
    too a vector learned on it. Categorical codes become one-hot without the place for code 0: that one, the unknown
    category of `preprocessing.make_preprocessor`, is all zeros and hence adds nothing. The linear layer that follows
    learns a vector a category; an embedding table before it would add no function.

    Input (batch, n_numeric + n_categorical), output (batch, out_features).

    Args:
        n_numeric: how many columns, the first ones, are numeric; at least 0.
        cardinalities: for every further column the number of its codes, 0 among them; at least 1.
        bins: edges of every numeric column, see `compute_bins`.
        d_embedding: length of a numeric column's vector; needs ``bins``.
        generator: draws the initial weights, if there are any.

    Attributes:
        out_features: width of the output.
        column: (out_features,), integers: from which column each of the outputs comes.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.
    """

    column: Tensor
    level: Tensor

    def __init__(
        self,
        n_numeric: int,
        cardinalities: Sequence[int],
        *,
        bins: Sequence[Tensor] | None = None,
        d_embedding: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_numeric, self.cardinalities = check_columns(n_numeric, cardinalities)
        if bins is not None and len(bins) != n_numeric:
            raise ValueError(f"bins must hold edges for each of the {n_numeric} numeric columns, got {len(bins)}")
        if bins is None and d_embedding is not None:
            raise ValueError(f"d_embedding needs bins, got d_embedding={d_embedding!r} without")
        self.numeric: nn.Module | None = None
        per_column = 1
        if bins and d_embedding is not None:
            self.numeric = PiecewiseLinearEmbedding(bins, d_embedding, generator=generator)
            per_column = d_embedding
        elif bins:
            self.numeric = PiecewiseLinearEncoding(bins)
            per_column = max(self.numeric.n_bins)
        levels = [torch.arange(1, c) for c in self.cardinalities]
        sizes = [per_column] * n_numeric + [len(level) for level in levels]
        self.register_buffer("column", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))
        self.register_buffer("level", torch.cat([torch.arange(0), *levels]))
        self.n_columns = len(sizes)
        self.out_features = sum(sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (batch, out_features) for ``inputs`` of shape (batch, n_numeric + n_categorical).

        Raises:
            ValueError: as `split_columns`.
        """
        numeric, codes = split_columns(inputs, self.n_numeric, self.cardinalities)
        if self.numeric is not None:
            numeric = self.numeric(numeric).flatten(1)
        if not self.cardinalities:
            return numeric
        column = self.column[numeric.shape[1] :] - self.n_numeric
        return torch.cat([numeric, (codes[:, column] == self.level).to(numeric.dtype)], dim=1)


def check_columns(n_numeric: int, cardinalities: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Return both checked, or raise a TypeError or ValueError; at least one column there must be."""
    sizes = tuple(check_sizes(cardinalities, "cardinalities"))
    if check_int(n_numeric, "n_numeric", minimum=0) + len(sizes) == 0:
        raise ValueError("there must be at least one column, got n_numeric=0 and no cardinalities")
    return n_numeric, sizes
