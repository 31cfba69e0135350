"""Whole connections for long or stateful work: COPY, cursors, DDL, several statements in one transaction.

Last in, first out, so that few connections stay warm. A connection is returned clean: an open transaction is rolled
back and `DISCARD ALL` drops settings, temporary tables, listeners, locks and prepared statements. One that cannot be
cleaned, or that the server closed or is about to, is dropped. Nobody waits past their deadline.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

from magmobo.components.magds.errors import ConnectFailure, LoginRefused
from magmobo.contracts.errors import Unavailable

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
CLEAN_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 2.0
RETRY_S = 0.1
REFUSED_RETRY_S = 0.5  # each try stands in the server's log
_ENDING = -1
"""The generation of a connection that the server has taken leave of."""


class Pool:
    """At most `size` connections made by `connect`; an unused one is closed after `idle_s`."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, idle_s: float) -> None:
        self._connect, self._size, self._idle_s = connect, size, idle_s
        self._generation = 0
        self._born: dict[Connection, int] = {}
        self._idle: deque[tuple[Connection, float]] = deque()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._leased: set[Connection] = set()
        self._count = 0
        self._closed = self._was_let_in = False
        self._refusal: LoginRefused | None = None
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """Connections that exist or are being made."""
        return self._count

    @property
    def idle_connections(self) -> int:
        """Connections that wait for somebody."""
        return len(self._idle)

    @asynccontextmanager
    async def lease(self, *, timeout_s: float) -> AsyncIterator[Connection]:
        """One connection in autocommit, for the length of the block.

        Raises: Unavailable when none becomes free within `timeout_s` or the server stays away; ConnectFailure when it
            refuses for a reason that waiting does not cure. A refused login may be cured by it once the server has let
            us in before: its password is being changed, and we are told the new one.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._acquire()
        except TimeoutError:
            if self._refusal is not None:
                raise LoginRefused(*self._refusal.args) from None
            raise Unavailable("a database connection") from None
        self._leased.add(connection)
        try:
            yield connection
        finally:
            self._leased.discard(connection)
            await self._release(connection)

    async def close(self, *, cancel: bool = False) -> None:
        """Refuse new leases and close every connection, leased ones too; `cancel`: what runs on those ends on the
        server as well.
        """
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if self._reaper is not None:
            self._reaper.cancel()
        if cancel:
            await asyncio.gather(*(_cancel(connection) for connection in self._leased))
        for connection in [*(connection for connection, _ in self._idle), *self._leased]:
            await connection.close()
        while self._idle:
            self._drop(self._idle.pop()[0])

    def adjust(
        self, connect: Callable[[], Awaitable[Connection]], *, size: int, idle_s: float, renew: bool = False
    ) -> None:
        """Go on with these settings. `renew`: connections that are there are not to be used again; leased ones end when
        they are given back. So do those above `size`.
        """
        room = size - self._size
        self._connect, self._size, self._idle_s = connect, size, idle_s
        if renew:
            self._generation += 1
            self.drop_idle()
        for _ in range(room):
            self._wake_one()
        while self._idle and self._count > size:
            self._drop(self._idle.popleft()[0])
        if self._reaper is not None:
            self._reaper.cancel()
            self._reap()

    def drop_idle(self) -> None:
        """Forget every unused connection: the server went away, so they are dead."""
        while self._idle:
            self._drop(self._idle.pop()[0])

    # ------------------------------------------------------------ taking

    async def _acquire(self) -> Connection:
        while not self._closed:
            while self._idle:
                connection = self._idle.pop()[0]
                if _is_alive(connection):
                    return connection
                self._drop(connection)
            if self._count < self._size:
                return await self._make()
            waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                handed = await waiter
            except asyncio.CancelledError:
                self._pass_on(waiter)
                raise
            if handed is not None and _is_alive(handed):
                return handed
            if handed is not None:
                self._drop(handed)
        raise Unavailable("the database")

    async def _make(self) -> Connection:
        self._count += 1
        try:
            while True:
                generation = self._generation
                try:
                    connection = _without_preparing(await self._connect())
                except LoginRefused as error:
                    if not self._was_let_in:
                        raise
                    self._refusal, pause_s = error, REFUSED_RETRY_S
                except ConnectFailure as error:
                    if not error.retryable:
                        raise
                    pause_s = RETRY_S
                else:
                    self._was_let_in, self._refusal = True, None
                    self._born[connection] = generation
                    self._hear_farewell(connection)
                    if await self._is_served(connection):
                        return connection
                    pause_s = RETRY_S
                await asyncio.sleep(pause_s)  # the server is away for a moment: wait as long as the caller does
        except BaseException:
            self._count -= 1
            self._wake_one()
            raise

    def _hear_farewell(self, connection: Connection) -> None:
        """Not to use it again when the server says that it ends it. Where that is read together with the end of an
        answer, libpq takes it for a notice, and the connection looks well until the server has closed it.
        """
        known = weakref.ref(connection)

        def heard(said: psycopg.errors.Diagnostic) -> None:
            ending = known()
            if ending in self._born and said.severity_nonlocalized in ("FATAL", "PANIC"):
                self._born[ending] = _ENDING

        connection.add_notice_handler(heard)

    async def _is_served(self, connection: Connection) -> bool:
        """Ask a new connection for nothing, once: a farewell that came while we were let in was heard by nobody."""
        is_served = False
        try:
            with suppress(psycopg.Error):
                await connection.execute("")
                is_served = self._born[connection] != _ENDING
        finally:
            if not is_served:
                del self._born[connection]
                connection.pgconn.finish()
        return is_served

    def _pass_on(self, waiter: asyncio.Future[Connection | None]) -> None:
        """A caller gave up; what it had been handed in the same moment goes to the next one."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            connection = waiter.result()
            if connection is None:
                self._wake_one()
            else:
                self._hand_over(connection)

    # ------------------------------------------------------------ giving back

    async def _release(self, connection: Connection) -> None:
        try:
            clean = self._is_wanted(connection) and await _clean(connection)
        except BaseException:
            self._drop(connection)
            raise
        if clean and self._is_wanted(connection):
            self._hand_over(connection)
        else:
            self._drop(connection)

    def _is_wanted(self, connection: Connection) -> bool:
        return not self._closed and self._count <= self._size and self._born[connection] == self._generation

    def _hand_over(self, connection: Connection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append((connection, asyncio.get_running_loop().time()))
        self._schedule_reaping()

    def _drop(self, connection: Connection) -> None:
        del self._born[connection]
        connection.pgconn.finish()  # no farewell: the server may be gone, and close() would do the same
        self._count -= 1
        self._wake_one()

    def _wake_one(self) -> None:
        """There is room for one more connection: let the first who waits make it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _schedule_reaping(self) -> None:
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(self._idle_s, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        oldest_s = asyncio.get_running_loop().time() - self._idle_s
        while self._idle and self._idle[0][1] <= oldest_s:
            self._drop(self._idle.popleft()[0])
        if self._idle:
            self._schedule_reaping()


def _is_alive(connection: Connection) -> bool:
    """Whether this idle connection can be handed out. No round trip: the server has nothing to say to an idle
    connection but farewells (and news of settings), so one with anything to read is not trusted.
    """
    if connection.closed or connection.pgconn.status != pq.ConnStatus.OK:
        return False
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


def _without_preparing(connection: Connection) -> Connection:
    """psycopg prepares what it sees often, but overlooks that our next `discard all` dropped it again."""
    connection.prepare_threshold = None
    return connection


async def _cancel(connection: Connection) -> None:
    """Ask the server to end what runs on this connection."""
    with suppress(psycopg.Error):
        await connection.cancel_safe(timeout=CANCEL_TIMEOUT_S)


async def _clean(connection: Connection) -> bool:
    """Make `connection` as new; False when it is beyond cleaning."""
    status = connection.info.transaction_status
    if connection.closed or status in (pq.TransactionStatus.ACTIVE, pq.TransactionStatus.UNKNOWN):
        return False
    try:
        async with asyncio.timeout(CLEAN_TIMEOUT_S):
            if status != pq.TransactionStatus.IDLE:
                await connection.rollback()
            await connection.set_autocommit(True)
            connection.row_factory = tuple_row
            _without_preparing(connection)
            await connection.execute("discard all")
    except (psycopg.Error, TimeoutError):
        return False
    return True
