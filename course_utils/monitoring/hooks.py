"""Find a network's layers and weights, look at one pass through hooks that always come off, and leave no trace."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence

__all__ = [
    "SATURATION_TOL",
    "Call",
    "Trace",
    "Uncompiled",
    "Weight",
    "activation_modules",
    "asymptotes",
    "by_unit",
    "dead_share",
    "has_children",
    "inner_modules",
    "is_activation",
    "layer_weights",
    "own_parameters",
    "saturated_share",
    "tensors_of",
    "trace",
    "undisturbed",
    "unwrap",
    "watchable",
    "weights_of",
]

# How close to its asymptote an activation counts as saturated: tanh beyond ±0.97, the sigmoid outside [0.03, 0.97].
# There the derivative is 6% (tanh) or 12% (sigmoid) of its largest value.
SATURATION_TOL = 0.03

# By name, so that the course's own BatchNorm1d and Dropout are recognised like torch's.
_NOT_ACTIVATIONS = ("Norm", "Dropout", "Identity", "Flatten", "Unflatten", "Embedding", "Pool", "Loss")
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)

_ASYMPTOTES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-1.0, 1.0),
    nn.Sigmoid: (0.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
}
# torch's names of weights: of most layers, of recurrent ones (weight_ih_l0), of attention (in_proj_weight).
_WEIGHT_NAME = re.compile(r"weight|weight_[ih][hr].*|\w+_proj_weight")
# torch's older weight_norm, spectral_norm and pruning keep under these names what they compute the weight from.
_OLD_SUFFIXES = ("_orig", "_g", "_v")


# --- modules and weights ----------------------------------------------------------------------------------------------


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module that was compiled, or the model itself if it was not."""
    return unwrap(model._modules["_orig_mod"]) if "_orig_mod" in model._modules else model  # type: ignore[arg-type]


def inner_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and modules as ``named_modules()`` of a model that is neither compiled nor parametrized."""
    for name, module in model.named_modules():
        parts = name.split(".")
        if "parametrizations" not in parts and "_orig_mod" not in module._modules:
            yield ".".join(part for part in parts if part != "_orig_mod"), module


def has_children(module: nn.Module) -> bool:
    """Tell whether a module contains others, apart from those that compute its weights."""
    return any(name != "parametrizations" for name, _ in module.named_children())


@dataclass(frozen=True)
class Weight:
    """A weight of a layer, under its attribute's name, and the parameters that hold it.

    That is itself, unless it is computed: by a parametrization (``torch.nn.utils.parametrizations``), or by a hook
    (``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune``).
    """

    layer: nn.Module
    name: str
    parameters: tuple[nn.Parameter, ...]

    def value(self) -> Tensor:
        """Return the weight as it is now, detached; computing it changes nothing (no step of a power iteration)."""
        plain = self.layer._parameters.get(self.name)
        if plain is not None:
            return plain.detach()
        with undisturbed(self.layer), torch.no_grad():
            self.layer.eval()
            for hook in self.layer._forward_pre_hooks.values():
                if getattr(hook, "name", getattr(hook, "_tensor_name", None)) == self.name:
                    hook(self.layer, ())
                    return torch.as_tensor(vars(self.layer)[self.name])
            computed: Tensor = self.layer.parametrizations[self.name]()  # type: ignore[index,operator]
            return computed


def weights_of(layer: nn.Module) -> list[Weight]:
    """Return the weights of at least two axes that a module owns itself, computed ones included."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in layer.named_parameters(recurse=False):
        if is_lazy(parameter):
            raise ValueError(f"{layer} has no weights before its first batch; call the model on one, then look at it")
        bases = [name.removesuffix(suffix) for suffix in _OLD_SUFFIXES if name.endswith(suffix)]
        computed = [base for base in bases if isinstance(vars(layer).get(base), Tensor)]
        found.setdefault(computed[0] if computed else name, []).append(parameter)
    for name, parametrization in dict(layer.named_children()).get("parametrizations", nn.Module()).named_children():
        found[name] = list(parametrization.parameters())
    return [
        Weight(layer, name, tuple(parameters))
        for name, parameters in found.items()
        if _WEIGHT_NAME.fullmatch(name) and any(parameter.ndim >= 2 for parameter in parameters)
    ]


