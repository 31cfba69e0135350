"""Stands between the server and libpq while an answer comes: libpq reads what was let through, and that is counted.

Once a long message has begun, libpq reads on for as long as the server keeps up (`pqReadData` in its fe-misc.c), so one
value of a gigabyte is in memory before anyone is asked. So the descriptor it reads from is one end of a pair of sockets
meanwhile; bytes pass as they are, encrypted or not. Boundary: of messages it keeps the first byte, and knows nothing.
Invariant: when the valve is closed, the descriptor is the server's again, and what was let through has been read.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import pq

READ_BYTES = 65_536


class Valve:
    """For one answer: everything was sent before, because what libpq writes meanwhile goes nowhere."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn, self._descriptor = pgconn, pgconn.socket
        self.first = b""
        """The first byte that came; of the first message of the answer, where nothing is encrypted."""
        self._server = socket.socket(fileno=os.dup(self._descriptor))
        try:
            self._outer, inner = socket.socketpair()
        except OSError:
            self._server.close()
            raise
        with inner:
            for one in (self._server, self._outer, inner):
                one.setblocking(False)
            os.dup2(inner.fileno(), self._descriptor, inheritable=False)

    async def let_through(self) -> int:
        """Wait for the server, and give libpq what it sent; how many bytes that was, 64 KiB at most.

        Raises: OperationalError when the server ended the connection.
        """
        data = await asyncio.get_running_loop().sock_recv(self._server, READ_BYTES)
        if not data:
            self._outer.shutdown(socket.SHUT_WR)
            self._pgconn.consume_input()
        self.first = self.first or data[:1]
        left = memoryview(data)
        while left:
            left = left[self._outer.send(left) :]
            while _waiting_bytes(self._descriptor):
                self._pgconn.consume_input()
        return len(data)

    def __enter__(self) -> Valve:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from psycopg.pq import ConnStatus

        with self._server, self._outer:
            if self._pgconn.status != ConnStatus.BAD:  # else libpq closed the descriptor: it may be someone else's now
                os.dup2(self._server.fileno(), self._descriptor, inheritable=False)


def _waiting_bytes(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
