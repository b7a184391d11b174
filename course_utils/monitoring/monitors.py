"""Watch gradients, activations and weights through hooks while a network trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from course_utils._validation import check_non_negative, check_one_of
from course_utils.monitoring.diagnosis import Diagnosis, LayerVerdict, NonFinite, diagnose, find_nonfinite
from course_utils.monitoring.hooks import (
    SATURATION_TOL,
    Recorder,
    activation_modules,
    asymptotes,
    by_unit,
    dead_share,
    layer_weights,
    saturated_share,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ActivationMonitor",
    "Diagnosis",
    "GradientMonitor",
    "LayerVerdict",
    "NonFinite",
    "WeightMonitor",
    "dead_fraction",
    "diagnose",
    "find_nonfinite",
    "saturated_fraction",
    "update_ratio",
]


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
    if not low < high:
        raise ValueError(f"low must be below high, got low={low!r} and high={high!r}")
    return float(saturated_share(_check_activations(activations), low, high, check_non_negative(tol, "tol")))


def update_ratio(before: Tensor, after: Tensor) -> float:
    """Return ‖after − before‖ / ‖before‖: how far one step moved a weight, relative to its size.

    About 1e-3 is a healthy pace for most layers; 1e-6 hardly learns, 0.1 and more jumps about. Weights that were all
    0 give infinity once they move, and 0 if they stay.

    Args:
        before: the weights before the step.
        after: the weights after it, same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"before and after must have one shape, got {tuple(before.shape)} and {tuple(after.shape)}")
    return float(_relative_change(before.detach(), after.detach()))


def _relative_change(before: Tensor, after: Tensor) -> Tensor:
    moved = torch.linalg.vector_norm(after - before)
    return torch.where(moved == 0, 0.0, moved / torch.linalg.vector_norm(before))


def _check_activations(activations: Tensor) -> Tensor:
    if activations.ndim != 2 or activations.numel() == 0:
        raise ValueError(f"activations must have shape (batch, units), got {tuple(activations.shape)}")
    return activations.detach()


