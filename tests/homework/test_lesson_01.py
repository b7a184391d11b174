"""The checks of lesson 01 accept right solutions and name what is wrong with the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from course_utils.homework import lesson_01
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.homework.lesson_01 import (
    check_chain_gradients,
    check_clipped,
    check_dead_share,
    check_factor_per_layer,
    check_half_dead,
    check_prelu,
    check_sickness,
)


def chain(weights: Any, biases: Any, start: Any, *, slope: Any = None, weighted: bool = True) -> Any:
    """The single factors of the chain."""
    h, factors = start, []
    for w, b in zip(weights, biases, strict=True):
        z = w * h + b
        here = 1 - np.tanh(z) ** 2 if slope is None else slope(z, h)
        factors.append(w * here if weighted else here)
        h = np.tanh(z)
    return np.array(factors)


def backwards(factors: Any) -> Any:
    return np.append(np.cumprod(factors[::-1])[::-1], 1.0)


def chain_by_loop(weights: Any, biases: Any, start: Any) -> Any:
    h = [start]
    for w, b in zip(weights, biases, strict=True):
        h.append(np.tanh(w * h[-1] + b))
    gradients = [1.0]
    for w, out in zip(weights[::-1], h[:0:-1], strict=True):
        gradients.insert(0, gradients[0] * w * (1 - out**2))
    return np.array(gradients)


def norm(gradients: Any) -> Any:
    return torch.cat([gradient.flatten() for gradient in gradients]).norm()


def clipped(gradients: Any, max_norm: Any) -> Any:
    factor = (max_norm / (norm(gradients) + 1e-12)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


def clipped_with_if(gradients: Any, max_norm: Any) -> Any:
    total = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    return tuple(gradient * max_norm / total if total > max_norm else gradient for gradient in gradients)


def scaled(gradients: Any, factor: Any) -> Any:
    return [gradient * factor for gradient in gradients]


def clipped_in_place(gradients: Any, max_norm: Any) -> Any:
    factor = (max_norm / (norm(gradients) + 1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient *= factor
    return gradients


def sickness(norms: Any, *, finite: Any = np.isfinite, dead: bool = True, limit: float = 1e3) -> str:
    if not finite(norms).all():
        return "not finite"
    if dead and 0 in norms:
        return "dead"
    if norms[0] * limit < norms[-1]:
        return "vanishing"
    return "exploding" if norms[0] > limit * norms[-1] else "healthy"


def sickness_by_logarithm(norms: Any) -> str:
    if np.isnan(norms.sum()) or np.isinf(norms).any():
        return "not finite"
    if norms.min() == 0:
        return "dead"
    decades = np.log10(norms[0] / norms[-1])
    return "vanishing" if decades < -3 else "exploding" if decades > 3 else "healthy"


def absolute(norms: Any) -> str:
    known = sickness(norms)
    return known if known in ("not finite", "dead") else sickness(np.array([norms[0], 1.0]))


def zeros_last(norms: Any) -> str:
    known = sickness(norms, dead=False)
    return "dead" if known == "healthy" and 0 in norms else known


def by_neighbours(norms: Any) -> str:
    known = sickness(norms)
    if known in ("not finite", "dead"):
        return known
    steps = [sickness(norms[k : k + 2]) for k in range(len(norms) - 1)]
    return known if known in steps else "healthy"


def turned(norms: Any) -> str:
    return sickness(norms[::-1])


class Prelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(z, slopes)
        return torch.where(z > 0, z, z * slopes)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z, slopes = ctx.saved_tensors
        return grads[0] * torch.where(z > 0, 1.0, slopes), (grads[0] * z * (z < 0)).sum(dim=0)


class PreluByMasks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
        ctx.z, ctx.slopes = z, slopes
        return z.clamp(min=0) + slopes * z.clamp(max=0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        negative = (ctx.z < 0).double()
        dz = grads[0] * (1 - negative) + grads[0] * negative * ctx.slopes
        return dz, torch.einsum("nm,nm,nm->m", grads[0], ctx.z, negative)


def with_backward(backward: Callable[..., Any]) -> Any:
    """A Prelu whose gradients are backward(grad_out, z, slopes)."""

    class Changed(Prelu):
        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return backward(grads[0], *ctx.saved_tensors)

    return Changed


def dz(g: Any, z: Any, a: Any) -> Any:
    return g * torch.where(z > 0, 1.0, a)


def da(g: Any, z: Any, a: Any) -> Any:
    return (g * z * (z < 0)).sum(dim=0)


class NotAFunction:
    @staticmethod
    def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
        return torch.where(z > 0, z, z * slopes)


class ReluForward(Prelu):
    @staticmethod
    def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(z, slopes)
        return z.relu()


PROOFS: dict[Callable[..., Any], Proof] = {
    check_factor_per_layer: Proof(
        right=[0.1 ** (1 / 30), 0.926, 0.93],
        wrong=[
            (0.967, "do not add up"),
            (0.97, "do not add up"),
            (0.1, "after all thirty"),
            (1.08, "grows"),
            (0.1 / 30, "not a multiple"),
            (0.794, "for ten layers"),
            (0.25, "sigmoid's steepest"),
            (1, "costs nothing"),
            (0.9, "only 4%"),
            (0.5, "thirty times"),
            ("0.926", "one number is expected"),
        ],
    ),
    check_chain_gradients: Proof(
        right=[chain_by_loop, lambda *a: backwards(chain(*a))],
        wrong=[
            (lambda *a: np.insert(np.cumprod(chain(*a)), 0, 1.0), "multiply from the input on"),
            (lambda *a: backwards(chain(*a))[::-1].copy(), "the order is reversed"),
            (lambda *a: backwards(chain(*a))[:-1], "the last value is missing"),
            (lambda *a: backwards(chain(*a))[1:], "the first value is missing"),
            (lambda *a: np.append(chain(*a), 1.0), "the single factors"),
            (lambda *a: backwards(chain(*a, weighted=False)), "the weights are missing"),
            (lambda w, b, start: backwards(w), "the slopes are missing"),
            (lambda *a: backwards(chain(*a, slope=lambda z, h: 1 - z**2)), "not with its sum z"),
            (lambda *a: backwards(chain(*a, slope=lambda z, h: 1 - h**2)), "where the neuron before works"),
            (lambda *a: backwards(chain(*a, slope=lambda z, h: 0.25 / np.cosh(z / 2) ** 2)), "slope of the sigmoid"),
            (lambda *a: list(chain_by_loop(*a)), "a NumPy array is expected"),
            (lambda *a: chain_by_loop(*a)[0], "shape"),
            (lambda *a: -chain_by_loop(*a), "sign is flipped"),
        ],
    ),
    check_dead_share: Proof(
        right=[lambda z: (z <= 0).all(dim=0).float().mean(), lambda z: (z.relu().sum(dim=0) == 0).sum() / z.shape[1]],
        wrong=[
            (lambda z: (z <= 0).float().mean(), "share of zeros"),
            (lambda z: (z <= 0).any(dim=0).float().mean(), "one input at which"),
            (lambda z: (z <= 0).all(dim=1).float().mean(), "wrong axis"),
            (lambda z: (z > 0).any(dim=0).float().mean(), "share of units that are alive"),
            (lambda z: (z <= 0).all(dim=0).sum(), "number of dead units"),
            (lambda z: (z < 0).all(dim=0).float().mean(), "at z = 0"),
            (lambda z: (z.mean(dim=0) < 0).float().mean(), "negative on average"),
            (lambda z: (z <= 0).all(dim=0), "one number is expected"),
            (lambda z: (z == 0).all(dim=0).float().mean(), "the value is wrong"),
            (lambda z: 100 * (z <= 0).all(dim=0).float().mean(), "the value is wrong"),
            (lambda z: (z.relu_().sum(dim=0) == 0).float().mean(), "changes its input"),
            (lambda z: None, "`return` missing"),
        ],
    ),
    check_clipped: Proof(
        right=[clipped, clipped_with_if],
        wrong=[
            (lambda g, c: [clipped([one], c)[0] for one in g], "a length limit of its own"),
            (lambda g, c: [one.clamp(-c, c) for one in g], "clip each value"),
            (lambda g, c: scaled(g, c / (norm(g) + 1e-12)), "yours is made longer"),
            (lambda g, c: scaled(g, min(1.0, c / (sum(one.norm() for one in g) + 1e-12))), "add up the norms"),
            (lambda g, c: scaled(g, min(1.0, c / (norm(g) ** 2 + 1e-12))), "its root is missing"),
            (lambda g, c: scaled(g, min(1.0, c / (sum(one.abs().sum() for one in g) + 1e-12))), "absolute values"),
            (lambda g, c: scaled(g, 1 / norm(g) if norm(g) > c else 1), "they all get length 1"),
            (lambda g, c: g, "where is the factor"),
            (lambda g, c: scaled(g, (c / norm(g)) if norm(g) == 0 or norm(g) > c else 1), "NaN"),
            (lambda g, c: scaled(g, max(1.0, c / (norm(g) + 1e-12))), "value 1 of 3"),
            (clipped_in_place, "changes its input"),
            (lambda g, c: torch.cat([one.flatten() for one in clipped(g, c)]), "3 values are expected"),
            (lambda g, c: None, "`return` missing"),
        ],
    ),
    check_half_dead: Proof(
        right=[-4.25, torch.tensor(-4.4)],
        wrong=[
            (0, "every unit fires"),
            (-1, "go further down"),
            (-1.41, "go further down"),
            (-2.83, "go further down"),
            (-3.0, "go further down"),
            (-6.0, "go back up"),
            (-20, "100% of 500"),
            (4.25, "positive bias"),
            ("-4.25", "one number is expected"),
            ([-4.25], "one number is expected"),
            (math.nan, "NaN"),
        ],
    ),
    check_sickness: Proof(
        right=[sickness, sickness_by_logarithm],
        wrong=[
            (lambda n: sickness(n, finite=lambda x: ~np.isinf(x)), "NaN slips through"),
            (lambda n: sickness(n, finite=lambda x: ~np.isnan(x)), "infinity slips through"),
            (lambda n: sickness(n, finite=np.ones_like), "NaN and infinity slip through"),
            (lambda n: sickness(n, dead=False), "death, not weakness"),
            (zeros_last, "ask for zeros before"),
            (turned, "you turned the profile round"),
            (absolute, "compare layers with each other"),
            (by_neighbours, "the value is wrong"),
            (lambda n: sickness(n, limit=100), "factor of 100"),
            (lambda n: sickness(n).title(), "the value is wrong"),
            (lambda n: print(sickness(n)), "`return` missing"),
            (lambda n: sickness(n) == "healthy", "the value is wrong"),
        ],
    ),
    check_prelu: Proof(
        # Autograd itself adds up what was broadcast, so the third is right too.
        right=[Prelu, PreluByMasks, with_backward(lambda g, z, a: (dz(g, z, a), g * z * (z < 0)))],
        wrong=[
            (with_backward(lambda g, z, a: (dz(torch.ones_like(g), z, a), da(g, z, a))), "multiplied by grad_out"),
            (with_backward(lambda g, z, a: (dz(g, z, a), da(torch.ones_like(g), z, a))), "slopes: grad_out is missing"),
            (with_backward(lambda g, z, a: (dz(g * 0 + 1, z, a), da(g * 0 + 1, z, a))), "neither gradient contains"),
            (with_backward(lambda g, z, a: (g * (z > 0), da(g, z, a))), "that of a ReLU"),
            (with_backward(lambda g, z, a: (g * torch.where(z < 0, 1.0, a), da(g, z, a))), "swapped the sides"),
            (with_backward(lambda g, z, a: (dz(g, z, a), da(g, z, a) / len(z))), "not average"),
            (with_backward(lambda g, z, a: (dz(g, z, a), (g * z).sum(dim=0))), "only negative z"),
            (with_backward(lambda g, z, a: (dz(g, z, a), (g * (z < 0)).sum(dim=0))), "derivative of a·z"),
            (with_backward(lambda g, z, a: (dz(g, z, a), -da(g, z, a))), "sign is flipped"),
            (with_backward(lambda g, z, a: (dz(g, z, a), None)), "`gradient by slopes`: it returns None"),
            (with_backward(lambda g, z, a: dz(g, z, a)), "it raises RuntimeError"),
            (ReluForward, "`output`"),
            (NotAFunction, "it raises TypeError"),
            (lambda z, a: z.relu(), "`output`"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(lesson_01))
    assert len(lesson_01.EXERCISES) == len(PROOFS)


def test_a_function_whose_backward_is_still_a_stub_is_not_attempted() -> None:
    class Half(Prelu):
        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise NotImplementedError  # your code here

    assert check_prelu(Half).status == "todo"


def test_half_dead_draws_and_says_that_more_inputs_revive(capsys: pytest.CaptureFixture[str]) -> None:
    check_half_dead(-4.25).show()
    assert "the lower the bias" in capsys.readouterr().out


def test_measured_bias_is_where_theory_puts_it() -> None:
    """The largest of 512 sums N(0, 2) lies below b with probability Φ(b/√2)^512."""
    middle = math.sqrt(2) * float(torch.special.ndtri(torch.tensor(0.5 ** (1 / 512), dtype=torch.float64)))
    assert check_half_dead(-middle)
