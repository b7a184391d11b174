"""Move and refine the grids of a network without changing what it computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from course_utils._validation import check_int, check_non_negative
from course_utils.kan.bsplines import b_spline_basis
from course_utils.kan.layer import KANLayer
from course_utils.kan.network import KANBase, layers_of

__all__ = ["GridReport", "LayerGrid", "extend_grid", "update_grid"]

_POINTS_PER_INTERVAL = 8  # where splines are compared besides the samples


@dataclass
class LayerGrid:
    """What happened to the grids of one layer.

    Attributes:
        grid_size: intervals before and after.
        old_range: (in_features, 2), each input's left and right end before.
        new_range: the same after.
        residual: root mean square of the change in the layer's outputs; 0 where nothing had to be refitted.
        constant: inputs that were the same in all samples, whose grids therefore stayed where they were.
    """

    grid_size: tuple[int, int]
    old_range: Tensor
    new_range: Tensor
    residual: float
    constant: list[int] = field(default_factory=list)


@dataclass
class GridReport:
    """What `update_grid` or `extend_grid` did.

    Attributes:
        layers: one `LayerGrid` a layer, next to the input first.
    """

    layers: list[LayerGrid]

    @property
    def residual(self) -> float:
        """The largest of the layers' residuals."""
        return max(layer.residual for layer in self.layers)

    def __str__(self) -> str:
        """One line a layer."""
        lines = []
        for number, layer in enumerate(self.layers):
            low, high = layer.new_range.min().item(), layer.new_range.max().item()
            old, new = layer.grid_size
            parts = [f"grid {new}" if old == new else f"grid {old} → {new}", f"within [{low:.4g}, {high:.4g}]"]
            parts += [f"changed by {layer.residual:.1e}"]
            parts += [f"constant inputs: {', '.join(map(str, layer.constant))}"] if layer.constant else []
            lines.append(f"layer {number}: " + ", ".join(parts))
        return "\n".join(lines)


@torch.no_grad()
def update_grid(model: KANBase, x: Tensor, *, margin: float = 0.01) -> GridReport:
    """Let every grid span the values that reach it when the inputs are ``x``, in place.

    The new splines are fitted to the old ones by least squares in float64, on the samples and, with little weight, on
    points all over the new grid, so that a part of it without samples keeps its shape too. A grid that already spans
    its samples is left as it is, to the last bit. Base weights and known functions do not depend on the grids.

    Call it when the values have moved: before the first step, after the first steps of each stage (`fit_lbfgs` does
    both), after a refinement. The parameters stay the same objects with the same shapes; an optimizer's memory of
    past steps, however, speaks of other coefficients afterwards.

    Args:
        model: the network.
        x: (n, widths[0]), finite; at least one sample more than a grid has intervals.
        margin: by which share of the samples' span a grid reaches beyond them on each side, at least 0.

    Returns:
        Old and new ranges, how much each layer's output changed on the samples, and the constant inputs: these, in
        ``x`` or at a hidden node without edges, have no span, so that their grids stay.

    Raises:
        TypeError, ValueError: ``x`` has another width, too few samples, or is not finite somewhere; or the values at
            a hidden node are not finite.
    """
    check_non_negative(margin, "margin")
    check_samples(model, x)
    nodes = model.activations(x)
    for number, values in enumerate(nodes[:-1]):
        if not bool(values.isfinite().all()):
            raise ValueError(f"the inputs of layer {number} must be finite, got {_first_bad(values)}")
    return GridReport([_move(layer, values, margin) for layer, values in zip(layers_of(model), nodes, strict=False)])


@torch.no_grad()
def extend_grid(model: KANBase, grid_size: int | Sequence[int]) -> GridReport:
    """Divide every grid into more intervals, in place.

    A spline on a grid is also one on that grid with each interval cut into m: one old basis function is a sum of new
    ones with the weights (1 + z + … + z^(m−1))^(k+1) / m^k, read as the coefficients of a polynomial (for m = 2:
    binomial coefficients). So the function stays the same, inside and outside the grid, when the new size is a multiple
    of the old one; otherwise the new coefficients are fitted to the old splines by least squares.

    The coefficients stay the same parameter object, with another shape: make the optimizer anew.

    Args:
        model: the network.
        grid_size: intervals, or one number a layer; no smaller than now.

    Returns:
        How much each layer's splines changed, summed over its inputs, on points all over the grid.

    Raises:
        TypeError, ValueError: not an integer, or smaller than now; or not one number a layer.
    """
    layers = layers_of(model)
    sizes = list(grid_size) if isinstance(grid_size, Sequence) else [grid_size] * len(layers)
    if len(sizes) != len(layers):
        raise ValueError(f"grid_size must be one number, or one for each of {len(layers)} layers, got {sizes}")
    for size, layer in zip(sizes, layers, strict=True):
        check_int(size, "grid_size", minimum=layer.grid_size)
    return GridReport([_resize(layer, size) for layer, size in zip(layers, sizes, strict=True)])


@torch.no_grad()
def set_grid_size(model: KANBase, grid_size: int) -> None:
    """Give every grid this many intervals; fewer than now lose detail, as far as least squares must."""
    for layer in layers_of(model):
        _resize(layer, grid_size)


