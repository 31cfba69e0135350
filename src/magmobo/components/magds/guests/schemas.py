"""The schema of a guest. It belongs to the node, the guest may make things in it: so it can neither drop it nor let
others in. When the guest goes and the schema stays, what is in it becomes ours, until the guest comes back.

Callers work inside `own_schema.our_names`.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from magmobo.components.magds.guests.errors import GuestInUse, GuestsRefused
from magmobo.components.magds.own_schema import quoted, rows

Connection = psycopg.AsyncConnection[Any]
_OWNER = """
select o.rolname::text, o.rolname = current_user or pg_has_role(current_user, o.oid, 'USAGE')
from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = %s
"""
# Sequences of columns, indexes and row types follow their table.
_CONTENTS = """
select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' else 'table' end,
       c.relname::text
from pg_class c where c.relnamespace = %s::text::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
  and pg_get_userbyid(c.relowner) = current_user
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                  and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i'))
union all
select case t.typtype when 'd' then 'domain' else 'type' end, t.typname::text
from pg_type t where t.typnamespace = %s::text::regnamespace and t.typtype in ('d', 'e')
  and pg_get_userbyid(t.typowner) = current_user
"""
# Whatever is outside of the schema and would go with it: views, keys, columns of its types, functions.
_OUTSIDERS = """
with inside(classid, objid) as (
  select 'pg_class'::regclass, oid from pg_class where relnamespace = %(schema)s::text::regnamespace
  union all select 'pg_type'::regclass, oid from pg_type where typnamespace = %(schema)s::text::regnamespace
  union all select 'pg_proc'::regclass, oid from pg_proc where pronamespace = %(schema)s::text::regnamespace)
select distinct pg_describe_object(d.classid, d.objid, d.objsubid)
from inside i join pg_depend d on d.refclassid = i.classid and d.refobjid = i.objid
cross join lateral pg_identify_object_as_address(d.classid, d.objid, d.objsubid) a
where d.deptype in ('n', 'a') and a.type not in ('publication relation', 'toast table')
  and case when a.type in ('type', 'domain') then starts_with(a.object_names[1], quote_ident(%(name)s) || '.')
           else a.object_names[1] = %(name)s end is not true
limit 5
"""


async def make(connection: Connection, schema: str, role: str, *, noted: bool) -> None:
    """Make the schema, or open the one that stayed behind, for the role. `noted`: we know of it.

    Raises: GuestsRefused when a schema of that name is there that is not ours.
    """
    found = await rows(connection, _OWNER, (schema,))
    if found and not (noted and found[0][1]):
        raise GuestsRefused(
            f"schema {schema} is there already and belongs to {found[0][0]}",
            f"Rename it: ALTER SCHEMA {quoted(connection, schema)} RENAME TO …; or drop it when nobody needs it.",
        )
    name, guest = sql.Identifier(schema), sql.Identifier(role)
    if not found:
        await connection.execute(sql.SQL("create schema {}").format(name))
    await connection.execute(sql.SQL("grant usage, create on schema {} to {}").format(name, guest))


async def hand_over(connection: Connection, schema: str, role: str) -> None:
    """What stayed in the schema belongs to the role again; call it as a member of the role."""
    text = quoted(connection, schema)
    for kind, name in await rows(connection, _CONTENTS, (text, text)):
        await connection.execute(
            sql.SQL("alter {} {} owner to {}").format(
                sql.SQL(_word(kind)), sql.Identifier(schema, name), sql.Identifier(role)
            )
        )


async def keep(connection: Connection, role: str) -> None:
    """What the role owns becomes ours; call it as a member of the role."""
    await connection.execute(sql.SQL("reassign owned by {} to current_user").format(sql.Identifier(role)))


async def drop(connection: Connection, schema: str) -> None:
    """Drop it with everything in it. Raises: GuestInUse when something outside of it would go, too."""
    if not await rows(connection, _OWNER, (schema,)):
        return
    if others := await outsiders(connection, schema):
        raise GuestInUse(f"schema {schema}", f"{'; '.join(others)} would go with it")
    await connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))


async def outsiders(connection: Connection, schema: str) -> list[str]:
    """Things of others that depend on what is in the schema, in the words of Postgres; five at most."""
    parameters: dict[str, Any] = {"schema": quoted(connection, schema), "name": schema}
    return [row[0] for row in await rows(connection, _OUTSIDERS, parameters)]


def _word(kind: str) -> LiteralString:
    words: dict[str, LiteralString] = {
        "view": "view", "materialized view": "materialized view", "sequence": "sequence", "domain": "domain",
        "type": "type",
    }  # fmt: skip
    return words.get(kind, "table")
