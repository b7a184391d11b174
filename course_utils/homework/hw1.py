"""Homework 1: checks of backpropagation by hand, in NumPy: each layer's gradient, and a whole network's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from course_utils.homework._network_by_hand import (
    BACKWARD_ORDER,
    FAULTS,
    Array,
    by_autograd,
    by_hand,
    draw_influence,
    draw_step_sizes,
    flatten,
    make_parameters,
    softmax,
)
from course_utils.homework.engine.judge import Mistake, judge
from course_utils.homework.engine.verdict import Verdict
from course_utils.layers import BatchNormCache, batchnorm_backward, batchnorm_forward

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

EXERCISES = (
    "1.1 A gradient by nudging",
    "1.2 Backward through a linear layer",
    "1.3 Backward through ReLU",
    "1.4 Softmax and cross-entropy",
    "1.5 BatchNorm, forward",
    "1.6 BatchNorm, backward",
    "1.7 The whole network",
)

_Function = Callable[[Array], float]


def check_numerical_gradient(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``numerical_gradient(function, x, step)``: central differences, of the shape of ``x``."""
    rng = np.random.default_rng(seed)
    cases = []
    # Steps so large that forward and central differences differ in the second digit.
    for shape, step in (((3,), 0.1), ((2, 4), 0.05), ((1,), 0.2), ((2, 2, 2), 0.1)):
        weights = rng.normal(size=shape)

        def cubic(x: Array, weights: Array = weights) -> float:
            return float((weights * x**3).sum() + x.sum() ** 2 + np.prod(x))

        cases.append((cubic, rng.normal(size=shape), step))

    def differences(ahead: float, behind: float, divisor: float) -> Callable[..., Array]:
        def gradient(function: _Function, x: Array, step: float) -> Array:
            slopes = np.zeros_like(x)
            for place in np.ndindex(x.shape):
                nudge = np.zeros_like(x)
                nudge[place] = step
                slopes[place] = (function(x + ahead * nudge) - function(x - behind * nudge)) / (divisor * step)
            return slopes

        return gradient

    def all_at_once(function: _Function, x: Array, step: float) -> Array:
        return np.full_like(x, (function(x + step) - function(x - step)) / (2 * step))

    mistakes = [
        Mistake("these are *forward* differences: nudge to both sides", differences(1, 0, 1)),
        Mistake("these are *backward* differences: nudge to both sides", differences(0, 1, 1)),
        Mistake("you divide by the step; from left to right it is twice as far", differences(1, 1, 1)),
        Mistake("the difference is not divided by the distance", lambda f, x, h: differences(1, 1, 1)(f, x, h) * h),
        Mistake("the nudges go half as far as `step` says", differences(0.5, 0.5, 1)),
        Mistake("all entries are nudged at once; one at a time gives one slope each", all_at_once),
        Mistake("left and right are exchanged: the sign is flipped", differences(1, 1, -2)),
    ]
    return judge(
        student,
        exercise=EXERCISES[0],
        reference=differences(1, 1, 2),
        cases=cases,
        mistakes=mistakes,
        rtol=1e-6,
        right="right: one nudge to each side for every entry, an oracle for all that follows.",
        figure=draw_step_sizes,
    )


