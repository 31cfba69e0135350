"""A worker with no sandbox at all, for development on a machine that has none; an operator must have allowed it.

It is a plain child with the rights of the node. Boundary: the same shape as a sandboxed worker.
"""

from __future__ import annotations

import asyncio
import signal
import socket

from magmobo.extensions.sandbox.children import send_signal
from magmobo.extensions.sandbox.worker import WorkerProcess, WorkerSpec

_MAIN = "import importlib, sys; module, _, name = sys.argv[2].partition(':'); sys.path += sys.argv[3:]; " \
    "getattr(importlib.import_module(module), name)(int(sys.argv[1]))"  # fmt: skip


async def spawn(
    spec: WorkerSpec, python: str, runtime: str, paths: list[str]
) -> tuple[WorkerProcess, asyncio.Task[None]]:
    """Start one. Returns: the worker, and the task that waits for its end. Raises: OSError."""
    node_end, worker_end = socket.socketpair()
    with worker_end:
        try:
            process = await asyncio.create_subprocess_exec(
                python, "-I", "-S", "-c", _MAIN, str(worker_end.fileno()), runtime, *paths,
                env={}, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL, pass_fds=[worker_end.fileno()], start_new_session=True,
            )  # fmt: skip
        except BaseException:
            node_end.close()
            raise
    node_end.setblocking(False)

    def end() -> None:
        send_signal(process, signal.SIGKILL)

    worker = WorkerProcess(spec, process.pid, node_end, end)

    async def wait() -> None:
        status = await process.wait()
        worker.has_ended(status if status >= 0 else None, -status if status < 0 else None)

    return worker, asyncio.create_task(wait(), name=f"worker of {spec.extension_id}")
