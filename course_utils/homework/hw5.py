"""Checks of homework 5: a table made usable without a leak, an MLP for it, tuning, and a paired comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from course_utils.evaluation import corrected_resampled_ttest
from course_utils.homework._messy_table import EXERCISES, MISSING, check_clean, check_prepare, messy_diabetes
from course_utils.homework.engine.answers import answers_of
from course_utils.homework.engine.judge import Mistake, judge, judge_conditions
from course_utils.homework.engine.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "MISSING",
    "OUTCOMES",
    "check_clean",
    "check_conclude",
    "check_fit_predict_mlp",
    "check_paired_interval",
    "check_prepare",
    "check_tune",
    "messy_diabetes",
]

OUTCOMES = ("first better", "second better", "no relevant difference", "undecided")

_Array = NDArray[np.float64]


def check_fit_predict_mlp(fit_predict_mlp: Any, *, seed: int = 0) -> Verdict:
    """Judge ``fit_predict_mlp(X_train, y_train, X_test, *, hidden, lr, epochs, seed) -> (n_test,)``."""
    exercise = EXERCISES[2]
    X, y = _curved(seed, 500)
    train, test = slice(0, 300), slice(300, 500)
    full = {"hidden": (32,), "lr": 1e-2, "epochs": 40, "seed": 0}
    short = {"hidden": (8,), "lr": 1e-2, "epochs": 2, "seed": 0}

    def ask(setting: Any, rows: slice = test, n: int = 60, unit: float = 1.0) -> tuple[Any, ...]:
        return X[:n], unit * y[:n], X[rows], setting

    def use(X_train: _Array, y_train: _Array, X_test: _Array, setting: dict[str, Any]) -> Any:
        return fit_predict_mlp(X_train, y_train, X_test, **setting)

    changes: list[dict[str, Any]] = [{}, {}, {"lr": 1e-4}, {"epochs": 9}, {"hidden": (16, 8)}, {"seed": 1}]
    calls = [ask({**short, **change}) for change in changes] + [ask(short, slice(300, 310))]
    answers = answers_of(use if callable(fit_predict_mlp) else fit_predict_mlp, exercise, calls, seconds=20)
    if isinstance(answers, Verdict):
        return answers
    if fault := next(filter(None, (_prediction_fault(a, c[2]) for a, c in zip(answers, calls, strict=True))), ""):
        return Verdict(exercise, "wrong", fault)
    first, again, other_lr, longer, wider, other_seed, few = answers
    verdict = judge_conditions(exercise, [
        (np.array_equal(first, again), "the same seed gives other predictions: seed the weights and the batches"),
        (np.allclose(first[:10], few, rtol=1e-3), "the prediction for a row depends on the other rows to predict: "
         "nothing may be learned from X_test, and batch normalization needs eval()"),
        (not np.array_equal(first, other_lr), "another `lr` gives the same predictions"),
        (not np.array_equal(first, longer), "another `epochs` gives the same predictions"),
        (not np.array_equal(first, wider), "another `hidden` gives the same predictions"),
        (not np.array_equal(first, other_seed), "every seed gives the same predictions: use the argument `seed`"),
    ], right="")  # fmt: skip
    if not verdict:
        return verdict
    units = (1.0, 1000.0)
    answers = answers_of(use, exercise, [ask(full, n=300, unit=unit) for unit in units], seconds=60)
    if isinstance(answers, Verdict):
        return answers
    errors = [_mse(y[test], np.asarray(a) / unit) for a, unit in zip(answers, units, strict=True)]
    design = np.column_stack([np.ones(500), X])
    linear = _mse(y[test], design[test] @ np.linalg.lstsq(design[train], y[train], rcond=None)[0])
    constant = _mse(y[test], np.full(200, y[train].mean()))
    ratios = [float(np.sqrt(error / linear)) for error in errors]
    conditions = [
        (errors[0] < constant, "on rows it has not seen it is no better than the training mean: are the predictions in "
         "the target's unit, and was it trained on the standardized target?"),
        (ratios[0] < 0.7, f"its RMSE on unseen rows is {ratios[0]:.2f} times that of linear regression, and 0.7 is "
         "asked for on this curved table: is there an activation, have outputs and targets the same shape, and does "
         "every epoch go through all batches?"),
        (ratios[1] < 0.7, "with the target in another unit (1,000 times larger numbers) it fails: standardize the "
         "target by its training mean and standard deviation, and undo that for the predictions"),
    ]  # fmt: skip
    right = f"Right: on unseen rows of a curved table its RMSE is {ratios[0]:.2f} times that of linear regression."
    return judge_conditions(exercise, conditions, right=right)


def _curved(seed: int, n: int) -> tuple[_Array, _Array]:
    """A table that no straight line fits: (n, 3) standardized columns, and a target around 150."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    return X, 150 + 40 * np.abs(X[:, 0]) + 25 * np.sin(2 * X[:, 1]) + 10 * X[:, 2] + 4 * rng.standard_normal(n)


