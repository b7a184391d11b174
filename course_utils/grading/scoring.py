"""Points, grades and feedback of executed submissions, through nbgrader."""

from __future__ import annotations

import contextlib
import html
import shutil
from collections.abc import Iterator
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
            RuntimeError: nbgrader refuses the submission; the message is its own.
        """
        from nbformat.v4 import new_markdown_cell
        from nbgrader.converters import Autograde, GenerateFeedback

        path = self.course / "autograded" / student / homework / f"{homework}.ipynb"
        read_before = self._read_by_a_person(student, homework, path)
        run_nbgrader(Autograde, self.course, homework, student)
        graded = read_notebook(path)
        _redact(graded, _secrets(full))
        if remarks:
            text = "**Grading**\n\n" + "".join(f"- {one}\n" for one in remarks)
            graded.cells.insert(0, new_markdown_cell(text))  # type: ignore[no-untyped-call]
        write_notebook(graded, path)
        with self._submission(student, homework) as submission:
            for grade in _grades(submission):
                if grade.manual_score is not None:
                    grade.needs_manual_grade = read_before.get(grade.name) != _work(graded, grade.name)
            tasks = _tasks(submission, notebook)
        try:
            run_nbgrader(GenerateFeedback, self.course, homework, student)
        except RuntimeError as error:  # the points stand all the same
            points = [f"{task.name}: {task.points:g} of {task.max_points:g} {task.says}" for task in tasks]
            self._write_page(student, homework, [*remarks, f"this page could not show your notebook: {error}", *points])
        return tasks

    def give_nothing(self, student: str, homework: str, reason: str) -> None:
        """Enter a submission that cannot be run: no points, and a page of feedback that says why.

        What a person gave for an earlier one goes into the comment that the person sees when grading again.
        """
        with self._submission(student, homework, create=True) as submission:
            comments = {comment.name: comment for one in submission.notebooks for comment in one.comments}
            for grade in _grades(submission):
                comment = comments.get(_solution(grade.name))
                if grade.manual_score is not None and comment is not None:
                    given = f"({grade.score:g} points before a submission that could not be read.)"
                    comment.manual_comment = f"{comment.manual_comment or ''} {given}".strip()
                grade.auto_score, grade.manual_score, grade.extra_credit = 0, None, None
                grade.needs_manual_grade = False
        for made_before in ("autograded", "repaired"):
            shutil.rmtree(self.course / made_before / student / homework, ignore_errors=True)
        self._write_page(student, homework, [reason])

    def _write_page(self, student: str, homework: str, lines: list[str]) -> None:
        folder = self.course / "feedback" / student / homework
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
        page = f"<!DOCTYPE html>\n<meta charset=utf-8>\n<title>{html.escape(homework)}</title>\n{text}"
        (folder / f"{homework}.html").write_text(page, encoding="utf-8")

    def _read_by_a_person(self, student: str, homework: str, graded: Path) -> dict[str, Any]:
        """Return the work behind each grade that a person has given and that does not wait to be read again."""
        if not graded.is_file():
            return {}
        notebook = read_notebook(graded)
        with self._submission(student, homework, create=True) as submission:
            given = [grade for grade in _grades(submission) if grade.manual_score is not None]
            return {grade.name: _work(notebook, grade.name) for grade in given if not grade.needs_manual_grade}

    @contextlib.contextmanager
    def _submission(self, student: str, homework: str, *, create: bool = False) -> Iterator[Any]:
        """The database's entry of a submission; what is changed in it is written at the end."""
        from nbgrader.api import Gradebook as Database

        with nbgrader_at_work(), Database(self._config().CourseDirectory.db_url) as database:
            if create:
                database.update_or_create_student(student)
                database.update_or_create_submission(homework, student)
            yield database.find_submission(homework, student)
            database.db.commit()

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


def _grades(submission: Any) -> list[Any]:
    return [grade for notebook in submission.notebooks for grade in notebook.grades]


def _solution(name: str) -> str:
    """The cell with the student's work for a graded cell: a check's is the solution before it, a text is its own."""
    return f"{name.removesuffix('_test')}_solution" if name.endswith("_test") else name


def _work(notebook: Any, name: str) -> Any:
    """What a person has read to give a grade: the text of the student's cell and the pictures in it."""
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == _solution(name):
            return cell.source, cell.get("attachments", {})
    return None


def _tasks(submission: Any, notebook: Any) -> list[Task]:
    grades = {grade.name: grade for grade in _grades(submission)}
    comments = {comment.name: comment.manual_comment for one in submission.notebooks for comment in one.comments}
    tasks = []
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name not in grades:
            continue
        grade = grades[name]
        if grade.needs_manual_grade:
            says = "to be read by a person"
            if grade.manual_score is not None:
                says = f"changed since a person gave {grade.score:g}: to be read again"
        elif grade.score >= grade.max_score:
            says = ""
        elif grade.manual_score is not None:
            says = ": ".join(filter(None, ["graded by a person", comments.get(_solution(name))]))
        else:
            says = _fault(cell, notebook)
        task = name.removesuffix("_test")
        tasks.append(Task(task, float(grade.score), float(grade.max_score), says, bool(grade.needs_manual_grade)))
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
    solution = _solution(cell.metadata.nbgrader.grade_id)
    for other in notebook.cells:
        if other.metadata.get("nbgrader", {}).get("grade_id") == solution:
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
