"""Behaviour of what `docs/build.py` does before Sphinx runs: notebooks, links, generated pages, downloaded files."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils.authoring.build import prepare, read_source
from course_utils.claims import MIME_TYPE, Claim
from course_utils.homework.engine.verdict import VERDICT_TYPE

ROOT = Path(__file__).resolve().parents[1]

# A white pixel wide, two high: the smallest PNG with two different sides.
_PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAACCAAAAACMBIEaAAAAC0lEQVR4nGP4DwQACfsD/Wt/L1MAAAAASUVORK5CYII=")
_BOOTSTRAP = 'if "google.colab" in sys.modules:\n    get_ipython().run_line_magic("pip", "install -q x")'
_SOURCE = """# %% [markdown]
# # 09. Why?

# %%
def double(x):
    \"\"\"Twice x.\"\"\"
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %%
check(double)

# %% [markdown]
# ### Exercise 2

# %%
answer = ...  # a number
### BEGIN SOLUTION
answer = 42
### END SOLUTION
print(answer)

# %%
other = ...
### BEGIN SOLUTION
other = 43
### END SOLUTION

# %%
check(answer, other)
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    """The modules of ``docs``, by name: they import each other as Sphinx's and Python's search path has them there."""
    sys.path.insert(0, str(ROOT / "docs"))
    names = ("build", "_errors", "_links", "_notebooks", "_npm", "_pages", "_tree")
    try:
        modules = {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(ROOT / "docs"))
    yield type("Modules", (), modules)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def lesson(tmp_path: Path) -> tuple[Any, Any]:
    """A lesson with stubs, as it is committed, and its source."""
    path = tmp_path / "09_why.py"
    path.write_text(_SOURCE, encoding="utf-8")
    notebook = read_source(path)
    prepare(notebook, "lesson")
    return notebook, read_source(path)


def _figure(alt: str, **facts: Any) -> Any:
    data = {"image/png": base64.b64encode(_PNG).decode(), "text/plain": f"Figure: {alt}"}
    return new_output("display_data", data, metadata={"image/png": {"alt": alt, **facts} if facts else {}})


def _notebook(*outputs: Any) -> Any:
    return new_notebook(cells=[new_code_cell("show()", outputs=list(outputs))])


def _html(notebook: Any) -> list[str]:
    return [output["data"]["text/html"] for cell in notebook.cells for output in cell.get("outputs", [])]


# Figures -------------------------------------------------------------------------------------------------------------


def test_a_figure_becomes_a_file_with_description_size_and_caption(site: Any) -> None:
    notebook = _notebook(_figure("Two lines that <cross> & part.", width=300))
    treated = site._notebooks.treat(notebook, figures="../figures/09_why")
    assert [(figure.name, figure.png, figure.alt) for figure in treated.figures] == [
        ("01.png", _PNG, "Two lines that <cross> & part.")
    ]
    (shown,) = _html(notebook)
    assert '<img src="../figures/09_why/01.png" alt="Two lines that &lt;cross&gt; &amp; part."' in shown
    assert 'width="300" height="600"' in shown
    assert '<figcaption aria-hidden="true">Two lines that &lt;cross&gt; &amp; part.</figcaption>' in shown
    assert notebook.cells[0].outputs[0]["metadata"] == {}


def test_a_figure_without_facts_takes_description_and_size_from_the_output(site: Any) -> None:
    notebook = _notebook(_figure("A curve that rises."))
    site._notebooks.treat(notebook, figures="f")
    assert 'alt="A curve that rises." width="1" height="2"' in _html(notebook)[0]


def test_figures_of_one_notebook_have_names_of_their_own(site: Any) -> None:
    notebook = _notebook(_figure("The first of them."), _figure("The second of them."))
    treated = site._notebooks.treat(notebook, figures="f")
    assert [figure.name for figure in treated.figures] == ["01.png", "02.png"]


def test_an_empty_heading_of_a_table_is_none(site: Any) -> None:
    table = "<table class='dataframe'><thead><tr><th></th><th>lr</th></tr></thead></table>"
    notebook = _notebook(new_output("execute_result", {"text/html": table, "text/plain": "lr"}))
    site._notebooks.treat(notebook, figures="f")
    assert "<td></td><th>lr</th>" in _html(notebook)[0]


# Claims and verdicts -------------------------------------------------------------------------------------------------


