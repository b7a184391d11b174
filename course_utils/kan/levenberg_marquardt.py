"""Levenberg–Marquardt for networks of edge functions: the exact Jacobian, and one step after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils.kan.layer import KANLayer
from course_utils.kan.library import SymbolicEdge
from course_utils.kan.network import KANBase, layers_of

__all__ = ["LevenbergMarquardt", "jacobian"]

_MAX_PARAMETERS = 10_000  # their matrix of products takes 0.8 GB
_CHUNK = 2**23  # numbers of the Jacobian held at once


def jacobian(model: KANBase, x: Tensor) -> Tensor:
    """Return the derivatives of the outputs by every parameter that counts: (batch, outputs, parameters).

    The output depends on an edge's parameters through one sum at the edge's node i alone, so that one backward pass for
    an output o gives g_i = ∂y_o/∂(node i) and then all its columns: ∂y_o/∂c_ibj = g_i·B_b(x_j).

    The columns go layer by layer, and in a layer: coefficients, edge by edge (i, j) in row order and along an edge
    by b; base weights, by edge; the constants of each known function. Removed edges and parameters with
    ``requires_grad=False`` have none.

    Args:
        model: the network.
        x: (batch, widths[0]).
    """
    with torch.enable_grad():
        nodes = [x.detach().requires_grad_()]  # so that also the last layer's output hangs on a graph
        for layer in layers_of(model):
            nodes.append(layer(nodes[-1]))
        outputs = nodes[-1]
        gradients = [
            torch.autograd.grad(outputs[:, o].sum(), nodes[1:], retain_graph=True) for o in range(outputs.shape[1])
        ]
    blocks = []
    for number, layer in enumerate(layers_of(model)):
        at_nodes = torch.stack([gradient[number] for gradient in gradients], dim=1)
        blocks += _columns(layer, nodes[number].detach(), at_nodes)
    return torch.cat(blocks, dim=2) if blocks else x.new_zeros(*outputs.shape, 0)


class LevenbergMarquardt:
    """Steps towards the least mean squared error, each from the linear model of all outputs.

    A step solves (JᵀJ + μD) δ = −Jᵀr in float64 whatever the model's dtype, where D is the diagonal of JᵀJ. It is taken
    only if it lowers the error, else tried again with a larger damping μ; after a step, μ follows from how much of the
    predicted gain came true.

    Args:
        model: the network, changed in place.
        x: (n, widths[0]).
        y: (n, widths[-1]), the targets.

    Attributes:
        loss: the mean squared error now.

    Raises:
        ValueError: the model has more than 10,000 parameters.

    Source: Nielsen 1999, "Damping parameter in Marquardt's method" (the rule for μ).
    """

    def __init__(self, model: KANBase, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = model, x, y
        self.places = _free_parameters(model)
        self.n_parameters = sum(place.size for place in self.places)
        if self.n_parameters > _MAX_PARAMETERS:
            raise ValueError(
                f"fit_lm solves for all parameters at once and takes {_MAX_PARAMETERS:,} of them at most, the model "
                f"has {self.n_parameters:,}; fit_lbfgs takes any number"
            )
        self.damping = 1e-3
        self.loss = self._measure()

    @torch.no_grad()
    def step(self) -> bool:
        """Lower the error by one step; return False, with nothing changed, if no step does."""
        if not self.n_parameters:
            return False
        products, slope = self._normal_equations()
        # Where no sample lies, a coefficient's entry is 0, and the floor keeps the matrix positive definite.
        scale = products.diagonal().clone()
        scale.clamp_(min=max(1e-10 * float(scale.max()), 1e-300))
        growth = 2.0
        while self.damping < 1e12:
            delta = _solve(products, scale, slope, self.damping)
            new_loss = math.inf if delta is None else self._try(delta)
            if delta is not None and new_loss < self.loss:
                predicted = float(delta @ (self.damping * scale * delta - slope)) / self.y.numel()
                gain = (self.loss - new_loss) / predicted if predicted > 0 else 0.0
                self.damping = max(self.damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 1e-14)
                self.loss = new_loss
                return True
            self.damping, growth = self.damping * growth, growth * 2
        return False

    def _measure(self) -> float:
        with torch.no_grad():
            return float((self.model(self.x).double() - self.y.double()).square().mean())

    def _try(self, delta: Tensor) -> float:
        """Take the step if it lowers the loss, else leave everything as it was; return the loss there."""
        before = [place.parameter.detach().clone() for place in self.places]
        new_loss = math.nan
        try:
            for place, part in zip(self.places, delta.split([place.size for place in self.places]), strict=True):
                place.add(part)
            new_loss = self._measure()
        finally:  # also when the user interrupts
            if not new_loss < self.loss:
                for place, old in zip(self.places, before, strict=True):
                    place.parameter.copy_(old)
        return new_loss

    def _normal_equations(self) -> tuple[Tensor, Tensor]:
        """Return JᵀJ and Jᵀr, over chunks of rows."""
        products = torch.zeros(self.n_parameters, self.n_parameters, dtype=torch.float64, device=self.x.device)
        slope = products.new_zeros(self.n_parameters)
        rows = max(1, _CHUNK // (self.n_parameters * self.y.shape[1]))
        for x, y in zip(self.x.split(rows), self.y.split(rows), strict=True):
            matrix = jacobian(self.model, x).double().flatten(0, 1)
            # A sample at which a derivative is not finite, such as that of √x at 0, does not choose the direction.
            matrix = matrix.masked_fill(~matrix.isfinite().all(dim=1, keepdim=True), 0)
            residual = (self.model(x).double() - y.double()).flatten()
            products.addmm_(matrix.T, matrix)
            slope.addmv_(matrix.T, residual)
        return products, slope


@dataclass
class _Place:
    """Where a run of Jacobian columns belongs: to the entries ``index`` of a parameter."""

    parameter: nn.Parameter
    index: tuple[Any, ...]

    @property
    def size(self) -> int:
        return self.parameter[self.index].numel()

    def add(self, delta: Tensor) -> None:
        old = self.parameter[self.index]
        self.parameter[self.index] = old + delta.to(old).view_as(old)


def _known_functions(layer: KANLayer) -> list[tuple[int, int, SymbolicEdge]]:
    """Return (output, input, edge) of every known function that is to be fitted."""
    return [(i, j, edge) for (i, j), edge in layer.known_functions.items() if edge.affine.requires_grad]


def _free_parameters(model: KANBase) -> list[_Place]:
    """Return what the columns of `jacobian` belong to, in their order."""
    places = []
    for layer in layers_of(model):
        i, j = layer.edge_mask.nonzero(as_tuple=True)
        if layer.coefficients.requires_grad:
            places.append(_Place(layer.coefficients, (i, slice(None), j)))
        if layer.base_weight is not None and layer.base_weight.requires_grad:
            places.append(_Place(layer.base_weight, (i, j)))
        places += [_Place(edge.affine, (slice(None),)) for _, _, edge in _known_functions(layer)]
    return places


def _columns(layer: KANLayer, x: Tensor, at_nodes: Tensor) -> list[Tensor]:
    """Return a layer's columns for its input ``x`` and the gradients (batch, outputs, out_features) at its nodes."""
    i, j = layer.edge_mask.nonzero(as_tuple=True)
    at_edges = at_nodes[:, :, i]
    columns = []
    if layer.coefficients.requires_grad:
        basis = layer.basis(x).transpose(1, 2)[:, j]
        columns.append((at_edges[..., None] * basis[:, None]).flatten(2))
    if layer.base_weight is not None and layer.base_weight.requires_grad:
        columns.append(at_edges * F.silu(x)[:, None, j])
    for output, source, edge in _known_functions(layer):
        columns.append(at_nodes[:, :, output, None] * edge.jacobian(x[:, source])[:, None])
    return columns


def _solve(products: Tensor, scale: Tensor, slope: Tensor, damping: float) -> Tensor | None:
    """Return the step δ, or None where the damping does not make the matrix positive definite."""
    factor, failed = torch.linalg.cholesky_ex(products + torch.diag(damping * scale))
    if failed.item():
        return None
    delta = torch.cholesky_solve(-slope[:, None], factor)[:, 0]
    return delta if bool(delta.isfinite().all()) else None
