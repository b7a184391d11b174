"""The committed notebooks are what their sources make, and keep the design's promises to the reader."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils.authoring.build import MAX_BYTES, Target, find_flaws, homework_targets, is_stale, lesson_targets
from course_utils.authoring.solutions import verdicts
from course_utils.claims import MIME_TYPE

ROOT = Path(__file__).resolve().parents[1]
LESSONS = lesson_targets(ROOT)
PROSE = re.compile(r'\s*(?:alt=)?f?(?:".*")?,?\s*')

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda target: target.name)
# That a notebook is missing is one failure, not one for each promise.
each_built_lesson = pytest.mark.parametrize(
    "lesson", [lesson for lesson in LESSONS if lesson.output.is_file()], ids=lambda target: target.name
)


def read(lesson: Target) -> Any:
    return nbformat.read(lesson.output, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def lines(cell: Any) -> int:
    """Lines of code. A line that is nothing but a string is prose: figures carry their alternative text that way."""
    return sum(not PROSE.fullmatch(line) for line in cell.source.splitlines())


def ran_without_flaw(notebook: Any) -> bool:
    return not find_flaws(notebook)


def ran_from_top_to_bottom(notebook: Any) -> bool:
    cells = code_cells(notebook)
    return [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def has_unique_cell_ids(notebook: Any) -> bool:
    ids = [cell.id for cell in notebook.cells]
    return len(set(ids)) == len(ids)


def describes_every_image(notebook: Any) -> bool:
    images = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    return all(len(image.metadata.get("image/png", {}).get("alt", "").strip()) >= 20 for image in images)


def exercises(notebook: Any) -> list[Any]:
    """The cells after the heading "Exercises", up to the next heading of its rank."""
    headings = [index for index, cell in enumerate(notebook.cells) if re.match(r"## ", cell.source)]
    for index, following in itertools.pairwise([*headings, len(notebook.cells)]):
        if notebook.cells[index].source.startswith("## Exercises"):
            cells: list[Any] = notebook.cells[index:following]
            return cells
    return []


def has_at_most_60_cells(notebook: Any) -> bool:
    """Without the exercises."""
    return len(notebook.cells) - len(exercises(notebook)) <= 60


def has_five_exercises(notebook: Any) -> bool:
    """Each with number, difficulty, minutes, two folded hints, something to fill in, and its check."""
    cells = exercises(notebook)
    starts = [index for index, cell in enumerate(cells) if cell.source.startswith("### ")]
    groups = [cells[start:end] for start, end in itertools.pairwise([*starts, len(cells)])]
    return len(groups) >= 5 and all(map(_is_exercise, groups)) and "progress(" in cells[-1].source


def _is_exercise(cells: list[Any]) -> bool:
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    program = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return (
        re.match(r"### Exercise \d\.\d+\. .+ ★{1,3} \(\d+ min\)\n", text) is not None
        and text.count("<summary>Hint ") == text.count("</details>") == 2
        and ("NotImplementedError" in program or re.search(r"= \.\.\.", program) is not None)
        and "check_" in program
    )


def shows_no_solution(notebook: Any) -> bool:
    return not any("SOLUTION" in cell.source for cell in notebook.cells)


def has_short_code_cells(notebook: Any) -> bool:
    """At most 8 lines in the median code cell, and 20 in nine cells of ten."""
    lengths: list[int] = sorted(lines(cell) for cell in code_cells(notebook))
    longest_tenth_starts = lengths[math.ceil(0.9 * len(lengths)) - 1]
    return statistics.median(lengths) <= 8 and longest_tenth_starts <= 20


def balances_prose_and_code(notebook: Any) -> bool:
    practice = exercises(notebook)
    prose = sum(cell.cell_type == "markdown" for cell in notebook.cells if cell not in practice)
    ratio: float = prose / sum(cell not in practice for cell in code_cells(notebook))
    return 0.6 <= ratio <= 1.8


def makes_only_claims_that_hold(notebook: Any) -> bool:
    bundles = [output.data for output in outputs(notebook) if MIME_TYPE in output.get("data", {})]
    return all(bundle[MIME_TYPE]["holds"] is True for bundle in bundles)


CHECKS: list[Callable[[Any], bool]] = [
    ran_without_flaw,
    ran_from_top_to_bottom,
    has_unique_cell_ids,
    describes_every_image,
    has_at_most_60_cells,
    has_five_exercises,
    shows_no_solution,
    has_short_code_cells,
    balances_prose_and_code,
    makes_only_claims_that_hold,
]


@each_lesson
def test_notebook_is_there_and_fresh(lesson: Target) -> None:
    assert lesson.output.is_file(), f"run: course build {lesson.name}"
    assert not is_stale(lesson), f"the source has changed since; run: course build {lesson.name}"
    assert lesson.output.stat().st_size <= MAX_BYTES


@each_built_lesson
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_notebook_keeps_the_promise(lesson: Target, check: Callable[[Any], bool]) -> None:
    assert check(read(lesson)), check.__doc__


def test_every_notebook_has_a_source() -> None:
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} <= {lesson.output.name for lesson in LESSONS}


# ------------------------------------------------------------------------------------------- the checks themselves


def lesson_with(*cells: Any) -> Any:
    """A small lesson that keeps every promise, followed by these cells."""
    image = new_output(
        "display_data", data={"image/png": "aa"}, metadata={"image/png": {"alt": "The loss falls from 2 to 1."}}
    )
    claim = new_output("display_data", data={MIME_TYPE: {"holds": True}, "text/plain": "✔"})
    printed = new_output("stream", name="stdout", text="loss 1\n")
    good = [
        new_markdown_cell("# Why?"),
        new_code_cell("plot()", outputs=[image], execution_count=1),
        new_markdown_cell("Because."),
        new_code_cell("claim()", outputs=[claim, printed], execution_count=2),
    ]
    return new_notebook(cells=[*good, *cells])


def practice(*, hints: int = 2, stars: str = "★★", answer: str = "x = ...", number: int = 5, last: str = "") -> Any:
    """A notebook with nothing but exercises."""
    hint = "<details><summary>Hint 1</summary>\nLook.\n</details>\n"
    cells = [new_markdown_cell("## Exercises")]
    for exercise in range(number):
        text = f"### Exercise 1.{exercise + 1}. Name {stars} (5 min)\n\nWhat.\n{hint * hints}"
        cells += [new_markdown_cell(text), new_code_cell(answer), new_code_cell("check_x(x)")]
    return new_notebook(cells=[*cells, new_code_cell(last or "progress(lesson)"), new_markdown_cell("## Recap")])


def code(source: str = "x", output: Any = None, count: int = 3) -> Any:
    return new_code_cell(source, outputs=[output] if output else [], execution_count=count)


def data(bundle: dict[str, Any], **metadata: Any) -> Any:
    return new_output("display_data", data=bundle, metadata=metadata)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_checks_accept_a_good_lesson(check: Callable[[Any], bool]) -> None:
    assert check(lesson_with() if check is not has_five_exercises else practice())


def test_exercises_do_not_count_as_cells_of_the_lesson() -> None:
    assert has_at_most_60_cells(practice(number=30))
    assert balances_prose_and_code(lesson_with(*practice(number=30).cells[:-1]))


@pytest.mark.parametrize(
    ("check", "notebook"),
    [
        (ran_without_flaw, lesson_with(code(output=new_output("error", ename="E", evalue="", traceback=[])))),
        (ran_from_top_to_bottom, lesson_with(code(count=4))),
        (ran_from_top_to_bottom, lesson_with(new_code_cell("never run"))),
        (describes_every_image, lesson_with(code(output=data({"image/png": "aa"}, **{"image/png": {"alt": "plot"}})))),
        (has_at_most_60_cells, lesson_with(*[new_markdown_cell("x") for _ in range(57)])),
        (has_five_exercises, practice(number=4)),
        (has_five_exercises, practice(hints=1)),
        (has_five_exercises, practice(stars="")),
        (has_five_exercises, practice(answer="x = 3")),
        (has_five_exercises, practice(last="1")),
        (shows_no_solution, lesson_with(code("### BEGIN SOLUTION"))),
        (has_short_code_cells, lesson_with(code("x\n" * 21))),
        (has_short_code_cells, lesson_with(*[code("x\n" * 9) for _ in range(3)])),
        (balances_prose_and_code, lesson_with(code(), code())),
        (balances_prose_and_code, lesson_with(new_markdown_cell("x"), new_markdown_cell("x"))),
        (makes_only_claims_that_hold, lesson_with(code(output=data({MIME_TYPE: {"holds": False}})))),
    ],
)
def test_checks_refuse_a_bad_lesson(check: Callable[[Any], bool], notebook: Any) -> None:
    assert not check(notebook)


# ---------------------------------------------------------------------------------------------------- the homework

HOMEWORK = [target for target in homework_targets(ROOT) if target.kind == "homework"]
each_homework = pytest.mark.parametrize("homework", HOMEWORK, ids=lambda target: target.name)
SOLVED = {target.source.stem: target for target in homework_targets(ROOT) if target.kind == "solution"}


@each_homework
def test_homework_is_there_and_fresh(homework: Target) -> None:
    for target in (homework, SOLVED[homework.name]):
        assert not is_stale(target), f"run: course build {homework.name}"
        assert target.output.stat().st_size <= MAX_BYTES


@each_homework
@pytest.mark.parametrize(
    "check",
    [ran_without_flaw, ran_from_top_to_bottom, has_unique_cell_ids, describes_every_image],
)
def test_solved_homework_keeps_the_promise(homework: Target, check: Callable[[Any], bool]) -> None:
    assert check(read(SOLVED[homework.name])), check.__doc__


@each_homework
def test_solved_homework_is_right_everywhere(homework: Target) -> None:
    found = verdicts(read(SOLVED[homework.name]))
    assert {verdict["status"] for verdict in found} == {"right"}


@each_homework
def test_students_get_stubs_and_no_trace_of_a_solution(homework: Target) -> None:
    """No line of a solution that is long enough to be telling appears in what students get."""
    released, text = read(homework), homework.source.read_text(encoding="utf-8")
    sources = "\n".join(cell.source for cell in released.cells)
    assert "SOLUTION" not in sources
    assert "HIDDEN" not in sources
    assert "hidden_checks" not in sources
    assert not any(cell.get("outputs") for cell in released.cells)
    for solution in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", text, re.DOTALL):
        telling = [line.strip() for line in solution.splitlines() if len(line.strip()) > 25]
        assert not [line for line in telling if line in sources]


@each_homework
def test_graded_cells_have_points_and_belong_together(homework: Target) -> None:
    marks = [cell.metadata.nbgrader for cell in read(homework).cells if "nbgrader" in cell.metadata]
    tests = [mark for mark in marks if mark["locked"]]
    assert 4 <= len(tests) <= 8
    assert all(mark["points"] > 0 for mark in marks if mark["grade"])
    solutions = {mark["grade_id"].removesuffix("_solution") for mark in marks if not mark["grade"]}
    assert {mark["grade_id"].removesuffix("_test") for mark in tests} == solutions
    assert any(mark["solution"] and mark["grade"] for mark in marks), "a report that a person grades"


@pytest.mark.slow
@pytest.mark.enable_socket  # the kernel's, on this machine
@each_homework
def test_a_fresh_homework_stops_only_where_a_stub_stands(homework: Target, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook = read(homework)
    client = NotebookClient(notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    errors = [output for output in outputs(notebook) if output.output_type == "error"]
    assert errors
    assert {output.ename for output in errors} == {"NotImplementedError"}, [output.evalue for output in errors]
