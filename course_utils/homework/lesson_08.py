"""Checks of the exercises of lesson 08: splines, and networks of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.homework._splines import (
    blend,
    boxes,
    edge_shares,
    error_slope,
    n_parameters,
    refine,
    refinement_figure,
    scale_to,
)
from course_utils.homework.engine.judge import Mistake, judge, judge_answer
from course_utils.homework.engine.verdict import Verdict
from course_utils.kan import KANLayer
from course_utils.reproducibility import make_generator

__all__ = [
    "EXERCISES", "check_best_scale", "check_blend", "check_edge_shares", "check_error_slope", "check_kan_parameters",
    "check_local_enough", "check_number_of_functions", "check_refine",
]  # fmt: skip

EXERCISES: tuple[str, ...] = (
    "8.1 How many functions",
    "8.2 How many numbers",
    "8.3 Blending neighbours",
    "8.4 How local",
    "8.5 Half the interval, the same curve",
    "8.6 How fast an error falls",
    "8.7 The constants around a function",
    "8.8 Which edges matter",
)


def check_number_of_functions(answer: Any) -> Verdict:
    """Judge the number of functions of one variable in the theorem's formula for five variables."""
    return judge_answer(
        answer,
        exercise=EXERCISES[0],
        expected=66,
        rtol=0,
        right="Eleven sums with one outer function each, and five inner functions in each sum.",
        hint="this is not it: count the edges of the network [n, 2n + 1, 1]",
        mistakes=[
            (11, "these are the outer functions alone, as the deck counts"),
            (55, "these are the inner functions alone"),
            (28, "this is the number for three variables, the lesson's example"),
            (6, "one sum is not enough: the theorem needs 2n + 1 of them"),
            (36, "each of the 2n + 1 sums has inner functions of its own, not each of n sums"),
            (60, "there are 2n + 1 sums, not 2n"),
            (72, "there are 2n + 1 sums, not 2n + 2"),
            (16, "each sum has its own inner functions: an input takes part in all the sums"),
            (17, "these are the nodes of the network; the functions sit on its edges"),
            (121, "the outer functions each take one number; there is one for each sum"),
        ],
    )


def check_kan_parameters(function: Callable[..., Any]) -> Verdict:
    """Judge ``kan_parameters(widths, grid_size, degree, base)``: the number of parameters of a KAN."""

    def each(number: Callable[[int, int, bool], int], **options: Any) -> Callable[..., int]:
        return lambda widths, g, k, base: n_parameters(widths, g, k, base, each=number(g, k, base), **options)

    def nodes(widths: list[int], g: int, k: int, base: bool) -> int:
        return sum(widths) * (g + k + base)

    return judge(
        function,
        exercise=EXERCISES[1],
        reference=n_parameters,
        cases=[([2, 5, 1], 5, 3, True), ([64, 10, 10], 3, 3, True), ([3, 4], 6, 2, False), ([1, 3, 2, 1], 7, 1, True)],
        right="The library counts the same. An MLP of the same widths would have about a tenth.",
        mistakes=[
            Mistake("the base's weight on each edge is missing", each(lambda g, k, base: g + k)),
            Mistake("count the base only if there is one", each(lambda g, k, base: g + k + 1)),
            Mistake("a grid of G intervals has G + k splines, not G", each(lambda g, k, base: g + base)),
            Mistake("a grid of G intervals has G + k splines; you took G − k", each(lambda g, k, base: g - k + base)),
            Mistake("G + k splines, not G + k + 1, and the base besides", each(lambda g, k, base: g + k + 1 + base)),
            Mistake("the nodes of a KAN only add: they have no bias", partial(n_parameters, bias=True)),
            Mistake("this is an MLP's number; on each edge of a KAN sits a function", each(lambda *_: 1, bias=True)),
            Mistake("these are the edges; each has several numbers", each(lambda *_: 1)),
            Mistake("this is the first layer alone", lambda w, *rest: n_parameters(w[:2], *rest)),
            Mistake("this is the last layer alone", lambda w, *rest: n_parameters(w[-2:], *rest)),
            Mistake("the functions sit on the edges, not in the nodes: multiply neighbouring widths", nodes),
        ],
    )


