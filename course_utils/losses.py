"""Losses that outliers pull less than squared error.

Take them as ``loss_fn`` of `training.fit`, their parameters fixed by ``functools.partial``. In every formula r is
output − target. What a constant output would settle on says what a loss does with outliers: under r² the mean, which
one wild target moves without bound; under |r| the median, which it hardly moves; the losses here lie between.
"""

from __future__ import annotations

import math

from torch import Tensor

from course_utils._validation import check_in_range, check_one_of, check_positive

__all__ = ["huber_loss", "minkowski_loss"]

_REDUCTIONS = ("mean", "sum", "none")


def huber_loss(outputs: Tensor, targets: Tensor, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Return r²/2 where |r| ≤ delta and delta·(|r| − delta/2) beyond, so that no sample pulls harder than delta.

    Args:
        outputs: any shape, floating-point.
        targets: of the same shape.
        delta: where the parabola ends, in the targets' unit, above 0. Residuals of good samples should lie within.
        reduction: ``"mean"`` or ``"sum"`` over all elements, or ``"none"``.

    Returns:
        A scalar; with ``"none"``, the shape of the outputs.

    Raises:
        TypeError: the outputs are not floating-point, or ``delta`` is not a number.
        ValueError: the shapes differ, ``delta`` is not above 0 and finite, or ``reduction`` is none of these.

    Source: Huber 1964, doi:10.1214/aoms/1177703732. The same as ``torch.nn.functional.huber_loss``.
    """
    delta = check_positive(delta, "delta")
    size = _residuals(outputs, targets).abs()
    inside = size.clamp(max=delta)
    return _reduce(inside * (size - inside / 2), reduction)


def minkowski_loss(outputs: Tensor, targets: Tensor, *, power: float = 1.5, reduction: str = "mean") -> Tensor:
    """Return |r|^power: squared error at 2, absolute error at 1, and in between less weight on large residuals.

    The gradient is power·|r|^(power − 1)·sign(r), 0 at r = 0 for every power allowed. Below 2 its slope is infinite
    there: close to a perfect fit, steps of a fixed size overshoot.

    Args:
        outputs: any shape, floating-point.
        targets: of the same shape.
        power: at least 1; what is below is not convex, and its gradient infinite at r = 0.
        reduction: ``"mean"`` or ``"sum"`` over all elements, or ``"none"``.

    Returns:
        A scalar; with ``"none"``, the shape of the outputs.

    Raises:
        TypeError: the outputs are not floating-point, or ``power`` is not a number.
        ValueError: the shapes differ, ``power`` is below 1 or infinite, or ``reduction`` is none of these.

    Source: Hanson & Burr 1988, "Minkowski-r back-propagation"; deck 002, "Data Cleaning: Outliers".
    """
    power = check_in_range(power, "power", 1.0, math.inf)
    return _reduce(_residuals(outputs, targets).abs().pow(power), reduction)


def _residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be floating-point, got {outputs.dtype} of shape {tuple(outputs.shape)}")
    if outputs.shape != targets.shape:  # (n, 1) − (n,) would silently be (n, n)
        raise ValueError(
            f"outputs and targets must have the same shape, got {tuple(outputs.shape)} and {tuple(targets.shape)}"
        )
    return outputs - targets


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    check_one_of(reduction, "reduction", _REDUCTIONS)
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
