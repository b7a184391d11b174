"""What the benchmarks share: rows of ratios, and timing of rivals in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One measured ratio: ``name`` took ``ratio`` times as long as what it is compared with; at most ``bound``."""

    name: str
    ratio: float
    bound: float
    note: str = ""


def time_in_turn(rivals: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Time every rival once a round, in turn, and return the seconds of each by round.

    In turn, because a machine that is slow for a while is then slow for all; the first round only warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for round_ in range(rounds + 1):
        for name, run in rivals.items():
            begin = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def median_ratio(seconds: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Return the median over the rounds of how many times longer one rival took than another."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[reference], strict=True))
