"""Several models on several data sets: what their ranks allow one to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from course_utils._validation import check_in_range
from course_utils.plotting import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CriticalDifference", "FriedmanResult", "critical_difference", "friedman_test", "plot_critical_difference"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FriedmanResult:
    """Whether models differ in their ranks over data sets.

    Attributes:
        chi2: Friedman's statistic, corrected for ties.
        chi2_p_value: of that.
        f: Iman and Davenport's statistic, less conservative and to be preferred.
        p_value: of that.
        ranks: (models,), each model's mean rank; 1 is the highest score.
    """

    chi2: float
    chi2_p_value: float
    f: float
    p_value: float
    ranks: FloatArray = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"Iman-Davenport F = {self.f:.3g}, p = {self.p_value:.2g} (Friedman χ² = {self.chi2:.3g})"


def friedman_test(scores: ArrayLike) -> FriedmanResult:
    """Test whether models differ in their ranks over several data sets.

    The null hypothesis is that on each data set every order of the k models is as probable as any other::

        χ² = (k − 1)·Σ_j (R_j − N(k + 1)/2)² / (Σ_ij r_ij² − N·k·(k + 1)²/4)
        F = (N − 1)·χ² / (N(k − 1) − χ²),   k − 1 and (k − 1)(N − 1) degrees of freedom

    with r_ij the rank of model j on data set i of N, the mean rank among ties, and R_j its sum over the data sets.
    Both distributions are approximations: trust them from about N > 10 and k > 5 on.

    Source: Friedman 1937 with the correction for ties; Iman & Davenport 1980; Demšar 2006, sec. 3.2.2. Differs: if all
    data sets rank the models alike, F is infinite, and the p-value is the exact one, (1/k!)^(N − 1) without ties.

    Args:
        scores: shape (data sets, models), one score each (the mean over the splits); at least 2 rows and 3 columns.
            Whether a higher score is better makes no difference to the test; ``ranks`` gives 1 to the highest.

    Raises:
        ValueError: the shape does not fit, or a score is not finite.
    """
    values = _check_scores(scores)
    n, k = values.shape
    ranks = stats.rankdata(-values, axis=1)
    spread = float((ranks**2).sum()) - n * k * (k + 1) ** 2 / 4
    mean_ranks = ranks.mean(axis=0)
    if spread == 0:  # all models tie on all data sets
        return FriedmanResult(0.0, 1.0, 0.0, 1.0, mean_ranks)
    chi2 = (k - 1) * float(((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2).sum()) / spread
    chi2_p_value = float(stats.chi2.sf(chi2, k - 1))
    if (ranks == ranks[0]).all():
        ties = np.unique(ranks[0], return_counts=True)[1]
        log_orders = math.lgamma(k + 1) - sum(math.lgamma(count + 1) for count in ties)
        return FriedmanResult(chi2, chi2_p_value, math.inf, math.exp((1 - n) * log_orders), mean_ranks)
    f = (n - 1) * chi2 / (n * (k - 1) - chi2)
    return FriedmanResult(chi2, chi2_p_value, f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))), mean_ranks)


def _check_scores(scores: ArrayLike) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 3:
        raise ValueError(f"scores must have shape (data sets, models), at least (2, 3), got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"scores must be finite, got {values[~np.isfinite(values)][0]} (did a model fail?)")
    return values


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks of models over data sets, and which of them are too close to tell apart.

    Attributes:
        ranks: name → mean rank, best first.
        cd: the critical difference: two models differ if their mean ranks do by at least this.
        groups: the largest sets of at least two models that cannot be told apart; they may overlap.
        friedman: whether there is any difference at all; look at the groups only if it says so.
        alpha: probability of any false difference under the null hypothesis.
        n_datasets: how many data sets the ranks are means over.
    """

    ranks: dict[str, float]
    cd: float
    groups: tuple[tuple[str, ...], ...]
    friedman: FriedmanResult
    alpha: float
    n_datasets: int

    def __str__(self) -> str:
        ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in self.ranks.items())
        groups = "; ".join(" = ".join(group) for group in self.groups) or "none"
        return (
            f"mean ranks over {self.n_datasets} data sets: {ranks}\n{self.friedman}\n"
            f"critical difference {self.cd:.2f} at α = {self.alpha:g}; not told apart: {groups}"
        )


