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
# # 05. Which way down, and how fast?
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/05_optimizers.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/05_optimizers.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/05_optimizers.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/05_optimizers.ipynb)
#
# The gradient says where downhill is. It does not say how far to go, it changes from batch to batch, and in a narrow
# valley it points at the opposite wall. Every optimizer of this lesson answers one of these complaints in a few lines.
# At the end they race, with equal care for each, and the result is less clear than most blog posts promise.
#
# ## You will be able to …
#
# - **predict** how fast gradient descent closes the gap to the optimum, and check the prediction,
# - **read** eight optimizers as code beside their formulas, and say what each one adds,
# - **recognize** a noise floor, a missing bias correction, and Rprop on minibatches by their curves,
# - **choose** a learning rate by a range test and a schedule as a function of the step,
# - **judge** a comparison of optimizers: what it shows, and what it cannot show.
#
# **Prerequisites:** lessons 00 and 01. **Time:** 80 minutes.
# **Lecture:** decks `002_8e362a99924dbb37` (optimization) and `004_6954d930ac6e5b54` (training in practice).
#
# ## Set-up
#
# Two kinds of test problems: functions of one or two weights, where we know the optimum and can draw the path; and a
# network with two hidden layers on 3,000 images of Fashion-MNIST. 2,000 other images serve for choosing. The test set
# is opened once, by the race at the end. Unless we say otherwise, a network runs with the same three seeds, which fix
# its initial weights and the order of its batches.

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
import inspect
import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F

from course_utils import optim, plotting, schedules
from course_utils.claims import claim
from course_utils.datasets import load_fashion_mnist
from course_utils.models import MLP
from course_utils.plotting import label_line_ends, plot_seeds, show, style
from course_utils.reproducibility import make_generator, set_up
from course_utils.training import LiveLossPlot, evaluate, fit
from course_utils.widgets import canvas, explorer, labelled, log

set_up(seed=0)
plotting.use_theme()
SEEDS = (0, 1, 2)
train_set, val_set, test_set = load_fashion_mnist().tensors(n_train=3000, n_val=2000)

# %% [markdown]
# ## 1. How fast is fast?
#
# **Predict.** Gradient descent has brought the loss from 1 to 0.1 above the minimum in 50 steps. How many more steps
# to 0.01? Another 50, or more?
#
# The *optimality gap* is the loss minus its minimum. On a quadratic with curvatures between $\mu$ and $L$, each step
# multiplies the distance along the flattest direction by the same number; the gap gets its square:
#
# $$w \leftarrow w - \eta\,g,\qquad \text{gap}_{t+1} \approx (1-\eta\mu)^2\ \text{gap}_t$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $\eta$ | `lr` | learning rate |
# | $g$ | `gradient` | gradient of the loss at $w$ |
# | $\mu, L$ | `mu`, `L` | smallest and largest curvature; $\kappa=L/\mu$ is the condition number |
# | $\beta$ | `beta`, `momentum` | share of the old that a running mean keeps |
#
# That is a *linear* rate: a straight line on a logarithmic axis. Where the bottom is flat, as in $|w|^p$ with $p>2$,
# the curvature itself goes to 0, and the gap falls only like $t^{-p/(p-2)}$: *sublinear*.


# %%
def descend(loss, start, make_optimizer, n_steps):
    """The points visited, shape (n_steps + 1, n_weights), in double precision."""
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = make_optimizer([w])
    path = [w.detach().clone()]
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss(w).backward()
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


def gaps(loss, path):
    """The optimality gap at every point of a path, for losses whose minimum is 0."""
    return np.array([loss(w).item() for w in path])


def bowl(w):
    return (w[0] ** 2 + 50 * w[1] ** 2) / 2


def power(p):
    return lambda w: (w.abs() ** p).sum()


linear = gaps(bowl, descend(bowl, [1.0, 1.0], lambda w: torch.optim.SGD(w, lr=0.02), 400))
flat = {p: gaps(power(p), descend(power(p), [1.0], lambda w: torch.optim.SGD(w, lr=0.02), 4000)) for p in (3, 4, 6)}

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
axes[0].semilogy(linear, label="measured", color=style(0)["color"])
axes[0].semilogy(linear[100] * 0.98 ** (2 * (np.arange(401) - 100)), ":", color="0.2", label="theory")
axes[0].set(xlabel="step", ylabel="optimality gap", title="Curved bowl: a straight line here")
axes[0].legend()
for index, (p, gap) in enumerate(flat.items()):
    axes[1].loglog(np.arange(1, 4001), gap[1:], color=style(index)["color"], label=f"$|w|^{p}$")
axes[1].set(xlabel="step (log scale)", title="Flat bottom: a straight line only here")
label_line_ends(axes[1])
show(
    fig,
    alt="Left: the gap on a quadratic falls as a straight line on a logarithmic axis, on the dotted theory. Right: for powers "
    "3, 4 and 6 of the distance the gap is straight only when both axes are logarithmic; the flattest bowl is slowest.",
)


rate = (linear[300] / linear[200]) ** (1 / 100)
slopes = {p: np.log(gap[4000] / gap[2000]) / np.log(2) for p, gap in flat.items()}
print(f"gap per step {rate:.5f}, theory {0.98**2:.5f};  slopes", {p: round(float(s), 3) for p, s in slopes.items()})
claim("Quadratic: the gap's factor per step is (1 - ημ)² (error)", abs(rate - 0.98**2), "<", 1e-6, source="deck 002")
errors = [abs(slope + p / (p - 2)) for p, slope in slopes.items()]
claim("Gap on |w|^p falls as t^(-p/(p-2)) (error of the slope)", max(errors), "<", 0.1, source="this lesson")

# %% [markdown]
# **Read the figure.** On the left every 50 steps buy the same factor: after the first step the measured rate,
# 0.96040, is $(1-0.02)^2$. On the right each new digit costs two to five times the steps of the one before. The
# textbook bound $O(1/t)$ holds for all three; it needs a *convex* loss, which deck 002 does not say. A network has no
# such guarantee.
#
# ## 2. Momentum: a ball instead of a walker
#
# **Predict.** Write momentum as a running mean, $m \leftarrow \beta m + (1-\beta) g$, or as torch does, $m \leftarrow
# \beta m + g$. With the same `lr` and $\beta=0.9$, do both make the same steps?
#
# Momentum averages the zigzag away and adds up what stays the same. The two conventions differ by a factor $1-\beta$
# in the step, so the second is ten times faster at $\beta=0.9$, and diverges at a tenth of the learning rate.


# %%
def deck_momentum(gradient, w, lr, beta, n_steps):
    """The running-mean convention: m ← βm + (1 - β)g, w ← w - lr·m."""
    m = torch.zeros_like(w)
    for _ in range(n_steps):
        m = beta * m + (1 - beta) * gradient(w)
        w = w - lr * m
    return w


def gradient(w):
    return scales * w


# %%
scales = torch.tensor([1.0, 1000.0], dtype=torch.float64)


def ravine(w):
    return (scales * w**2).sum() / 2


ours = deck_momentum(gradient, torch.ones(2, dtype=torch.float64), 1e-3 / (1 - 0.9), 0.9, 100)
theirs = descend(ravine, [1.0, 1.0], lambda w: torch.optim.SGD(w, lr=1e-3, momentum=0.9), 100)[-1]
difference = (ours - theirs).abs().max()
claim("Running-mean momentum = torch's at lr(1 - β) (difference)", difference, "<", 1e-12, source="deck 002")

