"""The Kolmogorov-Arnold network: layers of edge functions, one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from course_utils._validation import check_sizes
from course_utils.kan.layer import KANLayer

__all__ = ["KAN"]


class KAN(nn.Module):
    """A Kolmogorov-Arnold network with the given widths, such as ``KAN([2, 5, 1])``.

    Input (batch, widths[0]), output (batch, widths[-1]). There is no activation between the layers: the edges are the
    nonlinearity.

    Args:
        widths: of the input, the hidden layers and the output; at least two, each at least 1.
        grid_size: intervals of every grid.
        degree: of the splines.
        base: see `KANLayer`.
        grid_range: where all grids begin and end at first.
        generator: draws the initial weights; ``None`` is torch's global stream.
        dtype: of the parameters; by default torch's.

    Raises:
        TypeError, ValueError: as `KANLayer`, or there are fewer than two widths.

    Example:
        >>> model = KAN([2, 5, 1], grid_size=5)
        >>> model(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        grid_size: int = 5,
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
        self.layers = nn.ModuleList(
            KANLayer(
                width,
                next_width,
                grid_size=grid_size,
                degree=degree,
                base=base,
                grid_range=grid_range,
                generator=generator,
                dtype=dtype,
            )
            for width, next_width in zip(self.widths[:-1], self.widths[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, widths[-1]) for ``x`` of shape (batch, widths[0])."""
        for layer in self.layers:
            x = layer(x)
        return x

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return the values at all nodes, layer by layer, the input first and the output last."""
        values = [x]
        for layer in self.layers:
            values.append(layer(values[-1]))
        return values

    def config(self) -> dict[str, Any]:
        """Return what the constructor needs to make a network of the same shape, as plain numbers and text."""
        first: KANLayer = self.layers[0]  # type: ignore[assignment]
        return {
            "widths": list(self.widths),
            "grid_size": first.grid_size,
            "degree": first.degree,
            "base": first.base,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write shape and weights to a file of tensors and plain values, without pickled code; see `load`."""
        torch.save({"config": self.config(), "state": self.state_dict()}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            pickle.UnpicklingError: the file holds more than tensors and plain values.
            ValueError: it holds something else than a saved KAN.
        """
        content = torch.load(path, weights_only=True)
        if not isinstance(content, dict) or set(content) != {"config", "state"}:
            raise ValueError(f"{os.fspath(path)} is not a file that KAN.save wrote")
        model = cls(**content["config"], dtype=content["state"]["layers.0.coefficients"].dtype)
        model.load_state_dict(content["state"])
        return model
