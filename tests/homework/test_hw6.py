"""The checks of homework 6 accept what is right, and name the mistake in what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils.homework import Verdict, hw6
from course_utils.homework._kan_mistakes import importance
from course_utils.homework._mystery import Formula, hidden_formula
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.kan import KAN, b_spline_basis

SPACE = {"np": np, "torch": torch, "F": F, "b_spline_basis": b_spline_basis}


def twisted(text: str, name: str) -> Callable[..., Any]:
    """Return what makes a student's code with some pieces replaced."""

    def make(*swaps: tuple[str, str]) -> Any:
        program = text
        for old, new in swaps:
            assert old in program, old
            program = program.replace(old, new)
        space = dict(SPACE)
        exec(program, space)
        return space[name]

    return make


# ------------------------------------------------------------------------------------------------------- B-splines

basis = twisted(
    """
def basis(x, knots, degree):
    x = x[:, None]
    B = ((knots[:-1] <= x) & (x < knots[1:])).astype(float)
    for k in range(1, degree + 1):
        n = len(knots) - k - 1
        new = np.zeros((len(x), n))
        for j in range(n):
            a, b = knots[j + k] - knots[j], knots[j + k + 1] - knots[j + 1]
            if a > 0:
                new[:, j] += (x[:, 0] - knots[j]) / a * B[:, j]
            if b > 0:
                new[:, j] += (knots[j + k + 1] - x[:, 0]) / b * B[:, j + 1]
        B = new
    return B
""",
    "basis",
)


def basis_by_points(x: Any, knots: Any, degree: int) -> Any:
    """As the textbook writes it, number by number."""

    def spline(j: int, k: int, at: float) -> float:
        if k == 0:
            return float(knots[j] <= at < knots[j + 1])
        total = 0.0
        if knots[j + k] != knots[j]:
            total += (at - knots[j]) / (knots[j + k] - knots[j]) * spline(j, k - 1, at)
        if knots[j + k + 1] != knots[j + 1]:
            total += (knots[j + k + 1] - at) / (knots[j + k + 1] - knots[j + 1]) * spline(j + 1, k - 1, at)
        return total

    return np.array([[spline(j, degree, at) for j in range(len(knots) - degree - 1)] for at in x])


IN_INTERVAL = "((knots[:-1] <= x) & (x < knots[1:]))"
BASIS = Proof(
    [basis(), basis_by_points],
    [
        (basis((IN_INTERVAL, "((knots[:-1] <= x) & (x <= knots[1:]))")), "two intervals"),
        (basis((IN_INTERVAL, "((knots[:-1] < x) & (x < knots[1:]))")), "no interval"),
        (basis((IN_INTERVAL, "((knots[:-1] < x) & (x <= knots[1:]))")), "on its right"),
        (
            basis(
                ("            if a > 0:", "            with np.errstate(all='ignore'):"),
                ("            if b > 0:", "            with np.errstate(all='ignore'):"),
            ),
            "0 by 0",
        ),
        (basis(("            if b > 0:", "            if False:")), "second term is missing"),
        (basis(("(knots[j + k + 1] - x[:, 0])", "(x[:, 0] - knots[j + k + 1])")), "fall to 0 at the far end"),
        (basis(("knots[j + k + 1] - knots[j + 1]", "knots[j + k] - knots[j]")), "same span"),
        (basis(("B[:, j + 1]", "B[:, j]")), "that of j + 1"),
        (basis(("a, b = ", "a = b = k * (knots[-1] - knots[0]) / (len(knots) - 1) #")), "equally spaced"),
        (basis(("a, b = ", "a = b = knots[j + k + 1] - knots[j] #")), "too long"),
        (basis(("(x[:, 0] - knots[j]) / a", "(x[:, 0] - knots[j])"), ("- x[:, 0]) / b", "- x[:, 0])")), "not divided"),
        (basis(("return B", "return B.T")), "transpose"),
        (basis(("range(1, degree + 1)", "range(1, degree)")), "the shape is"),
        (basis(("return B", "pass")), "None"),
        (
            basis(
                ("astype(float)", "astype(np.float32)"), ("np.zeros((len(x), n))", "np.zeros((len(x), n), np.float32)")
            ),
            "float32",
        ),
    ],
)

# ----------------------------------------------------------------------------------------------------------- layer

