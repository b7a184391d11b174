"""Each check of lesson 05 accepts right solutions and names the fault of wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from course_utils.homework import lesson_05 as module
from course_utils.homework.engine.proving import Proof, checks_of, complaints


def sgd(w: Tensor, g: Tensor, m: Tensor, lr: float, beta: float, nesterov: bool) -> tuple[Tensor, Tensor]:
    m = beta * m + g
    return (w - lr * (g + beta * m), m) if nesterov else (w - lr * m, m)


def sgd_by_looking_ahead_twice(w: Tensor, g: Tensor, m: Tensor, lr: float, beta: float, nesterov: bool) -> list[Tensor]:
    """Nesterov's step is that of one more round of momentum with the same gradient."""
    once = torch.add(g, m, alpha=beta)
    twice = torch.add(g, once, alpha=beta)
    return [w.sub(twice if nesterov else once, alpha=lr), once]


def sgd_wrong(step: Callable[..., Tensor], new: Callable[..., Tensor] = lambda g, m, beta, lr: beta * m + g) -> Any:
    """A step with its own rule: step(g, old m, new m, beta, nesterov, lr)."""

    def solution(w: Tensor, g: Tensor, m: Tensor, lr: float, beta: float, nesterov: bool) -> tuple[Tensor, Tensor]:
        after = new(g, m, beta, lr)
        return w - step(g, m, after, beta, nesterov, lr), after

    return solution


def right_step(g: Tensor, m: Tensor, new: Tensor, beta: float, nesterov: bool, lr: float) -> Tensor:
    return lr * (g + beta * new if nesterov else new)


def sgd_in_place(w: Tensor, g: Tensor, m: Tensor, lr: float, beta: float, nesterov: bool) -> tuple[Tensor, Tensor]:
    m.mul_(beta).add_(g)
    return w - lr * (g + beta * m if nesterov else m), m


def adamw(
    w: Any, g: Any, m: Any, v: Any, t: int, lr: float, betas: Any, eps: float, decay: float, **other: Any
) -> tuple[Any, Any, Any]:
    """AdamW, with room for one thing done otherwise."""
    b1, b2 = betas
    if "coupled" in other:
        g = other["coupled"](g, w, decay)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * other.get("square", torch.square)(g)
    c1, c2 = other.get("corrections", lambda b1, b2, t: (1 - b1**t, 1 - b2**t))(b1, b2, t)
    bottom = other.get("bottom", lambda v, eps: v.sqrt() + eps)(v / c2, eps)
    w = w * other.get("shrink", lambda lr, decay: 1 - lr * decay)(lr, decay)
    return w - other.get("sign", 1) * lr * (m / c1) / bottom, m, v


def adamw_by_folding(
    w: Any, g: Any, m: Any, v: Any, t: int, lr: float, betas: Any, eps: float, decay: float
) -> tuple[Any, Any, Any]:
    """The order of torch's own code: the correction of v moves into the step size."""
    m, v = torch.lerp(m, g, 1 - betas[0]), torch.lerp(v, g * g, 1 - betas[1])
    bottom = v.sqrt() / math.sqrt(1 - betas[1] ** t) + eps
    return w - lr * decay * w - lr / (1 - betas[0] ** t) * m / bottom, m, v


def adamw_but(**other: Any) -> Any:
    return lambda *arguments: adamw(*arguments, **other)


def adamw_decaying_last(*arguments: Any) -> tuple[Any, Any, Any]:
    w, g, m, v, t, lr, betas, eps, decay = arguments
    w, m, v = adamw(w, g, m, v, t, lr, betas, eps, 0.0)
    return w * (1 - lr * decay), m, v


def adamw_keeping_corrected(*arguments: Any) -> tuple[Any, Any, Any]:
    (w, m, v), t, (b1, b2) = adamw(*arguments), arguments[4], arguments[6]
    return w, m / (1 - b1**t), v / (1 - b2**t)


