# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Homework 1. The night `backward()` was gone
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/homework/hw1_backpropagation.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/homework/hw1_backpropagation.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/homework/hw1_backpropagation.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/homework/hw1_backpropagation.ipynb)
#
# The survey ship is three days from the nearest harbour. Its camera sorts what the nets bring up, and tonight it must be
# trained anew. The ship's computer has NumPy. It does not have PyTorch, and there is no connection to get it from. A
# forward pass is quickly written. But who computes the gradients?
#
# You do. Deck `002_8e362a99924dbb37` ends its derivation for BatchNorm with a suggestion: "Try to write the complete
# backpropagation with batch normalization." That is tonight's work: every gradient of a network, by hand, each proven
# before the next is begun. In the end your network sorts real pictures, and we hold it against PyTorch's, step by step.
#
# ## What you will practise
#
# - **checking** any gradient with nothing but two function calls,
# - **deriving** the backward pass of a linear layer, of ReLU, of softmax with cross-entropy, and of BatchNorm,
# - **chaining** them into the gradient of a whole network, and training with it.
#
# **Prerequisites:** the chain rule; lesson 03, sections 2 and 3. **Time:** 3 to 4 hours; the tasks about 150 minutes,
# of which the two on BatchNorm take half, the report 45 minutes.

# %% [markdown]
# ## Points and rules
#
# | task | what | points |
# |---|---|---|
# | 1.1 ★ | a gradient by nudging | 2 |
# | 1.2 ★★ | linear layer, backward | 2 |
# | 1.3 ★ | ReLU, backward | 1 |
# | 1.4 ★★ | softmax and cross-entropy | 3 |
# | 1.5 ★ | BatchNorm, forward | 2 |
# | 1.6 ★★★ | BatchNorm, backward | 3 |
# | 1.7 ★★★ | the whole network | 3 |
# | report | what you saw, in your words | 4 |
# | | together | 20 |
#
# - Write your code where `raise NotImplementedError` stands; delete that line. Use NumPy only: the functions take and
#   return float64 arrays. PyTorch comes back when the sun rises, in the last section.
# - The cell below each task checks it. It answers in a sentence, as often as you like, and costs nothing. Do not change
#   those cells: grading runs them again, and the same checks on other random numbers.
# - A function must not change the arrays it is given.
# - Later tasks use your earlier functions. Hints are folded; they cost nothing either.

# %%
# In Colab and on Kaggle this installs the course's package; elsewhere it does nothing.
import os
import sys
from importlib.util import find_spec

if ("google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ) and find_spec("course_utils") is None:
    from IPython import get_ipython

    package = "mlp-course-utils[lessons] @ git+https://github.com/mlp-course/mlp-course"
    get_ipython().run_line_magic("pip", f"install -q '{package}'")

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from course_utils import plotting
from course_utils.datasets import load_fashion_mnist
from course_utils.homework import hw1, progress, require
from course_utils.homework.hw1 import (
    check_batchnorm_backward,
    check_batchnorm_forward,
    check_cross_entropy,
    check_linear_backward,
    check_loss_and_gradients,
    check_numerical_gradient,
    check_relu_backward,
    make_parameters,
)
from course_utils.plotting import plot_seeds, show, style
from course_utils.reproducibility import set_up

set_up(seed=0)
plotting.use_theme()

# %% [markdown]
# ## 1.1 A gradient by nudging ★ (15 min, 2 points)
#
# Before you derive anything you need a judge. Move one entry of $x$ a little to the right and a little to the left, and
# see how far the function's value moves:
#
# $$\frac{\partial f}{\partial x_i} \approx \frac{f(x + h\,e_i) - f(x - h\,e_i)}{2h}$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $f$ | `function` | takes an array, returns one number |
# | $x$ | `x` | any shape |
# | $h$ | `step` | how far to nudge |
# | $e_i$ | | 1 at entry $i$, else 0 |
#
# Return an array of the shape of `x`. It takes two calls of $f$ per entry: far too slow to train with, and just right
# as an oracle. **Predict:** is a smaller step always better? The figure that comes with the ✔ answers.


# %% solution="numerical_gradient"
def numerical_gradient(function, x, step=1e-5):
    """Gradient of function (array to float) at x (any shape) by central differences; same shape as x."""
    ### BEGIN SOLUTION
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[place] = step
        gradient[place] = (function(x + nudge) - function(x - nudge)) / (2 * step)
    return gradient
    ### END SOLUTION


# %% test="numerical_gradient" points=2
require(check_numerical_gradient(numerical_gradient))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_numerical_gradient, numerical_gradient)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `np.ndindex(x.shape)` yields the index of every entry, whatever the number of axes.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# For every index: an array of zeros like `x` with `step` at that index; call the function at `x` plus and minus it. The
# distance between the two points is twice the step.
#
# </details>