def _prediction_fault(values: Any, X_test: _Array) -> str:
    if values is None:
        return "it returns None: is the `return` missing?"
    if not isinstance(values, np.ndarray):
        return f"it returns a {type(values).__name__}; a NumPy array is expected"
    if values.shape != (len(X_test),):
        return f"the predictions have shape {values.shape}; ({len(X_test)},) is expected, one number for each test row"
    return "" if np.isfinite(values).all() else "some predictions are NaN or infinite"


def _mse(y: _Array, predicted: _Array) -> float:
    return float(np.mean((y - predicted) ** 2))


def check_tune(tune: Any, *, seed: int = 0) -> Verdict:
    """Judge ``tune(fit_predict, settings, X, y, folds) -> (best, errors)``."""

    def answer(
        fit_predict: Any, settings: Any, X: Any, y: Any, folds: Any, *, fitted: int = 0, scored: int = 1,
        error: Callable[..., Any] = lambda d: np.sqrt(np.mean(d**2)), pick: Callable[..., Any] = np.argmin,
        average: Callable[..., Any] = np.mean,
    ) -> tuple[int, Any]:  # fmt: skip
        errors = np.zeros((len(settings), len(folds)))
        for row, setting in enumerate(settings):
            for column, fold in enumerate(folds):
                parts = [*fold, np.concatenate(fold)]
                a, b = parts[fitted], parts[scored]
                errors[row, column] = error(y[b] - fit_predict(X.iloc[a], y[a], X.iloc[b], **setting))
        return int(pick(average(errors, axis=1))), errors

    def mistaken(says: str, **options: Any) -> Mistake:
        return Mistake(says, lambda *case: answer(*case, **options))

    mistakes = [
        mistaken("a leak: it trains on the validation rows as well", fitted=2),
        mistaken("it measures the error on the rows it was trained on: predict the validation rows", scored=0),
        mistaken("training and validation rows are swapped", fitted=1, scored=0),
        mistaken("these are mean squared errors: take the root for each fold", error=lambda d: np.mean(d**2)),
        mistaken("these are mean absolute errors: the RMSE is asked for", error=lambda d: np.mean(np.abs(d))),
        mistaken("it picks the setting with the largest error: lower is better", pick=np.argmax),
        mistaken("it picks by the best single fold, which is luck: average over the folds", average=np.min),
        Mistake("`best` is the place of a setting: it picks among single folds", lambda *case: (
            int(answer(*case)[1].argmin()), answer(*case)[1])),
        Mistake("`errors` is averaged over the folds: keep one column for each",
                lambda *case: (answer(*case)[0], answer(*case)[1].mean(axis=1))),
    ]  # fmt: skip
    return judge(
        tune,
        exercise=EXERCISES[3],
        reference=answer,
        cases=_telling_searches(answer, np.random.default_rng(seed)),
        mistakes=mistakes,
        names=("best", "errors"),
        right="Right: one row for each combination, one column for each fold, and the lowest mean wins.",
    )


