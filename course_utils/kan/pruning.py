"""Sparse Kolmogorov-Arnold networks: a penalty that makes edges flat, scores of importance, pruning by mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from course_utils._validation import check_in_range, check_non_negative
from course_utils.kan.layer import LayerParts
from course_utils.kan.network import KANBase, layers_of

# fmt: off
__all__ = ["PruneReport", "edge_importance", "node_importance", "output_and_penalty", "prune", "sparsity_penalty"]
# fmt: on


def sparsity_penalty(model: KANBase, x: Tensor, *, l1: float = 1.0, entropy: float = 1.0) -> Tensor:
    """Return Σ over the layers of l1·Σ s_ij + entropy·H(p), which is small when few edges do all the work.

    s_ij is the standard deviation of φ_ij(x_j) over the samples (with the mean over the batch, not batch − 1), so a
    constant costs nothing; p_ij = s_ij / Σ s is an edge's share in its layer, and H(p) = −Σ p log p.

    The edges' values, (batch, out, in), are never built: as φ_ij is linear in its coefficients w_ij, its variance is
    w_ijᵀ G_j w_ij with the covariance G_j of the features (splines and base) of input j. An edge without any spread has
    gradient 0.

    To fit with it: ``penalty=functools.partial(sparsity_penalty, l1=1e-2, entropy=1e-2)``; a loop of your own saves a
    pass through the network with `output_and_penalty`.

    Args:
        model: the network.
        x: (batch, widths[0]).
        l1: strength of the sum, at least 0.
        entropy: strength of the entropy (in nats), at least 0.

    Returns:
        A scalar; gradients flow to all parameters and to ``x``.

    Raises:
        TypeError: a strength is not a number.
        ValueError: a strength is negative, or ``x`` has another shape or no rows.

    Source: Liu et al. 2024, arXiv:2404.19756, eq. 2.17-2.20. Differs: the standard deviation in place of the mean |φ|.
    """
    return _penalty(model, x, l1, entropy)[0]


def output_and_penalty(model: KANBase, x: Tensor, *, l1: float = 1.0, entropy: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return ``model(x)`` and its `sparsity_penalty` from one pass, for training loops of your own.

    The two apart pass through the network twice.

    Args:
        model: the network.
        x: (batch, widths[0]).
        l1: see `sparsity_penalty`.
        entropy: see `sparsity_penalty`.

    Returns:
        The output, (batch, widths[-1]), and a scalar.

    Raises:
        TypeError, ValueError: see `sparsity_penalty`.
    """
    penalty, last = _penalty(model, x, l1, entropy)
    return last.output(), penalty


@torch.no_grad()
def edge_importance(model: KANBase, x: Tensor) -> list[Tensor]:
    """Return how much each edge matters for the outputs, from 0 (not at all) to 1, layer by layer.

    Every output has score 1. An edge's score is that of the node it enters, times the edge's spread over the samples
    (the standard deviation of φ_ij) as a fraction of the largest spread among the node's incoming edges; a node's score
    is the largest one of its outgoing edges. So the score of an edge is the strength of the best path from it to an
    output, which does not depend on the scale of hidden nodes or outputs.

    Args:
        model: the network.
        x: (batch, widths[0]), at least two rows, finite.

    Returns:
        One tensor of shape (out, in) for each layer; 0 where an edge was removed or is constant but for rounding.

    Raises:
        ValueError: ``x`` has another shape, fewer than two rows or a number that is not finite, or the network's own
            values are not finite on it.

    Source: the product of ratios along a path is in the spirit of Liu et al. 2024, arXiv:2408.10205, section 4.1.
    Differs: the largest incoming edge is the unit and the best path counts, so each output keeps a path of strength 1.
    """
    return _edge_scores(model, x)


@torch.no_grad()
def node_importance(model: KANBase, x: Tensor) -> list[Tensor]:
    """Return the score of every node, the inputs first and the outputs (all 1) last; see `edge_importance`.

    Args:
        model: the network.
        x: (batch, widths[0]), at least two rows, finite.

    Returns:
        One tensor of shape (width,) for each entry of ``model.widths``. The first one ranks the inputs.

    Raises:
        ValueError: see `edge_importance`.
    """
    scores = _edge_scores(model, x)
    return [*(score.amax(dim=0) for score in scores), scores[-1].new_ones(len(scores[-1]))]


