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
# # Homework 6. The KAN laboratory
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/homework/hw6_kan_laboratory.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/homework/hw6_kan_laboratory.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/homework/hw6_kan_laboratory.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/homework/hw6_kan_laboratory.ipynb)
#
# The laboratory has a machine with three dials and one needle. Its builder has retired; all that she left for you is a
# slip of paper with a number on it, and a table of 400 readings. Somewhere behind the front plate is a formula, a
# different one for every number. You will build the instrument that reads it: curves first, then a layer of them, then
# finer curves, then a way to see which of them matter. At the end you open the plate, and the formula has to hold
# beyond the readings too.
#
# **You practise:** the recursion of B-splines; a layer with a learned function on each edge; changing parameters
# without changing the function; scores along paths; the way from splines to a formula, and doubting it.
#
# **Prerequisites:** lesson 08. **Time:** about 3 hours, a third of it for tasks 1 and 6.
#
# | task | points |
# |---|---|
# | 1 B-splines by recursion | 4 |
# | 2 A KAN layer | 4 |
# | 3 A finer grid | 3 |
# | 4 Scores of edges | 3 |
# | 5 Pruning | 3 |
# | 6 The hidden formula | 4 |
# | 7 Report | 4 |
# | **sum** | **25** |
#
# **Rules.** Write only where a stub says `raise NotImplementedError`. The cell below each stub calls a check, which
# compares your code with a reference on inputs drawn by chance and names the mistake that it finds: run it as often as
# you like. Such a cell earns all of its points or none, and the grading repeats it with other inputs. A person reads
# the report. No task needs the solution of another.

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
import functools
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils import plotting
from course_utils.homework import hw6, progress, require
from course_utils.homework.hw6 import (
    check_bspline_basis,
    check_edge_scores,
    check_hidden_formula,
    check_kan_layer,
    check_masks,
    check_refine,
    mystery_data,
)
from course_utils.kan import KAN, b_spline_basis
from course_utils.plotting import show
from course_utils.reproducibility import make_generator, set_up

set_up(seed=0)
plotting.use_theme()
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Task 1. B-splines by recursion (4 points)
#
# Lesson 08 has a closed formula for splines on an even grid. Cox and de Boor's recursion needs no even grid, and some
# of our cases have knots that coincide. For knots $t_0 \le t_1 \le \dots$ the splines of degree 0 are boxes, and each
# degree blends two neighbours of the one before:
#
# $$B_{j,0}(x) = \begin{cases}1 & t_j \le x < t_{j+1}\\ 0 & \text{else}\end{cases}\qquad
# B_{j,k}(x) = \frac{x-t_j}{t_{j+k}-t_j}\,B_{j,k-1}(x) + \frac{t_{j+k+1}-x}{t_{j+k+1}-t_{j+1}}\,B_{j+1,k-1}(x)$$
#
# A term whose denominator is 0 counts as 0. `x` has shape `(n,)` and `knots` `(m,)`, both NumPy arrays; return
# `(n, m - degree - 1)`, one column a spline.


# %% solution="basis"
def bspline_basis(x, knots, degree):
    """Return every B-spline of this degree at every point, shape (n, len(knots) - degree - 1)."""
    ### BEGIN SOLUTION
    x = x[:, None]
    basis = ((knots[:-1] <= x) & (x < knots[1:])).astype(float)
    for k in range(1, degree + 1):
        up, down = x - knots[: -k - 1], knots[k + 1 :] - x
        span, next_span = knots[k:-1] - knots[: -k - 1], knots[k + 1 :] - knots[1:-k]
        left = np.divide(up, span, out=np.zeros_like(up), where=span > 0)
        right = np.divide(down, next_span, out=np.zeros_like(down), where=next_span > 0)
        basis = left * basis[:, :-1] + right * basis[:, 1:]
    return basis
    ### END SOLUTION


