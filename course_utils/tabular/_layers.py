"""Parameters drawn like ``nn.Linear``'s, from a generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["linear", "uniform_parameter"]


def uniform_parameter(shape: Sequence[int], fan_in: int, generator: torch.Generator | None) -> nn.Parameter:
    """Return a parameter drawn from U(±1/√fan_in), the law of ``nn.Linear``'s weights and biases."""
    bound = 1 / math.sqrt(max(fan_in, 1))  # a network may be left without inputs: then only the biases count
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound, generator=generator))


def linear(in_features: int, out_features: int, generator: torch.Generator | None) -> nn.Linear:
    """Return an ``nn.Linear`` with torch's default initialization, drawn from ``generator`` and from nothing else."""
    # The module draws no weights of its own. It would warn of a width of 0, which a table of constants may have.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, max(in_features, 1), out_features)
    layer.in_features = in_features
    layer.weight = uniform_parameter((out_features, in_features), in_features, generator)
    layer.bias = uniform_parameter((out_features,), in_features, generator)
    return layer
