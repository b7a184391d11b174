"""Checks of the exercises of lesson 07: tables, leaks, trees and a fair comparison."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from course_utils.homework._tables import (
    Pair,
    boost,
    boosting_figure,
    encode,
    midranks,
    quantile_figure,
    spearman,
    to_normal,
)
from course_utils.homework.engine.judge import Mistake, judge, judge_answer
from course_utils.homework.engine.verdict import Verdict

__all__ = [
    "EXERCISES", "check_boosting_step", "check_delta", "check_mean_ranks", "check_one_hot", "check_quantile_scale",
    "check_suspects", "check_twins",
]  # fmt: skip

EXERCISES: tuple[str, ...] = (
    "7.1 Twins on both sides",
    "7.2 A column that knows the answer",
    "7.3 A level nobody has seen",
    "7.4 Who wins over many tables",
    "7.5 Ranks instead of metres",
    "7.6 How much an outlier may pull",
    "7.7 One step of boosting",
)

DELTA = 5  # the answer of exercise 7.6; the tests compute it


def check_twins(answer: Any) -> Verdict:
    """Judge the expected share, in percent, of test rows with a copy in training: 150 of 506 rows doubled, 5 folds."""
    rows, doubled = 506 + 150, 150
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=100 * 2 * doubled / rows * 4 / 5,
        rtol=0.012,
        right="Yes: to these rows a nearest neighbour gives the exact answer. Look for duplicates before the split.",
        hint="this is not it: take one test row; is it one of a pair, and if so, on which side is the other?",
        mistakes=[
            (100 * doubled / rows * 4 / 5, "150 rows were doubled, which makes 300 rows with a copy"),
            (100 * 2 * doubled / rows, "this counts pairs that lie in the test part together as well"),
            (100 * doubled / 506, "this is the share of doubled rows before the copies came: count the 656"),
            (100 * 2 * doubled / 506, "the table now has 656 rows, and the pair may lie on one side"),
            (100 * 2 * doubled / 506 * 4 / 5, "the table now has 656 rows, not 506"),
            (100 * doubled / 506 * 4 / 5, "the table now has 656 rows, and both rows of a pair have a copy"),
            (100 * doubled / rows, "both rows of a pair have a copy, and it may lie on the same side"),
            (100 * 2 * doubled / rows / 5, "this is the share whose copy lies in the same fold"),
            (80, "this holds for a row that has a copy; many rows have none"),
            (2 * doubled / rows * 4 / 5, "this is the fraction; the answer is in percent"),
        ],
    )


def check_suspects(function: Callable[..., Any]) -> Verdict:
    """Judge ``suspects(x, y, limit)``: a mask of the columns whose rank correlation with the target is too good."""
    rng = np.random.default_rng(72)
    cases = []
    for n, limit in ((40, 0.9), (60, 0.8), (30, 0.95)):
        y = rng.normal(size=n)
        target = np.exp(2 * y) if limit == 0.8 else y  # with a long tail
        noise = rng.normal(size=(n, 7))
        x = np.column_stack([
            noise[:, 0],
            np.exp(4 * y),  # known answer on another scale: a straight line does not fit it
            -y + 0.02 * noise[:, 1],
            y + 0.9 * noise[:, 2],
            y + 0.5 * noise[:, 6],
            np.where(np.arange(n) == 0, 300.0, noise[:, 3]),
            np.where(np.arange(n) == 0, 90 * y[0], 0.01 * noise[:, 4]),
            y**3 + 1e-4 * noise[:, 5],
        ])  # fmt: skip
        cases.append((x, target, limit))
    return judge(
        function,
        exercise=EXERCISES[1],
        reference=spearman,
        cases=cases,
        right="Suspects only: now ask when each of these columns becomes known, before the answer or after it.",
        mistakes=[
            Mistake(
                "this is the correlation of the values: exp(4y) knows the answer completely, and only ranks show it",
                partial(spearman, rank=np.asarray),
            ),
            Mistake("a column that falls as the target rises knows it as well", partial(spearman, size=np.asarray)),
            Mistake("the mask marks the harmless columns", lambda *case: ~spearman(*case)),
            Mistake("these are column numbers; a mask is asked for", lambda *case: np.flatnonzero(spearman(*case))),
            Mistake(
                "`argsort` gives the order, not the ranks: the ranks are the `argsort` of that",
                partial(spearman, rank=lambda column: np.argsort(column).astype(float)),
            ),
            Mistake(
                "the columns were ranked, the target was not: a rank correlation needs both",
                partial(spearman, rank_target=False),
            ),
            Mistake("these are the correlations themselves: compare them with the limit", partial(spearman, raw=True)),
            Mistake("you compared the squared correlation with the limit", partial(spearman, size=np.square)),
        ],
    )


def check_one_hot(function: Callable[..., Any]) -> Verdict:
    """Judge ``one_hot(train, test)``: 0/1 columns for the sorted levels of the training rows."""
    cases = [
        (np.array(["oak", "elm", "oak", "ash"]), np.array(["elm", "fir", "ash"])),
        (np.array(["b", "b", "a", "c", "a"]), np.array(["a", "z", "0", "b"])),
        (np.array(["red", "blue"]), np.array(["red"])),
        (np.array(["s", "m", "l", "m"]), np.array(["xl", "xxl"])),
    ]
    return judge(
        function,
        exercise=EXERCISES[2],
        reference=encode,
        cases=cases,
        names=("train", "test"),
        right="An unseen level is a row of zeros: the model answers as if it had no such column.",
        mistakes=[
            Mistake(
                "the levels come from both parts: a column for a level that training lacks has no weight to learn",
                partial(encode, levels_of="both"),
            ),
            Mistake(
                "each part has its own levels, so the same column means different things",
                partial(encode, levels_of="own"),
            ),
            Mistake(
                "an unknown level became another level: its row has to be zero everywhere",
                partial(encode, unknown="nearest"),
            ),
            Mistake("an unknown level became the first one: look whether it exists", partial(encode, unknown="first")),
            Mistake("an unknown level became the last one", partial(encode, unknown="last")),
            Mistake(
                "rows of an unknown level are gone: the test part keeps its length", partial(encode, unknown="drop")
            ),
            Mistake("the levels are in the order in which they appear; sort them", partial(encode, ordered=False)),
            Mistake("the first level has no column: keep it", partial(encode, skip=1)),
            Mistake(
                "these are level numbers: a number says that one level is more than another",
                lambda train, test: tuple(part.argmax(axis=1).astype(float) for part in encode(train, test)),
            ),
        ],
    )


def check_mean_ranks(function: Callable[..., Any]) -> Verdict:
    """Judge ``mean_ranks(errors)``: each model's mean rank over the tables, 1 is best, equal errors share."""
    rng = np.random.default_rng(74)
    cases = [(rng.uniform(1, 9, shape) * 10.0 ** rng.integers(-2, 3, (shape[0], 1)),) for shape in ((5, 4), (4, 5))]
    tied = np.array([[3.0, 1.0, 1.0, 7.0], [0.2, 0.2, 0.2, 0.1], [5.0, 6.0, 4.0, 4.0]])
    cases.append((tied,))
    return judge(
        function,
        exercise=EXERCISES[3],
        reference=midranks,
        cases=cases,
        right="Ranks do not care about units: a table whose errors count in thousands has no more say than the others.",
        mistakes=[
            Mistake(
                "equal errors share: two models at the ranks 1 and 2 get 1.5 each",
                partial(midranks, rank=lambda row: np.argsort(np.argsort(row, kind="stable"), kind="stable") + 1),
            ),
            Mistake("equal errors share the mean of their ranks, not the smallest", partial(midranks, method="min")),
            Mistake("equal errors share the mean of their ranks, not the largest", partial(midranks, method="max")),
            Mistake("after equal errors the next rank is not skipped in yours", partial(midranks, method="dense")),
            Mistake(
                "`argsort` gives the order of the models, not their ranks",
                partial(midranks, rank=lambda row: np.argsort(row, kind="stable") + 1),
            ),
            Mistake("the largest error has rank 1 in yours: small errors are good", lambda e: midranks(-e)),
            Mistake("the best rank is 1, yours is 0", lambda e: midranks(e) - 1),
            Mistake("you ranked the tables within each model; models compete within a table", lambda e: midranks(e.T)),
            Mistake(
                "you ranked down the columns; models compete within a table, which is a row",
                lambda e: stats.rankdata(e, axis=0).mean(axis=0),
            ),
            Mistake("these are sums of ranks; divide by the number of tables", lambda e: midranks(e) * len(e)),
            Mistake(
                "you ranked the mean errors, so one table in large units decides",
                lambda e: stats.rankdata(e.mean(axis=0)),
            ),
        ],
    )


