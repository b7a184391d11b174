"""Bring a submission back into the shape of its release, so that nothing is lost that the student wrote.

nbgrader finds cells by metadata alone: where Colab or a student's editor dropped it, it gives zero points and no error.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = [
    "Repaired",
    "UnreadableError",
    "find_submission",
    "is_test",
    "read_notebook",
    "read_submission",
    "repair",
    "template",
    "unpack",
    "write_notebook",
]

_MIN_SIMILARITY = 0.6
_COMPARED = 1500  # characters; the ratio's time grows with the square
_MAX_BYTES = 100_000_000
# A notebook's name, whatever a browser or Windows has put behind it.
_NOTEBOOK = re.compile(r"\.ipynb(?:\s*\(\d+\))?(?:\.(?:json|txt))?$", re.IGNORECASE)
_ADDED = re.compile(
    r"\.(?:ipynb|json|txt)$"
    r"|\s*[(\[]\d+[)\]]$"  # the second download
    r"|[-_ ]+(?:copy|kopie)(?:[-_ ]*\d+)?$|^copy[-_ ]of[-_ ]+|^kopie[-_ ]von[-_ ]+"  # Jupyter, Colab, Windows, macOS
)
_NO_PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="200" height="40"><text y="25">this picture is not there</text></svg>"""
_DEFINED = re.compile(r"^(?:def|class)\s+(\w+)|^(\w+)\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE)


class UnreadableError(Exception):
    """No notebook can be read from what was handed in; the message is a sentence about it."""


@dataclass(frozen=True)
class Repaired:
    """A submission in the shape of its release.

    Attributes:
        notebook: the release's cells in their order, with the student's solutions; the student's own cells between.
        notes: what had to be repaired, a clause each; empty if nothing.
    """

    notebook: Any
    notes: list[str]


def find_submission(folder: Path, name: str, released: Any = None) -> tuple[Path, str]:
    """Return the notebook in a submission's folder, and a note if it is not called as it should be.

    Browsers, editors and archives rename and move files: ``hw1 (1).ipynb``, ``Copy of hw1.ipynb``, ``HW1.ipynb.json``,
    a folder in the folder, a second file for a Mac's attributes. The best name counts, then how many cells of the
    homework a file has, then how close to the folder it stands.

    Args:
        folder: ``submitted/STUDENT/HOMEWORK``.
        name: of the homework.
        released: what students got; ``None`` to go by the names alone.

    Raises:
        UnreadableError: there is none, or there are several and none is better than the others.
    """
    expected = folder / f"{name}.ipynb"
    if expected.is_file():
        return expected, ""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_litter(path, folder)]
    wanted = _bare(name)
    found = [path for path in files if _NOTEBOOK.search(path.name) or _bare(path.name) == wanted]
    if not found:
        names = [path.relative_to(folder).as_posix() for path in files[:5]]
        there = f"there are only: {', '.join(names)}" if names else "the folder is empty"
        raise UnreadableError(f"no notebook was handed in; {there}" if folder.is_dir() else "nothing was handed in")

    def rank(path: Path) -> tuple[Any, ...]:
        bare = _bare(path.name)
        names = path.name != expected.name, bare != wanted, wanted not in bare
        return *names, -_count_cells(path, released), len(path.parts)

    found.sort(key=rank)
    best = [path for path in found if rank(path) == rank(found[0])]
    if len({path.read_bytes() for path in best}) > 1:
        names = [path.relative_to(folder).as_posix() for path in best[:5]]
        raise UnreadableError(f"there are several notebooks ({', '.join(names)}): it is not clear which one counts")
    return found[0], f"the file was called {found[0].relative_to(folder).as_posix()}"


