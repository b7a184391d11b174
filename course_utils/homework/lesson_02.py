"""Checks of the exercises of lesson 02, initialization."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from course_utils import init
from course_utils.homework.engine.compare import brief, difference
from course_utils.homework.engine.judge import Mistake, judge, judge_answer, not_attempted
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "check_different_rows",
    "check_factor",
    "check_gain",
    "check_orthogonal",
    "check_rule_std",
    "check_sizes",
    "check_std_of_sum",
]

EXERCISES: tuple[str, ...] = (
    "2.1 Gray pictures",
    "2.2 Copies with different listeners",
    "2.3 Three rules for one matrix",
    "2.4 The size of the signal, layer by layer",
    "2.5 A gain for any bend",
    "2.6 A factor for a leakier ReLU",
    "2.7 A random rotation",
)

# Exercise 2.6: the network that is measured, and the sizes that count as kept.
_DEPTH, _WIDTH, _SLOPE = 30, 256, 0.5
_KEPT = (0.5, 2.0)


def check_std_of_sum(answer: Any) -> Verdict:
    """Check 2.1: the std of a sum under LeCun's rule for inputs of mean 0.3 and std 0.4."""
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=0.5,
        rtol=0.01,
        right="LeCun's rule hands on the root mean square of the inputs, and the mean counts like any other signal",
        hint="this is not it: Var(z) = n·Var(w)·E[x²], and LeCun's rule makes n·Var(w) equal to 1",
        mistakes=[
            (0.4, "that is the std of the inputs; what counts is E[x²], and their mean is not 0"),
            (0.25, "that is the variance of z; the standard deviation is asked for"),
            (0.16, "that is the variance of the inputs; what counts is E[x²], and the std of z is asked for"),
            (0.3, "that is the mean of the inputs; how large is E[x²]?"),
            (0.7, "mean and std do not add up; their squares do"),
            (1.0, "it would be 1 if E[x²] were 1: LeCun's rule keeps a size, it does not make one"),
            (14.0, "you forgot that the weights shrink with n"),
            (0.5 / 28, "the factor n is missing: 784 products are added"),
            (math.sqrt(0.5), "that is He's or twice the variance somewhere: n·Var(w) is 1 here"),
        ],
    )


def check_different_rows(answer: Any) -> Verdict:
    """Check 2.2: how many rows differ in the gradient of a layer of copies whose outgoing weights are random."""
    return judge_answer(
        answer,
        exercise=EXERCISES[1],
        expected=100,
        choices=(1, 10, 100),
        right="what a unit learns comes back through its outgoing weights: these alone break the symmetry",
        mistakes=[
            (1, "that would hold if the outgoing weights were equal too; a gradient comes back through them"),
            (10, "ten classes limit the rank of what comes back, not the number of different rows"),
        ],
    )


def check_rule_std(function: Any) -> Verdict:
    """Check 2.3: (weight, rule) → the std of LeCun's, Glorot's or He's normal weights for a matrix of that shape."""
    stds: Mapping[str, Callable[[int, int], float]] = {
        "lecun": lambda n, m: init.lecun_std(n),
        "glorot": init.xavier_std,
        "he": lambda n, m: init.kaiming_std(n),
    }

    def with_rules(**changed: Callable[[int, int], float]) -> Callable[..., float]:
        rules = {**stds, **changed}
        return lambda weight, rule: rules[rule](weight.shape[1], weight.shape[0])

    def each(change: Callable[[float], float]) -> Callable[..., float]:
        return lambda weight, rule: change(stds[rule](weight.shape[1], weight.shape[0]))

    shapes = ((100, 784), (10, 100), (300, 1), (1, 64))
    return judge(
        function,
        exercise=EXERCISES[2],
        reference=with_rules(),
        cases=[(torch.zeros(shape), rule) for shape in shapes for rule in stds],
        right="all three rules, with fan in read from the right dimension",
        mistakes=[
            Mistake("fan in and fan out are swapped: torch's weight has the shape (out, in)",
                    lambda weight, rule: stds[rule](weight.shape[0], weight.shape[1])),
            Mistake("that is the variance: its root is the standard deviation", each(lambda std: std**2)),
            Mistake("that is the bound a of the uniform form; the standard deviation is √3 times smaller",
                    each(lambda std: math.sqrt(3) * std)),
            Mistake("glorot: the mean of the two fans is half their sum, which puts a 2 above the fraction bar",
                    with_rules(glorot=lambda n, m: math.sqrt(1 / (n + m)))),
            Mistake("glorot: it needs both fans, not twice the same", with_rules(glorot=lambda n, m: 1 / math.sqrt(n))),
            Mistake("glorot: that is the √6 of its uniform form",
                    with_rules(glorot=lambda n, m: math.sqrt(6 / (n + m)))),
            Mistake("he: ReLU removes half of E[h²]; the rule pays for it with a factor",
                    with_rules(he=lambda n, m: 1 / math.sqrt(n))),
            Mistake("he: the 2 belongs to the variance, so that its root goes into the standard deviation",
                    with_rules(he=lambda n, m: 2 / math.sqrt(n))),
            Mistake("lecun: that is torch's default, 0.577/√n", with_rules(lecun=lambda n, m: 1 / math.sqrt(3 * n))),
        ],
    )  # fmt: skip


