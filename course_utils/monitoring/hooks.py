"""Find a network's layers, watch them through hooks that always come off, and keep what they report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from course_utils._validation import check_int, check_one_of

if TYPE_CHECKING:  # pandas costs more to import than a lesson's first figure takes to draw
    import pandas as pd

__all__ = [
    "SATURATION_TOL",
    "Call",
    "Recorder",
    "Trace",
    "activation_modules",
    "asymptotes",
    "by_unit",
    "dead_share",
    "is_activation",
    "layer_weights",
    "saturated_share",
    "trace",
]

# How close to its asymptote an activation counts as saturated: tanh beyond ±0.97, the sigmoid outside [0.03, 0.97].
# There the derivative is 6% (tanh) or 12% (sigmoid) of its largest value.
SATURATION_TOL = 0.03

# By name, so that the course's own BatchNorm1d and Dropout are recognised like torch's.
_NOT_ACTIVATIONS = ("Norm", "Dropout", "Identity", "Flatten", "Embedding", "Pool", "Loss")

_ASYMPTOTES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-1.0, 1.0),
    nn.Sigmoid: (0.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
}


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return name → weight of every layer, a module that owns a ``weight`` of at least two axes, as registered.

    A weight that several modules share is listed once, under the first of their names.
    """
    weights: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim >= 2 and id(weight) not in seen:
            seen.add(id(weight))
            weights[name or "model"] = weight
    return weights


def is_activation(module: nn.Module) -> bool:
    """Tell whether a module is an activation: no children, no weight matrix, no normalization, dropout or reshape."""
    kind = type(module).__name__
    if any(True for _ in module.children()) or any(word in kind for word in _NOT_ACTIVATIONS):
        return False
    return all(parameter.ndim < 2 for parameter in module.parameters(recurse=False))


def activation_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return name → module for the activation modules (see `is_activation`), as registered."""
    return {name or "model": module for name, module in model.named_modules() if is_activation(module)}


def asymptotes(module: nn.Module) -> tuple[float, float] | None:
    """Return the two values a squashing activation approaches, or ``None`` for one that has not two."""
    if type(module) is nn.Hardtanh:  # not its subclass ReLU6, whose lower end is the ordinary state "off"
        return module.min_val, module.max_val
    return _ASYMPTOTES.get(type(module))


def by_unit(activations: Tensor) -> Tensor:
    """Return activations as (batch, units): every position of a sample is a unit of its own."""
    return activations.flatten(1) if activations.ndim > 1 else activations.unsqueeze(1)


def dead_share(activations: Tensor) -> Tensor:
    """Return the share of the columns of (batch, units) that are 0 in every row."""
    return (activations == 0).all(dim=0).float().mean()


def saturated_share(activations: Tensor, low: float, high: float, tol: float) -> Tensor:
    """Return the share of the entries within ``tol`` of ``low`` or ``high``, or beyond them."""
    return ((activations <= low + tol) | (activations >= high - tol)).float().mean()


class Recorder:
    """Rows of numbers (one per step, one number per layer and quantity) that hooks deliver while it is open.

    Base class: a subclass names its ``quantities``, hangs its hooks with `_watch` and delivers with `_record`.
    """

    quantities: ClassVar[tuple[str, ...]] = ()
    tag: ClassVar[str] = ""
    hint: ClassVar[str] = ""

    def __init__(self, *, every: int, log_dir: str | Path | None) -> None:
        self.every = check_int(every, "every", minimum=1)
        self.layers: list[str] = []
        self.steps: list[int] = []
        self._rows: list[Tensor] = []
        self._handles: list[Any] = []
        self._state = "new"
        self._writer: Any = None
        if log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            # Ten seconds instead of two minutes: a lesson's whole training fits between two default flushes.
            self._writer = SummaryWriter(str(log_dir), flush_secs=10)

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(f"this {type(self).__name__} is {self._state} already; make a new one per with-block")
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take all hooks off the model and close the TensorBoard file; what was recorded stays. May be repeated."""
        while self._handles:
            self._handles.pop().remove()
        self._flush()
        self._state = "closed"
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def values(self, quantity: str | None = None) -> Tensor:
        """Return what was recorded of one quantity, shape (records, layers); NaN where a layer had nothing to report.

        Args:
            quantity: one of ``self.quantities``; ``None`` takes the first.

        Raises:
            ValueError: an unknown quantity.
        """
        column = self.quantities.index(self._check(quantity))
        self._flush()
        table = torch.full((len(self._rows), len(self.layers)), torch.nan)
        for row, record in enumerate(self._rows):
            table[row, : len(record)] = record[:, column]
        return table

    def latest(self, quantity: str | None = None) -> dict[str, float]:
        """Return layer → value of the newest record.

        Raises:
            RuntimeError: nothing has been recorded.
        """
        table = self.values(quantity)
        if not len(table):
            raise RuntimeError(f"nothing recorded yet: {self.hint} (every={self.every})")
        return dict(zip(self.layers, table[-1].tolist(), strict=True))

    def to_frame(self, quantity: str | None = None) -> pd.DataFrame:
        """Return one quantity as a table: a row per recorded step, a column per layer."""
        import pandas as pd

        table = self.values(quantity)
        return pd.DataFrame(table.numpy(), index=pd.Index(self.steps, name="step"), columns=self.layers)

    def _check(self, quantity: str | None) -> str:
        return str(check_one_of(quantity or self.quantities[0], "quantity", self.quantities))

    def _watch(self, handle: Any) -> None:
        self._handles.append(handle)

    def _flush(self) -> None:
        """Deliver a record that waits for its step to end; for subclasses."""

    def _record(self, step: int, row: Tensor) -> None:
        """Keep a row of shape (layers, quantities), and write it to TensorBoard if that was asked for."""
        self.steps.append(step)
        self._rows.append(row)
        if self._writer is not None:
            for layer, numbers in zip(self.layers, row.tolist(), strict=False):
                for quantity, number in zip(self.quantities, numbers, strict=True):
                    self._writer.add_scalar(f"{self.tag}_{quantity}/{layer}", number, step)


