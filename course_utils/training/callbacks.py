"""What `course_utils.training.fit` calls along the way: early stopping, checkpoints, live plot, progress bar."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_utils import plotting
from course_utils._notebook import progress_bar
from course_utils._validation import check_int, check_non_negative
from course_utils.training.checkpoints import load_entries, plain_names, write_checkpoint
from course_utils.training.history import History, rises

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BestWeights",
    "Callback",
    "EarlyStopping",
    "LiveLossPlot",
    "ModelCheckpoint",
    "ProgressBar",
    "TrainState",
    "as_callback",
]


@dataclass
class TrainState:
    """Where a run stands; what every callback gets.

    Attributes:
        model: being trained.
        optimizer: after ``on_step_end`` the parameters still carry the step's gradients.
        history: of the finished epochs.
        max_epochs: at which the run ends.
        make_checkpoint: returns all that an exact resume needs, as tensors and plain containers.
        epoch: the epoch under way, from 1; in ``on_train_begin`` the last one finished, so 0 unless resumed.
        step: optimizer steps taken so far, over all epochs.
        loss: training loss of the last step, without penalty.
        metrics: of the epoch that just ended.
        stop_reason: set by `stop`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: History
    max_epochs: int
    make_checkpoint: Callable[[], dict[str, Any]]
    epoch: int = 0
    step: int = 0
    loss: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        """End the training after the present step (in ``on_step_end``) or epoch.

        Args:
            reason: a few words that say why, for ``history.stopped_by``.
        """
        self.stop_reason = reason


class Callback:
    """Base class of what looks in on a training run; override what you need.

    A callback with an attribute ``monitor`` names a metric by it; `fit` checks the name in the first step.
    """

    def on_train_begin(self, state: TrainState) -> None:
        """Called once before the first epoch, after a resumed state was loaded."""

    def on_step_end(self, state: TrainState) -> None:
        """Called after every optimizer step; costs nothing where it is not overridden."""

    def on_epoch_end(self, state: TrainState) -> None:
        """Called after every epoch, when its metrics are in ``state.metrics`` and in ``state.history``."""

    def on_train_end(self, state: TrainState) -> None:
        """Called once at the end, however the run ended."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know, as tensors and plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, before ``on_train_begin``."""


class _EpochFunction(Callback):
    """A plain function, called after every epoch."""

    def __init__(self, function: Callable[[TrainState], object]) -> None:
        self.function = function

    def on_epoch_end(self, state: TrainState) -> None:
        self.function(state)


def as_callback(callback: Callback | Callable[[TrainState], object]) -> Callback:
    """Return a callback as it is, and a plain function as one that is called after every epoch.

    Raises:
        TypeError: neither of the two.
    """
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, type) or not callable(callback):
        raise TypeError(f"callbacks must be Callback objects or functions of the state, got {callback!r}")
    return _EpochFunction(callback)


