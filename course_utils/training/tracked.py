"""Read what TensorBoard and Weights & Biases recorded, without their programs."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EVENT_FILES", "WANDB_FILES", "TrackedRun", "check_installed", "read_tensorboard", "read_wandb"]

# A run's files, below its folder.
EVENT_FILES, WANDB_FILES = "events.out.tfevents.*", "wandb/*run-*/*.wandb"


@dataclass(frozen=True)
class TrackedRun:
    """What a tool's files hold of a run; ``run["val_loss"]`` is a curve, as with `History`.

    Attributes:
        config: the settings that were recorded with it.
        epochs: the epochs' numbers, from 1.
        curves: one float an epoch by metric; NaN where the file has none.
        stopped_by: why the run ended, as in `History`, or ``"error"``; None if it was cut off or still goes on.
    """

    config: dict[str, Any]
    epochs: list[int]
    curves: dict[str, list[float]]
    stopped_by: str | None

    def __getitem__(self, metric: str) -> list[float]:
        if metric not in self.curves:
            raise KeyError(f"no metric {metric!r}; recorded: {', '.join(self.curves) or 'nothing yet'}")
        return self.curves[metric]

    def __contains__(self, metric: object) -> bool:
        return metric in self.curves

    def __len__(self) -> int:
        return len(self.epochs)


def read_tensorboard(folder: str | os.PathLike[str]) -> TrackedRun:
    """Read the run that `TensorBoard` wrote, without starting the program.

    Args:
        folder: of the run.

    Returns:
        Settings and curves; event files hold float32, so that a value differs from the history's by up to 6e-8 of it.

    Raises:
        FileNotFoundError: the folder holds no event file.
        ImportError: TensorBoard is not installed.
    """
    check_installed("read_tensorboard", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _files_of(folder, EVENT_FILES, "TensorBoard")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()  # 0: all of them
    texts = {
        tag.removesuffix("/text_summary"): events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }
    rows: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            rows.setdefault(event.step, {})[tag] = event.value
    return _tracked(json.loads(texts.get("config", "{}")), rows, texts.get("stopped_by"))


def read_wandb(folder: str | os.PathLike[str]) -> TrackedRun:
    """Read the run that `WeightsAndBiases` wrote offline, without the server; of several files the latest.

    Args:
        folder: of the run.

    Returns:
        Settings and curves, the values to the last bit.

    Raises:
        FileNotFoundError: the folder holds no file of Weights & Biases.
        ImportError: wandb is not installed.
    """
    check_installed("read_wandb", "wandb")
    path = _files_of(folder, WANDB_FILES, "Weights & Biases")[-1]
    config: dict[str, Any] = {}
    rows: dict[int, dict[str, float]] = {}
    stopped_by = None
    for record in _wandb_records(path.read_bytes()):
        if record.HasField("run"):
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.HasField("history"):
            row = {name: value for name, value in _items(record.history.item).items() if not name.startswith("_")}
            numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
            rows.setdefault(record.history.step.num, {}).update(numbers)
        elif record.HasField("summary"):
            stopped_by = _items(record.summary.update).get("stopped_by", stopped_by)
    config.pop("_wandb", None)
    return _tracked(config, rows, stopped_by)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _wandb_records(data: bytes) -> Iterator[Any]:
    """Yield the records of a file, as far as it was written.

    The file is a head of 7 bytes, then chunks: a checksum (4 bytes), the length of the content (2), the kind (1), the
    content. Kind 1 is a whole record; 2, 3 and 4 are the first, a middle and the last part of one. No chunk crosses a
    multiple of 32 KiB; where fewer than 7 bytes are left before one, they stay empty. Source: the log format of
    LevelDB, which wandb took over.
    """
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # generated, and without annotations
    position, content = 7, b""
    while True:
        if (room := -position % 32768) < 7:
            position += room
        start = position + 7
        end = start + int.from_bytes(data[position + 4 : position + 6], "little")
        if end > len(data) or not (kind := data[position + 6]):  # cut off, or not written yet
            return
        content, position = content + data[start:end], end
        if kind in (1, 4):
            yield messages.Record.FromString(content)
            content = b""


def _tracked(config: dict[str, Any], rows: Mapping[int, Mapping[str, float]], stopped_by: str | None) -> TrackedRun:
    epochs = sorted(rows)
    names = sorted({name for row in rows.values() for name in row})  # wandb shuffles them
    curves = {name: [rows[epoch].get(name, math.nan) for epoch in epochs] for name in names}
    return TrackedRun(config, epochs, curves, stopped_by)


def _files_of(folder: str | os.PathLike[str], pattern: str, tool: str) -> list[Path]:
    if files := sorted(Path(folder).glob(pattern)):
        return files
    raise FileNotFoundError(f"{os.fspath(folder)!r} holds no run of {tool}: there is no file {pattern}")


def check_installed(user: str, package: str) -> None:
    """Raise an ``ImportError`` that says what to install, if the package is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name beside the script is no package
        raise ImportError(
            f"{user} needs the package {package}, which is not installed; run: pip install 'mlp-course-utils[lessons]'"
        )
