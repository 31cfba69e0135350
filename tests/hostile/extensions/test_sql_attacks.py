"""Attacks by SQL on a real server, cases 31 to 36: what stops each, and what would happen if that were not there.

Each attack runs four ways. With nothing (the node's own superuser connection) it must succeed: else it would be no
attack. Through the plane it must be stopped. As the extension's role without the guard, and past the guard as the
superuser, it does what the table says: so a wall that falls is noticed, and one that did nothing would be, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import psycopg
import pytest
from msgspec import Struct
from tests.integration.extensions.sql_node import Author, SqlNode, sql_node

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.pool import Connection
from magmobo.contracts.errors import MagError
from magmobo.contracts.guests import Migration
from magmobo.extensions.sql.errors import ResultTooLarge, StatementFailed, StatementRefused, TableNotGranted
from magmobo.extensions.sql.guard import guard

SCENE = """
create table public.orders (id int primary key, note text, owner text default 'ada');
insert into public.orders values (1, 'mine', 'eve'), (2, 'of others', 'ada');
alter table public.orders enable row level security;
create policy by_setting on public.orders using (owner = current_setting('request.user', true));
create table public.salaries (id int, amount int); insert into public.salaries values (1, 100);
create function public.all_salaries() returns bigint security definer language sql
  as 'select sum(amount) from public.salaries';
create table public.held (id int)
"""
NOTES = Migration("0001", "notes", "create table notes (id int, body text)", "drop table notes")
GUARD, ROLE = "guard", "role"


class Attack(Struct, frozen=True):
    """`stops`: which of the two walls stops it alone. `case` is its number in the list of hostile cases."""

    case: int
    name: str
    sql: str
    stops: frozenset[str]


def attack(case: int, name: str, sql: str, *stops: str) -> Attack:
    return Attack(case, name, sql, frozenset(stops))


ATTACKS = [
    attack(31, "tables of another extension", "select * from ext_victim.notes", GUARD, ROLE),
    attack(31, "writing to tables of another extension", "insert into ext_victim.notes values (1, 'x')", GUARD, ROLE),
    attack(31, "tables that were not granted", "select * from public.salaries", GUARD, ROLE),
    attack(31, "writing to what may be read", "update public.orders set note = 'x'", GUARD, ROLE),
    attack(31, "passwords of the server", "select rolpassword from pg_authid", GUARD, ROLE),
    attack(31, "passwords of the server, by their full name", 'select * from pg_catalog."pg_authid"', GUARD, ROLE),
    attack(31, "passwords of guests", "select * from mag.guest", GUARD, ROLE),
    attack(31, "what others run", "select query from pg_stat_activity", GUARD),
    attack(31, "names of all tables", "select relname from pg_catalog.pg_class", GUARD),
    attack(31, "a definition elsewhere", "create table public.mine (id int)", GUARD, ROLE),
    attack(31, "a schema", "create schema mine", GUARD, ROLE),
    attack(31, "a function of others with their rights", "select public.all_salaries()", GUARD),
    attack(32, "becoming who one was", "reset role", GUARD),
    attack(32, "becoming the superuser", "set role postgres", GUARD, ROLE),
    attack(32, "being the superuser from now on", "set session authorization postgres", GUARD, ROLE),
    attack(32, "becoming the superuser by a function", "select set_config('role', 'postgres', false)", GUARD, ROLE),
    attack(32, "making a superuser", "create role strong superuser", GUARD, ROLE),
    attack(33, "a program of the server's", "copy (select 1) to program 'cat >/dev/null'", GUARD, ROLE),
    attack(33, "writing a file of the server's", "copy (select 1) to '/dev/null'", GUARD, ROLE),
    attack(33, "reading a file of the server's", "select pg_read_file('PG_VERSION')", GUARD, ROLE),
    attack(33, "listing the server's files", "select * from pg_ls_dir('.')", GUARD, ROLE),
    attack(33, "a file as a large object", "select lo_import('PG_VERSION')", GUARD, ROLE),
    attack(33, "code of a library", "create function f() returns language_handler language c as '$libdir/plpgsql', "
           "'plpgsql_call_handler'", GUARD, ROLE),
    attack(33, "settings of the server", "alter system set log_min_messages = 'panic'", GUARD, ROLE),
    attack(33, "code of its own", "create function f() returns int language sql as 'select 1'", GUARD),
    attack(33, "a trigger", "create trigger t before insert on ext_thief.notes for each row execute function "
           "suppress_redundant_updates_trigger()", GUARD),
    attack(33, "ending the work of others", "select pg_terminate_backend(0)", GUARD),
    attack(34, "two statements", "select 1; drop table ext_thief.notes", GUARD),
    attack(34, "a block of code", "do $$ begin perform 1; end $$", GUARD),
    attack(34, "no limit of time", "set statement_timeout = 0", GUARD),
    attack(34, "no limit of time, by a function", "select set_config('statement_timeout', '0', false)", GUARD),
    attack(34, "listening to the node", "listen mag_ddl", GUARD),
    attack(34, "waking the node", "notify mag_ddl", GUARD),
    attack(34, "waking the node, by a function", "select pg_notify('mag_ddl', '')", GUARD),
    attack(34, "a lock that outlives the statement", "select pg_advisory_lock(7168359)", GUARD),
    attack(34, "locking a table", "lock table ext_thief.notes", GUARD),
    attack(34, "locking a table of others", "lock table public.held", GUARD, ROLE),
    attack(34, "locking rows of others", "select * from public.orders for update", GUARD, ROLE),
    attack(34, "what only seems to be read", "explain analyze delete from ext_thief.notes", GUARD),
    attack(34, "a statement for later", "prepare p as select 1", GUARD),
    attack(34, "a text that is run", "select word from ts_stat('select to_tsvector(relname) from pg_class')", GUARD),
    attack(34, "a comment that hides", "select 1 /* /* */ */; drop table ext_thief.notes -- */", GUARD),
    attack(34, "a string that ends elsewhere", "select e'\\'', set_config('a.b', 'c', false), ''", GUARD),
    attack(34, "a name in another writing", 'select U&"\\0070g_sleep"(0)', GUARD),
    attack(34, "a function as a column", "select o.pg_column_size from public.orders as o", GUARD),
    attack(34, "an operator with its schema", "select 1 operator(pg_catalog.+) 1", GUARD),
    attack(34, "a table as a number", "select 'public.salaries'::regclass::oid", GUARD),
    attack(34, "temporary tables", "create temporary table orders as select 1", GUARD),
    attack(34, "a password of its own choice", "alter role current_user password 'mine'", GUARD),
    attack(35, "who it claims to be", "select set_config('request.user', 'ada', false)", GUARD),
    attack(35, "who it claims to be, plainly", "set request.\"user\" = 'ada'", GUARD),
    attack(36, "waiting", "select pg_sleep(0.01)", GUARD),
    attack(36, "a text of a gigabyte", "select length(repeat('x', 100))", GUARD),
]  # fmt: skip
IDS = [f"{one.case}: {one.name}" for one in ATTACKS]


@asynccontextmanager
async def scene(dsn: str) -> AsyncIterator[tuple[SqlNode, Author]]:
    """Two extensions with a table each; `thief` may read one table of the user's."""
    async with sql_node(dsn, SCENE) as node:
        victim, thief = await node.author("victim"), await node.author("thief", read=["public.orders"])
        for author in (victim, thief):
            await author.migrate(NOTES)
            await author.execute("insert into notes values (1, 'kept')")
        try:
            yield node, thief
        finally:
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("alter system reset log_min_messages")


