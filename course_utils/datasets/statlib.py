"""Read the text layout in which StatLib keeps the Boston table: a header, then two lines a record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

__all__ = ["HEADER_LINES", "VALUES_PER_LINE", "read_statlib"]

HEADER_LINES = 22
VALUES_PER_LINE = (11, 3)


def read_statlib(path: str | PathLike[str], column_names: Sequence[str]) -> pd.DataFrame:
    """Read a table of 22 header lines and two physical lines a record, 11 values and 3 values.

    Args:
        path: the text file.
        column_names: the 14 names, in the file's order.

    Returns:
        (n_records, 14), float64, numbered from 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line does not hold as many finite numbers as it should (the message names file and line), or
            the last record lacks its second line.
    """
    path = Path(path)
    # Whatever bytes a failed download left must arrive at the checks below, hence no decoding error here.
    lines = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    body = lines[HEADER_LINES:]
    if not body or len(body) % 2 != 0:
        raise ValueError(
            f"{path} must have {HEADER_LINES} header lines and then two lines a record, got {len(lines)} lines"
        )
    numbers = [
        _parse_line(line, VALUES_PER_LINE[index % 2], f"{path}, line {HEADER_LINES + index + 1}")
        for index, line in enumerate(body)
    ]
    records = [first + second for first, second in zip(numbers[::2], numbers[1::2], strict=True)]
    return pd.DataFrame(records, columns=list(column_names), dtype="float64")


def _parse_line(line: str, n_values: int, where: str) -> list[float]:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = []
    if len(values) != n_values or not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: expected {n_values} finite numbers, got {line[:80]!r}")
    return values
