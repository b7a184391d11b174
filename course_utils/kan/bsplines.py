"""B-splines on a uniform grid, in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils._validation import check_int

__all__ = ["b_spline_basis", "b_spline_derivative", "centres"]


def b_spline_basis(s: Tensor, grid_size: int, degree: int) -> Tensor:
    """Return every B-spline of a uniform grid at every point.

    The knots are the integers, so ``s`` counts grid intervals from the left end: 0 to ``grid_size`` inside. The spline
    of degree k around the centre c_j = j − (k − 1)/2 is a sum of truncated powers of the distance t = |s − c_j|::

        B_k(t) = (1/k!) Σ_{i < (k+1)/2} (−1)^i C(k+1, i) ((k+1)/2 − i − t)₊^k

    Inside the grid the ``grid_size + degree`` splines sum to 1, and each is 0 farther than (k + 1)/2 from its centre.
    Outside each goes on along its tangent at the end, so that a sum of them is extrapolated linearly. NaN stays NaN.

    Args:
        s: (batch, in_features), floating-point.
        grid_size: intervals of the grid, at least 1.
        degree: k, at least 1: 1 is piecewise linear, 3 cubic.

    Returns:
        (batch, grid_size + degree, in_features): with the input's place last, one subtraction along the middle axis
        makes all distances without copying ``s``. It can be differentiated repeatedly.

    Raises:
        TypeError, ValueError: a size is out of range, or ``s`` has another shape or dtype.

    Source: de Boor 1978; the symmetric form saves half of the powers that the one-sided form needs.
    """
    _check(s, grid_size, degree)
    basis: Tensor = _Basis.apply(s, grid_size, degree)  # type: ignore[no-untyped-call]
    return basis


def b_spline_derivative(s: Tensor, grid_size: int, degree: int) -> Tensor:
    """Return the derivatives of `b_spline_basis` with respect to ``s``; arguments, shapes and errors as there.

    The derivative of a spline is the difference of two neighbours of one degree less. Outside the grid it is constant;
    at a knot, where that of degree 1 jumps, it is the one to the right, at the last knot the one to the left.
    """
    _check(s, grid_size, degree)
    inside = s.clamp(0, grid_size)
    if degree > 1:
        lower = b_spline_basis(inside, grid_size, degree - 1)
    else:
        interval = inside.floor().clamp(max=grid_size - 1)
        lower = (interval[:, None, :] == torch.arange(grid_size, device=s.device)[:, None]).to(s)
    return F.pad(lower, (0, 0, 1, 0)) - F.pad(lower, (0, 0, 0, 1))


def centres(grid_size: int, degree: int) -> Tensor:
    """Return where the splines have their maxima, in grid intervals from the left end: (grid_size + degree,)."""
    return torch.arange(grid_size + degree) - (degree - 1) / 2


def _check(s: Tensor, grid_size: int, degree: int) -> None:
    check_int(grid_size, "grid_size", minimum=1)
    check_int(degree, "degree", minimum=1)
    if s.ndim != 2:
        raise ValueError(f"s must have shape (batch, in_features), got {tuple(s.shape)}")
    if not s.is_floating_point():
        raise TypeError(f"s must hold floating-point numbers, got {s.dtype}")


def _unit(degree: int) -> float:
    """Return the length λ with λ^degree = 1/degree!: with distances in 1/λ, no power needs the factor 1/degree!."""
    return float(math.factorial(degree) ** (-1 / degree))


def _basis_and_slopes(s: Tensor, grid_size: int, degree: int) -> tuple[Tensor, Tensor]:
    """Return the splines, and their derivatives divided by degree·λ.

    With u_i = λ((k+1)/2 − i − t)₊ and a_i = (−1)^i C(k+1, i), the slope is P = Σ a_i u_i^{k−1} but for its sign, and
    because u_i = u_0 − iλ where it is not 0, the spline Σ a_i u_i^k is u_0·P − λ Σ i·a_i u_i^{k−1}: no power twice.
    Nearly every step works in place, since writing to fresh memory costs more than the arithmetic.
    """
    unit, power = _unit(degree), degree - 1
    inside = s.clamp(0, grid_size)
    offsets = centres(grid_size, degree).to(s)[:, None] - inside[:, None, :]
    basis = offsets.abs().mul_(-unit).add_(unit * (degree + 1) / 2).relu_()
    if degree == 1:
        slopes = b_spline_derivative(s, grid_size, degree)
    else:
        slopes = basis.pow(power)
        weighted = []
        for i in range(1, (degree + 2) // 2):
            term = (basis - i * unit).relu_().pow_(power)
            factor = (-1) ** i * math.comb(degree + 1, i)
            slopes.add_(term, alpha=factor)
            weighted.append((term, -i * factor * unit))
        basis.mul_(slopes)
        for term, factor in weighted:
            basis.add_(term, alpha=factor)
        slopes.copysign_(offsets)  # but for rounding errors it is nowhere negative before that
    basis.addcmul_((s - inside)[:, None, :], slopes, value=degree * unit)
    return basis, slopes


class _Basis(torch.autograd.Function):
    """The basis with its slopes saved: autograd through the powers would keep a dozen arrays of that size."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, grid_size: int, degree: int) -> Tensor:
        basis, slopes = _basis_and_slopes(s, grid_size, degree)
        ctx.sizes = grid_size, degree
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(s, slopes)
        return basis

    @staticmethod
    def backward(ctx: Any, grad_basis: Tensor) -> tuple[Tensor, None, None]:
        s, slopes = ctx.saved_tensors
        grid_size, degree = ctx.sizes
        if torch.is_grad_enabled():  # `create_graph`: the gradient itself will be differentiated
            return (grad_basis * b_spline_derivative(s, grid_size, degree)).sum(dim=1), None, None
        return (grad_basis * slopes).sum(dim=1).mul_(degree * _unit(degree)), None, None
