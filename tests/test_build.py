"""Notebooks from sources: what is built, what is refused, and that a rebuild changes nothing."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils.authoring.build import (
    BuildError,
    Outcome,
    Target,
    build,
    build_notebook,
    find_flaws,
    find_root,
    is_stale,
    lesson_targets,
    machine_paths,
    normalize,
    read_source,
)
from course_utils.cli import new_lesson

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """An empty clone: the project file and the folder of sources."""
    (tmp_path / "notebooks" / "source").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\n[project.urls]\nRepository = "https://github.com/example/course"\n'
    )
    return tmp_path


def add_source(clone: Path, name: str, *cells: str) -> Target:
    """Write a source with one code cell per text."""
    path = clone / "notebooks" / "source" / f"{name}.py"
    path.write_text("\n\n".join(f"# %%\n{cell}" for cell in cells) + "\n", encoding="utf-8")
    return next(target for target in lesson_targets(clone) if target.name == name)


def build_all(targets: list[Target], *, force: bool = False, timeout: int = 300) -> dict[str, Outcome]:
    return {outcome.target.name: outcome for outcome in build(targets, force=force, timeout=timeout)}


def executed(*outputs: Any, source: str = "compute()\nmore()") -> Any:
    """A notebook as it comes from the kernel, with the outputs in its second code cell."""
    cells = [new_markdown_cell("# Title"), new_code_cell("1"), new_code_cell(source, outputs=list(outputs))]
    return new_notebook(cells=cells)


def text_output(text: str, mime: str = "text/plain") -> Any:
    return new_output("display_data", data={mime: text})


# ---------------------------------------------------------------------------------------------- finding and reading


def test_root_is_found_from_a_folder_inside(clone: Path) -> None:
    assert find_root(clone / "notebooks" / "source") == clone


def test_error_outside_a_clone_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no clone of the course at or above .*pyproject\.toml beside"):
        find_root(tmp_path)


def test_source_becomes_cells_that_keep_their_tags(clone: Path) -> None:
    target = add_source(clone, "01_a", "print(1)")
    text = '# %% [markdown]\n# A **word** and $x$.\n\n# %% tags=["hide-input"]\nprint(1)\n'
    target.source.write_text(text, encoding="utf-8")

    notebook = read_source(target.source)

    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code"]
    assert notebook.cells[0].source == "A **word** and $x$."
    assert notebook.cells[1].metadata == {"tags": ["hide-input"]}
    assert sorted(notebook.metadata) == ["course", "kernelspec", "language_info"]


def test_notebook_is_stale_exactly_when_missing_unreadable_or_from_another_text(clone: Path) -> None:
    target = add_source(clone, "01_a", "print(1)")
    assert is_stale(target)

    nbformat.write(read_source(target.source), target.output)
    assert not is_stale(target)

    target.source.write_bytes(target.source.read_bytes().replace(b"\n", b"\r\n"))
    assert not is_stale(target), "a Windows checkout has other line ends, not another text"

    target.source.write_text("# %%\nprint(2)\n")
    assert is_stale(target)

    for broken in ("{", "[]", '{"metadata": {}}'):
        target.output.write_text(broken)
        assert is_stale(target)


# ------------------------------------------------------------------------------------------------------- normalizing


def test_cell_ids_follow_from_content_and_survive_a_new_cell_above() -> None:
    before = new_notebook(cells=[new_code_cell("a"), new_code_cell("b"), new_code_cell("b"), new_markdown_cell("b")])
    after = new_notebook(cells=[new_code_cell("new"), *before.copy().cells])
    normalize(before)
    ids = [cell.id for cell in before.cells]
    normalize(after)

    assert len(set(ids)) == 4
    assert [cell.id for cell in after.cells][1:] == ids
    nbformat.validate(after)


def test_normalize_takes_out_times_versions_addresses_and_widget_state() -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "f00"}, "text/plain": "interactive(children=())"}
    notebook = executed(
        text_output("<object object at 0x7f3a5c0d2e10>"),
        new_output("stream", name="stdout", text="id 0x7f3a5c0d2e10, bits 0x3f800000\n"),
        new_output("display_data", data=view),
    )
    notebook.metadata.update({"language_info": {"name": "python", "version": "3.12"}, "widgets": {"state": {}}})
    notebook.cells[2].metadata.update({"execution": {"iopub.status.busy": "2025"}, "tags": ["keep"]})

    normalize(notebook)

    address, stream, widget = notebook.cells[2].outputs
    assert address.data["text/plain"] == "<object object at 0x…>"
    assert stream.text == "id 0x…, bits 0x3f800000\n", "the bits of a float are content"
    assert list(widget.data) == ["text/plain"]
    assert "run this cell" in widget.data["text/plain"]
    assert notebook.metadata == {"language_info": {"name": "python"}}
    assert notebook.cells[2].metadata == {"tags": ["keep"]}


def test_normalize_gives_styled_tables_ids_that_stay_and_differ() -> None:
    html = '<style>#T_{0}_row0 {{}}</style><table id="T_{0}"></table><table id="T_{1}"></table>'
    first = executed(text_output(html.format("0a1b2", "33333"), "text/html"))
    second = executed(text_output(html.format("fffff", "44444"), "text/html"))
    normalize(first)
    normalize(second)

    assert first == second
    (cell,) = [cell for cell in first.cells if cell.get("outputs")]
    text = cell.outputs[0].data["text/html"]
    assert text.count(f"T_{cell.id}_0") == 2
    assert text.count(f"T_{cell.id}_1") == 1


# ------------------------------------------------------------------------------------------------------------- flaws


def test_clean_outputs_have_no_flaws() -> None:
    image = new_output("display_data", data={"image/png": "aa/tmp/bb", "text/plain": "Figure: a rising line"})
    link = text_output('<a href="https://example.org/home/x">x</a>', "text/html")

    assert find_flaws(executed(image, link, new_output("stream", name="stdout", text="loss 0.1\n"))) == []


TMP = tempfile.gettempdir()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (new_output("error", ename="ValueError", evalue="bad", traceback=[]), "ValueError: bad"),
        (
            new_output("stream", name="stderr", text="UserWarning: careful\n" * 100),
            "writes to stderr, a warning perhaps: UserWarning: careful",
        ),
        (text_output(f"saved to {TMP}/x.pt", "text/html"), f"shows a path of this machine: {TMP}/x.pt"),
        (text_output(f"saved to {TMP}/x.pt", "image/svg+xml"), f"shows a path of this machine: {TMP}/x.pt"),
        (
            new_output("display_data", data={"application/vnd.x+json": {"statement": "kept in /home/me/x"}}),
            "shows a path of this machine: /home/me/x",
        ),
    ],
    ids=["error", "stderr", "html", "svg", "json"],
)
def test_flaws_name_the_code_cell_by_number_and_first_line(output: Any, words: str) -> None:
    (flaw,) = find_flaws(executed(output))

    assert flaw.startswith("code cell 2 (compute()): ")
    assert words in flaw
    assert len(flaw) < 400


def test_a_notebook_above_the_limit_names_its_largest_outputs() -> None:
    (flaw,) = find_flaws(executed(text_output("x" * 1_600_000)))

    assert flaw.startswith("1.60 MB is above 1.50 MB; largest: 1.60 MB from code cell 2 (compute()); 0.00 MB")


@pytest.mark.parametrize(
    "text",
    [
        "/home/ada/course/x.py",
        "file:///tmp/x",
        "'/root/.cache'",
        "/Users/ada/x",
        "C:\\Users\\ada\\x",
        "D:\\\\data\\\\x",
        f"{sys.prefix}/lib/python3/site-packages/torch",
        str(Path.home()),
        str(REPOSITORY / "data"),
    ],
)
def test_machine_paths_are_seen(text: str) -> None:
    assert len(machine_paths(f"a {text} b")) == 1


@pytest.mark.parametrize(
    "text",
    ["https://example.org/home/x", "and/or", "w/tmp/", r"$f:\mathbb{R}^n\to\mathbb{R}$", "data/boston_housing", "1/2"],
)
def test_other_slashes_are_no_machine_paths(text: str) -> None:
    assert machine_paths(text) == []


# ----------------------------------------------------------------------------------- building, with kernels (seconds)


@pytest.mark.slow
def test_forced_rebuild_gives_the_same_bytes_and_a_fresh_notebook_is_left_alone(clone: Path) -> None:
    figure = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2, 4])\nplt.show()"
    here = "import os\n\nassert os.listdir() == []\nprint({'x', 'y', 'z', 'w', 'v'})"
    target = add_source(
        clone, "01_a", "print('loss', 0.5)\nprint(object())", figure, here, "import sys\nprint('stdout')"
    )
    assert build_all([target])["01_a"].status == "built"
    first = target.output.read_bytes()

    outcome = build_all([target], force=True)["01_a"]

    assert outcome.status == "built"
    assert outcome.size == len(first)
    assert target.output.read_bytes() == first
    assert [cell["execution_count"] for cell in json.loads(first)["cells"]] == [1, 2, 3, 4]
    assert b"image/png" in first
    nbformat.validate(nbformat.reads(first.decode(), as_version=4))
    assert build_all([target])["01_a"].status == "fresh"


@pytest.mark.slow
def test_a_failing_notebook_is_left_untouched_and_the_others_are_built(clone: Path) -> None:
    targets = [
        add_source(clone, "01_good", f"import sys\nassert sys.executable == {sys.executable!r}"),
        add_source(clone, "02_error", "x = 1", "y = x\n1 / 0", "z = 3"),
        add_source(clone, "03_slow", "import time\ntime.sleep(100)"),
        add_source(clone, "04_warns", "import warnings\nwarnings.warn('careful')"),
    ]
    for target in targets:
        target.output.write_text("{}")

    outcomes = build_all(targets, timeout=3)

    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "01_good": "built",
        "02_error": "failed",
        "03_slow": "failed",
        "04_warns": "failed",
    }
    assert outcomes["02_error"].message == "code cell 2 (y = x): ZeroDivisionError: division by zero"
    assert outcomes["03_slow"].message == "code cell 1 (import time): took longer than the 3 s that one cell may take"
    assert outcomes["04_warns"].message.startswith("code cell 1 (import warnings): writes to stderr")
    assert [target.output.read_text() for target in targets[1:]] == ["{}"] * 3
    assert sorted(path.name for path in (clone / "notebooks").iterdir()) == [
        "01_good.ipynb",
        "02_error.ipynb",
        "03_slow.ipynb",
        "04_warns.ipynb",
        "source",
    ]


@pytest.mark.slow
def test_the_fresh_template_builds_with_its_claim_and_is_lintable(clone: Path) -> None:
    path = new_lesson(clone, "09_my_topic")
    (target,) = lesson_targets(clone)

    outcome = build_all([target])["09_my_topic"]

    assert outcome.message == ""
    assert "vnd.mlp-course.claim+json" in target.output.read_text(encoding="utf-8")
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--stdin-filename", "notebooks/source/09_my_topic.py", "-"]
        text = path.read_text(encoding="utf-8")
        result = subprocess.run(command, input=text, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
        assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_what_cannot_be_read_is_an_outcome(clone: Path) -> None:
    crash, latin = add_source(clone, "01_a", "1"), add_source(clone, "02_b", "1")
    crash.source.unlink()
    latin.source.write_bytes(b"# %%\n'\xff'\n")

    outcomes = build_all([crash, latin], force=True)

    assert {outcome.status for outcome in outcomes.values()} == {"failed"}
    assert outcomes["01_a"].message.startswith("the build itself failed: FileNotFoundError")
    assert outcomes["02_b"].message.startswith("cannot read 02_b.py: 'utf-8'")


def test_an_interrupted_write_leaves_the_old_notebook(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = replace(add_source(clone, "01_a", "1"), kind="homework")  # which no kernel runs
    target.output.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        build_notebook(target)

    assert target.output.read_text() == "old"
    assert sorted(path.name for path in target.output.parent.iterdir()) == ["01_a.ipynb", "source"]
