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
# # 01. Why did deep networks refuse to learn?
#
# <!-- badges -->
# [Open in Colab](https://colab.research.google.com/github/mlp-course/mlp-course/blob/main/notebooks/01_unstable_gradients.ipynb) ·
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/mlp-course/mlp-course/blob/main/notebooks/01_unstable_gradients.ipynb) ·
# [Binder](https://mybinder.org/v2/gh/mlp-course/mlp-course/main?urlpath=lab/tree/notebooks/01_unstable_gradients.ipynb) ·
# [Download](https://raw.githubusercontent.com/mlp-course/mlp-course/main/notebooks/01_unstable_gradients.ipynb)
#
# Until about 2006, whoever stacked more than three or four fully connected layers soon gave up: the loss was a flat line.
# The code had no bug, the data were fine, and a network with one hidden layer learned the same task at once. In this
# lesson you build that flat line yourself, find out what it is made of, and remove it in four different ways.
#
# ## You will be able to …
#
# - **explain** with one product why the gradient of a deep network vanishes or explodes,
# - **measure** gradients, saturation and dead units layer by layer, with hooks you could write yourself,
# - **recognize** five sicknesses by their loss curve, and confirm each with a number,
# - **localize** the step and the layer where a NaN was born,
# - **choose** between the cures (activation, initialization, BatchNorm, clipping) knowing what each does not do.
#
# **Prerequisites:** the chain rule; lesson 00 or any first network in PyTorch. **Time:** 75 minutes.
# **Lecture:** decks `000_467c1bb93614480d` (problem 1) and `001_0a346410c39b1d06` (instability of gradients).

# %% [markdown]
# ## Set-up
#
# The data are 28×28 pictures of clothes in ten classes (Fashion-MNIST), flattened to 784 numbers and standardized. We
# train on 6,000 and judge on 2,000 others. The test set stays closed: nothing here needs a final verdict. Comparisons
# run over the same three seeds, which fix both the initial weights and the order of the batches.

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

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils import plotting
from course_utils.claims import claim
from course_utils.datasets import load_fashion_mnist
from course_utils.init import init_weights
from course_utils.models import MLP
from course_utils.monitoring import GradientMonitor, dead_fraction, diagnose, saturated_fraction
from course_utils.plotting import label_line_ends, plot_seeds, sequence_colors, show, style
from course_utils.reproducibility import make_generator, set_up
from course_utils.training import LiveLossPlot, NonFiniteLossError, fit
from course_utils.widgets import canvas, explorer

set_up(seed=0)
plotting.use_theme()
SEEDS = (0, 1, 2)
train_set, val_set, _ = load_fashion_mnist().tensors(n_train=6000, n_val=2000)
probe = train_set[0][:512], train_set[1][:512]  # one fixed batch to look at gradients with

# %% [markdown]
# ## 1. A gradient is a product
#
# **Predict.** Ten sigmoid neurons stand in a row; each passes its output to the next. You nudge the first input by 1.
# Does the last output move by about 1, about a tenth, or about a millionth? And what if every weight is 8? Write your
# two answers down.
#
# The chain rule multiplies one factor per neuron: the slope of its activation times its weight.
#
# $$\frac{\partial h_L}{\partial h_0} \;=\; \prod_{k=1}^{L} w_k\,\sigma'(z_k), \qquad z_k = w_k h_{k-1} + b_k$$
#
# | symbol | in code | meaning |
# |---|---|---|
# | $L$ | `n_layers` | number of neurons in the chain |
# | $h_k$ | `h` | output of neuron $k$; $h_0$ is the input |
# | $w_k, b_k$ | `weight` | weight and bias of neuron $k$ |
# | $\sigma'(z_k)$ | | slope of the activation where neuron $k$ works |
#
# A product of ten similar factors leaves no middle ground: ten times 0.9 is 0.35, ten times 0.5 is 0.001. So look at the
# slope first. How large can it be?

# %%
z = torch.linspace(-6, 6, 401, dtype=torch.float64, requires_grad=True)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
slopes = {}
for index, (name, function) in enumerate({"sigmoid": torch.sigmoid, "tanh": torch.tanh, "ReLU": torch.relu}.items()):
    (slopes[name],) = torch.autograd.grad(function(z).sum(), z)
    axes[0].plot(z.detach(), function(z).detach(), color=style(index)["color"])
    axes[1].plot(z.detach(), slopes[name], color=style(index)["color"], label=name)
axes[0].set(xlabel="z", ylabel="activation", title="What goes forward", ylim=(-1.1, 1.6))
axes[1].set(xlabel="z", ylabel="slope", title="What comes back is multiplied by this")
axes[1].axhline(0.25, color="0.5", linestyle=":", linewidth=1)
label_line_ends(axes[1])
show(
    fig,
    alt="Left: sigmoid, tanh and ReLU. Right: their slopes. The sigmoid's peaks at a quarter, tanh's at one, ReLU's is zero "
    "on the left and one on the right.",
)
claim("The sigmoid's slope never exceeds one quarter", slopes["sigmoid"].max(), "<=", 0.25, source="deck 001")

# %% [markdown]
# **Read the figure.** The sigmoid's slope is largest at $z=0$ and only ¼ there: $\sigma' = \sigma(1-\sigma)$ is a product
# of two numbers that add up to 1. Tanh reaches 1, but only at 0. ReLU has slope 1 on its whole right half.
#
# Now the chain, in five lines. The bias is chosen so that an input of ½ comes out as ½ again. Every neuron then works
# at $z=0$, at its steepest, and the formula predicts exactly $(w/4)^L$.


# %%
def chain_gradient(n_layers, weight, start=0.5):
    """The gradient of the last output by the first input, for neurons sigmoid(weight·h - weight/2)."""
    h = x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    for _ in range(n_layers):
        h = torch.sigmoid(weight * h - weight / 2)
    return torch.autograd.grad(h, x)[0].item()


for weight in (1, 2, 4, 8):
    print(f"w = {weight}: autograd {chain_gradient(10, weight):10.3g}   (w/4)^10 = {(weight / 4) ** 10:10.3g}")

# %% [markdown]
# With $w=1$ less than a millionth arrives: that is the famous $0.25^{10}$. But look at the other rows. With $w=4$ the
# gradient passes *unharmed*, and with $w=8$ it grows a thousandfold, sigmoid or not. The quarter alone does not decide;
# **weight times slope** does. So why not just make the weights large?

