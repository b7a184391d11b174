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
# # 02. How large should random weights be?
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/02_initialization.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/02_initialization.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/02_initialization.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/02_initialization.ipynb)
#
# Before the first step a network is a pile of random numbers. How large these numbers are decides whether thirty layers
# learn or stand still, and the right size can be computed on half a page. In this lesson you derive it, test every line
# of the derivation, and then look for the places where the famous rules stop working. There are several.
#
# ## You will be able to …
#
# - **explain** why equal weights turn a layer of a hundred units into a layer of one,
# - **derive** the rules of LeCun, Glorot and He from the variance of a sum,
# - **choose** a rule for an activation, and say at which depth the choice begins to matter,
# - **apply** it with `torch.nn.init`, and say what torch does when you choose nothing,
# - **go beyond** the rules: orthogonal matrices, LSUV, BatchNorm.
#
# **Prerequisites:** variance; lesson 01, or the chain rule and a network in PyTorch. **Time:** 75 minutes.
# **Lecture:** decks `000_467c1bb93614480d`, `003_f7e7d77f8dafb44a` and `004_6954d930ac6e5b54`, their parts on weight
# initialization.

# %% [markdown]
# ## Set-up
#
# Data as in lesson 01: pictures of clothes as 784 standardized numbers, 6,000 to train on, 2,000 to judge on, the test set
# closed. Every network starts from weights that depend on the scheme and the seed alone, and sees batches of 128. A run
# whose loss leaves the range of numbers counts as chance, 0.1.

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
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils import init, plotting
from course_utils.claims import claim
from course_utils.datasets import load_fashion_mnist
from course_utils.init import init_weights
from course_utils.models import MLP
from course_utils.plotting import label_line_ends, plot_seeds, sequence_colors, show, style
from course_utils.reproducibility import make_generator, set_up
from course_utils.training import LiveLossPlot, fit
from course_utils.widgets import canvas, explorer

set_up(seed=0)
plotting.use_theme()
SEEDS = (0, 1, 2)
train_set, val_set, _ = load_fashion_mnist().tensors(n_train=6000, n_val=2000)


# %%
def make_mlp(seed, depth, activation, scheme, *, norm=None, **options):
    """An MLP 784-100×depth-10 whose weights depend on scheme and seed alone."""
    model = MLP(784, [100] * depth, 10, activation=activation, norm=norm)
    return init_weights(model, scheme, generator=make_generator(seed), **options)


