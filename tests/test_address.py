"""The address of the repository stands in one place, and every other place follows from it."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import IPython
import nbformat
import pytest

from course_utils.authoring.address import (
    MARKER,
    Address,
    badge_row,
    bootstrap,
    find_changes,
    read_address,
    rewrite_page,
    rewrite_source,
)
from course_utils.authoring.build import (
    BuildError,
    homework_targets,
    is_stale,
    lesson_targets,
    normalize,
    prepare,
    read_source,
    to_text,
)
from course_utils.cli import main, render_lesson

ROOT = Path(__file__).resolve().parents[1]
OURS, OTHER = Address("ours", "course"), Address("some-one", "my.course_2")
PATH = "notebooks/01_x.ipynb"
# What is made, not written by people, and the data.
NOT_WRITTEN = (".git", ".venv", "build", "site", "data", ".hypothesis", "*_cache", "__pycache__", "*.egg-info")
TEXT = {"", ".cfg", ".css", ".html", ".ipynb", ".js", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}

SOURCE = f"""\
# %% [markdown]
# # 1. Why?
#
# {MARKER}
# No empty line came before this prose.
#
# [Prose](https://example.org/) with a link.

# %%
# In Colab this did something else.
import sys

# %%
import torch

# %% [markdown]
# In Colab, prose.

# %%"""


def move(root: Path, value: object) -> None:
    """Write the address in its one place, as TOML."""
    line = "" if value is None else f"Repository = {json.dumps(value)}\n"
    (root / "pyproject.toml").write_text(f"[project]\n[project.urls]\n{line}")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a clone at the address `OURS`, with a lesson, which is fresh, a homework, and a README."""
    sources = tmp_path / "notebooks" / "source"
    (sources / "homework").mkdir(parents=True)
    (tmp_path / "notebooks" / "homework" / "solutions").mkdir(parents=True)
    for path in (sources / "01_x.py", sources / "homework" / "hw1_y.py"):
        path.write_text(SOURCE)
    for target in lesson_targets(tmp_path) + homework_targets(tmp_path):
        notebook = read_source(target.source)
        prepare(notebook, target.kind)
        for count, cell in enumerate([cell for cell in notebook.cells if cell.cell_type == "code"], 1):
            cell["execution_count"], cell["outputs"] = count, [nbformat.v4.new_output("stream", text="loss é\n")]
        normalize(notebook)
        target.output.write_text(to_text(notebook), encoding="utf-8")
    (tmp_path / "README.md").write_text("pip install git+https://github.com/before/it\n")
    move(tmp_path, OURS.url)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------- the repository


def test_every_notebook_and_page_names_the_repository() -> None:
    differing = [path.relative_to(ROOT).as_posix() for path in find_changes(ROOT)]

    assert not differing, f"run: course badges (it writes the address of pyproject.toml into {', '.join(differing)})"


def test_a_new_lesson_names_the_repository() -> None:
    text = render_lesson(ROOT, "09_x")

    assert rewrite_source(text, read_address(ROOT), "notebooks/09_x.ipynb") == text
    assert "{{" not in text


def test_a_made_up_address_reaches_every_place_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the whole repository; what it reads is all text but the data. Stale notebooks wait for the build."""
    root, old = tmp_path / "copy", read_address(ROOT)
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*NOT_WRITTEN))
    monkeypatch.chdir(root)
    main(["badges"])
    stale = {target.output for target in lesson_targets(root) + homework_targets(root) if is_stale(target)}
    before = texts(root)
    configuration = before[root / "pyproject.toml"]
    (root / "pyproject.toml").write_text(configuration.replace(old.url, OTHER.url), encoding="utf-8")

    assert main(["badges"]) == 0

    after = {path: text for path, text in texts(root).items() if path not in stale}
    names = f"{old.owner}/{old.name}"
    assert not [path for path, text in after.items() if names in text], "see `rewrite_page` for what it knows in a page"
    for path, text in after.items():
        lines = before[path].replace(names, f"{OTHER.owner}/{OTHER.name}").splitlines()
        other = [line for line, made in zip(lines, text.splitlines(), strict=True) if line != made]
        if path.suffix == ".ipynb":
            assert sum(line.strip().startswith('"id": "') for line in other) == 2  # the title's cell and the bootstrap
            other = [line for line in other if not line.strip().startswith(('"id": "', '"source_sha256": "'))]
        assert not other, path
    assert main(["badges", "--check"]) == 0
    assert {target.output for target in lesson_targets(root) + homework_targets(root) if is_stale(target)} == stale


