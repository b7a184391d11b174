"""Each check of lesson 03 accepts right solutions and names the fault of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from course_utils.homework import lesson_03 as module
from course_utils.homework.engine.proving import Proof, checks_of, complaints


def norm2d(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5, axes: Any = (0, 2, 3), **options: Any) -> Tensor:
    var = x.var(dim=axes, keepdim=True, correction=options.get("correction", 0))
    std = var.sqrt() + eps if options.get("outside") else (var + eps) ** options.get("power", 0.5)
    shape = options.get("shape", (-1, 1, 1))
    return (x - x.mean(dim=axes, keepdim=True)) / std * gamma.view(shape) + beta.view(shape)


def norm2d_as_rows(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    rows = x.movedim(1, -1).reshape(-1, x.shape[1])
    mean = rows.mean(0)
    var = ((rows - mean) ** 2).mean(0)
    out = (rows - mean) / torch.sqrt(var + eps) * gamma + beta
    return out.reshape(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1)


def norm2d_wrong(**options: Any) -> Any:
    return lambda *arguments: norm2d(*arguments, **options)


def norm2d_in_place(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    x -= x.mean(dim=(0, 2, 3), keepdim=True)
    return norm2d(x, gamma, beta, eps)


def running(mean: Tensor, var: Tensor, x: Tensor, m: float) -> tuple[Tensor, Tensor]:
    return mean + m * (x.mean(0) - mean), var + m * (x.var(0) - var)


def running_by_sums(mean: Tensor, var: Tensor, x: Tensor, m: float) -> list[Tensor]:
    n = len(x)
    batch = sum(x) / n
    spread = ((x - batch) ** 2).sum(0) / (n - 1)
    return [(1 - m) * mean + m * batch, (1 - m) * var + m * spread]


def running_in_place(mean: Tensor, var: Tensor, x: Tensor, m: float) -> tuple[Tensor, Tensor]:
    mean.mul_(1 - m).add_(m * x.mean(0))
    return mean, running(mean, var, x, m)[1]


def running_around_new(mean: Tensor, var: Tensor, x: Tensor, m: float) -> tuple[Tensor, Tensor]:
    mean = mean + m * (x.mean(0) - mean)
    return mean, (1 - m) * var + m * ((x - mean) ** 2).sum(0) / (len(x) - 1)


def fold(w: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float) -> Any:
    s = gamma / torch.sqrt(var + eps)
    return w * s, b + w @ (beta - s * mean)


def fold_by_diagonal(w: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float) -> Any:
    new = w @ torch.diag(gamma * (var + eps).rsqrt())
    return new, b - new @ mean + w @ beta


def scale(gamma: Tensor, var: Tensor, eps: float) -> Tensor:
    return gamma / torch.sqrt(var + eps)


FOLDS: list[tuple[Any, str]] = [
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e)[:, None], (b - m) * scale(g, v, e) + t), "the lesson's formula"),
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e)[:, None], fold(w, b, g, t, m, v, e)[1]), "rows of the weight"),
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e), b + t - scale(g, v, e) * m), "passes through the weight"),
    (
        lambda w, b, g, t, m, v, e: (w * scale(g, v, e), b + w * scale(g, v, e) @ (t - m * scale(g, v, e))),
        "the shift is scaled twice",
    ),
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e), b + w @ t), "running mean is missing"),
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e), b + w @ (t - m)), "unscaled"),
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e), b + w @ (t + scale(g, v, e) * m)), "subtracted, not added"),
    (lambda w, b, g, t, m, v, e: (w * scale(g, v, e), w @ (t - scale(g, v, e) * m)), "own bias is lost"),
    (lambda w, b, g, t, m, v, e: (w * g / (v + e), b + w @ (t - g / (v + e) * m)), "square root is missing"),
    (lambda w, b, g, t, m, v, e: fold(w, b, g, t, m, v, 0.0), "ε is missing"),
    (lambda *a: (fold(*a)[0].T, fold(*a)[1]), "transposed"),
    (lambda *a: fold(*a)[0], "2 values are expected (weight, bias)"),
    (lambda *a: None, "return"),
]


def layernorm(grad_out: Tensor, x: Tensor, gamma: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    std = torch.sqrt(x.var(1, correction=0, keepdim=True) + eps)
    x_hat = (x - x.mean(1, keepdim=True)) / std
    g = grad_out * gamma
    grad_x = (g - g.mean(1, keepdim=True) - x_hat * (g * x_hat).mean(1, keepdim=True)) / std
    return grad_x, (grad_out * x_hat).sum(0), grad_out.sum(0)


def layernorm_by_jacobian(grad_out: Tensor, x: Tensor, gamma: Tensor, eps: float = 1e-5) -> Any:
    n, (_, _, grad_beta) = x.shape[1], layernorm(grad_out, x, gamma, eps)
    rows, hats = [], []
    for row, upstream in zip(x, grad_out, strict=True):
        std = torch.sqrt(((row - row.mean()) ** 2).mean() + eps)
        hat = (row - row.mean()) / std
        jacobian = (torch.eye(n).double() - 1 / n - torch.outer(hat, hat) / n) / std
        rows.append((gamma * upstream) @ jacobian)
        hats.append(hat)
    return torch.stack(rows), (grad_out * torch.stack(hats)).sum(0), grad_beta


def layernorm_wrong(name: str) -> Any:
    def solution(grad_out: Tensor, x: Tensor, gamma: Tensor, eps: float = 1e-5) -> tuple[Tensor, ...]:
        dim = 0 if name == "batchnorm" else 1
        std = torch.sqrt(x.var(dim, correction=int(name == "unbiased"), keepdim=True) + eps)
        x_hat = (x - x.mean(dim, keepdim=True)) / std
        g = grad_out if name in ("no gamma", "gamma outside") else grad_out * gamma
        back = 0 if name in ("batchnorm", "axis") else 1
        mean, var = g.mean(back, keepdim=True), x_hat * (g * x_hat).mean(back, keepdim=True)
        grad_x = (g - mean * (name not in ("direct", "no mean")) - var * (name not in ("direct", "no var"))) / std
        grad_x = grad_x * {"gamma outside": gamma, "no std": std}.get(name, 1.0)
        grad_gamma, grad_beta = grad_out * x_hat, grad_out
        if name == "features":
            return grad_x, grad_gamma.sum(1), grad_beta.sum(1)
        if name == "means":
            return grad_x, grad_gamma.mean(0), grad_beta.mean(0)
        return grad_x, grad_out.sum(0) if name == "no x_hat" else grad_gamma.sum(0), grad_beta.sum(0)

    return solution


PROOFS: dict[Any, Proof] = {
    module.check_batch_of_three: Proof(
        right=[1.41, 2**0.5, torch.tensor(1.4142)],
        wrong=[
            (1.155, "divides by n"),
            (-1.414, "above the mean"),
            (1, "batch of two"),
            (4000, "left the standard deviation out"),
            (6000, "as it came in"),
            (2.121, "did not subtract the mean"),
            (0.0005, "divided by the variance"),
            (0, "does not lie there"),
            (-0.7071, "the two zeros"),
            (1.9, "write down"),
            ("1.41", "one number is expected"),
            (torch.ones(3), "one number is expected"),
        ],
    ),
    module.check_batchnorm2d: Proof(
        right=[norm2d, norm2d_as_rows],
        wrong=[
            (norm2d_wrong(correction=1), "biased variance"),
            (norm2d_wrong(axes=(2, 3)), "InstanceNorm"),
            (norm2d_wrong(axes=(0,)), "pixels of a channel share"),
            (norm2d_wrong(axes=(1, 2, 3)), "LayerNorm"),
            (norm2d_wrong(axes=(0, 1, 2, 3)), "one mean for everything"),
            (norm2d_wrong(outside=True), "outside the root"),
            (norm2d_wrong(power=1.0), "square root is missing"),
            (norm2d_wrong(shape=(-1,)), "along the width"),
            (lambda x, gamma, beta, eps: norm2d(x, gamma, beta, 0.0), "gives NaN"),
            (lambda x, gamma, beta, eps: norm2d(x, gamma, beta), "eps is not used"),
            (lambda x, gamma, beta, eps: norm2d(x, gamma**0, beta * 0, eps), "are not used"),
            (norm2d_in_place, "in place"),
            (lambda x, gamma, beta, eps: norm2d(x, gamma, beta, eps).float(), "dtype is float32"),
            (lambda x, gamma, beta, eps: None, "return"),
        ],
    ),
    module.check_update_running: Proof(
        right=[running, running_by_sums],
        wrong=[
            (lambda m, v, x, a: (m + a * (x.mean(0) - m), v + a * (x.var(0, correction=0) - v)), "divided by n − 1"),
            (lambda m, v, x, a: running(m, v, x, 1 - a), "share of the new batch"),
            (lambda m, v, x, a: (a * m + (1 - a) * x.mean(0), a * v + (1 - a) * x.var(0, correction=0)), "two things"),
            (lambda m, v, x, a: (m + a * x.mean(0), v + a * x.var(0)), "add up to 1"),
            (
                lambda m, v, x, a: (running(m, v, x, a)[0], ((1 - a) * v.sqrt() + a * x.std(0)) ** 2),
                "averages variances",
            ),
            (running_around_new, "around the running mean"),
            (lambda m, v, x, a: (x.mean(0), x.var(0)), "momentum = 1"),
            (lambda *arguments: running(*arguments)[::-1], "swapped"),
            (running_in_place, "in place"),
            (lambda m, v, x, a: running(m, v, x, 0.1), "running mean"),
            (lambda *arguments: running(*arguments)[0], "2 values are expected"),
            (lambda m, v, x, a: running(m, v, x.T, a), "RuntimeError"),
        ],
    ),
    module.check_quick_and_quiet: Proof(
        right=[0.21, 0.206, 0.215],
        wrong=[
            (0.1, "too slow: after 20 batches it has made 87.8%"),
            (0.2, "too slow"),
            (0.22, "already with batch 19"),
            (0.5, "already with batch 7"),
            (1, "already with batch 1"),
            (0.79, "share of the *old* value"),
            (0, "between 0 and 1"),
            (-0.21, "between 0 and 1"),
            (21, "between 0 and 1"),
            (float("nan"), "between 0 and 1"),
            ("0.21", "one number"),
            (True, "one number"),
            ([0.21], "one number"),
        ],
    ),
    module.check_centre_backward: Proof(
        right=[
            lambda g: g - g.mean(dim=0),
            lambda g: (torch.eye(len(g), dtype=g.dtype) - 1 / len(g)) @ g,
        ],
        wrong=[
            (lambda g: g, "direct way"),
            (lambda g: g - g.mean(1, keepdim=True), "over the features"),
            (lambda g: g - g.mean(), "centred by itself"),
            (lambda g: g - g.sum(0), "factor 1/n"),
            (lambda g: g + g.mean(0), "wrong sign"),
            (lambda g: -g.mean(0) * torch.ones_like(g), "direct way is missing"),
            (lambda g: g * (len(g) - 1) / len(g), "moves all rows"),
            (lambda g: g.mean(0) - g, "the sign is flipped"),
            (lambda g: 2 * (g - g.mean(0)), "2 times"),
            (lambda g: g.sub_(g.mean(0)), "in place"),
            (lambda g: g.mean(0), "An axis was lost"),
        ],
    ),
    module.check_fold_forward: Proof(right=[fold, fold_by_diagonal], wrong=FOLDS),
    module.check_layernorm_backward: Proof(
        right=[layernorm, layernorm_by_jacobian],
        wrong=[
            (layernorm_wrong("gamma outside"), "differs within one"),
            (layernorm_wrong("no gamma"), "must pass γ"),
            (layernorm_wrong("batchnorm"), "this is BatchNorm"),
            (layernorm_wrong("axis"), "backward means run over the batch"),
            (layernorm_wrong("direct"), "direct way"),
            (layernorm_wrong("no var"), "through the variance is missing"),
            (layernorm_wrong("no mean"), "through the mean is missing"),
            (layernorm_wrong("no std"), "division by the standard deviation"),
            (layernorm_wrong("unbiased"), "not by one less"),
            (layernorm_wrong("features"), "one number a feature"),
            (layernorm_wrong("means"), "sums over the samples"),
            (layernorm_wrong("no x_hat"), "`gradient by γ`"),
            (lambda g, x, gamma, eps: layernorm(g, x, gamma), "differ"),
            (lambda *arguments: layernorm(*arguments)[0], "3 values are expected"),
        ],
    ),
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Any) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))


def test_each_exercise_has_its_check() -> None:
    answered = {check(...).exercise for check in checks_of(module)}
    assert answered == set(module.EXERCISES)


def test_a_right_answer_draws_its_figure_with_a_description() -> None:
    verdict = module.check_quick_and_quiet(0.21)
    assert verdict.figure is not None
    figure, alt = verdict.figure()
    assert figure.axes
    assert len(alt) > 40


def test_a_wrong_prediction_does_not_show_the_answer() -> None:
    assert "1.41" not in str(module.check_batch_of_three(1.9))