async def succeeds(connection: Connection, sql: str) -> bool:
    """Whether Postgres does it; undone, as far as it can be."""
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(sql.encode())
    except psycopg.errors.ActiveSqlTransaction:  # it is only for outside of transactions
        try:
            await connection.execute(sql.encode())
        except psycopg.Error:
            return False
    except psycopg.Error:
        return False
    return True


@pytest.mark.parametrize("one", ATTACKS, ids=IDS)
async def test_each_wall_stops_what_it_is_there_for(dsn: str, one: Attack) -> None:
    async with scene(dsn) as (node, _):
        admin = await connect(dsn)
        try:
            assert await succeeds(admin, one.sql), "with nothing in its way it fails: it is no attack"
        finally:
            await admin.close()
        async with node.guests.session("thief") as connection:
            role_stops = not await succeeds(connection, one.sql)
        assert role_stops is (ROLE in one.stops)
        assert past_the_guard(one.sql) is (GUARD not in one.stops)


def past_the_guard(sql: str) -> bool:
    """Whether guard and grants let it through; nothing is run."""
    try:
        guarded = guard(sql, schema="ext_thief", allow="query")
    except StatementRefused:
        return False
    allowed = {"public.orders", "ext_thief.notes"}
    return {str(table) for table in guarded.reads} <= allowed and not {str(table) for table in guarded.writes} - {
        "ext_thief.notes"
    }


