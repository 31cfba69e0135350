"""Short statements of many callers over a few pipelined connections.

Callers wait in one queue, first come, first served, until a connection has fewer than `depth` requests in flight, so a
slow statement holds back at most `depth - 1` others. Nobody waits past their deadline, nothing is ever cancelled on the
server (a cancel could hit a neighbour): Postgres ends statements itself at the time limit that travels with each.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
from psycopg.errors import CharacterNotInRepertoire, ProgramLimitExceeded, QueryCanceled

from magmobo.components.magds import errors
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.pipeline import PipelineConnection, Request, Retired
from magmobo.contracts.errors import DeadlineExceeded, Unavailable
from magmobo.contracts.planes import Identity, Statement, StatementResult

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

WATCH_EVERY_S = 0.05
STUCK_S = 0.02
HUNG_GRACE_S = 5.0  # past its time limit by this much, a statement says that the connection is dead, not slow
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MAX_PARAMETERS = 65_535


class Multiplexer:
    """Pipelined connections to one database. `on_lost(error)` and `on_connected()` tell of single connections."""

    def __init__(
        self,
        conninfo: str,
        *,
        connections: int,
        depth: int,
        statements: int,
        statement_timeout_s: float,
        queue: int = 2_000,
        on_lost: Callable[[Exception], None] = lambda error: None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._conninfo, self._size, self._depth = conninfo, connections, depth
        self._statements, self._statement_timeout_s, self._queue_max = statements, statement_timeout_s, queue
        self._lost_hook, self._connected_hook = on_lost, on_connected
        self._links: list[PipelineConnection] = []
        self._waiting: deque[Request] = deque()
        self._pending: set[Request] = set()
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._spawn: Spawn
        self._outdated: set[PipelineConnection] = set()
        self._dispatching = self._closing = False
        self._watch: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()

    async def open(self, spawn: Spawn) -> None:
        """Make the first connection, then keep all of them alive in tasks.

        Raises: ConnectFailure when the server does not let us in.
        """
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._gone.clear()
        self._spawn = spawn
        self._employ(await self._connect())

    async def close(self) -> None:
        """End every connection; who still waits gets Unavailable. `open` may follow."""
        self._closing = True
        keepers, self._keepers = self._keepers, {}
        for keeper in keepers.values():
            keeper.cancel()
        await asyncio.gather(*keepers.values(), return_exceptions=True)
        for link in list(self._links):
            link.lose(Unavailable("the database"))
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if not request.future.done():
                request.future.set_exception(Unavailable("the database"))
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def drain(self, timeout_s: float) -> None:
        """Return when no request is on its way any more, or after `timeout_s`."""
        futures = [request.future for request in self._pending]
        if futures:
            await asyncio.wait(futures, timeout=timeout_s)

    def adjust(
        self,
        conninfo: str,
        *,
        connections: int,
        depth: int,
        statements: int,
        statement_timeout_s: float,
        renew: bool = False,
    ) -> None:
        """Go on with these settings. `renew`: the old connections are not to be used any more.

        Each connection is made anew before its forerunner takes no more requests; that one ends when it has answered
        those it has. While the server does not let the new ones in, the old ones serve.
        """
        renew = renew or (statements, statement_timeout_s) != (self._statements, self._statement_timeout_s)
        self._conninfo, self._size, self._depth = conninfo, connections, depth
        self._statements, self._statement_timeout_s = statements, statement_timeout_s
        if renew:
            self._outdated.update(link for link in self._links if link.accepts)
        if self.is_open:
            self._employ()
            self._gone.set()
            self._schedule()

    def roles_in_use(self) -> frozenset[str]:
        """Roles that requests ran as lately: those that statements are prepared for."""
        return frozenset(role.decode() for link in self._links for role in link.roles())

    @property
    def is_open(self) -> bool:
        """Whether `open` was called and `close` was not."""
        return bool(self._keepers) and not self._closing

    @property
    def connected(self) -> int:
        """Connections that take requests now."""
        return sum(link.accepts for link in self._links)

    @property
    def waiting(self) -> int:
        """Requests that no connection has taken yet."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return sum(link.in_flight for link in self._links)

    async def run(
        self, statement: Statement, identity: Identity, *, read_only: bool, timeout_s: float
    ) -> StatementResult:
        """Run one statement as one implicit transaction under `identity`. The caller has checked the role.

        Raises: psycopg.Error with a SQLSTATE for what Postgres refuses; Overloaded when too many wait already;
            Unavailable when no connection was free before the deadline; ConnectionLost when it broke meanwhile;
            DeadlineExceeded when the answer did not come in time; StatementUnsupported for COPY.
        """
        if self._closing or not self._keepers:  # `is_open`, without a call
            raise Unavailable("the database")
        if len(self._waiting) >= self._queue_max:
            raise errors.Overloaded(len(self._waiting))
        _check_text(statement, identity)
        future: asyncio.Future[StatementResult] = self._loop.create_future()
        request = Request(
            future,
            role=identity.role.encode(),
            claims=identity.claims,
            sql=statement.sql,
            params=statement.params,
            read_only=read_only,
            timeout_s=timeout_s,
            deadline_s=self._loop.time() + timeout_s,
        )
        self._waiting.append(request)
        self._pending.add(request)
        self._schedule()
        try:
            return await future
        except QueryCanceled:
            if self._loop.time() + timeout_s * 0.1 >= request.deadline_s:  # our time limit, not an operator's cancel
                raise DeadlineExceeded("the database statement", timeout_s) from None
            raise
        finally:
            self._pending.discard(request)

    # ------------------------------------------------------------ handing out

    def _schedule(self) -> None:
        """Dispatch once in this turn of the loop, after everybody who is ready has asked."""
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)
        if self._watch is None:
            self._watch = self._loop.call_later(WATCH_EVERY_S, self._look)

    def _dispatch(self) -> None:
        self._dispatching = False
        touched: set[PipelineConnection] = set()
        waiting = self._waiting
        while waiting:
            if waiting[0].future.done():  # its caller went away
                waiting.popleft()
                continue
            link = self._least_loaded()
            if link is None:
                break
            link.submit(waiting.popleft())
            touched.add(link)
        for link in touched:
            link.flush()

    def _least_loaded(self) -> PipelineConnection | None:
        """The connection for the next request, None when all are full. One that is stuck behind a slow statement is
        chosen last: who is sent there waits for that statement.
        """
        best, best_rank = None, (True, self._depth)
        for link in self._links:
            rank = (link.silent_s() > STUCK_S, link.in_flight)
            if link.accepts and link.in_flight < self._depth and rank < best_rank:
                best, best_rank = link, rank
        return best

    def _look(self) -> None:
        """End what is past its deadline, and connections that stopped answering. Runs only while requests exist."""
        self._watch = None
        now_s = self._loop.time()
        for request in list(self._pending):
            if now_s >= request.deadline_s and not request.future.done():
                request.future.set_exception(self._too_late(request))
        self._waiting = deque(request for request in self._waiting if not request.future.done())
        hung_s = self._statement_timeout_s + HUNG_GRACE_S
        for link in [link for link in self._links if link.silent_s() > hung_s]:
            link.lose(TimeoutError("the server stopped answering"))
        if self._pending or self.in_flight:
            self._watch = self._loop.call_later(WATCH_EVERY_S, self._look)

    def _too_late(self, request: Request) -> Exception:
        if request in self._waiting:
            return Unavailable("a database connection")
        return DeadlineExceeded("the database statement", request.timeout_s)

    # ------------------------------------------------------------ keeping connected

    def _employ(self, first: PipelineConnection | None = None) -> None:
        """One keeper for each connection that is to be there; `first` is held by the first of them."""
        for number in range(self._size):
            if number not in self._keepers or self._keepers[number].done():
                self._keepers[number] = self._spawn(self._keep(number, first), f"pipeline-{number}")
                first = None

    async def _keep(self, number: int, link: PipelineConnection | None) -> None:
        """Hold one connection for as long as the multiplexer is open and has that many."""
        attempt = 0
        while not self._closing and number < self._size:
            if link is None or not self._is_good(link):
                try:
                    fresh = await self._connect()
                except (errors.StorageError, psycopg.Error, OSError) as error:
                    self._lost_hook(error)
                    delay_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                    attempt += 1
                    await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))  # noqa: S311  # spreads retries only
                    continue
                if link is not None and link.lost is None:
                    link.retire()
                link = fresh
            started_s = self._loop.time()
            self._connected_hook()
            self._schedule()
            await self._until_due(number, link)
            if link.lost is None:
                continue  # it serves on until its successor is there
            attempt = 0 if self._loop.time() - started_s > 1.0 else attempt + 1
            if attempt:
                await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S)) - 1])
        if link is not None and link.lost is None:
            link.retire()

    async def _connect(self) -> PipelineConnection:
        connection = await connect(self._conninfo)
        try:
            link = await PipelineConnection.open(
                connection,
                statements=self._statements,
                statement_timeout_s=self._statement_timeout_s,
                on_progress=self._progress,
                on_lost=self._link_lost,
            )
        except BaseException:
            await connection.close()
            raise
        self._links.append(link)
        return link

    async def _until_due(self, number: int, link: PipelineConnection) -> None:
        """Until the connection is lost, outdated, or one too many."""
        while self._is_good(link) and number < self._size:
            self._gone.clear()
            await self._gone.wait()

    def _is_good(self, link: PipelineConnection) -> bool:
        return link.lost is None and link not in self._outdated

    def _progress(self) -> None:
        if self._waiting:
            self._schedule()

    def _link_lost(self, link: PipelineConnection, error: Exception) -> None:
        self._links.remove(link)
        self._outdated.discard(link)
        self._gone.set()
        if not self._closing and not isinstance(error, Retired):
            self._lost_hook(error)


def _check_text(statement: Statement, identity: Identity) -> None:
    """Raises: psycopg errors 22021 and 54000 for what libpq would cut short or what would break the pipeline."""
    # libpq takes text up to the first NUL: the rest would vanish silently
    for text in (identity.claims, statement.sql, *statement.params):  # a generator would cost more than the search
        if text is not None and b"\0" in text:
            raise CharacterNotInRepertoire("text for Postgres cannot contain NUL (0x00) bytes")
    if len(statement.params) > MAX_PARAMETERS:
        raise ProgramLimitExceeded(f"a statement takes at most {MAX_PARAMETERS} parameters")