def accuracy(model, seed, *, optimizer=None, max_epochs=2, callbacks=()):
    """Validation accuracy after training, by SGD at 0.2 unless told otherwise; NaN counts as chance, 0.1."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.2)
    options = {"loss_fn": F.cross_entropy, "optimizer": optimizer, "val": val_set, "on_nonfinite": "stop"}
    history = fit(model, train_set, max_epochs=max_epochs, batch_size=128, seed=seed, callbacks=callbacks, **options)
    return history["val_accuracy"][-1] if history.stopped_by == "max_epochs" else 0.1


# %% [markdown]
# ## 1. Why random at all?
#
# Two hidden layers of 100 tanh units, and every weight is exactly 0.01. All units of a layer then compute the same
# number. But their gradients need not be the same, for there are ten classes and 200 different pictures.
#
# **Predict.** After five steps, how many *different* rows has the gradient of the first weight matrix: 1, 10 or 100? And
# if all weights are 0?

# %%
few = train_set[0][:200].double(), train_set[1][:200]  # double, so that rounding does not pass for a difference
for value in (0.0, 0.01):
    model = make_mlp(0, 2, "tanh", "constant", value=value).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, few, loss_fn=F.cross_entropy, optimizer=optimizer, max_epochs=5, batch_size=200)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(few[0]), few[1]), model.linear1.weight)
    rows = len(torch.unique(gradient.round(decimals=12), dim=0))
    print(f"all {value:<4g} gradient of layer 1: norm {gradient.norm():.3f}, different rows: {rows} of {len(gradient)}")

# %% [markdown]
# One. The hundred units get one and the same gradient. They start equal, move equally and stay equal, so the layer is
# *one* unit, copied a hundred times. With zeros it is worse: no gradient at all reaches layer 1. This is **symmetry**,
# and only something random can break it.
#
# **Predict.** How much randomness does it take? We add noise from $N(0, s^2)$ to the constant 0.01.


# %%
def nearly_constant(seed, noise):
    """All weights 0.01, plus noise of the given standard deviation."""
    model = make_mlp(seed, 2, "tanh", "constant", value=0.01)
    disturbed = make_mlp(seed, 2, "tanh", "normal", std=noise)
    for parameter, other in zip(model.parameters(), disturbed.parameters(), strict=True):
        parameter.data += other.data
    return model


fig, axes = plt.subplots(1, 2, figsize=(10, 3.1))
broken, second = {}, {}
for noise, color in zip((0, 0.001, 0.01, 0.1), sequence_colors(4), strict=True):
    models = [nearly_constant(seed, noise) for seed in SEEDS]
    broken[f"{noise:g}"] = [accuracy(model, seed, max_epochs=3) for seed, model in zip(SEEDS, models, strict=True)]
    spectra = np.array([torch.linalg.svdvals(model.linear1.weight.detach()).numpy() for model in models])
    spectra, second[noise] = spectra / spectra[:, :1], spectra[:, 1] / spectra[:, 0]
    axes[0].semilogy(range(1, 16), spectra[:, :15].mean(axis=0), color=color, label=f"noise {noise:g}")
axes[0].set(xlabel="singular value of layer 1, by size", ylabel="relative to the first", title="How many units?")
axes[0].set_xticks((1, 5, 10, 15))
label_line_ends(axes[0], min_gap=0.09)
plotting.plot_dots(axes[1], broken, xlabel="validation accuracy after 3 epochs")
axes[1].set(ylabel="noise $s$", title="And what they achieve", xlim=(0, 0.9))
show(
    fig,
    alt="Left: singular values of the trained first layer. Without noise the second is a millionth of the first; the "
    "larger the noise, the flatter the curve. Right: accuracy 0.19 up to noise 0.001, about 0.6 at 0.01, 0.8 at 0.1.",
)

# %%
claim("Equal weights: a trained layer keeps rank 1 (2nd/1st)", second[0], "<", 1e-3, source="deck 004")
claim("Equal weights: two hidden layers hardly learn", broken["0"], "<", 0.35, source="deck 004", unit="accuracy")
claim("Noise 0.1 breaks the symmetry", broken["0.1"], ">", 0.6, source="deck 003", unit="accuracy")

# %% [markdown]
# **Read the figure.** Without noise one singular value carries everything; the rest is rounding error. Noise of 0.001
# makes all units different *on paper*, but three epochs do not amplify it enough to matter. So "random" is only half of
# the answer. The other half is the question of the title.
#
# ## 2. The variance of a sum
#
# **Predict.** A unit adds 784 products of an input and a weight, all of standard deviation 1. How large is the sum,
# typically: 1, 28 or 784?
#
# $$z = \sum_{i=1}^{n} w_i x_i \quad\Rightarrow\quad \operatorname{Var}(z) = n \cdot \operatorname{Var}(w) \cdot
# \operatorname{E}[x^2]$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $n$ | `fan_in` | number of inputs of the unit; $n_{\text{out}}$: `fan_out`, units that listen to it |
# | $w_i$ | `weight` | independent weights of mean 0 |
# | $x_i$ | `inputs` | inputs, independent of the weights |
# | $z$, $h = \varphi(z)$ | `z`, `h` | the sum and the activation |
#
# Two steps lead there: $\operatorname{Var}(wx) = \operatorname{Var}(w)\operatorname{E}[x^2]$ because $w$ has mean 0; and
# variances of uncorrelated terms add. Note what is *not* in it: $\operatorname{Var}(x)$. Inputs of mean 3 count with $1 + 9$.

# %%
generator, errors = make_generator(0), []
for fan_in in (10, 100, 1000):
    weight = 0.5 * torch.randn(5000, fan_in, generator=generator)
    x = 3 + torch.randn(fan_in, generator=generator)
    variance, right, naive = (weight @ x).var(), fan_in * 0.25 * x.square().mean(), fan_in * 0.25 * x.var()
    errors.append(abs(variance / right - 1))
    print(f"n = {fan_in:4d}: Var(z) {variance:6.1f}, n·Var(w)·E[x²] {right:6.1f}, n·Var(w)·Var(x) {naive:6.1f}")
claim("Variance of a sum is n·Var(w)·E[x²] (worst error)", max(errors), "<", 0.15, source="this lesson")

# %% [markdown]
# The formula holds; with $\operatorname{Var}(x)$, the last column, it would be ten times too small. So the sum of 784
# products has standard deviation $\sqrt{784} = 28$, and a second such layer would put out 784. To keep the size, the
# weights must shrink with $\sqrt n$: choose $n \operatorname{Var}(w) = 1$. That is **LeCun's rule** (1998), for units
# that pass on what they get.
#
# The gradient runs through the same weights the other way. Each unit collects it from the $n_{\text{out}}$ units that
# listen to it: $\operatorname{Var}(g) = n_{\text{out}} \operatorname{Var}(w) \operatorname{E}[\varphi'^2] \cdot
# \operatorname{Var}(g_{\text{next}})$. Backward, the rule would be $n_{\text{out}} \operatorname{Var}(w) = 1$. Both hold
# only if $n = n_{\text{out}}$, so **Glorot's rule** (2010) takes the mean: $\operatorname{Var}(w) = 2/(n + n_{\text{out}})$.
#
# **Predict.** A linear funnel 2048-1024-512-256-128-64. Which size has the output, and which the gradient at the input, if
# both begin with 1?

# %%
WIDTHS = (2048, 1024, 512, 256, 128, 64)


def through_funnel(rule, seed):
    """Std of the output and of the gradient at the input of a linear network, if input and last gradient have 1."""
    generator = make_generator(seed)
    weights = [rule(n, m) * torch.randn(m, n, generator=generator) for n, m in itertools.pairwise(WIDTHS)]
    product = torch.linalg.multi_dot(weights[::-1])
    forward = product @ torch.randn(WIDTHS[0], 256, generator=generator)
    backward = product.T @ torch.randn(WIDTHS[-1], 256, generator=generator)
    return forward.std().item(), backward.std().item()


RULES = {
    "fan in (LeCun)": (lambda n, m: init.lecun_std(n), 1, (1 / 2) ** 2.5),
    "fan out": (lambda n, m: init.lecun_std(m), 2**2.5, 1),
    "their mean (Glorot)": (init.xavier_std, (4 / 3) ** 2.5, (2 / 3) ** 2.5),
}
errors = []
for name, (rule, *predicted) in RULES.items():
    sizes = np.array([through_funnel(rule, seed) for seed in SEEDS])
    errors.append(np.abs(sizes / predicted - 1).max())
    print(f"{name:20s} forward, backward {sizes.mean(axis=0).round(2)}, by formula {np.round(predicted, 2)}")
claim("The variance formulas predict a linear funnel (worst error)", max(errors), "<", 0.1, source="deck 000")

# %% [markdown]
# The formulas predict both directions to a few percent. LeCun keeps the signal and lets the gradient shrink by 5.7; the
# other way round with fan out; Glorot splits the damage. With equal widths, as everywhere below, all three agree.
#
# ### Why He has a 2
#
# ReLU sets half of the sums to 0. **Predict.** By which factor do you have to raise $\operatorname{Var}(w)$: 2, or more?
# The variance of $\max(0, z)$ is not ½ of $\operatorname{Var}(z)$ but $\tfrac12 - \tfrac1{2\pi} = 0.34$, for the output
# has a mean now. Should we not divide by that?

# %%
z = torch.randn(1_000_000, generator=make_generator(0))
print(f"E[relu(z)²] = {z.relu().square().mean():.3f},  Var(relu(z)) = {z.relu().var():.3f}")


def relu_sizes(variance, seed, depth=30, width=256):
    """Root mean square of the activations after every ReLU layer, for weights N(0, variance/width)."""
    generator = make_generator(seed)
    h, sizes = torch.randn(256, width, generator=generator), []
    for _ in range(depth):
        h = (h @ torch.randn(width, width, generator=generator) * math.sqrt(variance / width)).relu()
        sizes.append(h.square().mean().sqrt().item())
    return sizes


factors = {"1/n": 1, "2/n (He)": 2, "2.93/n": 1 / (1 / 2 - 1 / (2 * math.pi))}
by_factor = {name: np.array([relu_sizes(factor, seed) for seed in SEEDS]) for name, factor in factors.items()}
fig, ax = plt.subplots(figsize=(7, 3.1))
plotting.plot_depth_profile(ax, by_factor, ylabel="size of activations (rms)")
ax.set_title("ReLU, weights of variance 1/n, 2/n, 2.93/n")
show(
    fig,
    alt="Size of ReLU activations over 30 layers on a logarithmic axis: with variance one over n it falls to 2e-5, with "
    "two over n it stays near 1, with 2.93 over n it grows to about 200.",
)

# %%
off, lost = np.abs(np.log10(by_factor["2/n (He)"][:, -1])), by_factor["1/n"][:, -1]
claim("ReLU with variance 2/n: size 1 after 30 layers (off by)", off, "<", 0.5, source="deck 003", unit="decades")
claim("ReLU with variance 1/n: size after 30 layers", lost, "<", 1e-3, source="deck 000")

# %% [markdown]
# **Read the figure.** 2 it is. The next layer's weights have mean 0, so what counts is $\operatorname{E}[h^2]$, and that
# is exactly half of $\operatorname{Var}(z)$: the right half of a symmetric bell. The mean that ReLU creates is carried
# along like any other signal. Backward the ½ appears again: the slope is 1 for half of the units, 0 for the rest. **He's
# rule** (2015): $\operatorname{Var}(w) = 2/n$.
#
# Whether the weights are normal or uniform does not enter; only their variance does. $U(-a, a)$ has variance $a^2/3$, so
# each rule has a uniform form with $a = \sqrt3\,\sigma$. Deck 000 prints a dash for He's and LeCun's: they exist, and torch
# has them.
#
# | rule | made for | $\sigma$ of the normal form | $a$ of the uniform form | in `torch.nn.init` |
# |---|---|---|---|---|
# | LeCun 1998 | linear, SELU | $\sqrt{1/n}$ | $\sqrt{3/n}$ | `kaiming_…_(w, nonlinearity="linear")` |
# | Glorot 2010 | tanh | $\sqrt{2/(n + n_{\text{out}})}$ | $\sqrt{6/(n + n_{\text{out}})}$ | `xavier_…_(w)` |
# | He 2015 | ReLU | $\sqrt{2/n}$ | $\sqrt{6/n}$ | `kaiming_…_(w, nonlinearity="relu")` |

# %%
OPTIONS = {"lecun": {"nonlinearity": "linear"}, "xavier": {}, "kaiming": {"nonlinearity": "relu"}}
for rule, kind in itertools.product(OPTIONS, ("uniform", "normal")):
    layer = init_weights(nn.Linear(300, 100), f"{rule}_{kind}", generator=make_generator(7))
    torchs = getattr(nn.init, f"xavier_{kind}_" if rule == "xavier" else f"kaiming_{kind}_")
    expected = torchs(torch.empty(100, 300), generator=make_generator(7), **OPTIONS[rule])
    torch.testing.assert_close(layer.weight.detach(), expected)
    print(f"{rule + '_' + kind:15s} std {layer.weight.std():.3f}, largest {layer.weight.abs().max():.3f}, as torch's")

# %% [markdown]
# ## 3. Fifty layers, forward and backward
#
# The derivation treats an activation by one number. Does that survive fifty real layers? We send 128 random inputs
# through 50 layers of width 100 and a random gradient back, in double precision, for ten schemes and eight activations.
# Forward we measure what the last layer still knows: how much its units differ *between inputs* (their standard
# deviation over the batch).
#
# **Predict.** Which columns will He's rows keep alive, besides ReLU's? And which column will none of the rules keep alive?


# %%
def hidden_signal(model, inputs):
    """Per hidden layer: std between the inputs, and rms of a gradient that is sent back from the last one."""
    hidden = [inputs.double()]
    for start in range(0, len(model) - 1, 2):  # a linear layer and its activation
        hidden.append(model[start : start + 2](hidden[-1]))
        hidden[-1].retain_grad()
    hidden[-1].backward(torch.randn(hidden[-1].shape, generator=make_generator(1), dtype=torch.float64))
    pairs = [(h.detach().std(dim=0).mean(), h.grad.square().mean().sqrt()) for h in hidden[1:]]
    return torch.tensor(pairs).numpy().T


# %%
SCHEMES = {
    "N(0, 0.01²)": ("normal", {"std": 0.01}),
    "torch default": ("torch_default", {}),
    "LeCun uniform": ("lecun_uniform", {}),
    "LeCun normal": ("lecun_normal", {}),
    "Glorot uniform": ("xavier_uniform", {}),
    "Glorot normal": ("xavier_normal", {}),
    "orthogonal": ("orthogonal", {}),
    "He uniform": ("kaiming_uniform", {}),
    "He normal": ("kaiming_normal", {}),
    "N(0, 1)": ("normal", {"std": 1.0}),
}


def fifty_layers(activation, scheme, seed=0):
    """Signals and gradients of 50 layers of width 100 for random inputs."""
    model, (name, options) = MLP(100, [100] * 50, 10, activation=activation).double(), SCHEMES[scheme]
    init_weights(model, name, generator=make_generator(seed), **options)
    return hidden_signal(model, torch.randn(128, 100, generator=make_generator(seed + 100)))


# %%
COLUMNS = ("identity", "sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu")
table = np.empty((2, len(SCHEMES), len(COLUMNS)))
for (row, scheme), (column, activation) in itertools.product(enumerate(SCHEMES), enumerate(COLUMNS)):
    spread, gradient = fifty_layers(activation, scheme)
    table[:, row, column] = np.log10(np.maximum([spread[-1], gradient[0] / gradient[-1]], 1e-99))

fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
titles = ("Forward: differences left in layer 50", "Backward: gradient of layer 1 over layer 50")
for ax, decades, title in zip(axes, table, titles, strict=True):
    image = ax.imshow(decades, cmap=plotting.DIVERGING, vmin=-10, vmax=10, aspect="auto")
    for (row, column), value in np.ndenumerate(decades):
        color = "white" if abs(value) > 6 else "black"
        ax.text(column, row, f"{value:.0f}".replace("-0", "0"), ha="center", va="center", fontsize=9, color=color)
    ax.set_title(title)
    ax.set_xticks(range(len(COLUMNS)), COLUMNS, rotation=35)
    ax.grid(visible=False)
axes[0].set_yticks(range(len(SCHEMES)), list(SCHEMES))
fig.colorbar(image, ax=axes, label="log10")
show(
    fig,
    alt="Two maps, schemes by activations, of the decades that fifty layers gain or lose. Small normal weights and torch's "
    "default are blue everywhere, N(0, 1) red nearly everywhere. LeCun, Glorot and orthogonal are white for identity, tanh, "
    "elu and selu; He for relu, elu and tanh. The sigmoid is blue in every row but the last; gelu and silu fade even with He.",
)

# %%
for activation, scheme in (("tanh", "Glorot normal"), ("selu", "LeCun normal"), ("relu", "He normal")):
    runs = np.array([fifty_layers(activation, scheme, seed) for seed in SEEDS])
    forward, backward = np.abs(np.log10([runs[:, 0, -1], runs[:, 1, 0] / runs[:, 1, -1]]))
    claim(f"{activation}, {scheme}: 50 layers keep the signal", forward, "<", 3, source="deck 000", unit="decades off")
    claim(
        f"{activation}, {scheme}: 50 layers keep the gradient", backward, "<", 3, source="deck 000", unit="decades off"
    )
gelu, silu = (-np.log10([fifty_layers(name, "He normal", s)[0, -1] for s in range(8)]) for name in ("gelu", "silu"))
print("decades that GELU loses under He, by seed:", gelu.round(1))
claim("silu, He normal: 50 layers lose the signal", silu, ">", 3, source="this lesson", unit="decades")
best = max(fifty_layers("sigmoid", scheme)[1, 0] for scheme in list(SCHEMES)[:9])
claim("sigmoid: gradient after 50 layers, best of 9 schemes", best, "<", 1e-10, source="this lesson")

# %% [markdown]
# **Read the figure.** The numbers are powers of ten (−99: nothing left). Uniform and normal agree; LeCun, Glorot and
# orthogonal agree too, for the widths are equal. tanh, ReLU and SELU each have pale rows, and the rule made for them is
# among those. The surprises: "He for ReLU *and variants*" (deck 000) fails SiLU, and GELU with most seeds, because both
# pass on less than ReLU. No rule keeps the sigmoid (its −17 is rounding error); only the oversized $N(0, 1)$ does, by
# saturation. And under He even ReLU's differences shrink to a tenth: its mean remains, and all inputs look more alike.
#
# Every rule fixes one number per layer. What does the whole distribution do? Turn the knobs: each curve is the
# histogram of $\log_{10}|z|$ in one layer, so a shift to the left means fading.


# %%
def draw_histograms(ax, activation, scheme, depth=30):
    """Histograms of the size of the pre-activations of five layers, dark next to the input."""
    name, options = SCHEMES[scheme]
    model, h = make_mlp(0, depth, activation, name, **options), val_set[0][:256]
    chosen = np.unique(np.linspace(1, depth, 5).round().astype(int))
    colors = dict(zip(chosen, sequence_colors(len(chosen)), strict=True))
    for number in range(1, depth + 1):
        z = model.get_submodule(f"linear{number}")(h).detach()
        h = model.get_submodule(f"activation{number}")(z)
        if number in colors:
            decades = np.log10(z.abs().clamp(1e-12, 1e12).flatten().numpy())
            share, edges = np.histogram(decades, bins=np.arange(-9, 9.1, 0.25))
            ax.plot(edges[:-1] + 0.125, 100 * share / len(decades), color=colors[number], label=f"layer {number}")
    ax.set(xlim=(-9, 9), ylim=(0, None), xticks=(-8, -4, 0, 4, 8))


# %%
def explore(activation="relu", scheme="He normal", depth=30):
    """Draw the histograms for one setting of the knobs."""
    fig, ax = canvas(7, 2.8)
    draw_histograms(ax, activation, scheme, depth)
    ax.set(xlabel="size of z [log10], five layers from first (dark) to last (light)", ylabel="share [%]")
    ax.set(title=f"{depth} layers of {activation}, {scheme}")
    ax.locator_params(axis="y", nbins=3)  # little text: the picture is drawn with every move
    show(fig, alt=f"Histograms of the size of z in up to five of {depth} layers of {activation} with {scheme}.")


explorer(explore, activation=list(COLUMNS), scheme=list(SCHEMES), depth=(1, 50))

# %%
fig, axes = plt.subplots(3, 4, figsize=(11, 5.4), sharex=True)
for row, activation in zip(axes, ("tanh", "relu", "silu"), strict=True):
    for ax, scheme in zip(row, ("torch default", "Glorot normal", "He normal", "N(0, 1)"), strict=True):
        draw_histograms(ax, activation, scheme)
        ax.set(title=f"{activation}, {scheme}", yticks=[])
axes[0, 0].legend(loc="upper left", fontsize=8, handlelength=1)
fig.supxlabel("size of z [log10], 256 pictures, 30 layers", fontsize=11)
fig.supylabel("share", fontsize=11)
show(
    fig,
    alt="Histograms of the size of z in layers 1 to 30 for tanh, ReLU and SiLU and four schemes. Tanh stays in place with "
    "Glorot and He; ReLU stays with He and moves left with Glorot; SiLU moves left with both; N(0, 1) moves ReLU and SiLU "
    "far right. With torch's default the later layers lie on top of each other near minus one.",
)

# %% [markdown]
# **Read the figure.** A shift by the same amount per layer is the constant factor of section 2, seen as a picture. But
# look at the first column. With torch's default ReLU does *not* fade away: its curves stop between $10^{-2}$ and
# $10^{-1}$ and stay there. The map said that its signal is lost. Which is right?
#
# ## 4. What torch does if you do nothing
#
# The decks give three answers. 000: LeCun. 003: $U(\pm 1/\sqrt n)$, "somewhat similar to Xavier". 004: a variation of He's
# uniform, biases 0; and convolutions have another default than linear layers (003). **Predict** which of the five
# statements are true. Then ask torch.

# %%
linear, conv = nn.Linear(400, 3000), nn.Conv2d(16, 500, kernel_size=5)  # fan in 400 both: 16·5·5
for name, layer in (("Linear", linear), ("Conv2d", conv)):
    weight, bias = layer.weight.detach(), layer.bias.detach()
    print(f"{name}: √n·std = {20 * weight.std():.4f}, √n·largest = {20 * weight.abs().max():.4f}", end="")
    print(f"; bias: √n·std = {20 * bias.std():.3f}, √n·largest = {20 * bias.abs().max():.3f}")
off = abs(20 * linear.weight.detach().std() * math.sqrt(3) - 1)
claim("torch's Linear: std is 1/√(3n) (relative error)", off, "<", 0.02, source="deck 004")
claim("torch's Linear: the bias is not 0 (√n·std)", 20 * linear.bias.detach().std(), ">", 0.4, source="this lesson")

# %% [markdown]
# $U(\pm1/\sqrt n)$ has standard deviation $1/\sqrt{3n} = 0.577/\sqrt n$: neither LeCun's $1/\sqrt n$ nor He's, and the same
# for both kinds of layer. The biases are drawn likewise. In the source it reads `kaiming_uniform_(weight, a=math.sqrt(5))`:
# He's uniform for a leaky ReLU of slope $\sqrt5$, a number chosen to give back this older default.
#
# **Predict.** Per ReLU layer the signal shrinks by $0.577/\sqrt2 = 0.41$. Thirty layers make $10^{-12}$. Yet the size of
# the activations stays at 0.03. Where does it come from?


# %%
def size_and_difference(seed, scheme, dtype=torch.float64):
    """For each of 30 ReLU layers: rms of the activations, and their std between 256 pictures (mean over units)."""
    model, h, rows = MLP(784, [256] * 30, 10), val_set[0][:256].to(dtype), []
    init_weights(model, scheme, generator=make_generator(seed)).to(dtype)
    for start in range(0, len(model) - 1, 2):
        h = model[start : start + 2](h).detach()
        rows.append((h.square().mean().sqrt(), h.std(dim=0).mean()))
    return torch.tensor(rows).numpy().T


# %%
lines = {}
for name, scheme in (("He", "kaiming_normal"), ("default", "torch_default")):
    both = np.array([size_and_difference(seed, scheme) for seed in SEEDS])
    lines |= {f"{name}: size": both[:, 0], f"{name}: differences": both[:, 1]}
fig, ax = plt.subplots(figsize=(7, 3.3))
plotting.plot_depth_profile(ax, lines, ylabel="activations")
ax.set_title("Size is not signal")
show(
    fig,
    alt="Over 30 ReLU layers: with He both the size of the activations and their differences between pictures stay near 1 "
    "to 0.1. With torch's default the size levels off near 0.03, while the differences fall steadily to about 1e-12.",
)
size, differences = lines["default: size"][:, -1], lines["default: differences"][:, -1]
claim("torch default, 30 ReLU layers: size of activations", size, ">", 0.005, source="this lesson")
claim("torch default, 30 ReLU layers: differences between inputs", differences, "<", 1e-6, source="this lesson")
rounded = size_and_difference(0, "torch_default", dtype=torch.float32)[1, -1]
print(f"torch default in float32: differences of {rounded:.0e} in layer 30")

# %% [markdown]
# **Read the figure.** It is bias, and nothing else: whichever picture you feed in, layer 30 answers with the same 256
# numbers. A check of "the standard deviation of the activations" would have passed. In float32, the usual precision,
# what is left of the differences is rounding error. So the default "works ok in practice" (003) where practice means few
# layers, or BatchNorm.
#
# ## 5. Glorot or He: does it matter?
#
# For ReLU, Glorot's weights are too small by $\sqrt2$ a layer. We train for four epochs with momentum 0.9 and learning
# rate 0.003; at depth 30 also with Adam, which divides each gradient by its own size.
#
# **Predict** the difference in accuracy at depth 2 and at depth 30. Does Adam make it disappear? (One of the runs you can
# watch live: He at depth 30, without Adam, seed 0.)


# %%
def he_or_glorot(scheme, depth, adam=False):
    """Validation accuracy per seed of a ReLU network, by SGD with momentum or by Adam."""
    runs = []
    for seed in SEEDS:
        parameters = (model := make_mlp(seed, depth, "relu", scheme)).parameters()
        sgd = {"lr": 0.003, "momentum": 0.9}
        optimizer = torch.optim.Adam(parameters, lr=0.001) if adam else torch.optim.SGD(parameters, **sgd)
        watched = (scheme, depth, adam, seed) == ("kaiming_normal", 30, False, 0)
        live = [LiveLossPlot(every=2)] if watched else []
        runs.append(accuracy(model, seed, optimizer=optimizer, max_epochs=4, callbacks=live))
    return np.array(runs)


# %%
depths = (2, 10, 30)
he, glorot = (np.array([he_or_glorot(f"{rule}_normal", d) for d in depths]) for rule in ("kaiming", "xavier"))
he_adam, glorot_adam = (he_or_glorot(f"{rule}_normal", 30, adam=True) for rule in ("kaiming", "xavier"))

fig, ax = plt.subplots(figsize=(7, 3.3))
for index, (name, sgd, adam) in enumerate((("He", he, he_adam), ("Glorot", glorot, glorot_adam))):
    plot_seeds(ax, depths, sgd.T, label=f"{name}, SGD", **style(index))
    ax.plot([31] * 3, adam, linestyle="", label=f"{name}, Adam", **style(index), fillstyle="none")
ax.axhline(0.1, color="0.5", linestyle=":", linewidth=1)
ax.set(xlabel="hidden ReLU layers", ylabel="validation accuracy", xticks=depths, title="√2 a layer adds up")
label_line_ends(ax, min_gap=0.08)
show(
    fig,
    alt="Accuracy after four epochs against depth, three seeds. He and Glorot are equal at depth 2, a little apart at 10; at "
    "30 He reaches 0.7 and Glorot stays near chance. Adam at depth 30: He 0.75, Glorot 0.45 to 0.65.",
)

# %%
gap, gap_adam = he[2] - glorot[2], he_adam - glorot_adam
claim("ReLU, depth 2: He and Glorot are equal (difference)", np.abs(he[0] - glorot[0]), "<", 0.05, source="this lesson")
claim("ReLU, depth 30: He minus Glorot", gap, ">", 0.2, source="deck 003, He 2015", unit="accuracy")
claim("Adam, depth 30: Glorot's start learns", glorot_adam, ">", 0.25, source="this lesson", unit="accuracy")
narrower = np.mean(gap - gap_adam)  # single seeds of a network this deep can go either way
claim("Adam narrows the gap of He and Glorot by (mean)", narrower, ">", 0.08, source="this lesson", unit="accuracy")

# %% [markdown]
# **Read the figure.** Two layers: no difference worth the name. Thirty: one learns, the other does not. He et al. (2015)
# report the same of a 30-layer rectifier network on ImageNet: it stalled under Glorot's rule and converged under
# theirs. Adam, the open markers, repairs most: the size of a gradient no longer matters, so all layers move. But the
# output begins at $10^{-5}$ of its proper size and needs time to grow. Adam hides a bad start better; it does not
# remove it.
#
# ## 6. tanh, and the sigmoid
#
# Ten tanh layers, plain SGD at 0.2, two epochs. Besides the rules we try what deck 003 calls traditional: $U(0, 1)$, "or
# better" $U(-\tfrac12, \tfrac12)$; and its worked example of "Xavier", which scales draws from $N(0, 0.01)$ by $\sqrt{1/m}$.
# **Predict** which of the seven fail.


# %%
def mlp_from(seed, draw):
    """Ten tanh layers, biases 0, with weights from draw(weight, fan_in, generator)."""
    model, generator = make_mlp(seed, 10, "tanh", "constant"), make_generator(seed)
    for layer in model.children():
        if isinstance(layer, nn.Linear):
            draw(layer.weight.data, layer.in_features, generator)
    return model


# %%
DRAWS = {
    "Glorot": lambda w, n, g: nn.init.xavier_uniform_(w, generator=g),
    "He": lambda w, n, g: w.normal_(0, (2 / n) ** 0.5, generator=g),
    "torch default (no bias)": lambda w, n, g: w.uniform_(-(n**-0.5), n**-0.5, generator=g),
    "U(−½, ½)": lambda w, n, g: w.uniform_(-0.5, 0.5, generator=g),
    "N(0, 1)": lambda w, n, g: w.normal_(0, 1, generator=g),
    "U(0, 1)": lambda w, n, g: w.uniform_(0, 1, generator=g),
    "N(0, 0.01) · √(1/m)": lambda w, n, g: w.normal_(0, 0.1, generator=g).mul_(n**-0.5),
}
tanh = {name: [accuracy(mlp_from(seed, draw), seed) for seed in SEEDS] for name, draw in DRAWS.items()}
fig, ax = plt.subplots(figsize=(8, 3.2))
plotting.plot_dots(ax, tanh, xlabel="validation accuracy after 2 epochs")
ax.set(title="Ten tanh layers; a dot is a seed", xlim=(0, 0.9))
ax.axvline(0.1, color="0.5", linestyle=":", linewidth=1)
show(
    fig,
    alt="Accuracy of ten tanh layers under seven initial distributions. Glorot and He reach about 0.8, the uniform from "
    "minus to plus one half 0.6, torch's default 0.2; N(0, 1), U(0, 1) and the scaled N(0, 0.01) are near chance.",
)

# %%
for name in ("Glorot", "He"):
    claim(f"tanh, depth 10, {name}: learns", tanh[name], ">", 0.6, source="deck 000", unit="accuracy")
for name in ("N(0, 1)", "U(0, 1)", "N(0, 0.01) · √(1/m)"):
    claim(f"tanh, depth 10, {name}: near chance", tanh[name], "<", 0.35, source="this lesson", unit="accuracy")

# %% [markdown]
# **Read the figure.** tanh is good-natured: He's factor of $\sqrt2$ costs nothing, because tanh limits what is too
# large. The worked example of deck 003 has variance $0.01/m$ where the rule wants $1/m$: a tenth per layer, $10^{-10}$
# after ten. $U(0,1)$ is not only too large; its mean of ½ makes every unit the same weighted sum, nearly the symmetry of
# section 1. And the deck's $\sqrt{1/m}$ knows fan in only: that is LeCun's rule under Glorot's name.
#
# | test error [%], five hidden layers (Glorot & Bengio 2010) | Shapeset | MNIST |
# |---|---|---|
# | tanh, the then usual $U(\pm1/\sqrt n)$ | 27.15 | 1.76 |
# | tanh, normalized (Glorot's rule) | 15.60 | 1.64 |
# | sigmoid | 82.61 | 2.21 |
#
# "The then usual" is torch's default of today. On the easy task it costs little, on the hard one twelve points.
#
# Decks 000 and 004 recommend Glorot for the sigmoid as well. Lesson 01 saw it stay at chance. Yet $\sigma(z) = \tfrac12 +
# \tfrac12\tanh(z/2)$ is only a tanh in disguise. **Predict** how weights and biases must change to undo the disguise.


# %%
def undisguised(seed):
    """Ten sigmoid layers that compute nearly what tanh with Glorot computes: weights 4×, bias -½ of their sum."""
    model = make_mlp(seed, 10, "sigmoid", "xavier_uniform")
    for layer in list(model)[::2]:  # the linear ones
        layer.weight.data *= 4
        layer.bias.data = -0.5 * layer.weight.data.sum(dim=1)
    return model


runs = [accuracy(undisguised(seed), seed) for seed in SEEDS]
claim("Sigmoid, depth 10, 4×Glorot and bias −½Σw: learns", runs, ">", 0.4, source="this lesson", unit="accuracy")

# %% [markdown]
# The slope at 0 is ¼, so four times the weights; the output centres at ½, so a bias that subtracts it. With both, ten
# sigmoid layers train without BatchNorm. Glorot's derivation assumes slope 1 and mean 0 at the origin; the sigmoid has
# neither. (Its paper studies sigmoid, tanh and softsign, not ReLU.)
#
# ## 7. SELU: a scale that repairs itself
#
# SELU's two constants, 1.0507 and 1.6733, are chosen so that under LeCun's rule a signal of mean 0 and variance 1 stays
# so. That alone is not much: He does it for ReLU. **Predict.** What happens if the *input* is ten times too large or too small?


# %%
def stds_from(activation, scheme, scale, seed):
    """Std of the activations of 50 layers of width 256 when the input has std scale."""
    model = MLP(256, [256] * 50, 10, activation=activation)
    init_weights(model, SCHEMES[scheme][0], generator=make_generator(seed))
    h, stds = scale * torch.randn(256, 256, generator=make_generator(seed + 50)), []
    for start in range(0, len(model) - 1, 2):
        h = model[start : start + 2](h).detach()
        stds.append(h.std().item())
    return stds


# %%
SCALES, ends = (10, 1, 0.1), {}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.1), sharey=True)
for ax, (activation, scheme) in zip(axes, (("relu", "He normal"), ("selu", "LeCun normal")), strict=True):
    for index, scale in enumerate(SCALES):
        runs = np.array([stds_from(activation, scheme, scale, seed) for seed in SEEDS])
        ends[activation, scale] = runs[:, -1]
        plot_seeds(ax, range(1, 51), runs, color=style(index)["color"])
    ax.set(yscale="log", xlabel="layer", title=f"{activation}, {scheme}", ylim=(0.03, 30))
for index, scale in enumerate(SCALES):
    axes[0].annotate(f"input {scale:g}", (1, 1.25 * scale), color=style(index)["color"])
axes[0].set_ylabel("std of activations")
show(
    fig,
    alt="Std of the activations over 50 layers for inputs of std 10, 1 and 0.1. With ReLU and He three separate bands stay "
    "about a decade apart. With SELU and LeCun the three lines run together at 1 within about twenty layers.",
)
off, ratio = np.abs([ends["selu", scale] - 1 for scale in SCALES]).max(axis=0), ends["relu", 10] / ends["relu", 0.1]
claim("SELU, LeCun: input std 0.1 to 10 ends at 1 (worst distance)", off, "<", 0.2, source="deck 000")
claim("ReLU, He: inputs 100 times apart end so (ratio)", ratio, ">", 30, source="this lesson")

# %% [markdown]
# **Read the figure.** ReLU is homogeneous: whatever factor comes in goes out. SELU is not, and 1 is an *attracting*
# fixed point. Only under LeCun's rule: under He's the map of section 3 shows a gradient that grows a hundredfold.
#
# ## 8. In torch
#
# `torch.nn.init` works in place (hence the trailing underscore) and outside of autograd. `model.apply(f)` calls `f` on
# every module, deepest first. That is all one needs.


# %%
def he_init(module):
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(module.bias)


generator = make_generator(3)
by_apply = MLP(784, [100, 100], 10).apply(he_init)
ours = make_mlp(3, 2, "relu", "kaiming_normal")
for name, parameter in by_apply.named_parameters():
    torch.testing.assert_close(parameter, ours.get_parameter(name))

layer = nn.Linear(784, 100)
try:
    nn.init.xavier_uniform_(layer.bias)  # as deck 003 prints it
except ValueError as error:
    print(error)

# %% [markdown]
# A bias is a vector: it has no fan out, and `xavier_uniform_` says so. Use `zeros_`. Two more traps. The default of
# `kaiming_…_` is `nonlinearity="leaky_relu"` with slope 0, which happens to be ReLU. And `calculate_gain("selu")` is ¾, not
# the 1 that self-normalization needs; take `"linear"`.
#
# ## 9. Beyond the rules
#
# ### Orthogonal matrices
#
# The rules keep the *average* size. **Predict.** Multiply fifty 100×100 matrices with LeCun's variance. Each keeps
# lengths on average. Of the 100 directions that enter, how many come out with more than a tenth of their length?

# %%
products = {"LeCun normal": [], "orthogonal": []}
for name, runs in products.items():
    for seed in SEEDS:
        model = MLP(100, [100] * 49, 100, activation="identity").double()
        init_weights(model, SCHEMES[name][0], generator=make_generator(seed))
        weights = [layer.weight.detach() for layer in list(model)[::2]]
        runs.append(torch.linalg.svdvals(torch.linalg.multi_dot(weights[::-1])).numpy())
fig, ax = plt.subplots(figsize=(7, 3.1))
for index, (name, runs) in enumerate(products.items()):
    plot_seeds(ax, range(1, 61), np.array(runs)[:, :60], label=name, color=style(index)["color"])
ax.set(yscale="log", xlabel="direction, by size", ylabel="factor of its length", xlim=(0, 61), ylim=(1e-10, 100))
ax.set_title("A product of fifty matrices")
label_line_ends(ax)
show(
    fig,
    alt="Singular values of a product of fifty 100 by 100 matrices. Orthogonal: all exactly 1. LeCun normal: the largest is "
    "about 10, the twelfth near 0.1, the sixtieth 1e-10.",
)
alive = [(run > 0.1).sum() for run in products["LeCun normal"]]
spread = [run[0] / run[-1] - 1 for run in products["orthogonal"]]
claim("Fifty Gaussian matrices: of 100 directions few survive", alive, "<", 25, source="this lesson")
claim("Fifty orthogonal matrices: largest/smallest − 1", spread, "<", 1e-9, source="Saxe et al. 2014")

# %% [markdown]
# **Read the figure.** On average the length is kept, but about twelve directions carry all of it. Orthogonal matrices keep
# *every* direction; Saxe et al. (2014) show that linear networks then learn at a pace that depth does not slow. With
# activations in between exactness is lost: in the map of section 3 the orthogonal row is no better than LeCun's.
#
# ### LSUV: do not predict, measure
#
# For GELU, SiLU or ELU the rules have no constant. **Layer-sequential unit variance** (Mishkin & Matas 2016) needs none:
# start orthogonal, send one batch, and divide each layer's weights by the standard deviation of its own output, in order.


# %%
@torch.no_grad()
def lsuv_by_hand(model, inputs, generator):
    """Orthogonal weights, then every Linear's output on the batch gets std 1; for a Sequential model."""
    init_weights(model, "orthogonal", generator=generator)
    h = inputs
    for module in model:
        if isinstance(module, nn.Linear):
            module.weight /= module(h).std()
        h = module(h)
    return model


