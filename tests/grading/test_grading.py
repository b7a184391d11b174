"""A class of fifty is released, collected and graded in one command, and each gets what it must get."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import csv
import hashlib
import html
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import warnings
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grading_samples as samples
import pytest

from course_utils.cli import main
from course_utils.grading import GradingError, grade, release
from course_utils.grading.releasing import nbgrader_at_work
from course_utils.homework import Verdict, WrongAnswerError

HERE = Path(__file__).parent
HIDDEN = HERE.parents[1] / "notebooks" / "source" / "homework" / "hidden" / "hidden_checks.py"
NAME = samples.NAME


def course(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run ``course`` in a process of its own, without this process's rule that a warning is an error."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "course_utils.cli", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.get("student") or row["student_id"]: row for row in rows}


def released(base: Path) -> Path:
    """A new course with the small homework."""
    pytest.importorskip("nbgrader")
    samples.write_root(base / "root", HIDDEN)
    course("release", "--to", base / "course", cwd=base / "root")
    return base / "course"


@dataclass(frozen=True)
class Graded:
    folder: Path
    rows: dict[str, dict[str, str]]
    before: dict[str, str]


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Graded:
    folder = released(tmp_path_factory.mktemp("class"))
    samples.write_submissions(folder)
    before = digests(folder / "submitted")
    # Fifteen seconds are for the import of torch in the first cell, on a busy machine.
    course("grade", folder, "--timeout", "15", "--total", "120")
    return Graded(folder, table(folder / "report" / f"{NAME}.csv"), before)


@pytest.mark.slow
@pytest.mark.parametrize("case", samples.CASES, ids=lambda case: case.name)
def test_each_gets_its_points_and_a_sentence(graded: Graded, case: samples.Case) -> None:
    row = graded.rows[case.name]
    assert tuple(float(row[task]) for task in samples.HEADS) == case.points, row
    assert row["status"] == case.status, row
    assert case.note in row["note"] if case.note else row["note"] == ""
    task, words = case.says
    if task:
        assert words in row[f"{task}: says"]
    if row["status"] != "unreadable":
        for name, points, most in zip(samples.HEADS, case.points, (2, 3, 2), strict=True):
            assert (row[f"{name}: says"] == "") == (points == most), row


@pytest.mark.slow
def test_all_fifty_have_their_row_nbgrader_agrees_and_submissions_are_left_alone(graded: Graded) -> None:
    assert len(samples.CASES) == 50
    assert set(graded.rows) == {case.name for case in samples.CASES}
    grades = table(graded.folder / "grades.csv")
    assert {name: float(row["score"]) for name, row in grades.items()} == {
        case.name: sum(case.points) for case in samples.CASES
    }
    assert {float(row["max_score"]) for row in grades.values()} == {10}
    assert digests(graded.folder / "submitted") == graded.before


@pytest.mark.slow
def test_everyone_gets_feedback_without_the_hidden_tests_and_of_sane_size(graded: Graded) -> None:
    for case in samples.CASES:
        page = graded.folder / "feedback" / case.name / NAME / f"{NAME}.html"
        text = page.read_text(encoding="utf-8")
        assert len(text) < 1_500_000, case.name
        shown = html.unescape(re.sub(r"<[^>]*>", "", text))
        assert "import hidden_checks" not in shown, case.name
        assert "hidden_checks.require_again" not in shown, case.name
        if "hidden_overflow" in case.name:
            assert "on inputs you have not seen" in shown
        elif case.status == "unreadable" or "lost their marks" in case.note:
            assert case.note in shown, case.name


@pytest.mark.slow
def test_texts_are_left_to_a_person(graded: Graded) -> None:
    to_read = {name for name, row in graded.rows.items() if row["report"] == "?"}
    assert to_read == {"right_with_report", "right_with_new_report_text"}
    assert graded.rows["right_with_report"]["report: says"] == "to be read by a person"
    assert graded.rows["right_a"]["report: says"] == "not attempted"


@pytest.mark.slow
def test_the_class_has_a_summary(graded: Graded) -> None:
    with (graded.folder / "report" / "summary.csv").open(encoding="utf-8", newline="") as file:
        lines = {row["task"]: row for row in csv.DictReader(file)}
    assert lines["relu"]["commonest fault"] == "you take the absolute value: negative inputs become 0"
    assert lines["softmax"]["commonest fault"].startswith("on inputs you have not seen, ")
    ran = [case for case in samples.CASES if case.status != "unreadable"]
    for at, (task, most) in enumerate({"relu": 2, "softmax": 3, "variance": 2}.items()):
        assert int(lines[task]["full"]) == sum(case.points[at] == most for case in ran)
    text = (graded.folder / "report" / "summary.md").read_text(encoding="utf-8")
    assert "50 submissions: " in text
    assert "| stubborn_loop | stopped | the cell variance_solution was still running after 15 s" in text


def in_a_students_notebook(path: Path) -> dict[str, str]:
    """Run a submission's cells as they are, without the hidden tests; return what each check's cell raises."""
    found = {}
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        role = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        if cell["cell_type"] != "code":
            continue
        said = ""
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as a kernel: a warning is no error
            try:
                exec(compile(source, "<cell>", "exec"), names)
            except WrongAnswerError as error:
                said = str(error).partition(": ")[2]
            except NotImplementedError:
                said = "not attempted"
        if role.endswith("_test"):
            found[role.removesuffix("_test")] = said
    return found


# What plain Python cannot do, or must not: twenty gigabytes without a limit.
NOT_PLAIN = ("syntax_error", "reads_hidden", "other_name", "memory")
PLAIN = [
    case
    for case in samples.CASES
    if case.change is None and case.raw is None and case.status == "graded" and case.name not in NOT_PLAIN
]


@pytest.mark.slow
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_a_check_says_the_same_in_the_students_notebook(graded: Graded, case: samples.Case) -> None:
    seen = in_a_students_notebook(graded.folder / "submitted" / case.name / NAME / case.file)
    told = {task: graded.rows[case.name][f"{task}: says"] for task in samples.HEADS}
    hidden = {task for task, says in told.items() if says.startswith("on inputs you have not seen")}

    def comparable(says: str) -> str:
        return says.partition(" (line ")[0][:250]

    assert {task: comparable(says) for task, says in seen.items() if task not in hidden} == {
        task: comparable(says) for task, says in told.items() if task not in hidden
    }
    assert all(seen[task] == "" for task in hidden)


@pytest.mark.slow
def test_a_second_grading_renews_the_first(tmp_path: Path) -> None:
    folder = released(tmp_path)
    late = samples.Case("late", bodies=tuple((task, samples.STUB) for task in samples.HEADS))
    samples.write_submissions(folder, [late])
    (folder / "submitted" / "absent").mkdir()
    (folder / "submitted" / "lost" / "hw9").mkdir(parents=True)
    course("grade", folder, "--total", "1")
    first = table(folder / "report" / f"{NAME}.csv")
    assert (first["late"]["points"], first["late"]["status"]) == ("0", "stopped")
    assert "the notebook took longer than 1 s in all: not run" in first["late"]["note"]
    assert (first["absent"]["status"], first["absent"]["note"]) == ("missing", "nothing was handed in")
    other = table(folder / "report" / "hw9.csv")
    assert other["lost"]["note"] == "there is no homework of this name"

    path = folder / "submitted" / "late" / NAME / f"{NAME}.ipynb"
    path.write_text(
        json.dumps(samples.solve(json.loads(path.read_text(encoding="utf-8")), samples.RIGHT)), encoding="utf-8"
    )
    course("release", "--to", folder, cwd=tmp_path / "root")
    course("grade", folder, NAME, "--jobs", "1")
    assert table(folder / "report" / f"{NAME}.csv")["late"]["points"] == "7"
    assert float(table(folder / "grades.csv")["late"]["score"]) == 7


def book(folder: Path, change: Callable[[Any], None]) -> None:
    """Change the gradebook, as a person does in nbgrader's formgrader."""
    from nbgrader.api import Gradebook

    with nbgrader_at_work(), Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as database:
        change(database)
        database.db.commit()


