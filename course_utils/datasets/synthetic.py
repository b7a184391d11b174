"""Generate small data sets whose law is known. Public through `course_utils.datasets`.

Every generator draws from its own NumPy generator, so it neither reads nor disturbs any global random state. It returns
``(inputs, targets)``: inputs (n, d) float32; targets (n,) int64 for classes, (n, 1) float32 for regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from course_utils._validation import check_in_range, check_int, check_non_negative

__all__ = [
    "make_circles",
    "make_projectile",
    "make_spirals",
    "make_two_moons",
    "make_xor",
]

TensorPair: TypeAlias = tuple[torch.Tensor, torch.Tensor]


def make_xor(n_samples: int | None = None, *, noise_std: float = 0.0, seed: int = 0) -> TensorPair:
    """Draw the exclusive or: the class is 1 where exactly one of two bits is 1.

    Args:
        n_samples: points, dealt to the four corners in turn; ``None`` gives each corner once, as a truth table.
        noise_std: standard deviation of the Gaussian noise around the corners.
        seed: of the noise.

    Returns:
        inputs (n, 2) float32 around the corners of the unit square; classes (n,) int64.
    """
    n_samples = 4 if n_samples is None else n_samples
    truth_table = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    corners = truth_table[np.arange(n_samples) % 4]
    classes = (corners[:, 0] != corners[:, 1]).astype(np.int64)
    return _classification(_noisy(corners, noise_std, np.random.default_rng(seed)), classes)


def make_projectile(
    n_samples: int,
    *,
    noise_std: float = 0.0,
    drag: float = 0.0,
    speed_range: tuple[float, float] = (1.0, 20.0),
    height_range: tuple[float, float] = (0.5, 20.0),
    seed: int = 0,
) -> TensorPair:
    """Simulate how far a stone flies that leaves a tower horizontally: without air, d = 0.45 v √h.

    The fall takes t = √(2h/g) and d = v·t; 0.45 is √(2/g) with g = 9.81 m/s², rounded as in the lecture. Air slows
    the stone by drag·(speed)² against its direction; no formula gives d then, but Newton's law can be integrated.

    Args:
        n_samples: number of throws.
        noise_std: standard deviation of the error in measuring d, in m.
        drag: deceleration by the air over the squared speed, ρ·c·A/(2m), in 1/m, in [0, 1]: about 0.006 for a
            baseball, 0.13 for a table tennis ball.
        speed_range: v is uniform between these, in m/s.
        height_range: h is uniform between these, in m; not negative.
        seed: of v, h and the error; whatever the drag, v and h are the same.

    Returns:
        inputs (n, 2) float32, the columns v in m/s and h in m; targets (n, 1) float32, d in m.

    Raises:
        ValueError: ``drag`` or a height is out of range.

    Source: deck 002, "Synthetic Data Generation". Differs: the air.
    """
    drag = check_in_range(drag, "drag", 0.0, 1.0, closed="[]")
    check_non_negative(height_range[0], "height_range[0]")
    rng = np.random.default_rng(seed)
    speed = rng.uniform(*speed_range, size=(n_samples, 1))
    height = rng.uniform(*height_range, size=(n_samples, 1))
    distance = 0.45 * speed * np.sqrt(height) if drag == 0 else _fly(speed[:, 0], height[:, 0], drag)[:, None]
    return _regression(np.hstack([speed, height]), _noisy(distance, noise_std, rng))


def _fly(speed: NDArray[np.float64], height: NDArray[np.float64], drag: float) -> NDArray[np.float64]:
    """Integrate x″ = −drag·|v|·x′ and y″ = g − drag·|v|·y′ until y, the way fallen, is the height; return x, (n,)."""
    gravity = 2 / (0.45 * 0.45)  # so that the lecture's rounded law is the limit of no drag
    height = np.maximum(height, 1e-12)
    fall_time = np.sqrt(2 * height / gravity)  # without air

    def rates(state: NDArray[np.float64]) -> NDArray[np.float64]:
        _, _, right, down = state
        slowing = drag * np.hypot(right, down)
        return np.stack([right, down, -slowing * right, gravity - slowing * down])

    def by_pace(state: NDArray[np.float64]) -> NDArray[np.float64]:
        # The clock runs slower where the drag is strong, so that one step size suits every throw.
        changes: NDArray[np.float64] = rates(state) / (1 / fall_time + drag * np.hypot(state[2], state[3]))
        return changes

    def by_way_fallen(state: NDArray[np.float64]) -> NDArray[np.float64]:
        changes: NDArray[np.float64] = rates(state) / state[3]
        return changes

    state = np.stack([np.zeros_like(speed), np.zeros_like(speed), speed, np.zeros_like(speed)])
    falling = np.ones(len(speed), dtype=bool)
    while falling.any():
        ahead = _runge_kutta_step(by_pace, state, np.full(len(speed), 1 / 64))
        falling &= ahead[1] < height
        state = np.where(falling, ahead, state)
    # The rest of the way is shorter than a step; with the way as the clock it ends at the ground exactly (Hénon 1982).
    landed: NDArray[np.float64] = _runge_kutta_step(by_way_fallen, state, height - state[1])[0]
    return landed


def _runge_kutta_step(
    rates: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    state: NDArray[np.float64],
    step: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Advance states (n_variables, n) by the classical fourth-order rule, each by its own step (n,)."""
    first = rates(state)
    second = rates(state + step / 2 * first)
    third = rates(state + step / 2 * second)
    fourth = rates(state + step * third)
    return state + step / 6 * (first + 2 * second + 2 * third + fourth)


