"""The control socket of a running node.

Boundary: it reads lines, calls a command of the table it was given, writes lines; what a command does is the node's.
Rules: only the node's own user and root are served; a request, the wait for one, the time to take an answer and the
number of connections are bounded; a bad request costs its sender a coded answer and the node nothing. A connection that
asked the node to stop stays open until the node is gone, so that its end is the news.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from magmobo.admin import wire
from magmobo.admin.address import socket_address
from magmobo.admin.errors import (
    AccessDenied,
    CommandUnknown,
    RequestTooLarge,
    TooManyConnections,
    data_folder_error,
)
from magmobo.contracts.errors import MagError

Command = Callable[[], Any]

_MAX_CONNECTIONS = 32
_IDLE_S = 60.0
_WRITE_S = 10.0
_LINGER_S = 1.0


class ControlServer:
    """Serves `commands` (name -> function that returns what to encode) on a Unix socket at `path`."""

    def __init__(
        self, path: Path, commands: Mapping[str, Command], *, log: structlog.stdlib.BoundLogger, idle_s: float = _IDLE_S
    ) -> None:
        self._path, self._commands, self._log, self._idle_s = path, commands, log, idle_s
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. Call it only while holding the node's lock: a socket that is there already is nobody's.

        Raises: DataFolderError and its kinds, ControlPathTooLong.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):
                self._path.unlink()
            with socket_address(self._path) as address:
                listening.bind(address)
            self._path.chmod(0o600)  # before listen: until then nobody can connect
            self._server = await asyncio.start_unix_server(
                self._welcome, sock=listening, limit=wire.MAX_REQUEST_BYTES, start_serving=True
            )
        except OSError as error:
            listening.close()
            raise data_folder_error(self._path.parent, error) from error
        except BaseException:
            listening.close()
            raise

    def shut_door(self) -> None:
        """Take no new connection and remove the socket. Call it while still holding the lock; twice is fine."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(FileNotFoundError):
                self._path.unlink()

    async def hang_up(self) -> None:
        """End every open connection; who asked for the stop learns by it that the node is gone."""
        self.shut_door()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None  # noqa: S101 - a stream callback that is a coroutine runs in a task of its own
        self._conversations.add(conversation)
        try:
            if len(self._conversations) > _MAX_CONNECTIONS:
                await _dismiss(reader, writer, TooManyConnections(_MAX_CONNECTIONS))
            elif not _peer_may_enter(writer):
                self._log.warning("control.denied")
                await _dismiss(reader, writer, AccessDenied("the control socket"))
            else:
                await self._converse(reader, writer)
        except (TimeoutError, OSError):
            self._log.debug("control.peer_left")
        except asyncio.CancelledError:
            self._log.debug("control.hung_up")  # `hang_up` ends us; the stream library would call the loop's handler
        finally:
            self._conversations.discard(conversation)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle_s: float | None = self._idle_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await _dismiss(reader, writer, RequestTooLarge(wire.MAX_REQUEST_BYTES))
                return
            result = self._answer(line)
            await _send(writer, result if isinstance(result, bytes) else wire.encode_result(result))
            if isinstance(result, wire.Stopping):
                idle_s = None

    def _answer(self, line: bytes) -> Any:
        """What the command returned, or the encoded fault."""
        try:
            return self._command(wire.decode_request(line).command)()
        except MagError as error:
            return wire.encode_fault(error)
        except Exception:
            self._log.exception("control.command_failed")
            return wire.encode_fault(MagError("the command failed inside the node"))

    def _command(self, name: str) -> Command:
        command = self._commands.get(name)
        if command is None:
            raise CommandUnknown(name)
        self._log.debug("control.command", command=name)
        return command


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    async with asyncio.timeout(_WRITE_S):
        await writer.drain()


async def _dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: MagError) -> None:
    """Answer, and hear the peer out for a moment: closing under what it still sends would lose it the answer."""
    await _send(writer, wire.encode_fault(error))
    writer.write_eof()
    async with asyncio.timeout(_LINGER_S):
        while await reader.read(wire.MAX_REQUEST_BYTES):
            pass


def _peer_may_enter(writer: asyncio.StreamWriter) -> bool:
    """Whether the other process runs as our user or as root. The mode of socket and folder says the same already."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size_bytes = struct.calcsize("3i")
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_bytes)
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())
