"""The checks of lesson 00 accept right solutions and name what is wrong with the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from course_utils.homework import lesson_00
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.homework.lesson_00 import (
    check_cross_entropy,
    check_gates,
    check_largest_lr,
    check_merged,
    check_parameters,
    check_starts,
    check_tanh_gradients,
)

GATES = {"OR": (1, 1, -0.5), "NAND": (-1, -1, 1.5), "AND": (1, 1, -1.5)}


def gates(**changed: Any) -> dict[str, Any]:
    return GATES | changed


def merged_by_hand(w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    return w2 @ w1, w2 @ b1 + b2


def merged_by_linearity(w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    stacked = torch.cat([w1, b1[:, None]], dim=1)
    both = w2 @ stacked
    return both[:, :-1], both[:, -1] + b2


def count_by_loop(sizes: Any, bias: Any) -> int:
    total = 0
    for n, m in itertools.pairwise(sizes):
        total += m * (n + 1) if bias else m * n
    return total


def weights(sizes: Any) -> int:
    return sum(a * b for a, b in itertools.pairwise(sizes))


def count_destructively(sizes: Any, bias: Any) -> int:
    total, n = 0, sizes.pop(0)
    while sizes:
        m = sizes.pop(0)
        total, n = total + m * (n + bool(bias)), m
    return total


def log_softmax(z: Any, axis: int = 1) -> Any:
    z = z - z.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def log_of_sums(z: Any) -> Any:
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def picked(z: Any, y: Any) -> Any:
    return z[np.arange(len(y)), y]


def loss_by_hand(z: Any, y: Any) -> Any:
    return -picked(log_softmax(z), y).mean()


def loss_by_loop(z: Any, y: Any) -> float:
    return float(np.mean([np.logaddexp.reduce(row) - row[label] for row, label in zip(z, y, strict=True)]))


def softmax(z: Any) -> Any:
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def loss_in_place(z: Any, y: Any) -> Any:
    z -= z.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - picked(z, y))


def gradients(x: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any, *, slope: Any = None, scale: float = 1.0) -> Any:
    h = np.tanh(x @ w1 + b1)
    delta2 = scale * (h @ w2 + b2 - y) / len(x)
    delta1 = delta2 @ w2.T * (1 - h**2 if slope is None else slope(x @ w1 + b1))
    return x.T @ delta1, delta1.sum(axis=0), h.T @ delta2, delta2.sum(axis=0)


def gradients_by_row(x: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    total = [np.zeros_like(p) for p in (w1, b1, w2, b2)]
    for row, target in zip(x, y, strict=True):
        h = np.tanh(row @ w1 + b1)
        error = (h @ w2 + b2 - target) / len(x)
        back = (w2 @ error) / np.cosh(row @ w1 + b1) ** 2
        for sum_, part in zip(total, (np.outer(row, back), back, np.outer(h, error), error), strict=True):
            sum_ += part
    return total


def with_updated_weights(x: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    *_, dw2, db2 = gradients(x, y, w1, b1, w2, b2)
    h = np.tanh(x @ w1 + b1)
    delta1 = (h @ w2 + b2 - y) / len(x) @ (w2 - 0.1 * dw2).T * (1 - h**2)
    return x.T @ delta1, delta1.sum(axis=0), dw2, db2


def bias_means(*arguments: Any) -> Any:
    dw1, db1, dw2, db2 = gradients(*arguments)
    n = len(arguments[0])
    return dw1, db1 / n, dw2, db2 / n


PROOFS: dict[Callable[..., Any], Proof] = {
    check_gates: Proof(
        right=[GATES, {"AND": [2, 3, -4.5], "OR": np.array([5, 2, -1]), "NAND": torch.tensor([-2.0, -2.0, 3.0])}],
        wrong=[
            (gates(OR=(1, 1, 0.5)), "your OR neuron computes 'always'"),
            (gates(OR=(1, 1, -1)), "OR: for (0, 1) the sum is exactly 0"),
            (gates(OR=(1, 1, 0)), "runs through the point (0, 0)"),
            (gates(OR=(1, 1, -1.5)), "your OR neuron computes AND"),
            (gates(NAND=(1, 1, -1.5)), "your NAND neuron computes AND"),
            (gates(NAND=(-1, -1, 0.5)), "your NAND neuron computes NOR"),
            (gates(AND=(1, 0, -0.5)), "AND: for (1, 0) it fires"),
            (gates(NAND=(-1, 0, 0.5)), "NAND: for (1, 0) it does not fire"),
            (gates(AND=(1, 1, math.nan)), "must be finite"),
            (gates(AND=(1, 1)), "AND needs three numbers"),
            (gates(AND=None), "AND needs three numbers"),
            ({"OR": (1, 1, -0.5), "AND": (1, 1, -1.5)}, "the neuron 'NAND' is missing"),
            ([(1, 1, -0.5)] * 3, "a dictionary from"),
        ],
    ),
    check_merged: Proof(
        right=[merged_by_hand, merged_by_linearity],
        wrong=[
            (lambda w1, b1, w2, b2: (w2 @ w1, b2), "first layer's bias is lost"),
            (lambda w1, b1, w2, b2: (w2 @ w1, w2 @ b1), "second layer's own bias"),
            (lambda w1, b1, w2, b2: (w2 @ w1, 0 * b2), "both biases are lost"),
            (lambda w1, b1, w2, b2: (w2 @ w1, b1 + b2), "it raises RuntimeError"),
            (lambda w1, b1, w2, b2: (w1 @ w2, w2 @ b1 + b2), "it raises RuntimeError"),
            (lambda w1, b1, w2, b2: (w1.T @ w2.T, w2 @ b1 + b2), "torch's Linear stores them as (out, in)"),
            (lambda w1, b1, w2, b2: (w2 @ w1, w2 @ b1.relu() + b2), "no ReLU between"),
            (lambda w1, b1, w2, b2: (w2 @ w1 + (w2 @ b1 + b2)[:, None], w2 @ b1 + b2), "still contains the bias"),
            (lambda w1, b1, w2, b2: w2 @ w1, "2 values are expected (weight, bias)"),
            (lambda w1, b1, w2, b2: (w2 @ w1, (w2 @ b1 + b2)[:, None]), "`bias`"),
            (lambda w1, b1, w2, b2: ((w2 @ w1).float(), (w2 @ b1 + b2).float()), "dtype is float32"),
            (lambda w1, b1, w2, b2: (w2 @ w1, b2.add_(w2 @ b1)), "changes its input"),
        ],
    ),
    check_parameters: Proof(
        right=[count_by_loop, lambda s, bias: weights(s) + bias * sum(s[1:])],
        wrong=[
            (lambda s, bias: weights(s), "the biases are missing"),
            (lambda s, bias: weights(s) + bias * sum(s), "the inputs have no bias"),
            (lambda s, bias: weights(s) + bias * (len(s) - 1), "one in all"),
            (lambda s, bias: weights(s) + bias * sum(s[1:-1]), "bias of the output layer"),
            (lambda s, bias: weights(s) + bias * sum(s[:-1]), "not of the one that goes in"),
            (lambda s, bias: weights(s) + sum(s[1:]), "also when `bias` is False"),
            (lambda s, bias: sum(s), "number of units"),
            (lambda s, bias: weights(s[:-1]) + bias * sum(s[1:-1]), "the last layer is missing"),
            (lambda s, bias: weights(s) + bias * sum(s[1:]) + 1, "the value is wrong"),
            (lambda s, bias: [weights(s)], "returns a list"),
            (lambda s, bias: None, "`return` missing"),
            (count_destructively, "changes its input"),
        ],
    ),
    check_starts: Proof(
        right=[14, 14.0],
        wrong=[
            (5, "on average"),
            (4.75, "do not add up"),
            (13, "94.5%"),
            (math.log(0.05) / math.log(0.8), "how likely is it that all of them fail"),
            (13.425, "fraction of a network"),
            (1, "a single start"),
            (2, "as rare as the successes"),
            (25, "takes fewer"),
            (15, "how likely is it that all of them fail"),
            ("14", "one number is expected"),
        ],
    ),
    check_largest_lr: Proof(
        right=[2, 1.99],
        wrong=[
            (1.0, "a single step"),
            (0.1, "rate of the lesson"),
            (1.9, "still falls"),
            (1.5, "still falls"),
            (2.1, "already grows"),
            (2.5, "more than doubles"),
            (3, "four times"),
            (-0.1, "climbs"),
            (0.5, "halve the interval"),
            (True, "one number is expected"),
        ],
    ),
    check_cross_entropy: Proof(
        right=[loss_by_hand, loss_by_loop],
        wrong=[
            (lambda z, y: -np.log(picked(softmax(z), y)).mean(), "exp of a logit of 1000"),
            (lambda z, y: -picked(log_of_sums(z - z.max()), y).mean(), "one maximum"),
            (lambda z, y: -np.log(picked(np.exp(log_softmax(z)), y)).mean(), "its log afterwards"),
            (lambda z, y: -np.log(picked(np.exp(log_softmax(z)), y) + 1e-12).mean(), "caps the loss near 28"),
            (lambda z, y: -np.log(picked(np.exp(log_softmax(z)), y) + 1e-8).mean(), "caps the loss near 18"),
            (lambda z, y: picked(log_softmax(z), y).mean(), "sign is flipped"),
            (lambda z, y: -picked(log_softmax(z), y).sum(), "you add up the rows"),
            (lambda z, y: -picked(log_softmax(z, axis=0), y).mean(), "over its classes"),
            (lambda z, y: -picked(log_softmax(z), y).mean() / np.log(2), "base 2"),
            (lambda z, y: -log_softmax(z).mean(), "over all classes"),
            (lambda z, y: -np.exp(picked(log_softmax(z), y)).mean(), "the logarithm is missing"),
            (lambda z, y: -picked(log_softmax(z), y), "one number is expected"),
            (lambda z, y: None, "`return` missing"),
            (loss_in_place, "changes its input"),
        ],
    ),
    check_tanh_gradients: Proof(
        right=[gradients, gradients_by_row],
        wrong=[
            (lambda *a: gradients(*a, slope=np.ones_like), "slope of tanh is missing"),
            (lambda *a: gradients(*a, slope=lambda z: 1.0 * (z > 0)), "slope of a ReLU"),
            (lambda *a: gradients(*a, slope=lambda z: 1 - z**2), "not with its sum z"),
            (lambda *a: gradients(*a, slope=lambda z: 1 - np.tanh(np.tanh(z)) ** 2), "tanh to the output of tanh"),
            (lambda *a: gradients(*a, slope=lambda z: np.tanh(z) * (1 - np.tanh(z))), "slope of the sigmoid"),
            (lambda *a: gradients(*a, scale=len(a[0])), "n times too large"),
            (lambda *a: gradients(*a, scale=2), "twice too large"),
            (lambda *a: gradients(*a, scale=-1), "sign of all four"),
            (bias_means, "every row adds"),
            (with_updated_weights, "already updated"),
            (lambda *a: gradients(*a)[2:] + gradients(*a)[:2], "`dw1`"),
            (lambda *a: gradients(*a)[:2], "4 are expected"),
            (lambda *a: (gradients(*a)[0].T, *gradients(*a)[1:]), "transpose"),
            (lambda *a: (gradients(*a)[0], gradients(*a)[1][None], *gradients(*a)[2:]), "`db1`"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(lesson_00))
    assert len(lesson_00.EXERCISES) == len(PROOFS)


def test_references_agree_with_torch() -> None:
    z, y = 100 * np.random.default_rng(1).normal(size=(5, 4)), np.array([0, 1, 2, 3, 0])
    assert loss_by_loop(z, y) == pytest.approx(functional.cross_entropy(torch.tensor(z), torch.tensor(y)).item())
    w1, b1, w2, b2 = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((4, 3), 4, (2, 4), 2)
    )
    weight, bias = merged_by_hand(w1, b1, w2, b2)
    x = torch.ones(5, 3)
    torch.testing.assert_close(
        functional.linear(x, weight, bias), functional.linear(functional.linear(x, w1, b1), w2, b2)
    )


def test_number_of_starts_is_the_smallest_that_is_enough() -> None:
    assert 1 - 0.8**13 < 0.95 < 1 - 0.8**14


def test_largest_learning_rate_of_the_standardized_neuron() -> None:
    x = np.random.default_rng(0).normal(size=(50, 1))
    inputs = np.column_stack([(x - x.mean()) / x.std(), np.ones(50)])
    curvatures = np.linalg.eigvalsh(inputs.T @ inputs / 50)
    np.testing.assert_allclose(2 / curvatures, [2, 2])


def test_gates_draw_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    check_gates(GATES).show()
    assert "enclose the two points" in capsys.readouterr().out
