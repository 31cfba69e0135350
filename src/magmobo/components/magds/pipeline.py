"""One connection in libpq's pipeline mode: many requests in flight, each one implicit transaction.

A request is: [Close an old statement] · set role, claims, read-only, time limit (local) · [Parse] · Bind/Execute ·
Sync. There is no BEGIN: the Sync ends the transaction, so an error undoes this request alone and the role cannot
outlive it.
Invariant: the FIFO holds exactly what libpq was given, in order. An entry libpq does not know would make `get_result`
return None for ever; two None in a row therefore end the connection instead of the event loop.
Source: https://www.postgresql.org/docs/18/libpq-pipeline-mode.html
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import capabilities, pq
from psycopg.errors import error_from_result

from magmobo.components.magds import errors
from magmobo.components.magds.libpq import pipeline_sync
from magmobo.components.magds.statements import Plan, StatementCache
from magmobo.contracts.planes import StatementResult

ENTER_IDENTITY = (
    b"select pg_catalog.set_config('role',$1,true),pg_catalog.set_config('request.jwt.claims',$2,true),"
    b"pg_catalog.set_config('transaction_read_only',$3,true),pg_catalog.set_config('statement_timeout',$4,true)"
)
_IDENTITY_NAME = b"mag_identity"
_CLOSE, _IDENTITY, _PARSE, _EXECUTE = range(4)

_SYNCED = pq.ExecStatus.PIPELINE_SYNC
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
_FATAL = pq.ExecStatus.FATAL_ERROR
_ROWS = pq.ExecStatus.TUPLES_OK
_DONE = pq.ExecStatus.COMMAND_OK
_EMPTY = pq.ExecStatus.EMPTY_QUERY

READ_ONLY_SQL_TRANSACTION = "25006"


class Request:
    """One statement on its way; `future` gets its StatementResult or error. `deadline_s` is in loop time."""

    __slots__ = ("claims", "deadline_s", "future", "params", "read_only", "retried", "role", "sql", "timeout_s")

    def __init__(
        self,
        future: asyncio.Future[StatementResult],
        *,
        role: bytes,
        claims: bytes,
        sql: bytes,
        params: Sequence[bytes | None],
        read_only: bool,
        timeout_s: float,
        deadline_s: float,
    ) -> None:
        self.future, self.role, self.claims, self.sql, self.params = future, role, claims, sql, params
        self.read_only, self.timeout_s, self.deadline_s = read_only, timeout_s, deadline_s
        self.retried = False


class _Flight:
    """A request that libpq knows, and what came back so far. `steps` is what was queued before its Sync."""

    __slots__ = ("error", "plan", "request", "rows", "step", "steps", "tag")

    def __init__(self, request: Request, plan: Plan, steps: tuple[int, ...]) -> None:
        self.request, self.plan, self.steps = request, plan, steps
        self.step = 0
        self.rows: list[tuple[bytes | None, ...]] = []
        self.tag = ""
        self.error: pq.abc.PGresult | None = None

    @property
    def kind(self) -> int:
        """Which of our steps the current result belongs to; past the last one it is the commit at the Sync."""
        return self.steps[self.step] if self.step < len(self.steps) else -1


class Retired(Exception):
    """The connection ended because it was asked to, with every request answered."""


class PipelineConnection:
    """A connection that `open` has put into pipeline mode. `on_progress` is called when requests finished,
    `on_lost` once when the connection is gone; its error is a `Retired` where `retire` asked for the end.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        statements: int,
        statement_timeout_s: float,
        on_progress: Callable[[], None],
        on_lost: Callable[[PipelineConnection, Exception], None],
    ) -> None:
        self._connection, self._pgconn = connection, connection.pgconn
        self._statement_timeout_s = statement_timeout_s
        self._cache = StatementCache(statements)
        self._on_progress, self._on_lost = on_progress, on_lost
        self._fifo: deque[_Flight] = deque()
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._progress_s = self._loop.time()
        self._writing = False
        self._retiring: Exception | None = None
        self.lost: Exception | None = None
        self._pgconn.nonblocking = 1
        self._pgconn.notice_handler = None
        self._pgconn.enter_pipeline_mode()
        self._sync = pipeline_sync(self._pgconn)
        self._loop.add_reader(self._socket, self._on_readable)

    @classmethod
    async def open(cls, connection: psycopg.AsyncConnection[Any], **options: Any) -> PipelineConnection:
        """Take over `connection`; from now on nobody else may use it."""
        await connection.set_autocommit(True)
        # libpq's own Parse, before pipeline mode: the one statement that belongs to no role
        result = connection.pgconn.prepare(_IDENTITY_NAME, ENTER_IDENTITY)
        if result.status != _DONE:
            raise error_from_result(result)
        return cls(connection, **options)

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered yet."""
        return len(self._fifo)

    @property
    def accepts(self) -> bool:
        """Whether new requests may be sent."""
        return self.lost is None and self._retiring is None

    @property
    def backend_pid(self) -> int:
        """Process id of the server's side."""
        return self._pgconn.backend_pid

    def roles(self) -> frozenset[bytes]:
        """Roles that statements are prepared for here."""
        return self._cache.roles()

    def silent_s(self) -> float:
        """Seconds since the server last finished a request, while it has one to work on; 0 when idle."""
        return self._loop.time() - self._progress_s if self._fifo else 0.0

    def submit(self, request: Request) -> None:
        """Queue one request in libpq; `flush` sends all queued ones in one go. Never raises."""
        try:
            self._queue(request)
        except Exception as error:  # half a request may be queued: only a new connection is certain
            self.lose(error)

    def flush(self) -> None:
        """Hand what is queued to the socket, now or when it becomes writable."""
        if self.lost is not None:
            return
        try:
            self._flush()
        except Exception as error:
            self.lose(error)

    def retire(self) -> None:
        """Take no more requests and end when those in flight are answered."""
        self._retiring = Retired()
        if not self._fifo:
            self.lose(self._retiring)

    def lose(self, error: Exception) -> None:
        """End the connection: everybody in flight gets a retryable error. Calling it twice is fine."""
        if self.lost is not None:
            return
        self.lost = error
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        flights, self._fifo = self._fifo, deque()
        reason = " ".join(str(error).split()) or type(error).__name__
        for flight in flights:
            if not flight.request.future.done():
                flight.request.future.set_exception(_loss_of(flight, error, reason))
        self._sync = _refuse_sync  # the C function must never see a freed connection
        self._pgconn.finish()
        self._on_lost(self, error)

    # ------------------------------------------------------------ sending

    def _queue(self, request: Request) -> None:
        pgconn, plan = self._pgconn, self._cache.plan(request.role, request.sql)
        prepared = plan.prepared
        steps: tuple[int, ...] = (_IDENTITY, _PARSE, _EXECUTE) if plan.parse else (_IDENTITY, _EXECUTE)
        if plan.close:
            steps = (_CLOSE, *steps)
        if not self._fifo:
            self._progress_s = self._loop.time()
        self._fifo.append(_Flight(request, plan, steps))
        if plan.close:
            self._queue_close(plan.close)
        limit_s = min(request.timeout_s, self._statement_timeout_s)
        pgconn.send_query_prepared(
            _IDENTITY_NAME,
            (request.role, request.claims, b"on" if request.read_only else b"off", b"%d" % max(1, limit_s * 1000)),
        )
        if prepared is None:
            pgconn.send_query_params(request.sql, request.params)
        else:
            if plan.parse:
                pgconn.send_prepare(prepared.name, request.sql)
            pgconn.send_query_prepared(prepared.name, request.params)
        self._sync()

    def _queue_close(self, name: bytes) -> None:
        if capabilities.has_send_close_prepared():
            self._pgconn.send_close_prepared(name)
        else:  # libpq older than 17
            self._pgconn.send_query_params(b"deallocate " + name, ())

    def _flush(self) -> None:
        pending = self._pgconn.flush()
        if pending and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._on_writable)
        elif not pending and self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _on_writable(self) -> None:
        try:
            self._pgconn.consume_input()  # a server that waits for us to read would never read what we send
            self._flush()
            self._collect()
        except Exception as error:
            self.lose(error)

    # ------------------------------------------------------------ receiving

    def _on_readable(self) -> None:
        try:
            self._pgconn.consume_input()
            self._collect()
        except Exception as error:
            self.lose(error)

    def _collect(self) -> None:
        fifo, is_busy, get_result = self._fifo, self._pgconn.is_busy, self._pgconn.get_result
        finished = ended = False
        while fifo and not is_busy():
            result = get_result()
            if result is None:
                if ended:
                    raise RuntimeError("the pipeline lost count of its requests")
                ended = True
                fifo[0].step += 1
                continue
            ended = False
            if result.status == _SYNCED:
                self._finish(fifo.popleft())
                finished = True
            else:
                self._take(fifo[0], result)
        if self._retiring is not None and not fifo:
            self.lose(self._retiring)
        if finished:
            self._progress_s = self._loop.time()
            self._on_progress()

    def _take(self, flight: _Flight, result: pq.abc.PGresult) -> None:
        status, kind = result.status, flight.kind
        if status == _FATAL:
            flight.error = result
        elif kind == _PARSE and status == _DONE and flight.plan.prepared is not None:
            self._cache.acknowledge(flight.plan.prepared)
        elif kind == _EXECUTE and status == _ROWS:
            flight.rows, flight.tag = _rows_of(result), (result.command_status or b"").decode()
        elif kind == _EXECUTE and status in (_DONE, _EMPTY):
            flight.tag = (result.command_status or b"").decode()
        elif status not in (_ABORTED, _DONE, _ROWS):
            raise errors.StatementUnsupported("COPY needs a connection of its own")

    def _finish(self, flight: _Flight) -> None:
        request, prepared = flight.request, flight.plan.prepared
        if flight.error is None:
            if not request.future.done():
                request.future.set_result(StatementResult(flight.rows, flight.tag))
            return
        if prepared is not None and not prepared.ready:
            self._cache.forget(prepared, on_server=False)
        if prepared is not None and not flight.plan.parse and self._is_stale(flight.error):
            self._cache.forget(prepared, on_server=True)
            if not request.retried and not request.future.done():
                request.retried = True  # refused before it ran, so running it now runs it once
                self._queue(request)
                self._flush()
                return
        error = error_from_result(flight.error)
        if not request.future.done():
            request.future.set_exception(error)
        if error.sqlstate == READ_ONLY_SQL_TRANSACTION and not request.read_only:
            # the server became a standby; a new connection may find the primary
            self._retiring = self._retiring or RuntimeError("the server takes no writes any more")

    @staticmethod
    def _is_stale(result: pq.abc.PGresult) -> bool:
        """Whether Postgres refused a prepared statement because a table under it changed, or it is gone."""
        field = pq.DiagnosticField
        state = result.error_field(field.SQLSTATE)
        if state == b"0A000":
            return result.error_field(field.SOURCE_FUNCTION) == b"RevalidateCachedQuery"
        return state == b"26000"


def _refuse_sync() -> None:
    raise psycopg.OperationalError("the connection is closed")


def _rows_of(result: pq.abc.PGresult) -> list[tuple[bytes | None, ...]]:
    get_value, columns = result.get_value, range(result.nfields)
    return [tuple([get_value(row, column) for column in columns]) for row in range(result.ntuples)]


def _loss_of(flight: _Flight, error: Exception, reason: str) -> Exception:
    if isinstance(error, errors.StatementUnsupported) and flight.kind == _EXECUTE:
        return error
    return errors.ConnectionLost(reason)
