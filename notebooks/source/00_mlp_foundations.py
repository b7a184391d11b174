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
# # 00. What can a network learn that a single neuron cannot?
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/00_mlp_foundations.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/00_mlp_foundations.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/00_mlp_foundations.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/00_mlp_foundations.ipynb)
#
# One artificial neuron draws one straight line. In 1969 a book proved that this is not even enough for "exactly one of
# two switches is on", and much of the field went to sleep. The cure fits in a sentence: put neurons *behind* each other,
# with a bend in between, and find the weights with the chain rule. In this lesson you build every part of that
# sentence, and you measure how often it keeps its promise. (Not always.)
#
# ## You will be able to …
#
# - **train** a single neuron by two rules, and say what the scale of its inputs does to it,
# - **show** why XOR needs a hidden layer, and with which *probability* training finds the solution,
# - **compute** a gradient by hand on a graph, and check it in three independent ways,
# - **write** an MLP in NumPy whose gradients equal autograd's, and count its parameters without running it,
# - **judge** a trained network honestly: splits, one look at the test set, its worst mistakes.
#
# **Prerequisites:** the chain rule, matrix products, a little NumPy. **Time:** 90 minutes.
# **Lecture:** decks `001_0a346410c39b1d06`, `003_f7e7d77f8dafb44a`, and the start of `002_8e362a99924dbb37`.

# %% [markdown]
# ## Set-up
#
# Two real data sets come with the course: Boston's housing table, and Fashion-MNIST, 28×28 pictures of clothes in ten
# classes. We train on 8,000 pictures and validate on 2,000. The test set stays closed until the last section, where it
# is opened once.

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
import functools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sympy
import torch
from sklearn.linear_model import Perceptron
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from course_utils import datasets, plotting
from course_utils.claims import claim
from course_utils.models import MLP, count_parameters
from course_utils.plotting import label_line_ends, plot_seeds, show, style
from course_utils.reproducibility import make_generator, set_up
from course_utils.training import LiveLossPlot, evaluate, fit
from course_utils.widgets import canvas, explorer, play

set_up(seed=0)
plotting.use_theme()
clothes = datasets.load_fashion_mnist()
train_set, val_set, test_set = clothes.tensors(n_val=2000)

# %% [markdown]
# ## 1. A neuron that learns from its mistakes
#
# The **perceptron** adds up weighted inputs and fires if the sum is positive. Its learning rule acts only on a mistake,
# and then it adds the input to the weights, or subtracts it:
#
# $$\hat y = [\,\mathbf{x}^\top\mathbf{w} + b > 0\,], \qquad \mathbf{w} \leftarrow \mathbf{w} + (y-\hat y)\,\mathbf{x},
# \qquad b \leftarrow b + (y-\hat y)$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $\mathbf{x}, y$ | `inputs`, `targets` | one example, and its class 0 or 1 |
# | $\mathbf{w}, b$ | `weights`, `bias` | what is learned; both start at 0 |
# | $\hat y$ | | the prediction; $[\dots]$ is 1 if true, else 0 |
# | $\gamma, R$ | `margin` | distance of the dividing line from the nearest point; length of the longest input (with a 1 for the bias) |
#
# **Predict.** No learning rate, no loss, no derivative. Can such a rule ever *finish*? Novikoff proved in 1962 that it
# must, if a dividing line exists: after at most $(R/\gamma)^2$ mistakes. Is this bound close to what happens? We try
# squares full of points with an empty strip between the classes, and pairs of clothes in 784 dimensions.


# %%
def train_perceptron(inputs, targets, max_epochs):
    """Deck 003's rule, on-line. Returns weights, bias and the number of mistakes in each epoch."""
    weights, bias, mistakes = np.zeros(inputs.shape[1]), 0, []
    while len(mistakes) < max_epochs and 0 not in mistakes:
        mistakes.append(0)
        for x, y in zip(inputs, targets, strict=True):
            error = int(y) - int(x @ weights + bias > 0)
            weights, bias, mistakes[-1] = weights + error * x, bias + error, mistakes[-1] + abs(error)
    return weights, bias, mistakes


# %%
def divided_square(margin, seed):
    """100 points of the square from -1 to 1, none nearer than `margin` to its diagonal, and on which side they are."""
    points = np.random.default_rng(seed).uniform(-1, 1, size=(2000, 2))
    points = points[abs(points.sum(axis=1)) > margin * np.sqrt(2)][:100]
    return points, points.sum(axis=1) > 0


x, y = divided_square(margin=0.03, seed=4)
weights, bias, mistakes = train_perceptron(x, y, max_epochs=1000)
oracle = Perceptron(shuffle=False, tol=None, max_iter=len(mistakes)).fit(x, y)
np.testing.assert_allclose([*weights, bias], [*oracle.coef_[0], *oracle.intercept_])

# %%
margins, mistakes = np.array([0.3, 0.1, 0.03, 0.01]), {}
counts = np.array([[sum(train_perceptron(*divided_square(m, s), 1000)[2]) for m in margins] for s in range(20)])
for name, pair in {"trouser, boot": (1, 9), "sneaker, boot": (7, 9), "T-shirt, shirt": (0, 6)}.items():
    chosen = np.isin(train_set[1], pair)
    mistakes[name] = train_perceptron(train_set[0].numpy()[chosen], train_set[1].numpy()[chosen] == pair[1], 250)[2]
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
plot_seeds(axes[0], margins, counts, label="mistakes", **style(0))
axes[0].plot(margins, 3 / margins**2, color="0.5", linestyle=":", label="bound")
axes[0].set(xscale="log", yscale="log", xlabel="margin", ylabel="mistakes until the end", title="20 squares per margin")
axes[0].invert_xaxis()
for index, (name, counted) in enumerate(mistakes.items()):
    axes[1].plot(np.arange(1, len(counted) + 1), counted, label=name, color=style(index)["color"])
axes[1].set(xscale="log", yscale="symlog", xlabel="epoch", ylabel="mistakes (of 1,600)", title="Pairs of clothes")
for ax in axes:
    label_line_ends(ax)
show(
    fig,
    alt="Left: mistakes of the perceptron grow slowly, on average from 3 to about 30, while the margin shrinks from 0.3 to "
    "0.01 and the bound grows to 30,000. Right: mistakes per epoch for three pairs. Trouser and boot reach zero after 3 "
    "epochs, sneaker and boot after almost two hundred, T-shirt and shirt stay near a hundred.",
)
claim("Perceptron: mistakes over the bound (R/γ)²", (counts * margins**2 / 3).max(1), "<=", 1, source="Novikoff 1962")
claim("Perceptron: epochs to separate sneakers and boots", len(mistakes["sneaker, boot"]), "<", 250, source="deck 003")

# %% [markdown]
# **Read the figure.** No run exceeds the bound, and all stay far below: a theorem about the worst case is a poor
# forecast. Right, its weak side: T-shirt and shirt are not separated after 250 epochs, and nothing in the curve tells
# you whether this is slow or hopeless. We want a rule that settles for *good* when perfect is out of reach.
#
# ## 2. A linear neuron slides downhill
#
# Leave the threshold out, and measure the error instead of counting it. The data: 506 districts of Boston; from the mean
# number of rooms we predict the median price, in $1000. Two parameters, so the whole loss surface can be drawn.
#
# $$L(\mathbf{w}) = \frac1{2n}\sum_i (\mathbf{x}_i^\top \mathbf{w} - y_i)^2, \qquad
# \nabla L = \frac1n \sum_i (\hat y_i - y_i)\,\mathbf{x}_i, \qquad \mathbf{w} \leftarrow \mathbf{w} - \eta \nabla L$$
#
# Here $\eta$ is the learning rate `lr`, and the bias is the weight of a column of ones. *On-line* takes one example a
# step, *minibatch* 46 (so that 11 equal batches make an epoch), *batch* all 506.
#
# **Predict.** After one pass through the data, at the same learning rate: which of the three is nearest to the bottom?
# And after sixty?


# %%
def descend(inputs, targets, lr, *, batch_size, epochs, seed=0):
    """The path of the weights of a linear neuron, one row per step."""
    rng, path = np.random.default_rng(seed), [np.zeros(inputs.shape[1])]
    for _ in range(epochs):
        for batch in np.split(rng.permutation(len(targets)), range(batch_size, len(targets), batch_size)):
            errors = inputs[batch] @ path[-1] - targets[batch]
            path.append(path[-1] - lr * inputs[batch].T @ errors / len(batch))
    return np.array(path)


# %%
def excess_loss(inputs, targets, weights):
    """How far the loss lies above the lowest possible, for each row of weights."""
    return 0.5 * np.square((weights - np.linalg.lstsq(inputs, targets)[0]) @ inputs.T).mean(axis=1)


