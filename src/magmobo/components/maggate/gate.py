"""Answers one request: identity, shape, plan, SQL, result. The ASGI side is `app`.

Invariant: a statement runs under the identity of its own request and nothing else, and the JSON text of Postgres is the
body, untouched. Statements are compiled once per shape and snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from http import HTTPStatus
from typing import Literal

import psycopg

from magmobo.components.maggate import grammar, hints, request, response
from magmobo.components.maggate.auth import Authenticator
from magmobo.components.maggate.body import Rows, read_rows
from magmobo.components.maggate.call import Call
from magmobo.components.maggate.catalogue import Snapshot, Table
from magmobo.components.maggate.config import MagGateConfig
from magmobo.components.maggate.errors import (
    InvalidBody,
    InvalidQuery,
    MethodNotAllowed,
    NotSingular,
    UnfilteredWrite,
    UnknownColumn,
    UnknownTable,
)
from magmobo.components.maggate.grammar import ParsedQuery
from magmobo.components.maggate.hooks import Guards
from magmobo.components.maggate.plan import columns_for_write, plan_read, plan_where
from magmobo.components.maggate.privileges import Privileges
from magmobo.components.maggate.problem import translate
from magmobo.components.maggate.request import Preferences
from magmobo.components.maggate.response import Response
from magmobo.components.maggate.schema_cache import SchemaCache
from magmobo.components.maggate.sql import Compiled, Guard, Write, compile_keyed_insert, compile_read, compile_write
from magmobo.contracts.planes import Database, Statement, StatementResult

TABLE_METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
ROOT_METHODS = "GET, HEAD, OPTIONS"
MAX_COMPILED = 512

# A statement of ours met a catalogue that is not the one it was written for.
_STALE = frozenset({"42P01", "42703", "42704", "3F000"})
_KINDS: dict[str, Literal["insert", "update", "delete"]] = {"POST": "insert", "PATCH": "update", "DELETE": "delete"}


class Gate:
    """The gateway without its transport."""

    def __init__(
        self,
        config: MagGateConfig,
        database: Database,
        cache: SchemaCache,
        authenticator: Authenticator,
        privileges: Privileges,
        guards: Guards,
    ) -> None:
        self._config, self._database, self._cache = config, database, cache
        self._authenticator, self._privileges, self._guards = authenticator, privileges, guards
        self._timeout_s, self._max_response_bytes = config.statement_timeout_s, config.max_response_bytes
        self._statements = _Statements()

    async def answer(self, call: Call) -> Response:
        """Answer one request.

        Raises: GateError; HookDenied, HookUnavailable; other MagErrors of the database (Unavailable, DeadlineExceeded)
            pass through.
        """
        name = call.table = request.table_name(call.raw_path)
        if call.method == "OPTIONS":
            return Response(HTTPStatus.OK, [(b"allow", (TABLE_METHODS if name else ROOT_METHODS).encode())])
        call.identity, call.anonymous = self._authenticator.identify(call.headers.get(b"authorization"))
        guards = self._guards
        if (
            guards.rate_limit.chain is not None
            or guards.before_request.chain is not None
            or guards.rbac.chain is not None
        ):
            await guards.ask(call, max_body_bytes=self._config.max_body_bytes)
        try:
            return await self._dispatch(call, name, self._cache.snapshot)
        except psycopg.Error as error:
            if error.sqlstate in _STALE:
                self._cache.invalidate()
            raise translate(
                error, anonymous=call.anonymous, singular=call.singular, max_response_bytes=self._max_response_bytes
            ) from error

    async def _dispatch(self, call: Call, name: str, snapshot: Snapshot) -> Response:
        try:
            return await (self._table(call, snapshot, name) if name else self._list(call, snapshot))
        except hints.NAMING_ERRORS as error:
            visible = await self._privileges.visible(snapshot, call.identity, timeout_s=self._timeout_s)
            columns = frozenset[str]()
            if isinstance(error, UnknownColumn) and visible.issuperset(error.tables):
                table = snapshot.tables[error.tables[0]]
                columns = await self._privileges.columns(table, call.identity, timeout_s=self._timeout_s)
            raise hints.explained(error, snapshot, visible, columns, anonymous=call.anonymous) from error

    async def _list(self, call: Call, snapshot: Snapshot) -> Response:
        if call.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(call.method, ROOT_METHODS)
        tables = await self._privileges.listing(snapshot, call.identity, timeout_s=self._timeout_s)
        return Response(HTTPStatus.OK, [response.JSON_TYPE], tables)

    async def _table(self, call: Call, snapshot: Snapshot, name: str) -> Response:
        schema = request.schema_name(call.headers, call.method, self._config.schemas)
        table = snapshot.table(schema, name)
        if table is None:
            raise UnknownTable(schema, name)
        if call.method in ("GET", "HEAD"):
            answer = await self._read(call, snapshot, table)
        elif call.method in _KINDS:
            answer = await self._write(call, snapshot, table)
        else:
            raise MethodNotAllowed(call.method, TABLE_METHODS)
        if len(self._config.schemas) > 1:
            answer.headers.append((b"content-profile", schema.encode()))
        return answer

    async def _run(
        self, compiled: Compiled, values: Sequence[bytes], call: Call, *, read_only: bool
    ) -> StatementResult:
        statement = Statement(compiled.sql, [values[slot] for slot in compiled.slots])
        return await self._database.run(statement, call.identity, read_only=read_only, timeout_s=self._timeout_s)

    # ------------------------------------------------------------ reading

    async def _read(self, call: Call, snapshot: Snapshot, table: Table) -> Response:
        singular = call.singular = request.wants_single_object(call.headers)
        wanted = request.preferences(call.headers)
        parsed = grammar.parse_query(call.query_string, max_rows=self._config.max_rows)
        query, exact, with_body = parsed.query, wanted.exact_count, call.method == "GET"
        if query.columns is not None:
            raise InvalidQuery("columns", "it belongs to writes")
        window = request.window(call.headers, parsed.limit, parsed.offset)
        limit = self._config.max_rows if window.limit is None else min(window.limit, self._config.max_rows)

        def compiled() -> Compiled:
            plan = plan_read(snapshot, table, query)
            return compile_read(plan, exact_count=exact, singular=singular, with_body=with_body)

        statement = self._statements.get(snapshot, (table.oid, query, exact, singular, with_body), compiled)
        values = [*parsed.values, b"%d" % self._max_response_bytes, b"", b"%d" % limit, b"%d" % window.offset, b""]
        result = await self._run(statement, values, call, read_only=True)
        count, total, text = result.rows[0]
        return response.page(
            text or b"", int(count or 0), None if total is None else int(total),
            offset=window.offset, singular=singular, preferences=wanted,
        )  # fmt: skip

    # ------------------------------------------------------------ writing

    async def _write(self, call: Call, snapshot: Snapshot, table: Table) -> Response:
        singular = call.singular = request.wants_single_object(call.headers)
        wanted = request.preferences(call.headers)
        parsed = grammar.parse_query(call.query_string, max_rows=self._config.max_rows)
        _check_write(call.method, parsed)
        rows, names = _rows_to_write(call, parsed)
        represented = wanted.returning == "representation"
        guard: Guard = "singular" if singular else "none" if wanted.max_affected is None else "max_affected"
        keyed = wanted.returning == "headers-only" and call.method == "POST" and bool(table.primary_key)

        def compiled() -> Compiled:
            where, columns = plan_where(table, parsed.query.where), columns_for_write(table, names)
            write = Write(_KINDS[call.method], table, columns, where, rows.is_array, guard)
            if keyed and guard == "none":
                return compile_keyed_insert(write)
            plan = plan_read(snapshot, table, parsed.query) if represented else None
            return compile_write(write, plan, singular=singular)

        if _changes_nothing(call.method, rows, names):
            if singular:
                raise NotSingular(0)
            text = b"[]" if represented else None
            return response.written(call.method, 0, text, singular=False, preferences=wanted)
        shape = (table.oid, parsed.query, call.method, names, rows.is_array, guard, represented, singular, keyed)
        statement = self._statements.get(snapshot, shape, compiled)
        limits = b"%d" % self._max_response_bytes, b"%d" % (wanted.max_affected or 0)
        values = [*parsed.values, *limits, b"", b"", call.body]
        result = await self._run(statement, values, call, read_only=False)
        return self._written(call, table, result, wanted, keyed=keyed and guard == "none", guarded=guard != "none")

    def _written(
        self, call: Call, table: Table, result: StatementResult, wanted: Preferences, *, keyed: bool, guarded: bool
    ) -> Response:
        represented = wanted.returning == "representation"
        if represented or guarded:
            count, _, text = result.rows[0]
            affected = int(count or 0)
        else:
            affected, text = int(result.tag.rpartition(" ")[2] or 0), None
        answer = response.written(
            call.method, affected, text if represented else None, singular=call.singular, preferences=wanted
        )  # fmt: skip
        if keyed and len(result.rows) == 1:
            answer.headers.append(response.location(table, result.rows[0]))
        return answer


class _Statements:
    """SQL compiled against one snapshot, by shape; the oldest goes first, and all of it with the snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: dict[Hashable, Compiled] = {}

    def get(self, snapshot: Snapshot, shape: Hashable, compile_: Callable[[], Compiled]) -> Compiled:
        if self._snapshot is not snapshot:
            self._snapshot, self._known = snapshot, {}
        compiled = self._known.get(shape)
        if compiled is None:
            compiled = compile_()
            while len(self._known) >= MAX_COMPILED:
                self._known.pop(next(iter(self._known)))
            self._known[shape] = compiled
        return compiled