# %% [markdown]
# The paths agree once the running mean gets `lr / (1 - β)`. Ask which convention a paper uses before you copy its
# learning rate.
#
# ### Nesterov looks ahead
#
# Nesterov takes the gradient where momentum is about to carry the weights: at $w - \eta\beta m$. Deck 002 prints
# $w-\beta m$, without $\eta$.
#
# **Predict.** Does that harm, or only shift the look-ahead a little? And by what factor does momentum cut the number
# of steps when $\kappa = 1000$? Theory says about $\sqrt\kappa \approx 32$ in the *rate*.


# %%
def nesterov(gradient, w, lr, beta, n_steps, look_ahead):
    """m ← βm + g(w - look_ahead·βm), w ← w - lr·m; correct is look_ahead = lr, the deck prints 1."""
    m, sizes = torch.zeros_like(w), []
    for _ in range(n_steps):
        m = beta * m + gradient(w - look_ahead * beta * m)
        w = w - lr * m
        sizes.append(w.norm().item())
    return sizes


# %%
mu, L = 1.0, 1000.0
root = np.sqrt(L / mu)
w0 = torch.ones(2, dtype=torch.float64)
right, wrong = (nesterov(gradient, w0, 1e-3, 0.9, 200, look_ahead) for look_ahead in (1e-3, 1.0))
print(f"distance after 8 steps: corrected {right[7]:.3g}, as the deck prints it {wrong[7]:.3g}")
claim("Nesterov as printed, without η: distance after 8 steps", wrong[7], ">", 1e6, source="deck 002, corrected")
claim("Nesterov with η in the look-ahead: distance after 200 steps", right[-1], "<", 0.5, source="this lesson")

# %%
TUNED = {
    "gradient descent": lambda w: torch.optim.SGD(w, lr=2 / (L + mu)),
    "heavy ball": lambda w: torch.optim.SGD(w, lr=4 / (L**0.5 + mu**0.5) ** 2, momentum=((root - 1) / (root + 1)) ** 2),
    "Nesterov": lambda w: torch.optim.SGD(w, lr=1 / L, momentum=(root - 1) / (root + 1), nesterov=True),
}
gap_of, needed = {}, {}
for name, make in TUNED.items():
    gap = gaps(ravine, descend(ravine, [1.0, 1.0], make, 4000))
    gap_of[name], needed[name] = gap / gap[0], int(np.argmax(gap < 1e-6 * gap[0]))


fig, ax = plt.subplots()
for index, (name, gap) in enumerate(gap_of.items()):
    ax.plot(gap[:1200], color=style(index)["color"], label=f"{name}: {needed[name]} steps")
ax.set(yscale="log", ylim=(1e-9, 1e3), xlabel="step", ylabel="gap / initial gap", title="Condition number 1000")
ax.axhline(1e-6, color="0.5", linestyle=":", linewidth=1)
ax.legend(loc="upper right")
show(
    fig,
    alt="Relative optimality gap in a ravine of condition number 1000. Gradient descent falls slowly; after a rise, "
    "heavy ball crosses one millionth at about 200 steps, Nesterov a little earlier.",
)
speedup = [needed["gradient descent"] / needed[name] for name in ("heavy ball", "Nesterov")]
claim("κ = 1000, each tuned: momentum saves this factor in steps", min(speedup), ">", 8, source="deck 002")

# %% [markdown]
# **Read the figure.** 3454 steps against 204 and 164. The gain is of the order of $\sqrt\kappa$, not exactly it; and
# the heavy ball first goes *up*, more than a hundredfold. Each run has the learning rate and momentum that theory
# recommends for it, which needs $\mu$ and $L$. For a network nobody tells you these. As printed in the deck, Nesterov
# is at a distance of $10^{20}$ after eight steps: the missing $\eta$ is no detail.
#
# ## 3. One learning rate for every weight
#
# **Predict.** Multiply the loss by 1000. Which of these optimizers does not care?
#
# The next family divides by the gradient's own size ($\odot$, $\sqrt{\ }$ and quotients elementwise):
#
# | name | remembers | step |
# |---|---|---|
# | Rprop | a step size $s$ per weight | $s\cdot\text{sign}(g)$; $s$ grows by 1.2 if the sign stays, halves if it flips |
# | Adagrad | $v \leftarrow v + g^2$ | $\eta\, g/\sqrt v$ |
# | RMSprop | $v \leftarrow \alpha v + (1-\alpha) g^2$ | $\eta\, g/\sqrt v$ |
# | Adadelta | $v$, and $u$: the mean of squared steps | $g\sqrt{u}/\sqrt{v}$ |
#
# Compare each row with its code, from our tested module `course_utils.optim` (SGD with momentum comes first):


# %%
def show_update(name, method="_update"):
    """Print a method of our tested twin, without its signature."""
    body = inspect.getsource(getattr(getattr(optim, name), method)).split("-> None:\n", 1)[1]
    print(f"{name}\n{textwrap.indent(textwrap.dedent(body), '    ')}")


for name in ("SGD", "Rprop", "Adagrad", "RMSprop", "Adadelta"):
    show_update(name)

# %% [markdown]
# All four are blind to the loss's scale, up to the small `eps`. Adagrad's $v$ only grows, so its steps only shrink;
# RMSprop forgets. Adadelta's step has the units of a weight, so its paper needs no learning rate.
#
# **Adam** is momentum on RMSprop's scale, with a correction for the start at 0 (section 6):
#
# $$m \leftarrow \beta_1 m + (1-\beta_1) g,\quad v \leftarrow \beta_2 v + (1-\beta_2) g^2,\quad
# w \leftarrow w - \eta\,\frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)} + \varepsilon}$$
#
# **NAdam** looks ahead as Nesterov does. **AdamW** shrinks the weights outside the fraction. $\beta_1=0.9$,
# $\beta_2=0.999$. Are ours the same as torch's? All eight run 100 steps on Rosenbrock's valley.

# %%
for name in ("Adam", "NAdam", "AdamW"):
    show_update(name)
if hasattr(optim.Adam, "_adam_step"):
    show_update("Adam", "_adam_step")


def rosenbrock(w):
    return (1 - w[0]) ** 2 + 5 * (w[1] - w[0] ** 2) ** 2


