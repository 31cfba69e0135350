"""`db.execute`, `db.fetch` and `db.fetchval` on a real server: values, grants, limits, ends."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.extensions.sql_node import sql_node
from tests.integration.node.harness import ROOT

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.guests import Migration
from magmobo.contracts.planes import TableName
from magmobo.extensions.sql import execution
from magmobo.extensions.sql.errors import (
    ParameterRefused,
    ResultTooLarge,
    StatementFailed,
    StatementRefused,
    TableNotGranted,
)
from magmobo.extensions.sql.guard import Guarded
from magmobo.extensions.sql.methods import rights_of
from magmobo.extensions.sql.values import parameters
from magmobo.testing.postgres import PostgresServer

TABLES = """
create table public.orders (id serial primary key, note text, price numeric(10, 2), secret text default 'hidden');
insert into public.orders (note, price) values ('a', 1.5), ('b', 2);
create table public.other (id int)
"""
NOTES = Migration(
    "0001",
    "notes",
    "create table notes (id bigint generated always as identity primary key, body text unique, data jsonb, "
    "tags text[], at timestamptz default now())",
    "drop table notes",
)


async def test_an_extension_keeps_tables_of_its_own(dsn: str) -> None:
    async with sql_node(dsn) as node:
        one, two = await node.author("one"), await node.author("two")
        assert await one.migrate(NOTES) == ["0001"]
        assert await one.migrate(NOTES) == []
        assert (
            await one.execute("insert into notes (body, data, tags) values ($1, $2, $3)", "hi", {"a": [1]}, ["x"]) == 1
        )
        rows = await one.fetch("select * from notes")
        assert {name: rows[0][name] for name in ("id", "body", "data", "tags")} == {
            "id": 1, "body": "hi", "data": {"a": [1]}, "tags": ["x"],
        }  # fmt: skip
        assert abs((rows[0]["at"] - datetime.now(UTC)).total_seconds()) < 600
        assert await one.value("select count(*) from ext_one.notes") == 1
        assert await one.value("select body from notes where id = $1", 99) is None
        assert await one.execute("update notes set body = body || $1 where id = any($2)", "!", [1, 2]) == 1
        assert await one.execute("select 1 from notes") == 1
        assert await one.fetch("delete from notes returning body") == [{"body": "hi!"}]
        with pytest.raises(TableNotGranted, match=r"ext_one\.notes"):
            await two.fetch("select * from ext_one.notes")
        assert await node.migrations.down("one", [], guest="one") == ["0001"]


async def test_a_migration_that_the_guard_refuses_names_its_file(dsn: str) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        for migration in (
            Migration("0002", "bad", "select pg_sleep(1)", ""),
            Migration("0002", "bad", "select 1", "drop table public.orders"),
        ):
            with pytest.raises(StatementRefused, match=r"0002_bad\.(up|down)\.sql"):
                await one.migrate(migration)


async def test_the_text_of_the_author_is_what_is_compared(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        await one.migrate(NOTES)
        monkeypatch.setattr(
            "magmobo.extensions.sql.migrations.guard", lambda sql, **_: Guarded(f"{sql} /* printed */", (), (), False)
        )
        assert await one.migrate(NOTES) == [], "printed in another way it is the same migration"


async def test_grants_decide_and_count_at_once(dsn: str) -> None:
    async with sql_node(dsn, TABLES) as node:
        one = await node.author("one", read=["public.orders(id, note)"], write=["public.other"])
        rights = {(str(right.table), right.columns): right.rights for right in rights_of(one.installed)}
        assert rights == {
            ("public.orders", ("id", "note")): ("select",),
            ("public.other", ()): ("select", "insert", "update", "delete"),
        }
        assert await one.fetch("select id, note from public.orders order by id limit 1") == [{"id": 1, "note": "a"}]
        with pytest.raises(StatementFailed, match="42501"):
            await one.fetch("select secret from public.orders")
        with pytest.raises(StatementFailed, match="42501"):
            await one.fetch("select orders from public.orders")
        with pytest.raises(TableNotGranted, match="writing"):
            await one.execute("update public.orders set note = 'x'")
        with pytest.raises(TableNotGranted, match="writing"):
            await one.fetch("select id from public.orders for update")
        assert await one.execute("insert into public.other values (1)") == 1
        one.revoke("database.write")
        with pytest.raises(TableNotGranted):
            await one.execute("insert into public.other values (1)")
        one.revoke("database.schema")
        with pytest.raises(TableNotGranted):
            await one.execute("insert into notes values (1)")
        assert node.gate.denials == [
            ("database.write", "db.execute", "table"), ("database.write", "db.fetch", "table"),
            ("database.write", "db.execute", "table"), ("database.schema", "db.execute", "table"),
        ]  # fmt: skip


async def test_columns_granted_for_writing_exclude_deleting(dsn: str) -> None:
    async with sql_node(dsn, TABLES) as node:
        one = await node.author("one", schema=False, write=["public.orders(note)"])
        [right] = rights_of(one.installed)
        assert (right.table, right.rights) == (TableName("public", "orders"), ("select", "insert", "update"))
        assert await one.execute("insert into public.orders (note) values ('c')") == 1
        with pytest.raises(StatementFailed, match="42501"):
            await one.execute("update public.orders set price = 0")
        with pytest.raises(StatementFailed, match="42501"):
            await one.execute("delete from public.orders")
        with pytest.raises(StatementRefused, match="without a schema"):
            await one.execute("insert into notes values (1)")


async def test_row_level_security_is_keyed_on_the_role(dsn: str) -> None:
    async with sql_node(dsn, TABLES) as node:
        one = await node.author("one", read=["public.orders"])
        role = node.guests.role_of("one")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("alter table public.orders enable row level security")
        assert await one.fetch("select id from public.orders") == []
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"create policy p on public.orders using (note = 'a' and current_user = '{role}')".encode())
        assert await one.fetch("select id from public.orders") == [{"id": 1}]
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("drop policy p on public.orders")


VALUES: list[tuple[str, Any, Any]] = [
    ("select $1::int", 5, 5),
    ("select $1::bigint", 2**40, 2**40),
    ("select $1::numeric", 2**70, float(2**70)),
    ("select $1::numeric", "1.50", 1.5),
    ("select $1::numeric", "7", 7),
    ("select $1::numeric::text", "1.50", "1.50"),
    ("select $1 + 30000", 30000, 60000),
    ("select $1", 1.25, 1.25),
    ("select $1::float8", "Infinity", math.inf),
    ("select $1::text", 'it\'s \\ "x" é 日本', 'it\'s \\ "x" é 日本'),
    ("select not $1", True, False),
    ("select $1::int is null", None, True),
    ("select $1::bytea", b"\x00\xff'", b"\x00\xff'"),
    ("select $1::timestamptz", datetime(2026, 1, 2, 3, 4, 5, 678, UTC), datetime(2026, 1, 2, 3, 4, 5, 678, UTC)),
    ("select $1::timestamptz", "infinity", "infinity"),
    ("select $1::timestamptz", "20000-01-01", "20000-01-01 00:00:00+00"),
    ("select $1::timestamp", "2026-01-02 03:04", "2026-01-02 03:04:00"),
    ("select $1::date", "2026-01-02", "2026-01-02"),
    ("select $1::time", "03:04", "03:04:00"),
    ("select $1::interval", "1 day 2 hours", "P1DT2H"),
    ("select $1::uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
    ("select $1", {"a": [1, None, {"b": "ü"}]}, {"a": [1, None, {"b": "ü"}]}),
    ("select $1", [{"a": 1}, 2], [{"a": 1}, 2]),
    ("select $1::jsonb", "null", None),
    ("select $1::jsonb", '"x"', "x"),
    ("select $1", [1, 2, None], [1, 2, None]),
    ("select $1", [1, 2.5], [1.0, 2.5]),
    ("select $1::text[]", ['a,"b\\', "", "NULL", None], ['a,"b\\', "", "NULL", None]),
    ("select $1::text[]", [], []),
    ("select $1::uuid[]", ["00000000-0000-0000-0000-000000000001"], ["00000000-0000-0000-0000-000000000001"]),
    ("select $1::jsonb[]", ['{"a": 1}'], [{"a": 1}]),
    ("select $1", [True, False], [True, False]),
    ("select $1", [b"a", b"\\"], [b"a", b"\\"]),
    ("select array[array[1, 2], array[3, 4]]", ..., [[1, 2], [3, 4]]),
    ("select int4range(1, 5)", ..., "[1,5)"),
    ("select row(1, 'x')", ..., "(1,x)"),
    ("select '10.0.0.1'::inet", ..., "10.0.0.1"),
    ("select 'x'::tsvector", ..., "'x'"),
    ("select current_user", ..., "mag_ext"),
    ("select count(*) from generate_series(1, $1)", 3, 3),
    ("select left('abc', $1)", 2, "ab"),
    ("select 'b' = any($1)", ["a", "b"], True),
]


@pytest.mark.parametrize(("sql", "given", "expected"), VALUES, ids=range(len(VALUES)))
async def test_values(dsn: str, sql: str, given: Any, expected: Any) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        found = await one.value(sql, *([] if given is ... else [given]))
        assert (
            found.startswith(expected)
            if expected == "mag_ext"
            else (found == expected and type(found) is type(expected))
        )
        msgspec.msgpack.encode(found)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text("ab", max_size=2), JSON, max_size=3),
    st.lists(
        st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), max_size=5
    ),
    st.floats(allow_nan=False),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_value_comes_back_as_it_was(dsn: str, data: Any, texts: Any, number: float, whole: int) -> None:
    async def both() -> None:
        async with sql_node(dsn) as node:
            one = await node.author("one")
            query = "select $1 as a, $2::text[] as b, $3 as c, $4::int8 as d"
            assert await one.fetch(query, data, texts, number, whole) == [
                {"a": data, "b": texts, "c": number, "d": whole}
            ]

    asyncio.run(both())


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, "a\0b", ["a\0"], [1, "a"], "\ud800", {"a": object()}, [[object()]], "x" * 3 + "\0"],
)
def test_what_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(ParameterRefused, match=r"\$2"):
        parameters([1, value])
    with pytest.raises(ParameterRefused):
        parameters([1] * 1_001)


async def test_what_postgres_refuses_is_told_without_the_rows_it_concerns(dsn: str) -> None:
    async with sql_node(dsn, TABLES) as node:
        one = await node.author("one")
        await one.migrate(NOTES)
        await one.execute("insert into notes (body) values ('private')")
        with pytest.raises(StatementFailed) as caught:
            await one.execute("insert into notes (body) values ($1)", "private")
        assert caught.value.sqlstate == "23505"
        assert "private" not in str(caught.value)
        for sql, params, state in (
            ("select $1::int", ["x"], "22P02"),
            ("select nothing", [], "42703"),
            ("select $1::int + $2::int", [1], "08P01"),
            ("select 1/0", [], "22012"),
        ):
            with pytest.raises(StatementFailed) as caught:
                await one.fetch(sql, *params)
            assert caught.value.sqlstate == state
        assert await one.value("select 1") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "select * from generate_series(1, 10001)",
        "select * from generate_series(1, 3000000)",
        "select string_agg(md5(i::text), '') from generate_series(1, 20000) as g(i)",
        "select md5(i::text) a, md5(i::text) b, md5(i::text) c, md5(i::text) d from generate_series(1, 9000) as g(i)",
        "update notes set at = at returning (select string_agg(md5(i::text), '') from generate_series(1, 20000) i)",
    ],
)
async def test_answers_are_bounded_and_what_is_too_large_ends_on_the_server(
    dsn: str, sql: str, postgres: PostgresServer
) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        await one.migrate(NOTES)
        await one.execute("insert into notes (body) values ('x')")
        with pytest.raises(ResultTooLarge):
            await one.fetch(sql)
        assert len(await one.fetch("select * from generate_series(1, 10000)")) == 10_000
        async with asyncio.timeout(30):
            while await active(postgres, node.guests.role_of("one")):
                await asyncio.sleep(0.01)


async def test_what_works_on_after_too_many_rows_is_cancelled(dsn: str, postgres: PostgresServer) -> None:
    """It never writes to the closed connection again, so nothing else would end it."""
    counting = "(select count(*) from generate_series(1, 100000) a, generate_series(i, 100000) b)"
    async with sql_node(dsn) as node:
        one = await node.author("one")
        with pytest.raises(ResultTooLarge):
            await one.fetch(f"select i, case when i > 15000 then {counting} end from generate_series(1, 20000) as g(i)")
        async with asyncio.timeout(30):
            while await active(postgres, node.guests.role_of("one")):
                await asyncio.sleep(0.01)


async def active(postgres: PostgresServer, role: str) -> int:
    """Statements of the role that run now."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn()) as watcher:
        row = await (
            await watcher.execute(
                "select count(*) from pg_stat_activity where usename = %s and state = 'active'", (role,)
            )
        ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Something else to do for each processor."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    yield
    for one in busy:
        one.kill()
        one.wait()


@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize("niceness", [0, 10, 15, 19])
def test_a_value_that_fills_the_memory_is_not_taken_in(dsn: str, niceness: int) -> None:
    """One value of 150 MB: the node holds some of it at most. A server that keeps up with a node that is slow to read
    is what makes libpq read on without end.
    """
    program = [sys.executable, "-m", "tests.integration.extensions.large_value", dsn, str(niceness)]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[-1]) < 64 * 1024