def check_linear_backward(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``linear_backward(grad_out, x, weight)`` of ``x @ weight.T + bias``: gradients by x, weight and bias."""
    rng = np.random.default_rng(seed)
    sizes = ((5, 3, 2), (4, 4, 4), (1, 3, 2), (7, 2, 6))
    cases = [(rng.normal(size=(n, o)), rng.normal(size=(n, i)), rng.normal(size=(o, i))) for n, i, o in sizes]

    def right(grad_out: Array, x: Array, weight: Array) -> tuple[Array, ...]:
        leaves = [torch.tensor(value, requires_grad=True) for value in (x, weight, np.zeros(len(weight)))]
        out = nn.functional.linear(*leaves)
        return tuple(g.numpy() for g in torch.autograd.grad(out, leaves, torch.tensor(grad_out)))

    def averaged(g: Array, x: Array, w: Array) -> tuple[Array, ...]:
        return g @ w, g.T @ x / len(x), g.mean(axis=0)

    mistakes = [
        Mistake("weight and bias are divided by the batch size: the loss has averaged already; sum here", averaged),
        Mistake("grad_bias is averaged; the bias is used in every row, so its gradients add up",
                lambda g, x, w: (g @ w, g.T @ x, g.mean(axis=0))),
        Mistake("grad_bias sums over the wrong axis: there is one number for each output, not for each sample",
                lambda g, x, w: (g @ w, g.T @ x, g.sum(axis=1))),
        Mistake("grad_bias is still one row a sample: the bias is used in every row, so its gradients add up",
                lambda g, x, w: (g @ w, g.T @ x, g)),
        Mistake("grad_weight is transposed: it has the shape of weight, (out, in)",
                lambda g, x, w: (g @ w, x.T @ g, g.sum(axis=0))),
        Mistake("the first two are exchanged: grad_x comes first", lambda g, x, w: (g.T @ x, g @ w, g.sum(axis=0))),
        Mistake("grad_bias is one number; each output has a bias of its own",
                lambda g, x, w: (g @ w, g.T @ x, g.sum())),
    ]  # fmt: skip
    return judge(
        student,
        exercise=EXERCISES[1],
        reference=right,
        cases=cases,
        mistakes=mistakes,
        names=("grad_x", "grad_weight", "grad_bias"),
        right="right: two matrix products and a sum, equal to autograd's.",
    )


def check_relu_backward(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``relu_backward(grad_out, x)``; the slope at 0 is 0, as in torch."""
    rng = np.random.default_rng(seed)
    cases = [(rng.normal(size=shape), rng.normal(size=shape)) for shape in ((5, 3), (1, 4), (6, 2))]
    cases.append((rng.normal(size=(3, 3)), np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0], [-3.0, -0.5, 0.5]])))

    def right(grad_out: Array, x: Array) -> Array:
        leaf = torch.tensor(x, requires_grad=True)
        return np.asarray(torch.autograd.grad(leaf.relu(), leaf, torch.tensor(grad_out))[0].numpy())

    mistakes = [
        Mistake("right but at x = 0, where a slope of 0 was agreed on, as in torch", lambda g, x: g * (x >= 0)),
        Mistake("the mask comes from the gradient; it is the *input* that was cut off", lambda g, x: g * (g > 0)),
        Mistake("this is the slope alone: multiply it by the gradient that arrives", lambda g, x: (x > 0) * 1.0),
        Mistake("this multiplies by the output of the ReLU, not by its slope", lambda g, x: g * np.maximum(x, 0)),
        Mistake("the gradient passes where x is negative, and should where it is positive", lambda g, x: g * (x <= 0)),
        Mistake("this is the forward pass: ReLU of the input", lambda g, x: np.maximum(x, 0)),
        Mistake("the gradient passes unchanged; where ReLU gave 0, nothing may pass", lambda g, x: g),
    ]
    return judge(
        student,
        exercise=EXERCISES[2],
        reference=right,
        cases=cases,
        mistakes=mistakes,
        right="right: where the input was negative, nothing comes back.",
    )


