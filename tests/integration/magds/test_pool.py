"""The pool: clean hands over, deadlines, broken connections, server restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import LoginRefused
from magmobo.components.magds.pool import Connection, Pool
from magmobo.contracts.errors import Unavailable


@asynccontextmanager
async def pool_of(dsn: str, *, size: int = 2, idle_s: float = 60) -> AsyncIterator[Pool]:
    pool = Pool(partial(connect, dsn), size=size, idle_s=idle_s)
    try:
        yield pool
    finally:
        await pool.close()


async def pid_of(connection: Connection) -> int:
    row = await (await connection.execute("select pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def test_the_last_one_given_back_is_the_first_one_out(dsn: str) -> None:
    async with pool_of(dsn) as pool:
        async with pool.lease(timeout_s=5) as one, pool.lease(timeout_s=5) as two:
            pids = [await pid_of(one), await pid_of(two)]
        async with pool.lease(timeout_s=5) as again:
            assert await pid_of(again) == pids[0]
        assert pool.open_connections == pool.idle_connections == 2


@pytest.mark.parametrize(
    "mess",
    [
        "begin; create temp table trace (x int)",
        "set search_path = evil; listen noise; create temp table trace (x int)",
        "select set_config('role', 'pg_monitor', false)",
        "prepare trace as select 1; select pg_advisory_lock(77)",
        "begin; select 1/0",
    ],
)
async def test_a_connection_comes_back_clean(dsn: str, mess: str) -> None:
    async with pool_of(dsn, size=1) as pool:
        async with pool.lease(timeout_s=5) as connection:
            connection.row_factory = dict_row  # type: ignore[assignment]
            with suppress(psycopg.errors.DivisionByZero):
                await connection.execute(mess.encode())
        async with pool.lease(timeout_s=5) as connection:
            cursor = await connection.execute(
                "select current_user::text, current_setting('search_path'), "
                "(select count(*) from pg_class where relname = 'trace'), "
                "(select count(*) from pg_prepared_statements where name = 'trace'), "
                "(select count(*) from pg_locks where locktype = 'advisory' and objid = 77)"
            )
            assert await cursor.fetchone() == ("postgres", '"$user", public', 0, 0, 0)
            assert connection.autocommit


async def test_waiting_ends_at_the_deadline_and_is_first_come_first_served(dsn: str) -> None:
    async with pool_of(dsn, size=1) as pool:
        order: list[int] = []

        async def use(number: int) -> None:
            async with pool.lease(timeout_s=5):
                order.append(number)

        async with pool.lease(timeout_s=5):
            with pytest.raises(Unavailable):
                async with pool.lease(timeout_s=0.05):
                    pass
            waiting = [asyncio.create_task(use(number)) for number in range(4)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == [0, 2, 3]
        assert pool.open_connections == 1


async def test_a_caller_cancelled_in_mid_query_costs_nobody_else(dsn: str) -> None:
    async with pool_of(dsn, size=1) as pool:

        async def slow() -> None:
            async with pool.lease(timeout_s=5) as connection:
                await connection.execute("select pg_sleep(30)")

        task = asyncio.create_task(slow())
        while pool.open_connections == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # anywhere between connecting and querying is fine
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(25), pool.lease(timeout_s=25) as connection:
            assert await pid_of(connection) > 0


async def test_connections_that_the_server_ended_are_replaced(dsn: str) -> None:
    async with pool_of(dsn) as pool:
        async with pool.lease(timeout_s=5) as one, pool.lease(timeout_s=5) as two:
            pids = [await pid_of(one), await pid_of(two)]
        with psycopg.connect(dsn, autocommit=True) as admin:
            for pid in pids:
                admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))
        async with pool.lease(timeout_s=5) as one, pool.lease(timeout_s=5) as two:
            assert not {await pid_of(one), await pid_of(two)} & set(pids)
        assert pool.open_connections == 2


async def test_a_connection_that_ended_on_its_way_to_who_waits_is_replaced(dsn: str) -> None:
    pool = Pool(partial(connect, dsn), size=1, idle_s=60)
    first = pool.lease(timeout_s=5)
    connection = await first.__aenter__()
    pid = connection.info.backend_pid

    async def wait_for_it() -> int:
        async with pool.lease(timeout_s=5) as other:
            await other.execute("select 1")
            return other.info.backend_pid

    waiting = asyncio.ensure_future(wait_for_it())
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)  # it is handed over, and nobody has looked at it yet
    with psycopg.connect(dsn, autocommit=True) as admin:
        assert admin.execute("select pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)
    assert await waiting != pid
    assert pool.open_connections == 1
    await pool.close()


async def test_unused_connections_are_closed(dsn: str) -> None:
    async with pool_of(dsn, idle_s=0.05) as pool:
        async with pool.lease(timeout_s=5):
            pass
        async with asyncio.timeout(30):
            while pool.open_connections:
                await asyncio.sleep(0.01)


async def test_a_refusal_that_waiting_does_not_cure_is_raised_at_once(dsn: str) -> None:
    async with pool_of(dsn.replace("user=postgres", "user=no_such_role")) as pool:
        with pytest.raises(LoginRefused):
            async with pool.lease(timeout_s=30):
                pass
        assert pool.open_connections == 0
    with pytest.raises(Unavailable):
        async with pool.lease(timeout_s=1):
            pass


class Delay:
    """Between a client and its server, both on Unix sockets. Once the client has said `held`, what the server says is
    kept back until the server is gone; then it is handed over in one part, and if `ends` the end of the connection too.
    Of one connection; the others are let through.
    """

    def __init__(self, dsn: str, held: bytes, *, ends: bool) -> None:
        self._known, self._held, self._ends = conninfo_to_dict(dsn), held, ends
        self.is_holding, self._was_held = asyncio.Event(), False
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Yields the DSN that leads through it."""
        with TemporaryDirectory() as folder:
            server = await asyncio.start_unix_server(self._serve, f"{folder}/.s.PGSQL.5432")
            try:
                yield make_conninfo(host=folder, port=5432, user=self._known["user"], dbname=self._known["dbname"])
            finally:
                server.close()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(f"{self._known['host']}/.s.PGSQL.{self._known['port']}")
        holds = asyncio.Event()
        for work in (self._ask(reader, server, holds), self._answer(answers, writer, holds)):
            self._tasks.add(asyncio.create_task(work))

    async def _ask(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, holds: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            if self._held in data and not self._was_held:
                self._was_held = True
                holds.set()
                self.is_holding.set()
            server.write(data)
        server.close()

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, holds: asyncio.Event) -> None:
        kept = b""
        while data := await answers.read(65_536):
            if holds.is_set():
                kept += data
            else:
                writer.write(data)
        writer.write(kept)
        if self._ends:
            writer.close()


