"""Grade all that a class has handed in, one submission after the other goes wrong or not."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils._validation import check_int
from course_utils.grading.execution import Limits, execute, trusted_names
from course_utils.grading.releasing import GradingError, needs_nbgrader
from course_utils.grading.repair import (
    Repaired,
    UnreadableError,
    find_submission,
    read_notebook,
    read_submission,
    repair,
    template,
    unpack,
    write_notebook,
)
from course_utils.grading.report import Row, write_report
from course_utils.grading.scoring import Gradebook

__all__ = ["grade"]


@dataclass(frozen=True)
class _Homework:
    """A release, read once for the whole class."""

    name: str
    released: Any
    full: Any
    trusted: str


@dataclass
class _Submission:
    """One student's, on its way through the grading."""

    student: str
    homework: _Homework
    folder: Path
    repaired: Repaired | None = None
    status: str = "graded"
    remarks: tuple[str, ...] = ()


def grade(
    course: Path,
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    limits: Limits | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Grade ``submitted/STUDENT/HOMEWORK/HOMEWORK.ipynb`` and return a row for each.

    The submissions stay as they are; ``repaired/`` gets what was run, ``autograded/`` the results, ``feedback/`` a page
    for each student, ``grades.csv`` nbgrader's grades, ``report/`` the rows and the summary of the class.

    Students' code runs as it is, with the rights of whoever calls this: do so in a container.

    Args:
        course: an nbgrader course directory that `release` has made.
        names: of homework; all that somebody has handed in when empty. Whoever has not gets a row too.
        jobs: submissions run at the same time; as many as there are cores when ``None``.
        limits: for each submission.
        tell: is given a line of progress for each submission.

    Raises:
        GradingError: nbgrader is not installed, or the directory is none of a course.
    """
    needs_nbgrader()
    jobs = check_int(jobs, "jobs", minimum=1) if jobs is not None else os.cpu_count() or 1
    course = course.resolve()
    submissions, rows = _collect(course, names)
    asyncio.run(_execute_all(submissions, course, jobs, limits or Limits(), tell))
    book = Gradebook(course)
    rows += [_score(submission, book, course) for submission in submissions]
    rows.sort(key=lambda row: (row.homework, row.student))
    book.export(course / "grades.csv")
    write_report(rows, course / "report")
    return rows


def _collect(course: Path, names: Sequence[str]) -> tuple[list[_Submission], list[Row]]:
    submitted = course / "submitted"
    if not submitted.is_dir():
        raise GradingError(f"no folder {submitted}: submissions stand in submitted/STUDENT/HOMEWORK/HOMEWORK.ipynb")
    students = sorted(path.name for path in submitted.iterdir() if path.is_dir() and not path.name.startswith("."))
    known = {path.parent.name for path in (course / "release").glob("*/*.ipynb")}
    handed_in = {name for name in known if any(_folder(submitted / student, name).is_dir() for student in students)}
    if unknown := set(names) - known:
        raise GradingError(
            f"not released here: {', '.join(sorted(unknown))}; make it with: course release --to {course}"
        )
    wanted = set(names) or handed_in
    if not wanted:
        raise GradingError(f"nothing to grade in {submitted}; released here: {', '.join(sorted(known)) or 'nothing'}")
    submissions = []
    for name in sorted(wanted):
        homework = _read_homework(course, name)
        submissions += [_Submission(student, homework, _folder(submitted / student, name)) for student in students]
    rows = []
    if not names:
        for student in students:
            for path in sorted((submitted / student).iterdir()):
                if path.is_dir() and not any(path.name.casefold() == name.casefold() for name in known):
                    rows.append(Row(student, path.name, "unreadable", "there is no homework of this name"))
    return submissions, rows


def _folder(parent: Path, name: str) -> Path:
    """A student's folder for a homework, in whatever case its name is written."""
    alike = [path for path in sorted(parent.iterdir()) if path.is_dir() and path.name.casefold() == name.casefold()]
    return alike[0] if alike and not (parent / name).is_dir() else parent / name


def _read_homework(course: Path, name: str) -> _Homework:
    source = read_notebook(course / "source" / name / f"{name}.ipynb")
    released = read_notebook(course / "release" / name / f"{name}.ipynb")
    return _Homework(name, released, template(source, released), trusted_names(released))


async def _execute_all(
    submissions: Sequence[_Submission], course: Path, jobs: int, limits: Limits, tell: Callable[[str], None]
) -> None:
    """Kernels are processes of their own, so one thread is enough to look after them."""
    gate = asyncio.Semaphore(jobs)
    threads = max(1, (os.cpu_count() or 1) // jobs)

    async def one(submission: _Submission) -> None:
        async with gate:
            try:
                await _run(submission, course, limits, threads)
            except Exception as error:  # the batch goes on, whatever this one has done
                submission.repaired = None
                submission.status = "failed"
                submission.remarks = (f"the grading could not deal with it: {type(error).__name__}: {error}",)
        what = "; ".join(submission.remarks) or "run"
        tell(f"{submission.homework.name} {submission.student}: {what}")

    await asyncio.gather(*map(one, submissions))


async def _run(submission: _Submission, course: Path, limits: Limits, threads: int) -> None:
    homework = submission.homework
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        try:
            folder = unpack(submission.folder, Path(scratch))
            path, remark = find_submission(folder, homework.name, homework.released)
            submitted = read_submission(path)
        except UnreadableError as error:
            submission.status = "unreadable" if submission.folder.is_dir() else "missing"
            submission.remarks = (str(error),)
            return
        submission.repaired = repair(submitted, homework.released, homework.full)
        notebook = submission.repaired.notebook
        ended = await execute(
            notebook,
            files=path.parent,
            hidden=course / "hidden",
            trusted=homework.trusted,
            limits=limits,
            threads=threads,
        )
    submission.status = "stopped" if ended else "graded"
    submission.remarks = tuple(filter(None, [remark, *submission.repaired.notes, ended]))
    copy = course / "repaired" / submission.student / homework.name
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    write_notebook(notebook, copy / f"{homework.name}.ipynb")
    _copy_timestamp(submission.folder / "timestamp.txt", copy)


def _copy_timestamp(stamp: Path, folder: Path) -> None:
    """One that nbgrader cannot read would cost the submission."""
    from nbgrader.utils import parse_utc

    try:
        text = stamp.read_text(encoding="utf-8").strip()
        parse_utc(text)
    except (OSError, ValueError, OverflowError):
        return
    (folder / stamp.name).write_text(text, encoding="utf-8")


def _score(submission: _Submission, book: Gradebook, course: Path) -> Row:
    student, name = submission.student, submission.homework.name
    note = "; ".join(submission.remarks)
    try:
        if submission.repaired is None:
            book.give_nothing(student, name, note)
            return Row(student, name, submission.status, note)
        tasks = book.score(
            student, name, submission.repaired.notebook, submission.homework.full, list(submission.remarks)
        )
    except Exception as error:  # nbgrader's, for this submission; the batch goes on
        return Row(student, name, "failed", f"nbgrader could not score it: {type(error).__name__}: {error}")
    return Row(student, name, submission.status, note, tuple(tasks))
