"""Executed notebooks from their text sources."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from course_utils.authoring.kernel import KERNEL_ENVIRONMENT, kernel_manager
from course_utils.authoring.solutions import clear_solutions, drop_hidden_tests, mark_for_nbgrader, verdicts
from course_utils.authoring.targets import (
    BuildError,
    Target,
    find_root,
    homework_targets,
    lesson_targets,
)

__all__ = [
    "MAX_BYTES",
    "BuildError",
    "Outcome",
    "Target",
    "build",
    "build_notebook",
    "find_flaws",
    "find_root",
    "homework_targets",
    "is_stale",
    "lesson_targets",
    "machine_paths",
    "normalize",
    "prepare",
    "read_source",
    "to_text",
    "write_proofs",
]

#: The largest size of an executed notebook, in bytes.
MAX_BYTES = 1_500_000

_TIMEOUT = "the build's time limit"  # no name that an exception can have
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_WIDGET_NOTE = "An interactive control stands here: run this cell to use it."

# The default repr's address, and what `hex(id(...))` prints; shorter numbers (a float's bits) are content.
_ADDRESS = re.compile(r"(?<=\bat )0x[0-9a-fA-F]+|\b0x7[ef][0-9a-f]{10}\b")
# A styled DataFrame draws a random id to hang its CSS on.
_STYLER_ID = re.compile(r"\bT_[0-9a-f]{5}(?=[_\"\s])")
# Not preceded by a letter or a dot, so that the address of a web page does not count.
_PRIVATE_PLACE = re.compile(r"(?<![\w.])/(?:home|root|tmp|Users)/[^\s'\"<>]*|\b[C-Z]:\\{1,2}\w[\w .-]*\\")


@dataclass(frozen=True)
class Outcome:
    """What became of one target.

    Attributes:
        target: the notebook.
        status: ``"built"``, ``"fresh"`` (nothing to do) or ``"failed"``.
        seconds: wall-clock time spent on it.
        size: bytes of the notebook on disk; 0 where there is none.
        message: why it failed, for its author.
    """

    target: Target
    status: str
    seconds: float = 0.0
    size: int = 0
    message: str = ""


def is_stale(target: Target) -> bool:
    """Return whether the notebook is missing or was made from another text.

    Only the text counts. A change of the package does not make a notebook stale: the tests execute every cell again
    (nbval) and so find what such a change breaks, without an hour of rebuilding after each commit.
    """
    try:
        stored = json.loads(target.output.read_text(encoding="utf-8"))["metadata"]["course"]["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return bool(stored != _digest(_read_text(target.source)))


def build(
    targets: Sequence[Target], *, force: bool = False, jobs: int | None = None, timeout: int = 300
) -> Iterator[Outcome]:
    """Build the stale notebooks in parallel; yield each outcome as soon as it is known.

    Args:
        targets: what to look at.
        force: build the fresh ones too.
        jobs: notebooks built at the same time; as many as there are cores when ``None``.
        timeout: seconds one cell may take.
    """
    stale = [target for target in targets if force or is_stale(target)]
    for target in targets:
        if target not in stale:
            yield Outcome(target, "fresh", size=target.output.stat().st_size)
    if not stale:
        return  # and start no process
    # Processes rather than threads, because Ctrl-C reaches each of them and each then ends its own kernel; spawned,
    # because a fork copies locks that the caller's threads may hold.
    workers = min(jobs or os.cpu_count() or 1, len(stale))
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    running: dict[Future[Outcome], Target] = {}
    try:
        while stale or running:
            # Never more than can start at once: what the pool has queued, it would start even after Ctrl-C.
            while stale and len(running) < workers:
                target = stale.pop(0)
                running[pool.submit(build_notebook, target, timeout)] = target
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                target = running.pop(future)
                error = future.exception()  # unforeseen: foreseen ones come as an outcome
                yield _crashed(target, error) if error else future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def build_notebook(target: Target, timeout: int = 300) -> Outcome:
    """Execute one source and replace its notebook; a failure leaves the old notebook as it was.

    Args:
        target: what to build.
        timeout: seconds one cell may take.
    """
    start = time.perf_counter()
    try:
        notebook = read_source(target.source)
        prepare(notebook, target.kind)
        if target.kind != "homework":
            _execute(notebook, timeout)
        normalize(notebook)
        if flaws := find_flaws(notebook) + _unexpected_verdicts(notebook, target.kind):
            raise BuildError("\n".join(flaws))
        size = _write(notebook, target.output)
    except BuildError as error:
        return Outcome(target, "failed", time.perf_counter() - start, message=str(error))
    return Outcome(target, "built", time.perf_counter() - start, size)


def write_proofs(targets: Sequence[Target], folder: Path) -> list[Path]:
    """Write each lesson, not executed, with its exercises solved behind it; return the files, for nbval to execute.

    So one execution shows both: the lesson as the student has it, where no exercise has been attempted yet, and that
    every check then accepts the solution of the source.

    Args:
        targets: lessons.
        folder: emptied first.
    """
    import nbformat

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = []
    for target in targets:
        notebook, solved = read_source(target.source), read_source(target.source)
        first = next(index for index, cell in enumerate(solved.cells) if "### BEGIN SOLUTION" in cell.source)
        prepare(notebook, "lesson")
        module = f"lesson_{target.source.stem[:2]}"
        imports = f"from course_utils.homework import {module}, progress"
        untouched = f'{imports}\n\nassert set(progress({module}).statuses.values()) == {{"todo"}}, progress({module})'
        all_right = f'assert set(progress({module}).statuses.values()) == {{"right"}}, progress({module})'
        notebook.cells.append(nbformat.v4.new_code_cell(untouched))  # type: ignore[no-untyped-call]
        notebook.cells += [cell for cell in solved.cells[first:] if cell.cell_type == "code"]
        notebook.cells.append(nbformat.v4.new_code_cell(all_right))  # type: ignore[no-untyped-call]
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
        paths.append(folder / f"{target.source.stem}.ipynb")
        nbformat.write(notebook, paths[-1])  # type: ignore[no-untyped-call]
    return paths


def read_source(path: Path, text: str | None = None) -> Any:
    """Return the unexecuted notebook (nbformat 4.5) of a py:percent text, with the course's metadata.

    Args:
        path: of the source.
        text: to be read in place of what the file holds.

    Raises:
        BuildError: the text is not UTF-8, or jupytext cannot read it.
    """
    import jupytext

    try:
        text = _read_text(path) if text is None else text
        notebook = jupytext.reads(text, fmt="py:percent")
    except ValueError as error:
        raise BuildError(f"cannot read {path.name}: {error}") from error
    notebook.metadata.clear()
    notebook.metadata.update(
        {
            "course": {"source": path.name, "source_sha256": _digest(text)},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def prepare(notebook: Any, kind: str) -> None:
    """Make, in place, what a kind of `Target` shows of a source: stubs or solutions, and never the hidden tests.

    Raises:
        BuildError: a mark in the source has no other half, or contradicts another.
    """
    try:
        drop_hidden_tests(notebook)
        if kind in ("homework", "solution"):
            mark_for_nbgrader(notebook)
        if kind in ("lesson", "homework"):
            clear_solutions(notebook)
    except ValueError as error:
        raise BuildError(str(error)) from error


def _unexpected_verdicts(notebook: Any, kind: str) -> list[str]:
    """A fresh lesson has attempted nothing; in a solved notebook every check accepts."""
    expected = "todo" if kind == "lesson" else "right"
    found = [verdict for verdict in verdicts(notebook) if verdict["status"] != expected]
    return [f"{verdict['exercise']}: {verdict['status']}, not {expected}: {verdict['message']}" for verdict in found]


def to_text(notebook: Any) -> str:
    """Return what the file of a notebook holds."""
    import nbformat

    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return text.rstrip("\n") + "\n"


def normalize(notebook: Any) -> None:
    """Take everything out of an executed notebook, in place, that differs from one run to the next.

    Cell ids follow from the cells' content, memory addresses become ``0x…``, execution times go, and widget views
    (they point to a state that ends with the kernel) give way to the picture beside them, or to a sentence.
    """
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        content = f"{cell.cell_type}\n{cell.source}"
        seen[content] += 1
        cell["id"] = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:12]
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            _normalize_output(output, cell["id"])


def find_flaws(notebook: Any) -> list[str]:
    """Return what forbids publishing an executed notebook: one line per flaw, naming the cell.

    Errors, text on stderr (warnings, progress bars), paths of this machine, and a size above `MAX_BYTES` are flaws.
    """
    flaws = []
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            where = _place(notebook, index)
            if output.output_type == "error":
                flaws.append(f"{where}: {output.ename}: {_shorten(output.evalue)}")
            elif output.output_type == "stream" and output.name == "stderr" and output.text.strip():
                flaws.append(f"{where}: writes to stderr, a warning perhaps: {_shorten(output.text)}")
            else:
                found = sorted({path for text in _texts(output) for path in machine_paths(text)})
                flaws += [f"{where}: the output shows a path of this machine: {path}" for path in found]
    size = len(to_text(notebook).encode())
    if size > MAX_BYTES:
        flaws.append(f"{_megabytes(size)} is above {_megabytes(MAX_BYTES)}; largest: {_largest_outputs(notebook)}")
    return flaws


def machine_paths(text: str) -> list[str]:
    """Return the paths in ``text`` that belong to one machine or its user, each once."""
    found = [match.group() for match in _PRIVATE_PLACE.finditer(text)]
    own = {Path.home(), Path(sys.prefix), Path(tempfile.gettempdir()), Path(__file__).resolve().parents[2]}
    for folder in own:
        if len(folder.parts) > 1:  # a user without a home has "/"
            found += re.findall(rf"(?<![\w.]){re.escape(str(folder))}(?!\w)[^\s'\"<>]*", text)
    return sorted(set(found))


def _crashed(target: Target, error: BaseException) -> Outcome:
    return Outcome(target, "failed", message=f"the build itself failed: {type(error).__name__}: {error}")


def _execute(notebook: Any, timeout: int) -> None:
    """Run all cells, in place, in a kernel of this interpreter whose folder is empty, as a fresh Colab's is."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    running = 0

    def remember(cell_index: int, **_: Any) -> None:
        nonlocal running
        running = cell_index

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as private:
        client = NotebookClient(
            notebook,
            km=kernel_manager(private),
            timeout=timeout,
            # With these two nbclient ends what it began for a cell that takes too long; its own time-out leaves the
            # task that reads the output behind.
            interrupt_on_timeout=True,
            error_on_timeout={"ename": _TIMEOUT, "evalue": "", "traceback": []},
            startup_timeout=120,
            resources={"metadata": {"path": folder}},
            coalesce_streams=True,  # how print's text is cut into messages is a matter of timing
            force_raise_errors=True,
            record_timing=False,
            shutdown_kernel="immediate",
            on_cell_start=remember,
        )
        try:
            # An empty profile, so that the author's start-up files take no part.
            environment = {**os.environ, **KERNEL_ENVIRONMENT, "IPYTHONDIR": private}
            client.execute(env=environment, cleanup_kc=True)
        except CellExecutionError as error:
            message = f"{error.ename}: {_shorten(error.evalue)}"
            if error.ename == _TIMEOUT:
                message = f"took longer than the {timeout} s that one cell may take"
        except DeadKernelError:
            message = "the kernel died (out of memory, or stopped from outside)"
        else:
            return
    raise BuildError(f"{_place(notebook, running)}: {message}")


