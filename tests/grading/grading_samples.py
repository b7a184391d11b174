"""A small homework, and fifty submissions of it with what each must get."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "hw1_sample"
SKELETON = "## Report\n\n- What surprised you?\n- What would you try next?"

SOURCE = '''# %% [markdown]
# # A small homework
#
# Three functions and a report.

# %%
import numpy as np

from course_utils.homework import require
from grading_sample_checks import check_relu, check_softmax, check_variance

# %% [markdown]
# ## 1. ReLU
#
# Write `relu`: max(x, 0).

# %% solution="relu"
def relu(x: np.ndarray) -> np.ndarray:
    """x: any shape. Return an array of the same shape."""
    ### BEGIN SOLUTION
    return np.maximum(x, 0)
    ### END SOLUTION

# %% test="relu" points=2
require(check_relu(relu))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_relu, relu)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Softmax
#
# Write `softmax` of each row, for numbers of any size.

# %% solution="softmax"
def softmax(x: np.ndarray) -> np.ndarray:
    """x: (n, k). Return (n, k), each row positive and of sum 1."""
    ### BEGIN SOLUTION
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
    ### END SOLUTION

# %% test="softmax" points=3
require(check_softmax(softmax))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_softmax, softmax)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Variance
#
# Write `variance` of each column.

# %% solution="variance"
def variance(x: np.ndarray) -> np.ndarray:
    """x: (n, k). Return (k,), divided by n."""
    ### BEGIN SOLUTION
    return ((x - x.mean(axis=0)) ** 2).mean(axis=0)
    ### END SOLUTION

# %% test="variance" points=2
require(check_variance(variance))
### BEGIN HIDDEN TESTS
import hidden_checks

hidden_checks.require_again(check_variance, variance)
### END HIDDEN TESTS

# %% [markdown] answer="report" points=3
# ## Report
#
# - What surprised you?
# - What would you try next?
'''

HEADS = {
    "relu": "def relu(x: np.ndarray) -> np.ndarray:\n",
    "softmax": "def softmax(x: np.ndarray) -> np.ndarray:\n",
    "variance": "def variance(x: np.ndarray) -> np.ndarray:\n",
}
RIGHT = {
    "relu": "return x * (x > 0)",
    "softmax": "e = np.exp(x - x.max(1, keepdims=True))\nreturn e / e.sum(1, keepdims=True)",
    "variance": "return x.var(axis=0)",
}
POINTS = {"relu": 2, "softmax": 3, "variance": 2}
STUB = "raise NotImplementedError  # your code here"
NAIVE = "return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)"
REPORT = "## Report\n\nThat softmax overflows so early; next I would try float32."


@dataclass(frozen=True)
class Case:
    """A submission and what it must get: points of relu, softmax, variance; words of its row and of a task's fault."""

    name: str
    points: tuple[float, ...] = (2, 3, 2)
    status: str = "graded"
    note: str = ""
    says: tuple[str, str] = ("", "")  # task, words
    bodies: tuple[tuple[str, str], ...] = ()
    change: Callable[[Any], Any] | None = None
    report: str | None = None
    file: str = f"{NAME}.ipynb"
    raw: bytes | None = None


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": f"new{abs(hash(source)) % 10**8}",
        "metadata": metadata,
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def solve(released: Any, bodies: dict[str, str], report: str | None = None) -> Any:
    """Put solutions into the release, as a student does."""
    made = copy.deepcopy(released)
    for cell in made["cells"]:
        cell["source"] = "".join(cell["source"])  # on disk a list of lines
    for cell in made["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        task = name.removesuffix("_solution")
        if name.endswith("_solution") and task in bodies:
            lines = bodies[task].split("\n")
            cell["source"] = HEADS[task] + "".join(f"    {line}\n" for line in lines)
        if name == "report" and report is not None:
            cell["source"] = report
    return made


def place(notebook: Any, grade_id: str) -> int:
    names = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in notebook["cells"]]
    return names.index(grade_id)


def as_colab(notebook: Any) -> Any:
    """Ids move to the metadata, and nbgrader's marks are gone."""
    for cell in notebook["cells"]:
        cell["metadata"] = {"id": cell.pop("id")}
    notebook["nbformat_minor"] = 0
    return notebook


def without_marks(notebook: Any) -> Any:
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    return notebook


def without_ids(notebook: Any) -> Any:
    for cell in notebook["cells"]:
        cell.pop("id", None)
    notebook["nbformat_minor"] = 4
    return notebook


def without_marks_and_ids(notebook: Any) -> Any:
    return without_ids(without_marks(notebook))


def without(*grade_ids: str) -> Callable[[Any], Any]:
    def change(notebook: Any) -> Any:
        for name in grade_ids:
            del notebook["cells"][place(notebook, name)]
        return notebook

    return change


def shuffled(notebook: Any) -> Any:
    random.Random(0).shuffle(notebook["cells"])
    return notebook