def unpack(folder: Path, scratch: Path) -> Path:
    """Return the folder of a submission, or ``scratch`` with what is in its ZIP file, if it was handed in as one.

    Raises:
        UnreadableError: the archive is damaged, has a password, or is too large.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_litter(path, folder)]
    archives = [path for path in files if path.suffix.lower() == ".zip"]
    if len(archives) != 1 or any(_NOTEBOOK.search(path.name) for path in files):
        return folder
    try:
        with zipfile.ZipFile(archives[0]) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
                raise UnreadableError(f"{archives[0].name} holds more than {_MAX_BYTES / 1e6:.0f} MB")
            archive.extractall(scratch)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UnreadableError(f"{archives[0].name} cannot be unpacked: {error}") from None
    return scratch


def _is_litter(path: Path, folder: Path) -> bool:
    """Hidden files, Jupyter's checkpoints, and the second file that a Mac packs for each one."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def _bare(name: str) -> str:
    """The name without what browsers, editors and systems add to it, to be compared."""
    bare, before = name.casefold(), ""
    while bare != before:
        before = bare
        bare = _ADDED.sub("", bare)
    return re.sub(r"[\s_-]+", "_", bare)


def _count_cells(path: Path, released: Any) -> int:
    """How many of the homework's cells a file mentions, by their ids or nbgrader's."""
    if released is None or path.stat().st_size > _MAX_BYTES:
        return 0
    text = path.read_text(encoding="utf-8", errors="replace")
    marks = [(cell.get("id"), _grade_id(cell)) for cell in released.cells]
    return sum(any(mark and f'"{mark}"' in text for mark in both) for both in marks)


def read_submission(path: Path) -> Any:
    """Return a submitted notebook in the present format.

    Raises:
        UnreadableError: it is empty, too large, a link, no JSON, or no notebook.
    """
    import nbformat

    if path.is_symlink():
        raise UnreadableError("the file is a link to another one")
    if path.stat().st_size > _MAX_BYTES:
        raise UnreadableError(
            f"the file has {path.stat().st_size / 1e6:.0f} MB; {_MAX_BYTES / 1e6:.0f} MB is the limit"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise UnreadableError("the file is no text in UTF-8, so no notebook") from None
    if not text.strip():
        raise UnreadableError("the file is empty")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"the file is damaged, it is no valid JSON: {error}") from None
    try:
        notebook = nbformat.from_dict(content)  # type: ignore[no-untyped-call]
        if notebook.get("nbformat", 0) < 4:
            notebook = nbformat.convert(notebook, 4)  # type: ignore[no-untyped-call]
        notebook.cells = [cell for cell in map(_usable, notebook.cells) if cell is not None]
    except Exception:  # whatever a stranger's JSON makes nbformat raise
        raise UnreadableError("the file is JSON, but no notebook") from None
    return notebook


def read_notebook(path: Path) -> Any:
    """Return a notebook of ours."""
    import nbformat

    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook."""
    import nbformat

    path.write_text(nbformat.writes(notebook), encoding="utf-8", newline="\n")  # type: ignore[no-untyped-call]


def _usable(cell: Any) -> Any:
    """A cell with the fields that every cell must have, or ``None`` if it is none."""
    if cell.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    source = cell.get("source", "")
    cell["source"] = "".join(map(str, source)) if isinstance(source, list) else str(source)
    if not isinstance(cell.get("metadata"), dict):
        cell["metadata"] = type(cell)()
    pictures = _usable_pictures(cell.pop("attachments", None))
    if pictures and cell["cell_type"] != "code":
        cell["attachments"] = pictures
    return cell


def _usable_pictures(attachments: Any) -> dict[str, dict[str, str]]:
    """The attachments of a cell that are as nbformat wants them, each a text (base64) by its type."""
    usable = {}
    for name, bundle in attachments.items() if isinstance(attachments, dict) else ():
        if isinstance(bundle, dict):
            texts = {kind: "".join(text) if isinstance(text, list) else text for kind, text in bundle.items()}
            texts = {kind: text for kind, text in texts.items() if isinstance(text, str)}
            if texts:
                usable[name] = texts
    return usable


def is_test(cell: Any) -> bool:
    """Return whether a cell is a locked check that gives points."""
    marks = cell.metadata.get("nbgrader", {})
    return bool(cell.cell_type == "code" and marks.get("grade") and not marks.get("solution"))


def template(source: Any, released: Any) -> Any:
    """Return the notebook that grading runs, before a student's solutions are put in: stubs, and the hidden tests."""
    made = copy.deepcopy(released)
    for cell, full in zip(made.cells, source.cells, strict=True):
        if is_test(cell):
            cell.source = full.source
    return made