def critical_difference(
    scores: ArrayLike, *, names: Sequence[str] | None = None, alpha: float = 0.05, higher_is_better: bool = True
) -> CriticalDifference:
    """Rank models over several data sets, and group those that Nemenyi's test cannot tell apart.

    Two of k models differ if their mean ranks over N data sets differ by at least ::

        CD = q_α·√(k(k + 1)/(6N))

    with q_α the upper quantile of the studentized range of k means at infinitely many degrees of freedom, over √2.

    Source: Nemenyi 1963; Demšar 2006, sec. 3.2.2.

    Args:
        scores: shape (data sets, models), one score each (the mean over the splits); at least 2 rows and 3 columns.
            A DataFrame's columns are the names.
        names: of the models; without them and without a DataFrame ``model 1``, ``model 2``, ….
        alpha: probability of any false difference under the null hypothesis, above 0 and below 1.
        higher_is_better: False for errors and losses.

    Raises:
        TypeError, ValueError: an argument is out of range, the shape does not fit, or a name occurs twice.
    """
    check_in_range(alpha, "alpha", 0.0, 1.0, closed="()")
    n, k = (values := _check_scores(scores)).shape
    if names is None:
        names = [str(name) for name in getattr(scores, "columns", [f"model {index + 1}" for index in range(k)])]
    if len(set(names)) != k or len(names) != k:
        raise ValueError(f"names must be {k} different names, one a column of scores, got {list(names)}")
    friedman = friedman_test(values if higher_is_better else -values)
    order = np.argsort(friedman.ranks, kind="stable")
    ranks = friedman.ranks[order]
    cd = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    ordered = [names[index] for index in order]
    ends = [int(np.searchsorted(ranks, rank + cd)) for rank in ranks]  # the first model that differs from each
    groups = tuple(
        tuple(ordered[start:end])
        for start, end in enumerate(ends)
        if end - start > 1 and (start == 0 or end > ends[start - 1])  # not inside the group before
    )
    named = dict(zip(ordered, map(float, ranks), strict=True))
    return CriticalDifference(named, cd, groups, friedman, alpha, n)


def plot_critical_difference(result: CriticalDifference, ax: Axes | None = None) -> Axes:
    """Draw the critical-difference diagram: models on the axis of mean ranks, bars over those not told apart.

    Args:
        result: from `critical_difference`.
        ax: where to draw; by default a new figure of fitting height.

    Returns:
        The Axes, the best model on the right.

    Source: Demšar 2006, fig. 1.
    """
    import matplotlib.pyplot as plt

    k = len(result.ranks)
    bars = 0.35 * (len(result.groups) + 1)  # height that the groups take below the axis
    depth = bars + 0.6 * ((k - 1) // 2)
    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 1.4 + 0.45 * depth))
    thin: dict[str, Any] = {"color": COLORS["black"], "linewidth": 1.0, "solid_capstyle": "butt", "clip_on": False}
    ax.set(xlim=(k + 0.02 * k, 1 - 0.02 * k), ylim=(-depth - 0.3, 1.5))
    ax.set_axis_off()
    ax.plot([1, k], [0, 0], **thin)
    for tick in range(1, k + 1):
        ax.plot([tick, tick], [0, 0.15], **thin)
        ax.text(tick, 0.22, str(tick), ha="center", va="bottom")
    ax.plot([k, k - result.cd], [1.0, 1.0], marker="|", markersize=8, **thin)
    ax.text(k - result.cd / 2, 1.15, f"CD = {result.cd:.2f}", ha="center", va="bottom")
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    ax.annotate("mean rank", (k, 0), xytext=(-6, 0), ha="right", color=COLORS["grey"], **beside)
    ax.annotate("better →", (1, 0), xytext=(6, 0), color=COLORS["grey"], **beside)
    for index, (name, rank) in enumerate(result.ranks.items()):
        on_right = index < k // 2
        # The outermost models are nearest to the axis, so that no line crosses a name.
        height, end = -bars - 0.6 * (index if on_right else k - 1 - index), 1 if on_right else k
        ax.plot([rank, rank, end], [0, height, height], **thin)
        side: dict[str, Any] = {"xytext": (6, 0)} if on_right else {"xytext": (-6, 0), "ha": "right"}
        ax.annotate(f"{name} ({rank:.2f})", (end, height), **side, **beside)
    for index, group in enumerate(result.groups):
        span, height = [result.ranks[group[0]] - 0.02, result.ranks[group[-1]] + 0.02], -0.35 * (index + 0.6)
        ax.plot(span, [height, height], **thin | {"linewidth": 4, "color": COLORS["blue"]})
    return ax
