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
# # 08. What if every edge of a network learned its own function?
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/08_kan.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/08_kan.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/08_kan.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/08_kan.ipynb)
#
# An MLP has numbers on its edges and the same fixed function in every node. A Kolmogorov-Arnold network (KAN) has a
# learned function on every edge, and its nodes only add. In 2024 that idea made headlines: more accurate, readable, and
# it does not forget. This lesson builds one from its splines up, shows what it does well, and then measures each
# headline.
#
# ## You will be able to …
#
# - **count** the functions that the Kolmogorov-Arnold theorem needs, and say what it does not promise,
# - **build** B-splines by hand, and from them an edge, a layer and a network,
# - **refine** a trained network's grid without losing what it learned, and predict how fast the error falls,
# - **turn** a trained network into a formula, and check the formula,
# - **judge** six claims about KANs by runs against an MLP with as many parameters.
#
# **Prerequisites:** lessons 00, 04 and 05. **Time:** 90 minutes.
# **Lecture:** deck `000_467c1bb93614480d` (Kolmogorov-Arnold network).

# %% [markdown]
# ## Set-up
#
# Most runs fit small networks to known functions, in double precision, so that an error is the model's and not the
# computer's. Digits and two medical tables come at the end.

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
import copy
import itertools
import math
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sympy
import torch
from scipy.interpolate import BSpline
from sklearn import datasets as bundled
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from course_utils import plotting
from course_utils.claims import claim
from course_utils.kan import FUNCTIONS, KAN, KANLayer, b_spline_basis
from course_utils.models import MLP, count_parameters
from course_utils.plotting import plot_dots, plot_seeds, show, style
from course_utils.reproducibility import make_generator, set_up
from course_utils.training import EarlyStopping, LiveLossPlot, fit
from course_utils.widgets import canvas, explorer, labelled

set_up(seed=0)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
plotting.use_theme()
SEEDS = (0, 1, 2)

# %% [markdown]
# ## 1. A theorem of 1957
#
# **Predict.** How many functions of *one* variable does it take, besides addition, to write down any continuous
# function of three variables?
#
# $$f(x_1,\dots,x_n)=\sum_{q=1}^{2n+1}\Phi_q\Big(\sum_{p=1}^{n}\varphi_{q,p}(x_p)\Big)$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $n$ | `widths[0]` | number of inputs |
# | $\varphi_{q,p}$ | first layer's edges | inner functions: one for each input $p$ and each sum $q$ |
# | $\Phi_q$ | second layer's edges | outer functions: one for each sum |
#
# That is $2n+1$ outer *plus* $n(2n+1)$ inner functions; deck 000 counts the outer ones alone. As a network it has the
# widths $[n, 2n+1, 1]$. The deck's example predicts a price from three columns. Can three rows tell us the functions?


# %%
def fit_all(model, x, y, steps=300):
    """Fit any model to all data at once by L-BFGS, at most so many steps; return the root of the mean squared error."""
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=steps, history_size=20, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return rmse(model, x, y)


@torch.no_grad()
def rmse(model, x, y):
    """Root of the mean squared error, in the target's unit."""
    return F.mse_loss(model(x), y).sqrt().item()


# %%
houses = torch.tensor([[2.0, 18, 25], [1, 6, 4], [2, 12, 35]])  # bedrooms, area, age
prices = torch.tensor([[1000.0], [500], [1200]])
low, high = houses.min(0).values, houses.max(0).values
new_house = torch.tensor([[2.0, 10, 10]])

networks = [KAN([3, 7, 1], generator=make_generator(seed)) for seed in range(5)]
errors = [fit_all(model, 2 * (houses - low) / (high - low) - 1, prices / 1000, 50) for model in networks]
answers = [1000 * model(2 * (new_house - low) / (high - low) - 1).item() for model in networks]
n_functions = sum(int(layer.active_edges.sum()) for layer in networks[0].layers)

# %%
print("a house of 2 bedrooms, area 10, age 10:", [round(answer) for answer in answers])
claim("Functions in the theorem's network for n = 3", n_functions, "==", 28, source="deck 000, corrected")
claim("Each of five such networks fits the three prices", np.array(errors) * 1000, "<", 0.1, source="this lesson")
claim("… and they differ on a new house by", max(answers) - min(answers), ">", 300, source="this lesson")

# %% [markdown]
# Seven outer functions and 21 inner ones. All five networks are right on the three rows, and they say between 543 and
# 1290 for the next house. The theorem says that such functions *exist* for a function known everywhere. It does not say
# that rows determine them, nor that they are smooth: the inner functions in its proof are so rough that no grid could
# draw them. So it is a name and an idea for KANs, not a guarantee. What carries over is the form.
#
# **Predict.** The simplest form has one outer function: $f=\Phi(\varphi_1(x_1)+\varphi_2(x_2))$, the deck's first
# formula for the price. Can it be the product $x_1x_2$ on $[-1,1]^2$? Think of logarithms, and of signs.

# %%
product = {1: [], 2: []}
for n_outer, seed in ((n_outer, seed) for n_outer in product for seed in SEEDS):
    generator = make_generator(seed)
    x, x_test = torch.rand(2, 500, 2, generator=generator) * 2 - 1
    model = KAN([2, n_outer, 1], generator=generator)
    fit_all(model, x, x.prod(1, keepdim=True), 250)
    product[n_outer].append(rmse(model, x_test, x_test.prod(1, keepdim=True)))

# %%
x_bar, y_bar = torch.rand(2, 100)
quarter_squares = ((x_bar + y_bar) ** 2 - (x_bar - y_bar) ** 2) / 4
claim("One outer function: test RMSE for x₁x₂", product[1], ">", 0.06, source="this lesson")
claim("Two outer functions: test RMSE", product[2], "<", 0.04, source="deck 000")
print("largest error of the quarter-squares rule:", (quarter_squares - x_bar * y_bar).abs().max().item())

# %% [markdown]
# One outer function fails: logarithms turn a product into a sum, but they need positive numbers. Two are enough, by
# a rule that multiplication tables once used: $xy=\frac14(x+y)^2-\frac14(x-y)^2$. Each sum feeds one square. That
# is the deck's general form, and why a layer needs several nodes.

# %% [markdown]
# ## 2. Functions from B-splines
#
# To *learn* a function we need numbers to learn. A spline is a sum of fixed bumps with learned heights. Degree 0 is a
# box on each interval of the grid. The rule of Cox and de Boor blends two neighbours into the next degree:
#
# $$B_{j,k}(x)=\frac{x-t_j}{t_{j+k}-t_j}\,B_{j,k-1}(x)+\frac{t_{j+k+1}-x}{t_{j+k+1}-t_{j+1}}\,B_{j+1,k-1}(x)$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $t_j$ | `knots` | ends of the grid's intervals, continued by $k$ on either side |
# | $k$ | `degree` | of the polynomial pieces; 3 is usual |
# | $G$ | `grid_size` | intervals of the grid; there are $G+k$ splines |
#
# **Predict.** On how many intervals is a spline of degree 3 not zero? What do all splines sum to?


# %%
def cox_de_boor(x, knots, degree):
    """All B-splines of one variable, (n, len(knots) - degree - 1), by the recursion."""
    basis = ((knots[:-1] <= x[:, None]) & (x[:, None] < knots[1:])).to(x.dtype)
    for k in range(1, degree + 1):
        rising = (x[:, None] - knots[: -k - 1]) / (knots[k:-1] - knots[: -k - 1])
        falling = (knots[k + 1 :] - x[:, None]) / (knots[k + 1 :] - knots[1:-k])
        basis = rising * basis[:, :-1] + falling * basis[:, 1:]
    return basis


# %%
def integer_knots(grid_size, degree):
    return torch.arange(-degree, grid_size + degree + 1, dtype=torch.get_default_dtype())


