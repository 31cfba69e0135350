"""What a guest may do with tables of others: brought to exactly what is asked for, then read back and compared.

Only differences are changed, so saying the same again touches no table. A schema of such a table is opened for the
guest, and so are the sequences of serial columns of tables it may insert into. Callers work inside `our_names`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from msgspec import Struct
from psycopg import sql

from magmobo.components.magds.guests.errors import GuestRightRefused
from magmobo.components.magds.own_schema import SCHEMA, quoted, rows
from magmobo.contracts.guests import SCHEMA_PREFIX, TableRight
from magmobo.contracts.planes import TableName

Connection = psycopg.AsyncConnection[Any]
_WORDS: Mapping[str, LiteralString] = {
    "select": "select", "insert": "insert", "update": "update", "delete": "delete", "usage": "usage",
}  # fmt: skip
_ON: Mapping[str, LiteralString] = {"table": "table", "sequence": "sequence", "schema": "schema"}
_FACTS = """
select c.relkind::text, coalesce((select array_agg(t.attname::text) from pg_attribute t
                                  where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped), '{}'),
       pg_get_userbyid(c.relowner)::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s
"""
_SERIALS = """
select n.nspname::text, s.relname::text from pg_depend d
join pg_class s on s.oid = d.objid and s.relkind = 'S' join pg_namespace n on n.oid = s.relnamespace
where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype = 'a'
  and d.refobjid = (select c.oid from pg_class c join pg_namespace m on m.oid = c.relnamespace
                    where m.nspname = %s and c.relname = %s)
"""
# What a role has by name, outside of its own schema. Nothing here knows of PUBLIC.
_HELD = """
with me as (select oid from pg_roles where rolname = %(role)s)
select case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname::text, c.relname::text,
       lower(a.privilege_type), '', pg_get_userbyid(a.grantor)::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join lateral aclexplode(c.relacl) a
where a.grantee = (select oid from me) and n.nspname <> %(schema)s
union all
select 'table', n.nspname::text, c.relname::text, lower(a.privilege_type), t.attname::text,
       pg_get_userbyid(a.grantor)::text
from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace
cross join lateral aclexplode(t.attacl) a
where a.grantee = (select oid from me) and n.nspname <> %(schema)s
union all
select 'schema', n.nspname::text, '', lower(a.privilege_type), '', pg_get_userbyid(a.grantor)::text
from pg_namespace n cross join lateral aclexplode(n.nspacl) a
where a.grantee = (select oid from me) and n.nspname <> %(schema)s
"""


class _Right(Struct, frozen=True):
    """One right on one thing; `column` empty: on the whole of it."""

    kind: str
    schema: str
    name: str
    right: str
    column: str = ""

    @property
    def thing(self) -> tuple[str, str, str]:
        return self.kind, self.schema, self.name


async def bring(connection: Connection, role: str, schema: str, rights: Sequence[TableRight]) -> None:
    """Give the role these rights on tables outside of `schema`, its own, and no other.

    Raises: GuestRightRefused.
    """
    asked = [one for right in rights for one in await _wanted(connection, right)]
    whole = {(*one.thing, one.right) for one in asked if not one.column}
    wanted = {one for one in asked if not one.column or (*one.thing, one.right) not in whole}
    held = set(await _held(connection, role, schema))
    changing = {right.thing for right in wanted ^ held}
    for thing in sorted({right.thing for right in held} & changing):
        await _change(connection, role, thing, [])
    for thing in sorted({right.thing for right in wanted} & changing):
        await _change(connection, role, thing, [right for right in wanted if right.thing == thing])
    _compare(connection, role, wanted, await _held(connection, role, schema))


async def _wanted(connection: Connection, right: TableRight) -> list[_Right]:
    table = right.table
    if table.schema in (SCHEMA, "information_schema") or table.schema.startswith(("pg_", SCHEMA_PREFIX)):
        raise GuestRightRefused(table, "it belongs to the system, to the node or to another extension")
    if unknown := set(right.rights) - {"select", "insert", "update", "delete"}:
        raise GuestRightRefused(table, f"{', '.join(sorted(unknown))} is no right that a guest can have")
    facts = await rows(connection, _FACTS, (table.schema, table.name))
    if not facts or facts[0][0] not in "rpvmf":
        raise GuestRightRefused(table, "there is no table or view of that name", "Create it, or correct the name.")
    if missing := set(right.columns) - set(facts[0][1]):
        raise GuestRightRefused(table, f"it has no column {', '.join(sorted(missing))}")
    if right.columns and "delete" in right.rights:
        raise GuestRightRefused(table, "rows are deleted as a whole, not by column")
    wanted = [
        _Right("table", table.schema, table.name, word, column)
        for word in right.rights
        for column in right.columns or ("",)
    ]
    if "insert" in right.rights:
        serials = await rows(connection, _SERIALS, (table.schema, table.name))
        wanted += [_Right("sequence", schema, name, "usage") for schema, name in serials]
    query = "select has_schema_privilege('public', %s, 'USAGE')"
    wanted += [
        _Right("schema", schema, "", "usage")
        for schema in {one.schema for one in wanted}
        if not (await rows(connection, query, (schema,)))[0][0]
    ]
    return wanted


async def _held(connection: Connection, role: str, schema: str) -> Mapping[_Right, str]:
    """What it has, and who gave it."""
    found = await rows(connection, _HELD, {"role": role, "schema": schema})
    return {_Right(*row[:5]): row[5] for row in found}


async def _change(connection: Connection, role: str, thing: tuple[str, str, str], rights: list[_Right]) -> None:
    """Exactly these rights on one thing; none: take all away."""
    kind, schema, name = thing
    what = sql.SQL(_ON[kind] + " {}").format(sql.Identifier(*((schema, name) if name else (schema,))))
    guest = sql.Identifier(role)
    # Without the right to give it Postgres warns or refuses; both show when all is read back.
    with suppress(psycopg.errors.InsufficientPrivilege):
        async with connection.transaction():
            await connection.execute(sql.SQL("revoke all on {} from {}").format(what, guest))
            if rights:
                words = sql.SQL(", ").join(_words(rights))
                await connection.execute(sql.SQL("grant {} on {} to {}").format(words, what, guest))


def _words(rights: list[_Right]) -> Iterator[sql.Composable]:
    for word in sorted({right.right for right in rights}):
        columns = sorted(right.column for right in rights if right.right == word and right.column)
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        yield sql.SQL(_WORDS[word] + " ({})").format(listed) if columns else sql.SQL(_WORDS[word])


def _compare(connection: Connection, role: str, wanted: set[_Right], held: Mapping[_Right, str]) -> None:
    """Postgres only warns of a grant that gave nothing, and of a revoke of what somebody else gave."""
    for right in wanted - held.keys():
        what, login = _in_words(connection, right.thing), quoted(connection, connection.info.user)
        raise GuestRightRefused(
            TableName(right.schema, right.name),
            f"{connection.info.user} may not give {right.right} on {what} to anybody",
            f"As its owner: GRANT {right.right.upper()} ON {what} TO {login} WITH GRANT OPTION;",
        )
    for right in held.keys() - wanted:
        what, grantor = _in_words(connection, right.thing), held[right]
        raise GuestRightRefused(
            TableName(right.schema, right.name),
            f"{role} has {right.right} on {what} from {grantor}, who alone can take it back",
            f"As {grantor}: REVOKE ALL ON {what} FROM {quoted(connection, role)};",
        )


def _in_words(connection: Connection, thing: tuple[str, str, str]) -> str:
    kind, schema, name = thing
    return f"{kind} {quoted(connection, *((schema, name) if name else (schema,)))}"
