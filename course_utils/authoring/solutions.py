"""What a notebook's source says about exercises: solutions to take out, and the marks that nbgrader reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from course_utils.homework.engine.verdict import VERDICT_TYPE

__all__ = ["STUB", "clear_solutions", "drop_hidden_tests", "mark_for_nbgrader", "verdicts"]

STUB = "raise NotImplementedError  # your code here"

_BEGIN, _END = "### BEGIN SOLUTION", "### END SOLUTION"
_HIDDEN = re.compile(r"\n*^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS(?:\n|\Z)", re.DOTALL | re.MULTILINE)
# What a source writes after `# %%` to say what a cell is for.
_ROLES = ("solution", "test", "answer")


def clear_solutions(notebook: Any) -> None:
    """Replace every solution by a stub, in place.

    A solution stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION``. Inside a function it gives way to a line
    that raises NotImplementedError. At the left margin it goes without trace: there it only fills a name that the line
    above has set to ``...``.

    Raises:
        ValueError: a begin without an end, or an end without a begin; the message shows the cell's first line.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(_cleared(cell.source.split("\n")))


def verdicts(notebook: Any) -> list[dict[str, str]]:
    """Return what the checks of an executed notebook answered: exercise, status and message of each, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][VERDICT_TYPE] for output in outputs if VERDICT_TYPE in output.get("data", {})]


def drop_hidden_tests(notebook: Any) -> None:
    """Take the lines from ``### BEGIN HIDDEN TESTS`` to ``### END HIDDEN TESTS`` out of every code cell, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = _HIDDEN.sub("", cell.source)


def mark_for_nbgrader(notebook: Any) -> None:
    """Turn the short marks of a homework's source into nbgrader's metadata (schema 3), in place.

    ``# %% solution="relu"`` is a cell for the student's code, ``# %% test="relu" points=2`` its graded, locked check,
    and ``# %% [markdown] answer="report" points=4`` a text that a person grades.

    Raises:
        ValueError: a mark that grades has no points, or two cells have the same role and name.
    """
    seen = set()
    for cell in notebook.cells:
        role = next((role for role in _ROLES if role in cell.metadata), None)
        if role is None:
            continue
        name, points = cell.metadata.pop(role), cell.metadata.pop("points", None)
        if (role == "solution") != (points is None):
            raise ValueError(
                f"the cell {role}={name!r} has points={points}: tests and answers have points, solutions none"
            )
        if (role, name) in seen:
            raise ValueError(f"there are two cells {role}={name!r}")
        seen.add((role, name))
        marks = {
            "schema_version": 3,
            "grade_id": name if role == "answer" else f"{name}_{role}",
            "solution": role != "test",
            "grade": role != "solution",
            "locked": role == "test",
            "task": False,
        }
        if points is not None:
            marks["points"] = points
        cell.metadata["nbgrader"] = marks
        if role == "solution":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "exercise"]


def _cleared(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    inside = False
    for line in lines:
        mark = line.strip()
        if mark not in (_BEGIN, _END):
            if not inside:
                kept.append(line)
            continue
        if (mark == _BEGIN) == inside:
            raise ValueError(f"{mark!r} without its other half in the cell that begins with {lines[0]!r}")
        inside = mark == _BEGIN
        indent = line[: len(line) - len(line.lstrip())]
        if inside and indent:
            kept.append(indent + STUB)
    if inside:
        raise ValueError(f"{_BEGIN!r} without its other half in the cell that begins with {lines[0]!r}")
    return kept
