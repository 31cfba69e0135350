"""The component with a real log, a real state store and a real Postgres around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import structlog
from psycopg import sql
from tests.integration.audit.support import Place
from tests.integration.demo.support import FastClock, PlainDatabase

from magmobo.components.auditexport.component import AuditExport
from magmobo.components.auditexport.config import AuditExportConfig
from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.stores import State
from magmobo.kernel.audit.log import AuditLog
from magmobo.kernel.redact import redact

NAME = "cp_audit.audit_log"
SCHEMA = "create schema cp_audit"
CONTRACT = """create table cp_audit.audit_log (
    id uuid primary key, org_id uuid, project_id uuid, user_id uuid, action varchar(100), payload jsonb,
    ip_address inet, immutable bool, legal_hold_id uuid, created_at timestamptz)"""
WHOLE = (
    CONTRACT[:-1]
    + """, seq bigint, severity text, category text, actor text, trace_id text, prev_hash text,
    hash text)"""
)


def prepared(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(dsn: str, columns: str = "*", order: str = "ctid") -> list[dict[str, Any]]:
    """The table as JSON objects, by default in the order in which the rows were written."""
    with psycopg.connect(dsn) as connection:
        asked = sql.SQL("select to_jsonb(r) from (select {} from cp_audit.audit_log order by {}) r").format(
            sql.SQL(columns), sql.SQL(order)
        )
        return [row[0] for row in connection.execute(asked)]


def as_row(record: AuditRecord) -> dict[str, Any]:
    """A record as JSON, as it stands in the log."""
    return {name: getattr(record, name) for name in record.__struct_fields__}


class Surroundings:
    """What the component sees of a node."""

    component = "auditexport"

    def __init__(self, audit: AuditLog, state: State) -> None:
        self.audit, self.state, self.clock = audit, state, FastClock()
        self.log = structlog.get_logger()

    def spawn(self, coroutine: Any, *, name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(coroutine, name=name)


@asynccontextmanager
async def exporting(
    place: Place, dsn: str, *, table: str | None = NAME, database: Any = None, state: Any = None
) -> AsyncIterator[tuple[AuditExport, AuditLog]]:
    """The component, started, on the log of `place`."""
    async with place.stored() as manager:
        log = AuditLog(place.audit, manager.scope("audit"), mask=redact)
        await log.open()
        kept = manager.scope("auditexport")
        context: Any = Surroundings(log, kept if state is None else state(kept))
        component = AuditExport(context, database or PlainDatabase(dsn))
        component.configure(AuditExportConfig(table=table))
        await component.start()
        try:
            yield component, log
        finally:
            await component.stop()
            await log.close()


async def until_copied(component: AuditExport, dsn: str, number: int) -> None:
    """Return once the table has so many rows."""
    async with asyncio.timeout(30):
        while len(await asyncio.to_thread(rows, dsn, "id")) < number:
            await asyncio.sleep(0.01)


async def until_health(component: AuditExport, status: str) -> str:
    """Return once the component says so of itself; the detail of its check."""
    async with asyncio.timeout(30):
        while (report := await component.health()).status != status:
            await asyncio.sleep(0.01)
    return json.dumps([(check.detail, check.outside) for check in report.checks])
