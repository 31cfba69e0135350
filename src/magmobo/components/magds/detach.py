"""Removing every trace of us from a database: found, listed, and taken away in one transaction.

What we create is listed in `changes/objects.py` (schema mag, two publications, one event trigger, one slot); roles are
noted in the table mag.roles, schemas and roles of extensions in mag.guest; tables and functions of a demo carry a
comment that begins with `DEMO_MARK`. Anything else is not ours and is not touched: a role that owns something or has
rights outside, and a schema on which others built, are left with a word about it. The slot is not transactional, so it
goes first: without it nothing holds WAL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from magmobo.components.magds.changes.objects import EVENT_TRIGGER, PUBLICATIONS, SCHEMA, slot_name
from magmobo.components.magds.dsn import complete_dsn, connect
from magmobo.components.magds.errors import DetachRefused, SlotInUse
from magmobo.components.magds.guests import traces

DEMO_MARK = "MagMoBo demo "
READER_LOCK = 0x6D6167  # first key of the change reader's advisory lock, see changes/slot.py
Connection = psycopg.AsyncConnection[Any]
"""A statement and the object it removes, in the words of `Traces.objects`."""
Step = tuple[str, sql.Composed]


class Traces(Struct, frozen=True):
    """`objects`: what of ours is there, a line each. `kept`: what was left in place and why."""

    objects: Sequence[str]
    kept: Sequence[str] = ()


async def plan(dsn: str) -> Traces:
    """What `apply` would remove. Changes nothing.

    Raises: DsnMalformed, ConnectFailure and its subclasses.
    """
    connection = await _connect(dsn)
    try:
        slot = await _slot(connection)
        guests = await traces.find(connection)
        steps = await _steps(connection, guests)
        roles = [f"role {name}" for name in (*await _roles(connection), *guests.roles)]
        objects = [*([f"replication slot {slot[0]}"] if slot else []), *(name for name, _ in steps), *roles]
        return Traces(objects, guests.kept)
    finally:
        await connection.close()


async def apply(dsn: str) -> Traces:
    """Remove everything of ours; doing it again removes nothing and is fine.

    Raises: SlotInUse while a node reads the changes; DetachRefused when Postgres forbids a step (nothing but perhaps
        the slot is gone then); DsnMalformed, ConnectFailure and its subclasses.
    """
    connection = await _connect(dsn)
    try:
        await connection.execute("set lock_timeout = '10s'")
        await _refuse_beside_a_reader(connection)
        removed = await _drop_slot(connection)
        guests = await traces.find(connection)
        steps, roles = await _steps(connection, guests), await _roles(connection)
        kept = list(guests.kept)
        async with connection.transaction():
            for name, statement in steps:
                await _run(connection, name, statement)
            for role in (*roles, *guests.roles):
                drop = traces.drop_role if role in guests.roles else _drop_role
                reason = await drop(connection, role)
                (kept if reason else removed).append(f"role {role}{f' ({reason})' if reason else ''}")
        return Traces([*removed, *(name for name, _ in steps)], kept)
    finally:
        await connection.close()


async def _connect(dsn: str) -> Connection:
    """A connection on which nothing that a user of the database made can stand in for a built-in operator."""
    connection = await connect(complete_dsn(dsn, connect_timeout_s=10))
    await connection.execute("set search_path = pg_catalog, pg_temp")
    return connection


async def _steps(connection: Connection, guests: traces.GuestTraces) -> list[Step]:
    """In the order in which they can go: the trigger before its function, publications before the schema."""
    steps: list[Step] = [(f"schema {name}", _drop("schema", name) + sql.SQL(" cascade")) for name in guests.schemas]
    if await _exists(connection, "select from pg_event_trigger where evtname = %s", EVENT_TRIGGER):
        steps.append((f"event trigger {EVENT_TRIGGER}", _drop("event trigger", EVENT_TRIGGER)))
    for publication in PUBLICATIONS:
        if await _exists(connection, "select from pg_publication where pubname = %s", publication):
            steps.append((f"publication {publication}", _drop("publication", publication)))
    if await _exists(connection, "select from pg_namespace where nspname = %s", SCHEMA):
        steps.append((f"schema {SCHEMA}", _drop("schema", SCHEMA) + sql.SQL(" cascade")))
    return steps + await _demo_steps(connection)


async def _demo_steps(connection: Connection) -> list[Step]:
    """Tables first and all at once, since they refer to each other; then the functions that their policies used."""
    cursor = await connection.execute(
        "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where c.relkind = 'r' and starts_with(obj_description(c.oid, 'pg_class'), %s) order by 1, 2",
        (DEMO_MARK,),
    )
    tables = await cursor.fetchall()
    cursor = await connection.execute(
        "select n.nspname::text, p.proname::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
        "where p.pronargs = 0 and starts_with(obj_description(p.oid, 'pg_proc'), %s) order by 1, 2",
        (DEMO_MARK,),
    )
    functions = await cursor.fetchall()
    return [
        (f"demo {kind} {', '.join(f'{schema}.{name}' for schema, name in found)}", _drop_all(kind, found))
        for kind, found in (("table", tables), ("function", functions))
        if found
    ]


async def _slot(connection: Connection) -> tuple[str, int | None] | None:
    cursor = await connection.execute(
        "select slot_name::text, active_pid from pg_replication_slots where slot_name = "
        "%s || (select oid from pg_database where datname = current_database())",
        (slot_name(0).removesuffix("0"),),
    )
    row = await cursor.fetchone()
    return (row[0], row[1]) if row else None


async def _refuse_beside_a_reader(connection: Connection) -> None:
    """A running node would make everything again. It holds the reader's lock even while its stream is interrupted."""
    cursor = await connection.execute(
        "select pid from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() "
        "and l.locktype = 'advisory' and l.classid = %s and l.objsubid = 2 and l.granted",
        (READER_LOCK,),
    )
    row = await cursor.fetchone()
    if row is not None:
        raise SlotInUse("reader lock", row[0])