def adamw_in_place(w: Any, *rest: Any) -> tuple[Any, Any, Any]:
    w *= 1 - rest[4] * rest[7]
    return adamw(*(w, *rest[:-1], 0.0))


def schedule(step: int, n_warmup: int, n_steps: int, start: float) -> float:
    if step < n_warmup:
        return start + (1 - start) * step / n_warmup
    done = min((step - n_warmup) / (n_steps - n_warmup), 1.0)
    return 0.5 * (1 + math.cos(math.pi * done))


def schedule_by_squares(step: int, n_warmup: int, n_steps: int, start: float) -> Any:
    if step >= n_steps:
        return 0
    if step >= n_warmup:
        return np.cos(np.pi / 2 * (step - n_warmup) / (n_steps - n_warmup)) ** 2
    return np.interp(step, [0, n_warmup], [start, 1.0])


def falling(fall: Callable[[float], float]) -> Any:
    def solution(step: int, n_warmup: int, n_steps: int, start: float) -> float:
        if step < n_warmup:
            return schedule(step, n_warmup, n_steps, start)
        return fall((step - n_warmup) / (n_steps - n_warmup))

    return solution


def cosine_of(share: Callable[[int, int, int], float]) -> Any:
    def solution(step: int, n_warmup: int, n_steps: int, start: float) -> float:
        if step < n_warmup:
            return schedule(step, n_warmup, n_steps, start)
        return 0.5 * (1 + math.cos(math.pi * min(share(step, n_warmup, n_steps), 1.0)))

    return solution


def warming(rise: Callable[[int, int, float], float]) -> Any:
    return lambda step, n_warmup, n_steps, start: (
        rise(step, n_warmup, start) if step < n_warmup else schedule(step, n_warmup, n_steps, start)
    )


def half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def stable_rate(gradient: Any, w: Tensor) -> float:
    v = w / w.norm()
    for _ in range(300):
        change = gradient(w + v) - gradient(w)
        v = change / change.norm()
    return 2 / float(change.norm())


def stable_rate_by_products(gradient: Any, w: Tensor) -> float:
    """Hessian-vector products by autograd, and the Rayleigh quotient at the end."""
    w = w.clone().requires_grad_()
    v = torch.linspace(1, 2, len(w), dtype=w.dtype)
    for _ in range(300):
        (product,) = torch.autograd.grad(gradient(w), w, v)
        curvature, v = (v @ product / (v @ v)).item(), product / product.norm()
    return 2 / curvature


def from_curvatures(rate: Callable[[Tensor], Tensor]) -> Any:
    def solution(gradient: Any, w: Tensor) -> float:
        hessian = torch.autograd.functional.jacobian(gradient, w)
        return rate(torch.linalg.eigvalsh(hessian)).item()

    return solution


def stable_rate_without_difference(gradient: Any, w: Tensor) -> float:
    v = w / w.norm()
    for _ in range(400):
        change = gradient(v)
        v = change / change.norm()
    return 2 / float(change.norm())


def stable_rate_without_norm(gradient: Any, w: Tensor) -> float:
    v = w
    for _ in range(6):
        v = gradient(w + v) - gradient(w)
    return 2 / float(v.norm())


