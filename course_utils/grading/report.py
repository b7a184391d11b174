"""What became of a class's submissions: a row for each, and a summary by task."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "Task", "summarize", "write_report"]

_SUMMARY = (
    "homework",
    "task",
    "max",
    "submissions",
    "full",
    "part",
    "none",
    "to read",
    "mean",
    "commonest fault",
    "times",
)
_NO_FAULTS = ("not attempted", "graded by a person")


@dataclass(frozen=True)
class Task:
    """One graded cell of one submission.

    Attributes:
        name: of the task.
        points: reached.
        max_points: to be reached.
        says: why points are missing, in a sentence; empty if none are.
        to_read: whether a person has to read it before it counts.
    """

    name: str
    points: float
    max_points: float
    says: str = ""
    to_read: bool = False


@dataclass(frozen=True)
class Row:
    """What became of one submission.

    Attributes:
        student: the name of the student's folder.
        homework: the name of the homework.
        status: ``"graded"``; ``"stopped"`` if a cell had to be ended; ``"unreadable"``, ``"missing"``; ``"failed"`` if
            the grading itself could not deal with it.
        note: what happened, in a sentence.
        tasks: in the notebook's order; empty if nothing could be run.
    """

    student: str
    homework: str
    status: str
    note: str
    tasks: tuple[Task, ...] = ()

    @property
    def points(self) -> float:
        """All points of the submission so far."""
        return sum(task.points for task in self.tasks)


def write_report(rows: Sequence[Row], folder: Path) -> None:
    """Write ``HOMEWORK.csv`` with a row for each submission, ``summary.csv`` by task, and both in ``summary.md``.

    Args:
        rows: of any homework.
        folder: made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for homework in sorted({row.homework for row in rows}):
        _write_csv(folder / f"{homework}.csv", _table([row for row in rows if row.homework == homework]))
    summary = summarize(rows)
    _write_csv(folder / "summary.csv", [_SUMMARY, *summary])
    (folder / "summary.md").write_text(_markdown(rows, summary), encoding="utf-8", newline="\n")


def summarize(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return, for each task, how its points are distributed and which fault is the commonest, as text."""
    found: dict[tuple[str, str], list[Task]] = {}
    for row in rows:
        for task in row.tasks:
            found.setdefault((row.homework, task.name), []).append(task)
    lines = []
    for (homework, name), tasks in sorted(found.items(), key=lambda item: item[0][0]):  # tasks in the notebook's order
        judged = [task for task in tasks if not task.to_read]
        full = sum(task.points >= task.max_points for task in judged)
        none = sum(task.points <= 0 < task.max_points for task in judged)
        faults = Counter(task.says for task in judged if task.says and task.says not in _NO_FAULTS)
        fault, times = faults.most_common(1)[0] if faults else ("", 0)
        mean = sum(task.points for task in judged) / len(judged) if judged else 0.0
        counts = (len(tasks), full, len(judged) - full - none, none, len(tasks) - len(judged))
        lines.append((homework, name, f"{tasks[0].max_points:g}", *map(str, counts), f"{mean:.2f}", fault, str(times)))
    return lines


def _table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    columns = {task.name: task.max_points for row in rows for task in row.tasks}
    total = f"{sum(columns.values()):g}"
    table = [("student", "status", "points", "of", *columns, "note", *(f"{name}: says" for name in columns))]
    for row in rows:
        tasks = {task.name: task for task in row.tasks}
        points = [_points(tasks[name]) if name in tasks else "0" for name in columns]
        says = [tasks[name].says if name in tasks else "" for name in columns]
        table.append((row.student, row.status, f"{row.points:g}", total, *points, row.note, *says))
    return table


def _points(task: Task) -> str:
    return "?" if task.to_read else f"{task.points:g}"


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([[_harmless(cell) for cell in row] for row in rows])


def _harmless(cell: str) -> str:
    """A spreadsheet would run what a student's error message could begin with."""
    return f"'{cell}" if cell[:1] in "=+-@" and cell else cell


def _markdown(rows: Sequence[Row], summary: Sequence[Sequence[str]]) -> str:
    parts = ["# Class summary\n"]
    for homework in sorted({row.homework for row in rows}):
        own = [row for row in rows if row.homework == homework]
        counts = Counter(row.status for row in own)
        parts.append(f"## {homework}\n")
        parts.append(f"{len(own)} submissions: {', '.join(f'{count} {status}' for status, count in counts.items())}.\n")
        lines = [line[1:] for line in summary if line[0] == homework]
        if lines:
            parts.append(_md_table([_SUMMARY[1:], *lines]))
        if to_read := [row.student for row in own if any(task.to_read for task in row.tasks)]:
            parts.append(f"To be read by a person ({len(to_read)}): {', '.join(to_read)}.\n")
        if noted := [(row.student, row.status, row.note) for row in own if row.status != "graded"]:
            parts.append(_md_table([("student", "status", "what happened"), *noted]))
    return "\n".join(parts)


def _md_table(rows: Sequence[Sequence[str]]) -> str:
    marked = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(_md_cell(cell) for cell in row)} |\n" for row in marked)


def _md_cell(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").replace("<", "&lt;").split())
