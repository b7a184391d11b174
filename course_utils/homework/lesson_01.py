"""Checks of the exercises of lesson 01, unstable gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from course_utils.homework.engine.checks import (
    AnswerCheck,
    FunctionCheck,
    PropertyCheck,
    Right,
    Wrong,
    exercises_of,
)
from course_utils.init import kaiming_std
from course_utils.monitoring import dead_fraction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "check_chain_gradients",
    "check_clipped",
    "check_dead_share",
    "check_factor_per_layer",
    "check_half_dead",
    "check_prelu",
    "check_sickness",
]

Array = NDArray[np.float64]


# Exercise 1.1

check_factor_per_layer = AnswerCheck(
    exercise="1.1 What may one layer cost?",
    wants="The factor per layer that leaves a tenth of the gradient after 30 layers.",
    expected=0.1 ** (1 / 30),
    rtol=0.005,
    right="only seven percent a layer, where the sigmoid's steepest point alone costs 75",
    hint="this is not it: multiply your factor by itself thirty times and see what is left",
    mistakes={
        "losses do not add up: 30 times a thirtieth would leave a third, not a tenth": 1 - 1 / 30,
        "losses do not add up: thirty such factors leave 40%": 1 - 0.9 / 30,
        "that is what is left after all thirty layers, not the factor of one": 0.1,
        "that is the factor by which a gradient *grows* tenfold": 10 ** (1 / 30),
        "a product of thirty factors is a power, not a multiple": 0.1 / 30,
        "that is the factor for ten layers": 0.1 ** (1 / 10),
        "that is the sigmoid's steepest slope; how much would it leave after thirty layers?": 0.25,
        "such a layer costs nothing; a tenth may be all that is left": 1.0,
        "thirty times 0.9 leaves only 4%": 0.9,
    },
)


# Exercise 1.2


def _chains(seed: int) -> list[tuple[Array, Array, float]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=n), rng.normal(size=n), start) for n, start in ((5, 0.5), (10, -0.2), (1, 1.5))]


def _chain_by_autograd(weights: Array, biases: Array, start: float) -> Array:
    h = [torch.tensor(start, dtype=torch.float64, requires_grad=True)]
    for weight, bias in zip(weights, biases, strict=True):
        h.append(torch.tanh(float(weight) * h[-1] + float(bias)))
    gradients = torch.autograd.grad(h[-1], h[:-1])
    return np.array([*(gradient.item() for gradient in gradients), 1.0])


def _products_to_the_end(factors: Array) -> Array:
    return np.append(np.cumprod(factors[::-1])[::-1], 1.0)


def _chain(
    slope: Callable[[float, float, float], float], gather: Callable[[Array], Array] = _products_to_the_end
) -> Callable[..., Array]:
    """Another chain rule: each neuron's factor is slope(weight, z, h before it), and gather puts them together."""

    def gradients(weights: Array, biases: Array, start: float) -> Array:
        h, factors = start, []
        for weight, bias in zip(weights, biases, strict=True):
            z = weight * h + bias
            factors.append(slope(weight, z, h))
            h = math.tanh(z)
        return gather(np.array(factors))

    return gradients


def _tanh_slope(weight: float, z: float, _: float) -> float:
    return weight * (1 - math.tanh(z) ** 2)


check_chain_gradients = FunctionCheck(
    exercise="1.2 Every gradient of a chain",
    wants="(weights, biases, start) → the gradients of the last tanh neuron's output by h_0, …, h_L.",
    reference=_chain_by_autograd,
    cases=_chains,
    right="one pass forward, one running product back: backpropagation for one neuron a layer",
    mistakes={
        "you multiply from the input on: that is how h_k depends on h_0, not how h_L depends on h_k": _chain(
            _tanh_slope, lambda f: np.insert(np.cumprod(f), 0, 1.0)
        ),
        "the order is reversed: the first value belongs to the input h_0": _chain(
            _tanh_slope, lambda f: np.insert(np.cumprod(f[::-1]), 0, 1.0)
        ),
        "the last value is missing: h_L depends on itself with gradient 1": _chain(
            _tanh_slope, lambda f: _products_to_the_end(f)[:-1]
        ),
        "the first value is missing: a chain of L neurons has the L + 1 values h_0 to h_L": _chain(
            _tanh_slope, lambda f: _products_to_the_end(f)[1:]
        ),
        "those are the single factors: their running product is asked for": _chain(
            _tanh_slope, lambda f: np.append(f, 1.0)
        ),
        "the weights are missing: each neuron contributes weight times slope": _chain(
            lambda w, z, h: 1 - math.tanh(z) ** 2
        ),
        "the slopes are missing: each neuron contributes weight times slope": _chain(lambda w, z, h: w),
        "the slope is 1 − h² with the neuron's output, not with its sum z": _chain(lambda w, z, h: w * (1 - z**2)),
        "you take the slope where the neuron before works: mind which h belongs to which factor": _chain(
            lambda w, z, h: w * (1 - h**2)
        ),
        "that is the slope of the sigmoid; these neurons are tanh": _chain(
            lambda w, z, h: w * math.exp(-z) / (1 + math.exp(-z)) ** 2
        ),
    },
)


