"""Checks of the exercises of lesson 06: choosing a model and judging it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from course_utils.evaluation import corrected_resampled_ttest
from course_utils.homework._selection import (
    Split,
    chosen,
    complement,
    flat,
    fold_rows,
    halves,
    middle,
    nested,
    normal,
    paired,
    ridge_mse,
    same,
    scaled,
    selection_figure,
    t_and_p,
)  # fmt: skip
from course_utils.homework.engine.judge import Mistake, judge, judge_answer
from course_utils.homework.engine.verdict import Verdict

__all__ = [
    "EXERCISES", "check_chosen_columns", "check_corrected_t", "check_enough_images", "check_fold_rows",
    "check_nested_error", "check_paired_interval", "check_promise", "check_scale_fold",
]  # fmt: skip

EXERCISES: tuple[str, ...] = (
    "6.1 Folds without leftovers",
    "6.2 The scaler stays in the fold",
    "6.3 The best of a hundred",
    "6.4 Columns chosen inside the fold",
    "6.5 Two models, the same images",
    "6.6 The corrected t",
    "6.7 Enough images",
    "6.8 Nested",
)


def check_fold_rows(function: Callable[..., Any]) -> Verdict:
    """Judge ``fold_rows(order, k, i)``: training and test rows of fold ``i`` of ``k``, in any order of the rows."""
    rng = np.random.default_rng(61)
    cases = [(rng.permutation(n), k, i) for n, k, i in ((13, 5, 4), (13, 5, 1), (12, 3, 1), (5, 5, 2))]
    first = "the first n mod k folds have one row more"
    return judge(
        function,
        exercise=EXERCISES[0],
        reference=fold_rows,
        cases=cases,
        names=("train", "test"),
        call=_sorted_rows,
        right="Every row is tested exactly once, also when k does not divide the number of rows.",
        mistakes=[
            Mistake(
                "with folds of n // k rows the leftover rows are never tested: " + first,
                lambda order, k, i: complement(order, order[i * (len(order) // k) : (i + 1) * (len(order) // k)]),
            ),
            Mistake(
                "the last fold takes all leftovers and becomes too long: " + first,
                lambda order, k, i: complement(
                    order, order[i * (len(order) // k) : (None if i == k - 1 else (i + 1) * (len(order) // k))]
                ),
            ),
            Mistake("training and test rows are exchanged", lambda *case: fold_rows(*case)[::-1]),
            Mistake(
                "you cut the places 0 … n − 1 and left `order` out: the folds would follow the table's order",
                lambda order, k, i: fold_rows(np.arange(len(order)), k, i),
            ),
            Mistake("the test rows are in the training part as well", lambda *case: (case[0], fold_rows(*case)[1])),
            Mistake(
                "you take every k-th row; this exercise asks for consecutive blocks of `order`",
                lambda order, k, i: complement(order, order[i::k]),
            ),
            Mistake(
                "this is the fold before: folds are counted from 0",
                lambda order, k, i: fold_rows(order, k, i - 1),
            ),
        ],
    )


def _sorted_rows(function: Callable[..., Any], *case: Any) -> Any:
    """Call and sort, for the order within a part says nothing."""
    found = function(*case)
    return (
        tuple(map(np.sort, found)) if isinstance(found, tuple) and all(np.ndim(part) == 1 for part in found) else found
    )


def check_scale_fold(function: Callable[..., Any]) -> Verdict:
    """Judge ``scale_fold(x, train, test)``: both parts standardized by what the training rows say."""
    rng = np.random.default_rng(62)
    cases = []
    for n, d in ((12, 3), (20, 2), (9, 4)):
        order = rng.permutation(n)
        x = rng.normal(size=(n, d)) * rng.uniform(1, 50, d) + rng.uniform(-90, 90, d)
        cases.append((x, order[: 2 * n // 3], order[2 * n // 3 :]))
    cases[-1][0][cases[-1][1], 0] = 7.0  # constant on the training rows, but not on the others

    def each_its_own(x: np.ndarray, train: np.ndarray, test: np.ndarray) -> Split:
        return scaled(x, train, train)[0], scaled(x, test, test)[0]

    return judge(
        function,
        exercise=EXERCISES[1],
        reference=scaled,
        cases=cases,
        names=("z_train", "z_test"),
        right="The test rows were not asked for anything.",
        mistakes=[
            Mistake(
                "mean and standard deviation come from all rows: the test rows have spoken already",
                lambda x, train, test: scaled(x, train, test, by=np.arange(len(x))),
            ),
            Mistake(
                "each part is scaled by itself: the same house then has other numbers in training and test",
                each_its_own,
            ),
            Mistake("mean and standard deviation come from the test rows", lambda x, a, b: scaled(x, a, b, by=b)),
            Mistake("you divided by n − 1 in the standard deviation; n is asked for here", partial(scaled, ddof=1)),
            Mistake("you took one mean for the whole table: each column has its own", partial(scaled, axis=None)),
            Mistake(
                "the column that is constant on the training rows is divided by 0: divide it by 1",
                partial(scaled, guard=False),
            ),
            Mistake("you divided by the variance", partial(scaled, power=2)),
            Mistake("the test rows came back unscaled", lambda x, a, b: (scaled(x, a, b)[0], x[b])),
        ],
    )


def check_promise(answer: Any) -> Verdict:
    """Judge by how many points the best of 100 equal models, true accuracy 0.9, promises too much on 400 images."""
    sigma = np.sqrt(0.9 * 0.1 / 400)
    bound = 100 * sigma * np.sqrt(2 * np.log(100))
    return judge_answer(
        answer,
        exercise=EXERCISES[2],
        expected=bound,
        rtol=0.01,
        right="More than four points, of which not one exists: so much for reporting the best of a hundred.",
        hint="this is not it: write down σ for one model first, then the factor for a hundred",
        mistakes=[
            (bound / 100, "this is the fraction; the answer is in points, hundredths"),
            (100 * sigma, "this is σ, the standard error of one model: where are the hundred?"),
            (100 * sigma * np.sqrt(np.log(100)), "the factor 2 under the root is missing"),
            (100 * sigma * np.sqrt(2 * np.log10(100)), "ln is the natural logarithm; you took the one to base 10"),
            (100 * sigma * np.sqrt(2 * np.log2(100)), "ln is the natural logarithm; you took the one to base 2"),
            (100 * sigma * 2 * np.log(100), "the root over 2 ln k is missing"),
            (100 * sigma**2 * np.sqrt(2 * np.log(100)), "you took the variance p(1 − p)/n for σ"),
            (100 * np.sqrt(0.09 / 100 * 2 * np.log(400)), "n and k are exchanged: n counts images, k counts models"),
            (100 * 0.3 * np.sqrt(2 * np.log(100)), "you left the 400 images out of σ"),
            (100 * np.sqrt(0.9 / 400 * 2 * np.log(100)), "the variance of right and wrong is p(1 − p), not p"),
        ],
    )


def check_chosen_columns(function: Callable[..., Any]) -> Verdict:
    """Judge ``chosen_columns(x, y, folds, n_keep)``: for each fold the columns most correlated with the target."""
    rng = np.random.default_rng(64)
    cases = []
    for n, d, k, n_keep in ((15, 12, 3, 4), (12, 8, 4, 1), (20, 15, 2, 5)):
        x, y = rng.normal(size=(n, d)) * rng.uniform(0.1, 9, d) + rng.normal(size=d), rng.normal(size=n) + 3
        cases.append((x, y, [fold_rows(rng.permutation(n), k, i) for i in range(k)], n_keep))
    return judge(
        function,
        exercise=EXERCISES[3],
        reference=chosen,
        cases=cases,
        right="Each fold chooses anew, and the folds do not agree: on noise there is nothing to agree about.",
        figure=selection_figure,
        mistakes=[
            Mistake(
                "the columns were chosen on all rows, so the test rows took part: choose on the fold's training rows",
                lambda x, y, folds, n: chosen(x, y, [(np.arange(len(y)), test) for _, test in folds], n),
            ),
            Mistake(
                "the columns were chosen on the test rows",
                lambda x, y, folds, n: chosen(x, y, [fold[::-1] for fold in folds], n),
            ),
            Mistake("a correlation of −0.9 is as strong as one of 0.9: compare sizes", partial(chosen, size=same)),
            Mistake("these are the columns with the weakest correlation", partial(chosen, weakest=True)),
            Mistake("this is the covariance, which prefers columns in large units", partial(chosen, covariance=True)),
            Mistake("without subtracting the means it is no correlation", partial(chosen, centred=False)),
            Mistake(
                "the right columns, but in order of their correlation: sort the column numbers",
                partial(chosen, order=same),
            ),
        ],
    )


def check_paired_interval(function: Callable[..., Any]) -> Verdict:
    """Judge ``paired_interval(right_a, right_b, rows, level)``: percentile interval of accuracy a minus accuracy b."""
    rng = np.random.default_rng(65)
    cases = []
    for n, repeats, level in ((40, 300, 0.95), (25, 200, 0.9), (60, 250, 0.5)):
        a, b = (rng.random((2, n)) < np.array([[0.85], [0.7]])).astype(float)
        cases.append((a, b, rng.integers(n, size=(repeats, n)), level))
    return judge(
        function,
        exercise=EXERCISES[4],
        reference=paired,
        cases=cases,
        names=("low", "high"),
        right="Both models meet the same images in every resample, so hard images cancel.",
        mistakes=[
            Mistake("this is b minus a", lambda a, b, *rest: paired(b, a, *rest)),
            Mistake(
                "only a is resampled: where b is measured on other images, luck with the images no longer cancels",
                lambda a, b, rows, level: middle(a[rows].mean(axis=1) - b.mean(), level),
            ),
            Mistake(
                "a and b are resampled by different rows: then luck with the images no longer cancels",
                lambda a, b, rows, level: middle(a[rows].mean(axis=1) - b[rows[::-1]].mean(axis=1), level),
            ),
            Mistake(
                "the quantiles are 1 − level and level, which leaves too much outside: half of it belongs to each end",
                lambda a, b, rows, level: middle((a - b)[rows].mean(axis=1), 2 * level - 1),
            ),
            Mistake(
                "you averaged over the resamples: one mean for each resample is needed, over its n images",
                lambda a, b, rows, level: middle((a - b)[rows].mean(axis=0), level),
            ),
            Mistake(
                "this is the range of single images, not of means: average each resample first",
                lambda a, b, rows, level: middle((a - b)[rows].ravel(), level),
            ),
            Mistake("this is the interval of model a alone", lambda a, b, *rest: paired(a, 0 * b, *rest)),
            Mistake("the ends are exchanged", lambda *case: paired(*case)[::-1]),
            Mistake("the level is fixed at 0.95; take the argument", lambda a, b, rows, _: paired(a, b, rows, 0.95)),
            Mistake(
                "this is mean ± z standard deviations; the percentile interval takes quantiles of the resampled means",
                normal,
            ),
        ],
    )


def check_corrected_t(function: Callable[..., Any]) -> Verdict:
    """Judge ``corrected_t(differences, n_train, n_test)``: statistic and two-sided p-value of Nadeau and Bengio."""
    rng = np.random.default_rng(66)
    sizes = ((15, 160, 40, 0.4), (5, 90, 10, -0.6), (2, 50, 50, 0.3))
    cases = [(rng.normal(mean, 1, n), n_train, n_test) for n, n_train, n_test, mean in sizes]

    def library(differences: np.ndarray, n_train: int, n_test: int) -> tuple[float, float]:
        found = corrected_resampled_ttest(differences, test_fraction=n_test / (n_train + n_test))
        return found.t, found.p_value

    def other(factor: Callable[[int, int, int], float], **options: Any) -> Callable[..., Any]:
        return lambda d, n_train, n_test: t_and_p(d, factor(len(d), n_train, n_test), **options)

    def right(j: int, n_train: int, n_test: int) -> float:
        return 1 / j + n_test / n_train

    return judge(
        function,
        exercise=EXERCISES[5],
        reference=library,
        cases=cases,
        names=("t", "p"),
        right="The library agrees. More repeats shrink 1/J, never n_test/n_train.",
        mistakes=[
            Mistake("this is the plain t-test: the correction is missing", other(lambda j, *_: 1 / j)),
            Mistake("train and test are exchanged in the ratio", other(lambda j, a, b: 1 / j + a / b)),
            Mistake(
                "the ratio is test rows to training rows; you divided by all rows",
                other(lambda j, a, b: 1 / j + b / (a + b)),
            ),
            Mistake("1/J is missing: the ratio is added to it", other(lambda j, a, b: b / a)),
            Mistake("the variance s² divides by J − 1; yours divides by J", other(right, ddof=0)),
            Mistake("p is one-sided: a large negative t counts as well", other(right, sides=1)),
            Mistake("p has J degrees of freedom; one is spent on the mean", other(right, lost=0)),
            Mistake(
                "p comes from the normal distribution; with few splits Student's is wider", other(right, lost=None)
            ),
            Mistake("p is above 1 where t is negative: take its size first", other(right, size=float)),
            Mistake("you divided by the variance of the mean, not by its root", other(right, power=1.0)),
        ],
    )


def check_enough_images(answer: Any) -> Verdict:
    """Judge the smallest number of images on which the best of 20 equal candidates promises less than a point."""
    too_few = "your run shows more than a point with so few: take more images"
    return judge_answer(
        answer,
        exercise=EXERCISES[6],
        expected=8000,
        choices=(500, 1000, 2000, 4000, 8000, 16000),
        right="Sixteen times as many images, a quarter of the optimism: it falls with the root of n, hence slowly.",
        mistakes=[
            (500, too_few),
            (1000, too_few),
            (2000, too_few),
            (4000, "close, but the run still shows more than a point: the optimism falls with the root of n"),
            (16000, "enough, but not the smallest number that is"),
        ],
    )


def check_nested_error(function: Callable[..., Any]) -> Verdict:
    """Judge ``nested_error(x, y, penalties, outer, inner, error)``: the mean error of "search, then fit"."""
    rng = np.random.default_rng(68)
    cases = []
    for n, d, k, noise in ((30, 3, 3, 0.1), (24, 9, 4, 1.0), (20, 12, 2, 1.0)):
        x = rng.normal(size=(n, d))
        y = x[:, 0] + noise * rng.normal(size=n)
        order = rng.permutation(n)
        cases.append((x, y, [0.1, 3.0, 30.0, 300.0], [fold_rows(order, k, i) for i in range(k)], halves, ridge_mse))
    return judge(
        function,
        exercise=EXERCISES[7],
        reference=nested,
        cases=cases,
        right="The outer test rows judge the whole procedure, and took no part in it.",
        mistakes=[
            Mistake(
                "the penalty is chosen by the outer test rows: nobody is left to judge the choice",
                partial(nested, choose_on="test"),
            ),
            Mistake(
                "this is one cross-validation whose best mean is reported, the winner's score: choose within "
                "each outer training part",
                flat,
            ),
            Mistake("this is the inner error of the winner; report the outer one", partial(nested, report="inner")),
            Mistake("the error is to be small: you took the penalty with the largest", partial(nested, worst=True)),
            Mistake("the training error cannot choose: use the inner folds", partial(nested, choose_on="train")),
            Mistake(
                "the inner folds are made from all rows, outer test rows included: make them from `train`",
                partial(nested, choose_on="all"),
            ),
            Mistake(
                "these are errors summed over the outer folds; their mean is asked for", partial(nested, average=sum)
            ),
            Mistake(
                "the winner is judged on its training rows: its error belongs on the outer test rows",
                partial(nested, report="train"),
            ),
        ],
    )
