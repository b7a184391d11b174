"""Known functions on edges against autograd, sympy and scipy; formulas against the networks they came from."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import scipy.optimize
import sympy
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_utils.kan import KAN
from course_utils.kan import discovery as discovery_module
from course_utils.kan.discovery import find_formula
from course_utils.kan.fitting import KANHistory
from course_utils.kan.formula import symbolic_formula
from course_utils.kan.layer import KANLayer
from course_utils.kan.library import FUNCTIONS, Function, SymbolicEdge, fit_function
from course_utils.kan.symbolic import SymbolicReport, auto_symbolic, fix_symbolic, suggest_symbolic
from course_utils.reproducibility import make_generator

Affine = tuple[float, float, float, float]

ALL = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))
SINC = Function(
    "sinc",
    torch.special.sinc,
    lambda z: (torch.cos(torch.pi * z) - torch.special.sinc(z)) / z,
    lambda z: sympy.sinc(sympy.pi * z),
    complexity=2.5,
)


def uniform(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    return torch.empty(*shape, dtype=torch.float64).uniform_(low, high, generator=make_generator(seed))


def kan(widths: Sequence[int], seed: int = 0, **options: Any) -> KAN:
    return KAN(widths, generator=make_generator(seed), dtype=torch.float64, **options)


def layer_of(model: KAN, number: int) -> KANLayer:
    layer = model.layers[number]
    assert isinstance(layer, KANLayer)
    return layer


def known_kan(widths: Sequence[int], edges: Mapping[tuple[int, int, int], tuple[str | Function, Affine]]) -> KAN:
    """A network of these functions and no others."""
    model = kan(widths)
    for number in range(len(model.layers)):
        layer_of(model, number).edge_mask.zero_()
    for (number, i, j), (function, affine) in edges.items():
        edge = SymbolicEdge(function, affine, dtype=torch.float64)
        layer_of(model, number).symbolic_edges[f"{i},{j}"] = edge
    return model


def values_of(formula: Any, x: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """What sympy's own code computes from a formula, or from several: (batch, outputs)."""
    symbols = [sympy.Symbol(name) for name in names or [f"x{number + 1}" for number in range(x.shape[1])]]
    compute = sympy.lambdify(symbols, formula if isinstance(formula, list) else [formula], "math")
    return torch.tensor([compute(*row) for row in x.tolist()], dtype=x.dtype)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------------------- the library


@ALL
def test_derivative_is_that_of_autograd(function: Function) -> None:
    z = uniform(50, low=-3, high=3).requires_grad_()

    (expected,) = torch.autograd.grad(function.value(z).sum(), z)

    assert_close(function.derivative(z.detach()), expected)


@ALL
@pytest.mark.parametrize(
    "affine", [(1.3, -0.4, 0.7, 0.2), (-2.0, 5.0, -1.5, 0.0), (0.5, -12.3, 3.0, 1.0), (1.0, 3.5, 2.0, 0.0)]
)
def test_expression_equals_value(function: Function, affine: Affine) -> None:
    edge = SymbolicEdge(function, affine, dtype=torch.float64)
    x = uniform(30)

    expression = edge.expression(sympy.Symbol("x1"))

    assert_close(values_of(expression, x[:, None])[:, 0], edge(x).detach())


@pytest.mark.parametrize("size", [90.0, 150.0, -150.0])
def test_exp_of_a_large_number_is_not_lost(size: float) -> None:
    edge = SymbolicEdge("exp", (1.0, size, 1.0, 0.0), dtype=torch.float64)
    x = uniform(5)

    assert_close(values_of(edge.expression(sympy.Symbol("x1")), x[:, None])[:, 0] / edge(x), torch.ones(5).double())


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if not function.pole])
def test_expression_at_zero(name: str) -> None:
    edge = SymbolicEdge(name, (1.5, 0.0, 2.0, 0.5), dtype=torch.float64)

    assert float(edge.expression(sympy.Integer(0))) == pytest.approx(edge(torch.zeros(1).double()).item())


def in_the_span(function: Function, moved: Tensor, z: Tensor) -> bool:
    """Whether f of the moved points is a multiple of f(z) plus a number."""
    features = torch.stack([function.value(z), torch.ones_like(z)], dim=1)
    target = function.value(moved)[:, None]
    solution = torch.linalg.lstsq(features, target, driver="gelsd").solution
    return bool((features @ solution - target).abs().max() < 1e-9)


@ALL
def test_shape_names_the_constants_that_matter(function: Function) -> None:
    z = torch.cat([uniform(40, low=-2, high=-0.5), uniform(40, low=0.5, high=2)])

    assert in_the_span(function, 1.7 * z, z) == ("a" not in function.shape)
    assert in_the_span(function, z + 0.3, z) == ("b" not in function.shape)


