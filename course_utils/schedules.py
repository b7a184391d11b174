"""Say by which factor the learning rate is multiplied in each step.

A schedule is a pure function of the step, counted from 0; it returns the factor on the optimizer's initial learning
rate. Hand it to ``fit(schedule=...)`` or to ``torch.optim.lr_scheduler.LambdaLR``. After its last step a schedule keeps
its final value, so that a run which is a little longer than planned does not break.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from course_utils._validation import check_in_range, check_int, check_non_negative, check_positive

__all__ = [
    "Schedule",
    "cosine_decay",
    "exponential_decay",
    "inverse_decay",
    "linear_decay",
    "linear_warmup",
    "one_cycle",
    "polynomial_decay",
    "step_decay",
]

Schedule: TypeAlias = Callable[[int], float]


def step_decay(every: int, *, gamma: float = 0.1) -> Schedule:
    """Multiply by ``gamma`` every so many steps: γ^⌊t / every⌋, as torch's ``StepLR``.

    Args:
        every: steps between two drops, at least 1.
        gamma: factor of one drop, in (0, 1].

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    every = check_int(every, "every", minimum=1)
    gamma = check_in_range(gamma, "gamma", 0.0, 1.0, closed="(]")
    return lambda step: gamma ** (step // every)


def exponential_decay(gamma: float) -> Schedule:
    """Multiply by ``gamma`` in every step: γᵗ, as torch's ``ExponentialLR``.

    Args:
        gamma: in (0, 1]; per *step*, so close to 1.

    Raises:
        TypeError, ValueError: ``gamma`` is out of range.
    """
    gamma = check_in_range(gamma, "gamma", 0.0, 1.0, closed="(]")
    return lambda step: gamma**step


def inverse_decay(rate: float) -> Schedule:
    """Decay with the inverse of time: 1 / (1 + rate·t).

    Its sum over all steps diverges while the sum of its squares stays finite: the conditions of Robbins & Monro 1951.

    Args:
        rate: at least 0; the factor is one half after 1/rate steps.

    Raises:
        TypeError, ValueError: ``rate`` is out of range.
    """
    rate = check_non_negative(rate, "rate")
    return lambda step: 1.0 / (1.0 + rate * step)


def linear_decay(n_steps: int, *, final: float = 0.0) -> Schedule:
    """Go from 1 to ``final`` in a straight line, as torch's ``LinearLR`` with these two factors.

    Args:
        n_steps: after how many steps ``final`` is reached, at least 1.
        final: the last factor, in [0, 1].

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    return polynomial_decay(n_steps, power=1.0, final=final)


def polynomial_decay(n_steps: int, *, power: float = 2.0, final: float = 0.0) -> Schedule:
    """Follow final + (1 − final)·(1 − t/n)^power, with ``final=0`` as torch's ``PolynomialLR``.

    Args:
        n_steps: after how many steps ``final`` is reached, at least 1.
        power: above 0; larger ones fall earlier.
        final: the last factor, in [0, 1].

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    n_steps = check_int(n_steps, "n_steps", minimum=1)
    power = check_positive(power, "power")
    final = check_in_range(final, "final", 0.0, 1.0, closed="[]")
    return lambda step: final + (1.0 - final) * (1.0 - min(step / n_steps, 1.0)) ** power


def cosine_decay(n_steps: int, *, final: float = 0.0) -> Schedule:
    """Go from 1 to ``final`` along half a cosine, as torch's ``CosineAnnealingLR`` up to ``T_max``.

    Source: Loshchilov & Hutter 2017, eq. 5, without restarts.

    Args:
        n_steps: after how many steps ``final`` is reached, at least 1.
        final: the last factor, in [0, 1].

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    n_steps = check_int(n_steps, "n_steps", minimum=1)
    final = check_in_range(final, "final", 0.0, 1.0, closed="[]")
    return lambda step: _cosine_between(1.0, final, min(step / n_steps, 1.0))


def linear_warmup(n_steps: int, *, start: float = 0.1, then: Schedule | None = None) -> Schedule:
    """Rise in a straight line from ``start`` to 1, then follow another schedule from its step 0.

    Args:
        n_steps: after how many steps 1 is reached, at least 1.
        start: the first factor, in [0, 1]; with 0 the first step moves nothing.
        then: what follows; ``None`` stays at 1.

    Raises:
        TypeError, ValueError: an argument is out of range, or ``then`` is not a function.
    """
    n_steps = check_int(n_steps, "n_steps", minimum=1)
    start = check_in_range(start, "start", 0.0, 1.0, closed="[]")
    if then is not None and not callable(then):
        raise TypeError(f"then must be a schedule, a function of the step, got {then!r}")

    def factor(step: int) -> float:
        if step < n_steps:
            return start + (1.0 - start) * step / n_steps
        return 1.0 if then is None else then(step - n_steps)

    return factor


def one_cycle(
    n_steps: int, *, warm_up: float = 0.3, start: float = 1.0 / 25.0, final: float = 1.0 / 250_000.0
) -> Schedule:
    """Rise along half a cosine to 1, then fall along another to nearly 0, as torch's ``OneCycleLR``.

    Source: Smith & Topin 2018. Differs, as torch does: cosines instead of straight lines, and no third phase. The
    momentum is not cycled. The optimizer's learning rate is the peak.

    As in torch the peak lies at step ``warm_up * n_steps - 1``. Where that is 0 or less the warm-up is shorter than one
    step, and ours starts at the peak itself. There we differ on purpose: at exactly 0 torch divides by zero, and below
    it enters the fall on its way and never reaches ``max_lr`` (with 2 steps and a tiny warm-up it starts at half).

    Args:
        n_steps: steps of the whole cycle, at least 2.
        warm_up: share of the steps that rise, in (0, 1).
        start: the first factor, in (0, 1].
        final: the last factor, in [0, 1].

    Raises:
        TypeError, ValueError: an argument is out of range.
    """
    n_steps = check_int(n_steps, "n_steps", minimum=2)
    warm_up = check_in_range(warm_up, "warm_up", 0.0, 1.0, closed="()")
    start = check_in_range(start, "start", 0.0, 1.0, closed="(]")
    final = check_in_range(final, "final", 0.0, 1.0, closed="[]")
    peak = max(warm_up * n_steps - 1.0, 0.0)  # torch's count: the first of n steps is number 0

    def factor(step: int) -> float:
        if step < peak:
            return _cosine_between(start, 1.0, step / peak)
        return _cosine_between(1.0, final, min((step - peak) / (n_steps - 1 - peak), 1.0))

    return factor


def _cosine_between(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1.0 + math.cos(math.pi * progress)) / 2.0