boston, paths, excess = datasets.load_boston_housing(), {}, {}
rooms, price = boston.features["RM"].to_numpy(), boston.target.to_numpy()
neuron = np.column_stack([(rooms - rooms.mean()) / rooms.std(), np.ones(506)])
for name, size in {"batch": 506, "minibatch": 46, "on-line": 1}.items():
    paths[name] = [descend(neuron, price, 0.1, batch_size=size, epochs=60, seed=seed) for seed in range(5)]
    excess[name] = np.array([excess_loss(neuron, price, path[:: 506 // size]) for path in paths[name]])


# %%
def draw_surface(ax, inputs, targets, w_range, b_range):
    """Contours of the excess loss of a neuron with one weight and a bias; from line to line it doubles."""
    w, b = np.meshgrid(np.linspace(*w_range, 150), np.linspace(*b_range, 150))
    height = excess_loss(inputs, targets, np.column_stack([w.ravel(), b.ravel()])).reshape(w.shape)
    ax.contour(w, b, height, levels=2.0 ** np.arange(-2, 11), colors="0.75", linewidths=0.8)
    ax.set(xlabel="weight", ylabel="bias", xlim=w_range, ylim=b_range)


fig, axes = plt.subplots(1, 4, figsize=(12.5, 3.2))
for index, name in enumerate(paths):
    path, color = paths[name][0][: len(paths[name][0]) // 20 + 1], style(index)["color"]  # 3 of 60 epochs
    draw_surface(axes[index], neuron, price, (-3, 16), (-2, 29))
    axes[index].plot(*path.T, color=color, linewidth=1.2, marker="." if len(path) < 100 else None)
    axes[index].set(title=f"{name}: {len(path) - 1} steps")
    plot_seeds(axes[3], np.arange(61), excess[name], label=name, color=color)
axes[3].set(yscale="log", xlabel="epoch", ylabel="loss above the minimum", title="Five orders of the data")
label_line_ends(axes[3])
show(
    fig,
    dpi=85,
    alt="Paths on a round loss surface during three epochs. Batch makes 3 steps and is far from the centre; minibatch "
    "makes 33 and arrives; on-line makes 1518 and wanders around the centre in a tangle. Far right: the excess loss of "
    "on-line falls at once and stays between 0.1 and 30; minibatch falls to 0.01; batch falls on a straight line to 0.001.",
)
ratio = excess["on-line"] / excess["batch"]
claim("Excess loss of on-line over batch after 1 epoch", ratio[:, 1], "<", 0.1, source="deck 003")
claim("Excess loss of on-line over batch, epochs 50 to 60", ratio[:, 50:].mean(axis=1), ">", 10, source="this lesson")

# %% [markdown]
# **Read the figure.** One epoch is one step for batch and 506 for on-line, so on-line is there first. But it never
# settles: each example pulls towards its own best weights, and a single odd district throws the neuron far out.
# Minibatches take the speed of the one and most of the calm of the other, and they use the hardware better. That is why
# everyone trains with them.
#
# Two slips in deck 003 are worth a run. Its gradient is printed as $(y-\hat y)\,\mathbf{x}$, without the minus. And its
# minibatch loop collects the changes and updates *after* the inner loop. **Predict.** What does each of the two do?

# %%
printed = np.zeros(2)
for _ in range(5):  # epochs
    batches = [(neuron[rows], price[rows]) for rows in np.split(np.arange(506), 11)]
    printed = printed - 0.1 * sum(x.T @ (x @ printed - y) / len(y) for x, y in batches)
batch = descend(neuron, price, 11 * 0.1, batch_size=506, epochs=5)[-1]
uphill = excess_loss(neuron, price, descend(neuron, price, -0.1, batch_size=506, epochs=5))
claim("Deck 003's minibatch loop minus batch descent", abs(printed - batch).max(), "<", 1e-10, source="this lesson")
claim("Deck 003's sign: the loss rises (ratio, 5 steps)", uphill[-1] / uphill[0], ">", 1.5, source="this lesson")

# %% [markdown]
# As printed, eleven minibatches make *one* step of batch descent with eleven times the learning rate; and with the
# printed sign the neuron climbs.
#
# ### What the scale of the inputs does
#
# So far the rooms were **standardized**: minus their mean, divided by their standard deviation. Now take them as they
# come, about 6.3 rooms with a spread of 0.7. The learning rate is one over the largest curvature in both cases, the best
# value for the steepest direction.
#
# **Predict.** The standardized neuron needs a single step. How many does the raw one need? And which half of
# standardizing does the work: subtracting the mean, or dividing by the spread?

# %%
RECIPES = {"raw": (0, 0), "÷ spread": (0, 1), "− mean": (1, 0), "both": (1, 1)}
condition = pd.DataFrame(index=list(RECIPES), columns=["rooms", "all 12 columns"], dtype=float)
for (name, (center, scale)), columns in ((recipe, table) for recipe in RECIPES.items() for table in condition):
    x = boston.features[["RM"] if columns == "rooms" else boston.feature_names].to_numpy()
    x = np.column_stack([(x - center * x.mean(0)) / x.std(0) ** scale, np.ones(506)])
    condition.loc[name, columns] = np.linalg.cond(x.T @ x)  # largest curvature over smallest
condition.map("{:,.0f}".format)

# %%
raw, steps_needed = np.column_stack([rooms, np.ones(506)]), []
cases = ("raw", raw, (-2, 14), (-40, 12)), ("standardized", neuron, (-3, 16), (-2, 29))
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4))
for ax, (name, x, w_range, b_range) in zip(axes, cases, strict=True):
    path = descend(x, price, 506 / np.linalg.eigvalsh(x.T @ x)[-1], batch_size=506, epochs=8_001)
    heights = excess_loss(x, price, path)
    steps_needed.append(np.argmax(heights < 0.01 * heights[0]))
    draw_surface(ax, x, price, w_range, b_range)
    ax.plot(*path.T, **style(1), markevery=[0, 1, 1000, 2000, 4000, 8000])
    ax.plot(*np.linalg.lstsq(x, price)[0], "*", color="black", markersize=11)
    ax.set(title=f"{name}: 1% is left after step {steps_needed[-1]:,}")
show(
    fig,
    dpi=85,
    alt="Left, raw rooms: the contours are nearly parallel lines, a long narrow valley. The path jumps to its floor in one "
    "step and then creeps along it; markers at steps 1000, 2000, 4000, 8000. Right, standardized: circles, one step to the centre.",
)
claim("Raw rooms: steps until 1% of the loss is left", steps_needed[0], ">", 800, source="deck 003")
claim("Standardized rooms: steps until 1% is left", steps_needed[1], "<=", 5, source="deck 003")
claim("Boston, 12 columns: condition number raw", condition.iloc[0, 1], ">", 1e7, source="deck 003")
claim("Boston, 12 columns: condition number standardized", condition.iloc[3, 1], "<", 1000, source="deck 003")

# %% [markdown]
# **Read the figure.** Along the valley the bias falls and the price per room rises so that the average district costs the
# same: the loss hardly notices. The **condition number**, largest over smallest curvature, says how many steps that
# costs. Look at the table: for one column the *mean* does the harm, and dividing alone makes it worse. Twelve
# columns in different units need both halves; the 93 that remains is their correlation.
#
# ## 3. Four points that no line can divide
#
# XOR: the class is 1 if exactly one of two switches is on. **Predict.** A single line, every angle and every offset
# allowed: how many of the four points can it get right? And what does the least-squares neuron answer?

# %%
xor_inputs, xor_classes = datasets.make_xor()
x, y = xor_inputs.numpy(), xor_classes.numpy()
angle, offset = np.linspace(0, 2 * np.pi, 721)[:, None, None], np.linspace(-2, 2, 801)[None, :, None]
best = ((np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1] > offset) == y).mean(axis=2).max()
print("least squares:", np.linalg.lstsq(np.column_stack([x, np.ones(4)]), y)[0].round(3) + 0.0)
claim("XOR: accuracy of the best of all lines", best, "==", 0.75, source="decks 001, 003")
tried = len(train_perceptron(x, y, max_epochs=1000)[2])
claim("XOR: epochs after which the perceptron still errs", tried, "==", 1000, source="deck 003")

# %% [markdown]
# Three of four. The least-squares neuron has weights 0 and bias ½: it answers ½ everywhere, it has given up. A second linear
# layer does not help, because two linear maps in a row are one: $W_2(W_1\mathbf{x}) = (W_2W_1)\mathbf{x}$. There has
# to be a *bend* in between. Two ReLUs, $\max(0, z)$, are enough, and here is a solution without any training:
#
# $$h_1 = \max(0,\, x_1 + x_2), \qquad h_2 = \max(0,\, x_1 + x_2 - 1), \qquad o = h_1 - 2h_2$$
#
# **Predict.** Draw the four points in the plane of $(h_1, h_2)$. Where do the two points of class 1 land?

# %%
hidden = torch.relu(xor_inputs.sum(dim=1, keepdim=True) - torch.tensor([0.0, 1.0]))
print("output:", (hidden @ torch.tensor([1.0, -2.0])).tolist(), " classes:", xor_classes.tolist())
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
bands = ([-0.4, 2.4], [0.9, -1.9], [1.9, -0.9]), ([-0.4, 2.4], [-0.45, 0.95], -0.4)
titles = "What comes in", "What the hidden layer makes of it"
for ax, points, band, letter, title in zip(axes, (xor_inputs, hidden), bands, "xh", titles, strict=True):
    for label in (0, 1):
        ax.plot(*points[xor_classes == label].T, linestyle="", markersize=11, **style(label))
    ax.fill_between(*band, color=style(1)["color"], alpha=0.12, linewidth=0)
    ax.set(xlim=(-0.4, 2.4), ylim=(-0.4, 1.4), xlabel=f"${letter}_1$", ylabel=f"${letter}_2$", title=title)
axes[1].annotate("two points", (1.15, -0.3), color=style(1)["color"])
show(
    fig,
    alt="Left: the four XOR points at the corners of a square; class 1 lies in a diagonal band. Right: in the plane of the "
    "hidden units three points remain, because both of class 1 lie on (1, 0); a straight line cuts them off from the others.",
)

# %% [markdown]
# **Read the figure.** The hidden layer *folds* the plane: both class-1 points land on the same spot, and then one line
# is enough. This is deep learning in one picture: move the points until a linear neuron can finish the job.
#
# ### Does training find it?
#
# **Predict.** So two ReLU units suffice. We start 50 networks from random weights and train each for 2,000 steps of
# gradient descent. How many of the 50 solve XOR? How many with eight units? And those that fail: are they slow, or stuck?
#
# To be quick we train all 50 in one go: every parameter gets a first axis "seed", and the losses are added. The networks
# share no weight, so each receives its own gradient, as if it were alone.


# %%
def stack_networks(in_features, hidden_features, n_seeds):
    """Parameters of `n_seeds` networks with one hidden layer, torch's default initialization, stacked along axis 0."""
    sizes = {"in_features": in_features, "hidden_features": [hidden_features], "out_features": 1}
    networks = [MLP(**sizes, init="torch_default", generator=make_generator(seed)) for seed in range(n_seeds)]
    return [
        torch.stack(same).detach().requires_grad_() for same in zip(*(n.parameters() for n in networks), strict=True)
    ]


def run_stack(parameters, inputs, activation):
    """(batch, in_features) → (n_seeds, batch)."""
    w1, b1, w2, b2 = parameters
    return (activation(inputs @ w1.mT + b1[:, None]) @ w2.mT + b2[:, None]).squeeze(-1)


def train_stack(
    parameters, inputs, targets, activation, optimizer, n_steps, loss_fn=F.binary_cross_entropy_with_logits
):
    """Full-batch training of all networks at once."""
    for _ in range(n_steps):
        outputs = run_stack(parameters, inputs, activation)
        optimizer.zero_grad()
        loss_fn(outputs, targets.expand_as(outputs), reduction="none").mean(dim=1).sum().backward()
        optimizer.step()


# %%
BENDS, widths, solved = {"linear": nn.Identity(), "ReLU": torch.relu, "tanh": torch.tanh}, [2, 3, 4, 8, 16], {}
stacks = {(name, width): stack_networks(2, width, n_seeds=50) for name in BENDS for width in widths}
for (name, width), stack in stacks.items():
    train_stack(stack, xor_inputs, xor_classes.float(), BENDS[name], torch.optim.SGD(stack, lr=0.5), n_steps=2000)
    solved[name, width] = ((run_stack(stack, xor_inputs, BENDS[name]) > 0) == xor_classes).all(dim=1)
rates = {key: seeds.double().mean().item() for key, seeds in solved.items()}
fig, ax = plt.subplots(figsize=(7, 3.5))
for index, name in enumerate(BENDS):
    rate = np.array([rates[name, width] for width in widths])
    error, color = 1.96 * np.sqrt(rate * (1 - rate) / 50), style(index)["color"]
    ax.plot(rate, label=name, **style(index))
    ax.errorbar(range(5), rate, error, fmt="none", capsize=3, color=color)
ax.set(xlabel="hidden units", xticks=range(5), xticklabels=widths, ylabel="share of 50 seeds", title="Solving XOR")
label_line_ends(ax)
show(
    fig,
    alt="Share of 50 networks that solve XOR against the number of hidden units 2, 3, 4, 8, 16. Linear: always zero. ReLU "
    "rises from 0.18 to 1. Tanh starts at about 0.7 and is at 1 from 4 units on. Bars show 95% intervals.",
)
bounds = {("linear", 16): ("==", 0), ("ReLU", 2): ("<", 0.4), ("ReLU", 16): (">", 0.85), ("tanh", 8): (">", 0.9)}
for (name, width), (op, bound) in bounds.items():
    claim(f"XOR: share of seeds that {width} {name} units solve", rates[name, width], op, bound, source="this lesson")


# %%
def draw_regions(ax, predict, inputs, classes, low, high):
    """Colour the square by `predict`, a function from (n, 2) points to (n,) values whose sign is the class."""
    ticks = torch.linspace(low, high, 150)
    values = torch.tanh(predict(torch.cartesian_prod(ticks, ticks)).detach()).reshape(150, 150).T
    area = {"extent": (low, high, low, high), "origin": "lower", "interpolation": "nearest"}
    ax.imshow(
        values.mul(8).round().div(8), **area, cmap=plotting.DIVERGING, vmin=-1.6, vmax=1.6
    )  # in steps: a small file
    for label in (0, 1):
        ax.plot(*inputs[classes == label].T, linestyle="", markeredgecolor="white", **style(label))
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(low, high), ylim=(low, high))


stack, found = stacks["ReLU", 2], solved["ReLU", 2]
fig, axes = plt.subplots(1, 6, figsize=(11, 2.3))
for ax, seed in zip(axes, [*found.nonzero()[:3, 0].tolist(), *(~found).nonzero()[:3, 0].tolist()], strict=True):
    draw_regions(ax, lambda x, seed=seed: run_stack(stack, x, torch.relu)[seed], xor_inputs, xor_classes, -0.5, 1.5)
    ax.set(title=f"seed {seed}")
show(
    fig,
    alt="Decision regions of six networks with two ReLU units. Three separate the corners by a diagonal band; one cuts off a "
    "single corner and is undecided about the others; two are undecided everywhere.",
)
dead = (torch.relu(xor_inputs @ stack[0].mT + stack[1][:, None]) == 0).all(dim=1).any(dim=1)
train_stack(stack, xor_inputs, xor_classes.float(), torch.relu, torch.optim.SGD(stack, lr=0.5), n_steps=8000)
now = ((run_stack(stack, xor_inputs, torch.relu) > 0) == xor_classes).all(dim=1)
claim("XOR: failed seeds (of 50) that 8,000 more steps rescue", (now & ~found).sum(), "<=", 2, source="this lesson")
claim("XOR: share of failed seeds with a dead ReLU", dead[~found].double().mean(), ">", 0.6, source="this lesson")

# %% [markdown]
# **Read the figures.** A solution *exists* for two ReLUs, and training finds it in about one run of five. "The network
# solves XOR" is not a fact but a **probability**. Extra units are lottery tickets: any of them may start in a useful
# place. The losers (seeds 1 and 2 answer ½ everywhere) are *stuck*: 8,000 more steps rescue none. In four of five of
# them a ReLU outputs 0 for all four points; its slope is 0 too, so it never changes again. Start anew instead.
#
# ### Playground
#
# Four data sets, one hidden layer, 300 steps of Adam. Find the smallest network for each. Change a setting, and the
# network trains before your eyes from its first weights on; the slider takes you back to any step. Where widgets don't
# run, the table of pictures holds the answers.

# %%
POINTS = {"xor": datasets.make_xor(200, noise_std=0.15), "moons": datasets.make_two_moons(200)}
POINTS |= {"circles": datasets.make_circles(200), "spirals": datasets.make_spirals(300)}


@functools.lru_cache(maxsize=8)
def begin(data, activation, hidden_units, seed):
    """A network at its first weights, its optimizer, its points, and a list for the weights after each five steps."""
    inputs, classes = (POINTS[data][0] - POINTS[data][0].mean(0)) / POINTS[data][0].std(0), POINTS[data][1]
    model = MLP(2, [hidden_units], 2, activation=activation, init="xavier_uniform", generator=make_generator(seed))
    return model, torch.optim.Adam(model.parameters(), lr=0.03), inputs, classes, []


def weights_after(steps, run):
    """Train on from where this run stands, if it has not come that far yet."""
    model, adam, inputs, classes, kept = run
    while len(kept) <= steps // 5:
        kept.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        for _ in range(5):
            adam.zero_grad()
            F.cross_entropy(model(inputs), classes).backward()
            adam.step()
    return kept[steps // 5]


# %%
def draw_network(ax, data, activation, hidden_units, seed=0, steps=300):
    """Draw the decision regions after so many steps, and return the training accuracy."""
    model, _, inputs, classes, _ = run = begin(data, activation, hidden_units, seed)
    predict = functools.partial(functional_call, model, weights_after(steps, run))
    draw_regions(ax, lambda x: predict(x).diff(dim=1).squeeze(), inputs, classes, -2.4, 2.4)
    accuracy = (predict(inputs).argmax(dim=1) == classes).double().mean().item()
    ax.set_title(f"{hidden_units} {activation}: {accuracy:.0%}", fontsize=10)
    return accuracy


def explore(data="circles", activation="relu", hidden_units=3, seed=0, steps=300):
    """One setting of the playground at one step."""
    fig, ax = canvas(3.8, 4.1, left=0.1, right=0.1, bottom=0.1)
    accuracy = draw_network(ax, data, activation, hidden_units, seed, steps)
    ax.set_title(f"step {steps}: {accuracy:.0%}")
    network = f"{hidden_units} {activation} units, seed {seed}"
    show(fig, alt=f"Regions on {data} after {steps} steps of {network}: accuracy {accuracy:.0%}.")


controls = {"data": list(POINTS), "activation": ["identity", "tanh", "relu"], "hidden_units": (1, 16), "seed": (0, 20)}
explorer(explore, **controls, steps=play(300, step=5))

# %%
NETWORKS = [("identity", 16), ("relu", 2), ("relu", 3), ("relu", 4), ("relu", 16), ("tanh", 16)]
(fig, axes), reached = plt.subplots(4, 6, figsize=(10, 7.2)), {}
for (row, column), ax in np.ndenumerate(axes):
    data, (activation, width) = list(POINTS)[row], NETWORKS[column]
    reached[data, column] = draw_network(ax, data, activation, width)
    ax.set_ylabel("" if column else data)
show(fig, dpi=80, alt="Decision regions, four data sets by six networks: lines at first, curved shapes at 16 units.")
claim("ReLU adds accuracy on circles", reached["circles", 4] - reached["circles", 0], ">", 0.25, source="deck 003")

# %% [markdown]
# **Read the figure.** Each ReLU contributes one straight fold. Three folds close around the inner circle; two cannot.
# Sixteen follow the spirals. Tanh draws the same shapes with round corners. (One seed each: the slider shows how much luck it is.)
#
# ## 4. The zoo of bends
#
# Any bend will do for XOR. Which to take is decided by its *slope*, which multiplies every gradient on its way
# back (lesson 01 is about nothing else), and by the *mean and spread* of what it hands on.
#
# **Predict.** Of the ten below: which ones have a slope of exactly zero somewhere? Which have a *negative* slope? Which
# one learns its own shape?

# %%
ZOO = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "hard tanh": nn.Hardtanh(), "ReLU": nn.ReLU()}
ZOO |= {"leaky ReLU": nn.LeakyReLU(0.1), "PReLU": nn.PReLU(), "ELU": nn.ELU(), "SELU": nn.SELU()}
ZOO |= {"GELU": nn.GELU(), "SiLU": nn.SiLU()}
z = torch.linspace(-6, 6, 1201, requires_grad=True)
heights = torch.stack([module(z) for module in ZOO.values()])
slopes = torch.stack([torch.autograd.grad(height.sum(), z, retain_graph=True)[0] for height in heights])
fig, axes = plt.subplots(2, 5, figsize=(11, 4.4), sharex=True, sharey=True)
for ax, name, height, slope in zip(axes.flat, ZOO, heights.detach(), slopes, strict=True):
    ax.plot(z.detach(), height, **plotting.TRAIN)
    ax.plot(z.detach(), slope, **plotting.VAL)
    ax.set(title=name, xlim=(-4, 4), ylim=(-2, 3))
axes[0, 0].annotate("activation", (-3.8, 2.4), color=plotting.TRAIN["color"])
axes[0, 0].annotate("its slope", (-3.8, 1.8), color=plotting.VAL["color"])
show(
    fig,
    alt="Ten activations (solid) with their slopes (dashed). Sigmoid, tanh and hard tanh are flat at both ends; ReLU is zero "
    "on the left, leaky ReLU and PReLU are slanted there; ELU and SELU bend down to a floor; GELU and SiLU dip below zero.",
)

# %%
bell = torch.softmax(-(z.detach() ** 2) / 2, dim=0)  # the weights of a standard normal z
mean, square = heights @ bell, heights**2 @ bell
numbers = torch.stack([slopes.amax(1), slopes.amin(1), mean, (square - mean**2).sqrt()]).T.detach().numpy()
table = pd.DataFrame(numbers, list(ZOO), ["largest slope", "smallest slope", "mean", "spread"]).round(2) + 0.0
off = abs(table.iloc[7, 2:] - [0, 1]).max()
claim("SELU: mean output and spread are off from 0 and 1 by", off, "<", 0.02, source="Klambauer 2017")
claim("Sigmoid's mean output minus tanh's", table.iloc[0, 2] - table.iloc[1, 2], ">", 0.25, source="deck 003")
table.assign(parameters=[count_parameters(module) for module in ZOO.values()])

# %% [markdown]
# **Read the figure.** Tanh is the sigmoid stretched to mean 0 and four times the slope, the two advantages that deck 003
# names: $\tanh z = 2\sigma(2z) - 1$. ReLU and hard tanh have regions of slope exactly 0; ELU repairs that smoothly, and
# SELU scales it so that mean 0 and spread 1 reproduce themselves. GELU and SiLU are not monotone. PReLU learns
# its left slope: one parameter, the exception to deck 001's "no learnable parameter". ReLU is the default to beat.
#
# ## 5. The gradient, three ways and once by hand
#
# A network of any depth is one long formula. Deck 001's small one shows all that happens:
#
# $$f(x, y, z) = x\,\sqrt{\exp\!\left(-\frac{\sin z}{y^2}\right)} \qquad\text{at } x=2,\; y=1.5,\; z=0.7$$
#
# **Way 1, symbolic**, "is good but slow", says the deck. **Predict.** Nest $u \leftarrow u \sin u$ five times. How
# much longer than the formula is its derivative? **By hand**: cut the formula into elementary steps. Forward, keep every
# value. Backward, each node receives "how much does $f$ change if I change" and multiplies it by its own local slope.
# Cover the code and try the first three.

# %%
symbols = X, Y, Z = sympy.symbols("x y z")
formula = X * sympy.sqrt(sympy.exp(-sympy.sin(Z) / Y**2))
exact = np.array([float(formula.diff(v).evalf(30, subs={X: 2, Y: 1.5, Z: sympy.Rational(7, 10)})) for v in symbols])
nested = X
for _ in range(5):
    nested = nested * sympy.sin(nested)
parts, _ = sympy.cse([nested, nested.diff(X)])
print(f"operations: {nested.count_ops()}, derivative {nested.diff(X).count_ops()}; parts if shared: {len(parts)}")
x, y, z = 2.0, 1.5, 0.7
a, b = np.sin(z), y**2
c = a / b
e = np.exp(-c)
s = np.sqrt(e)
back = {"f": 1.0, "x": s, "s": x}  # f = x·s
back["e"] = back["s"] / (2 * s)  # s = √e
back["c"] = -back["e"] * e  # e = exp(-c)
back["a"], back["b"] = back["c"] / b, -back["c"] * a / b**2  # c = a/b
back["z"], back["y"] = back["a"] * np.cos(z), back["b"] * 2 * y  # a = sin z, b = y²

# %%
NODES = {
    "z": (z, 0, 0), "a = sin z": (a, 1, 0), "y": (y, 0, 1), "b = y²": (b, 1, 1), "c = a / b": (c, 2, 0.5),
    "e = exp(−c)": (e, 3.2, 0.5), "s = √e": (s, 4.4, 0.5), "x": (x, 4.4, 1.5), "f = x · s": (x * s, 5.4, 1),
}  # fmt: skip
places = {text[0]: place for text, (_, *place) in NODES.items()}
fig, ax = plt.subplots(figsize=(10.5, 3.5))
for tail, head in ("za", "yb", "ac", "bc", "ce", "es", "sf", "xf"):
    ax.annotate("", places[head], places[tail], arrowprops={"arrowstyle": "->", "shrinkA": 38, "shrinkB": 44})
for text, (value, column, row) in NODES.items():
    ax.text(column, row, text, ha="center", va="center", bbox={"boxstyle": "round", "fc": "white", "ec": "0.5"})
    ax.text(column, row + 0.19, f"{value:.3f}", ha="center", color=plotting.TRAIN["color"])
    ax.text(column, row - 0.3, f"{back[text[0]]:+.3f}", ha="center", color=plotting.VAL["color"])
ax.text(-0.3, 1.72, "above: value", color=plotting.TRAIN["color"])
ax.text(-0.3, 1.54, "below: derivative of f by it", color=plotting.VAL["color"])
ax.set(xlim=(-0.4, 5.9), ylim=(-0.4, 1.85))
ax.set_axis_off()
show(
    fig,
    alt="Computation graph from z, y and x over sin z, y squared, their quotient, exp and square root to f. Above each node "
    "its value, below it the derivative of f: 1 at f, then back to 0.867 at x, 0.331 at y and -0.295 at z.",
)

# %% [markdown]
# Read the graph from right to left: each orange number is the one behind it times a local slope. As for way 1: the
# derivative takes 768 operations where the formula takes 62, but only on paper, for it repeats the same parts again
# and again. Computed once and *shared*, 22 parts remain. Keeping and sharing is what backpropagation does.
#
# **Way 2, autograd**, does the same bookkeeping. **Way 3, finite differences**: nudge an input by $h$ and see what
# happens. Deck 001 says they "accumulate errors gradually". **Predict.** Is a smaller $h$ always better? Sketch the
# error against $h$, from 1 down to $10^{-16}$.

# %%
leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (x, y, z)]
(leaves[0] * torch.sqrt(torch.exp(-torch.sin(leaves[2]) / leaves[1] ** 2))).backward()
f, at, nudges = sympy.lambdify([symbols], formula), np.array([x, y, z]), np.eye(3)
steps = 10.0 ** np.arange(-16, 0.1, 0.25)
forward = [abs([(f(at + h * n) - f(at)) / h for n in nudges] - exact).max() for h in steps]
central = [abs([(f(at + h * n) - f(at - h * n)) / (2 * h) for n in nudges] - exact).max() for h in steps]
fig, ax = plt.subplots(figsize=(7.5, 3.6))
ax.loglog(steps, forward, label="forward differences", markersize=3, **style(0))
ax.loglog(steps, central, label="central differences", markersize=3, **style(1))
ax.axhline(1.1e-16, color="0.4", linestyle=":")
ax.annotate("autograd, and our hand", (1, 2e-16), color="0.4")
ax.set(xlabel="step h", ylabel="largest error of the gradient", ylim=(2e-17, 10))
ax.invert_xaxis()
label_line_ends(ax)
show(
    fig,
    alt="Error of finite differences against the step, both axes logarithmic. From h = 1 the error falls, for central "
    "differences twice as steeply, to a minimum near 1e-8 for forward and 1e-5 for central, then rises again in a ragged line.",
)
for name, ours in ("By hand", [back[node] for node in "xyz"]), ("Autograd", [leaf.grad.item() for leaf in leaves]):
    claim(f"{name}: error of the gradient of f", abs(ours - exact).max(), "<", 1e-14, source="deck 001")
