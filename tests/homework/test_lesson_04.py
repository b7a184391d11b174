"""Each check of lesson 04 accepts right solutions and names the fault of wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional

from course_utils.homework import lesson_04 as module
from course_utils.homework.engine.proving import Proof, checks_of, complaints


def decompose(fits: Any, truth: Any, noise: float) -> tuple[Any, Any, Any]:
    bias2 = np.mean((fits.mean(0) - truth) ** 2)
    variance = np.mean(fits.var(0))
    return bias2, variance, bias2 + variance + noise


def decompose_by_difference(fits: Any, truth: Any, noise: float) -> list[float]:
    total = ((fits - truth) ** 2).mean()
    variance = ((fits - fits.mean(0)) ** 2).mean()
    return [total - variance, variance, total + noise]


def parts(bias2: Any = None, variance: Any = None, noise: Any = None) -> Any:
    """A decomposition with one part done otherwise."""

    def solution(fits: Any, truth: Any, noise_var: float) -> tuple[Any, Any, Any]:
        a = np.mean((fits.mean(0) - truth) ** 2) if bias2 is None else bias2(fits, truth)
        b = fits.var(0).mean() if variance is None else variance(fits)
        return a, b, a + b + (noise_var if noise is None else noise(noise_var))

    return solution


def ridge(x: Any, y: Any, penalty: float) -> tuple[Any, Any]:
    xc = x - x.mean(0)
    w = np.linalg.pinv(xc.T @ xc + penalty * np.eye(x.shape[1])) @ xc.T @ (y - y.mean())
    return w, y.mean() - x.mean(0) @ w


def ridge_by_unpenalized_column(x: Any, y: Any, penalty: float) -> tuple[Any, float]:
    phi = np.column_stack([np.ones(len(x)), x])
    diagonal = penalty * np.eye(phi.shape[1])
    diagonal[0, 0] = 0
    w = np.linalg.solve(phi.T @ phi + diagonal, phi.T @ y)
    return w[1:], float(w[0])


def ridge_of_sklearn(x: Any, y: Any, penalty: float) -> tuple[Any, float]:
    model = Ridge(alpha=penalty).fit(x, y)
    return model.coef_, float(model.intercept_)


def ridge_all_penalized(x: Any, y: Any, penalty: float) -> tuple[Any, Any]:
    phi = np.column_stack([np.ones(len(x)), x])
    w = np.linalg.pinv(phi.T @ phi + penalty * np.eye(phi.shape[1])) @ phi.T @ y
    return w[1:], w[0]


def ridge_in_place(x: Any, y: Any, penalty: float) -> tuple[Any, Any]:
    mean = x.mean(0)
    x -= mean
    w = ridge(x, y, penalty)[0]
    return w, y.mean() - mean @ w


def through_origin(x: Any, y: Any, penalty: float) -> tuple[Any, float]:
    return np.linalg.pinv(x.T @ x + penalty * np.eye(x.shape[1])) @ x.T @ y, 0.0


def stop(losses: Sequence[float], patience: int) -> tuple[int, int]:
    best, best_epoch = float("inf"), 0
    for epoch, loss in enumerate(losses, 1):
        if loss < best:
            best, best_epoch = loss, epoch
        elif epoch - best_epoch >= patience:
            return best_epoch, epoch
    return best_epoch, len(losses)


def stop_by_prefixes(losses: Sequence[float], patience: int) -> tuple[int, int]:
    last = len(losses)
    for epoch in range(1, len(losses) + 1):
        if epoch - (losses[:epoch].index(min(losses[:epoch])) + 1) == patience:
            last = epoch
            break
    return losses.index(min(losses[:last])) + 1, last


def stop_with_ties(losses: Sequence[float], patience: int) -> tuple[int, int]:
    best, best_epoch = float("inf"), 0
    for epoch, loss in enumerate(losses, 1):
        if loss <= best:
            best, best_epoch = loss, epoch
        elif epoch - best_epoch >= patience:
            return best_epoch, epoch
    return best_epoch, len(losses)


def stop_never_resetting(losses: Sequence[float], patience: int) -> tuple[int, int]:
    best, best_epoch, waited = float("inf"), 0, 0
    for epoch, loss in enumerate(losses, 1):
        if loss < best:
            best, best_epoch = loss, epoch
        else:
            waited += 1
        if waited == patience:
            return best_epoch, epoch
    return best_epoch, len(losses)


def stop_after_rises(losses: Sequence[float], patience: int) -> tuple[int, int]:
    waited = 0
    for epoch in range(2, len(losses) + 1):
        waited = waited + 1 if losses[epoch - 1] >= losses[epoch - 2] else 0
        if waited == patience:
            return losses.index(min(losses[:epoch])) + 1, epoch
    return losses.index(min(losses)) + 1, len(losses)


def smooth(labels: Tensor, n: int, eps: float) -> Tensor:
    return torch.eye(n)[labels] * (1 - eps) + eps / n


def smooth_by_filling(labels: Tensor, n: int, eps: float) -> Tensor:
    targets = torch.full((len(labels), n), eps / n)
    targets[torch.arange(len(labels)), labels] += 1 - eps
    return targets


def smooth_over_the_others(labels: Tensor, n: int, eps: float) -> Tensor:
    targets = torch.full((len(labels), n), eps / (n - 1))
    targets[torch.arange(len(labels)), labels] = 1 - eps
    return targets


def filled(right: Any, other: Any) -> Any:
    def solution(labels: Tensor, n: int, eps: float) -> Tensor:
        hard = functional.one_hot(labels, n).float()
        return torch.where(hard > 0, torch.tensor(float(right(n, eps))), torch.tensor(float(other(n, eps))))

    return solution


def hidden_penalty(x: Any, w: Any, p: float) -> Any:
    return p / (1 - p) * (x**2).mean(0) @ w**2


def hidden_penalty_by_rows(x: Any, w: Any, p: float) -> float:
    return sum(p / (1 - p) * float(((row * w) ** 2).sum()) for row in x) / len(x)


PROOFS: dict[Any, Proof] = {
    module.check_survivor: Proof(
        right=[8, 8.0, torch.tensor(8.0)],
        wrong=[
            (2, "without a correction"),
            (2.667, "the share that is kept"),
            (0.5, "evaluation time"),
            (1.5, "multiplied by p"),
            (0, "dropped ones"),
            (4, "the factor for a survivor"),
            (5, "what must a survivor be"),
            ("8", "one number is expected"),
            (torch.full((4,), 8.0), "one number is expected"),
        ],
    ),
    module.check_decompose: Proof(
        right=[decompose, decompose_by_difference],
        wrong=[
            (parts(bias2=lambda f, t: np.mean((f - t) ** 2)), "the *mean* fit"),
            (parts(bias2=lambda f, t: np.mean(f - t) ** 2), "must not cancel"),
            (parts(bias2=lambda f, t: np.mean(f.mean(0) - t)), "bias *squared*"),
            (parts(bias2=lambda f, t: np.abs(f.mean(0) - t).mean()), "absolute values"),
            (parts(variance=lambda f: f.var(1).mean()), "not over the points"),
            (parts(variance=lambda f: f.var(0, ddof=1).mean()), "by one less"),
            (parts(variance=lambda f: f.var()), "over everything"),
            (parts(variance=lambda f: f.std(0).mean()), "standard deviations"),
            (parts(lambda f, t: ((f.mean(0) - t) ** 2).sum(), lambda f: f.var(0).sum()), "not sums"),
            (parts(noise=lambda _: 0.0), "noise as well"),
            (parts(noise=lambda v: v**2), "don't square"),
            (parts(noise=lambda v: v**0.5), "not its root"),
            (lambda f, t, v: decompose(f, t, v)[:2], "3 are expected"),
            (lambda f, t, v: ((f.mean(0) - t) ** 2, f.var(0), v), "one number is expected"),
        ],
    ),
    module.check_ridge: Proof(
        right=[ridge, ridge_by_unpenalized_column, ridge_of_sklearn],
        wrong=[
            (ridge_all_penalized, "intercept is penalized"),
            (through_origin, "through the origin"),
            (lambda x, y, a: (ridge(x, y, a)[0], y.mean()), "mean of y alone"),
            (lambda x, y, a: (ridge(x, y, a)[0], y.mean() + x.mean(0) @ ridge(x, y, a)[0]), "sign in the intercept"),
            (lambda x, y, a: ridge(x, y, a * len(x)), "multiplied by n"),
            (lambda x, y, a: ridge(x, y, a / 2), "halved"),
            (lambda x, y, a: ridge(x, y, 2 * a), "doubled"),
            (lambda x, y, a: ridge(x, y, a**2), "enters squared"),
            (lambda x, y, a: ridge(x, y, 0.0), "no effect"),
            (ridge_in_place, "in place"),
            (lambda x, y, a: ridge(x, y, a)[::-1], "`w`"),
            (lambda x, y, a: ridge(x, y, a)[0], "2 values are expected"),
            (lambda x, y, a: (ridge(x, y, a)[0][:, None], ridge(x, y, a)[1]), "axes of length 1"),
        ],
    ),
    module.check_find_the_penalty: Proof(
        right=[-1, -0.75, np.float64(-0.9)],
        wrong=[
            (-6, "too little penalty"),
            (-3, "too little penalty"),
            (-1.5, "too little penalty"),
            (0, "too much penalty"),
            (2, "too much penalty"),
            (0.1, "you gave λ itself"),
            (0.15, "you gave λ itself"),
            (100, "between −12 and 12"),
            (float("nan"), "between −12 and 12"),
            ("-1", "one number"),
            (False, "one number"),
        ],
    ),
    module.check_stop_early: Proof(
        right=[stop, stop_by_prefixes],
        wrong=[
            (lambda ls, p: (ls.index(min(ls)) + 1, stop(ls, p)[1]), "never run"),
            (stop_never_resetting, "begin anew"),
            (stop_with_ties, "an equal loss"),
            (stop_after_rises, "epoch before"),
            (lambda ls, p: stop(ls, p + 1), "one epoch too long"),
            (lambda ls, p: stop(ls, max(p - 1, 1)), "one epoch too early"),
            (lambda ls, p: tuple(e - 1 for e in stop(ls, p)), "from 1"),
            (lambda ls, p: (stop(ls, p)[1],) * 2, "the *best* epoch"),
            (lambda ls, p: (ls[stop(ls, p)[0] - 1], stop(ls, p)[1]), "not its loss"),
            (lambda ls, p: stop(ls, p)[::-1], "swapped"),
            (lambda ls, p: stop(ls, p)[0], "2 values are expected"),
            (lambda ls, p: (ls.index(min(ls)) + 1, len(ls)), "best epoch"),
        ],
    ),
    module.check_smooth_labels: Proof(
        right=[smooth, smooth_by_filling],
        wrong=[
            (smooth_over_the_others, "the right one included"),
            (filled(lambda n, e: 1 - e, lambda n, e: e / n), "sum to less than 1"),
            (filled(lambda n, e: 1 + e / n, lambda n, e: e / n), "gives ε away first"),
            (filled(lambda n, e: 1, lambda n, e: e / n), "come from the right class"),
            (filled(lambda n, e: 1, lambda n, e: e), "each class gets all of ε"),
            (filled(lambda n, e: 1 - e, lambda n, e: 0), "nobody got it"),
            (filled(lambda n, e: 1, lambda n, e: 0), "hard targets"),
            (lambda y, n, e: smooth(y, n, 1 - e), "changed places"),
            (lambda y, n, e: torch.eye(n)[y] * (1 - e) + e / len(y), "number of samples"),
            (lambda y, n, e: smooth(y, n, e).T, "transpose"),
            (lambda y, n, e: smooth(y, n, e).double(), "dtype is float64"),
            (lambda y, n, e: smooth(y, n, e).argmax(1), "An axis was lost"),
        ],
    ),
    module.check_dropout_penalty: Proof(
        right=[hidden_penalty, hidden_penalty_by_rows],
        wrong=[
            (lambda x, w, p: p * (1 - p) * (x**2).mean(0) @ w**2, "variance of the mask alone"),
            (lambda x, w, p: (1 - p) / max(p, 1e-9) * (x**2).mean(0) @ w**2, "upside down"),
            (lambda x, w, p: p * (x**2).mean(0) @ w**2, "not p alone"),
            (lambda x, w, p: p / (1 - p) ** 2 * (x**2).mean(0) @ w**2, "too many"),
            (lambda x, w, p: p / (1 - p) * w @ w, "no plain L2"),
            (lambda x, w, p: p / (1 - p) * (x**2).sum(0) @ w**2, "mean over the rows"),
            (lambda x, w, p: p / (1 - p) * ((x * w) ** 2).mean(), "over the features it is a sum"),
            (lambda x, w, p: p / (1 - p) * (x.mean(0) ** 2) @ w**2, "not the square of the mean"),
            (lambda x, w, p: p / (1 - p) * ((x @ w) ** 2).mean(), "independent"),
            (lambda x, w, p: p / (1 - p) * (x**2).mean(0) @ np.abs(w), "enter squared"),
            (lambda x, w, p: p / (1 - p) * (x**2).mean(0) * w**2, "one number is expected"),
            (lambda x, w, p: -hidden_penalty(x, w, p), "sign is flipped"),
        ],
    ),
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Any) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))


def test_each_exercise_has_its_check() -> None:
    assert {check(...).exercise for check in checks_of(module)} == set(module.EXERCISES)


@pytest.mark.parametrize("verdict", [module.check_ridge(ridge), module.check_find_the_penalty(-1)], ids=str)
def test_a_right_answer_draws_its_figure_with_a_description(verdict: Any) -> None:
    assert verdict.figure is not None
    figure, alt = verdict.figure()
    assert figure.axes
    assert len(alt) > 40


@pytest.mark.parametrize("answer", [2, 0.5, 4, 5])
def test_a_wrong_prediction_does_not_show_the_answer(answer: float) -> None:
    assert "8" not in str(module.check_survivor(answer))