def _normalize_output(output: Any, cell_id: str) -> None:
    if output.output_type == "stream":
        output["text"] = _ADDRESS.sub("0x…", output.text)
    data = output.get("data", {})
    if "image/png" in data and str(data.get("text/html", "")).startswith("<img "):
        del data["text/html"]  # the same picture again, which live front ends need for its alternative text
    if data.pop(_WIDGET_VIEW, None) is not None and "image/png" not in data:
        data["text/plain"] = _WIDGET_NOTE
    styler_ids: dict[str, str] = {}
    for mime, value in data.items():
        if _is_text(mime, value):
            value = _ADDRESS.sub("0x…", value)
            data[mime] = _STYLER_ID.sub(
                lambda match: styler_ids.setdefault(match.group(), f"T_{cell_id}_{len(styler_ids)}"), value
            )


def _texts(output: Any) -> Iterator[str]:
    """The parts of an output that a reader can read; an image's base64 is none."""
    if output.output_type == "stream":
        yield output.text
    for mime, value in output.get("data", {}).items():
        if not isinstance(value, str):
            yield json.dumps(value)
        elif _is_text(mime, value):
            yield value


def _is_text(mime: str, value: object) -> bool:
    return isinstance(value, str) and (mime == "image/svg+xml" or not mime.startswith(("image/", "audio/", "video/")))


def _place(notebook: Any, index: int) -> str:
    """Name a cell as JupyterLab numbers it, and by its first line."""
    number = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells[: index + 1])
    return f"code cell {number} ({notebook.cells[index].source.strip().partition(chr(10))[0]})"


def _shorten(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]} …"


def _largest_outputs(notebook: Any) -> str:
    sizes = [
        (len(json.dumps(cell.outputs)), _place(notebook, index))
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
    ]
    return "; ".join(f"{_megabytes(size)} from {place}" for size, place in sorted(sizes, reverse=True)[:3])


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")  # universal newlines: a Windows checkout gives the same text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(notebook: Any, path: Path) -> int:
    """Replace the file in one step and return its size; a reader sees the old notebook or the new one."""
    import nbformat

    nbformat.validate(notebook)
    content = to_text(notebook).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.tmp")
    try:
        half.write_bytes(content)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return len(content)
