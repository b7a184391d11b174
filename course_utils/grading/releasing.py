"""From the sources of the homework to nbgrader's course directory."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import re
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from course_utils.authoring.build import normalize, prepare, read_source
from course_utils.authoring.solutions import clear_solutions, drop_hidden_tests, mark_for_nbgrader
from course_utils.authoring.targets import BuildError, Target, homework_targets
from course_utils.grading.repair import read_notebook, write_notebook

__all__ = ["GradingError", "nbgrader_at_work", "nbgrader_config", "needs_nbgrader", "release", "run_nbgrader"]

_RAISED = re.compile(r"\s*[\w.]*(Error|Exception|Exit|Interrupt|Entry)\b")
# The notebooks that come to nbgrader are executed already.
_SANITIZE = ("DeduplicateIds", "OverwriteKernelspec", "OverwriteCells", "CheckCellMetadata")
_SCORE = ("LimitOutput", "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata")


class GradingError(BuildError):
    """Something the instructor has to mend before anything can be graded; the message says what and where."""


def release(root: Path, course: Path, names: Sequence[str] = ()) -> list[Path]:
    """Make or renew the homework in an nbgrader course directory; return the notebooks for students.

    ``source/`` gets solutions and hidden tests, ``release/`` what students get, ``hidden/`` the module that the hidden
    tests call, ``gradebook.db`` the cells and points.

    Args:
        root: the clone.
        course: the course directory; made if it does not exist.
        names: of homework notebooks, e.g. ``hw1_backpropagation``; all when empty.

    Raises:
        GradingError: nbgrader is not installed or refuses, there is no such homework, or the release is not the
            student version that the course publishes.
    """
    needs_nbgrader()
    course = course.resolve()
    targets = [target for target in homework_targets(root) if target.kind == "homework"]
    if unknown := set(names) - {target.name for target in targets}:
        known = ", ".join(target.name for target in targets) or "none yet"
        raise GradingError(f"no such homework: {', '.join(sorted(unknown))}; there are: {known}")
    chosen = [target for target in targets if not names or target.name in names]
    if not chosen:
        raise GradingError(f"there is no homework in {root / 'notebooks' / 'source' / 'homework'}")
    hidden = root / "notebooks" / "source" / "homework" / "hidden"
    if hidden.is_dir():
        shutil.copytree(hidden, course / "hidden", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return [_release_one(target, course) for target in chosen]


def needs_nbgrader() -> None:
    """Raise a `GradingError` that says how to install nbgrader, if it is missing."""
    if importlib.util.find_spec("nbgrader") is None:
        raise GradingError('nbgrader is not installed; install it with: pip install "mlp-course-utils[grading]"')


def nbgrader_config(course: Path) -> Any:
    """Return nbgrader's settings for a course directory; they do not depend on the current folder or on the user's."""
    from traitlets.config import Config

    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
    config.CourseDirectory.submitted_directory = "repaired"
    config.GenerateAssignment.preprocessors = _release_steps()
    config.Autograde.sanitize_preprocessors = [f"nbgrader.preprocessors.{name}" for name in _SANITIZE]
    config.Autograde.autograde_preprocessors = [f"nbgrader.preprocessors.{name}" for name in _SCORE]
    config.Autograde.permissions = 644
    return config


def _release_steps() -> list[type]:
    """As nbgrader's own list, but with the course's way to take out solutions and hidden tests.

    nbgrader's would replace the skeleton of a report by "YOUR ANSWER HERE".
    """
    from nbgrader.preprocessors import (
        CheckCellMetadata,
        ClearOutput,
        ComputeChecksums,
        LockCells,
        NbGraderPreprocessor,
        SaveCells,
    )

    class ClearForRelease(NbGraderPreprocessor):  # type: ignore[misc]
        def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
            clear_solutions(nb)
            return nb, resources

    class HideTests(NbGraderPreprocessor):  # type: ignore[misc]
        def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
            drop_hidden_tests(nb)
            return nb, resources

    # What SaveCells sees is what grading restores: the hidden tests, but no solutions.
    saving = [LockCells, ClearForRelease, ClearOutput, CheckCellMetadata, ComputeChecksums, SaveCells]
    return [*saving, HideTests, ComputeChecksums, CheckCellMetadata]


def _release_one(target: Target, course: Path) -> Path:
    from nbgrader.converters import GenerateAssignment

    published, full = read_source(target.source), read_source(target.source)
    prepare(published, "homework")
    normalize(published)
    try:
        mark_for_nbgrader(full)
    except ValueError as error:
        raise GradingError(f"{target.name}: {error}") from error
    # The ids of the published cells, so that what students send back can be matched by them.
    for cell, twin in zip(full.cells, published.cells, strict=True):
        cell["id"] = twin["id"]
    source = course / "source" / target.name / f"{target.name}.ipynb"
    source.parent.mkdir(parents=True, exist_ok=True)
    write_notebook(full, source)

    try:
        run_nbgrader(GenerateAssignment, course, target.name)
    except RuntimeError as error:
        raise GradingError(f"{target.name}: nbgrader generate_assignment failed: {error}") from error
    path = course / "release" / target.name / f"{target.name}.ipynb"
    _compare(target.name, published, read_notebook(path))
    return path


def run_nbgrader(converter: Callable[..., Any], course: Path, homework: str, student: str = "") -> None:
    """Run one of nbgrader's converters, and overwrite what it made before.

    Raises:
        RuntimeError: it failed; the message is its own.
    """
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.utils import capture_log

    config = nbgrader_config(course)
    config.CourseDirectory.assignment_id = homework
    config.CourseDirectory.student_id = glob.escape(student) or "*"  # nbgrader looks for a pattern
    with nbgrader_at_work():
        made = converter(coursedir=CourseDirectory(config=config), config=config, force=True)
        made.log.propagate = False
        result = capture_log(made)
    if not result["success"]:
        lines = f"{result.get('log', '')}\n{result['error']}".splitlines()
        raised = [line.strip() for line in lines if _RAISED.match(line)]
        raise RuntimeError(raised[0] if raised else lines[-1])


@contextlib.contextmanager
def nbgrader_at_work() -> Iterator[None]:
    """What nbgrader needs around it, whoever calls it.

    It makes its database with the command ``alembic``, which an environment that is not activated does not find, and
    SQLAlchemy warns about the way nbgrader uses it.
    """
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), before])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ["PATH"] = before


def _compare(name: str, published: Any, released: Any) -> None:
    """Raise unless both notebooks have the same cells: type, text, id, and what nbgrader knows of them."""

    def seen(cell: Any) -> tuple[Any, ...]:
        marks = cell.metadata.get("nbgrader", {})
        roles = ("grade_id", "grade", "solution", "locked", "points")
        return cell.cell_type, cell.source, cell["id"], *(marks.get(role) for role in roles)

    ours, theirs = list(map(seen, published.cells)), list(map(seen, released.cells))
    if ours != theirs:
        differing = [one[1] for one, other in zip(ours, theirs, strict=False) if one != other]
        place = (
            f"the cell that begins with {differing[0].partition(chr(10))[0]!r}" if differing else "the cells' number"
        )
        raise GradingError(f"{name}: nbgrader's release is not the published student version: {place} differs")
