"""Search spaces: plain dicts from a hyperparameter's name to the values it may take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from course_utils._validation import check_in_range, check_int

__all__ = ["Choice", "Dimension", "Float", "Int", "Space", "check_space", "default_space", "grid_axes", "positions"]


@dataclass(frozen=True)
class Float:
    """Real numbers from ``low`` to ``high``, drawn evenly, or evenly on a logarithmic scale.

    Args:
        low: the smallest value; above 0 with ``log``.
        high: the largest value, above ``low``.
        log: whether equal factors, not equal differences, are equally likely: right for rates and penalties.

    Raises:
        TypeError, ValueError: an end is not a finite number, or they are not in order.
    """

    low: float
    high: float
    log: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        low = check_in_range(self.low, "low", -math.inf, math.inf, closed="()")
        check_in_range(self.high, "high", low, math.inf, closed="()")
        if self.log:
            check_in_range(low, "low", 0.0, math.inf, closed="()")

    def values(self, n: int) -> list[float]:
        """Return ``n`` values from ``low`` to ``high`` in equal steps, or factors with ``log``; one is the middle."""
        steps = [0.5] if n == 1 else np.linspace(0.0, 1.0, n).tolist()
        inner = [
            self.low * (self.high / self.low) ** t if self.log else self.low + (self.high - self.low) * t for t in steps
        ]
        return [min(max(float(value), float(self.low)), float(self.high)) for value in inner]


@dataclass(frozen=True)
class Int:
    """Whole numbers from ``low`` to ``high``, both included.

    Args:
        low: the smallest value; at least 1 with ``log``.
        high: the largest value, above ``low``.
        log: as in `Float`.

    Raises:
        TypeError, ValueError: an end is not an integer, or they are not in order.
    """

    low: int
    high: int
    log: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        low = check_int(self.low, "low", minimum=1 if self.log else None)
        check_int(self.high, "high", minimum=low + 1)

    def values(self, n: int) -> list[int]:
        """Return at most ``n`` different values from ``low`` to ``high``, spaced as in `Float.values` and rounded."""
        exact = Float(float(self.low), float(self.high), log=self.log).values(n)
        return sorted({round(value) for value in exact})


@dataclass(frozen=True)
class Choice:
    """One of several values without order, such as names of losses or lists of layer widths.

    Args:
        options: at least one; told apart by their ``repr``, which is also how a storage keeps values other than
            numbers, texts, booleans and ``None``.

    Raises:
        TypeError: ``options`` is not a sequence, or a text.
        ValueError: it is empty, or two options read alike.
    """

    options: Sequence[Any]

    def __post_init__(self) -> None:
        if isinstance(self.options, str) or not isinstance(self.options, Sequence):
            raise TypeError(f"options must be a sequence such as ['relu', 'silu'], got {self.options!r}")
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options or len(set(map(repr, self.options))) < len(self.options):
            raise ValueError(f"options must be different and at least one, got {list(self.options)!r}")

    def values(self, n: int) -> list[Any]:
        """Return all options, whatever ``n``: there is nothing between them to leave out."""
        return list(self.options)

    @property
    def labels(self) -> tuple[str | float | bool | None, ...]:
        """What a storage keeps in place of each option."""
        return tuple(
            option if option is None or isinstance(option, bool | int | float | str) else repr(option)
            for option in self.options
        )

    def from_label(self, label: Any) -> Any:
        """Return the option that a storage keeps as ``label``."""
        return self.options[list(map(repr, self.labels)).index(repr(label))]

    def to_label(self, option: Any) -> Any:
        """Return what a storage keeps in place of ``option``."""
        return self.labels[list(map(repr, self.options)).index(repr(option))]


Dimension = Float | Int | Choice
Space = Mapping[str, Dimension]

# Wide enough to hold what the libraries' own defaults and the usual advice name; rates and penalties go by factors.
_FOREST: Space = {"max_features": Float(0.1, 1.0), "min_samples_leaf": Int(1, 20, log=True)}
_HIST: Space = {
    "learning_rate": Float(0.01, 0.3, log=True),
    "max_iter": Int(50, 500, log=True),
    "max_leaf_nodes": Int(4, 128, log=True),
    "min_samples_leaf": Int(2, 60, log=True),
    "l2_regularization": Float(1e-6, 10.0, log=True),
}
_LIGHTGBM: Space = {
    "learning_rate": Float(0.01, 0.3, log=True),
    "n_estimators": Int(50, 500, log=True),
    "num_leaves": Int(4, 128, log=True),
    "min_child_samples": Int(2, 60, log=True),
    "reg_lambda": Float(1e-6, 10.0, log=True),
    "colsample_bytree": Float(0.4, 1.0),
}
_TRAINING: Space = {
    "lr": Float(3e-4, 1e-2, log=True),
    "weight_decay": Float(1e-6, 0.1, log=True),
    "dropout": Float(0.0, 0.5),
}
_LAYERS: Space = {**_TRAINING, "hidden_features": Choice([(64, 64), (128, 128), (256, 256), (256, 256, 256)])}
_BLOCKS: Space = {**_TRAINING, "n_blocks": Int(1, 4), "d_block": Choice([32, 64, 128])}
_DEFAULTS: dict[str, Space] = {
    "HistGradientBoostingClassifier": _HIST,
    "HistGradientBoostingRegressor": _HIST,
    "LGBMClassifier": _LIGHTGBM,
    "LGBMRegressor": _LIGHTGBM,
    "RandomForestClassifier": _FOREST,
    "RandomForestRegressor": _FOREST,
    "Ridge": {"alpha": Float(1e-3, 1e3, log=True)},
    "RidgeClassifier": {"alpha": Float(1e-3, 1e3, log=True)},
}


def positions(values: Sequence[Any], dimension: Dimension) -> NDArray[np.float64]:
    """Return where values lie on their own scale: log₁₀ with ``log``, an option's number for a `Choice`."""
    if isinstance(dimension, Choice):
        order = {repr(option): index for index, option in enumerate(dimension.options)}
        return np.array([order[repr(value)] for value in values], dtype=float)
    exact = np.asarray(values, dtype=float)
    return np.log10(exact) if dimension.log else exact