batch = train_set[0][:256]
by_hand = lsuv_by_hand(make_mlp(0, 30, "silu", "constant"), batch, make_generator(0))
twin = init.lsuv(make_mlp(0, 30, "silu", "constant"), batch, tol=1e-9, max_iterations=1, generator=make_generator(0))
for a, b in zip(by_hand.parameters(), twin.parameters(), strict=True):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)

# %% [markdown]
# The tested twin, `init.lsuv`, also follows models that are no `Sequential` and refuses batches that cannot tell. Now
# thirty layers of two activations for which He's $2/n$ is wrong, one too large, one too small.
#
# **Predict** which of the two has how much to gain.

# %%
wrong = {}
for activation, name in itertools.product(("elu", "silu"), ("He", "LSUV")):
    wrong[f"{activation}, {name}"] = runs = []
    for seed in SEEDS:
        model = make_mlp(seed, 30, activation, "kaiming_normal")
        if name == "LSUV":
            init.lsuv(model, batch, generator=make_generator(seed))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.006, momentum=0.9)
        runs.append(accuracy(model, seed, optimizer=optimizer))
fig, ax = plt.subplots(figsize=(7.5, 2.6))
plotting.plot_dots(ax, wrong, xlabel="validation accuracy after 2 epochs")
ax.set(title="Thirty layers, no formula needed", xlim=(0, 0.9))
ax.axvline(0.1, color="0.5", linestyle=":", linewidth=1)
show(
    fig,
    alt="Thirty layers of ELU: He scatters between chance and 0.5, LSUV reaches 0.8 with every seed. Thirty layers of SiLU: "
    "He stays at chance, LSUV scatters between 0.15 and 0.55.",
)

