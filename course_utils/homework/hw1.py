"""Homework 1: checks of backpropagation by hand, in NumPy: each layer's gradient, and a whole network's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from course_utils.homework.engine.checks import FunctionCheck, exercises_of
from course_utils.layers import BatchNormCache, batchnorm_backward, batchnorm_forward
from course_utils.plotting import COLORS, DIVERGING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "check_batchnorm_backward",
    "check_batchnorm_forward",
    "check_cross_entropy",
    "check_linear_backward",
    "check_loss_and_gradients",
    "check_numerical_gradient",
    "check_relu_backward",
    "make_parameters",
]

Array = NDArray[np.float64]
_Arrays = tuple[Array, ...]
_Labels = NDArray[np.int64]
_Function = Callable[[Array], float]


# Exercise 1.1


def _functions(seed: int) -> list[tuple[_Function, Array, float]]:
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], step: float) -> tuple[_Function, Array, float]:
        weights = rng.normal(size=shape)

        def cubic(x: Array) -> float:
            return float((weights * x**3).sum() + x.sum() ** 2 + np.prod(x))

        return cubic, rng.normal(size=shape), step

    # Steps so large that forward and central differences differ in the second digit.
    return [draw((3,), 0.1), draw((2, 4), 0.05), draw((1,), 0.2), draw((2, 2, 2), 0.1)]


def _differences(ahead: float = 1, behind: float = 1, distance: float = 2) -> Callable[..., Array]:
    """Each slope as f(x + ahead·step) − f(x − behind·step), divided by distance·step."""

    def gradient(function: _Function, x: Array, step: float) -> Array:
        slopes = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            nudge = np.zeros_like(x)
            nudge[place] = step
            rise = function(x + ahead * nudge) - function(x - behind * nudge)
            slopes[place] = rise / (distance * step)
        return slopes

    return gradient


def _not_divided(function: _Function, x: Array, step: float) -> Array:
    return 2 * step * _differences()(function, x, step)


def _all_at_once(function: _Function, x: Array, step: float) -> Array:
    return np.full_like(x, (function(x + step) - function(x - step)) / (2 * step))


def _draw_step_sizes() -> tuple[Figure, str]:
    """Draw the error of forward and central differences over the step, for the slope of exp at 1."""
    import matplotlib.pyplot as plt

    steps = np.logspace(-13, -1, 49)
    forward = (np.exp(1 + steps) - np.exp(1)) / steps
    central = (np.exp(1 + steps) - np.exp(1 - steps)) / (2 * steps)
    figure, ax = plt.subplots(figsize=(6.5, 3.2))
    for name, slopes, color in (("forward", forward, COLORS["orange"]), ("central", central, COLORS["blue"])):
        ax.loglog(steps, np.abs(slopes / math.e - 1) + 1e-17, color=color, label=name)
    ax.set(xlabel="step", ylabel="relative error", title="Slope of exp at 1, by nudging")
    ax.legend()
    return figure, (
        "Relative error against the step, both axes logarithmic. From the right both fall with the step, the central "
        "one twice as steeply, down to about 1e-11 for steps near 1e-6; further left rounding makes both grow again."
    )


check_numerical_gradient = FunctionCheck(
    exercise="1.1 A gradient by nudging",
    wants="``numerical_gradient(function, x, step)``: central differences, of the shape of ``x``.",
    reference=_differences(),
    cases=_functions,
    rtol=1e-6,
    right="right: one nudge to each side for every entry, an oracle for all that follows.",
    mistakes={
        "these are *forward* differences: nudge to both sides": _differences(behind=0, distance=1),
        "these are *backward* differences: nudge to both sides": _differences(ahead=0, distance=1),
        "you divide by the step; from left to right it is twice as far": _differences(distance=1),
        "the difference is not divided by the distance": _not_divided,
        "the nudges go half as far as `step` says": _differences(ahead=0.5, behind=0.5, distance=1),
        "all entries are nudged at once; one at a time gives one slope each": _all_at_once,
        "left and right are exchanged: the sign is flipped": _differences(distance=-2),
    },
    figure=_draw_step_sizes,
)


# Exercise 1.2


def _layers(seed: int) -> list[_Arrays]:
    rng = np.random.default_rng(seed)
    sizes = ((5, 3, 2), (4, 4, 4), (1, 3, 2), (7, 2, 6))
    return [(rng.normal(size=(n, o)), rng.normal(size=(n, i)), rng.normal(size=(o, i))) for n, i, o in sizes]


def _linear_by_autograd(grad_out: Array, x: Array, weight: Array) -> _Arrays:
    leaves = [torch.tensor(value, requires_grad=True) for value in (x, weight, np.zeros(len(weight)))]
    out = nn.functional.linear(*leaves)
    return tuple(gradient.numpy() for gradient in torch.autograd.grad(out, leaves, torch.tensor(grad_out)))


def _with_grad_bias(grad_bias: Callable[[Array], Any]) -> Callable[..., Any]:
    return lambda grad_out, x, weight: (grad_out @ weight, grad_out.T @ x, grad_bias(grad_out))


check_linear_backward = FunctionCheck(
    exercise="1.2 Backward through a linear layer",
    wants="``linear_backward(grad_out, x, weight)`` of ``x @ weight.T + bias``: gradients by x, weight and bias.",
    reference=_linear_by_autograd,
    cases=_layers,
    names=("grad_x", "grad_weight", "grad_bias"),
    right="right: two matrix products and a sum, equal to autograd's.",
    mistakes={
        "weight and bias are divided by the batch size: the loss has averaged already; sum here": lambda g, x, w: (
            (g @ w, g.T @ x / len(x), g.mean(axis=0))
        ),
        "grad_bias is averaged; the bias is used in every row, so its gradients add up": _with_grad_bias(
            lambda g: g.mean(axis=0)
        ),
        "grad_bias sums over the wrong axis: there is one number for each output, not for each sample": _with_grad_bias(
            lambda g: g.sum(axis=1)
        ),
        "grad_bias is still one row a sample: the bias is used in every row, so its gradients add up": _with_grad_bias(
            lambda g: g
        ),
        "grad_weight is transposed: it has the shape of weight, (out, in)": lambda g, x, w: (
            (g @ w, x.T @ g, g.sum(axis=0))
        ),
        "the first two are exchanged: grad_x comes first": lambda g, x, w: (g.T @ x, g @ w, g.sum(axis=0)),
        "grad_bias is one number; each output has a bias of its own": _with_grad_bias(np.sum),
    },
)


# Exercise 1.3


def _activations(seed: int) -> list[_Arrays]:
    rng = np.random.default_rng(seed)
    cases: list[_Arrays] = [(rng.normal(size=shape), rng.normal(size=shape)) for shape in ((5, 3), (1, 4), (6, 2))]
    at_zero = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0], [-3.0, -0.5, 0.5]])
    return [*cases, (rng.normal(size=(3, 3)), at_zero)]


def _relu_by_autograd(grad_out: Array, x: Array) -> Array:
    leaf = torch.tensor(x, requires_grad=True)
    return np.asarray(torch.autograd.grad(leaf.relu(), leaf, torch.tensor(grad_out))[0].numpy())


check_relu_backward = FunctionCheck(
    exercise="1.3 Backward through ReLU",
    wants="``relu_backward(grad_out, x)``; the slope at 0 is 0, as in torch.",
    reference=_relu_by_autograd,
    cases=_activations,
    right="right: where the input was negative, nothing comes back.",
    mistakes={
        "right but at x = 0, where a slope of 0 was agreed on, as in torch": lambda g, x: g * (x >= 0),
        "the mask comes from the gradient; it is the *input* that was cut off": lambda g, x: g * (g > 0),
        "this is the slope alone: multiply it by the gradient that arrives": lambda g, x: x > 0,
        "this multiplies by the output of the ReLU, not by its slope": lambda g, x: g * np.maximum(x, 0),
        "the gradient passes where x is negative, and should where it is positive": lambda g, x: g * (x <= 0),
        "this is the forward pass: ReLU of the input": lambda g, x: np.maximum(x, 0),
        "the gradient passes unchanged; where ReLU gave 0, nothing may pass": lambda g, x: g,
    },
)


# Exercise 1.4


def _logits(seed: int) -> list[tuple[Array, _Labels]]:
    rng = np.random.default_rng(seed)
    cases = [(3 * rng.normal(size=(n, k)), rng.integers(k, size=n)) for n, k in ((4, 3), (1, 2), (6, 6), (3, 10))]
    # Logits as far apart as an untrained network on raw pixels gives them.
    return [*cases, (np.array([[1000.0, 0.0, -1000.0], [0.0, 500.0, 0.0]]), np.array([1, 0]))]


def _softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _one_hot(logits: Array, labels: _Labels) -> Array:
    return np.asarray(np.eye(logits.shape[1])[labels])


def _cross_entropy(logits: Array, labels: _Labels) -> tuple[float, Array]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return float(losses.mean()), (_softmax(logits) - _one_hot(logits, labels)) / len(labels)


def _with_gradient(change: Callable[[Array, Array], Array]) -> Callable[..., tuple[float, Array]]:
    """The right loss, and another gradient from the probabilities and the one-hot labels."""
    return lambda logits, labels: (
        _cross_entropy(logits, labels)[0],
        change(_softmax(logits), _one_hot(logits, labels)),
    )


def _times(factor: float) -> Callable[..., tuple[float, Array]]:
    """The loss times a factor, and the right gradient."""
    return lambda logits, labels: (factor * _cross_entropy(logits, labels)[0], _cross_entropy(logits, labels)[1])


def _summed(logits: Array, labels: _Labels) -> tuple[float, Array]:
    loss, gradient = _cross_entropy(logits, labels)
    return loss * len(labels), gradient * len(labels)


def _from_chances(change: Callable[[Array], Array]) -> Callable[..., tuple[float, Array]]:
    """The loss as the log of the changed probabilities, and the right gradient."""

    @np.errstate(divide="ignore")
    def answer(logits: Array, labels: _Labels) -> tuple[float, Array]:
        chances = _softmax(logits)[np.arange(len(labels)), labels]
        return float(-np.log(change(chances)).mean()), _cross_entropy(logits, labels)[1]

    return answer


@np.errstate(all="ignore")
def _overflowing(logits: Array, labels: _Labels, *, masked: bool = False) -> tuple[float, Array]:
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one_hot = _one_hot(logits, labels)
    chosen = (chances * one_hot).sum(axis=1) if masked else chances[np.arange(len(labels)), labels]
    return float(-np.log(chosen).mean()), (chances - one_hot) / len(labels)


def _plus(eps: float) -> Callable[..., tuple[float, Array]]:
    return _from_chances(lambda p: p + eps)


def _at_least(eps: float) -> Callable[..., tuple[float, Array]]:
    return _from_chances(lambda p: np.maximum(p, eps))


_EPSILONS = (1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16)

check_cross_entropy = FunctionCheck(
    exercise="1.4 Softmax and cross-entropy",
    wants="``cross_entropy(logits, labels)``: the batch's mean loss, and its gradient by the logits.",
    reference=_cross_entropy,
    cases=_logits,
    names=("loss", "grad_logits"),
    right="right: softmax minus one-hot, over the batch size; and no logit is too large for it.",
    mistakes={
        "exp overflows for logits of 1000: subtract the largest logit of each row first": [
            _overflowing,
            partial(_overflowing, masked=True),
        ],
        "for logits of 1000 the softmax rounds to 0, and its log is infinite: take the log by formula, not of the "
        "rounded number": _from_chances(lambda p: p),
        "a small number inside the log keeps it finite and makes it wrong: with logits of 1000 the loss is 1000, not "
        "the log of that number; take the log by formula": [
            *map(_plus, _EPSILONS),
            *map(_at_least, _EPSILONS),
        ],
        "the loss is averaged, but its gradient is not: divide it by the batch size too": _with_gradient(
            lambda p, one: p - one
        ),
        "both are summed over the batch; take the mean": _summed,
        "the gradient is the softmax alone: the right class's part is missing": _with_gradient(
            lambda p, one: p / len(p)
        ),
        "the gradient's sign is flipped: the loss falls where the right logit grows": _with_gradient(
            lambda p, one: (one - p) / len(p)
        ),
        "the gradient is divided by the number of all entries; the mean is over the samples": _with_gradient(
            lambda p, one: (p - one) / p.size
        ),
        "the loss is taken with log2; torch and the formula use the natural log": _times(1 / np.log(2)),
        "the loss is negative: a minus is missing": _times(-1),
    },
)


# Exercise 1.5


def _batches(seed: int) -> list[tuple[Array, Array, Array, float]]:
    rng = np.random.default_rng(seed)

    def draw(n: int, features: int, eps: float) -> tuple[Array, Array, Array, float]:
        return rng.normal(3, 2, size=(n, features)), rng.normal(size=features), rng.normal(size=features), eps

    constant = draw(5, 3, 1e-5)
    constant[0][:, 1] = 2.0  # a feature that says nothing: only eps keeps it finite
    return [draw(6, 3, 1e-5), draw(4, 4, 0.1), draw(2, 5, 1e-3), constant]


def _batchnorm(x: Array, gamma: Array, beta: Array, eps: float) -> _Arrays:
    out, cache = batchnorm_forward(torch.tensor(x), torch.tensor(gamma), torch.tensor(beta), eps)
    return out.numpy(), cache.x_hat.numpy(), cache.inv_std.numpy()


def _with_scale(
    scale: Callable[[Array, float], Array], *, axis: int = 0, centred: bool = True
) -> Callable[..., _Arrays]:
    """BatchNorm with another inv_std: scale(x minus its mean, eps)."""

    @np.errstate(all="ignore")
    def forward(x: Array, gamma: Array, beta: Array, eps: float) -> _Arrays:
        deviations = x - x.mean(axis=axis, keepdims=True)
        inv_std = scale(deviations, eps)
        x_hat = (deviations if centred else x) * inv_std
        return gamma * x_hat + beta, x_hat, inv_std

    return forward


def _var(deviations: Array) -> Array:
    return np.asarray((deviations**2).mean(axis=0))


def _std_returned(x: Array, gamma: Array, beta: Array, eps: float) -> _Arrays:
    out, x_hat, inv_std = _batchnorm(x, gamma, beta, eps)
    return out, x_hat, 1 / inv_std


check_batchnorm_forward = FunctionCheck(
    exercise="1.5 BatchNorm, forward",
    wants="``batchnorm_forward(x, gamma, beta, eps)``: the output, x_hat and 1/√(var + eps).",
    reference=_batchnorm,
    cases=_batches,
    names=("out", "x_hat", "inv_std"),
    right="right: every feature standardized over the batch, the constant one among them.",
    mistakes={
        "the variance divides by n − 1; BatchNorm normalizes with the biased one, divided by n": _with_scale(
            lambda d, eps: 1 / np.sqrt((d**2).sum(axis=0) / (len(d) - 1) + eps)
        ),
        "eps is missing: a constant feature has variance 0": _with_scale(lambda d, eps: 1 / np.sqrt(_var(d))),
        "eps stands outside the root; it is added to the variance": _with_scale(
            lambda d, eps: 1 / (np.sqrt(_var(d)) + eps)
        ),
        "it normalizes over the features of each sample (that is LayerNorm); here it is over the batch: axis 0": (
            _with_scale(lambda d, eps: 1 / np.sqrt((d**2).mean(axis=1, keepdims=True) + eps), axis=1)
        ),
        "it divides by the variance; divide by its root": _with_scale(lambda d, eps: 1 / (_var(d) + eps)),
        "the mean is not subtracted": _with_scale(lambda d, eps: 1 / np.sqrt(_var(d) + eps), centred=False),
        "the third value is the standard deviation; its inverse is asked for": _std_returned,
        "gamma and beta are not applied: out is x_hat": lambda x, gamma, beta, eps: _batchnorm(
            x, np.ones_like(gamma), np.zeros_like(beta), eps
        ),
        "gamma and beta are exchanged": lambda x, gamma, beta, eps: _batchnorm(x, beta, gamma, eps),
    },
)


# Exercise 1.6


def _normalized_batches(seed: int) -> list[_Arrays]:
    rng = np.random.default_rng(seed)
    cases: list[_Arrays] = []
    for shape in ((6, 3), (4, 4), (2, 5), (9, 1)):
        features = shape[1]
        _, x_hat, inv_std = _batchnorm(rng.normal(3, 2, size=shape), np.ones(features), np.ones(features), 1e-5)
        cases.append((rng.normal(size=shape), rng.normal(size=features), x_hat, inv_std))
    return cases


def _batchnorm_backward(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
    unused = torch.zeros(0)
    cache = BatchNormCache(torch.tensor(x_hat), torch.tensor(inv_std), torch.tensor(gamma), unused, unused)
    found = batchnorm_backward(torch.tensor(grad_out), cache)
    return tuple(gradient.numpy() for gradient in found)


def _with_grad_x(change: Callable[[Array, Array], Array]) -> Callable[..., _Arrays]:
    """Another gradient by x: inv_std times change(grad_out · gamma, x_hat)."""

    def backward(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
        _, grad_gamma, grad_beta = _batchnorm_backward(grad_out, gamma, x_hat, inv_std)
        return inv_std * change(grad_out * gamma, x_hat), grad_gamma, grad_beta

    return backward


def _without_gamma(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
    return _batchnorm_backward(grad_out, np.ones_like(gamma), x_hat, inv_std)


def _without_inv_std(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
    return _batchnorm_backward(grad_out, gamma, x_hat, np.ones_like(inv_std))


def _averaged(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
    grad_x, grad_gamma, grad_beta = _batchnorm_backward(grad_out, gamma, x_hat, inv_std)
    return grad_x, grad_gamma / len(x_hat), grad_beta / len(x_hat)


def _not_summed(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
    return _batchnorm_backward(grad_out, gamma, x_hat, inv_std)[0], grad_out * x_hat, grad_out


def _exchanged(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> _Arrays:
    grad_x, grad_gamma, grad_beta = _batchnorm_backward(grad_out, gamma, x_hat, inv_std)
    return grad_x, grad_beta, grad_gamma


def _draw_influence() -> tuple[Figure, str]:
    """Draw how each sample's normalized value depends on every sample of the batch, for one feature."""
    import matplotlib.pyplot as plt

    x = np.sort(np.random.default_rng(1).normal(size=8))
    x_hat = (x - x.mean()) / x.std()
    slopes = (np.eye(8) - 1 / 8 - np.outer(x_hat, x_hat) / 8) / x.std()
    figure, ax = plt.subplots(figsize=(4.6, 3.6))
    limit = np.abs(slopes).max()
    image = ax.imshow(slopes, cmap=DIVERGING, vmin=-limit, vmax=limit)
    ax.set(xlabel="nudged sample", ylabel="sample that moves", title="BatchNorm ties the batch together")
    ax.grid(visible=False)
    figure.colorbar(image, label="slope of the output")
    return figure, (
        "An 8 by 8 matrix of slopes for one feature of a batch of eight, sorted by value. The diagonal is positive, "
        "and nearly all other entries are not zero either: nudging one sample moves all others."
    )