def check_cross_entropy(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``cross_entropy(logits, labels)``: the batch's mean loss, and its gradient by the logits."""
    rng = np.random.default_rng(seed)
    cases = [(3 * rng.normal(size=(n, k)), rng.integers(k, size=n)) for n, k in ((4, 3), (1, 2), (6, 6), (3, 10))]
    # Logits as far apart as an untrained network on raw pixels gives them.
    cases.append((np.array([[1000.0, 0.0, -1000.0], [0.0, 500.0, 0.0]]), np.array([1, 0])))

    def right(logits: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
        return float(losses.mean()), (softmax(logits) - np.eye(logits.shape[1])[labels]) / len(labels)

    def from_gradient(change: Callable[[Array, Array], Array]) -> Callable[..., tuple[float, Array]]:
        """The right loss, and another gradient from the probabilities and the one-hot labels."""
        return lambda logits, labels: (
            right(logits, labels)[0],
            change(softmax(logits), np.eye(logits.shape[1])[labels]),
        )

    def summed(logits: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
        loss, gradient = right(logits, labels)
        return loss * len(labels), gradient * len(labels)

    def from_loss(factor: float) -> Callable[..., tuple[float, Array]]:
        return lambda logits, labels: (factor * right(logits, labels)[0], right(logits, labels)[1])

    @np.errstate(all="ignore")
    def log_of_softmax(logits: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
        loss = -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()
        return float(loss), right(logits, labels)[1]

    @np.errstate(all="ignore")
    def overflowing(logits: Array, labels: NDArray[np.int64], *, masked: bool = False) -> tuple[float, Array]:
        chances, one_hot = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), np.eye(logits.shape[1])[labels]
        chosen = (chances * one_hot).sum(axis=1) if masked else chances[np.arange(len(labels)), labels]
        return float(-np.log(chosen).mean()), (chances - one_hot) / len(labels)

    overflow = "exp overflows for logits of 1000: subtract the largest logit of each row first"
    mistakes = [
        Mistake(overflow, overflowing),
        Mistake(overflow, partial(overflowing, masked=True)),
        Mistake("for logits of 1000 the softmax rounds to 0, and its log is infinite: take the log by formula, not "
                "of the rounded number", log_of_softmax),
        Mistake("the loss is averaged, but its gradient is not: divide it by the batch size too",
                from_gradient(lambda p, one: p - one)),
        Mistake("both are summed over the batch; take the mean", summed),
        Mistake("the gradient is the softmax alone: the right class's part is missing",
                from_gradient(lambda p, one: p / len(p))),
        Mistake("the gradient's sign is flipped: the loss falls where the right logit grows",
                from_gradient(lambda p, one: (one - p) / len(p))),
        Mistake("the gradient is divided by the number of all entries; the mean is over the samples",
                from_gradient(lambda p, one: (p - one) / p.size)),
        Mistake("the loss is taken with log2; torch and the formula use the natural log", from_loss(1 / np.log(2))),
        Mistake("the loss is negative: a minus is missing", from_loss(-1)),
    ]  # fmt: skip
    return judge(
        student,
        exercise=EXERCISES[3],
        reference=right,
        cases=cases,
        mistakes=mistakes,
        names=("loss", "grad_logits"),
        right="right: softmax minus one-hot, over the batch size; and no logit is too large for it.",
    )


def check_batchnorm_forward(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``batchnorm_forward(x, gamma, beta, eps)``: the output, x_hat and 1/√(var + eps)."""
    rng = np.random.default_rng(seed)
    cases = []
    for shape, eps in (((6, 3), 1e-5), ((4, 4), 0.1), ((2, 5), 1e-3)):
        x = rng.normal(3, 2, size=shape)
        cases.append((x, rng.normal(size=shape[1]), rng.normal(size=shape[1]), eps))
    constant = rng.normal(size=(5, 3))
    constant[:, 1] = 2.0  # a feature that says nothing: only eps keeps it finite
    cases.append((constant, rng.normal(size=3), rng.normal(size=3), 1e-5))

    def right(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, ...]:
        out, cache = batchnorm_forward(torch.tensor(x), torch.tensor(gamma), torch.tensor(beta), eps)
        return out.numpy(), cache.x_hat.numpy(), cache.inv_std.numpy()

    def variant(
        scale: Callable[[Array, float], Array], *, axis: int = 0, centred: bool = True
    ) -> Callable[..., tuple[Array, ...]]:
        def forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, ...]:
            with np.errstate(all="ignore"):
                inv_std = scale(x - x.mean(axis=axis, keepdims=True), eps)
                x_hat = (x - x.mean(axis=axis, keepdims=True) if centred else x) * inv_std
                return gamma * x_hat + beta, x_hat, inv_std

        return forward

    def var(c: Array) -> Array:
        return np.asarray((c**2).mean(axis=0))

    def from_right(change: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
        return lambda x, gamma, beta, eps: change(*right(x, gamma, beta, eps), gamma, beta)

    mistakes = [
        Mistake("the variance divides by n − 1; BatchNorm normalizes with the biased one, divided by n",
                variant(lambda c, eps: 1 / np.sqrt((c**2).sum(axis=0) / (len(c) - 1) + eps))),
        Mistake("eps is missing: a constant feature has variance 0", variant(lambda c, eps: 1 / np.sqrt(var(c)))),
        Mistake("eps stands outside the root; it is added to the variance",
                variant(lambda c, eps: 1 / (np.sqrt(var(c)) + eps))),
        Mistake("it normalizes over the features of each sample (that is LayerNorm); here it is over the batch: axis 0",
                variant(lambda c, eps: 1 / np.sqrt((c**2).mean(axis=1, keepdims=True) + eps), axis=1)),
        Mistake("it divides by the variance; divide by its root", variant(lambda c, eps: 1 / (var(c) + eps))),
        Mistake("the mean is not subtracted", variant(lambda c, eps: 1 / np.sqrt(var(c) + eps), centred=False)),
        Mistake("the third value is the standard deviation; its inverse is asked for",
                from_right(lambda out, x_hat, inv, gamma, beta: (out, x_hat, 1 / inv))),
        Mistake("gamma and beta are not applied: out is x_hat",
                from_right(lambda out, x_hat, inv, gamma, beta: (x_hat, x_hat, inv))),
        Mistake("gamma and beta are exchanged",
                from_right(lambda out, x_hat, inv, gamma, beta: (beta * x_hat + gamma, x_hat, inv))),
    ]  # fmt: skip
    return judge(
        student,
        exercise=EXERCISES[4],
        reference=right,
        cases=cases,
        mistakes=mistakes,
        names=("out", "x_hat", "inv_std"),
        right="right: every feature standardized over the batch, the constant one among them.",
    )


def check_batchnorm_backward(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``batchnorm_backward(grad_out, gamma, x_hat, inv_std)``: gradients by x, gamma and beta."""
    rng = np.random.default_rng(seed)
    cases = []
    for shape in ((6, 3), (4, 4), (2, 5), (9, 1)):
        _, cache = batchnorm_forward(torch.tensor(rng.normal(3, 2, size=shape)), *torch.ones(2, shape[1]).double())
        cases.append((rng.normal(size=shape), rng.normal(size=shape[1]), cache.x_hat.numpy(), cache.inv_std.numpy()))

    def right(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> tuple[Array, ...]:
        unused = torch.zeros(0)
        cache = BatchNormCache(torch.tensor(x_hat), torch.tensor(inv_std), torch.tensor(gamma), unused, unused)
        found = batchnorm_backward(torch.tensor(grad_out), cache)
        return tuple(gradient.numpy() for gradient in found)

    def by_x(change: Callable[[Array, Array], Array], *, with_gamma: bool = True) -> Callable[..., tuple[Array, ...]]:
        """The right gradients by gamma and beta, and another by x, from g and x_hat."""

        def backward(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> tuple[Array, ...]:
            g = grad_out * gamma if with_gamma else grad_out
            return (inv_std * change(g, x_hat), *right(grad_out, gamma, x_hat, inv_std)[1:])

        return backward

    def full(g: Array, x: Array) -> Array:
        return np.asarray(g - g.mean(axis=0) - x * (g * x).mean(axis=0))

    def averaged(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> tuple[Array, ...]:
        grad_x, *others = right(grad_out, gamma, x_hat, inv_std)
        return (grad_x, *(other / len(x_hat) for other in others))

    def not_summed(grad_out: Array, gamma: Array, x_hat: Array, inv_std: Array) -> tuple[Array, ...]:
        return right(grad_out, gamma, x_hat, inv_std)[0], grad_out * x_hat, grad_out

    def exchanged(*arguments: Array) -> tuple[Array, ...]:
        grad_x, grad_gamma, grad_beta = right(*arguments)
        return grad_x, grad_beta, grad_gamma

    mistakes = [
        Mistake("grad_x treats mean and variance as constants; both depend on x", by_x(lambda g, x: g)),
        Mistake("grad_x lacks the way through the mean", by_x(lambda g, x: g - x * (g * x).mean(axis=0))),
        Mistake("grad_x lacks the way through the variance", by_x(lambda g, x: g - g.mean(axis=0))),
        Mistake("grad_x has deck 002's x̂² in place of x̂·mean(g·x̂): the two factors belong to different samples",
                by_x(lambda g, x: g - g.mean(axis=0) - x**2 * g.mean(axis=0))),
        Mistake("grad_x lacks gamma: what arrives at x_hat is grad_out times gamma", by_x(full, with_gamma=False)),
        Mistake("grad_x has sums over the batch where means belong",
                by_x(lambda g, x: g - g.sum(axis=0) - x * (g * x).sum(axis=0))),
        Mistake("grad_x adds the way through the variance; it is subtracted",
                by_x(lambda g, x: g - g.mean(axis=0) + x * (g * x).mean(axis=0))),
        Mistake("grad_x averages over the features; mean and variance are over the batch: axis 0",
                by_x(lambda g, x: g - g.mean(axis=1, keepdims=True) - x * (g * x).mean(axis=1, keepdims=True))),
        Mistake("grad_x lacks the factor inv_std", lambda d, gamma, x, inv: right(d, gamma, x, np.ones_like(inv))),
        Mistake("grad_gamma and grad_beta are averaged; both serve every sample, so their gradients add up", averaged),
        Mistake("grad_gamma and grad_beta are not summed over the batch", not_summed),
        Mistake("grad_gamma and grad_beta are exchanged", exchanged),
    ]  # fmt: skip
    return judge(
        student,
        exercise=EXERCISES[5],
        reference=right,
        cases=cases,
        mistakes=mistakes,
        names=("grad_x", "grad_gamma", "grad_beta"),
        right="right: three ways lead from x to the loss, and you took them all.",
        figure=draw_influence,
    )


def check_loss_and_gradients(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``loss_and_gradients(parameters, x, labels)`` of linear → BatchNorm → ReLU → linear → cross-entropy."""
    rng = np.random.default_rng(seed)
    cases = []
    for number, (n, i, h, o) in enumerate(((8, 4, 5, 3), (6, 6, 6, 6), (2, 3, 4, 2))):
        parameters = make_parameters(i, h, o, seed=seed + number)
        for name in ("bias1", "gamma", "beta", "bias2"):
            parameters[name] = rng.normal(1, 0.5, size=parameters[name].shape)
        cases.append((parameters, rng.normal(size=(n, i)), rng.integers(o, size=n)))

    def with_fault(fault: str) -> Callable[..., Any]:
        return lambda parameters, x, labels: by_hand(parameters, x, labels, fault=fault)

    return judge(
        student,
        exercise=EXERCISES[6],
        reference=by_autograd,
        cases=cases,
        mistakes=[Mistake(says, with_fault(fault)) for fault, says in FAULTS.items()],
        names=("loss", *BACKWARD_ORDER),
        call=lambda function, *arguments: flatten(function(*arguments)),
        rtol=1e-6,
        atol=1e-10,
        right="right: the loss and six gradients, equal to autograd's; the one by bias1 is 0, as it must be.",
    )