layer = twisted(
    """
class Layer(torch.nn.Module):
    def __init__(self, in_features, out_features, grid_size, degree):
        super().__init__()
        self.grid_size, self.degree = grid_size, degree
        self.coefficients = torch.nn.Parameter(0.1 * torch.randn(out_features, grid_size + degree, in_features))
        self.base_weight = torch.nn.Parameter(torch.randn(out_features, in_features) / in_features**0.5)

    def forward(self, x):
        s = (x + 1) * self.grid_size / 2
        basis = b_spline_basis(s, self.grid_size, self.degree)
        splines = basis.flatten(1) @ self.coefficients.flatten(1).T
        base = F.silu(x) @ self.base_weight.T
        return base + splines
""",
    "Layer",
)


class LoopLayer(torch.nn.Module):
    """Node by node and edge by edge."""

    def __init__(self, width: int, out: int, size: int, degree: int) -> None:
        super().__init__()
        self.size, self.degree = size, degree
        self.base_weight = torch.nn.Parameter(torch.ones(out, width))
        self.coefficients = torch.nn.Parameter(torch.zeros((out, size + degree, width)))

    def forward(self, x: Any) -> Any:
        b = b_spline_basis((x - -1.0) / (2 / self.size), self.size, self.degree)
        nodes = []
        for i in range(len(self.base_weight)):
            edges = [
                self.base_weight[i, j] * x[:, j] * torch.sigmoid(x[:, j]) + b[:, :, j] @ self.coefficients[i, :, j]
                for j in range(x.shape[1])
            ]
            nodes.append(sum(edges))
        return torch.stack(nodes, dim=1)


LAYER = Proof(
    [layer(), LoopLayer],
    [
        (layer(("base + splines", "splines")), "base is missing"),
        (layer(("base + splines", "base")), "splines are missing"),
        (layer(("s = (x + 1) * self.grid_size / 2", "s = x")), "x itself"),
        (layer(("(x + 1) * self.grid_size / 2", "x * self.grid_size / 2")), "shift"),
        (layer(("(x + 1) * self.grid_size / 2", "(x + 1) * self.grid_size")), "2 long"),
        (
            layer(("(x + 1) * self.grid_size / 2", "((x + 1) * self.grid_size / 2).clamp(0, self.grid_size)")),
            "cut the input off",
        ),
        (layer(("(x + 1) * self.grid_size / 2", "(x + 1) * (self.grid_size + self.degree) / 2")), "fewer than splines"),
        (layer(("F.silu(x)", "F.relu(x)")), "relu"),
        (layer(("F.silu(x)", "torch.sigmoid(x)")), "sigmoid"),
        (layer(("F.silu(x)", "x")), "linear"),
        (layer(("F.silu(x) @ self.base_weight.T", "F.silu(x @ self.base_weight.T)")), "silu acts on the inputs"),
        (layer(("F.silu(x) @ self.base_weight.T", "F.silu(x).sum(1, keepdim=True)")), "`base_weight` is not used"),
        (layer(("base + splines", "(base + splines) / x.shape[1]")), "average over the inputs"),
        (layer(("base + splines", "F.silu(base + splines)")), "a node only adds"),
        (layer(("torch.nn.Parameter(0.1 * ", "(0.1 * ")), "`coefficients` is not among the parameters"),
        (layer(("grid_size + degree, in_features", "in_features, grid_size + degree")), "`coefficients` has the shape"),
        (
            layer(("torch.randn(out_features, in_features)", "torch.randn(in_features, out_features)")),
            "`base_weight` has the shape",
        ),
        (layer(("(torch.nn.Module)", "")), "must be an nn.Module"),
        (layer(("        return base + splines", "        base + splines")), "None"),
        (layer(("return base + splines", "return (base + splines).detach()")), "does not require grad"),
        (layer(("        return base + splines", "        return (base + splines).sum(0)")), "axis"),
    ],
)

# ------------------------------------------------------------------------------------------------------ refinement

refine = twisted(
    """
def refine(coefficients, grid_size, factor, degree):
    s = torch.linspace(0, grid_size, 20 * grid_size * factor + 1, dtype=coefficients.dtype)[:, None]
    old = b_spline_basis(s, grid_size, degree)[:, :, 0]
    new = b_spline_basis(s * factor, grid_size * factor, degree)[:, :, 0]
    values = torch.einsum("pb,ibj->pij", old, coefficients)
    fine = torch.linalg.lstsq(new, values.flatten(1)).solution
    return fine.reshape(-1, *values.shape[1:]).transpose(0, 1)
""",
    "refine",
)