def check_blend(function: Callable[..., Any]) -> Verdict:
    """Judge ``blend(basis, x, knots, degree)``: one step of Cox and de Boor on any knots, also repeated ones."""
    generator = make_generator(83)
    cases = []
    for degree, n_repeated in ((1, 0), (2, 0), (3, 3), (2, 2)):
        inner = torch.rand(7, generator=generator, dtype=torch.float64).cumsum(0)
        low, high = inner[:1].expand(n_repeated), inner[-1:].expand(n_repeated)
        knots = torch.cat([low, inner, high])
        x = inner[0] + (inner[-1] - inner[0]) * torch.rand(9, generator=generator, dtype=torch.float64)
        basis = boxes(x, knots)
        for lower in range(1, degree):
            basis = blend(basis, x, knots, lower)
        cases.append((basis, x, knots, degree))
    return judge(
        function,
        exercise=EXERCISES[2],
        reference=blend,
        cases=cases,
        right="The same as scipy's, also where knots are repeated, as at the ends of many spline packages' grids.",
        mistakes=[
            Mistake("where knots are repeated you divide 0 by 0: such a term counts as 0", partial(blend, guard=False)),
            Mistake("a term with the denominator 0 counts as 0, not as 1", partial(blend, fill=1.0)),
            Mistake("the falling half is missing: the right neighbour belongs to it", partial(blend, falling=False)),
            Mistake("the rising half is missing: it is the left neighbour's", partial(blend, rising=False)),
            Mistake("the rising weight belongs to the left neighbour: yours are exchanged", partial(blend, swap=True)),
            Mistake("both halves use the same spline: the falling one takes j + 1", partial(blend, neighbour=0)),
            Mistake("a spline of degree k − 1 ends at t[j + k]; you took one knot too few", partial(blend, reach=1)),
            Mistake("the weights depend on x; you averaged the neighbours", partial(blend, even=True)),
        ],
    )


def check_local_enough(answer: Any) -> Verdict:
    """Judge the smallest grid on which moving one coefficient of degree 5 changes at most 10% of the curve."""
    return judge_answer(
        answer,
        exercise=EXERCISES[3],
        expected=60,
        rtol=0,
        right="A spline of degree k lives on k + 1 intervals: 6 of 60. Smoother splines are less local.",
        hint="this is not it: run the cell with your number, and compare the share with 10%",
        mistakes=[
            (40, "this is enough for a cubic; a spline of degree 5 is wider"),
            (50, "a spline of degree k spreads over more than k intervals"),
            (70, "this is more than needed: over k + 1 intervals, not k + 2"),
            (30, "you counted half of the bump: it spreads to both sides"),
            (120, "this is more than needed: the bump spreads over k + 1 intervals altogether"),
            (65, "10% of the intervals, not of the splines: the grid may be smaller"),
            (100, "small enough is the share, but a smaller grid does it as well"),
            (10, "with so few intervals one coefficient moves more than half of the curve"),
            (6, "this is the number of intervals that change; the grid has more"),
        ],
    )