@pytest.mark.parametrize("one", ATTACKS, ids=IDS)
async def test_through_the_plane_every_attack_is_stopped_and_nothing_happened(dsn: str, one: Attack) -> None:
    async with scene(dsn) as (node, thief):
        for method in ("db.execute", "db.fetch", "db.fetchval"):
            with pytest.raises((StatementRefused, TableNotGranted, StatementFailed)) as caught:
                await thief.call(method, one.sql)
            assert caught.value.code.startswith("MAG-EXT-2")
        if caught.type is TableNotGranted:
            assert node.gate.denials, "a denial that nobody hears of"
        assert await thief.value("select body from notes") == "kept"
        assert await thief.value("select count(*) from public.orders") == 0
        async with node.pool.lease(timeout_s=5) as connection:
            row = await (
                await connection.execute(
                    "select (select count(*) from pg_locks where locktype = 'advisory'), "
                    "(select sum(amount)::int from public.salaries), (select count(*) from ext_victim.notes), "
                    "(select count(*) from pg_roles where rolname = 'strong'), to_regclass('public.mine') is null"
                )
            ).fetchone()
            assert row == (0, 100, 1, 0, True)


async def test_case_35_a_policy_on_the_role_holds_even_without_the_guard(dsn: str) -> None:
    """A policy on a setting is opened by whoever can set it; one on current_user by nobody."""
    async with scene(dsn) as (node, thief):
        async with node.guests.session("thief") as connection:
            await connection.execute("select set_config('request.user', 'ada', false)")
            assert await (await connection.execute("select id from public.orders")).fetchall() == [(2,)]
        with pytest.raises(StatementRefused):
            await thief.fetch("select set_config('request.user', 'ada', false)")
        assert await thief.fetch("select id from public.orders") == []
        role = node.guests.role_of("thief")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("drop policy by_setting on public.orders")
            admin.execute(f"create policy by_role on public.orders using (current_user = '{role}' and id = 1)".encode())
        async with node.guests.session("thief") as connection:
            await connection.execute("select set_config('request.user', 'ada', false)")
            assert await (await connection.execute("select id from public.orders")).fetchall() == [(1,)]
        assert await thief.fetch("select id from public.orders") == [{"id": 1}]
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("drop policy by_role on public.orders")


ENDLESS = [
    "with recursive r(n) as (values (1) union all select n + 1 from r) select count(*) from r",
    "with recursive r(n) as (values (1) union all select n + 1 from r) select n from r",
    "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b",
    "with recursive r(t) as (values ('x') union all select t || t from r where length(t) < 1e8) select max(t) from r",
    "select sum(factorial(20000)) from generate_series(1, 100000)",
]


@pytest.mark.parametrize("sql", ENDLESS)
async def test_case_36_what_does_not_end_is_ended_and_the_loop_goes_on(dsn: str, sql: str) -> None:
    async with scene(dsn) as (node, thief):
        stop, longest_s = asyncio.Event(), [0.0]

        async def measure() -> None:
            while not stop.is_set():
                before_s = time.thread_time()  # what the loop itself did, whatever else this machine does
                await asyncio.sleep(0)
                longest_s[0] = max(longest_s[0], time.thread_time() - before_s)

        watching = asyncio.ensure_future(measure())
        with pytest.raises((TimeoutError, ResultTooLarge, StatementFailed)):
            await thief.call("db.fetch", sql, timeout_s=0.4)
        stop.set()
        await watching
        assert longest_s[0] < 0.05, f"the node's loop stood still for {longest_s[0]:.3f} s"
        async with asyncio.timeout(20), await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher:
            query = "select count(*) from pg_stat_activity where usename = %s and state = 'active'"
            while (await (await watcher.execute(query, (node.guests.role_of("thief"),))).fetchone()) != (0,):
                await asyncio.sleep(0.02)
        assert await thief.value("select body from notes") == "kept"


async def test_a_guest_that_opens_all_its_connections_hinders_nobody_else(dsn: str) -> None:
    async with scene(dsn) as (node, thief):
        other = await node.author("other")
        slow = [asyncio.ensure_future(thief.call("db.fetch", ENDLESS[0], timeout_s=1.0)) for _ in range(20)]
        assert [await other.value("select 1") for _ in range(20)] == [1] * 20
        found = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(one, TimeoutError | MagError) for one in found)
        with suppress(MagError):
            await thief.value("select 1")


async def test_a_password_of_its_own_choice_locks_out_the_extension_alone(dsn: str) -> None:
    """Nothing but the guard keeps a role from changing its password; if that falls, nobody else is concerned."""
    async with scene(dsn) as (node, thief):
        async with node.guests.session("thief") as connection:
            await connection.execute(
                "alter role current_user password 'mine'; alter role current_user set role = 'postgres'"
            )
        await node.guests.forget("thief")
        async with node.guests.session("victim") as connection:
            assert await (await connection.execute("select body from notes")).fetchone() == ("kept",)
        with suppress(MagError):  # a role that it may not have, at login
            assert await thief.value("select current_user") == node.guests.role_of("thief")
        assert await partial(node.author, "fresh")()
