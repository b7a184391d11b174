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
# # Homework 4. The optimizer workshop
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/homework/hw4_optimizer_workshop.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/homework/hw4_optimizer_workshop.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/homework/hw4_optimizer_workshop.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/homework/hw4_optimizer_workshop.ipynb)
#
# On Monday morning somebody has "tidied up" the cluster, and `torch.optim` is gone. Autograd still works: you have
# gradients, and nothing that walks along them. On Friday there is a race, and your group has promised to enter it. So
# you open a workshop. By Wednesday you need three optimizers and a schedule; on Thursday the rules of a race that
# cannot be won by luck; and on Friday evening a sentence about who won which your statistician lets pass.
#
# **You practise:** turning a formula into code that keeps a state; bias correction, ε and decoupled decay, each where
# it belongs; schedules as functions of the step; comparing methods with equal care and paired seeds.
#
# **Prerequisites:** lesson 05. **Time:** about 3 hours, half of it for tasks 2, 3 and 5.
#
# | task | points |
# |---|---|
# | 1 Nesterov's momentum | 2 |
# | 2 Adam | 4 |
# | 3 AdamW, a class | 4 |
# | 4 A schedule | 3 |
# | 5 A fair race | 4 |
# | 6 Who won? | 3 |
# | 7 Report | 5 |
# | **sum** | **25** |
#
# **Rules.** Write only where a stub says `raise NotImplementedError`. The cell below each stub calls a check, which
# compares your code with torch's on inputs drawn by chance and names the mistake that it finds: run it as often as you
# like. Such a cell earns all of its points or none, and the grading repeats it with other inputs. A person reads the
# report. `torch.optim` stands in the checks only; in your own code it counts as cheating.

# %% [markdown]
# ## Set-up

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
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch.nn import functional as F

from course_utils import plotting
from course_utils.homework import hw4, progress, require
from course_utils.homework.hw4 import (
    Stepper,
    check_adam_step,
    check_adamw,
    check_nesterov_step,
    check_paired_interval,
    check_race,
    check_warmup_cosine,
)
from course_utils.models import MLP
from course_utils.plotting import show
from course_utils.reproducibility import make_generator, set_up

set_up(seed=0)
plotting.use_theme()

# %% [markdown]
# ## Task 1. Nesterov's momentum (2 points)
#
# The oldest tool in the workshop. A ball keeps a share $\beta$ of what has pushed it so far, and Nesterov's ball looks
# one step of momentum ahead:
#
# $$b \leftarrow \beta\,b + g,\qquad \theta \leftarrow \theta - \eta\,(g + \beta\,b)$$
#
# Write one step for one parameter. `theta` and `gradient` have the same shape, any. `state` is a dictionary which is
# empty at the first step and comes back at the next one as you left it; every parameter has its own. Return the new
# weights as a new tensor, and leave the two you were given as they are. At first $b = 0$.


# %% solution="nesterov"
def nesterov_step(theta, gradient, state, *, lr, momentum):
    """Return the weights after one step; keep the buffer in `state`."""
    ### BEGIN SOLUTION
    buffer = momentum * state.get("buffer", torch.zeros_like(gradient)) + gradient
    state["buffer"] = buffer
    return theta - lr * (gradient + momentum * buffer)
    ### END SOLUTION


# %% test="nesterov" points=2
require(check_nesterov_step(nesterov_step))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_nesterov_step, nesterov_step)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# In which order do the two formulas run, and which $b$ does the second one see?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `state.get("name", value)` gives `value` while the name is missing. Compute the new buffer, store it, use it.
# </details>
#
# ## Task 2. Adam (4 points)
#
# Adam divides a running mean of the gradient by the root of a running mean of its square. Both start at 0 and are
# therefore too small at first; the correction divides by how much weight has come in so far, $1-\beta^t$ in step $t$:
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\,g,\quad v \leftarrow \beta_2 v + (1-\beta_2)\,g^2,\quad
# \hat m = \frac{m}{1-\beta_1^t},\quad \hat v = \frac{v}{1-\beta_2^t},\quad
# \theta \leftarrow \theta - \eta\,\frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$
#
# **Predict** before you run: the first gradient is 1000, or 0.001. How long is the first step, in units of $\eta$?


