"""Kernels that execute notebooks, and a client that does not sleep through a message."""

from __future__ import annotations

import math
import os
import time
from functools import cache
from pathlib import Path
from queue import Empty
from typing import Any

__all__ = ["KERNEL_ENVIRONMENT", "kernel_manager", "patient_client"]

KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # the order of a printed set is part of the output
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the debugger warns about frozen modules
}

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


def kernel_manager(private: str) -> Any:
    """Return the manager of a kernel of this interpreter that is to be started.

    Args:
        private: a folder for the files by which it is reached.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """Starts `sys.executable`, whatever kernel the user has registered as ``python3``."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

    # Kernels that start at the same time could draw the same TCP port; files of their own cannot clash.
    transport = "ipc" if os.name == "posix" else "tcp"
    file = str(Path(private, "kernel.json"))
    return ThisInterpreter(client_factory=patient_client(), transport=transport, connection_file=file)
