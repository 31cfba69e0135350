"""Every record reaches the table once and in order, whatever happens to database, state store and node meanwhile."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from typing import Any

import psycopg
import pytest
from tests.integration.audit.support import OPERATOR, Place, write
from tests.integration.auditexport.support import (
    CONTRACT,
    NAME,
    SCHEMA,
    WHOLE,
    as_row,
    exporting,
    prepared,
    rows,
    until_copied,
    until_health,
)
from tests.integration.demo.support import PlainDatabase

from magmobo.components.auditexport.component import AuditExport
from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.errors import StateUnavailable, Unavailable
from magmobo.contracts.planes import Database
from magmobo.testing.harness import running_kernel


def normal(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"created_at": datetime.fromisoformat(row["created_at"])}


async def all_records(log: Any) -> list[AuditRecord]:
    return list(await log.read(after_seq=0, limit=100_000))


async def test_the_table_holds_what_the_log_holds(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    hostile = {"nul": "a\0b", "half": "\ud800", "quote": "'; drop table x; --", "deep": [[{"n": 1.5e9}]], "ü": "%s $1"}
    async with exporting(place, dsn) as (component, log):
        await log.record("config.patch", actor=OPERATOR, payload=hostile, trace_id="t")
        await log.record("security.breakglass", actor=OPERATOR, payload={"rows": ["x" * 100] * 1_000})
        await write(log, 20)
        await until_copied(component, dsn, 22)
        records = await all_records(log)
    assert [normal(row) for row in rows(dsn)] == [normal(as_row(record)) for record in records]


async def test_a_table_of_the_contract_s_ten_columns_gets_those(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, CONTRACT)
    async with exporting(place, dsn) as (component, log):
        await write(log, 5)
        await until_copied(component, dsn, 5)
        records = await all_records(log)
    expected = [
        {name: value for name, value in normal(as_row(record)).items() if name in rows(dsn)[0]} for record in records
    ]
    assert [normal(row) for row in rows(dsn)] == expected
    assert len(expected[0]) == 10


async def test_a_table_with_types_defaults_and_columns_of_its_own_is_filled_too(place: Place, dsn: str) -> None:
    prepared(
        dsn, SCHEMA, "create type cp_audit.severity as enum ('info', 'notice', 'warning', 'critical')",
        """create table cp_audit.audit_log (copied_at timestamptz not null default now(), payload json not null,
        id text, severity cp_audit.severity, action text, created_at timestamptz, region text default 'eu',
        year int generated always as (extract(year from created_at at time zone 'utc')) stored)""",
    )  # fmt: skip
    async with exporting(place, dsn) as (component, log):
        await write(log, 3)
        await until_copied(component, dsn, 3)
    assert {row["region"] for row in rows(dsn)} == {"eu"}
    assert [row["severity"] for row in rows(dsn)] == ["notice"] * 3


async def test_a_strange_name_is_quoted(place: Place, dsn: str) -> None:
    prepared(
        dsn, SCHEMA, CONTRACT, 'create schema "Odd ""one"', 'alter table cp_audit.audit_log set schema "Odd ""one"'
    )
    async with exporting(place, dsn, table='Odd "one.audit_log') as (component, log):
        await write(log, 2)
        async with asyncio.timeout(30):
            while not (await component.health()).checks[0].detail.startswith("0 "):
                await asyncio.sleep(0.01)
    prepared(dsn, 'alter table "Odd ""one".audit_log set schema cp_audit')
    assert len(rows(dsn)) == 2


async def test_without_a_table_nothing_is_asked_of_the_database(place: Place) -> None:
    class Untouchable:
        def session(self, *, timeout_s: float | None = None) -> Any:
            raise AssertionError("nobody asked for an export")

    async with exporting(place, "", table=None, database=Untouchable()) as (component, log):
        await write(log, 3)
        assert (await component.health()).status == "healthy"


async def test_it_goes_on_after_a_restart_where_it_was(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    for turn in range(3):
        async with exporting(place, dsn) as (component, log):
            await write(log, 4)
            await until_copied(component, dsn, turn * 5 + 4)  # and the checkpoint of the run before
        async with place.running() as log:
            records = await all_records(log)
    async with exporting(place, dsn) as (component, log):
        await until_copied(component, dsn, len(records))
    assert [row["id"] for row in rows(dsn)] == [record.id for record in records]


@pytest.mark.parametrize("key", ["", "alter table cp_audit.audit_log drop constraint audit_log_pkey"])
async def test_what_is_in_the_table_and_not_yet_behind_the_cursor_is_not_written_twice(
    place: Place, dsn: str, key: str
) -> None:
    prepared(dsn, SCHEMA, WHOLE, *([key] if key else []))
    chance = random.Random(7)

    class Forgetful:
        def __init__(self, real: Any) -> None:
            self._real = real

        async def get(self, name: str) -> Any:
            return await self._real.get(name)

        async def put(self, name: str, value: Any, **rest: Any) -> Any:
            if chance.random() < 0.5:
                raise StateUnavailable("full")
            entry = await self._real.put(name, value, **rest)
            if chance.random() < 0.5:
                raise StateUnavailable("full, said too late")
            return entry

    async with exporting(place, dsn, state=Forgetful) as (component, log):
        for number in range(1, 11):
            await write(log, 5)
            await until_copied(component, dsn, number * 5)
        records = await all_records(log)
    assert [row["id"] for row in rows(dsn)] == [record.id for record in records]


async def test_a_cursor_that_is_lost_costs_time_and_no_row(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    async with exporting(place, dsn) as (component, log):
        await write(log, 5)
        await until_copied(component, dsn, 5)
    async with place.stored() as manager:
        assert await manager.scope("auditexport").delete(f"cursor/{NAME}")
    async with exporting(place, dsn) as (component, log):
        await write(log, 5)
        await until_copied(component, dsn, 11)
        records = await all_records(log)
    assert [row["id"] for row in rows(dsn)] == [record.id for record in records]


async def test_a_log_that_was_begun_anew_is_copied_from_its_beginning(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    async with exporting(place, dsn) as (component, log):
        await write(log, 30)
        await until_copied(component, dsn, 30)
    for path in place.audit.iterdir():
        path.unlink()
    async with place.stored() as manager:
        await manager.scope("audit").delete("head")
    async with exporting(place, dsn) as (component, log):
        await write(log, 5)
        await until_copied(component, dsn, 35)
    assert [row["seq"] for row in rows(dsn)] == [*range(1, 31), *range(1, 6)]


async def test_an_outage_is_waited_out(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    admin = psycopg.conninfo.make_conninfo(dsn, dbname="postgres")
    async with exporting(place, dsn) as (component, log):
        await write(log, 5)
        await until_copied(component, dsn, 5)
        for _ in range(3):
            prepared(
                admin, f'alter database "{name}" allow_connections false',
                f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
            )  # fmt: skip
            await write(log, 10)
            told = await until_health(component, "degraded")
            assert "true" in told, "it is not our fault"
            prepared(admin, f'alter database "{name}" allow_connections true')
            await until_health(component, "healthy")
        await until_copied(component, dsn, 35)
        records = await all_records(log)
    assert [row["id"] for row in rows(dsn)] == [record.id for record in records]


async def test_connections_that_die_under_load_lose_and_double_nothing(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    chance = random.Random(3)

    class Shaky(PlainDatabase):
        def session(self, *, timeout_s: float | None = None) -> Any:
            if chance.random() < 0.3:
                raise Unavailable("MagDS")
            return super().session()

    kill = """select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()"""
    async with exporting(place, dsn, database=Shaky(dsn)) as (component, log):
        for _ in range(40):
            await asyncio.gather(*(write(log, 5) for _ in range(10)))
            await asyncio.to_thread(prepared, dsn, kill)
        async with asyncio.timeout(30):
            while not (await component.health()).checks[0].detail.startswith("0 "):
                await asyncio.sleep(0.01)
        records = await all_records(log)
    assert len(records) == 2_002, "with two checkpoints"
    assert [row["seq"] for row in rows(dsn, "seq")] == list(range(1, 2_003)), "once each, in order"


UNFIT = [
    ([], "MAG-AUDIT-010"),
    ([SCHEMA], "MAG-AUDIT-010"),
    ([SCHEMA, "create table cp_audit.audit_log (id uuid, action text)"], "payload, created_at"),
    ([SCHEMA, WHOLE, "alter table cp_audit.audit_log add check (action <> 'component.restart')"], "CheckViolation"),
    ([SCHEMA, WHOLE, "alter table cp_audit.audit_log add must text not null"], "NotNullViolation"),
]


@pytest.mark.parametrize(("made", "told"), UNFIT)
async def test_a_table_that_does_not_fit_is_told_and_used_once_it_does(
    place: Place, dsn: str, made: list[str], told: str
) -> None:
    prepared(dsn, *made)
    async with exporting(place, dsn) as (component, log):
        await write(log, 3)
        assert told in await until_health(component, "degraded")
        prepared(dsn, "drop schema if exists cp_audit cascade", SCHEMA, WHOLE)
        await until_health(component, "healthy")
        await until_copied(component, dsn, 3)


async def test_a_record_that_cannot_be_read_is_told_and_holds_up_nobody(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    async with place.running() as log:
        await write(log, 9)
    path = place.segments()[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b"?" * (len(lines[4]) - 1) + b"\n", *lines[5:]]))
    async with exporting(place, dsn) as (component, _):
        await until_copied(component, dsn, 9)
        assert "audit:verify" in await until_health(component, "degraded")
    assert [row["seq"] for row in rows(dsn)] == [1, 2, 3, 4, 6, 7, 8, 9, 10]


async def test_in_a_whole_kernel_an_order_reaches_the_table(dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    async with running_kernel(
        AuditExport, config={"auditexport": {"table": NAME}}, provided={Database: PlainDatabase(dsn)}
    ) as kernel:
        order = b'{"component":"auditexport"}'
        await kernel.services.commands.run("component:restart", order, actor=OPERATOR, timeout_s=30)
        records = await all_records(kernel.services.audit)
        assert "component.restart" in [record.action for record in records]
        async with asyncio.timeout(30):
            while len(await asyncio.to_thread(rows, dsn, "id")) < len(records):
                await asyncio.sleep(0.05)
    assert [row["id"] for row in rows(dsn)][: len(records)] == [record.id for record in records]