# %% test="basis" points=4
require(check_bspline_basis(bspline_basis))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_bspline_basis, bspline_basis)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many boxes do m knots make, and how many splines are left after each blend?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Begin with the boxes, `(n, m - 1)`. Loop over the degree k from 1 on; a loop over j inside is fine. Look whether a
# denominator is 0 before you divide.
# </details>
#
# ## Task 2. A KAN layer (4 points)
#
# An edge from input $j$ to output $i$ carries $\varphi_{ij}(x) = w_{ij}\,\mathrm{silu}(x) + \sum_b c_{ibj} B_b(x)$; an
# output is the sum of its edges. Write the module, with two parameters of any initial values:
#
# - `coefficients`, shape `(out_features, grid_size + degree, in_features)`,
# - `base_weight`, shape `(out_features, in_features)`.
#
# The grid goes from −1 to 1 for every input. Here the course's `b_spline_basis(s, grid_size, degree)` is faster than
# our recursion and knows how to go on outside the grid: `s`, of shape `(batch, in_features)`, counts grid intervals
# from the left end, and the answer is `(batch, grid_size + degree, in_features)`.


# %% solution="layer"
class Layer(nn.Module):
    """Sums of one learned function an edge: (batch, in_features) becomes (batch, out_features)."""

    def __init__(self, in_features, out_features, grid_size, degree):
        super().__init__()
        self.grid_size, self.degree = grid_size, degree
        ### BEGIN SOLUTION
        shape = (out_features, grid_size + degree, in_features)
        self.coefficients = nn.Parameter(0.1 * torch.randn(shape))
        self.base_weight = nn.Parameter(torch.randn(out_features, in_features) / in_features**0.5)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        basis = b_spline_basis((x + 1) * self.grid_size / 2, self.grid_size, self.degree)
        splines = torch.einsum("nbj,ibj->ni", basis, self.coefficients)
        return splines + F.silu(x) @ self.base_weight.T
        ### END SOLUTION


# %% test="layer" points=4
require(check_kan_layer(Layer))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_kan_layer, Layer)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Where is x = −1 in grid intervals, and where x = 1? Over which two axes does an output add up?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `torch.einsum` names the axes: batch n, spline b, input j, output i. The base is a product of silu(x) with the
# transposed weights.
# </details>
#
# ## Task 3. A finer grid (3 points)
#
# A coarse grid finds the shape, a fine one the details. So we cut every interval into `factor` pieces *without changing
# the function*: the new splines can do all that the old ones could. Given `coefficients` of shape
# `(out, grid_size + degree, in)`, return those on the finer grid, `(out, grid_size * factor + degree, in)`.
#
# **Predict:** the coefficients of the fine grid, are they more numbers of the same kind as the coarse ones, or closer
# to the values of the curve?


# %% solution="refine"
def refine(coefficients, grid_size, factor, degree):
    """Return the coefficients of the same functions on a grid of grid_size * factor intervals."""
    ### BEGIN SOLUTION
    s = torch.linspace(0, grid_size, 10 * grid_size * factor + 1, dtype=coefficients.dtype)[:, None]
    coarse = b_spline_basis(s, grid_size, degree)[:, :, 0]
    fine = b_spline_basis(s * factor, grid_size * factor, degree)[:, :, 0]
    matrix = torch.linalg.lstsq(fine, coarse).solution
    return torch.einsum("nb,ibj->inj", matrix, coefficients)
    ### END SOLUTION


# %% test="refine" points=3
require(check_refine(refine))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_refine, refine)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# You know the function at as many points as you like. Which fine splines add up to it is a linear system.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Take many points s along the old grid. Evaluate the old splines at s and the new ones at s · factor.
# `torch.linalg.lstsq` writes each old spline as a sum of new ones: one matrix for all edges.
# </details>
#
# Layer and refinement at work: two of your layers learn $\sin(4 x_1 x_2)$ on grids of 3, then 6, then 12 intervals.

# %%
x = 2 * torch.rand(600, 2, generator=make_generator(0)) - 1
y = torch.sin(4 * x[:, :1] * x[:, 1:])
torch.manual_seed(0)
net = nn.Sequential(Layer(2, 3, 3, 3), Layer(3, 1, 3, 3))