s = torch.linspace(0, 5, 401)[:-1]  # position, counted in intervals of a grid with 5
fig, axes = plt.subplots(1, 4, figsize=(11, 2.5), sharey=True)
differences, sums = [], []
for degree, ax in enumerate(axes):
    knots = integer_knots(5, degree)
    splines = cox_de_boor(s, knots, degree)
    scipy_splines = BSpline.design_matrix(s, knots, degree).toarray()
    differences.append(np.abs(splines.numpy() - scipy_splines).max())
    sums.append((splines.sum(1) - 1).abs().max().item())
    for color, spline in zip(plotting.sequence_colors(splines.shape[1]), splines.T, strict=True):
        ax.plot(s, np.where(spline > 0, spline, np.nan), color=color)
    ax.set(title=f"degree {degree}: {splines.shape[1]} splines", xlabel="x [intervals]")
axes[0].set_ylabel("value")
show(
    fig,
    alt="B-splines on a grid of five intervals. Degree 0 gives five boxes, degree 1 six triangles, degree 2 seven bumps "
    "of parabolas, degree 3 eight smooth bumps, each four intervals wide; the outer ones are cut off by the grid's ends.",
)
claim("Recursion = scipy's B-splines, degrees 0 to 3 (difference)", max(differences), "<", 1e-14, source="this lesson")
claim("At every point the splines sum to 1 (error)", max(sums), "<", 1e-14, source="this lesson")

# %% [markdown]
# **Read the figure.** Each degree is one interval wider and once more smooth: a cubic spreads over four intervals and
# has two continuous derivatives. Notice the number of splines, $G+k$: eight for five intervals of degree 3, because
# those at the ends look out.
#
# ### The same without recursion
#
# On a *uniform* grid all splines are one bump, shifted. One step of the recursion is then a moving average over one
# interval. Averaging a truncated power $(a-t)_+^{k-1}$ gives the difference of two powers that are one degree higher;
# after $k$ steps there are $k+2$ of them, with binomial weights:
#
# $$B_k(t)=\frac1{k!}\sum_{i=0}^{k+1}(-1)^i\binom{k+1}{i}\Big(\frac{k+1}{2}-i-|t|\Big)_+^k$$
#
# Here $t$ is the distance from the bump's centre in intervals, and $(\cdot)_+=\max(\cdot,0)$. Since $|t|\ge0$, the
# terms with $i\ge\frac{k+1}{2}$ are zero: two remain for a cubic. Is it the deck's bump, which comes in four pieces?


# %%
def bump(t, degree):
    """The B-spline around 0 on a grid of step 1, in closed form."""
    terms = range((degree + 2) // 2)
    powers = [((degree + 1) / 2 - i - t.abs()).clamp(min=0) ** degree for i in terms]
    signed = [(-1) ** i * math.comb(degree + 1, i) * power for i, power in zip(terms, powers, strict=True)]
    return sum(signed) / math.factorial(degree)


def deck_bump(x):
    """The cubic bump as deck 000 prints it; its left half mirrors the right one."""
    x = x.abs()
    return torch.where(x <= 1, x**3 / 2 - x**2 + 2 / 3, torch.where(x <= 2, -(x**3) / 6 + x**2 - 2 * x + 4 / 3, 0.0))


# %%
t = torch.linspace(-3, 3, 601)
pieces = (bump(t, 3) - deck_bump(t)).abs().max()
pairs = [(b_spline_basis(s[:, None], 5, k)[..., 0], cox_de_boor(s, integer_knots(5, k), k)) for k in (1, 2, 3, 4, 5)]
recursion = [(library - ours).abs().max() for library, ours in pairs]
closed = (pairs[2][0] - torch.stack([bump(s - j + 1, 3) for j in range(8)], dim=1)).abs().max()
claim("Closed form, degree 3 = the deck's four pieces (difference)", pieces, "<", 1e-14, source="deck 000")
claim("Library = closed form, degree 3 (difference)", closed, "<", 1e-14, source="this lesson")
claim("Library = recursion (difference)", recursion, "<", 1e-13, source="this lesson", over="degrees")

# %% [markdown]
# All agree to the last digits. The recursion makes $k$ passes over arrays of all splines; the closed form
# one subtraction and two powers. We return to what that saves.
#
# A spline function is a weighted sum, $\text{spline}(x)=\sum_i c_iB_i(x)$, the deck's formula. **Predict.** You move
# one coefficient of a cubic on ten intervals. Over which share of the grid does the curve change? And with 20 intervals?


# %%
def move_one(grid_size=10, degree=3, position=0.5, move=1.0):
    """A spline on [-1, 1] before and after one coefficient moves: x, bumps, coefficients, both curves, which one."""
    x = torch.linspace(-1, 1, 501)
    basis = b_spline_basis((x[:, None] + 1) / 2 * grid_size, grid_size, degree)[..., 0]
    coefficients = torch.sin(torch.linspace(-3, 3, grid_size + degree))
    before, index = basis @ coefficients, round(position * (grid_size + degree - 1))
    coefficients[index] += move
    return x, basis * coefficients, coefficients, before, basis @ coefficients, index


shares = {}
for grid_size in (10, 20):
    _, _, _, before, after, _ = move_one(grid_size)
    shares[grid_size] = (before != after).double().mean().item()
claim("Moving one of 13 coefficients changes this share of the curve", shares[10], "<=", 0.4, source="deck 000")
claim("… with twice the intervals", shares[20], "<=", 0.2, source="deck 000")


# %%
def explore(grid_size=10, degree=3, position=0.5, move=1.0):
    """Draw the spline before and after, over its bumps; a dot is a coefficient, at the middle of its bump."""
    x, bumps, coefficients, before, after, index = move_one(grid_size, degree, position, move)
    middles = -1 + 2 * (torch.arange(grid_size + degree) + (1 - degree) / 2) / grid_size
    fig, ax = canvas(7, 3.2)
    ax.plot(x, bumps, color="0.8", linewidth=1)
    ax.plot(x, before, "--", color=style(1)["color"], label="before")
    ax.plot(x, after, color=style(0)["color"], label="after")
    ax.plot(middles, coefficients, ".", color="0.45")
    ax.plot(middles[index], coefficients[index], "o", color=style(0)["color"])
    ax.vlines(np.linspace(-1, 1, grid_size + 1), -3.3, -3.0, color="0.3", linewidth=1)
    ax.set(xlabel="x (ticks: the grid; dots: coefficients)", ylabel="spline", xlim=(-1.25, 1.25), ylim=(-3.3, 3.3))
    ax.set_title(f"Coefficient {index} of {grid_size + degree} moved by {move:g}")
    ax.legend(loc="upper left")
    share = (before != after).double().mean().item()
    alt = f"A spline of degree {degree} on {grid_size} intervals changes on {share:.0%} of its range only."
    show(fig, alt, dpi=90)


grid = {"grid_size": labelled((2, 30), "intervals of the grid"), "degree": (1, 5)}
explorer(explore, **grid, position=labelled((0.0, 1.0, 0.1), "which coefficient"), move=(-2.0, 2.0, 0.1))

# %% [markdown]
# **Read the figure.** The grey bumps are $c_iB_i$, a dot is $c_i$, and the solid curve is the sum of the bumps. A move
# is felt on $k+1=4$ intervals and not at all elsewhere: 40% of ten, 20% of twenty. The dots pull the curve without
# lying on it, and those at the ends sit outside the grid. Splines are *local*, and much of what people hope of KANs
# hangs on that word. Keep it in mind for section 7.
#
# ## 3. From one edge to a network
#
# An edge adds a smooth base to its spline, so that it also works beyond the grid. A node sums its edges:
#
# $$\varphi_{ij}(x)=w_{ij}\,\text{silu}(x)+\sum_b c_{ibj}B_b(x),\qquad y_i=\sum_j\varphi_{ij}(x_j)$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $c_{ibj}$ | `coefficients` | height of bump $b$ on the edge from input $j$ to output $i$ |
# | $w_{ij}$ | `base_weight` | weight of the base, silu$(x)=x/(1+e^{-x})$ |
#
# There is no bias and no activation in the node. Let us compute a layer edge by edge and ask whether the library's
# single matrix product gives the same.


# %%
def edge_by_edge(layer, x):
    """Output of a layer as the formula says it: a loop over all edges, each with its own recursion."""
    output = torch.zeros(len(x), layer.out_features)
    for i in range(layer.out_features):
        for j in range(layer.in_features):
            s = (x[:, j] - layer.grid_low[j]) / layer.grid_step[j]
            basis = cox_de_boor(s, integer_knots(layer.grid_size, layer.degree), layer.degree)
            output[:, i] += layer.base_weight[i, j] * F.silu(x[:, j]) + basis @ layer.coefficients[i, :, j]
    return output


# %%
layer = KANLayer(3, 4, grid_size=6, generator=make_generator(0))
x = torch.rand(100, 3, generator=make_generator(1)) * 2 - 1
print(layer, "with parameters", {name: tuple(p.shape) for name, p in layer.named_parameters()})
difference = (edge_by_edge(layer, x) - layer(x)).detach().abs().max()
claim("Edge by edge = the library's layer (difference)", difference, "<", 1e-13, source="this lesson")
claim("Parameters: 12 edges with G + k + 1 = 10 each", count_parameters(layer), "==", 120, source="this lesson")

# %% [markdown]
# Now both networks of deck 000 side by side:
#
# | | MLP | KAN |
# |---|---|---|
# | theorem | universal approximation | Kolmogorov-Arnold representation |
# | shallow | $f(\mathbf x)\approx\sum_i a_i\,\sigma(\mathbf w_i\cdot\mathbf x+b_i)$ | $f(\mathbf x)=\sum_q\Phi_q\big(\sum_p\varphi_{q,p}(x_p)\big)$ |
# | deep | $\mathbf W_3\circ\sigma_2\circ\mathbf W_2\circ\sigma_1\circ\mathbf W_1$ | $\mathbf\Phi_3\circ\mathbf\Phi_2\circ\mathbf\Phi_1$ |
# | on an edge | one number | a function with $G+k+1$ numbers |
# | in a node | a sum, a bias, a fixed $\sigma$ | a sum |
# | numbers in a layer | $n_\text{in}n_\text{out}+n_\text{out}$ | $n_\text{in}n_\text{out}(G+k+1)$ |
#
# Read the "=" in the KAN's shallow row with care: with splines it becomes "≈" as well. And an edge costs nine numbers
# at $G=5$, so a KAN with as many *parameters* is much narrower. Only that comparison is fair.
#
# **Predict.** The paper's favourite target, $\exp(\sin\pi x_1+x_2^2)$, 1,000 points, about 150 parameters each. Which of
# four wins: shallow or deep, MLP or KAN?


# %%
def target(x):
    """exp(sin πx₁ + x₂²): smooth, and a composition of functions of one variable."""
    return torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)


