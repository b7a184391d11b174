"""The record of a training run: one row of metrics an epoch, as table, picture and DataFrame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from course_utils import plotting

if TYPE_CHECKING:  # neither is needed to train
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["History", "rises"]

_ROWS_AT_EACH_END = 4


def rises(metric: str) -> bool:
    """Return whether a larger value of the metric is the better one: true of accuracies, not of losses."""
    return metric.endswith("accuracy")


class History:
    """What `course_utils.training.fit` measured, epoch by epoch.

    ``history["val_loss"]`` is a list with one float an epoch and ``history.keys()`` gives the names there are;
    ``history.epochs`` holds the epochs' numbers from 1, and ``len(history)`` is their count. Two histories are equal
    when their metrics and step losses are, to the last bit (NaN equals NaN here); how long it took plays no part.

    Metrics, where the run has them: ``loss, val_loss, accuracy, val_accuracy, lr``, with ``eval_train=True`` also
    ``eval_loss, eval_accuracy``, and with a penalty ``penalty`` (see `course_utils.training.fit`).

    Attributes:
        step_loss: the training loss of every optimizer step, also those of an epoch that was cut short.
        stopped_by: why the run ended: ``"max_epochs"``, ``"interrupted"``, or the reason that a callback gave.
        restored_epoch: the epoch whose weights were put back into the model at the end, if any were; 0 stands for
            the weights from before training.
    """

    def __init__(self) -> None:
        self.step_loss: list[float] = []
        self.stopped_by: str | None = None
        self.restored_epoch: int | None = None
        # Rows, not columns: one append records an epoch whole, so that no interrupt leaves lists of unequal length.
        self._rows: list[tuple[dict[str, float], float]] = []

    def append(self, metrics: Mapping[str, float], *, seconds: float = math.nan) -> None:
        """Record one more epoch.

        Args:
            metrics: the epoch's value by metric; the same names every epoch.
            seconds: how long the epoch took.

        Raises:
            ValueError: the names differ from those of the epochs before.
        """
        if self._rows and list(metrics) != self.keys():
            raise ValueError(f"every epoch must have the metrics {self.keys()}, got {list(metrics)}")
        self._rows.append((dict(metrics), seconds))

    def keys(self) -> list[str]:
        """Return the names of the metrics, in the order of recording."""
        return list(self._rows[0][0]) if self._rows else []

    def __getitem__(self, metric: str) -> list[float]:
        if metric not in self:
            raise KeyError(f"no metric {metric!r}; recorded: {', '.join(self) or 'nothing yet'}")
        return [row[metric] for row, _ in self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, metric: object) -> bool:
        return metric in self.keys()

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        # A float's repr is exact, and unlike the float itself the repr of NaN equals itself.
        return repr((self._metrics(), self.step_loss)) == repr((other._metrics(), other.step_loss))

    __hash__ = None  # type: ignore[assignment]  # it grows

    @property
    def epochs(self) -> list[int]:
        """The epochs' numbers, from 1."""
        return list(range(1, len(self) + 1))

    @property
    def seconds(self) -> list[float]:
        """The wall-clock time of each epoch, evaluation included."""
        return [seconds for _, seconds in self._rows]

    @property
    def best_epoch(self) -> int | None:
        """The first epoch (from 1) with the lowest ``val_loss``, or ``loss`` without one; None if there is none."""
        return self.find_best("val_loss" if "val_loss" in self else "loss")

    def find_best(self, metric: str) -> int | None:
        """Return the first epoch (from 1) at which the metric was best, NaN left out; None if there is none.

        Args:
            metric: one of the recorded names; accuracies are best when high, everything else when low.

        Raises:
            KeyError: there are epochs, but not with this metric.
        """
        if not len(self):
            return None
        sign = -1.0 if rises(metric) else 1.0
        candidates = [(sign * value, epoch) for epoch, value in enumerate(self[metric], start=1) if value == value]
        return min(candidates)[1] if candidates else None

    def to_frame(self) -> pd.DataFrame:
        """Return the metrics as a DataFrame, one column each, indexed by ``epoch`` from 1."""
        import pandas as pd

        return pd.DataFrame(self._metrics(), index=pd.RangeIndex(1, len(self) + 1, name="epoch"))

    def plot(self, ax: Axes | None = None, *, metric: str = "loss") -> Axes:
        """Draw a metric over the epochs: training solid blue, validation dashed orange, the best epoch marked.

        Args:
            ax: where to draw; a new figure without one.
            metric: the name without prefix; ``val_<metric>`` and ``eval_<metric>`` are drawn with it if recorded.

        Returns:
            The Axes drawn on.

        Raises:
            KeyError: the metric was not recorded.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            ax = plt.figure().add_subplot()
        curves = {
            metric: ("training", plotting.TRAIN),
            f"eval_{metric}": ("training, eval mode", {**plotting.TRAIN, "linestyle": ":"}),
            f"val_{metric}": ("validation", plotting.VAL),
        }
        # A single epoch is a point, which a line without marker would not show.
        marker = "o" if len(self) == 1 else None
        for name, (label, style) in curves.items():
            if name == metric or name in self:
                ax.plot(self.epochs, self[name], label=label, marker=marker, **style)
                shown, colour = name, style["color"]
        best = self.find_best(shown)
        if best is not None:
            value = self[shown][best - 1]
            ax.plot([best], [value], "o", color=colour, markerfacecolor="none", markersize=9.0)
            ax.annotate(f"best: epoch {best}", (best, value), (0, 9), textcoords="offset points", ha="center", size=9)
        ax.set_xlabel("epoch")
        ax.set_ylabel("learning rate" if metric == "lr" else metric)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        plotting.label_line_ends(ax)
        return ax

    def __str__(self) -> str:
        if not len(self):
            return f"History: no finished epoch{self._ending()}"
        cells = [["epoch", *self]]
        for epoch in self._shown_epochs():
            row = [f"{value:.4g}" for value in self._rows[epoch - 1][0].values()] if epoch else ["⋮" for _ in self]
            cells.append([str(epoch or "⋮"), *row])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*lines, self._summary()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not len(self):
            return f"<p>{self}</p>"
        frame = self.to_frame().rename_axis(index=None)
        table = frame.to_html(max_rows=2 * _ROWS_AT_EACH_END, float_format=lambda value: f"{value:.4g}", border=0)
        return f"{table}\n<p>{self._summary()}</p>"

    def _shown_epochs(self) -> Sequence[int]:
        """Return the epochs that the table shows; a 0 stands for those left out."""
        if len(self) <= 2 * _ROWS_AT_EACH_END + 1:
            return self.epochs
        return [*self.epochs[:_ROWS_AT_EACH_END], 0, *self.epochs[-_ROWS_AT_EACH_END:]]

    def _summary(self) -> str:
        metric, best = "val_loss" if "val_loss" in self else "loss", self.best_epoch
        if best is None:
            return f"{len(self)} epochs{self._ending()}"
        return f"{len(self)} epochs, best {metric} {self[metric][best - 1]:.4g} at epoch {best}{self._ending()}"

    def _ending(self) -> str:
        """Return how the run ended, as the end of a sentence."""
        ending = f"; stopped by {self.stopped_by}" if self.stopped_by else ""
        if self.restored_epoch is not None:
            whose = f"weights of epoch {self.restored_epoch}" if self.restored_epoch else "initial weights"
            ending += f"; {whose} restored"
        return ending

    def _metrics(self) -> list[dict[str, float]]:
        return [row for row, _ in self._rows]

    def state_dict(self) -> dict[str, Any]:
        """Return the content as plain containers, for a checkpoint."""
        return {"metrics": self._metrics(), "seconds": self.seconds, "step_loss": list(self.step_loss)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._rows = list(zip(state["metrics"], state["seconds"], strict=True))
        self.step_loss = list(state["step_loss"])
