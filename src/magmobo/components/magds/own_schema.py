"""Schema `mag`, where our own tables live: made when it is missing, refused when it is not ours.

Invariant: nothing of ours is read from or written to a table that a role we have no reason to trust could change under
us. `changes/objects.py` lists what the change stream keeps there. Callers work inside `our_names`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from magmobo.components.magds.errors import OwnSchemaRefused

SCHEMA = "mag"
_PLACES = """
select p.what, p.owner is not null, o.rolname::text, coalesce(o.rolsuper or o.rolname = current_user, true) and p.plain
from (select 'schema mag', (select nspowner from pg_namespace where nspname = 'mag'), true
      union all
      select 'table mag.' || %s, c.relowner, coalesce(c.relkind = 'r', true)
      from (values (1)) one left join (pg_class c join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'mag')
           on c.relname = %s) p(what, owner, plain)
left join pg_roles o on o.oid = p.owner
"""
_GRANTEES = """
select distinct r.rolname::text from pg_class c cross join lateral aclexplode(c.relacl) a
join pg_roles r on r.oid = a.grantee where c.oid = %s::text::regclass and a.grantee <> c.relowner
"""


@asynccontextmanager
async def our_names(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Inside of the caller's transaction: names mean what the catalogue says, whatever others put into public, and all
    of the block or nothing of it is done.

    Raises: ValueError outside of a transaction.
    """
    if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
        raise ValueError("this takes a transaction of the caller's")
    before = (await rows(connection, "select pg_catalog.current_setting('search_path')"))[0][0]
    async with connection.transaction():
        await connection.execute("set local search_path = pg_catalog, pg_temp")
        yield
        await connection.execute("select set_config('search_path', %s, true)", (before,))


async def rows(
    connection: psycopg.AsyncConnection[Any], query: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[tuple[Any, ...]]:
    """Every row as a tuple, whatever row factory the caller's connection has."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query, parameters)
        return await cursor.fetchall()


async def has_table(connection: psycopg.AsyncConnection[Any], table: str) -> bool:
    """Whether `mag.<table>` is there. Raises: OwnSchemaRefused when it, or the schema, is somebody else's."""
    places = await rows(connection, _PLACES, (table, table))
    for what, _, owner, is_ours in places:
        if not is_ours:
            raise OwnSchemaRefused(
                f"{what} belongs to role {owner}, which could change it under us",
                f"Let magds.dsn name {owner}, or remove what is of ours there (`mag detach`) when nobody needs it.",
            )
    return all(is_there for _, is_there, _, _ in places)


async def make_table(connection: psycopg.AsyncConnection[Any], table: str, columns: LiteralString) -> None:
    """Make `mag.<table>` where it is missing, and the schema before it; nobody but its owner may read it.

    Raises: OwnSchemaRefused naming the exact GRANT, or whose the schema is.
    """
    if await has_table(connection, table):
        return
    name = sql.Identifier(SCHEMA, table)
    try:
        async with connection.transaction():
            await make_schema(connection)
            await connection.execute(sql.SQL("create table {} ({})").format(name, sql.SQL(columns)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise OwnSchemaRefused(primary(error), await _needed_grant(connection)) from error
    # Default privileges of the login may have given rights to others.
    others = [row[0] for row in await rows(connection, _GRANTEES, (name.as_string(connection),))]
    listed = sql.SQL(", ").join([sql.SQL("public"), *(sql.Identifier(other) for other in others)])
    await connection.execute(sql.SQL("revoke all on {} from {}").format(name, listed))


async def make_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    """Make schema `mag` where it is missing. Raises: psycopg.errors.InsufficientPrivilege."""
    if not await _has_schema(connection):
        await connection.execute("create schema mag")


async def _has_schema(connection: psycopg.AsyncConnection[Any]) -> bool:
    return bool(await rows(connection, "select from pg_namespace where nspname = 'mag'"))


async def _needed_grant(connection: psycopg.AsyncConnection[Any]) -> str:
    login = quoted(connection, connection.info.user)
    if await _has_schema(connection):
        return f"As the schema's owner: GRANT USAGE, CREATE ON SCHEMA mag TO {login};"
    return f"As the database's owner: GRANT CREATE ON DATABASE {quoted(connection, connection.info.dbname)} TO {login};"


def quoted(connection: psycopg.AsyncConnection[Any], *name: str) -> str:
    """An identifier for a statement that somebody may paste."""
    return sql.Identifier(*name).as_string(connection)


def primary(error: psycopg.Error) -> str:
    """What Postgres says, in one line without values of rows."""
    return error.diag.message_primary or type(error).__name__