# %% solution="adam"
def adam_step(theta, gradient, state, *, lr, betas, eps):
    """Return the weights after one step; `betas` is (beta1, beta2). Keep t and the two means in `state`."""
    ### BEGIN SOLUTION
    beta1, beta2 = betas
    t = state["t"] = state.get("t", 0) + 1
    mean = state["mean"] = beta1 * state.get("mean", 0.0) + (1 - beta1) * gradient
    square = state["square"] = beta2 * state.get("square", 0.0) + (1 - beta2) * gradient**2
    mean_hat, square_hat = mean / (1 - beta1**t), square / (1 - beta2**t)
    return theta - lr * mean_hat / (square_hat.sqrt() + eps)
    ### END SOLUTION


# %% test="adam" points=4
require(check_adam_step(adam_step))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_adam_step, adam_step)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Three things have to survive until the next step. Which, and in which form: corrected or not?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Count the step first, so that the first one is number 1. Update and store both means. Correct copies of them. Take the
# root, then add ε, then divide.
# </details>
#
# The prediction, looked at:

# %%
for size in (1000.0, 0.001):
    moved = adam_step(torch.zeros(1), torch.tensor([size]), {}, lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    print(f"gradient {size:g}: the first step is {abs(moved.item()) / 0.01:.3f} learning rates long")

# %% [markdown]
# ## Task 3. AdamW, a class (4 points)
#
# Functions with dictionaries are fine for a test bench; a training loop wants an object. And there is a quarrel to
# settle: weight decay. If it comes as a penalty, its gradient $\lambda\theta$ is divided by $\sqrt{\hat v}$ like any
# other, and weights with large gradients hardly decay. AdamW lets every weight decay by the same share, past Adam:
#
# $$\theta \leftarrow (1 - \eta\lambda)\,\theta,\quad\text{then Adam's step with the gradient } g \text{ alone}$$
#
# Write the class. `params` may be an iterator that can be read once, such as `model.parameters()`. `step` changes the
# parameters themselves, and leaves alone those whose `.grad` is `None`. Keep the rate in `self.lr`, since a schedule
# will change it between steps.


# %% solution="adamw"
class AdamW:
    """Adam with decoupled weight decay."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        ### BEGIN SOLUTION
        self.params = list(params)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.states = [{} for _ in self.params]
        ### END SOLUTION

    def zero_grad(self):
        """Forget the gradients of the last step."""
        ### BEGIN SOLUTION
        for parameter in self.params:
            parameter.grad = None
        ### END SOLUTION

    def step(self):
        """Move every parameter that has a gradient."""
        ### BEGIN SOLUTION
        options = {"lr": self.lr, "betas": self.betas, "eps": self.eps}
        with torch.no_grad():
            for parameter, state in zip(self.params, self.states, strict=True):
                if parameter.grad is not None:
                    parameter.mul_(1 - self.lr * self.weight_decay)
                    parameter.copy_(adam_step(parameter, parameter.grad, state, **options))
        ### END SOLUTION


# %% test="adamw" points=4
require(check_adamw(AdamW))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_adamw, AdamW)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `p = p - step` makes a new tensor that the model knows nothing about. And what does autograd say to changes in place?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Turn `params` into a list, and make a list of as many empty dictionaries. In `step`, under `torch.no_grad()`, for each
# parameter with a gradient: `mul_`, then your `adam_step`, then `copy_` the result into the parameter.
# </details>
#
# ## Task 4. A schedule (3 points)
#
# Adam's second mean knows little in the first steps, so we start gently; and at the end the noise of the batches must
# be cooled down. Write the factor on the learning rate in step 0, 1, 2, …:
#
# - while `step < warmup`, a straight line: `start` at step 0, and it would reach 1 at step `warmup`;
# - from there half a cosine: 1 at step `warmup`, `final` at step `n_steps`;
# - from `n_steps` on, `final`. With `warmup=0` there is no line.
#
# Half a cosine from 1 to 0 is $(1+\cos \pi u)/2$, where $u$ goes from 0 to 1.


# %% solution="schedule"
def warmup_cosine(step, *, n_steps, warmup, start, final):
    """Return the factor on the learning rate in this step, a number."""
    ### BEGIN SOLUTION
    if step < warmup:
        return start + (1 - start) * step / warmup
    share = min((step - warmup) / (n_steps - warmup), 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
    ### END SOLUTION


# %% test="schedule" points=3
require(check_warmup_cosine(warmup_cosine))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_warmup_cosine, warmup_cosine)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many steps does the cosine have? Not `n_steps`.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# After the warm-up let `share = (step - warmup) / (n_steps - warmup)`, at most 1. Half a cosine of it lies between 1
# and 0; stretch it to lie between 1 and `final`.
# </details>
#
# ## Task 5. A fair race (4 points)
#
# Thursday. A race is fair if an entrant can win by nothing but its steps: for one seed all start from the same weights
# and see the same batches in the same order; nobody goes on where somebody else has stopped; and what counts is the
# loss on `val` at the *end*, measured in evaluation mode.
#
# - `entrants` maps a name to a function that takes parameters and returns an optimizer with `zero_grad` and `step`.
# - `make_model(seed)` returns a new model, the same for the same seed.
# - `make_batches(seed)` returns an iterator over `(x, y)`, which can be read once.
# - `loss_fn(model(x), y)` is the loss; `val` is a pair `(x, y)`.
#
# Return the losses as a NumPy array, one row an entrant and one column a seed.


# %% solution="race"
def race(entrants, seeds, *, make_model, make_batches, loss_fn, val):
    """Return the validation losses at the end, shape (len(entrants), len(seeds))."""
    ### BEGIN SOLUTION
    losses = np.zeros((len(entrants), len(seeds)))
    for row, make_optimizer in enumerate(entrants.values()):
        for column, seed in enumerate(seeds):
            model = make_model(seed).train()
            optimizer = make_optimizer(model.parameters())
            for x, y in make_batches(seed):
                optimizer.zero_grad()
                loss_fn(model(x), y).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                losses[row, column] = loss_fn(model(val[0]), val[1]).item()
    return losses
    ### END SOLUTION


# %% test="race" points=4
require(check_race(race))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_race, race)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What has to be made anew for each entrant *and* each seed? Three things.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Two loops; inside them a model, an optimizer of its parameters, the loop over the batches with `zero_grad`,
# `backward`, `step`; then `model.eval()` and the loss on `val`.
# </details>
#
# ## Task 6. Who won? (3 points)
#
# A seed that is hard for one entrant is hard for all: look at the *differences*. For losses $a_i$ and $b_i$ of the same
# $n$ seeds return the mean of $a_i - b_i$ and the two ends of its confidence interval by Student's $t$ with $n-1$
# degrees of freedom, for a level such as 0.95. `scipy.stats.t.ppf` gives the quantiles.


# %% solution="interval"
def paired_interval(a, b, level):
    """Return (mean of a - b, lower end, upper end); `a` and `b` are arrays of the same length."""
    ### BEGIN SOLUTION
    difference = a - b
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    reach = stats.t.ppf((1 + level) / 2, len(difference) - 1) * error
    return difference.mean(), difference.mean() - reach, difference.mean() + reach
    ### END SOLUTION


# %% test="interval" points=3
require(check_paired_interval(paired_interval))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_paired_interval, paired_interval)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which variance belongs to a sample, and how does the mean of $n$ numbers vary compared with one of them?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Half the width is quantile · s / √n, with s the standard deviation of the differences (n − 1). Outside a level of 0.95
# lie 0.025 on each side.
# </details>
#
# ## Friday
#
# Handwritten digits, 8 × 8 pixels: 1,000 images to train on, 300 to choose the learning rates, 497 for the race. The
# network has one hidden layer of 32. `Stepper`, which comes with the course, turns your step functions into
# optimizers, and `Scheduled` sets the rate of an AdamW before each step. **Predict:** write down an order of the five, and how far apart the first and the
# last will be.

# %%
pixels, digits = load_digits(return_X_y=True)
x, y = torch.tensor(pixels / 16).float(), torch.tensor(digits)
order = torch.randperm(len(x), generator=make_generator(0))
train, val, test = ((x[rows], y[rows]) for rows in order.split([1000, 300, 497]))
EPOCHS, BATCH = 5, 50
N_STEPS = EPOCHS * len(train[0]) // BATCH


def make_model(seed):
    return MLP(64, [32], 10, generator=make_generator(seed))


def make_batches(seed):
    generator = make_generator(1000 + seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train[0]), generator=generator).split(BATCH):
            yield train[0][rows], train[1][rows]


# %%
class Scheduled(AdamW):
    """AdamW whose rate follows your schedule."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.peak, self.n_done = lr, 0

    def step(self):
        self.lr = self.peak * warmup_cosine(self.n_done, n_steps=N_STEPS, warmup=10, start=0.1, final=0.0)
        self.n_done += 1
        super().step()


# %% [markdown]
# Equal care: each entrant gets five learning rates, a factor of about three apart, and two seeds that will not race.
# If the best rate lies at the edge of its row, widen that row.

# %%
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}
MAKERS = {
    "plain steps": lambda p, lr: Stepper(p, nesterov_step, lr=lr, momentum=0.0),
    "Nesterov 0.9": lambda p, lr: Stepper(p, nesterov_step, lr=lr, momentum=0.9),
    "Adam": lambda p, lr: Stepper(p, adam_step, lr=lr, **ADAM),
    "AdamW": lambda p, lr: AdamW(p, lr),
    "AdamW, schedule": lambda p, lr: Scheduled(p, lr),
}
GRIDS = {name: [0.003, 0.01, 0.03, 0.1, 0.3] for name in MAKERS}
GRIDS["plain steps"], GRIDS["Nesterov 0.9"] = [0.03, 0.1, 0.3, 1.0, 3.0], [0.01, 0.03, 0.1, 0.3, 1.0]
setting = {"make_model": make_model, "make_batches": make_batches, "loss_fn": F.cross_entropy}

