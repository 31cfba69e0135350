"""One worker as the node has it: its socket, how to end it, what it uses, how it ended.

Invariant: `wait` ends for every worker, whatever happens to it or to the zygote.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from magmobo.extensions.sandbox.kinds import Layer

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MIB = 1_048_576


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What a worker is to be. `memory_bytes` is what the extension may add to the interpreter, `data_bytes` bounds
    `data_dir` and each file in it, `temp_bytes` /tmp. `uid` is taken where the node is root and may change it, and it
    is then its own; `layers` None: all that work here.
    """

    extension_id: str
    code_dir: Path
    data_dir: Path | None = None
    memory_bytes: int = 512 * MIB
    data_bytes: int = 16 * MIB
    temp_bytes: int = 16 * MIB
    uid: int | None = None
    layers: frozenset[Layer] | None = None


class Exit(Struct, frozen=True):
    """How a worker ended: by itself with `code`, or by `signal`; both None: nobody knows. `escape` is not empty when it
    did what no honest worker does, and says what; `reason` is what else is known.
    """

    code: int | None
    signal: int | None
    escape: str = ""
    reason: str = ""


class Usage(Struct, frozen=True):
    """What a worker used: CPU since its start, memory now; `private_bytes` is shared with nobody, and 0 where the
    system does not say.
    """

    cpu_s: float = 0.0
    memory_bytes: int = 0
    private_bytes: int = 0


class WorkerProcess:
    """A running worker. `socket` is the node's end, non-blocking; who closes it ends the worker."""

    def __init__(self, spec: WorkerSpec, pid: int, node_end: socket.socket, end: Callable[[], None]) -> None:
        self.spec, self.pid, self.socket = spec, pid, node_end
        self._end = end
        self._escape = self._reason = ""
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Exit:
        """Its end; may be asked by several, and again."""
        return await asyncio.shield(self._ended)

    def kill(self, reason: str = "") -> None:
        """SIGKILL; harmless when it has ended. The first reason counts."""
        if not self._ended.done():
            self._reason = self._reason or reason
            self._end()

    def kill_for_escape(self, what: str) -> None:
        """End it for what it tried."""
        self._escape = self._escape or what
        self.kill()

    def has_ended(self, code: int | None, signal: int | None, *, escape: str = "", reason: str = "") -> None:
        """Whoever watches the process says how it ended."""
        if not self._ended.done():
            self._ended.set_result(Exit(code, signal, self._escape or escape, self._reason or reason))

    @property
    def is_running(self) -> bool:
        """Whether its end is not known yet."""
        return not self._ended.done()

    def usage(self) -> Usage:
        """What it used until now; zeros when it has ended or the system has no /proc."""
        proc = Path("/proc") / str(self.pid)
        if self._ended.done():
            return Usage()
        try:
            fields = (proc / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return Usage()
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        sizes = {"Rss": int(fields[21]) * os.sysconf("SC_PAGE_SIZE")}
        with suppress(OSError):
            for line in (proc / "smaps_rollup").read_text().splitlines()[1:]:
                name, _, rest = line.partition(":")
                sizes[name] = int(rest.split()[0]) * 1024
        private = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
        return Usage(cpu_s, sizes["Rss"], private)

    def ran_ns(self) -> int:
        """For how long its threads that are there ran on a CPU: another number whenever it did anything. In steps of a
        clock tick where the kernel counts no finer; 0 when it has ended.
        """
        if self._ended.done():
            return 0
        total_ns = 0
        try:
            for thread in (Path("/proc") / str(self.pid) / "task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):
                    total_ns += int((thread / "schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return round(self.usage().cpu_s * 1e9)
        return total_ns or round(self.usage().cpu_s * 1e9)
