"""The parts of a KAN in plain form, and the mistakes students make in them; for `homework.kan_laboratory`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils.homework.engine.judge import Mistake
from course_utils.kan import b_spline_basis

__all__ = [
    "PlainLayer",
    "basis_mistakes",
    "importance",
    "importance_mistakes",
    "layer_mistakes",
    "prune",
    "prune_mistakes",
    "refine_mistakes",
]

_Array = NDArray[np.float64]


# ------------------------------------------------------------------------------------------------------- B-splines


def _recursion(**twist: Any) -> Callable[..., _Array]:
    """Return Cox and de Boor's recursion with one thing done otherwise."""

    def basis(x: _Array, knots: _Array, degree: int) -> _Array:
        x = x[:, None]
        left = x > knots[:-1] if twist.get("open") else x >= knots[:-1]
        right = x <= knots[1:] if twist.get("closed") else x < knots[1:]
        values: _Array = (left & right).astype(float)
        for k in range(1, degree + 1):
            with np.errstate(all="ignore"):  # 0/0 is one of the mistakes
                values = _next(values, x, knots, k, twist)
        return values

    return basis


def _next(values: _Array, x: _Array, knots: _Array, k: int, twist: dict[str, Any]) -> _Array:
    rising, falling = x - knots[: -k - 1], knots[k + 1 :] - x
    if twist.get("rises"):
        falling = x - knots[k + 1 :]
    spans, next_spans = knots[k:-1] - knots[: -k - 1], knots[k + 1 :] - knots[1:-k]
    if twist.get("one_span"):
        next_spans = spans
    if twist.get("uniform"):
        spans = next_spans = np.full_like(spans, k * (knots[-1] - knots[0]) / (len(knots) - 1))
    if twist.get("too_long"):
        spans = next_spans = knots[k + 1 :] - knots[: -k - 1]
    first, second = values[:, :-1], values[:, :-1] if twist.get("same") else values[:, 1:]
    if twist.get("zero") == "nan":
        left, right = rising / spans, falling / next_spans
    else:
        floor = 1.0 if twist.get("zero") == "one" else np.inf
        left = rising / np.where(spans > 0, spans, floor)
        right = falling / np.where(next_spans > 0, next_spans, floor)
    if twist.get("exchanged"):
        left, right = right, left
    if twist.get("no_spans"):
        left, right = rising, falling
    total: _Array = left * first + (0.0 if twist.get("one_term") else right * second)
    return total