PROOFS: dict[Any, Proof] = {
    module.check_largest_rate: Proof(
        right=[0.01, 2 / 200],
        wrong=[
            (0.02, "second derivative"),
            (0.005, "this is 1/L"),
            (0.25, "the steepest one decides"),
            (0.5, "two things"),
            (0.125, "1 over the curvature"),
            (2 / 208, "*best* rate"),
            (25, "condition number"),
            (200, "something over it"),
            (0.1, "what does one step make of w₂"),
            ("2/L", "one number is expected"),
        ],
    ),
    module.check_first_step: Proof(
        right=[0.1, 0.01 * 5 / math.sqrt(0.01 * 25)],
        wrong=[
            (0.01, "this would be Adam"),
            (0.05, "plain SGD"),
            (0.2, "divided by v"),
            (-0.1, "a length"),
            (0.001, "denominator"),
            (0.5, "size cancels"),
            (1.0, "under a root"),
            (0, "*before* the step"),
            (0.3, "compute v"),
            ([0.1], "one number is expected"),
        ],
    ),
    module.check_sgd_step: Proof(
        right=[sgd, sgd_by_looking_ahead_twice],
        wrong=[
            (sgd_wrong(right_step, lambda g, m, beta, lr: beta * m + (1 - beta) * g), "running-mean convention"),
            (
                sgd_wrong(
                    lambda g, m, new, beta, nesterov, lr: lr * g + beta * new if nesterov else new,
                    lambda g, m, beta, lr: beta * m + lr * g,
                ),
                "not into m",
            ),
            (sgd_wrong(right_step, lambda g, m, beta, lr: m + beta * g), "share of the *old* m"),
            (sgd_wrong(lambda g, m, new, beta, nesterov, lr: lr * new), "plain step of momentum"),
            (sgd_wrong(lambda g, m, new, beta, nesterov, lr: lr * (g + beta * new)), "also with `nesterov=False`"),
            (sgd_wrong(lambda g, m, new, b, nesterov, lr: lr * (b * new if nesterov else new)), "two parts"),
            (sgd_wrong(lambda g, m, new, b, nesterov, lr: lr * (g + new if nesterov else new)), "weighted by β"),
            (sgd_wrong(lambda g, m, new, b, nesterov, lr: lr * (new + b * new if nesterov else new)), "not m itself"),
            (sgd_wrong(lambda g, m, new, b, nesterov, lr: lr * (g + b * m if nesterov else m)), "update it first"),
            (sgd_wrong(lambda *a: -right_step(*a)), "uphill"),
            (lambda *a: sgd(*a)[::-1], "swapped"),
            (
                lambda w, g, m, lr, b, n: (sgd(w, g, m, lr, b, n)[0], (w - sgd(w, g, m, lr, b, n)[0]) / lr),
                "m stays βm + g",
            ),
            (sgd_in_place, "in place"),
            (lambda *a: sgd(*a)[0], "2 values are expected"),
        ],
    ),
    module.check_adamw_step: Proof(
        right=[adamw, adamw_by_folding],
        wrong=[
            (adamw_but(corrections=lambda b1, b2, t: (1, 1)), "m and v are not corrected"),
            (adamw_but(corrections=lambda b1, b2, t: (1, 1 - b2**t)), "only v is"),
            (adamw_but(corrections=lambda b1, b2, t: (1 - b1**t, 1)), "only m is"),
            (adamw_but(corrections=lambda b1, b2, t: (1 - b1 ** (t + 1), 1 - b2 ** (t + 1))), "one step ahead"),
            (
                adamw_but(corrections=lambda b1, b2, t: (1 - b1 ** max(t - 1, 1), 1 - b2 ** max(t - 1, 1))),
                "one step behind",
            ),
            (adamw_but(corrections=lambda b1, b2, t: (1 - b1 ** (t - 1), 1 - b2 ** (t - 1))), "NaN"),
            (adamw_keeping_corrected, "for this step only"),
            (
                lambda *a: adamw(*a, coupled=lambda g, w, decay: g + decay * w, shrink=lambda lr, decay: 1.0),
                "Adam with L2",
            ),
            (adamw_but(shrink=lambda lr, decay: 1.0), "not shrunk"),
            (adamw_but(shrink=lambda lr, decay: 1 - decay), "a schedule must reach it"),
            (adamw_but(shrink=lambda lr, decay: 1 + lr * decay), "weights grow"),
            (adamw_decaying_last, "the step is shrunk as well"),
            (lambda *a: adamw(*(*a[:6], a[6][::-1], *a[7:])), "changed places"),
            (adamw_but(square=torch.abs), "*squared* gradients"),
            (adamw_but(bottom=lambda v, eps: (v + eps).sqrt()), "ε stands inside"),
            (adamw_but(bottom=lambda v, eps: v.sqrt()), "0/0"),
            (adamw_but(bottom=lambda v, eps: v + eps), "root of v"),
            (adamw_but(sign=-1), "uphill"),
            (adamw_in_place, "in place"),
            (lambda *a: adamw(*a)[0], "3 values are expected (w, m, v)"),
        ],
    ),
    module.check_warmup_cosine: Proof(
        right=[schedule, schedule_by_squares],
        wrong=[
            (warming(lambda t, n, start: t / n), "not at 0"),
            (warming(lambda t, n, start: start + (1 - start) * (t + 1) / n), "one step early"),
            (warming(lambda t, n, start: 1.0), "no warm-up"),
            (cosine_of(lambda t, n_warmup, n: t / n), "begins at step 0"),
            (cosine_of(lambda t, n_warmup, n: (t - n_warmup) / n), "only `n_steps − n_warmup`"),
            (falling(lambda s: 0.5 * (1 + math.cos(math.pi * s))), "rises again"),
            (falling(lambda s: 0.5 * (1 + math.cos(2 * math.pi * min(s, 1)))), "whole period"),
            (falling(lambda s: math.cos(math.pi / 2 * min(s, 1))), "quarter of a period"),
            (falling(lambda s: math.cos(math.pi * min(s, 1))), "falls to −1"),
            (falling(lambda s: 1 - min(s, 1)), "straight line"),
            (falling(lambda s: 1 - half_cosine(s)), "upside down"),
            (falling(lambda s: 0.5 * (1 + math.cos(180 * min(s, 1)))), "the factor at step"),
            (
                lambda t, n_warmup, n, start: schedule(t, n_warmup, n, start) if n_warmup else t / n_warmup,
                "ZeroDivision",
            ),
            (lambda *a: None, "return"),
        ],
    ),
    module.check_find_beta: Proof(
        right=[0.81, 0.8, 0.82],
        wrong=[
            (0, "458 steps: too little"),
            (0.5, "too little momentum"),
            (0.7, "too little momentum"),
            (0.9, "132 steps: too much"),
            (0.99, "too much momentum"),
            (0.86, "too much momentum"),
            (1, "between 0 and 1"),
            (-0.5, "between 0 and 1"),
            (float("nan"), "between 0 and 1"),
            ("0.8", "one number"),
            (True, "one number"),
        ],
    ),
    module.check_largest_stable_rate: Proof(
        right=[stable_rate, stable_rate_by_products],
        wrong=[
            (lambda gradient, w: stable_rate(gradient, w) / 2, "1/L, the safe rate"),
            (from_curvatures(lambda c: c[-1]), "L itself"),
            (from_curvatures(lambda c: 2 / c[0]), "flattest direction"),
            (from_curvatures(lambda c: 2 / (c[0] + c[-1])), "best rate"),
            (from_curvatures(lambda c: 2 / c.sum()), "*sum* of all curvatures"),
            (from_curvatures(lambda c: 2 / c.mean()), "*mean* curvature"),
            (from_curvatures(lambda c: 2 / c[-1] ** 2), "multiplies by L once"),
            (stable_rate_without_difference, "minimum is not at 0"),
            (lambda g, w: 2 / (g(w + w / w.norm()) - g(w)).norm().item(), "one round is not enough"),
            (stable_rate_without_norm, "value is wrong"),
            (lambda g, w: from_curvatures(lambda c: c[-1])(g, w) and torch.ones(3), "one number is expected"),
            (lambda g, w: None, "return"),
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


@pytest.mark.parametrize("verdict", [module.check_warmup_cosine(schedule), module.check_find_beta(0.81)], ids=str)
def test_a_right_answer_draws_its_figure_with_a_description(verdict: Any) -> None:
    assert verdict.figure is not None
    figure, alt = verdict.figure()
    assert figure.axes
    assert len(alt) > 40


@pytest.mark.parametrize("answer", [0.02, 0.005, 0.25, 0.3])
def test_a_wrong_prediction_does_not_show_the_answer(answer: float) -> None:
    assert "0.01" not in str(module.check_largest_rate(answer))