def texts(root: Path) -> dict[Path, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix in TEXT]
    return {path: path.read_text(encoding="utf-8") for path in files}


# -------------------------------------------------------------------------------------------------- the command


def test_badges_are_checked_written_and_then_all_right(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(clone)
    assert main(["badges", "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "differs notebooks/01_x.ipynb",
        "differs notebooks/homework/hw1_y.ipynb",
        "differs notebooks/homework/solutions/hw1_y.ipynb",
        "differs notebooks/source/01_x.py",
        "differs notebooks/source/homework/hw1_y.py",
        "differs README.md",
    ]
    assert texts(clone) == before

    assert main(["badges"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "written README.md"
    assert main(["badges", "--check"]) == 0
    assert capsys.readouterr().out == "everything names https://github.com/ours/course\n"
    solved = (clone / "notebooks" / "homework" / "solutions" / "hw1_y.ipynb").read_text(encoding="utf-8")
    assert "blob/main/notebooks/homework/hw1_y.ipynb" in solved
    assert "solutions/hw1_y" not in solved


def test_a_notebook_keeps_its_outputs_and_stays_fresh(clone: Path) -> None:
    before = nbformat.read(clone / PATH, as_version=4)
    main(["badges"])
    after = nbformat.read(clone / PATH, as_version=4)

    assert after.cells[1].source == bootstrap(OURS)
    assert f"{MARKER}\n{badge_row(OURS, PATH)}\nNo empty line" in after.cells[0].source
    assert [cell.get("outputs") for cell in after.cells] == [cell.get("outputs") for cell in before.cells]
    assert after.cells[2:] == before.cells[2:]
    assert not is_stale(lesson_targets(clone)[0])


@pytest.mark.parametrize("damage", ["missing", "stale"])
def test_a_notebook_that_needs_a_build_is_left_to_it(clone: Path, damage: str) -> None:
    path = clone / PATH
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text(encoding="utf-8").replace("sha256", "sha1"), encoding="utf-8")
    before = path.read_text(encoding="utf-8") if path.exists() else None

    assert main(["badges"]) == 0
    assert (path.read_text(encoding="utf-8") if path.exists() else None) == before


def test_what_was_interrupted_can_be_repeated(clone: Path) -> None:
    """The notebooks are written first: with its source still old, one that was fresh is fresh in the end."""
    path, text = next(iter(find_changes(clone).items()))
    path.write_text(text, encoding="utf-8")
    assert path == clone / PATH

    assert main(["badges"]) == 0
    assert not is_stale(lesson_targets(clone)[0])


# --------------------------------------------------------------------------------------------------- the address


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "https://gitlab.com/ours/course",
        "https://github.com/ours",
        "https://github.com/ours/course.git",
    ],
)
def test_what_is_no_repository_on_github_is_refused_with_the_value(
    clone: Path, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    move(clone, value)

    assert main(["badges"]) == 2
    expected = f"[project.urls] Repository must be https://github.com/OWNER/NAME, got {value!r}"
    assert expected in capsys.readouterr().err
    with pytest.raises(BuildError, match="got "):
        render_lesson(clone, "09_x")


@pytest.mark.parametrize("address", [OURS, OTHER])
def test_address_is_read(clone: Path, address: Address) -> None:
    move(clone, address.url)

    assert read_address(clone) == address


def test_badge_row_has_four_links_in_words() -> None:
    assert badge_row(OURS, PATH).split(" ·\n") == [
        "[Open in Colab](https://colab.research.google.com/github/ours/course/blob/main/notebooks/01_x.ipynb)",
        "[Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/ours/course/blob/main/notebooks/01_x.ipynb)",
        "[Binder](https://mybinder.org/v2/gh/ours/course/main?urlpath=lab/tree/notebooks/01_x.ipynb)",
        "[Download](https://raw.githubusercontent.com/ours/course/main/notebooks/01_x.ipynb)",
    ]


# ---------------------------------------------------------------------------------------------------- the sources


def test_source_gets_row_and_bootstrap_and_keeps_its_prose() -> None:
    made = rewrite_source(SOURCE, OURS, PATH)
    row = "".join(f"# {line}\n" for line in badge_row(OURS, PATH).split("\n"))
    old = SOURCE[SOURCE.index("# In Colab this") : SOURCE.index("\n\n# %%\nimport torch")]

    assert made == SOURCE.replace(f"# {MARKER}\n", f"# {MARKER}\n{row}").replace(old, bootstrap(OURS))
    assert rewrite_source(made, OURS, PATH) == made
    assert rewrite_source(rewrite_source(SOURCE, OTHER, PATH), OURS, PATH) == made


def test_bootstrap_may_be_the_last_cell() -> None:
    short = SOURCE[: SOURCE.index("\n# %%\nimport torch")]

    assert rewrite_source(short, OURS, PATH).endswith(f"# %%\n{bootstrap(OURS)}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE.replace(MARKER, "<!-- badge -->"), r"one line # <!-- badges -->, found 0"),
        (SOURCE.replace("# In Colab, prose.", f"# {MARKER}"), r"one line # <!-- badges -->, found 2"),
        (SOURCE.replace("# In Colab this", "# Elsewhere this"), "one bootstrap cell, found 0"),
        (SOURCE.replace("import torch", "# In Colab, again"), "one bootstrap cell, found 2"),
    ],
)
def test_source_without_one_place_for_each_is_refused_by_name(clone: Path, text: str, message: str) -> None:
    (clone / "notebooks" / "source" / "01_x.py").write_text(text)

    with pytest.raises(BuildError, match=rf"^notebooks/source/01_x\.py: there must be {message}$"):
        find_changes(clone)


# ------------------------------------------------------------------------------------------------------ the pages


@pytest.mark.parametrize(
    "text",
    [
        "pip install git+https://github.com/{}\n",
        "(`git clone https://github.com/{}`).",
        "[Colab](https://colab.research.google.com/github/{}/blob/main/x.ipynb)",
        "[Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{}/blob/main/x.ipynb)",
        "[Binder](https://mybinder.org/v2/gh/{}/main?urlpath=lab)",
        "as in git+https://github.com/{}.",
    ],
)
def test_page_names_the_repository_in_commands_and_badges(text: str) -> None:
    assert rewrite_page(text.format("before/it"), OTHER) == text.format("some-one/my.course_2")
    assert rewrite_page(text.format("some-one/my.course_2"), OURS) == text.format("ours/course")


@pytest.mark.parametrize("text", ["https://github.com/others/code", "see https://mybinder.org and git+ssh://x/y"])
def test_page_keeps_the_addresses_of_others(text: str) -> None:
    assert rewrite_page(text, OURS) == text


# -------------------------------------------------------------------------------------------------- the bootstrap


def commands_of_bootstrap(
    monkeypatch: pytest.MonkeyPatch, *, colab: bool = False, kaggle: bool = False, installed: bool = False
) -> list[tuple[str, ...]]:
    """Run the cell, and return the magics that it called."""
    called: list[tuple[str, ...]] = []
    shell = SimpleNamespace(run_line_magic=lambda *arguments: called.append(arguments))
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    if kaggle:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "")  # empty in some of Kaggle's sessions
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(bootstrap(OURS), {})
    return called


@pytest.mark.parametrize("where", ["colab", "kaggle"])
def test_bootstrap_installs_once_and_quietly_where_a_notebook_stands_alone(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command, in which nothing asks for an upgrade, an editable package or a version."""
    command = "install -q 'mlp-course-utils[lessons] @ git+https://github.com/ours/course'"

    assert commands_of_bootstrap(monkeypatch, **{where: True}) == [("pip", command)]


def test_bootstrap_does_nothing_elsewhere_or_when_the_package_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert commands_of_bootstrap(monkeypatch, colab=True, kaggle=True, installed=True) == []
    assert commands_of_bootstrap(monkeypatch) == []