@dataclass
class Call:
    """One call of a module in a forward pass: what went in, what came out, and the gradients that came back."""

    name: str
    module: nn.Module
    inputs: Tensor | None
    output: Tensor
    gradient: Tensor | None = None  # with respect to the output; None where no gradient came
    parameter_gradients: tuple[Tensor, ...] = ()


@dataclass
class Trace:
    """One forward and backward pass: the calls in the order of execution, and the loss."""

    calls: list[Call]
    loss: Tensor


def trace(model: nn.Module, inputs: Tensor, targets: Any, loss_fn: Callable[[Any, Any], Tensor]) -> Trace:
    """Run one training-mode forward and backward pass and return what every innermost module did in it.

    Nothing of it remains: no ``.grad`` is touched, and mode, buffers (BatchNorm's statistics) and random numbers are
    put back.

    Raises:
        ValueError: the loss is not a single number, or no gradient flows.
    """
    calls: list[Call] = []

    def listen(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
            if not isinstance(output, Tensor):
                return None
            first = arguments[0] if arguments and isinstance(arguments[0], Tensor) else None
            calls.append(Call(name, module, None if first is None else first.detach().clone(), output))
            return output.clone()  # so that an in-place activation after it overwrites the copy, not the evidence

        return hook

    handles = []
    # Anomaly detection would stop the backward pass at the very NaN that is being looked for.
    with _undisturbed(model), torch.enable_grad(), torch.autograd.set_detect_anomaly(False):
        try:
            for name, module in model.named_modules():
                if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False)):
                    handles.append(module.register_forward_hook(listen(name or "model")))
            loss = loss_fn(model(inputs), targets)
        finally:
            for handle in handles:
                handle.remove()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(type(loss).__name__)
            raise ValueError(f"loss_fn must return a tensor that holds one number, got {found}")
        if not loss.requires_grad:
            raise ValueError("no gradient flows from the loss: every parameter is frozen, or the graph was detached")
        _attach_gradients(calls, loss)
    return Trace(calls, loss.detach())


def _attach_gradients(calls: list[Call], loss: Tensor) -> None:
    parameters = [[p for p in call.module.parameters(recurse=False) if p.requires_grad] for call in calls]
    reached = [call for call in calls if call.output.requires_grad]
    wanted = [call.output for call in reached] + [p for owned in parameters for p in owned]
    found = iter(torch.autograd.grad(loss.reshape(()), wanted, allow_unused=True))
    for call in reached:
        call.gradient = next(found)
    for call, owned in zip(calls, parameters, strict=True):
        gradients = [next(found) for _ in owned]
        call.parameter_gradients = tuple(gradient for gradient in gradients if gradient is not None)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in training mode, and afterwards restore modes, buffers and the random number generators."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(gpus)):
        try:
            model.train()
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
