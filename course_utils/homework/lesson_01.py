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

from course_utils.homework.engine.compare import brief, difference
from course_utils.homework.engine.judge import Mistake, judge, judge_answer, not_attempted
from course_utils.homework.engine.verdict import Verdict
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

EXERCISES: tuple[str, ...] = (
    "1.1 What may one layer cost?",
    "1.2 Every gradient of a chain",
    "1.3 Count the dead",
    "1.4 Clip by the whole length",
    "1.5 Kill half of the units",
    "1.6 Name the sickness",
    "1.7 A slope that is learned",
)

Array = NDArray[np.float64]

# Exercise 1.5: what counts as half, and how many inputs a unit sees.
_HALF, _BATCH = (0.35, 0.65), 512


def check_factor_per_layer(answer: Any) -> Verdict:
    """Check 1.1: the factor per layer that leaves a tenth of the gradient after 30 layers."""
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=0.1 ** (1 / 30),
        rtol=0.005,
        right="only seven percent a layer, where the sigmoid's steepest point alone costs 75",
        hint="this is not it: multiply your factor by itself thirty times and see what is left",
        mistakes=[
            (1 - 1 / 30, "losses do not add up: 30 times a thirtieth would leave a third, not a tenth"),
            (1 - 0.9 / 30, "losses do not add up: thirty such factors leave 40%"),
            (0.1, "that is what is left after all thirty layers, not the factor of one"),
            (10 ** (1 / 30), "that is the factor by which a gradient *grows* tenfold"),
            (0.1 / 30, "a product of thirty factors is a power, not a multiple"),
            (0.1 ** (1 / 10), "that is the factor for ten layers"),
            (0.25, "that is the sigmoid's steepest slope; how much would it leave after thirty layers?"),
            (1.0, "such a layer costs nothing; a tenth may be all that is left"),
            (0.9, "thirty times 0.9 leaves only 4%"),
        ],
    )


def check_chain_gradients(function: Any) -> Verdict:
    """Check 1.2: (weights, biases, start) → the gradients of the last tanh neuron's output by h_0, …, h_L."""

    def reference(weights: Array, biases: Array, start: float) -> Array:
        h = [torch.tensor(start, dtype=torch.float64, requires_grad=True)]
        for weight, bias in zip(weights, biases, strict=True):
            h.append(torch.tanh(float(weight) * h[-1] + float(bias)))
        gradients = torch.autograd.grad(h[-1], h[:-1])
        return np.array([*(gradient.item() for gradient in gradients), 1.0])

    def factors(weights: Array, biases: Array, start: float, slope: Callable[..., float]) -> Array:
        h, found = start, []
        for weight, bias in zip(weights, biases, strict=True):
            z = weight * h + bias
            found.append(slope(weight, z, h))
            h = math.tanh(z)
        return np.array(found)

    def chain(slope: Callable[..., float], gather: Callable[[Array], Any] | None = None) -> Callable[..., Array]:
        gather = gather or (lambda f: np.append(np.cumprod(f[::-1])[::-1], 1.0))
        return lambda weights, biases, start: gather(factors(weights, biases, start, slope))

    def right(w: float, z: float, _: float) -> float:
        return w * (1 - math.tanh(z) ** 2)

    rng = np.random.default_rng(0)
    return judge(
        function,
        exercise=EXERCISES[1],
        reference=reference,
        cases=[(rng.normal(size=n), rng.normal(size=n), start) for n, start in ((5, 0.5), (10, -0.2), (1, 1.5))],
        right="one pass forward, one running product back: backpropagation for one neuron a layer",
        mistakes=[
            Mistake("you multiply from the input on: that is how h_k depends on h_0, not how h_L depends on h_k",
                    chain(right, lambda f: np.insert(np.cumprod(f), 0, 1.0))),
            Mistake("the order is reversed: the first value belongs to the input h_0",
                    chain(right, lambda f: np.insert(np.cumprod(f[::-1]), 0, 1.0))),
            Mistake("the last value is missing: h_L depends on itself with gradient 1",
                    chain(right, lambda f: np.cumprod(f[::-1])[::-1])),
            Mistake("the first value is missing: a chain of L neurons has the L + 1 values h_0 to h_L",
                    chain(right, lambda f: np.append(np.cumprod(f[::-1])[::-1], 1.0)[1:])),
            Mistake("those are the single factors: their running product is asked for",
                    chain(right, lambda f: np.append(f, 1.0))),
            Mistake("the weights are missing: each neuron contributes weight times slope",
                    chain(lambda w, z, h: 1 - math.tanh(z) ** 2)),
            Mistake("the slopes are missing: each neuron contributes weight times slope", chain(lambda w, z, h: w)),
            Mistake("the slope is 1 − h² with the neuron's output, not with its sum z",
                    chain(lambda w, z, h: w * (1 - z**2))),
            Mistake("you take the slope where the neuron before works: mind which h belongs to which factor",
                    chain(lambda w, z, h: w * (1 - h**2))),
            Mistake("that is the slope of the sigmoid; these neurons are tanh",
                    chain(lambda w, z, h: w * math.exp(-z) / (1 + math.exp(-z)) ** 2)),
        ],
    )  # fmt: skip


