"""The checks of lesson 06 accept right solutions and name the fault of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import KFold

from course_utils.homework import lesson_06 as module
from course_utils.homework.engine.proving import Proof, checks_of, complaints


def by_array_split(order: Any, k: int, i: int) -> Any:
    folds = np.array_split(order, k)
    return np.concatenate(folds[:i] + folds[i + 1 :]), folds[i]


def by_sklearn(order: Any, k: int, i: int) -> Any:
    train, test = list(KFold(k).split(order))[i]
    return order[train], order[test]


def without_leftovers(order: Any, k: int, i: int) -> Any:
    n = len(order) // k
    return np.concatenate([order[: i * n], order[(i + 1) * n :]]), order[i * n : (i + 1) * n]


def long_last(order: Any, k: int, i: int) -> Any:
    n = len(order) // k
    end = len(order) if i == k - 1 else (i + 1) * n
    return np.concatenate([order[: i * n], order[end:]]), order[i * n : end]


FOLDS = Proof(
    right=[by_array_split, by_sklearn],
    wrong=[
        (without_leftovers, "never tested"),
        (long_last, "all leftovers"),
        (lambda *case: by_array_split(*case)[::-1], "exchanged"),
        (lambda order, k, i: by_array_split(np.arange(len(order)), k, i), "left `order` out"),
        (lambda order, k, i: (order, by_array_split(order, k, i)[1]), "in the training part as well"),
        (lambda order, k, i: (np.delete(order, np.s_[i::k]), order[i::k]), "every k-th"),
        (lambda order, k, i: by_array_split(order, k, i - 1), "fold before"),
        (lambda order, k, i: by_array_split(order, k, i)[1], "2 values are expected"),
        (lambda order, k, i: None, "return"),
        (lambda order, k, i: by_array_split(order, k, i + 1), "raises IndexError"),
    ],
)


def standardize(x: Any, train: Any, test: Any, seen: Any = None, **how: Any) -> Any:
    rows = x[train if seen is None else seen]
    std = rows.std(axis=0, **how)
    std[std == 0] = 1
    return (x[train] - rows.mean(axis=0)) / std, (x[test] - rows.mean(axis=0)) / std


def by_loop(x: Any, train: Any, test: Any) -> Any:
    z = np.empty_like(x)
    for j in range(x.shape[1]):
        column = x[train, j]
        spread = np.sqrt(np.mean((column - column.mean()) ** 2))
        z[:, j] = (x[:, j] - column.mean()) / (spread or 1)
    return z[train], z[test]


def unguarded(x: Any, train: Any, test: Any) -> Any:
    with np.errstate(all="ignore"):
        z = (x - x[train].mean(0)) / x[train].std(0)
    return z[train], z[test]


def in_place(x: Any, train: Any, test: Any) -> Any:
    x -= x[train].mean(0)
    return x[train], x[test]


def one_mean(x: Any, train: Any, test: Any) -> Any:
    z = (x - x[train].mean()) / x[train].std()
    return z[train], z[test]


SCALE = Proof(
    right=[standardize, by_loop],
    wrong=[
        (lambda x, a, b: standardize(x, a, b, slice(None)), "from all rows"),
        (lambda x, a, b: (standardize(x, a, b)[0], standardize(x, b, a)[0]), "scaled by itself"),
        (lambda x, a, b: standardize(x, a, b, b), "from the test rows"),
        (lambda x, a, b: standardize(x, a, b, ddof=1), "divided by n − 1"),
        (one_mean, "each column has its own"),
        (unguarded, "divided by 0"),
        (lambda x, a, b: (standardize(x, a, b)[0], x[b]), "came back unscaled"),
        (in_place, "changes its input"),
        (lambda x, a, b: standardize(x, a, b)[0], "2 values are expected"),
        (lambda x, a, b: standardize(x, a, b)[::-1], "`z_train`: the shape"),
        (lambda x, a, b: [part.astype("float32") for part in standardize(x, a, b)], "dtype is float32"),
    ],
)

PROMISE = Proof(
    right=[4.552, round(100 * np.sqrt(0.9 * 0.1 / 400 * 2 * np.log(100)), 2)],
    wrong=[
        (0.0455, "in points"),
        (1.5, "standard error of one"),
        (3.219, "factor 2"),
        (3.0, "one to base 10"),
        (5.468, "one to base 2"),
        (13.8, "root over 2 ln k"),
        (0.0683, "the variance"),
        (10.385, "exchanged"),
        (91.05, "left the 400"),
        (14.394, "not p"),
        (7, "this is not it"),
        ("a lot", "one number is expected"),
    ],
)


def choose_by_loop(x: Any, y: Any, folds: Any, n_keep: int) -> Any:
    kept = []
    for train, _ in folds:
        strength = [abs(np.corrcoef(column, y[train])[0, 1]) for column in x[train].T]
        kept.append(sorted(sorted(range(x.shape[1]), key=lambda j: -strength[j])[:n_keep]))
    return np.array(kept)


def choose(x: Any, y: Any, folds: Any, n_keep: int, strength: Any = None, part: int = 0, sort: Any = np.sort) -> Any:
    strength = strength or (lambda x, y: np.abs(stats.zscore(x).T @ stats.zscore(y)))
    return np.array([sort(np.argsort(strength(x[fold[part]], y[fold[part]]))[-n_keep:]) for fold in folds])


def with_strength(strength: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda x, y, folds, n: choose(x, y, folds, n, strength=strength)


CHOSEN = Proof(
    right=[choose_by_loop, choose],
    wrong=[
        (lambda x, y, folds, n: choose(x, y, [(np.arange(len(y)),)] * len(folds), n), "on all rows"),
        (lambda x, y, folds, n: choose(x, y, folds, n, part=1), "on the test rows"),
        (with_strength(lambda x, y: stats.zscore(x).T @ stats.zscore(y)), "compare sizes"),
        (with_strength(lambda x, y: -np.abs(stats.zscore(x).T @ stats.zscore(y))), "weakest"),
        (with_strength(lambda x, y: np.abs((x - x.mean(0)).T @ (y - y.mean()))), "covariance"),
        (with_strength(lambda x, y: np.abs(x.T @ y) / np.linalg.norm(x, axis=0)), "subtracting the means"),
        (lambda x, y, folds, n: choose(x, y, folds, n, sort=lambda columns: columns[::-1]), "sort the column numbers"),
        (lambda *case: choose(*case)[0], "An axis was lost"),
        (lambda *case: choose(*case).T, "transpose"),
        (lambda x, y, folds, n: choose(x, y, folds, n + 1), "the shape is"),
    ],
)


def resample(a: Any, b: Any, rows: Any, level: float) -> Any:
    means = a[rows].mean(axis=1) - b[rows].mean(axis=1)
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def resample_by_loop(a: Any, b: Any, rows: Any, level: float) -> Any:
    means = [float(np.mean([a[j] - b[j] for j in draw])) for draw in rows]
    return np.percentile(means, 50 - 50 * level), np.percentile(means, 50 + 50 * level)


def normal(a: Any, b: Any, rows: Any, level: float) -> Any:
    means, z = (a - b)[rows].mean(1), stats.norm.ppf(0.5 + level / 2)
    return means.mean() - z * means.std(), means.mean() + z * means.std()


def quantiles(values: Any, level: float) -> Any:
    return tuple(np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))


PAIRED = Proof(
    right=[resample, resample_by_loop],
    wrong=[
        (lambda a, b, *rest: resample(b, a, *rest), "b minus a"),
        (lambda a, b, rows, level: quantiles(a[rows].mean(1) - b.mean(), level), "only a is resampled"),
        (lambda a, b, rows, level: quantiles(a[rows].mean(1) - b[rows[::-1]].mean(1), level), "different rows"),
        (
            lambda a, b, rows, level: tuple(np.quantile((a - b)[rows].mean(1), sorted([1 - level, level]))),
            "too much outside",
        ),
        (lambda a, b, rows, level: quantiles((a - b)[rows].mean(0), level), "over the resamples"),
        (lambda a, b, rows, level: quantiles((a - b)[rows], level), "of single images"),
        (lambda a, b, rows, level: quantiles(a[rows].mean(1), level), "model a alone"),
        (lambda *case: resample(*case)[::-1], "ends are exchanged"),
        (lambda a, b, rows, level: resample(a, b, rows, 0.95), "fixed at 0.95"),
        (normal, "standard deviations"),
        (lambda *case: sum(resample(*case)), "2 values are expected"),
    ],
)


def corrected(d: Any, n_train: int, n_test: int) -> Any:
    return student(d, 1 / len(d) + n_test / n_train)


def corrected_by_hand(d: Any, n_train: int, n_test: int) -> Any:
    n, mean = len(d), sum(d) / len(d)
    variance = sum((value - mean) ** 2 for value in d) / (n - 1)
    t = mean / (variance * (1 / n + n_test / n_train)) ** 0.5
    return t, 2 * (1 - stats.t.cdf(abs(t), n - 1))


def student(d: Any, factor: float, ddof: int = 1) -> Any:
    t = d.mean() / np.sqrt(factor * d.var(ddof=ddof))
    return t, 2 * stats.t.sf(abs(t), len(d) - 1)


CORRECTED = Proof(
    right=[corrected, corrected_by_hand],
    wrong=[
        (lambda d, a, b: tuple(stats.ttest_1samp(d, 0)), "plain t-test"),
        (lambda d, a, b: student(d, 1 / len(d) + a / b), "exchanged in the ratio"),
        (lambda d, a, b: student(d, 1 / len(d) + b / (a + b)), "divided by all rows"),
        (lambda d, a, b: student(d, b / a), "1/J is missing"),
        (lambda d, a, b: student(d, 1 / len(d) + b / a, ddof=0), "yours divides by J"),
        (lambda d, a, b: (corrected(d, a, b)[0], corrected(d, a, b)[1] / 2), "one-sided"),
        (lambda d, a, b: (t := corrected(d, a, b)[0], 2 * stats.t.sf(abs(t), len(d))), "J degrees of freedom"),
        (lambda d, a, b: (t := corrected(d, a, b)[0], 2 * stats.norm.sf(abs(t))), "normal distribution"),
        (lambda d, a, b: (t := corrected(d, a, b)[0], 2 * stats.t.sf(t, len(d) - 1)), "p is above 1"),
        (lambda *case: corrected(*case)[::-1], "`t`"),
        (lambda *case: corrected(*case)[0], "2 values are expected"),
    ],
)

ENOUGH = Proof(
    right=[8000, np.int64(8000)],
    wrong=[
        (500, "take more"),
        (1000, "take more"),
        (2000, "take more"),
        (4000, "close"),
        (16000, "not the smallest"),
        (5600, "the answer is one of"),
        ("8000 images", "the answer is one of"),
        (-8000, "the answer is one of"),
        (8, "the answer is one of"),
    ],
)


def nested(x: Any, y: Any, penalties: Any, outer: Any, inner: Any, error: Any) -> Any:
    found = []
    for train, test in outer:
        means = [np.mean([error(x, y, *split, penalty) for split in inner(train)]) for penalty in penalties]
        found.append(error(x, y, train, test, penalties[np.argmin(means)]))
    return np.mean(found)


def nested_by_loops(x: Any, y: Any, penalties: Any, outer: Any, inner: Any, error: Any) -> Any:
    total = 0.0
    for train, test in outer:
        best, smallest = None, np.inf
        for penalty in penalties:
            mean = sum(error(x, y, a, b, penalty) for a, b in inner(train))
            if mean < smallest:
                best, smallest = penalty, mean
        total += error(x, y, train, test, best) / len(outer)
    return total


def wrongly_nested(splits: Any = None, judge: Any = None, pick: Any = np.argmin, average: Any = np.mean) -> Any:
    def solution(x: Any, y: Any, penalties: Any, outer: Any, inner: Any, error: Any) -> Any:
        found = []
        for train, test in outer:
            chosen = splits(train, test, inner, len(y)) if splits else inner(train)
            means = [np.mean([error(x, y, *split, penalty) for split in chosen]) for penalty in penalties]
            best = penalties[pick(means)]
            found.append(judge(means, x, y, train, best, error) if judge else error(x, y, train, test, best))
        return average(found)

    return solution


def flat(x: Any, y: Any, penalties: Any, outer: Any, inner: Any, error: Any) -> Any:
    return min(np.mean([error(x, y, *split, penalty) for split in outer]) for penalty in penalties)


NESTED = Proof(
    right=[nested, nested_by_loops],
    wrong=[
        (wrongly_nested(lambda train, test, inner, n: [(train, test)]), "by the outer test rows"),
        (flat, "winner's score"),
        (wrongly_nested(judge=lambda means, *_: min(means)), "inner error of the winner"),
        (wrongly_nested(pick=np.argmax), "with the largest"),
        (wrongly_nested(lambda train, test, inner, n: [(train, train)]), "training error cannot choose"),
        (wrongly_nested(lambda train, test, inner, n: inner(np.arange(n))), "outer test rows included"),
        (wrongly_nested(average=sum), "summed"),
        (
            wrongly_nested(judge=lambda means, x, y, train, best, error: error(x, y, train, train, best)),
            "training rows",
        ),
        (wrongly_nested(average=lambda found: np.array(found)), "one number is expected"),
        (wrongly_nested(average=lambda found: None), "return"),
    ],
)

PROOFS: dict[Callable[..., Any], Proof] = {
    module.check_fold_rows: FOLDS,
    module.check_scale_fold: SCALE,
    module.check_promise: PROMISE,
    module.check_chosen_columns: CHOSEN,
    module.check_paired_interval: PAIRED,
    module.check_corrected_t: CORRECTED,
    module.check_enough_images: ENOUGH,
    module.check_nested_error: NESTED,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))


def test_exercises_are_numbered_in_order() -> None:
    assert [name.split()[0] for name in module.EXERCISES] == [f"6.{n + 1}" for n in range(len(module.EXERCISES))]


def test_figure_shows_that_selection_on_all_rows_flatters() -> None:
    verdict = module.check_chosen_columns(choose)
    assert verdict.figure is not None
    figure, alt = verdict.figure()

    assert figure.axes
    assert "0.85" in alt


def test_optimism_on_enough_images_is_below_a_point() -> None:
    largest = np.random.default_rng(0).standard_normal((20_000, 20)).max(axis=1).mean()
    optimism = {n: 100 * largest * np.sqrt(0.8 * 0.2 / n) for n in (500, 1000, 2000, 4000, 8000, 16000)}

    assert min(n for n, points in optimism.items() if points < 1) == 8000
    assert optimism[4000] > 1.1
    assert optimism[8000] < 0.9