# %%
sigmoid = init.lsuv(make_mlp(0, 30, "sigmoid", "constant"), batch, generator=make_generator(0))
last = sigmoid[:59](batch).detach()  # what the thirtieth linear layer puts out
print(f"sigmoid, LSUV, layer 30: std {last.std():.2f}, between pictures {last.std(dim=0).mean():.0e}")
gain = np.subtract(wrong["elu, LSUV"], wrong["elu, He"])
claim("ELU, depth 30, LSUV: learns", wrong["elu, LSUV"], ">", 0.6, source="Mishkin & Matas 2016", unit="accuracy")
claim("ELU, depth 30: LSUV minus He", gain, ">", 0.15, source="this lesson", unit="accuracy")

# %% [markdown]
# **Read the figure.** ELU gains everything. SiLU gets off the ground, with a wide spread: scale is a necessary
# condition, not a sufficient one. And the sigmoid fools LSUV: the printed line shows standard deviation 1 made of
# differences between *units*, while the pictures have become one. It is section 4 again.
#
# ## 10. When BatchNorm takes over
#
# BatchNorm (lesson 03) divides each sum by its standard deviation over the batch, at *every* step. A factor in the
# weights cancels.
#
# **Predict.** Five ReLU layers, weights from $N(0, s^2)$ with $s$ from 0.001 to 3. Over which range of $s$ does the network
# train, without and with BatchNorm?