def check_quantile_scale(function: Callable[..., Any]) -> Verdict:
    """Judge ``quantile_scale(train, new)``: the normal distribution's value at the same training rank."""
    rng = np.random.default_rng(75)
    cases = []
    for n, m in ((9, 6), (20, 8), (4, 5)):
        train = rng.lognormal(size=n) * 10
        new = np.concatenate([rng.lognormal(size=m - 2) * 10, [train.max() + 50, train.min() - 9]])
        cases.append((train, new))
    return judge(
        function,
        exercise=EXERCISES[4],
        reference=to_normal,
        cases=cases,
        right='Beyond the largest training value nothing rises any more: the flat end of "MLP, ranks" in section 9.',
        figure=quantile_figure,
        mistakes=[
            Mistake("the new rows were ranked among themselves", partial(to_normal, by="new")),
            Mistake("the new rows were ranked together with the training rows", partial(to_normal, by="both")),
            Mistake("with shares i/n the smallest value lands at −∞: take (i + ½)/n", partial(to_normal, shift=0.0)),
            Mistake("with shares (i + 1)/n the largest lands at ∞: take (i + ½)/n", partial(to_normal, shift=1.0)),
            Mistake(
                "these are the shares: put them through the normal quantile function", partial(to_normal, law="uniform")
            ),
            Mistake("this is the distribution function; its inverse is needed", partial(to_normal, law="cdf")),
            Mistake("this is the density; the quantile function is needed", partial(to_normal, law="pdf")),
            Mistake(
                "the training values have to be sorted before anything is looked up", partial(to_normal, sort=False)
            ),
            Mistake(
                "between two training values the share rises in a straight line; yours jumps",
                partial(to_normal, steps=True),
            ),
            Mistake(
                "this is standardizing: mean and standard deviation keep the long tail",
                lambda train, new: (new - train.mean()) / train.std(),
            ),
            Mistake("the sign is flipped: small values belong to the left", lambda *case: -to_normal(*case)),
        ],
    )


