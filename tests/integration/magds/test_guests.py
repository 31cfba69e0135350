"""Guests on a real server: as a superuser and as the plain login of an embedded node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from magmobo.components.magds.database import read_grantable_roles
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import OwnSchemaRefused
from magmobo.components.magds.guests.errors import GuestInUse, GuestRightRefused, GuestsRefused, GuestUnknown
from magmobo.components.magds.guests.service import GuestService
from magmobo.components.magds.pool import Connection, Pool
from magmobo.contracts.guests import TableRight
from magmobo.contracts.planes import TableName
from magmobo.testing.postgres import PostgresServer

ORDERS = TableName("public", "orders")
LINES = TableName("sales", "lines")
TABLES = """
create table public.orders (id serial primary key, note text, price int);
insert into public.orders (note, price) values ('a', 1), ('b', 2);
create schema sales;
create table sales.lines (id int primary key, note text)
"""


class Node:
    """What a node has of a database: its pool and its guests."""

    def __init__(self, dsn: str, oid: int) -> None:
        self.pool = Pool(partial(connect, dsn), size=4, idle_s=60)
        self.guests = GuestService(dsn, partial(self.pool.lease, timeout_s=5), database_oid=oid, acquire_timeout_s=5)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Connection]:
        async with self.pool.lease(timeout_s=5) as connection, connection.transaction():
            yield connection

    async def make(self, guest: str, *rights: TableRight, schema: bool = True) -> None:
        async with self.change() as connection:
            await self.guests.ensure(connection, guest, schema=schema)
            await self.guests.grant(connection, guest, rights)

    async def drop(self, guest: str, *, keep_schema: bool = False) -> None:
        await self.guests.forget(guest)
        async with self.change() as connection:
            await self.guests.drop(connection, guest, keep_schema=keep_schema)

    async def ask(self, guest: str, query: str) -> list[tuple[Any, ...]]:
        async with self.guests.session(guest) as connection:
            cursor = await connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def node_at(dsn: str) -> AsyncIterator[Node]:
    with psycopg.connect(dsn) as admin:
        row = admin.execute("select oid::int8 from pg_database where datname = current_database()").fetchone()
    assert row is not None
    node = Node(dsn, row[0])
    try:
        yield node
    finally:
        await node.guests.close()
        await node.pool.close()


@pytest.fixture(params=["superuser", "login"])
def login(request: pytest.FixtureRequest, dsn: str, postgres: PostgresServer) -> Iterator[str]:
    """The DSN of the node: a superuser, or a role as the embedded server has it, owner of the database."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        name = admin.info.dbname
        if request.param == "login":
            role = f"node_{name}"
            admin.execute(f"create role {role} login createrole".encode())
            if admin.info.server_version >= 160_000:
                admin.execute(f"alter role {role} set createrole_self_grant = 'set'".encode())
            admin.execute(f"alter database {name} owner to {role}".encode())
    node = dsn if request.param == "superuser" else dsn.replace("user=postgres", f"user={role}")
    with psycopg.connect(node, autocommit=True) as own:
        own.execute(TABLES.encode())
    yield node
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin, psycopg.connect(dsn, autocommit=True) as inside:
        left = "select rolname::text from pg_roles where rolname like %s"
        oid = inside.execute("select oid::text from pg_database where datname = current_database()").fetchone()
        assert oid is not None
        for (guest,) in inside.execute(left, (f"mag_ext_{oid[0]}_%",)).fetchall():
            inside.execute(f"drop owned by {guest} cascade; drop role {guest}".encode())
        if request.param == "login":
            inside.execute(f"alter database {name} owner to postgres; drop owned by {role} cascade".encode())
            admin.execute(f"drop role {role}".encode())