# %%
stds, by_norm = (0.001, 0.01, 0.1, 1.0, 3.0), {}
for norm in (None, "batch"):
    runs = [[accuracy(make_mlp(s, 5, "relu", "normal", std=std, norm=norm), s) for std in stds] for s in SEEDS]
    by_norm[norm] = np.array(runs)
fig, ax = plt.subplots(figsize=(7, 3.1))
plot_seeds(ax, stds, by_norm["batch"], label="BatchNorm", **style(0))
plot_seeds(ax, stds, by_norm[None], label="without", **style(1))
he_std = init.kaiming_std(100)
ax.axvline(he_std, color="0.5", linestyle=":", linewidth=1)
ax.annotate(f"He: {he_std:.2f}", (he_std * 1.1, 0.02), color="0.4")
ax.set(xscale="log", xlabel="std of the initial weights", ylabel="validation accuracy", ylim=(0, 0.9))
label_line_ends(ax)
ax.set_title("Five ReLU layers")
show(
    fig,
    alt="Accuracy against the std of the initial weights from 0.001 to 3. Without BatchNorm only 0.1, near He's value, learns; "
    "all others are at chance. With BatchNorm every std learns, best at 0.1, and 3 still reaches 0.6.",
)
worst, others = by_norm["batch"].min(axis=1), by_norm[None][:, [0, 1, 3, 4]].max(axis=1)
claim("BatchNorm: std 0.001 to 3 all learn (worst accuracy)", worst, ">", 0.4, source="deck 003")
claim("Without BatchNorm only std 0.1 learns (best of the others)", others, "<", 0.3, source="deck 003")