# %%
lengths = np.arange(1, 21)
fig, ax = plt.subplots()
for color, start in zip(sequence_colors(4), (0.5, 0.501, 0.51, 0.6), strict=True):
    gradients = [chain_gradient(int(n), 8, start) for n in lengths]
    ax.plot(lengths, gradients, color=color, marker="o", label=f"w = 8, input {start}")
ax.plot(lengths, [chain_gradient(int(n), 1) for n in lengths], color="0.5", linestyle="--", label="w = 1, input 0.5")
ax.set(yscale="log", xlabel="neurons in the chain", ylabel="gradient", title="Weight 8: balanced on a knife's edge")
ax.xaxis.set_major_locator(plt.MultipleLocator(5))
label_line_ends(ax)
show(
    fig,
    alt="Gradient against chain length for weight 8. Started at exactly one half it grows without end; started at 0.501, "
    "0.51 or 0.6 it grows at first and then falls more steeply than the chain of weight 1.",
)
exact = [chain_gradient(10, 1) / 0.25**10 - 1, chain_gradient(10, 4) - 1]
claim("Ten sigmoids: 0.25¹⁰ is exact for w = 1 (relative error)", abs(exact[0]), "<", 1e-12, source="deck 001")
claim("Ten sigmoids: for w = 4 the gradient stays 1 (error)", abs(exact[1]), "<", 1e-12, source="this lesson")
claim("Ten sigmoids: for w = 8, input 0.6, it is lost", chain_gradient(10, 8, 0.6), "<", 1e-4, source="this lesson")

# %% [markdown]
# **Read the figure.** Only an input of exactly ½ keeps every neuron steep. Any other value is pushed away from ½, layer
# by layer, until the neurons sit on the flat ends of the sigmoid: they are *saturated*, and from there on each costs
# more than a quarter's worth. Large weights trade one sickness for another. Initialization (lesson 02) looks for the
# narrow place between them; BatchNorm (lesson 03) keeps the network there.
#
# ## 2. The same product, layer by layer in a network
#
# In a network the factors are matrices, but the story is the same. Our patient has ten hidden layers of 100 units.
#
# **Predict.** Torch initializes it for you; you use sigmoids. By which factor is the gradient of layer 1 smaller than
# that of layer 10? A hundred, ten thousand, a million? *By hand* the answer takes one backward pass: afterwards each
# weight carries its gradient in `.grad`.


# %%
def make_mlp(seed, *, depth=10, activation="relu", init="torch_default", norm=None):
    """An MLP 784-100×depth-10 whose weights depend on the seed alone."""
    return MLP(784, [100] * depth, 10, activation=activation, norm=norm, init=init, generator=make_generator(seed))


model = make_mlp(seed=0, activation="sigmoid")
F.cross_entropy(model(probe[0]), probe[1]).backward()
for name, parameter in model.named_parameters():
    if name.endswith("weight"):
        print(f"{name:16s} {parameter.grad.norm():.1e}")

# %% [markdown]
# During training the gradients are overwritten 94 times an epoch, so we want to be called each time. That is what a
# **hook** is: a function torch calls when something happens, here when a weight's gradient is complete. Hooks stay
# until they are removed, so a **context manager** that removes them, error or not, is the safe form. That is
# `GradientMonitor`; its numbers must equal those collected by hand.

# %%
weights = {name.removesuffix(".weight"): p for name, p in model.named_parameters() if name.endswith("weight")}
by_hand = {}


def remember(name):
    return lambda parameter: by_hand.update({name: parameter.grad.norm().item()})


handles = [weight.register_post_accumulate_grad_hook(remember(name)) for name, weight in weights.items()]
with GradientMonitor(model) as monitor:
    model.zero_grad()
    F.cross_entropy(model(probe[0]), probe[1]).backward()
for handle in handles:
    handle.remove()  # forget this, and the hook keeps running in every later cell

for name, norm in monitor.latest().items():
    np.testing.assert_allclose(norm, by_hand[name], rtol=1e-5)
print(f"{len(by_hand)} layers, the same numbers twice")

# %%
RECIPES = {
    "sigmoid, torch default": {"activation": "sigmoid"},
    "tanh, Glorot": {"activation": "tanh", "init": "xavier_uniform"},
    "ReLU, torch default": {"activation": "relu"},
    "ReLU, He": {"activation": "relu", "init": "kaiming_normal"},
}


def gradient_profile(model):
    """The gradient norm of every layer's weight on the probe batch, from the input to the output."""
    with GradientMonitor(model) as monitor:
        F.cross_entropy(model(probe[0]), probe[1]).backward()
    model.zero_grad()
    return np.array(list(monitor.latest().values()))


# %%
profiles = {name: [gradient_profile(make_mlp(seed, **kind)) for seed in SEEDS] for name, kind in RECIPES.items()}
fig, ax = plt.subplots(figsize=(7.5, 3.8))
plotting.plot_depth_profile(ax, profiles, ylabel="gradient norm of the weights")
ax.set_title("Before the first step")
show(
    fig,
    alt="Gradient norm per layer on a logarithmic axis. For the sigmoid it falls by a factor of ten per layer towards the "
    "input, down to 1e-8; tanh with Glorot and ReLU with He are flat; ReLU with torch's default falls by a factor of "
    "about fifty and levels off.",
)
ratio = {name: np.array([p[0] / p[9] for p in runs]) for name, runs in profiles.items()}
claim("Sigmoid: gradient of layer 1 over layer 10", ratio["sigmoid, torch default"], "<", 1e-5, source="deck 001")
for name in ("tanh, Glorot", "ReLU, He"):
    decades = np.abs(np.log10(ratio[name]))
    claim(f"{name}: the same ratio is 1 within a factor of ten", decades, "<", 1, source="deck 000", unit="decades")

# %% [markdown]
# **Read the figure.** Nine sigmoid layers cost the gradient seven powers of ten: a step at learning rate 0.1 moves all
# 78,400 weights of the first layer together by a billionth. The network is not *wrong* there, it is *standing still*. Tanh with Glorot's
# initialization and ReLU with He's are flat from end to end. The notable case is ReLU with torch's default: no
# saturation at all, yet the gradient fades. A good activation is not enough if the weights are too small for it.
#
# ### Turn the knobs
#
# Two knobs decide the profile: depth, and the scale of the weights (their standard deviation times
# $\sqrt{\text{fan in}}$, so that 1 is LeCun's and $\sqrt 2$ He's). Move them; where widgets don't run, the map below
# holds the answers.


