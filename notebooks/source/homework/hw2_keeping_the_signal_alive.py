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
# # Homework 2. Five towers after the storm
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/homework/hw2_keeping_the_signal_alive.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/homework/hw2_keeping_the_signal_alive.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/homework/hw2_keeping_the_signal_alive.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/homework/hw2_keeping_the_signal_alive.ipynb)
#
# Along a fjord stand five towers. Each listens with twenty hydrophones and has a small network that tells four kinds of
# whales apart. Last night a storm went through. This morning all five towers still answer, four of them at random and the
# fifth hardly better. The crew has restarted them, has trained them again, has waited: the loss hardly moves.
#
# The crew has given them names: the *whisperer*, the *shouter*, the *sleeper*, the *dazzled*, the *twins*. Each suffers
# from something else, and each may be treated only in one way. You are the physician. You have the monitors of lesson 01,
# the formulas of lesson 02, and no second tower to replace one with.
#
# ## What you will practise
#
# - **measuring** the gradient of each layer, without being fooled by yesterday's,
# - **diagnosing** five sicknesses by their numbers, one of which the monitors do not see,
# - **curing** each by the smallest change that helps, and proving the cure by measurement on new seeds.
#
# **Prerequisites:** lessons 01 and 02, lesson 03 for the dazzled. **Time:** 3 hours: the tasks about 135 minutes, the
# report 45.

# %% [markdown]
# ## Points and rules
#
# | task | what | points |
# |---|---|---|
# | 2.1 ★ | the gradient of every layer | 2 |
# | 2.2 ★★★ | a name for the sickness | 4 |
# | 2.3 ★ | raise the whisperer's voice | 2 |
# | 2.4 ★★ | quiet the shouter | 2 |
# | 2.5 ★★ | wake the sleeper | 2 |
# | 2.6 ★★ | shade the dazzled | 2 |
# | 2.7 ★ | tell the twins apart | 2 |
# | report | case histories | 4 |
# | | together | 20 |
#
# - Write your code where `raise NotImplementedError` stands; delete that line.
# - The cell below each task checks it, as often as you like. Do not change those cells: grading runs them again, and the
#   same checks on patients drawn from other seeds.
# - A cure is a function `cure(model, inputs, generator)`. It returns the cured network; it may change `model` itself.
#   `inputs` are recorded calls, (n, 20), to measure on. Draw every random number from `generator`.
# - A cure is judged on three patients by what can be measured: that it keeps to its rule, that the gradients are healthy,
#   and that the network learns: over 60% right on unseen calls after 160 steps of plain gradient descent. Guessing
#   gives 25%.
# - Hints are folded; they cost nothing.

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
from torch.nn import functional as F

from course_utils import plotting
from course_utils.homework import hw2, progress, require
from course_utils.homework.hw2 import (
    PATIENTS,
    check_gradient_profile,
    check_name_sickness,
    check_quiet_the_shouter,
    check_raise_the_whisperer,
    check_shade_the_dazzled,
    check_tell_the_twins_apart,
    check_wake_the_sleeper,
    make_patient,
    record_calls,
    train_station,
)
from course_utils.init import init_weights
from course_utils.monitoring import GradientMonitor, diagnose
from course_utils.plotting import show
from course_utils.reproducibility import make_generator, set_up

set_up(seed=0)
plotting.use_theme()

# %% [markdown]
# ## The ward
#
# A call has a pattern over the twenty channels, one for each kind, and it arrives in either phase: the pattern or its
# negative. So the mean over the calls of a kind is zero, and no linear model can tell the kinds apart. The dazzled tower
# is wired to the hydrophones directly; the others get their calls already scaled.

# %%
for name in PATIENTS:
    shares = []
    for seed in (0, 1, 2):
        inputs, kinds = record_calls(raw=name == "dazzled", seed=seed)
        shares.append(train_station(make_patient(name, seed=seed), inputs, kinds))
    print(f"{name:10s} right after training, three seeds: {np.round(shares, 2)}")
print(make_patient("whisperer"))

