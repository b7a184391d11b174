"""What ``import course_utils.training`` adds to the imports that any torch program has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchlib import Row, median_ratio, time_in_turn


def _interpreter(imports: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", f"import {imports}"], check=True)


def run() -> list[Row]:
    """Time fresh interpreters."""
    ours, base = "course_utils.training", "numpy, torch"
    seconds = time_in_turn({base: _interpreter(base), ours: _interpreter(f"{base}, {ours}")}, rounds=11)
    return [Row(f"import {ours}", median_ratio(seconds, ours, base), 1.10, "of importing torch and numpy")]