def check_dead_share(function: Any) -> Verdict:
    """Check 1.3: the sums z (batch, units) of a ReLU layer → the share of its units that are dead for this batch."""
    generator = torch.Generator().manual_seed(0)

    def draw(batch: int, units: int, mean: float) -> Tensor:
        return torch.randn(batch, units, generator=generator) + mean

    touching = draw(6, 5, 0.0)
    touching[:, 1] = torch.tensor([-1.0, -2.0, 0.0, -1.0, 0.0, -3.0])  # never above 0, but not always below
    return judge(
        function,
        exercise=EXERCISES[2],
        reference=lambda z: dead_fraction(z.relu()),
        cases=[(draw(8, 10, -1.5),), (touching,), (draw(4, 3, -20.0),), (draw(4, 3, 20.0),)],
        right="a unit is dead if no input of the batch lifts it above 0",
        mistakes=[
            Mistake("that is the share of zeros; a unit that is 0 for *some* inputs is alive and does its work",
                    lambda z: (z <= 0).double().mean().item()),
            Mistake("one input at which a unit is silent does not make it dead; all of them have to",
                    lambda z: (z <= 0).any(dim=0).double().mean().item()),
            Mistake("you look along the wrong axis: that is the share of inputs for which every unit is silent",
                    lambda z: (z <= 0).all(dim=1).double().mean().item()),
            Mistake("that is the share of units that are alive", lambda z: 1 - dead_fraction(z.relu())),
            Mistake("that is the number of dead units; divide by how many there are",
                    lambda z: (z <= 0).all(dim=0).sum().item()),
            Mistake("at z = 0 the ReLU's slope is 0 too: such a unit passes no gradient either",
                    lambda z: (z < 0).all(dim=0).double().mean().item()),
            Mistake("a unit whose sum is negative on average may still fire for some inputs",
                    lambda z: (z.mean(dim=0) <= 0).double().mean().item()),
        ],
    )  # fmt: skip


def check_clipped(function: Any) -> Verdict:
    """Check 1.4: (gradients, max_norm) → the list of gradients, shortened together to the length max_norm."""

    def reference(gradients: list[Tensor], max_norm: float) -> tuple[Tensor, ...]:
        parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return tuple(parameter.grad for parameter in parameters if parameter.grad is not None)

    def scaled(factor: Callable[[list[Tensor], float], Any]) -> Callable[..., Any]:
        return lambda gradients, max_norm: tuple(one * factor(gradients, max_norm) for one in gradients)

    def norm(gradients: list[Tensor]) -> float:
        return math.sqrt(sum(gradient.square().sum().item() for gradient in gradients)) + 1e-12

    def each(gradients: list[Tensor], max_norm: float) -> tuple[Tensor, ...]:
        return tuple(gradient * min(1.0, max_norm / norm([gradient])) for gradient in gradients)

    generator = torch.Generator().manual_seed(0)

    def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
        return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    cases = [
        (draw((4, 3), (4,), (1, 4)), 0.5),
        (draw((4, 3), (4,)), 100.0),
        ([100 * draw((7,))[0], draw((2, 2))[0]], 1.0),
        ([torch.zeros(3, dtype=torch.float64)], 1.0),
    ]
    return judge(
        function,
        exercise=EXERCISES[3],
        reference=reference,
        cases=cases,
        rtol=1e-4,  # torch divides by the norm plus 1e-6
        right="one length, one factor: the direction of the step stays as it was",
        mistakes=[
            Mistake("you give every tensor a length limit of its own, which turns the direction: one norm for all",
                    each),
            Mistake("you clip each value by itself, which turns the direction: one factor for all",
                    lambda g, c: tuple(one.clamp(-c, c) for one in g)),
            Mistake("a gradient that is short enough must stay as it is, yours is made longer",
                    scaled(lambda g, c: c / norm(g))),
            Mistake("you add up the norms of the tensors; the norm of the whole adds up squares",
                    scaled(lambda g, c: min(1.0, c / (sum(float(one.norm()) for one in g) + 1e-12)))),
            Mistake("you divide by the square of the norm: its root is missing",
                    scaled(lambda g, c: min(1.0, c / norm(g) ** 2))),
            Mistake("that is the sum of absolute values; a length is the root of the sum of squares",
                    scaled(lambda g, c: min(1.0, c / (sum(float(one.abs().sum()) for one in g) + 1e-12)))),
            Mistake("long gradients are made shorter, but not to length max_norm: they all get length 1",
                    scaled(lambda g, c: 1 / norm(g) if norm(g) > c else 1.0)),
            Mistake("the gradients come back as they were: where is the factor?", scaled(lambda g, c: 1.0)),
        ],
    )  # fmt: skip


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