def mlp_like(kan, depth, activation, seed):
    """An MLP with ``depth`` hidden layers of equal width and about as many parameters as the KAN."""
    n_in, n_out = kan.widths[0], kan.widths[-1]
    sizes = {width: count_parameters(MLP(n_in, [width] * depth, n_out)) for width in range(1, 200)}
    width = min(sizes, key=lambda width: abs(sizes[width] - count_parameters(kan)))
    torch.manual_seed(seed)
    return MLP(n_in, [width] * depth, n_out, activation=activation)


def sample(function, n_features, seed, n=1000, noise=0.0):
    """Training and test points in [-1, 1]ⁿ with values in units of their standard deviation; noise on the first."""
    generator = make_generator(seed)
    x, x_test = torch.rand(2, max(n, 1000), n_features, generator=generator) * 2 - 1
    scale = function(x_test).std()
    y, y_test = function(x) / scale, function(x_test) / scale
    return (x[:n], y[:n] + noise * torch.randn(n, 1, generator=generator)), (x_test, y_test)


side_by_side, sizes = {}, {}
for seed in SEEDS:
    train, test = sample(target, 2, seed)
    shallow, deep = (KAN(widths, generator=make_generator(seed)) for widths in ([2, 5, 1], [2, 3, 3, 1]))
    models = {
        "shallow MLP": mlp_like(shallow, 1, "tanh", seed),
        "deep MLP": mlp_like(deep, 2, "tanh", seed),
        "shallow KAN [2, 5, 1]": shallow,
        "deep KAN [2, 3, 3, 1]": deep,
    }
    for name, model in models.items():
        fit_all(model, *train, 200)
        sizes[name] = count_parameters(model)
        side_by_side.setdefault(name, []).append(rmse(model, *test))
gain = np.array(side_by_side["shallow MLP"]) / np.array(side_by_side["shallow KAN [2, 5, 1]"])
print("parameters:", sizes)

# %%
fig, ax = plt.subplots(figsize=(7, 2.3))
plot_dots(ax, side_by_side, xlabel="test RMSE / standard deviation of the target", means=".4f")
ax.set(xscale="log", xlim=(2e-3, 0.1), xticks=[0.003, 0.01, 0.03, 0.1], xticklabels=[0.003, 0.01, 0.03, 0.1])
ax.minorticks_off()
show(
    fig,
    alt="Test errors of shallow and deep MLPs and KANs of equal size on a smooth composition. The shallow KAN lies around "
    "0.004, two of three deep KANs at 0.005 and one at 0.04, the deep MLP around 0.016, the shallow MLP around 0.06.",
)
claim("Shallow, equal size: the MLP's error / the KAN's", gain, ">", 2.5, source="deck 000")

# %% [markdown]
# **Read the figure.** At equal size the shallow KAN is ahead: 12 to 26 times more accurate than the shallow MLP, and four
# times on average than the deep one. One deep KAN of three got stuck at 0.04: more layers, more ways to go wrong. Why
# are KANs good here? The target *is* one function of a sum of two functions, and an edge can take each of those shapes,
# while an MLP builds them from many tanh steps. Section 7 asks what happens when the target is not made for it.
#
# ## 4. A finer grid, without starting over
#
# An MLP that is too small must be replaced. A spline can be *refined*: cut each interval in two. Every old bump is
# exactly a sum of smaller ones (for a cubic with weights 1, 4, 6, 4, 1, divided by 8), so the function stays and only
# gains freedom.
#
# **Predict.** 300 points of section 3's target with very little noise (0.0003), a KAN [2, 1, 1], grids of 3, 6, 12, 24
# and 48 intervals; the last one has 156 parameters. What will the training error do, and what the validation error?

# %%
ladder, refined, chosen = [], [], []
for seed in SEEDS:
    train, val = sample(target, 2, seed, n=300, noise=0.0003)
    model = KAN([2, 1, 1], grid_size=3, generator=make_generator(seed))
    before = model(val[0]).detach()
    report = model.extend_grid(6)
    refined.append((model(val[0]) - before).detach().abs().max())
    model = KAN([2, 1, 1], grid_size=3, generator=make_generator(seed))
    history = model.fit_lm(*train, val=val, grids=(3, 6, 12, 24, 48), max_steps=25, progress=False)
    ladder.append(pd.DataFrame({name: getattr(history, name) for name in ("step", "grid_size", "loss", "val_loss")}))
    chosen.append(history.grid_size[history.restored])
print(report, "\ngrids chosen on the validation data:", chosen)
claim("Cutting every interval in two changes the function by", refined, "<", 1e-12, source="deck 000")

