"""B-splines on a uniform grid, in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils._validation import check_int

__all__ = ["b_spline_basis", "b_spline_derivative", "centres"]

_BLOCK = 2**17  # numbers that one thread works on at a time


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


def _basis_and_slopes(s: Tensor, grid_size: int, degree: int) -> tuple[Tensor, Tensor]:
    """Return the splines, and their derivatives times (degree − 1)!, each (batch, grid_size + degree, in_features).

    On a CPU a block of rows at a time, small enough to stay in its cache from one step to the next. A compiler joins
    the steps itself.
    """
    if torch.compiler.is_compiling() or not s.is_cpu or degree == 1:
        return _block(s, grid_size, degree)
    batch, in_features = s.shape
    rows = 1 + _BLOCK * torch.get_num_threads() // (1 + (grid_size + degree) * in_features)
    if rows >= batch:
        return _block(s, grid_size, degree)
    basis = s.new_empty(batch, grid_size + degree, in_features)
    slopes = torch.empty_like(basis)
    for parts in zip(s.split(rows), basis.split(rows), slopes.split(rows), strict=True):
        _block(parts[0], grid_size, degree, *parts[1:])
    return basis, slopes


def _block(
    s: Tensor, grid_size: int, degree: int, basis: Tensor | None = None, slopes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Do the arithmetic of `_basis_and_slopes`, for degrees above 1 in the memory of the last two arguments, if given.

    With v_i = min(t − (k+1)/2 + i, 0) and a_i = (−1)^i C(k+1, i), the slope is P = Σ a_i v_i^{k−1} but for its sign.
    Because v_i = v_0 + i where it is not 0, the spline (−1)^k/k! Σ a_i v_i^k is (−1)^k/k! (v_0·P + Σ i·a_i v_i^{k−1}):
    no power twice. Nearly every step works in place, since writing to fresh memory costs more than the arithmetic.
    """
    power, scale = degree - 1, (-1) ** degree / math.factorial(degree)
    inside = s.clamp(0, grid_size)
    offsets = centres(grid_size, degree).to(s)[:, None] - inside[:, None, :]
    v = offsets.abs().sub_((degree + 1) / 2).clamp_(max=0)
    if degree == 1:
        basis, slopes = v.neg_(), b_spline_derivative(s, grid_size, degree)
    else:
        basis = torch.add(v, 1, out=basis).clamp_(max=0).pow_(power)
        slopes = torch.pow(v, power, out=slopes).sub_(basis, alpha=degree + 1)
        basis.mul_(-(degree + 1) * scale)
        for i in range(2, (degree + 2) // 2):
            factor = (-1) ** i * math.comb(degree + 1, i)
            term = (v + i).clamp_(max=0).pow_(power)
            slopes.add_(term, alpha=factor)
            basis.add_(term, alpha=i * factor * scale)
        basis.addcmul_(v, slopes, value=scale)
        slopes.copysign_(offsets)  # but for rounding errors only the sign may be wrong before that
    basis.addcmul_((s - inside)[:, None, :], slopes, value=1 / math.factorial(power))
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
        return (grad_basis * slopes).sum(dim=1).div_(math.factorial(degree - 1)), None, None
