"""Read and write checkpoint files: whole or not at all, and tensors and plain containers only."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["check_same_entries", "load_entries", "plain_names", "read_checkpoint", "write_checkpoint"]

_FORMAT = "course_utils checkpoint 1"


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write the content to the file in one move, so that a crash leaves the file as it was."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        torch.save({"format": _FORMAT, **content}, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a file that `ModelCheckpoint` wrote, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint file {os.fspath(path)!r}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged or not a checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{os.fspath(path)!r} was not written by ModelCheckpoint of this version")
    return content


def plain_names(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's entries under the names that they have before `torch.compile`, which adds ``_orig_mod.``."""
    return {name.replace("_orig_mod.", ""): entry for name, entry in entries.items()}


def load_entries(model: nn.Module, entries: Mapping[str, Tensor]) -> None:
    """Load entries under plain names into a model, compiled or not."""
    model.load_state_dict({name: entries[name.replace("_orig_mod.", "")] for name in model.state_dict()})


def check_same_entries(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str) -> None:
    """Raise if a checkpoint belongs to another architecture."""
    for name in [*stored, *own]:
        shapes = [
            tuple(entries[name].shape) if name in entries else "nothing of that name" for entries in (stored, own)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{path!r} is of another model: {name!r} is {shapes[0]} there, {shapes[1]} in the model")