def check_sizes(function: Any) -> Verdict:
    """Check 2.4: (widths, stds, square) → E[z²] of every ReLU layer's sums, if the input has E[x²] = square."""

    def forecast(
        fan: Callable[[Sequence[int], int], int] = lambda widths, k: widths[k],
        *,
        power: int = 2,
        relu: float = 0.5,
        first: float = 1.0,
        after: Callable[[Tensor], Tensor] = lambda squares: squares,
    ) -> Callable[..., Tensor]:
        def squares(widths: Sequence[int], stds: Sequence[float], square: float) -> Tensor:
            passed, found = first * square, []
            for k, std in enumerate(stds):
                found.append(fan(widths, k) * std**power * passed)
                passed = relu * found[-1]
            return after(torch.tensor(found, dtype=torch.float64))

        return squares

    # The oracle is Var(z) = n Var(w) E[x²] of the lesson; the tests compare it with random networks.
    return judge(
        function,
        exercise=EXERCISES[3],
        reference=forecast(),
        cases=[
            ([784, 100, 100, 50], [0.05, 0.1, 0.2], 1.0),
            ([20, 300], [0.3], 2.5),
            ([64, 128, 32, 16, 8], [0.1, 0.2, 0.3, 0.4], 0.5),
        ],
        right="three factors a layer: how many inputs, how large the weights, how much the ReLU leaves",
        mistakes=[
            Mistake("you use fan out: a unit of layer k adds up as many products as layer k − 1 has units",
                    forecast(lambda widths, k: widths[k + 1])),
            Mistake("the weights enter with their variance, the square of the standard deviation", forecast(power=1)),
            Mistake("the ReLU between the layers is missing: it removes half of E[z²]", forecast(relu=1)),
            Mistake("there is no ReLU in front of the first layer: its input arrives whole", forecast(first=0.5)),
            Mistake("a factor of 0.34 is what ReLU leaves of the *variance*; the next layer counts E[h²]",
                    forecast(relu=0.5 - 0.5 / math.pi)),
            Mistake("the half belongs to E[z²], not to the standard deviation", forecast(relu=0.25)),
            Mistake("those are standard deviations; E[z²] is asked for, without the root", forecast(after=torch.sqrt)),
            Mistake("that is E[h²] after the ReLU; E[z²] in front of it is asked for",
                    forecast(after=lambda squares: squares / 2)),
            Mistake("the number of inputs is missing: as many products are added", forecast(lambda widths, k: 1)),
            Mistake("every layer begins with the input's size; it should begin with what the one before hands on",
                    lambda widths, stds, square: torch.tensor(
                        [n * std**2 * square for n, std in zip(widths, stds, strict=False)], dtype=torch.float64)),
        ],
    )  # fmt: skip