@dataclass(frozen=True)
class PruneReport:
    """What `prune` removed; ``print`` it.

    Attributes:
        threshold: below which edges went.
        edges: for each layer the removed edges (i, j), from input node j to output node i of that layer.
        nodes: for each entry of ``widths`` the nodes that this call left without any edge. In front are inputs that are
            not used any more; the outputs' entry is always empty.
        edges_left: number of edges in each layer afterwards.
        nodes_left: number of nodes with edges for each entry of ``widths``.
    """

    threshold: float
    edges: tuple[tuple[tuple[int, int], ...], ...]
    nodes: tuple[tuple[int, ...], ...]
    edges_left: tuple[int, ...]
    nodes_left: tuple[int, ...]

    def __str__(self) -> str:
        gone, left = sum(map(len, self.edges)), sum(self.edges_left)
        hidden = sum(map(len, self.nodes[1:-1]))
        lines = [f"pruned below {self.threshold:g}: {gone} of {gone + left} edges, {hidden} hidden nodes"]
        for index, (edges, stay) in enumerate(zip(self.edges, self.edges_left, strict=True)):
            lines.append(f"  layer {index}: {len(edges)} edges went, {stay} left")
        for index, nodes in enumerate(self.nodes):
            if nodes:
                what = "inputs not used any more" if index == 0 else f"nodes gone after layer {index - 1}"
                lines.append(f"  {what}: {', '.join(map(str, nodes))}")
        lines.append(f"  nodes left: {list(self.nodes_left)}")
        return "\n".join(lines)


@torch.no_grad()
def prune(model: KANBase, x: Tensor, *, threshold: float = 0.03, keep_means: bool = True) -> PruneReport:
    """Remove, in place, every edge whose `edge_importance` is below the threshold, and nodes left without a use.

    A hidden node that has lost all incoming or all outgoing edges loses the others too. Removed edges are zeros in
    ``edge_mask``, so widths and parameter shapes stay; a symbolic edge is deleted.

    Args:
        model: the network; changed only if nothing is raised.
        x: (batch, widths[0]), the samples that importance is measured on.
        threshold: in [0, 1); at 0 no edge is weak enough, and only nodes without a use go.
        keep_means: a node's removed edges may have had a mean that is far from 0 (the penalty does not touch
            constants). If true, it is added to the strongest edge that the node keeps: to all coefficients of the
            spline, which adds that constant everywhere. If false, nothing but the masks changes, and the constants are
            lost.

    Raises:
        TypeError: ``threshold`` is not a number.
        ValueError: ``threshold`` is outside [0, 1), an output would be left without edges, or see `edge_importance`.
    """
    check_in_range(threshold, "threshold", 0.0, 1.0)
    scores = _edge_scores(model, x)
    before = [layer.active_edges for layer in layers_of(model)]
    after = [active & (score >= threshold) for active, score in zip(before, scores, strict=True)]
    _drop_useless_nodes(after)
    for output, kept in enumerate(after[-1].any(dim=1).tolist()):
        if not kept:
            raise ValueError(
                f"threshold {threshold!r} would leave nothing of output {output}, whose edges have importance at most "
                f"{scores[-1][output].max():.3g} on these samples; a constant output has no edges that matter"
            )
    if keep_means:
        _move_means(model, x, before, after, scores)
    for layer, active in zip(layers_of(model), after, strict=True):
        layer.edge_mask.mul_(active)
        for i, j in layer.known_functions:
            if not active[i, j]:
                del layer.symbolic_edges[f"{i},{j}"]
    nodes_after = _used_nodes(after)
    return PruneReport(
        threshold=float(threshold),
        edges=tuple(tuple(map(tuple, gone.nonzero().tolist())) for gone in _lost(before, after)),
        nodes=tuple(tuple(gone.nonzero().flatten().tolist()) for gone in _lost(_used_nodes(before), nodes_after)),
        edges_left=tuple(int(active.sum()) for active in after),
        nodes_left=tuple(int(used.sum()) for used in nodes_after),
    )