# %% [markdown]
# **Read the figure.** Three and a half decades instead of one point. But the curve is not flat. A factor cancels in the
# forward pass only; the gradient shrinks by it, so that a step moves weights twice as large only a quarter as far,
# relative to their size. Large weights act like a small learning rate. "Less important anyway" (deck 003) is right,
# "unimportant" would not be.

# %% [markdown]
# ## Exercises
#
# Seven, from five minutes to twenty-five. Fill in the line that says `your code here`, or replace the `...`; the cell below
# answers at once, as often as you like. Open a hint only after a try of your own.

# %%
from course_utils.homework import lesson_02, progress
from course_utils.homework.lesson_02 import (
    check_different_rows,
    check_factor,
    check_gain,
    check_orthogonal,
    check_rule_std,
    check_sizes,
    check_std_of_sum,
)

# %% [markdown]
# ### Exercise 2.1. Gray pictures ★ (5 min)
#
# Somebody forgot to standardize: the 784 pixels lie between 0 and 1, with mean 0.3 and standard deviation 0.4. The weights
# follow LeCun's rule. **Predict** the standard deviation of a sum $z$ over many draws of the weights.
#
# <details><summary>Hint 1: a nudge</summary>
#
# Section 2: note what is *not* in the formula.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $\operatorname{E}[x^2] = \operatorname{Var}(x) + (\operatorname{E}[x])^2$; multiply by $n\operatorname{Var}(w)$; take the root.
# </details>

