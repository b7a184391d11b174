"""Find where NaN or infinity appears first: in weights, inputs, a forward or a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from course_utils.monitoring.hooks import (
    Call,
    Trace,
    has_children,
    inner_modules,
    own_parameters,
    tensors_of,
    trace,
    unwrap,
)

__all__ = ["NonFinite", "find_nonfinite", "first_nonfinite", "is_finite"]

_CALM_DOWN = "Try a smaller learning rate, clip_norm=1.0 or another initialization."
_CURES = {
    "inputs": "Clean the data: inputs.isfinite().all() should be true.",
    "weight": _CALM_DOWN,
    "output": _CALM_DOWN,
    "loss": "Check the targets and the loss function.",
    "gradient": "A square root, a logarithm or a quotient has no finite derivative at 0: add a small number inside it.",
}


@dataclass(frozen=True)
class NonFinite:
    """Where NaN or infinity appears first.

    Attributes:
        name: the module, as in ``model.named_modules()``, where the model itself is ``""``; ``"inputs"`` or ``"loss"``
            if it is no module.
        where: ``"inputs"``, ``"weight"`` (a parameter was bad before the pass), ``"output"``, ``"loss"``, or
            ``"gradient"`` (the forward pass is clean, the backward pass through the module or the loss is not).
        blamed: what of the module it is, in words; empty if it is no module.
    """

    name: str
    where: str
    blamed: str = field(default="", compare=False, repr=False)

    @property
    def layer(self) -> str | None:
        """The module's name, or ``None`` if no module is to blame."""
        return self.name if self.blamed else None

    @property
    def what(self) -> str:
        """What is not finite, as the end of a sentence."""
        others = {
            "inputs": "the inputs of this batch",
            "loss": "the loss itself; all layers' outputs are finite",
            "gradient": "the gradient of the loss by the output; outputs and loss are finite",
        }
        return self.blamed or others[self.where]

    @property
    def cure(self) -> str:
        """What to try, in a sentence."""
        return _CURES[self.where]

    def __str__(self) -> str:
        return f"the first NaN or infinity is in {self.what}"


def find_nonfinite(
    model: nn.Module,
    inputs: Any = None,
    targets: Any = None,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
) -> NonFinite | None:
    """Return where NaN or infinity appears first, or ``None`` if everything is finite.

    It looks at what it is given: a model alone at its parameters, in the order of definition; with inputs at these and
    at a forward pass, in the mode that the model is in; with a loss at a training step's forward and backward pass.
    Modules are asked in the order in which they finish, so inner ones before those that contain them.

    Like ``torch.autograd.detect_anomaly`` it finds the spot, but names the module instead of the C++ node, sees a bad
    forward pass as well, runs only when called, and does not raise. It leaves no trace, as `diagnose`.

    Args:
        model: any module, compiled or not.
        inputs: what the model takes, ``(batch, ...)``.
        targets: what ``loss_fn`` compares the output with.
        loss_fn: ``loss_fn(outputs, targets)`` returns a scalar tensor.

    Raises:
        ValueError: no gradient from the loss, or the model is scripted or spread over devices by ``DataParallel``.
    """
    if inputs is not None:
        return first_nonfinite(trace(model, inputs, targets, loss_fn)) if is_finite(inputs) else _INPUTS
    named = dict(inner_modules(unwrap(model)))
    modules = set(named.values())
    for name, module in named.items():
        for kind, parameter in own_parameters(module, modules).items():
            if not is_finite(parameter):
                return _found(Call(name, module, None, []), "weight", kind)
    return None


_INPUTS = NonFinite("inputs", "inputs")


def first_nonfinite(passed: Trace) -> NonFinite | None:
    """Return the first place in a pass, followed forward and then backward."""
    if not is_finite(passed.inputs):
        return _INPUTS
    for call in passed.calls:
        for kind, parameter in call.parameters.items():
            if not is_finite(parameter):
                return _found(call, "weight", kind)
        if not is_finite(call.outputs):
            return _found(call, "output")
    if passed.loss is None:
        return None
    if not is_finite(passed.loss):
        return NonFinite("loss", "loss")
    passed_through = NonFinite("loss", "gradient")  # what the gradient came out of on its way to the call at hand
    for call in reversed(passed.calls):
        if not is_finite(call.gradients):
            return passed_through
        passed_through = _found(call, "gradient")
        if not is_finite(list(call.parameter_gradients.values())):
            return passed_through
    return None


def is_finite(value: Any) -> bool:
    """Tell whether all floating-point tensors in a value, nested or not, are finite throughout."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors_of(value))


def _found(call: Call, where: str, kind: str = "") -> NonFinite:
    module, name = call.module, call.name
    if not name:
        described = "the model"
    elif has_children(module):
        described = f"block '{name}' ({type(module).__name__})"
    else:
        described = f"layer '{name}' ({type(module).__name__}({module.extra_repr()}))"
    whats = {"weight": f"the {kind} of", "output": "the output of", "gradient": "the gradient that comes back through"}
    return NonFinite(name, where, f"{whats[where]} {described}")