def written(grade_id: str, source: str) -> Callable[[Any], Any]:
    def change(notebook: Any) -> Any:
        notebook["cells"][place(notebook, grade_id)]["source"] = source
        return notebook

    return change


def appended(grade_id: str, source: str) -> Callable[[Any], Any]:
    def change(notebook: Any) -> Any:
        notebook["cells"][place(notebook, grade_id)]["source"] += source
        return notebook

    return change


def with_cell(before: str, source: str) -> Callable[[Any], Any]:
    def change(notebook: Any) -> Any:
        notebook["cells"].insert(place(notebook, before), code(source))
        return notebook

    return change


def one_cell_each(*changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(notebook: Any) -> Any:
        for one in changes:
            notebook = one(notebook)
        return notebook

    return change


def retyped(notebook: Any) -> Any:
    """Everything copied by hand into a new notebook, and merged: no ids, no marks, no checks, no explanations."""
    kept = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kept = [source for source in kept if not source.startswith("require(")]
    notebook["cells"] = [code(source) for source in kept]
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"x{number}"
    return notebook


def copied_check(notebook: Any) -> Any:
    at = place(notebook, "relu_test")
    notebook["cells"].insert(at, copy.deepcopy(notebook["cells"][at]))
    return notebook


def unmarked_points(notebook: Any) -> Any:
    notebook["cells"][place(notebook, "softmax_test")]["metadata"]["nbgrader"]["points"] = 300
    return notebook


def format_3(notebook: Any) -> Any:
    cells = []
    for cell in notebook["cells"]:
        old = {"cell_type": cell["cell_type"], "metadata": {}}
        if cell["cell_type"] == "code":
            old |= {"input": cell["source"], "language": "python", "outputs": [], "collapsed": False}
        else:
            old["source"] = cell["source"]
        cells.append(old)
    return {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": ""},
        "worksheets": [{"cells": cells, "metadata": {}}],
    }


OWN_CHECKS = """
import sys
import types
def require(verdict): pass
def check_relu(function, seed=0): return True
sys.modules["hidden_checks"] = types.SimpleNamespace(require_again=lambda *arguments: None)
"""
STUBBORN = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
CHECKS = ("relu_test", "softmax_test", "variance_test")


def fails(name: str, task: str, words: str, body: str = "", **more: Any) -> Case:
    """A submission in which one task gets nothing, and says why."""
    points = tuple(0 if other == task else most for other, most in POINTS.items())
    return Case(name, points, says=(task, words), bodies=((task, body),) if body else (), **more)


def unreadable(name: str, note: str, raw: bytes, file: str = f"{NAME}.ipynb") -> Case:
    return Case(name, (0, 0, 0), "unreadable", note, raw=raw, file=file)


OTHER_STYLE = (("relu", "return np.where(x > 0, x, 0.0)"), ("variance", "d = x - x.mean(0)\nreturn (d * d).mean(0)"))
WRONG_AXIS = "e = np.exp(x - x.max(0))\nreturn e / e.sum(0)"
PRINTS = "for i in range(100_000):\n    print(i)\nreturn np.maximum(x, 0)"
MEMORY = "return np.ones((50_000, 50_000))"
UNSEEN = "on inputs you have not seen"
LOST = "7 of 7 cells had lost their marks"
CASES = [
    Case("right_a"),
    Case("right_other_style", bodies=OTHER_STYLE),
    Case("right_with_report", report=REPORT),
    Case(
        "right_with_new_report_text",
        report="I learned a lot.",
        change=without_marks_and_ids,
        note="had lost their marks",
    ),
    Case(
        "right_helper_cell",
        bodies=(("relu", "return positive(x)"),),
        change=with_cell("relu_solution", "def positive(x):\n    return np.maximum(x, 0)"),
    ),
    Case("right_with_warnings", bodies=(("relu", "import warnings\nwarnings.warn('hm')\nreturn np.maximum(x, 0)"),)),
    Case("empty_stub", (0, 0, 0), says=("relu", "not attempted"), bodies=tuple((task, STUB) for task in HEADS)),
    Case("half_done", (2, 0, 0), says=("variance", "not attempted"), bodies=(("softmax", STUB), ("variance", STUB))),
    # wrong answers, and functions that misbehave
    fails("wrong_abs", "relu", "absolute value", "return abs(x)"),
    fails("wrong_min", "relu", "negative half", "return np.minimum(x, 0)"),
    fails("wrong_dtype", "relu", "float32", "return np.maximum(x, 0).astype('float32')"),
    fails("no_return", "relu", "return", "np.maximum(x, 0)"),
    fails("in_place", "relu", "in place", "x[x < 0] = 0\nreturn x"),
    fails("raises", "relu", "NameError", "return torch.relu(x)"),
    fails("syntax_error", "relu", "fails with SyntaxError", "return np.maximum(x, 0"),
    fails("exit_in_function", "relu", "ends the program", "import sys\nsys.exit()"),
    fails("input_in_function", "relu", "input()", "return input('x? ')"),
    fails("reads_hidden", "relu", "shape", "print(get_ipython().user_ns['In'][-1])\nreturn x[0]"),
    fails("wrong_axis", "softmax", "over the rows", WRONG_AXIS),
    fails("hidden_overflow", "softmax", UNSEEN, NAIVE),
    fails("hidden_overflow_again", "softmax", UNSEEN, NAIVE + "  # fine"),
    fails("loop_in_function", "softmax", "never ends", "while True:\n    pass"),
    fails("wrong_ddof", "variance", "n − 1", "return x.var(axis=0, ddof=min(1, len(x) - 1))"),
    fails("wrong_shape", "variance", "keepdim", "return x.var(axis=0, keepdims=True)"),
    fails("memory", "variance", "MemoryError", MEMORY),
    Case("prints_in_function", bodies=(("relu", PRINTS),)),
    # what editors and students do to cells
    Case("colab", change=as_colab, note=LOST),
    fails("colab_wrong", "relu", "absolute value", "return abs(x)", change=as_colab, note="lost their marks"),
    Case("no_marks_no_ids", change=without_marks_and_ids, note=LOST),
    Case("no_ids", change=without_ids),
    Case("format_3", change=format_3, note="lost their marks"),
    Case("check_deleted", change=without("softmax_test"), note="missing and restored: softmax_test"),
    fails(
        "checks_deleted_wrong",
        "softmax",
        "on inputs",
        NAIVE,
        change=without(*CHECKS),
        note=f"missing and restored: {', '.join(CHECKS)}",
    ),
    fails(
        "solution_deleted",
        "relu",
        "not attempted",
        change=without("relu_solution"),
        note="missing and restored: relu_solution",
    ),
    Case("shuffled", change=shuffled, note="another order"),
    Case("retyped", change=retyped, note="missing and restored"),
    Case("copied_check", change=copied_check),
    fails(
        "tampered_check",
        "relu",
        "absolute value",
        "return abs(x)",
        change=written("relu_test", "pass"),
        note="changed and restored: relu_test",
    ),
    fails("tampered_points", "softmax", "over the rows", WRONG_AXIS, change=unmarked_points),
    fails(
        "own_require",
        "relu",
        "absolute value",
        "return abs(x)\n\nrequire = print",
        change=with_cell("relu_test", OWN_CHECKS),
    ),
    # cells that never end, or end their process
    Case(
        "crash_at_margin",
        status="stopped",
        note="'import os' ended its process",
        change=with_cell("softmax_solution", "import os\nos._exit(3)"),
    ),
    Case(
        "loop_at_margin",
        status="stopped",
        note="relu_solution was still running",
        change=appended("relu_solution", "\nwhile True:\n    pass"),
    ),
    fails(
        "stubborn_loop",
        "variance",
        "the cell variance_solution was still running",
        status="stopped",
        note="still running",
        change=appended("variance_solution", STUBBORN),
    ),
    fails(
        "kernel_killed",
        "softmax",
        "ended its process",
        "import os\nos._exit(1)",
        status="stopped",
        note="softmax_test ended its process",
    ),
    Case("exit_at_margin", change=with_cell("softmax_solution", "import sys\nsys.exit(1)")),
    Case(
        "input_and_prints_at_margin",
        change=one_cell_each(
            with_cell("relu_solution", "input('name? ')"),
            with_cell("softmax_solution", "for i in range(200_000):\n    print(i)"),
        ),
    ),
    # what is handed in
    unreadable("broken_json", "no valid JSON", b'{"cells": [{"cell_type": "code", '),
    unreadable("empty_file", "the file is empty", b""),
    unreadable("nothing_handed_in", "no notebook was handed in; there are only: notes.txt", b"sorry", "notes.txt"),
    Case("other_name", note="the file was called my homework.ipynb", file="my homework.ipynb"),
]


def write_root(root: Path, hidden: Path) -> None:
    """Write a clone with the small homework as its only notebook."""
    folder = root / "notebooks" / "source" / "homework"
    (folder / "hidden").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (folder / f"{NAME}.py").write_text(SOURCE, encoding="utf-8")
    (folder / "hidden" / hidden.name).write_text(hidden.read_text(encoding="utf-8"), encoding="utf-8")


def write_submissions(course: Path, cases: list[Case] = CASES) -> None:
    """Write what the students of these cases hand in."""
    text = (course / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    for case in cases:
        folder = course / "submitted" / case.name / NAME
        folder.mkdir(parents=True)
        content = case.raw
        if content is None:
            notebook = solve(json.loads(text), RIGHT | dict(case.bodies), case.report)
            content = json.dumps(case.change(notebook) if case.change else notebook).encode()
        (folder / case.file).write_bytes(content)
