"""The checks of lesson 02 accept right solutions and name what is wrong with the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.homework import lesson_02
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.homework.lesson_02 import (
    check_different_rows,
    check_factor,
    check_gain,
    check_orthogonal,
    check_rule_std,
    check_sizes,
    check_std_of_sum,
)


def rule_std(weight: Any, rule: Any, *, swap: bool = False, two: float = 2.0, glorot: float = 2.0) -> float:
    m, n = weight.shape[::-1] if swap else weight.shape
    return math.sqrt({"lecun": 1 / n, "glorot": glorot / (n + m), "he": two / n}[rule])


def rule_by_torch(weight: Any, rule: Any) -> float:
    n, m = nn.init._calculate_fan_in_and_fan_out(weight)
    if rule == "glorot":
        return float(((n + m) / 2) ** -0.5)
    return float(nn.init.calculate_gain("relu" if rule == "he" else "linear") / n**0.5)


def he_outside(weight: Any, rule: Any) -> float:
    return 2 / math.sqrt(weight.shape[1]) if rule == "he" else rule_std(weight, rule)


def lecun_default(weight: Any, rule: Any) -> float:
    return 1 / math.sqrt(3 * weight.shape[1]) if rule == "lecun" else rule_std(weight, rule)


def glorot_by_fan_in(weight: Any, rule: Any) -> float:
    return rule_std(weight, "lecun" if rule == "glorot" else rule)


def sizes(
    widths: Any, stds: Any, square: Any, *, shift: int = 0, relu: float = 0.5, power: int = 2, first: float = 1.0
) -> Any:
    found, passed = [], first * square
    for k, std in enumerate(stds):
        found.append(widths[k + shift] * std**power * passed)
        passed = relu * found[-1]
    return torch.tensor(found, dtype=torch.float64)


def sizes_by_product(widths: Any, stds: Any, square: Any) -> Any:
    factors = torch.tensor([n * std**2 / 2 for n, std in zip(widths[:-1], stds, strict=True)], dtype=torch.float64)
    return 2 * square * factors.cumprod(dim=0)


def sizes_without_memory(widths: Any, stds: Any, square: Any) -> Any:
    return torch.tensor([n * s**2 * square for n, s in zip(widths[:-1], stds, strict=True)], dtype=torch.float64)


def sizes_without_width(widths: Any, stds: Any, square: Any) -> Any:
    return sizes([1] * len(widths), stds, square)


def popping(widths: Any, stds: Any, square: Any) -> Any:
    found = sizes(widths, stds, square)
    widths.pop()
    return found


def rms(h: Any) -> Any:
    return (h**2).mean().sqrt()


def by_qr(out: int, n: int, gain: float, generator: Any) -> Any:
    tall = torch.randn(max(out, n), min(out, n), generator=generator)
    q, r = torch.linalg.qr(tall)
    q = gain * q * r.diagonal().sign()
    return q if out >= n else q.T


def by_svd(out: int, n: int, gain: float, generator: Any) -> Any:
    u, _, vh = torch.linalg.svd(torch.randn(out, n, generator=generator), full_matrices=False)
    return gain * u @ vh


def by_torch(out: int, n: int, gain: float, generator: Any) -> Any:
    return nn.init.orthogonal_(torch.empty(out, n), gain=gain, generator=generator)


def unsigned(out: int, n: int, gain: float, generator: Any) -> Any:
    q, _ = torch.linalg.qr(torch.randn(max(out, n), min(out, n), generator=generator))
    return gain * (q if out >= n else q.T)


def not_turned(out: int, n: int, gain: float, generator: Any) -> Any:
    q, r = torch.linalg.qr(torch.randn(out, n, generator=generator))
    return gain * q * r.diagonal().sign()


def from_the_global_stream(out: int, n: int, gain: float, generator: Any) -> Any:
    return by_svd(out, n, gain, None)


def always_the_same(out: int, n: int, gain: float, generator: Any) -> Any:
    return by_qr(out, n, gain, torch.Generator().manual_seed(3))


def unit_rows(out: int, n: int, gain: float, generator: Any) -> Any:
    return gain * nn.functional.normalize(torch.randn(out, n, generator=generator), dim=1)


def gaussian(out: int, n: int, gain: float, generator: Any) -> Any:
    return gain * torch.randn(out, n, generator=generator) / math.sqrt(n)


def divided(out: int, n: int, gain: float, generator: Any) -> Any:
    return by_qr(out, n, gain / math.sqrt(n), generator)


def as_nan(out: int, n: int, gain: float, generator: Any) -> Any:
    return by_qr(out, n, gain, generator) * math.nan


def nothing(out: int, n: int, gain: float, generator: Any) -> Any:
    by_qr(out, n, gain, generator)


PROOFS: dict[Callable[..., Any], Proof] = {
    check_std_of_sum: Proof(
        right=[0.5, math.sqrt(0.3**2 + 0.4**2)],
        wrong=[
            (0.4, "std of the inputs"),
            (0.25, "variance of z"),
            (0.16, "variance of the inputs"),
            (0.3, "mean of the inputs"),
            (0.7, "do not add up"),
            (1, "does not make one"),
            (14, "shrink with n"),
            (0.5 / 28, "784 products"),
            (0.707, "twice the variance"),
            (2.0, "Var(z) = n·Var(w)·E[x²]"),
            ("0.5", "one number is expected"),
        ],
    ),
    check_different_rows: Proof(
        right=[100, 100.0],
        wrong=[
            (1, "comes back through them"),
            (10, "ten classes"),
            (0, "one of 1, 10, 100"),
            (50, "one of 1, 10, 100"),
            (99, "one of 1, 10, 100"),
            (784, "one of 1, 10, 100"),
            ("100", "one of 1, 10, 100"),
            ([100], "one of 1, 10, 100"),
        ],
    ),
    check_rule_std: Proof(
        right=[rule_std, rule_by_torch],
        wrong=[
            (lambda w, rule: rule_std(w, rule, swap=True), "are swapped"),
            (lambda w, rule: rule_std(w, rule) ** 2, "that is the variance"),
            (lambda w, rule: math.sqrt(3) * rule_std(w, rule), "uniform form"),
            (lambda w, rule: rule_std(w, rule, glorot=1), "half their sum"),
            (glorot_by_fan_in, "it needs both fans"),
            (lambda w, rule: rule_std(w, rule, glorot=6), "√6"),
            (lambda w, rule: rule_std(w, rule, two=1), "removes half"),
            (he_outside, "the 2 belongs to the variance"),
            (lecun_default, "torch's default"),
            (lambda w, rule: 1 / rule_std(w, rule), "the value is wrong"),
            (lambda w, rule: torch.full_like(w, rule_std(w, rule)), "one number is expected"),
            (lambda w, rule: rule_std(w, rule.upper()), "it raises KeyError"),
            (lambda w, rule: None, "`return` missing"),
        ],
    ),
    check_sizes: Proof(
        right=[sizes, sizes_by_product],
        wrong=[
            (lambda *a: sizes(*a, shift=1), "you use fan out"),
            (lambda *a: sizes(*a, power=1), "with their variance"),
            (lambda *a: sizes(*a, relu=1), "ReLU between the layers is missing"),
            (lambda *a: sizes(*a, first=0.5, relu=0.5), "no ReLU in front"),
            (lambda *a: sizes(*a, relu=0.5 - 0.5 / math.pi), "of the *variance*"),
            (lambda *a: sizes(*a, relu=0.25), "not to the standard deviation"),
            (lambda *a: sizes(*a).sqrt(), "those are standard deviations"),
            (sizes_without_width, "number of inputs is missing"),
            (sizes_without_memory, "begins with the input's size"),
            (lambda *a: sizes(*a).float(), "dtype is float32"),
            (lambda *a: sizes(*a)[-1], "shape"),
            (lambda *a: sizes(*a, relu=2), "values differ"),
            (popping, "changes its input"),
        ],
    ),
    check_gain: Proof(
        right=[lambda bend, z: 1 / rms(bend(z)), lambda bend, z: (z.numel() / (bend(z) ** 2).sum()) ** 0.5],
        wrong=[
            (lambda bend, z: 1 / bend(z).std(), "you subtract the mean"),
            (lambda bend, z: 1 / bend(z).std(correction=0), "you subtract the mean"),
            (lambda bend, z: 1 / (bend(z) ** 2).mean(), "factor for the variance"),
            (lambda bend, z: rms(bend(z)), "the gain makes up for it"),
            (lambda bend, z: 1 / bend(z).norm(), "you add up the squares"),
            (lambda bend, z: 1 / bend(z).abs().mean(), "mean size"),
            (lambda bend, z: 1 / bend(z).mean(), "mean of h"),
            (lambda bend, z: 1 / rms(z), "the activation is missing"),
            (lambda bend, z: rms(z) / rms(bend(z)), "divide by E[z²]"),
            (lambda bend, z: 1 / (bend(z) ** 2).mean(dim=0).sqrt(), "one number is expected"),
            (lambda bend, z: math.sqrt(2), "the value is wrong"),
            (lambda bend, z: 1 / rms(z.relu_()), "changes its input"),
        ],
    ),
    check_factor: Proof(
        right=[1.6, torch.tensor(1.6)],
        wrong=[
            (1, "LeCun's 1"),
            (2, "He's 2"),
            (4 / 3, "too small"),
            (8 / 3, "too large"),
            (0.625, "too small"),
            (math.sqrt(1.6), "too small"),
            (1.6**2, "too large"),
            (0, "a variance is positive"),
            (-1.6, "a variance is positive"),
            ("1.6", "one number is expected"),
            (math.nan, "NaN"),
        ],
    ),
    check_orthogonal: Proof(
        right=[by_qr, by_svd, by_torch],
        wrong=[
            (unsigned, "upper left number is nearly always negative"),
            (not_turned, "which side is shorter"),
            (lambda out, n, gain, generator: by_qr(out, n, 1.0, generator), "the gain is missing"),
            (lambda out, n, gain, generator: by_qr(n, out, gain, generator), "which side is shorter"),
            (unit_rows, "not at right angles"),
            (gaussian, "not at right angles"),
            (from_the_global_stream, "does not draw from the generator"),
            (always_the_same, "nothing is random"),
            (lambda out, n, gain, generator: gain * torch.eye(out, n), "nothing is random"),
            (divided, "directions get lengths from"),
            (as_nan, "NaN"),
            (nothing, "`return` missing"),
            (lambda out, n, gain, generator: by_qr(out, n, gain, generator).numpy(), "returns a ndarray"),
            (lambda out, n: torch.eye(out, n), "it raises TypeError"),
            (3, "the function itself"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(lesson_02))
    assert len(lesson_02.EXERCISES) == len(PROOFS)


def test_orthogonal_stub_is_not_attempted() -> None:
    def stub(out: int, n: int, gain: float, generator: Any) -> Any:
        raise NotImplementedError  # your code here

    assert check_orthogonal(stub).status == "todo"


def test_copies_with_random_outgoing_weights_get_different_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20, generator=generator, dtype=torch.float64).repeat(100, 1).requires_grad_()
    second = torch.randn(10, 100, generator=generator, dtype=torch.float64) / 10
    inputs, classes = torch.randn(50, 20, generator=generator, dtype=torch.float64), torch.arange(50) % 10
    loss = nn.functional.cross_entropy(torch.tanh(inputs @ first.T) @ second.T, classes)
    (gradient,) = torch.autograd.grad(loss, first)
    assert len(torch.unique(gradient.round(decimals=12), dim=0)) == 100


def test_forecast_agrees_with_random_networks() -> None:
    widths, stds, generator = [500, 400, 300], [0.05, 0.07], torch.Generator().manual_seed(0)
    h, measured = torch.randn(400, 500, generator=generator), []
    for n, m, std in zip(widths, widths[1:], stds, strict=False):
        z = h @ (std * torch.randn(n, m, generator=generator))
        measured.append(z.square().mean().item())
        h = z.relu()
    np.testing.assert_allclose(sizes(widths, stds, 1.0), measured, rtol=0.1)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [(lambda: check_gain(lambda bend, z: 1 / rms(bend(z))), "Measured gains"), (lambda: check_factor(1.6), "near 1")],
)
def test_right_solutions_draw(verdict: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict().show()
    assert words in capsys.readouterr().out