def own_parameters(module: nn.Module, called: Collection[nn.Module]) -> dict[str, nn.Parameter]:
    """Return name → parameter of a module itself.

    To these belong what its weights are computed from, and the parameters of modules inside that are not ``called``
    but used (the output projection of an attention).
    """
    own = dict(module.named_parameters(recurse=False))
    inside = ["parametrizations"]
    if own:
        inside += [name for name, child in module.named_children() if child not in called]
    for child_name, child in module.named_children():
        if child_name in inside:
            own |= {f"{child_name}.{name}": parameter for name, parameter in child.named_parameters()}
    return own


def layer_weights(model: nn.Module) -> dict[str, Weight]:
    """Return label → weight of all layers, as registered.

    The label is the module's name where the weight is called ``weight``, and has the weight's name besides where it is
    not (``lstm.weight_hh_l0``). A weight that several modules share is listed once, under the first of their names.
    """
    weights: dict[str, Weight] = {}
    seen: set[int] = set()
    for name, module in inner_modules(model):
        for weight in weights_of(module):
            ids = {id(parameter) for parameter in weight.parameters}
            if not ids <= seen:
                label = name or "model" if weight.name == "weight" else f"{name}.{weight.name}".lstrip(".")
                weights[label] = weight
            seen |= ids
    return weights


def is_activation(module: nn.Module) -> bool:
    """Tell whether a module is an activation: no children, no weight matrix, no normalization, dropout or reshape."""
    kind = type(module).__name__
    if has_children(module) or any(word in kind for word in _NOT_ACTIVATIONS):
        return False
    return all(parameter.ndim < 2 for parameter in module.parameters())


def activation_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return name → module for the activation modules (see `is_activation`) and recurrent layers, as registered."""
    return {
        name or "model": module
        for name, module in inner_modules(model)
        if is_activation(module) or isinstance(module, _RECURRENT)
    }


def asymptotes(module: nn.Module) -> tuple[float, float] | None:
    """Return the two values a squashing activation approaches, or ``None`` for one that has not two."""
    if type(module) is nn.Hardtanh:  # not its subclass ReLU6, whose lower end is the ordinary state "off"
        return module.min_val, module.max_val
    if isinstance(module, nn.RNN | nn.RNNCell):
        return (-1.0, 1.0) if module.nonlinearity == "tanh" else None
    return _ASYMPTOTES.get(type(module))


def watchable(model: nn.Module) -> nn.Module:
    """Return the model unwrapped, or raise if hooks on its modules would not tell what happens in it."""
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError("TorchScript does not call hooks; look at the module that was scripted or traced")
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError(
                f"DataParallel calls copies of its modules on {len(module.device_ids)} devices, which hooks cannot "
                "tell apart; look at model.module on one device"
            )
    return unwrap(model)


# --- numbers ----------------------------------------------------------------------------------------------------------


def tensors_of(value: Any) -> list[Tensor]:
    """Return the floating-point tensors in what a module takes or gives: one, or tuples, lists and dicts of them."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, PackedSequence):
        return [value.data]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.clone())
    if type(value) in (tuple, list):
        return type(value)(_cloned(part) for part in value)
    if type(value) is dict:
        return {key: _cloned(part) for key, part in value.items()}
    return value


def by_unit(activations: Tensor) -> Tensor:
    """Return activations as (batch, units): every position of a sample is a unit of its own."""
    return activations.flatten(1) if activations.ndim > 1 else activations.unsqueeze(1)


def dead_share(activations: Tensor) -> Tensor:
    """Return the share of the columns of (batch, units) that are 0 in every row."""
    return (activations == 0).all(dim=0).float().mean()


def saturated_share(activations: Tensor, low: float, high: float, tol: float) -> Tensor:
    """Return the share of the entries within ``tol`` of ``low`` or ``high``, or beyond them."""
    return ((activations <= low + tol) | (activations >= high - tol)).float().mean()


# --- one pass -----------------------------------------------------------------------------------------------------


class Uncompiled:
    """Make compiled models run as they were written, for as long as anybody looks at modules through hooks.

    A compiled graph does not call hooks that came after it, and goes on calling those that it was made with.
    """

    _users = 0
    _stance: Any = None

    @classmethod
    def enter(cls) -> None:
        """Begin; `leave` as often."""
        if cls._users == 0:
            cls._stance = torch.compiler.set_stance("force_eager")
        cls._users += 1

    @classmethod
    def leave(cls) -> None:
        """End; the last one lets compiled models run compiled again."""
        cls._users -= 1
        if cls._users == 0:
            cls._stance.__exit__(None, None, None)


