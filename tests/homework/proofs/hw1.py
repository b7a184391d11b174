"""Right and wrong solutions of homework 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from proofs import Proof

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
    return np.array(slopes).reshape(x.shape).tolist()


def numerical_in_place(function: Any, x: Any, step: float) -> Any:
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        x[place] += step
        ahead = function(x)
        x[place] -= 2 * step
        gradient[place] = (ahead - function(x)) / (2 * step)
    return gradient


# ------------------------------------------------------------------------------------------------ linear and ReLU


def linear(grad_out: Any, x: Any, weight: Any) -> Any:
    return grad_out @ weight, grad_out.T @ x, grad_out.sum(axis=0)


def linear_by_einsum(grad_out: Any, x: Any, weight: Any) -> Any:
    grad_x = np.einsum("no,oi->ni", grad_out, weight)
    return [grad_x, np.einsum("no,ni->oi", grad_out, x), np.ones(len(x)) @ grad_out]


def relu(grad_out: Any, x: Any) -> Any:
    return grad_out * (x > 0)


def relu_by_copy(grad_out: Any, x: Any) -> Any:
    found = grad_out.copy()
    found[x <= 0] = 0
    return found


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


def cross_entropy_by_torch(logits: Any, labels: Any) -> Any:
    leaf = torch.tensor(logits, requires_grad=True)
    loss = nn.functional.cross_entropy(leaf, torch.tensor(labels))
    return loss.item(), torch.autograd.grad(loss, leaf)[0].numpy()


def over_samples(logits: Any, labels: Any) -> Any:
    shifted = logits - logits.max(axis=0, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(axis=0, keepdims=True)
    return cross_entropy(logits, labels)[0], (chances - np.eye(logits.shape[1])[labels]) / len(labels)


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


def one_statistic(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    inv_std = 1 / np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) * inv_std
    return gamma * x_hat + beta, x_hat, inv_std


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


def network_by_torch(p: Any, x: Any, labels: Any) -> Any:
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in p.items()}
    hidden = torch.tensor(x) @ leaves["weight1"].T + leaves["bias1"]
    normed = nn.functional.batch_norm(hidden, None, None, leaves["gamma"], leaves["beta"], training=True)
    logits = normed.relu() @ leaves["weight2"].T + leaves["bias2"]
    loss = nn.functional.cross_entropy(logits, torch.tensor(labels))
    return loss.item(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def network_in_lists(p: Any, x: Any, labels: Any) -> Any:
    loss, grads = network_by_torch(p, x, labels)
    return loss, {name: grads[name].tolist() for name in reversed(list(grads))}


def network_updates(p: Any, x: Any, labels: Any) -> Any:
    loss, grads = network(p, x, labels)
    for name in p:
        p[name] -= 0.1 * grads[name]
    return loss, grads


def network_grads(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    def answer(p: Any, x: Any, labels: Any) -> Any:
        loss, grads = network(p, x, labels)
        return loss, change(grads)

    return answer


PROOFS = {
    "check_numerical_gradient": Proof(
        right=[numerical, numerical_flat],
        wrong=[
            (lambda f, x, h: 3 * numerical(f, x, h), "every value is 3 times"),
            (lambda f, x, h: numerical(f, x, 1e-6), "values differ"),
            (lambda f, x, h: numerical(f, x, h).ravel(), "the shape is (8,); (2, 4) is expected"),
            (lambda f, x, h: numerical(f, x, h).astype(int), "dtype is int64"),
            (numerical_in_place, "changes its input in place"),
        ],
    ),
    "check_linear_backward": Proof(
        right=[linear, linear_by_einsum],
        wrong=[
            (lambda g, x, w: (g @ w.T, g.T @ x, g.sum(axis=0)), "it raises ValueError: matmul"),
            (lambda g, x, w: (g @ w, g.T @ x, g.sum(axis=0, keepdims=True)), "axes of length 1"),
            (lambda g, x, w: (g @ w, g.T @ x), "2 values; 3 are expected (grad_x, grad_weight, grad_bias)"),
            (lambda g, x, w: (g @ w, -(g.T @ x), g.sum(axis=0)), "`grad_weight`: the sign is flipped"),
            (lambda g, x, w: (g @ w, g.T @ x, np.ones(len(w))), "`grad_bias`"),
        ],
    ),
    "check_relu_backward": Proof(
        right=[relu, relu_by_copy],
        wrong=[
            (lambda g, x: np.maximum(g, 0, out=g) * (x > 0), "changes its input in place"),
            (lambda g, x: -relu(g, x), "the sign is flipped"),
            (lambda g, x: relu(g, x).astype(np.float32), "dtype is float32"),
            (lambda g, x: relu(g, x).sum(), "expected"),
        ],
    ),
    "check_cross_entropy": Proof(
        right=[cross_entropy, cross_entropy_by_loop, cross_entropy_by_torch],
        wrong=[
            (over_samples, "`grad_logits`"),
            (lambda x, y: cross_entropy(x, y)[0], "2 values are expected (loss, grad_logits)"),
            (lambda x, y: (-log_softmax(x)[np.arange(len(y)), y], cross_entropy(x, y)[1]), "one number is expected"),
            (lambda x, y: cross_entropy(x, y)[::-1], "`loss`"),
            (lambda x, y: (cross_entropy(x, y)[0] * len(y), cross_entropy(x, y)[1]), "`loss`: the value is wrong"),
        ],
    ),
    "check_batchnorm_forward": Proof(
        right=[bn, bn_by_columns],
        wrong=[
            (one_statistic, "`out`"),
            (lambda *a: bn(*a)[0], "3 values are expected (out, x_hat, inv_std)"),
            (lambda *a: tuple(value.astype(np.float32) for value in bn(*a)), "dtype is float32"),
            (lambda x, gamma, beta, eps: bn(x, gamma, beta, 1e-5), "`out`"),
            (lambda x, gamma, beta, eps: bn(x, gamma, 0 * beta, eps), "`out`"),
        ],
    ),
    "check_batchnorm_backward": Proof(
        right=[bn_back, bn_back_in_steps],
        wrong=[
            (lambda *a: bn_back(*a)[0], "3 values are expected"),
            (lambda *a: (-bn_back(*a)[0], *bn_back(*a)[1:]), "`grad_x`: the sign is flipped"),
            (lambda *a: (bn_back(*a)[0], bn_back(*a)[1] * a[1], bn_back(*a)[2]), "`grad_gamma`"),
            (lambda *a: (*bn_back(*a)[:2], bn_back(*a)[2] * a[3]), "`grad_beta`"),
        ],
    ),
    "check_loss_and_gradients": Proof(
        right=[network, network_in_lists],
        wrong=[
            (network_updates, "changes its input in place"),
            (network_by_torch, "a torch tensor; a NumPy array is expected"),
            (network_grads(lambda grads: {name: grads[name] for name in grads if name != "bias1"}), "lacking: bias1"),
            (network_grads(lambda grads: {f"grad_{name}": grads[name] for name in grads}), "asked for: grad_weight2"),
            (network_grads(lambda grads: {**grads, "weight1": grads["weight1"].T}), "`weight1`: the shape is (4, 5)"),
            (network_grads(lambda grads: {**grads, "bias1": grads["bias1"] + 1}), "`bias1`"),
            (lambda *a: network(*a)[0], "it returns a float64; 7 values are expected (loss, weight2"),
        ],
    ),
}