@ALL
def test_poles_are_where_values_are_not_finite(function: Function) -> None:
    assert function.pole != bool(function.value(torch.zeros(1)).isfinite())


def test_names_are_keys() -> None:
    assert all(name == function.name for name, function in FUNCTIONS.items())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": 3}, TypeError, "name must be text, got 3"),
        ({"name": ""}, ValueError, "name must not be empty"),
        ({"complexity": -1}, ValueError, "complexity must be in .*got -1"),
        ({"shape": "c"}, ValueError, "shape must be one of 'ab', 'a', 'b', '', got 'c'"),
    ],
)
def test_function_checks_itself(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"name": "f", "complexity": 1, "shape": "ab"} | change

    with pytest.raises(error, match=message):
        Function(value=torch.sin, derivative=torch.cos, expression=sympy.sin, **arguments)


@ALL
def test_edge_and_its_jacobian_are_those_of_autograd(function: Function) -> None:
    edge = SymbolicEdge(function.name, (1.3, 0.4, -0.7, 0.2), dtype=torch.float64)
    x = uniform(7)
    a, b, c, d = edge.affine

    assert_close(edge(x), c * function.value(a * x + b) + d)
    expected = torch.stack([torch.autograd.grad(value, edge.affine, retain_graph=True)[0] for value in edge(x)])
    assert_close(edge.jacobian(x), expected)
    assert not edge.jacobian(x).requires_grad


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda edge: pickle.loads(pickle.dumps(edge))])
def test_edge_can_be_copied(copied: Any) -> None:
    edge = SymbolicEdge(FUNCTIONS["x^3"], (1.3, 0.4, -0.7, 0.2))

    twin = copied(edge)

    assert twin.function is FUNCTIONS["x^3"]
    assert torch.equal(twin.affine, edge.affine)
    assert twin.affine is not edge.affine


def test_edge_takes_a_function_of_ones_own() -> None:
    edge = SymbolicEdge(SINC, (2.0, 0.0, 3.0, 0.0))

    assert edge.name == "sinc"
    assert edge(torch.tensor([0.0, 0.5])).tolist() == pytest.approx([3.0, 0.0], abs=1e-6)
    assert repr(edge) == "SymbolicEdge('sinc', affine=(2, 0, 3, 0))"


def test_edge_keeps_dtype_and_shape() -> None:
    assert SymbolicEdge("x").affine.dtype == torch.float32
    assert SymbolicEdge("sin", dtype=torch.float64)(uniform(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("affine", [(1.0, 2.0, 3.0), (1.0, float("nan"), 1.0, 0.0), torch.ones(2, 2)])
def test_edge_wants_four_finite_numbers(affine: Any) -> None:
    with pytest.raises(ValueError, match="affine must be four finite numbers a, b, c, d, got"):
        SymbolicEdge("x", affine)


def test_edge_wants_a_known_name() -> None:
    with pytest.raises(ValueError, match=r"name must be one of '0', 'x', .*, got 'cosh'"):
        SymbolicEdge("cosh")


# ----------------------------------------------------------------------------------------------------------- one fit


@pytest.mark.parametrize("function", [f for f in FUNCTIONS.values() if f.name != "0"], ids=lambda f: f.name)
@pytest.mark.parametrize("affine", [(1.5, 0.2, 2.0, -3.0), (-0.8, 1.9, -0.01, 50.0), (2.5, -4.0, 100.0, 0.0)])
def test_fit_recovers_a_function(function: Function, affine: Affine) -> None:
    inside = -affine[1] / affine[0]  # where a pole or a kink would be
    x = uniform(300, low=-1.5, high=1.5)
    if function.pole or function.name == "sqrt":
        x = x[(x - inside).abs() > 0.05]
        x = x[x > inside] if inside < 1.4 else x
    y = SymbolicEdge(function, affine, dtype=torch.float64)(x).detach()

    found, r2 = fit_function(function, x, y)

    assert r2 == pytest.approx(1, abs=1e-9)
    assert_close(SymbolicEdge(function, found, dtype=torch.float64)(x).detach() / y.std(), y / y.std(), 1e-4)


@pytest.mark.parametrize(("frequency", "phase"), [(1.0, 0.0), (9.4, 1.0), (14.0, 2.0)])
def test_fit_finds_fast_oscillations(frequency: float, phase: float) -> None:
    x = uniform(300)

    (a, *_), r2 = fit_function(FUNCTIONS["sin"], x, torch.sin(frequency * x + phase))

    assert r2 == pytest.approx(1, abs=1e-9)
    assert abs(a) == pytest.approx(frequency, rel=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "tanh", "exp", "sin"])
def test_noisy_fit_is_that_of_scipy(name: str) -> None:
    x = uniform(200)
    truth = (1.4, 0.3, 2.0, 1.0)
    edge = SymbolicEdge(name, truth, dtype=torch.float64)
    y = edge(x).detach() + 0.1 * uniform(200, seed=1)

    def residual(affine: Any) -> Any:
        return (SymbolicEdge(name, torch.tensor(affine), dtype=torch.float64)(x).detach() - y).numpy()

    best = 2 * scipy.optimize.least_squares(residual, truth, xtol=1e-12).cost
    found, r2 = fit_function(FUNCTIONS[name], x, y)

    assert float((residual(found) ** 2).sum()) == pytest.approx(best, rel=1e-5)
    assert r2 == pytest.approx(1 - best / float((y - y.mean()).square().sum()), abs=1e-6)


def test_fit_finds_a_kink_at_the_end_of_the_data() -> None:
    x = uniform(500)

    assert fit_function(FUNCTIONS["sqrt"], x, torch.sqrt(1 + x))[1] > 1 - 1e-5


@given(
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-100, 100),
    y_scale=st.sampled_from([1e-8, 1.0, -1e8]),
    y_shift=st.floats(-10, 10),
)
@settings(max_examples=15, deadline=None)
def test_fit_does_not_depend_on_units(scale: float, shift: float, y_scale: float, y_shift: float) -> None:
    t = uniform(100)
    x, y = scale * (t + shift), y_scale * (torch.tanh(2 * t + 0.5) + y_shift)

    affine, r2 = fit_function(FUNCTIONS["tanh"], x, y)

    assert r2 == pytest.approx(1, abs=1e-8)
    fitted = SymbolicEdge("tanh", affine, dtype=torch.float64)(x).detach()
    assert_close(fitted / y_scale, y / y_scale, 1e-4)


