"""The durable event log: appended in batches, read in the order of commits, kept for days.

What a batch brings from the change stream is committed together with how far the stream was taken, so a kill between
the two cannot happen: nothing is lost and nothing comes twice. Boundary: rows in and out; who may see them is
`access`'s, who is told `delivery`'s. Callers handle psycopg.Error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import psycopg
from msgspec import Struct

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

LOCKS = 0x6D616765
"""First key of our advisory locks, "mage"; the second is one of these, or for `PRESENCE` the key of a source."""
APPEND, LEAD = 0, 1
PRESENCE = LOCKS + 1

ROW_BYTES = 150
"""Counted for each row beside its data."""

_LOCK = "select pg_advisory_xact_lock(%s, %s)"
_INSERT = """
insert into mag.extension_event (id, topic, about, depth, time_s, logged_s, data)
select id, topic, about, depth, time_s, extract(epoch from clock_timestamp()), data
from unnest(%b::text[], %b::text[], %b::text[], %b::int2[], %b::float8[], %b::bytea[]) with ordinality
  as t(id, topic, about, depth, time_s, data, n)
order by n
"""
_READ = """
select seq, id, topic, about, depth, time_s, data from (
  select *, sum(length(data)) over (order by seq) - length(data) as before_bytes
  from (select * from mag.extension_event where seq > %s order by seq limit %s) window_of_rows
) sized where before_bytes < %s order by seq
"""
_ROWS = "select seq, id, topic, about, depth, time_s, data from mag.extension_event where seq = any(%s) order by seq"
_PURGE = """
with old as (
  delete from mag.extension_event where seq in (
    select seq from mag.extension_event order by seq limit %s
  ) and (
    logged_s < extract(epoch from clock_timestamp()) - %s or (select size_bytes from mag.extension_log) > %s
  )
  returning seq, length(data) as size_bytes
), gone as (select max(seq) as seq, count(*) as rows, sum(size_bytes) as size_bytes from old)
update mag.extension_log l
set floor_seq = greatest(l.floor_seq, coalesce(gone.seq, 0)),
    size_bytes = l.size_bytes - coalesce(gone.size_bytes, 0) - gone.rows * %s
from gone returning l.floor_seq, gone.rows
"""
_SINCE = """
select coalesce(min(seq), 0) from (
  select seq from mag.extension_event where logged_s >= extract(epoch from clock_timestamp()) - %s
  order by logged_s, seq limit 1
) first
"""


class Entry(Struct, frozen=True, gc=False):
    """What is appended. `about`: the table of a change, the publisher of a published event, what a gap concerns.
    `depth`: how many published events led to it. `data` is a map in msgpack. `position`: of a change.
    """

    id: str
    topic: str
    about: str
    time_s: float
    data: bytes
    depth: int = 0
    position: str = ""


class Logged(Struct, frozen=True, gc=False):
    """A row of the log."""

    seq: int
    id: str
    topic: str
    about: str
    depth: int
    time_s: float
    data: bytes


class Stand(Struct, frozen=True):
    """How far the change stream was taken; both empty: never."""

    epoch: str = ""
    position: str = ""


class Desk:
    """A connection that several tasks share, one at a time, each with a transaction of its own or none."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, asyncio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """The connection, for the length of the block."""
        async with self._lock:
            yield self._connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The connection in a transaction."""
        async with self._lock, self._connection.transaction():
            yield self._connection


async def append(connection: Connection, entries: Sequence[Entry], stand: Stand | None) -> None:
    """Append, and note how far the stream was taken; in a transaction of its own. Changes that another node has
    appended meanwhile are left out.
    """
    async with connection.pipeline(), connection.transaction():
        if stand is not None:
            await connection.execute(_LOCK, (LOCKS, APPEND))
            row = await (await connection.execute("select epoch, position from mag.extension_log")).fetchone()
            if row is not None and row[0] == stand.epoch:
                entries = [one for one in entries if not one.position or one.position > row[1]]
                stand = Stand(stand.epoch, max(stand.position, row[1]))
            await connection.execute(
                "update mag.extension_log set epoch = %s, position = %s", (stand.epoch, stand.position)
            )
        await insert(connection, entries)


async def insert(connection: Connection, entries: Sequence[Entry]) -> None:
    """Append, inside of the caller's transaction."""
    if entries:
        await connection.execute(_LOCK, (LOCKS, APPEND))
        columns = zip(*((e.id, e.topic, e.about, e.depth, e.time_s, e.data) for e in entries), strict=True)
        await connection.execute(_INSERT, [list(column) for column in columns])
        size_bytes = sum(len(one.data) for one in entries) + len(entries) * ROW_BYTES
        await connection.execute("update mag.extension_log set size_bytes = size_bytes + %s", (size_bytes,))


async def read_stand(connection: Connection) -> Stand:
    """How far the stream was taken."""
    row = await (await connection.execute("select epoch, position from mag.extension_log")).fetchone()
    return Stand() if row is None else Stand(*row)


async def read(connection: Connection, after_seq: int, *, limit: int, limit_bytes: int) -> Sequence[Logged]:
    """The next rows, at least one if there is one, until they are `limit_bytes` large."""
    rows = await (await connection.execute(_READ, (after_seq, limit, limit_bytes))).fetchall()
    return [Logged(*row) for row in rows]


async def read_rows(connection: Connection, seqs: Sequence[int]) -> dict[int, Logged]:
    """These rows, as far as they are there still."""
    rows = await (await connection.execute(_ROWS, (list(seqs),))).fetchall()
    return {row[0]: Logged(*row) for row in rows}


async def head(connection: Connection) -> int:
    """The last number there is or was."""
    statement = (
        "select greatest((select floor_seq from mag.extension_log), (select max(seq) from mag.extension_event), 0)"
    )
    row = await (await connection.execute(statement)).fetchone()
    return 0 if row is None else int(row[0])


async def floor(connection: Connection) -> int:
    """Up to this number rows were removed."""
    row = await (await connection.execute("select floor_seq from mag.extension_log")).fetchone()
    return 0 if row is None else int(row[0])


async def first_since(connection: Connection, seconds: float) -> int:
    """The first row that was logged in the last so many seconds, 0 when there is none."""
    row = await (await connection.execute(_SINCE, (seconds,))).fetchone()
    return 0 if row is None else int(row[0])


async def purge(connection: Connection, retention_s: float, limit_bytes: int, *, rows: int) -> tuple[int, bool]:
    """Remove the oldest rows that are older than this, or that make the log larger than `limit_bytes`: at most `rows`
    of them. The floor, and whether more may go.
    """
    values = (rows, retention_s, limit_bytes, ROW_BYTES)
    row = await (await connection.execute(_PURGE, values)).fetchone()
    return (0, False) if row is None else (int(row[0]), row[1] == rows)
