"""Carries records from the audit log to the table: a batch, then the cursor, then the next batch.

Invariant: the cursor is never ahead of the table. When anything fails, or the node dies, the batch behind the cursor is
written again; the table drops what it has already. The cursor names the hash of its record, so that a log that was
begun anew is not mistaken for the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import psycopg
import structlog
from msgspec import Struct

from magmobo.components.auditexport.errors import TableUnfit
from magmobo.components.auditexport.table import AuditTable, find_table
from magmobo.contracts.audit import Audit, AuditRecord
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.stores import State

BATCH_RECORDS = 500
POLL_S = 0.5
RETRY_S, MAX_RETRY_S = 0.5, 30.0
STATEMENT_TIMEOUT_S = 30.0

Sessions = Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]


class Cursor(Struct, frozen=True):
    """The last record that is in the table."""

    seq: int = 0
    hash: str = ""


class Export:
    """One log to one table. `problem` says why it waits, empty when it does not; `outside`: not because of us.

    `missing` counts numbers that the log skipped: records that could not be read.
    """

    def __init__(
        self, name: str, sessions: Sessions, audit: Audit, state: State, clock: Clock, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._name, self._sessions, self._audit, self._state = name, sessions, audit, state
        self._clock, self._log = clock, log
        self._cursor: Cursor | None = None
        self._table: AuditTable | None = None
        self.problem, self.outside = "", False
        self.missing = 0

    @property
    def behind(self) -> int:
        """How many records the table lacks."""
        return max(0, self._audit.head_seq - (self._cursor.seq if self._cursor is not None else 0))

    async def run(self) -> None:
        """Copy for ever. Waits out whatever fails."""
        retry_s = RETRY_S
        while True:
            try:
                copied = await self._copy_batch()
            except (psycopg.Error, MagError, TimeoutError, OSError) as error:
                self._failed(error)
                await self._clock.sleep(retry_s)
                retry_s = min(retry_s * 2, MAX_RETRY_S)
                continue
            if self.problem:
                self._log.info("audit_export_resumed", table=self._name)
            self.problem, retry_s = "", RETRY_S
            if not copied:
                await self._clock.sleep(POLL_S)

    async def _copy_batch(self) -> bool:
        """One batch, if there is one; whether there was. Raises: psycopg.Error, MagError, TimeoutError, OSError."""
        cursor = self._cursor = self._cursor or await self._find_cursor()
        records = await self._audit.read(after_seq=cursor.seq, limit=BATCH_RECORDS)
        if not records:
            return False
        async with asyncio.timeout(STATEMENT_TIMEOUT_S), self._sessions() as connection:
            self._table = self._table or await find_table(connection, self._name)
            await self._table.add(connection, records)
        last = Cursor(records[-1].seq, records[-1].hash)
        await self._state.put(self._key, msgspec.to_builtins(last))
        self._count_missing(cursor, records[0], len(records), last)
        self._cursor = last
        return True

    async def _find_cursor(self) -> Cursor:
        """Where to go on: at the beginning when the log is not the one that the cursor was made for."""
        entry = await self._state.get(self._key)
        if entry is None:
            return Cursor()
        try:
            cursor = msgspec.convert(entry.value, Cursor)
        except msgspec.ValidationError:
            return Cursor()
        if cursor.seq <= 0:
            return Cursor()
        found = await self._audit.read(after_seq=cursor.seq - 1, limit=1)
        if found and (found[0].seq, found[0].hash) == (cursor.seq, cursor.hash):
            return cursor
        self._log.warning("audit_export_starts_over", table=self._name, after_seq=cursor.seq)
        return Cursor()

    def _count_missing(self, cursor: Cursor, first: AuditRecord, number: int, last: Cursor) -> None:
        missing = last.seq - cursor.seq - number
        if missing > 0:
            self.missing += missing
            self._log.warning(
                "audit_export_hole", missing=missing, after_seq=cursor.seq, first_seq=first.seq, up_to_seq=last.seq
            )

    def _failed(self, error: Exception) -> None:
        self._table = None  # it may be another one when it is there again
        self.outside = isinstance(error, (psycopg.Error, TableUnfit, TimeoutError, OSError))
        problem = _in_a_line(error)
        if problem != self.problem:
            self._log.warning("audit_export_waits", table=self._name, problem=problem)
        self.problem = problem

    @property
    def _key(self) -> str:
        return f"cursor/{self._name}"


def _in_a_line(error: Exception) -> str:
    if isinstance(error, MagError):
        return f"{error} [{error.code}]"
    if isinstance(error, TimeoutError):
        return f"the database did not answer within {STATEMENT_TIMEOUT_S:g} s"
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
