"""The listener as a component: bound in `boot`, serving between `start` and `stop`, closed in `shutdown`.

Invariant: the socket outlives every restart, and so does every open session. Between `stop` and `start` a new client
waits in the system's queue instead of being refused.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Set

from msgspec import Struct

from magmobo.components.listener.config import ListenerConfig
from magmobo.components.listener.hosts import HostGuard
from magmobo.components.listener.probes import Probes
from magmobo.components.listener.routing import Router
from magmobo.components.listener.server import BACKLOG, PortServer
from magmobo.components.listener.sockets import make_room, open_another, open_listening_socket
from magmobo.contracts.component import Announcement, Component, Context, Wants
from magmobo.contracts.errors import MagError, ReloadRefused, Unavailable
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.planes import AsgiApp, Listener, Mount, Operators
from magmobo.contracts.websocket import WebSocketFactory

_CROWDED = 0.9  # share of max_connections above which the port says it is degraded
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class _Prepared(Struct, frozen=True):
    """A section that can be taken, and the socket to serve then."""

    config: ListenerConfig
    max_connections: int
    socket: socket.socket


class ListenerComponent(Component):
    """The one public port; it is the `Listener` that others mount on."""

    name = "listener"
    provides = (Listener,)
    config_type = ListenerConfig

    def __init__(self, context: Context, operators: Wants[Operators]) -> None:
        self._context = context
        self._router = Router(probes=Probes(operators), log=context.log)
        self._config = ListenerConfig()
        self._max_connections = self._config.max_connections
        self._socket: socket.socket | None = None
        self._server: PortServer | None = None
        self._prepared: _Prepared | None = None
        self._left: list[socket.socket] = []  # sockets of addresses that the port has moved away from

    def configure(self, config: ListenerConfig) -> None:
        self._config = config

    async def boot(self) -> None:
        """Take the port.

        Raises: PortTaken, PortForbidden, AddressUnavailable, ListenError.
        """
        self._max_connections = make_room(self._config.max_connections)
        self._socket = await open_listening_socket(self._config.host, self._config.port, BACKLOG)
        self._router.guard_hosts(HostGuard(self.address[0], self._config.allowed_hosts))
        self._server = PortServer(
            self._router, self._config, max_connections=self._max_connections, log=self._context.log
        )

    async def start(self) -> None:
        if self._server is None or self._socket is None:
            raise Unavailable(self.name)
        await self._server.start(self._socket)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.pause()
        self._close_left()

    async def shutdown(self, timeout_s: float) -> None:
        try:
            if self._server is not None:
                async with asyncio.timeout(timeout_s):
                    await self._server.stop()
        finally:
            self._close_left()
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    # ------------------------------------------------------------ other settings

    async def prepare_reload(self, new: ListenerConfig, changed: Set[str]) -> None:
        """Takes the new address already, where it is another one. Raises: ReloadRefused when it cannot be had."""
        if self._socket is None:
            raise Unavailable(self.name)
        listening = self._socket
        if changed & {"host", "port"}:
            port = new.port if "port" in changed else self.address[1]  # a free one that was found stays
            try:
                listening = await open_another(new.host, port, BACKLOG, beside=listening)
            except MagError as error:
                raise ReloadRefused(f"{error} [{error.code}]. {error.next_step()}") from error
        self._prepared = _Prepared(new, make_room(new.max_connections), listening)

    def commit_reload(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None or self._server is None or self._socket is None:
            return
        self._config, self._max_connections = prepared.config, prepared.max_connections
        if prepared.socket is not self._socket:
            self._left.append(self._socket)
            self._socket = prepared.socket
            self._context.spawn(self._move(self._server), name="move")
        self._router.guard_hosts(HostGuard(self.address[0], self._config.allowed_hosts))
        self._server.adjust(self._config, max_connections=self._max_connections)

    async def abort_reload(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared.socket is not self._socket:
            prepared.socket.close()

    async def _move(self, server: PortServer) -> None:
        if self._socket is not None:
            await server.move(self._socket)
        self._close_left()

    def _close_left(self) -> None:
        while self._left:
            self._left.pop().close()

    # ------------------------------------------------------------ what people see

    async def health(self) -> HealthReport:
        if self._server is None or not self._server.serving:
            return HealthReport.of(HealthCheck("accepting", HealthStatus.UNHEALTHY, "the port is not served"))
        count = len(self._server.connections)
        crowded = count > self._max_connections * _CROWDED
        return HealthReport.of(
            HealthCheck("accepting", HealthStatus.HEALTHY),
            HealthCheck(
                "connections",
                HealthStatus.DEGRADED if crowded else HealthStatus.HEALTHY,
                f"{count} of {self._max_connections}",
            ),
        )

    def announce(self) -> Announcement:
        notices = []
        if self._max_connections < self._config.max_connections:
            notices.append(
                f"room for {self._max_connections} connections only: the limit of open files is too low for "
                f"{self._config.max_connections}; raise it (ulimit -Hn, LimitNOFILE=)"
            )
        return Announcement(urls={"http": self.base_url}, notices=notices)

    # ------------------------------------------------------------ Listener

    def mount_http(self, prefix: str, app: AsgiApp) -> Mount:
        """Raises: ValueError when the prefix is malformed or taken."""
        return self._router.http.mount(prefix, app)

    def mount_websocket(self, prefix: str, factory: WebSocketFactory) -> Mount:
        """Raises: ValueError when the prefix is malformed or taken."""
        return self._router.websockets.mount(prefix, factory)

    @property
    def address(self) -> tuple[str, int]:
        """Raises: Unavailable before `boot` and after `shutdown`."""
        if self._socket is None:
            raise Unavailable(self.name)
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def base_url(self) -> str:
        """Raises: Unavailable before `boot` and after `shutdown`."""
        host, port = self.address
        host = _ANY_ADDRESS.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
