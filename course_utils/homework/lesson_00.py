"""Checks of the exercises of lesson 00, the foundations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from course_utils.homework.engine.judge import Mistake, judge, judge_answer, not_attempted
from course_utils.homework.engine.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "check_cross_entropy",
    "check_gates",
    "check_largest_lr",
    "check_merged",
    "check_parameters",
    "check_starts",
    "check_tanh_gradients",
]

EXERCISES: tuple[str, ...] = (
    "0.1 XOR out of three neurons",
    "0.2 Two linear layers are one",
    "0.3 Count without building",
    "0.4 How many tickets?",
    "0.5 The largest learning rate",
    "0.6 A loss that survives large logits",
    "0.7 Backward through tanh",
)

Array = NDArray[np.float64]

_POINTS = ((0, 0), (0, 1), (1, 0), (1, 1))
# Which of the four points a neuron fires for, and the name of that function.
_TABLES = {
    (0, 1, 1, 1): "OR", (1, 1, 1, 0): "NAND", (0, 0, 0, 1): "AND", (1, 0, 0, 0): "NOR",
    (0, 0, 0, 0): "'never'", (1, 1, 1, 1): "'always'",
}  # fmt: skip


def check_gates(gates: Any) -> Verdict:
    """Check 0.1: a dictionary from OR, NAND and AND to (w1, w2, b) of a neuron that fires if w1·x1 + w2·x2 + b > 0."""
    if gates is None or not_attempted(gates):
        return Verdict(EXERCISES[0], "todo", "not attempted yet")
    fault = _fault_of_gates(gates)
    if fault:
        return Verdict(EXERCISES[0], "wrong", fault)
    message = "AND of OR and NAND fires for exactly one switch: three lines do what no single one can"
    return Verdict(EXERCISES[0], "right", message, figure=lambda: _draw_gates(gates))


def _fault_of_gates(gates: Any) -> str:
    if not isinstance(gates, dict):
        return f"a dictionary from 'OR', 'NAND' and 'AND' to (w1, w2, b) is expected, not a {type(gates).__name__}"
    for name in ("OR", "NAND", "AND"):
        if name not in gates:
            return f"the neuron {name!r} is missing"
        try:
            w1, w2, bias = (float(number) for number in gates[name])
        except (TypeError, ValueError):
            return f"{name} needs three numbers: w1, w2 and the bias"
        fault = _fault_of_gate(name, w1, w2, bias)
        if fault:
            return fault
    return ""


def _fault_of_gate(name: str, w1: float, w2: float, bias: float) -> str:
    if not all(map(math.isfinite, (w1, w2, bias))):
        return f"{name}: every number must be finite"
    sums = [w1 * x1 + w2 * x2 + bias for x1, x2 in _POINTS]
    table = tuple(int(value > 0) for value in sums)
    right = next(key for key, known in _TABLES.items() if known == name)
    if table == right:
        if 0 in sums:
            return f"{name}: the line runs through the point {_POINTS[sums.index(0)]}, so that rounding decides there"
        return ""
    if 0 in sums:
        point = _POINTS[sums.index(0)]
        return f"{name}: for {point} the sum is exactly 0, and 0 does not fire: move the line off the points"
    if table in _TABLES:
        return f"your {name} neuron computes {_TABLES[table]}: evaluate it for all four points"
    place = next(place for place in range(4) if table[place] != right[place])
    does = "fires" if table[place] else "does not fire"
    return f"{name}: for {_POINTS[place]} it {does}: on which side of the line does this point lie?"


def _draw_gates(gates: dict[str, Sequence[float]]) -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.plotting import style

    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    points = np.array(_POINTS, dtype=float)
    classes = points[:, 0] != points[:, 1]
    fires = np.column_stack([points @ gates[name][:2] + gates[name][2] > 0 for name in ("OR", "NAND")])
    for ax, places, names in zip(axes, (points, fires), (("OR", "NAND"), ("AND",)), strict=True):
        for label in (0, 1):
            ax.plot(*places[classes == label].T, linestyle="", markersize=11, **style(label))
        for index, name in enumerate(names):
            w1, w2, bias = gates[name]
            x = np.array([-0.4, 1.4])
            ax.plot(x, -(w1 * x + bias) / w2, color="0.4", linestyle="--" if index else "-", label=name)
        ax.set(xlim=(-0.4, 1.4), ylim=(-0.4, 1.4))
        ax.legend(loc="center")
    axes[0].set(xlabel="$x_1$", ylabel="$x_2$", title="Two lines")
    axes[1].set(xlabel="OR", ylabel="NAND", title="And a third behind them")
    return figure, (
        "Left: the lines of your OR and NAND neurons enclose the two points of class 1. Right: in the plane of the two "
        "outputs both of these points lie on (1, 1), where the line of AND cuts them off."
    )


def check_merged(function: Any) -> Verdict:
    """Check 0.2: (w1, b1, w2, b2) of two ``nn.Linear`` in a row → weight and bias of the one that equals them."""

    def reference(w1: torch.Tensor, b1: torch.Tensor, w2: torch.Tensor, b2: torch.Tensor) -> Any:
        # What the two compute for 0 is the bias, and for the unit vectors, less the bias, the columns of the weight.
        bias = functional.linear(functional.linear(torch.zeros(w1.shape[1], dtype=w1.dtype), w1, b1), w2, b2)
        columns = functional.linear(functional.linear(torch.eye(w1.shape[1], dtype=w1.dtype), w1, b1), w2, b2) - bias
        return columns.T.contiguous(), bias

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = ((3, 5, 2), (4, 1, 4), (1, 6, 3), (2, 2, 2))
    return judge(
        function,
        exercise=EXERCISES[1],
        reference=reference,
        cases=[(draw(h, n), draw(h), draw(m, h), draw(m)) for n, h, m in sizes],
        names=("weight", "bias"),
        right="one matrix and one vector do the work of both layers, so that a bend has to stand between them",
        mistakes=[
            Mistake("bias: the first layer's bias is lost, but it too runs through the second layer",
                    lambda w1, b1, w2, b2: (w2 @ w1, b2)),
            Mistake("bias: the second layer's own bias is lost",
                    lambda w1, b1, w2, b2: (w2 @ w1, w2 @ b1)),
            Mistake("both biases are lost", lambda w1, b1, w2, b2: (w2 @ w1, torch.zeros_like(b2))),
            Mistake("bias: there is no ReLU between these two layers",
                    lambda w1, b1, w2, b2: (w2 @ w1, w2 @ b1.relu() + b2)),
            Mistake("weight: what the layers make of the unit vectors still contains the bias",
                    lambda w1, b1, w2, b2: (w2 @ w1 + (w2 @ b1 + b2)[:, None], w2 @ b1 + b2)),
            Mistake("these are the weights of x @ W; torch's Linear stores them as (out, in)",
                    lambda w1, b1, w2, b2: ((w2 @ w1).T, w2 @ b1 + b2)),
        ],
    )  # fmt: skip


def check_parameters(function: Any) -> Verdict:
    """Check 0.3: (sizes, bias) → the number of parameters of an MLP; sizes from the inputs to the outputs."""

    def count(sizes: list[int], bias: bool, extra: Callable[[list[int]], int]) -> int:
        products = sum(n * m for n, m in itertools.pairwise(sizes))
        return products + (extra(sizes) if bias else 0)

    def built(sizes: list[int], bias: bool) -> int:
        shapes = [torch.nn.Linear(n, m, bias=bias, device="meta") for n, m in itertools.pairwise(sizes)]
        return sum(parameter.numel() for layer in shapes for parameter in layer.parameters())

    return judge(
        function,
        exercise=EXERCISES[2],
        reference=built,
        cases=[
            ([784, 32, 10], True),
            ([50, 100, 100, 10], True),
            ([784, 32, 10], False),
            ([13, 1], True),
            ([7, 5, 3, 2, 1], True),
        ],
        rtol=0,
        atol=0,
        right="the count agrees with networks that were built, and yours needs no memory",
        mistakes=[
            Mistake("the biases are missing: every unit behind the input has one", lambda s, b: count(s, False, sum)),
            Mistake("the inputs have no bias: they compute nothing", lambda s, b: count(s, b, sum)),
            Mistake("a layer has one bias for each of its units, not one in all",
                    lambda s, b: count(s, b, lambda sizes: len(sizes) - 1)),
            Mistake("the bias of the output layer is missing",
                    lambda s, b: count(s, b, lambda sizes: sum(sizes[1:-1]))),
            Mistake("a bias belongs to a unit of the layer that comes out, not of the one that goes in: m·(n + 1)",
                    lambda s, b: count(s, b, lambda sizes: sum(sizes[:-1]))),
            Mistake("it adds the biases also when `bias` is False", lambda s, b: count(s, True, lambda z: sum(z[1:]))),
            Mistake("that is the number of units; a layer holds a weight for each pair of them",
                    lambda s, b: sum(s)),
            Mistake("the last layer is missing: a list of k sizes describes k − 1 layers",
                    lambda s, b: count(s[:-1], b, lambda sizes: sum(sizes[1:]))),
        ],
    )  # fmt: skip


def check_starts(answer: Any) -> Verdict:
    """Check 0.4: how many independent starts make one success of probability 1/5 at least 95% sure."""
    return judge_answer(
        answer,
        exercise=EXERCISES[3],
        expected=14,
        rtol=0,
        right="0.8 to the power 14 is 4.4%: so rarely do all of them fail",
        hint="this is not it: how likely is it that all of them fail?",
        mistakes=[
            (5, "after so many starts you have one success on average, and none in a third of all cases"),
            (4.75, "probabilities of success do not add up: four starts would already make 80%"),
            (13, "almost: with this many the chance that one succeeds is still 94.5%"),
            (13.425, "nobody starts a fraction of a network: which whole number is enough?"),
            (1, "a single start succeeds in one case of five"),
            (2, "you let the failures be as rare as the successes: one start fails with probability 0.8"),
            (25, "for 95% it takes fewer: multiply 0.8 by itself until 5% is left"),
        ],
    )


def check_largest_lr(answer: Any) -> Verdict:
    """Check 0.5: the learning rate above which the standardized neuron's loss grows."""
    return judge_answer(
        answer,
        exercise=EXERCISES[4],
        expected=2.0,
        rtol=0.02,
        right="two over the curvature: at this rate the step lands just as high on the other side",
        hint="this is not it: halve the interval between a rate whose loss falls and one whose loss grows",
        mistakes=[
            (1.0, "at this rate a single step reaches the bottom: it is the best one, not the largest"),
            (0.1, "this is the rate of the lesson, and it is far from the limit"),
            (1.9, "here the loss still falls, if only slowly: go on a little"),
            (1.5, "here the loss still falls: go on"),
            (2.1, "here the loss already grows: look between this rate and the one before"),
            (2.5, "here the loss more than doubles in every step: go back"),
            (3.0, "here every step makes the loss four times as large: go back"),
            (-0.1, "a negative rate climbs from the first step; the question is about positive ones"),
        ],
    )  # fmt: skip