# %%
def scaled_mlp(activation, depth, scale):
    """An MLP whose weights have standard deviation scale/√fan_in and whose biases are 0."""
    model = MLP(784, [100] * depth, 10, activation=activation, init="lecun_normal", generator=make_generator(0))
    for parameter in model.parameters():
        parameter.data *= scale
    return model


def explore(activation="sigmoid", depth=10, scale=1.0):
    """Draw the gradient profile for one setting of the knobs."""
    fig, ax = canvas(7, 2.8, left=1)
    profile = gradient_profile(scaled_mlp(activation, depth, scale))
    ax.semilogy(range(1, depth + 2), np.maximum(profile, 1e-30), **style(0))
    ax.set(xlabel="layer (1 is next to the input)", ylabel="gradient norm", ylim=(1e-12, 1e6), xlim=(0, depth + 2))
    ax.set_title(f"{depth} layers of {activation}, weight scale {scale:.1f}")
    ax.set_yticks([1e-12, 1e-6, 1, 1e6], ["1e−12", "1e−6", "1", "1e6"])
    ax.minorticks_off()  # few marks, plainly written: the picture is drawn with every move
    show(fig, alt=f"Gradient norm per layer for {depth} layers of {activation} at weight scale {scale:.1f}.")


explorer(explore, activation=["sigmoid", "tanh", "relu"], depth=(1, 30), scale=(0.2, 8.0, 0.1))

# %%
depths, scales = [2, 5, 10, 20, 30], [0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.1), sharey=True)
for ax, activation in zip(axes, ("sigmoid", "tanh", "relu"), strict=True):
    first = [[gradient_profile(scaled_mlp(activation, depth, scale))[0] for scale in scales] for depth in depths]
    decades = np.log10(np.clip(first, 1e-12, 1e12))
    image = ax.imshow(decades, cmap=plotting.DIVERGING, vmin=-8, vmax=8, aspect="auto", origin="lower")
    ax.set(title=activation, xlabel="weight scale", xticks=range(len(scales)), xticklabels=scales)
    ax.grid(False)
axes[0].set(ylabel="hidden layers", yticks=range(len(depths)), yticklabels=depths)
fig.colorbar(image, ax=axes, label="layer-1 gradient [log10]", ticks=[-8, -4, 0, 4, 8])
show(
    fig,
    alt="Three maps of the gradient norm of layer 1 by weight scale and depth. The sigmoid is blue (vanishing) almost "
    "everywhere; tanh turns from blue to red near scale 1; ReLU near scale 1.4, more sharply the deeper the network.",
)

# %% [markdown]
# **Read the figure.** White is a gradient norm near 1, blue vanishes, red explodes, and depth deepens both colours. Each
# activation has its own white column: near 1 for tanh, near $\sqrt 2$ for ReLU, for the sigmoid only at the far right.
# The deeper the network, the narrower the column. That is why "just initialize it somehow" worked with two layers
# and failed with ten.
#
# ## 3. Watch it during training
#
# **Predict.** We train the sigmoid network for five epochs. Will its early layers wake up, once the late ones have
# learned something?


# %%
def train(model, seed, *, lr=0.1, max_epochs=5, on_nonfinite="stop", **options):
    """Plain SGD with batches of 64; a loss that is no longer finite just ends the run, unless told otherwise."""
    sgd = torch.optim.SGD(model.parameters(), lr=lr, fused=True)  # fused: the same steps, a tenth quicker
    options |= {"loss_fn": F.cross_entropy, "optimizer": sgd, "val": val_set}
    return fit(model, train_set, max_epochs=max_epochs, seed=seed, on_nonfinite=on_nonfinite, **options)


monitors = {}
for name in ("sigmoid, torch default", "ReLU, He"):
    model = make_mlp(seed=0, **RECIPES[name])
    with GradientMonitor(model) as monitors[name]:
        train(model, seed=0, callbacks=[LiveLossPlot()] if name == "ReLU, He" else [])

# %% [markdown]
# The live plot redraws while training runs; here you see its last state, for ReLU. The monitor has meanwhile recorded
# one norm per layer and step:

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
for ax, (name, monitor) in zip(axes, monitors.items(), strict=True):
    monitor.plot(ax=ax)
    ax.set(title=name, ylabel="gradient norm" if ax is axes[0] else "")
show(
    fig,
    alt="Gradient norms over 470 steps. Left, sigmoid: eleven parallel lines, each about a decade below the next, and none "
    "moves. Right, ReLU with He: all layers lie together between 0.3 and 4.",
)

# %% [markdown]
# **Read the figure.** Left, eleven parallel lines: nothing wakes up. The output layer learns how frequent each class is
# (all are equally so) and then has nothing to add, because the layers below hand it the same features for every
# picture. Right, all layers learn at one pace. A caveat: ten layers are a dramatic choice. Where does the trouble begin?


# %%
def accuracies(make, **options):
    """The final validation accuracy for every seed; make(seed) returns a new model."""
    return [train(make(seed), seed, **options)["val_accuracy"][-1] for seed in SEEDS]


def sigmoid_mlp(depth):
    return lambda seed: make_mlp(seed, depth=depth, activation="sigmoid")


by_depth = {depth: accuracies(sigmoid_mlp(depth)) for depth in (1, 2, 3, 5)}
patient = np.array([train(sigmoid_mlp(3)(seed), seed, max_epochs=15)["val_accuracy"] for seed in SEEDS])

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
plot_seeds(axes[0], list(by_depth), np.array(list(by_depth.values())).T, **style(0))
axes[0].set(xlabel="hidden sigmoid layers", ylabel="validation accuracy", title="After 5 epochs", xticks=list(by_depth))
plot_seeds(axes[1], range(1, 16), patient, **style(1))
axes[1].set(xlabel="epoch", title="Three layers, left running")
for ax in axes:
    ax.axhline(0.1, color="0.5", linestyle=":", linewidth=1)
axes[1].annotate("chance", (15, 0.11), color="0.4", ha="right", va="bottom")
show(
    fig,
    alt="Left: accuracy after five epochs falls from 0.82 with one sigmoid layer to chance with five. Right: three layers "
    "stay near chance for about five epochs and then climb to about 0.6. Lines are means of three seeds, bands their range.",
)
gain = patient[:, -1] - patient[:, 4]
claim("One sigmoid layer learns", by_depth[1], ">", 0.6, source="deck 000", unit="accuracy")
claim("Five sigmoid layers stay at chance for 5 epochs", by_depth[5], "<", 0.2, source="deck 000", unit="accuracy")
claim("Three sigmoid layers recover in epochs 5 to 15 (gain)", gain, ">", 0.1, source="this lesson", unit="accuracy")