def default_space(estimator: Any) -> dict[str, Dimension]:
    """Return a copy of the search space that ``space="default"`` means for an estimator.

    Args:
        estimator: of a class that has a default space, or around one: a ``Pipeline`` (its steps' spaces, each under
            ``step__``) or a ``TransformedTargetRegressor``.

    Raises:
        ValueError: no default space is known.
    """
    space = _find_default(estimator)
    if not space:
        known = ", ".join([*_DEFAULTS, "MLPRegressor and MLPClassifier of course_utils.estimators"])
        raise ValueError(
            f"there is no default space for {type(estimator).__name__}; give one, such as "
            f"space={{'alpha': Float(1e-3, 1e3, log=True)}}. Defaults exist for {known}, and Pipelines of them"
        )
    return space


def _find_default(estimator: Any) -> dict[str, Dimension]:
    name, module = type(estimator).__name__, type(estimator).__module__
    # scikit-learn has classes of these names too, with other hyperparameters.
    if name in ("MLPRegressor", "MLPClassifier") and module.startswith("course_utils."):
        return dict(_LAYERS if estimator.architecture in ("mlp", "ensemble") else _BLOCKS)
    if name in _DEFAULTS:
        return dict(_DEFAULTS[name])
    parts: list[tuple[str, Any]] = list(getattr(estimator, "steps", []))  # of a Pipeline
    if name == "TransformedTargetRegressor":
        parts = [("regressor", estimator.regressor)]
    return {f"{part}__{key}": dimension for part, inner in parts for key, dimension in _find_default(inner).items()}


def check_space(space: Any, estimator: Any) -> dict[str, Dimension]:
    """Return the space as a dict, or raise an error that says what is wrong with it.

    Args:
        space: ``"default"`` or a mapping.
        estimator: whose hyperparameters the names must be (``step__name`` inside a Pipeline).

    Raises:
        TypeError: the space is no mapping, or a value is not ``Float``, ``Int`` or ``Choice``.
        ValueError: it is empty, or the estimator has no hyperparameter of that name.
    """
    if isinstance(space, str) and space == "default":
        space = default_space(estimator)
    if not isinstance(space, Mapping):
        raise TypeError(f"space must be 'default' or a dict such as {{'alpha': Float(0.1, 10.0)}}, got {space!r}")
    if not space:
        raise ValueError("space must name at least one hyperparameter, got {}")
    names = estimator.get_params(deep=True)
    for name, dimension in space.items():
        if not isinstance(dimension, Float | Int | Choice):
            raise TypeError(f"space[{name!r}] must be a Float, an Int or a Choice, got {dimension!r}")
        if name not in names:
            raise ValueError(f"{type(estimator).__name__} has no hyperparameter {name!r}; it has {', '.join(names)}")
    return dict(space)


def grid_axes(space: Space, budget: int) -> dict[str, list[Any]]:
    """Return the values of each hyperparameter that make the largest even grid within a number of trials.

    Every numeric axis starts with its two ends; then the shortest axis gets one point more as long as the grid, the
    product of all axes, has at most ``budget`` cells. A `Choice` always has all its options. Where even the smallest
    grid exceeds the budget, a search visits a random part of it.

    Args:
        space: see `Float`, `Int`, `Choice`.
        budget: number of trials, at least 1.
    """
    check_int(budget, "budget", minimum=1)
    axes = {name: dimension.values(2) for name, dimension in space.items()}
    finished = {name for name, dimension in space.items() if isinstance(dimension, Choice)}
    while growing := [name for name in axes if name not in finished]:
        name = min(growing, key=lambda each: len(axes[each]))
        longer = space[name].values(len(axes[name]) + 1)
        if math.prod(map(len, axes.values())) // len(axes[name]) * len(longer) > budget:
            break
        if len(longer) == len(axes[name]):
            finished.add(name)  # an Int that has no more to offer
        axes[name] = longer
    return axes