@pytest.mark.parametrize("name", ["1/x", "log"])
def test_fit_keeps_poles_out_of_the_data(name: str) -> None:
    x = uniform(100)
    x = x[x.abs() > 0.1]

    (a, b, _, _), r2 = fit_function(FUNCTIONS[name], x, FUNCTIONS[name].value(2 * x))

    assert r2 < 0.9
    inner = a * x + b
    assert inner.min() * inner.max() > 0


def test_fit_of_a_constant_edge() -> None:
    x = uniform(50)

    for function in FUNCTIONS.values():
        affine, r2 = fit_function(function, x, torch.full_like(x, 7.0))
        assert r2 == 1
        assert_close(SymbolicEdge(function, affine, dtype=torch.float64)(x).detach(), torch.full_like(x, 7.0))


def test_fit_to_an_input_that_never_varies() -> None:
    affine, r2 = fit_function(FUNCTIONS["x"], torch.ones(20), uniform(20))

    assert r2 == pytest.approx(0, abs=1e-9)
    assert all(abs(number) < 100 for number in affine)


def test_fit_with_a_far_outlier() -> None:
    x = torch.cat([uniform(5000), torch.tensor([1000.0])])  # 70 standard deviations away, where exp(10·t) is 1e304

    for function in FUNCTIONS.values():
        affine, r2 = fit_function(function, x, torch.sin(3 * x))
        assert 0 <= r2 <= 1
        assert torch.tensor(affine).isfinite().all()
    assert r2 > 0.1


def test_fit_says_when_a_function_is_nowhere_finite() -> None:
    broken = Function("broken", lambda z: z / 0, lambda z: z / 0, sympy.sin, 1)

    assert fit_function(broken, uniform(20), uniform(20, seed=1))[1] == -float("inf")


# ----------------------------------------------------------------------------------------------------- suggest and fix


def test_suggestions_are_simplest_first_within_the_tolerance() -> None:
    # Around its top a sine is nearly a parabola.
    model = known_kan([1, 1], {(0, 0, 0): ("sin", (0.5, 1.57, 1.0, 0.0))})
    x = uniform(200, 1)

    strict = suggest_symbolic(model, x, 0, 0, 0, tolerance=0.0)
    loose = suggest_symbolic(model, x, 0, 0, 0, tolerance=1e-2)

    assert strict[0].name == "sin"
    assert [s.r2 for s in strict] == sorted((s.r2 for s in strict), reverse=True)
    assert loose[0].name == "x^2"
    n_near = sum(s.r2 >= strict[0].r2 - 1e-2 for s in loose)
    assert 2 <= n_near < len(loose)
    assert [s.complexity for s in loose[:n_near]] == sorted(s.complexity for s in loose[:n_near])
    assert [s.r2 for s in loose[n_near:]] == sorted((s.r2 for s in loose[n_near:]), reverse=True)
    assert {s.name for s in loose} == set(FUNCTIONS)
    assert str(loose[0]).startswith("x^2      complexity 2   1 − R² = ")


