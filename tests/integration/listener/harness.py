"""A running listener, an echoing application, and a client that speaks in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog

from magmobo.components.listener.codec import unmask
from magmobo.components.listener.component import ListenerComponent
from magmobo.components.listener.config import ListenerConfig
from magmobo.contracts.component import Context
from magmobo.contracts.planes import NodeStatus, Operators
from magmobo.contracts.websocket import Upgrade, WebSocketConnection, text_frame

DEADLINE_S = 60.0
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class BareContext:
    """As much of a `Context` as the listener uses."""

    component, instance_id, environment = "listener", "test", "test"
    data_dir = Path("/nonexistent")
    log = structlog.get_logger()

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine, name=name)


class Node:
    """Operators of a node whose state a test chooses."""

    def __init__(self, state: str = "ready") -> None:
        self.state = state

    def status(self) -> NodeStatus:
        return NodeStatus("test", self.state, "test", "0", 1.0, ())

    def admin_token_matches(self, candidate: str) -> bool:
        return False

    @property
    def admin_token_number(self) -> int:
        return 1


class Session:
    """Remembers what happened to it and echoes texts; `/app/…` commands close or fail on purpose."""

    def __init__(self, upgrade: Upgrade) -> None:
        self.upgrade = upgrade
        self.connection: WebSocketConnection | None = None
        self.texts: list[bytes] = []
        self.closes: list[int] = []
        self.shutdowns = 0

    def on_open(self, connection: WebSocketConnection) -> None:
        assert self.connection is None
        self.connection = connection
        connection.send_frames(text_frame(b"hello"))

    def on_text(self, payload: bytes) -> None:
        assert self.connection is not None
        assert not self.closes
        self.texts.append(payload)
        if payload == b"raise":
            raise RuntimeError("on purpose")
        if payload.startswith(b"close "):
            self.connection.close(int(payload[6:]), "as asked")
            return
        self.connection.send_frames(text_frame(payload))

    def on_close(self, code: int) -> None:
        self.closes.append(code)

    def on_server_shutdown(self) -> None:
        self.shutdowns += 1
        assert self.connection is not None
        self.connection.close(4200, "restarting")


class World:
    """A running listener with an echo at `/app/` and an ASGI application at `/http/`."""

    def __init__(self, listener: ListenerComponent, node: Node) -> None:
        self.listener, self.node = listener, node
        self.sessions: list[Session] = []
        self.requests: list[tuple[str, str, bytes]] = []
        self.release, self.streaming = asyncio.Event(), asyncio.Event()
        self.mount = listener.mount_websocket("/app/", self.make_session)
        listener.mount_http("/http/", self.application)

    def make_session(self, upgrade: Upgrade) -> Session:
        if upgrade.path == "/app/broken":
            raise RuntimeError("no session today")
        session = Session(upgrade)
        self.sessions.append(session)
        return session

    async def application(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.requests.append((scope["method"], scope["path"], body))
        if scope["path"] == "/http/raise":
            raise RuntimeError("secret detail")
        if scope["path"] == "/http/silent":
            return
        if scope["path"] == "/http/wait":
            await self.release.wait()
        answer = b"%d bytes" % len(body)
        if scope["path"] == "/http/large":
            answer = b"z" * 30_000_000
        if scope["path"] == "/http/torn":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            raise RuntimeError("half way")
        if scope["path"] == "/http/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"12", "more_body": True})
            self.streaming.set()
            await self.release.wait()
            await send({"type": "http.response.body", "body": b"34"})
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    @property
    def connections(self) -> Any:
        assert self.listener._server is not None
        return self.listener._server.connections

    @property
    def server_tasks(self) -> Any:
        assert self.listener._server is not None
        return self.listener._server.uvicorn_state.tasks

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection(*self.listener.address))

    async def open_websocket(self, path: bytes = b"/app/key", *, early: bytes = b"") -> Client:
        client = await self.connect()
        client.send(upgrade_request(path) + early)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert await client.frame() == (1, b"hello")
        return client


class Client:
    """Bytes in both directions, each wait with a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def drain(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.writer.drain()

    async def head(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def response(self, *, head_only: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers, body of the next response; its length must be announced."""
        head = await self.head()
        status_line, *lines = head[:-4].split(b"\r\n")
        headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
        length = 0 if head_only else int(headers.get(b"content-length", b"0"))
        async with asyncio.timeout(DEADLINE_S):
            body = await self.reader.readexactly(length)
        return int(status_line.split(b" ")[1]), headers, body

    async def problem(self) -> tuple[int, str]:
        """Status and code of the next response, which is a problem document."""
        status, headers, body = await self.response()
        assert headers[b"content-type"] == b"application/problem+json"
        document = msgspec.json.decode(body)
        assert document["status"] == status
        return status, document["code"]

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which must be whole and unmasked."""
        async with asyncio.timeout(DEADLINE_S):
            first, second = await self.reader.readexactly(2)
            assert first & 0x80
            assert not second & 0x80
            length = second
            if second >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if second == 126 else 8), "big")
            return first & 0x0F, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read(-1)

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


def upgrade_request(path: bytes = b"/app/key", **changes: bytes | None) -> bytes:
    """A request to open a WebSocket; a header is changed by `upgrade=b"…"`, dropped by None (`_` stands for `-`)."""
    headers: dict[str, bytes | None] = {
        "host": b"localhost",
        "connection": b"Upgrade",
        "upgrade": b"websocket",
        "sec-websocket-version": b"13",
        "sec-websocket-key": KEY,
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [name.encode() + b": " + value for name, value in headers.items() if value is not None]
    return b"\r\n".join([b"GET %s HTTP/1.1" % path, *lines, b"", b""])


def request(method: bytes = b"GET", path: bytes = b"/http/x", body: bytes | None = None, *lines: bytes) -> bytes:
    """A plain HTTP/1.1 request."""
    length = [] if body is None else [b"content-length: %d" % len(body)]
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method, path), b"host: localhost", *length, *lines, b"", body or b""])


def masked(payload: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """A frame as a client sends it."""
    key, size = b"\x11\x22\x33\x44", len(payload)
    first = opcode | (0x80 if fin else 0)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + key + unmask(payload, key)


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition()` holds; fail after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[World]:
    """A listener on a free port of loopback, stopped and checked to leave nothing at the end."""
    node = Node()
    listener = ListenerComponent(cast(Context, BareContext()), cast(Operators, node))
    listener.configure(ListenerConfig(**({"port": 0, "drain_timeout_s": 1.0} | settings)))
    await listener.boot()
    world = World(listener, node)
    await listener.start()
    try:
        yield world
    finally:
        world.release.set()
        await listener.stop()
        await listener.shutdown(5.0)
        assert not len(world.connections)
        assert all(len(session.closes) == 1 for session in world.sessions if session.connection is not None)