def make_two_moons(n_samples: int, *, noise_std: float = 0.1, seed: int = 0) -> TensorPair:
    """Draw two interlocking half circles of radius 1, one class each.

    Args:
        n_samples: number of points; class 1 gets the odd one.
        noise_std: standard deviation of the Gaussian noise added to both coordinates.
        seed: of the noise and the order.

    Returns:
        inputs (n, 2) float32; classes (n,) int64.

    Raises:
        ValueError: ``n_samples`` is below 2.

    Source: the curves of scikit-learn's ``make_moons``. Differs: NumPy's generator instead of the legacy state.
    """
    classes = _sorted_classes(n_samples, 2)
    upper, lower = (np.linspace(0.0, math.pi, np.sum(classes == label)) for label in (0, 1))
    upper_moon = np.column_stack([np.cos(upper), np.sin(upper)])
    lower_moon = np.column_stack([1.0 - np.cos(lower), 0.5 - np.sin(lower)])
    points = np.vstack([upper_moon, lower_moon])
    return _shuffled(points, classes, noise_std, np.random.default_rng(seed))


def make_circles(n_samples: int, *, factor: float = 0.5, noise_std: float = 0.05, seed: int = 0) -> TensorPair:
    """Draw two concentric circles: class 0 of radius 1 around class 1 of radius ``factor``.

    Args:
        n_samples: number of points; class 1 gets the odd one.
        factor: radius of the inner circle, in (0, 1).
        noise_std: standard deviation of the Gaussian noise added to both coordinates.
        seed: of the noise and the order.

    Returns:
        inputs (n, 2) float32; classes (n,) int64.

    Raises:
        ValueError: ``n_samples`` is below 2.

    Source: the curves of scikit-learn's ``make_circles``.
    """
    classes = _sorted_classes(n_samples, 2)
    counts = np.bincount(classes, minlength=2)
    angle = np.concatenate([np.linspace(0.0, 2 * math.pi, count, endpoint=False) for count in counts])
    radius = np.where(classes == 0, 1.0, factor)
    return _shuffled(_polar(radius, angle), classes, noise_std, np.random.default_rng(seed))


def make_spirals(
    n_samples: int, *, n_arms: int = 2, n_turns: float = 1.0, noise_std: float = 0.02, seed: int = 0
) -> TensorPair:
    """Draw spiral arms that wind from the centre to radius 1, one class each.

    Args:
        n_samples: number of points, dealt to the arms as evenly as possible.
        n_arms: number of classes, at least 2.
        n_turns: full turns of an arm.
        noise_std: standard deviation of the Gaussian noise added to both coordinates.
        seed: of the positions along the arms, the noise and the order.

    Returns:
        inputs (n, 2) float32; classes (n,) int64.

    Raises:
        ValueError: there are fewer samples than arms.
    """
    classes = _sorted_classes(n_samples, n_arms)
    rng = np.random.default_rng(seed)
    radius = rng.uniform(0.0, 1.0, size=len(classes))
    angle = 2 * math.pi * (n_turns * radius + classes / n_arms)
    return _shuffled(_polar(radius, angle), classes, noise_std, rng)


def _sorted_classes(n_samples: int, n_classes: int) -> NDArray[np.int64]:
    """Return n class labels in ascending order, as many of each as possible, the later classes one more."""
    n_samples = check_int(n_samples, "n_samples", minimum=n_classes)
    return np.sort((n_classes - 1) - np.arange(n_samples) % n_classes)


def _polar(radius: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def _noisy(values: NDArray[np.float64], noise_std: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return values + noise_std * rng.standard_normal(values.shape)


def _shuffled(
    points: NDArray[np.float64], classes: NDArray[np.int64], noise_std: float, rng: np.random.Generator
) -> TensorPair:
    """Add noise and mix the classes, so that the first rows are a fair sample of all."""
    order = rng.permutation(len(classes))
    return _classification(_noisy(points, noise_std, rng)[order], classes[order])


def _classification(points: NDArray[Any], classes: NDArray[np.int64]) -> TensorPair:
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(classes)


def _regression(inputs: NDArray[np.float64], targets: NDArray[np.float64]) -> TensorPair:
    return torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets.astype(np.float32))
