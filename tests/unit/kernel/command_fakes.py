"""Stand-ins for what the command bus meets: an audit log and a state store in memory, and commands of our own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from magmobo.contracts.audit import AuditAction, AuditRecord, Severity
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.commands import Call, Command
from magmobo.contracts.errors import MagError, StateUnavailable, UnknownAuditAction
from magmobo.contracts.events import Event
from magmobo.contracts.secret import Secret
from magmobo.contracts.stores import StateEntry, StateWatch
from magmobo.kernel.commands.bus import CommandBus
from magmobo.kernel.security.gate import Gate
from magmobo.testing.clock import FakeClock

VIEWER = Actor(name="uid:1", role=Role.VIEWER, via="control")
OPERATOR = Actor(name="uid:2", role=Role.OPERATOR, via="control")
ADMIN = Actor(name="console", role=Role.ADMIN, via="console")
DESPERATE = Actor(name="uid:1", role=Role.VIEWER, via="control", justification="the building burns")


class Pong(Struct, frozen=True):
    value: int
    note: str = ""
    seen: tuple[str, ...] = ()


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    value: int = 0


class Ping(Command, frozen=True, kw_only=True):
    """Free for everybody, not audited."""

    name = "test:ping"
    reply = Pong
    value: int = 0


class Order(Command, frozen=True, kw_only=True):
    """Asks for a capability, is audited, knows dry runs."""

    name = "test:order"
    capability = "kernel.component.restart"
    audit_action = "test.order"
    reply = Pong
    dry_run = True
    value: int = 0


class Loose(Command, frozen=True, kw_only=True):
    """Audited when that is possible."""

    name = "test:loose"
    audit_action = "test.loose"
    reply = Pong


class Enrol(Command, frozen=True, kw_only=True):
    """One field of each kind a door may fill."""

    name = "test:enrol"
    capability = "kernel.secret.write"
    audit_action = "test.enrol"
    reply = Pong
    user: Annotated[str, Meta(pattern=r"^[a-z]+$", max_length=8)]
    password: Secret
    level: Literal["low", "high"] = "low"
    role: Role = Role.VIEWER
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    tags: Mapping[str, int] = {}
    home: Path | None = None
    inner: Place | None = None


class Broken(MagError):
    """What a handler refuses in these tests."""

    code = "MAG-TEST-001"
    exit_code = 9
    http_status = 418
    remedy = "Mend it."

    def __str__(self) -> str:
        return "it is broken"


class MemoryAudit:
    """An audit log that takes some turns of the loop. `failure`: raised instead of recording, once `allowed` is 0."""

    ACTIONS = ("test.order", "test.loose", "test.enrol", "security.denied", "security.breakglass")

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.allowed = 0
        self.hang: asyncio.Event | None = None

    async def record(
        self,
        action: str,
        *,
        actor: Actor,
        payload: Mapping[str, Any],
        trace_id: str = "",
        severity: Severity | None = None,
    ) -> AuditRecord:
        self.action(action)
        await asyncio.sleep(0)
        if self.hang is not None:
            await self.hang.wait()
        if self.failure is not None and self.allowed == 0:
            raise self.failure
        self.allowed = max(0, self.allowed - 1)
        kept = msgspec.json.decode(msgspec.json.encode(payload))
        self.records.append({"action": action, "actor": actor.name, "trace_id": trace_id, "severity": severity, **kept})
        await asyncio.sleep(0)
        return None  # type: ignore[return-value]

    def action(self, name: str) -> AuditAction:
        if name not in self.ACTIONS:
            raise UnknownAuditAction(name)
        return AuditAction(name, "notice", "test", privileged=name not in ("test.loose", "security.denied"))

    async def read(self, *, after_seq: int, limit: int) -> Sequence[AuditRecord]:
        raise NotImplementedError

    @property
    def head_seq(self) -> int:
        return len(self.records)

    def phases(self) -> list[tuple[str, str, str]]:
        """(action, phase, result) of each record."""
        return [(r["action"], r.get("phase", ""), r.get("result", "")) for r in self.records]


class MemoryState:
    """A state store that takes some turns of the loop. `fails`: names of methods that raise."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = copy.deepcopy(dict(values or {}))
        self.fails: set[str] = set()

    async def _turn(self, method: str) -> None:
        await asyncio.sleep(0)
        if method in self.fails:
            raise StateUnavailable("no room on the disk")

    async def get(self, key: str) -> StateEntry | None:
        await self._turn("get")
        return StateEntry(key, self.values[key], 1) if key in self.values else None

    async def entries(self, prefix: str = "") -> Sequence[StateEntry]:
        await self._turn("entries")
        return [StateEntry(key, value, 1) for key, value in sorted(self.values.items()) if key.startswith(prefix)]

    async def put(self, key: str, value: Any, *, expected_version: int | None = None) -> StateEntry:
        return (await self._put("put", {key: value}))[0]

    async def put_all(self, values: Mapping[str, Any]) -> Sequence[StateEntry]:
        return await self._put("put_all", values)

    async def _put(self, method: str, values: Mapping[str, Any]) -> Sequence[StateEntry]:
        await self._turn(method)
        for key, value in values.items():
            assert 1 <= len(key) <= 200
            encoded = msgspec.json.encode(value)
            assert len(encoded) <= 1_048_576
            self.values[key] = msgspec.json.decode(encoded)
        await asyncio.sleep(0)
        return [StateEntry(key, value, 1) for key, value in values.items()]

    async def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        await self._turn("delete")
        return self.values.pop(key, None) is not None

    def watch(self, prefix: str, handler: Any) -> StateWatch:
        raise NotImplementedError


class Room:
    """A command bus with its surroundings, and handlers that count their calls.

    `act` is what a handler awaits before it answers; replace it to fail, hang or look around.
    """

    def __init__(self, state: MemoryState | None = None, *, audited: bool = True, **options: Any) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.audit = MemoryAudit()
        self.state = state or MemoryState()
        self.reports: list[tuple[str, str, str, BaseException]] = []
        self.calls: list[tuple[Command, Call]] = []
        self.gate = Gate(self.events.append)
        self.bus = CommandBus(
            gate=self.gate,
            audit=self.audit if audited else None,
            state=self.state,
            time_s=self.clock.time_s,
            monotonic_s=self.clock.monotonic_s,
            on_failure=lambda *facts: self.reports.append(facts),
            **options,
        )
        for command_type in (Ping, Order, Loose, Enrol):
            self.bus.handle("tests", command_type, self.answer)

    async def answer(self, command: Any, call: Call) -> Any:
        self.calls.append((command, call))
        await self.act()
        return Pong(getattr(command, "value", 0))

    async def act(self) -> None:
        await asyncio.sleep(0)

    async def settled(self) -> None:
        """Return once nothing of the bus runs any more; fails when a task is left."""
        for _ in range(200):
            if not (self.bus.in_flight or self.bus.settling):
                break
            await asyncio.sleep(0)
        assert (self.bus.in_flight, self.bus.settling) == (0, 0)
        assert asyncio.all_tasks() <= {asyncio.current_task()}