chosen = {}
for name, make in MAKERS.items():
    rivals = {lr: lambda p, lr=lr, make=make: make(p, lr) for lr in GRIDS[name]}
    losses = race(rivals, [100, 101], val=val, **setting).mean(axis=1)
    chosen[name] = GRIDS[name][losses.argmin()]
    print(f"{name:16}", dict(zip(GRIDS[name], losses.round(3).tolist(), strict=True)), "→", chosen[name])

# %% [markdown]
# Now eight new seeds and the data that nobody has seen.

# %%
entrants = {name: lambda p, make=make, name=name: make(p, chosen[name]) for name, make in MAKERS.items()}
results = dict(zip(entrants, race(entrants, range(8), val=test, **setting), strict=True))

fig, ax = plt.subplots(figsize=(8, 3))
rows = {f"{name} ({chosen[name]:g})": losses for name, losses in results.items()}
plotting.plot_dots(ax, rows, xlabel="test loss after 5 epochs (in brackets: tuned rate)", means=".3f")
show(fig, alt="One row of eight dots for each of the five entrants: their test losses, with the mean beside each row.")

base = "AdamW, schedule"
for name in results:
    if name != base:
        mean, low, high = paired_interval(results[name], results[base], 0.95)
        wins = int((results[base] < results[name]).sum())
        print(f"{name:16} minus {base}: {mean:+.4f}, 95% in [{low:+.4f}, {high:+.4f}]; {base} wins {wins} of 8")

# %% [markdown] answer="report" points=5
# ## Task 7. Report (5 points)
#
# Replace the questions by your answers, two to four sentences each.
#
# 1. **Order.** Which order had you predicted, and which came out? Which pairs can you tell apart at a level of 0.95,
#    and which not?
# 2. **Decay.** Adam and AdamW differ in one line. What does the race say about that line, and what would you have to
#    change to see more of it?
# 3. **Schedule.** The scheduled AdamW has the same number of steps as the others. Where does its difference come from:
#    the warm-up or the end? Sketch the run that would decide it.
# 4. **Care.** What would the result have been with one learning rate for all, say 0.01? What does that tell you about
#    comparisons that you read?
# 5. **A bug.** Describe one mistake that a check found in your code, and how it would have shown in the race, if at all.

# %%
progress(hw4)