def check_delta(answer: Any) -> Verdict:
    """Judge the largest δ, in $1000, for which 50 lost points move MEDV's Huber centre by less than $1000."""
    robust = "smaller than needed: a larger δ still passes, and uses more of the good rows"
    return judge_answer(
        answer,
        exercise=EXERCISES[5],
        expected=DELTA,
        choices=(0.5, 1, 2, 5, 10, 20, 50),
        right="Below δ a row counts by its distance, beyond it only by its side. Choose δ near the noise of good rows.",
        hint="your run shows a move of $1000 and more: the wrong rows still pull too hard",
        mistakes=[(delta, robust) for delta in (0.5, 1, 2, 5, 10) if delta < DELTA],
    )


def check_boosting_step(function: Callable[..., Any]) -> Verdict:
    """Judge ``boosting_step(x, y, prediction, rate)``: threshold of the best stump, and the new prediction."""
    rng = np.random.default_rng(77)
    cases: list[tuple[Any, ...]] = []
    for n, rate in ((12, 0.3), (20, 0.1), (9, 1.0)):
        x = rng.permutation(np.linspace(-3, 3, n) ** 3)
        y = np.sin(x) + rng.normal(size=n) + 4
        cases.append((x, y, np.full(n, y.mean()) + rng.normal(size=n), rate))
    x = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 7.0])
    cases.append((x, np.array([0.1, 0.3, 5.0, 5.4, 4.7, 4.0]), np.linspace(1, 2, 6), 0.5))
    return judge(
        function,
        exercise=EXERCISES[6],
        reference=boost,
        cases=cases,
        names=("threshold", "prediction"),
        right="A few hundred of these, on every column, are LightGBM's idea.",
        figure=boosting_figure,
        mistakes=[
            Mistake("the stump was fitted to y: boosting fits what is still missing, y − prediction", _fits_target),
            Mistake("the rate is missing: take only a part of the step", partial(boost, use_rate=False)),
            Mistake("the step replaces the prediction; it is to be added to it", partial(boost, keep=0)),
            Mistake("the step goes the wrong way: residuals are y − prediction", partial(boost, direction=-1)),
            Mistake("each side steps by the sum of its residuals; take the mean", partial(boost, leaf=np.sum)),
            Mistake("each side steps by the median; squared error asks for the mean", partial(boost, leaf=np.median)),
            Mistake("the threshold is a value of x; it lies midway between two neighbours", partial(boost, midway=0.0)),
            Mistake("the threshold is the larger neighbour; it lies midway", partial(boost, midway=1.0)),
            Mistake("this split has the largest squared error, not the smallest", partial(boost, worst=True)),
            Mistake("this is the median of x; try every threshold and keep the best", partial(boost, only="median")),
            Mistake("left and right are exchanged", partial(boost, swap=True)),
        ],
    )


def _fits_target(x: np.ndarray, y: np.ndarray, prediction: np.ndarray, rate: float) -> Pair:
    threshold, step = boost(x, y, 0 * prediction, rate)
    return threshold, prediction + step
