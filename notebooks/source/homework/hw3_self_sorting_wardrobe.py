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
# # Homework 3. The self-sorting wardrobe
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/homework/hw3_self_sorting_wardrobe.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/homework/hw3_self_sorting_wardrobe.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/homework/hw3_self_sorting_wardrobe.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/homework/hw3_self_sorting_wardrobe.ipynb)
#
# A start-up sells wardrobes. A camera looks at each piece of clothing that you throw in, and a small arm puts it on the
# right shelf. The arm works. The camera's chip has room for **60,000 numbers**, not one more. Your contract: the best
# network that fits, a number that the customers will find to be true, and a list of what the wardrobe will get wrong.
#
# This is the hands-on of deck `003_f7e7d77f8dafb44a` ("Self sorting wardrobe"), chosen by what deck
# `001_0a346410c39b1d06` sets as its assignment: model selection with k-fold cross-validation.
#
# ## What you will practise
#
# - **counting** parameters before building anything,
# - **splitting** without a leak, every class in every fold,
# - **choosing** among networks by k-fold cross-validation, under a budget and with a sense of its noise,
# - **reporting** a score that you did not choose by, beside published ones,
# - **looking** at what is wrong: confusion matrix and confident failures.
#
# **Prerequisites:** lessons 00, 04 and 06. **Time:** 4 hours; the tasks about 150 minutes, the report 90 minutes. It is
# meant for pairs.

# %% [markdown]
# ## Points and rules
#
# | task | what | points |
# |---|---|---|
# | 3.1 ★ | count the parameters | 1 |
# | 3.2 ★★ | folds without a leak | 2 |
# | 3.3 ★★ | train one network | 3 |
# | 3.4 ★★ | cross-validate | 2 |
# | 3.5 ★★ | choose under a budget | 2 |
# | 3.6 ★★★ | the wardrobe | 3 |
# | 3.7 ★ | confusion matrix | 1 |
# | 3.8 ★ | confident and wrong | 1 |
# | report | three pages | 5 |
# | | together | 20 |
#
# - Write your code where `raise NotImplementedError` stands; delete that line.
# - The cell below each task checks it. It answers in a sentence, as often as you like, and costs nothing. Do not change
#   those cells: grading runs them again, and the same checks on other data.
# - A function must not change what it is given. Later tasks use your earlier functions.
# - The test images are for the end. Task 3.6 shows you the test accuracy each time you run it: if you tune by that
#   number, it is no test any more. Say in the report how often you looked.

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
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from course_utils import plotting
from course_utils.datasets import load_fashion_mnist
from course_utils.homework import hw3, progress, require
from course_utils.homework.hw3 import (
    BUDGET,
    check_choose,
    check_confident_failures,
    check_confusion,
    check_count_weights,
    check_cross_validate,
    check_stratified_folds,
    check_train_net,
    check_wardrobe,
)
from course_utils.models import MLP
from course_utils.plotting import show
from course_utils.reproducibility import set_up
from course_utils.schedules import cosine_decay
from course_utils.training import fit

set_up(seed=0)
plotting.use_theme()


def needs(*names):
    """Say so if an earlier cell has not brought these yet."""
    if missing := [name for name in names if name not in globals()]:
        raise NotImplementedError(f"solve the tasks above first: {', '.join(missing)} comes from there")


# %% [markdown]
# ## The clothes
#
# Fashion-MNIST: grey photographs of 28×28 pixels in ten classes. The course bundles 10,000 training and 2,000 test
# images, equally many of each class. Flattened, an image is 784 numbers; one mean and one standard deviation, taken from
# the training images, scale them all.

# %%
data = load_fashion_mnist()
(inputs, targets), _, (test_inputs, test_targets) = data.tensors()
names = data.class_names

