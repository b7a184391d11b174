"""Checks of homework 6: from the recursion of B-splines to a hidden formula."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.homework import _kan_mistakes as mistaken
from course_utils.homework._mystery import Formula, hidden_formula
from course_utils.homework.engine.compare import difference
from course_utils.homework.engine.judge import Mistake, judge, judge_conditions
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict
from course_utils.kan import KAN, KANLayer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "check_bspline_basis",
    "check_edge_scores",
    "check_hidden_formula",
    "check_kan_layer",
    "check_masks",
    "check_refine",
    "mystery_data",
]

EXERCISES = (
    "H6.1 B-splines by recursion",
    "H6.2 A KAN layer",
    "H6.3 A finer grid",
    "H6.4 Scores of edges",
    "H6.5 Pruning",
    "H6.6 The hidden formula",
)


_CLOSE = 1e-3  # constants rounded to four digits will do


def _generator(seed: int, task: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 * seed + task)


# ------------------------------------------------------------------------------------------------------- B-splines


def check_bspline_basis(basis: Any, *, seed: int = 0) -> Verdict:
    """Check ``basis(x, knots, degree)``, (n, len(knots) − degree − 1), against ``scipy.interpolate.BSpline``."""
    from scipy.interpolate import BSpline

    rng = np.random.default_rng(seed)

    def case(inner: Any, degree: int, clamped: bool) -> tuple[Any, Any, int]:
        step = inner[1] - inner[0]
        ends = np.zeros(degree) if clamped else step * np.arange(1, degree + 1)
        knots = np.concatenate([inner[0] - ends[::-1], inner, inner[-1] + ends])
        # With points on knots; the last one belongs to no interval.
        return np.sort(np.concatenate([rng.uniform(inner[0], inner[-1], 9), inner[:-1]])), knots, degree

    return judge(
        basis,
        exercise=EXERCISES[0],
        reference=lambda x, knots, degree: BSpline.design_matrix(x, knots, degree).toarray(),
        cases=[
            case(np.linspace(-1, 1, 6), 3, False),
            case(np.cumsum(rng.uniform(0.3, 1, 5)), 2, False),
            case(np.cumsum(rng.uniform(0.3, 1, 5)), 3, True),
            case(np.linspace(0, 4, 5), 1, False),
            case(np.linspace(0, 1, 4), 0, False),
        ],
        mistakes=mistaken.basis_mistakes(),
        right="As scipy's, on even, uneven and repeated knots.",
        rtol=1e-9,
        atol=1e-12,
        figure=_basis_figure,
    )


def _basis_figure() -> tuple[Figure, str]:
    import matplotlib.pyplot as plt
    from scipy.interpolate import BSpline

    from course_utils.plotting import sequence_colors

    knots, x = np.arange(-3.0, 9.0), np.linspace(0, 5, 301)[:-1]
    fig, ax = plt.subplots(figsize=(7, 2.4))
    for values, color in zip(BSpline.design_matrix(x, knots, 3).toarray().T, sequence_colors(8), strict=True):
        ax.plot(x, values, color=color)
    ax.set(xlabel="x in grid intervals", ylabel="value", title="Five intervals carry eight cubic splines")
    return fig, "Eight bell curves, each four grid intervals wide, overlap; those at the ends are cut off by the grid."


# ----------------------------------------------------------------------------------------------------------- layer


def _use_layer(make: Any, sizes: tuple[int, int, int, int], coefficients: Any, base_weight: Any, x: Any) -> Any:
    """Return a layer's output with these weights, and the gradients of the sum of its squares."""
    layer = make(*sizes).double()
    with torch.no_grad():
        layer.coefficients.copy_(coefficients)
        layer.base_weight.copy_(base_weight)
    output = layer(x)
    if not isinstance(output, Tensor) or output.shape != (len(x), sizes[1]):
        return output, None, None
    output.square().sum().backward()
    parameters = layer.coefficients, layer.base_weight
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    return output.detach(), *gradients


def check_kan_layer(layer: Any, *, seed: int = 0) -> Verdict:
    """Check a class ``layer(in_features, out_features, grid_size, degree)`` against ``course_utils.kan.KANLayer``."""
    generator = _generator(seed, 2)
    cases = []
    for sizes, n in (((2, 3, 5, 3), 8), ((4, 2, 3, 2), 6), ((3, 1, 4, 1), 1)):
        width, out, grid_size, degree = sizes
        coefficients = torch.randn(out, grid_size + degree, width, generator=generator, dtype=torch.float64)
        weight = torch.randn(out, width, generator=generator, dtype=torch.float64)
        cases.append((sizes, coefficients, weight, torch.randn(n, width, generator=generator, dtype=torch.float64)))
    made = run(lambda: layer(2, 3, 5, 3), quiet=True)
    if callable(layer) and not made.todo and not made.failure:
        flaws = _flaws_of_layer(made.value)
        if not flaws:
            return flaws
    return judge(
        layer,
        exercise=EXERCISES[1],
        reference=lambda a, b, size, degree: KANLayer(a, b, grid_size=size, degree=degree, dtype=torch.float64),
        cases=cases,
        call=_use_layer,
        names=("output", "gradient of coefficients", "gradient of base_weight"),
        mistakes=mistaken.layer_mistakes(),
        right="As the course's layer, inside the grid and outside, with its gradients.",
        rtol=1e-7,
        atol=1e-9,
    )