def _check_samples(model: KANBase, x: Tensor, *, minimum: int) -> None:
    if x.ndim != 2 or x.shape[1] != model.widths[0] or len(x) < minimum:
        shape = f"(batch >= {minimum}, {model.widths[0]})"
        raise ValueError(f"x must have shape {shape}, got {tuple(x.shape)}")


def _walk(model: KANBase, x: Tensor) -> Iterator[LayerParts]:
    """Yield what the edges of each layer are made of."""
    layers = layers_of(model)
    for layer in layers:
        parts = layer.parts(x)
        yield parts
        if layer is not layers[-1]:
            x = parts.output()


def _penalty(model: KANBase, x: Tensor, l1: float, entropy: float) -> tuple[Tensor, LayerParts]:
    """Return the penalty, and the last layer's parts for who wants the output too."""
    check_non_negative(l1, "l1")
    check_non_negative(entropy, "entropy")
    _check_samples(model, x, minimum=1)
    total = x.new_zeros(())
    for parts in _walk(model, x):
        spread = _spreads(parts)
        total = total + l1 * (whole := spread.sum())
        if entropy > 0 and bool(whole > 0):
            share = spread / whole
            total = total - entropy * (share * torch.where(share > 0, share, 1.0).log()).sum()
    return total, parts


def _spreads(parts: LayerParts, exact: bool = False) -> Tensor:
    """Return the standard deviation of every edge's values, (out, in).

    ``exact`` computes in float64 and takes what can be rounding noise for 0; not differentiable.
    """
    basis, coefficients, base, base_weight, symbolic = parts
    variance: Tensor = _Variance.apply(basis, coefficients, base, base_weight, exact)  # type: ignore[no-untyped-call]
    if symbolic:
        rows, columns = torch.tensor(list(symbolic), device=variance.device).T
        values = torch.stack(list(symbolic.values()))
        own = values.to(variance.dtype).var(dim=1, correction=0)
        if exact:
            own = own.masked_fill(own <= (values.abs().amax(dim=1) * _noise(values)).square(), 0.0)
        variance = variance.index_put((rows, columns), own, accumulate=True)
    # The root has no slope at 0: such edges get a constant in its place, and thereby gradient 0. NaN stays.
    flat = variance <= 0
    return variance.masked_fill(flat, 1.0).sqrt().masked_fill(flat, 0.0)


def _noise(values: Tensor) -> float:
    """Return which part of the largest value can be rounding: ten units in the last place, 1e-7 for float64."""
    return max(10 * torch.finfo(values.dtype).eps, 1e-7)


class _Variance(torch.autograd.Function):
    """The variances w_ijᵀ G_j w_ij, (out, in), with G_j the covariance of input j's features.

    By hand for speed: the features are turned once, so that the batch is the last axis, and the backward pass needs no
    centring again, since every centred feature sums to 0.
    """

    @staticmethod
    def forward(
        ctx: Any, basis: Tensor, coefficients: Tensor, base: Tensor | None, base_weight: Tensor | None, exact: bool
    ) -> Tensor:
        batch, n_basis, n_inputs = basis.shape
        n_features = n_basis + (base is not None)
        dtype = torch.float64 if exact else basis.dtype
        rows = basis.new_empty(n_features, n_inputs, batch, dtype=dtype)
        turned = basis.new_empty(n_features, n_inputs, len(coefficients), dtype=dtype)
        rows[:n_basis].view(-1, batch).copy_(basis.flatten(1).T)
        turned[:n_basis].view(-1, len(coefficients)).copy_(coefficients.flatten(1).T)
        if base is not None and base_weight is not None:
            rows[n_basis] = base.T
            turned[n_basis] = base_weight.T
        size = rows.abs().amax(dim=2).T[:, None, :] if exact else None
        rows -= rows.mean(dim=2, keepdim=True)
        centred, weights = rows.transpose(0, 1), turned.permute(1, 2, 0)
        gram = (centred @ centred.mT).div_(batch)
        products = weights @ gram
        variance = (products * weights).sum(dim=2)
        if size is not None:
            bound = (weights.abs() * size).sum(dim=2) * _noise(basis)
            variance = variance.masked_fill(variance <= bound.square(), 0.0)
        ctx.save_for_backward(centred, weights, products)
        ctx.n_basis = n_basis
        return variance.T

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, weights, products = ctx.saved_tensors
        _, n_features, batch = centred.shape
        factor = 2 * grad.T[:, :, None]
        grad_weights = (products * factor).permute(1, 2, 0)
        grad_basis = grad_base = None
        if ctx.needs_input_grad[0]:
            grad_gram = weights.mT @ (weights * (factor / batch))
            grad_features = (grad_gram @ centred).permute(2, 1, 0)
            grad_basis, grad_base = grad_features[:, : ctx.n_basis].contiguous(), grad_features[:, -1]
        has_base = n_features > ctx.n_basis
        return (
            grad_basis,
            grad_weights[:, : ctx.n_basis].contiguous(),
            grad_base if has_base else None,
            grad_weights[:, -1] if has_base else None,
            None,
        )