# %% [markdown]
# ## 1.2 Backward through a linear layer ★★ (20 min, 2 points)
#
# The layer computes `out = x @ weight.T + bias`, with `x` of shape (n, in), `weight` (out, in) as PyTorch stores it, and
# `bias` (out,). From above arrives `grad_out`, the gradient of the loss by `out`, of shape (n, out). Return the
# gradients by `x`, `weight` and `bias`, each of the shape of what it belongs to.
#
# **Predict** before you derive: only one product of two of these matrices has the shape of `x`, and only one that of
# `weight`. Which? And how does a gradient of shape (n, out) become one of shape (out,)?


# %% solution="linear_backward"
def linear_backward(grad_out, x, weight):
    """grad_out (n, out), x (n, in), weight (out, in). Return grad_x, grad_weight, grad_bias."""
    ### BEGIN SOLUTION
    grad_x = grad_out @ weight
    grad_weight = grad_out.T @ x
    grad_bias = grad_out.sum(axis=0)
    return grad_x, grad_weight, grad_bias
    ### END SOLUTION


# %% test="linear_backward" points=2
require(check_linear_backward(linear_backward))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_linear_backward, linear_backward)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write one entry: $\text{out}_{ik} = \sum_j x_{ij} w_{kj} + b_k$. Which entries of `out` does $w_{kj}$ appear in?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Whatever is used several times gets the sum over its uses. $x_{ij}$ is used for every output $k$; $w_{kj}$ and $b_k$
# for every sample $i$. Each of the first two sums is a matrix product.
#
# </details>

# %% [markdown]
# ## 1.3 Backward through ReLU ★ (5 min, 1 point)
#
# `out = max(x, 0)`, entry by entry. Return the gradient by `x`, of its shape. At $x=0$ there is no derivative; we agree
# on 0, as PyTorch does.


# %% solution="relu_backward"
def relu_backward(grad_out, x):
    """grad_out and x: the same shape, which the result has too."""
    ### BEGIN SOLUTION
    return grad_out * (x > 0)
    ### END SOLUTION


# %% test="relu_backward" points=1
require(check_relu_backward(relu_backward))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_relu_backward, relu_backward)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The slope is 1 or 0. Does it depend on the gradient that arrives, or on what went in?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# A comparison gives an array of True and False; multiplied by a number they count as 1 and 0. The result is a new array.
#
# </details>

# %% [markdown]
# ## 1.4 Softmax and cross-entropy ★★ (30 min, 3 points)
#
# For logits $z$ of shape (n, classes) and the right classes $y$ of shape (n,), integers:
#
# $$L = \frac1n\sum_{i=1}^{n} \Big(\log\sum_k e^{z_{ik}} - z_{i,y_i}\Big)$$
#
# Return the loss and its gradient by the logits, of shape (n, classes). Derive the gradient on paper first; it is
# surprisingly short. Then mind the machine: on raw pixels an untrained network gives logits of 1000, and $e^{1000}$ is
# infinite in float64. **Predict:** which number may you subtract from all logits of a row without changing $L$?