async def test_one_that_took_leave_together_with_its_last_answer_is_not_handed_out(dsn: str) -> None:
    delay = Delay(dsn, b"discard all", ends=False)
    async with delay.running() as through, pool_of(through, size=1) as pool, asyncio.timeout(60):
        async with pool.lease(timeout_s=30) as connection:
            pid = await pid_of(connection)
            ending = asyncio.create_task(_end_once(dsn, pid, delay.is_holding))
        await ending
        async with pool.lease(timeout_s=30) as connection:
            assert await pid_of(connection) != pid


async def test_one_that_took_leave_while_we_were_let_in_is_not_handed_out(dsn: str) -> None:
    delay = Delay(dsn, b"application_name", ends=True)
    async with delay.running() as through:
        impatient = make_conninfo(through, options="-c idle_session_timeout=500ms", application_name="impatient")
        async with pool_of(impatient, size=1) as pool, pool.lease(timeout_s=60) as connection:
            assert await pid_of(connection) > 0
            assert delay.is_holding.is_set()


async def _end_once(dsn: str, pid: int, moment: asyncio.Event) -> None:
    """End a server process when it has done what it was asked last."""
    await moment.wait()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as admin:
        known = "select 1 from pg_stat_activity where pid = %s and state = 'idle' and query ilike 'discard all'"
        while await (await admin.execute(known, (pid,))).fetchone() is None:
            await asyncio.sleep(0.01)
        await admin.execute("select pg_terminate_backend(%s)", (pid,))
