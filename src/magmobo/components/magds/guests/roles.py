"""The login role of a guest: made with nothing but the right to log in, and taken away with all it was given.

A role of that name which is more than a guest (a superuser, a member of another role) is refused, never used. Callers
work inside `own_schema.our_names`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql

from magmobo.components.magds.guests.errors import GuestInUse, GuestsRefused
from magmobo.components.magds.own_schema import primary, quoted, rows

Connection = psycopg.AsyncConnection[Any]
CONNECTION_LIMIT = 12
"""Of one role, all nodes together; each keeps at most `sessions.POOL_SIZE`."""
_FIRST_WITH_SELF_GRANT = 160_000
# Limits, and how values are written. A guest could change them for itself, but the guard lets no SET pass.
_SETTINGS = {
    "statement_timeout": "60s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s",
    "standard_conforming_strings": "on", "datestyle": "ISO, YMD", "intervalstyle": "iso_8601", "timezone": "UTC",
    "bytea_output": "hex",
}  # fmt: skip
_ROLE = """
select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls
       or exists (select from pg_auth_members where member = r.oid)
from pg_roles r where rolname = %s
"""
_MAY = """
select r.rolname::text, r.rolsuper or r.rolcreaterole,
       has_database_privilege(current_database(), 'CREATE'), pg_is_in_recovery()
from pg_roles r where r.rolname = current_user
"""


async def check_right(connection: Connection) -> None:
    """Raises: GuestsRefused when the node's own role may not make roles or schemas here."""
    login, may_make_roles, may_make_schemas, is_standby = (await rows(connection, _MAY))[0]
    name = quoted(connection, login)
    if is_standby:
        raise GuestsRefused("it is a read-only standby", "Let magds.dsn lead to the primary, or list all hosts.")
    if not may_make_roles:
        raise GuestsRefused(f"{login} may not make roles", f"As a superuser: ALTER ROLE {name} CREATEROLE;")
    if not may_make_schemas:
        database = quoted(connection, connection.info.dbname)
        raise GuestsRefused(
            f"{login} may not make schemas", f"As the database's owner: GRANT CREATE ON DATABASE {database} TO {name};"
        )


async def exists(connection: Connection, role: str) -> bool:
    """Whether the role is there."""
    return bool(await rows(connection, "select from pg_roles where rolname = %s", (role,)))


async def is_guest(connection: Connection, role: str) -> bool:
    """Whether the role is there. Raises: GuestsRefused when it is more than a guest."""
    found = await rows(connection, _ROLE, (role,))
    if found and found[0][0]:
        raise GuestsRefused(
            f"the role {role} may more than log in",
            f"Take its rights and memberships away, or as a superuser: DROP ROLE {quoted(connection, role)};",
        )
    return bool(found)


async def make(connection: Connection, role: str, schema: str, password: str, *, is_there: bool) -> None:
    """Make the role, or give the one that is there this password.

    Raises: GuestsRefused when it could not connect to the database.
    """
    name = sql.Identifier(role)
    # The hash is made here: a server may log statements, and would not log this one without its password.
    hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    if connection.info.server_version >= _FIRST_WITH_SELF_GRANT:
        await connection.execute("set local createrole_self_grant = ''")  # we need to be no member of it
    if not is_there:
        await connection.execute(
            sql.SQL(
                "create role {} login nosuperuser nocreatedb nocreaterole noinherit noreplication nobypassrls"
            ).format(name)
        )
    await connection.execute(
        sql.SQL("alter role {} login noinherit connection limit {} password {}").format(name, CONNECTION_LIMIT, hashed)
    )
    for setting, value in _SETTINGS.items():
        await connection.execute(sql.SQL("alter role {} set {} = {}").format(name, sql.Identifier(setting), value))
    await connection.execute(
        sql.SQL("alter role {} set search_path = {}, pg_temp").format(name, sql.Identifier(schema))
    )
    await _let_in(connection, role)


async def _let_in(connection: Connection, role: str) -> None:
    """Everybody may connect to a database, unless its owner took that back."""
    name, database = sql.Identifier(role), sql.Identifier(connection.info.dbname)
    for attempt in range(2):
        query = "select has_database_privilege(%s, current_database(), 'CONNECT')"
        if (await rows(connection, query, (role,)))[0][0]:
            return
        if attempt == 0:
            try:
                async with connection.transaction():
                    await connection.execute(sql.SQL("grant connect on database {} to {}").format(database, name))
            except psycopg.errors.InsufficientPrivilege:
                break
    login = quoted(connection, connection.info.user)
    raise GuestsRefused(
        f"{connection.info.user} may let nobody connect to it",
        f"As the database's owner: GRANT CONNECT ON DATABASE {database.as_string(connection)} TO {login} "
        "WITH GRANT OPTION;",
    )


@asynccontextmanager
async def as_member(connection: Connection, role: str) -> AsyncIterator[None]:
    """What the role owns and has counts as ours inside of the block; needed where we are no superuser."""
    is_superuser = (await rows(connection, "select rolsuper from pg_roles where rolname = current_user"))[0][0]
    if is_superuser:
        yield
        return
    options = " with inherit true, set true" if connection.info.server_version >= _FIRST_WITH_SELF_GRANT else ""
    name = sql.Identifier(role)
    await connection.execute(sql.SQL("grant {} to current_user" + options).format(name))
    yield
    if await exists(connection, role):
        await connection.execute(sql.SQL("revoke {} from current_user").format(name))


async def drop(connection: Connection, role: str) -> None:
    """Take away the role with every right it has in this database, and end its sessions; call it as a member.

    Raises: GuestInUse when it has something in another database, or others depend on what it owns.
    """
    name = sql.Identifier(role)
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("alter role {} nologin").format(name))
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (role,)
            )
            await connection.execute(sql.SQL("drop owned by {}").format(name))
            await connection.execute(sql.SQL("drop role {}").format(name))
    except psycopg.errors.DependentObjectsStillExist as error:
        raise GuestInUse(f"role {role}", error.diag.message_detail or primary(error)) from error