# %% solution="cross_entropy"
def cross_entropy(logits, labels):
    """logits (n, classes), labels (n,) of integers. Return the mean loss, a float, and its gradient by the logits."""
    ### BEGIN SOLUTION
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    grad_logits = np.exp(log_probabilities)
    grad_logits[rows, labels] -= 1
    return -log_probabilities[rows, labels].mean(), grad_logits / len(labels)
    ### END SOLUTION


# %% test="cross_entropy" points=3
require(check_cross_entropy(cross_entropy))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_cross_entropy, cross_entropy)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The derivative of $\log\sum_k e^{z_k}$ by $z_j$ has a name. The derivative of $-z_y$ is $-1$ in one place.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Subtract each row's maximum. Compute the *logarithm* of the softmax without computing the softmax first: a probability
# that rounds to 0 has no logarithm. Pick one entry a row with two index arrays, `[rows, labels]`. The mean over the
# samples is part of the loss, so it is part of the gradient.
#
# </details>

# %% [markdown]
# ## 1.5 BatchNorm, forward ★ (15 min, 2 points)
#
# For each feature separately, over the n samples of the batch:
#
# $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}},\qquad \text{out} = \gamma\,\hat x + \beta$$
#
# with the biased variance (divided by n). `x` has shape (n, features), `gamma` and `beta` (features,). Return `out` and
# what the way back will need: `x_hat`, (n, features), and `inv_std` $= 1/\sqrt{\sigma^2+\epsilon}$, (features,).


# %% solution="batchnorm_forward"
def batchnorm_forward(x, gamma, beta, eps=1e-5):
    """x (n, features), gamma and beta (features,). Return out (n, features), x_hat (n, features), inv_std (features,)."""
    ### BEGIN SOLUTION
    inv_std = 1 / np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) * inv_std
    return gamma * x_hat + beta, x_hat, inv_std
    ### END SOLUTION


# %% test="batchnorm_forward" points=2
require(check_batchnorm_forward(batchnorm_forward))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_batchnorm_forward, batchnorm_forward)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One mean per *feature*: along which axis do you average an array of shape (n, features)?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# NumPy's `var` divides by n unless told otherwise. ε goes under the root, with the variance.
#
# </details>

# %% [markdown]
# ## 1.6 BatchNorm, backward ★★★ (45 min, 3 points)
#
# Now the deck's challenge. Given `grad_out` (n, features), return the gradients by `x` (n, features), by `gamma` and by
# `beta` (features,).
#
# **Predict.** You nudge one number of one sample. Which outputs move? From this follows how many ways lead from one
# $x_i$ to the loss. Do not trust the printed formula of deck 002: lesson 03 found two mistakes in it. Derive it, and let
# your function of task 1.1 be the judge.


# %% solution="batchnorm_backward"
def batchnorm_backward(grad_out, gamma, x_hat, inv_std):
    """grad_out and x_hat (n, features), gamma and inv_std (features,). Return grad_x, grad_gamma, grad_beta."""
    ### BEGIN SOLUTION
    g = grad_out * gamma
    grad_x = inv_std * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))
    return grad_x, (grad_out * x_hat).sum(axis=0), grad_out.sum(axis=0)
    ### END SOLUTION


# %% test="batchnorm_backward" points=3
require(check_batchnorm_backward(batchnorm_backward))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_batchnorm_backward, batchnorm_backward)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Begin with $g = \partial L/\partial\hat x$; it is not `grad_out`. Then collect three contributions to
# $\partial L/\partial x_i$: directly, through $\mu$, and through $\sigma^2$.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $\partial\mu/\partial x_i = 1/n$ and $\partial\sigma^2/\partial x_i = 2(x_i-\mu)/n$. Both are multiplied by a sum over
# *all* samples; with the $1/n$ these sums become means over the batch. All three contributions share one factor, which
# you were given. If the check says that a way is missing, it says which.
#
# </details>