def test_claims_are_numbered_from_one_and_keep_their_html(site: Any) -> None:
    claims = [Claim(f"claim {n}", (1.0,), ">", 0.0, "deck 000")._repr_mimebundle_() for n in range(2)]
    notebook = _notebook(*(new_output("display_data", claim) for claim in claims))
    site._notebooks.treat(notebook, figures="f")
    for number, shown in enumerate(_html(notebook), 1):
        assert shown.startswith(f'<div class="course-box" id="{site._notebooks.claim_anchor(number)}">')
        assert f"claim {number - 1}" in shown
    assert all(MIME_TYPE not in output["data"] for output in notebook.cells[0].outputs)


def test_a_verdict_gets_the_box_and_no_anchor(site: Any) -> None:
    data = {VERDICT_TYPE: {"status": "todo"}, "text/html": "<div>◻ not yet</div>", "text/plain": "◻"}
    notebook = _notebook(new_output("display_data", data))
    site._notebooks.treat(notebook, figures="f")
    assert _html(notebook) == ['<div class="course-box"><div>◻ not yet</div></div>']


# Badges and the bootstrap --------------------------------------------------------------------------------------------

_ROW = (
    "[Open in Colab](https://colab.research.google.com/github/o/r/blob/main/notebooks/09_why.ipynb) ·\n"
    "[Binder](https://mybinder.org/v2/gh/o/r/main?urlpath=lab/tree/x) ·\n"
    "[Download](https://raw.githubusercontent.com/o/r/main/notebooks/09_why.ipynb)"
)


@pytest.mark.parametrize("below", ["\n\nBecause.", "\nBecause.", "\n\n[A paper](https://example.org) says why."])
def test_badges_become_links_and_the_text_below_stays(site: Any, below: str) -> None:
    notebook = new_notebook(cells=[new_markdown_cell(f"# 09. Why?\n\n<!-- badges -->\n{_ROW}{below}")])
    links = site._notebooks.take_badges(notebook)
    assert [link.text for link in links] == ["Open in Colab", "Binder"]
    assert links[0].url == "https://colab.research.google.com/github/o/r/blob/main/notebooks/09_why.ipynb"
    assert notebook.cells[0].source.split() == f"# 09. Why? {below}".split()


def test_a_mark_without_badges_goes_too(site: Any) -> None:
    notebook = new_notebook(cells=[new_markdown_cell("# T\n<!-- badges -->\nBecause."), new_code_cell("a")])
    assert site._notebooks.take_badges(notebook) == []
    assert notebook.cells[0].source == "# T\nBecause."


def test_without_badges_the_given_links_count(site: Any) -> None:
    link = site._notebooks.Link("Open in Colab", "https://example.org")
    assert site._notebooks.treat(_notebook(), figures="f", links=[link]).links == [link]


def test_the_row_of_links_stands_behind_the_title_and_is_escaped(site: Any) -> None:
    notebook = new_notebook(cells=[new_markdown_cell("# 09. Why?\n\nBecause.")])
    row = site._notebooks.launch_row([site._notebooks.Link("A & B", 'https://example.org/?a="1"')])
    site._notebooks.insert_after_title(notebook, row)
    title, _, rest = notebook.cells[0].source.partition("\n\n")
    assert title == "# 09. Why?"
    assert rest.startswith(
        '<p class="launch-row"><a class="launch" href="https://example.org/?a=&quot;1&quot;">A &amp; B'
    )
    assert rest.endswith("Because.")
    assert site._notebooks.launch_row([]) == ""


def test_only_the_bootstrap_is_hidden(site: Any) -> None:
    notebook = new_notebook(cells=[new_code_cell(_BOOTSTRAP), new_code_cell("import torch")])
    site._notebooks.treat(notebook, figures="f")
    assert [cell.metadata.get("tags", []) for cell in notebook.cells] == [["remove-cell"], []]


def test_every_committed_lesson_has_a_bootstrap_to_hide(site: Any) -> None:
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        site._notebooks.hide_bootstrap(notebook)
        hidden = [cell for cell in notebook.cells if "remove-cell" in cell.metadata.get("tags", [])]
        assert len(hidden) == 1, path.name


# Solutions -----------------------------------------------------------------------------------------------------------


def test_solutions_stand_folded_behind_the_check(site: Any, lesson: tuple[Any, Any]) -> None:
    notebook, source = lesson
    before = [cell.source for cell in notebook.cells]
    assert site._notebooks.treat(notebook, figures="f", source=source).folds == 3
    after = [cell.source for cell in notebook.cells]
    first = '<details class="solution"><summary>Solution</summary>\n\n```python\ndef double(x):\n    """Twice x."""\n'
    assert after[3] == f"{first}    return 2 * x\n```\n\n</details>"
    assert after[-1].count("<details") == 1
    assert "answer = 42\nprint(answer)\n\n\nother = 43" in after[-1]
    assert [text for text in after if not text.startswith("<details")] == before