def check_gain(function: Any) -> Verdict:
    """Check 2.5: (activation, z) → 1/√E[φ(z)²], the factor that gives an activation's output size 1 again."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, generator=generator, dtype=torch.float64)
    bends: dict[str, Callable[[Tensor], Tensor]] = {
        "ReLU": torch.relu, "tanh": torch.tanh, "SiLU": torch.nn.functional.silu, "shifted": lambda v: v + 1,
    }  # fmt: skip

    def rms(h: Tensor) -> Tensor:
        return h.square().mean().sqrt()

    return judge(
        function,
        exercise=EXERCISES[4],
        reference=lambda bend, z: float(1 / rms(bend(z))),
        cases=[(bend, z) for bend in bends.values()] + [(torch.relu, z[:12].reshape(3, 4))],
        right="no formula needed: measure what a bend leaves, and pay for it with the weights",
        mistakes=[
            Mistake("you subtract the mean: what the next layer adds up is E[h²], not the variance",
                    lambda bend, z: 1 / bend(z).std().item()),
            Mistake("you subtract the mean: what the next layer adds up is E[h²], not the variance",
                    lambda bend, z: 1 / bend(z).std(correction=0).item()),
            Mistake("that is the factor for the variance of the weights; a gain multiplies their standard deviation",
                    lambda bend, z: 1 / bend(z).square().mean().item()),
            Mistake("that is what the activation leaves; the gain makes up for it",
                    lambda bend, z: rms(bend(z)).item()),
            Mistake("you add up the squares; their mean is meant", lambda bend, z: 1 / bend(z).norm().item()),
            Mistake("that is the mean size |h|; the next layer adds up squares",
                    lambda bend, z: 1 / bend(z).abs().mean().item()),
            Mistake("that is the mean of h; the next layer adds up squares", lambda bend, z: 1 / bend(z).mean().item()),
            Mistake("the activation is missing: you measured z itself", lambda bend, z: 1 / rms(z).item()),
            Mistake("you divide by E[z²] as well, but the gain is defined for the h that comes out",
                    lambda bend, z: (rms(z) / rms(bend(z))).item()),
        ],
        figure=lambda: _draw_gains(z),
    )  # fmt: skip


def _draw_gains(z: Tensor) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    names = ("tanh", "relu", "elu", "gelu", "silu", "selu")
    measured = [float(1 / getattr(torch.nn.functional, name)(z).square().mean().sqrt()) for name in names]
    figure, ax = plt.subplots(figsize=(6.5, 2.8))
    ax.plot(names, measured, linestyle="", markersize=9, **style(0))
    ax.axhline(math.sqrt(2), color="0.5", linestyle=":")
    ax.annotate("He's √2", (0.25, 1.44), color="0.4")
    ax.set(ylabel="gain", title="Measured with 20,000 random numbers", ylim=(0.9, 1.8))
    return figure, (
        "Measured gains. ReLU lies on the square root of 2, SELU on 1, ELU at about 1.25; tanh, GELU and SiLU need "
        "more than ReLU, SiLU nearly 1.7."
    )


@functools.cache
def _sizes_with_one() -> Tensor:
    """Root mean square of the activations of 30 leaky ReLU layers with n·Var(w) = 1, geometric mean of 4 networks."""
    logs = torch.zeros(_DEPTH)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        h = torch.randn(64, _WIDTH, generator=generator)
        for layer in range(_DEPTH):
            weight = torch.randn(_WIDTH, _WIDTH, generator=generator) / math.sqrt(_WIDTH)
            h = torch.nn.functional.leaky_relu(h @ weight, _SLOPE)
            logs[layer] += h.square().mean().sqrt().log() / 4
    return logs.exp()


def _sizes_with(factor: float) -> list[float]:
    """The same with n·Var(w) = factor: leaky ReLU hands on a factor √factor per layer as it is."""
    sizes: list[float] = (_sizes_with_one() * math.sqrt(factor) ** torch.arange(1, _DEPTH + 1)).tolist()
    return sizes


def check_factor(factor: Any) -> Verdict:
    """Check 2.6: n·Var(w) that keeps the signal's size over thirty leaky ReLU layers of slope ½."""
    exercise = EXERCISES[5]
    if factor is None or not_attempted(factor):
        return Verdict(exercise, "todo", "not attempted yet")
    not_a_number = difference(0.0, factor, rtol=0, atol=1e300)
    if not_a_number:
        message = not_a_number.message.replace("it returns", "the answer is")
        return Verdict(exercise, "wrong", message, got=brief(factor))
    value = float(factor)
    if value <= 0:
        return Verdict(exercise, "wrong", "a variance is positive, and so is n times a variance", got=brief(value))
    size = _sizes_with(value)[-1]
    if _KEPT[0] <= size <= _KEPT[1]:
        message = f"after 30 layers the size is {size:.2f}: less than He's 2 is needed, for the left side helps"
        return Verdict(exercise, "right", message, figure=lambda: _draw_sizes(value))
    fault = f"with this factor the size is {size:.2g} after 30 layers"
    if value == 2:
        fault += ": He's 2 pays for a left side that is 0, but here it is not"
    elif value == 1:
        fault += ": LeCun's 1 is for a layer that loses nothing, but this one does"
    else:
        fault += ": the weights are too " + ("large" if size > 1 else "small")
    return Verdict(exercise, "wrong", fault, got=brief(value))