# %% [markdown]
# Your own judge should agree with the check. Any weighted sum of the outputs will do as a loss; its weights are then
# `grad_out`. The relative error should be far below a millionth.

# %%
rng = np.random.default_rng(0)
x, gamma, beta, weights = rng.normal(size=(6, 3)), rng.normal(size=3), rng.normal(size=3), rng.normal(size=(6, 3))
_, x_hat, inv_std = batchnorm_forward(x, gamma, beta)
by_formula = batchnorm_backward(weights, gamma, x_hat, inv_std)[0]
by_nudging = numerical_gradient(lambda moved: (weights * batchnorm_forward(moved, gamma, beta)[0]).sum(), x)
error = np.linalg.norm(by_formula - by_nudging) / np.linalg.norm(by_nudging)
print(f"relative difference between formula and nudging: {error:.1e}")

# %% [markdown]
# ## 1.7 The whole network ★★★ (30 min, 3 points)
#
# Put it together: **linear 1 → BatchNorm → ReLU → linear 2 → cross-entropy**, with $\epsilon = 10^{-5}$. The parameters
# come in a dict with the keys `weight1` (hidden, in), `bias1`, `gamma`, `beta` (hidden,), `weight2` (classes, hidden)
# and `bias2` (classes,). Return the loss and a dict of gradients with the same keys and shapes.
#
# Forward, keep what each step's backward needs; then walk the same steps in reverse.
#
# **Predict.** The gradient by one of the six parameters is zero whatever the data. By which one, and why?


# %% solution="loss_and_gradients"
def loss_and_gradients(parameters, x, labels):
    """parameters: a dict of six arrays; x (n, in); labels (n,). Return the mean loss and a dict of six gradients."""
    ### BEGIN SOLUTION
    p, gradients = parameters, {}
    hidden = x @ p["weight1"].T + p["bias1"]
    normed, x_hat, inv_std = batchnorm_forward(hidden, p["gamma"], p["beta"])
    active = np.maximum(normed, 0)
    loss, grad_logits = cross_entropy(active @ p["weight2"].T + p["bias2"], labels)

    grad_active, gradients["weight2"], gradients["bias2"] = linear_backward(grad_logits, active, p["weight2"])
    grad_normed = relu_backward(grad_active, normed)
    from_norm = batchnorm_backward(grad_normed, p["gamma"], x_hat, inv_std)
    grad_hidden, gradients["gamma"], gradients["beta"] = from_norm
    _, gradients["weight1"], gradients["bias1"] = linear_backward(grad_hidden, x, p["weight1"])
    return loss, gradients
    ### END SOLUTION


# %% test="loss_and_gradients" points=3
require(check_loss_and_gradients(loss_and_gradients))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_loss_and_gradients, loss_and_gradients)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write the forward pass as four named lines: `hidden`, `normed`, `active`, and the loss. Each function you wrote above
# takes the gradient by a line's left side and gives those by its right side.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Start from the gradient by the logits. Linear 2 backward needs `active`; ReLU backward needs what went *into* the
# ReLU; BatchNorm backward needs what its forward returned; linear 1 backward needs `x`. The check compares in this
# order, so the first name it mentions is where the mistake sits.
#
# </details>

# %% [markdown]
# ## The camera learns
#
# Time to train. The pictures are Fashion-MNIST's: clothes instead of fish, but 784 pixels and ten classes all the same.
# A step of gradient descent is one line now. In evaluation there may be no batch; we cheat a little and normalize the
# 1,000 validation pictures by their own statistics (the running averages of lesson 03 would be the honest way).

# %%
data = [[part.numpy() for part in split] for split in load_fashion_mnist().tensors(n_train=6000, n_val=1000)[:2]]
(x_train, y_train), (x_val, y_val) = [(inputs.astype(np.float64), labels) for inputs, labels in data]


def predict(parameters, x):
    hidden = x @ parameters["weight1"].T + parameters["bias1"]
    active = np.maximum(batchnorm_forward(hidden, parameters["gamma"], parameters["beta"])[0], 0)
    return (active @ parameters["weight2"].T + parameters["bias2"]).argmax(axis=1)


