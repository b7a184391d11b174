"""Pictures of a search, from plain arrays to matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from course_utils.plotting import COLORS, SEQUENTIAL, label_line_ends, plot_dots, plot_seeds, style
from course_utils.search.spaces import Choice, Dimension, Int, Space, positions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["natural_units", "plot_history", "plot_importance", "plot_parallel", "plot_samplers", "plot_slices"]

_SHORT = {
    "neg_mean_absolute_error": "MAE",
    "neg_mean_squared_error": "MSE",
    "neg_root_mean_squared_error": "RMSE",
    "r2": "R²",
    "roc_auc": "ROC AUC",
}


def natural_units(scores: ArrayLike, scoring: str) -> tuple[NDArray[np.float64], str]:
    """Return scores as one speaks of them, and a label that says which way is better.

    scikit-learn turns errors round so that greater is always better: ``"neg_root_mean_squared_error"`` of −3.1 is here
    an RMSE of 3.1.

    Args:
        scores: any shape, in scikit-learn's sign.
        scoring: the scorer's name.

    Returns:
        The scores in their natural sign, of the same shape; and a label such as ``"RMSE (lower is better)"``.
    """
    values = np.asarray(scores, dtype=float)
    name = _SHORT.get(scoring, scoring.removeprefix("neg_").replace("_", " "))
    if scoring.startswith("neg_"):
        return -values, f"{name} (lower is better)"
    return values, f"{name} (higher is better)"


def plot_history(scores: ArrayLike, states: Sequence[str], *, scoring: str, ax: Axes | None = None) -> Axes:
    """Draw the score of every trial and the best so far.

    Args:
        scores: (n_trials,), in scikit-learn's sign; NaN where a trial has none. Of a pruned trial, the mean of its
            folds: not quite comparable, hence hollow.
        states: (n_trials,) of ``"complete"``, ``"pruned"``, ``"failed"``.
        scoring: the scorer's name.
        ax: where to draw; by default a new figure.
    """
    from matplotlib.ticker import MaxNLocator

    ax = _axes(ax)
    values, label = natural_units(scores, scoring)
    sign = -1.0 if scoring.startswith("neg_") else 1.0
    kinds, numbers = np.asarray(states), np.arange(1, len(values) + 1)
    complete, pruned, failed = (kinds == kind for kind in ("complete", "pruned", "failed"))
    best = sign * np.fmax.accumulate(np.where(complete, sign * values, np.nan))
    ax.step(numbers, best, where="post", color=COLORS["orange"], label="best so far")
    ax.plot(numbers[complete], values[complete], "o", color=COLORS["blue"], label="complete")
    if pruned.any():
        ax.plot(numbers[pruned], values[pruned], "o", markerfacecolor="none", color=COLORS["grey"], label="pruned")
    if failed.any():
        bottom = ax.get_xaxis_transform()
        ax.plot(numbers[failed], np.zeros(failed.sum()), "x", color=COLORS["black"], transform=bottom, label="failed",
                clip_on=False)  # fmt: skip
    _limit_to_most(ax, values[complete], sign)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=label)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def plot_importance(shares: Mapping[str, float], *, n_trials: int, ax: Axes | None = None) -> Axes:
    """Draw the hyperparameters' shares of the score's variance as bars, and what is left for interactions.

    Args:
        shares: hyperparameter → share in [0, 1], see `course_utils.search.importances`.
        n_trials: on which they rest, for the title.
        ax: where to draw; by default a new figure.
    """
    ax = _axes(ax)
    bars = {**shares, "interactions": max(0.0, 1.0 - sum(shares.values()))}
    colors = [COLORS["blue"]] * len(shares) + ["#BBBBBB"]
    ax.barh(range(len(bars)), list(bars.values()), color=colors)
    for row, share in enumerate(bars.values()):
        ax.annotate(f"{share:.0%}", (share, row), xytext=(4, 0), textcoords="offset points", va="center")
    ax.set(
        yticks=range(len(bars)), yticklabels=list(bars), ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.08),
        xlabel="share of the score's variance over the space", title=f"fANOVA of {n_trials} trials",
    )  # fmt: skip
    ax.grid(axis="y", visible=False)
    return ax


def plot_slices(
    params: Mapping[str, Sequence[Any]], scores: ArrayLike, space: Space, *, scoring: str, columns: int = 3
) -> Figure:
    """Draw the score against each hyperparameter, one panel each; later trials are lighter, the best has a ring.

    The other hyperparameters vary along with the one on the axis, so a panel shows association, not effect.

    Args:
        params: hyperparameter → values, shape (n_trials,) each.
        scores: (n_trials,), in scikit-learn's sign.
        space: gives the axes their range and scale.
        scoring: the scorer's name.
        columns: panels in a row, at most.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    values, label = natural_units(scores, scoring)
    sign = -1.0 if scoring.startswith("neg_") else 1.0
    n_columns = 2 if len(space) == 4 else min(columns, len(space))
    n_rows = math.ceil(len(space) / n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(max(4.2, 3.1 * n_columns), 0.5 + 2.7 * n_rows), sharey=True, squeeze=False
    )
    best = int(np.argmax(sign * values))
    for ax, (name, dimension) in zip(axes.flat, space.items(), strict=False):
        x = positions(params[name], dimension)
        dots = ax.scatter(x, values, c=np.arange(1, len(values) + 1), cmap=SEQUENTIAL, s=26, vmax=1.1 * len(values))
        ax.scatter(x[best], values[best], s=130, facecolors="none", edgecolors=COLORS["orange"], linewidths=2)
        _scale(ax, dimension)
        ax.set_xlabel(_short(name))
    for ax in axes.flat[len(space) :]:
        ax.set_axis_off()
    _limit_to_most(axes[0, 0], values, sign)
    figure.supylabel(label, fontsize=11)
    figure.colorbar(dots, ax=axes, label="trial", aspect=30, ticks=MaxNLocator(integer=True))
    return figure


