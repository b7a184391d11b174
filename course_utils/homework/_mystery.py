"""Data sets made by a hidden formula, another one for every student number; for `homework.kan_laboratory`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["Formula", "hidden_formula"]

_Function: TypeAlias = Callable[[Tensor], Tensor]

# What acts on the sum. Only functions that no other one of the library resembles on this stretch: a root or a logarithm
# of s + 3 differs from an exponential by less than a thousandth.
_OUTER: tuple[_Function, ...] = (torch.exp, lambda s: torch.tanh(1.5 * s), lambda s: s, lambda s: (s + 2) ** 2)
_INNER: tuple[_Function, ...] = (
    lambda x: torch.sin(2 * x),
    lambda x: torch.sin(3 * x),
    lambda x: x**2,
    lambda x: x**3,
    lambda x: torch.exp(-2 * x**2),
)


@dataclass(frozen=True)
class Formula:
    """y = outer(c₁·f(x_i) + c₂·g(x_j)); the third input does nothing.

    Attributes:
        outer: acts on the sum.
        inner: f and g, which differ.
        factors: c₁ and c₂, between 0.5 and 1 in size.
        inputs: i and j, from 0 to 2.
    """

    outer: _Function
    inner: tuple[_Function, _Function]
    factors: tuple[float, float]
    inputs: tuple[int, int]

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms of the sum, (n,) each, for ``x`` of shape (n, 3)."""
        one, other = (
            factor * function(x[:, place])
            for factor, function, place in zip(self.factors, self.inner, self.inputs, strict=True)
        )
        return one, other

    def __call__(self, x: Tensor) -> Tensor:
        """Return y, (n,), for ``x`` of shape (n, 3)."""
        one, other = self.terms(x)
        return self.outer(one + other)


def hidden_formula(number: int) -> Formula:
    """Return the formula of a student number; the same number gives the same one on every machine."""
    rng = np.random.default_rng([number, 6])
    i, j = rng.choice(3, size=2, replace=False).tolist()
    f, g = rng.choice(len(_INNER), size=2, replace=False).tolist()
    c1, c2 = (rng.choice([-1, 1], size=2) * rng.choice([0.5, 0.6, 0.75, 0.8, 1.0], size=2)).tolist()
    return Formula(_OUTER[int(rng.integers(len(_OUTER)))], (_INNER[f], _INNER[g]), (c1, c2), (i, j))