async def test_a_guest_works_in_its_own_schema_and_nowhere_else(login: str) -> None:
    async with node_at(login) as node:
        await node.make("one")
        await node.make("two")
        role, schema = node.guests.role_of("one"), node.guests.schema_of("one")
        assert await node.ask("one", "select current_user::text, session_user::text") == [(role, role)]
        await node.ask("one", "create table notes (id int)")
        await node.ask("one", f"insert into {schema}.notes values (1)")
        assert await node.ask("one", "select id from notes") == [(1,)]
        for query in (
            "select * from public.orders",
            "select * from sales.lines",
            "create table public.mine (id int)",
            "create schema mine",
            "select * from mag.guest",
            "drop schema ext_one",
            "reset role; select * from public.orders",
            "set role postgres",
            "set session authorization postgres",
            "create role friend",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await node.ask("one", query)
        await node.ask("one", "grant all on notes to public; grant usage on schema ext_one to public")  # a warning
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await node.ask("two", "select * from ext_one.notes")


async def test_a_guest_is_nobody_that_a_request_may_be(login: str) -> None:
    async with node_at(login) as node:
        await node.make("one")
        async with node.change() as connection:
            assert node.guests.role_of("one") not in await read_grantable_roles(connection)
            found = await connection.execute(
                "select count(*) from pg_auth_members m join pg_roles r on r.oid = m.roleid where r.rolname = %s "
                "and coalesce((to_jsonb(m) ->> 'set_option')::bool, true)",
                (node.guests.role_of("one"),),
            )
            assert await found.fetchone() == (0,), "the node could become the guest, or requests could"


async def test_doing_it_again_changes_nothing_and_a_second_node_gets_in(login: str) -> None:
    async with node_at(login) as node, node_at(login) as other:
        await node.make("one", TableRight(ORDERS, ("select",)))
        marks = (
            "select xmin::text from pg_class where relname = 'orders' union all "
            "select xmin::text from pg_namespace where nspname = 'ext_one' union all "
            "select xmin::text from pg_db_role_setting where setrole = (select oid from pg_roles "
            "where rolname = current_user)"
        )
        before = await node.ask("one", marks)
        assert len(before) == 3
        await other.make("one", TableRight(ORDERS, ("select",)))
        assert await other.ask("one", marks) == before
        assert await other.ask("one", "select count(*) from public.orders") == [(2,)]


async def test_rights_are_exactly_those_that_were_given_last(login: str) -> None:
    async with node_at(login) as node:
        await node.make(
            "one", TableRight(ORDERS, ("select", "insert", "update", "delete")), TableRight(LINES, ("select",))
        )
        await node.ask("one", "insert into public.orders (note) values ('by the guest')")  # a serial column
        assert await node.ask("one", "select count(*) from sales.lines") == [(0,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await node.ask("one", "insert into sales.lines values (1)")
        await node.make("one", TableRight(ORDERS, ("select",), ("id", "note")))
        assert len(await node.ask("one", "select id, note from public.orders")) == 3
        for query in (
            "select price from public.orders",
            "select * from public.orders",
            "delete from public.orders",
            "update public.orders set note = 'x'",
            "select nextval('public.orders_id_seq')",
            "select * from sales.lines",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await node.ask("one", query)
        await node.make("one")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await node.ask("one", "select id from public.orders")


@pytest.mark.parametrize(
    "right",
    [
        TableRight(TableName("public", "nothing"), ("select",)),
        TableRight(TableName("pg_catalog", "pg_authid"), ("select",)),
        TableRight(TableName("information_schema", "tables"), ("select",)),
        TableRight(TableName("mag", "guest"), ("select",)),
        TableRight(TableName("ext_two", "notes"), ("select",)),
        TableRight(TableName("public", "orders_id_seq"), ("select",)),
        TableRight(ORDERS, ("truncate",)),
        TableRight(ORDERS, ("select",), ("nothing",)),
        TableRight(ORDERS, ("delete",), ("id",)),
    ],
)
async def test_what_cannot_be_given_changes_nothing(login: str, right: TableRight) -> None:
    async with node_at(login) as node:
        await node.make("one", TableRight(ORDERS, ("select",)))
        with pytest.raises(GuestRightRefused) as caught:
            await node.make("one", TableRight(LINES, ("select",)), right)
        assert str(right.table) in str(caught.value)
        assert caught.value.next_step()
        assert await node.ask("one", "select count(*) from public.orders") == [(2,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await node.ask("one", "select * from sales.lines")


async def test_a_right_that_is_not_the_nodes_to_give_names_the_grant(dsn: str, postgres: PostgresServer) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        login = f"half_{admin.info.dbname}"
        admin.execute(TABLES.encode())
        admin.execute(f"create role {login} login createrole; grant select on public.orders to {login}".encode())
        admin.execute(f"grant create on database {admin.info.dbname} to {login}".encode())
    try:
        async with node_at(dsn.replace("user=postgres", f"user={login}")) as node:
            with pytest.raises(GuestRightRefused) as caught:
                await node.make("one", TableRight(ORDERS, ("select",)))
            step = caught.value.next_step()
            assert "WITH GRANT OPTION" in step
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(step.partition(": ")[2].encode())
            await node.make("one", TableRight(ORDERS, ("select",)))
            assert await node.ask("one", "select count(*) from public.orders") == [(2,)]
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(f"grant delete on public.orders to {node.guests.role_of('one')}".encode())
            with pytest.raises(GuestRightRefused) as caught:
                await node.make("one", TableRight(ORDERS, ("select",)))
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(caught.value.next_step().partition(": ")[2].encode())
            await node.make("one", TableRight(ORDERS, ("select",)))
            await node.drop("one")
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"drop owned by {login} cascade; drop role {login}".encode())


async def test_dropped_with_its_schema_nothing_is_left(login: str) -> None:
    async with node_at(login) as node:
        await node.make("one", TableRight(ORDERS, ("select", "insert")), TableRight(LINES, ("select",)))
        await node.ask("one", "create table notes (id serial, at timestamptz)")
        await node.drop("one")
        await node.drop("one")
        async with node.change() as connection:
            left = await connection.execute(
                "select count(*) from pg_roles where rolname = %s union all "
                "select count(*) from pg_namespace where nspname = 'ext_one' union all "
                "select count(*) from mag.guest union all "
                "select count(*) from pg_class where relacl::text like '%%mag_ext_%%'",
                (node.guests.role_of("one"),),
            )
            assert await left.fetchall() == [(0,)] * 4
        with pytest.raises(GuestUnknown):
            await node.ask("one", "select 1")


async def test_a_schema_that_stays_is_the_guests_again_when_it_comes_back(login: str) -> None:
    async with node_at(login) as node:
        await node.make("one")
        await node.ask(
            "one",
            "create type mood as enum ('good', 'bad'); create table notes (id serial primary key, mood mood, "
            "n int generated always as identity); create view happy as select * from notes where mood = 'good'; "
            "create sequence free; insert into notes (mood) values ('good')",
        )
        await node.drop("one", keep_schema=True)
        async with node.change() as connection:
            assert await (await connection.execute("select count(*) from ext_one.notes")).fetchone() == (1,)
            exists = await connection.execute("select from pg_roles where rolname = %s", (node.guests.role_of("one"),))
            assert await exists.fetchone() is None
        with pytest.raises(GuestUnknown):
            await node.ask("one", "select 1")
        await node.make("one")
        await node.ask("one", "insert into notes (mood) values ('bad'); select nextval('free')")
        assert await node.ask("one", "select count(*) from happy") == [(1,)]
        await node.ask("one", "drop view happy; drop table notes; drop type mood; drop sequence free")
        await node.drop("one", keep_schema=True)
        await node.drop("one")
        async with node.change() as connection:
            found = await connection.execute("select count(*) from pg_namespace where nspname = 'ext_one'")
            assert await found.fetchone() == (0,)


async def test_what_others_built_on_a_guests_tables_is_not_taken_with_them(login: str) -> None:
    async with node_at(login) as node:
        await node.make("one")
        await node.ask("one", "create table notes (id int primary key); grant select on notes to public")
        await node.ask("one", "create view inside as select * from notes")
        await node.drop("one", keep_schema=True)
        with psycopg.connect(login, autocommit=True) as own:
            own.execute("create view public.report as select * from ext_one.notes")
        await node.make("one")
        with pytest.raises(GuestInUse, match=r"public\.report"):
            await node.drop("one")
        assert await node.ask("one", "select count(*) from notes") == [(0,)]
        with psycopg.connect(login, autocommit=True) as own:
            own.execute("drop view public.report")
        await node.drop("one")


async def test_a_schema_of_somebody_else_is_not_taken(login: str) -> None:
    with psycopg.connect(login, autocommit=True) as own:
        own.execute("create schema ext_one; create table ext_one.precious (id int)")
    async with node_at(login) as node:
        with pytest.raises(GuestsRefused, match="ext_one"):
            await node.make("one")
        await node.make("one", schema=False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await node.ask("one", "select * from ext_one.precious")
        await node.drop("one")
        async with node.change() as connection:
            assert await (await connection.execute("select count(*) from ext_one.precious")).fetchone() == (0,)


async def test_a_role_that_is_more_than_a_guest_is_refused(dsn: str) -> None:
    async with node_at(dsn) as node:
        role = node.guests.role_of("strong")
        for attributes in ("superuser", "bypassrls", "createrole", "in role pg_read_all_data"):
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(f"create role {role} login {attributes}".encode())
            try:
                with pytest.raises(GuestsRefused, match="more than"):
                    await node.make("strong")
            finally:
                with psycopg.connect(dsn, autocommit=True) as admin:
                    admin.execute(f"drop role {role}".encode())


async def test_what_stands_in_our_place_is_not_used(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        stranger = f"stranger_{admin.info.dbname}"
        admin.execute(f"create role {stranger}; create schema mag authorization {stranger}".encode())
    try:
        async with node_at(dsn) as node:
            with pytest.raises(OwnSchemaRefused, match=stranger):
                await node.guests.check()
            with pytest.raises(OwnSchemaRefused, match=stranger):
                await node.make("one")
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("alter schema mag owner to postgres")
                admin.execute(f"create view mag.guest as select 1; alter view mag.guest owner to {stranger}".encode())
            with pytest.raises(OwnSchemaRefused, match=r"table mag\.guest"):
                await node.make("one")
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"drop owned by {stranger} cascade; drop role {stranger}".encode())


async def test_a_login_that_may_not_names_the_statement_that_helps(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        login = f"plain_{admin.info.dbname}"
        admin.execute(f"create role {login} login".encode())
    try:
        async with node_at(dsn.replace("user=postgres", f"user={login}")) as node:
            for words in ("CREATEROLE", "GRANT CREATE ON DATABASE"):
                with pytest.raises(GuestsRefused) as caught:
                    await node.guests.check()
                assert words in caught.value.next_step()
                with psycopg.connect(dsn, autocommit=True) as admin:
                    admin.execute(caught.value.next_step().partition(": ")[2].encode())
            await node.guests.check()
            await node.make("one")
            await node.drop("one")
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"drop owned by {login} cascade; drop role {login}".encode())


async def test_a_database_that_is_closed_to_others_is_opened_for_the_guest(login: str) -> None:
    with psycopg.connect(login, autocommit=True) as own:
        own.execute(f"revoke connect on database {own.info.dbname} from public".encode())
    async with node_at(login) as node:
        await node.make("one")
        assert await node.ask("one", "select 1") == [(1,)]
        await node.drop("one")


async def test_a_rollback_takes_everything_back(login: str) -> None:
    async with node_at(login) as node:
        async with node.change() as connection:
            await node.guests.ensure(connection, "one", schema=True)
            await node.guests.grant(connection, "one", [TableRight(ORDERS, ("select",))])
            raise psycopg.Rollback  # as a crash would
        with pytest.raises(GuestUnknown):
            await node.ask("one", "select 1")
        async with node.change() as connection:
            found = await connection.execute(
                "select count(*) from pg_roles where rolname = %s", (node.guests.role_of("one"),)
            )
            assert await found.fetchone() == (0,)


async def test_the_callers_settings_and_rows_are_as_they_were(login: str) -> None:
    async with node_at(login) as node:
        async with node.change() as connection:
            connection.row_factory = dict_row  # type: ignore[assignment]
            await connection.execute("set local search_path = sales, public")
            await node.guests.ensure(connection, "one", schema=True)
            await node.guests.grant(connection, "one", [TableRight(ORDERS, ("select",))])
            cursor: Any = await connection.execute("select current_setting('search_path') as path")
            assert await cursor.fetchone() == {"path": "sales, public"}
        async with node.pool.lease(timeout_s=5) as connection:
            with pytest.raises(ValueError, match="transaction"):
                await node.guests.ensure(connection, "two", schema=True)


async def test_a_cancelled_task_ends_its_statement_and_forget_ends_all(login: str, postgres: PostgresServer) -> None:
    running = "select count(*) from pg_stat_activity where usename = %s and state = 'active' and query like '%%sleep%%'"
    async with node_at(login) as node, await connect(postgres.dsn()) as watcher:
        await node.make("one")
        role = node.guests.role_of("one")

        async def count() -> int:
            row = await (await watcher.execute(running, (role,))).fetchone()
            assert row is not None
            return int(row[0])

        async def until(wanted: int) -> None:
            async with asyncio.timeout(30):
                while await count() != wanted:
                    await asyncio.sleep(0.01)

        task = asyncio.ensure_future(node.ask("one", "select pg_sleep(60)"))
        await until(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(0)
        task = asyncio.ensure_future(node.ask("one", "select pg_sleep(60)"))
        await until(1)
        await node.guests.forget("one")
        await until(0)
        with pytest.raises(psycopg.Error):
            await task


async def test_a_session_comes_back_clean(login: str) -> None:
    async with node_at(login) as node:
        await node.make("one")
        async with node.guests.session("one") as connection:
            await connection.execute(
                "set search_path = public; set statement_timeout = 0; listen noise; select pg_advisory_lock(7); "
                "create temp table trace (id int); select set_config('app.user', 'bob', false)"
            )
        query = (
            "select current_setting('search_path'), current_setting('statement_timeout'), "
            "to_regclass('pg_temp.trace') is null, coalesce(current_setting('app.user', true), ''), "
            "(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())"
        )
        assert await node.ask("one", query) == [("ext_one, pg_temp", "1min", True, "", 0)]


async def test_a_password_that_another_node_changed_is_read_again(login: str) -> None:
    async with node_at(login) as node, node_at(login) as other:
        await node.make("one")
        assert await other.ask("one", "select 1") == [(1,)]
        await node.drop("one")
        await other.guests.forget("one")
        await node.make("one")
        assert await other.ask("one", "select 1") == [(1,)]
        for name in ("", "One", "1a", "a-b", "a" * 42, "a;drop", 'a"'):
            with pytest.raises(ValueError, match="no name"):
                node.guests.role_of(name)


async def test_other_settings_reach_sessions_by_new_connections(login: str) -> None:
    query = "select current_setting('application_name'), pg_backend_pid()"
    async with node_at(login) as node:
        await node.make("one")
        [(name, pid)] = await node.ask("one", query)
        node.guests.adjust(f"{login} application_name=other", acquire_timeout_s=5, renew=False)
        assert await node.ask("one", query) == [(name, pid)]
        node.guests.adjust(f"{login} application_name=other", acquire_timeout_s=5, renew=True)
        [(renamed, another)] = await node.ask("one", query)
        assert (renamed, another == pid) == ("other", False)