# %% [markdown]
# A network that works gets over 90%. The loss curves will not tell you why these do not. So look inside.
#
# ## 2.1 The gradient of every layer ★ (15 min, 2 points)
#
# Return, for each `nn.Linear` from the input to the output, the norm $\lVert\partial L/\partial W\rVert$ of its weight
# matrix's gradient, as a list of floats. $L$ is `F.cross_entropy(model(inputs), kinds)`, the mean over the batch.
#
# The patients come from the training room: in their `.grad` there may still be gradients of the last step.


# %% solution="gradient_profile"
def gradient_profile(model, inputs, kinds):
    """inputs (n, 20), kinds (n,). Return a list of floats, one gradient norm for each weight matrix."""
    ### BEGIN SOLUTION
    model.zero_grad()
    with GradientMonitor(model) as monitor:
        F.cross_entropy(model(inputs), kinds).backward()
    return list(monitor.latest().values())
    ### END SOLUTION


# %% test="gradient_profile" points=2
require(check_gradient_profile(gradient_profile))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_gradient_profile, gradient_profile)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `backward()` adds to what is in `.grad`. `help(GradientMonitor)` shows the rest.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Clear the gradients; run forward and backward inside the monitor's `with`; its latest record is a dict in the order of
# the layers. Or do without: `torch.autograd.grad` leaves `.grad` alone.
#
# </details>

# %%
fig, axes = plt.subplots(1, 5, figsize=(13, 2.8), sharey=True)
for ax, name in zip(axes, PATIENTS, strict=True):
    for seed in (0, 1, 2):
        profile = gradient_profile(make_patient(name, seed=seed), *record_calls(raw=name == "dazzled", seed=seed))
        ax.semilogy(range(1, len(profile) + 1), np.maximum(profile, 1e-9), "o-", color=plotting.COLORS["blue"])
    ax.set(title=name, xlabel="layer", xticks=range(1, len(profile) + 1))
axes[0].set(ylabel="gradient norm")
show(
    fig,
    alt="Gradient norm of each layer for the five patients, three seeds each. The whisperer's are a few millionths, "
    "the shouter's in the hundreds or thousands. The sleeper's are zero, drawn at the bottom. The dazzled and "
    "the twins show nothing conspicuous.",
)

# %% [markdown]
# **Read the figure.** Three of the five show in the gradients at once. The other two need other numbers, and of these,
# one needs a number that no monitor of ours reports.
#
# ## 2.2 A name for the sickness ★★★ (40 min, 4 points)
#
# Write the examination. It returns `"vanishing"`, `"exploding"`, `"dead"`, `"saturated"`, `"symmetric"` or `"healthy"`.
# It is tried on eighteen networks: three of each of the five patients, and three that are healthy. It only looks: no
# weight may change.
#
# **Predict** which of the five towers has which name, and which of them `diagnose` will call healthy.


# %% solution="name_sickness"
def name_sickness(model, inputs, kinds):
    """inputs (n, 20), kinds (n,). Return the name of the sickness, or "healthy"."""
    ### BEGIN SOLUTION
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    if any(torch.equal(layer.weight, layer.weight[:1].expand_as(layer.weight)) for layer in layers):
        return "symmetric"
    return diagnose(model, (inputs, kinds), F.cross_entropy).worst.verdict
    ### END SOLUTION