def check_cross_entropy(function: Any) -> Verdict:
    """Check 0.6: (logits, labels) → the mean cross-entropy, NumPy, with logits of any size."""

    def reference(logits: Array, labels: NDArray[np.int64]) -> float:
        return functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()

    def shifted(logits: Array) -> Array:
        lower: Array = logits - logits.max(axis=1, keepdims=True)
        return lower

    def own(log_p: Array, labels: NDArray[np.int64]) -> Array:
        picked: Array = log_p[np.arange(len(labels)), labels]
        return picked

    def log_p(logits: Array, axis: int = 1) -> Array:
        logits = logits - logits.max(axis=axis, keepdims=True)
        result: Array = logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True))
        return result

    def softmax(logits: Array) -> Array:
        powers: Array = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return powers

    rng = np.random.default_rng(0)
    far = np.array([[1000.0, 0.0, -1000.0], [3.0, 2.0, 1.0], [-900.0, -901.0, -902.0]])
    return judge(
        function,
        exercise=EXERCISES[5],
        reference=reference,
        cases=[
            (rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])),
            (3 * rng.normal(size=(1, 5)), np.array([4])),
            (far, np.array([0, 1, 2])),
            (far, np.array([2, 0, 1])),
        ],
        call=_without_float_warnings,
        right="it agrees with torch, also where the probability is too small for any float",
        mistakes=[
            Mistake("exp of a logit of 1000 is infinity: subtract the same number from all logits of a row first",
                    lambda z, y: -own(np.log(softmax(z)), y).mean()),
            Mistake("one maximum for the whole batch lets rows far below it become 0: each row needs its own",
                    lambda z, y: -own(z - z.max() - np.log(np.exp(z - z.max()).sum(1, keepdims=True)), y).mean()),
            Mistake("you take the softmax, its log afterwards: a probability too small for a float is 0 by then",
                    lambda z, y: -own(np.log(softmax(shifted(z))), y).mean()),
            *(
                Mistake(f"a small number inside the log caps the loss near {-math.log(eps):.0f}: the log needs none",
                        lambda z, y, eps=eps: -own(np.log(softmax(shifted(z)) + eps), y).mean())
                for eps in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15, 1e-16)
            ),
            Mistake("the sign is flipped: a log-probability is negative, a loss is not",
                    lambda z, y: own(log_p(z), y).mean()),
            Mistake("you add up the rows; the mean over the batch is asked for", lambda z, y: -own(log_p(z), y).sum()),
            Mistake("you add up over the rows: the probabilities of one row, over its classes, sum to 1",
                    lambda z, y: -own(log_p(z, axis=0), y).mean()),
            Mistake("that is the logarithm with base 2; the natural one is meant",
                    lambda z, y: -own(log_p(z), y).mean() / math.log(2)),
            Mistake("you average over all classes; only the true class of each row counts",
                    lambda z, y: -log_p(z).mean()),
            Mistake("that is minus the true class's probability: the logarithm is missing",
                    lambda z, y: -np.exp(own(log_p(z), y)).mean()),
        ],
    )  # fmt: skip