def give(folder: Path, student: str, cell: str, points: float, comment: str = "") -> None:
    def change(database: Any) -> None:
        grade = database.find_grade(cell, NAME, NAME, student)
        grade.manual_score, grade.needs_manual_grade = points, False
        if comment:
            database.find_comment(cell.replace("_test", "_solution"), NAME, NAME, student).manual_comment = comment

    book(folder, change)


def graded_again(folder: Path) -> dict[str, dict[str, str]]:
    """Grade, and return the rows of a class whose two tables agree."""
    course("grade", folder)
    rows, grades = table(folder / "report" / f"{NAME}.csv"), table(folder / "grades.csv")
    assert {name: float(row["points"]) for name, row in rows.items()} == {
        name: float(row["score"]) for name, row in grades.items()
    }
    return rows


PICTURE = b64encode(b"\x89PNG").decode()


@pytest.mark.slow
def test_what_a_person_gave_stands_until_the_work_behind_it_changes(tmp_path: Path) -> None:
    folder = released(tmp_path)
    release = json.loads((folder / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8"))
    wrong = samples.RIGHT | {"relu": "return abs(x)"}

    def hand_in(student: str, bodies: dict[str, str], report: str, picture: str = PICTURE) -> None:
        path = folder / "submitted" / student / NAME / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook = samples.solve(release, bodies, f"{report} ![curve](attachment:a%20curve.png)")
        notebook["cells"][samples.place(notebook, "report")]["attachments"] = {"a curve.png": {"image/png": picture}}
        path.write_text(json.dumps(notebook), encoding="utf-8")

    students = ("kept", "rewritten", "redrawn", "broken")
    for student in students:
        hand_in(student, wrong, "Mine.")
    assert {row["report"] for row in graded_again(folder).values()} == {"?"}
    assert PICTURE in (folder / "feedback" / "kept" / NAME / f"{NAME}.html").read_text(encoding="utf-8")
    for student in students:
        give(folder, student, "report", 2.5, "Say more.")
        give(folder, student, "relu_test", 1)

    hand_in("rewritten", wrong, "Another.")
    hand_in("redrawn", samples.RIGHT, "Mine.", b64encode(b"\x89PNG2").decode())
    (folder / "submitted" / "broken" / NAME / f"{NAME}.ipynb").write_bytes(b"{")
    rows = graded_again(folder)
    assert {name: (row["relu"], row["report"], row["points"]) for name, row in rows.items()} == {
        "kept": ("1", "2.5", "8.5"),
        "rewritten": ("1", "?", "8.5"),
        "redrawn": ("?", "?", "8.5"),
        "broken": ("0", "0", "0"),
    }
    assert rows["kept"]["relu: says"] == "graded by a person"
    assert rows["kept"]["report: says"] == "graded by a person: Say more."
    assert rows["rewritten"]["report: says"] == "changed since a person gave 2.5: to be read again"

    give(folder, "rewritten", "report", 3)
    hand_in("broken", wrong, "Mine.")
    rows = graded_again(folder)
    assert (rows["rewritten"]["report"], rows["rewritten"]["report: says"]) == ("3", "")
    assert (rows["redrawn"]["relu"], rows["redrawn"]["report"]) == ("?", "?")  # nobody has read it yet
    assert rows["broken"]["report"] == "?"
    comments = []
    book(folder, lambda base: comments.append(base.find_comment("report", NAME, NAME, "broken").manual_comment))
    assert comments == ["Say more. (2.5 points before a submission that could not be read.)"]


@pytest.mark.slow
def test_the_release_has_stubs_and_no_hidden_tests(graded: Graded) -> None:
    released = (graded.folder / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    source = (graded.folder / "source" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    assert "raise NotImplementedError" in released
    assert "What would you try next?" in released
    assert not [word for word in ("hidden_checks", "HIDDEN", "SOLUTION", "np.maximum") if word in released]
    assert all(word in source for word in ("hidden_checks", "HIDDEN", "SOLUTION", "np.maximum"))
    assert [path.name for path in (graded.folder / "release").rglob("*") if path.is_file()] == [f"{NAME}.ipynb"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    samples.write_root(tmp_path / "root", HIDDEN)
    return tmp_path / "root"


def test_without_nbgrader_the_error_says_how_to_install_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (lambda: release(root, root / "c"), lambda: grade(root / "c")):
        with pytest.raises(GradingError, match=r'pip install "mlp-course-utils\[grading\]"'):
            call()


@pytest.fixture
def as_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


@pytest.mark.usefixtures("as_if_installed")
def test_a_wrong_name_or_folder_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GradingError, match=f"no such homework: hw7; there are: {NAME}"):
        release(root, root / "c", ["hw7"])
    assert main(["grade", str(root)]) == 2
    assert "submissions stand in submitted/STUDENT/HOMEWORK/HOMEWORK.ipynb" in capsys.readouterr().err
    (root / "submitted" / "ann" / "hw1").mkdir(parents=True)
    with pytest.raises(GradingError, match=r"nothing to grade in .*; released here: nothing"):
        grade(root)
    with pytest.raises(GradingError, match="not released here: hw1; make it with: course release --to"):
        grade(root, ["hw1"])
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        grade(root, jobs=0)


def hidden_checks() -> Any:
    spec = importlib.util.spec_from_file_location("hidden_checks", HIDDEN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hidden_checks_ask_again_and_say_one_sentence() -> None:
    from grading_sample_checks import check_relu, check_softmax, softmax

    again = hidden_checks().require_again
    again(check_softmax, softmax)
    seeds = []

    def remembering(answer: Any, *, seed: int) -> Verdict:
        seeds.append(seed)
        return check_relu(answer, seed=seed)

    again(remembering, lambda x: x * (x > 0))
    assert len(set(seeds) - {0}) == len(seeds) >= 3
    with pytest.raises(
        WrongAnswerError, match=r"^1 ReLU: on inputs you have not seen, you take the absolute value[^\n]*$"
    ):
        again(check_relu, abs)
