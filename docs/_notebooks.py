"""What the site shows of a notebook: no machinery, figures with captions, solutions behind a fold."""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from course_utils.claims import MIME_TYPE as CLAIM_TYPE
from course_utils.homework.engine.verdict import VERDICT_TYPE

__all__ = [
    "Figure",
    "Link",
    "Treated",
    "claim_anchor",
    "fold_solution_cells",
    "fold_solutions",
    "hide_bootstrap",
    "insert_after_title",
    "launch_row",
    "retitle",
    "take_badges",
    "treat",
]

# The mark and the lines below it that hold nothing but links, as `course badges` writes them.
_BADGES = re.compile(
    r"^<!-- badges -->[ \t]*\n?((?:[ \t]*\[[^\]\n]+\]\(https://\S+\)(?: ·)?[ \t]*(?:\n|\Z))*)", re.MULTILINE
)
_BADGE = re.compile(r"\[([^\]\n]+)\]\((https://\S+)\)")
# The site has the notebook itself to download.
_RAW_FILE = "https://raw.githubusercontent.com/"
_TITLE = re.compile(r"^# .*$", re.MULTILINE)
_MARKS = re.compile(r"^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*(?:\n|\Z)", re.MULTILINE)
_BEGIN = "### BEGIN SOLUTION"
# `answer = ...  # a number`, which the solution below it overwrites
_PLACEHOLDERS = re.compile(r"^(?:[\w, ]+ = \.\.\.[^\n]*\n)+(?=### BEGIN SOLUTION)", re.MULTILINE)


@dataclass(frozen=True)
class Link:
    """Where a notebook can be opened: a text such as ``Open in Colab``, and the address."""

    text: str
    url: str


@dataclass(frozen=True)
class Figure:
    """A picture that a notebook shows: the file's name, its content, and the description."""

    name: str
    png: bytes = field(repr=False)
    alt: str


@dataclass
class Treated:
    """What treating a notebook brought to light.

    Attributes:
        figures: the pictures it shows, in order.
        links: where it can be opened, from its badges.
        folds: how many solutions stand behind a fold.
    """

    figures: list[Figure] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    folds: int = 0


def treat(
    notebook: Any, *, figures: str, links: Iterable[Link] = (), source: Any = None, solved: bool = False
) -> Treated:
    """Turn an executed notebook, in place, into what its page shows.

    Args:
        notebook: an nbformat-4 notebook.
        figures: address of the folder of its pictures, as its page sees it, e.g. ``"../figures/03_batchnorm"``.
        links: where it can be opened, for a notebook without badges.
        source: the notebook's text source, read but not prepared; its solutions appear folded. ``None``: no solutions.
        solved: the notebook holds the solutions of a homework itself; they are folded where they stand.
    """
    treated = Treated(links=take_badges(notebook) or list(links))
    hide_bootstrap(notebook)
    if source is not None:
        treated.folds += fold_solutions(notebook, source)
    if solved:
        treated.folds += fold_solution_cells(notebook)
    claims = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if CLAIM_TYPE in data:
                claims += 1
                _keep_html(output, f'<div class="course-box" id="{claim_anchor(claims)}">{data["text/html"]}</div>')
            elif VERDICT_TYPE in data or _is_own_box(data):
                _keep_html(output, f'<div class="course-box">{data["text/html"]}</div>')
            elif "text/html" in data:
                # An empty heading is announced as a heading; above the row labels there is none.
                data["text/html"] = data["text/html"].replace("<th></th>", "<td></td>")
            elif "image/png" in data:
                facts = output.get("metadata", {}).get("image/png", {})
                alt = str(facts.get("alt") or str(data.get("text/plain", "")).removeprefix("Figure: "))
                png = base64.b64decode(data["image/png"])
                treated.figures.append(Figure(f"{len(treated.figures) + 1:02d}.png", png, alt))
                _keep_html(output, _figure_html(treated.figures[-1], figures, facts.get("width")))
    return treated


def claim_anchor(number: int) -> str:
    """Return the id of a lesson's ``number``-th claim (from 1) on its page."""
    return f"claim-{number}"


def take_badges(notebook: Any) -> list[Link]:
    """Take the row of badges out of the notebook, in place, and return where they lead, but for the download.

    The row follows ``<!-- badges -->``, a link a line.
    """
    links: list[Link] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for row in _BADGES.findall(cell.source):
                links += [Link(text, url) for text, url in _BADGE.findall(row) if not url.startswith(_RAW_FILE)]
            cell.source = _BADGES.sub("", cell.source)
    return links


