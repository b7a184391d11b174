"""The Kolmogorov-Arnold network: layers of edge functions, one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from course_utils._validation import check_sizes
from course_utils.kan.layer import KANLayer
from course_utils.kan.library import FUNCTIONS, SymbolicEdge

__all__ = ["KANBase", "layers_of"]


class KANBase(nn.Module):
    """Layers of edge functions with the given widths; `kan.KAN` adds what is done with a network.

    Shapes, arguments and errors are those of `kan.KAN`, which is what users build.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        grid_size: int | Sequence[int] = 5,
        degree: int = 3,
        base: str | None = "silu",
        grid_range: tuple[float, float] = (-1.0, 1.0),
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.widths = tuple(check_sizes(widths, "widths"))
        if len(self.widths) < 2:
            raise ValueError(f"widths must be at least two, of the input and of the output, got {list(widths)}")
        n_layers = len(self.widths) - 1
        sizes = list(grid_size) if isinstance(grid_size, Sequence) else [grid_size] * n_layers
        if len(sizes) != n_layers:
            raise ValueError(f"grid_size must be one number, or one for each of {n_layers} layers, got {sizes}")
        self.layers = nn.ModuleList(
            KANLayer(
                width,
                next_width,
                grid_size=size,
                degree=degree,
                base=base,
                grid_range=grid_range,
                generator=generator,
                dtype=dtype,
            )
            for width, next_width, size in zip(self.widths[:-1], self.widths[1:], sizes, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, widths[-1]) for ``x`` of shape (batch, widths[0]).

        Raises:
            ValueError: ``x`` has another width.
        """
        for layer in self.layers:
            x = layer(x)
        return x

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return the values at all nodes, (batch, width) for each of ``widths``, the input ``x`` first.

        Raises:
            ValueError: ``x`` is not of shape (batch, widths[0]).
        """
        values = [x]
        for layer in self.layers:
            values.append(layer(values[-1]))
        return values

    def config(self) -> dict[str, Any]:
        """Return what the constructor needs to make a network of the same shape, as plain numbers and text."""
        layers = layers_of(self)
        sizes = [layer.grid_size for layer in layers]
        return {
            "widths": list(self.widths),
            "grid_size": sizes[0] if len(set(sizes)) == 1 else sizes,
            "degree": layers[0].degree,
            "base": layers[0].base,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write shape, weights and known functions to a file of tensors and plain values, no pickled code; see `load`.

        Raises:
            ValueError: an edge has a function of your own under a name that means another one in `FUNCTIONS`; the file
                keeps only names.
        """
        names = []
        for layer in layers_of(self):
            edges = {f"{i},{j}": edge for (i, j), edge in layer.known_functions.items()}
            for place, edge in edges.items():
                if FUNCTIONS.get(edge.name, edge.function) is not edge.function:
                    raise ValueError(f"edge {place}: the function {edge.name!r} is not the one that FUNCTIONS has")
            names.append({place: edge.name for place, edge in edges.items()})
        torch.save({"config": self.config(), "symbolic": names, "state": self.state_dict()}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, onto the CPU, in training mode; draws nothing from torch's global stream.

        Raises:
            FileNotFoundError: there is no such file.
            pickle.UnpicklingError: the file holds more than tensors and plain values.
            ValueError: it holds something else than a saved KAN, or an edge whose function is not in `FUNCTIONS`.
        """
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or set(content) != {"config", "symbolic", "state"}:
            raise ValueError(f"{os.fspath(path)} is not a file that KAN.save wrote")
        dtype = content["state"]["layers.0.coefficients"].dtype
        model = cls(**content["config"], generator=torch.Generator(), dtype=dtype)
        for layer, names in zip(layers_of(model), content["symbolic"], strict=True):
            for place, name in names.items():
                layer.symbolic_edges[place] = SymbolicEdge(name, dtype=dtype)
        model.load_state_dict(content["state"])
        return model


def layers_of(model: KANBase) -> list[KANLayer]:
    """Return the network's layers, as what they are: torch types the items of a ModuleList as Module."""
    return list(model.layers)  # type: ignore[arg-type]
