"""Keeps a snapshot of the catalogue fresh: loads it, and again after every change of the schema.

Requests always see one whole snapshot: the old one serves until the new one is complete. Loads are never concurrent,
and a burst of changes causes few of them. Boundary: reads `pg_catalog` only, as the node's own role.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from magmobo.components.maggate.catalogue import Column, ForeignKey, Snapshot, Table
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Database, TableName

_LOAD_TIMEOUT_S = 30.0
_SETTLE_S = 0.05
_RETRY_S = 1.0

# An empty search path makes format_type qualify every type outside pg_catalog.
_SEARCH_PATH = "set local search_path to ''"

_TABLES = """
select n.nspname, c.relname, c.oid, c.relkind::text, a.attname, pg_catalog.format_type(a.atttypid, -1),
       coalesce(nullif(t.typbasetype, 0), t.oid) in ('json'::regtype, 'jsonb'::regtype), t.typcategory = 'A'
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_catalog.pg_type t on t.oid = a.atttypid
 where n.nspname = any(%s) and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
 order by c.oid, a.attnum
"""

_CONSTRAINTS = """
select c.contype::text, c.conname, c.conrelid, c.confrelid,
       array(select a.attname::text from unnest(c.conkey) with ordinality k(attnum, place)
               join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum order by k.place),
       array(select a.attname::text from unnest(c.confkey) with ordinality k(attnum, place)
               join pg_catalog.pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum order by k.place)
  from pg_catalog.pg_constraint c
  join pg_catalog.pg_class r on r.oid = c.conrelid
  join pg_catalog.pg_namespace n on n.oid = r.relnamespace
 where n.nspname = any(%s) and c.contype in ('p', 'u', 'f') and not r.relispartition
   and (c.contype <> 'f' or c.conparentid = 0)
 order by c.conname, c.oid
"""

_KINDS: dict[str, Any] = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}


class SchemaCache:
    """The present snapshot of the exposed schemas. `load` once, then let `keep_fresh` run."""

    def __init__(
        self, database: Database, schemas: tuple[str, ...], clock: Clock, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._database, self._schemas, self._clock, self._log = database, schemas, clock, log
        self._stale = asyncio.Event()
        self.snapshot = Snapshot()
        self.last_error = ""

    async def load(self) -> None:
        """Replace the snapshot by the catalogue as it is now.

        Raises: psycopg.Error, Unavailable; the old snapshot then stays.
        """
        schemas = self._schemas
        snapshot = await self.read(schemas)
        if schemas is self._schemas:  # else others were adopted meanwhile, and theirs counts
            self.snapshot = snapshot
        self.last_error = ""

    async def read(self, schemas: tuple[str, ...]) -> Snapshot:
        """The catalogue of these schemas as it is now. Raises: psycopg.Error, Unavailable."""
        async with self._database.session(timeout_s=_LOAD_TIMEOUT_S) as connection, connection.transaction():
            return await _read_snapshot(connection, schemas)

    def adopt(self, schemas: tuple[str, ...], snapshot: Snapshot) -> None:
        """Expose these schemas from now on; what changed since the snapshot was read is read again."""
        self._schemas, self.snapshot = schemas, snapshot
        self.invalidate()

    def invalidate(self) -> None:
        """Ask `keep_fresh` for a new snapshot; cheap, any number of times."""
        self._stale.set()

    async def keep_fresh(self) -> None:
        """Reload whenever the snapshot was invalidated; never returns. A failed load is tried again."""
        while True:
            await self._stale.wait()
            await self._clock.sleep(_SETTLE_S)  # DDL comes in bursts: one load for all of it
            self._stale.clear()
            try:
                await self.load()
            except (psycopg.Error, MagError) as error:
                self.last_error = str(error).partition("\n")[0]
                self._log.warning("schema cache not refreshed", error=self.last_error)
                self._stale.set()
                await self._clock.sleep(_RETRY_S)


async def _read_snapshot(connection: AsyncConnection[tuple[Any, ...]], schemas: tuple[str, ...]) -> Snapshot:
    await connection.execute(_SEARCH_PATH)
    rows = await (await connection.execute(_TABLES, (list(schemas),))).fetchall()
    constraints = await (await connection.execute(_CONSTRAINTS, (list(schemas),))).fetchall()
    names: dict[int, tuple[TableName, str]] = {}
    columns: dict[int, dict[str, Column]] = defaultdict(dict)
    for schema, table, oid, kind, column, type_, is_json, is_array in rows:
        names[oid] = TableName(schema, table), kind
        if column is not None:
            columns[oid][column] = Column(column, type_, is_json, is_array)
    keys, unique, foreign = _sort_constraints(constraints, names)
    tables = {}
    for oid, (name, kind) in names.items():
        out = tuple(_with_uniqueness(key, unique) for key in foreign if key.table == name)
        into = tuple(_with_uniqueness(key, unique) for key in foreign if key.target == name)
        tables[name] = Table(name, oid, _KINDS[kind], columns[oid], keys.get(oid, ()), out, into)
    return Snapshot(tables)


def _sort_constraints(
    rows: list[tuple[Any, ...]], names: dict[int, tuple[TableName, str]]
) -> tuple[dict[int, tuple[str, ...]], set[tuple[TableName, frozenset[str]]], list[ForeignKey]]:
    """Primary keys by table, unique column sets, and the foreign keys inside one exposed schema."""
    keys: dict[int, tuple[str, ...]] = {}
    unique: set[tuple[TableName, frozenset[str]]] = set()
    foreign: list[ForeignKey] = []
    for kind, name, table_oid, target_oid, columns, target_columns in rows:
        if table_oid not in names:
            continue
        table = names[table_oid][0]
        if kind == "p":
            keys[table_oid] = tuple(columns)
        if kind != "f":
            unique.add((table, frozenset(columns)))
        elif target_oid in names and names[target_oid][0].schema == table.schema:
            target = names[target_oid][0]
            foreign.append(ForeignKey(name, table, tuple(columns), target, tuple(target_columns)))
    return keys, unique, foreign


def _with_uniqueness(key: ForeignKey, unique: set[tuple[TableName, frozenset[str]]]) -> ForeignKey:
    if (key.table, frozenset(key.columns)) not in unique:
        return key
    return ForeignKey(key.name, key.table, key.columns, key.target, key.target_columns, unique=True)
