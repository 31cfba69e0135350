"""What guests left in a database, for `mag detach`: their schemas and roles, as table mag.guest notes them.

Invariant: a note counts only where it could be ours. The table belongs to whoever detaches, to a superuser, or to a
role that could drop what it names anyway; the names are those that we give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Struct

from magmobo.components.magds.guests import roles, schemas
from magmobo.components.magds.guests.errors import GuestInUse
from magmobo.components.magds.guests.names import ROLE_PREFIX
from magmobo.components.magds.own_schema import primary, rows
from magmobo.contracts.guests import SCHEMA_PREFIX

Connection = psycopg.AsyncConnection[Any]
_OWNER = """
select c.relowner::oid, o.rolsuper or o.rolname = current_user
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles o on o.oid = c.relowner
where n.nspname = 'mag' and c.relname = 'guest' and c.relkind = 'r'
"""
_NOTED_ROLES = """
select r.rolname::text from mag.guest g join pg_roles r on r.rolname = g.role
where g.role = %s || (select oid from pg_database where datname = current_database()) || '_' || g.guest
  and not r.rolsuper and r.rolname <> current_user
  and (%s or pg_has_role(%s::oid, r.oid, 'MEMBER WITH ADMIN OPTION')) order by 1
"""
_NOTED_SCHEMAS = """
select n.nspname::text from mag.guest g join pg_namespace n on n.nspname = %s || g.guest
where g.has_schema and n.nspowner = %s::oid order by 1
"""


class GuestTraces(Struct, frozen=True):
    """Roles and schemas to remove, and in words what stays and why."""

    roles: Sequence[str] = ()
    schemas: Sequence[str] = ()
    kept: Sequence[str] = ()


async def find(connection: Connection) -> GuestTraces:
    """What can go. A schema on which something of others was built stays."""
    owner = await rows(connection, _OWNER)
    if not owner:
        return GuestTraces()
    oid, is_trusted = owner[0]
    found = [row[0] for row in await rows(connection, _NOTED_SCHEMAS, (SCHEMA_PREFIX, oid))]
    used = {schema: others for schema in found if (others := await schemas.outsiders(connection, schema))}
    return GuestTraces(
        [row[0] for row in await rows(connection, _NOTED_ROLES, (ROLE_PREFIX, is_trusted, oid))],
        [schema for schema in found if schema not in used],
        [f"schema {schema} ({'; '.join(others)} would go with it)" for schema, others in used.items()],
    )


async def drop_role(connection: Connection, role: str) -> str:
    """Take a role away, in the caller's transaction; why it stays, empty when it is gone."""
    owned = "select from pg_shdepend s join pg_roles r on r.oid = s.refobjid where r.rolname = %s and s.deptype = 'o'"
    if await rows(connection, owned, (role,)):
        return "it owns objects"
    try:
        async with connection.transaction(), roles.as_member(connection, role):
            await roles.drop(connection, role)
    except GuestInUse as error:
        return error.reason
    except psycopg.Error as error:
        return primary(error)
    return ""
