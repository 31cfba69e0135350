"""Rows of users' tables pass over the bus; who looks at a node sees that they did, and none of what is in them."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.events import DatabaseChange
from magmobo.testing.harness import running_kernel

DEVELOPER = Actor(name="uid:1", role=Role.DEVELOPER, via="control")
OPERATOR = Actor(name="uid:1", role=Role.OPERATOR, via="control")
ROW = b'{"iban": "DE02 1203 0000 0000 2020 51", "diagnosis": "F32.1"}'


def change(op: str) -> DatabaseChange:
    record, old = (None if op == "delete" else Raw(ROW)), (None if op == "insert" else Raw(ROW))
    return DatabaseChange("db", "public", "patients", op, "0.0", "2024-01-01T00:00:00Z", record, old)  # type: ignore[arg-type]


@pytest.mark.parametrize(("command", "actor"), [("kernel:events", DEVELOPER), ("diagnostics:dump", OPERATOR)])
async def test_no_row_is_told(command: str, actor: Actor) -> None:
    async with running_kernel() as kernel:
        for op in ("insert", "update", "delete"):
            kernel.bus.emit(change(op))
        told = await kernel.services.commands.run(command, actor=actor)
    assert b"patients" in told
    assert b"1203 0000" not in told
    assert b"F32.1" not in told


async def test_that_there_was_a_row_is_told() -> None:
    async with running_kernel() as kernel:
        kernel.bus.emit(change("insert"))
        told = await kernel.services.commands.run("kernel:events", b'{"pattern": "database.*"}', actor=DEVELOPER)
    (event,) = msgspec.json.decode(told)["events"]
    assert (event["data"]["record"], event["data"]["old_record"]) == ("***", None)


async def test_subscribers_get_the_rows() -> None:
    async with running_kernel() as kernel:
        heard: list[Raw | None] = []
        kernel.bus.on(DatabaseChange, lambda envelope: heard.append(envelope.data.record))
        kernel.bus.emit(change("insert"))
    assert heard == [Raw(ROW)]