# %% [markdown]
# **Read the figure.** One hidden layer is fine, three already look broken after five epochs. But three are *slow*, not
# lost: left alone, they sit on a plateau and then climb. A flat curve tells you that nothing has happened yet; the
# gradient profile tells you whether anything ever will.
#
# ## 4. Saturation: when every neuron shouts
#
# A unit is **saturated** when it sits at an end of its range: slope near 0, and a nudge of its input changes nothing.
# The usual story says: saturated, hence vanishing gradient. We count with tanh, for three widths of the initial weights.
#
# **Predict.** With weights of standard deviation 1, over 80% of the units saturate. Is the gradient that reaches
# layer 1 then tiny, or huge?

# %%
activations, measured = {}, {0.01: [], 0.1: [], 1.0: []}
for std, numbers in measured.items():
    for seed in SEEDS:
        model = init_weights(make_mlp(seed, activation="tanh"), "normal", std=std, generator=make_generator(seed))
        activations[std] = model[:20](probe[0]).detach().flatten()  # after the tenth tanh
        share, gradients = saturated_fraction(activations[std][:, None], low=-1, high=1), gradient_profile(model)
        numbers.append((share, gradients[0], gradients[9]))
saturated, first, last = np.array(list(measured.values())).transpose(2, 0, 1)  # each of shape (stds, seeds)

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.8), sharey=True)
for index, (ax, (std, values)) in enumerate(zip(axes, activations.items(), strict=True)):
    ax.hist(values, bins=41, range=(-1, 1), weights=np.full(len(values), 100 / len(values)))
    text = f"saturated {saturated[index].mean():.0%}\ngradient {first[index].mean():.1g}"
    ax.annotate(text, (0.5, 0.95), xycoords="axes fraction", ha="center", va="top")
    ax.set(title=f"N(0, {std:g}²)", xlabel="activation in layer 10", ylim=(0, 130), yticks=(0, 25, 50, 75, 100))
axes[0].set(ylabel="share [%]")
show(
    fig,
    alt="Histograms of the tenth layer's tanh activations. With weights of std 0.01 all are at zero; with 0.1 they spread "
    "around zero; with 1.0 most pile up at minus one and one. The gradient of layer 1 is 4e-10, 0.5 and 4000.",
)
claim("Weights N(0, 1): most tanh units saturate", saturated[2], ">", 0.5, source="deck 000")
claim("Weights N(0, 1): it explodes all the same (layer 1 / 10)", first[2] / last[2], ">", 100, source="this lesson")
claim("Weights N(0, 0.01²): the gradient of layer 1 vanishes", first[0], "<", 1e-6, source="deck 000")

# %% [markdown]
# **Read the figure.** Left the signal has died, right it has saturated; in the middle it lives. Now the surprise: with
# $N(0,1)$ weights the layer-1 gradient is *thousands of times larger* than layer 10's, although four units in five are
# saturated. The few that are not pass it on through huge weights. "Saturated, hence vanishing" holds at moderate
# weights only; that such a gradient points nowhere useful holds always.
#
# ## 5. Dead ReLUs
#
# A ReLU that is negative for every input outputs 0, has slope 0, receives no gradient, and so never changes again: it
# is **dead**. We kill two hidden layers with a bias of −4; then, more realistically, with a learning rate of 3. That one
# would end in NaN; clipping the gradient to norm 1 keeps it finite.
#
# **Predict.** In the first case no loss curve can move. Can leaky ReLU or ELU, which let a little through on the left,
# bring the same network back to life?


# %%
def explosive(seed):
    """Ten ReLU layers with weights from N(0, 0.2²)."""
    return init_weights(make_mlp(seed), "normal", std=0.2, generator=make_generator(seed))


def biased_mlp(seed, activation="relu", norm=None):
    """Two hidden layers, He weights, and every hidden bias at -4."""
    model = make_mlp(seed, depth=2, activation=activation, init="kaiming_normal", norm=norm)
    for layer in (model.linear1, model.linear2):
        nn.init.constant_(layer.bias, -4.0)
    return model


VARIANTS = {
    "ReLU": {},
    "leaky ReLU": {"activation": "leaky_relu"},
    "ELU": {"activation": "elu"},
    "ReLU + BatchNorm": {"norm": "batch"},
}
revived = {
    name: accuracies(lambda seed, kind=kind: biased_mlp(seed, **kind), max_epochs=3) for name, kind in VARIANTS.items()
}
dead_at_start = [dead_fraction(biased_mlp(seed)[:4](val_set[0])) for seed in SEEDS]

# %%
burnt = {0.1: [], 1.0: [], 3.0: []}
for lr, shares in burnt.items():
    for seed in SEEDS:
        model = make_mlp(seed, depth=2, init="kaiming_normal")
        train(model, seed, lr=lr, max_epochs=3, clip_norm=1.0)
        shares.append(dead_fraction(model[:4](val_set[0])))  # after the second ReLU

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.5, 2.7))
plotting.plot_dots(axes[0], revived, xlabel="validation accuracy after 3 epochs")
plotting.plot_dots(axes[1], {f"lr {lr:g}": runs for lr, runs in burnt.items()}, xlabel="dead share of layer 2")
axes[0].set(title="Every bias at −4", xlim=(0, 1))
axes[1].set(title="Large steps, clipped", xlim=(-0.03, 1))
show(
    fig,
    alt="Left: with all biases at minus four ReLU stays at chance, leaky ReLU hardly leaves it, ELU and ReLU with BatchNorm "
    "reach 0.7 to 0.85. Right: dead units in layer two are none at learning rates 0.1 and 1 and more than half at 3.",
)
claim("Bias −4: all units of layer 2 are dead at the start", dead_at_start, ">", 0.99, source="deck 000")
claim("Training does not revive a network of dead ReLUs", revived["ReLU"], "<", 0.2, source="deck 000", unit="accuracy")
claim("ELU revives the network", revived["ELU"], ">", 0.4, source="this lesson", unit="accuracy")
claim("Learning rate 3 kills many units of layer 2", burnt[3.0], ">", 0.2, source="deck 000")