@dataclass
class Call:
    """One call of a module in a forward pass: what went in, what came out, and the gradients that came back."""

    name: str
    module: nn.Module
    inputs: Tensor | None
    outputs: list[Tensor]
    #: With respect to the outputs; empty where no gradient came.
    gradients: list[Tensor] = field(default_factory=list)
    #: The module's own, and those of modules inside it that were not called (an attention's output projection).
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    parameter_gradients: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Trace:
    """One pass: what went in, the calls in the order in which they ended, and the loss, if one was asked for."""

    #: Whether one is being made. Its pass is none of a training's; monitors leave it out.
    running: ClassVar[bool] = False

    inputs: Any
    calls: list[Call]
    loss: Tensor | None


def trace(
    model: nn.Module, inputs: Any, targets: Any = None, loss_fn: Callable[[Any, Any], Tensor] | None = None
) -> Trace:
    """Run one pass and return what every module did in it.

    With a loss it is a training step's, forward and backward in training mode; without, forward only, in the mode that
    the model is in. Nothing of it remains: no ``.grad`` is touched, and modes, buffers (BatchNorm's statistics, the
    vectors of a spectral norm), attributes and random numbers are put back. A compiled model runs uncompiled.

    Raises:
        ValueError: the loss is not a single number, no gradient flows, or hooks do not work (see `watchable`).
    """
    model = watchable(model)
    calls: list[Call] = []

    def listen(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
            first = next((tensor.detach().clone() for tensor in tensors_of([arguments, keywords])), None)
            calls.append(Call(name, module, first, tensors_of(output)))
            return _cloned(output)  # so that an in-place activation after it overwrites the copy, not the evidence

        return hook

    handles = []
    # Anomaly detection would stop the backward pass at the very NaN that is being looked for.
    with undisturbed(model), torch.set_grad_enabled(loss_fn is not None), torch.autograd.set_detect_anomaly(False):
        Trace.running = True
        try:
            for name, module in inner_modules(model):
                handles.append(module.register_forward_hook(listen(name), with_kwargs=True))
            if loss_fn is None:
                model(inputs)
            else:
                model.train()
                loss = loss_fn(model(inputs), targets)
        finally:
            Trace.running = False
            for handle in handles:
                handle.remove()
        called = {call.module for call in calls}
        for call in calls:
            call.parameters = own_parameters(call.module, called)
        if loss_fn is None:
            return Trace(inputs, calls, None)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(type(loss).__name__)
            raise ValueError(f"loss_fn must return a tensor that holds one number, got {found}")
        if not loss.requires_grad:
            raise ValueError("no gradient flows from the loss: every parameter is frozen, or the graph was detached")
        _attach_gradients(calls, loss)
    return Trace(inputs, calls, loss.detach())


def _attach_gradients(calls: list[Call], loss: Tensor) -> None:
    outputs = [(call, output) for call in calls for output in call.outputs if output.requires_grad]
    owned = [(call, name, p) for call in calls for name, p in call.parameters.items() if p.requires_grad]
    wanted = [output for _, output in outputs] + [parameter for *_, parameter in owned]
    found = torch.autograd.grad(loss.reshape(()), wanted, allow_unused=True)
    for (call, _), gradient in zip(outputs, found, strict=False):
        if gradient is not None:
            call.gradients.append(gradient)
    for (call, name, _), gradient in zip(owned, found[len(outputs) :], strict=True):
        if gradient is not None:
            call.parameter_gradients[name] = gradient.to_dense()  # an embedding's may be sparse


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put back modes, attributes, buffers, parameters and random numbers; compiled code does not run inside."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    attributes = [dict(vars(module)) for module in modules]
    registered = [dict(module._buffers) for module in modules]
    # Parameters too: nn.Embedding with max_norm shortens its vectors in a forward pass.
    values = [(tensor, tensor.detach().clone()) for tensor in [*model.parameters(), *model.buffers()]]
    gpus = {tensor.device for tensor, _ in values if tensor.device.type == "cuda"}
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is meant
    can_be_compiled = "torch._dynamo" in sys.modules  # who has not compiled anything need not wait for its import
    if can_be_compiled:
        Uncompiled.enter()
    with torch.random.fork_rng(devices=list(gpus)):
        try:
            yield
        finally:
            if can_be_compiled:
                Uncompiled.leave()
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            for module, mode, before, buffers in zip(modules, modes, attributes, registered, strict=True):
                module.training = mode
                vars(module).clear()
                vars(module).update(before)
                module._buffers.clear()
                module._buffers.update(buffers)
            with torch.no_grad():
                for tensor, before_pass in values:
                    # Only what changed: writing would invalidate a graph that waits for its backward pass.
                    if not torch.equal(tensor, before_pass):
                        tensor.copy_(before_pass)