# %%
OPTIONS = {
    "SGD": {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    "Rprop": {"lr": 0.02},
    "Adagrad": {"lr": 0.3},
    "RMSprop": {"lr": 0.02, "centered": True},
    "Adadelta": {"lr": 5.0},
    "Adam": {"lr": 0.1, "amsgrad": True},
    "NAdam": {"lr": 0.1},
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
}


differences = {}
for name, options in OPTIONS.items():
    classes = getattr(optim, name), getattr(torch.optim, name)
    pair = [descend(rosenbrock, [-1.0, 1.5], lambda w, c=c, o=options: c(w, **o), 100) for c in classes]
    differences[name] = (pair[0] - pair[1]).abs().max().item()
print({name: f"{difference:.0e}" for name, difference in differences.items()})
nadam = differences.pop("NAdam")
worst = max(differences.values())
claim("Seven optimizers follow torch's path, 100 steps (difference)", worst, "<", 1e-10, source="this lesson")
claim("NAdam follows torch's, whose own product is in float32", nadam, "<", 1e-6, source="this lesson")

# %% [markdown]
# Seven agree to the last digits of double precision. NAdam differs by $5\cdot10^{-8}$, the rounding of a product that
# torch keeps in single precision.
#
# ## 4. Eight ways through three landscapes
#
# **Predict.** A *ravine* is steep across and flat along. A *saddle* is a minimum in one direction and a maximum in
# the other; we start almost exactly on its ridge, 0.001 beside it. *Rosenbrock's* valley is a bent ravine (here with
# 5 instead of the usual 100). Who gets stuck at the saddle?


# %%
def saddle(w):
    return (w[0] ** 2 - w[1] ** 2) / 2 + w[1] ** 4 / 8


LANDSCAPES = {
    "ravine": (lambda w: (w[0] ** 2 + 40 * w[1] ** 2) / 2, [-2.0, 0.6], (-2.4, 1.2), (-1, 1)),
    "saddle": (saddle, [-2.0, 1e-3], (-2.4, 1.2), (-2, 2)),
    "Rosenbrock": (rosenbrock, [-1.0, 1.5], (-1.7, 1.7), (-0.6, 2)),
}
RUNNERS = {
    "SGD": ("SGD", {"lr": 0.02}),
    "momentum": ("SGD", {"lr": 0.02, "momentum": 0.9}),
    "Nesterov": ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    "Rprop": ("Rprop", {"lr": 0.02}),
    "Adagrad": ("Adagrad", {"lr": 0.3}),
    "RMSprop": ("RMSprop", {"lr": 0.03}),
    "Adadelta": ("Adadelta", {"lr": 5.0}),
    "Adam": ("Adam", {"lr": 0.1}),
}


def draw_path(ax, landscape, name, options, n_steps=100):
    """Contours of the landscape and the path of one optimizer; returns the path."""
    loss, start, xlim, ylim = LANDSCAPES[landscape]
    grid = torch.meshgrid(torch.linspace(*xlim, 80), torch.linspace(*ylim, 80), indexing="xy")
    height = loss(torch.stack(grid))
    ax.contour(*grid, (height - height.min()).sqrt(), levels=7, colors="0.8", linewidths=0.8)
    path = descend(loss, start, lambda w: getattr(optim, name)(w, **options), n_steps)
    ax.plot(*path.T, color=style(0)["color"], marker=".", markersize=3, linewidth=1)
    ax.plot(*path[0], "o", color="0.2", markersize=5)
    ax.plot(*path[-1], "*", color=style(1)["color"], markersize=11)
    ax.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[])
    ax.grid(False)
    return path


fig, axes = plt.subplots(3, 8, figsize=(12, 5.2))
ends = {}
for (row, landscape), (column, runner) in itertools.product(enumerate(LANDSCAPES), enumerate(RUNNERS)):
    ends[landscape, runner] = draw_path(axes[row, column], landscape, *RUNNERS[runner])[-1]
    axes[0, column].set_title(runner, fontsize=13)
    axes[row, 0].set_ylabel(landscape, fontsize=13)
show(
    fig,
    alt="Paths of eight optimizers, 100 steps from the black dot to the star, on a ravine, a saddle and Rosenbrock's valley. "
    "Plain SGD stops short at the saddle; momentum swings; Rprop and Adam move diagonally.",
    dpi=85,
)


left = {runner: float(end[1].abs()) for (landscape, runner), end in ends.items() if landscape == "saddle"}
print("distance from the saddle along the way out:", {runner: round(value, 2) for runner, value in left.items()})
claim("After 100 steps plain SGD still sits at the saddle (distance)", left["SGD"], "<", 0.1, source="this lesson")
claim(
    "After 100 steps Rprop and Adam have left it (distance)",
    min(left["Rprop"], left["Adam"]),
    ">",
    0.7,
    source="this lesson",
)

# %% [markdown]
# **Read the figure.** In the ravine plain SGD falls to the floor and then creeps; momentum swings from wall to wall;
# the adaptive ones leave diagonally, because they divide out the steepness. At the saddle SGD is still there after
# 100 steps: along the ridge the gradient is 0.001, and SGD's steps are proportional to it. Rprop, Adagrad and Adam
# make a full step whatever the size. Do not read a ranking: with other learning rates the picture changes, and two
# weights are not a network.
#
# ### Does momentum escape local minima?
#
# Deck 004 says that momentum "helps with escaping the local minima traps". **Predict.** A double well has a deep
# minimum at $w=-1.09$ and a shallow one at 0.88, with a barrier between them. We release $5\times200$ random weights
# at rest on the shallow side, up to $w=1.5$. At a learning rate of 0.01, how many reach the deep minimum with
# $\beta=0.9$? With 0.99, as in the deck's code? Think of a ball with friction: how high can it climb?


# %%
def well(w):
    return w**4 / 4 - w**2 / 2 + 0.2 * w


deep, top, shallow = np.sort(np.roots([1, 0, -1, 0.2]).real)  # where the slope w³ - w + 0.2 is 0
starts = np.stack([np.random.default_rng(seed).uniform(top, 1.5, 200) for seed in range(5)])
above = well(starts) > well(top)


def roll(beta, lr):
    """Which of the starts lie beyond the barrier after 2,000 steps of torch's momentum."""
    w, m = starts, 0.0
    for _ in range(2000):
        m = beta * m + (w * w * w - w + 0.2)
        w = w - lr * m
    return w < top


rates = np.geomspace(1e-4, 0.1, 10)
crossed = {beta: np.stack([roll(beta, lr) for lr in rates]) for beta in (0.0, 0.9, 0.99)}


fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
w = np.linspace(-1.6, 1.5, 200)
axes[0].plot(w, well(w), color=style(0)["color"])
axes[0].plot(w[w > top], well(w[w > top]), color=style(0)["color"], linewidth=8, alpha=0.3)
axes[0].axhline(well(top), color="0.4", linestyle=":", linewidth=1)
axes[0].set(xlabel="$w$", ylabel="loss", title="Thick: starts; dotted: the barrier's height")
for index, (beta, runs) in enumerate(crossed.items()):
    plot_seeds(axes[1], rates, runs.mean(2).T, label=f"β = {beta:g}", color=style(index)["color"], marker="o")
axes[1].axhline(above.mean(), color="0.4", linestyle=":", linewidth=1)
axes[1].text(rates[0], above.mean() - 0.005, "started above the barrier", va="top", fontsize=10, color="0.3")
axes[1].set(xscale="log", xlabel="learning rate", ylabel="share", title="Share that reaches the deep minimum")
label_line_ends(axes[1])
show(
    fig,
    alt="Left: a double well; the starts lie right of the barrier, some on the wall above its height. Right: the share that "
    "crosses is 0 without momentum, rises above a learning rate of 0.02 for 0.9, and above 0.0002 for 0.99.",
)

# %%
at = 6  # rates[6] is 0.01
print("lr 0.01:", {beta: runs[at].mean(1).round(3).tolist() for beta, runs in crossed.items()})
print(
    f"β = 0.99, lr 0.01(1 - β): {crossed[0.99][0].mean():.3f};  starts above the barrier's height: {above.mean():.3f}"
)
claim("β = 0.9, lr 0.01: share that crosses", crossed[0.9][at].mean(1), "<", 0.02, source="deck 004, corrected")
claim("β = 0.99, lr 0.01: share that crosses", crossed[0.99][at].mean(1), ">", 0.08, source="deck 004")
low = max(runs[:, ~above].mean() for runs in crossed.values())
claim("Started below the barrier's height: share that crosses, all lr", low, "<", 0.005, source="this lesson")