def test_default_tolerance_prefers_the_simpler_of_equals() -> None:
    model = known_kan([1, 1], {(0, 0, 0): ("x", (2.0, 0.0, 1.0, 0.5))})

    assert suggest_symbolic(model, uniform(100, 1), 0, 0, 0)[0].name == "x"


def test_default_tolerances() -> None:
    # 1 − R² of a parabola is 2e-6 here, that of a straight line 0.1.
    model = known_kan([1, 1], {(0, 0, 0): ("sin", (0.2, 1.2, 1.0, 0.0))})
    x = uniform(200, 1)

    (first, *others) = suggest_symbolic(model, x, 0, 0, 0)
    layer_of(model, 0).edge_mask.zero_()
    twin = kan([1, 1], grid_size=20)
    spline_of(twin, 0, 0, 0, lambda t: torch.sin(0.2 * t + 1.2))
    report = auto_symbolic(twin, x)

    assert first.name == "x^2"
    assert max(others, key=lambda s: s.r2).r2 > first.r2 + 1e-7
    assert report.edges[0].suggestions[0].name == "x^2"


def test_suggestions_look_at_the_edge_where_data_reach_it() -> None:
    edges: dict[tuple[int, int, int], tuple[str | Function, Affine]] = {
        (0, 1, 0): ("exp", (1.0, 0.0, 1.0, 3.0)),  # between 3.4 and 5.7
        (1, 0, 0): ("sin", (1.0, 0.0, 1.0, 0.0)),
        (1, 0, 1): ("log", (1.0, -3.0, 1.0, 0.0)),  # −∞ at 3
    }
    model = known_kan([2, 2, 1], edges)

    assert suggest_symbolic(model, uniform(100, 2), 1, 0, 1)[0].name == "log"
    assert suggest_symbolic(model, uniform(100, 2), 0, 1, 0)[0].name == "exp"


def test_suggestions_from_ones_own_library() -> None:
    model = known_kan([1, 1], {(0, 0, 0): (SINC, (2.0, 0.0, 1.0, 0.0))})
    x = uniform(200, 1)

    found = suggest_symbolic(model, x, 0, 0, 0, library=[FUNCTIONS["gaussian"], SINC])

    assert [s.name for s in found] == ["sinc", "gaussian"]
    with pytest.raises(ValueError, match=r"no function of \['broken'\] is finite on the edge's inputs"):
        suggest_symbolic(
            model, x, 0, 0, 0, library=[Function("broken", lambda z: z / 0, lambda z: z / 0, sympy.sin, 1)]
        )


def test_fix_replaces_one_edge() -> None:
    model = kan([2, 3, 1])
    x = uniform(100, 2)
    before = layer_of(model, 0).edge_functions(x).detach()

    suggestion = fix_symbolic(model, x, 0, 2, 1, "tanh")

    layer = layer_of(model, 0)
    a, b, c, d = suggestion.affine
    expected = c * torch.tanh(a * x[:, 1] + b) + d
    after = layer.edge_functions(x).detach()
    assert_close(after[:, 2, 1], expected)
    error = (expected - before[:, 2, 1]).square().sum()
    total = (before[:, 2, 1] - before[:, 2, 1].mean()).square().sum()
    assert suggestion.r2 == pytest.approx(float(1 - error / total), abs=1e-9)
    after[:, 2, 1] = before[:, 2, 1]
    assert_close(after, before)
    assert layer.edge_mask.tolist() == [[1, 1], [1, 1], [1, 0]]
    assert bool(layer.active_edges.all())
    assert layer.symbolic_edges["2,1"].affine.requires_grad


def test_fix_with_given_constants() -> None:
    model = kan([1, 1])
    x = uniform(50, 1)
    target = model(x).detach()[:, 0]

    suggestion = fix_symbolic(model, x, 0, 0, 0, SINC, affine=(1.0, 2.0, 3.0, 4.0))

    expected = 3 * torch.special.sinc(x + 2) + 4
    assert suggestion.affine == (1, 2, 3, 4)
    assert_close(model(x).detach(), expected)
    error, total = (expected[:, 0] - target).square().sum(), (target - target.mean()).square().sum()
    assert suggestion.r2 == pytest.approx(float(1 - error / total))