claim("Forward differences: error at the best step", min(forward), ">", 1e-11, source="this lesson")
claim("Best error of central over forward differences", min(central) / min(forward), "<", 0.1, source="this lesson")

# %% [markdown]
# **Read the figure.** Two errors, one on each side. For large $h$ the curve's bend is ignored: *truncation*, which
# falls like $h$, or $h^2$ if you look in both directions. For small $h$ two nearly equal numbers are subtracted and
# digits vanish: *round-off*, which grows like $1/h$. Nothing accumulates. The real reason not to train this way is
# the price: one evaluation per *parameter*, where backward costs a few for all of them. As a *check* it is invaluable.
#
# ## 6. The deck's example, number by number
#
# Deck 003 walks through one step of backpropagation: inputs 1 and 0, two sigmoid hidden units, one sigmoid output, all
# weights 0, target 1, $\eta = 0.5$. It finds $e_1 = e_2 = 0.00097813$ for the hidden units. **Predict.** The formula is
# $e_j = F'(y_j)\sum_k e_k w_{jk}$, and all weights are 0. What must $e_1$ be?


# %%
def deck_step(hidden_weights, output_weights, *, updated_first=False, lr=0.5):
    """One step; row 0 of each array is the bias. Returns the new weights, the errors (e_1, e_2), and the loss."""
    inputs = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    h = torch.cat([inputs[:1], torch.sigmoid(inputs @ hidden_weights)])
    output = torch.sigmoid(h @ output_weights)
    e_output = (1 - output) * output * (1 - output)
    new_output = output_weights + lr * e_output * h
    e_hidden = (h * (1 - h) * e_output * (new_output if updated_first else output_weights))[1:]
    return hidden_weights + lr * torch.outer(inputs, e_hidden), new_output, e_hidden, 0.5 * (1 - output) ** 2