# %% [markdown]
# **Read the figure.** At 0.01 none of the 1,000 crosses with $\beta=0$ or 0.9. With 0.99 it is 18 to 28% in the five
# groups (bands), and each of them started *above* the barrier's height, as 27% of all starts did. Who started below
# never crosses, at any of these rates. So momentum does not climb out of a minimum; it runs past one on its way down.
#
# The answer depends on the height of the start against the barrier, and on friction. For small steps only
# $(1-\beta)/\sqrt\eta$ counts, so the curve of 0.9 is that of 0.99 moved to rates 100 times as large. And with the
# running mean of section 2, whose step is $1-\beta$ times as long, 0.99 at 0.01 gives 0% too. One dimension and no
# minibatch noise: what a network does, this run does not say.
#
# ### Turn the knobs
#
# Can you find a learning rate at which Adam circles the minimum? One at which SGD with momentum 0.99 flies off? And
# with which rate does plain SGD need a single step on the *bowl*, whose curvature is 1 in all directions? The dot is the
# start, the star the place after 100 steps; only SGD and RMSprop know a momentum. Where widgets don't run, the
# landscapes above hold one answer for each optimizer.


# %%
LANDSCAPES["bowl"] = (lambda w: (w[0] ** 2 + w[1] ** 2) / 2, [-2.0, 0.6], (-2.4, 1.2), (-1.5, 1.5))


def explore(landscape="ravine", optimizer="SGD", lr=0.02, momentum=0.0):
    """Draw one path for one setting of the knobs."""
    knows = optimizer in ("SGD", "RMSprop")
    options = {"lr": lr} | ({"momentum": momentum} if knows else {})
    setting = f"lr {lr:g}, momentum {momentum:g}{'' if knows else ' ignored'}"
    fig, ax = canvas(6, 3.4, left=0.4, bottom=0.4)
    draw_path(ax, landscape, optimizer, options)
    ax.set(title=f"{optimizer}, {setting}", xlabel="$w_1$", ylabel="$w_2$")
    show(fig, alt=f"Path of {optimizer} on the {landscape} with {setting}.")


# %%
knobs = {"landscape": list(LANDSCAPES), "optimizer": optim.__all__, "lr": labelled(log(1e-3, 10), "learning rate")}
explorer(explore, **knobs, momentum=[0.0, 0.5, 0.9, 0.99])

# %% [markdown]
# ## 5. Rprop and the minibatch
#
# **Predict.** Rprop is fast and hardly needs tuning. We train the same network on 1,000 images, 150 steps each: once
# with all images in every step, once with batches of 20. Which run ends lower?


# %%
def make_mlp(seed):
    return MLP(784, [100, 100], 10, activation="relu", init="kaiming_normal", generator=make_generator(seed))


def train(optimizer, seed, *, n_train=3000, max_epochs=3, **options):
    """Train a fresh network; ``optimizer`` makes the optimizer from the parameters. Returns model and history."""
    model = make_mlp(seed)
    data = train_set[0][:n_train], train_set[1][:n_train]
    options = {"val": val_set, "batch_size": 64, "on_nonfinite": "stop"} | options
    options |= {"optimizer": optimizer(model.parameters()), "max_epochs": max_epochs, "seed": seed}
    return model, fit(model, data, loss_fn=F.cross_entropy, **options)


# %%
cases = {"all 1,000 images": (1000, 150), "batches of 20": (20, 3)}
rprop = {name: [] for name in cases}
for (name, (size, epochs)), seed in itertools.product(cases.items(), SEEDS):
    how = {"n_train": 1000, "batch_size": size, "max_epochs": epochs, "val": None}
    rprop[name].append(train(lambda p: torch.optim.Rprop(p, lr=1e-3), seed, **how)[1].step_loss)

# %%
fig = plotting.small_multiples(rprop, xlabel="step", ylabel="training loss", log=True, columns=2)
show(
    fig,
    alt="Training loss of Rprop over 150 steps, three seeds. With all images in every step it falls by many decades; with "
    "batches of 20 it does not come down.",
    dpi=85,
)
lowest = [min(run) for run in rprop["all 1,000 images"]]
last = [np.mean(run[-10:]) for run in rprop["batches of 20"]]
claim("Rprop on all images: lowest training loss in 150 steps", lowest, "<", 1e-5, source="deck 002")
claim("Rprop on batches of 20: training loss after 150 steps", last, ">", 1, source="deck 002")

# %% [markdown]
# **Read the figure.** With all images Rprop gets below $10^{-8}$ (why it spikes after some 50 steps, we did not
# measure). With batches it ends at 6 to 12, worse than its start. It saw fifty times fewer images, but that explains
# no rise. The reason, in Hinton's example: one weight with nine small gradients of +0.1 and one of −0.9: the mean is
# zero, and the weight should stay. Rprop sees nine votes against one and marches. RMSprop was invented to repair
# this: it divides by a size that neighbouring batches share.
#
# ## 6. Adam's first steps
#
# **Predict.** $m$ and $v$ start at 0, so early on both are too small. Leave the correction out: are the first steps
# too short or too long?


# %%
class UncorrectedAdam(torch.optim.Optimizer):
    """Adam without its division by 1 - βᵗ."""

    def __init__(self, params, lr=0.01, betas=(0.9, 0.999)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                (b1, b2), state = group["betas"], self.state[p]
                state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * p.grad
                state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * p.grad**2
                p -= group["lr"] * state["m"] / (state["v"].sqrt() + 1e-8)


adams = {"with correction": torch.optim.Adam, "without": UncorrectedAdam}
early = {
    name: [train(lambda p, a=adam: a(p, lr=0.01), seed, max_epochs=1)[1].step_loss for seed in SEEDS]
    for name, adam in adams.items()
}
t = np.arange(1, 48)
factor = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)
print(
    f"step without correction: {factor[0]:.2f} times at t = 1, at most {factor.max():.2f} at t = {t[factor.argmax()]}"
)

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.3))
axes[0].plot(t, factor, color=style(1)["color"])
axes[0].axhline(1, color="0.5", linestyle=":")
axes[0].set(xlabel="step", ylabel="step length / corrected one", title="Constant gradient: theory", ylim=(0, 7))
for index, (name, runs) in enumerate(early.items()):
    plot_seeds(axes[1], np.arange(1, 48), runs, label=name, color=style(index)["color"])
axes[1].set(xlabel="step", ylabel="training loss", yscale="log", title="Fashion-MNIST, lr 0.01")
axes[1].legend()
show(
    fig,
    alt="Left: without bias correction the first step is three times too long, the twelfth more than six times. Right: the "
    "training loss without correction jumps to tens in the first steps; with it the jump is small.",
)


jump = {name: [max(run) for run in runs] for name, runs in early.items()}
ratio = np.divide(jump["without"], jump["with correction"])
claim("Adam without bias correction: early loss peak, times higher", ratio, ">", 2, source="deck 002")

# %% [markdown]
# **Read the figure.** Too long: $v$ remembers a thousand steps and $m$ only ten, so the denominator is behind. Three
# times too long at first, 6.57 times at step 12. The early peak of the loss is about six times higher. At a learning
# rate of 0.001 you would hardly notice; warm-up (section 8) is a cure of the same kind.
#
# ### Adam with L2 is not AdamW
#
# **Predict.** Two weights, both 1. Their gradients alternate in sign, with sizes 10 and 0.1, so only the decay should
# move them. Does `weight_decay=0.1` shrink both alike?

# %%
shrunk = {}
for name in ("Adam", "AdamW"):
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(optim, name)([w], lr=0.01, weight_decay=0.1)
    for step in range(1700):
        w.grad = (-1) ** step * torch.tensor([10.0, 0.1], dtype=torch.float64)
        optimizer.step()
    shrunk[name] = w.detach().numpy()


