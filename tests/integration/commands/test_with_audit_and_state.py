"""The command bus with the gate, the audit log, the state store and the event bus that a node gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.commands import Call, Command
from magmobo.contracts.errors import AuditUnavailable
from magmobo.contracts.events import Envelope
from magmobo.contracts.operations import OPERATIONS, RestartComponent
from magmobo.contracts.planes import ComponentStatus
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.commands.bus import CommandBus
from magmobo.kernel.commands.errors import KeyReused
from magmobo.kernel.places import audit_dir, state_file
from magmobo.kernel.redact import redact
from magmobo.kernel.security.errors import CapabilityDenied
from magmobo.kernel.security.gate import Gate
from magmobo.kernel.state.manager import StateManager

OPERATOR = Actor(name="uid:1000", role=Role.OPERATOR, via="control", address="127.0.0.1")
VIEWER = Actor(name="uid:1001", role=Role.VIEWER, via="control")
DESPERATE = Actor(name="uid:1001", role=Role.VIEWER, via="control", justification="the building burns")
RESTART = RestartComponent(component="magds")
STATUS = ComponentStatus("magds", "running", "healthy", 1, "2024-01-01T00:00:00Z")


class Node:
    """As much of a node as a command meets. `acts`: what the handler was called for."""

    def __init__(self, state: StateManager, audit: AuditLog) -> None:
        self.events = EventBus(origin="node")
        self.heard: list[Envelope[Any]] = []
        self.events.on("security.**", self.heard.append)
        self.audit, self.acts = audit, list[Call]()
        self.bus = CommandBus(
            gate=Gate(self.events.emit), audit=audit, state=state.scope("commands"), trace=self.events.trace
        )
        self.bus.handle("kernel", RestartComponent, self.restart)

    async def restart(self, command: RestartComponent, call: Call) -> ComponentStatus:
        self.acts.append(call)
        return STATUS

    async def recorded(self) -> list[tuple[str, str, str]]:
        records = await self.audit.read(after_seq=0, limit=100)
        return [(r.action, r.payload.get("phase", ""), r.severity) for r in records if r.category != "audit"]


@asynccontextmanager
async def node_on(folder: Path) -> AsyncIterator[Node]:
    state_file(folder).parent.mkdir(parents=True, exist_ok=True)
    state = StateManager(state_file(folder))
    await state.open()
    audit = AuditLog(audit_dir(folder), state.scope("audit"), mask=redact)
    await audit.open()
    node = Node(state, audit)
    try:
        yield node
    finally:
        await node.bus.close()
        await audit.close()
        await state.close()


async def test_a_command_leaves_intent_and_outcome_in_the_log_under_its_trace(tmp_path: Path) -> None:
    async with node_on(tmp_path) as node:
        await node.bus.run("component:restart", b'{"component":"magds"}', actor=OPERATOR, trace_id="t-1")
        records = [r for r in await node.audit.read(after_seq=0, limit=100) if r.action == "component.restart"]
        assert [record.payload["phase"] for record in records] == ["intent", "outcome"]
        assert {(record.actor, record.trace_id, record.ip_address) for record in records} == {
            ("uid:1000", "t-1", "127.0.0.1")
        }
        assert records[0].payload["params"] == {"component": "magds"}
        assert (records[1].payload["result"], records[1].payload["acted"]) == ("ok", True)


async def test_denials_and_broken_glass_are_in_the_log_and_on_the_bus_under_the_same_trace(tmp_path: Path) -> None:
    async with node_on(tmp_path) as node:
        with pytest.raises(CapabilityDenied):
            await node.bus.call(RESTART, actor=VIEWER, trace_id="t-1")
        await node.bus.call(RESTART, actor=DESPERATE, trace_id="t-2")
        assert await node.recorded() == [
            ("security.denied", "", "warning"),
            ("security.breakglass", "intent", "critical"),
            ("component.restart", "intent", "critical"),
            ("component.restart", "outcome", "critical"),
        ]
        assert [(event.topic, event.trace_id) for event in node.heard] == [
            ("security.capability_denied", "t-1"),
            ("security.breakglass", "t-2"),
        ]
        assert len(node.acts) == 1


async def test_an_answer_outlives_the_node_and_is_given_to_whoever_sends_its_key(tmp_path: Path) -> None:
    async with node_on(tmp_path) as node:
        tasks = [node.bus.call(RESTART, actor=OPERATOR, idempotency_key="k") for _ in range(10)]
        assert await asyncio.gather(*tasks) == [STATUS] * 10
        assert len(node.acts) == 1
    async with node_on(tmp_path) as node:
        assert await node.bus.call(RESTART, actor=OPERATOR, idempotency_key="k") == STATUS
        with pytest.raises(KeyReused):
            await node.bus.call(RestartComponent(component="magws"), actor=OPERATOR, idempotency_key="k")
        assert node.acts == []


async def test_a_log_that_is_shut_stops_what_must_be_recorded(tmp_path: Path) -> None:
    async with node_on(tmp_path) as node:
        await node.audit.close()
        with pytest.raises(AuditUnavailable):
            await node.bus.call(RESTART, actor=OPERATOR)
        with pytest.raises(CapabilityDenied):
            await node.bus.call(RESTART, actor=VIEWER)
        assert node.acts == []


@pytest.mark.parametrize("command_type", OPERATIONS, ids=lambda command_type: command_type.name)
async def test_every_action_of_the_kernels_commands_is_in_the_catalogue(
    command_type: type[Command], tmp_path: Path
) -> None:
    state = StateManager(tmp_path / "state.db")
    audit = AuditLog(tmp_path / "audit", state.scope("audit"), mask=redact)
    bus = CommandBus(gate=Gate(lambda event: None), audit=audit)
    bus.handle("kernel", command_type, lambda command, call: asyncio.sleep(0))
    for action in ("security.denied", "security.breakglass"):
        assert audit.action(action)
