"""What a comparison shows: its table, statistics, picture, and the sentences that they allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from course_utils._validation import check_in_range, check_one_of
from course_utils.evaluation.ranks import critical_difference
from course_utils.evaluation.statistics import TestResult, corrected_resampled_ttest, holm
from course_utils.plotting import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Verdict"]

# Below, even two models of which one wins on every data set leave a sign test at p > 0.05 (2·0.5⁵ = 0.0625).
_MIN_DATASETS = 6


@dataclass(frozen=True, repr=False)
class Comparison:
    """Scores of several models on identical splits, and what they allow one to say.

    Attributes:
        table: one row a fit: ``dataset, model, repeat, fold, score`` (natural sign and unit), ``fit_seconds``,
            ``predict_seconds`` (predicting and scoring the test part; NaN where not reached) and ``error`` (empty
            if the fit succeeded; else the score is NaN).
        metric: name of the score, such as ``"RMSE"``.
        lower_is_better: whether low scores are good.
        test_fractions: data set → share of its rows that a split tests on, for the corrected t-test.
    """

    table: pd.DataFrame
    metric: str
    lower_is_better: bool
    test_fractions: dict[str, float]

    def __repr__(self) -> str:
        failed = int((self.table["error"] != "").sum())
        counts = f"{len(self.models)} models on {len(self.datasets)} data sets, {len(self.table)} fits"
        return f"<Comparison of {counts}{f', {failed} failed' if failed else ''}>"

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, in the order given."""
        return list(dict.fromkeys(self.table["dataset"]))

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order given."""
        return list(dict.fromkeys(self.table["model"]))

    def scores(self, dataset: str | None = None) -> pd.DataFrame:
        """Return one data set's scores, one row a split and one column a model; NaN where a fit failed.

        Raises:
            ValueError: there are several data sets and none is named, or there is none of that name.
        """
        rows = self.table[self.table["dataset"] == self._dataset(dataset)]
        return rows.pivot(index=["repeat", "fold"], columns="model", values="score")[self.models]

    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """Return one row a data set and model, the best mean first; models with failed fits come last.

        Columns: ``mean`` and ``std`` of the score over the splits, ``low`` and ``high`` of the mean's interval (from
        the variance that the corrected t-test uses), medians of ``fit_seconds`` and ``predict_seconds``, and
        ``failed``, the number of fits that failed.
        """
        check_in_range(level, "level", 0.0, 1.0, closed="()")
        lines = []
        for key, rows in self.table.groupby(["dataset", "model"], sort=False):
            dataset, model = map(str, cast("tuple[Any, Any]", key))
            scores = rows["score"].dropna()
            low = high = math.nan
            if len(scores) > 1:
                test = corrected_resampled_ttest(scores, test_fraction=self.test_fractions[dataset], level=level)
                low, high = test.low, test.high
            seconds = rows.loc[rows["error"] == "", ["fit_seconds", "predict_seconds"]].median()
            lines.append((dataset, model, scores.mean(), scores.std(), low, high, *seconds, len(rows) - len(scores)))
        names = ["dataset", "model", "mean", "std", "low", "high", "fit_seconds", "predict_seconds", "failed"]
        frame = pd.DataFrame(lines, columns=names)
        frame["goodness"] = frame["mean"] if self.lower_is_better else -frame["mean"]
        frame["incomplete"] = frame["failed"] > 0
        frame["position"] = frame["dataset"].map(self.datasets.index)
        order = frame.sort_values(["position", "incomplete", "goodness"], kind="stable").index
        return frame.loc[order, names].set_index(["dataset", "model"])

    def paired(self, a: str, b: str, dataset: str | None = None, *, level: float = 0.95) -> TestResult:
        """Test the advantage of model ``a`` over model ``b``: positive where ``a`` is better, whatever the metric.

        The corrected resampled t-test over the splits on which both succeeded; not adjusted for further comparisons.

        Raises:
            ValueError: a name is unknown, or there are fewer than 2 such splits.
        """
        for name in (a, b):
            check_one_of(name, "model", self.models)
        scores = self.scores(dataset)
        advantage = (scores[b] - scores[a] if self.lower_is_better else scores[a] - scores[b]).dropna()
        if len(advantage) < 2:
            raise ValueError(f"{a!r} and {b!r} have {len(advantage)} splits on which both succeeded; a test needs 2")
        return corrected_resampled_ttest(
            advantage, test_fraction=self.test_fractions[self._dataset(dataset)], level=level
        )

    def verdicts(
        self, dataset: str | None = None, *, baseline: str | None = None, level: float = 0.95
    ) -> tuple[str, list[Verdict], int]:
        """Compare every model without failed fits with a reference.

        With a ``baseline`` chosen beforehand there are k − 1 comparisons. Without one the reference is the model with
        the best mean; because the scores themselves chose it, p-values are adjusted for all k(k − 1)/2 pairs.

        Args:
            dataset: its name, if there are several.
            baseline: name of the reference model.
            level: of confidence.

        Returns:
            The reference, the verdicts (best mean first), and the number of comparisons adjusted for; no verdict if
            there is a single split, or if the baseline failed or fewer than two models are complete.
        """
        dataset = self._dataset(dataset)
        summary = self.summary().loc[dataset]
        complete = list(summary.index[summary["failed"] == 0])
        if baseline is not None:
            check_one_of(baseline, "baseline", self.models)
        reference = baseline or next(iter(complete), "")
        if reference not in complete or len(complete) < 2 or len(self.scores(dataset)) < 2:
            return reference, [], 0
        others = [name for name in complete if name != reference]
        pairs = [(reference, other) for other in others]
        if baseline is None:
            pairs += list(combinations(others, 2))
        tests = [self.paired(a, b, dataset, level=level) for a, b in pairs]
        adjusted = holm([test.p_value for test in tests])
        return reference, [
            Verdict(other, test, float(p_value), 1 - level)
            for other, test, p_value in zip(others, tests, adjusted, strict=False)
        ], len(pairs)  # fmt: skip

    def conclusion(self, dataset: str | None = None, *, baseline: str | None = None, level: float = 0.95) -> str:
        """Say what the statistics allow, and no more.

        Args:
            dataset: a data set's name; by default all, one line each, and a last line on their ranks if there are
                several: Friedman's test with Nemenyi's critical difference, for two models the sign test.
            baseline: the model to compare the others with; by default the best of each data set (see `verdicts`).
            level: of confidence.

        Raises:
            ValueError: a name is unknown, or the level out of range.
        """
        if dataset is not None or len(self.datasets) == 1:
            return self._conclude(self._dataset(dataset), baseline, level)
        lines = [self._conclude(name, baseline, level) for name in self.datasets]
        return "\n".join([*lines, self._conclude_ranks(1 - level)])

    def _conclude(self, dataset: str, baseline: str | None, level: float) -> str:
        reference, verdicts, n_comparisons = self.verdicts(dataset, baseline=baseline, level=level)
        where = "" if len(self.datasets) == 1 and dataset == "data" else dataset
        rows = self.table[self.table["dataset"] == dataset]
        sentences = []
        n_splits = len(self.scores(dataset))
        if verdicts:
            sentences.append(verdict_sentences(
                reference, verdicts, metric=self.metric, where=where, n_splits=n_splits, n_comparisons=n_comparisons
            ))  # fmt: skip
        else:
            why = "there is a single split" if n_splits < 2 else "fewer than two models finished every split"
            if baseline in set(rows.loc[rows["error"] != "", "model"]):
                why = f"the baseline {baseline} did not finish every split"
            sentences.append(f"{f'On {where} no' if where else 'No'} comparison is possible: {why}.")
        for model, failed in rows[rows["error"] != ""].groupby("model", sort=False):
            count = f"{len(failed)} of {int((rows['model'] == model).sum())} fits"
            sentences.append(f"{model} is left out: {count} failed ({failed['error'].iloc[0]}).")
        return " ".join(sentences)

    def _conclude_ranks(self, alpha: float) -> str:
        means = pd.DataFrame({
            name: self.scores(name).mean(skipna=False) for name in self.datasets
        }).T.dropna()  # fmt: skip
        n, k = means.shape
        if n < _MIN_DATASETS or k < 2:
            return (
                f"Over all: {n} data sets on which every model finished are too few to rank models by"
                f" (at least {_MIN_DATASETS})."
            )
        if k == 2:
            a, b = means.columns
            wins = int((means[a] < means[b]).sum() if self.lower_is_better else (means[a] > means[b]).sum())
            untied = int((means[a] != means[b]).sum())
            p_value = float(stats.binomtest(wins, untied).pvalue) if untied else 1.0
            verdict = "the sign test tells" if p_value < alpha else "the sign test does not tell"
            counts = f"{a} is better on {wins} of {n} data sets, {b} on {untied - wins}"
            return f"Over all: {counts}; {verdict} them apart ({format_p(p_value)})."
        result = critical_difference(means, alpha=alpha, higher_is_better=not self.lower_is_better)
        ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in result.ranks.items())
        p_value = result.friedman.p_value
        told = f"Over all: mean ranks over {n} data sets (1 is best): {ranks}. Friedman's test, {format_p(p_value)}: "
        if p_value >= alpha:
            return f"{told}it does not tell the models apart."
        groups = "; ".join(" and ".join(group) for group in result.groups)
        same = f"these can't be told apart: {groups}" if groups else "all models can be told apart"
        return f"{told}they differ. At a critical difference of {result.cd:.2f} (Nemenyi) {same}."

    def plot(self, dataset: str | None = None, *, baseline: str | None = None, level: float = 0.95) -> Figure:
        """Draw one data set: scores and the mean's interval, paired differences to the reference, score over fit time.

        Args:
            dataset: its name, if there are several.
            baseline: as in `verdicts`.
            level: of the intervals.

        Raises:
            ValueError: a name is missing or unknown, or the level out of range.
        """
        dataset = self._dataset(dataset)
        reference, verdicts, _ = self.verdicts(dataset, baseline=baseline, level=level)
        summary, scores = self.summary(level=level).loc[dataset], self.scores(dataset)
        figure = _draw(scores, summary, reference, verdicts, self.metric, self.lower_is_better)
        if dataset != "data":
            figure.suptitle(dataset)
        return figure

    def _dataset(self, name: str | None) -> str:
        if name is None and len(self.datasets) > 1:
            raise ValueError(f"dataset must be one of {', '.join(map(repr, self.datasets))}, got None")
        return self.datasets[0] if name is None else str(check_one_of(name, "dataset", self.datasets))


@dataclass(frozen=True)
class Verdict:
    """One model against the reference, on one data set.

    Attributes:
        other: the model's name.
        test: of the reference's advantage over it per split, positive where the reference is better.
        p_value: of the test, adjusted for the number of comparisons; NaN if the test is undefined.
        alpha: below it, the two models differ.
    """

    other: str
    test: TestResult
    p_value: float
    alpha: float

    @property
    def differs(self) -> bool:
        """Whether the statistics tell the two apart; False where the test is undefined."""
        return self.p_value < self.alpha


def format_number(value: float) -> str:
    """Return the number with three significant digits and a true minus sign, never in exponents below a million."""
    if not math.isfinite(value):
        return "–"
    digits = max(0, 2 - int(f"{value:.2e}".partition("e")[2]))  # of the rounded number: 0.9999 is 1.00
    text = f"{value:.{digits}f}" if digits <= 6 and abs(value) < 1e6 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def format_p(p_value: float) -> str:
    """Return ``p = …``, or ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def verdict_sentences(
    reference: str, verdicts: Sequence[Verdict], *, metric: str, where: str, n_splits: int, n_comparisons: int
) -> str:
    """Say which models the reference is better or worse than, and from which it can't be told apart.

    Args:
        reference: the model that all others are compared with.
        verdicts: one for each other model.
        metric: its name, as a unit of the differences.
        where: the name of the data, or empty.
        n_splits: over which the tests were made.
        n_comparisons: for which the p-values were adjusted.
    """
    clauses = [
        *_clauses(reference, [v for v in verdicts if v.differs and v.test.mean > 0], metric, "is better than"),
        *_clauses(reference, [v for v in verdicts if v.differs and v.test.mean < 0], metric, "is worse than"),
    ]
    for verdict in verdicts:
        if not verdict.differs:
            clauses.append(f"{reference} and {verdict.other} can't be told apart ({_interval(verdict, metric)})")
    adjusted = (
        f", p adjusted by Holm's method for {n_comparisons} comparisons, intervals not" if n_comparisons > 1 else ""
    )
    return (
        f"{f'On {where}, ' if where else ''}{'; '.join(clauses)}. "
        f"(Corrected resampled t-test over {n_splits} splits{adjusted}.)"
    )