def repair(submitted: Any, released: Any, full: Any) -> Repaired:
    """Put a student's cells into the shape of the release.

    Cells are matched by id, then by nbgrader's grade_id, then by text, then by what they define, then by similarity;
    a report whose text is all new, by its place. Checks are restored, solutions and ordinary cells are the student's,
    cells that are missing come from the release. A student's own cells stay behind the cell they followed.

    Args:
        submitted: from `read_submission`; not changed.
        released: what students got.
        full: the same cells with the hidden tests, from `template`.
    """
    theirs = submitted.cells
    match = _match(theirs, released.cells)  # release index -> submitted index
    owner = {place: index for index, place in match.items()}
    made, notes = copy.deepcopy(full), _notes(theirs, released.cells, match)
    followers: dict[int, list[Any]] = {}
    behind = -1
    for place, cell in enumerate(theirs):
        if place in owner:
            behind = owner[place]
        elif cell.source.strip():
            followers.setdefault(behind, []).append(_own_cell(cell, place))
    cells = list(followers.get(-1, []))
    for index, cell in enumerate(made.cells):
        marks = cell.metadata.get("nbgrader", {})
        if index in match and not (marks.get("locked") and not marks.get("solution")):
            _take_over(cell, theirs[match[index]])
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
        cells += [cell, *followers.get(index, [])]
    made.cells = cells
    if missing := _complete_pictures(cells):
        notes.append(f"pictures that are not in the file: {', '.join(dict.fromkeys(missing))}")
    return Repaired(made, notes)


def _own_cell(cell: Any, place: int) -> Any:
    import nbformat.v4 as v4

    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "raw": v4.new_raw_cell}[cell.cell_type]
    own = make(cell.source, id=f"own-{place}")  # type: ignore[no-untyped-call]
    _take_over(own, cell)
    return own


def _take_over(cell: Any, theirs: Any) -> None:
    """Put a student's text, and the pictures pasted into it, into a cell."""
    cell.source = theirs.source
    if cell.cell_type != "code" and "attachments" in theirs:
        cell["attachments"] = theirs.attachments


def _complete_pictures(cells: Sequence[Any]) -> list[str]:
    """Give each text the pictures that it asks for, in place, and return the names of those that are nowhere.

    nbconvert makes no page at all of a notebook in which one is missing. An editor may have dropped it, or the text was
    copied to another cell, or its name stands in the text as a browser writes it (``my%20curve.png``).
    """
    everywhere: dict[str, Any] = {}
    for cell in cells:
        everywhere |= cell.get("attachments", {})
    missing = []
    for cell in cells:
        if cell.cell_type != "markdown" or "attachment:" not in cell.source:
            continue
        own = cell.get("attachments", {})
        for name in _pictures_asked_for(cell.source):
            if name in own:
                continue
            bare = unquote(name)
            found = own.get(bare) or everywhere.get(bare) or everywhere.get(name)
            if found is None:
                missing.append(bare)
            own[name] = found or {"image/svg+xml": b64encode(_NO_PICTURE.encode()).decode()}
        if own:
            cell["attachments"] = own
    return missing