class _Monitor(Recorder):
    """A `Recorder` that draws itself. Quantities in ``_linear`` are shares or signed; the others get a log axis."""

    _linear: ClassVar[frozenset[str]] = frozenset({"mean", "dead", "saturated"})
    _labels: ClassVar[dict[str, str]] = {}

    def plot(self, quantity: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one quantity over the steps: a line per layer, from dark (next to the input) to light.

        Args:
            quantity: one of ``self.quantities``; ``None`` takes the first.
            ax: where to draw; ``None`` makes a new figure.
        """
        from course_utils.plotting import label_line_ends, sequence_colors

        ax, table = self._start(quantity, ax)
        every = -(-len(self.layers) // 12)  # more than a dozen labels would not fit beside the lines
        for index, color in enumerate(sequence_colors(len(self.layers))):
            label = self.layers[index] if index % every == 0 else f"_{self.layers[index]}"
            ax.plot(self.steps, table[:, index].numpy(), color=color, label=label, linewidth=1.5)
        ax.set(xlabel="step")
        label_line_ends(ax)
        return ax

    def plot_profile(self, quantity: str | None = None, ax: Axes | None = None, *, n_steps: int = 5) -> Axes:
        """Draw one quantity over the layers: a line per recorded step, from dark (first) to light (last).

        Args:
            quantity: one of ``self.quantities``; ``None`` takes the first.
            ax: where to draw; ``None`` makes a new figure.
            n_steps: how many of the recorded steps to show, evenly spaced, first and last among them.
        """
        from course_utils.plotting import label_line_ends, sequence_colors

        ax, table = self._start(quantity, ax)
        shown = sorted({round(row) for row in torch.linspace(0, len(table) - 1, n_steps).tolist()})
        depth = range(1, len(self.layers) + 1)
        for row, color in zip(shown, sequence_colors(len(shown)), strict=True):
            ax.plot(depth, table[row].numpy(), color=color, marker="o", label=f"step {self.steps[row]}")
        ax.set_xticks(depth, self.layers, rotation=45, ha="right")
        label_line_ends(ax)
        return ax

    def _start(self, quantity: str | None, ax: Axes | None) -> tuple[Axes, Tensor]:
        """Return labelled Axes and the table to draw in them, with what a log axis cannot show left out."""
        import matplotlib.pyplot as plt

        quantity = self._check(quantity)
        table = self.values(quantity)
        if not len(table):
            raise RuntimeError(f"nothing to plot: {self.hint} (every={self.every})")
        if ax is None:
            ax = plt.subplots()[1]
        ax.set_ylabel(self._labels[quantity])
        table = table.masked_fill(~table.isfinite(), torch.nan)
        if quantity not in self._linear:
            table = table.masked_fill(table <= 0, torch.nan)
            if table.isfinite().any():
                ax.set_yscale("log")
        return ax, table


class GradientMonitor(_Monitor):
    """Record the size of each layer's weight gradient during training.

    A layer is a module that owns a ``weight`` of at least two axes. Its gradient is read the moment a backward pass
    has added to ``weight.grad``, so before any clipping and before the optimizer. No call is needed in the loop::

        with GradientMonitor(model) as monitor:
            train(model)
        monitor.plot()

    One step is one backward pass, counted from 1. If several backward passes add up to one update (gradient
    accumulation over k micro-batches), ``every=k`` records the sum that the optimizer gets. Frozen weights are not
    watched; a weight that a pass does not reach has NaN in the table, which `first_nonfinite` does not count.

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
        weights = {name: weight for name, weight in named.items() if weight.requires_grad}
        if not weights:
            found = f"the weights of {', '.join(named)} are frozen" if named else "no module owns a weight matrix"
            raise ValueError(f"model has no layer to watch: {found}")
        super().__init__(every=every, log_dir=log_dir)
        self.layers = list(weights)
        self._roots = torch.tensor([weight.numel() for weight in weights.values()]).sqrt()
        self._passes = 0
        # Layer → norm (None in a step that is not recorded) of the pass under way, which ends when the model is called
        # again or a weight gets its next gradient. Waiting for "all layers" would wait forever for an unused one.
        self._pass: dict[int, Tensor | None] = {}
        self._watch(model.register_forward_pre_hook(self._end_pass))
        for index, weight in enumerate(weights.values()):
            self._watch(weight.register_post_accumulate_grad_hook(partial(self._on_gradient, index)))

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

    def _on_gradient(self, index: int, weight: Tensor) -> None:
        if index in self._pass:
            self._end_pass()
        if not self._pass:
            self._passes += 1
        if self._passes % self.every or weight.grad is None:
            self._pass[index] = None
        else:
            self._pass[index] = torch.linalg.vector_norm(weight.grad.detach())

    def _end_pass(self, *_: Any) -> None:
        norms = self._pass
        if not norms:
            return
        self._pass = {}
        if self._passes % self.every == 0:
            # A norm is never negative, so -1 can stand for "not reached" and leave NaN to mean NaN.
            missing = next(norm for norm in norms.values() if norm is not None).new_full((), -1.0)
            found = [norms.get(index) for index in range(len(self.layers))]
            row = torch.stack([(missing if norm is None else norm).float() for norm in found])
            self._roots = self._roots.to(row.device)
            self._record(self._passes, torch.stack([row, row / self._roots], dim=1))

    _flush = _end_pass


class ActivationMonitor(_Monitor):
    """Record statistics of each activation's output in the forward passes of a training.

    An activation is a module without children and without a weight matrix that is not a normalization, dropout,
    pooling or reshaping module, so ``nn.ReLU()``, ``nn.PReLU()`` or a class of one's own. Functional calls such as
    ``torch.relu`` are invisible to hooks. Layers are listed in the order of execution; a module that is called several
    times in one pass appears as ``name``, ``name (2)``, ….

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
        ValueError: the model has no activation module, or an argument is out of range.
    """

    quantities = ("std", "mean", "dead", "saturated")
    tag = "activation"
    hint = "activations are recorded when the model is called in the mode asked for"
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
        self._mode = check_one_of(mode, "mode", ("train", "eval", "both"))
        self._tol = check_non_negative(tol, "tol")
        super().__init__(every=every, log_dir=log_dir)
        self._passes = 0
        self._pass: dict[str, Tensor] | None = None  # None while no pass is being recorded
        self._watch(model.register_forward_pre_hook(self._begin_pass))
        for name, module in modules.items():
            self._watch(module.register_forward_hook(partial(self._on_output, name)))
        self._watch(model.register_forward_hook(self._end_pass))

    def _begin_pass(self, model: nn.Module, _: Any) -> None:
        counts = self._mode == "both" or model.training == (self._mode == "train")
        self._passes += counts
        self._pass = {} if counts and self._passes % self.every == 0 else None

    def _on_output(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        if self._pass is None or not isinstance(output, Tensor):
            return
        calls = 1 + sum(key == name or key.startswith(f"{name} (") for key in self._pass)
        values = by_unit(output.detach())
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
    loop that changes weights by hand goes unseen. A step is one call of ``optimizer.step()``, counted from 1.

    Args:
        model: any module.
        every: record each ``every``-th step.
        log_dir: also write every record there for TensorBoard, as scalars ``weight_update_ratio/<layer>``, ….

    Quantities:
        update_ratio: ‖Δw‖ / ‖w‖ of the step, see `update_ratio`.
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
        self._weights = list(weights.values())
        self._ids = {id(weight) for weight in self._weights}
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
                self._before = [weight.detach().clone() for weight in self._weights]

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self._before and self._holds(optimizer):
            pairs = list(zip(self._before, [weight.detach() for weight in self._weights], strict=True))
            self._before = []
            rows = [torch.stack([_relative_change(*pair), torch.linalg.vector_norm(pair[1])]) for pair in pairs]
            self._record(self._steps, torch.stack(rows).float())