# %%
fig, axes = plt.subplots(1, 3, figsize=(11, 3), sharey=True)
for ax, run, seed in zip(axes, ladder, SEEDS, strict=True):
    ax.semilogy(run["step"], run["loss"] ** 0.5, **plotting.TRAIN, label="training")
    ax.semilogy(run["step"], run["val_loss"] ** 0.5, **plotting.VAL, label="validation")
    for grid_size, stage in run.groupby("grid_size"):
        ax.axvline(stage["step"].iloc[-1], color="0.8", linewidth=1)
        ax.text(stage["step"].mean(), 3.5, grid_size, ha="center", fontsize=9)
    ax.set(xlabel="Levenberg-Marquardt step", ylim=(8e-5, 6))
    ax.set_title(f"seed {seed}", pad=12)
axes[0].set_ylabel("RMSE / standard deviation")
axes[2].legend(loc="center", bbox_to_anchor=(0.5, 0.62))
show(
    fig,
    alt="Training and validation error of three runs over grids of 3 to 48 intervals. Both fall in stairs up to 12 intervals; "
    "then the training error falls a little more, while the validation error jumps up.",
)
stairs = np.array([run.groupby("grid_size")[["loss", "val_loss"]].last() ** 0.5 for run in ladder])  # (seed, grid, 2)
fall, gap = stairs[:, 0, 1] / stairs[:, 2, 1], stairs[:, 4, 1] / stairs[:, 4, 0]
claim("From 3 to 12 intervals the validation error falls by the factor", fall, ">", 4, source="deck 000")
claim("At 48 intervals: validation error / training error", gap, ">", 5, source="this lesson")

# %% [markdown]
# **Read the figure.** A refinement is a stair: one or two steps, and the error is down by a factor of five or six, because
# nothing has to be learned anew. Notice where the stairs end: at 12 intervals, when the training error reaches the
# noise. Beyond, the splines follow the noise, and between the points the validation error jumps up, to 30 times the
# training error and more. The fit keeps the weights that were best on the validation data. So deck 000's "without
# retraining" means: from where it stood, and only as far as the *data* allow.
#
# The method here is Levenberg-Marquardt. Near a solution the residual is almost linear in the parameters, so each step
# solves a linear least-squares problem for all of them at once. That suits a few hundred parameters, not a million.
#
# ## 5. How fast does the error fall?
#
# Splines of degree $k$ approximate a smooth function with an error of the order $h^{k+1}$, where $h$ is the length of an
# interval. The paper carries that over to the network: error $\propto G^{-(k+1)}$, whatever the number of inputs.
#
# **Predict.** On logarithmic axes, which slope do you expect for degrees 1, 2 and 3? We take the smallest network that
# can be exact, [2, 1, 1], and no noise. Test points lie a little inside the square, where no spline is extrapolated.

# %%
GRIDS = (4, 8, 16, 32)
falling = {}
for degree in (1, 2, 3):
    for seed in SEEDS:
        generator = make_generator(seed)
        x, x_test = torch.rand(2, 1000, 2, generator=generator) * 2 - 1
        model = KAN([2, 1, 1], grid_size=4, degree=degree, generator=generator)
        errors = []
        for grid_size in GRIDS:
            model.fit_lm(x, target(x), grids=(grid_size,), max_steps=25, progress=False)
            errors.append(rmse(model, 0.95 * x_test, target(0.95 * x_test)))
        falling.setdefault(degree, []).append(errors)
slopes = {degree: np.polyfit(np.log(GRIDS), np.log(runs).T, 1)[0] for degree, runs in falling.items()}

# %%
fig, ax = plt.subplots(figsize=(7, 3.2))
for index, (degree, runs) in enumerate(falling.items()):
    plot_seeds(ax, GRIDS, runs, label=f"degree {degree}: slope {slopes[degree].mean():.2f}", **style(index))
ax.set(xscale="log", yscale="log", xlabel="intervals G", ylabel="test RMSE", xticks=GRIDS, xticklabels=GRIDS)
ax.minorticks_off()
plotting.label_line_ends(ax)
show(fig, alt="Test error against the number of grid intervals on logarithmic axes. Three straight lines: the higher the degree "
     "of the splines, the steeper; degree 3 falls from 0.013 to 0.000003.")  # fmt: skip
error = [abs(slope + degree + 1) for degree, values in slopes.items() for slope in values]
claim("Cubic splines: slope of the error", slopes[3], "<", -3.6, source="arXiv:2404.19756")
claim("Degrees 1 to 3: difference of the slope from -(k + 1)", error, "<", 0.4, source="this lesson", over="runs")

# %% [markdown]
# **Read the figure.** Twice the intervals, a sixteenth of the error: the slope of degree 3 is close to $-4$, from 0.013
# to 0.000003. Three conditions are hidden in the law. The target must be smooth; it must *have* the network's form with
# smooth inner functions; and the optimizer must get there. Then the number of inputs does not appear in the exponent.
# That is what "beating the curse of dimensionality" in deck 000 means: for such targets, not in general.
#
# ## 6. From a network to a formula
#
# **Predict.** Start from [2, 5, 1], which has 15 edges; the target needs three. Can training find out which?
#
# 1. *Sparsify*: add a penalty on the size of the edges (the standard deviation of $\varphi_{ij}$ over the data) and on
#    their entropy, which prefers few large edges to many small ones,
# 2. *prune*: remove edges, and nodes, whose share is below 3%,
# 3. *name*: for each remaining edge find $c\,f(ax+b)+d$ with $f$ from a list; take the simplest $f$ that is nearly as
#    good as the best, and refit all constants.


# %%
def sparse_network(function, seed, noise=0.0, strength=0.03):
    """A KAN with all edges after step 1, what step 2 removed, the KAN after step 2, and the data."""
    generator = make_generator(seed)
    x, x_test = torch.rand(2, 500, 2, generator=generator) * 2 - 1
    y = function(x) + noise * torch.randn(500, 1, generator=generator)
    model = KAN([2, 5, 1], grid_size=3, generator=generator)
    penalty = partial(KAN.sparsity_penalty, l1=strength, entropy=strength)
    model.fit_lbfgs(x, y, grids=(3,), steps=100, penalty=penalty, progress=False)
    full = copy.deepcopy(model)
    removed = model.prune(x)
    model.fit_lm(x, y, grids=(3,) if noise else (3, 6, 12), max_steps=15, progress=False)
    return full, removed, model, (x, y), (x_test, function(x_test))


full, removed, model, (x, y), test = sparse_network(target, seed=0)
print(removed)

# %%
show(
    full.plot(x, names=["$x_1$", "$x_2$"]),
    alt="The network [2, 5, 1] after training with the penalty, each edge with its curve: three edges are dark, the others pale.",
)
show(
    model.plot(x, names=["$x_1$", "$x_2$"]),
    alt="The pruned network: a sine on the edge from the first input, a parabola on that from the second, an exponential on top.",
)

# %% [markdown]
# **Read the figures.** Each box is the learned function of one edge, dark if it matters. The second picture can be read
# like a formula from bottom to top: a sine of $x_1$ plus a parabola of $x_2$, and of the sum an exponential. This is
# what *interpretable* means here: three curves to look at instead of a matrix. It took a penalty, a threshold, and a
# target that is that simple.
#
# **Predict.** Which functions will the list offer for the last edge, next to the exponential?

# %%
print(model.auto_symbolic(x, y))
print("formula:", model.symbolic_formula(digits=4))
inputs = sympy.symbols("x1 x2")
as_function = sympy.lambdify(inputs, model.symbolic_formula(), "numpy")
difference = np.abs(as_function(*test[0].T.numpy()) - model(test[0]).detach().numpy()[:, 0]).max()
claim("The formula equals the network on new points (difference)", difference, "<", 1e-12, source="this lesson")

