"""B-splines against scipy, KAN layers and networks against their definition."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from course_utils.kan import KAN, KANLayer, b_spline_basis, b_spline_derivative, bsplines
from course_utils.kan.library import FUNCTIONS, Function, SymbolicEdge

sizes = st.integers(1, 20)
degrees = st.integers(1, 5)


def points(n: int, grid_size: int, seed: int = 0, *, margin: float = 0.0) -> torch.Tensor:
    """Locations in grid units, (n, 2), the knots among them."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(-margin, grid_size + margin, (n, 2))
    drawn[: grid_size + 1, 0] = np.arange(grid_size + 1)
    return torch.from_numpy(drawn)


def by_scipy(s: torch.Tensor, grid_size: int, degree: int, derivative: int = 0) -> torch.Tensor:
    """The basis and its derivatives inside the grid, from de Boor's recursion."""
    knots = np.arange(-degree, grid_size + degree + 1, dtype=float)
    spline = BSpline(knots, np.eye(grid_size + degree), degree)
    if derivative:
        spline = spline.derivative(derivative)
    return torch.from_numpy(np.moveaxis(spline(s.numpy()), 2, 1).copy())


# ---------------------------------------------------------------------------------------------------------- B-splines


@settings(max_examples=40, deadline=None)
@given(grid_size=sizes, degree=degrees, seed=st.integers(0, 100))
def test_basis_is_scipys(grid_size: int, degree: int, seed: int) -> None:
    s = points(60, grid_size, seed)

    torch.testing.assert_close(b_spline_basis(s, grid_size, degree), by_scipy(s, grid_size, degree), rtol=0, atol=2e-14)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("grid_size", "dtype", "atol"), [(200, torch.float64, 2e-14), (20, torch.float32, 1e-6)])
def test_basis_is_scipys_on_fine_grids(grid_size: int, dtype: torch.dtype, atol: float, degree: int) -> None:
    s = points(1000, grid_size).to(dtype)
    expected = by_scipy(s.double(), grid_size, degree)

    basis = b_spline_basis(s, grid_size, degree)
    assert basis.dtype == dtype
    torch.testing.assert_close(basis.double(), expected, rtol=0, atol=atol)


