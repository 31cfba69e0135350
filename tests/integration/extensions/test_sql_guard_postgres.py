"""The guard against Postgres itself: what is printed means what was written, and touches no table it does not name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import tuple_row

from magmobo.extensions.sql.errors import StatementRefused
from magmobo.extensions.sql.guard import guard
from magmobo.testing.postgres import PostgresServer

TABLES = """
create schema ext_one; set search_path = ext_one, pg_temp;
create type mood as enum ('good', 'bad');
create table t (id int primary key, a int, b int default 7, name text, at timestamptz default '2026-01-02 03:04:05+00',
                data jsonb, tags text[], mood mood, price numeric(10,2), span int4range);
create table s (id int primary key, a int, c text);
insert into t values
  (1, 10, 1, 'ada',  '2026-01-01 10:00+00', '{"a": [1, 2, {"b": "x"}], "k": "v"}', '{x,y}', 'good', 1.50, '[1,5)'),
  (2, 20, 2, 'bob',  '2026-01-02 11:30+00', '{"a": null}', '{}', 'bad', 2.25, '[3,9)'),
  (3, 20, 3, 'it''s', '2026-02-03 12:45+00', null, null, null, null, null);
insert into s values (1, 1, 'one'), (2, 2, 'two'), (4, 4, null);
create table public.orders (id int primary key, total int);
insert into public.orders values (1, 5), (2, 6);
"""
SAME = [
    one.strip()
    for one in Path(__file__).with_name("same_statements.sql").read_text(encoding="utf-8").split(";\n")
    if one.strip()
]


@pytest.fixture(scope="module")
def connection(postgres: PostgresServer) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with postgres.database() as dsn, psycopg.connect(dsn, row_factory=tuple_row) as connection:
        connection.execute(TABLES.encode())
        connection.commit()
        yield connection
        connection.rollback()


def answer(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> tuple[list[str], list[tuple[Any, ...]], str]:
    """Columns, rows as text, and the tag; nothing is kept."""
    connection.execute("set local search_path = ext_one, pg_temp; set local timezone = 'UTC'")
    try:
        cursor = connection.execute(sql.encode())
        rows = cursor.fetchall() if cursor.description else []
        return [column.name for column in cursor.description or ()], rows, cursor.statusmessage or ""
    finally:
        connection.rollback()


@pytest.mark.parametrize("sql", SAME)
def test_what_is_printed_means_what_was_written(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> None:
    guarded = guard(sql, schema="ext_one", allow="query")
    assert answer(connection, guarded.sql) == answer(connection, sql)
    assert guard(guarded.sql, schema="ext_one", allow="query") == guarded


def touched(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> set[str]:
    """The tables that Postgres's own plan of a statement names."""
    row = connection.execute(f"explain (verbose, format json) {sql}".encode()).fetchone()
    assert row is not None
    found: set[str] = set()
    waiting: list[Any] = [row[0] if isinstance(row[0], list) else json.loads(row[0])]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "Relation Name" in node:
                found.add(f"{node['Schema']}.{node['Relation Name']}")
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return found


@pytest.mark.parametrize("sql", SAME)
def test_plans_touch_no_table_that_the_guard_did_not_name(
    connection: psycopg.Connection[tuple[Any, ...]], sql: str
) -> None:
    guarded = guard(sql, schema="ext_one", allow="query")
    try:
        connection.execute("set local search_path = ext_one, pg_temp")
        assert touched(connection, guarded.sql) <= {str(table) for table in (*guarded.reads, *guarded.writes)}
    finally:
        connection.rollback()


NAMES = st.sampled_from(["t", "s", "public.orders", "ext_one.t", "ext_one.s", "t as s", "public.orders as t", "orders"])


@st.composite
def queries(draw: st.DrawFn, depth: int = 2) -> str:
    """Queries whose names stand for different things in different places."""
    inner = queries(depth=depth - 1) if depth else st.just("select id from t")
    sources = st.one_of(NAMES, inner.map(lambda one: f"({one}) as t"), inner.map(lambda one: f"lateral ({one}) as s"))
    listed = ", ".join(draw(st.lists(sources, min_size=1, max_size=2)))
    where = draw(st.one_of(st.just(""), inner.map(lambda one: f" where exists ({one})")))
    ctes = draw(st.lists(st.tuples(st.sampled_from(["t", "s", "orders"]), inner), max_size=2, unique_by=lambda c: c[0]))
    with_ = f"with {', '.join(f'{name} as ({one})' for name, one in ctes)} " if ctes else ""
    tail = draw(st.sampled_from(["", " limit 3", " union select 5", " for update"]))
    return f"{with_}select 1 as id from {listed}{where}{tail}"


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_names_stand_for_the_tables_that_postgres_takes_them_for(
    connection: psycopg.Connection[tuple[Any, ...]], data: st.DataObject
) -> None:
    sql = data.draw(queries())
    try:
        guarded = guard(sql, schema="ext_one", allow="query")
    except StatementRefused:
        return
    assert guard(guarded.sql, schema="ext_one", allow="query") == guarded
    named = {str(table) for table in (*guarded.reads, *guarded.writes)}
    with suppress(psycopg.Error):  # a name twice, a column that is not there: Postgres says so
        try:
            connection.execute("set local search_path = ext_one, pg_temp")
            assert touched(connection, guarded.sql) <= named
        finally:
            connection.rollback()


def test_no_function_of_postgres_that_is_on_the_list_writes_or_leaves_the_database(
    connection: psycopg.Connection[tuple[Any, ...]],
) -> None:
    """What the list holds is looked up: nothing that is only for superusers, nothing that is known to act."""
    from magmobo.extensions.sql.words import FUNCTIONS

    volatile = connection.execute(
        "select distinct proname::text from pg_proc where pronamespace = 'pg_catalog'::regnamespace "
        "and proname = any(%s) and provolatile = 'v' order by 1",
        (sorted(FUNCTIONS),),
    ).fetchall()
    assert {name for (name,) in volatile} <= {"clock_timestamp", "gen_random_uuid", "random", "uuidv4", "uuidv7"}
    closed = connection.execute(
        "select distinct proname::text from pg_proc where pronamespace = 'pg_catalog'::regnamespace "
        "and proname = any(%s) and proacl is not null",
        (sorted(FUNCTIONS),),
    ).fetchall()
    assert closed == []
    connection.rollback()