def test_fixed_edge_can_be_fixed_anew() -> None:
    model = known_kan([1, 1], {(0, 0, 0): ("x^2", (1.0, 0.0, 1.0, 0.0))})
    x = uniform(50, 1)

    suggestion = fix_symbolic(model, x, 0, 0, 0, "gaussian")

    assert suggestion.r2 > 0.99
    assert layer_of(model, 0).symbolic_edges["0,0"].name == "gaussian"
    assert (model(x) - x**2).abs().max() < 0.1


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ((2, 0, 0), IndexError, r"layer must be in \[0, 2\), got 2"),
        ((-1, 0, 0), IndexError, r"layer must be in \[0, 2\), got -1"),
        ((0, 3, 0), IndexError, r"layer 0 has 3 outputs and 2 inputs, there is no edge \(3, 0\)"),
        ((0, 0, 2), IndexError, r"there is no edge \(0, 2\)"),
        ((0, -1, 0), IndexError, r"there is no edge \(-1, 0\)"),
        ((0, 1, 1), ValueError, r"edge \(1, 1\) of layer 0 was removed, so it has no values to fit"),
    ],
)
def test_no_such_edge(place: tuple[int, int, int], error: type[Exception], message: str) -> None:
    model = kan([2, 3, 1])
    layer_of(model, 0).edge_mask[1, 1] = 0
    x = uniform(20, 2)

    with pytest.raises(error, match=message):
        suggest_symbolic(model, x, *place)
    with pytest.raises(error, match=message):
        fix_symbolic(model, x, *place, "x")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 3), r"x must have shape \(batch, 2\) with batch >= 2, got \(5, 3\)"),
        (torch.zeros(1, 2), r"got \(1, 2\)"),
        (torch.tensor([[0.0, 1.0], [2.0, float("nan")]]), "x must be finite, got nan in row 1, column 1"),
    ],
)
def test_bad_samples(x: Tensor, message: str) -> None:
    model = kan([2, 1])

    for call in (
        lambda: suggest_symbolic(model, x, 0, 0, 0),
        lambda: fix_symbolic(model, x, 0, 0, 0, "x"),
        lambda: auto_symbolic(model, x),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_values_that_are_not_finite() -> None:
    model = known_kan([1, 1], {(0, 0, 0): ("1/x", (1.0, 0.0, 1.0, 0.0))})

    with pytest.raises(ValueError, match=r"the values of edge \(0, 0\) in layer 0 are not finite on these samples"):
        suggest_symbolic(model, torch.arange(-3.0, 4.0).double()[:, None], 0, 0, 0)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"tolerance": -1.0}, "tolerance"), ({"min_r2": 1.5}, "min_r2"), ({"min_r2": -0.5}, "min_r2")],
)
def test_auto_checks_its_arguments(options: dict[str, float], error: str) -> None:
    with pytest.raises(ValueError, match=f"{error} must be in"):
        auto_symbolic(kan([1, 1]), uniform(9, 1), **options)  # type: ignore[arg-type]
    if error == "tolerance":
        with pytest.raises(ValueError, match="tolerance must be in"):
            suggest_symbolic(kan([1, 1]), uniform(9, 1), 0, 0, 0, tolerance=-1.0)


# ---------------------------------------------------------------------------------------------------------------- auto


def spline_of(model: KAN, layer: int, i: int, j: int, target: Callable[[Tensor], Tensor]) -> None:
    """Make one edge a spline close to a function."""
    chosen = layer_of(model, layer)
    t = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None].expand(-1, chosen.in_features)
    basis = chosen.basis(t)[:, :, j]
    chosen.coefficients.data[i, :, j] = torch.linalg.lstsq(basis, target(t[:, j])[:, None]).solution[:, 0]
    assert chosen.base_weight is not None
    chosen.base_weight.data[i, j] = 0


def splines() -> KAN:
    model = kan([2, 2], grid_size=20)
    spline_of(model, 0, 0, 0, lambda t: torch.sin(3 * t))
    spline_of(model, 0, 0, 1, lambda t: t**2)
    spline_of(model, 0, 1, 0, lambda t: torch.sign(t - 0.3) * torch.sin(9 * t))  # nothing of the kind in the library
    layer_of(model, 0).edge_mask[1, 1] = 0
    return model