def rmse():
    return (net(x) - y).square().mean().sqrt()


def train(n_steps=60):
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=n_steps, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = rmse() ** 2
        loss.backward()
        return loss

    optimizer.step(closure)


for grid_size in (3, 6, 12):
    if grid_size > 3:
        for layer in net:
            layer.coefficients = nn.Parameter(refine(layer.coefficients.detach(), grid_size // 2, 2, 3).contiguous())
            layer.grid_size = grid_size
    before = rmse().item()
    train()
    print(f"{grid_size:2} intervals: RMSE {before:.6f} before, {rmse().item():.6f} after 60 steps")

# %% [markdown]
# The number before each stage is the number after the last one: the function has not changed.
#
# ## Task 4. Scores of edges (3 points)
#
# Which edges matter? `values` is a list with one tensor a layer, `(batch, out, in)`: what every edge returned for every
# row. What counts is its *spread*, the standard deviation over the batch. Work backwards from the outputs, each of
# which has score 1:
#
# $$\text{edge}_{ij} = \text{node}_i\cdot\frac{\text{spread}_{ij}}{\max_{j'}\text{spread}_{ij'}},\qquad
# \text{node}_j = \max_i \text{edge}_{ij}$$
#
# So an edge's unit is the largest edge that enters the same node, and the score of a hidden node is the largest of its
# outgoing edges. If nothing that enters a node has any spread, its edges score 0. Return a list of `(out, in)`, in the
# order of the layers.


# %% solution="scores"
def edge_scores(values):
    """Return the scores of all edges, one tensor of shape (out, in) a layer."""
    ### BEGIN SOLUTION
    scores = []
    node = torch.ones(values[-1].shape[1], dtype=values[-1].dtype)
    for phi in reversed(values):
        spread = phi.std(dim=0)
        largest = spread.amax(dim=1, keepdim=True)
        score = node[:, None] * torch.where(largest > 0, spread / largest, 0.0)
        node = score.amax(dim=0)
        scores.insert(0, score)
    return scores
    ### END SOLUTION


# %% test="scores" points=3
require(check_edge_scores(edge_scores))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_edge_scores, edge_scores)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which of the two axes of `(out, in)` runs over the edges that enter one node?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Go through the layers from the last to the first with a vector of node scores. `torch.where` keeps 0/0 out.
# </details>
#
# ## Task 5. Pruning (3 points)
#
# An edge stays if its score is at least the threshold. That can leave a hidden node which nothing enters, or from which
# nothing goes out: its other edges are useless, and removing them may do the same to a node in the next layer. Return
# one boolean tensor a layer, `True` where the edge stays in the end. Inputs and outputs may lose all of their edges.


# %% solution="masks"
def masks(scores, threshold):
    """Return which edges stay, one boolean tensor of shape (out, in) a layer."""
    ### BEGIN SOLUTION
    keep = [score >= threshold for score in scores]
    for _ in keep:
        for into, out in itertools.pairwise(keep):
            alive = into.any(dim=1) & out.any(dim=0)
            into &= alive[:, None]
            out &= alive
    return keep
    ### END SOLUTION


# %% test="masks" points=3
require(check_masks(masks))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_masks, masks)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A hidden node stands between two masks: it is a row of one, and a column of the other.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Threshold first. Then for each pair of neighbouring masks find the nodes that have edges on both sides, and clear the
# rows and columns of the others. Repeat until nothing changes.
# </details>
#
# Scores and masks at work: a network with one input too many.

# %%
x = 2 * torch.rand(300, 3, generator=make_generator(1)) - 1
kan = KAN([3, 4, 1], grid_size=3, generator=make_generator(0))
history = kan.fit_lbfgs(
    x,
    torch.exp(torch.sin(3 * x[:, :1]) - x[:, 2:] ** 2),
    grids=(3,),
    steps=100,
    penalty=lambda model, x: 0.01 * model.sparsity_penalty(x),
    progress=False,
)
with torch.no_grad():
    nodes = kan.activations(x)
    values = [layer.edge_functions(node) for layer, node in zip(kan.layers, nodes, strict=False)]
