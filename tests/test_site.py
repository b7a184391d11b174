"""The reading site: what a page shows of a notebook, the front page, the table of claims."""

from __future__ import annotations

import importlib
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from course_utils.authoring.targets import homework_targets, lesson_targets
from course_utils.cli import collect_claims

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("sphinx", reason="needs the extra site")


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    """The builder, which is no part of a package."""
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("build")
    sys.path.remove(str(ROOT / "docs"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def test_a_lesson_shows_anchors_alternative_texts_and_folded_solutions(site: Any) -> None:
    target = lesson_targets(ROOT)[1]
    notebook = read(target.output)
    n_figures = sum(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )
    site.for_the_site(notebook, target)
    text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]

    assert text.count('id=\\"claim-') == len(collect_claims([target.output])) > 5
    described = [cell.metadata["mystnb"]["image"]["alt"] for cell in notebook.cells if "mystnb" in cell.metadata]
    assert len(described) == n_figures
    assert min(map(len, described)) > 20
    folded = [cell.source for cell in notebook.cells if cell.source.startswith("<details><summary>Solution")]
    assert len(folded) == len(site.folded_solutions(target)) >= 5
    hidden = [cell for cell in notebook.cells if "remove-cell" in cell.metadata.get("tags", [])]
    assert ["google.colab" in cell.source for cell in hidden] == [True]


def test_a_solution_stands_behind_its_check_and_in_no_cell_of_the_student(site: Any) -> None:
    target = lesson_targets(ROOT)[0]
    notebook = read(target.output)
    site.for_the_site(notebook, target)
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.source.startswith("<details><summary>Solution"):
            assert before.cell_type in ("code", "markdown")
            assert "SOLUTION" not in cell.source
            assert "NotImplementedError" not in cell.source
    assert not any("SOLUTION" in cell.source for cell in notebook.cells)


def test_a_solved_homework_folds_its_solutions_in_place(site: Any) -> None:
    target = next(target for target in homework_targets(ROOT) if target.kind == "solution")
    notebook = read(target.output)
    n_solutions = sum("### BEGIN SOLUTION" in cell.source for cell in notebook.cells)
    site.for_the_site(notebook, target)
    folds = [cell for cell in notebook.cells if cell.source.startswith("<details><summary>Solution")]
    assert len(folds) == n_solutions > 3
    assert not any("### BEGIN SOLUTION" in cell.source for cell in notebook.cells)


def test_the_front_page_lists_what_there_is(site: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    entries = [site.Entry(*row) for row in site._ROW.findall(readme)]
    lessons = [entry for entry in entries if "/homework/" not in entry.file]
    homework = [entry for entry in entries if "/homework/" in entry.file]
    assert [entry.file for entry in lessons] == [f"notebooks/{one.output.name}" for one in lesson_targets(ROOT)]
    assert {Path(entry.file).name for entry in homework} == {one.output.name for one in homework_targets(ROOT)}
    page = site.front_page(lessons, homework)
    for entry in entries:
        assert entry.question in page
        assert page.count(entry.file.removesuffix(".ipynb")) >= 2  # its card or row, and the table of contents
    assert "<!--" not in page


def test_every_lesson_has_a_figure_for_its_card(site: Any) -> None:
    for target in lesson_targets(ROOT):
        assert site.card(target.output, site.CARDS[target.output.name[:2]]).startswith(b"\x89PNG")


def test_the_claims_page_escapes_what_is_measured(site: Any) -> None:
    record = {"lesson": "03_x", "statement": "a < b | *c*", "measured": [1.0, 2.0], "op": "<", "bound": 3.0}
    record |= {"source": "deck 002, wrong", "unit": "", "over": "seeds"}
    page = site.claims_page([record], [site.Entry("03", "X", "notebooks/03_x.ipynb", "Why?")])
    assert "## 03 X" in page
    assert '<a href="../notebooks/03_x.html#claim-1">a &lt; b &#124; *c*</a>' in page
    assert r"deck 002\, wrong" in page
    assert "1 correct what a deck says" in page


def test_a_package_with_another_checksum_is_refused(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(command: list[str], cwd: str, **_: Any) -> None:
        with tarfile.open(Path(cwd) / "x.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("package/a.js")
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))

    monkeypatch.setattr(site.subprocess, "run", pack)
    monkeypatch.setattr(site.shutil, "which", lambda name: "npm")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (path,) = site.fetch(("x@1", {"a.js": digest}), tmp_path)
    assert path.read_bytes() == b"abc"
    with pytest.raises(RuntimeError, match=r"a\.js of x@1 has SHA-256 ba7816bf"):
        site.fetch(("x@1", {"a.js": "0" * 64}), tmp_path)
    monkeypatch.setattr(site.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="npm, which downloads it, is not installed"):
        site.fetch(("x@1", {"a.js": digest}), tmp_path)