fig, axes = plt.subplots(2, 10, figsize=(10, 2.4))
for place, ax in enumerate(axes.T.flat):
    row = np.flatnonzero(data.train_labels == place // 2)[place % 2]
    ax.imshow(data.train_images[row], cmap="gray_r")
    ax.set_axis_off()
    if place % 2 == 0:
        ax.set_title(names[place // 2], fontsize=8)
show(
    fig,
    alt="Two photographs of each class: T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot. "
    "Pullovers, coats and shirts look alike.",
)

# %% [markdown]
# ## Task 3.1 ★ Count the parameters (10 min, 1 point)
#
# Before you order a chip, count. `sizes` lists the widths from input to output, such as `[784, 64, 10]`. Between two
# neighbours stands a linear layer with a bias for each output. With `batch_norm`, every *hidden* layer is normalized,
# which adds two trained numbers for each of its units; the linear layers keep their biases.
#
# Predict first: how wide can one hidden layer be within 60,000?


# %% solution="count_weights"
def count_weights(sizes: list[int], batch_norm: bool) -> int:
    """sizes: widths from input to output. Return the number of trained parameters."""
    ### BEGIN SOLUTION
    total = 0
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        total += fan_in * fan_out + fan_out
        if batch_norm and layer < len(sizes) - 1:
            total += 2 * fan_out
    return total
    ### END SOLUTION


# %% test="count_weights" points=1
require(check_count_weights(count_weights))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_count_weights, count_weights)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A layer from 3 to 2 units has 6 weights. And how many biases?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Loop over neighbours, `pairwise(sizes)`. Each pair adds (fan_in + 1)·fan_out. The last one has no batch
# normalization behind it.
#
# </details>
#
# ## Task 3.2 ★★ Folds without a leak (20 min, 2 points)
#
# Cut the rows into `k` folds. Each row is *validated* exactly once, by a network trained on all other folds. Files are
# often sorted by class: so draw the order with `rng`, and spread every class evenly, such that its numbers in two folds
# differ by one at most, also if `k` does not divide them.


# %% solution="stratified_folds"
def stratified_folds(labels: np.ndarray, k: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """labels: (n,) integers. Return k pairs (training rows, validation rows), each (m,) row numbers."""
    ### BEGIN SOLUTION
    fold = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = np.arange(len(rows)) % k
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]
    ### END SOLUTION


# %% test="stratified_folds" points=2
require(check_stratified_folds(stratified_folds))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_stratified_folds, stratified_folds)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Treat one class at a time: find its rows, shuffle them, deal them out like cards.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Keep an array `fold` of length n. For every label: find its rows with `np.flatnonzero`, shuffle them with
# `rng.permutation`; the i-th of them goes to fold i modulo k. At the end, fold i validates where `fold == i`.
#
# </details>
#
# ## Task 3.3 ★★ Train one network (30 min, 3 points)
#
# `setting` is a dictionary with `"hidden"` (list of widths), `"lr"`, `"dropout"` and `"epochs"`. Build an MLP 784 →
# hidden → 10 **without** batch normalization, with dropout behind each hidden activation, and train it with Adam or AdamW on
# cross-entropy, in batches of 32 to 100. You may use `MLP` and `fit` from `course_utils`, or plain torch.
#
# The same `seed` must give the same network: initial weights, dropout masks and the order of batches. Return the
# network ready to predict. It should beat the simplest rule there is: the class whose mean image is nearest.


# %% solution="train_net"
def train_net(inputs: torch.Tensor, targets: torch.Tensor, setting: dict, seed: int) -> nn.Module:
    """inputs: (n, 784), targets: (n,) labels. Return the trained network, (m, 784) → (m, 10) logits, in eval mode."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    model = MLP(784, setting["hidden"], 10, dropout=setting["dropout"], init="kaiming_normal")
    adamw = torch.optim.AdamW(model.parameters(), lr=setting["lr"])
    how = {"max_epochs": setting["epochs"], "batch_size": 50, "seed": seed}
    fit(model, (inputs, targets), loss_fn=F.cross_entropy, optimizer=adamw, **how)
    return model.eval()
    ### END SOLUTION


# %% test="train_net" points=3
require(check_train_net(train_net))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_train_net, train_net)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `torch.manual_seed(seed)` before the network is built fixes its weights. `cross_entropy` wants logits. And dropout
# must be off when the network is used.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Seed; `MLP(784, setting["hidden"], 10, dropout=…)`; an optimizer with `setting["lr"]`; `fit(model, (inputs, targets),
# loss_fn=F.cross_entropy, optimizer=…, max_epochs=…, batch_size=50, seed=seed)`; `return model.eval()`.
#
# </details>
#
# ## Task 3.4 ★★ Cross-validate (20 min, 2 points)
#
# For every setting and every fold: train on the fold's training rows, with the **number of the fold (from 0) as seed**,
# and measure the accuracy on its validation rows. `train` is a function like `train_net`. Keep every single accuracy: the
# next task needs their spread.


# %% solution="cross_validate"
def cross_validate(settings: list, inputs: torch.Tensor, targets: torch.Tensor, folds: list, train) -> np.ndarray:
    """folds: k pairs of row numbers; train(inputs, targets, setting, seed) → network. Return (settings, k) accuracies."""
    ### BEGIN SOLUTION
    accuracies = np.zeros((len(settings), len(folds)))
    for i, setting in enumerate(settings):
        for j, (rows, held_out) in enumerate(folds):
            model = train(inputs[rows], targets[rows], setting, j)
            with torch.no_grad():
                predicted = model(inputs[held_out]).argmax(dim=1)
            accuracies[i, j] = (predicted == targets[held_out]).double().mean()
    return accuracies
    ### END SOLUTION


# %% test="cross_validate" points=2
require(check_cross_validate(cross_validate))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_cross_validate, cross_validate)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two loops around one call of `train`. Which rows does the network see, and which does it answer for?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `np.zeros((len(settings), len(folds)))`; in the inner loop `train(inputs[rows], targets[rows], setting, j)`, then
# `argmax(dim=1)` of its outputs for `inputs[held_out]`, compared with `targets[held_out]`; the mean goes to `[i, j]`.
#
# </details>
#
# ### Your candidates
#
# Seven settings, five folds, 2,000 images: 35 networks in about half a minute. **Predict** before you run it: will more
# width help, and by how much compared with the spread between folds?

# %%
plain = {"lr": 1e-3, "dropout": 0.0, "epochs": 8}
settings = [{**plain, "hidden": hidden} for hidden in ([8], [16], [32], [64], [48, 48], [128])]
settings.append({**plain, "hidden": [64], "dropout": 0.3})
sizes = np.array([count_weights([784, *setting["hidden"], 10], False) for setting in settings])

folds = stratified_folds(targets[:2000].numpy(), 5, np.random.default_rng(0))
accuracies = cross_validate(settings, inputs[:2000], targets[:2000], folds, train_net)
table = pd.DataFrame(settings)[["hidden", "dropout"]].assign(parameters=sizes, mean=accuracies.mean(axis=1).round(4))
table.assign(standard_error=(accuracies.std(axis=1, ddof=1) / 5**0.5).round(4), within_budget=sizes <= BUDGET)

# %% [markdown]
# ## Task 3.5 ★★ Choose under a budget (20 min, 2 points)
#
# The best mean is partly luck (lesson 06). The *one-standard-error rule* takes that into account: among the settings
# within the budget, find the one with the best mean accuracy. Its standard error is $s/\sqrt{k}$, with $s$ the standard
# deviation of its $k$ accuracies ($k-1$ in the denominator). All settings **within the budget** whose mean is at least the
# best mean minus that error count as equally good. Take the one with the fewest parameters.


# %% solution="choose"
def choose(accuracies: np.ndarray, n_parameters: np.ndarray, budget: int) -> int:
    """accuracies: (settings, k); n_parameters: (settings,). Return the place of the chosen setting, from 0."""
    ### BEGIN SOLUTION
    means = np.where(n_parameters <= budget, accuracies.mean(axis=1), -np.inf)
    best = means.argmax()
    error = accuracies[best].std(ddof=1) / np.sqrt(accuracies.shape[1])
    return int(np.where(means >= means[best] - error, n_parameters, np.inf).argmin())
    ### END SOLUTION


# %% test="choose" points=2
require(check_choose(choose))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_choose, choose)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Give a setting above the budget the mean −∞, and it never wins, without any renumbering.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `means = np.where(n_parameters <= budget, …, -np.inf)`, `best = means.argmax()`, the threshold from
# `accuracies[best]`, and at last the smallest `n_parameters` where `means` reaches the threshold.
#
# </details>

# %%
needs("accuracies")
chosen = choose(accuracies, sizes, BUDGET)
fig, ax = plt.subplots(figsize=(7.5, 3.2))
for place, (size, scores) in enumerate(zip(sizes, accuracies, strict=True)):
    error = scores.std(ddof=1) / 5**0.5
    color = plotting.style(1 if place == chosen else 0)["color"]
    ax.errorbar(
        size * (1.06 if settings[place]["dropout"] else 1), scores.mean(), error, fmt="o", color=color, capsize=3
    )
ax.axvline(BUDGET, color="0.4", linestyle=":")
ax.annotate("budget", (BUDGET, ax.get_ylim()[0]), xytext=(4, 4), textcoords="offset points")
ax.set(xscale="log", xlabel="parameters", ylabel="accuracy in 5 folds, ± standard error", title="2,000 images")
show(
    fig,
    alt="Mean accuracy of seven networks in five folds against their parameters, with standard errors. It rises from 8 to "
    "about 32 hidden units and then flattens; the bars of the larger networks overlap. The chosen one is marked.",
)
print("chosen:", settings[chosen])

# %% [markdown]
# **Read the figure.** The bars of the larger networks overlap: five folds of 2,000 images cannot tell them apart, and
# the rule takes the smallest of them. With more images the answer may differ, since larger networks profit more from data.
#
# ## Task 3.6 ★★★ The wardrobe (40 min, 3 points)
#
# Now all 10,000 training images. Return one trained network with **at most 60,000 parameters** that is right for **at
# least 84%** of the test images. You may use anything from the lessons (more epochs, dropout, a schedule, label smoothing,
# augmentation, batch normalization), but choose it by cross-validation on training images, not by the test.
# For comparison: a linear classifier reached 82 to 83% here.


# %% solution="sort_wardrobe"
def sort_wardrobe(inputs: torch.Tensor, targets: torch.Tensor, seed: int) -> nn.Module:
    """inputs: (10000, 784), targets: (10000,). Return the network, (m, 784) → (m, 10) logits, in eval mode."""
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    model = MLP(784, [64], 10, dropout=0.2, init="kaiming_normal")
    adamw = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = cosine_decay(20 * (len(inputs) // 64 + 1))
    how = {"max_epochs": 20, "batch_size": 64, "schedule": schedule, "seed": seed}
    fit(model, (inputs, targets), loss_fn=F.cross_entropy, optimizer=adamw, **how)
    return model.eval()
    ### END SOLUTION


# %% test="sort_wardrobe" points=3
wardrobe = sort_wardrobe(inputs, targets, 0)
require(check_wardrobe(wardrobe))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_wardrobe, wardrobe)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What was chosen on 2,000 images is a beginning, not the end: with 10,000 a wider network within the budget pays, and so
# do more epochs.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Call `train_net` with one hidden layer of 60 or 70 units, 15 to 25 epochs, and a little dropout; or write the loop
# again with a schedule such as `cosine_decay`. Compare two or three variants with your own `cross_validate`.
#
# </details>
#
# ### A leaderboard of one
#
# Beside your score: what others published. These figures stand in the table of submitted benchmarks in the data set's own
# repository (`zalandoresearch/fashion-mnist`, README, commit 02cf067); its authors note that they have not verified them.
# They were trained on **60,000** images and tested on 10,000, yours on 10,000 and 2,000. So this is no contest on equal
# terms. `load_fashion_mnist(subset=False)` gets you the full set, if you want one.

# %%
published = {
    "human, crowd-sourced": 0.835,
    "GRU + SVM": 0.888,
    "XGBoost": 0.898,
    "MLP 256-128-64": 0.900,
    "2 convolutional layers, < 100K parameters": 0.925,
    "WRN-28-10 + random erasing": 0.963,
}
linear = train_net(inputs, targets, {"hidden": [], "lr": 1e-3, "dropout": 0.0, "epochs": 10}, 0)
with torch.no_grad():
    probabilities = wardrobe(test_inputs).softmax(dim=1).numpy()
    linear_answers = linear(test_inputs).argmax(dim=1)
predicted, truth = probabilities.argmax(axis=1), test_targets.numpy()
yours = {"yours": np.mean(predicted == truth), "linear, same 10,000 images": np.mean(linear_answers.numpy() == truth)}
board = pd.Series(published | yours).sort_values()

# %%
needs("board")
fig, ax = plt.subplots(figsize=(8, 3))
for row, (name, score) in enumerate(board.items()):
    mine = name in yours
    error = 1.96 * np.sqrt(score * (1 - score) / 2000) if mine else 0
    ax.errorbar(score, row, xerr=error, fmt="o", color=plotting.style(1 if mine else 0)["color"], capsize=3)
ax.set(yticks=range(len(board)), xlabel="test accuracy (published: 60,000 training images; ours: 10,000)")
ax.set_yticklabels(board.index)
show(
    fig,
    alt="Test accuracies in order. The linear classifier trained here and the crowd of people lie lowest, your network above "
    "them with an interval of about 1.5 points either side, the published MLP at 0.900, a wide residual network at 0.963.",
)
board.round(4).to_frame("accuracy")

# %% [markdown]
# **Read the figure.** The bar is the 95% interval that 2,000 test images allow: about 1.5 points to either side. The
# published MLP has 242,762 parameters by your formula, four times the budget, and six times the images. The 83.5% of
# "human" come from people without knowledge of fashion, by majority of three labels on 1,000 images.
#
# ## Task 3.7 ★ Confusion matrix (10 min, 1 point)
#
# One number hides which shelf is a mess. Count: row = what the piece **is**, column = what the network **says**.


# %% solution="confusion"
def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """truth, predicted: (n,) labels. Return (n_classes, n_classes) counts, int64."""
    ### BEGIN SOLUTION
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts
    ### END SOLUTION


# %% test="confusion" points=1
require(check_confusion(confusion))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_confusion, confusion)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `counts[truth, predicted] += 1` looks right and is wrong: a place that occurs three times is raised once.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Zeros of shape (n_classes, n_classes), dtype int64; then `np.add.at`, or a loop over `zip(truth, predicted)`.
#
# </details>

# %%
needs("predicted")
counts = confusion(truth, predicted, 10)
fig, ax = plt.subplots(figsize=(6, 4.8))
image = ax.imshow(counts, cmap="viridis", vmax=60)
for row, column in np.argwhere(counts > 4):
    color = "black" if counts[row, column] > 40 else "white"
    ax.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
ax.set(xticks=range(10), yticks=range(10), xlabel="the network says", ylabel="it is")
ax.set_xticklabels(names, rotation=60, ha="right")
ax.set_yticklabels(names)
ax.grid(visible=False)
fig.colorbar(image, label="images of 200 (colours end at 60)")
show(
    fig,
    alt="Confusion matrix of the test images. The diagonal is strong but for Shirt, which is taken for T-shirt, Pullover and "
    "Coat; Pullover and Coat are confused with each other; sneakers, sandals and boots among themselves.",
)

# %% [markdown]
# **Read the figure.** Three groups: tops (T-shirt, pullover, coat, shirt, dress), shoes, and the two that nobody
# confuses, trousers and bags. Which shelf would you warn the customers of?
#
# ## Task 3.8 ★ Confident and wrong (15 min, 1 point)
#
# A wardrobe may be unsure. Worse is to be sure and wrong. *Confidence* is the probability of the predicted class. Return
# the **row numbers** of the `n` wrong predictions with the highest confidence, the most confident first; if there are
# fewer than `n` wrong ones, all of them.


# %% solution="confident_failures"
def confident_failures(probabilities: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """probabilities: (rows, classes), labels: (rows,). Return at most n row numbers, int64."""
    ### BEGIN SOLUTION
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1))
    return wrong[order][:n]
    ### END SOLUTION


# %% test="confident_failures" points=1
require(check_confident_failures(confident_failures))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_confident_failures, confident_failures)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Find the wrong rows first. Then sort *those*, and mind that places among them are not row numbers.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `wrong = np.flatnonzero(…)`, `order` from `np.argsort` of minus their confidence, `wrong[order][:n]`.
#
# </details>

# %%
needs("predicted")
fig, axes = plt.subplots(2, 6, figsize=(10, 4.2))
for ax, row in zip(axes.flat, confident_failures(probabilities, truth, 12), strict=True):
    ax.imshow(data.test_images[row], cmap="gray_r")
    ax.set_title(f"says {names[predicted[row]]}\n({probabilities[row].max():.2f}), is {names[truth[row]]}", fontsize=8)
    ax.set_axis_off()
show(
    fig,
    alt="The twelve test images that the network gets wrong with the highest confidence, each with what it says and what the "
    "label is. Several labels look doubtful to a person too.",
)

# %% [markdown]
# **Look at each image.** Which of these would you have got right? The data set has wrong and ambiguous labels (its card
# in `data/fashion_mnist` says more): an accuracy of 1 is not to be had honestly.

# %% [markdown] answer="report" points=5
# ## Report (5 points, about three pages)
#
# Replace the questions by your text. Numbers with their spread; figures from above; nothing that you did not measure.
#
# 1. **Problem.** What does the wardrobe need, and what does a mistake cost? Which mistake costs most?
# 2. **Data.** What is in the images, how were they split, and what do they not tell about your own wardrobe?
# 3. **Candidates.** Which settings did you compare, in how many folds, and what was the spread between folds?
# 4. **Choice.** Which one did you choose, by which rule, and was it clearly better than the next?
# 5. **Result.** Test accuracy with its interval, number of parameters, and how often you looked at the test images.
# 6. **Comparison.** Where do you stand beside the published figures, and why is that no contest on equal terms?
# 7. **Failures.** Which classes are confused, what do the confident failures have in common, and what would you do next?
#
# *To hand it in as a page:* `jupyter nbconvert --to html hw3_self_sorting_wardrobe.ipynb`.

# %%
progress(hw3)
