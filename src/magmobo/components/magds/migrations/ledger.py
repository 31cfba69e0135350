"""What ran: a table of migrations, `mag.migration` for ours and `mag_migration` in a guest's own schema.

Boundary: rows only; `service.py` decides what runs. Callers are in a transaction, and name everything with its schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from magmobo.components.magds.own_schema import SCHEMA, has_table, make_table, our_names, rows
from magmobo.contracts.guests import AppliedMigration, Migration

Connection = psycopg.AsyncConnection[Any]
OWN_TABLE, GUEST_TABLE = "migration", "mag_migration"
_COLUMNS: LiteralString = (
    "namespace text not null, version text not null, name text not null, checksum text not null, "
    "down text not null, applied_at timestamptz not null default now(), primary key (namespace, version)"
)


def checksum(migration: Migration) -> str:
    """By which a changed text is noticed: sha256 in hex."""
    return migration.checksum or hashlib.sha256(migration.up.encode()).hexdigest()


class Ledger:
    """The table at one place: `schema` is `mag`, or the guest's."""

    def __init__(self, schema: str) -> None:
        self._is_own = schema == SCHEMA
        self._schema, self._name = schema, OWN_TABLE if self._is_own else GUEST_TABLE
        self._table = sql.Identifier(schema, self._name)

    async def is_there(self, connection: Connection) -> bool:
        """Whether anything was ever recorded here. Raises: OwnSchemaRefused when mag.migration is somebody else's."""
        if self._is_own:
            async with our_names(connection):
                return await has_table(connection, self._name)
        query = "select from pg_catalog.pg_tables where schemaname = %s and tablename = %s"
        return bool(await rows(connection, query, (self._schema, self._name)))

    async def make(self, connection: Connection) -> None:
        """Make the table where it is missing. Raises: OwnSchemaRefused."""
        if self._is_own:
            async with our_names(connection):
                await make_table(connection, self._name, _COLUMNS)
        elif not await self.is_there(connection):
            await connection.execute(sql.SQL("create table {} ({})").format(self._table, sql.SQL(_COLUMNS)))

    async def read(self, connection: Connection, namespace: str) -> Sequence[AppliedMigration]:
        """What ran, in order of versions."""
        query = "select version, name, checksum, down from {} where namespace = %s"
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(sql.SQL(query).format(self._table), (namespace,))
            found = [AppliedMigration(*row) for row in await cursor.fetchall()]
        return sorted(found, key=lambda one: one.version)  # as text, whatever the database's collation

    async def add(self, connection: Connection, namespace: str, migration: Migration) -> None:
        """Record that it ran."""
        await connection.execute(
            sql.SQL("insert into {} (namespace, version, name, checksum, down) values (%s, %s, %s, %s, %s)").format(
                self._table
            ),
            (namespace, migration.version, migration.name, checksum(migration), migration.down),
        )

    async def remove(self, connection: Connection, namespace: str, version: str) -> None:
        """Record that it was undone."""
        await connection.execute(
            sql.SQL("delete from {} where namespace = %s and version = %s").format(self._table), (namespace, version)
        )
