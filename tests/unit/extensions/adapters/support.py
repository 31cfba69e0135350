"""Endpoints without a port: an ASGI client, a worker that answers as a test says, a gateway that knows one token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from msgspec import Raw, Struct, json
from tests.unit.extensions.api.support import installed

from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import AsgiApp, Caller
from magmobo.extensions.adapters.maggate import CAPABILITY, Endpoints
from magmobo.extensions.installed import Grant, Installed, Question
from magmobo.extensions.package.manifest import EndpointBinding
from magmobo.kernel.hooks import HookBoard
from magx import wire

TOKEN = b"Bearer good"
DEADLINE_S = 60.0


class Answer(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.decode(self.body)


class Refused(MagError):
    """A token that is none."""

    code = "MAG-GATE-011"
    http_status = 401


class Gateway:
    """Knows one token; nobody in particular is `anonymous`, or refused when that is empty."""

    def __init__(self, anonymous: str = "") -> None:
        self.anonymous = anonymous
        self.schemas = ("public",)

    def identify(self, authorization: bytes | None) -> Caller:
        if authorization == TOKEN:
            return Caller("member", False, b'{"role":"member","sub":"7"}')
        if authorization is None and self.anonymous:
            return Caller(self.anonymous, True, b"{}")
        raise Refused


class Worker:
    """Answers a question with `answer(argument)`: a map, or an exception to raise."""

    def __init__(self, extension: Installed, answer: Callable[[Any], Any] | Any = None) -> None:
        self.installed, self._answer = extension, answer
        self.asked: list[Question] = []
        self.told: list[Any] = []
        self.cancelled = 0

    async def ask(self, question: Question) -> Raw:
        self.asked.append(question)
        self.told.append(wire.value(question.argument))
        answer = self._answer(self.told[-1]) if callable(self._answer) else self._answer
        try:
            if asyncio.iscoroutine(answer):
                answer = await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return wire.raw({"status": 200, "headers": {}, "body": b""} if answer is None else answer)


class Port:
    """As much of `Listener` as is asked: remembers what is mounted."""

    def __init__(self) -> None:
        self.mounted: dict[str, AsgiApp] = {}
        self.address, self.base_url = ("127.0.0.1", 1), "http://127.0.0.1:1"

    def mount_http(self, prefix: str, app: AsgiApp) -> Any:
        self.mounted[prefix] = app
        port = self

        class Mounted:
            def release(self) -> None:
                port.mounted.pop(prefix, None)

        return Mounted()

    def mount_websocket(self, prefix: str, factory: Any) -> Any:
        raise AssertionError


class Door:
    """Endpoints and what surrounds them; `ask` is one request."""

    def __init__(self, gateway: Gateway | None = None) -> None:
        self.hooks, self.port = HookBoard(), Port()
        self.endpoints = Endpoints(
            self.port,
            gateway,
            self.hooks,
            holds=lambda extension, capability: capability in extension.grants,
            log=structlog.get_logger(),
            hide=lambda text: text.replace("hunter2", "***"),
        )

    async def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] = {},
        *,
        query: str = "",
        token: bool = True,
        receive: Any = None,
    ) -> Answer:
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        if token:
            pairs.append((b"authorization", TOKEN))
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": pairs}
        incoming = [{"type": "http.request", "body": body}]
        sent: list[Any] = []

        async def receive_body() -> Any:
            return incoming.pop() if incoming else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(DEADLINE_S):
            await self.endpoints(scope, receive or receive_body, send)
        if not sent:
            return Answer(0, {}, b"")
        start, *bodies = sent
        names = [name.decode() for name, _ in start["headers"]]
        assert len(set(names)) == len(names), "a header is sent twice"
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(message["body"] for message in bodies))


def extension(extension_id: str = "greeter", *endpoints: Mapping[str, Any]) -> Installed:
    made = installed(extension_id, endpoints=[binding(**one) for one in endpoints or ({},)])
    made.grants = {CAPABILITY: Grant(capability=CAPABILITY, rate_per_minute=1000)}
    return made


def binding(**fields: Any) -> EndpointBinding:
    return EndpointBinding(**({"method": "GET", "path": "/hello"} | fields))


async def door(*endpoints: dict[str, Any], answer: Any = None, gateway: Gateway | None = None) -> tuple[Door, Worker]:
    """Endpoints with one extension, `greeter`, behind them."""
    made, worker = Door(gateway or Gateway()), Worker(extension("greeter", *endpoints), answer)
    made.endpoints.start()
    await made.endpoints.attach(worker)
    return made, worker