# %% [markdown]
# **Read the figure.** Each point is a seed. The dead ReLU network never moves. Leaky ReLU hardly does: its slope of 0.01
# twice in a row lets a ten-thousandth through. ELU, with a slope that rises to 1 on the left, repairs it every time. So
# does BatchNorm, for a simple reason: it subtracts the mean of each sum and with it any bias. On the right, death as it
# happens in practice: one step too large throws the biases so far that units never fire again.
#
# ## 6. Explosion: three steps to NaN
#
# **Predict.** Ten ReLU layers, weights from $N(0, 0.2^2)$, which sounds harmless. At learning rate 0.1, how many steps
# until the loss is NaN?


# %%
model = explosive(seed=0)
with GradientMonitor(model) as monitor:
    try:
        train(model, seed=0, on_nonfinite="raise")
    except NonFiniteLossError as error:
        print(error)
print(monitor.to_frame()[["linear1", "linear5", "linear10", "output"]].map("{:.0e}".format).to_string())

# %% [markdown]
# `fit` stops at once and names the epoch, the step and the first layer whose output is no longer finite. The monitor's
# table, a row a step, shows how it came to that: a gradient in the hundreds made the weights huge, the next gradient
# was astronomical, and then a number left the range of `float32`. **NaN is the last symptom**; the cause stands in the
# first row. Torch has its own detective, `detect_anomaly`, which stops at the first *backward* function that returns NaN:

# %%
import warnings

