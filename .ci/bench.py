"""Measure the ratios that the project promises: ``python .ci/bench.py [training|monitoring|...]``.

Each ``.ci/bench_<part>.py`` has a ``run()`` that returns rows; all parts run when none is named.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

from benchlib import Row

PARTS = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def table(rows: list[Row]) -> str:
    """Return the rows as text, each with a mark for kept or broken; an infinite bound is there for context only."""
    width = max(len(row.name) for row in rows)
    return "\n".join(
        f"{_mark(row)} {row.name:<{width}}  {row.ratio:6.3f} {_bound(row):<7}  {row.note}".rstrip() for row in rows
    )


def _mark(row: Row) -> str:
    if math.isinf(row.bound):
        return "·"
    return "✔" if row.ratio <= row.bound else "✘"


def _bound(row: Row) -> str:
    return "" if math.isinf(row.bound) else f"≤ {row.bound:g}"


def main(chosen: list[str]) -> int:
    """Run the chosen parts, all without a choice; return 1 if a bound is exceeded, 2 for an unknown part."""
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    kept = True
    for part in chosen or PARTS:
        rows = [Row(*row) for row in importlib.import_module(f"bench_{part}").run()]
        print(f"{part}\n{table(rows)}\n", flush=True)
        kept &= all(row.ratio <= row.bound for row in rows)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
