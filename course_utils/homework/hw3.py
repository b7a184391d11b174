"""Checks of homework 3: k-fold model selection, an MLP under a parameter budget, and what it gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from course_utils.homework._wardrobe import (
    BUDGET,
    EXERCISES,
    FLOOR,
    accuracy,
    check_stratified_folds,
    check_train_net,
    check_wardrobe,
)
from course_utils.homework.engine.judge import Mistake, judge
from course_utils.homework.engine.verdict import Verdict

__all__ = [
    "BUDGET",
    "EXERCISES",
    "FLOOR",
    "check_choose",
    "check_confident_failures",
    "check_confusion",
    "check_count_weights",
    "check_cross_validate",
    "check_stratified_folds",
    "check_train_net",
    "check_wardrobe",
]
_Rows = NDArray[np.int64]


def check_count_weights(count_weights: Any, *, seed: int = 0) -> Verdict:
    """Judge ``count_weights(sizes, batch_norm) -> int``."""

    def layers(sizes: list[int]) -> int:
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))

    def reference(sizes: list[int], batch_norm: bool) -> int:
        return layers(sizes) + 2 * sum(sizes[1:-1]) * batch_norm

    rng = np.random.default_rng(seed)
    drawn = [([int(n) for n in rng.integers(3, 90, size=length)], bool(length % 2)) for length in (3, 4, 5)]
    cases = [([784, 64, 10], False), ([6, 5], False), ([6, 5], True), *drawn]
    mistakes = [
        Mistake(
            "it counts weights only: every unit behind a linear layer has a bias as well",
            lambda sizes, bn: reference(sizes, bn) - sum(sizes[1:]),
        ),
        Mistake("the inputs have no bias: biases belong to the outputs of each linear layer",
                lambda sizes, bn: reference(sizes, bn) + sizes[0]),
        Mistake("it ignores batch_norm: a scale and a shift for each hidden unit are trained too",
                lambda sizes, bn: layers(sizes)),
        Mistake("running mean and variance are no parameters: no gradient changes them",
                lambda sizes, bn: layers(sizes) + 4 * sum(sizes[1:-1]) * bn),
        Mistake("batch normalization has a scale *and* a shift for each unit",
                lambda sizes, bn: layers(sizes) + sum(sizes[1:-1]) * bn),
        Mistake("the output layer is not normalized: batch_norm concerns hidden layers only",
                lambda sizes, bn: layers(sizes) + 2 * sum(sizes[1:]) * bn),
        Mistake("the last linear layer is missing: does the loop end one too early?",
                lambda sizes, bn: layers(sizes[:-1]) + 2 * sum(sizes[1:-1]) * bn),
        Mistake("the first linear layer is missing: does the loop start one too late?",
                lambda sizes, bn: layers(sizes[1:]) + 2 * sum(sizes[1:-1]) * bn),
        Mistake("with batch_norm the linear layers keep their biases here, as torch's do",
                lambda sizes, bn: reference(sizes, bn) - sum(sizes[1:-1]) * bn),
    ]  # fmt: skip
    return judge(
        count_weights,
        exercise=EXERCISES[0],
        reference=reference,
        cases=cases,
        mistakes=mistakes,
        rtol=0,
        right="Right: your formula agrees with counting in torch. 784-64-10 has 50,890.",
    )


class _NearestMean(nn.Module):
    """Learns class means; a stand-in for a network, so that the check of cross-validation takes no time."""

    def __init__(self, inputs: Tensor, targets: Tensor, setting: dict[str, float], seed: int) -> None:
        super().__init__()
        means = torch.zeros(3, inputs.shape[1], dtype=inputs.dtype)
        for label in targets.unique().tolist():
            means[label] = inputs[targets == label].mean(dim=0)
        noise = torch.randn(means.shape, generator=torch.Generator().manual_seed(seed), dtype=means.dtype)
        self.means = means + setting["noise"] * noise

    def forward(self, inputs: Tensor) -> Tensor:
        """Return minus the distances, shape (batch, 3)."""
        return -torch.cdist(inputs, self.means)


def check_cross_validate(cross_validate: Any, *, seed: int = 0) -> Verdict:
    """Judge ``cross_validate(settings, inputs, targets, folds, train) -> (n_settings, k)`` accuracies."""

    def with_rows(
        choose_rows: Callable[[_Rows, _Rows], tuple[_Rows, _Rows]], seed_of: Callable[[int], int] = int
    ) -> Callable[..., Any]:
        def answer(settings: Any, inputs: Tensor, targets: Tensor, folds: Any, train: Any) -> Any:
            table = np.zeros((len(settings), len(folds)))
            for row, setting in enumerate(settings):
                for column, fold in enumerate(folds):
                    fitted, scored = choose_rows(*fold)
                    model = train(inputs[fitted], targets[fitted], setting, seed_of(column))
                    table[row, column] = accuracy(model(inputs[scored]), targets[scored])
            return table

        return answer

    reference = with_rows(lambda train, val: (train, val))
    cases = [_small_selection(seed + number, n, k) for number, (n, k) in enumerate([(60, 5), (45, 3), (31, 4)])]
    mistakes = [
        Mistake("a leak: each network is trained on the validation rows as well", with_rows(
            lambda train, val: (np.concatenate([train, val]), val))),
        Mistake("it scores the rows it was trained on: score the validation rows", with_rows(
            lambda train, val: (train, train))),
        Mistake("training and validation rows are swapped", with_rows(lambda train, val: (val, train))),
        Mistake("every fold gets the same seed: the seed is the number of the fold, from 0", with_rows(
            lambda train, val: (train, val), lambda column: 0)),
        Mistake("the seed is the number of the fold from 0, not from 1", with_rows(
            lambda train, val: (train, val), lambda column: column + 1)),
        Mistake("it returns the share of wrong answers: accuracy is the share of right ones",
                lambda *case: 1 - reference(*case)),
        Mistake("it averages over the folds: keep one column for each fold, the next task needs the spread",
                lambda *case: reference(*case).mean(axis=1)),
        Mistake("it counts right answers: divide by the number of validation rows",
                lambda settings, inputs, targets, folds, train: reference(settings, inputs, targets, folds, train)
                * np.array([len(val) for _, val in folds])),
    ]  # fmt: skip
    return judge(
        cross_validate,
        exercise=EXERCISES[3],
        reference=reference,
        cases=cases,
        mistakes=mistakes,
        right="Right: one row for each setting, one column for each fold, and no network saw what it is scored on.",
    )


def _small_selection(seed: int, n: int, k: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    inputs = torch.randn(n, 4, generator=generator, dtype=torch.float64) + 0.8 * torch.eye(4)[targets]
    parts = np.array_split(np.random.default_rng(seed).permutation(n), k)
    folds = [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(k)]
    return [{"noise": 0.0}, {"noise": 0.7}], inputs, targets, folds, _NearestMean


def check_choose(choose: Any, *, seed: int = 0) -> Verdict:
    """Judge ``choose(accuracies, n_parameters, budget) -> int``, the one-standard-error rule under a budget."""

    def rule(
        accuracies: Any,
        sizes: Any,
        budget: Any,
        spread: Callable[[Any], Any],
        inside: bool = True,
        pick: Any = np.argmin,
    ) -> int:
        allowed = np.flatnonzero(sizes <= budget) if inside else np.arange(len(sizes))
        means = accuracies.mean(axis=1)
        best = allowed[means[allowed].argmax()]
        near = allowed[means[allowed] >= means[best] - spread(accuracies[best])]
        return int(near[pick(sizes[near])])

    def error(scores: Any) -> Any:
        return scores.std(ddof=1) / np.sqrt(len(scores))

    def reference(accuracies: Any, sizes: Any, budget: Any) -> int:
        return rule(accuracies, sizes, budget, error)

    def within(pick: Callable[[Any, Any], Any]) -> Callable[..., int]:
        def answer(accuracies: Any, sizes: Any, budget: Any) -> int:
            allowed = np.flatnonzero(sizes <= budget)
            return int(allowed[pick(accuracies[allowed], sizes[allowed])])

        return answer

    mistakes = [
        Mistake("it ignores the budget: settings with more parameters are out, whatever they score",
                lambda a, p, b: rule(a, p, b, error, inside=False)),
        Mistake("it takes the best mean: among those within one standard error of it, take the smallest network",
                lambda a, p, b: rule(a, p, b, lambda scores: 0)),
        Mistake("it compares with the standard deviation of the folds: the standard error is that over √k",
                lambda a, p, b: rule(a, p, b, lambda scores: scores.std(ddof=1))),
        Mistake("the standard deviation of k scores divides by k − 1: ddof=1",
                lambda a, p, b: rule(a, p, b, lambda scores: scores.std() / np.sqrt(len(scores)))),
        Mistake("it takes the smallest network of all: it must also be within one standard error of the best",
                within(lambda a, p: p.argmin())),
        Mistake("it picks the best single fold, which is luck: average over the folds first",
                within(lambda a, p: a.max(axis=1).argmax())),
        Mistake("it picks the worst mean: these are accuracies, higher is better",
                within(lambda a, p: a.mean(axis=1).argmin())),
        Mistake("it returns the place among the settings within the budget: return the place among all",
                lambda a, p, b: int(np.flatnonzero(np.flatnonzero(p <= b) == reference(a, p, b))[0])),
        Mistake("it takes the largest network within one standard error: the smallest is asked for",
                lambda a, p, b: rule(a, p, b, error, pick=np.argmax)),
    ]  # fmt: skip
    return judge(
        choose,
        exercise=EXERCISES[4],
        reference=reference,
        cases=_telling_cases(reference, mistakes, np.random.default_rng(seed)),
        mistakes=mistakes,
        right="Right: a smaller network that the folds cannot tell from the best one wins.",
    )


def _telling_cases(
    reference: Callable[..., Any], mistakes: Sequence[Mistake], rng: np.random.Generator
) -> list[tuple[Any, ...]]:
    """Draw cases until each mistake gives another answer than the reference on at least two of them."""
    cases: list[tuple[Any, ...]] = []
    missing = [2] * len(mistakes)
    while any(missing):
        accuracies = 0.8 + 0.02 * rng.standard_normal((8, 1)) + 0.03 * rng.standard_normal((8, 5))
        case = accuracies, rng.permutation(8) * 9_000 + 7_850, 52_000
        told = [bool(mistake.answer(*case) != reference(*case)) for mistake in mistakes]
        if any(one and left for one, left in zip(told, missing, strict=True)):
            cases.append(case)
            missing = [left - (one and left > 0) for one, left in zip(told, missing, strict=True)]
    return cases


def check_confusion(confusion: Any, *, seed: int = 0) -> Verdict:
    """Judge ``confusion(truth, predicted, n_classes) -> (n_classes, n_classes)`` counts, int64."""

    def reference(truth: _Rows, predicted: _Rows, n_classes: int) -> _Rows:
        counts = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
        return counts.reshape(n_classes, n_classes)

    def once(truth: _Rows, predicted: _Rows, n_classes: int) -> _Rows:
        return np.minimum(reference(truth, predicted, n_classes), 1)

    def present(truth: _Rows, predicted: _Rows, n_classes: int) -> _Rows:
        kept = np.union1d(truth, predicted)
        return reference(truth, predicted, n_classes)[np.ix_(kept, kept)]

    def without_right(*case: Any) -> _Rows:
        return reference(*case) * (1 - np.eye(case[2], dtype=np.int64))

    def shares(axis: int) -> Callable[..., Any]:
        return lambda *case: reference(*case) / np.maximum(reference(*case).sum(axis=axis, keepdims=True), 1)

    rng = np.random.default_rng(seed)
    cases = [
        (rng.integers(0, n - 1, size), rng.integers(0, n - 1, size), n) for n, size in ((4, 30), (6, 25), (10, 90))
    ]
    none = np.zeros(0, dtype=np.int64)
    cases.append((none, none, 3))
    mistakes = [
        Mistake("it is transposed: rows are true classes, columns predicted ones", lambda *case: reference(*case).T),
        Mistake("each pair is counted once: `m[truth, predicted] += 1` counts repeated places a single time;"
                " take np.add.at, bincount or a loop", once),
        Mistake("classes that do not occur keep their empty row and column", present),
        Mistake("the right answers belong into the diagonal", without_right),
        Mistake("these are shares: return counts", shares(1)),
        Mistake("these are shares: return counts", shares(0)),
        Mistake("these are shares: return counts", lambda *case: reference(*case) / max(len(case[0]), 1)),
    ]  # fmt: skip
    return judge(
        confusion,
        exercise=EXERCISES[6],
        reference=reference,
        cases=cases,
        mistakes=mistakes,
        right="Right: row = what it is, column = what the network says.",
    )


def check_confident_failures(confident_failures: Any, *, seed: int = 0) -> Verdict:
    """Judge ``confident_failures(probabilities, labels, n)`` → row numbers, the most confident mistake first."""

    def ordered(by: Callable[..., Any], rows_of: Callable[..., Any]) -> Callable[..., Any]:
        def answer(probabilities: Any, labels: Any, n: int) -> Any:
            rows = rows_of(probabilities, labels)
            return rows[np.argsort(by(probabilities, labels)[rows])][:n]

        return answer

    def wrong(probabilities: Any, labels: Any) -> Any:
        return np.flatnonzero(probabilities.argmax(axis=1) != labels)

    def right(probabilities: Any, labels: Any) -> Any:
        return np.flatnonzero(probabilities.argmax(axis=1) == labels)

    def unsure(probabilities: Any, labels: Any) -> Any:
        return -probabilities.max(axis=1)

    def of_truth(probabilities: Any, labels: Any) -> Any:
        return probabilities[np.arange(len(labels)), labels]

    def places(probabilities: Any, labels: Any, n: int) -> Any:
        rows = wrong(probabilities, labels)
        return np.argsort(unsure(probabilities, labels)[rows])[:n]

    reference = ordered(unsure, wrong)
    rng = np.random.default_rng(seed)
    cases = []
    for n_rows, n in ((40, 5), (25, 3), (60, 8), (6, 50)):
        raw = rng.exponential(size=(n_rows, 5)) ** 2
        cases.append((raw / raw.sum(axis=1, keepdims=True), rng.integers(0, 5, n_rows), n))
    mistakes = [
        Mistake("right answers are among them: keep the rows whose most probable class is not the label",
                ordered(unsure, lambda probabilities, labels: np.arange(len(labels)))),
        Mistake("these are the right answers: failures are the others", ordered(unsure, right)),
        Mistake("these are the least confident failures: sort the other way round",
                ordered(lambda *case: -unsure(*case), wrong)),
        Mistake("it sorts by the probability of the true class: confidence is that of the predicted one",
                ordered(of_truth, wrong)),
        Mistake("these are places among the failures: return row numbers of `probabilities`", places),
        Mistake("they are not sorted by confidence", lambda p, labels, n: wrong(p, labels)[:n]),
        Mistake("the right rows in the wrong order: the most confident failure comes first",
                lambda p, labels, n: reference(p, labels, n)[::-1]),
        Mistake("it returns all failures: only the first n are asked for",
                lambda p, labels, n: reference(p, labels, len(p))),
    ]  # fmt: skip
    return judge(
        confident_failures,
        exercise=EXERCISES[7],
        reference=reference,
        cases=cases,
        mistakes=mistakes,
        right="Right: these are the images to look at first.",
    )