# %%
std_of_sum = ...  # a number
### BEGIN SOLUTION
std_of_sum = np.sqrt(0.4**2 + 0.3**2)
### END SOLUTION

# %%
check_std_of_sum(std_of_sum)

# %% [markdown]
# ### Exercise 2.2. Copies with different listeners ★ (5 min)
#
# A network 784-100-10 with tanh. The hundred hidden units start as exact copies: equal incoming weights, biases 0. But the
# *outgoing* weights, those of the second layer, are random. **Predict**: how many different rows has the gradient of the
# first weight matrix in step 1, on 200 pictures of ten classes: 1, 10 or 100?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Follow the gradient back from the output to one hidden unit. Which weights does it meet?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# $\Delta_1 = (\Delta_2 W_2) \odot \varphi'(Z_1)$. The second factor is the same for all units. Is the first?
# </details>

# %%
different_rows = ...  # 1, 10 or 100
### BEGIN SOLUTION
different_rows = 100
### END SOLUTION

# %%
check_different_rows(different_rows)

# %% [markdown]
# ### Exercise 2.3. Three rules for one matrix ★ (8 min)
#
# Write the table of section 2 as a function: the standard deviation of the *normal* form for a given weight, as torch
# stores it. `rule` is `"lecun"`, `"glorot"` or `"he"`. **Predict** which of the three is the smallest for a weight that
# leads from 100 to 784 units.
#
# <details><summary>Hint 1: a nudge</summary>
#
# `nn.Linear(784, 100).weight.shape` is `(100, 784)`. How many products does one unit add up?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Unpack `fan_out, fan_in = weight.shape`; a dictionary from the rule's name to the variance; one root at the end.
# </details>


