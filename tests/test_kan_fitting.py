"""Moving and refining grids changes nothing else; L-BFGS and Levenberg–Marquardt fit, stop and restore as they say."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils.kan import KAN, levenberg_marquardt
from course_utils.kan.fitting import KANHistory, fit_lbfgs, fit_lm
from course_utils.kan.grid import extend_grid, update_grid
from course_utils.kan.levenberg_marquardt import LevenbergMarquardt, jacobian
from course_utils.kan.library import Function, SymbolicEdge
from course_utils.kan.network import KANBase, layers_of

LADDER = (3, 6, 12, 24, 48)


def network(widths: list[int], *, seed: int = 0, **options: Any) -> KAN:
    options.setdefault("dtype", torch.float64)
    options.setdefault("grid_size", 3)
    return KAN(widths, generator=torch.Generator().manual_seed(seed), **options)


def uniform(n: int, width: int = 2, *, seed: int = 0, reach: float = 1.0) -> Tensor:
    drawn = torch.rand(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return reach * (2 * drawn - 1)


def target(x: Tensor) -> Tensor:
    """exp(sin πx + y²)."""
    return torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)


def constants(model: KAN, layer: int, edge: str) -> list[float]:
    return dict(model.named_parameters())[f"layers.{layer}.symbolic_edges.{edge}.affine"].tolist()


def rmse(model: KAN, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - y).square().mean().sqrt())


def state_of(model: KAN) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(model: KAN, state: dict[str, Tensor]) -> None:
    now = model.state_dict()
    assert set(now) == set(state)
    assert all(torch.equal(now[name], value) for name, value in state.items())


def largest_change(model: KAN, x: Tensor, before: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - before).abs().max())


# -------------------------------------------------------------------------------------------------------- extend_grid


@settings(max_examples=25, deadline=None)
@given(
    degree=st.integers(1, 5),
    grid_size=st.integers(1, 6),
    factor=st.integers(2, 5),
    base=st.sampled_from(["silu", None]),
    seed=st.integers(0, 1000),
)
def test_cutting_intervals_changes_nothing_inside_or_outside(
    degree: int, grid_size: int, factor: int, base: str | None, seed: int
) -> None:
    model = network([2, 3, 2], degree=degree, grid_size=grid_size, base=base, seed=seed, grid_range=(-0.7, 1.1))
    layers_of(model)[0].edge_mask[1, 0] = 0
    x = uniform(60, reach=3.0, seed=seed)
    before, states = model(x).detach(), state_of(model)
    report = extend_grid(model, grid_size * factor)

    assert largest_change(model, x, before) < 1e-12
    assert report.residual < 1e-12
    for number, layer in enumerate(layers_of(model)):
        assert layer.grid_size == grid_size * factor
        assert layer.coefficients.shape[1] == grid_size * factor + degree
        assert torch.equal(layer.edge_mask, states[f"layers.{number}.edge_mask"])
    assert [entry.grid_size for entry in report.layers] == [(grid_size, grid_size * factor)] * 2
    for entry in report.layers:
        torch.testing.assert_close(entry.old_range, torch.tensor([-0.7, 1.1]).double().expand_as(entry.old_range))
        torch.testing.assert_close(entry.new_range, entry.old_range)


@settings(max_examples=15, deadline=None)
@given(degree=st.integers(1, 5), old=st.integers(2, 5), more=st.integers(1, 4))
def test_other_sizes_keep_polynomials_and_report_what_they_change(degree: int, old: int, more: int) -> None:
    model = network([1, 1], degree=degree, grid_size=old, base=None)
    s = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    polynomial = (0.3 + s) ** degree
    basis = layers_of(model)[0].basis(s).flatten(1)
    with torch.no_grad():
        layers_of(model)[0].coefficients[0, :, 0] = torch.linalg.lstsq(basis, polynomial).solution[:, 0]
    assert extend_grid(model, old + more).residual < 1e-11
    assert rmse(model, s, polynomial) < 1e-11

    other = network([1, 1], degree=degree, grid_size=old, base=None, seed=1)
    s = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None]
    before = other(s).detach()
    report = extend_grid(other, old + more)
    assert rmse(other, s, before) == pytest.approx(report.residual, rel=0.1, abs=1e-12)


def test_the_residual_is_the_least_possible() -> None:
    model = network([1, 1], grid_size=3, base=None)
    s = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    before = model(s).detach()
    report = extend_grid(model, 5)
    basis = layers_of(model)[0].basis(s).flatten(1)

    best = basis @ torch.linalg.lstsq(basis, before).solution - before
    assert report.residual == pytest.approx(float(best.square().mean().sqrt()))
    layers_of(model)[0].edge_mask.zero_()
    assert extend_grid(model, 7).residual == 0  # nothing of a removed edge counts


def test_extended_networks_have_a_size_a_layer_and_no_stale_gradient() -> None:
    model = network([2, 3, 1])
    model(uniform(5)).sum().backward()
    parameter = layers_of(model)[0].coefficients
    extend_grid(model, [6, 3])

    assert [layer.grid_size for layer in layers_of(model)] == [6, 3]
    assert layers_of(model)[0].coefficients is parameter
    assert parameter.grad is None
    model(uniform(5)).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.shape == (3, 9, 2)
    with pytest.raises(ValueError, match="grid_size must be at least 6, got 5"):
        extend_grid(model, 5)
    with pytest.raises(ValueError, match=r"one for each of 2 layers, got \[6\]"):
        extend_grid(model, [6])
    with pytest.raises(TypeError, match=r"grid_size must be an integer, got 6\.5"):
        extend_grid(model, 6.5)
    assert [layer.grid_size for layer in layers_of(model)] == [6, 3]


def test_copies_and_checkpoints_survive_a_change_of_grid() -> None:
    model, x = network([2, 3, 1]), uniform(50, reach=2.0)
    first, before = copy.deepcopy(model), model(x).detach()
    extend_grid(model, 6)
    update_grid(model, x)
    second, after = copy.deepcopy(model), model(x).detach()
    fit_lm(model, x, target(x), max_steps=2, progress=False)

    assert torch.equal(first(x), before)
    assert torch.equal(second(x), after)
    loaded = network([2, 3, 1], grid_size=6, seed=9)
    loaded.load_state_dict(second.state_dict())
    assert torch.equal(loaded(x), after)


# -------------------------------------------------------------------------------------------------------- update_grid


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.3])
def test_grids_span_the_values_that_reach_them(margin: float) -> None:
    model, x = network([2, 3, 1], grid_size=5), uniform(200) * torch.tensor([4.0, 0.1]) + torch.tensor([7.0, 0.0])
    old = [layer.grid_low.clone() for layer in layers_of(model)]
    nodes = model.activations(x)
    report = update_grid(model, x, margin=margin)

    for layer, entry, values, low in zip(layers_of(model), report.layers, nodes, old, strict=False):
        lowest, highest = values.min(dim=0).values, values.max(dim=0).values
        span = highest - lowest
        torch.testing.assert_close(layer.grid_low, lowest - margin * span)
        torch.testing.assert_close(layer.grid_low + 5 * layer.grid_step, highest + margin * span)
        torch.testing.assert_close(entry.new_range, torch.stack([lowest - margin * span, highest + margin * span], 1))
        torch.testing.assert_close(entry.old_range[:, 0], low)
        assert entry.constant == []


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_moving_keeps_polynomials_everywhere_and_knows_what_it_changes(degree: int) -> None:
    model, x = network([1, 1], degree=degree, grid_size=6, base=None), uniform(100, 1, reach=0.4)
    s = torch.linspace(-1, 1, 300, dtype=torch.float64)[:, None]
    basis = layers_of(model)[0].basis(s).flatten(1)
    with torch.no_grad():
        layers_of(model)[0].coefficients[0, :, 0] = torch.linalg.lstsq(basis, (0.2 + s) ** degree).solution[:, 0]
    assert update_grid(model, x).residual < 1e-11
    assert rmse(model, x, (0.2 + x) ** degree) < 1e-11

    other = network([2, 2], degree=degree, grid_size=6, seed=1)
    x = uniform(300, reach=0.7)
    before = other(x).detach()
    report = update_grid(other, x)
    assert report.residual > 1e-6
    assert report.residual == pytest.approx(rmse(other, x, before))


def test_moving_is_a_least_squares_fit_on_the_samples_and_keeps_the_shape_between_them() -> None:
    model = network([1, 1], grid_size=8, base=None)
    x = torch.cat([uniform(400, 1, reach=0.2) - 0.8, uniform(400, 1, reach=0.2) + 0.8])  # nothing around 0
    between = torch.linspace(-0.6, 0.6, 50, dtype=torch.float64)[:, None]
    before, before_between, other = model(x).detach(), model(between).detach(), copy.deepcopy(model)
    update_grid(model, x)
    assert rmse(model, between, before_between) < 0.02 < float(before_between.square().mean().sqrt())

    report = update_grid(other, x, margin=0.2)
    basis = layers_of(other)[0].basis(x).flatten(1)
    best = basis @ torch.linalg.lstsq(basis, before, driver="gelsd").solution - before
    # Three times the least possible; it is 13 times where the points between the samples have as much weight.
    assert report.residual < 4 * float(best.square().mean().sqrt())


def test_a_grid_that_fits_is_left_as_it_is() -> None:
    model, x = network([2, 3]), uniform(100)
    parameter = layers_of(model)[0].coefficients
    update_grid(model, x)
    state = state_of(model)
    report = update_grid(model, x)

    assert report.residual == 0
    assert_same_state(model, state)
    assert layers_of(model)[0].coefficients is parameter
    assert update_grid(model, 1.001 * x).residual > 0


def test_constant_inputs_and_dead_nodes_keep_their_grids_and_are_named() -> None:
    model, x = network([3, 2, 1]), uniform(100, 3)
    x[:, 1] = 0.3
    layers_of(model)[0].edge_mask[1] = 0
    report = update_grid(model, x)

    assert [entry.constant for entry in report.layers] == [[1], [1]]
    assert layers_of(model)[0].grid_low[1] == -1 == layers_of(model)[1].grid_low[1]
    assert layers_of(model)[0].grid_low[0] != -1 != layers_of(model)[1].grid_low[0]
    text = str(report).splitlines()
    assert len(text) == 2
    assert text[0].startswith("layer 0: grid 3, within [-1.0")
    assert text[0].endswith("constant inputs: 1")


def test_removed_edges_and_known_functions_survive_a_move() -> None:
    model, x = network([2, 2, 1], grid_size=8), uniform(300, reach=1.3)
    layers_of(model)[0].edge_mask[0, 1] = 0
    layers_of(model)[1].edge_mask[0, 0] = 0
    layers_of(model)[1].symbolic_edges["0,0"] = SymbolicEdge("sin", (2.0, 0.1, 3.0, 0.0), dtype=torch.float64)
    before = model(x).detach()
    report = update_grid(model, x)

    assert rmse(model, x, before) < 10 * report.residual < 0.2
    assert layers_of(model)[0].edge_mask[0, 1] == 0
    assert constants(model, 1, "0,0") == [2.0, 0.1, 3.0, 0.0]


def test_float32_grids_stay_accurate() -> None:
    model, x = network([2, 3, 1], dtype=torch.float32, grid_size=12), uniform(300).float()
    before = model(x).detach()
    extend_grid(model, 24)
    assert largest_change(model, x, before) < 1e-6
    assert update_grid(model, x).residual < 1e-3
    assert layers_of(model)[0].coefficients.dtype == torch.float32


def bad(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[3, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (bad(uniform(20), math.nan), ValueError, "x must be finite, got nan in row 3, column 1"),
        (bad(uniform(20), -math.inf), ValueError, "x must be finite, got -inf in row 3, column 1"),
        (uniform(20, 3), ValueError, r"x must have shape \(n, 2\), got \(20, 3\)"),
        (uniform(20)[0], ValueError, r"x must have shape \(n, 2\), got \(2,\)"),
        (uniform(20).float(), TypeError, r"x must be torch.float64 like the model's parameters, got torch.float32"),
        (uniform(3), ValueError, "a grid of 3 intervals needs at least 4 samples, got 3"),
    ],
)
def test_update_grid_errors(x: Tensor, error: type[Exception], message: str) -> None:
    model = network([2, 2, 1])
    state = state_of(model)
    with pytest.raises(error, match=message):
        update_grid(model, x)
    assert_same_state(model, state)


def test_update_grid_says_where_hidden_values_are_not_finite() -> None:
    model = network([2, 2, 1])
    with torch.no_grad():
        layers_of(model)[0].coefficients[1] = math.inf
    with pytest.raises(ValueError, match=r"the inputs of layer 1 must be finite, got (nan|inf) in row 0, column 1"):
        update_grid(model, uniform(20))
    with pytest.raises(ValueError, match="margin"):
        update_grid(model, uniform(20), margin=-0.1)


# ----------------------------------------------------------------------------------------------------------- Jacobian


@pytest.mark.parametrize("base", ["silu", None])
def test_jacobian_is_autograds(base: str | None) -> None:
    model, x = network([2, 3, 2], base=base), uniform(6, reach=1.4)
    layers_of(model)[0].edge_mask[1, 0] = 0
    layers_of(model)[0].symbolic_edges["1,0"] = SymbolicEdge("sin", (1.5, 0.2, 0.7, 0.1), dtype=torch.float64)
    layers_of(model)[1].edge_mask[0, 2] = 0
    layers_of(model)[1].coefficients.requires_grad_(False)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = tuple(dict(model.named_parameters())[name].detach().clone() for name in names)
    blocks = torch.autograd.functional.jacobian(
        lambda *values: torch.func.functional_call(model, dict(zip(names, values, strict=True)), x), parameters
    )
    by_name = dict(zip(names, blocks, strict=True))
    edges = [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)]
    expected = [by_name["layers.0.coefficients"][:, :, i, b, j] for i, j in edges for b in range(6)]
    if base is not None:
        expected += [by_name["layers.0.base_weight"][:, :, i, j] for i, j in edges]
    expected += [by_name["layers.0.symbolic_edges.1,0.affine"][:, :, place] for place in range(4)]
    if base is not None:
        last = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
        expected += [by_name["layers.1.base_weight"][:, :, i, j] for i, j in last]

    torch.testing.assert_close(jacobian(model, x), torch.stack(expected, dim=2), rtol=1e-12, atol=1e-12)


# -------------------------------------------------------------------------------------------------------------- fit_lm


def test_lm_solves_one_layer_like_lstsq() -> None:
    model, x = network([2, 2], base=None), uniform(200)
    y = torch.cat([target(x), x[:, :1].sign()], dim=1)
    basis = layers_of(model)[0].basis(x).flatten(1)
    best = basis @ torch.linalg.lstsq(basis, y, driver="gelsd").solution
    history = fit_lm(model, x, y, progress=False)

    assert rmse(model, x, y) == pytest.approx(float((best - y).square().mean().sqrt()), rel=1e-6)
    assert history.stopped_by == "tolerance"
    assert history.loss[-1] == pytest.approx(rmse(model, x, y) ** 2)


def test_lm_climbs_the_ladder_to_a_few_millionths() -> None:
    x, x_test = uniform(1000), uniform(1000, seed=1)
    model = network([2, 1, 1])
    history = fit_lm(model, x, target(x), grids=LADDER, progress=False)

    assert rmse(model, x_test, target(x_test)) < 5e-6  # over seeds: 1e-6 in the middle, 5e-5 at worst
    assert history.grid_size[-1] == layers_of(model)[0].grid_size == 48
    assert history.val_loss == history.penalty == []


def test_lm_recovers_the_constants_of_known_functions_to_rounding() -> None:
    model, x = network([2, 1]), uniform(50)
    layers_of(model)[0].edge_mask.zero_()
    for j, name, start in ((0, "sin", (2.8, 0.1, 0.8, 0.0)), (1, "x^2", (1.0, 0.0, 0.6, 0.2))):
        layers_of(model)[0].symbolic_edges[f"0,{j}"] = SymbolicEdge(name, start, dtype=torch.float64)
    y = torch.sin(math.pi * x[:, :1] + 0.3) + (0.5 * x[:, 1:] - 0.2) ** 2
    state = state_of(model)
    fit_lm(model, x, y, progress=False)

    assert rmse(model, x, y) < 1e-13
    a, b, c, _ = constants(model, 0, "0,0")
    assert (a, b, c) == pytest.approx((math.pi, 0.3, 1.0))
    for name in ("coefficients", "base_weight", "grid_low", "grid_step"):
        assert torch.equal(model.state_dict()[f"layers.0.{name}"], state[f"layers.0.{name}"])


def test_lm_passes_over_steps_and_samples_that_are_not_finite() -> None:
    root = Function("root", lambda z: z.abs().sqrt(), lambda z: 0.5 / z.sqrt(), lambda z: z**0.5, 1)
    model, x = network([1, 1]), torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]  # √x has no slope at its 0
    layers_of(model)[0].edge_mask.zero_()
    layers_of(model)[0].symbolic_edges["0,0"] = SymbolicEdge(root, (1.0, 0.0, 0.4, 0.3), dtype=torch.float64)
    fit_lm(model, x, 2 * x.sqrt() + 1, progress=False)
    assert rmse(model, x, 2 * x.sqrt() + 1) < 1e-10  # at 0 the error is the root of b's, which is 3e-23

    layers_of(model)[0].symbolic_edges["0,0"] = SymbolicEdge("exp", (1.0, 0.0, 1e-3, 0.0), dtype=torch.float64)
    y = torch.exp(30 * x)
    history = fit_lm(model, x, y, progress=False, max_steps=300, tolerance=0)
    assert all(math.isfinite(value) for value in history.loss)
    assert all(later < earlier for earlier, later in zip(history.loss, history.loss[1:], strict=False))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_lm_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = uniform(101)
    y = torch.cat([target(x), x.prod(dim=1, keepdim=True)], dim=1)
    models = [network([2, 2, 2]) for _ in range(2)]
    whole = LevenbergMarquardt(models[0], x, y)
    monkeypatch.setattr(levenberg_marquardt, "_CHUNK", 2000)
    parts = LevenbergMarquardt(models[1], x, y)
    for _ in range(3):
        assert whole.step()
        assert parts.step()
    assert whole.loss == pytest.approx(parts.loss)
    assert parts.loss == pytest.approx(rmse(models[1], x, y) ** 2)


def test_lm_leaves_removed_edges_frozen_parameters_and_no_gradients() -> None:
    model, x = network([2, 2, 1]), uniform(200)
    layers_of(model)[0].edge_mask[0, 1] = 0
    known = SymbolicEdge("sin", dtype=torch.float64).requires_grad_(False)
    layers_of(model)[0].symbolic_edges["0,1"] = known
    dict(model.named_parameters())["layers.1.base_weight"].requires_grad_(False)
    state = state_of(model)
    fit_lm(model, x, target(x), max_steps=5, progress=False)

    now = model.state_dict()
    assert torch.equal(now["layers.0.coefficients"][0, :, 1], state["layers.0.coefficients"][0, :, 1])
    assert torch.equal(now["layers.1.base_weight"], state["layers.1.base_weight"])
    assert known.affine.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert not torch.equal(now["layers.0.coefficients"][0, :, 0], state["layers.0.coefficients"][0, :, 0])
    assert torch.equal(now["layers.0.grid_low"], state["layers.0.grid_low"])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lm_ends_where_nothing_is_gained_or_free() -> None:
    model, x = network([2, 1]), uniform(50)
    history = fit_lm(model, x, model(x).detach(), progress=False)
    assert history.stopped_by == "tolerance"
    assert len(history) == 1
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert fit_lm(model, x, target(x), progress=False).stopped_by == "tolerance"
    assert fit_lm(network([2, 2, 1]), x, target(x), max_steps=2, progress=False).stopped_by == "max_steps"


def test_lm_refuses_what_it_cannot_solve() -> None:
    model = network([60, 30, 1])
    with pytest.raises(ValueError, match=r"at most, the model has 12,810; fit_lbfgs takes any number"):
        fit_lm(model, uniform(20, 60), uniform(20, 1), progress=False)


def test_lm_in_float32() -> None:
    model, x = network([2, 1, 1], dtype=torch.float32), uniform(400).float()
    fit_lm(model, x, target(x), grids=(3, 6, 12), progress=False, max_steps=30)
    assert rmse(model, x, target(x)) < 1e-3


# ----------------------------------------------------------------------------------------------------------- fit_lbfgs


@pytest.mark.parametrize("seed", [0, 3])  # without the warm-up both are stuck at 0.5
def test_lbfgs_climbs_the_ladder(seed: int) -> None:
    x, x_test = uniform(400), uniform(500, seed=1)
    model = network([2, 1, 1], seed=seed, grid_size=5)
    history = fit_lbfgs(model, x, target(x), grids=(3, 6, 12), steps=80, progress=False)

    assert rmse(model, x_test, target(x_test)) < 5e-3
    assert history.restored is not None
    assert min(history.loss) == history.loss[history.restored] == pytest.approx(rmse(model, x, target(x)) ** 2)
    assert sorted(set(history.grid_size)) == [3, 5, 6, 12]
    assert history.step == sorted(history.step)
    assert history.step[-1] <= 100 + 3 * 80
    assert all(layer.grid_size == 12 for layer in layers_of(model))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("widths", "bound"), [([2, 1, 1], 1e-5), ([2, 5, 1], 5e-4)])  # seen: up to 5e-6 and 2.5e-4
def test_lbfgs_by_default_reaches_the_accuracy_that_the_lesson_shows(widths: list[int], bound: float) -> None:
    x, x_test = uniform(1000), uniform(1000, seed=1)
    model = network(widths, grid_size=5)
    fit_lbfgs(model, x, target(x), progress=False)

    assert rmse(model, x_test, target(x_test)) < bound


def test_lbfgs_draws_nothing_and_prints_nothing_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    before, x = torch.random.get_rng_state(), uniform(100)
    options: dict[str, Any] = {"grids": (3,), "steps": 30, "warmup": 5}
    models = [network([2, 1, 1]) for _ in range(2)]
    first = fit_lbfgs(models[0], x, target(x), progress=False, **options)
    assert capsys.readouterr() == ("", "")
    second = fit_lbfgs(models[1], x, target(x), val=(x, target(x)), **options)

    shown = capsys.readouterr()
    assert "step" in shown.out
    assert shown.err == ""
    assert second.loss == second.val_loss
    # Not to the last bit: sums of a different order now and then, whose differences L-BFGS makes larger.
    assert first.loss == pytest.approx(second.loss, rel=1e-6)
    assert torch.equal(torch.random.get_rng_state(), before)
    fit_lm(models[0], x, target(x), max_steps=1)
    assert "step" in capsys.readouterr().out


@pytest.mark.parametrize("fit", [fit_lbfgs, fit_lm])
def test_without_grids_they_stay(fit: Callable[..., KANHistory]) -> None:
    model, x = network([2, 2, 1]), uniform(100, reach=2.0)
    state, before = state_of(model), rmse(model, x, target(x))
    fit(model, x, target(x), grids=None, tolerance=0.1, progress=False)

    assert rmse(model, x, target(x)) < 0.5 * before
    for name in ("layers.0.grid_low", "layers.0.grid_step", "layers.1.grid_low", "layers.1.grid_step"):
        assert torch.equal(model.state_dict()[name], state[name])


@pytest.mark.parametrize("fit", [functools.partial(fit_lbfgs, steps=100), functools.partial(fit_lm, max_steps=40)])
def test_the_best_on_validation_data_is_what_remains(fit: Callable[..., KANHistory]) -> None:
    x, x_val = uniform(60), uniform(200, seed=5)
    noise = torch.randn(60, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, y_val = target(x) + 0.3 * noise, target(x_val)
    model = network([2, 3, 1])
    history = fit(model, x, y, val=(x_val, y_val), grids=(3, 24), progress=False)

    assert history.restored is not None
    assert history.val_loss[history.restored] == min(history.val_loss) < history.val_loss[-1]
    assert rmse(model, x_val, y_val) ** 2 == pytest.approx(min(history.val_loss))
    assert len(history.val_loss) == len(history.loss) == len(history.step) == len(history.grid_size) == len(history)
    assert layers_of(model)[0].grid_size == history.grid_size[history.restored]


def test_a_trained_network_is_never_left_worse() -> None:
    model, x = network([2, 1, 1]), uniform(300)
    fit_lm(model, x, target(x), grids=(3, 6, 12, 24), progress=False)
    state, before = state_of(model), rmse(model, x, target(x))
    history = fit_lbfgs(model, x, target(x), grids=(3,), steps=20, progress=False)

    assert history.restored == 0
    assert history.grid_size[0] == 24
    assert_same_state(model, state)
    assert rmse(model, x, target(x)) == before


def test_a_warm_up_that_helps_nothing_is_taken_back() -> None:
    model, x = network([2, 1, 1]), uniform(300)
    fit_lm(model, x, target(x), grids=(3, 6, 12, 24), progress=False)
    before = rmse(model, x, target(x))
    history = fit_lbfgs(model, x, target(x), grids=(24,), steps=10, warmup=10, progress=False)
    after_warmup = [loss for step, loss in zip(history.step, history.loss, strict=True) if step == 10]

    assert after_warmup[0] > before**2  # what Adam made of it
    assert after_warmup[-1] == pytest.approx(before**2, rel=0.5)  # where L-BFGS began


@pytest.mark.parametrize("interrupted", [False, True])
def test_interrupts_and_persistent_nan_leave_the_best(interrupted: bool) -> None:
    model, x, calls = network([2, 1, 1]), uniform(100), 0

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 60 and interrupted:
            raise KeyboardInterrupt
        return F.mse_loss(outputs, targets) * (math.nan if calls > 60 else 1.0)

    history = fit_lbfgs(model, x, target(x), grids=(3, 6), loss_fn=loss_fn, warmup=0, progress=False)
    finite = [loss for loss in history.loss if math.isfinite(loss)]

    assert str(history.stopped_by).startswith("interrupted" if interrupted else "non-finite loss at step ")
    assert len(finite) > 2
    assert rmse(model, x, target(x)) ** 2 == pytest.approx(min(finite))
    assert history.restored is not None
    assert history.loss[history.restored] == min(finite) < finite[0]


@pytest.mark.parametrize("warmup", [0, 30])
def test_a_loss_with_holes_is_minimized_around_them(warmup: int) -> None:
    model, x = network([2, 1, 1]), uniform(100)
    limit = float(model(x).detach().abs().max()) + 0.02  # a step of ordinary length runs into it

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        hole = outputs.detach().abs().max() > limit
        return F.mse_loss(outputs, targets) + (math.nan if bool(hole) else 0.0)

    options: dict[str, Any] = {"grids": None, "loss_fn": loss_fn, "warmup": warmup, "progress": False}
    history = fit_lbfgs(model, x, target(x), **options)

    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert min(loss for loss in history.loss if math.isfinite(loss)) < 0.999 * history.loss[0]
    assert float(model(x).detach().abs().max()) <= limit


def test_a_loss_that_is_not_finite_from_the_start_changes_nothing() -> None:
    model, x = network([2, 1, 1]), uniform(100)
    with torch.no_grad():
        layers_of(model)[0].coefficients[0, 0, 0] = math.nan
    state = layers_of(model)[1].coefficients.detach().clone()
    for fit in (fit_lbfgs, fit_lm):
        history = fit(model, x, target(x), grids=(3, 6), progress=False)
        assert history.stopped_by == "non-finite loss at step 0"
        assert history.restored is None
        assert torch.equal(layers_of(model)[1].coefficients, state)


def test_a_penalty_is_added_and_recorded_apart() -> None:
    x = uniform(200)

    def penalty(model: Any, inputs: Tensor) -> Tensor:
        assert inputs is x
        return 0.1 * torch.stack([layer.coefficients.square().sum() for layer in layers_of(model)]).sum()

    plain, small = network([2, 2, 1]), network([2, 2, 1])
    fit_lbfgs(plain, x, target(x), grids=(3,), steps=60, progress=False)
    history = fit_lbfgs(small, x, target(x), grids=(3,), steps=60, penalty=penalty, progress=False)

    assert history.restored is not None
    totals = [loss + more for loss, more in zip(history.loss, history.penalty, strict=True)]
    assert totals[history.restored] == min(totals)
    assert history.loss[history.restored] == pytest.approx(rmse(small, x, target(x)) ** 2)
    with torch.no_grad():
        assert history.penalty[history.restored] == pytest.approx(float(penalty(small, x)))
        assert float(penalty(small, x)) < 0.5 * float(penalty(plain, x))


def test_the_penalty_takes_part_in_every_step() -> None:
    model, x = network([2, 1]), uniform(200)

    def penalty(model: KANBase, inputs: Tensor) -> Tensor:
        return 0.1 * torch.stack([parameter.square().sum() for parameter in model.parameters()]).sum()

    fit_lbfgs(model, x, target(x), grids=None, tolerance=1e-9, penalty=penalty, progress=False)
    (F.mse_loss(model(x), target(x)) + penalty(model, x)).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 1e-4


def test_a_stage_begins_with_grids_over_the_data() -> None:
    model, x = network([2, 1]), uniform(200, reach=5.0)
    fit_lbfgs(model, x, x[:, :1].sin(), grids=(3,), steps=5, warmup=0, progress=False)
    low, high = layers_of(model)[0].grid_low, layers_of(model)[0].grid_low + 3 * layers_of(model)[0].grid_step

    span = x.max(dim=0).values - x.min(dim=0).values
    torch.testing.assert_close(high - low, 1.02 * span)


def test_lbfgs_classifies_and_leaves_removed_edges() -> None:
    model, x = network([2, 3]), uniform(300)
    y = (x[:, 0] > 0).long() + (x[:, 1] > x[:, 0]).long()
    layers_of(model)[0].edge_mask[2, 0] = 0
    before = layers_of(model)[0].coefficients[2, :, 0].detach().clone()
    history = fit_lbfgs(model, x, y, loss_fn=F.cross_entropy, grids=None, steps=60, progress=False)

    assert float((model(x).argmax(dim=1) == y).double().mean()) > 0.85
    assert min(history.loss) == pytest.approx(float(F.cross_entropy(model(x), y).detach()))
    assert torch.equal(layers_of(model)[0].coefficients[2, :, 0].detach(), before)
    with pytest.raises(ValueError, match="y must have length 300 like the inputs, got 299"):
        fit_lbfgs(model, x, y[1:], loss_fn=F.cross_entropy, progress=False)


X, Y = uniform(20), uniform(20, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X, Y[:, 0]), {}, ValueError, r"y must have shape \(20, 1\), got \(20,\)"),
        ((X, Y[1:]), {}, ValueError, r"y must have shape \(20, 1\), got \(19, 1\)"),
        ((X, X), {}, ValueError, r"y must have shape \(20, 1\), got \(20, 2\)"),
        ((Y, Y), {}, ValueError, r"x must have shape \(n, 2\), got \(20, 1\)"),
        ((bad(X, math.nan), Y), {}, ValueError, "x must be finite, got nan in row 3, column 1"),
        ((X, Y / 0), {}, ValueError, "y must be finite, got -?inf"),
        ((X.float(), Y), {}, TypeError, "x must be torch.float64 like the model's parameters, got torch.float32"),
        ((X, Y.float()), {}, TypeError, "y must be torch.float64 like the inputs, got torch.float32"),
        ((X, Y), {"grids": (3, 20)}, ValueError, "a grid of 20 intervals needs at least 21 samples, got 20"),
        ((X, Y), {"grids": (6, 3)}, ValueError, r"each larger than the one before, got \[6, 3\]"),
        ((X, Y), {"grids": (3, 3)}, ValueError, r"each larger than the one before, got \[3, 3\]"),
        ((X, Y), {"grids": ()}, ValueError, "grids must be at least one size"),
        ((X, Y), {"grids": (0, 3)}, ValueError, r"grids\[0\] must be at least 1, got 0"),
        ((X, Y), {"val": (X[:, :1], Y)}, ValueError, r"val's x must have shape \(n, 2\), got \(20, 1\)"),
        ((X, Y), {"val": (X, Y[:, 0])}, ValueError, r"val's y must have shape \(20, 1\), got \(20,\)"),
        ((X, Y), {"tolerance": -1.0}, ValueError, "tolerance must be in"),
        ((X, Y), {"warmup": -1}, ValueError, "warmup must be at least 0, got -1"),
    ],
)
@pytest.mark.parametrize("fit", [fit_lbfgs, fit_lm])
def test_fit_errors(
    fit: Callable[..., KANHistory], arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    model = network([2, 1, 1])
    state = state_of(model)
    with pytest.raises(error, match=message):
        fit(model, *arguments, **({"grids": None, "progress": False} | options))
    assert_same_state(model, state)


def test_numbers_of_steps_are_checked() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        fit_lbfgs(network([2, 1]), X, Y, grids=None, steps=0)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        fit_lm(network([2, 1]), X, Y, max_steps=0)
