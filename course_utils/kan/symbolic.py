"""From edges to functions: name them, and refit their constants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_utils._validation import check_in_range, check_non_negative
from course_utils.kan.fitting import KANHistory, fit_lm
from course_utils.kan.layer import KANLayer
from course_utils.kan.library import FUNCTIONS, Function, SymbolicEdge, fit_function
from course_utils.kan.network import KANBase, layers_of

__all__ = [
    "EdgeReport",
    "Suggestion",
    "SymbolicReport",
    "auto_symbolic",
    "fix_symbolic",
    "suggest_symbolic",
]

_Place = tuple[int, int, int]  # layer, output, input


@dataclass(frozen=True)
class Suggestion:
    """A function for an edge.

    Attributes:
        function: f.
        r2: share of the variance of the edge's values that c·f(a·x + b) + d explains.
        affine: a, b, c, d.
    """

    function: Function
    r2: float
    affine: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.name

    @property
    def complexity(self) -> float:
        """Complexity of the function."""
        return self.function.complexity

    def __str__(self) -> str:
        a, b, c, d = self.affine
        name = f"{self.name:<8} complexity {self.complexity:<3g} 1 − R² = {1 - self.r2:.1e}"
        return f"{name}   {c:.4g}·f({a:.4g}·x {b:+.4g}) {d:+.4g}"


@torch.no_grad()
def suggest_symbolic(
    model: KANBase,
    x: Tensor,
    layer: int,
    i: int,
    j: int,
    *,
    library: Collection[Function] | None = None,
    tolerance: float = 5e-5,
) -> list[Suggestion]:
    """Return which functions the edge looks like on the samples, the best first.

    First come those whose R² is within ``tolerance`` of the highest, the simplest in front, then the others by R².

    Args:
        model: the network.
        x: (batch, widths[0]), finite; the edge is looked at where these samples reach it.
        layer: which layer, from 0 on.
        i: the edge's output node.
        j: its input node.
        library: the functions to try; by default all of `library.FUNCTIONS`.
        tolerance: how much of R² simplicity is worth, at least 0.

    Raises:
        IndexError: there is no such edge.
        ValueError: the edge was removed, a number in ``x`` or in the edge's values is not finite, or no function of the
            library has finite values there.
    """
    check_non_negative(tolerance, "tolerance")
    _check_x(model, x)
    kan_layer = _edge_layer(model, layer, i, j)
    inputs = model.activations(x)[layer]
    suggestions = _fit(inputs[:, j], kan_layer.edge_functions(inputs)[:, i, j], (layer, i, j), library)
    return _ranked(suggestions, tolerance)


@torch.no_grad()
def fix_symbolic(
    model: KANBase,
    x: Tensor,
    layer: int,
    i: int,
    j: int,
    function: str | Function,
    *,
    affine: Sequence[float] | None = None,
) -> Suggestion:
    """Replace an edge by c·f(a·x + b) + d, in place, with the constants nearest to what it was.

    Its spline is masked from then on; the constants are parameters, which the next fit adapts.

    Args:
        model: the network.
        x: (batch, widths[0]), finite.
        layer: which layer, from 0 on.
        i: the edge's output node.
        j: its input node.
        function: a name in `library.FUNCTIONS`, or a function of your own.
        affine: a, b, c, d, if they are known.

    Returns:
        The function with its constants and R².

    Raises:
        IndexError: there is no such edge.
        ValueError: there is no function of this name, or see `suggest_symbolic`.
    """
    _check_x(model, x)
    chosen = SymbolicEdge(function).function  # also checks the name
    kan_layer = _edge_layer(model, layer, i, j)
    inputs = model.activations(x)[layer]
    values = kan_layer.edge_functions(inputs)[:, i, j]
    if affine is None:
        suggestion = _fit(inputs[:, j], values, (layer, i, j), [chosen])[0]
    else:
        edge = SymbolicEdge(chosen, affine, dtype=torch.float64)
        a, b, c, d = edge.affine.tolist()
        suggestion = Suggestion(chosen, _r2(edge(inputs[:, j].double().cpu()), values.double().cpu()), (a, b, c, d))
    _set(kan_layer, i, j, suggestion)
    return suggestion


@dataclass(frozen=True)
class EdgeReport:
    """What `auto_symbolic` found for an edge.

    Attributes:
        layer: which layer, from 0 on.
        i: the edge's output node.
        j: its input node.
        suggestions: all functions, the best first.
        fixed: whether the edge is now the first of them; if not, none was good enough.
    """

    layer: int
    i: int
    j: int
    suggestions: tuple[Suggestion, ...]
    fixed: bool


@dataclass(frozen=True)
class SymbolicReport:
    """What `auto_symbolic` did; ``print`` it.

    Attributes:
        edges: every edge that was a spline before.
        history: of the refit of all constants; None without targets.
    """

    edges: tuple[EdgeReport, ...]
    history: KANHistory | None

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error on the given targets in the end; None without targets."""
        return None if self.history is None else min(self.history.loss) ** 0.5

    def __str__(self) -> str:
        lines = [f"{sum(edge.fixed for edge in self.edges)} of {len(self.edges)} edges got a function"]
        for edge in self.edges:
            best, *others = edge.suggestions
            other = f" (next: {others[0].name}, 1 − R² = {1 - others[0].r2:.1e})" if others else ""
            what = f"{best.name}, 1 − R² = {1 - best.r2:.1e}"
            kept = "" if edge.fixed else "still a spline; nearest: "
            lines.append(f"  layer {edge.layer}, edge ({edge.i}, {edge.j}): {kept}{what}{other}")
        if self.rmse is not None:
            lines.append(f"RMSE after the refit: {self.rmse:.3g}")
        return "\n".join(lines)


