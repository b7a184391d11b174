"""Weight initialization schemes: the standard deviations and bounds by formula, and a function that applies them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from course_utils._validation import check_int, check_non_negative, check_one_of

__all__ = [
    "SCHEMES",
    "gain",
    "init_weights",
    "kaiming_bound",
    "kaiming_std",
    "lecun_bound",
    "lecun_std",
    "scheme_std",
    "torch_default_bound",
    "xavier_bound",
    "xavier_std",
]

SCHEMES = (
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
    "normal",
    "uniform",
    "constant",
    "torch_default",
)

_GAINS = {
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "hardtanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    # No gain is agreed on for these; they resemble ReLU.
    "elu": math.sqrt(2.0),
    "gelu": math.sqrt(2.0),
    "silu": math.sqrt(2.0),
    "prelu": math.sqrt(2.0 / (1.0 + 0.25**2)),
    # SELU normalizes itself if the weights have LeCun's std; torch's 3/4 serves another purpose.
    "selu": 1.0,
}


def gain(activation: str, *, negative_slope: float = 0.01) -> float:
    """Return the factor that makes up for what an activation takes from the signal's standard deviation.

    Args:
        activation: ``identity``, ``sigmoid``, ``tanh``, ``relu``, ``leaky_relu``, … (the names of `models.MLP`).
        negative_slope: the slope of ``leaky_relu`` left of zero.

    Source: ``torch.nn.init.calculate_gain``. Differs: SELU has gain 1; ELU, GELU and SiLU are treated as ReLU.
    """
    if activation == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + check_non_negative(negative_slope, "negative_slope") ** 2))
    return _GAINS[check_one_of(activation, "activation", (*_GAINS, "leaky_relu"))]


def xavier_std(fan_in: int, fan_out: int, gain: float = 1.0) -> float:
    """Return Glorot's std, gain·√(2 / (fan_in + fan_out)). Source: Glorot & Bengio 2010, eq. 12."""
    return gain * math.sqrt(2.0 / (_check_fan(fan_in, "fan_in") + _check_fan(fan_out, "fan_out")))


def xavier_bound(fan_in: int, fan_out: int, gain: float = 1.0) -> float:
    """Return the half-width of Glorot's uniform, gain·√(6 / (fan_in + fan_out)). Source: ibid., eq. 16."""
    return math.sqrt(3.0) * xavier_std(fan_in, fan_out, gain)


def kaiming_std(fan_in: int, gain: float = math.sqrt(2.0)) -> float:
    """Return He's std, gain/√fan_in; the default gain √2 is ReLU's. Source: He et al. 2015, eq. 10."""
    return gain / math.sqrt(_check_fan(fan_in, "fan_in"))


def kaiming_bound(fan_in: int, gain: float = math.sqrt(2.0)) -> float:
    """Return the half-width of the uniform with He's std, √3·gain/√fan_in (√(6/fan_in) for ReLU)."""
    return math.sqrt(3.0) * kaiming_std(fan_in, gain)


def lecun_std(fan_in: int) -> float:
    """Return LeCun's std, 1/√fan_in. Source: LeCun et al. 1998, *Efficient BackProp*, eq. 16."""
    return kaiming_std(fan_in, gain=1.0)


def lecun_bound(fan_in: int) -> float:
    """Return the half-width of the uniform with LeCun's std, √(3/fan_in)."""
    return kaiming_bound(fan_in, gain=1.0)


def torch_default_bound(fan_in: int) -> float:
    """Return the half-width 1/√fan_in of ``nn.Linear``'s own default, whose std is 1/√(3·fan_in): not LeCun's."""
    return kaiming_bound(fan_in, gain=1.0 / math.sqrt(3.0))


def _check_fan(value: int, name: str) -> int:
    return check_int(value, name, minimum=1)


def scheme_std(scheme: str, fan_in: int, fan_out: int, *, activation: str | None = None, std: float = 0.01) -> float:
    """Return the standard deviation with which a scheme draws the weights of a layer.

    Args:
        scheme: one of `SCHEMES`, but for ``constant``, which draws nothing.
        fan_in: inputs of the layer.
        fan_out: outputs of the layer.
        activation: the function that follows, for its `gain`. ``None`` keeps the paper's factor: √2 for He,
            1 for the others. LeCun's schemes and torch's default know no gain.
        std: for ``normal`` and ``uniform``, which know no formula.
    """
    check_one_of(scheme, "scheme", [known for known in SCHEMES if known != "constant"])
    family = scheme.split("_")[0]
    if family == "xavier":
        return xavier_std(fan_in, fan_out, 1.0 if activation is None else gain(activation))
    if family == "kaiming":
        return kaiming_std(fan_in, math.sqrt(2.0) if activation is None else gain(activation))
    if family == "lecun":
        return lecun_std(fan_in)
    if family == "torch":
        return torch_default_bound(fan_in) / math.sqrt(3.0)
    if family == "orthogonal":  # orthonormal along the longer side, so each entry has this root mean square
        factor = 1.0 if activation is None else gain(activation)
        return factor / math.sqrt(max(_check_fan(fan_in, "fan_in"), _check_fan(fan_out, "fan_out")))
    return check_non_negative(std, "std")


@torch.no_grad()
def init_weights(
    model: nn.Module,
    scheme: str,
    *,
    activation: str | None = None,
    std: float = 0.01,
    value: float = 0.01,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Initialize every ``nn.Linear`` of ``model`` in place and return it.

    Biases become 0, except with ``torch_default``, which draws them like torch does, from U(±1/√fan_in).

    Args:
        model: any module; its layers other than ``nn.Linear`` stay as they are.
        scheme: one of `SCHEMES`.
        activation: the function between the layers, for schemes with a gain (see `scheme_std`).
        std: standard deviation for ``normal`` and ``uniform``.
        value: the weight for ``constant``.
        generator: draws the weights; ``None`` is torch's global stream.

    Raises:
        ValueError: unknown scheme or activation, negative ``std``, or no ``nn.Linear`` in the model.
    """
    check_one_of(scheme, "scheme", SCHEMES)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError(f"model has no nn.Linear layer to initialize: {type(model).__name__}")
    for layer in layers:
        if scheme == "constant":
            nn.init.constant_(layer.weight, value)
        else:
            deviation = scheme_std(scheme, layer.in_features, layer.out_features, activation=activation, std=std)
            _draw(layer.weight, scheme, deviation, generator)
        if layer.bias is None:
            continue
        if scheme == "torch_default":
            bound = torch_default_bound(layer.in_features)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        else:
            nn.init.zeros_(layer.bias)
    return model


def _draw(weight: Tensor, scheme: str, std: float, generator: torch.Generator | None) -> None:
    if scheme == "orthogonal":
        nn.init.orthogonal_(weight, gain=std * math.sqrt(max(weight.shape)), generator=generator)
    elif scheme.endswith("normal"):
        nn.init.normal_(weight, 0.0, std, generator=generator)
    else:  # the uniforms, torch's default among them: half-width √3·std
        nn.init.uniform_(weight, -math.sqrt(3.0) * std, math.sqrt(3.0) * std, generator=generator)
