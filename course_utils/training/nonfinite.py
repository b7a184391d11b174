"""Say where a training loss became NaN or infinite: the first layer, and the error that carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from course_utils.training.history import History

__all__ = ["Culprit", "NonFiniteLossError", "find_nonfinite", "find_nonfinite_parameter"]


class NonFiniteLossError(FloatingPointError):
    """The training loss became NaN or infinite.

    Attributes:
        history: of the epochs that were finished before.
        epoch: in which it happened, from 1.
        step: at which optimizer step of that epoch, from 1.
        layer: the first module, in the order of computation, whose weights or output are not finite, by its name in
            ``model.named_modules()``; None if the inputs or the loss itself are to blame.
    """

    def __init__(self, message: str, *, history: History, epoch: int, step: int, layer: str | None) -> None:
        super().__init__(message)
        self.history = history
        self.epoch = epoch
        self.step = step
        self.layer = layer


class Culprit(NamedTuple):
    """Where the first non-finite value is.

    Attributes:
        layer: the module's name in ``model.named_modules()``; None if no module is to blame.
        what: what is not finite, as the end of a sentence.
        cure: what to try.
    """

    layer: str | None
    what: str
    cure: str


_CALM_DOWN = "Try a smaller learning rate, clip_norm=1.0 or another initialization."


def find_nonfinite(model: nn.Module, inputs: Tensor) -> Culprit:
    """Run the model forward once more, and return the first thing that is not finite.

    Modules are asked in the order in which they finish, so inner ones before those that contain them. The pass runs
    in the mode that the model is in, without gradients; its hooks are gone afterwards.

    Args:
        model: with the weights that led to the bad loss.
        inputs: the batch, ``(batch, ...)``.
    """
    if not _finite(inputs):
        return Culprit(None, "the inputs of this batch", "Clean the data: inputs.isfinite().all() should be true.")
    # Inside a compiled model hooks do not fire; the module that was compiled computes the same.
    module: nn.Module = getattr(model, "_orig_mod", model)
    found: list[Culprit] = []
    handles = []

    def watch(name: str, layer: nn.Module) -> None:
        def look(_: nn.Module, __: object, output: object) -> None:
            if not found and not _finite(output):
                found.append(_blame(name, layer))

        handles.append(layer.register_forward_hook(look))

    try:
        for name, layer in module.named_modules():
            watch(name, layer)
        with torch.no_grad():
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    return Culprit(None, "the loss itself; all layers' outputs are finite", "Check the targets and the loss function.")


def find_nonfinite_parameter(model: nn.Module) -> Culprit | None:
    """Return the first parameter, in the order of definition, that holds a NaN or an infinity; None if none does."""
    module: nn.Module = getattr(model, "_orig_mod", model)
    for name, parameter in module.named_parameters():
        if not _finite(parameter):
            owner, _, kind = name.rpartition(".")
            return Culprit(owner, f"the {kind} of {_describe(owner, module.get_submodule(owner))}", _CALM_DOWN)
    return None


def _blame(name: str, layer: nn.Module) -> Culprit:
    """Blame the layer's weights if they are bad already, else its output."""
    for kind, parameter in layer.named_parameters(recurse=False):
        if not _finite(parameter):
            return Culprit(name, f"the {kind} of {_describe(name, layer)}, before this step", _CALM_DOWN)
    return Culprit(name, f"the output of {_describe(name, layer)}", _CALM_DOWN)


def _describe(name: str, layer: nn.Module) -> str:
    if not name:
        return "the model"
    kind = type(layer).__name__
    if next(layer.children(), None) is not None:
        return f"block '{name}' ({kind})"
    return f"layer '{name}' ({kind}({layer.extra_repr()}))"


def _finite(value: object) -> bool:
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    return not isinstance(value, tuple | list) or all(_finite(part) for part in value)
