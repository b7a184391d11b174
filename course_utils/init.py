"""Weight initialization: the schemes' deviations and bounds by formula, and functions that apply them to a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from course_utils._validation import check_one_of

__all__ = [
    "SCHEMES",
    "gain",
    "init_weights",
    "kaiming_std",
    "lecun_std",
    "lsuv",
    "scheme_std",
    "xavier_std",
]

#: Names of the schemes that `init_weights` knows.
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

    Raises:
        ValueError: an unknown name.

    Source: ``torch.nn.init.calculate_gain``. Differs: SELU has gain 1; ELU, GELU and SiLU are treated as ReLU.
    """
    if activation == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + negative_slope**2))
    return _GAINS[check_one_of(activation, "activation", (*_GAINS, "leaky_relu"))]


def xavier_std(fan_in: int, fan_out: int, gain: float = 1.0) -> float:
    """Return Glorot's standard deviation, gain·√(2 / (fan_in + fan_out)).

    Args:
        fan_in: inputs of the layer, at least 1.
        fan_out: its outputs, at least 1.
        gain: factor for the activation that follows, see `gain`.

    Source: Glorot & Bengio 2010, eq. 12.
    """
    return gain * math.sqrt(2.0 / (fan_in + fan_out))


def kaiming_std(fan_in: int, gain: float = math.sqrt(2.0)) -> float:
    """Return He's standard deviation, gain/√fan_in.

    Args:
        fan_in: inputs of the layer, at least 1.
        gain: factor for the activation that follows, see `gain`; the default √2 is ReLU's.

    Source: He et al. 2015, eq. 10.
    """
    return gain / math.sqrt(fan_in)


def lecun_std(fan_in: int) -> float:
    """Return LeCun's standard deviation, 1/√fan_in.

    Args:
        fan_in: inputs of the layer, at least 1.

    Source: LeCun et al. 1998, *Efficient BackProp*, eq. 16.
    """
    return kaiming_std(fan_in, gain=1.0)


def scheme_std(scheme: str, fan_in: int, fan_out: int, *, activation: str | None = None, std: float = 0.01) -> float:
    """Return the standard deviation with which a scheme draws the weights of a layer.

    Args:
        scheme: one of `SCHEMES`, but for ``constant``, which draws nothing.
        fan_in: inputs of the layer.
        fan_out: outputs of the layer.
        activation: the function that follows, for its `gain`. ``None`` keeps the paper's factor: √2 for He,
            1 for the others. LeCun's schemes and torch's default know no gain.
        std: for ``normal`` and ``uniform``, which know no formula.

    Raises:
        ValueError: unknown activation.
    """
    family = scheme.split("_")[0]
    if family == "xavier":
        return xavier_std(fan_in, fan_out, 1.0 if activation is None else gain(activation))
    if family == "kaiming":
        return kaiming_std(fan_in, math.sqrt(2.0) if activation is None else gain(activation))
    if family == "lecun":
        return lecun_std(fan_in)
    if family == "torch":
        return 1.0 / math.sqrt(3.0 * fan_in)  # of U(±1/√fan_in): not LeCun's
    if family == "orthogonal":  # orthonormal along the longer side, so each entry has this root mean square
        factor = 1.0 if activation is None else gain(activation)
        return factor / math.sqrt(max(fan_in, fan_out))
    return std


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
        ValueError: unknown scheme or activation, no ``nn.Linear`` in the model, or one whose weight is computed from
            other parameters (weight norm, spectral norm, pruning).
    """
    check_one_of(scheme, "scheme", SCHEMES)
    for layer in _linear_layers(model).values():
        if scheme == "constant":
            nn.init.constant_(layer.weight, value)
        else:
            deviation = scheme_std(scheme, layer.in_features, layer.out_features, activation=activation, std=std)
            _draw(layer.weight, scheme, deviation, generator)
        if layer.bias is None:
            continue
        if scheme == "torch_default":
            bound = 1.0 / math.sqrt(layer.in_features)
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


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not layers:
        raise ValueError(f"model has no nn.Linear layer to initialize: {type(model).__name__}")
    computed = [name for name, layer in layers.items() if "weight" not in layer._parameters]
    if computed:
        raise ValueError(f"the weights of {computed} are computed (weight norm and the like): initialize them before")
    return layers


@torch.no_grad()
def lsuv(
    model: nn.Module,
    inputs: Tensor,
    *,
    tol: float = 0.01,
    max_iterations: int = 10,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Initialize every ``nn.Linear`` in place so that its output on a batch has standard deviation 1; return the model.

    Layer-sequential unit variance: all weights start orthogonal and all biases at 0; then, in the order of execution,
    each layer's weight is divided by the standard deviation of the layer's own output, over batch and units. It needs
    no gain and thus no formula for the activation: the batch measures what the formula would have to predict.

    The pass runs in evaluation mode (no dropout, normalizations by their running statistics) and leaves the mode as
    it was. A layer that is called several times is scaled at its first call; one that is not called stays orthogonal.

    Args:
        model: any module that maps ``inputs`` forward.
        inputs: one batch of training inputs, shape (batch, …), at least 2 samples and not all the same.
        tol: a standard deviation this close to 1 is left alone; above 0.
        max_iterations: divisions a layer at most, at least 1. Without a bias the first one is exact.
        generator: draws the orthogonal matrices; ``None`` is torch's global stream.

    Raises:
        ValueError: no ``nn.Linear`` in the model, inputs that are all the same, or a layer that puts out a standard
            deviation of 0 or NaN; the message names it.

    Source: Mishkin & Matas 2016, *All you need is a good init*, algorithm 1. Differs: biases start at 0.
    """
    if bool((inputs == inputs[:1]).all()):
        raise ValueError(f"inputs must differ between samples, got {len(inputs)} times the same one")
    init_weights(model, "orthogonal", generator=generator)
    scaled: set[nn.Module] = set()

    def scale(name: str, layer: nn.Linear, layer_inputs: Tensor) -> None:
        if layer not in scaled:
            scaled.add(layer)
            _scale_to_unit_std(name, layer, layer_inputs, tol, max_iterations)

    handles = [
        layer.register_forward_pre_hook(lambda layer, args, name=name: scale(name, layer, args[0]))
        for name, layer in _linear_layers(model).items()
    ]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return model


def _scale_to_unit_std(name: str, layer: nn.Linear, inputs: Tensor, tol: float, max_iterations: int) -> None:
    name = name or type(layer).__name__  # the model itself may be the layer
    for _ in range(max_iterations):
        std = float(nn.functional.linear(inputs, layer.weight, layer.bias).std(correction=0))
        if not 0.0 < std < math.inf:
            raise ValueError(f"the output of layer {name} must have a finite std above 0 on this batch, got {std:g}")
        if abs(std - 1.0) <= tol:
            return
        layer.weight.div_(std)