# Exercise 1.3


def _sums(seed: int) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(batch: int, units: int, mean: float) -> Tensor:
        return torch.randn(batch, units, generator=generator) + mean

    touching = draw(6, 5, 0.0)
    touching[:, 1] = torch.tensor([-1.0, -2.0, 0.0, -1.0, 0.0, -3.0])  # never above 0, but not always below
    return [(draw(8, 10, -1.5),), (touching,), (draw(4, 3, -20.0),), (draw(4, 3, 20.0),)]


check_dead_share = FunctionCheck(
    exercise="1.3 Count the dead",
    wants="The sums z (batch, units) of a ReLU layer → the share of its units that are dead for this batch.",
    reference=lambda z: dead_fraction(z.relu()),
    cases=_sums,
    right="a unit is dead if no input of the batch lifts it above 0",
    mistakes={
        "that is the share of zeros; a unit that is 0 for *some* inputs is alive and does its work": lambda z: (
            (z <= 0).double().mean()
        ),
        "one input at which a unit is silent does not make it dead; all of them have to": lambda z: (
            (z <= 0).any(dim=0).double().mean()
        ),
        "you look along the wrong axis: that is the share of inputs for which every unit is silent": lambda z: (
            (z <= 0).all(dim=1).double().mean()
        ),
        "that is the share of units that are alive": lambda z: (z > 0).any(dim=0).double().mean(),
        "that is the number of dead units; divide by how many there are": lambda z: (z <= 0).all(dim=0).sum(),
        "at z = 0 the ReLU's slope is 0 too: such a unit passes no gradient either": lambda z: (
            (z < 0).all(dim=0).double().mean()
        ),
        "a unit whose sum is negative on average may still fire for some inputs": lambda z: (
            (z.mean(dim=0) <= 0).double().mean()
        ),
    },
)


# Exercise 1.4