# %%
def rule_std(weight, rule):
    """weight: (out, in), rule: "lecun", "glorot" or "he" → a standard deviation."""
    ### BEGIN SOLUTION
    fan_out, fan_in = weight.shape
    variances = {"lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in}
    return math.sqrt(variances[rule])
    ### END SOLUTION


# %%
check_rule_std(rule_std)

# %% [markdown]
# ### Exercise 2.4. The size of the signal, layer by layer ★★ (15 min)
#
# Forecast a network without building it. Its widths are `widths`, from the input on; layer $k$ has weights of mean 0 and
# standard deviation `stds[k]`, no bias, and a ReLU behind it. The input has $\operatorname{E}[x^2]$ = `square`. Return
# $\operatorname{E}[z^2]$ of each layer's sums, in front of its ReLU. **Predict**: what do you get for every layer if `square`
# is 1 and all weights follow He's rule?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Section 2 has both halves: what a sum does to $\operatorname{E}[x^2]$, and what a ReLU leaves of $\operatorname{E}[z^2]$.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Keep one number, the $\operatorname{E}[x^2]$ that enters the layer. Per layer: multiply by $n\sigma^2$, store it, then halve it.
# </details>


# %%
def forecast_squares(widths, stds, square):
    """widths: list of L + 1 sizes, stds: list of L numbers, square: number → (L,) float64 tensor of E[z²]."""
    ### BEGIN SOLUTION
    forecast = []
    for fan_in, std in zip(widths[:-1], stds, strict=True):
        forecast.append(fan_in * std**2 * square)
        square = forecast[-1] / 2
    return torch.tensor(forecast, dtype=torch.float64)
    ### END SOLUTION


# %%
check_sizes(forecast_squares)

# %% [markdown]
# ### Exercise 2.5. A gain for any bend ★★ (10 min)
#
# He's $\sqrt2$ is a *gain*: LeCun's weights times the gain keep the size of the signal. For GELU no table has one. Measure it:
# `z` holds random numbers from $N(0, 1)$; by which factor must $\varphi(z)$ be multiplied so that its mean square is 1?
# **Predict** whether SiLU needs more or less than ReLU.
#
# <details><summary>Hint 1: a nudge</summary>
#
# Why He has a 2: what counts for the next layer is $\operatorname{E}[h^2]$, the mean of $h$ included.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Square, mean over all numbers, root, one over it.
# </details>


# %%
def measured_gain(activation, z):
    """activation: a function of a tensor, z: a tensor of any shape → one number."""
    ### BEGIN SOLUTION
    return 1 / activation(z).square().mean().sqrt()
    ### END SOLUTION


# %%
check_gain(measured_gain)

# %% [markdown]
# ### Exercise 2.6. A factor for a leakier ReLU ★★ (8 min)
#
# A ReLU that lets *half* of the negative sums through: $z$ if $z > 0$, else $z/2$. LeCun's factor $n\operatorname{Var}(w) = 1$ is
# too small for thirty layers of it, He's 2 too large. **Predict** the right one from the derivation of He's rule; then
# change the constant `TRIED_FACTOR` and run the cell again to test it.
#
# <details><summary>Hint 1: a nudge</summary>
#
# For a symmetric bell each side holds half of $\operatorname{E}[z^2]$. What does the left one keep?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Halving $z$ divides $z^2$ by 4. So $\tfrac12 + \tfrac12\cdot\tfrac14$ of $\operatorname{E}[z^2]$ is left, and the factor makes up for it.
# </details>

# %%
TRIED_FACTOR = 2.0  # change it, and run the cell again
generator = make_generator(0)
h, tried_sizes = torch.randn(256, 256, generator=generator), []
for _ in range(30):
    h = F.leaky_relu(h @ torch.randn(256, 256, generator=generator) * math.sqrt(TRIED_FACTOR / 256), 0.5)
    tried_sizes.append(h.square().mean().sqrt().item())
print("size after 1, 10, 20 and 30 layers:", [round(tried_sizes[k], 3) for k in (0, 9, 19, 29)])

# %%
leaky_factor = ...  # n·Var(w), a number
### BEGIN SOLUTION
leaky_factor = 1.6
### END SOLUTION

# %%
check_factor(leaky_factor)

# %% [markdown]
# ### Exercise 2.7. A random rotation ★★★ (25 min)
#
# Section 9's orthogonal matrices, from scratch: draw numbers from $N(0, 1)$ and make them orthonormal. If there are at most
# as many rows as columns, the *rows* shall be at right angles and have length `gain`; otherwise the columns. All draws come
# from `generator`. And no direction may be preferred: the check draws 64 matrices and looks. **Predict** what could go wrong
# with `torch.linalg.qr` there.
#
# <details><summary>Hint 1: a nudge</summary>
#
# `torch.linalg.qr` of a tall matrix gives orthonormal columns. What about a wide one? And print `q[0, 0]` for ten seeds.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Draw the tall form, larger side first, and transpose at the end if needed. Multiply each column of $Q$ by the sign of its
# number on $R$'s diagonal: that makes the factorization unique, and $Q$ fair. The singular vectors of `svd` do it too.
# </details>


# %%
def orthogonal(fan_out, fan_in, gain, generator):
    """→ (fan_out, fan_in) tensor, orthonormal along its shorter side, times gain."""
    ### BEGIN SOLUTION
    tall = torch.randn(max(fan_out, fan_in), min(fan_out, fan_in), generator=generator)
    q, r = torch.linalg.qr(tall)
    q = gain * q * r.diagonal().sign()
    return q if fan_out >= fan_in else q.T
    ### END SOLUTION


# %%
check_orthogonal(orthogonal)

# %%
progress(lesson_02)

# %% [markdown]
# ## Recap
#
# - **Explain:** units that start equal get equal gradients; a constant layer has rank 1, before and after training.
# - **Derive:** $\operatorname{Var}(z) = n\operatorname{Var}(w)\operatorname{E}[x^2]$. LeCun sets it to 1, Glorot splits
#   forward and backward, He pays for the half that ReLU removes.
# - **Choose:** LeCun for SELU, Glorot for tanh, He for ReLU. With two layers it hardly matters which; at thirty it decides.
# - **Apply:** `model.apply` and `nn.init.…_`; the default is $U(\pm1/\sqrt n)$ for weights *and* biases, of std $0.577/\sqrt n$.
# - **Go beyond:** orthogonal for all directions, LSUV where no constant is known, BatchNorm to keep it so in training.
#
# ## Pitfalls
#
# - A healthy standard deviation can be bias alone. Measure the differences *between inputs*.
# - $N(0, \sqrt{2/n})$ in deck 004 gives the standard deviation; most books write the variance there. `normal_` takes the std.
# - "Fan in" is the *second* dimension of torch's `weight`, whose shape is (out, in).
# - Re-initialize before you create the optimizer, or at least in place; a new `nn.Parameter` is one it does not know.
# - All of this is about step 0. A learning rate that is too large undoes the best start in one step (lesson 01).
#
# ## Errata of the decks
#
# - `000_467c1bb93614480d`: torch's default is not LeCun's but $U(\pm1/\sqrt n)$, std $0.577/\sqrt n$ (section 4). He's and
#   LeCun's rules have uniform forms (section 2). "He for ReLU and variants" does not hold for GELU, SiLU and SELU (section
#   3). Glorot for the sigmoid stays at chance at depth 10 (lesson 01; repaired in section 6). Glorot & Bengio did not
#   study ReLU.
# - `003_f7e7d77f8dafb44a`: `xavier_uniform_(m.bias)` raises an error (section 8). The Xavier example gives variance $0.01/m$
#   instead of $1/m$, and a factor with fan in alone is LeCun's (section 6). Linear and convolution layers share one
#   default (section 4). Weights from $U(0, 1)$ hardly train (section 6). The worked example starts from equal weights, so
#   its hidden units stay identical forever (section 1; lesson 00 recomputes it).
# - `004_6954d930ac6e5b54`: torch's biases do not start at 0 but at $U(\pm1/\sqrt n)$ (section 4). The sigmoid is not
#   symmetric around 0, so Glorot's rule does not suit it (section 6). $N(0, \sqrt{2/n})$ names the standard deviation.
#
# ## Sources
#
# - Decks `000_467c1bb93614480d`, `003_f7e7d77f8dafb44a`, `004_6954d930ac6e5b54`.
# - Y. LeCun, L. Bottou, G. Orr, K.-R. Müller: *Efficient BackProp*, in: Neural Networks: Tricks of the Trade, 1998.
# - X. Glorot, Y. Bengio: *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010.
# - K. He et al.: *Delving deep into rectifiers*, ICCV 2015.
# - A. Saxe, J. McClelland, S. Ganguli: *Exact solutions to the nonlinear dynamics of learning in deep linear neural
#   networks*, ICLR 2014.
# - D. Mishkin, J. Matas: *All you need is a good init*, ICLR 2016.
# - G. Klambauer et al.: *Self-normalizing neural networks*, NeurIPS 2017.
