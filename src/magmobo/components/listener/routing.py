"""Who serves which path: the mount tables and the ASGI application at the root of the port.

Boundary: picks the application and answers where there is none; bodies, methods and meanings belong to applications.
An application that raises gets its client a problem document with a correlation id, and the connection stays sane.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog

from magmobo.components.listener.errors import (
    ApplicationFailed,
    MountReleased,
    RouteNotFound,
    Stopping,
    TooManyConnections,
    UpgradeRequired,
)
from magmobo.components.listener.hosts import HostGuard
from magmobo.components.listener.probes import Probes
from magmobo.components.listener.problems import Send, problem, respond
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import AsgiApp, Message, Scope
from magmobo.contracts.websocket import WebSocketFactory

T = TypeVar("T")


class MountTable(Generic[T]):
    """Prefixes and what serves them; the longest one wins, and `/` is the root path alone, so that what nobody serves
    stays a 404. A released prefix is remembered, so that it answers 503.
    """

    def __init__(self) -> None:
        self._targets: dict[str, T | None] = {}
        self._by_length: list[str] = []

    def mount(self, prefix: str, target: T) -> MountPoint[T]:
        """Serve `prefix` by `target` until the mount is released.

        Raises: ValueError when the prefix does not begin and end with `/`, or is taken.
        """
        if not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"a prefix begins and ends with a slash, {prefix!r} does not")
        if self._targets.get(prefix) is not None:
            raise ValueError(f"the prefix {prefix} is taken")
        self._targets[prefix] = target
        self._by_length = sorted(self._targets, key=len, reverse=True)
        return MountPoint(self, prefix, target)

    def release(self, prefix: str, target: T) -> None:
        """Stop serving `prefix`, unless somebody else has mounted it since."""
        if self._targets[prefix] is target:
            self._targets[prefix] = None

    def find(self, path: str) -> T:
        """What serves `path`.

        Raises: RouteNotFound, MountReleased.
        """
        for prefix in self._by_length:
            if _serves(prefix, path):
                target = self._targets[prefix]
                if target is None:
                    raise MountReleased
                return target
        raise RouteNotFound

    def covers(self, path: str) -> bool:
        """Whether `path` lies below a prefix, released or not."""
        try:
            self.find(path)
        except RouteNotFound:
            return False
        except MountReleased:
            return True
        return True


def _serves(prefix: str, path: str) -> bool:
    if prefix == "/":
        return path == "/"
    return path.startswith(prefix) or (len(path) == len(prefix) - 1 and prefix.startswith(path))


class MountPoint(Generic[T]):
    """The `Mount` that a component holds."""

    def __init__(self, table: MountTable[T], prefix: str, target: T) -> None:
        self._table, self._prefix, self._target = table, prefix, target

    def release(self) -> None:
        """Stop serving; calling it twice is fine."""
        self._table.release(self._prefix, self._target)


class Router:
    """The root ASGI application."""

    def __init__(self, *, probes: Probes, log: structlog.stdlib.BoundLogger) -> None:
        self.http: MountTable[AsgiApp] = MountTable()
        self.websockets: MountTable[WebSocketFactory] = MountTable()
        self._probes, self._log = probes, log
        self._hosts: HostGuard | None = None

    def guard_hosts(self, hosts: HostGuard) -> None:
        """From now on answer only for these hosts; the probes answer for any."""
        self._hosts = hosts

    def check_host(self, headers: list[tuple[bytes, bytes]], http_version: str) -> None:
        """Raises: HostNotAllowed, BadRequest."""
        if self._hosts is not None:
            self._hosts.check(headers, http_version)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        await self._serve(self._choose, scope, receive, send)

    async def overloaded(self, scope: Scope, receive: Any, send: Send) -> None:
        """The application of a connection above the limit: the probes answer, nothing else does."""
        await self._serve(self._choose_overloaded, scope, receive, send)

    async def _serve(self, choose: Callable[[Scope], AsgiApp], scope: Scope, receive: Any, send: Send) -> None:
        exchange = _Exchange(receive, send)
        try:
            app = choose(scope)
            await app(scope, exchange.receive, exchange.send)
            exchange.check_answered()
        except asyncio.CancelledError:
            # The task is cancelled only when the port gives up waiting for it.
            if not exchange.started:
                await respond(send, *problem(Stopping()))
            raise
        except Exception as error:
            await self._answer_failure(error, scope, exchange)

    def _choose(self, scope: Scope) -> AsgiApp:
        path = scope["path"]
        if path in self._probes.paths:
            return self._probes
        self.check_host(scope["headers"], scope["http_version"])
        try:
            return self.http.find(path)
        except RouteNotFound:
            if self.websockets.covers(path):
                raise UpgradeRequired from None
            raise

    def _choose_overloaded(self, scope: Scope) -> AsgiApp:
        if scope["path"] in self._probes.paths:
            return self._probes
        raise TooManyConnections

    async def _answer_failure(self, error: Exception, scope: Scope, exchange: _Exchange) -> None:
        correlation_id = ""
        answer = error if isinstance(error, MagError) else ApplicationFailed()
        if answer.http_status == 500:
            correlation_id = secrets.token_hex(8)
            self._log.error(
                "request_failed",
                method=scope["method"],
                path=scope["path"],
                correlation_id=correlation_id,
                exc_info=error,
            )
        if exchange.started:  # too late for a status: uvicorn ends the connection, so the client sees a torn body
            raise error
        await respond(exchange.send, *problem(answer, correlation_id))


class _Exchange:
    """One request and how far its response has come."""

    __slots__ = ("_receive", "_send", "disconnected", "finished", "started")

    def __init__(self, receive: Any, send: Send) -> None:
        self._receive, self._send = receive, send
        self.started = self.finished = self.disconnected = False

    async def receive(self) -> Message:
        message: Message = await self._receive()
        if message["type"] == "http.disconnect":
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True

    def check_answered(self) -> None:
        """Raises: RuntimeError when the application returned without answering a client that is still there."""
        if not self.finished and not self.disconnected:
            raise RuntimeError("the application returned without a complete response")