# %%
start = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2), (3,))]
deck_step(*start)[-1].backward()
columns = {"deck 003": [0.0625, 0.0313, 0.00097813, 0.00048907]}
for name, flag in (("its order, unrounded", True), ("old weights", False)):
    hidden, output, errors, _ = deck_step(*start, updated_first=flag)
    columns[name] = torch.stack([output[0], output[1], errors[0], hidden[1, 0]]).tolist()
columns["autograd"] = [*(-0.5 * start[1].grad[:2]).tolist(), np.nan, start[0].grad[1, 0].abs().item()]
pd.DataFrame(columns, index=["w₀₃", "w₁₃ = w₂₃", "e₁ = e₂", "w₁₁ = w₁₂"]).map("{:.8g}".format).replace("nan", "")

# %%
hidden, output = (weights.detach() for weights in start)
for _ in range(1000):
    hidden, output, *_ = deck_step(hidden, output)
print("after 1,000 steps:", hidden.T.numpy().round(4).tolist(), output.numpy().round(4).tolist())
claim("Deck 003's example: hidden gradient in step 1", start[0].grad.abs().max().item(), "==", 0, source="this lesson")
difference = (hidden[:, 0] - hidden[:, 1]).abs().max()
claim("Deck 003's example: difference of the hidden units", difference, "==", 0, source="this lesson")

