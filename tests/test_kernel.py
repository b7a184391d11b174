"""The client of kernels looks again for messages that it was not told of."""

from __future__ import annotations

import asyncio
from queue import Empty
from typing import Any

import pytest

from course_utils.authoring import kernel as _kernel


class Socket:
    """Says that nothing is there for a while, whatever time it is given; remembers that time in milliseconds."""

    def __init__(self, n_missed: float) -> None:
        self.n_missed = n_missed
        self.waits: list[int] = []

    async def poll(self, timeout: int | None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        await asyncio.sleep(timeout / 1000)
        return len(self.waits) > self.n_missed


def channel(socket: Socket) -> Any:
    cls: Any = _kernel.patient_client().shell_channel_class.klass
    made = cls.__new__(cls)  # without a real socket
    made.socket = socket

    async def receive() -> str:
        return "the message"

    made._recv = receive
    return made


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernel, "_LOOK_AGAIN", 0.01)


@pytest.mark.parametrize("timeout", [300, None])
def test_a_message_that_was_missed_is_found_long_before_the_time_is_up(timeout: float | None) -> None:
    socket = Socket(n_missed=2)
    assert asyncio.run(channel(socket).get_msg(timeout)) == "the message"
    assert socket.waits == [10, 10, 10]


def test_without_a_message_it_waits_no_longer_than_it_was_told() -> None:
    socket = Socket(n_missed=float("inf"))
    with pytest.raises(Empty):
        asyncio.run(channel(socket).get_msg(0.025))
    assert len(socket.waits) <= 3
    assert sum(socket.waits) <= 26


def test_a_real_kernel_answers_through_it() -> None:
    client = _kernel.patient_client()()
    assert type(client).shell_channel_class.klass is type(client).iopub_channel_class.klass