def plot_parallel(
    params: Mapping[str, Sequence[Any]], scores: ArrayLike, space: Space, *, scoring: str, highlight: float = 0.2
) -> Figure:
    """Draw every trial as a line through its hyperparameters: the best part coloured by score, the rest grey.

    Args:
        params: hyperparameter → values, shape (n_trials,) each.
        scores: (n_trials,), in scikit-learn's sign.
        space: gives the axes their range and scale.
        scoring: the scorer's name.
        highlight: share of the trials that is coloured, in (0, 1].
    """
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values, label = natural_units(scores, scoring)
    sign = -1.0 if scoring.startswith("neg_") else 1.0
    figure, ax = plt.subplots(figsize=(min(11.0, 3.0 + 1.5 * len(space)), 3.8))
    heights = np.column_stack(
        [_share(positions(params[name], dimension), dimension) for name, dimension in space.items()]
    )
    order = np.argsort(sign * values)  # the best are drawn last, on top
    top = order[-max(1, math.ceil(highlight * len(values))) :]
    norm = Normalize(values[top].min(), values[top].max())
    colors = plt.get_cmap(SEQUENTIAL if sign > 0 else f"{SEQUENTIAL}_r")
    for trial in order:
        drawn = {"color": colors(0.9 * norm(values[trial])), "linewidth": 2.0} if trial in top else {
            "color": "#CCCCCC", "linewidth": 0.8
        }  # fmt: skip
        ax.plot(range(len(space)), heights[trial], **drawn)
    for column, dimension in enumerate(space.values()):
        ax.axvline(column, color=COLORS["black"], linewidth=1)
        for height, text in _ticks(dimension):
            ax.annotate(text, (column, height), xytext=(4, 0), textcoords="offset points", va="center", fontsize=10,
                        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1})  # fmt: skip
    ax.set(xticks=range(len(space)), xticklabels=[_short(name) for name in space], yticks=[], ylim=(-0.08, 1.08))
    ax.margins(x=0.08)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(ScalarMappable(norm, colors), ax=ax, label=f"{label}\nbest {highlight:.0%} of trials")
    return figure


