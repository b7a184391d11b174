"""The network of homework 1: its parameters, its gradients by autograd and by hand, with the faults students make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from course_utils.plotting import COLORS, DIVERGING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BACKWARD_ORDER",
    "FAULTS",
    "Array",
    "by_autograd",
    "by_hand",
    "draw_influence",
    "draw_step_sizes",
    "flatten",
    "make_parameters",
    "softmax",
]

Array = NDArray[np.float64]

# The order of the backward pass, so that the first wrong one is where the mistake was made.
BACKWARD_ORDER = ("weight2", "bias2", "gamma", "beta", "weight1", "bias1")
EPS = 1e-5

FAULTS = {
    "no mask": "the gradients from gamma on are wrong: ReLU's backward is missing between linear 2 and BatchNorm",
    "mask of x_hat": "ReLU's mask comes from x_hat; what entered the ReLU was gamma·x_hat + beta",
    "mask of hidden": "ReLU's mask comes from the output of linear 1; what entered the ReLU was gamma·x_hat + beta",
    "no norm": "weight1 gets the gradient of BatchNorm's *output*: BatchNorm's own backward is missing",
    "constants": "weight1: BatchNorm's backward treats mean and variance as constants",
    "normed": "weight2: its input was the output of the ReLU, not that of BatchNorm",
    "summed": "the gradients are sums over the batch, while the loss is a mean: divide grad_logits by the batch size",
    "loss only": "the loss is the sum over the batch; take the mean",
}


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


def softmax(logits: Array) -> Array:
    """Return the probabilities, (batch, classes), of logits of that shape."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def by_autograd(parameters: Mapping[str, Array], x: Array, labels: NDArray[np.int64]) -> tuple[float, dict[str, Array]]:
    """Return the mean loss and the gradient of every parameter, by torch: the oracle."""
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in parameters.items()}
    hidden = nn.functional.linear(torch.tensor(x), leaves["weight1"], leaves["bias1"])
    normed = nn.functional.batch_norm(hidden, None, None, leaves["gamma"], leaves["beta"], training=True, eps=EPS)
    logits = nn.functional.linear(normed.relu(), leaves["weight2"], leaves["bias2"])
    loss = nn.functional.cross_entropy(logits, torch.tensor(labels))
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss.item(), {name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)}


def by_hand(
    parameters: Mapping[str, Array], x: Array, labels: NDArray[np.int64], *, fault: str = ""
) -> tuple[float, dict[str, Array]]:
    """Return the same in NumPy, or with one of `FAULTS` what a student gets who makes it."""
    p, n = parameters, len(x)
    hidden = x @ p["weight1"].T + p["bias1"]
    inv_std = 1 / np.sqrt(hidden.var(axis=0) + EPS)
    x_hat = (hidden - hidden.mean(axis=0)) * inv_std
    normed = p["gamma"] * x_hat + p["beta"]
    active = np.maximum(normed, 0)
    logits = active @ p["weight2"].T + p["bias2"]
    losses = -np.log(softmax(logits)[np.arange(n), labels])

    grad_logits = (softmax(logits) - np.eye(logits.shape[1])[labels]) / (1 if fault == "summed" else n)
    entered = {"mask of x_hat": x_hat, "mask of hidden": hidden}.get(fault, normed)
    mask = np.ones_like(normed) if fault == "no mask" else entered > 0
    grad_normed = grad_logits @ p["weight2"] * mask
    g = grad_normed * p["gamma"]
    grad_hidden = {
        "no norm": grad_normed,
        "constants": g * inv_std,
    }.get(fault, inv_std * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0)))
    return float(losses.sum() if fault == "loss only" else losses.mean()), {
        "weight2": grad_logits.T @ (normed if fault == "normed" else active),
        "bias2": grad_logits.sum(axis=0),
        "gamma": (grad_normed * x_hat).sum(axis=0),
        "beta": grad_normed.sum(axis=0),
        "weight1": grad_hidden.T @ x,
        "bias1": grad_hidden.sum(axis=0),
    }


def flatten(found: Any) -> Any:
    """Return ``(loss, gradients)`` as seven values in the order of the backward pass; anything else as it is.

    Raises:
        ValueError: the names of the gradients are not those of the parameters.
    """
    if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[1], Mapping):
        return found
    loss, gradients = found
    lacking = [name for name in BACKWARD_ORDER if name not in gradients]
    surplus = [str(name) for name in gradients if name not in BACKWARD_ORDER]
    if lacking or surplus:
        told = f"lacking: {', '.join(lacking) or 'none'}; not asked for: {', '.join(surplus) or 'none'}"
        raise ValueError(f"the dict of gradients has other names than the parameters ({told})")
    return (loss, *(gradients[name] for name in BACKWARD_ORDER))


def draw_step_sizes() -> tuple[Figure, str]:
    """Draw the error of forward and central differences over the step, for the slope of exp at 1."""
    import matplotlib.pyplot as plt

    steps = np.logspace(-13, -1, 49)
    figure, ax = plt.subplots(figsize=(6.5, 3.2))
    methods: dict[str, Callable[[Array], Array]] = {
        "forward": lambda h: (np.exp(1 + h) - np.exp(1)) / h,
        "central": lambda h: (np.exp(1 + h) - np.exp(1 - h)) / (2 * h),
    }
    for (name, method), color in zip(methods.items(), (COLORS["orange"], COLORS["blue"]), strict=True):
        ax.loglog(steps, np.abs(method(steps) / math.e - 1) + 1e-17, color=color, label=name)
    ax.set(xlabel="step", ylabel="relative error", title="Slope of exp at 1, by nudging")
    ax.legend()
    return figure, (
        "Relative error against the step, both axes logarithmic. From the right both fall with the step, the central "
        "one twice as steeply, down to about 1e-11 for steps near 1e-6; further left rounding makes both grow again."
    )


def draw_influence() -> tuple[Figure, str]:
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
