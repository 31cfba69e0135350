"""Migrations on a real server, as the node and as a guest: order, all or nothing, one node at a time, hooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import OwnSchemaRefused
from magmobo.components.magds.guests.service import GuestService
from magmobo.components.magds.migrations.errors import (
    MigrationChanged,
    MigrationFailed,
    MigrationIrreversible,
    MigrationsBusy,
)
from magmobo.components.magds.migrations.service import MigrationService, _lock
from magmobo.components.magds.pool import Pool
from magmobo.contracts.events import DatabaseMigrationApplied
from magmobo.contracts.guests import Migration
from magmobo.contracts.hooks import HookDenied, MigrationContext
from magmobo.kernel.bus.bus import EventBus, ScopedBus
from magmobo.kernel.hooks import HookBoard

ONE = Migration("0001", "people", "create table {0}people (id int);", "drop table {0}people")
TWO = Migration("0002", "names", "alter table {0}people add name text; create index on {0}people (name)",
                "alter table {0}people drop name")  # fmt: skip
THREE = Migration("0003", "rows", "insert into {0}people values (1, '100 % of it')", "delete from {0}people")


def placed(schema: str, *migrations: Migration) -> list[Migration]:
    return [Migration(m.version, m.name, m.up.format(schema), m.down.format(schema)) for m in migrations]


class Guard:
    """A hook chain that notes what it is told, and denies a version."""

    def __init__(self, denied: str = "") -> None:
        self.denied, self.told = denied, list[tuple[str, str, str]]()

    async def before(self, context: MigrationContext) -> MigrationContext:
        self.told.append(("before", context.direction, context.version))
        if context.version == self.denied:
            raise HookDenied("database.before_migration", "guard", "no")
        return context

    def after(self, context: MigrationContext) -> None:
        assert context.duration_s > 0
        self.told.append(("after", context.direction, context.version))

    async def around(self, context: MigrationContext, proceed: Callable[[], Awaitable[Any]]) -> Any:
        return await proceed()

    async def replace(self, context: MigrationContext) -> Mapping[str, Any] | None:
        return None

    async def gather(self, context: MigrationContext) -> Mapping[str, Mapping[str, Any]]:
        return {}


class Node:
    """The migration runner of one node, and what it emitted."""

    def __init__(self, dsn: str, oid: int) -> None:
        self.pool = Pool(partial(connect, dsn), size=4, idle_s=60)
        session = partial(self.pool.lease, timeout_s=5)
        self.guests = GuestService(dsn, session, database_oid=oid, acquire_timeout_s=5)
        self.hooks, bus = HookBoard(), ScopedBus(EventBus(), "test")
        self.events: list[DatabaseMigrationApplied] = []
        bus.on(DatabaseMigrationApplied, lambda envelope: self.events.append(envelope.data))
        self.migrations = MigrationService(session, self.guests, hooks=self.hooks, bus=bus)

    async def ask(self, query: str) -> Sequence[tuple[Any, ...]]:
        async with self.pool.lease(timeout_s=5) as connection:
            cursor = await connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else ()

    async def versions(self, guest: str) -> list[str]:
        return [one.version for one in await self.migrations.applied("shop", guest=guest)]


@asynccontextmanager
async def node_at(dsn: str) -> AsyncIterator[Node]:
    with psycopg.connect(dsn) as admin:
        row = admin.execute("select oid::int8 from pg_database where datname = current_database()").fetchone()
    assert row is not None
    node = Node(dsn, row[0])
    async with node.pool.lease(timeout_s=5) as connection, connection.transaction():
        await node.guests.ensure(connection, "shop", schema=True)
    try:
        yield node
    finally:
        await node.guests.forget("shop")
        async with node.pool.lease(timeout_s=5) as connection, connection.transaction():
            await node.guests.drop(connection, "shop", keep_schema=False)
        await node.guests.close()
        await node.pool.close()


WHOSE = pytest.mark.parametrize(("guest", "schema"), [("", "public."), ("shop", "")], ids=["node", "guest"])


@WHOSE
async def test_up_and_down_in_order_each_once(dsn: str, guest: str, schema: str) -> None:
    async with node_at(dsn) as node:
        run = partial(node.migrations.up, "shop", guest=guest)
        assert await node.versions(guest) == []
        assert await run(placed(schema, TWO, ONE)) == ["0001", "0002"]
        assert await run(placed(schema, ONE, TWO, THREE)) == ["0003"]
        assert await run(placed(schema, ONE, TWO, THREE)) == []
        applied = await node.migrations.applied("shop", guest=guest)
        assert [one.version for one in applied] == ["0001", "0002", "0003"]
        assert applied[0].down == ONE.down.format(schema)
        assert await node.ask(f"select name from {schema or 'ext_shop.'}people") == [("100 % of it",)]
        assert await node.migrations.applied("other", guest=guest) == []
        assert await node.migrations.down("shop", ["0001"], guest=guest) == ["0003", "0002"]
        assert await node.migrations.down("shop", [], guest=guest) == ["0001"]
        assert await node.ask(f"select to_regclass('{schema or 'ext_shop.'}people') is null") == [(True,)]
        told = [(one.component, one.version, one.direction) for one in node.events]
        assert told == [("shop", v, "up") for v in ("0001", "0002", "0003")] + [
            ("shop", v, "down") for v in ("0003", "0002", "0001")
        ]
        assert all(one.duration_s > 0 for one in node.events)


@WHOSE
@pytest.mark.parametrize(
    "bad",
    [
        "select 1/0",
        "create table oops (",
        "insert into nowhere values (1)",
        "select 1 \0 ; drop table mag.migration",
        "create table oops (id int); commit",
        "create table oops (id int); rollback; begin",
    ],
)
async def test_a_step_that_fails_takes_the_whole_call_back(dsn: str, guest: str, schema: str, bad: str) -> None:
    async with node_at(dsn) as node:
        await node.migrations.up("shop", placed(schema, ONE), guest=guest)
        with pytest.raises(MigrationFailed) as caught:
            await node.migrations.up("shop", [*placed(schema, ONE, TWO), Migration("0003", "bad", bad)], guest=guest)
        assert caught.value.version == "0003"
        if "commit" not in bad:  # a text that ends the transaction keeps what came before it; the guard refuses those
            assert await node.versions(guest) == ["0001"]
            columns = "select count(*) from information_schema.columns where table_name = 'people'"
            assert await node.ask(columns) == [(1,)]
        assert len(node.events) == 1


@WHOSE
async def test_a_changed_text_and_a_missing_way_back_are_refused(dsn: str, guest: str, schema: str) -> None:
    async with node_at(dsn) as node:
        one, two = placed(schema, ONE, TWO)
        await node.migrations.up("shop", [one, Migration("0002", "final", two.up)], guest=guest)
        with pytest.raises(MigrationChanged):
            await node.migrations.up("shop", [Migration("0001", "people", one.up + " ", one.down)], guest=guest)
        with pytest.raises(MigrationFailed, match="two migrations"):
            await node.migrations.up("shop", [two, two], guest=guest)
        with pytest.raises(MigrationIrreversible):
            await node.migrations.down("shop", [], guest=guest)
        assert await node.versions(guest) == ["0001", "0002"]


@WHOSE
async def test_hooks_are_asked_before_anything_runs_and_told_after(dsn: str, guest: str, schema: str) -> None:
    async with node_at(dsn) as node:
        guard = Guard(denied="0002")
        node.hooks.point("database.before_migration").chain = guard
        node.hooks.point("database.after_migration").chain = guard
        with pytest.raises(HookDenied):
            await node.migrations.up("shop", placed(schema, ONE, TWO), guest=guest)
        assert await node.versions(guest) == []
        assert guard.told == [("before", "up", "0001"), ("before", "up", "0002")]
        guard.denied, guard.told = "", []
        await node.migrations.up("shop", placed(schema, ONE, TWO), guest=guest)
        await node.migrations.down("shop", ["0001"], guest=guest)
        assert guard.told == [
            ("before", "up", "0001"), ("before", "up", "0002"), ("after", "up", "0001"), ("after", "up", "0002"),
            ("before", "down", "0002"), ("after", "down", "0002"),
        ]  # fmt: skip


@WHOSE
async def test_nodes_that_start_at_once_run_each_step_once(dsn: str, guest: str, schema: str) -> None:
    async with node_at(dsn) as node:
        steps = placed(schema, ONE, TWO, THREE)
        ran = await asyncio.gather(*(node.migrations.up("shop", steps, guest=guest) for _ in range(3)))
        assert sorted(len(versions) for versions in ran) == [0, 0, 3]


async def test_a_table_that_somebody_holds_is_not_waited_for_for_ever(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magmobo.components.magds.migrations.service._LOCK_TIMEOUT", "50ms")
    async with node_at(dsn) as node:
        await node.migrations.up("shop", placed("public.", ONE))
        with psycopg.connect(dsn) as holder:
            holder.execute("lock table people")
            with pytest.raises(MigrationsBusy):
                await node.migrations.up("shop", placed("public.", ONE, TWO))
        async with node.pool.lease(timeout_s=5) as connection, connection.transaction():
            await _lock(connection, "shop")
            with pytest.raises(MigrationsBusy, match="another node"):
                await node.migrations.up("shop", placed("public.", ONE, TWO))
            assert await node.migrations.up("other", [Migration("1", "nothing", "select 1")]) == ["1"]
        assert await node.migrations.up("shop", placed("public.", ONE, TWO)) == ["0002"]


async def test_a_ledger_that_is_not_ours_is_not_believed(dsn: str) -> None:
    async with node_at(dsn) as node:
        with psycopg.connect(dsn, autocommit=True) as admin:
            stranger = f"stranger_{admin.info.dbname}"
            admin.execute(f"create role {stranger}".encode())
            admin.execute("create table mag.migration (id int)")
            admin.execute(f"alter table mag.migration owner to {stranger}".encode())
        try:
            with pytest.raises(OwnSchemaRefused, match=stranger):
                await node.migrations.applied("shop")
            with pytest.raises(OwnSchemaRefused, match=stranger):
                await node.migrations.up("shop", placed("public.", ONE))
        finally:
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(f"drop owned by {stranger} cascade; drop role {stranger}".encode())
