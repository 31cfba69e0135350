"""The process of a worker as this room sees it; the sandbox spawns real ones.

Boundary: facts only. Invariant: `wait` ends for every process that was spawned, killed or not.
"""

from __future__ import annotations

import socket
from typing import Protocol

from msgspec import Struct


class Exit(Protocol):
    """How a process ended. `code` and `signal` as the kernel says; `escape` is not empty when it did what no honest
    worker does, and says what; `reason` is what else is known.
    """

    @property
    def code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def escape(self) -> str: ...
    @property
    def reason(self) -> str: ...


class Usage(Protocol):
    """What a process used: CPU seconds since its start, bytes now."""

    @property
    def cpu_s(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...


class Process(Protocol):
    """One process, with the node's end of its socket pair, non-blocking."""

    @property
    def pid(self) -> int: ...
    @property
    def socket(self) -> socket.socket: ...
    async def wait(self) -> Exit:
        """Its end; may be asked by several, and again."""
        ...

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        ...

    def usage(self) -> Usage:
        """Zeros when it has ended."""
        ...


class Ended(Struct, frozen=True):
    """An `Exit` with the reason in words, as the lifecycle is told."""

    reason: str
    code: int | None = None
    signal: int | None = None
    escape: str = ""

    @classmethod
    def of(cls, exit: Exit, why: str = "") -> Ended:
        """`why` when the node ended it."""
        reason = why or exit.escape or exit.reason
        if not reason:
            by_signal = f"it was ended by signal {exit.signal}"
            reason = by_signal if exit.signal else f"it ended with status {exit.code or 0}"
        return cls(reason, exit.code, exit.signal, exit.escape)

    def __str__(self) -> str:
        return self.reason