def test_no_solution_leaks_into_a_cell_of_the_student(site: Any, lesson: tuple[Any, Any]) -> None:
    notebook, source = lesson
    site._notebooks.treat(notebook, figures="f", source=source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert "return 2 * x" not in cell.source
            assert "= 42" not in cell.source
        assert "### BEGIN" not in cell.source
        assert "### END" not in cell.source


def test_a_solution_does_not_repeat_the_placeholder(site: Any, lesson: tuple[Any, Any]) -> None:
    notebook, source = lesson
    site._notebooks.treat(notebook, figures="f", source=source)
    assert "..." not in notebook.cells[-1].source


def test_without_a_source_there_are_no_folds(site: Any, lesson: tuple[Any, Any]) -> None:
    notebook, _ = lesson
    assert site._notebooks.treat(notebook, figures="f").folds == 0
    assert len(notebook.cells) == 7


def test_a_stub_that_the_source_no_longer_has_is_left_alone(site: Any, lesson: tuple[Any, Any]) -> None:
    notebook, source = lesson
    notebook.cells[1].source = "def triple(x):\n    raise NotImplementedError  # your code here"
    assert site._notebooks.treat(notebook, figures="f", source=source).folds == 2


def test_every_solution_of_the_lessons_has_a_fold(site: Any) -> None:
    for path in sorted((ROOT / "notebooks" / "source").glob("*.py")):
        source = read_source(path)
        notebook = read_source(path)
        prepare(notebook, "lesson")
        marked = sum("### BEGIN SOLUTION" in cell.source for cell in source.cells if cell.cell_type == "code")
        assert site._notebooks.fold_solutions(notebook, source) == marked > 0, path.name


def test_a_solved_homework_folds_its_solutions_where_they_stand(site: Any) -> None:
    plain = new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION")
    shown = new_code_cell("### BEGIN SOLUTION\ny = 2\n### END SOLUTION\ny", outputs=[new_output("stream", text="2")])
    notebook = new_notebook(cells=[plain, new_code_cell("check(x)"), shown])
    assert site._notebooks.treat(notebook, figures="f", solved=True).folds == 2
    texts = [cell.source for cell in notebook.cells]
    assert "```python\nx = 1\n```" in texts[0]
    assert texts[1] == "check(x)"
    assert "```python\ny = 2\ny\n```" in texts[2]
    assert notebook.cells[3].outputs[0]["text"] == "2"
    assert notebook.cells[3].metadata["tags"] == ["remove-input"]
    assert len(texts) == 4


def test_a_title_is_changed_only_at_its_beginning(site: Any) -> None:
    notebook = new_notebook(cells=[new_markdown_cell("# Homework 1. Homework at sea\n\nHomework it is.")])
    site._notebooks.retitle(notebook, "Homework ", "Homework, solved: ")
    assert notebook.cells[0].source == "# Homework, solved: 1. Homework at sea\n\nHomework it is."


# Links ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def addresses(site: Any, tmp_path: Path) -> Any:
    """Addresses of a small clone, in which one page and one notebook are on the site."""
    for name in ("docs/a.md", "docs/b.md", "notebooks/09_why.ipynb", "data/set/LICENSE.txt", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    pages = {"docs/a.md": "a.md", "docs/b.md": "b.md", "notebooks/09_why.ipynb": "notebooks/09_why.ipynb"}
    pages["README.md"] = "index.md"
    return site._links.Addresses(tmp_path, "https://github.com/o/r", pages)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[b](b.md)", "[b](b.md)"),
        ("[b](b.md#part)", "[b](b.md#part)"),
        ("[n](../notebooks/09_why.ipynb)", "[n](notebooks/09_why.ipynb)"),
        ("[front](../README.md)", "[front](index.md)"),
        ('[l](../data/set/LICENSE.txt "words")', '[l](https://github.com/o/r/blob/main/data/set/LICENSE.txt "words")'),
        ("[folder](../data/set)", "[folder](https://github.com/o/r/tree/main/data/set)"),
        ("[web](https://example.org/x.md)", "[web](https://example.org/x.md)"),
        ("[here](#part)", "[here](#part)"),
        ("`[code](nowhere.md)`", "`[code](nowhere.md)`"),
        ("```\n[code](nowhere.md)\n```", "```\n[code](nowhere.md)\n```"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(addresses: Any, link: str, expected: str) -> None:
    assert addresses.rewrite(link, file="docs/a.md", page="a.md") == expected


def test_links_go_up_from_a_page_in_a_folder(addresses: Any) -> None:
    text = addresses.rewrite("[a](../docs/a.md)", file="notebooks/09_why.ipynb", page="notebooks/09_why.ipynb")
    assert text == "[a](../a.md)"


@pytest.mark.parametrize("target", ["gone.md", "../../elsewhere.md"])
def test_a_link_to_nothing_is_named(site: Any, addresses: Any, target: str) -> None:
    with pytest.raises(site._errors.SiteError, match=r"docs/a\.md links to .*(gone|elsewhere)\.md"):
        addresses.rewrite(f"[x]({target})", file="docs/a.md", page="a.md")


# Generated pages -----------------------------------------------------------------------------------------------------


def test_the_readme_lists_every_lesson_and_homework(site: Any) -> None:
    entries = site._pages.read_entries((ROOT / "README.md").read_text(encoding="utf-8"))
    files = [entry.file for entry in entries]
    assert [file for file in files if "/homework/" not in file] == [
        path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    ]
    assert [file for file in files if "/homework/" in file] == [
        path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "notebooks" / "homework").glob("*.ipynb"))
    ]
    assert all(entry.words.endswith("?") for entry in entries if "/homework/" not in entry.file)


def test_a_card_leads_to_the_lesson_and_to_colab(site: Any) -> None:
    links = [site._notebooks.Link("Open in Colab", "https://colab.research.google.com/x")]
    entry = site._pages.Entry("03", "Norm & more", "notebooks/03.ipynb", "Why <so>?", links)
    cards = site._pages.lesson_cards([entry], {"notebooks/03.ipynb": "figures/03/card.png"})
    assert 'href="notebooks/03.html"' in cards
    assert 'src="figures/03/card.png" alt=""' in cards
    assert "Norm &amp; more" in cards
    assert "Why &lt;so&gt;?" in cards
    assert 'href="https://colab.research.google.com/x" aria-label="Open in Colab: lesson 03, Norm &amp; more"' in cards


def test_the_claims_page_groups_by_lesson_and_escapes(site: Any) -> None:
    entries = [site._pages.Entry("03", "BatchNorm", "notebooks/03_batchnorm.ipynb", "Why?")]
    common = {"op": ">=", "unit": "", "over": "folds", "holds": True}
    records = [
        common
        | {
            "lesson": "03_batchnorm",
            "statement": "a|b *c* $d$",
            "measured": [1, 2],
            "bound": 0.5,
            "source": "deck 002",
        },
        common
        | {"lesson": "03_batchnorm", "statement": "second", "measured": ["inf"], "bound": 1, "source": "this lesson"},
        common | {"lesson": "04_x", "statement": "third", "measured": [3], "bound": 1, "source": "deck 001, wrong"},
    ]
    page = site._pages.claims_page(records, entries)
    assert "These are all 3 of them. 2 come from a lecture deck or a paper, 1 from" in page
    assert "1 correct what a deck says" in page
    assert "## 03 BatchNorm\n" in page
    assert "## 04_x\n" in page
    assert '<a href="notebooks/03_batchnorm.html#claim-1">a\\|b \\*c\\* \\$d\\$</a>' in page
    assert '<a href="notebooks/03_batchnorm.html#claim-2">second</a>' in page
    assert '<a href="notebooks/04_x.html#claim-1">third</a>' in page
    assert "1 … 2 over 2 folds" in page


def test_the_solved_homework_is_listed_with_its_own_pages(site: Any) -> None:
    entry = site._pages.Entry("1", "By hand", "notebooks/homework/hw1_x.ipynb", "write it")
    page = site._pages.solved_page([entry])
    assert "1. [By hand](solutions/hw1_x.ipynb)" in page
    assert "1 By hand <solutions/hw1_x>" in page
    assert "[solved](notebooks/homework/solutions/hw1_x.ipynb)" in site._pages.homework_list([entry])


@pytest.mark.parametrize(("size", "corner"), [((800, 200), 255), ((200, 200), 0)])
def test_a_thumbnail_pads_what_is_wide_and_crops_what_is_tall(site: Any, size: tuple[int, int], corner: int) -> None:
    from PIL import Image

    full = io.BytesIO()
    Image.new("RGB", size, "black").save(full, format="PNG")
    with Image.open(io.BytesIO(site._pages.thumbnail(full.getvalue()))) as small:
        assert small.size == (480, 240)
        assert small.convert("L").getpixel((0, 0)) == corner


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_tree_leaves_unchanged_files_alone_and_clears_old_ones(site: Any, tmp_path: Path) -> None:
    first = site._tree.Tree(tmp_path)
    assert first.write("a/b.md", "text")
    assert first.write("c.png", b"\x00")
    before = (tmp_path / "a" / "b.md").stat().st_mtime_ns
    second = site._tree.Tree(tmp_path)
    assert not second.write("a/b.md", "text")
    assert (tmp_path / "a" / "b.md").stat().st_mtime_ns == before
    assert second.prune() == [tmp_path / "c.png"]
    assert not (tmp_path / "c.png").exists()
    assert second.write("a/b.md", "other")


def _fake_npm(monkeypatch: pytest.MonkeyPatch, npm: Any, content: bytes, *, status: int = 0) -> list[list[str]]:
    """An npm whose packages all hold one file ``lib/x.js``; returns the commands it got."""
    commands: list[list[str]] = []

    def run(command: list[str], *, cwd: str, **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if status == 0:
            with tarfile.open(Path(cwd) / "x-1.0.0.tgz", "w:gz") as archive:
                member = tarfile.TarInfo("package/lib/x.js")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return subprocess.CompletedProcess(command, status, "", "npm error: no such version")

    monkeypatch.setattr(npm.subprocess, "run", run)
    monkeypatch.setattr(npm.shutil, "which", lambda name: f"/usr/bin/{name}")
    return commands


def test_an_npm_file_is_fetched_once_and_again_when_damaged(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _fake_npm(monkeypatch, site._npm, b"js")
    package = site._npm.Package("@a/x@1.0.0", {"lib/x.js": hashlib.sha256(b"js").hexdigest()})
    (path,) = site._npm.fetch(package, tmp_path)
    assert path.read_bytes() == b"js"
    assert path.is_relative_to(tmp_path)
    assert site._npm.fetch(package, tmp_path) == [path]
    assert len(commands) == 1
    path.write_bytes(b"damaged")
    assert site._npm.fetch(package, tmp_path)[0].read_bytes() == b"js"
    assert len(commands) == 2


def test_a_file_with_another_checksum_is_refused_and_not_kept(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_npm(monkeypatch, site._npm, b"evil")
    package = site._npm.Package("x@1.0.0", {"lib/x.js": hashlib.sha256(b"js").hexdigest()})
    with pytest.raises(site._errors.SiteError, match=r"lib/x\.js of x@1\.0\.0 has SHA-256 .* expected"):
        site._npm.fetch(package, tmp_path)
    assert not list(tmp_path.rglob("*.js"))


def test_what_npm_cannot_deliver_is_said(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_npm(monkeypatch, site._npm, b"js")
    with pytest.raises(site._errors.SiteError, match=r"has no file lib/y\.js"):
        site._npm.fetch(site._npm.Package("x@1.0.0", {"lib/y.js": "0"}), tmp_path)
    _fake_npm(monkeypatch, site._npm, b"js", status=1)
    with pytest.raises(site._errors.SiteError, match=r"npm pack x@1\.0\.0 failed: npm error: no such version"):
        site._npm.fetch(site._npm.Package("x@1.0.0", {"lib/x.js": "0"}), tmp_path)
    monkeypatch.setattr(site._npm.shutil, "which", lambda name: None)
    with pytest.raises(site._errors.SiteError, match="npm is not installed"):
        site._npm.fetch(site._npm.Package("x@1.0.0", {"lib/x.js": "0"}), tmp_path)


# The whole, without Sphinx -------------------------------------------------------------------------------------------


def test_every_page_of_the_contents_has_its_place(site: Any) -> None:
    made = site.build.Site(ROOT)
    pages = set(made.addresses.pages.values())
    wanted = {f"{name}.md" for name in site.build._COURSE_PAGES + site.build._PROJECT_PAGES}
    assert wanted | {"index.md", "data/index.md", "data/boston_housing.md", "notebooks/homework/solved.md"} <= pages
    assert made.addresses.file_url("data").startswith(made.repository + "/tree/")


def test_a_stale_notebook_stops_the_building_and_is_named(
    site: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site.build, "is_stale", lambda target: target.name == "03_batchnorm")
    monkeypatch.setattr(site.build.Site, "_fetch_packages", lambda self: "")
    assert site.build.main([]) == 2
    assert capsys.readouterr().err == "site: stale: 03_batchnorm; run: course build\n"


def test_the_address_of_the_repository_stands_in_pyproject_alone(site: Any) -> None:
    import tomllib

    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    assert site.build.Site(ROOT).repository == address
    for path in [*(ROOT / "docs").glob("*.py"), *(ROOT / "docs" / "_static").glob("*.*"), ROOT / "docs" / "index.md"]:
        assert address.removeprefix("https://") not in path.read_text(encoding="utf-8"), path.name