# %%
without_sine = [function for name, function in FUNCTIONS.items() if name != "sin"]
found = {}
for seed, noise in itertools.product(SEEDS, (0, 0.1)):
    _, _, splines, data, test = sparse_network(target, seed, noise)
    cases = [("noise 0.1", None)] if noise else [("exact", None), ("no sine in the list", without_sine)]
    for name, library in cases:
        model = copy.deepcopy(splines)
        model.auto_symbolic(*data, library=library, min_r2=0, max_steps=60)
        errors = rmse(splines, *test), rmse(model, *test)
        found.setdefault(name, []).append(errors)
        print(f"{name}: splines {errors[0]:.1e}, formula {errors[1]:.1e}:", model.symbolic_formula(digits=3))
found = {name: np.array(errors) for name, errors in found.items()}
claim("Exact data: test RMSE of the formula", found["exact"][:, 1], "<", 1e-12, source="deck 000")
claim("Noise 0.1: test RMSE against the truth", found["noise 0.1"][:, 1], "<", 0.04, source="this lesson")
worse = found["no sine in the list"][:, 1] / found["no sine in the list"][:, 0]
claim("No sine in the list: error of the formula / of the splines", worse, ">", 20, source="this lesson")

# %% [markdown]
# The output lists each edge's best function and the runner-up. For the last edge $\tanh$ fits even *better* than the
# exponential, by a hair; for the parabola a piece of a wide sine does as well. Simplicity decided.
#
# With exact data the refit brings the error down to rounding, $10^{-15}$: constants of the *right* functions remove what
# splines cannot. With noise all three formulas predict well, but one has a cosine in the parabola's place: on
# $[-1,1]$ they are nearly the same curve. And if the sine is missing from the list? A formula comes out all the same, a
# thousand times worse than the splines. So a formula is a hypothesis. Compare its error with that of the splines.
# (The option `min_r2=0` asked for a formula at any price; by default an edge that nothing fits stays a spline.)
#
# ## 7. Six claims, measured
#
# ### "Ten times slower"
#
# Deck 000 lists "usually 10x slower than MLPs at the same numbers of params" and "different activation functions cannot
# leverage batch computation". **Predict.** We compute the same layer in three ways: edge by edge, by the recursion for
# all inputs at once, and in closed form. How much time does each take against an MLP of the same size?


# %%
def all_at_once(layer, x):
    """The recursion for all inputs in one go, then one matrix product."""
    s = (x - layer.grid_low) / layer.grid_step
    basis = cox_de_boor(s.flatten(), integer_knots(layer.grid_size, layer.degree), layer.degree)
    spline = basis.view(len(x), -1) @ layer.coefficients.transpose(1, 2).flatten(1).T
    return spline + F.silu(x) @ layer.base_weight.T


# %%
def milliseconds(function, repeats):
    """Median time of forward and backward together."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function().square().mean().backward()
        times.append(1000 * (time.perf_counter() - start))
    return np.median(times)


x = torch.rand(256, 16, generator=make_generator(0)) * 2 - 1
layer = KANLayer(16, 16, generator=make_generator(0))
mlp = MLP(16, [round((count_parameters(layer) - 16) / 33)], 16, activation="silu")
ways = {
    "MLP": (lambda: mlp(x), 100),
    "closed form": (lambda: layer(x), 100),
    "recursion, all at once": (lambda: all_at_once(layer, x), 50),
    "edge by edge": (lambda: edge_by_edge(layer, x), 2),
}
took = {name: milliseconds(*way) for name, way in ways.items()}
print("time / the MLP's:", {name: float(f"{value / took['MLP']:.2g}") for name, value in took.items()})
apart = max((function() - layer(x)).detach().abs().max() for function, _ in list(ways.values())[2:])
claim("All three ways compute the same layer (difference)", apart, "<", 1e-12, source="this lesson")

# %% [markdown]
# The same mathematics, and times that differ more than a hundredfold. The loop over edges is slow because of the loop;
# the recursion, because it passes over many large arrays. So the factor is a property of an implementation. All edges
# of an input share one basis, so the layer *is* one matrix product that batches as well as any. A small factor against
# the MLP remains, two to three on our machine, for computing the basis. Times depend on the machine, which is why none
# is asserted here; `make bench` compares with the published packages in one run.
#
# ### "Parameter efficient"
#
# Section 3 confirmed it for a smooth composition. **Predict** two other targets. *Kinks*: the larger of two absolute
# values. *Waves*: 40 sines in random directions of an eight-dimensional space.

# %%
generator = make_generator(99)
directions, phases = torch.randn(8, 40, generator=generator), 6.28 * torch.rand(40, generator=generator)
heights = torch.randn(40, 1, generator=generator)
TARGETS = {
    "kinks": (lambda x: (x @ torch.tensor([[1, 0.4], [-0.3, 1]])).abs().amax(1, keepdim=True), [2, 5, 1], 5),
    "waves, 8 inputs": (lambda x: torch.sin(x @ directions + phases) @ heights, [8, 9, 1], 1),
}
efficient = {}  # target → model → errors
for (name, (function, widths, grid_size)), seed in itertools.product(TARGETS.items(), SEEDS):
    train, test = sample(function, widths[0], seed)
    kan = KAN(widths, grid_size=grid_size, generator=make_generator(seed))
    rivals = {"KAN": kan, "MLP, tanh": mlp_like(kan, 1, "tanh", seed), "MLP, ReLU": mlp_like(kan, 1, "relu", seed)}
    for kind, model in rivals.items():
        fit_all(model, *train, 200)
        efficient.setdefault(name, {}).setdefault(kind, []).append(rmse(model, *test))
ratio = {name: np.array(errors["KAN"]) / np.minimum(*list(errors.values())[1:]) for name, errors in efficient.items()}

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 2), sharey=True, sharex=True)
for ax, (name, errors), bound in zip(axes, efficient.items(), (10, 1.3), strict=True):
    plot_dots(ax, errors, xlabel="test RMSE / standard deviation", means="")
    ax.set(title=name, xscale="log")
    claim(f"{name}: the KAN's error / the better MLP's", ratio[name], ">", bound, source="this lesson")
show(
    fig,
    alt="Test errors of a KAN and two MLPs of equal size on two targets. On the kinks the ReLU network is better by a "
    "factor of a hundred; on the waves both MLPs are ahead of the KAN.",
)

# %% [markdown]
# **Read the figure.** Each network wins on targets of its own kind. The kinks are made of ReLUs, and the ReLU network is
# ahead by a factor of 50 to 300. The waves are sines of *sums*, and an MLP's first layer makes sums, while a KAN must
# spend a function on every edge to do so. (For the waves we tried four shapes of KAN with as many parameters; this one
# was the best.) "Efficient" is a statement about the target, not about the network.
#
# ### "No catastrophic forgetting"
#
# The paper's experiment: five peaks side by side, shown one after the other. Splines are local, so new data should not
# touch old peaks. **Predict** for five networks: the plain [1, 1] without base; with the base; [1, 5, 1]; the plain one
# with the grid updated to each new part; an MLP.


# %%
def peaks(x):
    return sum(torch.exp(-(((x - centre) / 0.06) ** 2)) for centre in torch.linspace(-0.8, 0.8, 5))


def five_tasks(model, update=False):
    """Show the peaks one after the other; the model's curve after the last, and its error over the whole range."""
    for task in range(5):
        x = torch.linspace(-1 + 0.4 * task, -0.6 + 0.4 * task, 300)[:, None]
        if update:
            model.update_grid(x)
        fit_all(model, x, peaks(x), 40)
    return model(line).detach(), rmse(model, line, peaks(line))