def refine_with_numpy(coefficients: Any, grid_size: int, factor: int, degree: int) -> Any:
    """One matrix from old to new coefficients, by scipy's splines."""
    old = np.arange(-degree, grid_size + degree + 1.0)
    new = np.arange(-degree, grid_size * factor + degree + 1.0) / factor
    x = np.linspace(0, grid_size, 30 * grid_size * factor)[:-1]
    matrix = np.linalg.lstsq(
        BSpline.design_matrix(x, new, degree).toarray(), BSpline.design_matrix(x, old, degree).toarray(), rcond=None
    )[0]
    return torch.tensor(np.einsum("nb,ibj->inj", matrix, coefficients.numpy()))


REFINE = Proof(
    [refine(), refine_with_numpy],
    [
        (
            lambda c, g, f, k: F.interpolate(
                c.transpose(1, 2), size=g * f + k, mode="linear", align_corners=True
            ).transpose(1, 2),
            "stretch",
        ),
        (lambda c, g, f, k: c.repeat_interleave(f, dim=1)[:, : g * f + k], "repeat"),
        (
            lambda c, g, f, k: torch.cat([c, torch.zeros(len(c), g * (f - 1), c.shape[2], dtype=c.dtype)], 1),
            "coefficient 0",
        ),
        (refine(("s * factor", "1.2 * s * factor")), "values differ"),
        (refine(("transpose(0, 1)", "contiguous()")), "shape"),
        (lambda c, g, f, k: c, "the shape is"),
        (lambda c, g, f, k: refine()(c, g, f, k)[:, : g * f], "the shape is"),
        (lambda c, g, f, k: refine()(c.float(), g, f, k), "float32"),
        (lambda c, g, f, k: -refine()(c, g, f, k), "sign"),
        (lambda c, g, f, k: f * refine()(c, g, f, k), "2 times"),
        (lambda c, g, f, k: refine()(c, g, f, k).flip(1), "values differ"),
        (lambda c, g, f, k: refine()(c.mul_(1.5), g, f, k), "in place"),
        (lambda c, g, f, k: None, "return"),
    ],
)

# ------------------------------------------------------------------------------------------------------ importance

edge_scores = twisted(
    """
def edge_scores(values):
    scores = []
    node = torch.ones(values[-1].shape[1], dtype=values[-1].dtype)
    for phi in values[::-1]:
        spread = phi.std(dim=0)
        largest = spread.max(dim=1, keepdim=True).values
        ratio = torch.where(largest > 0, spread / largest, torch.zeros_like(spread))
        score = node[:, None] * ratio
        scores.insert(0, score)
        node = score.max(dim=0).values
    return scores
""",
    "edge_scores",
)


def edge_scores_by_loops(values: Any) -> Any:
    found: list[Any] = [None] * len(values)
    for n in range(len(values) - 1, -1, -1):
        spread = values[n].var(dim=0, correction=0).sqrt()
        score = torch.zeros_like(spread)
        for i in range(len(spread)):
            node = 1.0 if n == len(values) - 1 else found[n + 1][:, i].max()
            if spread[i].max() > 0:
                score[i] = node * spread[i] / spread[i].max()
        found[n] = score
    return tuple(found)


RATIO = "torch.where(largest > 0, spread / largest, torch.zeros_like(spread))"
SCORES = Proof(
    [edge_scores(), edge_scores_by_loops],
    [
        (edge_scores(("phi.std(dim=0)", "phi.abs().mean(dim=0)")), "a constant is large"),
        (edge_scores(("phi.std(dim=0)", "phi.var(dim=0)")), "variance"),
        (
            edge_scores(("spread.max(dim=1, keepdim=True).values", "spread.max(dim=0, keepdim=True).values")),
            "largest out of one",
        ),
        (edge_scores(("spread.max(dim=1, keepdim=True).values", "spread.sum(dim=1, keepdim=True)")), "sum of them"),
        (edge_scores(("spread.max(dim=1, keepdim=True).values", "spread.max()")), "the layer's"),
        (edge_scores((RATIO, "spread / largest")), "0 by 0"),
        (edge_scores((RATIO, "spread"), ("phi.std(dim=0)", "phi.std(dim=0, correction=0)")), "not divided"),
        (edge_scores(("node[:, None] * ratio", "ratio")), "alone"),
        (edge_scores(("score.max(dim=0).values", "score.sum(dim=0)")), "not their sum"),
        (edge_scores(("score.max(dim=0).values", "score.mean(dim=0)")), "not their mean"),
        (edge_scores(("scores.insert(0, score)", "scores.append(score)")), "reverse order"),
        (edge_scores(("return scores", "return [score.T for score in scores]")), "transpose"),
        (edge_scores(("return scores", "return scores[0]")), "returns a Tensor"),
        (edge_scores(("return scores", "pass")), "None"),
        (edge_scores(("phi.std(dim=0)", "phi.std()")), "it raises"),
    ],
)

