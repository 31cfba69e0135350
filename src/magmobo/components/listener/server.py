"""Serves the bound socket: accepts, ticks, stops. uvicorn parses HTTP and runs ASGI; this module runs uvicorn.

uvicorn's own `Server` is not used: it takes signals over, exits the process on failure, polls ten times a second and
closes the socket it was given. Its `Config`, state and protocol are; the rest is the few lines below.
Invariants: after `stop` no connection, task or timer of the port is left; `start` may follow a `pause` on the same
socket, and what was connected before is served on.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from magmobo.components.listener.codec import SERVICE_RESTART
from magmobo.components.listener.config import ListenerConfig
from magmobo.components.listener.connections import TICK_S, Connections
from magmobo.components.listener.errors import ApplicationFailed, TooManyConnections
from magmobo.components.listener.handshake import parse_upgrade
from magmobo.components.listener.http_protocol import HttpProtocol
from magmobo.components.listener.routing import Router
from magmobo.components.listener.websocket import WebSocketProtocol
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Scope
from magmobo.contracts.websocket import Upgrade, WebSocketSession

BACKLOG = 2_048
_TURNS_TO_ENTER = 3  # one to attach, one to be told the protocol, one to spare
_LAST_WORDS_S = 1.0  # for close frames to leave, once the drain time is over


class PortServer:
    """The running port."""

    def __init__(
        self, router: Router, config: ListenerConfig, *, max_connections: int, log: structlog.stdlib.BoundLogger
    ) -> None:
        self.router, self.config = router, config
        self._opening = asyncio.Lock()
        self.loop = asyncio.get_running_loop()
        self.connections = Connections(config, max_connections=max_connections, now_s=self.loop.time)
        self.uvicorn_config = _uvicorn_config(router, config)
        self.uvicorn_state = ServerState()
        self.uvicorn_state.connections = self.connections.http
        self._log = log
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def serving(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None

    async def start(self, listening: socket.socket) -> None:
        """Serve on a copy of the socket, so that stopping leaves the original bound."""
        async with self._opening:
            self._server = await self._serve(listening)
        if self._ticker is None:
            self._tick()

    async def move(self, listening: socket.socket) -> None:
        """Serve on this socket instead; whoever is connected through the former one stays. Nothing happens to a port
        that is not served.
        """
        async with self._opening:
            former = self._server
            if former is None:
                return
            self._server = await self._serve(listening)
            for _ in range(_TURNS_TO_ENTER):
                await asyncio.sleep(0)  # who waits in the queue of the former one is let in
            await self._close(former)

    def adjust(self, config: ListenerConfig, *, max_connections: int) -> None:
        """Go on with these limits. Connections that are open take them too, but for `max_message_bytes`."""
        self.config = self.connections.config = config
        self.connections.max_connections = max_connections
        self.uvicorn_config.timeout_keep_alive = config.keep_alive_s
        for connection in self.connections.http:
            connection.timeout_keep_alive = config.keep_alive_s

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        return await self.loop.create_server(lambda: HttpProtocol(self), sock=listening.dup(), backlog=BACKLOG)

    async def pause(self) -> None:
        """Accept nothing more and let the requests under way end within `drain_timeout_s`.

        Sessions go on: they belong to others, who end them when they want to. An idle HTTP connection may ask once
        more; the answer says that it is the last.
        """
        if self._server is None:
            return
        http = self.connections.http
        busy = [connection for connection in http if connection.answering]
        tasks = list(self.uvicorn_state.tasks)
        self._drain()
        await self._stop_accepting()
        self._drain()  # who came in by then

        def answered() -> bool:
            return not any(connection.answering for connection in http.intersection(busy))

        if not await self.connections.wait_until(answered, self.config.drain_timeout_s):
            left = [connection for connection in http.intersection(busy) if connection.answering]
            self._log.warning("drain_timeout", http=len(left), timeout_s=self.config.drain_timeout_s)
            await _cancel(tasks)
            if not await self.connections.wait_until(answered, _LAST_WORDS_S):
                for connection in http.intersection(left):
                    connection.transport.abort()

    def _drain(self) -> None:
        for connection in list(self.connections.http):
            connection.drain()

    async def stop(self) -> None:
        """Accept nothing more, let requests and sessions end within `drain_timeout_s`, then end them."""
        if self._ticker is None:
            return
        await self._stop_accepting()
        for connection in list(self.connections.http):
            connection.shutdown()
        for connection in list(self.connections.websockets):
            connection.server_shutdown()
        try:
            if not await self.connections.wait_gone(self.config.drain_timeout_s):
                await self._end_all()
        finally:  # also when whoever stops us has no more time
            self._abort_all()
            if self._ticker is not None:
                self._ticker.cancel()
                self._ticker = None

    async def _end_all(self) -> None:
        self._log.warning(
            "drain_timeout",
            http=len(self.connections.http),
            websockets=len(self.connections.websockets),
            timeout_s=self.config.drain_timeout_s,
        )
        for connection in list(self.connections.websockets):
            connection.close(SERVICE_RESTART, "the server restarts")
        await _cancel(list(self.uvicorn_state.tasks))
        if not await self.connections.wait_gone(_LAST_WORDS_S):
            self._abort_all()
            await self.connections.wait_gone(_LAST_WORDS_S)

    async def _stop_accepting(self) -> None:
        async with self._opening:
            server, self._server = self._server, None
            if server is not None:
                await self._close(server)

    async def _close(self, server: asyncio.Server) -> None:
        """Close the door behind whoever was accepted in this very turn of the loop.

        asyncio attaches an accepted connection to its server a turn later, and loses it when that is closed by then.
        """
        try:
            for listening in server.sockets:
                self.loop.remove_reader(listening.fileno())
            for _ in range(_TURNS_TO_ENTER):
                await asyncio.sleep(0)
        finally:
            server.close()

    def _abort_all(self) -> None:
        for connection in list(self.connections.http):
            connection.transport.abort()
        for connection in list(self.connections.websockets):
            connection.abort()

    def admit(self, scope: Any, url: bytes, *, over_limit: bool) -> tuple[Upgrade, WebSocketSession]:
        """Check a request to open a WebSocket and let the application make a session for it.

        Raises: MagError, whose problem document is the answer.
        """
        client = scope["client"][0] if scope["client"] else ""
        upgrade = parse_upgrade(scope["method"], url, scope["http_version"], scope["headers"], client)
        self.router.check_host(scope["headers"], scope["http_version"])
        if over_limit:
            raise TooManyConnections
        factory = self.router.websockets.find(upgrade.path)
        try:
            return upgrade, factory(upgrade)
        except MagError:
            raise
        except Exception as error:
            self._log.exception("websocket_factory_failed", path=upgrade.path, correlation_id=secrets.token_hex(8))
            raise ApplicationFailed from error

    def websocket(self, session: WebSocketSession, transport: asyncio.Transport) -> WebSocketProtocol:
        """The protocol that takes `transport` over."""
        return WebSocketProtocol(session, transport, connections=self.connections, log=self._log)

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(TICK_S, self._tick)
        date = formatdate(time.time(), usegmt=True).encode()
        self.uvicorn_state.default_headers = [(b"date", date)]
        for connection in self.connections.http:
            connection.watch_closing()
        self.connections.deadlines.expire()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what the applications are doing; who asked is told so."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_LAST_WORDS_S)


def _uvicorn_config(router: Router, config: ListenerConfig) -> Config:
    """uvicorn as a library: no logging set-up, no lifespan, no trust in forwarded headers, no banner."""

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        await router(scope, receive, send)

    uvicorn = Config(
        application,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=config.keep_alive_s,
    )
    uvicorn.load()
    return uvicorn
