"""A client of Jupyter kernels that does not sleep through a message."""

from __future__ import annotations

import math
import time
from functools import cache
from queue import Empty
from typing import Any

__all__ = ["patient_client"]

_LOOK_AGAIN = 2.0  # seconds


@cache
def patient_client() -> type[Any]:
    """Return a class of clients for ``AsyncKernelManager(client_factory=...)``.

    Now and then, once in some hundred notebooks, jupyter_client's asynchronous channel misses that a message has come:
    the kernel is idle, and the client waits until its time is up, only to find the message there. This one looks anew
    every two seconds.
    """
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.channels import AsyncZMQSocketChannel
    from traitlets import Type

    class PatientChannel(AsyncZMQSocketChannel):
        async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
            deadline = math.inf if timeout is None else time.monotonic() + timeout
            while True:
                left = max(0.0, deadline - time.monotonic())
                try:
                    return await super().get_msg(timeout=min(left, _LOOK_AGAIN))
                except Empty:
                    if left <= _LOOK_AGAIN:
                        raise

    class PatientClient(AsyncKernelClient):
        shell_channel_class = Type(PatientChannel)
        iopub_channel_class = Type(PatientChannel)

    return PatientClient