def check_refine(function: Callable[..., Any]) -> Verdict:
    """Judge ``refine(coefficients)``: G + 3 coefficients of a cubic to 2G + 3 on half the interval."""
    generator = make_generator(85)
    cases = [(torch.randn(n, generator=generator, dtype=torch.float64),) for n in (8, 5, 4, 13)]

    def keep_old(c: Tensor) -> Tensor:
        found = refine(c)
        found[1::2] = c[1:-1]
        return found

    return judge(
        function,
        exercise=EXERCISES[4],
        reference=refine,
        cases=cases,
        right="The curve has not moved, and has twice the freedom.",
        figure=refinement_figure,
        mistakes=[
            Mistake("everything is half as high: the weights 1, 4, 6, 4, 1 sum to 16, and 8 divides", _divided(16)),
            Mistake("the divisor 8 is missing", _divided(1)),
            Mistake("old places keep their coefficient in yours; they mix with both neighbours: 1, 6, 1", keep_old),
            Mistake(
                "the outermost new bumps do not touch the grid: cut three on each side", partial(refine, cut=(0, 0))
            ),
            Mistake("you start one bump too early", partial(refine, cut=(2, 4))),
            Mistake("you start one bump too late", partial(refine, cut=(4, 2))),
            Mistake(
                "these are the weights of degree 2: 1, 3, 3, 1",
                partial(refine, weights=(1, 3, 3, 1), divisor=4, cut=(2, 3)),
            ),
            Mistake("between the old coefficients stand zeros, not copies", partial(refine, repeat=True)),
            Mistake("the order is reversed", lambda c: refine(c).flip(0)),
        ],
    )


def _divided(divisor: float) -> Callable[..., Any]:
    return partial(refine, divisor=divisor)


def check_error_slope(function: Callable[..., Any]) -> Verdict:
    """Judge ``error_slope(grids, errors)``: the slope on logarithmic axes, by least squares."""
    rng = np.random.default_rng(86)
    cases = []
    for grids, slope in (([4, 8, 16, 32], -4.0), ([3, 5, 10, 30, 40], -1.7), ([2, 6], -3.0), ([5, 10, 12], 0.8)):
        g = np.array(grids, dtype=float)
        cases.append((g, 0.7 * g**slope * rng.uniform(0.6, 1.6, len(g))))
    return judge(
        function,
        exercise=EXERCISES[5],
        reference=error_slope,
        cases=cases,
        right="Any logarithm will do, as long as both axes use the same.",
        mistakes=[
            Mistake(
                "both axes are logarithmic; yours are plain", partial(error_slope, log_x=np.asarray, log_y=np.asarray)
            ),
            Mistake("the grid sizes need a logarithm as well", partial(error_slope, log_x=np.asarray)),
            Mistake("the errors need a logarithm as well", partial(error_slope, log_y=np.asarray)),
            Mistake("the axes are exchanged: the error is a function of the grid", partial(error_slope, exchange=True)),
            Mistake("this is the line's height at G = 1; its slope is asked for", partial(error_slope, place=1)),
            Mistake("two different logarithms: use the same on both axes", partial(error_slope, log_y=np.log10)),
            Mistake("two different logarithms: use the same on both axes", partial(error_slope, log_x=np.log10)),
            Mistake("two different logarithms: use the same on both axes", partial(error_slope, log_x=np.log2)),
            Mistake("two different logarithms: use the same on both axes", partial(error_slope, log_y=np.log2)),
            Mistake(
                "the first and the last point alone decide in yours; use all of them",
                lambda g, e: error_slope(g[[0, -1]], e[[0, -1]]),
            ),
            Mistake(
                "this is the mean slope from point to point; fit one line to all",
                lambda g, e: float(np.mean(np.diff(np.log(e)) / np.diff(np.log(g)))),
            ),
            Mistake(
                "the sign is flipped: where the error falls the slope is negative", lambda g, e: -error_slope(g, e)
            ),
        ],
    )