def _draw_sizes(factor: float) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import label_line_ends, style

    figure, ax = plt.subplots(figsize=(6.5, 2.8))
    lines = {"LeCun's 1": 1.0, "yours": factor, "He's 2": 2.0}
    for index, (name, one) in enumerate(lines.items()):
        ax.plot(range(1, _DEPTH + 1), _sizes_with(one), label=name, color=style(index)["color"])
    ax.set(yscale="log", xlabel="layer", ylabel="size of activations", title="Leaky ReLU of slope ½")
    label_line_ends(ax)
    return figure, (
        "Size of the activations over thirty leaky ReLU layers, on a logarithmic axis: with LeCun's factor 1 it falls "
        "to about 0.001, with He's 2 it grows to about 30, with yours it stays near 1."
    )


def check_orthogonal(function: Any) -> Verdict:
    """Check 2.7: (out, in, gain, generator) → a random matrix, orthonormal along its shorter side, times gain."""
    exercise = EXERCISES[6]
    if not_attempted(function):
        return Verdict(exercise, "todo", "not attempted yet")
    if not callable(function):
        return Verdict(exercise, "wrong", f"the check takes the function itself, it got {brief(function)}")

    def draw(out: int, n: int, gain: float = 1.0, seed: int = 0) -> Any:
        outcome = run(function, out, n, gain, torch.Generator().manual_seed(seed), quiet=True)
        if outcome.todo:
            return Verdict(exercise, "todo", "not attempted yet")
        if outcome.failure:
            return Verdict(exercise, "wrong", outcome.failure, got=f"for the shape ({out}, {n})")
        if not isinstance(outcome.value, Tensor):
            what = "None: is the `return` missing?" if outcome.value is None else f"a {type(outcome.value).__name__}"
            return Verdict(exercise, "wrong", f"it returns {what}")
        if outcome.value.shape != (out, n):
            message = f"for the shape ({out}, {n}) it returns {tuple(outcome.value.shape)}: which side is shorter?"
            return Verdict(exercise, "wrong", message)
        return outcome.value.detach().double()

    for out, n, gain in ((6, 6, 1.0), (8, 3, 1.0), (3, 8, 1.0), (5, 5, 2.0), (1, 4, 0.5)):
        drawn = draw(out, n, gain)
        if isinstance(drawn, Verdict):
            return drawn
        fault = _fault_of_orthogonal(drawn, gain)
        if fault:
            return Verdict(exercise, "wrong", f"shape ({out}, {n}): {fault}")
    fault = _fault_of_randomness(draw)
    if fault:
        return Verdict(exercise, "wrong", fault)
    return Verdict(exercise, "right", "no direction is lost, and none is preferred")


def _fault_of_randomness(draw: Callable[..., Any]) -> str:
    """What is wrong with how the matrices are drawn; each has the right shape by now."""
    before = torch.random.get_rng_state()
    first, again, other = draw(4, 4), draw(4, 4), draw(4, 4, seed=1)
    if torch.equal(first, other) and torch.equal(first, again):
        return "it gives the same matrix for every generator: nothing is random"
    if not torch.equal(first, again) or not torch.equal(before, torch.random.get_rng_state()):
        return "it does not draw from the generator it is given"
    corners = torch.stack([draw(3, 3, seed=seed)[0, 0] for seed in range(64)])
    if abs(corners.mean()) > 0.3:  # each has mean 0 and std 1/√3, so their mean has std 0.07
        sign = "negative" if corners.mean() < 0 else "positive"
        return f"the upper left number is nearly always {sign}: QR fixes signs; undo that with those of R's diagonal"
    return ""


def _fault_of_orthogonal(weight: Tensor, gain: float) -> str:
    if not weight.isfinite().all():
        return "some values are NaN or infinity"
    product = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    lengths = product.diagonal().sqrt()
    if not torch.allclose(product - torch.diag(product.diagonal()), torch.zeros_like(product), atol=1e-5):
        if torch.allclose(lengths, torch.full_like(lengths, gain), rtol=1e-5):
            return "the rows have the right length but are not at right angles to each other"
        return "its rows (or, if these are more, its columns) are not at right angles to each other"
    if torch.allclose(lengths, torch.full_like(lengths, gain), rtol=1e-5):
        return ""
    if torch.allclose(lengths, torch.ones_like(lengths), rtol=1e-5):
        return "the gain is missing: every direction should get this length"
    return f"the directions get lengths from {lengths.min():.3g} to {lengths.max():.3g}, not the gain {gain:g}"