def _improves(metric: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if rises(metric) else value < best - min_delta


class BestWeights:
    """The weights of the epoch that was best by a metric.

    Args:
        monitor: the metric's name; accuracies should rise, everything else should fall.
        min_delta: by how much an epoch must be better to count.
    """

    def __init__(self, monitor: str, *, min_delta: float = 0.0) -> None:
        self.monitor = monitor
        self.min_delta = min_delta
        self.value: float | None = None
        self.epoch = 0
        self.weights: dict[str, Any] = {}

    def update(self, state: TrainState) -> bool:
        """Copy the weights if the epoch that just ended is the best so far, and return whether it is."""
        value = state.metrics[self.monitor]
        if not _improves(self.monitor, value, self.value, self.min_delta):
            return False
        self.keep(state.model, epoch=state.epoch, value=value)
        return True

    def keep(self, model: nn.Module, *, epoch: int, value: float | None) -> None:
        """Copy the model's weights and buffers."""
        weights = {
            name: entry.detach().clone() if isinstance(entry, Tensor) else copy.deepcopy(entry)
            for name, entry in plain_names(model.state_dict()).items()
        }
        # One assignment after the copy is whole: an interrupt finds the old best or the new one, never a mixture.
        self.weights, self.epoch, self.value = weights, epoch, value

    def restore(self, state: TrainState) -> bool:
        """Put the weights back into the model, note it in the history, and return whether there were any."""
        if not self.weights:
            return False
        load_entries(state.model, self.weights)
        state.history.restored_epoch = self.epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return value, epoch and weights."""
        return {"value": self.value, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.value, self.epoch, self.weights = state["value"], state["epoch"], dict(state["weights"])


class EarlyStopping(Callback):
    """End the training when a metric has not improved for a while, and go back to the best weights.

    The best weights come back however the run ends, also when it reaches ``max_epochs`` (Keras restores them
    only after stopping early). Source: Prechelt 1998, "Early Stopping – but when?", criterion UP with strips of one
    epoch; differs: counts epochs since the best one, not successive rises.

    Args:
        monitor: the metric to watch; accuracies should rise, everything else should fall.
        patience: epochs without improvement after which to stop, at least 1.
        min_delta: by how much an epoch must beat the best one to count as improvement, at least 0.
        restore_best: whether the model gets the best epoch's weights at the end; otherwise it keeps the last.

    Attributes:
        best: value and epoch of the best epoch so far, and its weights if they are to be restored.
        waited: epochs since then.

    Raises:
        TypeError, ValueError: an argument is out of range; from `fit`, if there is no such metric.
    """

    def __init__(
        self, monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0, restore_best: bool = True
    ) -> None:
        self.monitor = monitor
        self.patience = check_int(patience, "patience", minimum=1)
        self.min_delta = check_non_negative(min_delta, "min_delta")
        self.restore_best = restore_best
        self._reset()

    def _reset(self) -> None:
        self.best = BestWeights(self.monitor, min_delta=self.min_delta)
        self.waited = 0

    def on_train_begin(self, state: TrainState) -> None:
        """Begin anew, unless the run is resumed; one resumed with its patience spent stops at once."""
        if state.epoch == 0:
            self._reset()
        else:
            self._stop_if_out_of_patience(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Compare the epoch with the best one."""
        self.waited = 0 if self.best.update(state) else self.waited + 1
        self._stop_if_out_of_patience(state)

    def on_train_end(self, state: TrainState) -> None:
        """Restore the best weights."""
        if self.restore_best:
            self.best.restore(state)

    def _stop_if_out_of_patience(self, state: TrainState) -> None:
        if self.waited >= self.patience:
            state.stop(f"early stopping ({self.monitor} no better for {self.waited} epochs)")

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch and the epochs waited since."""
        return {"best": self.best.state_dict(), "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.best.load_state_dict(state["best"])
        self.waited = state["waited"]


class ModelCheckpoint(Callback):
    """Write the whole state of the run to a file after an epoch, for ``fit(..., resume_from=path)``.

    The file holds weights, optimizer, schedule, random generators, history and the callbacks' states, as tensors and
    plain containers, so that ``torch.load(path, weights_only=True)`` reads it; the weights alone are its ``"model"``.
    It is replaced in one move: a crash while writing leaves the file before. `fit` calls checkpoints after all other
    callbacks, so that their states are those of the epoch's end.

    Args:
        path: the file; missing folders are made.
        monitor: the metric that tells the best epoch; without one, ``val_loss``, or ``loss`` if nothing is validated.
        save_best_only: whether to write only after an epoch that is the best so far.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, monitor: str | None = None, save_best_only: bool = False
    ) -> None:
        self.path = Path(path)
        self.monitor = monitor
        self.save_best_only = save_best_only
        self.best_value: float | None = None

    def on_train_begin(self, state: TrainState) -> None:
        """Make the folder, and begin anew unless the run is resumed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if state.epoch == 0:
            self.best_value = None

    def on_epoch_end(self, state: TrainState) -> None:
        """Write the file, if the epoch deserves it."""
        monitor = self.monitor or ("val_loss" if "val_loss" in state.metrics else "loss")
        value = state.metrics[monitor]
        improved = _improves(monitor, value, self.best_value)
        if improved:
            self.best_value = value
        if improved or not self.save_best_only:
            write_checkpoint(self.path, state.make_checkpoint())

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best_value": self.best_value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.best_value = state["best_value"]


class ProgressBar(Callback):
    """A text bar of the epochs with the latest losses, on standard output; it clears itself at the end."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(self, state: TrainState) -> None:
        """Draw the empty bar."""
        self._bar = progress_bar(state.max_epochs, "epoch", initial=state.epoch)

    def on_epoch_end(self, state: TrainState) -> None:
        """Advance by one epoch."""
        shown = ("loss", "val_loss", "accuracy", "val_accuracy")
        numbers = {name: f"{value:.4g}" for name, value in state.metrics.items() if name in shown}
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update()

    def on_train_end(self, state: TrainState) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