async def test_a_deadline_ends_the_statement_on_the_server(dsn: str, postgres: PostgresServer) -> None:
    endless = "with recursive r(n) as (values (1) union all select n + 1 from r) select count(*) from r"
    async with sql_node(dsn) as node:
        one = await node.author("one")
        with pytest.raises(TimeoutError):
            await one.call("db.fetchval", endless, timeout_s=0.3)
        async with asyncio.timeout(30):
            while await active(postgres, node.guests.role_of("one")):
                await asyncio.sleep(0.01)
        assert await one.value("select 1") == 1
        tasks = [asyncio.ensure_future(one.call("db.fetchval", endless, timeout_s=0.5)) for _ in range(8)]
        assert await node.author("two")
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one_found, TimeoutError) for one_found in found)
        assert await one.value("select 1") == 1


async def test_a_connection_that_ends_is_told_and_followed_by_another(dsn: str, postgres: PostgresServer) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        assert await one.value("select 1") == 1
        task = asyncio.ensure_future(
            one.value("with recursive r(n) as (values (1) union all select n from r) select count(*) from r")
        )
        role = node.guests.role_of("one")
        async with asyncio.timeout(30):
            while not await active(postgres, role):
                await asyncio.sleep(0.01)
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            # One that is being cleaned behind an earlier statement would be found ended by the next one.
            busy = "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s and state = 'active'"
            admin.execute(busy, (role,))
        with pytest.raises((Unavailable, StatementFailed)):
            await task
        assert await one.value("select 1") == 1


async def test_statements_run_beside_each_other(dsn: str) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        await one.migrate(NOTES)
        await asyncio.gather(*(one.execute("insert into notes (body) values ($1)", str(i)) for i in range(40)))
        assert await one.value("select count(*) from notes") == 40
        assert execution.MAX_ROWS == 10_000