def auto_symbolic(
    model: KANBase,
    x: Tensor,
    y: Tensor | None = None,
    *,
    library: Collection[Function] | None = None,
    tolerance: float = 5e-5,
    min_r2: float = 0.99,
    max_steps: int = 200,
    progress: bool = False,
) -> SymbolicReport:
    """Replace every spline by the simplest function that fits it, in place; then refit all constants together.

    Edges that were removed or already have a function are left alone. It works best on a network that was made sparse
    and pruned before; `kan.find_formula` does all of it and tries more than one way::

        fit_lbfgs(model, x, y, grids=(3,), steps=100, penalty=lambda model, x: 0.03 * sparsity_penalty(model, x))
        prune(model, x)
        fit_lm(model, x, y, grids=(3, 6, 12), max_steps=15)
        print(auto_symbolic(model, x, y), symbolic_formula(model, digits=4))

    Args:
        model: the network.
        x: (batch, widths[0]), finite.
        y: (batch, widths[-1]), the targets of the refit; None leaves it out.
        library: the functions to try; by default all of `library.FUNCTIONS`.
        tolerance: how much of R² simplicity is worth, at least 0.
        min_r2: an edge that no function explains to this share stays a spline; in [0, 1].
        max_steps: of the refit by `fit_lm`, at most.
        progress: whether to show the refit's progress.

    Raises:
        TypeError, ValueError: an argument is out of range; see `suggest_symbolic` and `fit_lm`.
    """
    check_in_range(min_r2, "min_r2", 0.0, 1.0, closed="[]")
    check_non_negative(tolerance, "tolerance")
    edges = _replace(model, _fits(model, x, library), tolerance, min_r2)
    history = None
    if y is not None:
        history = fit_lm(model, x, y, max_steps=max_steps, tolerance=1e-9, progress=progress)
    return SymbolicReport(edges, history)


def _check_x(model: KANBase, x: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] != model.widths[0] or len(x) < 2:
        raise ValueError(f"x must have shape (batch, {model.widths[0]}) with batch >= 2, got {tuple(x.shape)}")
    finite = x.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(f"x must be finite, got {x[row, column].item()} in row {row}, column {column}")


def _edge_layer(model: KANBase, layer: int, i: int, j: int) -> KANLayer:
    """Return the layer of an edge that has not been removed, or raise."""
    layers = layers_of(model)
    if not 0 <= layer < len(layers):
        raise IndexError(f"layer must be in [0, {len(layers)}), got {layer}")
    chosen = layers[layer]
    if not (0 <= i < chosen.out_features and 0 <= j < chosen.in_features):
        shape = f"{chosen.out_features} outputs and {chosen.in_features} inputs"
        raise IndexError(f"layer {layer} has {shape}, there is no edge ({i}, {j})")
    if not bool(chosen.active_edges[i, j]):
        raise ValueError(f"edge ({i}, {j}) of layer {layer} was removed, so it has no values to fit")
    return chosen


@torch.no_grad()
def _fits(model: KANBase, x: Tensor, library: Collection[Function] | None) -> dict[_Place, list[Suggestion]]:
    """Fit every function to every spline."""
    _check_x(model, x)
    found = {}
    for number, (layer, inputs) in enumerate(zip(layers_of(model), model.activations(x), strict=False)):
        values = layer.edge_functions(inputs)
        for i, j in (layer.edge_mask != 0).nonzero().tolist():
            found[number, i, j] = _fit(inputs[:, j], values[:, i, j], (number, i, j), library)
    return found


def _replace(
    model: KANBase, fits: dict[_Place, list[Suggestion]], tolerance: float, min_r2: float
) -> tuple[EdgeReport, ...]:
    """Replace every spline by the best of the functions fitted to it, if that is good enough."""
    edges = []
    for (number, i, j), suggestions in fits.items():
        ranked = _ranked(suggestions, tolerance)
        edges.append(EdgeReport(number, i, j, tuple(ranked), ranked[0].r2 >= min_r2))
        if edges[-1].fixed:
            _set(layers_of(model)[number], i, j, ranked[0])
    return tuple(edges)


def _fit(inputs: Tensor, values: Tensor, place: _Place, library: Collection[Function] | None) -> list[Suggestion]:
    functions = list(FUNCTIONS.values() if library is None else library)
    if not bool(values.isfinite().all()):
        layer, i, j = place
        raise ValueError(f"the values of edge ({i}, {j}) in layer {layer} are not finite on these samples")
    found = []
    for function in functions:
        affine, r2 = fit_function(function, inputs, values)
        if r2 > -float("inf"):
            found.append(Suggestion(function, r2, affine))
    if not found:
        raise ValueError(f"no function of {[function.name for function in functions]} is finite on the edge's inputs")
    return found


def _ranked(suggestions: list[Suggestion], tolerance: float) -> list[Suggestion]:
    limit = max(suggestion.r2 for suggestion in suggestions) - tolerance
    return sorted(suggestions, key=lambda s: (0, s.complexity, -s.r2) if s.r2 >= limit else (1, -s.r2, s.complexity))


def _r2(fitted: Tensor, values: Tensor) -> float:
    total = float((values - values.mean()).square().sum())
    return 1 - float((values - fitted).square().sum()) / total if total > 0 else float(torch.equal(fitted, values))


def _set(layer: KANLayer, i: int, j: int, suggestion: Suggestion) -> None:
    edge = SymbolicEdge(suggestion.function, suggestion.affine, dtype=layer.coefficients.dtype)
    layer.symbolic_edges[f"{i},{j}"] = edge.to(layer.coefficients.device)
    layer.edge_mask[i, j] = 0