check_batchnorm_backward = FunctionCheck(
    exercise="1.6 BatchNorm, backward",
    wants="``batchnorm_backward(grad_out, gamma, x_hat, inv_std)``: gradients by x, gamma and beta.",
    reference=_batchnorm_backward,
    cases=_normalized_batches,
    names=("grad_x", "grad_gamma", "grad_beta"),
    right="right: three ways lead from x to the loss, and you took them all.",
    mistakes={
        "grad_x treats mean and variance as constants; both depend on x": _with_grad_x(lambda g, x: g),
        "grad_x lacks the way through the mean": _with_grad_x(lambda g, x: g - x * (g * x).mean(axis=0)),
        "grad_x lacks the way through the variance": _with_grad_x(lambda g, x: g - g.mean(axis=0)),
        "grad_x has deck 002's x̂² in place of x̂·mean(g·x̂): the two factors belong to different samples": _with_grad_x(
            lambda g, x: g - g.mean(axis=0) - x**2 * g.mean(axis=0)
        ),
        "grad_x lacks gamma: what arrives at x_hat is grad_out times gamma": _without_gamma,
        "grad_x has sums over the batch where means belong": _with_grad_x(
            lambda g, x: g - g.sum(axis=0) - x * (g * x).sum(axis=0)
        ),
        "grad_x adds the way through the variance; it is subtracted": _with_grad_x(
            lambda g, x: g - g.mean(axis=0) + x * (g * x).mean(axis=0)
        ),
        "grad_x averages over the features; mean and variance are over the batch: axis 0": _with_grad_x(
            lambda g, x: g - g.mean(axis=1, keepdims=True) - x * (g * x).mean(axis=1, keepdims=True)
        ),
        "grad_x lacks the factor inv_std": _without_inv_std,
        "grad_gamma and grad_beta are averaged; both serve every sample, so their gradients add up": _averaged,
        "grad_gamma and grad_beta are not summed over the batch": _not_summed,
        "grad_gamma and grad_beta are exchanged": _exchanged,
    },
    figure=_draw_influence,
)