@settings(max_examples=30, deadline=None)
@given(grid_size=sizes, degree=degrees, seed=st.integers(0, 100))
def test_derivative_is_scipys(grid_size: int, degree: int, seed: int) -> None:
    s = points(60, grid_size, seed)
    expected = by_scipy(s, grid_size, degree, derivative=1)

    torch.testing.assert_close(b_spline_derivative(s, grid_size, degree), expected, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(grid_size=sizes, degree=degrees, seed=st.integers(0, 100))
def test_backward_is_the_derivative(grid_size: int, degree: int, seed: int) -> None:
    s = points(60, grid_size, seed, margin=2.0).requires_grad_()
    weights = torch.from_numpy(np.random.default_rng(seed).normal(size=(60, grid_size + degree, 2)))
    expected = (weights * b_spline_derivative(s.detach(), grid_size, degree)).sum(dim=1)
    basis = b_spline_basis(s, grid_size, degree)

    for _ in range(2):  # the second time, a backward pass that spoilt what it had saved would show
        (gradient,) = torch.autograd.grad(basis, s, weights, retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(grid_size=sizes, degree=degrees, seed=st.integers(0, 100))
def test_partition_of_unity_and_local_support(grid_size: int, degree: int, seed: int) -> None:
    s = points(60, grid_size, seed)
    basis = b_spline_basis(s, grid_size, degree)
    centres = torch.arange(grid_size + degree) - (degree - 1) / 2
    far = (s[:, None, :] - centres[:, None]).abs() >= (degree + 1) / 2

    torch.testing.assert_close(basis.sum(dim=1), torch.ones_like(s), rtol=0, atol=1e-12)
    assert basis.min() > -1e-13
    assert basis[far].abs().max() < 1e-13


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_a_straight_line_stays_one_beyond_the_grid(degree: int) -> None:
    grid_size = 4
    s = torch.linspace(-30, 40, 71, dtype=torch.float64)[:, None]
    # Coefficients that are linear in the centres give the line itself.
    line = 2.0 + 3.0 * (torch.arange(grid_size + degree, dtype=torch.float64) - (degree - 1) / 2)

    torch.testing.assert_close((b_spline_basis(s, grid_size, degree) * line[:, None]).sum(dim=1), 2.0 + 3.0 * s)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_beyond_the_grid_splines_go_on_along_their_tangents(degree: int) -> None:
    grid_size = 4
    ends = torch.tensor([[0.0], [4.0]], dtype=torch.float64)
    at_ends, slopes = b_spline_basis(ends, grid_size, degree), b_spline_derivative(ends, grid_size, degree)
    for distance in (0.5, 30.0):
        beyond = ends + torch.tensor([[-distance], [distance]], dtype=torch.float64)
        expected = at_ends + (beyond - ends)[:, None, :] * slopes
        torch.testing.assert_close(b_spline_basis(beyond, grid_size, degree), expected)
        torch.testing.assert_close(b_spline_derivative(beyond, grid_size, degree), slopes)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_gradient_check_inside_and_outside(degree: int) -> None:
    s = points(20, 5, margin=3.0)[6:].requires_grad_()  # without the knots, where higher derivatives jump

    assert torch.autograd.gradcheck(lambda x: b_spline_basis(x, 5, degree), s)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_second_gradient_check(degree: int) -> None:
    s = points(20, 5, margin=3.0)[6:].requires_grad_()

    assert torch.autograd.gradgradcheck(lambda x: b_spline_basis(x, 5, degree), s)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_become_finite(degree: int, bad: float) -> None:
    x = torch.tensor([[0.1, 0.2], [bad, 0.3]])
    model = KAN([2, 2, 1], degree=degree, generator=torch.Generator().manual_seed(0))
    output = model(x)
    (gradient,) = torch.autograd.grad(model(x.requires_grad_()).sum(), x)

    assert output[0].isfinite().all()
    assert not output[1].isfinite().any()
    assert gradient[0].isfinite().all()


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_blocks_of_rows_change_nothing(degree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    s = points(61, 5, margin=2.0).requires_grad_()
    outcomes = []
    for block in (10**9, 40, 0):  # all rows at once, a few, one
        monkeypatch.setattr(bsplines, "_BLOCK", block)
        basis = b_spline_basis(s, 5, degree)
        outcomes.append((basis.detach(), torch.autograd.grad(basis.square().sum(), s)[0]))

    for basis, gradient in outcomes[1:]:
        assert torch.equal(basis, outcomes[0][0])
        assert torch.equal(gradient, outcomes[0][1])


def test_basis_of_no_rows_and_of_no_inputs_is_empty() -> None:
    assert b_spline_basis(torch.zeros(0, 3), 5, 3).shape == (0, 8, 3)
    assert b_spline_basis(torch.zeros(4, 0), 5, 3).shape == (4, 8, 0)


def test_basis_leaves_its_argument_alone() -> None:
    s = points(30, 5, margin=2.0)
    copied = s.clone()
    for degree in (1, 2, 3):
        b_spline_basis(s, 5, degree)
        b_spline_derivative(s, 5, degree)

    assert torch.equal(s, copied)


@pytest.mark.parametrize(
    ("s", "grid_size", "degree", "error", "message"),
    [
        (torch.zeros(3, 1), 0, 3, ValueError, "grid_size must be at least 1, got 0"),
        (torch.zeros(3, 1), 5, 0, ValueError, "degree must be at least 1, got 0"),
        (torch.zeros(3, 1), 5, 2.5, TypeError, "degree"),
        (torch.zeros(3), 5, 3, ValueError, r"s must have shape \(batch, in_features\), got \(3,\)"),
        (torch.zeros(3, 1, dtype=torch.int64), 5, 3, TypeError, "floating-point numbers, got torch.int64"),
    ],
)
def test_basis_errors(s: torch.Tensor, grid_size: int, degree: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        b_spline_basis(s, grid_size, degree)


# -------------------------------------------------------------------------------------------------------------- layer


def layer_of(**options: Any) -> KANLayer:
    generator = torch.Generator().manual_seed(0)
    return KANLayer(3, 2, generator=generator, dtype=torch.float64, init_scale=1.0, **options)


@pytest.mark.parametrize("base", ["silu", None])
def test_layer_is_the_sum_of_its_definition(base: str | None) -> None:
    layer = layer_of(base=base, grid_size=4, degree=3, grid_range=(-2.0, 1.0))
    x = torch.from_numpy(np.random.default_rng(0).uniform(-2, 1, (7, 3)))
    knots = -2 + 0.75 * np.arange(-3, 8)
    expected = np.zeros((7, 2))
    for i in range(2):
        for j in range(3):
            expected[:, i] += BSpline(knots, layer.coefficients[i, :, j].detach().numpy(), 3)(x[:, j].numpy())
            if layer.base_weight is not None:
                expected[:, i] += layer.base_weight[i, j].item() * torch.nn.functional.silu(x[:, j]).numpy()

    torch.testing.assert_close(layer(x), torch.from_numpy(expected))
    torch.testing.assert_close(layer.edge_functions(x).sum(dim=2), torch.from_numpy(expected))


@pytest.mark.parametrize("base", ["silu", None])
def test_layer_gradient_check(base: str | None) -> None:
    layer = layer_of(base=base)
    x = points(6, 1, margin=0.4, seed=3)[:, :1].expand(-1, 3).clone() * 2 - 1
    x = (x + torch.tensor([0.01, 0.02, 0.03])).requires_grad_()
    parameters = list(layer.parameters())

    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *parameters))


def test_removed_edges_count_for_nothing_and_get_no_gradient() -> None:
    layer = layer_of()
    x = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    edges = layer.edge_functions(x)
    layer.edge_mask[1, 2] = 0
    output = layer(x)
    output.sum().backward()

    expected = edges.sum(dim=2)
    expected[:, 1] -= edges[:, 1, 2]
    torch.testing.assert_close(output, expected)
    assert layer.coefficients.grad is not None
    assert layer.base_weight is not None
    assert layer.base_weight.grad is not None
    assert layer.coefficients.grad[1, :, 2].abs().max() == 0 == layer.base_weight.grad[1, 2]
    assert layer.coefficients.grad[0, :, 2].abs().max() > 0


def test_known_functions_count_as_edges() -> None:
    layer = layer_of()
    x = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rest = layer.edge_functions(x).sum(dim=2) - layer.edge_functions(x)[:, [0, 1, 1], [2, 0, 2]] @ torch.tensor(
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64
    )
    for i, j in ((0, 2), (1, 0), (1, 2)):
        layer.edge_mask[i, j] = 0
    layer.symbolic_edges["0,2"] = SymbolicEdge("sin", (2.0, 0.5, 3.0, 1.0), dtype=torch.float64)
    layer.symbolic_edges["1,0"] = SymbolicEdge("x^2", (1.0, 0.0, 1.0, 0.0), dtype=torch.float64)
    sine = 3 * torch.sin(2 * x[:, 2] + 0.5) + 1
    expected = rest + torch.stack([sine, x[:, 0] ** 2], dim=1)
    values = layer.edge_functions(x)

    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(values.sum(dim=2), expected)
    torch.testing.assert_close(values[:, 0, 2], sine)
    torch.testing.assert_close(values[:, 1, 2], torch.zeros(5, dtype=torch.float64))
    assert layer.active_edges.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 1), {}, ValueError, "in_features must be at least 1, got 0"),
        ((1, 0), {}, ValueError, "out_features must be at least 1, got 0"),
        ((1, 1), {"grid_size": 0}, ValueError, "grid_size must be at least 1, got 0"),
        ((1, 1), {"degree": 0}, ValueError, "degree must be at least 1, got 0"),
        ((1, 1), {"base": "relu"}, ValueError, "base must be one of 'silu', None, got 'relu'"),
        ((1, 1), {"grid_range": (1.0, 1.0)}, ValueError, r"grid_range must be two finite .* got \(1.0, 1.0\)"),
        ((1, 1), {"grid_range": (0.0, float("inf"))}, ValueError, "grid_range must be two finite"),
        ((1, 1), {"init_scale": -1.0}, ValueError, "init_scale"),
    ],
)
def test_layer_errors(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        KANLayer(*arguments, **options)


def test_wrong_width_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 3\), got \(5, 2\)"):
        layer_of()(torch.zeros(5, 2, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------------------ network


def test_network_chains_its_layers_and_draws_from_its_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    models = [KAN([2, 5, 1], generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    x = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    values = models[0].activations(x)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(models[0](x), models[1](x))
    assert [tuple(value.shape) for value in values] == [(4, 2), (4, 5), (4, 1)]
    assert torch.equal(values[-1], models[0](x))


def test_network_learns_a_smooth_function() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-1, 1, (400, 2))).float()
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
    model = KAN([2, 5, 1], generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()

    assert loss.item() < 0.02 * y.var().item()


def test_saved_network_comes_back(tmp_path: Path) -> None:
    model = KAN([2, 3, 1], grid_size=7, degree=2, base=None, grid_range=(-3.0, 2.0), dtype=torch.float64)
    first: Any = model.layers[0]
    first.edge_mask[0, 1] = 0
    x = torch.rand(5, 2, dtype=torch.float64)
    model.save(tmp_path / "model.pt")
    loaded = KAN.load(tmp_path / "model.pt")

    assert loaded.config() == model.config() == {"widths": [2, 3, 1], "grid_size": 7, "degree": 2, "base": None}
    assert torch.equal(loaded(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    twin = KAN([2, 3, 1], grid_size=7, degree=2, base=None, dtype=torch.float64)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))


def changed_network() -> KAN:
    """Grids of two sizes, a removed edge, two known functions, other ranges."""
    model = KAN([2, 3, 1], grid_size=(4, 9), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (layer for layer in model.layers if isinstance(layer, KANLayer))
    first.edge_mask[0, 1] = first.edge_mask[2, 0] = second.edge_mask[0, 1] = 0
    first.symbolic_edges["2,0"] = SymbolicEdge("sin", (2.1, 0.3, 3.7, 1.9), dtype=torch.float64)  # not float32 numbers
    second.symbolic_edges["0,1"] = SymbolicEdge("x^2", (1.5, 0.0, 1.0, 0.0), dtype=torch.float64)
    first.grid_low[1], second.grid_step[2] = -3.0, 0.7
    return model


def test_a_network_that_was_worked_on_comes_back(tmp_path: Path) -> None:
    model = changed_network()
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    model.save(tmp_path / "model.pt")
    loaded = KAN.load(tmp_path / "model.pt")

    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(loaded) is KAN
    assert loaded.config()["grid_size"] == [4, 9]
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1.0)
    assert torch.equal(model(x), loaded(x))


def test_functions_of_ones_own_are_saved_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = changed_network()
    layer: Any = model.layers[1]
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "model.pt"
    clash = Function("x^2", torch.square, lambda x: 2 * x, lambda x: x**2, 2)
    layer.symbolic_edges["0,1"] = SymbolicEdge(clash, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"edge 0,1: the function 'x\^2' is not the one that FUNCTIONS has"):
        model.save(file)
    assert not file.exists()
    own = Function("sinc", torch.special.sinc, torch.zeros_like, lambda x: x, 2)
    layer.symbolic_edges["0,1"] = SymbolicEdge(own, dtype=torch.float64)
    model.save(file)
    with pytest.raises(ValueError, match=r"name must be one of .* got 'sinc'"):
        KAN.load(file)
    monkeypatch.setitem(FUNCTIONS, "sinc", own)
    assert torch.equal(KAN.load(file)(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler uses parts of torch that torch warns of
@pytest.mark.slow
@pytest.mark.parametrize(("backend", "grid_sizes"), [("aot_eager", (9, 6)), ("inductor", (9,))])
def test_compiled_network_is_one_graph_and_the_same(backend: str, grid_sizes: tuple[int, ...]) -> None:
    if backend == "inductor" and shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("needs a C++ compiler")
    torch.compiler.reset()
    model = changed_network()
    x = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (16, 2)))  # some beyond the grids

    def outcome(network: Any) -> list[torch.Tensor]:
        model.zero_grad()
        output = network(x)
        output.square().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        return [output.detach(), *(gradient.clone() for gradient in gradients if gradient is not None)]

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for grid_size in grid_sizes:  # a grid that changes in place is compiled anew
        layer: Any = model.layers[1]
        layer.grid_size = grid_size
        layer.coefficients = torch.nn.Parameter(torch.rand(1, layer.n_basis, 3, dtype=torch.float64))
        expected = outcome(model)
        found = outcome(compiled)
        assert len(found) == len(expected) == 1 + len(list(model.parameters()))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_loading_something_else_is_an_error(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt is not a file that KAN.save wrote"):
        KAN.load(tmp_path / "other.pt")
    torch.save(Path("code"), tmp_path / "code.pt")
    with pytest.raises(pickle.UnpicklingError):
        KAN.load(tmp_path / "code.pt")


def test_network_needs_two_widths() -> None:
    with pytest.raises(ValueError, match=r"widths must be at least two, of the input and of the output, got \[3\]"):
        KAN([3])