async def _drop_slot(connection: Connection) -> list[str]:
    slot = await _slot(connection)
    if slot is None:
        return []
    name, reader = slot
    if reader is not None:
        raise SlotInUse(name, reader)
    try:
        await connection.execute("select pg_drop_replication_slot(%s)", (name,))
    except psycopg.errors.ObjectInUse:
        raise SlotInUse(name, 0) from None
    except psycopg.Error as error:
        raise DetachRefused(f"replication slot {name}", _primary(error)) from error
    return [f"replication slot {name}"]


async def _roles(connection: Connection) -> list[str]:
    """Roles that we made, as noted in mag.roles, that still exist and are no login, superuser or the caller.

    A stranger may have put a relation of that name in our place. Reading a plain table runs no code of its owner; what
    it lists counts only when its owner could drop that role anyway, or is the caller or a superuser.
    """
    cursor = await connection.execute(
        "select c.relowner, o.rolsuper or o.rolname = current_user from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace join pg_roles o on o.oid = c.relowner "
        "where n.nspname = %s and c.relname = 'roles' and c.relkind = 'r'",
        (SCHEMA,),
    )
    row = await cursor.fetchone()
    if row is None:
        return []
    cursor = await connection.execute(
        "select r.rolname::text from mag.roles m join pg_roles r on r.rolname = m.name::text "
        "where not r.rolcanlogin and not r.rolsuper and r.rolname <> current_user "
        "and (%s or pg_has_role(%s::oid, r.oid, 'MEMBER WITH ADMIN OPTION')) order by 1",
        (row[1], row[0]),
    )
    return [row[0] for row in await cursor.fetchall()]


async def _drop_role(connection: Connection, role: str) -> str:
    """Why the role stays; empty when it is gone. Its rights in this database go with it, what it owns keeps it."""
    name = sql.Identifier(role)
    cursor = await connection.execute(
        "select count(*) filter (where s.deptype = 'o'), count(*) filter (where s.dbid not in (0, d.oid)) "
        "from pg_shdepend s join pg_roles r on r.oid = s.refobjid and s.refclassid = 'pg_authid'::regclass, "
        "pg_database d where r.rolname = %s and d.datname = current_database()",
        (role,),
    )
    row = await cursor.fetchone() or (0, 0)
    if row[0]:
        return "it owns objects"
    if row[1]:
        return "it has rights in other databases"
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("drop owned by {}").format(name))  # rights and policies; it owns nothing
            await connection.execute(sql.SQL("drop role {}").format(name))
    except psycopg.Error as error:
        return _primary(error)
    return ""


async def _run(connection: Connection, name: str, statement: sql.Composed) -> None:
    try:
        await connection.execute(statement)
    except psycopg.Error as error:
        raise DetachRefused(name, _primary(error)) from error


async def _exists(connection: Connection, query: str, value: str) -> bool:
    return await (await connection.execute(query.encode(), (value,))).fetchone() is not None


def _drop(kind: str, name: str) -> sql.Composed:
    return sql.SQL("drop {} {}").format(sql.SQL(kind), sql.Identifier(name))


def _drop_all(kind: str, names: Sequence[tuple[Any, ...]]) -> sql.Composed:
    listed = sql.SQL(", ").join(sql.Identifier(*name) for name in names)
    return sql.SQL("drop {} {}").format(sql.SQL(kind), listed)


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__