# Exercise 1.7

# The order of the backward pass, so that the first wrong one is where the mistake was made.
_BACKWARD_ORDER = ("weight2", "bias2", "gamma", "beta", "weight1", "bias1")
_EPS = 1e-5


def make_parameters(in_features: int, hidden_features: int, out_features: int, *, seed: int = 0) -> dict[str, Array]:
    """Return the six parameters of linear → BatchNorm → ReLU → linear, float64, weights as torch has them.

    Args:
        in_features: width of the input.
        hidden_features: width of the hidden layer.
        out_features: number of classes.
        seed: draws the weights from He's distribution.

    Returns:
        ``weight1`` (hidden, in), ``bias1``, ``gamma``, ``beta`` (hidden,), ``weight2`` (out, hidden), ``bias2`` (out,).
    """
    rng = np.random.default_rng(seed)
    return {
        "weight1": rng.normal(0, np.sqrt(2 / in_features), (hidden_features, in_features)),
        "bias1": np.zeros(hidden_features),
        "gamma": np.ones(hidden_features),
        "beta": np.zeros(hidden_features),
        "weight2": rng.normal(0, np.sqrt(2 / hidden_features), (out_features, hidden_features)),
        "bias2": np.zeros(out_features),
    }


def _networks(seed: int) -> list[tuple[dict[str, Array], Array, _Labels]]:
    rng = np.random.default_rng(seed)
    cases = []
    for number, (n, i, h, o) in enumerate(((8, 4, 5, 3), (6, 6, 6, 6), (2, 3, 4, 2))):
        parameters = make_parameters(i, h, o, seed=seed + number)
        for name in ("bias1", "gamma", "beta", "bias2"):
            parameters[name] = rng.normal(1, 0.5, size=parameters[name].shape)
        cases.append((parameters, rng.normal(size=(n, i)), rng.integers(o, size=n)))
    return cases