def check_samples(model: KANBase, x: Tensor, *, grid_size: int | None = None, name: str = "x") -> None:
    """Raise unless ``x`` are inputs of the model, finite and enough for its grids, or for one of ``grid_size``."""
    width, expected = model.widths[0], layers_of(model)[0].coefficients.dtype
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"{name} must have shape (n, {width}), got {tuple(x.shape)}")
    if x.dtype != expected:
        raise TypeError(f"{name} must be {expected} like the model's parameters, got {x.dtype}")
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {_first_bad(x)}")
    largest = max(layer.grid_size for layer in layers_of(model)) if grid_size is None else grid_size
    if len(x) <= largest:
        raise ValueError(f"a grid of {largest} intervals needs at least {largest + 1} samples, got {len(x)}")


def _first_bad(values: Tensor) -> str:
    row, column = (~values.isfinite()).nonzero()[0].tolist()
    return f"{values[row, column].item()} in row {row}, column {column}"


def _ranges(low: Tensor, step: Tensor, grid_size: int) -> Tensor:
    return torch.stack([low, low + step * grid_size], dim=1)


def _move(layer: KANLayer, x: Tensor, margin: float) -> LayerGrid:
    """Fit the layer's grids to the samples ``x`` at its inputs."""
    size, old_low, old_step = layer.grid_size, layer.grid_low.clone(), layer.grid_step.clone()
    low, high = x.min(dim=0).values, x.max(dim=0).values
    # Of values that differ in their last digits only, a grid would be all rounding.
    resolution = 64 * torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs())
    constant = high - low <= resolution
    new_low = low - margin * (high - low)
    new_step = (high - low) * (1 + 2 * margin) / size
    tiny = 8 * torch.finfo(x.dtype).eps * (new_low.abs() + new_step * size)
    moved = ~constant & (((new_low - old_low).abs() > tiny) | ((new_step - old_step).abs() * size > tiny))
    before = layer(x)
    for j in moved.nonzero().flatten().tolist():
        grid = torch.linspace(0, size, _POINTS_PER_INTERVAL * size + 1, dtype=torch.float64, device=x.device)
        points = torch.cat([x[:, j].double(), new_low[j].double() + new_step[j].double() * grid])[:, None]
        weights = torch.ones_like(points)
        weights[len(x) :] = 0.1 * math.sqrt(len(x) / len(grid))
        old = b_spline_basis((points - old_low[j].double()) / old_step[j].double(), size, layer.degree)[:, :, 0]
        new = b_spline_basis((points - new_low[j].double()) / new_step[j].double(), size, layer.degree)[:, :, 0]
        targets = old @ layer.coefficients[:, :, j].double().T
        layer.coefficients[:, :, j] = _least_squares(new, targets, weights).T.to(x.dtype)
        layer.grid_low[j], layer.grid_step[j] = new_low[j], new_step[j]
    residual = float((layer(x) - before).double().square().mean().sqrt()) if bool(moved.any()) else 0.0
    return LayerGrid(
        grid_size=(size, size),
        old_range=_ranges(old_low, old_step, size),
        new_range=_ranges(layer.grid_low, layer.grid_step, size),
        residual=residual,
        constant=constant.nonzero().flatten().tolist(),
    )


def _least_squares(matrix: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted least-squares solution; of full rank, since the points fill every interval."""
    solution: Tensor = torch.linalg.lstsq(matrix * weights, targets * weights).solution
    return solution


def _resize(layer: KANLayer, grid_size: int) -> LayerGrid:
    """Give the layer a grid of ``grid_size`` intervals in the same range."""
    old_size, degree = layer.grid_size, layer.degree
    ranges = _ranges(layer.grid_low, layer.grid_step, old_size)
    residual = 0.0
    if grid_size != old_size:
        old = layer.coefficients.double()
        s = torch.linspace(0, 1, _POINTS_PER_INTERVAL * grid_size + 1, dtype=torch.float64, device=old.device)[:, None]
        old_basis = b_spline_basis(s * old_size, old_size, degree)[:, :, 0]
        new_basis = b_spline_basis(s * grid_size, grid_size, degree)[:, :, 0]
        if grid_size % old_size == 0:
            matrix = _subdivision(old_size, degree, grid_size // old_size).to(old)
        else:
            matrix = _least_squares(new_basis, old_basis, torch.ones_like(s))
        new = torch.einsum("nb,ibj->inj", matrix, old).to(layer.coefficients.dtype)
        change = torch.einsum("pn,inj->pij", new_basis, new.double()) - torch.einsum("pb,ibj->pij", old_basis, old)
        change = change * layer.edge_mask.double()
        residual = float(change.sum(dim=2).square().mean().sqrt())
        layer.coefficients.data = new.contiguous()
        layer.coefficients.grad = None
        layer.grid_step.mul_(old_size / grid_size)
        layer.grid_size = grid_size
    new_ranges = _ranges(layer.grid_low, layer.grid_step, grid_size)
    return LayerGrid((old_size, grid_size), old_range=ranges, new_range=new_ranges, residual=residual)


def _subdivision(grid_size: int, degree: int, factor: int) -> Tensor:
    """Return the matrix from coefficients to those of the same function on intervals cut into ``factor``."""
    mask = torch.ones(1, dtype=torch.float64)
    for _ in range(degree + 1):
        total = torch.zeros(len(mask) + factor - 1, dtype=torch.float64)
        for shift in range(factor):
            total[shift : shift + len(mask)] += mask
        mask = total
    mask /= float(factor) ** degree
    matrix = torch.zeros(grid_size * factor + degree, grid_size + degree, dtype=torch.float64)
    for b in range(grid_size + degree):
        # Old function b begins at knot b − degree, and that is the beginning of the new one of this number.
        first = (b - degree) * factor + degree
        for position, weight in enumerate(mask.tolist(), start=first):
            if 0 <= position < len(matrix):
                matrix[position, b] = weight
    return matrix