model = explosive(seed=0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with warnings.catch_warnings(record=True), torch.autograd.detect_anomaly():  # it announces itself by a warning
    try:
        for inputs, targets in zip(train_set[0].split(64), train_set[1].split(64), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    except RuntimeError as error:
        print(error)

# %% [markdown]
# True, and of little help: the loss function is where NaN *surfaced*, not where it came from. Use `detect_anomaly` for a
# suspicious operation of your own (a square root at 0, a logarithm), and the monitor for instability.
#
# ### Clipping
#
# If the whole gradient $g$ is longer than $c$, shorten it to length $c$ and keep its direction: $g \leftarrow g\,
# \min(1, c/\lVert g\rVert)$. In torch: `nn.utils.clip_grad_norm_`; in `fit`: `clip_norm=1.0`.
#
# **Predict.** Does a clipped explosive network reach what a well initialized one reaches without clipping?

# %%
unclipped_steps = [len(train(explosive(seed), seed).step_loss) for seed in SEEDS]
starts = [(make_mlp(seed, init="kaiming_normal"), explosive(seed)) for seed in SEEDS]
runs = [[train(good, s), train(bad, s, clip_norm=1.0)] for s, (good, bad) in zip(SEEDS, starts, strict=True)]
he, clipped = np.mean([[run["val_accuracy"][-3:] for run in pair] for pair in runs], axis=2).T  # single epochs dip
print(f"mean of the last three epochs: clipped {np.round(clipped, 3)}, He without clipping {np.round(he, 3)}")
claim("Without clipping the loss is NaN within 5 steps", unclipped_steps, "<=", 5, source="deck 001", unit="steps")
claim("Clipping to norm 1 rescues the run", clipped, ">", 0.4, source="deck 001", unit="accuracy")
claim("He's initialization beats clipping (difference)", np.subtract(he, clipped), ">", 0.05, source="this lesson")

# %% [markdown]
# Clipping rescues every run, and every run ends far below the network that was initialized well. It bounds the *length*
# of a step; it cannot give back the direction that ten badly scaled layers have distorted. A safety belt, not a repair.
#
# ## 7. The loss that jumps up and down
#
# Minibatches make every loss curve rough, so to see *instability* we remove that noise: the same 1,000 images in every
# step. If the step is small enough, such a gradient descent can only go down.
#
# **Predict.** We raise the learning rate from 0.02 to 0.3, short of divergence. In which share of the steps does the
# loss go *up*? And which run ends lowest?

# %%
batch = train_set[0][:1000], train_set[1][:1000]
full_batch = {0.02: [], 0.1: [], 0.3: []}
for lr, seed in itertools.product(full_batch, SEEDS):
    model = make_mlp(seed, depth=2, init="kaiming_normal")
    options = {"loss_fn": F.cross_entropy, "optimizer": torch.optim.SGD(model.parameters(), lr=lr)}
    full_batch[lr].append(fit(model, batch, **options, max_epochs=120, batch_size=1000, seed=seed)["loss"])
rising = {lr: (np.diff(runs) > 0).mean(axis=1) for lr, runs in full_batch.items()}
ends = {lr: np.mean([run[-10:] for run in runs], axis=1) for lr, runs in full_batch.items()}

# %%
panels = {f"lr {lr}: up in {share.mean():.0%} of steps": full_batch[lr] for lr, share in rising.items()}
fig = plotting.small_multiples(panels, xlabel="step (all 1,000 images)", ylabel="training loss", log=True)
show(
    fig,
    alt="Training loss of full-batch gradient descent, three seeds each. At learning rate 0.02 it falls smoothly; at 0.1 it "
    "begins to jitter while falling; at 0.3 it jumps by factors of up to three and still falls on average.",
)
claim("Learning rate 0.02: the loss hardly ever rises", rising[0.02], "<", 0.05, source="deck 000")
claim("Learning rate 0.3: it rises in a good part of the steps", rising[0.3], ">", 0.15, source="deck 000")
claim("Yet jittering 0.1 is ahead of smooth 0.02 (loss ratio)", ends[0.02] / ends[0.1], ">", 1.5, source="this lesson")

# %% [markdown]
# **Read the figure.** Where the valley is narrow, a step of $\eta$ times the slope lands on the other wall, and higher
# up if $\eta$ exceeds 2 over the curvature. The weights bounce across, while along the valley they still make
# progress. So oscillation is a *warning*, not a verdict: the jittering runs are ahead of the smooth ones. It becomes a
# sickness when the average stops falling.
#
# ## 8. Reading symptoms
#
# Five sick networks and a healthy one. Cover the titles and try to name each sickness from its loss curve alone.

# %%
PATIENTS = {
    "healthy": (lambda seed: make_mlp(seed, init="kaiming_normal"), {}),
    "vanishing": (lambda seed: make_mlp(seed, activation="sigmoid"), {}),
    "dead": (biased_mlp, {}),
    "exploding": (explosive, {}),
    "exploding, clipped": (explosive, {"clip_norm": 1.0}),
    "learning rate too large": (lambda seed: make_mlp(seed, depth=2, init="kaiming_normal"), {"lr": 0.4}),
}
curves = {
    name: [train(make(seed), seed, max_epochs=2, **options).step_loss for seed in SEEDS]
    for name, (make, options) in PATIENTS.items()
}

# %%
fig = plotting.small_multiples(
    curves, xlabel="step", ylabel="training loss", log=True, ylim=(0.2, 2000), reference=np.log(10)
)
fig.axes[3].annotate("NaN at step 3", (12, 700), color="0.3")
show(
    fig,
    alt="Loss curves of six networks, three seeds each, on one scale. Healthy falls to 0.6. Vanishing and dead are flat lines "
    "at 2.3. Exploding shoots up and ends after three steps. Clipped explosion starts in the hundreds and comes down "
    "slowly. Too large a learning rate spikes, then hovers.",
)

# %% [markdown]
# **Read the figure.** The dotted line is $\ln 10 \approx 2.3$: the loss of a network that gives every class the same
# probability. *Vanishing* and *dead* both lie flat on it; no loss curve can tell them apart. That is why we
# look inside. `diagnose` runs one batch forward and backward and gives each layer a verdict with the number behind it:

# %%
diagnose(make_mlp(seed=0, activation="sigmoid"), probe, F.cross_entropy)

# %%
fig, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True)
for ax, name in zip(axes, ("healthy", "vanishing", "dead", "exploding"), strict=True):
    diagnoses = [diagnose(PATIENTS[name][0](seed), probe, F.cross_entropy) for seed in SEEDS]
    worst = {diagnosis.worst.verdict for diagnosis in diagnoses}
    diagnoses[0].plot(ax=ax).set(title=name, xlabel=f"all {len(SEEDS)} seeds: {' or '.join(worst)}")
show(
    fig,
    alt="The gradient that reaches each layer, in four networks, with the healthy range shaded. Healthy lies inside it. "
    "Vanishing falls below it from layer 7 towards the input, exploding lies above it, dead layers are marked at the edge.",
)

# %% [markdown]
# The picture draws the deciding number, the size of the gradient that reaches a layer per unit of error at the output.
# The thresholds behind the verdicts are conventions, not laws; `help(diagnose)` explains them.
#
# | symptom in the loss | first suspect | number that confirms it | first cure to try |
# |---|---|---|---|
# | flat at $\ln(\text{classes})$ from the start | vanishing | gradient ratio first/last layer | initialization, activation, BatchNorm |
# | the same, or flat after a jump | dead units | `dead_fraction` | smaller learning rate, BatchNorm, ELU |
# | NaN within a few steps | exploding | gradient norm of step 1 | initialization, then clipping |
# | high start, slow descent | weights too large | gradient norm, saturated share | initialization |
# | spikes, average still falling | learning rate near its limit | share of rising steps | none needed, or decay it |
#
# **TensorBoard** shows the same numbers while a long run is under way. One argument, `log_dir`, and the monitor writes
# them; `%load_ext tensorboard` and `%tensorboard --logdir runs` open it in a notebook. Here we read the file back.

# %%
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

model = make_mlp(seed=0, init="kaiming_normal")
with tempfile.TemporaryDirectory() as log_dir:
    with GradientMonitor(model, log_dir=log_dir) as monitor:
        train(model, seed=0, max_epochs=1)
    events = EventAccumulator(log_dir).Reload()
    print([(name, len(events.Scalars(name))) for name in events.Tags()["scalars"][:3]], "…")

# %% [markdown]
# ## 9. The cures, one at a time
#
# Three activations, each with and without the initialization made for it (Glorot's, or He's for ReLU), each with and
# without BatchNorm. The rest stays: data, depth, width, learning rate, epochs, seeds.
#
# **Predict.** Which of the three cures (activation, initialization, BatchNorm) works alone? Which only in company?

# %%
FITTING = {"sigmoid": "xavier_uniform", "tanh": "xavier_uniform", "relu": "kaiming_normal"}
cured = {}
for activation, fitting in FITTING.items():
    for init, norm in itertools.product(("torch_default", fitting), (None, "batch")):
        name = activation + (" + init" if init == fitting else "") + (" + BatchNorm" if norm else "")
        recipe = {"activation": activation, "init": init, "norm": norm}
        cured[name] = accuracies(lambda seed, recipe=recipe: make_mlp(seed, **recipe), max_epochs=2)

# %%
fig, ax = plt.subplots(figsize=(8, 4))
plotting.plot_dots(ax, cured, xlabel="validation accuracy after 2 epochs")
ax.set(title="Ten hidden layers; a dot is a seed", xlim=(0, 0.9))
ax.axvline(0.1, color="0.5", linestyle=":", linewidth=1)
show(
    fig,
    alt="Accuracy of twelve recipes, three seeds each. Sigmoid, sigmoid with a fitting initialization, and plain ReLU stay at "
    "chance, 0.1. Plain tanh lies between 0.2 and 0.3; all others, every one with BatchNorm among them, reach 0.7 to 0.8.",
)
for name in ("sigmoid", "sigmoid + init", "relu"):
    claim(f"{name}: ten layers stay at chance", cured[name], "<", 0.2, source="deck 000, this lesson", unit="accuracy")
for name in ("sigmoid + BatchNorm", "tanh + init", "relu + init", "relu + BatchNorm", "relu + init + BatchNorm"):
    claim(f"{name}: ten layers learn", cured[name], ">", 0.6, source="deck 000", unit="accuracy")

# %% [markdown]
# **Read the figure.** BatchNorm works alone, even for the sigmoid. The activation does not: the famous advice "use
# ReLU" fails as badly as the sigmoid, until the initialization fits. Nor does the initialization: Glorot's leaves the
# sigmoid at chance, for it was derived for activations that are steep and centred at 0, and the sigmoid is neither. What this does *not* show is a ranking among
# the healthy ones: their spread over seeds is as wide as their differences.
#
# ## 10. Your own activation, and the graph behind it
#
# Autograd knows the slope of everything torch offers. For a function of your own you may state it yourself. Deck 001
# uses a `SigLU_custom` without printing it; we take the sigmoid-weighted linear unit $f(z) = z\,\sigma(z)$, which torch
# calls SiLU and which therefore has an oracle. Its slope, by the product rule, is $\sigma(z)\,(1 + z\,(1-\sigma(z)))$.
# A wrong sign in `backward` would still train, only badly, so check before you train: `gradcheck` compares the stated
# slope with finite differences in double precision.


# %%
class SigLU(torch.autograd.Function):
    """z·σ(z) with its slope written by hand; any shape in, the same shape out."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, grad_out):
        (z,) = ctx.saved_tensors
        s = torch.sigmoid(z)
        return grad_out * s * (1 + z * (1 - s))


z = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
print("gradcheck:", torch.autograd.gradcheck(SigLU.apply, z))
ours, torchs = (torch.autograd.grad(f(z).sum(), z)[0] for f in (SigLU.apply, F.silu))
claim("Our slope equals torch's SiLU (largest difference)", (ours - torchs).abs().max(), "<", 1e-12, source="deck 001")


# %% [markdown]
# Every operation leaves a node that knows the way back: the computation graph. `torchviz` draws it for the deck's
# network, 784-64-32-10. Blue boxes are parameters, the green
# one is the loss, orange ones are what `save_for_backward` kept. Our function is a node like any other.

# %%
import shutil

import torchviz

layers = nn.ModuleDict(
    {"layer0": nn.Linear(784, 64), "layer1": nn.Linear(64, 32, bias=False), "layer2": nn.Linear(32, 10, bias=False)}
)
hidden = SigLU.apply(layers["layer1"](SigLU.apply(layers["layer0"](probe[0][:8]))))
loss = F.cross_entropy(layers["layer2"](hidden), probe[1][:8])
graph = torchviz.make_dot(loss, params=dict(layers.named_parameters()))
graph.graph_attr.update(size="8,8", ranksep="0.25")
if shutil.which("dot"):  # the program Graphviz; without it the text form says the same
    alt = "Computation graph: four parameters flow through matrix products and two SigLUBackward nodes to the loss."
    plotting.show_png(graph.pipe(format="png"), alt=alt)
else:
    print(graph.source)

# %% [markdown]
# ## Exercises
#
# Seven, from five minutes to twenty-five. Fill in the line that says `your code here`, or replace the `...`; the cell below
# answers at once, as often as you like. Open a hint only after a try of your own.

# %%
from course_utils.homework import lesson_01, progress
from course_utils.homework.lesson_01 import (
    check_chain_gradients,
    check_clipped,
    check_dead_share,
    check_factor_per_layer,
    check_half_dead,
    check_prelu,
    check_sickness,
)

# %% [markdown]
# ### Exercise 1.1. What may one layer cost? ★ (5 min)
#
# A gradient shall cross thirty layers and keep at least a tenth of its size. **Predict**: by which factor may each layer
# multiply it, at the least? Guess before you compute: nearer to 0.5, to 0.9 or to 0.99?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Section 1: the factors are multiplied, not added.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Solve $f^{30} = 0.1$ for $f$.
# </details>

# %%
factor_per_layer = ...  # a number, to three digits
### BEGIN SOLUTION
factor_per_layer = 0.1 ** (1 / 30)
### END SOLUTION

# %%
check_factor_per_layer(factor_per_layer)

# %% [markdown]
# ### Exercise 1.2. Every gradient of a chain ★★ (15 min)
#
# `chain_gradient` in section 1 asked autograd for one number. Write the whole list yourself, in NumPy: for a chain of *tanh*
# neurons, $h_k = \tanh(w_k h_{k-1} + b_k)$, return $\partial h_L/\partial h_k$ for $k = 0, \dots, L$. **Predict** the last
# value, and how many values there are.
#
# <details><summary>Hint 1: a nudge</summary>
#
# Forward first, keeping every $h_k$. The slope of tanh is $1 - \tanh^2$: which kept value does it need?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Factor $k$ is $w_k(1 - h_k^2)$. The value for $h_L$ is 1; each earlier one is the next one times one factor.
# `np.cumprod` of the reversed factors, or a loop from the end.
# </details>


# %%
def chain_gradients(weights, biases, start):
    """weights, biases: (L,), start: the number h_0 → (L + 1,) gradients of h_L, by h_0 first and by h_L last."""
    ### BEGIN SOLUTION
    h = [start]
    for weight, bias in zip(weights, biases, strict=True):
        h.append(np.tanh(weight * h[-1] + bias))
    factors = weights * (1 - np.array(h[1:]) ** 2)
    return np.append(np.cumprod(factors[::-1])[::-1], 1.0)
    ### END SOLUTION


# %%
check_chain_gradients(chain_gradients)

# %% [markdown]
# ### Exercise 1.3. Count the dead ★ (8 min)
#
# Given the sums `z` of a ReLU layer for a whole batch, *before* the ReLU: which share of the units is dead for this
# batch? **Predict**: does the share rise or fall if the batch gets larger?
#
# <details><summary>Hint 1: a nudge</summary>
#
# Half of all activations of a healthy ReLU layer are 0. What makes a unit dead is more than that.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# For each unit, that is each column: is `z` at most 0 in *all* rows? Then the mean over the units.
# </details>


# %%
def dead_share(z):
    """z: (batch, units), sums before the ReLU → the share of dead units, between 0 and 1."""
    ### BEGIN SOLUTION
    return (z <= 0).all(dim=0).double().mean()
    ### END SOLUTION


# %%
check_dead_share(dead_share)

# %% [markdown]
# ### Exercise 1.4. Clip by the whole length ★★ (12 min)
#
# Section 6 clipped with one line of torch. Write it: if all gradients *together*, as one long vector, are longer than
# `max_norm`, shorten them to that length; otherwise leave them alone. Return new tensors. **Predict** what happens to
# the direction of the step if you clip each tensor by itself instead.
#
# <details><summary>Hint 1: a nudge</summary>
#
# One number decides, the same for all tensors. What does it become if every gradient is 0?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# The squared length is the sum of the squared lengths of the parts. Multiply each tensor by
# $\min(1, c/\lVert g\rVert)$, and keep a zero out of the denominator.
# </details>


# %%
def clipped(gradients, max_norm):
    """gradients: a list of tensors of any shapes → a list of the same shapes, of total length at most max_norm."""
    ### BEGIN SOLUTION
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    factor = (max_norm / (norm + 1e-12)).clamp(max=1.0)
    return [factor * gradient for gradient in gradients]
    ### END SOLUTION


# %%
check_clipped(clipped)

# %% [markdown]
# ### Exercise 1.5. Kill half of the units ★★ (8 min)
#
# A layer with He's weights sees 512 random inputs of standard deviation 1. Its sums then have standard deviation
# $\sqrt2 \approx 1.4$. **Predict** the bias at which half of its units are dead: at about −1.4, −2.8 or −4.2? Then change
# the constant `TRIED_BIAS`, run the cell again, and find it.
#
# <details><summary>Hint 1: a nudge</summary>
#
# A unit lives if its *highest* sum is above 0. How high is the highest of 512 random numbers, in standard deviations?
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Go down in steps of 1, then halve the interval. The share need not be exact: between 40% and 60% is fine.
# </details>

# %%
TRIED_BIAS = -1.0  # change it, and run the cell again
layer = make_mlp(seed=0, depth=1, init="kaiming_normal").linear1
nn.init.constant_(layer.bias, TRIED_BIAS)
h = layer(torch.randn(512, 784, generator=make_generator(1))).relu().detach()
print(f"bias {TRIED_BIAS:g}: {dead_fraction(h):.0%} of the units are dead, {(h == 0).double().mean():.1%} of h is 0")

# %%
half_dead_bias = ...  # the bias that kills about half of the units
### BEGIN SOLUTION
half_dead_bias = -4.25
### END SOLUTION

# %%
check_half_dead(half_dead_bias)

# %% [markdown]
# ### Exercise 1.6. Name the sickness ★★ (12 min)
#
# Section 8 as a function. It gets a gradient profile, the norms from the first layer to the last, and returns one of five
# words: `"not finite"` if there is a NaN or an infinity, else `"dead"` if a norm is exactly 0, else `"vanishing"` if the
# first norm is less than a thousandth of the last, `"exploding"` if it is more than a thousand times the last, else
# `"healthy"`. **Predict**: what is `float("nan") < 1`, and why does the order of the questions matter?
#
# <details><summary>Hint 1: a nudge</summary>
#
# All norms near $10^{-6}$ may be a network that has finished training. Compare the layers with each other.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# `np.isfinite(norms).all()`, then `(norms == 0).any()`, then compare `norms[0]` with `norms[-1]`. Multiply rather than divide.
# </details>


# %%
def sickness(norms):
    """norms: (layers,), gradient norms from the first layer to the last → one of the five words."""
    ### BEGIN SOLUTION
    if not np.isfinite(norms).all():
        return "not finite"
    if (norms == 0).any():
        return "dead"
    if 1000 * norms[0] < norms[-1]:
        return "vanishing"
    return "exploding" if norms[0] > 1000 * norms[-1] else "healthy"
    ### END SOLUTION


# %%
check_sickness(sickness)

# %% [markdown]
# ### Exercise 1.7. A slope that is learned ★★★ (25 min)
#
# Leaky ReLU let too little through in section 5. **PReLU** learns how much: $f(z, a) = z$ if $z > 0$, else $a z$, with one
# slope $a$ for each unit. Write it as an autograd function, like `SigLU` in section 10, but with gradients by *both*
# arguments. **Predict** the shape of the gradient by `slopes`, and how many rows of the batch contribute to it.
#
# <details><summary>Hint 1: a nudge</summary>
#
# `grad_out` has the shape of the output. Each gradient has the shape of its argument. One argument was used by every row.
# </details>
# <details><summary>Hint 2: an outline</summary>
#
# Save both arguments. By `z`: `grad_out` times 1 or the slope. By `slopes`: `grad_out` times `z` where `z` is negative,
# else 0, summed over the batch. `backward` returns them in the order of `forward`'s arguments.
# </details>


# %%
class LearnedSlope(torch.autograd.Function):
    """z: (batch, units), slopes: (units,) → z where it is positive, slopes * z elsewhere."""

    @staticmethod
    def forward(ctx, z, slopes):
        ### BEGIN SOLUTION
        ctx.save_for_backward(z, slopes)
        return torch.where(z > 0, z, slopes * z)
        ### END SOLUTION

    @staticmethod
    def backward(ctx, grad_out):
        ### BEGIN SOLUTION
        z, slopes = ctx.saved_tensors
        return grad_out * torch.where(z > 0, 1.0, slopes), (grad_out * z.clamp(max=0)).sum(dim=0)
        ### END SOLUTION


# %%
check_prelu(LearnedSlope)

# %%
progress(lesson_01)

# %% [markdown]
# ## Recap
#
# - **Explain:** a gradient is a product of weight × slope, one factor per layer. Ten factors of ¼ leave a millionth.
# - **Measure:** `GradientMonitor`, `saturated_fraction`, `dead_fraction`: one hook each, removed by a context manager.
# - **Recognize:** flat at $\ln 10$, NaN, slow descent, spikes. Vanishing and dead look the same from outside.
# - **Localize:** `fit` names step and layer of a NaN; the cause is the gradient of the *first* step.
# - **Choose:** an initialization that fits the activation first, BatchNorm where it drifts, clipping as a belt.
#
# ## Pitfalls
#
# - A small gradient everywhere may just mean *trained*. Compare layers with each other, not with zero.
# - Gradient norms grow with the size of a layer; the first weight matrix is nearly eight times as large as the others.
# - A hook that is not removed keeps running, and holds its model in memory. Use the context managers.
# - `clip_grad_norm_` on a gradient that is already NaN gives NaN. Clipping prevents, it does not heal.
# - All this was plain SGD. Adam divides each gradient by its own size, which hides vanishing without curing it.

# %% [markdown]
# ## Errata of the decks
#
# - `000_467c1bb93614480d`: "non-saturating activations behave much better" needs "with an initialization that fits":
#   ReLU with torch's default stays at chance at depth 10 (section 9). Torch's default is also not LeCun's (lesson 02).
# - `000_467c1bb93614480d`: dead neurons are listed under vanishing gradients. They share the flat loss curve, but the
#   cause, the number that shows it, and the cure differ (sections 5 and 8).
# - `001_0a346410c39b1d06`: "with a sigmoid the gradient vanishes" holds for weights of moderate size. With large ones it
#   passes or grows (section 1), and saturated units can go with an *exploding* gradient (section 4).
#
# ## Sources
#
# - Decks `000_467c1bb93614480d`, `001_0a346410c39b1d06`.
# - X. Glorot, Y. Bengio: *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010.
# - K. He et al.: *Delving deep into rectifiers*, ICCV 2015.
# - S. Hochreiter: *Untersuchungen zu dynamischen neuronalen Netzen*, diploma thesis, TU Munich 1991.
# - R. Pascanu, T. Mikolov, Y. Bengio: *On the difficulty of training recurrent neural networks*, ICML 2013 (clipping).
# - J. Cohen et al.: *Gradient descent on neural networks typically occurs at the edge of stability*, ICLR 2021.
# - H. Xiao, K. Rasul, R. Vollgraf: *Fashion-MNIST*, arXiv:1708.07747.