def _check_write(method: str, parsed: ParsedQuery) -> None:
    if parsed.query.order or parsed.limit is not None or parsed.offset:
        raise InvalidQuery("the query string", f"order, limit and offset have no meaning with {method}")
    if method == "POST" and parsed.query.where:
        raise InvalidQuery("the query string", "filters have no meaning with POST")
    if method != "POST" and not parsed.query.where:
        raise UnfilteredWrite(method)


def _rows_to_write(call: Call, parsed: ParsedQuery) -> tuple[Rows, tuple[str, ...]]:
    """What the body holds and the columns to set: those of `columns`, else its keys."""
    chosen = parsed.query.columns
    if call.method == "DELETE":
        if chosen is not None:
            raise InvalidQuery("columns", "it has no meaning with DELETE")
        return Rows((), False, 0), ()
    request.check_body_type(call.headers)
    rows = read_rows(call.body, array_allowed=call.method == "POST", same_keys=chosen is None)
    names = rows.keys if chosen is None else chosen
    if not names and rows.is_array and rows.count:
        raise InvalidBody("an object without keys is inserted alone, not inside an array")
    return rows, names


def _changes_nothing(method: str, rows: Rows, names: tuple[str, ...]) -> bool:
    """An empty array inserts nothing, an empty object updates nothing; Postgres has no statement for either."""
    return (method == "POST" and not rows.count) or (method == "PATCH" and not names)
