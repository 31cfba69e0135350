"""A console on a real port, with the least behind it: an operators' door with one token, and a realtime plane."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
from tests.integration.console.played_extensions import PlayedExtensions

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.listener.config import ListenerConfig
from magmobo.console.component import Console
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.configuration import (
    ConfigChange,
    ConfigEntry,
    ConfigTree,
    ConfigVersion,
    ConfigVersions,
    ReloadOutcome,
    ReloadPlan,
)
from magmobo.contracts.errors import ReloadRefused, Unavailable
from magmobo.contracts.planes import ComponentStatus, NodeStatus
from magmobo.contracts.settings import Effect

TOKEN = "the-admin-token-of-this-test"


class SteppedClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def time_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(0)


class PlainContext:
    component = "console"
    instance_id = "test"
    environment = "test"
    data_dir = Path("/nonexistent")
    bus = None

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.log = structlog.get_logger()

    def hide(self, text: str) -> str:
        return text.replace("planted-secret", "***")

    def spawn(self, coroutine: Any, *, name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(coroutine, name=name)


class OneToken:
    """Operators of a node with a few components."""

    components: Sequence[ComponentStatus] = (
        ComponentStatus("listener", "running", "healthy", 0, "2026-01-02T03:04:05Z"),
        ComponentStatus("magds", "running", "degraded", 2, "2026-01-02T03:04:05Z", "<b>disk</b> nearly full"),
        ComponentStatus("fresh", "running", "unknown", 0, "2026-01-02T03:04:05Z"),
        ComponentStatus("off", "disabled", "unknown", 0, "2026-01-02T03:04:05Z", "disabled"),
        ComponentStatus("stuck", "quarantined", "unknown", 3, "2026-01-02T03:04:05Z", "no disk"),
    )

    def status(self) -> NodeStatus:
        return NodeStatus(
            "node-1", "ready", "test", "0.1.0", 93_784.0, self.components, {"rest": "http://127.0.0.1:1/rest/v1/"},
            ("curl 'http://127.0.0.1:1/rest/v1/flights?limit=3'",), ("wal_level is replica: no live changes",),
        )  # fmt: skip

    admin_token_number = 1

    def __init__(self) -> None:
        self.settings = PlayedSettings()
        self.extensions = PlayedExtensions()

    def admin_token_matches(self, candidate: str) -> bool:
        return candidate == TOKEN

    async def run(
        self,
        command: str,
        params: bytes = b"{}",
        *,
        actor: Actor,
        timeout_s: float = 30.0,
        dry_run: bool = False,
        idempotency_key: str = "",
    ) -> bytes:
        assert (actor.name, actor.via, actor.role) == ("console", "console", Role.ADMIN)
        if command == "kernel:status":
            return msgspec.json.encode(self.status())
        if command.startswith("extension:"):
            return msgspec.json.encode(self.extensions.answer(command, msgspec.json.decode(params), dry_run=dry_run))
        return msgspec.json.encode(await self.settings.answer(command, msgspec.json.decode(params), dry_run=dry_run))


class PlayedSettings:
    """Settings of a node whose versions differ in one key; `entries` are others. `asked`: what was to be changed.

    `refusal` is raised instead of going back; `gate` holds the answer back until it is set.
    """

    def __init__(self) -> None:
        self.entries: list[ConfigEntry] = []
        self.more_changes: list[ConfigChange] = []
        self.refused, self.held, self.refusal, self.note = "", False, "", ""
        self.values = {1: 8, 2: 16}
        self.asked: list[tuple[int, bool]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def version(self) -> int:
        return max(self.values)

    async def answer(self, command: str, params: dict[str, Any], *, dry_run: bool) -> object:
        if command == "config:show":
            pool = ConfigEntry("magds.pool_size", self.values[self.version], "mag.toml line 3", "file", Effect.LIVE)
            return ConfigTree(self.version, "test", [pool, *self.entries], self.held, self.refused)
        if command == "config:history":
            return ConfigVersions([self._meta(number) for number in sorted(self.values, reverse=True)])
        assert command == "config:rollback"
        self.asked.append((params["version"], dry_run))
        return await self._roll_back(params["version"], dry_run=dry_run)

    async def _roll_back(self, version: int, *, dry_run: bool) -> ReloadOutcome:
        await self.gate.wait()
        if self.refusal:
            raise ReloadRefused(self.refusal)
        old, new = self.values[self.version], self.values[version]
        changes = [ConfigChange("magds.pool_size", old, new, "mag.toml line 3", Effect.LIVE), *self.more_changes]
        plan = ReloadPlan(changes, ["magds"], ["demo"], ["kernel.environment"]) if old != new else ReloadPlan([])
        if not dry_run:
            self.values[self.version + 1] = new
            self.held = True
        return ReloadOutcome(self.version, not dry_run, plan)

    def _meta(self, number: int) -> ConfigVersion:
        keys = ["magds.pool_size"] if number > 1 else []
        is_running = number == self.version
        return ConfigVersion(number, "2026-01-02T03:04:05Z", "command", "uid:0", keys, is_running, True, self.note)


@dataclass
class PlainRealtime:
    app_key: str = "app-key"
    channels: list[str] = field(default_factory=lambda: ["db.public.flights", "private-db.public.orders"])
    down: bool = False

    def table_channels(self) -> Sequence[str]:
        if self.down:
            raise Unavailable('component "magws"')
        return self.channels

    def authorise(self, socket_id: str, channel: str) -> str:
        return f"app-key:signed-{socket_id}-{channel}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cookie(self) -> str:
        """`name=value` of the cookie this answer sets."""
        return str(self.headers["set-cookie"]).partition(";")[0]


class Browser:
    """One HTTP client of a running console; remembers cookie and CSRF token like the page does."""

    def __init__(
        self,
        listener: ListenerComponent,
        console: Console,
        context: PlainContext,
        realtime: PlainRealtime,
        operators: OneToken,
    ) -> None:
        self.listener, self.console, self.context, self.realtime = listener, console, context, realtime
        self.operators, self.settings = operators, operators.settings
        self.port = listener.address[1]
        self.cookie = self.csrf = ""

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        sent = {"X-CSRF-Token": self.csrf} | ({"Cookie": self.cookie} if self.cookie else {})
        content = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await asyncio.to_thread(self._request, method, path, content, sent | dict(headers or {}))

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    async def sign_in(self, token: str = TOKEN) -> Answer:
        answer = await self.request("POST", "/console/login", {"token": token})
        if answer.status == 200:
            self.cookie, self.csrf = answer.cookie, answer.json["csrf_token"]
        return answer


@asynccontextmanager
async def running_console(*, realtime: bool = True) -> AsyncIterator[Browser]:
    context, plane, operators = PlainContext(), PlainRealtime(), OneToken()
    listener = ListenerComponent(context, None)  # type: ignore[arg-type]
    listener.configure(ListenerConfig(port=0))
    console = Console(context, listener, operators, plane if realtime else None)  # type: ignore[arg-type]
    await listener.boot()
    await listener.start()
    await console.start()
    try:
        yield Browser(listener, console, context, plane, operators)
    finally:
        await console.stop()
        await listener.stop()
        await listener.shutdown(5)