def _telling_searches(answer: Callable[..., Any], rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Draw searches in which the lowest single fold belongs to another setting than the lowest mean."""
    cases: list[tuple[Any, ...]] = []
    settings = [{"penalty": 0.01}, {"penalty": 30.0}, {"penalty": 4.0}]
    while len(cases) < 3:
        n, k = int(rng.integers(15, 30)), int(rng.integers(3, 6))
        values = rng.standard_normal((n, 4))
        X = pd.DataFrame(values, columns=list("abcd"), index=rng.permutation(n) + 100)  # row numbers, not labels
        y = values @ rng.normal(size=4) + 2 * rng.standard_normal(n)
        parts = np.array_split(rng.permutation(n), k)
        folds = [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(k)]
        case = (_ridge, settings, X, y, folds)
        best, errors = answer(*case)
        if errors.min(axis=1).argmin() != best:
            cases.append(case)
    return cases


def _ridge(X_train: pd.DataFrame, y_train: _Array, X_test: pd.DataFrame, *, penalty: float) -> _Array:
    if not (isinstance(X_train, pd.DataFrame) and isinstance(X_test, pd.DataFrame)):
        raise TypeError("fit_predict takes DataFrames for X: choose rows with X.iloc[rows]")
    x, centre = X_train.to_numpy(), y_train.mean()
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y_train - centre))
    return np.asarray(X_test.to_numpy() @ weights + centre)


def check_paired_interval(paired_interval: Any, *, seed: int = 0) -> Verdict:
    """Judge ``paired_interval(a, b, n_train, n_test) -> (mean, low, high)``, the corrected 95% interval of a − b."""

    def answer(
        a: _Array, b: _Array, n_train: int, n_test: int, *, ddof: int = 1, df: int = 1, level: float = 0.975,
        factor: Callable[[int, int, int], float] = lambda k, n_train, n_test: 1 / k + n_test / n_train,
        normal: bool = False, paired: bool = True, power: float = 0.5,
    ) -> tuple[float, float, float]:  # fmt: skip
        d, k = a - b, len(a)
        variance = d.var(ddof=ddof) if paired else a.var(ddof=1) + b.var(ddof=1)
        quantile = stats.norm.ppf(level) if normal else stats.t.ppf(level, k - df)
        half = float(quantile * (factor(k, n_train, n_test) * variance) ** power)
        mean = float(d.mean())
        return mean, mean - half, mean + half

    def reference(a: _Array, b: _Array, n_train: int, n_test: int) -> tuple[float, float, float]:
        result = corrected_resampled_ttest(a - b, test_fraction=n_test / (n_train + n_test))
        return result.mean, result.low, result.high

    def mistaken(says: str, **options: Any) -> Mistake:
        return Mistake(says, lambda *case: answer(*case, **options))

    rng = np.random.default_rng(seed)
    cases = []
    for k, n_train, n_test in ((5, 80, 20), (10, 90, 10), (20, 300, 100)):
        hardness = 50 + 8 * rng.standard_normal(k)
        cases.append((hardness + rng.standard_normal(k), hardness + 1 + rng.standard_normal(k), n_train, n_test))
    mistakes = [
        mistaken("the correction is missing: training parts overlap, so the factor is 1/k + n_test/n_train and not 1/k",
                 factor=lambda k, n_train, n_test: 1 / k),
        mistaken("the factor has n_test/n_train, not the share n_test/(n_train + n_test)",
                 factor=lambda k, n_train, n_test: 1 / k + n_test / (n_train + n_test)),
        mistaken("n_test/n_train is upside down", factor=lambda k, n_train, n_test: 1 / k + n_train / n_test),
        mistaken("1/k is missing from the factor", factor=lambda k, n_train, n_test: n_test / n_train),
        mistaken("the standard deviation is not divided by anything: the mean varies less than single splits do",
                 factor=lambda k, n_train, n_test: 1.0),
        mistaken("the quantile is the normal one: take Student's t with k − 1 degrees of freedom", normal=True),
        mistaken("the quantile is one-sided: a 95% interval leaves 2.5% on either side", level=0.95),
        mistaken("the degrees of freedom are k − 1, not k", df=0),
        mistaken("the variance of k differences divides by k − 1: ddof=1", ddof=0),
        mistaken("it is not paired: take the variance of the differences, not of a and b", paired=False),
        mistaken("the root is missing: the variance must become a standard error", power=1.0),
        Mistake("the sign is flipped: the difference is a − b", lambda a, b, *sizes: reference(b, a, *sizes)),
        Mistake("low and high are swapped", lambda *case: tuple(reference(*case)[i] for i in (0, 2, 1))),
    ]  # fmt: skip
    return judge(
        paired_interval,
        exercise=EXERCISES[4],
        reference=reference,
        cases=cases,
        mistakes=mistakes,
        names=("mean", "low", "high"),
        right="Right: the corrected resampled t interval.",
    )


def check_conclude(conclude: Any, *, seed: int = 0) -> Verdict:
    """Judge ``conclude(low, high, margin)``, one of `OUTCOMES`, for the interval of first − second error."""
    first, second, neither, open_question = OUTCOMES

    def reference(low: float, high: float, margin: float) -> str:
        if -margin < low and high < margin:
            return neither
        return first if high < 0 else second if low > 0 else open_question

    def significance_first(low: float, high: float, margin: float) -> str:
        return first if high < 0 else second if low > 0 else reference(low, high, margin)

    def against_margin(low: float, high: float, margin: float) -> str:
        inside = reference(low, high, margin) == neither
        return neither if inside else first if high < -margin else second if low > margin else open_question

    def exchange(**names: str) -> Callable[..., str]:
        return lambda *case: names.get(reference(*case).replace(" ", "_"), reference(*case))

    rng = np.random.default_rng(seed)
    cases = [(-5.0, -2.0, 1.0), (0.5, 3.0, 1.0), (-0.4, 0.6, 1.0), (-0.6, -0.1, 1.0), (0.2, 0.7, 1.0), (-2.0, 3.0, 1.0)]
    cases += [
        (float(a), float(a + w), 1.0) for a, w in zip(rng.uniform(-4, 3, 40), rng.uniform(0.3, 5, 40), strict=True)
    ]
    cases += [(-50.0, -20.0, 100.0), (-30.0, -1.0, 2.0)]
    mistakes = [
        Mistake("the two models are mixed up: these are errors, so a negative difference speaks for the first",
                exchange(first_better=second, second_better=first)),
        Mistake("an interval that holds 0 and reaches beyond the margin decides nothing: that no difference was found "
                "does not mean that there is none", exchange(undecided=neither)),
        Mistake("the margin is ignored: a small difference with a narrow interval is not worth a choice, even if it is "
                "not 0", lambda low, high, margin: first if high < 0 else second if low > 0 else open_question),
        Mistake("ask for relevance first: an interval within the margin means no relevant difference, even if it "
                "leaves out 0", significance_first),
        Mistake("the interval must leave out 0 for a winner; it need not lie beyond the margin", against_margin),
        Mistake("the middle of the interval says nothing about how sure one is: use both ends",
                lambda low, high, margin: first if low + high < 0 else second),
        Mistake("an interval that leaves out 0 decides, when it reaches beyond the margin",
                lambda low, high, margin: neither if reference(low, high, margin) == neither else open_question),
        Mistake("an interval within the margin is an answer: no relevant difference",
                exchange(no_relevant_difference=open_question)),
    ]  # fmt: skip
    return judge(
        conclude,
        exercise=EXERCISES[5],
        reference=reference,
        cases=cases,
        mistakes=mistakes,
        right="Right: four answers, and one of them is that the data do not tell.",
        figure=lambda: _draw_outcomes(cases[:6], reference),
    )


def _draw_outcomes(cases: list[tuple[float, float, float]], name: Callable[..., str]) -> tuple[Figure, str]:
    from matplotlib import pyplot as plt

    from course_utils.plotting import COLORS, style

    figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
    ax.axvspan(-1, 1, color=COLORS["grey"], alpha=0.25, label="margin")
    ax.axvline(0, color="black", linewidth=1)
    for row, (low, high, margin) in enumerate(cases):
        outcome = name(low, high, margin)
        ax.plot([low, high], [row, row], linewidth=4, color=style(OUTCOMES.index(outcome))["color"])
        ax.text(3.3, row, outcome, va="center")
    ax.set(xlim=(-5.5, 7), ylim=(6.2, -0.6), yticks=[], xlabel="error of the first − error of the second")
    ax.legend(loc="lower left")
    alt = (
        "Six intervals of a difference of errors, 0, and the margin of relevance. One lies left of 0: first better. "
        "One right: second better. Three lie within the margin: no relevant difference. One spans it: undecided."
    )
    return figure, alt
