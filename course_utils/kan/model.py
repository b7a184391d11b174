"""The network that users build, with everything one does with it as methods."""

from __future__ import annotations

from course_utils.kan import discovery, fitting, formula, grid, plots, pruning, symbolic
from course_utils.kan.network import KANBase

__all__ = ["KAN"]


class KAN(KANBase):
    """A Kolmogorov-Arnold network with the given widths, such as ``KAN([2, 5, 1])``: layers of edge functions.

    Input (batch, widths[0]), output (batch, widths[-1]). There is no activation between the layers: the edges are the
    nonlinearity. The methods are functions of the package's modules, bound as they stand: their first argument,
    ``model``, is the network itself.

    A step costs about twice one of an MLP with as many parameters. For a long training with the same grids,
    ``torch.compile(model, mode="max-autotune-no-cudagraphs")`` takes most of that away; it needs some seconds, and
    again after each `extend_grid`.

    Args:
        widths: of the input, the hidden layers and the output; at least two, each at least 1.
        grid_size: intervals of every grid, or one number a layer.
        degree: of the splines.
        base: see `KANLayer`.
        grid_range: where all grids begin and end at first.
        generator: draws the initial weights; ``None`` is torch's global stream.
        dtype: of the parameters; by default torch's.

    Raises:
        TypeError, ValueError: as `KANLayer`, or there are fewer than two widths, or not one grid size a layer.

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