line = torch.linspace(-1, 1, 801)[:, None]
LEARNERS = {
    "[1, 1], no base": lambda seed: (KAN([1, 1], grid_size=200, base=None, generator=make_generator(seed)),),
    "[1, 1] with base": lambda seed: (KAN([1, 1], grid_size=200, generator=make_generator(seed)),),
    "[1, 5, 1], no base": lambda seed: (KAN([1, 5, 1], grid_size=50, base=None, generator=make_generator(seed)),),
    "[1, 1], grid updated": lambda seed: (KAN([1, 1], grid_size=200, base=None, generator=make_generator(seed)), True),
    "MLP": lambda seed: (mlp_like(KAN([1, 1], grid_size=200), 1, "tanh", seed),),
}
curves = {name: [five_tasks(*make(seed)) for seed in SEEDS] for name, make in LEARNERS.items()}

# %%
fig, axes = plt.subplots(1, 5, figsize=(12, 2.4), sharey=True)
for ax, (name, runs) in zip(axes, curves.items(), strict=True):
    ax.plot(line, peaks(line), color="0.75", linewidth=4)
    ax.plot(line, runs[0][0], color=style(0)["color"], linewidth=1.5)
    ax.set(title=name, xlabel="x", ylim=(-0.6, 1.3))
    ax.title.set_fontsize(10)
axes[0].set_ylabel("after the fifth peak")
show(
    fig,
    alt="Curves after five peaks learned in sequence, over the true peaks in grey. Only the network [1, 1] without base shows "
    "all five; with a base, with a hidden layer, with updated grids or as an MLP the earlier peaks are lost or bent.",
)
kept = curves.pop("[1, 1], no base")
claim(
    "[1, 1] without base, fixed grid: RMSE after five tasks", [error for _, error in kept], "<", 1e-3, source="deck 000"
)
lost = [error for runs in curves.values() for _, error in runs]
claim("The four others: RMSE (of peaks of height 1)", lost, ">", 0.04, source="this lesson", over="runs")

# %% [markdown]
# **Read the figure.** The promise holds for one network: a single spline with a fixed grid. There nothing is
# shared. A base weight is shared by the whole range; a hidden layer maps far-away inputs to the same hidden values; a
# grid that moves with the data forgets by construction. So locality is a property of *one spline*, not of a network of
# them. And with classes instead of places? First digits 0 to 4, then 5 to 9.

# %%
X, y = bundled.load_digits(return_X_y=True)
X, y = torch.tensor(X / 8 - 1).float(), torch.tensor(y)  # single precision is enough from here on
early, remembered = y < 5, {"KAN": [], "MLP": []}
for kind, seed in itertools.product(remembered, SEEDS):
    kan = KAN([64, 10, 10], grid_size=3, generator=make_generator(seed))
    model = (kan if kind == "KAN" else mlp_like(kan, 1, "silu", seed)).float()
    for part in (early, ~early):
        adam = torch.optim.Adam(model.parameters(), lr=0.003)
        fit(model, (X[part], y[part]), loss_fn=F.cross_entropy, optimizer=adam, max_epochs=10, seed=seed)
    remembered[kind].append((model(X[early]).argmax(1) == y[early]).double().mean().item())
for kind, accuracy in remembered.items():
    claim(f"{kind}: accuracy on digits 0 to 4 after learning 5 to 9", accuracy, "<", 0.2, source="arXiv:2407.16674")

# %% [markdown]
# Both forget everything, although the same images are still to be classified. Yu and others (arXiv:2407.16674) report
# the same, and that KANs forget even more.
#
# ### "Potential overfit"
#
# That one deck 000 lists among the drawbacks. **Predict.** 100 points of section 3's target with noise of 0.1 standard
# deviations. What do finer grids do to the test error, and what an MLP that grows as much?

# %%
noisy = {}
for grid_size, seed in itertools.product((2, 5, 20), SEEDS):
    train, test = sample(target, 2, seed, n=100, noise=0.1)
    kan = KAN([2, 5, 1], grid_size=grid_size, generator=make_generator(seed))
    for kind, model in {"KAN": kan, "MLP": mlp_like(kan, 2, "tanh", seed)}.items():
        noisy[kind, grid_size, seed] = fit_all(model, *train, 150), rmse(model, *test)
noisy = np.array(list(noisy.values())).reshape(3, 3, 2, 2)  # grid, seed, kind, train or test

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True)
numbers = [15 * (grid_size + 4) for grid_size in (2, 5, 20)]
titles = ("KAN [2, 5, 1], grids of 2 to 20", "MLP of equal size")
for ax, title, runs in zip(axes, titles, np.moveaxis(noisy, 2, 0), strict=True):
    plot_seeds(ax, numbers, runs[..., 0].T, label="training", marker="o", **plotting.TRAIN)
    plot_seeds(ax, numbers, runs[..., 1].T, label="test", marker="s", **plotting.VAL)
    ax.axhline(0.1, color="0.5", linestyle=":", linewidth=1)
    ax.set(xlabel="parameters", xscale="log", xticks=numbers, xticklabels=numbers, yscale="log", ylim=(1e-3, 3))
    ax.set_title(title)
    ax.minorticks_off()
    plotting.label_line_ends(ax)
axes[0].set_ylabel("RMSE (dotted: the noise)")
show(
    fig,
    alt="Training and test error against the number of parameters with 100 noisy points. The KAN's training error falls to "
    "zero and its test error climbs from 0.1 to about 0.5; the MLP's errors change little.",
)
(coarse, _), (fine, mlp) = noisy[0, :, :, 1].T, noisy[2, :, :, 1].T  # test errors
claim("KAN: test error at grid 20 / at grid 2", fine / coarse, ">", 2.5, source="deck 000")
claim("At 360 parameters: the KAN's test error / the MLP's", fine / mlp, ">", 1.8, source="this lesson")
claim("KAN at grid 20: error on the noisy training points", noisy[2, :, 0, 0], "<", 0.02, source="deck 000")

# %% [markdown]
# **Read the figure.** With two intervals the KAN smooths; with twenty it goes through every noisy point and is four
# times worse in between, since each bump sees only a handful of points. An MLP of the same size is not *forced* to be
# smooth either, but from small weights it finds a smooth solution in these 150 steps. The grid size is a KAN's
# regularizer: choose it by validation.
#
# ### "Lack of testing in real-world data sets"
#
# So let us test. Digits, breast cancer and diabetes, five random splits each; the epoch is chosen on a validation part.
# The MLP has as many parameters. **Predict.** Who wins, by how much? And where does a linear model stand? The first of
# the 45 runs is drawn while it trains, until early stopping ends it.


# %%
def split_table(name, seed):
    """Training, validation and test part; columns standardized on the first and cut off at 2.5."""
    X, y = getattr(bundled, f"load_{name}")(return_X_y=True)
    rest, test = train_test_split(np.arange(len(y)), test_size=0.25, random_state=seed)
    train, val = train_test_split(rest, test_size=0.25, random_state=seed)
    scale = np.where(X[train].std(0) > 0, X[train].std(0), 1)
    Z = np.clip((X - X[train].mean(0)) / scale, -2.5, 2.5)
    if name == "diabetes":
        y = ((y - y[train].mean()) / y[train].std())[:, None]
    y = torch.tensor(y, dtype=torch.float32 if name == "diabetes" else torch.int64)
    return [(torch.tensor(Z[rows]).float(), y[rows]) for rows in (train, val, test)]


def score(output, y):
    """Accuracy of logits, or R² of predictions."""
    if y.ndim == 1:
        return (output.argmax(1) == y).float().mean().item()
    return 1 - ((output - y).square().mean() / y.var(correction=0)).item()


