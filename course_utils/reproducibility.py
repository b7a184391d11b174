"""Seeds, device choice and the environment report."""

from __future__ import annotations

import os
import platform
import random
from importlib import metadata

import numpy as np
import torch

from course_utils import __version__
from course_utils._validation import check_int

__all__ = ["environment_report", "get_device", "make_generator", "seed_everything", "set_up"]

_REPORTED = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib")


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices).

    A seed fixes the *stream* of random numbers, not who draws from it: one extra ``torch.rand`` anywhere shifts
    everything after it. Where two things are compared, pass each its own `make_generator`.

    Args:
        seed: at least 0 and below 2**32 (NumPy's range).

    Raises:
        TypeError, ValueError: ``seed`` is not an integer of that range.
    """
    np.random.seed(seed)  # noqa: NPY002 - first, as it refuses what is no seed; libraries that draw from it are meant
    random.seed(seed)
    torch.manual_seed(seed)


def make_generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator of its own stream, independent of the global one.

    Args:
        seed: at least 0.
        device: where the generator draws.

    Raises:
        TypeError, ValueError: ``seed`` is not an integer of at least 0.
    """
    check_int(seed, "seed", minimum=0)
    return torch.Generator(device=device).manual_seed(seed)


def get_device() -> torch.device:
    """Return the first accelerator (``cuda``, then Apple's ``mps``), else the CPU.

    The lessons run on the CPU in seconds; their networks are too small for a GPU to pay.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def set_up(seed: int = 0, *, num_threads: int = 1) -> None:
    """Begin a lesson: seed everything and fix the number of CPU threads.

    One thread is the default because the course's layers are so narrow that a second one costs more in
    synchronisation than it computes, and because results then do not depend on the machine's core count.

    Args:
        seed: for `seed_everything`.
        num_threads: CPU threads of one torch operation, at least 1.
    """
    seed_everything(seed)
    torch.set_num_threads(num_threads)


def environment_report() -> str:
    """Return the versions a bug report should carry, as a few lines of text."""
    lines = [f"course_utils {__version__} on Python {platform.python_version()} ({platform.system()})"]
    lines.append(", ".join(f"{name} {metadata.version(name)}" for name in _REPORTED))
    threads = torch.get_num_threads()
    lines.append(f"device {get_device()}, {threads} of {os.cpu_count()} CPU threads")
    return "\n".join(lines)
