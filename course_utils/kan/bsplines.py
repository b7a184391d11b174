"""B-splines on a uniform grid, in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from course_utils._validation import check_int

__all__ = ["b_spline_basis", "b_spline_derivative", "centres"]


def b_spline_basis(s: Tensor, grid_size: int, degree: int) -> Tensor:
    """Return every B-spline of a uniform grid at every point.

    The knots are the integers, so ``s`` counts grid intervals from the left end: 0 to ``grid_size`` inside. The spline
    of degree k around the centre c_j = j − (k − 1)/2 is a sum of truncated powers of the distance t = |s − c_j|::

        B_k(t) = (1/k!) Σ_{i < (k+1)/2} (−1)^i C(k+1, i) ((k+1)/2 − i − t)₊^k

    Inside the grid the ``grid_size + degree`` splines sum to 1, and each is 0 farther than (k + 1)/2 from its centre.
    Outside each goes on along its tangent at the end, so that a sum of them is extrapolated linearly.

    Args:
        s: (batch, in_features), floating-point, finite.
        grid_size: intervals of the grid, at least 1.
        degree: k, at least 1: 1 is piecewise linear, 3 cubic.

    Returns:
        (batch, grid_size + degree, in_features): with the input's place last, one subtraction along the middle axis
        makes all distances without copying ``s``.

    Raises:
        TypeError, ValueError: a size is out of range, or ``s`` has another shape or dtype.

    Source: de Boor 1978; the symmetric form saves half of the powers that the one-sided form needs.
    """
    check_int(grid_size, "grid_size", minimum=1)
    check_int(degree, "degree", minimum=1)
    if s.ndim != 2:
        raise ValueError(f"s must have shape (batch, in_features), got {tuple(s.shape)}")
    if not s.is_floating_point():
        raise TypeError(f"s must hold floating-point numbers, got {s.dtype}")
    basis: Tensor = _Basis.apply(s, grid_size, degree)  # type: ignore[no-untyped-call]
    return basis


def b_spline_derivative(s: Tensor, grid_size: int, degree: int) -> Tensor:
    """Return the derivatives of `b_spline_basis` with respect to ``s``; shapes as there. Outside they are constant."""
    return _slopes(_offsets(s.clamp(0, grid_size), grid_size, degree), degree)


def centres(grid_size: int, degree: int) -> Tensor:
    """Return where the splines have their maxima, in grid intervals from the left end: (grid_size + degree,)."""
    return torch.arange(grid_size + degree) - (degree - 1) / 2


def _offsets(inside: Tensor, grid_size: int, degree: int) -> Tensor:
    """Return s − c_j, (batch, grid_size + degree, in_features)."""
    return inside[:, None, :] - centres(grid_size, degree).to(inside)[:, None]


def _slopes(offsets: Tensor, degree: int) -> Tensor:
    """Return the derivatives with respect to s at s − c_j = ``offsets``."""
    return _truncated_powers(offsets.abs(), degree, degree - 1).mul_(-offsets.sign())


def _truncated_powers(distance: Tensor, degree: int, power: int) -> Tensor:
    """Return (1/power!) Σ_i (−1)^i C(degree+1, i) ((degree+1)/2 − i − t)₊^power for t = ``distance``."""
    total = torch.zeros_like(distance)
    for i in range((degree + 2) // 2):
        reach = (degree + 1) / 2 - i
        if reach <= 0:
            break
        base = (reach - distance).clamp_(min=0)
        # 0⁰ is 1 in torch, but a spline of degree 0 ends where its support ends.
        term = base.sign() if power == 0 else base.pow_(power)
        total.add_(term, alpha=(-1) ** i * math.comb(degree + 1, i) / math.factorial(power))
    return total


class _Basis(torch.autograd.Function):
    """The basis with its derivative saved: autograd through the powers would keep a dozen arrays of that size."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, grid_size: int, degree: int) -> Tensor:
        inside = s.clamp(0, grid_size)
        offsets = _offsets(inside, grid_size, degree)
        basis = _truncated_powers(offsets.abs(), degree, degree)
        beyond = s - inside
        outside = bool(beyond.any())
        if outside or ctx.needs_input_grad[0]:
            derivative = _slopes(offsets, degree)
            ctx.save_for_backward(derivative)
            if outside:
                basis.addcmul_(beyond[:, None, :], derivative)
        return basis

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_basis: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        return (grad_basis * derivative).sum(dim=1), None, None
