"""A change service over a real server, with the node's own bus and clock, and what it emitted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
import structlog

from magmobo.components.magds.changes.service import ChangeService
from magmobo.components.magds.config import MagDSConfig
from magmobo.components.magds.schema_watch import SchemaWatch
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost, DatabaseSchemaChanged, Envelope, SystemReady
from magmobo.contracts.planes import TableName
from magmobo.kernel.bus.bus import EventBus, ScopedBus
from magmobo.kernel.clock import SystemClock


def spawn(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


def table(text: str) -> TableName:
    schema, _, name = text.rpartition(".")
    return TableName(schema or "public", name)


def tables(*names: str) -> list[TableName]:
    return [table(name) for name in names]


class Node:
    """One service, its schema watch, and every event they emitted, in order."""

    def __init__(self, dsn: str, *, retention_managed: bool = False, **config: Any) -> None:
        self.changes: list[DatabaseChange] = []
        self.lost: list[DatabaseChangesLost] = []
        self.schema: list[DatabaseSchemaChanged] = []
        self.bus = bus = ScopedBus(EventBus(), "test")
        bus.on(DatabaseChange, self._on_change)
        bus.on(DatabaseChangesLost, lambda envelope: self.lost.append(envelope.data))
        bus.on(DatabaseSchemaChanged, lambda envelope: self.schema.append(envelope.data))
        parts: dict[str, Any] = {
            "conninfo": dsn, "bus": bus, "clock": SystemClock(), "log": structlog.get_logger(), "spawn": spawn,
        }  # fmt: skip
        self.service = ChangeService(
            source="test", config=MagDSConfig(**config), retention_managed=retention_managed, **parts
        )
        self.watch = SchemaWatch(**parts)

    def _on_change(self, envelope: Envelope[DatabaseChange]) -> None:
        self.changes.append(envelope.data)

    async def publish(self, *names: str) -> Sequence[Any]:
        return await self.service.publish(tables(*names))

    def everybody_asked(self) -> None:
        """The node is ready: what nobody wants goes."""
        self.bus.emit(SystemReady("test", "test", 0.0))

    async def kill(self) -> None:
        """End without a word to the server, as kill -9 would."""
        reader = self.service._reader
        stream = reader._stream
        if stream is not None:
            asyncio.get_running_loop().remove_reader(stream._watched)
            stream._watched = -1
            stream._pgconn.finish()
            reader._stream = None
        await self.service.stop(clean=False)
        await self.watch.stop()

    @property
    def live(self) -> list[DatabaseChange]:
        return [change for change in self.changes if not change.replayed]


@asynccontextmanager
async def running(
    dsn: str, *publish: str, watch: bool = False, clean: bool = False, ready: bool = True, **config: Any
) -> AsyncIterator[Node]:
    node = Node(dsn, **config)
    if watch:
        await node.watch.start()
    await node.service.start()
    if ready:
        node.everybody_asked()
    try:
        if publish:
            await node.publish(*publish)
        yield node
    finally:
        await node.service.stop(clean=clean)
        await node.service.shutdown()
        await node.watch.stop()


async def until(condition: Callable[[], Any], what: str = "", timeout_s: float = 30.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(0.005)


def execute(dsn: str, *statements: str) -> None:
    """Run statements as another client would, each in its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def record(change: DatabaseChange) -> Any:
    return None if change.record is None else msgspec.json.decode(change.record)


def old_record(change: DatabaseChange) -> Any:
    return None if change.old_record is None else msgspec.json.decode(change.old_record)