print({name: left.round(3).tolist() for name, left in shrunk.items()})
ratio = {name: left.max() / left.min() for name, left in shrunk.items()}
claim("Adam + L2 shrinks weights unequally (ratio of what is left)", ratio["Adam"], ">", 3, source="deck 000")
claim("AdamW shrinks them alike (ratio of what is left)", ratio["AdamW"], "<", 1.1, source="deck 000")

# %% [markdown]
# In Adam the decay passes through the division, so the weight with large gradients keeps 0.83 and the other nothing.
# AdamW decays outside: 0.18 for both. That is a fact about the *algorithm*. That AdamW also generalizes better is a
# famous claim which our small settings do not confirm (section 10).
#
# ## 7. Batch size and gradient noise
#
# **Predict.** A batch four times as large costs four times as much. By what factor does the squared error of its
# gradient fall?

# %%
model = make_mlp(seed=0)


def flat_gradient(rows):
    """The gradient of the mean loss over the given training images, as one vector."""
    loss = F.cross_entropy(model(train_set[0][rows]), train_set[1][rows])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


# %%
full, sizes = flat_gradient(slice(None)), [4, 16, 64, 256]


def squared_error(size, draw):
    """Mean squared distance of 150 minibatch gradients from the full one."""
    batches = [torch.randint(3000, (size,), generator=draw) for _ in range(150)]
    return np.mean([(flat_gradient(rows) - full).square().sum().item() for rows in batches])


noise = [[squared_error(size, make_generator(seed)) for size in sizes] for seed in SEEDS]


fig, ax = plt.subplots()
plot_seeds(ax, sizes, noise, label="measured", color=style(0)["color"], marker="o")
ax.plot(sizes, noise[0][0] * 4 / np.array(sizes), ":", color="0.2", label="1/B")
ax.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="mean squared error of the gradient", xticks=sizes)
ax.set_xticklabels(sizes)
ax.legend()
show(
    fig,
    alt="Squared error of the minibatch gradient against batch size, both logarithmic; it follows the dotted line 1/B.",
)
products = np.array(noise) * sizes
claim(
    "Gradient noise × batch size: max/min over B = 4…256",
    products.max(1) / products.min(1),
    "<",
    1.5,
    source="deck 002",
)

# %% [markdown]
# **Read the figure.** By four, and no more: the variance of a mean of $B$ draws is $1/B$ of one draw's. The
# *standard* error only halves. So should batches be small? It depends on what you hold fixed.
#
# **Predict.** SGD with `lr=0.05`, batches of 16, 64 and 256: once with equal epochs, once with about 188 steps each.
# Which batch size wins in each?

# %%
BUDGETS = {"3 epochs": {16: 3, 64: 3, 256: 3}, "about 188 steps": {16: 1, 64: 4, 256: 16}}
for name, epochs in BUDGETS.items():
    for size, n in epochs.items():
        runs = [train(lambda p: torch.optim.SGD(p, lr=0.05), s, batch_size=size, max_epochs=n)[1] for s in SEEDS]
        print(f"{name:16} B = {size:3}: accuracy", [round(run["val_accuracy"][-1], 3) for run in runs])

# %% [markdown]
# With equal *steps* the batch of 256 wins, but it has seen sixteen times the images. With equal *epochs* the order is
# unclear: the seeds of $B=16$ alone span 0.10. A fair comparison would also tune `lr` for each size.
#
# **Clipping** is the other tool against a bad batch: it shortens a long gradient and keeps its direction. Lesson 01,
# section 6, runs it; in `fit` it is `clip_norm=1.0`. Adam needs it less, since it already divides by the size.
#
# ## 8. Schedules: the learning rate as a function of the step
#
# A schedule is a pure function: step in, factor out. They compose by being called, and both `fit(schedule=…)` and
# `LambdaLR` take them. Deck 002 calls $\eta/(t+1)$ linear; it is *inverse-time* decay.

# %%
N = 100
SHAPES = {
    "step": schedules.step_decay(25, gamma=0.5),
    "exponential": schedules.exponential_decay(0.97),
    "inverse time": schedules.inverse_decay(0.05),
    "linear": schedules.linear_decay(N),
    "polynomial": schedules.polynomial_decay(N, power=2),
    "cosine": schedules.cosine_decay(N),
    "warm-up, then cosine": schedules.linear_warmup(15, then=schedules.cosine_decay(N - 15)),
    "one-cycle": schedules.one_cycle(N),
}


fig = plotting.small_multiples(
    {name: [[schedule(step) for step in range(N)]] for name, schedule in SHAPES.items()},
    xlabel="step",
    ylabel="factor on lr",
    columns=4,
)
show(
    fig,
    alt="Eight schedules over 100 steps: six fall from 1 in different shapes, two rise first and then fall to zero.",
)

# %% [markdown]
# The shapes are easy; why would one want any of them?
#
# **Predict.** Minimize $w^2/2$ when every gradient carries noise of standard deviation 1. How does the gap look after
# 20,000 steps with a constant rate of 0.1? Deck 002 says that scheduling does not change the rate of convergence.


# %%
def noisy_descent(schedule, seed, n_steps=20000):
    """Minimize w²/2 from w = 1 with gradient w + noise of standard deviation 1; the gap at every step."""
    noise = np.random.default_rng(seed).normal(size=n_steps)
    w, gap = 1.0, np.empty(n_steps)
    for step in range(n_steps):
        w -= 0.1 * schedule(step) * (w + noise[step])
        gap[step] = w * w / 2
    return gap


constant = [noisy_descent(lambda step: 1.0, seed) for seed in SEEDS]
inverse = [noisy_descent(schedules.inverse_decay(0.1), seed) for seed in SEEDS]


blocks = np.geomspace(10, 20000, 25).astype(int)
fig, ax = plt.subplots()
for index, (name, runs) in enumerate({"constant 0.1": constant, "0.1 / (1 + 0.1 t)": inverse}.items()):
    means = [[run[a:b].mean() for a, b in itertools.pairwise(blocks)] for run in runs]
    plot_seeds(ax, blocks[1:], means, label=name, color=style(index)["color"])
ax.axhline(0.1 / (2 * (2 - 0.1)), color="0.4", linestyle=":", linewidth=1)
ax.set(xscale="log", yscale="log", xlabel="step", ylabel="optimality gap", title="Noise floor")
label_line_ends(ax)
show(
    fig,
    alt="Optimality gap under noisy gradients. The constant learning rate levels off on the dotted line near 0.026; the "
    "inverse-time schedule keeps falling.",
)

# %%
floors = [np.mean([run[-2000:].mean() for run in runs]) for runs in (constant, inverse)]
claim("Constant lr 0.1 under noise: the gap stays at", floors[0], ">", 0.02, source="deck 002, corrected")
claim("With lr ∝ 1/t under the same noise: the gap", floors[1], "<", 1e-3, source="deck 002, corrected")

# %% [markdown]
# **Read the figure.** The constant rate stops at a *noise floor*, 0.025; theory (dotted) says
# $\eta/(2(2-\eta))=0.026$. Every step adds as much noise as it removes error. The decaying rate goes through that
# floor and is hundreds of times lower. So under noise scheduling decides whether you converge at all.
#
# **Predict.** Now the network, SGD with 0.15 and noisy batches of 16. Which of eight schedules is worst? Is there a
# clear best? *Plateau* differs from the rest: it looks at the validation loss and cuts the rate when that stops
# falling, so it is no function of the step and comes from torch. Of the 24 runs you can watch the first, at a constant
# rate, while it trains.