def _network_by_autograd(parameters: Mapping[str, Array], x: Array, labels: _Labels) -> tuple[float, dict[str, Array]]:
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in parameters.items()}
    hidden = nn.functional.linear(torch.tensor(x), leaves["weight1"], leaves["bias1"])
    normed = nn.functional.batch_norm(hidden, None, None, leaves["gamma"], leaves["beta"], training=True, eps=_EPS)
    logits = nn.functional.linear(normed.relu(), leaves["weight2"], leaves["bias2"])
    loss = nn.functional.cross_entropy(logits, torch.tensor(labels))
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss.item(), {name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)}


def _network(
    parameters: Mapping[str, Array], x: Array, labels: _Labels, *, fault: str
) -> tuple[float, dict[str, Array]]:
    """The same in NumPy, with a fault that students make."""
    hidden = x @ parameters["weight1"].T + parameters["bias1"]
    normed, x_hat, inv_std = _batchnorm(hidden, parameters["gamma"], parameters["beta"], _EPS)
    active = np.maximum(normed, 0)
    logits = active @ parameters["weight2"].T + parameters["bias2"]
    loss, grad_logits = _cross_entropy(logits, labels)
    if fault == "summed":
        grad_logits = grad_logits * len(x)

    entered = {"mask of x_hat": x_hat, "mask of hidden": hidden}.get(fault, normed)
    mask = np.ones_like(normed) if fault == "no mask" else entered > 0
    grad_normed = grad_logits @ parameters["weight2"] * mask
    grad_hidden, grad_gamma, grad_beta = _batchnorm_backward(grad_normed, parameters["gamma"], x_hat, inv_std)
    if fault == "no norm":
        grad_hidden = grad_normed
    if fault == "constants":
        grad_hidden = grad_normed * parameters["gamma"] * inv_std
    return loss * len(x) if fault == "loss only" else loss, {
        "weight2": grad_logits.T @ (normed if fault == "normed" else active),
        "bias2": grad_logits.sum(axis=0),
        "gamma": grad_gamma,
        "beta": grad_beta,
        "weight1": grad_hidden.T @ x,
        "bias1": grad_hidden.sum(axis=0),
    }