def _clauses(reference: str, verdicts: Sequence[Verdict], metric: str, relation: str) -> list[str]:
    parts = []
    for verdict in verdicts:
        size = f"by {format_number(abs(verdict.test.mean))} {metric}"
        parts.append(f"{verdict.other} {size} ({_interval(verdict, None)})")
    return [f"{reference} {relation} {_listed(parts)}"] if parts else []


def _interval(verdict: Verdict, metric: str | None) -> str:
    """The interval and p; with a metric the mean too. Ends are those of the advantage's size: low before high."""
    test = verdict.test
    mean = "" if metric is None else f"difference {format_number(test.mean)} {metric}, "
    if math.isnan(verdict.p_value):
        return f"{mean}the same on every split, which leaves no spread to test against"
    low, high = (test.low, test.high) if metric is not None or test.mean > 0 else (-test.high, -test.low)
    level = f"{100 * test.level:.4g}% CI"
    return f"{mean}{level} {format_number(low)} to {format_number(high)}, {format_p(verdict.p_value)}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and than {parts[-1]}"


def _draw(
    scores: pd.DataFrame,
    summary: Any,
    reference: str,
    verdicts: Sequence[Verdict],
    metric: str,
    lower_is_better: bool,
) -> Figure:
    """Three panels: scores and differences, one row a model in the summary's order, and the mean over fit time."""
    import matplotlib.pyplot as plt

    names = list(summary.index)
    figure = plt.figure(figsize=(10.5, 1.7 + 0.5 * max(len(names), 4)))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1.0, 1.1))
    by_name = {verdict.other: verdict for verdict in verdicts}
    middle.axvline(0, color=COLORS["grey"], linewidth=1)
    for row, (name, line) in enumerate(summary.iterrows()):
        color = COLORS["blue"] if name == reference else COLORS["black"]
        _draw_row(left, row, scores[name], (line["mean"], line["low"], line["high"]), color)
        if (verdict := by_name.get(str(name))) is not None:
            gain = scores[reference] - scores[name] if lower_is_better else scores[name] - scores[reference]
            test = verdict.test  # of the reference's advantage; the row shows the other model's
            told = COLORS["orange"] if verdict.differs else COLORS["grey"]
            _draw_row(middle, row, gain, (-test.mean, -test.high, -test.low), told)
        else:
            note = "reference" if name == reference else "not compared"
            middle.text(0, row, note, ha="center", va="center", fontsize=9, backgroundcolor="white")
        if line["fit_seconds"] > 0:
            _draw_point(right, line, str(name), color, on_right=row % 2 == 1)
    better = "lower is better" if lower_is_better else "higher is better"
    left.set_xlabel(f"{metric} per split ({better})")
    middle.set_xlabel(f"gain in {metric} over {reference}\n(left of 0: worse; orange: told apart)")
    for ax, labels in ((left, names), (middle, [""] * len(names))):
        ax.set(yticks=range(len(names)), yticklabels=labels, ylim=(len(names) - 0.5, -0.5))
        ax.grid(axis="y", visible=False)
    right.set(xlabel="median fit time (s)", ylabel=metric, xscale="log")
    right.margins(x=0.3, y=0.12)
    return figure


