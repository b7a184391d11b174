"""Right and wrong answers to the exercises of lesson 01."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from proofs import Proof


def chain(weights: Any, biases: Any, start: Any) -> Any:
    h = [start]
    for w, b in zip(weights, biases, strict=True):
        h.append(np.tanh(w * h[-1] + b))
    gradients = [1.0]
    for w, out in zip(weights[::-1], h[:0:-1], strict=True):
        gradients.insert(0, gradients[0] * w * (1 - out**2))
    return np.array(gradients)


def chain_as_a_list(weights: Any, biases: Any, start: Any) -> Any:
    h, factors = start, []
    for w, b in zip(weights, biases, strict=True):
        h = math.tanh(w * h + b)
        factors.append(w * (1 - h * h))
    return [math.prod(factors[k:]) for k in range(len(factors) + 1)]


def clipped(gradients: Any, max_norm: Any) -> Any:
    total = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    factor = (max_norm / (total + 1e-12)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


def clipped_with_if(gradients: Any, max_norm: Any) -> Any:
    total = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    return tuple(gradient * max_norm / total if total > max_norm else gradient for gradient in gradients)


def sickness(norms: Any) -> str:
    if not np.isfinite(norms).all():
        return "not finite"
    if 0 in norms:
        return "dead"
    if norms[0] * 1000 < norms[-1]:
        return "vanishing"
    return "exploding" if norms[0] > 1000 * norms[-1] else "healthy"


def sickness_by_logarithm(norms: Any) -> str:
    if np.isnan(norms.sum()) or np.isinf(norms).any():
        return "not finite"
    if norms.min() == 0:
        return "dead"
    decades = np.log10(norms[0] / norms[-1])
    return "vanishing" if decades < -3 else "exploding" if decades > 3 else "healthy"


def sickness_of_neighbours(norms: Any) -> str:
    known = sickness(norms)
    if known in ("not finite", "dead"):
        return known
    steps = [sickness(norms[k : k + 2]) for k in range(len(norms) - 1)]
    return known if known in steps else "healthy"


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
        by_z = grads[0] * (1 - negative) + grads[0] * negative * ctx.slopes
        return by_z, grads[0] * ctx.z * negative  # autograd itself adds up what was broadcast


class ReluForward(Prelu):
    @staticmethod
    def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(z, slopes)
        return z.relu()


class NoneForTheSlopes(Prelu):
    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return Prelu.backward(ctx, *grads)[0], None


class BackwardStub(Prelu):
    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError  # your code here


# The largest of 512 sums N(0, 2) lies below b with probability Φ(b/√2)^512.
HALF_BY_THEORY = -math.sqrt(2) * torch.special.ndtri(torch.tensor(0.5 ** (1 / 512), dtype=torch.float64))

PROOFS = {
    "check_factor_per_layer": Proof(
        right=[0.926, 0.93, torch.tensor(0.1) ** (1 / 30)],
        wrong=[
            (0.97, "do not add up"),
            (1.08, "grows"),
            (0.5, "thirty times"),
            (-0.926, "this is not it"),
            ("0.926", "one number is expected"),
        ],
    ),
    "check_chain_gradients": Proof(
        right=[chain, chain_as_a_list, lambda *a: torch.tensor(chain(*a))],
        wrong=[
            (lambda *a: chain(*a)[0], "shape"),
            (lambda *a: -chain(*a), "sign is flipped"),
            (lambda *a: 2 * chain(*a), "every value is 2 times"),
            (lambda *a: chain(*a).astype(np.float32), "dtype is float32"),
            (lambda *a: dict(enumerate(chain(*a))), "a NumPy array is expected"),
        ],
    ),
    "check_dead_share": Proof(
        right=[lambda z: (z <= 0).all(dim=0).float().mean(), lambda z: (z.relu().sum(dim=0) == 0).sum() / z.shape[1]],
        wrong=[
            (lambda z: (z <= 0).all(dim=0), "one number is expected"),
            (lambda z: (z == 0).all(dim=0).float().mean(), "the value is wrong"),
            (lambda z: 100 * (z <= 0).all(dim=0).float().mean(), "the value is wrong"),
            (lambda z: (z.relu_().sum(dim=0) == 0).float().mean(), "changes its input"),
        ],
    ),
    "check_clipped": Proof(
        right=[clipped, clipped_with_if],
        wrong=[
            (lambda g, limit: [2 * one for one in clipped(g, limit)], "every value is 2 times"),
            (lambda g, limit: [one.float() for one in clipped(g, limit)], "dtype is float32"),
            (lambda g, limit: clipped(g, limit)[::-1], "the shape is"),
            (lambda g, limit: torch.cat([one.flatten() for one in clipped(g, limit)]), "3 values are expected"),
        ],
    ),
    "check_half_dead": Proof(
        right=[-4.25, torch.tensor(-4.4), HALF_BY_THEORY],
        wrong=[
            (0, "every unit fires"),
            (-1.41, "go further down"),
            (-3.0, "go further down"),
            (-6.0, "go back up"),
            (4.25, "positive bias"),
            ("-4.25", "one number is expected"),
            ([-4.25], "one number is expected"),
            (math.nan, "NaN"),
        ],
    ),
    "check_sickness": Proof(
        right=[sickness, sickness_by_logarithm],
        wrong=[
            (sickness_of_neighbours, "the value is wrong"),
            (lambda norms: sickness(norms).title(), "the value is wrong"),
            (lambda norms: print(sickness(norms)), "`return` missing"),
            (lambda norms: sickness(norms) == "healthy", "the value is wrong"),
        ],
    ),
    "check_prelu": Proof(
        right=[Prelu, PreluByMasks],
        wrong=[
            (ReluForward, "`output`"),
            (lambda z, slopes: torch.where(z > 0, z, z * slopes).detach(), "it raises RuntimeError"),
            (NoneForTheSlopes, "`gradient by slopes`: it returns None"),
            (lambda z, slopes: z.relu(), "`output`"),
        ],
        stubs=[BackwardStub],
    ),
}
