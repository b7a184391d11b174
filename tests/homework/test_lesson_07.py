"""The checks of lesson 07 accept right solutions and name the fault of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeRegressor

from course_utils.datasets import load_boston_housing
from course_utils.homework import lesson_07 as module
from course_utils.homework._tables import huber_centre
from course_utils.homework.engine.proving import Proof, checks_of, complaints

TWINS = Proof(
    right=[36.585, 300 / 656 * 80],
    wrong=[
        (18.29, "300 rows with a copy"),
        (45.73, "in the test part together"),
        (29.64, "before the copies came"),
        (59.29, "656 rows, and the pair"),
        (47.43, "not 506"),
        (23.72, "both rows of a pair"),
        (22.87, "both rows of a pair"),
        (9.146, "in the same fold"),
        (80, "many rows have none"),
        (0.366, "in percent"),
        (50, "this is not it"),
        ("a third", "one number is expected"),
    ],
)


def by_scipy(x: Any, y: Any, limit: float) -> Any:
    return np.array([abs(stats.spearmanr(column, y).statistic) > limit for column in x.T])


def by_pandas(x: Any, y: Any, limit: float) -> Any:
    return (pd.DataFrame(x).corrwith(pd.Series(y), method="spearman").abs() > limit).to_numpy()


def by_rank(rank: Callable[[Any], Any], rank_y: Callable[[Any], Any], size: Any = np.abs) -> Callable[..., Any]:
    def solution(x: Any, y: Any, limit: float) -> Any:
        return np.array([size(np.corrcoef(rank(column), rank_y(y))[0, 1]) > limit for column in x.T])

    return solution


def ranks(values: Any) -> Any:
    return stats.rankdata(values)


SUSPECTS = Proof(
    right=[by_scipy, by_pandas],
    wrong=[
        (by_rank(np.array, np.array), "only ranks show it"),
        (by_rank(ranks, ranks, float), "falls as the target rises"),
        (lambda *case: ~by_scipy(*case), "marks the harmless"),
        (lambda *case: np.flatnonzero(by_scipy(*case)), "column numbers"),
        (by_rank(np.argsort, np.argsort), "gives the order"),
        (by_rank(ranks, np.array), "the target was not"),
        (lambda x, y, limit: pd.DataFrame(x).corrwith(pd.Series(y), method="spearman").to_numpy(), "themselves"),
        (by_rank(ranks, ranks, np.square), "squared"),
        (lambda *case: by_scipy(*case).any(), "shape"),
        (lambda *case: by_scipy(*case).astype(float), "dtype"),
    ],
)


def by_hand(train: Any, test: Any) -> Any:
    levels = sorted(set(train))
    return tuple(np.array([[float(value == level) for level in levels] for value in part]) for part in (train, test))


def by_sklearn(train: Any, test: Any) -> Any:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[:, None])
    return encoder.transform(train[:, None]), encoder.transform(test[:, None])


def hot(levels: Any, *parts: Any) -> Any:
    return tuple((part[:, None] == np.array(levels)).astype(float) for part in parts)


def unknown_first(train: Any, test: Any) -> Any:
    levels = list(np.unique(train))
    places = [levels.index(value) if value in levels else 0 for value in test]
    return hot(levels, train)[0], np.eye(len(levels))[places]


def unknown_last(train: Any, test: Any) -> Any:
    levels = list(np.unique(train))
    places = [levels.index(value) if value in levels else -1 for value in test]
    return hot(levels, train)[0], np.eye(len(levels))[places]


def searched(train: Any, test: Any) -> Any:
    levels = np.unique(train)
    places = np.minimum(np.searchsorted(levels, test), len(levels) - 1)
    return hot(levels, train)[0], np.eye(len(levels))[places]


def known_only(train: Any, test: Any) -> Any:
    return hot(np.unique(train), train, test[np.isin(test, train)])


ONE_HOT = Proof(
    right=[by_hand, by_sklearn],
    wrong=[
        (lambda train, test: hot(np.unique(np.r_[train, test]), train, test), "come from both"),
        (lambda train, test: (*hot(np.unique(train), train), *hot(np.unique(test), test)), "its own levels"),
        (searched, "became another level"),
        (unknown_first, "became the first"),
        (unknown_last, "became the last"),
        (known_only, "are gone"),
        (lambda train, test: hot(list(dict.fromkeys(train)), train, test), "sort them"),
        (lambda train, test: tuple(part[:, 1:] for part in by_hand(train, test)), "no column"),
        (lambda train, test: tuple(part.argmax(1).astype(float) for part in by_hand(train, test)), "level numbers"),
        (lambda train, test: np.array([list(np.unique(train)).index(value) for value in test]), "raises ValueError"),
        (lambda *case: tuple(part.astype(bool) for part in by_hand(*case)), "dtype is bool"),
        (lambda *case: tuple(part.T for part in by_hand(*case)), "transpose"),
        (lambda *case: by_hand(*case)[0], "2 values are expected"),
    ],
)


def counted(errors: Any) -> Any:
    smaller = (errors[:, None, :] < errors[:, :, None]).sum(axis=2)
    equal = (errors[:, None, :] == errors[:, :, None]).sum(axis=2)
    return (smaller + (equal + 1) / 2).mean(axis=0)


RANKS = Proof(
    right=[lambda errors: stats.rankdata(errors, axis=1).mean(axis=0), counted],
    wrong=[
        (lambda e: (e.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1).mean(axis=0), "get 1.5"),
        (lambda e: stats.rankdata(e, axis=1, method="min").mean(axis=0), "not the smallest"),
        (lambda e: stats.rankdata(e, axis=1, method="max").mean(axis=0), "not the largest"),
        (lambda e: stats.rankdata(e, axis=1, method="dense").mean(axis=0), "not skipped"),
        (lambda e: (e.argsort(axis=1, kind="stable") + 1).mean(axis=0), "order of the models"),
        (lambda e: counted(-e), "small errors are good"),
        (lambda e: counted(e) - 1, "yours is 0"),
        (lambda e: counted(e.T), "tables within each model"),
        (lambda e: stats.rankdata(e, axis=0).mean(axis=0), "down the columns"),
        (lambda e: stats.rankdata(e, axis=1).sum(axis=0), "divide by the number"),
        (lambda e: stats.rankdata(e.mean(axis=0)), "large units decides"),
        (lambda e: stats.rankdata(e, axis=1), "the shape"),
    ],
)


def interpolated(train: Any, new: Any, known: Any = None, shift: float = 0.5) -> Any:
    known = np.sort(train if known is None else known)
    return stats.norm.ppf(np.interp(new, known, (np.arange(len(known)) + shift) / len(known)))


def interpolated_by_hand(train: Any, new: Any) -> Any:
    known, n, found = sorted(train), len(train), []
    for value in new:
        below = sum(one <= value for one in known)
        if below in (0, n):
            share = 0.5 / n if below == 0 else 1 - 0.5 / n
        else:
            low, high = known[below - 1], known[below]
            share = (below - 0.5 + (value - low) / (high - low)) / n
        found.append(stats.norm.ppf(share))
    return np.array(found)


def share(train: Any, new: Any) -> Any:
    return np.interp(new, np.sort(train), (np.arange(len(train)) + 0.5) / len(train))


def in_place(train: Any, new: Any) -> Any:
    train.sort()
    return interpolated(train, new)


QUANTILE = Proof(
    right=[interpolated, interpolated_by_hand],
    wrong=[
        (lambda train, new: interpolated(train, new, new), "among themselves"),
        (lambda train, new: interpolated(train, new, np.r_[train, new]), "together with"),
        (lambda train, new: interpolated(train, new, shift=0), "at −∞"),
        (lambda train, new: interpolated(train, new, shift=1), "at ∞"),
        (share, "these are the shares"),
        (lambda *case: stats.norm.cdf(share(*case)), "its inverse"),
        (lambda *case: stats.norm.pdf(share(*case)), "density"),
        (lambda a, b: stats.norm.ppf(np.interp(b, a, (np.arange(len(a)) + 0.5) / len(a))), "to be sorted"),
        (lambda train, new: (new - train.mean()) / train.std(), "standardizing"),
        (lambda *case: -interpolated(*case), "sign is flipped"),
        (in_place, "changes its input"),
        (lambda train, new: interpolated(train, train), "the shape"),
    ],
)

DELTA = Proof(
    right=[5, 5.0],
    wrong=[
        (0.5, "a larger δ still passes"),
        (1, "a larger δ still passes"),
        (2, "a larger δ still passes"),
        (10, "your run shows"),
        (20, "your run shows"),
        (50, "your run shows"),
        (6, "the answer is one of"),
        ("five", "the answer is one of"),
    ],
)


def step(x: Any, y: Any, prediction: Any, rate: float) -> Any:
    residual, values = y - prediction, np.unique(x)
    cuts = (values[:-1] + values[1:]) / 2
    errors = []
    for cut in cuts:
        errors.append(sum(residual[side].var() * side.sum() for side in (x <= cut, x > cut)))
    cut = cuts[np.argmin(errors)]
    return cut, prediction + rate * np.where(x <= cut, residual[x <= cut].mean(), residual[x > cut].mean())


def step_of_a_tree(x: Any, y: Any, prediction: Any, rate: float) -> Any:
    stump = DecisionTreeRegressor(max_depth=1).fit(x[:, None], y - prediction)
    return stump.tree_.threshold[0], prediction + rate * stump.predict(x[:, None])


def stepped(x: Any, y: Any, prediction: Any, rate: float, cut: Any = None, leaf: Any = np.mean) -> Any:
    residual = y - prediction
    cut = step(x, y, prediction, rate)[0] if cut is None else cut
    return cut, prediction + rate * np.where(x <= cut, leaf(residual[x <= cut]), leaf(residual[x > cut]))


def neighbour(x: Any, y: Any, prediction: Any, rate: float, larger: bool) -> Any:
    cut, new = step(x, y, prediction, rate)
    return (x[x > cut].min() if larger else x[x <= cut].max()), new


def swapped(x: Any, y: Any, prediction: Any, rate: float) -> Any:
    residual, cut = y - prediction, step(x, y, prediction, rate)[0]
    return cut, prediction + rate * np.where(x > cut, residual[x <= cut].mean(), residual[x > cut].mean())


BOOST = Proof(
    right=[step, step_of_a_tree],
    wrong=[
        (lambda x, y, p, rate: (step(x, y, 0 * p, rate)[0], p + step(x, y, 0 * p, rate)[1]), "was fitted to y"),
        (lambda x, y, p, rate: step(x, y, p, 1), "rate is missing"),
        (lambda x, y, p, rate: (step(x, y, p, rate)[0], step(x, y, p, rate)[1] - p), "replaces the prediction"),
        (lambda x, y, p, rate: (step(x, y, p, rate)[0], 2 * p - step(x, y, p, rate)[1]), "wrong way"),
        (lambda x, y, p, rate: stepped(x, y, p, rate, leaf=np.sum), "take the mean"),
        (lambda x, y, p, rate: stepped(x, y, p, rate, leaf=np.median), "asks for the mean"),
        (lambda x, y, p, rate: neighbour(x, y, p, rate, larger=False), "a value of x"),
        (lambda x, y, p, rate: neighbour(x, y, p, rate, larger=True), "larger neighbour"),
        (lambda x, y, p, rate: stepped(x, y, p, rate, np.median(x)), "median of x"),
        (swapped, "left and right"),
        (lambda *case: step(*case)[1], "2 values are expected"),
        (lambda *case: step(*case)[::-1], "`threshold`"),
    ],
)

PROOFS: dict[Callable[..., Any], Proof] = {
    module.check_twins: TWINS,
    module.check_suspects: SUSPECTS,
    module.check_one_hot: ONE_HOT,
    module.check_mean_ranks: RANKS,
    module.check_quantile_scale: QUANTILE,
    module.check_delta: DELTA,
    module.check_boosting_step: BOOST,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))


def test_exercises_are_numbered_in_order() -> None:
    assert [name.split()[0] for name in module.EXERCISES] == [f"7.{n + 1}" for n in range(len(module.EXERCISES))]


@pytest.mark.parametrize(("check", "solution"), [("quantile_scale", interpolated), ("boosting_step", step)])
def test_a_figure_rewards(check: str, solution: Callable[..., Any]) -> None:
    verdict = getattr(module, f"check_{check}")(solution)
    figure, alt = verdict.figure()

    assert figure.axes
    assert len(alt) > 40


def test_share_of_twins_is_what_shuffling_gives() -> None:
    rng, shares = np.random.default_rng(0), []
    for _ in range(2000):
        row = np.r_[np.arange(506), np.arange(150)]
        train, test = np.split(rng.permutation(656), [525])
        shares.append(100 * np.isin(row[test], row[train]).mean())

    assert np.mean(shares) == pytest.approx(300 / 656 * 80, abs=0.3)


def test_delta_is_the_largest_that_keeps_the_centre() -> None:
    y = load_boston_housing().target.to_numpy()
    damaged = y.copy()
    damaged[np.random.default_rng(0).permutation(506)[:50]] *= 10
    moves = {delta: huber_centre(damaged, delta) - huber_centre(y, delta) for delta in (0.5, 1, 2, 5, 10, 20, 50)}

    assert max(delta for delta, move in moves.items() if move < 1) == module.DELTA
    assert moves[5] < 0.95
    assert moves[10] > 1.2
