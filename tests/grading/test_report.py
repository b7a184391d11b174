"""Rows and summary of a class."""

from __future__ import annotations

import csv
from pathlib import Path

from course_utils.grading.report import Row, Task, summarize, write_report

ROWS = [
    Row("ann", "hw1", "graded", "", (Task("relu", 2, 2), Task("text", 0, 3, "to be read by a person", True))),
    Row("bob", "hw1", "stopped", "=cmd|x", (Task("relu", 0, 2, "a|b"), Task("text", 0, 3, "not attempted"))),
    Row("cy", "hw1", "graded", "", (Task("relu", 1, 2, "a|b"), Task("text", 3, 3))),
    Row("dee", "hw1", "unreadable", "the file is empty"),
    Row("ann", "hw2", "graded", "", (Task("loss", 0, 4, "not attempted"),)),
]


def test_summary_counts_by_task_and_names_the_commonest_fault() -> None:
    assert summarize(ROWS) == [
        ("hw1", "relu", "2", "3", "1", "1", "1", "0", "1.00", "a|b", "2"),
        ("hw1", "text", "3", "3", "1", "0", "1", "1", "1.50", "", "0"),
        ("hw2", "loss", "4", "1", "0", "0", "1", "0", "0.00", "", "0"),
    ]


def test_report_files(tmp_path: Path) -> None:
    write_report(ROWS, tmp_path / "report")
    with (tmp_path / "report" / "hw1.csv").open(encoding="utf-8", newline="") as file:
        table = {row["student"]: row for row in csv.DictReader(file)}
    assert list(table) == ["ann", "bob", "cy", "dee"]
    assert (table["ann"]["relu"], table["ann"]["text"], table["ann"]["points"], table["ann"]["of"]) == (
        "2",
        "?",
        "2",
        "5",
    )
    assert table["bob"]["note"] == "'=cmd|x"  # a spreadsheet must not run it
    assert table["dee"]["relu"] == "0"

    text = (tmp_path / "report" / "summary.md").read_text(encoding="utf-8")
    assert "4 submissions: 2 graded, 1 stopped, 1 unreadable." in text
    assert "| relu | 2 | 3 | 1 | 1 | 1 | 0 | 1.00 | a\\|b | 2 |" in text
    assert "To be read by a person (1): ann." in text
    assert "| dee | unreadable | the file is empty |" in text