def check_tanh_gradients(function: Any) -> Verdict:
    """Check 0.7: (x, y, w1, b1, w2, b2) → the gradients of ‖tanh(x w1 + b1) w2 + b2 − y‖²/(2n) by the last four."""

    def reference(x: Array, y: Array, *parameters: Array) -> Any:
        leaves = [torch.tensor(parameter, requires_grad=True) for parameter in parameters]
        w1, b1, w2, b2 = leaves
        output = torch.tanh(torch.from_numpy(x) @ w1 + b1) @ w2 + b2
        loss = (output - torch.from_numpy(y)).square().sum() / (2 * len(x))
        return tuple(gradient.numpy() for gradient in torch.autograd.grad(loss, leaves))

    def with_slope(slope: Callable[[Array], Array], *, over_n: bool = True, step: float = 0.0) -> Callable[..., Any]:
        """Backward by hand, with a slope that is computed from the hidden layer's sums z."""

        def backward(x: Array, y: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> Any:
            z = x @ w1 + b1
            h = np.tanh(z)
            delta2 = (h @ w2 + b2 - y) / (len(x) if over_n else 1)
            dw2 = h.T @ delta2
            delta1 = delta2 @ (w2 - step * dw2).T * slope(z)
            return x.T @ delta1, delta1.sum(axis=0), dw2, delta2.sum(axis=0)

        return backward

    def changed(change: Callable[..., Any]) -> Callable[..., Any]:
        right = with_slope(lambda z: 1 - np.tanh(z) ** 2)
        return lambda x, *rest: change(len(x), *right(x, *rest))

    rng = np.random.default_rng(0)
    shapes = ((6, 3, 4, 2), (5, 2, 3, 1), (1, 4, 2, 3))
    return judge(
        function,
        exercise=EXERCISES[6],
        reference=reference,
        cases=[
            tuple(rng.normal(size=s) for s in ((n, i), (n, o), (i, h), (h,), (h, o), (o,))) for n, i, h, o in shapes
        ],
        names=("dw1", "db1", "dw2", "db2"),
        right="your four gradients equal autograd's",
        mistakes=[
            Mistake("dw1, db1: the slope of tanh is missing on the way back", with_slope(np.ones_like)),
            Mistake("dw1, db1: that is the slope of a ReLU", with_slope(lambda z: (z > 0).astype(float))),
            Mistake("dw1, db1: the slope is 1 − h² with the layer's output h, not with its sum z",
                    with_slope(lambda z: 1 - z**2)),
            Mistake("dw1, db1: you apply tanh to the output of tanh; the slope is 1 − h²",
                    with_slope(lambda z: 1 - np.tanh(np.tanh(z)) ** 2)),
            Mistake("dw1, db1: h·(1 − h) is the slope of the sigmoid",
                    with_slope(lambda z: np.tanh(z) * (1 - np.tanh(z)))),
            Mistake("all four are n times too large: the loss is a mean over the rows",
                    with_slope(lambda z: 1 - np.tanh(z) ** 2, over_n=False)),
            Mistake("all four are twice too large: the ½ of the loss cancels the 2 of the square",
                    changed(lambda n, *gradients: tuple(2 * gradient for gradient in gradients))),
            Mistake("the sign of all four is flipped: the error is prediction minus target",
                    changed(lambda n, *gradients: tuple(-gradient for gradient in gradients))),
            Mistake("db1, db2: every row adds to the bias's gradient; the 1/n is already in the error",
                    changed(lambda n, dw1, db1, dw2, db2: (dw1, db1 / n, dw2, db2 / n))),
            Mistake("dw1, db1: you go back through output weights that are already updated",
                    with_slope(lambda z: 1 - np.tanh(z) ** 2, step=0.1)),
        ],
    )  # fmt: skip


def _without_float_warnings(function: Callable[..., Any], *arguments: Any) -> Any:
    with np.errstate(all="ignore"):
        return function(*arguments)
