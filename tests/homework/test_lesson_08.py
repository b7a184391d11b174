"""The checks of lesson 08 accept right solutions and name the fault of wrong ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.interpolate import BSpline
from torch.nn import functional

from course_utils.homework import lesson_08 as module
from course_utils.homework._splines import blend, boxes, n_parameters
from course_utils.homework._splines import refine as twin_of_refine
from course_utils.homework.engine.proving import Proof, checks_of, complaints
from course_utils.kan import KAN, b_spline_basis
from course_utils.models import count_parameters

FUNCTIONS = Proof(
    right=[66, 11 + 5 * 11],
    wrong=[
        (11, "outer functions alone"),
        (55, "inner functions alone"),
        (28, "for three variables"),
        (6, "one sum is not enough"),
        (36, "functions of its own"),
        (60, "not 2n"),
        (72, "not 2n + 2"),
        (16, "all the sums"),
        (17, "nodes"),
        (121, "one for each sum"),
        (65, "count the edges"),
        ("many", "one number is expected"),
    ],
)


def count(widths: Any, grid_size: int, degree: int, base: bool) -> int:
    return (grid_size + degree + int(base)) * sum(int(a * b) for a, b in itertools.pairwise(widths))


def count_library(widths: Any, grid_size: int, degree: int, base: bool) -> int:
    return count_parameters(KAN(widths, grid_size=grid_size, degree=degree, base="silu" if base else None))


def edges(widths: Any) -> int:
    return count(widths, 0, 0, True)


PARAMETERS = Proof(
    right=[count, count_library],
    wrong=[
        (lambda w, g, k, base: count(w, g, k, False), "weight on each edge is missing"),
        (lambda w, g, k, base: count(w, g, k, True), "only if there is one"),
        (lambda w, g, k, base: count(w, g, 0, base), "not G"),
        (lambda w, g, k, base: count(w, g, -k, base), "G − k"),
        (lambda w, g, k, base: count(w, g + 1, k, base), "and the base besides"),
        (lambda w, g, k, base: count(w, g, k, base) + sum(w[1:]), "no bias"),
        (lambda w, g, k, base: edges(w) + sum(w[1:]), "an MLP's number"),
        (lambda w, g, k, base: edges(w), "these are the edges"),
        (lambda w, g, k, base: count(w[:2], g, k, base), "first layer"),
        (lambda w, g, k, base: count(w[-2:], g, k, base), "last layer"),
        (lambda w, g, k, base: sum(w) * (g + k + base), "not in the nodes"),
        (lambda w, g, k, base: [count(w, g, k, base)], "one number is expected"),
    ],
)


def safe(above: Any, below: Any) -> Any:
    return torch.where(below > 0, above / torch.where(below > 0, below, 1), 0)


def blend_by_slices(basis: Any, x: Any, knots: Any, degree: int) -> Any:
    rising = safe(x[:, None] - knots[: -degree - 1], knots[degree:-1] - knots[: -degree - 1])
    falling = safe(knots[degree + 1 :] - x[:, None], knots[degree + 1 :] - knots[1:-degree])
    return rising * basis[:, :-1] + falling * basis[:, 1:]


def blend_by_loop(basis: Any, x: Any, knots: Any, degree: int, up: float = 1, down: float = 1, second: int = 1) -> Any:
    columns = []
    for j in range(basis.shape[1] - 1):
        column = torch.zeros_like(x)
        if knots[j + degree] > knots[j]:
            column += up * (x - knots[j]) / (knots[j + degree] - knots[j]) * basis[:, j]
        if knots[j + degree + 1] > knots[j + 1]:
            end = knots[j + degree + 1]
            column += down * (end - x) / (end - knots[j + 1]) * basis[:, j + second]
        columns.append(column)
    return torch.stack(columns, dim=1)


def unguarded(basis: Any, x: Any, knots: Any, degree: int) -> Any:
    rising = (x[:, None] - knots[: -degree - 1]) / (knots[degree:-1] - knots[: -degree - 1])
    falling = (knots[degree + 1 :] - x[:, None]) / (knots[degree + 1 :] - knots[1:-degree])
    return rising * basis[:, :-1] + falling * basis[:, 1:]


def exchanged(basis: Any, x: Any, knots: Any, degree: int) -> Any:
    rising = safe(x[:, None] - knots[: -degree - 1], knots[degree:-1] - knots[: -degree - 1])
    falling = safe(knots[degree + 1 :] - x[:, None], knots[degree + 1 :] - knots[1:-degree])
    return falling * basis[:, :-1] + rising * basis[:, 1:]


def short(basis: Any, x: Any, knots: Any, degree: int) -> Any:
    rising = safe(x[:, None] - knots[: -degree - 1], knots[degree - 1 : -2] - knots[: -degree - 1])
    falling = safe(knots[degree:-1] - x[:, None], knots[degree:-1] - knots[1:-degree])
    return rising * basis[:, :-1] + falling * basis[:, 1:]


BLEND = Proof(
    right=[blend_by_slices, blend_by_loop],
    wrong=[
        (unguarded, "0 by 0"),
        (lambda basis, x, knots, k: blend_by_loop(basis, x, knots, k, 1, 0), "falling half is missing"),
        (lambda basis, x, knots, k: blend_by_loop(basis, x, knots, k, 0, 1), "rising half is missing"),
        (exchanged, "yours are exchanged"),
        (lambda basis, x, knots, k: blend_by_loop(basis, x, knots, k, 1, 1, 0), "takes j + 1"),
        (short, "one knot too few"),
        (lambda basis, *_: (basis[:, :-1] + basis[:, 1:]) / 2, "averaged the neighbours"),
        (lambda *case: blend_by_slices(*case).T, "transpose"),
        (lambda *case: blend_by_slices(*case).float(), "dtype is float32"),
        (lambda basis, *_: basis, "the shape"),
    ],
)

LOCAL = Proof(
    right=[60, np.float64(60)],
    wrong=[
        (40, "for a cubic"),
        (50, "more than k"),
        (70, "not k + 2"),
        (30, "half of the bump"),
        (120, "more than needed"),
        (65, "not of the splines"),
        (100, "a smaller grid"),
        (10, "more than half"),
        (6, "the grid has more"),
        (61, "run the cell"),
        ("0.1", "one number is expected"),
    ],
)


def refine(c: Any, middle: Any = (1, 6, 1), divisor: float = 8) -> Any:
    fine = c.new_zeros(2 * len(c) - 3)
    fine[0::2] = 4 * (c[:-1] + c[1:]) / divisor
    fine[1::2] = (middle[0] * c[:-2] + middle[1] * c[1:-1] + middle[2] * c[2:]) / divisor
    return fine


def convolved(c: Any, weights: Any = (1, 4, 6, 4, 1), divisor: float = 8) -> Any:
    long = np.zeros(2 * len(c) - 1)
    long[::2] = c.numpy()
    return torch.tensor(np.convolve(long, np.array(weights) / divisor))


def copies(c: Any) -> Any:
    long = np.convolve(np.repeat(c.numpy(), 2)[:-1], np.array([1, 4, 6, 4, 1]) / 8)
    return torch.tensor(long[3:-3])


REFINE = Proof(
    right=[refine, lambda c: convolved(c)[3:-3]],
    wrong=[
        (lambda c: refine(c, divisor=16), "half as high"),
        (lambda c: refine(c, divisor=1), "divisor 8"),
        (lambda c: refine(c, middle=(0, 8, 0)), "both neighbours"),
        (convolved, "cut three"),
        (lambda c: convolved(c)[2:-4], "too early"),
        (lambda c: convolved(c)[4:-2], "too late"),
        (lambda c: convolved(c, (1, 3, 3, 1), 4)[2:-3], "degree 2"),
        (lambda c: convolved(c, (1, 2, 1), 2)[2:-2], "both neighbours"),
        (copies, "not copies"),
        (lambda c: refine(c).flip(0), "reversed"),
        (lambda c: refine(c)[:-1], "the shape"),
    ],
)


def slope(grids: Any, errors: Any) -> Any:
    return np.polyfit(np.log(grids), np.log(errors), 1)[0]


def slope_by_hand(grids: Any, errors: Any) -> Any:
    a, b = np.log10(grids), np.log10(errors)
    return float(((a - a.mean()) * (b - b.mean())).sum() / ((a - a.mean()) ** 2).sum())


def fit(a: Any, b: Any) -> Any:
    return stats.linregress(a, b).slope


SLOPE = Proof(
    right=[slope, slope_by_hand],
    wrong=[
        (fit, "yours are plain"),
        (lambda g, e: fit(g, np.log(e)), "grid sizes need"),
        (lambda g, e: fit(np.log(g), e), "errors need"),
        (lambda g, e: fit(np.log(e), np.log(g)), "exchanged"),
        (lambda g, e: stats.linregress(np.log(g), np.log(e)).intercept, "height at G = 1"),
        (lambda g, e: fit(np.log(g), np.log10(e)), "different logarithms"),
        (lambda g, e: fit(np.log10(g), np.log(e)), "different logarithms"),
        (lambda g, e: np.log(e[-1] / e[0]) / np.log(g[-1] / g[0]), "first and the last"),
        (lambda g, e: np.mean(np.diff(np.log(e)) / np.diff(np.log(g))), "point to point"),
        (lambda g, e: -slope(g, e), "sign is flipped"),
        (lambda g, e: np.polyfit(np.log(g), np.log(e), 1), "one number is expected"),
        (lambda g, e: None, "return"),
    ],
)


def line(f: Any, y: Any, *, ddof: int = 0, guard: bool = True) -> Any:
    a, b = f - f.mean(), y - y.mean()
    c = (a * b).sum() / (len(f) - ddof) / a.square().mean()
    c = torch.where(a.square().sum() > 0, c, 0) if guard else c
    d = y.mean() - c * f.mean()
    return c, d, 1 - (y - c * f - d).square().sum() / b.square().sum()


def line_by_lstsq(f: Any, y: Any) -> Any:
    if f.std() == 0:
        return 0.0, y.mean().item(), 0.0
    result = stats.linregress(f.numpy(), y.numpy())
    return result.slope, result.intercept, result.rvalue**2


def through_origin(f: Any, y: Any) -> Any:
    c = (0.0 if f.var() == 0 else 1.0) * (f @ y) / (f @ f)
    d = y.mean() - c * f.mean()
    return c, d, 1 - (y - c * f - d).square().mean() / y.var(correction=0)


def other(rule: Callable[..., Any]) -> Callable[..., Any]:
    return lambda f, y: rule(f, y, *line(f, y))


def by_y(f: Any, y: Any) -> Any:
    c = ((f - f.mean()) * (y - y.mean())).mean() / y.var(correction=0)
    d = y.mean() - c * f.mean()
    return c, d, 1 - (y - c * f - d).square().mean() / y.var(correction=0)


def uneven(f: Any, y: Any) -> Any:
    return line(f, y, ddof=1)


BEST = Proof(
    right=[line, line_by_lstsq],
    wrong=[
        (through_origin, "through the origin"),
        (by_y, "c belongs to f"),
        (uneven, "one of them for both"),
        (other(lambda f, y, c, d, r2: (c, y.mean(), r2)), "d is not the mean"),
        (other(lambda f, y, c, d, r2: (c, -d, r2)), "wrong sign"),
        (other(lambda f, y, c, d, r2: (c, y.mean() - f.mean(), r2)), "multiplied by c"),
        (other(lambda f, y, c, d, r2: (c, d, r2.clamp(min=0).sqrt())), "is its square"),
        (other(lambda f, y, c, d, r2: (c, d, 1 - r2)), "left over"),
        (other(lambda f, y, c, d, r2: (d, c, r2)), "exchanged"),
        (lambda f, y: line(f, y, guard=False), "divide by 0"),
        (other(lambda f, y, c, d, r2: (c, d)), "3 are expected"),
        (other(lambda f, y, c, d, r2: r2), "3 values are expected"),
    ],
)


def spreads(layer: Any, x: Any, spread: Any = None, base: bool = True, spline: bool = True, scaled: bool = True) -> Any:
    s = (x - layer.grid_low) / layer.grid_step if scaled else x
    basis = b_spline_basis(s, layer.grid_size, layer.degree)
    found = torch.zeros(layer.out_features, layer.in_features, dtype=x.dtype)
    for i in range(layer.out_features):
        for j in range(layer.in_features):
            curve = basis[:, :, j] @ layer.coefficients[i, :, j].detach() * spline
            if base and layer.base_weight is not None:
                curve = curve + layer.base_weight[i, j].detach() * functional.silu(x[:, j])
            found[i, j] = spread(curve) if spread else curve.std()
    return found


def shares(*case: Any, **how: Any) -> Any:
    found = spreads(*case, **how)
    return found / found.sum()


def shares_by_library(layer: Any, x: Any) -> Any:
    found = layer.edge_functions(x).detach().std(0, correction=0)
    return found / found.sum()


def normalized(rule: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda layer, x: rule(spreads(layer, x))


EDGES = Proof(
    right=[shares, shares_by_library],
    wrong=[
        (lambda layer, x: shares(layer, x, spread=lambda curve: curve.abs().mean()), "not the size"),
        (lambda layer, x: shares(layer, x, base=False), "base is missing"),
        (lambda layer, x: shares(layer, x, spline=False), "splines are missing"),
        (lambda layer, x: shares(layer, x, scaled=False), "count intervals"),
        (lambda layer, x: shares(layer, x, spread=torch.var), "variances"),
        (spreads, "divide by their sum"),
        (normalized(lambda found: found / found.sum(1, keepdim=True)), "each output's"),
        (normalized(lambda found: found / found.sum(0, keepdim=True)), "each input's"),
        (normalized(lambda found: found / found.max()), "by the largest"),
        (lambda layer, x: shares(layer, x).T, "transpose"),
        (lambda layer, x: shares(layer, x).sum(0), "An axis was lost"),
    ],
)

PROOFS: dict[Callable[..., Any], Proof] = {
    module.check_number_of_functions: FUNCTIONS,
    module.check_kan_parameters: PARAMETERS,
    module.check_blend: BLEND,
    module.check_local_enough: LOCAL,
    module.check_refine: REFINE,
    module.check_error_slope: SLOPE,
    module.check_best_scale: BEST,
    module.check_edge_shares: EDGES,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Any]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(module))


def test_exercises_are_numbered_in_order() -> None:
    assert [name.split()[0] for name in module.EXERCISES] == [f"8.{n + 1}" for n in range(len(module.EXERCISES))]


def test_figure_shows_the_refinement() -> None:
    verdict = module.check_refine(refine)
    assert verdict.figure is not None
    figure, alt = verdict.figure()

    assert len(figure.axes) == 2
    assert "eleven" in alt


def test_reference_counts_as_the_library() -> None:
    for case in (([2, 5, 1], 5, 3, True), ([3, 2, 4], 7, 2, False)):
        assert n_parameters(*case) == count_library(*case)


def test_reference_blends_as_scipy() -> None:
    knots = torch.tensor([0.0, 0, 0, 0, 1, 2.5, 3, 4, 4, 4, 4], dtype=torch.float64)
    x = torch.linspace(0, 3.99, 50, dtype=torch.float64)
    basis = boxes(x, knots)
    for degree in (1, 2, 3):
        basis = blend(basis, x, knots, degree)

    np.testing.assert_allclose(basis, BSpline.design_matrix(x, knots, 3).toarray(), atol=1e-13)


def test_reference_refines_without_a_change() -> None:
    coefficients = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = torch.linspace(0, 6, 100, dtype=torch.float64)[:, None]
    before = b_spline_basis(s, 6, 3)[..., 0] @ coefficients
    after = b_spline_basis(2 * s, 12, 3)[..., 0] @ twin_of_refine(coefficients)

    torch.testing.assert_close(after, before, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("grid_size", "enough"), [(59, False), (60, True)])
def test_grid_is_local_enough_from_sixty(grid_size: int, enough: bool) -> None:
    """Count the intervals on which one bump of degree 5 is not zero."""
    middles = torch.arange(grid_size, dtype=torch.float64)[:, None] + 0.3
    felt = (b_spline_basis(middles, grid_size, 5)[:, grid_size // 2, 0] != 0).double().mean().item()

    assert (felt <= 0.1) is enough
