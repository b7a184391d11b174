"""One layer of a Kolmogorov-Arnold network: a learned function on every edge, sums at the nodes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils._validation import check_int, check_non_negative, check_one_of
from course_utils.kan.bsplines import b_spline_basis
from course_utils.kan.library import SymbolicEdge

__all__ = ["KANLayer", "LayerParts"]


class LayerParts(NamedTuple):
    """What the edges of a layer are made of: features, their factors (0 for removed edges), known functions.

    Attributes:
        basis: (batch, n_basis, in_features), the splines at the inputs.
        coefficients: (out_features, n_basis, in_features).
        base: (batch, in_features), silu(x), or ``None``.
        base_weight: (out_features, in_features), or ``None``.
        symbolic: by (output, input), the values of the known functions, (batch,).
    """

    basis: Tensor
    coefficients: Tensor
    base: Tensor | None
    base_weight: Tensor | None
    symbolic: dict[tuple[int, int], Tensor]

    def output(self) -> Tensor:
        """Return the sum over the inputs, (batch, out)."""
        output = self.basis.flatten(1) @ self.coefficients.flatten(1).T
        if self.base is not None and self.base_weight is not None:
            output = torch.addmm(output, self.base, self.base_weight.T)
        for (i, _), values in self.symbolic.items():
            output = output.index_add(1, torch.tensor([i], device=output.device), values[:, None])
        return output


class KANLayer(nn.Module):
    """Sum over the inputs of one learned function an edge: y_i = Σ_j φ_ij(x_j).

    Each φ_ij(x) = w_ij·silu(x) + Σ_b c_ibj B_b(x): a B-spline on a uniform grid, and by default a smooth base that also
    works far outside the grid, where the spline goes on linearly. All splines of an input share its basis, so the layer
    is one matrix product on the flattened basis (and one on silu(x)).

    Input (batch, in_features), output (batch, out_features).

    Args:
        in_features: width of the input, at least 1.
        out_features: width of the output, at least 1.
        grid_size: intervals of the grid, at least 1.
        degree: of the splines, at least 1.
        base: ``"silu"``, or ``None`` for splines alone.
        grid_range: left and right end of every input's grid.
        init_scale: standard deviation of the initial spline coefficients times √in_features, at least 0.
        generator: draws the initial weights; ``None`` is torch's global stream.
        dtype: of the parameters; by default torch's.

    Attributes:
        coefficients: (out_features, grid_size + degree, in_features); flattened from dimension 1 on, it is the matrix
            that multiplies the flattened basis.
        base_weight: (out_features, in_features), or ``None``.
        grid_low: (in_features,), buffer, where each input's grid begins.
        grid_step: (in_features,), buffer, the length of one interval.
        edge_mask: (out_features, in_features), buffer, 0 where an edge has no spline and no base, else 1.
        symbolic_edges: by ``"i,j"``, the edges from input j to output i that are a known function, as
            `KAN.fix_symbolic` makes them; each maps (batch,) to (batch,). Their ``edge_mask`` is 0.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Source: Liu et al. 2024, arXiv:2404.19756. Differs: no separate scale on the spline, which its coefficients absorb.
    """

    grid_low: Tensor
    grid_step: Tensor
    edge_mask: Tensor
    base_weight: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        grid_size: int = 5,
        degree: int = 3,
        base: str | None = "silu",
        grid_range: tuple[float, float] = (-1.0, 1.0),
        init_scale: float = 0.1,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_int(in_features, "in_features", minimum=1)
        self.out_features = check_int(out_features, "out_features", minimum=1)
        self.grid_size = check_int(grid_size, "grid_size", minimum=1)
        self.degree = check_int(degree, "degree", minimum=1)
        self.base = check_one_of(base, "base", ("silu", None))
        check_non_negative(init_scale, "init_scale")
        low, high = grid_range
        if not (low < high and abs(low) < float("inf") and abs(high) < float("inf")):
            raise ValueError(f"grid_range must be two finite numbers, the smaller one first, got {grid_range}")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        self.register_buffer("grid_low", torch.full((in_features,), float(low), dtype=dtype))
        self.register_buffer("grid_step", torch.full((in_features,), (high - low) / grid_size, dtype=dtype))
        self.register_buffer("edge_mask", torch.ones(out_features, in_features, dtype=dtype))
        coefficients = torch.empty(out_features, self.n_basis, in_features, dtype=dtype)
        self.coefficients = nn.Parameter(coefficients.normal_(0, init_scale / in_features**0.5, generator=generator))
        weight = None
        if base is not None:  # LeCun's rule keeps the size of the signal, roughly
            empty = torch.empty(out_features, in_features, dtype=dtype)
            weight = nn.Parameter(empty.normal_(0, in_features**-0.5, generator=generator))
        self.register_parameter("base_weight", weight)
        self.symbolic_edges = nn.ModuleDict()

    @property
    def n_basis(self) -> int:
        """Number of splines an input."""
        return self.grid_size + self.degree

    @property
    def known_functions(self) -> dict[tuple[int, int], SymbolicEdge]:
        """The edges of ``symbolic_edges`` by (output, input)."""
        places = (key.split(",") for key in self.symbolic_edges)
        edges = zip(places, self.symbolic_edges.values(), strict=True)
        return {(int(i), int(j)): edge for (i, j), edge in edges}  # type: ignore[misc]  # Modules, to torch's types

    @property
    def active_edges(self) -> Tensor:
        """Which edges are more than zero, splines or known functions, (out_features, in_features), boolean."""
        active = self.edge_mask != 0
        for i, j in self.known_functions:
            active[i, j] = True
        return active

    def basis(self, x: Tensor) -> Tensor:
        """Return the splines at the inputs: (batch, n_basis, in_features) for ``x`` of shape (batch, in_features)."""
        return b_spline_basis((x - self.grid_low) / self.grid_step, self.grid_size, self.degree)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out_features) for ``x`` of shape (batch, in_features).

        Raises:
            ValueError: ``x`` has another width.
        """
        return self.parts(x).output()

    def parts(self, x: Tensor) -> LayerParts:
        """Return what the output is summed from; ``x`` and errors as for `forward`."""
        self._check_width(x)
        coefficients, base_weight = self.masked_parameters()
        base = None if base_weight is None else F.silu(x)
        known = {(i, j): edge(x[:, j]) for (i, j), edge in self.known_functions.items()}
        return LayerParts(self.basis(x), coefficients, base, base_weight, known)

    def masked_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Return coefficients and base weights with zeros for removed edges, which then get no gradient either."""
        # Always, since to look whether it is needed would make a GPU wait and cut a compiled graph in two.
        coefficients = self.coefficients * self.edge_mask[:, None, :]
        return coefficients, None if self.base_weight is None else self.base_weight * self.edge_mask

    def edge_functions(self, x: Tensor) -> Tensor:
        """Return every edge's value φ_ij(x_j), (batch, out_features, in_features), whose sum over j is the output.

        For pictures and analysis: unlike `forward` it holds a number for each edge and row.
        """
        self._check_width(x)
        coefficients, base_weight = self.masked_parameters()
        values = torch.einsum("nbj,ibj->nij", self.basis(x), coefficients)
        if base_weight is not None:
            values = values + F.silu(x)[:, None, :] * base_weight
        for (i, j), edge in self.known_functions.items():
            values[:, i, j] += edge(x[:, j])
        return values

    def _check_width(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"x must have shape (batch, {self.in_features}), got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        sizes = f"{self.in_features}, {self.out_features}, grid_size={self.grid_size}, degree={self.degree}"
        return f"{sizes}, base={self.base!r}"