def test_auto_names_what_it_can() -> None:
    model = splines()
    x = uniform(500, 2)

    report = auto_symbolic(model, x)

    layer = layer_of(model, 0)
    assert [(e.layer, e.i, e.j, e.suggestions[0].name, e.fixed) for e in report.edges[:2]] == [
        (0, 0, 0, "sin", True),
        (0, 0, 1, "x^2", True),
    ]
    assert [(e.layer, e.i, e.j, e.fixed) for e in report.edges[2:]] == [(0, 1, 0, False)]
    assert {key: edge.name for key, edge in layer.symbolic_edges.items()} == {"0,0": "sin", "0,1": "x^2"}
    assert layer.edge_mask.tolist() == [[0, 0], [1, 0]]
    assert report.history is None
    assert report.rmse is None
    first, *_, last = str(report).splitlines()
    assert first == "2 of 3 edges got a function"
    assert last.startswith("  layer 0, edge (1, 0): still a spline; nearest: ")
    assert "(next: " in last


def test_auto_with_min_r2_0_names_all() -> None:
    model = splines()

    report = auto_symbolic(model, uniform(500, 2), min_r2=0.0)

    assert all(edge.fixed for edge in report.edges)
    assert not layer_of(model, 0).edge_mask.any()


def test_auto_leaves_named_edges_alone() -> None:
    model = splines()
    x = uniform(100, 2)
    fix_symbolic(model, x, 0, 0, 1, "gaussian")

    report = auto_symbolic(model, x)

    assert [(e.i, e.j) for e in report.edges] == [(0, 0), (1, 0)]
    assert layer_of(model, 0).symbolic_edges["0,1"].name == "gaussian"


def test_auto_refits_all_constants() -> None:
    model = kan([2, 1, 1])
    spline_of(model, 0, 0, 0, lambda t: 0.5 * torch.sin(3 * t))
    spline_of(model, 0, 0, 1, lambda t: 0.4 * t**2)
    spline_of(model, 1, 0, 0, lambda t: torch.exp(2 * t))
    x = uniform(300, 2)
    y = torch.exp(torch.sin(3 * x[:, :1]) + 0.8 * x[:, 1:] ** 2)

    report = auto_symbolic(model, x, y, tolerance=1e-2)

    assert [edge.suggestions[0].name for edge in report.edges] == ["sin", "x^2", "exp"]
    assert report.rmse is not None
    assert report.rmse < 1e-13
    assert report.rmse == pytest.approx(float((model(x) - y).square().mean().sqrt().detach()))
    assert str(report).endswith(f"RMSE after the refit: {report.rmse:.3g}")


def test_auto_with_one_function() -> None:
    report = auto_symbolic(splines(), uniform(100, 2), library=[FUNCTIONS["x"]], min_r2=0.0)

    assert "next" not in str(report)


# ------------------------------------------------------------------------------------------------------------- formula


@example(seed=3, widths=[3, 3, 3])
@given(seed=st.integers(0, 10_000), widths=st.lists(st.integers(1, 3), min_size=2, max_size=3))
@settings(max_examples=20, deadline=None)
def test_formula_equals_the_network(seed: int, widths: list[int]) -> None:
    """Any functions, any constants, several outputs, removed edges, nodes without edges."""
    draw = random.Random(seed)
    edges: dict[tuple[int, int, int], tuple[str | Function, Affine]] = {}
    for number, (n_inputs, n_outputs) in enumerate(pairwise(widths)):
        for i in range(n_outputs):
            for j in range(n_inputs):
                if draw.random() < 0.7:
                    name = draw.choice([name for name, function in FUNCTIONS.items() if not function.pole])
                    a, b, c, d = (draw.choice([0.0, 1.0, draw.uniform(-0.5, 0.5)]) for _ in range(4))
                    edges[number, i, j] = (name, (a, b, c, d))
    model = known_kan(widths, edges)
    x = uniform(20, widths[0], seed=seed)

    formula = symbolic_formula(model)

    assert isinstance(formula, list) == (widths[-1] > 1)
    assert_close(values_of(formula, x), model(x).detach(), 1e-7)


def test_formula_is_exact() -> None:
    edges: dict[tuple[int, int, int], tuple[str | Function, Affine]] = {
        (0, 0, 0): ("sin", (torch.pi, 0.1, 1.1, 0.3)),
        (0, 0, 1): ("1/x", (1.0, 2.5, 0.7, -0.3)),
        (1, 0, 0): ("log", (0.3, 1.7, 1 / 3, 0.0)),
    }
    model = known_kan([2, 1, 1], edges)
    x = uniform(100, 2)

    assert (values_of(symbolic_formula(model), x) - model(x)).abs().max() < 2e-15


