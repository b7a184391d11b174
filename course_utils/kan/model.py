"""The network that users build, with everything one does with it as methods."""

from __future__ import annotations

from course_utils.kan.network import KANBase

__all__ = ["KAN"]


class KAN(KANBase):
    """A Kolmogorov-Arnold network with the given widths, such as ``KAN([2, 5, 1])``; arguments as `KANBase`.

    Example:
        >>> model = KAN([2, 5, 1], grid_size=5)
        >>> model(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
    """