# %% [markdown]
# The deck updated the output weights *first* and sent the error back through the new ones. (It also rounded on the
# way: unrounded, its number is 0.00097656.) Compute all gradients with the old weights, then update all: only that is
# the gradient of anything. The table hides a second problem: after 1,000 steps the two hidden units are
# still *equal*. Same start, same gradient, for ever. Two units that do the work of one cannot fold the plane, so start
# from random weights; lesson 02 says how large.
#
# ## 7. An MLP from scratch
#
# With a batch of examples as rows of $H_0$, every layer is a matrix product, and backward is two more:
#
# $$Z_l = H_{l-1}W_l + \mathbf b_l,\; H_l = \max(0, Z_l); \qquad
# \nabla W_l = H_{l-1}^\top \Delta_l,\; \nabla\mathbf b_l = \textstyle\sum_{\text{rows}}\Delta_l,\;
# \Delta_{l-1} = (\Delta_l W_l^\top) \odot [H_{l-1} > 0]$$
#
# $\Delta_l$ is the gradient by $Z_l$. At the output, for softmax with cross-entropy, it is probability minus
# truth, divided by the batch size: prediction minus target, the linear neuron's error again.


# %%
def mlp_forward(layers, inputs):
    """[(W, b), …] and (batch, in_features) → the list H_0, H_1, …, logits."""
    values = [inputs]
    for number, (weight, bias) in enumerate(layers, start=1):
        z = values[-1] @ weight + bias
        values.append(np.maximum(z, 0) if number < len(layers) else z)
    return values


def mlp_gradients(layers, inputs, labels):
    """Gradients of the mean cross-entropy, in the structure of `layers`."""
    *values, logits = mlp_forward(layers, inputs)
    delta = np.exp(logits - logits.max(axis=1, keepdims=True))  # minus the maximum: the same, without overflow
    delta = (delta / delta.sum(axis=1, keepdims=True) - np.eye(logits.shape[1])[labels]) / len(labels)
    gradients = []
    for (weight, _), h in zip(reversed(layers), reversed(values), strict=True):
        gradients.insert(0, (h.T @ delta, delta.sum(axis=0)))
        delta = (delta @ weight.T) * (h > 0)
    return gradients


