"""Measure a model on data: means over samples, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from course_utils._validation import check_int
from course_utils.training.batches import (
    Data,
    LossFunction,
    check_data,
    check_loss,
    counted_labels,
    is_classification,
    iterate_batches,
    loss_share,
)

__all__ = ["Meter", "device_of", "evaluate", "measure", "modes_put_back"]


def evaluate(
    model: nn.Module,
    data: Data,
    *,
    loss_fn: LossFunction,
    batch_size: int = 1024,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Return ``loss`` over the data, and ``accuracy`` if the targets are integers, in evaluation mode.

    Every sample weighs the same, also those of a shorter last batch. The model's training flags and the global random
    stream stay as they were, even where a DataLoader draws from it.

    Args:
        model: maps ``(batch, ...)`` inputs to outputs; classes are its dimension 1.
        data: tensors ``(inputs, targets)``, or a DataLoader.
        loss_fn: of ``(outputs, targets)``; returns the batch's mean as a scalar.
        batch_size: samples in memory at a time, at least 1.
        device: where the batches go; the model's own by default.

    Raises:
        TypeError, ValueError: data, model and loss do not fit together.
    """
    check_int(batch_size, "batch_size", minimum=1)
    check_data(data, "data", model)
    return measure(model, data, loss_fn, batch_size, torch.device(device or device_of(model)), name="data")


def measure(
    model: nn.Module, data: Data, loss_fn: LossFunction, batch_size: int, device: torch.device, *, name: str
) -> dict[str, float]:
    """Return what `evaluate` returns, without its checks of the arguments; ``name`` is the data's, for messages."""
    meter = Meter()
    with modes_put_back(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.eval()
        for inputs, targets in iterate_batches(data, batch_size, device):
            outputs = model(inputs)
            if not meter.samples:
                check_loss(loss_fn, outputs, targets, name)
            counted = counted_labels(loss_fn, targets)
            share = loss_share(loss_fn, targets, counted)
            loss = loss_fn(outputs, targets).item() if share else 0.0
            meter.add(loss, outputs, targets, share=share, counted=counted)
    return meter.means()


class Meter:
    """Means over the samples seen: of the loss, of the correct answers, of the penalty."""

    def __init__(self) -> None:
        self.samples = 0
        self.share = 0.0
        self.loss = 0.0
        self.penalty = 0.0
        self.answers = 0
        self.correct: Tensor | None = None

    def add(
        self,
        loss: float,
        outputs: Tensor,
        targets: Tensor,
        penalty: float = 0.0,
        *,
        share: float,
        counted: Tensor | None,
    ) -> None:
        """Add a batch: the means over it, ``(batch, ...)`` outputs and targets.

        Args:
            loss: the mean over the batch.
            outputs: of the model.
            targets: of the batch.
            penalty: of the model.
            share: by how much the batch's mean counts, see `loss_share`.
            counted: the labels that count in the accuracy as in the loss, see `counted_labels`.
        """
        size = targets.shape[0]
        self.samples += size
        self.share += share
        self.loss += loss * share
        self.penalty += penalty * size
        if is_classification(outputs, targets):
            # Stays a tensor until the epoch's end: a GPU need not be waited for.
            right = outputs.argmax(dim=1) == targets
            if counted is not None:
                right = right[counted]
            self.correct = right.sum() if self.correct is None else self.correct + right.sum()
            self.answers += right.numel()

    def means(self) -> dict[str, float]:
        """Return ``loss``, and ``accuracy`` if the targets were classes.

        Raises:
            ValueError: no batch was added.
        """
        if not self.samples:
            raise ValueError("the data is empty: its DataLoader yielded no batch")
        if not self.share:
            raise ValueError("the loss ignores every label of the data")
        metrics = {"loss": self.loss / self.share}
        if self.correct is not None:
            metrics["accuracy"] = self.correct.item() / self.answers
        return metrics


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter, the CPU if there is none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def modes_put_back(model: nn.Module) -> Iterator[None]:
    """Put every module's training flag back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
