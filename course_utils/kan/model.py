"""The network that users build, with everything one does with it as methods."""

from __future__ import annotations

from course_utils.kan import discovery, fitting, formula, grid, plots, pruning, symbolic
from course_utils.kan.network import KANBase

__all__ = ["KAN"]


class KAN(KANBase):
    """A Kolmogorov-Arnold network with the given widths, such as ``KAN([2, 5, 1])``; arguments as `KANBase`.

    The methods are functions of the package's modules, bound as they stand: their first argument, ``model``, is the
    network itself.

    A step costs about twice one of an MLP with as many parameters. For a long training with the same grids,
    ``torch.compile(model, mode="max-autotune-no-cudagraphs")`` takes most of that away; it needs some seconds, and
    again after each `extend_grid`.

    Example:
        >>> model = KAN([2, 5, 1], grid_size=5)
        >>> model(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
    """

    update_grid = grid.update_grid
    extend_grid = grid.extend_grid
    fit_lbfgs = fitting.fit_lbfgs
    fit_lm = fitting.fit_lm
    sparsity_penalty = pruning.sparsity_penalty
    output_and_penalty = pruning.output_and_penalty
    edge_importance = pruning.edge_importance
    node_importance = pruning.node_importance
    prune = pruning.prune
    suggest_symbolic = symbolic.suggest_symbolic
    fix_symbolic = symbolic.fix_symbolic
    auto_symbolic = symbolic.auto_symbolic
    symbolic_formula = formula.symbolic_formula
    find_formula = discovery.find_formula
    plot = plots.plot
    plot_edge = plots.plot_edge
