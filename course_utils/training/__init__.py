"""Train models: `fit`, the `History` it returns, callbacks, and `evaluate`.

Import from here; the modules inside build on each other from left to right: ``history, batches, checkpoints,
tracked`` ← ``nonfinite, callbacks, measuring`` ← ``loop, tracking``.
"""

from course_utils.training.callbacks import (
    Callback,
    EarlyStopping,
    LiveLossPlot,
    ModelCheckpoint,
    ProgressBar,
    TrainState,
)
from course_utils.training.history import History
from course_utils.training.loop import fit
from course_utils.training.measuring import evaluate
from course_utils.training.nonfinite import NonFiniteLossError
from course_utils.training.tracked import TrackedRun, read_tensorboard, read_wandb
from course_utils.training.tracking import TensorBoard, WeightsAndBiases

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "LiveLossPlot",
    "ModelCheckpoint",
    "NonFiniteLossError",
    "ProgressBar",
    "TensorBoard",
    "TrackedRun",
    "TrainState",
    "WeightsAndBiases",
    "evaluate",
    "fit",
    "read_tensorboard",
    "read_wandb",
]