def _flaws_of_layer(made: Any) -> Verdict:
    """Return a wrong verdict if this is no module with the two parameters, for in_features=2, out_features=3, 5, 3."""
    parameters = dict(made.named_parameters()) if isinstance(made, nn.Module) else {}
    conditions = [(isinstance(made, nn.Module), "the class must be an nn.Module")]
    for name, expected in (("coefficients", (3, 8, 2)), ("base_weight", (3, 2))):
        got = tuple(parameters[name].shape) if name in parameters else ()
        conditions += [
            (name in parameters, f"`{name}` is not among the parameters: wrap the tensor in nn.Parameter"),
            (got == expected, f"with 2 inputs, 3 outputs, 5 intervals and degree 3 `{name}` has the shape {got}"),
        ]
    return judge_conditions(EXERCISES[1], conditions, right="")


# ------------------------------------------------------------------------------------------------------ refinement


def _refine(coefficients: Tensor, grid_size: int, factor: int, degree: int) -> Tensor:
    out, _, width = coefficients.shape
    model = KAN([width, out], grid_size=grid_size, degree=degree, base=None, dtype=torch.float64)
    fine = model.layers[0]
    fine.coefficients.data = coefficients.clone()
    model.extend_grid(grid_size * factor)
    assert isinstance(fine.coefficients, Tensor)
    return fine.coefficients.detach()


def check_refine(refine: Any, *, seed: int = 0) -> Verdict:
    """Check ``refine(coefficients, grid_size, factor, degree)``: coefficients of the same function on a finer grid."""
    generator = _generator(seed, 3)
    sizes = [(3, 2, 4, 2, 3), (1, 1, 5, 3, 3), (2, 3, 3, 4, 2), (1, 2, 3, 2, 1)]
    cases = []
    for out, width, grid_size, factor, degree in sizes:
        shape = (out, grid_size + degree, width)
        cases.append((torch.randn(shape, generator=generator, dtype=torch.float64), grid_size, factor, degree))
    return judge(
        refine,
        exercise=EXERCISES[2],
        reference=_refine,
        cases=cases,
        mistakes=mistaken.refine_mistakes(),
        right="The same function with more coefficients, to rounding.",
        rtol=1e-6,
        atol=1e-8,
        figure=_refine_figure,
    )


def _refine_figure() -> tuple[Figure, str]:
    import matplotlib.pyplot as plt

    from course_utils.kan import b_spline_basis
    from course_utils.plotting import COLORS

    coarse = torch.tensor([0.0, 1.0, -1.0, 1.5, 0.5, -0.5], dtype=torch.float64)[None, :, None]
    s = torch.linspace(0, 3, 301, dtype=torch.float64)[:, None]
    fig, ax = plt.subplots(figsize=(7, 2.6))
    for factor, color, width, line in ((1, COLORS["sky"], 6, "-"), (2, COLORS["orange"], 1.5, "--")):
        fine = _refine(coarse, 3, factor, 3)[0, :, 0]
        label = f"{3 * factor} intervals, {len(fine)} coefficients"
        ax.plot(s, b_spline_basis(s * factor, 3 * factor, 3)[:, :, 0] @ fine, line, color=color, lw=width, label=label)
        ax.plot((torch.arange(len(fine)) - 1) / factor, fine, "os"[factor - 1], color=color)
    ax.set(xlabel="s", ylabel="value", title="One function, two grids (dots: coefficients)")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig, "The curves on 3 and on 6 intervals coincide; the finer coefficients lie closer to the curve."


# ------------------------------------------------------------------------------------------------------ importance


def check_edge_scores(edge_scores: Any, *, seed: int = 0) -> Verdict:
    """Check ``edge_scores(values)``: a list of (batch, out, in) becomes one of (out, in)."""
    generator = _generator(seed, 4)

    def draw(*widths: int) -> list[Tensor]:
        values = []
        for width, out in pairwise(widths):
            size = 3 * torch.rand(out, width, generator=generator, dtype=torch.float64) ** 3
            offset = torch.randn(out, width, generator=generator, dtype=torch.float64)
            noise = torch.randn(12, out, width, generator=generator, dtype=torch.float64)
            values.append(size * noise + offset)
        return values

    with_dead_node = draw(3, 4, 2)
    with_dead_node[0][:, 1] = 0.75
    return judge(
        edge_scores,
        exercise=EXERCISES[3],
        reference=mistaken.importance,
        cases=[(draw(3, 4, 2),), (with_dead_node,), (draw(2, 3, 3, 1),), (draw(4, 2),)],
        mistakes=mistaken.importance_mistakes(),
        right="The strength of the best path from each edge to an output.",
        rtol=1e-7,
        atol=1e-10,
    )


