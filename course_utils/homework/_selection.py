"""The right ways of lesson 06's exercises, with switches for the mistakes that students make in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Split", "chosen", "complement", "flat", "fold_rows", "halves", "middle", "nested", "normal", "paired", "ridge_mse",
    "same", "scaled", "selection_figure", "t_and_p",
]  # fmt: skip

Split = tuple[np.ndarray, np.ndarray]


def fold_rows(order: np.ndarray, k: int, i: int) -> Split:
    """Return training and test rows of fold ``i``."""
    return complement(order, np.array_split(order, k)[i])


def complement(order: np.ndarray, test: np.ndarray) -> Split:
    """Return the other rows, and these."""
    return np.setdiff1d(order, test), test


def scaled(
    x: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    by: np.ndarray | None = None,
    axis: int | None = 0,
    ddof: int = 0,
    guard: bool = True,
    power: int = 1,
) -> Split:
    """Standardize both parts by the rows ``by``, the training rows by default."""
    rows = x[train if by is None else by]
    std = np.asarray(rows.std(axis=axis, ddof=ddof)) ** power
    with np.errstate(all="ignore"):
        z = (x - rows.mean(axis=axis)) / (np.where(std > 0, std, 1) if guard else std)
    return z[train], z[test]


def same(values: np.ndarray) -> np.ndarray:
    """Return what comes in."""
    return values


def chosen(
    x: np.ndarray,
    y: np.ndarray,
    folds: list[Split],
    n_keep: int,
    *,
    size: Callable[..., Any] = np.abs,
    order: Callable[..., Any] = np.sort,
    weakest: bool = False,
    covariance: bool = False,
    centred: bool = True,
) -> np.ndarray:
    """Return for each fold the numbers of the columns kept, (folds, n_keep)."""
    rows = []
    for train, _ in folds:
        a, b = x[train] - centred * x[train].mean(axis=0), y[train] - centred * y[train].mean()
        strength = size(b @ a / (1 if covariance else np.linalg.norm(a, axis=0)))
        rows.append(order(np.argsort(strength if weakest else -strength)[:n_keep]))
    return np.array(rows)


def selection_figure() -> tuple[Figure, str]:
    """Draw the accuracy on coin flips with columns chosen inside the folds, and on all rows."""
    import matplotlib.pyplot as plt

    from course_utils.plotting import plot_dots

    shares: dict[str, list[float]] = {"chosen inside each fold": [], "chosen on all rows": []}
    for rng in map(np.random.default_rng, range(8)):
        x, y = rng.normal(size=(60, 500)), np.repeat([-1.0, 1.0], 30)
        order = rng.permutation(60)
        folds = [fold_rows(order, 5, i) for i in range(5)]
        for name, seen in (("chosen inside each fold", folds), ("chosen on all rows", [(order, order)] * 5)):
            hits = []
            for (train, test), columns in zip(folds, chosen(x, y, seen, 10), strict=True):
                weights = y[train] @ x[train][:, columns]
                hits.append(np.mean(np.sign(x[test][:, columns] @ weights) == y[test]))
            shares[name].append(float(np.mean(hits)))
    figure, ax = plt.subplots(figsize=(7, 1.8))
    plot_dots(ax, shares, xlabel="accuracy on coin flips, 5 folds, eight draws")
    return (
        figure,
        "Accuracy on labels without any signal: around 0.5 if columns are chosen inside the folds, around 0.85 if not.",
    )


def middle(values: np.ndarray, level: float) -> tuple[float, float]:
    """Return the quantiles that hold a share ``level`` between them."""
    low, high = np.quantile(values, sorted([(1 - level) / 2, (1 + level) / 2]))
    return float(low), float(high)


def paired(a: np.ndarray, b: np.ndarray, rows: np.ndarray, level: float) -> tuple[float, float]:
    """Return the percentile interval of accuracy a minus accuracy b."""
    return middle((a - b)[rows].mean(axis=1), level)


def normal(a: np.ndarray, b: np.ndarray, rows: np.ndarray, level: float) -> tuple[float, float]:
    """Return mean ± z standard deviations instead of quantiles."""
    means = (a - b)[rows].mean(axis=1)
    reach = float(stats.norm.ppf((1 + level) / 2)) * means.std()
    return means.mean() - reach, means.mean() + reach


def t_and_p(
    d: np.ndarray,
    factor: float,
    *,
    ddof: int = 1,
    sides: int = 2,
    lost: int | None = 1,
    size: Callable[[float], float] = abs,
    power: float = 0.5,
) -> tuple[float, float]:
    """Return t and p, with the variance of the mean as ``factor`` times the variance."""
    t = d.mean() / (factor * d.var(ddof=ddof)) ** power
    law = stats.norm() if lost is None else stats.t(len(d) - lost)
    return float(t), float(sides * law.sf(size(t)))


def halves(rows: np.ndarray) -> list[Split]:
    """Return two splits of these rows: each half is tested once."""
    first, second = rows[::2], rows[1::2]
    return [(first, second), (second, first)]


def ridge_mse(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, penalty: float) -> float:
    """Return the mean squared error of ridge regression."""
    z, centre = x[train], y[train].mean()
    w = np.linalg.solve(z.T @ z + penalty * np.eye(x.shape[1]), z.T @ (y[train] - centre))
    return float(np.mean((y[test] - x[test] @ w - centre) ** 2))


def nested(
    x: np.ndarray,
    y: np.ndarray,
    penalties: list[float],
    outer: list[Split],
    inner: Callable[[np.ndarray], list[Split]],
    error: Callable[..., float],
    *,
    choose_on: str = "inner",
    report: str = "test",
    worst: bool = False,
    average: Callable[[list[float]], Any] = np.mean,
) -> float:
    """Return the outer error of a search by inner folds."""
    found = []
    for train, test in outer:
        splits = {"inner": inner(train), "test": [(train, test)], "train": [(train, train)]}
        chosen = splits.get(choose_on) or inner(np.arange(len(y)))
        means = [np.mean([error(x, y, *split, penalty) for split in chosen]) for penalty in penalties]
        best = int(np.argmax(means) if worst else np.argmin(means))
        judged = {"test": (train, test), "train": (train, train)}
        found.append(float(means[best]) if report == "inner" else error(x, y, *judged[report], penalties[best]))
    return float(average(found))


def flat(x: Any, y: Any, penalties: list[float], outer: list[Split], inner: Any, error: Callable[..., float]) -> float:
    """Return the best mean error of a cross-validation that is not nested."""
    return float(min(np.mean([error(x, y, *split, penalty) for split in outer]) for penalty in penalties))