def _edge_scores(model: KANBase, x: Tensor) -> list[Tensor]:
    """Do the work of `edge_importance`, in float64 where a constant function's variance is 0 to eight digits."""
    _check_samples(model, x, minimum=2)
    finite = x.isfinite()
    if not finite.all():
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(f"x must be finite, got {x[row, column].item()} in row {row}, input {column}")
    spreads = []
    for index, parts in enumerate(_walk(model, x)):
        spread = _spreads(parts, exact=True)
        if not spread.isfinite().all():
            i, j = (~spread.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"the values of edge ({i}, {j}) in layer {index} are not finite on these samples")
        spreads.append(spread)
    scores: list[Tensor] = []
    node = spreads[-1].new_ones(len(spreads[-1]))
    for spread in reversed(spreads):
        largest = spread.amax(dim=1, keepdim=True)
        scores.insert(0, node[:, None] * spread / torch.where(largest > 0, largest, 1.0))
        node = scores[0].amax(dim=0)
    return [score.to(x.dtype) for score in scores]


def _used_nodes(active: list[Tensor]) -> list[Tensor]:
    """Return for each entry of ``widths`` which nodes have an edge at all."""
    return [
        active[0].any(dim=0),
        *(into.any(dim=1) | out.any(dim=0) for into, out in pairwise(active)),
        active[-1].any(dim=1),
    ]


def _lost(before: list[Tensor], after: list[Tensor]) -> list[Tensor]:
    return [was & ~stays for was, stays in zip(before, after, strict=True)]


def _drop_useless_nodes(active: list[Tensor]) -> None:
    """Clear, in place, all edges of hidden nodes without incoming or without outgoing edges, until there are none."""
    for _ in active:  # what one sweep breaks reaches at least one layer farther in the next
        for into, out in pairwise(active):
            dead = into.any(dim=1) != out.any(dim=0)
            into[dead] = False
            out[:, dead] = False


def _move_means(model: KANBase, x: Tensor, before: list[Tensor], after: list[Tensor], scores: list[Tensor]) -> None:
    """Add the mean of every node's removed edges to the strongest edge it keeps."""
    means = []
    for parts in _walk(model, x):
        mean = torch.einsum("ibj,bj->ij", parts.coefficients, parts.basis.mean(dim=0))
        if parts.base is not None and parts.base_weight is not None:
            mean += parts.base_weight * parts.base.mean(dim=0)
        for place, values in parts.symbolic.items():
            mean[place] += values.mean()
        means.append(mean)
    for layer, mean, gone, stays, score in zip(
        layers_of(model), means, _lost(before, after), after, scores, strict=True
    ):
        lost = (mean * gone).sum(dim=1)
        for i in (stays.any(dim=1) & (lost != 0)).nonzero().flatten().tolist():
            j = int(score[i].where(stays[i], -1.0).argmax())
            edge = layer.known_functions.get((i, j))
            if edge is not None:
                edge.affine[3] += lost[i]
            else:
                layer.coefficients[i, :, j] += lost[i]