def basis_mistakes() -> list[Mistake]:
    """Return the mistakes in the recursion."""
    return [
        Mistake("a knot belongs to two intervals: let each hold its left end only", _recursion(closed=True)),
        Mistake("a knot belongs to no interval or to the left one: let each hold its left end", _recursion(open=True)),
        Mistake("a knot belongs to the interval on its right: hold the left end", _recursion(open=True, closed=True)),
        Mistake("where knots coincide you divide 0 by 0: such a term counts as 0", _recursion(zero="nan")),
        Mistake("the second term is missing", _recursion(one_term=True)),
        Mistake("the second weight must fall to 0 at the far end: mind its sign", _recursion(rises=True)),
        Mistake("both terms divide by the same span: each spline has a support of its own", _recursion(one_span=True)),
        Mistake("both terms use the spline j: the second is that of j + 1", _recursion(same=True)),
        Mistake("you take the knots as equally spaced", _recursion(uniform=True)),
        Mistake("the spans are one interval too long", _recursion(too_long=True)),
        Mistake("the two weights are exchanged", _recursion(exchanged=True)),
        Mistake("the weights are not divided by the spans", _recursion(no_spans=True)),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- layer


class PlainLayer(nn.Module):
    """Σ_j w_ij·silu(x_j) + Σ_b c_ibj·B_b(x_j) with grids from −1 to 1, and ``mistake`` done otherwise."""

    mistake = ""

    def __init__(self, in_features: int, out_features: int, grid_size: int, degree: int) -> None:
        super().__init__()
        self.grid_size, self.degree = grid_size, degree
        self.coefficients = nn.Parameter(torch.zeros(out_features, grid_size + degree, in_features))
        self.base_weight = nn.Parameter(torch.zeros(out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_features)."""
        how, size = self.mistake, self.grid_size
        s = {
            "raw": x,
            "not shifted": x * size / 2,
            "too wide": (x + 1) * size,
            "all splines": (x + 1) * (size + self.degree) / 2,
        }.get(how, (x + 1) * size / 2)
        s = s.clamp(0, size) if how == "clamped" else s
        basis = b_spline_basis(s, size, self.degree)
        splines = torch.einsum("nbj,ibj->ni", basis, self.coefficients)
        bases: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": F.relu,
            "sigmoid": torch.sigmoid,
            "identity": lambda x: x,
        }
        base = bases.get(how, F.silu)(x)
        output = F.linear(base, self.base_weight)
        if how == "base late":
            output = F.silu(F.linear(x, self.base_weight))
        if how == "unweighted":
            output = base.sum(dim=1, keepdim=True)
        output = splines if how == "no base" else output if how == "no splines" else splines + output
        if how == "mean":
            output = output / x.shape[1]
        return F.silu(output) if how == "activation" else output


def _layer(says: str, name: str) -> Mistake:
    return Mistake(says, type("MistakenLayer", (PlainLayer,), {"mistake": name}))


def layer_mistakes() -> list[Mistake]:
    """Return the mistakes in the layer, as classes."""
    return [
        _layer("the base is missing", "no base"),
        _layer("the splines are missing", "no splines"),
        _layer("`b_spline_basis` counts in grid intervals from the left end: you give it x itself", "raw"),
        _layer("the grid begins at −1: before you scale, shift", "not shifted"),
        _layer("the grid from −1 to 1 is 2 long, so an interval is 2 / grid_size", "too wide"),
        _layer("the grid has grid_size intervals, fewer than splines", "all splines"),
        _layer("outside the grid the splines go on as lines; you cut the input off", "clamped"),
        _layer("the base is relu; silu is asked for", "relu"),
        _layer("the base is the sigmoid; silu is x times that", "sigmoid"),
        _layer("the base is linear; silu is asked for", "identity"),
        _layer("silu acts on the inputs, before they are weighted and added up", "base late"),
        _layer("`base_weight` is not used", "unweighted"),
        _layer("you average over the inputs; a node adds up", "mean"),
        _layer("a node only adds: there is no activation behind the sum", "activation"),
    ]


# ------------------------------------------------------------------------------------------------------ refinement


def refine_mistakes() -> list[Mistake]:
    """Return the mistakes in the refinement of a grid."""

    def stretched(coefficients: Tensor, grid_size: int, factor: int, degree: int) -> Tensor:
        rows = coefficients.transpose(1, 2)
        size = grid_size * factor + degree
        return F.interpolate(rows, size=size, mode="linear", align_corners=True).transpose(1, 2)

    def repeated(coefficients: Tensor, grid_size: int, factor: int, degree: int) -> Tensor:
        return coefficients.repeat_interleave(factor, dim=1)[:, : grid_size * factor + degree]

    def padded(coefficients: Tensor, grid_size: int, factor: int, degree: int) -> Tensor:
        return F.pad(coefficients, (0, 0, 0, grid_size * (factor - 1)))

    return [
        Mistake("you stretch the coefficients; the function must stay, and a coefficient is not its value", stretched),
        Mistake("you repeat the coefficients; the function must stay, and a coefficient is not its value", repeated),
        Mistake("the new splines have coefficient 0: the function must stay the same", padded),
    ]


# ------------------------------------------------------------------------------------------------------ importance


def _scores(**twist: Any) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
    """Return the scores of edges from their values, with one thing done otherwise."""

    def scores(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        node = torch.ones(values[-1].shape[1], dtype=values[-1].dtype)
        for phi in reversed(values):
            spread = phi.abs().mean(dim=0) if twist.get("size") else phi.std(dim=0, correction=0)
            spread = spread.square() if twist.get("square") else spread
            largest = spread.amax(dim=twist.get("along", 1), keepdim=True)
            largest = spread.sum(dim=1, keepdim=True) if twist.get("share") else largest
            largest = spread.max() if twist.get("layer") else largest
            ratio = spread / (largest if twist.get("nan") else torch.where(largest > 0, largest, 1.0))
            ratio = spread if twist.get("raw") else ratio
            found.insert(0, ratio if twist.get("alone") else node[:, None] * ratio)
            node = found[0].sum(dim=0) if twist.get("sum") else found[0].amax(dim=0)
            node = found[0].mean(dim=0) if twist.get("mean") else node
        return tuple(found[::-1] if twist.get("backwards") else found)

    return scores


importance = _scores()


def importance_mistakes() -> list[Mistake]:
    """Return the mistakes in the scores."""
    return [
        Mistake("you score the size of φ: a constant is large and does nothing, its spread counts", _scores(size=True)),
        Mistake("you take the variance; the spread is its root", _scores(square=True)),
        Mistake("the unit is the largest edge into the same node; you take the largest out of one", _scores(along=0)),
        Mistake("the unit is the largest edge into the same node; you take the sum of them", _scores(share=True)),
        Mistake("the unit is the largest edge into the same node; you take the layer's", _scores(layer=True)),
        Mistake("a node without any spread divides 0 by 0: its edges score 0", _scores(nan=True)),
        Mistake("the spreads are not divided by the largest into the same node", _scores(raw=True)),
        Mistake("each layer is scored alone: the score of the node an edge enters counts too", _scores(alone=True)),
        Mistake("a node's score is the largest of its outgoing edges, not their sum", _scores(sum=True)),
        Mistake("a node's score is the largest of its outgoing edges, not their mean", _scores(mean=True)),
        Mistake("the layers come in reverse order", _scores(backwards=True)),
    ]  # fmt: skip


def _masks(**twist: Any) -> Callable[..., tuple[Tensor, ...]]:
    """Return which edges stay, with one thing done otherwise."""

    def masks(scores: Sequence[Tensor], threshold: float) -> tuple[Tensor, ...]:
        keep = [score > threshold if twist.get("strict") else score >= threshold for score in scores]
        keep = [~mask for mask in keep] if twist.get("inverted") else keep
        for _ in range(twist.get("sweeps", len(keep))):
            for into, out in pairwise(keep):
                no_way_in, no_way_out = ~into.any(dim=1), ~out.any(dim=0)
                if not twist.get("only_out"):
                    out[:, no_way_in] = False
                if not twist.get("only_in"):
                    into[no_way_out] = False
        return tuple(keep)

    return masks


prune = _masks()


def prune_mistakes() -> list[Mistake]:
    """Return the mistakes in pruning."""
    return [
        Mistake("edges of dead hidden nodes are left: nothing comes in, or nothing goes out", _masks(sweeps=0)),
        Mistake("one sweep is not enough: what it removes can kill a node elsewhere", _masks(sweeps=1)),
        Mistake("nodes from which nothing goes out are left with what comes in", _masks(only_in=True)),
        Mistake("nodes that nothing enters are left with what goes out", _masks(only_out=True)),
        Mistake("an edge that scores exactly the threshold stays", _masks(strict=True)),
        Mistake("the masks are inverted: True means that the edge stays", _masks(inverted=True)),
    ]