# %%
n_steps = 6 * 188
decays = {
    "constant": None,
    "step": schedules.step_decay(2 * 188, gamma=0.3),
    "inverse time": schedules.inverse_decay(10 / n_steps),
    "linear": schedules.linear_decay(n_steps),
    "cosine": schedules.cosine_decay(n_steps),
    "warm-up, cosine": schedules.linear_warmup(94, then=schedules.cosine_decay(n_steps - 94)),
    "one-cycle": schedules.one_cycle(n_steps),
    "plateau": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0),
}


def accuracy_with(name, seed):
    """Validation accuracy of SGD 0.15 under one of the schedules."""
    model = make_mlp(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=0.15)
    schedule = decays[name](sgd) if name == "plateau" else decays[name]
    watch = [LiveLossPlot(every=3)] if (name, seed) == ("constant", 0) else []  # the first of 24 runs, live
    how = {"val": val_set, "batch_size": 16, "max_epochs": 6, "seed": seed, "callbacks": watch}
    return fit(model, train_set, loss_fn=F.cross_entropy, optimizer=sgd, schedule=schedule, **how)["val_accuracy"][-1]


decayed = {name: [accuracy_with(name, seed) for seed in SEEDS] for name in decays}

# %%
fig, ax = plt.subplots()
plotting.plot_dots(ax, decayed, xlabel="validation accuracy after 6 epochs")
ax.set(title="SGD 0.15, batches of 16; a dot is a seed")
show(
    fig,
    alt="Validation accuracy of eight schedules, three seeds each; constant is lowest and widest, all decays lie above.",
)
gain = np.subtract(decayed["cosine"], decayed["constant"])
claim("Cosine decay beats a constant 0.15 (validation accuracy)", gain, ">", 0.005, source="deck 002")

# %% [markdown]
# **Read the figure.** *Any* decay beats the constant rate, for every seed. Among the decays the order can
# hardly be read: most dots overlap, though inverse time lies lowest here. Notice how the decay also narrows the spread
# over seeds. The rate of 0.15 is high on purpose; what a small one gains we have not run.
#
# ## 9. The learning-rate range test
#
# **Predict.** Raise the rate exponentially from 0.0001 to 10 within 94 steps. What does the loss do, and where would
# you set the rate?


# %%
def range_test(seed, low=1e-4, high=10.0, n_steps=94):
    """Raise lr from low to high within n_steps; the losses until the run breaks."""
    growth = (high / low) ** (1 / (n_steps - 1))
    how = {"schedule": lambda step: growth**step, "max_epochs": 2, "val": None}
    losses = np.full(n_steps, np.nan)
    run = train(lambda p: torch.optim.SGD(p, lr=low), seed, **how)[1].step_loss[:n_steps]
    losses[: len(run)] = run
    return low * growth ** np.arange(n_steps), losses


# %%
fig, ax = plt.subplots()
best = []
for seed in SEEDS:
    lrs, losses = range_test(seed)
    ax.plot(lrs, losses, color=style(seed)["color"], label=f"seed {seed}")
    smooth = np.convolve(losses, np.ones(5) / 5, mode="same")[2:-2]
    best.append(lrs[2:-2][np.nanargmin(smooth)])
ax.set(xscale="log", ylim=(0, 6), xlabel="learning rate", ylabel="training loss", title="A rising learning rate")
ax.legend(loc="upper center")
show(
    fig,
    alt="Loss against a rising learning rate, three seeds: flat below 0.001, falling until about 0.1, then exploding.",
)
print("lr at the lowest loss:", np.round(best, 2))
claim("LR range test: the loss is lowest at a learning rate of", best, "<", 0.5, source="this lesson")

# %% [markdown]
# **Read the figure.** Three regimes: nothing happens, the loss falls, the loss explodes. The lowest point lies near
# 0.1; the usual advice is a third to a tenth of it, since the test is short and the rate had no time to do harm. The
# test finds the order of magnitude for one run's price. It does not replace tuning.
#
# ### Outlook: Newton and L-BFGS
#
# Newton's method divides by the curvature matrix (the Hessian): $w \leftarrow w - H^{-1} g$. L-BFGS estimates it from
# the last few gradients. **Predict.** Ten Newton steps against 100 steps of Adam in Rosenbrock's valley: who is
# closer? And where does Newton go near a saddle?


# %%
def newton(loss, start, n_steps):
    """Solve H·step = gradient and walk there."""
    w = torch.tensor(start, dtype=torch.float64)
    path = [w]
    for _ in range(n_steps):
        gradient = torch.autograd.functional.jacobian(loss, w)
        hessian = torch.autograd.functional.hessian(loss, w)
        w = w - torch.linalg.solve(hessian, gradient)
        path.append(w)
    return torch.stack(path)


w = torch.tensor([-1.0, 1.5], dtype=torch.float64, requires_grad=True)
tolerances = {"tolerance_grad": 1e-12, "tolerance_change": 1e-14}
lbfgs = torch.optim.LBFGS([w], max_iter=30, line_search_fn="strong_wolfe", **tolerances)
evaluations = []


def closure():
    lbfgs.zero_grad()
    loss = rosenbrock(w)
    loss.backward()
    evaluations.append(loss.item())
    return loss


_ = lbfgs.step(closure)

# %%
gap_newton = gaps(rosenbrock, newton(rosenbrock, [-1.0, 1.5], 10))
gap_adam = gaps(rosenbrock, descend(rosenbrock, [-1.0, 1.5], lambda w: torch.optim.Adam(w, lr=0.1), 100))
print(f"gaps: L-BFGS, {len(evaluations)} gradients: {evaluations[-1]:.0e};  Adam, 100 steps: {gap_adam[-1]:.0e}")
print("Newton step by step:", [f"{gap:.0e}" for gap in gap_newton])
at_saddle = newton(saddle, [-2.0, 1e-3], 8)[-1]
claim("Rosenbrock: Newton's gap after 10 steps", gap_newton[-1], "<", 1e-10, source="this lesson")
claim("Newton walks into the saddle (distance from it)", at_saddle.norm(), "<", 1e-6, source="this lesson")

# %% [markdown]
# Near the end Newton doubles the number of correct digits per step: gaps 8e-06, 3e-13, 6e-25. At the beginning it
# goes *up* three times. At the saddle it walks straight in, because it looks for gradient 0, not for low loss. And
# $H$ has as many entries as weights squared: for our network with 89,610 weights, eight billion. L-BFGS needs 26
# gradients, but exact ones; minibatch noise spoils its estimate.
#
# ## 10. A fair race
#
# Rules: same network, data, batches (64), 3 epochs. Each optimizer gets its own grid of learning rates, three values
# or more, with the best one *inside* the grid. It is chosen on validation data with two seeds (100, 101) which do not
# race. Everything else stays at its default.

# %%
T = torch.optim
RACERS = {
    "SGD": (T.SGD, {}, [0.03, 0.1, 0.3]),
    "momentum 0.9": (T.SGD, {"momentum": 0.9}, [0.01, 0.03, 0.1]),
    "Nesterov 0.9": (T.SGD, {"momentum": 0.9, "nesterov": True}, [0.003, 0.01, 0.03]),
    "Adagrad": (T.Adagrad, {}, [0.003, 0.01, 0.03]),
    "RMSprop": (T.RMSprop, {}, [0.0001, 0.0003, 0.001, 0.003]),
    "Adadelta": (T.Adadelta, {}, [0.1, 0.3, 1.0, 3.0, 10.0]),
    "Adam": (T.Adam, {}, [0.001, 0.003, 0.01]),
    "NAdam": (T.NAdam, {}, [0.0003, 0.001, 0.003]),
    "AdamW": (T.AdamW, {}, [0.001, 0.003, 0.01]),
}


