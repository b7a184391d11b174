"""The error of a training whose loss became NaN or infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_utils.training.history import History

__all__ = ["NonFiniteLossError"]


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