def train(seed, *, lr=0.1, max_epochs=4, batch_size=100):
    """Train by plain gradient descent; return the loss of every step and the validation accuracy of every epoch."""
    parameters, losses, accuracies = make_parameters(784, 64, 10, seed=seed), [], []
    for epoch in range(max_epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(x_train))
        for rows in order.reshape(-1, batch_size):
            loss, gradients = loss_and_gradients(parameters, x_train[rows], y_train[rows])
            parameters = {name: value - lr * gradients[name] for name, value in parameters.items()}
            losses.append(loss)
        accuracies.append((predict(parameters, x_val) == y_val).mean())
    return losses, accuracies


# %%
losses, accuracies = zip(*(train(seed) for seed in (0, 1, 2)), strict=True)
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
plot_seeds(axes[0], np.arange(1, 241), losses, **style(0) | {"marker": ""})
plot_seeds(axes[1], np.arange(1, 5), accuracies, color=plotting.COLORS["orange"], linestyle="--", marker="o")
axes[0].set(xlabel="step", ylabel="training loss", title="Loss of each batch")
axes[1].set(xlabel="epoch", ylabel="validation accuracy", title="Right on unseen pictures", ylim=(0, 1))
axes[1].set_xticks(range(1, 5))
show(
    fig,
    alt="Left: the training loss over 240 steps, mean and band of three seeds; it falls steeply in the first 50 steps and "
    "slowly after. Right: the validation accuracy after each of four epochs, above 0.75 from the first on.",
)
print("validation accuracy after four epochs, three seeds:", np.round([run[-1] for run in accuracies], 3))

# %% [markdown]
# **Read the figure.** There is no autograd in it: every step of these curves went through your six gradients. A loss that
# falls is no proof, though. Many a wrong gradient still points roughly downhill, and the network learns in spite of it,
# only worse. Proof is what comes next.
#
# ## Sunrise: PyTorch is back
#
# The same network, the same weights, the same batches. If your gradients are right, both losses agree in every step, up
# to rounding.

# %%
parameters = make_parameters(784, 64, 10, seed=0)
model = nn.Sequential(nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)).double()
with torch.no_grad():
    for target, value in zip(model.parameters(), parameters.values(), strict=True):
        target.copy_(torch.from_numpy(value))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
differences = []
for start in range(0, 6000, 100):
    x, labels = x_train[start : start + 100], y_train[start : start + 100]
    loss, gradients = loss_and_gradients(parameters, x, labels)
    parameters = {name: value - 0.1 * gradients[name] for name, value in parameters.items()}
    torch_loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(labels))
    optimizer.zero_grad()
    torch_loss.backward()
    optimizer.step()
    differences.append(abs(loss - torch_loss.item()))
print(f"60 steps; largest difference between the two losses: {max(differences):.1e}")
print(f"largest gradient by bias1 in the last step: {abs(gradients['bias1']).max():.1e}")

# %% [markdown]
# ## Report
#
# Write about one page in the next cell, in full sentences, and give the number or the figure that each answer rests on.

# %% [markdown] answer="report" points=4
# **1. Which bias is useless, and why?** (What did you predict in 1.7? Which sum in 1.6 makes it exact?)
#
# *Your answer*
#
# **2. What does a gradient check not see?** (Change `> 0` to `>= 0` in ReLU: does nudging at random points notice?)
#
# *Your answer*
#
# **3. Break one thing.** (Leave the way through the variance out of 1.6, train again, compare losses and accuracies over
# three seeds. How would you have found the mistake without a check?)
#
# *Your answer*
#
# **4. The step of the nudge.** (What limits it on the right of the figure in 1.1, what on the left? Which step would you
# take in float32?)
#
# *Your answer*
#
# **5. What was hardest, and which help did you use?** (Persons, books, programs: name them.)
#
# *Your answer*

# %%
progress(hw1)
