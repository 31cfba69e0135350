"""A realtime plane without sockets: real bus, real history, fake clock, connections in memory.

`Stream` stands for the change reader: it keeps the real history and emits on the real bus, at a test's word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from msgspec import Raw, Struct, json

from magmobo.components.magds.changes.history import History
from magmobo.components.magds.changes.positions import position_text
from magmobo.components.magws import signing
from magmobo.components.magws.config import AppConfig, MagWSConfig, TableConfig
from magmobo.components.magws.plane import Plane
from magmobo.components.magws.published import TableBook
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost
from magmobo.contracts.planes import Gap, PublishedTable, RefusedTable, Replay, TableName
from magmobo.contracts.secret import Secret
from magmobo.kernel.bus.bus import EventBus, ScopedBus
from magmobo.kernel.hooks import HookBoard
from magmobo.testing.clock import FakeClock
from magmobo.testing.websocket import MemoryConnection

APP = AppConfig(id="7", key="key7", secret=Secret("secret7"), client_events=True)
FLIGHTS = TableName("public", "flights")


class Stream:
    """The contract `Changes` over the real history."""

    def __init__(self, bus: ScopedBus, *, limit_bytes: int = 1 << 26) -> None:
        self._bus = bus
        self.history = History(limit_bytes=limit_bytes, limit_s=300)
        self.epoch = "epoch-1"
        self.lsn = 100
        self.ready = asyncio.Event()
        self.ready.set()
        self.unavailable: MagError | None = None
        self.may_publish = asyncio.Event()
        self.may_publish.set()
        self.tables: dict[TableName, PublishedTable] = {}
        self.history.reset(self.lsn)

    async def publish(self, tables: Sequence[TableName]) -> Sequence[PublishedTable | RefusedTable]:
        await self.may_publish.wait()
        self.tables = {
            table: PublishedTable(table, ("id", "dest", "note"), ("id",), table.name == "log", table.name == "full")
            for table in tables
            if table.name != "absent"
        }
        return [self.tables.get(t) or RefusedTable(t, "MAG-DS-111", "no such table", "correct it") for t in tables]

    def published(self, table: TableName) -> PublishedTable | None:
        return self.tables.get(table)

    async def caught_up(self) -> None:
        await self.ready.wait()
        if self.unavailable is not None:
            raise self.unavailable

    @property
    def position(self) -> str:
        return self.history.head

    def replay(self, table: TableName, epoch: str, position: str) -> Replay | Gap:
        if epoch != self.epoch:
            return Gap(position, self.position, "epoch_changed")
        return self.history.after(table, position)

    # ------------------------------------------------------------ what a test makes happen

    def commit(
        self,
        record: dict[str, Any] | None,
        old: dict[str, Any] | None = None,
        *,
        op: Any = "insert",
        table: TableName = FLIGHTS,
        replayed: bool = False,
    ) -> DatabaseChange:
        """One change, committed, kept and emitted."""
        return self.commit_raw(
            None if record is None else json.encode(record),
            None if old is None else json.encode(old),
            op=op,
            table=table,
            replayed=replayed,
        )

    def commit_raw(
        self,
        record: bytes | None,
        old: bytes | None = None,
        *,
        op: Any = "insert",
        table: TableName = FLIGHTS,
        replayed: bool = False,
    ) -> DatabaseChange:
        """The same with rows as the text that a server sent, whatever it holds."""
        self.lsn += 1
        change = DatabaseChange(
            source="test",
            schema=table.schema,
            table=table.name,
            op=op,
            position=position_text(self.lsn, 1),
            commit_time="2026-01-01T00:00:00Z",
            record=None if record is None else Raw(record),
            old_record=None if old is None else Raw(old),
            replayed=replayed,
        )
        self.history.append(self.history.table(table), change, 0.0)
        self._bus.emit(change)
        return change

    def lose(self, reason: str = "slot lost") -> None:
        """History is cut: a new epoch, and everybody is told."""
        start = self.position
        self.lsn += 1000
        self.history.reset(self.lsn)
        self.epoch += "'"
        self._bus.emit(DatabaseChangesLost(self.epoch, start, self.position, reason))


class Catalogue(Struct):
    """As much of `Database` as the book asks: rows of pg_class."""

    row_security: set[TableName] = set()

    def session(self, *, timeout_s: float | None = None) -> Any:
        return _Session(self.row_security)


class _Session:
    def __init__(self, row_security: set[TableName]) -> None:
        self._row_security = row_security

    async def __aenter__(self) -> _Session:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def execute(self, _: str, names: tuple[list[str], list[str]]) -> _Session:
        self._asked = [TableName(schema, name) for schema, name in zip(*names, strict=True)]
        return self

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return [(t.schema, t.name, 1, t in self._row_security, "d", "r", ["id"], [2]) for t in self._asked]


class World:
    """One plane and what surrounds it."""

    def __init__(self, config: MagWSConfig, *, history_bytes: int = 1 << 26) -> None:
        self.bus = EventBus()
        scoped = ScopedBus(self.bus, "magws")
        self.clock = FakeClock()
        self.stream = Stream(scoped, limit_bytes=history_bytes)
        self.catalogue = Catalogue()
        self.book = TableBook(config.tables, self.stream, self.catalogue)  # type: ignore[arg-type]
        self.hooks = HookBoard()
        self.plane = Plane(config, self.stream, self.book, scoped, self.hooks, self.clock, structlog.get_logger())
        scoped.on(DatabaseChange, self.plane.feed.on_change)
        scoped.on(DatabaseChangesLost, self.plane.feed.on_lost)

    def connect(self, *, key: str = "key7", protocol: str = "7", take_bytes: int | None = None) -> MemoryConnection:
        connection = MemoryConnection(take_bytes=take_bytes)
        return connection.open(self.plane.open, f"/app/{key}", {"protocol": protocol})

    async def subscribe(self, connection: MemoryConnection, *channels: str) -> None:
        for channel in channels:
            auth = signing.channel_auth(APP.key, APP.secret, socket_id(connection), channel)
            connection.send({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}})
        await self.settle()

    async def settle(self) -> None:
        await self.clock.advance(0)


def socket_id(connection: MemoryConnection) -> str:
    return connection.session.socket_id  # type: ignore[union-attr, no-any-return]


@asynccontextmanager
async def world(
    *tables: str | TableConfig, app: AppConfig = APP, history_bytes: int = 1 << 26, **settings: Any
) -> AsyncIterator[World]:
    entries = tuple(t if isinstance(t, TableConfig) else TableConfig(table=t, access="public") for t in tables)
    made = World(MagWSConfig(apps=(app,), tables=entries, **settings), history_bytes=history_bytes)
    await made.book.refresh()
    tasks = [asyncio.create_task(run) for run in (made.plane.feed.followers.run(), made.plane.leavers.run())]
    try:
        yield made
    finally:
        await made.plane.forget_waiting()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


def hello(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"event": "mag:hello", "data": {"resume": list(entries)}}


def events(messages: Iterable[dict[str, Any]]) -> list[str]:
    return [message["event"] for message in messages]


def ids(messages: Iterable[dict[str, Any]]) -> list[int]:
    """Which rows arrived, in order."""
    return [m["data"]["record"]["id"] for m in messages if m["event"] in ("insert", "update")]