# %%
inputs, labels = (part.numpy() for part in train_set)
differences, accuracies = np.zeros(3), np.zeros(3)
for seed in range(3):
    model = MLP(784, [64, 32], 10, init="kaiming_normal", generator=make_generator(seed)).double()
    F.cross_entropy(model(train_set[0][:64].double()), train_set[1][:64]).backward()
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    layers = [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear]
    for layer, (dw, db) in zip(linear, mlp_gradients(layers, inputs[:64], labels[:64]), strict=True):
        gaps = abs(dw.T - layer.weight.grad.numpy()).max(), abs(db - layer.bias.grad.numpy()).max()
        differences[seed] = max(differences[seed], *gaps)
    for batch in np.split(np.random.default_rng(seed).permutation(8000), 125) * 2:  # two epochs of batches of 64
        for pair, gradients in zip(layers, mlp_gradients(layers, inputs[batch], labels[batch]), strict=True):
            for parameter, gradient in zip(pair, gradients, strict=True):
                parameter -= 0.1 * gradient
    accuracies[seed] = (mlp_forward(layers, val_set[0].numpy())[-1].argmax(axis=1) == val_set[1].numpy()).mean()
claim("NumPy MLP: gradients equal autograd's (difference)", differences, "<", 1e-12, source="this lesson")
claim("NumPy MLP: validation accuracy after two epochs", accuracies, ">", 0.7, source="this lesson")

# %% [markdown]
# Some fifteen lines, and they tell shirts from shoes. What torch adds is that you never write `mlp_gradients` again, for any
# formula.
#
# ## 8. Counting parameters
#
# A layer from $n$ to $m$ units has $n\,m$ weights and $m$ biases: $m(n+1)$. **Predict**, with a pencil: 50-100-100-10?
# And the network on deck 001's slides, 784-32-10, for which its formula gives 25,450?

# %%
slide = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10, bias=False))  # as printed: layer1 has no bias
models = {"50-100-100-10": MLP(50, [100, 100], 10), "784-32-10": MLP(784, [32], 10), "the slide": slide}
for text, model in models.items():
    print(f"{text:14s}{count_parameters(model):7,}   by tensor: {[p.numel() for p in model.parameters()]}")
claim("Parameters of 50-100-100-10", count_parameters(models["50-100-100-10"]), "==", 16210, source="deck 004")
claim("Parameters of deck 001's code (its formula: 25,450)", count_parameters(slide), "==", 25440, source="this lesson")

# %% [markdown]
# Ten fewer, because the slide's code says `bias=False`: a trifle, and the kind of trifle that a count reveals. Print
# it whenever you build a network. Notice *where* they sit: the first layer of 784-32-10 holds over 98%.
#
# ## 9. What universal approximation promises
#
# The theorem (Cybenko, Hornik 1989): one hidden layer, wide enough, comes as close as you like to any continuous
# function on a bounded region. For ReLU you can see why: put a fold at each of $n$ knots, choose the change of slope
# there, and the network *is* a polygon through the knots. We take $g(x) = x \sin 2x$ on $[-3, 3]$ and construct that
# network; then tanh features with random folds, of which only the output layer is computed, by least squares; then both
# trained by Adam, all weights, five seeds.
#
# **Predict.** Training may move the folds too, so it has more freedom. Does it come closer than the constructions?


# %%
def constructed_relu(n_units):
    """The network whose graph is the polygon of the target through n_units + 1 equidistant knots."""
    knots = np.linspace(-3, 3, n_units + 1)
    slopes = np.diff(knots * np.sin(2 * knots)) / np.diff(knots)
    return target[0] + np.maximum(grid[:, None] - knots[:-1], 0) @ np.diff(slopes, prepend=0)


def least_squares_tanh(n_units, rng):
    """Random folds in [-3, 3]; the output weights by least squares."""
    hidden = np.tanh(rng.normal(0, 2, n_units) * (grid[:, None] - rng.uniform(-3, 3, n_units)))
    return hidden @ np.linalg.lstsq(hidden, target)[0]


grid = np.linspace(-3, 3, 201)
target, fits, rng = grid * np.sin(2 * grid), {}, np.random.default_rng(0)
x, y = torch.tensor(grid[:, None]).float(), torch.tensor(target).float()
for width in (widths := [4, 8, 16, 32, 64]):
    fits["ReLU, constructed", width] = constructed_relu(width)[None]
    fits["tanh, least squares", width] = np.array([least_squares_tanh(width, rng) for _ in range(5)])
    for name, bend in (("ReLU, trained", torch.relu), ("tanh, trained", torch.tanh)):
        stack = stack_networks(1, width, n_seeds=5)
        train_stack(stack, x, y, bend, torch.optim.Adam(stack, lr=0.01), n_steps=1500, loss_fn=F.mse_loss)
        fits[name, width] = run_stack(stack, x, bend).detach().numpy()
worst = {key: abs(values - target).max(axis=1) for key, values in fits.items()}

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.7))
axes[0].plot(grid, target, color="0.8", linewidth=6)
for index, name in enumerate(("ReLU, constructed", "ReLU, trained", "tanh, least squares", "tanh, trained")):
    axes[0].plot(grid, fits[name, 16][0] if index < 2 else target * np.nan, color=style(index)["color"], linewidth=1.5)
    dashed = {"linestyle": "--"} if "trained" in name else {}
    plot_seeds(axes[1], widths, np.array([worst[name, n] for n in widths]).T, label=name, **style(index), **dashed)
axes[0].set(xlabel="x", ylabel="output", title="16 ReLU units: constructed, trained")
axes[1].set(xscale="log", yscale="log", xlabel="hidden units", ylabel="largest error", title="Five seeds")
axes[1].set_xticks(widths, widths)
axes[1].minorticks_off()
label_line_ends(axes[1])
show(
    fig,
    alt="Left: the target, on it the polygon of 16 constructed ReLUs, and a trained network of the same size that misses whole "
    "waves. Right: largest error against hidden units. The constructions fall steeply; the trained networks stay above 0.1.",
)
claim("16 ReLUs, constructed: largest error", worst["ReLU, constructed", 16], "<", 0.4, source="this lesson")
claim("16 ReLUs, trained by Adam: largest error", worst["ReLU, trained", 16], ">", 0.8, source="this lesson")
claim("64 tanh features, least squares: largest error", worst["tanh, least squares", 64], "<", 0.01, source="deck 001")
claim("64 tanh units, trained: largest error", worst["tanh, trained", 64], ">", 0.05, source="this lesson")

# %% [markdown]
# **Read the figure.** The theorem is right: the error falls with width, *by construction*. Training the same 16 ReLUs
# misses whole waves. It is XOR again: **existence is not training**. Two caveats: at 4 units every trained tanh
# network is the *better* one, the gap opens with width; and this is one target and one optimizer. (Try 6,000 steps:
# tanh improves, most of the ReLU networks stay.) Nor does the theorem say how wide is enough, or anything about $x$ outside.
#
# ## 10. Real data, and an honest verdict
#
# Your own data rarely come as one tensor. A **Dataset** answers two questions: how many, and give me number $i$. A
# **DataLoader** shuffles it and makes batches. Mean and spread come from the *training* images alone: the others
# play the future, and the future must not leak in.


# %%
class Clothes(Dataset):
    """Images as stored, (n, 28, 28) bytes; each is scaled and flattened only when it is asked for."""

    def __init__(self, images, labels, mean, std):
        self.images, self.labels, self.mean, self.std = images, labels, mean, std

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        pixels = torch.from_numpy(self.images[index]).flatten() / 255
        return (pixels - self.mean) / self.std, int(self.labels[index])


images, labels = clothes.train_images, clothes.train_labels
scale = images[:8000].mean() / 255, images[:8000].std() / 255
train_loader = DataLoader(Clothes(images[:8000], labels[:8000], *scale), batch_size=64, shuffle=True)
val_loader = DataLoader(Clothes(images[8000:], labels[8000:], *scale), batch_size=500)
torch.testing.assert_close(torch.cat([batch for batch, _ in val_loader]), val_set[0])
model = MLP(784, [32], 10, init="kaiming_normal", generator=make_generator(0))
sgd = torch.optim.SGD(model.parameters(), lr=0.1)
options = {"loss_fn": F.cross_entropy, "optimizer": sgd, "callbacks": [LiveLossPlot()]}
fit(model, train_loader, val=val_loader, **options, max_epochs=5, seed=0)

