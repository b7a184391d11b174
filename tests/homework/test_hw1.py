"""The checks of homework 1: right solutions in two styles pass, and each fault of a wrong one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.homework import hw1 as module
from course_utils.homework._network_by_hand import FAULTS, by_hand
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.homework.hw1 import make_parameters


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads, and much slower when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------ numerical gradient


def numerical(function: Any, x: Any, step: float) -> Any:
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[place] = step
        gradient[place] = (function(x + nudge) - function(x - nudge)) / (2 * step)
    return gradient


def numerical_flat(function: Any, x: Any, step: float) -> Any:
    slopes = []
    for number in range(x.size):
        values = []
        for sign in (1, -1):
            moved = x.copy().reshape(-1)
            moved[number] += sign * step
            values.append(function(moved.reshape(x.shape)))
        slopes.append((values[0] - values[1]) / (2 * step))
    return np.array(slopes).reshape(x.shape)


def numerical_in_place(function: Any, x: Any, step: float) -> Any:
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        x[place] += step
        ahead = function(x)
        x[place] -= 2 * step
        gradient[place] = (ahead - function(x)) / (2 * step)
    return gradient


def nudged(ahead: float, behind: float, divisor: float) -> Callable[..., Any]:
    def gradient(function: Any, x: Any, step: float) -> Any:
        found = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            nudge = np.zeros_like(x)
            nudge[place] = 1
            found[place] = (function(x + ahead * step * nudge) - function(x - behind * step * nudge)) / divisor
            found[place] /= step
        return found

    return gradient


def integer_gradient(function: Any, x: Any, step: float) -> Any:
    return numerical(function, x, step).astype(int)


NUMERICAL = Proof(
    right=[numerical, numerical_flat],
    wrong=[
        (nudged(1, 0, 1), "*forward* differences"),
        (nudged(0, 1, 1), "*backward* differences"),
        (nudged(1, 1, 1), "twice as far"),
        (nudged(0.5, 0.5, 1), "half as far"),
        (nudged(-1, -1, 2), "the sign is flipped"),
        (lambda f, x, h: 3 * numerical(f, x, h), "every value is 3 times"),
        (lambda f, x, h: h * nudged(1, 1, 1)(f, x, h), "not divided by the distance"),
        (lambda f, x, h: np.full_like(x, (f(x + h) - f(x - h)) / (2 * h)), "nudged at once"),
        (numerical_in_place, "changes its input in place"),
        (lambda f, x, h: numerical(f, x, h).ravel(), "the shape is (8,); (2, 4) is expected"),
        (lambda f, x, h: None, "is the `return` missing?"),
        (integer_gradient, "dtype is int64"),
        (lambda f, x, h: numerical(f, x, 1e-6), "values differ"),
        (lambda f, x, h: numerical(f, x, h).tolist(), "it returns a list"),
    ],
)

# ------------------------------------------------------------------------------------------------ linear and ReLU


def linear(grad_out: Any, x: Any, weight: Any) -> Any:
    return grad_out @ weight, grad_out.T @ x, grad_out.sum(axis=0)


def linear_by_einsum(grad_out: Any, x: Any, weight: Any) -> Any:
    grad_x = np.einsum("no,oi->ni", grad_out, weight)
    return [grad_x, np.einsum("no,ni->oi", grad_out, x), np.ones(len(x)) @ grad_out]


LINEAR = Proof(
    right=[linear, linear_by_einsum],
    wrong=[
        (lambda g, x, w: (g @ w, g.T @ x / len(x), g.mean(axis=0)), "divided by the batch size"),
        (lambda g, x, w: (g @ w, g.T @ x, g.mean(axis=0)), "grad_bias is averaged"),
        (lambda g, x, w: (g @ w, g.T @ x, g.sum(axis=1)), "wrong axis"),
        (lambda g, x, w: (g @ w, g.T @ x, g), "one row a sample"),
        (lambda g, x, w: (g @ w, x.T @ g, g.sum(axis=0)), "grad_weight is transposed"),
        (lambda g, x, w: (g.T @ x, g @ w, g.sum(axis=0)), "exchanged"),
        (lambda g, x, w: (g @ w, g.T @ x, g.sum()), "grad_bias is one number"),
        (lambda g, x, w: (g @ w.T, g.T @ x, g.sum(axis=0)), "it raises ValueError: matmul"),
        (lambda g, x, w: (g @ w, g.T @ x, g.sum(axis=0, keepdims=True)), "axes of length 1"),
        (lambda g, x, w: (g @ w, g.T @ x), "2 values; 3 are expected (grad_x, grad_weight, grad_bias)"),
        (lambda g, x, w: print(g @ w, end="") if x is None else None, "is the `return` missing?"),
        (lambda g, x, w: (g @ w, -(g.T @ x), g.sum(axis=0)), "`grad_weight`: the sign is flipped"),
        (lambda g, x, w: (g @ w, g.T @ x, np.ones(len(w))), "`grad_bias`"),
    ],
)


def relu(grad_out: Any, x: Any) -> Any:
    return grad_out * (x > 0)


def relu_by_copy(grad_out: Any, x: Any) -> Any:
    found = grad_out.copy()
    found[x <= 0] = 0
    return found


def relu_in_place(grad_out: Any, x: Any) -> Any:
    grad_out[x <= 0] = 0
    return grad_out


RELU = Proof(
    right=[relu, relu_by_copy],
    wrong=[
        (lambda g, x: g * (x >= 0), "right but at x = 0"),
        (lambda g, x: np.where(g > 0, g, 0.0), "it is the *input*"),
        (lambda g, x: (x > 0).astype(float), "the slope alone"),
        (lambda g, x: g * np.maximum(x, 0), "multiplies by the output"),
        (lambda g, x: g * (x < 0) + g * (x == 0), "should where it is positive"),
        (lambda g, x: np.maximum(x, 0), "the forward pass"),
        (lambda g, x: g, "passes unchanged"),
        (relu_in_place, "changes its input in place"),
        (lambda g, x: -g * (x > 0), "the sign is flipped"),
        (lambda g, x: (g * (x > 0)).astype(np.float32), "dtype is float32"),
        (lambda g, x: x > 0, "the slope alone"),
        (lambda g, x: (g * (x > 0)).sum(), "expected"),
    ],
)

# ------------------------------------------------------------------------------------------------ cross-entropy


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy(logits: Any, labels: Any) -> Any:
    logs, rows = log_softmax(logits), np.arange(len(labels))
    grad = np.exp(logs)
    grad[rows, labels] -= 1
    return -logs[rows, labels].mean(), grad / len(labels)


def cross_entropy_by_loop(logits: Any, labels: Any) -> Any:
    loss, grad = 0.0, np.zeros_like(logits)
    for row, label in enumerate(labels):
        total = np.logaddexp.reduce(logits[row])
        loss += (total - logits[row, label]) / len(labels)
        for k in range(logits.shape[1]):
            grad[row, k] = (np.exp(logits[row, k] - total) - (k == label)) / len(labels)
    return loss, grad


@np.errstate(all="ignore")
def naive(logits: Any, labels: Any) -> Any:
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    one_hot = np.eye(logits.shape[1])[labels]
    return -np.log((chances * one_hot).sum(axis=1)).mean(), (chances - one_hot) / len(labels)


@np.errstate(all="ignore")
def naive_by_index(logits: Any, labels: Any) -> Any:
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log(chances[np.arange(len(labels)), labels]).mean(), naive(logits, labels)[1]


@np.errstate(all="ignore")
def log_of_softmax(logits: Any, labels: Any) -> Any:
    chances = np.exp(log_softmax(logits))
    return -np.log(chances[np.arange(len(labels)), labels]).mean(), cross_entropy(logits, labels)[1]


def changed(loss: Any = 1, grad: Any = 1) -> Callable[..., Any]:
    """The right answer with factors, which may depend on the number of samples and of all entries."""

    def answer(logits: Any, labels: Any) -> Any:
        right = cross_entropy(logits, labels)
        factors = [one(logits) if callable(one) else one for one in (loss, grad)]
        return right[0] * factors[0], right[1] * factors[1]

    return answer


def over_samples(logits: Any, labels: Any) -> Any:
    shifted = logits - logits.max(axis=0, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(axis=0, keepdims=True)
    one_hot = np.eye(logits.shape[1])[labels]
    return cross_entropy(logits, labels)[0], (chances - one_hot) / len(labels)


CROSS_ENTROPY = Proof(
    right=[cross_entropy, cross_entropy_by_loop],
    wrong=[
        (naive, "exp overflows"),
        (naive_by_index, "exp overflows"),
        (log_of_softmax, "the softmax rounds to 0"),
        (changed(grad=len), "the loss is averaged, but its gradient is not"),
        (changed(loss=len, grad=len), "both are summed"),
        (lambda x, y: (cross_entropy(x, y)[0], np.exp(log_softmax(x)) / len(y)), "the softmax alone"),
        (changed(grad=-1), "the loss falls where the right logit grows"),
        (changed(grad=lambda x: len(x) / x.size), "number of all entries"),
        (changed(loss=1 / np.log(2)), "log2"),
        (changed(loss=-1), "a minus is missing"),
        (over_samples, "`grad_logits`"),
        (lambda x, y: cross_entropy(x, y)[0], "2 values are expected (loss, grad_logits)"),
        (lambda x, y: (-log_softmax(x)[np.arange(len(y)), y], cross_entropy(x, y)[1]), "one number is expected"),
        (lambda x, y: cross_entropy(x, y)[::-1], "`loss`"),
        (changed(loss=len), "`loss`: the value is wrong"),
    ],
)

# ------------------------------------------------------------------------------------------------ BatchNorm


def bn(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    inv_std = 1 / np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) * inv_std
    return gamma * x_hat + beta, x_hat, inv_std


def bn_by_columns(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    x_hat, inv_std = np.empty_like(x), np.empty(x.shape[1])
    for j in range(x.shape[1]):
        mean = sum(x[:, j]) / len(x)
        inv_std[j] = (sum((value - mean) ** 2 for value in x[:, j]) / len(x) + eps) ** -0.5
        x_hat[:, j] = (x[:, j] - mean) * inv_std[j]
    return x_hat * gamma + beta, x_hat, inv_std


def bn_with(scale: Callable[[Any, float], Any], *, centred: bool = True) -> Callable[..., Any]:
    @np.errstate(all="ignore")
    def forward(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
        inv_std = scale(x, eps)
        x_hat = (x - x.mean(axis=0) * centred) * inv_std
        return gamma * x_hat + beta, x_hat, inv_std

    return forward


def layer_norm(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    inv_std = 1 / np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) * inv_std
    return gamma * x_hat + beta, x_hat, inv_std


def bn_in_place(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    inv_std = 1 / np.sqrt(x.var(axis=0) + eps)
    x -= x.mean(axis=0)
    x *= inv_std
    return gamma * x + beta, x, inv_std


def one_statistic(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    inv_std = 1 / np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) * inv_std
    return gamma * x_hat + beta, x_hat, inv_std


BN_FORWARD = Proof(
    right=[bn, bn_by_columns],
    wrong=[
        (bn_with(lambda x, eps: 1 / np.sqrt(x.var(axis=0, ddof=1) + eps)), "n − 1"),
        (bn_with(lambda x, eps: 1 / np.sqrt(x.var(axis=0))), "eps is missing"),
        (bn_with(lambda x, eps: 1 / (x.std(axis=0) + eps)), "eps stands outside the root"),
        (bn_with(lambda x, eps: 1 / (x.var(axis=0) + eps)), "divides by the variance"),
        (layer_norm, "that is LayerNorm"),
        (bn_with(lambda x, eps: 1 / np.sqrt(x.var(axis=0) + eps), centred=False), "the mean is not subtracted"),
        (lambda *a: (*bn(*a)[:2], 1 / bn(*a)[2]), "its inverse is asked for"),
        (lambda *a: (bn(*a)[1], *bn(*a)[1:]), "gamma and beta are not applied"),
        (lambda x, gamma, beta, eps: bn(x, beta, gamma, eps), "gamma and beta are exchanged"),
        (bn_in_place, "changes its input in place"),
        (one_statistic, "`out`"),
        (lambda *a: bn(*a)[0], "3 values are expected (out, x_hat, inv_std)"),
        (lambda *a: tuple(value.astype(np.float32) for value in bn(*a)), "dtype is float32"),
        (bn_with(lambda x, eps: 1 / np.sqrt(x.var(axis=0) + 1e-5)), "`out`"),
        (lambda x, gamma, beta, eps: bn(x, gamma, 0 * beta, eps), "`out`"),
    ],
)


def bn_back(grad_out: Any, gamma: Any, x_hat: Any, inv_std: Any) -> Any:
    g = grad_out * gamma
    grad_x = inv_std * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))
    return grad_x, (grad_out * x_hat).sum(axis=0), grad_out.sum(axis=0)


def bn_back_in_steps(grad_out: Any, gamma: Any, x_hat: Any, inv_std: Any) -> Any:
    n = len(x_hat)
    centred = x_hat / inv_std
    grad_hat = grad_out * gamma
    grad_var = (grad_hat * centred).sum(axis=0) * -0.5 * inv_std**3
    grad_mean = -(grad_hat * inv_std).sum(axis=0) + grad_var * (-2 * centred).mean(axis=0)
    grad_x = grad_hat * inv_std + grad_var * 2 * centred / n + grad_mean / n
    return grad_x, np.einsum("nf,nf->f", grad_out, x_hat), np.sum(grad_out, axis=0)


def bn_x(change: Callable[[Any, Any], Any], *, gamma_too: bool = True) -> Callable[..., Any]:
    def backward(grad_out: Any, gamma: Any, x_hat: Any, inv_std: Any) -> Any:
        g = grad_out * gamma if gamma_too else grad_out
        return (inv_std * change(g, x_hat), *bn_back(grad_out, gamma, x_hat, inv_std)[1:])

    return backward


def full(g: Any, x: Any) -> Any:
    return g - g.mean(axis=0) - x * (g * x).mean(axis=0)


BN_BACKWARD = Proof(
    right=[bn_back, bn_back_in_steps],
    wrong=[
        (bn_x(lambda g, x: g), "mean and variance as constants"),
        (bn_x(lambda g, x: g - x * (g * x).mean(axis=0)), "the way through the mean"),
        (bn_x(lambda g, x: g - g.mean(axis=0)), "the way through the variance"),
        (bn_x(lambda g, x: g - g.mean(axis=0) - x**2 * g.mean(axis=0)), "deck 002's"),
        (bn_x(full, gamma_too=False), "lacks gamma"),
        (bn_x(lambda g, x: g - g.sum(axis=0) - x * (g * x).sum(axis=0)), "sums over the batch where means belong"),
        (bn_x(lambda g, x: g - g.mean(axis=0) + x * (g * x).mean(axis=0)), "it is subtracted"),
        (bn_x(lambda g, x: full(g.T, x.T).T), "averages over the features"),
        (lambda d, gamma, x, inv: (bn_back(d, gamma, x, inv)[0] / inv, *bn_back(d, gamma, x, inv)[1:]), "inv_std"),
        (lambda d, gamma, x, inv: (bn_back(d, gamma, x, inv)[0], (d * x).mean(axis=0), d.mean(axis=0)), "averaged"),
        (lambda d, gamma, x, inv: (bn_back(d, gamma, x, inv)[0], d * x, d), "not summed over the batch"),
        (lambda *a: (bn_back(*a)[0], *bn_back(*a)[:0:-1]), "grad_gamma and grad_beta are exchanged"),
        (lambda *a: (bn_back(*a)[0], bn_back(*a)[1] * a[1], bn_back(*a)[2]), "`grad_gamma`"),
        (lambda *a: bn_back(*a)[0], "3 values are expected"),
        (lambda *a: (-bn_back(*a)[0], *bn_back(*a)[1:]), "`grad_x`: the sign is flipped"),
    ],
)

# ------------------------------------------------------------------------------------------------ the whole network


def network(p: Any, x: Any, labels: Any) -> Any:
    hidden = x @ p["weight1"].T + p["bias1"]
    normed, x_hat, inv_std = bn(hidden, p["gamma"], p["beta"], 1e-5)
    active = np.maximum(normed, 0)
    loss, grad_logits = cross_entropy(active @ p["weight2"].T + p["bias2"], labels)
    grads = {}
    grad_active, grads["weight2"], grads["bias2"] = linear(grad_logits, active, p["weight2"])
    grad_normed = relu(grad_active, normed)
    grad_hidden, grads["gamma"], grads["beta"] = bn_back(grad_normed, p["gamma"], x_hat, inv_std)
    _, grads["weight1"], grads["bias1"] = linear(grad_hidden, x, p["weight1"])
    return loss, grads


def network_by_nudging(p: Any, x: Any, labels: Any) -> Any:
    def loss(values: Any) -> float:
        return float(network(values, x, labels)[0])

    found = {name: numerical(lambda v, name=name: loss({**p, name: v}), p[name], 1e-5) for name in p}
    return loss(p), found


def network_with(fault: str) -> Callable[..., Any]:
    return lambda p, x, labels: by_hand(p, x, labels, fault=fault)


def network_updates(p: Any, x: Any, labels: Any) -> Any:
    loss, grads = network(p, x, labels)
    for name in p:
        p[name] -= 0.1 * grads[name]
    return loss, grads


def network_by_torch(p: Any, x: Any, labels: Any) -> Any:
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in p.items()}
    hidden = torch.tensor(x) @ leaves["weight1"].T + leaves["bias1"]
    normed = nn.functional.batch_norm(hidden, None, None, leaves["gamma"], leaves["beta"], training=True)
    logits = normed.relu() @ leaves["weight2"].T + leaves["bias2"]
    loss = nn.functional.cross_entropy(logits, torch.tensor(labels))
    return loss.item(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def network_grads(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    def answer(p: Any, x: Any, labels: Any) -> Any:
        loss, grads = network(p, x, labels)
        return loss, change(grads)

    return answer


WORDS = {
    "no mask": "ReLU's backward is missing",
    "mask of x_hat": "mask comes from x_hat",
    "mask of hidden": "mask comes from the output of linear 1",
    "no norm": "BatchNorm's own backward is missing",
    "constants": "mean and variance as constants",
    "normed": "its input was the output of the ReLU",
    "summed": "divide grad_logits by the batch size",
    "loss only": "take the mean",
}
NETWORK = Proof(
    right=[network, by_hand],
    wrong=[
        *((network_with(fault), words) for fault, words in WORDS.items()),
        (network_updates, "changes its input in place"),
        (network_by_torch, "a torch tensor; a NumPy array is expected"),
        (network_grads(lambda grads: {name: grads[name] for name in grads if name != "bias1"}), "lacking: bias1"),
        (network_grads(lambda grads: {f"grad_{name}": grads[name] for name in grads}), "not asked for: grad_weight"),
        (network_grads(lambda grads: {**grads, "weight1": grads["weight1"].T}), "`weight1`: the shape is (4, 5)"),
        (network_grads(lambda grads: {**grads, "bias1": grads["bias1"] + 1}), "`bias1`"),
        (lambda *a: network(*a)[0], "it returns a float64; 7 values are expected (loss, weight2"),
        (lambda *a: None, "is the `return` missing?"),
    ],
)

PROOFS = {
    module.check_numerical_gradient: NUMERICAL,
    module.check_linear_backward: LINEAR,
    module.check_relu_backward: RELU,
    module.check_cross_entropy: CROSS_ENTROPY,
    module.check_batchnorm_forward: BN_FORWARD,
    module.check_batchnorm_backward: BN_BACKWARD,
    module.check_loss_and_gradients: NETWORK,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Any) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))
    assert len(module.EXERCISES) == len(PROOFS)
    assert set(WORDS) == set(FAULTS)


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("seed", [1, 2, 1234])
def test_right_and_wrong_stay_so_for_other_seeds(check: Any, seed: int) -> None:
    assert check(PROOFS[check].right[0], seed=seed)
    assert check(PROOFS[check].wrong[0][0], seed=seed).status == "wrong"


def cross_entropy_by_torch(logits: Any, labels: Any) -> Any:
    leaf = torch.tensor(logits, requires_grad=True)
    loss = nn.functional.cross_entropy(leaf, torch.tensor(labels))
    return loss.item(), torch.autograd.grad(loss, leaf)[0].numpy()


def test_cross_entropy_is_torchs() -> None:
    assert module.check_cross_entropy(cross_entropy_by_torch)


def test_gradients_by_hand_agree_with_nudging() -> None:
    parameters = make_parameters(3, 4, 2, seed=1)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(5, 3)), rng.integers(2, size=5)
    for name, gradient in network_by_nudging(parameters, x, labels)[1].items():
        np.testing.assert_allclose(by_hand(parameters, x, labels)[1][name], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("check", [module.check_numerical_gradient, module.check_batchnorm_backward])
def test_a_right_solution_draws_its_figure(check: Any) -> None:
    import matplotlib.pyplot as plt

    draw = check(PROOFS[check].right[0]).figure
    figure, alt = draw()
    assert len(alt) > 60
    plt.close(figure)
