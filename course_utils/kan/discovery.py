"""From data to a formula in one call."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence

from torch import Tensor

from course_utils._notebook import progress_bar
from course_utils._validation import check_non_negative, check_positive
from course_utils.kan.fitting import KANHistory, fit_lbfgs, fit_lm
from course_utils.kan.library import Function
from course_utils.kan.network import KANBase
from course_utils.kan.pruning import edge_importance, prune, sparsity_penalty
from course_utils.kan.symbolic import SymbolicReport, auto_symbolic

__all__ = ["find_formula"]

# Edges are removed while the error, after a refit, stays below so many times what it was with all of them.
_SPARED = 10.0
_EXACT = 1e-20  # this share of the variance
_IDLE = 1e-6  # importance of an edge


def find_formula(
    model: KANBase,
    x: Tensor,
    y: Tensor,
    *,
    strengths: Sequence[float] = (0.03, 0.01, 0.003),
    tolerances: Sequence[float] = (5e-5, 1e-3, 1e-2),
    threshold: float = 0.03,
    steps: int = 100,
    library: Collection[Function] | None = None,
    progress: bool = True,
) -> SymbolicReport:
    """Turn an untrained network into a formula for the data, in place: make it sparse, prune, name, refit.

    It does for each strength of the penalty::

        fit_lbfgs(model, x, y, grids=(g,), steps=steps, penalty=sparsity_penalty times strength and variance of y)
        prune(model, x, threshold=threshold), then edge after edge that a refit can do without
        fit_lm(model, x, y, grids=(g, 2 * g, 4 * g))
        auto_symbolic(model, x, y, tolerance=tolerance, min_r2=0)      # for each tolerance
        prune(model, x, threshold=1e-6)                                # what the refit made idle

    and leaves the model as the formula with the smallest Bayesian information criterion, n·log(mean squared
    error) + log(n)·(number of constants). The first that is exact to 10 digits ends the search. A coarse grid
    (``grid_size=3``), float64 and a few hundred samples or more are the best start. If the user interrupts, the model
    stays as it was.

    Args:
        model: the network, as made; its ``grid_size`` is g.
        x: (n, widths[0]), finite, of the model's dtype.
        y: (n, widths[-1]), the targets.
        strengths: of the penalty, each above 0; the strong ones find the short formulas.
        tolerances: see `auto_symbolic`.
        threshold: see `prune`.
        steps: of each L-BFGS fit.
        library: the functions to try; by default all of `library.FUNCTIONS`.
        progress: whether to show a bar.

    Returns:
        What `auto_symbolic` reported of the formula taken.

    Raises:
        TypeError, ValueError: an argument is out of range; ``y`` is constant; see also the functions above.
    """
    for name, values in (("strengths", strengths), ("tolerances", tolerances)):
        if not values:
            raise ValueError(f"{name} must hold at least one number, got {values}")
    for strength in strengths:
        check_positive(strength, "strengths")
    for tolerance in tolerances:
        check_non_negative(tolerance, "tolerances")
    variance = float(y.var(correction=0))
    if not variance > 0:
        raise ValueError(f"y must be finite and vary, got {len(y)} samples with variance {variance}")
    best: tuple[float, KANBase, SymbolicReport] | None = None
    with progress_bar(len(strengths) * (1 + len(tolerances)), "fit", shown=progress) as bar:
        for strength in strengths:
            splines = copy.deepcopy(model)
            _make_sparse(splines, x, y, strength * variance, threshold, steps)
            bar.update()
            for tolerance in tolerances:
                named = copy.deepcopy(splines)
                report = auto_symbolic(named, x, y, library=library, tolerance=tolerance, min_r2=0.0, max_steps=60)
                report = _without_idle_edges(named, x, y, report)
                bar.update()
                error = min(_heeded(report.history).loss) / variance
                n_constants = 4 * len(report.edges)
                score = len(x) * math.log(error + 1e-24) + n_constants * math.log(len(x))
                if best is None or score < best[0]:
                    best = (score, named, report)
                if error < _EXACT:
                    break
            if error < _EXACT:
                break
    assert best is not None  # there is at least one strength and one tolerance
    model.layers = best[1].layers
    return best[2]


def _make_sparse(model: KANBase, x: Tensor, y: Tensor, weight: float, threshold: float, steps: int) -> None:
    """Fit with a penalty, remove edges, and fit what is left without the penalty, on finer grids."""
    grid = max(int(layer.grid_size) for layer in model.layers)  # type: ignore[arg-type]

    def penalty(model: KANBase, x: Tensor) -> Tensor:
        return weight * sparsity_penalty(model, x)

    _heeded(fit_lbfgs(model, x, y, grids=(grid,), steps=steps, tolerance=1e-4, penalty=penalty, progress=False))
    prune(model, x, threshold=threshold)
    _spare_edges(model, x, y, grid)
    grids = [size for size in (grid, 2 * grid, 4 * grid) if size == grid or 4 * size <= len(x)]
    _heeded(fit_lm(model, x, y, grids=grids, max_steps=15, progress=False))


def _spare_edges(model: KANBase, x: Tensor, y: Tensor, grid: int) -> None:
    """Remove the weakest edges that a refit can do without, one after the other."""
    limit = _SPARED * _refit(model, x, y, grid)
    while (smaller := _without_an_edge(model, x, y, grid, limit)) is not None:
        model.layers = smaller.layers


def _without_an_edge(model: KANBase, x: Tensor, y: Tensor, grid: int, limit: float) -> KANBase | None:
    """Return a refitted copy without the weakest edge that lets the squared error stay within the limit, if any."""
    scores = edge_importance(model, x)
    places = [(float(score[i, j]), n, i, j) for n, score in enumerate(scores) for i, j in score.nonzero().tolist()]
    for _, number, i, j in sorted(places):
        smaller = copy.deepcopy(model)
        smaller.layers[number].edge_mask[i, j] = 0  # type: ignore[operator]
        try:
            prune(smaller, x, threshold=0.0)  # nodes that have lost their last edge
        except ValueError:  # an output would have none left
            continue
        if _refit(smaller, x, y, grid) <= limit:
            return smaller
    return None


def _without_idle_edges(model: KANBase, x: Tensor, y: Tensor, report: SymbolicReport) -> SymbolicReport:
    """Remove the functions whose constants became so small in the refit that they do nothing."""
    _heeded(report.history)
    try:
        removed = prune(model, x, threshold=_IDLE).edges
    except ValueError:  # the formula is constant: no edge does more than another
        return report
    if not any(removed):
        return report
    history = fit_lm(model, x, y, max_steps=60, tolerance=1e-9, progress=False)
    return SymbolicReport(tuple(edge for edge in report.edges if (edge.i, edge.j) not in removed[edge.layer]), history)


def _refit(model: KANBase, x: Tensor, y: Tensor, grid: int) -> float:
    return min(_heeded(fit_lm(model, x, y, grids=(grid,), max_steps=15, progress=False)).loss)


def _heeded(history: KANHistory | None) -> KANHistory:
    """Return the history, or end the whole search where the user ended a single fit."""
    assert history is not None  # all are fits with targets
    if history.stopped_by == "interrupted":
        raise KeyboardInterrupt
    return history
