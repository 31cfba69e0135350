"""`db.execute`, `db.fetch` and `db.fetchval`: statements of an extension, as its own role, on its own connections.

A statement passes the guard, its tables are compared with the grants of this moment, and then Postgres decides by the
rights of the role. It is a transaction of its own. Boundary: rates, budgets and deadlines are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from msgspec import Struct

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.guests import Guests, TableRight
from magmobo.contracts.planes import TableName
from magmobo.extensions.installed import ApiMethod, Caller, Installed
from magmobo.extensions.package.scopes import TableScope, parse_table
from magmobo.extensions.sql import execution
from magmobo.extensions.sql.errors import StatementRefused, TableNotGranted
from magmobo.extensions.sql.execution import Answer, NotTaken
from magmobo.extensions.sql.guard import GuardCache, Guarded
from magmobo.extensions.sql.values import parameters

READ, WRITE, SCHEMA, ADMIN = "database.read", "database.write", "database.schema", "database.admin"
_SESSION_TIMEOUT_S = 5.0
_CONNECTIONS_TRIED = 4
"""For one statement that each of them ended before it was taken: one more than a guest has of them."""


class Gate(Protocol):
    """What is asked of the gatekeeper here."""

    def holds(self, extension: Installed, capability: str) -> bool: ...

    def denied(self, extension: Installed, capability: str, method: str, reason: str) -> None: ...


class SqlArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """One statement and its values."""

    sql: str
    params: list[Any] = []


class SqlMethods:
    """The methods `db.*` of one node."""

    def __init__(self, guests: Guests, gate: Gate) -> None:
        self._guests, self._gate = guests, gate
        self._cache = GuardCache()

    def methods(self) -> Sequence[ApiMethod]:
        """For the dispatcher. Reading is what each takes; writing is asked for when a statement writes."""
        return (
            ApiMethod("db.execute", READ, SqlArguments, self._execute),
            ApiMethod("db.fetch", READ, SqlArguments, self._fetch),
            ApiMethod("db.fetchval", READ, SqlArguments, self._fetchval),
        )

    async def _execute(self, caller: Caller, args: SqlArguments) -> int:
        return (await self._run(caller, args, "db.execute")).count

    async def _fetch(self, caller: Caller, args: SqlArguments) -> list[dict[str, Any]]:
        return (await self._run(caller, args, "db.fetch")).rows

    async def _fetchval(self, caller: Caller, args: SqlArguments) -> Any:
        rows = (await self._run(caller, args, "db.fetchval")).rows
        return next(iter(rows[0].values()), None) if rows else None

    async def _run(self, caller: Caller, args: SqlArguments, method: str) -> Answer:
        """Raises: StatementRefused, TableNotGranted, ParameterRefused, StatementFailed, ResultTooLarge, Unavailable."""
        extension = caller.extension
        if not extension.guest:
            raise StatementRefused("this extension has no storage")
        schema = self._guests.schema_of(extension.guest) if has_schema(extension) else ""
        guarded = await self._cache.query(args.sql, schema)
        self._check_tables(extension, guarded, schema, method)
        given = parameters(args.params)
        for _ in range(_CONNECTIONS_TRIED):
            with suppress(NotTaken):
                async with self._guests.session(extension.guest, timeout_s=_SESSION_TIMEOUT_S) as connection:
                    return await execution.run(connection, guarded.sql, given)
        raise Unavailable("the database")

    def _check_tables(self, extension: Installed, guarded: Guarded, schema: str, method: str) -> None:
        """Raises: TableNotGranted."""
        for tables, capability in ((guarded.reads, READ), (guarded.writes, WRITE)):
            granted = {TableName(scope.schema, scope.name) for scope in scopes(extension, capability)}
            for table in tables:
                needed = SCHEMA if table.schema == schema else capability
                if (needed == SCHEMA or table in granted) and self._gate.holds(extension, needed):
                    continue
                self._gate.denied(extension, needed, method, "table")
                raise TableNotGranted(str(table), writes=capability == WRITE)


def has_schema(extension: Installed) -> bool:
    """Whether its manifest asks for tables of its own."""
    return any(extension.manifest.request(name) is not None for name in (SCHEMA, ADMIN))


def scopes(extension: Installed, capability: str) -> Sequence[TableScope]:
    """The tables of a capability that it has now; none without it."""
    grant = extension.grants.get(capability)
    if grant is None:
        return ()
    named = grant.scope.get("tables")
    if named is None:
        request = extension.manifest.request(capability)
        named = request.tables if request is not None else ()
    return [parse_table(text) for text in named]


def rights_of(extension: Installed) -> Sequence[TableRight]:
    """What its role may do with tables of others, by its grants of this moment. Rows are deleted as a whole, so not
    where only some columns were granted.
    """
    rights: dict[tuple[TableName, tuple[str, ...]], tuple[str, ...]] = {}
    for capability, words in ((READ, ("select",)), (WRITE, ("select", "insert", "update", "delete"))):
        for scope in scopes(extension, capability):
            key = (TableName(scope.schema, scope.name), scope.columns)
            allowed = tuple(word for word in words if not (scope.columns and word == "delete"))
            rights[key] = tuple(dict.fromkeys((*rights.get(key, ()), *allowed)))
    return [TableRight(table, words, columns) for (table, columns), words in rights.items()]
