"""Where the repository lives, written into every place that names it.

The address stands once, in ``pyproject.toml``. Badge rows, the cells that install the package, and pages follow from
it; the functions here turn the text of a file into the text that it should be.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from course_utils.authoring.build import is_stale, normalize, prepare, read_source, to_text
from course_utils.authoring.targets import BuildError, Target, homework_targets, lesson_targets

__all__ = [
    "MARKER",
    "Address",
    "badge_row",
    "bootstrap",
    "find_changes",
    "read_address",
    "rewrite_notebook",
    "rewrite_page",
    "rewrite_source",
]

MARKER = "<!-- badges -->"

_T = TypeVar("_T")

_BRANCH = "main"
_URL = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/([\w.-]+)", re.ASCII)
# A row is links alone, one a line; what else follows the marker is prose, and stays.
_BADGE = re.compile(r"\[[^\]]+\]\(https://\S+\)(?: ·)?")
_BOOTSTRAP_BEGINS = "# In Colab"
_BOOTSTRAP = """\
# In Colab and on Kaggle this installs the course's package; elsewhere it does nothing.
import os
import sys
from importlib.util import find_spec

if ("google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ) and find_spec("course_utils") is None:
    from IPython import get_ipython

    package = "mlp-course-utils[lessons] @ git+{url}"
    get_ipython().run_line_magic("pip", f"install -q '{{package}}'")"""
# Followed by OWNER/NAME. Other addresses on GitHub, in a list of sources say, are other people's.
_IN_PAGES = re.compile(
    r"(git(?:\+| clone )https://github\.com/"
    r"|https://colab\.research\.google\.com/github/"
    r"|https://kaggle\.com/kernels/welcome\?src=https://github\.com/"
    r"|https://mybinder\.org/v2/gh/)"
    r"[A-Za-z0-9-]+/\w(?:[\w.-]*\w)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Address:
    """A repository on GitHub, ``https://github.com/OWNER/NAME``.

    Attributes:
        owner: a person or an organization.
        name: the repository.
    """

    owner: str
    name: str

    @property
    def url(self) -> str:
        """The address as a browser and as git need it."""
        return f"https://github.com/{self.owner}/{self.name}"


def read_address(root: Path) -> Address:
    """Return the address that ``[project.urls] Repository`` of the clone at ``root`` names.

    Raises:
        BuildError: there is none, or it is no repository on GitHub. (Colab's and Kaggle's links open no other.)
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    value = project.get("urls", {}).get("Repository")
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].endswith(".git"):
        raise BuildError(
            f"pyproject.toml: [project.urls] Repository must be https://github.com/OWNER/NAME, got {value!r}"
        )
    return Address(match[1], match[2])


def badge_row(address: Address, path: str) -> str:
    """Return the links that open a notebook, as Markdown.

    They are words, not the services' pictures: a picture from the net is an empty frame offline, and needs a text for
    those who do not see it anyway.

    Args:
        address: the repository.
        path: the notebook in it, e.g. ``notebooks/01_unstable_gradients.ipynb``.
    """
    repository = f"{address.owner}/{address.name}"
    links = {
        "Open in Colab": f"https://colab.research.google.com/github/{repository}/blob/{_BRANCH}/{path}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={address.url}/blob/{_BRANCH}/{path}",
        "Binder": f"https://mybinder.org/v2/gh/{repository}/{_BRANCH}?urlpath=lab/tree/{path}",
        "Download": f"https://raw.githubusercontent.com/{repository}/{_BRANCH}/{path}",
    }
    return " ·\n".join(f"[{words}]({url})" for words, url in links.items())


def bootstrap(address: Address) -> str:
    """Return the cell that installs the package where a notebook stands alone: in Colab and on Kaggle.

    It asks for no version and no upgrade, so that pip keeps every package of theirs that satisfies the floors.
    """
    return _BOOTSTRAP.format(url=address.url)


