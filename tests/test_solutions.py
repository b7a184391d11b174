"""Solutions go, stubs come, hidden tests never leave the house."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from course_utils.authoring.build import BuildError, build, homework_targets, lesson_targets, prepare, write_proofs
from course_utils.authoring.solutions import (
    STUB,
    clear_solutions,
    drop_hidden_tests,
    mark_for_nbgrader,
    verdicts,
)
from course_utils.homework.engine.verdict import VERDICT_TYPE

SOURCE = '''# %% [markdown]
# # Homework

# %% solution="relu"
def relu(x):
    """x: (n,) -> (n,)."""
    ### BEGIN SOLUTION
    y = abs(x)

    return (x + y) / 2
    ### END SOLUTION


choice = ...  # "a" or "b"
### BEGIN SOLUTION
choice = "a"
### END SOLUTION

# %% test="relu" points=2
print(relu(3))

### BEGIN HIDDEN TESTS
import secret
secret.check(relu)
### END HIDDEN TESTS

# %% [markdown] answer="report" points=4
# Write here.
'''


def notebook(text: str = SOURCE) -> Any:
    return jupytext.reads(text, fmt="py:percent")


def test_a_solution_in_a_function_becomes_a_stub_and_one_at_the_margin_goes() -> None:
    made = notebook()
    clear_solutions(made)
    assert made.cells[1].source.endswith(f'    """x: (n,) -> (n,)."""\n    {STUB}\n\n\nchoice = ...  # "a" or "b"')
    assert "(x + y)" not in "".join(cell.source for cell in made.cells)


@pytest.mark.parametrize(
    "source", ["### BEGIN SOLUTION\nx", "x\n### END SOLUTION", "### BEGIN SOLUTION\n### BEGIN SOLUTION\n"]
)
def test_a_mark_without_its_other_half_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match="SOLUTION' without its other half in the cell that begins with"):
        clear_solutions(new_notebook(cells=[new_code_cell(source)]))


def test_hidden_tests_go_and_the_rest_stays() -> None:
    made = notebook()
    drop_hidden_tests(made)
    assert made.cells[2].source == "print(relu(3))"


def test_marks_become_nbgraders_metadata() -> None:
    made = notebook()
    mark_for_nbgrader(made)
    assert made.cells[1].metadata.nbgrader == {
        "schema_version": 3,
        "grade_id": "relu_solution",
        "solution": True,
        "grade": False,
        "locked": False,
        "task": False,
    }
    assert made.cells[1].metadata.tags == ["exercise"]
    assert made.cells[2].metadata.nbgrader["grade_id"] == "relu_test"
    assert made.cells[2].metadata.nbgrader["points"] == 2
    assert made.cells[2].metadata.nbgrader["locked"]
    assert made.cells[3].metadata.nbgrader["solution"]
    assert made.cells[3].metadata.nbgrader["grade"]
    assert made.cells[3].metadata.nbgrader["points"] == 4


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('# %% test="a"\n1', "points=None: tests and answers have points"),
        ('# %% solution="a" points=1\n1', "points=1: tests and answers have points, solutions none"),
        ('# %% solution="a"\n1\n\n# %% solution="a"\n2', "two cells solution='a'"),
    ],
)
def test_contradicting_marks_are_errors(source: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mark_for_nbgrader(notebook(source))


def test_build_words_a_broken_mark_for_the_author() -> None:
    with pytest.raises(BuildError, match="two cells"):
        prepare(notebook('# %% solution="a"\n1\n\n# %% solution="a"\n2'), "homework")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "notebooks" / "source" / "homework").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "notebooks" / "source" / "homework" / "hw1_relu.py").write_text(SOURCE)
    return tmp_path


@pytest.mark.slow
def test_a_homework_becomes_a_student_version_and_a_solved_twin(clone: Path) -> None:
    student, solved = homework_targets(clone)
    assert [outcome.message for outcome in build([student, solved])] == ["", ""]

    released, answered = student.output.read_text(), solved.output.read_text()
    assert "abs(x)" not in released
    assert "secret" not in released + answered
    assert "NotImplementedError" in released
    assert '"outputs": []' in released
    assert '"3.0\\n"' in answered


LESSON = """# %%
from course_utils.homework.engine.judge import judge


def double(x):
    ### BEGIN SOLUTION
    return {answer}
    ### END SOLUTION


# %%
judge(double, exercise="1.1", reference=lambda x: 2 * x, cases=[(1.0,)], right="yes")
"""


def test_a_proof_holds_the_lesson_as_released_and_then_its_solutions(clone: Path) -> None:
    path = clone / "notebooks" / "source" / "01_a.py"
    path.write_text(LESSON.format(answer="x + x"))
    (proof,) = write_proofs(lesson_targets(clone), clone / "proof")
    sources = [cell.source for cell in nbformat.read(proof, as_version=4).cells if cell.cell_type == "code"]
    break_ = next(index for index, source in enumerate(sources) if '"todo"' in source)
    assert STUB in "".join(sources[:break_])
    assert "x + x" not in "".join(sources[:break_])
    assert "x + x" in "".join(sources[break_:])
    assert sources[break_ + 2].startswith("judge(double")  # the check, again
    assert '"right"' in sources[-1]


def test_verdicts_are_read_from_outputs() -> None:
    verdict = {"exercise": "1.1", "status": "todo", "message": ""}
    output = new_output("display_data", data={VERDICT_TYPE: verdict})
    assert verdicts(new_notebook(cells=[new_code_cell("", outputs=[output]), new_code_cell("")])) == [verdict]