scores = edge_scores(values)
kept = masks(scores, 0.05)
fig, axes = plt.subplots(1, 2, figsize=(8, 2.6))
for ax, score, keep, number in zip(axes, scores, kept, (1, 2), strict=True):
    image = ax.imshow(score, cmap=plotting.SEQUENTIAL, vmin=0, vmax=1)
    for i, j in (~keep).nonzero().tolist():
        ax.text(j, i, "×", color="white", ha="center", va="center")
    ax.set(xlabel="from", ylabel="to", title=f"Layer {number}", xticks=range(score.shape[1]), yticks=range(len(score)))
    ax.grid(visible=False)
fig.colorbar(image, ax=axes, label="score")
show(fig, alt="Scores of the edges of both layers as coloured squares; crosses mark the edges that pruning removes.")

# %% [markdown]
# **Read the figure.** Which input does nothing? How many hidden nodes would have been enough?
#
# ## Task 6. The hidden formula (4 points)
#
# Put in the number on your slip: your student number. It decides on the formula behind your table, so yours is not your
# neighbour's.

# %%
STUDENT_NUMBER = 2026  # put yours here

x, y = mystery_data(STUDENT_NUMBER)
print(x.shape, y.shape)
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for place, ax in enumerate(axes):
    ax.plot(x[:, place], y[:, 0], ".", markersize=4)
    ax.set(xlabel=f"x{place + 1}")
axes[0].set_ylabel("y")
show(fig, alt="The readings against each of the three dials, 400 dots in each panel.")

# %% [markdown]
# Now lesson 08's way: make it sparse, prune, name, refit. `find_formula` does all of it. A fit that ends at an RMSE
# above a millionth has not found the formula, since there is no noise: try another seed or another shape, and look
# whether a simpler formula does as well. (Half a minute, on a busy machine more.)

# %%
kan = KAN([3, 1, 1], grid_size=3, generator=make_generator(0))
report = kan.find_formula(x, y, progress=False)
print(report)
kan.symbolic_formula(digits=4)

# %% [markdown]
# Write it down as a function, with constants rounded to four digits or better to what they seem to be. `x` is a tensor
# of shape `(n, 3)`; return `(n,)`. The check also asks beyond the readings, up to ±1.15.


# %% solution="formula"
def formula(x):
    """Return y, shape (n,), for x of shape (n, 3)."""
    ### BEGIN SOLUTION
    return torch.exp(-0.75 * x[:, 2] ** 2 - torch.sin(3 * x[:, 0]))
    ### END SOLUTION


# %% test="formula" points=4
require(check_hidden_formula(formula, STUDENT_NUMBER))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(functools.partial(check_hidden_formula, number=STUDENT_NUMBER), formula)
### END HIDDEN TESTS

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# If the panels above show one dial that changes nothing, leave it out and fit two inputs.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Loop over a few seeds and the shapes [3, 1, 1] and [3, 2, 1]; keep the network with the smallest `report.rmse`. The
# search may write the same function in another way, such as a shifted sine: compare at a few points.
# </details>

# %% [markdown] answer="report" points=4
# ## Task 7. Report (4 points)
#
# Replace the questions by your answers, two to four sentences each.
#
# 1. **Formula.** Which one did you find, and what makes you believe it? Name the error on the readings, and one test
#    that a curve through all the points would fail.
# 2. **Attempts.** Which fits did not find it (seed, shape, RMSE)? What did they give instead, and how did you notice?
# 3. **Refinement.** Before each stage in task 3 the error is what it was. Why is that worth an exact method, and what
#    happens with a factor such as 1.5?
# 4. **Noise.** Repeat the search with noise of a tenth of y's standard deviation. What survives: the inputs, the
#    functions, the constants?

# %%
progress(hw6)
