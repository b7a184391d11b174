"""Write a network of known functions down as a formula."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import torch

from course_utils._validation import check_int
from course_utils.kan.library import load_sympy
from course_utils.kan.network import KANBase, layers_of

__all__ = ["symbolic_formula"]


def symbolic_formula(model: KANBase, *, names: Sequence[Any] | None = None, digits: int | None = None) -> Any:
    """Return the network as a sympy expression, or as a list of them if it has several outputs.

    Without ``digits`` the expression equals the model in exact arithmetic, and ``sympy.lambdify`` of it gives the
    model's values to rounding. With ``digits`` it is for reading.

    Args:
        model: the network, every edge with a path to an output being a known function.
        names: of the inputs, texts or sympy symbols; by default x1, x2, …
        digits: round to so many significant digits, at least 1, and leave out of every sum what is smaller than its
            largest number by more than that.

    Raises:
        TypeError: ``digits`` is not an integer.
        ValueError: edges are still splines (the message lists them), or there is not one name an input.
    """
    sympy = load_sympy()
    if digits is not None:
        check_int(digits, "digits", minimum=1)
    names = [f"x{number}" for number in range(1, model.widths[0] + 1)] if names is None else list(names)
    if len(names) != model.widths[0]:
        raise ValueError(f"names must be {model.widths[0]}, one an input, got {len(names)}: {names}")
    splines = _splines_in_use(model)
    if splines:
        listed = ", ".join(f"layer {number} ({i}, {j})" for number, i, j in splines)
        raise ValueError(f"these edges (output, input) are still splines: {listed}; see auto_symbolic and fix_symbolic")
    nodes = [sympy.Symbol(name) if isinstance(name, str) else name for name in names]
    for layer in layers_of(model):
        sums = [sympy.Integer(0)] * layer.out_features
        for (i, j), edge in layer.known_functions.items():
            sums[i] += edge.expression(nodes[j])
        nodes = sums
    if digits is not None:
        nodes = [_rounded(_without_small(node, digits), digits) for node in nodes]
    nodes = [_with_integers(node) for node in nodes]
    return nodes[0] if len(nodes) == 1 else nodes


def _splines_in_use(model: KANBase) -> list[tuple[int, int, int]]:
    """Return (layer, output, input) of the splines from which a path of edges leads to an output."""
    found = []
    needed = torch.ones(model.widths[-1], dtype=torch.bool)
    for number, layer in reversed(list(enumerate(layers_of(model)))):
        splines = (layer.edge_mask != 0).cpu() & needed[:, None]
        found += [(number, i, j) for i, j in splines.nonzero().tolist()]
        needed = (layer.active_edges.cpu() & needed[:, None]).any(dim=0)
    return sorted(found)


def _without_small(expression: Any, digits: int) -> Any:
    """Leave out of every sum the terms whose number is below 10^−digits of the largest."""
    if not expression.args:
        return expression
    arguments = [_without_small(argument, digits) for argument in expression.args]
    if expression.is_Add:
        sizes = [abs(argument.as_coeff_Mul()[0]) for argument in arguments]
        limit = max(sizes) / 10**digits
        arguments = [argument for argument, size in zip(arguments, sizes, strict=True) if size >= limit]
    return expression.func(*arguments)


def _rounded(expression: Any, digits: int) -> Any:
    sympy = load_sympy()
    # Rounded as a decimal: as a binary number of few bits 0.99996 would stay below 1.
    rounded = {n: f"{Decimal(str(n)):.{digits - 1}e}" for n in expression.atoms(sympy.Float)}
    return expression.xreplace({n: sympy.Float(text, digits) for n, text in rounded.items()})


def _with_integers(expression: Any) -> Any:
    """Write 2.000 as 2 where it is exactly that."""
    sympy = load_sympy()
    numbers = expression.atoms(sympy.Float)
    return expression.xreplace(
        {n: sympy.Integer(int(float(n))) for n in numbers if abs(n) < 1e6 and float(n).is_integer()}
    )