def test_formula_of_a_pruned_network() -> None:
    model = kan([3, 4, 2])
    first = layer_of(model, 0)
    last = layer_of(model, 1)
    first.edge_mask.zero_()
    last.edge_mask.zero_()
    first.edge_mask[2, 0] = 1
    last.edge_mask[1, 2] = 1
    x = uniform(100, 3)
    fix_symbolic(model, x, 0, 2, 0, "x^2")
    fix_symbolic(model, x, 1, 1, 2, "tanh")

    zero, other = symbolic_formula(model)

    assert zero == 0
    assert other.free_symbols == {sympy.Symbol("x1")}
    assert_close(values_of([zero, other], x), model(x).detach())


def test_formula_for_reading() -> None:
    edges: dict[tuple[int, int, int], tuple[str | Function, Affine]] = {
        (0, 0, 0): ("sin", (3.14159265, 1e-9, 0.5, 0.25)),
        (0, 0, 1): ("x^2", (2**0.5, 1e-8, 0.25, 0.25)),
        (1, 0, 0): ("exp", (1.99998, -0.99999, 1.0, 1e-9)),
    }
    model = known_kan([2, 1, 1], edges)

    assert str(symbolic_formula(model, digits=3)) == "exp(x2**2 + sin(3.14*x1))"
    assert str(symbolic_formula(model, digits=1)) == "exp(x2**2 + sin(3*x1))"
    longer = str(symbolic_formula(model, digits=6, names=["u", "v"]))
    assert longer == "exp(0.99999*v**2 + 0.99999*sin(3.14159*u))"


def test_terms_that_matter_are_not_left_out() -> None:
    model = known_kan([2, 1], {(0, 0, 0): ("x", (1e-5, 0.0, 1.0, 0.0)), (0, 0, 1): ("x", (2e-5, 3e-7, 1.0, 0.0))})

    assert values_of(symbolic_formula(model, digits=3), torch.ones(1, 2).double()).item() == pytest.approx(3.03e-5)
    assert "e-7" not in str(symbolic_formula(model, digits=1))


def test_formula_in_ones_own_symbols() -> None:
    model = known_kan([2, 1], {(0, 0, 0): ("abs", (1.0, 0.0, 1.0, 0.0)), (0, 0, 1): ("x", (1.0, 0.0, 1.0, 0.0))})
    length = sympy.Symbol("length", positive=True)

    assert symbolic_formula(model, names=[length, "b"]) == length + sympy.Symbol("b")


def test_formula_with_ones_own_function() -> None:
    model = known_kan([1, 1], {(0, 0, 0): (SINC, (2.0, 0.1, 3.0, 0.0))})
    x = uniform(20, 1)

    assert_close(values_of(symbolic_formula(model), x), model(x).detach())


def test_formula_names_the_edges_that_are_splines() -> None:
    model = kan([2, 2, 1])
    x = uniform(20, 2)
    fix_symbolic(model, x, 0, 1, 0, "x")
    fix_symbolic(model, x, 1, 0, 1, "x")

    with pytest.raises(
        ValueError, match=r"are still splines: layer 0 \(0, 0\), layer 0 \(0, 1\), layer 0 \(1, 1\), layer 1 \(0, 0\);"
    ):
        symbolic_formula(model)
    # Node 0 leads nowhere any more, so its splines do not matter.
    layer_of(model, 1).edge_mask[0, 0] = 0
    with pytest.raises(ValueError, match=r"are still splines: layer 0 \(1, 1\);"):
        symbolic_formula(model)
    layer_of(model, 0).edge_mask[1, 1] = 0
    assert_close(values_of(symbolic_formula(model), x), model(x).detach())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": ["a"]}, ValueError, r"names must be 2, one an input, got 1: \['a'\]"),
        ({"digits": 0}, ValueError, "digits must be at least 1, got 0"),
        ({"digits": 2.5}, TypeError, "digits must be an integer, got 2.5"),
    ],
)
def test_formula_checks_its_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        symbolic_formula(known_kan([2, 1], {}), **options)


# ----------------------------------------------------------------------------------------------------- find a formula


def exp_of_sum(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = uniform(n, 2, seed=seed)
    return x, torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)


