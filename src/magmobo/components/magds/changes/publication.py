"""Which tables are in the stream: two publications, brought to what is asked for. A user's table is never altered.

`mag_changes` carries everything; a table without replica identity would make the user's own UPDATE fail there, so it
goes to `mag_inserts`, which carries inserts and truncates. Each table that enters or moves is noted in the log by a
message in the same transaction, so its history begins exactly where its changes begin, also after a restart. It enters
at a moment when nobody writes to it: what a transaction wrote before is never published, though it commits after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from psycopg import errors, sql

from magmobo.components.magds.changes.errors import (
    NoReplicaIdentity,
    PartitionOfPublished,
    TableBusy,
    TableKindRefused,
    TableNotOwned,
    TableRefused,
    TableUnknown,
)  # fmt: skip
from magmobo.components.magds.changes.objects import INSTALL_LOCK, MESSAGE_PREFIX, Connection
from magmobo.components.magds.changes.positions import lsn_from_text
from magmobo.contracts.planes import PublishedTable, RefusedTable, TableName

_FACTS = """
select c.oid::int8, coalesce(c.relkind::text, ''), coalesce(c.relpersistence::text, ''),
       coalesce(pg_has_role(c.relowner, 'USAGE'), false), coalesce(pg_get_userbyid(c.relowner)::text, ''),
       coalesce(c.relreplident::text, ''), coalesce(mag.has_identity(c.oid), false),
       coalesce((select array_agg(t.attname::text order by t.attnum) from pg_attribute t
                 where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped and t.attgenerated = any(%s)), '{}'),
       coalesce((select array_agg(t.attname::text order by array_position(i.indkey::int2[], t.attnum))
                 from pg_index i join pg_attribute t on t.attrelid = c.oid and t.attnum = any(i.indkey)
                 where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                   and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end),
                '{}'),
       coalesce((select array_agg(relid::oid::int8) from pg_partition_ancestors(c.oid) where relid <> c.oid), '{}'),
       format('%%I.%%I', a.schema, a.name), format('%%I', coalesce(pg_get_userbyid(c.relowner), '')),
       format('%%I', current_user)
from unnest(%s::text[], %s::text[]) with ordinality a(schema, name, n)
left join pg_namespace s on s.nspname = a.schema
left join pg_class c on c.relnamespace = s.oid and c.relname = a.name
order by a.n
"""
_MEMBERS = """
select p.pubname::text, n.nspname::text, c.relname::text, c.oid::int8
from pg_publication p join pg_publication_rel r on r.prpubid = p.oid join pg_class c on c.oid = r.prrelid
join pg_namespace n on n.oid = c.relnamespace
where p.pubname in ('mag_changes', 'mag_inserts')
"""
_MISPLACED = """
select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
where p.pubname in ('mag_changes', 'mag_inserts')
  and (p.pubname = 'mag_changes') is distinct from mag.has_identity(r.prrelid)