# --------------------------------------------------------------------------------------------------------- pruning

masks = twisted(
    """
def masks(scores, threshold):
    keep = [score >= threshold for score in scores]
    changed = True
    while changed:
        before = [mask.clone() for mask in keep]
        for n in range(len(keep) - 1):
            keep[n][~keep[n + 1].any(dim=0)] = False
            keep[n + 1][:, ~keep[n].any(dim=1)] = False
            pass
        changed = any(not torch.equal(a, b) for a, b in zip(before, keep))
    return keep
""",
    "masks",
)


def masks_by_reach(scores: Any, threshold: float) -> Any:
    """Hidden nodes that a path reaches from some edge's beginning and leaves to some output, as fixed points."""
    keep = [(score >= threshold).double() for score in scores]
    for _ in range(len(keep)):
        for n in range(len(keep) - 1):
            alive = (keep[n].sum(dim=1) > 0) & (keep[n + 1].sum(dim=0) > 0)
            keep[n] = keep[n] * alive[:, None]
            keep[n + 1] = keep[n + 1] * alive[None, :]
    return [mask.bool() for mask in keep]


OUT, IN = (
    "            keep[n][~keep[n + 1].any(dim=0)] = False\n",
    "            keep[n + 1][:, ~keep[n].any(dim=1)] = False\n",
)
MASKS = Proof(
    [masks(), masks_by_reach],
    [
        (masks((OUT, ""), (IN, "")), "edges of dead hidden nodes"),
        (masks(("while changed", "if changed"), (OUT + IN, IN + OUT)), "one sweep"),
        (masks((OUT, "")), "nothing goes out"),
        (masks((IN, "")), "nothing enters"),
        (masks((">=", ">")), "exactly the threshold"),
        (masks((">=", "<")), "inverted"),
        (masks(("return keep", "return [mask.double() for mask in keep]")), "dtype is float64"),
        (masks(("return keep", "return [~mask for mask in keep]")), "differ"),
        (masks(("return keep", "return keep[0]")), "returns a Tensor"),
        (masks(("return keep", "return keep[::-1]")), "the shape is"),
        (masks(("return keep", "pass")), "None"),
        (lambda scores, threshold: [score.mul_(score >= threshold) > 0 for score in scores], "in place"),
        (masks(("any(dim=0)] = False", "any(dim=1)] = False")), "it raises"),
    ],
)

# --------------------------------------------------------------------------------------------------------- formula

NUMBER = 4  # (2 − 0.8·x2³ − sin 2·x1)²


def true_formula(x: Any) -> Any:
    return torch.square(2 - 0.8 * x[:, 1] ** 3 - torch.sin(2 * x[:, 0]))


def factored_out(x: Any) -> Any:
    x1, x2, _ = x.unbind(1)
    return 4 * (1 - 0.4 * x2 * x2 * x2 - 0.5 * (2 * x1).sin()) ** 2


def in_tables(x: Any) -> Any:
    """What a curve through the data does: right inside, flat beyond."""
    return true_formula(x.clamp(-1, 1))


