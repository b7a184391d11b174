"""Watch gradients, activations and weights through hooks while a network trains."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from course_utils._validation import check_int, check_one_of
from course_utils.monitoring.hooks import (
    SATURATION_TOL,
    Trace,
    Uncompiled,
    Weight,
    activation_modules,
    asymptotes,
    by_unit,
    dead_share,
    layer_weights,
    saturated_share,
    tensors_of,
    unwrap,
    watchable,
)

if TYPE_CHECKING:  # pandas costs more to import than a lesson's first figure takes to draw
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["ActivationMonitor", "GradientMonitor", "WeightMonitor", "dead_fraction", "saturated_fraction"]


def dead_fraction(activations: Tensor) -> float:
    """Return the share of units that are exactly 0 for every sample of the batch: ReLUs that pass no gradient.

    A unit that is dead for this batch may live for another; the larger the batch, the surer the verdict.

    Args:
        activations: the outputs of an activation, shape (batch, units).

    Raises:
        ValueError: another shape, or nothing in it.
    """
    return float(dead_share(_check_activations(activations)))


def saturated_fraction(activations: Tensor, low: float, high: float, tol: float = SATURATION_TOL) -> float:
    """Return the share of activations that sit at an asymptote, where the derivative is nearly 0.

    Args:
        activations: the outputs of a squashing activation, shape (batch, units).
        low: the lower asymptote: -1 for tanh, 0 for the sigmoid.
        high: the upper asymptote: 1 for both.
        tol: an activation counts from this distance on.

    Raises:
        ValueError: another shape, nothing in it, ``low >= high`` or a negative ``tol``.

    Example:
        >>> saturated_fraction(torch.tensor([[-0.99, 0.5], [0.2, 0.98]]), low=-1, high=1)
        0.5
    """
    if not low < high or tol < 0:
        raise ValueError(f"low must be below high and tol at least 0, got {low=}, {high=} and {tol=}")
    return float(saturated_share(_check_activations(activations), low, high, tol))


def _update_ratio(before: Tensor, after: Tensor) -> Tensor:
    moved = torch.linalg.vector_norm(after - before)
    return torch.where(moved == 0, 0.0, moved / torch.linalg.vector_norm(before))


def _check_activations(activations: Tensor) -> Tensor:
    if activations.ndim != 2 or activations.numel() == 0:
        raise ValueError(f"activations must have shape (batch, units), got {tuple(activations.shape)}")
    return activations.detach()


def _root_of_squares(norms: list[Tensor]) -> Tensor:
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


class _Monitor:
    """Rows of numbers (one per step, one number per layer and quantity) that hooks deliver while it is open.

    Base class: a subclass names its ``quantities``, hangs its hooks with `_watch` and delivers with `_record`. Those in
    ``_linear`` are shares or signed; the others are drawn on a log axis.
    """

    quantities: ClassVar[tuple[str, ...]] = ()
    tag: ClassVar[str] = ""
    hint: str = ""
    _linear: ClassVar[frozenset[str]] = frozenset({"mean", "dead", "saturated"})
    _labels: ClassVar[dict[str, str]] = {}

    def __init__(self, *, every: int, log_dir: str | Path | None) -> None:
        self.every = check_int(every, "every", minimum=1)
        self.layers: list[str] = []
        self.steps: list[int] = []
        self._rows: list[Tensor] = []
        self._handles: list[Any] = []
        self._state = "new"
        # A monitor that is forgotten instead of closed must not keep compiled models from running compiled.
        self._compile_again = weakref.finalize(self, Uncompiled.leave)
        self._compile_again.atexit = False
        Uncompiled.enter()
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
        self._compile_again()
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
        column = self.quantities.index(self._known(quantity))
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
        return dict(zip(self.layers, self._recorded(quantity)[-1].tolist(), strict=True))

    def to_frame(self, quantity: str | None = None) -> pd.DataFrame:
        """Return one quantity as a table: a row per recorded step, a column per layer."""
        import pandas as pd

        table = self.values(quantity)
        return pd.DataFrame(table.numpy(), index=pd.Index(self.steps, name="step"), columns=self.layers)

    def _recorded(self, quantity: str | None) -> Tensor:
        table = self.values(quantity)
        if not len(table):
            raise RuntimeError(f"nothing recorded yet: {self.hint} (every={self.every})")
        return table

    def _known(self, quantity: str | None) -> str:
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

    def plot(self, quantity: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one quantity over the steps: a line per layer, from dark (next to the input) to light.

        Args:
            quantity: one of ``self.quantities``; ``None`` takes the first.
            ax: where to draw; ``None`` makes a new figure.
        """
        import matplotlib.pyplot as plt

        from course_utils.plotting import label_line_ends, sequence_colors

        quantity = self._known(quantity)
        table = self._recorded(quantity)
        if ax is None:
            ax = plt.subplots()[1]
        ax.set(xlabel="step", ylabel=self._labels[quantity])
        # What a log axis cannot show is left out.
        table = table.masked_fill(~table.isfinite(), torch.nan)
        if quantity not in self._linear:
            table = table.masked_fill(table <= 0, torch.nan)
            if table.isfinite().any():
                ax.set_yscale("log")
        every = -(-len(self.layers) // 12)  # more than a dozen labels would not fit beside the lines
        for index, color in enumerate(sequence_colors(len(self.layers))):
            label = self.layers[index] if index % every == 0 else f"_{self.layers[index]}"
            ax.plot(self.steps, table[:, index].numpy(), color=color, label=label, linewidth=1.5)
        label_line_ends(ax)
        return ax


class GradientMonitor(_Monitor):
    """Record the size of each layer's weight gradient during training.

    A layer is a module that owns a ``weight`` of at least two axes; recurrent layers and attention have several, listed
    as ``lstm.weight_hh_l0``. Its gradient is read the moment a backward pass has added to ``weight.grad``, so before
    any clipping and before the optimizer. A weight that is computed (weight norm, spectral norm, pruning) has the
    gradients of the parameters that it is computed from. No call is needed in the loop::

        with GradientMonitor(model) as monitor:
            train(model)
        monitor.plot()

    One step is one backward pass, counted from 1. If several backward passes add up to one update (gradient
    accumulation over k micro-batches), ``every=k`` records the sum that the optimizer gets. Frozen weights are not
    watched; a weight that a pass does not reach has NaN in the table, which `first_nonfinite` does not count.

    While a monitor is open, of whichever kind, compiled models run uncompiled: their graphs would not call its hooks.

    Args:
        model: any module; it keeps its hooks until `close` or the end of the ``with`` block.
        every: record each ``every``-th step.
        log_dir: also write every record there for TensorBoard, as scalars ``gradient_norm/<layer>``.

    Quantities:
        norm: L2 norm of the weight's gradient (infinite from single precision's overflow on, entries above 1e19).
        rms: norm / √(number of weights), the size of a typical entry: comparable between layers of unlike width.

    Raises:
        ValueError: no layer with a trainable weight, or ``every`` below 1.
    """

    quantities = ("norm", "rms")
    tag = "gradient"
    hint = "a gradient is recorded once backward() has run"
    _labels: ClassVar[dict[str, str]] = {"norm": "gradient norm", "rms": "gradient, RMS of its entries"}

    def __init__(self, model: nn.Module, every: int = 1, *, log_dir: str | Path | None = None) -> None:
        named = layer_weights(model)
        trained = {
            name: [parameter for parameter in weight.parameters if parameter.requires_grad]
            for name, weight in named.items()
        }
        trained = {name: parameters for name, parameters in trained.items() if parameters}
        if not trained:
            found = f"the weights of {', '.join(named)} are frozen" if named else "no module owns a weight matrix"
            raise ValueError(f"model has no layer to watch: {found}")
        super().__init__(every=every, log_dir=log_dir)
        self.layers = list(trained)
        sizes = [sum(parameter.numel() for parameter in parameters) for parameters in trained.values()]
        self._roots = torch.tensor(sizes).sqrt()
        self._passes = 0
        # Parameter → norm (None in a step that is not recorded) of the pass under way, which ends when the model is
        # called again or a parameter gets its next gradient. Waiting for all would wait forever for an unused one.
        self._pass: dict[int, Tensor | None] = {}
        self._watch(unwrap(model).register_forward_pre_hook(self._end_pass))
        self._parameters: list[list[int]] = []  # of each layer, numbered through
        n_parameters = 0
        for parameters in trained.values():
            self._parameters.append(list(range(n_parameters, n_parameters + len(parameters))))
            n_parameters += len(parameters)
            for index, parameter in zip(self._parameters[-1], parameters, strict=True):
                self._watch(parameter.register_post_accumulate_grad_hook(partial(self._on_gradient, index)))

    @property
    def first_nonfinite(self) -> tuple[int, str] | None:
        """Step and layer of the first recorded gradient that is NaN or infinite; ``None`` if there is none.

        Of several layers in one step it is the one next to the output, which the backward pass reached first.
        """
        self._flush()
        for step, row in zip(self.steps, self._rows, strict=True):
            bad = (~row[:, 0].isfinite()).nonzero()
            if len(bad):
                return step, self.layers[int(bad[-1])]
        return None

    def values(self, quantity: str | None = None) -> Tensor:
        """Return what was recorded of one quantity, shape (records, layers); NaN also where no gradient came."""
        table = super().values(quantity)
        return table.masked_fill(table < 0, torch.nan)

    def _on_gradient(self, index: int, parameter: Tensor) -> None:
        if index in self._pass:
            self._end_pass()
        if not self._pass:
            self._passes += 1
        gradient = parameter.grad
        if self._passes % self.every or gradient is None:
            self._pass[index] = None
        else:
            values = gradient.coalesce().values() if gradient.is_sparse else gradient.detach()
            self._pass[index] = torch.linalg.vector_norm(values)

    def _end_pass(self, *_: Any) -> None:
        norms = self._pass
        if not norms:
            return
        self._pass = {}
        if self._passes % self.every == 0:
            # A norm is never negative, so -1 can stand for "not reached" and leave NaN to mean NaN.
            missing = next(norm for norm in norms.values() if norm is not None).new_full((), -1.0)
            row = []
            for parameters in self._parameters:
                found = [norm for norm in map(norms.get, parameters) if norm is not None]
                row.append((_root_of_squares(found) if found else missing).float())
            total = torch.stack(row)
            self._roots = self._roots.to(total.device)
            self._record(self._passes, torch.stack([total, total / self._roots], dim=1))

    _flush = _end_pass


class ActivationMonitor(_Monitor):
    """Record statistics of each activation's output in the forward passes of a training.

    An activation is a module without children and without a weight matrix that is not a normalization, dropout,
    pooling or reshaping module, so ``nn.ReLU()``, ``nn.PReLU()`` or a class of one's own. Recurrent layers count with
    their outputs. What functions compute is invisible to hooks: ``torch.relu``, and the gates of an LSTM or GRU. Layers
    are listed in the order of execution; a module that is called several times in one pass appears as ``name``,
    ``name (2)``, …. The pass that `diagnose` makes does not count.

    Args:
        model: any module; it keeps its hooks until `close` or the end of the ``with`` block.
        every: record each ``every``-th pass, counted from 1.
        mode: which calls of the model count: those in ``"train"`` mode (so that validation does not mix in), those in
            ``"eval"`` mode, or ``"both"``.
        tol: distance from an asymptote at which an activation counts as saturated.
        log_dir: also write every record there for TensorBoard, as scalars ``activation_mean/<layer>``, ….

    Quantities:
        mean, std: over batch and units.
        dead: share of units that are 0 for the whole batch, see `dead_fraction`.
        saturated: share at an asymptote, see `saturated_fraction`; NaN for activations that have not two (ReLU).

    Raises:
        ValueError: the model has no activation module, is scripted or spread over devices by ``DataParallel``, or an
            argument is out of range.
    """

    quantities = ("std", "mean", "dead", "saturated")
    tag = "activation"
    _labels: ClassVar[dict[str, str]] = {
        "std": "std of activations",
        "mean": "mean activation",
        "dead": "share of dead units",
        "saturated": "share of saturated activations",
    }

    def __init__(
        self,
        model: nn.Module,
        every: int = 1,
        *,
        mode: str = "train",
        tol: float = SATURATION_TOL,
        log_dir: str | Path | None = None,
    ) -> None:
        modules = activation_modules(model)
        if not modules:
            raise ValueError(
                "model has no activation module to watch; functional calls such as torch.relu are invisible to hooks, "
                "use nn.ReLU() and the like"
            )
        root = watchable(model)
        self._mode = check_one_of(mode, "mode", ("train", "eval", "both"))
        self._tol = tol
        super().__init__(every=every, log_dir=log_dir)
        self._passes = 0
        self._pass: dict[str, Tensor] | None = None  # None while no pass is being recorded
        self._watch(root.register_forward_pre_hook(self._begin_pass))
        for name, module in modules.items():
            self._watch(module.register_forward_hook(partial(self._on_output, name)))
        self._watch(root.register_forward_hook(self._end_pass))

    @property
    def hint(self) -> str:  # type: ignore[override]
        """What is missing while nothing is recorded."""
        if self._passes >= self.every:
            return f"in {self._passes} passes the model called none of its activation modules"
        return "activations are recorded when the model is called in the mode asked for"

    def _begin_pass(self, model: nn.Module, _: Any) -> None:
        counts = not Trace.running and (self._mode == "both" or model.training == (self._mode == "train"))
        self._passes += counts
        self._pass = {} if counts and self._passes % self.every == 0 else None

    def _on_output(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        outputs = tensors_of(output)
        if self._pass is None or not outputs:
            return
        calls = 1 + sum(key == name or key.startswith(f"{name} (") for key in self._pass)
        values = by_unit(outputs[0].detach())
        bounds = asymptotes(module)
        saturated = values.new_full((), torch.nan) if bounds is None else saturated_share(values, *bounds, self._tol)
        statistics = [values.std(correction=0), values.mean(), dead_share(values), saturated]
        self._pass[name if calls == 1 else f"{name} ({calls})"] = torch.stack([s.float() for s in statistics])

    def _end_pass(self, *_: Any) -> None:
        if self._pass:
            self.layers += [name for name in self._pass if name not in self.layers]
            missing = torch.full_like(next(iter(self._pass.values())), torch.nan)
            self._record(self._passes, torch.stack([self._pass.get(name, missing) for name in self.layers]))
        self._pass = None


class WeightMonitor(_Monitor):
    """Record how far each optimizer step moves each layer's weight, and the weight's norm.

    It listens to every ``torch.optim.Optimizer`` (the course's own are such) that holds one of the model's weights; a
    loop that changes weights by hand goes unseen. A step is one call of ``optimizer.step()``, counted from 1. Layers
    are those of `GradientMonitor`; a weight that is computed (weight norm, spectral norm, pruning) counts as computed.

    Args:
        model: any module.
        every: record each ``every``-th step.
        log_dir: also write every record there for TensorBoard, as scalars ``weight_update_ratio/<layer>``, ….

    Quantities:
        update_ratio: ‖Δw‖ / ‖w‖ of the step. About 1e-3 is a healthy pace for most layers; 1e-6 hardly learns, 0.1 and
            more jumps about. Weights that were all 0 give infinity once they move, and 0 if they stay.
        norm: L2 norm of the weight after the step.

    Raises:
        ValueError: no layer, or ``every`` below 1.
    """

    quantities = ("update_ratio", "norm")
    tag = "weight"
    hint = "weights are recorded when an optimizer that holds them makes a step"
    _labels: ClassVar[dict[str, str]] = {"update_ratio": "update ratio ‖Δw‖ / ‖w‖", "norm": "weight norm"}

    def __init__(self, model: nn.Module, every: int = 1, *, log_dir: str | Path | None = None) -> None:
        weights = layer_weights(model)
        if not weights:
            raise ValueError("model has no layer to watch: no module owns a weight matrix")
        super().__init__(every=every, log_dir=log_dir)
        self.layers = list(weights)
        self._weights: list[Weight] = list(weights.values())
        self._ids = {id(parameter) for weight in self._weights for parameter in weight.parameters}
        self._steps = 0
        self._before: list[Tensor] = []
        self._watch(register_optimizer_step_pre_hook(self._before_step))
        self._watch(register_optimizer_step_post_hook(self._after_step))

    def _holds(self, optimizer: Optimizer) -> bool:
        return any(id(p) in self._ids for group in optimizer.param_groups for p in group["params"])

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self._holds(optimizer):
            self._steps += 1
            if self._steps % self.every == 0:
                self._before = [weight.value().clone() for weight in self._weights]

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self._before and self._holds(optimizer):
            rows = []
            for before, weight in zip(self._before, self._weights, strict=True):
                after = weight.value()
                rows.append(torch.stack([_update_ratio(before, after), torch.linalg.vector_norm(after)]))
            self._before = []
            self._record(self._steps, torch.stack(rows).float())