@pytest.mark.slow
def test_find_formula_in_a_small_case() -> None:
    x, y = exp_of_sum(120, seed=0)
    model = kan([2, 1, 1], grid_size=3, seed=1)

    report = find_formula(model, x, y, progress=False)

    assert sorted(edge.suggestions[0].name for edge in report.edges) == ["exp", "sin", "x^2"]
    assert report.rmse is not None
    assert report.rmse < 1e-12
    assert str(symbolic_formula(model, digits=4)) == "exp(x2**2 + sin(3.142*x1))"
    fresh = uniform(100, 2, seed=9)
    assert_close(values_of(symbolic_formula(model), fresh), model(fresh).detach(), 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_find_formula_from_any_start(seed: int) -> None:
    x, y = exp_of_sum(1000, seed=seed)
    model = kan([2, 5, 1], grid_size=3, seed=seed + 100)

    report = find_formula(model, x, y, progress=False)

    assert report.rmse is not None
    assert report.rmse < 1e-12
    assert str(symbolic_formula(model, digits=4)) == "exp(x2**2 + sin(3.142*x1))"


@pytest.mark.slow
def test_find_formula_of_a_product() -> None:
    """No edge is a product, but x·y is a difference of two squares."""
    x = uniform(1000, 2)
    y = x[:, :1] * x[:, 1:]
    model = kan([2, 5, 1], grid_size=3)

    report = find_formula(model, x, y, progress=False)

    assert report.rmse is not None
    assert report.rmse < 1e-12
    expanded = sympy.expand(symbolic_formula(model))
    assert float(expanded.coeff(sympy.Symbol("x1") * sympy.Symbol("x2"))) == pytest.approx(1, abs=1e-9)


@pytest.mark.slow
def test_find_formula_through_noise() -> None:
    x, clean = exp_of_sum(1000, seed=3)
    model = kan([2, 5, 1], grid_size=3)

    report = find_formula(model, x, clean + 0.1 * torch.randn(1000, 1, generator=make_generator(4)).double())

    assert sorted(edge.suggestions[0].name for edge in report.edges) == ["exp", "sin", "x^2"]
    assert (model(x) - clean).square().mean() < 0.02**2


def test_find_formula_ends_on_the_first_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = uniform(100, 1)
    tolerances = []

    def watched(*args: Any, **options: Any) -> SymbolicReport:
        tolerances.append(options["tolerance"])
        return auto_symbolic(*args, **options)

    monkeypatch.setattr(discovery_module, "auto_symbolic", watched)
    model = kan([1, 1], grid_size=3)

    find_formula(model, x, torch.sin(2 * x), progress=False)

    assert tolerances == [5e-5]


@pytest.mark.slow
def test_find_formula_weighs_error_against_length() -> None:
    """Noise that a long formula would follow is left alone."""
    x = uniform(60, 2)
    y = 2 * x[:, :1] + 0.05 * uniform(60, 1, seed=1)
    model = kan([2, 1], grid_size=3)

    report = find_formula(model, x, y, progress=False, strengths=(1e-6, 0.03), tolerances=(1e-2,), steps=20)

    assert [(edge.i, edge.j, edge.suggestions[0].name) for edge in report.edges] == [(0, 0, "x")]


@pytest.mark.slow
def test_find_formula_keeps_the_best() -> None:
    x = uniform(60, 1)
    y = x**2 + 0.5 * x + 0.01 * uniform(60, 1, seed=1)
    model = kan([1, 1], grid_size=3)

    report = find_formula(model, x, y, progress=False, strengths=(1e-4,), tolerances=(0.9, 1e-2, 0.9), steps=20)

    assert [edge.suggestions[0].name for edge in report.edges] == ["x^2"]
    assert (model(x) - y).abs().max() < 0.02


def test_find_formula_from_few_samples() -> None:
    x = uniform(11, 1)

    report = find_formula(kan([1, 1], grid_size=3), x, 2 * x, progress=False, steps=20)

    assert [edge.suggestions[0].name for edge in report.edges] == ["x"]


def test_interrupted_search_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = exp_of_sum(100, seed=0)
    model = kan([2, 1], grid_size=3)
    before = model(x).detach()
    interrupted = KANHistory(loss=[1.0], stopped_by="interrupted")
    monkeypatch.setattr(discovery_module, "fit_lbfgs", lambda *_, **__: interrupted)

    with pytest.raises(KeyboardInterrupt):
        find_formula(model, x, y, progress=False)

    assert torch.equal(model(x), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": ()}, r"strengths must hold at least one number, got \(\)"),
        ({"tolerances": []}, r"tolerances must hold at least one number, got \[\]"),
        ({"strengths": (0.1, 0.0)}, r"strengths must be in .*, got 0.0"),
        ({"tolerances": (-1.0,)}, r"tolerances must be in .*, got -1.0"),
        ({"y": torch.ones(50, 1).double()}, "y must be finite and vary, got 50 samples with variance 0.0"),
    ],
)
def test_find_formula_checks_its_arguments(options: dict[str, Any], message: str) -> None:
    x, y = exp_of_sum(50, seed=0)
    arguments: dict[str, Any] = {"y": y, "progress": False} | options

    with pytest.raises(ValueError, match=message):
        find_formula(kan([2, 1]), x, **arguments)