def rewrite_source(text: str, address: Address, path: str) -> str:
    """Return a notebook's source (py:percent) with the badge row and the bootstrap cell of ``address``.

    Args:
        text: the source.
        address: the repository.
        path: the notebook that students open, in the repository.

    Raises:
        BuildError: a marker or the bootstrap cell is missing, or stands there twice.
    """
    lines = text.split("\n")
    _put_row(lines, badge_row(address, path))
    heads = [index for index, line in enumerate(lines) if line.startswith("# %%")] + [len(lines)]
    cells = [(head + 1, end) for head, end in itertools.pairwise(heads) if "[markdown]" not in lines[head]]
    begins = [(begin, end) for begin, end in cells if "".join(lines[begin : begin + 1]).startswith(_BOOTSTRAP_BEGINS)]
    begin, end = _only(begins, "bootstrap cell")
    while not lines[end - 1]:
        end -= 1
    lines[begin:end] = bootstrap(address).split("\n")
    return "\n".join(lines)


def rewrite_notebook(target: Target, text: str) -> str:
    """Return the file of a notebook as its source's new text makes it, with the outputs that it has.

    What has been executed stays executed: the bootstrap cell does nothing where the notebooks are built. A notebook
    that is stale stays as it is, for the next build.

    Args:
        target: the notebook, which exists, and its source, which has its old text.
        text: of the source, from `rewrite_source`.
    """
    import nbformat

    before = target.output.read_text(encoding="utf-8")
    if is_stale(target):
        return before
    old = nbformat.reads(before, as_version=4)  # type: ignore[no-untyped-call]
    made = read_source(target.source, text)
    prepare(made, target.kind)
    normalize(made)
    for cell, executed in zip(made.cells, old.cells, strict=True):
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = executed.outputs, executed.execution_count
    return before if made == old else to_text(made)


def rewrite_page(text: str, address: Address) -> str:
    """Return a page (Markdown) whose commands (``git+…``, ``git clone …``) and badges name ``address``."""
    return _IN_PAGES.sub(lambda match: f"{match[1]}{address.owner}/{address.name}", text)


def find_changes(root: Path) -> dict[Path, str]:
    """Return the files of the clone at ``root`` that do not name its address, each with the text it should have.

    Notebooks come before their sources: written in this order, a run that is interrupted can be repeated.

    Raises:
        BuildError: the address is none, or a notebook has no place for it; the message names the file.
    """
    address = read_address(root)
    changes: dict[Path, str] = {}
    sources: dict[Path, str] = {}
    for target in lesson_targets(root) + homework_targets(root):
        # The solution's badges open what students get: nobody sits down to a solved notebook.
        path = target.output.relative_to(root).as_posix().replace("/solutions/", "/")
        try:
            text = rewrite_source(target.source.read_text(encoding="utf-8"), address, path)
        except (BuildError, UnicodeDecodeError) as error:
            raise BuildError(f"{target.source.relative_to(root).as_posix()}: {error}") from error
        sources[target.source] = text
        if target.output.is_file():
            changes[target.output] = rewrite_notebook(target, text)
    changes |= sources
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        if page.is_file():
            changes[page] = rewrite_page(page.read_text(encoding="utf-8"), address)
    return {file: text for file, text in changes.items() if file.read_text(encoding="utf-8") != text}


def _put_row(lines: list[str], row: str) -> None:
    """Put the row, commented out, after the marker, in place of the one that is there."""
    start = _only([i for i, line in enumerate(lines) if line == f"# {MARKER}"], f"line # {MARKER}") + 1
    end = start
    while end < len(lines) and _BADGE.fullmatch(lines[end].removeprefix("# ")):
        end += 1
    lines[start:end] = [f"# {line}" for line in row.split("\n")]


def _only(found: Sequence[_T], what: str) -> _T:
    if len(found) != 1:
        raise BuildError(f"there must be one {what}, found {len(found)}")
    return found[0]