def _pictures_asked_for(text: str) -> list[str]:
    """The names of the attachments that nbconvert looks for when it renders a Markdown text."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Asked(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            self[str(name)] = {"image/png": ""}
            return True

    asked = Asked()
    MarkdownWithMath(renderer=IPythonRenderer(escape=False, attachments=asked)).render(text)
    return list(asked)


def _notes(theirs: Sequence[Any], released: Sequence[Any], match: dict[int, int]) -> list[str]:
    notes = []
    marked = [index for index, cell in enumerate(released) if "nbgrader" in cell.metadata]
    found = [index for index in marked if index in match]
    if marked and not found:
        notes.append("no cell of this homework was found in it")
    if lost := [index for index in found if _grade_id(theirs[match[index]]) is None]:
        notes.append(f"{len(lost)} of {len(marked)} cells had lost their marks")
    changed, missing = [], []
    for index in marked:
        name = _grade_id(released[index]) or ""
        if index not in match:
            missing.append(name)
        elif is_test(released[index]) and _plain(theirs[match[index]].source) != _plain(released[index].source):
            changed.append(name)
    if missing:
        notes.append(f"missing and restored: {', '.join(missing)}")
    if changed:
        notes.append(f"changed and restored: {', '.join(changed)}")
    places = [match[index] for index in sorted(match)]
    if places != sorted(places):
        notes.append("the cells stood in another order")
    return notes


def _match(theirs: Sequence[Any], released: Sequence[Any]) -> dict[int, int]:
    match: dict[int, int] = {}
    taken: set[int] = set()

    def take(index: int, place: int) -> None:
        match[index] = place
        taken.add(place)

    def by_key(key: Callable[[Any], Any]) -> None:
        first: dict[Any, int] = {}
        for place, cell in enumerate(theirs):
            if place not in taken and (value := key(cell)) is not None:
                first.setdefault(value, place)
        for index, cell in enumerate(released):
            if index not in match and (value := key(cell)) in first and value is not None:
                take(index, first.pop(value))

    # Colab moves the id into the metadata.
    by_key(lambda cell: cell.get("id") or cell.metadata.get("id"))
    by_key(_grade_id)
    by_key(lambda cell: (cell.cell_type, _plain(cell.source)) if cell.source.strip() else None)
    by_key(_definitions)
    for index, place in _similar(theirs, released, match, taken):
        take(index, place)
    for index, cell in enumerate(released):
        if index not in match and cell.metadata.get("nbgrader", {}).get("solution"):
            between = _between(index, match, len(theirs), len(released))
            free = [place for place in between if place not in taken and _could_be(theirs[place], cell)]
            if free:
                take(index, max(free, key=lambda place: len(theirs[place].source)))
    return match


def _similar(
    theirs: Sequence[Any], released: Sequence[Any], match: dict[int, int], taken: set[int]
) -> Iterator[tuple[int, int]]:
    """The best pairs first, each cell once."""
    pairs = []
    for index, cell in enumerate(released):
        for place, other in enumerate(theirs):
            if index in match or place in taken or cell.cell_type != other.cell_type:
                continue
            matcher = difflib.SequenceMatcher(None, cell.source[:_COMPARED], other.source[:_COMPARED], autojunk=False)
            if matcher.quick_ratio() >= _MIN_SIMILARITY and (ratio := matcher.ratio()) >= _MIN_SIMILARITY:
                pairs.append((-ratio, index, place))
    used: set[int] = set()
    done: set[int] = set()
    for _, index, place in sorted(pairs):
        if index not in done and place not in used:
            done.add(index)
            used.add(place)
            yield index, place


def _between(index: int, match: dict[int, int], last: int, count: int) -> range:
    """The places between those of the nearest matched neighbours."""
    before = next((match[one] for one in range(index - 1, -1, -1) if one in match), -1)
    after = next((match[one] for one in range(index + 1, count) if one in match), last)
    return range(before + 1, after)


def _could_be(theirs: Any, released: Any) -> bool:
    """A text may be all new; code must define what the check takes, which has been tried already."""
    return bool(theirs.cell_type == released.cell_type == "markdown" and theirs.source.strip())


def _grade_id(cell: Any) -> str | None:
    marks = cell.metadata.get("nbgrader", {})
    return marks.get("grade_id") or None if isinstance(marks, dict) else None


def _definitions(cell: Any) -> Any:
    """What a code cell defines at its margin; checks and set-up cells, which define nothing, have no key."""
    if cell.cell_type != "code":
        return None
    return frozenset(one or other for one, other in _DEFINED.findall(cell.source)) or None


def _plain(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())
