"""The right ways of lesson 07's exercises, with switches for the mistakes that students make in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Pair", "boost", "boosting_figure", "encode", "huber_centre", "midranks", "quantile_figure", "spearman",
    "to_normal",
]  # fmt: skip

Pair = tuple[Any, Any]


def spearman(
    x: np.ndarray,
    y: np.ndarray,
    limit: float,
    *,
    rank: Callable[..., Any] = stats.rankdata,
    size: Callable[..., Any] = np.abs,
    rank_target: bool = True,
    raw: bool = False,
) -> np.ndarray:
    """Return which columns of (n, columns) have a rank correlation with the target whose size exceeds the limit."""
    target = rank(y) if rank_target else y
    found = np.array([np.corrcoef(rank(column), target)[0, 1] for column in x.T])
    return found if raw else np.asarray(size(found) > limit)


def encode(
    train: np.ndarray,
    test: np.ndarray,
    *,
    levels_of: str = "train",
    unknown: str = "zero",
    ordered: bool = True,
    skip: int = 0,
) -> Pair:
    """Return both parts as 0/1 columns of the training levels; an unknown level is a row of zeros."""
    sources = {"train": (train, train), "both": (np.concatenate([train, test]),) * 2, "own": (train, test)}
    parts = []
    for values, source in zip((train, test), sources[levels_of], strict=True):
        levels = np.unique(source) if ordered else np.array(list(dict.fromkeys(source)))
        hot = (values[:, None] == levels).astype(float)
        strangers = np.flatnonzero(hot.sum(axis=1) == 0)
        places = {
            "zero": None,
            "first": np.zeros(len(strangers), dtype=int),
            "last": np.full(len(strangers), len(levels) - 1),
            "nearest": np.minimum(np.searchsorted(np.sort(levels), values[strangers]), len(levels) - 1),
        }
        if unknown == "drop":
            hot = np.delete(hot, strangers, axis=0)
        elif places[unknown] is not None:
            hot[strangers, places[unknown]] = 1
        parts.append(hot[:, skip:])
    return parts[0], parts[1]


def midranks(errors: np.ndarray, *, rank: Callable[..., Any] | None = None, method: str = "average") -> np.ndarray:
    """Return the mean over the tables (rows) of the models' ranks within each table."""
    rank = rank or (lambda row: stats.rankdata(row, method=method))
    return np.asarray(np.mean([rank(row) for row in errors], axis=0))


def to_normal(
    train: np.ndarray,
    new: np.ndarray,
    *,
    by: str = "train",
    shift: float = 0.5,
    law: str = "ppf",
    sort: bool = True,
    steps: bool = False,
) -> np.ndarray:
    """Return the normal quantiles of the shares (i + ½)/n, interpolated between the sorted training values."""
    seen = {"train": train, "new": new, "both": np.concatenate([train, new])}[by]
    known = np.sort(seen) if sort else seen
    shares = (np.arange(len(seen)) + shift) / len(seen)
    if steps:
        found = shares[np.clip(np.searchsorted(known, new, side="right") - 1, 0, None)]
    else:
        found = np.interp(new, known, shares)
    return np.asarray(found if law == "uniform" else getattr(stats.norm, law)(found))


def quantile_figure() -> tuple[Figure, str]:
    """Draw both scalings of a skewed column, within and beyond its training rows."""
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    train = np.random.default_rng(0).lognormal(size=200)
    new = np.linspace(0, 1.6 * train.max(), 400)
    figure, ax = plt.subplots(figsize=(6.5, 2.6))
    ax.axvspan(train.min(), train.max(), color="0.93")
    ax.plot(new, to_normal(train, new), color=style(0)["color"], label="ranks")
    ax.plot(new, (new - train.mean()) / train.std(), "--", color=style(1)["color"], label="standardized")
    ax.set(xlabel="value (grey: the training rows)", ylabel="scaled")
    ax.legend()
    alt = "A skewed column scaled in two ways: by ranks it rises steeply and stands still beyond the data; "
    return figure, alt + "standardized it goes on in a straight line."


def huber_centre(values: np.ndarray, delta: float) -> float:
    """Return the number with the smallest mean Huber loss to the values, by reweighting."""
    centre = float(np.median(values))
    for _ in range(1000):
        weights = delta / np.maximum(np.abs(values - centre), delta)
        centre = float(np.sum(weights * values) / np.sum(weights))
    return centre


def boost(
    x: np.ndarray,
    y: np.ndarray,
    prediction: np.ndarray,
    rate: float,
    *,
    use_rate: bool = True,
    keep: int = 1,
    direction: int = 1,
    leaf: Callable[..., Any] = np.mean,
    midway: float = 0.5,
    worst: bool = False,
    only: str = "",
    swap: bool = False,
) -> Pair:
    """Return the best stump's threshold, and the prediction after a step along it."""
    residual = direction * (y - prediction)
    values = np.unique(x)
    cuts = [np.median(x)] if only else values[:-1] + 0.5 * np.diff(values)
    best: tuple[float, float, np.ndarray] | None = None
    for cut in cuts:
        left = x <= cut
        mean = np.where(left, residual[left].mean(), residual[~left].mean())
        error = float(np.sum((residual - mean) ** 2)) * (-1 if worst else 1)
        if best is None or error < best[0]:
            best = error, float(cut), left
    assert best is not None
    _, cut, left = best
    below, above = leaf(residual[left]), leaf(residual[~left])
    step = np.where(left, above, below) if swap else np.where(left, below, above)
    if midway != 0.5:
        cut = float(x[left].max() if midway == 0 else x[~left].min())
    return cut, keep * prediction + (rate if use_rate else 1) * step


def boosting_figure() -> tuple[Figure, str]:
    """Draw the prediction after 1, 10 and 200 steps for a noisy curve."""
    import matplotlib.pyplot as plt

    from course_utils.plotting import sequence_colors

    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-3, 3, 60))
    y = np.sin(x) + 0.2 * rng.normal(size=60)
    prediction = np.full(60, y.mean())
    figure, ax = plt.subplots(figsize=(6.5, 2.8))
    ax.plot(x, y, ".", color="0.6")
    colors = dict(zip((1, 10, 200), sequence_colors(3), strict=True))
    for step in range(1, 201):
        prediction = boost(x, y, prediction, 0.3)[1]
        if step in colors:
            ax.step(x, prediction, where="mid", color=colors[step], label="1 step" if step == 1 else f"{step} steps")
    ax.set(xlabel="x", ylabel="y")
    ax.legend()
    return (
        figure,
        "A noisy sine and the boosted stumps: one step is a single edge, ten follow the curve, 200 the noise.",
    )
