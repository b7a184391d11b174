"""The right ways of lesson 08's exercises, with switches for the mistakes that students make in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from course_utils.kan import KANLayer, b_spline_basis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "blend", "boxes", "edge_shares", "error_slope", "n_parameters", "refine", "refinement_figure", "scale_to",
]  # fmt: skip


def n_parameters(
    widths: Sequence[int], grid_size: int, degree: int, base: bool, *, each: int | None = None, bias: bool = False
) -> int:
    """Return the number of parameters: edges times numbers on an edge."""
    numbers = grid_size + degree + base if each is None else each
    return sum(a * b * numbers + (b if bias else 0) for a, b in itertools.pairwise(widths))


def boxes(x: Tensor, knots: Tensor) -> Tensor:
    """Return the splines of degree 0, (n, knots - 1)."""
    return ((knots[:-1] <= x[:, None]) & (x[:, None] < knots[1:])).to(x.dtype)


def blend(
    basis: Tensor,
    x: Tensor,
    knots: Tensor,
    degree: int,
    *,
    rising: bool = True,
    falling: bool = True,
    swap: bool = False,
    neighbour: int = 1,
    reach: int = 0,
    guard: bool = True,
    even: bool = False,
    fill: float = 0.0,
) -> Tensor:
    """Return the splines of a degree from those of the degree below, by Cox and de Boor; 0/0 counts as 0."""
    m = basis.shape[1]
    start, end = knots[: m - 1], knots[degree - reach : degree - reach + m - 1]
    next_start, next_end = knots[1:m], knots[degree + 1 - reach : degree + m - reach]

    def ratio(above: Tensor, below: Tensor) -> Tensor:
        found = above / below
        return torch.where(below == 0, torch.full_like(found, fill), found) if guard else found

    up, down = ratio(x[:, None] - start, end - start), ratio(next_end - x[:, None], next_end - next_start)
    if even:
        up, down = torch.full_like(up, 0.5), torch.full_like(down, 0.5)
    if swap:
        up, down = down, up
    first, second = basis[:, :-1], basis[:, neighbour : m - 1 + neighbour]
    return rising * up * first + falling * down * second


def refine(
    coefficients: Tensor,
    *,
    weights: Sequence[float] = (1, 4, 6, 4, 1),
    divisor: float = 8,
    cut: tuple[int, int] = (3, 3),
    repeat: bool = False,
) -> Tensor:
    """Return the coefficients of the same cubic spline on a grid with every interval cut in two."""
    if repeat:
        upsampled = coefficients.repeat_interleave(2)[:-1]
    else:
        upsampled = coefficients.new_zeros(2 * len(coefficients) - 1)
        upsampled[::2] = coefficients
    long = coefficients.new_tensor(np.convolve(upsampled.numpy(), np.array(weights) / divisor))
    return long[cut[0] : len(long) - cut[1]]


def refinement_figure() -> tuple[Figure, str]:
    """Draw a spline by its bumps, before and after the intervals are cut in two."""
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    coefficients = torch.tensor([0.2, 1.0, -0.5, 0.8, 0.1, -0.9, 0.4], dtype=torch.float64)
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.4), sharey=True)
    s = torch.linspace(0, 4, 401, dtype=torch.float64)[:, None]
    for ax, grid_size, heights in zip(axes, (4, 8), (coefficients, refine(coefficients)), strict=True):
        basis = b_spline_basis(s * grid_size / 4, grid_size, 3)[..., 0]
        ax.plot(s, basis * heights, color="0.8", linewidth=1)
        ax.plot(s, basis @ heights, color=style(0)["color"])
        ax.set(xlabel="x", title=f"{grid_size} intervals, {len(heights)} bumps")
    return (
        figure,
        "The same spline twice: the sum of seven wide grey bumps on the left, of eleven narrow ones on the right.",
    )


def error_slope(
    grids: np.ndarray,
    errors: np.ndarray,
    *,
    log_x: Callable[..., Any] = np.log,
    log_y: Callable[..., Any] = np.log,
    exchange: bool = False,
    place: int = 0,
) -> float:
    """Return the slope of the straight line through the points on logarithmic axes, by least squares."""
    a, b = log_x(grids), log_y(errors)
    return float(np.polyfit(b, a, 1)[place] if exchange else np.polyfit(a, b, 1)[place])


def scale_to(
    f: Tensor,
    y: Tensor,
    *,
    centred: bool = True,
    by: str = "f",
    ddof: int = 0,
    shift: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    quality: Callable[[Tensor], Tensor] | None = None,
    guard: bool = True,
) -> tuple[float, float, float]:
    """Return c, d and R² of the best c·f + d."""
    a, b = (f - f.mean(), y - y.mean()) if centred else (f, y)
    below = a.square().mean() if by == "f" else b.square().mean()
    constant = guard and f.var(correction=0) == 0
    c = torch.zeros_like(below) if constant else (a * b).sum() / (len(f) - ddof) / below
    d = y.mean() - c * f.mean() if shift is None else shift(c, f, y)
    r2 = 1 - (y - c * f - (y.mean() - c * f.mean() if shift else d)).square().mean() / y.var(correction=0)
    if quality is not None:
        r2 = quality(r2)
    return float(c), float(d), float(r2)


def edge_shares(
    layer: KANLayer,
    x: Tensor,
    *,
    base: bool = True,
    spline: bool = True,
    scaled: bool = True,
    spread: Callable[[Tensor], Tensor] | None = None,
    total: Callable[[Tensor], Tensor | float] = torch.sum,
) -> Tensor:
    """Return each edge's spread over the data as a share of all edges' spreads, (out, in)."""
    with torch.no_grad():
        s = (x - layer.grid_low) / layer.grid_step if scaled else x
        basis = b_spline_basis(s, layer.grid_size, layer.degree)
        values = spline * torch.einsum("nbj,ibj->nij", basis, layer.coefficients)
        if base and layer.base_weight is not None:
            values = values + layer.base_weight * functional.silu(x)[:, None, :]
        spreads = values.std(dim=0) if spread is None else spread(values)
        return spreads / total(spreads)
