"""The multilayer perceptron, and parameter counts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_utils._validation import check_in_range, check_one_of, check_sizes
from course_utils.init import init_weights

__all__ = ["ACTIVATIONS", "MLP", "count_parameters"]

#: Name → what makes the module, for the names that ``activation=`` takes, here and in `course_utils.tabular`.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

_NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Sequential):
    """A multilayer perceptron: per hidden layer Linear → [norm] → activation → [dropout], then a linear output.

    It is a plain ``nn.Sequential`` whose modules have speaking names (``linear1``, ``norm1``, ``activation1``,
    ``dropout1``, …, ``output``), so it prints, slices and hooks as torch users expect. Input of shape
    ``(batch, in_features)``, output ``(batch, out_features)``: logits or predictions, without a last activation.

    Args:
        in_features: width of the input, at least 1.
        hidden_features: widths of the hidden layers; ``[]`` makes a linear model.
        out_features: width of the output, at least 1.
        activation: one of `ACTIVATIONS`, or a function that returns a new module for each hidden layer.
        norm: ``None``, ``"batch"`` or ``"layer"``, or a function from the width to a module.
        norm_position: ``"before"`` or ``"after"`` the activation.
        dropout: probability of *dropping* a hidden activation, in [0, 1).
        init: a scheme of `init.SCHEMES` for all linear layers; ``None`` keeps torch's default.
        bias: whether the linear layers have one.
        generator: draws the initial weights if ``init`` is given; ``None`` is torch's global stream.

    Raises:
        TypeError, ValueError: an argument outside what is said above; the message shows its value.

    Example:
        >>> model = MLP(784, [100, 100], 10, activation="relu", init="kaiming_normal")
        >>> count_parameters(model)
        89610
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        norm: str | Callable[[int], nn.Module] | None = None,
        norm_position: str = "before",
        dropout: float = 0.0,
        init: str | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        check_in_range(dropout, "dropout", 0.0, 1.0)
        check_one_of(norm_position, "norm_position", ("before", "after"))
        make_activation = activation if callable(activation) else _look_up(activation, "activation", ACTIVATIONS)
        make_norm = norm if norm is None or callable(norm) else _look_up(norm, "norm", _NORMS)

        modules: OrderedDict[str, nn.Module] = OrderedDict()
        width = in_features
        for number, next_width in enumerate(check_sizes(hidden_features, "hidden_features"), start=1):
            block: list[tuple[str, nn.Module]] = [("activation", make_activation())]
            if make_norm is not None:
                block.insert(0 if norm_position == "before" else 1, ("norm", make_norm(next_width)))
            if dropout > 0:
                block.append(("dropout", nn.Dropout(dropout)))
            modules[f"linear{number}"] = nn.Linear(width, next_width, bias=bias)
            modules.update((f"{role}{number}", module) for role, module in block)
            width = next_width
        modules["output"] = nn.Linear(width, out_features, bias=bias)

        super().__init__(modules)
        self.in_features = in_features
        self.out_features = out_features
        if init is not None:
            # A gain exists for named activations only; a custom one gets the scheme's own factor.
            name = activation if isinstance(activation, str) and init.startswith("kaiming") else None
            init_weights(self, init, activation=name, generator=generator)

    def __getitem__(self, index: slice | int) -> Any:
        """Return one module, or for a slice a plain ``nn.Sequential`` that shares the modules."""
        if isinstance(index, slice):  # nn.Sequential would call this class's constructor with the modules
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the output for ``inputs`` of shape (batch, in_features).

        Raises:
            ValueError: the inputs have another width.
        """
        if inputs.shape[-1] != self.in_features or inputs.ndim < 2:
            raise ValueError(f"inputs must have shape (batch, {self.in_features}), got {tuple(inputs.shape)}")
        output: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return output


def _look_up(name: str, argument: str, table: dict[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    return table[check_one_of(name, argument, table)]


def count_parameters(model: nn.Module, *, trainable_only: bool = True) -> int:
    """Return the number of parameters; BatchNorm's running statistics are buffers and do not count.

    Args:
        model: any module; a parameter shared by several layers counts once.
        trainable_only: leave frozen parameters (``requires_grad=False``) out.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)