def check_masks(masks: Any, *, seed: int = 0) -> Verdict:
    """Check ``masks(scores, threshold)``: a list of (out, in) becomes one of booleans, True where the edge stays."""
    generator = _generator(seed, 5)

    def draw(*widths: int) -> list[Tensor]:
        pairs = pairwise(widths)
        return [torch.rand(out, width, generator=generator, dtype=torch.float64) for width, out in pairs]

    chain = [torch.full((2, 2), 0.9, dtype=torch.float64) for _ in range(4)]
    for score in chain[1:]:
        score[0, 1] = score[1, 0] = 0.0
    chain[0][0], chain[3][1] = 0.0, 0.0  # one path dies from the front, the other from the end
    return judge(
        masks,
        exercise=EXERCISES[4],
        reference=mistaken.prune,
        cases=[
            (draw(4, 5, 5, 3, 2), 0.7),
            (draw(3, 6, 6, 1), 0.75),
            (chain, 0.5),
            (chain[:2], 0.9),
            (draw(5, 2), 0.4),
        ],
        mistakes=mistaken.prune_mistakes(),
        right="What is weak is gone, and nobody is left without company.",
    )


# --------------------------------------------------------------------------------------------------------- formula


def mystery_data(number: int, n: int = 400) -> tuple[Tensor, Tensor]:
    """Return a table whose last column follows from the others by a formula that belongs to this student number.

    Args:
        number: the student's, at least 0.
        n: rows.

    Returns:
        x, (n, 3), uniform in [−1, 1], and y, (n, 1), without noise, both float64.
    """
    x = _inputs(number, n, 1.0)
    return x, hidden_formula(number)(x)[:, None]


def _inputs(seed: int, n: int, reach: float) -> Tensor:
    return torch.tensor(np.random.default_rng([seed, 7]).uniform(-reach, reach, size=(n, 3)))


def check_hidden_formula(formula: Any, number: int = 0, *, seed: int = 0) -> Verdict:
    """Check ``formula(x)``, (n,) from (n, 3), against that of the student number, also beyond the data."""
    hidden = hidden_formula(number)
    inside, beyond = _inputs(10**6 + seed, 60, 1.0), _inputs(10**6 + seed, 60, 1.15)
    verdict = judge(
        formula,
        exercise=EXERCISES[5],
        reference=hidden,
        cases=[(inside,), (beyond,), (beyond[:1],)],
        mistakes=_formula_mistakes(hidden),
        right="It holds where the data are and where they end.",
        rtol=_CLOSE,
        atol=_CLOSE,
    )
    if verdict.status != "wrong":
        return verdict
    got = run(lambda: formula(inside.clone()), quiet=True).value
    if difference(hidden(inside), got, rtol=_CLOSE, atol=_CLOSE) is None:
        says = "it fits the data, and fails beyond them by up to 0.15: that is a curve through points, not the formula"
        return Verdict(verdict.exercise, "wrong", says)
    return verdict


def _formula_mistakes(hidden: Formula) -> list[Mistake]:
    def with_terms(first: float, second: float) -> Any:
        def answer(x: Tensor) -> Tensor:
            one, other = hidden.terms(x)
            return hidden.outer(first * one + second * other)

        return answer

    def changed(**changes: Any) -> Formula:
        fields = {name: getattr(hidden, name) for name in ("outer", "inner", "factors", "inputs")}
        return Formula(**(fields | changes))

    c1, c2 = hidden.factors
    unused = 3 - sum(hidden.inputs)
    return [
        Mistake("one input is missing: a second one matters too", with_terms(1, 0)),
        Mistake("one input is missing: a second one matters too", with_terms(0, 1)),
        Mistake("one of the two terms has the wrong sign", with_terms(-1, 1)),
        Mistake("one of the two terms has the wrong sign", with_terms(1, -1)),
        Mistake("both terms have the wrong sign", with_terms(-1, -1)),
        Mistake("the terms are right, but something acts on their sum", changed(outer=lambda s: s)),
        Mistake("the functions are right, their factors are missing", changed(factors=(1.0, 1.0))),
        Mistake("the factors belong to each other's term", changed(factors=(c2, c1))),
        Mistake("the inputs are exchanged", changed(inputs=hidden.inputs[::-1])),
        Mistake("one of the inputs is that which does nothing", changed(inputs=(hidden.inputs[0], unused))),
        Mistake("one of the inputs is that which does nothing", changed(inputs=(unused, hidden.inputs[1]))),
    ]
