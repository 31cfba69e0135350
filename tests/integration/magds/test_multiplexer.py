"""The multiplexer against a real server: alignment, isolation of roles, faults."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest

from magmobo.components.magds import libpq
from magmobo.components.magds import multiplexer as multiplexer_module
from magmobo.components.magds.errors import ConnectionLost, Overloaded, StatementUnsupported
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.contracts.errors import DeadlineExceeded, Unavailable
from magmobo.contracts.planes import Identity, Statement

READER = "mux_reader"
OTHER = "mux_other"
SETUP = f"""
do $$ begin create role {READER} nologin; exception when duplicate_object then null; end $$;
do $$ begin create role {OTHER} nologin; exception when duplicate_object then null; end $$;
create table item (id bigint primary key, owner text not null);
insert into item select n, 'u' || n % 10 from generate_series(1, 5000) n;
alter table item enable row level security;
create policy own on item using (owner = (select current_setting('request.jwt.claims')::json ->> 'sub'));
grant select, insert, update on item to {READER};
create schema hidden; create table hidden.thing (x int); insert into hidden.thing values (1);
grant usage on schema hidden to {READER}; grant select on hidden.thing to {READER}, {OTHER};
create table late (id int unique deferrable initially deferred); grant select, insert on late to {READER};
"""
ONE = b"select row_to_json(t)::text from (select id, owner from item where id = $1) t"
BAD = b"select (1 / ($1::int - 1))::text"


def user(number: int, role: str = READER) -> Identity:
    return Identity(role, b'{"sub":"u%d"}' % number)


def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


@asynccontextmanager
async def multiplexer(dsn: str, **options: Any) -> AsyncIterator[Multiplexer]:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SETUP)
    settings = {"connections": 1, "depth": 12, "statements": 64, "statement_timeout_s": 5.0} | options
    mux = Multiplexer(dsn, **settings)
    await mux.open(spawn)
    try:
        yield mux
    finally:
        await mux.close()


async def ask(mux: Multiplexer, sql: bytes, *params: bytes, who: Identity | None = None, **options: Any) -> Any:
    options = {"read_only": True, "timeout_s": 30.0} | options
    return (await mux.run(Statement(sql, params), who or user(1), **options)).rows


async def backend_pid(mux: Multiplexer) -> int:
    return int((await ask(mux, b"select pg_backend_pid()::text"))[0][0])


@contextmanager
def held(dsn: str) -> Iterator[bytes]:
    """A statement that ends with the block, however long that takes."""
    with psycopg.connect(dsn, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(1)")
        try:
            yield b"select pg_advisory_lock_shared(1)::text, pg_advisory_unlock_shared(1)::text"
        finally:
            holder.execute("select pg_advisory_unlock(1)")


async def until(condition: Any, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("wrapped", [False, True], ids=["queued-sync", "flushing-sync"])
async def test_thousands_of_requests_on_one_connection_get_their_own_rows(
    dsn: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrapped:
        monkeypatch.setattr(libpq, "_send_pipeline_sync", lambda: None)
    random.seed(7)
    async with multiplexer(dsn, queue=10_000) as mux:

        async def one(number: int) -> str:
            if number % 7 == 0:
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await ask(mux, BAD, b"1")
                return "error"
            if number % 50 == 3:
                caller = asyncio.ensure_future(ask(mux, ONE, b"%d" % number, who=user(number % 10)))
                for _ in range(number % 4):  # cancelled while it waits, or while it is on its way
                    await asyncio.sleep(0)
                caller.cancel()
                return "left"
            key = random.randint(1, 5000)
            rows = await ask(mux, ONE, b"%d" % key, who=user(number % 10))
            mine = key % 10 == number % 10
            if mine and len(rows) == 1 and json.loads(rows[0][0]) == {"id": key, "owner": f"u{number % 10}"}:
                return "own"
            return "hidden" if not mine and rows == [] else "WRONG"

        seen = Counter(await asyncio.gather(*(one(number) for number in range(6000))))
    assert "WRONG" not in seen
    assert seen["own"] > 300
    assert seen["hidden"] > 3000
    assert seen["error"] == 858


async def test_callers_cancelled_in_flight_leave_the_others_their_own_answers(dsn: str) -> None:
    """The thousands above are mostly cancelled while they wait; here every cancelled request is on the wire."""
    async with multiplexer(dsn, depth=12) as mux:
        for round_number in range(20):
            with held(dsn) as lock:
                slow = asyncio.ensure_future(ask(mux, lock))
                callers = [asyncio.ensure_future(ask(mux, b"select $1::text", b"%d" % n)) for n in range(11)]
                await until(lambda: mux.in_flight == 12)
                gone = {(round_number + step) % 11 for step in (0, 1, 5)}
                for number in gone:
                    callers[number].cancel()
                assert mux.in_flight == 12  # they are still on the server's side
            answers = await asyncio.gather(*callers, return_exceptions=True)
            for number, answer in enumerate(answers):
                if number in gone:
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert answer == [(b"%d" % number,)]
            await slow


async def test_a_write_cancelled_before_it_was_sent_never_happens(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexer_module, "WATCH_EVERY_S", 60.0)  # the hand-out itself must see it
    async with multiplexer(dsn, depth=1) as mux:
        for _ in range(10):
            with held(dsn) as lock:
                busy = asyncio.ensure_future(ask(mux, lock))
                write = asyncio.ensure_future(ask(mux, b"insert into late values (77)", read_only=False))
                await until(lambda: mux.in_flight == 1 and mux.waiting == 1)
                write.cancel()
            await asyncio.gather(busy, write, return_exceptions=True)
        assert await ask(mux, b"select count(*)::text from late") == [(b"0",)]


async def test_role_claims_and_read_only_end_with_the_request(dsn: str) -> None:
    async with multiplexer(dsn) as mux:
        pid = await backend_pid(mux)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await ask(mux, b"insert into item values (9001, 'u1')")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await ask(mux, BAD, b"1")
        link = mux._links[0]
        link._cache.plan(b"x", b"x")  # nothing else on the connection may change what follows
        naked = await asyncio.wait_for(_naked(mux), 30)
        assert naked == ("postgres", "", "off", "0")
        assert await backend_pid(mux) == pid


async def _naked(mux: Multiplexer) -> tuple[str, ...]:
    """What the connection is between requests: asked without setting any identity."""
    pgconn = mux._links[0]._pgconn
    loop = asyncio.get_running_loop()
    loop.remove_reader(pgconn.socket)
    pgconn.send_query_params(
        b"select current_user, coalesce(current_setting('request.jwt.claims', true), ''),"
        b" current_setting('transaction_read_only'), current_setting('statement_timeout')",
        (),
    )
    pgconn.pipeline_sync()
    while pgconn.is_busy():
        pgconn.consume_input()
        await asyncio.sleep(0)
    result = pgconn.get_result()
    assert result is not None
    row = tuple((result.get_value(0, column) or b"").decode() for column in range(4))
    while True:  # the None of the query, then the sync
        following = pgconn.get_result()
        if following is not None:
            break
        while pgconn.is_busy():
            pgconn.consume_input()
            await asyncio.sleep(0)
    loop.add_reader(pgconn.socket, mux._links[0]._on_readable)
    return row


async def test_a_statement_prepared_for_one_role_checks_the_schema_for_another(dsn: str) -> None:
    query = b"select x::text from hidden.thing"
    async with multiplexer(dsn) as mux:
        for _ in range(3):
            assert await ask(mux, query) == [(b"1",)]
        for _ in range(2):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await ask(mux, query, who=user(1, OTHER))
        assert await ask(mux, query) == [(b"1",)]


async def test_usage_revoked_later_is_seen_by_a_prepared_statement(dsn: str) -> None:
    query = b"select x::text from hidden.thing"
    async with multiplexer(dsn) as mux:
        for _ in range(3):
            assert await ask(mux, query) == [(b"1",)]
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"revoke usage on schema hidden from {READER}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await ask(mux, query)


async def test_an_error_at_commit_is_its_own_request_s(dsn: str) -> None:
    insert = b"insert into late values ($1)"
    async with multiplexer(dsn) as mux:
        answers = await asyncio.gather(
            *(ask(mux, insert, value, read_only=False) for value in (b"1", b"2", b"1", b"3")), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [list, list, psycopg.errors.UniqueViolation, list]
        assert await ask(mux, b"select id::text from late order by id") == [(b"1",), (b"2",), (b"3",)]


async def test_a_table_altered_under_a_prepared_statement_is_noticed_once(dsn: str) -> None:
    async with multiplexer(dsn) as mux:
        query = b"select * from item where id = 11"
        for _ in range(2):
            assert await ask(mux, query) == [(b"11", b"u1")]
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("alter table item add column note text default 'new'")
        answers = await asyncio.gather(*(ask(mux, query) for _ in range(5)))
        assert answers == [[(b"11", b"u1", b"new")]] * 5


async def test_failed_parse_does_not_poison_the_next_user_of_the_statement(dsn: str) -> None:
    query = b"select 1 from not_there"
    async with multiplexer(dsn) as mux:
        answers = await asyncio.gather(*(ask(mux, query) for _ in range(5)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {psycopg.errors.UndefinedTable}
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"create table not_there (); grant select on not_there to {READER}")
        assert await ask(mux, query) == []


async def test_statements_stay_bounded_on_the_server(dsn: str) -> None:
    async with multiplexer(dsn, statements=8) as mux:
        for _ in range(2):
            await asyncio.gather(*(ask(mux, b"select '%d'" % number) for number in range(40)))
        held = await ask(mux, b"select count(*)::text from pg_prepared_statements")
        assert int(held[0][0]) <= 8 + 2  # the identity statement, and the one evicted by this very question
        assert await ask(mux, b"select '7'") == [(b"7",)]


async def test_killed_backend_fails_its_requests_and_the_next_ones_work(dsn: str) -> None:
    async with multiplexer(dsn, statement_timeout_s=90.0) as mux:
        pid = await backend_pid(mux)
        slow = [asyncio.ensure_future(ask(mux, b"select pg_sleep(60)::text")) for _ in range(3)]
        await until(lambda: mux.in_flight == 3)
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(%s)", (pid,))
        answers = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ConnectionLost}
        assert all(answer.retryable for answer in answers if isinstance(answer, ConnectionLost))
        assert await backend_pid(mux) != pid


async def test_copy_is_refused_and_the_connection_replaced(dsn: str) -> None:
    async with multiplexer(dsn) as mux:
        with pytest.raises(StatementUnsupported):
            await ask(mux, b"copy (select 1) to stdout")
        assert await ask(mux, b"select '1'") == [(b"1",)]


async def test_a_slow_statement_ends_at_its_deadline_on_the_server_too(dsn: str) -> None:
    async with multiplexer(dsn, statement_timeout_s=90.0) as mux:
        with pytest.raises(DeadlineExceeded):
            await ask(mux, b"select pg_sleep(60)::text", timeout_s=0.2)
        assert await ask(mux, b"select '1'") == [(b"1",)]  # long before the other would have ended


async def test_who_waits_behind_a_full_connection_is_told_in_time(dsn: str) -> None:
    async with multiplexer(dsn, depth=1, queue=2) as mux:
        with held(dsn) as lock:
            slow = asyncio.ensure_future(ask(mux, lock))
            await until(lambda: mux.in_flight == 1)
            waiting = [asyncio.ensure_future(ask(mux, b"select '1'", timeout_s=limit_s)) for limit_s in (3, 60)]
            await until(lambda: mux.waiting == 2)
            with pytest.raises(Overloaded):
                await ask(mux, b"select '1'")
            with pytest.raises(Unavailable):
                await waiting[0]
        assert await waiting[1] == [(b"1",)]
        await slow


async def test_hostile_values_are_refused_or_stay_values(dsn: str) -> None:
    async with multiplexer(dsn) as mux:
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            await ask(mux, b"select $1::text", b"a\0b")
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            await ask(mux, b"select 1", who=Identity(READER, b'{"sub":"u1"}\0'))
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            await ask(mux, b"select 1", who=Identity("no'such"))
        with pytest.raises(psycopg.Error):
            await ask(mux, b"select $1::text", b"\xff")
        big = b"x" * 4_000_000
        assert await asyncio.gather(*(ask(mux, b"select $1::text", big) for _ in range(6))) == [[(big,)]] * 6


async def test_requests_go_around_a_connection_that_is_stuck_behind_a_slow_one(dsn: str) -> None:
    async with multiplexer(dsn, connections=2) as mux:
        await until(lambda: mux.connected == 2)
        with held(dsn) as lock:
            slow = asyncio.create_task(ask(mux, lock))
            started_s = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() - started_s > 0.2)  # by now it counts as stuck
            rows = await asyncio.gather(*(ask(mux, b"select $1::text", b"%d" % number) for number in range(10)))
            assert [row[0][0] for row in rows] == [b"%d" % number for number in range(10)]
            assert not slow.done()
        await slow
