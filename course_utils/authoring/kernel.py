"""Kernels that execute notebooks, and a client that does not sleep through a message."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["KERNEL_ENVIRONMENT", "kernel_client", "kernel_manager"]

KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # the order of a printed set is part of the output
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the debugger warns about frozen modules
}


@cache
def kernel_client() -> type[Any]:
    """Return a class of clients for ``AsyncKernelManager(client_factory=...)``.

    For an output widget, nbclient sends to the kernel on the very socket on which it waits for the cell's reply.
    jupyter_client sends behind pyzmq's back, and whoever sends on a ZeroMQ socket has to look afterwards whether
    something has arrived: a reply that came just before the send would wake nobody until the cell's time is up.
    """
    import zmq
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.channels import AsyncZMQSocketChannel
    from traitlets import Type

    class AttentiveChannel(AsyncZMQSocketChannel):
        def send(self, msg: dict[str, Any]) -> None:
            super().send(msg)
            self.socket.get(zmq.EVENTS)  # wakes whoever waits for what is there

    class AttentiveClient(AsyncKernelClient):
        shell_channel_class = Type(AttentiveChannel)

    return AttentiveClient


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
    return ThisInterpreter(client_factory=kernel_client(), transport=transport, connection_file=file)
