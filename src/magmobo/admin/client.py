"""How `mag` and others on this machine talk to a running node.

One connection per question. Every failure is coded: no node (exit 3), denied (6), too slow (7), or the node's own error
with its own code.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import msgspec

from magmobo.admin import wire
from magmobo.admin.address import socket_address
from magmobo.admin.data_folder import DataFolder
from magmobo.admin.errors import AccessDenied, ControlConnectionLost, NodeNotRunning, RequestMalformed
from magmobo.contracts.errors import DeadlineExceeded
from magmobo.contracts.planes import NodeStatus

T = TypeVar("T")

_NOBODY = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM}


class AdminClient:
    """Asks the node of `folder`. Every call has `timeout_s` seconds.

    Every call raises NodeNotRunning, AccessDenied, ControlConnectionLost, DeadlineExceeded, or NodeRefused with the
    node's own error.
    """

    def __init__(self, folder: DataFolder, *, timeout_s: float = 10.0) -> None:
        self._folder, self._timeout_s = folder, timeout_s

    async def ping(self) -> wire.Pong:
        """The node's process id and version."""
        async with self._connection("ping") as (reader, writer):
            return await _ask(reader, writer, "ping", wire.Pong)

    async def status(self) -> NodeStatus:
        """How the node is now."""
        async with self._connection("status") as (reader, writer):
            return await _ask(reader, writer, "status", NodeStatus)

    async def stop(self) -> wire.Stopping:
        """Make the node drain and end; returns once its data folder is free again."""
        async with self._connection("stop") as (reader, writer):
            stopping = await _ask(reader, writer, "stop", wire.Stopping)
            with suppress(ConnectionError):
                await reader.read()  # the node hangs up when it is gone, and the system does when it dies
            return stopping

    @asynccontextmanager
    async def _connection(self, what: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        writer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                with socket_address(self._folder.control_socket) as address:
                    reader, writer = await asyncio.open_unix_connection(address, limit=wire.MAX_ANSWER_BYTES)
                yield reader, writer
        except TimeoutError as error:
            raise DeadlineExceeded(f"`{what}` of the node", self._timeout_s) from error
        except OSError as error:
            if error.errno in _NOBODY:
                raise NodeNotRunning(self._folder.path) from error
            if error.errno in _DENIED:
                raise AccessDenied(f"the control socket in {self._folder.path}") from error
            raise ControlConnectionLost(error.strerror or type(error).__name__) from error
        finally:
            if writer is not None:
                writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str, kind: type[T]) -> T:
    writer.write(wire.encode_request(wire.Request(command)))
    await writer.drain()
    try:
        answer = wire.decode_answer(await reader.readuntil(b"\n"))
        if answer.error is not None:
            raise answer.error.as_error()
        return msgspec.json.decode(answer.result, type=kind)
    except asyncio.IncompleteReadError as error:
        raise ControlConnectionLost("the connection ended before the answer") from error
    except (asyncio.LimitOverrunError, RequestMalformed, msgspec.DecodeError) as error:
        raise ControlConnectionLost("its answer is not one we understand") from error
