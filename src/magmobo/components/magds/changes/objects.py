"""Our own objects in a user's database: created with the least rights, listed for `mag detach`.

Everything lives in schema `mag`, except what Postgres keeps per database or cluster: two publications, one event
trigger (superusers only) and one replication slot. Invariant: no statement here names a user's table.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from psycopg import AsyncConnection, errors

from magmobo.components.magds.changes.errors import DatabaseRightMissing

Connection = AsyncConnection[tuple[Any, ...]]

SCHEMA = "mag"
PUBLICATIONS = ("mag_changes", "mag_inserts")
EVENT_TRIGGER = "mag_ddl"
NOTIFY_CHANNEL = "mag_ddl"
MESSAGE_PREFIX = "mag"
# "mag_changes" as an integer: serialises installation and changes of publications between nodes.
INSTALL_LOCK = 0x6D61675F63
_VERSION = 2

# What stands in our place and belongs to a role we have no reason to trust: its functions would run with our rights,
# which may be a superuser's.
_FOREIGN = """
with ours(what, owner) as (
  select 'schema mag', nspowner from pg_namespace where nspname = 'mag'
  union all select 'table mag.' || c.relname::text, c.relowner
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = 'mag' and c.relname = 'state'
  union all select 'function mag.' || p.proname::text, p.proowner
            from pg_proc p join pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'mag' and p.proname in ('has_identity', 'move_tables', 'on_ddl')
  union all select 'publication ' || pubname::text, pubowner
            from pg_publication where pubname in ('mag_changes', 'mag_inserts'))
select o.what, r.rolname::text from ours o join pg_roles r on r.oid = o.owner
where r.rolname <> current_user and not r.rolsuper limit 1
"""


def slot_name(database_oid: int) -> str:
    """Name of the slot that belongs to a database."""
    return f"mag_{database_oid}"


async def open_connection(conninfo: str, *, timeout_s: int = 10) -> Connection:
    """A connection in autocommit on which names mean what the catalogue says, whatever others put into public.

    Raises: psycopg.OperationalError.
    """
    connection: Connection = await AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=timeout_s)
    await connection.execute("set search_path = pg_catalog, pg_temp")
    return connection


def _script(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()


async def install(connection: Connection) -> None:
    """Create schema, state, functions and both publications where they are missing.

    Raises: DatabaseRightMissing naming the exact GRANT, or the role to which something in our place belongs.
    """
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s)", (INSTALL_LOCK,))
            await _refuse_foreign(connection)
            if not await _is_installed(connection):
                await connection.execute(_script("install.sql"))
                await connection.execute(
                    "insert into mag.state values ('version', to_jsonb(%s::int)) "
                    "on conflict (key) do update set value = excluded.value",
                    (_VERSION,),
                )
            await _create_publications(connection)
    except errors.InsufficientPrivilege as error:
        raise DatabaseRightMissing(str(error).strip(), await _grant(connection)) from error


async def install_event_trigger(connection: Connection) -> bool:
    """Create the event trigger; False where the role may not (it takes a superuser). Needs `install` before."""
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s)", (INSTALL_LOCK,))
            await connection.execute(_script("event_trigger.sql"))
    except errors.InsufficientPrivilege:
        return False
    return True


async def _refuse_foreign(connection: Connection) -> None:
    row = await (await connection.execute(_FOREIGN)).fetchone()
    if row is not None:
        step = f"Connect as {row[1]}, or drop {row[0]} (mag detach) when nobody needs it."
        raise DatabaseRightMissing(f"{row[0]} belongs to role {row[1]}, whose code we would run with our rights", step)


async def _is_installed(connection: Connection) -> bool:
    found = await (await connection.execute("select to_regclass('mag.state') is not null")).fetchone()
    if found is None or not found[0]:
        return False
    row = await (await connection.execute("select value from mag.state where key = 'version'")).fetchone()
    return row is not None and row[0] == _VERSION


async def _create_publications(connection: Connection) -> None:
    rows = await (
        await connection.execute("select pubname from pg_publication where pubname = any(%s)", (list(PUBLICATIONS),))
    ).fetchall()
    present = {row[0] for row in rows}
    # From Postgres 18 on, stored generated columns can be published, and UPDATE on a table whose identity holds one
    # fails when they are not.
    generated = ", publish_generated_columns = stored" if connection.info.server_version >= 180_000 else ""
    operations = {"mag_changes": "insert, update, delete, truncate", "mag_inserts": "insert, truncate"}
    for name in PUBLICATIONS:
        if name not in present:
            options = f"publish = '{operations[name]}', publish_via_partition_root = true{generated}"
            await connection.execute(f"create publication {name} with ({options})".encode())


async def _grant(connection: Connection) -> str:
    row = await (
        await connection.execute(
            "select format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), current_user)"
        )
    ).fetchone()
    statement = row[0] if row is not None else DatabaseRightMissing.remedy
    return f"As the database's owner: {statement} What another role made for us, that role must detach first."