# %% [markdown]
# The curves are redrawn while the network trains; you see the last state. The images are the same numbers as the
# ready-made tensors, and `fit` takes both. Data that fit into memory train faster as tensors, because a loader fetches
# examples one by one; its strength is data that do *not* fit, or that change on the fly.
#
# ### Why the test set is opened once
#
# **Predict.** Twenty networks, same recipe, different seeds: in truth about equally good. You choose the one with
# the best score on 200 images and report that score. By how much does it flatter? We draw the 200 from the validation
# set, thirty times, and ask the other 1,800 for the truth.


# %%
def train_mlp(hidden_features, seed, *, n=8000, lr=0.1, max_epochs=5):
    """A network trained on the first n training images."""
    model = MLP(784, [hidden_features], 10, init="kaiming_normal", generator=make_generator(seed))
    options = {"loss_fn": F.cross_entropy, "optimizer": torch.optim.SGD(model.parameters(), lr=lr), "seed": seed}
    fit(model, (train_set[0][:n], train_set[1][:n]), **options, max_epochs=max_epochs)
    return model


twenty = [train_mlp(32, seed, n=1000, lr=0.05, max_epochs=8) for seed in range(20)]
correct = torch.stack([(model(val_set[0]).argmax(dim=1) == val_set[1]).double() for model in twenty])  # (model, image)
lead = 100 * (correct - correct.mean(dim=0))  # over the average of the twenty, in points
gains = {"on the 200 it was chosen by": [], "on the 1,800 others": []}
for draw in range(30):
    order = torch.randperm(2000, generator=make_generator(draw))
    winner = correct[:, order[:200]].mean(dim=1).argmax()
    for gain, images in zip(gains.values(), (order[:200], order[200:]), strict=True):
        gain.append(lead[winner, images].mean().item())
fig, ax = plt.subplots(figsize=(7.5, 1.9))
plotting.plot_dots(ax, gains, xlabel="lead of the winner over the average [points]", means=".1f")
ax.axvline(0, color="0.5", linestyle=":", linewidth=1)
show(fig, alt="Lead of the best of twenty: two to five points where it was chosen, around zero elsewhere.")
there, elsewhere = (np.mean(gain) for gain in gains.values())
claim("Best of 20 by 200 images: lead there [points]", there, ">", 2, source="deck 003")
claim("Best of 20 by 200 images: lead on fresh images [points]", elsewhere, "<", 1, source="deck 003")

# %% [markdown]
# **Read the figure.** The winner's lead is luck and stays behind with the 200 images. Hence three parts: **train** to fit
# the weights, **validation** to choose everything else (its score grows flattering with every use), **test** to report,
# once. Deck 003's 80/5/15 is one sensible cut; lesson 06 has better ones for small data. Now do it: choose a width by
# validation, then open the test set. The ± below is the sampling error of 2,000 images, nothing more.

# %%
candidates = {width: train_mlp(width, seed=0) for width in (8, 32, 128)}
scores = {width: evaluate(model, val_set, loss_fn=F.cross_entropy)["accuracy"] for width, model in candidates.items()}
chosen = max(scores, key=scores.get)
verdict = evaluate(candidates[chosen], test_set, loss_fn=F.cross_entropy)["accuracy"]
print("validation:", {width: round(score, 3) for width, score in scores.items()})
print(f"chosen {chosen} units; test accuracy {verdict:.3f} ± {1.96 * np.sqrt(verdict * (1 - verdict) / 2000):.3f}")
claim("Test set, opened once: the chosen MLP", verdict, ">", 0.75, source="this lesson", unit="accuracy")

# %% [markdown]
# The test set is used up for this question now; whoever looks twice has begun to fit it.
#
# ### Look at the failures
#
# An accuracy is one number; mistakes have faces. We take *validation* images, for looking is a form of fitting too.
# **Predict.** Which of the ten classes is hardest, and is it the same one for every seed?

# %%
shares, tops, truth = [], torch.tensor([0, 2, 4, 6]), val_set[1]
for model in (candidates[chosen], train_mlp(chosen, seed=1), train_mlp(chosen, seed=2)):
    guess = model(val_set[0]).argmax(dim=1)
    found = torch.tensor([(guess[truth == label] == label).double().mean() for label in range(10)])
    shares.append((torch.isin(guess, tops) & torch.isin(truth, tops))[guess != truth].double().mean())
    print("least often found:", ", ".join(f"{clothes.class_names[k]} {found[k]:.0%}" for k in found.argsort()[:3]))
claim("Errors among T-shirt, pullover, coat, shirt", shares, ">", 0.4, source="this lesson", unit="of all errors")

# %%
confidence, guess = candidates[chosen](val_set[0]).detach().softmax(dim=1).max(dim=1)
worst_first = torch.where(guess != truth, confidence, 0).argsort(descending=True)[:12]
fig, axes = plt.subplots(2, 6, figsize=(11, 4.6), subplot_kw={"frame_on": False, "xticks": [], "yticks": []})
for ax, index in zip(axes.flat, worst_first.tolist(), strict=True):
    ax.imshow(val_set[0][index].reshape(28, 28), cmap="gray_r")
    names = clothes.class_names[truth[index]], clothes.class_names[guess[index]]
    ax.set_title(f"{names[0]}\n→ {names[1]} {confidence[index]:.0%}", fontsize=9.5, fontweight="normal")
show(fig, alt="Twelve validation images misclassified with over 95% confidence, with true and predicted label.")

# %% [markdown]
# **Read the figure.** These are the network's most confident mistakes. Some are real failures, some you would have labelled
# as the network did (the boot-shaped sneaker), and some labels look wrong (the "T-shirt" that ends in a skirt). Each
# kind asks for a different cure: a better model, nothing at all, better data. No accuracy would have told you which. And
# a network that is 99% sure and wrong has a second problem besides the error; lesson 04 returns to it.

# %% [markdown]
# ## Exercises
#
# Seven, from five minutes to twenty-five. Fill in the line that says `your code here`, or replace the `...`; the cell below
# answers at once, as often as you like. Open a hint only after a try of your own.

# %%
import itertools

from course_utils.homework import lesson_00, progress
from course_utils.homework.lesson_00 import (
    check_cross_entropy,
    check_gates,
    check_largest_lr,
    check_merged,
    check_parameters,
    check_starts,
    check_tanh_gradients,
)

# %% [markdown]
# ### Exercise 0.1. XOR out of three neurons ★ (8 min)
#
# A neuron with a threshold fires if $w_1x_1 + w_2x_2 + b > 0$. One cannot do XOR, but three can: $x_1$ XOR $x_2$ is
# (OR) AND (NAND), where NAND fires unless *both* inputs are 1. Find weights and bias for each of the three, on paper:
# first draw the four points, then a line. **Predict** whether there is one answer or many.
#
# <details><summary>Hint 1: a nudge</summary>
#
# What does the neuron answer at (0, 0)? There only the bias speaks.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# With both weights 1 the sum counts the switches that are on: 0, 1 or 2. Put $-b$ between the counts that shall fire and
# those that shall not. NAND is AND with every sign turned.
# </details>

# %%
gates = ...  # {"OR": (w1, w2, b), "NAND": (w1, w2, b), "AND": (w1, w2, b)}
### BEGIN SOLUTION
gates = {"OR": (1, 1, -0.5), "NAND": (-1, -1, 1.5), "AND": (1, 1, -1.5)}
### END SOLUTION

# %%
check_gates(gates)

# %% [markdown]
# ### Exercise 0.2. Two linear layers are one ★★ (10 min)
#
# Section 3 said that a second linear layer without a bend adds nothing. Prove it by construction: from the parameters
# of two `nn.Linear` in a row compute those of the *one* that does the same. Torch stores a weight as (out, in) and
# computes $W\mathbf{x} + \mathbf{b}$. **Predict**, before you write: on which of the four arguments does the new bias depend?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Write the second layer's output as a formula in $\mathbf{x}$, and multiply out.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $W_2(W_1\mathbf{x} + \mathbf{b}_1) + \mathbf{b}_2$ has one term with $\mathbf{x}$ and two without.
# </details>


# %%
def merged(w1, b1, w2, b2):
    """w1: (hidden, in), b1: (hidden,), w2: (out, hidden), b2: (out,) → weight (out, in) and bias (out,)."""
    ### BEGIN SOLUTION
    return w2 @ w1, w2 @ b1 + b2
    ### END SOLUTION


# %%
check_merged(merged)

# %% [markdown]
# ### Exercise 0.3. Count without building ★ (5 min)
#
# Write the count of section 8 for any MLP: `sizes` is the list of its widths, from the inputs to the outputs, such as
# `[784, 32, 10]`; without `bias` no layer has one. **Predict** by head what a linear neuron with 13 inputs gives.
#
# <details><summary>Hint 1: a nudge</summary>
#
# A list of $k$ sizes describes $k-1$ layers.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Go through the pairs of neighbours $(n, m)$, with `zip` or `itertools.pairwise`, and add up $m(n+1)$, or $mn$.
# </details>