# %% test="name_sickness" points=4
require(check_name_sickness(name_sickness))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_name_sickness, name_sickness)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Print `diagnose(make_patient(name), record_calls(), F.cross_entropy)` for every patient (with `raw=True` for the
# dazzled). For which one does it find nothing, although that tower does not learn? Look at its weights.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# A diagnosis has a `worst` layer, and that has a `verdict`. Before you ask for it, compare the rows of each weight
# matrix: a row is a unit.
#
# </details>

# %% [markdown]
# ## 2.3 Raise the whisperer's voice ★ (10 min, 2 points)
#
# The storm has discharged the whisperer's memory. **Rule:** the layers stay what they are, five of 32 tanh units; the
# weights may become anything.
#
# **Predict.** It would be simplest to multiply all weights by 50. Each was drawn with standard deviation 0.02. Would
# 1.0 be a good one?


# %% solution="raise_the_whisperer"
def raise_the_whisperer(model, inputs, generator):
    """Return the network with weights at which a signal passes five tanh layers."""
    ### BEGIN SOLUTION
    return init_weights(model, "xavier_normal", generator=generator)
    ### END SOLUTION


# %% test="raise_the_whisperer" points=2
require(check_raise_the_whisperer(raise_the_whisperer))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_raise_the_whisperer, raise_the_whisperer)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Lesson 02 has a formula for activations that are steep and centred at 0.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `course_utils.init.init_weights` takes a scheme's name and a generator, works in place, and returns the model.
#
# </details>

# %% [markdown]
# ## 2.4 Quiet the shouter ★★ (25 min, 2 points)
#
# Every amplifier of this ReLU network was turned up, each by another amount. What it has learned is still there, in the
# *pattern* of each weight matrix. **Rule:** you may multiply each weight matrix by one positive number, and nothing else.
#
# **Predict.** A ReLU layer doubles if its weights are doubled. By which factor is the output of six layers too large if
# each is turned up by 3?