def _draw_row(ax: Axes, row: int, values: pd.Series[float], interval: tuple[float, float, float], color: str) -> None:
    """A dot a split, spread in height so that equal ones are seen as several, and the mean with its interval."""
    mean, low, high = interval
    heights = row + (np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else 0.0)
    ax.plot(values, heights + 0 * values, "o", color=color, alpha=0.35, markersize=4, markeredgewidth=0)
    ax.plot((low, high), (row, row), color=color, linewidth=2.2, solid_capstyle="butt")
    ax.plot([mean], [row], "D", color=color, markersize=6)


def _draw_point(ax: Axes, line: pd.Series[float], name: str, color: str, *, on_right: bool) -> None:
    """The mean over the fit time. Neighbours in the ranking, which often lie close, are named on different sides."""
    seconds, mean = line["fit_seconds"], line["mean"]
    ax.plot((seconds, seconds), (line["low"], line["high"]), color=color, linewidth=1.2, alpha=0.6)
    ax.plot([seconds], [mean], "D", color=color, markersize=6)
    place: dict[str, Any] = {"xytext": (7, 0), "ha": "left"} if on_right else {"xytext": (-7, 0), "ha": "right"}
    ax.annotate(name, (seconds, mean), textcoords="offset points", va="center", fontsize=9, color=color, **place)