FORMULA = Proof(
    [(true_formula, NUMBER), (factored_out, NUMBER)],
    [
        ((lambda x: torch.square(2 - 0.8 * x[:, 1] ** 3), NUMBER), "one input is missing"),
        ((lambda x: torch.square(2 - torch.sin(2 * x[:, 0])), NUMBER), "one input is missing"),
        (
            (lambda x: torch.square(2 + 0.8 * x[:, 1] ** 3 - torch.sin(2 * x[:, 0])), NUMBER),
            "one of the two terms has the wrong sign",
        ),
        ((lambda x: torch.square(2 + 0.8 * x[:, 1] ** 3 + torch.sin(2 * x[:, 0])), NUMBER), "both terms"),
        ((lambda x: -0.8 * x[:, 1] ** 3 - torch.sin(2 * x[:, 0]), NUMBER), "acts on their sum"),
        ((lambda x: torch.square(2 + x[:, 1] ** 3 + torch.sin(2 * x[:, 0])), NUMBER), "factors are missing"),
        ((lambda x: torch.square(2 - x[:, 1] ** 3 - 0.8 * torch.sin(2 * x[:, 0])), NUMBER), "each other's term"),
        ((lambda x: true_formula(x[:, [1, 0, 2]]), NUMBER), "exchanged"),
        ((lambda x: true_formula(x[:, [0, 2, 1]]), NUMBER), "does nothing"),
        ((in_tables, NUMBER), "fails beyond them"),
        ((lambda x: true_formula(x)[:, None], NUMBER), "axes of length 1"),
        ((lambda x: true_formula(x).mean(), NUMBER), "axis was lost"),
        ((lambda x: -true_formula(x), NUMBER), "sign is flipped"),
        ((lambda x: true_formula(x) + 1, NUMBER), "off by +1"),
        ((lambda x: 2 * true_formula(x), NUMBER), "2 times"),
        (
            (lambda x: 3 * torch.square(2 - 0.8 * x[:, 1] ** 3 - torch.sin(2 * x[:, 0])), NUMBER),
            "times what it should be",
        ),
        ((lambda x: torch.sqrt(-0.8 * x[:, 1] ** 3 - torch.sin(2 * x[:, 0])), NUMBER), "NaN"),
        ((true_formula, NUMBER + 1), "differ"),
    ],
)

PROOFS: dict[Callable[..., Verdict], Proof] = {
    hw6.check_bspline_basis: BASIS,
    hw6.check_kan_layer: LAYER,
    hw6.check_refine: REFINE,
    hw6.check_edge_scores: SCORES,
    hw6.check_masks: MASKS,
    hw6.check_hidden_formula: FORMULA,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Verdict]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(hw6))


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_another_seed_tells_the_same(check: Callable[..., Verdict]) -> None:
    """The hidden tests draw other cases, and must neither refuse what is right nor lose a mistake."""
    proof = PROOFS[check]
    for answer in proof.right:
        assert check(*answer, seed=20261121) if isinstance(answer, tuple) else check(answer, seed=20261121)
    for answer, words in proof.wrong[:3]:
        verdict = check(*answer, seed=7) if isinstance(answer, tuple) else check(answer, seed=7)
        assert words.lower() in verdict.message.lower()


def test_every_exercise_is_checked() -> None:
    assert [check(...).exercise for check in PROOFS] == list(hw6.EXERCISES)


def test_figures_are_drawn_and_described() -> None:
    for verdict in (hw6.check_bspline_basis(basis()), hw6.check_refine(refine())):
        assert verdict.figure is not None
        figure, alt = verdict.figure()
        assert len(alt) > 40
        plt.close(figure)


def test_scores_are_those_of_the_course() -> None:
    model = KAN([3, 4, 2], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nodes = model.activations(x)
    values = [layer.edge_functions(node).detach() for layer, node in zip(model.layers, nodes, strict=False)]  # type: ignore[operator]

    for got, expected in zip(importance(values), model.edge_importance(x), strict=True):
        torch.testing.assert_close(got, expected)


def test_each_student_has_a_formula_that_is_finite_and_uses_both_terms() -> None:
    formulas = [hidden_formula(number) for number in range(200)]
    x = torch.tensor(np.random.default_rng(0).uniform(-1.15, 1.15, size=(200, 3)))

    assert all(bool(formula(x).isfinite().all()) for formula in formulas)
    assert all(float(term.std()) > 0.05 for formula in formulas for term in formula.terms(x))
    assert len({tuple(formula(x)[:3].tolist()) for formula in formulas}) >= 190
    assert len({formula.outer for formula in formulas}) == 4


def test_mystery_data_follow_from_the_number_alone() -> None:
    x, y = hw6.mystery_data(4)

    assert x.shape == (400, 3)
    assert y.shape == (400, 1)
    assert float(x.abs().max()) <= 1
    torch.testing.assert_close(y[:, 0], true_formula(x))
    torch.testing.assert_close(hw6.mystery_data(4, n=400)[1], y)
    assert isinstance(hidden_formula(4), Formula)