"""
# How long writers may wait behind us: below deadlock_timeout, so that no user's transaction is ended for our sake.
_WRITERS_PATIENCE = "200ms"
_ENTER_ATTEMPTS, _ENTER_PAUSE_S = 3, 0.3
_SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema", "pg_toast", "mag"})
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index",
          "I": "an index", "c": "a composite type", "t": "a TOAST table"}  # fmt: skip


class TableFacts(Struct, frozen=True):
    """What the catalogue says about one asked table; `oid` is None when there is none."""

    oid: int | None
    kind: str
    persistence: str
    owned: bool
    owner: str
    identity: str
    has_identity: bool
    columns: list[str]
    key_columns: list[str]
    ancestors: list[int]
    quoted: str
    quoted_owner: str
    quoted_user: str


class Outcome(Struct, frozen=True):
    """What `apply` did. `entered` came (again) into the stream, `left` is no longer in it; `lsn` is after both. `busy`:
    a table could not enter or move yet, because a transaction writes to it.
    """

    answers: tuple[PublishedTable | RefusedTable, ...]
    entered: tuple[TableName, ...]
    left: tuple[TableName, ...]
    notices: tuple[str, ...]
    lsn: int
    busy: bool


async def members(connection: Connection) -> tuple[TableName, ...]:
    """Tables that are in the stream now."""
    return tuple(table for _, table in (await _read_members(connection)).values())


async def apply(
    connection: Connection,
    tables: Sequence[TableName],
    known: frozenset[TableName],
    *,
    kept: Sequence[TableName] = (),
) -> Outcome:
    """Bring both publications to exactly `tables`, and describe each.

    Tables enter one by one, each in a transaction of its own, because a table is locked against writers meanwhile.
    Args:
        connection: one that its caller closes afterwards, since it holds a lock of the session until then.
        known: tables that were published before; one of them that has to enter again lost changes meanwhile.
        kept: tables that stay if they are there.
    Raises: psycopg.Error.
    """
    await connection.execute("set synchronous_commit = local; set lock_timeout = '3s'")
    await connection.execute("select pg_advisory_lock(%s)", (INSTALL_LOCK,))
    facts = await _read_facts(connection, tables)
    present = await _read_members(connection)
    refusals = {t: refusal for t, f in facts.items() if (refusal := _refusal(t, f, facts)) is not None}
    entering = {t: f for t, f in facts.items() if t not in refusals and f.oid not in present}
    refusals |= await _enter(connection, entering, known)
    entered = [table for table in entering if table not in refusals]
    wanted = {fact.oid for table, fact in facts.items() if table not in refusals}
    leaving = {oid: entry for oid, entry in present.items() if oid not in wanted and entry[1] not in kept}
    left = [table for _, table in leaving.values()]
    async with connection.transaction():
        for publication, table in leaving.values():
            await _drop(connection, publication, table)
        await connection.execute(f"set local lock_timeout = '{_WRITERS_PATIENCE}'")
        await connection.execute("select mag.move_tables()")
    busy = await _is_misplaced(connection) or any(refusal.code == TableBusy.code for refusal in refusals.values())
    lsn = await mark_log(connection)
    answers = tuple(refusals.get(t) or _describe(t, facts[t]) for t in tables)
    notices = tuple(_identity_notice(t, facts[t]) for t in facts if t not in refusals and not facts[t].has_identity)
    return Outcome(answers, tuple(entered), tuple(left), notices, lsn, busy)


async def mark_log(connection: Connection) -> int:
    """The durable end of the log now, and a record behind it, so that the reader gets there without waiting.

    The flush position may lie inside a record whose rest nobody flushes while the server is idle.
    """
    row = await (await connection.execute("select pg_current_wal_flush_lsn()::text")).fetchone()
    async with connection.transaction():
        await connection.execute("set local synchronous_commit = local")
        await connection.execute("select pg_logical_emit_message(true, %s, '{}')", (MESSAGE_PREFIX,))
    return lsn_from_text(row[0]) if row is not None else 0


async def _is_misplaced(connection: Connection) -> bool:
    """Whether a table could not be moved into the publication that fits it."""
    return await (await connection.execute(_MISPLACED)).fetchone() is not None


async def _read_facts(connection: Connection, tables: Sequence[TableName]) -> dict[TableName, TableFacts]:
    generated = ["", "s"] if connection.info.server_version >= 180_000 else [""]
    parameters: list[Any] = [generated, [t.schema for t in tables], [t.name for t in tables]]
    rows = await (await connection.execute(_FACTS, parameters)).fetchall()
    facts = (TableFacts(*row) for row in rows)
    return {
        table: replace(fact, key_columns=fact.columns) if fact.identity == "f" else fact
        for table, fact in zip(tables, facts, strict=True)
    }


async def _read_members(connection: Connection) -> dict[int, tuple[str, TableName]]:
    rows = await (await connection.execute(_MEMBERS)).fetchall()
    return {oid: (publication, TableName(schema, name)) for publication, schema, name, oid in rows}


def _refusal(table: TableName, fact: TableFacts, asked: dict[TableName, TableFacts]) -> RefusedTable | None:
    error: TableRefused
    if table.schema in _SYSTEM_SCHEMAS:
        error = TableKindRefused(str(table), "is a system table", TableKindRefused.remedy)
    elif fact.oid is None:
        error = TableUnknown(str(table), "no such table", TableUnknown.remedy)
    elif fact.kind not in ("r", "p"):
        kind = _KINDS.get(fact.kind, "not a table")
        error = TableKindRefused(
            str(table), f"is {kind}; the log holds changes of tables only", TableKindRefused.remedy
        )
    elif fact.persistence != "p":
        kind, step = ("temporary", TableKindRefused.remedy) if fact.persistence == "t" else (
            "unlogged", f"ALTER TABLE {fact.quoted} SET LOGGED;")  # fmt: skip
        error = TableKindRefused(str(table), f"is {kind}; its changes are not in the log", step)
    elif not fact.owned:
        grant = f"GRANT {fact.quoted_owner} TO {fact.quoted_user};"
        step = f"{grant} or ALTER TABLE {fact.quoted} OWNER TO {fact.quoted_user};"
        error = TableNotOwned(str(table), f"belongs to role {fact.owner}", step)
    elif parent := next((t for t, f in asked.items() if f.oid in fact.ancestors), None):
        error = PartitionOfPublished(str(table), f"is a partition of {parent}", f"Subscribe to {parent}.")
    else:
        return None
    return RefusedTable(table, error.code, str(error), error.next_step())


async def _enter(
    connection: Connection, entering: dict[TableName, TableFacts], known: frozenset[TableName]
) -> dict[TableName, RefusedTable]:
    """Bring tables in, the busy ones after another try or two; which could not and why."""
    refusals: dict[TableName, RefusedTable] = {}
    for attempt in range(_ENTER_ATTEMPTS):
        for table, fact in entering.items():
            if attempt and table not in refusals:
                continue
            refusal = await _add(connection, table, fact, lost=table in known)
            if refusal is None:
                refusals.pop(table, None)
            else:
                refusals[table] = refusal
        if all(refusal.code != TableBusy.code for refusal in refusals.values()):
            break
        await asyncio.sleep(_ENTER_PAUSE_S)
    return refusals


async def _add(connection: Connection, table: TableName, fact: TableFacts, *, lost: bool) -> RefusedTable | None:
    name = sql.Identifier(table.schema, table.name)
    publication = sql.Identifier("mag_changes" if fact.has_identity else "mag_inserts")
    only = sql.SQL("" if fact.kind == "p" else "only ")
    refused: TableRefused
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("alter publication {} add table only {}").format(publication, name))
            await connection.execute(f"set local lock_timeout = '{_WRITERS_PATIENCE}'")
            await connection.execute(sql.SQL("lock table {}{} in share mode").format(only, name))
            await connection.execute(
                "select pg_logical_emit_message(true, %s, "
                "json_build_object('schema', %s::text, 'table', %s::text, 'lost', %s::bool)::text)",
                (MESSAGE_PREFIX, table.schema, table.name, lost),
            )
    except errors.LockNotAvailable:
        refused = TableBusy(str(table), "an open transaction holds it, so it cannot enter yet", TableBusy.remedy)
    except (errors.ObjectNotInPrerequisiteState, errors.InvalidParameterValue, errors.FeatureNotSupported,
            errors.InsufficientPrivilege, errors.UndefinedTable) as error:  # fmt: skip
        reason = error.diag.message_primary or str(error)
        refused = TableRefused(str(table), reason, "Resolve what Postgres says, then restart magws or run any DDL.")
    else:
        return None
    return RefusedTable(table, refused.code, str(refused), refused.next_step())


async def _drop(connection: Connection, publication: str, table: TableName) -> None:
    statement = sql.SQL("alter publication {} drop table only {}").format(
        sql.Identifier(publication), sql.Identifier(table.schema, table.name)
    )
    async with connection.transaction():
        await connection.execute(statement)


def _describe(table: TableName, fact: TableFacts) -> PublishedTable:
    return PublishedTable(
        table, tuple(fact.columns), tuple(fact.key_columns), not fact.has_identity, fact.identity == "f"
    )


def _identity_notice(table: TableName, fact: TableFacts) -> str:
    step = f"ALTER TABLE {fact.quoted} ADD PRIMARY KEY (…); or ALTER TABLE {fact.quoted} REPLICA IDENTITY FULL;"
    error = NoReplicaIdentity(str(table), "has no replica identity, so only inserts and truncates are seen", step)
    return f"{error} [{error.code}]: {step}"