chosen, tuning = {}, {}
for name, (make, options, grid) in RACERS.items():
    tried = tuning[name] = {}
    for lr in grid:
        runs = [train(lambda p, m=make, o=options | {"lr": lr}: m(p, **o), seed)[1] for seed in (100, 101)]
        tried[lr] = np.mean([run["val_accuracy"][-1] for run in runs])
    chosen[name] = max(tried, key=tried.get)
    print(f"{name:13}", {lr: f"{accuracy:.3f}" for lr, accuracy in tried.items()}, "→", chosen[name])

# %% [markdown]
# No winner lies at the edge of its grid, so no grid was cut off too early. Notice how flat some rows are around their
# best value, and how SGD falls at 0.3. Training amplifies rounding: on another processor the third decimal differs,
# and with it a close choice such as RMSprop's.
#
# **Predict.** Five new seeds, and now the test set, for the only time. Write down the order of the nine. How far
# apart will best and worst be?

# %%
race = {}
for name, (make, options, _) in RACERS.items():
    models = [train(lambda p, m=make, o=options | {"lr": chosen[name]}: m(p, **o), seed)[0] for seed in range(5)]
    race[name] = [evaluate(model, test_set, loss_fn=F.cross_entropy)["accuracy"] for model in models]
fig, ax = plt.subplots(figsize=(8, 4))
rows = {f"{name} ({chosen[name]:g})": runs for name, runs in race.items()}
plotting.plot_dots(ax, rows, xlabel="test accuracy after 3 epochs (in brackets: tuned learning rate)", means=".3f")
show(
    fig,
    alt="Test accuracy of nine tuned optimizers, five seeds each; the clouds of dots overlap between about 0.75 and 0.82.",
)


means = [np.mean(runs) for runs in race.values()]
apart, spread = max(means) - min(means), np.median([np.ptp(runs) for runs in race.values()])
tuning_cost = max(tuning["SGD"].values()) - min(tuning["SGD"].values())
print(
    f"best mean - worst mean {apart:.3f};  typical range over seeds {spread:.3f};  SGD over its grid {tuning_cost:.3f}"
)
for one, other in (("Nesterov 0.9", "SGD"), ("AdamW", "Adam"), ("Adam", "Nesterov 0.9")):
    print(f"{one} beats {other} in {sum(a > b for a, b in zip(race[one], race[other], strict=True))} of 5 seeds")
claim("Race: range over seeds / best minus worst tuned optimizer", spread / apart, ">", 0.5, source="this lesson")
claim(
    "SGD's lr grid costs more than the choice of optimizer (ratio)", tuning_cost / apart, ">", 2, source="this lesson"
)

# %% [markdown]
# **Read the figure.** Best and worst mean are about 0.03 apart; one optimizer's seeds typically range over as much.
#
# What we *can* conclude: Nesterov beats plain SGD here, in five seeds of five. And a wrong learning rate costs SGD
# more than four times as much as the choice of optimizer. What we *cannot*: rank the middle of the field. Adam beats
# Nesterov in 2 of 5 seeds. AdamW beat Adam in 3 of 5 on one processor and in 4 of 5 on another; a fair coin gives 4
# or more with probability 0.19. Nor does the race say anything about longer training, schedules, other networks or
# other grids; with a larger budget for tuning the order can change again.

# %% [markdown]
# ## Exercises
#
# Seven exercises; each check answers at once and names what it finds. ★ is short, ★★★ takes paper. Predict before you
# compute. The functions get tensors in double precision and must leave their arguments as they are.

# %%
from course_utils.homework import lesson_05, progress
from course_utils.homework.lesson_05 import (
    check_adamw_step,
    check_find_beta,
    check_first_step,
    check_largest_rate,
    check_largest_stable_rate,
    check_sgd_step,
    check_warmup_cosine,
)

# %% [markdown]
# ### Exercise 5.1. The largest stable rate ★ (5 min)
#
# Gradient descent runs on the loss $4w_1^2 + 100w_2^2$ (mind: without ½). Up to which learning rate does it converge?
# Give the bound itself. Commit to a number before you try it out.
#
# <details><summary>Hint 1: a nudge</summary>
#
# Each direction is on its own. What does one step multiply $w_2$ by?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# The factor is $1 - \eta c$ with the curvature $c$, the second derivative. It must lie between −1 and 1 for both
# directions; the steeper one decides.
#
# </details>

# %%
largest_rate = ...  # a number
### BEGIN SOLUTION
largest_rate = 2 / 200  # the second derivative of 100 w² is 200
### END SOLUTION

# %%
check_largest_rate(largest_rate)

# %% [markdown]
# ### Exercise 5.2. RMSprop's first step ★ (5 min)
#
# RMSprop with learning rate 0.01, $\alpha = 0.99$ and a negligible $\varepsilon$ starts with $v = 0$. The first gradient
# is −5. How *long* is the first step: about the learning rate, shorter, or longer? Give the number.
#
# <details><summary>Hint 1: a nudge</summary>
#
# The gradient enters $v$ before the division. The table in section 3 has both formulas.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $v = (1-\alpha)\,g^2$, so $|g|/\sqrt v = 1/\sqrt{1-\alpha}$: the gradient's size cancels.
#
# </details>

# %%
first_step = ...  # a number, at least 0
### BEGIN SOLUTION
first_step = 0.01 * 5 / (0.01 * 5**2) ** 0.5
### END SOLUTION

# %%
check_first_step(first_step)

# %% [markdown]
# ### Exercise 5.3. Momentum and Nesterov ★★ (15 min)
#
# Write one step in torch's convention: weights `w`, gradient `g` and buffer `m`, all of the same shape, go in; the new
# `w` and `m` come out. For Nesterov torch never moves to the look-ahead point. It keeps the weights *there*, takes the
# gradient at `w` as it is, and steps by $\eta\,(g + \beta m)$ with the **new** m.
#
# <details><summary>Hint 1: a nudge</summary>
#
# The update of m is the same in both cases: $m \leftarrow \beta m + g$. Only what is subtracted from w differs.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# First the new m, as a new tensor. Then the step: the new m itself, or `g + beta * m` if `nesterov`. Multiply it by
# `lr` and subtract.
#
# </details>


# %%
def sgd_step(w, g, m, lr, beta, nesterov):
    """Return the new w and the new m of torch's SGD with momentum beta."""
    ### BEGIN SOLUTION
    m = beta * m + g
    step = g + beta * m if nesterov else m
    return w - lr * step, m
    ### END SOLUTION


# %%
check_sgd_step(sgd_step)

# %% [markdown]
# ### Exercise 5.4. One step of AdamW ★★ (20 min)
#
# Write one step: `w`, `g`, `m`, `v` have the same shape, `t` is the number of this step, counted from 1, and `betas` is
# the pair $(\beta_1, \beta_2)$. Return the new `w`, `m` and `v`. Before you start: through which two places could the
# decay enter, and which of them is AdamW?
#
# <details><summary>Hint 1: a nudge</summary>
#
# The formula of section 3 is Adam. AdamW also multiplies the weight by $1 - \eta\lambda$, before the step; the gradient
# never sees it.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# New m and v by running means; from them, for this step only, $m/(1-\beta_1^t)$ and $v/(1-\beta_2^t)$; shrink w; subtract
# `lr` times the first over (the root of the second plus `eps`). What goes back are the *uncorrected* m and v.
#
# </details>