TABLES = {"digits": [64, 10, 10], "breast_cancer": [30, 8, 2], "diabetes": [10, 5, 1]}
tables = {name: {"KAN": [], "MLP": [], "linear": []} for name in TABLES}
for (name, widths), seed in itertools.product(TABLES.items(), range(5)):
    train, val, test = split_table(name, seed)
    kan = KAN(widths, grid_size=3, grid_range=(-2.5, 2.5), generator=make_generator(seed))
    models = {"KAN": kan, "MLP": mlp_like(kan, 1, "silu", seed), "linear": MLP(widths[0], [], widths[-1])}
    for kind, model in models.items():
        adam = torch.optim.Adam(model.float().parameters(), lr=0.01)
        loss_fn, stop = (F.mse_loss if name == "diabetes" else F.cross_entropy), EarlyStopping(patience=6)
        watch = [LiveLossPlot(every=3)] if (name, seed, kind) == ("digits", 0, "KAN") else []  # the first of 45 runs
        how = {"max_epochs": 50, "callbacks": [stop, *watch], "seed": seed}
        fit(model, train, loss_fn=loss_fn, optimizer=adam, val=val, **how)
        tables[name][kind].append(score(model(test[0]).detach(), test[1]))
ahead = [np.mean(scores["KAN"]) - np.mean(scores["MLP"]) for scores in tables.values()]

# %%
fig, axes = plt.subplots(1, 3, figsize=(11, 2.2), sharey=True)
for ax, (name, scores) in zip(axes, tables.items(), strict=True):
    plot_dots(ax, scores, xlabel="R²" if name == "diabetes" else "accuracy", means=".3f")
    ax.set_title(name.replace("_", " "))
fig.get_layout_engine().set(wspace=0.12)
show(
    fig,
    alt="Test scores on five splits of three tables. The dots of the KAN, the MLP and the linear model overlap on all three; "
    "the MLP's mean is highest on digits and diabetes, the linear model's on breast cancer.",
)
claim("Mean score, KAN minus MLP of the same size", ahead, "<", 0.02, source="this lesson", over="tables")

# %% [markdown]
# **Read the figure.** The KAN wins nowhere. On digits and diabetes the MLP's mean is ahead by 0.015 and 0.03, within the
# spread of the splits; on breast cancer they are equal. And notice the third row: a linear model is level with the KAN
# on all three. For ordinary tables a KAN is no cure, and little harm.
#
# ### "A fairer comparison"
#
# Yu, Yu and Wang (arXiv:2407.16674) compared both at equal parameters and equal operations on many tasks. In our words:
# MLPs are ahead in vision, language, audio and ordinary machine learning; KANs on formulas, and there because of their
# splines: an MLP with learned splines as activations does as well on formulas. So the advantage lies in the *curve*, not
# in where it sits. Our runs agree where they can speak: formulas yes, tables no.

# %% [markdown]
# ## Should I use a KAN? The chart, revised
#
# Deck 000 shows the paper's decision chart. Here are its questions with what we measured:
#
# | question | the chart of 2024 | after this lesson |
# |---|---|---|
# | target a smooth composition of few variables? | KAN | KAN: four times more accurate than a deep MLP of equal size (3), slope −4 (5) |
# | target complicated? | KAN | depends on the kind: kinks and waves went to the MLP (7) |
# | learning in sequence? | KAN | neither; one spline without base and with a fixed grid is the exception (7) |
# | few dimensions, a formula wanted? | KAN | KAN, and check the formula against the splines (6) |
# | many dimensions, understanding wanted? | either is hard | either is hard: 15 edges can be read, 5,000 cannot |
# | small model? | KAN | only for smooth compositions (7) |
# | fast training? | MLP | MLP; but the factor is the implementation's: two to three here, not ten (7) |
# | little noisy data? | – | coarse grid, chosen by validation, or an MLP (7) |
# | an ordinary table? | – | no difference found; begin with what lesson 07 recommends |

# %% [markdown]
# ## Exercises
#
# Eight exercises, easy ones first. Each check answers at once and says what is wrong; nothing is graded. The hints are
# folded: try first. Tensors are in double precision, as everywhere in this lesson.

# %%
from course_utils.homework import lesson_08, progress
from course_utils.homework.lesson_08 import (
    check_best_scale,
    check_blend,
    check_edge_shares,
    check_error_slope,
    check_kan_parameters,
    check_local_enough,
    check_number_of_functions,
    check_refine,
)

# %% [markdown]
# ### Exercise 8.1. How many functions ★ (3 min)
#
# Predict: how many functions of one variable, inner and outer together, stand in the theorem's formula for *five*
# variables?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Every sum $q$ has one outer function. How many sums are there? And what stands inside each of them?
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# Count the edges of the network with the widths $[n, 2n+1, 1]$.
# </details>

# %%
functions_for_five = ...  # a number
### BEGIN SOLUTION
functions_for_five = 11 + 5 * 11
### END SOLUTION

# %%
check_number_of_functions(functions_for_five)

# %% [markdown]
# ### Exercise 8.2. How many numbers ★ (6 min)
#
# A comparison of KAN and MLP is fair at equal numbers of parameters. Return how many parameters a KAN of these widths has;
# `base` says whether its edges have a base weight. **Predict:** how many has `[64, 10, 10]` with $G=k=3$, against 760 of
# an MLP of these widths?
#
# <details><summary>Hint 1: a nudge</summary>
#
# How many edges has a layer? And how many splines has a grid of $G$ intervals: $G$, or more?
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# Sum over neighbouring widths of $n_\text{in}n_\text{out}$, times the numbers on one edge. `True` counts as 1 in a sum.
# </details>


# %%
def kan_parameters(widths, grid_size, degree, base):
    """widths: list such as [2, 5, 1]; base: bool. Return an integer."""
    ### BEGIN SOLUTION
    n_edges = sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))
    return n_edges * (grid_size + degree + base)
    ### END SOLUTION


# %%
check_kan_parameters(kan_parameters)

# %% [markdown]
# ### Exercise 8.3. Blending neighbours ★★ (15 min)
#
# Section 2's recursion wants different knots. Many packages repeat the first and the last knot instead of going on beyond
# the grid; then some denominators are 0. The rule: a term with the denominator 0 counts as 0. Write one step of Cox and de
# Boor with it, from the splines of degree $k-1$ to those of degree $k$. **Predict:** which splines have such terms?
#
# <details><summary>Hint 1: a nudge</summary>
#
# A loop over $j$ is fine. Two terms for each new spline: one with its left neighbour below, one with the right.
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# For each `j` start with zeros of the shape of `x`; `if knots[j + degree] > knots[j]` add the rising term, then the same
# for the falling one with `j + 1`. `torch.stack(columns, dim=1)`. How many `j` are there?
# </details>


# %%
def blend(basis, x, knots, degree):
    """basis: (n, m), the splines of degree - 1 at x: (n,); knots: (m + degree,). Return (n, m - 1)."""
    ### BEGIN SOLUTION
    columns = []
    for j in range(basis.shape[1] - 1):
        column = torch.zeros_like(x)
        if knots[j + degree] > knots[j]:
            column = column + (x - knots[j]) / (knots[j + degree] - knots[j]) * basis[:, j]
        if knots[j + degree + 1] > knots[j + 1]:
            end = knots[j + degree + 1]
            column = column + (end - x) / (end - knots[j + 1]) * basis[:, j + 1]
        columns.append(column)
    return torch.stack(columns, dim=1)
    ### END SOLUTION


# %%
check_blend(blend)

# %% [markdown]
# ### Exercise 8.4. How local ★★ (6 min)
#
# Somebody takes degree 5 for smoother curves. Predict the smallest number of intervals for which moving a coefficient in
# the middle changes at most 10% of the curve. Then set `n_intervals`, run the cell, look, change it.
#
# <details><summary>Hint 1: a nudge</summary>
#
# A cubic changes on four intervals. And degree 5?
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# $k+1$ intervals of $G$ are to be a tenth at most.
# </details>