def check_half_dead(bias: Any) -> Verdict:
    """Check 1.5: a bias with which about half of the units of a He-initialized ReLU layer are dead on 512 inputs."""
    if bias is None or not_attempted(bias):
        return Verdict(EXERCISES[4], "todo", "not attempted yet")
    not_a_number = difference(0.0, bias, rtol=0, atol=1e300)
    if not_a_number:
        message = not_a_number.message.replace("it returns", "the answer is")
        return Verdict(EXERCISES[4], "wrong", message, got=brief(bias))
    value, share = float(bias), _dead_at(float(bias))
    low, high = _HALF
    if low <= share <= high:
        message = f"{share:.0%} of 500 units are dead, three standard deviations down: one input of 512 revives a unit"
        return Verdict(EXERCISES[4], "right", message, figure=lambda: _draw_dead(value))
    fault = f"with this bias {share:.0%} of 500 such units are dead"
    if value > 0:
        fault += ": a positive bias lifts the sums further above 0"
    elif value == 0:
        fault += ": half of the activations are 0, but every unit fires for some input"
    elif share < low:
        fault += ": a unit lives as long as its highest of 512 sums is above 0, so go further down"
    else:
        fault += ": too many, go back up"
    return Verdict(EXERCISES[4], "wrong", fault, got=brief(value))


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


def check_sickness(function: Any) -> Verdict:
    """Check 1.6: gradient norms, first layer to last → not finite, dead, vanishing, exploding or healthy."""

    def name(norms: Array, *, nan: bool = True, inf: bool = True, dead: bool = True, limit: float = 1000) -> str:
        if (nan and np.isnan(norms).any()) or (inf and np.isinf(norms).any()):
            return "not finite"
        if dead and (norms == 0).any():
            return "dead"
        if norms[0] * limit < norms[-1]:
            return "vanishing"
        return "exploding" if norms[0] > limit * norms[-1] else "healthy"

    def absolute(norms: Array) -> str:
        known = name(norms)
        return known if known in ("not finite", "dead") else name(np.array([norms[0], 1.0]))

    def dead_late(norms: Array) -> str:
        known = name(norms, dead=False)
        return "dead" if known == "healthy" and (norms == 0).any() else known

    profiles = (
        [0.9, 1.1, 0.7, 1.0], [1e-8, 1e-6, 1e-4, 1e-2, 1.0], [4e4, 2e2, 1.0, 1e-2], [2e-6, 1e-6, 3e-6],
        [3e4, 1e4, 2e4], [math.nan, math.nan, 1.0], [1.0, math.inf, 1.0], [0.0, 0.0, 0.5], [0.2, 0.0, math.nan],
        [0.3, 0.0, 0.4], [5e-4, 1.0, 2e-4], [5e-4, 2e-2, 0.4],
    )  # fmt: skip
    swap = {"vanishing": "exploding", "exploding": "vanishing"}
    return judge(
        function,
        exercise=EXERCISES[5],
        reference=name,
        cases=[(np.array(profile),) for profile in profiles],
        right="all twelve profiles get the right name",
        mistakes=[
            Mistake("NaN slips through: it is neither smaller nor larger than anything, so ask for it first",
                    lambda norms: name(norms, nan=False)),
            Mistake("infinity slips through: it is not NaN, but not finite either",
                    lambda norms: name(norms, inf=False)),
            Mistake("NaN and infinity slip through: ask for them first",
                    lambda norms: name(norms, nan=False, inf=False)),
            Mistake("a norm of exactly 0 is death, not weakness: it has no cure by waiting",
                    lambda norms: name(norms, dead=False)),
            Mistake("a dead first layer is taken for vanishing: ask for zeros before you compare", dead_late),
            Mistake("you turned the profile round: the first norm belongs to the layer next to the input",
                    lambda norms: swap.get(name(norms), name(norms))),
            Mistake("compare layers with each other: a first norm as small as all the others is no sickness",
                    absolute),
            Mistake("you draw the line at a factor of 100, not 1000", lambda norms: name(norms, limit=100)),
        ],
    )  # fmt: skip