class LiveLossPlot(Callback):
    """Redraw the learning curves in the notebook while the model trains, through livelossplot.

    A redraw takes about 170 ms and clears what the cell printed before; where epochs are short, draw every tenth.
    Outside a notebook, lines of text with the metrics' extremes take the picture's place.

    Args:
        every: epochs from one redraw to the next, at least 1; the last epoch is always drawn.
        metrics: names without prefix, a panel each; those that the run does not have are left out.

    Raises:
        TypeError, ValueError: ``every`` is not an integer of at least 1.
    """

    def __init__(self, *, every: int = 1, metrics: tuple[str, ...] = ("loss", "accuracy")) -> None:
        self.every = check_int(every, "every", minimum=1)
        self.metrics = metrics
        self._plot: Any = None
        self._drawn_epoch = 0

    def on_train_begin(self, state: TrainState) -> None:
        """Start the plot, with the epochs of a resumed run in it."""
        self._plot, self._drawn_epoch = None, state.epoch
        for epoch in state.history.epochs:
            self._add(epoch, {name: state.history[name][epoch - 1] for name in state.history})

    def on_epoch_end(self, state: TrainState) -> None:
        """Add the epoch, and redraw if it is its turn."""
        self._add(state.epoch, state.metrics)
        if state.epoch % self.every == 0:
            self._send(state.epoch)

    def on_train_end(self, state: TrainState) -> None:
        """Draw the last finished epoch, if it is not drawn yet."""
        if len(state.history) > self._drawn_epoch and self._plot is not None:
            self._send(len(state.history))

    def _add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        shown = {name: value for name, value in metrics.items() if name.removeprefix("val_") in self.metrics}
        if self._plot is None:
            self._plot = self._start(n_panels=sum(name in self.metrics for name in shown))
        self._plot.update(shown, current_step=epoch)

    def _send(self, epoch: int) -> None:
        self._plot.send()
        self._drawn_epoch = epoch

    @staticmethod
    def _start(n_panels: int) -> Any:
        import livelossplot
        from livelossplot.outputs import ExtremaPrinter, MatplotlibPlot
        from livelossplot.plot_losses import get_mode

        if get_mode() == "script":
            return livelossplot.PlotLosses(outputs=[ExtremaPrinter()], mode="script")
        # Two panels' width also for one: livelossplot lays them out in that grid, and squeezes a narrower figure.
        picture = MatplotlibPlot(
            figsize=(12, 4), max_cols=max(n_panels, 2), after_subplot=_style_panel, after_plots=_show_panels
        )
        return livelossplot.PlotLosses(outputs=[picture], mode="notebook")


def _style_panel(ax: Axes, group: str, x_label: str) -> None:
    """Give a panel the course's grammar; replaces livelossplot's title and legend."""
    from matplotlib.ticker import MaxNLocator

    for line, label, style in zip(
        ax.get_lines(), ("training", "validation"), (plotting.TRAIN, plotting.VAL), strict=False
    ):
        line.set(label=label, **style)
    ax.set(xlabel=x_label, ylabel=group.lower())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plotting.label_line_ends(ax)


def _show_panels(figure: Figure) -> None:
    """Show with a text alternative; replaces livelossplot's tight_layout, which warns under the course's theme."""
    plotting.show(figure, "Learning curves so far, one panel a metric: training solid blue, validation dashed orange.")
