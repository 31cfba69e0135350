"""A worker of an extension as a plain child process, without a sandbox, for tests of what speaks with workers.

Boundary: it has the shape of the sandbox's own process (`pid`, `socket`, `wait`, `kill`, `usage`) and none of its
protection. Whoever started one kills it or closes its socket; it ends with the process that started it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from magmobo.extensions.sandbox.children import send_signal
from magmobo.extensions.sandbox.worker import Exit, Usage

_MAIN = "import sys; from magx.runtime import run; run(int(sys.argv[1]))"
_TICKS = os.sysconf("SC_CLK_TCK")


class PlainWorker:
    """One child that runs `magx.runtime`. `socket` is the node's end, non-blocking."""

    def __init__(self, process: asyncio.subprocess.Process, ours: socket.socket) -> None:
        self._process, self.socket = process, ours

    @classmethod
    async def spawn(cls, installed: object = None) -> PlainWorker:
        """Start a child; which extension it is to be, its first frame says, so `installed` is not looked at."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-c", _MAIN, str(theirs.fileno()),
                    pass_fds=[theirs.fileno()], env={}, stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    async def wait(self) -> Exit:
        """How it ended, once it has."""
        status = await self._process.wait()
        return Exit(None, -status) if status < 0 else Exit(status, None)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it at once; one that has ended is fine."""
        send_signal(self._process, number)

    def usage(self) -> Usage:
        """What it has used until now; zeros when it has ended."""
        proc = Path("/proc") / str(self.pid)
        try:
            fields = (proc / "stat").read_text().rpartition(")")[2].split()
            lines = [line.split() for line in (proc / "smaps_rollup").read_text().splitlines()[1:]]
        except (FileNotFoundError, ProcessLookupError):
            return Usage()
        sizes_bytes = {words[0]: int(words[1]) * 1024 for words in lines}
        return Usage(
            cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
            memory_bytes=sizes_bytes["Rss:"],
            private_bytes=sizes_bytes["Private_Clean:"] + sizes_bytes["Private_Dirty:"],
        )
