"""The table that records are copied to: which of our columns it has, and one INSERT for many records.

Boundary: nothing here creates or alters anything. Invariant: records of one call appear in their order and together,
and one that is there already is not written again, whether or not the table has a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import json
from psycopg import AsyncConnection, sql

from magmobo.components.auditexport.errors import TableUnfit
from magmobo.contracts.audit import AuditRecord

NEEDED = ("id", "action", "payload", "created_at")
_COLUMNS = """
    select attname from pg_catalog.pg_attribute
    where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped and attgenerated = ''"""
# The table's own row type reads the values, so a column may be of any type that takes their text.
_INSERT = """
    insert into {table} ({columns})
    select {values} from pg_catalog.jsonb_array_elements(%s::jsonb) with ordinality as given (item, place),
        lateral pg_catalog.jsonb_populate_record(null::{table}, given.item) as new
    where not exists (select from {table} as old where old.id = new.id)
    order by given.place"""


class AuditTable:
    """The table as it was found; `statement` writes records that are given as one JSON array."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        table = sql.Identifier(*name.split("."))
        self.columns = columns
        self._statement = sql.SQL(_INSERT).format(
            table=table,
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(sql.Identifier("new", column) for column in columns),
        )

    async def add(self, connection: AsyncConnection[Any], records: Sequence[AuditRecord]) -> None:
        """Write what of `records` is not there yet, in one transaction. Raises: psycopg.Error."""
        await connection.execute(self._statement, (json.encode(records).decode(),), prepare=False)


async def find_table(connection: AsyncConnection[Any], name: str) -> AuditTable:
    """The table `schema.name`, with those of our columns that it has. Raises: TableUnfit, psycopg.Error."""
    quoted = sql.Identifier(*name.split(".")).as_string(connection)
    there = {row[0] for row in await (await connection.execute(_COLUMNS, (quoted,))).fetchall()}
    if not there:
        raise TableUnfit(name, "there is no such table, or its schema may not be used")
    if missing := [column for column in NEEDED if column not in there]:
        raise TableUnfit(name, f"it has no column {', '.join(missing)}")
    return AuditTable(name, [column for column in AuditRecord.__struct_fields__ if column in there])