# %%
n_intervals = ...  # a number
### BEGIN SOLUTION
n_intervals = 60
### END SOLUTION
if n_intervals is not ...:
    places = torch.arange(0, n_intervals, 0.1, dtype=torch.float64)[:, None] + 0.05
    moved = b_spline_basis(places, n_intervals, 5)[:, n_intervals // 2, 0]  # what one coefficient adds
    print(f"{n_intervals} intervals: {(moved != 0).double().mean():.1%} of the curve change")

# %%
check_local_enough(n_intervals)

# %% [markdown]
# ### Exercise 8.5. Half the interval, the same curve ★★ (15 min)
#
# Section 4 cuts every interval in two and changes nothing: an old cubic bump is the sum of five new ones with the weights
# 1, 4, 6, 4, 1, divided by 8. Give the $2G+3$ new coefficients for $G+3$ old ones. New bumps sit on the centres of the
# old ones and midway between; one that lies outside the grid altogether is left out.
#
# <details><summary>Hint 1: a nudge</summary>
#
# Turn it round: to which old bumps does a *new* bump belong? Midway between two centres to two of them, on a centre to
# three.
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# The first new coefficient is $(4c_0+4c_1)/8$, the second $(c_0+6c_1+c_2)/8$, the third $(4c_1+4c_2)/8$. Two slices with
# step 2 fill the result.
# </details>


# %%
def refine(coefficients):
    """coefficients: (G + 3,). Return (2G + 3,)."""
    ### BEGIN SOLUTION
    c = coefficients
    fine = c.new_zeros(2 * len(c) - 3)
    fine[0::2] = (c[:-1] + c[1:]) / 2
    fine[1::2] = (c[:-2] + 6 * c[1:-1] + c[2:]) / 8
    return fine
    ### END SOLUTION


# %%
check_refine(refine)

# %% [markdown]
# ### Exercise 8.6. How fast an error falls ★ (6 min)
#
# Section 5 reads the exponent off a picture with two logarithmic axes. Return the slope of the line through the points
# $(\log G, \log\text{error})$ by least squares over *all* points. Then ask your function for `np.array(GRIDS)` and the runs
# in `falling`. **Predict:** does it matter which logarithm you take?
#
# <details><summary>Hint 1: a nudge</summary>
#
# If error = $aG^s$, then log error = log a + s log G, a straight line.
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# `np.polyfit(x, y, 1)` returns slope and height, in this order.
# </details>


# %%
def error_slope(grids, errors):
    """grids, errors: (points,), positive. Return one number."""
    ### BEGIN SOLUTION
    return np.polyfit(np.log(grids), np.log(errors), 1)[0]
    ### END SOLUTION


# %%
check_error_slope(error_slope)

# %% [markdown]
# ### Exercise 8.7. The constants around a function ★★ (12 min)
#
# To name an edge, section 6 looks for $c\,f(ax+b)+d$. For given $a$ and $b$, call the values of $f$ simply `f`. Return the
# $c$ and $d$ with the smallest squared error to `y`, and the $R^2$ = 1 − (mean squared error) / (variance of `y`). If `f`
# is constant on the data, $c=0$. **Predict:** which part of the search does that save?
#
# <details><summary>Hint 1: a nudge</summary>
#
# This is a straight line through the points (f, y): slope c, height d. It passes through the point of the two means.
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# c = covariance(f, y) / variance(f), both with the same divisor; d = mean(y) − c · mean(f).
# </details>


# %%
def best_scale(f, y):
    """f, y: (n,). Return (c, d, r2), three numbers."""
    ### BEGIN SOLUTION
    from_mean, spread_of_f = f - f.mean(), f.var(correction=0)
    c = (from_mean * (y - y.mean())).mean() / spread_of_f if spread_of_f > 0 else torch.tensor(0.0)
    d = y.mean() - c * f.mean()
    r2 = 1 - (y - c * f - d).square().mean() / y.var(correction=0)
    return c.item(), d.item(), r2.item()
    ### END SOLUTION


# %%
check_best_scale(best_scale)

# %% [markdown]
# ### Exercise 8.8. Which edges matter ★★★ (20 min)
#
# The penalty of section 6 measures an edge by its *spread*: the standard deviation of $\varphi_{ij}$ over the data. Return
# for a `KANLayer` each edge's spread divided by the sum of all. Compute the edges' curves yourself, from `coefficients`,
# `base_weight` (`None` in a layer without base) and `b_spline_basis`. **Predict:** an edge that adds 3 to everything. Share?
#
# <details><summary>Hint 1: a nudge</summary>
#
# `edge_by_edge` in section 3 computes the same curves, and adds them up. You need them one by one, shape (n, out, in).
# </details>
#
# <details><summary>Hint 2: an outline</summary>
#
# `basis = b_spline_basis((x - layer.grid_low) / layer.grid_step, layer.grid_size, layer.degree)` has shape (n, bumps, in).
# `torch.einsum("nbj,ibj->nij", …)`, plus base weight times silu, `std` over n, divide. Work under `torch.no_grad()`.
# </details>


# %%
@torch.no_grad()
def edge_shares(layer, x):
    """x: (n, in). Return (out, in), which sum to 1."""
    ### BEGIN SOLUTION
    basis = b_spline_basis((x - layer.grid_low) / layer.grid_step, layer.grid_size, layer.degree)
    curves_of_edges = torch.einsum("nbj,ibj->nij", basis, layer.coefficients)
    if layer.base_weight is not None:
        curves_of_edges = curves_of_edges + layer.base_weight * F.silu(x)[:, None, :]
    spreads = curves_of_edges.std(dim=0)
    return spreads / spreads.sum()
    ### END SOLUTION


# %%
check_edge_shares(edge_shares)

# %%
progress(lesson_08)

# %% [markdown]
# ## Recap
#
# - **Count:** $2n+1$ outer and $n(2n+1)$ inner functions, 28 for $n=3$. They exist; rows do not determine them, and
#   nothing says that they are smooth.
# - **Build:** boxes, blended $k$ times, are B-splines; on a uniform grid one closed formula. An edge is a spline plus a
#   base, a node adds, a layer is one matrix product.
# - **Refine:** halving is exact; the error falls with slope $-(k+1)$ until the data run out.
# - **Turn into a formula:** sparsify, prune, name, refit. Compare with the splines' error; a formula always comes out.
# - **Judge:** slow is the implementation; efficient for smooth compositions; forgetting is avoided by one spline only;
#   fine grids overfit; on ordinary tables no difference.
#
# ## Pitfalls
#
# - Comparing a KAN with an MLP of equal *width*: an edge has $G+k+1$ numbers.
# - Inputs outside the grid. Scale them into it, or call `update_grid`; a column that hardly varies in the training
#   part lands far outside, where the spline is a straight line of any slope.
# - Refining the grid without validation data.
# - Believing a formula because it is one.
#
# ## Errata of the decks
#
# - `000_467c1bb93614480d` counts "2n+1 univariate functions" for the theorem: these are the outer ones; there are
#   $n(2n+1)$ inner ones besides.
# - The same deck lists continual learning without forgetting, and parameter efficiency, as advantages without
#   condition, and tenfold slowness as a drawback of KANs. All three depend, as section 7 shows.
# - "Cannot leverage batch computation": all edges of an input share one basis; the layer is one matrix product.
# - Its table says "sq ft" for areas of 6 to 18, which would be a cupboard; read the numbers as a toy.
#
# ## Sources
#
# - Deck `000_467c1bb93614480d`.
# - A. Kolmogorov, 1957; V. Arnold, 1957: the theorem. F. Girosi, T. Poggio: *Representation properties of networks:
#   Kolmogorov's theorem is irrelevant*, 1989 (why it says little about learning).
# - C. de Boor: *A practical guide to splines*, 1978.
# - Z. Liu and others: *KAN: Kolmogorov-Arnold networks*, 2024, arXiv:2404.19756.
# - R. Yu, W. Yu, X. Wang: *KAN or MLP: a fairer comparison*, 2024, arXiv:2407.16674.
# - K. Levenberg, 1944; D. Marquardt, 1963: the method of section 5.