def _seven_values(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that returns a loss and a dict of gradients; put them in the order of the backward pass."""
    found = function(*arguments)
    if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[1], Mapping):
        return found
    loss, gradients = found
    lacking = [name for name in _BACKWARD_ORDER if name not in gradients]
    surplus = [str(name) for name in gradients if name not in _BACKWARD_ORDER]
    if lacking or surplus:
        told = f"lacking: {', '.join(lacking) or 'none'}; not asked for: {', '.join(surplus) or 'none'}"
        raise ValueError(f"the dict of gradients has other names than the parameters ({told})")
    return (loss, *(gradients[name] for name in _BACKWARD_ORDER))


check_loss_and_gradients = FunctionCheck(
    exercise="1.7 The whole network",
    wants="``loss_and_gradients(parameters, x, labels)`` of linear → BatchNorm → ReLU → linear → cross-entropy.",
    reference=_network_by_autograd,
    cases=_networks,
    call=_seven_values,
    names=("loss", *_BACKWARD_ORDER),
    rtol=1e-6,
    atol=1e-10,
    exact_type=True,  # the exercise is to do without torch
    right="right: the loss and six gradients, equal to autograd's; the one by bias1 is 0, as it must be.",
    mistakes={
        "the gradients from gamma on are wrong: ReLU's backward is missing between linear 2 and BatchNorm": partial(
            _network, fault="no mask"
        ),
        "ReLU's mask comes from x_hat; what entered the ReLU was gamma·x_hat + beta": partial(
            _network, fault="mask of x_hat"
        ),
        "ReLU's mask comes from the output of linear 1; what entered the ReLU was gamma·x_hat + beta": partial(
            _network, fault="mask of hidden"
        ),
        "weight1 gets the gradient of BatchNorm's *output*: BatchNorm's own backward is missing": partial(
            _network, fault="no norm"
        ),
        "weight1: BatchNorm's backward treats mean and variance as constants": partial(_network, fault="constants"),
        "weight2: its input was the output of the ReLU, not that of BatchNorm": partial(_network, fault="normed"),
        "the gradients are sums over the batch, while the loss is a mean: divide grad_logits by the batch size": (
            partial(_network, fault="summed")
        ),
        "the loss is the sum over the batch; take the mean": partial(_network, fault="loss only"),
    },
)

EXERCISES = exercises_of(globals())