def plot_samplers(best_so_far: Mapping[str, ArrayLike], *, scoring: str) -> Figure:
    """Draw the best score so far of several samplers (mean and range over seeds), and where each seed ended.

    Args:
        best_so_far: sampler → (n_seeds, n_trials), in scikit-learn's sign; NaN after a grid's end.
        scoring: the scorer's name.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), width_ratios=(3, 2))
    ends = {}
    label = ""
    for index, (name, runs) in enumerate(best_so_far.items()):
        values, label = natural_units(runs, scoring)
        drawn = {**style(index), "marker": None}
        plot_seeds(left, np.arange(1, values.shape[1] + 1), values, label=name, **drawn)
        ends[name] = [run[np.isfinite(run)][-1] if np.isfinite(run).any() else math.nan for run in values]
    # The first draws are anyone's guess, and would flatten the rest.
    first = max(1, max(np.shape(runs)[1] for runs in best_so_far.values()) // 5)
    start = [natural_units(runs, scoring)[0][:, first:] for runs in best_so_far.values()]
    shown = np.concatenate([part[np.isfinite(part)] for part in start])
    if shown.size and np.ptp(shown) > 0:
        left.set_ylim(shown.min() - 0.05 * np.ptp(shown), shown.max() + 0.05 * np.ptp(shown))
    left.set(xlabel="trials", ylabel=f"best so far:\n{label}")
    label_line_ends(left, min_gap=0.09)
    plot_dots(right, ends, xlabel=f"at the end: {label.partition(' (')[0]}", means=".4g")
    right.set_yticklabels(list(ends))
    return figure


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots()[1] if ax is None else ax


def _short(name: str) -> str:
    """The name without the steps of a Pipeline around it."""
    return name.rpartition("__")[2]


def _limit_to_most(ax: Axes, values: NDArray[np.float64], sign: float) -> None:
    """Cut off scores far worse than most, which would press all others onto one line, and say how many."""
    scores = sign * values
    if len(scores) < 4:
        return
    top, middle = float(scores.max()), float(np.median(scores))
    floor = max(float(scores.min()), top - 5 * (top - middle))
    margin = 0.06 * (top - floor)
    if margin == 0:
        return
    ax.set_ylim(*sorted((sign * (floor - margin), sign * (top + margin))))
    if hidden := int((scores < floor - margin).sum()):
        edge = 0.02 if sign > 0 else 0.98
        ax.text(0.99, edge, f"{hidden} worse not shown", transform=ax.transAxes, ha="right", fontsize=9,
                va="bottom" if sign > 0 else "top")  # fmt: skip


def _ends(dimension: Dimension) -> tuple[float, float]:
    if isinstance(dimension, Choice):
        return 0.0, max(1.0, len(dimension.options) - 1.0)
    low, high = positions([dimension.low, dimension.high], dimension)
    return float(low), float(high)


def _share(places: NDArray[np.float64], dimension: Dimension) -> NDArray[np.float64]:
    low, high = _ends(dimension)
    return (places - low) / (high - low)


def _marks(dimension: Dimension, n: int) -> tuple[list[float], list[str]]:
    """Positions on the dimension's own scale and their texts."""
    if isinstance(dimension, Choice):
        texts = [option if isinstance(option, str) else repr(option) for option in dimension.options]
        return [float(index) for index in range(len(texts))], texts
    values = dimension.values(n)
    if isinstance(dimension, Int):
        return positions(values, dimension).tolist(), [str(value) for value in values]
    return positions(values, dimension).tolist(), [f"{value:.2g}" for value in values]


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    places, texts = _marks(dimension, 3)
    return list(zip(_share(np.array(places), dimension).tolist(), texts, strict=True))


def _scale(ax: Axes, dimension: Dimension) -> None:
    places, texts = _marks(dimension, 3)
    low, high = _ends(dimension)
    margin = 0.06 * (high - low)
    if sum(map(len, texts)) > 20:  # side by side they would overlap
        texts = [text.replace("_", "_\n").replace(", ", ",\n") for text in texts]
    ax.set_xticks(places, texts)
    ax.set_xlim(low - margin, high + margin)