# %%
def adamw_step(w, g, m, v, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """Return the new w, m and v of torch's AdamW in step t (from 1)."""
    ### BEGIN SOLUTION
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return (1 - lr * weight_decay) * w - lr * m_hat / (torch.sqrt(v_hat) + eps), m, v
    ### END SOLUTION


# %%
check_adamw_step(adamw_step)

# %% [markdown]
# ### Exercise 5.5. Warm-up, then cosine ★★ (15 min)
#
# Write the schedule of most large models as a pure function of the step (from 0): the factor rises in a straight line
# from `start` at step 0 to 1 at step `n_warmup`, then falls along half a cosine to 0 at step `n_steps`, and stays 0 if the
# run is longer. With `n_warmup = 0` it begins at 1. How many steps does the cosine have?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Compute in each part a share that goes from 0 to 1, and only then the shape.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Before `n_warmup`: start + (1 − start) · share. Afterwards the share of the remaining `n_steps - n_warmup` steps, at most
# 1, and the factor (1 + cos(π · share)) / 2.
#
# </details>


# %%
def warmup_cosine(step: int, n_warmup: int, n_steps: int, start: float = 0.1) -> float:
    """Return the factor on the learning rate in this step."""
    ### BEGIN SOLUTION
    if step < n_warmup:
        return start + (1 - start) * step / n_warmup
    share = min((step - n_warmup) / (n_steps - n_warmup), 1)
    return (1 + np.cos(np.pi * share)) / 2
    ### END SOLUTION


# %%
check_warmup_cosine(warmup_cosine)

# %% [markdown]
# ### Exercise 5.6. How much momentum? ★★ (10 min)
#
# A ravine with curvatures 1 and 100, and the learning rate 1/L = 0.01. **Change the constant and observe:** which β needs
# the fewest steps until the gap stays below a millionth? Within 10% of the fewest counts. Predict first: is the usual 0.9
# too much here, or too little?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Try 0, 0.5 and 0.9. Steps fall, then rise: too much momentum swings.
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Halve the interval, or compute: for a rate of 1/L the flat direction stops swinging at $(1-1/\sqrt\kappa)^2$.
#
# </details>

# %%
chosen_beta = ...  # a number, 0 or more, below 1
### BEGIN SOLUTION
chosen_beta = (1 - 1 / 100**0.5) ** 2  # 0.81
### END SOLUTION
tried_beta = 0.9 if chosen_beta is ... else chosen_beta


def ravine_100(w):
    return (w[0] ** 2 + 100 * w[1] ** 2) / 2


path = descend(ravine_100, [1.0, 1.0], lambda w: torch.optim.SGD(w, lr=0.01, momentum=tried_beta), 600)
gap = gaps(ravine_100, path)
print(f"β = {tried_beta:g}: {1 + np.flatnonzero(gap >= 1e-6 * gap[0])[-1]} steps (601: not within 600)")

# %%
check_find_beta(chosen_beta)

# %% [markdown]
# ### Exercise 5.7. Steepness without a matrix ★★★ (25 min)
#
# The largest stable rate is 2/L, but nobody tells you L, and the Hessian of a network has billions of entries. For a
# quadratic bowl find it from *gradients alone*. You get `gradient`, a function from weights to the gradient there, and
# some weights `w`, shape (n,). Return 2/L to three digits. The minimum does not lie at 0.
#
# <details><summary>Hint 1: a nudge</summary>
#
# On a quadratic `gradient(w + v) - gradient(w)` is exactly $Hv$. What happens to a vector that is multiplied by $H$ again
# and again?
#
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Power iteration: start with `w` scaled to length 1; replace $v$ by $Hv$, scaled to length 1, some 200 times. It turns
# towards the steepest direction, and the length of $Hv$ before scaling becomes L.
#
# </details>


# %%
def largest_stable_rate(gradient, w: torch.Tensor) -> float:
    """Return 2/L for the quadratic bowl with this gradient function."""
    ### BEGIN SOLUTION
    v = w / w.norm()
    for _ in range(200):
        change = gradient(w + v) - gradient(w)
        v = change / change.norm()
    return 2 / change.norm().item()
    ### END SOLUTION


# %%
check_largest_stable_rate(largest_stable_rate)

# %%
progress(lesson_05)

# %% [markdown]
# ## Recap
#
# - **Predict:** a quadratic closes the gap by $(1-\eta\mu)^2$ per step; a flat bottom only by a power of $t$.
# - **Read:** momentum averages, Rprop takes signs, Adagrad sums squares, RMSprop forgets them, Adam does both.
# - **Recognize:** a floor that no step passes (noise), a peak in the first ten steps (bias), Rprop that climbs
#   (batches).
# - **Choose:** range test for the order of magnitude, then any decay to the end; the shape matters less.
# - **Judge:** equal tuning, seeds that did not tune, the spread beside the difference.
#
# ## Pitfalls
#
# - Changing the optimizer and keeping the learning rate compares learning rates, not optimizers.
# - A schedule of ours counts steps. `fit` steps torch's schedulers, `LambdaLR` too, once an epoch: another `gamma`.
# - Adagrad on a long run stops by itself. Rprop ignores a schedule.
# - `weight_decay` means two different things in `Adam` and `AdamW`.
# - A default is a setting too: Adam's 0.001 is closer to its optimum here than SGD's 0.001 would be.
#
# ## Errata of the decks
#
# - `002_8e362a99924dbb37`: Nesterov's look-ahead lacks $\eta$; as printed it diverges (section 2).
# - `002_8e362a99924dbb37`: "scheduling does not change the rate" is false under noise (section 8). $\eta/(t+1)$ is
#   inverse-time decay, not linear. The bound $O(1/t)$ needs convexity (section 1).
# - `002_8e362a99924dbb37`: Adam's default is $\beta_2=0.999$, and its name comes from *moment*.
# - `004_6954d930ac6e5b54`: "momentum helps with escaping the local minima traps" only if the weights arrive from above
#   the barrier, with little friction (section 4).
# - `000_467c1bb93614480d`: AdamW's default `weight_decay` is 0.01 already; Adam's is 0.
#
# ## Sources
#
# - Decks `000_467c1bb93614480d`, `002_8e362a99924dbb37`, `004_6954d930ac6e5b54`.
# - B. Polyak: *Some methods of speeding up the convergence of iteration methods*, 1964. Y. Nesterov: *A method for
#   solving the convex programming problem with convergence rate O(1/k²)*, 1983.
# - H. Robbins, S. Monro: *A stochastic approximation method*, 1951 (decaying steps).
# - M. Riedmiller, H. Braun: *A direct adaptive method for faster backpropagation learning: the RPROP algorithm*,
#   1993.
# - J. Duchi, E. Hazan, Y. Singer: *Adaptive subgradient methods*, JMLR 2011. M. Zeiler: *ADADELTA*, arXiv:1212.5701.
# - T. Tieleman, G. Hinton: *Lecture 6e: rmsprop*, 2012. D. Kingma, J. Ba: *Adam*, ICLR 2015.
# - T. Dozat: *Incorporating Nesterov momentum into Adam*, 2016. I. Loshchilov, F. Hutter: *SGDR*, ICLR 2017;
#   *Decoupled weight decay regularization*, ICLR 2019. L. Smith: *Cyclical learning rates*, WACV 2017 (range test).
# - R. Schmidt, F. Schneider, P. Hennig: *Descending through a crowded valley*, ICML 2021 (how optimizers compare).