def _prelu(dz: Callable[..., Any], da: Callable[..., Any]) -> Callable[..., Any]:
    """An autograd function whose gradients are dz(grad_out, z, slopes) and da(grad_out, z, slopes)."""

    class Prelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor, slopes: Tensor) -> Tensor:
            ctx.save_for_backward(z, slopes)
            return torch.where(z > 0, z, slopes * z)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            (grad_out,) = grads
            return dz(grad_out, *ctx.saved_tensors), da(grad_out, *ctx.saved_tensors)

    return Prelu


def check_prelu(function: Any) -> Verdict:
    """Check 1.7: an autograd Function of z (batch, units) and slopes (units,), a leaky ReLU."""

    def use(chosen: Any, z: Tensor, slopes: Tensor, grad_out: Tensor) -> Any:
        z, slopes = z.requires_grad_(), slopes.requires_grad_()
        output = getattr(chosen, "apply", chosen)(z, slopes)  # torch's own is a function
        gradients = torch.autograd.grad(output, (z, slopes), grad_out, allow_unused=True)
        z.requires_grad_(False)
        slopes.requires_grad_(False)
        return output.detach(), *gradients

    def dz(g: Tensor, z: Tensor, a: Tensor) -> Tensor:
        return g * torch.where(z > 0, 1.0, a)

    def da(g: Tensor, z: Tensor, a: Tensor) -> Tensor:
        return (g * z.clamp(max=0)).sum(dim=0)

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return judge(
        function,
        exercise=EXERCISES[6],
        reference=functional.prelu,
        cases=[(draw(n, m), 0.5 * draw(m), draw(n, m)) for n, m in ((6, 3), (4, 4), (1, 2))],
        names=("output", "gradient by z", "gradient by slopes"),
        call=use,
        right="it agrees with torch's PReLU, forward and backward",
        mistakes=[
            Mistake("gradient by z: the local slope has to be multiplied by grad_out, what comes from above",
                    _prelu(lambda g, z, a: dz(torch.ones_like(g), z, a), da)),
            Mistake("gradient by slopes: grad_out is missing",
                    _prelu(dz, lambda g, z, a: z.clamp(max=0).sum(dim=0))),
            Mistake("neither gradient contains grad_out, what comes from above",
                    _prelu(lambda g, z, a: dz(torch.ones_like(g), z, a), lambda g, z, a: da(torch.ones_like(g), z, a))),
            Mistake("gradient by z: left of 0 it is that of a ReLU; there a slope acts",
                    _prelu(lambda g, z, a: g * (z > 0), da)),
            Mistake("gradient by z: you swapped the sides; the slope acts where z is negative",
                    _prelu(lambda g, z, a: g * torch.where(z > 0, a, 1.0), da)),
            Mistake("gradient by slopes: every row uses the slope, and their contributions add up, not average",
                    _prelu(dz, lambda g, z, a: (g * z.clamp(max=0)).mean(dim=0))),
            Mistake("gradient by slopes: only negative z are multiplied by a slope; the others must not contribute",
                    _prelu(dz, lambda g, z, a: (g * z).sum(dim=0))),
            Mistake("gradient by slopes: the derivative of a·z by a is z, not a or 1",
                    _prelu(dz, lambda g, z, a: (g * (z <= 0)).sum(dim=0))),
            Mistake("gradient by slopes: the sign is flipped", _prelu(dz, lambda g, z, a: -da(g, z, a))),
        ],
    )  # fmt: skip
