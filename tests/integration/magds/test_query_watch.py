"""What others see of storage at run time: queries, slow queries, health; and guests over a restart of the component."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from magmobo.components.magds.component import MagDS
from magmobo.components.magds.config import MagDSConfig
from magmobo.components.magds.query_watch import sql_hash
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import DeadlineExceeded
from magmobo.contracts.events import DatabaseQueryExecuted, DatabaseSlowQueryDetected
from magmobo.contracts.guests import Guests, Migration, Migrations
from magmobo.contracts.health import HealthStatus
from magmobo.contracts.hooks import HealthContext, HookDenied, QueryContext
from magmobo.contracts.planes import Database, Identity, Statement
from magmobo.contracts.secret import Secret
from magmobo.kernel.kernel import Kernel
from magmobo.testing.harness import running_kernel


class Plane(Component):
    """Asks for everything that the mediation plane asks of storage."""

    name = "plane"
    seen: Plane

    def __init__(
        self, context: Context, database: Needs[Database], guests: Needs[Guests], migrations: Needs[Migrations]
    ) -> None:
        self.context, self.database, self.guests, self.migrations = context, database, guests, migrations
        Plane.seen = self


class Chain:
    """Takes part at a point; `deny` refuses, `answer` is what `gather` says."""

    def __init__(self, *, deny: str = "", answer: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.deny, self.answer, self.told = deny, answer or {}, list[Any]()

    async def before(self, context: Any) -> Any:
        return context

    def after(self, context: Any) -> None:
        self.told.append(context)

    async def around(self, context: QueryContext, proceed: Callable[[], Awaitable[Any]]) -> Any:
        self.told.append(context)
        if self.deny and self.deny in context.sql:
            raise HookDenied("database.around_query", "guard", "not this one")
        return await proceed()

    async def replace(self, context: Any) -> Mapping[str, Any] | None:
        return None

    async def gather(self, context: HealthContext) -> Mapping[str, Mapping[str, Any]]:
        self.told.append(context)
        return self.answer


@asynccontextmanager
async def plane_at(dsn: str, **settings: Any) -> AsyncIterator[tuple[Kernel, Plane]]:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "do $$ begin create role watch_reader nologin; exception when duplicate_object or unique_violation "
            "then null; end $$; create table if not exists things as select generate_series(1, 3) as id; "
            "grant select on things to watch_reader"
        )
    with tempfile.TemporaryDirectory() as scratch:
        config = {"magds": {"dsn": dsn, **settings}}
        async with running_kernel(MagDS, Plane, config=config, data_dir=Path(scratch)) as kernel:
            yield kernel, Plane.seen


def reader(query: str, *params: bytes) -> tuple[Statement, Identity]:
    return Statement(query.encode(), params), Identity("watch_reader")


async def test_queries_are_told_only_to_listeners_and_without_values(dsn: str) -> None:
    query = "select id from things where id::text <> $1"
    async with plane_at(dsn) as (_, plane):
        heard: list[DatabaseQueryExecuted] = []
        await plane.database.run(*reader(query, b"secret"), read_only=True)
        listening = plane.context.bus.on(DatabaseQueryExecuted, lambda envelope: heard.append(envelope.data))
        await plane.database.run(*reader(query, b"secret"), read_only=True)
        with pytest.raises(psycopg.errors.UndefinedTable):
            await plane.database.run(*reader("select * from nothing"), read_only=True)
        listening.cancel()
        await plane.database.run(*reader(query, b"secret"), read_only=True)
        [event] = heard
        assert (event.sql, event.sql_hash, event.rows, event.role) == (
            query,
            sql_hash(query.encode()),
            3,
            "watch_reader",
        )
        assert 0 < event.duration_s < 10


async def test_slow_queries_are_told_also_those_that_did_not_end(dsn: str) -> None:
    async with plane_at(dsn, slow_query_s=0.05) as (_, plane):
        slow: list[DatabaseSlowQueryDetected] = []
        plane.context.bus.on(DatabaseSlowQueryDetected, lambda envelope: slow.append(envelope.data))
        await plane.database.run(*reader("select 1"), read_only=True)
        await plane.database.run(*reader("select pg_sleep(0.06)::text"), read_only=True)
        with pytest.raises(DeadlineExceeded):
            await plane.database.run(*reader("select pg_sleep(20)::text"), read_only=True, timeout_s=1.0)
        assert [(event.sql, event.rows) for event in slow if event.sql != "select 1"] == [
            ("select pg_sleep(0.06)::text", 1), ("select pg_sleep(20)::text", 0),
        ]  # fmt: skip
        assert all(event.duration_s > 0.05 for event in slow), "the first one, too, where the machine made it slow"


async def test_what_counts_as_slow_changes_while_it_serves(dsn: str) -> None:
    async with plane_at(dsn, slow_query_s=600.0) as (kernel, plane):
        slow: list[DatabaseSlowQueryDetected] = []
        plane.context.bus.on(DatabaseSlowQueryDetected, lambda envelope: slow.append(envelope.data))
        magds = next(slot.component for slot in kernel.slots if slot.component.name == "magds")
        await plane.database.run(*reader("select pg_sleep(0.02)::text"), read_only=True)
        await magds.prepare_reload(MagDSConfig(dsn=Secret(dsn), slow_query_s=0.01), {"slow_query_s"})
        magds.commit_reload()
        await plane.database.run(*reader("select pg_sleep(0.03)::text"), read_only=True)
        assert [event.sql for event in slow] == ["select pg_sleep(0.03)::text"]


async def test_who_stands_around_queries_may_refuse_them(dsn: str) -> None:
    async with plane_at(dsn) as (_, plane):
        point = plane.context.hooks.point("database.around_query")
        point.chain = chain = Chain(deny="things")
        assert (await plane.database.run(*reader("select 'x'"), read_only=True)).rows == [(b"x",)]
        with pytest.raises(HookDenied):
            await plane.database.run(*reader("select * from things"), read_only=True)
        assert [context.sql for context in chain.told] == ["select 'x'", "select * from things"]
        assert (chain.told[0].role, chain.told[0].read_only) == ("watch_reader", True)
        assert chain.told[0].sql_hash == sql_hash(b"select 'x'")
        point.chain = None
        assert len((await plane.database.run(*reader("select * from things"), read_only=True)).rows) == 3


async def test_what_extensions_say_of_health_is_shown_and_takes_nothing_down(dsn: str) -> None:
    answer = {
        "replicas": {
            "lag": {"status": "unhealthy", "detail": "90 s\nbehind\x1b[31m"},
            "size": {"status": "healthy", "detail": "small"},
            "odd": {"status": 7, "detail": {}},
            "broken": "yes",
            "x" * 5_000: {"status": "healthy", "detail": "y" * 5_000},
        },
        "flood": {f"check{number}": {"status": "healthy"} for number in range(1_000)},
    }
    async with plane_at(dsn) as (kernel, plane):
        plane.context.hooks.point("database.health_check").chain = chain = Chain(answer=answer)  # type: ignore[arg-type]
        magds = next(slot.component for slot in kernel.slots if slot.component.name == "magds")
        report = await magds.health()
        assert chain.told[0].component == "magds"
        checks = {check.name: check for check in report.checks}
        assert report.status is HealthStatus.DEGRADED
        assert checks["replicas: lag"].detail == "unhealthy: 90 s behind [31m"
        assert checks["replicas: size"].status is HealthStatus.HEALTHY
        assert checks["replicas: odd"].status is HealthStatus.DEGRADED
        assert "replicas: broken" not in checks
        assert len([name for name in checks if name.startswith("flood")]) == 10
        assert max(len(check.name) + len(check.detail) for check in report.checks) < 500


async def test_guests_and_migrations_go_on_after_a_restart_of_storage(dsn: str) -> None:
    async with plane_at(dsn) as (kernel, plane):
        await plane.guests.check()
        async with plane.database.session() as connection, connection.transaction():
            await plane.guests.ensure(connection, "shop", schema=True)
        steps = [Migration("1", "people", "create table people (id int)")]
        try:
            assert await plane.migrations.up("shop", steps, guest="shop") == ["1"]
            async with plane.guests.session("shop") as connection:
                await connection.execute("insert into people values (1)")
            await kernel.stop_component("magds")
            await kernel.start_component("magds")
            assert await plane.migrations.up("shop", steps, guest="shop") == []
            async with plane.guests.session("shop") as connection:
                assert await (await connection.execute("select id from people")).fetchall() == [(1,)]
        finally:
            await plane.guests.forget("shop")
            async with plane.database.session() as connection, connection.transaction():
                await plane.guests.drop(connection, "shop", keep_schema=False)
