"""Kernels and their client: no message is slept through, and a cell that times out leaves nothing behind."""

# nbformat is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import pytest
import zmq.asyncio
from jupyter_client.session import Session
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.authoring.build import Target, build_notebook
from course_utils.authoring.kernel import kernel_client
from course_utils.grading.execution import Limits, execute

# The second hears no interrupt, so that its kernel has to be killed while it prints.
TOO_LONG = {
    "sleeps": "import time\ntime.sleep(100)",
    "prints on": "while True:\n  try:\n    while True:\n      print(1)\n  except BaseException:\n    pass",
}


def test_a_reply_that_came_just_before_a_send_is_seen_at_once(tmp_path: Path) -> None:
    """As nbclient sends for an output widget, on the socket on which it waits for the reply."""

    async def receive() -> str:
        session, address = Session(), f"ipc://{tmp_path / 'socket'}"
        with (
            zmq.asyncio.Context() as context,
            context.socket(zmq.ROUTER) as kernel,
            context.socket(zmq.DEALER) as shell,
        ):
            kernel.bind(address)
            shell.setsockopt(zmq.IDENTITY, b"us")
            shell.connect(address)
            channel = kernel_client().shell_channel_class.klass(shell, session)
            channel.send(session.msg("execute_request"))
            waiting = asyncio.create_task(channel.get_msg())
            await asyncio.sleep(0.2)
            session.send(kernel, "execute_reply", ident=b"us")
            time.sleep(0.2)  # so that it has come before this task gives way
            channel.send(session.msg("comm_msg"))
            message = await asyncio.wait_for(waiting, timeout=20)
            return str(message["msg_type"])

    assert asyncio.run(receive()) == "execute_reply"


@pytest.mark.slow
@pytest.mark.parametrize("source", TOO_LONG.values(), ids=TOO_LONG)
def test_a_cell_that_times_out_in_a_build_leaves_nothing(
    source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from jupyter_core.utils import ensure_event_loop

    path = tmp_path / "01_a.py"
    path.write_text(f"# %%\n{source}\n")

    outcome = build_notebook(Target("01_a", path, path.with_suffix(".ipynb")), timeout=2)

    assert outcome.message.endswith("took longer than the 2 s that one cell may take")
    assert not asyncio.all_tasks(ensure_event_loop())
    gc.collect()  # what an abandoned task has to say, it says now
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("source", TOO_LONG.values(), ids=TOO_LONG)
def test_a_cell_that_times_out_in_a_submission_leaves_nothing_and_the_others_run(
    source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in ("print(0)", source, "print(2)\n1 / 0", "print(3)")])

    async def tasks_left() -> list[object]:
        limits = Limits(cell=2, notebook=60)
        says = await execute(notebook, files=tmp_path, hidden=tmp_path, trusted="", limits=limits)
        assert "was still running after 2 s" in says
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert not asyncio.run(tasks_left())
    assert [notebook.cells[place].outputs[0].text for place in (0, 2, 3)] == ["0\n", "2\n", "3\n"]
    assert notebook.cells[2].outputs[1].ename == "ZeroDivisionError"
    assert notebook.cells[1].outputs[-1].ename == "Stopped"
    gc.collect()
    assert capfd.readouterr().err == ""