# %% solution="quiet_the_shouter"
def quiet_the_shouter(model, inputs, generator):
    """Return the network with each weight matrix multiplied by one positive number."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight *= (2 / layer.in_features) ** 0.5 / layer.weight.std()
    return model
    ### END SOLUTION


# %% test="quiet_the_shouter" points=2
require(check_quiet_the_shouter(quiet_the_shouter))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_quiet_the_shouter, quiet_the_shouter)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# You know the standard deviation that the weights should have (whose formula is it, for ReLU?), and you can measure the
# one they do have.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# For each linear layer: wanted over measured standard deviation is the factor. Or send `inputs` through, layer by layer,
# and divide each matrix by the standard deviation of what comes out. Change weights inside `torch.no_grad()`.
#
# </details>

# %% [markdown]
# ## 2.5 Wake the sleeper ★★ (20 min, 2 points)
#
# Its weights hold months of listening and are worth more than the tower. The storm has pulled down the biases.
# **Rule:** only biases may change. Afterwards at most 20% of the units of a layer may give 0 for every call, and at
# most half of them may be positive for every call.
#
# **Predict.** Why the second condition? What would a network compute whose ReLUs are all far on the right side?


# %% solution="wake_the_sleeper"
def wake_the_sleeper(model, inputs, generator):
    """Return the network with other biases, and with the weights it had."""
    ### BEGIN SOLUTION
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return model
    ### END SOLUTION


# %% test="wake_the_sleeper" points=2
require(check_wake_the_sleeper(wake_the_sleeper))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_wake_the_sleeper, wake_the_sleeper)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A unit switches if its sum is positive for some calls and negative for others. Around which value should the sums lie?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# The calls have mean 0, and so do the first layer's sums without a bias. One number will do for all biases; or measure
# each unit's mean sum on `inputs`, layer by layer.
#
# </details>

# %% [markdown]
# ## 2.6 Shade the dazzled ★★ (30 min, 2 points)
#
# The network is fine; what reaches it is not. Its hydrophones report in units of their own: an offset of 500 to 3,000, a
# scale of 10 to 50. Every tanh sits at ±1. And hydrophone 7 is broken: it gives the same number always. **Rule:** the
# network stays as it is, weights and biases and layers; you may put something *in front of* it. Behind that, each
# working channel has mean 0 and standard deviation 1 over the calls, and what is said of a call does not depend on the
# others in the batch once `model.eval()` is set.
#
# **Predict.** What does $(x-\mu)/\sigma$ give for hydrophone 7?


# %% solution="shade_the_dazzled"
def shade_the_dazzled(model, inputs, generator):
    """inputs (n, 20) in raw units. Return a network that takes raw calls: something, then the model untouched."""
    ### BEGIN SOLUTION
    return nn.Sequential(nn.BatchNorm1d(inputs.shape[1]), *model)
    ### END SOLUTION


# %% test="shade_the_dazzled" points=2
require(check_shade_the_dazzled(shade_the_dazzled))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_shade_the_dazzled, shade_the_dazzled)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Lesson 03 standardizes inputs, and has a layer that does it inside a network. Either will do.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Write an `nn.Module` that keeps mean and standard deviation of `inputs`, per channel, as buffers (a deviation of 0
# becomes 1); or take a layer of torch's that has an ε against exactly this. Chain it and the model with `nn.Sequential`.
#
# </details>

# %% [markdown]
# ## 2.7 Tell the twins apart ★ (10 min, 2 points)
#
# In each hidden layer of the twins, 32 units are copies of one. **Rule:** the layers stay, the weights may become
# anything, no two units may be nearly alike.
#
# **Predict.** A crew member proposes noise of size 0.001: "different is different". Will that do?


# %% solution="tell_the_twins_apart"
def tell_the_twins_apart(model, inputs, generator):
    """Return the network with units that differ from each other."""
    ### BEGIN SOLUTION
    return init_weights(model, "kaiming_normal", generator=generator)
    ### END SOLUTION


# %% test="tell_the_twins_apart" points=2
require(check_tell_the_twins_apart(tell_the_twins_apart))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_tell_the_twins_apart, tell_the_twins_apart)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two units with the same weights get the same gradient. What about two with *nearly* the same?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Draw all weights anew. Mind the activation: the whisperer had tanh, this one has ReLU.
#
# </details>

# %% [markdown]
# ## Discharge
#
# Each patient before and after, five new seeds. Note what cured each: other weights, a scale, biases, something in front.
# Drawing everything anew would have cured four of the five, at the price of all that the shouter and the sleeper knew.

# %%
CURES = {
    "whisperer": raise_the_whisperer,
    "shouter": quiet_the_shouter,
    "sleeper": wake_the_sleeper,
    "dazzled": shade_the_dazzled,
    "twins": tell_the_twins_apart,
}
results = {}
for name, cure in CURES.items():
    sick, cured = [], []
    for seed in range(10, 15):
        inputs, kinds = record_calls(raw=name == "dazzled", seed=seed)
        sick.append(train_station(make_patient(name, seed=seed), inputs, kinds))
        model = cure(make_patient(name, seed=seed), inputs[:384], make_generator(100 + seed))
        cured.append(train_station(model, inputs, kinds))
    results |= {f"{name}, sick": sick, f"{name}, cured": cured}
fig, ax = plt.subplots(figsize=(8, 4))
plotting.plot_dots(ax, results, xlabel="share of unseen calls recognized after 160 steps")
ax.set(title="Five towers, five seeds each", xlim=(0, 1.08))
ax.axvline(0.25, color="0.5", linestyle=":", linewidth=1)
show(
    fig,
    alt="Share of calls recognized by each patient, sick and cured, five seeds each. Sick, all but the twins stay near "
    "guessing, 0.25; the twins scatter between 0.4 and 0.65. Cured, all of them are above 0.9.",
)

# %% [markdown]
# ## Report
#
# Write about one page in the next cell, in full sentences, and give the number that each statement rests on.

# %% [markdown] answer="report" points=4
# **1. Five case histories.** (For each tower: the symptom, the number that confirmed the sickness, the cure, and why it
# works. Two sentences each.)
#
# *Your answer*
#
# **2. What the monitors do not see.** (Why does `diagnose` call the twins healthy? Which number would you add to it?)
#
# *Your answer*
#
# **3. The wrong medicine.** (Give one patient another one's cure. What happens, and which measurement shows it first?)
#
# *Your answer*
#
# **4. How much is enough?** (Multiply the cured whisperer's weights by 0.5, 1, 2 and 4, five seeds each. Where does it
# stop learning? Does `diagnose` warn you in time?)
#
# *Your answer*
#
# **5. What was hardest, and which help did you use?** (Persons, books, programs: name them.)
#
# *Your answer*

# %%
progress(hw2)
