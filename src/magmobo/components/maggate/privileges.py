"""Which tables a role may use: asked of Postgres as that role, remembered for a short time; and why a role is refused.

Errors and listings name only these tables, so that a guess at a name tells nobody what others keep here.
"""

from __future__ import annotations

from magmobo.components.maggate.catalogue import Snapshot, Table
from magmobo.components.maggate.errors import AnonymousRoleRefused
from magmobo.contracts.clock import Clock
from magmobo.contracts.planes import Database, Identity, Statement, TableName

REMEMBER_S = 10.0

_USABLE = """
  pg_catalog.has_schema_privilege(c.relnamespace, 'usage') and (
    pg_catalog.has_table_privilege(c.oid, 'select, insert, update, delete')
    or pg_catalog.has_any_column_privilege(c.oid, 'select, insert, update'))
"""

_VISIBLE = f"select c.oid::text from pg_catalog.pg_class c where c.oid = any ($1::oid[]) and {_USABLE}"  # noqa: S608

_COLUMNS = """
select a.attname::text from pg_catalog.pg_attribute a
 where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
   and pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'select, insert, update')
"""

_LISTING = f"""
select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'schema', n.nspname, 'name', c.relname,
    'kind', case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
            else 'table' end,
    'select', pg_catalog.has_any_column_privilege(c.oid, 'select'),
    'insert', pg_catalog.has_any_column_privilege(c.oid, 'insert'),
    'update', pg_catalog.has_any_column_privilege(c.oid, 'update'),
    'delete', pg_catalog.has_table_privilege(c.oid, 'delete')) order by n.nspname, c.relname), '[]')::text
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid = any ($1::oid[]) and {_USABLE}
"""  # noqa: S608 - both parts are constants of this module

_ROLE = """
select pg_catalog.quote_ident(asked), pg_catalog.quote_ident(current_user), r.oid is not null, asked = current_user,
       r.rolsuper, r.rolbypassrls
  from (select %s::text) as a (asked) left join pg_catalog.pg_roles r on r.rolname = asked
"""


async def refusal_of(database: Database, role: str) -> AnonymousRoleRefused:
    """Why requests may not use `role`, with the statement that would change it where one does.

    Raises: psycopg.Error and Unavailable when the catalogue cannot be read.
    """
    async with database.session() as connection:
        row = await (await connection.execute(_ROLE, (role,))).fetchone()
    if row is None:  # cannot be: the query has no WHERE
        return AnonymousRoleRefused(role)
    quoted, login, exists, is_own, is_super, bypasses = row
    grant = f"GRANT {quoted} TO {login};"
    if not exists:
        return AnonymousRoleRefused(role, "there is no such role", f"CREATE ROLE {quoted} NOLOGIN; {grant}")
    if is_own:
        return AnonymousRoleRefused(role, "that is the node's own role")
    if is_super or bypasses:
        why = "it is a superuser" if is_super else "it bypasses row level security"
        return AnonymousRoleRefused(role, f"{why}, which no request may")
    return AnonymousRoleRefused(role, f"the node's role {login} may not switch to it", grant)


class Privileges:
    """Answers for one database. Forgets after `REMEMBER_S` seconds and with every new snapshot."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._snapshot: Snapshot | None = None
        self._known: dict[str, tuple[float, frozenset[TableName]]] = {}

    async def visible(self, snapshot: Snapshot, identity: Identity, *, timeout_s: float) -> frozenset[TableName]:
        """Tables of the snapshot that the identity's role may read or write, in whole or in part.

        Raises: what `Database.run` raises.
        """
        if self._snapshot is not snapshot:
            self._snapshot, self._known = snapshot, {}
        now_s = self._clock.monotonic_s()
        until_s, names = self._known.get(identity.role, (0.0, frozenset[TableName]()))
        if until_s > now_s:
            return names
        result = await self._database.run(_statement(_VISIBLE, snapshot), identity, read_only=True, timeout_s=timeout_s)
        oids = {int(row[0]) for row in result.rows if row[0] is not None}
        names = frozenset(table.name for table in snapshot.tables.values() if table.oid in oids)
        self._known[identity.role] = now_s + REMEMBER_S, names
        return names

    async def columns(self, table: Table, identity: Identity, *, timeout_s: float) -> frozenset[str]:
        """Columns of the table that the identity's role may read or write. Raises: what `Database.run` raises."""
        statement = Statement(_COLUMNS.encode(), [b"%d" % table.oid])
        result = await self._database.run(statement, identity, read_only=True, timeout_s=timeout_s)
        return frozenset(row[0].decode() for row in result.rows if row[0] is not None)

    async def listing(self, snapshot: Snapshot, identity: Identity, *, timeout_s: float) -> bytes:
        """JSON array of those tables with what the role may do to each. Raises: what `Database.run` raises."""
        result = await self._database.run(_statement(_LISTING, snapshot), identity, read_only=True, timeout_s=timeout_s)
        return result.rows[0][0] or b"[]"


def _statement(sql: str, snapshot: Snapshot) -> Statement:
    oids = ",".join(str(table.oid) for table in snapshot.tables.values())
    return Statement(sql.encode(), [f"{{{oids}}}".encode()])