def _gradients(seed: int) -> list[tuple[list[Tensor], float]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return [
        ([draw(4, 3), draw(4), draw(1, 4)], 0.5),
        ([draw(4, 3), draw(4)], 100.0),
        ([100 * draw(7), draw(2, 2)], 1.0),
        ([torch.zeros(3, dtype=torch.float64)], 1.0),
    ]


def _clipped_by_torch(gradients: list[Tensor], max_norm: float) -> tuple[Tensor, ...]:
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return tuple(parameter.grad for parameter in parameters if parameter.grad is not None)


def _norm(gradients: list[Tensor]) -> float:
    return math.sqrt(sum(gradient.square().sum().item() for gradient in gradients)) + 1e-12


def _sum_of_norms(gradients: list[Tensor]) -> float:
    return sum(float(gradient.norm()) for gradient in gradients) + 1e-12


def _sum_of_sizes(gradients: list[Tensor]) -> float:
    return sum(float(gradient.abs().sum()) for gradient in gradients) + 1e-12


def _each_clipped(gradients: list[Tensor], max_norm: float) -> list[Tensor]:
    return [gradient * min(1.0, max_norm / _norm([gradient])) for gradient in gradients]


def _scaled(factor: Callable[[list[Tensor], float], float]) -> Callable[..., list[Tensor]]:
    """One factor for all gradients, from the gradients and max_norm."""
    return lambda gradients, max_norm: [gradient * factor(gradients, max_norm) for gradient in gradients]


check_clipped = FunctionCheck(
    exercise="1.4 Clip by the whole length",
    wants="(gradients, max_norm) → the list of gradients, shortened together to the length max_norm.",
    reference=_clipped_by_torch,
    cases=_gradients,
    rtol=1e-4,  # torch divides by the norm plus 1e-6
    right="one length, one factor: the direction of the step stays as it was",
    mistakes={
        "you give every tensor a length limit of its own, which turns the direction: one norm for all": _each_clipped,
        "you clip each value by itself, which turns the direction: one factor for all": lambda gradients, limit: [
            gradient.clamp(-limit, limit) for gradient in gradients
        ],
        "a gradient that is short enough must stay as it is, yours is made longer": _scaled(
            lambda g, limit: limit / _norm(g)
        ),
        "you add up the norms of the tensors; the norm of the whole adds up squares": _scaled(
            lambda g, limit: min(1.0, limit / _sum_of_norms(g))
        ),
        "you divide by the square of the norm: its root is missing": _scaled(
            lambda g, limit: min(1.0, limit / _norm(g) ** 2)
        ),
        "that is the sum of absolute values; a length is the root of the sum of squares": _scaled(
            lambda g, limit: min(1.0, limit / _sum_of_sizes(g))
        ),
        "long gradients are made shorter, but not to length max_norm: they all get length 1": _scaled(
            lambda g, limit: 1 / _norm(g) if _norm(g) > limit else 1.0
        ),
        "the gradients come back as they were: where is the factor?": _scaled(lambda g, limit: 1.0),
    },
)


# Exercise 1.5

# What counts as half, and how many inputs a unit sees.
_HALF, _BATCH = (0.35, 0.65), 512


@functools.cache
def _highest_sums(batch: int) -> Array:
    """The highest sum that each of 500 units of a He-initialized layer reaches on a batch of standard normal inputs."""
    found = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(batch, 784, generator=generator)
        weight = kaiming_std(784) * torch.randn(784, 100, generator=generator)
        found.append((inputs @ weight).amax(dim=0).numpy())
    return np.concatenate(found).astype(float)


def _dead_at(bias: float, batch: int = _BATCH) -> float:
    return float((_highest_sums(batch) + bias <= 0).mean())


def _examine_bias(bias: float, seed: int) -> Right | Wrong:
    share = _dead_at(bias)
    low, high = _HALF
    if low <= share <= high:
        right = f"{share:.0%} of 500 units are dead, three standard deviations down: one input of 512 revives a unit"
        return Right(right, lambda: _draw_dead(bias))
    fault = f"with this bias {share:.0%} of 500 such units are dead"
    if bias > 0:
        return Wrong(f"{fault}: a positive bias lifts the sums further above 0")
    if bias == 0:
        return Wrong(f"{fault}: half of the activations are 0, but every unit fires for some input")
    if share < low:
        return Wrong(f"{fault}: a unit lives as long as its highest of 512 sums is above 0, so go further down")
    return Wrong(f"{fault}: too many, go back up")


def _draw_dead(bias: float) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import label_line_ends, style

    figure, ax = plt.subplots(figsize=(6.5, 2.8))
    biases = np.linspace(0, -7, 71)
    for index, batch in enumerate((8, 64, _BATCH)):
        shares = [_dead_at(one, batch) for one in biases]
        ax.plot(biases, shares, label=f"{batch} inputs", color=style(index)["color"])
    ax.plot(bias, _dead_at(bias), "o", color="black")
    ax.set(xlabel="bias of every unit", ylabel="dead share", title="Dead for whom?")
    ax.invert_xaxis()
    label_line_ends(ax)
    return figure, (
        "Dead share of a ReLU layer against its bias, for batches of 8, 64 and 512 inputs, with your bias as a point. "
        "The more inputs are looked at, the lower the bias at which half of the units are dead: from -2 to -4."
    )


check_half_dead = PropertyCheck(
    exercise="1.5 Kill half of the units",
    wants="A bias with which about half of the units of a He-initialized ReLU layer are dead on 512 inputs.",
    takes="number",
    examine=_examine_bias,
)


# Exercise 1.6

_PROFILES = (
    [0.9, 1.1, 0.7, 1.0],
    [1e-8, 1e-6, 1e-4, 1e-2, 1.0],
    [4e4, 2e2, 1.0, 1e-2],
    [2e-6, 1e-6, 3e-6],
    [3e4, 1e4, 2e4],
    [math.nan, math.nan, 1.0],
    [1.0, math.inf, 1.0],
    [0.0, 0.0, 0.5],
    [0.2, 0.0, math.nan],
    [0.3, 0.0, 0.4],
    [5e-4, 1.0, 2e-4],
    [5e-4, 2e-2, 0.4],
)


def _sickness(norms: Array, *, nan: bool = True, inf: bool = True, dead: bool = True, limit: float = 1000) -> str:
    if (nan and np.isnan(norms).any()) or (inf and np.isinf(norms).any()):
        return "not finite"
    if dead and (norms == 0).any():
        return "dead"
    if norms[0] * limit < norms[-1]:
        return "vanishing"
    return "exploding" if norms[0] > limit * norms[-1] else "healthy"


def _first_norm_alone(norms: Array) -> str:
    known = _sickness(norms)
    return known if known in ("not finite", "dead") else _sickness(np.array([norms[0], 1.0]))


def _dead_asked_last(norms: Array) -> str:
    known = _sickness(norms, dead=False)
    return "dead" if known == "healthy" and (norms == 0).any() else known


def _turned_round(norms: Array) -> str:
    known = _sickness(norms)
    return {"vanishing": "exploding", "exploding": "vanishing"}.get(known, known)


check_sickness = FunctionCheck(
    exercise="1.6 Name the sickness",
    wants="Gradient norms, first layer to last → not finite, dead, vanishing, exploding or healthy.",
    reference=_sickness,
    cases=lambda seed: [(np.array(profile),) for profile in _PROFILES],
    right="all twelve profiles get the right name",
    mistakes={
        "NaN slips through: it is neither smaller nor larger than anything, so ask for it first": lambda norms: (
            _sickness(norms, nan=False)
        ),
        "infinity slips through: it is not NaN, but not finite either": lambda norms: _sickness(norms, inf=False),
        "NaN and infinity slip through: ask for them first": lambda norms: _sickness(norms, nan=False, inf=False),
        "a norm of exactly 0 is death, not weakness: it has no cure by waiting": lambda norms: _sickness(
            norms, dead=False
        ),
        "a dead first layer is taken for vanishing: ask for zeros before you compare": _dead_asked_last,
        "you turned the profile round: the first norm belongs to the layer next to the input": _turned_round,
        "compare layers with each other: a first norm as small as all the others is no sickness": _first_norm_alone,
        "you draw the line at a factor of 100, not 1000": lambda norms: _sickness(norms, limit=100),
    },
)


# Exercise 1.7


def _units_and_slopes(seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [(draw(n, m), 0.5 * draw(m), draw(n, m)) for n, m in ((6, 3), (4, 4), (1, 2))]


def _forward_and_backward(function: Any, z: Tensor, slopes: Tensor, grad_out: Tensor) -> tuple[Any, ...]:
    z, slopes = z.requires_grad_(), slopes.requires_grad_()
    output = getattr(function, "apply", function)(z, slopes)  # torch's own is a function
    gradients = torch.autograd.grad(output, (z, slopes), grad_out, allow_unused=True)
    z.requires_grad_(False)
    slopes.requires_grad_(False)
    return output.detach(), *gradients


def _by_z(grad_out: Tensor, z: Tensor, slopes: Tensor) -> Tensor:
    return grad_out * torch.where(z > 0, 1.0, slopes)


def _by_slopes(grad_out: Tensor, z: Tensor, slopes: Tensor) -> Tensor:
    return (grad_out * z.clamp(max=0)).sum(dim=0)


def _prelu(by_z: Callable[..., Tensor] = _by_z, by_slopes: Callable[..., Tensor] = _by_slopes) -> Callable[..., Any]:
    """An autograd function with these gradients, each a function of grad_out, z and slopes."""

    class Prelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
            ctx.save_for_backward(z, slopes)
            return torch.where(z > 0, z, slopes * z)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            (grad_out,) = grads
            return by_z(grad_out, *ctx.saved_tensors), by_slopes(grad_out, *ctx.saved_tensors)

    return Prelu


def _without_grad_out(gradient: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda grad_out, z, slopes: gradient(torch.ones_like(grad_out), z, slopes)


check_prelu = FunctionCheck(
    exercise="1.7 A slope that is learned",
    wants="An autograd Function of z (batch, units) and slopes (units,), a leaky ReLU.",
    reference=functional.prelu,
    cases=_units_and_slopes,
    call=_forward_and_backward,
    names=("output", "gradient by z", "gradient by slopes"),
    right="it agrees with torch's PReLU, forward and backward",
    mistakes={
        "gradient by z: the local slope has to be multiplied by grad_out, what comes from above": _prelu(
            by_z=_without_grad_out(_by_z)
        ),
        "gradient by slopes: grad_out is missing": _prelu(by_slopes=_without_grad_out(_by_slopes)),
        "neither gradient contains grad_out, what comes from above": _prelu(
            by_z=_without_grad_out(_by_z), by_slopes=_without_grad_out(_by_slopes)
        ),
        "gradient by z: left of 0 it is that of a ReLU; there a slope acts": _prelu(
            by_z=lambda grad_out, z, slopes: grad_out * (z > 0)
        ),
        "gradient by z: you swapped the sides; the slope acts where z is negative": _prelu(
            by_z=lambda grad_out, z, slopes: grad_out * torch.where(z > 0, slopes, 1.0)
        ),
        "gradient by slopes: every row uses the slope, and their contributions add up, not average": _prelu(
            by_slopes=lambda grad_out, z, slopes: (grad_out * z.clamp(max=0)).mean(dim=0)
        ),
        "gradient by slopes: only negative z are multiplied by a slope; the others must not contribute": _prelu(
            by_slopes=lambda grad_out, z, slopes: (grad_out * z).sum(dim=0)
        ),
        "gradient by slopes: the derivative of a·z by a is z, not a or 1": _prelu(
            by_slopes=lambda grad_out, z, slopes: (grad_out * (z <= 0)).sum(dim=0)
        ),
        "gradient by slopes: the sign is flipped": _prelu(
            by_slopes=lambda grad_out, z, slopes: -_by_slopes(grad_out, z, slopes)
        ),
    },
)


EXERCISES = exercises_of(globals())
