"""Runs one statement on a connection and takes its answer while it comes, no more of it than is allowed.

What the server sends is counted before libpq reads it (see `valve`): a single value can be a gigabyte. Past a limit
the statement is cancelled, and the connection is left for its pool to throw away. Boundary: knows nothing of who asks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from magmobo.contracts.errors import Unavailable
from magmobo.extensions.sql.errors import ResultTooLarge, StatementFailed
from magmobo.extensions.sql.values import Context, Parameters
from magmobo.extensions.sql.valve import Valve

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Error, pq
    from psycopg.abc import PQGen

MAX_ROWS, MAX_BYTES = 10_000, 524_288
MAX_WIRE_BYTES = 4 * 1_048_576
"""Of an answer as Postgres sends it, names and all."""
CANCEL_TIMEOUT_S = 2.0
_CHUNK_ROWS = 128


_ENDED, _ENDED_IDLE = "57P01", "57P05"
"""With these states a server ends a connection: on somebody's word, or because it was idle for too long. A trigger can
raise any state, too, but not that grave.
"""
_UNHEARD = (b"", b"E")
"""What came first where that was the server's end: a statement is answered by ParseComplete before any of it is done.
Nothing came where libpq found the end itself, when it could not send the statement whole.
"""


class NotTaken(Exception):
    """The server ended the connection, and nothing of the statement was done: it may be given to another one."""


class Answer(Struct):
    """What a statement answered: rows as maps from column to value, and how many rows it concerned."""

    rows: list[dict[str, Any]]
    count: int


async def run(connection: AsyncConnection[Any], sql: str, given: Parameters) -> Answer:
    """Run one statement. When the caller is cancelled, so is the statement.

    Raises: StatementFailed, ResultTooLarge, NotTaken; Unavailable when nobody knows whether it was done.
    """
    import psycopg

    first = b""
    try:
        async with connection.lock:
            pgconn = connection.pgconn
            pgconn.send_query_params(sql.encode(), given.values, param_types=given.types)
            _receive_in_parts(pgconn)
            await connection.wait(_send(pgconn))
            with Valve(pgconn) as valve:
                try:
                    return await _receive(connection, valve)
                finally:
                    first = valve.first
    except (ResultTooLarge, asyncio.CancelledError):
        with suppress(psycopg.Error):
            await connection.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        raise
    except OSError as error:
        raise Unavailable("the database") from error
    except psycopg.Error as error:
        ended = _ended(error)
        if ended == _ENDED_IDLE or (ended == _ENDED and first in _UNHEARD):
            raise NotTaken from error
        if ended or error.sqlstate is None or connection.closed:
            raise Unavailable("the database") from error
        raise StatementFailed(error.sqlstate, error.diag.message_primary or type(error).__name__) from error


def _receive_in_parts(pgconn: pq.abc.PGconn) -> None:
    from psycopg import capabilities

    if capabilities.has_stream_chunked():
        pgconn.set_chunked_rows_mode(_CHUNK_ROWS)
    else:
        pgconn.set_single_row_mode()


def _send(pgconn: pq.abc.PGconn) -> PQGen[None]:
    """Nothing is read meanwhile: before it has the whole statement the server says nothing that could hold it up."""
    from psycopg.waiting import Wait

    while pgconn.flush():
        yield Wait.W


async def _receive(connection: AsyncConnection[Any], valve: Valve) -> Answer:
    """Receive until nothing is left."""
    from psycopg.errors import error_from_result
    from psycopg.pq import ExecStatus

    receiver, error = _Receiver(connection, valve), None
    while (result := await receiver.next_result()) is not None:
        match result.status:
            case ExecStatus.TUPLES_OK | ExecStatus.SINGLE_TUPLE | ExecStatus.TUPLES_CHUNK:
                receiver.take(result)
            case ExecStatus.COMMAND_OK:
                receiver.count = result.command_tuples or 0
            case ExecStatus.FATAL_ERROR:
                error = error_from_result(result, encoding="utf-8")
                if _ended(error):
                    raise error  # nothing follows but the end of the connection, which would hide it
            case status:
                raise StatementFailed("0A000", f"an answer that is no rows ({status})")
    if error is not None:
        raise error
    return Answer(receiver.rows, receiver.count)


def _ended(error: Error) -> str:
    """With which state the server ended the connection; empty where it did not."""
    state = error.sqlstate or ""
    return state if state in (_ENDED, _ENDED_IDLE) and error.diag.severity_nonlocalized == "FATAL" else ""


class _Receiver:
    """The answer so far."""

    def __init__(self, connection: AsyncConnection[Any], valve: Valve) -> None:
        from psycopg.adapt import Transformer

        self._pgconn, self._valve = connection.pgconn, valve
        self._transformer = Transformer(Context(connection))
        self._columns: list[str] | None = None
        self._wire_bytes = self._answer_bytes = 0
        self.rows: list[dict[str, Any]] = []
        self.count = 0

    async def next_result(self) -> pq.abc.PGresult | None:
        """The next part, once it is there. Raises: ResultTooLarge."""
        while self._pgconn.is_busy():
            self._wire_bytes += await self._valve.let_through()
            if self._wire_bytes > MAX_WIRE_BYTES:
                raise ResultTooLarge("bytes", MAX_BYTES)
        return self._pgconn.get_result()

    def take(self, result: pq.abc.PGresult) -> None:
        """Add rows. Raises: ResultTooLarge; StatementFailed for a value that nobody could read."""
        self.count += result.ntuples
        if self.count > MAX_ROWS:
            raise ResultTooLarge("rows", MAX_ROWS)
        if self._columns is None:
            self._columns = [(result.fname(place) or b"").decode() for place in range(result.nfields)]
            self._transformer.set_pgresult(result)
        else:
            self._transformer.set_pgresult(result, set_loaders=False)
        columns = self._columns
        try:
            loaded = self._transformer.load_rows(
                0, result.ntuples, lambda values: dict(zip(columns, values, strict=True))
            )
            self._answer_bytes += len(msgspec.msgpack.encode(loaded))
        except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise StatementFailed("22000", "a value of the answer cannot be told; cast it to text") from error
        if self._answer_bytes > MAX_BYTES:
            raise ResultTooLarge("bytes", MAX_BYTES)
        self.rows += loaded