def check_best_scale(function: Callable[..., Any]) -> Verdict:
    """Judge ``best_scale(f, y)``: c, d and R² of the best c·f + d in closed form."""
    generator = make_generator(87)
    cases = []
    for n, slope in ((12, -1.7), (30, 0.6), (7, 3.0)):
        f, noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
        f = f.exp() + 1
        cases.append((f, slope * f + 2.5 + noise))
    cases.append(
        (torch.full((6,), 2.0, dtype=torch.float64), cases[0][1][:6])
    )  # a function that is constant on the data
    return judge(
        function,
        exercise=EXERCISES[6],
        reference=scale_to,
        cases=cases,
        names=("c", "d", "R²"),
        right="So a search for c·f(ax + b) + d has to try only a and b; c and d follow.",
        mistakes=[
            Mistake("subtract the means first: this line goes through the origin", partial(scale_to, centred=False)),
            Mistake("you divided by the variance of y: c belongs to f", partial(scale_to, by="y")),
            Mistake(
                "the covariance divides by n − 1 and the variance by n: use one of them for both",
                partial(scale_to, ddof=1),
            ),
            Mistake("d is not the mean of y: what does c·f have for a mean?", _shift(lambda c, f, y: y.mean())),
            Mistake("d has the wrong sign", _shift(lambda c, f, y: c * f.mean() - y.mean())),
            Mistake("the mean of f has to be multiplied by c in d", _shift(lambda c, f, y: y.mean() - f.mean())),
            Mistake("this is the correlation; R² is its square", _quality(lambda r2: r2.clamp(min=0).sqrt())),
            Mistake("this is the share that is left over; R² is 1 minus it", _quality(lambda r2: 1 - r2)),
            Mistake("c and d are exchanged", _exchanged),
            Mistake("where f is constant you divide by 0: then c is 0", partial(scale_to, guard=False)),
        ],
    )


def _exchanged(f: Tensor, y: Tensor) -> tuple[float, float, float]:
    c, d, r2 = scale_to(f, y)
    return d, c, r2


def _shift(rule: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    return partial(scale_to, shift=rule)


def _quality(rule: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return partial(scale_to, quality=rule)


def check_edge_shares(function: Callable[..., Any]) -> Verdict:
    """Judge ``edge_shares(layer, x)``: each edge's spread over the data as a share of the sum over all edges."""
    generator = make_generator(88)
    cases = []
    options: tuple[dict[str, Any], ...] = ({}, {"grid_size": 3, "degree": 2, "grid_range": (-2, 3)}, {"base": None})
    for (n_in, n_out), option in zip(((3, 4), (2, 5), (4, 2)), options, strict=True):
        layer = KANLayer(n_in, n_out, init_scale=2.0, generator=generator, dtype=torch.float64, **option)
        with torch.no_grad():
            layer.coefficients[0] += 3  # far from 0, but constant: it must not count
        cases.append((layer, 2 * torch.rand(25, n_in, generator=generator, dtype=torch.float64) - 1))
    return judge(
        function,
        exercise=EXERCISES[7],
        reference=edge_shares,
        cases=cases,
        right="This is the size that the penalty of section 6 makes small, and that decides which edges are pruned.",
        mistakes=[
            Mistake(
                "an edge that adds 3 everywhere is large and says nothing about x: take the spread, not the size",
                partial(edge_shares, spread=lambda values: values.abs().mean(0)),
            ),
            Mistake("the base is missing: it is part of the edge's function", partial(edge_shares, base=False)),
            Mistake("the splines are missing; this is the base alone", partial(edge_shares, spline=False)),
            Mistake(
                "the splines count intervals: turn x into (x − grid_low) / grid_step first",
                partial(edge_shares, scaled=False),
            ),
            Mistake("these are variances; take the roots", partial(edge_shares, spread=lambda values: values.var(0))),
            Mistake("these are spreads; divide by their sum over all edges", partial(edge_shares, total=lambda _: 1.0)),
            Mistake(
                "each output's edges sum to 1 in yours; the shares are of all edges of the layer",
                partial(edge_shares, total=lambda spreads: spreads.sum(1, keepdim=True)),
            ),
            Mistake(
                "each input's edges sum to 1 in yours; the shares are of all edges of the layer",
                partial(edge_shares, total=lambda spreads: spreads.sum(0, keepdim=True)),
            ),
            Mistake("you divided by the largest; divide by the sum", partial(edge_shares, total=torch.max)),
        ],
    )