# %%
def parameters_of(sizes, bias=True):
    """Number of parameters of an MLP with these widths."""
    ### BEGIN SOLUTION
    return sum(m * (n + bias) for n, m in itertools.pairwise(sizes))
    ### END SOLUTION


# %%
check_parameters(parameters_of)

# %% [markdown]
# ### Exercise 0.4. How many tickets? ★ (5 min)
#
# Two ReLU units solved XOR in about one start of five. Say the probability is exactly 0.2, and each start is
# independent of the others. **Predict**: how many starts do you need until at least one succeeds with 95% probability?
# Guess first (5? 20? 100?), then compute.
#
# <details><summary>Hint 1: a nudge</summary>
#
# "At least one succeeds" is the opposite of something whose probability is a simple product.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# All $k$ starts fail with probability $0.8^k$. Try values of $k$, or take logarithms and round up.
# </details>

# %%
starts = ...  # a whole number
### BEGIN SOLUTION
starts = int(np.ceil(np.log(0.05) / np.log(0.8)))
### END SOLUTION

# %%
check_starts(starts)

# %% [markdown]
# ### Exercise 0.5. The largest learning rate ★★ (8 min)
#
# Section 2 reached the bottom of the standardized neuron's bowl in one step, with a rate of 1. What if the rate is larger?
# **Predict** the smallest rate at which the loss no longer falls. Then change the constant `TRIED_LR`, run the cell again
# and again, and find that rate to two digits. How does your number relate to the curvature of the bowl, which is 1?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Look at the printed losses: by which factor does each step change them? Is it the same in all steps?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# The distance to the bottom is multiplied by $1 - \eta$ in each step. At which $\eta$ does this factor reach $-1$?
# </details>

# %%
TRIED_LR = 0.5  # change it, and run the cell again
tried_path = descend(neuron, price, TRIED_LR, batch_size=506, epochs=6)
print("loss above the minimum:", excess_loss(neuron, price, tried_path).round(1))

# %%
largest_lr = ...  # the rate at which the loss stops falling
### BEGIN SOLUTION
largest_lr = 2.0
### END SOLUTION

# %%
check_largest_lr(largest_lr)

# %% [markdown]
# ### Exercise 0.6. A loss that survives large logits ★★ (15 min)
#
# The cross-entropy of one example is $-\log p_y$, where $p = \operatorname{softmax}(\mathbf{z})$ and $y$ is the true class;
# the loss is the mean over the batch. Written like that it fails for logits as large as 1000, and a network that is sure
# of itself has such logits. Write it in NumPy so that it holds. **Predict** the loss of logits (1000, 0) if the
# true class is the *second*.
#
# <details><summary>Hint 1: a nudge</summary>
#
# `mlp_gradients` in section 7 subtracts the maximum of each row. That cures `exp`. What about `log`?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $\log p_y = z_y - \log\sum_k e^{z_k}$. Subtract the row's maximum from all logits first; then the sum is at least 1, and
# no probability is ever formed.
# </details>


# %%
def stable_cross_entropy(logits, labels):
    """logits: (batch, classes), labels: (batch,) whole numbers → the mean cross-entropy, one number."""
    ### BEGIN SOLUTION
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean()
    ### END SOLUTION


# %%
check_cross_entropy(stable_cross_entropy)

# %% [markdown]
# ### Exercise 0.7. Backward through tanh ★★★ (25 min)
#
# Section 7 went back through ReLU and softmax. Now a regression network with one tanh layer, by hand:
#
# $$H = \tanh(XW_1 + \mathbf b_1),\qquad \hat Y = HW_2 + \mathbf b_2,\qquad L = \tfrac1{2n}\lVert\hat Y - Y\rVert^2$$
#
# with the $n$ examples as rows. Return the four gradients. **Predict**: which of them contain the slope of tanh?
# The check compares with autograd, and it knows ten ways to go wrong.
#
# <details><summary>Hint 1: a nudge</summary>
#
# Start at the end: what is the gradient by $\hat Y$? Everything else is that, sent back through one operation at a time.
# The slope of tanh can be written with $H$ alone.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $\Delta_2 = (\hat Y - Y)/n$; then the formulas of section 7, with $1 - H^2$ in the place of $[H > 0]$. The gradient of a
# bias is the sum of its $\Delta$ over the rows.
# </details>


# %%
def tanh_gradients(x, y, w1, b1, w2, b2):
    """x: (n, in), y: (n, out), w1: (in, hidden), b1: (hidden,), w2: (hidden, out), b2: (out,) → dw1, db1, dw2, db2."""
    ### BEGIN SOLUTION
    h = np.tanh(x @ w1 + b1)
    delta2 = (h @ w2 + b2 - y) / len(x)
    delta1 = (delta2 @ w2.T) * (1 - h**2)
    return x.T @ delta1, delta1.sum(axis=0), h.T @ delta2, delta2.sum(axis=0)
    ### END SOLUTION


# %%
check_tanh_gradients(tanh_gradients)

# %%
progress(lesson_00)

# %% [markdown]
# ## Recap
#
# - **Train:** the perceptron stops when no mistake is left, the linear neuron slides down a loss. Scale decides how far
#   the slide is: subtract the mean, divide by the spread.
# - **Show:** a hidden layer folds the plane until a line suffices. Two ReLUs can do XOR; training them does so in about
#   one run of five.
# - **Compute:** forward, keep values; backward, multiply local slopes, all with the old weights. Check by differences.
# - **Write:** two matrix products per layer on the way back; $m(n+1)$ parameters per layer.
# - **Judge:** validation to choose, test once, and look at the mistakes.
#
# ## Pitfalls
#
# - A result from one seed is an anecdote. So is a test score that was looked at twenty times.
# - Equal weights stay equal. Never start a hidden layer from a constant.
# - Statistics for standardizing come from the training part only.
# - `loss.backward()` *adds* to `.grad`; forget `zero_grad()` and you train on the sum of all past batches.
# - A difference check in `float32`, or with $h=10^{-12}$, fails correct code. Use `float64` and $h \approx 10^{-5}$, both ways.
#
# ## Errata of the decks
#
# - `003_f7e7d77f8dafb44a`: the gradient of the squared error is $-(y-\hat y)\mathbf{x}$; with the printed sign and the
#   printed update the loss rises (section 2).
# - `003_f7e7d77f8dafb44a`: the minibatch update belongs inside the loop over minibatches; as printed it is batch descent.
# - `003_f7e7d77f8dafb44a`: worked example: $e_1 = e_2 = 0$ in the first step, because the old weights are 0; 0.00097813
#   comes from updated, rounded weights. And from equal weights the hidden units never differ (section 6).
# - `001_0a346410c39b1d06`: finite differences do not accumulate errors; truncation meets round-off (section 5).
# - `001_0a346410c39b1d06`: the printed network has 25,440 parameters, since its second layer has no bias (section 8).
# - `001_0a346410c39b1d06`: "no learnable parameter" in the activation has an exception, PReLU (section 4).
# - `001_0a346410c39b1d06`: the width bound $\max(n+1, m)$ for deep networks is Park et al.'s, and a width *equal* to it is
#   enough; the slide says "bigger" and names Lu et al.
#
# ## Sources
#
# - Decks `001_0a346410c39b1d06`, `002_8e362a99924dbb37`, `003_f7e7d77f8dafb44a`, `004_6954d930ac6e5b54`.
# - F. Rosenblatt: *The perceptron*, Psychological Review 1958. M. Minsky, S. Papert: *Perceptrons*, MIT Press 1969.
# - A. Novikoff: *On convergence proofs on perceptrons*, Symposium on the Mathematical Theory of Automata 1962.
# - D. Rumelhart, G. Hinton, R. Williams: *Learning representations by back-propagating errors*, Nature 1986.
# - G. Cybenko: *Approximation by superpositions of a sigmoidal function*, 1989. K. Hornik, M. Stinchcombe, H. White:
#   *Multilayer feedforward networks are universal approximators*, 1989.
# - Z. Lu et al.: *The expressive power of neural networks*, NeurIPS 2017. S. Park et al.: *Minimum width for universal
#   approximation*, ICLR 2021.
# - G. Klambauer et al.: *Self-normalizing neural networks*, NeurIPS 2017 (SELU).
# - D. Harrison, D. Rubinfeld: *Hedonic housing prices and the demand for clean air*, 1978 (Boston). H. Xiao, K. Rasul,
#   R. Vollgraf: *Fashion-MNIST*, arXiv:1708.07747.
