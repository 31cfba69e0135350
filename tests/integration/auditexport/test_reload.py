"""The export takes another table while it runs; or refuses."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from tests.integration.audit.support import Place, write
from tests.integration.auditexport.support import (
    CONTRACT,
    NAME,
    SCHEMA,
    WHOLE,
    exporting,
    prepared,
    until_copied,
    until_health,
)
from tests.integration.demo.support import PlainDatabase

from magmobo.components.auditexport.component import AuditExport
from magmobo.components.auditexport.config import AuditExportConfig
from magmobo.contracts.errors import ReloadRefused

OTHER = "cp_audit.second"


async def take(component: AuditExport, table: str | None) -> None:
    """What a reload does with this component."""
    await component.prepare_reload(AuditExportConfig(table=table), {"table"})
    component.commit_reload()


def count(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


async def until_level(component: AuditExport) -> None:
    async with asyncio.timeout(30):
        while "0 records behind" not in await until_health(component, "healthy"):
            await asyncio.sleep(0.01)


async def test_it_goes_on_in_another_table_and_later_where_it_was_left(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE, CONTRACT.replace(NAME, OTHER))
    async with exporting(place, dsn) as (component, log):
        await write(log, 5)
        await until_copied(component, dsn, 5)
        await take(component, OTHER)
        await write(log, 3)
        await until_level(component)
        assert (count(dsn, NAME), count(dsn, OTHER)) == (5, 8)
        await take(component, None)
        await write(log, 2)
        assert (await component.health()).checks == ()
        await take(component, NAME)
        await until_copied(component, dsn, 10)
        assert (count(dsn, NAME), count(dsn, OTHER)) == (10, 8)


async def test_an_idle_export_begins(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    async with exporting(place, dsn, table=None) as (component, log):
        await write(log, 4)
        await take(component, NAME)
        await until_copied(component, dsn, 4)


@pytest.mark.parametrize(
    ("table", "reason"),
    [("cp_audit.none_such", "MAG-AUDIT-010"), ("cp_audit.narrow", "it has no column payload"), ("no.schema", "MAG-")],
)
async def test_a_table_that_does_not_fit_is_refused_and_the_copy_goes_on(
    place: Place, dsn: str, table: str, reason: str
) -> None:
    prepared(dsn, SCHEMA, WHOLE, "create table cp_audit.narrow (id uuid, action text, created_at timestamptz)")
    async with exporting(place, dsn) as (component, log):
        with pytest.raises(ReloadRefused, match=reason):
            await take(component, table)
        await component.abort_reload()
        component.commit_reload()  # a stray call takes nothing
        await write(log, 3)
        await until_copied(component, dsn, 3)


async def test_without_the_database_nothing_is_taken(place: Place, dsn: str) -> None:
    prepared(dsn, SCHEMA, WHOLE)
    database = PlainDatabase(dsn)
    async with exporting(place, dsn, database=database) as (component, log):
        database.dsn = f"{dsn} password=x port=1"
        with pytest.raises(ReloadRefused, match="could not be looked at"):
            await take(component, OTHER)
        database.dsn = dsn
        await write(log, 1)
        await until_copied(component, dsn, 1)
