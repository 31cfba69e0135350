"""The control socket of a running node.

Boundary: it reads lines, says who asks, puts each command to `Operators`, writes lines; it knows no command but the one
that ends the node. Rules: only the node's own user and root are served; a request, the wait for one, what is read
ahead, an answer, the time to take it and the number of connections are bounded; a bad request costs its sender a coded
answer and the node nothing; who went away has its command cancelled. A connection that asked the node to stop stays
open until the node is gone, so that its end is the news. However many look on, the node can be told to stop: when all
places are taken, the oldest silent connection loses its own, and who finds none may still say that one command.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magmobo.admin import wire
from magmobo.admin.address import socket_address
from magmobo.admin.errors import AccessDenied, RequestTooLarge, TooManyConnections, data_folder_error
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.planes import Operators

if TYPE_CHECKING:
    import structlog

_MAX_CONNECTIONS = 32
_PLACES_FOR_STOP = 8  # beyond those
_SILENT_S = 1.0  # so long a connection may think before it gives way to another
_CROWDED_S = 5.0
_READ_AHEAD = 16
_IDLE_S = 60.0
_WRITE_S = 10.0
_LINGER_S = 1.0
_STOP = "node:stop"


class ControlServer:
    """Serves the commands of `operators` on a Unix socket at `path`; `hide` takes secrets out of what errors say."""

    def __init__(
        self,
        path: Path,
        operators: Operators,
        *,
        log: structlog.stdlib.BoundLogger,
        hide: wire.Hide | None = None,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._path, self._operators, self._log, self._hide, self._idle_s = path, operators, log, hide, idle_s
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.Task[None], _Conversation] = {}  # oldest first

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
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a stream callback that is a coroutine runs in a task of its own
        self._make_room()
        uid, others = _peer_uid(writer), len(self._conversations)
        is_crowded = others >= _MAX_CONNECTIONS
        conversation = _Conversation(
            reader, writer, self._operators, uid, self._log, hide=self._hide, is_crowded=is_crowded
        )
        self._conversations[task] = conversation
        try:
            if others >= _MAX_CONNECTIONS + _PLACES_FOR_STOP:
                await _dismiss(reader, writer, TooManyConnections(_MAX_CONNECTIONS))
            elif uid not in (0, os.geteuid()):  # the mode of socket and folder says the same already
                self._log.warning("control.denied", uid=uid)
                await _dismiss(reader, writer, AccessDenied("the control socket"))
            else:
                await conversation.hold(min(_CROWDED_S, self._idle_s) if is_crowded else self._idle_s)
        except (TimeoutError, OSError, _PeerLeft):
            self._log.debug("control.peer_left")
        except asyncio.CancelledError:
            self._log.debug("control.hung_up")  # `hang_up` ends us; the stream library would call the loop's handler
        finally:
            self._conversations.pop(task, None)
            writer.close()

    def _make_room(self) -> None:
        """When all places are taken, the connection that has been silent for longest loses its own."""
        if len(self._conversations) < _MAX_CONNECTIONS:
            return
        silent = [(one.silent_s, task) for task, one in self._conversations.items() if one.silent_s is not None]
        silent_s, longest = max(silent, key=itemgetter(0), default=(0.0, None))
        if longest is not None and silent_s > _SILENT_S:
            del self._conversations[longest]
            longest.cancel()


class _PeerLeft(Exception):
    """Nobody is there any more to take the answer."""


class _Conversation:
    """One connection: requests are read ahead, and answered one after the other.

    `is_crowded`: one of too many, which is heard out for one request and may do nothing but end the node.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        operators: Operators,
        uid: int,
        log: structlog.stdlib.BoundLogger,
        *,
        hide: wire.Hide | None,
        is_crowded: bool,
    ) -> None:
        self._reader, self._writer, self._operators, self._uid, self._log = reader, writer, operators, uid, log
        self._hide, self._is_crowded = hide, is_crowded
        self._silent_since_s: float | None = asyncio.get_running_loop().time()
        self._requests: asyncio.Queue[bytes | RequestTooLarge] = asyncio.Queue(_READ_AHEAD)
        self._gone = asyncio.Event()

    @property
    def silent_s(self) -> float | None:
        """How long it has waited for the peer to say something, None while a request is being answered."""
        return None if self._silent_since_s is None else asyncio.get_running_loop().time() - self._silent_since_s

    async def hold(self, idle_s: float) -> None:
        """Answer until the peer has no more to ask, says nothing for `idle_s` seconds, or says too much at once.

        Raises: TimeoutError, OSError, _PeerLeft.
        """
        reading = asyncio.create_task(self._read(), name="control:read")
        try:
            limit_s: float | None = idle_s
            while True:
                self._silent_since_s = None if limit_s is None else asyncio.get_running_loop().time()
                async with asyncio.timeout(limit_s):
                    line = await self._requests.get()
                self._silent_since_s = None
                if isinstance(line, RequestTooLarge):
                    await _dismiss(self._reader, self._writer, line)
                    return
                if not line:
                    return
                if await self._answer(line):
                    limit_s = None
                elif self._is_crowded:
                    return
        finally:
            await _end(reading)

    async def _read(self) -> None:
        """Lines into the queue; an empty one is the last."""
        try:
            while True:
                await self._requests.put(await self._reader.readuntil(b"\n"))
        except asyncio.LimitOverrunError:
            await self._requests.put(RequestTooLarge(wire.MAX_REQUEST_BYTES))
        except (asyncio.IncompleteReadError, OSError):
            if _has_hung_up(self._writer):
                self._gone.set()
            await self._requests.put(b"")

    async def _answer(self, line: bytes) -> bool:
        """Answer one line. Whether the node has begun to stop because of it."""
        stopping = False
        try:
            request = wire.decode_request(line)
            answer = wire.encode_result(await self._run(request))
            stopping = request.command == _STOP
        except MagError as error:
            answer = wire.encode_fault(error, self._hide)
        except _PeerLeft:
            raise
        except Exception:
            self._log.exception("control.command_failed")
            answer = wire.encode_fault(MagError("the command failed inside the node"))
        await _send(self._writer, answer)
        return stopping

    async def _run(self, request: wire.Request) -> bytes:
        """The reply of the command. Raises: _PeerLeft when the peer went away; the command is ended then."""
        if self._is_crowded and request.command != _STOP:
            raise TooManyConnections(_MAX_CONNECTIONS)
        actor = Actor(
            name=f"uid:{self._uid}",
            role=request.role or Role.ADMIN,  # whoever may enter is an admin, and may be less
            via="control",
            justification=request.justification,
        )
        self._log.debug("control.command", command=request.command, role=str(actor.role))
        command = self._operators.run(
            request.command,
            bytes(request.params),
            actor=actor,
            timeout_s=request.timeout_s,
            dry_run=request.dry_run,
            idempotency_key=request.idempotency_key,
        )
        running = asyncio.ensure_future(command)
        leaving = asyncio.create_task(self._gone.wait(), name="control:leaving")
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise _PeerLeft
            if running.cancelled():
                raise Unavailable(f"the command {request.command}")
            return running.result()
        finally:
            await _end(leaving)
            await _end(running)


async def _end(task: asyncio.Future[Any]) -> None:
    """Cancel, and wait a moment: who does not listen is left to the deadline of the command bus."""
    task.cancel()
    await asyncio.wait({task}, timeout=_LINGER_S)
    if task.done() and not task.cancelled():
        task.exception()  # it has been seen


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


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """User id of the other process; where the system cannot say, the mode of the socket has: our own."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()
    size_bytes = struct.calcsize("3i")
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_bytes)
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)


def _has_hung_up(writer: asyncio.StreamWriter) -> bool:
    """Whether nobody is there any more to read the answer, as against a peer that has said all it wanted to."""
    descriptor = writer.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, 0)  # the end of both directions is told in any case
    return bool(poll.poll(0))
