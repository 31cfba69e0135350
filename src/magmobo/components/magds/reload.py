"""What is tried before a changed `magds.dsn` counts: that it leads to the same database, and that its role can do there
what is being done now.

Boundary: one connection, made and closed again; nothing is changed on the server that is not as it should be already.
"""

from __future__ import annotations

import psycopg
from msgspec import Struct

from magmobo.components.magds.changes.errors import ChangesUnavailable
from magmobo.components.magds.changes.objects import install, open_connection
from magmobo.components.magds.changes.slot import read_server
from magmobo.components.magds.database import read_grantable_roles
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import StorageError
from magmobo.components.magds.pool import Connection
from magmobo.contracts.errors import MagError, ReloadRefused

_DATABASE = """
select oid::int8, datname::text, pg_is_in_recovery(), session_user::text
from pg_database where datname = current_database()
"""
_SYSTEM = "select system_identifier::text from pg_control_system()"


class Server(Struct, frozen=True):
    """Which database a connection leads to, as whom. `system_identifier` is equal on a primary and its standbys, and
    empty where the server tells us none.
    """

    database_oid: int
    database_name: str
    in_recovery: bool
    login: str
    system_identifier: str = ""


async def read_identity(connection: Connection) -> Server:
    """Raises: psycopg.Error."""
    row = await (await connection.execute(_DATABASE)).fetchone()
    if row is None:
        raise psycopg.OperationalError("the server does not list its own database")
    try:
        system = await (await connection.execute(_SYSTEM)).fetchone()
    except psycopg.errors.InsufficientPrivilege:  # some hosts keep it from everybody
        system = None
    return Server(row[0], row[1], row[2], row[3], system[0] if system else "")


async def check_dsn(conninfo: str, now: Server, *, roles: frozenset[str], reads_changes: bool) -> Server:
    """See that a node which uses the database `now` can go on over `conninfo`.

    Args:
        roles: those that requests run as.
        reads_changes: whether the change stream flows now, so that it must with the other login, too.
    Returns: whom and what the new connections will find.
    Raises: ReloadRefused.
    """
    try:
        connection = await connect(conninfo)
        try:
            found = await read_identity(connection)
            _check_same(now, found)
            if found.login != now.login:
                _check_roles(found.login, roles - await read_grantable_roles(connection))
        finally:
            await connection.close()
        if reads_changes and found.login != now.login:
            await _check_changes(conninfo, found.login)
    except (StorageError, ChangesUnavailable) as error:
        raise ReloadRefused(_in_words(error)) from error
    except psycopg.Error as error:
        raise ReloadRefused(f"the new magds.dsn cannot be used: {' '.join(str(error).split())}") from error
    return found


def _check_same(now: Server, found: Server) -> None:
    if not found.system_identifier:
        raise ReloadRefused("magds.dsn: the server does not tell whether it is the same one; restart the node")
    if (found.system_identifier, found.database_oid) != (now.system_identifier, now.database_oid):
        raise ReloadRefused(
            f"magds.dsn leads to another database ({found.database_name} of system {found.system_identifier}, now it "
            f"is {now.database_name} of {now.system_identifier}): restart the node to change over to it"
        )
    if found.in_recovery and not now.in_recovery:
        raise ReloadRefused("magds.dsn leads to a read-only standby of the present server")


def _check_roles(login: str, missing: frozenset[str]) -> None:
    if missing:
        names = ", ".join(sorted(missing))
        raise ReloadRefused(
            f"magds.dsn: requests run as {names}, and the role {login} may not switch to it: "
            f'GRANT {names} TO "{login}"; or restart the node'
        )


async def _check_changes(conninfo: str, login: str) -> None:
    """Raises: ReloadRefused, ChangesUnavailable, psycopg.Error."""
    connection = await open_connection(conninfo)
    try:
        if not (await read_server(connection)).may_replicate:
            raise ReloadRefused(
                f"magds.dsn: the role {login} may not read changes, which the present one does: "
                f'ALTER ROLE "{login}" WITH REPLICATION; as a superuser'
            )
        await install(connection)  # all of it is there: this only asks whether the other role may use it
    finally:
        await connection.close()


def _in_words(error: MagError) -> str:
    return f"the new magds.dsn: {error} [{error.code}]. {error.next_step()}"