def launch_row(links: Iterable[Link]) -> str:
    """Return the links as one paragraph of HTML."""
    anchors = [f'<a class="launch" href="{html.escape(link.url)}">{html.escape(link.text)}</a>' for link in links]
    return f'<p class="launch-row">{" ".join(anchors)}</p>' if anchors else ""


def insert_after_title(notebook: Any, markdown: str) -> None:
    """Put a paragraph behind the notebook's title, in place; at its beginning if it has none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (title := _TITLE.search(cell.source)):
            cell.source = f"{cell.source[: title.end()]}\n\n{markdown}\n{cell.source[title.end() :]}"
            return
    notebook.cells.insert(0, _markdown_cell(markdown))


def retitle(notebook: Any, old: str, new: str) -> None:
    """Change the beginning of the notebook's title, in place, so that two pages can be told apart."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (title := _TITLE.search(cell.source)):
            changed = title.group().replace(f"# {old}", f"# {new}", 1)
            cell.source = cell.source[: title.start()] + changed + cell.source[title.end() :]
            return


def hide_bootstrap(notebook: Any) -> None:
    """Remove the cell that installs the package in Colab from the page: a reader has nothing to install."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and "google.colab" in cell.source and "pip" in cell.source:
            _tag(cell, "remove-cell")


def fold_solutions(notebook: Any, source: Any) -> int:
    """Insert the solutions of a lesson's source behind closed folds, in place, and return how many.

    The fold stands behind the check, that is, at the end of the run of code cells in which the stub stands. The
    cells themselves stay as they are. A solution whose stub is not found (the notebook is stale) is left out.
    """
    solutions = _solutions(source)
    folded: list[Any] = []
    waiting: list[str] = []
    count = 0

    def give() -> None:
        nonlocal count
        if waiting:
            folded.append(_markdown_cell(_fold("\n\n\n".join(waiting))))
            count += len(waiting)
            waiting.clear()

    for cell in notebook.cells:
        if cell.cell_type != "code":
            give()
        folded.append(cell)
        if cell.cell_type == "code" and cell.source in solutions:
            waiting.append(solutions[cell.source])
    give()
    notebook.cells[:] = folded
    return count


def fold_solution_cells(notebook: Any) -> int:
    """Put the solutions in a solved homework behind closed folds, in place, without their marks; return how many."""
    folded: list[Any] = []
    count = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and _BEGIN in cell.source:
            count += 1
            folded.append(_markdown_cell(_fold(_solved(cell.source))))
            if not cell.outputs:
                continue
            _tag(cell, "remove-input")
        folded.append(cell)
    notebook.cells[:] = folded
    return count


def _solutions(source: Any) -> Mapping[str, str]:
    """The solved cells of a source without their marks, by the text that the cell has as a stub."""
    import copy

    from course_utils.authoring.build import prepare

    stubs = copy.deepcopy(source)
    prepare(stubs, "lesson")
    return {
        stub.source: _solved(cell.source)
        for stub, cell in zip(stubs.cells, source.cells, strict=True)
        if cell.cell_type == "code" and _BEGIN in cell.source
    }


def _solved(code: str) -> str:
    """A solved cell without the marks around its solution."""
    return _MARKS.sub("", _PLACEHOLDERS.sub("", code)).rstrip("\n")


def _fold(code: str) -> str:
    return f'<details class="solution"><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>'


def _markdown_cell(text: str) -> Any:
    import nbformat

    return nbformat.v4.new_markdown_cell(text)  # type: ignore[no-untyped-call]


def _tag(cell: Any, tag: str) -> None:
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), tag]


def _keep_html(output: Any, text: str) -> None:
    """Leave one form of an output, so that no renderer has to choose."""
    output["data"] = {"text/html": text}
    output["metadata"] = {}


def _is_own_box(data: Mapping[str, Any]) -> bool:
    return str(data.get("text/html", "")).startswith('<div style="background:#F4F7F6')


def _figure_html(figure: Figure, folder: str, shown: int | None) -> str:
    width, height = _size(figure.png)
    shown = shown or width
    # The size reserves the place, so that a page does not jump while its pictures arrive.
    size = f'width="{shown}" height="{round(shown * height / width)}"'
    alt, address = html.escape(figure.alt), html.escape(f"{folder}/{figure.name}")
    # The caption repeats the description for those who see; a screen reader shall not say it twice.
    return (
        f'<figure class="course-figure"><img src="{address}" alt="{alt}" {size} loading="lazy" decoding="async">'
        f'<figcaption aria-hidden="true">{alt}</figcaption></figure>'
    )


def _size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, from its first chunk."""
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)
