"""What Colab, an editor or a student did to a notebook is undone, and what the student wrote is kept."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grading_samples as samples
import pytest
from nbformat import from_dict, validate

from course_utils.authoring.build import prepare
from course_utils.grading.execution import Limits, trusted_names
from course_utils.grading.repair import (
    UnreadableError,
    find_submission,
    is_test,
    read_submission,
    repair,
    template,
    unpack,
    write_notebook,
)

pytest.importorskip("jupytext")


def read(prepared: str) -> Any:
    import jupytext

    from course_utils.authoring.build import normalize
    from course_utils.authoring.solutions import mark_for_nbgrader

    notebook = jupytext.reads(samples.SOURCE, fmt="py:percent")
    notebook.metadata.clear()
    if prepared == "homework":
        prepare(notebook, "homework")
        normalize(notebook)
    else:
        mark_for_nbgrader(notebook)
    return notebook


RELEASED, SOURCE = read("homework"), read("source")
FULL = template(SOURCE, RELEASED)
SOLVED = json.loads(json.dumps(samples.solve(json.loads(json.dumps(RELEASED)), samples.RIGHT, samples.REPORT)))


def repaired(change: Callable[[Any], Any] = lambda notebook: notebook, solved: Any = SOLVED) -> Any:
    return repair(from_dict(change(copy.deepcopy(solved))), RELEASED, FULL)


def sources(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells]


EXPECTED = sources(repaired().notebook)


def test_an_untouched_submission_keeps_all_and_gets_the_hidden_tests() -> None:
    made = repaired()
    assert made.notes == []
    for cell, source, solved in zip(made.notebook.cells, FULL.cells, SOLVED["cells"], strict=True):
        assert cell.source == (source.source if is_test(cell) else solved["source"])
    assert sum("hidden_checks" in source for source in EXPECTED) == 3


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (samples.as_colab, "7 of 7 cells had lost their marks"),
        (samples.without_marks_and_ids, "7 of 7 cells had lost their marks"),
        (samples.without_ids, ""),
        (samples.shuffled, "the cells stood in another order"),
        (samples.without("relu_test"), "missing and restored: relu_test"),
        (samples.without("relu_test", "softmax_test"), "missing and restored: relu_test, softmax_test"),
        (samples.written("relu_test", "assert True"), "changed and restored: relu_test"),
        (samples.written("relu_test", ""), "changed and restored: relu_test"),
        (samples.unmarked_points, ""),
    ],
)
def test_damage_is_repaired_and_said(change: Callable[[Any], Any], note: str) -> None:
    made = repaired(change)
    assert sources(made.notebook) == EXPECTED
    assert made.notes == ([note] if note else [])
    assert [cell.metadata for cell in made.notebook.cells] == [cell.metadata for cell in FULL.cells]


def test_a_report_that_lost_its_marks_and_its_words_is_found_by_its_place() -> None:
    solved = samples.solve(SOLVED, {}, "Quite another text.")
    made = repaired(samples.without_marks_and_ids, solved)
    assert made.notebook.cells[-1].source == "Quite another text."
    assert made.notebook.cells[-1].metadata.nbgrader.grade_id == "report"


def test_solutions_typed_into_a_new_notebook_are_found_by_what_they_define() -> None:
    made = repaired(samples.retyped)
    assert sources(made.notebook)[:-1] == EXPECTED[:-1]
    assert made.notebook.cells[-1].source == samples.SKELETON  # that notebook has no report
    assert made.notes[0] == "3 of 7 cells had lost their marks"


@pytest.mark.parametrize("lose", [samples.as_colab, samples.without_ids, samples.without_marks])
def test_one_trace_is_enough_for_a_solution_that_defines_something_else(lose: Callable[[Any], Any]) -> None:
    made = repaired(samples.one_cell_each(samples.written("relu_solution", "answer = 42"), lose))
    names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in made.notebook.cells]
    assert made.notebook.cells[names.index("relu_solution")].source == "answer = 42"
    assert len(made.notebook.cells) == len(FULL.cells)


def test_of_two_copies_the_first_is_the_solution_and_the_second_runs_behind_it() -> None:
    def copied(notebook: Any) -> Any:
        at = samples.place(notebook, "relu_solution")
        notebook["cells"].insert(at + 1, copy.deepcopy(notebook["cells"][at]))
        notebook["cells"][at + 1]["source"] = "def relu(x): return 7"
        return notebook

    cells = repaired(copied).notebook.cells
    at = [cell.source for cell in cells].index("def relu(x): return 7")
    assert cells[at - 1].metadata.nbgrader.grade_id == "relu_solution"
    assert cells[at + 1].metadata.nbgrader.grade_id == "relu_test"
    assert "nbgrader" not in cells[at].metadata


def test_of_several_new_texts_the_longest_is_the_report() -> None:
    def add_texts(notebook: Any) -> Any:
        for text in ("Bye.", "This is what I found out.", "So long."):
            notebook["cells"].append({"cell_type": "markdown", "metadata": {}, "source": text})
        return samples.without_marks_and_ids(samples.without("report")(notebook))

    made = repaired(add_texts).notebook
    names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in made.cells]
    assert made.cells[names.index("report")].source == "This is what I found out."


def test_a_check_is_a_code_cell_that_gives_points_by_itself() -> None:
    def cell(**marks: bool) -> Any:
        return from_dict({"cell_type": "code", "metadata": {"nbgrader": marks}, "source": ""})

    assert is_test(cell(grade=True, solution=False))
    assert not is_test(cell(grade=True, solution=True))  # code that a person grades
    assert not is_test(cell(grade=False, solution=False))


def test_own_cells_stay_behind_the_cell_they_followed() -> None:
    made = repaired(samples.with_cell("softmax_solution", "helper = 1"))
    at = sources(made.notebook).index("helper = 1")
    assert made.notebook.cells[at + 1].metadata.nbgrader.grade_id == "softmax_solution"
    assert sources(made.notebook) == [*EXPECTED[:at], "helper = 1", *EXPECTED[at:]]
    assert made.notes == []


def test_a_copied_check_counts_once() -> None:
    made = repaired(samples.copied_check)
    marks = [cell.metadata.nbgrader.grade_id for cell in made.notebook.cells if "nbgrader" in cell.metadata]
    assert len(marks) == len(set(marks)) == 7


PNG, GIF = {"image/png": "aaaa"}, {"image/gif": "bbbb"}


def pasted(text: str, attachments: Any, cell: str = "report") -> Callable[[Any], Any]:
    def change(notebook: Any) -> Any:
        notebook["cells"][samples.place(notebook, cell)] |= {"source": text, "attachments": attachments}
        return notebook

    return change


@pytest.mark.parametrize("lose", [lambda notebook: notebook, samples.as_colab], ids=["kept", "colab"])
def test_pasted_pictures_stay_with_their_texts(lose: Callable[[Any], Any]) -> None:
    text = "![a](attachment:a.png) ![b](attachment:b%20b.gif)"
    pictures = {"a.png": PNG, "b b.gif": GIF}
    own = {"cell_type": "markdown", "id": "own", "metadata": {}, "source": text, "attachments": pictures}

    def change(notebook: Any) -> Any:
        notebook["cells"].insert(1, own)
        return lose(pasted(text, pictures)(notebook))

    made = repaired(change)
    found = [cell.attachments for cell in made.notebook.cells if "attachments" in cell]
    assert found == [{"a.png": PNG, "b b.gif": GIF, "b%20b.gif": GIF}] * 2  # nbconvert looks for the name as it stands
    assert not [note for note in made.notes if "picture" in note]


@pytest.mark.parametrize(
    ("text", "attachments", "missing"),
    [
        ("![a](attachment:a.png)", {}, "a.png"),
        ("![a][a]\n\n[a]: attachment:a.png", {"a.png": {}}, "a.png"),
        ("![a](attachment:a%20b.png)", {"a b.png": 3, "c.png": PNG}, "a b.png"),
        ("`![a](attachment:a.png)`", [], ""),
        ("![a](attachment:a.png)", {"a.png": {"image/png": ["aa", "aa"]}}, ""),
    ],
)
def test_a_picture_that_is_not_there_does_not_cost_the_page(
    tmp_path: Path, text: str, attachments: Any, missing: str
) -> None:
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(pasted(text, attachments)(copy.deepcopy(SOLVED))), encoding="utf-8")
    made = repair(read_submission(path), RELEASED, FULL)
    cell = made.notebook.cells[-1]
    assert cell.source == text
    assert made.notes == ([f"pictures that are not in the file: {missing}"] if missing else [])
    MarkdownWithMath(renderer=IPythonRenderer(attachments=cell.get("attachments", {}))).render(text)
    validate(made.notebook)


def test_a_missing_solution_comes_back_as_a_stub_and_never_as_the_solution() -> None:
    made = repaired(samples.without("relu_solution"))
    assert made.notes == ["missing and restored: relu_solution"]
    [cell] = [
        cell for cell in made.notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "relu_solution"
    ]
    assert samples.STUB in cell.source
    assert "np.maximum(x, 0)" not in cell.source


def test_an_ordinary_cell_is_the_students_and_comes_back_if_it_is_deleted() -> None:
    def import_more(notebook: Any) -> Any:
        notebook["cells"][1]["source"] += "\nimport math"
        return notebook

    def delete_imports(notebook: Any) -> Any:
        del notebook["cells"][1]
        return notebook

    assert "import math" in sources(repaired(import_more).notebook)[1]
    assert sources(repaired(delete_imports).notebook) == EXPECTED


def test_another_notebook_is_said_to_be_one() -> None:
    made = repaired(lambda _: {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [samples.code("print(1)")]})
    assert made.notes[0] == "no cell of this homework was found in it"
    assert sources(made.notebook)[0] == "print(1)"


def test_the_submission_itself_is_not_changed() -> None:
    given = from_dict(copy.deepcopy(SOLVED))
    repair(given, RELEASED, FULL)
    assert given == from_dict(SOLVED)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"cells": [', "damaged, it is no valid JSON: Expecting value"),
        (b"[" * 100_000, "damaged, it is no valid JSON"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"[1, 2]", "JSON, but no notebook"),
        (b"{}", "JSON, but no notebook"),
        (b'{"nbformat": 4, "cells": [1]}', "JSON, but no notebook"),
        (b'{"nbformat": "x", "cells": []}', "JSON, but no notebook"),
    ],
)
def test_what_is_no_notebook_is_said_in_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=words):
        read_submission(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_notebook(RELEASED, tmp_path / "another.ipynb")
    (tmp_path / "a.ipynb").symlink_to(tmp_path / "another.ipynb")
    with pytest.raises(UnreadableError, match="a link to another"):
        read_submission(tmp_path / "a.ipynb")


def test_a_notebook_is_read_with_a_byte_order_mark_and_odd_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    cells = [{"cell_type": "code", "source": ["a\n", "b"]}, {"cell_type": "heading", "source": "x", "metadata": {}}]
    path.write_text("\ufeff" + json.dumps({"nbformat": 4, "cells": cells}), encoding="utf-8")
    assert [cell.source for cell in read_submission(path).cells] == ["a\nb"]


HW = "hw1_sample"
MAC = b"\0\5\x16\7"  # the attributes of a file


def put(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MAC if path.name.startswith("._") else b"{}" + b" " * number)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        (f"{HW} (1).ipynb", f"._{HW} (1).ipynb"),
        (f"{HW}/{HW}.ipynb", f"__MACOSX/{HW}/._{HW}.ipynb", f"{HW}/.DS_Store"),
        (f"work/{HW}.ipynb", "work/scratch.ipynb", f"work/older/{HW}.ipynb"),
        (f"Copy of {HW}.ipynb", "Untitled.ipynb"),
        (f"{HW}-Copy1.ipynb", "Untitled.ipynb"),
        (f"{HW} - Kopie (2).ipynb", "Untitled.ipynb"),
        (f"anna_{HW}_final.ipynb", "Untitled.ipynb"),
        (f"{HW.upper()}.IPYNB", "Untitled.ipynb"),
        (f"{HW}.ipynb.json", f"._{HW}.ipynb.json"),
        (f"{HW} (1).ipynb.txt", "notes.txt"),
        (f"{HW}.json", "data.json"),
        ("my homework.ipynb", f".ipynb_checkpoints/{HW}-checkpoint.ipynb"),
    ],
    ids=lambda names: names[0],
)
def test_a_notebook_is_found_under_the_names_that_browsers_and_systems_give_it(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert find_submission(put(tmp_path, *names), HW) == (tmp_path / names[0], f"the file was called {names[0]}")


def test_the_right_name_needs_no_note_and_a_wrong_one_is_found_by_the_cells(tmp_path: Path) -> None:
    put(tmp_path, "a scratch.ipynb", "mine.ipynb")
    write_notebook(RELEASED, tmp_path / "mine.ipynb")
    assert find_submission(tmp_path, HW, RELEASED) == (tmp_path / "mine.ipynb", "the file was called mine.ipynb")
    put(tmp_path, f"{HW}.ipynb")
    assert find_submission(tmp_path, HW, RELEASED) == (tmp_path / f"{HW}.ipynb", "")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "no notebook was handed in; the folder is empty"),
        (("report.pdf", "__MACOSX/._report.pdf"), r"no notebook was handed in; there are only: report\.pdf$"),
        (("a.ipynb", "b.ipynb"), r"several notebooks \(a\.ipynb, b\.ipynb\): it is not clear which one counts"),
        ((f"a/{HW}.ipynb", f"b/{HW}.ipynb"), "several notebooks .*: it is not clear which one counts"),
    ],
)
def test_without_one_notebook_it_is_said_what_there_is(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        find_submission(put(tmp_path, *names), HW)
    with pytest.raises(UnreadableError, match="nothing was handed in"):
        find_submission(tmp_path / "nowhere", HW)


def test_a_zip_file_is_unpacked_and_a_damaged_one_is_said_to_be(tmp_path: Path) -> None:
    folder, scratch = put(tmp_path / "folder", "other.txt"), tmp_path / "scratch"
    with zipfile.ZipFile(folder / "work.ZIP", "w") as archive:
        archive.writestr(f"{HW}/{HW}.ipynb", "{}")
        archive.writestr(f"__MACOSX/{HW}/._{HW}.ipynb", MAC)
    assert unpack(folder, scratch) == scratch
    assert find_submission(scratch, HW)[0] == scratch / HW / f"{HW}.ipynb"
    (folder / "work.ZIP").write_bytes(b"PK")
    with pytest.raises(UnreadableError, match=r"work\.ZIP cannot be unpacked: File is not a zip file"):
        unpack(folder, scratch)
    assert unpack(put(folder, f"{HW}.ipynb"), scratch) == folder  # a data set, perhaps


def test_the_imports_of_checks_are_trusted_from_the_release_alone() -> None:
    assert trusted_names(RELEASED) == (
        "from course_utils.homework import require\n"
        "from grading_sample_checks import check_relu, check_softmax, check_variance"
    )


@pytest.mark.parametrize("name", ["cell", "notebook", "memory"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be in \(0, inf\), got 0.0"):
        Limits(**{name: 0.0})
