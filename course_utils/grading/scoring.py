"""Points, grades and feedback of executed submissions, through nbgrader."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import Any

from course_utils.authoring.solutions import drop_hidden_tests
from course_utils.grading.execution import STOPPED
from course_utils.grading.releasing import nbgrader_at_work, nbgrader_config, run_nbgrader
from course_utils.grading.repair import is_test, read_notebook, write_notebook
from course_utils.grading.report import Task

__all__ = ["Gradebook"]

_TAKEN_OUT = "(a line of the hidden test stood here)"


class Gradebook:
    """An nbgrader course directory and its database.

    Args:
        course: the directory.
    """

    def __init__(self, course: Path) -> None:
        self.course = course

    def score(self, student: str, homework: str, notebook: Any, full: Any, remarks: list[str]) -> list[Task]:
        """Enter a submission into the database, write its feedback, and return its points.

        Args:
            student: the name of the student's folder.
            homework: the name of the homework.
            notebook: repaired and executed; also stands in ``repaired/``.
            full: the release with the hidden tests, from `repair.template`.
            remarks: sentences that the feedback begins with.

        Raises:
            RuntimeError: nbgrader refuses; the message is its own.
        """
        from nbformat.v4 import new_markdown_cell
        from nbgrader.converters import Autograde, GenerateFeedback

        run_nbgrader(Autograde, self.course, homework, student)
        path = self.course / "autograded" / student / homework / f"{homework}.ipynb"
        graded = read_notebook(path)
        secrets = _secrets(full)
        _redact(graded, secrets)
        if remarks:
            text = "**Grading**\n\n" + "".join(f"- {one}\n" for one in remarks)
            graded.cells.insert(0, new_markdown_cell(text))  # type: ignore[no-untyped-call]
        write_notebook(graded, path)
        run_nbgrader(GenerateFeedback, self.course, homework, student)
        return self._tasks(student, homework, notebook)

    def give_nothing(self, student: str, homework: str, reason: str) -> None:
        """Enter a submission that cannot be run: no points, and a page of feedback that says why."""
        from nbgrader.api import Gradebook as Database

        with nbgrader_at_work(), Database(self._config().CourseDirectory.db_url) as database:
            database.update_or_create_student(student)
            submission = database.update_or_create_submission(homework, student)
            for notebook in submission.notebooks:
                for grade in notebook.grades:
                    grade.auto_score, grade.needs_manual_grade = 0, False
            database.db.commit()
        for made_before in ("autograded", "repaired"):
            shutil.rmtree(self.course / made_before / student / homework, ignore_errors=True)
        folder = self.course / "feedback" / student / homework
        folder.mkdir(parents=True, exist_ok=True)
        title, text = html.escape(homework), html.escape(reason)
        page = f"<!DOCTYPE html>\n<meta charset=utf-8>\n<title>{title}</title>\n<p>{text}</p>\n"
        (folder / f"{homework}.html").write_text(page, encoding="utf-8")

    def export(self, path: Path) -> None:
        """Write every grade in the database to a CSV file, as ``nbgrader export`` does."""
        from nbgrader.api import Gradebook as Database
        from nbgrader.plugins import CsvExportPlugin

        with nbgrader_at_work(), Database(self._config().CourseDirectory.db_url) as database:
            plugin = CsvExportPlugin(to=str(path))
            plugin.log.propagate = False
            plugin.export(database)

    def _config(self) -> Any:
        return nbgrader_config(self.course)

    def _tasks(self, student: str, homework: str, notebook: Any) -> list[Task]:
        from nbgrader.api import Gradebook as Database

        with nbgrader_at_work(), Database(self._config().CourseDirectory.db_url) as database:
            submission = database.find_submission(homework, student)
            grades = {grade.name: grade for one in submission.notebooks for grade in one.grades}
            tasks = []
            for cell in notebook.cells:
                name = cell.metadata.get("nbgrader", {}).get("grade_id")
                if name in grades:
                    grade = grades[name]
                    to_read = bool(grade.needs_manual_grade and grade.manual_score is None)
                    full = not to_read and grade.score >= grade.max_score
                    says = "" if full else "to be read by a person" if to_read else _fault(cell, notebook)
                    tasks.append(
                        Task(name.removesuffix("_test"), float(grade.score), float(grade.max_score), says, to_read)
                    )
            return tasks


def _fault(cell: Any, notebook: Any) -> str:
    """Say in a sentence why a check gave no points."""
    if not is_test(cell):
        return "not attempted"
    error = next((output for output in cell.outputs if output.output_type == "error"), None)
    if error is None:
        return "a part of the points"
    text = " ".join(error.evalue.split())[:300]
    if error.ename == STOPPED:
        return text
    if error.ename == "WrongAnswerError":
        return text.partition(": ")[2] or text
    if error.ename == "NotImplementedError":
        return "not attempted"
    stem = cell.metadata.nbgrader.grade_id.removesuffix("_test")
    for other in notebook.cells:
        if other.metadata.get("nbgrader", {}).get("grade_id") == f"{stem}_solution":
            for output in other.outputs:
                if output.output_type == "error":
                    shown = " ".join(output.evalue.split())[:200]
                    return shown if output.ename == STOPPED else f"its cell fails with {output.ename}: {shown}"
    return f"the check fails with {error.ename}: {text}"


def _secrets(full: Any) -> set[str]:
    """The lines that only the hidden tests have."""
    shown = type(full)(full)
    shown.cells = [type(cell)(cell) for cell in full.cells]
    drop_hidden_tests(shown)
    open_lines = {line.strip() for cell in shown.cells for line in cell.source.splitlines()}
    return {line.strip() for cell in full.cells for line in cell.source.splitlines()} - open_lines - {""}


def _redact(notebook: Any, secrets: set[str]) -> None:
    """Take the hidden tests out of cells and outputs, in place; of an error in a check, its sentence stays."""
    drop_hidden_tests(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                if is_test(cell):
                    output["traceback"] = [f"{output.ename}: {output.evalue}"]
                output["evalue"] = _clean(output.evalue, secrets)
                output["traceback"] = [_clean(text, secrets) for text in output.traceback]
            elif output.output_type == "stream":
                output["text"] = _clean(output.text, secrets)
            for mime, value in output.get("data", {}).items():
                if isinstance(value, str):
                    output["data"][mime] = _clean(value, secrets)


def _clean(text: str, secrets: set[str]) -> str:
    if "hidden_checks" not in text and not any(secret in text for secret in secrets):
        return text
    lines = text.split("\n")
    return "\n".join(
        _TAKEN_OUT if "hidden_checks" in line or any(secret in line for secret in secrets) else line for line in lines
    )
