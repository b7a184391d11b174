"""Run a submission to its end, whatever it does: endless loops, crashes, floods of output."""

from __future__ import annotations

import ast
import contextlib
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from course_utils._validation import check_positive
from course_utils.authoring.kernel import KERNEL_ENVIRONMENT, kernel_manager
from course_utils.grading.repair import is_test

__all__ = ["STOPPED", "Limits", "execute", "trusted_names"]

# The name under which an output says that a cell was not run to its end.
STOPPED = "Stopped"

_MAX_KERNELS = 4  # for one submission: each cell that ends its kernel costs one
_TEXT, _DATA = 20_000, 2_000_000  # characters that a cell may print, and show as figures
_CUT = f"\n… (cut here: a cell shows the first {_TEXT:,} characters)\n"
_PATIENCE = 3.0  # seconds for a kernel to heed an interrupt
_TIMED_OUT = "timed out"  # in the reply that stands for one that did not come
_NEVER_COPIED = shutil.ignore_patterns(
    "*.ipynb", "hidden_checks*", "course_utils", "__pycache__", ".ipynb_checkpoints", "._*", "__MACOSX"
)


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        cell: seconds for one cell.
        notebook: seconds for all cells together.
        memory: gigabytes for the kernel; enforced on Linux.
    """

    cell: float = 30.0
    notebook: float = 300.0
    memory: float = 4.0

    def __post_init__(self) -> None:
        for name in ("cell", "notebook", "memory"):
            check_positive(getattr(self, name), name)


def trusted_names(released: Any) -> str:
    """Return the release's imports of checks, to be run again before each check.

    A student's own ``check_relu`` or ``require`` would else take the place of the course's.
    """
    lines = []
    for cell in released.cells:
        if cell.cell_type != "code":
            continue
        with contextlib.suppress(SyntaxError):  # a line for IPython, as %pip install
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.ImportFrom) and (
                    (node.module or "").startswith("course_utils.homework")
                    or any(alias.name.startswith("check_") for alias in node.names)
                ):
                    lines.append(ast.unparse(node))
    return "\n".join(dict.fromkeys(lines))


async def execute(notebook: Any, *, files: Path, hidden: Path, trusted: str, limits: Limits, threads: int = 1) -> str:
    """Run all code cells, in place, and return what ended a cell before its time, in a sentence; empty if nothing did.

    A cell that ends its kernel is left out, and the others run again without it.

    Args:
        notebook: from `repair`.
        files: the submission's folder; its other files are copied beside the notebook.
        hidden: the folder of the modules that hidden tests import.
        trusted: from `trusted_names`.
        limits: of time and memory.
        threads: for the kernel's numerical libraries.
    """
    attempt = _Attempt(notebook, files, hidden, trusted, limits, threads, time.monotonic() + limits.notebook)
    for _ in range(_MAX_KERNELS):
        if await attempt.run():
            break
    else:
        rest = f"{_MAX_KERNELS} cells ended their process: the rest was not run"
        for place in range(max(attempt.fatal), len(notebook.cells)):
            attempt.give_up(place, rest)
    return "; ".join(attempt.sentences)


@dataclass
class _Attempt:
    """What `execute` keeps from one kernel to the next; ``fatal`` holds, by place, the cells that ended one."""

    notebook: Any
    files: Path
    hidden: Path
    trusted: str
    limits: Limits
    threads: int
    deadline: float
    fatal: dict[int, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)

    async def run(self) -> bool:
        """Run the notebook in a kernel of its own; return whether it came to the end."""
        self.sentences = list(self.fatal.values())
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            with contextlib.suppress(OSError):  # a pipe, a link to nowhere: the other files are copied all the same
                shutil.copytree(self.files, folder, dirs_exist_ok=True, ignore=_NEVER_COPIED, symlinks=True)
            async with _kernel(self.notebook, folder, self.threads) as client:
                await _quietly(client, _LIMITS.format(memory=int(self.limits.memory * 1e9)), seconds=30)
                for place, cell in enumerate(self.notebook.cells):
                    if cell.cell_type != "code" or not cell.source.strip():
                        continue
                    left = self.deadline - time.monotonic()
                    if place in self.fatal:
                        cell.outputs = [_error(self.fatal[place])]
                    elif left <= 0:
                        self.give_up(place, f"the notebook took longer than {self.limits.notebook:g} s in all: not run")
                    elif says := await self._run_cell(client, place, cell, min(self.limits.cell, left)):
                        self.fatal[place] = says
                        return False
        return True

    async def _run_cell(self, client: Any, place: int, cell: Any, seconds: float) -> str:
        """Return how the cell ended its kernel, or nothing if it did not."""
        from nbclient.exceptions import DeadKernelError

        client.timeout = math.ceil(seconds)  # nbclient takes whole seconds alone
        try:
            if is_test(cell):
                prepare = _PREPARE_TEST.format(folder=str(self.hidden))
                if not await _quietly(client, prepare + self.trusted, seconds=seconds):
                    raise DeadKernelError
            await client.async_execute_cell(cell, place)
        except DeadKernelError:
            return f"{_called(cell)} ended its process: exit(), a crash, or too little memory"
        if client.reply.get(_TIMED_OUT):
            says = f"{_called(cell)} was still running after {seconds:.3g} s: is there a loop that never ends?"
            if not await _quietly(client, "", seconds=_PATIENCE):
                return says
            self.give_up(place, says)
        elif client.reply["status"] != "ok" and not any(output.output_type == "error" for output in cell.outputs):
            # An error's output may be late, or be lost in a flood of prints.
            ename, evalue = client.reply.get("ename", client.reply["status"]), client.reply.get("evalue", "")
            cell.outputs.append(_error(f"{ename}: {evalue}"[:2000]))
        if is_test(cell):
            # nbgrader gives no points to a check that wrote to stderr, and a warning from NumPy is enough for that.
            for output in cell.outputs:
                if output.output_type == "stream":
                    output["name"] = "stdout"
        return ""

    def give_up(self, place: int, says: str) -> None:
        """Mark a cell as not run to its end."""
        cell = self.notebook.cells[place]
        if cell.cell_type == "code":
            cell.outputs = [*(output for output in cell.outputs if output.output_type != "error"), _error(says)]
            if says not in self.sentences:
                self.sentences.append(says)


_LIMITS = """
try:
    import resource as _limits
    _limits.setrlimit(_limits.RLIMIT_DATA, ({memory}, {memory}))
    _limits.setrlimit(_limits.RLIMIT_FSIZE, (10**9, 10**9))
    _limits.setrlimit(_limits.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass
finally:
    globals().pop("_limits", None)
"""
# A submission may hold a hidden_checks of its own, as a file or as a module made up at run time.
_PREPARE_TEST = """
__import__("sys").modules.pop("hidden_checks", None)
__import__("sys").path[:] = [{folder!r}, *(p for p in __import__("sys").path if p != {folder!r})]
"""


def _error(says: str) -> Any:
    import nbformat.v4 as v4

    return v4.new_output("error", ename=STOPPED, evalue=says, traceback=[says])  # type: ignore[no-untyped-call]


def _called(cell: Any) -> str:
    name = cell.metadata.get("nbgrader", {}).get("grade_id")
    return f"the cell {name or repr(cell.source.strip().partition(chr(10))[0][:60])}"


async def _quietly(client: Any, code: str, *, seconds: float) -> bool:
    """Run code without output, and return whether the kernel answered (an error is an answer)."""
    sent = client.kc.execute(code, silent=True, store_history=False, stop_on_error=False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            message = await client.kc.shell_channel.get_msg(timeout=0.5)
        except Empty:
            if not await client.km.is_alive():
                return False
            continue
        if message["parent_header"].get("msg_id") == sent:
            return True
    return False


@contextlib.asynccontextmanager
async def _kernel(notebook: Any, folder: str, threads: int) -> AsyncIterator[Any]:
    """A client of a new kernel of this interpreter; in the end the kernel and all it started are killed."""
    environment = {
        **KERNEL_ENVIRONMENT,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as private:
        manager = kernel_manager(private)
        await manager.start_kernel(env={**os.environ, **environment, "IPYTHONDIR": private}, cwd=folder)
        group = getattr(manager.provisioner, "pgid", None)
        client = _client(notebook, manager)
        try:
            await client.async_start_new_kernel_client()
            yield client
        finally:
            if group and hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
            if client.kc is not None:
                client.kc.stop_channels()
            await manager.shutdown_kernel(now=True)


def _client(notebook: Any, manager: Any) -> Any:
    from nbclient import NotebookClient

    class Client(NotebookClient):
        """Keeps no more of a cell's output than a reader wants to see, while it comes in."""

        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            kind, content = msg["msg_type"], msg["content"]
            if cell_index != self.place:
                self.place, self.text, self.data = cell_index, _TEXT, _DATA
            if kind.startswith("comm"):
                return None
            if kind == "stream":
                if self.text <= 0:
                    return None
                text, left = content["text"], self.text
                self.text -= len(text)
                content["text"] = text if self.text > 0 else text[:left] + _CUT
            elif kind == "error":
                content["evalue"] = content["evalue"][:2000]
                if sum(map(len, content["traceback"])) > _TEXT:
                    content["traceback"] = [f"{content['ename']}: {content['evalue']}"]
            elif "data" in content:
                self.data -= len(str(content["data"]))
                if self.data <= 0:
                    return None
            return super().process_message(msg, cell, cell_index)

        place = text = data = -1
        reply: Any = None  # to the last cell

    def remember(execute_reply: Any, **_: Any) -> None:
        client.reply = execute_reply["content"]

    client = Client(
        notebook,
        km=manager,
        startup_timeout=120,
        allow_errors=True,
        # With these two nbclient ends what it began for a cell that takes too long; its own time-out leaves the task
        # that reads the output behind.
        interrupt_on_timeout=True,
        error_on_timeout={_TIMED_OUT: True},
        record_timing=False,
        coalesce_streams=True,
        on_cell_executed=remember,
    )
    return client
